"""What a command started ends with it, however it ends, down to the workers of its kernels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import e2llm
from e2llm.core.environment import PARENT, children_end_with_this

# Starts itself as many times as it is told, one within the other; each says its number and then only works.
TREE = """
import os, subprocess, sys, time
from e2llm.core.environment import children_end_with_this
depth, session = int(sys.argv[1]), sys.argv[2] == "own session"
if depth:
    def start():
        subprocess.Popen([sys.executable, __file__, str(depth - 1), sys.argv[2]], start_new_session=session)
    if sys.argv[3:]:
        with children_end_with_this():
            start()
    else:
        start()
print(os.getpid(), flush=True)
while True:
    sum(range(10**5))
"""


def environment() -> dict[str, str]:
    """Of a process that nobody watches."""
    return {**{name: value for name, value in os.environ.items() if name != PARENT},
            "PYTHONPATH": str(Path(e2llm.__file__).parents[1])}


@pytest.mark.parametrize("session", ["own session", "same session"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_children_and_their_children_end_when_the_command_is_killed(tmp_path, session, end):
    (tmp_path / "tree.py").write_text(TREE)
    command = subprocess.Popen([sys.executable, tmp_path / "tree.py", "2", session, "command"], env=environment(),
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    found = [psutil.Process(int(command.stdout.readline())) for _ in range(3)]
    assert all(process.is_running() for process in found)
    command.send_signal(end)
    _, alive = psutil.wait_procs([process for process in found if process.pid != command.pid], timeout=10)
    command.wait(10)
    assert not alive


def test_a_process_that_was_not_started_by_a_command_goes_on(tmp_path):
    (tmp_path / "tree.py").write_text(TREE)
    outer = subprocess.Popen([sys.executable, tmp_path / "tree.py", "1", "own session"], env=environment(),
                             stdout=subprocess.PIPE, text=True)  # fmt: skip
    found = [psutil.Process(int(outer.stdout.readline())) for _ in range(2)]
    outer.kill()
    outer.wait(10)
    time.sleep(1)
    (other,) = [process for process in found if process.pid != outer.pid]
    assert other.is_running() and other.status() != psutil.STATUS_ZOMBIE
    other.kill()


def test_the_variable_is_put_back(monkeypatch):
    monkeypatch.delenv(PARENT, raising=False)
    with children_end_with_this():
        with children_end_with_this():
            pass
        assert os.environ[PARENT] == str(os.getpid())
    assert PARENT not in os.environ


def test_a_child_whose_parent_is_gone_already_does_not_begin():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ended = subprocess.run([sys.executable, "-c", "import time, e2llm; time.sleep(20)"],
                           env={**environment(), PARENT: str(gone.pid)}, timeout=15, check=False)  # fmt: skip
    assert ended.returncode == 1
