"""One trial becomes clean windows: band-pass, new rate, repaired channels, average reference.

The steps are those of a plain recipe in MNE: its band-pass kernel, its spherical splines, the average reference. What
does not depend on the signal is made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import mne
import numpy as np

from ..core.montage import canonical, make_info
from ..core.space import working_array
from .filtering import filter_and_resample, parts_of
from .preprocess_params import PreprocessParams
from .sources.base import RecordingError, Trial

_TOO_LARGE_UV = 1e9  # no amplifier gives a thousand volts, and squares of such values do not fit single precision


def clean(trial: Trial, params: PreprocessParams, lacking: Sequence[str] = (),
          folder: Path | None = None) -> tuple[np.ndarray, list[str]]:
    """Band-pass, resample, repair and re-reference one trial.

    Parameters
    ----------
    trial : Trial
        Signal in microvolts; it is read in stretches.
    params : PreprocessParams
        Filter edges and the rest.
    lacking : sequence of str
        Channels that the recording does not have and its windows are to have: interpolated from the others.
    folder : Path, optional
        Whose disk holds the signal of a long trial; see :func:`e2llm.core.space.working_array`.

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
    signal, peak_to_peak = filter_and_resample(trial.signal, trial.sfreq, params, len(lacking), folder)
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


def windows_of(trial: Trial, ch_names: Sequence[str], params: PreprocessParams,
               folder: Path | None = None) -> tuple[np.ndarray, list[str]]:
    """Clean a trial and cut it into consecutive windows without overlap.

    Parameters
    ----------
    trial : Trial
        Signal in microvolts.
    ch_names : sequence of str
        Channels of the windows, in this order; those that the trial lacks are interpolated.
    params : PreprocessParams
        Filter edges, rate and window.
    folder : Path, optional
        Whose disk holds signal and windows of a long trial; see :func:`e2llm.core.space.working_array`.

    Returns
    -------
    windows : ndarray, shape (n_windows, n_channels, n_samples)
        Float32 microvolts.
    bad : list of str
        As from :func:`clean`, which also says what is raised.
    """
    own = [canonical(name) for name in trial.ch_names]
    lacking = [name for name in ch_names if name not in own]
    signal, bad = clean(trial, params, lacking, folder)
    rows = [[*own, *lacking].index(name) for name in ch_names]
    n_samples = round(params.window_s * params.sfreq)
    windows = working_array((signal.shape[1] // n_samples, len(rows), n_samples), folder)
    for i, window in enumerate(windows):
        window[:] = signal[rows, i * n_samples : (i + 1) * n_samples]
    return windows, bad
