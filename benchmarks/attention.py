"""Attention of a language model in bfloat16 on the processor: plain products, against PyTorch's SDPA.

Forward and backward pass with the shape of SmolLM2-135M, random weights and four of its thirty layers. The last row
shows float32, where SDPA is taken (and called ours).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

import torch
from common import Row, compare, main_of
from transformers import LlamaConfig, LlamaForCausalLM

BATCH, LENGTH, LAYERS = 8, 160, 4


def language_model(dtype: torch.dtype) -> LlamaForCausalLM:
    """Some layers of SmolLM2-135M with random weights, frozen."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=1000, hidden_size=576, intermediate_size=1536, num_hidden_layers=LAYERS,
                         num_attention_heads=9, num_key_value_heads=3)
    return LlamaForCausalLM(config).to(dtype).requires_grad_(False).train()


def step(model: LlamaForCausalLM, attention: str, given: torch.Tensor) -> torch.Tensor:
    """Forward and backward pass; the gradient of the inputs."""
    model.set_attn_implementation(attention)
    inputs, mask = given.clone().requires_grad_(True), torch.ones(BATCH, LENGTH, dtype=torch.long)
    mask[0, -20:] = 0
    model(inputs_embeds=inputs, attention_mask=mask).logits.float().logsumexp(-1).mean().backward()
    return inputs.grad.float()


def apart(ours: torch.Tensor, peer: torch.Tensor) -> float:
    """Size of the difference of two gradients, as a share of their size."""
    return float((ours - peer).norm() / peer.norm())


def rows(repeats: int) -> Iterator[Row]:
    for dtype, attentions, tolerance in ((torch.bfloat16, ("eager", "sdpa"), 5e-2),
                                         (torch.float32, ("sdpa", "eager"), 1e-4)):
        model, given = language_model(dtype), torch.randn(BATCH, LENGTH, 576, dtype=dtype)
        ours, peer = (partial(step, model, attention, given) for attention in attentions)
        name = f"{str(dtype).removeprefix('torch.')}: {attentions[0]} : {attentions[1]}, {BATCH} texts of {LENGTH}"
        yield compare(name, ours, peer, apart, tolerance, repeats, goal=1)


if __name__ == "__main__":
    sys.exit(main_of(__doc__, rows, ["torch", "transformers"]))
