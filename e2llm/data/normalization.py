"""A person's own levels: equalising the encoder's input, aligning channels, and the baseline that evidence is measured against.

All are fitted on the rows that a split allows (:attr:`e2llm.data.protocols.Split.fit`) and use no label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..core.bands import BANDS
from .protocols import Split

ALIGNMENTS = ("none", "z-score", "euclidean")
UV_TO_MV = 1e-3  # EEGPT was trained on millivolts; windows are kept in microvolts and scaled here, nowhere else


@dataclass(frozen=True)
class Equalizer:
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
    def fit(cls, power: np.ndarray, subjects: np.ndarray, split: Split, sfreq: float) -> Equalizer:
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
        names = sorted(set(subjects))
        gain = np.ones((len(names), *population.shape), dtype=np.float32)
        if split.normalisation != "population":
            for i, name in enumerate(names):
                own = log_power[subjects[split.fit] == name]
                if len(own):
                    gain[i] = np.exp(0.5 * (population - own.mean(axis=0)))
        return cls(gain, names, sfreq)

    def __call__(self, signal_uv: np.ndarray, subjects: np.ndarray) -> torch.Tensor:
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
        who = [self.subjects.index(name) for name in subjects]
        frequencies = np.fft.rfftfreq(signal.shape[-1], 1.0 / self.sfreq)
        curve = torch.from_numpy(self.gain[who]) @ torch.from_numpy(_band_weights(frequencies))
        return torch.fft.irfft(torch.fft.rfft(signal) * curve, n=signal.shape[-1]) * UV_TO_MV


def _band_weights(frequencies: np.ndarray) -> np.ndarray:
    """Share of each band in the gain at each frequency, shape (bands, frequencies): plateaus with ramps of 1 Hz at the edges."""
    points = [edge for low, high in BANDS.values() for edge in (low + 0.5, high - 0.5)]
    shares = np.repeat(np.eye(len(BANDS)), 2, axis=1)
    return np.stack([np.interp(frequencies, points, row) for row in shares]).astype(np.float32)


@dataclass(frozen=True)
class Aligner:
    """One linear map of the channels for each subject.

    ``none`` leaves microvolts as they are. ``z-score`` gives every channel the variance 1. ``euclidean`` whitens: the
    mean covariance of a subject's windows becomes the identity (He & Wu 2020, IEEE Trans. Biomed. Eng. 67:399).

    Parameters
    ----------
    matrix : ndarray, shape (n_subjects, n_channels, n_channels)
        Maps.
    subjects : list of str
        Their names.
    """

    matrix: np.ndarray
    subjects: list[str]

    @classmethod
    def fit(cls, data: np.ndarray, subjects: np.ndarray, split: Split, alignment: str) -> Aligner:
        """Fit on the split's rows; with ``population`` normalisation, or without rows of one's own, all rows are the reference.

        Parameters
        ----------
        data : ndarray, shape (n_windows, n_channels, n_samples)
            Microvolts; may be memory-mapped, it is read window by window.
        owners : ndarray of str, shape (n_windows,)
            Subject of every window.
        alignment : str
            One of :data:`ALIGNMENTS`.

        Raises
        ------
        ValueError
            For an unknown alignment.
        """
        if alignment not in ALIGNMENTS:
            raise ValueError(f"Unknown alignment '{alignment}' (known: {', '.join(ALIGNMENTS)}).")
        names = sorted(set(subjects))
        if alignment == "none":
            return cls(np.broadcast_to(np.eye(data.shape[1], dtype=np.float32), (len(names), *[data.shape[1]] * 2)),
                       names)
        own = [split.fit[subjects[split.fit] == name] for name in names]
        if split.normalisation == "population" or not all(map(len, own)):
            everybody = _mean_covariance(data, split.fit)
        alone = split.normalisation != "population"
        covariances = [_mean_covariance(data, rows) if alone and len(rows) else everybody for rows in own]
        to_map = _inverse_root if alignment == "euclidean" else _inverse_spread
        return cls(np.stack([to_map(covariance) for covariance in covariances]).astype(np.float32), names)

    def __call__(self, signal_uv: np.ndarray, subjects: np.ndarray) -> np.ndarray:
        """Aligned signals (batch, n_channels, n_samples) of the given subjects; without a unit unless the alignment is ``none``."""
        return self.matrix[[self.subjects.index(name) for name in subjects]] @ np.asarray(signal_uv, dtype=np.float32)


def _mean_covariance(data: np.ndarray, rows: np.ndarray) -> np.ndarray:
    total = np.zeros((data.shape[1], data.shape[1]))
    for row in rows:
        window = np.asarray(data[row], dtype=np.float64)
        total += window @ window.T / window.shape[1]
    return total / len(rows)


def _inverse_root(covariance: np.ndarray, floor: float = 1e-8) -> np.ndarray:
    """Symmetric inverse square root; directions without any variance (a repaired channel is a sum of others) stay empty."""
    values, vectors = np.linalg.eigh(covariance)
    whole = values > floor * values.max()
    return (vectors[:, whole] / np.sqrt(values[whole])) @ vectors[:, whole].T


def _inverse_spread(covariance: np.ndarray) -> np.ndarray:
    spread = np.sqrt(np.diag(covariance))
    return np.diag(np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0))


@dataclass(frozen=True)
class Baseline:
    """Mean and spread of features for each subject, to express a window as z-scores against the person's own level."""

    mean: np.ndarray  # (n_subjects, n_features)
    sd: np.ndarray
    subjects: list[str]

    @classmethod
    def fit(cls, features: np.ndarray, subjects: np.ndarray, split: Split) -> Baseline:
        """Fit on the split's rows; with ``population`` normalisation, or without rows of one's own, all rows are the baseline."""
        names = sorted(set(subjects))
        fitted = features[split.fit]
        shared = split.normalisation == "population"
        own = [fitted[subjects[split.fit] == name] for name in names]
        own = [fitted if shared or not len(rows) else rows for rows in own]
        mean = np.stack([rows.mean(axis=0) for rows in own])
        sd = np.stack([rows.std(axis=0) for rows in own])
        return cls(mean, np.maximum(sd, 1e-6), names)

    def z(self, features: np.ndarray, subjects: np.ndarray) -> np.ndarray:
        """Z-scores of features (n_windows, n_features) of the given subjects."""
        who = [self.subjects.index(name) for name in subjects]
        return (features - self.mean[who]) / self.sd[who]
