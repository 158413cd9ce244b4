"""Pretraining of a small language model from text alone, before stage 2: the tasks in words, without EEG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ..core.labels import LabelSet
from ..models.device import current_device
from ..models.language import ScratchParams, make_tokenizer, new_language_model
from ..models.logits import loss_at_labels
from ..models.processing import E2LLMProcessor
from ..tasks.items import drill_items, item_text, text_items
from .trainer import FitParams, Samples, examples_of, fit, item_collate, item_order

THINKING_SHARE = 0.5  # of the items that can do without a thought: how many have one


def train_language_model(label_set: LabelSet, size: ScratchParams, n_items: int, drill_steps: int, params: FitParams,
                         folder: Path, on_step: Callable[..., None] | None = None
                         ) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast, pd.DataFrame]:
    """Tokenizer and a small Qwen3, trained on text: first copying drills, then items of all tasks in words.

    The text holds no EEG, no zero-shot scenario and no zero-shot question form.

    Parameters
    ----------
    label_set : LabelSet
        Labels that the items are about.
    size : ScratchParams
        Size of the model and of its vocabulary.
    n_items : int
        Items after the drills.
    drill_steps : int
        Of ``params.steps``, those with drills.
    params : FitParams
        Schedule and seed.
    folder : Path
        Checkpoints; the caller removes it.
    on_step : callable, optional
        As for :func:`e2llm.training.trainer.fit`.
    """
    drills = drill_items(label_set, drill_steps * params.batch_size, params.seed)
    items = [*drills, *text_items(label_set, n_items, params.seed)]
    tokenizer = make_tokenizer([item_text(item) for item in items], size.vocab_size)
    model = new_language_model(tokenizer, size, params.seed).to(current_device())
    processor = E2LLMProcessor(tokenizer)
    examples = examples_of(items, processor, THINKING_SHARE, params.seed)
    lengths = [len(example["input_ids"]) for example in examples[len(drills) :]]
    after_drills = item_order(lengths, replace(params, steps=params.steps - drill_steps))
    order = np.concatenate([np.arange(len(drills)), len(drills) + after_drills])
    history = fit(model, Samples(order, examples.__getitem__), item_collate(processor, None, {}), params, folder,
                  on_step=on_step, call=loss_at_labels)
    return model, tokenizer, history
