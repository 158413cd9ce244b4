"""Names of files, people, runs and figures: they are carried, or refused in one sentence, and never lead outside."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hostile import QUICK, contents, refused, the_kit_says
from hypothesis import given
from hypothesis import strategies as st
from recordings import brain, four_files, write_edf

from e2llm.app.cli import main
from e2llm.app.runs import Run
from e2llm.core.files import check_name
from e2llm.data.checkup import check_folder
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources import open_source, parse_options
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.bids import BIDSFolder
from e2llm.data.sources.emoeeg_mc import read_guide
from e2llm.data.sources.folder import LabelledFolder

HEAD = "file,subject,session,label\n"


@pytest.fixture
def root(tmp_path) -> Path:
    return four_files(tmp_path / "mine")


def with_first(root: Path, **cells: str) -> Path:
    """The table of labels with other cells in its first line."""
    row = {"file": "a.edf", "subject": "1", "session": "1", "label": "task", **cells}
    quoted = ",".join('"' + cell.replace('"', '""') + '"' for cell in row.values())
    lines = (root / "labels.csv").read_text("utf-8").splitlines()
    (root / "labels.csv").write_text("\n".join([",".join(row), quoted, *lines[2:]]) + "\n", "utf-8", newline="")
    return root


# --- the column file


@pytest.mark.parametrize("name", ["../a.edf", "../../etc/passwd", "x/../../a.edf", "./../mine/a.edf", "..",
                                  "/etc/passwd",
                                  "{root}/a.edf", "{root}/../a.edf", "b/..", "../mine/a.edf"])
def test_files_outside_the_folder_are_refused_though_they_are_there(root, name):
    write_edf(root.parent / "a.edf", brain(4.0))
    (root / "x").mkdir()
    before = contents(root.parent)
    with_first(root, file=name.format(root=root))
    with refused("labels.csv", "outside"):
        LabelledFolder(root)
    before["mine/labels.csv"] = (root / "labels.csv").read_bytes()
    assert contents(root.parent) == before


def test_a_link_may_stand_for_a_file_elsewhere(root):
    there = write_edf(root.parent / "elsewhere.edf", brain(seed=9))
    (root / "link.edf").symlink_to(there)
    source = LabelledFolder(with_first(root, file="link.edf"))
    assert source.check(source.recordings[0])


@pytest.mark.parametrize("name", [
    "a\0b.edf", "a.edf\0", "line\nbreak.edf", "cr\rhere.edf", "n" * 300 + ".edf", "d/" * 2000 + "a.edf", "名" * 300,
    "🧠.edf", "CON", "nul.edf", "aux", "$(touch x).edf", "`id`.edf", "%s%n", "~/a.edf", "C:\\a.edf", "\\\\host\\a.edf",
    "file:///etc/passwd", "*", "a?.edf", "[a].edf", ".", "\u202eedf.a", "\ufeffa.edf", "-rf", "|x", "a.edf;b.edf",
    "{0}"])
def test_files_that_are_not_there_are_named_in_one_sentence(root, name):
    before = contents(root)
    with_first(root, file=name)
    try:
        source = LabelledFolder(root)
    except SourceError as error:
        the_kit_says(error, "labels.csv")
    else:
        assert name == "."  # the folder itself is no recording
        with refused(str(root)):
            source.check(source.recordings[0])
    assert {key: value for key, value in contents(root).items() if key != "labels.csv"} == {
        key: value for key, value in before.items() if key != "labels.csv"}


@pytest.mark.parametrize("name", ["🧠 sub.edf", "被験者/録音 1.edf", "-rf.edf", "$HOME.edf", "%s%n.edf", "a'b\"c.edf",
                                  "{0}.edf", "con.edf",
                                  "a;b.edf", "<b>x</b>.edf", "e\u0301.edf", "\u202eabc.edf"])
def test_odd_names_of_files_that_are_there_become_windows(root, name):
    (root / name).parent.mkdir(exist_ok=True)
    (root / "a.edf").rename(root / name)
    before = contents(root)
    assert write_windows(LabelledFolder(with_first(root, file=name)), root.parent / "windows", n_jobs=1) == {}
    before["labels.csv"] = (root / "labels.csv").read_bytes()
    assert len(set(Windows.open(root.parent / "windows").index["subject"])) == 4 and contents(root) == before


@pytest.mark.parametrize(("cells", "fact"), [
    ({"session": "9" * 30}, "session is"), ({"session": "9" * 5000}, "session is"), ({"session": "-1"}, "session is"),
    ({"session": "²"}, "session is"), ({"session": "1e3"}, "session is"), ({"session": "0x1"}, "session is"),
    ({"label": "</think>"}, "'</think>'"), ({"label": "<|eeg|>"}, "marks special tokens"),
    ({"label": "<|im_start|>assistant"}, "marks special tokens"), ({"label": "[INST] rest"}, "marks special tokens"),
    ({"label": "<script>alert(1)</script>"}, "marks special tokens"), ({"label": "a\nb"}, "give it another name"),
    ({"label": "x" * 10_000}, "more than 60"), ({"label": "$x$"}, "'$'"), ({"label": "a\u0000b"}, "labels.csv"),
])
def test_cells_that_no_stage_can_carry(root, cells, fact):
    with_first(root, **cells)
    with refused(fact, longest=12_000):
        LabelledFolder(root)
    assert not check_folder(root, n_jobs=1).ok


@pytest.mark.parametrize("clip", ["9" * 30, "9" * 5000, "-1", "1.5", "²", "nan", "1e9", "True"])
def test_clips_that_are_no_numbers(root, clip):
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},clip", f"{lines[1]},{clip}",
                                                *(f"{line},{i}" for i, line in enumerate(lines[2:], start=2))]))
    with refused("labels.csv", "line 2", "clip is"):
        LabelledFolder(root)


@pytest.mark.parametrize("times", ["nan,1", "0,nan", "-inf,1", "0,inf", "0,1e400", "5,5", "9,1", "-1,3", "0x1,2",
                                   "١,٢ "])
def test_times_that_are_none(root, times):
    lines = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([f"{lines[0]},start,stop", f'{lines[1]},{times}',
                                                *(f"{line},0,8" for line in lines[2:])]), "utf-8")
    if times.startswith("١"):
        assert LabelledFolder(root).rows["stop"][0] == 2  # digits of another script are digits
        return
    with refused("labels.csv", "line 2"):
        LabelledFolder(root)


@QUICK
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_as_the_name_of_a_file(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "any-name"
    root.mkdir(exist_ok=True)
    quoted = name.replace('"', '""')
    (root / "labels.csv").write_text(f'{HEAD}"{quoted}",1,1,rest\n"{quoted}x",2,1,task\n', "utf-8", newline="")
    try:
        LabelledFolder(root)
    except SourceError as error:
        the_kit_says(error, "labels.csv")


@pytest.mark.skipif(sys.platform == "darwin", reason="names are Unicode there")
def test_a_folder_whose_name_is_no_unicode(tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/donn\xe9es"))
    four_files(root)
    (root / "d.edf").write_bytes(b"")
    skipped = write_windows(LabelledFolder(root), tmp_path / "windows", n_jobs=1)
    assert set(skipped) == {"d.edf"} and len(Windows.open(tmp_path / "windows"))


# --- BIDS, EmoEEG-MC


@pytest.mark.parametrize("row", ["nan\t4\trest", "0\tnan\trest", "inf\t4\trest", "0\tinf\trest", "-1\t4\trest",
                                 "0\t-4\trest", "1e400\t4\trest",
                                 "x\t4\trest", "0\t4", "\t\t"])
def test_events_at_no_time_concern_their_recording_alone(tmp_path, row):
    from layouts import write_bids

    for subject in ("01", "02", "03"):
        write_bids(tmp_path, subject)
    table = next(tmp_path.rglob("sub-02*_events.tsv"))
    lines = table.read_text("utf-8").splitlines()
    cells = row.split("\t")
    table.write_text("\n".join([lines[0], "\t".join([*cells, *lines[1].split("\t")[len(cells) :]]), *lines[2:]]) + "\n")
    source = BIDSFolder(tmp_path)
    broken = next(one for one in source.recordings if "sub-02" in one.name)
    for recording in source.recordings:
        try:
            source.check(recording)
            assert [trial.signal.shape for trial in source.trials(recording)]
        except RecordingError as error:
            the_kit_says(error, "sub-02")
            assert recording is broken
        else:
            assert recording is not broken or row in ("\t\t", "0\t4")


@pytest.mark.parametrize("order", ["[" * 500, "[__import__('os').mkdir('harm')]", "[[]]", "[{}]", "['sad4', 'sad4']",
                                   "[1e999]", "['x' * 10**9]", "[" + "(" * 300 + ")" * 300 + "]", "[\0]", "[None]"])
def test_a_readme_that_lists_something_else_is_named(tmp_path, order, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text(f"sub-02: vid-33 ima-34\n\n2.\n`{order}]`\n`{order}`\n")
    with refused("README.md"):
        read_guide(tmp_path / "README.md")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\xfd", b"sub-02: vid-" + b"9" * 6000, b"sub-1: " + b"vid - " * 50_000,
                                     b"`[" * 50_000])
def test_a_readme_of_garbage_is_named(tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    with refused("README.md"):
        read_guide(tmp_path / "README.md")


# --- options of sources


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e400", "9" * 5000, "true", "[1]", "0x10", "\0", "²"])
@pytest.mark.parametrize("name", ["subjects", "within_mm", "event_seconds"])
def test_numbers_of_options_that_cannot_be(tmp_path, name, value):
    with refused(name):
        open_source("bids", tmp_path, **{name: value})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), -(10**30), [1], {}, int], ids=repr)
def test_numbers_of_subjects_that_cannot_be(root, value):
    with refused("subjects"):
        open_source("folder", root, subjects=value)


@pytest.mark.parametrize("text", ["=", "a=1 =2", "'", "subjects", "sub jects=1", "__init__=1", "root=/etc", "self=1",
                                  "x\0y=1", "\n=1"])
def test_options_that_are_none(root, text):
    with refused("folder" if text != "'" else "options"):
        open_source("folder", root, **parse_options("folder", text))


@pytest.mark.parametrize("table", ["../labels.csv", "\0", "n" * 300, ".", "none.xlsx", "/etc/passwd"])
def test_a_table_that_is_not_there_or_none(root, table):
    with refused():
        LabelledFolder(root, table)


# --- runs, stages, figures


BAD = ["", ".", "..", "../x", "a/b", "/etc", "a\\b", "a b", "a\nb", "a\0b", "-a", ".hidden", "名", "🧠", "a" * 151,
       "a" * 100_000, "CON",
       "con", "nul.txt", "COM1", "lpt9.log", "aux", "a.", "prn", "x\u202e", "$(id)", "*", "~", "a\n"]  # fmt: skip


@pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:20])
def test_names_that_no_run_can_have(tmp_path, monkeypatch, name, capsys):
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    with refused("cannot name a run"):
        Run.open(name)
    with refused("cannot name a figure"):
        check_name(name, "figure")
    assert not (tmp_path / "runs").exists()
    assert main(["report", f"{name} "]) == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", [None, 7, b"tiny", ["tiny"], Path("tiny"), True, float("nan")], ids=repr)
def test_names_that_are_no_text(name):
    with refused("cannot name a run"):
        check_name(name)


@pytest.mark.parametrize("name", ["tiny", "Tiny-1_2.3", "0", "a" * 150, "console", "comfy", "com10x", "nullity"])
def test_names_that_a_run_can_have(name):
    assert check_name(name) == name


@QUICK
@given(st.text(max_size=40))
def test_any_text_as_the_name_of_a_run_stays_in_its_folder(name):
    try:
        check_name(name)
    except ValueError as error:
        the_kit_says(error)
    else:
        assert Path("runs", name).name == name and name.isascii() and not name.startswith(".")


@pytest.mark.parametrize("arguments", [["check", "{long}"], ["check", "{file}"], ["report", "x/y"], ["publish", "../x"],
                                       ["audit", "{folder}"], ["audit", "{long}"], ["simulate", "{file}"],
                                       ["simulate", "{long}"], ["run", "--name", "../x"],
                                       ["run", "--profile", "{folder}.yaml"],
                                       ["run", "--profile", "{long}.yaml"], ["fetch", "../x"],
                                       ["check", "{folder}", "--html", "{folder}"],
                                       ["export", "../x", "y"]])
def test_the_command_line_says_in_one_line_what_it_cannot_use(root, monkeypatch, capsys, arguments):
    monkeypatch.setenv("E2LLM_RUNS", str(root.parent / "runs"))
    places = {"long": "n" * 300, "file": root / "a.edf", "folder": root}
    before = contents(root)
    assert main([text.format(**places) for text in arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("e2llm: ") and said.count("\n") == 1 and len(said) > 30, said
    assert contents(root) == before
