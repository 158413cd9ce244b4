"""Windows are what MNE's filters promise, a bad recording costs only itself, and a run that was cut off goes on."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from edfio import Edf, EdfSignal
from scipy.io import loadmat, savemat
from scipy.signal import butter, resample_poly, sosfiltfilt

from e2llm.core.montage import SEED_CHANNELS, eegpt_channels
from e2llm.data.checks import judge_trial
from e2llm.data.cleaning import clean, windows_of
from e2llm.data.features import measure
from e2llm.data.filtering import filter_and_resample
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.simulation import leadfield
from e2llm.data.sources.base import RecordingError, SourceError, Stretch, Trial, place_channels
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.seed_vii import SeedVII, clip_emotion

TEN_TWENTY = "FP1 FP2 F3 F4 F7 F8 T7 T8 C3 C4 P7 P8 P3 P4 O1 O2 FZ CZ PZ"
SMALL_CAP = tuple(TEN_TWENTY.split())


def trial_of(signal: np.ndarray, ch_names=SEED_CHANNELS, sfreq: float = 200.0) -> Trial:
    return Trial("1", 1, 1, "happy", signal.astype(np.float32), sfreq, tuple(ch_names))


def spatial_noise(seconds: float, ch_names=SEED_CHANNELS, sfreq: int = 200, sensor_uv: float = 0.3) -> np.ndarray:
    """Alpha-like noise of 30 cortical sources, 10 microvolts, as neighboring channels share it."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(30, 3))
    places[:, 2] = np.abs(places[:, 2])
    fields = leadfield(0.7 * places / np.linalg.norm(places, axis=1, keepdims=True))
    band = butter(2, [4, 20], "bandpass", fs=sfreq, output="sos")
    sources = sosfiltfilt(band, rng.normal(size=(30, int(seconds * sfreq))))
    signal = fields[[SEED_CHANNELS.index(name) for name in ch_names]] @ sources
    return 10 * signal / signal.std() + rng.normal(0, sensor_uv, signal.shape)


def amplitude(signal: np.ndarray, frequency: float, sfreq: float) -> np.ndarray:
    """Amplitude of a sine by least squares, without the first and last second."""
    signal = signal[..., int(sfreq) : -int(sfreq)]
    angle = 2 * np.pi * frequency * np.arange(signal.shape[-1]) / sfreq
    basis = np.stack([np.sin(angle), np.cos(angle), np.ones_like(angle)])
    return np.hypot(*np.linalg.lstsq(basis.T, signal.T, rcond=None)[0][:2])


def sines(frequency: float, sfreq: float = 200.0) -> np.ndarray:
    """Ten microvolts in all channels, opposite in every second one, so that the average reference keeps them."""
    signs = np.where(np.arange(62) % 2, 1.0, -1.0)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.01, (62, int(20 * sfreq)))
    return 10 * signs * np.sin(2 * np.pi * frequency * np.arange(noise.shape[1]) / sfreq) + noise


def cleaned(signal: np.ndarray, **kwargs) -> tuple[np.ndarray, list[str]]:
    return clean(trial_of(signal, **kwargs), PreprocessParams())


def run(root: Path, folder: Path, source=None, **kwargs) -> tuple[Windows, dict[str, str]]:
    skipped = write_windows(source or SeedVII(root), folder, kwargs.pop("params", None), kwargs.pop("n_jobs", 1))
    return Windows.open(folder), skipped


def assert_same(one: Windows, two: Windows) -> None:
    np.testing.assert_allclose(one.data, two.data, rtol=0, atol=1e-4)  # float32 sums; signals are tens of microvolts
    np.testing.assert_allclose(one.power, two.power, rtol=1e-4)
    np.testing.assert_allclose(one.shape, two.shape, rtol=1e-4)
    pd.testing.assert_frame_equal(one.index, two.index)
    assert one.ch_names == two.ch_names and one.sfreq == two.sfreq


@pytest.fixture(scope="module")
def straight(tiny_twin, tmp_path_factory) -> Windows:
    """Windows of the tiny twin in one go, in one process."""
    return run(tiny_twin, tmp_path_factory.mktemp("straight") / "windows")[0]


