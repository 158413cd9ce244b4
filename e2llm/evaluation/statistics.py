"""Statistics beyond one score: classes, subjects, clips, models, probabilities, permutations and seeds.

Arrays of different lengths, and class indices that do not exist, raise a ValueError everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import wilcoxon
from sklearn.metrics import brier_score_loss, log_loss, precision_recall_fscore_support, recall_score

from .metrics import ROUNDING, Score, balanced_accuracy, percentile_interval, resample_subjects


def checked_classes(n_classes: int, truth: np.ndarray, predicted: np.ndarray, *groups: np.ndarray) -> tuple[np.ndarray, ...]:
    """Arrays of one length whose class indices exist; ValueError says what is wrong."""
    arrays = tuple(np.asarray(values) for values in (truth, predicted, *groups))
    lengths = [len(values) for values in arrays]
    if not lengths[0] or len(set(lengths)) > 1:
        raise ValueError(f"The arrays must have one length above zero, not {lengths}.")
    for name, values, lowest in zip(("truth", "predicted"), arrays[:2], (0, -1), strict=True):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < lowest or values.max() >= n_classes:
            raise ValueError(f"'{name}' must hold whole numbers from {lowest} to {n_classes - 1}.")
    return arrays


def per_class(truth: np.ndarray, predicted: np.ndarray, n_classes: int, labels: Sequence[str]) -> pd.DataFrame:
    """Precision, recall, F1 and support of every class, by scikit-learn.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is an answer that could not be read: it lowers recall and nobody's precision.
    labels : sequence of str, length n_classes
        Names of the classes, the rows. What is undefined is NaN: recall of a class nobody asked about, precision of one never answered.
    """
    truth, predicted = checked_classes(n_classes, truth, predicted)
    columns = precision_recall_fscore_support(truth, predicted, labels=range(n_classes), zero_division=np.nan)
    return pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), columns, strict=True)), index=pd.Index(labels, name="class"))


def per_subject(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, n_classes: int) -> pd.DataFrame:
    """Balanced accuracy of every subject over the classes that this subject has, and the number ``n`` of windows.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is wrong.
    owners : ndarray, shape (n,)
        Subject of every window; the rows, sorted.
    """
    truth, predicted, subjects = checked_classes(n_classes, truth, predicted, subjects)
    rows = {}
    for name in np.unique(subjects):
        own = subjects == name
        rows[name] = recall_score(truth[own], predicted[own], labels=np.unique(truth[own]), average="macro"), int(own.sum())
    return pd.DataFrame.from_dict(rows, orient="index", columns=["balanced_accuracy", "n"]).rename_axis("subject")


def clustered_interval(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, clips: np.ndarray, n_classes: int, seed: int = 0) -> Score:
    """Balanced accuracy with an interval from resampling whole people and whole clips.

    The pigeonhole bootstrap (Owen 2007, Ann. Appl. Stat. 1:386): people and clips are drawn independently with
    replacement, and a window counts as often as its person times as often as its clip. It speaks of other people who see
    other clips, :func:`e2llm.evaluation.metrics.balanced_accuracy` of other people who see these clips. No bootstrap of crossed
    effects is exact; this one errs to the wide side. Percentiles are expanded for the smaller number of clusters.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices; -1 in ``predicted`` is wrong.
    owners, clips : ndarray, shape (n,)
        Subject and clip of every window; a clip keeps its name across subjects. One of either gives an interval from 0 to 1.
    """
    truth, predicted, subjects, clips = checked_classes(n_classes, truth, predicted, subjects, clips)
    people, people_drawn = resample_subjects(subjects, seed)
    films, films_drawn = resample_subjects(clips, [seed, 1])  # another stream: equal numbers must not be drawn alike
    shape = people_drawn.shape[1], films_drawn.shape[1]
    cell, recalls, resampled = people * shape[1] + films, [], []
    for label in np.unique(truth):
        asks = truth == label
        asked, right = (np.bincount(cell, rows, np.prod(shape)).reshape(shape) for rows in (asks, asks & (predicted == label)))
        recalls.append(right.sum() / asked.sum())
        with np.errstate(invalid="ignore"):  # a sample may have drawn no window of this class: it averages over the others
            resampled.append(np.divide(*(np.einsum("bp,bp->b", people_drawn @ grid, films_drawn) for grid in (right, asked))))
    resampled = np.stack(resampled, axis=1)
    resampled = np.nanmean(resampled[~np.isnan(resampled).all(axis=1)], axis=1)
    return Score(float(np.mean(recalls)), *percentile_interval(resampled, min(shape)), 1.0 / n_classes, len(truth))


def scored(name: str, truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, clips: np.ndarray, n_classes: int, seed: int = 0,
           **more: object) -> dict:
    """Row of a table of scores: balanced accuracy with its interval over people (``low``, ``high``) and over people and clips
    (``clips low``, ``clips high``); parameters as in :func:`clustered_interval`, ``more`` are further columns."""
    wide = clustered_interval(truth, predicted, subjects, clips, n_classes, seed)
    row = balanced_accuracy(truth, predicted, subjects, n_classes, seed).row(name, **more)
    return row | {"clips low": wide.low, "clips high": wide.high}


def holm(p: np.ndarray) -> np.ndarray:
    """P values adjusted for their number by Holm's step-down method (1979, Scand. J. Stat. 6:65), shape (m,)."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)
    return np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)[np.argsort(order)]


