"""Datasets of noise, made in a moment: what tests of band edits and of augmentation share."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from e2llm.core.bands import BANDS
from e2llm.core.montage import REGIONS
from e2llm.data.band_edits import scale_band
from e2llm.data.features import evidence, measure
from e2llm.data.normalization import FeatureStatistics

SFREQ, SAMPLES = 256.0, 1024
CHANNELS = ["F3", "FZ", "F4", "C3", "C4", "T7", "T8", "P3", "P4", "O1", "OZ", "O2"]


def eeg(n: int, n_channels: int = len(CHANNELS), seed: int = 0) -> np.ndarray:
    """Windows cut from one long noise with an alpha peak: none begins where it ends; microvolts, float32."""
    rng, length = np.random.default_rng(seed), n * SAMPLES
    frequencies = np.fft.rfftfreq(length, 1 / SFREQ)
    shape = np.where((frequencies > 0.5) & (frequencies < 60), 1.0, 0.0) / np.maximum(frequencies, 0.5) ** 0.75
    shape *= 1 + 2 * np.exp(-0.5 * (frequencies - 10.3) ** 2)
    signal = np.fft.irfft(np.fft.rfft(rng.normal(size=(n_channels, length))) * shape, n=length)
    signal *= 12 / signal.std()
    return signal.reshape(n_channels, n, SAMPLES).transpose(1, 0, 2).astype(np.float32)


def make_corpus(n_people: int = 6, each: int = 20, spread_db: float = 4.0, seed: int = 0) -> SimpleNamespace:
    """Windows whose regions and bands vary on their own; half of each person's windows are the baseline."""
    data, rng = eeg(n_people * each, seed=seed), np.random.default_rng(seed + 1)
    for band in BANDS:
        for region in REGIONS:
            for row in range(len(data)):
                data[row] = scale_band(data[row], CHANNELS, SFREQ, band, region, rng.normal(0, spread_db))
    power, shape = measure(data, SFREQ, CHANNELS)
    values, names = evidence(power, shape, CHANNELS)
    subjects = np.repeat([f"s{i}" for i in range(n_people)], each).astype(object)
    split = SimpleNamespace(fit=np.arange(0, len(data), 2), normalization="subject")
    windows = SimpleNamespace(data=data, power=power, shape=shape, ch_names=CHANNELS, sfreq=SFREQ)
    statistics = FeatureStatistics.fit(values, subjects, split)
    return SimpleNamespace(windows=windows, split=split, z=statistics.z(values, subjects), evidence_names=names,
                           subjects=subjects, norm_groups=subjects, statistics=statistics)
