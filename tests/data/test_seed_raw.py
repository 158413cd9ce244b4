"""Raw SEED-VII: a Neuroscan file is read as it was written; clips are cut by triggers or, where broken, by time."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from layouts import write_cnt, write_seed_raw
from scipy.io import loadmat

from e2llm.core.montage import SEED_CHANNELS
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources import open_source
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.seed_vii import STARTS, SeedVII, SeedVIIRaw


@pytest.fixture(scope="module")
def raw_twin(tiny_twin, tmp_path_factory) -> Path:
    root = Path(shutil.copytree(tiny_twin, tmp_path_factory.mktemp("raw") / "SEED-VII"))
    write_seed_raw(root)
    return root


@pytest.fixture
def own(raw_twin, tmp_path) -> Path:
    return Path(shutil.copytree(raw_twin, tmp_path / "SEED-VII"))


def stems(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "EEG_raw").glob("*.cnt"))


def consume(root: Path, number: int = 0) -> list:
    source = SeedVIIRaw(root)
    return [replace(trial, signal=np.asarray(trial.signal)) for trial in source.trials(source.recordings[number])]


def rename(root: Path, old: str, new: str) -> None:
    """Give a recording, and its tables, another subject, date and session."""
    for path in [*(root / "EEG_raw").glob(f"{old}.cnt"), *(root / "save_info").glob(f"{old}_*")]:
        path.rename(path.with_name(path.name.replace(old, new, 1)))


@pytest.mark.parametrize("bits", [16, 32])
def test_a_written_cnt_is_read_by_mne(tmp_path, bits):
    data = np.random.default_rng(0).normal(0, 30, (5, 777))
    write_cnt(tmp_path / "a.cnt", ["FP1", "CZ", "CB1", "M1", "HEO"], data, 500, [(10, 1), (400, 2)], bits, 0.01)
    raw = mne.io.read_raw_cnt(tmp_path / "a.cnt", verbose="error")
    assert raw.ch_names == ["FP1", "CZ", "CB1", "M1", "HEO"] and raw.info["sfreq"] == 500 and raw.info["bads"] == []
    np.testing.assert_allclose(raw.get_data(units="uV"), data, atol=0.0051)
    assert [(note["onset"], note["description"]) for note in raw.annotations] == [(0.02, "1"), (0.8, "2")]


def test_clips_are_those_of_the_preprocessed_files(raw_twin):
    source = open_source("seed-vii-raw", raw_twin, subjects=2)
    assert [recording.subject for recording in source.recordings] == ["1", "2"]
    trials = list(source.trials(source.recordings[1]))
    stored, traces = (loadmat(raw_twin / name / "2.mat") for name in ("EEG_preprocessed", "continuous_labels"))
    assert [(trial.clip, trial.label, trial.session, trial.sfreq) for trial in trials] == [(1, "happy", 1, 1000.0),
                                                                                           (2, "neutral", 1, 1000.0)]
    for trial in trials:
        clip = stored[str(trial.clip)]
        assert trial.ch_names == SEED_CHANNELS and trial.signal.shape == (62, clip.shape[1] * 5)
        # Resampling, and steps of 0.01 uV.
        np.testing.assert_allclose(trial.signal[:, 50:-50:5], clip[:, 10:-10], atol=0.3)
        np.testing.assert_array_equal(trial.intensity, traces[str(trial.clip)][0])


class CutFirst(SeedVIIRaw):
    """Clips without what lies around them in the recording, as the preprocessed files have them."""

    def trials(self, recording):
        for trial in super().trials(recording):
            yield replace(trial, signal=np.asarray(trial.signal))


def test_windows_agree_with_those_of_the_preprocessed_files(raw_twin, tmp_path):
    """The same clips at 1000 Hz and at 200 Hz give the same windows, apart from effects of the filters."""
    assert write_windows(CutFirst(raw_twin), tmp_path / "raw", n_jobs=1) == {} == write_windows(SeedVII(raw_twin),
        tmp_path / "mat", n_jobs=1)
    raw, mat = Windows.open(tmp_path / "raw"), Windows.open(tmp_path / "mat")
    pd.testing.assert_frame_equal(raw.index.drop(columns="bad_channels"), mat.index.drop(columns="bad_channels"))
    good = (raw.index["bad_channels"] == mat.index["bad_channels"]).to_numpy()
    assert raw.ch_names == mat.ch_names and good.mean() > 0.6
    error = (raw.data[good] - mat.data[good])[..., 128:-128]
    assert np.sqrt((error**2).mean()) < 0.05 * mat.data[good].std()


@pytest.mark.parametrize("stem", sorted(STARTS))
def test_broken_triggers_are_replaced_by_the_clock(own, stem):
    """The clock's clips, from the known start of the recording; the triggers of the file are not even looked at."""
    before, old = consume(own), stems(own)[0]
    rename(own, old, stem)
    subject, date, session = stem.split("_")
    for folder in ("EEG_preprocessed", "continuous_labels"):
        (own / folder / "1.mat").rename(own / folder / f"{subject}.mat")
    table = own / "save_info" / f"{stem}_trigger_info.csv"
    rows = pd.read_csv(table, header=None)
    times = pd.to_datetime(rows[1])
    zero = pd.Timestamp(f"{date} {STARTS[stem]}")
    rows[1] = [zero + pd.Timedelta(seconds=3.0) + (time - times[0]) for time in times]
    rows.to_csv(table, header=False, index=False)
    (own / "save_info" / f"{stem}_save_info.csv").unlink()
    path = own / "EEG_raw" / f"{stem}.cnt"
    content = bytearray(path.read_bytes())
    start = struct.unpack_from("<i", content, 886)[0]
    for i in range(4):
        struct.pack_into("<H", content, start + 9 + 8 * i, 7)  # no trigger 1 or 2 is left
    path.write_bytes(content)
    number = [recording.path.stem for recording in SeedVIIRaw(own).recordings].index(stem)
    after = consume(own, number)
    first = (int(session) - 1) * 20 + 1
    assert [trial.clip for trial in after] == [first, first + 1]
    for trial, known in zip(after, before, strict=True):
        np.testing.assert_array_equal(trial.signal, known.signal)
    table.unlink()
    with pytest.raises(RecordingError, match=r"broken triggers and no .*trigger_info\.csv in save_info"):
        consume(own, number)


