"""The language model that comes with the kit: whole, small, loaded without the network, with its notices."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from e2llm.core.labels import LabelSet
from e2llm.models import catalogue
from e2llm.models.catalogue import CATALOGUE, FetchError, card, require
from e2llm.models.inference import InferenceEngine, closed_set
from e2llm.models.language import LanguageModelError, load_language_model
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.items import text_items

NAME = "e2llm-tiny"


@pytest.fixture(scope="module")
def loaded():
    return load_language_model(NAME)


def test_it_loads_without_a_cache_and_without_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("E2LLM_CACHE", str(tmp_path / "none"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was asked"))
    model, tokenizer = load_language_model(NAME)
    assert model.config.model_type == "qwen3" and model.dtype == torch.float32
    assert tokenizer.eos_token == "<|im_end|>"


def test_its_file_is_small_in_float16_and_its_card_says_what_it_is():
    folder, said = require(NAME), card(NAME)
    assert (folder / "model.safetensors").stat().st_size <= 5_000_000
    with safe_open(folder / "model.safetensors", "pt") as stored:
        assert {stored.get_tensor(name).dtype for name in stored.keys()} == {torch.float16}  # noqa: SIM118
    assert {"model.safetensors", "tokenizer.json", "NOTICE.txt", "LICENSE-APACHE-2.0.txt"} <= set(said["sha256"])
    assert said["parameters"] <= 2_500_000 and said["recipe"] and said["scores"] and said["corpus"]
    assert "Apache" in (folder / "NOTICE.txt").read_text() and "Version 2.0" in (
        folder / "LICENSE-APACHE-2.0.txt").read_text()


def test_a_file_that_was_changed_is_refused(tmp_path, monkeypatch):
    copy = Path(shutil.copytree(require(NAME), tmp_path / CATALOGUE[NAME].folder))
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "catalogue.py"))
    assert require(NAME) == copy
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(LanguageModelError, match=r"model\.safetensors of 'e2llm-tiny' .* install the kit again"):
        load_language_model(NAME)
    (copy / "model.safetensors").unlink()
    with pytest.raises(FetchError, match="is not whole"):
        require(NAME)


@pytest.mark.parametrize("labels", [("rest", "arithmetic"), ("Amusement", "inspiration", "tenderness", "awe"),
                                    ("eyes_open", "eyes_closed", "task-2"), ("żółć", "gniew", "日本")])
def test_labels_that_it_was_not_taught_are_read_from_the_prompt(loaded, labels):
    model, tokenizer = loaded
    for label in labels:
        assert tokenizer.decode(tokenizer(label, add_special_tokens=False)["input_ids"]) == label
    if all(label.isascii() for label in labels):
        items = [item for item in text_items(LabelSet("other", labels, noun="state"), 60, 0) if item.kind == "predict"]
        engine = InferenceEngine(model, E2LLMProcessor(tokenizer), torch.empty(0).numpy(), {})
        right = [item.options[i] == item.answer for item, i in zip(items, closed_set(engine, items).argmax(1),
                                                                   strict=True)]
        assert sum(right) >= 0.9 * len(right)
