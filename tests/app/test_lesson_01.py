"""Lesson 01 on recordings of one's own: what is unusable is passed over, and labels may belong to people."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from recordings import brain, write_edf

from e2llm.app.report import build
from e2llm.app.runs import Run

LESSON = Path(__file__).parents[2] / "notebooks" / "01_preprocessing.ipynb"


def broken(path: Path) -> None:
    path.write_bytes(b"broken")


def run_lesson(tmp_path: Path, monkeypatch, rows: list[str], spoil=None) -> tuple[dict, Run]:
    """Execute the cells of the lesson on a folder with these rows, whose first file is spoiled."""
    root = tmp_path / "mine"
    for seed, row in enumerate(rows):
        write_edf(root / row.split(",")[0], brain(seed=seed))
    if spoil:
        spoil(root / rows[0].split(",")[0])
    (root / "labels.csv").write_text("\n".join(["file,subject,session,label", *rows]))
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    monkeypatch.setenv("E2LLM_RUNS", "")
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(LESSON.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    names: dict = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            names.update(run_name="mine", source="folder", data_root="mine", twin_preset="", n_jobs=1)
        plt.close("all")
    return names, Run.open("mine")


def test_the_first_file_may_be_unusable(tmp_path, monkeypatch, capsys):
    rows = [f"{name}.edf,{i // 2},1,{('rest', 'task')[i % 2]}" for i, name in enumerate("abcdef")]
    names, run = run_lesson(tmp_path, monkeypatch, rows, broken)
    assert list(names["passed_over"]) == ["a.edf"] and names["trial"].clip == 2
    assert list(run.require("windows")["facts"]["skipped"]) == ["a.edf"] and len(names["windows"]) == 30
    assert "passed over: {'a.edf'" in capsys.readouterr().out
    assert names["findings"]["recording"].tolist() == ["a.edf"] * len(names["findings"])
    assert (run.path / "figures" / "quality.png").is_file()
    html = build(run).read_text("utf-8")
    assert "Recordings: what the gate found" in html and names["findings"]["remedy"][0] in html


@pytest.mark.parametrize(("rows", "spoil", "labels"), [
    (["a.edf,1,1,control", "b.edf,2,1,patient", "c.edf,3,1,control", "d.edf,4,1,patient"], None,
     ["control", "patient"]),  # one label a person
    (["a.edf,1,1,zeal", "b.edf,1,2,joy", "c.edf,2,1,awe", "d.edf,2,2,calm"], None, ["awe", "calm", "joy", "zeal"]),
    (["a.edf,1,1,awe", "b.edf,1,2,joy", "c.edf,2,1,joy", "d.edf,2,2,calm"], broken, ["calm", "joy"]),  # awe is lost
])
def test_labels_of_people_and_labels_without_windows(tmp_path, monkeypatch, rows, spoil, labels):
    names, run = run_lesson(tmp_path, monkeypatch, rows, spoil)
    assert json.loads((run.path / "windows" / "labels.json").read_text())["labels"] == labels
    assert list(names["there"]) == labels
    assert set(names["shown"]) == set(names["windows"].index["label"][names["first"]])
