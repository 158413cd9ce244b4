"""Parameters are refused before a kernel starts; notebooks run in order; a failure is one paragraph."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from toy_project import write_notebook

import e2llm
from e2llm.app import sweeps
from e2llm.app.cli import main
from e2llm.app.locks import RunBusy
from e2llm.app.parameters import FIELDS
from e2llm.app.pipeline import (
    PipelineError,
    declared_parameters,
    find_notebooks,
    load_profile,
    parse_assignments,
    profile_path,
    run_name,
    run_pipeline,
    validate,
)
from e2llm.app.runs import Run
from e2llm.app.sweeps import sweep
from e2llm.core.files import check_name
from e2llm.data.simulation import TwinParams
from e2llm.data.sources.base import SourceError
from e2llm.models.catalogue import FetchError

FIRST = """\
run_name = "tiny"  # folder in runs/
save_steps = 2  # toys stand on the names of real parameters
encoder_lr: float = 1.0e-3
eegnet = False
data_root = "data/toy"
subjects = None
"""
SECOND = 'run_name = "tiny"\nseed = 0  # of everything drawn\nsave_steps = 2\n'
WORK = """\
from e2llm.app.runs import Run
stage = Run.open(run_name).stage("first", {"save_steps": save_steps, "lr": encoder_lr})
if not stage.done:
    stage.begin().path.joinpath("data.txt").write_text(str(save_steps))
    stage.finish({"save_steps": save_steps})
"""
EVALUATE = """\
import os
from e2llm.app.runs import Run
from e2llm.core.environment import is_interactive
run = Run.open(run_name)
stage = run.stage("second", {"seed": seed}, ("first",))
if not stage.done:
    stage.begin().finish()
