"""What every source of recordings yields, and how files of any format that MNE reads become it.

Channels are placed by name or position in one function, signals leave it as float32 microvolts, and a fault of a
file concerns that file alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mne
import numpy as np

from ...core.channel_names import foreign_names
from ...core.files import one_line
from ...core.labels import LabelSet
from ...core.montage import NEAR_MM, Match, match_channels
from .edf_header import read_edf_header
from .remedies import is_ant, remedy_for


class RecordingError(Exception):
    """A recording that cannot be used; the message names file, fact and remedy. The others go on."""


class SourceError(Exception):
    """A data source that cannot be used at all; the message names file, fact and remedy."""


@dataclass(frozen=True)
class Flaw:
    """What is wrong, or may be wrong, with a recording.

    Parameters
    ----------
    severity : str
        ``refuse``: the recording is left out. ``drop``: a trial, or windows of it, are left out. ``warn``: it is used.
    rule : str
        Short name of the check.
    fact, remedy : str
        Halves of a sentence: what was seen, and what to do.
    windows : int
        Number of windows that are left out for it.
    """

    severity: str
    rule: str
    fact: str
    remedy: str
    windows: int = 0

    def __str__(self) -> str:
        return f"{self.fact}: {self.remedy}."


class Signal(Protocol):
    """Samples that are sliced along time: an array, or what reads them from a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels and samples."""

    def __getitem__(self, where, /) -> np.ndarray:
        """Float32 microvolts."""


INTENSITY_S = 4.0  # seconds that one value of an intensity trace stands for, as SEED-VII has them


@dataclass(frozen=True)
class Trial:
    """One labelled stretch of signal.

    Parameters
    ----------
    subject, session, clip
        Who was recorded, when, and what was shown.
    label : str
        Of the source's label set.
    signal : Signal, shape (n_channels, n_samples)
        Float32 microvolts, in memory (ndarray) or in a file (:class:`Stretch`).
    sfreq : float
        Sampling rate in Hz.
    ch_names : tuple of str
        Canonical names.
    intensity : ndarray, optional
        One value per :data:`INTENSITY_S`.
    context : str
        How the label was evoked ("video", "imagery"); empty where a source has one way only.
    bads : tuple of str
        Channels that the file marks as bad.
    """

    subject: str
    session: int
    clip: int
    label: str
    signal: Signal
    sfreq: float
    ch_names: tuple[str, ...]
    intensity: np.ndarray | None = None
    context: str = ""
    bads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recording:
    """What is read, and fails, as one: a file of a source, or the files of one person that belong together."""

    name: str
    path: Path
    subject: str


class Source(Protocol):
    """A data source: what :func:`e2llm.data.preprocessing.write_windows` needs of one.

    ``matches``, where a source has it, holds the places of the channels of each recording. A class that names this
    one as its base takes over :meth:`inputs`, :meth:`answers` and :meth:`remarks`.
    """

    root: Path
    label_set: LabelSet
    recordings: list[Recording]

    def inputs(self) -> list[Path]:
        """Files that trials are made from, there or not, and folders of which every file counts; default the root."""
        return [self.root]

    def answers(self, present: Iterable[str]) -> LabelSet:
        """Labels that can be answers where these have windows; default all, for a published set is closed."""
        return self.label_set

    def remarks(self) -> list[tuple[str, Flaw]]:
        """What is to be said of its tables, each with the name of the table; default nothing."""
        return []

    def check(self, recording: Recording) -> list[str]:
        """Channels of one recording by their canonical names; raises RecordingError if it cannot be used."""

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """Trials of one recording, one in memory at a time."""


def open_raw(path: Path) -> mne.io.BaseRaw:
    """Open any file that MNE reads, without its signal; RecordingError names file, reason and remedy."""
    try:
        if path.suffix.lower() in (".vhdr", ".ahdr"):
            _check_brainvision(path)
        raw = _read_raw(path)
    except Exception as error:
        raise RecordingError(why_unread(path, error)) from None
    if not 0 < raw.info["sfreq"] < math.inf or raw.n_times < 1:
        raise RecordingError(f"{path} has {raw.n_times} samples at {raw.info['sfreq']:g} Hz by its header: copy it "
                             "again.")
    header = read_edf_header(path)
    if header is not None and header.gaps:
        at, length = header.gaps[0]
        raise RecordingError(f"{path} has {len(header.gaps)} gaps, the first of {length:g} s at {at:g} s: save its "
                             "continuous parts as files of their own, for times after a gap would name other signal.")
    return raw


def _read_raw(path: Path) -> mne.io.BaseRaw:
    if path.suffix.lower() == ".cnt" and not is_ant(path):  # MNE would try two readers and hide why both fail
        return mne.io.read_raw_cnt(path, preload=False, verbose="error")
    try:
        return mne.io.read_raw(path, preload=False, verbose="error")
    except Exception as error:
        if "latin1" not in str(error) and not isinstance(error, UnicodeDecodeError):
            raise
        return mne.io.read_raw(path, preload=False, encoding="latin1", verbose="error")


def _check_brainvision(path: Path) -> None:
    """Refuse lost companions of a header: MNE reads a recording without its markers and does not warn."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for key, name in re.findall(r"^(DataFile|MarkerFile)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE):
        if not name and key == "DataFile":
            raise FileNotFoundError("its header names no DataFile")
        if name and not (path.parent / name.replace("$b", path.stem)).is_file():
            raise FileNotFoundError(f"its header names {name}, which is not in its folder")