# --- bad input


def damage(root: Path, how: str) -> str:
    """Damage the first recording; returns what its message must say."""
    stem = stems(root)[0]
    path, table = root / "EEG_raw" / f"{stem}.cnt", root / "save_info" / f"{stem}_trigger_info.csv"
    content = bytearray(path.read_bytes())
    events = struct.unpack_from("<i", content, 886)[0] + 9
    if how == "trigger lost":
        struct.pack_into("<H", content, events, 9)
        path.write_bytes(content)
        return r"has 1 start and 2 end triggers for 2 clips.*never guessed"
    if how == "other table":
        rows = pd.read_csv(table, header=None)
        rows[1] = pd.to_datetime(rows[1]) + pd.to_timedelta([0, 5, 0, 0], "s")
        rows.to_csv(table, header=False, index=False)
        return "clip 1 of the session lasts 8.6 s by its triggers, but 13.6 s"
    if how == "no times":
        table.write_text("1,noon\n2,evening\n")
        return "not a readable table of triggers and times"
    if how == "half a file":
        path.write_bytes(content[: len(content) // 2])
        return "cannot be read by MNE"
    if how == "channel renamed":
        at = 900 + 75 * list(mne.io.read_raw_cnt(path, verbose="error").ch_names).index("CB1")
        content[at : at + 3] = b"X9\0"
        path.write_bytes(content)
        return "lacks the channels CB1"
    path.write_text("no recording")
    return "cannot be read by MNE"


@pytest.mark.parametrize("how", ["trigger lost", "other table", "no times", "half a file", "channel renamed",
                                 "no recording"])
def test_a_bad_recording_costs_only_itself(own, tmp_path, how):
    fact = damage(own, how)
    with pytest.raises(RecordingError, match=fact) as caught:
        consume(own)
    assert "\n" not in str(caught.value) and stems(own)[0] in str(caught.value)
    assert list(write_windows(SeedVIIRaw(own), tmp_path / "windows", n_jobs=1)) == [f"{stems(own)[0]}.cnt"]


def test_without_the_clock_a_session_has_twenty_clips(own):
    for table in (own / "save_info").glob("*_trigger_info.csv"):
        table.unlink()
    with pytest.raises(RecordingError, match="has 2 start and 2 end triggers for 20 clips"):
        consume(own)


def test_a_folder_without_recordings(own):
    shutil.rmtree(own / "EEG_raw")
    with pytest.raises(SourceError, match=r"EEG_raw holds no files like 1_20221001_1\.cnt"):
        SeedVIIRaw(own)
