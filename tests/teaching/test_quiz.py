"""Five questions a lesson: one right letter each, hidden in the file, and an answer in the lesson's own text."""

from __future__ import annotations

from pathlib import Path

import ipywidgets
import nbformat
import pytest

from e2llm.teaching import quiz
from e2llm.teaching.exercises import LESSONS
from e2llm.teaching.quiz_panel import panel
from e2llm.teaching.quiz_panel import quiz as ask

ROOT = Path(__file__).resolve().parents[2]
every_lesson = pytest.mark.parametrize("lesson", LESSONS)


@every_lesson
def test_five_questions_have_one_right_letter_each_and_their_section_is_in_the_lesson(lesson):
    questions = quiz.questions(lesson)
    assert len(questions) == 5
    (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    headings = {line.lstrip("# ") for cell in cells if cell.cell_type == "markdown"
                for line in cell.source.splitlines() if line.startswith("#")}
    for one in questions:
        assert sum(one.is_right(letter) for letter in quiz.LETTERS) == 1
        assert len(set(one.choices)) == 4 and one.where in headings, one.where
    assert len(set(quiz.key(lesson))) >= 3, "no letter is the safe guess"


def test_neither_the_file_of_questions_nor_a_lesson_shows_an_answer():
    for lesson in LESSONS:
        (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
        text = path.read_text(encoding="utf-8") + Path(quiz.__file__).with_name("quiz.yaml").read_text(encoding="utf-8")
        assert quiz.key(lesson) not in text
    assert len({quiz.seal(lesson, number, "A") for lesson in LESSONS for number in range(1, 6)}) == 50


def test_the_right_choice_cannot_be_told_by_its_length():
    longest = []
    for lesson in LESSONS:
        for one, letter in zip(quiz.questions(lesson), quiz.key(lesson), strict=True):
            right = one.choices[quiz.LETTERS.index(letter)]
            others = [len(choice) for choice in one.choices if choice != right]
            assert len(right) <= 1.15 * max(others), one.text
            longest.append(len(right) > max(others))
    assert sum(longest) <= len(longest) / 4, "one in four is the longest by chance"


def test_a_hint_does_not_hold_the_right_choice():
    for lesson in LESSONS:
        for one, letter in zip(quiz.questions(lesson), quiz.key(lesson), strict=True):
            assert one.hint[-1] in ".?" and len(one.hint.split()) <= 20
            assert one.choices[quiz.LETTERS.index(letter)].lower() not in one.hint.lower()
            assert "?." not in one.verdict("B" if letter != "B" else "A")


def test_letters_are_judged_and_a_wrong_one_names_the_section(capsys):
    right = quiz.key("02")
    ask("02", right.lower())
    assert "5 of 5 right" in capsys.readouterr().out
    wrong = "".join(next(letter for letter in "ABCD" if letter != one) for one in right)
    ask("02", list(wrong))
    said = capsys.readouterr().out
    assert "0 of 5 right" in said and all(
        f'{one.hint} Read again the section "{one.where}".' in said for one in quiz.questions("02"))
    with pytest.raises(ValueError, match="give 5 letters"):
        ask("02", "AB")
    with pytest.raises(ValueError, match="no quiz '12'"):
        ask("12")


def test_in_batch_it_is_text_and_in_jupyterlab_it_is_buttons(capsys, monkeypatch):
    monkeypatch.setenv("E2LLM_BATCH", "1")
    assert ask("07") is None and quiz.questions("07")[4].choices[3] in capsys.readouterr().out
    monkeypatch.delenv("E2LLM_BATCH")
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    assert isinstance(ask("07"), ipywidgets.VBox)


def test_a_click_shows_the_verdict_beside_its_own_question_and_text_is_escaped():
    first, other = quiz.questions("00")[:2]
    odd = quiz.Question("00", 2, "<b>1 < 2</b>", other.choices, other.where, other.hint, other.sealed)
    view = panel([first, odd])
    (_, buttons, verdict), (text, _, untouched) = (block.children for block in view.children)
    buttons.value = quiz.key("00")[0]
    assert "Right." in verdict.value and "Not answered yet." in untouched.value
    buttons.value = next(letter for letter in "ABCD" if letter != quiz.key("00")[0])
    assert "Read again" in verdict.value and "&lt;b&gt;1 &lt; 2" in text.value
