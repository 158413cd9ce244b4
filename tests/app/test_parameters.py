"""Parameters are declared once; lessons, profiles and the commands in README agree with them.

And bad values are refused.
"""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import tokenize
from pathlib import Path
from typing import get_args

import pytest

from e2llm.app import parameters
from e2llm.app.cli import GROUPS, command_parser, main
from e2llm.app.parameters import FIELDS, Parameters, checked
from e2llm.app.pipeline import find_notebooks, load_profile, parse_assignments, validate
from e2llm.data import emotion_effects, protocols, sources
from e2llm.data.checks import QUALITY
from e2llm.data.preprocess_params import MISSING, PreprocessParams
from e2llm.models import device, eegpt
from e2llm.training import pretraining

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("0*.ipynb"))


def _cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def _written_parameters(path: Path) -> dict[str, tuple]:
    """Name to value and trailing comment of what a lesson's parameters cell says, a literal a line."""
    (cell,) = [cell for cell in _cells(path, "code") if "parameters" in cell["metadata"].get("tags", ())]
    source = "".join(cell["source"])
    comments = {token.start[0]: token.string.removeprefix("# ")
                for token in tokenize.generate_tokens(io.StringIO(source).readline)
                if token.type == tokenize.COMMENT}
    return {node.targets[0].id: (ast.literal_eval(node.value),
                                 comments.get(node.lineno)) for node in ast.parse(source).body}


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_the_defaults_and_the_help_of_its_parameters(path):
    written = _written_parameters(path)
    assert written.pop("run_name")[0] == "tiny"
    for name, (value, comment) in written.items():
        assert (type(value), value, comment) == (type(FIELDS[name].default), FIELDS[name].default,
                                                 FIELDS[name].description), name


def test_every_parameter_is_taken_by_a_lesson_and_is_in_one_group():
    taken = {name for path in LESSONS for name in _written_parameters(path)} - {"run_name"}
    assert taken == set(FIELDS)
    grouped = [name for group in Parameters.__bases__ for name in group.model_fields]
    assert sorted(grouped) == sorted(FIELDS)


def test_defaults_keep_to_their_own_bounds_and_are_not_changed_by_the_check():
    plain = checked({}).model_dump()
    assert {name: (type(value),
                   value) for name, value in plain.items()} == {n: (type(f.default),
                                                                    f.default) for n, f in FIELDS.items()}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("source", sources.SOURCES),
        ("twin_preset", ["", *emotion_effects.PRESETS]),
        ("missing_channels", MISSING),
        ("quality", QUALITY),
        ("protocol", protocols.PROTOCOLS),
        ("normalization", protocols.NORMALIZATIONS),
        ("reconstructor", pretraining.RECONSTRUCTORS),
        ("dtype", device.NUMBER_FORMATS),
        ("attention", device.ATTENTIONS),
    ],
)
def test_allowed_values_are_those_that_the_code_knows(name, known):
    assert set(get_args(FIELDS[name].annotation)) == set(known)


def test_a_time_patch_is_that_of_the_encoder_and_windows_have_the_same_default():
    assert eegpt.PATCH / eegpt.SFREQ == parameters.PATCH_S and PreprocessParams().window_s == checked({}).window_s


@pytest.mark.parametrize(("window_s", "eeg_tokens"), [(4, 16), (1, 2), (2.0, 8), (2.5, 5), (60, 240)])
def test_state_tokens_that_divide_the_patches_of_a_window_are_taken(window_s, eeg_tokens):
    assert checked({"window_s": window_s, "eeg_tokens": eeg_tokens}).eeg_tokens == eeg_tokens


def test_the_upper_edge_stays_below_half_the_rate_of_windows():
    assert PreprocessParams().sfreq / 2 == parameters.NYQUIST


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_profile_holds_parameters_of_the_lessons_only(path):
    values = load_profile(path)
    # The tests run every lesson with the profile smoke; the others are for the lessons that always run.
    wanted = validate(values, {}, LESSONS[1:] if path.stem == "smoke" else find_notebooks(ROOT / "notebooks"))
    for name, value in values.items():
        assert all(taken.get(name, value) == value for taken in wanted.values())
        assert any(name in taken for taken in wanted.values())


NUMBERS = [name for name, field in FIELDS.items() if field.annotation in (int, float)]


@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_may_be_below_zero_infinite_or_something_else(name):
    for value in (-1, float("nan"), float("inf"), "1", True, None, [1]):
        with pytest.raises(ValueError, match=rf"^{name} = .* must be ") as refused:
            checked({name: value})
        assert "\n" not in str(refused.value)


