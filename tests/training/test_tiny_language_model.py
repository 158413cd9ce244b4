"""The packaged language model's teaching: what it is shown, what its loss is, and what is left in the end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from e2llm.core.labels import SEED_VII
from e2llm.models.language import ScratchParams, make_word_tokenizer, new_language_model
from e2llm.tasks import scenarios
from e2llm.tasks.corpus_statistics import content_words, stem, training_stems
from e2llm.training.tiny_language_model import (
    TaughtTexts,
    WordMeaningModel,
    replaced_texts,
    taught_items,
    teachable,
)
from e2llm.training.word_meanings import Vocabulary, reduced

WORDS = ["dog", "cat", "house", "river", "walk", "bread", "table", "window", "goulash", "letter", "chair", "road",
         "field", "winter", "summer", "paper", "stone", "water", "garden", "horse", "music", "picture", "corner"]


@pytest.fixture
def model():
    tokenizer = make_word_tokenizer(WORDS, [])
    rng = np.random.default_rng(0)
    meanings = torch.from_numpy(reduced(rng.normal(size=(len(tokenizer), 40)).astype(np.float32), 32))
    meanings[:20] = 0.0
    needed = torch.arange(len(tokenizer)) < 30
    seen = torch.arange(len(tokenizer)) < 100
    size = ScratchParams(len(tokenizer), hidden_size=48, layers=2, heads=4, max_positions=64)
    return WordMeaningModel(new_language_model(tokenizer, size, 0), meanings, needed, seen)


def batch(n_tokens):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(100, (3, 12), generator=generator)
    labels = ids.clone()
    labels[0, :5], labels[1, :9], labels[2, :11] = -100, -100, -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels,
            "others": torch.arange(n_tokens)}


def test_the_loss_over_all_tokens_is_that_of_the_plain_model(model):
    given = batch(len(model.meanings))
    with torch.no_grad():
        loss = model(**given)["loss"]
        logits = model.plain()(given["input_ids"]).logits
    items = [F.cross_entropy(row[:-1], label[1:]) for row, label in zip(logits, given["labels"], strict=True)]
    torch.testing.assert_close(loss, torch.stack(items).mean())


def test_a_word_that_was_never_shown_moves_with_the_map_alone(model):
    before = model.rows(torch.arange(len(model.meanings))).detach()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model(**batch(len(model.meanings)))["loss"].backward()
        optimizer.step()
    after = model.rows(torch.arange(len(model.meanings))).detach()
    words = slice(1, 1 + model.n_word)
    expected = model.meanings[100:] @ model.project.weight.T
    torch.testing.assert_close(after[100:, words], expected.detach())
    assert not torch.equal(before[100:], after[100:]), "the map is learned"
    torch.testing.assert_close(before[100:, 1 + model.n_word :], after[100:, 1 + model.n_word :])


def test_words_of_zero_shot_texts_alone_are_never_taught():
    texts = [text.text for label in SEED_VII.labels for text in scenarios.zero_shot_scenarios(label, "unseen words")]
    unseen = sorted({word for text in texts for word in content_words(text)} - training_stems())
    assert not teachable([word for word in unseen if stem(word) not in training_stems()]).any()
    assert teachable(["dog", "house"]).all()


def test_replaced_words_are_teachable_words_and_the_rest_stays():
    untaught = ~teachable(WORDS)
    vocabulary = Vocabulary(WORDS, np.random.default_rng(0).normal(size=(len(WORDS), 40)).astype(np.float32))
    source = "The walk to the river with bread."
    copies = replaced_texts([source], vocabulary, 300, 0)
    assert copies == replaced_texts([source], vocabulary, 300, 0)
    assert len(set(copies)) > 20
    for text in copies:
        new = [(old, word) for old, word in zip(source.split(" "), text.split(" "), strict=True) if old != word]
        assert all(old in WORDS and word in WORDS and not untaught[WORDS.index(word)] for old, word in new)


def test_items_are_drawn_alike_and_hold_other_labels():
    texts = TaughtTexts({label: [f"text of {label}."] for label in SEED_VII.labels},
                        {label: [] for label in SEED_VII.labels})
    items = taught_items(texts, WORDS, 200, [0, 1])
    assert [item.__dict__ for item in items] == [item.__dict__ for item in taught_items(texts, WORDS, 200, [0, 1])]
    other = [item for item in items if item.kind == "predict" and not set(item.options) & set(SEED_VII.labels)]
    assert other
    asked = [item for item in items if item.kind == "scenario"]
    assert asked and all(f"text of {item.answer}." in item.messages[0]["content"][0]["text"] for item in asked)
