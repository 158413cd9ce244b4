"""BIDS folders written by mne-bids: rows of event tables are trials, sidecars are believed.

And what is missing is named.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mne_bids
import numpy as np
import pandas as pd
import pytest
from layouts import BIDS_FORMATS, BIDS_LABELS, BIDS_NAMES, BIDS_SFREQ, write_bids

from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources import open_source
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.bids import BIDSFolder
from e2llm.data.splits import make_split


def events(path: mne_bids.BIDSPath) -> Path:
    return path.copy().update(suffix="events", extension=".tsv").fpath


def edit(path: Path, change) -> None:
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    change(table).to_csv(path, sep="\t", index=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two people, two sessions each, BrainVision; the second person's second session in two runs."""
    root = tmp_path_factory.mktemp("bids") / "study"
    for subject, session, run in (("01", "01", None), ("01", "02", None), ("02", "01", None), ("02", "02", "1"),
                                  ("02", "02", "2")):
        write_bids(root, subject, session, run=run)
    return root


@pytest.fixture
def own(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "study"))


def first_events(root: Path) -> Path:
    return root / "sub-01/ses-01/eeg/sub-01_ses-01_task-films_events.tsv"


def consume(source: BIDSFolder, number: int = 0) -> list:
    return list(source.trials(source.recordings[number]))


@pytest.mark.parametrize("form", BIDS_FORMATS)
def test_trials_are_the_rows_of_the_event_table(tmp_path, form):
    _, data = write_bids(tmp_path / "study", "07", form=form)
    write_bids(tmp_path / "study", "08", form=form)
    source = open_source("bids", tmp_path / "study")
    assert [recording.subject for recording in source.recordings] == ["07", "08"]
    assert source.label_set.labels == BIDS_LABELS
    trials = consume(source)
    assert [(trial.clip, trial.label, trial.session, trial.context)
            for trial in trials] == [(i + 1, BIDS_LABELS[i % 2], 1, "") for i in range(6)]
    assert trials[0].ch_names == tuple(name.upper() for name in BIDS_NAMES[:10])
    for i, trial in enumerate(trials):
        start = round((1 + 10 * i) * BIDS_SFREQ)
        np.testing.assert_allclose(trial.signal, data[:10, start : start + 9 * BIDS_SFREQ], atol=0.1)
    assert [trial.clip for trial in consume(source, 1)] == list(range(7, 13))


def test_subjects_sessions_runs_and_tasks(made):
    source = BIDSFolder(made)
    assert [recording.name.split("/")[-1] for recording in source.recordings] == [
        f"sub-{who}_task-films{run}_eeg.vhdr" for who, run in (("01_ses-01", ""), ("01_ses-02", ""), ("02_ses-01", ""),
                                                               ("02_ses-02", "_run-1"), ("02_ses-02", "_run-2"))]
    trials = [trial for number in range(5) for trial in consume(source, number)]
    assert [trial.session for trial in trials] == [1] * 6 + [2] * 6 + [1] * 6 + [2] * 12
    assert [trial.clip for trial in trials] == list(range(1, 31))
    assert {recording.subject for recording in BIDSFolder(made, subjects=1).recordings} == {"01"}
    assert {trial.session for trial in consume(BIDSFolder(made, session="02"))} == {1}
    with pytest.raises(SourceError, match="holds no EEG recording of task 'rest'"):
        BIDSFolder(made, task="rest")


def test_other_columns_say_label_clip_and_context(own, tmp_path):
    for path in sorted(own.glob("sub-*/ses-*/eeg/*_events.tsv")):
        part = 0 if "ses-01" in path.name else 6
        part += 6 if "run-2" in path.name else 0
        edit(path, lambda table, part=part: table.assign(mood=["low", "high", "n/a", "low", "high", "n/a"],
                                                         film=[f"f{part + i}" for i in range(6)],
                                                         way=["seen"] * 3 + ["heard"] * 3))
    source = BIDSFolder(own, label_column="mood", clip_column="film", context_column="way")
    assert source.label_set.labels == ("high", "low")
    first, other = consume(source), consume(source, 2)
    assert [(trial.label, trial.context) for trial in first] == [("low", "seen"), ("high", "seen"), ("low", "heard"),
                                                                 ("high", "heard")]
    # The same film is the same clip for all subjects
    assert [trial.clip for trial in first] == [trial.clip for trial in other]
    write_windows(source, tmp_path / "windows", n_jobs=1)
    index = Windows.open(tmp_path / "windows").index
    split = make_split(index, "cross_context")
    assert set(index["context"].iloc[split.test]) == {"heard"} and set(index["context"].iloc[split.train]) == {"seen"}
    events = BIDSFolder(own, labels=BIDS_LABELS)._events[source.recordings[0].name]
    assert {event.label for event in events} == set(BIDS_LABELS)


@pytest.mark.parametrize(("what", "column"), [("clip", "film"), ("context", "way")])
def test_an_event_without_a_clip_or_context_names_the_column_to_fill(own, what, column):
    for path in own.glob("sub-*/ses-*/eeg/*_events.tsv"):
        edit(path, lambda table: table.assign(film=[f"f{i}" for i in range(6)], way="seen"))
    edit(first_events(own), lambda table: table.assign(**{column: ["n/a", *table[column][1:]]}))
    source = BIDSFolder(own, session="01", clip_column="film", context_column="way")
    with pytest.raises(RecordingError, match=rf"the event '\w+' at 1 s has no {what}; fill column '{column}'\.$"):
        consume(source)
    assert consume(source, 1)


