"""Stages 2 and 3 against the straightforward loop: encoder in every step, items padded as drawn, logits everywhere.

Both sides see the same items in the same order of their own batches, without noise; the losses compared are those of
one pass over all of them, weighted by labels.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from common import Row, compare, floor_s, main_of
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from workload import EEG_TOKENS, SLOTS, language_model, processor, workload

from e2llm.core.chat import IGNORE
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.training.stage2_alignment import alignment_items
from e2llm.training.stage3_instruction import LORA_TARGETS, instruction_items, replay_items
from e2llm.training.trainer import FitParams, examples_of, item_collate, item_order, train_only

BATCH, STEPS = 16, 8
KINDS = {"predict": 36, "describe": 12, "select": 12, "compare": 12, "rank": 12, "match": 12, "choose": 12}


def joined(adapter: bool):
    """Untrained model of stage 2, or of stage 3 with an adapter."""
    w = workload()
    model = E2LLMForConditionalGeneration.join(language_model(), w.tokenizer, "benchmark", None, w.tokens.shape[-1],
                                               EEG_TOKENS, 0, w.probe, SLOTS)
    train_only(model, *([] if adapter else ["projector."]))
    if not adapter:
        return model.train()
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=32, target_modules=LORA_TARGETS, modules_to_save=["projector"])
    return get_peft_model(model, config).train()


def ours(model, examples: list[dict]) -> Callable[[], float]:
    """Tokens computed before, batches of similar length, logits at labels."""
    w = workload()
    order = item_order([len(example["input_ids"]) for example in examples], FitParams(STEPS, BATCH, 1e-3))
    collate = item_collate(processor(), w.tokens, w.position)
    assert len(set(order.tolist())) == len(examples)

    def work() -> float:
        total = 0.0
        for some in order.reshape(STEPS, BATCH):
            model.zero_grad()
            batch = collate([examples[i] for i in some])
            loss = model(**batch)["loss"]
            loss.backward()
            total += loss.item() * int((batch["labels"] != IGNORE).sum())
        return total

    return work


def straightforward(model, examples: list[dict]) -> Callable[[], float]:
    """The encoder reads the windows of every batch, texts are padded as they were drawn, logits are made everywhere."""
    w = workload()
    corpus, pad = w.corpus, processor().pad

    def work() -> float:
        total = 0.0
        for start in range(0, len(examples), BATCH):
            model.zero_grad()
            some = examples[start : start + BATCH]
            ids, mask = pad([example["input_ids"] for example in some], "right")
            labels, _ = pad([example["labels"] for example in some], "right", IGNORE)
            given = {"input_ids": ids, "attention_mask": mask}
            rows = np.array([w.position[window] for example in some for window in example["windows"]], dtype=int)
            if len(rows):
                with torch.no_grad():
                    signal = corpus.equalize(corpus.windows.data[rows], corpus.norm_groups[rows])
                    given["eeg_features"] = w.encoder(signal).flatten(2)
            logits = model(**given)["logits"]
            loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE)
            loss.backward()
            total += loss.item() * int((labels != IGNORE).sum())
        return total

    return work


def rows(repeats: int) -> Iterator[Row]:
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")
    w, n = workload(), STEPS * BATCH
    items = {"stage 2": alignment_items(w.corpus, "train", n, 0),
             "stage 3": [*instruction_items(w.corpus, "train", KINDS, 0), *replay_items(w.corpus, n, 0)][:n]}
    for name, drawn in items.items():
        drawn = [drawn[i] for i in np.random.default_rng(0).permutation(len(drawn))]
        examples = examples_of(drawn, processor(), 0.5 if name == "stage 3" else 0.0, 0)
        models = [joined(name == "stage 3") for _ in range(2)]
        work = ours(models[0], examples)
        yield compare(f"{name}, {STEPS} steps of {BATCH} items", work, straightforward(models[1], examples),
                      lambda a, b: abs(a - b) / abs(b), 1e-5, repeats, goal=3.0, floor_s=floor_s(work))


if __name__ == "__main__":
    sys.exit(main_of(__doc__, rows, ["torch", "transformers", "peft"]))
