"""Locks: one process at a time makes stages of a run; a second one gets an error that names the first."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from ..core.files import read_json, write_json

_HELD: dict[tuple[int, Path], tuple[FileLock, set[str]]] = {}  # locks of this process, and the reasons to hold each


class Locked(Protocol):
    """An object with a name and a folder, such as a run."""

    name: str
    path: Path


class RunBusy(Exception):
    """Another process works in the run; the message names it and says what to do."""


@contextmanager
def held(run: Locked, what: str, lock: str = "stage") -> Iterator[None]:
    """Hold a lock of a run for the length of a ``with`` block; several blocks of one process may hold it.

    Parameters
    ----------
    run : Locked
        The run.
    what : str
        The work, for the error of another process.
    lock : str
        Name of the lock.

    Raises
    ------
    RunBusy
        If another process holds the lock.
    """
    hold(run, what, lock)
    try:
        yield
    finally:
        release(run, what, lock)


def hold(run: Locked, what: str, lock: str = "stage") -> None:
    """Take a lock of a run for this process, or add a reason to hold it; it is freed when the process ends.

    Parameters
    ----------
    run : Locked
        The run.
    what : str
        The work, for the error of another process.
    lock : str
        Name of the lock.

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
            holder = read_json(facts) if facts.is_file() else dict.fromkeys(("process", "host", "what"), "unknown")
            by = f"process {holder['process']} on {holder['host']} (at {holder['what']})"
            remedy = "wait until it has ended, stop it, or give another run name."
            raise RunBusy(f"The run {run.name!r} ({run.path}) is in use by {by}: {remedy}") from None
        _HELD[key] = file, set()
        write_json(facts, {"process": os.getpid(), "host": platform.node(), "what": what})
        ipython = sys.modules.get("IPython")
        if ipython is not None and (shell := ipython.get_ipython()) is not None:
            shell.events.register("post_run_cell", _release_all)  # an interrupted cell releases its run
    _HELD[key][1].add(what)


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
