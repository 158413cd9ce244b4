"""Scores pooled over folds are those of all people together."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from e2llm.evaluation.controls import Role
from e2llm.evaluation.metrics import Score
from e2llm.evaluation.tiers import pooled, readable, score_of, tier_1_row

LABELS = ("rest", "count")


def fold(people: list[str], seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 30
    table = pd.DataFrame({"id": np.arange(n), "subject": rng.choice(people, n), "session": 1, "clip": np.arange(n) // 3,
                          "window": np.arange(n) % 3, "label": rng.choice(LABELS, n)})
    table["LLM"] = np.where(rng.uniform(size=n) < 0.7, table["label"], rng.choice(LABELS, n))
    table["free text"] = table["LLM"].where(rng.uniform(size=n) < 0.9)  # the rest could not be read
    for label in LABELS:
        table[f"p({label})"] = 0.5
    return table


FOLDS = [fold(["1", "2"], 0), fold(["3", "4"], 1), fold(["5", "6"], 2)]


def test_pooled_scores_are_those_of_all_folds_together():
    table = pooled(FOLDS).set_index("name")
    together = pd.concat(FOLDS)
    assert table.loc["LLM", "score"] == pytest.approx(balanced_accuracy_score(together["label"], together["LLM"]))
    assert list(table.index) == ["LLM", "free text"] and set(table["subjects"]) == {6} and set(table["n"]) == {90}
    assert table.loc["LLM", "chance"] == 0.5 and table.loc["LLM", "low"] < table.loc["LLM",
                                                                                     "score"] < table.loc["LLM", "high"]


def test_answers_that_could_not_be_read_are_wrong():
    table = pooled(FOLDS).set_index("name")
    together = pd.concat(FOLDS)
    right = [(together["free text"] == label)[together["label"] == label].mean() for label in LABELS]
    assert table.loc["free text", "score"] == pytest.approx(np.mean(right))


def test_a_window_in_two_folds_is_refused():
    with pytest.raises(ValueError, match="tested in several folds"):
        pooled([FOLDS[0], FOLDS[0]])


def test_folds_of_other_models_are_refused():
    with pytest.raises(ValueError, match="differ only in their fold"):
        pooled([FOLDS[0], FOLDS[1].rename(columns={"LLM": "other"})])


def test_a_row_becomes_a_score_with_either_of_its_intervals():
    columns = ["name", "group", "score", "low", "high", "chance", "n", "clips low", "clips high"]
    table = pd.DataFrame([["LLM", "model", 0.5, 0.4, 0.6, 0.25, 8, 0.2, 0.7],
                          ["LLM", "control", 0.3, 0.26, 0.4, 0.25, 8, 0.1, 0.5]], columns=columns)
    assert score_of(table, "LLM") == Score(0.5, 0.4, 0.6, 0.25, 8)
    over_people, over_both = (score_of(table, "LLM", "control", clips=clips) for clips in (False, True))
    assert over_both == Score(0.3, 0.1, 0.5, 0.25, 8) and over_both.contains_chance and not over_people.contains_chance
    with pytest.raises(KeyError, match="No row 'EEGNet'"):
        score_of(table, "EEGNet")


def test_the_role_of_a_row_is_said_and_not_read_from_its_name():
    corpus = SimpleNamespace(split=SimpleNamespace(test=np.arange(8)), labels=np.tile([0, 1], 4),
                             subjects=np.repeat(["a", "b"], 4),
                             label_set=LABELS, windows=SimpleNamespace(index=pd.DataFrame({"clip": np.arange(8)})))
    rows = [tier_1_row(corpus, name, corpus.labels, role)
            for name, role in (("EEGNet, z-scored", Role.BASELINE), ("LLM, no EEG", "control"))]
    assert [row["role"] for row in rows] == [Role.BASELINE, Role.CONTROL] and "group" not in rows[0]
    assert readable(pd.DataFrame(rows))["role"].tolist() == ["baseline", "control"]
    with pytest.raises(ValueError, match="'EEG' is not a valid Role"):
        tier_1_row(corpus, "LLM", corpus.labels, "EEG")


def test_a_table_without_groups_has_scores_too():
    table = pd.DataFrame([["LLM", "model", 0.5, 0.4, 0.6, 0.25, 8]],
                         columns=["name", "role", "score", "low", "high", "chance", "n"])
    assert score_of(table, "LLM") == Score(0.5, 0.4, 0.6, 0.25, 8)
