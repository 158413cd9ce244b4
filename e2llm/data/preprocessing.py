"""From labelled trials to windows on disk, one trial in memory at a time.

The steps are those of a plain recipe in MNE: its band-pass kernel, its spherical splines, the average reference. Filter
and resampling are one pass over the Fourier coefficients of a stretch, in single precision, and what does not depend on
the signal is made once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import lru_cache
from math import ceil
from pathlib import Path
from urllib.parse import quote

import mne
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import fft
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ..core.bands import BANDS
from ..core.claims import SHAPE
from ..core.environment import is_watched
from ..core.montage import canonical, eegpt_channels, known_channels, make_info
from .features import measure
from .sources.base import RecordingError, Source, SourceError, Trial

MEASURED = (".power", ".shape")  # files of measured features, in the order of features.measure
MISSING = ("masked", "interpolated")
_ARRAYS = ("data.npy", *(f"data{suffix}.npy" for suffix in MEASURED))
_BLOCK = 6.0  # lengths of the filter's kernel that are transformed at a time
_GUARD_S = 0.25  # of signal on either side of a block beside half a kernel: the resampling's own kernel fades in it
_ROWS = 8  # channels transformed together: their coefficients stay in the processor's cache


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
        If the trial has one channel only, is shorter than one window, flat everywhere, or mostly bad channels.
    """
    where = f"subject {trial.subject}, clip {trial.clip}"
    names, seconds = [canonical(name) for name in trial.ch_names], trial.signal.shape[1] / trial.sfreq
    if seconds < params.window_s:
        raise RecordingError(f"{where}: {seconds:.1f} s of signal is shorter than one window of {params.window_s:g} s; "
                             "drop the clip or shorten window_s.")
    if len(names) < 2:
        raise RecordingError(f"{where}: one channel ({trial.ch_names[0]}) has no average reference; record two or "
                             "more.")
    signal, peak_to_peak = filter_and_resample(trial.signal, trial.sfreq, params, len(lacking))
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
        for part in _parts(signal):
            part[:] = matrix @ part
    for part in _parts(signal):
        part -= part.mean(axis=0)
    return signal, bad


