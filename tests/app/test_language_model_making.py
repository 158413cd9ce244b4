"""``e2llm make-language-model`` at toy size: the same bytes twice, and after it was cut off."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from e2llm.app import language_model_making as making
from e2llm.core.files import checksum
from e2llm.models.language import load_language_model
from e2llm.tasks import scenarios
from e2llm.training.level_lesson import LevelRecipe
from e2llm.training.tiny_language_model import TinyRecipe

RECIPE = TinyRecipe(words=400, hidden_size=48, layers=2, heads=4, meaning_width=24, n_items=40, drill_steps=1,
                    n_replaced=20)
ALL_BUT_ONE = frozenset(f"{label}/{i}" for label in scenarios.emotions()
                        for i in range(1, scenarios.training_scenarios(label).n_situations))


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A sentence encoder and a list of words as they would be in the cache, only smaller."""
    folder = tmp_path / "cache"
    folder.mkdir()
    letters = ["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"]
    tokens = {token: i for i, token in enumerate([*letters, *(f"##{letter}" for letter in letters[2:])])}
    words = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=32)).save_pretrained(folder)
    listed = folder / "frequency_dictionary_en_82_765.txt"
    listed.write_text("the 9\nrest 8\nfear 7\nhouse 6\nzugzwang 5\n", encoding="utf-8")
    monkeypatch.setattr(making, "require", lambda name: folder)
    monkeypatch.setattr(making, "BATCH", 4)
    monkeypatch.setattr(making, "SAVE_STEPS", 2)
    monkeypatch.setattr(making, "scores_in_words", lambda model, tokenizer: pd.DataFrame())


def make(out):
    return making.make_language_model(out, steps=5, recipe=RECIPE, held_out=ALL_BUT_ONE)


def test_two_calls_give_the_same_bytes_and_a_call_that_was_cut_off_too(tmp_path, fetched, monkeypatch, capsys):
    first = make(tmp_path / "first")
    second = make(tmp_path / "second")
    files = sorted(path.name for path in first.iterdir())
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "card.json", "README.md",
            "NOTICE.txt", "LICENSE-APACHE-2.0.txt"} <= set(files)
    assert [checksum(first / name) for name in files] == [checksum(second / name) for name in files]

    taught = making.teach

    def stopped(recipe, lesson, params, folder, on_step):
        def stop(step, **facts):
            if step == 3:
                raise KeyboardInterrupt
        return taught(recipe, lesson, params, folder, stop)

    monkeypatch.setattr(making, "teach", stopped)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "third")
    assert not (tmp_path / "third").exists()
    monkeypatch.setattr(making, "teach", taught)
    monkeypatch.setattr(making, "_new_lesson", None)  # what was prepared is kept
    third = make(tmp_path / "third")
    assert checksum(third / "model.safetensors") == checksum(first / "model.safetensors")
    assert not list(tmp_path.glob(".third-work"))


def test_the_card_has_the_checksum_of_every_file_and_the_model_loads(tmp_path, fetched):
    folder = make(tmp_path / "made")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["sha256"] == {path.name: checksum(path) for path in folder.iterdir() if path.name != "card.json"}
    assert card["recipe"]["n_items"] == 40 and card["fit"]["steps"] == 5
    model, tokenizer = load_language_model(str(folder))
    assert model.num_parameters() == card["parameters"] and len(tokenizer) == card["tokens"]
    with pytest.raises(FileExistsError, match="is there already"):
        make(tmp_path / "made")


def test_a_second_lesson_says_what_it_started_from(tmp_path, fetched, monkeypatch):
    monkeypatch.setattr(making, "scores_in_words", lambda *_: pd.DataFrame([{
        "stratum": "known words", "kind": "match", "items": 3, "chance": 33.3, "correct": 50.0, "low": 9.0,
        "high": 90.0}]))
    monkeypatch.setattr(making, "own_parts", lambda embedding, *_: torch.zeros_like(embedding))  # all words were shown
    recipe, start = LevelRecipe(n_items=24, readers=2, reader_words=3), make(tmp_path / "start")
    folder = making.teach_second_lesson(str(start), tmp_path / "graded", steps=2, recipe=recipe, held_out=ALL_BUT_ONE)
    said, first = (json.loads((path / "card.json").read_text()) for path in (folder, start))
    assert said["second"]["start"] == first["sha256"]["model.safetensors"] != said["sha256"]["model.safetensors"]
    assert said["recipe"] == first["recipe"] and said["second"]["recipe"]["n_items"] == 24
    assert "Second lesson: 2 steps" in (folder / "README.md").read_text()
    _, tokenizer = load_language_model(str(folder))
    assert len(tokenizer) == said["tokens"] and not list(tmp_path.glob(".graded-*"))
    with pytest.raises(FileExistsError, match="is there already"):
        making.teach_second_lesson(str(start), folder)
    with pytest.raises(ValueError, match="or a folder that this command made"):
        making.teach_second_lesson(str(tmp_path), tmp_path / "other")


def test_both_lessons_are_taught_in_turn_and_a_first_one_that_is_finished_is_not_taught_again(tmp_path, fetched,
                                                                                              monkeypatch):
    small = LevelRecipe(n_items=24, readers=2, reader_words=2)
    monkeypatch.setattr(making, "TinyRecipe", lambda **_: RECIPE)
    monkeypatch.setattr(making, "LevelRecipe", lambda: small)
    monkeypatch.setattr(making, "own_parts", lambda embedding, *_: torch.zeros_like(embedding))  # all words were shown
    monkeypatch.setattr(making, "scores_in_words", lambda *_: pd.DataFrame([{
        "stratum": "known words", "kind": "match", "items": 3, "chance": 33.3, "correct": 50.0, "low": 9.0,
        "high": 90.0}]))
    make(first := tmp_path / f".made-first-{making.STEPS}-0")
    start = checksum(first / "model.safetensors")
    monkeypatch.setattr(making, "make_language_model", None)  # it is there
    said = json.loads((making.make_in_two_lessons(tmp_path / "made", level_steps=2) / "card.json").read_text())
    assert said["second"]["start"] == start and said["second"]["fit"]["steps"] == 2 and said["fit"]["steps"] == 5
    assert not first.exists()
    with pytest.raises(FileExistsError, match="is there already"):
        making.make_in_two_lessons(tmp_path / "made")
