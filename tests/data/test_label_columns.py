"""Labels with valence, arousal and a noun of their own; columns that are not read are listed; what a table lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from layouts import write_bids
from recordings import brain, four_files, write_edf

from e2llm.data.checks import read_quality
from e2llm.data.checkup import check_folder
from e2llm.data.preprocessing import write_windows
from e2llm.data.protocols import Split
from e2llm.data.sources import open_source
from e2llm.data.sources.base import SourceError
from e2llm.data.sources.bids import BIDSFolder
from e2llm.data.sources.folder import LabelledFolder
from e2llm.evaluation.metrics import score_row
from e2llm.evaluation.shortcuts import probe

HEAD = "file,subject,session,label"


@pytest.fixture
def root(tmp_path) -> Path:
    """Two recordings, and no table yet."""
    for seed, name in enumerate("ab"):
        write_edf(tmp_path / "mine" / f"{name}.edf", brain(8.0, seed))
    return tmp_path / "mine"


def source(root: Path, more: str, first: str, second: str) -> LabelledFolder:
    (root / "labels.csv").write_text(f"{HEAD},{more}\na.edf,1,1,calm,{first}\nb.edf,2,1,tense,{second}\n")
    return LabelledFolder(root)


def test_a_folder_places_its_labels_and_names_them(root):
    labels = source(root, "Valence,arousal,NOUN", "0.5,-0.4,mood", "-0.25,.8,mood").label_set
    assert labels.valence == {"calm": 0.5, "tense": -0.25} and labels.arousal == {"calm": -0.4, "tense": 0.8}
    assert labels.noun == "mood" and labels.has_affect
    (root / "labels.csv").write_text(HEAD.replace(",", ";") + ";valence;arousal\na.edf;1;1;calm;0,5;-1\n"
                                     "b.edf;2;1;tense;-0,5;1\n")  # a decimal comma
    labels = LabelledFolder(root).label_set
    assert (labels.valence, labels.noun) == ({"calm": 0.5, "tense": -0.5}, "state")
    assert not source(root, "valence", "0", "1").label_set.has_affect


@pytest.mark.parametrize(("more", "first", "second", "said"), [
    ("valence", "5", "1", "the label 'calm' the valence 5: scale it to -1 to 1"),
    ("arousal", "0", "nan", "the label 'tense' the arousal nan: scale it"),
    ("arousal", "low", "1", "the label 'calm' the arousal 'low': write one number from -1 to 1"),
    ("valence", "1", "", "line 3: valence is empty"),
    ("noun", "mood", "state", "the column noun says 'mood' and 'state': write what all labels are called"),
])
def test_places_that_mean_nothing_are_refused(root, more, first, second, said):
    with pytest.raises(SourceError) as refused:
        source(root, more, first, second)
    assert said in str(refused.value) and "labels.csv" in str(refused.value) and "\n" not in str(refused.value)


def test_a_label_has_one_place(root):
    write_edf(root / "c.edf", brain(8.0, 2))
    (root / "labels.csv").write_text(f"{HEAD},valence\na.edf,1,1,calm,0.5\nb.edf,2,1,tense,0\nc.edf,1,2,calm,0.6\n")
    with pytest.raises(SourceError, match=r"the label 'calm' the valence '0.5' and '0.6': write one number"):
        LabelledFolder(root)


def test_columns_that_are_not_read_are_listed_by_a_run_and_by_check(root, tmp_path):
    given = source(root, "age,clip,Note", "31,1,x", "28,1,y")
    assert write_windows(given, tmp_path / "windows", n_jobs=1) == {}
    for findings in (read_quality(tmp_path / "windows")[0], check_folder(root).findings):
        (row,) = findings.to_dict("records")
        assert (row["recording"], row["severity"], row["rule"]) == ("labels.csv", "warn", "columns")
        assert row["fact"] == "the columns age, Note are not read" and "valence, arousal, noun" in row["remedy"]
    assert check_folder(root).ok


def test_a_spelling_of_an_emotion_is_pointed_out(tmp_path):
    root = four_files(tmp_path / "mine")
    table = (root / "labels.csv").read_text()
    (root / "labels.csv").write_text(table.replace("rest", "angry").replace("task", "calm"))
    (row,) = check_folder(root).findings.to_dict("records")
    assert row["fact"] == "the label 'angry' seems to be 'anger', for which there are scenarios in words"
    assert row["remedy"] == "write 'anger' if you mean it" and row["severity"] == "warn"


def test_a_table_without_clips_says_so(root):
    assert any("every trial is a clip of its own" in line for line in check_folder_of(root, "context", "x").well)
    assert not any("clip of its own" in line for line in check_folder_of(root, "clip", "1").well)


def check_folder_of(root: Path, column: str, value: str):
    source(root, column, value, value)
    return check_folder(root)


# --- BIDS


def rated(root: Path) -> Path:
    """A recording of six trials whose event table has ratings."""
    root.mkdir()
    write_bids(root, "01", seconds=5.0)
    events = next(root.rglob("*_events.tsv"))
    table = pd.read_csv(events, sep="\t")
    calm = table["trial_type"] == "calm"
    table.assign(val=np.where(calm, 0.4, -0.6), aro=np.where(calm, -0.5, 0.7), mood="x").to_csv(events, sep="\t",
                                                                                               index=False)
    return root


def test_bids_places_its_labels_and_names_them(tmp_path):
    root = rated(tmp_path / "bids")
    plain = BIDSFolder(root)
    assert not plain.label_set.has_affect and plain.label_set.noun == "state"
    (name, flaw), *none = plain.remarks()
    assert (name, flaw.fact, none) == ("events.tsv", "the columns aro, mood, val are not read", [])
    full = open_source("bids", root, valence_column="val", arousal_column="aro", noun="emotion")
    assert full.label_set.valence == {"calm": 0.4, "tense": -0.6} and full.label_set.noun == "emotion"
    assert full.label_set.has_affect and "the columns mood are" in full.remarks()[0][1].fact
    with pytest.raises(SourceError, match="has no column rating"):
        open_source("bids", root, valence_column="rating")
    with pytest.raises(SourceError, match="the label 'calm' the arousal 'x': write one number"):
        open_source("bids", root, arousal_column="mood")


def test_bids_with_one_label_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SourceError, match=r"^.* has the label 'calm' in every trial: there must be two or more"):
        open_source("bids", rated(tmp_path / "bids"), labels="calm")


# --- what is scored


def test_there_is_no_interval_over_clips_that_nobody_shares():
    truth, people = np.tile([0, 1], 12), np.repeat(["a", "b", "c", "d"], 6)
    shared, own = np.tile(np.arange(6), 4), np.arange(24)
    assert {"clips low", "clips high"} <= set(score_row("m", truth, truth, people, shared, 2))
    row = score_row("m", truth, truth, people, own, 2)
    assert not {"clips low", "clips high"} & set(row) and row["score"] == 1.0


@pytest.mark.parametrize(("apart", "score"), [(0.001, 0.5), (0.005, 1.0), (0.5, 1.0)])
def test_the_length_of_a_trial_is_read_as_a_clock_tells_it(apart, score):
    """A millisecond of a header told files apart, and with them the labels."""
    rows = [(str(person), 1, clip, w, "ab"[clip % 2], 60 + apart * (clip % 2))
            for person in range(6) for clip in range(4) for w in range(3)]
    index = pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "label", "clip_s"])
    part = index["subject"].astype(int).to_numpy()
    rows = [np.flatnonzero(mask) for mask in (part < 3, part == 3, part > 3)]
    split = Split("subjects", *rows, rows[0], "population")
    found = probe(index, split).set_index("name")["score"]
    assert found["clip duration"] == score
