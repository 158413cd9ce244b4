"""The quiz that a lesson shows: buttons in JupyterLab, which copies on a page do not share, and text elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence

import ipywidgets

from ..core.environment import is_interactive
from .quiz import LETTERS, Question, printed, questions

_WIDE = ipywidgets.Layout(width="auto", max_width="100%")


def quiz(lesson: str, answers: str | Sequence[str] | None = None):
    """The quiz of a lesson: buttons in JupyterLab, text in a batch run; or a verdict on each given letter.

    Parameters
    ----------
    lesson : str
        Two digits, such as "02".
    answers : str or sequence of str, optional
        A letter for each question. A wrong letter is answered with a hint and the section to read, not with the
        solution.

    Returns
    -------
    ipywidgets.VBox or None
        Widgets where a reader has the notebook open and gave no letters. None after text was printed.

    Raises
    ------
    ValueError
        If there is no such lesson, or another number of letters than of questions.
    """
    asked = questions(lesson)
    if answers is None:
        if is_interactive():
            return panel(asked)
        print(printed(lesson))
        return None
    letters = [letter for letter in answers if letter not in " ,;"]
    if len(letters) != len(asked):
        raise ValueError(f"The quiz of lesson {lesson} has {len(asked)} questions: give {len(asked)} letters, such as "
                         f'e2llm.quiz("{lesson}", "{(LETTERS * 2)[:len(asked)]}").')
    for one, letter in zip(asked, letters, strict=True):
        print(f"{one.number}. {letter.upper()}: {one.verdict(letter)}")
    print(f"{sum(one.is_right(letter) for one, letter in zip(asked, letters, strict=True))} of {len(asked)} right")
    return None


def panel(questions: Sequence[Question]) -> ipywidgets.VBox:
    """Radio buttons for each question, and its verdict below as soon as a choice is made.

    Parameters
    ----------
    questions : sequence of Question
        Of one lesson.
    """
    return ipywidgets.VBox([_block(question) for question in questions])


def _block(question: Question) -> ipywidgets.VBox:
    text = ipywidgets.HTML(f"<b>{question.number}. {html.escape(question.text)}</b>")
    options = [(f"{letter}  {choice}", letter) for letter, choice in zip(LETTERS, question.choices, strict=False)]
    buttons = ipywidgets.RadioButtons(options=options, value=None, layout=_WIDE)
    verdict = ipywidgets.HTML("<i>Not answered yet.</i>")

    def show(change: dict) -> None:
        verdict.value = f"<i>{html.escape(question.verdict(change['new'] or ''))}</i>"

    buttons.observe(show, "value")
    return ipywidgets.VBox([text, buttons, verdict])
