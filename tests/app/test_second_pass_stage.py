"""The second pass as a stage: what was cut off goes on, and harms nothing that is finished."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from micro import FIT, linked
from safetensors.torch import load_file

from e2llm.app import second_pass_stage, stages
from e2llm.app.runs import Progress, StageMissing
from e2llm.app.second_pass_stage import instruct_second_pass, open_second_pass
from e2llm.core.claims import salient_claims
from e2llm.training.second_pass import SecondPassParams

ADAPTER = SecondPassParams(rank=2, alpha=4)
PARAMS = replace(FIT, steps=6, batch_size=16, save_steps=2)


class Cut(KeyboardInterrupt):
    """The kernel was interrupted."""


@pytest.fixture
def copied(micro_run, tmp_path):
    return lambda name: linked(micro_run, tmp_path, name)


def cut_at(step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Interrupt the training at a step; returns the steps that were reported."""
    seen, update = [], Progress.update

    def watched(self, at: int, **facts: object) -> None:
        seen.append(at)
        update(self, at, **facts)
        if at == step:
            raise Cut

    monkeypatch.setattr(second_pass_stage.Progress, "update", watched)
    return seen


def test_a_second_pass_that_was_cut_off_ends_as_if_it_had_not_been(copied, monkeypatch):
    whole, cut = copied("whole"), copied("cut")
    corpus = stages.open_dataset(whole)
    expected = instruct_second_pass(whole, corpus, ADAPTER, PARAMS)
    with monkeypatch.context() as patch:
        assert cut_at(5, patch) == []
        with pytest.raises(Cut):
            instruct_second_pass(cut, corpus, ADAPTER, PARAMS)
    assert cut.finished("second_pass") is None
    with pytest.raises(StageMissing):
        open_second_pass(cut, corpus)
    with monkeypatch.context() as patch:
        seen = cut_at(-1, patch)
        found = instruct_second_pass(cut, corpus, ADAPTER, PARAMS)
    assert seen == [5, 6], "from the checkpoint of step 4"
    weights = [load_file(stage.path / "lora" / "adapter_model.safetensors") for stage in (expected, found)]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    pd.testing.assert_frame_equal(*(pd.read_csv(stage.path / "history.csv") for stage in (expected, found)))


def test_the_answers_stand_while_another_second_pass_is_cut_off(copied, monkeypatch):
    run = copied("again")
    corpus = stages.open_dataset(run)
    stated = [salient_claims(z, corpus.evidence_names) for z in corpus.z[corpus.split.test[:4]]]
    instruct_second_pass(run, corpus, ADAPTER, PARAMS)
    before = open_second_pass(run, corpus).shares(stated)
    with monkeypatch.context() as patch:
        cut_at(2, patch)
        with pytest.raises(Cut):
            instruct_second_pass(run, corpus, replace(ADAPTER, noise=0.1), PARAMS)
    np.testing.assert_array_equal(open_second_pass(run, corpus).shares(stated), before)
    instruct_second_pass(run, corpus, replace(ADAPTER, noise=0.1), PARAMS)
    assert np.abs(open_second_pass(run, corpus).shares(stated) - before).max() > 0


def test_a_finished_second_pass_is_not_trained_again(copied, monkeypatch):
    run = copied("once")
    corpus = stages.open_dataset(run)
    instruct_second_pass(run, corpus, ADAPTER, PARAMS)
    seen = cut_at(1, monkeypatch)
    assert instruct_second_pass(run, corpus, ADAPTER, PARAMS).done and not seen
