"""Differential entropy against mne-features, TorchEEG and a plain loop over scipy's Welch spectra.

How to make the environment and what came out stands in ``benchmarks/README.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

import mne_features.utils
import numpy as np
from common import Row, compare, largest_difference, main_of, seconds
from mne_features.univariate import compute_pow_freq_bands
from scipy import fft
from scipy.signal import welch
from threadpoolctl import threadpool_limits
from torcheeg.transforms import BandDifferentialEntropy

from e2llm.core.bands import BANDS
from e2llm.data.features import band_power, differential_entropy

SFREQ = 256.0
# Its default taper is Hamming's; with Hann's both sides compute the same spectra.
mne_features.utils.psd_array_welch = partial(mne_features.utils.psd_array_welch, window="hann", remove_dc=False)


def noise(n_windows: int) -> np.ndarray:
    """Windows of 4 s in 58 channels whose power falls with frequency, some ten microvolts."""
    spectrum = np.random.default_rng(0).normal(size=(n_windows, 58, 513, 2)).astype(np.float32).view(np.complex64)
    signal = fft.irfft(spectrum[..., 0] / np.sqrt(1.0 + np.arange(513, dtype=np.float32)), 1024)
    return 10 * signal / signal.std()


def ours(windows: np.ndarray) -> np.ndarray:
    return differential_entropy(band_power(windows, SFREQ))


def of_scipy(windows: np.ndarray) -> np.ndarray:
    """One channel after the other, in double precision."""
    found = np.empty((*windows.shape[:2], len(BANDS)))
    for i, window in enumerate(windows.astype(float)):
        for j, channel in enumerate(window):
            frequencies, density = welch(channel, SFREQ, nperseg=512, detrend=False)
            for k, (low, high) in enumerate(BANDS.values()):
                found[i, j, k] = 0.5 * density[(frequencies >= low) & (frequencies < high)].sum()
    return differential_entropy(found)


def of_mne_features(windows: np.ndarray) -> np.ndarray:
    """A call a window; bands end one bin earlier, for its bands hold both of their edges."""
    edges = [(low, high - 0.25) for low, high in BANDS.values()]
    params = {"welch_n_fft": 512, "welch_n_per_seg": 512, "welch_n_overlap": 256}
    power = [compute_pow_freq_bands(SFREQ, window, np.array(edges), normalize=False, psd_params=params)
             for window in windows.astype(float)]
    return differential_entropy(0.5 * np.reshape(power, (*windows.shape[:2], len(BANDS))))


def of_torcheeg(windows: np.ndarray) -> np.ndarray:
    """Variance of band-passed signals, in nats."""
    transform = BandDifferentialEntropy(sampling_rate=256, band_dict={name: list(band) for name, band in BANDS.items()})
    return np.log(2.0) * np.stack([transform(eeg=window)["eeg"] for window in windows])


def typical(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Median absolute difference in nats: another estimator of the same entropy."""
    return float(np.median(np.abs(ours - theirs)))


def rows(repeats: int) -> Iterator[Row]:
    with threadpool_limits(1):
        for n_windows, peer, name, agree, tolerance, goal in (
            (64, of_mne_features, "mne-features, a call a window", largest_difference, 1e-5, 1.2),
            (16, of_torcheeg, "TorchEEG", typical, 0.2, 40.0),
            (16, of_scipy, "a loop over scipy.signal.welch", largest_difference, 1e-5, None),
        ):
            windows = noise(n_windows)
            segments = np.lib.stride_tricks.sliding_window_view(windows, 512, axis=-1)[:, :, ::256]
            floor = min(seconds(lambda parts=segments: [fft.rfft(part) for part in parts])[0] for _ in range(3))
            yield compare(f"{n_windows} windows of 58 channels; {name}", partial(ours, windows), partial(peer, windows),
                          agree, tolerance, repeats, goal, floor)


if __name__ == "__main__":
    sys.exit(main_of(__doc__, rows, ["numpy", "scipy", "mne", "mne-features", "torcheeg"]))
