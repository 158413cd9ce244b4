"""Real EEG, from EDF files to scores under every protocol that fits; skipped where the recordings are missing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from e2llm.data.audit import LeakError
from e2llm.data.checks import read_quality
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources import open_source
from e2llm.data.splits import make_split
from e2llm.evaluation.baselines import LOGISTIC, SVM, Recipe
from e2llm.evaluation.protocols_compared import BaselineClassifier, Setting, probe
from e2llm.evaluation.protocols_compared import under_protocols as in_parallel

EEGMAT = Path(__file__).parents[3] / "shared" / "data" / "eegmat"
under_protocols = partial(in_parallel, n_jobs=1)
PUBLISHED = 0.69  # band power and logistic regression over all 36 people, whole people held out (the excerpt's README)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> SimpleNamespace:
    if not EEGMAT.is_dir():
        pytest.skip("the EEGMAT excerpt is not in shared/data/eegmat")
    folder = tmp_path_factory.mktemp("eegmat") / "windows"
    source = open_source("folder", EEGMAT)
    assert write_windows(source, folder, n_jobs=1) == {}
    windows = Windows.open(folder)
    labels = np.array([source.label_set.index(label) for label in windows.index["label"]])
    return SimpleNamespace(windows=windows, labels=labels, subjects=windows.index["subject"].to_numpy(dtype=object),
                           label_set=source.label_set, folder=folder)


def test_the_gate_finds_nothing(corpus):
    findings, recordings = read_quality(corpus.folder)
    assert findings.empty and recordings["used"].all(), findings.to_string()


def test_people_left_out_are_told_apart_as_far_as_published(corpus):
    models = {"LR": BaselineClassifier(Recipe(LOGISTIC)),
              "LR, z-scored": BaselineClassifier(Recipe(LOGISTIC, "z-score"))}
    table = under_protocols(corpus, models, (Setting("subjects", "population", 0),
                                             Setting("subjects", "transductive", 0)))
    rows = table.set_index(["name", "group"])
    for key in (("LR", "subjects, one left out, population"), ("LR, z-scored", "subjects, one left out, transductive")):
        assert rows.loc[key, "low"] < PUBLISHED < rows.loc[key, "high"], key
        assert rows.loc[key, "low"] > 0.5 and rows.loc[key, "n"] == len(corpus.labels)


def test_windows_at_random_inflate_the_score_of_real_eeg(corpus):
    settings = (Setting("random_windows", "population"), Setting("subjects", "population", 0))
    table = under_protocols(corpus, {"SVM": BaselineClassifier(Recipe(SVM, "z-score")),
                                     "length": probe("clip duration")}, settings)
    score = table.pivot(index="name", columns="group", values="score")
    assert score.loc["SVM", "random_windows, population"] > score.loc["SVM",
                                                                      "subjects, one left out, population"] + 0.25
    assert (score.loc["length"] == 1.0).all()  # rest was recorded three times as long: nothing here needs EEG


@pytest.mark.parametrize("protocol", ["within_subject", "joint"])
def test_protocols_over_shared_clips_are_refused(corpus, protocol):
    """Each state is one recording: there are no other clips of the same person, label and session."""
    with pytest.raises(LeakError, match="part is empty"):
        make_split(corpus.windows.index, protocol, "population")
