"""Tables of samples in the layouts of programs for small headsets, written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

EPOC = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
MUSE = ("TP9", "AF7", "AF8", "TP10")


def _write(path: Path, lines: list[str], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


def write_emotiv(path: Path, data: np.ndarray, sfreq: int = 128) -> Path:
    """EmotivPRO: a line of facts, ``EEG.AF3`` columns about 4200 µV, times since 1970, qualities and markers."""
    names = ["Timestamp", "EEG.Counter", "EEG.Interpolated", *(f"EEG.{name}" for name in EPOC), "EEG.Battery",
             *(f"CQ.{name}" for name in EPOC), "MarkerIndex"]
    lines = [f"title:rest, start timestamp:1611232323.4, headset type:EPOCX, sampling rate:eeg_{sfreq};mot_64, "
             f"samples:{data.shape[1]}, version:2.2", ",".join(names)]
    for i, x in enumerate(data.T):
        cells = [f"{1611232323.4 + i / sfreq:.6f}", str(i % sfreq), "0", *(f"{4200 + value:.6f}" for value in x),
                 "100", *("4" for _ in EPOC), ""]
        lines.append(",".join(cells))
    return _write(path, lines)


def write_older_emotiv(path: Path, data: np.ndarray, sfreq: int = 128) -> Path:
    """Older Emotiv software: one line of facts that also names the columns, then the samples."""
    lines = [f"title:a, recorded:23.09.16 14.30.12, sampling:{sfreq}, subject:x, labels:COUNTER {' '.join(EPOC)} "
             f"GYROX, chan:{len(EPOC) + 2}, units:emotiv"]
    lines += [", ".join([str(i % sfreq), *(f"{4200 + value:.4f}" for value in x), "1700"])
              for i, x in enumerate(data.T)]
    return _write(path, lines)


def write_openbci(path: Path, data: np.ndarray, sfreq: int = 250, lost: slice = slice(0)) -> Path:
    """OpenBCI GUI: comment lines, columns without sites, a name that stands often, times since 1970."""
    n = len(data)
    names = ["Sample Index", *(f"EXG Channel {i}" for i in range(n)), *(f"Accel Channel {i}" for i in range(3)),
             *["Other"] * 7, *(f"Analog Channel {i}" for i in range(3)), "Timestamp", "Other", "Timestamp (Formatted)"]
    lines = ["%OpenBCI Raw EXG Data", f"%Number of channels = {n}", f"%Sample Rate = {sfreq} Hz",
             "%Board = OpenBCI_GUI$BoardCytonSerial", ", ".join(names)]
    for i, x in enumerate(data.T):
        seconds = 1611232323.4 + i / sfreq
        cells = [f"{i % 256:.1f}", *(f"{-15000 + value:.8f}" for value in x), *["0.1"] * 3, *["0.0"] * 7, *["0.0"] * 3,
                 f"{seconds:.6f}", "0.0", f"{pd.Timestamp(seconds, unit='s'):%Y-%m-%d %H:%M:%S.%f}"[:-3]]
        lines.append(", ".join(cells))
    del lines[5 + (lost.start or 0) : 5 + (lost.stop or 0)]
    return _write(path, lines)


def write_muse(path: Path, data: np.ndarray, sfreq: int = 256, seed: int = 0) -> Path:
    """Mind Monitor: powers, ``RAW_TP9`` columns about 800 µV, lines of events; samples come in packets of twelve."""
    rng = np.random.default_rng(seed)
    names = ["TimeStamp", "Delta_TP9", "Alpha_AF7", *(f"RAW_{name}" for name in MUSE), "AUX_RIGHT", "HSI_TP9",
             "Battery", "Elements", "Markers"]
    lines, late = [",".join(names)], 0.0
    for i, x in enumerate(data.T):
        if i % 12 == 0:
            late = rng.uniform(0, 0.08)
        time = f"{pd.Timestamp(1611232323.4 + (i - i % 12) / sfreq + late, unit='s'):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        if i % 700 == 300:
            lines.append(",".join([time, *[""] * 9, "/muse/elements/blink", ""]))
        lines.append(",".join([time, "0.5", "0.7", *(f"{800 + value:.5f}" for value in x), "812.1", "1.0", "88.75", "",
                               ""]))
    return _write(path, lines)


def write_plain(path: Path, data: np.ndarray, names, separator: str = ",", decimal: str = ".", head: str = "",
                encoding: str = "utf-8", times: np.ndarray | None = None, time_name: str = "time") -> Path:
    """One column a channel, as pandas or a spreadsheet writes it."""
    columns = ([time_name] if times is not None else []) + list(names)
    rows = np.vstack([times, data]).T if times is not None else data.T
    lines = [*([head] if head else []), *([separator.join(columns)] if columns else [])]
    lines += [separator.join(f"{value:.8f}".replace(".", decimal) for value in row) for row in rows]
    return _write(path, lines, encoding)
