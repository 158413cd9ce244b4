"""Stages that runs have in common are made once and linked, also if two processes want them at one time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import e2llm
from e2llm.app import records
from e2llm.app.runs import Run
from e2llm.app.sharing import LOCKS, SHARE

WORK = """
import sys, time
from e2llm.app.runs import Run
stage = Run.open(sys.argv[1]).stage("windows", {"l_freq": 1})
print("asks", flush=True)
if not stage.done:
    print("makes", flush=True)
    stage.begin().path.joinpath("data.txt").write_text("signal")
    time.sleep(float(sys.argv[2]))
    stage.finish()
print("has", flush=True)
"""


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv(SHARE, "1")
    return tmp_path / "runs"


def make(run: str, name: str, params: dict, needs: tuple[str, ...] = (), text: str = "signal"):
    stage = Run.open(run).stage(name, params, needs)
    assert not stage.done
    stage.begin().path.joinpath("data.txt").write_text(text)
    return stage.finish({"n": 3})


def test_a_stage_of_another_run_with_the_same_key_is_linked(runs):
    first = make("one", "windows", {"l_freq": 1})
    other = Run.open("two").stage("windows", {"l_freq": 1})
    assert other.done and other.metrics == {"n": 3}
    one, two = (stage.path / "data.txt" for stage in (first, other))
    assert one.samefile(two) and two.read_text() == "signal"
    assert Run.open("two").require("windows")["made_in"] == "one"
    assert "windows" in (runs / "two" / "manifest.json").read_text()
    assert not Run.open("two").stage("windows", {"l_freq": 2}).done
    # What stands on it has one key too, and a third run that takes it says who made it.
    make("two", "encoder", {}, ("windows",))
    third = Run.open("three")
    assert third.stage("windows", {"l_freq": 1}).done and third.stage("encoder", {}, ("windows",)).done
    assert third.require("encoder")["made_in"] == "two" and third.require("windows")["made_in"] == "one"


def test_a_stage_that_was_made_from_something_else_is_not_taken(runs):
    make("one", "windows", {}, text="a signal")
    make("one", "encoder", {}, ("windows",))
    windows = Run.open("two").stage("windows", {"other": 1}).begin()
    windows.path.joinpath("data.txt").write_text("another signal")
    windows.finish()
    assert not Run.open("two").stage("encoder", {}, ("windows",)).done


def test_nothing_is_shared_unless_it_is_asked_for_and_scores_never(runs, monkeypatch):
    make("one", "evaluation", {})
    assert not Run.open("two").stage("evaluation", {}).done
    monkeypatch.delenv(SHARE)
    make("one", "windows", {})
    assert not Run.open("two").stage("windows", {}).done
    assert not (runs / LOCKS).exists()


@pytest.mark.parametrize("damage", ["a file", "the record", "a file is gone"])
def test_a_damaged_stage_is_not_taken(runs, damage):
    folder = make("one", "windows", {}).path
    if damage == "a file":
        (folder / "data.txt").write_text("sigmal")
    elif damage == "the record":
        (folder / "stage.json").write_text("[")
    else:
        (folder / "data.txt").unlink()
    make("two", "windows", {})


def test_a_linked_stage_stays_when_its_maker_trains_again_or_is_removed(runs):
    make("one", "windows", {"l_freq": 1})
    assert Run.open("two").stage("windows", {"l_freq": 1}).done
    make("one", "windows", {"l_freq": 2}, text="another")
    assert Run.open("two").stage("windows", {"l_freq": 1}).done
    assert (runs / "two" / "windows" / "data.txt").read_text() == "signal"


def test_where_there_are_no_links_files_are_copied(runs, monkeypatch):
    folder = make("one", "windows", {}).path

    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert Run.open("two").stage("windows", {}).done
    assert not (folder / "data.txt").samefile(runs / "two" / "windows" / "data.txt")


def test_a_large_file_that_was_linked_is_not_read_again(runs, monkeypatch):
    monkeypatch.setattr(records, "LARGE", 3)
    make("one", "windows", {})
    assert Run.open("two").stage("windows", {}).done
    monkeypatch.setattr(records, "_SEEN", {})  # as in a new process

    def refuse(path):
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(records, "checksum", refuse)
    for name in ("one", "two"):
        assert Run.open(name).finished("windows")


def start(run: str, seconds: float) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(Path(e2llm.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", WORK, run, str(seconds)], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def test_two_processes_at_one_time_make_a_stage_once(runs):
    first = start("one", 3)
    assert [first.stdout.readline() for _ in range(2)] == ["asks\n", "makes\n"]
    second = start("two", 0)
    out, err = second.communicate(timeout=60)
    assert out == "asks\nhas\n" and first.wait(60) == 0 and first.stdout.read() == "has\n"
    assert f"several runs have in common, is in use by process {first.pid}" in err
    first.stderr.close(), first.stdout.close()


def test_a_stage_whose_maker_was_killed_is_made_by_the_next(runs):
    first = start("one", 60)
    assert [first.stdout.readline() for _ in range(2)] == ["asks\n", "makes\n"]
    second = start("two", 0)
    assert second.stdout.readline() == "asks\n"
    time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    out, _ = second.communicate(timeout=60)
    assert out == "makes\nhas\n"
    first.communicate()
