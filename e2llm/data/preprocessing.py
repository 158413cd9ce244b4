"""From labelled trials to windows on disk: MNE does the signal work, one recording in memory at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

import mne
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from ..core.environment import is_watched
from ..core.montage import canonical, eegpt_channels, known_channels, make_info
from .features import measure
from .sources.base import RecordingError, Source, SourceError, Trial

MEASURED = (".power", ".shape")  # files of measured features, in the order of features.measure
MISSING = ("masked", "interpolated")
_ARRAYS = ("data.npy", *(f"data{suffix}.npy" for suffix in MEASURED))


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "wanted", tuple(self.wanted))
        if self.missing not in MISSING:
            raise ValueError(f"missing = '{self.missing}': channels that a recording lacks are {' or '.join(MISSING)}.")
        if len(known_channels(list(self.wanted))) < len(self.wanted):
            lost = sorted(set(self.wanted) - set(known_channels(list(self.wanted))))
            raise ValueError(f"No scalp position is known for the wanted channels {', '.join(lost)}: give 10-05 names.")


def clean(trial: Trial, params: PreprocessParams, lacking: Sequence[str] = ()) -> tuple[mne.io.RawArray, list[str]]:
    """Band-pass, repair, re-reference and resample one trial with MNE.

    Parameters
    ----------
    trial : Trial
        Signal in microvolts.
    params : PreprocessParams
        Filter edges and the rest.
    lacking : sequence of str
        Channels that the recording does not have and its windows are to have: interpolated from the others.

    Returns
    -------
    raw : mne.io.RawArray
        Cleaned signal (volts, as MNE keeps it) of all channels.
    bad : list of str
        Channels of the recording that were interpolated: flat, unlike their neighbors, or called bad by the file.

    Raises
    ------
    RecordingError
        If the trial has one channel only, is shorter than one window, flat everywhere, or mostly bad channels.
    """
    where = f"subject {trial.subject}, clip {trial.clip}"
    seconds = trial.signal.shape[1] / trial.sfreq
    if seconds < params.window_s:
        raise RecordingError(f"{where}: {seconds:.1f} s of signal is shorter than one window of {params.window_s:g} s; "
                             "drop the clip or shorten window_s.")
    if len(trial.ch_names) < 2:
        raise RecordingError(f"{where}: one channel ({trial.ch_names[0]}) has no average reference; record two or "
                             "more.")
    raw = mne.io.RawArray(trial.signal * 1e-6, make_info(list(trial.ch_names), trial.sfreq), verbose="error")
    flat = [name for name, x in zip(raw.ch_names, trial.signal, strict=True) if np.ptp(x) < 1e-3]
    if len(flat) == len(raw.ch_names):
        raise RecordingError(f"{where}: every channel is flat; check the unit (microvolts expected) and the file.")
    high = min(params.h_freq, trial.sfreq / 2 - params.h_trans)
    raw.filter(params.l_freq, high, h_trans_bandwidth=params.h_trans, verbose="error")
    raw.info["bads"] = [name for name in raw.ch_names if name in flat or name in trial.bads]
    bad = sorted({*raw.info["bads"], *_outlying(raw, params.lof_threshold)})
    if len(bad) > len(raw.ch_names) // 4:
        raise RecordingError(f"{where}: {len(bad)} of {len(raw.ch_names)} channels are bad ({', '.join(bad[:6])}, …); "
                             "too many to repair.")
    if lacking:
        empty = np.zeros((len(lacking), raw.n_times))
        raw.add_channels([mne.io.RawArray(empty, make_info(list(lacking), trial.sfreq), verbose="error")],
                         force_update_info=True)
        # The sphere of the splines is fitted to the whole cap.
        raw.set_montage(make_info(raw.ch_names, trial.sfreq).get_montage())
    raw.info["bads"] = [*bad, *lacking]
    if raw.info["bads"]:
        raw.interpolate_bads(reset_bads=True, verbose="error")
    raw.set_eeg_reference("average", projection=False, verbose="error")
    return raw.resample(params.sfreq, method="polyphase", verbose="error"), bad


def _outlying(raw: mne.io.BaseRaw, threshold: float) -> list[str]:
    """Channels unlike the third of the cap nearest to them: MNE's 20 neighbors for 62 channels, fewer on small caps."""
    n_good = len(raw.ch_names) - len(raw.info["bads"])
    if n_good < 3:
        return []
    return mne.preprocessing.find_bad_channels_lof(raw, n_neighbors=n_good // 3, threshold=threshold, verbose="error")


def cut_windows(raw: mne.io.BaseRaw, ch_names: list[str], window_s: float) -> np.ndarray:
    """Consecutive windows without overlap.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Cleaned signal.
    ch_names : list of str
        Channels of the windows, in this order.
    window_s : float
        Length of a window in seconds.

    Returns
    -------
    ndarray, shape (n_windows, n_channels, n_samples)
        Float32 microvolts.
    """
    n_samples = round(window_s * raw.info["sfreq"])
    signal = raw.get_data(picks=ch_names, units="uV").astype(np.float32)
    n_windows = signal.shape[1] // n_samples
    signal = signal[:, : n_windows * n_samples].reshape(len(ch_names), n_windows, n_samples)
    return np.ascontiguousarray(signal.transpose(1, 0, 2))


def _process_recording(source, recording, ch_names: list[str], lacking: list[str], params: PreprocessParams,
                       folder: Path) -> str | None:
    """Write the windows of one recording to a part file; return the reason if it had to be skipped."""
    part = _part(folder, recording.name, ".csv")
    if part.exists():  # written last, so the signal is whole
        return None
    blocks, rows = [], []
    try:
        for trial in source.trials(recording):
            raw, bad = clean(trial, params, lacking)
            windows = cut_windows(raw, ch_names, params.window_s)
            blocks.append(windows)
            rows += [_index_row(trial, w, params.window_s, bad) for w in range(len(windows))]
    except RecordingError as error:
        return str(error)
    windows = np.concatenate(blocks)
    np.save(_part(folder, recording.name, ".npy"), windows)
    for suffix, values in zip(MEASURED, measure(windows, params.sfreq, ch_names), strict=True):
        np.save(_part(folder, recording.name, f"{suffix}.npy"), values)
    pd.DataFrame(rows).to_csv(part.with_suffix(".tmp"), index=False)
    os.replace(part.with_suffix(".tmp"), part)
    return None


def _part(folder: Path, name: str, suffix: str) -> Path:
    """Part file of a recording, whose name may hold folders (``sub-01/eeg/run.edf``)."""
    return folder / (quote(name, safe="") + suffix)


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
        Written: ``data.npy``, ``data.power.npy``, ``data.shape.npy``, ``index.csv``, ``channels.json``.
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
    channels, skipped = _channels(source, params)
    usable, target = _agreed(channels, params)
    ch_names = eegpt_channels(usable, params.trained_only)
    lacking = {name: [place for place in ch_names if place not in own] for name, own in channels.items()}
    stamp = f"{source.root} {asdict(params)} {ch_names} {lacking} {[recording.name for recording in source.recordings]}"
    if not (partial / "stamp").is_file() or (partial / "stamp").read_text() != stamp:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        (partial / "stamp").write_text(stamp)
    todo = [recording for recording in source.recordings if recording.name not in skipped]
    jobs = (delayed(_process_recording)(source, recording, ch_names, lacking[recording.name], params, partial)
            for recording in todo)
    progress = tqdm(Parallel(n_jobs=n_jobs, return_as="generator")(jobs), total=len(todo), desc="recordings",
                    leave=False, disable=not is_watched())
    for recording, reason in zip(todo, progress, strict=True):
        if reason is not None:
            skipped[recording.name] = reason
    used = [recording for recording in todo if recording.name not in skipped]
    if not used:
        reason = next(iter(skipped.values()), "the source has none")
        raise SourceError(f"No recording of {source.root} could be used; the first reason: {reason}")
    names = [recording.name for recording in used]
    facts = {"missing": params.missing, "left_out": [place for place in target if place not in usable],
             "interpolated": {name: lacking[name] for name in names if lacking[name]},
             "by_position": _by_position(source, names)}
    _assemble(partial, folder, names, {"ch_names": ch_names, "sfreq": params.sfreq, **facts})
    return skipped


def _channels(source: Source, params: PreprocessParams) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Channels of every usable recording, and the recordings that cannot be used.

    A recording that fails its check is left out, and so is one that lacks most of the wanted channels, or of those that
    most others have.
    """
    channels, skipped = {}, {}
    for recording in source.recordings:
        try:
            names = source.check(recording)
        except RecordingError as error:
            skipped[recording.name] = str(error)
            continue
        channels[recording.name] = [canonical(name) for name in getattr(source, "ch_names", names)]
    counts = Counter(name for names in channels.values() for name in names)
    frequent = [name for name, n in counts.items() if 2 * n > len(channels)]
    typical = {canonical(name) for name in params.wanted} or set(frequent)
    which = "of the wanted channels" if params.wanted else "channels of the other recordings"
    for name, names in list(channels.items()):
        if 2 * len(typical & set(names)) < len(typical):
            skipped[name] = f"{name} lacks most {which} (has {names[:6]}): rename its channels or drop it."
            del channels[name]
    if not channels:
        reason = next(iter(skipped.values()), "the source has no recordings")
        raise SourceError(f"No recording of {source.root} could be used; the first reason: {reason}")
    return channels, skipped


def _agreed(channels: dict[str, list[str]], params: PreprocessParams) -> tuple[list[str], list[str]]:
    """Channels that all windows will have, and those that were wanted."""
    counts = Counter(name for names in channels.values() for name in names)
    shared = [name for name, n in counts.items() if n == len(channels)]
    frequent = [name for name, n in counts.items() if 2 * n > len(channels)]
    target = [canonical(name) for name in params.wanted] or frequent
    usable = target if params.missing == "interpolated" else [name for name in target if name in shared]
    if not usable:
        first = ", ".join(list(channels)[:3])
        raise SourceError(f"The recordings {first}, … share no channel: rename their channels, or set missing to "
                          "'interpolated'.")
    return usable, target


def _by_position(source: Source, names: list[str]) -> dict[str, dict[str, list]]:
    """Channels placed by a measured position: recording to channel to its place and the distance from it, mm."""
    matches = {name: match for name, match in getattr(source, "matches", {}).items()
               if name in names and match.by_position}
    return {name: {channel: [match.places[channel], mm] for channel, mm in match.by_position.items()}
            for name, match in matches.items()}


def _assemble(partial: Path, folder: Path, names: list[str], meta: dict) -> None:
    """Join the parts into one memory-mapped array and an index, then rename the folder."""
    index = pd.concat([read_index(_part(partial, name, ".csv")) for name in names], ignore_index=True)
    for suffix in ("", *MEASURED):
        parts = [np.load(_part(partial, name, f"{suffix}.npy"), mmap_mode="r") for name in names]
        shape = (len(index), *parts[0].shape[1:])
        joined = np.lib.format.open_memmap(partial / f"data{suffix}.npy", mode="w+", dtype=np.float32, shape=shape)
        start = 0
        for part in parts:
            joined[start : start + len(part)] = part
            start += len(part)
        joined.flush()
    for name in names:
        for suffix in (".csv", *(f"{suffix}.npy" for suffix in ("", *MEASURED))):
            _part(partial, name, suffix).unlink()
    (partial / "stamp").unlink()
    (partial / "channels.json").write_text(json.dumps(meta), encoding="utf-8")
    index.insert(0, "id", np.arange(len(index)))
    index.to_csv(partial / "index.csv", index=False)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_index(path: Path) -> pd.DataFrame:
    """The index table of windows, with the types that every stage relies on."""
    text = {"subject": str, "label": str, "bad_channels": str, "context": str}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"intensity": [""]})
