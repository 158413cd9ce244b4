"""Scores of predictions with what it takes to believe them: chance, intervals over people, tests, calibration.

Arrays of different lengths, and class indices that do not exist, raise a ValueError. Measures that many models share on
the same resampled people are in :mod:`e2llm.evaluation.person_bootstrap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used

N_BOOTSTRAP = 2000
N_BINS = 10  # of confidence
ROUNDING = 1e-9  # a model that always gives one answer scores chance exactly; the mean of many 1/3 is not quite 1/3


@dataclass(frozen=True)
class Score:
    """A score, its 95 % interval over subjects and its chance level."""

    value: float
    low: float
    high: float
    chance: float
    n: int

    @classmethod
    def undefined(cls) -> Score:
        """Score of nothing: NaN, ``n`` 0."""
        return cls(*[float("nan")] * 4, 0)

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above chance."""
        return self.low > self.chance + ROUNDING

    @property
    def contains_chance(self) -> bool:
        """Whether the interval contains chance."""
        return self.low - ROUNDING <= self.chance <= self.high + ROUNDING

    def row(self, name: str, **more: object) -> dict:
        """Row of a table of scores; ``more`` are further columns.

        Parameters
        ----------
        name : str
            What was scored.
        **more
            Columns between the name and the score.
        """
        return {"name": name, **more, "score": self.value, "low": self.low, "high": self.high, "chance": self.chance,
                "n": self.n}


# ---------------------------------------------------------------- intervals over subjects


