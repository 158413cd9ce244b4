"""Locks: one process at a time makes stages of a run; a second one waits, or gets an error that names the first.

The operating system frees a lock when its process ends, also by SIGKILL: a note that is left behind blocks nobody.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from ..core.files import read_mapping, write_json

_HELD: dict[tuple[int, Path], tuple[FileLock, set[str]]] = {}  # locks of this process, and the reasons to hold each


class Locked(Protocol):
    """An object with a name and a folder, such as a run."""

    name: str
    path: Path

    @property
    def described(self) -> str:
        """What is in use, as the beginning of a sentence."""


class RunBusy(Exception):
    """Another process works in the run; the message names it and says what to do."""


@contextmanager
def held(run: Locked, what: str, lock: str = "stage", wait: bool = False) -> Iterator[None]:
    """Hold a lock of a run for the length of a ``with`` block; several blocks of one process may hold it.

    Parameters
    ----------
    run : Locked
        The run.
    what : str
        The work, for the error of another process.
    lock : str
        Name of the lock.
    wait : bool
        Wait for a process that holds it; otherwise that is an error.

    Raises
    ------
    RunBusy
        If another process holds the lock.
    """
    hold(run, what, lock, wait)
    try:
        yield
    finally:
        release(run, what, lock)


def hold(run: Locked, what: str, lock: str = "stage", wait: bool = False) -> None:
    """Take a lock of a run for this process, or add a reason to hold it; it is freed when the process ends.

    Parameters
    ----------
    run : Locked
        The run.
    what : str
        The work, for the error of another process.
    lock : str
        Name of the lock.
    wait : bool
        As in :func:`held`.

    Raises
    ------
    RunBusy
        If another process holds the lock.
    """
    path = run.path.resolve() / f".{lock}.lock"
    facts, key = path.with_suffix(".json"), (os.getpid(), path)  # by process: a forked one holds nothing
    if key not in _HELD:
        file = FileLock(path, thread_local=False)
        try:
            file.acquire(timeout=0)
        except Timeout:
            busy = f"{run.described} is in use by {_holder(facts)}"
            if not wait:
                remedy = "wait until it has ended (--wait), stop it, or give another run name."
                raise RunBusy(f"{busy}: {remedy}") from None
            print(f"{busy}: waiting until it has ended.", file=sys.stderr, flush=True)
            file.acquire(poll_interval=0.5)
        _HELD[key] = file, set()
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        write_json(facts, {"process": os.getpid(), "host": platform.node(), "what": what, "since": since})
        ipython = sys.modules.get("IPython")
        if ipython is not None and (shell := ipython.get_ipython()) is not None:
            shell.events.register("post_run_cell", _release_all)  # an interrupted cell releases its run
    _HELD[key][1].add(what)


def _holder(facts: Path) -> str:
    """Who holds a lock, by the note beside it; the lock itself is the system's, so the note may be lost or old."""
    try:
        note = read_mapping(facts, {"process": int, "host": str, "what": str, "since": str})
    except (FileNotFoundError, ValueError):
        return "another process"
    return f"process {note['process']} on {note['host']} (at {note['what']}) since {note['since']}"


def release(run: Locked, what: str, lock: str = "stage") -> None:
    """Remove one reason to hold a lock, and free it with the last one.

    Parameters
    ----------
    run : Locked
        The run.
    what : str
        The reason.
    lock : str
        Name of the lock.
    """
    path = run.path.resolve() / f".{lock}.lock"
    file, held_for = _HELD.get((os.getpid(), path), (None, set()))
    held_for.discard(what)
    if file is not None and not held_for:
        path.with_suffix(".json").unlink(missing_ok=True)
        del _HELD[os.getpid(), path]
        file.release()


def _release_all(*_: object) -> None:
    for pid, path in [key for key in _HELD if key[0] == os.getpid()]:
        path.with_suffix(".json").unlink(missing_ok=True)
        _HELD.pop((pid, path))[0].release()
