"""What a language model understands of scenarios without any EEG: the zero-shot tier with words in its place."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from ..core.chat import Item
from ..core.labels import SEED_VII
from ..models.inference import InferenceEngine, closed_set, generate
from ..models.processing import E2LLMProcessor
from ..tasks import scenarios
from ..tasks.items import ItemBuilder, parse_answer, scenario_question
from ..tasks.segments import imagined_segments

_LONGEST_THOUGHT = 48  # tokens


class _OneStratum(ItemBuilder):
    """Item builder whose scenarios are the zero-shot texts of one stratum."""

    stratum: str

    def _stratum(self, zero_shot: bool) -> str:
        return self.stratum


def items_in_words(stratum: str, n: int, seed: int) -> dict[str, list[Item]]:
    """Items about the zero-shot texts of a stratum; "match" and "choose" in wordings that no one was taught.

    Parameters
    ----------
    stratum : str
        One of :data:`e2llm.tasks.scenarios.STRATA`.
    n, seed : int
        Number of items of "match" and of "choose", and seed of the draws. Of "scenario" there is one item a text.
    """
    builder = _OneStratum(imagined_segments(SEED_VII, 200, np.random.default_rng(seed)), SEED_VII, seed)
    builder.stratum = stratum
    asked = [scenario_question(label, text.text, SEED_VII, builder.rng)
             for label in SEED_VII.labels for text in scenarios.zero_shot_scenarios(label, stratum)]
    return {"scenario": asked, "match": builder.draw("zero_match", n), "choose": builder.draw("zero_choose", n)}


def scores_in_words(model, tokenizer, n: int = 300, seed: int = 0) -> pd.DataFrame:
    """Share of right answers by stratum and kind, with a Wilson interval.

    The interval takes items as independent. Items of "match" and "choose" share texts, so theirs is too narrow.

    "scenario" is answered from the closed set without a thought; "match" and "choose" are answered in free text after a
    thought, and what is no option counts as wrong.

    Parameters
    ----------
    model, tokenizer
        From :func:`e2llm.models.language.load_language_model`.
    n, seed : int
        As for :func:`items_in_words`.

    Returns
    -------
    DataFrame
        Columns stratum, kind, items, chance, correct, low, high (percent).
    """
    engine, rows = InferenceEngine(model, E2LLMProcessor(tokenizer), np.empty(0), {}), []
    for stratum in scenarios.STRATA:
        for kind, items in items_in_words(stratum, n, seed).items():
            if kind == "scenario":
                best = closed_set(engine, items).argmax(axis=1)
                said = [item.options[i] for item, i in zip(items, best, strict=True)]
            else:
                texts = generate(engine, items, True, _LONGEST_THOUGHT)
                said = [parse_answer(text, item.options) for item, text in zip(items, texts, strict=True)]
            right = sum(one == item.answer for one, item in zip(said, items, strict=True))
            interval = binomtest(right, len(items)).proportion_ci(method="wilson")
            rows.append({"stratum": stratum, "kind": kind, "items": len(items), "chance": 100 / len(items[0].options),
                         "correct": 100 * right / len(items), "low": 100 * interval.low, "high": 100 * interval.high})
    return pd.DataFrame(rows).round(1)