cwd = os.path.basename(os.getcwd())
run.write_metrics({"accuracy": save_steps / 10 + seed / 100, "batch": not is_interactive(), "cwd": cwd})
"""


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    profiles = tmp_path / "notebooks" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "tiny.yaml").write_text("description: a toy\nsave_steps: 3\n")
    (profiles / "paper.yaml").write_text("encoder_lr: 1\n")
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


def test_names_of_declared_parameters_are_read_whatever_stands_behind_them(tmp_path):
    cell = "import os\nrun_name = os.getcwd()\nseed, fold = 1, [i for i in range(3)]\nlr: float = 1e-3\na = b = 2\n"
    assert declared_parameters(write_notebook(tmp_path / "01_a.ipynb",
                                              cell)) == {"run_name", "seed", "fold", "lr", "a", "b"}
    with pytest.raises(ValueError, match=r"01_a.ipynb, parameters cell: .* in line 2"):
        declared_parameters(write_notebook(tmp_path / "01_a.ipynb", "run_name = 'tiny'\nseed = = 1"))


def test_a_notebook_without_the_tag_is_named(tmp_path):
    path = write_notebook(tmp_path / "01_a.ipynb", "run_name = 'tiny'")
    path.write_text(path.read_text().replace('"parameters"', '"parameter"'))
    with pytest.raises(ValueError, match=r"01_a.ipynb has 0 cells tagged"):
        declared_parameters(path)


def test_profiles(project, tmp_path):
    assert load_profile("tiny") == {"save_steps": 3}
    (tmp_path / "mine.yaml").write_text("")
    assert load_profile(tmp_path / "mine.yaml") == {}
    with pytest.raises(ValueError, match=r"no profile 'tyni'.*Known profiles: paper, tiny"):
        load_profile("tyni")
    for content in ("[1]", "a: {b: 1}", "a: [1"):
        (tmp_path / "mine.yaml").write_text(content)
        with pytest.raises(ValueError, match=r"mine.yaml"):
            load_profile(tmp_path / "mine.yaml")


def test_assignments_are_yaml_and_text_parameters_stay_text():
    given = parse_assignments(["seed=3", "encoder_lr=1.0e-3", "eegnet=true", "data_root=a=b", "size_seeds=[1, 2]",
                               "subjects=", "other=1"])
    assert given == {"seed": 3, "encoder_lr": 0.001, "eegnet": True, "data_root": "a=b", "size_seeds": [1, 2],
                     "subjects": None, "other": 1}
    text = {"data_root=01": "01", "data_root='a b'": "a b", "source_options=labels=1": "labels=1",
            "sizes=[1.0, base]": ["1.0", "base"]}
    for written, value in text.items():
        assert parse_assignments([written]) == {written.partition("=")[0]: value}
    for wrong in ("epochs", "=3", "a b=1", "a=[1"):
        with pytest.raises(ValueError, match=r"write key=value|is not YAML"):
            parse_assignments([wrong])


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if isinstance(field.default, str)])
def test_nothing_given_for_a_text_is_empty_text_on_the_command_line_and_in_a_profile(tmp_path, name):
    (tmp_path / "mine.yaml").write_text(f"{name}:\n")
    assert parse_assignments([f"{name}="]) == load_profile(tmp_path / "mine.yaml") == {name: ""}


def test_texts_of_a_profile_stay_text(tmp_path):
    (tmp_path / "mine.yaml").write_text("data_root: 0012\nsizes: [base, 7]\nencoder_weights: ~\nseed: 7\n")
    assert load_profile(tmp_path / "mine.yaml") == {"data_root": "0012", "sizes": ["base", "7"], "encoder_weights": "",
                                                    "seed": 7}
    (tmp_path / "mine.yaml").write_bytes("data_root: Zürich\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine.yaml is not YAML in UTF-8"):
        load_profile(tmp_path / "mine.yaml")


def test_values_given_by_hand_win_and_each_notebook_gets_what_it_declares(project):
    first, second = find_notebooks()
    wanted = validate({"save_steps": 3, "encoder_lr": 1}, {"save_steps": 4, "data_root": "SEED-VII"}, [first, second])
    assert wanted[second] == {"seed": 0, "save_steps": 4}
    assert wanted[first] == {"save_steps": 4, "encoder_lr": 1.0, "eegnet": False, "data_root": "SEED-VII",
                             "subjects": None}
    assert isinstance(wanted[first]["encoder_lr"], float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"save_stps": 3}, "There is no parameter 'save_stps': did you mean save_steps"),
        ({"zzz": 3}, "'zzz': e2llm run --help"),
        ({"encoder_lr": "1e-3"}, "encoder_lr = '1e-3' must be a number. .*write 1.0e-3"),
        ({"save_steps": 2.5}, "save_steps = 2.5 must be a whole number"),
        ({"seed": -1}, "seed = -1 must be greater than or equal to 0"),
        ({"run_name": "x"}, "--name"),
        ({"test_items": 3}, r"test_items is a parameter of none of the lessons that would run \(01_preprocessing, "
                            r"05_evaluation\)"),
    ],
)
def test_wrong_parameters_are_refused_before_a_kernel_starts(project, no_kernels, values, message):
    with pytest.raises(ValueError, match=message):
        run_pipeline("tiny", values)
    assert not (project / "runs").exists()


def test_a_profile_may_hold_parameters_of_lessons_that_do_not_run(project):
    notebooks = find_notebooks()
    assert validate({"test_items": 3}, {}, notebooks) == validate({}, {}, notebooks)
    with pytest.raises(ValueError, match="There is no parameter 'tst_items'"):
        validate({"tst_items": 3}, {}, notebooks)


def test_a_notebook_with_a_parameter_that_nobody_knows_or_without_a_run_name_is_refused(project):
    notebooks = find_notebooks()
    write_notebook(notebooks[1], SECOND + "sed = 1\n")
    with pytest.raises(ValueError,
                       match=r"05_evaluation.ipynb, parameters cell: There is no parameter 'sed': did you mean seed"):
        validate({}, {}, notebooks)
    write_notebook(notebooks[1], "seed = 0")
    with pytest.raises(ValueError, match=r"05_evaluation.ipynb does not declare the parameter run_name"):
        validate({}, {}, notebooks)


@pytest.mark.parametrize("line",
                         ["save_steps = 9", 'save_steps = "many"', "save_steps = 3 * 3", 'run_name = "lab"', "seed = 7",
                          "encoder_lr = None"])
def test_a_lesson_edited_in_jupyter_does_not_change_the_command(project, line):
    """The same command, before and after somebody has changed a lesson's parameters and JupyterLab has saved them."""
    run = run_pipeline("tiny")
    before = [(run.path / file).read_bytes() for file in ("metrics.json", "params.yaml", "first/stage.json")]
    for path in find_notebooks():
        name, notebook = line.partition(" =")[0], nbformat.read(path, 4)
        lines = notebook.cells[0].source.splitlines()
        notebook.cells[0].source = "\n".join(line if old.startswith((f"{name} ", f"{name}:")) else old for old in lines)
        nbformat.write(notebook, path)
    assert any(line in path.read_text() or line.replace('"', '\\"') in path.read_text() for path in find_notebooks())
    again = run_pipeline("tiny")
    assert again.path == run.path and [path.name for path in (project / "runs").iterdir()] == ["tiny"]
    assert [(run.path / file).read_bytes() for file in ("metrics.json", "params.yaml", "first/stage.json")] == before


