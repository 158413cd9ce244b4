"""Preprocessing of one run on the workers of a Dask cluster: the same files, checked before it starts, and kept."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster
from joblib import Parallel, delayed, parallel_config
from toy_project import toy_project, write_notebook

from e2llm.app import cluster, dask_backend, spreading, stages
from e2llm.app.cli import main
from e2llm.app.runs import Run, runs_folder
from e2llm.data import preprocessing
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.sources import open_source


@pytest.fixture(scope="module")
def twin(made_once) -> Path:
    """Six recordings of some 40 windows: half a second of work each."""
    params = TwinParams(subjects=6, sessions=1, clips=15, seconds=(12.2, 13.0))
    return made_once("twin of six", lambda folder: simulate(folder / "twin", params, n_jobs=1)) / "twin"


@pytest.fixture(scope="module")
def local():
    """Two worker processes of two threads each."""
    with cluster.start_patiently(lambda: LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", memory_limit=None,
            silence_logs=logging.CRITICAL)) as found:  # fmt: skip
        yield found


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return toy_project(tmp_path, monkeypatch)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def here(twin, tmp_path_factory):
    """Windows that were made without a cluster."""
    folder = tmp_path_factory.mktemp("here") / "signal"
    assert preprocessing.write_windows(open_source("seed-vii", twin), folder, n_jobs=1) == {}
    return files_of(folder)


def preprocess(name: str, twin: Path, scheduler: str) -> Run:
    run = Run.open(name)
    stages.preprocess(run, "seed-vii", twin, PreprocessParams(), n_jobs=1, scheduler=scheduler)
    return run


def parts(run: Run) -> list[Path]:
    """Finished recordings of a stage that is not finished."""
    return sorted(run.path.glob(".windows.part*/signal.part/*.csv"))


def after_the_first_part(run: Run, act) -> threading.Thread:
    """Do something as soon as one recording is finished."""
    def wait() -> None:
        end = time.monotonic() + 60
        while not parts(run) and time.monotonic() < end:
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


# --- the same windows


def test_windows_of_workers_are_those_made_here_and_the_stage_is_the_same(project, twin, here, local, capsys):
    run = preprocess("spread", twin, local.scheduler_address)
    assert files_of(run.path / "windows" / "signal") == here
    said = capsys.readouterr().err
    assert "Recordings on 2 workers; Dask's dashboard: http://127.0.0.1:" in said
    record = run.require("windows")
    assert local.scheduler_address not in str(record)
    again = stages.preprocess(run, "seed-vii", twin, PreprocessParams(), n_jobs=1)  # without a cluster
    assert again.key == record["key"] and run.require("windows") == record, "not made again"


def test_a_single_worker_does_the_work_although_it_has_one_thread(project, twin, here, monkeypatch):
    with cluster.start_patiently(lambda: LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=None,
            silence_logs=logging.CRITICAL)) as one:  # fmt: skip
        monkeypatch.setattr(preprocessing, "_written", None)  # here it would fail
        run = preprocess("one", twin, one.scheduler_address)
    assert files_of(run.path / "windows" / "signal") == here


def test_the_environment_says_the_scheduler_where_a_lesson_does_not(monkeypatch):
    assert spreading.asked_scheduler(None) == "" and spreading.asked_scheduler("tcp://a:1") == "tcp://a:1"
    monkeypatch.setenv(spreading.SCHEDULER, "tcp://b:1")
    assert spreading.asked_scheduler(None) == "tcp://b:1" and spreading.asked_scheduler("") == ""


# --- refused before anything starts


def test_a_scheduler_that_nobody_answers_is_refused_before_a_kernel_starts(project, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    assert main(["run", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert "No scheduler answers at tcp://127.0.0.1:9 within 1 s" in said and "Nothing was started" in said
    assert not (project / "runs").exists() and not (project / "log.txt").exists()
    assert main(["run", "--scheduler-file", "gone.json"]) == 2
    assert "There is no file gone.json" in capsys.readouterr().err


def test_the_stage_is_not_begun_if_nobody_answers_or_dask_is_missing(project, twin, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    with pytest.raises(cluster.ClusterError, match="Nothing was started"):
        preprocess("nobody", twin, "tcp://127.0.0.1:9")
    monkeypatch.delitem(sys.modules, "e2llm.app.cluster")
    monkeypatch.delattr("e2llm.app.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"A scheduler needs Dask.*pip install"):
        preprocess("nobody", twin, "tcp://127.0.0.1:9")
    assert not list(Run.open("nobody").path.glob("*windows*"))


def test_workers_that_do_not_see_the_recordings_are_named(project, twin, local, monkeypatch):
    monkeypatch.setattr(cluster, "SEEN_S", 0.3)
    monkeypatch.setattr(cluster, "_write_probe", lambda *_: None)  # as on a disk that the workers do not see
    with pytest.raises(cluster.ClusterError, match=r"does not share the folder .* or the recordings with this machine"):
        preprocess("blind", twin, local.scheduler_address)
    with pytest.raises(cluster.ClusterError, match=r"does not share the folder .* or the lessons"):
        spreading.check_cluster(runs_folder(), local.scheduler_address)
    assert spreading.check_cluster(runs_folder()) == ""


def test_the_lessons_of_a_run_hear_of_the_scheduler(project, local):
    says = 'import os\nopen(os.path.join(os.environ["E2LLM_RUNS"], "heard"), "w").write(os.environ["E2LLM_SCHEDULER"])'
    write_notebook(project / "notebooks" / "05_evaluation.ipynb", 'run_name = "tiny"\n', says,
                   'from e2llm.app.runs import Run\nrun = Run.open(run_name)\nrun.write_metrics({"accuracy": 1.0})')
    main(["run", "--scheduler", local.scheduler_address])
    assert (project / "runs" / "heard").read_text() == local.scheduler_address
    assert spreading.SCHEDULER not in os.environ and "scheduler" not in (project / "runs" / "tiny"
                                                                         / "params.yaml").read_text()


# --- lost workers and schedulers


def test_a_killed_worker_loses_no_finished_recording(project, twin, here):
    with cluster.start_patiently(lambda: LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=None,
            silence_logs=logging.CRITICAL)) as two:  # fmt: skip
        run = Run.open("killed")
        thread = after_the_first_part(run, lambda: os.kill(two.workers[0].process.pid, signal.SIGKILL))
        preprocess("killed", twin, two.scheduler_address)
        thread.join()
    assert files_of(run.path / "windows" / "signal") == here


@pytest.mark.parametrize("what", ["workers", "scheduler"])
def test_if_all_are_lost_that_is_said_and_the_same_call_goes_on(project, twin, here, what, monkeypatch):
    def begin(*words: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    file = project / "scheduler.json"
    scheduler = begin("distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    found = [scheduler]
    try:
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.1)
        found.append(begin("distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-nanny", "--nthreads",
                           "1", "--no-dashboard"))
        with cluster.connected(scheduler_file=file) as client:
            address = client.scheduler.address
        run = Run.open("lost")
        thread = after_the_first_part(run, found[1 if what == "workers" else 0].kill)
        with pytest.raises(cluster.ClusterError, match=r"lost.*what is finished is kept, and the same command goes on"):
            preprocess("lost", twin, address)
        thread.join()
    finally:
        for process in found:
            process.kill()
            process.wait()
    first = parts(run)
    made = {path.name: path.stat().st_mtime_ns for path in first}
    assert first
    remade: list[str] = []
    real = preprocessing._written

    def noted(source, recording, *rest):
        part = preprocessing._part(rest[-1], recording.name, ".csv")
        remade.append(recording.name) if not part.exists() else made.pop(part.name)
        return real(source, recording, *rest)

    monkeypatch.setattr(preprocessing, "_written", noted)
    assert files_of(preprocess("lost", twin, "").path / "windows" / "signal") == here
    assert not made and len(remade) == 6 - len(first)


def test_a_call_whose_workers_die_is_given_up_with_a_word():
    """Joblib alone would wait for ever: it hears of results only."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), cluster.start_patiently(lambda: LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", memory_limit=None,
            silence_logs=logging.CRITICAL)) as two, cluster.start_patiently(lambda: Client(two)) as client:  # fmt: skip
        backend = dask_backend.CertainWorkers(client, sorted(client.nthreads()))
        with pytest.raises(cluster.ClusterError, match=r"A call was given up .* workers lack memory"), \
                backend.watched(), parallel_config(backend=backend):  # fmt: skip
            Parallel()([delayed(abs)(-1), delayed(os._exit)(1)])
