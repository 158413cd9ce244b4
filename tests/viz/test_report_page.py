"""The report of a run: what its first screen shows, the order of everything, marks of claims, and legible colors."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from e2llm.viz.pages import render_page, table_cells
from e2llm.viz.report_page import COLUMNS, FIGURES, SIMULATED, TABLES, render

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
THOUGHT = "<think>\nEvidence: frontal theta high, occipital alpha low. That fits sad.\n</think>\n\nsad"
CLAIMS = [{"text": "Evidence: frontal theta high,", "marks": [["true", "z = +1.20, high"]]},
          {"text": "occipital alpha low.", "marks": [["false", "z = +0.10, typical"]]},
          {"text": "That fits sad.", "marks": []}]
SAMPLES = [{"question": "Which one?", "answer": "A", "truth": "B", "right": False, "claims": []},
           {"question": "Which emotion?", "answer": THOUGHT, "truth": "sad", "right": True, "claims": CLAIMS},
           {"question": "What does it show?", "answer": "(scored) The segment shows joy.", "truth": "fear",
            "right": False, "claims": []}]
ROWS = [{"chance": 0.25, "high": 0.9, "low": 0.7, "n": 40, "name": name, "role": role, "score": score}
        for name, role, score in (("oracle", "oracle", 0.95), ("weak", "baseline", 0.3), ("strong", "baseline", 0.7),
                                  ("LLM", "model", 0.8), ("LLM, no EEG", "control", 0.26))]
METRICS = {"facts": {"audit": ["nothing found"], "protocol": "joint", "what is unseen": "people", "test windows": 40},
           "samples": SAMPLES,
           "tables": {"item_seeds": [{"chance": 0.5, "group": "no EEG", "mean": 0.4, "name": "compare"}],
                      "mine": [{"a": 1}], "tier_1": ROWS}}
RECORD = {"facts": {}, "inputs": {}, "params": {"oracle": True}, "seconds": 1.0, "versions": {"torch": "2"}}


class Page(HTMLParser):
    """Text of a page in its order, and what links, places and pictures it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.links, self.places, self.alts = "", [], [], []
        self.feed(page.split("</style>", 2)[2])  # of all pages, and of the report
        self.text = " ".join(self.text.split())  # also no-break spaces

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.links += [found["href"]] if "href" in found else []
        self.places += [found["id"]] if "id" in found else []
        self.alts += [found["alt"]] if tag == "img" else []

    def handle_data(self, data):
        self.text += data


def _page(**changes: object) -> Page:
    given = {"name": "mine", "metrics": METRICS, "stages": {"evaluation": RECORD}, "figures": {}} | changes
    return Page(render(**given))


def test_the_first_screen_has_pipeline_answer_and_score_with_controls():
    page = _page(values={"encoder_size": "tiny2", "language_model": "e2llm-tiny", "window_s": 4.0, "eeg_tokens": 2,
                         "evidence_slots": 10})
    first, _ = page.text.split("Contents", 1)
    for part in ("windows of 4 s; 40 test windows", "stage 1: tiny2", "stage 3: e2llm-tiny with LoRA",
                 "Evidence: frontal theta high ✓, occipital alpha low ✗. That fits sad.",
                 "Answer: sad ✓ right", "claims: 1 true, 1 false", "LLM model 80.0 (70 – 90)",
                 "LLM, no EEG control 26.0", "strong best baseline 70.0", "oracle oracle 95.0", "chance 25.0"):
        assert part in first, part
    assert "weak" not in first and first.index("LLM model") < first.index("LLM, no EEG")


@pytest.mark.parametrize("oracle", [True, False])
def test_it_says_that_data_are_simulated_when_they_are(oracle):
    page = _page(stages={"evaluation": RECORD | {"params": {"oracle": oracle}}})
    assert (SIMULATED in page.text.split("Contents")[0]) == oracle and (SIMULATED in page.text) == oracle


def test_no_raw_mark_of_a_thought_is_left_and_right_answers_come_before_wrong_ones():
    page = _page()
    assert "think>" not in page.text and "(scored)" not in page.text
    _, answers = page.text.split("This run", 1) if "This run" in page.text else page.text.rsplit("right and wrong", 1)
    assert re.findall("✓ right|✗ wrong", answers) == ["✓ right", "✗ wrong", "✗ wrong"]
    assert "✗ wrong, true is B" in answers and "the most probable of several texts" in answers
    old = [{"question": "Q", "answer": THOUGHT, "truth": "sad"}]  # of a run without verdicts
    text = _page(metrics={"samples": old}).text
    assert "frontal theta high, occipital alpha low. That fits sad." in text and "✓ right" in text
    assert "claims:" not in text and "One answer" not in text and "think>" not in text


