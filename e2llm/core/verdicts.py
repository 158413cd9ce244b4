"""Whether a statement is true of a window: a claimed level, a comparison, or that nothing stands out."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from .claims import LEVEL_THRESHOLD, SALIENT, Claims, EvidenceNames, Scale


class Verdict(StrEnum):
    """Outcome of the comparison of a claim with the measured evidence."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown feature"


def checked_z(z: np.ndarray, names: EvidenceNames, n_dims: int) -> np.ndarray:
    """Evidence as an array, its shape and values checked.

    Parameters
    ----------
    z : ndarray, shape (n_evidence,) or (n_windows, n_evidence)
        Z-scores.
    names : EvidenceNames
        Their columns.
    n_dims : int
        Number of dimensions that ``z`` must have.

    Raises
    ------
    ValueError
        For another shape or values that are not finite.
    """
    z = np.asarray(z)  # in its own precision: at the threshold a level must come out as in Scale.level()
    wanted = "(n_evidence,)" if n_dims == 1 else "(n_windows, n_evidence)"
    if z.ndim != n_dims or z.shape[-1] != len(names.columns):
        raise ValueError(f"z has shape {z.shape}, expected {wanted} with {len(names.columns)} columns: pass Corpus.z "
                         "with its evidence_names.")
    if not np.isfinite(z).all():
        raise ValueError("z holds values that are not finite: leave these windows out.")
    return z


def claim_index(claims: Claims, names: EvidenceNames) -> list[tuple[int, int]]:
    """Column and level of every claim, as numbers.

    Parameters
    ----------
    claims : sequence of Claim
        Claims of a text.
    names : EvidenceNames
        Columns of the evidence.

    Returns
    -------
    list of (int, int)
        Column (-1 for an unknown feature) and index in the words of the scale.

    Raises
    ------
    ValueError
        For a level that is none of the scale.
    """
    columns, words = {name: i for i, name in enumerate(names.columns)}, names.scale.words
    if wrong := [claim for claim in claims if claim.level not in words]:
        raise ValueError(f"'{wrong[0]}' has no level that is measured: say one of {', '.join(words)}.")
    return [(columns.get(claim.feature, -1), words.index(claim.level)) for claim in claims]


def claim_values(claims: Claims, names: EvidenceNames) -> np.ndarray:
    """Claims as numbers, shape (n_evidence,): -1 for the lowest level of the scale, 1 for the highest.

    0 for what is typical, not stated, or stated at contradicting levels.

    Parameters
    ----------
    claims : sequence of Claim
        About one window. Features that are no columns are passed over.
    names : EvidenceNames
        Columns, and the scale of the claims.
    """
    middle, stated = len(names.scale.words) // 2, np.zeros(len(names.columns))
    levels: dict[int, set[int]] = {}
    for column, level in claim_index(claims, names):
        levels.setdefault(column, set()).add(level - middle)
    for column, found in levels.items():
        if column >= 0 and len(found - {0}) == 1:
            stated[column] = (found - {0}).pop() / middle
    return stated


def agrees(stated: np.ndarray | int, measured: np.ndarray | int, scale: Scale) -> np.ndarray:
    """Whether stated levels are true of measured ones: equal, or as near as the scale tolerates.

    Parameters
    ----------
    stated, measured : int or ndarray of int
        Places in ``scale.words``; a place below zero states nothing, and is never true.
    scale : Scale
        Where they are from.
    """
    stated = np.asarray(stated)
    return (stated >= 0) & (np.abs(stated - measured) <= scale.tolerance)


def verdicts(claims: Claims, z: np.ndarray, names: EvidenceNames) -> list[Verdict]:
    """Which claims are true of a window.

    Parameters
    ----------
    claims : sequence of Claim
        Claims of a text.
    z : ndarray, shape (n_evidence,)
        Evidence of the window relative to its baseline, standard deviations.
    names : EvidenceNames
        Columns of ``z``, and the scale of the claims.
    """
    measured = names.scale.index(checked_z(z, names, 1))
    return [Verdict.UNKNOWN if column < 0
            else Verdict.TRUE if agrees(claimed, measured[column], names.scale) else Verdict.FALSE
            for column, claimed in claim_index(claims, names)]


def comparison_verdict(first: float, second: float, direction: str) -> Verdict:
    """Whether one window is higher (or lower) in a feature than another, by the distance between two levels or more.

    Parameters
    ----------
    first, second : float
        z of the window that is said to be higher or lower, and of the other.
    direction : str
        ``higher`` or ``lower``.
    """
    stated = first - second if direction == "higher" else second - first
    return Verdict.TRUE if stated >= LEVEL_THRESHOLD else Verdict.FALSE


def nothing_salient(z: np.ndarray) -> np.ndarray:
    """Whether "no band stands out" is true: no evidence of the last axis reaches :data:`e2llm.core.claims.SALIENT`."""
    return ~(np.abs(z) >= SALIENT).any(axis=-1)
