"""A device that is not there: tensors with values, which say that they lie on it and refuse what CUDA would refuse.

PyTorch's own fake tensors refuse to join devices too, but have no values: masks, ``item`` and generation, which stop
at values, cannot run on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from e2llm.models import device as policy

aten = torch.ops.aten
_MOVES = {aten._to_copy.default, aten.copy_.default, aten._local_scalar_dense.default}
# Places may be given from the CPU, as for CUDA.
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class MixedDevices(RuntimeError):
    """An operation was given tensors of two devices."""


class Pretended(torch.Tensor):
    """A tensor of the CPU that says it lies on another device."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor, place: torch.device) -> Pretended:
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=place, requires_grad=False)

    def __init__(self, inner: torch.Tensor, place: torch.device) -> None:
        self.inner, self.place = inner, place

    def __repr__(self, **_: object) -> str:
        return f"Pretended({self.inner}, {self.place})"

    def tolist(self) -> list:
        """As for a tensor of a GPU; PyTorch refuses it for classes of others."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def computed(func, args: tuple, kwargs: dict, there: torch.device | None = None):
    """Result of an operation on the device of its tensors; :class:`MixedDevices` if they are on two."""
    found: list[Pretended] = []
    others: list[torch.Tensor] = []

    def note(value: object) -> object:
        if isinstance(value, Pretended):
            found.append(value)
        elif isinstance(value, torch.Tensor) and value.is_meta and value.numel():
            raise AssertionError(f"{func} was given a tensor without values")
        elif isinstance(value, torch.Tensor) and value.dim():  # CUDA takes numbers from the CPU too
            others.append(value)
        return value

    tree_map(note, (args, kwargs))
    asked = kwargs.get("device")
    asked = torch.device(asked) if asked is not None else None
    place = found[0].place if found else None
    if found and others and func not in _MOVES:
        own = others if func not in _INDEXED else [other for other in others if other is args[0]]
        if own:
            raise MixedDevices(f"{func}: {[tuple(value.shape) for value in found]} on {place}, "
                               f"{[tuple(value.shape) for value in own]} on the CPU")
    if func is aten.copy_.default:
        place = args[0].place if isinstance(args[0], Pretended) else None
    elif asked is not None:
        place = asked if there is not None and asked.type == there.type else asked if asked.type != "cpu" else None
    given = [(value, value.inner) for value in found]
    plain = tree_map(lambda value: value.inner if isinstance(value, Pretended) else value, (args, kwargs))
    if asked is not None:
        plain[1]["device"] = torch.device("cpu")
        plain[1].pop("pin_memory", None)
    out = func(*plain[0], **plain[1])

    def wrapped(value: object) -> object:
        if not isinstance(value, torch.Tensor):
            return value
        for outer, inner in given:
            if inner is value:
                return outer  # changed in place
        return Pretended(value, place) if place is not None else value

    return tree_map(wrapped, out)


class _Factories(TorchDispatchMode):
    """Tensors that are made on the device, or moved to it."""

    def __init__(self, place: torch.device) -> None:
        super().__init__()
        self.place = place

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {}, self.place)


class _Literals(TorchFunctionMode):
    """What PyTorch does without asking the tensors: makes them of numbers on a device, and sets their ``data``."""

    def __init__(self, place: torch.device) -> None:
        super().__init__()
        self.place = place

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.__getitem__ and isinstance(args[1], list):  # its places would be made there
            return func(args[0], torch.tensor(args[1]))
        if func == torch.Tensor.data.__set__ and isinstance(args[0], Pretended):  # as peft merges an adapter
            args[0].inner = args[1].inner
        asked = kwargs.get("device")
        if func not in (torch.tensor, torch.as_tensor, torch.asarray) or asked is None:
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, "device": "cpu"}).to(asked)


@contextmanager
def pretended(place: str) -> Iterator[torch.device]:
    """Within the block the policy puts models on a device that is not there."""
    there = torch.device(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "find_device", lambda name: there)
        with policy.using(policy.DevicePolicy("cuda")), _Literals(there), _Factories(there):
            yield there
