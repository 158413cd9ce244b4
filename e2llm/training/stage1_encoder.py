"""Stage 1: train the encoder to tell emotions apart, and fit the evidence probe on its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..data.dataset import Corpus
from ..models.device import current_device
from ..models.eegpt import EEGPT, N_PATCHES, PATCH, SFREQ
from ..models.eegpt_weights import NAMED_INITIALIZATIONS
from ..models.encoders import EncoderConfig, initialize, make_encoder
from ..models.evidence_probe import EvidenceProbe
from .augmentation import AugmentedWindows, fit_evidence_probe
from .losses import EmotionEncoder, HeadParams
from .trainer import FitParams, Samples, encode_rows, fit, mixed_order, signal_collate

PRETRAINED_S = N_PATCHES * PATCH / SFREQ  # of EEGPT's released weights
TERMS = ("ce", "supcon", "spectral", "change")  # of the loss, in the history


@dataclass(frozen=True)
class TrainedEncoder:
    """What stage 1 makes; rows are those of ``corpus.split.used``.

    Parameters
    ----------
    model : EmotionEncoder
        Encoder and head, on the CPU.
    initialization : str
        A sentence on the weights before training.
    history : DataFrame
        Loss and its terms.
    tokens : ndarray, shape (n_rows, n_times, token_width)
        Of the frozen encoder, memory-mapped.
    evidence_probe : EvidenceProbe
        Fitted on tokens of training windows.
    predicted_evidence : ndarray, shape (n_rows, n_evidence)
        What the probe predicts.
    logits : ndarray, shape (n_rows, n_labels)
        Of the head.
    before, after : ndarray, shape (n_rows, token_width)
        Mean tokens before and after training.
    """

    model: EmotionEncoder
    initialization: str
    history: pd.DataFrame
    tokens: np.ndarray
    evidence_probe: EvidenceProbe
    predicted_evidence: np.ndarray
    logits: np.ndarray
    before: np.ndarray
    after: np.ndarray


def new_encoder(corpus: Corpus, size: EncoderConfig, weights: str, seed: int) -> tuple[EEGPT, str]:
    """An initialized encoder on the device of the policy, and a sentence on its initialization.

    Parameters
    ----------
    corpus : Corpus
        Its channels are those of the encoder.
    size : EncoderConfig
        Size.
    weights : str
        See :func:`e2llm.models.encoders.initialize`.
    seed : int
        Of random weights.
    """
    torch.manual_seed(seed)
    encoder = make_encoder(size, corpus.windows.ch_names)
    said = initialize(encoder, weights)
    if (isinstance(encoder, EEGPT) and weights not in NAMED_INITIALIZATIONS
            and (window_s := corpus.windows.window_s) != PRETRAINED_S):
        said += f"; EEGPT was pretrained on windows of {PRETRAINED_S:g} s, these last {window_s:g} s"
    return encoder.to(current_device()), said


@torch.no_grad()
def _pooled_tokens(encoder: EEGPT, corpus: Corpus, rows: np.ndarray, batch: int = 16) -> np.ndarray:
    """Mean token of windows by an encoder, shape (n_rows, token_width): the picture before training."""
    encoder.eval()
    data, norm_groups = corpus.windows.data, corpus.norm_groups
    device = next(encoder.parameters(), torch.empty(0)).device
    parts = [encoder(corpus.equalize(data[some], norm_groups[some]).to(device)).mean(1).flatten(1).cpu().numpy()
             for some in np.array_split(rows, max(1, len(rows) // batch))]
    return np.concatenate(parts)


@torch.no_grad()
def _pooled_by(model: EmotionEncoder, tokens: np.ndarray, summary_tokens: int, block: int = 256) -> torch.Tensor:
    """What the head sees of tokens that lie in a file, shape (n_rows, token_width); a block in memory at a time."""
    parts = (np.array(tokens[start : start + block], dtype=np.float32) for start in range(0, len(tokens), block))
    return torch.cat([model.pooled(torch.from_numpy(part.reshape(*part.shape[:2], summary_tokens, -1)))
                      for part in parts])


def fit_encoder(corpus: Corpus, size: EncoderConfig, weights: str, params: FitParams, head: HeadParams,
                n_augmented: int, checkpoints: Path, tokens_path: Path, on_step: Callable[..., None] | None = None,
                augmented: AugmentedWindows | None = None, token_dtype: str = "float32") -> TrainedEncoder:
    """Train encoder and head on the training windows, then encode all windows and fit the evidence probe.

    Parameters
    ----------
    corpus : Corpus
        Dataset.
    size, weights
        See :func:`new_encoder`.
    params : FitParams
        Schedule.
    head : HeadParams
        Weights of the terms of the loss.
    n_augmented : int
        Augmented windows of a batch, beside its ``params.batch_size`` windows; for the terms on evidence.
    checkpoints : Path
        Folder of checkpoints; the caller removes it.
    tokens_path : Path
        ``.npy`` file for the tokens.
    on_step : callable, optional
        As for :func:`e2llm.training.trainer.fit`.
    augmented : AugmentedWindows, optional
        Of the training windows; drawn with the seed of ``params`` by default.
    token_dtype : str
        See :func:`e2llm.training.trainer.encode_rows`.
    """
    encoder, initialization = new_encoder(corpus, size, weights, params.seed)
    rows, train, windows = corpus.split.used, corpus.split.train, corpus.windows
    before = _pooled_tokens(encoder, corpus, rows)
    augmented = augmented or AugmentedWindows.draw(corpus, train, params.seed)
    model = EmotionEncoder(encoder, len(corpus.label_set), corpus.spectral.shape[1], head).to(current_device())
    order = mixed_order(corpus.labels, corpus.subjects, train, params)
    order = augmented.append_augmented(order, params.batch_size, n_augmented, params.seed)
    collate = augmented.collate(signal_collate(windows.data, corpus.equalize, corpus.norm_groups, corpus.labels,
                                               corpus.spectral))
    history = fit(model, Samples(order, lambda row: row), collate,
                  replace(params, batch_size=params.batch_size + n_augmented), checkpoints, terms=TERMS,
                  on_step=on_step)
    tokens = encode_rows(encoder, windows.data, corpus.equalize, corpus.norm_groups, rows, tokens_path,
                         dtype=token_dtype)
    evidence_probe = fit_evidence_probe(encoder, augmented, tokens, rows, tokens_path.parent)
    model.cpu()
    after = _pooled_by(model, tokens, size.summary_tokens)
    return TrainedEncoder(model, initialization, history, tokens, evidence_probe, evidence_probe(tokens),
                          model.classifier(after).detach().numpy(), before, after.numpy())
