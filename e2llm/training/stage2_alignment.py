"""TODO purpose of training.stage2_alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..core.chat import Item
from ..data.dataset import Corpus
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..models.projector import EvidenceProbe
from ..tasks.items import ItemBuilder
from .trainer import FitParams, Samples, examples_of, fit, item_collate, item_order, trainable


def train_projector(language, tokenizer, source: str, items: list[Item], tokens: np.ndarray, position: dict[int, int],
                    eeg_tokens: int, noise: float, params: FitParams, folder: Path, tell=None, evidence_probe: EvidenceProbe | None = None,
                    evidence_slots: int = 0) -> tuple[E2LLMForConditionalGeneration, pd.DataFrame]:
    """Alignment: only the projector learns, so that the frozen language model says the description of a segment."""
    model = E2LLMForConditionalGeneration.join(language, tokenizer, source, None, tokens.shape[-1], eeg_tokens, params.seed, evidence_probe, evidence_slots)
    processor = E2LLMProcessor(tokenizer, eeg_tokens, evidence_slots)
    list(trainable(model, "projector."))
    examples = examples_of(items, processor, 0.0, params.seed)
    order = item_order([len(example["input_ids"]) for example in examples], params)
    history = fit(model, Samples(order, examples.__getitem__), item_collate(processor, tokens, position, noise), params, folder, tell=tell)
    return model, history


def alignment_items(corpus: Corpus, part: str, n: int, seed: int) -> list[Item]:
    """Descriptions of segments, and their labels: what alignment makes the language model say."""
    builder = ItemBuilder.of_part(corpus, part, seed)
    return [*builder.draw("describe", n // 2), *builder.draw("predict", n - n // 2)]
