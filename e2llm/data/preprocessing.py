"""From labelled trials to windows on disk, one trial in memory at a time.

The steps are those of a plain recipe in MNE: its band-pass kernel, its spherical splines, the average reference. What
does not depend on the signal is made once. Every trial passes the gate of :mod:`e2llm.data.checks`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import mne
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ..core.bands import BANDS
from ..core.claims import SHAPE
from ..core.environment import is_watched
from ..core.montage import canonical, eegpt_channels, known_channels, make_info
from .checks import (
    QUALITY,
    RecordingFacts,
    SignalWatch,
    add_trial,
    judge_before,
    judge_recording,
    judge_together,
    judge_trial,
    lowest_rate,
    settle,
    write_quality,
)
from .common_channels import agreed_channels, placed_by_position, usable_recordings
from .features import measure
from .filtering import filter_and_resample, parts_of
from .sources.base import Recording, RecordingError, Source, SourceError, Trial

MEASURED = (".power", ".shape")  # files of measured features, in the order of features.measure
MISSING = ("masked", "interpolated")
_ARRAYS = ("data.npy", *(f"data{suffix}.npy" for suffix in MEASURED))
_FOUND = ("quality.csv", "recordings.csv")  # by the gate
_LONGEST_PART = 180  # letters of a file's name before its suffix; most disks allow 255 bytes
_TOO_LARGE_UV = 1e9  # no amplifier gives a thousand volts, and squares of such values do not fit single precision


@dataclass(frozen=True)
class PreprocessParams:
    """How trials become windows.

    Parameters
    ----------
    sfreq : float
        Target rate in Hz; EEGPT needs 256.
    l_freq, h_freq, h_trans : float
        Band-pass edges and the width of the upper transition, Hz. The default stops 50 Hz mains.
    window_s : float
        Window length in seconds, without overlap; EEGPT needs 4.
    trained_only : bool
        Keep the 58 channels that the released EEGPT weights were trained on.
    lof_threshold : float
        Local outlier factor above which MNE calls a channel bad; it is then interpolated.
    wanted : tuple of str
        Channels that windows should have; empty: those that more than half of the recordings have.
    missing : str
        What becomes of a wanted channel that some recordings lack. ``masked``: it is left out of all windows.
        ``interpolated``: MNE's spherical splines make it up from the others, where it is lacking. The windows'
        ``channels.json`` says which.
    quality : str
        What becomes of a recording in which :mod:`e2llm.data.checks` finds a fault. ``strict``: it is left out.
        ``warn``: it is used, and the fault is listed. Windows without a signal are left out in either case.
    """

    sfreq: float = 256.0
    l_freq: float = 0.5
    h_freq: float = 45.0
    h_trans: float = 5.0
    window_s: float = 4.0
    trained_only: bool = True
    lof_threshold: float = 3.0
    wanted: tuple[str, ...] = ()
    missing: str = "masked"
    quality: str = "strict"

    def __post_init__(self) -> None:
        object.__setattr__(self, "wanted", tuple(self.wanted))
        if self.missing not in MISSING:
            raise ValueError(f"missing = '{self.missing}': channels that a recording lacks are {' or '.join(MISSING)}.")
        if self.quality not in QUALITY:
            raise ValueError(f"quality = '{self.quality}': recordings with a fault are judged {' or '.join(QUALITY)}.")
        if len(known_channels(list(self.wanted))) < len(self.wanted):
            lost = sorted(set(self.wanted) - set(known_channels(list(self.wanted))))
            raise ValueError(f"No scalp position is known for the wanted channels {', '.join(lost)}: give 10-05 names.")


def clean(trial: Trial, params: PreprocessParams, lacking: Sequence[str] = ()) -> tuple[np.ndarray, list[str]]:
    """Band-pass, resample, repair and re-reference one trial.

    Parameters
    ----------
    trial : Trial
        Signal in microvolts; it is read in stretches.
    params : PreprocessParams
        Filter edges and the rest.
    lacking : sequence of str
        Channels that the recording does not have and its windows are to have: interpolated from the others.

    Returns
    -------
    signal : ndarray, shape (n_channels, n_samples)
        Float32 microvolts at the new rate: channels of the trial, then those that it lacked.
    bad : list of str
        Channels of the recording that were interpolated: flat, unlike their neighbors, or called bad by the file.

    Raises
    ------
    RecordingError
        If the trial has one channel only, is flat everywhere, too large for any amplifier, or mostly bad channels.
    """
    where, names = f"subject {trial.subject}, clip {trial.clip}", [canonical(name) for name in trial.ch_names]
    if len(names) < 2:
        raise RecordingError(f"{where}: one channel ({trial.ch_names[0]}) has no average reference; record two or "
                             "more.")
    signal, peak_to_peak = filter_and_resample(trial.signal, trial.sfreq, params, len(lacking))
    if (largest := peak_to_peak.max()) > _TOO_LARGE_UV:
        raise RecordingError(f"{where}: channel {names[int(peak_to_peak.argmax())]} spans {largest:.2g} µV, more than "
                             "any amplifier gives; check the unit (microvolts expected) and the file.")
    flat = [name for name, height in zip(names, peak_to_peak, strict=True) if height < 1e-3]
    if len(flat) == len(names):
        raise RecordingError(f"{where}: every channel is flat; check the unit (microvolts expected) and the file.")
    known = {*flat, *(name for name in trial.bads if name in names)}
    good = [row for row, name in enumerate(names) if name not in known]
    bad = sorted(known | {names[good[i]] for i in _outlying(signal, good, params.lof_threshold)})
    if len(bad) > len(names) // 4:
        raise RecordingError(f"{where}: {len(bad)} of {len(names)} channels are bad ({', '.join(bad[:6])}, …); "
                             "too many to repair.")
    if repaired := (*bad, *lacking):
        matrix = _interpolation((*names, *lacking), tuple(names), repaired)
        for part in parts_of(signal):
            part[:] = matrix @ part
    for part in parts_of(signal):
        part -= part.mean(axis=0)
    return signal, bad


def _outlying(signal: np.ndarray, good: list[int], threshold: float) -> np.ndarray:
    """Which of the good channels are unlike the third of the cap nearest to them.

    The score is MNE's ``find_bad_channels_lof``, the local outlier factor of channels as points with a coordinate a
    sample; their distances come from one product of matrices. For 62 channels the neighbours are MNE's 20.
    """
    from sklearn.neighbors import LocalOutlierFactor  # takes seconds to import

    if len(good) < 3:
        return np.array([], dtype=int)
    gram = sum((part @ part.T).astype(np.float64) for part in parts_of(signal))[np.ix_(good, good)]
    power = np.diag(gram)
    distance = np.sqrt(np.maximum(power[:, None] + power - 2 * gram, 0))
    lof = LocalOutlierFactor(n_neighbors=len(good) // 3, metric="precomputed").fit(distance)
    return np.flatnonzero(-lof.negative_outlier_factor_ >= threshold)


@lru_cache(maxsize=256)
def _interpolation(names: tuple[str, ...], own: tuple[str, ...], bad: tuple[str, ...]) -> np.ndarray:
    """Matrix of MNE's spherical splines that makes up the bad channels from the others."""
    info = make_info(list(own), 1.0)
    raw = mne.io.RawArray(np.eye(len(own), len(names)), info, verbose="error")
    if lacking := names[len(own) :]:
        empty = np.eye(len(names))[len(own) :]
        raw.add_channels([mne.io.RawArray(empty, make_info(list(lacking), 1.0), verbose="error")],
                         force_update_info=True)
        raw.set_montage(make_info(list(names), 1.0).get_montage())  # the sphere is fitted to the whole cap
    raw.info["bads"] = list(bad)
    return raw.interpolate_bads(reset_bads=True, verbose="error").get_data().astype(np.float32)


