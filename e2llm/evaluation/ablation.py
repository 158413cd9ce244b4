"""Ablations: the model trained again without one of its stages, everything else equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.dataset import Corpus
from ..models.adapting import adapted
from ..models.eegpt import EEGPT
from ..models.evidence_probe import EvidenceProbe
from ..models.inference import InferenceEngine
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..training.augmentation import AugmentedWindows, fit_evidence_probe
from ..training.stage2_alignment import alignment_items, train_projector
from ..training.stage3_instruction import AdapterParams, instruction_items, replay_items, train_adapter
from ..training.trainer import FitParams, encode_rows
from .tiers import ablation_rows

ALL_STAGES = "all stages"  # name of the full model in a table of ablations


class Ablation(StrEnum):
    """What is left out."""

    STAGE_1 = "without stage 1"
    STAGE_2 = "without stage 2"
    STAGE_3 = "without stage 3"


@dataclass(frozen=True)
class Schedule:
    """Sizes and schedules of stages 2 and 3, as the full model was trained with."""

    eeg_tokens: int
    evidence_slots: int
    n_items: int  # of stage 2
    noise: float
    fit_2: FitParams
    per_kind: Mapping[str, int]  # items of stage 3
    replay: int
    adapter: AdapterParams
    fit_3: FitParams


@dataclass(frozen=True)
class Parts:
    """Loaded parts of the full model that an ablation starts from."""

    encoder: EEGPT  # before stage 1
    tokens: np.ndarray  # of the encoder after stage 1, one row a used window
    position: dict[int, int]
    evidence_probe: EvidenceProbe
    aligned: E2LLMForConditionalGeneration  # after stage 2
    processor: E2LLMProcessor
    language: tuple[PreTrainedModel, PreTrainedTokenizerBase, str]  # language model, tokenizer, where they come from


def train_ablation(ablation: Ablation, corpus: Corpus, parts: Parts, schedule: Schedule, n_items: int, item_seeds: int,
                   seed: int, folder: Path) -> list[dict]:
    """Train and score one ablation; rows of :func:`e2llm.evaluation.tiers.ablation_rows`.

    Parameters
    ----------
    ablation : Ablation
        What is left out.
    corpus : Corpus
        Windows and split.
    parts, schedule : Parts and Schedule
        Of the full model.
    n_items, item_seeds, seed : int
        Items of each kind to score, number of seeds they are drawn with, and seed of these.
    folder : Path
        For checkpoints.
    """
    tokens, evidence_probe, model, slots = parts.tokens, parts.evidence_probe, parts.aligned, schedule.evidence_slots
    if ablation is Ablation.STAGE_1:
        folder.mkdir(parents=True, exist_ok=True)
        used = corpus.split.used
        tokens = encode_rows(parts.encoder, corpus.windows.data, corpus.equalize, corpus.norm_groups, used,
                             folder / "tokens.npy")
        augmented = AugmentedWindows.draw(corpus, corpus.split.train, schedule.fit_2.seed)
        evidence_probe = fit_evidence_probe(parts.encoder, augmented, tokens, used, folder)
        predicted_evidence = np.full_like(corpus.predicted_evidence, np.nan)
        predicted_evidence[used] = evidence_probe(tokens)
        # Thoughts state what this encoder's probe predicts
        corpus = replace(corpus, predicted_evidence=predicted_evidence)
        items = alignment_items(corpus, "train", schedule.n_items, schedule.fit_2.seed)
        model, _ = train_projector(*parts.language, items, tokens, parts.position, schedule.eeg_tokens, schedule.noise,
                                   schedule.fit_2, folder / "projector", None, evidence_probe, slots,
                                   corpus.evidence_names.scale.name)
    elif ablation is Ablation.STAGE_2:
        model = E2LLMForConditionalGeneration.join(*parts.language, None, tokens.shape[-1], schedule.eeg_tokens,
                                                   schedule.fit_2.seed, evidence_probe, slots,
                                                   corpus.evidence_names.scale.name)
    if ablation is not Ablation.STAGE_3:
        seed_3 = schedule.fit_3.seed
        items = instruction_items(corpus, "train", dict(schedule.per_kind), seed_3)
        items += replay_items(corpus, schedule.replay, seed_3)
        peft, _ = train_adapter(model, parts.processor, items, tokens, parts.position, schedule.adapter, schedule.fit_3,
                                folder / "adapter")
        model = adapted(peft)
    engine = InferenceEngine(model.eval(), parts.processor, tokens, parts.position)
    return ablation_rows(ablation, corpus, engine, n_items, item_seeds, seed)
