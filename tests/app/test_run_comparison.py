"""Runs stand side by side only where they were asked about the same windows, and what is said of each is counted from
its own texts."""

from __future__ import annotations

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from micro import CLIPS, FIT, linked, train

from e2llm.app import stages
from e2llm.app.model_size_study import share_stages
from e2llm.app.run_comparison import COLUMNS, TRAINING, side_by_side, write_explanations
from e2llm.app.runs import Run, StageMissing
from e2llm.core.claims import level
from e2llm.tasks.items import read_items
from e2llm.tasks.thought_parser import parse
from e2llm.viz.plots_model_size import side_by_side as figure_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory, micro_run):
    """Two runs on the same windows and encoder, of a few steps each, and one of another fold."""
    folder = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2LLM_RUNS", str(folder))
        one, other, elsewhere = linked(micro_run, folder, "one"), Run.open("other"), Run.open("elsewhere")
        share_stages(one, other)
        train(other, fit=replace(FIT, seed=1))
        share_stages(one, elsewhere, ["windows"])
        train(elsewhere, CLIPS | {"fold": 1})
        yield one, other, elsewhere


@pytest.fixture(scope="module")
def table(runs) -> pd.DataFrame:
    return side_by_side(runs[:2])


def test_answers_are_those_of_lesson_05(table, runs):
    for run in runs[:2]:
        stored = {row["name"]: row for row in run.read_metrics()["tables"]["tier_1"]}
        rows = table[(table["run"] == run.name) & (table["group"] == "tier 1")].set_index("name")
        assert {"LLM", "LLM, free text", "LLM, no EEG", "stage-1 head"} <= set(rows.index)
        for name, row in rows.iterrows():
            assert [row["score"], row["low"], row["chance"], row["n"]] == [stored[name][key]
                                                                           for key in ("score", "low", "chance", "n")]
        kinds = {row["name"]: row["score"] for row in run.read_metrics()["tables"]["tiers_2_and_3"]
                 if row["group"] == "EEG"}
        others = table[(table["run"] == run.name) & (table["group"] == "tiers 2 and 3")]
        assert dict(others[["name", "score"]].to_numpy()) == kinds


def test_claims_are_counted_from_the_texts(table, runs):
    """Precision once more, claim by claim."""
    for run in runs[:2]:
        corpus = stages.open_dataset(run)
        texts = pd.read_csv(write_explanations(run, corpus).path / "texts.csv", keep_default_na=False)
        assert texts["window"].tolist() == corpus.split.test.tolist()
        columns, true = corpus.evidence_names.columns, []
        for window, thought in zip(texts["window"], texts["thought"], strict=True):
            claims = parse(thought, list(corpus.label_set.labels)).claims
            true += [level(corpus.z[window, columns.index(claim.feature)]) == claim.level for claim in claims]
        row = table[(table["run"] == run.name) & (table["name"] == "claim precision")].iloc[0]
        assert row["n"] == len(true) and (not true or row["score"] == pytest.approx(np.mean(true)))


def test_training_thoughts_are_read_whole_and_come_from_the_items(table, runs):
    rows = table[table["run"] == TRAINING].set_index("name")
    items = [item for item in read_items(runs[0].path / "adapter" / "items.jsonl") if item.kind == "predict"]
    assert rows.loc["readable sentences", "score"] == 1.0 and rows.loc["readable sentences", "n"] == len(items)
    assert set(table["run"]) == {"one", "other", TRAINING} and list(table.columns) == COLUMNS


def test_what_was_said_is_kept(table, runs):
    path = runs[0].path / "speech" / "texts.csv"
    before = path.stat().st_mtime_ns
    assert side_by_side(runs[:2]).equals(table) and path.stat().st_mtime_ns == before


def test_other_windows_are_refused(runs):
    with pytest.raises(ValueError, match="'elsewhere' was tested on other windows than 'one'"):
        side_by_side([runs[0], runs[2]])


def test_an_unfinished_run_is_named(runs):
    empty = Run.open("empty")
    share_stages(runs[0], empty)
    with pytest.raises(StageMissing, match="run_name = 'empty'"):
        side_by_side([empty])


def test_the_figure_has_a_row_for_every_rate_and_a_color_for_every_run(table):
    figure = figure_of(table, "Side by side")
    ax = figure.axes[0]
    rates = table[table["group"] != "writing"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(dict.fromkeys(rates["name"]))
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"one", "other", "chance"}
    plt.close(figure)
