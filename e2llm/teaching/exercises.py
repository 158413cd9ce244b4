"""All exercises of the lessons, and ``check``, which a lesson calls with an answer."""

from __future__ import annotations

import difflib
from collections import Counter
from functools import cache
from importlib import import_module
from typing import Any

from .judging import NOT_YET, Exercise, judge

LESSONS = tuple(f"{number:02}" for number in range(10))
_wrong: Counter[str] = Counter()  # wrong answers of this kernel, by exercise


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by its name, in the order of the lessons."""
    found = (import_module(f".lessons.lesson_{lesson}", __package__).EXERCISES for lesson in LESSONS)
    return {exercise.name: exercise for group in found for exercise in group}


def find(name: str) -> Exercise:
    """The exercise of that name.

    Parameters
    ----------
    name : str
        Such as "02-temperature".

    Raises
    ------
    ValueError
        If there is none; the message names the nearest.
    """
    known = exercises()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
        raise ValueError(f"There is no exercise '{name}'. Did you mean '{near}'?")
    return known[name]


def check(name: str, answer: Any, **known: Any) -> None:
    """Print whether an answer is right, and a hint if it is not; each further wrong answer gets more help.

    Parameters
    ----------
    name : str
        The exercise, such as "02-temperature".
    answer : object
        Your answer; None if you have none yet.
    **known
        What the exercise is compared with, as the lesson's cell hands it over.

    Raises
    ------
    ValueError
        If there is no such exercise.
    TypeError
        If something that the check needs is not handed over.
    """
    verdict = judge(find(name), answer, known, _wrong[name] + 1)
    _wrong[name] += verdict.state == NOT_YET
    print(verdict.text)
