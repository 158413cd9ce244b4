"""Lessons as lessons: parts from their one source, few words, short sentences, slides, and a guide that names them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbconvert import SlidesExporter
from test_docs import prose

ROOT = Path(__file__).resolve().parents[1]
MOST_WORDS = 900
LONGEST_SENTENCE = 25  # words
LESSONS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
TAUGHT = ("02", "03", "04", "07")  # with an idea in a drawing, a formula and toy tensors


@pytest.fixture(scope="module")
def parts():
    spec = importlib.util.spec_from_file_location("lesson_parts", ROOT / "docs" / "lesson_parts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def test_the_guide_names_every_lesson_with_the_minutes_of_the_front_page():
    guide, readme = ((ROOT / page).read_text(encoding="utf-8") for page in ("docs/teaching.md", "README.md"))
    minutes = re.findall(r"^\| \[(\d\d) .+?\]\(notebooks/\S+?\) \| (\d+) \|", readme, re.MULTILINE)
    assert len(minutes) == len(LESSONS)
    for number, value in minutes:
        assert re.search(rf"^\| {number} [^|]*\|[^|]*\| {value} \|", guide, re.MULTILINE), number
        assert f"### Lesson {number}" in guide
