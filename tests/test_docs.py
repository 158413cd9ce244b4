"""README stays short, the examples of the contributor's page run, and the documentation builds without a warning."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from e2llm.app.parameters import Parameters
from e2llm.core.claims import GRADED
from e2llm.core.verdicts import agrees
from e2llm.data import sources
from e2llm.evaluation import controls
from e2llm.models import encoders

ROOT = Path(__file__).resolve().parents[1]
README, DOCS = (ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "docs"
CONTRIBUTE = (DOCS / "contribute.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## Add an? (.+?)\n.*?^```python\n(.+?)^```", CONTRIBUTE, re.MULTILINE | re.DOTALL))
LONGEST_SENTENCE = 30  # words


def prose(text: str) -> list[str]:
    """Sentences of a page without code, link targets and pictures; a cell or an item of a list is text of its own."""
    text = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]\(.*?\)", "", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", text))
    blocks = re.split(r"\n\s*\n|\n(?=[-|#]|\d+\. )|\|", text)
    return [sentence for block in blocks for sentence in re.split(r"(?<=[.!?])\s+", block.strip()) if sentence]


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Examples register what they add; a test leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    for module, name in ((sources, "SOURCES"), (controls, "SIGNAL_CONTROLS"), (encoders, "_KNOWN")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


def run_example(name: str) -> dict:
    assert len(EXAMPLES[name].splitlines()) <= 40
    found: dict = {"__name__": "example"}
    exec(compile(EXAMPLES[name], f"docs/contribute.md: {name}", "exec", dont_inherit=True), found)
    return found


def test_readme_is_short_in_lines_and_in_sentences():
    assert len(README.splitlines()) <= 150
    sentences = prose(README)
    assert len(sentences) > 50 and max(map(len, (sentence.split() for sentence in sentences))) <= LONGEST_SENTENCE, \
        max(sentences, key=lambda sentence: len(sentence.split()))


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_sentences_of_the_documentation_are_short(page):
    longest = max(prose((DOCS / page).read_text(encoding="utf-8")), key=lambda sentence: len(sentence.split()))
    assert len(longest.split()) <= LONGEST_SENTENCE, longest


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))])
def test_links_and_pictures_of_a_page_are_there(page):
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
        generated = target.startswith("api/")  # made when the pages are built
        assert generated or target.startswith("http") or (path.parent / target).exists(), target


def test_every_folder_named_in_the_readme_exists_and_none_is_forgotten():
    named = set(re.findall(r"^  (\w+)/ ", README, re.MULTILINE))
    assert named == {path.parent.name for path in (ROOT / "e2llm").glob("*/__init__.py")}


def test_every_parameter_and_module_that_the_page_of_choices_names_exists():
    choices = (DOCS / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]*\|[^|]*\| (.+?) \|$", choices, re.MULTILINE)[1:]
    assert len(rows) > 12
    for name in re.findall(r"(?<!})`([a-z_]+)`", " ".join(rows)):
        assert name in Parameters.model_fields, name
    for page in DOCS.glob("*.md"):
        for module in re.findall(r"{py:mod}`([\w.]+)`", page.read_text(encoding="utf-8")):
            assert importlib.util.find_spec(module), module


def test_scores_in_the_pages_can_be_written_anew():
    spec = importlib.util.spec_from_file_location("refresh_numbers", DOCS / "refresh_numbers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    score = {"score": 0.5, "low": 0.25, "high": 0.75}
    price = {"name": "rank", "from the EEG": 0.5, "from the thought": 0.25, "difference": -0.25, "low": -0.5,
             "high": 0.1}
    metrics = {"tables": {"tier_1": [score | {"name": "LLM"}], "tiers_2_and_3": [score | {"name": "rank"}] * 3,
                          "from_thought": [score | {"name": "predict", "group": "from the thought"},
                                           score | {"name": "rank", "group": "from the thought"}], "price": [price]}}
    new = {page: module.refreshed((ROOT / page).read_text(encoding="utf-8"), metrics) for page in module.PAGES}
    changed = "50.0 (25.0 – 75.0)"
    assert f"| LLM, from the thought | {changed} |" in new["README.md"]
    assert "| rank | 50.0 | 25.0 | −25.0 (−50.0 – +10.0) |" in new["docs/explanations.md"]
    assert f"| LLM | {changed} | the whole model" in new["README.md"] and new["README.md"].count(changed) == 2
    assert f"| rank | {changed} | {changed} | {changed} | 14." in new["docs/results.md"]
    assert new["docs/results.md"].count(changed) == 5 and new["README.md"].count("\n") == README.count("\n")


def test_the_picture_is_drawn_from_one_answer_whose_verdicts_agree_with_its_z():
    example = json.loads((DOCS / "pipeline_example.json").read_text(encoding="utf-8"))
    assert example["answer"] == max(example["probabilities"], key=example["probabilities"].get)
    for claim in example["claims"]:
        assert claim["claim"] in example["thought"]
        stated = GRADED.words.index(" ".join(claim["claim"].rsplit(" ", 2)[1:]))
        assert (claim["verdict"] == "true") == bool(agrees(stated, GRADED.index(claim["z"]), GRADED))
    assert len(example["ch_names"]) == len(next(iter(example["channel_z"].values()))) == 58


def test_every_example_of_the_contributors_page_is_tested():
    assert list(EXAMPLES) == ["dataset", "encoder", "task kind", "control"]


def test_example_dataset(known):
    windows = run_example("dataset")["windows"]
    assert list(windows.index["label"]) == ["calm", "calm", "tense", "tense"]
    assert windows.data.shape == (4, 4, 1024) and "numpy" in sources.SOURCES


def test_example_encoder(known):
    found = run_example("encoder")
    assert found["tokens"].shape == (2, 16, 1, 8)
    assert isinstance(found["encoder"], encoders.Encoder)


def test_example_task(known):
    items = run_example("task kind")["items"]
    assert {item.answer for item in items} == {"yes", "no"} and 70 < sum(item.answer == "yes" for item in items) < 130


def test_example_control(known):
    table = run_example("control")["table"].set_index("group")
    assert table.loc["EEG", "score"] > 0.95
    assert abs(table.loc["equal power", "score"] - 0.5) < 0.1


@pytest.mark.full
def test_documentation_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_nb", "numpydoc", "pydata_sphinx_theme"):
        pytest.importorskip(package, reason='the documentation is not built: pip install -e ".[docs]"')
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    built = subprocess.run([*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, timeout=900)
    assert built.returncode == 0, built.stderr[-4000:]
    pages = {path.relative_to(tmp_path / "html").as_posix() for path in (tmp_path / "html").rglob("*.html")}
    assert {"index.html", "glossary.html", "lessons/05_evaluation.html", "api/e2llm.evaluation.controls.html"} <= pages
