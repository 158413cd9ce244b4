"""The project's own rules: layers, style, types, versions, size, and what ``import e2llm`` loads."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}
HEAVY = ("torch", "mne", "matplotlib", "transformers", "sklearn", "pandas")
LONGEST_FILE = 720  # lines


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _requirements(*extras: str) -> list[Requirement]:
    project = _project()
    texts = sum((project["optional-dependencies"][extra] for extra in extras), project["dependencies"])
    return [Requirement(text) for text in texts]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins() -> dict[str, str]:
    lines = (line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    return {_plain(name): version for name, version in lines}


# --- requirements


def test_environment_yml_asks_for_what_pyproject_asks_for():
    wanted = {CONDA_NAMES.get(one.name, one.name): str(one.specifier) for one in _requirements("test")}
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(entry["pip"] for entry in entries if not isinstance(entry, str))
    named = [entry for entry in [*entries, *by_pip] if isinstance(entry, str) and entry != "-e ."]
    found = dict(re.match(r"([\w-]+)\s*(.*)", entry).groups() for entry in named)
    assert found.pop("python") == _project()["requires-python"]
    found.pop("pip")
    assert found == wanted


def test_constraints_pin_every_dependency_exactly_and_within_range():
    pins = _pins()
    for one in _requirements("test", "docs"):
        assert _plain(one.name) in pins, f"{one.name} has no pin"
        assert one.specifier.contains(pins[_plain(one.name)]), f"{one.name} {pins[_plain(one.name)]} is outside {one}"


def _needed(requirements: list[Requirement], seen: set[tuple[str, str]]) -> Iterator[str]:
    """Names of installed distributions that these need, and those that they need in turn."""
    for one in requirements:
        for extra in ("", *sorted(one.extras)):
            if (key := (_plain(one.name), extra)) in seen:
                continue
            seen.add(key)
            try:
                texts = metadata.requires(one.name) or []
            except metadata.PackageNotFoundError:
                continue  # the docs extra need not be installed
            yield key[0]
            further = [Requirement(text) for text in texts]
            yield from _needed([r for r in further if r.marker is None or r.marker.evaluate({"extra": extra})], seen)


def test_constraints_pin_what_the_dependencies_need():
    needed = set(_needed(_requirements("test", "docs"), set()))
    assert {"torch", "numpy", "pytest", "sympy"} <= needed
    without = {"setuptools", "pip"}  # tools of the environment itself
    assert sorted(needed - _pins().keys() - without) == []


def test_no_module_that_breaks_transformers_is_required():
    text = (ROOT / "pyproject.toml").read_text() + (ROOT / "constraints.txt").read_text()
    assert "torchvision" not in text and "torchaudio" not in text


# --- code


def _python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_a_room_uses_only_the_rooms_above_it_and_there_are_no_circles():
    done = _python("-c", "import sys; from importlinter.cli import lint_imports_command; "
                   "sys.path.insert(0, '.'); lint_imports_command(['--no-cache'])")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kept, 0 broken" in done.stdout


def test_ruff_finds_nothing_in_the_whole_tree():
    done = _python("-m", "ruff", "check", "--no-cache", "--output-format", "concise", ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_core_data_and_models_have_types_that_fit():
    done = _python("-m", "mypy", "--cache-dir", "/dev/null" if sys.platform != "win32" else "nul")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["e2llm.core.labels", "e2llm.core.claims", "e2llm.app.cli"])
def test_importing_a_light_module_loads_nothing_heavy(module):
    done = _python("-c", f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_no_file_has_grown_too_large():
    files = sorted((ROOT / "e2llm").rglob("*.py"))
    assert len(files) > 40
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert {name: n for name, n in lines.items() if n > LONGEST_FILE} == {}


def test_the_readme_names_both_test_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    extras = re.search(r'^pip install -c constraints\.txt -e "\.\[([\w,]+)\]" && pytest$', text, flags=re.M)
    assert extras and "test" in extras[1].split(",")
    assert "`pytest -m full`" in text
