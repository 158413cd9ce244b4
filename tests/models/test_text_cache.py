"""Room for tokens to come changes where keys and values lie, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicLayer

from e2llm.models import text_cache as module
from e2llm.models.text_cache import RoomyLayer, text_cache

HEADS, WIDTH = 2, 3
SMALL = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2}


def model():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_changes_leaves_the_keys_and_values_of_the_usual_layer(seed, monkeypatch):
    monkeypatch.setattr(module, "_ROOM", 4)
    rng, batch = np.random.default_rng(seed), 3
    torch.manual_seed(seed)
    usual, roomy = DynamicLayer(), RoomyLayer()
    for _ in range(30):
        what = rng.choice(["update", "update", "update", "select", "repeat", "crop", "reset"])
        if what == "update":
            new = [torch.randn(batch, HEADS, int(rng.integers(1, 7)), WIDTH) for _ in range(2)]
            new[1] = new[1][:, :, :1].expand_as(new[0]) + new[0]
            for keys in (usual.update(*new)[0], roomy.update(*new)[0]):
                assert keys.shape[-2] == usual.get_seq_length()
        elif what == "reset":
            usual.reset(), roomy.reset()
        elif what == "crop":
            for layer in (usual, roomy):
                layer.crop(-min(2, layer.get_seq_length()))
        elif usual.get_seq_length():
            rows = torch.tensor(rng.choice(batch, min(batch, 2), replace=False))
            for layer in (usual, roomy):
                layer.batch_select_indices(rows) if what == "select" else layer.batch_repeat_interleave(2)
            batch = len(usual.keys)
        assert usual.get_seq_length() == roomy.get_seq_length()
        if usual.get_seq_length():
            assert torch.equal(usual.keys, roomy.keys) and torch.equal(usual.values, roomy.values)


def test_a_token_is_written_in_place_while_there_is_room():
    layer = RoomyLayer()
    layer.update(*torch.randn(2, 1, HEADS, 5, WIDTH))
    where = set()
    for _ in range(module._ROOM):
        layer.update(*torch.randn(2, 1, HEADS, 1, WIDTH))
        where.add(layer.keys.data_ptr())
    assert len(where) == 1
    layer.update(*torch.randn(2, 1, HEADS, 1, WIDTH))
    assert layer.keys.data_ptr() not in where and layer.get_seq_length() == 6 + module._ROOM


def test_a_model_writes_the_same_text_to_the_last_bit():
    ids = torch.randint(3, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    settings = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0, "eos_token_id": 39,
                "output_scores": True, "return_dict_in_generate": True, "attention_mask": torch.ones_like(ids)}
    language = model()
    usual, roomy = (language.generate(ids, past_key_values=cache, **settings)
                    for cache in (None, text_cache(language)))
    assert isinstance(roomy.past_key_values.layers[0], RoomyLayer)
    assert torch.equal(usual.sequences, roomy.sequences) and torch.equal(usual.scores[-1], roomy.scores[-1])


def test_a_model_with_sliding_windows_keeps_its_own_cache():
    sliding = Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=4,
                                                 layer_types=["sliding_attention", "full_attention"]))
    assert text_cache(sliding) is None and text_cache(torch.nn.Identity()) is None
    assert text_cache(model()) is not None
