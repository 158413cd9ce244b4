"""Scores pooled over folds are those of all people together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from e2llm.assessment import pooled

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
    assert table.loc["LLM", "chance"] == 0.5 and table.loc["LLM", "low"] < table.loc["LLM", "score"] < table.loc["LLM", "high"]


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
