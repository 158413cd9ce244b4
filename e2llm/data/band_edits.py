"""Band edits: the power of one band in one region of a window changed, and its evidence measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.bands import BANDS
from ..core.claims import CITED, EvidenceNames, level
from ..core.montage import REGIONS, region_indices
from .features import evidence, measure

if TYPE_CHECKING:
    from .dataset import Corpus

TARGET_Z = 5.0  # z-score that an edit aims at: about 9 dB away, a clear change
HALF_STEP_HZ = 0.25  # half the width of a bin of the spectra in e2llm.data.features


def scale_band(signal_uv: np.ndarray, ch_names: Sequence[str], sfreq: float, band: str, region: str,
               db: float) -> np.ndarray:
    """Change the power of one band in all channels of one region; other bands and channels stay.

    All Fourier coefficients of the band are multiplied by one factor, so waveform and phases inside the band stay too.
    The edges are sharp. So the inverse edit undoes the edit, coefficients outside the band stay, and the whole band has
    the same gain. The edges lie a quarter Hz below those in :data:`e2llm.core.bands.BANDS`, where the bins end that
    :func:`e2llm.data.features.band_power` counts to a band. Welch's spectra leak: in noise whose power falls with the
    second or third power of frequency, with an alpha peak, -10 dB measure as -7.5 (delta), -8.3 (theta) and -9.4 to
    -9.8 dB, and a neighbor gains less than 0.6 dB from a band raised by 6 dB, mostly less than 0.2.

    Parameters
    ----------
    signal_uv : ndarray, shape (..., n_channels, n_samples)
        Microvolts; not changed in place. After the edit the channels no longer add up to zero, as an average reference
        left them.
    ch_names : sequence of str
        Channel names.
    sfreq : float
        Sampling rate in Hz.
    band, region : str
        Of :data:`e2llm.core.bands.BANDS` and :data:`e2llm.core.montage.REGIONS`.
    db : float
        Change of the power in decibels; 0 returns the very same values.

    Returns
    -------
    ndarray
        Shape of ``signal_uv``, and its type if that is a floating one.

    Raises
    ------
    ValueError
        For an unknown band or region, one that these channels or this sampling rate do not have, and values that are
        not finite.
    """
    signal = np.array(signal_uv)
    signal = signal if np.issubdtype(signal.dtype, np.floating) else signal.astype(float)
    rows, (low, high) = _region_rows(ch_names, region), _band_edges(band)
    if signal.ndim < 2 or signal.shape[-2] != len(ch_names):
        raise ValueError(f"The signal has shape {signal.shape}, expected (..., {len(ch_names)} channels, samples): "
                         "give one row a channel name.")
    if not np.isfinite(db) or not np.isfinite(signal).all():
        raise ValueError(f"Signal and change must be finite, the change is {db} dB: leave broken windows out.")
    frequencies = np.fft.rfftfreq(signal.shape[-1], 1.0 / sfreq)
    inside = (frequencies >= low - HALF_STEP_HZ) & (frequencies < high - HALF_STEP_HZ)
    if not inside.any():
        raise ValueError(f"{signal.shape[-1]} samples at {sfreq:g} Hz hold no {band} ({low:g} to {high:g} Hz): sample "
                         "faster or give longer windows.")
    part = np.fft.irfft(np.fft.rfft(signal[..., rows, :].astype(float)) * inside, n=signal.shape[-1])
    # The band's part is added, not the signal rebuilt, so that 0 dB leaves every value as it was.
    signal[..., rows, :] += (10.0 ** (db / 20.0) - 1.0) * part
    return signal


def _region_rows(ch_names: Sequence[str], region: str) -> list[int]:
    if region not in REGIONS:
        raise ValueError(f"Unknown region '{region}' (known: {', '.join(REGIONS)}).")
    present = region_indices(list(ch_names))
    if region not in present:
        raise ValueError(f"No channel lies in the {region} region; these channels cover "
                         f"{', '.join(present) or 'no region'}: edit one of those.")
    return present[region]


def _band_edges(band: str) -> tuple[float, float]:
    if band not in BANDS:
        raise ValueError(f"Unknown band '{band}' (known: {', '.join(BANDS)}).")
    return BANDS[band]


@dataclass(frozen=True)
class Edit:
    """A change of one feature of one window."""

    row: int  # of the window
    subject: str
    feature: str  # "occipital alpha"
    band: str
    region: str
    db: float  # change of the power
    before: str  # level measured before: "low", "typical", "high"
    wanted: str  # level that the edit is to bring about: "low" or "high"
    reached: float = float("nan")  # z-score of the feature, measured in the edited signal


class DrawnEdits(NamedTuple):
    """Edits whose feature reached the wanted level, evidence of their windows before and after, and the other edits."""

    clear: tuple[Edit, ...]
    z_before: np.ndarray  # (n_clear, n_evidence)
    z_after: np.ndarray  # (n_clear, n_evidence)
    unclear: tuple[Edit, ...]


def band_edited(corpus: Corpus, edits: Sequence[Edit]) -> np.ndarray:
    """Signals of the edited windows, all in memory at once.

    Parameters
    ----------
    corpus : Corpus
        The windows.
    edits : sequence of Edit
        One or more edits of them.

    Returns
    -------
    ndarray, shape (n_edits, n_channels, n_samples)
        Microvolts.
    """
    windows = corpus.windows
    return np.stack([scale_band(windows.data[edit.row], windows.ch_names, windows.sfreq, edit.band, edit.region,
                                edit.db)
                     for edit in nonempty(edits)])


def measure_edited(corpus: Corpus, edits: Sequence[Edit], chunk: int = 8,
                   on_step: Callable[[int], None] | None = None) -> np.ndarray:
    """Evidence measured in the edited signals.

    Everything is measured anew, not computed from the edit: scaling frontal alpha may move the asymmetry, scaling any
    band the slope of the spectrum and the artefact level.

    Parameters
    ----------
    corpus : Corpus
        Windows and the baseline of their evidence.
    edits : sequence of Edit
        One or more edits of them.
    chunk : int
        Edits that are in memory at a time; few, so that their spectra stay in the processor's cache.
    on_step : callable, optional
        ``on_step(n)`` after each chunk, with the number of edits that are measured.

    Returns
    -------
    ndarray, shape (n_edits, n_evidence)
        Z-scores relative to ``corpus.baseline``.
    """
    windows, parts = corpus.windows, []
    for i in range(0, len(nonempty(edits)), chunk):
        some = edits[i : i + chunk]
        values, _ = evidence(*measure(band_edited(corpus, some), windows.sfreq, windows.ch_names), windows.ch_names)
        parts.append(corpus.baseline.z(values, corpus.norm_groups[[edit.row for edit in some]]))
        if on_step is not None:
            on_step(i + len(some))
    return np.concatenate(parts)


def nonempty(edits: Sequence[Edit]) -> Sequence[Edit]:
    """Return the edits; ValueError without any."""
    if not len(edits):
        raise ValueError("There are no edits: draw some with draw_clear_edits.")
    return edits


def draw_clear_edits(corpus: Corpus, rows: Sequence[int], rng: np.random.Generator,
                     target: float = TARGET_Z, on_step: Callable[[int], None] | None = None) -> DrawnEdits:
    """One random edit for each of the rows (a row may be given more than once), each measured anew.

    A feature is drawn from all pairs of region and band, and moved to the other side of the baseline: high becomes low,
    low becomes high, typical either at random. The baseline's mean m and standard deviation s of that column
    (differential entropy, nats) give the change: from entropy h to m ± target * s, where x dB of power are
    x ln(10) / 20 nats.

    Parameters
    ----------
    corpus : Corpus
        Windows with their evidence and its baseline.
    rows : sequence of int
        Row numbers of windows.
    rng : Generator
        Draws features and directions.
    target : float
        ``|z|`` that is aimed at, at least :data:`e2llm.core.claims.CITED`. A text holds few claims, and a window may
        have more features that are as far out: on a small twin with six claims a text, texts that are always true name
        0.91 of clear edits at 2.5, 0.97 at 3.0, 1.00 at 3.5, so compare a model with that ceiling.
    on_step : callable, optional
        As for :func:`measure_edited`.

    Returns
    -------
    DrawnEdits
        An edit is clear if the z-score measured in the edited signal is beyond ``CITED`` on the wanted side, so that it
        is worth citing.

    Raises
    ------
    ValueError
        Without rows, for rows that are not there or hold values that are not finite, for too small a target, and if no
        edit is clear.
    """
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or not len(chosen) or not np.issubdtype(chosen.dtype, np.integer) or chosen.min() < 0 \
            or chosen.max() >= len(corpus.z):
        raise ValueError(f"'rows' must be a list of row numbers from 0 to {len(corpus.z) - 1}, one or more, got "
                         f"{chosen}: pass rows of corpus.split.")
    if not (np.isfinite(target) and target >= CITED):
        raise ValueError(f"The target is |z| = {target}, but evidence is worth citing from {CITED}: aim beyond that.")
    if not (finite := np.isfinite(corpus.z[chosen]).all(axis=1)).all():
        raise ValueError(f"Evidence of window {chosen[~finite][0]} is not finite: leave the window out.")
    column = {name: i for i, name in enumerate(corpus.evidence_names.columns)}
    drawn = [_draw(corpus, int(row), rng, target) for row in chosen]
    z_before, z_after = corpus.z[chosen], measure_edited(corpus, drawn, on_step=on_step)
    drawn = [replace(edit, reached=float(z[column[edit.feature]])) for edit, z in zip(drawn, z_after, strict=True)]
    clear = np.array([(edit.reached if edit.wanted == "high" else -edit.reached) >= CITED for edit in drawn])
    if not clear.any():
        raise ValueError(f"None of {len(drawn)} edits is clear; {drawn[0].feature} of window {drawn[0].row} was to be "
                         f"{drawn[0].wanted} and reached z = {drawn[0].reached:.2f}: raise the target, or leave flat "
                         "windows out.")
    good, poor = (tuple(edit for edit, is_clear in zip(drawn, clear, strict=True) if is_clear == wanted)
                  for wanted in (True, False))
    return DrawnEdits(good, z_before[clear], z_after[clear], poor)


def _draw(corpus: Corpus, row: int, rng: np.random.Generator, target: float) -> Edit:
    i = int(rng.integers(len(corpus.evidence_names.pairs)))
    (band, region), before = corpus.evidence_names.pairs[i], level(corpus.z[row, i])
    sign = {"low": 1, "high": -1, "typical": int(rng.choice([-1, 1]))}[before]
    sd = corpus.baseline.sd[corpus.baseline.subjects.index(corpus.norm_groups[row]), i]
    db = float((sign * target - corpus.z[row, i]) * sd * 20.0 / np.log(10.0))
    return Edit(row, str(corpus.subjects[row]), f"{region} {band}", band, region, db, before,
                "high" if sign > 0 else "low")


def moved_features(z_before: np.ndarray, z_after: np.ndarray, names: EvidenceNames) -> list[tuple[str, ...]]:
    """Features whose measured level differs after each edit, the edited one among them.

    Parameters
    ----------
    z_before, z_after : ndarray, shape (n_edits, n_evidence)
        Of :class:`DrawnEdits`.
    names : EvidenceNames
        Their columns.

    Raises
    ------
    ValueError
        If the shapes differ or a value is not finite.
    """
    for z in (z_before, z_after):
        if z.ndim != 2 or z.shape != (len(z_after), len(names.columns)) or not np.isfinite(z).all():
            raise ValueError(f"z has shape {z.shape}, expected ({len(z_after)} edits, {len(names.columns)} features), "
                             "all finite: pass z_before and z_after of draw_clear_edits.")
    return [tuple(name for name, one, other in zip(names.columns, first, second, strict=True)
                  if level(one) != level(other))
            for first, second in zip(z_before, z_after, strict=True)]