# --- the signal


@pytest.mark.parametrize(("frequency", "low", "high"), [
    (0.05, -np.inf, -20), (2, -0.5, 0.5), (10, -0.5, 0.5), (40, -0.5, 0.5), (50, -np.inf, -30), (60, -np.inf, -30),
])
def test_pass_band_is_kept_and_mains_are_stopped(frequency, low, high):
    signal, bad = cleaned(sines(frequency))
    gain = 20 * np.log10(amplitude(signal, frequency, 256.0).mean() / 10)
    assert bad == [] and low < gain < high


@pytest.mark.parametrize("sfreq", [128.0, 200.0, 256.0, 500.0])
def test_resampling_keeps_a_sine_from_any_rate(sfreq):
    signal, _ = cleaned(sines(10, sfreq), sfreq=sfreq)
    assert signal.shape[1] == 20 * 256
    spectrum = np.abs(np.fft.rfft(signal[0, 512:-512] * np.hanning(signal.shape[1] - 1024)))
    assert np.fft.rfftfreq(signal.shape[1] - 1024, 1 / 256)[spectrum.argmax()] == pytest.approx(10, abs=0.07)
    assert amplitude(signal, 10, 256.0).mean() == pytest.approx(10, rel=0.02)


def decibels(error: np.ndarray, signal: np.ndarray) -> float:
    return 20 * np.log10(np.sqrt((error**2).mean() / (signal**2).mean()))


@pytest.mark.parametrize("offset", [0.0, 1e5], ids=["no offset", "offset of an amplifier"])
def test_single_precision_and_blocks_cost_less_than_100_db(offset):
    """At the old rate nothing is resampled: what remains against MNE's filter is rounding and the seams of blocks."""
    signal = (spatial_noise(120) + offset).astype(np.float32)
    assert signal.shape[1] > 2 * 6 * 1321  # a few blocks, each of six kernels of 6.6 s
    ours, height = filter_and_resample(signal, 200.0, PreprocessParams(sfreq=200.0))
    exact = mne.filter.filter_data(signal.astype(float), 200.0, 0.5, 45.0, h_trans_bandwidth=5.0, verbose="error")
    assert decibels(ours - exact, exact - exact.mean(axis=1, keepdims=True)) < -100
    np.testing.assert_allclose(height, np.ptp(signal, axis=1), rtol=1e-6)


@pytest.mark.parametrize("sfreq", [100.0, 128.0, 199.8, 200.0, 250.0, 256.0, 500.0, 1000.0, 5000.0])
def test_sums_of_sines_come_out_at_their_own_times(sfreq):
    """Against the sines themselves ours is never worse than MNE's polyphase resampling, which parts the same filter."""
    rng = np.random.default_rng(3)
    frequencies, phases = rng.uniform(3, 38, (4, 1, 6)), rng.uniform(0, 2 * np.pi, (4, 1, 6))

    def sines_at(rate: float, n: int) -> np.ndarray:
        return 10 * np.sin(2 * np.pi * frequencies * (np.arange(n) / rate)[:, None] + phases).sum(axis=-1)

    signal, middle = sines_at(sfreq, round(20 * sfreq)), slice(1024, -1024)
    ours, _ = filter_and_resample(signal, sfreq, PreprocessParams())
    ratio = Fraction(256 / sfreq).limit_denominator(1000)
    filtered = mne.filter.filter_data(signal, sfreq, 0.5, min(45.0, sfreq / 2 - 5), h_trans_bandwidth=5.0,
                                      verbose="error")
    theirs = resample_poly(filtered, *ratio.as_integer_ratio(), axis=1)
    truth = sines_at(256.0, 20 * 256)
    assert ours.shape == truth.shape
    assert decibels((ours - truth)[:, middle], truth) < min(-50, decibels((theirs - truth)[:, middle], truth) + 1)


def test_average_reference_over_the_whole_cap():
    """All 62 channels take part, those that are dropped afterwards too."""
    signal, _ = cleaned(spatial_noise(9) + 30 * np.random.default_rng(1).normal(size=1800))
    assert np.abs(signal.mean(axis=0)).max() < 1e-4 and signal.std() > 3  # single precision
    kept = [SEED_CHANNELS.index(name) for name in eegpt_channels(list(SEED_CHANNELS))]
    assert np.abs(signal[kept].mean(axis=0)).max() > 0.1


