"""Claims about measured evidence: levels, thresholds, the claims that a window supports, and verdicts on claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
