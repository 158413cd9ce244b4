"""Measures made of sums over people: one set of resampled people serves scores, differences of models and trends alike.

Accuracy, kappa, calibration and agreement are functions of counts: so many windows asked, so many right. Counts of
people add up. From them (a row of numbers a person) people can be drawn with replacement and any of these measures
worked out again, for several models on the same draws, so that what these people have in common cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used

from .controls import EEGInput
from .metrics import (
    N_BINS,
    Confidence,
    Score,
    calibration_error,
    checked_classes,
    holm,
    mean_recall,
    percentile_interval,
    ratio,
    resample_subjects,
)

_UNKNOWN = (float("nan"), float("nan"))  # the interval of one person, who gives no information about others


class Statistic(StrEnum):
    """Kinds of sums: what the numbers of a person stand for."""

    ANSWERS = "answers"
    CONFIDENCE = "confidence"
    CLAIMS = "claims"
    PARSED = "parsed"
    THOUGHT = "thought"
    WORDINGS = "wordings"
    UNSEEN_WORDINGS = "unseen wordings"
    SEEDS = "seeds"
    ZERO_SHOT = "zero_shot"
    ZERO_PREDICT = "zero_predict"
    ZERO_MATCH = "zero_match"
    ZERO_CHOOSE = "zero_choose"


def _summed(rows: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of numbers (n, k), added up over each person."""
    names, codes = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, codes, rows)
    return dict(zip(names.tolist(), sums, strict=True))


def confusion_sums(truth: np.ndarray, predicted: np.ndarray, subjects: np.ndarray,
                   n_classes: int) -> dict[str, np.ndarray]:
    """Confusion matrix of each person, flat, shape (n_classes²,); rows are the truth.

    Parameters
    ----------
    truth, predicted : ndarray of int, shape (n,)
        Class indices.
    subjects : ndarray, shape (n,)
        Person of every window.
    n_classes : int
        Number of classes.

    Raises
    ------
    ValueError
        If an answer could not be read (-1).
    """
    truth, predicted, subjects = checked_classes(n_classes, truth, predicted, subjects)
    if predicted.min() < 0:
        raise ValueError("An answer that could not be read has no column in a confusion matrix: give it a class of its "
                         "own.")
    return _summed(np.eye(n_classes**2)[truth * n_classes + predicted], subjects)