def resample_subjects(subjects: np.ndarray, seed: int | list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw subjects with replacement.

    Parameters
    ----------
    subjects : ndarray, shape (n,)
        Subject of every window.
    seed : int or list of int
        Of the draws.

    Returns
    -------
    codes : ndarray of int, shape (n,)
        Code of each window's subject.
    draws : ndarray of int, shape (n_bootstrap, n_subjects)
        How often each subject is drawn in every bootstrap sample.
    """
    names, codes = np.unique(subjects, return_inverse=True)
    rng = np.random.default_rng(seed)
    return codes, rng.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=N_BOOTSTRAP)


def percentile_interval(resampled: np.ndarray, n_subjects: int,
                        one_subject: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float]:
    """Expanded percentile interval, 95 %.

    Plain percentiles are too narrow for few subjects; these reach further, as a t interval does.

    Parameters
    ----------
    resampled : ndarray, shape (n_bootstrap,)
        The number in every bootstrap sample; samples in which it is NaN are left out.
    n_subjects : int
        How many subjects were resampled.
    one_subject : tuple of float
        Interval for one subject, who gives no information about others; also if all samples are NaN.

    References
    ----------
    Hesterberg 2015, Am. Stat. 69:371, section 4.4.
    """
    known = resampled[~np.isnan(resampled)]
    if n_subjects < 2 or not len(known):
        return one_subject
    tail = scipy.stats.norm.cdf(-np.sqrt(n_subjects / (n_subjects - 1)) * scipy.stats.t.ppf(0.975, n_subjects - 1))
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotient of two arrays that broadcast; NaN where the divisor is zero.

    Parameters
    ----------
    above, below : ndarray
        Sums, none of them negative below.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 1e-12, above / below, np.nan)


def ratio_over_subjects(above: np.ndarray, below: np.ndarray, subjects: np.ndarray, seed: int = 0,
                        one_subject: tuple[float, float] = (0.0, 1.0)) -> tuple[float, float, float]:
    """One sum over another, with an interval from resampling whole subjects.

    Parameters
    ----------
    above, below : ndarray, shape (n,)
        What is added up over windows or items.
    subjects : ndarray, shape (n,)
        Subject of each.
    seed : int
        Of the draws.
    one_subject : tuple of float
        See :func:`percentile_interval`.

    Returns
    -------
    tuple of float
        The ratio, low, high; all NaN if there is nothing to divide by.
    """
    codes, draws = resample_subjects(subjects, seed)
    parts, wholes = (np.bincount(codes, np.asarray(values, dtype=float), draws.shape[1]) for values in (above, below))
    if not wholes.sum():
        return float("nan"), float("nan"), float("nan")
    interval = percentile_interval(ratio(draws @ parts, draws @ wholes), draws.shape[1], one_subject)
    return float(parts.sum() / wholes.sum()), *interval


def accuracy(correct: np.ndarray, chance: np.ndarray, subjects: np.ndarray, seed: int = 0,
             one_subject: tuple[float, float] = (0.0, 1.0)) -> Score:
    """Accuracy of items whose options differ in number, with an interval from resampling whole subjects.

    Parameters
    ----------
    correct : ndarray of bool, shape (n,)
        Whether each answer is right.
    chance : ndarray of float, shape (n,)
        One over the number of options of each item.
    subjects : ndarray, shape (n,)
        Subject of every item.
    seed : int
        Of the interval.
    one_subject : tuple of float
        See :func:`percentile_interval`; for values that are no shares.
    """
    found = ratio_over_subjects(correct, np.ones(len(correct)), subjects, seed, one_subject)
    return Score(*found, float(np.mean(chance)), len(correct))


def mean_over_subjects(values: np.ndarray, chance: float, n: int, seed: int = 0,
                       one_subject: tuple[float, float] = (0.0, 1.0)) -> Score:
    """Mean of one number a subject, with an interval from resampling the subjects.

    Parameters
    ----------
    values : ndarray, shape (n_subjects,)
        One number a subject.
    chance : float
        Chance level.
    n : int
        Number of windows or items behind the values.
    seed : int
        Of the interval.
    one_subject : tuple of float
        See :func:`percentile_interval`; (-1, 1) for differences of shares, NaN for values without bounds.
    """
    _, draws = resample_subjects(np.arange(len(values)), seed)
    interval = percentile_interval(draws @ values / len(values), len(values), one_subject)
    return Score(float(np.mean(values)), *interval, chance, n)


# ---------------------------------------------------------------- classes


def checked_classes(n_classes: int, truth: np.ndarray, predicted: np.ndarray,
                    *groups: np.ndarray) -> tuple[np.ndarray, ...]:
    """Arrays of one length whose class indices exist.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 is allowed in ``predicted``.
    *groups : ndarray, shape (n,)
        Arrays that must have the same length.

    Raises
    ------
    ValueError
        If lengths differ or are zero, or a class does not exist.
    """
    arrays = tuple(np.asarray(values) for values in (truth, predicted, *groups))
    lengths = [len(values) for values in arrays]
    if not lengths[0] or len(set(lengths)) > 1:
        raise ValueError(f"The arrays must have one length above zero, not {lengths}.")
    for name, values, lowest in zip(("truth", "predicted"), arrays[:2], (0, -1), strict=True):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < lowest or values.max() >= n_classes:
            raise ValueError(f"'{name}' must hold whole numbers from {lowest} to {n_classes - 1}.")
    return arrays


def mean_recall(hits: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Balanced accuracy from counts: mean recall of the classes that occur.

    Parameters
    ----------
    hits, asked : ndarray, shape (..., n_classes)
        Right answers and windows of each class.

    Returns
    -------
    ndarray, shape (...)
        NaN where there is no window.
    """
    recall = ratio(hits, asked)
    return ratio(np.nansum(recall, axis=-1), (~np.isnan(recall)).sum(axis=-1))


def _class_counts(truth: np.ndarray, predicted: np.ndarray, n_classes: int, codes: np.ndarray,
                 n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers and windows of each group (``codes``) and class, both of shape (n_groups, n_classes)."""
    cell, shape = codes * n_classes + truth, (n_groups, n_classes)
    asked = np.bincount(cell, minlength=n_groups * n_classes).reshape(shape)
    return np.bincount(cell[truth == predicted], minlength=n_groups * n_classes).reshape(shape), asked


def plain_balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> float:
    """Balanced accuracy without an interval; parameters as in :func:`balanced_accuracy`.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices.
    n_classes : int
        Number of classes.
    """
    hits, asked = _class_counts(truth, predicted, n_classes, np.zeros(len(truth), dtype=int), 1)
    return float(mean_recall(hits[0], asked[0]))


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, n_classes: int,
                      seed: int = 0) -> Score:
    """Balanced accuracy with an interval from resampling whole subjects.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is an answer that could not be read, and wrong.
    subjects : ndarray, shape (n,)
        Subject of every window.
    n_classes : int
        Number of classes; chance is one over it.
    seed : int
        Of the interval.
    """
    value, resampled, n_subjects = _resampled(truth, predicted, subjects, n_classes, seed)
    return Score(value, *percentile_interval(resampled, n_subjects), 1.0 / n_classes, len(truth))


def paired_difference(truth: np.ndarray, predicted: np.ndarray, reference: np.ndarray, subjects: np.ndarray,
                      n_classes: int, seed: int = 0) -> tuple[float, float, float]:
    """Difference of two models' balanced accuracies on the same windows, with an interval over subjects.

    Both are scored on the same resampled subjects, so what these have in common cancels.

    Parameters
    ----------
    truth, predicted, reference : ndarray of int, shape (n,)
        Class indices, of both models.
    subjects, n_classes, seed
        As in :func:`balanced_accuracy`.

    Returns
    -------
    tuple of float
        ``predicted`` minus ``reference``, low, high; with one subject the interval is -1 to 1.
    """
    one, first, n_subjects = _resampled(truth, predicted, subjects, n_classes, seed)
    other, second, _ = _resampled(truth, reference, subjects, n_classes, seed)
    return one - other, *percentile_interval(first - second, n_subjects, (-1.0, 1.0))


def _resampled(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, n_classes: int,
               seed: int) -> tuple[float, np.ndarray, int]:
    """Balanced accuracy, its value in every bootstrap sample, and the number of subjects."""
    codes, draws = resample_subjects(subjects, seed)
    hits, asked = _class_counts(truth, predicted, n_classes, codes, draws.shape[1])
    return float(mean_recall(hits.sum(0), asked.sum(0))), mean_recall(draws @ hits, draws @ asked), draws.shape[1]


def crossed_interval(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, clips: np.ndarray, n_classes: int,
                     seed: int = 0) -> Score:
    """Balanced accuracy with an interval from resampling whole subjects and whole clips.

    The pigeonhole bootstrap: subjects and clips are drawn independently with replacement, and a window counts as often
    as its subject times as often as its clip. The interval holds for other subjects who see other clips, that of
    :func:`balanced_accuracy` for other subjects who see these clips. No bootstrap of crossed effects is exact; this one
    errs to the wide side. Percentiles are expanded for the smaller number of clusters.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is wrong.
    subjects, clips : ndarray, shape (n,)
        Subject and clip of every window; a clip keeps its name across subjects. One of either gives an interval from 0
        to 1.
    n_classes : int
        Number of classes; chance is one over it.
    seed : int
        Of the interval.

    References
    ----------
    Owen 2007, Ann. Appl. Stat. 1:386.
    """
    truth, predicted, subjects, clips = checked_classes(n_classes, truth, predicted, subjects, clips)
    people, people_drawn = resample_subjects(subjects, seed)
    films, films_drawn = resample_subjects(clips, [seed, 1])  # another stream: equal numbers must not be drawn alike
    shape = people_drawn.shape[1], films_drawn.shape[1]
    hits, asked = (counts.T.reshape(n_classes, *shape) for counts in
                   _class_counts(truth, predicted, n_classes, people * shape[1] + films, shape[0] * shape[1]))
    drawn = [np.stack([np.einsum("bp,bp->b", people_drawn @ grid.astype(float), films_drawn) for grid in counts],
                      axis=1)
             for counts in (hits, asked)]
    value = float(mean_recall(hits.sum(axis=(1, 2)), asked.sum(axis=(1, 2))))
    return Score(value, *percentile_interval(mean_recall(*drawn), min(shape)), 1.0 / n_classes, len(truth))


def crossed(subjects: np.ndarray, clips: np.ndarray) -> bool:
    """Whether two people share a clip; else clips lie within people, and resampling people resamples them too.

    Parameters
    ----------
    subjects, clips : ndarray, shape (n,)
        Of every window.
    """
    return bool((pd.Series(np.asarray(subjects)).groupby(np.asarray(clips)).nunique() > 1).any())


def score_row(name: str, truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, clips: np.ndarray,
              n_classes: int, seed: int = 0, **more: object) -> dict:
    """Row of a table of scores: balanced accuracy with both of its intervals.

    Parameters
    ----------
    name : str
        What was scored.
    truth, predicted, subjects, clips, n_classes, seed
        As in :func:`crossed_interval`.
    **more
        Further columns.

    Returns
    -------
    dict
        Columns of :meth:`Score.row` (``low`` and ``high`` over subjects), and where people share clips ``clips low``
        and ``clips high`` (over subjects and clips).
    """
    row = balanced_accuracy(truth, predicted, subjects, n_classes, seed).row(name, **more)
    if not crossed(subjects, clips):
        return row
    wide = crossed_interval(truth, predicted, subjects, clips, n_classes, seed)
    return row | {"clips low": wide.low, "clips high": wide.high}


def per_subject(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, n_classes: int) -> pd.DataFrame:
    """Balanced accuracy of every subject over the classes that this subject has, and the number ``n`` of windows.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is wrong.
    subjects : ndarray, shape (n,)
        Subject of every window; the rows, sorted.
    n_classes : int
        Number of classes.
    """
    truth, predicted, subjects = checked_classes(n_classes, truth, predicted, subjects)
    names, codes = np.unique(subjects, return_inverse=True)
    hits, asked = _class_counts(truth, predicted, n_classes, codes, len(names))
    return pd.DataFrame({"balanced_accuracy": mean_recall(hits, asked), "n": asked.sum(axis=1)},
                        index=pd.Index(names, name="subject"))


def classification(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, float]:
    """Cohen's kappa, macro and weighted F1 by scikit-learn.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is wrong.
    n_classes : int
        Number of classes.
    """
    from sklearn.metrics import cohen_kappa_score, f1_score

    f1 = {f"{average}_f1": float(f1_score(truth, predicted, labels=range(n_classes), average=average, zero_division=0))
          for average in ("macro", "weighted")}
    return {"kappa": float(cohen_kappa_score(truth, predicted)), **f1}


def confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Confusion matrix, shape (n_classes, n_classes); rows are the truth.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices.
    n_classes : int
        Number of classes.
    """
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(truth, predicted, labels=list(range(n_classes)))


# ---------------------------------------------------------------- probabilities


def _as_distributions(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, k) in double precision, and truth; ValueError if rows are negative or do not sum to one."""
    probabilities = np.asarray(probabilities, dtype=float)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"Probabilities must have shape (n, k) with k of two or more, not {probabilities.shape}.")
    # Float32 passes, NaN not
    wrong = ~((probabilities >= 0).all(axis=1) & (abs(probabilities.sum(axis=1) - 1) <= 1e-5))
    if wrong.any():
        raise ValueError(f"{wrong.sum()} rows, the first of them {np.flatnonzero(wrong)[0]}, are negative somewhere or "
                         "do not sum to one.")
    truth, _ = checked_classes(probabilities.shape[1], truth, probabilities.argmax(axis=1))
    return probabilities / probabilities.sum(axis=1, keepdims=True), truth


@dataclass(frozen=True)
class Confidence:
    """What calibration is made of, one entry a window; arrays of shape (n,)."""

    sure: np.ndarray  # probability of the most probable class
    right: np.ndarray  # whether that class is the true one
    bin: np.ndarray  # which of equal bins, closed on the right, the probability is in
    squared_error: np.ndarray  # of the probabilities, summed over classes

    @classmethod
    def of(cls, probabilities: np.ndarray, truth: np.ndarray, n_bins: int = N_BINS) -> Confidence:
        """From probabilities that sum to one.

        Parameters
        ----------
        probabilities : ndarray, shape (n, k)
            One row a window; ValueError if rows are negative or do not sum to one.
        truth : ndarray of int, shape (n,)
            Class indices.
        n_bins : int
            Number of bins.
        """
        probabilities, truth = _as_distributions(probabilities, truth)
        sure = probabilities.max(axis=1)
        inside = np.digitize(sure, np.linspace(0, 1, n_bins + 1)[1:-1], right=True)
        squared = ((np.eye(probabilities.shape[1])[truth] - probabilities) ** 2).sum(axis=1)
        return cls(sure, probabilities.argmax(axis=1) == truth, inside, squared)


def calibration_error(accuracy: np.ndarray, confidence: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Expected calibration error: mean gap of accuracy and confidence over bins, weighted by their windows.

    Parameters
    ----------
    accuracy, confidence, n : ndarray, shape (..., n_bins)
        Of each bin; an empty bin may hold NaN.

    References
    ----------
    Naeini, Cooper & Hauskrecht 2015, AAAI; Guo et al. 2017, ICML.
    """
    gap = np.where(n > 0, np.abs(accuracy - confidence), 0.0)
    return ratio((gap * n).sum(axis=-1), n.sum(axis=-1))


def reliability(probabilities: np.ndarray, truth: np.ndarray, n_bins: int = N_BINS) -> pd.DataFrame:
    """Confidence in the most probable class and how often it is right, in equal bins closed on the right.

    Parameters
    ----------
    probabilities : ndarray, shape (n, k)
        One row a window, summing to one.
    truth : ndarray of int, shape (n,)
        Class indices.
    n_bins : int
        Rows of the result.

    Returns
    -------
    DataFrame
        ``low``, ``high``, mean ``confidence``, ``accuracy`` and ``n`` of each bin, NaN where an empty bin has none.

    Raises
    ------
    ValueError
        If rows do not sum to one.

    References
    ----------
    Guo et al. 2017, ICML.
    """
    found, edges = Confidence.of(probabilities, truth, n_bins), np.linspace(0, 1, n_bins + 1)
    windows = pd.DataFrame({"confidence": found.sure, "accuracy": found.right.astype(float)}).groupby(found.bin)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:]}).join(windows.mean())
    return table.assign(n=windows.size().reindex(table.index, fill_value=0))


