"""The gate between recordings and windows: what is wrong with a signal, or may be, is found before anything learns.

A fault of this kind raises no error by itself. Microvolts that are read as volts, a minute of zeros, two files that
hold one signal: a model learns from all of them. :class:`SignalWatch` looks at the signal while it is read for
filtering, so nothing is read twice; :func:`judge_trial`, :func:`judge_recording` and :func:`judge_together` say what it
means. Thresholds are wide: they are to find faults of a file, not noisy people.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used

from .sources.base import Flaw, Trial
from .swapped_channels import correlations_of, exchanged_channels

QUALITY = ("strict", "warn")
PLAUSIBLE_UV = (0.1, 500.0)  # root mean square of 1-45 Hz, median over channels and windows; outside: another unit
USUAL_UV = (1.0, 150.0)  # of scalp EEG of awake people
APART = (5.0, 20.0)  # times the median of the other recordings, of three or more: to warn, and to refuse
DEAD_S = 0.5  # no channel changes for so long: nothing was recorded
STILL = 0.98  # share of a window's samples that equal the one before, of a channel that is flat
CLIPPED = 0.05  # share of a window's samples that stay at the largest or smallest value of the window
BAD_SHARE = 0.25  # of channels, beyond which they cannot be repaired from the others
COPY = 0.99999  # correlation of two channels of which one is a copy
MAINS = 0.5  # share of power at 50 or 60 Hz; the filter stops it
CUT_SHARE = 0.01  # of records that may be missing at the end of a file
MARKS, SAME = 16, 0.005  # coordinates of log power by which a copy is known, and how little they differ
FINDING_COLUMNS = ("recording", "subject", "severity", "rule", "fact", "remedy", "windows")
_LINE_EVERY = 8  # windows, of which one is transformed for the share of the mains


class SignalWatch:
    """A trial's signal that is looked at while it is read: index it like the signal.

    Parameters
    ----------
    signal : array, shape (n_channels, n_samples)
        Microvolts, sliced along time from the beginning to the end.
    sfreq : float
        Its rate in Hz.
    window_s : float
        Length of a window in seconds.

    Attributes
    ----------
    flat, clipped : list of float
        For every window, share of channels that do not change, and that stay at their largest or smallest value.
    dead_s : list of float
        For every window, longest time in seconds in which no channel changes.
    mains : list of float
        Median over every fourth channel of the share of power at 50 or 60 Hz, of every eighth window.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, signal, sfreq: float, window_s: float) -> None:
        self.signal, self.sfreq, self.shape = signal, sfreq, signal.shape
        self._length, self._suspect = window_s * sfreq, 0.8 * min(CLIPPED, DEAD_S / window_s)
        self._rest, self._seen = np.empty((signal.shape[0], 0), dtype=np.float32), 0
        self.flat: list[float] = []
        self.clipped: list[float] = []
        self.dead_s: list[float] = []
        self.mains: list[float] = []

    def __getitem__(self, where) -> np.ndarray:
        """Samples as the signal gives them."""
        samples = self.signal[where]
        if isinstance(where, tuple) and isinstance(where[1], slice):
            self._look(where[1].indices(self.shape[1])[0], samples)
        return samples

    def around(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Up to n samples on either side of the signal, if it is a stretch of a recording; they are not looked at."""
        none = np.empty((self.shape[0], 0), dtype=np.float32)
        return self.signal.around(n) if hasattr(self.signal, "around") else (none, none)

    def _look(self, first: int, samples: np.ndarray) -> None:
        """Cut what is new into windows; a window that is not complete waits for the next call."""
        new, origin = samples[:, max(self._seen - first, 0) :], self._seen
        self._seen = max(self._seen, first + samples.shape[1])
        while (stop := round((len(self.flat) + 1) * self._length)) <= self._seen:
            self._judge(self._between(round(len(self.flat) * self._length), stop, new, origin))
        self._rest = self._between(round(len(self.flat) * self._length), self._seen, new, origin).copy()

    def _between(self, start: int, stop: int, new: np.ndarray, origin: int) -> np.ndarray:
        """Samples of the trial from what waits and what is new."""
        if start >= origin:
            return new[:, start - origin : stop - origin]
        waits = self._rest[:, self._rest.shape[1] - (origin - start) :]
        return np.concatenate([waits, new[:, : stop - origin]], axis=1)

    def _judge(self, window: np.ndarray) -> None:
        if len(self.flat) % _LINE_EVERY == 0 and self.sfreq > 130:
            self.mains.append(_mains_share(window[:: _LINE_EVERY // 2], self.sfreq))
        flat, clipped, dead_s = 0.0, 0.0, 0.0
        # Every fourth pair of samples shows whether there is anything to look at.
        if ((window[:, 1::4] == window[:, :-1:4]).mean(axis=1) > self._suspect).any():
            same = window[:, 1:] == window[:, :-1]
            still = same.mean(axis=1)
            dead_s = int(runs(same.all(axis=0))[1].max(initial=0)) / self.sfreq
            flat = float((still >= STILL).mean())
            clipped = sum(_is_clipped(window[channel, 1:], same[channel])
                          for channel in np.flatnonzero((still > CLIPPED) & (still < STILL))) / len(window)
        self.flat.append(flat)
        self.clipped.append(clipped)
        self.dead_s.append(dead_s)


def _is_clipped(x: np.ndarray, same: np.ndarray) -> bool:
    """Whether a channel stays at its largest or smallest value, where it equals the sample before."""
    return bool(np.count_nonzero(((x == x.max()) | (x == x.min())) & same) > CLIPPED * len(x))


def runs(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the runs of true values.

    Parameters
    ----------
    flags : ndarray of bool, shape (n,)
        Values in order.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return edges[::2], edges[1::2] - edges[::2]


@lru_cache(maxsize=16)
def _taper(length: int) -> np.ndarray:
    return scipy.signal.windows.hann(length, sym=False).astype(np.float32)


def _mains_share(window: np.ndarray, sfreq: float) -> float:
    taper = _taper(window.shape[1])
    power = np.abs(scipy.fft.rfft((window - window.mean(axis=1, keepdims=True)) * taper)) ** 2
    hz = scipy.fft.rfftfreq(window.shape[1], 1 / sfreq)
    total = np.maximum(power[:, hz >= 1].sum(axis=1), 1e-30)
    return max(float(np.median(power[:, np.abs(hz - mains) < 1].sum(axis=1) / total)) for mains in (50.0, 60.0))


@dataclass
class RecordingFacts:
    """What is known of the signal of one recording once its trials have been read; JSON can hold all of it.

    Parameters
    ----------
    name, subject : str
        What was recorded, and who.
    labels : list of str
        Of its trials.
    seconds, sfreq, channels
        Length of the trials, rate in Hz, number of placed channels.
    amplitudes : list of float
        Root mean square of every window that is kept, µV, median over channels.
    mains : list of float
        Shares of power at the frequency of the mains.
    copies : list of str
        Pairs of channels of which one is a copy ("C3 = C4").
    marks : list of list of float
        Clip of every window that is kept, and some coordinates of its spectrum, by which a copy is known.
    sites : list of str
        Channels of the windows.
    alike : list of float
        Sum of their correlations over some windows, as from
        :func:`e2llm.data.swapped_channels.correlations_of`.
    alike_windows : int
        How many windows that are.
    windows, dropped : int
        Windows that are kept, and that are left out.
    file : dict
        As from :attr:`e2llm.data.sources.base.Stretch.facts`.
    flaws : list of dict
        Fields of :class:`e2llm.data.sources.base.Flaw`.
    """

    name: str = ""
    subject: str = ""
    labels: list[str] = field(default_factory=list)
    seconds: float = 0.0
    sfreq: float = 0.0
    channels: int = 0
    amplitudes: list[float] = field(default_factory=list)
    mains: list[float] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    marks: list[list[float]] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    alike: list[float] = field(default_factory=list)
    alike_windows: int = 0
    windows: int = 0
    dropped: int = 0
    file: dict[str, Any] = field(default_factory=dict)
    flaws: list[dict[str, Any]] = field(default_factory=list)

    @property
    def amplitude_uv(self) -> float:
        """Median of the windows' amplitudes; NaN without windows."""
        return float(np.median(self.amplitudes)) if self.amplitudes else float("nan")

    def add(self, flaws: Iterable[Flaw]) -> None:
        """Note flaws."""
        self.flaws += [vars(flaw) for flaw in flaws]


def lowest_rate(h_freq: float, h_trans: float) -> float:
    """Lowest rate in Hz at which a signal holds what the windows are to hold.

    Parameters
    ----------
    h_freq : float
        Upper edge of the band-pass, Hz.
    h_trans : float
        Width of its transition, Hz.
    """
    return 2 * (h_freq + h_trans)


def judge_before(trial: Trial, window_s: float, lowest_hz: float) -> list[Flaw]:
    """What can be said of a trial before its signal is read.

    Parameters
    ----------
    trial : Trial
        With its signal unread.
    window_s : float
        Length of a window in seconds.
    lowest_hz : float
        From :func:`lowest_rate`.

    Returns
    -------
    list of Flaw
        Those of severity ``drop`` are about the trial.
    """
    where, seconds = f"subject {trial.subject}, clip {trial.clip}", trial.signal.shape[1] / trial.sfreq
    found = []
    if (rate := _file_facts(trial).get("rate", trial.sfreq)) < lowest_hz:
        found.append(Flaw("refuse", "rate", f"{where} was sampled at {rate:g} Hz, but the frequencies of the windows "
                          f"need {lowest_hz:g} Hz or more", "use other recordings, or lower h_freq"))
    if seconds < window_s:
        shorter = math.floor(2 * seconds) / 2  # what every number of state tokens up to two divides
        remedy = f"drop the clip, or cut shorter windows (-p window_s={shorter:g})" if shorter >= 1 else "drop the clip"
        found.append(Flaw("drop", "too short", f"{where}: {seconds:.1f} s of signal is shorter than one window of "
                          f"{window_s:g} s", remedy))
    return found


def judge_trial(trial: Trial, watch: SignalWatch, power: np.ndarray, shape: np.ndarray,
                window_s: float) -> tuple[np.ndarray, list[Flaw]]:
    """Which windows of a trial may be used.

    Parameters
    ----------
    trial : Trial
        The trial.
    watch : SignalWatch
        Its signal, which has been read.
    power : ndarray, shape (n_windows, n_channels, n_bands)
        Band power of the clean windows, square microvolts.
    shape : ndarray, shape (n_windows, n_shape)
        Spectral shape of the clean windows.
    window_s : float
        Length of a window in seconds.

    Returns
    -------
    kept : ndarray of bool, shape (n_windows,)
        Windows that may be used.
    flaws : list of Flaw
        Why the others may not, one a reason.
    """
    n, where = len(power), f"subject {trial.subject}, clip {trial.clip}"
    flat, dead, clipped = (np.array([*values, *[0.0] * n][:n]) for values in (watch.flat, watch.dead_s, watch.clipped))
    spans = getattr(trial.signal, "lost", [])
    marked = np.zeros(n, dtype=bool)
    for start, stop, _ in spans:
        marked[int(start // window_s) : int(np.ceil(stop / window_s))] = True
    names = ", ".join(sorted({name for _, _, name in spans})[:3])
    reasons = {
        "marked bad": (marked, f"the file marks them ({names})", "correct the annotations if the signal is good"),
        "no signal": (dead >= DEAD_S, f"no channel changes for {DEAD_S:g} s or more", "look for a pause or a lost "
                      "connection"),
        "flat channels": (flat > BAD_SHARE, f"more than {BAD_SHARE:.0%} of the channels are flat", "look for loose "
                          "electrodes"),
        "saturated": (clipped > BAD_SHARE, f"more than {BAD_SHARE:.0%} of the channels stay at their largest value",
                      "record with a lower gain"),
        "not finite": (~(np.isfinite(power).all(axis=(1, 2)) & np.isfinite(shape).all(axis=1)),
                       "their values are too large to compute with", "check the unit"),
    }
    kept, flaws = np.ones(n, dtype=bool), []
    for rule, (wrong, fact, remedy) in reasons.items():
        if count := int((wrong & kept).sum()):
            first = int(np.flatnonzero(wrong & kept)[0])
            flaws.append(Flaw("drop", rule, f"{where}: {count} of {n} windows are left out, the first at "
                              f"{first * window_s:g} s: {fact}", remedy, count))
        kept &= ~wrong
    if (partly := int(((clipped > 0) & kept).sum())) > BAD_SHARE * n:
        flaws.append(Flaw("warn", "saturated", f"{where}: in {partly} of {n} windows a channel stays at its largest "
                          "value", "record with a lower gain"))
    return kept, flaws


def add_trial(facts: RecordingFacts, trial: Trial, watch: SignalWatch, windows: np.ndarray, power: np.ndarray,
              ch_names: Sequence[str], dropped: int) -> None:
    """Note the facts of a trial's windows that are kept.

    Parameters
    ----------
    facts : RecordingFacts
        Changed in place.
    trial : Trial
        The trial.
    watch : SignalWatch
        Its signal, which has been read.
    windows, power : ndarray
        Clean windows that are kept, and their band power.
    ch_names : sequence of str
        Channels of the windows.
    dropped : int
        Windows that are left out.
    """
    facts.subject, facts.sfreq, facts.channels = trial.subject, trial.sfreq, trial.signal.shape[0]
    facts.labels = sorted({*facts.labels, trial.label})
    facts.seconds += trial.signal.shape[1] / trial.sfreq
    facts.mains += watch.mains
    facts.file = {name: sorted(value) if isinstance(value, set) else value
                  for name, value in _file_facts(trial).items()}
    facts.windows += len(windows)
    facts.dropped += dropped
    if not len(windows):
        return
    facts.amplitudes += np.sqrt(np.median(power.sum(axis=-1), axis=-1)).astype(float).round(4).tolist()
    if (is_first := facts.windows == len(windows)) or facts.copies:  # a copy is one in every trial
        found = _copies(windows[[0, len(windows) // 2, -1]], ch_names)
        facts.copies = found if is_first else [pair for pair in facts.copies if pair in found]
    facts.marks += [[trial.clip, *mark] for mark in _marks(power)]
    total, n = correlations_of(windows)
    facts.sites, facts.alike_windows = list(ch_names), facts.alike_windows + n
    facts.alike = (total + (facts.alike or 0.0)).round(4).tolist()


def _marks(power: np.ndarray) -> list[list[float]]:
    """Some coordinates of every window's log power against its mean: equal signals have equal ones, at any gain."""
    level = np.log(np.maximum(power.reshape(len(power), -1), 1e-12)).astype(float)
    level -= level.mean(axis=1, keepdims=True)
    return level[:, np.linspace(0, level.shape[1] - 1, MARKS).round().astype(int)].round(5).tolist()


def _twins(marks: Sequence[Sequence[float]], owners: Sequence) -> Counter:
    """How many pairs of windows of two owners hold nearly the same signal."""
    if len(set(owners)) < 2:
        return Counter()
    pairs = scipy.spatial.cKDTree(np.asarray(marks)).query_pairs(SAME, p=np.inf)
    named = ((owners[min(pair)], owners[max(pair)]) for pair in pairs)
    return Counter((one, other) for one, other in named if one != other)


def _copies(windows: np.ndarray, ch_names: Sequence[str]) -> list[str]:
    """Pairs of channels that are equal, but for a gain, in all these windows."""
    always = np.ones((len(ch_names),) * 2, dtype=bool)
    for window in windows:
        x = window - window.mean(axis=1, keepdims=True)
        height = np.sqrt((x**2).sum(axis=1))
        always &= np.abs(x @ x.T) > COPY * np.maximum(np.outer(height, height), 1e-12)
    pairs = zip(*np.nonzero(np.triu(always, 1)), strict=True)
    return [f"{ch_names[i]} = {ch_names[j]}" for i, j in pairs] if len(ch_names) > 2 else []


def _file_facts(trial: Trial) -> dict[str, Any]:
    return dict(getattr(trial.signal, "facts", {}))


def judge_recording(facts: RecordingFacts) -> list[Flaw]:
    """What the windows of a recording say together.

    Parameters
    ----------
    facts : RecordingFacts
        Of all its trials.

    Returns
    -------
    list of Flaw
    """
    found = []
    if twins := _twins([mark[1:] for mark in facts.marks], [int(mark[0]) for mark in facts.marks]):
        one, other = min(twins)
        found.append(Flaw("refuse", "same signal", f"clips {one} and {other} of subject {facts.subject} hold the same "
                          "signal", "copy the file again; one of the two is not what its label says"))
    if facts.copies:
        severe = len(facts.copies) > BAD_SHARE * facts.channels
        found.append(Flaw("refuse" if severe else "warn", "copied channels", f"channels hold the same signal: "
                          f"{', '.join(facts.copies[:4])}", "check how the channels were written; electrodes that are "
                          "bridged by gel look so too"))
    found += [Flaw("warn", "table of samples", note, "give sfreq= if the device has another rate")
              for note in facts.file.get("notes", [])]
    units = facts.file.get("units", [])
    unit = f" (unit in the header: {', '.join(repr(name) for name in units)})" if units else ""
    amplitude = facts.amplitude_uv
    said = f"its EEG has {amplitude:.3g} µV (root mean square){unit}"
    if facts.amplitudes and not PLAUSIBLE_UV[0] <= amplitude <= PLAUSIBLE_UV[1]:
        found.append(Flaw("refuse", "amplitude", f"{said}, which no scalp has", "write the right unit into the file, "
                          "or scale the signal to volts when you make it"))
    elif facts.amplitudes and not USUAL_UV[0] <= amplitude <= USUAL_UV[1]:
        found.append(Flaw("warn", "amplitude", f"{said}; {USUAL_UV[0]:g} to {USUAL_UV[1]:g} µV are usual",
                          "check unit and gain"))
    if (lost := facts.file.get("lost", 0.0)) > CUT_SHARE:
        found.append(Flaw("refuse", "cut file", f"{lost:.0%} of the {facts.file['seconds']:g} s that its header "
                          "promises are not in the file", "copy it again, or correct the header"))
    if facts.mains and (share := float(np.median(facts.mains))) > MAINS:
        found.append(Flaw("warn", "mains", f"{share:.0%} of its power is at the frequency of the mains", "the filter "
                          "stops it; look for a bad ground or reference"))
    return found


def judge_together(recordings: Mapping[str, RecordingFacts]) -> dict[str, list[Flaw]]:
    """What is seen only when recordings are compared: the same signal twice, another amplitude, exchanged channels.

    Parameters
    ----------
    recordings : mapping of str to RecordingFacts
        By name.

    Returns
    -------
    dict of str to list of Flaw
        Of the recordings that have any.
    """
    found: dict[str, list[Flaw]] = defaultdict(list)
    owners = [name for name, facts in recordings.items() for _ in facts.marks]
    shared = _twins([mark[1:] for facts in recordings.values() for mark in facts.marks], owners)
    for (one, other), count in sorted(shared.items()):
        same = recordings[one].subject == recordings[other].subject and recordings[one].labels == recordings[
            other].labels
        for name, of in ((other, one),) if same else ((one, other), (other, one)):
            found[name].append(Flaw("refuse", "same signal", f"{count} of its windows are those of {of}", "keep one of "
                                    "the two" if same else "find out whose signal it is, and what its label is"))
    for name, facts in recordings.items():
        others = [one.amplitude_uv for key, one in recordings.items() if key != name and one.amplitudes]
        if len(others) < 2 or not facts.amplitudes:
            continue
        ratio = facts.amplitude_uv / max(float(np.median(others)), 1e-12)
        apart = max(ratio, 1 / max(ratio, 1e-12))
        if apart > APART[0]:
            found[name].append(Flaw("refuse" if apart > APART[1] else "warn", "amplitude",
                                    f"its EEG has {facts.amplitude_uv:.3g} µV, {apart:.3g} times "
                                    f"{'more' if ratio > 1 else 'less'} than that of the others",
                                    "check unit and gain of this recording"))
    # A copied channel lies where it should not for a reason that is found already.
    known = {name: facts for name, facts in recordings.items() if facts.alike_windows and not facts.copies}
    sites = next((facts.sites for facts in known.values()), [])
    means = {name: (facts.subject, np.divide(facts.alike, facts.alike_windows)) for name, facts in known.items()
             if facts.sites == sites}
    for name, fact in exchanged_channels(means, sites).items():
        found[name].append(Flaw("warn", "exchanged channels", fact, "compare with the plan of the cap"))
    return dict(found)


def settle(flaws: Iterable[Flaw], quality: str) -> list[Flaw]:
    """Flaws as they count: where quality is ``warn``, those that would refuse a recording only warn.

    Parameters
    ----------
    flaws : iterable of Flaw
        As they were found.
    quality : str
        "strict" or "warn".
    """
    return [replace(flaw, severity="warn") if quality == "warn" and flaw.severity == "refuse" else flaw
            for flaw in flaws]


def as_flaw(rule: str, message: str) -> Flaw:
    """The message of an error as a flaw that refuses: fact and remedy are parted by the last colon or semicolon.

    Parameters
    ----------
    rule : str
        Name of the rule.
    message : str
        Of the error.
    """
    text = message.rstrip(".")
    at = max(text.rfind(": "), text.rfind("; "))
    return Flaw("refuse", rule, text[:at], text[at + 2 :]) if at > 0 else Flaw("refuse", rule, text, "leave it out")


def write_quality(folder: Path, names: Sequence[str], noted: Mapping[str, RecordingFacts],
                  skipped: Mapping[str, str], remarks: Iterable[tuple[str, Flaw]] = ()) -> None:
    """Write ``quality.csv``, one row a finding, and ``recordings.csv``, one row a recording.

    Parameters
    ----------
    folder : Path
        Of the windows.
    names : sequence of str
        All recordings, in order.
    noted : mapping of str to RecordingFacts
        Of those whose signal was read.
    skipped : mapping of str to str
        Recordings that are left out, with the reason.
    remarks : iterable of (str, Flaw)
        About the tables of the source (:meth:`e2llm.data.sources.base.Source.remarks`).
    """
    findings, recordings = quality_tables(names, noted, skipped, remarks)
    for table, name in ((findings, "quality.csv"), (recordings, "recordings.csv")):  # a path may be no Unicode
        table.to_csv(folder / name, index=False, lineterminator="\n", errors="backslashreplace")


def quality_tables(names: Sequence[str], noted: Mapping[str, RecordingFacts], skipped: Mapping[str, str],
                   remarks: Iterable[tuple[str, Flaw]] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Findings and facts of recordings as tables; parameters as in :func:`write_quality`.

    Parameters
    ----------
    names, noted, skipped, remarks
        As for :func:`write_quality`.
    """
    findings, recordings = [{"recording": name, "subject": "", **vars(flaw)} for name, flaw in remarks], []
    for name in names:
        facts = noted.get(name, RecordingFacts())
        flaws = [Flaw(**flaw) for flaw in facts.flaws]
        if (reason := skipped.get(name)) and not any(flaw.severity == "refuse" for flaw in flaws):
            flaws.append(as_flaw("unusable", reason))
        findings += [{"recording": name, "subject": facts.subject, **vars(flaw)} for flaw in flaws]
        mains = round(float(np.median(facts.mains)), 3) if facts.mains else np.nan
        recordings.append({"recording": name, "subject": facts.subject, "used": name not in skipped,
                           "seconds": round(facts.seconds, 2), "sfreq": facts.sfreq, "channels": facts.channels,
                           "amplitude_uv": round(facts.amplitude_uv, 2), "mains": mains, "windows": facts.windows,
                           "dropped": facts.dropped})
    return pd.DataFrame(findings, columns=FINDING_COLUMNS), pd.DataFrame(recordings)


def read_quality(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Findings and facts of the recordings of a folder of windows, as :func:`write_quality` wrote them."""
    text = dict.fromkeys((*FINDING_COLUMNS[:-1], "recording", "subject"), str)
    findings, recordings = (pd.read_csv(Path(folder) / name, dtype=text, keep_default_na=False,
                                        na_values={"amplitude_uv": [""], "mains": [""]})
                            for name in ("quality.csv", "recordings.csv"))
    return findings, recordings
