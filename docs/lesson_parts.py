"""Write exercises, quiz and slides into the lessons, and the notebooks of solutions, from ``e2llm/teaching``.

``python docs/lesson_parts.py`` may be run at any time: it replaces what it wrote before and leaves all else as it is.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from e2llm.core.files import replacing
from e2llm.teaching import quiz
from e2llm.teaching.exercises import exercises
from e2llm.teaching.judging import Exercise, judge

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}
SOLUTIONS = NOTEBOOKS / "solutions"
TAGS = {"exercise", "quiz"}
MOST = 100  # characters of a line of code
BEFORE = "## Try it yourself"  # the section in front of which exercises and quiz stand
_EXERCISES = """## Exercises

Set `answer`, then run the cell. The check says *right*, or gives a hint. The second wrong answer gets more help. \
[Solutions](solutions/{name}) are in a notebook of their own."""
_QUIZ = """## Quiz

Five questions about this lesson. In JupyterLab you click. A wrong answer gets a hint and the section to read again."""
_IMPORTS = {"np": "import numpy as np", "pd": "import pandas as pd", "torch": "import torch", "e2llm": "import e2llm"}


# ---------------------------------------------------------------- cells of a lesson


def exercise_cells(exercise: Exercise) -> list[NotebookNode]:
    """Task and answer cell of an exercise."""
    word = "Predict" if exercise.before else "Exercise"
    task = f"### {word}: {exercise.title}\n\n{exercise.task}"
    lines = [exercise.start] * bool(exercise.start)
    code = "\n".join([*lines, f"answer = None  # {exercise.kind.what}", call(exercise)])
    return [new_markdown_cell(task, id=f"ex-{exercise.name}-task", metadata={"tags": ["exercise"]}),
            _printing(code, f"ex-{exercise.name}", "exercise", judge(exercise, None).text)]


def call(exercise: Exercise) -> str:
    """The check of an exercise as code."""
    given = ", ".join(["answer", *(f"{name}={name}" for name in exercise.given)])
    start = f'e2llm.check("{exercise.name}", '
    gap = "" if len(start + given) < MOST else "\n" + " " * len("e2llm.check(")
    return f"{start.rstrip() if gap else start}{gap}{given})"


def _printing(code: str, name: str, tag: str, text: str) -> NotebookNode:
    cell = new_code_cell(code, id=name, metadata={"tags": [tag]})
    cell.outputs = [new_output("stream", name="stdout", text=text + "\n")]
    return cell


def with_parts(lesson: str, book: NotebookNode) -> NotebookNode:
    """A lesson with its exercises, quiz and slides.

    Parameters
    ----------
    lesson : str
        Two digits.
    book : NotebookNode
        The lesson; changed in place.

    Raises
    ------
    ValueError
        If a cell in front of which something must stand is not there.
    """
    book.cells = [cell for cell in book.cells if not TAGS & set(cell.metadata.get("tags", ()))]
    own = [exercise for exercise in exercises().values() if exercise.lesson == lesson]
    for exercise in own:
        if exercise.before:
            at = _place(book, f"the cell '{exercise.before}'", lambda cell, name=exercise.before: cell.id == name)
            book.cells[at:at] = exercise_cells(exercise)
    head = _EXERCISES.format(name=LESSONS[lesson].name)
    section = [new_markdown_cell(head, id="exercises", metadata={"tags": ["exercise"]})]
    section += [cell for exercise in own if not exercise.before for cell in exercise_cells(exercise)]
    section += [new_markdown_cell(_QUIZ, id="quiz-intro", metadata={"tags": ["quiz"]}),
                _printing(f'e2llm.quiz("{lesson}")', "quiz", "quiz", quiz.printed(lesson))]
    at = _place(book, BEFORE, lambda cell: cell.cell_type == "markdown" and BEFORE in cell.source)
    book.cells[at:at] = section
    for number, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), 1):
        for counted in (cell, *(output for output in cell.outputs if "execution_count" in output)):
            counted.execution_count = number
    for cell in book.cells:
        cell.metadata["slideshow"] = {"slide_type": slide_type(cell)}
    book.nbformat_minor = 5
    return book


def _place(book: NotebookNode, what: str, is_it) -> int:
    found = [place for place, cell in enumerate(book.cells) if is_it(cell)]
    if not found:
        raise ValueError(f"The lesson has no {what}: correct 'before' in e2llm/teaching/lessons, or the lesson.")
    return found[0]


def slide_type(cell: NotebookNode) -> str:
    """Where a cell stands in the slides: headings begin a slide, figures a slide below it; set-up is left out."""
    tags = set(cell.metadata.get("tags", ()))
    if cell.cell_type == "markdown":
        level = re.match(r"#+ ", cell.source)
        return "-" if level is None else "slide" if len(level[0]) <= 3 else "subslide"
    if "parameters" in tags or re.match(r"(import|from) ", cell.source):
        return "skip"
    return "subslide" if "plt.show()" in cell.source else "-"


# ---------------------------------------------------------------- notebooks of solutions


def solutions(lesson: str) -> NotebookNode:
    """The notebook with the solutions of a lesson, not executed: the tests run every solution.

    Parameters
    ----------
    lesson : str
        Two digits.
    """
    own = [exercise for exercise in exercises().values() if exercise.lesson == lesson]
    setup = import_module(f"e2llm.teaching.lessons.lesson_{lesson}").SETUP
    code = "\n".join([setup, "e2llm", *(f"{one.start}\n{one.solution}" for one in own)])
    needed = [line for name, line in _IMPORTS.items() if re.search(rf"\b{name}\b", code)]
    third_party, own_import = needed[:-1], needed[-1:]
    first = "\n".join([*third_party, *[""] * bool(third_party), *own_import, *["", setup] * bool(setup)])
    title = nbformat.read(LESSONS[lesson], as_version=4).cells[0].source.splitlines()[0]
    note = ("Each exercise of the lesson, with a solution and the reason. The checks print *Right.*\n\n"
            "`python docs/lesson_parts.py` writes this notebook and the lesson's exercises from one source.")
    cells = [new_markdown_cell(f"{title}: solutions\n\n{note}", id="title")]
    if "run_name" in setup:
        cells.append(new_code_cell('run_name = "tiny"  # a finished run below runs/', id="run",
                                   metadata={"tags": ["parameters"]}))
    cells.append(new_code_cell(first, id="setup"))
    for one in own:
        answer = "\n".join([*[one.start] * bool(one.start), one.solution, call(one)])
        cells += [new_markdown_cell(f"## {one.title}\n\n{one.task}", id=f"{one.name}-task"),
                  new_code_cell(answer, id=one.name), new_markdown_cell(one.why, id=f"{one.name}-why")]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    book.nbformat_minor = 5
    return book


def main() -> None:
    """Write all lessons and all notebooks of solutions."""
    SOLUTIONS.mkdir(exist_ok=True)
    for lesson, path in LESSONS.items():
        made = {path: with_parts(lesson, nbformat.read(path, as_version=4)), SOLUTIONS / path.name: solutions(lesson)}
        for target, book in made.items():
            with replacing(target) as whole:
                nbformat.write(book, whole)
            print(target.relative_to(NOTEBOOKS.parent))


if __name__ == "__main__":
    main()