def calibration(probabilities: np.ndarray, truth: np.ndarray, n_bins: int = N_BINS) -> dict[str, float]:
    """Whether probabilities agree with how often they are right.

    Parameters
    ----------
    probabilities : ndarray, shape (n, k)
        One row a window, summing to one, or :func:`reliability` raises a ValueError.
    truth : ndarray of int, shape (n,)
        Class indices.
    n_bins : int
        Of confidence.

    Returns
    -------
    dict
        ``expected_calibration_error`` of the most probable class, above zero by chance when bins hold few windows;
        ``brier``, mean over windows of the squared error summed over classes, 0 to 2; ``log_loss`` in nats, finite as
        scikit-learn lifts zeros to the epsilon.

    References
    ----------
    Brier 1950, Mon. Weather Rev. 78:1; see also :func:`calibration_error`.
    """
    bins = reliability(probabilities, truth, n_bins).query("n > 0")
    error = float(calibration_error(*(bins[column].to_numpy() for column in ("accuracy", "confidence", "n"))))
    brier = float(Confidence.of(probabilities, truth, n_bins).squared_error.mean())
    probabilities, truth = _as_distributions(probabilities, truth)
    from sklearn.metrics import log_loss

    loss = float(log_loss(truth, probabilities, labels=list(range(probabilities.shape[1]))))
    return {"expected_calibration_error": error, "log_loss": loss, "brier": brier}


