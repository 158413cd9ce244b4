"""Figures of every stage: signals, spectra, scalp maps, training, scores.

Each function draws one pyplot figure and returns it. Nothing here shows or closes a figure: in a notebook assign it,
or follow it with ``plt.show()``; in a loop close it with ``plt.close(figure)``.

Everywhere, ``ch_names`` are the names of the channels in the order of the data, ``sfreq`` is the sampling rate in Hz
and ``title`` is above the figure. Colors of categories are those of :mod:`e2llm.viz.style`; values around zero have
``RdBu_r``, amounts ``viridis`` and ``cividis``. All are safe for color-blind readers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import mne
import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..core.bands import BANDS
from ..core.montage import canonical, make_info, region_indices
from ..data.features import band_power
from .style import (
    EMOTION_COLORS,
    LINES,
    MARKERS,
    PALETTE,
    REGION_COLORS,
    as_text,
    label_colors,
    legend_right,
    panels,
    plain_axes,
)

if TYPE_CHECKING:
    from ..data.spectrum_summary import SpectrumSummary

# Channels to show when a cap has more than fit: left and right, front to back.
SHOWN_CHANNELS = ("FP1", "FP2", "F3", "F4", "T7", "C3", "C4", "T8", "P3", "P4", "O1", "O2")
STEPS = 14  # colors of a scalp map
HEAD_CENTER = (0.0, 0.026, 0.04)  # metres, in MNE's head frame: FPZ, T7, T8 and OZ lie near the equator around it
BAND_SYMBOLS = dict(zip(BANDS, "δθαβγ", strict=True))


def spectra(signal_by_name: dict[str, np.ndarray], sfreq: float, title: str) -> Figure:
    """Mean spectrum of each group of windows, with the range of 95 % of its windows.

    A window's spectrum is Welch's (2 s segments), averaged over channels as power. Mean and range over windows are
    taken in decibels.

    Parameters
    ----------
    signal_by_name : dict of str to ndarray, shape (n_windows, n_channels, n_samples)
        Groups of windows in microvolts.
    sfreq : float
        Sampling rate, Hz.
    title : str
        Above the figure.
    """
    figure, ax = panels((8, 4))
    colors = label_colors(list(signal_by_name))
    for i, (name, signal) in enumerate(signal_by_name.items()):
        frequencies, density = welch_density(signal, sfreq)
        level = decibels(density.mean(axis=1))
        low, high = np.percentile(level, [2.5, 97.5], axis=0)
        ax.fill_between(frequencies, low, high, color=colors[i], alpha=0.15, linewidth=0)
        ax.plot(frequencies, level.mean(axis=0), LINES[i % 4], color=colors[i], label=f"{name} (n = {len(level)})")
    frequency_axis(ax, sfreq)
    ax.set_title(title, pad=18)
    ax.legend(title="mean; shaded: 95 % of windows", loc="upper right")
    return figure


def beside_each_other(summaries: Mapping[str, SpectrumSummary], title: str) -> Figure:
    """Mean spectrum and alpha map of groups of people.

    Parameters
    ----------
    summaries : dict of str to SpectrumSummary
        Two or more groups by name (:func:`e2llm.data.spectrum_summary.summarize`).
    title : str
        Above the figure.
    """
    n = len(summaries)
    figure = plt.figure(figsize=(4.5 + 2.2 * n, 3.6), layout="constrained")
    spectrum, *maps = figure.subplots(1, n + 1, width_ratios=[2.4] + [1] * n)
    top = max(np.abs(summary.alpha_db).max() for summary in summaries.values())
    for (name, summary), ax, color in zip(summaries.items(), maps, PALETTE, strict=False):
        people = np.asarray(summary.people_db)
        spectrum.fill_between(summary.frequencies, people.min(axis=0), people.max(axis=0), color=color, alpha=0.15,
                              linewidth=0)
        spectrum.plot(summary.frequencies, summary.mean_db, color=color, label=f"{name} (n = {len(people)})")
        scalp_maps(figure, [ax], {name: summary.alpha_db}, summary.ch_names, "alpha, dB against mean of channels",
                   (-top, top))
    frequency_axis(spectrum, 2 * max(summary.frequencies[-1] for summary in summaries.values()))
    spectrum.legend(title="mean; shaded: range of people", loc="lower left")
    figure.suptitle(title)
    return figure


def window_view(signal_uv: np.ndarray, sfreq: float, ch_names: Sequence[str], title: str) -> Figure:
    """One window: traces, scalp maps of alpha and beta power, spectrum by region.

    Parameters
    ----------
    signal_uv : ndarray, shape (n_channels, n_samples)
        Microvolts.
    sfreq : float
        Sampling rate, Hz.
    ch_names : sequence of str
        Channels.
    title : str
        Above the figure.
    """
    regions = region_indices(list(ch_names))
    region = {row: name for name, members in regions.items() for row in members}
    figure, axes = plt.subplot_mosaic([["traces", "alpha", "beta"], ["traces", "spectrum", "spectrum"]],
                                      figsize=(12, 5.6), width_ratios=[2.4, 1, 1], layout="constrained")
    rows = shown_rows(ch_names)
    colors = [REGION_COLORS.get(region.get(row), "0.3") for row in rows]
    shown = signal_uv[rows]
    traces(axes["traces"], shown, sfreq, [ch_names[row] for row in rows], trace_spacing(shown), colors)
    axes["traces"].set_title(f"{len(rows)} of {len(ch_names)} channels")

    level = decibels(band_power(signal_uv[None], sfreq)[0])
    level -= level.mean(axis=0)  # shows where a band is strong, not how strong it is
    maps = {f"{band} power": level[:, list(BANDS).index(band)] for band in ("alpha", "beta")}
    scalp_maps(figure, [axes["alpha"], axes["beta"]], maps, ch_names, "dB re mean of channels")

    ax = axes["spectrum"]
    frequencies, density = welch_density(signal_uv, sfreq)
    for name, members in regions.items():
        ax.plot(frequencies, decibels(density[members].mean(axis=0)), color=REGION_COLORS[name], label=name)
    frequency_axis(ax, sfreq)
    ax.set_title("Spectrum by region", pad=18)
    ax.legend(loc="upper right", ncols=2)
    figure.suptitle(title, parse_math=False)
    return figure


def shown_rows(ch_names: Sequence[str], n: int = 12) -> list[int]:
    """Rows of at most ``n`` channels, in the cap's order: those of SHOWN_CHANNELS first, then whatever there is.

    Parameters
    ----------
    ch_names : sequence of str
        Channels.
    n : int
        Most rows.
    """
    names = [canonical(name) for name in ch_names]
    preferred = [names.index(name) for name in SHOWN_CHANNELS if name in names]
    return sorted((preferred + [row for row in range(len(names)) if row not in preferred])[:n])


def trace_spacing(signal_uv: np.ndarray) -> float:
    """Distance between stacked traces in microvolts: a typical channel fills its lane, a bad one may leave it.

    Parameters
    ----------
    signal_uv : ndarray, shape (n_channels, n_samples)
        Microvolts.
    """
    return float(5 * np.median(np.std(signal_uv, axis=-1))) or 1.0


def traces(ax: Axes, signal_uv: np.ndarray, sfreq: float, names: Sequence[str], spacing: float,
            colors: Sequence | None = None) -> None:
    """Stack traces from top to bottom and draw a scale bar in microvolts to their right.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    signal_uv : ndarray, shape (n_channels, n_samples)
        Microvolts.
    sfreq : float
        Sampling rate, Hz.
    names : sequence of str
        At the left of each trace.
    spacing : float
        Distance of the traces in microvolts (:func:`trace_spacing`).
    colors : sequence, optional
        One for each trace.
    """
    times = np.arange(signal_uv.shape[1]) / sfreq
    for i, trace in enumerate(signal_uv):
        ax.plot(times, trace - np.median(trace) - i * spacing, linewidth=0.7, color=colors[i] if colors else "0.2")
    ax.set(xlabel="time (s)", xlim=(0, len(times) / sfreq), ylim=(-(len(names) - 0.2) * spacing, 1.5 * spacing))
    ax.set_yticks(-spacing * np.arange(len(names)), names)
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "top", "right"]].set_visible(False)
    magnitude = 10.0 ** np.floor(np.log10(spacing))
    bar = magnitude * max(step for step in (1, 2, 5) if step * magnitude <= spacing)
    at = ax.get_yaxis_transform()  # x in shares of the panel, y in microvolts
    ax.plot([1.015, 1.015], [-bar, 0], color="black", linewidth=2, transform=at, clip_on=False)
    ax.text(1.03, -bar / 2, f"{bar:g} µV", transform=at, va="center", rotation=90, fontsize=9)


def welch_density(signal_uv: np.ndarray, sfreq: float) -> tuple[np.ndarray, np.ndarray]:
    """Power density by Welch's method (2 s segments), 1 to 50 Hz.

    Parameters
    ----------
    signal_uv : ndarray, shape (..., n_samples)
        Microvolts.
    sfreq : float
        Sampling rate, Hz.

    Returns
    -------
    frequencies : ndarray, shape (n_frequencies,)
        Hz.
    density : ndarray, shape (..., n_frequencies)
        µV²/Hz.
    """
    nperseg = min(int(2 * sfreq), signal_uv.shape[-1])
    frequencies, density = scipy.signal.welch(signal_uv, fs=sfreq, nperseg=nperseg, axis=-1)
    shown = (frequencies >= 1) & (frequencies <= 50)
    return frequencies[shown], density[..., shown]


def decibels(power: np.ndarray) -> np.ndarray:
    """Decibels, with a floor so that a flat channel gives a number."""
    return 10 * np.log10(np.maximum(power, 1e-12))


def frequency_axis(ax: Axes, sfreq: float) -> None:
    """Label the axes of a spectrum, name the bands and shade every second one.

    Parameters
    ----------
    ax : Axes
        Panel of the spectrum.
    sfreq : float
        Sampling rate, Hz; the axis ends at half of it, at most at 50 Hz.
    """
    top = min(50.0, sfreq / 2)
    shown = [(band, low, min(high, top)) for band, (low, high) in BANDS.items() if low < top]
    for band, low, high in shown:
        ax.text((low + high) / 2, 1.01, BAND_SYMBOLS[band], ha="center", transform=ax.get_xaxis_transform())
    for _, low, high in shown[::2]:
        ax.axvspan(low, high, color="0.5", alpha=0.1, linewidth=0, zorder=0)
    ax.set(xlabel="frequency (Hz)", ylabel="power (dB re 1 µV²/Hz)", xlim=(1, top))


def emotion_topographies(values: np.ndarray, labels: Sequence[str], ch_names: Sequence[str], unit: str,
                         title: str = "Band power by label") -> Figure:
    """Scalp maps of every label (rows) in every band (columns) with one color bar.

    Parameters
    ----------
    values : ndarray, shape (n_labels, n_bands, n_channels)
        Bands as in :data:`e2llm.core.bands.BANDS`.
    labels, ch_names : sequence of str
        Labels and channels.
    unit, title : str
        At the color bar, and above the figure.
    """
    rows, columns = len(labels), len(BANDS)
    figure, axes = panels((1.3 * columns + 1.8, 1.25 * rows + 0.8), rows, columns)
    figure.get_layout_engine().set(w_pad=0.1)
    maps = {(label, band): values[i][j] for i, label in enumerate(labels) for j, band in enumerate(BANDS)}
    scalp_maps(figure, list(axes.ravel()), maps, ch_names, unit)
    for i, (ax, (label, band)) in enumerate(zip(axes.ravel(), maps, strict=True)):
        ax.set_title("{}\n{:g}-{:g} Hz".format(band, *BANDS[band]) if i < columns else "")
        if i % columns == 0:  # MNE switches the axis off, and its label with it
            ax.text(-0.15, 0.5, label, transform=ax.transAxes, ha="right", va="center", fontsize=11)
    figure.suptitle(title)
    return figure


def scalp_maps(figure: Figure, axes: list[Axes], values: dict, ch_names: Sequence[str], unit: str,
               vlim: tuple[float, float] | None = None) -> None:
    """Draw one scalp map per panel and one color bar for all of them.

    Parameters
    ----------
    figure, axes : Figure and list of Axes
        Where to draw; a panel for each map.
    values : dict of str to ndarray, shape (n_channels,)
        Title to map.
    ch_names : sequence of str
        Channels.
    unit : str
        At the color bar.
    vlim : tuple of float, optional
        Limits of the colors; by default the range of the values, symmetric about zero if it contains zero.
    """
    if len(ch_names) < 4:  # fewer span no surface to interpolate over
        for ax, name in zip(axes, values, strict=True):
            ax.set_title(str(name))
            ax.set_axis_off()
            ax.text(0.5, 0.5, f"no map of\n{len(ch_names)} channels", transform=ax.transAxes, ha="center", va="center")
        return
    positions = _map_positions(ch_names)
    cmap, vlim = _color_scale(np.stack(list(values.values())), vlim)
    for ax, (name, value) in zip(axes, values.items(), strict=True):
        mne.viz.plot_topomap(np.asarray(value, float), positions, axes=ax, cmap=cmap, vlim=vlim, contours=0, show=False,
                             sphere=1.1, sensors=len(values) <= 8)
        ax.set_title(str(name))
    shades = ScalarMappable(Normalize(*vlim), cmap)
    figure.colorbar(shades, ax=axes, shrink=0.8, aspect=18, label=unit, ticks=MaxNLocator(5))


def _map_positions(ch_names: Sequence[str]) -> np.ndarray:
    """Channels seen from above, (n_channels, 2): the distance from the vertex is the polar angle, 1 at the equator."""
    info = make_info(list(ch_names), 256.0)  # the rate plays no part
    x, y, z = (np.stack([channel["loc"][:3] for channel in info["chs"]]) - HEAD_CENTER).T
    angle, direction = np.arctan2(np.hypot(x, y), z) / (np.pi / 2), np.arctan2(y, x)
    return np.column_stack([angle * np.cos(direction), angle * np.sin(direction)])


def _color_scale(values: np.ndarray, vlim: tuple[float, float] | None = None) -> tuple[Colormap, tuple[float, float]]:
    """Color map in steps, which are small on disk, and limits: diverging about zero, or sequential."""
    low, high = vlim or (float(np.nanmin(values)), float(np.nanmax(values)))
    if low < 0 < high:
        limit = max(-low, high)
        return colormaps["RdBu_r"].resampled(STEPS), vlim or (-limit, limit)
    return colormaps["viridis"].resampled(STEPS), (low, high) if high > low else (low, low + 1.0)


def bar_of_counts(table: pd.DataFrame, title: str) -> Figure:
    """Number of windows by label and part of the split.

    Parameters
    ----------
    table : DataFrame
        Labels (rows) by parts (columns): ``pd.crosstab(index["label"], part)``.
    title : str
        Above the figure.
    """
    figure, ax = panels((max(6.0, 0.45 * table.size + 1.5), 3.6))
    table.plot.bar(ax=ax, rot=0, width=0.85, color=PALETTE[: table.shape[1]], edgecolor="white")
    for bars in ax.containers:
        ax.bar_label(bars, fontsize=8, padding=1)
    ax.set(title=title, ylabel="windows (count)", xlabel="label")
    ax.margins(y=0.12)
    legend_right(ax, "part")
    return figure


def loss_curves(history: pd.DataFrame) -> Figure:
    """Losses over training, one line per numeric column besides ``step``; logarithmic if every value is positive.

    A loss that is missing at some steps, such as a validation loss, gets markers.
    """
    losses = history.drop(columns="step").select_dtypes("number")
    figure, ax = panels((7, 3.8))
    for i, name in enumerate(losses):
        known = losses[name].notna()
        look = plain_axes(i) | ({"marker": ""} if known.all() else {})
        ax.plot(history["step"][known], losses[name][known], label=str(name), linewidth=1.4, markersize=5, **look)
    scale = "linear" if (losses <= 0).any(axis=None) else "log"
    ax.set(title="Training", xlabel="step", ylabel=f"loss ({scale} scale)", yscale=scale)
    legend_right(ax)
    return figure


def confusion(matrix: np.ndarray, labels: Sequence[str], title: str) -> Figure:
    """Confusion matrix, each row in percent of its true label; a row without counts stays empty.

    The title ends with the largest share off the diagonal; of several that are equal, with two of them.

    Parameters
    ----------
    matrix : array_like, shape (n_labels, n_labels)
        Counts by true label (rows) and answer (columns).
    labels : sequence of str
        Their names.
    title : str
        Above the figure.
    """
    counts = np.asarray(matrix, float)
    totals = counts.sum(axis=1, keepdims=True)
    percent = np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    size = 0.62 * len(labels) + 1.6
    figure, ax = panels((size + 1.4, size))
    rows = [f"{label} (n = {total:g})" for label, total in zip(labels, totals[:, 0], strict=True)]
    heat_map(figure, ax, percent, rows, labels, "cividis", (0, 100), "share of the true label (%)", "{:.0f}")
    wrong = np.where(np.eye(len(labels), dtype=bool), 0.0, np.nan_to_num(percent))
    largest = [f"{labels[true]}, answered {labels[given]}"
               for true, given in np.argwhere(np.isclose(wrong, wrong.max()))]
    said = "; ".join(largest[:2]) + f"; {len(largest) - 2} more" * (len(largest) > 2)
    finding = f"\nlargest mistake{'s' * (len(largest) > 1)}: {said}" if wrong.max() > 0 else ""
    ax.set(title=f"{title}{finding}", xlabel="answer", ylabel="true label")
    return figure


def token_similarity(matrix: np.ndarray, labels: Sequence[str], title: str,
                     rows: Sequence[str] | None = None) -> Figure:
    """Cosine similarity of projected EEG tokens with the word embeddings of the labels.

    Parameters
    ----------
    matrix : array_like, shape (n_tokens, n_labels)
        Similarities, -1 to 1.
    labels : sequence of str
        Names of the columns.
    title : str
        Above the figure.
    rows : sequence of str, optional
        Labels whose mean tokens the rows are; default single tokens, by number.
    """
    matrix = np.asarray(matrix, float)
    limit = float(np.nanmax(np.abs(matrix))) or 1.0
    figure, ax = panels((0.65 * len(labels) + 2.4, min(8.0, 0.34 * len(matrix) + 1.6)))
    few = len(matrix) <= 16
    names = rows or [str(i) if few or i % 5 == 0 else "" for i in range(len(matrix))]
    heat_map(figure, ax, matrix, names, labels, "RdBu_r", (-limit, limit), "cosine similarity", "{:.2f}" * few)
    ax.set(title=title, xlabel="label word", ylabel="mean EEG token of" if rows else "EEG token")
    return figure


def heat_map(figure: Figure, ax: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], cmap: str,
              vlim: tuple[float, float], unit: str, cell: str) -> None:
    """Draw values as colors, with their text in each cell if ``cell`` is a format.

    Parameters
    ----------
    figure, ax : Figure and Axes
        Where to draw.
    values : ndarray, shape (n_rows, n_columns)
        NaN stays empty.
    rows, columns : sequence of str
        Names at the axes.
    cmap : str
        Color map.
    vlim : tuple of float
        Its limits.
    unit : str
        At the color bar.
    cell : str
        Format of a value, such as ``{:.0f}``; empty for no text.
    """
    image = ax.imshow(values, cmap=cmap, vmin=vlim[0], vmax=vlim[1], aspect="auto")
    ax.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(values):
        if cell and np.isfinite(value):
            dark = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114)) < 0.5  # perceived brightness
            ax.text(j, i, cell.format(value), ha="center", va="center", color="white" if dark else "black")
    figure.colorbar(image, ax=ax, label=unit, shrink=0.9)


def embeddings(before: np.ndarray, after: np.ndarray, colors: Sequence[str], title: str) -> Figure:
    """First two principal components of the same windows before and after training.

    Parameters
    ----------
    before, after : ndarray, shape (n_windows, n_features)
        Embeddings.
    colors : sequence of str
        What each window is colored by: its label, or its subject.
    title : str
        Above the figure.
    """
    names = list(dict.fromkeys(colors))
    if set(names) <= set(EMOTION_COLORS):
        names = [name for name in EMOTION_COLORS if name in names]  # so that a marker too is always the same
    groups, of_label = np.array([names.index(name) for name in colors]), label_colors(names)
    figure, axes = panels((10.5, 4.2), 1, 2)
    for ax, vectors, when in zip(axes, (before, after), ("before", "after"), strict=True):
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full")
        points = pca.fit_transform(np.asarray(vectors, float))
        for i, name in enumerate(names):
            ax.scatter(*points[groups == i].T, s=24, alpha=0.75, linewidth=0, label=as_text(name),
                       **plain_axes(i) | {"color": of_label[i]})
        first, second = 100 * pca.explained_variance_ratio_
        ax.set(title=when, xlabel=f"PC 1 ({first:.0f} % of variance)", ylabel=f"PC 2 ({second:.0f} % of variance)")
    legend_right(ax)
    figure.suptitle(title)
    return figure


def scores(table: pd.DataFrame, title: str, interval: str = "95 % interval over people") -> Figure:
    """Scores with their intervals, each with its own chance level, from 0 to 100 %.

    Parameters
    ----------
    table : DataFrame
        One row per score, the first at the top: ``name``, ``score``, ``low``, ``high`` and ``chance`` as shares
        (0 to 1; a missing interval or chance is not drawn), optionally ``group`` or else ``role``, which colors the
        rows.
    title : str
        Above the figure.
    interval : str
        What the bars are.
    """
    table = table.reset_index(drop=True)
    groups = next((table[column] for column in ("group", "role") if column in table), pd.Series("", index=table.index))
    figure, ax = panels((8, 0.38 * len(table) + 1.3))
    for i, (group, rows) in enumerate(table.groupby(groups, sort=False)):
        _points(ax, rows, rows.index, str(group) or "_", **plain_axes(i))
    _chance_marks(ax, table, table.index, 0.3)
    ax.set_yticks(table.index, table["name"])
    ax.set(xlabel="score (%)", xlim=(0, 100), ylim=(len(table) - 0.4, -0.6))
    ax.grid(axis="x", color="0.9", zorder=0)
    legend_right(ax, "bar: " + "\n".join(textwrap.wrap(interval, 24)))
    figure.suptitle(title)
    return figure


def score_panels(table: pd.DataFrame, title: str, panel: str | None = None, series: str | None = None,
                 xlim: tuple[float, float] | None = None) -> Figure:
    """Scores of several groups in panels side by side, with equal rows, 95 % intervals and chance levels.

    Parameters
    ----------
    table : DataFrame
        As in :func:`scores`; rows of the figure are the values of ``name``, the first at the top. With the columns
        ``clips low`` and ``clips high`` a thin line shows the interval over people and clips.
    title : str
        Above the figure: the finding in a sentence.
    panel : str, optional
        Column whose values are the panels, and their titles.
    series : str, optional
        Column whose values share a row, each with its own color and marker. Without it a color shows whether the
        interval over people lies above chance, and each panel's title counts these scores.
    xlim : tuple of float, optional
        Range of the axis in percent; by default the range of the intervals and of chance.
    """
    names, above = list(dict.fromkeys(table["name"])), np.where(table["low"] > table["chance"], ABOVE, NOT_ABOVE)
    table = table.assign(_panel=table[panel] if panel else "", _series=table[series] if series else above)
    kinds = list(dict.fromkeys(table["_series"])) if series else [NOT_ABOVE, ABOVE]
    shifts = np.linspace(-0.2, 0.2, len(kinds)) if series and len(kinds) > 1 else np.zeros(len(kinds))
    shown = list(dict.fromkeys(table["_panel"]))
    columns = min(len(shown), 4)
    stacked = -(-len(shown) // columns)
    height = stacked * (max(0.3, 0.1 * len(kinds) * bool(series)) * len(names) + 1.0) + 0.7
    figure, axes = plt.subplots(stacked, columns, figsize=(11 if columns > 1 else 8, height), sharex=True, sharey=True,
                                squeeze=False, layout="constrained")
    for ax in axes.flat[len(shown):]:
        ax.set_visible(False)
    for ax, place in zip(axes.flat, shown, strict=False):
        rows = table[table["_panel"] == place]
        for i, (kind, shift) in enumerate(zip(kinds, shifts, strict=True)):
            if not len(some := rows[rows["_series"] == kind]):
                continue
            at = np.array([names.index(name) for name in some["name"]], float) + shift
            look = plain_axes(i) if series else {"color": ("0.45", PALETTE[3])[i], "marker": MARKERS[i]}
            if "clips low" in some:
                ax.hlines(at, 100 * some["clips low"], 100 * some["clips high"], look["color"], linewidth=0.8)
            _points(ax, some, at, str(kind), **look)
            _chance_marks(ax, some, at, *((0.18 / len(kinds) + 0.06, look["color"]) if series else (0.44,)))
        ax.set_yticks(range(len(names)), names)
        ax.set(ylim=(len(names) - 0.4, -0.6), xlim=xlim or _score_range(table))
        lines = textwrap.wrap(str(place), 88 // columns)
        if not series:
            lines.append(f"{(rows['_series'] == ABOVE).sum()} of {len(rows)} above chance")
        ax.set_title("\n".join(lines))
        ax.grid(axis="x", color="0.9", zorder=0)
        ax.set_xlabel("score (%)")
    handles = {label: handle for ax in axes.flat for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    bars = "bar: 95 % interval over people" + "; thin line: over people and clips" * ("clips low" in table)
    if series and "chance" in handles:  # each series has its own, in its color
        handles["chance"] = Line2D([], [], color="0.25", linestyle="dashed")
    order = [name for name in [*map(str, kinds), "chance"] if name in handles]
    figure.legend([handles[name] for name in order], order, loc="outside lower center", ncols=len(order), title=bars)
    figure.suptitle(title)
    return figure


ABOVE, NOT_ABOVE = "interval above chance", "interval reaches chance"


def _score_range(table: pd.DataFrame) -> tuple[float, float]:
    """Limits in percent, multiples of five, that hold all scores, intervals and chance levels."""
    values = 100 * table.filter(["score", "low", "high", "chance", "clips low", "clips high"]).to_numpy(float)
    low, high = np.nanmin(values), np.nanmax(values)
    margin = 0.04 * (high - low) + 0.5
    return max(0.0, 5 * np.floor((low - margin) / 5)), min(102.0, 5 * np.ceil((high + margin) / 5))


def _points(ax: Axes, rows: pd.DataFrame, at: Sequence[float], label: str, **look) -> None:
    """Scores with their intervals in percent at some heights; whole also at the edge of the axis."""
    interval = 100 * np.abs(np.stack([rows["score"] - rows["low"], rows["high"] - rows["score"]]).astype(float))
    ax.errorbar(100 * rows["score"], at, xerr=interval, linestyle="", markersize=6, capsize=3, label=label,
                clip_on=False, zorder=3, **look)


def _chance_marks(ax: Axes, rows: pd.DataFrame, at: Sequence[float], half: float, color="0.25") -> None:
    known, at = rows["chance"].notna().to_numpy(), np.asarray(at, float)
    ax.vlines(100 * rows["chance"][known], at[known] - half, at[known] + half, color, "dashed", label="chance")


def deletion_curves(table: pd.DataFrame, title: str) -> Figure:
    """Log-probability of the explained answer while cells are deleted (left) or inserted (right).

    With a faithful attribution the curve of the most attributed cells falls, or rises, before the random one.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.evaluation.attribution.deletion_insertion`, averaged over windows: ``model``, ``kind``,
        ``share``, and in nats ``attributed`` and ``random``.
    title : str
        Above the figure.
    """
    figure, axes = panels((9.5, 3.4), 1, 2)
    for ax, kind, done in zip(axes, ("deletion", "insertion"), ("removed", "put in"), strict=True):
        for i, (model, curve) in enumerate(table[table["kind"] == kind].groupby("model")):
            ax.plot(100 * curve["share"], curve["attributed"], label=f"{model}, most attributed first", linewidth=1.5,
                    **plain_axes(i))
            ax.plot(100 * curve["share"], curve["random"], "--", label=f"{model}, at random", linewidth=1.2,
                    markersize=4, **plain_axes(i))
        ax.set(title=f"cells {done} ({kind})", xlabel=f"cells {done} (%)",
               ylabel="log-probability of the answer (nats)")
    legend_right(axes[1])
    figure.suptitle(title)
    return figure


def reliability(table: pd.DataFrame, title: str) -> Figure:
    """Accuracy against confidence; on the diagonal both are equal. The size of a dot grows with its windows.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.evaluation.metrics.reliability`: ``confidence`` and ``accuracy`` as shares, ``n`` windows in
        each bin.
    title : str
        Above the figure.
    """
    table = table[table["n"] > 0]
    figure, ax = panels((4.2, 4.0))
    ax.plot([0, 100], [0, 100], "--", color="0.5", label="accuracy = confidence")
    ax.scatter(100 * table["confidence"], 100 * table["accuracy"], s=20 + 400 * table["n"] / table["n"].sum(),
               color=PALETTE[0], zorder=3)
    ax.set(title=title, xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(0, 100), ylim=(0, 100), aspect="equal")
    ax.legend(loc="upper left")
    return figure


def probabilities(probs: dict[str, float], title: str) -> Figure:
    """Probability of each answer, the most probable at the top.

    Parameters
    ----------
    probs : dict of str to float
        Answer to its probability, 0 to 1.
    title : str
        Above the figure.
    """
    names = sorted(probs, key=probs.get, reverse=True)
    figure, ax = panels((6.5, 0.34 * len(names) + 1.1))
    bars = ax.barh(names, [100 * probs[name] for name in names], color=[PALETTE[0]] + ["0.7"] * (len(names) - 1))
    ax.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    ax.invert_yaxis()
    ax.set(title=title, xlabel="probability (%)", xlim=(0, 108), xticks=range(0, 101, 20))
    return figure
