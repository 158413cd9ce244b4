"""Fully sharded data parallel (FSDP): each of several processes keeps a part of the frozen language model.

A decoder layer is gathered when it computes, and given up afterwards. What is trained (LoRA, projector) is small: it
stays whole in every process, under DistributedDataParallel as without sharding. So optimizer, checkpoints and saved
files are the same, and a training goes on with or without sharding, in any number of processes.

It is PyTorch's ``fully_shard``, and not the argument ``fsdp`` of ``TrainingArguments``: that one refuses an optimizer
with a learning rate for each part, shards what is trained as well, and its checkpoints resume only under FSDP.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from .processes import n_processes


def shard_frozen(model: Any, device: torch.device) -> None:
    """Spread the frozen weights of the language model inside a model over the processes that train it.

    Its decoder layers, word embeddings and output layer are one unit each; tied ones are one unit together.

    Parameters
    ----------
    model : Module
        Has a ``language_model``, directly or below adapters of peft; changed. Parameters with ``requires_grad``, and
        all outside the language model, stay whole.
    device : torch.device
        Of this process; the parts go there.

    Raises
    ------
    ValueError
        If the language model does not say which of its modules are decoder layers.
    """
    language_model = model.language_model
    layers = decoder_layers(language_model)
    within = set(language_model.parameters())
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad or parameter not in within}
    options = {"mesh": init_device_mesh(device.type, (n_processes(),)), "ignored_params": whole}
    for layer in layers:
        fully_shard(layer, **options)
    embeddings, head = language_model.get_input_embeddings(), language_model.get_output_embeddings()
    if embeddings.weight is head.weight:
        fully_shard([embeddings, head], reshard_after_forward=False, **options)  # needed at both ends
    else:
        fully_shard(embeddings, **options)
        fully_shard(head, reshard_after_forward=False, **options)  # the backward pass begins with it
    fully_shard(model, **options)  # what is left, as the last norm; it also lets a layer be gathered while another runs
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        model, [name for name, value in model.named_parameters(remove_duplicate=False) if isinstance(value, DTensor)])


def decoder_layers(language_model: PreTrainedModel) -> list[nn.Module]:
    """Layers of a language model that are gathered one at a time: those that transformers never splits.

    Parameters
    ----------
    language_model : PreTrainedModel
        Any.

    Raises
    ------
    ValueError
        If it names none.
    """
    names = set(language_model._no_split_modules or ())
    layers = [module for module in language_model.modules() if type(module).__name__ in names]
    if not layers:
        raise ValueError(f"sharded = True, but {type(language_model).__name__} does not say which of its modules are "
                         "decoder layers: take sharded = False, or another language model.")
    return layers[::-1]  # what lies within another comes first


def held_here(module: nn.Module) -> int:
    """Number of weights of a module that this process keeps between two steps.

    Parameters
    ----------
    module : Module
        Sharded or not.
    """
    return sum((value.to_local() if isinstance(value, DTensor) else value).numel() for value in module.parameters())
