"""Figures of pretraining show the masks as they were drawn, and patches with what was explained of them."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch

from e2llm.training.pretraining import PretrainParams, draw_masks
from e2llm.viz import plots_pretraining

CHANNELS = ["FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2"]


pytestmark = pytest.mark.usefixtures("careful_figures")


def test_the_picture_of_the_masks_is_that_of_the_masks():
    drawn = draw_masks(2, len(CHANNELS), PretrainParams(shown_channels=0.3, drawn=12), torch.Generator().manual_seed(0))
    figure = plots_pretraining.masks(drawn, CHANNELS, "hidden")
    (ax,) = figure.axes
    kind = ax.images[0].get_array()
    shown = {(int(c), int(t)) for t, row in zip(drawn.times[0], drawn.channels[0], strict=True) for c in row}
    assert {(int(c), int(t)) for c, t in np.argwhere(kind == 0)} == shown and len(shown) == 8 * 3
    assert set(np.flatnonzero((kind == 2).all(axis=0))) == set(range(16)) - set(drawn.times[0].tolist())
    dots = {(round(y), round(x / 0.25 - 0.5)) for x, y in ax.lines[0].get_xydata()}
    assert dots == {(int(c), int(t)) for t, c in drawn.hidden[0]} and not dots & shown
    assert ax.get_xlabel() == "time (s)" and ax.get_ylabel() == "channel"


def test_patches_say_how_much_was_explained():
    wave = np.sqrt(2) * np.sin(2 * np.pi * np.arange(64) / 16)
    rows = {"beside": [("F3, 0.5 s", wave, wave), ("C3, 1 s", wave, np.zeros(64))],
            "alone": [("O1, 2 s", wave, 0.5 * wave)] * 2}
    figure = plots_pretraining.rebuilt(rows, "rebuilt")
    assert [ax.get_title() for ax in figure.axes] == ["F3, 0.5 s (100 %)", "C3, 1 s (0 %)", "O1, 2 s (75 %)",
                                                      "O1, 2 s (75 %)"]
    assert figure.axes[0].get_ylabel().startswith("beside") and figure.axes[2].get_xlabel() == "time (ms)"