def test_tables_and_columns_come_in_an_order_for_readers_and_a_row_keeps_its_names():
    page = render("mine", METRICS, {"evaluation": RECORD}, {})
    _, results = page.split('id="results"')
    heads = [re.findall(r'<th scope="col"[^>]*>([^<]*)', table) for table in results.split("<table")[1:]]
    assert heads[:3] == [["name", "score", "low", "high", "chance", "n", "role"], ["name", "mean", "chance"], ["a"]]
    assert '<th scope="row">compare · no EEG</th>' in results
    assert results.index("Which emotion?") < results.index("drawn questions") < results.index("Mine")
    assert "position: sticky; left: 0" in page and set(COLUMNS) >= set(ROWS[0])


def test_every_link_of_the_contents_leads_to_a_heading():
    page = _page(figures={"tier_1": b"png"}, quality=[{"severity": "warn", "recording": "1", "rule": "r", "fact": "f"}],
                 parameters={"Group": [{"name": "seed", "value": "1", "default": "0", "help": "of all"}]},
                 reasoning={"meaning": "m", "tables": {}, "examples": []})
    assert {link.removeprefix("#") for link in page.links} == set(page.places) and len(page.places) == 9
    assert "Other than the default: seed = 1." in page.text
    assert page.text.index("default, if another") < page.text.index("Which emotion? (tier 1)")


def test_an_explanation_of_lesson_07_shows_its_claims_with_marks():
    example = {"question": "Q", "text": THOUGHT, "claims": ["frontal theta high: true (z = +1.2)",
                                                            "alpha low: false (z = +0.1)"],
               "answer": "sad", "truth": "fear", "flag": "none"}
    text = _page(reasoning={"meaning": "m", "tables": {}, "examples": [("Best", [example])]}).text
    found = text.split("Best")[1]
    assert "frontal theta high (z = +1.2) ✓" in found and "alpha low (z = +0.1) ✗" in found
    assert "✗ wrong, true is fear" in found and "2 claims." in found and "Flag" not in found


def test_every_figure_of_a_lesson_has_words_for_those_who_do_not_see_it():
    saved = set()
    for path in LESSONS:
        source = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
        saved |= set(re.findall(r'\b(?:run|base)\.figure\(\w+, "(\w+)"\)', source))
    assert len(saved) > 20 and saved <= FIGURES.keys(), saved - FIGURES.keys()
    assert min(map(len, FIGURES.values())) > 40
    assert _page(figures={"tier_1": b"png", "of_mine": b"png"}).alts == [FIGURES["tier_1"], "Of mine"]


def test_every_table_of_an_evaluation_has_a_title_and_says_what_it_shows():
    committed = json.loads((ROOT / "tests" / "expected_tiny.json").read_text())
    assert committed["tables"].keys() <= TABLES.keys() and all(title and note for title, note in TABLES.values())


def _luminance(color: str) -> float:
    digits = color.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_is_legible_on_paper_and_in_the_dark(theme):
    page = render_page("t", "")
    blocks = re.findall(r":root \{(.+?)\}", page, re.DOTALL)
    colors = dict(re.findall(r"--(\w+): (#\w+)", blocks[0])) | (dict(re.findall(r"--(\w+): (#\w+)", blocks[1])) if theme
                                                               else {})
    assert len(blocks) == 2
    for paper in ("paper", "panel", "warn"):
        for ink in ("ink", "soft", "true", "false") if paper != "warn" else ("ink",):
            light, dark = sorted((_luminance(colors[paper]), _luminance(colors[ink])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (paper, ink)


def test_names_of_a_row_are_put_together():
    table = table_cells("t", [{"name": "match", "group": "EEG", "stratum": None, "score": 1},
                              {"name": "x", "score": 2}])
    assert [row[0]["text"] for row in table["rows"]] == ["match · EEG", "x"]
    assert [cell["text"] for cell in table["head"]] == ["name", "score"]
    assert unescape(table["caption"]) == "T"