def test_a_twin_that_is_there_already_is_not_taken_for_another(project, no_kernels):
    path = write_notebook(project / "notebooks" / "01_preprocessing.ipynb",
                          FIRST + 'twin_preset = "teaching"\ntwin_subjects = 20\n')
    (project / "data" / "toy").mkdir(parents=True)
    toy = {"data_root": "data/toy"}
    with pytest.raises(ValueError, match=r"twin_subjects given, but .*toy is there already and is no finished twin"):
        validate(toy, {"twin_subjects": 3}, [path])
    (project / "data" / "toy-truth").mkdir()
    (project / "data" / "toy-truth" / "twin.yaml").write_text(yaml.safe_dump(vars(TwinParams(subjects=3,
                                                                                             seconds=[8, 9]))))
    assert validate(toy, {"twin_subjects": 3}, [path])[path]["twin_subjects"] == 3
    assert validate(toy, {}, [path]) and validate(toy, {"twin_preset": ""}, [path])
    for name, value in {"twin_subjects": 4, "twin_preset": "realistic"}.items():
        with pytest.raises(ValueError, match=f"{name} = {value!r}, but the twin that is in .*toy already has"):
            validate(toy, {name: value}, [path])
    assert validate({}, {"twin_subjects": 4, "data_root": "data/other"}, [path])


@pytest.mark.parametrize(("name", "other"), [("null_subjects", 12), ("null_seed", 7)])
def test_a_twin_without_emotion_that_is_there_already_is_not_taken_for_another(project, no_kernels, name, other):
    path = write_notebook(project / "notebooks" / "06_believable_scores.ipynb",
                          'run_name = "tiny"\nnull_root = ""\nnull_subjects = 9\nnull_seed = 7\n')
    there = {"null_root": "data/null"}
    assert validate(there, {name: other}, [path])
    (project / "data" / "null").mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"{name} given, but .*null is there .*: leave them out, or give .* null_"):
        validate(there, {name: other}, [path])
    (project / "data" / "null-truth").mkdir()
    made = TwinParams(subjects=9, seed=2027, preset="no_emotion", seconds=[8, 9])
    (project / "data" / "null-truth" / "twin.yaml").write_text(yaml.safe_dump(vars(made)))
    assert validate(there, {"null_subjects": 9, "null_seed": 2027}, [path]) and validate(there, {}, [path])
    with pytest.raises(ValueError, match=rf"{name} = {other}, but the twin that is in .*null already has"):
        validate(there, {name: other}, [path])


