"""Whether a statement is true of a window: a claimed level, a comparison, or that nothing stands out."""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from .claims import LEVEL_THRESHOLD, LEVELS, SALIENT, Claims, EvidenceNames


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
    z = np.asarray(z)  # in its own precision: at the threshold a level must come out as in level()
    wanted = "(n_evidence,)" if n_dims == 1 else "(n_windows, n_evidence)"
    if z.ndim != n_dims or z.shape[-1] != len(names.columns):
        raise ValueError(f"z has shape {z.shape}, expected {wanted} with {len(names.columns)} columns: pass Corpus.z "
                         "with its evidence_names.")
    if not np.isfinite(z).all():
        raise ValueError("z holds values that are not finite: leave these windows out.")
    return z


def level_index(z: np.ndarray, threshold: float) -> np.ndarray:
    """Index in :data:`LEVELS` of every z-score.

    Parameters
    ----------
    z : ndarray
        Z-scores, any shape.
    threshold : float
        ``|z|`` from which a level is low or high.

    Raises
    ------
    ValueError
        If the threshold is not above zero.
    """
    if not threshold > 0:
        raise ValueError(f"The threshold must be above zero, not {threshold}: it is a distance from the level in z.")
    return 1 + (z >= threshold).astype(int) - (z <= -threshold)


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
        Column (-1 for an unknown feature) and index in :data:`LEVELS`.

    Raises
    ------
    ValueError
        For a level that is none of :data:`LEVELS`.
    """
    columns = {name: i for i, name in enumerate(names.columns)}
    if wrong := [claim for claim in claims if claim.level not in LEVELS]:
        raise ValueError(f"'{wrong[0]}' has no level that is measured: say one of {', '.join(LEVELS)}.")
    return [(columns.get(claim.feature, -1), LEVELS.index(claim.level)) for claim in claims]


def verdicts(claims: Claims, z: np.ndarray, names: EvidenceNames, threshold: float = LEVEL_THRESHOLD) -> list[Verdict]:
    """Which claims are true of a window.

    Parameters
    ----------
    claims : sequence of Claim
        Claims of a text.
    z : ndarray, shape (n_evidence,)
        Evidence of the window relative to its baseline, standard deviations.
    names : EvidenceNames
        Columns of ``z``.
    threshold : float
        ``|z|`` from which a level is low or high, as in :func:`e2llm.core.claims.level`.
    """
    measured = level_index(checked_z(z, names, 1), threshold)
    return [Verdict.UNKNOWN if column < 0 else Verdict.TRUE if measured[column] == claimed else Verdict.FALSE
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
