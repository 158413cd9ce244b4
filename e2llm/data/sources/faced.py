"""FACED (Chen et al. 2023, Sci. Data 10:740): pickled arrays, one a subject, read without running pickled code.

Layout, by the data set's own read-me files: ``Processed_data/subNNN.pkl`` holds 28 clips x 32 electrodes x 7500
samples, 30 s at 250 Hz in microvolts; clips are in the order of Stimuli_info.xlsx for all, electrodes in that of
the second cohort.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...core.files import one_line
from ...core.labels import FACED as FACED_LABELS
from ...core.montage import canonical, known_channels
from .base import Recording, RecordingError, Source, SourceError, Trial
from .tables import read_excel

# Emotion of clips 1..28 (Stimuli_info.xlsx): three clips an emotion, four for neutral.
FACED_CLIPS: tuple[str, ...] = tuple(emotion for emotion, n in zip(
    ("anger", "disgust", "fear", "sadness", "neutral", "amusement", "inspiration", "joy", "tenderness"),
    (3, 3, 3, 3, 4, 3, 3, 3, 3), strict=True)
    for _ in range(n))
# Order of the second cohort, which the processed recordings of both follow; the last two are the mastoids.
FACED_CHANNELS: tuple[str, ...] = (
    "FP1", "FP2", "FZ", "F3", "F4", "F7", "F8", "FC1", "FC2", "FC5", "FC6", "CZ", "C3", "C4", "T7", "T8", "CP1", "CP2",
    "CP5", "CP6", "PZ", "P3", "P4", "P7", "P8", "PO3", "PO4", "OZ", "O1", "O2", "A2", "A1",
)
_SHEET = "Electrode_Location.xlsx"
# What a pickled numeric array may call: its own reconstruction, under the module names of numpy 1 and 2, and nothing
# else.
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), *(
    (f"numpy.{core}.{module}", name) for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")))}


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays of numbers; any other call of a pickle is refused before it runs."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no array of numbers needs")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def read_pickled_array(path: Path) -> np.ndarray:
    """The array of numbers in a pickle; RecordingError for any other content, which is not run."""
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except Exception as error:
        raise RecordingError(f"{path} is no pickled array of numbers ({one_line(error)}): copy it again from "
                             "Processed_data.") from None
    if not isinstance(content, np.ndarray) or content.dtype.kind not in "fiu":
        raise RecordingError(f"{path} holds {type(content).__name__}, not an array of numbers: use the files of "
                             "Processed_data.")
    return content


class FACED(Source):
    """A folder of FACED: ``root/Processed_data/subNNN.pkl`` (or ``root`` itself, if the files lie there).

    Parameters
    ----------
    root : path
        The data set's folder.
    subjects : int, optional
        Use only the first so many subjects.

    Raises
    ------
    SourceError
        If no recording is found, or the data set's own table of electrodes has another order than the published one.
    """

    sfreq, seconds = 250.0, 30.0

    def __init__(self, root: str | Path, subjects: int | None = None) -> None:
        self.root, self.label_set = Path(root), FACED_LABELS
        folder = self.root / "Processed_data"
        folder = folder if folder.is_dir() else self.root
        found = sorted(path for path in folder.glob("sub*.pkl") if path.stem[3:].isdigit())
        if not found:
            raise SourceError(f"{folder} holds no files sub000.pkl, sub001.pkl, …: data_root must be the folder of "
                              "FACED with its Processed_data.")
        self._check_electrodes()
        self.recordings = [Recording(path.name, path, path.stem[3:]) for path in found[:subjects]]
        self.ch_names = tuple(known_channels(list(FACED_CHANNELS)))

    def inputs(self) -> list[Path]:
        """The recordings that are used, and the table of electrodes if it is there."""
        return [self.root / _SHEET, *(recording.path for recording in self.recordings)]

    def _check_electrodes(self) -> None:
        """The published order against the data set's own table, where that has been copied too."""
        path = self.root / _SHEET
        if not path.is_file():
            return
        try:
            sheets = read_excel(path, sheet_name=None, dtype=str)
        except Exception as error:
            raise SourceError(f"{path} is not a readable spreadsheet ({one_line(error)}): copy it again.") from None
        scalp = [name for name in FACED_CHANNELS if name not in ("A1", "A2")]
        columns = [[canonical(str(cell)) for cell in sheet[column]] for sheet in sheets.values() for column in sheet]
        orders = [[name for name in column if name in scalp] for column in columns]
        if (full := [order for order in orders if set(order) == set(scalp)]) and scalp not in full:
            raise SourceError(f"{path} lists the electrodes in another order than the published one "
                              f"({', '.join(full[0][:8])}, …): these files are of another version; channels are never "
                              "guessed.")

    def check(self, recording: Recording) -> list[str]:
        """Scalp channels of one file; raises RecordingError if it cannot be used."""
        self._read(recording)
        return list(self.ch_names)

    def _read(self, recording: Recording) -> np.ndarray:
        signal = read_pickled_array(recording.path)
        wanted = (len(FACED_CLIPS), len(FACED_CHANNELS), round(self.sfreq * self.seconds))
        if signal.shape != wanted:
            raise RecordingError(f"{recording.path} has shape {signal.shape}, expected {wanted} (clips, electrodes, "
                                 "samples): use Processed_data.")
        if not np.isfinite(signal).all():
            raise RecordingError(f"{recording.path}: {int((~np.isfinite(signal)).sum())} samples are not finite; "
                                 "repair or remove the file.")
        return signal

    def trials(self, recording: Recording) -> Iterator[Trial]:
        """The 28 clips of one person."""
        rows = [FACED_CHANNELS.index(name) for name in self.ch_names]
        for clip, (label, signal) in enumerate(zip(FACED_CLIPS, self._read(recording), strict=True), start=1):
            yield Trial(recording.subject, 1, clip, label, signal[rows].astype(np.float32), self.sfreq, self.ch_names)