def compare_models(per_subject_scores: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Wilcoxon signed-rank tests (1945, Biometrics 1:80) of every model against a reference, paired by subject.

    Differences of zero are ranked but their ranks dropped (Pratt 1959, J. Am. Stat. Assoc. 54:655), so many of them weaken
    the evidence; equal differences share their mean rank. The p value is two-sided and exact up to 50 subjects, with zeros
    or ties up to 13; otherwise normal, corrected for both. If all are zero, p is 1. Below six subjects no p reaches 0.05.

    Parameters
    ----------
    per_subject_scores : DataFrame, shape (n_subjects, n_models)
        Scores, one row a subject and one column a model; the others are compared with the column ``reference``.

    Returns
    -------
    DataFrame, shape (n_models - 1, 4)
        ``median_difference`` (median of model minus reference), ``n`` subjects, ``p``, and ``p_holm`` corrected by :func:`holm`.

    Raises
    ------
    ValueError
        If the reference or a rival is missing, a name occurs twice, or a score is not finite.
    """
    names = per_subject_scores.columns
    if reference not in names or len(names) < 2 or not names.is_unique or not per_subject_scores.index.is_unique:
        raise ValueError(f"Expected different subjects, and '{reference}' and another model as different columns, not {list(names)}.")
    bad = np.argwhere(~np.isfinite(per_subject_scores.to_numpy(dtype=float)))
    if len(bad):
        raise ValueError(f"Subject {per_subject_scores.index[bad[0, 0]]} has no finite score of model {names[bad[0, 1]]}; {len(bad)} such in all.")
    rows = {}
    for name in names.drop(reference):
        # rounded, because 0.3 - 0.2 and 0.2 - 0.1 are ties but not the same float
        difference = (per_subject_scores[name] - per_subject_scores[reference]).to_numpy(dtype=float).round(12)
        p = float(wilcoxon(difference, zero_method="pratt").pvalue) if difference.any() else 1.0
        rows[name] = {"median_difference": float(np.median(difference)), "n": len(difference), "p": p}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return table.assign(p_holm=holm(table["p"]))


def as_distributions(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, k) in double precision, and truth; ValueError if rows are no distributions."""
    probabilities = np.asarray(probabilities, dtype=float)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"Probabilities must have shape (n, k) with k of two or more, not {probabilities.shape}.")
    wrong = ~((probabilities >= 0).all(axis=1) & (abs(probabilities.sum(axis=1) - 1) <= 1e-5))  # passes float32, but no NaN
    if wrong.any():
        raise ValueError(f"{wrong.sum()} rows, the first of them {np.flatnonzero(wrong)[0]}, are negative somewhere or do not sum to one.")
    truth, _ = checked_classes(probabilities.shape[1], truth, probabilities.argmax(axis=1))
    return probabilities / probabilities.sum(axis=1, keepdims=True), truth


def reliability(probabilities: np.ndarray, truth: np.ndarray, n_bins: int = 10) -> pd.DataFrame:
    """Confidence in the most probable class and how often it is right, in equal bins closed on the right (Guo et al. 2017, ICML).

    Parameters
    ----------
    probabilities, truth : ndarray, shape (n, k), and ndarray of int, shape (n,)
        One row a window, summing to one, and class indices.
    n_bins : int
        Rows of the result: ``low``, ``high``, mean ``confidence``, ``accuracy`` and ``n``, NaN where an empty bin has none.

    Raises
    ------
    ValueError
        If rows do not sum to one.
    """
    probabilities, truth = as_distributions(probabilities, truth)
    edges = np.linspace(0, 1, n_bins + 1)
    confidence = probabilities.max(axis=1)
    windows = pd.DataFrame({"confidence": confidence, "accuracy": (probabilities.argmax(axis=1) == truth).astype(float)})
    grouped = windows.groupby(np.digitize(confidence, edges[1:-1], right=True))
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:]}).join(grouped.mean())
    return table.assign(n=grouped.size().reindex(table.index, fill_value=0))


