"""A step of the language stage: logits at the places before a label, against a model's own loss from all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial

from common import Row, compare, floor_s, main_of
from workload import language_model, workload

from e2llm.models.logits import loss_at_labels
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.items import text_items
from e2llm.training.trainer import FitParams, examples_of, item_collate, item_order

STEPS, BATCH = 6, 16


def batches() -> list[dict]:
    """Batches of the language stage, in its order."""
    processor = E2LLMProcessor(workload().tokenizer)
    examples = examples_of(text_items(workload().labels, 400, 0), processor, 0.5, 0)
    order = item_order([len(example["input_ids"]) for example in examples], FitParams(STEPS, BATCH, 1e-3))
    collate = item_collate(processor, None, {})
    return [collate([examples[i] for i in some]) for some in order.reshape(STEPS, BATCH)]


def training(model, call: Callable, given: list[dict]) -> list[float]:
    """Forward and backward of every batch; the losses."""
    losses = []
    for batch in given:
        model.zero_grad()
        loss = call(model, **batch).loss
        loss.backward()
        losses.append(loss.item())
    return losses


def rows(repeats: int) -> Iterator[Row]:
    model, given = language_model().train(), batches()
    ours = partial(training, model, loss_at_labels, given)
    yield compare(f"{STEPS} steps of {BATCH} texts", ours, partial(training, model, type(model).__call__, given),
                  lambda a, b: max(abs(x - y) for x, y in zip(a, b, strict=True)), 1e-5, repeats, goal=1.4,
                  floor_s=floor_s(ours))


if __name__ == "__main__":
    sys.exit(main_of(__doc__, rows, ["torch", "transformers"]))
