"""``e2llm doctor``: facts of this computer, what stops the default run, and the remedy of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from e2llm.app import doctor, pipeline, plan, plan_devices
from e2llm.app.cli import main
from e2llm.app.doctor import NOTE, OK, STOP, Line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A project and a cache of their own; no question to a hub."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("E2LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(plan_devices, "measured_rate", lambda **_: 1e11)
    return tmp_path


def _lines() -> dict[str, Line]:
    return {found.what: found for found in doctor.examine(0.01) if isinstance(found, Line)}


def test_where_all_is_there_it_says_so_and_how_long_the_run_takes(elsewhere, capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    found = _lines()
    assert not [line for line in found.values() if line.mark == STOP] and STOP not in said
    assert found["tiny"].mark == OK and "data are simulated" in found["tiny"].fact
    assert "e2llm-tiny is within reach" in found["tiny"].fact
    assert found["device"].fact.startswith(("cpu", "cuda"))
    seconds = plan.plan({}, device=plan_devices.Device("CPU", 1e12, dict.fromkeys(("float32", "bfloat16"), 1e11),
                                                       10e9)).seconds
    assert f"about {plan.time_in_words(seconds)} on the processor (measured: 100 Gflop/s" in found["time"].fact
    assert "The default run can work: e2llm run" in said


def test_what_is_missing_beside_the_default_run_is_named_with_its_remedy(elsewhere):
    found = _lines()
    assert found["smollm2-135m"] == (NOTE, "smollm2-135m", found["smollm2-135m"].fact, "e2llm fetch smollm2-135m")
    assert found["laptop"].mark == NOTE and "e2llm fetch smollm2-135m" in found["laptop"].fact
    paper = found["paper"]
    assert paper.mark == NOTE and "SEED-VII is not there" in paper.fact and "docs/own_data.md" in paper.remedy
    assert "Qwen/Qwen3-8B" in paper.fact and "weights/eegpt" in paper.fact


def test_every_profile_and_everything_that_can_be_fetched_is_looked_at(elsewhere):
    from e2llm.models.catalogue import CATALOGUE

    assert {path.stem for path in (ROOT / "notebooks" / "profiles").glob("*.yaml")} | set(CATALOGUE) <= set(_lines())


def _version_of(versions):
    real = metadata.version

    def version(name: str) -> str:
        if (found := versions.get(name, real)) is None:
            raise metadata.PackageNotFoundError(name)
        return found(name) if callable(found) else found

    return SimpleNamespace(version=version, PackageNotFoundError=metadata.PackageNotFoundError)


@pytest.mark.parametrize(("version", "fact"), [(None, "is not installed"), ("0.1", "0.1, needed is >=0.21")])
def test_a_package_that_the_run_needs_stops_the_rest(elsewhere, monkeypatch, capsys, version, fact):
    monkeypatch.setattr(doctor, "metadata", _version_of({"peft": version}))
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert f"STOP  peft                {fact}" in said and f"-> {doctor.INSTALL}" in said
    assert "This computer" not in said and "cannot work" in said


def test_another_version_than_the_tested_one_is_no_fault(elsewhere, monkeypatch):
    monkeypatch.setattr(doctor, "metadata", _version_of({"peft": "99.0", "nbval": None}))
    found = _lines()
    assert found["peft"].mark == NOTE and "were made with" in found["peft"].fact
    assert found["group 'test'"].mark == NOTE and "nbval" in found["group 'test'"].fact
    assert not [line for line in found.values() if line.mark == STOP]


@pytest.mark.parametrize("name", ["yaml", "numpy", "torch"])
def test_it_answers_also_where_a_package_cannot_be_imported(name, tmp_path):
    script = f"import sys; sys.modules[{name!r}] = None; from e2llm.app.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1 and f"STOP  {name}" in done.stdout and "pip install" in done.stdout, done.stderr


def test_too_little_room_a_folder_that_cannot_be_written_and_no_lessons_stop_it(elsewhere, monkeypatch):
    monkeypatch.setattr("e2llm.core.space.free_above", lambda folder: 1e6)
    monkeypatch.setattr("os.access", lambda path, mode: not Path(path).is_relative_to(elsewhere))
    (elsewhere / "notebooks").unlink()
    (elsewhere / "notebooks").mkdir()
    (elsewhere / "notebooks" / "profiles").symlink_to(ROOT / "notebooks" / "profiles")
    found = _lines()
    assert "1.0 MB are free" in found["room"].fact
    assert {what for what, line in found.items() if line.mark == STOP} == {"room", "folder of runs", "lessons"}


def test_a_profile_that_cannot_be_used_is_named_and_the_others_are_looked_at(elsewhere, monkeypatch, capsys):
    real = pipeline.load_profile
    monkeypatch.setattr(pipeline, "load_profile", lambda name: {"learning_rate": 1} if name == "laptop" else real(name))
    found = _lines()
    assert found["laptop"].mark == NOTE and "There is no parameter 'learning_rate'" in found["laptop"].fact
    assert found["tiny"].mark == OK and found["paper"].mark == NOTE

    def damaged(name):
        raise ValueError(f"{name}.yaml is no YAML.")

    monkeypatch.setattr(pipeline, "load_profile", damaged)
    assert main(["doctor"]) == 1 and "tiny.yaml is no YAML." in capsys.readouterr().out


@pytest.mark.parametrize("profile", [{"seeed": 3}, {"window_s": -1}])
def test_a_default_profile_with_a_wrong_parameter_is_a_line_and_no_traceback(elsewhere, monkeypatch, capsys, profile):
    real = pipeline.load_profile
    monkeypatch.setattr(pipeline, "load_profile", lambda name: profile if name == "tiny" else real(name))
    assert main(["doctor"]) == 1
    assert next(iter(profile)) in (out := capsys.readouterr().out) and "on the processor" in out


def test_data_that_cannot_be_read_stop_the_default_run(elsewhere):
    (elsewhere / "data" / "twin").mkdir(parents=True)
    line = _lines()["tiny"]
    assert line.mark == STOP and "data/twin cannot be read" in line.fact and "e2llm check" in line.remedy


def test_outside_the_project_it_says_where_to_start(monkeypatch, capsys):
    monkeypatch.setattr("e2llm.core.files.project_root", _no_project)
    assert main(["doctor"]) == 1 and "start inside the project" in capsys.readouterr().out


def _no_project() -> Path:
    raise FileNotFoundError("No pyproject.toml: start inside the project.")


def test_the_index_of_the_lessons_is_made_of_the_lessons():
    import importlib.util

    spec = importlib.util.spec_from_file_location("lesson_index", ROOT / "docs" / "lesson_index.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.INDEX.read_text(encoding="utf-8")
    assert written == module.index(), "python docs/lesson_index.py writes it anew"
    text = "".join(line for cell in json.loads(written)["cells"] for line in cell["source"])
    lessons = sorted((ROOT / "notebooks").glob("0*.ipynb"))
    assert len(lessons) >= 10 and all(f"]({path.name})" in text for path in lessons)
