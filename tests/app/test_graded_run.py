"""Evidence in graded words goes through every stage, the evaluation, a question and an export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from micro import FIT, LANGUAGE_MODEL, linked
from recordings import write_edf

from e2llm.app import evaluation_stage, stages
from e2llm.app.chat_session import E2LLM, ExportedModel
from e2llm.app.hub_export import export
from e2llm.app.runs import Run
from e2llm.core.claims import GRADED, LOW_HIGH, SCALES
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.evaluation.reasoning import generate_explanations
from e2llm.tasks.items import prediction_items, read_items
from e2llm.tasks.thought_parser import parse
from e2llm.training.stage3_instruction import AdapterParams


@pytest.fixture(scope="module")
def run(micro_run, tmp_path_factory) -> Run:
    run = linked(micro_run, tmp_path_factory.mktemp("runs"), "graded")
    corpus = stages.open_dataset(run, levels="graded")
    stages.make_language_model(run, corpus, "scratch", "float32", LANGUAGE_MODEL, 40, 1, FIT)
    stages.align(run, corpus, 1, 6, 8, 1.0, FIT)
    stages.instruct(run, corpus, {"predict": 24, "match": 4}, 4, AdapterParams(rank=2, alpha=4), FIT)
    evaluation_stage.evaluate(run, corpus, None, 3, 2, False, False, 0, n_jobs=1)
    return run


def test_the_scale_of_a_run_is_that_of_its_second_stage(micro_run, run):
    assert stages.open_dataset(micro_run).evidence_names.scale is LOW_HIGH
    assert stages.open_dataset(run).evidence_names.scale is GRADED
    model, _ = stages.open_instructed(run)
    assert SCALES[model.config.levels] == model.projector.evidence.scale == GRADED
    assert model.projector.evidence.levels.shape[0] == 6


def test_thoughts_that_it_learns_from_say_degrees(run):
    labels = stages.open_dataset(run).label_set.labels
    thoughts = [item.thought for item in read_items(run.path / "adapter" / "items.jsonl") if item.kind == "predict"]
    found = [parse(thought, labels, GRADED) for thought in thoughts]
    assert all(parsed.readable for parsed in found)
    said = {claim.level for parsed in found for claim in parsed.claims}
    assert said <= set(GRADED.words) - {"typical"} and len(said) >= 4


def test_claims_of_its_texts_are_read_on_its_scale(run):
    corpus, engine = stages.open_dataset(run), evaluation_stage.open_engine(run)
    items = prediction_items(corpus, corpus.split.test[:8], 0)
    claims = [claim for found in generate_explanations(engine, corpus, items).claims for claim in found]
    assert {claim.level for claim in claims} <= set(GRADED.words)


def test_an_export_keeps_the_scale(run, twin, tmp_path: Path):
    corpus = stages.open_dataset(run)
    said = E2LLM.of_run(run, corpus).ask(int(corpus.split.test[0]), "predict")
    assert str(said) and sum(said.probabilities.values()) == pytest.approx(1)
    model = ExportedModel.from_pretrained(export(run, tmp_path / "exported", "mit", "made for a test", corpus))
    trials = SeedVII(twin).trials(SeedVII(twin).recordings[0])
    signal = np.concatenate([np.asarray(trial.signal) for trial in trials], axis=1)[:, : 200 * 12]
    recording = model.read(write_edf(tmp_path / "new.edf", signal, SeedVII.ch_names, 200), statistics="population")
    assert recording.corpus.evidence_names.scale is GRADED
    assert np.isfinite(recording.overview().to_numpy()).all()
