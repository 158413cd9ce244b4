"""Any folder of recordings that MNE reads, with a table of labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import mne
import pandas as pd

from ...core.files import one_line
from ...core.labels import LabelSet
from ...core.montage import NEAR_MM, Match
from .base import Flaw, Recording, RecordingError, Source, SourceError, Stretch, Trial, bads_of, place_channels
from .samples import SUFFIXES, TableOptions, holds_samples, open_recording, read_layout
from .tables import labels_of, read_table, refuse_look_alikes, remarks_on_labels, saved_as

REQUIRED_COLUMNS = ("file", "subject", "session", "label")
OPTIONAL_COLUMNS = ("start", "stop", "clip", "context", "valence", "arousal", "noun")
ROUNDED_S = 0.1  # by which a table's times may exceed the recording: they are rounded, and files end a sample early


class LabelledFolder(Source):
    """Any folder of recordings that MNE reads, with a table of labels.

    A row of the table is a labelled stretch. Without the columns ``start`` and ``stop`` it is the whole file; with them
    a file may stand in several rows. ``clip`` names what was shown, a whole number; people who share a number have seen
    the same thing. Without it every row is a clip of its own. ``context`` says how the label was evoked, where that
    differs. ``valence`` and ``arousal`` (-1 to 1) place the labels, and ``noun`` says what they are called; each is the
    same in all rows of a label.

    Parameters
    ----------
    root : path
        Folder of the files.
    table : path, optional
        CSV or spreadsheet with columns ``file, subject, session, label`` and, optionally, ``start, stop`` (seconds),
        ``clip``, ``context``, ``valence``, ``arousal``, ``noun``; default ``root/labels.csv``. Separator and encoding
        are recognized.
    subjects : int, optional
        Use only the first so many subjects of the table.
    within_mm : float
        Channels without a known name but with a measured position are placed at the nearest known site that lies at
        most so far away.
    sfreq : float, optional
        Sampling rate in Hz of recordings that are tables of samples (``.csv``, ``.tsv``, ``.txt``) and do not say it.
    unit, columns
        Of such tables, as in :class:`~e2llm.data.sources.samples.TableOptions`.

    Raises
    ------
    SourceError
        If the table is missing, lacks a column, contradicts itself, names files that are not there, or has people or
        labels whose names differ only in case or blanks. Also if all recordings are tables of samples and none is
        understood.
    """

    def __init__(self, root: str | Path, table: str | Path | None = None, subjects: int | None = None,
                 within_mm: float = NEAR_MM, sfreq: float | None = None, unit: str = "",
                 columns: Sequence[str] = ()) -> None:
        self.root, self.within_mm = Path(root), within_mm
        self.table_path = self.root / "labels.csv"
        if table:  # a relative path counts from here, or from the folder
            self.table_path = Path(table) if os.path.exists(table) else self.root / table
        if not os.path.isfile(self.table_path):
            raise SourceError(f"{one_line(self.table_path)} is missing: write a table with columns "
                              f"{', '.join(REQUIRED_COLUMNS)}.")
        rows = self._read_table()
        rows["file"] = rows["file"].map(self._as_there)
        listed = list(dict.fromkeys(rows["file"]))
        if outside := [name for name in listed if Path(name).is_absolute() or ".." in Path(name).parts]:
            raise SourceError(f"{self.table_path} names {outside[0]!r:.100}, which lies outside {self.root}: name "
                              "files by their place in the folder; it may hold links to others.")
        # A link without its file, as datalad leaves it, is a fault of one recording; lexists is False for a name that
        # no disk can hold.
        absent = [f"{name:.80}" for name in listed if not os.path.lexists(self.root / name)]
        if absent:
            raise SourceError(f"{self.table_path} names {absent[:3]}, which are not in {self.root}: correct the table.")
        for what in ("subject", "label"):
            refuse_look_alikes(self.table_path, what, rows[what])
        if subjects is not None:
            rows = rows[rows["subject"].isin(rows["subject"].unique()[:subjects])]
        self.rows = rows.reset_index(names="line")
        self.label_set = labels_of(self.table_path, self.root.name, self.rows.to_dict("records"))
        self.names_clips = "clip" in self.rows
        files = self.rows.drop_duplicates("file")
        self.recordings = [Recording(row.file, self.root / row.file, row.subject) for row in files.itertuples()]
        self.matches: dict[str, Match] = {}
        try:
            self.table_options = TableOptions(sfreq, unit, tuple(columns))
        except RecordingError as error:
            raise SourceError(str(error)) from None
        self._refuse_tables()

    def _as_there(self, name: str) -> str:
        """A file's name with the slashes that it has here; a table written on Windows has others."""
        other = name.replace("\\", "/")
        return other if not os.path.exists(self.root / name) and os.path.exists(self.root / other) else name

    def _refuse_tables(self) -> None:
        """SourceError, before any signal is read, if there are only tables of samples and none is understood."""
        reasons = []
        for recording in self.recordings:
            if recording.path.suffix.lower() not in SUFFIXES:
                return
            try:
                read_layout(recording.path, self.table_options)
            except RecordingError as error:
                reasons.append(str(error))
            else:
                return
        if reasons:
            raise SourceError(reasons[0])

    def inputs(self) -> list[Path]:
        """The whole folder, for a recording may be of several files, and the table wherever it lies."""
        return [self.root, self.table_path]

    def answers(self, present: Iterable[str]) -> LabelSet:
        """Labels that have windows: an answer that nobody can give is no option."""
        return self.label_set.only(present)

    def remarks(self) -> list[tuple[str, Flaw]]:
        """Columns that are not read, and labels that seem to be an emotion in another spelling."""
        name, known = self.table_path.name, (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
        found = remarks_on_labels(name, self.label_set.labels)
        if unknown := [column for column in self.rows if column and column not in ("line", *known)]:
            found.append((name, Flaw("warn", "columns", f"the columns {', '.join(unknown)} are not read",
                                     f"known are {', '.join(known)}")))
        return found

    def _read_table(self) -> pd.DataFrame:
        """The table as text by the lines of the file; every used cell is filled, and what should be a number is one."""
        rows = read_table(self.table_path, (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS))
        if missing := set(REQUIRED_COLUMNS) - set(rows.columns):
            if holds_samples(self.table_path):
                raise SourceError(f"{self.table_path} is a table of samples ({', '.join(rows.columns[:4])}), not of "
                                  "labels: write a table of labels that names it.")
            raise SourceError(f"{self.table_path} lacks the columns {sorted(missing)}: add them (it was read as "
                              f"{saved_as(self.table_path)}, with the columns {one_line(', '.join(rows.columns))}).")
        if ("start" in rows) != ("stop" in rows):
            raise SourceError(f"{self.table_path} has only one of the columns start and stop: give both, or neither.")
        for line, row in zip(rows.index, rows.to_dict("records"), strict=True):
            if fact := self._fault(row):
                raise SourceError(f"{self.table_path}, line {line}: {fact}; correct the table.")
        if "start" in rows:
            rows[["start", "stop"]] = rows[["start", "stop"]].map(_seconds)
        self._check_rows(rows)
        return rows

    @staticmethod
    def _fault(row: dict[str, str]) -> str:
        """What is wrong with one line, or nothing."""
        for name in (*REQUIRED_COLUMNS, *(name for name in OPTIONAL_COLUMNS if name in row)):
            if not row[name]:
                return f"{name} is empty"
        for name in ("session", "clip"):
            if name in row and not (row[name].isascii() and row[name].isdecimal() and len(row[name]) < 10):
                return f"{name} is '{row[name]:.40}', not a number of at most nine digits"
        if "start" in row:
            try:
                start, stop = _seconds(row["start"]), _seconds(row["stop"])
            except ValueError:
                return f"start and stop are '{row['start']}' and '{row['stop']}', not seconds"
            if not 0 <= start < stop < float("inf"):
                return f"the stretch from {start:g} to {stop:g} s is empty or begins before 0"
        return ""

    def _check_rows(self, rows: pd.DataFrame) -> None:
        """No file twice, or no second of it twice; one person a file; no clip of a person twice."""
        subjects = rows.groupby("file")["subject"].nunique()
        if (shared := subjects[subjects > 1]).size:
            raise SourceError(f"{self.table_path} gives {shared.index[0]} to more than one subject: a recording is of "
                              "one person.")
        if "start" not in rows:
            if (twice := rows["file"].duplicated()).any():
                line = twice.idxmax()
                raise SourceError(f"{self.table_path}, line {line}: {rows['file'][line]} stands in an earlier "
                                  "line; one row a file, or give start and stop.")
        else:
            ordered = rows.sort_values(["file", "start"], kind="stable")
            overlap = (ordered["file"] == ordered["file"].shift()) & (ordered["start"] < ordered["stop"].shift())
            if overlap.any():
                line = overlap.idxmax()
                raise SourceError(f"{self.table_path}, line {line}: its stretch of {rows['file'][line]} overlaps "
                                  "another; correct the times.")
        if "clip" not in rows:
            return
        if (twice := rows.assign(clip=rows["clip"].astype(int)).duplicated(["subject", "clip"])).any():
            line = twice.idxmax()
            raise SourceError(f"{self.table_path}, line {line}: clip {rows['clip'][line]} of subject "
                              f"{rows['subject'][line]} stands in an earlier line; number what one person saw "
                              "twice as two clips.")

    def check(self, recording: Recording) -> list[str]:
        """EEG channels of one file that have a place on the head; raises RecordingError if it cannot be used."""
        self._opened(recording)
        return list(self.matches[recording.name].places.values())

    def _opened(self, recording: Recording) -> mne.io.BaseRaw:
        """An open recording whose channels have been placed and whose times have been compared with the table."""
        raw = open_recording(recording.path, self.table_options)
        self.matches[recording.name] = place_channels(raw, recording.path, self.within_mm)
        seconds = raw.n_times / raw.info["sfreq"]
        if "start" in self.rows:
            own = self.rows[self.rows["file"] == recording.name]
            if (late := own[(own["stop"] > seconds + ROUNDED_S) | (own["start"] >= seconds)]).size:
                line = late["line"].iloc[0]
                raise RecordingError(f"{recording.path} lasts {seconds:g} s, but line {line} of {self.table_path.name} "
                                     f"ends at {late['stop'].iloc[0]:g} s: correct the times.")
        return raw

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """The labelled stretches of a file, one in memory at a time."""
        raw = self._opened(recording)
        match = self.matches[recording.name]
        ch_names, bads = tuple(match.places.values()), bads_of(raw, match)
        for number, row in self.rows[self.rows["file"] == recording.name].iterrows():
            stretch = (row["start"], min(row["stop"], raw.n_times / raw.info["sfreq"])) if "start" in row else ()
            signal = Stretch(raw, match, recording.path, *stretch)
            clip = int(row["clip"]) if "clip" in row else number + 1
            yield Trial(row["subject"], int(row["session"]), clip, row["label"], signal, raw.info["sfreq"], ch_names,
                        context=row.get("context", ""), bads=bads)


def _seconds(text: str) -> float:
    """Seconds with a point or, as some spreadsheets write them, a comma."""
    return float(text.replace(",", "."))
