"""Small drawings of ideas for the lessons, each made from the numbers that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ..core.claims import LEVEL_THRESHOLD, level
from .style import PALETTE, panels, plain_axes

_KINDS = {"text": (PALETTE[7], ""), "EEG": (PALETTE[0], "//"), "evidence": (PALETTE[1], ".."),
          "answer": (PALETTE[2], "xx")}  # a hatch beside each color, for print in grey


def contrast(vectors: np.ndarray, emotions: Sequence[str], people: Sequence[str], anchor: int) -> Figure:
    """Which windows a contrastive loss pulls to an anchor, and which it pushes away.

    Parameters
    ----------
    vectors : ndarray, shape (n_windows, 2)
        Embeddings of length 1.
    emotions, people : sequence of str
        Of each window.
    anchor : int
        Row of the anchor.
    """
    figure, ax = panels((5.2, 3.4))
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angle), np.sin(angle), color="0.8", lw=1)
    names = list(dict.fromkeys(emotions))
    for i, (x, y) in enumerate(vectors):
        ax.plot(x, y, ls="", ms=9, **plain_axes(names.index(emotions[i])))
        ax.text(1.18 * x, 1.18 * y, f"{emotions[i]}, {people[i]}" + (" (anchor)" if i == anchor else ""),
                ha="left" if x >= 0 else "right", va="center")
        if i != anchor:
            pulled = emotions[i] == emotions[anchor]
            ax.annotate("", vectors[anchor], (x, y), arrowprops={
                "arrowstyle": "->" if pulled else "|-|", "ls": "-" if pulled else ":", "color": "0.3", "shrinkA": 8,
                "shrinkB": 8})
    ax.set(xlim=(-2.4, 2.4), ylim=(-1.4, 1.4), aspect="equal",
           title="Arrows: pulled together. Dotted: pushed apart")
    ax.axis("off")
    return figure


def token_row(words: Sequence[str], kinds: Sequence[str], title: str, below: Sequence[str] = (),
              columns: int | None = None) -> Figure:
    """The tokens of a prompt in a row of boxes, or in several.

    Parameters
    ----------
    words : sequence of str
        Text of each token.
    kinds : sequence of str
        "text", "EEG", "evidence" or "answer" for each.
    title : str
        Above the row.
    below : sequence of str, optional
        A second line for each token, such as its label.
    columns : int, optional
        Tokens in a row, written from left to right. Without it all stand in one row, written upwards.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    if len(words) != len(kinds) or (below and len(below) != len(words)):
        raise ValueError(f"{len(words)} tokens, {len(kinds)} kinds and {len(below)} labels: give as many of each.")
    across = columns or len(words)
    rows, room = -(-len(words) // across), 1.75 if below else 1.05  # room: height of a row of boxes with its labels
    size = (1.15 * across + 0.2, 0.62 * room * rows + 0.7) if columns else (max(5.0, 0.62 * len(words)), 2.2)
    figure, ax = panels(size)
    text, label = ({"fontsize": 10}, {"fontsize": 10}) if columns else ({"fontsize": 8, "rotation": 90},
                                                                        {"fontsize": 7, "rotation": 90})
    for i, (word, kind) in enumerate(zip(words, kinds, strict=True)):
        (color, hatch), x, y = _KINDS[kind], i % across, -(i // across) * room
        ax.add_patch(Rectangle((x, y), 0.92, 1, facecolor=(*color, 0.25), edgecolor=color, hatch=hatch))
        ax.text(x + 0.46, y + 0.5, word, ha="center", va="center", parse_math=False,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, **text)
        if below:
            ax.text(x + 0.46, y - 0.12, below[i], ha="center", va="top", **label)
    shown = [Patch(facecolor=(*color, 0.25), edgecolor=color, hatch=hatch, label=kind)
             for kind, (color, hatch) in _KINDS.items() if kind in kinds]
    ax.legend(handles=shown, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(shown))
    ax.set(xlim=(0, across), ylim=(1.0 - rows * room + (0.25 if columns else 0.0), 1.05))
    ax.axis("off")
    figure.suptitle(title)
    return figure


def low_rank(outputs: int, inputs: int, rank: int) -> Figure:
    """A frozen weight beside the two matrices of LoRA, drawn to scale.

    Parameters
    ----------
    outputs, inputs, rank : int
        Sizes of the weight and of the adapter.
    """
    figure, ax = panels((5.2, 2.6))
    left = 0.0
    for name, height, width, kind in (("W", outputs, inputs, "text"), ("B", outputs, rank, "answer"),
                                      ("A", rank, inputs, "answer")):
        color, hatch = _KINDS[kind]
        ax.add_patch(Rectangle((left, -height), width, height, facecolor=(*color, 0.25), edgecolor=color, hatch=hatch))
        state = "frozen" if name == "W" else "trained"
        ax.text(left + width / 2, 0.4, f"{name}: {height} x {width}\n{state}", ha="center", va="bottom")
        left += width + max(inputs, outputs) / 2
    share = rank * (outputs + inputs) / (outputs * inputs)
    ax.set(xlim=(-1, left), ylim=(-outputs - 0.5, outputs * 0.5), aspect="equal")
    ax.set_title(f"LoRA trains {share:.0%} as many numbers as W has")
    ax.axis("off")
    return figure


def verdict_line(z: Mapping[str, float], claimed: Mapping[str, str], title: str) -> Figure:
    """Draw z of some features on a line with the thresholds, and whether the claim about each is true.

    Parameters
    ----------
    z : mapping of str to float
        Feature and its z-score.
    claimed : mapping of str to str
        Feature and the level that a thought states.
    title : str
        Above the figure.
    """
    figure, ax = panels((5.6, 0.9 + 0.45 * len(z)))
    for place, (feature, value) in enumerate(z.items()):
        is_true = level(value) == claimed[feature]
        ax.plot(value, -place, ls="", ms=8, **plain_axes(0 if is_true else 3))
        ax.text(4.2, -place, f"claimed {claimed[feature]} {'✓' if is_true else '✗'}", va="center")
    for limit in (-LEVEL_THRESHOLD, LEVEL_THRESHOLD):
        ax.axvline(limit, color="0.4", ls="--", lw=1)
    ax.set(xlim=(-4, 4), ylim=(-len(z) + 0.5, 0.7), yticks=[-i for i in range(len(z))], yticklabels=list(z),
           xlabel="standard deviations from the person's mean (z): low | typical | high", title=title)
    return figure
