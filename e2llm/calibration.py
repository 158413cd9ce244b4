"""A person's own levels: equalising the encoder's input, and the baseline that evidence is measured against.

Both are fitted on the rows that a split allows (:attr:`e2llm.splits.Split.fit`) and use no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .effects import BANDS
from .splits import Split

UV_TO_MV = 1e-3  # EEGPT was trained on millivolts; windows are kept in microvolts and scaled here, nowhere else


@dataclass(frozen=True)
class Equaliser:
    """Linear filter per subject and channel that gives everybody's bands the same average power.

    It removes gain, electrode contact and the person's own spectrum, and keeps what changes from window to window.

    Parameters
    ----------
    gain : ndarray, shape (n_subjects, n_channels, n_bands)
        Amplitude factors.
    subjects : list of str
        Their names.
    sfreq : float
        Sampling rate in Hz.
    """

    gain: np.ndarray
    subjects: list[str]
    sfreq: float

    @classmethod
    def fit(cls, power: np.ndarray, owners: np.ndarray, split: Split, sfreq: float) -> Equaliser:
        """Fit on the split's rows; a subject without any gets the factor 1 (the population's levels).

        Parameters
        ----------
        power : ndarray, shape (n_windows, n_channels, n_bands)
            Band power, square microvolts.
        owners : ndarray of str, shape (n_windows,)
            Subject of every window.
        """
        log_power = np.log(np.maximum(power[split.fit], 1e-12))
        population = log_power.mean(axis=0)
        names = sorted(set(owners))
        gain = np.ones((len(names), *population.shape), dtype=np.float32)
        if split.normalisation != "population":
            for i, name in enumerate(names):
                own = log_power[owners[split.fit] == name]
                if len(own):
                    gain[i] = np.exp(0.5 * (population - own.mean(axis=0)))
        return cls(gain, names, sfreq)

    def __call__(self, signal_uv: np.ndarray, owners: np.ndarray) -> torch.Tensor:
        """Encoder input of some windows.

        Parameters
        ----------
        signal_uv : ndarray, shape (batch, n_channels, n_samples)
            Microvolts.
        owners : ndarray of str, shape (batch,)
            Subject of every window.

        Returns
        -------
        Tensor
            Same shape, millivolts.
        """
        signal = torch.from_numpy(np.array(signal_uv, dtype=np.float32))  # a copy: memory-mapped windows are read-only
        who = [self.subjects.index(name) for name in owners]
        frequencies = np.fft.rfftfreq(signal.shape[-1], 1.0 / self.sfreq)
        curve = torch.from_numpy(self.gain[who]) @ torch.from_numpy(_band_weights(frequencies))
        return torch.fft.irfft(torch.fft.rfft(signal) * curve, n=signal.shape[-1]) * UV_TO_MV


def _band_weights(frequencies: np.ndarray) -> np.ndarray:
    """Share of each band in the gain at each frequency, shape (bands, frequencies): plateaus with ramps of 1 Hz at the edges."""
    points = [edge for low, high in BANDS.values() for edge in (low + 0.5, high - 0.5)]
    shares = np.repeat(np.eye(len(BANDS)), 2, axis=1)
    return np.stack([np.interp(frequencies, points, row) for row in shares]).astype(np.float32)


@dataclass(frozen=True)
class Baseline:
    """Mean and spread of features for each subject, to express a window as z-scores against the person's own level."""

    mean: np.ndarray  # (n_subjects, n_features)
    sd: np.ndarray
    subjects: list[str]

    @classmethod
    def fit(cls, features: np.ndarray, owners: np.ndarray, split: Split) -> Baseline:
        """Fit on the split's rows; with ``population`` normalisation, or without rows of one's own, all rows are the baseline."""
        names = sorted(set(owners))
        fitted = features[split.fit]
        shared = split.normalisation == "population"
        own = [fitted[owners[split.fit] == name] for name in names]
        own = [fitted if shared or not len(rows) else rows for rows in own]
        mean = np.stack([rows.mean(axis=0) for rows in own])
        sd = np.stack([rows.std(axis=0) for rows in own])
        return cls(mean, np.maximum(sd, 1e-6), names)

    def z(self, features: np.ndarray, owners: np.ndarray) -> np.ndarray:
        """Z-scores of features (n_windows, n_features) of the given subjects."""
        who = [self.subjects.index(name) for name in owners]
        return (features - self.mean[who]) / self.sd[who]
