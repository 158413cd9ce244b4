"""Scores equal those of scikit-learn, and their intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score

from e2llm.evaluation.metrics import Score, accuracy, balanced_accuracy, classification, confusion


def answers(n: int = 300, n_classes: int = 4, share: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray,
                                                                                          np.ndarray]:
    """Truth, answers of which a share is right, and subjects of unequal size."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    predicted = np.where(rng.uniform(size=n) < share, truth, rng.integers(n_classes, size=n))
    subjects = rng.choice(["a", "b", "c", "d", "e"], size=n, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    return truth, predicted, subjects


def test_scores_are_those_of_scikit_learn():
    truth, predicted, subjects = answers()
    score = balanced_accuracy(truth, predicted, subjects, 4)
    assert score.value == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert (score.chance, score.n) == (0.25, 300)
    table = classification(truth, predicted, 4)
    assert table["kappa"] == pytest.approx(cohen_kappa_score(truth, predicted))
    assert table["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert table["weighted_f1"] == pytest.approx(f1_score(truth, predicted, average="weighted"))


def test_scores_by_hand():
    truth, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    assert balanced_accuracy(truth, predicted, np.array(list("aabbab")), 2).value == pytest.approx((3 / 4 + 1 / 2) / 2)
    table = classification(truth, predicted, 2)
    observed, expected = 4 / 6, (4 * 4 + 2 * 2) / 36
    assert table["kappa"] == pytest.approx((observed - expected) / (1 - expected))
    assert table["macro_f1"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert table["weighted_f1"] == pytest.approx((4 * 3 / 4 + 2 * 1 / 2) / 6)
    assert confusion(truth, predicted, 2).tolist() == [[3, 1], [1, 1]]


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_an_unread_answer_is_a_wrong_one():
    truth, predicted, subjects = answers()
    unread = np.where(np.arange(len(truth)) % 7 == 0, -1, predicted)
    wrong = np.where(unread == -1, (truth + 1) % 4, unread)
    score = balanced_accuracy(truth, unread, subjects, 4, seed=3)
    assert score == balanced_accuracy(truth, wrong, subjects, 4, seed=3)
    assert score.value < balanced_accuracy(truth, predicted, subjects, 4).value
    table = classification(truth, unread, 4)
    recalls = [np.mean(unread[truth == c] == c) for c in range(4)]
    precisions = [np.mean(truth[unread == c] == c) for c in range(4)]
    assert table["macro_f1"] == pytest.approx(np.mean([2 * r * p / (r + p)
                                                       for r, p in zip(recalls, precisions, strict=True)]))
    assert table["kappa"] < classification(truth, predicted, 4)["kappa"]


def test_a_class_nobody_asked_about_does_not_count():
    truth, predicted, subjects = answers(n_classes=3)
    score = balanced_accuracy(truth, predicted, subjects, 4)
    assert score.value == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert np.isfinite([score.low, score.high]).all()


def slow_interval(score, subjects: np.ndarray, n: int = 4000, seed: int = 7) -> np.ndarray:
    """Draw whole subjects (twelve) with replacement, put their rows together and score them.

    The tails are those of the expanded percentile interval for twelve: -2.2010 of Student's t with 11 degrees of
    freedom, times the root of 12/11, is the normal quantile of 0.01076.
    """
    rng = np.random.default_rng(seed)
    names = sorted(set(subjects))
    values = []
    for _ in range(n):
        rows = np.concatenate([np.flatnonzero(subjects == who) for who in rng.choice(names, size=len(names))])
        values.append(score(rows))
    return np.quantile(values, [0.01076, 1 - 0.01076])


def test_the_interval_comes_from_resampling_subjects():
    truth, predicted, _ = answers(n=400, share=0.2)
    subjects = np.sort(np.random.default_rng(4).choice(list("abcdefghijkl"), size=400))
    predicted = np.where(np.isin(subjects, list("adfk")) & (np.arange(400) % 3 > 0), truth, predicted)
    score = balanced_accuracy(truth, predicted, subjects, 4)
    expected = slow_interval(lambda rows: np.mean([np.mean(predicted[rows][truth[rows] == c] == c) for c in range(4)]),
                             subjects)
    assert [score.low, score.high] == pytest.approx(expected, abs=0.012)
    assert score.high - score.low > 0.2  # 400 independent windows would give 0.1

    right = truth == predicted
    share = accuracy(right, np.full(400, 0.25), subjects)
    assert share.value == pytest.approx(right.mean())
    assert [share.low, share.high] == pytest.approx(slow_interval(lambda rows: right[rows].mean(), subjects), abs=0.012)


def test_intervals_are_seeded():
    truth, predicted, subjects = answers()
    assert balanced_accuracy(truth, predicted, subjects, 4, seed=1) == balanced_accuracy(truth, predicted, subjects, 4,
                                                                                         seed=1)
    assert balanced_accuracy(truth, predicted, subjects, 4, seed=1) != balanced_accuracy(truth, predicted, subjects, 4,
                                                                                         seed=2)


def test_chance_of_items_with_different_numbers_of_options_is_their_mean():
    score = accuracy(np.array([True, False, True, True]), np.array([0.5, 0.5, 0.25, 0.25]),
                     np.array(["a", "a", "b", "b"]))
    assert (score.value, score.chance, score.n) == (0.75, 0.375, 4)
    assert (score.low, score.high) == (0.5, 1.0)


def test_one_subject_says_nothing_about_others():
    truth, predicted, _ = answers(share=0.95)
    alone = np.full(len(truth), "a")
    for score in (balanced_accuracy(truth, predicted, alone, 4),
                  accuracy(truth == predicted, np.full(300, 0.25), alone)):
        assert score.value > 0.9 and (score.low, score.high) == (0.0, 1.0) and not score.above_chance


def test_above_chance_means_the_whole_interval():
    assert Score(0.4, 0.3, 0.5, 0.25, 9).above_chance and not Score(0.4, 0.3, 0.5, 0.25, 9).contains_chance
    assert Score(0.4, 0.2, 0.5, 0.25, 9).contains_chance and not Score(0.4, 0.2, 0.5, 0.25, 9).above_chance
    below = Score(0.1, 0.05, 0.2, 0.25, 9)
    assert not below.above_chance and not below.contains_chance


def test_nineteen_of_twenty_intervals_or_nearly_so_hold_the_truth():
    rng, held, repetitions = np.random.default_rng(11), 0, 200
    subjects = np.repeat(np.arange(12), 20)
    for repetition in range(repetitions):
        skill = rng.beta(6, 4, size=12)  # population mean 0.6
        correct = rng.uniform(size=240) < skill[subjects]
        score = accuracy(correct, np.full(240, 0.5), subjects, seed=repetition)
        held += score.low <= 0.6 <= score.high
    assert 0.9 <= held / repetitions <= 0.99
