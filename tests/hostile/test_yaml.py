"""YAML that wants to run something, to fill the memory or to mean nothing: one sentence that names file or argument."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest
from hostile import QUICK, contents, refused, the_kit_says
from hypothesis import given
from hypothesis import strategies as st

from e2llm.app.cli import main
from e2llm.app.pipeline import _check_twin, load_profile, parse_assignments
from e2llm.core.files import parse_yaml, read_yaml
from e2llm.data.simulation import TwinParams, simulate
from e2llm.evaluation.baselines import oracle

LAUGHS = "\n".join(["l0: &l0 [lol, lol]", *(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12))])
NO_CODE = {
    "apply": "!!python/object/apply:os.mkdir [harm]", "new": "!!python/object/new:os.mkdir [harm]",
    "name": "!!python/name:os.mkdir", "module": "!!python/module:os", "object": "!!python/object:os.mkdir {}",
    "tuple": "!!python/tuple [1]", "own": "!mkdir harm",
    "uri": "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [harm]",
}  # fmt: skip
NO_YAML = {
    "deep list": "[" * 5000, "deep closed list": "[" * 3000 + "]" * 3000, "deep mapping": "{a: " * 2000,
    "deep lines": "\n".join(" " * i + "a:" for i in range(1500)), "laughs": f"[{'&a [x], ' + '*a, ' * 9}]",
    "itself": "&a [*a]", "unknown alias": "*a", "no end": "'x", "tab": "\ta", "nul": "a\0b", "int": "!!int ''",
    "float": "!!float x", "bool": "!!bool maybe", "date": "!!timestamp x", "no day": "2026-99-99",
    "binary": "!!binary x",
    "many digits": "1" * 5000, "two": "--- 1\n--- 2", "set of lists": "{[a]: 1}",
    "surrogate": "\"\\ud800\"" + "\ud7ff: :",
    "merge": "<<: 1", "bell": "\a", "omap": "!!omap [1]", "pairs": "!!pairs 1",
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Nothing is made in the current folder, and nothing takes long."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pyproject.toml").write_text('name = "e2llm"\n')
    (tmp_path / "here" / "notebooks" / "profiles").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    began = time.monotonic()
    yield
    assert not Path("harm").exists() and time.monotonic() - began < 60


@pytest.mark.parametrize("text", {**NO_CODE, **NO_YAML}.values(), ids={**NO_CODE, **NO_YAML})
def test_a_profile(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text if text.startswith("<<") or "\n" in text else f"seed: {text}\n", "utf-8")
    with refused(str(path)):
        load_profile(path)


@pytest.mark.parametrize("text", [LAUGHS, f"{LAUGHS}\nseed: *l11", f"{LAUGHS}\nsizes: *l11"])
def test_laughs_are_refused_before_they_are_shown(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with refused("mine.yaml", "alias"):
        load_profile(tmp_path / "mine.yaml")


@pytest.mark.parametrize("text", {**NO_CODE, **NO_YAML}.values(), ids={**NO_CODE, **NO_YAML})
def test_a_value_of_the_command_line(text):
    try:
        values = parse_assignments([f"seed={text}"])
    except ValueError as error:
        the_kit_says(error, "The value in")
    else:
        assert isinstance(values["seed"], dict) and text == NO_YAML["merge"]


@pytest.mark.parametrize("text", ["!!python/name:os.mkdir", "1],[2", "*a", "[" * 3000, "1" * 5000, "2026-99-99", "",
                                  "{", "a: b: c"])
def test_a_grid(text, capsys):
    assert main(["sweep", "-g", f"seed={text}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("e2llm: ") and said.count("\n") == 1


@pytest.mark.parametrize("content", [b"\xff\xfes\x00", b"\x80", b"seed: \xe9", b"\x00\x00", b"\xef\xbb\xbf[1"])
def test_a_profile_in_another_encoding(tmp_path, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    with refused("mine.yaml"):
        load_profile(tmp_path / "mine.yaml")


@pytest.mark.parametrize("content", ["[1]", "7", "false", "text", "a: {b: 1}", "- a: 1", "? [a]\n: 1", "!!set {a}"])
def test_a_profile_of_another_form(tmp_path, content):
    (tmp_path / "mine.yaml").write_text(content)
    with refused("mine.yaml"):
        load_profile(tmp_path / "mine.yaml")


@pytest.mark.parametrize("text", [*NO_CODE.values(), LAUGHS, "[" * 3000, "", "7", "[1]", "seed: 2026-99-99",
                                  "preset: [1]"])
def test_the_description_of_a_twin(tmp_path, text):
    root, truth = tmp_path / "twin", tmp_path / "twin-truth"
    for folder in (root, truth):
        folder.mkdir()
    (root / "mine.txt").write_text("kept")
    (truth / "twin.yaml").write_text(text)
    before = contents(tmp_path)
    with refused("twin"):
        simulate(root, TwinParams(1, 1, 1, (8.0, 8.0)))
    with refused("twin"):
        _check_twin("twin_", "data_root", root, ["seed", "preset"], {"seed": 1, "preset": "teaching"})
    with refused("twin-truth", "simulate the twin again"):
        oracle(truth, pd.DataFrame({"subject": [], "clip": [], "start_s": []}))
    assert contents(tmp_path) == before


def test_the_description_that_the_kit_writes_has_no_alias(twin):
    made, written = read_yaml(twin.with_name(f"{twin.name}-truth") / "twin.yaml")
    assert made["subjects"] == 3 and written["subjects"] == "3"


@QUICK
@given(st.text(max_size=60))
def test_any_text_is_read_or_named(text):
    try:
        parse_yaml(text, "this")
    except ValueError as error:
        the_kit_says(error, "this is not YAML")


@QUICK
@given(st.lists(st.sampled_from(["[", "]", "{", "}", ": ", "- ", "&a ", "*a", "!!int ", "!!python/name:os ", "\n", "  ",
                                 "'", '"', "|", ">",
                                 "1", "x", ",", "#", "%", "---", "<<", "? "]), max_size=12))
def test_any_pieces_of_yaml_are_read_or_named(parts):
    try:
        parse_yaml("".join(parts), "this")
    except ValueError as error:
        the_kit_says(error, "this is not YAML")