def filter_and_resample(signal, sfreq: float, params: PreprocessParams,
                        n_empty: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Band-pass with MNE's kernel and change the rate, stretch by stretch.

    A stretch with its neighbourhood is transformed once, its coefficients are multiplied by those of the kernel, and
    the transform back has as many samples as the new rate asks for. That interpolates the filtered signal exactly, for
    nothing is left of it at half of either rate. The ends are continued as MNE does it, by a reflection about the last
    sample.

    Parameters
    ----------
    signal : array, shape (n_channels, n_samples)
        Microvolts; sliced along time, so it may be read from a file.
    sfreq : float
        Its rate in Hz. The ratio of the rates is taken to a millionth.
    params : PreprocessParams
        Filter edges and the new rate.
    n_empty : int
        Rows of zeros that are appended to the result.

    Returns
    -------
    resampled : ndarray, shape (n_channels + n_empty, n_samples * params.sfreq / sfreq)
        Float32 microvolts.
    peak_to_peak : ndarray, shape (n_channels,)
        Of the signal that came in.
    """
    ratio = Fraction(params.sfreq / sfreq).limit_denominator(1000)
    up, down, (n_channels, n_samples) = ratio.numerator, ratio.denominator, signal.shape
    band = (sfreq, params.l_freq, min(params.h_freq, sfreq / 2 - params.h_trans), params.h_trans)
    length = len(_kernel(*band))
    margin = down * ceil((length / 2 + _GUARD_S * sfreq) / down)
    step = down * ceil((_BLOCK * length - 2 * margin) / down)
    resampled = np.zeros((n_channels + n_empty, round(n_samples * ratio)), dtype=np.float32)
    lowest, highest = np.full(n_channels, np.inf), np.full(n_channels, -np.inf)
    for start in range(0, n_samples, step):
        stop = min(start + step, n_samples)
        first = max(start - margin, 0)
        x = np.asarray(signal[:, first : stop + margin], dtype=np.float32)
        lowest, highest = np.minimum(lowest, x.min(axis=1)), np.maximum(highest, x.max(axis=1))
        # Single precision is for the EEG, not for the offset of an amplifier, which may be a thousand times as large.
        offset = x.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        left = margin - (start - first)
        n_old = down * fft.next_fast_len(ceil((stop - start + 2 * margin) / down), real=True)
        n_new = n_old * up // down
        x = np.pad(x, ((0, 0), (left, n_old - left - x.shape[1])), mode="reflect", reflect_type="odd")
        x -= offset
        gain, gain_0 = _gain(band, n_old, n_new)
        here, there = start * up // down, min(ceil(stop * ratio), resampled.shape[1])
        skip = margin * up // down
        for row in range(0, n_channels, _ROWS):
            rows = slice(row, min(row + _ROWS, n_channels))
            coefficients = fft.rfft(x[rows])[:, : len(gain)] * gain
            resampled[rows, here:there] = fft.irfft(coefficients, n_new)[:, skip : skip + there - here]
        resampled[:n_channels, here:there] += offset * gain_0
    return resampled, highest - lowest


@lru_cache(maxsize=16)
def _kernel(sfreq: float, l_freq: float, h_freq: float, h_trans: float) -> np.ndarray:
    """MNE's band-pass kernel, of odd length and without delay."""
    return mne.filter.create_filter(None, sfreq, l_freq, h_freq, h_trans_bandwidth=h_trans, verbose="error")


@lru_cache(maxsize=16)
def _gain(band: tuple[float, ...], n_old: int, n_new: int) -> tuple[np.ndarray, np.float32]:
    """What Fourier coefficients are multiplied by, below half of either rate, and the gain of a constant."""
    kernel = _kernel(*band)
    centred = np.zeros(n_old)
    centred[: len(kernel)] = kernel
    gain = fft.rfft(np.roll(centred, -(len(kernel) // 2))).real[: (min(n_old, n_new) + 1) // 2]
    return (gain * n_new / n_old).astype(np.float32), np.float32(kernel.sum())


def _parts(signal: np.ndarray) -> list[np.ndarray]:
    """Stretches of a signal as views, short enough for the processor's cache."""
    return [signal[:, start : start + 4096] for start in range(0, signal.shape[1], 4096)]


def _outlying(signal: np.ndarray, good: list[int], threshold: float) -> np.ndarray:
    """Which of the good channels are unlike the third of the cap nearest to them.

    The score is MNE's ``find_bad_channels_lof``, the local outlier factor of channels as points with a coordinate a
    sample; their distances come from one product of matrices. For 62 channels the neighbours are MNE's 20.
    """
    from sklearn.neighbors import LocalOutlierFactor  # takes seconds to import

    if len(good) < 3:
        return np.array([], dtype=int)
    gram = sum((part @ part.T).astype(np.float64) for part in _parts(signal))[np.ix_(good, good)]
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


def _process_recording(source, recording, ch_names: list[str], params: PreprocessParams, folder: Path) -> str | None:
    """Write the windows of one recording to part files; return the reason if it had to be skipped."""
    part = _part(folder, recording.name, ".csv")
    if part.exists():  # written last, so the signal is whole
        return None
    rows, files = [], [_part(folder, recording.name, suffix) for suffix in ("", *MEASURED)]
    try:
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("wb")) for file in files]
            for trial in source.trials(recording):
                windows, bad = windows_of(trial, ch_names, params)
                for file, values in zip(opened, (windows, *measure(windows, params.sfreq, ch_names)), strict=True):
                    values.tofile(file)
                rows += [_index_row(trial, w, params.window_s, bad) for w in range(len(windows))]
    except RecordingError as error:
        for path in files:
            path.unlink()
        return str(error)
    pd.DataFrame(rows).to_csv(part.with_suffix(".tmp"), index=False)
    os.replace(part.with_suffix(".tmp"), part)
    return None


def _part(folder: Path, name: str, suffix: str) -> Path:
    """Part file of a recording, whose name may hold folders (``sub-01/eeg/run.edf``): its index, or bare float32."""
    return folder / (quote(name, safe="") + (suffix if suffix == ".csv" else f"{suffix}.f32"))


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
    jobs = (delayed(_process_recording)(source, recording, ch_names, params, partial) for recording in todo)
    # Threads, for the transforms and products let go of the interpreter and nothing is copied or started; each product
    # runs in one thread, so that cores are not shared and sums are the same for every number of jobs.
    with threadpool_limits(1):
        reasons = Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")(jobs)
        progress = tqdm(reasons, total=len(todo), desc="recordings", leave=False, disable=not is_watched())
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
    shapes = [(len(ch_names), round(params.window_s * params.sfreq)), (len(ch_names), len(BANDS)), (len(SHAPE),)]
    _assemble(partial, folder, names, shapes, {"ch_names": ch_names, "sfreq": params.sfreq, **facts})
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
    for name in names:
        for suffix in (".csv", "", *MEASURED):
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
