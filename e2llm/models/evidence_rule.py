"""Answers from claims alone, by a logistic regression: what follows from stated levels, without a language model.

Training takes from it the answers that the second pass shall learn; the evaluation judges with it whether a conclusion
follows from the claims before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.claims import Claims, EvidenceNames
from ..core.verdicts import claim_values


class EvidenceRule:
    """Answers from claims alone: logistic regression on the levels of features, from -1 (lowest) to 1 (highest).

    Typical is 0, and so is what is not stated, was not measured in training, or is stated at contradicting levels.
    """

    def __init__(self) -> None:
        self.names: EvidenceNames | None = None
        from sklearn.linear_model import LogisticRegression

        self.model = LogisticRegression(class_weight="balanced", max_iter=1000)

    def fit(self, claims: Sequence[Claims], labels: Sequence[str], names: EvidenceNames) -> EvidenceRule:
        """Fit on claims about training windows, and their labels; errors are those of :meth:`fit_values`.

        Parameters
        ----------
        claims, labels : sequence, length n_windows
            Of training windows; two labels or more.
        names : EvidenceNames
            What was measured.
        """
        return self.fit_values([claim_values(of_window, names) for of_window in claims], labels, names)

    def fit_values(self, values: Sequence[np.ndarray] | np.ndarray, labels: Sequence[str],
                   names: EvidenceNames) -> EvidenceRule:
        """Fit on claims that are numbers already.

        Parameters
        ----------
        values : sequence of ndarray, or ndarray, shape (n_windows, n_evidence)
            From :func:`e2llm.core.verdicts.claim_values`.
        labels, names
            As for :meth:`fit`.

        Raises
        ------
        ValueError
            For another number of labels than windows, or fewer than two different labels.
        """
        if len(values) != len(labels) or len(set(labels)) < 2:
            raise ValueError("The rule needs one label for every window and two or more labels, got "
                             f"{len(values)} windows, {len(labels)} labels, {len(set(labels))} of them different.")
        self.names = names
        self.model.fit(np.asarray(values), np.asarray(labels))
        return self

    @property
    def labels(self) -> list[str]:
        """Labels of the training windows; ValueError before the rule is fitted."""
        self._measured()
        return [str(label) for label in self.model.classes_]

    def probabilities(self, claims: Sequence[Claims], labels: Sequence[str]) -> np.ndarray:
        """Probability of each label, shape (n, n_labels); 0 for one that no training window had.

        Parameters
        ----------
        claims : sequence of sequences of Claim, length n
            Of each window.
        labels : sequence of str
            Columns of the result; all labels of the training windows.
        """
        names = self._measured()
        return self.of_values(np.stack([claim_values(of_window, names) for of_window in claims]), labels)

    def of_values(self, values: np.ndarray, labels: Sequence[str]) -> np.ndarray:
        """Probability of each label, shape (n, n_labels), as :meth:`probabilities`.

        Parameters
        ----------
        values : ndarray, shape (n, n_evidence)
            From :func:`e2llm.core.verdicts.claim_values`.
        labels : sequence of str
            Columns of the result.
        """
        found = np.zeros((len(values), len(labels)))
        found[:, [list(labels).index(label) for label in self.labels]] = self.model.predict_proba(values)
        return found

    def ranked(self, claims: Claims) -> list[str]:
        """Labels by falling probability."""
        labels = self.labels
        return [labels[i] for i in np.argsort(-self.probabilities([claims], labels)[0], kind="stable")]

    def _measured(self) -> EvidenceNames:
        if self.names is None:
            raise ValueError("The rule knows no evidence yet: fit it on training windows first.")
        return self.names
