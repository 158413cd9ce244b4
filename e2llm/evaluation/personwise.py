"""Measures made of sums over people: one set of resampled people serves scores, differences of models and trends alike.

Accuracy, kappa, calibration and agreement are functions of counts: so many windows asked, so many right. Counts of people add up. Whoever
keeps them (a row of numbers a person) can draw people with replacement and work out any of these measures again, for several
models on the same draws, so that what these people have in common cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import page_trend_test

from .metrics import Score, percentile_interval, resample_subjects
from .statistics import as_distributions, checked_classes, holm

N_BINS = 10  # of the calibration error


def _summed(rows: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of numbers (n, k), added up over each person."""
    names, codes = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, codes, rows)
    return dict(zip(names.tolist(), sums, strict=True))


def confusion_sums(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray, n_classes: int) -> dict[str, np.ndarray]:
    """Confusion matrix of each person, flat, (n_classes²,): class indices of shape (n,), rows are the truth."""
    truth, predicted, subjects = checked_classes(n_classes, truth, predicted, subjects)
    if predicted.min() < 0:
        raise ValueError("An answer that could not be read has no column in a confusion matrix: give it a class of its own.")
    return _summed(np.eye(n_classes**2)[truth * n_classes + predicted], subjects)


def confidence_sums(probabilities: np.ndarray, truth: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """What calibration needs of each person: right, confidence and windows in every bin, and the sum of squared errors.

    ``probabilities`` have shape (n, k); bins and errors are those of :func:`e2llm.evaluation.statistics.calibration`.
    """
    probabilities, truth = as_distributions(probabilities, truth)
    sure, k = probabilities.max(axis=1), probabilities.shape[1]
    right = probabilities.argmax(axis=1) == truth
    inside = np.eye(N_BINS)[np.digitize(sure, np.linspace(0, 1, N_BINS + 1)[1:-1], right=True)]
    squared = ((probabilities - np.eye(k)[truth]) ** 2).sum(axis=1)
    return _summed(np.column_stack([inside * right[:, None], inside * sure[:, None], inside, squared]), subjects)


def ratio_sums(hits: np.ndarray, chance: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Hits, hits expected by chance, and items of each person; all of shape (n,)."""
    return _summed(np.column_stack([hits, chance, np.ones(len(hits))]).astype(float), subjects)


def agreement_sums(answers: np.ndarray, subjects: np.ndarray, n_classes: int) -> dict[str, np.ndarray]:
    """What Fleiss' kappa needs of each person: summed agreement of pairs of raters, windows, and answers of each class.

    Parameters
    ----------
    answers : ndarray of int, shape (n_windows, n_raters)
        What each rater (a wording, a model) answered to each window.
    """
    answers = np.asarray(answers)
    if answers.ndim != 2 or answers.shape[1] < 2:
        raise ValueError(f"Agreement needs two or more answers to every window, got an array of shape {answers.shape}.")
    checked_classes(n_classes, answers.ravel(), answers.ravel())
    n_raters, given = answers.shape[1], np.eye(n_classes)[answers].sum(axis=1)
    agreed = ((given**2).sum(axis=1) - n_raters) / (n_raters * (n_raters - 1))
    return _summed(np.column_stack([agreed, np.ones(len(given)), given]), subjects)


# --- from sums (…, k) to measures (…)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 1e-12, above / below, np.nan)


def _matrix(sums: np.ndarray) -> np.ndarray:
    side = round(np.sqrt(sums.shape[-1]))
    return sums.reshape(*sums.shape[:-1], side, side)


def balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that occur."""
    matrix = _matrix(sums)
    recall = _ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))
    return _ratio(np.nansum(recall, axis=-1), (~np.isnan(recall)).sum(axis=-1))


def kappa(sums: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960, Educ. Psychol. Meas. 20:37); NaN if all is one class for both."""
    matrix = _matrix(sums)
    share = _ratio(matrix, matrix.sum(axis=(-2, -1), keepdims=True))
    seen = np.trace(share, axis1=-2, axis2=-1)
    expected = (share.sum(axis=-1) * share.sum(axis=-2)).sum(axis=-1)
    return _ratio(seen - expected, 1 - expected)


def calibration_error(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error of the most probable class (Guo et al. 2017, ICML)."""
    right, sure, n = np.moveaxis(sums[..., :-1].reshape(*sums.shape[:-1], 3, N_BINS), -2, 0)
    return _ratio(np.abs(right - sure).sum(axis=-1), n.sum(axis=-1))


def brier(sums: np.ndarray) -> np.ndarray:
    """Mean squared error of the probabilities summed over classes, 0 to 2 (Brier 1950, Mon. Weather Rev. 78:1)."""
    return _ratio(sums[..., -1], sums[..., 2 * N_BINS : 3 * N_BINS].sum(axis=-1))