@pytest.mark.parametrize("ch_names", [SEED_CHANNELS, SMALL_CAP], ids=["62", "19"])
def test_a_loud_channel_is_interpolated(ch_names):
    truth = spatial_noise(9, ch_names)
    broken = truth.copy()
    row = ch_names.index("C3")
    broken[row] = np.random.default_rng(2).normal(0, 12 * truth.std(), truth.shape[1])
    (expected, none), (repaired, bad) = (cleaned(signal, ch_names=ch_names) for signal in (truth, broken))
    assert none == [] and bad == ["C3"]
    untouched, _ = clean(trial_of(broken, ch_names), PreprocessParams(lof_threshold=1e9))
    before, after = (np.corrcoef(signal[row], expected[row])[0, 1] for signal in (untouched, repaired))
    assert abs(before) < 0.3 and after > 0.8
    others = [i for i in range(len(ch_names)) if i != row]
    assert np.abs(repaired - expected)[others].max() < np.abs(untouched - expected)[others].max()


def test_a_flat_channel_is_interpolated():
    signal = spatial_noise(9)
    signal[3] = 0.0
    repaired, bad = cleaned(signal)
    assert bad == [SEED_CHANNELS[3]] and repaired[3].std() > 1


@pytest.mark.parametrize(("signal", "facts"), [
    (np.zeros((62, 1800)), ["every channel is flat", "microvolts"]),
    (np.full((62, 1800), 4e3), ["every channel is flat"]),
    (spatial_noise(9) * 1e-6, ["every channel is flat", "check the unit"]),  # volts
    (np.vstack([np.zeros((20, 1800)), spatial_noise(9)[20:]]), ["20 of 62 channels are bad", "too many to repair"]),
], ids=["zeros", "constant", "volts", "many bad"])
def test_signals_that_cannot_be_used(signal, facts):
    with pytest.raises(Exception, match="subject 1, clip 1") as caught:
        cleaned(signal)
    assert caught.type.__name__ == "RecordingError" and all(fact in str(caught.value) for fact in facts)


def test_one_channel_is_no_cap():
    with pytest.raises(Exception, match=r"one channel .CZ. has no average reference"):
        cleaned(spatial_noise(9)[27:28], ch_names=["CZ"])


@pytest.mark.parametrize(("seconds", "n"), [(4.0, 1), (7.99, 1), (8.0, 2), (9.0, 2)])
def test_windows_are_consecutive_and_whole(seconds, n):
    trial = trial_of(spatial_noise(seconds))
    windows, _ = windows_of(trial, ["OZ", "CZ"], PreprocessParams())
    assert windows.shape == (n, 2, 1024) and windows.dtype == np.float32
    signal, rows = clean(trial, PreprocessParams())[0], [SEED_CHANNELS.index(name) for name in ("OZ", "CZ")]
    np.testing.assert_array_equal(windows.transpose(1, 0, 2).reshape(2, -1), signal[rows, : n * 1024])


# --- a continuous recording


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory) -> Path:
    """Twelve minutes of 19 channels at 500 Hz, nearly all of them one stretch."""
    root, rng = tmp_path_factory.mktemp("long"), np.random.default_rng(4)
    signal = rng.normal(0, 10, (len(SMALL_CAP), 12 * 60 * 500)) + 20 * np.sin(np.arange(12 * 60 * 500) / 8)
    Edf([EdfSignal(x, 500, label=name, physical_dimension="uV")
         for name, x in zip(SMALL_CAP, signal, strict=True)]).write(root / "long.edf")
    (root / "labels.csv").write_text("file,subject,session,label,start,stop\nlong.edf,1,1,rest,0,700\n"
                                     "long.edf,1,1,task,700,720")
    return root


