"""Preprocessing of one run spread over processes here, or over the workers of a Dask cluster, by joblib's backends.

:func:`e2llm.data.preprocessing.write_windows` asks joblib for threads unless another backend is set. Here it is set.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from joblib import parallel_config

SCHEDULER = "E2LLM_SCHEDULER"  # environment variable: address that preprocessing takes where none is given


def asked_scheduler(given: str | None) -> str:
    """Address of the scheduler to take, "" for none.

    Parameters
    ----------
    given : str, optional
        Default: what the environment says.
    """
    return os.environ.get(SCHEDULER, "") if given is None else given


def check_cluster(folder: Path, scheduler: str = "", scheduler_file: str | Path | None = None) -> str:
    """Ask a scheduler and its workers before anything starts.

    Parameters
    ----------
    folder : Path
        Folder of the runs, which all workers must share.
    scheduler, scheduler_file
        As for :func:`e2llm.app.cluster.connected`; neither is no question.

    Returns
    -------
    str
        Address of the scheduler, "" if none was given.

    Raises
    ------
    OSError
        If nobody answers, or a worker cannot be used (:class:`e2llm.app.cluster.ClusterError`).
    ValueError
        If Dask is not installed, or the file is no file of a scheduler.
    """
    if not scheduler and scheduler_file is None:
        return ""
    cluster = _cluster()
    with cluster.connected(scheduler=scheduler, scheduler_file=scheduler_file) as client:
        _refuse(cluster.check_workers(client, folder))
        return client.scheduler.address


@contextlib.contextmanager
def spread(scheduler: str, n_jobs: int, folder: Path, files: Sequence[Path]) -> Iterator[None]:
    """Within the block joblib's calls are made by processes here, or by the workers that a cluster has now.

    A worker of a cluster makes as many at a time as it has threads. Calls of a lost worker are made again by another
    one.

    Parameters
    ----------
    scheduler : str
        Address, ``tcp://host:port``; "" is no cluster.
    n_jobs : int
        Processes without a cluster.
    folder : Path
        Folder of the runs, which all workers must share.
    files : sequence of Path
        That all workers must see.

    Raises
    ------
    OSError
        If nobody answers, a worker cannot be used, the scheduler is lost, or all workers are
        (:class:`e2llm.app.cluster.ClusterError`).
    ValueError
        If Dask is not installed.
    """
    if not scheduler:
        with parallel_config("loky", n_jobs=n_jobs):  # the processes that simulated a twin go on
            yield
        return
    cluster = _cluster()
    with cluster.connected(scheduler=scheduler) as client:
        workers = sorted(client.nthreads())  # one that joins during the check is not used
        _refuse(cluster.check_workers(client, folder, files, workers, shared="the recordings"))
        print(f"Recordings on {len(workers)} workers; Dask's dashboard: {cluster.dashboard(client)}", file=sys.stderr,
              flush=True)
        from .dask_backend import CertainWorkers  # here, for it needs Dask too

        backend = CertainWorkers(client, workers)
        with backend.watched(), parallel_config(backend=backend):
            yield


def _cluster() -> Any:
    try:
        from . import cluster
    except ImportError as error:
        raise ValueError(f"A scheduler needs Dask, which is not installed ({error}): pip install -c constraints.txt -e "
                         '".[cluster]", or leave the option out.') from error
    return cluster


def _refuse(faults: dict[str, str]) -> None:
    if faults:
        raise _cluster().ClusterError(" ".join([*faults.values(), "Nothing was started."]))
