"""What every benchmark shares: paired timing, the check that both sides give the same, one row of results.

Two functions are timed alternately in one process, so that what else the machine does meets both alike; the ratio is
the median over pairs. A script makes rows and hands them to :func:`main_of`::

    def rows(repeats):
        yield compare("short clips", ours, peer, agree=lambda a, b: largest_difference(a, b), tolerance=1e-5,
                      repeats=repeats)

    if __name__ == "__main__":
        sys.exit(main_of(__doc__, rows, packages=["mne", "scipy"]))

``python benchmarks/NAME.py --repeats 9 --json row.json`` prints a Markdown table and writes the same as JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np


@dataclass(frozen=True)
class Row:
    """One comparison; seconds are medians, the ratio is peer / ours: above 1, ours is faster."""

    name: str
    ours_s: float
    peer_s: float
    ratio: float
    ratio_min: float
    ratio_max: float
    difference: float | None = None  # of the two results
    tolerance: float | None = None
    goal: float | None = None  # wanted ratio
    floor_s: float | None = None  # what the matrix products alone would take

    @property
    def agrees(self) -> bool:
        """Whether the two results are the same within the tolerance; True where none was asked for."""
        return self.difference is None or self.tolerance is None or self.difference <= self.tolerance


def largest_difference(ours, peer) -> float:
    """Largest absolute difference of two arrays of the same shape; infinite where the shapes differ."""
    ours, peer = np.asarray(ours, dtype=float), np.asarray(peer, dtype=float)
    return float(np.abs(ours - peer).max(initial=0.0)) if ours.shape == peer.shape else float("inf")


def seconds(work: Callable[[], object]) -> tuple[float, object]:
    """Wall seconds of one call, and what it gave; the garbage collector is off meanwhile."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result
    finally:
        gc.enable()


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object],
            agree: Callable[[object, object], float] | None = None, tolerance: float | None = None, repeats: int = 7,
            goal: float | None = None, floor_s: float | None = None) -> Row:
    """Time two functions alternately, in changing order, after one call of each that is not counted.

    Parameters
    ----------
    name : str
        Of the row.
    ours, peer : callable
        Without arguments; what they return goes to ``agree``.
    agree : callable, optional
        ``agree(result of ours, result of peer)`` gives a difference, checked against ``tolerance``.
    tolerance : float, optional
        Largest difference that is called equal.
    repeats : int
        Pairs.
    goal : float, optional
        Ratio that is wanted.
    floor_s : float, optional
        Seconds that no implementation could go below.
    """
    first, second = ours(), peer()
    difference = None if agree is None else float(agree(first, second))
    del first, second
    pairs = []
    for i in range(repeats):
        if i % 2:
            other, own = seconds(peer)[0], seconds(ours)[0]
        else:
            own, other = seconds(ours)[0], seconds(peer)[0]
        pairs.append((own, other))
    ratios = [other / own for own, other in pairs]
    return Row(name, median(own for own, _ in pairs), median(other for _, other in pairs), median(ratios), min(ratios),
               max(ratios), difference, tolerance, goal, floor_s)


def matrix_rate(size: int = 512, repeats: int = 7) -> float:
    """Floating point operations a second of a square float32 matrix product in torch, with the threads it uses now."""
    import torch

    a, b = torch.randn(size, size), torch.randn(size, size)
    torch.mm(a, b)
    rounds = max(1, 2**28 // size**3)
    times = [seconds(lambda: [torch.mm(a, b) for _ in range(rounds)])[0] for _ in range(repeats)]
    return 2.0 * size**3 * rounds / median(times)


def floor_s(work: Callable[[], object]) -> float:
    """Seconds that the matrix products of a call would take alone, at the rate that large ones reach here."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / matrix_rate()


def machine(packages: Iterable[str] = ()) -> str:
    """One line: cores, threads and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None
    found = [f"Python {platform.python_version()}"]
    for name in packages:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return f"{cores} cores" + (f", {threads} torch threads; " if threads else "; ") + ", ".join(found)


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| what | ours, ms | peer, ms | peer / ours (min to max) | goal | difference (tolerance) | floor, ms |",
             "|---|---|---|---|---|---|---|"]
    for row in rows:
        said = {
            "goal": "" if row.goal is None else f"{row.goal:g}",
            "agree": "" if row.difference is None else f"{row.difference:.1e}"
            + ("" if row.tolerance is None else f" ({row.tolerance:.0e})"),
            "floor": "" if row.floor_s is None else f"{1e3 * row.floor_s:.1f}",
        }
        lines.append(f"| {row.name} | {1e3 * row.ours_s:.1f} | {1e3 * row.peer_s:.1f} | {row.ratio:.2f} "
                     f"({row.ratio_min:.2f} to {row.ratio_max:.2f}) | {said['goal']} | {said['agree']} | "
                     f"{said['floor']} |")
    return "\n".join(lines)


def main_of(doc: str, rows: Callable[[int], Iterable[Row]], packages: Iterable[str] = (), repeats: int = 7) -> int:
    """Command line of a benchmark: print the table; exit code 1 if any pair of results does not agree.

    Parameters
    ----------
    doc : str
        Of the script; its first line is the help.
    rows : callable
        ``rows(repeats)`` gives :class:`Row` objects.
    packages : iterable of str
        Whose versions are printed.
    repeats : int
        Default number of pairs.
    """
    parser = argparse.ArgumentParser(description=doc.strip().splitlines()[0])
    parser.add_argument("--repeats", type=int, default=repeats, help="pairs of calls a row")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    made = list(rows(given.repeats))
    facts = machine(packages)
    print(f"{facts}\n\n{markdown(made)}")
    if given.json:
        given.json.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in made]}, indent=1) + "\n")
    for row in made:
        if not row.agrees:
            print(f"{row.name}: the results differ by {row.difference:.2e}, tolerance {row.tolerance:.0e}.",
                  file=sys.stderr)
    return int(any(not row.agrees for row in made))
