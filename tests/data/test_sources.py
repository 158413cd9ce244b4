"""Labels come from the dataset's own tables, and every bad input is named: the file, the fact and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from edfio import Edf, EdfSignal
from scipy.io import loadmat, savemat

from e2llm.core.labels import SEED_VII
from e2llm.core.montage import SEED_CHANNELS
from e2llm.data.sources import open_source
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.seed_vii import SeedVII, clip_emotion, read_stimuli_order

EEGMAT = Path(__file__).parents[3] / "shared" / "data" / "eegmat"
STIMULI = "emotion_label_and_stimuli_order.xlsx"
# The published order, written out: five emotions, mirrored, then both again.
PUBLISHED_ORDER = """
happy neutral disgust sad anger anger sad disgust neutral happy
happy neutral disgust sad anger anger sad disgust neutral happy
anger sad fear neutral surprise surprise neutral fear sad anger
anger sad fear neutral surprise surprise neutral fear sad anger
happy surprise disgust fear anger anger fear disgust surprise happy
happy surprise disgust fear anger anger fear disgust surprise happy
disgust sad fear surprise happy happy surprise fear sad disgust
disgust sad fear surprise happy happy surprise fear sad disgust
"""
PUBLISHED = PUBLISHED_ORDER.split()


def paragraph(caught: pytest.ExceptionInfo, *facts: str) -> None:
    """The message is one paragraph that holds these facts."""
    message = str(caught.value)
    assert "\n" not in message and len(message) > 40, message
    for fact in facts:
        assert fact in message, message


def write_order(root: Path, emotions: list[str], first: int = 1) -> None:
    rows = [["video", *range(first, first + len(emotions))], ["emotion", *emotions]]
    pd.DataFrame(rows).to_excel(root / STIMULI, index=False, header=False)


def change_subject(root: Path, subject: int, **changes) -> SeedVII:
    """Rewrite one subject's clips (``c1`` is the key ``1``; None removes it) and open the folder."""
    path = root / "EEG_preprocessed" / f"{subject}.mat"
    clips = {key: value for key, value in loadmat(path).items() if key.isdigit()}
    clips.update({key.removeprefix("c"): value for key, value in changes.items()})
    savemat(path, {key: value for key, value in clips.items() if value is not None})
    return SeedVII(root)


def consume(source, number: int = 0) -> list:
    return list(source.trials(source.recordings[number]))


