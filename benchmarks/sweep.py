"""Does a sweep with two workers take half the time of a sweep with one?

``python benchmarks/sweep.py`` makes four runs of the profile ``smoke`` by one worker and then by two, each worker with
one thread, in folders of their own. The efficiency is the time of one worker over twice the time of two: 1 is ideal.
It needs two cores that do nothing else (the share of the processor that others took is printed), and the extra
``cluster``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import machine

from e2llm.data.simulation import TwinParams, simulate

GOAL = 0.9


def swept(workers: int, folder: Path, given: argparse.Namespace) -> tuple[float, float]:
    """Seconds of a sweep, and the share of all cores that other processes took meanwhile."""
    command = [sys.executable, "-m", "e2llm", "sweep", "--profile", given.profile, "--name", f"by{workers}",
               "-g", "seed=" + ",".join(map(str, range(given.runs))), "--workers", str(workers),
               "-p", f"data_root={folder / 'twin'}", "-p", "twin_preset=",
               *(part for each in given.parameter for part in ("-p", each))]
    runs = folder / f"runs{workers}"
    own, all_before = os.times(), psutil.cpu_times()
    start = time.perf_counter()
    subprocess.run(command, env={**os.environ, "E2LLM_RUNS": str(runs), "OMP_NUM_THREADS": "1"}, check=True,
                   stdout=subprocess.DEVNULL)
    took = time.perf_counter() - start
    now, all_now = os.times(), psutil.cpu_times()
    busy = sum(getattr(all_now, name) - getattr(all_before, name) for name in ("user", "nice", "system"))
    mine = sum(getattr(now, name) - getattr(own, name) for name in ("user", "system", "children_user",
                                                                    "children_system"))
    return took, max(busy - mine, 0.0) / took / (psutil.cpu_count() or 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke", help="of the runs (smoke)")
    parser.add_argument("--runs", type=int, default=4, help="how many: a multiple of two (4)")
    parser.add_argument("--people", type=int, default=6, help="in the simulated twin (6)")
    parser.add_argument("-p", "--parameter", action="append", default=[], help="name=value, as for e2llm run")
    given = parser.parse_args()
    if given.runs % 2:
        parser.error("give an even number of runs, or one worker waits for the other.")
    print(machine(["torch", "distributed"]), end="\n\n")
    print("| workers | seconds | taken by others, % of all cores |\n|---|---|---|")
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "twin", TwinParams(subjects=given.people), n_jobs=1)  # not counted
        for workers in (1, 2):
            took[workers], others = swept(workers, Path(folder), given)
            print(f"| {workers} | {took[workers]:.0f} | {100 * others:.0f} |", flush=True)
    efficiency = took[1] / (2 * took[2])
    print(f"\n{given.runs} runs: efficiency {efficiency:.2f}, wanted {GOAL}")
    return int(efficiency < GOAL)


if __name__ == "__main__":
    sys.exit(main())
