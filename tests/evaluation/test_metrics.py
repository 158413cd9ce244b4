"""Scores equal those of scikit-learn, and their intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score

from e2llm.evaluation.metrics import (
    Score,
    accuracy,
    balanced_accuracy,
    calibration_error,
    classification,
    confusion,
    crossed,
    mean_over_subjects,
    mean_recall,
    paired_difference,
    percentile_interval,
    plain_balanced_accuracy,
    ratio,
    ratio_over_subjects,
    resample_subjects,
    score_row,
)


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


# --- the parts that intervals are made of


def test_subjects_are_drawn_with_replacement_two_thousand_times():
    codes, draws = resample_subjects(np.array(list("bbacb")), 0)
    assert codes.tolist() == [1, 1, 0, 2, 1] and draws.shape == (2000, 3)
    assert (draws.sum(axis=1) == 3).all() and draws.min() == 0 and draws.max() == 3
    assert draws.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.06)
    assert draws.var(axis=0) == pytest.approx([2 / 3] * 3, abs=0.06)  # binomial: 3 draws of a third


@pytest.mark.parametrize(("n_subjects", "tail"), [(12, 0.01076), (2, 0.0), (1000, 0.0248)])
def test_the_interval_reaches_further_for_few_subjects(n_subjects, tail):
    even = np.linspace(0, 1, 100_001)
    assert percentile_interval(even, n_subjects) == pytest.approx((tail, 1 - tail), abs=2e-4)
    with_gaps = np.append(even, [np.nan] * 5000)
    assert percentile_interval(with_gaps, n_subjects) == percentile_interval(even, n_subjects)


def test_no_interval_from_one_subject_or_from_nothing_known():
    assert percentile_interval(np.linspace(0.4, 0.6, 100), 1) == (0.0, 1.0)
    assert percentile_interval(np.linspace(0.4, 0.6, 100), 1, (-1.0, 1.0)) == (-1.0, 1.0)
    assert percentile_interval(np.full(100, np.nan), 5, (-2.0, 2.0)) == (-2.0, 2.0)


def test_a_ratio_over_nothing_is_not_a_number():
    assert ratio(np.array([1.0, 0.0, 3.0]), np.array([2.0, 0.0, 1e-9])).tolist() == pytest.approx([0.5, np.nan, 3e9],
                                                                                                 nan_ok=True)
    assert np.isnan(ratio_over_subjects(np.zeros(4), np.zeros(4), np.array(list("aabb")))).all()
    assert ratio_over_subjects(np.ones(4), np.full(4, 2.0), np.array(list("aabb"))) == (0.5, 0.5, 0.5)
    alone = ratio_over_subjects(np.ones(4), np.full(4, 2.0), np.full(4, "a"), one_subject=(-3.0, 3.0))
    assert alone == (0.5, -3.0, 3.0)


def test_a_mean_over_subjects_has_the_interval_of_the_mean():
    values = np.array([0.2, 0.4, 0.4, 0.8])
    score = mean_over_subjects(values, chance=0.25, n=80)
    assert (score.value, score.chance, score.n) == (pytest.approx(0.45), 0.25, 80)
    assert (score.low, score.high) == (pytest.approx(0.2), pytest.approx(0.8))  # of four people, nearly all there is
    many = np.random.default_rng(0).normal(0.5, 0.1, size=400)
    score = mean_over_subjects(many, 0.5, 400, seed=1)
    half = 1.966 * many.std() / 20  # Student's t with 399 degrees of freedom
    assert [score.low, score.high] == pytest.approx([many.mean() - half, many.mean() + half], abs=0.001)
    assert score != mean_over_subjects(many, 0.5, 400, seed=2)


def test_mean_recall_is_over_the_classes_that_occur():
    assert mean_recall(np.array([3, 0, 1]), np.array([4, 0, 2])) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert np.isnan(mean_recall(np.zeros(3), np.zeros(3)))
    assert mean_recall(np.array([[1, 1], [0, 1]]), np.array([[1, 1], [1, 1]])).tolist() == [1.0, 0.5]


def test_empty_bins_have_no_calibration_error():
    found = calibration_error(np.array([0.5, np.nan, 1.0]), np.array([0.6, np.nan, 0.9]), np.array([3, 0, 1]))
    assert found == pytest.approx((3 * 0.1 + 0.1) / 4)
    assert np.isnan(calibration_error(np.full(2, np.nan), np.full(2, np.nan), np.zeros(2)))


# --- scores as rows, and against each other


def test_a_score_becomes_a_row_in_order():
    row = Score(0.4, 0.3, 0.5, 0.25, 9).row("head", role="model")
    assert list(row.items()) == [("name", "head"), ("role", "model"), ("score", 0.4), ("low", 0.3), ("high", 0.5),
                                 ("chance", 0.25), ("n", 9)]
    nothing = Score.undefined()
    assert np.isnan([nothing.value, nothing.low, nothing.high, nothing.chance]).all() and nothing.n == 0
    assert not nothing.above_chance and not nothing.contains_chance


@pytest.mark.parametrize(("low", "high", "above", "contains"), [
    (1 / 3 + 1e-12, 1 / 3 + 1e-12, False, True), (1 / 3 - 1e-12, 1 / 3 - 1e-12, False, True),
    (1 / 3 + 1e-6, 0.5, True, False), (0.1, 1 / 3 - 1e-6, False, False)])
def test_chance_is_met_but_for_rounding(low, high, above, contains):
    score = Score((low + high) / 2, low, high, 1 / 3, 9)
    assert (score.above_chance, score.contains_chance) == (above, contains)


def test_a_difference_of_two_models_by_hand():
    truth = np.array([0, 0, 1, 1] * 3)
    subjects = np.repeat(list("abc"), 4)
    better, worse = truth.copy(), np.where(np.arange(12) % 4 == 3, 0, truth)  # one of two answers to class 1 wrong
    assert paired_difference(truth, better, worse, subjects, 2) == (0.25, 0.25, 0.25)  # alike for everybody
    assert paired_difference(truth, worse, better, subjects, 2) == (-0.25, -0.25, -0.25)
    alone = np.full(12, "a")
    assert paired_difference(truth, worse, better, alone, 2) == (-0.25, -1.0, 1.0)
    uneven = np.where(np.arange(12) < 4, worse, truth)
    assert paired_difference(truth, truth, uneven, subjects, 2) == pytest.approx((1 / 12, 0.0, 0.25))
    assert paired_difference(truth[:4], truth[:4], uneven[:4], alone[:4], 2) == (0.25, -1.0, 1.0)


def test_plain_scores_are_those_with_an_interval():
    truth, predicted, subjects = answers()
    assert plain_balanced_accuracy(truth, predicted, 4) == balanced_accuracy(truth, predicted, subjects, 4).value


def test_a_row_has_a_second_interval_where_people_share_clips():
    truth, predicted, subjects = answers()
    clips = np.arange(300) // 10
    assert crossed(subjects, clips) and not crossed(subjects, np.char.add(subjects, clips.astype(str)))
    row = score_row("head", truth, predicted, subjects, clips, 4, role="model")
    one = balanced_accuracy(truth, predicted, subjects, 4)
    assert list(row) == ["name", "role", "score", "low", "high", "chance", "n", "clips low", "clips high"]
    assert (row["score"], row["low"], row["high"]) == (one.value, one.low, one.high)
    assert row["clips low"] < row["score"] < row["clips high"]
    own = score_row("head", truth, predicted, subjects, np.char.add(subjects, clips.astype(str)), 4)
    assert "clips low" not in own


def test_a_confusion_table_has_rows_for_classes_that_do_not_occur():
    assert confusion(np.array([0, 2]), np.array([2, 2]), 4).tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0],
                                                                       [0, 0, 0, 0]]
    table = classification(np.array([0, 0, 2]), np.array([0, 2, 2]), 4)
    assert table["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 4)  # classes without windows count as zero
    assert table["weighted_f1"] == pytest.approx((2 * 2 / 3 + 2 / 3) / 3)
