"""Stage 3: instruction tuning with chain of thought: LoRA on the language model, and the projector."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ..core.chat import Item
from ..data.dataset import Corpus
from ..models.adapting import lora_targets
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..tasks.items import ItemBuilder
from ..tasks.segments import imagined_segments
from .trainer import FitParams, examples_of, fit_examples, item_collate, label_tokens, train_only


@dataclass(frozen=True)
class AdapterParams:
    """LoRA on the language model, and the projector's own learning rate.

    Parameters
    ----------
    rank, alpha, dropout : int, int, float
        Of LoRA.
    projector_lr : float
        Peak learning rate of the projector.
    noise : float
        Standard deviation of the noise on the encoder's tokens in training; see
        :func:`e2llm.training.trainer.item_collate`.

    References
    ----------
    Hu, E. J., et al. (2022). LoRA: low-rank adaptation of large language models. ICLR.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    projector_lr: float = 1e-3
    noise: float = 0.5


@contextmanager
def quiet_peft() -> Iterator[None]:
    """No warning of an attribute that transformers renamed and peft still reads; nothing here can act on it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


LAYERS = r".*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"  # of most language models
_PREFIX = "language_model."
LORA_TARGETS = rf"language_model\.{LAYERS}"


def train_adapter(model: E2LLMForConditionalGeneration, processor: E2LLMProcessor, items: list[Item],
                  tokens: np.ndarray, position: dict[int, int], adapter: AdapterParams, params: FitParams, folder: Path,
                  on_step: Callable[..., None] | None = None) -> tuple[PeftModel, pd.DataFrame]:
    """Instruction tuning of a new adapter and the projector.

    Parameters
    ----------
    model : E2LLMForConditionalGeneration
        After stage 2.
    processor : E2LLMProcessor
        Its processor.
    items : list of Item
        Training items.
    tokens, position
        See :func:`e2llm.training.trainer.item_collate`.
    adapter, params : AdapterParams, FitParams
        Adapter and schedule.
    folder : Path
        Checkpoints; the caller removes it.
    on_step : callable, optional
        As for :func:`e2llm.training.trainer.fit`.

    Returns
    -------
    peft : PeftModel
        The model with its trained adapter, not merged.
    history : DataFrame
        Loss by step.
    """
    peft = with_new_adapter(model, params.seed, r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout,
                            target_modules=lora_targets(model.language_model, LORA_TARGETS, _PREFIX),
                            modules_to_save=["projector"])
    examples = examples_of(items, processor, 0.5, params.seed)
    return peft, fit_adapter(peft, processor, examples, tokens, position, adapter, params, folder, on_step)


def with_new_adapter(model: torch.nn.Module, seed: int, **settings: Any) -> PeftModel:
    """A model of which only a new LoRA adapter, and what its settings name beside it, is trained.

    Parameters
    ----------
    model : Module
        Changed in place.
    seed : int
        Of the first weights.
    **settings
        Of peft's ``LoraConfig``.
    """
    torch.manual_seed(seed)
    train_only(model)  # nothing; peft adds what is trained
    with quiet_peft():
        return get_peft_model(model, LoraConfig(**settings))


def fit_adapter(peft: PeftModel, processor: E2LLMProcessor, examples: list[dict], tokens: np.ndarray,
                position: dict[int, int], adapter: AdapterParams, params: FitParams, folder: Path,
                on_step: Callable[..., None] | None = None) -> pd.DataFrame:
    """Train an adapter and the projector on examples, in batches of similar length.

    Parameters
    ----------
    peft : PeftModel
        With an adapter that can be trained.
    examples : list of dict
        From :func:`e2llm.training.trainer.examples_of`.
    processor, tokens, position, adapter, params, folder, on_step
        As for :func:`train_adapter`.

    Returns
    -------
    DataFrame
        Loss by step.
    """
    named = [(name, p) for name, p in peft.named_parameters() if p.requires_grad]
    groups = [{"params": [p for name, p in named if "lora_" in name]},
              {"params": [p for name, p in named if "lora_" not in name], "lr": adapter.projector_lr}]
    collate = item_collate(processor, tokens, position, adapter.noise, label_tokens(examples, processor, params.seed))
    return fit_examples(peft, examples, collate, params, folder, groups=groups, on_step=on_step)


def instruction_items(corpus: Corpus, part: str, per_kind: dict[str, int], seed: int) -> list[Item]:
    """Items of the kinds that this source can serve; the other kinds are left out.

    Parameters
    ----------
    corpus : Corpus
        Dataset.
    part : str
        Part of its split: "train", "val" or "test".
    per_kind : dict of str to int
        Number of items of each kind.
    seed : int
        Of the draws.
    """
    builder = ItemBuilder.of_part(corpus, part, seed)
    return [item for kind, n in per_kind.items() if kind in builder.kinds() for item in builder.draw(kind, n)]


def replay_items(corpus: Corpus, n: int, seed: int) -> list[Item]:
    """Text-only items about scenarios and descriptions, so that instruction tuning does not unlearn the text tasks.

    The features of a description are drawn independently, not as recorded ones occur together: the model has to read
    the evidence, and cannot guess one feature from another.

    Parameters
    ----------
    corpus : Corpus
        Dataset; only its label set and the scale of its evidence are used.
    n, seed : int
        Number of items, and seed of the draws.
    """
    if not n:
        return []
    segments = imagined_segments(corpus.label_set, 256, np.random.default_rng(seed + 1), corpus.evidence_names.scale)
    builder = ItemBuilder(segments, corpus.label_set, seed + 1)
    scenarios = [builder.scenario() for _ in range(n // 2 if builder.has_scenarios else 0)]
    return [*scenarios, *builder.draw("describe", n - n // 2)]
