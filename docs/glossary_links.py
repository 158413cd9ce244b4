"""Link the first use of each term of the glossary in each lesson.

``python docs/glossary_links.py`` may be run at any time: a term that a lesson links already is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from e2llm.core.files import replacing

DOCS = Path(__file__).resolve().parent
LESSONS = sorted((DOCS.parent / "notebooks").glob("0*.ipynb"))
PAGE = "../docs/glossary.md"
EVERYDAY = {"window", "segment", "subject", "level", "seed", "source", "head", "item", "clip", "chance", "control"}
_NO_PROSE = re.compile(  # what holds no link: headings, tables, formulas, code, emphasized field names, links, HTML
    r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]+`|!?\[[^\]]*\]\([^)]*\)|<[^>]+>|^#[^\n]*|^\|[^\n]*|^\*[A-Z][^*\n]*:\*",
    re.DOTALL | re.MULTILINE)


def terms() -> list[str]:
    """Terms of the glossary, the longest first: *evidence probe* is not *evidence*."""
    blocks = re.findall(r"```\{glossary\}\n(.*?)```", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.DOTALL)
    found = [line for block in blocks for line in block.splitlines() if line and not line.startswith(" ")]
    return sorted(found, key=len, reverse=True)


def with_links(lesson: NotebookNode, known: Iterable[str]) -> set[str]:
    """Link terms where a lesson uses them first, in its own prose.

    Parameters
    ----------
    lesson : NotebookNode
        Is changed.
    known : iterable of str
        Everyday terms that an earlier lesson has linked.

    Returns
    -------
    set of str
        Everyday terms that are linked now.
    """
    cells = [cell for cell in lesson.cells if cell.cell_type == "markdown"
             and not {"exercise", "quiz"} & set(cell.metadata.get("tags", ()))]
    linked = {words.lower() for cell in cells
              for words in re.findall(rf"\[([^\[\]]+)\]\({re.escape(PAGE)}\)", cell.source)}
    done = set(known) | {term for term in terms() if {term.lower(), f"{term.lower()}s"} & linked}
    for term in terms():
        if term not in done and any(_link(cell, term) for cell in cells):
            done.add(term)
    return done & EVERYDAY


def _link(cell: NotebookNode, term: str) -> bool:
    """Link the first use of a term in a cell; False if there is none."""
    body, end, rest = cell.source.partition("## Try it yourself")
    # A longer term that begins or ends with this one is another term.
    longer = [other for other in terms() if term in other and other != term]
    pattern = re.compile("|".join([_NO_PROSE.pattern, *(rf"\b{re.escape(other)}s?\b" for other in longer),
                                   rf"(?P<use>(?<![\w-]){re.escape(term)}s?(?![\w-]))"]),
                         re.DOTALL | re.MULTILINE | re.IGNORECASE)
    use = next((match for match in pattern.finditer(body) if match["use"]), None)
    if use is None:
        return False
    cell.source = f"{body[:use.start()]}[{use['use']}]({PAGE}){body[use.end():]}{end}{rest}"
    return True


def main() -> None:
    """Write the links into the lessons."""
    known: set[str] = set()
    for path in LESSONS:
        lesson = nbformat.read(path, as_version=4)
        before = nbformat.writes(lesson)
        known = with_links(lesson, known)
        if nbformat.writes(lesson) != before:
            with replacing(path) as partial:
                nbformat.write(lesson, partial)


if __name__ == "__main__":
    main()
