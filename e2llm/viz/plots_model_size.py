"""Figures that compare language models: what is measured, and what it costs, against their size; and runs side by side.

As in :mod:`e2llm.viz.plots`, each function draws one figure and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from ..evaluation.studies.model_size import HEAD
from .plots import PALETTE, legend_right, panels, plain_axes

SHOWN = ("accuracy", "kappa", "calibration error", "zero-shot", "claim precision", "agreement, all wordings")
# Colour and marker of each series: models made from scratch, pretrained ones, and the controls.
LOOKS = {"scratch": (PALETTE[0], "o", "-"), "pretrained": (PALETTE[1], "D", ""),
         "no EEG": (PALETTE[7], "s", ":"), "shuffled EEG": (PALETTE[4], "^", ":")}  # fmt: skip
NAMES = {"scratch": "made from scratch", "pretrained": "pretrained", "no EEG": "no EEG", "shuffled EEG": "shuffled EEG"}


def against_size(table: pd.DataFrame, title: str, measures: Sequence[str] = SHOWN) -> Figure:
    """Measures against the number of parameters, one panel each, with 95 % intervals over people, chance and the control without EEG.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.evaluation.personwise.scores`.
    measures : sequence of str
        Panels, three in a row. Where a measure knows no answer without EEG, shuffled EEG is the control.
    """
    rows = -(-len(measures) // 3)
    figure, axes = panels((11, 3.1 * rows + 0.5), rows, min(3, len(measures)))
    for ax in np.ravel(axes)[len(measures) :]:
        ax.set_visible(False)
    drawn = set().union(*[_panel(ax, table[table["measure"] == measure], measure) for ax, measure in zip(np.ravel(axes), measures, strict=False)])
    handles = [Line2D([], [], color=colour, marker=marker, linestyle=line, label=NAMES[key])
               for key, (colour, marker, line) in LOOKS.items() if key in drawn]
    handles += [Line2D([], [], color=colour, linestyle=line, label=name)
                for colour, line, name in (("0.25", "--", "chance"), ("black", "-.", "encoder's own head"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(title)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, measure: str) -> set[str]:
    """One measure; which series it has."""
    control = next((source for source in ("no EEG", "shuffled EEG") if rows.loc[rows["source"] == source, "score"].notna().any()), None)
    predicted_evidence = rows[rows["source"] == "EEG"]
    series = {"scratch": predicted_evidence[predicted_evidence["origin"] == "scratch"], "pretrained": predicted_evidence[predicted_evidence["origin"] == "pretrained"]}
    if control:
        series[control] = rows[rows["source"] == control]
    series = {key: found for key, found in series.items() if len(found)}
    for key, each in series.items():
        found, (colour, marker, line) = each.sort_values("parameters"), LOOKS[key]
        bars = 100 * np.stack([found["score"] - found["low"], found["high"] - found["score"]]).astype(float)
        ax.errorbar(found["parameters"], 100 * found["score"], yerr=np.clip(bars, 0, None), color=colour, marker=marker, linestyle=line, markersize=6,
                    capsize=3, linewidth=1.3)
    if predicted_evidence["chance"].notna().any():
        ax.axhline(100 * predicted_evidence["chance"].mean(), color="0.25", linestyle="--", linewidth=1)
    if len(head := rows.loc[rows["source"] == HEAD, "score"]):
        ax.axhline(100 * head.mean(), color="black", linestyle="-.", linewidth=1)
    less = "; less is better" if predicted_evidence["chance"].isna().all() and measure != "parse rate" else ""
    ax.set(title=measure, xscale="log", xlabel="parameters", ylabel=f"% (95 % over people{less})")
    ax.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=EngFormatter(sep=""), minor_locator=NullLocator())
    ax.grid(axis="y", color="0.9", zorder=0)
    return set(series)


def costs(table: pd.DataFrame, title: str) -> Figure:
    """Processor time of a training step, and tokens trained on and spoken in a second, against the number of parameters.

    Parameters
    ----------
    table : DataFrame
        Costs of :func:`e2llm.app.model_size_study.study`: one row a rung and training seed.
    """
    table = table.groupby("rung").agg({"parameters": "first", "seconds_a_step": "mean", "tokens_a_second": "mean",
                                       "generated_tokens_a_second": "mean"}).sort_values("parameters")
    figure, (left, right) = panels((9.5, 3.4), 1, 2)
    left.loglog(table["parameters"], table["seconds_a_step"], color=PALETTE[0], marker="o")
    for (column, name), colour, marker in zip({"tokens_a_second": "trained on", "generated_tokens_a_second": "spoken"}.items(), PALETTE[1:3], "sD",
                                              strict=True):
        right.loglog(table["parameters"], table[column], color=colour, marker=marker, label=name)
    left.set(title="one step of stage 3", xlabel="parameters", ylabel="processor seconds")
    right.set(title="speed", xlabel="parameters", ylabel="tokens a processor second")
    right.legend()
    figure.suptitle(title)
    return figure


def side_by_side(table: pd.DataFrame, title: str) -> Figure:
    """Scores of several runs, a row for each measure, with 95 % intervals over people and the chance level of each run's row.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.app.run_comparison.side_by_side`. What is no rate (the group "writing") is not drawn.
    """
    rates = table[table["group"] != "writing"]
    names, runs = list(dict.fromkeys(rates["name"])), list(dict.fromkeys(rates["run"]))
    figure, ax = panels((8, 0.42 * len(names) + 1.3))
    for i, (run, aside) in enumerate(zip(runs, np.linspace(-0.2, 0.2, len(runs)), strict=True)):
        rows = rates[rates["run"] == run]
        places = np.array([names.index(name) for name in rows["name"]]) + (aside if len(runs) > 1 else 0.0)
        interval = 100 * np.abs(np.stack([rows["score"] - rows["low"], rows["high"] - rows["score"]]).astype(float))
        ax.errorbar(100 * rows["score"], places, xerr=interval, linestyle="", markersize=6, capsize=3, label=run, **plain_axes(i))
        chance = rows["chance"].notna().to_numpy()
        named = "chance" if run == runs[-1] else "_"
        ax.vlines(100 * rows["chance"][chance], places[chance] - 0.14, places[chance] + 0.14, "0.25", "dashed", label=named)
    ax.set_yticks(range(len(names)), names)
    ax.set(title=title, xlabel="score (%)", xlim=(0, 100), ylim=(len(names) - 0.4, -0.6))
    ax.grid(axis="x", color="0.9", zorder=0)
    legend_right(ax)
    return figure
