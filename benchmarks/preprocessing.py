"""Preprocessing against the same steps by MNE's own functions; ours looks for bad channels, too.

How to run it and what came out stands in ``benchmarks/README.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mne
import numpy as np
from common import Row, compare, main_of, seconds
from joblib import Parallel, delayed
from scipy import fft
from threadpoolctl import threadpool_limits

from e2llm.core.montage import SEED_CHANNELS, eegpt_channels, make_info, match_channels
from e2llm.data.cleaning import windows_of
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.sources.base import Trial

PARAMS = PreprocessParams(lof_threshold=50.0)  # the search runs and finds nothing, as MNE's side repairs nothing
SECONDS_A_CALL = 60
EEGMAT = next((path for parent in Path(__file__).resolve().parents if (path := parent / "shared/data/eegmat").is_dir()),
              None)


def noise(duration_s: float, sfreq: float) -> np.ndarray:
    """Thirty sources whose power falls with the square of frequency, in 62 channels, microvolts."""
    rng = np.random.default_rng(0)
    sources = 0.3 * rng.normal(size=(30, round(duration_s * sfreq))).cumsum(axis=1)
    return (rng.normal(size=(62, 30)) @ sources / 5 + rng.normal(size=(62, sources.shape[1]))).astype(np.float32)


def recipe(trial: Trial, method: str) -> np.ndarray:
    """Windows by MNE: band-pass, average reference, resampling, cut."""
    ch_names = eegpt_channels(list(trial.ch_names))
    raw = mne.io.RawArray(trial.signal * 1e-6, make_info(list(trial.ch_names), trial.sfreq), verbose="error")
    raw.filter(0.5, 45.0, h_trans_bandwidth=5.0, verbose="error")
    raw.set_eeg_reference("average", projection=False, verbose="error")
    raw.resample(256.0, method=method, verbose="error")
    signal = raw.get_data(picks=ch_names, units="uV").astype(np.float32)
    n = signal.shape[1] // 1024
    return np.ascontiguousarray(signal[:, : n * 1024].reshape(len(ch_names), n, 1024).transpose(1, 0, 2))


def ours(trial: Trial) -> np.ndarray:
    return windows_of(trial, eegpt_channels(list(trial.ch_names)), PARAMS)[0]


def inside(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference in microvolts without a tenth of a second at the ends of the clip."""
    one, other = (windows.transpose(1, 0, 2).reshape(windows.shape[1], -1)[:, 26:-26] for windows in (ours, theirs))
    return float(np.abs(one - other).max())


def transforms(trial: Trial) -> Callable[[], None]:
    """Only the Fourier transforms there and back, of the clip without its margins."""
    n_new = trial.signal.shape[1] * 256 // int(trial.sfreq)

    def work() -> None:
        for row in range(0, len(trial.signal), 8):
            fft.irfft(fft.rfft(trial.signal[row : row + 8])[:, : n_new // 2], n_new)

    return work


def repeated(work: Callable[[], np.ndarray], n: int) -> Callable[[], np.ndarray]:
    """``n`` calls in one, of which the last result is kept."""
    return lambda: [work() for _ in range(n)][-1]


def rows(repeats: int) -> Iterator[Row]:
    clips = {f"{duration} s at {sfreq:g} Hz, 62 channels": Trial("1", 1, 1, "", noise(duration, sfreq), sfreq,
                                                                 SEED_CHANNELS)
             for duration, sfreq in ((8, 200.0), (8, 1000.0), (60, 200.0), (240, 200.0), (240, 1000.0))}
    if EEGMAT is not None:
        raw = mne.io.read_raw_edf(EEGMAT / "Subject00_1.edf", verbose="error")
        match = match_channels(raw.ch_names)
        clips["real EEG, 182 s at 500 Hz, 19 channels"] = Trial(
            "0", 1, 1, "", raw.get_data(picks=list(match.places), units="uV").astype(np.float32), 500.0,
            tuple(match.places.values()))
    with threadpool_limits(1):
        for name, trial in clips.items():
            n = max(1, round(SECONDS_A_CALL / (trial.signal.shape[1] / trial.sfreq)))
            floor = n * min(seconds(transforms(trial))[0] for _ in range(3))
            for method, tolerance in (("polyphase", 0.3), ("fft", None)):
                yield compare(f"{n} × {name}; MNE {method}", repeated(lambda trial=trial: ours(trial), n),
                              repeated(lambda trial=trial, method=method: recipe(trial, method), n), inside, tolerance,
                              repeats, goal=2.0, floor_s=floor)
        trial = clips["60 s at 200 Hz, 62 channels"]
        for method in ("polyphase", "fft"):
            yield compare(f"two cores: 8 × 60 s at 200 Hz, 62 channels; MNE {method} on one",
                          lambda: Parallel(2, backend="threading")(delayed(ours)(trial) for _ in range(8))[0],
                          repeated(lambda method=method: recipe(trial, method), 8), inside,
                          0.3 if method == "polyphase" else None, repeats, goal=3.0)
        yield compare("two cores: 8 × 60 s at 200 Hz, 62 channels; ours on one",
                      lambda: Parallel(2, backend="threading")(delayed(ours)(trial) for _ in range(8))[0],
                      repeated(lambda: ours(trial), 8), inside, 0.0, repeats)


if __name__ == "__main__":
    sys.exit(main_of(__doc__, rows, ["mne", "numpy", "scipy", "scikit-learn"]))
