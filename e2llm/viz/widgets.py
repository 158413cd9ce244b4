"""Interactive views in JupyterLab, and their static versions in a batch run.

A live widget can block a batch run and cannot be compared with a stored output. Each function therefore asks
:func:`e2llm.core.environment.is_interactive` first, and returns one static result in a batch run. Make the call the
last line of its cell.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..core.chat import LETTERS
from ..core.environment import is_interactive
from ..data.preprocessing import Windows
from . import plots
from .answer_view import Explained

_FIELD = {"style": {"description_width": "70px"}}


# ---------------------------------------------------------------- the signal browser


def signal_browser(windows: Windows, start: int = 0) -> ipywidgets.VBox | Figure:
    """Browse windows by subject, clip and time; in batch, the figure of one window.

    Parameters
    ----------
    windows : Windows
        Windows to browse.
    start : int
        Row of the first window shown.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure is closed in pyplot, so a notebook shows it once, as the value of its cell.

    Raises
    ------
    IndexError
        If there is no row ``start``.
    """
    _check_row(windows, start)
    if not is_interactive():
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
        Windows to choose from.
    start : int
        Row chosen at the start.
    on_change : callable, optional
        ``on_change(row)``, called once for every other row that is chosen.
    """

    def __init__(self, windows: Windows, start: int = 0, on_change: Callable[[int], None] | None = None) -> None:
        self._index, self._on_change, self._reported = windows.index, on_change, start
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
        self.window.observe(self._report, "value")
        self.box = ipywidgets.HBox([self.subject, self.clip, self.window])

    @property
    def row(self) -> int:
        """The chosen row of the windows."""
        return self._rows(self.subject.value, self.clip.value)[self.window.value]

    def _rows(self, subject: str, clip: int) -> list[int]:
        chosen = (self._index["subject"] == subject) & (self._index["clip"] == clip)
        return chosen.to_numpy().nonzero()[0].tolist()

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
        self._report()

    def _report(self, _: dict | None = None) -> None:
        if self._on_change is not None and self.row != self._reported:
            self._reported = self.row
            self._on_change(self.row)


def _check_row(windows: Windows, row: int) -> None:
    if not 0 <= row < len(windows):
        raise IndexError(f"There is no window {row}: start must be from 0 to {len(windows) - 1}.")


def window_name(windows: Windows, row: int) -> str:
    """Subject, clip, label and time of a window in words.

    Parameters
    ----------
    windows : Windows
        All windows.
    row : int
        The one to name.
    """
    it = windows.index.iloc[row]
    if "file" in it:  # of a new subject: no label is known, and the statistics are a choice
        return f"{it['file']}, window {it['window']} from {it['start_s']:g} s, {it['statistics']}"
    return f"subject {it['subject']}, clip {it['clip']} ({it['label']}), window {it['window']} from {it['start_s']:g} s"


def _draw(windows: Windows, row: int) -> Figure:
    return plots.window_view(windows.data[row], windows.sfreq, windows.ch_names, window_name(windows, row))


def _png(figure: Figure) -> bytes:
    """The figure as a picture; closes it."""
    with io.BytesIO() as picture:
        figure.savefig(picture, format="png")
        plt.close(figure)
        return picture.getvalue()


# ---------------------------------------------------------------- asking the model


def _failure(error: Exception) -> str:
    return f"<b>{html.escape(f'{type(error).__name__}: {error}')}</b>"


def reasoning_panel(model: Any, questions: Sequence[str],
                    start: int | Sequence[int] = 0) -> ipywidgets.VBox | Explained:
    """Ask about one to four windows and see which claims of the answer are true.

    In JupyterLab the answer is shown while it is generated; a batch run returns the answer to the first question.

    Parameters
    ----------
    model : E2LLM
        From :meth:`e2llm.app.chat_session.E2LLM.of_run`.
    questions : sequence of str
        Suggestions, at least one: free text that may be edited, or names of tasks
        (:data:`e2llm.app.chat_session.TASKS`).
    start : int or sequence of int
        Rows of the windows chosen at the start, at most four.

    Returns
    -------
    ipywidgets.VBox or Explained
        The panel, or a static answer.

    Raises
    ------
    ValueError
        For no windows, more than four, or no question.
    IndexError
        For a row that is not there.
    """
    windows, rows = model.corpus.windows, [start] if isinstance(start, int) else list(start)
    if not 1 <= len(rows) <= len(LETTERS):
        raise ValueError(f"reasoning_panel starts with 1 to {len(LETTERS)} windows, not {len(rows)}.")
    for row in rows:
        _check_row(windows, row)
    if not questions:
        raise ValueError("reasoning_panel needs at least one question to suggest.")
    if not is_interactive():
        return model.ask(rows, questions[0])
    return _ReasoningPanel(model, windows, questions, rows).box


