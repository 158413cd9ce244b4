"""Claims about measured evidence: levels, thresholds, the claims that a window supports, and verdicts on claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

LEVEL_THRESHOLD = 0.7  # |z| from which a level counts as low or high
SHAPE = ("spectral slope", "alpha frequency", "artefact level")  # columns of spectral_shape
WHOLE = ("frontal asymmetry", *SHAPE)  # evidence about the whole scalp


MAX_ABS_Z = 6.0  # larger |z| are clipped to this
EVIDENCE_THRESHOLD = 1.5  # |z| of predicted evidence from which a feature enters the prompt; the same size as CITED
MAX_CLAIMS = 10  # of a text
CITED = 1.5  # |z| from which measured evidence is worth citing: well beyond LEVEL_THRESHOLD, so that the claim is clear
SALIENT = 2.0  # |z| from which it should not be missing


@dataclass(frozen=True)
class Scale:
    """How finely a text states how far a feature is from its baseline.

    Parameters
    ----------
    name : str
        Key of :data:`SCALES`.
    degrees : tuple of str
        Words before "low" and "high", from the smallest degree to the largest; "" alone for none.
    thresholds : tuple of float
        ``|z|`` from which each degree begins, rising.
    cited : float
        ``|z|`` from which evidence is stated.
    most : int
        Features that a text states at the most.
    tolerance : int
        Levels by which a true claim may differ from the measured one.
    in_every_prompt : bool
        Whether evidence tokens stand in every prompt, or only in those that ask for claims.
    """

    name: str
    degrees: tuple[str, ...]
    thresholds: tuple[float, ...]
    cited: float
    most: int
    tolerance: int = 0
    in_every_prompt: bool = True

    @property
    def level_words(self) -> int:
        """Words of a level."""
        return 2 if self.degrees[0] else 1

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Levels from the lowest to the highest; the middle one is typical."""
        low, high = ([f"{degree} {side}".strip() for degree in self.degrees] for side in ("low", "high"))
        return (*reversed(low), "typical", *high)

    def index(self, z: np.ndarray | float) -> np.ndarray:
        """Place in :attr:`words` of every z-score, an array of int of the same shape."""
        z = np.asarray(z)
        found = np.full(z.shape, len(self.thresholds))
        for limit in self.thresholds:
            found += (z >= limit).astype(int) - (z <= -limit)
        return found

    def level(self, z: float) -> str:
        """Word for a z-score."""
        return self.words[int(self.index(z))]


LOW_HIGH = Scale("low_high", ("",), (LEVEL_THRESHOLD,), CITED, MAX_CLAIMS)
# Low and high begin where those of LOW_HIGH do, so both scales agree on the side of a feature. A claim may be one level
# off: neighboring degrees have no clear border in a signal of four seconds. Twenty features are too many tokens for a
# prompt about several segments, which asks for no claim.
GRADED = Scale("graded", ("rather", "clearly", "very"), (LEVEL_THRESHOLD, 1.5, 2.5), LEVEL_THRESHOLD, 20, tolerance=1,
               in_every_prompt=False)
SCALES = {scale.name: scale for scale in (LOW_HIGH, GRADED)}
LEVELS = LOW_HIGH.words


def level(z: float) -> str:
    """Low, typical or high: the side of a z-score, by :data:`LEVEL_THRESHOLD`."""
    return LOW_HIGH.level(z)


def side(stated: str) -> str:
    """Low, typical or high: the side of a level of any scale."""
    return stated.rpartition(" ")[2]


@dataclass(frozen=True)
class EvidenceNames:
    """Columns of the evidence table: (band, region) pairs, then :data:`WHOLE`; and the words for their values."""

    pairs: tuple[tuple[str, str], ...]
    scale: Scale = LOW_HIGH

    @cached_property
    def columns(self) -> list[str]:
        """Readable names, in order."""
        return [f"{region} {band}" for band, region in self.pairs] + list(WHOLE)


@dataclass(frozen=True)
class Claim:
    """One measured statement: a feature of the window is low or high relative to its baseline."""

    feature: str  # "occipital alpha", "frontal asymmetry"
    level: str

    def __str__(self) -> str:
        return f"{self.feature} {self.level}"


def salient_claims(z: np.ndarray, names: EvidenceNames, limit: int | None = None,
                   beyond: float | None = None) -> tuple[Claim, ...]:
    """Claims that a window supports.

    Parameters
    ----------
    z : ndarray, shape (n_evidence,)
        Evidence of the window relative to its baseline, standard deviations.
    names : EvidenceNames
        Its columns.
    limit : int, optional
        Number of claims at the most: those of the largest ``|z|``. Default: as the scale of the names has it.
    beyond : float, optional
        Smallest ``|z|`` of a claim. Default: likewise.

    Returns
    -------
    tuple of Claim
        In the order of the columns.
    """
    scale = names.scale
    limit, beyond = scale.most if limit is None else limit, scale.cited if beyond is None else beyond
    order = np.sort(np.argsort(-np.abs(z), kind="stable")[:limit])
    places = scale.index(z)
    return tuple(Claim(names.columns[i], scale.words[places[i]]) for i in order if abs(z[i]) >= beyond)


Claims = Sequence[Claim]
