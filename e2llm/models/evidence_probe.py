"""The evidence probe: a ridge regression that predicts measured evidence from the tokens of a frozen encoder.

It is fitted from sums over windows (the normal equations, in double precision), so that no more than a block of windows
is in memory, however many there are. Tokens are not needed for it, only their moments.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.claims import MAX_ABS_Z
from .eegpt import moments

CHANGE_WEIGHT = 16.0  # weight of the squared error of a change; that of a level has weight 1
PENALTIES = np.logspace(-2, 4, 13)  # of standardized moments; leave-one-out chooses
BLOCK = 256  # windows in memory at a time


class EvidenceProbe(NamedTuple):
    """Evidence probe: z-scores as a linear function of a window's :func:`e2llm.models.eegpt.moments`."""

    names: list[str]
    weight: Tensor  # (n_names, 2 * eeg_width)
    bias: Tensor

    @classmethod
    def fit(cls, tokens: np.ndarray, z: np.ndarray, names: list[str],
            source_index: np.ndarray | None = None) -> EvidenceProbe:
        """Ridge regression on training windows; leave-one-out chooses its penalty.

        The spectral head of stage 1 does not do: it was trained on a quarter of the time patches at once, and
        predicts too small values for whole windows.

        Parameters
        ----------
        tokens : ndarray, shape (n_windows, n_times, eeg_width)
            Of a frozen encoder.
        z : ndarray, shape (n_windows, n_names)
            Measured evidence of the same windows, in standard deviations.
        names : list of str
            Names of the columns of ``z``.
        source_index : ndarray of int, shape (n_windows,), optional
            For a band-edited window, the row of the window that it was made from; negative for all others. The
            change from window to band-edited window is fitted too. An error in a change weighs
            :data:`CHANGE_WEIGHT` times as much as one in a level, so that a band edit changes the prediction of
            the edited feature and of no other.

        Returns
        -------
        EvidenceProbe
            Weights in the units of the tokens, not standardized.
        """
        return cls.fit_moments(moments_of(tokens), z, names, source_index)

    @classmethod
    def fit_moments(cls, pooled: np.ndarray, z: np.ndarray, names: list[str],
                    source_index: np.ndarray | None = None) -> EvidenceProbe:
        """:meth:`fit` from moments that may lie in a file; they are read three times, block by block.

        Parameters
        ----------
        pooled : ndarray, shape (n_windows, 2 * eeg_width)
            Moments of tokens, double precision, as from :func:`moments_of`.
        z, names, source_index
            As for :meth:`fit`.
        """
        rows = _Rows(pooled, np.clip(z, -MAX_ABS_Z, MAX_ABS_Z), source_index)
        gram, cross = 0.0, 0.0
        for x, y in rows.blocks():
            gram, cross = gram + x.T @ x, cross + x.T @ y
        power, axes = np.linalg.eigh(gram)
        power, turned = np.maximum(power, 0.0), axes.T @ cross
        errors = np.zeros(len(PENALTIES))
        for x, y in rows.blocks():
            x = x @ axes
            squares = x**2
            for i, penalty in enumerate(PENALTIES):
                # What a row is off the fit without it: its residual, over one minus its own weight in the fit.
                shrunk = 1 / (power + penalty)
                errors[i] += np.sum(((y - x @ (shrunk[:, None] * turned)) / (1 - squares @ shrunk)[:, None]) ** 2)
        best = PENALTIES[int(errors.argmin())]
        weight = (axes @ (turned / (power + best)[:, None])).T / rows.scale
        bias = rows.level - weight @ rows.mean
        weight, bias = (torch.from_numpy(np.array(part, dtype=np.float32, order="C")) for part in (weight, bias))
        return cls(list(names), weight, bias)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Predicted evidence (n_windows, n_names) of tokens (n_windows, n_times, eeg_width or its factors)."""
        found = [F.linear(torch.from_numpy(part).float(), self.weight, self.bias).numpy()
                 for part in _moment_blocks(tokens)]
        return np.concatenate(found)


class _Rows:
    """Rows of the regression, centered and in standard deviations: levels of windows, then weighted changes."""

    def __init__(self, pooled: np.ndarray, z: np.ndarray, source_index: np.ndarray | None) -> None:
        from sklearn.preprocessing import StandardScaler  # here: a model that is only loaded fits nothing

        scaler = StandardScaler()
        for block in _block_slices(len(pooled)):
            scaler.partial_fit(pooled[block])
        self.pooled, self.z = pooled, z
        self.mean, self.scale, self.level = scaler.mean_, scaler.scale_, z.mean(axis=0)
        source = np.full(len(z), -1) if source_index is None else np.asarray(source_index)
        self.edited = np.flatnonzero(source >= 0)
        self.source = source[self.edited]

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Standardized moments and centered evidence of some rows.

        There is no intercept: both are centered, and where the tokens did not change no change is predicted.
        """
        for block in _block_slices(len(self.pooled)):
            yield (self.pooled[block] - self.mean) / self.scale, self.z[block] - self.level
        weight = CHANGE_WEIGHT**0.5
        for block in _block_slices(len(self.edited)):
            edited, source = self.edited[block], self.source[block]
            yield (weight * (self.pooled[edited] - self.pooled[source]) / self.scale,
                   weight * (self.z[edited] - self.z[source]))


def _block_slices(n: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))


def moments_of(tokens: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Moments of tokens as they lie on disk, in double precision; few windows are in memory at a time.

    Parameters
    ----------
    tokens : ndarray, shape (n_windows, n_times, eeg_width or its factors)
        Of a frozen encoder.
    out : ndarray, shape (n_windows, 2 * eeg_width), optional
        Where to write them; a new array by default.

    Returns
    -------
    ndarray, shape (n_windows, 2 * eeg_width)
        See :func:`e2llm.models.eegpt.moments`.
    """
    if out is None:
        out = np.empty((len(tokens), 2 * int(np.prod(tokens.shape[2:]))))
    start = 0
    for part in _moment_blocks(tokens):
        out[start : start + len(part)] = part
        start += len(part)
    return out


def _moment_blocks(tokens: np.ndarray) -> Iterator[np.ndarray]:
    for block in _block_slices(len(tokens)):
        part = np.array(tokens[block], dtype=np.float64)
        yield moments(torch.from_numpy(part.reshape(*part.shape[:2], -1))).numpy()
