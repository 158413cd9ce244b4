"""TODO purpose of evaluation.control_models."""

from __future__ import annotations

import numpy as np
import torch

from ..data.dataset import Corpus
from ..models.eegpt import EmotionEncoder
from ..models.inference import InferenceEngine, closed_set
from ..tasks.items import prediction_items
from .controls import Answerer


@torch.no_grad()
def _encode(model: EmotionEncoder, corpus: Corpus, signals: np.ndarray, norm_groups: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Summary tokens of signals, shape (n, 16, summary tokens, width)."""
    device = next(model.parameters()).device
    parts = [model.encoder(corpus.equalise(signals[i : i + batch], norm_groups[i : i + batch]).to(device)) for i in range(0, len(signals), batch)]
    return torch.cat(parts).cpu()


def stage_1_head(model: EmotionEncoder, corpus: Corpus) -> Answerer:
    """The encoder's own classifier."""

    @torch.no_grad()
    def answer(signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        return model.classifier(model.pooled(_encode(model, corpus, signals, norm_groups))).argmax(dim=1).numpy()

    return answer


def language_model(engine: InferenceEngine, model: EmotionEncoder, corpus: Corpus, seed: int) -> Answerer:
    """The language model's most probable label, without a thought."""
    items, test = prediction_items(corpus, corpus.split.test, seed), corpus.split.test

    def answer(signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        tokens = _encode(model, corpus, signals, norm_groups).flatten(2).numpy()
        predicted_evidence = InferenceEngine(engine.model, engine.processor, tokens, {int(row): i for i, row in enumerate(test)})
        return closed_set(predicted_evidence, items).argmax(axis=1)

    return answer
