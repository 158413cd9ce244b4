"""Write notebooks/index.ipynb: a card for each lesson, made of the lesson's own title and promise.

``python docs/lesson_index.py`` reads the first cell of every lesson, and the minutes in the README's table.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "notebooks" / "index.ipynb"
_BEFORE = """# E²-LLM: lessons

Four seconds of EEG go in. An emotion comes out, with reasons that are compared with the signal.
The lessons teach the method on simulated EEG. They need no GPU and no download.

1. Make a run: `e2llm run` in a terminal executes lessons 01 to 05. You can also step through them here, in their order.
2. Open a lesson by its title, and run its cells from top to bottom (Shift+Enter). 00 shows what a finished run can do.
3. Something is missing or slow? `e2llm doctor` in a terminal says what to do.

Minutes are for two CPU cores."""
_AFTER = """## Further reading

[What the results are](../docs/results.md) · [How scores are controlled](../docs/controls.md) ·
[Glossary](../docs/glossary.md) · [Your own recordings](../docs/own_data.md) · [Limits](../docs/limits.md)"""


def card(lesson: Path, minutes: str) -> str:
    """The card of a lesson in Markdown.

    Parameters
    ----------
    lesson : Path
        Its notebook, whose first cell has the title and the promise.
    minutes : str
        As the README says.

    Raises
    ------
    ValueError
        If the first cell is of another form.
    """
    first = nbformat.read(lesson, as_version=4).cells[0].source
    found = re.match(r"# (?P<title>.+)\n\n\*\*Promise\.\*\* (?P<promise>.+?)(?:\n\n|$)", first, re.DOTALL)
    if found is None:
        raise ValueError(f"{lesson.name}: the first cell must begin with '# title' and '**Promise.** …'.")
    unit = "minute" if minutes == "1" else "minutes"
    return f"> ### [{found['title']}]({lesson.name})\n> *{minutes} {unit}*\n>\n> {' '.join(found['promise'].split())}"


def index() -> str:
    """The notebook as text."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    minutes = dict(re.findall(r"^\| \[.+?\]\(notebooks/(\S+?)\) \| (\S+) \|", readme, re.MULTILINE))
    cards = [card(lesson, minutes[lesson.name]) for lesson in sorted(INDEX.parent.glob("[0-9][0-9]_*.ipynb"))]
    texts = [_BEFORE, *cards, _AFTER]
    cells = [nbformat.v4.new_markdown_cell(text, id=f"card-{i:02}") for i, text in enumerate(texts)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    made.nbformat_minor = 5
    return nbformat.writes(made) + "\n"


if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")
    print(INDEX)
