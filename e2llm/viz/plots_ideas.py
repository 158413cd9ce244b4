"""Drawings of the ideas of lessons 01 and 05: what becomes of a recording, and what makes a score believable."""

from __future__ import annotations

import numpy as np
import scipy  # its parts load when they are used
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .plots import PALETTE, panels, plain_axes

_SFREQ = 256.0  # Hz, of the signal that is drawn
_DRAWN = 2.7  # windows in a clip of the drawing: two, and a rest that is not used
_PARTS = {"train": (PALETTE[0], "//"), "test": (PALETTE[1], "..")}  # a hatch beside each color, for print in grey


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
    for clip, (part, (color, hatch)) in enumerate(_PARTS.items()):
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
