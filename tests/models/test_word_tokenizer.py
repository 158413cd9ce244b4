"""The tokenizer of whole words: nothing is lost, and a word is one token wherever it stands."""

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer

from e2llm.core.chat import EEG_TOKEN, END_THINK, THINK
from e2llm.models.language import make_word_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    made = make_word_tokenizer(["the", "dog", "fear", "rest"], ["s", "\n\n"])
    folder = tmp_path_factory.mktemp("words")
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", [
    "", " ", "The dog", "the dog.\nThe Dog said: \"The rest", "A: fear B: REST", "McDonald, O'Brien", "eyes_open",
    "\n\nrest", " Rest", "Größe 日本 😀",
    f"<|im_start|>user\nThe {EEG_TOKEN}<|im_end|>\n{THINK}\nRest.\n{END_THINK}\n\nrest",
])  # fmt: skip
def test_text_comes_back_as_it_was(tokenizer, text):
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_any_text_comes_back_as_it_was(tokenizer):
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choice("aAbBzZ \n\"'éÉ日😀.,3_\tthe ") for _ in range(rng.randrange(16)))
        assert tokenizer.decode(ids(tokenizer, text)) == text


def test_a_word_is_the_same_token_in_the_text_and_as_an_answer(tokenizer):
    dog = tokenizer.convert_tokens_to_ids("Ġdog")
    for text in ("a dog", "dog", "Dog", "A Dog", "\ndog", '"Dog', "dogs"):
        assert dog in ids(tokenizer, text), text
    assert len({tuple(ids(tokenizer, text)) for text in ("a dog", "a Dog", "a DOG", "adog")}) == 4


def test_no_token_is_unknown(tokenizer):
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") not in ids(tokenizer, "x" * 5000 + " żółć \x00 ⇧")
