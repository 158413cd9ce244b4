"""What is said of a window, and what an answer that is read from it alone can reach.

A thought that states two levels of ten features cannot carry an answer that needs more, whatever the training. Here
evidence is coded as a thought would state it, and a plain classifier answers from the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.claims import CITED, MAX_CLAIMS, EvidenceNames, Scale
from ..core.verdicts import checked_z
from ..data.protocols import Split
from .baselines import Classical, logistic_regressions
from .metrics import balanced_accuracy, checked_classes


def rounded(z: np.ndarray, step: float, limit: float = np.inf) -> np.ndarray:
    """Evidence in steps, at most ``limit`` from zero; 0 is typical.

    Parameters
    ----------
    z : ndarray, shape (n, n_evidence)
        Evidence, standard deviations.
    step, limit : float
        Size of a step and largest value, standard deviations.
    """
    return np.clip(np.round(z / step) * step, -limit, limit)


def largest(z: np.ndarray, k: int) -> np.ndarray:
    """Evidence with all but the ``k`` largest ``|z|`` of each window set to 0; of equal ones the first column stays.

    Parameters
    ----------
    z : ndarray, shape (n, n_evidence)
        Evidence.
    k : int
        Features that stay.
    """
    chosen = np.argsort(-np.abs(z), axis=1, kind="stable")[:, :k]
    kept = np.zeros_like(z)
    np.put_along_axis(kept, chosen, np.take_along_axis(z, chosen, axis=1), axis=1)
    return kept


def low_or_high(z: np.ndarray, k: int = MAX_CLAIMS, beyond: float = CITED) -> np.ndarray:
    """-1 for low and 1 for high, of the ``k`` largest features from ``beyond`` on; 0 for what is not stated.

    Parameters
    ----------
    z : ndarray, shape (n, n_evidence)
        Evidence.
    k, beyond : int and float
        As ``limit`` and ``beyond`` of :func:`e2llm.core.claims.salient_claims`.
    """
    return np.where(np.abs(z) >= beyond, np.sign(largest(z, k)), 0.0)


Coding = Callable[[np.ndarray], np.ndarray]
CODINGS: Mapping[str, Coding] = MappingProxyType({
    "all, exact": lambda z: z,
    "all, in steps of 0.5 SD": lambda z: rounded(z, 0.5),
    "all, in steps of 1 SD up to 3": lambda z: rounded(z, 1.0, 3.0),
    "15 largest, in steps of 0.5 SD": lambda z: largest(rounded(z, 0.5), 15),
    f"{MAX_CLAIMS} largest, in steps of 0.5 SD": lambda z: largest(rounded(z, 0.5), MAX_CLAIMS),
    f"{MAX_CLAIMS} largest from {CITED:g} SD, low or high": low_or_high,
})  # fmt: skip


def in_levels(z: np.ndarray, scale: Scale) -> np.ndarray:
    """What a thought on a scale states: the place of each level from the middle; 0 for what is not stated.

    Parameters
    ----------
    z : ndarray, shape (n, n_evidence)
        Evidence.
    scale : Scale
        Its levels, and what is stated.
    """
    kept = (largest(z, scale.most) != 0) & (np.abs(z) >= scale.cited)
    return np.where(kept, scale.index(z) - len(scale.thresholds), 0)


def codings_of(scale: Scale) -> Mapping[str, Coding]:
    """:data:`CODINGS`, and where it is none of them a thought on the scale, beside all features in its levels."""
    if len(scale.degrees) == 1:
        return CODINGS
    n_levels = len(scale.words)
    return MappingProxyType({**CODINGS, f"all, in {n_levels} levels": lambda z: scale.index(z) - len(scale.thresholds),
                             f"{scale.most} largest from {scale.cited:g} SD, in {n_levels} levels":
                                 lambda z: in_levels(z, scale)})


class _Coded(NamedTuple):
    """Features for :class:`e2llm.evaluation.baselines.Classical`."""

    codes: np.ndarray

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Codes of some windows."""
        return self.codes[rows]


class Fold(NamedTuple):
    """Evidence under one split, as :class:`e2llm.data.dataset.Corpus` holds it."""

    evidence: Mapping[str, np.ndarray]  # kinds, such as measured and predicted, each (n_windows, n_evidence)
    labels: np.ndarray  # (n_windows,) class indices
    subjects: np.ndarray  # (n_windows,)
    split: Split


def evidence_capacity(folds: Sequence[Fold], names: EvidenceNames, n_classes: int,
                      codings: Mapping[str, Coding] = CODINGS, seed: int = 0) -> pd.DataFrame:
    """Balanced accuracy of a logistic regression that knows only what a thought would state.

    It is fitted on the training windows; its regularization is chosen on the validation windows, as for the baselines.

    Parameters
    ----------
    folds : sequence of Fold
        One, or several whose test windows are scored together, for data with few people in each. Evidence must be
        finite in all rows of the split. All have the same kinds of evidence.
    names : EvidenceNames
        Columns of the evidence.
    n_classes : int
        Number of classes; chance is one over it.
    codings : mapping of str to callable
        How evidence is stated: arrays (n, n_evidence) to ordinal codes of that shape, 0 for what is not stated or
        typical.
    seed : int
        Of the intervals, which are over the people of the test windows.

    Returns
    -------
    DataFrame
        A row for each coding and kind of evidence: ``name`` (the coding), ``evidence``, ``stated`` (mean number of
        features of a test window whose code is not 0), ``score``, ``low``, ``high``, ``chance``, ``n``.

    Raises
    ------
    ValueError
        If evidence has other columns, or is not finite somewhere in the split.
    """
    found = []
    for kind in folds[0].evidence:
        known = [_known(fold, kind, names) for fold in folds]
        for name, code in codings.items():
            truth, predicted, subjects, stated = (np.concatenate(parts) for parts in zip(*(
                _answers(code(values), fold) for values, fold in zip(known, folds, strict=True)), strict=True))
            score = balanced_accuracy(*checked_classes(n_classes, truth, predicted, subjects), n_classes, seed)
            found.append(score.row(name, evidence=kind, stated=float(stated.mean())))
    return pd.DataFrame(found)


def _known(fold: Fold, kind: str, names: EvidenceNames) -> np.ndarray:
    """Evidence in the rows of the split, zero elsewhere."""
    used = np.concatenate([fold.split.train, fold.split.val, fold.split.test])
    known = np.zeros(np.shape(fold.evidence[kind]))
    known[used] = checked_z(np.asarray(fold.evidence[kind])[used], names, 2)
    return known


def _answers(codes: np.ndarray, fold: Fold) -> tuple[np.ndarray, ...]:
    """Truth, answer, subject and number of stated features of each test window."""
    test = fold.split.test
    predicted = Classical.fit(_Coded(codes), logistic_regressions(), fold.labels, fold.split).rows(test)
    return fold.labels[test], predicted, fold.subjects[test], (codes[test] != 0).sum(axis=1)
