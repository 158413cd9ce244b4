"""Does a sweep with two workers take half the time of a sweep with one?

``python benchmarks/sweep.py`` makes four runs of the profile ``smoke`` by one worker on one core, and then by two on
two cores, each worker with one thread, in folders of their own. The efficiency is the time of one worker over twice the
time of two: 1 is ideal. One worker with two cores would not do as a measure: the kernel of a run's next notebook starts
on the core that is idle. Two cores share their memory, so two independent processes are measured too: no sweep can
reach more than they do. On a machine whose speed changes, look at how busy the cores were: what a sweep wastes, it
wastes by letting a core wait. It needs Linux, two cores that do nothing else (the share of the processor that others
took is printed), and the extra ``cluster``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
from common import machine

from e2llm.data.simulation import TwinParams, simulate

GOAL = 0.9


WORK = """
import time
import torch
layer, x = torch.nn.TransformerEncoderLayer(192, 4, 768, batch_first=True), torch.ones(16, 160, 192)
start = time.perf_counter()
for _ in range(60):
    layer(x).square().mean().backward()
print(time.perf_counter() - start)
"""


def independent(processes: int, cores: list[int]) -> float:
    """Seconds that processes take which know nothing of each other; the slowest one's, without its imports."""
    with on_cores(cores[:processes]):
        started = [subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, text=True,
                                    env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(processes)]
    return max(float(one.communicate()[0]) for one in started)


@contextmanager
def on_cores(cores: list[int]) -> Iterator[None]:
    """Processes that are started inside run on these cores."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual)


def swept(workers: int, cores: list[int], folder: Path, given: argparse.Namespace) -> tuple[float, float, float]:
    """Seconds of a sweep, how busy the cores of its workers were, and the share of all cores that others took."""
    command = [sys.executable, "-m", "e2llm", "sweep", "--profile", given.profile, "--name", f"by{workers}",
               "-g", "seed=" + ",".join(map(str, range(given.runs))), "--workers", str(workers),
               "-p", f"data_root={folder / 'twin'}", "-p", "twin_preset=",
               *(part for each in given.parameter for part in ("-p", each))]
    runs = folder / f"runs{workers}"
    own, all_before = os.times(), psutil.cpu_times()
    start = time.perf_counter()
    with on_cores(cores[:workers]):
        subprocess.run(command, env={**os.environ, "E2LLM_RUNS": str(runs), "OMP_NUM_THREADS": "1"}, check=True,
                       stdout=subprocess.DEVNULL)
    took = time.perf_counter() - start
    now, all_now = os.times(), psutil.cpu_times()
    busy = sum(getattr(all_now, name) - getattr(all_before, name) for name in ("user", "nice", "system"))
    mine = sum(getattr(now, name) - getattr(own, name) for name in ("user", "system", "children_user",
                                                                    "children_system"))
    return took, mine / (workers * took), max(busy - mine, 0.0) / took / (psutil.cpu_count() or 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="smoke", help="of the runs (smoke)")
    parser.add_argument("--runs", type=int, default=4, help="how many: a multiple of two (4)")
    parser.add_argument("--people", type=int, default=6, help="in the simulated twin (6)")
    parser.add_argument("-p", "--parameter", action="append", default=[], help="name=value, as for e2llm run")
    given = parser.parse_args()
    if given.runs % 2:
        parser.error("give an even number of runs, or one worker waits for the other.")
    cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        parser.error("this needs Linux and two cores.")
    print(machine(["torch", "distributed"]), end="\n\n")
    ceiling = median(independent(1, cores) / independent(2, cores) for _ in range(5))
    print("| workers | seconds | their cores busy, % | taken by others, % of all cores |\n|---|---|---|---|")
    took = {}
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder) / "twin", TwinParams(subjects=given.people), n_jobs=1)  # not counted
        for workers in (1, 2):
            took[workers], used, others = swept(workers, cores, Path(folder), given)
            print(f"| {workers} | {took[workers]:.0f} | {100 * used:.0f} | {100 * others:.0f} |", flush=True)
    efficiency = took[1] / (2 * took[2])
    print(f"\n{given.runs} runs: efficiency {efficiency:.2f}, wanted {GOAL}; independent processes reach {ceiling:.2f}")
    return int(efficiency < GOAL)


if __name__ == "__main__":
    sys.exit(main())
