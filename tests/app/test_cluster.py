"""Sweeps on the workers of a Dask cluster: checked before anything starts, whole although runs fail and workers die."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dask
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from toy_project import log_of, toy_project

import e2llm
from e2llm.app import cluster, sweeps, worker_run
from e2llm.app.cli import main
from e2llm.app.runs import Run
from e2llm.app.sweeps import Workers, read_sweep, sweep

GRID = {"seed": [0, 1], "fold": [0, 1]}


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    return toy_project(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def local():
    """A scheduler with one worker, which is a thread of this process."""
    with cluster.start_patiently(lambda: LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL)) as found:  # fmt: skip
        yield found


@pytest.fixture
def client(local):
    with cluster.start_patiently(lambda: Client(local)) as found:
        yield found


def test_a_busy_machine_gets_more_time_and_then_a_clear_word(monkeypatch, capsys):
    times = iter([AssertionError(), AssertionError(), "started"])

    def make():
        found = next(times)
        if isinstance(found, AssertionError):
            raise found
        return found

    assert cluster.start_patiently(make) == "started"
    assert capsys.readouterr().err.count("did not start in ten seconds") == 2
    monkeypatch.setattr(cluster, "Client", lambda *_, **__: (_ for _ in ()).throw(AssertionError()))
    with pytest.raises(cluster.ClusterError, match="too busy: end other work"), cluster.connected(scheduler="tcp://a:1"):
        pass
    assert f"time {cluster.STARTS} of {cluster.STARTS}" in capsys.readouterr().err


def test_a_sweep_is_whole_although_a_run_fails_and_workers_are_killed(project, capfd):
    for name, times in (("kill-0-1", 1), ("kill-1-0", 2), ("fail-1-1", 1)):
        (project / name).write_text(str(times))
    command = ["sweep", "-g", "seed=0,1", "-g", "fold=0,1", "--name", "trial", "--workers", "2"]
    # -------- the first time: one run fails, one loses its worker once and goes on, one loses it twice
    assert main(command) == 1
    said = capfd.readouterr().err
    assert "4 runs on 2 workers; Dask's dashboard: http://127.0.0.1:" in said
    assert "trial-seed0-fold1: its worker" in said and "another one goes on from its last finished stage" in said
    assert "2 runs failed. The same command makes only what is missing." in said
    table = pd.read_csv(project / "runs" / "trial-sweep.csv").set_index("run")
    assert list(table.index) == [f"trial-seed{seed}-fold{fold}" for seed in (0, 1) for fold in (0, 1)] + ["mean", "sd"]
    assert "bad luck" in table.loc["trial-seed1-fold1", "error"]
    assert "Its worker was lost 2 times" in table.loc["trial-seed1-fold0", "error"]
    assert list(table["accuracy"][:2]) == pytest.approx([0.0, 0.1]) and table["accuracy"][2:4].isna().all()
    assert list(table["threads"][:2]) == [1, 1]
    made = log_of(project)
    assert [line for line in made if line.startswith("windows")] == made[2:], "made once, for four runs"
    assert len(made) == 3 and made[:2] == ["evaluation trial-seed0-fold0", "evaluation trial-seed0-fold1"]
    # -------- the same command
    assert main(command) == 0
    again = [line for line in log_of(project) if line not in made]
    assert again == ["evaluation trial-seed1-fold0", "evaluation trial-seed1-fold1"]
    table = pd.read_csv(project / "runs" / "trial-sweep.csv").set_index("run")
    assert "error" not in table and list(table["accuracy"][:4]) == pytest.approx([0.0, 0.1, 1.0, 1.1])
    assert table.loc["mean", "accuracy"] == pytest.approx(0.55)
    windows = [project / "runs" / name / "windows" / "data.txt" for name in table.index[:4]]
    assert all(path.samefile(windows[0]) for path in windows)


def test_without_dask_workers_are_refused_and_a_plain_sweep_shares_too(project, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "e2llm.app.cluster")
    monkeypatch.delattr("e2llm.app.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["sweep", "-g", "seed=0", "--workers", "2"]) == 2
    assert 'pip install -c constraints.txt -e ".[cluster]"' in capsys.readouterr().err
    assert not (project / "runs").exists()
    table = sweep("tiny", {"seed": [0, 1]})
    assert list(table["accuracy"][:2]) == [0.0, 1.0]
    assert [line for line in log_of(project) if line.startswith("windows")] == ["windows tiny-seed0"]
    assert Run.open("tiny-seed1").require("windows")["made_in"] == "tiny-seed0"


# --- addresses


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nowhere", "http://[", "tcp://127.0.0.1:99999"])
def test_an_address_that_nobody_answers_is_refused_before_anything_starts(project, monkeypatch, capsys, address):
    monkeypatch.setattr(cluster, "ANSWER_S", 1.0)
    assert main(["sweep", "-g", "seed=0,1", "--scheduler", address]) == 2
    said = capsys.readouterr().err
    assert f"No scheduler answers at {address} within 1 s" in said and "Nothing was started" in said
    assert said.count("\n") == 1 and not (project / "runs").exists()


@pytest.mark.parametrize(("content", "fact"), [(None, "There is no file scheduler.json"), ("[", "is not JSON"),
                                               ("{}", "without a proper 'address'")])
def test_a_file_that_no_scheduler_wrote_is_refused(project, capsys, content, fact):
    if content is not None:
        Path("scheduler.json").write_text(content)
    assert main(["sweep", "-g", "seed=0", "--scheduler-file", "scheduler.json"]) == 2
    assert fact in capsys.readouterr().err and not (project / "runs").exists()


def test_a_file_of_a_scheduler_is_followed(project, local):
    Path("scheduler.json").write_text(json.dumps({"type": "Scheduler", "address": local.scheduler_address}))
    with cluster.connected(scheduler_file="scheduler.json") as found:
        assert len(found.nthreads()) == 1


def test_a_scheduler_without_workers_is_waited_for_and_then_refused(monkeypatch, capsys):
    monkeypatch.setattr(cluster, "FIRST_WORKER_S", 0.5)
    empty = cluster.start_patiently(lambda: LocalCluster(
        n_workers=0, processes=False, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL))
    with empty, pytest.raises(cluster.ClusterError, match=r"had no worker for 0.5 s: start some with"), \
            cluster.connected(scheduler=empty.scheduler_address):  # fmt: skip
        pass
    assert "has no worker yet: waiting for the first" in capsys.readouterr().err


@pytest.mark.parametrize("given", [{"workers": 2, "scheduler": "tcp://a:1"}, {"workers": 0}, {"workers": 1.5}])
def test_contradicting_and_impossible_workers_are_refused(given):
    with pytest.raises(ValueError, match=r"Give one of workers|workers = "):
        Workers(**given)


# --- workers


def test_a_worker_that_can_be_used_passes(project, client):
    assert cluster.check_workers(client, project / "runs", [project / "notebooks" / "05_evaluation.ipynb"]) == {}
    assert list((project / "runs").iterdir()) == []


def test_a_worker_that_does_not_share_the_folder_is_named(project, client, monkeypatch):
    monkeypatch.setattr(cluster, "SEEN_S", 0.3)
    (fault,) = cluster.check_workers(client, project / "runs", [project / "gone.ipynb"]).values()
    assert f"does not share the folder {project / 'runs'} or the lessons" in fault
    monkeypatch.setattr(cluster, "_write_probe", lambda *_: None)  # as on a disk that the worker does not see
    (fault,) = cluster.check_workers(client, project / "runs").values()
    assert "does not share the folder" in fault and "E2LLM_RUNS" in fault
    monkeypatch.setattr(cluster, "_shows", lambda *_: False)  # as if its own file did not come back
    monkeypatch.undo()


def test_a_sweep_does_not_start_with_a_worker_that_cannot_be_used(project, local, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "SEEN_S", 0.3)
    monkeypatch.setattr(cluster, "_write_probe", lambda *_: None)
    assert main(["sweep", "-g", "seed=0,1", "--scheduler", local.scheduler_address]) == 2
    assert "Nothing was started." in capsys.readouterr().err and list((project / "runs").iterdir()) == []


def test_workers_without_the_package_or_with_another_are_named(project, tmp_path_factory):
    base, package = tmp_path_factory.mktemp("packages"), Path(cluster.PACKAGE).parent
    for name, text in (("none", "raise ImportError('No module named e2llm')"), ("old", "__version__ = '0.0.1'"),
                       ("changed", f"__version__ = {cluster.__version__!r}")):  # fmt: skip
        (base / name / "e2llm").mkdir(parents=True)
        (base / name / "e2llm" / "__init__.py").write_text(text + "\n")
    found: list[subprocess.Popen] = []
    with cluster.start_patiently(lambda: LocalCluster(
            n_workers=0, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL)) as empty, \
            cluster.start_patiently(lambda: Client(empty)) as client:  # fmt: skip
        try:
            for name, path in (("none", base / "none"), ("old", base / "old"), ("changed", base / "changed"),
                               ("same", package.parent)):  # fmt: skip
                found.append(subprocess.Popen(
                    [sys.executable, "-m", "distributed.cli.dask_worker", empty.scheduler_address, "--no-nanny",
                     "--nthreads", "1", "--name", name, "--no-dashboard"], env={**os.environ, "PYTHONPATH": str(path)},
                    cwd=base, stderr=subprocess.DEVNULL))  # fmt: skip
            client.wait_for_workers(4, timeout=60)
            known = client.scheduler_info(n_workers=-1)["workers"]
            names = {facts["name"]: address for address, facts in known.items()}
            faults = cluster.check_workers(client, project / "runs")
        finally:
            for process in found:
                process.kill()
                process.wait()
    assert faults.keys() == {names[name] for name in ("none", "old", "changed")}
    assert "has no package e2llm (No module named e2llm): install it there" in faults[names["none"]]
    assert f"has e2llm 0.0.1, and here is {cluster.__version__}" in faults[names["old"]]
    assert "with other code than here" in faults[names["changed"]]


def test_another_python_or_dask_is_named(project, client, monkeypatch):
    real = client.get_versions()

    def other():
        for facts in real["workers"].values():
            facts["packages"]["python"] = "3.8.1.final.0"
        return real

    monkeypatch.setattr(client, "get_versions", other)
    (fault,) = cluster.check_workers(client, project / "runs").values()
    assert "has python 3.8, and here is 3.1" in fault


def test_jobs_end_with_their_results_and_errors_and_a_lost_scheduler_is_named(client, monkeypatch):
    ended = {}
    cluster.run_jobs(client, divmod_of, {"a": {"x": 7, "y": 2}, "b": {"x": 7, "y": 0}}, ended.__setitem__, dict)
    assert ended["a"] == (3, 1) and isinstance(ended["b"], ZeroDivisionError)

    def lost():
        raise OSError("connection closed")

    monkeypatch.setattr(client, "nthreads", iter([{"w": 1}, None]).__next__)
    monkeypatch.setattr(client, "nthreads", lambda known=[{"tcp://w:1": 1}]: known.pop() if known else lost())
    with pytest.raises(cluster.ClusterError, match=r"answers no more .* finished stages are kept"):
        cluster.run_jobs(client, divmod_of, {"a": {"x": 7, "y": 2}}, ended.__setitem__, dict)


def test_a_job_that_others_cancel_is_given_again(client, monkeypatch, capsys):
    submit, cancelled, ended = client.submit, [], {}

    def cancelled_once(*args, **named):
        future = submit(*args, **named)
        if not cancelled:
            cancelled.append(future)
            future.cancel()
        return future

    monkeypatch.setattr(client, "submit", cancelled_once)
    cluster.run_jobs(client, divmod_of, {"a": {"x": 7, "y": 2}}, ended.__setitem__, dict)
    assert ended == {"a": (3, 1)} and "was lost; another one goes on" in capsys.readouterr().err


def test_a_result_that_cannot_be_had_is_made_again_and_ends_no_sweep(client, monkeypatch, capsys):
    real, lost = cluster._result, []

    def unreachable_once(future):
        if future.status == "finished" and not lost:
            lost.append(future.key)
            raise TimeoutError("no answer within 60 s")
        return real(future)

    monkeypatch.setattr(cluster, "_result", unreachable_once)
    ended = {}
    cluster.run_jobs(client, divmod_of, {"a": {"x": 7, "y": 2}, "b": {"x": 9, "y": 2}}, ended.__setitem__, dict)
    assert ended == {"a": (3, 1), "b": (4, 1)} and len(lost) == 1
    assert "was lost; another one goes on" in capsys.readouterr().err


def test_a_process_states_the_code_that_it_has_loaded_not_the_one_on_the_disk_now(monkeypatch, tmp_path):
    """A worker that runs on after an update would preprocess by old code under the new name."""
    monkeypatch.delattr(e2llm, "_first_digest", raising=False)
    (package := tmp_path / "e2llm").mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr(e2llm, "__file__", str(package / "__init__.py"))
    (probe := tmp_path / "probe").write_text("here")
    digest, look = cluster._travelling()
    first = look(str(probe), "here", [], 0.0)["source"]
    assert first == digest(str(package))
    (package / "__init__.py").write_text("a = 2\n")
    assert look(str(probe), "here", [], 0.0)["source"] == first != digest(str(package))
    del e2llm._first_digest  # not by monkeypatch, which would put it back for the tests that follow


def test_a_run_given_to_another_worker_waits_for_the_one_that_is_closing(project, monkeypatch):
    asked = {}

    class Made:
        def read_metrics(self):
            return {"score": 1}

    def make(*_, **named):
        asked.update(named)
        return Made()

    monkeypatch.setattr(worker_run, "run_pipeline", make)
    monkeypatch.setattr(worker_run, "get_worker", lambda: SimpleNamespace(state=SimpleNamespace(nthreads=1)))
    assert worker_run.make_run("tiny", {}, "a", str(project), str(project / "runs"), []) == {"score": 1}
    assert asked == {"wait": True, "share": True}


def divmod_of(x: int, y: int) -> tuple[int, int]:
    return divmod(x, y)


# --- a sweep in a file


def test_a_sweep_is_read_out_of_a_file_and_options_replace_its_values(project, monkeypatch):
    made = []

    class Made:
        def read_metrics(self):
            return {"accuracy": 0.5}

    def make(profile, parameters, run, *_, **__):
        made.append((profile, parameters, run))
        return Made()

    monkeypatch.setattr(sweeps, "run_pipeline", make)
    Path("sweep.yaml").write_text("name: mine\nparameters: {save_steps: 7}\ngrid:\n  seed: [0, 1]\n")
    assert main(["sweep", "sweep.yaml", "-g", "seed=2"]) == 0
    assert main(["sweep", "sweep.yaml", "-p", "save_steps=8", "--name", "other"]) == 0
    (project / "notebooks" / "profiles" / "other.yaml").write_text("save_steps: 9\n")
    Path("sweep.yaml").write_text("profile: other\ngrid:\n  seed: [0]\n")
    assert main(["sweep", "sweep.yaml"]) == 0 and main(["sweep", "sweep.yaml", "--profile", "tiny"]) == 0
    assert made == [("tiny", {"save_steps": 7, "seed": 2}, "mine-seed2"),
                    *(("tiny", {"save_steps": 8, "seed": seed}, f"other-seed{seed}") for seed in (0, 1)),
                    ("other", {"seed": 0}, "other-seed0"), ("tiny", {"seed": 0}, "tiny-seed0")]


@pytest.mark.parametrize(("text", "fact"), [
    ("[1]", "must be a mapping"), ("grids: {}", "entry 'grids': known are profile"), ("grid: [1]", "must be a mapping"),
    ("grid: {seed: 1}", "seed in the grid must be a list"), ("name: 3", "name must be text"), ("a: *b", "is not YAML"),
    ("name: x", "at least one value"), ("grid: {1: [0, 1]}", "'1'"),
    ("grid: {seed: [0]}\nparameters: {on: 3}", "'True'"),
    ("grid: {seeds: [1]}", "did you mean seed"),
])
def test_a_file_that_is_no_sweep_is_refused(project, capsys, text, fact):
    Path("sweep.yaml").write_text(text)
    assert main(["sweep", "sweep.yaml"]) == 2
    assert fact in capsys.readouterr().err and not (project / "runs").exists()


def test_a_missing_file_is_named_and_text_stays_text(project):
    with pytest.raises(ValueError, match=r"There is no file gone.yaml"):
        read_sweep("gone.yaml")
    Path("sweep.yaml").write_text("grid:\n  data_root: [01, data/x]\nparameters: {null_root: 02}\n")
    found = read_sweep("sweep.yaml")
    assert found.grid == {"data_root": ["01", "data/x"]} and found.parameters == {"null_root": "02"}


def _setting(name: str) -> object:
    return dask.config.get(name)


def test_workers_on_this_machine_leave_the_cores_to_their_kernels():
    """Dask's profiler would look a hundred times a second what a worker does, which only waits."""
    own = {name: dask.config.get(name) for name in cluster._UNWATCHED}
    with cluster.connected(workers=1) as client:
        found = {name: client.submit(_setting, name, pure=False).result(60) for name in own}
    assert found == cluster._UNWATCHED and found["distributed.worker.profile.enabled"] is False
    assert {name: dask.config.get(name) for name in own} == own, "this process keeps its own settings"
