"""Drawings of the ideas of lessons: windows of a recording, a believable score, a split, models behind one encoder.

As in :mod:`e2llm.viz.plots_lessons`, each is made from the numbers that it is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .style import PALETTE, as_text, panels, plain_axes

_SFREQ = 256.0  # Hz, of the signal that is drawn
_DRAWN = 2.7  # windows in a clip of the drawing: two, and a rest that is not used
# A hatch beside each color, for print in grey.
_CLIPS = {"train": (PALETTE[0], "//"), "test": (PALETTE[1], "..")}
_PARTS = {"train": (PALETTE[0], "//"), "val": (PALETTE[1], ".."), "test": (PALETTE[2], "xx"),
          "not used": ((0.9, 0.9, 0.9), "")}
_FROZEN, _TRAINED = (PALETTE[7], ""), (PALETTE[2], "xx")


def recording_to_windows(window_s: float = 4.0, band_hz: tuple[float, float] = (0.5, 45.0)) -> Figure:
    """Two clips of one made-up channel: as recorded, after the band-pass, and cut into windows with a row each.

    Parameters
    ----------
    window_s : float
        Length of a window, seconds.
    band_hz : tuple of float
        Edges of the band-pass, Hz.
    """
    clip_s = _DRAWN * window_s
    times = np.arange(round(clip_s * _SFREQ)) / _SFREQ
    rng = np.random.default_rng(0)
    figure, (before, after, rows) = panels((9, 5), rows=3)
    edges = [max(band_hz[0], 0.01), min(band_hz[1], 0.99 * _SFREQ / 2)]
    kernel = scipy.signal.butter(2, edges, "bandpass", fs=_SFREQ, output="sos")
    for clip, (part, (color, hatch)) in enumerate(_CLIPS.items()):
        start = clip * clip_s
        alpha = 20 * np.sin(2 * np.pi * 10 * times) * np.sin(2 * np.pi * times / 3)
        drift, mains = 60 * np.sin(2 * np.pi * times / clip_s + clip), 15 * np.sin(2 * np.pi * 50 * times)
        raw = alpha + drift + mains + rng.normal(0, 5, len(times))
        before.plot(start + times, raw, color="0.3", lw=0.5)
        after.plot(start + times, scipy.signal.sosfiltfilt(kernel, raw), color="0.3", lw=0.5)
        for window in range(int(_DRAWN)):
            left = start + window * window_s
            after.axvspan(left, left + window_s, facecolor=(*color, 0.25), edgecolor=color)
            rows.add_patch(Rectangle((left, 0.3), 0.96 * window_s, 1, facecolor=(*color, 0.25), edgecolor=color,
                                     hatch=hatch))
            rows.text(left + 0.48 * window_s, 0.8, f"clip {clip + 1}\nwindow {window}\n{window * window_s:g} s",
                      ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
        rest = start + (int(_DRAWN) + 0.5 * (_DRAWN - int(_DRAWN))) * window_s
        rows.text(rest, 0.8, "not\nused", ha="center", va="center")
        rows.text(start + 0.5 * clip_s, 0.02, f"the whole clip {clip + 1}: {part}", ha="center", va="center")
    for ax in (before, after):
        ax.axvline(clip_s, color="black", ls="--", lw=1)
        ax.set(ylabel="signal (µV)", xlim=(0, 2 * clip_s))
    before.set(title="1. As recorded: drift and mains lie over the EEG")
    after.set(title=f"2. After the band-pass, {band_hz[0]:g} to {band_hz[1]:g} Hz: cut into windows",
              xlabel="time (s); dashed: the next clip begins")
    rows.set(title="3. One row of the index for each window", xlim=(0, 2 * clip_s), ylim=(-0.2, 1.35))
    rows.axis("off")
    rest_s = clip_s - int(_DRAWN) * window_s
    figure.suptitle(f"A clip of {clip_s:g} s gives {int(_DRAWN)} windows of {window_s:g} s; {rest_s:.1f} s are left")
    return figure


def believable_score(score: tuple[float, float, float], control: tuple[float, float, float],
                     chance: float) -> Figure:
    """A score and its control with their intervals and with chance; the title says whether to believe it.

    Parameters
    ----------
    score, control : tuple of float
        Value and both ends of its 95 % interval, in percent.
    chance : float
        What a guess reaches, in percent.
    """
    figure, ax = panels((8, 2.8))
    for place, (color, (value, low, high)) in enumerate(((0, score), (3, control))):
        ax.plot([low, high], [place, place], lw=3, color=PALETTE[color])
        ax.plot(value, place, ls="", ms=9, **plain_axes(color))
        where = "above" if low > chance else "below" if high < chance else "contains"
        said = f"{value:g} %, 95 % interval {low:g} to {high:g} %\n{where} chance"
        at_left = value > 50
        ax.text(low - 2 if at_left else high + 2, place, said, ha="right" if at_left else "left", va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    ax.axvline(chance, color="0.2", ls="--", lw=1, zorder=0)
    ax.text(chance, -0.62, f"chance {chance:g} %", ha="center", va="bottom")
    ax.set(xlim=(0, 100), ylim=(1.5, -0.6), yticks=[0, 1], yticklabels=["with EEG", "control: no EEG"],
           xlabel="score (%)")
    above, at_chance = score[1] > chance, control[1] <= chance <= control[2]
    finding = (f"Not believable: the interval does not lie above chance, {chance:g} %" if not above else
               f"Believable: at least {score[1] - chance:.1f} points above chance, and the control is at chance"
               if at_chance else "Not believable: the control is not at chance")
    figure.suptitle(finding)
    return figure


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
