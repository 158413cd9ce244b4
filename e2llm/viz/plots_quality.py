"""Figure of what the gate found in recordings. As in :mod:`e2llm.viz.plots`, the function returns its figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..data.checks import USUAL_UV
from .style import PALETTE, panels


def recordings(table: pd.DataFrame, title: str) -> Figure:
    """Amplitude of every recording on the left; windows that are kept and left out on the right.

    Parameters
    ----------
    table : DataFrame
        One row a recording, from :func:`e2llm.data.checks.read_quality`.
    title : str
        Above the figure.
    """
    figure, (left, right) = panels((9, 3), columns=2)
    places, used = np.arange(len(table)), table["used"].to_numpy(dtype=bool)
    amplitude = table["amplitude_uv"].to_numpy(dtype=float)
    left.axhspan(*USUAL_UV, color="0.9", label="usual amplitude")
    for mask, color, marker, name in ((used, PALETTE[0], "o", "used"), (~used, PALETTE[3], "X", "left out")):
        if (shown := mask & np.isfinite(amplitude)).any():
            left.plot(places[shown], amplitude[shown], linestyle="", marker=marker, color=color, label=name)
    left.set(yscale="log", xlabel="recording", ylabel="EEG (µV, root mean square)", xlim=(-0.5, len(table) - 0.5))
    kept = np.where(used, table["windows"].to_numpy(), 0)
    lost = table["windows"].to_numpy() + table["dropped"].to_numpy() - kept
    right.bar(places, kept, color=PALETTE[0], width=0.9, label="kept")
    right.bar(places, lost, bottom=kept, color=PALETTE[3], width=0.9, hatch="//", label="left out")
    right.set(xlabel="recording", ylabel="windows", xlim=(-0.5, len(table) - 0.5))
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    (handles, names), (bars, of_bars) = left.get_legend_handles_labels(), right.get_legend_handles_labels()
    figure.legend([*handles, *bars], [*names, *(f"windows {name}" for name in of_bars)], loc="outside lower center",
                  ncols=len(names) + len(of_bars))
    figure.suptitle(title, parse_math=False)
    return figure
