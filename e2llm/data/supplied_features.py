"""Features that come with a dataset, beside the kit's own: whether they fit, and in what they differ.

SEED-VII comes with ``EEG_features/{subject}.mat``: ``de_{clip}``, ``de_LDS_{clip}`` and ``psd_{clip}``, one row for
each 4 s. A file in another order of channels, or of another person, trains as well as the right one. Here every file is
compared with the differential entropy that the kit computes from the signal. Series are compared within clips, for the
mean of a clip is alike in all files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from scipy.io import loadmat, whosmat
from scipy.optimize import linear_sum_assignment

from ..core.bands import BANDS
from ..core.files import one_line
from .features import band_power, differential_entropy
from .sources.base import Flaw
from .sources.seed_vii import is_number

FEATURE_S = 4.0  # length of a window of the supplied features
KINDS = ("de", "de_LDS", "psd")
MOST_WINDOWS = 400  # of a person that are compared
_MOST_VALUES = 50_000_000  # of one kind in a file; 80 clips of 5 min have 2 million
LEAST_WINDOWS = 4  # of a clip, for a course over time
FITS, MARGIN = 0.4, 0.15  # correlation of what belongs together, and by how much another order has to fit better
SMOOTH = 0.5  # roughness of a smoothed course over that of the kit's
# By what the kit's entropy, half a natural logarithm of power, has to be multiplied.
FORMULAS = {1.0: "0.5 ln(2 pi e variance), as the kit's", 1 / np.log(2): "0.5 log2 of power", 2.0: "ln of power",
            2 / np.log(2): "log2 of power, as the extractor of SEED", 20 / np.log(10): "10 log10 of power"}

Clips = Mapping[int, np.ndarray]  # clip to values, shape (n_windows, n_bands, n_channels)


@dataclass(frozen=True)
class FeatureFit:
    """How supplied features compare with the kit's own.

    Parameters
    ----------
    windows : int
        That were compared.
    correlation : ndarray, shape (n_bands,)
        With the kit's entropy within clips, median over the channels; bands and channels as the file has them.
    lag : int
        By how many windows the file is late.
    bands, channels : tuple of int
        For every band and channel of the file, which of the kit's fits it best.
    roughness : float
        Of the courses over time, as a share of the kit's: far below 1 for smoothed ones.
    factor : float
        By what the kit's entropy has to be multiplied, from how levels differ over the cap.
    fit : float
        Correlation of courses, mean over channels, with order and lag set right.
    """

    windows: int
    correlation: np.ndarray
    lag: int
    bands: tuple[int, ...]
    channels: tuple[int, ...]
    roughness: float
    factor: float
    fit: float


def own_entropy(clips: Mapping[int, np.ndarray], sfreq: float) -> dict[int, np.ndarray]:
    """The kit's differential entropy in windows of 4 s.

    Parameters
    ----------
    clips : mapping of int to ndarray, shape (n_channels, n_samples)
        Microvolts.
    sfreq : float
        Rate in Hz.

    Returns
    -------
    dict of int to ndarray, shape (n_windows, n_bands, n_channels)
        Nats.
    """
    length, entropy = round(FEATURE_S * sfreq), {}
    for clip, signal in clips.items():
        n = signal.shape[1] // length
        windows = signal[:, : n * length].reshape(len(signal), n, length).swapaxes(0, 1)
        if n:
            entropy[clip] = differential_entropy(band_power(np.ascontiguousarray(windows), sfreq)).swapaxes(1, 2)
    return entropy


def _centered(clips: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([x - x.mean(axis=0) for x in clips])


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of all columns of two matrices that are centered."""
    height = np.linalg.norm(x, axis=0)[:, None] * np.linalg.norm(y, axis=0)
    return x.T @ y / np.maximum(height, 1e-12)


def _roughness(clips: Sequence[np.ndarray]) -> float:
    """Mean square of steps over twice the variance within clips: 1 for a course without memory."""
    steps = np.concatenate([np.diff(x, axis=0) for x in clips])
    return float(np.median((steps**2).mean(axis=0) / np.maximum(2 * (_centered(clips) ** 2).mean(axis=0), 1e-12)))


