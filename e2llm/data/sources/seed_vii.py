"""SEED-VII: the preprocessed ``.mat`` files of its folder (or of a twin), with the labels of its own tables."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import mne
import numpy as np
import pandas as pd
from scipy.io import loadmat, whosmat

from ...core.files import one_line
from ...core.labels import SEED_VII, LabelSet
from ...core.montage import SEED_CHANNELS, Match, canonical
from .base import Recording, RecordingError, Source, SourceError, Stretch, Trial, why_unread
from .tables import read_excel

# Five emotions a session; its 20 clips show them, mirrored, then both again (SEED-VII; Jiang et al. 2024).
SEED_SESSION_EMOTIONS: tuple[tuple[str, ...], ...] = (
    ("happy", "neutral", "disgust", "sad", "anger"), ("anger", "sad", "fear", "neutral", "surprise"),
    ("happy", "surprise", "disgust", "fear", "anger"), ("disgust", "sad", "fear", "surprise", "happy"),
)
_SPELLINGS = {"happiness": "happy", "sadness": "sad", "angry": "anger", "surprised": "surprise", "disgusted": "disgust",
              "scared": "fear", "fearful": "fear"}
_NUMBERS = ("double", "single", "int16", "int32")  # MATLAB classes that may hold a signal
_LONGEST_CLIP_S = 7200  # a compressed file of a few MB may hold zeros for hours
_MOST_INTENSITIES = 100_000  # one per 4 s


def is_number(text: str) -> bool:
    """Whether a name is a number as it is written here: "²" is a digit too, and no number of a clip."""
    return text.isascii() and text.isdigit() and len(text) < 10


def clip_emotion(clip: int) -> str:
    """Emotion of clip 1..80 by the published order."""
    session, place = divmod(clip - 1, 20)
    block, i = divmod(place, 5)
    emotions = SEED_SESSION_EMOTIONS[session]
    return emotions[i] if block % 2 == 0 else emotions[4 - i]


class SeedVII(Source):
    """A folder in the layout of SEED-VII: the licensed data, or a twin.

    Parameters
    ----------
    root : path
        Folder that holds ``EEG_preprocessed`` and ``emotion_label_and_stimuli_order.xlsx``.
    subjects : int, optional
        Use only the first so many subjects.

    Raises
    ------
    SourceError
        If the folder or one of its tables is missing or unreadable, or labels disagree.
    """

    sfreq = 200.0
    ch_names = SEED_CHANNELS

    def __init__(self, root: str | Path, subjects: int | None = None) -> None:
        self.root = Path(root)
        self.label_set: LabelSet = SEED_VII
        folder = self.root / "EEG_preprocessed"
        if not folder.is_dir():
            raise SourceError(f"{folder} is missing: data_root must be a SEED-VII folder, or a twin made by 'e2llm "
                              "simulate'.")
        found = sorted((int(path.stem), path) for path in folder.glob("*.mat") if is_number(path.stem))
        if not found:
            raise SourceError(f"{folder} holds no files 1.mat, 2.mat, …: copy the subjects' files there.")
        self.recordings = [Recording(path.name, path, str(number)) for number, path in found[:subjects]]
        self.emotions = read_stimuli_order(self.root / "emotion_label_and_stimuli_order.xlsx")

    def inputs(self) -> list[Path]:
        """The recordings that are used, and the tables of labels; other folders of the data set are never read."""
        return [*(recording.path for recording in self.recordings), *tables(self.root)]

    def check(self, recording: Recording) -> list[str]:
        """Keys of the clips of one file; raises RecordingError with the fact if the file cannot be used."""
        try:
            shapes = {key: (shape, kind) for key, shape, kind in whosmat(recording.path)}
        except NotImplementedError:
            raise RecordingError(f"{recording.path} is a MATLAB v7.3 file: save it again with '-v7'.") from None
        except Exception as error:
            raise RecordingError(f"{recording.path} is not a readable .mat file ({one_line(error)}): copy it "
                                 "again.") from None
        clips = sorted(filter(is_number, shapes), key=int)
        if not clips:
            raise RecordingError(f"{recording.path} has no clips: keys must be '1', '2', …, found "
                                 f"{sorted(shapes)[:5]}.")
        expected = {str(clip) for clip in self._expected_clips()}
        if missing := sorted(expected - set(clips), key=int):
            raise RecordingError(f"{recording.path} lacks clips {', '.join(missing[:8])}: copy the complete file "
                                 "again.")
        for clip in clips:
            if int(clip) not in self.emotions:
                raise RecordingError(f"{recording.path} has clip {clip}, which the stimuli order does not list: check "
                                     "the file.")
            shape, kind = shapes[clip]
            if len(shape) != 2 or shape[0] != len(SEED_CHANNELS) or kind not in _NUMBERS:
                raise RecordingError(f"{recording.path}, clip {clip}: {kind} of shape {shape}, expected (62, samples) "
                                     "of numbers; use the files of EEG_preprocessed as they were distributed.")
            if shape[1] > _LONGEST_CLIP_S * self.sfreq:
                raise RecordingError(f"{recording.path}, clip {clip}: it lasts {shape[1] / self.sfreq:g} s, and no "
                                     f"clip more than {_LONGEST_CLIP_S} s; use the files as they were distributed.")
        _check_save_info(self.root, recording.subject, self.emotions)
        return clips

    def _expected_clips(self) -> set[int]:
        """Clips that the majority of files have: a short file stands out, a scaled-down folder does not."""
        if not hasattr(self, "_expected"):
            counts: dict[int, int] = {}
            for recording in self.recordings:
                try:
                    for key, _, _ in whosmat(recording.path):
                        if is_number(key):
                            counts[int(key)] = counts.get(int(key), 0) + 1
                except Exception:  # reported by check() for the file itself
                    continue
            self._expected = {clip for clip, n in counts.items() if n * 2 > len(self.recordings)}
        return self._expected

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """Trials of one recording, one clip in memory at a time."""
        clips = self.check(recording)
        traces = _read_intensities(self.root, recording.subject)
        for clip in clips:
            try:
                signal = loadmat(recording.path, variable_names=[clip])[clip]
            except Exception as error:
                raise RecordingError(f"{recording.path}, clip {clip}: cannot be read ({one_line(error)}); copy the "
                                     "file again.") from None
            if not np.isfinite(signal).all():
                raise RecordingError(f"{recording.path}, clip {clip}: {int((~np.isfinite(signal)).sum())} samples are "
                                     "not finite; repair or remove the file.")
            yield Trial(recording.subject, (int(clip) - 1) // 20 + 1, int(clip), self.emotions[int(clip)],
                        signal.astype(np.float32), self.sfreq, SEED_CHANNELS, traces.get(clip))


def tables(root: Path) -> list[Path]:
    """Files and folders that labels, intensities and times are read from."""
    return [root / "emotion_label_and_stimuli_order.xlsx", root / "continuous_labels", root / "save_info"]


def _read_intensities(root: Path, subject: str) -> dict[str, np.ndarray]:
    """Intensity traces of one subject, one value per 4 s, by clip number as text; none without a file."""
    path = root / "continuous_labels" / f"{subject}.mat"
    if not path.is_file():
        return {}
    try:
        lengths = {key: math.prod(shape) for key, shape, _ in whosmat(path) if is_number(key)}
        if sum(lengths.values()) > _MOST_INTENSITIES:
            raise ValueError(f"it holds {sum(lengths.values())} values, one per 4 s")
        return {key: np.ravel(value).astype(float) for key, value in loadmat(path, variable_names=list(lengths)).items()
                if key in lengths}
    except Exception as error:
        raise RecordingError(f"{path} holds no readable intensities ({one_line(error)}): copy it again.") from None


def _check_save_info(root: Path, subject: str, emotions: dict[int, str]) -> None:
    """Compare the labels of the spreadsheet with the folder names in save_info; RecordingError if they disagree."""
    for path in sorted((root / "save_info").glob(f"{subject}_*_save_info.csv")):
        try:
            session, movies = int(path.name.split("_")[2]), pd.read_csv(path, header=None)[0]
        except Exception as error:
            raise RecordingError(f"{path} is not a readable table ({one_line(error)}): copy it again.") from None
        for place, movie in enumerate(movies):
            clip = (session - 1) * 20 + place + 1
            shown = _emotion_of_movie(str(movie), path)
            if shown != emotions.get(clip):
                raise RecordingError(f"{path}: clip {clip} is '{shown}', but emotion_label_and_stimuli_order.xlsx says "
                                     f"'{emotions.get(clip)}'; correct the wrong one, labels are never guessed.")


def _emotion_of_movie(movie: str, path: Path) -> str:
    """Emotion named by a folder of a movie's path, Windows or POSIX."""
    for part in reversed(movie.replace("\\", "/").split("/")[:-1]):
        word = _SPELLINGS.get(part.strip().lower(), part.strip().lower())
        if word in SEED_VII.labels:
            return word
    raise RecordingError(f"{path}: no folder of '{movie}' is an emotion of SEED-VII; check the file.")