# Counts of work that may be as large as somebody has time for, and windows, of which there are as many as there are.
PATIENCE = [name for name in NUMBERS if name.endswith(("_steps", "_items", "steps", "_label", "per_kind"))
            or name in ("seed", "twin_seed", "null_seed", "drawn", "fold")]


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in PATIENCE])
def test_a_number_that_no_computer_can_serve_is_refused(name):
    given = 10**9 if FIELDS[name].annotation is int else 1e9
    with pytest.raises(ValueError, match=rf"^{name} = .* must be less than "):
        checked({name: given})


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in NUMBERS])
def test_every_other_parameter_refuses_a_value_of_another_type(name):
    with pytest.raises(ValueError, match=rf"^{name} = 1.5 must be "):
        checked({name: 1.5})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fold": 99}, "fold = 99 is not there: the protocol 'joint' has the folds 0 to 11. n_groups = 25 "
         "would do."),
        ({"protocol": "subjects", "fold": 3}, "the protocol 'subjects' has the folds 0 to 2. n_groups = 4 would do."),
        ({"protocol": "clips", "fold": 4}, "the protocol 'clips' has the folds 0 to 3"),
        ({"n_groups": 2}, "n_groups = 2 leaves no part to train on"),
        ({"fold": -1}, "fold = -1 must be greater than or equal to 0"),
        ({"protocol": "random_windows", "fold": 3, "accept_leaks": True}, "has the folds 0 to 2"),
        ({"protocol": "joint", "n_groups": 5, "fold": 20}, "the protocol 'joint' has the folds 0 to 19"),
        ({"n_groups": 1}, "n_groups = 1 leaves no part to train on"),
        ({"subjects": -1}, "subjects = -1 must be greater than or equal to 1"),
        ({"l_freq": 45.0}, "l_freq = 45 must be below h_freq = 45"),
        ({"l_freq": 0}, "l_freq = 0 must be greater than 0"),
        ({"h_freq": 0.4}, "l_freq = 0.5 must be below h_freq = 0.4"),
        ({"encoder_lr": float("inf")}, "encoder_lr = inf must be "),
        ({"lora_dropout": 1}, "lora_dropout = 1 must be less than 1"),
        ({"item_seeds": 101}, "item_seeds = 101 must be less than or equal to 100"),
        ({"size_seeds": [0, -1]}, "-1 in size_seeds must be greater than or equal to 0"),
        ({"language_model": "scratch", "language_steps": 5, "drill_steps": 9}, "must be more than drill_steps = 9"),
        ({"language_model": "scratch", "drill_steps": 1000}, "language_steps = 1000 must be more than drill_steps ="),
        ({"subjects": 0}, "subjects = 0 must be greater than or equal to 1"),
        ({"l_freq": 45.0, "h_freq": 0.5}, "l_freq = 45 must be below h_freq = 0.5"),
        ({"l_freq": 99}, "l_freq = 99 must be below h_freq = 45"),
        ({"h_freq": 128}, "h_freq = 128 must be less than 128"),
        ({"language_model": "scratch", "language_steps": 40}, "language_steps = 40 must be more than drill_steps = 40"),
        ({"eeg_tokens": 3}, "eeg_tokens = 3 must divide the 16 time patches of a window of 4 s: 1, 2, 4, 8 or 16 would "
         "do."),
        ({"eeg_tokens": 0}, "eeg_tokens = 0 must be greater"),
        ({"window_s": 1.25}, "eeg_tokens = 2 must divide the 5 time patches of a window of 1.25 s: 1 or 5 would do."),
        ({"window_s": 1.0, "eeg_tokens": 8}, "must divide the 4 time patches of a window of 1 s: 1, 2 or 4 would do."),
        ({"window_s": 3.3}, "window_s = 3.3 is no whole number of time patches of 0.25 s, of which encoders give "
         "tokens: 3.25 or 3.5 would do."),
        ({"window_s": 0.5}, "window_s = 0.5 must be greater than or equal to 1"),
        ({"window_s": 61.0}, "window_s = 61.0 must be less than or equal to 60"),
        ({"encoder_steps": 0}, "encoder_steps = 0 must be greater"),
        ({"batch_size": 0}, "batch_size = 0 must be greater"),
        ({"seed": 2**32}, "seed = 4294967296 must be less than"),
        ({"patch_dropout": 1}, "patch_dropout = 1 must be less than 1"),
        ({"protocol": "clip"}, "protocol = 'clip' must be 'joint', "),
        ({"data_root": ""}, "data_root = '' must not be empty"),
        ({"sizes": []}, "sizes = [] must not be empty"),
        ({"size_seeds": [0, "x"]}, "'x' in size_seeds must be a whole number"),
        ({"encoder_lr": "1e-3"}, "encoder_lr = '1e-3' must be a number. YAML reads 1e-3 as text: write 1.0e-3."),
        ({"eegnet": "false"}, "eegnet = 'false' must be true or false."),
        ({"device": "gpu"}, "device = 'gpu' must be auto, cpu, cuda, cuda:1 or mps"),
        ({"device": "cuda:x"}, "device = 'cuda:x' must be auto, cpu, cuda, cuda:1 or mps"),
        ({"attention": "fast"}, "attention = 'fast' must be 'auto' or 'flash'"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing = 1 must be true or false"),
        ({"sed": 1}, "There is no parameter 'sed': did you mean seed"),
        ({"seed": 0.5, "fold": "a"}, "seed = 0.5 must be a whole number. fold = 'a' must be a whole number."),
    ],
)
def test_values_that_cannot_work_are_refused_in_one_paragraph(values, message):
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        checked(values)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "values",
    [
        {"fold": 11},
        {"protocol": "within_subject", "fold": 79},
        {"protocol": "subjects", "n_groups": 0, "fold": 19},
        {"protocol": "joint", "n_groups": 0, "fold": 19},
        {"language_model": "smollm2-135m", "language_steps": 1},
        {"subjects": None},
        {"encoder_size": "mine"},
        {"sizes": ["base"], "size_seeds": [0, 1]},
        {"device": "cuda:7", "gradient_checkpointing": True, "dtype": "bfloat16", "attention": "flash"},
    ],
)
def test_values_that_can_work_are_taken(values):
    found = checked(values).model_dump()
    assert {name: list(found[name]) if isinstance(found[name], tuple) else found[name] for name in values} == values


