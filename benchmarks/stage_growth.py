"""How the time and the memory of every stage grow with the number of windows.

``OMP_NUM_THREADS=1 python benchmarks/stage_growth.py`` simulates three people whose clips are 1, 4 and 16 times as
long, and runs each size through all stages in a process of its own: the encoder ``tiny1``, few steps of training, as
many items as windows. One more work is one continuous recording of 62 channels that gets longer. It prints seconds of
the processor, the largest memory beyond what was there before (pages that the system may write to a file at any time
do not count), and the exponents: ``a * windows ** exponent`` fitted to all sizes, and between the last two. It needs
Linux, for ``/proc`` and ``malloc_trim``.

Other work on the machine makes a processor slower. So a fixed piece of work is timed before and after each stage, and
seconds are those at the speed that the processor had at the beginning of the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from common import machine
from growth import GOAL, exponent

from e2llm.core.labels import plain_labels
from e2llm.core.montage import SEED_CHANNELS
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import write_windows
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.sources.base import Recording, Source, Trial

CLIP_S = (8.2, 9.0)  # of the smallest size: two windows a clip
LONG_S, LONG_SFREQ = 300, 200.0  # the one recording of the smallest size: seconds, Hz
SPLIT = {"protocol": "clips", "fold": 0, "n_groups": 4, "normalization": "session", "accept_leaks": False}
EVERY_S = 0.005  # how often memory is looked at
# Below these at the largest size, growth is not judged: memory that was freed before and is used again is not seen.
SMALL_S, SMALL_MB = 0.5, 32.0
SPENT: dict[str, tuple[float, float]] = {}  # work: seconds, MB
FRESH_S = 3.0  # how long the pace of the processor is taken for the same
LONG = "preprocessing, one long recording"


def anonymous_mb() -> float:
    """Memory of this process that lies in no file."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def fixed_work() -> float:
    """Seconds of the processor for work that is always the same: products of matrices, and a loop of Python."""
    import torch

    a = torch.ones(384, 384)
    took = []
    for _ in range(3):
        start = time.process_time()
        for _ in range(60):
            torch.mm(a, a)
        sum(i * i for i in range(300_000))
        took.append(time.process_time() - start)
    return sorted(took)[1]


class Pace:
    """How slow the processor is beside its first speed: 1 is as slow. What finding out takes is left out of all times.

    Parameters
    ----------
    usual : float
        Seconds of the fixed work at the beginning.
    """

    def __init__(self, usual: float) -> None:
        self.usual, self.found, self.until, self.took = usual, 1.0, 0.0, 0.0

    def __call__(self) -> float:
        if time.monotonic() > self.until:
            start = time.process_time()
            self.found = fixed_work() / self.usual
            self.took += time.process_time() - start
            self.until = time.monotonic() + FRESH_S
        return self.found

    def clock(self) -> float:
        """Seconds of the processor without those for the fixed work."""
        return time.process_time() - self.took


PACE = [Pace(1.0)]  # of this process


