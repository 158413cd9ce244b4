"""Files that MNE cannot read, or reads only with help: the reason is its own, and advice is certain or not given."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import mne
import numpy as np
import pytest
from recordings import CAP, brain, patch, raw_of, write_edf, write_table
from scipy.io import savemat

from e2llm.data.new_subject import read_windows
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.sources.base import RecordingError, open_raw, place_channels
from e2llm.data.sources.folder import LabelledFolder


def why(path: Path) -> str:
    with pytest.raises(RecordingError) as caught:
        open_raw(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.endswith("."), message
    return message


@pytest.mark.parametrize("text", ["Schläfrig", "ärgerlich ½", "né(e)"])
def test_annotations_in_latin_1(tmp_path, text):
    path = write_edf(tmp_path / "a.edf", brain(), notes=[(3.0, 2.0, "X" * 20)])
    content = path.read_bytes()
    assert content.count(b"X" * 20) == 1
    path.write_bytes(content.replace(b"X" * 20, text.encode("latin-1").ljust(20, b"x")))
    raw = open_raw(path)
    assert raw.n_times == 24 * 128 and raw.annotations.description[0].startswith(text)
    np.testing.assert_allclose(raw.get_data(units="uV")[:10], brain(), atol=0.02)


# --- folders that are recordings


@pytest.mark.parametrize("name", ["a.mff", "a.ds", "plain"])
def test_a_folder_is_there_and_mne_says_what_it_lacks(tmp_path, name):
    root = tmp_path / "mine"
    write_edf(root / "b.edf", brain())
    (root / name).mkdir()
    write_table(root, [name, "b.edf"])
    source = LabelledFolder(root)  # not "which are not in"
    message = why(root / name)
    assert "missing" not in message and "not there" not in message
    with pytest.raises(RecordingError, match=re.escape(str(root / name))):
        source.check(source.recordings[0])
    with pytest.raises(RecordingError, match="cannot be read by MNE"):
        read_windows([root / name], ["FP1"], PreprocessParams(), "population")


# --- BrainVision


@pytest.fixture
def vision(tmp_path) -> Path:
    mne.export.export_raw(tmp_path / "a.vhdr", raw_of(brain()), verbose="error")
    return tmp_path / "a.vhdr"


@pytest.mark.parametrize("line", ["MarkerFile=", "MarkerFile =  ", "MarkerFile=\t"])
def test_an_empty_marker_file_is_none(vision, line):
    text = vision.read_text("utf-8")
    vision.write_text(text.replace("MarkerFile=a.vmrk", line), "utf-8")
    assert open_raw(vision).n_times == 24 * 128


def test_an_empty_data_file_is_named(vision):
    text = vision.read_text("utf-8")
    vision.write_text(text.replace("DataFile=a.eeg", "DataFile="), "utf-8")
    assert "names no DataFile" in why(vision)


def test_a_unit_that_mne_does_not_take_for_eeg_is_named(vision):
    text = vision.read_text("utf-8")
    assert "µV" in text
    vision.write_text(text.replace("µV", "\u03bcV"), "utf-8")
    raw = open_raw(vision)
    try:
        assert list(place_channels(raw, vision).places) == list(CAP)  # newer versions of MNE read it
    except RecordingError as error:
        assert re.search("in [\u00b5\u03bc]V", str(error)) and str(vision) in str(error)


def test_samples_given_for_their_header(vision):
    assert "give its header a.vhdr" in why(vision.with_suffix(".eeg"))


# --- formats that are recognized, and no others


def test_deap_and_other_dat_files(tmp_path):
    path = tmp_path / "s01.dat"
    path.write_bytes(pickle.dumps({"data": [1]}))
    assert "It is a pickle, as DEAP distributes it" in why(path) and "Curry" not in why(path)
    path.write_bytes(b"1 2 3\n")
    assert "No file beside it says" in why(path)
    (tmp_path / "s01.dap").write_text("x")
    assert "A Curry recording is a .dat" in why(path)


def test_mat_files_and_arrays(tmp_path):
    savemat(tmp_path / "a.mat", {"x": np.ones(3)})
    assert "no layout that is known" in why(tmp_path / "a.mat")
    np.save(tmp_path / "a.npy", np.ones(3))
    assert "neither names nor rate" in why(tmp_path / "a.npy")


@pytest.mark.parametrize("begin", [b"MATLAB 7.3 MAT-file, Platform: PCWIN64", b"\x89HDF\r\n\x1a\n"])
def test_a_set_of_matlab_7_3(tmp_path, begin):
    (tmp_path / "a.set").write_bytes(begin.ljust(600, b"\0"))
    message = why(tmp_path / "a.set")
    assert "saved as MATLAB 7.3" in message and ".fdt" not in message


@pytest.mark.parametrize("name", ["a.edf", "a.bdf", "a.fif", "a.set"])
def test_garbage_has_no_advice_that_is_not_certain(tmp_path, name):
    (tmp_path / name).write_bytes(b"garbage" * 100)
    message = why(tmp_path / name)
    assert ".fdt" not in message and "Curry" not in message and "BrainVision" not in message


def test_a_file_that_is_not_there(tmp_path):
    assert "It is not there" in why(tmp_path / "nowhere.edf")


# --- caps


def test_a_cap_that_numbers_its_channels_by_itself_is_refused(tmp_path):
    names = [f"{letter}{i}" for letter in "ABC" for i in range(1, 11)]
    path = write_edf(tmp_path / "a.edf", brain(n=30), names)
    with pytest.raises(RecordingError, match=r"numbers its channels by itself: C1, C2, C3.*rename all channels"):
        place_channels(open_raw(path), path)


def test_channels_that_stand_twice_are_refused(tmp_path):
    path = write_edf(tmp_path / "a.edf", brain())
    for place in (1, 3):  # Fp2 and F4 become Fp1
        patch(path, 256 + 16 * place, "Fp1", 16)
    with pytest.raises(RecordingError, match=r"more than one channel at FP1"):
        place_channels(open_raw(path), path)
