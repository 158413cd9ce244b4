"""The live panels follow their controls; a batch run gets static results and no widget at all."""

import matplotlib

matplotlib.use("Agg")

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from e2llm import widgets
from e2llm.montage import SEED_CHANNELS, eegpt_channels
from e2llm.preprocess import Windows

CHANNELS = eegpt_channels(list(SEED_CHANNELS))
# Subject, clip, its label and number of windows; the second subject lacks clip 2, and its clip 1 is shorter.
CLIPS = [("1", 1, "happy", 4), ("1", 2, "sad", 2), ("2", 1, "happy", 1), ("2", 3, "fear", 3)]


@pytest.fixture
def windows() -> Windows:
    rows = [{"subject": subject, "clip": clip, "label": label, "window": w, "start_s": 4.0 * w}
            for subject, clip, label, n in CLIPS for w in range(n)]
    index = pd.DataFrame(rows)
    index.insert(0, "id", 100 + np.arange(len(index)))
    data = np.random.default_rng(0).normal(0, 5, (len(index), len(CHANNELS), 1024)).astype(np.float32)
    power, shape = np.ones((len(index), len(CHANNELS), 5), np.float32), np.zeros((len(index), 3), np.float32)
    return Windows(data=data, power=power, shape=shape, index=index, ch_names=CHANNELS, sfreq=256.0)


@pytest.fixture
def batch(monkeypatch):
    """A run without a front end, in which making any widget is an error."""
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)

    def refuse(*args, **kwargs):
        raise AssertionError("a widget was made in a batch run")

    monkeypatch.setattr(ipywidgets.Widget, "__init__", refuse)


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    monkeypatch.delenv("E2LLM_BATCH", raising=False)


@pytest.fixture
def drawn(monkeypatch):
    """Rows drawn so far; drawing itself is left out."""
    rows = []

    def draw(_, row: int) -> Figure:
        rows.append(row)
        return plt.figure(figsize=(1, 1))

    monkeypatch.setattr(widgets, "_draw", draw)
    return rows


def controls(panel: ipywidgets.VBox) -> tuple:
    return panel.children[0].children


def test_interactive_follows_the_session_name(monkeypatch):
    monkeypatch.delenv("E2LLM_BATCH", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert not widgets.interactive()
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    assert widgets.interactive()


def test_the_browser_is_one_figure_in_batch(batch, windows):
    figure = widgets.signal_browser(windows, start=5)
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "subject 1, clip 2 (sad), window 1 from 4 s"
    assert not plt.get_fignums()  # a notebook shows it once


def test_the_browser_starts_where_it_is_told(live, windows):
    panel = widgets.signal_browser(windows, start=5)
    subject, clip, window = controls(panel)
    assert (subject.value, clip.value, window.value, window.max) == ("1", 2, 1, 1)
    assert clip.options == (("1 (happy)", 1), ("2 (sad)", 2))
    assert bytes(panel.children[1].value).startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_the_controls_change_the_window_that_is_drawn(live, drawn, windows):
    subject, clip, window = controls(widgets.signal_browser(windows))
    window.value = 3
    clip.value = 2
    assert window.max == 1 and window.value == 0
    window.value = 1
    subject.value = "2"
    assert clip.options == (("1 (happy)", 1), ("3 (fear)", 3)) and window.max == 0
    clip.value = 3
    window.value = 2
    assert drawn == [0, 3, 4, 5, 6, 7, 9]  # each window once, none in between
    assert not plt.get_fignums()


def test_a_subject_with_the_same_clip_number_is_drawn_too(live, drawn, windows):
    subject, clip, window = controls(widgets.signal_browser(windows, start=2))
    subject.value = "2"
    assert (clip.value, window.value, window.max) == (1, 0, 0)
    assert drawn == [2, 6]


def test_a_picture_follows_the_dropdown(live, windows):
    panel = widgets.signal_browser(windows)
    before = bytes(panel.children[1].value)
    controls(panel)[1].value = 2
    assert bytes(panel.children[1].value) != before


@pytest.mark.parametrize("start", [-1, 10])
def test_a_window_that_is_not_there_is_refused(windows, start):
    with pytest.raises(IndexError, match="from 0 to 9"):
        widgets.signal_browser(windows, start)
    with pytest.raises(IndexError, match="from 0 to 9"):
        widgets.ask_panel(lambda ids, question: "", windows, ["?"], start)


def test_asking_in_batch_answers_the_first_question(batch, windows):
    asked = []

    def ask(window_ids: list[int], question: str) -> str:
        asked.append((window_ids, question))
        return "happy"

    answer = widgets.ask_panel(ask, windows, ["Which emotion?", "Why?"], start=4)
    assert asked == [([104], "Which emotion?")]
    assert str(answer) == repr(answer) == "subject 1, clip 2 (sad), window 0 from 0 s\nQ: Which emotion?\nA: happy"
    assert "Which emotion?" in answer._repr_html_() and "happy" in answer._repr_html_()


def test_model_text_cannot_run_in_the_page(batch, windows):
    text = "<script>alert(1)</script>"
    answer = widgets.ask_panel(lambda ids, question: text, windows, ["<b>?</b>"])
    shown = answer._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&lt;b&gt;?" in shown
    assert text in str(answer)  # plain text stays as it is


def test_the_panel_asks_about_the_chosen_window(live, windows):
    asked = []

    def ask(window_ids: list[int], question: str) -> str:
        asked.append((window_ids, question))
        return "<script>sad</script>"

    panel = widgets.ask_panel(ask, windows, ["Which emotion?", "Why?"])
    _, suggestion, question, button, shown = panel.children
    assert not asked  # nothing before the click
    controls(panel)[1].value = 2
    suggestion.value = "Why?"
    assert question.value == "Why?"
    question.value = "Why <now>?"
    button.click()
    assert asked == [([104], "Why <now>?")]
    assert "&lt;script&gt;sad" in shown.value and "<script>" not in shown.value and "Why &lt;now&gt;?" in shown.value
    assert not button.disabled


def test_an_error_of_the_model_is_shown_in_the_panel(live, windows):
    def ask(window_ids: list[int], question: str) -> str:
        raise RuntimeError("no <model> is loaded")

    *_, button, shown = widgets.ask_panel(ask, windows, ["?"]).children
    button.click()
    assert shown.value == "<b>RuntimeError: no &lt;model&gt; is loaded</b>" and not button.disabled


def test_a_panel_needs_a_question(windows):
    with pytest.raises(ValueError, match="at least one question"):
        widgets.ask_panel(lambda ids, question: "", windows, [])