def test_the_pipeline_runs_resumes_and_reports(project, capfd):
    assert main(["run", "-p", "seed=5", "--name", "trial"]) == 0
    folder = project / "runs" / "trial"
    assert json.loads((folder / "metrics.json").read_text()) == {"accuracy": 0.35, "batch": True, "cwd": "notebooks"}
    assert yaml.safe_load((folder / "params.yaml").read_text()) == {
        "data_root": "data/twin", "eegnet": False, "encoder_lr": 0.006, "save_steps": 3, "seed": 5, "subjects": None,
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


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_the_next_kernel_waits_with_its_imports_done_and_no_kernel_stays(project):
    """The first lesson waits until the kernel of the second one has loaded what that lesson imports."""
    sign = project / "loaded"
    (project / "notebooks" / "slow.py").write_text(f"open({str(sign)!r}, 'w').close()\n")
    wait = f"import os, time\nend = time.monotonic() + 60\nwhile not os.path.exists({str(sign)!r}):\n" \
           "    assert time.monotonic() < end\n    time.sleep(0.05)"
    paths = [write_notebook(project / "notebooks" / "01_preprocessing.ipynb", FIRST, wait),
             write_notebook(project / "notebooks" / "05_evaluation.ipynb", SECOND,
                            "import sys\nassert 'slow' in sys.modules and 'os' not in globals()\nimport os, slow")]
    before = children()
    run_pipeline("tiny", notebooks=paths)
    assert children() <= before


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_pipeline_leaves_no_kernel(project, stop):
    """Neither the working kernel nor the one that waits outlives the process, however it ends."""
    sign = project / "works"
    write_notebook(project / "notebooks" / "01_preprocessing.ipynb", FIRST,
                   f"open({str(sign)!r}, 'w').close()\nimport time; time.sleep(120)")
    # A shell lets its background jobs ignore SIGINT, and their children would inherit that.
    process = subprocess.Popen([sys.executable, "-m", "e2llm", "run"], stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    end = time.monotonic() + 60
    while not sign.exists() and time.monotonic() < end:
        time.sleep(0.1)
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert len(kernels) >= 2
    process.send_signal(stop)
    message = process.communicate(timeout=60)[1]
    assert psutil.wait_procs(kernels, timeout=30)[1] == []
    assert stop == signal.SIGKILL or "The same command continues" in message


def test_a_failing_cell_gives_one_paragraph(project, capfd):
    failing = "print('so far')\n", "raise ValueError('the cap\\nhas no Cz')"
    write_notebook(project / "notebooks" / "05_evaluation.ipynb", SECOND, *failing)
    assert main(["run"]) == 1
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("e2llm: The notebook 05_evaluation.ipynb failed: cell [")
    assert "ValueError: the cap has no Cz" in message
    partly = project / "runs" / "tiny" / "notebooks" / "05_evaluation.ipynb"
    assert str(partly) in message and "so far" in partly.read_text()
    assert (project / "runs" / "tiny" / "first" / "stage.json").exists()


def test_a_kernel_that_is_unknown_or_does_not_start_fails_its_notebook(project, capfd, monkeypatch):
    path = project / "notebooks" / "05_evaluation.ipynb"
    write_notebook(path, SECOND, EVALUATE)
    whole = path.read_text()
    path.write_text(whole.replace('"name": "python3"', '"name": "conda-env-lab"'))
    assert main(["run"]) == 1
    assert "05_evaluation.ipynb asks for the kernel 'conda-env-lab', which is not installed" in capfd.readouterr().err
    path.write_text(whole)

    def silent(*_, **__):
        raise RuntimeError("Kernel didn't respond in 600 seconds")

    monkeypatch.setattr("papermill.execute_notebook", silent)
    assert main(["run"]) == 1
    assert "its kernel did not start (Kernel didn't respond in 600 seconds)" in capfd.readouterr().err
    assert main(["sweep", "-g", "seed=0,1", "--name", "trial"]) == 1
    table = pd.read_csv(project / "runs" / "trial-sweep.csv")
    assert len(table) == 2 and table["error"].str.contains("did not start").all()


def test_a_lesson_gets_several_values_as_several_values(project):
    path = write_notebook(project / "notebooks" / "08_scaling.ipynb",
                          'run_name = "tiny"\nsizes = ("a",)\nsize_seeds = (5,)\nsave_steps = 2\n',
                          "assert list(sizes) == ['base', 'scratch-600k'] and list(size_seeds) == [0, 7]")
    run_pipeline("tiny", {"size_seeds": [0, 7]}, notebooks=[path])


def test_a_cell_without_end_is_stopped(project):
    path = write_notebook(project / "notebooks" / "01_preprocessing.ipynb", FIRST, "import time; time.sleep(60)")
    with pytest.raises(PipelineError, match=r"01_preprocessing.ipynb failed: a cell ran for longer than 2 s"):
        run_pipeline("tiny", notebooks=[path], cell_timeout=2)


def test_a_dead_kernel_is_reported(project):
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
        with pytest.raises((KeyboardInterrupt, PipelineError)):
            run_pipeline("tiny", {"seed": 2}, "trial")
        assert {name: (folder / name).read_bytes() for name in RESULTS} == before
    stops.append("")
    run_pipeline("tiny", {"seed": 2}, "trial")
    assert json.loads((folder / "metrics.json").read_text()) == {"seed": 2}
    assert yaml.safe_load((folder / "params.yaml").read_text())["seed"] == 2


@pytest.mark.parametrize("said", ["raise OSError(28, 'No space left on device')",
                                  "raise OSError('3563520 requested and 1675232 written')",
                                  "raise RuntimeError('unexpected pos 314112 vs 314004')"])
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(project, said, capfd):
    """What numpy, torch and the system say of it is told in the same words; then there is room."""
    path = write_notebook(project / "notebooks" / "05_evaluation.ipynb", SECOND, said)
    assert main(["run"]) == 1
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert "05_evaluation.ipynb stopped: there is too little room on the disk of " in message
    write_notebook(path, SECOND, EVALUATE)
    assert main(["run"]) == 0


def test_a_run_asks_for_room_before_any_kernel_starts(project, no_kernels, monkeypatch, capsys):
    monkeypatch.setattr("e2llm.core.space.free_bytes", lambda _: 255 << 20)
    assert main(["run", "--name", "trial"]) == 2
    assert "267 MB free, the run 'trial' needs 268 MB): make room" in capsys.readouterr().err


@pytest.mark.parametrize(("values", "fact"), [
    ({"language_model": "./nowhere"}, "./nowhere is no folder"),
    ({"language_model": "nowhere.gguf"}, "nowhere.gguf is missing"),
    ({"encoder_weights": "weights/none.ckpt"}, "encoder_weights = 'weights/none.ckpt': .*none.ckpt is missing"),
    ({"device": "cuda:4321"}, r"device = 'cuda:4321'(,| is not there).*(take device = 'auto' or 'cpu'|finds cuda:0)"),
    ({"dtype": "4bit"}, "dtype = '4bit' needs"),
    ({"start": "none.safetensors"}, "start = 'none.safetensors': .*none.safetensors is missing"),
    ({"sizes": ["base", "./nowhere"]}, "./nowhere is no folder"),
])
def test_a_model_that_is_not_there_is_refused_before_any_kernel_starts(project, no_kernels, values, fact):
    (name,) = values
    write_notebook(project / "notebooks" / "05_evaluation.ipynb", f"{SECOND}{name} = 0\n")
    with pytest.raises(ValueError, match=fact):
        run_pipeline("tiny", values)
    assert not (project / "runs").exists()


@pytest.mark.parametrize(("labels", "options", "fact"), [
    (None, "", r"labels\.csv is missing: write a table"),
    ("file,subject,session,label\na.csv,1,1,rest\nb.csv,2,1,task\n", "", r"a\.csv does not say the unit"),
    ("file,subject,session,label\na.csv,1,1,rest\nb.csv,2,1,task\n", "unit=uV", "a.csv says no sampling rate"),
    ("file,subject,session,label\na.csv,1,1,rest\nb.csv,2,1,task\n", "unit=uV rate=128", "has no option rate"),
])
def test_recordings_that_are_not_understood_are_refused_before_any_kernel_starts(project, no_kernels, labels, options,
                                                                                 fact):
    cell = 'run_name = ""\nsave_steps = 2\nsource = ""\nsource_options = ""\ndata_root = ""\ntwin_preset = ""\n'
    write_notebook(project / "notebooks" / "01_preprocessing.ipynb", cell)
    (project / "mine").mkdir()
    for name in "ab":
        (project / "mine" / f"{name}.csv").write_text("Fp1,Fp2\n1,2\n3,4\n")
    if labels:
        (project / "mine" / "labels.csv").write_text(labels)
    values = {"source": "folder", "data_root": "mine", "twin_preset": "", "source_options": options}
    with pytest.raises(SourceError, match=fact):
        run_pipeline("tiny", values)
    assert not (project / "runs").exists()


# A lesson with two workers that write without end, as a training does beside its kernel.
WORKERS = """
import os, time
from joblib import Parallel, delayed
from e2llm.core.files import project_root
def write(name):  # of no module: a worker that does not import this package
    import os, time
    while True:
        with open(name, "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(0.05)
(project_root() / "kernel").write_text(str(os.getpid()))
Parallel(2)(delayed(write)(str(project_root() / f"worker{i}")) for i in range(2))
"""


@pytest.mark.parametrize("whole_group", [False, True])
def test_kernel_and_workers_end_with_a_command_that_is_killed(project, whole_group):
    evaluation = project / "notebooks" / "05_evaluation.ipynb"
    write_notebook(evaluation, SECOND, WORKERS)
    command = subprocess.Popen([sys.executable, "-m", "e2llm", "run"], start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    notes = [project / name for name in ("kernel", "worker0", "worker1")]
    while not all(note.is_file() and note.read_text().strip() for note in notes):
        assert command.poll() is None
        time.sleep(0.1)
    found = [psutil.Process(int(note.read_text().split()[0])) for note in notes]
    os.killpg(command.pid, signal.SIGKILL) if whole_group else command.kill()
    command.wait(10)
    assert psutil.wait_procs(found, timeout=10)[1] == []
    write_notebook(evaluation, SECOND, EVALUATE)
    run = run_pipeline("tiny")  # nobody holds the run, and nobody writes
    assert json.loads((run.path / "metrics.json").read_text())["accuracy"] == 0.3


def test_two_pipelines_on_one_run_are_refused_before_a_kernel_starts(project, monkeypatch):
    started = []

    def execute(_, target, parameters, **__):
        started.append(target.name)
        script = "from e2llm.app.pipeline import run_pipeline; run_pipeline('tiny', name='trial')"
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        message = f"RunBusy: The run 'trial' ({project / 'runs' / 'trial'}) is in use by process {os.getpid()}"
        assert message in second.stderr

    monkeypatch.setattr("papermill.execute_notebook", execute)
    run = run_pipeline("tiny", name="trial")
    assert len(started) == 2 and not list((run.path / "notebooks").iterdir())


@pytest.fixture
def fake_execution(monkeypatch):
    """Papermill replaced by what the second notebook writes: a sweep is about names and tables, not kernels."""

    def execute(_, target, parameters, **__):
        from e2llm.app.runs import Run

        if target.name.startswith("05"):
            if parameters["seed"] == 13:
                from papermill.exceptions import PapermillExecutionError

                raise PapermillExecutionError(0, 1, "", "RuntimeError", "bad luck", [])
            accuracy = parameters["save_steps"] / 10 + parameters["seed"] / 100
            Run.open(parameters["run_name"]).write_metrics({"all": {"accuracy": accuracy}, "tables": {}})

    monkeypatch.setattr("papermill.execute_notebook", execute)


def test_a_sweep_averages_over_seeds_only(project, fake_execution):
    table = sweep("tiny", {"save_steps": [1, 2], "seed": [0, 2]})
    assert list(table["run"][:4]) == [f"tiny-save_steps{e}-seed{s}" for e in (1, 2) for s in (0, 2)]
    mean, sd = table[table["run"] == "mean"], table[table["run"] == "sd"]
    assert list(mean["save_steps"]) == [1, 2] and list(mean["all.accuracy"]) == pytest.approx([0.11, 0.21])
    assert list(sd["all.accuracy"]) == pytest.approx([0.02 / 2**0.5] * 2)
    assert len(pd.read_csv(project / "runs" / "tiny-sweep.csv")) == 8


def test_a_sweep_over_folds_pools_their_people(project, fake_execution, monkeypatch):
    def with_answers(_, target, parameters, **__):
        from e2llm.app.runs import Run

        if target.name.startswith("02"):
            fold, run = parameters["fold"], Run.open(parameters["run_name"])
            run.write_metrics({"fold": fold})
            answers = pd.DataFrame({"subject": [f"{fold}a", f"{fold}b"] * 2, "clip": [1, 1, 2, 2], "window": 0,
                                    "label": ["x", "x", "y", "y"], "LLM": ["x", "x", "y", "x" if fold else "y"]})
            if parameters["seed"]:
                answers["LLM, from the thought"] = ["x", "y", "y", "x" if fold else "y"]
            run.write_predictions(answers.assign(**{"p(x)": 0.5, "p(y)": 0.5}))

    write_notebook(project / "notebooks" / "02_folds.ipynb",
                   'run_name = "tiny"  # run\nfold = 0  # fold\nseed = 0  # seed')
    monkeypatch.setattr("papermill.execute_notebook", with_answers)
    sweep("tiny", {"fold": [0, 1]}, "folds")
    table = pd.read_csv(project / "runs" / "folds-pooled.csv").set_index("name")
    assert table.loc["LLM", "score"] == pytest.approx(0.5 * (1 + 3 / 4))
    assert table.loc["LLM", "subjects"] == 4 and table.loc["LLM", "folds"] == 2 and table.loc["LLM", "chance"] == 0.5
    assert not (project / "runs" / "folds-price.csv").exists(), "nothing was answered from the thought"
    sweep("tiny", {"fold": [0, 1], "seed": [0, 1]}, "both")
    price = pd.read_csv(project / "runs" / "both-price.csv")
    assert price["seed"].tolist() == [1] and price["folds"].tolist() == [2]
    assert price["difference"].tolist() == pytest.approx([-0.25])

    def without_fold_1(_, target, parameters, **__):
        if parameters.get("fold"):
            raise OSError("disk full")

    monkeypatch.setattr("papermill.execute_notebook", without_fold_1)
    sweep("tiny", {"fold": [0, 1]}, "folds")
    assert not (project / "runs" / "folds-pooled.csv").exists(), "that of the earlier sweep is not this one's"


def test_a_sweep_over_three_seeds_gives_their_spread(project, monkeypatch):
    def with_scores(_, target, parameters, **__):
        from e2llm.app.runs import Run

        if target.name.startswith("05"):
            row = {"name": "LLM", "group": "EEG", "score": 0.5 + parameters["seed"] / 10, "low": 0.4, "high": 0.9,
                   "chance": 0.2, "n": 10}
            tables = {"tier_1": [row],
                      "tiers_2_and_3": [{**row, "name": "rank"},
                                        {**row, "name": "rank", "group": "no EEG", "score": 0.0}]}
            Run.open(parameters["run_name"]).write_metrics({"tables": tables})

    monkeypatch.setattr("papermill.execute_notebook", with_scores)
    sweep("tiny", {"seed": [0, 1, 2]}, "three")
    table = pd.read_csv(project / "runs" / "three-seeds.csv").set_index(["tier", "name"])
    assert list(table.index) == [("1", "LLM"), ("2 and 3", "rank")]
    row = table.loc[("1", "LLM")]
    assert (row["mean"], row["sd"], row["min"], row["max"], row["seeds"]) == pytest.approx((0.6, 0.1, 0.5, 0.7, 3))
    sweep("tiny", {"seed": [0, 1]}, "two")
    assert not (project / "runs" / "two-seeds.csv").exists()
    sweep("tiny", {"seed": [0, 1]}, "three")
    assert not (project / "runs" / "three-seeds.csv").exists(), "that of the earlier sweep is not this one's"


def test_a_failed_run_does_not_stop_a_sweep(project, fake_execution, capsys):
    assert main(["sweep", "-g", "seed=0,13,2", "--name", "trial"]) == 1
    table = pd.read_csv(project / "runs" / "trial-sweep.csv").set_index("run")
    assert "bad luck" in table.loc["trial-seed13", "error"]
    assert table.loc["mean", "all.accuracy"] == pytest.approx(0.31)
    assert "trial-seed2" in capsys.readouterr().out


@pytest.mark.parametrize("error", [SourceError("no such folder"), FetchError("no such model"), OSError("disk full")])
def test_a_run_that_cannot_start_does_not_stop_a_sweep(project, fake_execution, monkeypatch, error):
    make = sweeps.run_pipeline

    def start(profile, parameters, *rest, **named):
        if parameters["seed"] == 1:
            raise error
        return make(profile, parameters, *rest, **named)

    monkeypatch.setattr(sweeps, "run_pipeline", start)
    table = sweep("tiny", {"seed": [0, 1, 2]}, "trial").set_index("run")
    assert table.loc["trial-seed1", "error"] == str(error) and not pd.isna(table.loc["trial-seed2", "all.accuracy"])


def test_a_sweep_is_checked_as_a_whole_before_it_starts(project, no_kernels):
    with pytest.raises(ValueError, match="save_steps = 'many'"):
        sweep("tiny", {"save_steps": [1, "many"]})
    with pytest.raises(ValueError, match="give each value once"):
        sweep("tiny", {"seed": [0, 0]})
    with pytest.raises(ValueError, match="at least one value"):
        sweep("tiny", {"seed": []})
    with pytest.raises(ValueError, match="cannot name a run"):
        sweep("tiny", {"seed": [1]}, "a/b")


def test_sweeps_with_other_parameters_have_other_runs_and_tables(project, fake_execution):
    first, other = sweep("tiny", {"seed": [0, 1]}), sweep("tiny", {"seed": [0, 1]}, overrides={"save_steps": 5})
    assert list(first["run"][:2]) == ["tiny-seed0", "tiny-seed1"]
    assert list(other["run"][:2]) == ["tiny-save_steps5-seed0", "tiny-save_steps5-seed1"]
    assert {path.name for path in (project / "runs").glob("*.csv")} == {"tiny-sweep.csv", "tiny-save_steps5-sweep.csv"}
    named = sweep("tiny", {"data_root": ["a b", "a_b"]}, "mine", {"save_steps": 5})
    assert named["run"][1] == "mine-data_roota_b" and named["run"][0].startswith("mine-data_roota_b-")


@pytest.mark.parametrize(
    ("profile", "overrides", "name"),
    [
        ("tiny", {}, "tiny"),
        ("tiny", {"seed": 1, "fold": 1}, "tiny-seed1-fold1"),
        ("seed-vii-raw", {"eegnet": True, "encoder_lr": 1e-5}, "seed-vii-raw-eegnetTrue-encoder_lr1e-05"),
        ("tiny", {"language_model": "smollm2-135m", "protocol": "within_subject"},
         "tiny-language_modelsmollm2-135m-protocolwithin_subject"),
        ("notebooks/profiles/tiny.yaml", {"twin_preset": ""}, "tiny-twin_preset"),
    ],
)
def test_simple_runs_have_readable_names(project, profile, overrides, name):
    assert run_name(profile, overrides) == name


TEXTS = st.text(max_size=60) | st.text("ab-_./ 1A",
                                       max_size=6) | st.sampled_from(["a-seed1", "A", "a", "x" * 41, "x" * 42,
                                                                      "数据" * 30])
VALUES = {
    name: TEXTS if isinstance(field.default, str) else st.booleans() if isinstance(field.default, bool)
    else st.lists(st.integers(0, 9), max_size=3) if isinstance(field.default, tuple)
    else st.floats(0, 9) if isinstance(field.default, float) else st.integers(0, 12)
    for name, field in FIELDS.items()
}  # fmt: skip
FEW = ("seed", "data_root", "source", "source_options", "size_seeds", "encoder_lr")  # likely to meet each other
OVERRIDES = st.builds(
    dict, st.fixed_dictionaries({}, optional={name: VALUES[name] for name in FEW})
) | st.fixed_dictionaries({}, optional=VALUES)
PROFILES = st.sampled_from([
    "tiny", "paper", "notebooks/profiles/tiny.yaml", "notebooks/profiles/tiny.yml", "a/tiny.yaml", "b/tiny.yaml",
    "a/tiny.yml", "sub/tiny",
    "tiny-seed1", "v1.5", "v1.6", "a/数据.yaml", "b/_.yaml", "a/" + "long" * 40 + ".yaml",
])  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(first=st.tuples(PROFILES, OVERRIDES), second=st.tuples(PROFILES, OVERRIDES))
@example(first=("tiny", {"data_root": "a-seed1"}), second=("tiny", {"data_root": "a", "seed": 1}))
@example(first=("tiny-seed1", {}), second=("tiny", {"seed": 1}))
@example(first=("tiny", {"source": "_options1"}), second=("tiny", {"source_options": "1"}))
@example(first=("tiny", {"data_root": "x" * 41}), second=("tiny", {"data_root": "x" * 40}))
@example(first=("tiny", {"data_root": "Data"}), second=("tiny", {"data_root": "data"}))
@example(first=("tiny", dict.fromkeys(FIELDS, "x" * 40)),
         second=("tiny", {**dict.fromkeys(FIELDS, "x" * 40), "reconstructor": "y"}))
def test_two_runs_never_share_a_folder(project, first, second):
    names = [run_name(*first), run_name(*second)]
    for name in names:
        assert check_name(name) == name and len(name) < 120 and name[-1] not in "._-"
    files = [(profile_path(profile).resolve(), overrides) for profile, overrides in (first, second)]
    if files[0] != files[1]:
        assert names[0].lower() != names[1].lower()  # some file systems do not tell case


def test_a_value_that_looks_like_a_hash_is_not_taken_for_one(project):
    hashed = run_name("tiny", {"data_root": "a b"})
    assert hashed.startswith("tiny-data_roota_b-")
    assert run_name("tiny", {"data_root": hashed.removeprefix("tiny-data_root")}) != hashed


def test_a_name_does_not_depend_on_how_the_path_of_a_profile_is_written(project):
    (project / "a").mkdir()
    names = {run_name(path, {}) for path in ("a/tiny.yaml", project / "a" / "tiny.yaml", "a/../a/tiny.yaml")}
    assert len(names) == 1 and names.pop().startswith("tiny-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--profile", "tyni"], "Known profiles: paper, tiny"),
        (["run", "-p", "save_step=3"], "did you mean save_steps"),
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


@pytest.mark.parametrize("overrides", [
    {"data_root": "数据" * 20}, {"data_root": "研究/被试一/脑电图数据"}, {"data_root": "Zürich/Übung", "seed": 1},
    dict.fromkeys(["data_root", "source_options", "encoder_weights", "start", "language_model", "null_root"], "é" * 90),
    {"data_root": "/" + "/".join(["a" * 40] * 20)},
])
def test_a_run_on_data_with_any_name_has_a_folder_of_its_own(project, fake_execution, overrides, capsys):
    """Names of many letters, and letters that a terminal in cp1252 lacks."""
    name = run_name("tiny", overrides)
    (project / "runs" / name).mkdir(parents=True)
    assert Run.open(name).path.is_dir() and name.isascii() and len(name.encode()) < 120
    assert run_name("tiny", {**overrides, "data_root": f"{overrides['data_root']}x"}) != name


def test_what_a_terminal_cannot_print_does_not_end_a_command(project):
    script = "import sys\nfrom e2llm.app.cli import main\nsys.exit(main(['report', 'x']))"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "E2LLM_RUNS": "运行"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert done.returncode == 2 and b"There is no run 'x' in " in done.stderr and b"\\u8fd0\\u884c" in done.stderr


def test_ctrl_c_says_how_to_continue(project, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", interrupt)
    assert main(["run"]) == 130
    assert "finished stages are skipped" in capsys.readouterr().err


def test_simulate_writes_what_was_asked_for(project, monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr("e2llm.data.simulation.simulate", lambda root, params,
                        n_jobs: asked.update(vars(params)) or root)
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