def write_edf(path: Path, names: list[str], sfreq: int = 128, seconds: int = 4) -> np.ndarray:
    data = np.random.default_rng(0).normal(0, 20, (len(names), sfreq * seconds))
    Edf([EdfSignal(x, sfreq, label=name, physical_dimension="uV")
         for name, x in zip(names, data, strict=True)]).write(path)
    return data


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two EDF files of one person, with their table."""
    root = tmp_path / "mine"
    root.mkdir()
    for name in ("a.edf", "b.edf"):
        write_edf(root / name, ["EEG Fp1", "EEG T3-Ref", "EEG T4", "T5", "T6", "ECG"])
    (root / "labels.csv").write_text("file,subject,session,label\na.edf,01,1,rest\nb.edf,01,2,task\n")
    return root


# --- SEED-VII: what a good folder gives


def test_clip_order_is_the_published_one(twin):
    assert [clip_emotion(clip) for clip in range(1, 81)] == PUBLISHED
    assert sorted(PUBLISHED.count(label)
                  for label in SEED_VII.labels) == [8] + [12] * 6 and PUBLISHED.count("neutral") == 8
    assert read_stimuli_order(twin / STIMULI) == dict(enumerate(PUBLISHED, start=1))


def test_trials_are_the_files_clips(twin):
    source = open_source("seed-vii", twin, subjects=2)
    assert [recording.subject for recording in source.recordings] == ["1", "2"] and source.label_set is SEED_VII
    stored, traces = (loadmat(twin / name / "2.mat") for name in ("EEG_preprocessed", "continuous_labels"))
    trials = consume(source, 1)
    assert [trial.clip for trial in trials] == [session * 20 + place for session in range(2) for place in range(1, 16)]
    for trial in trials:
        assert trial.signal.dtype == np.float32
        np.testing.assert_allclose(trial.signal, stored[str(trial.clip)], rtol=1e-6)
        np.testing.assert_array_equal(trial.intensity, traces[str(trial.clip)][0])
        assert (trial.subject, trial.session, trial.label) == ("2", (trial.clip - 1) // 20 + 1,
                                                               PUBLISHED[trial.clip - 1])
        assert trial.sfreq == 200 and trial.ch_names == SEED_CHANNELS


def test_subjects_are_in_the_order_of_their_numbers(own_twin):
    folder = own_twin / "EEG_preprocessed"
    shutil.copy(folder / "1.mat", folder / "10.mat")
    (folder / "notes.mat").write_text("no subject")
    assert [recording.subject for recording in SeedVII(own_twin).recordings] == ["1", "2", "3", "10"]


def test_labels_come_from_the_spreadsheet_in_any_spelling(own_twin):
    """A folder whose order is not the published one is read as it says, synonyms included."""
    shutil.rmtree(own_twin / "save_info")
    write_order(own_twin, ["Scared", " Happiness "])
    assert [trial.label for trial in consume(SeedVII(own_twin))] == ["fear", "happy"]


def test_save_info_may_have_windows_paths_and_synonyms(own_twin):
    for path in (own_twin / "save_info").glob("1_*_save_info.csv"):
        path.write_text("D:\\movies\\Happiness\\1.mp4,0.5\nD:\\movies\\Neutral\\2.mp4,0.5\n")
    assert SeedVII(own_twin).check(SeedVII(own_twin).recordings[0]) == ["1", "2"]


def test_intensities_are_optional(own_twin):
    shutil.rmtree(own_twin / "continuous_labels")
    assert all(trial.intensity is None for trial in consume(SeedVII(own_twin)))


# --- SEED-VII: bad input


def test_a_label_may_be_a_word_that_tables_read_as_missing(folder):
    (folder / "labels.csv").write_text("file,subject,session,label\na.edf,NA,1,None\nb.edf,NA,2,null\n")
    source = LabelledFolder(folder)
    assert source.label_set.labels == ("None", "null") and source.recordings[0].subject == "NA"


def test_unknown_source():
    with pytest.raises(SourceError) as caught:
        open_source("deap", "anywhere")
    paragraph(caught, "'deap'", "known: seed-vii, seed-vii-raw, folder, bids, emoeeg-mc, faced")


def test_missing_folder(tmp_path):
    with pytest.raises(SourceError) as caught:
        SeedVII(tmp_path / "nowhere")
    paragraph(caught, str(tmp_path / "nowhere"), "is missing", "e2llm simulate")


def test_folder_without_subjects(tmp_path):
    (tmp_path / "EEG_preprocessed").mkdir()
    with pytest.raises(SourceError) as caught:
        SeedVII(tmp_path)
    paragraph(caught, str(tmp_path), "1.mat", "copy")


def test_missing_spreadsheet(own_twin):
    (own_twin / STIMULI).unlink()
    with pytest.raises(SourceError) as caught:
        SeedVII(own_twin)
    paragraph(caught, STIMULI, "is missing", "copy it from the dataset")


def test_unreadable_spreadsheet(own_twin):
    (own_twin / STIMULI).write_text("no spreadsheet")
    with pytest.raises(SourceError) as caught:
        SeedVII(own_twin)
    paragraph(caught, STIMULI, "not a readable spreadsheet", "copy it again")


def test_spreadsheet_without_clips(own_twin):
    pd.DataFrame([["a", "b"], ["c", "d"]]).to_excel(own_twin / STIMULI, index=False, header=False)
    with pytest.raises(SourceError) as caught:
        SeedVII(own_twin)
    paragraph(caught, STIMULI, "no row of video indices", "copy the original")


def test_spreadsheet_with_an_unknown_emotion(own_twin):
    write_order(own_twin, ["Happy", "Bored"])
    with pytest.raises(SourceError) as caught:
        SeedVII(own_twin)
    paragraph(caught, STIMULI, "clip 2", "'Bored'", "happy")


def test_truncated_mat(own_twin):
    path = own_twin / "EEG_preprocessed" / "1.mat"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(RecordingError) as caught:
        consume(SeedVII(own_twin))
    paragraph(caught, str(path), "copy")


@pytest.mark.parametrize("content", [b"", b"no MATLAB file at all, only text " * 20, bytes(range(256)) * 4])
def test_matlab_garbage(own_twin, content):
    path = own_twin / "EEG_preprocessed" / "2.mat"
    path.write_bytes(content)
    source = SeedVII(own_twin)
    with pytest.raises(RecordingError) as caught:
        source.check(source.recordings[1])
    paragraph(caught, str(path), "not a readable .mat file", "copy it again")
    assert source.check(source.recordings[0]) == ["1", "2"]


def test_matlab_7_3(own_twin):
    path = own_twin / "EEG_preprocessed" / "1.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(512))
    with pytest.raises(RecordingError) as caught:
        consume(SeedVII(own_twin))
    paragraph(caught, str(path), "v7.3", "'-v7'")


def test_mat_without_clips(own_twin):
    with pytest.raises(RecordingError) as caught:
        consume(change_subject(own_twin, 1, c1=None, c2=None, eeg=np.zeros((62, 1700))))
    paragraph(caught, "1.mat", "no clips", "['eeg']")


def test_missing_keys(own_twin):
    source = change_subject(own_twin, 3, c2=None)
    with pytest.raises(RecordingError) as caught:
        consume(source, 2)
    paragraph(caught, "3.mat", "lacks clips 2", "copy the complete file")
    assert len(consume(source, 0)) == 2


def test_a_scaled_down_folder_is_not_short(own_twin):
    for subject in (1, 2, 3):
        source = change_subject(own_twin, subject, c2=None)
    assert [trial.clip for trial in consume(source)] == [1]


@pytest.mark.parametrize("shape", [(61, 1700), (1700, 62), (66, 1700), (62, 1700, 2)])
def test_other_shapes(own_twin, shape):
    with pytest.raises(RecordingError) as caught:
        consume(change_subject(own_twin, 1, c2=np.zeros(shape)))
    paragraph(caught, "1.mat, clip 2", str(shape), "expected (62, samples)")


@pytest.mark.parametrize("content", [np.full((62, 1700), "x"), np.full((62, 3), 1.0, dtype=object)],
                         ids=["text", "cells"])
def test_clips_that_are_no_numbers(own_twin, content):
    with pytest.raises(RecordingError) as caught:
        consume(change_subject(own_twin, 1, c2=content))
    paragraph(caught, "1.mat, clip 2", "expected (62, samples) of numbers")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite(own_twin, value):
    signal = np.ones((62, 1700))
    signal[5, 100:103] = value
    with pytest.raises(RecordingError) as caught:
        consume(change_subject(own_twin, 1, c2=signal))
    paragraph(caught, "1.mat, clip 2", "3 samples are not finite", "repair or remove")


def test_a_clip_that_the_stimuli_order_does_not_list(own_twin):
    with pytest.raises(RecordingError) as caught:
        consume(change_subject(own_twin, 1, c81=np.zeros((62, 1700))))
    paragraph(caught, "1.mat", "clip 81", "stimuli order does not list", "check the file")


def test_labels_that_disagree(own_twin):
    write_order(own_twin, ["Happy", "Fear"])
    with pytest.raises(RecordingError) as caught:
        consume(SeedVII(own_twin))
    paragraph(caught, "_save_info.csv", "clip 2 is 'neutral'", STIMULI, "'fear'", "labels are never guessed")


def test_a_movie_without_an_emotion(own_twin):
    path = next((own_twin / "save_info").glob("1_*_save_info.csv"))
    path.write_text("movies/happy/1.mp4,0.5\nmovies/trailers/2.mp4,0.5\n")
    with pytest.raises(RecordingError) as caught:
        consume(SeedVII(own_twin))
    paragraph(caught, path.name, "movies/trailers/2.mp4", "check the file")


def test_an_empty_save_info(own_twin):
    path = next((own_twin / "save_info").glob("1_*_save_info.csv"))
    path.write_text("")
    source = SeedVII(own_twin)
    with pytest.raises(RecordingError) as caught:
        consume(source)
    paragraph(caught, path.name, "copy it again")
    assert len(consume(source, 1)) == 2


def test_unreadable_intensities(own_twin):
    path = own_twin / "continuous_labels" / "1.mat"
    path.write_bytes(path.read_bytes()[:150])
    source = SeedVII(own_twin)
    with pytest.raises(RecordingError) as caught:
        consume(source)
    paragraph(caught, str(path), "copy it again")
    assert len(consume(source, 1)) == 2


# --- any folder that MNE reads


def test_old_names_and_units_of_a_folder(folder):
    """T3 T4 T5 T6 become T7 T8 P7 P8, the ECG is left out, volts become microvolts."""
    source = open_source("folder", folder)
    assert source.label_set.labels == ("rest", "task") and not source.label_set.has_affect
    first, second = consume(source, 0)[0], consume(source, 1)[0]
    assert first.ch_names == ("FP1", "T7", "T8", "P7", "P8") and first.sfreq == 128
    written = write_edf(folder / "again.edf", ["EEG Fp1", "EEG T3-Ref", "EEG T4", "T5", "T6", "ECG"])
    np.testing.assert_allclose(first.signal, written[:5], atol=0.01)  # 16 bits of the EDF
    assert (first.subject, first.session, first.clip, first.label) == ("01", 1, 1, "rest")
    assert (second.subject, second.session, second.clip, second.label) == ("01", 2, 2, "task")


def test_first_subjects_of_a_table(folder):
    shutil.copy(folder / "a.edf", folder / "c.edf")
    with (folder / "labels.csv").open("a") as table:
        table.write("c.edf,02,1,rest\n")
    assert {recording.subject for recording in LabelledFolder(folder, subjects=1).recordings} == {"01"}
    assert len(LabelledFolder(folder).recordings) == 3


def test_table_elsewhere(folder, tmp_path):
    (folder / "labels.csv").rename(tmp_path / "mine.csv")
    assert len(LabelledFolder(folder, tmp_path / "mine.csv").recordings) == 2


def test_missing_table(tmp_path):
    with pytest.raises(SourceError) as caught:
        LabelledFolder(tmp_path)
    paragraph(caught, str(tmp_path / "labels.csv"), "is missing", "columns file, subject, session, label")


def test_missing_column(folder):
    (folder / "labels.csv").write_text("file,subject,session\na.edf,01,1\n")
    with pytest.raises(SourceError) as caught:
        LabelledFolder(folder)
    paragraph(caught, str(folder / "labels.csv"), "lacks the columns ['label']")


def test_a_file_that_is_not_there(folder):
    with (folder / "labels.csv").open("a") as table:
        table.write("c.edf,02,1,rest\n")
    with pytest.raises(SourceError) as caught:
        LabelledFolder(folder)
    paragraph(caught, "labels.csv", "['c.edf']", str(folder), "correct the table")


@pytest.mark.parametrize(("row", "fact"), [
    ("b.edf,01,2,", "label is empty"), ("b.edf,01,2", "label is empty"), ("b.edf,,2,task", "subject is empty"),
    ("b.edf,01,second,task", "session is 'second'"), ("a.edf,01,2,task", "a.edf stands in an earlier line"),
])
def test_rows_that_cannot_be_used(folder, row, fact):
    (folder / "labels.csv").write_text(f"file,subject,session,label\na.edf,01,1,rest\n{row}\n")
    with pytest.raises(SourceError) as caught:
        LabelledFolder(folder)
    paragraph(caught, "labels.csv", "line 3", fact)


def test_one_label_is_none_to_tell_apart(folder):
    (folder / "labels.csv").write_text("file,subject,session,label\na.edf,01,1,rest\nb.edf,01,2,rest\n")
    with pytest.raises(SourceError) as caught:
        LabelledFolder(folder)
    paragraph(caught, "labels.csv", "has the label 'rest' in every trial: there must be two or more to tell apart")


def test_an_edf_without_known_channels(folder):
    write_edf(folder / "a.edf", ["ECG", "Resp"])
    source = LabelledFolder(folder)
    with pytest.raises(RecordingError) as caught:
        consume(source)
    paragraph(caught, str(folder / "a.edf"), "no channel with a known 10-05 name", "'ECG'", "rename")
    assert len(consume(source, 1)) == 1


def test_two_channels_of_one_place(folder):
    write_edf(folder / "a.edf", ["T3", "T7", "Cz"])
    with pytest.raises(RecordingError) as caught:
        consume(LabelledFolder(folder))
    paragraph(caught, str(folder / "a.edf"), "T7")


@pytest.mark.parametrize("name", ["a.edf", "a.xyz"])
def test_a_file_that_mne_cannot_read(folder, name):
    (folder / name).write_text("no recording")
    table = (folder / "labels.csv").read_text()
    (folder / "labels.csv").write_text(table.replace("a.edf", name))
    with pytest.raises(RecordingError) as caught:
        consume(LabelledFolder(folder))
    paragraph(caught, str(folder / name), "cannot be read by MNE")


def test_real_recordings_of_rest_and_arithmetic():
    if not (EEGMAT / "labels.csv").is_file():
        pytest.skip("the EEGMAT excerpt is not in shared/data/eegmat")
    source = open_source("folder", EEGMAT, subjects=2)
    assert len(source.recordings) == 4 and source.label_set.labels == ("mental arithmetic", "rest")
    assert len(source.check(source.recordings[0])) == 19
    trial = consume(source, 1)[0]
    assert trial.signal.shape[0] == 19 and trial.sfreq == 500 and trial.label == "mental arithmetic"
    assert {"T7", "T8", "P7", "P8"} < set(trial.ch_names)
    assert 1 < np.median(np.std(trial.signal, axis=1)) < 100  # microvolts of EEG
