"""What an answer from the thought costs, and that its causes are measured on the way of a text."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from e2llm.core.bands import BANDS
from e2llm.core.claims import GRADED, EvidenceNames, salient_claims
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS
from e2llm.evaluation import from_thought
from e2llm.evaluation.from_thought import SecondPass, pooled_price, price, price_in_words, price_table
from e2llm.evaluation.thought_causes import causes_from_thought
from e2llm.models.evidence_rule import EvidenceRule
from e2llm.tasks.second_pass import Asked

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS), GRADED)


def test_a_price_by_hand():
    truth, subjects = ["A", "A", "B", "A"], np.array(["1", "1", "2", "2"])
    row = price("match", truth, ["A", "A", "B", "B"], ["A", "B", "A", "A"], subjects)
    assert row["from the EEG"] == 0.75 and row["from the thought"] == 0.5
    assert row["difference"] == pytest.approx(-0.25) and row["low"] == pytest.approx(-0.5) and row["n"] == 4
    balanced = price("predict", truth, ["A", "A", "B", "B"], ["A", "B", "A", "A"], subjects, ["A", "B"])
    assert balanced["from the EEG"] == pytest.approx((2 / 3 + 1) / 2)
    assert balanced["difference"] == pytest.approx(2 / 6 - (2 / 3 + 1) / 2)
    assert price_table(pd.DataFrame([row]))["difference"].iloc[0].startswith("-25.0 (-50.0 to ")


@pytest.mark.parametrize(("difference", "low", "high", "said"), [
    (-0.064, -0.102, -0.023, "costs 6.4 points of balanced accuracy against one from the EEG (2.3 to 10.2)"),
    (-0.01, -0.05, 0.03, "costs 1.0 points of balanced accuracy against one from the EEG (-3.0 to 5.0)"),
    (0.02, -0.01, 0.05, "gains 2.0 points of balanced accuracy against one from the EEG (-1.0 to 5.0)")])
def test_the_price_in_words(difference, low, high, said):
    rows = pd.DataFrame([{"name": "rank", "difference": 0.5, "low": 0.4, "high": 0.6},
                         {"name": "predict", "difference": difference, "low": low, "high": high}])
    assert price_in_words(rows) == f"An answer from the thought {said}."


def test_nothing_is_lost_where_both_say_the_same():
    said = ["A", "B", "B", "A"]
    row = price("match", ["A", "B", "A", "A"], said, said, np.array(["1", "1", "2", "2"]))
    assert row["difference"] == row["low"] == row["high"] == 0


def test_one_person_tells_nothing_of_what_others_would_lose():
    for labels in (None, ["A", "B"]):
        row = price("match", ["A", "A"], ["A", "A"], ["A", "B"], np.array(["1", "1"]), labels)
        assert [row[name] for name in ("difference", "low", "high")] == [-0.5, -1, 1]


@pytest.fixture(scope="module")
def world() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    z = 1.3 * rng.normal(size=(160, len(NAMES.columns)))
    claims = [salient_claims(row, NAMES) for row in z]
    labels = np.array(SEED_VII.labels)[(z @ rng.normal(size=(z.shape[1], 7))).argmax(axis=1)]
    rule = EvidenceRule().fit(claims, list(labels), NAMES)
    items = [SimpleNamespace(subject=f"s{i % 8}") for i in range(len(z))]
    return SimpleNamespace(
        second=SimpleNamespace(shares=lambda each: rule.probabilities(each, SEED_VII.labels)),
        corpus=SimpleNamespace(evidence_names=NAMES, label_set=SEED_VII),
        explanations=SimpleNamespace(items=items, claims=claims))


def test_an_answer_computed_from_claims_follows_them_and_nothing_else(world):
    found = causes_from_thought(world.second, world.corpus, world.explanations, 0).measures.set_index("name")
    score = found["score"]
    assert score["directed success"] == 1 and found.loc["directed success", "n"] == 80  # every second window
    assert score["turned round"] > 0.9
    for name in ("reordered claims", "unrelated sentence", "other wording"):
        assert score[f"unchanged: {name}"] == 1
    assert score["direct effect"] == score["direct effect, distance"] == 0
    assert score["share of the effect that claims carry"] == pytest.approx(1)


def test_a_wording_that_the_grammar_does_not_read_would_be_seen(world, monkeypatch):
    from e2llm.evaluation import thought_causes

    monkeypatch.setattr(thought_causes, "evidence_sentence", lambda *_: "It rains.")
    score = causes_from_thought(world.second, world.corpus, world.explanations, 0).measures.set_index("name")["score"]
    assert score["unchanged: other wording"] < 0.5


def test_the_price_over_folds_is_that_of_all_people_together():
    rng, labels = np.random.default_rng(3), ["rest", "count", "seen in no test"]
    folds = []
    for people in (["1", "2"], ["3", "4"], ["5", "6"]):
        truth = rng.permutation(np.repeat(labels[:2], 12))
        table = pd.DataFrame({"subject": rng.choice(people, 24), "label": truth})
        for name, right in (("LLM", 0.9), ("LLM, from the thought", 0.6)):
            table[name] = np.where(rng.uniform(size=24) < right, truth, rng.choice(labels, 24))
        folds.append(table.assign(**{f"p({label})": 1 / 3 for label in labels}))
    together = pd.concat(folds)
    row = pooled_price(folds).iloc[0]
    scores = {name: np.mean([(given == label)[together["label"] == label].mean() for label in labels[:2]])
              for name, given in together[["LLM", "LLM, from the thought"]].items()}
    assert row["from the EEG"] == pytest.approx(scores["LLM"]) and row["n"] == 72
    assert row["from the thought"] == pytest.approx(scores["LLM, from the thought"])
    assert row["difference"] == pytest.approx(row["from the thought"] - row["from the EEG"])
    assert row["low"] < row["difference"] < row["high"] < 0
    without = [table.drop(columns="LLM, from the thought") for table in folds]
    assert pooled_price(without).empty, "these runs answered from the EEG alone"


def test_equal_claims_are_read_once_by_one_model(world, monkeypatch):
    """Tasks of all tiers ask about the same windows; another model reads them anew."""
    asked: list = []

    def closed_set(engine, items):
        asked.append((engine, len(items)))
        return np.arange(len(items) * len(items[0].options), dtype=float).reshape(len(items), -1)

    monkeypatch.setattr(from_thought, "closed_set", closed_set)
    one, other, third = world.explanations.claims[:3]
    second = SecondPass("first", None, NAMES, SEED_VII, has_intensity=True)
    found = second.shares([one, other, one])
    assert asked == [("first", 2)] and found[0].tolist() == found[2].tolist() == list(range(7))
    again = second.shares([other, third])
    assert asked == [("first", 2), ("first", 1)] and again[0].tolist() == found[1].tolist()
    second.shares([one], Asked.INTENSITY)
    replace(second, engine="second").shares([one])
    assert asked[2:] == [("first", 1), ("second", 1)]
