"""Which layers of a language model an adapter changes: asked of the model, for every family has names of its own."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

_no_adapter = ("out_proj", "conv1d")  # of state-space models: their fast kernels read the weights around an adapter


def linear_layers(model: Any) -> list[str]:
    """Names of the linear layers of a language model in a larger one, without its output head.

    Parameters
    ----------
    model : Module
        With the parts ``language_model`` and ``get_output_embeddings``, as
        :class:`e2llm.models.modeling.E2LLMForConditionalGeneration`.
    """
    head, is_recurrent = model.get_output_embeddings(), "mamba" in str(model.language_model.config.model_type)
    names = [f"language_model.{name}" for name, layer in model.language_model.named_modules()
             if isinstance(layer, (nn.Linear, Conv1D)) and layer is not head]
    return [name for name in names if not (is_recurrent and name.rpartition(".")[2] in _no_adapter)]


def lora_targets(model: Any, usual: str) -> str | list[str]:
    """What to hand to LoRA as ``target_modules``.

    Parameters
    ----------
    model : Module
        As for :func:`linear_layers`.
    usual : str
        Pattern of the names that most families give their layers.

    Returns
    -------
    str or list of str
        The pattern if it names every linear layer, else the names of all of them.

    Raises
    ------
    ValueError
        If the model has no linear layer.
    """
    names = linear_layers(model)
    if not names:
        raise ValueError(f"The language model ({type(model.language_model).__name__}) has no linear layer that an "
                         "adapter could change: choose another one.")
    return usual if all(re.fullmatch(usual, name) for name in names) else names
