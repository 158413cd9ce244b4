"""A model of toy size with everything that the real one has, to be taken apart in a lesson."""

from __future__ import annotations

import copy

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ..models.language import ScratchParams, make_tokenizer, new_language_model
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..training.stage3_instruction import quiet_peft

_TEXTS = ["Which emotion is it? happy sad calm", "happy", "sad", "calm", "user", "assistant", "think"] * 4
EEG_WIDTH = 8  # of an encoder token


def toy_model(seed: int = 0) -> tuple[E2LLMForConditionalGeneration, E2LLMProcessor]:
    """A language model of two layers and width 48 behind a projector with two state tokens, and its processor.

    It has random weights and no encoder: give it ``eeg_features`` of shape (segments, 16, 8).

    Parameters
    ----------
    seed : int
        Of its weights.

    Returns
    -------
    model : E2LLMForConditionalGeneration
        In evaluation mode.
    processor : E2LLMProcessor
        Its processor.
    """
    tokenizer = make_tokenizer(_TEXTS, 300)
    language = new_language_model(tokenizer, ScratchParams(vocab_size=300, hidden_size=48, layers=2), seed)
    model = E2LLMForConditionalGeneration.join(language, tokenizer, "toy", None, EEG_WIDTH, 2, seed)
    return model.eval(), E2LLMProcessor(tokenizer, eeg_tokens=2)


def toy_item(processor: E2LLMProcessor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels of one question about one segment, with its answer.

    Parameters
    ----------
    processor : E2LLMProcessor
        Of :func:`toy_model`.

    Returns
    -------
    ids, labels : Tensor of int, shape (1, length)
        Labels are -100 where there is no loss.
    """
    content = [{"type": "eeg", "window": 0}, {"type": "text", "text": " Which emotion is it?"}]
    example = processor.training_example([{"role": "user", "content": content}], "happy", thinking=True)
    return torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])


def toy_adapter(model: E2LLMForConditionalGeneration, rank: int = 2, alpha: int = 4, seed: int = 0) -> PeftModel:
    """A copy of a toy model with LoRA at one weight, the queries of its first layer; B is random, as after training.

    Parameters
    ----------
    model : E2LLMForConditionalGeneration
        Of :func:`toy_model`; not changed.
    rank, alpha : int
        Of the adapter.
    seed : int
        Of both matrices.
    """
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=r".*layers\.0\.self_attn\.q_proj")
    with quiet_peft():
        adapted = get_peft_model(copy.deepcopy(model), config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    return adapted.eval()
