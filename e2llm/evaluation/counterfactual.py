"""Whether explanations follow the signal.

One band of one region is scaled; the claim about it should change, others stay.

Whether a stated claim is true (:mod:`e2llm.evaluation.faithfulness`) is a correlation: a text may be right because
windows of one label look alike. Here the signal itself is changed, and nothing but the change can change the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..core.claims import SALIENT, EvidenceNames, salient_claims, side
from ..data.band_edits import Edit, moved_features, nonempty
from ..tasks.thought_parser import Parsed
from .metrics import Score, accuracy


def truthful(z: np.ndarray, names: EvidenceNames) -> list[Parsed]:
    """Texts that are always right, with as many claims as a text may hold: the ceiling of :func:`responses`.

    Parameters
    ----------
    z : ndarray, shape (n_windows, n_evidence)
        Evidence.
    names : EvidenceNames
        Its columns.
    """
    return [Parsed(salient_claims(row, names), ()) for row in z]


_OUTCOMES = ("followed", "newly_stated", "kept", "kept_salient", "not_contradicted", "answer_changed")
# Counts of claims, and of how many
_OF_CLAIMS = {"kept": "n_untouched", "kept_salient": "n_salient", "not_contradicted": "n_untouched"}
_Levels = dict[str, set[str]]  # low, typical, high: that a text states of each feature


def _levels(parsed: Parsed) -> _Levels:
    levels: _Levels = {}
    for claim in parsed.claims:
        levels.setdefault(claim.feature, set()).add(side(claim.level))
    return levels


def _outcome(edit: Edit, before: _Levels, after: _Levels, untouched: Sequence[str],
             salient: Sequence[str]) -> dict[str, float]:
    """Outcome of one text after an edit: whether it follows, and how many claims about untouched features stay."""
    followed = after.get(edit.feature) == {edit.wanted}
    return {"followed": followed, "newly_stated": followed and before.get(edit.feature) != {edit.wanted},
            "kept": sum(after.get(name) == before[name] for name in untouched),
            "kept_salient": sum(after.get(name) == before[name] for name in salient),
            "not_contradicted": sum(after.get(name, set()) <= before[name] for name in untouched)}


def responses(before: Sequence[Parsed], after: Sequence[Parsed], edits: Sequence[Edit], z_before: np.ndarray,
              z_after: np.ndarray,
              names: EvidenceNames, answers: tuple[Sequence, Sequence] | None = None) -> pd.DataFrame:
    """What happened to the claims of each text when the signal was edited, a row for each edit.

    "followed": the text after states of the edited feature the wanted level and no other. "newly_stated": it does, and
    the one before did not ("said_before"). Untouched claims are those of the text before, at one level, about a
    measured feature whose measured level the edit did not change ("moved" lists the others). How many of them stay is
    counted three times. "n_kept" is strict: still stated with the same level. "n_kept_salient" is the same among the
    "n_salient" of them whose evidence should not be missing, before and after (:data:`e2llm.core.claims.SALIENT`): what
    is only just above the evidence threshold may be stated or not. "n_not_contradicted" is lenient: not stated at
    another level. A text holds a few claims only (:data:`e2llm.core.claims.MAX_CLAIMS`), so a feature made large may
    push another claim out without denying it: texts that are always right lose on the strict counts, texts without
    claims win on the lenient.

    Parameters
    ----------
    before, after : sequence of Parsed, length n_edits
        Thoughts about each edit's window as it was, and as edited.
    edits, z_before, z_after
        From :func:`e2llm.data.band_edits.draw_clear_edits`; shapes (n_edits, n_evidence).
    names : EvidenceNames
        What the columns of the z-scores are.
    answers : tuple of two sequences, optional
        Answers before and after; None for one that could not be read, which differs from every answer that was.

    Returns
    -------
    DataFrame
        For every outcome also "chance": the same outcome had the edit been met with the text (and answer) about another
        edited window of the same person, mean over all of those; NaN where the person has no other edited window.
    """
    lengths = {"before": len(before), "after": len(after), "edits": len(nonempty(edits)), "z_before": len(z_before),
               "z_after": len(z_after)}
    lengths |= {"answers before": len(answers[0]), "answers after": len(answers[1])} if answers else {}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Expected one entry for each edit, got {lengths}.")
    first, second, measured = [_levels(text) for text in before], [_levels(text) for text in after], set(names.columns)
    moved, table = moved_features(np.asarray(z_before), np.asarray(z_after), names), []
    large = np.minimum(np.abs(z_before), np.abs(z_after)) >= SALIENT
    for i, edit in enumerate(edits):
        untouched = [name for name, levels in first[i].items() if len(levels) == 1 and name in measured - set(moved[i])]
        salient = [name for name in untouched if large[i, names.columns.index(name)]]
        pairs = [i, *(j for j, other in enumerate(edits) if other.subject == edit.subject and other.row != edit.row)]
        found = pd.DataFrame([_outcome(edit, first[i], second[j], untouched, salient) for j in pairs])
        if answers:
            found["answer_changed"] = [answers[1][j] != answers[0][i] for j in pairs]
        own, chance = found.iloc[0], found.iloc[1:].astype(float).mean()
        table.append({"subject": edit.subject, "row": edit.row, "feature": edit.feature, "db": edit.db,
                      "before": edit.before, "wanted": edit.wanted,
                      "said_before": first[i].get(edit.feature) == {edit.wanted}, "moved": ", ".join(moved[i]),
                      "n_untouched": len(untouched), "n_salient": len(salient),
                      **{_column(name): own[name] for name in found},
                      **{f"chance {_column(name)}": chance[name] for name in found}})
    return pd.DataFrame(table)


def _column(outcome: str) -> str:
    return f"n_{outcome}" if outcome in _OF_CLAIMS else outcome


def _rate(table: pd.DataFrame, outcome: str, seed: int) -> Score:
    """Share of edits, or of untouched claims, with an outcome."""
    column = _column(outcome)
    sizes = table[_OF_CLAIMS[outcome]].to_numpy() if column != outcome else np.ones(len(table), dtype=int)
    if not sizes.sum():
        return Score.undefined()
    hits, chance = table[column].to_numpy(dtype=int), table[f"chance {column}"].to_numpy(dtype=float)
    correct = np.repeat(np.tile([True, False], len(table)), np.column_stack([hits, sizes - hits]).ravel())
    score = accuracy(correct, np.zeros(len(correct)), np.repeat(table["subject"].to_numpy(), sizes), seed)
    known = np.isfinite(chance) & (sizes > 0)
    return replace(score, chance=float(chance[known].sum() / sizes[known].sum()) if known.any() else float("nan"))


def summary(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Rates over all edits of :func:`responses` with intervals over people and their chance; a row an outcome.

    Every edit counts alike in "followed", "newly stated" and "answer changed", every claim in the rates of untouched
    claims; an edit whose wanted level was stated before is not newly stated. Chance is what the person's texts about
    other edited windows would score, so a model that writes the same of every window, or anything at random, is at
    chance; for "untouched claims not contradicted" it is high, as most texts do not mention most features. People with
    one edited window count in the rate and not in its chance, which is NaN if all are such.

    Parameters
    ----------
    table : DataFrame
        From :func:`responses`; parts of it may be joined or chosen. ValueError if it is empty.
    seed : int
        Of the interval.
    """
    if not len(table):
        raise ValueError("There are no edits to sum up: give a table of responses with one or more rows.")
    names = {"newly_stated": "newly stated", "kept": "untouched claims kept",
             "kept_salient": "untouched salient claims kept",
             "not_contradicted": "untouched claims not contradicted", "answer_changed": "answer changed"}
    return pd.DataFrame([_rate(table, outcome, seed).row(names.get(outcome, outcome)) for outcome in _OUTCOMES
                         if _column(outcome) in table])
