"""Band-pass and change of rate, one stretch of a signal in memory at a time.

Both are one pass over the Fourier coefficients of a stretch, in single precision.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil
from pathlib import Path

import mne
import numpy as np
from scipy import fft

from ..core.space import working_array
from .checks import DEAD_S, runs
from .preprocess_params import PreprocessParams

_BLOCK = 6.0  # lengths of the filter's kernel that are transformed at a time
_GUARD_S = 0.25  # of signal on either side of a block beside half a kernel: the resampling's own kernel fades in it
_ROWS = 8  # channels transformed together: their coefficients stay in the processor's cache


def filter_and_resample(signal, sfreq: float, params: PreprocessParams, n_empty: int = 0,
                        folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Band-pass with MNE's kernel and change the rate, stretch by stretch.

    A stretch with its neighbourhood is transformed once, its coefficients are multiplied by those of the kernel, and
    the transform back has as many samples as the new rate asks for. That interpolates the filtered signal exactly, for
    nothing is left of it at half of either rate. A stretch of a recording is filtered with what lies around it, for
    the kernel is longer than a short trial. The ends of the recording are continued as MNE does it, by a reflection
    about the last sample.

    Parameters
    ----------
    signal : array, shape (n_channels, n_samples)
        Microvolts; sliced along time, so it may be read from a file. If it is a stretch of a recording, it is filtered
        with what lies around it (:meth:`e2llm.data.sources.base.Stretch.around`).
    sfreq : float
        Its rate in Hz. Where the ratio of the rates is no simple fraction, the last sample is late or early by half a
        sample at most, or by a hundred-thousandth of the signal if that is more.
    params : PreprocessParams
        Filter edges and the new rate.
    n_empty : int
        Rows of zeros that are appended to the result.
    folder : Path, optional
        Whose disk holds a result that is large; see :func:`e2llm.core.space.working_array`.

    Returns
    -------
    resampled : ndarray, shape (n_channels + n_empty, n_samples * params.sfreq / sfreq)
        Float32 microvolts.
    peak_to_peak : ndarray, shape (n_channels,)
        Of the signal that came in.
    """
    ratio = _ratio(params.sfreq / sfreq, signal.shape[1])
    up, down, (n_channels, n_samples) = ratio.numerator, ratio.denominator, signal.shape
    band = (sfreq, params.l_freq, min(params.h_freq, sfreq / 2 - params.h_trans), params.h_trans)
    length = len(_kernel(*band))
    margin = down * ceil((length / 2 + _GUARD_S * sfreq) / down)
    step = down * max(1, ceil((_BLOCK * length - 2 * margin) / down))
    resampled = working_array((n_channels + n_empty, round(n_samples * ratio)), folder)
    lowest, highest = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)
    before, after = _surroundings(signal, sfreq, margin)
    for start in range(0, n_samples, step):
        stop = min(start + step, n_samples)
        first, last = start - margin, stop + margin
        x = np.asarray(signal[:, max(first, 0) : last], dtype=np.float32)
        lowest, highest = np.minimum(lowest, x.min(axis=1)), np.maximum(highest, x.max(axis=1))
        early = before[:, max(before.shape[1] + first, 0) :] if first < 0 else before[:, :0]
        late = after[:, : max(last - n_samples, 0)]
        if early.size or late.size:
            x = np.concatenate([early, x, late], axis=1)
        # Single precision is for the EEG, not for the offset of an amplifier, which may be a thousand times as large.
        offset = x.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        left = max(-first, 0) - early.shape[1]
        n_old = down * fft.next_fast_len(ceil((stop - start + 2 * margin) / down), real=True)
        n_new = n_old * up // down
        x = np.pad(x, ((0, 0), (left, n_old - left - x.shape[1])), mode="reflect", reflect_type="odd")
        x -= offset
        gain, gain_0 = _gain(band, n_old, n_new)
        here, there = start * up // down, min(ceil(stop * ratio), resampled.shape[1])
        skip = margin * up // down
        for row in range(0, n_channels, _ROWS):
            rows = slice(row, min(row + _ROWS, n_channels))
            coefficients = fft.rfft(x[rows])[:, : len(gain)] * gain
            resampled[rows, here:there] = fft.irfft(coefficients, n_new)[:, skip : skip + there - here]
        resampled[:n_channels, here:there] += offset * gain_0
    return resampled, highest - lowest


def _surroundings(signal, sfreq: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to n samples before and after a stretch of a recording, as far as it was recorded; of an array none."""
    none = np.empty((signal.shape[0], 0), dtype=np.float32)
    before, after = signal.around(n) if hasattr(signal, "around") else (none, none)
    return _unbroken(before[:, ::-1], sfreq)[:, ::-1], _unbroken(after, sfreq)


def _unbroken(samples: np.ndarray, sfreq: float) -> np.ndarray:
    """Samples up to the first pause, in which no channel changes for a while, or the first that is not finite."""
    starts, lengths = runs((samples[:, 1:] == samples[:, :-1]).all(axis=0))
    ends = [*starts[lengths >= DEAD_S * sfreq], *np.flatnonzero(~np.isfinite(samples).all(axis=0))]
    return samples[:, : min(ends, default=samples.shape[1])]


@lru_cache(maxsize=16)
def _kernel(sfreq: float, l_freq: float, h_freq: float, h_trans: float) -> np.ndarray:
    """MNE's band-pass kernel, of odd length and without delay."""
    return mne.filter.create_filter(None, sfreq, l_freq, h_freq, h_trans_bandwidth=h_trans, verbose="error")


@lru_cache(maxsize=16)
def _gain(band: tuple[float, ...], n_old: int, n_new: int) -> tuple[np.ndarray, np.float32]:
    """What Fourier coefficients are multiplied by, below half of either rate, and the gain of a constant."""
    kernel = _kernel(*band)
    centred = np.zeros(n_old)
    centred[: len(kernel)] = kernel
    gain = fft.rfft(np.roll(centred, -(len(kernel) // 2))).real[: (min(n_old, n_new) + 1) // 2]
    return (gain * n_new / n_old).astype(np.float32), np.float32(kernel.sum())


def _ratio(exact: float, n_samples: int) -> Fraction:
    """Ratio of the rates as a fraction, as coarse as the length of the signal allows: blocks are multiples of it."""
    for limit in (10**3, 10**4, 10**5):
        ratio = Fraction(exact).limit_denominator(limit)
        if abs(float(ratio) - exact) * n_samples < 0.5:
            break
    return ratio


def parts_of(signal: np.ndarray) -> list[np.ndarray]:
    """Stretches of a signal as views, short enough for the processor's cache."""
    return [signal[:, start : start + 4096] for start in range(0, signal.shape[1], 4096)]
