"""Statistics equal those of scikit-learn and SciPy, or a count by hand, and keep the error rates they promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, norm, wilcoxon
from sklearn.metrics import balanced_accuracy_score, log_loss

from e2llm.evaluation import metrics
from e2llm.evaluation.metrics import (
    Score,
    balanced_accuracy,
    calibration,
    compare_models,
    crossed_interval,
    holm,
    label_permutation,
    over_seeds,
    per_subject,
    reliability,
)

SEVEN = np.linspace(-0.6, 0.4, 7)  # probit of being right, a class


def crossed(seed: int, subject_sd: float, clip_sd: float, n_subjects: int = 20,
            clips_per_class: int = 4) -> tuple[np.ndarray, ...]:
    """Truth, answers, subjects and clips of two to six windows, with normal effects of subjects, clips and their pairs
    on the probit."""
    rng = np.random.default_rng([5, seed])
    n_clips = 7 * clips_per_class
    pair = np.repeat(np.arange(n_subjects * n_clips), rng.integers(2, 7, size=n_subjects * n_clips))
    subjects, clips = pair // n_clips, pair % n_clips
    truth = clips % 7
    effects = [rng.normal(0, sd, size)[rows] for sd, size, rows in
               ((subject_sd, n_subjects, subjects), (clip_sd, n_clips, clips), (0.4, n_subjects * n_clips, pair))]
    right = SEVEN[truth] + sum(effects) + rng.normal(size=len(truth)) > 0
    return truth, np.where(right, truth, (truth + 1) % 7), subjects, clips


def expected(subject_sd: float, clip_sd: float) -> float:
    """Balanced accuracy that :func:`crossed` has on average over all subjects and clips there could be."""
    return float(norm.cdf(SEVEN / np.sqrt(1 + subject_sd**2 + clip_sd**2 + 0.4**2)).mean())


def test_subjects_are_scored_over_the_classes_they_have():
    truth, predicted, subjects, _ = crossed(1, 0.5, 0.4)
    predicted[::9] = -1
    kept = ~((subjects == 3) & (truth > 1))
    truth, predicted, subjects = truth[kept], predicted[kept], subjects[kept]
    table = per_subject(truth, predicted, subjects, 7)
    assert table["n"].to_dict() == pd.Series(subjects).value_counts().to_dict()
    for name, score in table["balanced_accuracy"].items():
        own = subjects == name
        assert score == pytest.approx(np.mean([np.mean(predicted[own & (truth == c)] == c)
                                               for c in np.unique(truth[own])]))
        assert score == balanced_accuracy(truth[own], predicted[own], subjects[own], 7).value
    assert len(np.unique(truth[subjects == 3])) == 2


@pytest.mark.parametrize("broken", [
    lambda truth, predicted, subjects: (truth[1:], predicted, subjects),
    lambda truth, predicted, subjects: (truth + 1, predicted, subjects),
    lambda truth, predicted, subjects: (truth, predicted - 2, subjects),
    lambda truth, predicted, subjects: (truth, predicted / 1, subjects),
    lambda truth, predicted, subjects: (truth[:0], predicted[:0], subjects[:0])])
def test_arrays_that_do_not_fit_are_refused(broken):
    truth, predicted, subjects, _ = crossed(0, 0.5, 0.4)
    truth, predicted, subjects = broken(truth, predicted, subjects)
    with pytest.raises(ValueError, match=r"one length|whole numbers"):
        per_subject(truth, predicted, subjects, 7)
    with pytest.raises(ValueError, match=r"one length|whole numbers"):
        crossed_interval(truth, predicted, subjects, subjects, 7)


def test_the_two_way_interval_comes_from_drawing_people_and_clips():
    truth, predicted, subjects, clips = crossed(2, 0.5, 0.8, n_subjects=12, clips_per_class=3)
    predicted[::9] = -1
    score = crossed_interval(truth, predicted, subjects, clips, 7)
    assert score.value == pytest.approx(balanced_accuracy_score(truth,
                                                                np.where(predicted < 0, (truth + 1) % 7, predicted)))
    assert (score.chance, score.n) == (1 / 7, len(truth))
    rng, values = np.random.default_rng(3), []
    cells = {(who, clip): np.flatnonzero((subjects == who) & (clips == clip)) for who in range(12)
             for clip in range(21)}
    for _ in range(1500):
        people, films = rng.integers(12, size=12), rng.integers(21, size=21)
        rows = np.concatenate([cells[who, clip] for who in people for clip in films])
        right, asked = np.bincount(truth[rows], truth[rows] == predicted[rows], 7), np.bincount(truth[rows],
                                                                                                minlength=7)
        values.append(np.mean(right[asked > 0] / asked[asked > 0]))
    # Tails for twelve: see test_metrics
    assert [score.low, score.high] == pytest.approx(np.quantile(values, [0.01076, 1 - 0.01076]), abs=0.02)
    one_way = balanced_accuracy(truth, predicted, subjects, 7)
    assert score.high - score.low > 1.2 * (one_way.high - one_way.low)


def test_the_two_way_interval_is_seeded_and_knows_when_it_knows_nothing():
    data = crossed(2, 0.5, 0.4)
    assert crossed_interval(*data, 7, seed=1) == crossed_interval(*data, 7, seed=1) != crossed_interval(*data, 7,
                                                                                                        seed=2)
    truth, predicted, subjects, clips = data
    for groups in ((subjects, np.zeros_like(clips)), (np.zeros_like(subjects), clips)):
        score = crossed_interval(truth, predicted, *groups, 7)
        assert (score.low, score.high) == (0.0, 1.0)
    named = np.array(list("abcdefghijklmnopqrst"))[subjects]
    assert crossed_interval(truth, predicted, named, clips, 7, seed=1) == crossed_interval(*data, 7, seed=1)


@pytest.mark.filterwarnings("error")
def test_people_and_clips_in_equal_number_are_drawn_apart_and_empty_samples_left_out(monkeypatch):
    draws, original = [], metrics.resample_subjects
    monkeypatch.setattr(metrics, "resample_subjects",
                        lambda groups, seed: draws.append(original(groups, seed)) or draws[-1])
    score = crossed_interval(np.zeros(3, dtype=int), np.array([0, 0, 1]), np.arange(3), np.arange(3), 2)
    (_, people), (_, clips) = draws
    assert abs(np.corrcoef(people[:, 0], clips[:, 0])[0, 1]) < 0.1
    assert ((people * clips).sum(axis=1) == 0).any()  # samples without a window
    assert (score.value, score.low, score.high) == (pytest.approx(2 / 3), 0.0, 1.0)


def test_intervals_of_balanced_accuracy_hold_the_truth_nineteen_times_of_twenty(monkeypatch):
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 1000)
    held = 0
    for seed in range(1000):
        truth, predicted, subjects, _ = crossed(seed, 0.5, 0.0)
        score = balanced_accuracy(truth, predicted, subjects, 7, seed=seed)
        held += score.low <= expected(0.5, 0.0) <= score.high
    assert 0.92 <= held / 1000 <= 0.97  # 0.945 when written


def test_where_clips_differ_only_the_two_way_interval_holds_the_truth(monkeypatch):
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 600)
    held = np.zeros(2)
    for seed in range(500):
        truth, predicted, subjects, clips = crossed(seed, 0.5, 0.4)
        scores = (crossed_interval(truth, predicted, subjects, clips, 7, seed=seed),
                  balanced_accuracy(truth, predicted, subjects, 7, seed=seed))
        held += [score.low <= expected(0.5, 0.4) <= score.high for score in scores]
    assert 0.93 <= held[0] / 500 <= 0.99  # 0.96 with 1000 samples when written
    assert held[1] / 500 < 0.93  # 0.894: its interval is for other people who see the same clips


def test_holm_by_a_worked_example():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04, and no adjusted p may fall below one
    # before it
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0] and holm(np.array([0.2])).tolist() == [0.2]


def scores_of_models(n: int = 16) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    base = rng.uniform(0.2, 0.6, size=n)
    models = {"linear": base, "better": base + rng.normal(0.1, 0.05, size=n),
              "like": base + rng.normal(0, 0.05, size=n), "same": base}
    return pd.DataFrame(models, index=[f"s{i}" for i in range(n)])


def test_models_are_compared_by_wilcoxon():
    scores = scores_of_models()
    table = compare_models(scores, "linear")
    assert list(table.index) == ["better", "like", "same"] and (table["n"] == 16).all()
    for name in ("better", "like"):
        difference = scores[name] - scores["linear"]
        assert table.loc[name, "p"] == pytest.approx(wilcoxon(difference).pvalue)
        assert table.loc[name, "median_difference"] == pytest.approx(difference.median())
    assert table.loc["same", ["median_difference", "p", "p_holm"]].tolist() == [0, 1, 1]
    assert table["p_holm"].to_numpy() == pytest.approx(holm(table["p"]))
    assert table.loc["better", "p_holm"] < 0.01 < table.loc["like", "p_holm"]


def test_zeros_count_against_a_difference_and_rounding_does_not_make_them():
    scores = pd.DataFrame({"a": np.full(10, 0.2)}).assign(b=lambda t: t["a"] + 0.1)
    scores.loc[:3, "b"] = 0.1 + 0.1 + 1e-17
    scores.loc[4:, "b"] = [0.3, 0.1 + 0.2, 0.3, 0.3, 0.3, 0.1]
    p = compare_models(scores, "a").loc["b", "p"]
    # four zeros; of six equal differences one is negative: with equal ranks that is the sign test, 2 * (1 + 6) / 2**6
    assert p == pytest.approx(14 / 64)
    ranked = pd.DataFrame({"a": np.zeros(8), "b": [0, 0, 0.1, 0.2, -0.3, 0.4, 0.5, 0.6]})
    # two zeros take ranks 1 and 2, the negative one has 5: {}, {3}, {4}, {5} of 2**6 sets of ranks 3 to 8 sum to no
    # more
    assert compare_models(ranked, "a").loc["b", "p"] == pytest.approx(2 * 4 / 64)


def test_a_score_that_is_missing_is_named():
    scores = scores_of_models()
    scores.loc["s4", "like"] = np.nan
    with pytest.raises(ValueError, match="s4 has no finite score of model like"):
        compare_models(scores, "linear")
    with pytest.raises(ValueError, match="'absent'"):
        compare_models(scores_of_models(), "absent")
    with pytest.raises(ValueError, match="another model"):
        compare_models(scores_of_models()[["linear"]], "linear")
    twice = scores_of_models()
    with pytest.raises(ValueError, match="different"):
        compare_models(pd.concat([twice, twice]), "linear")


def test_calibration_by_hand():
    probabilities = np.array([[0.6, 0.4], [0.55, 0.45], [0.9, 0.1], [0.15, 0.85]])
    truth = np.array([0, 1, 0, 1])
    table = reliability(probabilities, truth, 5)
    assert table["n"].tolist() == [0, 0, 2, 0, 2]
    assert table.loc[2].tolist() == pytest.approx([0.4, 0.6, 0.575, 0.5,
                                                   2]) and table.loc[4].tolist() == pytest.approx([0.8, 1, 0.875, 1, 2])
    assert table.loc[[0, 1, 3], ["confidence", "accuracy"]].isna().all(axis=None)
    # A bin holds the edge that closes it
    assert reliability(np.array([[0.5, 0.5], [0.75, 0.25]]), truth[:2], 4)["n"].tolist() == [0, 1, 1, 0]
    found = calibration(probabilities, truth, 5)
    assert found["expected_calibration_error"] == pytest.approx((0.075 + 0.125) / 2)
    assert found["brier"] == pytest.approx(2 * (0.4**2 + 0.55**2 + 0.1**2 + 0.15**2) / 4)
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.6, 0.45, 0.9, 0.85])))


def test_probabilities_that_mean_what_they_say_have_no_calibration_error():
    rng = np.random.default_rng(2)
    honest = rng.dirichlet(np.full(7, 0.5), size=40_000)
    truth = (honest.cumsum(axis=1) < rng.random((40_000, 1))).sum(axis=1).clip(max=6)
    found = calibration(honest.astype(np.float32), truth)
    assert found["expected_calibration_error"] < 0.01
    assert found["log_loss"] == pytest.approx(log_loss(truth, honest), abs=1e-5)
    assert found["brier"] == pytest.approx(np.mean(((honest - np.eye(7)[truth]) ** 2).sum(axis=1)), abs=1e-6)
    sure = honest**3 / (honest**3).sum(axis=1, keepdims=True)
    too_sure = calibration(sure, truth)
    assert too_sure["expected_calibration_error"] > 0.1
    assert too_sure["brier"] > found["brier"] and too_sure["log_loss"] > found["log_loss"]
    assert reliability(honest, truth)["n"].sum() == 40_000


def test_the_worst_answers_reach_the_end_of_the_scale():
    worst = calibration(np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), np.array([0, 0]))
    assert worst["expected_calibration_error"] == 1 and worst["brier"] == 2 and np.isfinite(worst["log_loss"])


@pytest.mark.parametrize("bad", [[[0.5, 0.4]], [[1.2, -0.2]], [[np.nan, 1.0]], [[1.0]], [0.5, 0.5]])
def test_what_is_no_distribution_is_refused(bad):
    for function in (calibration, reliability):
        with pytest.raises(ValueError, match=r"sum to one|shape"):
            function(np.array(bad), np.array([0]))


def test_truth_must_fit_probabilities():
    for truth in ([0, 2], [0], [-1, 0]):
        with pytest.raises(ValueError, match=r"one length|whole numbers"):
            calibration(np.full((2, 2), 0.5), np.array(truth))


def evidence_of_clips(seed: int, effect: float = 0.0) -> tuple:
    """Score, labels, subjects and clips of a model whose evidence for each of three classes is shared by a clip's
    windows."""
    rng = np.random.default_rng([6, seed])
    pair = np.repeat(np.arange(6 * 9), rng.integers(1, 8, size=6 * 9))
    subjects, clips = pair // 9, pair % 9
    labels = clips % 3
    evidence = rng.normal(size=(6 * 9, 3))[pair] + 0.3 * rng.normal(size=(len(pair), 3)) + effect * np.eye(3)[labels]
    return lambda given: evidence[np.arange(len(given)), given].mean(), labels, subjects, clips


def test_permutation_p_values_are_uniform_under_the_null_only_if_clips_stay_whole():
    whole, singly = [], []
    for seed in range(120):
        score, labels, subjects, clips = evidence_of_clips(seed)
        whole.append(label_permutation(score, labels, subjects, clips, n=99, seed=seed)["p"])
        singly.append(label_permutation(score, labels, subjects, np.arange(len(clips)), n=99, seed=seed)["p"])
    assert kstest(whole, "uniform").pvalue > 0.05
    assert kstest(singly, "uniform").pvalue < 0.01 and np.mean(np.array(singly) <= 0.05) > 0.1


def test_where_everybody_answers_a_clip_alike_only_shared_labels_are_permuted_rightly():
    """Evidence of a clip is the same for all six people and has nothing to do with its label."""
    own, shared = [], []
    for seed in range(200):
        rng = np.random.default_rng([7, seed])
        subjects, clips = np.divmod(np.arange(6 * 12), 12)
        evidence = rng.normal(size=(12, 3))[clips] + 0.3 * rng.normal(size=(72, 3))

        def score(given, evidence=evidence):
            return evidence[np.arange(72), given].mean()

        for values, flag in ((own, False), (shared, True)):
            values.append(label_permutation(score, clips % 3, subjects, clips, n=99, seed=seed, shared=flag)["p"])
    assert kstest(shared, "uniform").pvalue > 0.05
    assert np.mean(np.array(own) <= 0.05) > 0.12 > np.mean(np.array(shared) <= 0.05)


def test_shared_labels_need_clips_with_one_label():
    with pytest.raises(ValueError, match="A clip of somebody has two labels"):
        label_permutation(lambda given: 0.0, np.array([0, 1, 1, 0]), np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2]),
                          shared=True)


def test_a_true_effect_is_found_and_p_never_zero():
    score, labels, subjects, clips = evidence_of_clips(0, effect=3.0)
    found = label_permutation(score, labels, subjects, clips, n=199)
    assert found["p"] == 1 / 200 and found["value"] == score(labels) > found["null_mean"] + 3 * found["null_sd"]
    assert found == label_permutation(score, labels, subjects, clips, n=199)
    assert found != label_permutation(score, labels, subjects, clips, n=199, seed=1)
    assert label_permutation(score, labels, subjects, clips)["p"] == 1 / 1001  # a thousand, if nothing else is said


def test_labels_move_as_clips_and_stay_with_their_subject():
    _, labels, subjects, clips = evidence_of_clips(1)
    shuffled = np.random.default_rng(0).permutation(len(labels))  # windows need not come in order
    subjects, clips = np.array(list("fbdace"))[subjects[shuffled]], clips[shuffled]
    labels = np.array(["fear", "joy", "calm"])[labels[shuffled]]
    seen = []
    label_permutation(lambda given: float(len(seen.append(given) or seen)), labels, subjects, clips, n=30)
    assert len({tuple(given) for given in seen}) == 31 and (seen[-1] == labels).all()
    trial = pd.Series(subjects) + "/" + pd.Series(clips).astype(str)
    for given in seen:
        table = pd.DataFrame({"trial": trial, "subject": subjects, "label": given})
        assert (table.groupby("trial")["label"].nunique() == 1).all()
        assert (table.drop_duplicates("trial").groupby("subject")["label"].value_counts() == 3).all()


def test_labels_that_cannot_be_permuted_are_refused():
    score, labels, subjects, clips = evidence_of_clips(0)
    broken = labels.copy()
    broken[np.argmax(np.bincount(subjects * 9 + clips)[subjects * 9 + clips] > 1)] += 1
    with pytest.raises(ValueError, match="two labels"):
        label_permutation(score, broken, subjects, clips)
    with pytest.raises(ValueError, match="nothing to permute"):
        label_permutation(score, labels, labels, clips)
    with pytest.raises(ValueError, match="NaN"):
        label_permutation(score, labels, np.where(subjects == 1, np.nan, subjects), clips)
    with pytest.raises(ValueError, match="length"):
        label_permutation(score, labels, subjects[1:], clips)
    with pytest.raises(ValueError, match="finite"):
        label_permutation(lambda given: np.nan, labels, subjects, clips, n=2)
    with pytest.raises(ValueError, match="Two or more"):
        label_permutation(score, labels, subjects, clips, n=1)


def test_the_null_of_two_clips_by_hand():
    """One person, two clips, two labels: half of the orders give 1, the others 0."""
    labels, clips = np.array(["joy", "calm", "calm"]), np.array([7, 3, 3])
    found = label_permutation(lambda given: float(given[0] == "joy"), labels, np.full(3, "a"), clips, n=400, seed=3)
    share = found["null_mean"]
    assert share == pytest.approx(0.5, abs=0.1) and found["value"] == 1
    assert found["null_sd"] == pytest.approx(np.sqrt(share * (1 - share) * 400 / 399), rel=1e-9)
    assert found["p"] == pytest.approx((1 + 400 * share) / 401)
    assert label_permutation(lambda given: 0.5, np.array([0, 1]), np.full(2, "a"), np.arange(2), n=2)["p"] == 1.0


def test_a_null_that_equals_the_score_but_for_rounding_counts():
    wobble = iter([1e-12, -1e-12] * 100)
    assert label_permutation(lambda given: 0.3 + next(wobble), np.array([0, 1]), np.full(2, "a"), np.arange(2),
                             n=50)["p"] == 1.0


def test_the_table_of_compared_models_names_its_rows_and_columns():
    table = compare_models(scores_of_models(), "like")
    assert table.index.name == "model" and list(table) == ["median_difference", "n", "p", "p_holm"]
    assert list(table.index) == ["linear", "better", "same"]
    bad = scores_of_models()
    bad.loc[["s2", "s9"], "better"] = np.inf
    with pytest.raises(ValueError, match=r"^Subject s2 has no finite score of model better; 2 such in all\.$"):
        compare_models(bad, "linear")
    named_twice = scores_of_models().set_axis(["linear", "like", "like", "same"], axis=1)
    with pytest.raises(ValueError, match="different columns"):
        compare_models(named_twice, "linear")


@pytest.mark.parametrize(("truth", "predicted", "message"), [
    ([0, 3], [0, 1], "'truth' must hold whole numbers from 0 to 2"),
    ([0, -1], [0, 1], "'truth' must hold whole numbers from 0 to 2"),
    ([0, 1], [0, 3], "'predicted' must hold whole numbers from -1 to 2"),
    ([0, 1], [0, -2], "'predicted' must hold whole numbers from -1 to 2"),
    ([0, 1], [0, 1, 2], r"one length above zero, not \[2, 3, 2\]"), ([], [], r"not \[0, 0, 2\]")])
def test_class_numbers_that_do_not_exist_are_refused(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        per_subject(np.array(truth, dtype=int), np.array(predicted), np.array(["a", "b"]), 3)
    assert per_subject(np.array([0, 2]), np.array([-1, 2]), np.array(["a", "b"]), 3)["n"].tolist() == [1, 1]


def test_confidence_has_ten_bins_and_probabilities_may_be_off_by_rounding():
    nearly = np.array([[0.5, 0.500004], [0.2, 0.8]])
    assert len(reliability(nearly, np.array([0, 1]))) == 10
    assert reliability(nearly, np.array([0, 1]))["n"].sum() == 2
    found = metrics.Confidence.of(nearly, np.array([1, 1]))
    assert found.sure == pytest.approx([0.500004 / 1.000004, 0.8], rel=1e-9) and found.right.all()
    with pytest.raises(ValueError, match=r"^1 rows, the first of them 1, are negative somewhere"):
        reliability(np.array([[0.5, 0.5], [0.5, 0.50003]]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(n, k\) with k of two or more, not \(2, 1\)"):
        reliability(np.ones((2, 1)), np.array([0, 0]))


def test_seeds():
    scores = {seed: Score(value, 0, 1, 0.25, 9) for seed, value in enumerate([0.4, 0.5, 0.9])}
    assert over_seeds(scores) == pytest.approx({"mean": 0.6, "sd": np.std([0.4, 0.5, 0.9], ddof=1), "min": 0.4,
                                                "max": 0.9})
    with pytest.raises(ValueError, match="At least three"):
        over_seeds({seed: scores[seed] for seed in (0, 1)})
