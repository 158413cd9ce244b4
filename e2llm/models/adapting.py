"""Which layers of a language model an adapter changes: asked of the model, for every family has names of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

_no_adapter = ("out_proj", "conv1d")  # of state-space models: their fast kernels read the weights around an adapter


def linear_layers(language_model: Any, prefix: str = "") -> list[str]:
    """Names of the linear layers of a language model, without its output head.

    Parameters
    ----------
    language_model : PreTrainedModel
        Any causal language model.
    prefix : str
        Before each name, where it is part of a larger model.
    """
    recurrent = "mamba" in str(language_model.config.model_type)
    head = language_model.get_output_embeddings()
    names = [f"{prefix}{name}" for name, layer in language_model.named_modules()
             if isinstance(layer, (nn.Linear, Conv1D)) and layer is not head]
    return [name for name in names if not (recurrent and name.rpartition(".")[2] in _no_adapter)]


def lora_targets(language_model: Any, usual: str, prefix: str = "") -> str | list[str]:
    """What to hand to LoRA as ``target_modules``.

    Parameters
    ----------
    language_model, prefix : PreTrainedModel, str
        As for :func:`linear_layers`.
    usual : str
        Pattern of the names that most families give their layers, with the prefix.

    Returns
    -------
    str or list of str
        The pattern if it names every linear layer, else the names of all of them.

    Raises
    ------
    ValueError
        If the model has no linear layer.
    """
    names = linear_layers(language_model, prefix)
    if not names:
        raise ValueError(f"The language model ({type(language_model).__name__}) has no linear layer that an adapter "
                         "could change: choose another one.")
    return usual if all(re.fullmatch(usual, name) for name in names) else names


def token_targets(language_model: Any, ids: Sequence[int]) -> dict[str, list[int]]:
    """What to hand to LoRA as ``trainable_token_indices``, so that the embeddings of some tokens are trained as well.

    Parameters
    ----------
    language_model : PreTrainedModel
        Any causal language model.
    ids : sequence of int
        The tokens. Where input and output embeddings are one matrix, they stay one; else both are trained.
    """
    within, head = language_model.get_input_embeddings(), language_model.get_output_embeddings()
    layers = [within] if head is None or head.weight is within.weight else [within, head]
    return {name: sorted(set(ids)) for name, layer in language_model.named_modules()
            if any(layer is one for one in layers)}


def adapted(peft: Any) -> Any:
    """The model that an adapter was trained for, ready to answer with it.

    The adapter is merged into the weights. Weights of four bits would be rounded again, and would answer otherwise than
    in training: there the layers of the adapter stay in place, which takes a little longer.

    Parameters
    ----------
    peft : PeftModel
        With its adapter.

    Returns
    -------
    Module
        Not a :class:`peft.PeftModel`, and in evaluation mode.
    """
    if not any(getattr(module, "is_quantized", False) for module in peft.modules()):
        return peft.merge_and_unload().eval()
    from peft.utils import ModulesToSaveWrapper

    model = peft.get_base_model()
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    return model.eval()
