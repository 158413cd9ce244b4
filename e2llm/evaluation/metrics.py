"""Scores with what it takes to believe them: chance level and a bootstrap interval over subjects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, confusion_matrix, f1_score

N_BOOTSTRAP = 2000
ROUNDING = 1e-9  # a model that always says the same scores chance exactly; the mean of many 1/3 is not quite 1/3


@dataclass(frozen=True)
class Score:
    """A score, its 95 % interval over subjects and its chance level."""

    value: float
    low: float
    high: float
    chance: float
    n: int

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above chance."""
        return self.low > self.chance + ROUNDING

    @property
    def contains_chance(self) -> bool:
        """Whether the interval contains chance."""
        return self.low - ROUNDING <= self.chance <= self.high + ROUNDING

    def row(self, name: str, **more: object) -> dict:
        """Row of a table of scores."""
        return {"name": name, **more, "score": self.value, "low": self.low, "high": self.high, "chance": self.chance, "n": self.n}


def resample_subjects(subjects: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the subjects, and how often each is drawn in every bootstrap sample (n_bootstrap, n_subjects)."""
    names, codes = np.unique(subjects, return_inverse=True)
    rng = np.random.default_rng(seed)
    return codes, rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=N_BOOTSTRAP)


def percentile_interval(resampled: np.ndarray, n_subjects: int) -> tuple[float, float]:
    """Expanded percentile interval (Hesterberg 2015, Am. Stat. 69:371, section 4.4).

    Plain percentiles are too narrow for few subjects; these reach further, as a t interval does. One subject says
    nothing about others, so its interval is 0 to 1.
    """
    if n_subjects < 2:
        return 0.0, 1.0
    tail = norm.cdf(-np.sqrt(n_subjects / (n_subjects - 1)) * t.ppf(0.975, n_subjects - 1))
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), float(high)


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, n_classes: int, seed: int = 0) -> Score:
    """Balanced accuracy with an interval from resampling whole subjects.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is an answer that could not be read, and wrong.
    owners : ndarray, shape (n,)
        Subject of every window.
    n_classes : int
        Number of classes; chance is one over it.
    """
    value, resampled, n_subjects = _resampled_balanced_accuracy(truth, predicted, subjects, n_classes, seed)
    return Score(value, *percentile_interval(resampled, n_subjects), 1.0 / n_classes, len(truth))


def paired_difference(truth: np.ndarray, predicted: np.ndarray, reference: np.ndarray, subjects: np.ndarray, n_classes: int,
                      seed: int = 0) -> tuple[float, float, float]:
    """Difference of two models' balanced accuracies on the same windows, with an interval from resampling whole subjects.

    Both are scored on the same resampled people, so what these people have in common cancels.

    Parameters
    ----------
    truth, predicted, reference : ndarray of int, shape (n,)
        Class indices, of both models.
    owners, n_classes, seed
        As in :func:`balanced_accuracy`.

    Returns
    -------
    tuple of float
        ``predicted`` minus ``reference``, low, high; with one subject the interval is -1 to 1.
    """
    one, first, n_subjects = _resampled_balanced_accuracy(truth, predicted, subjects, n_classes, seed)
    other, second, _ = _resampled_balanced_accuracy(truth, reference, subjects, n_classes, seed)
    if n_subjects < 2:
        return one - other, -1.0, 1.0
    return one - other, *percentile_interval(first - second, n_subjects)


def _resampled_balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, n_classes: int,
                                 seed: int) -> tuple[float, np.ndarray, int]:
    """Balanced accuracy, its value in every bootstrap sample, and the number of subjects."""
    codes, draws = resample_subjects(subjects, seed)
    n_subjects = draws.shape[1]
    hits, totals = np.zeros((n_subjects, n_classes)), np.zeros((n_subjects, n_classes))
    np.add.at(totals, (codes, truth), 1)
    np.add.at(hits, (codes, truth), truth == predicted)
    with np.errstate(invalid="ignore"):
        resampled = np.nanmean((draws @ hits) / (draws @ totals), axis=1)
        value = float(np.nanmean(hits.sum(0) / totals.sum(0)))
    return value, resampled, n_subjects


def accuracy(correct: np.ndarray, chance: np.ndarray, subjects: np.ndarray, seed: int = 0) -> Score:
    """Accuracy of items whose options differ in number, with an interval from resampling whole subjects.

    Parameters
    ----------
    correct : ndarray of bool, shape (n,)
        Whether each answer is right.
    chance : ndarray of float, shape (n,)
        One over the number of options of each item.
    owners : ndarray, shape (n,)
        Subject of every item.
    """
    codes, draws = resample_subjects(subjects, seed)
    right = np.bincount(codes, weights=correct.astype(float), minlength=draws.shape[1])
    total = np.bincount(codes, minlength=draws.shape[1])
    low, high = percentile_interval((draws @ right) / (draws @ total), draws.shape[1])
    return Score(float(correct.mean()), low, high, float(np.mean(chance)), len(correct))


def mean_over_subjects(values: np.ndarray, chance: float, n: int, seed: int = 0) -> Score:
    """Mean of one number a subject, shape (n_subjects,), with an interval from resampling the subjects; ``n`` is what stands behind it."""
    _, draws = resample_subjects(np.arange(len(values)), seed)
    return Score(float(np.mean(values)), *percentile_interval(draws @ values / len(values), len(values)), chance, n)


def classification(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float]:
    """Balanced accuracy, Cohen's kappa, macro and weighted F1 by scikit-learn."""
    labels = list(range(n_classes))
    f1 = {average: float(f1_score(truth, predicted, labels=labels, average=average, zero_division=0)) for average in ("macro", "weighted")}
    return {"balanced_accuracy": float(balanced_accuracy_score(truth, predicted)), "kappa": float(cohen_kappa_score(truth, predicted)),
            "macro_f1": f1["macro"], "weighted_f1": f1["weighted"]}


def confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Confusion matrix, rows are the truth."""
    return confusion_matrix(truth, predicted, labels=list(range(n_classes)))