def why_unread(path: Path, error: Exception) -> str:
    """Why MNE cannot read a file, in one sentence, and what to do.

    Parameters
    ----------
    path : Path
        The file.
    error : Exception
        What MNE raised.
    """
    fact = re.sub(r'^File ".*?\b\w+Error: ', "", one_line(error))  # MNE may put lines of its code before the reason
    remedy = remedy_for(path, fact)
    return f"{path} cannot be read by MNE ({fact.removesuffix('.')}).{f' {remedy}.' if remedy else ''}"


def place_channels(raw: mne.io.BaseRaw, path: Path, within_mm: float = NEAR_MM) -> Match:
    """Where the EEG channels of an open recording lie.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        The recording.
    path : Path
        Its file, for messages.
    within_mm : float
        As in :func:`e2llm.core.montage.match_channels`.

    Raises
    ------
    RecordingError
        If no channel has a place, two have the same, or the names are those of another system.
    """
    picks = mne.pick_types(raw.info, eeg=True, exclude=())
    names = [raw.ch_names[i] for i in picks]
    match = match_channels(names, {raw.ch_names[i]: raw.info["chs"][i]["loc"][:3] for i in picks}, within_mm)
    if not match.places:
        fact = f"has no channel with a known 10-05 name (has {(names or raw.ch_names)[:6]})"
        if match.bipolar:
            fact = f"has bipolar derivations only ({', '.join(match.bipolar[:4])}), which lie at no place on the head"
        elif not names:
            units = {raw._orig_units.get(name, "") for name in raw.ch_names[:6]} - {""}
            units_said = f", in {', '.join(sorted(units))}" if units else ""
            fact = f"has no channel of type EEG (has {raw.ch_names[:6]}{units_said})"
        raise RecordingError(f"{path} {fact}: rename its channels, or use referential recordings.")
    by_name = [name for name in match.places if name not in match.by_position]
    if foreign := foreign_names(raw.ch_names, by_name):
        raise RecordingError(f"{path} numbers its channels by itself: {', '.join(foreign[:6])} look like names of the "
                             "10-20 system and lie elsewhere; rename all channels to 10-05 names.")
    if match.doubled:
        raise RecordingError(f"{path} has more than one channel at {', '.join(match.doubled)}: keep one of each.")
    return match


# Annotations by the convention of MNE ("BAD_blink"), and breaks as EEGLAB and BrainVision write them.
_BAD = re.compile(r"(bad|edge)(?![a-z])", re.IGNORECASE)
_BREAK = re.compile(r"boundary$|New Segment/", re.IGNORECASE)
_PIECE = 2**14  # samples that MNE reads at a time, in double precision


