"""A random language model, and an untrained model in the form of an export, signed anew as often as a test needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from asked import NAMES
from peft import LoraConfig, get_peft_model

from e2llm import __version__
from e2llm.app.hub_import import FACTS, FORMAT, MEANINGS, VERSION, tokenizer_mark, weights_mark
from e2llm.app.second_pass_stage import taught_questions
from e2llm.core.bands import BANDS
from e2llm.core.claims import LOW_HIGH
from e2llm.core.files import checksum
from e2llm.core.labels import SEED_VII
from e2llm.data.new_subject import PopulationStatistics
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.models.adapting import token_targets
from e2llm.models.eegpt import EEGPT, eegpt_config
from e2llm.models.language import ScratchParams, load_language_model, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.tasks.second_pass import Asked
from e2llm.training.stage3_instruction import LAYERS, LORA_TARGETS

CHANNELS = ["FZ", "CZ", "OZ"]


def make_language_model(folder: Path) -> Path:
    """A random language model."""
    tokenizer = make_tokenizer(["fear 7, happy sad neutral. A: B:"], 320)
    model = new_language_model(tokenizer, ScratchParams(320, hidden_size=64, layers=2, heads=4, max_positions=512), 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sign(folder: Path) -> None:
    """Write the checksums anew, as somebody who changes an export does."""
    facts = json.loads((folder / FACTS).read_text())
    facts["files"] = {path.relative_to(folder).as_posix(): checksum(path) for path in sorted(folder.rglob("*"))
                      if path.is_file() and path.name not in (FACTS, "README.md")}
    (folder / FACTS).write_text(json.dumps(facts))


def make_export(folder: Path, language_model: Path) -> Path:
    """An untrained model in the form of an export."""
    language, tokenizer = load_language_model(str(language_model))
    marks = {"weights": weights_mark(language), "tokenizer": tokenizer_mark(tokenizer)}
    torch.manual_seed(0)
    encoder = EEGPT(eegpt_config("tiny1"), CHANNELS).eval()
    model = E2LLMForConditionalGeneration.join(language, tokenizer, "language_model", encoder,
                                               encoder.config.token_width, 2, 0)
    model.save_pretrained(folder)
    shutil.copytree(language_model, folder / "language_model")
    adapter = LoraConfig(r=2, lora_alpha=4, target_modules=LORA_TARGETS, inference_mode=True)
    get_peft_model(model, adapter).save_pretrained(folder / "adapter", save_embedding_layers=False)
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    settings |= {"modules_to_save": None, "base_model_name_or_path": None}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    language, _ = load_language_model(str(language_model))
    second = LoraConfig(r=2, lora_alpha=4, target_modules=LAYERS, inference_mode=True,
                        trainable_token_indices=token_targets(language, [7, 5, 11]))
    get_peft_model(language, second).save_pretrained(folder / "second_pass", save_embedding_layers=False)
    settings = json.loads((folder / "second_pass" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = None
    (folder / "second_pass" / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "second_pass" / "README.md").unlink(missing_ok=True)
    n = len(CHANNELS) * len(BANDS)
    shapes = ((len(CHANNELS), len(BANDS)), (2, len(NAMES.columns)), (2, n))
    PopulationStatistics(*(np.ones(shape, np.float32) for shape in shapes)).save(
        folder / "population_statistics.safetensors")
    facts = {"format": FORMAT, "version": VERSION, "e2llm": __version__, "run": "tiny", "dataset": "none",
             "protocol": "none", "label_set": asdict(SEED_VII), "ch_names": CHANNELS, "statistics": "subject",
             "second_pass": taught_questions([Asked.LABEL], LOW_HIGH, SEED_VII),
             "preprocess": asdict(PreprocessParams()), "evidence": NAMES.columns, "meanings": MEANINGS,
             "language_model": {"kind": "included", "name": "language_model", "dtype": "float32", **marks}}
    (folder / FACTS).write_text(json.dumps(facts))
    sign(folder)
    return folder