def test_a_long_recording_takes_less_than_three_times_its_windows(long_folder, tmp_path):
    params = PreprocessParams(lof_threshold=1e9)
    run(long_folder, tmp_path / "first", LabelledFolder(long_folder), params=params)  # caches and imports
    source = LabelledFolder(long_folder)
    tracemalloc.start()
    try:
        windows, _ = run(long_folder, tmp_path / "windows", source, params=params)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert windows.data.shape == (180, 19, 1024) and peak < 3 * windows.data.nbytes


def peak_of(root: Path, out: Path) -> int:
    """Largest number of bytes in memory while windows are written."""
    source = LabelledFolder(root)
    tracemalloc.start()
    try:
        run(root, out, source, params=PreprocessParams(lof_threshold=1e9))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_recording_on_the_disk_gives_equal_windows_in_memory_that_does_not_grow(long_folder, tmp_path,
                                                                                       monkeypatch):
    """Some windows are left out, too: the others are moved within the array, not copied."""
    whole = pd.read_csv(long_folder / "labels.csv")
    roots = {}
    for name, labels in (("whole", whole), ("half", whole.replace({700: 350, 720: 370}))):
        roots[name] = tmp_path / name
        roots[name].mkdir()
        shutil.copy(long_folder / "long.edf", roots[name])
        labels.to_csv(roots[name] / "labels.csv", index=False)
    params = PreprocessParams(lof_threshold=1e9)

    def without_some(*given):
        keep, flaws = judge_trial(*given)
        keep[3:9] = False
        return keep, flaws

    monkeypatch.setattr("e2llm.data.gate.judge_trial", without_some)
    held, _ = run(roots["whole"], tmp_path / "held", LabelledFolder(roots["whole"]), params=params)
    monkeypatch.setattr("e2llm.core.space.IN_MEMORY", 100_000)
    peaks = {name: peak_of(root, tmp_path / f"{name} windows") for name, root in roots.items()}
    found = Windows.open(tmp_path / "whole windows")
    assert len(found) == 180 - 6 - 2 and "3" not in found.index["window"].astype(str)[:5].tolist()
    for name in ("data", "power", "shape"):
        np.testing.assert_array_equal(getattr(found, name), getattr(held, name))
    pd.testing.assert_frame_equal(found.index, held.index)
    assert peaks["whole"] < 1.1 * peaks["half"] and peaks["whole"] < 1.5 * found.data.nbytes, peaks
    left = {path.name for path in (tmp_path / "whole windows").iterdir()}
    assert left == {path.name for path in (tmp_path / "held").iterdir()}


def test_stretches_of_any_length_give_the_same_signal(long_folder, monkeypatch):
    source = LabelledFolder(long_folder)
    part = next(source.trials(source.recordings[0])).signal
    stretch = Stretch(part.raw, place_channels(part.raw, part.path), part.path)  # all of it: nothing lies around
    read, held = (filter_and_resample(signal, 500.0, PreprocessParams()) for signal in (stretch, np.asarray(stretch)))
    np.testing.assert_array_equal(read[0], held[0])
    monkeypatch.setattr("e2llm.data.filtering._BLOCK", 1000.0)
    whole = filter_and_resample(stretch, 500.0, PreprocessParams())
    assert decibels(read[0] - whole[0], whole[0]) < -100 and np.abs(read[0] - whole[0]).max() < 1e-3
    np.testing.assert_array_equal(read[1], whole[1])


def test_a_stretch_is_read_where_it_is_sliced(long_folder):
    source = LabelledFolder(long_folder)
    stretch = next(source.trials(source.recordings[0])).signal
    whole = np.asarray(stretch)
    assert stretch.shape == whole.shape == (19, 350_000) and whole.dtype == stretch.dtype
    np.testing.assert_array_equal(stretch[:, 1000:1500], whole[:, 1000:1500])
    np.testing.assert_array_equal(stretch[3, ::7], whole[3, ::7])
    stretch.raw.load_data(verbose="error")._data[2, 1200] = np.nan
    np.testing.assert_array_equal(stretch[:, :1000], whole[:, :1000])
    with pytest.raises(RecordingError, match=r"long.edf: 1 samples between 2 and 3 s are not finite; repair"):
        stretch[:, 1000:1500]


# --- windows on disk


