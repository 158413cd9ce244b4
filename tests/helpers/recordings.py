"""Small recordings for tests: signals like EEG, EDF files with any header, and label tables."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
from edfio import Edf, EdfAnnotation, EdfSignal

CAP = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2")
SFREQ = 128


def brain(seconds: float = 24.0, seed: int = 0, sfreq: int = SFREQ, n: int = len(CAP)) -> np.ndarray:
    """Microvolts, shape (n, seconds * sfreq): smooth in time, with parts that neighbors share."""
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(n + 3, round(seconds * sfreq) + 8))
    smooth = np.apply_along_axis(np.convolve, 1, white, np.ones(9) / 3, mode="valid")
    return 12 * (smooth[:n] + rng.normal(size=(n, 3)) @ smooth[n:] / 2)


def write_edf(path: Path, data: np.ndarray, names=CAP, sfreq: float = SFREQ, unit: str = "uV",
              notes: list[tuple[float, float, str]] | None = None) -> Path:
    """An EDF file, with annotations an EDF+C file; the unit is what the header says, whatever the numbers are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    signals = [EdfSignal(x, sfreq, label=name, physical_dimension=unit) for name, x in zip(names, data, strict=True)]
    kept = [EdfAnnotation(onset, duration, text) for onset, duration, text in notes] if notes else None
    Edf(signals, annotations=kept).write(path)
    return path


def patch(path: Path, at: int, text: str, width: int) -> None:
    """Overwrite a field of a header."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(text.encode("latin-1").ljust(width))


def make_discontinuous(path: Path, gap_s: float, after: int) -> Path:
    """Turn an EDF+C file with records of one second into an EDF+D file with a gap after some records."""
    with path.open("r+b") as file:
        head = file.read(256).decode("latin-1")
        n, header = int(head[252:256]), int(head[184:192])
        fields = file.read(256 * n).decode("latin-1")
        names = [fields[16 * i : 16 * (i + 1)].strip() for i in range(n)]
        samples = [int(fields[216 * n + 8 * i : 216 * n + 8 * (i + 1)]) for i in range(n)]
        place = next(i for i, name in enumerate(names) if name.endswith("Annotations"))
        width = 3 if path.suffix == ".bdf" else 2
        record, at = width * sum(samples), width * sum(samples[:place])
        seconds = float(head[244:252])
        file.seek(192)
        file.write(b"BDF+D" if path.suffix == ".bdf" else b"EDF+D")
        for i in range(int(head[236:244])):
            onset = f"+{i * seconds + (gap_s if i >= after else 0):g}\x14\x14".encode() + b"\x00"
            file.seek(header + i * record + at)
            file.write(onset.ljust(width * samples[place], b"\x00"))
    return path


def raw_of(data: np.ndarray, names=CAP, sfreq: float = SFREQ) -> mne.io.RawArray:
    """Microvolts as MNE holds them."""
    return mne.io.RawArray(data * 1e-6, mne.create_info(list(names), sfreq, "eeg"), verbose="error")


def write_table(root: Path, files: list[str], columns: str = "file,subject,session,label") -> None:
    """A table of labels: subjects 1, 2, …, labels in turn."""
    rows = [f"{name},{i},1,{('rest', 'task')[i % 2]}" for i, name in enumerate(files, start=1)]
    (root / "labels.csv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")


def four_files(root: Path, **first) -> Path:
    """Four good recordings, or the first written by :func:`write_edf` with other arguments."""
    for seed in range(4):
        given = first if seed == 0 else {}
        write_edf(root / f"{'abcd'[seed]}.edf", **{"data": brain(seed=seed), **given})
    write_table(root, [f"{name}.edf" for name in "abcd"])
    return root
