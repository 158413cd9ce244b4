"""Ask the model: one to four segments, a question, the text as it comes, its claims marked, and levels to change."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from ...core.chat import LETTERS
from ...core.environment import is_interactive
from ...data.preprocessing import Windows
from .. import plots
from ..answer_view import Explained
from .controls import Picture, Status, WindowPicker, check_row, field, panel, row_of, window_name


def reasoning_panel(model: Any, questions: Sequence[str],
                    start: int | Sequence[int] = 0) -> ipywidgets.VBox | Explained:
    """Ask about one to four windows and see which claims of the answer are true.

    In JupyterLab the answer is shown while it is generated; a batch run returns the answer to the first question. A
    question that the model was not taught is declined, with the nearest tasks.

    Parameters
    ----------
    model : E2LLM
        From :meth:`e2llm.app.chat_session.E2LLM.of_run`.
    questions : sequence of str
        Suggestions, at least one: free text that may be edited, or names of tasks
        (:data:`e2llm.tasks.taught.TASKS`).
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
        check_row(windows, row)
    if not questions:
        raise ValueError("reasoning_panel needs at least one question to suggest.")
    if not is_interactive():
        return model.ask(rows, questions[0])
    return _ReasoningPanel(model, windows, questions, rows).box


def _with_others(windows: Windows, rows: Sequence[int]) -> list[int]:
    """Rows for all letters: those that were given, then windows of labels that are not among them yet."""
    chosen, labels = list(rows), windows.index["label"]
    for row in range(len(windows)):
        if len(chosen) < len(LETTERS) and labels.iloc[row] not in {labels.iloc[one] for one in chosen}:
            chosen.append(row)
    chosen += [row for row in range(len(windows)) if row not in chosen][: len(LETTERS) - len(chosen)]
    return (chosen + chosen[:1] * len(LETTERS))[: len(LETTERS)]


class _ReasoningPanel:
    """The live panel: pickers, the signal of the window chosen last, a question, and the checked answer."""

    def __init__(self, model: Any, windows: Windows, questions: Sequence[str], rows: list[int]) -> None:
        self.model, self.windows = model, windows
        self.pickers = [WindowPicker(windows, row, lambda row, letter=letter: self.browse(letter, row))
                        for letter, row in zip(LETTERS, _with_others(windows, rows), strict=True)]
        self.count = ipywidgets.IntSlider(value=len(rows), min=1, max=len(LETTERS), description="segments",
                                          **field("300px"))
        self.chosen, self.signal = ipywidgets.VBox(), Picture(self.draw)
        self.suggestion = ipywidgets.Dropdown(options=list(questions), description="suggestion", **field("640px"))
        self.question = ipywidgets.Textarea(value=questions[0], description="question", **field("640px"))
        self.button = ipywidgets.Button(description="Ask", button_style="primary",
                                        tooltip="Ask about the chosen segments")
        self.anyway = ipywidgets.Button(description="Ask all the same", layout=ipywidgets.Layout(display="none"),
                                        tooltip="The answer will be one of a task that the model knows")
        self.status, self.shown = Status(), ipywidgets.HTML()
        self.figure = Picture(lambda explained: explained.figure())
        self.figure.image.layout.display = "none"
        self.editor = _LevelEditor(self.answer_again)
        self.count.observe(self.show_pickers, "value")
        self.suggestion.observe(self.suggest, "value")
        self.button.on_click(lambda _: self.ask())
        self.anyway.on_click(lambda _: self.ask(anyway=True))
        self.show_pickers()
        self.browse(LETTERS[0], rows[0])
        self.box = panel(self.count, self.chosen, self.signal.status.line, self.signal.image, self.suggestion,
                         self.question, row_of(self.button, self.anyway), self.status.line, self.shown,
                         self.editor.box, self.figure.status.line, self.figure.image)

    def show_pickers(self, _: dict | None = None) -> None:
        some = self.pickers[: self.count.value]
        self.chosen.children = [row_of(ipywidgets.Label(f"Segment {letter}"), picker.box)
                                for letter, picker in zip(LETTERS, some, strict=False)]

    def draw(self, letter: str, row: int) -> Figure:
        return plots.window_view(self.windows.data[row], self.windows.sfreq, self.windows.ch_names,
                                 f"Segment {letter}: {window_name(self.windows, row)}")

    def browse(self, letter: str, row: int) -> None:
        self.signal.show(letter, row)

    def suggest(self, change: dict) -> None:
        self.question.value = change["new"]

    def ask(self, anyway: bool = False) -> None:
        """Stream an answer, mark its claims, then draw its figure; what was not taught is declined first.

        Parameters
        ----------
        anyway : bool
            Ask also what was not taught.
        """
        self.button.disabled, self.anyway.layout.display = True, "none"
        self.shown.value, self.figure.image.layout.display = "", "none"
        self.editor.hide()
        rows, explained = [picker.row for picker in self.pickers[: self.count.value]], None
        try:
            with self.status.says("generating … (to stop: interrupt the kernel)"):
                if not anyway and (reason := self.model.not_taught(rows, self.question.value)):
                    self.shown.value = f"<b>{html.escape(reason)}</b>"
                    self.anyway.layout.display = ""
                    return
                explained = self.answer(rows)
                self.shown.value = explained._repr_html_()
                self.editor.show(explained)
            if explained is not None:
                self.figure.show(explained)
        finally:
            self.button.disabled = False

    def answer(self, rows: list[int]) -> Explained:
        text = ""
        for text in self.model.stream(rows, self.question.value):
            self.shown.value = f'<div style="white-space: pre-wrap">{html.escape(text)}</div>'
        return self.model.explain(rows, self.question.value, text)

    def answer_again(self, explained: Explained, levels: dict[str, str], segment: str) -> None:
        """Answer with other levels stated.

        Parameters
        ----------
        explained : Explained
            The answer so far.
        levels : dict of str to str
            Feature to its new level.
        segment : str
            Letter of the segment that they are about.
        """
        with self.status.says("answering again …"):
            changed = self.model.with_levels(explained, levels, segment)
            self.shown.value = changed._repr_html_()
            self.editor.show(changed, segment)
        self.figure.show(changed)


class _LevelEditor:
    """Changes one stated level of an answer from the thought, and has it answered again; hidden for other answers."""

    def __init__(self, answer_again: Callable[[Explained, dict[str, str], str], None]) -> None:
        self._answer_again, self._explained = answer_again, None
        self.segment = ipywidgets.Dropdown(description="segment", **field("160px"))
        self.feature = ipywidgets.Dropdown(description="evidence", **field("320px"))
        self.level = ipywidgets.Dropdown(description="is", **field("220px"))
        self.button = ipywidgets.Button(description="Answer again", tooltip="Answer from the changed claims")
        self.segment.observe(self._list_features, "value")
        self.feature.observe(self._take_level, "value")
        self.button.on_click(self._click)
        self.box = row_of(self.segment, self.feature, self.level, self.button)
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
