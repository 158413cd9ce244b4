"""Each exercise accepts its solution and answers every typical mistake with hints of its own, never the solution."""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

import e2llm
from e2llm.teaching.exercises import LESSONS, check, exercises, find
from e2llm.teaching.judging import (
    NOT_YET,
    OPEN,
    RIGHT,
    ROUNDED,
    SHARE,
    Exercise,
    Function,
    Letters,
    Number,
    Values,
    example_of,
    judge,
)

ALL = list(exercises().values())
every = pytest.mark.parametrize("exercise", ALL, ids=lambda exercise: exercise.name)


@pytest.fixture(scope="module")
def solved(micro_run):
    """Names after the solution of an exercise has run, as its notebook of solutions runs it."""

    def run(exercise: Exercise) -> dict:
        names = {"np": np, "pd": pd, "e2llm": e2llm, "run_name": "micro"}
        if exercise.given:
            setup = import_module(f"e2llm.teaching.lessons.lesson_{exercise.lesson}").SETUP
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("E2LLM_RUNS", str(micro_run.path.parent))
                exec(setup, names)
        exec(f"{exercise.start}\n{exercise.solution}", names)
        return names

    return run


def test_every_lesson_has_exercises_and_a_prediction_among_them():
    counts = Counter(exercise.lesson for exercise in ALL)
    assert list(counts) == list(LESSONS) and min(counts.values()) >= 3
    assert {exercise.lesson for exercise in ALL if exercise.before} == set(LESSONS)
    assert all(len(exercise.mistakes) >= 1 for exercise in ALL)


@every
def test_the_solution_is_right_and_each_typical_mistake_gets_its_own_hints(exercise, solved):
    names = solved(exercise)
    known = {name: names[name] for name in exercise.given}
    assert judge(exercise, names["answer"], known).state == RIGHT
    for mistake in exercise.mistakes:
        wrong = example_of(exercise, mistake, known)
        first, second = (judge(exercise, wrong, known, attempt) for attempt in (1, 2))
        assert first.state == second.state == NOT_YET
        assert first.text == f"Not yet. {mistake.hints[0]}"
        assert second.text == f"Not yet. {mistake.hints[0]} {mistake.hints[1]}"


@every
def test_no_answer_is_open_and_an_answer_of_another_form_is_told_the_form(exercise, solved):
    names = solved(exercise)
    known = {name: names[name] for name in exercise.given}
    assert judge(exercise, None).state == OPEN, "without anything from the lesson"
    assert exercise.kind.what in judge(exercise, None).text
    for odd in ("no such answer", [], object(), float("nan"), {"a": 1}):
        verdict = judge(exercise, odd, known)
        assert verdict.state == NOT_YET and len(verdict.text) > len("Not yet. ")


@every
def test_hints_do_not_hold_the_solution(exercise, solved):
    names = solved(exercise)
    hints = " ".join(" ".join(mistake.hints) for mistake in exercise.mistakes) + " ".join(exercise.hints)
    if isinstance(exercise.kind, Number):
        wanted = float(exercise.wanted({name: names[name] for name in exercise.given}))
        numbers = {float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", hints)}
        assert round(wanted, 2) not in {round(number, 2) for number in numbers}
    elif isinstance(exercise.kind, Letters):
        assert not re.search(r"\b[B-E]\b(?!')|(?:option|answer|letter) A\b", hints)
    else:
        assert exercise.solution.splitlines()[-1].removeprefix("answer = ") not in hints


def test_a_further_wrong_answer_gets_more_help_and_other_exercises_start_anew(capsys, monkeypatch):
    monkeypatch.setattr("e2llm.teaching.exercises._wrong", Counter())
    said = []
    for name, answer in (("02-loss", 3.0), ("02-loss", 3.0), ("02-loss", None), ("01-decibel", 2)):
        check(name, answer)
        said.append(capsys.readouterr().out.strip())
    first, second = find("02-loss").hints
    assert said[0] == f"Not yet. {first}" and said[1] == f"Not yet. {first} {second}"
    assert said[2].startswith("Not answered yet.") and said[3].count(".") == 2
    assert find("02-loss").solution not in " ".join(said)


def test_a_wrong_name_is_answered_with_the_nearest_and_a_missing_value_with_the_call():
    with pytest.raises(ValueError, match="Did you mean '02-temperature'"):
        check("02-temprature", None)
    with pytest.raises(TypeError, match=r'write e2llm.check\("09-beyond", answer, gain=gain\)'):
        check("09-beyond", 3)


def test_a_rounded_answer_is_told_that_digits_are_missing_and_a_share_that_percent_are_asked():
    for name, answer in (("02-loss", 0.02), ("08-paired", 4.7), ("08-many", 0.7)):
        assert ROUNDED in judge(find(name), answer).text
    for name, answer in (("02-loss", 0.018), ("02-loss", 0.0181), ("07-precision", 33), ("07-recall", 33.3)):
        assert judge(find(name), answer).state == RIGHT
    for name, answer in (("02-loss", 0.0), ("02-loss", 0.01), ("02-loss", 1), ("08-many", 1)):
        assert ROUNDED not in judge(find(name), answer).text
    for name in ("07-precision", "07-recall"):
        assert SHARE in judge(find(name), 0.333).text


def test_a_right_prediction_is_told_where_the_lesson_shows_the_result():
    assert judge(find("02-temperature"), "C").text == "Right. Now run the next cell, and compare."
    assert judge(find("07-chance"), 24).text == f"Right. {find('07-chance').then}"
    assert judge(find("02-unseen"), "C").text == "Right."


def test_kinds_read_what_readers_write():
    assert Number().read(np.float32(2)) == 2.0 and Number().read([3]) == 3.0
    assert Letters("ABC", several=True).read("c, a") == {"A", "C"}
    assert Values("numbers").same(Values("numbers").read([[1, 2]]), [[1, 2]])
    assert judge(find("02-loss"), True).state == NOT_YET, "a bool is no number"
    assert "share of 1" in judge(find("06-luck"), 0.6415).text
    assert "two numbers, such as (3, 3). Your answer has 3 numbers." in judge(find("02-pairs"), (1, 2, 3)).text
    assert "has 1 number." in judge(find("02-pairs"), 3).text
    assert "shape (4,)" in judge(find("03-cosine"), (1, -1, -1, 1)).text
    stops = judge(find("01-reference"), lambda signal: signal.no_such_thing)
    assert stops.state == NOT_YET and "stopped with AttributeError" in stops.text
    same = Function("a function", lambda function: function(2))
    assert same.same(lambda x: x + x, lambda x: 2 * x) and not same.same(lambda x: [x], lambda x: 2 * x)
