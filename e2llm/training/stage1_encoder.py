"""TODO purpose of training.stage1_encoder."""

from __future__ import annotations

import numpy as np
import torch

from ..data.dataset import Corpus
from ..models.eegpt import EEGPT
from ..models.encoders import EncoderConfig, make_encoder, start


def new_encoder(corpus: Corpus, size: EncoderConfig, weights: str, seed: int) -> tuple[EEGPT, str]:
    """An encoder with its start (:func:`e2llm.models.eegpt_weights.start_encoder`: weights, physiology or noise), and a sentence on it."""
    torch.manual_seed(seed)
    encoder = make_encoder(size, corpus.windows.ch_names)
    return encoder, start(encoder, weights)


@torch.no_grad()
def pooled_tokens(encoder: EEGPT, corpus: Corpus, rows: np.ndarray, batch: int = 64) -> np.ndarray:
    """Mean token of every window by an untrained encoder: the picture before training."""
    encoder.eval()
    data, norm_groups = corpus.windows.data, corpus.norm_groups
    parts = [encoder(corpus.equalise(data[some], norm_groups[some])).mean(1).flatten(1).numpy()
             for some in np.array_split(rows, max(1, len(rows) // batch))]
    return np.concatenate(parts)
