"""Text of others in pages, figures and widgets: it is shown as it is; nothing of it runs or becomes a formula."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hostile import refused
from recordings import four_files

from e2llm.core.labels import plain_labels
from e2llm.data.checkup import check_folder
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.split_table import read_split_table
from e2llm.evaluation.split_audit import Statement, audit_table
from e2llm.viz import plots, widgets
from e2llm.viz.audit_page import render_audit
from e2llm.viz.checkup_page import write_page
from e2llm.viz.report_page import render

HARM = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</table></body><iframe src=//x>", "&lt;b&gt;",
        "<!--", "]]>",
        "javascript:alert(1)", "{{ 7 * 7 }}", "{% include '/etc/passwd' %}", "\"><svg/onload=alert(1)>",
        "</think><|eeg|>"]  # fmt: skip
FORMULAS = ["$\\frac{$", "$x$ and $y$", "$$", "a $\\bad b$", "\\$5 $6$", "$", "^_{}", "%s", "$\\input{x}$"]


class Tags(HTMLParser):
    """Names of the elements of a page, and values of their attributes that could run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.attributes, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attributes]

    def handle_data(self, data):
        self.text += data


ALLOWED = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "ul", "li", "table", "thead",
           "tbody", "tr", "th", "td",
           "img", "div", "caption", "figure", "figcaption", "dl", "dt", "dd", "b", "i", "br", "small", "span",
           "details", "summary", "ol", "a"}  # fmt: skip


def nothing_runs(page: str, text: str = "") -> None:
    """A page has elements of the kit alone, loads nothing, and shows a text as it was written."""
    found = Tags(page)
    assert found.names <= ALLOWED, found.names - ALLOWED
    for name, value in found.attributes:
        assert not name.startswith("on"), name
        within = name == "href" and re.fullmatch("#[a-z]+", value)  # a place in the same page
        assert name not in ("src", "href") or value.startswith("data:image/png;base64,") or within, value
    assert " ".join(text.split()) in " ".join(found.text.split())


# --- the report


@pytest.mark.parametrize("text", HARM)
def test_the_report_shows_every_text_as_it_is(text):
    scores = [{"name": text, "role": text, "score": 0.5}, {"name": text, "role": "model", "score": 0.5, "chance": text}]
    claims = [{"text": text, "marks": [["true", text], ["unknown feature", text]]}]
    metrics = {"tables": {text: [{text: text, "name": text, "score %": 0.5}], "tier_1": scores},
               "samples": [{text: text, "answer": text},
                           {"question": text, "answer": text, "truth": text, "claims": claims, "right": False}],
               "facts": {text: text, "stamp": text, "audit": [text]}}
    stages = {text: {"facts": {text: [text]}, "inputs": {text: {"a": text}}, "params": {text: text}, "seconds": 1.0,
                     "versions": {text: text}}}
    reasoning = {"meaning": text, "tables": {text: [{text: text}]}, "examples": [
        (text, [{"question": text, "text": text, "claims": [text], "answer": text, "truth": text, "flag": text}])]}
    quality = [{"severity": text, "recording": text, "rule": text, "fact": text}]
    parameters = {text: [{"name": text, "value": text, "default": text, "help": text}]}
    values = {"language_model": text, "encoder_size": text}
    page = render(text, metrics, stages, {text: b"png"}, reasoning, quality, values, parameters)
    nothing_runs(page, text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e300, 10**400, True, None, "", [], {"a": 1},
                                   "x" * 100_000],
                         ids=lambda value: repr(value)[:12])
def test_the_report_takes_any_value(value):
    metrics = {"tables": {"t": [{"a": value, "b %": value if not isinstance(value, (list, dict, int)) else 1}],
                          "tier_1": [{"name": value, "role": "model", "score": value, "low": value, "chance": value},
                                     {"name": "x", "role": "control", "score": 0.5, "low": value, "chance": value}]},
               "facts": {"f": value, "test windows": value},
               "samples": [{"answer": value, "truth": value}]}
    nothing_runs(render("x", metrics, {}, {}))


# --- the page of a check


