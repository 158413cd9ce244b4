"""The drawings of ideas show what they were given, and their titles say what follows from it."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from e2llm.viz import plots_ideas
from e2llm.viz.plots_ideas import believable_score, recording_to_windows

pytestmark = pytest.mark.usefixtures("careful_figures")


def test_every_window_of_a_clip_stands_in_the_part_of_its_clip():
    figure = recording_to_windows(2.0, (1.0, 40.0))
    figure.canvas.draw()
    _, after, rows = figure.axes
    said = [text.get_text() for text in rows.texts]
    assert [text.splitlines() for text in said if "window" in text] == [
        ["clip 1", "window 0", "0 s"], ["clip 1", "window 1", "2 s"],
        ["clip 2", "window 0", "0 s"], ["clip 2", "window 1", "2 s"]]
    assert {"the whole clip 1: train", "the whole clip 2: test"} <= set(said)
    assert said.count("not\nused") == 2
    assert "1 to 40 Hz" in after.get_title()
    assert figure.get_suptitle() == "A clip of 5.4 s gives 2 windows of 2 s; 1.4 s are left"


def test_the_band_pass_takes_the_drift_away():
    figure = recording_to_windows()
    before, after, _ = figure.axes
    drift, rest = (abs(ax.lines[0].get_ydata()).max() for ax in (before, after))
    assert rest < drift / 1.5


@pytest.mark.parametrize(("score", "control", "finding"), [
    ((72, 65, 79), (15, 10, 20), "Believable: at least 50.7 points above chance, and the control is at chance"),
    ((20, 12, 28), (15, 10, 20), "Not believable: the interval does not lie above chance, 14.3 %"),
    ((72, 65, 79), (40, 30, 50), "Not believable: the control is not at chance"),
])
def test_a_score_is_believable_above_chance_with_its_control_at_chance(score, control, finding):
    figure = believable_score(score, control, 14.3)
    figure.canvas.draw()
    assert figure.get_suptitle() == finding
    said = [text.get_text() for text in figure.axes[0].texts]
    assert f"{score[0]} %, 95 % interval {score[1]} to {score[2]} %" in said[0]
    assert said[-1] == "chance 14.3 %"
    assert figure.axes[0].get_xlim() == (0, 100)


INDEX = pd.DataFrame({"subject": ["a", "a", "a", "b$1$"], "clip": [1, 1, 2, 2]})


def test_a_split_is_drawn_window_by_window_and_its_title_counts_neighbors_in_training():
    parts = {"by clips": ["train", "train", "test", ""], "random": ["train", "test", "test", "val"]}
    figure = plots_ideas.split_grid(INDEX, parts)
    assert figure.get_suptitle().splitlines()[1] == "0 of 1 (by clips), 1 of 2 (random)"
    assert [ax.get_title() for ax in figure.axes] == list(parts)
    assert [len(ax.patches) for ax in figure.axes] == [len(INDEX)] * 2
    figure.canvas.draw()


def test_one_rule_has_one_panel():
    assert len(plots_ideas.split_grid(INDEX, {"all": ["train"] * 4}).axes) == 1


def test_a_rule_names_a_part_for_each_window():
    with pytest.raises(ValueError, match="2 parts for 4 windows"):
        plots_ideas.split_grid(INDEX, {"short": ["train", "test"]})


def test_the_area_of_a_language_model_is_in_proportion_to_its_parameters():
    figure = plots_ideas.behind_one_encoder({"small": 0.5e6, "large": 2e6})
    (ax,) = figure.axes
    assert "large has 4.0 times the parameters of small" in ax.get_title()
    boxes = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    small, large = (boxes[i].get_width() * boxes[i].get_height() for i in (3, 5))
    assert large == pytest.approx(4 * small)
    figure.canvas.draw()
