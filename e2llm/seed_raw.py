"""SEED-VII as the amplifier wrote it: Neuroscan ``.cnt`` files, cut into clips by their triggers.

Trigger 1 starts a clip, trigger 2 ends it; ``trigger_info.csv`` has the same by the clock of the wall. Two recordings have broken
triggers: their clips are cut by the clock, from the time at which the recording is known to have started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import mne
import pandas as pd

from .emotions import SEED_VII, LabelSet
from .montage import SEED_CHANNELS, Match, canonical
from .seed import check_save_info, read_intensities, read_stimuli_order, tables
from .trials import Recording, RecordingError, Source, SourceError, Trial, read_stretch, why_unread

# Start of recordings whose triggers are broken (the data set's own notes), time of the day.
STARTS = {"14_20221015_1": "14:25:34", "9_20221111_3": "14:01:27"}
CLIPS_A_SESSION = 20
# Clips by the triggers and by the clock may differ in length by so much: the table has whole seconds, and two of them.
_SLACK_S = 2.5
_NAME = re.compile(r"(\d+)_(\d{8})_(\d)")


class SeedVIIRaw(Source):
    """The ``EEG_raw`` folder of SEED-VII: ``{subject}_{yyyymmdd}_{session}.cnt``, 1000 Hz, 62 EEG channels and five others.

    Parameters
    ----------
    root : path
        Folder that holds ``EEG_raw``, ``save_info`` and ``emotion_label_and_stimuli_order.xlsx``.
    subjects : int, optional
        Use only the first so many subjects.
    data_format : str
        How samples are stored, for files whose header does not tell: ``int16``, ``int32``, or ``auto``.

    Raises
    ------
    SourceError
        If the folder holds no recording, or the table of labels is missing or unreadable.
    """

    ch_names = SEED_CHANNELS

    def __init__(self, root: str | Path, subjects: int | None = None, data_format: str = "auto") -> None:
        self.root, self.data_format = Path(root), data_format
        self.label_set: LabelSet = SEED_VII
        named = {path: _NAME.fullmatch(path.stem) for path in (self.root / "EEG_raw").glob("*.cnt")}
        found = sorted((int(name[1]), int(name[3]), path) for path, name in named.items() if name)
        if not found:
            raise SourceError(f"{self.root / 'EEG_raw'} holds no files like 1_20221001_1.cnt: data_root must be a SEED-VII folder with its EEG_raw.")
        people = sorted({subject for subject, _, _ in found})[:subjects]
        self.sessions = {path.name: session for _, session, path in found}
        self.recordings = [Recording(path.name, path, str(subject)) for subject, _, path in found if subject in people]
        self.emotions = read_stimuli_order(self.root / "emotion_label_and_stimuli_order.xlsx")

    def inputs(self) -> list[Path]:
        """The recordings that are used, and the tables of labels and times."""
        return [*(recording.path for recording in self.recordings), *tables(self.root)]

    def _open(self, recording: Recording) -> tuple[mne.io.BaseRaw, Match]:
        """An open recording and its 62 channels in the order of the data set; mastoids, heart and eyes are left out."""
        try:
            raw = mne.io.read_raw_cnt(recording.path, data_format=self.data_format, preload=False, verbose="error")
        except Exception as error:
            raise RecordingError(why_unread(recording.path, error)) from None
        own = {canonical(name): name for name in raw.ch_names}
        if missing := [name for name in SEED_CHANNELS if name not in own]:
            raise RecordingError(f"{recording.path} lacks the channels {', '.join(missing[:6])}: SEED-VII has 62; use its own files.")
        return raw, Match({own[name]: name for name in SEED_CHANNELS})

    def check(self, recording: Recording) -> list[str]:
        """Channels of one recording; raises RecordingError with the fact if it cannot be used."""
        raw, _ = self._open(recording)
        self._stretches(recording, raw)
        check_save_info(self.root, recording.subject, self.emotions)
        return list(SEED_CHANNELS)

    def _stretches(self, recording: Recording, raw: mne.io.BaseRaw) -> list[tuple[float, float]]:
        """Start and end of every clip in seconds of the recording."""
        clock = self._clock(recording)
        if recording.path.stem in STARTS:
            if clock is None:
                raise RecordingError(f"{recording.path} has broken triggers and no {self._table(recording).name} in save_info: copy that table.")
            date = recording.path.stem.split("_")[1]
            zero = pd.Timestamp(f"{date} {STARTS[recording.path.stem]}")
            stretches = [tuple((time - zero).total_seconds() for time in pair) for pair in clock]
        else:
            stretches = self._triggered(recording, raw, clock)
        end = raw.n_times / raw.info["sfreq"]
        if outside := [clip for clip, (start, stop) in enumerate(stretches, start=1) if not 0 <= start < stop <= end]:
            raise RecordingError(f"{recording.path}: clips {outside[:5]} of the session lie outside the {end:g} s of the recording; copy the "
                                 "complete file again.")
        return stretches

    def _triggered(self, recording: Recording, raw: mne.io.BaseRaw, clock: list | None) -> list[tuple[float, float]]:
        """Clips by the triggers, held against the clock where that is known."""
        codes = [(float(note["onset"]), str(note["description"]).strip()) for note in raw.annotations]
        starts, stops = ([onset for onset, code in codes if code == wanted] for wanted in ("1", "2"))
        n = CLIPS_A_SESSION if clock is None else len(clock)
        paired = len(starts) == len(stops) == n and all(a < b for a, b in zip(starts, stops, strict=True))
        if not paired or any(b > a for a, b in zip(starts[1:], stops[:-1], strict=True)):
            raise RecordingError(f"{recording.path} has {len(starts)} start and {len(stops)} end triggers for {n} clips, or not in turn: its "
                                 "triggers are broken; leave it out, clips are never guessed.")
        for place, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            known = None if clock is None else (clock[place][1] - clock[place][0]).total_seconds()
            if known is not None and abs(stop - start - known) > _SLACK_S:
                raise RecordingError(f"{recording.path}: clip {place + 1} of the session lasts {stop - start:.1f} s by its triggers, but "
                                     f"{known:.1f} s by {self._table(recording).name}; one of them is of another recording.")
        return list(zip(starts, stops, strict=True))

    def _table(self, recording: Recording) -> Path:
        return self.root / "save_info" / f"{recording.path.stem}_trigger_info.csv"

    def _clock(self, recording: Recording) -> list[tuple[pd.Timestamp, pd.Timestamp]] | None:
        """Start and end of every clip by the clock of the wall, or None without the table."""
        path = self._table(recording)
        if not path.is_file():
            return None
        try:
            rows = pd.read_csv(path, header=None)
            times = pd.to_datetime(rows[1], format="mixed")
        except Exception as error:
            raise RecordingError(f"{path} is not a readable table of triggers and times ({error}): copy it again.") from None
        if not len(rows) or rows[0].tolist() != [1, 2] * (len(rows) // 2) or not times.is_monotonic_increasing:
            raise RecordingError(f"{path} does not list triggers 1 and 2 in turn with rising times: copy it again.")
        return list(zip(times[::2], times[1::2], strict=True))

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """Clips of one recording, one in memory at a time."""
        self.check(recording)
        raw, match = self._open(recording)
        session, traces = self.sessions[recording.name], read_intensities(self.root, recording.subject)
        for place, (start, stop) in enumerate(self._stretches(recording, raw), start=1):
            clip = (session - 1) * CLIPS_A_SESSION + place
            if clip not in self.emotions:
                raise RecordingError(f"{recording.path}: the stimuli order does not list clip {clip}; check the spreadsheet.")
            signal = read_stretch(raw, match, recording.path, start, stop)
            yield Trial(recording.subject, session, clip, self.emotions[clip], signal, raw.info["sfreq"], SEED_CHANNELS, traces.get(str(clip)))
