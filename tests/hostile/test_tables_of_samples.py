"""Tables of samples and features that come with a data set: absurd rates, times and shapes are named, nothing stops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hostile import QUICK, contents, refused, the_kit_says
from hypothesis import given
from hypothesis import strategies as st
from recordings import brain, write_edf, write_table
from scipy.io import savemat

from e2llm.core.montage import SEED_CHANNELS
from e2llm.data.sources.base import RecordingError
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.samples import TableOptions, open_recording
from e2llm.data.supplied_features import features_beside_ours

HEAD = "Time (s),Fp1 (uV),Fp2 (uV),Cz (uV)"
ROWS = [f"{i / 128:.6f},{i % 7},{i % 5},{i % 3}" for i in range(40)]


def read(path: Path, content: str | bytes, **options) -> None:
    """Open a table and read all of it: it is a recording, or one sentence names it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    try:
        raw = open_recording(path, TableOptions(**options))
        assert raw.n_times > 1 and 1 <= raw.info["sfreq"] <= 1e6
    except RecordingError as error:
        the_kit_says(error, path.name)


def lines(*changed: tuple[int, str]) -> str:
    rows = list(ROWS)
    for place, row in changed:
        rows[place] = row
    return "\n".join([HEAD, *rows]) + "\n"


def test_the_table_that_is_changed_below_is_one(tmp_path):
    (tmp_path / "a.csv").write_text(lines())
    assert open_recording(tmp_path / "a.csv").info["sfreq"] == 128


@pytest.mark.parametrize("step", ["10", "1e9", "1e-300", "0", "-1", "nan", "inf", "1e308", "x"])
def test_times_that_no_clock_has(tmp_path, step):
    times = [f"{i * float(step):g}" if step != "x" else "x" for i in range(40)]
    rows = [f"{time},{row.partition(',')[2]}" for time, row in zip(times, ROWS, strict=True)]
    with refused("a.csv"):
        (tmp_path / "a.csv").write_text("\n".join([HEAD, *rows]))
        open_recording(tmp_path / "a.csv")


@pytest.mark.parametrize("rate", ["0", "0.1", "1e9", "9" * 400, "10000000", "0.0000001"])
def test_rates_that_no_amplifier_has(tmp_path, rate):
    text = lines().replace("Time (s),", "x,")
    read(tmp_path / "a.csv", f"# sampling rate: {rate}\n{text}")


@pytest.mark.parametrize("sfreq", [0.5, 1e7, 1e300, 5e-324])
def test_rates_of_the_options(tmp_path, sfreq):
    (tmp_path / "a.csv").write_text(lines().replace("Time (s),", "x,"))
    with refused("rate"):
        open_recording(tmp_path / "a.csv", TableOptions(sfreq=sfreq))


@pytest.mark.parametrize("columns", [("9" * 5000,), ("0",), ("-1",), ("²",), ("٣",), ("=",), ("x=y",), ("\0",),
                                     ("2=<script>",),
                                     ("2=Fp1", "2=Fp2"), ("",)])
def test_columns_of_the_options(tmp_path, columns):
    read(tmp_path / "a.csv", lines(), columns=columns)


@pytest.mark.parametrize("content", [
    b"", b"\n" * 9, b"\x00" * 300, b"1\n2\n", b"," * 70_000, b"1" * 70_000, b'"' * 70_000,
    b"\xff\xfe" + b"1\x00,\x00" * 30,
    b"Fp1 (uV),Fp2 (uV)\n" + b"1e999,2\n" * 9, b"Fp1 (uV),Fp2 (uV)\n" + b"nan,nan\n" * 9,
    b"Fp1,Fp2\n" + b"<b>,</b>\n" * 9,
    b"fs=128 unit: uV\nFp1,Fp2\n" + b"1,2\n" * 5 + b"1,2,3,4\n", b"fs=128 unit: uV\nFp1,Fp1\n" + b"1,2\n" * 9,
    b"fs=128 unit: uV\nFp1,Fp2\n1,2\n" + b"x" * 200_000 + b",1\n", b"fs=128 unit: \xff\nFp1,Fp2\n1,2\n",
    "fs=128 unit: uV\nFp1,\u202e\n1,2\n".encode(), b"fs=128 unit: uV\nFp1,Fp2\n" + b'1,"2\n' * 9],
    ids=lambda text: ascii(text[:14]))
