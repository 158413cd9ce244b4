"""The live panels follow their controls; a batch run gets static results and no widget at all."""

import matplotlib

matplotlib.use("Agg")

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from e2llm.core.environment import is_interactive
from e2llm.core.montage import SEED_CHANNELS, eegpt_channels
from e2llm.data.preprocessing import Windows
from e2llm.viz import widgets

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

    def draw(_, row: int, before: bool = False) -> Figure:
        rows.append(row)
        return plt.figure(figsize=(1, 1)).suptitle("A window").figure

    monkeypatch.setattr(widgets.signals._WindowView, "figure", draw)
    return rows


def controls(panel: ipywidgets.VBox) -> tuple:
    """Subject, clip and window of a signal browser."""
    return panel.children[0].children[0].children


def image(panel: ipywidgets.VBox) -> ipywidgets.HTML:
    return next(part for part in panel.children if isinstance(part, ipywidgets.HTML) and "<img " in part.value)


def test_interactive_follows_the_session_name(monkeypatch):
    monkeypatch.delenv("E2LLM_BATCH", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert not is_interactive()
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    assert is_interactive()


def test_the_browser_is_one_figure_in_batch(batch, windows):
    figure = widgets.signal_browser(windows, start=5)
    assert isinstance(figure, Figure)
    assert figure.get_suptitle() == "subject 1, clip 2 (sad), window 1 from 4 s"
    assert not plt.get_fignums()  # a notebook shows it once


def test_the_browser_starts_at_the_given_row(live, windows):
    panel = widgets.signal_browser(windows, start=5)
    subject, clip, window = controls(panel)
    assert (subject.value, clip.value, window.value, window.max) == ("1", 2, 1, 1)
    assert clip.options == (("1 (happy)", 1), ("2 (sad)", 2))
    assert 'alt="subject 1, clip 2 (sad), window 1 from 4 s' in image(panel).value
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
    before = image(panel).value
    controls(panel)[1].value = 2
    assert image(panel).value != before


@pytest.mark.parametrize("start", [-1, 10])
def test_a_window_that_is_not_there_is_refused(windows, start):
    with pytest.raises(IndexError, match="from 0 to 9"):
        widgets.signal_browser(windows, start)
