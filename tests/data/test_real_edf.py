"""Real EDF files, from a table of stretches to a stage-1 score on unseen people; skipped where they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import mne
import numpy as np
import pandas as pd
import pytest
import torch

from e2llm.app import evaluation_stage, stages
from e2llm.app.runs import Run
from e2llm.core.files import project_root
from e2llm.core.montage import make_info, match_channels
from e2llm.data.cleaning import clean
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.sources.base import Trial
from e2llm.data.sources.folder import LabelledFolder
from e2llm.evaluation.metrics import balanced_accuracy
from e2llm.training.losses import HeadParams
from e2llm.training.trainer import FitParams

EEGMAT = next((path for parent in Path(__file__).resolve().parents if (path := parent / "shared/data/eegmat").is_dir()),
              None)
pytestmark = pytest.mark.skipif(EEGMAT is None, reason="the EEGMAT excerpt is not in shared/data/eegmat")
SECONDS = 56.0  # of every recording, in two stretches: rest and arithmetic weigh alike


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Two stretches of every file of six people, as clips of their own."""
    rows = pd.read_csv(EEGMAT / "labels.csv", dtype=str)
    rows = rows[rows["subject"].isin(rows["subject"].unique()[:6])]
    halves = [rows.assign(start=start, stop=start + SECONDS / 2) for start in (2.0, 2.0 + SECONDS / 2)]
    path = tmp_path_factory.mktemp("table") / "stretches.csv"
    pd.concat(halves).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table, tmp_path_factory) -> SimpleNamespace:
    torch.set_num_threads(1)
    run = Run("eegmat", tmp_path_factory.mktemp("runs") / "eegmat", project_root())
    run.path.mkdir()
    stages.preprocess(run, "folder", EEGMAT, PreprocessParams(), n_jobs=1, table=str(table))
    protocol = {"protocol": "subjects", "fold": 0, "n_groups": 3, "normalization": "population"}
    corpus = stages.open_dataset(run, protocol)
    stages.train_encoder(run, corpus, protocol, "tiny1", {"patch_dropout": 0.5, "channel_dropout": 0.25}, "",
                         FitParams(80, 24, 3e-3), HeadParams())
    return SimpleNamespace(run=run, corpus=corpus)


def test_stretches_of_real_files_are_their_seconds(table):
    source = LabelledFolder(EEGMAT, table)
    assert len(source.recordings) == 12 and len(source.rows) == 24
    first, second = source.trials(source.recordings[0])
    assert first.sfreq == 500 and first.signal.shape == second.signal.shape == (19, round(500 * SECONDS / 2))
    assert {"T7", "T8", "P7", "P8"} < set(first.ch_names) and 1 < np.median(np.std(first.signal, axis=1)) < 100


def test_from_file_to_a_stage_1_score(run):
    corpus = run.corpus
    assert corpus.label_set.labels == ("mental arithmetic", "rest") and corpus.windows.channel_facts["left_out"] == []
    assert len(corpus.windows) == 24 * 7 and corpus.windows.data.shape[1:] == (19, 1024)
    scores = {}
    for part in ("train", "test"):
        rows = getattr(corpus.split, part)
        answers = evaluation_stage.head_answers(run.run, rows)
        scores[part] = balanced_accuracy(corpus.labels[rows], answers, corpus.subjects[rows], 2)
    assert scores["test"].chance == 0.5 and len(set(corpus.subjects[corpus.split.test])) == 2
    assert not set(corpus.subjects[corpus.split.test]) & set(corpus.subjects[corpus.split.train])
    assert scores["train"].value > 0.7  # the states differ in real people: what is learned, not what generalizes to two
    assert scores["test"].low <= scores["test"].value <= scores["test"].high
    print(f"stage 1, two people held out: {scores['test'].value:.2f} [{scores['test'].low:.2f}, "
          f"{scores['test'].high:.2f}]")


def plain_mne(signal: np.ndarray, ch_names: Sequence[str], sfreq: float) -> np.ndarray:
    """The same steps by MNE's own functions in double precision, without a search for bad channels; microvolts."""
    raw = mne.io.RawArray(signal * 1e-6, make_info(list(ch_names), sfreq), verbose="error")
    raw.filter(0.5, min(45.0, sfreq / 2 - 5), h_trans_bandwidth=5.0, verbose="error")
    raw.set_eeg_reference("average", projection=False, verbose="error")
    return raw.resample(256.0, method="polyphase", verbose="error").get_data(units="uV")


@pytest.mark.parametrize("name", ["Subject00_2", "Subject05_2"])
def test_windows_are_those_of_the_mne_recipe(name):
    """All but a tenth of a microvolt: MNE's polyphase filter ripples by a thousandth inside the pass band.

    At the first and last samples MNE resamples what the filter left inside the clip, ours what lies beyond it, too.
    """
    raw = mne.io.read_raw_edf(EEGMAT / f"{name}.edf", verbose="error")
    match = match_channels(raw.ch_names)
    signal, names = raw.get_data(picks=list(match.places), units="uV"), tuple(match.places.values())
    ours, _ = clean(Trial("0", 1, 1, "rest", signal, 500.0, names), PreprocessParams(lof_threshold=1e9))
    theirs = plain_mne(signal, names, 500.0)
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    error = ours - theirs
    assert np.abs(error).max() < 3 and np.abs(error[:, 26:-26]).max() < 0.15  # a tenth of a second
    assert error.std() < 2e-3 * theirs.std() and np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99999