def test_tables_of_garbage(tmp_path, content):
    for suffix in (".csv", ".tsv", ".txt"):
        read(tmp_path / f"a{suffix}", content)


@QUICK
@given(st.lists(st.tuples(st.integers(0, 39), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)),
                max_size=4))
def test_any_text_in_some_lines(tmp_path_factory, changed):
    read(tmp_path_factory.getbasetemp() / "any-lines.csv", lines(*changed))


def test_the_other_recordings_go_on(tmp_path):
    root = tmp_path / "mine"
    write_edf(root / "z.edf", brain(8.0))
    (root / "a.csv").write_text(lines((5, "nan,inf,x,1")))
    (root / "b.txt").write_bytes(b"\x00" * 100)
    (root / "c.tsv").write_text(lines().replace("Time (s)", "x"))
    write_table(root, ["a.csv", "b.txt", "c.tsv", "z.edf"])
    before, source, reasons = contents(root), LabelledFolder(root), []
    for recording in source.recordings:
        try:
            source.check(recording)
        except RecordingError as error:
            the_kit_says(error, recording.name)
            reasons.append(recording.name)
    assert reasons == ["a.csv", "b.txt", "c.tsv"] and contents(root) == before


# --- features that come with SEED-VII


@pytest.mark.parametrize("value", [np.zeros((3, 5, 3)), np.zeros((3, 4, 62)), np.zeros(3), np.zeros((0, 5, 62)),
                                   np.full((3, 5, 62), np.nan),
                                   np.array([["x"]]), {"a": 1}, np.array([[1j]]), np.zeros((9, 5, 62))],
                                   ids=lambda value: str(np.shape(value)))
def test_features_of_another_form_are_a_finding(own_twin, value):
    (own_twin / "EEG_features").mkdir()
    savemat(own_twin / "EEG_features" / "1.mat", {f"{kind}_1": value for kind in ("de", "de_LDS", "psd")})
    signals = {name: own_twin / "EEG_preprocessed" / f"{name}.mat" for name in ("1", "2")}
    _, found = features_beside_ours(own_twin, signals, 200.0, SEED_CHANNELS)
    assert any(name == "EEG_features/2.mat" for name, _ in found)  # it is not there
    for _, flaw in found:
        assert str(flaw).isprintable() and len(str(flaw)) < 600


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"\x80\x04."])
def test_files_of_features_or_signals_that_are_none_are_findings(own_twin, content):
    (own_twin / "EEG_features").mkdir()
    (own_twin / "EEG_features" / "1.mat").write_bytes(content)
    shutil.copy(own_twin / "EEG_preprocessed" / "1.mat", own_twin / "EEG_features" / "2.mat")
    (own_twin / "EEG_preprocessed" / "2.mat").write_bytes(content)
    signals = {name: own_twin / "EEG_preprocessed" / f"{name}.mat" for name in ("1", "2")}
    _, found = features_beside_ours(own_twin, signals, 200.0, SEED_CHANNELS)
    assert {name for name, _ in found} == {"EEG_features/1.mat", "EEG_features/2.mat"}


def test_features_that_would_fill_the_memory_are_not_unpacked(own_twin):
    (own_twin / "EEG_features").mkdir()
    path = own_twin / "EEG_features" / "1.mat"
    savemat(path, {"de_1": np.zeros((1719, 5, 62))})
    path.write_bytes(path.read_bytes().replace((1719).to_bytes(4, "little"), (2**31 - 1).to_bytes(4, "little"), 1))
    _, found = features_beside_ours(own_twin, {"1": own_twin / "EEG_preprocessed" / "1.mat"}, 200.0, SEED_CHANNELS)
    assert "values of de" in str(found[0][1])
