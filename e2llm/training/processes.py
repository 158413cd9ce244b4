"""One training in several processes (``torchrun``, ``accelerate launch``): what each computes of a batch.

Every process reads the samples of the whole batch in the same order and draws the same random numbers; it computes a
part of them, its own. So a batch of n * B samples in n processes is the batch of n * B in one, up to rounding. Where no
launcher started this process, it is the only one, and all samples are its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ..core.chat import IGNORE


class PartDone(Exception):
    """A process has done its part of a training; what follows is the first one's work."""


def n_processes() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if n_processes() > 1 else 0


def own_part(samples: Sequence) -> Sequence:
    """The part of a batch that this process computes: as many samples as each other process has.

    Raises
    ------
    ValueError
        If the batch cannot be divided.
    """
    n, processes = len(samples), n_processes()
    if n % processes:
        raise ValueError(f"A batch of {n} cannot be divided among {processes} processes: take a multiple of it.")
    return samples[rank() * (n // processes) : (rank() + 1) * (n // processes)]


def parts_with_sources(sources: Sequence[int], n_own: int, n_parts: int) -> list[list[int]]:
    """Places of a batch in equal parts: recorded windows in their order, and edited ones beside their source.

    An edited window whose source is in a full part, or in none, goes to the first part with room.

    Parameters
    ----------
    sources : sequence of int
        For each edited window the place of its source in the batch, negative if there is none. They follow the recorded
        windows.
    n_own, n_parts : int
        Number of recorded windows, and of parts. It divides both kinds of windows.

    Raises
    ------
    ValueError
        If it does not.
    """
    if n_own % n_parts or len(sources) % n_parts:
        raise ValueError(f"A batch of {n_own} windows and {len(sources)} augmented ones cannot be divided among "
                         f"{n_parts} processes: take multiples of it.")
    size, full = n_own // n_parts, (n_own + len(sources)) // n_parts
    parts = [list(range(i * size, (i + 1) * size)) for i in range(n_parts)]
    left = []
    for place, source in enumerate(sources, n_own):
        if source >= 0 and len(home := parts[source // size]) < full:
            home.append(place)
        else:
            left.append(place)
    for place in left:
        next(part for part in parts if len(part) < full).append(place)
    return [sorted(part) for part in parts]


def label_share(examples: Sequence[dict]) -> float:
    """Weight of this process's mean loss over labels, so that the mean of all is that of the whole batch.

    Parameters
    ----------
    examples : sequence of dict
        Of the whole batch; the first label of each has nothing before it that could predict it.
    """
    counts = [sum(label != IGNORE for label in example["labels"][1:]) for example in examples]
    return n_processes() * sum(own_part(counts)) / sum(counts)


def whole_batch(own: Tensor, order: Tensor) -> Tensor:
    """Samples of all processes, with gradients to where they came from.

    Each process then computes the loss of the whole batch. Gradients are summed over the processes on the way back,
    and DistributedDataParallel takes their mean: what remains is the gradient of one such loss.

    Parameters
    ----------
    own : Tensor, shape (batch / n_processes, ...)
        Of this process.
    order : Tensor of int, shape (batch,)
        For every place in the batch its place among the parts, laid one after the other.

    Returns
    -------
    Tensor, shape (batch, ...)
    """
    return _Gathered.apply(own)[order]


class _Gathered(torch.autograd.Function):
    """Parts of all processes, one after the other."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(n_processes())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed.chunk(n_processes())[rank()]


def leave() -> None:
    """End the common training: from here on the first process is alone.

    Raises
    ------
    PartDone
        In the others.
    """
    if n_processes() == 1:
        return
    mine = rank()
    dist.barrier()
    dist.destroy_process_group()
    if mine:
        raise PartDone
