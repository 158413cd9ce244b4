"""Any value of any parameter: within its bounds, or one sentence that names the parameter; nothing else happens."""

from __future__ import annotations

import math
import time

import pytest
from hostile import QUICK, refused, the_kit_says
from hypothesis import given, settings
from hypothesis import strategies as st

from e2llm.app.cli import main
from e2llm.app.parameters import FIELDS, checked
from e2llm.app.pipeline import load_profile, parse_assignments, run_name
from e2llm.core.files import check_name


def nested(depth: int) -> list:
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


EXTREME = {
    "zero": 0, "minus one": -1, "float zero": 0.0, "minus zero": -0.0, "inf": math.inf, "-inf": -math.inf,
    "nan": math.nan, "1e9": 10**9,
    "1e9 as float": 1e9, "smallest": 5e-324, "largest": 1.7e308, "2**63": 2**63, "2**1000": 2**1000, "10**400": 10**400,
    "16**5000": 16**5000, "yes": True, "no": False, "number as text": "1", "1e-3": "1e-3", "empty": "", "blank": " ",
    "word": "abc",
    "line break": "a\nb", "nul": "a\0b", "escape": "\x1b[2J", "other way": "\u202e", "surrogate": "\ud800",
    "long": "x" * 10**6,
    "bytes": b"1", "complex": 1j, "list": [1], "empty list": [], "texts": ["base"], "list of nul": ["a\0"],
    "list of nan": [math.nan],
    "list of minus": [-1], "mapping": {"a": 1}, "set": {1}, "deep": nested(50_000), "wide": [[0] * 10] * 10**5,
    "nothing": None,
    "object": object(), "class": int, "range": range(3), "digits": "١٢", "html": "<script>", "shell": "$(id)",
    "path": "../../etc",
}  # fmt: skip


def within(name: str, value: object) -> None:
    """A value that was taken is of the declared type and within the declared bounds."""
    default, bounds = FIELDS[name].default, FIELDS[name].metadata
    if value is None:
        assert default is None
        return
    if isinstance(default, (int, float, type(None))) and not isinstance(default, bool):
        assert not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)
        for bound in bounds:
            for word, holds in (("ge", value.__ge__), ("gt", value.__gt__), ("le", value.__le__), ("lt", value.__lt__)):
                if (limit := getattr(bound, word, None)) is not None:
                    assert holds(type(value)(limit)) is True
    else:
        assert isinstance(value, type(default))
    for text in [value] if isinstance(value, str) else value if isinstance(value, tuple) else ():
        assert not isinstance(text, str) or text.isprintable()


def judged(name: str, value: object) -> bool:
    """Whether a value is taken."""
    began = time.process_time()  # of this process: others may keep the machine busy
    try:
        found = checked({name: value})
    except ValueError as error:
        # l_freq, fold and some others name the one that they do not fit as well
        the_kit_says(error, name)
        assert len(str(error)) < 600
        return False
    finally:
        assert time.process_time() - began < 20
    within(name, getattr(found, name))
    return True


@pytest.mark.parametrize("name", FIELDS)
def test_extreme_values_are_within_bounds_or_named(name):
    taken = [said for said, value in EXTREME.items() if judged(name, value)]
    assert len(taken) < len(EXTREME) * 0.6, taken


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=12) | st.binary(max_size=4)
    | st.sampled_from([2**63, 10**400, True, "1", "a\nb", "\ud800", "x" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2), max_leaves=6)


@settings(QUICK, max_examples=400)
@given(st.sampled_from(sorted(FIELDS)), ANYTHING)
def test_anything_is_within_bounds_or_named(name, value):
    judged(name, value)


@settings(QUICK, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), ANYTHING, max_size=4))
def test_several_at_once_are_one_paragraph(values):
    try:
        checked(values)
    except ValueError as error:
        the_kit_says(error, longest=2000)
        assert any(name in str(error) for name in values)


@QUICK
@given(st.text(max_size=15), ANYTHING)
def test_names_that_no_parameter_has(name, value):
    if name not in FIELDS:
        with refused("There is no parameter", longest=600):
            checked({name: value})


NUMBERS = [name for name, field in FIELDS.items() if isinstance(field.default,
                                                                (int, float)) and not isinstance(field.default, bool)]


@pytest.mark.parametrize("text", ["nan", ".nan", ".inf", "-.inf", "1e9", "1e400", "-1", "true", "no",
                                  "0x7fffffffffffffff", "1:30", "'1'", "[]",
                                  "{}", "~", "2026-01-01", "!!float nan", "1_000", "0b1", "0o17", "٣", "1" * 4000,
                                  "0x" + "f" * 9000])
def test_numbers_as_the_command_line_writes_them(text):
    for name in NUMBERS:
        try:
            value = parse_assignments([f"{name}={text}"])[name]
        except ValueError as error:
            the_kit_says(error, name)
        else:
            judged(name, value)


@pytest.mark.parametrize("text", ["seed=nan", "seed=-1", "encoder_lr=.inf", "fold=1e9", "batch_size=true", "seed='1'",
                                  "data_root=a\0b",
                                  "data_root='a\n\nb'", "seed=0x" + "f" * 9000, "sizes=[]", "size_seeds=[.nan]",
                                  "__class__=1", "seed=[[[[1]]]]"])
def test_the_command_line_says_it_in_one_line(text, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    for arguments in (["run", "-p", text], ["sweep", "-g", text]):
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("e2llm: ") and said.count("\n") == 1 and len(said) < 1500, said
    assert not list((tmp_path / "runs").glob("*/*")) if (tmp_path / "runs").exists() else True


@settings(QUICK, max_examples=100)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), ANYTHING, max_size=5))
def test_the_name_of_a_run_is_one_whatever_the_values(values):
    try:
        checked(values)
    except ValueError:
        return
    assert len(check_name(run_name("tiny", values))) <= 120


@pytest.mark.parametrize("content", ["seed: .nan\n", "seed: true\n", "lora_dropout: -.inf\n", "data_root: \"a\\0b\"\n",
                                     "fold: 1e9\n", "sizes: [[base]]\n"])
def test_a_profile_with_such_values_names_them(tmp_path, content):
    (tmp_path / "mine.yaml").write_text(content)
    with refused(content.partition(":")[0]):
        checked(load_profile(tmp_path / "mine.yaml"))
