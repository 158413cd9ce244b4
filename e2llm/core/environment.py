"""Where the code runs: in a notebook's kernel, with or without a reader in front of it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import MutableMapping

SPINS = 1000  # some ten microseconds: longer than the pause between two parallel loops of a step


def wait_politely(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for each other give the processor away soon; a user's own choice stays.

    The OpenMP of torch's wheels for Linux (GNU's) spins for milliseconds by default. Beside any other process the
    thread that is waited for may then not get a core, and a training step takes ten times as long
    (``benchmarks/threads.py``). Sleeping at once (``OMP_WAIT_POLICY=passive``) costs time where nothing else runs.
    It is read when torch is loaded, so ``import e2llm`` calls this first; processes that are started later inherit it.

    Parameters
    ----------
    environment : mutable mapping
        Environment variables.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = str(SPINS)


def end_with_parent(parent: int) -> None:
    """Let this process end within a second when its parent has ended, even by force: joblib's workers would stay.

    Parameters
    ----------
    parent : int
        Process that started this one.
    """
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_kernel() -> bool:
    """True in a notebook's kernel, whoever drives it."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def is_interactive() -> bool:
    """True if a reader has this notebook open, so that live widgets and progress bars make sense.

    Jupyter sets ``JPY_SESSION_NAME`` for the kernels it serves; papermill and nbval do not. The pipeline also
    sets ``E2LLM_BATCH``, for kernels started from within a notebook inherit the first.
    """
    return "JPY_SESSION_NAME" in os.environ and "E2LLM_BATCH" not in os.environ


def is_watched() -> bool:
    """True if a progress bar has a reader: a person at a notebook, or a terminal outside any kernel."""
    return is_interactive() or (sys.stderr.isatty() and not in_kernel())