def test_bad_channels_and_types_are_those_of_the_sidecar(own, tmp_path):
    table = own / "sub-01/ses-01/eeg/sub-01_ses-01_task-films_channels.tsv"

    def change(rows):
        rows.loc[rows["name"] == "O2", "status"] = "bad"
        rows.loc[rows["name"] == "P4", "type"] = "EMG"
        return rows

    edit(table, change)
    source = BIDSFolder(own, session="01")
    assert "P4" not in source.check(source.recordings[0]) and consume(source)[0].bads == ("O2",)
    write_windows(source, tmp_path / "windows", PreprocessParams(lof_threshold=50), n_jobs=1)
    windows = Windows.open(tmp_path / "windows")
    # Half of two lack it: no channel that most have
    assert windows.channel_facts["left_out"] == [] and "P4" not in windows.ch_names
    assert windows.index.groupby("subject")["bad_channels"].unique().map(list).to_dict() == {"01": ["O2"], "02": [""]}


def test_annotations_stand_in_for_a_missing_table(tmp_path):
    """EDF+ holds its own annotations, so a dataset without event tables still has labels."""
    root = tmp_path / "study"
    for subject in ("01", "02"):
        write_bids(root, subject, form="EDF")
    for path in root.glob("sub-*/eeg/*_events.*"):
        path.unlink()
    source = BIDSFolder(root, labels=BIDS_LABELS)
    assert [trial.label for trial in consume(source)] == list(BIDS_LABELS) * 3
    with pytest.raises(SourceError, match="annotations of a file have no column 'film'"):
        BIDSFolder(root, clip_column="film")


# --- bad input


def test_a_folder_without_events(tmp_path):
    path, _ = write_bids(tmp_path / "study", "01")
    edit(events(path), lambda table: table.iloc[:0])
    with pytest.raises(SourceError, match=r"No recording of .*has a labelled event.*has no events: .*no label in "
                                          r"column 'trial_type'"):
        BIDSFolder(tmp_path / "study")


def test_an_absent_column_names_those_that_are_there(own):
    with pytest.raises(SourceError, match=r"has no column emotion \(has onset, duration, trial_type"):
        BIDSFolder(own, label_column="emotion")


def test_labels_that_never_occur(own):
    with pytest.raises(SourceError, match=r"No event of .* has the label bored"):
        BIDSFolder(own, labels=["calm", "tense", "bored"])


def test_no_bids_folder(tmp_path):
    with pytest.raises(SourceError, match="is missing: data_root must be a BIDS dataset"):
        BIDSFolder(tmp_path / "nowhere")
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.6.0"}))
    with pytest.raises(SourceError, match="holds no EEG recording at sub-"):
        BIDSFolder(tmp_path)


def test_options_that_the_source_does_not_know(made):
    with pytest.raises(SourceError, match=r"'bids' has no option colum \(known: subjects, task"):
        open_source("bids", made, colum="emotion")


def test_a_clip_that_a_person_has_twice(own):
    for path in own.glob("sub-*/ses-*/eeg/*_events.tsv"):
        edit(path, lambda table: table.assign(film="f1"))
    with pytest.raises(SourceError, match="subject 01 has 'f1' twice in column 'film'"):
        BIDSFolder(own, clip_column="film")


def test_durations_may_be_given(own):
    for path in own.glob("sub-*/ses-*/eeg/*_events.tsv"):
        edit(path, lambda table: table.assign(duration="n/a"))
    with pytest.raises(SourceError, match="the event 'calm' at 1 s has no duration; give 'event_seconds'"):
        BIDSFolder(own)
    assert {trial.signal.shape[1] for trial in consume(BIDSFolder(own, event_seconds=5.0))} == {5 * BIDS_SFREQ}


@pytest.mark.parametrize(("how", "fact"), [
    ("no data", r"cannot be read by MNE .*a \.vhdr, a \.vmrk and a \.eeg"),
    ("late", "lasts 61 s, but its event 'tense' lies from 70 to 79 s"),
    ("onset", "onset 'soon' and duration '9.0' are no seconds"), ("table", "has no column onset"),
    ("names", "no channel with a known 10-05 name"),
])
def test_a_bad_recording_costs_only_itself(own, tmp_path, how, fact):
    table = first_events(own)
    if how == "no data":
        table.with_name("sub-01_ses-01_task-films_eeg.eeg").unlink()
    elif how == "late":
        edit(table, lambda rows: rows.assign(onset=[*rows["onset"][:5], "70"]))
    elif how == "onset":
        edit(table, lambda rows: rows.assign(onset="soon"))
    elif how == "table":
        table.write_text("nothing\n")
    else:
        for name in ("sub-01_ses-01_task-films_channels.tsv", "sub-01_ses-01_task-films_eeg.vhdr"):
            path = table.with_name(name)
            text = path.read_text(encoding="utf-8")
            for i, old in enumerate(BIDS_NAMES[:10]):
                text = text.replace(f"={old},", f"=X{i},").replace(f"\n{old}\t", f"\nX{i}\t")
            path.write_text(text, encoding="utf-8")
    source = BIDSFolder(own)
    with pytest.raises(RecordingError, match=fact) as caught:
        consume(source)
    assert "\n" not in str(caught.value)
    assert list(write_windows(source, tmp_path / "windows",
                              n_jobs=1)) == ["sub-01/ses-01/eeg/sub-01_ses-01_task-films_eeg.vhdr"]
    assert Windows.open(tmp_path / "windows").index["label"].isin(BIDS_LABELS).all()