def test_windows_are_mapped_microvolts_with_an_index(tiny_twin, straight):
    assert isinstance(straight.data, np.memmap) and straight.data.dtype == np.float32
    assert straight.ch_names == eegpt_channels(list(SEED_CHANNELS)) and straight.sfreq == 256.0
    assert straight.data.shape == (12, 58, 1024) and len(straight) == 12
    assert 2 < np.median(straight.data.std(axis=-1)) < 60
    for name, values in zip(("power", "shape"), measure(straight.data, 256.0, straight.ch_names), strict=True):
        stored = getattr(straight, name)
        assert isinstance(stored, np.memmap) and stored.dtype == np.float32
        np.testing.assert_allclose(stored, values, rtol=1e-5)
    assert straight.power.shape == (12, 58, 5) and straight.shape.shape == (12, 3)
    index = straight.index
    assert index.columns.tolist() == ["id", "subject", "session", "clip", "window", "start_s", "label", "intensity",
                                      "clip_s", "bad_channels"]
    assert index["id"].tolist() == list(range(12)) and index["subject"].tolist() == list("111122223333")
    assert index["start_s"].tolist() == [0, 4] * 6 and index["session"].eq(1).all()
    assert index["label"].tolist() == [clip_emotion(clip) for clip in index["clip"]]
    for row in index.itertuples():
        clip = loadmat(tiny_twin / "EEG_preprocessed" / f"{row.subject}.mat")[str(row.clip)]
        trace = loadmat(tiny_twin / "continuous_labels" / f"{row.subject}.mat")[str(row.clip)]
        assert row.clip_s == clip.shape[1] / 200 and row.intensity == pytest.approx(trace[0, row.window])


def test_a_window_is_its_stretch_of_the_clip(tiny_twin, straight):
    """Found again in the raw file by correlation, at its own start and nowhere else."""
    clip = loadmat(tiny_twin / "EEG_preprocessed" / "2.mat")["2"]
    row = straight.index.query("subject == '2' and clip == 2 and window == 1").index[0]
    band = butter(4, [0.5, 45], "bandpass", fs=200, output="sos")
    signal = resample_poly(sosfiltfilt(band, clip - clip.mean(axis=0)), 32, 25, axis=1)[SEED_CHANNELS.index("OZ")]
    shifts = np.arange(0, 1048, 8)
    ours = straight.data[row, straight.ch_names.index("OZ")]
    correlation = [np.corrcoef(ours, signal[s : s + 1024])[0, 1] for s in shifts if s + 1024 <= len(signal)]
    assert shifts[int(np.argmax(correlation))] == 1024 and max(correlation) > 0.95


def test_all_channels_of_the_vocabulary_and_other_windows(tiny_twin, tmp_path):
    params = PreprocessParams(sfreq=128.0, window_s=2.0, trained_only=False)
    windows, _ = run(tiny_twin, tmp_path / "windows", SeedVII(tiny_twin, subjects=1), params=params)
    assert windows.data.shape == (8, 60, 256) and windows.index["start_s"].tolist() == [0, 2, 4, 6] * 2


def test_unfinished_windows_are_not_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished windows: run notebook 01"):
        Windows.open(tmp_path)


@pytest.mark.parametrize("lost", [["data.shape.npy"], ["data.power.npy", "data.shape.npy"]])
def test_windows_of_another_version_are_not_opened(tiny_twin, tmp_path, lost):
    folder = tmp_path / "windows"
    run(tiny_twin, folder, SeedVII(tiny_twin, subjects=1))
    assert {path.name for path in folder.iterdir()} == {"data.npy", "data.power.npy", "data.shape.npy", "index.csv",
                                                        "channels.json", "quality.csv", "recordings.csv"}
    for name in lost:
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks {', '.join(lost)}, so another version wrote it: remove the "
                                                r"folder and run notebook 01"):
        Windows.open(folder)


def test_two_jobs_give_the_same_bits(tiny_twin, tmp_path, straight):
    folder = tmp_path / "windows"
    run(tiny_twin, folder, n_jobs=2)
    for path in Path(straight.data.filename).parent.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_twin_under_another_name_gives_the_same_windows(own_twin, tmp_path, straight):
    """Nothing looks at the folder's name or at the ground truth beside a twin."""
    assert own_twin.name == "SEED-VII" and not own_twin.with_name("SEED-VII-truth").exists()
    assert_same(run(own_twin, tmp_path / "windows")[0], straight)


