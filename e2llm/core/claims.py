"""Claims about measured evidence: levels, thresholds, the claims that a window supports, and verdicts on claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

LEVELS = ("low", "typical", "high")
LEVEL_THRESHOLD = 0.7  # |z| from which a level counts as low or high
SHAPE = ("spectral slope", "alpha frequency", "artefact level")  # columns of spectral_shape
WHOLE = ("frontal asymmetry", *SHAPE)  # evidence about the whole scalp


@dataclass(frozen=True)
class EvidenceNames:
    """Columns of the evidence table: (band, region) pairs, then :data:`WHOLE`."""

    pairs: tuple[tuple[str, str], ...]

    @property
    def columns(self) -> list[str]:
        """Readable names, in order."""
        return [f"{region} {band}" for band, region in self.pairs] + list(WHOLE)


def level(z: float) -> str:
    """Word for a z-score: low, typical or high, by :data:`LEVEL_THRESHOLD`."""
    return LEVELS[1 + int(z >= LEVEL_THRESHOLD) - int(z <= -LEVEL_THRESHOLD)]


MAX_ABS_Z = 6.0  # larger |z| are clipped to this
EVIDENCE_THRESHOLD = 1.5  # |z| of predicted evidence from which a feature enters the prompt; the same size as CITED
MAX_CLAIMS = 10  # of a text
CITED = 1.5  # |z| from which measured evidence is worth citing: well beyond LEVEL_THRESHOLD, so that the claim is clear
SALIENT = 2.0  # |z| from which it should not be missing


@dataclass(frozen=True)
class Claim:
    """One measured statement: a feature of the window is low or high relative to its baseline."""

    feature: str  # "occipital alpha", "frontal asymmetry"
    level: str

    def __str__(self) -> str:
        return f"{self.feature} {self.level}"


def salient_claims(z: np.ndarray, names: EvidenceNames, limit: int = MAX_CLAIMS, beyond: float = CITED) -> tuple[Claim,
                                                                                                                 ...]:
    """Claims that a window supports.

    Parameters
    ----------
    z : ndarray, shape (n_evidence,)
        Evidence of the window relative to its baseline, standard deviations.
    names : EvidenceNames
        Its columns.
    limit : int
        Number of claims at the most: those of the largest ``|z|``.
    beyond : float
        Smallest ``|z|`` of a claim.

    Returns
    -------
    tuple of Claim
        In the order of the columns.
    """
    order = np.sort(np.argsort(-np.abs(z), kind="stable")[:limit])
    return tuple(Claim(names.columns[i], level(z[i])) for i in order if abs(z[i]) >= beyond)


Claims = Sequence[Claim]


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
        raise ValueError(f"The threshold must be above zero, not {threshold}: it is a distance from the "
                         "level in z.")
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
