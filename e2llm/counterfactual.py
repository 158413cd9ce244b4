"""Does an explanation follow the signal? One band of one region is made louder or softer; the claim about it should change, the others stay.

Whether a stated claim is true (:mod:`e2llm.faithfulness`) is a correlation: a text may be right because windows of one label look alike. Here
the signal itself is changed, and nothing but the change can move the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch

from .calibration import Baseline
from .effects import BANDS
from .features import EvidenceNames, evidence, level, measure
from .grammar import Parsed
from .metrics import Score, accuracy
from .montage import REGIONS, region_indices
from .segments import CITED, SALIENT, salient_claims

if TYPE_CHECKING:
    from .encoder import EEGPT
    from .stages import Corpus

TARGET_Z = 5.0  # where an edited feature is put: about 9 dB away, a change that nobody would overlook
HALF_STEP_HZ = 0.25  # of the spectra of e2llm.features, whose values at every 0.5 Hz gather what lies this far to either side


def scaled(signal_uv: np.ndarray, ch_names: Sequence[str], sfreq: float, band: str, region: str, db: float) -> np.ndarray:
    """A signal with the power of one band changed in all channels of one region; other bands and channels stay.

    The Fourier coefficients of the band are multiplied, all alike, so waveform and phases inside the band stay too. The edges are sharp: then
    the edit is undone by its inverse, what is outside the band keeps its coefficients, and the whole band has the gain; ramps would
    give it to part of the band only, or to the neighbours. They lie a quarter Hz below the edges in :data:`e2llm.effects.BANDS`,
    where the bins of :func:`e2llm.features.band_power` end that are counted to a band. Those spectra leak: in noise whose power falls
    with the second or third power of frequency, with an alpha peak, -10 dB measure as -7.5 (delta), -8.3 (theta) and -9.4 to -9.8 dB, and
    a neighbour gains less than 0.6 dB from a band raised by 6 dB, mostly less than 0.2.

    Parameters
    ----------
    signal_uv : ndarray, shape (..., n_channels, n_samples)
        Microvolts; a copy is changed. After the edit the channels no longer add up to zero, as an average reference left them.
    ch_names, sfreq
        Names of the channels, sampling rate in Hz.
    band, region : str
        Of :data:`e2llm.effects.BANDS` and :data:`e2llm.montage.REGIONS`.
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
    baseline = Baseline.fit(values, corpus.whose, corpus.split)
    if corpus.z.shape != values.shape or not np.allclose(baseline.z(values, corpus.whose), corpus.z, atol=1e-3, equal_nan=True):
        raise ValueError("The corpus' z-scores are not those of its windows under its split: open the corpus anew with e2llm.stages.open_corpus.")
    return baseline


def edited(corpus: Corpus, edits: Sequence[Edit]) -> np.ndarray:
    """Signals of the edited windows in microvolts, shape (n_edits, n_channels, n_samples); ask in parts if memory is short."""
    windows = corpus.windows
    return np.stack([scaled(windows.data[edit.row], windows.ch_names, windows.sfreq, edit.band, edit.region, edit.db) for edit in _some(edits)])


@torch.no_grad()
def edited_tokens(encoder: EEGPT, corpus: Corpus, edits: Sequence[Edit], chunk: int = 64) -> np.ndarray:
    """Encoder tokens of edited windows, shape (n, 16, eeg_width)."""
    encoder.eval()
    parts = [edits[start : start + chunk] for start in range(0, len(edits), chunk)]
    found = [encoder(corpus.equalise(edited(corpus, part), corpus.whose[[edit.row for edit in part]])) for part in parts]
    return torch.cat(found).flatten(2).numpy()


def edited_evidence(corpus: Corpus, edits: Sequence[Edit], chunk: int = 128) -> np.ndarray:
    """Evidence measured in the edited signals, z-scores against the person's own baseline, shape (n_edits, n_evidence).

    Everything is measured anew, not computed from the edit: scaling frontal alpha may move the asymmetry, scaling any band the
    slope of the spectrum and the artefact level. ``chunk`` edits are in memory at a time.
    """
    windows, baseline, parts = corpus.windows, own_baseline(corpus), []
    for i in range(0, len(_some(edits)), chunk):
        some = edits[i : i + chunk]
        values, _ = evidence(*measure(edited(corpus, some), windows.sfreq, windows.ch_names), windows.ch_names)
        parts.append(baseline.z(values, corpus.whose[[edit.row for edit in some]]))
    return np.concatenate(parts)


def _some(edits: Sequence[Edit]) -> Sequence[Edit]:
    if not len(edits):
        raise ValueError("There are no edits: draw some with clear_edits.")
    return edits


