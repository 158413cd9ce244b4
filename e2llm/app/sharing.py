"""Stages that the runs of a sweep have in common: made in one run, and linked by the others.

A stage is known by its key (:attr:`e2llm.app.runs.Stage.key`), which says everything that it is made from: equal keys
are equal files. The first run that asks makes the stage and holds a lock of the key meanwhile. The others wait, and
then take its files by hard links, which need no room on the disk. The code never writes into a file of a finished
stage.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..core.files import write_json
from .locks import hold, release
from .records import DIGESTS, read_record, remember

SHARE = "E2LLM_SHARE_STAGES"  # environment variable that a sweep sets for its kernels
SHARED = ("windows", "encoder", "language_model", "projector", "adapter",
          "second_pass")  # a run's scores are its own
LOCKS = ".shared"  # folder of the locks, beside the runs


class Stage(Protocol):
    """What is known of a stage here; see :class:`e2llm.app.runs.Stage`."""

    run: Any
    name: str

    @property
    def key(self) -> str:
        """Hash of everything that it is made from."""


@dataclass(frozen=True)
class _Key:
    """What is locked: the making of a stage with one key, in whatever run."""

    name: str
    path: Path
    described: str


def is_shared(stage: Stage) -> bool:
    """Whether this process takes part in sharing, and the stage is of a kind that is shared."""
    return bool(os.environ.get(SHARE)) and stage.name in SHARED


def take(stage: Stage) -> bool:
    """Link a stage from another run, once no other process is making it.

    Parameters
    ----------
    stage : Stage
        Not finished in its own run.

    Returns
    -------
    bool
        False if no run has it: then this process alone may make it, and :func:`give` lets the others go on.

    Raises
    ------
    RunBusy
        If another process makes stages of this stage's run.
    """
    key = _key(stage)
    key.path.mkdir(parents=True, exist_ok=True)
    hold(key, stage.run.name, stage.key[:16], wait=True)
    if any(_link(stage, found, record) for found, record in _finished_elsewhere(stage)):
        give(stage)
        return True
    return False


def give(stage: Stage) -> None:
    """Let other runs have a stage that is finished, or that this process will not make."""
    release(_key(stage), stage.run.name, stage.key[:16])


def _key(stage: Stage) -> _Key:
    described = f"The stage {stage.name!r} with the key {stage.key[:8]}, which several runs have in common,"
    return _Key(stage.name, stage.run.path.parent / LOCKS, described)


def _finished_elsewhere(stage: Stage) -> Iterator[tuple[Path, dict]]:
    """Folder and record of this stage in other runs, where every file is what the record says."""
    for folder in _of_the_same_key(stage):
        with contextlib.suppress(ValueError, FileNotFoundError):
            record = stage.run.beside(folder.parent.name).finished(stage.name)
            if record is not None and record["key"] == stage.key:
                yield folder, record


def _of_the_same_key(stage: Stage) -> list[Path]:
    """Folders of other runs whose record has the key of this stage, whole or not."""
    found = []
    for path in sorted(stage.run.path.parent.glob(f"[!.]*/{stage.name}/stage.json")):
        with contextlib.suppress(ValueError, FileNotFoundError):  # damaged, or just replaced: another run's affair
            if path.parent.parent != stage.run.path and read_record(path)["key"] == stage.key:
                found.append(path.parent)
    return found


def _link(stage: Stage, found: Path, record: dict) -> bool:
    """Put the files of a finished stage into the run of ``stage``; False if they were replaced meanwhile."""
    hold(stage.run, stage.name)
    try:
        for work in stage.run.path.glob(f".{stage.name}.part-*"):
            (work / "stage.part.json").unlink(missing_ok=True)
            shutil.rmtree(work)
        work = stage.run.path / f".{stage.name}.part-{stage.key[:8]}"
        try:
            for name in record["files"]:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(found / name, work / name)
            again = read_record(found / "stage.json")
        except (FileNotFoundError, ValueError):
            again = {}
        if again != record:
            shutil.rmtree(work, ignore_errors=True)
            return False
        # Just verified, and not to be read a second time: a new link changes a time of the file, for all who have it.
        for folder in (work, *_of_the_same_key(stage)):
            for name, facts in record["files"].items():
                if folder == work or _is_one_file(folder / name, work / name):
                    remember(folder / name, facts["sha256"], folder.parent / DIGESTS)
        write_json(work / "stage.json", {"made_in": found.parent.name, **record})
        stage.run.put_stage(stage.name, work)
        stage.run.refresh_manifest()
    finally:
        release(stage.run, stage.name)
    return True


def _is_one_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link, or a copy on a disk that has no links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
