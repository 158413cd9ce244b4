"""Files that were cut off or have a flipped bit: the recording is named and left out, or is used; the others go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile import DAMAGES, PLACES, QUICK, contents, flipped, is_one_sentence, refused, the_kit_says, truncated
from hypothesis import given
from hypothesis import strategies as st
from recordings import brain, four_files, write_edf, write_table
from safetensors.numpy import save_file
from scipy.io import savemat

from e2llm.app.records import read_record
from e2llm.core.files import read_json
from e2llm.data.checkup import check_folder
from e2llm.data.new_subject import PopulationStatistics
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.edf_header import read_edf_header
from e2llm.data.sources.faced import read_pickled_array
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.data.sources.tables import read_table
from e2llm.models.eegpt_weights import read_checkpoint

STIMULI = "emotion_label_and_stimuli_order.xlsx"


def read_all(source, recording) -> str:
    """Every trial of a recording with its signal; the reason if it cannot be used."""
    try:
        source.check(recording)
        for trial in source.trials(recording):
            assert np.isfinite(np.asarray(trial.signal)).all()
    except RecordingError as error:
        the_kit_says(error)
        return str(error)
    return ""


# --- .mat


@pytest.fixture(scope="module")
def shared_twin(tiny_twin, tmp_path_factory) -> Path:
    """A copy of the tiny twin in which one file at a time is damaged and put right again."""
    return Path(shutil.copytree(tiny_twin, tmp_path_factory.mktemp("mat") / "SEED-VII"))


@pytest.fixture(scope="module")
def source_of_twin(shared_twin) -> SeedVII:
    """Opened while all of its files are whole."""
    return SeedVII(shared_twin)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["EEG_preprocessed/1.mat", "continuous_labels/1.mat"])
def test_a_damaged_mat_concerns_its_subject_alone(shared_twin, name, damage, place, seed):
    path = shared_twin / name
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole, place, seed))
    try:
        before, source = contents(shared_twin), SeedVII(shared_twin)
        if reason := read_all(source, source.recordings[0]):
            is_one_sentence(reason, str(path))
        assert damage == "flipped" or reason
        assert not read_all(source, source.recordings[1])
        assert contents(shared_twin) == before
    finally:
        path.write_bytes(whole)


@QUICK
@given(st.integers(0, 2**20), st.integers(0, 7))
def test_any_bit_of_the_header_of_a_mat(shared_twin, source_of_twin, at, bit):
    path, source = shared_twin / "EEG_preprocessed" / "1.mat", source_of_twin
    whole = path.read_bytes()
    at %= 400
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
    try:
        read_all(source, source.recordings[0])
        assert not read_all(source, source.recordings[1])
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("key", ["²", "٣", "1" * 30, "-1", "0", "81", "__class__"])
def test_a_mat_with_names_that_are_no_clips(own_twin, key):
    path = own_twin / "EEG_preprocessed" / "1.mat"
    clip = {"1": np.ones((62, 1700)), "2": np.ones((62, 1700))}
    savemat(path, clip)
    content = path.read_bytes()
    named = key.encode("latin-1", "replace")[:30]
    savemat(path, {**clip, "x" * len(named): np.ones((62, 1700))})
    path.write_bytes(path.read_bytes().replace(b"x" * len(named), named))
    assert path.read_bytes() != content
    source = SeedVII(own_twin)
    read_all(source, source.recordings[0])
    assert not read_all(source, source.recordings[1])


@pytest.mark.parametrize("name", ["²", "1_2", " 3", "1" * 30])
def test_a_file_whose_name_is_no_number_is_no_subject(own_twin, name):
    shutil.copy(own_twin / "EEG_preprocessed" / "1.mat", own_twin / "EEG_preprocessed" / f"{name}.mat")
    assert [one.subject for one in SeedVII(own_twin).recordings] == ["1", "2", "3"]


def test_a_table_of_movies_with_a_name_of_another_form_is_named(own_twin):
    (table,) = (own_twin / "save_info").glob("1_*_save_info.csv")
    shutil.copy(table, table.with_name("1_x_y_save_info.csv"))
    source = SeedVII(own_twin)
    assert "1_x_y_save_info.csv" in read_all(source, source.recordings[0])
    assert not read_all(source, source.recordings[1])


# --- .edf


@pytest.fixture(scope="module")
def edf_folder(tmp_path_factory) -> Path:
    return four_files(tmp_path_factory.mktemp("edf") / "mine")


def with_damaged_edf(root: Path, content: bytes) -> str:
    """Reason why a.edf with this content is left out; empty if it is used."""
    path = root / "a.edf"
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        read_edf_header.__globals__["_read"].cache_clear()
        before, source = contents(root), LabelledFolder(root)
        reason = read_all(source, source.recordings[0])
        assert not reason or str(path) in reason, reason
        assert not read_all(source, source.recordings[1]) and contents(root) == before
        return reason
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_edf_concerns_itself_alone(edf_folder, damage, place, seed):
    with_damaged_edf(edf_folder, DAMAGES[damage]((edf_folder / "a.edf").read_bytes(), place, seed))


@QUICK
@given(st.integers(0, 256 * 11 - 1), st.sampled_from([0, 45, 46, 48, 57, 32, 255, 110]))
def test_any_byte_of_the_header_of_an_edf(edf_folder, at, value):
    content = (edf_folder / "a.edf").read_bytes()
    with_damaged_edf(edf_folder, content[:at] + bytes([value]) + content[at + 1 :])


FIELDS = {"header bytes": (184, 8), "records": (236, 8), "seconds a record": (244, 8), "signals": (252, 4)}


@pytest.mark.parametrize("text", ["-1", "0", "nan", "inf", "1e9", "99999999", "", "\0\0\0\0", "²"])
@pytest.mark.parametrize("field", FIELDS)
def test_absurd_numbers_in_the_header_of_an_edf(edf_folder, field, text):
    (at, width), content = FIELDS[field], (edf_folder / "a.edf").read_bytes()
    with_damaged_edf(edf_folder, content[:at] + text.encode("latin-1")[:width].ljust(width) + content[at + width :])


@pytest.mark.parametrize("text", ["-1", "0", "nan", "99999999", ""])
@pytest.mark.parametrize("field", range(8))
def test_absurd_numbers_of_a_signal_of_an_edf(edf_folder, field, text):
    """Ranges, filters and samples of the first channel: fields 104, 112, 120, 128, 136 and 216 of its header."""
    content = (edf_folder / "a.edf").read_bytes()
    at = 256 + int(content[252:256]) * (0, 96, 104, 112, 120, 128, 136, 216)[field]
    with_damaged_edf(edf_folder, content[:at] + text.encode().ljust(8) + content[at + 8 :])


@pytest.mark.parametrize("at", [184, 236, 244, 252])
def test_a_discontinuous_edf_whose_header_lies(tmp_path, at):
    root = four_files(tmp_path / "mine", notes=[(1.0, 1.0, "x")])
    content = (root / "a.edf").read_bytes()
    width = 4 if at == 252 else 8
    content = content[:192] + b"EDF+D" + content[197:at] + b"-768".ljust(width) + content[at + width :]
    with_damaged_edf(root, content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_other_recordings_become_windows(tmp_path, damage):
    root = four_files(tmp_path / "mine")
    path = root / "a.edf"
    path.write_bytes(DAMAGES[damage](path.read_bytes(), "header", 1 if damage == "truncated" else 11))
    before = contents(root)
    if damage == "flipped":
        path.write_bytes(path.read_bytes().replace(b"Fp1 ", b"F\xff1 ", 1))
        before = contents(root)
    skipped = write_windows(LabelledFolder(root), tmp_path / "windows", n_jobs=1)
    assert set(skipped) <= {"a.edf"} and {"2", "3", "4"} <= set(Windows.open(tmp_path / "windows").index["subject"])
    assert contents(root) == before
    assert damage == "flipped" or not check_folder(root, n_jobs=1).ok


# --- spreadsheets and tables


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_spreadsheet_of_labels_is_named(edf_folder, tmp_path, damage, place, seed):
    path = tmp_path / "labels.xlsx"
    pd.read_csv(edf_folder / "labels.csv").to_excel(path, index=False)
    path.write_bytes(DAMAGES[damage](path.read_bytes(), place, seed))
    try:
        table = read_table(path)
    except SourceError as error:
        the_kit_says(error, str(path))
    else:
        assert damage == "flipped" and len(table) == 4


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("place", PLACES)
def test_a_damaged_stimuli_order_is_named(own_twin, place, seed):
    path = own_twin / STIMULI
    path.write_bytes(truncated(path.read_bytes(), place, seed))
    with refused(str(path), "copy it again"):
        SeedVII(own_twin)


@pytest.mark.parametrize("content", [
    b"file,subject\n\xff\xfe\xfd,\x81\x8d\x8f\n", b"\xff\xfe" + b"a" * 7, b'file,"subject\n' * 3, b"\x00" * 500,
    b"file,subject\n" + b"x" * 200_000 + b",1\n", b"a" * 300_000, b"PK\x03\x04" + bytes(60),
])
def test_tables_of_garbage_are_named(tmp_path, content):
    for name in ("labels.csv", "labels.xlsx"):
        (tmp_path / name).write_bytes(content)
        try:
            read_table(tmp_path / name)
        except SourceError as error:
            the_kit_says(error, name)
        else:
            assert name == "labels.csv"


# --- .npy, .pkl, .safetensors, .json


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["data.npy", "data.power.npy", "channels.json", "index.csv"])
def test_windows_that_were_cut_off_are_named(windows, made_once, tmp_path, place, name):
    folder = Path(shutil.copytree(Path(windows.data.filename).parent, tmp_path / "windows"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(truncated(content, place, 0))
    if name == "index.csv" and place == "end":
        return  # a shorter table is a table; the run compares its checksum
    with refused(str(folder)):
        Windows.open(folder)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_statistics_of_a_shared_model_are_named(tmp_path, damage, place, seed):
    path = tmp_path / "statistics.safetensors"
    rng = np.random.default_rng(0)
    PopulationStatistics(*(rng.normal(size=(2, 5)).astype(np.float32) for _ in range(3))).save(path)
    path.write_bytes(DAMAGES[damage](path.read_bytes(), place, seed))
    try:
        PopulationStatistics.open(path)
    except ValueError as error:
        the_kit_says(error, str(path))
    else:
        assert damage == "flipped"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_of_an_encoder_are_named(tmp_path, damage, place, seed):
    path = tmp_path / "weights.safetensors"
    save_file({"chan_embed.weight": np.ones((4, 8), np.float32)}, path, {"channel_rows": json.dumps(["FZ"] * 4)})
    path.write_bytes(DAMAGES[damage](path.read_bytes(), place, seed))
    try:
        read_checkpoint(path)
    except ValueError as error:
        the_kit_says(error, str(path))
    else:
        assert damage == "flipped"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pickles_of_faced_are_named(tmp_path, damage, seed):
    import pickle

    path = tmp_path / "sub000.pkl"
    path.write_bytes(DAMAGES[damage](pickle.dumps(np.ones((3, 4))), PLACES[seed % 3], seed))
    try:
        assert read_pickled_array(path).dtype.kind in "fiu"
    except RecordingError as error:
        the_kit_says(error, str(path))


RECORD = {"stage": "windows", "key": "k", "params": {}, "inputs": {}, "needs": {}, "metrics": {}, "facts": {},
          "versions": {}, "files": {"data.npy": {"sha256": "0" * 64, "size": 4}}}  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_of_a_stage_is_named(tmp_path, damage, seed):
    path = tmp_path / "stage.json"
    path.write_bytes(DAMAGES[damage](json.dumps(RECORD, indent=1).encode(), PLACES[seed % 3], seed))
    try:
        read_record(path)
    except ValueError as error:
        the_kit_says(error, str(path), "remove the folder")
    else:
        assert damage == "flipped"


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 100_000, b"[" * 5000 + b"]" * 5000, b"1" * 10_000,
                                     b"\xed\xa0\x80", b'{"a": 1}{"a": 1}', b"\x00", b"1e999999999999"])
def test_json_without_end_or_sense_is_named(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    if content == b"1e999999999999":
        assert read_json(path) == float("inf")
        return
    with refused(str(path), "is not JSON"):
        read_json(path)


def test_one_damaged_file_of_each_kind_among_good_ones(tmp_path):
    """What cannot be a recording at all stands in the table: it is skipped with a reason, the others are used."""
    root = tmp_path / "mine"
    whole = write_edf(root / "a.edf", brain(8.0)).read_bytes()
    bad = {"b.edf": truncated(whole, "header", 2), "c.npy": b"\x93NUMPY\x01\x00", "d.mat": b"MATLAB 5.0 MAT-file",
           "e.json": b"[" * 5000, "f.safetensors": b"\xff" * 40, "g.xlsx": b"PK\x03\x04",
           "h.set": flipped(whole, "header", 1),
           "i.fif": b"\x00" * 40, "j.gdf": b"GDF 2.20" + bytes(10), "k.vhdr": b"\xff\xfe", "l.bdf": b"\xffBIOSEMI"}
    for name, content in bad.items():
        (root / name).write_bytes(content)
    for name in "xyz":
        write_edf(root / f"{name}.edf", brain(24.0, seed=ord(name)))
    write_table(root, [*bad, "x.edf", "y.edf", "z.edf"])
    before = contents(root)
    skipped = write_windows(LabelledFolder(root), tmp_path / "windows", n_jobs=1)
    assert set(skipped) == set(bad)
    for name, reason in skipped.items():
        is_one_sentence(reason, name)
    assert len(set(Windows.open(tmp_path / "windows").index["subject"])) == 3 and contents(root) == before
