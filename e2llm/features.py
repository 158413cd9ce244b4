"""What is measured in a window: band power, differential entropy, and the discrete evidence that reasoning may cite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import welch

from .effects import BANDS
from .montage import FRONTAL_PAIRS, canonical, region_indices, region_of

LEVELS = ("low", "typical", "high")
LEVEL_THRESHOLD = 0.7  # |z| from which a level counts as low or high


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
        Square microvolts, float32.
    """
    powers = []
    for start in range(0, len(windows), chunk):
        block = windows[start : start + chunk]
        frequencies, density = welch(block, fs=sfreq, nperseg=int(2 * sfreq), axis=-1, detrend=False)
        step = frequencies[1] - frequencies[0]
        masks = [(frequencies >= low) & (frequencies < high) for low, high in BANDS.values()]
        powers.append(np.stack([density[..., mask].sum(-1) * step for mask in masks], axis=-1))
    return np.concatenate(powers).astype(np.float32)


def differential_entropy(power: np.ndarray) -> np.ndarray:
    """Differential entropy of a Gaussian signal with this power in square microvolts: ``0.5 ln(2 pi e power)``, nats."""
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
    """Mean differential entropy of each group of channels, shape (n_windows, n_groups * n_bands)."""
    entropy = differential_entropy(power)
    return np.stack([entropy[:, rows].mean(axis=1) for rows in groups.values()], axis=1).reshape(len(power), -1)


@dataclass(frozen=True)
class EvidenceNames:
    """Columns of the evidence table: (band, region) pairs, then "frontal asymmetry"."""

    pairs: tuple[tuple[str, str], ...]

    @property
    def columns(self) -> list[str]:
        """Readable names, in order."""
        return [f"{region} {band}" for band, region in self.pairs] + ["frontal asymmetry"]


def evidence(power: np.ndarray, ch_names: list[str]) -> tuple[np.ndarray, EvidenceNames]:
    """Raw evidence of windows, before it is compared with the person's baseline.

    Parameters
    ----------
    power : ndarray, shape (n_windows, n_channels, n_bands)
        Square microvolts.
    ch_names : list of str
        Channel names.

    Returns
    -------
    values : ndarray, shape (n_windows, n_regions * n_bands + 1)
        Mean differential entropy (nats) by region and band; last, frontal alpha asymmetry: log alpha power right
        minus left over the homologous pairs that are present (a descriptor; it decodes no valence), 0 without pairs.
    names : EvidenceNames
        What the columns are.
    """
    regions = region_indices(ch_names)
    values = group_entropy(power, regions)
    pairs = tuple((band, region) for region in regions for band in BANDS)
    position = {canonical(name): row for row, name in enumerate(ch_names)}
    alpha = np.log(np.maximum(power[:, :, list(BANDS).index("alpha")], 1e-12))
    present = [(position[left], position[right]) for left, right in FRONTAL_PAIRS if left in position and right in position]
    differences = [alpha[:, right] - alpha[:, left] for left, right in present]
    asymmetry = np.mean(differences, axis=0) if differences else np.zeros(len(power))
    return np.column_stack([values, asymmetry]), EvidenceNames(pairs)


def level(z: float) -> str:
    """Word for a z-score: low, typical or high, by :data:`LEVEL_THRESHOLD`."""
    return LEVELS[1 + int(z >= LEVEL_THRESHOLD) - int(z <= -LEVEL_THRESHOLD)]
