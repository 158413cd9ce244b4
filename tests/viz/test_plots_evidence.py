"""Figures of interventions show each model at its values, and their titles are read from the tables."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
import pytest

from e2llm.viz import plots_evidence

pytestmark = pytest.mark.usefixtures("careful_figures")


def row(name: str, unit: str, score: float) -> dict:
    return {"name": name, "unit": unit, "score": score, "low": score - 0.02, "high": score + 0.01, "chance": 0.1}


def measures(success: float) -> pd.DataFrame:
    return pd.DataFrame([row("directed success", "share", success), row("indirect effect", "nats", 4.0),
                         row("direct effect, distance", "distance", 0.5),
                         row("share of the effect that claims carry", "share", 0.4),
                         row("unchanged: other wording", "share", 0.8)])


def doses(*shares: float) -> pd.DataFrame:
    return pd.DataFrame([row(name, unit, share) for name, share in zip(("1", "2", "all"), shares, strict=True)
                         for unit in ("share", "nats")])


def test_interventions_stand_beside_planted_models():
    figure = plots_evidence.causes({"LLM": measures(0.034), "decorative": measures(0.1),
                                    "LLM, from the thought": measures(0.96)})
    (ax,) = figure.axes
    assert figure.get_suptitle() == "Claims exchanged: the answer follows in 3 % (LLM) and 96 % (LLM, from the thought)"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["claims exchanged: answer of the other window",
                                                                    "other wording: same answer"]
    assert ax.get_xlabel() == "answers (%)"
    points = {box.get_label(): box.lines[0].get_xdata().tolist() for box in ax.containers}
    assert points["LLM"] == pytest.approx([3.4, 80]) and points["decorative"] == pytest.approx([10, 80])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["LLM", "decorative",
                                                                           "LLM, from the thought", "chance"]


def test_the_dose_is_drawn_in_its_order_with_intervals_and_chance():
    figure = plots_evidence.dose({"LLM": doses(0.2, 0.4, 0.9), "decorative": doses(0.1, 0.1, 0.1)})
    (ax,) = figure.axes
    assert figure.get_suptitle() == "All claims exchanged: the answer follows in 90 % (LLM) and 10 % (decorative)"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "all"]
    first = ax.containers[0]
    assert first.lines[0].get_ydata().tolist() == pytest.approx([20, 40, 90])
    assert [segment[:, 1].tolist() for segment in first.lines[2][0].get_segments()] == [
        pytest.approx([18, 21]), pytest.approx([38, 41]), pytest.approx([88, 91])]
    chance = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(chance) == 2 and all(line.get_ydata().tolist() == pytest.approx([10, 10, 10]) for line in chance)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["LLM", "decorative"]


def test_probabilities_before_and_after_stand_beside_each_other_the_largest_first():
    before, after = {"sad": 0.2, "fear": 0.7, "happy": 0.1}, {"sad": 0.5, "fear": 0.4, "happy": 0.1}
    figure = plots_evidence.before_after(before, after, "Alpha becomes low")
    (ax,) = figure.axes
    assert figure.get_suptitle() == "Alpha becomes low"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["fear", "sad", "happy"]
    widths = {box.get_label(): [bar.get_width() for bar in box] for box in ax.containers}
    assert widths["before"] == pytest.approx([70, 20, 10]) and widths["after"] == pytest.approx([40, 50, 10])
