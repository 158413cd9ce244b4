"""The lessons: really run, comparable, run again at the sizes of the profile ``smoke``, and reproducible in full."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
MAX_IGNORED = 2
TOLERANCE = 0.08  # of accuracies between machines
TOLERANCE_OF_ITEMS = 0.15  # of tiers 2 and 3: 300 items a kind; which skill a small model learns varies with rounding
SMOKE_MINUTES = 45  # of a slow machine
# Checks of a trained model or of many items and subjects, which the profile "smoke" does not have; every other check
# must hold there too.
NEEDS_TRAINING: dict[str, set[str]] = {
    "00": {"above chance", "without EEG at chance", "with shuffled EEG at chance",
           "the first answer is right, with at least three claims, all true", "without EEG it makes fewer true claims",
           "without EEG it is less sure"},
    "02": {"stage-# head above chance", "at or above the linear baseline", "their intervals overlap"},
    "03": {"half of the labels or more have their own word among the two nearest",
           "without EEG the interval contains chance"},
    "04": {"share of A among comparisons between # and # %"},
    "05": {"smallest corrected p above #", "LLM within # points of the stage-# head", "free text could be read"},
    "06": {"twin: clock #, knows the time", "twin without emotion: clock #, knows the time",
           "expected calibration error below # points", "shuffled EEG below # % for every model",
           "noise with matched spectrum below # % for every model",
           "controls that must fall are at chance, judged together",
           "EEG beats every permutation of the labels", "band power survives random phases",
           "without emotion, random windows score highest", "without emotion, unseen people and clips near chance",
           "without emotion, statistics of each session remove the signature"},
    "07": {"LLM: claims turned round change less than half of the answers", "flagged for its own window",
           "LLM: the unrelated sentence changes more answers than claims turned round",
           "LLM: the answer follows exchanged claims", "LLM, from the thought: the answer follows exchanged claims",
           "its probability falls", "answers foretold above chance",
           "flagged for more than half of the person's other windows", "claim precision after feedback is at least # %",
           "its difference is known within # points", "claim precision >= # %", "claim recall >= # %",
           "without the window's EEG precision is # points lower", "explanations read",
           "own explanations flagged less often than others'", "clear edits followed above chance",
           "clear edits turn the claim in # cases of #", "untouched claims not contradicted",
           "deletion falls faster than at random", "regions of the generator found by the head, for every emotion",
           "... by the language model, with one exception at most"},
    "08": {"every model is above chance with EEG", "without EEG every model is near chance",
           "wordings hardly matter to the base", "no agreement on shuffled EEG",
           "the base makes claims at least as true, to # points"},
    "09": {"hidden channels can be predicted from shown ones, in unseen people too",
           "what it learned of its own people is true for others"},
}
# Checks that print False where all is well.
FALSE_IS_RIGHT = {"flagged for its own window", "LLM: the answer follows exchanged claims"}

every_lesson = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def _code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _printed(notebook) -> str:
    return "\n".join(output.get("text", "") for cell in _code(notebook) for output in cell.outputs)


def _checks(notebook) -> dict[str, bool]:
    """What a lesson prints as ``some fact: True``; numbers in the fact are left out."""
    lines = re.findall(r"^(.+): (True|False)$", _printed(notebook), flags=re.M)
    return {re.sub(r"\d[\d.]*", "#", fact): value == "True" for fact, value in lines}


# --- as they are committed


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
    # The parameters cell is a list: a line each, as many as the lesson has.
    cells = [cell for cell in _code(notebook) if "parameters" not in cell.metadata.get("tags", [])]
    assert max(len(cell.source.splitlines()) for cell in cells) <= 20
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for part in ("**Promise.**", "*What you will be able to do:*", "## Check", "## Try it yourself"):
        assert part in prose


def test_outputs_hold_no_error_warning_path_or_progress_bar(notebook):
    for cell in _code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error"
            plain = str(output.get("data", {}).get("text/plain", ""))
            text = json.dumps({k: v for k, v in output.items() if k != "data"}) + plain
            assert not re.search(r"/(?:home|root|tmp|usr)/|site-packages|Warning|it/s\]", text), text[:300]


def test_a_lesson_shows_a_figure_and_stays_small(notebook):
    assert any("image/png" in output.get("data", {}) for cell in _code(notebook) for output in cell.outputs)
    assert len(nbformat.writes(notebook)) < 1_500_000


def test_every_check_holds(notebook):
    checks = _checks(notebook)
    assert checks
    assert {fact for fact, value in checks.items() if not value} <= FALSE_IS_RIGHT


# --- at the smallest sizes


def _environment(**changes: str) -> dict[str, str]:
    """The user's environment: without what ``conftest.py`` has set for workers that share the cores."""
    ours = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MPLBACKEND")
    kept = {key: value for key, value in os.environ.items() if key not in ours and not key.startswith("PYTEST_")}
    return kept | changes


def _state_of_the_project() -> str:
    """What git says of changed and new files, and the content of what is changed."""
    return "".join(subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
                   for words in (["status", "--porcelain"], ["diff", "--binary", "HEAD"]))


