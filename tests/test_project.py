"""The house: environment file, package size, profiles."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _split(requirement: str) -> tuple[str, str]:
    name, version = re.match(r"([\w-]+)(.*)", requirement).groups()
    return name, version.strip()


def test_environment_yml_asks_for_what_pyproject_asks_for():
    project = _project()
    wanted = dict(_split(r) for r in project["dependencies"] + project["optional-dependencies"]["test"])
    wanted = {CONDA_NAMES.get(name, name): version for name, version in wanted.items()}
    listed = [entry for entry in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"] if isinstance(entry, str)]
    found = dict(_split(entry) for entry in listed)
    assert found.pop("python") == project["requires-python"]
    found.pop("pip")
    assert found == wanted


def test_constraints_pin_every_dependency_exactly_and_within_range():
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    project = _project()
    for text in project["dependencies"] + project["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        assert requirement.name in pins, f"{requirement.name} has no pin"
        assert requirement.specifier.contains(pins[requirement.name]), f"{requirement.name} {pins[requirement.name]} is outside {text}"


def test_modules_are_rooms_not_halls():
    for path in (ROOT / "e2llm").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 420, f"{path.name} has grown too large"


def test_no_module_that_breaks_transformers_is_required():
    text = (ROOT / "pyproject.toml").read_text() + (ROOT / "constraints.txt").read_text()
    assert "torchvision" not in text and "torchaudio" not in text
