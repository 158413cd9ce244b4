"""Our EEGPT against braindecode's: forward and backward with the same weights.

Runs in the environment of ``parity_eegpt.py``; see ``benchmarks/README.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import torch
from common import Row, compare, floor_s, main_of
from parity_eegpt import pair

from e2llm.core.montage import EEGPT_VOCABULARY
from e2llm.models.eegpt import N_PATCHES, PATCH

SIZES = (("tiny2", 16), ("tiny2", 64), ("little", 8), ("base2", 4), ("large", 2))


def step(model: torch.nn.Module, signal: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Forward, and backward from the sum of squares; gives the output."""

    def work() -> torch.Tensor:
        model.zero_grad()
        out = model(signal)
        out.square().mean().backward()
        return out.detach()

    return work


def rows(repeats: int) -> Iterator[Row]:
    for size, batch in SIZES:
        own, theirs, _ = pair(size, list(EEGPT_VOCABULARY))
        signal = torch.randn(batch, len(EEGPT_VOCABULARY), N_PATCHES * PATCH) * 0.02  # millivolts
        work = step(own, signal)
        yield compare(f"{size}, {batch} windows of {len(EEGPT_VOCABULARY)} channels", work, step(theirs, signal),
                      lambda a, b: float((a - b).abs().max()), 1e-4, repeats, goal=1.3, floor_s=floor_s(work))


if __name__ == "__main__":
    sys.exit(main_of(__doc__, rows, ["torch", "braindecode"]))