def clear_edits(corpus: Corpus, rows: Sequence[int], rng: np.random.Generator, target: float = TARGET_Z) -> DrawnEdits:
    """One random edit for each of the rows (a row may be given more than once), each measured anew; only clear ones are for use.

    A feature is drawn from all pairs of region and band, and sent to the other side of the person's own level: high becomes low, low
    high, typical either at random. The person's mean m and spread s of that column (differential entropy, nats) give the change:
    from entropy h to m ± target * s, where x dB of power are x ln(10) / 20 nats.

    Parameters
    ----------
    corpus, rows, rng
        Windows with their evidence, row numbers in them, and what draws features and directions.
    target : float
        ``|z|`` that is aimed at, at least :data:`e2llm.segments.CITED`. A text has room for few claims, and a window may have more features
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
    z_before, z_after = corpus.z[rows], edited_evidence(corpus, drawn)
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
    nats = (sign * target - corpus.z[row, i]) * baseline.sd[baseline.subjects.index(corpus.whose[row]), i]
    return Edit(row, str(corpus.owners[row]), f"{region} {band}", band, region, float(nats * 20.0 / np.log(10.0)), before,
                "high" if sign > 0 else "low")


def control_edits(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The same edits with 0 dB: they change no value, so whatever text or answer changes with them is the speaker's own unrest."""
    return tuple(replace(edit, db=0.0, reached=float("nan")) for edit in _some(edits))


def moved_features(z_before: np.ndarray, z_after: np.ndarray, names: EvidenceNames) -> list[tuple[str, ...]]:
    """Features whose measured level differs after each edit, the edited one among them; z-scores have shape (n_edits, n_evidence)."""
    for z in (z_before, z_after):
        if z.ndim != 2 or z.shape != (len(z_after), len(names.columns)) or not np.isfinite(z).all():
            raise ValueError(f"z has shape {z.shape}, expected ({len(z_after)} edits, {len(names.columns)} features), all finite: pass z_before and "
                             "z_after of clear_edits.")
    return [tuple(name for name, one, other in zip(names.columns, first, second, strict=True) if level(one) != level(other))
            for first, second in zip(z_before, z_after, strict=True)]


def truthful(z: np.ndarray, names: EvidenceNames) -> list[Parsed]:
    """What a speaker would say who is always right and has room for as many claims as others: the ceiling of :func:`responses`."""
    return [Parsed(salient_claims(row, names), ()) for row in z]


_OUTCOMES = ("followed", "flipped", "kept", "kept_salient", "not_contradicted", "answer_changed")
_OF_CLAIMS = {"kept": "n_untouched", "kept_salient": "n_salient", "not_contradicted": "n_untouched"}  # counts of claims, and of how many
_Said = dict[str, set[str]]  # levels that a text gives each feature


def _said(parsed: Parsed) -> _Said:
    levels: _Said = {}
    for claim in parsed.claims:
        levels.setdefault(claim.feature, set()).add(claim.level)
    return levels


def _outcome(edit: Edit, before: _Said, after: _Said, untouched: Sequence[str], salient: Sequence[str]) -> dict[str, float]:
    """Outcome of one text after an edit: whether it follows, and of how many untouched features it says the same, or nothing else."""
    followed = after.get(edit.feature) == {edit.wanted}
    return {"followed": followed, "flipped": followed and before.get(edit.feature) != {edit.wanted},
            "kept": sum(after.get(name) == before[name] for name in untouched),
            "kept_salient": sum(after.get(name) == before[name] for name in salient),
            "not_contradicted": sum(after.get(name, set()) <= before[name] for name in untouched)}


