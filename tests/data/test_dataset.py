"""A dataset: everything is fitted once, on the rows that the split allows, and kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from e2llm.core.claims import MAX_ABS_Z
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import SEED_CHANNELS, eegpt_channels
from e2llm.data.dataset import Corpus
from e2llm.data.features import differential_entropy, evidence
from e2llm.data.preprocessing import Windows
from e2llm.data.sources.seed_vii import clip_emotion
from e2llm.data.splits import make_split

PROTOCOL = {"protocol": "joint", "fold": 0, "n_groups": 3, "normalization": "calibration"}
CHANNELS = eegpt_channels(list(SEED_CHANNELS))


@pytest.fixture(scope="module")
def windows() -> Windows:
    """Two windows of each of 20 clips of six people, with random band power."""
    rng = np.random.default_rng(0)
    rows = [(str(person), clip, w) for person in range(1, 7) for clip in range(1, 21) for w in range(2)]
    index = pd.DataFrame(rows, columns=["subject", "clip", "window"])
    index = index.assign(session=1, start_s=4.0 * index["window"], label=index["clip"].map(clip_emotion))
    power = np.exp(rng.normal(0, 1, (len(rows), len(CHANNELS), 5))).astype(np.float32)
    shape = rng.normal(0, 1, (len(rows), 3)).astype(np.float32)
    return Windows(np.zeros((len(rows), len(CHANNELS), 8), np.float32), power, shape, index, CHANNELS, 256.0)


def test_evidence_is_relative_to_the_baseline_that_the_dataset_keeps(windows):
    corpus, split = Corpus.build(windows, SEED_VII, PROTOCOL), make_split(windows.index, **PROTOCOL)
    values, names = evidence(windows.power, windows.shape, CHANNELS)
    assert corpus.evidence_names == names and corpus.statistics.subjects == ["1", "2", "3", "4", "5", "6"]
    row = int(split.test[0])
    reference = values[split.fit][windows.index["subject"].to_numpy()[split.fit] == corpus.subjects[row]]
    expected = (values[row] - reference.mean(axis=0)) / reference.std(axis=0)
    np.testing.assert_allclose(corpus.z[row], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(corpus.z, corpus.statistics.z(values, corpus.norm_groups))
    clipped = corpus.z.clip(-MAX_ABS_Z, MAX_ABS_Z)
    np.testing.assert_allclose(corpus.spectral[:, : len(names.columns)], clipped, rtol=1e-6)
    assert [SEED_VII.labels[label] for label in corpus.labels] == windows.index["label"].tolist()


def test_the_channel_baseline_is_fitted_on_the_same_rows(windows):
    corpus = Corpus.build(windows, SEED_VII, {**PROTOCOL, "normalization": "population"})
    entropy = differential_entropy(windows.power).reshape(len(windows), -1)
    np.testing.assert_allclose(corpus.channel_statistics.mean[0], entropy[corpus.split.train].mean(axis=0), rtol=1e-5)
    assert (corpus.channel_statistics.mean == corpus.channel_statistics.mean[0]).all()


def test_predicted_evidence_stands_at_the_rows_of_the_split(windows):
    plain = Corpus.build(windows, SEED_VII, PROTOCOL)
    assert plain.predicted_evidence is None and 0 < len(plain.split.used) < len(windows)
    given = np.random.default_rng(1).normal(size=(len(plain.split.used), plain.z.shape[1])).astype(np.float32)
    placed = Corpus.build(windows, SEED_VII, PROTOCOL, given).predicted_evidence
    np.testing.assert_array_equal(placed[plain.split.used], given)
    assert np.isnan(np.delete(placed, plain.split.used, axis=0)).all()
