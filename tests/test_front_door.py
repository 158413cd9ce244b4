"""What ``import e2llm`` promises: it is fast, completes names, has a help page, and the pipeline on that page runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import e2llm
from e2llm.core.claims import EvidenceNames

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
SUBMODULES = 4  # of e2llm that a lesson may import from, beside e2llm itself


def _cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_import_loads_no_large_library():
    command = [sys.executable, "-c", "import sys, e2llm; print(*sys.modules)"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "e2llm" in said and not {"torch", "mne", "numpy", "pandas"} & set(said)


# They load for seconds, and a lesson whose stage is finished needs none of them.
SLOW = ("torch._dynamo", "torch.distributed.tensor", "transformers", "peft", "sklearn", "seaborn", "scipy.stats")


def test_what_lessons_import_first_loads_no_slow_library():
    """Import cells of lessons 01 to 06, and the front door's names in them, in one fresh process."""
    code, found = ["import sys"], 0
    for path in LESSONS[1:7]:
        cell = ast.parse(next(cell for cell in _cells(path) if "import e2llm" in cell))
        code += [ast.unparse(node) for node in cell.body if isinstance(node, ast.Import | ast.ImportFrom)]
        code += [ast.unparse(node) for node in ast.walk(cell)
                 if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "e2llm"]
        found += 1
    code.append(f"print([name for name in {SLOW} if name in sys.modules], 'torch' in sys.modules)")
    command = [sys.executable, "-c", "\n".join(code)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert found == 6 and said == "[] True"


def test_every_name_completes_is_there_and_has_a_docstring():
    assert set(e2llm.__all__) <= set(dir(e2llm))
    for name in e2llm.__all__:
        assert inspect.getdoc(getattr(e2llm, name)), name
    assert not hasattr(e2llm, "no_such_name")


@pytest.mark.parametrize("use_jedi", [True, False])
def test_the_tab_key_completes_every_name_at_once(use_jedi):
    """JupyterLab waits a second for names; to load what they stand for takes longer."""
    code = f"""
import sys
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("import e2llm")
shell.Completer.use_jedi = {use_jedi}
with provisionalcompleter():
    print(*(found.text.lstrip(".") for found in shell.Completer.completions("e2llm.", 6)))
print("torch" in sys.modules, shell.ev("e2llm.E2LLM").__name__)
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names, loaded = said.splitlines()
    assert set(e2llm.__all__) <= set(names.split()) and loaded == "False E2LLM"


def test_help_names_every_room_and_no_other():
    rooms = {path.parent.name for path in (ROOT / "e2llm").glob("*/__init__.py")}
    table = e2llm.__doc__.split("=\n", 1)[1]
    assert {line.split("``")[1] for line in table.splitlines() if line.startswith("``")} == rooms


def _pipeline() -> str:
    """The code on the page."""
    _, code = e2llm.__doc__.split("::\n", 1)
    return textwrap.dedent(code.split("\nWithout arguments", 1)[0])


def test_the_pipeline_on_the_page_runs(tmp_path, monkeypatch, capsys):
    """As it is written; only schedules and sizes are smaller."""
    fit = partial(e2llm.FitParams, batch_size=4, lr=4e-3)
    small = {
        "simulate": dict(params=e2llm.TwinParams(subjects=3, sessions=2, clips=15, seconds=(8.2, 9.0)), n_jobs=1),
        "preprocess": dict(n_jobs=1),
        "train_encoder": dict(size="tiny1", params=fit(4, batch_size=8), augmented_windows=4),
        "make_language_model": dict(scratch=e2llm.ScratchParams(600, 48, 2), n_items=40, drill_steps=1, params=fit(4)),
        "align": dict(n_items=8, params=fit(4)),
        "instruct": dict(per_kind={"predict": 8, "compare": 4}, replay=4, params=fit(4)),
        "instruct_second_pass": dict(params=fit(4)),
        "evaluate": dict(n_items=3),
    }
    for name, values in small.items():
        monkeypatch.setattr(e2llm, name, partial(getattr(e2llm, name), **values))
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    code = _pipeline()
    exec(compile(code, "help(e2llm)", "exec"), {})
    assert len([line for line in code.splitlines() if line]) <= 13
    assert all(f"e2llm.{name}(" in code for name in small)
    said = capsys.readouterr().out
    assert "LLM, no EEG" in said and "Which emotion does this segment show?" in said
    assert (tmp_path / "runs" / "first" / "metrics.json").is_file()


class Asked(Exception):
    """What a stage function wanted, before any work."""


class Stub(SimpleNamespace):
    """A run that only notes which stage is asked for, with which parameters."""

    def stage(self, name: str, params: dict, **more: object) -> None:
        raise Asked(name, params, list(params.get("per_kind", ())))


def _asked(call) -> tuple:
    with pytest.raises(Asked) as caught:
        call()
    return caught.value.args


@pytest.mark.parametrize("name", ["train_encoder", "make_language_model", "align", "instruct"])
def test_a_stage_without_arguments_is_the_stage_of_its_lesson(name):
    (path,) = [path for path in LESSONS if any(f"e2llm.{name}(" in cell for cell in _cells(path))]
    label_set = SimpleNamespace(labels=("happy", "sad"), has_affect=True)
    corpus = SimpleNamespace(label_set=label_set, windows=SimpleNamespace(window_s=4.0),
                             evidence_names=EvidenceNames(()))
    known = {"e2llm": e2llm, "run": Stub(), "corpus": corpus}
    parameters, *others = _cells(path)
    exec(parameters, known)
    for node in ast.parse("\n".join(others)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("split_settings", "kinds", "per_kind"):
            exec(compile(ast.Module([node], []), str(path), "exec"), known)
    calls = [node for node in ast.walk(ast.parse("\n".join(others))) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if ast.unparse(node.func) == f"e2llm.{name}"]
    settings = {"split_settings": known["split_settings"]} if name == "train_encoder" else {}
    assert _asked(lambda: eval(compile(ast.Expression(call), str(path), "eval"), known)) == _asked(
        lambda: getattr(e2llm, name)(known["run"], known["corpus"], **settings))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_imports_the_front_door_and_few_submodules(path):
    """What it takes from ``e2llm`` is there, and what it imports from a submodule too."""
    submodules, tree = set(), ast.parse("\n".join(_cells(path)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "e2llm":
            module = importlib.import_module(node.module)
            for found in (getattr(module, alias.name, None) or importlib.import_module(f"{node.module}.{alias.name}")
                          for alias in node.names):
                submodules.add(found.__name__ if inspect.ismodule(found) else node.module)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "e2llm":
            assert node.attr in e2llm.__all__, node.attr
    names = map(partial(getattr, e2llm), e2llm.__all__)
    at_the_door = {found.__name__ for found in names if inspect.ismodule(found)}
    assert "import e2llm" in ast.unparse(tree).splitlines()
    assert len(submodules - at_the_door) <= SUBMODULES, submodules
