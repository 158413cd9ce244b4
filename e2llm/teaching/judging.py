"""One exercise: how its answer is read, when it is right, and which hint a wrong answer gets.

Nothing here prints, and nothing opens a run: what an answer is compared with is handed over by the lesson.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RIGHT, OPEN, NOT_YET = "right", "open", "not yet"
SHARE = "This looks like a share of 1. The question asks for percent."
ROUNDED = "This is the right number, but it is rounded too far. Give more digits."
ROUNDING = 0.15  # most that a rounded number may differ, as a share of the right one: 1 is not 0.65, rounded


class UnreadableError(ValueError):
    """An answer of another form than the one that was asked for; the text says which form is meant."""


# ---------------------------------------------------------------- kinds of answers


@dataclass(frozen=True)
class Number:
    """A number.

    Parameters
    ----------
    unit : str
        As it stands in the text; "" for none.
    within : float
        Largest distance from the right value, in that unit.
    """

    unit: str = ""
    within: float = 1e-6

    @property
    def what(self) -> str:
        """What the answer must be, as a phrase."""
        return f"a number ({self.unit})" if self.unit else "a number"

    def read(self, answer: Any) -> float:
        """The answer as a float; UnreadableError for anything else, NaN and infinity included."""
        value = _array(answer, "Give one number, such as 12.5.")
        if value.size != 1 or not np.isfinite(value).all():
            raise UnreadableError("Give one finite number, such as 12.5.")
        return float(value.ravel()[0])

    def same(self, given: float, wanted: float) -> bool:
        """Whether both are equal within the tolerance."""
        return abs(given - float(wanted)) <= self.within

    def of_form(self, given: float, wanted: float) -> str:
        """A hint about the form of the answer, or ""; it comes before the hints of typical mistakes."""
        in_percent = self.unit == "percent" and abs(wanted) > 1 and self.same(100 * given, wanted)
        return SHARE if in_percent else ""

    def of_rounding(self, given: float, wanted: float) -> str:
        """A hint about missing digits, or ""."""
        return ROUNDED if is_rounded(given, float(wanted)) else ""


@dataclass(frozen=True)
class Values:
    """Several numbers: a list, a tuple, an array or a tensor.

    Parameters
    ----------
    what : str
        What the answer must be, as a phrase.
    within : float
        Largest distance of any number from its right value.
    """

    what: str
    within: float = 1e-6

    def read(self, answer: Any) -> np.ndarray:
        """The answer as an array of float."""
        return _array(answer, f"Give {self.what}.")

    def same(self, given: np.ndarray, wanted: Any) -> bool:
        """Whether shapes are equal, and numbers within the tolerance."""
        wanted = np.asarray(wanted, dtype=float)
        return given.shape == wanted.shape and bool(np.all(np.abs(given - wanted) <= self.within))

    def of_form(self, given: np.ndarray, wanted: Any) -> str:
        """A hint about how many numbers there must be, and in which shape, or ""."""
        wanted = np.asarray(wanted)
        if given.shape == wanted.shape:
            return ""
        if given.size != wanted.size:
            return f"Give {self.what}. Your answer has {given.size} number{'s' if given.size > 1 else ''}."
        return f"Give {self.what}. Your answer has the shape {given.shape}."

    def of_rounding(self, given: np.ndarray, wanted: Any) -> str:
        """A hint about missing digits, or ""."""
        pairs = list(zip(given.ravel(), np.asarray(wanted, dtype=float).ravel(), strict=True))
        return ROUNDED if all(abs(a - b) <= self.within or is_rounded(a, b) for a, b in pairs) else ""


@dataclass(frozen=True)
class Letters:
    """One letter of the options in the task, or several of them in any order.

    Parameters
    ----------
    options : str
        All letters.
    several : bool
        Whether more than one may be right.
    """

    options: str = "ABC"
    several: bool = False

    @property
    def what(self) -> str:
        """What the answer must be, as a phrase."""
        first, second = self.options[:2]
        return f'letters, such as "{first}{second}"' if self.several else f'a letter, "{first}" to "{self.options[-1]}"'

    def read(self, answer: Any) -> frozenset[str]:
        """The letters of the answer."""
        text = "".join(map(str, answer)) if isinstance(answer, (list, tuple, set, frozenset)) else answer
        found = frozenset(text.upper()) - set(" ,;") if isinstance(text, str) else frozenset()
        if not found or not found <= set(self.options) or (len(found) > 1 and not self.several):
            raise UnreadableError(f"Give {self.what}.")
        return found

    def same(self, given: frozenset[str], wanted: str) -> bool:
        """Whether the letters are the same."""
        return given == frozenset(wanted)

    def of_form(self, given: frozenset[str], wanted: str) -> str:
        """Letters have no other form."""
        return ""

    def of_rounding(self, given: frozenset[str], wanted: str) -> str:
        """Letters have no digits."""
        return ""


@dataclass(frozen=True)
class Function:
    """A function that the reader writes; it is called with examples.

    Parameters
    ----------
    what : str
        What the answer must be, as a phrase.
    call : callable
        ``call(function)`` gives what is compared: whether the examples come out right.
    """

    what: str
    call: Callable[[Callable], Any]

    def read(self, answer: Any) -> Callable:
        """The function itself."""
        if not callable(answer):
            raise UnreadableError(f"Give {self.what}, without calling it: answer = my_function.")
        return answer

    def same(self, given: Callable, wanted: Callable) -> bool:
        """Whether both do the same on the examples; an error of the reader's function counts as different."""
        found, right = self._result(given), np.asarray(self.call(wanted))
        return not isinstance(found, str) and found.shape == right.shape and bool(np.allclose(found, right, atol=1e-6))

    def _result(self, function: Callable) -> np.ndarray | str:
        try:
            return np.asarray(self.call(function))
        except Exception as error:  # of code that is being learned
            return f"{type(error).__name__}: {error}"

    def of_form(self, given: Callable, wanted: Callable) -> str:
        """The error that the function raised, or ""."""
        found = self._result(given)
        return f"Your function stopped with {found[:200]}." if isinstance(found, str) else ""

    def of_rounding(self, given: Callable, wanted: Callable) -> str:
        """A function has no digits."""
        return ""


