"""What the benchmarks of models work on: a small twin with its dataset, texts and an untrained model; no download.

Weights are random: times depend on shapes, not on what was learned.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from e2llm.core.labels import LabelSet
from e2llm.data.dataset import Corpus
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.models.encoders import encoder_config
from e2llm.models.evidence_probe import EvidenceProbe
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.items import item_text, text_items
from e2llm.training.stage1_encoder import new_encoder

PROTOCOL = {"protocol": "clips", "fold": 0, "n_groups": 4, "normalization": "session"}
EEG_TOKENS, SLOTS = 2, 10  # defaults of the command line


class Workload(NamedTuple):
    """Parts of a run before stage 2."""

    corpus: Corpus
    encoder: torch.nn.Module
    tokens: np.ndarray  # of all windows
    position: dict[int, int]
    probe: EvidenceProbe
    tokenizer: object
    labels: LabelSet


@cache
def corpus() -> Corpus:
    """Windows of a twin of three people, made in a temporary folder and held in memory."""
    with tempfile.TemporaryDirectory() as folder:
        twin = simulate(Path(folder) / "twin", TwinParams(subjects=3, sessions=2, clips=15, seconds=(8.2, 9.0)),
                        n_jobs=1)
        source = SeedVII(twin)
        write_windows(source, Path(folder) / "windows", n_jobs=1)
        opened = Windows.open(Path(folder) / "windows")
        held = opened.__class__(**{**vars(opened), **{name: np.array(value) for name, value in vars(opened).items()
                                                      if isinstance(value, np.memmap)}})
        return Corpus.build(held, source.label_set, PROTOCOL)


@cache
def workload() -> Workload:
    """Corpus, tokens of an untrained encoder, probe and tokenizer; a few seconds of work."""
    data = corpus()
    encoder = new_encoder(data, encoder_config("tiny2"), "", 0)[0].eval()
    rows = np.arange(len(data.windows))
    with torch.no_grad():
        tokens = torch.cat([encoder(data.equalize(data.windows.data[some], data.norm_groups[some])).flatten(2)
                            for some in np.array_split(rows, -(-len(rows) // 64))]).numpy()
    probe = EvidenceProbe.fit(tokens, data.z, data.evidence_names.columns)
    tokenizer = make_tokenizer([item_text(item) for item in text_items(data.label_set, 1500, 0)],
                               ScratchParams().vocab_size)
    return Workload(data, encoder, tokens, {int(row): int(row) for row in rows}, probe, tokenizer, data.label_set)


def language_model(seed: int = 0):
    """An untrained Qwen3 of the default size."""
    return new_language_model(workload().tokenizer, ScratchParams(), seed)


def processor() -> E2LLMProcessor:
    """Processor of prompts with segments, as stages 2 and 3 use it."""
    return E2LLMProcessor(workload().tokenizer, EEG_TOKENS, SLOTS)
