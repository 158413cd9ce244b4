"""The scenario playground: segments, ranked by how well they fit a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from ...core.environment import is_interactive
from .. import plots_explore
from .controls import Picture, field, panel, row_of, static, window_name


def scenario_playground(model: Any, rows: Sequence[int], scenario: str) -> ipywidgets.VBox | Figure:
    """Type a text and see which segments fit it; in batch, the figure of the first text.

    Parameters
    ----------
    model : E2LLM
        From :meth:`e2llm.app.chat_session.E2LLM.of_run`.
    rows : sequence of int
        Windows that are ranked.
    scenario : str
        The first text.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure is closed in pyplot.
    """
    def draw(text: str) -> Figure:
        of_text, table = model.scenario_fit(text, rows)
        names = [window_name(model.corpus.windows, int(row)) for row in table.index[:10]]
        return plots_explore.scenario_ranking(text, of_text, table, names)

    if not is_interactive():
        return static(draw(scenario))
    text = ipywidgets.Textarea(value=scenario, description="scenario", rows=3, **field("640px"))
    button = ipywidgets.Button(description="Rank", button_style="primary", tooltip="Rank the segments by their fit")
    picture = Picture(draw)
    button.on_click(lambda _: picture.show(text.value))
    picture.show(scenario)
    return panel(row_of(text, button), picture.status.line, picture.image)
