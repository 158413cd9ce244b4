"""Stage 2: train the projector, so that the frozen language model writes the description of a segment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.chat import Item
from ..data.dataset import Corpus
from ..models.evidence_probe import EvidenceProbe
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..tasks.items import ItemBuilder
from .trainer import FitParams, examples_of, fit_examples, item_collate, label_tokens, train_only


def train_projector(language, tokenizer, source: str, items: list[Item], tokens: np.ndarray, position: dict[int, int],
                    eeg_tokens: int, noise: float, params: FitParams, folder: Path,
                    on_step: Callable[..., None] | None = None, evidence_probe: EvidenceProbe | None = None,
                    evidence_slots: int = 0, levels: str = "low_high"
                    ) -> tuple[E2LLMForConditionalGeneration, pd.DataFrame]:
    """Cross-modal alignment: only the projector is trained.

    Parameters
    ----------
    language, tokenizer, source, eeg_tokens, evidence_probe, evidence_slots, levels
        See :meth:`e2llm.models.modeling.E2LLMForConditionalGeneration.join`.
    items : list of Item
        From :func:`alignment_items`.
    tokens, position, noise
        See :func:`e2llm.training.trainer.item_collate`.
    params : FitParams
        Schedule and seed.
    folder : Path
        Checkpoints; the caller removes it.
    on_step : callable, optional
        As for :func:`e2llm.training.trainer.fit`.

    Returns
    -------
    model : E2LLMForConditionalGeneration
        With the trained projector.
    history : DataFrame
        Loss by step.
    """
    model = E2LLMForConditionalGeneration.join(language, tokenizer, source, None, tokens.shape[-1], eeg_tokens,
                                               params.seed, evidence_probe, evidence_slots, levels)
    processor = E2LLMProcessor(tokenizer, eeg_tokens, evidence_slots, levels)
    train_only(model, "projector.")
    examples = examples_of(items, processor, 0.0, params.seed)
    collate = item_collate(processor, tokens, position, noise, label_tokens(examples, processor, params.seed))
    return model, fit_examples(model, examples, collate, params, folder, on_step=on_step)


def alignment_items(corpus: Corpus, part: str, n: int, seed: int) -> list[Item]:
    """Descriptions of segments and their labels: the text that alignment trains on.

    Parameters
    ----------
    corpus : Corpus
        Dataset.
    part : str
        Part of its split: "train", "val" or "test".
    n, seed : int
        Number of items, and seed of the draw.
    """
    builder = ItemBuilder.of_part(corpus, part, seed)
    return [*builder.draw("describe", n // 2), *builder.draw("predict", n - n // 2)]
