"""EEGNet (Lawhern et al. 2018, J. Neural Eng. 15:056013): the compact CNN that EEG classifiers are usually compared with.

Built from the paper's description. The paper's order of the two linear maps of block 1 (filter every channel in
time, then weigh the channels) is exchanged here, which changes results by rounding alone: see :class:`EEGNet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from scipy.signal import resample_poly
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
            raise ValueError(f"rate is {self.rate} Hz: give at least 4 Hz, so that a filter of half a second has 2 samples.")

    @property
    def kernel(self) -> int:
        """Samples of a temporal filter."""
        return round(self.rate / 2.0)


class EEGNet(nn.Module):
    """Temporal filters, spatial filters for each of them, and a separable convolution; then one linear layer.

    The paper filters every channel in time, normalises, and weighs the channels. Weighing first gives the same,
    since all three are linear once the batch norm's mean and variance are known; those follow from the lagged
    products of the signal (:func:`lagged_products`) without filtering any channel. A training step takes about a quarter of the time.

    Parameters
    ----------
    n_channels, n_classes, n_samples : int
        Shape of the problem; the flattened features of ``n_samples`` samples go into the linear layer.
    params : EEGNetParams, optional
        Size.
    """

    def __init__(self, n_channels: int, n_classes: int, n_samples: int, params: EEGNetParams | None = None) -> None:
        super().__init__()
        self.params = p = params or EEGNetParams()
        n_pooled = n_samples // POOLS[0] // POOLS[1]
        if n_channels < 1 or n_classes < 2:
            raise ValueError(f"EEGNet got {n_channels} channels and {n_classes} classes: give at least 1 and 2.")
        if n_pooled < 1:
            raise ValueError(f"Windows of {n_samples} samples end before the pooling does: give at least {POOLS[0] * POOLS[1]}.")
        self.shape = (n_channels, n_samples)
        width = p.temporal_filters * p.depth
        self.temporal = nn.Parameter(_uniform(p.temporal_filters, p.kernel))
        self.norm1 = nn.BatchNorm2d(p.temporal_filters)
        self.spatial = nn.Parameter(_uniform(p.temporal_filters, p.depth, n_channels))
        self.norm2 = nn.BatchNorm1d(width)
        self.depthwise = nn.Conv1d(width, width, SEPARABLE_KERNEL, groups=width, bias=False)
        self.pointwise = nn.Conv1d(width, width, 1, bias=False)
        self.norm3 = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(p.dropout)
        self.classifier = nn.Linear(width * n_pooled, n_classes)

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
        """
        if tuple(signal.shape[1:]) != self.shape:
            raise ValueError(f"EEGNet was built for windows of (channels, samples) {self.shape}, got {tuple(signal.shape[1:])}: build a new one.")
        x = self.dropout(F.avg_pool1d(F.elu(self.norm2(self._filtered(signal))), POOLS[0]))
        x = self.pointwise(self.depthwise(_pad_same(x, SEPARABLE_KERNEL)))
        x = self.dropout(F.avg_pool1d(F.elu(self.norm3(x)), POOLS[1]))
        # Norms are limited where weights are used, not after a step: any optimiser will do, and checkpoints hold all there is.
        dense = torch.renorm(self.classifier.weight, 2, 0, DENSE_NORM)
        logits = F.linear(x.flatten(1), dense, self.classifier.bias)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def _filtered(self, signal: Tensor) -> Tensor:
        """Temporal convolution, batch norm and spatial convolution: (batch, n_channels, n_samples) to (batch, F1 * D, n_samples)."""
        spatial = torch.renorm(self.spatial.flatten(0, 1), 2, 0, SPATIAL_NORM)
        filters, depth = self.temporal.repeat_interleave(self.params.depth, 0)[:, None], self.params.depth
        x = F.conv1d(_pad_same(spatial @ signal, self.params.kernel), filters, groups=len(filters))
        mean, variance = self._moments(signal) if self.training else (self.norm1.running_mean, self.norm1.running_var)
        scale = self.norm1.weight * torch.rsqrt(variance + self.norm1.eps)
        offset = (self.norm1.bias - scale * mean).repeat_interleave(depth) * spatial.sum(dim=1)
        return x * scale.repeat_interleave(depth)[:, None] + offset[:, None]

    def _moments(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of every temporal filter's output over windows, channels and samples; running ones are updated."""
        gram, sums = lagged_products(signal, self.params.kernel)
        filters, n = self.temporal.to(gram.dtype), signal.numel()
        mean = filters @ sums / n
        variance = (((filters @ gram) * filters).sum(dim=1) / n - mean**2).clamp(min=0.0)
        with torch.no_grad():
            self.norm1.num_batches_tracked += 1
            self.norm1.running_mean.lerp_(mean.to(signal.dtype), self.norm1.momentum)
            self.norm1.running_var.lerp_((variance * n / (n - 1)).to(signal.dtype), self.norm1.momentum)
        return mean.to(signal.dtype), variance.to(signal.dtype)


@torch.no_grad()
def lagged_products(signal: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Products of the zero-padded signal with itself, and its sums, as a filter of ``kernel`` samples meets them.

    A filter h has the outputs ``y(t) = sum_k h(k) z(t + k)`` over the padded signal z; their sum is ``h @ sums``
    and the sum of their squares ``h @ gram @ h``. Going one step down a diagonal of ``gram`` exchanges only
    samples at the ends of the window, so its first row, an autocorrelation, and the ends give all of it.

    Parameters
    ----------
    signal : Tensor, shape (batch, n_channels, n_samples)
        Any unit.
    kernel : int
        Samples of the filter; the output is as long as the signal.

    Returns
    -------
    gram : Tensor, shape (kernel, kernel)
        In double precision where the device has it: a high-pass filter leaves a small difference of large products.
    sums : Tensor, shape (kernel,)
    """
    z = _pad_same(signal.to(torch.float32 if signal.device.type == "mps" else torch.float64), kernel).flatten(0, 1)
    n_samples, n = signal.shape[-1], next_fast_len(z.shape[-1], real=True)
    gained, lost = z[:, n_samples:], z[:, : kernel - 1]
    tail = gained.T @ gained
    spectrum = torch.fft.rfft(z, n)
    first = torch.fft.irfft((spectrum.real**2 + spectrum.imag**2).sum(dim=0), n)[:kernel]
    first[:-1] -= torch.stack([tail.diagonal(lag).sum() for lag in range(kernel - 1)])  # outputs end before the padding does
    change = tail - lost.T @ lost
    gram = torch.empty(kernel, kernel, dtype=z.dtype, device=z.device)
    gram[0], gram[:, 0] = first, first
    for k in range(1, kernel):
        gram[k, 1:] = gram[k - 1, :-1] + change[k - 1]
    return gram, z.sum(dim=0).unfold(0, n_samples, 1).sum(dim=1)


def _pad_same(x: Tensor, kernel: int) -> Tensor:
    """Zeros at the ends, so that a convolution leaves the number of samples as it is."""
    return F.pad(x, ((kernel - 1) // 2, kernel // 2))


def _uniform(*shape: int) -> Tensor:
    """New filters over the last axis, as PyTorch starts a convolution."""
    return torch.empty(shape).uniform_(-1.0, 1.0) / shape[-1] ** 0.5


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
    """
    if not 0.0 < rate <= sfreq:
        raise ValueError(f"A signal at {sfreq:g} Hz cannot be decimated to {rate:g} Hz: choose a positive rate of at most {sfreq:g} Hz.")
    ratio = Fraction(rate / sfreq).limit_denominator(1000)
    return resample_poly(np.asarray(signal_uv, dtype=np.float32), ratio.numerator, ratio.denominator, axis=-1)