Kind = Number | Values | Letters | Function


def is_rounded(given: float, wanted: float) -> bool:
    """Whether a number other than zero is ``wanted``, rounded to at most five decimals."""
    near = given != 0 and abs(given - wanted) <= ROUNDING * abs(wanted)
    return near and any(abs(given - round(wanted, places)) < 1e-9 for places in range(6))


def _array(answer: Any, remedy: str) -> np.ndarray:
    if isinstance(answer, (str, bytes, bool)) or callable(answer):
        raise UnreadableError(remedy)
    try:
        value = np.asarray(answer, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that needs a gradient
        raise UnreadableError(remedy) from error
    if value.size == 0:
        raise UnreadableError(remedy)
    return value


# ---------------------------------------------------------------- exercises


@dataclass(frozen=True)
class Mistake:
    """A typical wrong answer.

    Parameters
    ----------
    example : object
        The answer, or a function that makes it from what the lesson hands over.
    hints : tuple of str
        A nudge, and more for the second attempt. Neither names the solution.
    """

    example: Any
    hints: tuple[str, str]


@dataclass(frozen=True)
class Exercise:
    """A task, how its answer is judged, and its solution.

    Parameters
    ----------
    name : str
        Number of the lesson and a word: "02-temperature".
    title, task : str
        Heading, and what is asked, in Markdown.
    kind : Number, Values, Letters or Function
        Form of the answer.
    expected : object
        The right answer, or a function that computes it from what the lesson hands over.
    solution : str
        Code that sets ``answer``, after the module's ``SETUP``, with numpy, pandas and e2llm under their usual names.
    why : str
        Explanation for the notebook of solutions.
    mistakes : tuple of Mistake
        Typical wrong answers.
    hints : tuple of str
        For any other wrong answer: a nudge, and more.
    given : tuple of str
        Names of the lesson that the check needs.
    before : str
        Id of the cell in front of which the exercise stands, for a prediction; "" puts it into the section of
        exercises.
    then : str
        What a right prediction is told to do: where the lesson shows the result.
    start : str
        Code in front of ``answer = None``.
    """

    name: str
    title: str
    task: str
    kind: Kind
    expected: Any
    solution: str
    why: str
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str]
    given: tuple[str, ...] = ()
    before: str = ""
    then: str = "Now run the next cell, and compare."
    start: str = ""

    @property
    def lesson(self) -> str:
        """Number of its lesson, two digits."""
        return self.name[:2]

    def wanted(self, known: dict[str, Any]) -> Any:
        """The right answer.

        Parameters
        ----------
        known : dict
            Values of :attr:`given`.

        Raises
        ------
        TypeError
            If one is missing.
        """
        missing = [name for name in self.given if name not in known]
        if missing:
            call = ", ".join(f"{name}={name}" for name in self.given)
            raise TypeError(f"The check of '{self.name}' needs {', '.join(missing)} of the lesson: "
                            f'write e2llm.check("{self.name}", answer, {call}).')
        if not self.given:
            return self.expected
        return self.expected(**{name: known[name] for name in self.given})


@dataclass(frozen=True)
class Verdict:
    """What a check says: ``state`` is one of :data:`RIGHT`, :data:`OPEN` and :data:`NOT_YET`."""

    state: str
    text: str


def example_of(exercise: Exercise, mistake: Mistake, known: dict[str, Any]) -> Any:
    """The wrong answer of a mistake.

    Parameters
    ----------
    exercise, mistake : Exercise, Mistake
        The mistake belongs to the exercise.
    known : dict
        As for :func:`judge`.
    """
    if not callable(mistake.example) or isinstance(exercise.kind, Function):
        return mistake.example
    return mistake.example(**{name: known[name] for name in exercise.given})


def judge(exercise: Exercise, answer: Any, known: dict[str, Any] | None = None, attempt: int = 1) -> Verdict:
    """Judge an answer.

    Parameters
    ----------
    exercise : Exercise
        What was asked.
    answer : object
        None if it is not answered yet.
    known : dict, optional
        Values of the lesson that the exercise names in ``given``.
    attempt : int
        1 for the first wrong answer, which gets a nudge; later ones get more.
    """
    known = known or {}
    if answer is None:
        return Verdict(OPEN, f"Not answered yet. Set answer to {exercise.kind.what}, and run this cell again.")
    wanted = exercise.wanted(known)
    try:
        given: Any = exercise.kind.read(answer)
    except UnreadableError as error:
        return Verdict(NOT_YET, f"Not yet. {error}")
    kind: Any = exercise.kind
    if kind.same(given, wanted):
        return Verdict(RIGHT, f"Right. {exercise.then}" if exercise.before else "Right.")
    hints: Sequence[str] = exercise.hints
    if of_form := kind.of_form(given, wanted):
        hints = (of_form, exercise.hints[0])
    elif mistake := next((one for one in exercise.mistakes
                          if kind.same(given, kind.read(example_of(exercise, one, known)))), None):
        hints = mistake.hints
    elif of_rounding := kind.of_rounding(given, wanted):
        hints = (of_rounding, "The last digit that you give must be right.")
    return Verdict(NOT_YET, f"Not yet. {' '.join(hints[:attempt])}")
