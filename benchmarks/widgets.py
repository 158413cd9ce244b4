"""How long a reader waits in JupyterLab: from a choice to its picture, and from a question to its first word.

``python benchmarks/widgets.py --run tiny`` needs the finished run. It moves controls of the widgets as a click does,
without a browser, and prints seconds of the processor and of the clock: the median, and the largest. The tests in a
browser print their own seconds (``pytest tests/browser -rP``).
Goals: 0.5 s to a picture of the signal browser, 1 s to the first word.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from statistics import median

os.environ["JPY_SESSION_NAME"] = "lesson.ipynb"  # as in JupyterLab: widgets are live
os.environ.pop("E2LLM_BATCH", None)

import matplotlib

matplotlib.use("Agg")

import ipywidgets
from common import machine

import e2llm

PICTURE_S, WORD_S = 0.5, 1.0


def pictures(panel: ipywidgets.Widget) -> list[str]:
    """The pictures that a panel holds now."""
    found, todo = [], [panel]
    while todo:
        part = todo.pop()
        todo += getattr(part, "children", ())
        if isinstance(part, ipywidgets.HTML) and "<img " in part.value:
            found.append(part.value)
    return found


def control(panel: ipywidgets.Widget, label: str) -> ipywidgets.Widget:
    """The control with a label."""
    todo = [panel]
    while todo:
        part = todo.pop()
        todo += getattr(part, "children", ())
        if getattr(part, "description", None) == label and hasattr(part, "value"):
            return part
    raise LookupError(f"The panel has no control {label!r}.")


def waited(act: Callable[[], None], panel: ipywidgets.Widget) -> tuple[float, float]:
    """Seconds of the clock and of the processor for an action that has to change a picture."""
    before, clock, cpu = pictures(panel), time.perf_counter(), time.process_time()
    act()
    took = time.perf_counter() - clock, time.process_time() - cpu
    assert pictures(panel) != before, "the picture has not changed"
    return took


def row(name: str, found: list[tuple[float, float]], goal: float | None) -> str:
    """A row of the table."""
    clock, cpu = (sorted(times) for times in zip(*found, strict=True))
    wanted = "" if goal is None else f"{goal:g}"
    return f"| {name} | {median(cpu):.2f} | {median(clock):.2f} | {clock[-1]:.2f} | {wanted} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="tiny", help="a finished run (tiny)")
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    e2llm.plots.use_style()
    run = e2llm.Run.open(given.run)
    corpus = e2llm.open_dataset(run)
    model = e2llm.E2LLM.of_run(run, corpus)
    test = [int(i) for i in corpus.split.test]
    print(machine(["matplotlib", "ipywidgets", "torch"]), end="\n\n")
    print("| what | processor, s | clock, s | largest, s | goal, s |\n|---|---|---|---|---|")

    signal = e2llm.widgets.signal_browser(corpus.windows, test[0])
    clip = control(signal, "clip")

    def show(value) -> None:
        clip.value = value

    places = [option[1] if isinstance(option, tuple) else option for option in clip.options]
    chosen = [value for value in places if value != clip.value][: given.repeats + 1]
    found = [waited(lambda v=value: show(v), signal) for value in chosen][1:]
    print(row("signal browser: another clip", found, PICTURE_S))

    tokens = e2llm.widgets.token_explorer(model.engine, corpus.windows, test[0])
    window = control(tokens, "window")

    def step() -> None:
        window.value = window.value + (1 if window.value < window.max else -1)

    print(row("token explorer: another window", [waited(step, tokens) for _ in range(given.repeats)], None))

    split = e2llm.widgets.split_explorer(corpus.windows.index)
    protocol = control(split, "protocol")
    first = protocol.value

    def other() -> None:
        protocol.value = "random_windows" if protocol.value != "random_windows" else first

    print(row("split explorer: another protocol", [waited(other, split) for _ in range(given.repeats)], None))

    found = []
    for i in test[: given.repeats]:
        clock, cpu = time.perf_counter(), time.process_time()
        next(iter(model.stream(i, "Which emotion does this segment show?")))
        found.append((time.perf_counter() - clock, time.process_time() - cpu))
    print(row("question: first word", found[1:], WORD_S))
    return 0


if __name__ == "__main__":
    sys.exit(main())
