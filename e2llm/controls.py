"""The control battery: what is left of a score when the EEG is exchanged, destroyed or taken away.

Signal controls work for anything that answers from windows; controls inside a language model (no EEG, mean token,
random projector) are given as further answers to the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pandas as pd

from .metrics import balanced_accuracy, paired_difference
from .statistics import label_permutation

Answerer = Callable[[np.ndarray, np.ndarray], np.ndarray]  # signals (n, channels, samples) in microvolts, whose levels (n,) -> class indices (n,)
SignalControl = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def permutation_within(owners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For every window the row of another window of the same person, drawn at random; shape (n,)."""
    source = np.arange(len(owners))
    for who in np.unique(owners):
        own = np.flatnonzero(owners == who)
        source[own] = rng.permutation(own)
    return source


def shuffled_within_subject(signals: np.ndarray, owners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every window becomes another window of the same person."""
    return signals[permutation_within(owners, rng)]


def matched_noise(signals: np.ndarray, owners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with each person's mean power spectrum in every channel: a person's level and rhythm, no window's."""
    out = np.empty_like(signals)
    for who in np.unique(owners):
        own = owners == who
        amplitude = np.sqrt((np.abs(np.fft.rfft(signals[own])) ** 2).mean(axis=0))
        shape = (int(own.sum()), *amplitude.shape)
        # A complex Gaussian of unit power in every bin makes a Gaussian signal with the wanted spectrum.
        bins = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2.0)
        out[own] = np.fft.irfft(amplitude * bins, n=signals.shape[-1])
    return out


def phase_randomised(signals: np.ndarray, owners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fourier surrogates: each window keeps its power spectra and the phase differences between channels, and loses all timing.

    One random phase a frequency is added to all channels alike (Prichard & Theiler 1994, Phys. Rev. Lett. 73:951). A model
    of band power keeps its score; what it loses came from waveforms and moments in time.
    """
    spectra = np.fft.rfft(signals)
    turn = np.exp(2j * np.pi * rng.uniform(size=(len(signals), 1, spectra.shape[-1])))
    turn[..., 0] = 1.0  # the mean and the highest frequency are real
    if signals.shape[-1] % 2 == 0:
        turn[..., -1] = 1.0
    return np.fft.irfft(spectra * turn, n=signals.shape[-1]).astype(signals.dtype)


def permuted_channels(signals: np.ndarray, owners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One permutation of the channels for all windows: every signal is real, none is where it belongs."""
    return signals[:, rng.permutation(signals.shape[1])]


SIGNAL_CONTROLS: dict[str, SignalControl] = {
    "shuffled EEG": shuffled_within_subject, "noise with matched spectrum": matched_noise,
    "phase-randomised": phase_randomised, "permuted channels": permuted_channels,
}


def battery(models: Mapping[str, Answerer], signals: np.ndarray, truth: np.ndarray, owners: np.ndarray, clips: np.ndarray, n_classes: int,
            more: Mapping[str, Mapping[str, np.ndarray]] | None = None, seed: int = 0, n_permutations: int = 1000,
            whose: np.ndarray | None = None) -> pd.DataFrame:
    """Every model under every control, in one table.

    Parameters
    ----------
    models : mapping
        Name to what answers from signals.
    signals : ndarray, shape (n_windows, n_channels, n_samples)
        Test windows, microvolts.
    truth : ndarray of int, shape (n_windows,)
        Class indices.
    owners, clips : ndarray, shape (n_windows,)
        Whose window, of which clip.
    n_classes : int
        Number of classes.
    more : mapping, optional
        Model name to further controls: control name to class indices answered under it.
    seed : int
        Of surrogates, intervals and permutations.
    n_permutations : int
        Of the label null of the intact answers.
    whose : ndarray, shape (n_windows,), optional
        Whose levels windows are compared with (:meth:`e2llm.splits.Split.whose`); default ``owners``.

    Returns
    -------
    DataFrame
        ``name`` (model), ``group`` (EEG or the control), score with interval and chance, ``difference`` to EEG with its interval
        (paired, people resampled), and for EEG ``p``: how often labels permuted among a person's clips score as high, and
        ``p clips``: the same with the clips' labels permuted for everybody alike, NaN where people saw clips with other labels.
    """
    rows, whose = [], owners if whose is None else whose
    same_for_all = len(set(zip(clips, truth, strict=True))) == len(set(clips))
    for name, answer in models.items():
        intact = answer(signals, whose)
        score = partial(balanced_accuracy_of, intact, n_classes)
        p = label_permutation(score, truth, owners, clips, n_permutations, seed)["p"]
        p_clips = label_permutation(score, truth, owners, clips, n_permutations, seed, shared=True)["p"] if same_for_all else np.nan
        rows.append(balanced_accuracy(truth, intact, owners, n_classes, seed).row(name, group="EEG") | {"p": p, "p clips": p_clips})
        answers = {control: answer(change(signals, owners, np.random.default_rng(seed)), whose) for control, change in SIGNAL_CONTROLS.items()}
        for control, given in {**answers, **(more or {}).get(name, {})}.items():
            fall, low, high = paired_difference(truth, given, intact, owners, n_classes, seed)
            rows.append(balanced_accuracy(truth, given, owners, n_classes, seed).row(name, group=control)
                        | {"difference": fall, "difference low": low, "difference high": high})
    return pd.DataFrame(rows)


def balanced_accuracy_of(predicted: np.ndarray, n_classes: int, truth: np.ndarray) -> float:
    """Balanced accuracy alone, for permutations that need it a thousand times."""
    totals = np.bincount(truth, minlength=n_classes)
    hits = np.bincount(truth[truth == predicted], minlength=n_classes)
    return float((hits[totals > 0] / totals[totals > 0]).mean())
