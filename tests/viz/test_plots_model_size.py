"""Panels show every model at its size, with its own interval, chance and the right control; nothing is hidden."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest

from e2llm.evaluation.studies.model_size import HEAD
from e2llm.viz import plots_model_size
from e2llm.viz.plots_model_size import SHOWN, against_size, costs

pytestmark = pytest.mark.usefixtures("careful_figures")


def row(size: str, parameters: float, measure: str, source: str, score: float, chance: float = 0.25,
        origin: str = "scratch") -> dict:
    return {"size": size, "origin": origin, "parameters": parameters, "measure": measure, "source": source,
            "score": score,
            "low": score - 0.1, "high": score + 0.05, "chance": chance, "people": 7}


@pytest.fixture
def table() -> pd.DataFrame:
    by_size = [("l", 1e7, "scratch", 0.8), ("s", 1e5, "scratch", 0.4), ("p", 1e8, "pretrained", 0.9)]
    rows = []
    for size, parameters, origin, score in by_size:
        rows += [row(size, parameters, "accuracy", "EEG", score, origin=origin),
                 row(size, parameters, "accuracy", "no EEG", 0.25, origin=origin),
                 row(size, parameters, "accuracy", HEAD, 0.85, origin=origin),
                 row(size, parameters, "accuracy", "shuffled EEG", 0.25, origin=origin),
                 row(size, parameters, "calibration error", "EEG", 0.1, np.nan, origin),
                 row(size, parameters, "claim precision", "EEG", score, origin=origin),
                 row(size, parameters, "claim precision", "no EEG", np.nan, np.nan, origin),
                 row(size, parameters, "claim precision", "shuffled EEG", 0.25, origin=origin)]
    return pd.DataFrame(rows)


def series(ax) -> dict[str, np.ndarray]:
    """Points of each drawn series, by the color's name in LOOKS."""
    names = {look[0]: key for key, look in plots_model_size.LOOKS.items()}
    return {names[box.lines[0].get_color()]: np.column_stack(box.lines[0].get_data()) for box in ax.containers}


def test_points_stand_at_their_size_in_percent_and_smallest_first(table):
    figure = against_size(table, "title", ["accuracy", "calibration error", "claim precision"])
    accuracy, error, claims = figure.axes
    found = series(accuracy)
    assert found["scratch"].tolist() == [[1e5, 40], [1e7, 80]] and found["pretrained"].tolist() == [[1e8, 90]]
    assert set(found) == {"scratch", "pretrained", "no EEG"}
    assert accuracy.get_xscale() == "log" and figure.get_suptitle() == "title"
    assert [ax.get_title().split(" (")[0] for ax in figure.axes] == ["accuracy", "calibration error", "claim precision"]
    levels = [line.get_ydata()[0] for line in accuracy.lines if len(line.get_ydata()) == 2
              and line.get_linestyle() in ("--", "-.")]
    assert levels == pytest.approx([25, 85]), "chance, and the encoder's own head"
    assert "less is better" in error.get_title() and "less" not in accuracy.get_title()
    assert list(accuracy.get_xticks()) == [1e5, 1e7, 1e8], "a tick a size"
    beside = found["no EEG"][:, 0] / [1e5, 1e7, 1e8]
    assert (beside > 1.05).all() and (beside < 1.5).all(), "controls do not cover models"
    assert "shuffled EEG" in series(claims), "without EEG nothing was claimed, so another control is shown"


def test_intervals_are_the_table_s_own(table):
    (accuracy,) = against_size(table, "title", ["accuracy"]).axes
    (bars,) = [box for box in accuracy.containers if box.lines[0].get_color() == plots_model_size.LOOKS["scratch"][0]]
    ends = np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])
    assert ends == pytest.approx(np.array([[30, 45], [70, 85]]))


def test_the_legend_names_what_is_drawn_and_nothing_else(table):
    figure = against_size(table[table["origin"] == "scratch"], "title")
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["made from scratch", "no EEG", "shuffled EEG", "chance", "encoder's own head"]
    assert len(figure.axes) == len(SHOWN)


def test_panels_without_a_measure_are_not_left_standing(table):
    figure = against_size(table, "title", ["accuracy", "claim precision", "calibration error", "accuracy"])
    assert [ax.get_visible() for ax in figure.axes] == [True] * 4 + [False] * 2


def test_costs_are_means_over_seeds_in_order_of_size():
    table = pd.DataFrame({"size": ["b", "a", "b"], "parameters": [1e6, 1e5, 1e6], "seconds_a_step": [0.2, 0.1, 0.4],
                          "tokens_a_second": [10, 50, 20],
                          "generated_tokens_a_second": [5, 9, 7]})
    left, right = costs(table, "title").axes
    assert np.column_stack(left.lines[0].get_data()) == pytest.approx(np.array([[1e5, 0.1], [1e6, 0.3]]))
    assert [line.get_ydata().tolist() for line in right.lines] == [[50, 15], [9, 6]]
    assert left.get_ylim()[0] == 0 == right.get_ylim()[0], "near values are compared on an axis that begins at zero"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["trained on", "generated"]


def test_costs_that_differ_tenfold_have_a_logarithmic_axis():
    table = pd.DataFrame({"size": ["a", "b"], "parameters": [1e5, 1e6], "seconds_a_step": [0.1, 4.0],
                          "tokens_a_second": [50, 15], "generated_tokens_a_second": [9, 6]})
    left, right = costs(table, "title").axes
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
