"""Band power and differential entropy of windows."""

from __future__ import annotations

import numpy as np
from scipy.signal import welch

from .effects import BANDS


def band_power(windows: np.ndarray, sfreq: float, chunk: int = 256) -> np.ndarray:
    """Power of every channel in the five bands by Welch's method (2 s Hann segments, half overlap).

    Parameters
    ----------
    windows : ndarray, shape (n_windows, n_channels, n_samples)
        Microvolts; may be memory-mapped, it is read in chunks.
    sfreq : float
        Sampling rate in Hz.

    Returns
    -------
    ndarray, shape (n_windows, n_channels, n_bands)
        Square microvolts.
    """
    powers = []
    for start in range(0, len(windows), chunk):
        frequencies, density = welch(windows[start : start + chunk], fs=sfreq, nperseg=int(2 * sfreq), axis=-1, detrend=False)
        step = frequencies[1] - frequencies[0]
        masks = [(frequencies >= low) & (frequencies < high) for low, high in BANDS.values()]
        powers.append(np.stack([density[..., mask].sum(-1) * step for mask in masks], axis=-1))
    return np.concatenate(powers).astype(np.float32)


def differential_entropy(power: np.ndarray) -> np.ndarray:
    """Differential entropy of a Gaussian signal with this power in square microvolts: ``0.5 ln(2 pi e power)``, nats."""
    return 0.5 * np.log(2 * np.pi * np.e * np.maximum(power, 1e-12))
