"""One process at a time makes stages of a run; a second one is told which, and what to do."""

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

_HELD: dict[tuple[int, Path], tuple[FileLock, set[str]]] = {}  # locks of this process, and what each is held for


class Locked(Protocol):
    """What has a name and a folder: a run."""

    name: str
    path: Path


class RunBusy(Exception):
    """Another process is at work in the run; the message says which, and what to do."""


@contextmanager
def held(run: Locked, what: str, lock: str = "stage") -> Iterator[None]:
    """Keep other processes from work under the same ``lock`` of a run; of one process, all may enter.

    Raises
    ------
    RunBusy
        If another process is at it.
    """
    hold(run, what, lock)
    try:
        yield
    finally:
        release(run, what, lock)


def hold(run: Locked, what: str, lock: str = "stage") -> None:
    """Take a lock of a run for this process, or add to what it is held for; the disk frees it when the process dies."""
    path = run.path.resolve() / f".{lock}.lock"
    facts, key = path.with_suffix(".json"), (os.getpid(), path)  # by process: a forked one holds nothing
    if key not in _HELD:
        file = FileLock(path, thread_local=False)
        try:
            file.acquire(timeout=0)
        except Timeout:
            subject = read_json(facts) if facts.is_file() else dict.fromkeys(("process", "host", "what"), "unknown")
            by = f"process {subject['process']} on {subject['host']} (at {subject['what']})"
            remedy = "wait until it has ended, stop it, or give another run name."
            raise RunBusy(f"The run {run.name!r} ({run.path}) is in use by {by}: {remedy}") from None
        _HELD[key] = file, set()
        write_json(facts, {"process": os.getpid(), "host": platform.node(), "what": what})
        ipython = sys.modules.get("IPython")
        if ipython is not None and (shell := ipython.get_ipython()) is not None:
            shell.events.register("post_run_cell", _release_all)  # an interrupted cell must not hold its run on
    _HELD[key][1].add(what)


def release(run: Locked, what: str, lock: str = "stage") -> None:
    """Take back one reason to hold a lock; with the last one it is free."""
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
