"""A project whose two lessons are toys: stages of one small file, and a log of what was really made."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

import e2llm

FIRST = 'run_name = "tiny"  # folder in runs/\nsave_steps = 2  # toys stand on the names of real parameters\n'
SECOND = 'run_name = "tiny"\nseed = 0  # of everything drawn\nfold = 0\n'
MAKE_WINDOWS = """\
import os, time
from e2llm.app.runs import Run
log = os.path.join(os.environ["E2LLM_RUNS"], "..", "log.txt")
stage = Run.open(run_name).stage("windows", {"save_steps": save_steps})
if not stage.done:
    stage.begin().path.joinpath("data.txt").write_text(str(save_steps))
    open(log, "a").write(f"windows {run_name}\\n")
    time.sleep(0.5)
    stage.finish()
"""
TROUBLE = """\
import os, signal
root = os.path.join(os.environ["E2LLM_RUNS"], "..")
for wish in ("kill", "fail"):
    path = os.path.join(root, f"{wish}-{seed}-{fold}")
    if os.path.exists(path):
        left = int(open(path).read())
        if left:
            open(path, "w").write(str(left - 1))
            if wish == "fail":
                raise RuntimeError("bad luck")
            os.kill(os.getppid(), signal.SIGKILL)  # the worker, by which this kernel was started
            import time
            time.sleep(60)
"""
EVALUATE = """\
from e2llm.app.runs import Run
run = Run.open(run_name)
stage = run.stage("evaluation", {"seed": seed, "fold": fold}, ("windows",))
if not stage.done:
    stage.begin().finish()
    open(os.path.join(root, "log.txt"), "a").write(f"evaluation {run_name}\\n")
rows = [f"{fold}{who},{clip},0,{label},{label},0.5,0.5" for who in "ab" for clip, label in ((1, "x"), (2, "y"))]
(run.path / "predictions.csv").write_text("\\n".join(["subject,clip,window,label,LLM,p(x),p(y)", *rows]))
run.write_metrics({"accuracy": seed + fold / 10, "threads": int(os.environ.get("OMP_NUM_THREADS", 0))})
"""


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook with a cell of parameters and further cells."""
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[tagged, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


def toy_project(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """The project in a folder, which becomes the working directory."""
    (folder / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    profiles = folder / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "tiny.yaml").write_text("description: a toy\nsave_steps: 3\n")
    write_notebook(folder / "notebooks" / "01_preprocessing.ipynb", FIRST, MAKE_WINDOWS)
    write_notebook(folder / "notebooks" / "05_evaluation.ipynb", SECOND, TROUBLE, EVALUATE)
    patch.delenv("E2LLM_RUNS", raising=False)
    package = str(Path(e2llm.__file__).parents[1])
    patch.setenv("PYTHONPATH", os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]))
    patch.chdir(folder)
    return folder


def log_of(project: Path) -> list[str]:
    """What the lessons really made, sorted: one line a stage."""
    path = project / "log.txt"
    return sorted(path.read_text().splitlines()) if path.exists() else []