def rate(sums: np.ndarray) -> np.ndarray:
    """Share of hits; of several kinds of items one after the other, the plain mean of their shares."""
    kinds = sums.reshape(*sums.shape[:-1], -1, 3)
    return _ratio(kinds[..., 0], kinds[..., 2]).mean(axis=-1)


def expected_rate(sums: np.ndarray) -> np.ndarray:
    """What :func:`rate` would be by chance."""
    kinds = sums.reshape(*sums.shape[:-1], -1, 3)
    return _ratio(kinds[..., 1], kinds[..., 2]).mean(axis=-1)


def fleiss_kappa(sums: np.ndarray) -> np.ndarray:
    """Agreement of several raters beyond what their shares of answers give by chance (Fleiss 1971, Psychol. Bull. 76:378).

    1: always the same answer to a window; 0: as often as answers drawn from the pool of all answers; NaN if all answers are one class.
    """
    agreed, given = _ratio(sums[..., 0], sums[..., 1]), sums[..., 2:]
    expected = (_ratio(given, given.sum(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return _ratio(agreed - expected, 1 - expected)


class Measure(NamedTuple):
    """A measure of the sums called ``statistic``, its chance level worked out of the same sums, and which way is better."""

    statistic: str
    value: Callable[[np.ndarray], np.ndarray]
    chance: Callable[[np.ndarray], np.ndarray]
    falls: bool = False  # less is better


def _none(sums: np.ndarray) -> np.ndarray:
    return np.full(sums.shape[:-1], np.nan)


def _zero(sums: np.ndarray) -> np.ndarray:
    return np.zeros(sums.shape[:-1])


def _one_of_the_classes(sums: np.ndarray) -> np.ndarray:
    return np.full(sums.shape[:-1], sums.shape[-1] ** -0.5)


MEASURES = {
    "accuracy": Measure("answers", balanced_accuracy, _one_of_the_classes),
    "kappa": Measure("answers", kappa, _zero),
    "calibration error": Measure("confidence", calibration_error, _none, falls=True),
    "Brier score": Measure("confidence", brier, _none, falls=True),
    "zero-shot": Measure("zero_shot", rate, expected_rate),
    "zero_predict": Measure("zero_predict", rate, expected_rate),
    "zero_match": Measure("zero_match", rate, expected_rate),
    "zero_choose": Measure("zero_choose", rate, expected_rate),
    "claim precision": Measure("claims", rate, expected_rate),
    "parse rate": Measure("parsed", rate, _none),
    "agreement, all wordings": Measure("wordings", fleiss_kappa, _zero),
    "agreement, unseen wordings": Measure("unseen wordings", fleiss_kappa, _zero),
    "agreement, thought and direct": Measure("thought", kappa, _zero),
    "agreement, seeds": Measure("seeds", fleiss_kappa, _zero),
}


class Drawn(NamedTuple):
    """A measure of one model: its value, and that of every bootstrap sample of people."""

    value: float
    resampled: np.ndarray  # (n_bootstrap,)
    chance: float
    people: np.ndarray  # (n_people,) the measure of each person alone

    def score(self) -> Score:
        """With the interval over people; ``n`` counts them."""
        return Score(self.value, *interval(self.resampled, len(self.people)), self.chance, len(self.people))


def interval(resampled: np.ndarray, n_people: int) -> tuple[float, float]:
    """95 % interval over people of a resampled number; NaN for one person, who says nothing of others."""
    known = resampled[~np.isnan(resampled)]
    return percentile_interval(known, n_people) if n_people > 1 and len(known) else (float("nan"), float("nan"))


def draw(measure: Measure, sums: Sequence[np.ndarray], seed: int = 0) -> Drawn:
    """A measure on resampled people; of a model trained with several seeds, the mean of the measure over them.

    Parameters
    ----------
    measure : Measure
        One of :data:`MEASURES`.
    sums : sequence of ndarray, each (n_people, k)
        One array a training seed; the same people in the same order.
    seed : int
        Of the draws: equal seeds draw equal people, so that results of several models can be subtracted.
    """
    _, draws = resample_subjects(np.arange(len(sums[0])), seed)
    mean = [np.mean([measure.value(given) for given in each], axis=0)
            for each in ([one.sum(axis=0) for one in sums], [draws @ one for one in sums], sums)]
    return Drawn(float(mean[0]), mean[1], float(np.mean([measure.chance(one.sum(axis=0)) for one in sums])), mean[2])


# --- tables of people over several models

PEOPLE = ("rung", "parameters", "origin", "seed", "statistic", "source", "subject", "sums")  # columns of a table of people


def as_text(sums: np.ndarray) -> str:
    """Sums as they stand in a table of people."""
    return " ".join(f"{value:.8g}" for value in sums)


def drawn(people: pd.DataFrame, measure: str, source: str = "EEG", seed: int = 0) -> dict[str, Drawn]:
    """A measure of every rung that has it, smallest first, on the same resampled people.

    Parameters
    ----------
    people : DataFrame
        With the columns :data:`PEOPLE`: one row a rung, training seed, statistic, source of EEG and person; ``sums`` by :func:`as_text`,
        ``origin`` "scratch" or "pretrained".
    measure, source, seed
        Of :data:`MEASURES`; whose answers; of the draws.

    Raises
    ------
    ValueError
        If a rung was not tested on all the people of the others: pairing would compare different things.
    """
    wanted, everybody = MEASURES[measure].statistic, sorted(people["subject"].astype(str).unique())
    for (size, number), own in people[people["statistic"] == "answers"].groupby(["rung", "seed"]):
        if lost := sorted(set(everybody) - set(own["subject"].astype(str))):
            raise ValueError(f"{size} (seed {number}) was not tested on the people {', '.join(lost)}: compare rungs of one base run.")
    found, asked = {}, people[(people["statistic"] == wanted) & (people["source"] == source)]
    for (_, size), rows in asked.groupby(["parameters", "rung"], sort=True):
        sums = []
        for _, own in rows.groupby("seed"):
            table = {str(who): np.array(text.split(), dtype=float) for who, text in zip(own["subject"], own["sums"], strict=True)}
            nobody = np.zeros_like(next(iter(table.values())))  # a person without an item of this kind
            sums.append(np.stack([table.get(who, nobody) for who in everybody]))
        found[str(size)] = draw(MEASURES[measure], sums, seed)
    return found


def scores(people: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Every measure of every rung and source of EEG, with its interval over people and its chance level, a row each."""
    facts = people.groupby("rung").agg(parameters=("parameters", "first"), origin=("origin", "first"), seeds=("seed", "nunique"))
    found = [{"rung": size, "measure": name, "source": source, **each.score().row("")}
             for name in MEASURES for source in people["source"].unique() for size, each in drawn(people, name, source, seed).items()]
    table = pd.DataFrame(found).rename(columns={"n": "people"}).join(facts, on="rung")
    return table[["rung", "origin", "parameters", "seeds", "measure", "source", "score", "low", "high", "chance", "people"]]


def difference(people: pd.DataFrame, size: str, other: str, seed: int = 0) -> pd.DataFrame:
    """One rung minus another in every measure that both have, paired by person, with its interval over people."""
    rows = []
    for name, measure in MEASURES.items():
        by_size = drawn(people, name, seed=seed)
        if size in by_size and other in by_size:
            low, high = interval(by_size[size].resampled - by_size[other].resampled, len(by_size[size].people))
            rows.append({"measure": name, "difference": by_size[size].value - by_size[other].value, "low": low, "high": high,
                         "better": "less" if measure.falls else "more"})
    if not rows:
        raise ValueError(f"{size!r} and {other!r} have no measure in common; measured are {', '.join(people['rung'].unique())}.")
    return pd.DataFrame(rows)


def trends(people: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Is larger better? Over the rungs made from scratch, which differ in size alone, for every measure that two of them have.

    Returns
    -------
    DataFrame
        ``slope`` for a decade of parameters (least squares over log10 of them), with its interval over people (``low``, ``high``), and which way
        is ``better``. ``p``: Page's test (1963, J. Am. Stat. Assoc. 58:216), one-sided, that people are served the better the larger the
        model, from three rungs on; ``p_holm`` corrected for the number of measures. Both speak of other people, not of other models or seeds.
    """
    scratch, rows = people[people["origin"] == "scratch"], []
    sizes = scratch.drop_duplicates("rung").set_index("rung")["parameters"].astype(float)
    for name, measure in MEASURES.items():
        by_size = drawn(scratch, name, seed=seed)
        if len(by_size) < 2:
            continue
        decades = np.log10(sizes[list(by_size)].to_numpy())
        weights = (decades - decades.mean()) / ((decades - decades.mean()) ** 2).sum()
        of_people = np.stack([each.people for each in by_size.values()], axis=1)
        low, high = interval(weights @ np.stack([each.resampled for each in by_size.values()]), len(of_people))
        slope = float(weights @ [each.value for each in by_size.values()])
        rows.append({"measure": name, "rungs": len(by_size), "slope": slope, "low": low, "high": high,
                     "better": "less" if measure.falls else "more", "p": _page(-of_people if measure.falls else of_people)})
    if not rows:
        raise ValueError("A trend needs two or more rungs made from scratch.")
    table = pd.DataFrame(rows)
    known = table["p"].notna()
    return table.assign(p_holm=pd.Series(holm(table.loc[known, "p"]), table.index[known], dtype=float))


def _page(of_people: np.ndarray) -> float:
    """P value of Page's test on (n_people, n_rungs); NaN with fewer than three rungs or two people."""
    whole = of_people[~np.isnan(of_people).any(axis=1)].round(12)  # equal ratios must tie
    return float(page_trend_test(whole).pvalue) if whole.shape[1] > 2 and len(whole) > 1 else float("nan")