def _smoothed(x: np.ndarray) -> np.ndarray:
    """Mean over five windows."""
    padded = np.pad(x, [(2, 2), (0, 0), (0, 0)], mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 5, axis=0).mean(axis=-1)


def _order_of_bands(x: np.ndarray, y: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """How well means over the cap fit, and which of the kit's bands each is; the order of channels is no matter."""
    table = _correlations(x.mean(axis=2), y.mean(axis=2))
    rows = np.arange(len(table))
    plain = float(table[rows, rows].mean())
    best = max(permutations(rows), key=lambda order: table[rows, list(order)].sum())
    score = float(table[rows, list(best)].mean())
    return (score, tuple(map(int, best))) if score > plain + MARGIN * 2 / len(rows) else (plain, tuple(rows.tolist()))


def compare_features(supplied: Clips, own: Clips) -> FeatureFit | None:
    """Compare supplied features with the kit's entropy of the same clips.

    Parameters
    ----------
    supplied, own : mapping of int to ndarray, shape (n_windows, n_bands, n_channels)
        Features, logarithms of power in whatever base, and the kit's (:func:`own_entropy`).

    Returns
    -------
    FeatureFit or None
        None if no clip that both have has enough windows.
    """
    pairs = [(supplied[clip][:n], own[clip][:n]) for clip in own
             if clip in supplied and (n := min(len(supplied[clip]), len(own[clip]))) > LEAST_WINDOWS]
    if not pairs:
        return None
    smooth = _roughness([x for x, _ in pairs]) / max(_roughness([y for _, y in pairs]), 1e-12)
    if smooth < SMOOTH:
        pairs = [(x, _smoothed(y)) for x, y in pairs]
    lagged = {}
    for lag in (0, 1, -1):
        cut = [(x[max(lag, 0) : len(x) + min(lag, 0)], y[max(-lag, 0) : len(y) + min(-lag, 0)]) for x, y in pairs]
        lagged[lag] = (_centered([x for x, _ in cut]), _centered([y for _, y in cut]))
    scores = {lag: _order_of_bands(*both)[0] for lag, both in lagged.items()}
    lag = max(scores, key=lambda one: scores[one])
    lag = lag if scores[lag] > scores[0] + MARGIN else 0
    x, y = lagged[lag]
    _, bands = _order_of_bands(x, y)
    y = y[:, list(bands)]
    n_channels = x.shape[2]
    table = np.mean([_correlations(x[:, band], y[:, band]) for band in range(x.shape[1])], axis=0)
    rows, best = linear_sum_assignment(-table)
    better = table[rows, best] > np.diag(table) + MARGIN
    channels = np.where(better, best, np.arange(n_channels))
    if len(set(channels)) < n_channels:
        channels = best  # a part of a cycle hardly differs: all of it belongs together
    levels = [np.mean([one.mean(axis=0) for one in side], axis=0) for side in zip(*pairs, strict=True)]
    spread = [np.std(level - level.mean(axis=1, keepdims=True))
              for level in (levels[0], levels[1][list(bands)][:, channels])]
    plain = [np.median(np.diag(_correlations(lagged[0][0][:, band], lagged[0][1][:, band])))
             for band in range(x.shape[1])]
    return FeatureFit(len(x), np.array(plain), lag, bands, tuple(map(int, channels)), smooth,
                      float(spread[0] / max(spread[1], 1e-12)), float(table[np.arange(n_channels), channels].mean()))


def formula_of(factor: float) -> str:
    """The formula of supplied features, by what the kit's entropy has to be multiplied."""
    nearest = min(FORMULAS, key=lambda one: abs(np.log(max(factor, 1e-12) / one)))
    return FORMULAS[nearest] if abs(np.log(max(factor, 1e-12) / nearest)) < 0.15 else "no formula that is known"


def _read(path: Path, kind: str, n_channels: int) -> dict[int, np.ndarray]:
    """Features of one kind by clip; ValueError if the file is unreadable or has another shape."""
    try:
        shapes = {key: math.prod(shape) for key, shape, _ in whosmat(path)
                  if key.startswith(f"{kind}_") and is_number(key.removeprefix(f"{kind}_"))}
        if sum(shapes.values()) > _MOST_VALUES:  # asked before a compressed file is unpacked
            raise ValueError(f"{sum(shapes.values()):,} values of {kind}")
        stored = loadmat(path, variable_names=list(shapes))
        named = {int(key.removeprefix(f"{kind}_")): np.asarray(stored[key], dtype=float) for key in shapes}
    except Exception as error:
        raise ValueError(f"it is unreadable ({one_line(error)})") from None
    for clip, value in named.items():
        if value.ndim != 3 or value.shape[1:] != (len(BANDS), n_channels):
            raise ValueError(f"{kind}_{clip} has the shape {value.shape}, not windows x {len(BANDS)} bands x "
                             f"{n_channels} channels")
        if not np.isfinite(value).all():
            raise ValueError(f"{kind}_{clip} holds values that are not finite")
    return named


def features_beside_ours(root: Path, signals: Mapping[str, Path], sfreq: float,
                         ch_names: Sequence[str]) -> tuple[list[str], list[tuple[str, Flaw]]]:
    """Supplied features of all people of a SEED-VII folder beside the kit's own.

    Parameters
    ----------
    root : Path
        Folder that may hold ``EEG_features``.
    signals : mapping of str to Path
        Subject to the file of its clips, microvolts.
    sfreq : float
        Rate of the signals in Hz.
    ch_names : sequence of str
        Their channels.

    Returns
    -------
    well : list of str
        Correlations by band, the formula, and what has to be known of the features.
    flaws : list of (str, Flaw)
        File and what does not fit. A run does not use these files, so all of them only warn.
    """
    folder = root / "EEG_features"
    if not folder.is_dir():
        return [], []
    own, supplied, found = {}, {}, []
    for subject, path in signals.items():
        name = f"EEG_features/{subject}.mat"
        try:
            supplied[subject] = {kind: _read(folder / f"{subject}.mat", kind, len(ch_names)) for kind in KINDS}
            own[subject] = own_entropy(_some_clips(path, sfreq), sfreq)
        except Exception as error:  # of the file of features, or of that of the signal
            found.append((name, _flaw(one_line(error), "copy the file again")))
    fits: dict[str, list[FeatureFit]] = {kind: [] for kind in KINDS}
    for subject, kinds in supplied.items():
        if subject not in own:
            continue
        of_subject = {}
        for kind in KINDS:
            values = kinds[kind]
            if kind == "psd":
                values = {clip: np.log(np.maximum(power, 1e-30)) for clip, power in values.items()}
            if (fit := compare_features(values, own[subject])) is not None:
                of_subject[kind] = fit
        faults = [*_counts(kinds, own[subject]), *_faults(of_subject, kinds, own, subject, ch_names)]
        if not of_subject and not faults:
            fact = f"no clip has more than {LEAST_WINDOWS} windows of {FEATURE_S:g} s, so nothing was compared"
            faults = [_flaw(fact, "compare the features with the kit's yourself, or do not use them")]
        found += [(f"EEG_features/{subject}.mat", flaw) for flaw in faults]
        if not faults:
            for kind, fit in of_subject.items():
                fits[kind].append(fit)
    return _sentences(fits), found


def _flaw(fact: str, remedy: str) -> Flaw:
    return Flaw("warn", "supplied features", fact, remedy)


def _some_clips(path: Path, sfreq: float) -> dict[int, np.ndarray]:
    """Clips of a file, as many as are compared, spread over all of them."""
    lengths = {int(key): shape[1] for key, shape, _ in whosmat(path) if is_number(key) and len(shape) == 2}
    chosen, n = [], 0
    for clip in sorted(lengths, key=lambda one: (one * 7) % 20):
        if n >= MOST_WINDOWS:
            break
        chosen.append(clip)
        n += int(lengths[clip] / (FEATURE_S * sfreq))
    stored = loadmat(path, variable_names=[str(clip) for clip in chosen])
    return {clip: np.asarray(stored[str(clip)], dtype=np.float32) for clip in sorted(chosen)}


def _counts(kinds: Mapping[str, Clips], own: Clips) -> list[Flaw]:
    """Clips whose number of windows is not that of their signal."""
    wrong = {clip: (len(kinds["de"][clip]), len(y)) for clip, y in own.items()
             if clip in kinds["de"] and len(kinds["de"][clip]) != len(y)}
    if not wrong:
        return []
    clip, (n, m) = next(iter(wrong.items()))
    return [_flaw(f"{len(wrong)} of {len(own)} clips have another number of windows than their signal: clip {clip} has "
                  f"{n}, its signal {m} of {FEATURE_S:g} s", "match windows by their time, from the beginning")]


def _faults(fits: Mapping[str, FeatureFit], kinds: Mapping[str, Clips], own: Mapping[str, Clips], subject: str,
            ch_names: Sequence[str]) -> list[Flaw]:
    """What does not fit in the file of one person."""
    fit = fits.get("de")
    if fit is None:
        return []
    if fit.fit < FITS:
        others = {other: one.fit for other, clips in own.items()
                  if other != subject and (one := compare_features(kinds["de"], clips)) is not None}
        best = max(others, key=lambda other: others[other], default="")
        whose = f"they fit the signal of subject {best} (r = {others[best]:.2f})" if others and others[
            best] >= FITS else "and no other subject's either"
        return [_flaw(f"the features do not fit the signal of subject {subject} (r = {fit.fit:.2f}); {whose}",
                      "copy the right file, and do not use this one")]
    found = []
    if fit.lag:
        late, sign = ("late", "-") if fit.lag > 0 else ("early", "+")
        found.append(_flaw(f"the features are {abs(fit.lag)} window {late}: window n fits the signal of window n "
                           f"{sign} {abs(fit.lag)}", "shift the labels with them, or compute features yourself"))
    if fit.bands != tuple(range(len(fit.bands))):
        names = list(BANDS)
        found.append(_flaw(f"the order of bands is {', '.join(names[band] for band in fit.bands)}",
                           f"put them into the order {', '.join(names)}"))
    if moved := [i for i, channel in enumerate(fit.channels) if channel != i]:
        said = ", ".join(f"{ch_names[i]} holds {ch_names[fit.channels[i]]}" for i in moved[:4])
        found.append(_flaw(f"{len(moved)} of {len(fit.channels)} channels are in another order ({said})",
                           "sort them as Channel Order.xlsx"))
    if fit.roughness < SMOOTH:
        found.append(_flaw(f"de changes from window to window only {fit.roughness:.0%} as much as the signal does: it "
                           "is smoothed over time, as de_LDS is", "take features that are not smoothed if the model is "
                           "to be causal"))
    return found


def _sentences(fits: Mapping[str, Sequence[FeatureFit]]) -> list[str]:
    lines = []
    for kind, ones in fits.items():
        if not ones:
            continue
        r = np.median([fit.correlation for fit in ones], axis=0)
        factor = float(np.median([fit.factor for fit in ones]))
        said = ", ".join(f"{band} {value:.2f}" for band, value in zip(BANDS, r, strict=True))
        form = "" if kind == "psd" else f"; it is {factor:.2f} times the kit's entropy: {formula_of(factor)}"
        lines.append(f"EEG_features, {kind} beside the kit's entropy, {len(ones)} people: r = {said}{form}")
    if fits["de_LDS"]:
        lines.append("EEG_features, de_LDS is smoothed over the windows of a clip, later ones too: it is not causal, "
                     "and windows of one clip are not independent")
    return lines