def responses(before: Sequence[Parsed], after: Sequence[Parsed], edits: Sequence[Edit], z_before: np.ndarray, z_after: np.ndarray,
              names: EvidenceNames, answers: tuple[Sequence, Sequence] | None = None) -> pd.DataFrame:
    """What happened to the claims of each text when the signal was edited, a row for each edit.

    "followed": the text after says of the edited feature the wanted level and no other. "flipped": it does, and the one before did not
    ("said_before"). Untouched claims are those of the text before, at one level, about a measured feature whose measured level
    the edit did not change ("moved" lists the others). How many of them stay is counted three times. "n_kept" is strict: still said with
    the same level. "n_kept_salient" is the same among the "n_salient" of them whose evidence should not be missing, before and after
    (:data:`e2llm.segments.SALIENT`): what is only just worth a word may be said or not. "n_not_contradicted" is lenient: not said at another
    level. A text has room for a few claims only (:data:`e2llm.segments.MAX_CLAIMS`), so a feature made loud may push another claim
    out without denying it: a truthful speaker loses on the strict counts, a silent one wins on the lenient.

    Parameters
    ----------
    before, after : sequence of Parsed, length n_edits
        Thoughts about each edit's window as it was, and as edited.
    edits, z_before, z_after
        From :func:`clear_edits`, or controls with :func:`edited_evidence` of them; shapes (n_edits, n_evidence).
    names : EvidenceNames
        What the columns of the z-scores are.
    answers : tuple of two sequences, optional
        Answers before and after; None for one that could not be read, which differs from every answer that was.

    Returns
    -------
    DataFrame
        For every outcome also "chance": the same outcome had the edit been met with the text (and answer) about another edited window
        of the same person, mean over all of those; NaN where the person has no other edited window.
    """
    lengths = {"before": len(before), "after": len(after), "edits": len(_some(edits)), "z_before": len(z_before), "z_after": len(z_after)}
    lengths |= {"answers before": len(answers[0]), "answers after": len(answers[1])} if answers else {}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Expected one entry for each edit, got {lengths}.")
    first, second, measured = [_said(text) for text in before], [_said(text) for text in after], set(names.columns)
    moved, table = moved_features(np.asarray(z_before), np.asarray(z_after), names), []
    loud = np.minimum(np.abs(z_before), np.abs(z_after)) >= SALIENT
    for i, edit in enumerate(edits):
        untouched = [name for name, levels in first[i].items() if len(levels) == 1 and name in measured - set(moved[i])]
        salient = [name for name in untouched if loud[i, names.columns.index(name)]]
        pairs = [i, *(j for j, other in enumerate(edits) if other.subject == edit.subject and other.row != edit.row)]
        found = pd.DataFrame([_outcome(edit, first[i], second[j], untouched, salient) for j in pairs])
        if answers:
            found["answer_changed"] = [answers[1][j] != answers[0][i] for j in pairs]
        own, chance = found.iloc[0], found.iloc[1:].astype(float).mean()
        table.append({"subject": edit.subject, "row": edit.row, "feature": edit.feature, "db": edit.db, "before": edit.before,
                      "wanted": edit.wanted, "said_before": first[i].get(edit.feature) == {edit.wanted}, "moved": ", ".join(moved[i]),
                      "n_untouched": len(untouched), "n_salient": len(salient), **{_column(name): own[name] for name in found},
                      **{f"chance {_column(name)}": chance[name] for name in found}})
    return pd.DataFrame(table)


def _column(outcome: str) -> str:
    return f"n_{outcome}" if outcome in _OF_CLAIMS else outcome


def _rate(table: pd.DataFrame, outcome: str, seed: int) -> Score:
    """Share of edits, or of untouched claims, with an outcome."""
    column = _column(outcome)
    sizes = table[_OF_CLAIMS[outcome]].to_numpy() if column != outcome else np.ones(len(table), dtype=int)
    if not sizes.sum():
        return Score(*[float("nan")] * 4, 0)
    hits, chance = table[column].to_numpy(dtype=int), table[f"chance {column}"].to_numpy(dtype=float)
    correct = np.repeat(np.tile([True, False], len(table)), np.column_stack([hits, sizes - hits]).ravel())
    score = accuracy(correct, np.zeros(len(correct)), np.repeat(table["subject"].to_numpy(), sizes), seed)
    known = np.isfinite(chance) & (sizes > 0)
    return replace(score, chance=float(chance[known].sum() / sizes[known].sum()) if known.any() else float("nan"))


def summary(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Rates over all edits of :func:`responses` with 95 % intervals over people, drawn whole, and their chance; a row an outcome.

    Every edit counts alike in "followed", "flipped" and "answer changed", every claim in the rates of untouched claims; an edit whose wanted
    level was said before already has not flipped. Chance is what the person's texts about other edited windows would score, so a
    speaker who says the same of every window, or anything at random, is at chance; for "untouched claims not contradicted" it is high,
    as most texts are silent about most features. People with one edited window count in the rate and not in its chance, which is NaN if
    all are such.

    Parameters
    ----------
    table : DataFrame
        From :func:`responses`; parts of it may be joined or chosen. ValueError if it is empty.
    seed : int
        Of the interval.
    """
    if not len(table):
        raise ValueError("There are no edits to sum up: give a table of responses with one or more rows.")
    names = {"kept": "untouched claims kept", "kept_salient": "untouched salient claims kept",
             "not_contradicted": "untouched claims not contradicted", "answer_changed": "answer changed"}
    return pd.DataFrame([_rate(table, outcome, seed).row(names.get(outcome, outcome)) for outcome in _OUTCOMES if _column(outcome) in table])
