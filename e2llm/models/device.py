"""Where models compute, and in which number format: the one place that decides. Importing it loads no torch.

:func:`use_device` sets the policy of this process. Whatever loads or makes a model afterwards puts it on
:func:`current_device`; tensors that enter it follow the model. By default that is a GPU of NVIDIA where PyTorch finds
one, else the CPU.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,4})?")
NUMBER_FORMATS = ("auto", "float32", "bfloat16", "float16", "4bit")
ATTENTIONS = ("auto", "flash")


class DeviceError(ValueError):
    """What was asked for cannot be computed on this computer; the message says what to do."""


@dataclass(frozen=True)
class DevicePolicy:
    """How this process computes; what it computes is the same, up to rounding.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    gradient_checkpointing : bool
        Language models keep the inputs of their layers only, and compute the rest again in the backward pass.
    sharded : bool
        A training spreads the frozen language model over its processes; see :mod:`e2llm.training.sharding`.
    """

    device: str = "auto"
    gradient_checkpointing: bool = False
    sharded: bool = False


_policy = DevicePolicy()


def device_policy() -> DevicePolicy:
    """The policy of this process."""
    return _policy


def use_device(device: str = "auto", gradient_checkpointing: bool = False, sharded: bool = False) -> torch.device:
    """Set the policy of this process; models that are loaded already stay where they are.

    Parameters
    ----------
    device, gradient_checkpointing, sharded
        See :class:`DevicePolicy`.

    Returns
    -------
    torch.device
        Where models go from now on.

    Raises
    ------
    DeviceError
        If there is no such device here.
    """
    return set_policy(DevicePolicy(device, gradient_checkpointing, sharded))


def set_policy(policy: DevicePolicy) -> torch.device:
    """Take over a policy, as worker processes do that of the process which started them; see :func:`use_device`."""
    global _policy
    found = find_device(policy.device)
    _policy = policy
    return found


@contextmanager
def using(policy: DevicePolicy) -> Iterator[None]:
    """Within the block another policy holds."""
    before = _policy
    set_policy(policy)
    try:
        yield
    finally:
        set_policy(before)


def current_device() -> torch.device:
    """Where models go under the policy of this process."""
    return find_device(_policy.device)


def loading_device() -> torch.device:
    """Where language models are read into: a device that need not hold all of a sharded one is not asked to."""
    return find_device("cpu" if _policy.sharded else _policy.device)


def is_device_name(name: str) -> bool:
    """Whether a text can name a device; it need not be there."""
    return _DEVICE.fullmatch(name) is not None


def find_device(name: str) -> torch.device:
    """The device of a name, always with its number if it is one of several.

    Processes of one training (``accelerate launch``) have a GPU each, which ``LOCAL_RANK`` numbers.

    Parameters
    ----------
    name : str
        As for :class:`DevicePolicy`.

    Raises
    ------
    DeviceError
        If it is no name of a device, or no such device is here.
    """
    import torch  # here: parameters are checked without it

    if not is_device_name(name):
        raise DeviceError(f"device = {name!r} is unknown: take auto, cpu, cuda, cuda:1 or mps.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device = 'mps', but PyTorch finds no GPU of Apple here: take device = 'auto' or 'cpu'.")
    if kind != "cuda":
        return torch.device(kind)
    if not torch.cuda.is_available():
        why = ("this PyTorch was built without CUDA: install a build with CUDA" if torch.version.cuda is None
               else "PyTorch finds no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES")
        raise DeviceError(f"device = {name!r}, but {why}, or take device = 'auto' or 'cpu'.")
    index = int(number or os.environ.get("LOCAL_RANK", "0"))
    if index >= (count := torch.cuda.device_count()):
        there = ", ".join(f"cuda:{i}" for i in range(count))
        raise DeviceError(f"device = 'cuda:{index}' is not there: PyTorch finds {there}.")
    return torch.device("cuda", index)


def ask_for_processes(processes: int, device: str) -> None:
    """Refuse processes of one training that would have no device of their own, before any work.

    Parameters
    ----------
    processes : int
        How many train together.
    device : str
        As for :class:`DevicePolicy`.

    Raises
    ------
    DeviceError
        Naming the parameter, the fact and what to do.
    """
    if processes == 1:
        return
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"processes = {processes}, but device = {device!r} is one device: take device = 'auto', "
                          "'cuda' or 'cpu', or processes = 1.")
    if find_device(device).type == "cuda":
        import torch

        if processes > (count := torch.cuda.device_count()):
            raise DeviceError(f"processes = {processes}, but PyTorch finds {count} GPU{'s'[:count != 1]}, and each "
                              f"process takes one: take processes = {count}.")


def best_dtype() -> str:
    """``bfloat16`` where the device is known to compute in it natively, else ``float32``."""
    import torch

    device = current_device()
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type != "cpu":
        return "float32"
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if any(able.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16")) else "float32"


def ask_for_device(name: str, dtype: str = "auto", attention: str = "auto") -> None:
    """Refuse a device, a number format or an attention that this computer does not have, before any work.

    Parameters
    ----------
    name : str
        As for :class:`DevicePolicy`.
    dtype : str
        One of :data:`NUMBER_FORMATS`.
    attention : str
        One of :data:`ATTENTIONS`: ``auto`` is what transformers takes (its SDPA where the model has it), ``flash``
        needs the package flash-attn, a GPU of NVIDIA and 16-bit numbers.

    Raises
    ------
    DeviceError
        Naming the parameter, the fact and what to do.
    """
    if dtype not in NUMBER_FORMATS:
        *some, last = NUMBER_FORMATS
        raise DeviceError(f"dtype = {dtype!r} is unknown: {', '.join(some)} or {last}.")
    if attention not in ATTENTIONS:
        raise DeviceError(f"attention = {attention!r} is unknown: {' or '.join(ATTENTIONS)}.")
    if name in ("auto", "cpu") and dtype != "4bit" and attention == "auto":
        return  # every computer has that, and torch is not loaded to say so
    if dtype == "4bit" and find_spec("bitsandbytes") is None:
        raise DeviceError("dtype = '4bit' needs the package bitsandbytes: pip install bitsandbytes, or take dtype = "
                          "'bfloat16'.")
    kind = find_device(name).type
    if dtype == "4bit" and kind != "cuda":
        raise DeviceError(f"dtype = '4bit' needs a CUDA device, and the device is {kind!r}: take dtype = 'bfloat16' or "
                          "'float32'.")
    if attention == "flash":
        if kind != "cuda" or dtype == "float32":
            raise DeviceError("attention = 'flash' needs a CUDA device and 16-bit numbers, and the device is "
                              f"{kind!r}, dtype {dtype!r}: take attention = 'auto'.")
        if find_spec("flash_attn") is None:
            raise DeviceError("attention = 'flash' needs the package flash-attn: pip install flash-attn, or take "
                              "attention = 'auto'.")
