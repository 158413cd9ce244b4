"""Devices that a plan is made for: memory, rate and bandwidth of graphics cards, and of the processor here."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace

GB = 1e9


@dataclass(frozen=True)
class Device:
    """What computes.

    Parameters
    ----------
    name : str
        For the reader.
    memory : float
        Bytes of one.
    rate : dict of str to float
        Operations a second of large matrix products by number format, as the maker states it (dense).
    bandwidth : float
        Bytes a second of its memory.
    count : int
        How many.
    """

    name: str
    memory: float
    rate: dict[str, float]
    bandwidth: float
    count: int = 1

    @property
    def is_gpu(self) -> bool:
        """Whether it is a graphics card."""
        return self.name != "CPU"

    def rate_of(self, dtype: str) -> float:
        """Operations a second in a number format; 4bit computes in bfloat16."""
        return self.rate["float32" if dtype == "float32" else "bfloat16"]

    def __str__(self) -> str:
        return f"{self.count} × {self.name}" if self.count > 1 else self.name


def _gpu(name: str, memory_gb: float, tensor_tflops: float, float32_tflops: float, bandwidth_gbs: float) -> Device:
    return Device(name, memory_gb * GB, {"bfloat16": tensor_tflops * 1e12, "float32": float32_tflops * 1e12},
                  bandwidth_gbs * 1e9)


# Data sheets of NVIDIA: memory, bfloat16 on tensor cores (dense; float16 for V100 and T4), float32 without TF32, and
# bandwidth of the memory.
GPUS: dict[str, Device] = {gpu.name: gpu for gpu in (
    _gpu("T4-16", 16, 65, 8.1, 300), _gpu("V100-32", 32, 125, 15.7, 900), _gpu("RTX3090-24", 24, 71, 35.6, 936),
    _gpu("RTX4090-24", 24, 165, 82.6, 1008), _gpu("A10-24", 24, 125, 31.2, 600), _gpu("L4-24", 24, 121, 30.3, 300),
    _gpu("L40S-48", 48, 362, 91.6, 864), _gpu("A100-40", 40, 312, 19.5, 1555), _gpu("A100-80", 80, 312, 19.5, 2039),
    _gpu("H100-80", 80, 989, 66.9, 3350), _gpu("H200-141", 141, 989, 66.9, 4800),
)}  # fmt: skip


def device_of(gpus: str) -> Device:
    """Device from text such as ``8xA100-80``, ``H100-80``; empty for the processor of this machine.

    Raises
    ------
    ValueError
        For a card that is not in :data:`GPUS`.
    """
    if not gpus:
        return this_cpu()
    found = re.fullmatch(r"(?:(\d{1,4})\s*[xX×]\s*)?([A-Za-z0-9-]+)", gpus.strip())
    by_name = {name.lower(): gpu for name, gpu in GPUS.items()}
    if found is None or found[2].lower() not in by_name or found[1] == "0":
        raise ValueError(f"{gpus!r:.60} names no graphics cards: write 8xA100-80, with one of {', '.join(GPUS)}.")
    return replace(by_name[found[2].lower()], count=int(found[1] or 1))


def this_cpu(seconds: float = 0.4) -> Device:
    """The processor of this machine, the rate of one thread measured for so long on products of two matrices."""
    import psutil

    rate = {dtype: measured_rate(seconds=seconds / 2, dtype=dtype) for dtype in ("float32", "bfloat16")}
    return Device("CPU", psutil.virtual_memory().total, rate, 10e9)


def measured_rate(size: int = 512, seconds: float = 0.2, dtype: str = "float32") -> float:
    """Operations a second of a product of two matrices by one thread.

    Parameters
    ----------
    size : int
        Rows and columns of the matrices.
    seconds : float
        Time that is spent on it.
    dtype : str
        Number format. Processors without instructions for bfloat16 are several times slower in it, others faster.
    """
    import torch

    threads, best = torch.get_num_threads(), math.inf
    torch.set_num_threads(1)
    try:
        a, b = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
        torch.mm(a, b)  # the first one also loads what it needs: it is not measured
        end = time.perf_counter() + seconds
        while math.isinf(best) or time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - start)  # the best: other work of the machine is not planned
    finally:
        torch.set_num_threads(threads)
    return 2.0 * size**3 / best