def test_help_lists_every_parameter_with_its_default(capsys):
    printed = _help(capsys, "run")
    for name, field in FIELDS.items():
        (default,) = re.findall(rf" {name}=(\S*) {re.escape(field.description)}(?: |$)",
                                " ".join(printed.split()))
        assert checked(parse_assignments([f"{name}={default}"])) == checked({}), name
    for group in Parameters.__bases__:
        assert f"\n{group.__doc__.removesuffix('.')}:\n" in printed
    for path in (ROOT / "notebooks" / "profiles").glob("*.yaml"):
        assert f"  {path.stem} " in printed and load_profile(path.stem) is not None
    assert max(map(len, printed.splitlines())) <= 80


def test_help_names_every_command_once_under_a_heading_with_its_help(capsys):
    printed = _help(capsys)
    known = set(re.findall(r"choose from (.+)\)", _refused(capsys, "no-such-command"))[0].replace("'", "").split(", "))
    assert sorted(known) == sorted(name for names in GROUPS.values() for name in names)
    for title, names in GROUPS.items():
        assert re.search(rf"^{title}:$", printed, re.M) and all(re.search(rf"^  {name} +\w", printed, re.M)
                                                               for name in names)
    assert max(map(len, printed.splitlines())) <= 80
    for name in known:
        assert len(_help(capsys, name).splitlines()) > 5


def _help(capsys, *command: str) -> str:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return capsys.readouterr().out


def _refused(capsys, *command: str) -> str:
    with pytest.raises(SystemExit):
        main([*command])
    return capsys.readouterr().err


def _shown_commands() -> list[str]:
    prose = [(ROOT / "README.md").read_text(encoding="utf-8")]
    prose += ["".join(cell["source"]) for path in LESSONS for cell in _cells(path, "markdown")]
    found = [text.strip() for page in prose for text in re.findall(r"e2llm (?:run|sweep)\b[^`\n;&|#]*", page)]
    return [text for text in dict.fromkeys(found) if "…" not in text and "--help" not in text]


@pytest.mark.parametrize("command", _shown_commands())
def test_a_command_that_readme_or_a_lesson_shows_is_taken_as_a_shell_hands_it_over(command):
    script = f"e2llm() {{ printf '%s\\0' \"$@\"; }}; {command}"
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
    arguments = command_parser().parse_args(words)
    values = parse_assignments(arguments.parameter)
    for key, _, given in (text.partition("=") for text in getattr(arguments, "grid", ())):
        values |= {name: found[0] for name, found in parse_assignments([f"{key}=[{given}]"]).items()}
    lessons = find_notebooks(ROOT / "notebooks", also=getattr(arguments, "lesson", ()))
    wanted = validate(load_profile(arguments.profile), values, lessons)
    assert all(value in [taken.get(name) for taken in wanted.values()] for name, value in values.items())


def test_readme_shows_commands():
    assert len(_shown_commands()) >= 10 and any('twin_preset=""' in command for command in _shown_commands())


def test_a_folder_below_the_home_folder_is_written_out_once(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    values = checked({"data_root": "~/twin", "null_root": "~/null"})
    assert (values.data_root, values.null_root) == ("/home/someone/twin", "/home/someone/null")
    assert checked({}).data_root == "data/twin" and checked({"data_root": "a/~b"}).data_root == "a/~b"
    with pytest.raises(ValueError, match="data_root = '~nobody-there/x' names no folder"):
        checked({"data_root": "~nobody-there/x"})
