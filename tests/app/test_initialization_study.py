"""Starts of the encoder are made fold by fold without a look at held-out people, are not made twice, and are scored as
scikit-learn would."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from transformers import Trainer

from e2llm.app import initialization_study, stages
from e2llm.app.initialization_study import Plan, begin, read_answers, study, weights_of
from e2llm.app.pretraining_stage import load_model
from e2llm.app.runs import Run
from e2llm.core.files import checksum, read_json, write_json
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.evaluation.studies import initialization
from e2llm.evaluation.studies.initialization import (
    INITIALIZATIONS,
    KEYS,
    PRETRAINED,
    PRETRAINED_FROM,
    differences,
    scores,
)
from e2llm.training.pretraining import PretrainParams
from e2llm.training.trainer import FitParams

PROTOCOL = {"protocol": "subjects", "n_groups": 3, "normalization": "population"}
FIT = FitParams(steps=3, batch_size=4, lr=2e-3, save_steps=10**6)
PLAN = Plan("tiny1", FIT, PretrainParams(drawn=8), stage_1=replace(FIT, batch_size=8))


@pytest.fixture(autouse=True, scope="module")  # before the study that the tests share: threads round otherwise
def one_thread():
    torch.set_num_threads(1)


def make_base(name: str, twin: Path, windows) -> Run:
    """A run with the windows of the twin."""
    stage = Run.open(name).stage("windows", {}).begin()
    shutil.copytree(Path(windows.data.filename).parent, stage.path / "signal")
    (stage.path / "labels.json").write_text(json.dumps(asdict(SeedVII(twin).label_set)))
    return stage.finish().run


@pytest.fixture(scope="module")
def base(tmp_path_factory, twin, windows) -> Run:
    before = os.environ.get("E2LLM_RUNS")
    os.environ["E2LLM_RUNS"] = str(tmp_path_factory.mktemp("starts"))
    yield make_base("base", twin, windows)
    os.environ.pop("E2LLM_RUNS") if before is None else os.environ.update(E2LLM_RUNS=before)


@pytest.fixture(scope="module")
def studied(base):
    """Two initializations in two folds, with stage 1."""
    return study(base, PROTOCOL, (0, 1), PLAN, ("random", PRETRAINED))


# --- making


def test_a_study_answers_every_test_window_once_in_every_test(base, studied):
    answers = studied.answers
    tests = [f"{test}: {start}" for test in ("linear probe", "stage 1") for start in ("random", PRETRAINED)]
    assert list(answers) == [*KEYS, *tests, *map(str, initialization.COMPARED)]
    for fold, rows in answers.groupby("fold"):
        corpus = stages.open_dataset(base, {**PROTOCOL, "fold": fold})
        assert rows["window"].tolist() == corpus.split.test.tolist()
        assert rows["label"].tolist() == corpus.labels[corpus.split.test].tolist()
    assert answers["subject"].nunique() == 2  # three people, two folds
    assert answers[tests].isin(range(7)).all(axis=None)
    assert studied.explained[["fold", "part"]].to_numpy().tolist() == [[0, "train"], [0, "val"], [1, "train"],
                                                                       [1, "val"]]
    assert set(studied.explained["start"]) == {PRETRAINED}


def test_the_tables_on_disk_are_those_of_the_answers(base, studied):
    folder = base.path.parent
    answers = read_answers(folder / "base-init-answers.csv")
    pd.testing.assert_frame_equal(answers, studied.answers, check_dtype=False)
    for name, table in (("base-init", scores(answers, 7)), ("base-init-differences", differences(answers, 7))):
        pd.testing.assert_frame_equal(pd.read_csv(folder / f"{name}.csv"), table, atol=1e-6, rtol=0)


def test_a_finished_study_is_not_made_again(base, studied, monkeypatch):
    monkeypatch.setattr(Trainer, "train", None)
    monkeypatch.setattr(initialization_study, "fit_baseline", None)
    again = study(base, PROTOCOL, (0, 1), PLAN, ("random", PRETRAINED))
    pd.testing.assert_frame_equal(again.answers, studied.answers)


def test_one_that_was_cut_off_goes_on(base, studied, monkeypatch):
    """Runs of a cut-off study lack some stages: the finished pretraining is used, the probe made again."""
    run = Run.open(f"base-init-{PRETRAINED}-fold0")
    shutil.rmtree(run.path / "probe")
    monkeypatch.setattr(Trainer, "train", None)
    again = study(base, PROTOCOL, (0, 1), PLAN, ("random", PRETRAINED))
    pd.testing.assert_frame_equal(again.answers, studied.answers)


def test_stage_1_starts_from_the_pretrained_weights(base, studied):
    run = Run.open(f"base-init-{PRETRAINED}-fold0")
    weights = weights_of(run, PRETRAINED)
    record = run.require("encoder")
    assert record["params"]["weights"] == weights and "keys matched" in record["facts"]["origin"]
    corpus = stages.open_dataset(run)
    kept = stages.initial_encoder(run, corpus).state_dict()
    assert all(torch.equal(kept[key], value) for key, value in load_model(run,
                                                                          corpus).target_encoder.state_dict().items())
    assert "random start" in Run.open("base-init-random-fold0").require("encoder")["facts"]["origin"]


def test_weights_inside_the_project_are_named_from_it(base):
    inside = Run("one", base.root / "runs" / "one", base.root)
    assert weights_of(inside, PRETRAINED) == "runs/one/pretraining/encoder.safetensors"
    assert weights_of(inside, "physiology-pretrained") == weights_of(inside, PRETRAINED)
    assert [weights_of(inside, start) for start in INITIALIZATIONS[:3]] == ["random", "scaled", ""]


def test_a_pretraining_begins_as_its_name_says(base, monkeypatch):
    begun = {}
    monkeypatch.setattr(initialization_study, "pretrain",
                        lambda run, corpus, protocol, size, fit, mask, start: begun.update({run.name: start}))
    monkeypatch.setattr(initialization_study, "probe", lambda *_: None)
    for start in PRETRAINED_FROM:
        begin(base, start, {**PROTOCOL, "fold": 2}, PLAN)
    assert begun == {"base-init-pretrained-fold2": "scaled", "base-init-physiology-pretrained-fold2": ""}


def test_signals_of_held_out_people_do_not_reach_the_pretraining(base, studied, twin, windows):
    other = make_base("perturbed", twin, windows)
    corpus = stages.open_dataset(other, {**PROTOCOL, "fold": 0})
    path = other.path / "windows" / "signal" / "data.npy"
    data = np.load(path)
    data[np.concatenate([corpus.split.test, corpus.split.val])] = 1e3
    np.save(path, data)
    record = read_json(other.path / "windows" / "stage.json")
    record["files"]["signal/data.npy"]["sha256"] = checksum(path)  # or the stage would count as damaged
    write_json(other.path / "windows" / "stage.json", record)
    run = begin(other, PRETRAINED, {**PROTOCOL, "fold": 0}, PLAN)
    first = Run.open(f"base-init-{PRETRAINED}-fold0")
    assert [(each.path / "pretraining" / "encoder.safetensors").read_bytes() for each in (run, first)].count(
        (first.path / "pretraining" / "encoder.safetensors").read_bytes()) == 2
    held_out = set(corpus.subjects[corpus.split.test]) | set(corpus.subjects[corpus.split.val])
    assert not held_out & set(first.require("pretraining")["facts"]["people"])


def test_a_fold_s_windows_are_those_of_the_base(base, studied):
    data = Path("windows/signal/data.npy")
    assert os.path.samefile(base.path / data, Run.open("base-init-random-fold1").path / data)


# --- wrong names


def test_wrong_names_are_refused(base):
    known = "random, scaled, physiology, pretrained, physiology-pretrained"
    with pytest.raises(ValueError, match=rf"Unknown initializations \['released'\] \(known: {known}\)"):
        begin(base, "released", {**PROTOCOL, "fold": 0}, PLAN)
    with pytest.raises(ValueError, match=r"Unknown initializations \['noise'\]"):
        study(base, PROTOCOL, (0,), PLAN, ("random", "noise"))
    for folds, names in (((), ("random",)), ((0,), ())):
        with pytest.raises(ValueError, match="one initialization and one fold or more"):
            study(base, PROTOCOL, folds, PLAN, names)


# --- scoring


@pytest.fixture
def answers() -> pd.DataFrame:
    """Ten people in five folds, two classes, three starts of different worth."""
    rng, n = np.random.default_rng(0), 600
    subject = np.repeat(np.arange(10), 60)
    table = pd.DataFrame({"fold": subject // 2, "window": rng.permutation(n), "subject": [f"{s:02d}" for s in subject],
                          "clip": 2 * subject, "label": (rng.random(n) < 0.3).astype(int)})
    table["clip"] += table["label"]
    for start, right in (("random", 0.5), (PRETRAINED, 0.8), ("physiology", 0.8)):
        table[f"linear probe: {start}"] = np.where(rng.random(n) < right, table["label"], 1 - table["label"])
    return table.assign(**{"no EEG: clip duration": table["label"]})


def test_pooled_scores_are_those_of_scikit_learn(answers):
    table = scores(answers, 2).set_index("name")
    for name in ("random", PRETRAINED, "physiology"):
        expected = balanced_accuracy_score(answers["label"], answers[f"linear probe: {name}"])
        assert table.loc[name, "score"] == pytest.approx(expected, abs=1e-12)
        assert table.loc[name, "low"] < expected < table.loc[name, "high"]
    assert (table["n"] == 600).all() and (table["chance"] == 0.5).all() and (table["subjects"] == 10).all()
    assert table.loc["clip duration", ["score", "low", "high"]].tolist() == [1, 1, 1] and table.loc["clip duration",
                                                                                                    "group"] == "no EEG"


def test_differences_are_paired_and_within_one_way(answers):
    table = differences(answers.assign(**{"stage 1: random": answers["label"]}), 2).set_index("name")
    assert set(table.index) == {"random", "physiology"} and set(table["group"]) == {"linear probe"}
    for name in table.index:
        one, other = (balanced_accuracy_score(answers["label"], answers[f"linear probe: {start}"])
                      for start in (PRETRAINED, name))
        assert table.loc[name, "difference"] == pytest.approx(one - other, abs=1e-12)
    assert table.loc["random", "low"] > 0 and table.loc["physiology", "low"] < 0 < table.loc["physiology", "high"]
    same = differences(answers.assign(**{"linear probe: random": answers[f"linear probe: {PRETRAINED}"]}),
                       2).set_index("name")
    assert same.loc["random", ["difference", "low", "high"]].tolist() == [0, 0, 0]


def test_tables_that_are_none_are_refused(answers):
    with pytest.raises(ValueError, match=r"lacks \['clip'\]"):
        scores(answers.drop(columns="clip"), 2)
    with pytest.raises(ValueError, match="tested in several folds"):
        scores(pd.concat([answers, answers]), 2)
    with pytest.raises(ValueError, match="not 'probe'"):
        scores(answers.assign(probe=0), 2)
    with pytest.raises(ValueError, match="No answers of 'released' in the table"):
        differences(answers, 2, "released")
