"""Workers of a Dask cluster: connected to, checked before anything starts, and given one job each at a time.

A job of a sweep is a whole run, of minutes to days. So every worker process gets one job at a time, however many
threads it has, and a job that is lost with its worker is given to another worker once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dask
from distributed import Client, Future, KilledWorker, LocalCluster

from .. import __file__ as PACKAGE
from .. import __version__
from ..core.files import one_line, read_mapping

ANSWER_S = 15.0  # seconds within which a scheduler must answer
FIRST_WORKER_S = 600.0  # seconds within which the first worker must come: jobs of a cluster wait in a queue
SEEN_S = 20.0  # seconds within which a worker must see a file of the client: network disks are slow to show a new one
STARTS = 4  # times that Dask may try to start the event loop of its client here: each time it waits ten seconds for it
LOSSES = 2  # times that a job may lose its worker before it is given up
_POLL_S = 0.2
# A worker here waits for the kernel that does the work. Dask would look what it does a hundred times a second, and wake
# its event loop fifty times, and take the time for that from the kernel.
_UNWATCHED = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}
Started = TypeVar("Started", LocalCluster, Client)


class ClusterError(OSError):
    """The cluster cannot be used; the message says why, and what to do."""


@contextlib.contextmanager
def connected(workers: int | None = None, scheduler: str = "",
              scheduler_file: str | Path | None = None) -> Iterator[Client]:
    """A client of worker processes on this machine, or of a cluster that is there.

    Parameters
    ----------
    workers : int, optional
        Processes to start on this machine, of one thread each.
    scheduler : str
        Address of a scheduler, ``tcp://host:port``.
    scheduler_file : path, optional
        File that a scheduler wrote.

    Raises
    ------
    ClusterError
        If nobody answers, or no worker comes.
    ValueError
        If not exactly one of the three is given, or the file is no file of a scheduler.
    """
    given = [workers is not None, bool(scheduler), scheduler_file is not None]
    if sum(given) != 1:
        raise ValueError("Give one of workers, scheduler and scheduler_file.")
    if workers is not None:
        # A kernel does the work, so a limit on the memory of the worker itself would say nothing.
        with dask.config.set(_UNWATCHED), start_patiently(lambda: LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, memory_limit=None,
                dashboard_address="127.0.0.1:8787", silence_logs=logging.CRITICAL)) as local, \
                start_patiently(lambda: Client(local)) as client:  # fmt: skip
            yield client
        return
    place = scheduler or _address(Path(scheduler_file or ""))
    with _answering(place) as client:
        _wait_for_worker(client, place)
        yield client


def start_patiently(make: Callable[[], Started]) -> Started:
    """A cluster or a client of Dask, also on a machine that is too busy to start it in Dask's ten seconds.

    Parameters
    ----------
    make : callable
        Makes it. It is called ``STARTS`` times at most.

    Raises
    ------
    ClusterError
        If no event loop started in all this time.
    """
    for tried in range(1, STARTS + 1):
        try:
            return make()
        except AssertionError as error:  # all that Dask says of an event loop that did not start in time
            cause = error
            print(f"Dask's event loop did not start in ten seconds, time {tried} of {STARTS}.", file=sys.stderr,
                  flush=True)
    raise ClusterError("Dask could not start here, because the machine is too busy: end other work, or use fewer"
                       " workers. Nothing was started.") from cause


def _address(file: Path) -> str:
    if not file.is_file():
        raise ValueError(f"There is no file {file}: start the scheduler with --scheduler-file {file} first.")
    remedy = "give the file that  dask scheduler --scheduler-file  wrote"
    return read_mapping(file, {"address": str}, remedy)["address"]


@contextlib.contextmanager
def _answering(place: str) -> Iterator[Client]:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it says of a lost connection, we say
    try:
        client = start_patiently(lambda: Client(place, timeout=ANSWER_S))
    except ClusterError:
        raise
    except Exception as error:  # of sockets, of the address, of the protocol
        raise ClusterError(f"No scheduler answers at {place} within {ANSWER_S:g} s ({one_line(error)}): start one with "
                           " dask scheduler , or give its address. Nothing was started.") from error
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.close(timeout=5)


def _wait_for_worker(client: Client, place: str) -> None:
    if client.nthreads():
        return
    print(f"The scheduler at {place} has no worker yet: waiting for the first.", file=sys.stderr, flush=True)
    try:
        client.wait_for_workers(1, timeout=FIRST_WORKER_S)
    except TimeoutError:
        raise ClusterError(f"The scheduler at {place} had no worker for {FIRST_WORKER_S:g} s: start some with "
                           f" dask worker {place} --nthreads 1 . Nothing was started.") from None


# ---------------------------------------------------------------- checks


def _travelling() -> tuple[Callable[[str], str], Callable[..., dict]]:
    """Hash of the Python code below a folder, and what a worker says of itself.

    Functions within a function travel as code, to workers without the package; so they stand alone.
    """

    def source_digest(package: str) -> str:
        import hashlib
        from pathlib import Path

        found = hashlib.sha256()
        for file in sorted(Path(package).rglob("*.py")):
            found.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
        return found.hexdigest()

    def look(probe: str, content: str, notebooks: Sequence[str], patience: float) -> dict:
        import contextlib
        import os
        import platform
        import time
        from pathlib import Path

        found: dict = {"host": platform.node(), "process": os.getpid(), "version": None, "source": None, "sees": False}
        try:
            import e2llm

            found["version"] = getattr(e2llm, "__version__", "unknown")
            # As it was when this process was first asked: files that change later are not what it has loaded.
            found["source"] = vars(e2llm).setdefault("_first_digest", source_digest(str(Path(e2llm.__file__).parent)))
        except ImportError as error:
            found["fault"] = str(error)
            return found
        end = time.monotonic() + patience
        while True:
            with contextlib.suppress(OSError):
                found["sees"] = Path(probe).read_text() == content and all(Path(name).is_file() for name in notebooks)
            if found["sees"] or time.monotonic() > end:
                break
            time.sleep(0.2)
        if found["sees"]:
            try:
                answer = Path(f"{probe}-{os.getpid()}-{platform.node()}")
                answer.write_text(content)
                found["answer"] = answer.name
            except OSError as error:
                found["sees"], found["fault"] = False, str(error)
        return found

    return source_digest, look


def check_workers(client: Client, folder: Path, notebooks: Sequence[Path] = (), only: Sequence[str] | None = None,
                  shared: str = "the lessons and the profile") -> dict[str, str]:
    """What is wrong with workers: a sentence for each that cannot be used.

    Parameters
    ----------
    client : Client
        From :func:`connected`.
    folder : Path
        Folder of the runs: a worker must see a file that is written here, and the other way round.
    notebooks : sequence of Path
        Files that a worker must see too.
    only : sequence of str, optional
        Addresses of the workers that are asked; default all.
    shared : str
        What those files are, for a sentence.

    Returns
    -------
    dict of str to str
        Address to sentence; empty if all can be used.
    """
    asked = list(client.nthreads()) if only is None else list(only)
    faults = _other_dask(client, asked)
    asked = [worker for worker in asked if worker not in faults]
    folder.mkdir(parents=True, exist_ok=True)
    probe, content = folder / f".probe-{uuid.uuid4().hex}", uuid.uuid4().hex
    source_digest, look = _travelling()
    own = source_digest(str(Path(PACKAGE).parent))
    try:
        _write_probe(probe, content)
        answers = client.run(look, str(probe), content, [str(path) for path in notebooks], SEEN_S, workers=asked,
                             on_error="return") if asked else {}
        for worker, found in answers.items():
            if fault := _fault(worker, found, own, probe, content, shared):
                faults[worker] = fault
    finally:
        for path in folder.glob(f"{probe.name}*"):
            path.unlink(missing_ok=True)
    return faults


def _write_probe(probe: Path, content: str) -> None:
    probe.write_text(content)


def _other_dask(client: Client, asked: Sequence[str]) -> dict[str, str]:
    """Workers whose Python or Dask is another: code cannot travel between them."""
    found = client.get_versions()
    faults = {}
    for worker in asked:
        theirs = (found["workers"].get(worker) or {}).get("packages", {})
        for name, parts in (("python", 2), ("distributed", 3)):
            own, other = (str(facts.get(name)).split(".")[:parts] for facts in (found["client"]["packages"], theirs))
            if own != other:
                faults[worker] = (f"The worker {worker} has {name} {'.'.join(other)}, and here is {'.'.join(own)}: "
                                  "use the same environment on both sides.")
                break
    return faults


def _fault(worker: str, found: Any, own: str, probe: Path, content: str, shared: str) -> str:
    if isinstance(found, BaseException):
        return f"The worker {worker} could not be asked ({one_line(found)}): look into its log."
    where = f"The worker {worker} on {found['host']}"
    if found["version"] is None:
        return f"{where} has no package e2llm ({one_line(found['fault'])}): install it there as here."
    if found["version"] != __version__:
        return (f"{where} has e2llm {found['version']}, and here is {__version__}: install the same version there, and "
                "start the worker again.")
    if found["source"] != own:
        return (f"{where} has e2llm {__version__} with other code than here: install the same code there, and start "
                "the worker again.")
    answer = probe.with_name(found["answer"]) if "answer" in found else None
    if not found["sees"] or answer is None or not _shows(answer, content):
        said = f" ({one_line(found['fault'])})" if "fault" in found else ""
        return (f"{where} does not share the folder {probe.parent} or {shared} with this "
                f"machine{said}: put the project on a disk that all workers see under this path, or set E2LLM_RUNS to "
                "a folder on one.")
    return ""


def _shows(answer: Path, content: str) -> bool:
    """Whether a file that a worker wrote is there, now or soon."""
    end = time.monotonic() + SEEN_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if answer.read_text() == content:
                return True
        time.sleep(_POLL_S)
    return False


# ---------------------------------------------------------------- jobs


@dataclass
class _Job:
    """A call that a worker makes; ``worker`` has it now."""

    name: str
    arguments: Mapping[str, Any]
    worker: str = ""
    future: Future | None = None
    lost: list[str] = field(default_factory=list)


def run_jobs(client: Client, function: Callable, jobs: Mapping[str, Mapping[str, Any]],
             done: Callable[[str, Any], None], usable: Callable[[Sequence[str]], Mapping[str, str]],
             checked: Sequence[str] | None = None) -> None:
    """Call a function once for each job, on every worker one at a time.

    Parameters
    ----------
    client : Client
        From :func:`connected`.
    function : callable
        Called on a worker, with the keyword arguments of a job.
    jobs : mapping
        Name to keyword arguments.
    done : callable
        Called here with the name of a job that has ended and its result, or the exception that ended it. A job that
        was cancelled by others, or whose connection broke, counts as one that lost its worker. One that
        lost its worker ``LOSSES`` times ends with :class:`ClusterError`.
    usable : callable
        Given addresses of workers that come later, says which cannot be used and why, as :func:`check_workers` does.
    checked : sequence of str, optional
        Addresses of the workers that can be used already; default all that there are now.

    Raises
    ------
    ClusterError
        If the scheduler is lost.
    """
    waiting, running = [_Job(name, arguments) for name, arguments in jobs.items()], []
    known = set(client.nthreads() if checked is None else checked)
    refused: set[str] = set()
    last_seen = time.monotonic()
    while waiting or running:
        try:
            there = set(client.nthreads())
        except Exception as error:  # of the connection
            raise ClusterError(f"The scheduler at {client.scheduler.address} answers no more ({one_line(error)}): "
                               "finished stages are kept, start it and give the same command again.") from error
        if new := sorted(there - known):
            known |= set(new)
            for worker, fault in usable(new).items():
                refused.add(worker)
                print(f"Not used: {fault}", file=sys.stderr, flush=True)
        for job in [*running]:
            try:
                result, unreachable = _result(job.future), False
            except Exception as error:  # of the connection, not of the call: its worker holds what cannot be had
                result, unreachable = None, True
                print(f"{job.name}: its result cannot be fetched ({one_line(error)}).", file=sys.stderr, flush=True)
            if result is not None and not isinstance(result[0], KilledWorker):
                running.remove(job)
                done(job.name, result[0])
            elif (result is not None or unreachable or job.worker not in there
                  or job.future.status in ("cancelled", "lost")):
                running.remove(job)
                job.future.cancel(force=True)
                job.lost.append(job.worker)
                if len(job.lost) < LOSSES:
                    print(f"{job.name}: its worker {job.worker} was lost; another one goes on from its last finished "
                          "stage.", file=sys.stderr, flush=True)
                    waiting.append(job)
                else:
                    done(job.name, ClusterError(f"Its worker was lost {LOSSES} times ({', '.join(job.lost)}), most "
                                                "often for lack of memory: finished stages are kept."))
        free = sorted(there - refused - {job.worker for job in running})
        last_seen = time.monotonic() if running or free else last_seen
        if time.monotonic() - last_seen > FIRST_WORKER_S:
            raise ClusterError(f"There was no usable worker for {FIRST_WORKER_S:g} s: finished stages are kept, start "
                               "workers and give the same command again.")
        for worker in free:
            if waiting:
                job = waiting.pop(0)
                job.worker = worker
                job.future = client.submit(function, **job.arguments, workers=[worker], allow_other_workers=False,
                                           pure=False, retries=0, key=f"{job.name}-{uuid.uuid4().hex[:8]}")
                running.append(job)
        if waiting or running:
            time.sleep(_POLL_S)


def _result(future: Future) -> tuple[Any] | None:
    """What a call gave or raised, in a tuple; None as long as it has not ended."""
    if future.status == "finished":
        return (future.result(timeout=60),)
    return (future.exception(timeout=60),) if future.status == "error" else None


def dashboard(client: Client) -> str:
    """Address of Dask's dashboard, or why there is none."""
    try:
        import bokeh  # noqa: F401
    except ImportError:
        return "not there: it needs  pip install bokeh"
    return client.dashboard_link

