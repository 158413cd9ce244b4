"""Figures of the widgets: one state in, one figure out; also for papermill and HTML.

They are drawn again at every click, so their panels have fixed places: a constrained layout would take as long as all
drawing together.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ..core.bands import BANDS
from ..core.claims import LEVEL_THRESHOLD
from ..core.montage import region_indices
from ..data.features import band_power
from ..data.protocols import Split
from . import plots, style

WIDTH = 10.5  # inches: the labels can be read where a narrow page makes a figure smaller
N_EVIDENCE = 8  # features whose z-score is drawn
LOW, HIGH, TYPICAL = style.PALETTE[0], style.PALETTE[3], "0.6"
# From light to dark, so that the parts differ in grey too
PARTS = {"left aside": "0.93", "train": "#9ecae1", "val": "#DE8F05", "test": "#08306b", "on both sides": "#000000"}
MOST_TICKS = 20  # names on an axis


def _title(figure: Figure, text: str, width: int = 110) -> None:
    """The title of a figure, at most two lines, without interpretation as mathematics."""
    lines = textwrap.wrap(" ".join(str(text).split()), width)
    figure.suptitle("\n".join(lines[:1] + ([lines[1] + (" …" if len(lines) > 2 else "")] if lines[1:] else [])),
                    parse_math=False, y=0.985, va="top")


def window_with_evidence(signal_uv: np.ndarray, sfreq: float, ch_names: Sequence[str], z: np.ndarray,
                         columns: Sequence[str], title: str,
                         raw: tuple[np.ndarray, float, Sequence[str]] | None = None) -> Figure:
    """One window: traces, scalp maps of alpha and beta power, spectrum by region, and what stands out.

    Parameters
    ----------
    signal_uv : ndarray, shape (n_channels, n_samples)
        Microvolts, after cleaning.
    sfreq : float
        Sampling rate, Hz.
    ch_names : sequence of str
        Channels.
    z : ndarray, shape (n_evidence,)
        Evidence in standard deviations from the mean of the subject's own windows.
    columns : sequence of str
        Names of the evidence.
    title : str
        Above the figure.
    raw : tuple, optional
        Signal of the same seconds before cleaning (microvolts), its rate (Hz) and its channels: drawn in grey.
    """
    regions = region_indices(list(ch_names))
    region = {row: name for name, members in regions.items() for row in members}
    figure = plt.figure(figsize=(WIDTH, 6.2))
    grid = figure.add_gridspec(2, 4, width_ratios=[2.3, 0.9, 0.9, 0.12], left=0.06, right=0.95, bottom=0.08, top=0.87,
                               wspace=0.4, hspace=0.42)
    traces, alpha, beta = figure.add_subplot(grid[:, 0]), figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[0, 2])
    below = grid[1, 1:].subgridspec(1, 2, width_ratios=[1.25, 1], wspace=0.72)
    spectrum, evidence = figure.add_subplot(below[0]), figure.add_subplot(below[1])
    rows = plots.shown_rows(ch_names)
    names = [ch_names[row] for row in rows]
    shown = signal_uv[rows]
    spacing = plots.trace_spacing(shown)
    if raw is not None:
        _raw_traces(traces, raw, names, spacing)
    plots.traces(traces, shown, sfreq, names, spacing,
                 [style.REGION_COLORS.get(region.get(row), "0.3") for row in rows])
    traces.set_title(f"{len(rows)} of {len(ch_names)} channels"
                     + ("; grey: before cleaning" if raw is not None else ", after cleaning"))
    level = plots.decibels(band_power(signal_uv[None], sfreq)[0])
    level -= level.mean(axis=0)  # shows where a band is strong, not how strong it is
    maps = {f"{band} power": level[:, list(BANDS).index(band)] for band in ("alpha", "beta")}
    plots.scalp_maps(figure, [alpha, beta], maps, ch_names, "dB re mean of channels")
    frequencies, density = plots.welch_density(signal_uv, sfreq)
    for name, members in regions.items():
        spectrum.plot(frequencies, plots.decibels(density[members].mean(axis=0)), color=style.REGION_COLORS[name],
                      label=name, linewidth=1.2)
    plots.frequency_axis(spectrum, sfreq)
    spectrum.set_title("Spectrum by region", pad=16)
    spectrum.set_ylabel("dB re 1 µV²/Hz")
    top = max(float(line.get_ydata().max()) for line in spectrum.lines)
    spectrum.set_ylim(top - 45, top + 18)  # room for the legend; below is the stop band of the filter
    spectrum.legend(loc="upper right", fontsize=8, handlelength=1.0, labelspacing=0.2, ncols=2, columnspacing=0.8)
    _evidence_bars(evidence, z, columns)
    _title(figure, title)
    return figure


def _raw_traces(ax: Axes, raw: tuple[np.ndarray, float, Sequence[str]], names: Sequence[str], spacing: float) -> None:
    signal, sfreq, own = raw
    times = np.arange(signal.shape[1]) / sfreq
    for place, name in enumerate(names):
        if name in own:
            trace = signal[list(own).index(name)]
            ax.plot(times, trace - np.median(trace) - place * spacing, color="0.7", linewidth=0.6)


def _evidence_bars(ax: Axes, z: np.ndarray, columns: Sequence[str]) -> None:
    """The largest z-scores as bars, with the lines from which on a feature is low or high."""
    order = np.argsort(-np.abs(z), kind="stable")[:N_EVIDENCE]
    colors = [HIGH if z[i] >= LEVEL_THRESHOLD else LOW if z[i] <= -LEVEL_THRESHOLD else TYPICAL for i in order]
    ax.barh(range(len(order)), z[order], color=colors, height=0.7)
    ax.set_yticks(range(len(order)), [columns[i] for i in order], fontsize=8)
    ax.invert_yaxis()
    for limit in (-LEVEL_THRESHOLD, LEVEL_THRESHOLD):
        ax.axvline(limit, color="0.4", linestyle=":", linewidth=1)
    top = max(3.0, float(np.abs(z[order]).max(initial=0)) * 1.05)
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.set(xlim=(-top, top), xlabel="z against own windows", title="Evidence: low < dotted < high")
    ax.title.set_fontsize(9)


def cleaning(raw_uv: np.ndarray, raw_sfreq: float, at_start: np.ndarray, clean_uv: np.ndarray, sfreq: float,
             ch_names: Sequence[str], bad: Sequence[str], title: str, seconds: float = 4.0) -> Figure:
    """Traces before and after cleaning, and their mean spectra.

    Parameters
    ----------
    raw_uv, clean_uv : ndarray, shape (n_channels, n_samples)
        Microvolts; both begin at the same moment.
    raw_sfreq, sfreq : float
        Their sampling rates, Hz.
    at_start : ndarray
        As ``clean_uv``, with the settings at the start: its spectrum is dashed.
    ch_names, bad : sequence of str
        Channels, and those that were interpolated.
    title : str
        The settings in words.
    seconds : float
        Length shown.
    """
    rows = plots.shown_rows(ch_names)
    names = [f"{ch_names[row]}*" if ch_names[row] in bad else str(ch_names[row]) for row in rows]
    figure = plt.figure(figsize=(WIDTH, 5.4))
    grid = figure.add_gridspec(1, 3, width_ratios=[1.2, 1.2, 1], left=0.06, right=0.98, bottom=0.11, top=0.84,
                               wspace=0.3)
    left, right, spectrum = (figure.add_subplot(grid[0, place]) for place in range(3))
    # one scale for both, and for all settings, so that a change is seen
    spacing = max(plots.trace_spacing(raw_uv[rows]), plots.trace_spacing(at_start[rows]))
    plots.traces(left, raw_uv[rows, : int(seconds * raw_sfreq)], raw_sfreq, names, spacing)
    plots.traces(right, clean_uv[rows, : int(seconds * sfreq)], sfreq, names, spacing)
    left.set_title(f"raw, {raw_sfreq:g} Hz")
    right.set_title(f"cleaned, {sfreq:g} Hz")
    for signal, rate, label, look in ((raw_uv, raw_sfreq, "raw", {"color": "0.55"}),
                                      (at_start, sfreq, "settings at the start", {"color": "0.2", "linestyle": "--"}),
                                      (clean_uv, sfreq, "cleaned", {"color": style.PALETTE[0]})):
        frequencies, density = plots.welch_density(signal, rate)
        spectrum.plot(frequencies, plots.decibels(np.median(density, axis=0)), label=label, **look)
    plots.frequency_axis(spectrum, 100.0)
    low, high = spectrum.get_ylim()
    spectrum.set_ylim(max(low, high - 60), high)  # a filter's stop band has no floor
    spectrum.set_title("Spectrum, median of channels", pad=16)
    spectrum.legend(loc="lower left", fontsize=9)
    said = f"interpolated*: {', '.join(bad)}" if bad else "no channel is interpolated"
    _title(figure, f"{title}; {said}", 130)
    return figure


def nearest_words(before: Sequence[Sequence[tuple[str, float]]], after: Sequence[Sequence[tuple[str, float]]],
                  n_state: int, words_per_slot: int, title: str) -> Figure:
    """Nearest words of the state tokens before and after alignment, and the words of the evidence tokens.

    Parameters
    ----------
    before, after : sequence of sequence of (str, float)
        For each token of a segment, words and cosines, the nearest first
        (:func:`e2llm.models.inference.nearest_words`).
    n_state : int
        How many are state tokens; the others are evidence tokens.
    words_per_slot : int
        Evidence tokens of one feature (:func:`e2llm.models.projector.tokens_per_slot`).
    title : str
        Above the figure.
    """
    slots = [after[i : i + words_per_slot] for i in range(n_state, len(after), words_per_slot)]
    said = [" ".join(token[0][0] for token in slot) for slot in slots]
    used = [f"{i + 1}. {words}" for i, words in enumerate(said) if any(letter.isalpha() for letter in words)]
    figure = plt.figure(figsize=(WIDTH, max(3.4, 1.1 + 1.15 * n_state, 1.6 + 0.21 * len(used))))
    grid = figure.add_gridspec(1, 3, left=0.1, right=0.97, bottom=0.16, top=0.8, wspace=0.55)
    for place, (found, when) in enumerate(((before, "before alignment"), (after, "after alignment"))):
        ax = figure.add_subplot(grid[0, place])
        rows = [(token, word, cosine) for token in range(n_state) for word, cosine in found[token]]
        at = [i + 0.7 * token for i, (token, _, _) in enumerate(rows)]
        ax.barh(at, [cosine for _, _, cosine in rows], color=[style.PALETTE[token % 10] for token, _, _ in rows])
        ax.set_yticks(at, [style.as_text(word) for _, word, _ in rows], fontsize=9)
        ax.invert_yaxis()
        ax.set(xlim=(min(0.0, *(cosine for *_, cosine in rows)), 1), xlabel="cosine", title=f"State tokens, {when}")
        for token in range(n_state):
            middle = float(np.mean([y for y, (own, _, _) in zip(at, rows, strict=True) if own == token]))
            ax.text(0.98, middle, f"token {token + 1}", transform=ax.get_yaxis_transform(), ha="right", va="center")
    ax = figure.add_subplot(grid[0, 2])
    ax.set_axis_off()
    text = "\n".join(used or ["none is in use"]) + f"\n({len(said) - len(used)} of {len(said)} slots are empty)"
    ax.set_title("Evidence tokens, as words\n(copied, not trained)", loc="left")
    ax.text(0, 0.98, text if said else "this model has none", va="top", transform=ax.transAxes, parse_math=False)
    _title(figure, title)
    return figure


def split(index: pd.DataFrame, parts: Split, probes: pd.DataFrame, title: str) -> Figure:
    """Who stands where: a part for every subject and clip, and what classifiers without EEG reach.

    Parameters
    ----------
    index : DataFrame
        A row a window with ``subject`` and ``clip``.
    parts : Split
        Rows of the parts.
    probes : DataFrame
        From :func:`e2llm.evaluation.shortcuts.probe`.
    title : str
        Above the figure: what the split says of itself.
    """
    part = pd.Series(parts.part_of(len(index)), index=index.index).replace("", "left aside")
    people, clips = (list(dict.fromkeys(index[column])) for column in ("subject", "clip"))
    code = {name: i for i, name in enumerate(PARTS)}
    grid = np.full((len(people), len(clips)), np.nan)
    for (subject, clip), found in part.groupby([index["subject"], index["clip"]]):
        names = set(found)
        is_mixed = "test" in names and len(names) > 1
        name = "on both sides" if is_mixed else found.iloc[0] if len(names) == 1 else sorted(names)[0]
        grid[people.index(subject), clips.index(clip)] = code[name]
    height = min(8.0, 3.0 + 0.2 * len(people))
    figure = plt.figure(figsize=(WIDTH, height))
    places = figure.add_gridspec(1, 2, width_ratios=[1.7, 1], left=0.07, right=0.97, wspace=0.42,
                                 bottom=0.6 / height, top=1 - 1.0 / height)
    ax, scores = figure.add_subplot(places[0]), figure.add_subplot(places[1])
    ax.imshow(grid, cmap=ListedColormap(list(PARTS.values())), vmin=-0.5, vmax=len(PARTS) - 0.5, aspect="auto",
              interpolation="nearest")
    for ticks, names in ((ax.set_xticks, clips), (ax.set_yticks, people)):
        some = range(0, len(names), -(-len(names) // MOST_TICKS))
        ticks(list(some), [style.as_text(names[i]) for i in some])
    ax.tick_params(axis="x", labelsize=8)
    ax.set(xlabel="clip", ylabel="subject")
    there = [name for name in PARTS if code[name] in set(grid[np.isfinite(grid)])]
    ax.legend(handles=[Patch(facecolor=PARTS[name], edgecolor="0.5", label=name) for name in there], ncols=len(there),
              loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
    at = np.arange(len(probes))
    interval = 100 * np.abs(np.stack([probes["score"] - probes["low"], probes["high"] - probes["score"]]))
    scores.errorbar(100 * probes["score"], at, xerr=np.nan_to_num(interval), color=style.PALETTE[3], linestyle="",
                    marker="o", capsize=3, clip_on=False)
    scores.axvline(100 * float(probes["chance"].iloc[0]), color="0.25", linestyle="--", label="chance")
    scores.set_yticks(at, probes["name"])
    scores.set(xlim=(0, 100), ylim=(len(probes) - 0.4, -0.6), xlabel="balanced accuracy (%)")
    scores.set_title("reached without any EEG", loc="left")
    scores.legend(loc="lower right")
    _title(figure, title)
    return figure


def scenario_ranking(scenario: str, of_scenario: Mapping[str, float], table: pd.DataFrame,
                     names: Sequence[str], n: int = 10) -> Figure:
    """Labels of a text, and segments in the order in which they fit it.

    Parameters
    ----------
    scenario : str
        The text.
    of_scenario : mapping of str to float
        Probability of each label of the text, 0 to 1.
    table : DataFrame
        A row a segment, the best first, with ``fit`` and ``most probable``.
    names : sequence of str
        The segments in words, in the order of the table.
    n : int
        Segments shown.
    """
    shown = table.head(n)
    figure = plt.figure(figsize=(WIDTH, 1.9 + 0.3 * max(len(shown), len(of_scenario))))
    grid = figure.add_gridspec(1, 2, width_ratios=[1, 1.5], left=0.09, right=0.97, bottom=0.17, top=0.78, wspace=1.05)
    left, right = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    left.barh(list(of_scenario), [100 * share for share in of_scenario.values()], color=style.PALETTE[0])
    left.invert_yaxis()
    left.set(xlim=(0, 100), xlabel="probability (%)", title="Emotion of the text alone")
    at = np.arange(len(shown))
    right.barh(at, 100 * shown["fit"], color=style.PALETTE[2])
    right.set_yticks(at, [style.as_text(name) for name in names[: len(shown)]], fontsize=9)
    right.invert_yaxis()
    for place, (fit, label) in enumerate(zip(shown["fit"], shown["most probable"], strict=True)):
        right.text(100 * fit + 1.5, place, style.as_text(f"read as {label}"), va="center", fontsize=9)
    right.set(xlim=(0, 130), xticks=range(0, 101, 20), xlabel="fit: probability of the same emotion (%)",
              title=f"Best {len(shown)} of {len(table)} segments")
    _title(figure, f"“{scenario}”")
    return figure


def confusion_cell(matrix: np.ndarray, labels: Sequence[str], cell: tuple[int, int], z_cell: np.ndarray,
                   z_right: np.ndarray, columns: Sequence[str], with_matrix: bool = True) -> Figure:
    """A cell of a confusion matrix, and how the evidence of its windows differs from right answers.

    Parameters
    ----------
    matrix : ndarray of int, shape (n_labels, n_labels)
        Windows by true label (rows) and answer (columns).
    labels : sequence of str
        Their names.
    cell : tuple of int
        Row and column that are framed.
    z_cell, z_right : ndarray, shape (n_windows, n_evidence)
        Evidence of the windows of the cell, and of windows with the same true label and a right answer.
    columns : sequence of str
        Names of the evidence.
    with_matrix : bool
        Whether the matrix is drawn too.
    """
    truth, answer = (labels[i] for i in cell)
    figure = plt.figure(figsize=(WIDTH if with_matrix else 9, 4.6))
    places = figure.add_gridspec(1, 2 if with_matrix else 1, left=0.1 if with_matrix else 0.2, right=0.97, bottom=0.2,
                                 top=0.8, wspace=0.5)
    if with_matrix:
        ax = figure.add_subplot(places[0])
        counts = np.asarray(matrix, float)
        plots.heat_map(figure, ax, counts, labels, labels, "cividis", (0, max(1.0, counts.max())), "windows (count)",
                       "{:.0f}")
        ax.add_patch(Rectangle((cell[1] - 0.5, cell[0] - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=3,
                               clip_on=False, zorder=5))
        ax.set(title="framed: the cell on the right", xlabel="answer", ylabel="true label")
    ax = figure.add_subplot(places[-1])
    mean = {name: z.mean(axis=0) if len(z) else np.zeros(len(columns)) for name, z in (("cell", z_cell),
                                                                                       ("right", z_right))}
    order = np.argsort(-np.abs(mean["cell"] - mean["right"]), kind="stable")[:N_EVIDENCE]
    at = np.arange(len(order))
    ax.barh(at - 0.2, mean["cell"][order], height=0.38, color=style.PALETTE[3],
            label=f"{truth}, answered {answer} (n = {len(z_cell)})")
    if cell[0] != cell[1]:
        ax.barh(at + 0.2, mean["right"][order], height=0.38, color="0.65",
                label=f"{truth}, right answers (n = {len(z_right)})")
    ax.axvline(0, color="0.2", linewidth=0.8)
    ax.set_yticks(at, [columns[i] for i in order])
    ax.invert_yaxis()
    ax.set(xlabel="mean evidence (z)")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 0.98), fontsize=9)
    many = f"{len(z_cell)} window{'s' * (len(z_cell) != 1)}"
    _title(figure, f"{many} of {truth}, answered {answer}: where their evidence differs most from right answers"
           if cell[0] != cell[1] else f"{many} of {truth}, answered right: their evidence")
    return figure