def read_stimuli_order(path: Path) -> dict[int, str]:
    """Emotion of every clip from the spreadsheet: alternating rows of video indices and emotions.

    Raises
    ------
    SourceError
        If the file is missing, unreadable, or a clip has no known emotion.
    """
    if not path.is_file():
        raise SourceError(f"{path} is missing: it holds the labels; copy it from the dataset.")
    try:
        rows = read_excel(path).iloc[:, 1:].to_numpy()
    except Exception as error:
        raise SourceError(f"{path} is not a readable spreadsheet ({one_line(error)}): copy it again.") from None
    emotions: dict[int, str] = {}
    for indices, names in itertools.pairwise(rows):
        if not all(isinstance(i, int | float) and not pd.isna(i) for i in indices):
            continue
        for index, name in zip(indices, names, strict=True):
            word = str(name).strip().lower()
            word = _SPELLINGS.get(word, word)
            if word not in SEED_VII.labels:
                raise SourceError(f"{path}: clip {int(index)} has the label '{name}', which is none of "
                                  f"{SEED_VII.labels}.")
            emotions[int(index)] = word
    if not emotions:
        raise SourceError(f"{path}: found no row of video indices followed by emotions; copy the original file.")
    return emotions


# Start of recordings whose triggers are broken (the data set's own notes), time of the day.
STARTS = {"14_20221015_1": "14:25:34", "9_20221111_3": "14:01:27"}
CLIPS_A_SESSION = 20
# Clips by the triggers and by the clock may differ in length by so much: the table has whole seconds, and two of them.
CLIP_SLACK_S = 2.5
_NAME = re.compile(r"(\d+)_(\d{8})_(\d)")


