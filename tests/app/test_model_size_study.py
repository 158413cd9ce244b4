"""Sizes share what they have in common, differ in the language model alone, and are measured on the same people and
items."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from micro import FIT, LANGUAGE_MODEL, linked

from e2llm.app import model_size_study, parameters, reasoning_stage, stages
from e2llm.app.model_size_study import BASE, gather, measure, share_stages, study, train_size
from e2llm.app.runs import Run, StageMissing
from e2llm.core.claims import Claim, salient_claims
from e2llm.core.files import checksum, read_json, write_json
from e2llm.evaluation import faithfulness, tiers
from e2llm.evaluation.metrics import balanced_accuracy
from e2llm.evaluation.person_bootstrap import drawn, scores
from e2llm.evaluation.studies import model_size
from e2llm.evaluation.studies.model_size import SIZES, Schedule, claim_sums
from e2llm.models.language import ScratchParams
from e2llm.tasks import items as items_module
from e2llm.tasks.wordings import PREDICT_WORDINGS, ZERO_SHOT_WORDINGS
from e2llm.training import stage3_instruction
from e2llm.training.trainer import FitParams

KINDS = {"predict": 8, "match": 4, "compare": 4}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory, micro_run) -> Run:
    """A base run of a few steps; three people, all of them tested on clips that none was trained on."""
    folder = tmp_path_factory.mktemp("sizes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2LLM_RUNS", str(folder))
        yield linked(micro_run, folder, "base")


@pytest.fixture
def sizes(monkeypatch) -> None:
    """Two sizes as small as they can be."""
    for module in (model_size, model_size_study):
        monkeypatch.setattr(module, "SIZES", {"scratch-small": LANGUAGE_MODEL,
                                              "scratch-wide": replace(LANGUAGE_MODEL, hidden_size=96)})


@pytest.fixture(scope="module")
def measured(base) -> dict:
    """Sums, answers and record of the measured base."""
    stage = measure(base, stages.open_dataset(base), 6)
    read = {name: pd.read_csv(stage.path / f"{name}.csv", dtype={"subject": str, "sums": str})
            for name in ("sums", "answers")}
    return read | {"record": base.require("scaling")}


# --- shared stages


def test_a_shared_stage_is_finished_linked_and_not_made_again(base):
    run = Run.open("sharing")
    share_stages(base, run)
    assert run.require("encoder") == base.require("encoder") and run.require("windows") == base.require("windows")
    data = Path("windows/signal/data.npy")
    assert (run.path / data).stat().st_ino == (base.path / data).stat().st_ino
    corpus = stages.open_dataset(run)
    assert corpus.predicted_evidence is not None and len(corpus.split.test)
    before = (run.path / "encoder" / "stage.json").stat().st_mtime_ns
    share_stages(base, run)
    assert (run.path / "encoder" / "stage.json").stat().st_mtime_ns == before
    assert not list(run.path.glob(".sharing-*"))
    assert set(json.loads((run.path / "manifest.json").read_text())["stages"]) == {"windows", "encoder"}


def test_where_links_are_not_possible_files_are_copied(base, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    run = Run.open("copied")
    share_stages(base, run, ["windows"])
    assert run.finished("windows") == base.require("windows")
    assert (run.path / "windows/labels.json").stat().st_ino != (base.path / "windows/labels.json").stat().st_ino


def test_a_changed_base_replaces_what_was_shared_and_the_other_run_keeps_its_files(base):
    other, run = Run.open("changing"), Run.open("follower")
    share_stages(base, other)
    share_stages(other, run, ["windows"])
    stage = other.stage("windows", {"source": "other"})
    stage.begin().path.joinpath("labels.json").write_text("{}")
    stage.finish()
    share_stages(other, run, ["windows"])
    assert run.require("windows") == other.require("windows") != base.require("windows")
    assert not (run.path / "windows/signal").exists() and (base.path / "windows/signal/data.npy").is_file()


def test_an_unfinished_base_is_named_with_the_notebook_to_run():
    run, empty = Run.open("asking"), Run.open("empty")
    with pytest.raises(StageMissing, match="01_preprocessing with run_name = 'empty'"):
        share_stages(empty, run)
    assert not (run.path / "windows").exists()


# --- sizes


def test_one_size_differs_in_size_and_learning_rate_alone(base, sizes):
    run = train_size(base, "scratch-wide", 0)
    assert run.name == "base-scale-scratch-wide-seed0"
    for stage, subject in (("language_model", "fit"), ("projector", "fit"), ("adapter", "fit")):
        own, of_base = (dict(each.require(stage)["params"]) for each in (run, base))
        own_fit, base_fit = own.pop(subject), of_base.pop(subject)
        assert own_fit.pop("lr") == pytest.approx(base_fit.pop("lr") / 2), "twice as wide, half the rate"
        assert own_fit == base_fit
        if stage == "adapter":
            assert own["adapter"].pop("projector_lr") == pytest.approx(of_base["adapter"].pop("projector_lr") / 2)
        if stage == "language_model":
            assert own.pop("scratch")["hidden_size"] == 2 * of_base.pop("scratch")["hidden_size"]
        assert own == of_base, stage
    for items in ("projector/items.jsonl", "adapter/items.jsonl"):
        assert (run.path / items).read_bytes() == (base.path / items).read_bytes(), "the same items"
    before = run.require("adapter")
    assert train_size(base, "scratch-wide", 0).require("adapter") == before, "finished sizes are skipped"


def test_share_of_steps_precision_and_seed_have_runs_of_their_own(base, sizes):
    run = train_size(base, "scratch-small", 3, Schedule(0.5))
    assert run.name == "base-scale-scratch-small-x0.5-seed3"
    fits = [run.require(stage)["params"]["fit"] for stage in ("language_model", "projector", "adapter")]
    assert {(fit["steps"], fit["bf16"], fit["seed"]) for fit in fits} == {(2, False, 3)}
    both = Schedule(0.5, bf16=True)
    assert both.name("base", "./models/a b", 1) == "base-scale-models_a_b-bf16-x0.5-seed1"
    assert both.fit(fits[0], 1, 0.5) == FitParams(1, 4, fits[0]["lr"] / 2, seed=1, bf16=True)
    with pytest.raises(ValueError, match="above zero"):
        Schedule(0.0)


def test_a_local_folder_is_a_size_and_the_base_is_one_itself(base):
    folder = base.path / "language_model" / "model"
    run = train_size(base, str(folder))
    assert run.require("language_model")["params"]["name"] == str(folder)
    fits = [each.require("projector")["params"]["fit"] for each in (run, base)]
    assert fits[0] == fits[1], "equal widths, equal rates"
    assert train_size(base, BASE) == base == train_size(base, "run:base")


def test_a_finished_run_is_a_size_if_its_encoder_is_the_base_s(base):
    other = Run(name="moved", path=Path(shutil.copytree(base.path, base.path.parent / "moved")), root=base.root)
    assert train_size(base, "run:moved").path == other.path
    record = json.loads((other.path / "encoder" / "stage.json").read_text())
    stage = other.stage("encoder", {**record["params"], "weights": "others.ckpt"}, needs=("windows",))
    files = {name: (other.path / "encoder" / name).read_bytes() for name in record["files"]}
    stage.begin()
    for name, content in files.items():
        (stage.path / name).write_bytes(content)
    stage.finish()
    with pytest.raises(StageMissing, match="adapter"):  # made from another encoder
        train_size(base, "run:moved")
    corpus = stages.open_dataset(other)
    stages.align(other, corpus, 1, 2, 8, 1.0, FIT)
    stages.instruct(other, corpus, KINDS, 4, stage3_instruction.AdapterParams(rank=2, alpha=4), FIT)
    with pytest.raises(ValueError, match="stage 'encoder' of the run 'moved' was not made as that of 'base'"):
        train_size(base, "run:moved")


def test_scratch_sizes_of_a_base_that_loaded_its_model_take_the_default_schedule(base, sizes, monkeypatch):
    run = Run.open("loaded")
    share_stages(base, run)
    stages.make_language_model(run, stages.open_dataset(run), str(base.path / "language_model" / "model"), "float32",
                               LANGUAGE_MODEL, 0, 0, FIT)
    stages.align(run, stages.open_dataset(run), 1, 2, 8, 1.0, FIT)
    stages.instruct(run, stages.open_dataset(run), KINDS, 0, stage3_instruction.AdapterParams(rank=2, alpha=4), FIT)
    monkeypatch.setattr(model_size_study, "DEFAULTS", parameters.checked(
        {"language_steps": 3, "drill_steps": 1, "language_items": 40, "batch_size": 4}))
    made = train_size(run, "scratch-small").require("language_model")["params"]
    assert made["name"] == "scratch" and made["n_items"] == 40 and made["drill_steps"] == 1
    assert made["fit"]["steps"] == 3
    assert made["fit"]["lr"] == pytest.approx(4e-3 * ScratchParams().hidden_size / LANGUAGE_MODEL.hidden_size)


def test_sizes_grow_and_can_be_made():
    from e2llm.models.language import make_tokenizer, new_language_model

    tokenizer = make_tokenizer(["a b c"], 300)
    counts = [sum(p.numel() for p in new_language_model(tokenizer, size, 0).parameters())
              for size in list(SIZES.values())[:4]]
    assert counts == sorted(counts) and {size.vocab_size for size in SIZES.values()} == {ScratchParams().vocab_size}
    assert SIZES["scratch-600k"].init_std == pytest.approx(ScratchParams().init_std,
                                                           abs=0.003), "the default run's own size"


# --- what is measured


def test_every_measure_has_its_controls(measured):
    have = set(map(tuple, measured["sums"][["statistic", "source"]].drop_duplicates().to_numpy()))
    controls = ("EEG", "shuffled EEG", "no EEG")
    for statistic in ("answers", "confidence", "claims", "parsed", "zero_shot", "zero_predict", "zero_match",
                      "zero_choose"):
        assert {(statistic, source) for source in controls} <= have
    assert {(name, source) for name in ("wordings", "unseen wordings") for source in controls[:2]} <= have
    assert {("thought", "EEG"), ("answers", model_size.HEAD), ("confidence", model_size.HEAD)} <= have


def test_sums_are_those_of_the_answers_that_lie_beside_them(base, measured):
    answers, corpus = measured["answers"], stages.open_dataset(base)
    assert answers["window"].tolist() == corpus.split.test.tolist()
    people = measured["sums"].assign(size="base", parameters=1, origin="scratch", seed=0)
    expected = balanced_accuracy(answers["label"].to_numpy(), answers["answer"].to_numpy(),
                                 answers["subject"].to_numpy(), 7)
    assert drawn(people, "accuracy")["base"].score().value == pytest.approx(expected.value)
    with np.load(base.path / "encoder" / "answers.npz") as stored:
        at = np.searchsorted(stored["rows"], corpus.split.test)
        head = stored["logits"][at].argmax(axis=1)
    expected = balanced_accuracy(corpus.labels[corpus.split.test], head, corpus.subjects[corpus.split.test], 7)
    assert drawn(people, "accuracy", model_size.HEAD)["base"].value == pytest.approx(expected.value)
    zero = drawn(people, "zero-shot")["base"]
    assert zero.value == pytest.approx(np.mean([drawn(people, kind)["base"].value for kind in tiers.TIER_3]))
    assert zero.chance == pytest.approx((1 / 7 + 1 / 3 + 1 / 3) / 3)


def test_costs_are_measured(measured):
    cost = measured["record"]["metrics"]
    assert cost["parameters"] > cost["trained_parameters"] > 0 and cost["seconds_a_step"] > 0
    assert cost["steps"] == 2 * FIT.steps and cost["batch_size"] == FIT.batch_size
    assert cost["tokens_a_second"] > 0 and cost["generated_tokens_a_second"] > 0


def test_a_measured_run_is_not_measured_again(base, monkeypatch):
    corpus = stages.open_dataset(base)
    measure(base, corpus, 6)
    monkeypatch.setattr(model_size_study, "open_engine", lambda run: pytest.fail("measured again"))
    assert measure(base, corpus, 6).done


def test_wordings_change_the_words_and_nothing_else(base):
    corpus = stages.open_dataset(base)
    (item,) = items_module.prediction_items(corpus, corpus.split.test[:1], 0)
    other = model_size._reworded(item, ZERO_SHOT_WORDINGS[0].format(noun="emotion"))
    first, second = (each.messages[0]["content"] for each in (item, other))
    assert first[0] == second[0] and first[1]["text"] != second[1]["text"]
    assert second[1]["text"] == " This EEG segment shows a person. Which emotion fits?"
    assert replace(other, messages=item.messages) == item
    assert len(PREDICT_WORDINGS) > model_size.N_WORDINGS <= len(ZERO_SHOT_WORDINGS)


def test_agreement_is_of_models_that_use_eeg_and_not_of_ones_that_guess(base, monkeypatch):
    """A model that knows the window answers every wording alike; under the control each wording is asked about another
    window.
    """
    corpus = stages.open_dataset(base)
    engine, test = reasoning_stage.open_engine(base), corpus.split.test
    items = items_module.prediction_items(corpus, test, 0)
    window_of = {row: int(window) for window, row in engine.position.items()}

    def knows(engine, asked):
        predicted_evidence = [window_of[engine.position[item.windows[0]]] for item in asked]
        return np.eye(7)[corpus.labels[predicted_evidence]]

    monkeypatch.setattr(model_size, "closed_set", knows)
    found = model_size.wording_sums(engine, corpus, items, 0)
    value = {key: float(scaling_kappa(np.sum(list(sums.values()), axis=0))) for key, sums in found.items()}
    assert value["wordings", "EEG"] == pytest.approx(1.0) == value["unseen wordings", "EEG"]
    assert abs(value["wordings", "shuffled EEG"]) < 0.15


def scaling_kappa(sums: np.ndarray) -> np.ndarray:
    from e2llm.evaluation.person_bootstrap import fleiss_kappa

    return fleiss_kappa(sums)


def test_claims_of_each_person_add_up_to_the_precision_of_all(base):
    corpus = stages.open_dataset(base)
    rows = corpus.split.test
    claims = [salient_claims(corpus.z[row], corpus.evidence_names) for row in rows]
    claims[0] = (Claim(corpus.evidence_names.columns[0], "typical"), Claim("nowhere", "low"))
    claims = [() if corpus.subjects[row] == corpus.subjects[rows[-1]] else said
              for row, said in zip(rows, claims, strict=True)]
    expected = faithfulness.claim_precision(claims, corpus.z[rows], corpus.evidence_names, corpus.subjects[rows])
    sums = claim_sums(corpus, rows, claims)
    total = np.sum(list(sums.values()), axis=0)
    assert total[0] / total[2] == pytest.approx(expected.value)
    assert total[1] / total[2] == pytest.approx(expected.chance)
    assert sums[str(corpus.subjects[rows[-1]])].tolist() == [0, 0, 0]


# --- the study


def test_a_study_gathers_sizes_and_lists_what_could_not_be_loaded(base, sizes, measured):
    finished = []
    found = study(base, [BASE, "scratch-small", "./nowhere"], [0, 1], 6, on_run=finished.append)
    assert finished == ["base", "base-scale-scratch-small-seed0", "base-scale-scratch-small-seed1"]
    assert list(found.missing) == ["./nowhere"] and "is no folder" in found.missing["./nowhere"]
    assert set(found.people["size"]) == {BASE, "scratch-small"} and len(found.costs) == 3
    table = scores(found.people)
    assert set(table["people"]) == {3}
    seeds = drawn(found.people, "agreement, seeds")
    assert list(seeds) == ["scratch-small"], "only what was trained twice agrees with itself"
    folder = base.path.parent
    pd.testing.assert_frame_equal(pd.read_csv(folder / "base-scaling.csv"), table, check_dtype=False)
    again = pd.read_csv(folder / "base-scaling-people.csv", dtype={"subject": str, "sums": str})
    pd.testing.assert_frame_equal(scores(again), table)
    assert len(pd.read_csv(folder / "base-scaling-costs.csv")) == 3


def test_seeds_of_other_windows_are_not_compared(base, sizes, measured):
    other = Run(name="other", path=Path(shutil.copytree(base.path, base.path.parent / "other")), root=base.root)
    answers = pd.read_csv(other.path / "scaling" / "answers.csv")
    size = (other.path / "scaling" / "answers.csv").stat().st_size
    answers["window"] = answers["window"].to_numpy()[::-1]
    answers.to_csv(other.path / "scaling" / "answers.csv", index=False)
    assert (other.path / "scaling" / "answers.csv").stat().st_size == size
    record = read_json(other.path / "scaling" / "stage.json")
    record["files"]["answers.csv"]["sha256"] = checksum(other.path / "scaling" / "answers.csv")
    write_json(other.path / "scaling" / "stage.json", record)
    with pytest.raises(ValueError, match="seeds of scratch-small were not tested on the same windows"):
        gather({"scratch-small": {0: base, 1: other}})


@pytest.mark.parametrize(("sizes", "seeds"), [([], [0]), (["base", "base"], [0]), (["base"], []), (["base"], [1, 1])])
def test_a_study_without_sizes_or_with_one_twice_is_refused(base, sizes, seeds):
    with pytest.raises(ValueError, match="different sizes and seeds"):
        study(base, sizes, seeds, 6)
