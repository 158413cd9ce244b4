"""Draw figures/pipeline.png: the parts of E²-LLM, one answer of the default run, and what was measured in its window.

``python docs/draw_pipeline.py`` reads docs/pipeline_example.json: a test window of ``e2llm run`` and what
:meth:`e2llm.E2LLM.ask` gave for it.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import mne
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from e2llm.core.bands import BANDS
from e2llm.core.montage import make_info
from e2llm.viz.plots import BAND_SYMBOLS, HEAD_CENTER

HERE = Path(__file__).resolve().parent
INK, SOFT, BLUE, GREEN, RED, PAPER = "#22303c", "#5b6b78", "#0072B2", "#00734f", "#b3261e", "#f3f6f8"
ARROW = {"arrowstyle": "-|>", "linewidth": 2, "color": SOFT, "mutation_scale": 16}
STEPS = (  # what each box is called, the stage that trains it, what it does
    ("Encoder", "stage 1", "EEGPT turns each\n250 ms into tokens"),
    ("Projector", "stage 2", "makes them words of\nthe language model"),
    ("Language model", "stage 3", "Qwen3 with LoRA\nthinks, then answers"),
)


def pipeline(example: dict) -> Figure:
    """The pipeline from the EEG to the answer above, the measurements that its claims are checked with below.

    Parameters
    ----------
    example : dict
        A window (``signal_uv``, ``channel_z``, spectra in dB) and the model's ``claims`` and ``probabilities``.
    """
    figure = plt.figure(figsize=(12, 7.4), facecolor="white")
    canvas = figure.add_axes((0, 0, 1, 1))
    canvas.set(xlim=(0, 12), ylim=(0, 7.4))
    canvas.axis("off")
    canvas.text(0.3, 7.02, "From EEG to an answer with reasons, and each reason checked against the signal",
                fontsize=16, weight="bold", color=INK)
    _heading(canvas, 0.3, 6.6, f"EEG, 4 s, {len(example['ch_names'])} channels")
    _traces(figure.add_axes((0.05, 0.645, 0.165, 0.22)), example)
    for i, (name, stage, does) in enumerate(STEPS):
        _box(canvas, 3.1 + 2.2 * i, 4.85, name, stage, does)
        _arrow(canvas, 2.67 + 2.2 * i, 5.6)
    _arrow(canvas, 9.27, 5.6)
    _heading(canvas, 9.75, 6.6, "Answer")
    _bars(figure.add_axes((0.865, 0.645, 0.105, 0.22)), example)
    canvas.plot([8.36, 8.36, 1.65], [4.83, 4.5, 4.5], color=SOFT, linewidth=2, solid_joinstyle="round")
    canvas.annotate("", (1.65, 4.22), (1.65, 4.51), arrowprops=ARROW)
    _heading(canvas, 0.3, 3.95, "The thought before the answer")
    _thought(canvas, example)
    _heading(canvas, 4.55, 3.95, "What was measured in these four seconds")
    maps = [figure.add_axes((0.365 + 0.16 * i, 0.16, 0.15, 0.3)) for i in range(2)]
    image = [_map(ax, example, band) for ax, band in zip(maps, example["channel_z"], strict=True)][-1]
    below = figure.add_axes((0.42, 0.135, 0.2, 0.018))
    bar = figure.colorbar(image, cax=below, orientation="horizontal", ticks=[-3, 0, 3])
    bar.set_label("z against the person's own windows", fontsize=10.5, color=SOFT)
    bar.outline.set_visible(False)
    _spectrum(figure.add_axes((0.735, 0.135, 0.24, 0.3)), example)
    return figure


def _heading(canvas: Axes, x: float, y: float, text: str) -> None:
    canvas.text(x, y, text, fontsize=12.5, weight="bold", color=INK)


def _arrow(canvas: Axes, x: float, y: float) -> None:
    canvas.annotate("", (x + 0.38, y), (x, y), arrowprops=ARROW)


def _box(canvas: Axes, x: float, y: float, name: str, stage: str, does: str) -> None:
    shape = "round,pad=0.02,rounding_size=0.12"
    canvas.add_patch(FancyBboxPatch((x, y), 1.72, 1.5, shape, facecolor=PAPER, edgecolor=BLUE, linewidth=1.6))
    canvas.text(x + 0.86, y + 1.13, name, ha="center", fontsize=12.5, weight="bold", color=INK)
    canvas.text(x + 0.86, y + 0.83, stage, ha="center", fontsize=10.5, color=BLUE)
    canvas.text(x + 0.86, y + 0.38, does, ha="center", va="center", fontsize=10.5, color=INK, linespacing=1.3)


def _traces(ax: Axes, example: dict) -> None:
    for i, (name, signal) in enumerate(example["signal_uv"].items()):
        seconds = np.arange(len(signal)) / example["sfreq"]
        ax.plot(seconds, np.asarray(signal) / (6 * np.std(signal)) - i, color=INK, linewidth=0.7)
        ax.text(-0.12, -i, name, ha="right", va="center", fontsize=10, color=SOFT)
    ax.set(xlim=(0, 4), ylim=(-len(example["signal_uv"]) + 0.3, 0.7))
    ax.axis("off")


def _bars(ax: Axes, example: dict) -> None:
    shown = sorted(example["probabilities"].items(), key=lambda pair: pair[1])
    names, shares = zip(*shown, strict=True)
    ax.barh(names, shares, color=[BLUE if name == example["answer"] else "#b9c6d0" for name in names])
    for i, share in enumerate(shares):
        ax.text(share + 0.03, i, f"{share:.0%}" if share >= 0.005 else "< 1%", va="center", fontsize=10, color=INK)
    ax.set(xlim=(0, 1.4), xticks=[])
    ax.tick_params(length=0, labelsize=11, colors=INK)
    for label in ax.get_yticklabels():
        label.set_weight("bold" if label.get_text() == example["answer"] else "normal")
    ax.spines[:].set_visible(False)


def _thought(canvas: Axes, example: dict) -> None:
    canvas.text(0.3, 3.64, f"“{example['question']}”", fontsize=11, style="italic", color=SOFT)
    step = min(0.4, 1.8 / (len(example["claims"]) + bool(example["more"])))
    for i, claim in enumerate(example["claims"]):
        mark, color = ("✓", GREEN) if claim["verdict"] == "true" else ("✗", RED)
        measured = f"z = {claim['z']:+.1f}".replace("-", "\N{MINUS SIGN}")
        y = 3.2 - step * i
        canvas.text(0.42, y, mark, fontsize=14, weight="bold", color=color, va="center")
        canvas.text(0.75, y, claim["claim"], fontsize=12, color=INK, va="center")
        canvas.text(3.75, y, measured, fontsize=11, color=SOFT, va="center", ha="right")
    y = 2.95 - step * len(example["claims"])
    if example["more"]:
        canvas.text(0.75, y + 0.25, f"and {example['more']} more, all true", fontsize=11, color=SOFT, va="center")
        y -= step
    rest = example["thought"].split(". ", 1)[1].replace(". ", ".\n")
    canvas.text(0.42, y, rest, fontsize=12, color=INK, va="center", linespacing=1.5)
    canvas.text(0.42, 0.55, f"Answer: {example['answer']}", fontsize=12.5, weight="bold", color=BLUE, va="center")
    canvas.text(2.35, 0.55, f"(the clip shows: {example['label']})", fontsize=10.5, color=SOFT, va="center")


def _map(ax: Axes, example: dict, band: str):
    low, high = BANDS[band]
    channels = make_info(example["ch_names"], 256.0)["chs"]  # the rate plays no part
    x, y, z = (np.stack([channel["loc"][:3] for channel in channels]) - HEAD_CENTER).T
    angle, direction = np.arctan2(np.hypot(x, y), z) / (np.pi / 2), np.arctan2(y, x)  # from above: 1 at the equator
    positions = np.column_stack([angle * np.cos(direction), angle * np.sin(direction)])
    image, _ = mne.viz.plot_topomap(np.asarray(example["channel_z"][band]), positions, axes=ax, show=False,
                                    cmap="RdBu_r", vlim=(-3, 3), contours=0, sensors="k.", sphere=1.1)
    ax.set_title(f"{band} ({BAND_SYMBOLS[band]}), {low:g} – {high:g} Hz", fontsize=11.5, color=INK, pad=4)
    return image


def _spectrum(ax: Axes, example: dict) -> None:
    frequencies = example["frequencies"]
    for band in example["channel_z"]:
        low, high = np.clip(BANDS[band], 1, frequencies[-1])
        ax.axvspan(low, high, color="#e6edf2", linewidth=0)
        ax.text((low + high) / 2, 0.96, BAND_SYMBOLS[band], transform=ax.get_xaxis_transform(), ha="center", va="top",
                fontsize=13, color=SOFT)
    ax.plot(frequencies, example["reference_db"], "--", color=SOFT, linewidth=1.5, label="person's mean")
    ax.plot(frequencies, example["spectrum_db"], color=BLUE, linewidth=1.9, label="this window")
    ax.set(xlim=(1, frequencies[-1]), xlabel="frequency (Hz)")
    ax.set_title("spectrum, dB re 1 µV²/Hz", fontsize=11.5, color=INK, pad=26)
    ax.set_ylim(top=max(example["spectrum_db"]) + 3.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=10)
    ax.xaxis.label.set_size(10.5)
    ax.legend(frameon=False, fontsize=10.5, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=2,
              columnspacing=1.0, handlelength=1.5)


if __name__ == "__main__":
    figure = pipeline(json.loads((HERE / "pipeline_example.json").read_text(encoding="utf-8")))
    figure.savefig(HERE.parent / "figures" / "pipeline.png", dpi=110)
