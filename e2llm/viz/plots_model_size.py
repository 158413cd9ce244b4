"""Figures that compare language models: scores and cost against their size, and several runs side by side.

As in :mod:`e2llm.viz.plots`, each function draws one figure and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, NullLocator

from ..evaluation.studies.model_size import HEAD
from .plots import score_panels
from .style import PALETTE, panels

SHOWN = ("accuracy", "kappa", "calibration error", "zero-shot", "claim precision", "agreement, all wordings")
# Colour and marker of each series: models made from scratch, pretrained ones, and the controls.
LOOKS = {"scratch": (PALETTE[0], "o", "-"), "pretrained": (PALETTE[1], "D", ""),
         "no EEG": (PALETTE[7], "s", ":"), "shuffled EEG": (PALETTE[4], "^", ":")}  # fmt: skip
NAMES = {"scratch": "made from scratch", "pretrained": "pretrained", "no EEG": "no EEG", "shuffled EEG": "shuffled EEG"}


# Of the axis of parameters: ticks, and the share of the axis between neighbors, so that their texts have room.
_MOST_TICKS, _APART = 5, 0.2
_ASIDE = 0.03  # of the width of that axis: how far controls stand beside models


def against_size(table: pd.DataFrame, title: str, measures: Sequence[str] = SHOWN) -> Figure:
    """Measures against the number of parameters, one panel each.

    Each panel shows 95 % intervals over people, chance, and the control without EEG.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.evaluation.person_bootstrap.scores`.
    title : str
        Above the figure.
    measures : sequence of str
        Panels, three in a row. Where a measure has no value without EEG, shuffled EEG is the control.
    """
    rows = -(-len(measures) // 3)
    figure, axes = panels((11, 3.1 * rows + 0.5), rows, min(3, len(measures)))
    for ax in np.ravel(axes)[len(measures) :]:
        ax.set_visible(False)
    drawn = set().union(*[_panel(ax, table[table["measure"] == measure],
                                 measure) for ax, measure in zip(np.ravel(axes), measures, strict=False)])
    handles = [Line2D([], [], color=color, marker=marker, linestyle=line, label=NAMES[key])
               for key, (color, marker, line) in LOOKS.items() if key in drawn]
    handles += [Line2D([], [], color=color, linestyle=line, label=name)
                for color, line, name in (("0.25", "--", "chance"), ("black", "-.", "encoder's own head"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles),
                  title="bar: 95 % interval over people")
    figure.suptitle(title)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, measure: str) -> set[str]:
    """Draw one measure; return the names of its series."""
    control = next((source for source in ("no EEG",
                                          "shuffled EEG") if rows.loc[rows["source"] == source, "score"].notna().any()),
                   None)
    with_eeg = rows[rows["source"] == "EEG"]
    series = {"scratch": with_eeg[with_eeg["origin"] == "scratch"],
              "pretrained": with_eeg[with_eeg["origin"] == "pretrained"]}
    if control:
        series[control] = rows[rows["source"] == control]
    series = {key: found for key, found in series.items() if len(found)}
    span = max(rows["parameters"].max() / rows["parameters"].min(), 10.0)
    for key, each in series.items():
        found, (color, marker, line) = each.sort_values("parameters"), LOOKS[key]
        beside = span ** (_ASIDE * (key == control))  # so that bars of one size do not cover each other
        bars = 100 * np.stack([found["score"] - found["low"], found["high"] - found["score"]]).astype(float)
        ax.errorbar(found["parameters"] * beside, 100 * found["score"], yerr=np.clip(bars, 0, None), color=color,
                    marker=marker, linestyle=line, markersize=6, capsize=3, linewidth=1.3)
    if with_eeg["chance"].notna().any():
        ax.axhline(100 * with_eeg["chance"].mean(), color="0.25", linestyle="--", linewidth=1)
    if len(head := rows.loc[rows["source"] == HEAD, "score"]):
        ax.axhline(100 * head.mean(), color="black", linestyle="-.", linewidth=1)
    less = " (less is better)" if with_eeg["chance"].isna().all() and measure != "parse rate" else ""
    ax.set(title=f"{measure}{less}", ylabel="%")
    _size_axis(ax, rows["parameters"])
    ax.grid(axis="y", color="0.9", zorder=0)
    return set(series)


def _size_axis(ax: Axes, parameters: pd.Series) -> None:
    """A logarithmic axis of parameters with the sizes themselves as ticks, where they are few."""
    sizes = sorted(set(parameters.astype(float)))
    share = [np.log(b / a) / np.log(sizes[-1] / sizes[0]) for a, b in pairwise(sizes)]
    few = len(sizes) <= _MOST_TICKS and all(part > _APART for part in share)
    ax.set(xscale="log", xlabel="parameters")
    ax.xaxis.set(major_locator=FixedLocator(sizes) if few else LogLocator(subs=(1, 2, 5)),
                 major_formatter=lambda value, _: EngFormatter(sep="")(float(f"{value:.3g}")),
                 minor_locator=NullLocator())
    ax.margins(x=0.12)


def costs(table: pd.DataFrame, title: str) -> Figure:
    """Processor time of a training step, and tokens per second in training and generation, against model size.

    Axes begin at zero, unless values differ more than tenfold: those are logarithmic.

    Parameters
    ----------
    table : DataFrame
        Costs of :func:`e2llm.app.model_size_study.study`: one row per model size and training seed.
    title : str
        Above the figure.
    """
    table = table.groupby("size").agg({"parameters": "first", "seconds_a_step": "mean", "tokens_a_second": "mean",
                                       "generated_tokens_a_second": "mean"}).sort_values("parameters")
    figure, (left, right) = panels((9.5, 3.4), 1, 2)
    left.plot(table["parameters"], table["seconds_a_step"], color=PALETTE[0], marker="o")
    for (column, name), color, marker in zip({"tokens_a_second": "trained on",
                                               "generated_tokens_a_second": "generated"}.items(), PALETTE[1:3], "sD",
                                              strict=True):
        right.plot(table["parameters"], table[column], color=color, marker=marker, label=name)
    for ax in (left, right):
        drawn = np.concatenate([line.get_ydata() for line in ax.lines]).astype(float)
        least, most = np.nanmin(drawn), np.nanmax(drawn)
        if 0 < 10 * least < most:
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, 1.1 * most)
        _size_axis(ax, table["parameters"])
    left.set(title="one step of stage 3", ylabel="processor seconds")
    right.set(title="speed", ylabel="tokens per processor second")
    right.legend(loc="center right")
    figure.suptitle(title)
    return figure


def side_by_side(table: pd.DataFrame, title: str) -> Figure:
    """Scores of several runs, one row per measure, with 95 % intervals over people and chance levels.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.app.run_comparison.side_by_side`. Measures that are no rate (the group "writing") are left
        out.
    title : str
        Above the figure.
    """
    return score_panels(table[table["group"] != "writing"], title, series="run", xlim=(0, 100))
