"""Label tables as people save them: dialects are read, contradictions are named, and no two spellings of one name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from layouts import write_bids
from recordings import brain, write_edf, write_table

from e2llm.core.labels import SEED_VII, plain_labels
from e2llm.data.sources import SOURCES, open_source, parse_options
from e2llm.data.sources.base import SourceError
from e2llm.data.sources.bids import BIDSFolder
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.tables import look_alikes, read_table

HEAD, ROWS = "file,subject,session,label", ("a.edf,1,1,Müdigkeit", "b.edf,2,1,calm")


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "mine"
    for seed, name in enumerate("ab"):
        write_edf(folder / f"{name}.edf", brain(4.0, seed))
    return folder


def labels(root: Path, content: bytes | str) -> list[str]:
    data = content if isinstance(content, bytes) else content.encode()
    (root / "labels.csv").write_bytes(data)
    return LabelledFolder(root).rows["label"].tolist()


PLAIN = "\n".join([HEAD, *ROWS]) + "\n"


@pytest.mark.parametrize("separator", [";", "\t", "|", ",", ", ", " ; "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_separators_and_encodings(root, separator, encoding):
    assert labels(root, PLAIN.replace(",", separator).encode(encoding)) == ["Müdigkeit", "calm"]


@pytest.mark.parametrize("text", [
    PLAIN.replace("\n", "\r\n"), PLAIN.replace("\n", ",\n"), PLAIN.replace("\n", ",,,\n"), "sep=,\n" + PLAIN,
    PLAIN.replace(HEAD, "File,SUBJECT,Session,Label"), PLAIN.replace(HEAD, " file , subject,session ,label"),
    PLAIN + "\n\n,,,\n", PLAIN.replace("Müdigkeit", '"Müdigkeit"'), "\n" + PLAIN,
], ids=["crlf", "trailing comma", "trailing commas", "sep of Excel", "capitals", "blanks", "empty lines", "quotes",
        "empty first line"])
def test_what_spreadsheets_leave_behind(root, text):
    assert labels(root, text) == ["Müdigkeit", "calm"]


def test_a_spreadsheet_and_a_decimal_comma(root):
    rows = [["a.edf", "1", "1", "rest", "0,0", "1,5"], ["b.edf", "2", "1", "calm", "0,5", "4"]]
    pd.DataFrame(rows, columns=[*HEAD.split(","), "start", "stop"]).to_excel(root / "mine.xlsx", index=False)
    for table in (root / "mine.xlsx", "mine.xlsx"):  # relative: in the folder
        source = LabelledFolder(root, table)
        assert source.rows[["start", "stop"]].to_numpy().tolist() == [[0.0, 1.5], [0.5, 4.0]]


@pytest.mark.parametrize(("content", "fact"), [
    (b"", "has no line below its head"), (HEAD.encode(), "has no line below its head"),
    (b"\n\n", "has no line below its head"),
    (PLAIN.replace("calm", "calm,very").encode(), "line 3: 5 cells below 4 columns; quote"),
    (PLAIN.replace("subject", "person").encode(), "lacks the columns ['subject']: add them (it was read as commas, "
     "utf-8, with the columns file, person, session, label)"),
    (PLAIN.replace("session", "File").encode(), "has the column 'file' twice"),
    (PLAIN.replace("2,1,calm", "2,²,calm").encode(), "session is '²', not a number"),
    (PLAIN.replace("2,1,calm", "2,one,calm").encode(), "session is 'one', not a number"),
    (PLAIN.replace("2,1,calm", "2,٣,calm").encode(), "session is '٣', not a number"),
    (PLAIN.replace("calm", '"calm').encode(), "is not a readable table"),
    (b"\xff\xfe\x00\xd8" + b"a" * 9, "is not a readable table"),
    (PLAIN.replace("Müdigkeit", "疲れ").encode("shift-jis") + b"\x81", "write it as comma-separated text in UTF-8"),
])
def test_tables_that_cannot_be_used(root, content, fact):
    with pytest.raises(SourceError) as caught:
        labels(root, content)
    assert fact in str(caught.value) and "labels.csv" in str(caught.value), str(caught.value)


def test_lines_of_messages_are_those_of_the_file(root):
    with pytest.raises(SourceError, match=r"line 5: label is empty"):
        labels(root, f"{HEAD}\na.edf,1,1,rest\n\n\nb.edf,2,1,\n")


# --- names that differ only in case, blanks or marks


@pytest.mark.parametrize(("one", "other"), [
    ("S1", "s1"), ("sub_1", "sub-1"), ("S1.", "S1"), ("Ä1", "A\u03081"), ("S  1", "S 1"), ("Ｓ1", "S1"),
])
@pytest.mark.parametrize("what", ["subject", "label"])
def test_two_spellings_of_one_name_are_refused(root, what, one, other):
    rows = {"subject": f"a.edf,{one},1,rest\nb.edf,{other},1,task\n",
            "label": f"a.edf,1,1,{one}\nb.edf,2,1,{other}\n"}[what]
    with pytest.raises(SourceError, match=f"the {what}s .* differ only in case, blanks or marks"):
        labels(root, f"{HEAD}\n{rows}")


def test_blanks_around_a_name_are_no_part_of_it(root):
    with pytest.raises(SourceError, match="has the label 'rest' in every trial: there must be two or more"):
        labels(root, f"{HEAD}\na.edf,S1 ,1,rest\nb.edf,S1,2,rest \n")
    assert labels(root, f"{HEAD}\na.edf,S1 ,1,rest \nb.edf,S1,2,task\n") == ["rest", "task"]
    assert [one.subject for one in LabelledFolder(root).recordings] == ["S1", "S1"]


def test_names_that_differ_in_more_are_not_alike():
    assert look_alikes(["1-1", "11", "S1", "S2", "S10", "rest", "restless", "a.b", "ab"]) == []


def test_labels_of_bids_events_too(tmp_path):
    for subject in ("01", "02"):
        write_bids(tmp_path, subject)
    table = next(tmp_path.rglob("sub-02*_events.tsv"))
    table.write_text(table.read_text("utf-8").replace("calm", "Calm"), "utf-8")
    with pytest.raises(SourceError, match="the labels 'calm' and 'Calm' differ only in case"):
        BIDSFolder(tmp_path)


# --- options of a source


@pytest.mark.parametrize(("text", "expected"), [
    ("session=01", {"session": "01"}), ("labels=[1,2]", {"labels": ("1", "2")}), ("labels=work", {"labels": ("work",)}),
    ('labels="[very sad, calm]"', {"labels": ("very sad", "calm")}), ("labels=rest,work", {"labels": ("rest", "work")}),
    ("labels=no task='eyes open'", {"labels": ("no",), "task": "eyes open"}), ("", {}),
    ("event_seconds=2.5 subjects=3", {"event_seconds": 2.5, "subjects": 3}),
    ("label_column=1e3", {"label_column": "1e3"}),
    ("clip_column=", {"clip_column": ""}),
])
def test_options_are_what_was_written(text, expected, monkeypatch):
    seen = {}

    class Source(BIDSFolder):
        def __init__(self, root, subjects: int | None = None, task: str = "", session: str = "",
                     label_column: str = "trial_type", labels: Sequence[str] = (), clip_column: str = "",
                     event_seconds: float = 0.0) -> None:
            seen.update(subjects=subjects, task=task, session=session, label_column=label_column, labels=labels,
                        clip_column=clip_column, event_seconds=event_seconds)

    monkeypatch.setitem(SOURCES, "bids", Source)
    open_source("bids", "anywhere", **parse_options("bids", text))
    assert {name: seen[name] for name in expected} == expected
    assert [name for name, value in seen.items() if value and name != "label_column"] == [
        name for name in seen if expected.get(name) and name != "label_column"]


@pytest.mark.parametrize(("text", "fact"), [
    ("session", "'session' in the options of 'bids' is not option=value"), ("=3", "is not option=value"),
    ("task='x", "cannot be split into words"), ("event_seconds=two", "event_seconds = 'two' is not a number"),
    ("colour=1", "has no option colour"),
])
def test_options_that_cannot_be_meant(tmp_path, text, fact):
    with pytest.raises(SourceError) as caught:
        open_source("bids", tmp_path, **parse_options("bids", text))
    assert fact in str(caught.value)


def test_the_tilde_is_the_home_folder(root, monkeypatch):
    labels(root, PLAIN)
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(open_source("folder", "~/mine").recordings) == 2
    assert len(open_source("folder", "~/mine", table="~/mine/labels.csv").recordings) == 2


# --- labels without windows


def test_labels_without_windows_are_no_answers():
    assert SEED_VII.only(SEED_VII.labels) is SEED_VII
    fewer = SEED_VII.only(["sad", "happy", "sad"])
    assert fewer.labels == ("happy", "sad") and set(fewer.valence) == set(fewer.arousal) == {"happy", "sad"}
    assert plain_labels("x", ["joy", "awe", "calm"]).only(["joy", "awe"]).labels == ("awe", "joy")
    with pytest.raises(ValueError, match=r"have 1 of the labels .*two or more are needed"):
        SEED_VII.only(["sad"])


def test_a_table_is_read_as_it_is(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("file;subject\nNA;None\n1e3;TRUE\n")
    assert read_table(path).to_numpy().tolist() == [["NA", "None"], ["1e3", "TRUE"]]
    assert read_table(path).index.tolist() == [2, 3]


def test_missing_files_are_named(root):
    write_table(root, ["a.edf", "nowhere.edf"])
    with pytest.raises(SourceError, match=r"names \['nowhere\.edf'\], which are not in"):
        LabelledFolder(root)
