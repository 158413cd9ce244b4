"""A labelled folder: every format is read back to microvolts, stretches are the table's, bad files are left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import mne
import numpy as np
import pytest
from edfio import Bdf, BdfSignal
from layouts import write_cnt, write_gdf
from scipy.io import savemat

from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources import open_source
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.folder import LabelledFolder

NAMES = ["Fp1", "Fp2", "F3", "F4", "T3", "T4", "O1", "O2", "Cz", "Pz", "HEOG"]
PLACES = ("FP1", "FP2", "F3", "F4", "T7", "T8", "O1", "O2", "CZ", "PZ")
SFREQ, SECONDS = 256, 20


def signal(seed: int = 0, n: int = len(NAMES)) -> np.ndarray:
    """Microvolts, smooth in time and alike in neighboring rows."""
    white = np.random.default_rng(seed).normal(size=(n, SFREQ * SECONDS + 8))
    smooth = np.apply_along_axis(np.convolve, 1, white, np.ones(9) / 3, mode="valid")
    return 20 * (smooth + smooth.mean(axis=0))


def raw_of(data: np.ndarray, names: list[str] = NAMES, positions: bool = False) -> mne.io.RawArray:
    types = ["eog" if "EOG" in name else "eeg" for name in names]
    raw = mne.io.RawArray(data * 1e-6, mne.create_info(names, SFREQ, types), verbose="error")
    return raw.set_montage("standard_1005", match_case=False, on_missing="ignore",
                           verbose="error") if positions else raw


def write_bdf(path: Path, data: np.ndarray) -> None:
    Bdf([BdfSignal(x, SFREQ, label=name, physical_dimension="uV")
         for name, x in zip(NAMES, data, strict=True)]).write(path)


def export(path: Path, data: np.ndarray) -> None:
    mne.export.export_raw(path, raw_of(data), overwrite=True, verbose="error")


def write_split_set(path: Path, data: np.ndarray) -> None:
    """An EEGLAB recording of two files: the samples lie in an .fdt beside the .set."""
    data.T.astype("<f4").tofile(path.with_suffix(".fdt"))
    located = np.array([(name, i) for i, name in enumerate(NAMES, start=1)],
                       dtype=[("labels", object), ("urchan", object)])
    facts = {"nbchan": len(NAMES), "trials": 1, "pnts": data.shape[1], "srate": float(SFREQ), "xmin": 0.0,
             "xmax": data.shape[1] / SFREQ,
             "data": path.with_suffix(".fdt").name, "chanlocs": located, "event": np.array([]), "epoch": np.array([]),
             "setname": "", "ref": "", "chaninfo": {"nosedir": "+X"}, "etc": {"tool": "tests"}}
    savemat(path, {"EEG": facts}, appendmat=False)


WRITERS = {
    "EDF": ("a.edf", export), "BDF": ("a.bdf", write_bdf), "BrainVision": ("a.vhdr", export),
    "EEGLAB": ("a.set", export),
    "EEGLAB in two files": ("a.set", write_split_set), "FIF": ("a_raw.fif", lambda path,
                                                               data: raw_of(data).save(path, verbose="error")),
    "GDF": ("a.gdf", lambda path, data: write_gdf(path, NAMES, data, SFREQ)),
    "Neuroscan CNT": ("a.cnt", lambda path, data: write_cnt(path, NAMES, data, SFREQ, [])),
}


def table(root: Path, rows: list[str], columns: str = "file,subject,session,label") -> None:
    (root / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_microvolts(root, kind):
    name, write = WRITERS[kind]
    data = signal()
    write(root / name, data)
    table(root, [f"{name},1,1,rest", "b.edf,1,2,task"])
    export(root / "b.edf", data)
    source = open_source("folder", root)
    assert source.check(source.recordings[0]) == list(PLACES)
    trial = next(source.trials(source.recordings[0]))
    assert trial.ch_names == PLACES and trial.sfreq == SFREQ and trial.signal.dtype == np.float32
    np.testing.assert_allclose(trial.signal, data[:10], atol=0.02)


@pytest.mark.parametrize(("kind", "lost", "says"), [
    ("BrainVision", "a.eeg", "a .vhdr, a .vmrk and a .eeg"), ("BrainVision", "a.vmrk", "a .vhdr, a .vmrk and a .eeg"),
    ("EEGLAB in two files", "a.fdt", "a .set file with an .fdt"),
])
def test_a_missing_companion_is_named(root, tmp_path, kind, lost, says):
    name, write = WRITERS[kind]
    write(root / name, signal())
    export(root / "b.edf", signal(1))
    (root / lost).unlink()
    table(root, [f"{name},1,1,rest", "b.edf,1,2,task"])
    source = LabelledFolder(root)
    with pytest.raises(RecordingError) as caught:
        list(source.trials(source.recordings[0]))
    message = str(caught.value)
    assert all(part in message for part in (str(root / name), lost, says, "copy all of them")) and "\n" not in message
    assert list(write_windows(source, tmp_path / "windows", n_jobs=1)) == [name]
    assert len(Windows.open(tmp_path / "windows")) == 5


# --- stretches


def stretches(root: Path, *rows: str) -> None:
    table(root, list(rows), "file,subject,session,label,start,stop,clip,context")


def test_several_stretches_of_one_file(root, tmp_path):
    data = signal()
    export(root / "a.edf", data)
    export(root / "b.edf", signal(1))
    stretches(root, "a.edf,1,1,happy,2,10.5,7,video", "b.edf,2,1,happy,0,8,7,video", "a.edf,1,1,sad,10.5,20,9,imagery")
    source = LabelledFolder(root)
    assert [recording.name for recording in source.recordings] == ["a.edf", "b.edf"]
    first, second = source.trials(source.recordings[0])
    np.testing.assert_allclose(first.signal, data[:10, 2 * SFREQ : round(10.5 * SFREQ)], atol=0.01)
    np.testing.assert_allclose(second.signal, data[:10, round(10.5 * SFREQ) :], atol=0.01)
    assert [(trial.clip, trial.label, trial.context) for trial in (first, second)] == [(7, "happy", "video"),
                                                                                       (9, "sad", "imagery")]
    write_windows(source, tmp_path / "windows", n_jobs=1)
    index = Windows.open(tmp_path / "windows").index
    shown = [["1", 7, "video"], ["1", 9, "imagery"], ["2", 7, "video"]]
    expected = [[*trial, start] for trial in shown for start in (0.0, 4.0)]
    assert index[["subject", "clip", "context", "start_s"]].to_numpy().tolist() == expected


def test_a_source_without_contexts_has_no_such_column(root, tmp_path):
    export(root / "a.edf", signal())
    export(root / "b.edf", signal(1))
    table(root, ["a.edf,1,1,rest", "b.edf,1,2,task"])
    write_windows(LabelledFolder(root), tmp_path / "windows", n_jobs=1)
    assert "context" not in Windows.open(tmp_path / "windows").index


@pytest.mark.parametrize(("rows", "fact"), [
    (["a.edf,1,1,happy,2,10,7,", "a.edf,1,1,sad,10,20,8,x"], "line 2: context is empty"),
    (["a.edf,1,1,happy,2,ten,7,x"], "line 2: start and stop are '2' and 'ten', not seconds"),
    (["a.edf,1,1,happy,9,4,7,x"], "line 2: the stretch from 9 to 4 s is empty"),
    (["a.edf,1,1,happy,-1,4,7,x"], "line 2: the stretch from -1 to 4 s is empty or begins before 0"),
    (["a.edf,1,1,happy,0,nan,7,x"], "line 2: the stretch from 0 to nan s"),
    (["a.edf,1,1,happy,0,4,one,x"], "line 2: clip is 'one', not a number"),
    (["a.edf,1,1,happy,4,9,7,x", "b.edf,1,1,sad,0,5,8,x", "a.edf,1,1,sad,0,4.5,9,x"], "overlaps another"),
    (["a.edf,1,1,happy,0,4,7,x", "b.edf,1,1,sad,0,5,07,x"], "line 3: clip 07 of subject 1 stands in an earlier line"),
    (["a.edf,1,1,happy,0,4,7,x", "a.edf,2,1,sad,4,8,8,x"], "gives a.edf to more than one subject"),
])
def test_tables_that_contradict_themselves(root, rows, fact):
    export(root / "a.edf", signal())
    export(root / "b.edf", signal())
    stretches(root, *rows)
    with pytest.raises(SourceError) as caught:
        LabelledFolder(root)
    assert fact in str(caught.value) and str(root / "labels.csv") in str(caught.value)


def test_start_without_stop(root):
    export(root / "a.edf", signal())
    table(root, ["a.edf,1,1,happy,2"], "file,subject,session,label,start")
    with pytest.raises(SourceError, match="only one of the columns start and stop"):
        LabelledFolder(root)


def test_a_stretch_beyond_the_end_costs_that_file_only(root, tmp_path):
    export(root / "a.edf", signal())
    export(root / "b.edf", signal(1))
    stretches(root, "a.edf,1,1,happy,0,9,1,x", "b.edf,2,1,sad,0,8,2,x", "a.edf,1,1,sad,12,21,3,x")
    source = LabelledFolder(root)
    with pytest.raises(RecordingError, match=r"lasts 20 s, but line 4 of labels\.csv ends at 21 s"):
        source.check(source.recordings[0])
    assert list(write_windows(source, tmp_path / "windows", n_jobs=1)) == ["a.edf"]


# --- channels


def test_channels_that_the_file_calls_bad_are_repaired(root, tmp_path):
    names = [name for name in NAMES if name != "HEOG"]
    raw = raw_of(signal(n=10), names)
    raw.info["bads"] = ["O1"]
    raw.save(root / "a_raw.fif", verbose="error")
    raw_of(signal(1, 10), names).save(root / "b_raw.fif", verbose="error")
    table(root, ["a_raw.fif,1,1,rest", "b_raw.fif,1,2,task"])
    source = LabelledFolder(root)
    assert next(source.trials(source.recordings[0])).bads == ("O1",)
    write_windows(source, tmp_path / "windows", PreprocessParams(lof_threshold=50), n_jobs=1)
    index = Windows.open(tmp_path / "windows").index
    assert index.groupby("clip")["bad_channels"].unique().map(list).tolist() == [["O1"], [""]]


def test_channels_with_positions_and_names_of_their_own(root, tmp_path):
    """A net whose channels are numbered is placed by measured positions, and the record says so."""
    real = ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Cz"]
    raw = raw_of(signal(n=11), real, positions=True)
    raw.rename_channels({name: f"E{i}" for i, name in enumerate(real, start=1) if name != "Cz"})
    raw.save(root / "a_raw.fif", verbose="error")
    raw_of(signal(1, 11), real).save(root / "b_raw.fif", verbose="error")
    table(root, ["a_raw.fif,1,1,rest", "b_raw.fif,2,1,task"])
    source = LabelledFolder(root)
    assert source.check(source.recordings[0]) == [name.upper() for name in real]
    write_windows(source, tmp_path / "windows", n_jobs=1)
    facts = Windows.open(tmp_path / "windows").channel_facts
    assert list(facts["by_position"]) == ["a_raw.fif"] and facts["by_position"]["a_raw.fif"]["E1"][0] == "FP1"
    assert max(mm for _, mm in facts["by_position"]["a_raw.fif"].values()) <= 15
    strict = LabelledFolder(root, within_mm=0.0)
    assert strict.check(strict.recordings[0]) == ["CZ"] and len(strict.matches["a_raw.fif"].unplaced) == 10


def test_bipolar_recordings_are_refused(root):
    names = ["Fp1-F7", "F7-T3", "T3-T5", "EEG O1-A1"]
    raw_of(signal(n=4), names).save(root / "a_raw.fif", verbose="error")
    raw_of(signal(n=4)[:3], names[:3]).save(root / "b_raw.fif", verbose="error")
    table(root, ["a_raw.fif,1,1,rest", "b_raw.fif,2,1,task"])
    source = LabelledFolder(root)
    assert source.check(source.recordings[0]) == ["O1"]  # against an earlobe: referential
    assert source.matches["a_raw.fif"].bipolar == ("Fp1-F7", "F7-T3", "T3-T5")
    with pytest.raises(RecordingError, match=r"has bipolar derivations only \(Fp1-F7, F7-T3, T3-T5\)"):
        source.check(source.recordings[1])


# --- lacking channels


@pytest.fixture
def uneven(root) -> Path:
    """Three recordings, one without O1 and Pz."""
    names = [name for name in NAMES if name != "HEOG"]
    for i, file in enumerate(("a", "b", "c")):
        data = signal(i, 10)
        keep = [j for j, name in enumerate(names) if file != "c" or name not in ("O1", "Pz")]
        raw_of(data[keep], [names[j] for j in keep]).save(root / f"{file}_raw.fif", verbose="error")
    table(root, ["a_raw.fif,1,1,rest", "b_raw.fif,2,1,task", "c_raw.fif,3,1,rest"])
    return root


def windows_of(root: Path, folder: Path, **params) -> Windows:
    shutil.rmtree(folder, ignore_errors=True)
    assert write_windows(LabelledFolder(root), folder, PreprocessParams(lof_threshold=50, **params), n_jobs=1) == {}
    return Windows.open(folder)


def test_lacking_channels_are_left_out_or_made_up_and_said(uneven, tmp_path):
    masked = windows_of(uneven, tmp_path / "w")
    assert masked.channel_facts == {"missing": "masked", "left_out": ["O1", "PZ"], "interpolated": {},
                                    "by_position": {}}
    assert not {"O1", "PZ"} & set(masked.ch_names) and len(masked.ch_names) == 8
    made = windows_of(uneven, tmp_path / "v", missing="interpolated")
    assert made.channel_facts["interpolated"] == {"c_raw.fif": ["PZ", "O1"]} and made.channel_facts["left_out"] == []
    assert len(made.ch_names) == 10
    third = (made.index["subject"] == "3").to_numpy()
    np.testing.assert_allclose(made.data.mean(axis=1), 0, atol=1e-3)  # the average reference is over all of them
    assert made.data[third][:, made.ch_names.index("O1")].std() > 1
    whole = windows_of(uneven, tmp_path / "x", wanted=("FP1", "FP2", "F3", "F4", "O1", "Pz", "CPz"),
                       missing="interpolated")
    assert whole.channel_facts["interpolated"] == {"a_raw.fif": ["CPZ"], "b_raw.fif": ["CPZ"],
                                                   "c_raw.fif": ["CPZ", "PZ", "O1"]}
    assert whole.ch_names == ["FP1", "FP2", "F3", "F4", "CPZ", "PZ", "O1"]


def test_interpolation_is_mnes_spherical_spline(uneven, tmp_path):
    """Before the average reference, a lacking channel is what MNE makes of the others."""
    made = windows_of(uneven, tmp_path / "v", missing="interpolated")
    raw = mne.io.read_raw_fif(uneven / "c_raw.fif", preload=True, verbose="error")
    raw.rename_channels({"T3": "T7", "T4": "T8"}).filter(0.5, 45.0, h_trans_bandwidth=5.0, verbose="error")
    extra = mne.io.RawArray(np.zeros((2, raw.n_times)), mne.create_info(["O1", "Pz"], SFREQ, "eeg"), verbose="error")
    raw.add_channels([extra], force_update_info=True).set_montage("colin27_1005", match_case=False, verbose="error")
    raw.info["bads"] = ["O1", "Pz"]
    raw.interpolate_bads(verbose="error").set_eeg_reference("average", projection=False, verbose="error")
    third = made.data[(made.index["subject"] == "3").to_numpy()]
    for name in ("O1", "Pz", "Cz"):
        ours = np.concatenate(third[:, made.ch_names.index(name.upper())])
        np.testing.assert_allclose(ours, raw.get_data(picks=[name], units="uV")[0][: len(ours)], atol=0.02)


def test_wanted_channels_that_nobody_could_have(uneven):
    with pytest.raises(ValueError, match="No scalp position is known for the wanted channels ECG"):
        PreprocessParams(wanted=("Cz", "ECG"))
    with pytest.raises(ValueError, match=r"missing = 'guess'.*masked or interpolated"):
        PreprocessParams(missing="guess")


def test_a_recording_that_lacks_most_of_what_is_wanted(uneven, tmp_path):
    wanted = ("O1", "Pz", "P3", "P4", "Oz")
    with pytest.raises(SourceError, match="lacks most of the wanted channels"):
        write_windows(LabelledFolder(uneven), tmp_path / "w", PreprocessParams(wanted=wanted, missing="interpolated"),
                      n_jobs=1)
    assert not (tmp_path / "w").exists()
