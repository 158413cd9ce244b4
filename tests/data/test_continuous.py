"""A trial that is a stretch of a recording is filtered as part of it: MNE on the whole recording is the reference."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
from layouts import BIDS_NAMES, BIDS_SFREQ, write_bids
from recordings import CAP, brain, raw_of, write_edf

from e2llm.core.montage import canonical
from e2llm.data.checks import RecordingFacts
from e2llm.data.cleaning import clean
from e2llm.data.filtering import filter_and_resample
from e2llm.data.gate import admit
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources import open_source
from e2llm.data.sources.base import Stretch, Trial, place_channels
from e2llm.data.sources.folder import LabelledFolder

PARAMS = PreprocessParams(trained_only=False, lof_threshold=50.0)
SECONDS = 60.0


def drifting(sfreq: int = 256, seconds: float = SECONDS, seed: int = 0) -> np.ndarray:
    """EEG on a slow drift, which a high-pass takes away only if it sees more than a few seconds of it."""
    t = np.arange(round(seconds * sfreq)) / sfreq
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (len(CAP), 1))
    return brain(seconds, seed, sfreq) + 60 * np.sin(2 * np.pi * 0.07 * t + phases) + 8 * t


def recording(data: np.ndarray, sfreq: int = 256, notes: mne.Annotations | None = None) -> mne.io.BaseRaw:
    raw = raw_of(data, sfreq=sfreq)
    return raw if notes is None else raw.set_annotations(notes, verbose="error")


def stretch(raw: mne.io.BaseRaw, *times: float) -> Stretch:
    return Stretch(raw, place_channels(raw, Path("a.edf")), Path("a.edf"), *times)


def reference(data: np.ndarray, sfreq: int) -> np.ndarray:
    """MNE's own function over the whole recording."""
    return mne.filter.filter_data(data, sfreq, 0.5, 45.0, h_trans_bandwidth=5.0, verbose="error")


@pytest.mark.parametrize(("start", "stop"), [(0.0, 4.0), (20.0, 24.0), (31.5, 39.5), (52.0, 60.0), (2.0, 4.0),
                                             (0.0, 60.0), (5.0, 58.0)])
