"""The confusion explorer: the windows behind a cell of a confusion matrix, and the model's reasons."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ...core.environment import is_interactive
from ...evaluation.metrics import confusion
from .. import plots_explore
from .controls import Picture, Status, field, panel, row_of, static, window_name


def confusion_explorer(model: Any, rows: np.ndarray, predicted: np.ndarray) -> ipywidgets.VBox | Figure:
    """Choose a cell of the confusion matrix, see its windows and what the model says of one; in batch, one figure.

    Parameters
    ----------
    model : E2LLM
        From :meth:`e2llm.app.chat_session.E2LLM.of_run`.
    rows : ndarray of int, shape (n,)
        Windows that were asked about.
    predicted : ndarray of int, shape (n,)
        Class index of each answer.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure of the largest cell off the diagonal, closed in pyplot.

    Raises
    ------
    ValueError
        If there is not one answer a window.
    """
    rows, predicted = np.asarray(rows), np.asarray(predicted)
    if rows.shape != predicted.shape or not len(rows):
        raise ValueError(f"confusion_explorer needs one answer a window: there are {len(rows)} windows and "
                         f"{len(predicted)} answers.")
    view = _Cells(model.corpus, rows, predicted)
    if not is_interactive():
        return static(view.figure(view.start))
    return _ConfusionPanel(model, view).box


class _Cells:
    """Windows and figure of each cell."""

    def __init__(self, corpus: Any, rows: np.ndarray, predicted: np.ndarray) -> None:
        self.corpus, self.rows, self.predicted, self.labels = corpus, rows, predicted, list(corpus.label_set.labels)
        self.truth = corpus.labels[rows]
        self.counts = confusion(self.truth, predicted, len(self.labels))
        wrong = self.counts * ~np.eye(len(self.labels), dtype=bool)
        place = np.argmax(wrong if wrong.any() else self.counts)
        self.start = tuple(int(i) for i in np.unravel_index(place, self.counts.shape))

    def windows(self, cell: tuple[int, int]) -> np.ndarray:
        return self.rows[(self.truth == cell[0]) & (self.predicted == cell[1])]

    def figure(self, cell: tuple[int, int], with_matrix: bool = True) -> Figure:
        z = self.corpus.z
        return plots_explore.confusion_cell(self.counts, self.labels, cell, z[self.windows(cell)],
                                            z[self.windows((cell[0], cell[0]))], self.corpus.evidence_names.columns,
                                            with_matrix)


class _ConfusionPanel:
    """A button for each cell, the windows of the chosen one, and what the model says of one of them."""

    def __init__(self, model: Any, view: _Cells) -> None:
        self.model, self.view, self.cell = model, view, view.start
        self.buttons = {}
        self.picture = Picture(lambda cell: view.figure(cell, with_matrix=False))
        self.window = ipywidgets.Dropdown(description="window", **field("480px"))
        self.ask = ipywidgets.Button(description="Reasons", button_style="primary",
                                     tooltip="Ask the model about this window")
        self.status, self.shown = Status(), ipywidgets.HTML()
        self.ask.on_click(self.give_reasons)
        self.choose(self.cell)
        self.box = panel(self.matrix(), self.picture.status.line, self.picture.image, row_of(self.window, self.ask),
                         self.status.line, self.shown)

    def matrix(self) -> ipywidgets.VBox:
        n, labels, counts = len(self.view.labels), self.view.labels, self.view.counts
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        narrow = ipywidgets.Layout(width="64px", margin="1px")
        head = [ipywidgets.Label("true ↓ answer →", layout=ipywidgets.Layout(width="118px")),
                *(ipywidgets.Label(label, layout=narrow) for label in labels)]
        lines = [ipywidgets.HBox(head)]
        for i in range(n):
            line = [ipywidgets.Label(labels[i], layout=ipywidgets.Layout(width="118px"))]
            for j in range(n):
                ground = colormaps["cividis"](float(shares[i, j]))
                dark = np.dot(ground[:3], (0.299, 0.587, 0.114)) < 0.5  # perceived brightness
                button = ipywidgets.Button(
                    description=str(counts[i, j]), layout=ipywidgets.Layout(width="64px", margin="1px"),
                    tooltip=f"{labels[i]}, answered {labels[j]}: {counts[i, j]} windows",
                    style={"button_color": to_hex(ground), "text_color": "white" if dark else "black"})
                button.on_click(lambda _, cell=(i, j): self.choose(cell))
                self.buttons[i, j] = button
                line.append(button)
            lines.append(ipywidgets.HBox(line))
        self.mark()
        return ipywidgets.VBox(lines, layout=ipywidgets.Layout(overflow="auto"))

    def mark(self) -> None:
        for cell, button in self.buttons.items():
            button.layout.border = "3px solid #D55E00" if cell == self.cell else "1px solid #808080"

    def choose(self, cell: tuple[int, int]) -> None:
        self.cell = cell
        self.mark()
        windows = self.view.corpus.windows
        found = self.view.windows(cell)
        self.window.options = [(window_name(windows, int(row)), int(row)) for row in found]
        self.window.index = 0 if len(found) else None
        self.ask.disabled, self.shown.value = not len(found), ""
        self.picture.show(cell)

    def give_reasons(self, _: ipywidgets.Button) -> None:
        with self.status.says("asking the model …"):
            self.shown.value = self.model.ask(self.window.value, "predict")._repr_html_()