def windows_of(trial: Trial, ch_names: Sequence[str], params: PreprocessParams) -> tuple[np.ndarray, list[str]]:
    """Clean a trial and cut it into consecutive windows without overlap.

    Parameters
    ----------
    trial : Trial
        Signal in microvolts.
    ch_names : sequence of str
        Channels of the windows, in this order; those that the trial lacks are interpolated.
    params : PreprocessParams
        Filter edges, rate and window.

    Returns
    -------
    windows : ndarray, shape (n_windows, n_channels, n_samples)
        Float32 microvolts.
    bad : list of str
        As from :func:`clean`, which also says what is raised.
    """
    own = [canonical(name) for name in trial.ch_names]
    lacking = [name for name in ch_names if name not in own]
    signal, bad = clean(trial, params, lacking)
    rows = [[*own, *lacking].index(name) for name in ch_names]
    n_samples = round(params.window_s * params.sfreq)
    windows = np.empty((signal.shape[1] // n_samples, len(rows), n_samples), dtype=np.float32)
    for i, window in enumerate(windows):
        window[:] = signal[rows, i * n_samples : (i + 1) * n_samples]
    return windows, bad


class Admitted(NamedTuple):
    """Windows of a trial that may be used: signal, features, their places in the trial, and repaired channels."""

    windows: np.ndarray
    power: np.ndarray
    shape: np.ndarray
    places: np.ndarray
    bad: list[str]


def admit(trial: Trial, ch_names: Sequence[str], params: PreprocessParams, facts: RecordingFacts) -> Admitted | None:
    """Windows of a trial that pass the gate: the only way from a recording to windows, in a run and for ``ask``.

    Parameters
    ----------
    trial : Trial
        Signal in microvolts.
    ch_names : sequence of str
        Channels of the windows.
    params : PreprocessParams
        Filter edges, rate and window.
    facts : RecordingFacts
        Of the recording; what is found is noted there.

    Returns
    -------
    Admitted or None
        None if the trial is left out as a whole.

    Raises
    ------
    RecordingError
        If the recording cannot be used; see :func:`clean`.
    """
    before = judge_before(trial, params.window_s, lowest_rate(params.h_freq, params.h_trans))
    facts.add(before)
    for flaw in before:
        if flaw.severity == "refuse":
            raise RecordingError(f"{facts.name}: {flaw}")
        return None
    watch = SignalWatch(trial.signal, trial.sfreq, params.window_s)
    windows, bad = windows_of(replace(trial, signal=watch), ch_names, params)
    power, shape = measure(windows, params.sfreq, list(ch_names))
    kept, flaws = judge_trial(trial, watch, power, shape, params.window_s)
    facts.add(flaws)
    places = np.flatnonzero(kept)
    if len(places) < len(windows):
        windows, power, shape = windows[places], power[places], shape[places]
    add_trial(facts, trial, watch, windows, power, ch_names, len(kept) - len(places))
    return Admitted(windows, power, shape, places, bad) if len(places) else None


def settle_recording(facts: RecordingFacts, params: PreprocessParams) -> None:
    """Judge a recording whose trials have been admitted; RecordingError if none was, or if it has a grave fault."""
    found = settle(judge_recording(facts), params.quality)
    facts.add(found)
    if grave := [flaw for flaw in found if flaw.severity == "refuse"]:
        raise RecordingError(f"{facts.name}: {grave[0]}")
    if not facts.windows:
        reason = f"; the first reason: {facts.flaws[0]['fact']}" if facts.flaws else ""
        raise RecordingError(f"{facts.name} has no window that can be used{reason}: see the findings.")


def admitted_trials(source: Source, recording: Recording, ch_names: Sequence[str], params: PreprocessParams,
                    facts: RecordingFacts) -> Iterator[tuple[Trial, Admitted]]:
    """Trials of a recording with their windows that pass the gate; RecordingError, also at the end, if it is refused.

    Parameters
    ----------
    source : Source
        Opened.
    recording : Recording
        Of the source.
    ch_names, params, facts
        As in :func:`admit`.
    """
    for trial in source.trials(recording):
        if (admitted := admit(trial, ch_names, params, facts)) is not None:
            yield trial, admitted
    settle_recording(facts, params)


def _process_recording(source, recording, ch_names: list[str], params: PreprocessParams, folder: Path) -> str | None:
    """Write the windows of one recording to part files; return the reason if it had to be skipped."""
    part, noted = (_part(folder, recording.name, suffix) for suffix in (".csv", ".json"))
    if part.exists():  # written last, so the signal is whole
        return None
    rows, files = [], [_part(folder, recording.name, suffix) for suffix in ("", *MEASURED)]
    facts, reason = RecordingFacts(recording.name, recording.subject), None
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("wb")) for file in files]
            for trial, admitted in admitted_trials(source, recording, ch_names, params, facts):
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
    intensity = np.nan
    if trial.intensity is not None and window < len(trial.intensity):
        intensity = float(trial.intensity[window])
    row = {"subject": trial.subject, "session": trial.session, "clip": trial.clip, "window": window,
           "start_s": window * window_s, "label": trial.label,
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
        """Open a ``windows/`` folder; FileNotFoundError says which notebook writes it."""
        folder = Path(folder)
        if not (folder / "index.csv").is_file():
            raise FileNotFoundError(f"{folder} holds no finished windows: run notebook 01 for this run name first.")
        meta = json.loads((folder / "channels.json").read_text(encoding="utf-8"))
        if lacking := [name for name in _ARRAYS if not (folder / name).is_file()]:
            raise FileNotFoundError(f"{folder} lacks {', '.join(lacking)}, so another version wrote it: remove the "
                                    "folder and run notebook 01 again.")
        data, power, shape = (np.load(folder / name, mmap_mode="r") for name in _ARRAYS)
        ch_names, sfreq = meta.pop("ch_names"), float(meta.pop("sfreq"))
        return cls(data, power, shape, read_index(folder / "index.csv"), ch_names, sfreq, meta)

    def __len__(self) -> int:
        return len(self.index)


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
        Recordings processed at a time; the result does not depend on it.

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
    # Threads, for the transforms and products let go of the interpreter and nothing is copied or started; each product
    # runs in one thread, so that cores are not shared and sums are the same for every number of jobs.
    with threadpool_limits(1):
        reasons = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(jobs)
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
    write_quality(partial, [recording.name for recording in source.recordings], noted, skipped)
    _assemble(partial, folder, names, shapes, {"ch_names": ch_names, "sfreq": params.sfreq, **facts})
    return skipped


def compare(noted: dict[str, RecordingFacts], skipped: dict[str, str], params: PreprocessParams) -> None:
    """Judge recordings beside each other.

    Parameters
    ----------
    noted : dict of str to RecordingFacts
        Recording to its facts; what is found is noted there.
    skipped : dict of str to str
        Recordings that are left out, and the reason; more are added.
    params : PreprocessParams
        Whose ``quality`` counts.
    """
    for name, flaws in judge_together({name: facts for name, facts in noted.items() if name not in skipped}).items():
        found = settle(flaws, params.quality)
        noted[name].add(found)
        if grave := [flaw for flaw in found if flaw.severity == "refuse"]:
            skipped[name] = f"{name}: {grave[0]}"


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
