"""Inputs that people reported to trackers of other tools, made small by hand: what the kit does with each.

The place of each report is named; nothing was copied from it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import mne
import numpy as np
import pytest
from layouts import write_cnt
from recordings import CAP, SFREQ, brain, patch, raw_of, write_edf, write_table

from e2llm.data.checkup import check_folder
from e2llm.data.filtering import filter_and_resample
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.sources.base import RecordingError, open_raw
from e2llm.data.sources.folder import LabelledFolder

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d"
ANNEX = "../../.git/annex/objects/Xz/5P/MD5E-s2146--dca9c.edf/MD5E-s2146--dca9c.edf\n"


def why(path: Path) -> str:
    with pytest.raises(RecordingError) as caught:
        open_raw(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# --- cut epochs in place of a recording (mne-python#6610, EEG2BIDS#94)


def test_epochs_are_not_a_recording(tmp_path):
    epochs = mne.make_fixed_length_epochs(raw_of(brain()), 4.0, verbose="error")
    epochs.export(tmp_path / "a.set", verbose="error")
    epochs.save(tmp_path / "b-epo.fif", verbose="error")
    for name in ("a.set", "b-epo.fif"):
        assert "holds epochs that were cut already: save the continuous recording" in why(tmp_path / name)


# --- a file that was never fetched (mne-python#8680, mne-python#9221, datalad#3513)


@pytest.mark.parametrize("name", ["a.edf", "a.set", "a.vhdr", "a.fif", "a.cnt", "a.gdf"])
@pytest.mark.parametrize("text", [LFS, ANNEX])
def test_a_pointer_is_not_a_recording(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert "holds only the address of a recording: fetch its content (datalad get" in why(tmp_path / name)


def test_a_link_without_its_file_is_skipped_and_the_others_go_on(tmp_path):
    (tmp_path / "a.edf").symlink_to(ANNEX.strip())
    write_edf(tmp_path / "b.edf", brain(seed=1))
    write_table(tmp_path, ["a.edf", "b.edf"])
    checkup = check_folder(tmp_path, n_jobs=1)
    assert checkup.recordings["used"].tolist() == [False, True]
    assert "It is a link to a file that is not there" in checkup.findings["fact"][0]


# --- one suffix, two formats (mne-python#3609, mne-python#4369)


def test_a_cnt_of_another_maker(tmp_path):
    head = b"RIFF" + struct.pack("<I", 5000) + b"CNT eeph" + struct.pack("<I", 300)
    (tmp_path / "a.cnt").write_bytes(head + np.random.default_rng(0).bytes(5000))
    assert "a .cnt of ANT Neuro, not of Neuroscan" in why(tmp_path / "a.cnt")
    (tmp_path / "a.cnt").write_bytes(b"Version 3.0" + bytes(5000))
    message = why(tmp_path / "a.cnt")
    assert "possible readers" not in message and "File \"" not in message  # the reason is that of the one reader
    write_cnt(tmp_path / "b.cnt", CAP, brain(), SFREQ, [])
    patch(tmp_path / "b.cnt", 864, "\0\0\0\0", 4)  # samples a channel, from which the bytes of a sample follow
    assert "Could not automatically compute number of bytes per sample" in why(tmp_path / "b.cnt")


# --- a table that was written on Windows (mne-bids#175, fieldtrip#1957, CellProfiler#1385)


@pytest.mark.parametrize("written", ["one\\a.edf", "one/a.edf", ".\\one\\a.edf", "one\\\\a.edf"])
def test_slashes_of_another_system(tmp_path, written):
    write_edf(tmp_path / "one" / "a.edf", brain(seed=1))
    write_edf(tmp_path / "two" / "b.edf", brain(seed=2))
    write_table(tmp_path, [written, "two\\b.edf"])
    checkup = check_folder(tmp_path, n_jobs=1)
    assert checkup.ok and checkup.findings.empty, str(checkup)


def test_another_way_to_write_a_path_is_in_the_table(tmp_path):
    write_edf(tmp_path / "a.edf", brain(seed=1))
    write_edf(tmp_path / "b.edf", brain(seed=2))
    write_table(tmp_path, ["a.edf", "./b.edf"])
    assert check_folder(tmp_path, n_jobs=1).findings.empty


# --- a rate that is no whole number (eeglab#515, eeglab#213, mne-python#4398)


@pytest.mark.parametrize("sfreq", [1024.5902, 512.03, 499.9977, 241.15, 127.98, 1000 / 3, 250.0])
def test_time_does_not_slip_at_odd_rates(sfreq):
    """A sine of 10 Hz is still in phase after ten minutes; 1 µV of 20 is 0.8 ms."""
    seconds = 600
    x = 20 * np.sin(2 * np.pi * 10 * np.arange(int(seconds * sfreq)) / sfreq)
    y, _ = filter_and_resample(x[None].astype(np.float32), sfreq, PreprocessParams())
    assert abs(y.shape[1] - seconds * 256) <= 1
    times = np.arange(y.shape[1]) / 256
    inner = (times > 2) & (times < seconds - 2)
    assert np.abs(y[0] - 20 * np.sin(2 * np.pi * 10 * times))[inner].max() < 1.0


# --- labels that end a few samples after the file (braindecode#353, PyEEGLab#30)


@pytest.mark.parametrize(("missing", "usable"), [(1, True), (2, True), (12, True), (40, False)])
def test_a_file_that_ends_some_samples_before_its_labels(tmp_path, missing, usable):
    data = brain(60)
    mne.export.export_raw(tmp_path / "a.set", raw_of(data[:, : data.shape[1] - missing]), verbose="error")
    rows = "a.set,1,1,rest,0,30\na.set,1,1,task,30,60\n"
    (tmp_path / "labels.csv").write_text(f"file,subject,session,label,start,stop\n{rows}")
    source = LabelledFolder(tmp_path)
    if not usable:
        with pytest.raises(RecordingError, match=r"lasts 59\.6875 s, but line 3 of labels\.csv ends at 60 s"):
            source.check(source.recordings[0])
        return
    assert [trial.signal.shape[1] for trial in source.trials(source.recordings[0])] == [3840, 3840 - missing]


def test_labels_that_begin_after_the_end(tmp_path):
    write_edf(tmp_path / "a.edf", brain(24))
    rows = "a.edf,1,1,rest,0,24\na.edf,1,1,task,24,24.05\n"
    (tmp_path / "labels.csv").write_text(f"file,subject,session,label,start,stop\n{rows}")
    source = LabelledFolder(tmp_path)
    with pytest.raises(RecordingError, match="correct the times"):
        source.check(source.recordings[0])


# --- names in capitals (bids-specification PR 927)


def test_a_suffix_in_capitals(tmp_path):
    write_edf(tmp_path / "x.edf", brain()).rename(tmp_path / "A.EDF")
    assert open_raw(tmp_path / "A.EDF").n_times == 24 * SFREQ
    mne.export.export_raw(tmp_path / "b.set", raw_of(brain()), verbose="error")
    (tmp_path / "b.set").rename(tmp_path / "B.SET")
    assert "MNE wants .set in small letters: rename the file" in why(tmp_path / "B.SET")


# --- dates that are none (mne-python#8470, #10883), and a channel that is constant (mne-python PR 12911, pyedflib#169)


@pytest.mark.parametrize(("date", "time"), [
    ("00.00.00", "00.00.00"), ("01.01.85", "09:01:17"), ("31.02.20", "25.61.61"), ("", ""),
])
def test_dates_that_are_none(tmp_path, date, time):
    path = write_edf(tmp_path / "a.edf", brain())
    patch(path, 168, date, 8)
    patch(path, 176, time, 8)
    np.testing.assert_allclose(open_raw(path).get_data(units="uV"), brain(), atol=0.02)


def test_a_channel_without_a_range(tmp_path):
    path = write_edf(tmp_path / "a.edf", brain())
    n = len(CAP)
    for field in (256 + n * 104, 256 + n * 112):  # physical minimum and maximum
        patch(path, field + 8 * (n - 1), "0", 8)
    write_edf(tmp_path / "b.edf", brain(seed=2))
    write_table(tmp_path, ["a.edf", "b.edf"])
    checkup = check_folder(tmp_path, n_jobs=1)
    assert checkup.ok and "Physical range is not defined in following channels: O2" in checkup.findings["fact"][0]
