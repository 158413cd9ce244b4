"""Features of a window: band power, differential entropy, the shape of the spectrum, and the evidence of claims."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy  # its parts load when they are used

from ..core.bands import BANDS
from ..core.claims import EvidenceNames
from ..core.montage import FRONTAL_PAIRS, canonical, region_indices, region_of

SLOPE_HZ = (2.0, 40.0)  # where the slope is fitted; the alpha band, whose peak is no part of it, is left out


def _spectra(windows: np.ndarray, sfreq: float, chunk: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks of windows with Welch's spectra in the precision of the windows, as far as the bands reach.

    Yields a block, frequencies (Hz) and density (window, channel, frequency).
    """
    length = min(int(2 * sfreq), windows.shape[-1])
    taper = scipy.signal.windows.hann(length, sym=False).astype(np.result_type(windows.dtype, np.float32))
    frequencies = scipy.fft.rfftfreq(length, 1 / sfreq)
    frequencies = frequencies[frequencies < min(sfreq / 2, max(high for _, high in BANDS.values()))]
    for start in range(0, len(windows), chunk):
        block = windows[start : start + chunk]
        segments = np.lib.stride_tricks.sliding_window_view(block, length, axis=-1)[..., :: length - length // 2, :]
        coefficients = scipy.fft.rfft(segments * taper)[..., : len(frequencies)]
        density = (coefficients.real**2 + coefficients.imag**2).sum(axis=-2)
        density *= 2 / (sfreq * np.sum(taper**2, dtype=float) * segments.shape[-2])
        yield block, frequencies, density


def _in_bands(frequencies: np.ndarray, density: np.ndarray) -> np.ndarray:
    step = frequencies[1] - frequencies[0]
    spans = [slice(*np.searchsorted(frequencies, edges)) for edges in BANDS.values()]
    return np.stack([density[..., span].sum(-1) * step for span in spans], axis=-1)


def band_power(windows: np.ndarray, sfreq: float, chunk: int = 4) -> np.ndarray:
    """Power of every channel in the five bands by Welch's method (2 s Hann segments, half overlap).

    Parameters
    ----------
    windows : ndarray, shape (n_windows, n_channels, n_samples)
        Microvolts; may be memory-mapped, it is read in chunks.
    sfreq : float
        Sampling rate in Hz.
    chunk : int
        Windows transformed at a time; few, so that their coefficients stay in the processor's cache.

    Returns
    -------
    ndarray, shape (n_windows, n_channels, n_bands)
        Square microvolts, float32.
    """
    return np.concatenate([_in_bands(*spectra) for _, *spectra in _spectra(windows, sfreq, chunk)]).astype(np.float32)


def measure(windows: np.ndarray, sfreq: float, ch_names: list[str], chunk: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Band power and spectral shape of windows from one pass over them.

    Parameters
    ----------
    windows, sfreq, chunk
        As in :func:`band_power`.
    ch_names : list of str
        Channel names.

    Returns
    -------
    power : ndarray, shape (n_windows, n_channels, n_bands)
        As from :func:`band_power`.
    shape : ndarray, shape (n_windows, 3)
        Columns of :data:`SHAPE`, float32: the slope of the log-log spectrum (negative; the exponent of its fall,
        Donoghue et al. 2020, Nat. Neurosci. 23:1655, here by a straight line without the alpha band), the center of
        gravity of posterior alpha in Hz (Klimesch 1999, Brain Res. Rev. 29:169), and the natural logarithm of the
        largest peak-to-peak amplitude of any channel in microvolts, which is what MNE's ``reject`` looks at.
    """
    posterior = [row for region, rows in region_indices(ch_names).items() if region in ("parietal", "occipital")
                 for row in rows]
    found = [(_in_bands(frequencies, density), _shape(block, frequencies, density,
                                                      posterior or list(range(len(ch_names)))))
             for block, frequencies, density in _spectra(windows, sfreq, chunk)]
    power, shape = (np.concatenate(parts).astype(np.float32) for parts in zip(*found, strict=True))
    return power, shape


def _shape(block: np.ndarray, frequencies: np.ndarray, density: np.ndarray, posterior: list[int]) -> np.ndarray:
    low, high = BANDS["alpha"]
    is_alpha = (frequencies >= low) & (frequencies < high)
    fitted = (frequencies >= SLOPE_HZ[0]) & (frequencies <= SLOPE_HZ[1]) & ~is_alpha
    level, x = np.log(np.maximum(density[..., fitted], 1e-12)).mean(axis=1), np.log(frequencies[fitted])
    slope = level @ (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    alpha = density[:, posterior][..., is_alpha].sum(axis=1)
    center = alpha @ frequencies[is_alpha] / np.maximum(alpha.sum(axis=1), 1e-12)
    return np.column_stack([slope, center, np.log(np.maximum(np.ptp(block, axis=-1).max(axis=1), 1e-6))])


def differential_entropy(power: np.ndarray) -> np.ndarray:
    """Differential entropy of a Gaussian signal of this power (square microvolts): ``0.5 ln(2 pi e power)``, nats."""
    return 0.5 * np.log(2 * np.pi * np.e * np.maximum(power, 1e-12))


def scalp_groups(ch_names: list[str]) -> dict[str, list[int]]:
    """Channels by region and side ("frontal left", "frontal middle", …), row numbers; empty groups are left out."""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(ch_names):
        digits = "".join(letter for letter in canonical(name) if letter.isdigit())
        side = "middle" if not digits else ("left" if int(digits) % 2 else "right")
        groups.setdefault(f"{region_of(name)} {side}", []).append(row)
    return groups


def group_entropy(power: np.ndarray, groups: dict[str, list[int]]) -> np.ndarray:
    """Mean differential entropy of each group of channels.

    Parameters
    ----------
    power : ndarray, shape (n_windows, n_channels, n_bands)
        Square microvolts.
    groups : dict of str to list of int
        Rows of the channels of each group, from :func:`scalp_groups` or
        :func:`e2llm.core.montage.region_indices`.

    Returns
    -------
    ndarray, shape (n_windows, n_groups * n_bands)
        Nats.
    """
    entropy = differential_entropy(power)
    return np.stack([entropy[:, rows].mean(axis=1) for rows in groups.values()], axis=1).reshape(len(power), -1)


def evidence(power: np.ndarray, shape: np.ndarray, ch_names: list[str]) -> tuple[np.ndarray, EvidenceNames]:
    """Raw evidence of windows, before it is compared with a baseline.

    Parameters
    ----------
    power, shape : ndarray, shapes (n_windows, n_channels, n_bands) and (n_windows, 3)
        From :func:`measure`.
    ch_names : list of str
        Channel names.

    Returns
    -------
    values : ndarray, shape (n_windows, n_regions * n_bands + 4)
        Mean differential entropy (nats) by region and band, a linear function of band power in decibels, so both have
        the same z-scores; then frontal alpha asymmetry: log alpha power right minus left over the homologous pairs that
        are present (a descriptor; it decodes no valence), 0 without pairs; then ``shape``.
    names : EvidenceNames
        What the columns are.
    """
    regions = region_indices(ch_names)
    values = group_entropy(power, regions)
    pairs = tuple((band, region) for region in regions for band in BANDS)
    position = {canonical(name): row for row, name in enumerate(ch_names)}
    alpha = np.log(np.maximum(power[:, :, list(BANDS).index("alpha")], 1e-12))
    present = [(position[left], position[right]) for left, right in FRONTAL_PAIRS if left in position
               and right in position]
    differences = [alpha[:, right] - alpha[:, left] for left, right in present]
    asymmetry = np.mean(differences, axis=0) if differences else np.zeros(len(power))
    return np.column_stack([values, asymmetry, shape]), EvidenceNames(pairs)
