"""EEGNet (Lawhern et al. 2018): the compact CNN that EEG classifiers are usually compared with.

References
----------
Lawhern, V. J., et al. (2018). EEGNet: a compact convolutional neural network for EEG-based brain-computer
interfaces. Journal of Neural Engineering, 15, 056013.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import scipy  # its parts load when they are used
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEPARABLE_KERNEL = 16  # samples, after the first pooling; half a second at 128 Hz
POOLS = (4, 8)  # samples averaged at the end of either block
SPATIAL_NORM, DENSE_NORM = 1.0, 0.25  # largest norms of a spatial filter and of a class's weights


@dataclass(frozen=True)
class EEGNetParams:
    """Size of an EEGNet; the defaults are the paper's EEGNet-8,2.

    Parameters
    ----------
    temporal_filters, depth : int
        F1 filters in time, and D spatial filters for each of them. Block 2 has F2 = F1 * D filters.
    dropout : float
        The paper takes 0.5 within a person and 0.25 across people.
    rate : float
        Sampling rate in Hz of the network's input; a temporal filter is half a second long.
    """

    temporal_filters: int = 8
    depth: int = 2
    dropout: float = 0.5
    rate: float = 128.0

    def __post_init__(self) -> None:
        for name in ("temporal_filters", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: EEGNet needs at least 1 filter.")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}: give a share from 0 to below 1.")
        if not 4.0 <= self.rate < np.inf:
            raise ValueError(f"rate is {self.rate} Hz: give at least 4 Hz, so that a filter of 0.5 s has 2 samples.")

    @property
    def kernel(self) -> int:
        """Samples of a temporal filter."""
        return round(self.rate / 2.0)


class EEGNet(nn.Module):
    """Temporal filters, spatial filters for each of them, and a separable convolution; then one linear layer.

    Parameters
    ----------
    n_channels, n_classes, n_samples : int
        Channels and samples of a window, and number of classes.
    params : EEGNetParams, optional
        Size.

    Raises
    ------
    ValueError
        If there are no channels, fewer than two classes, or windows shorter than the pooling.
    """

    def __init__(self, n_channels: int, n_classes: int, n_samples: int, params: EEGNetParams | None = None) -> None:
        super().__init__()
        self.params = p = params or EEGNetParams()
        n_pooled = n_samples // POOLS[0] // POOLS[1]
        if n_channels < 1 or n_classes < 2:
            raise ValueError(f"EEGNet got {n_channels} channels and {n_classes} classes: give at least 1 and 2.")
        if n_pooled < 1:
            raise ValueError(f"Windows of {n_samples} samples end before the pooling does: "
                             f"give at least {POOLS[0] * POOLS[1]}.")
        self.shape = (n_channels, n_samples)
        f1, f2 = p.temporal_filters, p.temporal_filters * p.depth
        self.pad1, self.pad2 = _same_padding(p.kernel), _same_padding(SEPARABLE_KERNEL)
        self.temporal = nn.Conv2d(1, f1, (1, p.kernel), bias=False)
        self.norm1 = nn.BatchNorm2d(f1)
        self.spatial = nn.Conv2d(f1, f2, (n_channels, 1), groups=f1, bias=False)  # depthwise
        self.norm2 = nn.BatchNorm2d(f2)
        self.depthwise = nn.Conv2d(f2, f2, (1, SEPARABLE_KERNEL), groups=f2, bias=False)
        self.pointwise = nn.Conv2d(f2, f2, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(f2)
        self.pool1, self.pool2 = nn.AvgPool2d((1, POOLS[0])), nn.AvgPool2d((1, POOLS[1]))
        self.dropout = nn.Dropout(p.dropout)
        self.classifier = nn.Linear(f2 * n_pooled, n_classes)

    def forward(self, signal: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Logits and, with labels, the cross-entropy as ``loss``.

        Parameters
        ----------
        signal : Tensor, shape (batch, n_channels, n_samples)
            EEG at ``params.rate``, scaled to a standard deviation of about 1.
        labels : Tensor of int, shape (batch,), optional
            Class indices.

        Returns
        -------
        dict
            ``logits`` (batch, n_classes), and ``loss``.

        Raises
        ------
        ValueError
            If the windows have another shape than the network was built for.
        """
        if tuple(signal.shape[1:]) != self.shape:
            raise ValueError(f"EEGNet was built for windows of (channels, samples) {self.shape}, "
                             f"got {tuple(signal.shape[1:])}: build a new one.")
        # Norms are limited where weights are used, not after a step: any optimizer will do, and checkpoints hold all.
        spatial = torch.renorm(self.spatial.weight, 2, 0, SPATIAL_NORM)
        dense = torch.renorm(self.classifier.weight, 2, 0, DENSE_NORM)
        x = self.norm1(self.temporal(self.pad1(signal.unsqueeze(1))))  # (batch, F1, n_channels, n_samples)
        x = self.norm2(F.conv2d(x, spatial, groups=self.spatial.groups))  # (batch, F1 * D, 1, n_samples)
        x = self.dropout(self.pool1(F.elu(x)))
        x = self.norm3(self.pointwise(self.depthwise(self.pad2(x))))
        x = self.dropout(self.pool2(F.elu(x)))
        logits = F.linear(x.flatten(1), dense, self.classifier.bias)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def _same_padding(kernel: int) -> nn.Module:
    """Zeros at both ends in time, so that a convolution leaves the number of samples as it is."""
    return nn.ZeroPad2d(((kernel - 1) // 2, kernel // 2, 0, 0))


def decimated(signal_uv: np.ndarray, sfreq: float, rate: float) -> np.ndarray:
    """Signal at a lower sampling rate, behind an anti-aliasing filter.

    Parameters
    ----------
    signal_uv : ndarray, shape (batch, n_channels, n_samples)
        Any unit; it is kept.
    sfreq, rate : float
        Sampling rate in Hz that the signal has, and that it shall have.

    Returns
    -------
    ndarray of float32, shape (batch, n_channels, ceil(n_samples * rate / sfreq))

    Raises
    ------
    ValueError
        If the rate is not positive, or above the signal's.
    """
    if not 0.0 < rate <= sfreq:
        raise ValueError(f"A signal at {sfreq:g} Hz cannot be decimated to {rate:g} Hz: "
                         f"choose a positive rate of at most {sfreq:g} Hz.")
    ratio = Fraction(rate / sfreq).limit_denominator(1000)
    return scipy.signal.resample_poly(np.asarray(signal_uv, dtype=np.float32), ratio.numerator, ratio.denominator,
                                      axis=-1)