def confidence_sums(probabilities: np.ndarray, truth: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """What calibration needs of each person: right, confidence and windows in every bin, and the sum of squared errors.

    Parameters
    ----------
    probabilities, truth
        As in :func:`e2llm.evaluation.metrics.calibration`.
    subjects : ndarray, shape (n,)
        Person of every window.
    """
    found = Confidence.of(probabilities, truth)
    inside = np.eye(N_BINS)[found.bin]
    return _summed(np.column_stack([inside * found.right[:, None], inside * found.sure[:, None], inside,
                                    found.squared_error]), subjects)


def ratio_sums(hits: np.ndarray, chance: np.ndarray, subjects: np.ndarray) -> dict[str, np.ndarray]:
    """Hits, hits expected by chance, and items of each person.

    Parameters
    ----------
    hits, chance, subjects : ndarray, shape (n,)
        Whether each item is a hit, its chance of being one, and its person.
    """
    return _summed(np.column_stack([hits, chance, np.ones(len(hits))]).astype(float), subjects)


def agreement_sums(answers: np.ndarray, subjects: np.ndarray, n_classes: int) -> dict[str, np.ndarray]:
    """What Fleiss' kappa needs of each person: summed agreement of pairs of raters, windows, and answers of each class.

    Parameters
    ----------
    answers : ndarray of int, shape (n_windows, n_raters)
        What each rater (a wording, a model) answered to each window.
    subjects : ndarray, shape (n_windows,)
        Person of every window.
    n_classes : int
        Number of classes.
    """
    answers = np.asarray(answers)
    if answers.ndim != 2 or answers.shape[1] < 2:
        raise ValueError(f"Agreement needs two or more answers to every window, got an array of shape {answers.shape}.")
    checked_classes(n_classes, answers.ravel(), answers.ravel())
    n_raters, given = answers.shape[1], np.eye(n_classes)[answers].sum(axis=1)
    agreed = ((given**2).sum(axis=1) - n_raters) / (n_raters * (n_raters - 1))
    return _summed(np.column_stack([agreed, np.ones(len(given)), given]), subjects)


# ---------------------------------------------------------------- from sums (…, k) to measures (…)


def _matrix(sums: np.ndarray) -> np.ndarray:
    side = round(np.sqrt(sums.shape[-1]))
    return sums.reshape(*sums.shape[:-1], side, side)


def _balanced_accuracy(sums: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that occur."""
    matrix = _matrix(sums)
    return mean_recall(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def _kappa(sums: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960, Educ. Psychol. Meas. 20:37); NaN if all is one class for both."""
    matrix = _matrix(sums)
    share = ratio(matrix, matrix.sum(axis=(-2, -1), keepdims=True))
    seen = np.trace(share, axis1=-2, axis2=-1)
    expected = (share.sum(axis=-1) * share.sum(axis=-2)).sum(axis=-1)
    return ratio(seen - expected, 1 - expected)


def _calibration_error(sums: np.ndarray) -> np.ndarray:
    """Expected calibration error of the most probable class."""
    right, sure, n = np.moveaxis(sums[..., :-1].reshape(*sums.shape[:-1], 3, N_BINS), -2, 0)
    return calibration_error(ratio(right, n), ratio(sure, n), n)


def _brier(sums: np.ndarray) -> np.ndarray:
    """Mean squared error of the probabilities summed over classes, 0 to 2."""
    return ratio(sums[..., -1], sums[..., 2 * N_BINS : 3 * N_BINS].sum(axis=-1))


def _rate(sums: np.ndarray) -> np.ndarray:
    """Share of hits; of several kinds of items one after the other, the plain mean of their shares."""
    kinds = sums.reshape(*sums.shape[:-1], -1, 3)
    return ratio(kinds[..., 0], kinds[..., 2]).mean(axis=-1)


def _expected_rate(sums: np.ndarray) -> np.ndarray:
    """What :func:`_rate` would be by chance."""
    kinds = sums.reshape(*sums.shape[:-1], -1, 3)
    return ratio(kinds[..., 1], kinds[..., 2]).mean(axis=-1)


def fleiss_kappa(sums: np.ndarray) -> np.ndarray:
    """Agreement of several raters beyond what their shares of answers give by chance, from :func:`agreement_sums`.

    1: always the same answer to a window; 0: as often as answers drawn from the pool of all answers; NaN if all answers
    are one class.

    References
    ----------
    Fleiss 1971, Psychol. Bull. 76:378.
    """
    agreed, given = ratio(sums[..., 0], sums[..., 1]), sums[..., 2:]
    expected = (ratio(given, given.sum(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return ratio(agreed - expected, 1 - expected)


class Measure(NamedTuple):
    """A measure of one kind of sums, its chance level worked out of the same sums, and which way is better."""

    statistic: Statistic
    value: Callable[[np.ndarray], np.ndarray]
    chance: Callable[[np.ndarray], np.ndarray]
    less_is_better: bool = False

    @property
    def better(self) -> str:
        """Which way is better, as tables say it."""
        return "less" if self.less_is_better else "more"


def _no_chance(sums: np.ndarray) -> np.ndarray:
    return np.full(sums.shape[:-1], np.nan)


def _zero(sums: np.ndarray) -> np.ndarray:
    return np.zeros(sums.shape[:-1])


def _one_of_the_classes(sums: np.ndarray) -> np.ndarray:
    return np.full(sums.shape[:-1], sums.shape[-1] ** -0.5)


MEASURES = {
    "accuracy": Measure(Statistic.ANSWERS, _balanced_accuracy, _one_of_the_classes),
    "kappa": Measure(Statistic.ANSWERS, _kappa, _zero),
    "calibration error": Measure(Statistic.CONFIDENCE, _calibration_error, _no_chance, less_is_better=True),
    "Brier score": Measure(Statistic.CONFIDENCE, _brier, _no_chance, less_is_better=True),
    "zero-shot": Measure(Statistic.ZERO_SHOT, _rate, _expected_rate),
    "zero_predict": Measure(Statistic.ZERO_PREDICT, _rate, _expected_rate),
    "zero_match": Measure(Statistic.ZERO_MATCH, _rate, _expected_rate),
    "zero_choose": Measure(Statistic.ZERO_CHOOSE, _rate, _expected_rate),
    "claim precision": Measure(Statistic.CLAIMS, _rate, _expected_rate),
    "parse rate": Measure(Statistic.PARSED, _rate, _no_chance),
    "agreement, all wordings": Measure(Statistic.WORDINGS, fleiss_kappa, _zero),
    "agreement, unseen wordings": Measure(Statistic.UNSEEN_WORDINGS, fleiss_kappa, _zero),
    "agreement, thought and direct": Measure(Statistic.THOUGHT, _kappa, _zero),
    "agreement, seeds": Measure(Statistic.SEEDS, fleiss_kappa, _zero),
}


class Drawn(NamedTuple):
    """A measure of one model: its value, and that of every bootstrap sample of people."""

    value: float
    resampled: np.ndarray  # (n_bootstrap,)
    chance: float
    people: np.ndarray  # (n_people,) the measure of each person alone

    def score(self) -> Score:
        """With the interval over people; ``n`` counts them."""
        interval = percentile_interval(self.resampled, len(self.people), _UNKNOWN)
        return Score(self.value, *interval, self.chance, len(self.people))


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
    chance = float(np.mean([measure.chance(one.sum(axis=0)) for one in sums]))
    return Drawn(float(mean[0]), mean[1], chance, mean[2])


# ---------------------------------------------------------------- tables of people over several models

PEOPLE = ("size", "parameters", "origin", "seed", "statistic", "source", "subject", "sums")  # columns of such a table


def as_text(sums: np.ndarray) -> str:
    """Sums as they stand in a table of people."""
    return " ".join(f"{value:.8g}" for value in sums)


def sums_table(found: dict[tuple[Statistic, str], dict[str, np.ndarray]]) -> pd.DataFrame:
    """Sums of every statistic, source of EEG and person as a table: the last four columns of :data:`PEOPLE`."""
    rows = [(*key, subject, as_text(sums)) for key, each in found.items() for subject, sums in each.items()]
    return pd.DataFrame(rows, columns=list(PEOPLE[-4:]))


def drawn(people: pd.DataFrame, measure: str, source: str = EEGInput.EEG, seed: int = 0) -> dict[str, Drawn]:
    """A measure of every model size that has it, smallest first, on the same resampled people.

    Parameters
    ----------
    people : DataFrame
        With the columns :data:`PEOPLE`: one row a model size, training seed, statistic, source of EEG and person;
        ``sums`` by :func:`as_text`, ``origin`` "scratch" or "pretrained".
    measure : str
        Of :data:`MEASURES`.
    source : str
        EEG that was answered about.
    seed : int
        Of the draws.

    Raises
    ------
    ValueError
        If a model was not tested on all the people of the others: pairing would compare different things.
    """
    wanted, everybody = MEASURES[measure].statistic, sorted(people["subject"].astype(str).unique())
    for (size, number), own in people[people["statistic"] == Statistic.ANSWERS].groupby(["size", "seed"]):
        if lost := sorted(set(everybody) - set(own["subject"].astype(str))):
            raise ValueError(f"{size} (seed {number}) was not tested on the people {', '.join(lost)}: compare "
                             "model sizes of one base run.")
    found, asked = {}, people[(people["statistic"] == wanted) & (people["source"] == source)]
    for (_, size), rows in asked.groupby(["parameters", "size"], sort=True):
        sums = []
        for _, own in rows.groupby("seed"):
            table = {str(who): np.array(text.split(), dtype=float)
                     for who, text in zip(own["subject"], own["sums"], strict=True)}
            nobody = np.zeros_like(next(iter(table.values())))  # a person without an item of this kind
            sums.append(np.stack([table.get(who, nobody) for who in everybody]))
        found[str(size)] = draw(MEASURES[measure], sums, seed)
    return found


def scores(people: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Every measure of every model size and source of EEG, with its interval over people and its chance level.

    Parameters
    ----------
    people : DataFrame
        As in :func:`drawn`.
    seed : int
        Of the draws.
    """
    facts = people.groupby("size").agg(parameters=("parameters", "first"), origin=("origin", "first"),
                                       seeds=("seed", "nunique"))
    found = [{"size": size, "measure": name, "source": source, **each.score().row("")} for name in MEASURES
             for source in people["source"].unique() for size, each in drawn(people, name, source, seed).items()]
    table = pd.DataFrame(found).rename(columns={"n": "people"}).join(facts, on="size")
    return table[["size", "origin", "parameters", "seeds", "measure", "source", "score", "low", "high", "chance",
                  "people"]]


def difference(people: pd.DataFrame, size: str, other: str, seed: int = 0) -> pd.DataFrame:
    """One model size minus another in every measure that both have, paired by person, with its interval over people.

    Parameters
    ----------
    people : DataFrame
        As in :func:`drawn`.
    size, other : str
        Names of the two.
    seed : int
        Of the draws.
    """
    rows = []
    for name, measure in MEASURES.items():
        by_size = drawn(people, name, seed=seed)
        if size in by_size and other in by_size:
            one, two = by_size[size], by_size[other]
            low, high = percentile_interval(one.resampled - two.resampled, len(one.people), _UNKNOWN)
            rows.append({"measure": name, "difference": one.value - two.value, "low": low, "high": high,
                         "better": measure.better})
    if not rows:
        raise ValueError(f"{size!r} and {other!r} have no measure in common; measured are "
                         f"{', '.join(people['size'].unique())}.")
    return pd.DataFrame(rows)


def trends(people: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Is larger better? Over the models made from scratch, which differ in size alone, for every measure that two have.

    Parameters
    ----------
    people : DataFrame
        As in :func:`drawn`.
    seed : int
        Of the draws.

    Returns
    -------
    DataFrame
        ``slope`` for a decade of parameters (least squares over log10 of them), with its interval over people (``low``,
        ``high``), and which way is ``better``. ``p``: Page's test, one-sided, that the measure of a person is the
        better the larger the model, from three sizes on; ``p_holm`` corrected for the number of measures. Both hold for
        other people, not for other models or seeds.

    References
    ----------
    Page 1963, J. Am. Stat. Assoc. 58:216.
    """
    scratch, rows = people[people["origin"] == "scratch"], []
    parameters = scratch.drop_duplicates("size").set_index("size")["parameters"].astype(float)
    for name, measure in MEASURES.items():
        by_size = drawn(scratch, name, seed=seed)
        if len(by_size) < 2:
            continue
        decades = np.log10(parameters[list(by_size)].to_numpy())
        weights = (decades - decades.mean()) / ((decades - decades.mean()) ** 2).sum()
        of_people = np.stack([each.people for each in by_size.values()], axis=1)
        resampled = weights @ np.stack([each.resampled for each in by_size.values()])
        low, high = percentile_interval(resampled, len(of_people), _UNKNOWN)
        slope = float(weights @ [each.value for each in by_size.values()])
        rows.append({"measure": name, "sizes": len(by_size), "slope": slope, "low": low, "high": high,
                     "better": measure.better, "p": page_test(-of_people if measure.less_is_better else of_people)})
    if not rows:
        raise ValueError("A trend needs two or more sizes made from scratch.")
    table = pd.DataFrame(rows)
    known = table["p"].notna()
    return table.assign(p_holm=pd.Series(holm(table.loc[known, "p"]), table.index[known], dtype=float))


def page_test(of_people: np.ndarray) -> float:
    """P value of Page's test on (n_people, n_sizes); NaN with fewer than three sizes or two people."""
    whole = of_people[~np.isnan(of_people).any(axis=1)].round(12)  # equal ratios must tie
    return float(scipy.stats.page_trend_test(whole).pvalue) if whole.shape[1] > 2 and len(whole) > 1 else float("nan")


def crossed_accuracy(correct: np.ndarray, chance: np.ndarray, *factors: Sequence[Sequence[str]]) -> Score:
    """Accuracy of items with an interval that counts several crossed sources of luck: people, clips, texts.

    Items that share anything (a person, one of their clips, one of their texts) may be right or wrong together; items
    that share nothing are independent. So the variance of the mean is the sum of the products of the errors of all
    pairs that share something, divided by the share of pairs that share nothing, as the errors add up to zero. It is
    never taken smaller than that of one factor alone. The interval is that of Student's t, whose degrees of freedom
    are one less than the fewest members of a factor.

    The pigeonhole bootstrap of :func:`crossed_interval` would not do here. It counts the luck of the single item
    2^r - 1 times for r factors, and an item has one answer: with people, clips and texts its intervals were 1.2 to 2.8
    times as wide, and held the truth in 98 to 100 of 100 simulated experiments.

    Parameters
    ----------
    correct : ndarray of bool, shape (n,)
        Whether each answer is right.
    chance : ndarray of float, shape (n,)
        One over the number of options of each item.
    *factors : sequence of sequences of str, each of length n
        Which members of a factor every item holds: ``[["ann"], ["ben"], …]``, ``[["clip 1", "clip 7"], …]``. A factor
        of which no item holds any is left out; one member gives an interval from 0 to 1, as does an experiment in
        which all items share something.

    References
    ----------
    Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238 (several factors); Aronow, Samii & Assenova 2015, Polit.
    Anal. 23:564 (several members a factor); Owen 2007, Ann. Appl. Stat. 1:386 (the pigeonhole bootstrap).
    """
    correct = np.asarray(correct, dtype=float)
    value, n = float(correct.mean()), len(correct)
    score = Score(value, 0.0, 1.0, float(np.mean(chance)), n)
    from sklearn.preprocessing import MultiLabelBinarizer

    held = [MultiLabelBinarizer(sparse_output=True).fit_transform(members) for members in factors if any(members)]
    alike = [(member @ member.T).toarray() > 0 for member in held]
    fewest = min(member.shape[1] for member in held)
    pairs = [*alike, np.logical_or.reduce([*alike, np.eye(n, dtype=bool)])]
    if fewest < 2 or pairs[-1].all():
        return score
    error = correct - value
    variance = max(float(error @ together @ error) / n**2 / (1 - together.mean()) for together in pairs)
    half = scipy.stats.t.ppf(0.975, fewest - 1) * np.sqrt(max(variance, 0.0))
    return replace(score, low=max(value - half, 0.0), high=min(value + half, 1.0))
