"""Figures about explanations: what a thought can carry.

As in :mod:`e2llm.viz.plots`, each function draws one figure and returns it.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from .plots import score_panels


def evidence_capacity(table: pd.DataFrame, head: float) -> Figure:
    """What can be read from what is said: a row a coding, a color and marker a kind of evidence.

    Each score has its 95 % interval over people and its chance level; a line shows the head.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.evaluation.evidence_capacity.evidence_capacity`.
    head : float
        Balanced accuracy of the stage-1 head on the same windows, 0 to 1.
    """
    measured = table[table["evidence"] == table["evidence"].iloc[0]].set_index("name")["score"]
    title = (f"What is said can carry {100 * measured.min():.0f} to {100 * measured.max():.0f} %, "
             f"the head reaches {100 * head:.0f} %")
    figure = score_panels(table, title, series="evidence", xlim=(0, 100))
    ax = figure.axes[0]
    ax.set_title("")
    ax.axvline(100 * head, color="black", linestyle="dashdot", linewidth=1, zorder=1)
    ax.annotate("stage-1 head", (100 * head, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", va="bottom", fontsize=9)
    ax.set_xlabel("balanced accuracy (%)")
    return figure