@pytest.mark.parametrize("text", HARM[:10:2])
def test_the_page_of_a_check_shows_names_as_they_are(tmp_path, text):
    name = text.replace("/", "∕")
    root = four_files(tmp_path / name)
    (root / "a.edf").rename(root / f"{name}.edf")
    rows = (root / "labels.csv").read_text("utf-8").splitlines()
    quoted = f'"{name}.edf"'.replace('""', '"') if '"' not in name else '"' + f"{name}.edf".replace('"', '""') + '"'
    (root / "labels.csv").write_text("\n".join([f"{rows[0]},notes", quoted + rows[1].removeprefix("a.edf") + ",",
                                                *(f"{row}," for row in rows[2:])]),
                                     "utf-8")
    (root / f"{name}.edf").write_bytes(b"<script>")
    page = write_page(check_folder(root, n_jobs=1), tmp_path / "page.html").read_text("utf-8")
    nothing_runs(page, name)


@pytest.mark.parametrize("text", FORMULAS[:3])
def test_a_folder_whose_name_is_a_formula_is_drawn(tmp_path, text):
    root = four_files(tmp_path / text)
    page = write_page(check_folder(root, n_jobs=1), tmp_path / "page.html").read_text("utf-8")
    assert "data:image/png" in page and not plt.get_fignums()
    nothing_runs(page, text)


# --- the page of an audit


@pytest.mark.parametrize("text", HARM)
def test_the_page_of_an_audit_shows_cells_as_they_are(tmp_path, text):
    rows = [{"subject": f"{text} {i % 6}", "clip": f"{text} {i}", "label": ("calm", text)[i % 2],
             "part": ("train", "val", "test")[i % 6 // 2],
             text: i, "context": text} for i in range(48)]
    pd.DataFrame(rows).to_csv(tmp_path / "splits.csv", index=False)
    table = read_split_table(tmp_path / "splits.csv")
    nothing_runs(render_audit(text, audit_table(table, Statement())), text)


# --- figures and widgets


@pytest.mark.parametrize("text", [FORMULAS[0], FORMULAS[3], HARM[0]])
def test_figures_show_names_of_people_and_files(windows, text, careful_figures):
    index = windows.index.assign(subject=text)
    named = replace(windows, index=index)
    for figure in (widgets.signal_browser(named, 0),
                   plots.embeddings(np.eye(4), np.eye(4), [text, "b", text, "b"], "before and after")):
        figure.savefig(io.BytesIO(), format="png")
        plt.close(figure)


@pytest.mark.parametrize("label", ["$x$ and $y$", "a $b$", "$5 to $6"])
def test_labels_are_no_formulas(label):
    with refused("two '$'", "give it another name"):
        plain_labels("mine", ["calm", label])
    plain_labels("mine", ["calm", label.replace("$", "", label.count("$") - 1)])


@pytest.mark.parametrize("text", HARM)
def test_the_widgets_hold_names_as_text(windows, text):
    """Options of a list are text in ipywidgets; a description is cleaned, and none is made of text of others."""
    named = replace(windows, index=windows.index.assign(subject=text))
    picker = widgets.WindowPicker(named, 0)
    assert picker.subject.options == (text,) and picker.row == 0
    descriptions = [one.description for one in (picker.subject, picker.clip, picker.window)]
    assert not any(set("<&{") & set(said) for said in descriptions)
    nothing_runs(widgets.controls.failure(ValueError(text)), text)


@pytest.fixture(scope="module")
def model():
    from asked import made_up_corpus, random_model

    return random_model(made_up_corpus())


@pytest.mark.parametrize("text", [*HARM, FORMULAS[0]])
def test_an_answer_shows_everything_as_text(model, text):
    windows = model.corpus.windows
    corpus = SimpleNamespace(**vars(model.corpus))
    corpus.windows = replace(windows, index=windows.index.assign(subject=text, clip=text))
    corpus.norm_groups = np.full(len(windows), text, dtype=object)
    corpus.channel_statistics = replace(corpus.channel_statistics, subjects=[text, "2"])
    question = re.sub(r"</?think>|<\|eeg\|>", "", text) or "?"
    found = replace(model, corpus=corpus).explain(0, question, f"<think>\n{text} Alpha high.\n</think>\n\n{text}")
    nothing_runs(found._repr_html_())
    if text in (HARM[0], FORMULAS[0]):
        found.figure().savefig(io.BytesIO(), format="png")
    assert not plt.get_fignums()


def test_the_source_of_such_labels_is_refused_before_any_work(tmp_path):
    root: Path = four_files(tmp_path / "mine")
    for text in (HARM[0], HARM[1], HARM[-1], "$a$"):
        (root / "labels.csv").write_text(f"file,subject,session,label\na.edf,1,1,calm\nb.edf,2,1,{text}\n", "utf-8")
        with refused("give it another name"):
            LabelledFolder(root)
