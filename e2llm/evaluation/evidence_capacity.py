"""What is said of a window, and what an answer that is read from it alone can reach.

A thought that states two levels of ten features cannot carry an answer that needs more, whatever the training. Here
evidence is coded as a thought would state it, and a plain classifier answers from the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.claims import CITED, MAX_CLAIMS, EvidenceNames
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


class _Coded(NamedTuple):
    """Features for :class:`e2llm.evaluation.baselines.Classical`."""

    codes: np.ndarray

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Codes of some windows."""
        return self.codes[rows]


def evidence_capacity(evidence: Mapping[str, np.ndarray], names: EvidenceNames, labels: np.ndarray,
                      subjects: np.ndarray, split: Split, n_classes: int, codings: Mapping[str, Coding] = CODINGS,
                      seed: int = 0) -> pd.DataFrame:
    """Balanced accuracy of a logistic regression that knows only what a thought would state.

    It is fitted on the training windows; its regularization is chosen on the validation windows, as for the baselines.

    Parameters
    ----------
    evidence : mapping of str to ndarray, shape (n_windows, n_evidence)
        Kinds of evidence, such as measured and predicted. Finite in all rows of the split.
    names : EvidenceNames
        Their columns.
    labels : ndarray of int, shape (n_windows,)
        Class indices.
    subjects : ndarray, shape (n_windows,)
        Person of every window; the intervals are over the people of the test windows.
    split : Split
        Rows for training, validation and test.
    n_classes : int
        Number of classes; chance is one over it.
    codings : mapping of str to callable
        How evidence is stated: arrays (n, n_evidence) to ordinal codes of that shape, 0 for what is not stated or
        typical.
    seed : int
        Of the intervals.

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
    for kind, values in evidence.items():
        values = np.asarray(values)
        known = np.zeros(values.shape)
        used = np.concatenate([split.train, split.val, split.test])
        known[used] = checked_z(values[used], names, 2)
        for name, code in codings.items():
            codes = code(known)
            predicted = Classical.fit(_Coded(codes), logistic_regressions(), labels, split).rows(split.test)
            truth, predicted = checked_classes(n_classes, labels[split.test], predicted)
            score = balanced_accuracy(truth, predicted, subjects[split.test], n_classes, seed)
            stated = float((codes[split.test] != 0).sum(axis=1).mean())
            found.append(score.row(name, evidence=kind, stated=stated))
    return pd.DataFrame(found)
