"""BIDS folders through mne-bids: subjects, sessions and runs are recordings, rows of their event tables are trials."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mne
import mne_bids
import pandas as pd

from ...core.files import one_line, read_mapping
from ...core.labels import LabelSet
from ...core.montage import NEAR_MM, Match
from .base import (
    Flaw,
    Recording,
    RecordingError,
    Source,
    SourceError,
    Stretch,
    Trial,
    bads_of,
    open_raw,
    place_channels,
    why_unread,
)
from .tables import labels_of, refuse_look_alikes, remarks_on_labels

_EXTENSIONS = (".edf", ".EDF", ".bdf", ".vhdr", ".set", ".fif")
_MISSING = ("", "n/a", "N/A")
_STANDARD = ("onset", "duration", "sample", "value", "trial_type", "response_time", "stim_file", "HED")  # of BIDS


@dataclass(frozen=True)
class _Event:
    """One labelled stretch of a recording: seconds, what it shows, and what was shown."""

    start: float
    stop: float
    label: str
    clip: str
    context: str
    valence: str = ""
    arousal: str = ""


class BIDSFolder(Source):
    """A BIDS dataset of EEG.

    A trial is a row of a recording's ``events.tsv`` whose label is known, from its onset for its duration; where there
    is no such table, an annotation of the recording itself. Channel types and bad channels are those of
    ``channels.tsv``, positions those of ``electrodes.tsv``.

    Parameters
    ----------
    root : path
        The dataset, or the part of it that was downloaded.
    subjects : int, optional
        Use only the first so many subjects.
    task, session : str
        Use only this task, this session; empty: all.
    label_column : str
        Column of ``events.tsv`` with the labels.
    labels : sequence of str
        Which of its values are labels of trials; empty: all but ``n/a``.
    clip_column : str
        Column that says what was shown. Its values name the same thing for all subjects, and stand once a subject.
        Empty: every trial is a clip of its own.
    context_column : str
        Column that says how the label was evoked; empty: one way.
    valence_column, arousal_column : str
        Columns with the valence and arousal of a label, -1 to 1, the same in all its events; empty: not known.
    noun : str
        What a label is called in a question ("emotion").
    event_seconds : float
        Length of events that the table gives no duration; 0 refuses them.
    within_mm : float
        As in :class:`e2llm.data.sources.folder.LabelledFolder`.

    Raises
    ------
    SourceError
        If the folder holds no EEG, or no recording of it has a labelled event.
    """

    def __init__(self, root: str | Path, subjects: int | None = None, task: str = "", session: str = "",
                 label_column: str = "trial_type", labels: Sequence[str] = (), clip_column: str = "",
                 context_column: str = "", event_seconds: float = 0.0, within_mm: float = NEAR_MM,
                 valence_column: str = "", arousal_column: str = "", noun: str = "state") -> None:
        self.root, self.within_mm = Path(root), within_mm
        self.columns = (label_column, clip_column, context_column)
        self.affect_columns, self.unread = {"valence": valence_column, "arousal": arousal_column}, set[str]()
        self.names_clips = bool(clip_column)
        self.labels, self.event_seconds = tuple(labels), event_seconds
        self.paths = self._find(task, session)
        people = list(dict.fromkeys(path.subject for path in self.paths.values()))[:subjects]
        self.paths = {name: path for name, path in self.paths.items() if path.subject in people}
        self.recordings = [Recording(name, path.fpath, path.subject) for name, path in self.paths.items()]
        self.matches: dict[str, Match] = {}
        self._events: dict[str, list[_Event]] = {}
        self._faults: dict[str, str] = {}
        for recording in self.recordings:
            try:
                self._events[recording.name] = self._read_events(recording)
            except RecordingError as error:
                self._faults[recording.name] = str(error)
        found = [event for events in self._events.values() for event in events]
        if not found:
            raise SourceError(f"No recording of {self.root} has a labelled event; the first reason: "
                              f"{next(iter(self._faults.values()))}")
        if absent := sorted(set(self.labels) - {event.label for event in found}):
            raise SourceError(f"No event of {self.root} has the label {', '.join(absent)} in column '{label_column}': "
                              "correct 'labels'.")
        refuse_look_alikes(self.root, "label", (event.label for event in found))
        refuse_look_alikes(self.root, "subject", people)
        self.label_set = labels_of(self.root, self._name(), [{**vars(event), "noun": noun} for event in found])
        self._number()

    def inputs(self) -> list[Path]:
        """Folders of the subjects who are used, and the files at the top, which hold for all; no derivatives."""
        people = {path.subject for path in self.paths.values()}
        shared = (path for path in self.root.iterdir() if path.is_file())
        return [*shared, *(self.root / f"sub-{person}" for person in people)]

    def answers(self, present: Iterable[str]) -> LabelSet:
        """Labels that have windows: an answer that nobody can give is no option."""
        return self.label_set.only(present)

    def remarks(self) -> list[tuple[str, Flaw]]:
        """Columns of the event tables that are not read, and labels that seem to be an emotion in another spelling."""
        found = remarks_on_labels("events.tsv", self.label_set.labels)
        if self.unread:
            found.append(("events.tsv", Flaw("warn", "columns", f"the columns {', '.join(sorted(self.unread))} are not "
                                             "read", "name those that count in source_options (valence_column=…)")))
        return found

    def _find(self, task: str, session: str) -> dict[str, mne_bids.BIDSPath]:
        """Recordings by their path below the root, ordered by subject, session and run; without derivatives."""
        if not self.root.is_dir():
            raise SourceError(f"{self.root} is missing: data_root must be a BIDS dataset.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = mne_bids.find_matching_paths(self.root, tasks=task or None, sessions=session or None,
                                                 suffixes="eeg", datatypes="eeg", extensions=list(_EXTENSIONS))
        named = {path.fpath.relative_to(self.root).as_posix(): path for path in found}
        named = {name: path for name, path in named.items() if name.startswith("sub-")}
        if not named:
            which = "".join(f" of {what} '{value}'" for what, value in (("task", task), ("session", session)) if value)
            raise SourceError(f"{self.root} holds no EEG recording{which} at sub-*/eeg/*_eeg.* or "
                              "sub-*/ses-*/eeg/*_eeg.*: give the root of a BIDS dataset whose files have been "
                              "downloaded.")
        return dict(sorted(named.items()))

    def _name(self) -> str:
        try:
            return str(read_mapping(self.root / "dataset_description.json", {"Name": str})["Name"])
        except (OSError, ValueError):  # of no consequence: a name for reports
            return self.root.name

    def _read_events(self, recording: Recording) -> list[_Event]:
        """Labelled stretches of one recording, from its event table or its own annotations."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = self.paths[recording.name].find_matching_sidecar(suffix="events", extension=".tsv",
                                                                     on_error="ignore")
        where, rows = (table, self._table(table)) if table else (recording.path, self._annotations(recording))
        events = [self._event(row, where) for row in rows if self._is_label(row["label"])]
        if not events:
            wanted = f"none of the labels {list(self.labels)}" if self.labels else "no label"
            raise RecordingError(f"{recording.path} has no events: {where} holds {wanted} in column "
                                 f"'{self.columns[0]}'; write an events.tsv, or name the column of the labels.")
        return events

    def _is_label(self, value: str) -> bool:
        return value in self.labels if self.labels else value not in _MISSING

    def _table(self, path: Path) -> list[dict[str, str]]:
        try:
            rows = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        except Exception as error:
            raise RecordingError(f"{path} is not a readable table ({one_line(error)}): it must be tab-separated "
                                 "text.") from None
        affect = {axis: column for axis, column in self.affect_columns.items() if column}
        wanted = ["onset", "duration", *filter(None, self.columns), *affect.values()]
        self.unread |= {column for column in rows if column not in (*wanted, *_STANDARD)}
        if missing := [column for column in wanted if column not in rows]:
            raise RecordingError(f"{path} has no column {', '.join(missing)} (has {', '.join(rows.columns)}): name the "
                                 "column of the labels.")
        label, clip, context = self.columns
        return [{"onset": row["onset"], "duration": row["duration"], "label": row[label].strip(),
                 "clip": row[clip] if clip else "", "context": row[context] if context else "",
                 **{axis: row[column].strip() for axis, column in affect.items()}}
                for row in rows.to_dict("records")]

    def _annotations(self, recording: Recording) -> list[dict[str, str]]:
        if wanted := next(filter(None, (*self.columns[1:], *self.affect_columns.values())), ""):
            raise RecordingError(f"{recording.path} has no events.tsv, and annotations of a file have no column "
                                 f"'{wanted}'; write the table.")
        return [{"onset": str(annotation["onset"]), "duration": str(annotation["duration"]),
                 "label": str(annotation["description"]), "clip": "", "context": ""}
                for annotation in open_raw(recording.path).annotations]

    def _event(self, row: dict[str, str], where: Path) -> _Event:
        try:
            start = float(row["onset"])
            seconds = 0.0 if row["duration"] in _MISSING else float(row["duration"])
            if not (math.isfinite(start) and math.isfinite(seconds)):
                raise ValueError
        except ValueError:
            raise RecordingError(f"{where}: onset '{row['onset']}' and duration '{row['duration']}' are no seconds; "
                                 "correct the table.") from None
        seconds = seconds or self.event_seconds
        if not seconds > 0:
            raise RecordingError(f"{where}: the event '{row['label']}' at {start:g} s has no duration; give "
                                 "'event_seconds'.")
        for name, column in zip(("clip", "context"), self.columns[1:], strict=True):
            if column and row[name] in _MISSING:
                raise RecordingError(f"{where}: the event '{row['label']}' at {start:g} s has no {name}; fill column "
                                     f"'{column}'.")
        return _Event(start, start + seconds, row["label"], row["clip"], row["context"], row.get("valence", ""),
                      row.get("arousal", ""))

    def _number(self) -> None:
        """Number clips by what was shown, or one after the other; sessions by their sorted names."""
        values = sorted({event.clip for events in self._events.values() for event in events},
                        key=lambda text: (len(text), text))
        as_they_are = all(value.isascii() and value.isdigit() and len(value) < 10 for value in values)
        of_value = {value: int(value) if as_they_are else number for number, value in enumerate(values, start=1)}
        self.clips: dict[str, list[int]] = {}
        number, seen = 0, set()
        for name, events in self._events.items():
            self.clips[name] = []
            for event in events:
                number += 1
                clip = of_value[event.clip] if self.columns[1] else number
                if (person := (self.paths[name].subject, clip)) in seen:
                    raise SourceError(f"{self.root}: subject {person[0]} has '{event.clip}' twice in column "
                                      f"'{self.columns[1]}': leave clip_column out, or name every presentation.")
                seen.add(person)
                self.clips[name].append(clip)
        sessions = sorted({path.session or "" for path in self.paths.values()}, key=lambda text: (len(text), text))
        self.sessions = {name: sessions.index(path.session or "") + 1 for name, path in self.paths.items()}

    def _open(self, recording: Recording) -> tuple[mne.io.BaseRaw, Match]:
        if recording.name in self._faults:
            raise RecordingError(self._faults[recording.name])
        open_raw(recording.path)  # refuses what mne-bids reads without a word
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                raw = self._read(self.paths[recording.name])
        except Exception as error:
            raise RecordingError(why_unread(recording.path, error)) from None
        own = [i for i, name in enumerate(raw.annotations.description) if name in self.label_set.labels]
        raw.annotations.delete(own)  # trials, by whatever name: none of them marks a bad stretch
        match = self.matches[recording.name] = place_channels(raw, recording.path, self.within_mm)
        return raw, match

    @staticmethod
    def _read(path: mne_bids.BIDSPath) -> mne.io.BaseRaw:
        try:
            return mne_bids.read_raw_bids(path, verbose="error")
        except Exception as error:
            if "latin1" not in str(error) and not isinstance(error, UnicodeDecodeError):
                raise
            return mne_bids.read_raw_bids(path, {"encoding": "latin1"}, verbose="error")

    def check(self, recording: Recording) -> list[str]:
        """EEG channels of one recording that have a place on the head; raises RecordingError if it cannot be used."""
        raw, match = self._open(recording)
        seconds, last = raw.n_times / raw.info["sfreq"], self._events[recording.name][-1]
        late = [event for event in self._events[recording.name]
                if event.start < 0 or event.stop > seconds + 1 / raw.info["sfreq"]]
        if late:
            raise RecordingError(f"{recording.path} lasts {seconds:g} s, but its event '{late[0].label}' lies from "
                                 f"{late[0].start:g} to {late[0].stop:g} s (the last ends at {last.stop:g} s): correct "
                                 "the table, or copy the complete file.")
        return list(match.places.values())

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """The labelled events of one recording, one stretch in memory at a time."""
        self.check(recording)
        raw, match = self._open(recording)
        ch_names, bads, end = tuple(match.places.values()), bads_of(raw, match), raw.n_times / raw.info["sfreq"]
        for event, clip in zip(self._events[recording.name], self.clips[recording.name], strict=True):
            signal = Stretch(raw, match, recording.path, event.start, min(event.stop, end))
            yield Trial(recording.subject, self.sessions[recording.name], clip, event.label, signal, raw.info["sfreq"],
                        ch_names, context=event.context, bads=bads)
