"""Sums over people give the measures that scikit-learn and the literature give, and the trends that were put in."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from e2llm.evaluation import metrics
from e2llm.evaluation.person_bootstrap import (
    MEASURES,
    PEOPLE,
    agreement_sums,
    as_text,
    confidence_sums,
    confusion_sums,
    difference,
    draw,
    drawn,
    fleiss_kappa,
    page_test,
    ratio_sums,
    scores,
    trends,
)

# Answers of 14 raters to 10 subjects in 5 classes, an often-used example of Fleiss' kappa: 0.210.
EXAMPLE = np.array([[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
                    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]])


def answers_of(truth: np.ndarray, share: float, n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """Right with a probability of ``share``, else any class."""
    return np.where(rng.uniform(size=len(truth)) < share, truth, rng.integers(n_classes, size=len(truth)))


def stacked(sums: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack(list(sums.values()))


@pytest.fixture
def asked() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, answers and subjects: five people, unequal numbers of windows."""
    rng = np.random.default_rng(3)
    truth = rng.integers(4, size=173)
    return truth, answers_of(truth, 0.6, 4, rng), rng.choice([f"p{i}" for i in range(5)], size=173)


# --- measures against other implementations


def test_accuracy_kappa_and_interval_are_those_of_scikit_learn_and_metrics(asked):
    truth, predicted, subjects = asked
    sums = stacked(confusion_sums(truth, predicted, subjects, 4))
    found = draw(MEASURES["accuracy"], [sums]).score()
    expected = metrics.balanced_accuracy(truth, predicted, subjects, 4)
    assert (found.value, found.low, found.high, found.chance) == pytest.approx((expected.value, expected.low,
                                                                                expected.high, 0.25))
    assert found.value == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert draw(MEASURES["kappa"], [sums]).value == pytest.approx(cohen_kappa_score(truth, predicted))
    one = subjects == "p2"
    assert draw(MEASURES["kappa"], [sums]).people[2] == pytest.approx(cohen_kappa_score(truth[one], predicted[one],
                                                                                        labels=range(4)))


def test_calibration_is_that_of_statistics(asked):
    truth, _, subjects = asked
    probabilities = np.random.default_rng(0).dirichlet(np.full(4, 0.4), size=len(truth))
    sums = stacked(confidence_sums(probabilities, truth, subjects)).sum(axis=0)
    expected = metrics.calibration(probabilities, truth)
    assert float(MEASURES["calibration error"].value(sums)) == pytest.approx(expected["expected_calibration_error"])
    assert float(MEASURES["Brier score"].value(sums)) == pytest.approx(expected["brier"])


def test_rates_are_those_of_metrics_and_several_kinds_count_alike():
    rng, subjects = np.random.default_rng(1), np.repeat(["a", "b", "c", "d"], [5, 9, 12, 4])
    hits, chance = rng.uniform(size=30) < 0.7, np.full(30, 1 / 3)
    sums = stacked(ratio_sums(hits, chance, subjects))
    found, expected = draw(MEASURES["zero_match"], [sums]).score(), metrics.accuracy(hits, chance, subjects)
    assert (found.value, found.low, found.high, found.chance) == pytest.approx((expected.value, expected.low,
                                                                                expected.high, expected.chance))
    other = np.array([[0, 1, 10.0]] * 4)
    both = draw(MEASURES["zero-shot"], [np.hstack([sums, other])])
    assert both.value == pytest.approx(hits.mean() / 2) and both.chance == pytest.approx((1 / 3 + 0.1) / 2)


def test_fleiss_kappa_of_the_example_and_of_two_raters():
    answers = np.stack([np.repeat(np.arange(5), row) for row in EXAMPLE])
    subjects = np.array(list("aabbccddee"))
    assert float(fleiss_kappa(stacked(agreement_sums(answers, subjects, 5)).sum(axis=0))) == pytest.approx(0.210,
                                                                                                           abs=5e-4)
    rng = np.random.default_rng(2)
    two = np.column_stack([first := rng.integers(3, size=80), answers_of(first, 0.5, 3, rng)])
    shares = np.bincount(two.ravel(), minlength=3) / two.size
    # Scott's pi: two raters, one pool
    scott = (np.mean(two[:, 0] == two[:, 1]) - (shares**2).sum()) / (1 - (shares**2).sum())
    assert float(fleiss_kappa(stacked(agreement_sums(two, np.zeros(80), 3)).sum(axis=0))) == pytest.approx(scott)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(2, 5))
def test_agreement_counts_pairs_of_raters(seed, n_raters, n_classes):
    answers = np.random.default_rng(seed).integers(n_classes, size=(9, n_raters))
    sums = stacked(agreement_sums(answers, np.arange(9) % 2, n_classes)).sum(axis=0)
    pairs = [a == b for row in answers for a, b in itertools.combinations(row, 2)]
    shares = np.bincount(answers.ravel(), minlength=n_classes) / answers.size
    expected = (shares**2).sum()
    found = float(fleiss_kappa(sums))
    assert np.isnan(found) if expected == 1 else found == pytest.approx((np.mean(pairs) - expected) / (1 - expected))


