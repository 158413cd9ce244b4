"""Parameters are refused before a kernel starts; notebooks run in order; failures are told in one paragraph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

import e2llm
from e2llm.__main__ import main
from e2llm.pipeline import (
    PipelineError,
    find_notebooks,
    load_profile,
    notebook_parameters,
    parse_assignments,
    run_pipeline,
    validate,
)
from e2llm.runs import Run, RunBusy
from e2llm.sweeps import sweep

FIRST = """\
run_name = "tiny"  # folder in runs/
epochs = 2  # passes over the data
lr: float = 1.0e-3  # learning rate
fast = False
data_root = None  # None: simulated
subjects = [1, -2]
"""
SECOND = 'run_name = "tiny"\nseed = 0  # of everything drawn\nepochs = 2\n'
WORK = """\
from e2llm.runs import Run
stage = Run.open(run_name).stage("first", {"epochs": epochs, "lr": lr})
if not stage.done:
    stage.begin().path.joinpath("data.txt").write_text(str(epochs))
    stage.finish({"epochs": epochs})
"""
EVALUATE = """\
import os
from e2llm.runs import Run, is_interactive
run = Run.open(run_name)
stage = run.stage("second", {"seed": seed}, ("first",))
if not stage.done:
    stage.begin().finish()
cwd = os.path.basename(os.getcwd())
run.write_metrics({"accuracy": epochs / 10 + seed / 100, "batch": not is_interactive(), "cwd": cwd})
"""


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[tagged, *map(nbformat.v4.new_code_cell, cells)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    profiles = tmp_path / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "tiny.yaml").write_text("description: a toy\nepochs: 3\n")
    (profiles / "paper.yaml").write_text("lr: 1\n")
    write_notebook(tmp_path / "notebooks" / "01_preprocessing.ipynb", FIRST, WORK)
    write_notebook(tmp_path / "notebooks" / "05_evaluation.ipynb", SECOND, EVALUATE)
    monkeypatch.delenv("E2LLM_RUNS", raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", "started-from-a-notebook.ipynb")
    package = str(Path(e2llm.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_kernels(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr("papermill.execute_notebook", refuse)


def test_parameters_are_read_with_their_help(project):
    found = notebook_parameters(project / "notebooks" / "01_preprocessing.ipynb")
    assert found["epochs"] == (2, "passes over the data") and found["lr"] == (0.001, "learning rate")
    assert found["subjects"].default == [1, -2] and found["fast"].help == ""


@pytest.mark.parametrize("line", ["a = 1 + b", "a = b = 1", "import os", "print(1)", "a: int", "a, b = 1, 2"])
def test_parameters_must_be_literals(tmp_path, line):
    path = write_notebook(tmp_path / "01_a.ipynb", f"run_name = 'tiny'\n{line}\n")
    with pytest.raises(ValueError, match=r"01_a.ipynb, parameters cell: .* is not 'name = literal'"):
        notebook_parameters(path)


def test_a_notebook_without_the_tag_is_named(tmp_path):
    path = write_notebook(tmp_path / "01_a.ipynb", "run_name = 'tiny'")
    path.write_text(path.read_text().replace('"parameters"', '"parameter"'))
    with pytest.raises(ValueError, match=r"01_a.ipynb has 0 cells tagged"):
        notebook_parameters(path)


def test_profiles(project, tmp_path):
    assert load_profile("tiny") == {"epochs": 3}
    (tmp_path / "mine.yaml").write_text("")
    assert load_profile(tmp_path / "mine.yaml") == {}
    with pytest.raises(ValueError, match=r"no profile 'tyni'.*Known profiles: paper, tiny"):
        load_profile("tyni")
    for content in ("[1]", "a: {b: 1}", "a: [1"):
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(ValueError, match=r"mine.yaml"):
            load_profile(tmp_path / "mine.yaml")


def test_assignments_are_yaml():
    given = parse_assignments(["epochs=3", "lr=1.0e-3", "fast=true", "data_root=a=b", "subjects=[1, 2]", "x="])
    assert given == {"epochs": 3, "lr": 0.001, "fast": True, "data_root": "a=b", "subjects": [1, 2], "x": None}
    for text in ("epochs", "=3", "a b=1", "a=[1"):
        with pytest.raises(ValueError, match=r"write key=value|is not YAML"):
            parse_assignments([text])


def test_values_given_by_hand_win_and_each_notebook_gets_what_it_declares(project):
    first, second = find_notebooks()
    wanted = validate({"epochs": 3, "lr": 1}, {"epochs": 4, "data_root": "SEED-VII"}, [first, second])
    assert wanted[second] == {"seed": 0, "epochs": 4}
    assert wanted[first] == {"epochs": 4, "lr": 1.0, "fast": False, "data_root": "SEED-VII", "subjects": [1, -2]}
    assert isinstance(wanted[first]["lr"], float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "No notebook declares the parameter 'epoch': did you mean epochs"),
        ({"zzz": 3}, "'zzz': known: data_root, epochs"),
        ({"lr": "1e-3"}, "lr = '1e-3' is str, but its default 0.001 is float. .*write 1.0e-3"),
        ({"epochs": 2.5}, "epochs = 2.5 is float, but its default 2 is int"),
        ({"epochs": True}, "is bool, but its default 2 is int"),
        ({"epochs": None}, "is nothing, but"),
        ({"fast": "false"}, "Write true or false"),
        ({"fast": 0}, "is int, but its default False is bool"),
        ({"subjects": 1}, "is int, but .* is list"),
        ({"run_name": "x"}, "--name"),
    ],
)
def test_wrong_parameters_are_refused_before_a_kernel_starts(project, no_kernels, values, message):
    with pytest.raises(ValueError, match=message):
        run_pipeline("tiny", values)
    assert not (project / "runs").exists()


def test_notebooks_must_agree_on_defaults_and_take_a_run_name(project):
    notebooks = find_notebooks()
    write_notebook(notebooks[1], SECOND.replace("epochs = 2", "epochs = 7"))
    with pytest.raises(ValueError, match=r"epochs defaults to 2 in 01_preprocessing.ipynb but 7 in 05_evaluation.ipynb"):
        validate({}, {}, notebooks)
    write_notebook(notebooks[1], "seed = 0")
    with pytest.raises(ValueError, match=r"05_evaluation.ipynb does not declare the parameter run_name"):
        validate({}, {}, notebooks)


def test_the_pipeline_runs_resumes_and_reports(project, capfd):
    assert main(["run", "-p", "seed=5", "--name", "trial"]) == 0
    folder = project / "runs" / "trial"
    assert json.loads((folder / "metrics.json").read_text()) == {"accuracy": 0.35, "batch": True, "cwd": "notebooks"}
    assert yaml.safe_load((folder / "params.yaml").read_text()) == {
        "data_root": None, "epochs": 3, "fast": False, "lr": 0.001, "seed": 5, "subjects": [1, -2],
    }  # fmt: skip
    assert list(json.loads((folder / "manifest.json").read_text())["stages"]) == ["first", "second"]
    executed = nbformat.read(folder / "notebooks" / "05_evaluation.ipynb", 4)
    assert 'run_name = "trial"' in executed.cells[1].source
    assert (folder / "report.html").exists() and "report.html" in capfd.readouterr().out
    assert "JPY_SESSION_NAME" in os.environ and "E2LLM_BATCH" not in os.environ

    made = (folder / "first" / "stage.json").read_bytes()
    run_pipeline("tiny", {"seed": 6}, "trial")
    assert (folder / "first" / "stage.json").read_bytes() == made
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == pytest.approx(0.36)


def test_a_failing_cell_is_told_in_one_paragraph(project, capfd):
    failing = "print('so far')\n", "raise ValueError('the cap\\nhas no Cz')"
    write_notebook(project / "notebooks" / "05_evaluation.ipynb", SECOND, *failing)
    assert main(["run"]) == 1
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("e2llm: The notebook 05_evaluation.ipynb failed: cell [")
    assert "ValueError: the cap has no Cz" in message
    partly = project / "runs" / "tiny" / "notebooks" / "05_evaluation.ipynb"
    assert str(partly) in message and "so far" in partly.read_text()
    assert (project / "runs" / "tiny" / "first" / "stage.json").exists()


def test_a_cell_without_end_is_stopped(project):
    path = write_notebook(project / "notebooks" / "01_preprocessing.ipynb", FIRST, "import time; time.sleep(60)")
    with pytest.raises(PipelineError, match=r"01_preprocessing.ipynb failed: a cell ran for longer than 2 s"):
        run_pipeline("tiny", notebooks=[path], cell_timeout=2)


def test_a_dead_kernel_is_told(project):
    path = write_notebook(project / "notebooks" / "01_preprocessing.ipynb", FIRST, "import os; os._exit(1)")
    with pytest.raises(PipelineError, match="its kernel died"):
        run_pipeline("tiny", notebooks=[path])


def test_the_command_says_who_is_at_work(project, monkeypatch, capsys):
    def refuse(*_, **__):
        raise RunBusy("The run 'tiny' is in use by process 7.")

    monkeypatch.setattr("papermill.execute_notebook", refuse)
    assert main(["run"]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == "e2llm: The run 'tiny' is in use by process 7."


RESULTS = ("metrics.json", "predictions.csv", "report.html", "params.yaml")


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError("No space left on device")])
def test_results_of_a_finished_run_stay_until_the_new_ones_are_whole(project, monkeypatch, fault):
    """A run that is stopped, or ends for a full disk, in its first lesson or its last, has taken nothing away."""
    stops = [""]

    def execute(_, target, parameters, **__):
        run = Run.open(parameters["run_name"])
        if target.name == stops[-1]:
            raise fault
        if target.name.startswith("05"):
            run.write_predictions(pd.DataFrame({"seed": [parameters["seed"]]}))
            run.write_metrics({"seed": parameters["seed"]})

    monkeypatch.setattr("papermill.execute_notebook", execute)
    folder = run_pipeline("tiny", {"seed": 1}, "trial").path
    before = {name: (folder / name).read_bytes() for name in RESULTS}
    for stop in ("01_preprocessing.ipynb", "05_evaluation.ipynb"):
        stops.append(stop)
        with pytest.raises((KeyboardInterrupt, OSError)):
            run_pipeline("tiny", {"seed": 2}, "trial")
        assert {name: (folder / name).read_bytes() for name in RESULTS} == before
    stops.append("")
    run_pipeline("tiny", {"seed": 2}, "trial")
    assert json.loads((folder / "metrics.json").read_text()) == {"seed": 2}
    assert yaml.safe_load((folder / "params.yaml").read_text())["seed"] == 2


def test_two_pipelines_on_one_run_are_refused_before_a_kernel_starts(project, monkeypatch):
    started = []

    def execute(_, target, parameters, **__):
        started.append(target.name)
        script = "from e2llm.pipeline import run_pipeline; run_pipeline('tiny', name='trial')"
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        told = f"RunBusy: The run 'trial' ({project / 'runs' / 'trial'}) is in use by process {os.getpid()}"
        assert told in second.stderr

    monkeypatch.setattr("papermill.execute_notebook", execute)
    run = run_pipeline("tiny", name="trial")
    assert len(started) == 2 and not list((run.path / "notebooks").iterdir())


@pytest.fixture
def fake_execution(monkeypatch):
    """Papermill replaced by what the second notebook writes: a sweep is about names and tables, not kernels."""

    def execute(_, target, parameters, **__):
        from e2llm.runs import Run

        if target.name.startswith("05"):
            if parameters["seed"] == 13:
                from papermill.exceptions import PapermillExecutionError

                raise PapermillExecutionError(0, 1, "", "RuntimeError", "bad luck", [])
            accuracy = parameters["epochs"] / 10 + parameters["seed"] / 100
            Run.open(parameters["run_name"]).write_metrics({"all": {"accuracy": accuracy}, "tables": {}})

    monkeypatch.setattr("papermill.execute_notebook", execute)


def test_a_sweep_averages_over_seeds_only(project, fake_execution):
    table = sweep("tiny", {"epochs": [1, 2], "seed": [0, 2]})
    assert list(table["run"][:4]) == [f"tiny-epochs{e}-seed{s}" for e in (1, 2) for s in (0, 2)]
    mean, sd = table[table["run"] == "mean"], table[table["run"] == "sd"]
    assert list(mean["epochs"]) == [1, 2] and list(mean["all.accuracy"]) == pytest.approx([0.11, 0.21])
    assert list(sd["all.accuracy"]) == pytest.approx([0.02 / 2**0.5] * 2)
    assert len(pd.read_csv(project / "runs" / "tiny-sweep.csv")) == 8


def test_a_sweep_over_folds_pools_their_people(project, fake_execution, monkeypatch):
    def with_answers(_, target, parameters, **__):
        from e2llm.runs import Run

        if target.name.startswith("02"):
            fold, run = parameters["fold"], Run.open(parameters["run_name"])
            run.write_metrics({"fold": fold})
            answers = pd.DataFrame({"subject": [f"{fold}a", f"{fold}b"] * 2, "clip": [1, 1, 2, 2], "window": 0,
                                    "label": ["x", "x", "y", "y"], "LLM": ["x", "x", "y", "x" if fold else "y"]})
            run.write_predictions(answers.assign(**{"p(x)": 0.5, "p(y)": 0.5}))

    write_notebook(project / "notebooks" / "02_folds.ipynb", 'run_name = "tiny"  # run\nfold = 0  # fold')
    monkeypatch.setattr("papermill.execute_notebook", with_answers)
    sweep("tiny", {"fold": [0, 1]}, "folds")
    table = pd.read_csv(project / "runs" / "folds-pooled.csv").set_index("name")
    assert table.loc["LLM", "score"] == pytest.approx(0.5 * (1 + 3 / 4))
    assert table.loc["LLM", "subjects"] == 4 and table.loc["LLM", "folds"] == 2 and table.loc["LLM", "chance"] == 0.5


def test_a_sweep_over_three_seeds_tells_their_spread(project, monkeypatch):
    def with_scores(_, target, parameters, **__):
        from e2llm.runs import Run

        if target.name.startswith("05"):
            row = {"name": "LLM", "group": "EEG", "score": 0.5 + parameters["seed"] / 10, "low": 0.4, "high": 0.9, "chance": 0.2, "n": 10}
            tables = {"tier_1": [row], "tiers_2_and_3": [{**row, "name": "rank"}, {**row, "name": "rank", "group": "no EEG", "score": 0.0}]}
            Run.open(parameters["run_name"]).write_metrics({"tables": tables})

    monkeypatch.setattr("papermill.execute_notebook", with_scores)
    sweep("tiny", {"seed": [0, 1, 2]}, "three")
    table = pd.read_csv(project / "runs" / "three-seeds.csv").set_index(["tier", "name"])
    assert list(table.index) == [("1", "LLM"), ("2 and 3", "rank")]
    row = table.loc[("1", "LLM")]
    assert (row["mean"], row["sd"], row["min"], row["max"], row["seeds"]) == pytest.approx((0.6, 0.1, 0.5, 0.7, 3))
    sweep("tiny", {"seed": [0, 1]}, "two")
    assert not (project / "runs" / "two-seeds.csv").exists()


def test_a_failed_run_does_not_stop_a_sweep(project, fake_execution, capsys):
    assert main(["sweep", "-g", "seed=0,13,2", "--name", "trial"]) == 1
    table = pd.read_csv(project / "runs" / "trial-sweep.csv").set_index("run")
    assert "bad luck" in table.loc["trial-seed13", "error"]
    assert table.loc["mean", "all.accuracy"] == pytest.approx(0.31)
    assert "trial-seed2" in capsys.readouterr().out


def test_a_sweep_is_checked_as_a_whole_before_it_starts(project, no_kernels):
    with pytest.raises(ValueError, match="epochs = 'many'"):
        sweep("tiny", {"epochs": [1, "many"]})
    with pytest.raises(ValueError, match="share a name"):
        sweep("tiny", {"data_root": ["a b", "a_b"]})
    with pytest.raises(ValueError, match="at least one value"):
        sweep("tiny", {"epochs": []})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--profile", "tyni"], "Known profiles: paper, tiny"),
        (["run", "-p", "epoch=3"], "did you mean epochs"),
        (["run", "--name", "a/b"], "cannot name a run"),
        (["report", "trial"], "There is no run 'trial'"),
        (["simulate", "notebooks"], "notebooks exists and is not a finished twin"),
        (["simulate", "twin", "--subjects", "0"], "A twin has one or more subjects"),
        (["simulate", "twin", "--preset", "magic"], "magic"),
    ],
)
def test_known_errors_are_one_paragraph(project, no_kernels, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("e2llm: ") and message in error and len(error.splitlines()) == 1
    assert not (project / "twin").exists()


def test_ctrl_c_says_how_to_go_on(project, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", interrupt)
    assert main(["run"]) == 130
    assert "stages that are finished are skipped" in capsys.readouterr().err


def test_simulate_writes_what_was_asked_for(project, monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr("e2llm.simulate.simulate", lambda root, params, n_jobs: asked.update(vars(params)) or root)
    assert main(["simulate", "twin", "--subjects", "2", "--seconds", "8", "9", "--no-drift-shortcut"]) == 0
    assert (asked["subjects"], asked["seconds"], asked["drift_shortcut"], asked["clips"]) == (2, [8, 9], False, 20)
    assert "twin-truth" in capsys.readouterr().out


def test_help_loads_nothing_heavy():
    script = """
import sys
from e2llm.__main__ import main
try:
    main(["--help"])
except SystemExit as stop:
    sys.exit(stop.code or bool({"torch", "mne", "pandas", "papermill"} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(e2llm.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True).returncode == 0
