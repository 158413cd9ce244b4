"""Drawings of splits and of models behind one encoder: their titles are computed from what they are given."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from e2llm.viz import plots_evidence_ideas

pytestmark = pytest.mark.usefixtures("careful_figures")

INDEX = pd.DataFrame({"subject": ["a", "a", "a", "b$1$"], "clip": [1, 1, 2, 2]})


def test_a_split_is_drawn_window_by_window_and_its_title_counts_neighbors_in_training():
    parts = {"by clips": ["train", "train", "test", ""], "random": ["train", "test", "test", "val"]}
    figure = plots_evidence_ideas.split_grid(INDEX, parts)
    assert figure.get_suptitle().splitlines()[1] == "0 of 1 (by clips), 1 of 2 (random)"
    assert [ax.get_title() for ax in figure.axes] == list(parts)
    assert [len(ax.patches) for ax in figure.axes] == [len(INDEX)] * 2
    figure.canvas.draw()


def test_one_rule_has_one_panel():
    assert len(plots_evidence_ideas.split_grid(INDEX, {"all": ["train"] * 4}).axes) == 1


def test_a_rule_names_a_part_for_each_window():
    with pytest.raises(ValueError, match="2 parts for 4 windows"):
        plots_evidence_ideas.split_grid(INDEX, {"short": ["train", "test"]})


def test_the_area_of_a_language_model_is_in_proportion_to_its_parameters():
    figure = plots_evidence_ideas.behind_one_encoder({"small": 0.5e6, "large": 2e6})
    (ax,) = figure.axes
    assert "large has 4.0 times the parameters of small" in ax.get_title()
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    small, large = (boxes[i].get_width() * boxes[i].get_height() for i in (3, 5))
    assert large == pytest.approx(4 * small)
    figure.canvas.draw()
