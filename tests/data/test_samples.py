"""Tables of samples: what they say is taken, what they do not say has to be given, and nothing is guessed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recordings import CAP, brain, write_edf, write_table
from sample_tables import EPOC, MUSE, write_emotiv, write_muse, write_older_emotiv, write_openbci, write_plain

from e2llm.data.checkup import check_folder
from e2llm.data.new_subject import read_windows
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources import open_source, table_options
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.samples import TableOptions, holds_samples, open_recording

SITES = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")
OPENBCI = tuple(f"EXG Channel {i}={site}" for i, site in enumerate(SITES))
MICROVOLTS = TableOptions(250.0, "uV")


def read(path: Path, sfreq: float | None = None, unit: str = "", columns=()) -> tuple[list[str], float, np.ndarray]:
    raw = open_recording(path, TableOptions(sfreq, unit, tuple(columns)))
    return raw.ch_names, raw.info["sfreq"], raw.get_data(units="uV")


def why(path: Path, **options) -> str:
    with pytest.raises(RecordingError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and message.endswith("."), message
    return message


# --- programs


def test_emotiv(tmp_path):
    data = brain(8, n=14)
    names, sfreq, signal = read(write_emotiv(tmp_path / "a.csv", data))
    assert tuple(names) == EPOC and sfreq == 128
    np.testing.assert_allclose(signal - 4200, data, atol=1e-3)


def test_older_emotiv_needs_a_unit(tmp_path):
    data = brain(8, n=14)
    path = write_older_emotiv(tmp_path / "a.csv", data)
    assert "does not say the unit" in why(path)  # its unit 'emotiv' is none
    names, sfreq, signal = read(path, unit="uV")
    assert tuple(names) == EPOC and sfreq == 128
    np.testing.assert_allclose(signal - 4200, data, atol=1e-3)


def test_openbci_needs_sites(tmp_path):
    data = brain(8, sfreq=250, n=8)
    path = write_openbci(tmp_path / "a.txt", data)
    assert 'name them, as in columns="EXG Channel 0=Fp1' in why(path)
    names, sfreq, signal = read(path, columns=OPENBCI)
    assert tuple(names) == SITES and sfreq == 250
    np.testing.assert_allclose(signal + 15000, data, atol=2e-3)
    some, _, part = read(path, columns=["EXG Channel 7=O2", "2=Fp1"])  # a number counts columns from 1
    assert some == ["O2", "Fp1"]
    np.testing.assert_array_equal(part, signal[[7, 0]])


def test_muse_has_lines_of_events_and_packets_that_come_late(tmp_path):
    data = brain(20, sfreq=256, n=4)
    path = write_muse(tmp_path / "a.csv", data)
    raw = open_recording(path)
    assert tuple(raw.ch_names) == MUSE and raw.info["sfreq"] == 256
    assert raw.notes == ("its rate of 256 Hz is measured from the column TimeStamp",)
    np.testing.assert_allclose(raw.get_data(units="uV") - 800, data, atol=1e-3)
    assert open_recording(path, TableOptions(sfreq=256)).notes == ()


# --- plain tables


@pytest.mark.parametrize("kind", [
    dict(), dict(separator=";", decimal=","), dict(separator="\t"), dict(separator=" "), dict(encoding="utf-16"),
    dict(encoding="utf-8-sig"), dict(separator="\t", decimal=","), dict(separator="|"),
])
def test_any_way_to_save_a_table(tmp_path, kind):
    data = brain(2)
    names, sfreq, signal = read(write_plain(tmp_path / "a.csv", data, CAP, **kind), 128, "uV")
    assert tuple(names) == CAP and sfreq == 128
    np.testing.assert_allclose(signal, data, atol=1e-4)


@pytest.mark.parametrize(("unit", "given", "factor"), [
    ("(uV)", "", 1), ("[µV]", "", 1), ("(\u03bcV)", "", 1), ("(mV)", "", 1e3), ("[V]", "", 1e6), ("", "mV", 1e3),
    ("", "microvolts", 1), ("", "V", 1e6), ("(uv)", "uV", 1),
])
def test_units(tmp_path, unit, given, factor):
    data = brain(2)
    path = write_plain(tmp_path / "a.csv", data, [f"{name} {unit}" for name in CAP])
    names, _, signal = read(path, 128, given)
    assert tuple(names) == CAP
    np.testing.assert_allclose(signal, factor * data, rtol=1e-4, atol=1e-4 * factor)


@pytest.mark.parametrize(("head", "sfreq"), [
    ("# sampling rate: 200", 200), ("#sfreq=250.0 Hz", 250), ("% Sample frequency = 512", 512),
    ("fs:128,units:uV", 128),
])
def test_a_rate_in_the_header(tmp_path, head, sfreq):
    path = write_plain(tmp_path / "a.csv", brain(2), CAP, head=head)
    assert read(path, unit="uV")[1] == sfreq
    assert read(path, sfreq, "uV")[1] == sfreq
    assert f"says {sfreq} Hz, but sfreq is 100" in why(path, sfreq=100, unit="uV")


def test_a_time_that_names_the_rate(tmp_path):
    path = write_plain(tmp_path / "a.csv", brain(2), CAP, times=np.arange(256) / 128, time_name="Time:128Hz")
    assert read(path, unit="uV")[1] == 128 and open_recording(path, TableOptions(unit="uV")).notes == ()


@pytest.mark.parametrize(("name", "factor"), [
    ("time", 1), ("t", 1e3), ("Time (ms)", 1e3), ("timestamps", 1e6), ("Time [s]", 1), ("timestamp", 1e9),
])
@pytest.mark.parametrize("sfreq", [128.0, 250.0, 1000.0])
def test_a_clock_in_any_unit_gives_the_rate(tmp_path, name, factor, sfreq):
    times = 3.5 * factor + np.arange(512) / sfreq * factor
    path = write_plain(tmp_path / "a.csv", brain(4), CAP, times=times, time_name=name)
    assert read(path, unit="uV")[1] == sfreq


def test_a_rate_that_is_no_whole_number_is_kept(tmp_path):
    path = write_plain(tmp_path / "a.csv", brain(4), CAP, times=np.arange(512) / 102.4)
    assert read(path, unit="uV")[1] == 102.4


def test_no_names(tmp_path):
    data = brain(2)
    path = write_plain(tmp_path / "a.txt", data, [])
    assert "10 columns without names" in why(path, sfreq=128, unit="uV")
    names, _, signal = read(path, 128, "uV", ["2=Fp2", "10=O2"])
    assert names == ["Fp2", "O2"]
    np.testing.assert_allclose(signal, data[[1, 9]], atol=1e-4)
    assert "does not name its columns" in why(path, sfreq=128, unit="uV", columns=["2"])


# --- what is not understood


@pytest.mark.parametrize(("text", "options", "fact"), [
    ("Fp1,Fp2\n1,2\n3,4\n", dict(sfreq=128), "does not say the unit"),
    ("Fp1,Fp2\n1,2\n3,4\n", dict(unit="uV"), "says no sampling rate and has no column of times"),
    ("a,b\n1,2\n3,4\n", dict(sfreq=128, unit="uV"), "no column with a known 10-05 name (has a, b)"),
    ("hello\nworld\n", dict(sfreq=128, unit="uV"), "holds no line of numbers"),
    ("", dict(sfreq=128, unit="uV"), "holds no line of numbers"),
    ("Fp1,1,2,3\nFp2,4,5,6\n", dict(sfreq=128, unit="uV"), "has one row a channel"),
    ("file,subject,session,label\na.edf,1,1,1\n", dict(sfreq=128, unit="uV"), "is a table of labels"),
    ("Fp1 (uV),Fp2 (mV)\n1,2\n3,4\n", dict(sfreq=128), "more than one unit (mV, uV)"),
    ("Fp1 (uV),Fp2 (uV)\n1,2\n3,4\n", dict(sfreq=128, unit="mV"), "more than one unit (mV, uV)"),
    ("Fp1,Fp2\n1,2\n", dict(sfreq=128, unit="uV"), "has 1 lines of samples"),
    ("Fp1,Fp2\n1,2\n3,x\n", dict(sfreq=128, unit="uV"), "a cell is not what its column is"),
    ("Fp1,Fp2\n1,2\n3,4\n", dict(sfreq=128, unit="uV", columns=["Fz"]), "has no columns 'Fz'"),
    ("Fp1,Fp2\n1,2\n3,4\n", dict(sfreq=128, unit="uV", columns=["3"]), "has no columns '3'"),
    ("t,Fp1\n5,2\n4,4\n3,4\n", dict(unit="uV"), "do not rise"),
    ("t,Fp1\na,2\nb,4\n", dict(unit="uV"), "a cell is not what its column is"),
])
def test_refusals(tmp_path, text, options, fact):
    (tmp_path / "a.csv").write_text(text)
    assert fact in why(tmp_path / "a.csv", **options)


@pytest.mark.parametrize(("options", "fact"), [
    (dict(unit="uA"), "unit=uA is unknown"), (dict(sfreq=0.0), "sfreq=0 is no rate"),
    (dict(sfreq=float("nan")), "sfreq ?= ?nan is"),
])
def test_options_that_cannot_be(tmp_path, options, fact):
    with pytest.raises(RecordingError, match=fact):
        TableOptions(**options)
    write_plain(tmp_path / "a.csv", brain(2), CAP)
    write_plain(tmp_path / "b.csv", brain(2), CAP)
    write_table(tmp_path, ["a.csv", "b.csv"])
    with pytest.raises(SourceError, match=fact):
        open_source("folder", tmp_path, **options)


def test_a_table_that_is_too_large(tmp_path):
    path = write_plain(tmp_path / "a.csv", brain(2), CAP)
    with path.open("r+b") as file:
        file.truncate(2**31)  # no space is taken
    assert "too much to read as a table" in why(path, sfreq=128, unit="uV")


def test_a_clock_of_another_rate(tmp_path):
    path = write_plain(tmp_path / "a.csv", brain(4), CAP, times=np.arange(512) / 250)
    assert "column time shows 250 samples a second, but sfreq says 128 Hz" in why(path, sfreq=128, unit="uV")
    emotiv = write_emotiv(tmp_path / "b.csv", brain(4, n=14))
    emotiv.write_text(emotiv.read_text().replace("eeg_128", "eeg_256"))
    assert "shows 128 samples a second, but its header says 256 Hz" in why(emotiv)


@pytest.mark.parametrize("seconds", [0.6, 3.0, -3.0])
def test_a_gap_of_the_clock(tmp_path, seconds):
    times = np.arange(20 * 128) / 128
    times[1000:] += seconds
    path = write_plain(tmp_path / "a.csv", brain(20), CAP, times=times)
    assert re.search(rf"jump by {abs(seconds):g} s at line 1002, 7.8\d* s of samples", why(path, unit="uV"))


def test_lost_samples_show_in_the_clock(tmp_path):
    path = write_openbci(tmp_path / "a.txt", brain(20, sfreq=250, n=8), lost=slice(1000, 1500))
    assert "column Timestamp jump by 2 s at line 1006" in why(path, columns=OPENBCI)


def test_a_clock_that_comes_late_is_no_gap(tmp_path):
    rng = np.random.default_rng(0)
    times = np.maximum.accumulate(np.arange(20 * 128) / 128 + np.repeat(rng.uniform(0, 0.4, 40), 64))
    path = write_plain(tmp_path / "a.csv", brain(20), CAP, times=times)
    assert abs(read(path, unit="uV")[1] / 128 - 1) < 0.01


# --- as recordings of a folder, of check and of ask


def four_tables(root: Path, scale: float = 1.0) -> Path:
    for seed, name in enumerate("abcd"):
        write_plain(root / f"{name}.csv", scale * brain(seed=seed), CAP)
    write_table(root, [f"{name}.csv" for name in "abcd"])
    return root


def test_a_folder_of_tables_equals_one_of_edf(tmp_path):
    tables = four_tables(tmp_path / "tables")
    for seed, name in enumerate("abcd"):
        write_edf(tmp_path / "edf" / f"{name}.edf", brain(seed=seed))
    write_table(tmp_path / "edf", [f"{name}.edf" for name in "abcd"])
    made = {}
    for name, options in (("tables", dict(sfreq=128, unit="uV")), ("edf", {})):
        source = open_source("folder", tmp_path / name, **options)
        assert write_windows(source, tmp_path / f"{name}-windows", n_jobs=1) == {}
        made[name] = Windows.open(tmp_path / f"{name}-windows")
    assert tables.is_dir() and len(made["tables"]) == len(made["edf"]) == 24
    np.testing.assert_allclose(made["tables"].data, made["edf"].data, atol=0.1)


def test_check_takes_options_and_judges_the_unit(tmp_path):
    root = four_tables(tmp_path / "mine")
    good = check_folder(root, n_jobs=1, sfreq="128", unit="uV")
    assert good.ok and good.findings.empty, str(good)
    wrong = check_folder(root, n_jobs=1, sfreq="128", unit="V")
    assert set(wrong.findings["rule"]) == {"amplitude"} and not wrong.recordings["used"].any()
    assert "unit in the header: 'V'" in wrong.findings["fact"][0]
    write_plain(root / "e.csv", brain(seed=9), CAP, times=np.arange(3072) / 128)
    (root / "participants.csv").write_text("id,age\n1,30\n")
    write_muse(root / "f.csv", brain(sfreq=256, n=4))
    left = check_folder(root, n_jobs=1, sfreq="128", unit="uV").findings
    assert left["fact"].tolist() == ["2 recordings have no line: e.csv, f.csv"]


def test_a_measured_rate_is_said(tmp_path):
    for seed, name in enumerate("abcd"):
        write_plain(tmp_path / f"{name}.csv", brain(seed=seed), CAP, times=np.arange(3072) / 128)
    write_table(tmp_path, [f"{name}.csv" for name in "abcd"])
    found = check_folder(tmp_path, n_jobs=1, unit="uV").findings
    assert set(found["rule"]) == {"table of samples"} and len(found) == 4
    assert found["fact"][0] == "its rate of 128 Hz is measured from the column time"


def test_only_tables_that_are_not_understood_are_refused_at_once(tmp_path):
    root = four_tables(tmp_path / "mine")
    with pytest.raises(SourceError, match=r"a\.csv says no sampling rate|a\.csv does not say the unit") as caught:
        LabelledFolder(root)
    assert "'Tables of samples' in docs/own_data.md" in str(caught.value)
    write_edf(root / "b.edf", brain(seed=1))
    write_table(root, ["a.csv", "b.edf"])
    source = LabelledFolder(root)  # one that can be used: the others are skipped and listed
    assert list(write_windows(source, tmp_path / "windows", n_jobs=1)) == ["a.csv"]


def test_tables_of_labels_and_of_samples_are_not_taken_for_each_other(tmp_path):
    write_plain(tmp_path / "labels.csv", brain(2), CAP)
    with pytest.raises(SourceError, match=r"is a table of samples \(Fp1, Fp2, F3, F4\), not of labels"):
        LabelledFolder(tmp_path)
    (tmp_path / "more.csv").write_text("file;label\na.edf;rest\n")
    write_table(tmp_path, ["labels.csv", "more.csv"])
    with pytest.raises(SourceError, match=r"is a table of labels \(file, subject, session, label\), not of samples"):
        LabelledFolder(tmp_path, sfreq=128, unit="uV")
    write_table(tmp_path, ["more.csv", "labels.csv"])
    with pytest.raises(SourceError, match=r"more\.csv is a table of labels \(file, label\)"):
        LabelledFolder(tmp_path, sfreq=128, unit="uV")
    assert not holds_samples(tmp_path / "labels.csv") and not holds_samples(tmp_path / "nowhere.csv")


def test_ask_reads_tables(tmp_path):
    path = write_openbci(tmp_path / "a.txt", brain(24, sfreq=250, n=8))
    options = table_options(f'columns="[{", ".join(OPENBCI)}]"')
    assert options == TableOptions(columns=OPENBCI)
    windows, notes = read_windows([path], [name.upper() for name in SITES], PreprocessParams(), "population", options)
    assert len(windows) == 6 and notes == []
    with pytest.raises(RecordingError, match="name them, as in columns="):
        read_windows([path], [name.upper() for name in SITES], PreprocessParams(), "population")
    with pytest.raises(SourceError, match="no option table"):
        table_options("table=x.csv")


def test_the_way_out_of_the_docs(tmp_path, monkeypatch):
    """The ten lines of docs/own_data.md make a FIF file of any array."""
    text = Path("docs/own_data.md").read_text("utf-8").partition("## Tables of samples")[2]
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert 3 <= len(code.strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(brain(8, sfreq=250, n=4).T, columns=["a", "b", "c", "d"]).to_csv("mine.csv", index=False)
    exec(code, {})
    raw = open_recording(tmp_path / "mine_raw.fif")
    assert raw.ch_names == ["Fp1", "Fp2", "O1", "O2"] and raw.info["sfreq"] == 250
    np.testing.assert_allclose(raw.get_data(units="uV"), brain(8, sfreq=250, n=4), atol=1e-3)