@contextlib.contextmanager
def spent(name: str) -> Iterator[None]:
    """Note the seconds of the processor and the peak of memory of a piece of work."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be counted as room
    slow = PACE[0]()
    before, done = anonymous_mb(), threading.Event()
    peak = [before]

    def look() -> None:
        while not done.wait(EVERY_S):
            peak.append(max(peak.pop(), anonymous_mb()))

    watch, start = threading.Thread(target=look), PACE[0].clock()
    watch.start()
    try:
        yield
    finally:
        took = PACE[0].clock() - start
        done.set()
        watch.join()
        at_first = took / ((slow + PACE[0]()) / 2)
        seconds, memory = SPENT.get(name, (0.0, 0.0))
        SPENT[name] = (seconds + at_first, max(memory, peak[0] - before))


def noted(owner: object, attribute: str, name: str) -> None:
    """Note what a function takes wherever its owner calls it."""
    plain: Callable = getattr(owner, attribute)

    def watched(*given, **named):
        with spent(name):
            return plain(*given, **named)

    setattr(owner, attribute, watched)


class OneRecording(Source):
    """One continuous recording that lies in a file of microvolts."""

    def __init__(self, path: Path) -> None:
        self.root, self.label_set = path.parent, plain_labels("one", ["rest", "task"])
        self.path, self.recordings = path, [Recording(path.name, path, "1")]

    def check(self, recording: Recording) -> list[str]:
        return list(SEED_CHANNELS)

    def trials(self, recording: Recording) -> Iterator[Trial]:
        yield Trial("1", 1, 1, "rest", np.load(self.path, mmap_mode="r"), LONG_SFREQ, SEED_CHANNELS)


def long_recording(path: Path, seconds: int) -> None:
    """Noise of 62 channels that share some of it, written second by second."""
    rng = np.random.default_rng(0)
    mixed, n = rng.normal(size=(62, 30)), round(seconds * LONG_SFREQ)
    signal = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(62, n))
    for start in range(0, n, 10_000):
        stop = min(start + 10_000, n)
        signal[:, start:stop] = mixed @ rng.normal(size=(30, stop - start)) * 2 + rng.normal(size=(62, stop - start))


def measure(times: int, folder: Path) -> dict:
    """All stages on a twin whose clips are so many times as long; number of windows, and what each work took."""
    os.environ["E2LLM_RUNS"] = str(folder)
    import torch

    from e2llm.app import evaluation_stage, second_pass_stage, stages
    from e2llm.app.runs import Run
    from e2llm.models.language import ScratchParams
    from e2llm.training import stage1_encoder, stage2_alignment, stage3_instruction
    from e2llm.training.losses import HeadParams
    from e2llm.training.second_pass import SecondPassParams
    from e2llm.training.trainer import FitParams

    torch.set_num_threads(1)
    params = PreprocessParams(lof_threshold=1e9)  # noise has no bad channels
    long_recording(folder / "one.npy", LONG_S * times)
    with spent(LONG):
        write_windows(OneRecording(folder / "one.npy"), folder / "one", params, 1)
    (folder / "one.npy").unlink()
    twin = simulate(folder / "twin", TwinParams(3, 2, 15, tuple(times * s for s in CLIP_S)), n_jobs=1)
    run = Run.open(f"growth{times}")
    with spent("preprocessing, many clips"):
        stages.preprocess(run, "seed-vii", twin, PreprocessParams(), n_jobs=1)
    with spent("dataset, split and audit"):
        corpus = stages.open_dataset(run, SPLIT)
    n, fit = len(corpus.windows), FitParams(4, 8, 1e-3)
    noted(stages.AugmentedWindows, "draw", "band edits")
    for name, said in (("fit", "stage 1, 4 steps"), ("encode_rows", "tokens"), ("fit_evidence_probe",
                                                                               "evidence probe and its edits")):
        noted(stage1_encoder, name, said)
    stages.train_encoder(run, corpus, SPLIT, "tiny1", {}, "", fit, HeadParams(), 8)
    corpus = stages.open_dataset(run)
    language = ScratchParams(vocab_size=600, hidden_size=48, layers=2)
    stages.make_language_model(run, corpus, "scratch", "float32", language, 40, 1, FitParams(4, 4, 4e-3))
    noted(stage2_alignment, "alignment_items", "items")
    noted(stage3_instruction, "instruction_items", "items")
    with spent("stage 2, 4 steps, with its items"):
        stages.align(run, corpus, 1, 2, n, 1.0, fit)
    with spent("stage 3, 4 steps, with its items"):
        stages.instruct(run, corpus, {"predict": n // 2, "match": n // 4, "compare": n // 4}, n // 4,
                        stage3_instruction.AdapterParams(rank=2, alpha=4), fit)
    with spent("second pass, 4 steps, with its items"):
        second_pass_stage.instruct_second_pass(run, corpus, SecondPassParams(2, 4), fit)
    with spent("evaluation"):
        evaluation_stage.evaluate(run, corpus, None, n // 10, 2, False, False, 0, n_jobs=1)
    return {"windows": n, "spent": SPENT}


def in_process(times: int, usual: float) -> dict:
    """:func:`measure` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, __file__, "--measure", str(times), "--folder", folder, "--usual",
                               str(usual)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[int, dict], place: int, form: str, small: float) -> tuple[list[str], dict[str, float]]:
    """Rows in Markdown of seconds (place 0) or MB (place 1), and the exponents between the last two sizes."""
    sizes, lines, last = list(found), [], {}
    for name in found[sizes[0]]["spent"]:
        n = sizes if name == LONG else [found[times]["windows"] for times in sizes]
        values = [max(found[times]["spent"][name][place], 1e-3) for times in sizes]
        whole, last[name] = exponent(n, values), exponent(n[-2:], values[-2:])
        said = f"{whole:.2f} | {last[name]:.2f}"
        if values[-1] < small:
            said = "small | small"
            last.pop(name)
        lines.append(f"| {name} | " + " | ".join(form.format(value) for value in values) + f" | {said} |")
    return lines, last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16], help="how many times as long; two or more")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--usual", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        PACE[0] = Pace(given.usual)
        print(json.dumps(measure(given.measure, given.folder)))
        return 0
    if len(given.sizes) < 2 or not Path("/proc/self/status").exists():
        parser.error("give two or more sizes, on Linux.")
    found, usual = {}, fixed_work()
    for times in sorted(given.sizes):
        found[times] = in_process(times, usual)
        print(times, found[times], file=sys.stderr, flush=True)
    print(machine(["numpy", "torch", "scikit-learn"]), end="\n\n")
    worst = {}
    for place, what, form, small in ((0, "seconds", "{:.2f}", SMALL_S), (1, "MB", "{:.0f}", SMALL_MB)):
        lines, last = table(found, place, form, small)
        heads = " | ".join(f"{each['windows']:,} windows" for each in found.values())
        print(f"| {what} | {heads} | exponent | of the last two |\n" + "|---" * (len(found) + 3) + "|")
        print("\n".join(lines), end="\n\n")
        worst |= {f"{name}, {what}": value for name, value in last.items() if value > GOAL}
    for name, value in worst.items():
        print(f"{name}: exponent {value:.2f}, wanted at most {GOAL}", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(bool(worst))


if __name__ == "__main__":
    sys.exit(main())