def test_a_folder_is_replaced_only_by_whole_windows(own_twin, tmp_path, straight):
    """A second request overwrites the first, and a failing one leaves it alone."""
    folder = tmp_path / "windows"
    run(own_twin, folder, SeedVII(own_twin, subjects=1))
    assert_same(run(own_twin, folder)[0], straight)
    for path in (own_twin / "EEG_preprocessed").iterdir():
        path.write_bytes(b"garbage")
    with pytest.raises(SourceError, match=r"No recording of .* could be used; the first reason: .*1.mat is not a "
                                          r"readable"):
        run(own_twin, folder)
    assert_same(Windows.open(folder), straight)


# --- one bad recording


def break_subject(root: Path, how: str) -> str:
    """Damage the second subject; returns what the reason must say."""
    path = root / "EEG_preprocessed" / "2.mat"
    clips = {key: value for key, value in loadmat(path).items() if key.isdigit()}
    if how == "garbage":
        path.write_bytes(b"garbage")
        return "not a readable .mat file"
    if how == "nan":
        clips["2"][5, 7] = np.nan
    elif how == "flat":
        clips["1"][:] = 0.0
    savemat(path, clips)
    return {"nan": "1 samples are not finite", "flat": "every channel is flat"}[how]


@pytest.mark.parametrize("how", ["garbage", "nan", "flat"])
def test_a_bad_recording_costs_only_itself(own_twin, tmp_path, straight, how):
    fact = break_subject(own_twin, how)
    windows, skipped = run(own_twin, tmp_path / "windows")
    assert list(skipped) == ["2.mat"] and fact in skipped["2.mat"]
    rows = np.flatnonzero(straight.index["subject"] != "2")
    expected = straight.index.iloc[rows].reset_index(drop=True).assign(id=np.arange(len(rows)))
    assert_same(windows, replace(straight, data=straight.data[rows], power=straight.power[rows],
                                 shape=straight.shape[rows], index=expected))


def test_windows_longer_than_every_clip(tiny_twin, tmp_path):
    with pytest.raises(SourceError, match=r"first reason: .*8.. s of signal is shorter than one window of 10 s"):
        run(tiny_twin, tmp_path / "windows", params=PreprocessParams(window_s=10.0))
    assert not (tmp_path / "windows").exists()


# --- cut off and resumed


class CutOff(Exception):
    """Stands for a killed process."""


class Watched(SeedVII):
    """Notes which recordings are read, and dies at one of them."""

    def __init__(self, root: Path, dies_at: str | None = None) -> None:
        super().__init__(root)
        self.read: list[str] = []
        self.dies_at = dies_at

    def trials(self, recording):
        self.read.append(recording.name)
        for trial in super().trials(recording):
            yield trial
            if recording.name == self.dies_at:
                raise CutOff


def test_a_run_that_was_cut_off_goes_on(tiny_twin, tmp_path, straight):
    folder, parts = tmp_path / "windows", tmp_path / "windows.part"
    with pytest.raises(CutOff):
        run(tiny_twin, folder, Watched(tiny_twin, "3.mat"))
    assert not folder.exists() and {"1.mat.csv", "2.mat.csv"} == {path.name for path in parts.glob("*.csv")}
    (parts / "2.mat.csv").unlink()  # as if killed while the second part was written
    (parts / "2.mat.f32").write_bytes((parts / "2.mat.f32").read_bytes()[:1000])
    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    source = Watched(tiny_twin, "3.mat")
    with pytest.raises(CutOff):
        run(tiny_twin, folder, source)
    after = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert source.read == ["2.mat", "3.mat"]
    assert after["2.mat.f32"] > before["2.mat.f32"]
    assert all(after[name] == before[name] for name in ("1.mat.f32", "1.mat.power.f32", "1.mat.shape.f32", "1.mat.csv"))
    source = Watched(tiny_twin)
    windows, skipped = run(tiny_twin, folder, source)
    assert source.read == ["3.mat"] and skipped == {} and not parts.exists()
    assert_same(windows, straight)