@pytest.mark.parametrize("sfreq", [256, 512, 1000])
def test_a_stretch_is_filtered_as_the_whole_recording_is(sfreq, start, stop):
    data = drifting(sfreq)
    signal = stretch(recording(data, sfreq), start, stop)
    both = math.gcd(sfreq, 256)  # samples a second that both rates have
    whole = reference(data, sfreq)[:, round(start * sfreq) : round(stop * sfreq) : sfreq // both]
    ours, height = filter_and_resample(signal, sfreq, PARAMS)
    # Microvolts, of EEG of 12; single precision on a drift of hundreds.
    assert np.abs(ours[:, :: 256 // both] - whole).max() < 0.02
    cut_first, _ = filter_and_resample(np.asarray(signal), sfreq, PARAMS)
    if stop - start <= 8:
        assert np.abs(cut_first[:, :: 256 // both] - whole).max() > 5
    own = data[:, round(start * sfreq) : round(stop * sfreq)]
    np.testing.assert_allclose(height, np.ptp(own, axis=1), rtol=1e-3)  # of the trial alone


def test_a_trial_that_is_a_whole_recording_is_as_it_was():
    data = drifting().astype(np.float32)
    ours, alone = (filter_and_resample(signal, 256, PARAMS)[0]
                   for signal in (stretch(recording(data)), np.asarray(stretch(recording(data)))))
    assert np.array_equal(ours, alone)


def around(data: np.ndarray, *notes: tuple[float, float, str]) -> list[int]:
    raw = recording(data, notes=mne.Annotations(*zip(*notes, strict=True)) if notes else None)
    return [side.shape[1] for side in stretch(raw, 20.0, 24.0).around(512)]


@pytest.mark.parametrize(("note", "expected"), [
    ((18.5, 0.5, "BAD_blink"), (256, 512)), ((25.0, 1.0, "BAD"), (512, 256)), ((19.0, 0.0, "boundary"), (256, 512)),
    ((25.0, 0.0, "New Segment/"), (512, 256)), ((20.0, 0.0, "boundary"), (0, 512)), ((24.0, 0.0, "EDGE"), (512, 0)),
    ((19.0, 2.0, "bad"), (0, 512)), ((23.0, 3.0, "bad"), (512, 0)), ((21.0, 1.0, "BAD"), (512, 512)),
    ((10.0, 30.0, "BAD"), (0, 0)), ((19.0, 1.0, "happy"), (512, 512)), ((0.0, 0.0, "New Segment/"), (512, 512)),
])
def test_marks_of_the_file_end_what_lies_around(note, expected):
    assert around(drifting(), note) == list(expected)


def test_the_ends_of_the_recording_end_it_too():
    raw = recording(drifting())
    assert [side.shape[1] for side in stretch(raw, 1.0, 59.5).around(512)] == [256, 128]
    assert [side.shape[1] for side in stretch(raw).around(512)] == [0, 0]


@pytest.mark.parametrize("what", ["pause", "not finite"])
def test_a_pause_or_a_hole_beside_a_trial_does_not_reach_into_it(what):
    """An amplifier that was off beside the trial: its zeros are a step of thousands of microvolts."""
    data = drifting() + 5000
    broken = data.copy()
    value = 0.0 if what == "pause" else np.nan
    broken[:, 17 * 256 : 19 * 256] = broken[:, 25 * 256 : 27 * 256] = value
    trial = stretch(recording(broken), 20.0, 24.0)
    shorter = recording(data[:, 19 * 256 : 25 * 256])
    ours, expected = (filter_and_resample(signal, 256, PARAMS)[0] for signal in (trial, stretch(shorter, 1.0, 5.0)))
    # The edge of the pause itself may be a sample off.
    assert np.abs(ours - expected).max() < 1.0
    assert admit(Trial("1", 1, 1, "a", trial, 256.0, CAP), [name.upper() for name in CAP], PARAMS,
                 RecordingFacts("a", "1")) is not None


def whole_windows(data: np.ndarray, starts: list[float], sfreq: int) -> np.ndarray:
    """Windows of 4 s cut from the filtered and re-referenced recording."""
    whole = reference(data, sfreq)
    whole -= whole.mean(axis=0)
    return np.stack([whole[:, round(sfreq * at) : round(sfreq * at) + 4 * sfreq] for at in starts])


def test_trials_of_a_folder_are_windows_of_the_whole_recording(tmp_path):
    data, starts = drifting(), [8.0, 21.0, 40.0]
    write_edf(tmp_path / "mine" / "a.edf", data, sfreq=256)
    rows = [f"a.edf,1,1,{('rest', 'task')[i % 2]},{at},{at + 4.5}" for i, at in enumerate(starts)]
    (tmp_path / "mine" / "labels.csv").write_text("file,subject,session,label,start,stop\n" + "\n".join(rows))
    assert write_windows(LabelledFolder(tmp_path / "mine"), tmp_path / "windows", PARAMS, 1) == {}
    windows = Windows.open(tmp_path / "windows")
    rows = [[name.upper() for name in CAP].index(name) for name in windows.ch_names]
    assert np.abs(windows.data - whole_windows(data, starts, 256)[:, rows]).max() < 0.1  # an EDF file has 16 bits


def test_trials_of_bids_are_windows_of_the_whole_recording(tmp_path):
    (tmp_path / "bids").mkdir()
    _, data = write_bids(tmp_path / "bids", "01", seconds=5.0)
    params = replace(PARAMS, sfreq=BIDS_SFREQ)
    assert write_windows(open_source("bids", tmp_path / "bids"), tmp_path / "windows", params, 1) == {}
    windows = Windows.open(tmp_path / "windows")
    names = [canonical(name) for name in BIDS_NAMES[:10]]
    wanted = whole_windows(data[:10], [1.0 + 6 * i for i in range(6)], BIDS_SFREQ)
    assert np.abs(windows.data - wanted[:, [names.index(name) for name in windows.ch_names]]).max() < 0.05


def test_cleaning_by_hand_gives_the_same(tmp_path):
    write_edf(tmp_path / "a.edf", drifting(), sfreq=256)
    write_edf(tmp_path / "b.edf", drifting(seed=1), sfreq=256)
    (tmp_path / "labels.csv").write_text("file,subject,session,label,start,stop\n"
                                          "a.edf,1,1,rest,10,15\nb.edf,2,1,task,0,9\n")
    source = LabelledFolder(tmp_path)
    trial = next(source.trials(source.recordings[0]))
    signal, _ = clean(trial, PARAMS)
    facts = RecordingFacts("a", "1")
    admitted = admit(trial, list(trial.ch_names), PARAMS, facts)
    assert np.array_equal(admitted.windows[0], signal[:, :1024])
