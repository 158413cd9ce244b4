"""Closed-set answers: scored together against a full pass an option, generation one by one, and batched generation.

The model is untrained, so generation is held to the length of the longest label: a trained one stops there by itself.
The scores must be those of full passes. Free text is compared in batches of 128, of 16, and one by one, and with the
cache of transformers, which copies all keys and values for each token.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import numpy as np
import torch
from common import Row, compare, main_of
from workload import EEG_TOKENS, SLOTS, language_model, processor, workload

from e2llm.core.chat import Item
from e2llm.models import text_cache
from e2llm.models.inference import InferenceEngine, generate, score_options
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.tasks.items import prediction_items

N_ITEMS, N_SLOW, N_TEXTS, TEXT = 128, 16, 128, 48


def engine() -> InferenceEngine:
    w = workload()
    model = E2LLMForConditionalGeneration.join(language_model(), w.tokenizer, "benchmark", None, w.tokens.shape[-1],
                                               EEG_TOKENS, 0, w.probe, SLOTS)
    return InferenceEngine(model.eval(), processor(), w.tokens, w.position)


@torch.no_grad()
def full_passes(asked: InferenceEngine, items: list[Item]) -> list[np.ndarray]:
    """Every option of every item read with its prompt, one text at a time."""
    scores, eos = [], asked.processor.tokenizer.eos_token_id
    for item in items:
        given = asked.inputs([item], thinking=False)
        row = []
        for option in item.options:
            ids = torch.tensor([[*asked.processor.ids(option), eos]])
            whole = torch.cat([given["input_ids"], ids], dim=1)
            logits = asked.model(input_ids=whole, eeg_features=given["eeg_features"]).logits[0].log_softmax(-1)
            at = torch.arange(given["input_ids"].shape[1] - 1, whole.shape[1] - 1)
            row.append(float(logits[at, ids[0]].sum()))
        scores.append(np.array(row))
    return scores


def with_usual_cache(work: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """The same, with the cache that transformers makes."""
    def usual() -> list[str]:
        with mock.patch.object(text_cache, "text_cache", lambda _model: None):
            return work()

    return usual


def rows(repeats: int) -> Iterator[Row]:
    asked, w = engine(), workload()
    windows = np.arange(N_ITEMS) % len(w.corpus.windows)
    items = prediction_items(w.corpus, windows, 0)
    longest = max(len(asked.processor.ids(label)) for label in w.labels.labels) + 1

    def largest(a: list[np.ndarray], b: list[np.ndarray]) -> float:
        return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))

    def texts(some: list[Item], batch: int, length: int) -> Callable[[], list[str]]:
        return partial(generate, asked, some, thinking=False, max_new_tokens=length, batch=batch)

    few = items[:N_SLOW]
    yield compare(f"scored : a full pass an option, {N_SLOW} items", partial(score_options, asked, few),
                  partial(full_passes, asked, few), largest, 1e-4, repeats, goal=10.0)
    yield compare(f"scored : generated one by one, {N_SLOW} items", partial(score_options, asked, few),
                  texts(few, 1, longest), repeats=repeats, goal=10.0)
    yield compare(f"scored : generated together, {N_ITEMS} items", partial(score_options, asked, items),
                  texts(items, N_ITEMS, longest), repeats=repeats, goal=1.0)

    def unequal(a: list[str], b: list[str]) -> float:
        return float(np.mean([one != other for one, other in zip(a, b, strict=True)]))

    texted = items[:N_TEXTS]
    yield compare(f"{N_TEXTS} texts of {TEXT} tokens, 128 : 16 at a time", texts(texted, 128, TEXT),
                  texts(texted, 16, TEXT), unequal, 0.02, repeats)
    yield compare(f"{N_TEXTS} texts of {TEXT} tokens, room for tokens to come : usual cache", texts(texted, 128, TEXT),
                  with_usual_cache(texts(texted, 128, TEXT)), unequal, 0.0, repeats)
    yield compare(f"{N_SLOW} texts of {TEXT} tokens, together : one by one", texts(few, 128, TEXT), texts(few, 1, TEXT),
                  unequal, 0.1, min(repeats, 3))


if __name__ == "__main__":
    sys.exit(main_of(__doc__, rows, ["torch", "transformers"]))
