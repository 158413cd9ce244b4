"""Tables of samples: text with one column a channel, as the programs of small headsets save a recording.

Such a file rarely says all that a recording needs. What it says is taken from it; the rest has to be given. Nothing is
guessed: an amplitude in another unit, or a clock of another rate, makes believable nonsense.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import mne
import numpy as np
import pandas as pd

from ...core.files import one_line
from ...core.montage import known_channels
from .base import RecordingError, open_raw
from .tables import encoding_of

SUFFIXES = (".csv", ".tsv", ".txt")
UNITS = {"nV": 1e-9, "uV": 1e-6, "mV": 1e-3, "V": 1.0}  # volts
GAP_S = 0.5  # a clock that runs ahead of the samples by so much, and stays ahead, shows lost samples
RATE_SHARE = 0.02  # by which the rate of a clock may differ from the one that is stated
_HEAD_BYTES, _MOST_BYTES, _LINES = 2**16, 2**30, 2**16  # read to understand a file; of a file; read at a time
_MOST_HZ = 1e6
_WAY_OUT = "or save it as FIF as 'Tables of samples' in docs/own_data.md shows"
# Columns that name their program, which writes microvolts: Emotiv, Mind Monitor (Muse), OpenBCI.
_PROGRAMS = ("EEG.", "RAW_", "EXG Channel ")
_RATE = re.compile(r"(?:sampl(?:ing|e)[ _-]?(?:rate|freq(?:uency)?)?|\bs?freq|\bsrate|\bfs)\s*[:=]\s*(?:eeg_)?"
                   r"(\d+(?:\.\d+)?)|\btime:(\d+)hz", re.IGNORECASE)
_UNIT = re.compile(r"\bunits?\s*[:=]\s*([^\s,;]+)", re.IGNORECASE)
_LABELS = re.compile(r"\blabels:([^,;]+)")  # older files of Emotiv name their columns here
_IN_UNIT = re.compile(r"\s*[\[(]\s*([^\[\]()\s]+)\s*[\])]$")
_TIME_NAMES = {"time", "times", "timestamp", "timestamps", "t", "seconds"}
_TIME_UNITS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class TableOptions:
    """What a table of samples does not say itself.

    Parameters
    ----------
    sfreq : float, optional
        Sampling rate in Hz.
    unit : str
        Of the samples, a key of :data:`UNITS`.
    columns : tuple of str
        Columns that are channels, by name or by number from 1; ``EXG Channel 0=Fp1`` also names the channel. Default:
        those with a known 10-05 name.

    Raises
    ------
    RecordingError
        If the unit is unknown or the rate is not positive.
    """

    sfreq: float | None = None
    unit: str = ""
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unit and not _unit_named(self.unit):
            raise RecordingError(f"unit={self.unit} is unknown: give one of {', '.join(UNITS)}.")
        if self.sfreq is not None and not 0 < self.sfreq < float("inf"):
            raise RecordingError(f"sfreq={self.sfreq:g} is no rate: give samples a second.")


class SampleTable(mne.io.RawArray):
    """A recording from a table; ``notes`` say what was not written in the file and had to be measured."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How a table of samples is written.

    Parameters
    ----------
    encoding, separator, decimal : str
        Of the text.
    skip : int
        Lines before the first one of samples.
    channels : dict of int to str
        Place of a column, from 0, to the name of its channel.
    unit : str
        Key of :data:`UNITS`.
    sfreq : float or None
        Rate in Hz by the options or the header, None if only the clock can tell.
    rate_from : str
        Where that rate stands.
    clock : tuple of (int, str, float) or None
        Place and name of the column of times, and its unit in seconds (0: not written).
    """

    encoding: str
    separator: str
    decimal: str
    skip: int
    channels: dict[int, str]
    unit: str
    sfreq: float | None
    rate_from: str
    clock: tuple[int, str, float] | None


def open_recording(path: Path, options: TableOptions | None = None) -> mne.io.BaseRaw:
    """Open any file that MNE reads, without its signal, or a table of samples.

    Parameters
    ----------
    path : Path
        The file; a table has one of the suffixes :data:`SUFFIXES`.
    options : TableOptions, optional
        What a table does not say.

    Raises
    ------
    RecordingError
        Naming file, reason and remedy.
    """
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return read_samples(path, options or TableOptions())
    return open_raw(path)


def holds_samples(path: Path) -> bool:
    """Whether a file is text with a column for two or more sites of the head, or of a program that is known."""
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    lines, _ = _head(path)
    first = _first_of_numbers(lines)
    if first is None:
        return False
    names = _column_names(lines[:first], len(_cells(lines[first], _separator(lines[first]))))
    return len(_sites(names)) >= 2 or sum(name.startswith(_PROGRAMS) for name in names) >= 2


def read_layout(path: Path, options: TableOptions) -> Layout:
    """How a table is written, from its first lines.

    Parameters
    ----------
    path : Path
        The table.
    options : TableOptions
        What it does not say.

    Raises
    ------
    RecordingError
        If it is no table of samples, if rate or unit are missing, or if file and options contradict each other.
    """
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise RecordingError(f"{path} has {size / 2**30:.1f} GiB of text, too much to read as a table: save it as FIF.")
    lines, encoding = _head(path)
    if head := next((cells for line in lines[:20] if _is_label_table(cells := _cells(line, _separator(line)))), None):
        raise RecordingError(f"{path} is a table of labels ({', '.join(head[:4])}), not of samples: name the "
                             "recording.")
    first = _first_of_numbers(lines)
    if first is None:
        raise RecordingError(f"{path} holds no line of numbers: give a table with one column a channel, {_WAY_OUT}.")
    separator = _separator(lines[first])
    cells = _cells(lines[first], separator)
    names = _column_names(lines[:first], len(cells))
    if known_channels([cells[0]]):
        raise RecordingError(f"{path} has one row a channel (its first is {cells[0]}): turn it, so that a channel is a "
                             f"column, {_WAY_OUT}.")
    columns = _chosen(path, names, len(cells), options)
    channels = {place: _plain(names[place]) if names and not site else site for place, site in columns.items()}
    said = "\n".join(lines[:first])
    unit = _agreed_unit(path, [names[place] for place in columns] if names else [], said, options)
    rate = _RATE.search(said)
    stated = float(rate[1] or rate[2]) if rate else None
    if stated and options.sfreq and abs(options.sfreq / stated - 1) > RATE_SHARE:
        raise RecordingError(f"{path} says {stated:g} Hz, but sfreq is {options.sfreq:g}: correct the one that is "
                             "wrong.")
    clock = next((found for place, name in enumerate(names) if (found := _clock_column(place, name))), None)
    sfreq = stated or options.sfreq
    if sfreq is not None and not 1 <= sfreq <= _MOST_HZ:
        raise RecordingError(f"{path} has {sfreq:g} samples a second by its header or sfreq=: correct the rate.")
    if sfreq is None and clock is None:
        raise RecordingError(f"{path} says no sampling rate and has no column of times: give sfreq=, {_WAY_OUT}.")
    comma = separator != "," and re.search(r"\d,\d", lines[first])
    return Layout(encoding, separator, "," if comma else ".", first, channels, unit, sfreq,
                  "its header" if stated else "sfreq", clock)


def read_samples(path: Path, options: TableOptions) -> SampleTable:
    """A table of samples as a recording.

    Parameters
    ----------
    path : Path
        The table.
    options : TableOptions
        What it does not say.

    Raises
    ------
    RecordingError
        As :func:`read_layout`; also for a cell that is no number, and for times that show another rate, or a gap.
    """
    layout = read_layout(path, options)
    signal, times = _columns(path, layout)
    sfreq, notes = layout.sfreq, []
    if layout.clock:
        measured = _check_clock(path, layout, times)
        if sfreq is None:
            whole = round(measured)
            sfreq = float(whole) if abs(measured / whole - 1) < 0.002 else round(measured, 2)
            notes.append(f"its rate of {sfreq:g} Hz is measured from the column {layout.clock[1]}")
    assert sfreq is not None  # or the layout was refused
    info = mne.create_info(list(layout.channels.values()), sfreq, "eeg")
    raw = SampleTable(signal, info, verbose="error")
    raw.notes, raw._orig_units = tuple(notes), dict.fromkeys(raw.ch_names, layout.unit)
    return raw


def _head(path: Path) -> tuple[list[str], str]:
    """First lines of a text, and its encoding."""
    with path.open("rb") as file:
        content = file.read(_HEAD_BYTES)
    cut = len(content) == _HEAD_BYTES
    encoding = encoding_of(content[: content.rfind(b"\n") + 1] if cut else content)  # a letter may be cut in two
    lines = content.decode(encoding, errors="replace").splitlines()
    return lines[:-1] if cut else lines, encoding


def _separator(line: str) -> str:
    """What parts the cells of a line of numbers; a comma may be a decimal one, and a blank part of a time."""
    return next((mark for mark in "\t;|," if mark in line), r"\s+" if len(line.split()) > 1 else ",")


def _cells(line: str, separator: str) -> list[str]:
    if separator == r"\s+":
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _first_of_numbers(lines: list[str]) -> int | None:
    """Index of the first line of which half or more of the filled cells are numbers."""
    for i, line in enumerate(lines):
        filled = [cell for cell in _cells(line, _separator(line)) if cell]
        if line[:1] not in "%#" and filled and 2 * sum(map(_is_number, filled)) >= len(filled):
            return i
    return None


def _column_names(above: list[str], n: int) -> list[str]:
    """Names of the columns from the lines above the numbers; none if no line has as many cells."""
    for line in reversed(above):
        if labels := _LABELS.search(line):
            names = labels[1].split()
        else:
            plain = line.lstrip("%# ")
            names = _cells(plain, _separator(plain))
        if len(names) == n or (len(names) == n - 1 and n > 2) or (len(names) == n + 1 and not names[-1]):
            return [*names, ""][:n]
    return []


def _plain(name: str) -> str:
    """The name of a column without unit and without the mark of its program."""
    name = _IN_UNIT.sub("", name) if _unit_in(name) else name
    return next((name.removeprefix(mark) for mark in _PROGRAMS[:2] if name.startswith(mark)), name).strip()


def _sites(names: Iterable[str]) -> list[int]:
    return [place for place, name in enumerate(names) if known_channels([_plain(name)])]


def _is_label_table(names: Iterable[str]) -> bool:
    return {"file", "label"} <= {name.casefold() for name in names}


def _chosen(path: Path, names: list[str], n: int, options: TableOptions) -> dict[int, str]:
    """Places of the columns that are channels, and the names that the options give them."""
    if not options.columns:
        if found := _sites(names):
            return dict.fromkeys(found, "")
        seen = one_line(", ".join(name for name in names if name)[:120]) if any(names) else f"{n} columns without names"
        raise RecordingError(f"{path} has no column with a known 10-05 name (has {seen}): name them, as in "
                             f'columns="{names[1] if len(names) > 1 and names[1] else "2"}=Fp1,…", {_WAY_OUT}.')
    chosen: dict[int, str] = {}
    for item in options.columns:
        column, _, site = (part.strip() for part in item.partition("="))
        places = [place for place, name in enumerate(names) if column in (name, _plain(name))]
        if not places and re.fullmatch("[0-9]{1,6}", column) and 1 <= int(column) <= n:
            places = [int(column) - 1]
        if len(places) != 1:
            raise RecordingError(f"{path} has {len(places) or 'no'} columns {column!r:.60} (has {n}: "
                                 f"{one_line(', '.join(names)[:120])}): correct columns=.")
        if not site and not names:
            raise RecordingError(f"{path} does not name its columns: write columns={column}=Fp1,….")
        chosen[places[0]] = site
    return chosen


def _unit_named(text: str) -> str:
    """Key of the units that a text means, or nothing."""
    plain = text.strip().replace("µ", "u").replace("\u03bc", "u")
    words = {"microvolt": "uV", "millivolt": "mV", "volt": "V"}
    return next((unit for unit in UNITS if unit.casefold() == plain.casefold()), words.get(plain.casefold().rstrip("s"),
                                                                                            ""))


def _unit_in(name: str) -> str:
    """Unit in brackets at the end of the name of a column, or nothing."""
    return _unit_named(found[1]) if (found := _IN_UNIT.search(name)) else ""


def _agreed_unit(path: Path, names: list[str], said: str, options: TableOptions) -> str:
    """The one unit of all channels."""
    found = {unit for name in names if (unit := _unit_in(name))}
    if not found and (stated := _UNIT.search(said)):
        found = {_unit_named(stated[1])} - {""}
    given = _unit_named(options.unit)
    if not found and not given and names and any(all(name.startswith(mark) for name in names) for mark in _PROGRAMS):
        return "uV"
    if given:
        found.add(given)
    if len(found) > 1:
        raise RecordingError(f"{path} has more than one unit ({', '.join(sorted(found))}), by its header and unit=: "
                             "correct the one that is wrong.")
    if not found:
        raise RecordingError(f"{path} does not say the unit of its samples: give unit=uV, unit=mV or unit=V, "
                             f"{_WAY_OUT}.")
    return found.pop()


def _clock_column(place: int, name: str) -> tuple[int, str, float] | None:
    unit = found[1].casefold().replace("µ", "u") if (found := _IN_UNIT.search(name)) else ""
    plain = (_IN_UNIT.sub("", name) if unit in _TIME_UNITS else name).partition(":")[0].strip().casefold()
    return (place, name, _TIME_UNITS.get(unit, 0.0)) if plain in _TIME_NAMES else None


def _columns(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Volts, shape (n_channels, n_samples), and times, in single precision until all is read."""
    channels, blocks, times = list(layout.channels), [], []
    clock = [layout.clock[0]] if layout.clock and layout.clock[0] not in channels else []
    kinds: dict[int, type] = {**dict.fromkeys(channels, np.float32), **dict.fromkeys(clock, str)}
    line = layout.skip
    try:
        for part in pd.read_csv(path, sep=layout.separator, header=None, skiprows=layout.skip, dtype=kinds,
                                usecols=[*channels, *clock], decimal=layout.decimal, encoding=layout.encoding,
                                encoding_errors="replace", skipinitialspace=True, chunksize=_LINES):
            if clock:  # programs write lines of events between the samples; lost samples show in the times
                part = part[part[channels].notna().any(axis=1)]
                times.append(_seconds(part[clock[0]], layout.decimal))
            blocks.append(part[channels].to_numpy(dtype=np.float32))
            line += _LINES
    except Exception as error:
        raise RecordingError(f"{path}, after line {line}: a cell is not what its column is ({one_line(error)}); "
                             "correct the table.") from None
    if (n := sum(map(len, blocks))) < 2:
        raise RecordingError(f"{path} has {n} lines of samples: give the whole recording.")
    signal, at = np.empty((len(channels), n)), 0  # MNE wants double precision
    while blocks:
        block = blocks.pop(0)
        signal[:, at : at + len(block)] = block.T
        at += len(block)
    signal *= UNITS[layout.unit]
    return signal, np.concatenate(times) if times else np.empty(0)


