"""A random model and twelve made-up windows to ask it about, made in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from e2llm.app.chat_session import E2LLM
from e2llm.core.bands import BANDS
from e2llm.core.claims import EvidenceNames
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS, SEED_CHANNELS, eegpt_channels
from e2llm.data.features import differential_entropy
from e2llm.data.normalization import FeatureStatistics
from e2llm.data.preprocessing import Windows
from e2llm.models.inference import InferenceEngine
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
WIDTH, N = 24, 12


def made_up_corpus() -> SimpleNamespace:
    """Twelve windows of two people; in window 0 occipital alpha is low and frontal theta high.

    Window 1 is typical throughout.
    """
    rng = np.random.default_rng(0)
    channels = eegpt_channels(list(SEED_CHANNELS))
    index = pd.DataFrame({"id": range(N), "subject": ["1"] * 6 + ["2"] * 6, "session": 1, "clip": 1,
                          "window": [*range(6)] * 2,
                          "start_s": 4.0 * np.array([*range(6)] * 2), "label": "fear", "intensity": 0.5})
    data = rng.normal(0, 5, (N, len(channels), 1024)).astype(np.float32)
    power = rng.uniform(1, 4, (N, len(channels), 5)).astype(np.float32)
    windows = Windows(data=data, power=power, shape=np.zeros((N, 3), np.float32), index=index, ch_names=channels,
                      sfreq=256.0)
    z = np.zeros((N, len(NAMES.columns)))
    z[0, NAMES.columns.index("occipital alpha")], z[0, NAMES.columns.index("frontal theta")] = -2.5, 2.25
    norm_groups = index["subject"].to_numpy(dtype=object)
    split = SimpleNamespace(fit=np.array([1, 2, 3, 4, 7, 8, 9, 10]), normalization="calibration")
    channel_statistics = FeatureStatistics.fit(differential_entropy(power).reshape(N, -1), norm_groups, split)
    return SimpleNamespace(windows=windows, label_set=SEED_VII, split=split, z=z, evidence_names=NAMES,
                           subjects=norm_groups, norm_groups=norm_groups, channel_statistics=channel_statistics,
                           equalize=lambda signal, subjects: torch.from_numpy(np.array(signal)) * 1e-3)


def random_model(corpus: SimpleNamespace, texts: Sequence[str] = ()) -> E2LLM:
    """A random model that has tokens of windows 0 to 7."""
    processor = E2LLMProcessor(make_tokenizer([*texts, "Which segment is more pleasant? A: B: C:"], 320), 2)
    size = ScratchParams(320, hidden_size=64, layers=2, heads=4, max_positions=512)
    language = new_language_model(processor.tokenizer, size, 0)
    joined = E2LLMForConditionalGeneration.join(language, processor.tokenizer, "none", None, WIDTH, 2, 0).eval()
    features = np.random.default_rng(0).normal(size=(8, 16, WIDTH)).astype(np.float32)
    return E2LLM(InferenceEngine(joined, processor, features, {i: i for i in range(8)}), corpus, max_new_tokens=16)
