"""Figures of masked pretraining: the masked patches of a window, and their reconstruction.

As in :mod:`e2llm.viz.plots`, each function draws one figure and returns it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..models.eegpt import N_PATCHES, PATCH, SFREQ
from ..training.pretraining import Masks
from .style import PALETTE, panels

SHADES = {"visible": PALETTE[0], "masked channel": PALETTE[1], "masked time patch": "0.85"}


def masks(drawn: Masks, ch_names: Sequence[str], title: str, n_patches: int = N_PATCHES) -> Figure:
    """Visible and masked patches of the first window of a batch; a dot marks every patch to be reconstructed.

    Parameters
    ----------
    drawn : Masks
        From :func:`e2llm.training.pretraining.draw_masks`.
    ch_names : sequence of str
        Channels of the windows, one row each.
    title : str
        Above the figure.
    n_patches : int
        Columns: time patches of 250 ms.
    """
    kind = np.full((len(ch_names), n_patches), 2)
    times, channels = drawn.times[0].numpy(), drawn.channels[0].numpy()
    kind[:, times] = 1
    for time, shown in zip(times, channels, strict=True):
        kind[shown, time] = 0
    seconds = PATCH / SFREQ
    figure, ax = panels((8, 0.13 * len(ch_names) + 1.5))
    ax.imshow(kind, cmap=ListedColormap(list(SHADES.values())), vmin=0, vmax=2, aspect="auto", interpolation="nearest",
              extent=(0, n_patches * seconds, len(ch_names) - 0.5, -0.5))
    time, channel = drawn.hidden[0].numpy().T
    ax.plot((time + 0.5) * seconds, channel, linestyle="", marker=".", markersize=4, color="black")
    step = -(-len(ch_names) // 20)
    ax.set_yticks(range(0, len(ch_names), step), ch_names[::step])
    ax.set_xticks(np.arange(0, n_patches * seconds + 0.01, 1.0))
    ax.set_xticks(np.arange(0, n_patches * seconds, seconds), minor=True)
    ax.grid(axis="x", which="both", color="white", linewidth=0.8)
    ax.set(title=title, xlabel="time (s)", ylabel="channel")
    handles = [Patch(color=color, label=name) for name, color in SHADES.items()]
    handles.append(Line2D([], [], color="black", marker=".", linestyle="", label="to be reconstructed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def rebuilt(rows: dict[str, Sequence[tuple[str, np.ndarray, np.ndarray]]], title: str) -> Figure:
    """Original and reconstructed patches, one row of panels for each kind of masked patch.

    Parameters
    ----------
    rows : dict of str to sequence of tuple
        Kind of patch to equally many (name, original, reconstructed), both of shape (64,), in standard deviations of
        the original patch.
    title : str
        Above the figure.
    """
    columns = len(next(iter(rows.values())))
    figure, axes = panels((2.4 * columns + 1, 1.9 * len(rows) + 0.9), len(rows), columns)
    milliseconds = np.arange(PATCH) / SFREQ * 1e3
    for line, (kind, patches) in zip(np.reshape(axes, (len(rows), columns)), rows.items(), strict=True):
        for ax, (name, original, drawn) in zip(line, patches, strict=True):
            ax.plot(milliseconds, original, color="0.35", linewidth=1.2, label="original")
            ax.plot(milliseconds, drawn, color=PALETTE[1], linewidth=1.8, linestyle="--", label="reconstructed")
            explained = round(100 * (1 - np.mean((original - drawn) ** 2)))  # an int has no minus zero
            ax.set(title=f"{name} ({explained} %)", ylim=(-3.2, 3.2), xlim=(0, milliseconds[-1]))
        line[0].set_ylabel(f"{kind}\n(SD of the patch)")
    for ax in np.reshape(axes, (len(rows), columns))[-1]:
        ax.set_xlabel("time (ms)")
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.suptitle(title)
    return figure
