"""Small drawings of the ideas behind evidence for a score: what a split keeps apart, what two models share.

As in :mod:`e2llm.viz.plots_lessons`, each is made from the numbers that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .plots import PALETTE, as_text, panels

_PARTS = {"train": (PALETTE[0], "//"), "val": (PALETTE[1], ".."), "test": (PALETTE[2], "xx"),
          "not used": ((0.9, 0.9, 0.9), "")}  # a hatch beside each color, for print in grey
_FROZEN, _TRAINED = (PALETTE[7], ""), (PALETTE[2], "xx")


def split_grid(index: pd.DataFrame, parts: Mapping[str, Sequence[str]]) -> Figure:
    """Which windows train and which test: a panel a rule, a row a person, a column a clip, a stripe a window.

    The title counts the test windows whose clip and person have windows in training too.

    Parameters
    ----------
    index : DataFrame
        A row a window with ``subject`` and ``clip``; windows of a clip in the order of time.
    parts : mapping of str to sequence of str
        Rule, and for each window "train", "val" or "test"; an empty name stands for a window that is not used.

    Raises
    ------
    ValueError
        If a rule does not name a part for each window.
    """
    people, clips = list(dict.fromkeys(index["subject"])), list(dict.fromkeys(index["clip"]))
    figure, axes = panels((1.4 + len(parts) * (0.42 * len(clips) + 0.6), 0.4 * len(people) + 1.8), 1, len(parts))
    found = {}
    for ax, (rule, part) in zip([axes] if len(parts) == 1 else axes, parts.items(), strict=True):
        if len(part) != len(index):
            raise ValueError(f"{rule}: {len(part)} parts for {len(index)} windows. Give one for each.")
        table = index[["subject", "clip"]].assign(part=[name or "not used" for name in part])
        for (person, clip), windows in table.groupby(["subject", "clip"])["part"]:
            width = 0.86 / len(windows)
            for i, name in enumerate(windows):
                color, hatch = _PARTS[name]
                ax.add_patch(Rectangle((clips.index(clip) + 0.07 + i * width, people.index(person) + 0.1), width, 0.8,
                                       facecolor=(*color, 0.4), edgecolor=color, hatch=hatch, linewidth=0.5))
        trained = set(table.loc[table["part"] == "train", ["subject", "clip"]].itertuples(index=False, name=None))
        test = list(table.loc[table["part"] == "test", ["subject", "clip"]].itertuples(index=False, name=None))
        found[rule] = f"{sum(key in trained for key in test)} of {len(test)} ({rule})"
        ax.set(title=as_text(rule), xlabel="clip", xlim=(0, len(clips)), ylim=(len(people), 0))
        ax.set_xticks([i + 0.5 for i in range(len(clips))], clips)
        ax.set_yticks([i + 0.5 for i in range(len(people))], [as_text(name) for name in people])
        ax.tick_params(length=0)
    figure.legend(handles=[Patch(facecolor=(*color, 0.4), edgecolor=color, hatch=hatch, label=name)
                           for name, (color, hatch) in _PARTS.items()], loc="outside lower center", ncols=len(_PARTS))
    figure.suptitle(as_text("Test windows whose clip and person also train:\n" + ", ".join(found.values())))
    return figure


def behind_one_encoder(parameters: Mapping[str, float]) -> Figure:
    """Language models that get the tokens of one encoder; the area of each is in proportion to its parameters.

    Parameters
    ----------
    parameters : mapping of str to float
        Language model and its number of parameters, the largest anywhere.
    """
    largest, most = max(parameters.items(), key=lambda pair: pair[1])
    smallest, fewest = min(parameters.items(), key=lambda pair: pair[1])
    figure, ax = panels((7.2, 1.5 * len(parameters) + 0.9))
    middle = -(len(parameters) - 1)  # two units of height a model
    _box(ax, (1.0, middle), (1.3, 1.0), "EEG", _FROZEN)
    _box(ax, (3.2, middle), (1.7, 1.0), "encoder", _FROZEN)
    _arrow(ax, (1.65, middle), (2.35, middle))
    for i, (name, number) in enumerate(parameters.items()):
        place, side = -2 * i, (number / most) ** 0.5
        _box(ax, (6.4, place), (1.7, 1.0), "projector", _TRAINED)
        _box(ax, (9.2, place), (2.4 * side, 1.6 * side), "", _TRAINED)
        ax.text(10.6, place, f"{as_text(name)}\n{number / 1e6:.1f} million", va="center")
        _arrow(ax, (4.05, middle), (5.55, place))
        _arrow(ax, (7.25, place), (9.2 - 1.2 * side, place))
    ax.text(3.2, middle - 0.8, "the same tokens", ha="center", va="center")
    ax.text(9.2, 1.15, "language model", ha="center", va="center")
    ax.legend(handles=[Patch(facecolor=(*color, 0.25), edgecolor=color, hatch=hatch, label=label)
                       for (color, hatch), label in ((_FROZEN, "shared, not trained again"),
                                                     (_TRAINED, "one of each model"))],
              loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)
    ax.set(xlim=(0.2, 13), ylim=(2 * middle - 1.1, 1.4),
           title=f"One encoder, the same tokens: {as_text(largest)} has {most / fewest:.1f} times the parameters of "
           f"{as_text(smallest)}")
    ax.axis("off")
    return figure


def _box(ax: Axes, center: tuple[float, float], size: tuple[float, float], text: str, look: tuple) -> None:
    """A box with its text."""
    (color, hatch), (x, y), (width, height) = look, center, size
    ax.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, facecolor=(*color, 0.25), edgecolor=color,
                           hatch=hatch))
    ax.text(x, y, text, ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            if text else None)


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow from left to right."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})
