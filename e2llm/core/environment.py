"""Where the code runs: in a notebook's kernel, with or without a reader in front of it."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress

PARENT = "E2LLM_PARENT"  # environment variable: a process whose end ends the processes that it started
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


def keep_freed_memory(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let processes that are started later keep memory that they free; a user's own choice stays.

    glibc gives large blocks back to the system at once. A training step frees and asks again for the same blocks, and
    the system fills each page with zeros every time: a twentieth of the time of stage 3 (``benchmarks/threads.py``).
    Other systems ignore these variables.

    Parameters
    ----------
    environment : mutable mapping
        Environment variables, which a process reads when it starts.
    """
    if not any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment):
        environment.update(MALLOC_MMAP_THRESHOLD_=str(32 << 20), MALLOC_TRIM_THRESHOLD_=str(1 << 30))


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


def is_first_process() -> bool:
    """True in the first of the processes that train together, and in one that trains alone.

    Launchers (``torchrun``, ``accelerate launch``) number them. Only the first one writes files and shows progress.
    """
    return os.environ.get("RANK", "0") == "0"


def is_watched() -> bool:
    """True if a progress bar has a reader: a person at a notebook, or a terminal outside any kernel."""
    return is_interactive() or (sys.stderr.isatty() and not in_kernel())


@contextmanager
def children_end_with_this() -> Iterator[None]:
    """Processes that are started within the block end with this one, also if it is killed by SIGKILL.

    They are asked by the variable :data:`PARENT` and do so by :func:`end_with_parent`, and so do the workers that they
    start themselves: nobody is left to write into a run whose command has ended.
    """
    before = os.environ.get(PARENT)
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(PARENT, None)
        else:
            os.environ[PARENT] = before


def end_with_parent(parent: int | None = None) -> None:
    """Let this process end when another one has ended, even by force; ``import e2llm`` calls this.

    A signal at the parent's death (``PR_SET_PDEATHSIG``) would come when the thread ends that started this process,
    and a look at the parent's number fails where a kernel is started by a helper; so a thread waits for the process.

    Parameters
    ----------
    parent : int, optional
        Number of the process that this one ends with; default the one that :data:`PARENT` names, if any.
    """
    named = os.environ.get(PARENT, "") if parent is None else str(parent)
    if not named.isdecimal() or int(named) == os.getpid():
        return
    if parent is None:
        os.environ[PARENT] = str(os.getpid())  # of what this process starts
    threading.Thread(target=_end_after, args=(int(named),), daemon=True).start()


def _end_after(process: int) -> None:
    """End this process at once when another one has ended."""
    try:
        pidfd = os.pidfd_open(process)  # Linux: readable when the process ends, even before it is reaped
    except ProcessLookupError:
        _end_with_children()
    except (AttributeError, OSError):
        import psutil

        while psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
            time.sleep(1)
    else:
        select.select([pidfd], [], [])
    _end_with_children()


def _end_with_children() -> None:
    """End this process at once, and those that it started: a worker need not know of this module."""
    if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
        # A kernel leads a group of its own. One call ends all of it: a search for workers takes time, in which
        # the kernel may be ended by somebody else, who would leave them.
        os.killpg(os.getpid(), signal.SIGKILL)
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(1)