class _ReasoningPanel:
    """The live panel: pickers, the signal of the window chosen last, a question, and the checked answer."""

    def __init__(self, model: Any, windows: Windows, questions: Sequence[str], rows: list[int]) -> None:
        wide = ipywidgets.Layout(width="700px")
        self.model, self.windows = model, windows
        self.pickers = [WindowPicker(windows, (rows + rows[:1] * len(LETTERS))[i],
                                     self.browse) for i in range(len(LETTERS))]
        self.count = ipywidgets.IntSlider(value=len(rows), min=1, max=len(LETTERS), description="segments", **_FIELD)
        self.chosen, self.signal = ipywidgets.VBox(), ipywidgets.Image(format="png")
        self.suggestion = ipywidgets.Dropdown(options=list(questions), description="suggestion", layout=wide, **_FIELD)
        self.question = ipywidgets.Textarea(value=questions[0], description="question", layout=wide, **_FIELD)
        self.button = ipywidgets.Button(description="Ask", button_style="primary")
        self.shown, self.figure = ipywidgets.HTML(), ipywidgets.Image(format="png",
                                                                      layout=ipywidgets.Layout(display="none"))
        self.editor = _LevelEditor(self.answer_again)
        self.count.observe(self.show_pickers, "value")
        self.suggestion.observe(self.suggest, "value")
        self.button.on_click(self.click)
        self.show_pickers()
        self.browse(rows[0])
        self.box = ipywidgets.VBox([self.count, self.chosen, self.signal, self.suggestion, self.question, self.button,
                                    self.shown, self.editor.box, self.figure])

    def show_pickers(self, _: dict | None = None) -> None:
        some = self.pickers[: self.count.value]
        self.chosen.children = [ipywidgets.HBox([ipywidgets.Label(letter), picker.box])
                                for letter, picker in zip(LETTERS, some, strict=False)]

    def browse(self, row: int) -> None:
        self.signal.value = _png(_draw(self.windows, row))

    def suggest(self, change: dict) -> None:
        self.question.value = change["new"]

    def click(self, _: ipywidgets.Button) -> None:
        self.button.disabled, self.shown.value, self.figure.layout.display = True, "<i>generating …</i>", "none"
        self.editor.hide()
        try:
            rows, text = [picker.row for picker in self.pickers[: self.count.value]], ""
            for text in self.model.stream(rows, self.question.value):
                self.shown.value = f'<div style="white-space: pre-wrap">{html.escape(text)}</div>'
            explained = self.model.explain(rows, self.question.value, text)
            self.shown.value = explained._repr_html_()
            self.editor.show(explained)
            self.figure.value, self.figure.layout.display = _png(explained.figure()), ""
        except Exception as error:  # the traceback of a callback would only reach the server's log
            self.shown.value = _failure(error)
        finally:
            self.button.disabled = False

    def answer_again(self, explained: Explained, levels: dict[str, str], segment: str) -> None:
        try:
            changed = self.model.with_levels(explained, levels, segment)
            self.shown.value = changed._repr_html_()
            self.editor.show(changed, segment)
        except Exception as error:  # as above
            self.shown.value = _failure(error)


class _LevelEditor:
    """Changes one stated level of an answer from the thought, and has it answered again; hidden for other answers."""

    def __init__(self, answer_again: Callable[[Explained, dict[str, str], str], None]) -> None:
        self._answer_again, self._explained = answer_again, None
        self.segment = ipywidgets.Dropdown(description="segment", **_FIELD)
        self.feature = ipywidgets.Dropdown(description="evidence", **_FIELD)
        self.level = ipywidgets.Dropdown(description="is", **_FIELD)
        self.button = ipywidgets.Button(description="Answer again")
        self.segment.observe(self._list_features, "value")
        self.feature.observe(self._take_level, "value")
        self.button.on_click(self._click)
        self.box = ipywidgets.HBox([self.segment, self.feature, self.level, self.button])
        self.hide()

    def hide(self) -> None:
        """For an answer whose claims do not decide it, or none."""
        self.box.layout.display = "none"

    def show(self, explained: Explained, segment: str = "A") -> None:
        """Offer the levels of an answer, if they decide it.

        Parameters
        ----------
        explained : Explained
            The answer.
        segment : str
            Letter of the segment that is offered first.
        """
        if not explained.from_thought:
            self.hide()
            return
        self._explained, feature = explained, self.feature.value
        self.level.options = explained.corpus.evidence_names.scale.words  # before what sets a level
        self.segment.options = tuple(LETTERS[: len(explained.stated)])
        self.segment.value = segment
        self._list_features()
        if feature in explained.corpus.evidence_names.columns:
            self.feature.value = feature
        self.box.layout.display = ""

    def _stated(self) -> dict[str, str]:
        return {claim.feature: claim.level for claim in self._explained.stated[LETTERS.index(self.segment.value)]}

    def _list_features(self, _: dict | None = None) -> None:
        stated = self._stated()
        self.feature.options = [(f"{feature} ({stated.get(feature, 'typical')})", feature)
                                for feature in self._explained.corpus.evidence_names.columns]
        self._take_level()

    def _take_level(self, _: dict | None = None) -> None:
        self.level.value = self._stated().get(self.feature.value, "typical")

    def _click(self, _: ipywidgets.Button) -> None:
        self._answer_again(self._explained, {self.feature.value: self.level.value}, self.segment.value)
