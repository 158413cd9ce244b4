"""One run of a sweep, as a worker of a Dask cluster makes it."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distributed import get_worker

from .pipeline import run_pipeline


def make_run(profile: str, parameters: Mapping, name: str, here: str, runs: str,
             notebooks: Sequence[str]) -> dict[str, Any]:
    """One run, on a worker, with as many threads as the worker has.

    Parameters
    ----------
    profile, parameters, name, notebooks
        As in :func:`e2llm.app.pipeline.run_pipeline`.
    here, runs : str
        Working directory, inside the project, and the folder of its runs.

    Returns
    -------
    dict
        Its ``metrics.json``.
    """
    # Dask tells the processes of a worker to use one thread, however many the worker has.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
                            str(get_worker().state.nthreads))
    before = dict(os.environ)
    os.environ.update({"E2LLM_RUNS": runs}, **threads)
    try:
        with contextlib.chdir(here), contextlib.redirect_stderr(io.StringIO()):  # the client shows one bar for all
            # A worker that was given up may still be closing, with its run in its hands.
            run = run_pipeline(profile, parameters, name, [Path(path) for path in notebooks], wait=True, share=True)
            return run.read_metrics()
    finally:
        os.environ.clear()
        os.environ.update(before)
