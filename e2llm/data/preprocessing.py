"""From labelled trials to windows on disk, one trial at a time, through the gate (:mod:`e2llm.data.gate`)."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from ..core.arguments import check_number
from ..core.bands import BANDS
from ..core.claims import SHAPE
from ..core.environment import is_watched
from ..core.files import one_line, read_mapping
from ..core.montage import eegpt_channels
from ..core.threads import one_thread
from .checks import RecordingFacts, write_quality
from .common_channels import agreed_channels, placed_by_position, usable_recordings
from .gate import admitted_trials, compare
from .preprocess_params import PreprocessParams
from .sources.base import INTENSITY_S, RecordingError, Source, SourceError, Trial

MEASURED = (".power", ".shape")  # files of measured features, in the order of features.measure
_ARRAYS = ("data.npy", *(f"data{suffix}.npy" for suffix in MEASURED))
_FOUND = ("quality.csv", "recordings.csv")  # by the gate
_LONGEST_PART = 180  # letters of a file's name before its suffix; most disks allow 255 bytes


def _process_recording(source, recording, ch_names: list[str], params: PreprocessParams, folder: Path) -> str | None:
    """Write the windows of one recording to part files; return the reason if it had to be skipped."""
    with one_thread():  # of whatever process and thread this is
        return _written(source, recording, ch_names, params, folder)


def _written(source, recording, ch_names: list[str], params: PreprocessParams, folder: Path) -> str | None:
    part, noted = (_part(folder, recording.name, suffix) for suffix in (".csv", ".json"))
    if part.exists():  # written last, so the signal is whole
        return None
    rows, files = [], [_part(folder, recording.name, suffix) for suffix in ("", *MEASURED)]
    facts, reason = RecordingFacts(recording.name, recording.subject), None
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("wb")) for file in files]
            for trial, admitted in admitted_trials(source, recording, ch_names, params, facts, folder):
                for file, values in zip(opened, admitted[:3], strict=True):
                    values.tofile(file)
                rows += [_index_row(trial, int(w), params.window_s, admitted.bad) for w in admitted.places]
    except RecordingError as error:
        reason = str(error)
        for path in files:
            path.unlink()
    noted.write_text(json.dumps(asdict(facts)), encoding="utf-8")
    if reason is None:
        pd.DataFrame(rows).to_csv(part.with_suffix(".tmp"), index=False)
        os.replace(part.with_suffix(".tmp"), part)
    return reason


def _part(folder: Path, name: str, suffix: str) -> Path:
    """Part file of a recording, whose name may hold folders and be of any length: index, facts, or bare float32."""
    if len(short := quote(name, safe="")) > _LONGEST_PART:
        short = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return folder / (short + (suffix if suffix in (".csv", ".json") else f"{suffix}.f32"))


def _index_row(trial: Trial, window: int, window_s: float, bad: list[str]) -> dict:
    intensity, start_s = np.nan, window * window_s
    if trial.intensity is not None:
        own = trial.intensity[int(start_s // INTENSITY_S) : math.ceil((start_s + window_s) / INTENSITY_S)]
        intensity = float(own.mean()) if len(own) else np.nan
    row = {"subject": trial.subject, "session": trial.session, "clip": trial.clip, "window": window,
           "start_s": start_s, "label": trial.label,
           "intensity": intensity, "clip_s": trial.signal.shape[1] / trial.sfreq, "bad_channels": " ".join(bad)}
    return {**row, "context": trial.context} if trial.context else row


@dataclass(frozen=True)
class Windows:
    """Windows on disk.

    Parameters
    ----------
    data : ndarray, shape (n_windows, n_channels, n_samples)
        Float32 microvolts, memory-mapped.
    power : ndarray, shape (n_windows, n_channels, n_bands)
        Band power, square microvolts.
    shape : ndarray, shape (n_windows, 3)
        Spectral shape from :func:`e2llm.data.features.measure`.
    index : DataFrame
        One row a window.
    ch_names : list of str
        Channels.
    sfreq : float
        Sampling rate in Hz.
    channel_facts : dict
        Channels that recordings lacked and what became of them, and those placed by a position
        (:class:`PreprocessParams`).
    """

    data: np.ndarray
    power: np.ndarray
    shape: np.ndarray
    index: pd.DataFrame
    ch_names: list[str]
    sfreq: float
    channel_facts: dict = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path) -> Windows:
        """Open a ``windows/`` folder; FileNotFoundError says which notebook writes it, ValueError what is damaged."""
        folder = Path(folder)
        if not (folder / "index.csv").is_file():
            raise FileNotFoundError(f"{folder} holds no finished windows: run notebook 01 for this run name first.")
        meta = read_mapping(folder / "channels.json", {"ch_names": list, "sfreq": float})
        if lacking := [name for name in _ARRAYS if not (folder / name).is_file()]:
            raise FileNotFoundError(f"{folder} lacks {', '.join(lacking)}, so another version wrote it: remove the "
                                    "folder and run notebook 01 again.")
        try:
            data, power, shape = (np.load(folder / name, mmap_mode="r") for name in _ARRAYS)
            index = read_index(folder / "index.csv")
            if not len(data) == len(power) == len(shape) == len(index):
                raise ValueError("arrays and index are not of one length")
        except Exception as error:  # of numpy or pandas
            raise ValueError(f"{folder} is damaged ({one_line(error)}): remove the folder and run notebook 01 "
                             "again.") from error
        return cls(data, power, shape, index, meta.pop("ch_names"), meta.pop("sfreq"), meta)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def window_s(self) -> float:
        """Length of a window in seconds."""
        return self.data.shape[-1] / self.sfreq


def write_windows(source: Source, folder: str | Path, params: PreprocessParams | None = None,
                  n_jobs: int = 2) -> dict[str, str]:
    """Preprocess every recording of a source into a ``windows/`` folder.

    A recording that cannot be used is skipped with its reason and the others go on. Parts of a run that
    was cut off are found again; the folder gets its name only when it is whole.

    Parameters
    ----------
    source : Source
        What :func:`e2llm.data.sources.open_source` returned.
    folder : path
        Written: ``data.npy``, ``data.power.npy``, ``data.shape.npy``, ``index.csv``, ``channels.json``, and what the
        gate found: ``quality.csv`` (a row a finding) and ``recordings.csv`` (a row a recording).
    params : PreprocessParams
        Filter edges, rate and window.
    n_jobs : int
        Recordings processed at a time; the result does not depend on it. They are threads, unless
        ``joblib.parallel_config`` has set another backend, which then says how many.

    Returns
    -------
    dict of str to str
        Name and reason of every skipped recording.

    Raises
    ------
    SourceError
        If no recording could be used.
    """
    params, folder = params or PreprocessParams(), Path(folder)
    check_number("n_jobs", n_jobs, 1, 1024, whole=True)
    partial = folder.with_name(folder.name + ".part")
    channels, skipped = usable_recordings(source, params.wanted)
    usable, target = agreed_channels(channels, params.wanted, params.missing)
    ch_names = eegpt_channels(usable, params.trained_only)
    lacking = {name: [place for place in ch_names if place not in own] for name, own in channels.items()}
    stamp = f"{source.root} {asdict(params)} {ch_names} {lacking} {[recording.name for recording in source.recordings]}"
    if not (partial / "stamp").is_file() or (partial / "stamp").read_text("utf-8", "surrogateescape") != stamp:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "stamp").write_text(stamp, "utf-8", "surrogateescape")
    todo = [recording for recording in source.recordings if recording.name not in skipped]
    jobs = (delayed(_process_recording)(source, recording, ch_names, params, partial) for recording in todo)
    # Threads need nothing started. Processes are faster (e2llm.app.spreading): short transforms hold the interpreter.
    reasons = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator", batch_size=1)(jobs)
    progress = tqdm(reasons, total=len(todo), desc="recordings", leave=False, disable=not is_watched())
    for recording, reason in zip(todo, progress, strict=True):
        if reason is not None:
            skipped[recording.name] = reason
    noted = {recording.name: RecordingFacts(**json.loads(_part(partial, recording.name, ".json").read_text("utf-8")))
             for recording in todo}
    compare(noted, skipped, params)
    used = [recording for recording in todo if recording.name not in skipped]
    if not used:
        reason = next(iter(skipped.values()), "the source has none")
        raise SourceError(f"No recording of {source.root} could be used; the first reason: {reason}")
    names = [recording.name for recording in used]
    facts = {"missing": params.missing, "left_out": [place for place in target if place not in usable],
             "interpolated": {name: lacking[name] for name in names if lacking[name]},
             "by_position": placed_by_position(source, names)}
    shapes = [(len(ch_names), round(params.window_s * params.sfreq)), (len(ch_names), len(BANDS)), (len(SHAPE),)]
    write_quality(partial, [recording.name for recording in source.recordings], noted, skipped, source.remarks())
    _assemble(partial, folder, names, shapes, {"ch_names": ch_names, "sfreq": params.sfreq, **facts})
    return skipped


def _assemble(partial: Path, folder: Path, names: list[str], shapes: list[tuple[int, ...]], meta: dict) -> None:
    """Join the parts into arrays of windows of these shapes and an index, then rename the folder."""
    index = pd.concat([read_index(_part(partial, name, ".csv")) for name in names], ignore_index=True)
    for suffix, shape in zip(("", *MEASURED), shapes, strict=True):
        with (partial / f"data{suffix}.npy").open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(index), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for name in names:
                with _part(partial, name, suffix).open("rb") as part:
                    shutil.copyfileobj(part, file)
    (partial / "stamp").unlink()  # first: a part that is lost after it is made again
    for path in partial.iterdir():
        if path.name not in (*_ARRAYS, *_FOUND):
            path.unlink()
    (partial / "channels.json").write_text(json.dumps(meta), encoding="utf-8")
    index.insert(0, "id", np.arange(len(index)))
    index.to_csv(partial / "index.csv", index=False)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_index(path: Path) -> pd.DataFrame:
    """The index table of windows, with the types that every stage relies on."""
    text = {"subject": str, "label": str, "bad_channels": str, "context": str}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"intensity": [""]})
