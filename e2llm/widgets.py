"""Live views under JupyterLab, and what stands for them in a batch run.

A live widget can hang a batch run and cannot be compared with a stored output. Each function here therefore asks
:func:`interactive` first, and in batch returns one static result. Let the call be the last line of its cell.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from . import plots
from .preprocess import Windows
from .runs import is_interactive

Ask = Callable[[list[int], str], str]
_FIELD = {"style": {"description_width": "70px"}}


def interactive() -> bool:
    """Whether live widgets make sense: somebody sits before this notebook in JupyterLab."""
    return is_interactive()


# ---------------------------------------------------------------- the signal browser


def signal_browser(windows: Windows, start: int = 0) -> ipywidgets.VBox | Figure:
    """Browse windows by subject, clip and time; in batch, the figure of one window.

    Parameters
    ----------
    windows : Windows
        What to browse.
    start : int
        Row of the window that is shown first.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure is no longer pyplot's, so a notebook shows it once, as the value of its cell.
    """
    _check_row(windows, start)
    if not interactive():
        figure = _draw(windows, start)
        plt.close(figure)
        return figure
    image = ipywidgets.Image(format="png")

    def show(row: int) -> None:
        image.value = _png(_draw(windows, row))

    picker = WindowPicker(windows, start, show)
    show(start)
    return ipywidgets.VBox([picker.box, image])


class WindowPicker:
    """Two dropdowns and a slider that choose one row of the windows.

    Parameters
    ----------
    windows : Windows
        What to choose from.
    start : int
        Row that is chosen first.
    on_change : callable, optional
        ``on_change(row)``, called once whenever another row is chosen.
    """

    def __init__(self, windows: Windows, start: int = 0, on_change: Callable[[int], None] | None = None) -> None:
        self._index, self._on_change, self._told = windows.index, on_change, start
        first = windows.index.iloc[start]
        rows = self._rows(first["subject"], first["clip"])
        self.subject = ipywidgets.Dropdown(
            options=list(windows.index["subject"].unique()), value=first["subject"], description="subject", **_FIELD)
        self.clip = ipywidgets.Dropdown(
            options=self._clips(first["subject"]), value=first["clip"], description="clip", **_FIELD)
        self.window = ipywidgets.IntSlider(
            value=rows.index(start), min=0, max=len(rows) - 1, description="window", continuous_update=False, **_FIELD)
        self.subject.observe(self._subject_changed, "value")
        self.clip.observe(self._clip_changed, "value")
        self.window.observe(self._tell, "value")
        self.box = ipywidgets.HBox([self.subject, self.clip, self.window])

    @property
    def row(self) -> int:
        """The chosen row of the windows."""
        return self._rows(self.subject.value, self.clip.value)[self.window.value]

    def _rows(self, subject: str, clip: int) -> list[int]:
        mine = (self._index["subject"] == subject) & (self._index["clip"] == clip)
        return mine.to_numpy().nonzero()[0].tolist()

    def _clips(self, subject: str) -> list[tuple[str, int]]:
        """Clips of a subject, each named with its label."""
        clips = self._index[self._index["subject"] == subject].drop_duplicates("clip")
        return [(f"{clip} ({label})", clip) for clip, label in zip(clips["clip"], clips["label"], strict=True)]

    def _subject_changed(self, _: dict) -> None:
        self.clip.options = self._clips(self.subject.value)
        self._clip_changed()  # the new subject's first clip may have the old one's number: then nothing was observed

    def _clip_changed(self, _: dict | None = None) -> None:
        self.window.value = 0  # before the maximum shrinks, or the slider would stop at a window in between
        self.window.max = len(self._rows(self.subject.value, self.clip.value)) - 1
        self._tell()

    def _tell(self, _: dict | None = None) -> None:
        if self._on_change is not None and self.row != self._told:
            self._told = self.row
            self._on_change(self.row)


def _check_row(windows: Windows, row: int) -> None:
    if not 0 <= row < len(windows):
        raise IndexError(f"There is no window {row}: start must be from 0 to {len(windows) - 1}.")


def _name(windows: Windows, row: int) -> str:
    """One window in words."""
    it = windows.index.iloc[row]
    return f"subject {it['subject']}, clip {it['clip']} ({it['label']}), window {it['window']} from {it['start_s']:g} s"


def _draw(windows: Windows, row: int) -> Figure:
    return plots.window_view(windows.data[row], windows.sfreq, windows.ch_names, _name(windows, row))


def _png(figure: Figure) -> bytes:
    """The figure as a picture; closes it."""
    with io.BytesIO() as picture:
        figure.savefig(picture, format="png")
        plt.close(figure)
        return picture.getvalue()


# ---------------------------------------------------------------- asking the model


@dataclass(frozen=True)
class Answer:
    """A question about one window and the model's words, as text or, escaped, as HTML."""

    window: str
    question: str
    text: str

    def __str__(self) -> str:
        return f"{self.window}\nQ: {self.question}\nA: {self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        window, question, text = (html.escape(part) for part in (self.window, self.question, self.text))
        return (f"<div><small>{window}</small><br><b>{question}</b>"
                f'<div style="white-space: pre-wrap; margin-top: 4px">{text}</div></div>')


def ask_panel(ask: Ask, windows: Windows, questions: Sequence[str], start: int = 0) -> ipywidgets.VBox | Answer:
    """Ask the model about a window; in batch, the answer to the first question.

    Parameters
    ----------
    ask : callable
        ``ask(window_ids, question)`` gives the model's answer; ids are those of ``windows.index["id"]``.
    windows : Windows
        What to ask about.
    questions : sequence of str
        Suggestions, at least one; in the live panel each may be edited before it is asked.
    start : int
        Row of the window that is chosen first.

    Returns
    -------
    ipywidgets.VBox or Answer
        The panel, or a static answer.
    """
    _check_row(windows, start)
    if not questions:
        raise ValueError("ask_panel needs at least one question to suggest.")

    def answer(row: int, question: str) -> Answer:
        return Answer(_name(windows, row), question, ask([int(windows.index["id"].iloc[row])], question))

    if not interactive():
        return answer(start, questions[0])
    wide = ipywidgets.Layout(width="700px")
    picker = WindowPicker(windows, start)
    suggestion = ipywidgets.Dropdown(options=list(questions), description="suggestion", layout=wide, **_FIELD)
    question = ipywidgets.Textarea(value=questions[0], description="question", layout=wide, **_FIELD)
    button = ipywidgets.Button(description="Ask", button_style="primary")
    shown = ipywidgets.HTML()

    def suggest(change: dict) -> None:
        question.value = change["new"]

    def click(_: ipywidgets.Button) -> None:
        button.disabled, shown.value = True, "<i>thinking …</i>"
        try:
            shown.value = answer(picker.row, question.value)._repr_html_()
        except Exception as error:  # a callback's traceback would go to a log that nobody reads
            shown.value = f"<b>{html.escape(f'{type(error).__name__}: {error}')}</b>"
        finally:
            button.disabled = False

    suggestion.observe(suggest, "value")
    button.on_click(click)
    return ipywidgets.VBox([picker.box, suggestion, question, button, shown])
