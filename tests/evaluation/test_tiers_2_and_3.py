"""Items drawn with several seeds: intervals over people, clips and texts, strata, and the spread of item seeds."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t

from e2llm.core.bands import BANDS
from e2llm.core.claims import EvidenceNames
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS
from e2llm.data.dataset import Corpus
from e2llm.evaluation import tiers
from e2llm.evaluation.controls import EEGInput, Role, controls_at_chance
from e2llm.evaluation.metrics import accuracy
from e2llm.evaluation.person_bootstrap import crossed_accuracy
from e2llm.evaluation.tiers import TIER_2, TIER_3, Answers, ablation_rows, item_seed_spread, readable, tiers_2_and_3
from e2llm.models.inference import InferenceEngine
from e2llm.tasks.scenarios import STRATA

# ---------------------------------------------------------------- intervals


def members(codes: np.ndarray) -> list[list[str]]:
    return [[str(code) for code in row] for row in codes.reshape(len(codes), -1)]


def by_pairs(correct: np.ndarray, *factors: np.ndarray) -> tuple[float, float]:
    """The interval of :func:`crossed_accuracy` from a loop over all pairs of items."""
    n, error = len(correct), correct - correct.mean()

    def variance(shared) -> float:
        pairs = [(i, j) for i in range(n) for j in range(n) if shared(i, j)]
        return sum(error[i] * error[j] for i, j in pairs) / n**2 / (1 - len(pairs) / n**2)

    def meet(codes: np.ndarray):
        return lambda i, j: bool({*codes[i]} & {*codes[j]})

    tests = [meet(codes.reshape(n, -1)) for codes in factors]
    largest = max(variance(shared) for shared in [*tests, lambda i, j: any(test(i, j) for test in tests)])
    half = t.ppf(0.975, min(len(np.unique(codes)) for codes in factors) - 1) * np.sqrt(largest)
    return max(correct.mean() - half, 0), min(correct.mean() + half, 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_interval_sums_over_the_pairs_that_share_something(seed):
    rng = np.random.default_rng(seed)
    people, clips, texts = rng.integers(5, size=40), rng.integers(9, size=(40, 2)), rng.integers(30, size=(40, 3))
    right = rng.uniform(size=40) < 0.7
    score = crossed_accuracy(right, np.full(40, 0.25), members(people), members(clips), members(texts))
    assert (score.low, score.high) == pytest.approx(by_pairs(right.astype(float), people, clips, texts))
    assert (score.value, score.chance, score.n) == (right.mean(), 0.25, 40)


def test_one_factor_of_equal_groups_gives_the_t_interval_of_their_means():
    rng = np.random.default_rng(0)
    people, right = np.repeat(np.arange(8), 25), rng.uniform(size=200) < 0.6
    means = right.reshape(8, 25).mean(axis=1)
    half = t.ppf(0.975, 7) * means.std(ddof=1) / np.sqrt(8)
    score = crossed_accuracy(right, np.zeros(200), members(people), [[]] * 200)  # no item holds a text
    assert (score.low, score.high) == pytest.approx((means.mean() - half, means.mean() + half))


def test_what_gives_no_information_about_others_gives_the_whole_range():
    right, own = np.array([True, False, True]), [["a"], ["b"], ["c"]]
    assert crossed_accuracy(right, np.zeros(3), [["ann"]] * 3, own).low == 0.0  # one person
    assert crossed_accuracy(right, np.zeros(3), own, [["x", "y"], ["x"], ["x", "z"]]).high == 1.0  # all share text x
    assert crossed_accuracy(right[:1], np.zeros(1), [["ann"]], [["a"]]).low == 0.0  # one item
    assert crossed_accuracy(np.ones(3), np.zeros(3), own).low == 1.0  # nothing varies


def planted(seed: int, people_sd: float, clip_sd: float, text_sd: float, texts: int = 40, texts_each: int = 1,
            clips_each: int = 1) -> tuple[np.ndarray, ...]:
    """Answers to 300 items, with normal effects of 12 people, 20 clips and some texts on the probit."""
    rng = np.random.default_rng([7, seed])
    who = rng.integers(12, size=300)
    seen = rng.permuted(np.tile(np.arange(20), (300, 1)), axis=1)[:, :clips_each]
    read = rng.permuted(np.tile(np.arange(texts), (300, 1)), axis=1)[:, :texts_each]
    effects = (rng.normal(0, people_sd, 12)[who] + rng.normal(0, clip_sd, 20)[seen].mean(axis=1)
               + rng.normal(0, text_sd, texts)[read].mean(axis=1))
    return 0.3 + effects + rng.normal(size=300) > 0, who, seen, read


@pytest.mark.parametrize(("design", "people_only_misses"), [
    ({"people_sd": 0.2, "clip_sd": 0.1, "text_sd": 0.8}, True),
    ({"people_sd": 0.2, "clip_sd": 0.1, "text_sd": 1.0, "texts": 100, "texts_each": 3}, True),
    ({"people_sd": 0.2, "clip_sd": 0.5, "text_sd": 0.3, "clips_each": 3}, True),
    ({"people_sd": 0.5, "clip_sd": 0.1, "text_sd": 0.2}, False),
])
def test_intervals_cover_the_score_of_other_people_clips_and_texts(design, people_only_misses):
    """500 experiments: an interval over people alone misses where texts or clips differ; ours holds 93 % or more."""
    each = {"texts_each": 1, "clips_each": 1} | design
    total = np.sqrt(1 + design["people_sd"] ** 2 + design["clip_sd"] ** 2 / each["clips_each"]
                    + design["text_sd"] ** 2 / each["texts_each"])
    truth, held, over_people, width = norm.cdf(0.3 / total), 0, 0, 0.0
    for seed in range(500):
        right, who, seen, read = planted(seed, **design)
        ours = crossed_accuracy(right, np.zeros(300), members(who), members(seen), members(read))
        usual = accuracy(right, np.zeros(300), who, seed)
        held += ours.low <= truth <= ours.high
        over_people += usual.low <= truth <= usual.high
        width += (ours.high - ours.low) / 500
    assert 0.93 <= held / 500 <= 0.99 and width < 0.4
    assert (over_people / 500 < 0.88) == people_only_misses


# ---------------------------------------------------------------- tables

N, PEOPLE = 420, 6
INDEX = pd.DataFrame({"subject": np.arange(N) % PEOPLE, "clip": np.arange(N) // 21,
                      "label": np.array(SEED_VII.labels)[np.arange(N) // 21 % 7]}).astype({"subject": str})


@pytest.fixture
def corpus() -> Corpus:
    """Windows whose model is told its answers by :func:`answers_of`."""
    rng, names = np.random.default_rng(0), EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
    windows = SimpleNamespace(index=INDEX.assign(intensity=rng.uniform(size=N)))
    z, labels = rng.normal(size=(N, len(names.columns))), np.array([SEED_VII.index(label) for label in INDEX["label"]])
    return Corpus(windows, SEED_VII, SimpleNamespace(test=np.arange(N)), None, z, names, None, labels,
                  INDEX["subject"].to_numpy(), None, None, None)


ENGINE = InferenceEngine(None, None, np.zeros((N, 1)), {i: i for i in range(N)})


def answers_of(monkeypatch, share: float, seed: int = 0) -> list[int]:
    """A model right about EEG in a share of the cases and guessing without; returns the sizes of what it is asked."""
    rng, asked = np.random.default_rng(seed), []

    def answer(engine, items) -> Answers:
        asked.append(len(items))
        hears = engine is ENGINE and any(part["type"] == "eeg" for part in items[0].messages[0]["content"])
        chosen = [item.answer if hears and rng.uniform() < share else item.options[rng.integers(len(item.options))]
                  for item in items]
        return Answers(chosen, chosen, list(chosen))

    monkeypatch.setattr(tiers, "answer", answer)
    return asked


def test_tables_pool_item_seeds_and_split_strata(corpus, monkeypatch):
    asked = answers_of(monkeypatch, share=0.8)
    found = tiers_2_and_3(corpus, ENGINE, 98, 4, 0)
    kinds = found.scores["name"].unique()
    assert set(kinds) == {*TIER_2, *TIER_3} and set(found.scores["n"]) == {98}
    assert asked == [98, 25, 25, 24, 24, 98] * len(kinds)  # EEG, shuffled anew for each item seed, no EEG
    assert found.scores.groupby("group", sort=False)["role"].first().to_dict() == {
        EEGInput.EEG: Role.MODEL, EEGInput.SHUFFLED: Role.CONTROL, EEGInput.NONE: Role.CONTROL}
    seen = found.strata[found.strata["group"] == EEGInput.EEG]
    assert list(zip(seen["name"], seen["stratum"], strict=True)) == [
        (kind, stratum) for kind in ("zero_match", "zero_choose") for stratum in STRATA]
    assert set(seen.groupby("name")["n"].sum()) == {98}
    of_kind = found.scores[found.scores["group"] == EEGInput.EEG].set_index("name")
    for kind, own in seen.groupby("name"):
        assert np.average(own["score"], weights=own["n"]) == pytest.approx(of_kind.loc[kind, "score"])
    assert set(found.examples) == set(kinds)
    assert "stratum" in readable(found.strata) and "people only" in readable(found.scores)


def test_item_seeds_differ_in_their_items_and_are_seeded(corpus, monkeypatch):
    first, second = ([[part.draw("zero_match", 20) for part in tiers.examiners(corpus, 60, 3, seed)] for _ in range(2)]
                     for seed in (0, 1))
    assert first[0] == first[1] != second[0]
    assert first[0][0] != first[0][1] and all(item.stratum in STRATA and item.texts for item in first[0][0])
    assert len(tiers.examiners(corpus, 2, 5, 0)) == 2  # no item seed without an item


def test_the_spread_of_a_guesser_is_that_of_luck(corpus, monkeypatch):
    answers_of(monkeypatch, share=0.0)
    spread = tiers_2_and_3(corpus, ENGINE, 1200, 20, 0).item_seeds
    assert set(spread["seeds"]) == {20} and set(spread["items"]) == {60}
    assert 0.8 < (spread["sd"] / spread["sd by luck"]).mean() < 1.2
    assert (abs(spread["mean"] - spread["chance"]) < 4 * spread["sd by luck"] / np.sqrt(20)).all()
    assert (spread["min"] < spread["mean"]).all() and (spread["mean"] < spread["max"]).all()


def test_the_spread_is_that_of_the_scores_of_single_seeds():
    rows = pd.DataFrame({"name": "match", "group": "EEG", "item seed": [0, 0, 1, 1, 2, 2], "chance": 0.5,
                         "correct": [True, True, True, False, True, False]})
    (row,) = item_seed_spread(rows).to_dict("records")
    assert (row["mean"], row["min"], row["max"]) == pytest.approx((2 / 3, 0.5, 1.0))
    assert row["sd"] == pytest.approx(np.std([1, 0.5, 0.5], ddof=1)) and (row["items"], row["seeds"]) == (2, 3)
    assert row["sd by luck"] == pytest.approx(np.sqrt(2 / 9 / 2))


def test_controls_that_guess_contain_chance_over_item_seeds(corpus, monkeypatch):
    wrong = 0
    for seed in range(10):
        answers_of(monkeypatch, share=0.9, seed=seed)
        controls = controls_at_chance(tiers_2_and_3(corpus, ENGINE, 60, 5, seed).scores, subjects=PEOPLE)
        assert len(controls) == 18
        wrong += not controls["at_chance"].all()
    assert wrong <= 2  # one in twenty evaluations may


def test_one_item_seed_has_no_spread(corpus, monkeypatch):
    answers_of(monkeypatch, share=0.5)
    spread = tiers_2_and_3(corpus, ENGINE, 12, 1, 0).item_seeds
    assert spread["sd"].isna().all() and (spread["min"] == spread["max"]).all()


def test_ablations_are_asked_with_the_same_items(corpus, monkeypatch):
    asked = answers_of(monkeypatch, share=1.0)
    monkeypatch.setattr(tiers, "closed_set", lambda engine, items: np.eye(7)[[SEED_VII.index(i.answer) for i in items]])
    rows = ablation_rows("none", corpus, ENGINE, 10, 3, 0)
    assert [row["name"] for row in rows] == ["predict", "match", "zero_match"] and asked == [10, 10]
    assert all(row["score"] == 1.0 for row in rows)
