"""The lessons: really run, comparable, and reproducible through papermill and nbval."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
MAX_IGNORED = 2
TOLERANCE = 0.08  # of accuracies between machines
TOLERANCE_OF_ITEMS = 0.15  # of tiers 2 and 3: 300 items a kind, and which skill a small model picks up in one training changes with its rounding
ENVIRONMENT = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def _code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_was_run_once_in_order(notebook):
    cells = _code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


def test_has_one_parameters_cell_and_few_ignored_cells(notebook):
    tags = [tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])]
    ignored = tags.count("nbval-ignore-output")
    assert tags.count("parameters") == 1
    assert ignored <= MAX_IGNORED
    if ignored:
        prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        assert "not compared between machines" in prose, "a lesson says why an output is not compared"


def test_cells_are_short_and_the_anatomy_is_there(notebook):
    assert max(len(cell.source.splitlines()) for cell in _code(notebook)) <= 20
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for part in ("**Promise.**", "*What you will learn*", "## Check", "## Try it yourself"):
        assert part in prose


def test_outputs_hold_no_error_warning_path_or_progress_bar(notebook):
    for cell in _code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error"
            text = json.dumps({k: v for k, v in output.items() if k != "data"}) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r"/(?:home|root|tmp|usr)/|site-packages|Warning|it/s\]", text), text[:300]


def test_a_lesson_shows_a_figure_and_stays_small(notebook):
    assert any("image/png" in output.get("data", {}) for cell in _code(notebook) for output in cell.outputs)
    assert len(nbformat.writes(notebook)) < 750_000


@pytest.fixture(scope="session")
def finished_run():
    """The default profile, really run by the command line of the README."""
    done = subprocess.run([sys.executable, "-m", "e2llm", "run", "--profile", "tiny"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return ROOT / "runs" / "tiny"


@pytest.mark.slow
def test_the_default_run_gives_what_the_readme_shows(finished_run):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    expected = json.loads((ROOT / "tests" / "expected_tiny.json").read_text())
    rows = {name: {(row["name"], row.get("group")): row for row in table} for name, table in metrics["tables"].items()}
    for table, scores in expected["tables"].items():
        for name, group, score in scores:
            tolerance = TOLERANCE_OF_ITEMS if table == "tiers_2_and_3" else TOLERANCE
            assert rows[table][name, group]["score"] == pytest.approx(score, abs=tolerance), (table, name, group)
    assert metrics["parse_rate"] >= 0.99
    tier_1 = {row["name"]: row for row in metrics["tables"]["tier_1"]}
    assert tier_1["LLM"]["low"] > tier_1["LLM"]["chance"]
    assert tier_1["stage-1 head"]["score"] >= 0.85 * tier_1["oracle"]["score"] - 0.05
    assert (finished_run / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nbval_reproduces_the_committed_outputs(path, finished_run):
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=1200", "-q", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-4000:]