def _seconds(texts: pd.Series, decimal: str) -> np.ndarray:
    """Times as numbers, in whatever unit, or dates as seconds; ValueError if they are neither."""
    numbers = pd.to_numeric(texts.str.replace(decimal, "."), errors="coerce")
    if numbers.notna().all():
        return numbers.to_numpy(dtype=float)
    return (pd.to_datetime(texts, format="ISO8601") - pd.Timestamp(0)).dt.total_seconds().to_numpy()


def _check_clock(path: Path, layout: Layout, times: np.ndarray) -> float:
    """Rate in Hz by the times of the samples; RecordingError for another one than stated, and for gaps."""
    assert layout.clock
    _, name, unit = layout.clock
    hop = max(1, len(times) // 4)  # packets come late: over a longer time that averages out, and one gap is no matter
    step = float(np.median(times[hop:] - times[:-hop])) / hop
    if not step > 0:
        raise RecordingError(f"{path}: the times in its column {name} do not rise; correct the table.")
    unit = unit or next((one for one in (1.0, 1e-3, 1e-6, 1e-9) if 1 / (step * one) >= 4), 1.0)
    measured = 1 / (step * unit)
    if not 1 <= measured <= _MOST_HZ:
        raise RecordingError(f"{path}: its column {name} shows {measured:.4g} samples a second; correct the times.")
    if layout.sfreq and abs(measured / layout.sfreq - 1) > RATE_SHARE:
        raise RecordingError(f"{path}: its column {name} shows {measured:.4g} samples a second, but {layout.rate_from} "
                             f"says {layout.sfreq:g} Hz; correct the one that is wrong.")
    ahead = pd.Series((times - times[0]) * unit - np.arange(len(times)) / measured)
    width = max(2, round(measured))
    before = ahead.rolling(width, min_periods=1).agg(["min", "max"]).shift()
    after = ahead[::-1].rolling(width, min_periods=1).agg(["min", "max"])[::-1]
    for jump in (after["min"] - before["max"], before["min"] - after["max"]):
        if jump.max() > GAP_S:
            at = int(jump.idxmax())
            raise RecordingError(f"{path}: the times in its column {name} jump by {jump.max():.3g} s at line "
                                 f"{layout.skip + at + 1}, {at / measured:.4g} s of samples after the first; save its "
                                 "continuous parts as files of their own.")
    return measured