def calibration(probabilities: np.ndarray, truth: np.ndarray, n_bins: int = 10) -> dict[str, float]:
    """Whether probabilities mean what they say. Parameters and errors are those of :func:`reliability`.

    Returns
    -------
    dict
        ``expected_calibration_error`` of the most probable class over equal-width bins (Naeini et al. 2015, AAAI; Guo et al. 2017,
        ICML), above zero by chance when bins hold few windows; ``brier`` (Brier 1950, Mon. Weather Rev. 78:1), mean over windows
        of the squared error summed over classes, 0 to 2; ``log_loss`` in nats, finite as scikit-learn lifts zeros to the epsilon.
    """
    bins = reliability(probabilities, truth, n_bins).query("n > 0")
    error = float(np.average((bins["accuracy"] - bins["confidence"]).abs(), weights=bins["n"]))
    probabilities, truth = as_distributions(probabilities, truth)
    classes = list(range(probabilities.shape[1]))
    return {"expected_calibration_error": error, "log_loss": float(log_loss(truth, probabilities, labels=classes)),
            "brier": float(brier_score_loss(truth, probabilities, labels=classes, scale_by_half=False))}


def label_permutation(score: Callable[[np.ndarray], float], labels: np.ndarray, subjects: np.ndarray, clips: np.ndarray,
                      n: int = 1000, seed: int = 0, shared: bool = False) -> dict[str, float]:
    """Permutation test of a score against labels that belong to nobody's clips.

    Labels move between whole clips of one subject, or, if clips are ``shared``, between the clips of all. Windows must not be
    permuted singly: those of a clip share their label and much of their signal, so a model answers them alike, right or
    wrong together. Shuffled singly, each would count as evidence of its own, the null would be too narrow, and p far too small.
    If a model answers a clip alike in everybody whatever its emotion (its sound or light in the EEG), subjects repeat one
    piece of luck, and permuting each subject independently makes p too small. With ``shared`` a clip keeps one label for
    everybody: p is right then too, and weaker, as there are no more clips than that.

    Parameters
    ----------
    score : callable
        Takes labels, ndarray of shape (n_windows,), to a number, higher for better; usually compares them with fixed predictions.
    labels, owners, clips : ndarray, shape (n_windows,)
        Label, subject and clip of every window; clips may differ in length.
    n, seed : int
        Number of permutations, and their seed.
    shared : bool
        Whether all subjects saw the same clips and their labels are permuted as one.

    Returns
    -------
    dict
        Observed ``value``, ``null_mean``, ``null_sd`` and one-sided ``p``: of the ``n`` permutations and the data themselves, the share
        that scores no less than the data (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).

    Raises
    ------
    ValueError
        If a clip of a subject (if shared: of anybody) has two labels, no subject has two labels, something is NaN, or a score is
        not finite.
    """
    labels, subjects, clips = (np.asarray(values) for values in (labels, subjects, clips))
    if n < 2:
        raise ValueError(f"Two or more permutations are wanted, not {n}.")
    frame = pd.DataFrame({"label": labels, "owner": subjects, "clip": clips})  # refuses arrays of different lengths
    if shared and not frame["owner"].isna().any():
        frame["owner"] = "everybody"
    by_clip = frame.groupby(["owner", "clip"])
    if frame.isna().any(axis=None) or (by_clip["label"].nunique() > 1).any():
        raise ValueError(f"A clip of {'somebody' if shared else 'a subject'} has two labels, or something is NaN.")
    if frame.groupby("owner")["label"].nunique().max() < 2:
        raise ValueError("No subject has clips of two labels, so there is nothing to permute.")
    of_window = by_clip.ngroup().to_numpy()
    first = np.unique(of_window, return_index=True)[1]  # a window of every clip; clips sorted by owner, as lexsort leaves them
    own, norm_groups = labels[first], frame.groupby("owner").ngroup().to_numpy()[first]
    rng = np.random.default_rng(seed)
    null = np.array([score(own[np.lexsort((rng.random(len(own)), norm_groups))][of_window]) for _ in range(n)], dtype=float)
    value = float(score(labels))
    if not np.isfinite([value, *null]).all():
        raise ValueError("The score is not finite for some order of the labels.")
    return {"value": value, "null_mean": float(null.mean()), "null_sd": float(null.std(ddof=1)),
            "p": float((1 + np.sum(null >= value - ROUNDING)) / (n + 1))}


def over_seeds(scores: dict[int, Score]) -> dict[str, float]:
    """How much a score owes to the seed: mean, standard deviation (n - 1), smallest and largest.

    This is the spread of training, not of people: no interval for other subjects. Fewer than three seeds raise a ValueError.
    """
    if len(scores) < 3:
        raise ValueError(f"At least three seeds are wanted to judge their spread, not {len(scores)}: train with more seeds.")
    values = np.array([score.value for score in scores.values()])
    return {"mean": float(values.mean()), "sd": float(values.std(ddof=1)), "min": float(values.min()), "max": float(values.max())}
