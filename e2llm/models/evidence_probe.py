"""The evidence probe: a ridge regression that predicts measured evidence from the tokens of a frozen encoder."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.claims import MAX_ABS_Z
from .eegpt import moments

CHANGE_WEIGHT = 16.0  # weight of the squared error of a change; that of a level has weight 1


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
        from sklearn.linear_model import RidgeCV  # here: a model that is only loaded fits nothing
        from sklearn.preprocessing import StandardScaler

        pooled, z = _moments_of(np.asarray(tokens)).numpy(), np.clip(z, -MAX_ABS_Z, MAX_ABS_Z)
        scaler, level = StandardScaler().fit(pooled), z.mean(axis=0)
        x, y = scaler.transform(pooled), z - level
        if source_index is not None and (is_edited := np.asarray(source_index) >= 0).any():
            source = source_index[is_edited]
            x, y = (np.concatenate([of, CHANGE_WEIGHT**0.5 * (of[is_edited] - of[source])]) for of in (x, y))
        # No intercept: both sides are centered, and for no change in the tokens no change is predicted.
        weight = np.atleast_2d(RidgeCV(np.logspace(-2, 4, 13), fit_intercept=False).fit(x, y).coef_) / scaler.scale_
        bias = level - weight @ scaler.mean_
        weight, bias = (torch.from_numpy(np.array(part, dtype=np.float32, order="C")) for part in (weight, bias))
        return cls(list(names), weight, bias)

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Predicted evidence (n_windows, n_names) of tokens (n_windows, n_times, eeg_width or its factors)."""
        return F.linear(_moments_of(tokens).float(), self.weight, self.bias).numpy()


def _moments_of(tokens: np.ndarray) -> Tensor:
    """Moments of tokens as they lie on disk, in double precision; few windows are in memory at a time."""
    parts = (np.array(part, dtype=np.float64) for part in np.array_split(tokens, max(1, len(tokens) // 256)))
    return torch.cat([moments(torch.from_numpy(part.reshape(len(part), part.shape[1], -1))) for part in parts])
