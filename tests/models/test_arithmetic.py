"""Sizes from shapes alone, against models with random weights and torch's own counter of operations."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from e2llm.models.arithmetic import KNOWN, EncoderShape, ProjectorShape, TextShape, shape_of, text_shape
from e2llm.models.eegpt import EEGPT, EEGPT_SIZES
from e2llm.models.language import ScratchParams
from e2llm.models.projector import Projector

CHANNELS = ["FZ", "CZ", "PZ", "OZ", "C3", "C4"]
SHAPES = [TextShape(64, 3, 4, 2, 24, 160, 500, True), TextShape(96, 2, 6, 3, 16, 200, 300, False)]


def qwen(shape: TextShape) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=shape.tied))  # fmt: skip


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def operations(work) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # others are not counted on a CPU
        work()
    return counter.get_total_flops()


# --- parameters


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_of_a_language_model(shape):
    assert shape.parameters == n_parameters(qwen(shape))


def test_parameters_of_a_model_without_norms_of_heads():
    shape = TextShape(96, 2, 4, 2, 24, 160, 300, True, head_norms=False)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=300, hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True))  # fmt: skip
    assert shape.parameters == n_parameters(model)


@pytest.mark.parametrize(("name", "billions", "without_embedding"), [
    ("Qwen/Qwen3-0.6B", 0.6, 0.44), ("Qwen/Qwen3-1.7B", 1.7, 1.4), ("Qwen/Qwen3-4B", 4.0, 3.6),
    ("Qwen/Qwen3-8B@main", 8.2, 6.95), ("qwen3-14b", 14.8, 13.2), ("smollm2-135m", 0.1345, 0.106),
])
def test_known_sizes_are_the_published_ones(name, billions, without_embedding):
    """Of Qwen3 as its model cards say: all parameters, and those outside embedding and output layer."""
    shape = text_shape(name)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.015)
    assert shape.body / 1e9 == pytest.approx(without_embedding, rel=0.015)


def test_the_model_of_the_kit_and_the_one_from_scratch():
    assert text_shape("e2llm-tiny").parameters == 1_765_488
    size = ScratchParams()
    assert (KNOWN["scratch"].hidden, KNOWN["scratch"].layers, KNOWN["scratch"].heads, KNOWN["scratch"].vocabulary) == (
        size.hidden_size, size.layers, size.heads, size.vocab_size)


def test_the_shape_of_a_folder_is_read_and_what_it_lacks_is_named(tmp_path):
    qwen(SHAPES[1]).config.save_pretrained(tmp_path)
    assert text_shape(str(tmp_path)) == SHAPES[1]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    with pytest.raises(ValueError, match=r"config.json does not say hidden_size"):
        shape_of(tmp_path / "config.json")
    with pytest.raises(ValueError, match=r"'mine/model' is not known here \(known: qwen3-0.6b"):
        text_shape("mine/model")


@pytest.mark.parametrize("rank", [1, 16])
def test_parameters_of_an_adapter(rank):
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(qwen(SHAPES[1]), LoraConfig(r=rank, target_modules=targets))
    assert SHAPES[1].lora(rank) == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", EEGPT_SIZES)
def test_parameters_of_the_encoder(size):
    with torch.device("meta"):
        model = EEGPT(EEGPT_SIZES[size], CHANNELS)
    assert encoder_shape(size).parameters == n_parameters(model)


def test_parameters_of_the_projector():
    model = Projector(256, 96, 96, 2, 29, 10)
    shape = ProjectorShape(256, 96, 29)
    assert shape.parameters == n_parameters(model)
    assert shape.buffers == sum(buffer.numel() for buffer in model.buffers())


def encoder_shape(size: str) -> EncoderShape:
    config = EEGPT_SIZES[size]
    return EncoderShape(config.width, config.depth, config.heads, config.summary_tokens, config.mlp_ratio)


# --- operations


@pytest.mark.parametrize("shape", SHAPES)
def test_operations_of_reading_and_of_the_gradient_to_the_inputs(shape):
    model, rows, length = qwen(shape), 3, 20
    given = torch.randn(rows, length, shape.hidden, requires_grad=True)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, -4:] = 0  # padding, so that attention is not told to be causal alone
    model.requires_grad_(False)

    def forward():
        return model(inputs_embeds=given, attention_mask=mask).logits

    logits = rows * length
    assert shape.forward(rows, length, logits) == operations(forward)
    both = shape.forward(rows, length, logits) + shape.backward_to_inputs(rows, length, logits)
    assert both == operations(lambda: forward().sum().backward())


def test_operations_of_a_step_of_an_adapter():
    shape, rows, length = SHAPES[0], 2, 16
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(qwen(shape), LoraConfig(r=8, target_modules=targets))
    given = torch.randn(rows, length, shape.hidden, requires_grad=True)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, -4:] = 0
    found = operations(lambda: model(inputs_embeds=given, attention_mask=mask).logits.sum().backward())
    n = rows * length
    wanted = shape.forward(rows, length, n) + shape.backward_to_inputs(rows, length, n)
    assert wanted + shape.adapter_step(rows, length, 8) == found


def test_operations_of_a_step_that_trains_the_embeddings_of_some_tokens_too():
    shape, rows, length = SHAPES[0], 2, 16
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(qwen(shape), LoraConfig(r=8, target_modules=targets,
                                                   trainable_token_indices={"embed_tokens": [3, 5, 7]}))
    ids = torch.randint(shape.vocabulary, (rows, length))
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, -4:] = 0
    found = operations(lambda: model(input_ids=ids, attention_mask=mask).logits.sum().backward())
    n = rows * length
    wanted = shape.forward(rows, length, n) + shape.backward_to_inputs(rows, length, n)
    assert wanted + shape.adapter_step(rows, length, 8) + shape.token_step(n) == found


def test_the_output_layer_with_trained_rows_is_kept_for_the_backward_pass():
    """One of the two copies that are counted; the other is its gradient. The embedding needs its indices alone."""
    shape = TextShape(64, 1, 2, 1, 16, 64, 20_000, True)
    model = get_peft_model(qwen(shape), LoraConfig(r=1, target_modules=["q_proj"],
                                                   trainable_token_indices={"embed_tokens": [3, 5, 7]}))
    whole = [p.untyped_storage().data_ptr() for p in model.parameters()]
    made: dict[int, int] = {}

    def keep(tensor):
        if (storage := tensor.untyped_storage()).data_ptr() not in whole:
            made[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(input_ids=torch.randint(9, (1, 4))).logits
    copies = [size for size in made.values() if size == 4 * shape.vocabulary * shape.hidden]
    assert out.requires_grad and sum(copies) == shape.token_copies(4.0) / 2


@pytest.mark.parametrize("size", ["tiny1", "tiny2", "little"])
def test_operations_of_the_encoder(size):
    model, shape = EEGPT(EEGPT_SIZES[size], CHANNELS), encoder_shape(size)
    signal = torch.randn(2, len(CHANNELS), 1024)
    assert shape.forward(2, len(CHANNELS), 16) == operations(lambda: model(signal))
    model.train()
    assert shape.training_step(2, len(CHANNELS), 16) == operations(lambda: model(signal).sum().backward())


def test_operations_of_the_projector():
    model, shape = Projector(64, 96, 96, 4), ProjectorShape(64, 96)
    assert shape.training_step(3 * 4) == operations(lambda: model(torch.randn(3, 16, 64)).sum().backward())


# --- bytes


def kept_bytes(work, weights: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass, weights left out, every memory once."""
    own = {p.untyped_storage().data_ptr() for p in weights.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        held.append(tensor)
        return tensor

    held: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return sum(found.values())


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_of_a_layer_of_the_language_model(adapter, dtype):
    shape, length, rows = TextShape(256, 4, 8, 4, 32, 768, 100, True), 64, 2
    model = qwen(shape).to(dtype)
    fewer = qwen(replace(shape, layers=2)).to(dtype)
    sizes = []
    for one in (model, fewer):
        one.requires_grad_(False)
        if adapter:
            one = get_peft_model(one, LoraConfig(r=4, target_modules=[
                "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
        given = torch.randn(rows, length, shape.hidden, dtype=dtype, requires_grad=True)
        mask = torch.ones(rows, length, dtype=torch.long)
        mask[0, -4:] = 0
        work = partial(one, inputs_embeds=given, attention_mask=mask, logits_to_keep=1)
        sizes.append(kept_bytes(work, one))
    measured = (sizes[0] - sizes[1]) / 2 / rows
    assert shape.activations(length, dtype.itemsize, adapter) == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("size", ["tiny3", "little"])
def test_activations_of_the_encoder(size):
    model, shape = EEGPT(EEGPT_SIZES[size], CHANNELS * 5), encoder_shape(size)
    measured = kept_bytes(lambda: model(torch.randn(4, 30, 1024)), model)
    assert shape.activations(4, 30, 16) == pytest.approx(measured, rel=0.2)


def test_the_cache_of_keys_and_values():
    shape = SHAPES[1]
    out = qwen(shape)(torch.arange(10)[None], use_cache=True)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
    assert shape.cache(4) * 10 == kept
