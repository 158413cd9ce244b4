"""TODO purpose of data.band_edits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.bands import BANDS
from ..core.claims import CITED, EvidenceNames, level
from ..core.montage import REGIONS, region_indices
from .features import evidence, measure
from .normalization import Baseline

if TYPE_CHECKING:
    from .dataset import Corpus



TARGET_Z = 5.0  # where an edited feature is put: about 9 dB away, a change that nobody would overlook
HALF_STEP_HZ = 0.25  # of the spectra of e2llm.features, whose values at every 0.5 Hz gather what lies this far to either side


def scaled(signal_uv: np.ndarray, ch_names: Sequence[str], sfreq: float, band: str, region: str, db: float) -> np.ndarray:
    """A signal with the power of one band changed in all channels of one region; other bands and channels stay.

    The Fourier coefficients of the band are multiplied, all alike, so waveform and phases inside the band stay too. The edges are sharp: then
    the edit is undone by its inverse, what is outside the band keeps its coefficients, and the whole band has the gain; ramps would
    give it to part of the band only, or to the neighbours. They lie a quarter Hz below the edges in :data:`e2llm.core.bands.BANDS`,
    where the bins of :func:`e2llm.data.features.band_power` end that are counted to a band. Those spectra leak: in noise whose power falls
    with the second or third power of frequency, with an alpha peak, -10 dB measure as -7.5 (delta), -8.3 (theta) and -9.4 to -9.8 dB, and
    a neighbour gains less than 0.6 dB from a band raised by 6 dB, mostly less than 0.2.

    Parameters
    ----------
    signal_uv : ndarray, shape (..., n_channels, n_samples)
        Microvolts; a copy is changed. After the edit the channels no longer add up to zero, as an average reference left them.
    ch_names, sfreq
        Names of the channels, sampling rate in Hz.
    band, region : str
        Of :data:`e2llm.core.bands.BANDS` and :data:`e2llm.core.montage.REGIONS`.
    db : float
        Change of the power in decibels; 0 returns the very same values.

    Returns
    -------
    ndarray
        Shape and, if it is a floating one, type of ``signal_uv``.

    Raises
    ------
    ValueError
        For an unknown band or region, one that these channels or this sampling rate do not have, and values that are not finite.
    """
    signal = np.array(signal_uv)
    signal = signal if np.issubdtype(signal.dtype, np.floating) else signal.astype(float)
    rows, (low, high) = _region_rows(ch_names, region), _band_edges(band)
    if signal.ndim < 2 or signal.shape[-2] != len(ch_names):
        raise ValueError(f"The signal has shape {signal.shape}, expected (..., {len(ch_names)} channels, samples): give one row a channel name.")
    if not np.isfinite(db) or not np.isfinite(signal).all():
        raise ValueError(f"Signal and change must be finite, the change is {db} dB: leave broken windows out.")
    frequencies = np.fft.rfftfreq(signal.shape[-1], 1.0 / sfreq)
    inside = (frequencies >= low - HALF_STEP_HZ) & (frequencies < high - HALF_STEP_HZ)
    if not inside.any():
        raise ValueError(f"{signal.shape[-1]} samples at {sfreq:g} Hz hold no {band} ({low:g} to {high:g} Hz): sample faster or give longer windows.")
    part = np.fft.irfft(np.fft.rfft(signal[..., rows, :].astype(float)) * inside, n=signal.shape[-1])
    # The band's part is added, not the signal rebuilt, so that 0 dB leaves every value as it was.
    signal[..., rows, :] += (10.0 ** (db / 20.0) - 1.0) * part
    return signal


def _region_rows(ch_names: Sequence[str], region: str) -> list[int]:
    if region not in REGIONS:
        raise ValueError(f"Unknown region '{region}' (known: {', '.join(REGIONS)}).")
    present = region_indices(list(ch_names))
    if region not in present:
        raise ValueError(f"No channel lies in the {region} region; these channels cover {', '.join(present) or 'no region'}: edit one of those.")
    return present[region]


def _band_edges(band: str) -> tuple[float, float]:
    if band not in BANDS:
        raise ValueError(f"Unknown band '{band}' (known: {', '.join(BANDS)}).")
    return BANDS[band]


@dataclass(frozen=True)
class Edit:
    """A change of one feature of one window."""

    row: int
    subject: str
    feature: str  # "occipital alpha"
    band: str
    region: str
    db: float  # change of the power
    before: str  # level measured before: "low", "typical", "high"
    wanted: str  # level that the edit is to bring about: "low" or "high"
    reached: float = float("nan")  # z-score of the feature, measured in the edited signal


class DrawnEdits(NamedTuple):
    """Edits whose feature measurably has the wanted level, evidence of their windows before and after, and the edits that fell short."""

    clear: tuple[Edit, ...]
    z_before: np.ndarray  # (n_clear, n_evidence)
    z_after: np.ndarray
    unclear: tuple[Edit, ...]


def own_baseline(corpus: Corpus) -> Baseline:
    """The baseline behind ``corpus.z``, fitted again from the corpus' windows and split.

    ValueError if it does not give ``corpus.z``: claims and edits would then be measured against different levels.
    """
    windows = corpus.windows
    values, _ = evidence(np.asarray(windows.power), np.asarray(windows.shape), windows.ch_names)
    baseline = Baseline.fit(values, corpus.norm_groups, corpus.split)
    if corpus.z.shape != values.shape or not np.allclose(baseline.z(values, corpus.norm_groups), corpus.z, atol=1e-3, equal_nan=True):
        raise ValueError("The corpus' z-scores are not those of its windows under its split: open the corpus anew with e2llm.app.stages.open_dataset.")
    return baseline


def edited(corpus: Corpus, edits: Sequence[Edit]) -> np.ndarray:
    """Signals of the edited windows in microvolts, shape (n_edits, n_channels, n_samples); ask in parts if memory is short."""
    windows = corpus.windows
    return np.stack([scaled(windows.data[edit.row], windows.ch_names, windows.sfreq, edit.band, edit.region, edit.db) for edit in some_rows(edits)])


def measure_edited(corpus: Corpus, edits: Sequence[Edit], chunk: int = 128) -> np.ndarray:
    """Evidence measured in the edited signals, z-scores against the person's own baseline, shape (n_edits, n_evidence).

    Everything is measured anew, not computed from the edit: scaling frontal alpha may move the asymmetry, scaling any band the
    slope of the spectrum and the artefact level. ``chunk`` edits are in memory at a time.
    """
    windows, baseline, parts = corpus.windows, own_baseline(corpus), []
    for i in range(0, len(some_rows(edits)), chunk):
        some = edits[i : i + chunk]
        values, _ = evidence(*measure(edited(corpus, some), windows.sfreq, windows.ch_names), windows.ch_names)
        parts.append(baseline.z(values, corpus.norm_groups[[edit.row for edit in some]]))
    return np.concatenate(parts)


def some_rows(edits: Sequence[Edit]) -> Sequence[Edit]:
    if not len(edits):
        raise ValueError("There are no edits: draw some with clear_edits.")
    return edits


def draw_clear_edits(corpus: Corpus, rows: Sequence[int], rng: np.random.Generator, target: float = TARGET_Z) -> DrawnEdits:
    """One random edit for each of the rows (a row may be given more than once), each measured anew; only clear ones are for use.

    A feature is drawn from all pairs of region and band, and sent to the other side of the person's own level: high becomes low, low
    high, typical either at random. The person's mean m and spread s of that column (differential entropy, nats) give the change:
    from entropy h to m ± target * s, where x dB of power are x ln(10) / 20 nats.

    Parameters
    ----------
    corpus, rows, rng
        Windows with their evidence, row numbers in them, and what draws features and directions.
    target : float
        ``|z|`` that is aimed at, at least :data:`e2llm.core.claims.CITED`. A text has room for few claims, and a window may have more features
        that are as far out: on a small twin with six claims a text, :func:`truthful` follows 0.91 of clear edits at 2.5, 0.97 at 3.0,
        1.00 at 3.5, so hold a model against that ceiling.

    Returns
    -------
    DrawnEdits
        An edit is clear if the z-score measured in the edited signal is beyond ``CITED`` on the wanted side, so that it is worth a word.

    Raises
    ------
    ValueError
        Without rows, for rows that are not there or hold values that are not finite, for too small a target, and if no edit is clear.
    """
    rows = np.asarray(rows)
    if rows.ndim != 1 or not len(rows) or not np.issubdtype(rows.dtype, np.integer) or rows.min() < 0 or rows.max() >= len(corpus.z):
        raise ValueError(f"'rows' must be a list of row numbers from 0 to {len(corpus.z) - 1}, one or more, got {rows}: pass rows of corpus.split.")
    if not (np.isfinite(target) and target >= CITED):
        raise ValueError(f"The target is |z| = {target}, but evidence is worth a word from {CITED}: aim beyond that.")
    if not (finite := np.isfinite(corpus.z[rows]).all(axis=1)).all():
        raise ValueError(f"Evidence of window {rows[~finite][0]} is not finite: leave the window out.")
    baseline, column = own_baseline(corpus), {name: i for i, name in enumerate(corpus.evidence_names.columns)}
    drawn = [_draw(corpus, baseline, int(row), rng, target) for row in rows]
    z_before, z_after = corpus.z[rows], measure_edited(corpus, drawn)
    drawn = [replace(edit, reached=float(z[column[edit.feature]])) for edit, z in zip(drawn, z_after, strict=True)]
    clear = np.array([(edit.reached if edit.wanted == "high" else -edit.reached) >= CITED for edit in drawn])
    if not clear.any():
        raise ValueError(f"None of {len(drawn)} edits is clear; {drawn[0].feature} of window {drawn[0].row} was to be {drawn[0].wanted} and "
                         f"reached z = {drawn[0].reached:.2f}: raise the target, or leave flat windows out.")
    return DrawnEdits(tuple(edit for edit, good in zip(drawn, clear, strict=True) if good), z_before[clear], z_after[clear],
                      tuple(edit for edit, good in zip(drawn, clear, strict=True) if not good))


def _draw(corpus: Corpus, baseline: Baseline, row: int, rng: np.random.Generator, target: float) -> Edit:
    i = int(rng.integers(len(corpus.evidence_names.pairs)))
    (band, region), before = corpus.evidence_names.pairs[i], level(corpus.z[row, i])
    sign = {"low": 1, "high": -1, "typical": int(rng.choice([-1, 1]))}[before]
    nats = (sign * target - corpus.z[row, i]) * baseline.sd[baseline.subjects.index(corpus.norm_groups[row]), i]
    return Edit(row, str(corpus.subjects[row]), f"{region} {band}", band, region, float(nats * 20.0 / np.log(10.0)), before,
                "high" if sign > 0 else "low")


def moved_features(z_before: np.ndarray, z_after: np.ndarray, names: EvidenceNames) -> list[tuple[str, ...]]:
    """Features whose measured level differs after each edit, the edited one among them; z-scores have shape (n_edits, n_evidence)."""
    for z in (z_before, z_after):
        if z.ndim != 2 or z.shape != (len(z_after), len(names.columns)) or not np.isfinite(z).all():
            raise ValueError(f"z has shape {z.shape}, expected ({len(z_after)} edits, {len(names.columns)} features), all finite: pass z_before and "
                             "z_after of clear_edits.")
    return [tuple(name for name, one, other in zip(names.columns, first, second, strict=True) if level(one) != level(other))
            for first, second in zip(z_before, z_after, strict=True)]
