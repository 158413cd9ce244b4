"""The quiz of each lesson: five questions, answered by letters; the answers are stored as salted digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..core.files import read_yaml

LETTERS = "ABCD"
_FILE = Path(__file__).with_name("quiz.yaml")


@dataclass(frozen=True)
class Question:
    """One question.

    Parameters
    ----------
    lesson : str
        Two digits.
    number : int
        From 1.
    text : str
        The question.
    choices : tuple of str
        One for each letter.
    where : str
        Heading of the lesson's section that answers it.
    hint : str
        For a wrong answer, whichever it was; it does not name the right one.
    sealed : str
        Digest of the right letter; see :func:`seal`.
    """

    lesson: str
    number: int
    text: str
    choices: tuple[str, ...]
    where: str
    hint: str
    sealed: str

    def is_right(self, letter: str) -> bool:
        """Whether a letter, small or large, is the right one."""
        return seal(self.lesson, self.number, letter.strip().upper()) == self.sealed

    def verdict(self, letter: str) -> str:
        """What the reader is told about an answer."""
        if letter.strip().upper() not in tuple(LETTERS[:len(self.choices)]):
            return f"Give a letter, A to {LETTERS[len(self.choices) - 1]}."
        if self.is_right(letter):
            return "Right."
        return f'Not yet. {self.hint} Read again the section "{self.where}".'


def seal(lesson: str, number: int, letter: str) -> str:
    """Digest of an answer, salted with its place, so that the file of questions does not show it.

    This hides the answer from a glance. It is no protection: whoever tries all letters finds it.

    Parameters
    ----------
    lesson, number, letter : str, int, str
        Two digits, the number of the question from 1, and the letter.
    """
    return hashlib.sha256(f"e2llm lesson {lesson}, question {number}: {letter}".encode()).hexdigest()[:16]


@cache
def questions(lesson: str) -> tuple[Question, ...]:
    """The questions of a lesson.

    Parameters
    ----------
    lesson : str
        Two digits, such as "02".

    Raises
    ------
    ValueError
        If there is no such lesson.
    """
    stored, _ = read_yaml(_FILE)
    if lesson not in stored:
        raise ValueError(f"There is no quiz '{lesson}': take one of {', '.join(stored)}.")
    return tuple(Question(lesson, number, one["question"], tuple(one["choices"]), one["where"], one["hint"],
                          one["sealed"])
                 for number, one in enumerate(stored[lesson], 1))


def key(lesson: str) -> str:
    """The right letters of a lesson, for teachers: found by trying them all.

    Parameters
    ----------
    lesson : str
        Two digits.
    """
    return "".join(next(letter for letter in LETTERS if one.is_right(letter)) for one in questions(lesson))


def printed(lesson: str) -> str:
    """The questions as text, and how to answer them.

    Parameters
    ----------
    lesson : str
        Two digits.
    """
    blocks = ["\n".join([f"{one.number}. {one.text}", *(f"   {letter}  {choice}" for letter, choice
                                                          in zip(LETTERS, one.choices, strict=False))])
              for one in questions(lesson)]
    return "\n\n".join([*blocks, f'Answer with five letters: e2llm.quiz("{lesson}", "...")'])
