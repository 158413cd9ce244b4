"""A stage that several processes make together, for those who wait for it; the processes are in ``train_stage``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.environment import children_end_with_this
from ..core.files import read_json
from ..models.device import ask_for_processes, device_policy

if TYPE_CHECKING:
    from .runs import Stage

MADE = "checkpoints/made.json"  # in a work folder: metrics and facts of files that are complete


class ProcessError(RuntimeError):
    """One of several processes has failed, and the others were ended; the message says what to do."""


def check_shares(processes: int, batches: Mapping[str, int]) -> None:
    """Refuse batches that processes cannot share.

    Parameters
    ----------
    processes : int
        How many train together.
    batches : mapping of str to int
        Parameter to number of samples in a batch.

    Raises
    ------
    ValueError
        Naming the parameter.
    """
    for name, size in batches.items():
        if size % processes:
            raise ValueError(f"{name} = {size} cannot be divided among processes = {processes}: take a multiple of it.")


def check_sharded(sharded: bool, processes: int, dtype: str) -> None:
    """Refuse to spread a language model that cannot be divided.

    Parameters
    ----------
    sharded : bool
        Whether each process is to keep a part of the frozen language model; see :mod:`e2llm.training.sharding`.
    processes : int
        How many train together.
    dtype : str
        Of the language model's weights.

    Raises
    ------
    ValueError
        Naming the parameter.
    """
    if sharded and processes == 1:
        raise ValueError("sharded = True, but processes = 1, and one process holds the whole language model: take "
                         "processes = 2 or more, or sharded = False.")
    if sharded and dtype == "4bit":
        raise ValueError("sharded = True, but weights that are packed to dtype = '4bit' cannot be divided among "
                         "processes: take dtype = 'bfloat16', or sharded = False.")


def ask_to_share(processes: int, batches: Mapping[str, int]) -> None:
    """Refuse processes that cannot share batches, or would have no device of their own, before any work.

    Parameters
    ----------
    processes, batches
        As for :func:`check_shares`.

    Raises
    ------
    DeviceError, ValueError
        Naming the parameter.
    """
    check_shares(processes, batches)
    ask_for_processes(processes, device_policy().device)


def made_in_processes(stage: Stage, processes: int, sharded: bool = False) -> tuple[dict, dict] | None:
    """Let several processes make the files of a stage that has begun; None if there is but one, this one.

    A batch keeps its size and is divided among them, so the result is that of one process, up to rounding, and
    ``processes`` and ``sharded`` are no part of a stage's key. The dataset and the models are opened from the run in
    each of them.

    Parameters
    ----------
    stage : Stage
        Its parameters say all; it is locked by this process.
    processes : int
        How many train together; see :func:`ask_to_share`.
    sharded : bool
        Whether each keeps a part of the frozen language model; see :func:`check_sharded`.

    Returns
    -------
    metrics, facts : dict
        For :meth:`e2llm.app.runs.Stage.finish`.

    Raises
    ------
    ProcessError
        If one fails or is killed. Checkpoints stay: the stage goes on from them when it is asked for again.
    """
    policy, made = device_policy(), stage.path / MADE
    if not made.is_file():  # there if processes were started by hand
        if processes == 1:
            return None
        command = [sys.executable, "-m", "e2llm.app.train_stage", "--run", stage.run.name, "--stage", stage.name,
                   "--device", policy.device, "--processes", str(processes), "--locked",
                   *(["--gradient-checkpointing"] if policy.gradient_checkpointing else []),
                   *(["--sharded"] if sharded else [])]
        with children_end_with_this():
            done = subprocess.run(command, env={**os.environ, "E2LLM_RUNS": str(stage.run.path.parent)},
                                  stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            said = done.stdout.strip().rpartition("\n")[2] or f"it ended with code {done.returncode}."
            raise ProcessError(f"The stage {stage.name!r} of the run {stage.run.name!r} is not finished: {said} Start "
                               "it again: it goes on from its last checkpoint.")
    return tuple(read_json(made)[part] for part in ("metrics", "facts"))


def begun(run_path: Path, stage: str) -> Path:
    """Work folder of a stage that has begun and is not finished.

    Parameters
    ----------
    run_path : Path
        Folder of the run.
    stage : str
        Name of the stage.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found = [note.parent for note in run_path.glob(f".{stage}.part-*/stage.part.json")]
    if len(found) != 1:
        raise FileNotFoundError(f"The stage {stage!r} has not begun in {run_path}, or is finished: a lesson begins it, "
                                "and its parameters come from there.")
    return found[0]
