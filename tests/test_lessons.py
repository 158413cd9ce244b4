"""Lessons as lessons: parts from their one source, few words, short sentences, slides, and a guide that names them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell, new_notebook
from test_docs import prose

ROOT = Path(__file__).resolve().parents[1]
MOST_WORDS = 900
LONGEST_SENTENCE = 25  # words
LESSONS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
TAUGHT = ("02", "03", "04", "07")  # with an idea in a drawing, a formula and toy tensors


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parts():
    return _script("lesson_parts")


def _sentences(path: Path) -> list[str]:
    """Prose without tables, formulas, exercises, quiz, and what stands from *Try it yourself* on."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"
             and not {"exercise", "quiz"} & set(cell.metadata.get("tags", ()))]
    no_prose = re.compile(r"\$\$.*?\$\$|^\|[^\n]*$", re.DOTALL | re.MULTILINE)
    texts = [no_prose.sub("", cell.source.split("## Try it yourself")[0]) for cell in cells]
    return [part for text in texts for sentence in prose(text) for part in re.split(r"(?<=[:;?!])\*?\s+", sentence)]


@every_lesson
def test_exercises_quiz_and_slides_of_a_lesson_are_those_of_their_source(path, parts):
    committed = nbformat.read(path, as_version=4)
    made = parts.with_parts(path.name[:2], nbformat.read(path, as_version=4))
    assert nbformat.writes(made) == nbformat.writes(committed), "run python docs/lesson_parts.py"
    stored = nbformat.read(ROOT / "notebooks" / "solutions" / path.name, as_version=4)
    assert nbformat.writes(parts.solutions(path.name[:2])) == nbformat.writes(stored), "run python docs/lesson_parts.py"


@every_lesson
def test_a_lesson_is_short_and_so_are_its_sentences(path):
    sentences = [sentence.split() for sentence in _sentences(path)]
    longest = max(sentences, key=len)
    assert sum(map(len, sentences)) <= MOST_WORDS
    assert len(longest) <= LONGEST_SENTENCE, " ".join(longest)


@every_lesson
def test_a_lesson_is_a_deck_of_slides(path):
    deck, _ = SlidesExporter().from_filename(str(path))
    assert deck.count("<section>") > 2 * 5, "a slide and its stack are a section each"
    parameters = next(cell.source.splitlines()[0] for cell in nbformat.read(path, as_version=4).cells
                      if "parameters" in cell.metadata.get("tags", ()))
    assert parameters.split("#")[1].strip() not in re.sub(r"<[^>]+>", "", deck), "the cell of parameters is no slide"


@every_lesson
def test_a_lesson_links_the_glossary(path):
    text = path.read_text(encoding="utf-8")
    linked = re.findall(r"\[([^\[\]]+)\]\(\.\./docs/glossary\.md\)", text)
    terms = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").lower()
    assert linked
    for term in linked:
        assert term.lower().rstrip("s") in terms, term


def test_the_first_use_of_each_term_of_the_glossary_is_linked():
    links, known = _script("glossary_links"), set()
    for path in LESSONS:
        lesson = nbformat.read(path, as_version=4)
        known = links.with_links(lesson, known)
        assert nbformat.writes(lesson) == nbformat.writes(nbformat.read(path, as_version=4)), (
            f"{path.name}: run python docs/glossary_links.py")


def test_links_go_to_first_uses_in_prose_and_to_the_longest_term():
    links = _script("glossary_links")
    cells = [new_markdown_cell("# Evidence\n\n`evidence` is code, an evidence probe is another term.", id="a"),
             new_markdown_cell("Take the *evidence*, then the evidence again, and two claims.", id="b"),
             new_markdown_cell("An anchor.", id="c", metadata={"tags": ["exercise"]}),
             new_markdown_cell("## Try it yourself\nAn anchor.", id="d")]
    lesson = new_notebook(cells=cells)
    links.with_links(lesson, ())
    assert lesson.cells[0].source == ("# Evidence\n\n`evidence` is code, an [evidence probe](../docs/glossary.md) is "
                                      "another term.")
    assert lesson.cells[1].source == ("Take the *[evidence](../docs/glossary.md)*, then the evidence again, and two "
                                      "[claims](../docs/glossary.md).")
    assert "glossary" not in lesson.cells[2].source + lesson.cells[3].source
    before = nbformat.writes(lesson)
    links.with_links(lesson, ())
    assert nbformat.writes(lesson) == before


@every_lesson
def test_a_lesson_says_what_is_needed_what_it_gives_where_it_breaks_and_what_to_read(path):
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for part in ("*What you need to know:*", "*What you will be able to do:*", "## Where this breaks", "## References"):
        assert part in text, part


@pytest.mark.parametrize("number", TAUGHT)
def test_a_lesson_that_teaches_says_what_is_needed_and_shows_idea_formula_tensors_and_limits(number):
    (path,) = [path for path in LESSONS if path.name.startswith(number)]
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for part in ("*What you need to know:*", "*What you will be able to do:*", "by hand", "$$", "## Where this breaks",
                 "## References"):
        assert part in text, part
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "e2llm.plots_lessons." in code and "package" in code


def test_the_guide_names_every_lesson_with_its_words_and_the_minutes_of_the_front_page():
    guide, readme = ((ROOT / page).read_text(encoding="utf-8") for page in ("docs/teaching.md", "README.md"))
    minutes = re.findall(r"^\| \[(\d\d) .+?\]\(notebooks/\S+?\) \| (\d+) \|", readme, re.MULTILINE)
    assert len(minutes) == len(LESSONS)
    for number, value in minutes:
        (lesson,) = [path for path in LESSONS if path.name.startswith(number)]
        words = sum(len(sentence.split()) for sentence in _sentences(lesson))
        assert re.search(rf"^\| {number} [^|]*\|[^|]*\| {value} \| {words} \|", guide, re.MULTILINE), (number, words)
        assert f"### Lesson {number}" in guide