# ---------------------------------------------------------------- tests


def holm(p: np.ndarray) -> np.ndarray:
    """P values adjusted for their number by Holm's step-down method, shape (m,).

    References
    ----------
    Holm 1979, Scand. J. Stat. 6:65.
    """
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    return np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)[np.argsort(order)]


def compare_models(per_subject_scores: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Wilcoxon signed-rank tests of every model against a reference, paired by subject.

    Differences of zero are ranked but their ranks dropped, so many of them weaken the evidence; equal differences share
    their mean rank. The p value is two-sided and exact up to 50 subjects, with zeros or ties up to 13; otherwise
    normal, corrected for both. If all are zero, p is 1. Below six subjects no p reaches 0.05.

    Parameters
    ----------
    per_subject_scores : DataFrame, shape (n_subjects, n_models)
        Scores, one row a subject and one column a model.
    reference : str
        Column that the others are compared with.

    Returns
    -------
    DataFrame, shape (n_models - 1, 4)
        ``median_difference`` (median of model minus reference), ``n`` subjects, ``p``, and ``p_holm`` corrected by
        :func:`holm`.

    Raises
    ------
    ValueError
        If the reference or any other model is missing, a name occurs twice, or a score is not finite.

    References
    ----------
    Wilcoxon 1945, Biometrics 1:80; Pratt 1959, J. Am. Stat. Assoc. 54:655.
    """
    names = per_subject_scores.columns
    if reference not in names or len(names) < 2 or not names.is_unique or not per_subject_scores.index.is_unique:
        raise ValueError(f"Expected different subjects, and '{reference}' and another model as different columns, not "
                         f"{list(names)}.")
    bad = np.argwhere(~np.isfinite(per_subject_scores.to_numpy(dtype=float)))
    if len(bad):
        raise ValueError(f"Subject {per_subject_scores.index[bad[0, 0]]} has no finite score of model "
                         f"{names[bad[0, 1]]}; {len(bad)} such in all.")
    rows = {}
    for name in names.drop(reference):
        # rounded, because 0.3 - 0.2 and 0.2 - 0.1 are ties but not the same float
        difference = (per_subject_scores[name] - per_subject_scores[reference]).to_numpy(dtype=float).round(12)
        p = float(scipy.stats.wilcoxon(difference, zero_method="pratt").pvalue) if difference.any() else 1.0
        rows[name] = {"median_difference": float(np.median(difference)), "n": len(difference), "p": p}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return table.assign(p_holm=holm(table["p"]))


def label_permutation(score: Callable[[np.ndarray], float], labels: np.ndarray, subjects: np.ndarray, clips: np.ndarray,
                      n: int = 1000, seed: int = 0, shared: bool = False) -> dict[str, float]:
    """Permutation test of a score against labels that are permuted among clips.

    Labels move between whole clips of one subject, or, if clips are ``shared``, between the clips of all. Windows must
    not be permuted singly: those of a clip share their label and much of their signal, so a model answers them alike,
    right or wrong together. Shuffled singly, each would count as evidence of its own, the null would be too narrow, and
    p far too small. If a model answers a clip alike in all subjects whatever its emotion (its sound or light in the
    EEG), the answers of subjects are not independent, and permuting each subject independently makes p too small. With
    ``shared`` a clip keeps one label for all subjects: p is right then too, and weaker, as there are no more clips than
    that.

    Parameters
    ----------
    score : callable
        Takes labels, ndarray of shape (n_windows,), to a number, higher for better; usually compares them with fixed
        predictions.
    labels, subjects, clips : ndarray, shape (n_windows,)
        Label, subject and clip of every window; clips may differ in length.
    n, seed : int
        Number of permutations, and their seed.
    shared : bool
        Whether all subjects saw the same clips and their labels are permuted as one.

    Returns
    -------
    dict
        Observed ``value``, ``null_mean``, ``null_sd`` and one-sided ``p``: of the ``n`` permutations and the data
        themselves, the share that scores no less than the data.

    Raises
    ------
    ValueError
        If a clip of a subject (if shared: of anybody) has two labels, no subject has two labels, something is NaN, or a
        score is not finite.

    References
    ----------
    Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39.
    """
    labels, subjects, clips = (np.asarray(values) for values in (labels, subjects, clips))
    if n < 2:
        raise ValueError(f"Two or more permutations are wanted, not {n}.")
    frame = pd.DataFrame({"label": labels, "subject": subjects, "clip": clips})  # refuses arrays of different lengths
    if shared and not frame["subject"].isna().any():
        frame["subject"] = "all"
    by_clip = frame.groupby(["subject", "clip"])
    if frame.isna().any(axis=None) or (by_clip["label"].nunique() > 1).any():
        raise ValueError(f"A clip of {'somebody' if shared else 'a subject'} has two labels, or something is NaN.")
    if frame.groupby("subject")["label"].nunique().max() < 2:
        raise ValueError("No subject has clips of two labels, so there is nothing to permute.")
    of_window = by_clip.ngroup().to_numpy()
    first = np.unique(of_window, return_index=True)[1]  # a window of every clip; clips sorted by subject, as by lexsort
    own, codes = labels[first], frame.groupby("subject").ngroup().to_numpy()[first]
    rng = np.random.default_rng(seed)
    null = np.array([score(own[np.lexsort((rng.random(len(own)), codes))][of_window]) for _ in range(n)], dtype=float)
    value = float(score(labels))
    if not np.isfinite([value, *null]).all():
        raise ValueError("The score is not finite for some order of the labels.")
    return {"value": value, "null_mean": float(null.mean()), "null_sd": float(null.std(ddof=1)),
            "p": float((1 + np.sum(null >= value - ROUNDING)) / (n + 1))}


def over_seeds(scores: dict[int, Score]) -> dict[str, float]:
    """How much a score depends on the seed: mean, standard deviation (n - 1), smallest and largest.

    This is the spread of training, not of subjects: no interval for other subjects.

    Raises
    ------
    ValueError
        For fewer than three seeds.
    """
    if len(scores) < 3:
        raise ValueError(f"At least three seeds are wanted to judge their spread, not {len(scores)}: train with more "
                         "seeds.")
    values = np.array([score.value for score in scores.values()])
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1)), "min": float(values.min()),
            "max": float(values.max())}