def test_a_run_that_was_cut_off_while_its_parts_were_joined_goes_on(tiny_twin, tmp_path, straight, monkeypatch):
    folder, real, removed = tmp_path / "windows", Path.unlink, []

    def dies(path, missing_ok=False):
        real(path, missing_ok)
        removed.append(path.name)
        if len(removed) == 4:
            raise CutOff

    with monkeypatch.context() as cut:
        cut.setattr(Path, "unlink", dies)
        with pytest.raises(CutOff):
            run(tiny_twin, folder)
    windows, skipped = run(tiny_twin, folder)
    assert skipped == {}
    assert_same(windows, straight)


def test_parts_made_with_other_parameters_are_not_reused(tiny_twin, tmp_path, straight):
    folder = tmp_path / "windows"
    with pytest.raises(CutOff):
        run(tiny_twin, folder, Watched(tiny_twin, "2.mat"), params=PreprocessParams(h_freq=20.0))
    source = Watched(tiny_twin)
    assert_same(run(tiny_twin, folder, source)[0], straight)
    assert source.read == ["1.mat", "2.mat", "3.mat"]


# --- a folder of other recordings


def write_edf(path: Path, names, rows: slice | list = slice(None)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = np.roll(spatial_noise(9, SMALL_CAP)[rows], 500 * int(path.parent.name[-1]), axis=1)  # no two are equal
    Edf([EdfSignal(x, 200, label=name, physical_dimension="uV")
         for name, x in zip(names, signal, strict=True)]).write(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three recordings in folders of their own, the second without C4."""
    root = tmp_path / "mine"
    for n in (1, 2, 3):
        rows = [row for row, name in enumerate(SMALL_CAP) if n != 2 or name != "C4"]
        write_edf(root / f"sub-{n}" / "run.edf", [f"EEG {SMALL_CAP[row]}-Ref" for row in rows], rows)
    labels = enumerate(["rest", "None", "rest"], start=1)
    lines = ["file,subject,session,label", *(f"sub-{n}/run.edf,{n},1,{label}" for n, label in labels)]
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def test_recordings_in_subfolders_keep_the_channels_they_share(folder, tmp_path):
    windows, skipped = run(folder, tmp_path / "windows", LabelledFolder(folder))
    assert skipped == {} and windows.data.shape == (6, 18, 1024)
    assert windows.ch_names == eegpt_channels([name for name in SMALL_CAP if name != "C4"])
    assert windows.index["label"].tolist() == ["rest"] * 2 + ["None"] * 2 + ["rest"] * 2
    assert windows.index["intensity"].isna().all() and windows.index["bad_channels"].eq("").all()


def test_a_recording_of_other_channels_does_not_take_them_from_all(folder, tmp_path):
    write_edf(folder / "sub-3" / "run.edf", ["AF7", "PO7"], slice(2))
    windows, skipped = run(folder, tmp_path / "windows", LabelledFolder(folder))
    assert list(skipped) == ["sub-3/run.edf"] and "lacks most channels" in skipped["sub-3/run.edf"]
    assert windows.data.shape == (4, 18, 1024)


def test_parts_are_made_again_when_the_shared_channels_change(folder, tmp_path):
    """The first run dies with a broken file; repaired, that file has fewer channels than the finished parts."""
    shutil.move(folder / "sub-2" / "run.edf", tmp_path / "repaired.edf")
    (folder / "sub-2" / "run.edf").write_text("broken")
    source = LabelledFolder(folder)
    trials = source.trials

    def die_at_the_third(recording):
        if recording.subject == "3":
            raise CutOff
        return trials(recording)

    source.trials = die_at_the_third
    with pytest.raises(CutOff):
        run(folder, tmp_path / "windows", source)
    shutil.move(tmp_path / "repaired.edf", folder / "sub-2" / "run.edf")
    windows, skipped = run(folder, tmp_path / "windows", LabelledFolder(folder))
    assert skipped == {} and windows.data.shape == (6, 18, 1024)
