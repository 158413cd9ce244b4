"""How figures look: colors, markers, sizes of text, and the panels that they begin with.

Colors are safe for color-blind readers: seaborn's "colorblind" for categories, one of its own for each emotion.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ..core.montage import REGIONS

# seaborn's "colorblind"; written out, for seaborn loads for a second
_COLORBLIND = ("#0173B2", "#DE8F05", "#029E73", "#D55E00", "#CC78BC", "#CA9161", "#FBAFE4", "#949494", "#ECE133",
               "#56B4E9")
PALETTE: list[tuple[float, float, float]] = [to_rgb(color) for color in _COLORBLIND]
REGION_COLORS = dict(zip(REGIONS, PALETTE, strict=False))
MARKERS = "os^DvPX"  # a second cue beside the color
LINES = ("-", "--", "-.", ":")  # the same for lines
# An emotion has one color in all figures; the first of each set of labels that the kit knows. Their lightness differs
# too (CIELAB, six steps or more), for print in grey; so does what a color-blind eye sees of them.
EMOTION_COLORS = {name: to_rgb(color) for name, color in {
    "happy": "#D9AE3A", "surprise": "#A33C92", "neutral": "#8C8C8C", "disgust": "#2F8748", "fear": "#3DA9F7",
    "sad": "#123BC5", "anger": "#70171D"}.items()}


def use_style(dpi: float = 90) -> None:
    """Set the size of text and figures for a notebook, once at its top.

    Parameters
    ----------
    dpi : float
        Dots an inch of a figure below its cell. Its smallest labels are then 11 pixels high.
    """
    plt.rcParams.update({
        "figure.dpi": dpi, "savefig.dpi": 80, "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10,
        "figure.titlesize": 12, "legend.fontsize": 9, "xtick.labelsize": 9, "ytick.labelsize": 9,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    })


def panels(size: tuple[float, float], rows: int = 1, columns: int = 1) -> tuple[Figure, Axes | np.ndarray]:
    """A figure with one panel, or an array of them.

    Parameters
    ----------
    size : tuple of float
        Width and height, inches.
    rows, columns : int
        Number of panels.
    """
    return plt.subplots(rows, columns, figsize=size, layout="constrained")


def as_text(name: str) -> str:
    """A name of a file, folder or person for a figure, in which two dollars would stand for a formula."""
    return str(name).replace("$", r"\$")


def plain_axes(i: int) -> dict:
    """Color and marker of category ``i``; the first 70 combinations differ."""
    return {"color": PALETTE[i % 10], "marker": MARKERS[i % 7]}


def label_colors(names: Sequence[str]) -> list[tuple[float, float, float]]:
    """Colors of labels: of emotions always the same (:data:`EMOTION_COLORS`), of any other names in their order.

    Parameters
    ----------
    names : sequence of str
        Labels, or other groups.
    """
    if set(names) <= set(EMOTION_COLORS):
        return [EMOTION_COLORS[name] for name in names]
    return [PALETTE[i % 10] for i in range(len(names))]


def legend_right(ax: Axes, title: str | None = None) -> None:
    """Put the legend to the right of a panel.

    Parameters
    ----------
    ax : Axes
        The panel.
    title : str, optional
        Above the entries.
    """
    ax.legend(title=title, loc="upper left", bbox_to_anchor=(1.02, 1.0))  # beside a marker at the edge