@pytest.fixture(scope="session")
def smoke_run(made_once) -> Path:
    """Folder of the executed lessons, all of them, at the sizes of the profile ``smoke``."""

    def make(folder: Path) -> None:
        one_thread = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        environment = _environment(E2LLM_RUNS=str(folder), E2LLM_BATCH="1", **one_thread)
        lessons = [word for path in NOTEBOOKS[6:] for word in ("--lesson", path.name[:2])]
        data = ["-p", f"data_root={folder / 'twin'}", "-p", f"null_root={folder / 'twin-null'}", "--name", "smoke"]
        tour, executed = NOTEBOOKS[0], folder / "smoke" / "notebooks" / NOTEBOOKS[0].name
        options = ["--cwd", tour.parent, "--no-progress-bar", "-p", "run_name", "smoke"]
        pipeline = ["e2llm", "run", "--profile", "smoke", *lessons, *data]
        before = _state_of_the_project()
        for command in (pipeline, ["papermill", tour, executed, *options]):
            done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True,
                                  env=environment, timeout=60 * SMOKE_MINUTES)
            assert done.returncode == 0, done.stderr[-3000:]
        assert _state_of_the_project() == before, "a run changed files of the project"

    return made_once("smoke", make) / "smoke" / "notebooks"


@every_lesson
def test_a_lesson_runs_through_and_its_checks_hold_at_the_smallest_sizes(path, smoke_run):
    committed, executed = (nbformat.read(one, as_version=4) for one in (path, smoke_run / path.name))
    of_model, found, expected = NEEDS_TRAINING.get(path.stem[:2], set()), _checks(executed), _checks(committed)
    assert of_model <= expected.keys(), "NEEDS_TRAINING names a check that the lesson does not have"
    assert found.keys() == expected.keys()
    wrong = {fact: value for fact, value in found.items() if value != expected[fact]}
    assert wrong.keys() <= of_model, f"these checks say otherwise than the committed lesson: {wrong}"


def test_the_smoke_run_changes_nothing_but_sizes(smoke_run):
    profile = yaml.safe_load((ROOT / "notebooks" / "profiles" / "smoke.yaml").read_text())
    places = {"description", "data_root", "null_root", "encoder_size"}
    assert all(isinstance(value, int | float) for name, value in profile.items() if name not in places)
    metrics = json.loads((smoke_run.parent / "metrics.json").read_text())
    committed = json.loads((ROOT / "tests" / "expected_tiny.json").read_text())
    for table, rows in committed["tables"].items():
        names = {(row["name"], row.get("group")) for row in metrics["tables"][table]}
        assert {(name, group) for name, group, _ in rows} <= names, table
    assert (smoke_run.parent / "report.html").is_file()


# --- in full: pytest -m full


@pytest.fixture(scope="session")
def finished_run(made_once) -> Path:
    """The default profile, really run by the command line of the README; once for all workers."""

    def make(_folder: Path) -> None:
        command = [sys.executable, "-m", "e2llm", "run", "--profile", "tiny"]
        before = _state_of_the_project()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=_environment(MPLBACKEND="Agg"))
        assert done.returncode == 0, done.stderr[-3000:]
        assert _state_of_the_project() == before, "the default run changed files of the project"

    made_once("default", make)
    return ROOT / "runs" / "tiny"


@pytest.mark.full
def test_the_default_run_gives_what_the_readme_shows(finished_run):
    metrics = json.loads((finished_run / "metrics.json").read_text())
    expected = json.loads((ROOT / "tests" / "expected_tiny.json").read_text())
    rows = {name: {(row["name"], row.get("group")): row for row in table} for name, table in metrics["tables"].items()}
    for table, scores in expected["tables"].items():
        for name, group, score in scores:
            tolerance = TOLERANCE_OF_ITEMS if table == "tiers_2_and_3" else TOLERANCE
            assert rows[table][name, group]["score"] == pytest.approx(score, abs=tolerance), (table, name, group)
    assert metrics["parse_rate"] >= 0.97
    tier_1 = {row["name"]: row for row in metrics["tables"]["tier_1"]}
    assert tier_1["LLM"]["low"] > tier_1["LLM"]["chance"]
    assert tier_1["stage-1 head"]["score"] >= 0.85 * tier_1["oracle"]["score"] - 0.05
    assert (finished_run / "report.html").is_file()


def _compare_with_committed_outputs(path: Path) -> None:
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=3600", "-q", "-n", "0"]
    # Cells are run in their order: pytest-randomly would shuffle them, xdist would spread them.
    options += ["-p", "no:randomly", "-p", "no:cacheprovider", "-o", "addopts="]
    command = [sys.executable, "-m", "pytest", *options, str(path)]
    # One thread: two lessons at a time have one core each.
    environment = _environment(MPLBACKEND="module://matplotlib_inline.backend_inline", OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-4000:]


# A class is what one worker takes. Lessons 07 to 09 make stages in one run, so they take turns.


@pytest.mark.full
@pytest.mark.usefixtures("finished_run")
class TestLessonsThatMakeStages:
    @pytest.mark.parametrize("path", NOTEBOOKS[7:], ids=lambda path: path.stem)
    def test_nbval_reproduces_the_committed_outputs(self, path):
        _compare_with_committed_outputs(path)


@pytest.mark.full
@pytest.mark.usefixtures("finished_run")
class TestOtherLessons:
    @pytest.mark.parametrize("path", NOTEBOOKS[:7], ids=lambda path: path.stem)
    def test_nbval_reproduces_the_committed_outputs(self, path):
        _compare_with_committed_outputs(path)
