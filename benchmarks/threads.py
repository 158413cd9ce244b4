"""How a training step fares with each way of waiting, number of threads and way to free memory, quiet or busy.

Every setting needs a process of its own, for OpenMP reads it when torch is loaded. Rounds alternate between the
settings. ``--busy`` starts one process that computes without end beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 1000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10000": {"GOMP_SPINCOUNT": "10000"},
    "spin 100000": {"GOMP_SPINCOUNT": "100000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "spin 1000, memory kept": {"GOMP_SPINCOUNT": "1000", "MALLOC_MMAP_THRESHOLD_": "33554432",
                               "MALLOC_TRIM_THRESHOLD_": "1073741824"},
}


def steps() -> dict[str, Callable[[], None]]:
    """One step of the encoder (stage 1) and one of a small language model, without their data."""
    import torch
    from torch import nn

    from e2llm.core.montage import EEGPT_VOCABULARY
    from e2llm.models.eegpt import EEGPT, Block, EEGPTConfig, eegpt_config

    torch.manual_seed(0)
    encoder = EEGPT(eegpt_config("tiny2", patch_dropout=0.75, channel_dropout=0.5), list(EEGPT_VOCABULARY))
    signal = torch.randn(64, len(EEGPT_VOCABULARY), 1024) * 0.02
    config = EEGPTConfig(width=96, depth=3, heads=4, mlp_ratio=4)
    language = nn.Sequential(*(Block(config) for _ in range(3)), nn.Linear(96, 3072))
    tokens, ids = torch.randn(16, 110, 96), torch.randint(3072, (16 * 25,))

    def encode() -> None:
        encoder.zero_grad()
        encoder(signal).square().mean().backward()

    def speak() -> None:
        language.zero_grad()
        hidden = language[:-1](tokens)[:, :25].flatten(0, 1)
        nn.functional.cross_entropy(language[-1](hidden), ids).backward()

    return {"encoder": encode, "language": speak}


def measured(repeats: int) -> dict[str, float]:
    """Median seconds of each step in this process."""
    from common import seconds

    found = {}
    for name, step in steps().items():
        step()
        found[name] = median(seconds(step)[0] for _ in range(repeats))
    return found


def main() -> int:
    """Print a row for every setting: milliseconds a step, median over rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="beside a process that computes without end")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(given.repeats)))
        return 0
    read = ("OMP_", "GOMP_", "MKL_", "MALLOC_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(read)}
    beside = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if given.busy else None
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    try:
        for _ in range(given.rounds):
            for name, setting in SETTINGS.items():
                command = [sys.executable, __file__, "--one", "--repeats", str(given.repeats)]
                said = subprocess.run(command, env=clean | setting, capture_output=True, text=True, check=True).stdout
                found[name].append(json.loads(said))
    finally:
        if beside is not None:
            beside.kill()
    print("| setting | " + " | ".join(f"{step}, ms" for step in found["default"][0]) + " |\n|---|---|---|")
    for name, rounds in found.items():
        cells = (f"{1e3 * median(each[step] for each in rounds):.0f} (" + ", ".join(
            f"{1e3 * each[step]:.0f}" for each in rounds) + ")" for step in rounds[0])
        print(f"| {name} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
