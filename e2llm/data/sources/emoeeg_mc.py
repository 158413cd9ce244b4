"""EmoEEG-MC (Xu et al. 2025, Sci. Data; OpenNeuro ds005540, CC0): seven emotions, each evoked by video and by imagery.

What its files do not say stands in its README.md, which is read, not copied: which trigger means what for whom, and who
had which stimuli in which order. Triggers are annotations of the EDF files ("TypeID: 33"): the start of a video or of
an imagery, the button pressed when an imagery fades, the start of the rating. A trial ends where its rating begins, an
imagery at the first press; its last 30 seconds are used, as in the data set's own analysis.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ...core.files import one_line
from ...core.labels import EMOEEG_MC, LabelSet
from ...core.montage import NEAR_MM, Match
from .base import (
    INTENSITY_S,
    Recording,
    RecordingError,
    Source,
    SourceError,
    Stretch,
    Trial,
    bads_of,
    open_raw,
    place_channels,
)

# Names of stimuli ("sad4") begin with these.
EMOTION_OF = {"joy": "joy", "ins": "inspiration", "ten": "tenderness", "fear": "fear", "dis": "disgust",
              "sad": "sadness", "neu": "neutral"}
# Columns score_1 … score_6 of the beh tables, 0-7 each: how much of an emotion was felt. Neutral has none.
RATED = ("joy", "inspiration", "tenderness", "sadness", "fear", "disgust")
CONTEXTS = ("imagery", "video")
# Stimuli in the order that the data set calls "reordered"; a clip number is the place there, videos after imageries.
STIMULI = tuple(f"{name}{number}" for name in ("sad", "dis", "fear", "neu", "joy", "ten", "ins")
                for number in (4, 5, 8))
# One line of the README spells it "fede".
_KINDS = {"vid": "video", "ima": "imagery", "fade": "fade", "fede": "fade", "rating": "rating"}
_RATING_MAX = 7.0


@dataclass(frozen=True)
class Guide:
    """Content of the README.

    Parameters
    ----------
    codes : dict
        Subject to trigger to kind.
    orders : dict
        Subject and context to stimuli in the order shown.
    """

    codes: dict[str, dict[int, str]]
    orders: dict[tuple[str, str], tuple[str, ...]]


def read_guide(path: Path) -> Guide:
    """Trigger codes and orders of stimuli from the data set's README.

    Raises
    ------
    SourceError
        If the file is missing, holds none of either, or an order names a stimulus that does not exist, or one twice.
    """
    if not path.is_file():
        raise SourceError(f"{path} is missing: it holds the meaning of triggers, and who saw what; copy it from the "
                          "data set.")
    text = path.read_text(encoding="utf-8", errors="replace")
    pair = rf"(?:{'|'.join(_KINDS)})\s*-\s*\d{{1,9}}"
    codes = {}
    for subject, pairs in re.findall(rf"sub-(\d+)\s*:\s*((?:{pair}[\s,]*)+)", text):
        found = re.findall(rf"({'|'.join(_KINDS)})\s*-\s*(\d{{1,9}})", pairs)
        codes[subject] = {int(code): _KINDS[kind] for kind, code in found}
    orders: dict[tuple[str, str], tuple[str, ...]] = {}
    subject, start = "", 0
    for listed in re.finditer(r"`(\[[^`\n]*\])`", text):
        before, start = text[start : listed.start()], listed.end()
        if number := re.search(r"^(\d{1,9})\.\s*$", before, re.MULTILINE):
            subject, before = f"{int(number[1]):02d}", "imagery video"
        elif named := re.findall(r"\*\*sub-?(\d+)", before):
            subject, before = named[-1], before[before.rindex(f"sub{named[-1]}") :]
        try:
            names = tuple(map(str, ast.literal_eval(listed[1])))
        except Exception:  # no list of Python
            names = ("",)
        if len(set(names)) != len(names) or not set(names) <= set(STIMULI):
            raise SourceError(f"{path}: the order {listed[1]!r:.60}… of subject {subject} names an unknown stimulus, "
                              "or one twice; copy it again.")
        orders |= {(subject, context): names for context in CONTEXTS if context in before.lower()}
    if not codes or not orders:
        raise SourceError(f"{path} lists no trigger codes ('sub-02: vid-33 …') or no orders of stimuli: copy the "
                          "original file.")
    return Guide(codes, orders)


@dataclass(frozen=True)
class _Stretch:
    """One trial before its signal is read."""

    path: Path
    session: int
    start: float
    stop: float
    context: str
    stimulus: str = ""


class EmoEEGMC(Source):
    """A folder of EmoEEG-MC: ``sub-XX/eeg/sub-XX_task-emotion[_run-YY]_eeg.edf`` and ``README.md``.

    The tables of ratings (``beh``) are optional.

    Parameters
    ----------
    root : path
        The data set, or the subjects of it that were downloaded.
    subjects : int, optional
        Use only the first so many subjects.
    contexts : sequence of str
        Which of "imagery" and "video".
    seconds : float
        How much of the end of a trial is used; a shorter trial is used whole. 0: the whole trial.
    within_mm : float
        As in :class:`e2llm.data.sources.folder.LabelledFolder`.

    Raises
    ------
    SourceError
        If there is no subject's folder, no README, or a context is unknown.
    """

    def __init__(self, root: str | Path, subjects: int | None = None, contexts: Sequence[str] = CONTEXTS,
                 seconds: float = 30.0, within_mm: float = NEAR_MM) -> None:
        self.root, self.seconds, self.within_mm = Path(root), seconds, within_mm
        self.label_set: LabelSet = EMOEEG_MC
        if unknown := sorted(set(contexts) - set(CONTEXTS)) or (["none"] if not contexts else []):
            raise SourceError(f"EmoEEG-MC has the contexts {', '.join(CONTEXTS)}, not {', '.join(unknown)}.")
        self.contexts = tuple(contexts)
        folders = sorted(path for path in self.root.glob("sub-*") if (path / "eeg").is_dir())[:subjects]
        if not folders:
            raise SourceError(f"{self.root} holds no folders sub-01/eeg, sub-02/eeg, …: data_root must be a copy of "
                              "OpenNeuro ds005540 (openneuro-py download --dataset=ds005540 --target-dir=FOLDER).")
        self.guide = read_guide(self.root / "README.md")
        self.recordings = [Recording(path.name, path, path.name.removeprefix("sub-")) for path in folders]
        self.matches: dict[str, Match] = {}
        self._plans: dict[str, list[_Stretch]] = {}

    def inputs(self) -> list[Path]:
        """The folders of the subjects who are used, and the README with triggers and orders."""
        return [self.root / "README.md", *(recording.path for recording in self.recordings)]

    def check(self, recording: Recording) -> list[str]:
        """EEG channels that all files of one person have; raises RecordingError if the trials are not clear."""
        stretches = self._plan(recording)
        places = [list(place_channels(open_raw(path), path, self.within_mm).places.values())
                  for path in self._files(recording)]
        first = stretches[0].path
        self.matches[recording.name] = place_channels(open_raw(first), first, self.within_mm)
        return [name for name in places[0] if all(name in others for others in places)]

    def _files(self, recording: Recording) -> list[Path]:
        files = sorted((recording.path / "eeg").glob("*_eeg.edf"))
        if not files or not all(path.is_file() for path in files):
            raise RecordingError(f"{recording.path / 'eeg'} holds no EDF file, or one that was not downloaded: fetch "
                                 "the subject's signals.")
        return files

    def _plan(self, recording: Recording) -> list[_Stretch]:
        """Trials of one person in the order of time, with the stimulus of each; never guessed where counts disagree."""
        if recording.name not in self._plans:
            found = [stretch for run, path in enumerate(self._files(recording), start=1)
                     for stretch in self._stretches(path, run, recording.subject)]
            counts = {context: sum(stretch.context == context for stretch in found) for context in CONTEXTS}
            wanted = {context: self.guide.orders.get((recording.subject, context), ()) for context in CONTEXTS}
            if any(counts[context] > len(wanted[context]) for context in CONTEXTS):
                found = _in_blocks(found)
                counts = {context: sum(stretch.context == context for stretch in found) for context in CONTEXTS}
            for context in CONTEXTS:
                if counts[context] != len(wanted[context]) or not wanted[context]:
                    raise RecordingError(f"{recording.name}: its triggers give {counts[context]} {context} trials, "
                                         f"README.md lists {len(wanted[context])} stimuli; labels are never guessed, "
                                         "leave the subject out.")
            shown = {context: iter(wanted[context]) for context in CONTEXTS}
            self._plans[recording.name] = [_Stretch(s.path, s.session, s.start, s.stop, s.context,
                                                    next(shown[s.context])) for s in found]
        return self._plans[recording.name]

    def _stretches(self, path: Path, run: int, subject: str) -> list[_Stretch]:
        """Trials of one file: from a start to the press or rating that ends it; a start without one is left out."""
        events = self._events(path, subject)
        found = []
        for i, (onset, kind) in enumerate(events):
            if kind not in CONTEXTS:
                continue
            end = next((j for j in range(i + 1, len(events)) if events[j][1] in (*CONTEXTS, "rating")), None)
            if end is None or events[end][1] != "rating":
                continue  # broken off: shown again, or the recording ended
            pressed = [time for time, what in events[i + 1 : end] if what == "fade" and kind == "imagery"]
            stop = pressed[0] if pressed else events[end][0]
            start = max(onset, stop - self.seconds) if self.seconds else onset
            found.append(_Stretch(path, run, start, stop, kind))
        return found

    def _events(self, path: Path, subject: str) -> list[tuple[float, str]]:
        """Times and kinds of the triggers of one file; codes with an unlisted tens digit count by their last digit."""
        if subject not in self.guide.codes:
            raise RecordingError(f"{path}: README.md lists no trigger codes for sub-{subject}; use the data set's own "
                                 "README.")
        codes = self.guide.codes[subject]
        notes = [(float(note["onset"]), re.search(r"(\d{1,9})\s*$", str(note["description"])))
                 for note in open_raw(path).annotations]
        triggers = [(onset, int(number[1])) for onset, number in notes if number]
        if not any(codes.get(code) in CONTEXTS for _, code in triggers):
            codes = {code % 10: kind for code, kind in codes.items()}
            triggers = [(onset, code % 10) for onset, code in triggers]
        return sorted((onset, codes[code]) for onset, code in triggers if code in codes)

    def _intensities(self, recording: Recording, stretches: list[_Stretch]) -> list[float | None]:
        """Rated intensity of each trial's label in [0, 1]; None for neutral, and for all if the rows do not fit."""
        paths = sorted((recording.path / "beh").glob("*_beh.tsv"))
        if not paths:
            return [None] * len(stretches)
        try:
            columns = [f"score_{i}" for i in range(1, len(RATED) + 1)]
            scores = pd.read_csv(paths[0], sep="\t", na_values="n/a")[columns].dropna(how="all")
        except Exception as error:
            raise RecordingError(f"{paths[0]} is not a readable table of ratings ({one_line(error)}): copy it "
                                 "again, or remove it.") from None
        if len(scores) != len(stretches):
            return [None] * len(stretches)
        labels = [EMOTION_OF[stretch.stimulus[:-1]] for stretch in stretches]
        return [float(row[RATED.index(label)]) / _RATING_MAX if label in RATED else None
                for label, row in zip(labels, scores.to_numpy(dtype=float), strict=True)]

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """Trials of one person in the order of time, one in memory at a time."""
        stretches = self._plan(recording)
        names, raws = self.check(recording), {path: open_raw(path) for path in self._files(recording)}
        for stretch, intensity in zip(stretches, self._intensities(recording, stretches), strict=True):
            if stretch.context not in self.contexts:
                continue
            raw = raws[stretch.path]
            match = place_channels(raw, stretch.path, self.within_mm)
            own = {name: place for name, place in match.places.items() if place in names}
            signal = Stretch(raw, Match(own), stretch.path, stretch.start, stretch.stop)
            clip = STIMULI.index(stretch.stimulus) + 1 + len(STIMULI) * CONTEXTS.index(stretch.context)
            n_values = int(np.ceil((stretch.stop - stretch.start) / INTENSITY_S))
            trace = None if intensity is None else np.full(n_values, intensity)
            yield Trial(recording.subject, stretch.session, clip, EMOTION_OF[stretch.stimulus[:-1]], signal,
                        raw.info["sfreq"], tuple(own.values()), trace, stretch.context, bads_of(raw, match))


def _in_blocks(stretches: list[_Stretch]) -> list[_Stretch]:
    """Stretches in blocks of three of one context: trials come in such blocks, practised or repeated ones do not."""
    kept: list[_Stretch] = []
    i = 0
    while i < len(stretches):
        block = stretches[i : i + 3]
        if len(block) == 3 and len({stretch.context for stretch in block}) == 1:
            kept, i = kept + block, i + 3
        else:
            i += 1
    return kept
