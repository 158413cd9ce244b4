"""The second lesson: what it holds, its loss, and that embeddings stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from e2llm.core.chat import IGNORE
from e2llm.core.claims import GRADED
from e2llm.core.labels import SEED_VII
from e2llm.models.language import load_language_model
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.level_table import Readers
from e2llm.tasks.thought_parser import parse
from e2llm.training.level_lesson import (
    LevelRecipe,
    level_examples,
    level_items,
    mean_over_items,
    one_token_words,
    own_parts,
    readers_of,
    teach_levels,
)
from e2llm.training.tiny_language_model import TaughtTexts, Words, teachable
from e2llm.training.trainer import FitParams, item_collate

RECIPE = LevelRecipe(n_items=48, readers=3, reader_words=3)


def texts() -> TaughtTexts:
    return TaughtTexts({label: [f"text of {label}."] for label in SEED_VII.labels},
                       {label: [] for label in SEED_VII.labels})


@pytest.fixture
def tiny():
    return load_language_model("e2llm-tiny")


def test_words_are_single_tokens_that_may_be_taught(tiny):
    words = one_token_words(tiny[1])
    assert len(words) > 5000 and teachable(words[:200]).all()
    assert all(len(tiny[1](f" {word}", add_special_tokens=False)["input_ids"]) == 1 for word in words[::500])


def test_items_hold_tables_and_claims_with_degrees():
    words = ["dog", "cat", "house", "river", "walk", "bread", "table", "window", "letter", "chair", "road", "field"]
    readers = Readers.draw(words, 3, 3, np.random.default_rng(0))
    recipe = LevelRecipe(low_high_share=0.0)
    items = level_items(texts(), words, readers, recipe, 240, [0, 1])
    assert [item.__dict__ for item in items] == [
        item.__dict__ for item in level_items(texts(), words, readers, recipe, 240, [0, 1])]
    assert 110 < sum(item.kind == "readers" for item in items) < 155
    thoughts = [parse(item.thought, SEED_VII.labels, GRADED) for item in items if item.kind == "predict"]
    assert {claim.level for parsed in thoughts for claim in parsed.claims} == set(GRADED.words) - {"typical"}
    brief = [item for item in items if item.kind in ("select", "match", "compare") and set(item.options) <= set("ABC")]
    assert brief and all(" alpha" not in part["text"] for item in brief for part in item.messages[0]["content"]
                         if part["text"].startswith("["))
    plain = level_items(texts(), words, readers, LevelRecipe(low_high_share=1.0), 60, [0, 1])
    assert not any("clearly" in item.thought for item in plain)


def test_the_loss_is_the_mean_over_items_of_the_usual_loss(tiny):
    model, tokenizer = tiny
    examples = level_examples(tokenizer, texts(), RECIPE, 0)[:4]
    batch = item_collate(E2LLMProcessor(tokenizer), None, {})(examples)
    everything = torch.arange(len(tokenizer))
    with torch.no_grad():
        found = float(mean_over_items(model, **batch, others=everything)["loss"])
        wanted = []
        for example in examples:
            ids = torch.tensor([example["input_ids"]])
            labels = torch.tensor(example["labels"])
            wanted.append(float(F.cross_entropy(model(input_ids=ids).logits[0, :-1], labels[1:],
                                                ignore_index=IGNORE)))
    assert found == pytest.approx(np.mean(wanted), rel=1e-4)


def test_teaching_changes_layers_and_the_embeddings_of_digits_alone_and_goes_on_where_it_was_cut_off(tiny, tmp_path):
    tokenizer = tiny[1]
    examples = level_examples(tokenizer, texts(), RECIPE, 0)
    params = FitParams(4, 8, 1e-3, seed=0, save_steps=2)
    readers = readers_of(tokenizer, RECIPE, 0)
    own = 0.01 * torch.randn(tiny[0].get_input_embeddings().weight.shape,
                             generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in tiny[0].state_dict().items()}
    history = teach_levels(tiny[0], tokenizer, examples, readers, params, tmp_path / "a", own)
    after = tiny[0].state_dict()
    changed = (before["model.embed_tokens.weight"] != after["model.embed_tokens.weight"]).any(dim=1).nonzero()[:, 0]
    assert {tokenizer.decode([i]).strip() for i in changed} <= set("1234567") and len(changed) == 7
    assert not torch.equal(before["model.layers.0.mlp.up_proj.weight"], after["model.layers.0.mlp.up_proj.weight"])
    assert len(history) == 4 and all(parameter.requires_grad for parameter in tiny[0].parameters())

    class Stop(Exception):
        pass

    def stop(step: int, **_: float) -> None:
        if step == 3:
            raise Stop

    again, _ = load_language_model("e2llm-tiny")
    with pytest.raises(Stop):
        teach_levels(again, tokenizer, examples, readers, params, tmp_path / "b", own, on_step=stop)
    resumed, _ = load_language_model("e2llm-tiny")
    teach_levels(resumed, tokenizer, examples, readers, params, tmp_path / "b", own)
    assert all(torch.equal(after[name], value) for name, value in resumed.state_dict().items())


def test_the_own_part_of_a_word_is_what_its_embedding_has_beside_the_map_of_meanings():
    """Embeddings written out: a constant, a known map of six meanings, and parts that some words have of their own."""
    rng = np.random.default_rng(0)
    meanings, by, width = rng.normal(size=(40, 6)), rng.normal(size=(6, 8)), 12
    of_word = np.r_[-1, -1, np.arange(40)]
    needed = np.zeros(42, bool)
    needed[[0, 5]] = True
    parts = rng.normal(size=(42, width)) * (np.arange(42) >= 30)[:, None]
    parts[:, 0] = 0
    table = np.zeros((42, width))
    table[2:, 1:9] = meanings @ by
    table[:, 0] = 3.0
    table += parts
    found = own_parts(torch.from_numpy(table).float(), Words(None, of_word, needed), meanings)
    assert torch.allclose(found, torch.from_numpy(parts).float(), atol=1e-5)
    with pytest.raises(ValueError, match="another recipe"):
        own_parts(torch.from_numpy(table + 1.0).float(), Words(None, of_word, needed), meanings)


def test_what_is_left_out_of_the_embeddings_is_left_out_at_both_ends(tiny):
    model, tokenizer = tiny
    batch = item_collate(E2LLMProcessor(tokenizer), None, {})(level_examples(tokenizer, texts(), RECIPE, 0)[:3])
    left_out = 0.1 * torch.randn(model.get_input_embeddings().weight.shape, generator=torch.Generator().manual_seed(1))
    everything = torch.arange(len(tokenizer))
    with torch.no_grad():
        found = float(mean_over_items(model, **batch, others=everything, left_out=left_out)["loss"])
        model.get_input_embeddings().weight -= left_out
        assert found == pytest.approx(float(mean_over_items(model, **batch, others=everything)["loss"]), rel=1e-5)
