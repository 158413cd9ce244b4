"""Normalization by subject: equalization of the encoder's input, alignment of channels, and baselines of features.

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
    """Linear filter per normalization group and channel that gives the bands of all groups the same average power.

    It removes gain, electrode contact and the subject's average spectrum, and keeps changes from window to window.

    Parameters
    ----------
    gain : ndarray, shape (n_groups, n_channels, n_bands)
        Amplitude factors.
    subjects : list of str
        Names of the normalization groups.
    sfreq : float
        Sampling rate in Hz.
    """

    gain: np.ndarray
    subjects: list[str]
    sfreq: float

    @classmethod
    def fit(cls, power: np.ndarray, subjects: np.ndarray, split: Split, sfreq: float) -> Equalizer:
        """Fit on the split's rows; a group without any gets the factor 1 (population statistics).

        Parameters
        ----------
        power : ndarray, shape (n_windows, n_channels, n_bands)
            Band power, square microvolts.
        subjects : ndarray of str, shape (n_windows,)
            Normalization group of every window.
        split : Split
            Rows to fit on, and the kind of normalization.
        sfreq : float
            Sampling rate in Hz.
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
        subjects : ndarray of str, shape (batch,)
            Normalization group of every window.

        Returns
        -------
        Tensor
            Same shape, millivolts.
        """
        signal = torch.from_numpy(np.require(signal_uv, np.float32, "W"))  # memory-mapped windows are read-only: copied
        rows = [self.subjects.index(name) for name in subjects]
        frequencies = np.fft.rfftfreq(signal.shape[-1], 1.0 / self.sfreq)
        curve = torch.from_numpy(self.gain[rows] * UV_TO_MV) @ torch.from_numpy(_band_weights(frequencies))
        spectrum = torch.fft.rfft(signal)
        torch.view_as_real(spectrum).mul_(curve.unsqueeze(-1))
        return torch.fft.irfft(spectrum, n=signal.shape[-1])


def _band_weights(frequencies: np.ndarray) -> np.ndarray:
    """Share of each band in the gain at each frequency, shape (bands, frequencies): plateaus with ramps of 1 Hz."""
    points = [edge for low, high in BANDS.values() for edge in (low + 0.5, high - 0.5)]
    shares = np.repeat(np.eye(len(BANDS)), 2, axis=1)
    return np.stack([np.interp(frequencies, points, row) for row in shares]).astype(np.float32)


@dataclass(frozen=True)
class Aligner:
    """One linear map of the channels for each normalization group.

    ``none`` leaves microvolts as they are. ``z-score`` gives every channel the variance 1. ``euclidean`` whitens: the
    mean covariance of a group's windows becomes the identity [1]_.

    Parameters
    ----------
    matrix : ndarray, shape (n_groups, n_channels, n_channels)
        Maps.
    subjects : list of str
        Names of the normalization groups.

    References
    ----------
    .. [1] He, H. & Wu, D. (2020). Transfer learning for brain-computer interfaces: a Euclidean space data alignment
       approach. IEEE Trans. Biomed. Eng. 67, 399-410.
    """

    matrix: np.ndarray
    subjects: list[str]

    @classmethod
    def fit(cls, data: np.ndarray, subjects: np.ndarray, split: Split, alignment: str) -> Aligner:
        """Fit on the split's rows; with ``population`` normalization, or for a group without rows, on all of these.

        Parameters
        ----------
        data : ndarray, shape (n_windows, n_channels, n_samples)
            Microvolts; may be memory-mapped, it is read window by window.
        subjects : ndarray of str, shape (n_windows,)
            Normalization group of every window.
        split : Split
            Rows to fit on, and the kind of normalization.
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
            pooled = _mean_covariance(data, split.fit)
        alone = split.normalisation != "population"
        covariances = [_mean_covariance(data, rows) if alone and len(rows) else pooled for rows in own]
        to_map = _inverse_root if alignment == "euclidean" else _inverse_spread
        return cls(np.stack([to_map(covariance) for covariance in covariances]).astype(np.float32), names)

    def __call__(self, signal_uv: np.ndarray, subjects: np.ndarray) -> np.ndarray:
        """Aligned signals.

        Parameters
        ----------
        signal_uv : ndarray, shape (batch, n_channels, n_samples)
            Microvolts.
        subjects : ndarray of str, shape (batch,)
            Normalization group of every window.

        Returns
        -------
        ndarray
            Same shape, float32; microvolts if the alignment is ``none``, without a unit otherwise.
        """
        return self.matrix[[self.subjects.index(name) for name in subjects]] @ np.asarray(signal_uv, dtype=np.float32)


def _mean_covariance(data: np.ndarray, rows: np.ndarray) -> np.ndarray:
    total = np.zeros((data.shape[1], data.shape[1]))
    for row in rows:
        window = np.asarray(data[row], dtype=np.float64)
        total += window @ window.T / window.shape[1]
    return total / len(rows)


def _inverse_root(covariance: np.ndarray, floor: float = 1e-8) -> np.ndarray:
    """Symmetric inverse square root; directions without variance (a repaired channel is a sum of others) become 0."""
    values, vectors = np.linalg.eigh(covariance)
    whole = values > floor * values.max()
    return (vectors[:, whole] / np.sqrt(values[whole])) @ vectors[:, whole].T


def _inverse_spread(covariance: np.ndarray) -> np.ndarray:
    spread = np.sqrt(np.diag(covariance))
    return np.diag(np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0))


@dataclass(frozen=True)
class Baseline:
    """Mean and standard deviation of features for each normalization group.

    Parameters
    ----------
    mean, sd : ndarray, shape (n_groups, n_features)
        In the features' units.
    subjects : list of str
        Names of the normalization groups.
    """

    mean: np.ndarray
    sd: np.ndarray
    subjects: list[str]

    @classmethod
    def fit(cls, features: np.ndarray, subjects: np.ndarray, split: Split) -> Baseline:
        """Fit on the split's rows; with ``population`` normalization, or for a group without rows, on all of these.

        Parameters
        ----------
        features : ndarray, shape (n_windows, n_features)
            Of all windows.
        subjects : ndarray of str, shape (n_windows,)
            Normalization group of every window.
        split : Split
            Rows to fit on, and the kind of normalization.
        """
        names = sorted(set(subjects))
        fitted = features[split.fit]
        shared = split.normalisation == "population"
        own = [fitted[subjects[split.fit] == name] for name in names]
        own = [fitted if shared or not len(rows) else rows for rows in own]
        mean = np.stack([rows.mean(axis=0) for rows in own])
        sd = np.stack([rows.std(axis=0) for rows in own])
        return cls(mean, np.maximum(sd, 1e-6), names)

    def z(self, features: np.ndarray, subjects: np.ndarray) -> np.ndarray:
        """Z-scores relative to the baseline.

        Parameters
        ----------
        features : ndarray, shape (n_windows, n_features)
            Of some windows.
        subjects : ndarray of str, shape (n_windows,)
            Their normalization groups.

        Returns
        -------
        ndarray, shape (n_windows, n_features)
            Standard deviations.
        """
        rows = [self.subjects.index(name) for name in subjects]
        return (features - self.mean[rows]) / self.sd[rows]
