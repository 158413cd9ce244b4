"""Stages 1 to 3 in several processes: ``accelerate launch -m e2llm.app.train_stage --run tiny --stage 3``.

With the parameter ``processes`` above 1, :mod:`e2llm.app.processes` starts this module with ``--processes``: it then
launches as many copies of itself by PyTorch's launcher and watches them. A copy, also one that ``torchrun`` or
``accelerate launch`` has started by hand, goes on with a stage that has begun in the run and was not finished; the
lesson or the call that began it completes the stage when it is repeated.

It stands in ``app`` and not beside the training loop because it opens a run folder, which nothing below ``app`` does.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import uuid
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..core.environment import is_first_process
from ..core.files import read_json, replacing
from ..models.device import use_device
from .locks import hold
from .processes import MADE, begun, check_sharded
from .runs import Run

STAGES = {"1": "encoder", "2": "projector", "3": "adapter"}


def main(words: list[str] | None = None) -> int:
    """Launch processes, or be one of them."""
    parser = argparse.ArgumentParser("e2llm.app.train_stage", description=__doc__)
    parser.add_argument("--run", required=True, help="name of the run")
    parser.add_argument("--stage", required=True, choices=[*STAGES, *STAGES.values()], help="its number or name")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, more time")
    parser.add_argument("--sharded", action="store_true", help="stages 2 and 3: a part of the frozen model in each")
    parser.add_argument("--processes", type=int, default=0, help="launch so many; a launched one passes over it")
    parser.add_argument("--locked", action="store_true", help="the run is locked by who started this")
    words = sys.argv[1:] if words is None else words
    chosen = parser.parse_args(words)
    if chosen.sharded and STAGES.get(chosen.stage, chosen.stage) == "encoder":
        parser.error("--sharded is for stages 2 and 3: stage 1 has no frozen language model.")
    launched = "RANK" in os.environ
    return launch(words, chosen.processes) if chosen.processes and not launched else work(chosen)


def launch(words: list[str], processes: int) -> int:
    """Run this module in several processes; a failure is said in one line of standard output.

    Parameters
    ----------
    words : list of str
        Arguments of each.
    processes : int
        How many.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what it would say is said below
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no word about parameters that a batch does not use
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(1, 1, processes, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                          max_restarts=0, local_addr="localhost")
    try:
        elastic_launch(config, sys.executable)("-m", "e2llm.app.train_stage", *words)
    except ChildFailedError as error:
        print(_reason(error.failures, processes))
        return 1
    return 0


def _reason(failures: dict[int, ProcessFailure], processes: int) -> str:
    """Why processes failed: a killed one first, for the others fail because it is gone, or are ended by SIGTERM."""
    rank, failure = min(failures.items(), key=lambda found: (found[1].exitcode == -signal.SIGTERM,
                                                             found[1].exitcode > 0, found[1].timestamp))
    others = f" The other {'one was' if processes == 2 else f'{processes - 1} were'} ended too."
    if failure.exitcode < 0:
        return (f"process {rank + 1} of {processes} was ended from outside by {failure.signal_name()}, as a system "
                f"does that runs out of memory.{others}")
    said = f"exit code {failure.exitcode}"
    if isinstance(failure.message, dict):  # what ``record`` has written
        print(failure.message["extraInfo"]["py_callstack"], file=sys.stderr)
        said = " ".join(failure.message["message"].split()).removesuffix(".")
    return f"process {rank + 1} of {processes} failed with {said}.{others}"


@record
def _make(chosen: argparse.Namespace) -> None:
    from accelerate import PartialState  # here: the launcher needs none of these, and they load for seconds

    from ..training.processes import PartDone, n_processes
    from . import stages

    makers = {"encoder": stages.make_encoder_files, "projector": stages.make_projector_files,
              "adapter": stages.make_adapter_files}
    device = use_device(chosen.device, chosen.gradient_checkpointing, chosen.sharded)
    PartialState(cpu=device.type == "cpu")  # joins the others
    run, name = Run.open(chosen.run), STAGES.get(chosen.stage, chosen.stage)
    if chosen.sharded:
        check_sharded(True, n_processes(), stages.language_source(run)["dtype"])
    if is_first_process() and not chosen.locked:
        hold(run, name)
    folder = begun(run.path, name)
    try:
        metrics, facts = makers[name](run, folder, read_json(folder / "stage.part.json")["params"])
    except PartDone:
        return
    with replacing(folder / MADE) as partial:
        partial.write_text(json.dumps({"metrics": metrics, "facts": facts}))  # also a loss that is no number


def work(chosen: argparse.Namespace) -> int:
    """Make the files of a stage together with the other processes; only the first one prints and writes.

    Parameters
    ----------
    chosen : Namespace
        Arguments of :func:`main`.
    """
    if not is_first_process():
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115, until it ends
    try:
        _make(chosen)
    except Exception:
        if "TORCHELASTIC_ERROR_FILE" not in os.environ:
            raise
        return 1  # the launcher has it from that file, and says it once
    return 0


if __name__ == "__main__":
    sys.exit(main())