class SeedVIIRaw(Source):
    """The ``EEG_raw`` folder of SEED-VII: ``{subject}_{yyyymmdd}_{session}.cnt``, 1000 Hz.

    A file has 62 EEG channels and five others.

    Parameters
    ----------
    root : path
        Folder that holds ``EEG_raw``, ``save_info`` and ``emotion_label_and_stimuli_order.xlsx``.
    subjects : int, optional
        Use only the first so many subjects.
    data_format : str
        How samples are stored, for files whose header does not say: ``int16``, ``int32``, or ``auto``.

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
            raise SourceError(f"{self.root / 'EEG_raw'} holds no files like 1_20221001_1.cnt: data_root must be a "
                              "SEED-VII folder with its EEG_raw.")
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
            raise RecordingError(f"{recording.path} lacks the channels {', '.join(missing[:6])}: SEED-VII has 62; use "
                                 "its own files.")
        return raw, Match({own[name]: name for name in SEED_CHANNELS})

    def check(self, recording: Recording) -> list[str]:
        """Channels of one recording; raises RecordingError with the fact if it cannot be used."""
        raw, _ = self._open(recording)
        self._stretches(recording, raw)
        _check_save_info(self.root, recording.subject, self.emotions)
        return list(SEED_CHANNELS)

    def _stretches(self, recording: Recording, raw: mne.io.BaseRaw) -> list[tuple[float, float]]:
        """Start and end of every clip in seconds of the recording."""
        clock = self.clock(recording)
        if recording.path.stem in STARTS:
            if clock is None:
                raise RecordingError(f"{recording.path} has broken triggers and no {self._table(recording).name} in "
                                     "save_info: copy that table.")
            date = recording.path.stem.split("_")[1]
            zero = pd.Timestamp(f"{date} {STARTS[recording.path.stem]}")
            stretches = [tuple((time - zero).total_seconds() for time in pair) for pair in clock]
        else:
            stretches = self._triggered(recording, raw, clock)
        end = raw.n_times / raw.info["sfreq"]
        if outside := [clip for clip, (start, stop) in enumerate(stretches, start=1) if not 0 <= start < stop <= end]:
            raise RecordingError(f"{recording.path}: clips {outside[:5]} of the session lie outside the {end:g} s of "
                                 "the recording; copy the complete file again.")
        return stretches

    def _triggered(self, recording: Recording, raw: mne.io.BaseRaw, clock: list | None) -> list[tuple[float, float]]:
        """Clips by the triggers, held against the clock where that is known."""
        codes = [(float(note["onset"]), str(note["description"]).strip()) for note in raw.annotations]
        starts, stops = ([onset for onset, code in codes if code == wanted] for wanted in ("1", "2"))
        n = CLIPS_A_SESSION if clock is None else len(clock)
        paired = len(starts) == len(stops) == n and all(a < b for a, b in zip(starts, stops, strict=True))
        if not paired or any(b > a for a, b in zip(starts[1:], stops[:-1], strict=True)):
            raise RecordingError(f"{recording.path} has {len(starts)} start and {len(stops)} end triggers for {n} "
                                 "clips, or not in turn: its triggers are broken; leave it out, clips are never "
                                 "guessed.")
        for place, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            known = None if clock is None else (clock[place][1] - clock[place][0]).total_seconds()
            if known is not None and abs(stop - start - known) > CLIP_SLACK_S:
                raise RecordingError(f"{recording.path}: clip {place + 1} of the session lasts {stop - start:.1f} s by "
                                     f"its triggers, but {known:.1f} s by {self._table(recording).name}; one of them "
                                     "is of another recording.")
        return list(zip(starts, stops, strict=True))

    def _table(self, recording: Recording) -> Path:
        return self.root / "save_info" / f"{recording.path.stem}_trigger_info.csv"

    def clock(self, recording: Recording) -> list[tuple[pd.Timestamp, pd.Timestamp]] | None:
        """Start and end of every clip by the clock of the wall, or None without the table."""
        return read_clock(self._table(recording))

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """Clips of one recording, one in memory at a time."""
        self.check(recording)
        raw, match = self._open(recording)
        session, traces = self.sessions[recording.name], _read_intensities(self.root, recording.subject)
        for place, (start, stop) in enumerate(self._stretches(recording, raw), start=1):
            clip = (session - 1) * CLIPS_A_SESSION + place
            if clip not in self.emotions:
                raise RecordingError(f"{recording.path}: the stimuli order does not list clip {clip}; check the "
                                     "spreadsheet.")
            signal = Stretch(raw, match, recording.path, start, stop)
            yield Trial(recording.subject, session, clip, self.emotions[clip], signal, raw.info["sfreq"], SEED_CHANNELS,
                        traces.get(str(clip)))


def read_clock(path: Path) -> list[tuple[pd.Timestamp, pd.Timestamp]] | None:
    """Start and end of every clip of a session by the clock of the wall, or None without the table.

    Raises
    ------
    RecordingError
        If the table is unreadable or does not hold triggers 1 and 2 in turn.
    """
    if not path.is_file():
        return None
    try:
        rows = pd.read_csv(path, header=None)
        times = pd.to_datetime(rows[1], format="mixed")
    except Exception as error:
        raise RecordingError(f"{path} is not a readable table of triggers and times ({one_line(error)}): copy it "
                             "again.") from None
    if not len(rows) or rows[0].tolist() != [1, 2] * (len(rows) // 2) or not times.is_monotonic_increasing:
        raise RecordingError(f"{path} does not list triggers 1 and 2 in turn with rising times: copy it again.")
    return list(zip(times[::2], times[1::2], strict=True))