def test_what_is_undefined_is_not_a_number_and_one_person_says_nothing_of_others():
    same = stacked(confusion_sums(np.zeros(6, int), np.zeros(6, int), np.repeat(["a", "b"], 3), 3))
    assert np.isnan(draw(MEASURES["kappa"], [same]).value) and draw(MEASURES["accuracy"], [same]).value == 1
    assert np.isnan(draw(MEASURES["zero_match"], [np.zeros((2, 3))]).value)
    score = draw(MEASURES["accuracy"], [same[:1]]).score()
    assert score.value == 1 and np.isnan(score.low) and np.isnan(score.high) and score.n == 1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="class of its own"):
        confusion_sums(np.array([0, 1]), np.array([0, -1]), np.array(["a", "b"]), 2)
    with pytest.raises(ValueError, match="two or more answers"):
        agreement_sums(np.zeros((4, 1), int), np.zeros(4), 3)
    with pytest.raises(ValueError, match="do not sum to one"):
        confidence_sums(np.full((3, 2), 0.4), np.zeros(3, int), np.arange(3))


# --- several models


def table_of(shares: dict[str, tuple[float, float, str]], seeds: int = 1, people: int = 8) -> pd.DataFrame:
    """Rungs (parameters, share of right answers, origin), all asked about the same windows."""
    rows, rng = [], np.random.default_rng(0)
    truth, subjects = np.tile(np.arange(7), 20 * people), np.repeat([f"p{i}" for i in range(people)], 140)
    for size, (parameters, share, origin) in shares.items():
        for seed in range(seeds):
            sums = confusion_sums(truth, answers_of(truth, share, 7, rng), subjects, 7)
            rows += [(size, parameters, origin, seed, "answers", "EEG", who, as_text(each))
                     for who, each in sums.items()]
    return pd.DataFrame(rows, columns=list(PEOPLE))


GROWING = table_of({"s": (1e5, 0.2, "scratch"), "m": (1e6, 0.4, "scratch"), "l": (1e7, 0.6, "scratch"),
                    "smart": (1e8, 0.9, "pretrained")})


def test_a_trend_that_was_put_in_is_found_and_pretrained_models_do_not_count():
    found = trends(GROWING).set_index("measure").loc["accuracy"]
    assert found["slope"] == pytest.approx(0.2 * 6 / 7, abs=0.02) and found["low"] > 0.1 and found["high"] < 0.25
    assert found["sizes"] == 3 and found["better"] == "more"
    assert found["p"] < 0.001 and found["p"] <= found["p_holm"] <= 2 * found["p"]


def test_no_trend_where_all_are_alike():
    flat = table_of({name: (10.0**i, 0.5, "scratch") for i, name in enumerate("abcd", 4)})
    found = trends(flat).set_index("measure").loc["accuracy"]
    assert found["low"] < 0 < found["high"] and found["p"] > 0.05


def test_page_looks_the_other_way_where_less_is_better():
    falling = np.array([[3.0, 2, 1]] * 5)
    assert page_test(-falling) < 0.01 < 0.9 < page_test(falling)
    assert np.isnan(page_test(falling[:, :2])) and np.isnan(page_test(falling[:1]))


def test_two_rungs_have_a_slope_but_no_page_and_one_has_none():
    two = trends(GROWING[GROWING["size"].isin(["s", "l"])])
    assert two["p"].isna().all() and two["p_holm"].isna().all() and (two["low"] > 0).all()
    with pytest.raises(ValueError, match="two or more sizes made from scratch"):
        trends(GROWING[GROWING["size"].isin(["s", "smart"])])


def test_a_difference_is_paired_and_equal_models_differ_by_nothing():
    found = difference(GROWING, "l", "s").set_index("measure").loc["accuracy"]
    expected = drawn(GROWING, "accuracy")
    assert found["difference"] == pytest.approx(expected["l"].value - expected["s"].value) and found["low"] > 0.25
    twin = GROWING[GROWING["size"] == "s"].assign(size="twin")
    nothing = difference(pd.concat([GROWING, twin]), "s", "twin")
    assert (nothing[["difference", "low", "high"]].abs() < 1e-12).all(axis=None)
    with pytest.raises(ValueError, match="no measure in common; measured are s, m, l, smart"):
        difference(GROWING, "s", "nobody")


def test_seeds_are_averaged():
    table = table_of({"s": (1e5, 0.5, "scratch")}, seeds=3)
    each = [drawn(table[table["seed"] == seed], "accuracy")["s"].value for seed in range(3)]
    assert drawn(table, "accuracy")["s"].value == pytest.approx(np.mean(each)) and np.std(each) > 0
    (row,) = scores(table).query("measure == 'accuracy'").to_dict("records")
    assert row["seeds"] == 3 and row["people"] == 8 and row["score"] == pytest.approx(np.mean(each))


def test_scores_list_what_was_measured_with_chance_and_survive_a_file(tmp_path):
    GROWING.to_csv(tmp_path / "people.csv", index=False)
    read = pd.read_csv(tmp_path / "people.csv", dtype={"subject": str, "sums": str})
    table = scores(read)
    pd.testing.assert_frame_equal(table, scores(GROWING))
    assert set(table["measure"]) == {"accuracy", "kappa"} and len(table) == 8
    chance = table.set_index(["measure", "size"])["chance"]
    assert chance["accuracy"].tolist() == pytest.approx([1 / 7] * 4) and (chance["kappa"] == 0).all()


def test_rungs_of_other_people_are_not_paired():
    other = GROWING[(GROWING["size"] != "l") | (GROWING["subject"] != "p3")]
    with pytest.raises(ValueError, match=r"l \(seed 0\) was not tested on the people p3"):
        drawn(other, "accuracy")
