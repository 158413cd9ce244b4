"""Scenarios in words: their items are the held-out texts, and the scores are shares with Wilson's interval."""

from __future__ import annotations

import numpy as np
import pytest

from e2llm.core.chat import END_THINK
from e2llm.core.labels import SEED_VII
from e2llm.evaluation import in_words
from e2llm.tasks import scenarios
from e2llm.tasks.items import question_text


@pytest.mark.parametrize("stratum", scenarios.STRATA)
def test_items_show_texts_of_one_stratum_that_nobody_was_taught(stratum):
    items = in_words.items_in_words(stratum, 12, seed=3)
    own, others = ({text.text for label in SEED_VII.labels for other in scenarios.STRATA if (other == stratum) == same
                    for text in scenarios.zero_shot_scenarios(label, other)} for same in (True, False))
    assert len(items["scenario"]) == len(own) and len(items["match"]) == len(items["choose"]) == 12
    for kind in ("scenario", "match", "choose"):
        for item in items[kind]:
            shown = " ".join([question_text(item), *item.options])
            assert any(text in shown for text in own) and not any(text in shown for text in others - own)
    assert {item.answer for item in items["scenario"]} == set(SEED_VII.labels)
    assert items == in_words.items_in_words(stratum, 12, seed=3) != in_words.items_in_words(stratum, 12, seed=4)


@pytest.fixture
def answering(monkeypatch):
    """Replaces the model: how many of the first items of each kind are answered rightly; free text may be no option."""

    def answer(n_right: int) -> None:
        def probabilities(engine, items):
            right = np.array([item.options.index(item.answer) for item in items])
            wrong = np.where(np.arange(len(items)) < n_right, right, (right + 1) % len(items[0].options))
            return np.eye(len(items[0].options))[wrong]

        def texts(engine, items, thinking, longest):
            return [f"<think>\nwords\n{END_THINK}\n\n{item.answer if i < n_right else 'no option'}"
                    for i, item in enumerate(items)]

        monkeypatch.setattr(in_words, "closed_set", probabilities)
        monkeypatch.setattr(in_words, "generate", texts)
        for name in ("InferenceEngine", "E2LLMProcessor"):
            monkeypatch.setattr(in_words, name, lambda *_: None)

    return answer


@pytest.mark.parametrize("n_right", [0, 5, 20])
def test_scores_are_shares_with_a_wilson_interval(answering, n_right):
    answering(n_right)
    table = in_words.scores_in_words(None, None, n=20)
    assert table["stratum"].unique().tolist() == list(scenarios.STRATA) and len(table) == 9
    for row in table[table["kind"] != "scenario"].itertuples():
        share, z = n_right / 20, 1.959964
        middle, half = share + z**2 / 40, z * np.sqrt(share * (1 - share) / 20 + z**2 / 1600)
        low, high = (100 * (middle + sign * half) / (1 + z**2 / 20) for sign in (-1, 1))
        assert (row.items, row.correct) == (20, 100 * share)
        assert (row.low, row.high) == (pytest.approx(low, abs=0.06), pytest.approx(high, abs=0.06))
    told = table[table["kind"] == "scenario"]
    wanted = 100 * np.minimum(n_right, told["items"]) / told["items"]
    assert (told["correct"] - wanted).abs().max() <= 0.05 and set(told["chance"]) == {14.3}