class Stretch:
    """Signal of the placed channels between two times, read from the file where it is sliced: ``stretch[:, 0:500]``.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        The recording.
    match : Match
        Its channels.
    path : Path
        Its file, for messages.
    start, stop : float
        Seconds of the recording; default all of it.

    Raises
    ------
    RecordingError
        If the stretch is outside the recording, and when it is sliced, if the file cannot be read there or holds
        samples that are not finite.
    """

    dtype = np.dtype(np.float32)  # microvolts

    def __init__(self, raw: mne.io.BaseRaw, match: Match, path: Path, start: float = 0.0,
                 stop: float | None = None) -> None:
        sfreq, last = raw.info["sfreq"], raw.n_times
        first, end = round(start * sfreq), last if stop is None else round(stop * sfreq)
        if not 0 <= first < end <= last:
            raise RecordingError(f"{path}: the stretch from {start:g} to {end / sfreq:g} s is not inside the "
                                 f"{last / sfreq:g} s of the recording; correct the times.")
        self.raw, self.picks, self.path, self.first = raw, list(match.places), path, first
        self.shape = (len(self.picks), end - first)

    @property
    def lost(self) -> list[tuple[float, float, str]]:
        """Start and stop in seconds of the stretch, and name, of what the file marks as bad or as a break."""
        seconds = self.shape[1] / self.raw.info["sfreq"]
        return [(max(start, 0.0), min(stop, seconds), name) for start, stop, name in self._marks()
                if start < seconds and stop > 0 and (_BAD.match(name) or start > 0)]

    def _marks(self) -> list[tuple[float, float, str]]:
        """Start and stop in seconds from the stretch's start, and name, of all marks of the file."""
        sfreq, notes = self.raw.info["sfreq"], self.raw.annotations
        # Times of annotations count from the first sample of the amplifier if they have a date, else from that saved.
        starts = notes.onset - (self.raw.first_time if notes.orig_time else 0.0) - self.first / sfreq
        stops = np.maximum(starts + notes.duration, starts + 1 / sfreq)
        found = zip(starts.tolist(), stops.tolist(), map(str, notes.description), strict=True)
        return [mark for mark in found if _BAD.match(mark[2]) or _BREAK.match(mark[2])]

    def around(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to n samples before the stretch, and after it: as far as the recording goes on without a mark.

        What the file marks as bad or as a break ends them, and so does the recording. They may hold values that are
        not finite, for they are no part of the stretch.
        """
        first, end = self.first, self.first + self.shape[1]
        begin, stop = max(first - n, 0), min(end + n, self.raw.n_times)
        for start_s, stop_s, name in self._marks():
            at = first + round(start_s * self.raw.info["sfreq"])
            until = at if _BREAK.match(name) else first + round(stop_s * self.raw.info["sfreq"])
            if at <= first:
                begin = max(begin, min(until, first))
            if until >= end:
                stop = min(stop, max(at, end))
        return self._samples(begin, first), self._samples(end, stop)

    @property
    def facts(self) -> dict[str, object]:
        """What the file's header says: lowest ``rate`` of the channels in Hz, their ``units``, records lost (share).

        A table of samples has ``notes`` instead, on what it does not say.
        """
        units = {unit for name in self.picks if (unit := self.raw._orig_units.get(name))}
        header = read_edf_header(self.path)
        if header is None:
            notes = list(getattr(self.raw, "notes", ()))
            return {"units": units, "notes": notes} if notes else {"units": units}
        rates = [rate for name in self.picks if (rate := header.rate_of(name))]
        units = {unit for name in self.picks if (unit := header.unit_of(name)) is not None} or units
        lost = 1 - header.found / header.stated if header.stated > 0 else 0.0
        return {"units": units, "rate": min(rates, default=self.raw.info["sfreq"]), "lost": lost,
                "seconds": header.stated * header.record_s}

    def __getitem__(self, where) -> np.ndarray:
        """Index it as an array; of ``[:, start:stop]`` only that span is read, of anything else all."""
        if isinstance(where, tuple) and where[0] == slice(None) and isinstance(where[1], slice) and not where[1].step:
            return self._read(*where[1].indices(self.shape[1])[:2])
        return np.asarray(self)[where]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """Return all of it in memory."""
        return np.asarray(self._read(0, self.shape[1]), dtype=dtype)

    def _samples(self, start: int, stop: int) -> np.ndarray:
        """Samples of the recording, not of the stretch."""
        signal = np.empty((len(self.picks), stop - start), dtype=np.float32)
        try:
            for at in range(start, stop, _PIECE):
                signal[:, at - start : at - start + _PIECE] = self.raw.get_data(
                    picks=self.picks, start=at, stop=min(at + _PIECE, stop), units="uV", verbose="error")
        except Exception as error:
            raise RecordingError(why_unread(self.path, error)) from None
        return signal

    def _read(self, start: int, stop: int) -> np.ndarray:
        start, stop = self.first + start, self.first + stop
        signal = self._samples(start, stop)
        if not np.isfinite(signal).all():
            sfreq = self.raw.info["sfreq"]
            raise RecordingError(f"{self.path}: {int((~np.isfinite(signal)).sum())} samples between "
                                 f"{start / sfreq:g} and {stop / sfreq:g} s are not finite; repair or remove the file.")
        return signal


def bads_of(raw: mne.io.BaseRaw, match: Match) -> tuple[str, ...]:
    """Canonical names of the channels that the file marks as bad.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        The recording.
    match : Match
        Its channels.
    """
    return tuple(match.places[name] for name in raw.info["bads"] if name in match.places)
