"""TODO purpose of training.stage3_instruction."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ..core.chat import Item
from ..data.dataset import Corpus
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..tasks.items import ItemBuilder
from ..tasks.segments import imagined_segments
from .trainer import FitParams, Samples, examples_of, fit, item_collate, item_order


@dataclass(frozen=True)
class AdapterParams:
    """LoRA on the language model, and the projector's own learning rate."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    projector_lr: float = 1e-3
    noise: float = 0.5  # added to the encoder's tokens in training


@contextmanager
def quiet_peft() -> Iterator[None]:
    """peft reads an attribute that transformers renamed; nothing here can act on the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


LORA_TARGETS = r"language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def train_adapter(model: E2LLMForConditionalGeneration, processor: E2LLMProcessor, items: list[Item], tokens: np.ndarray,
                  position: dict[int, int], adapter: AdapterParams, params: FitParams, folder: Path, tell=None) -> tuple[PeftModel, pd.DataFrame]:
    """Instruction tuning: LoRA on the language model, the projector trained on."""
    torch.manual_seed(params.seed)
    config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, lora_dropout=adapter.dropout, target_modules=LORA_TARGETS,
                        modules_to_save=["projector"])
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with quiet_peft():
        peft = get_peft_model(model, config)
    examples = examples_of(items, processor, 0.5, params.seed)
    return peft, fit_adapter(peft, processor, examples, tokens, position, adapter, params, folder, tell)


def fit_adapter(peft: PeftModel, processor: E2LLMProcessor, examples: list[dict], tokens: np.ndarray, position: dict[int, int],
                adapter: AdapterParams, params: FitParams, folder: Path, tell=None) -> pd.DataFrame:
    """Train an adapter and the projector on examples, in batches of similar length; the history of the loss."""
    named = [(name, p) for name, p in peft.named_parameters() if p.requires_grad]
    groups = [{"params": [p for name, p in named if "lora_" in name]},
              {"params": [p for name, p in named if "lora_" not in name], "lr": adapter.projector_lr}]
    order = item_order([len(example["input_ids"]) for example in examples], params)
    collate = item_collate(processor, tokens, position, adapter.noise)
    return fit(peft, Samples(order, examples.__getitem__), collate, params, folder, groups=groups, tell=tell)


def instruction_items(corpus: Corpus, part: str, per_kind: dict[str, int], seed: int) -> list[Item]:
    """Items of the kinds that this source serves; kinds it cannot serve are left out by its label set, not by chance."""
    builder = ItemBuilder.of_part(corpus, part, seed)
    return [item for kind, n in per_kind.items() if kind in builder.kinds() for item in builder.draw(kind, n)]


def replay_items(corpus: Corpus, n: int, seed: int) -> list[Item]:
    """Text-only items about scenarios and descriptions, so that instruction tuning does not unlearn what text has taught.

    In the descriptions features stand together as chance will have it, not as recorded ones do: reading out evidence stays reading.
    """
    if not n:
        return []
    segments = imagined_segments(corpus.label_set, 256, np.random.default_rng(seed + 1))
    builder = ItemBuilder(segments, corpus.label_set, seed + 1)
    scenarios = [builder.scenario() if i % 2 else builder.choose() for i in range(2 * n // 3 if builder.has_scenarios else 0)]
    return [*scenarios, *builder.draw("describe", n - 2 * n // 3)]
