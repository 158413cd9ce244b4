"""The control battery: what is left of a score when the EEG is exchanged, destroyed or taken away.

Signal controls work for anything that answers from windows; controls inside a language model (no EEG, mean token,
random projector) are given as further answers to the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used

from ..core.chat import Item
from ..models.inference import InferenceEngine
from .metrics import ROUNDING, balanced_accuracy, label_permutation, paired_difference, plain_balanced_accuracy


class Role(StrEnum):
    """Purpose of a row in a table of scores."""

    ORACLE = "oracle"  # knows how the data were made: the ceiling
    BASELINE = "baseline"  # what a model has to beat
    MODEL = "model"
    CONTROL = "control"  # has lost the EEG of its window: must score chance


class EEGInput(StrEnum):
    """EEG that a question is asked about: that of its window, or one of two controls."""

    EEG = "EEG"
    SHUFFLED = "shuffled EEG"
    NONE = "no EEG"


def shuffled(engine: InferenceEngine, index: pd.DataFrame, rows: np.ndarray,
             seed: int | list[int]) -> InferenceEngine:
    """The same model with the EEG of another window of the same person for every window; see :func:`other_windows`.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    index : DataFrame
        One row a window with ``subject`` and ``label``.
    rows : ndarray of int
        Windows to exchange among each other, those of the test part; no other window can be asked about.
    seed : int or list of int
        Of the exchange.
    """
    about = index.iloc[rows]
    source = other_windows(about["subject"].to_numpy(), about["label"].to_numpy(), np.random.default_rng(seed))
    return replace(engine, position={int(window): engine.position[int(rows[other])]
                                     for window, other in zip(rows, source, strict=True)})


def with_mean_token(engine: InferenceEngine, rows: list[int]) -> InferenceEngine:
    """The same model with the mean of the given windows' tokens in place of every window's.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    rows : list of int
        Windows whose tokens are averaged.
    """
    mean = np.mean([engine.features[engine.position[row]] for row in rows], axis=0, keepdims=True,
                   dtype=np.float32)
    return replace(engine, features=mean, position=dict.fromkeys(engine.position, 0))


def with_random_projector(engine: InferenceEngine, seed: int) -> InferenceEngine:
    """The same language model and EEG behind an untrained projector whose outputs are as large as the trained one's.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    seed : int
        Of the projector's weights.
    """
    return replace(engine, model=engine.model.with_random_projector(seed))


def without_eeg(items: list[Item]) -> list[Item]:
    """The same questions with the EEG left out."""
    def strip(message: dict) -> dict:
        return {**message, "content": [part for part in message["content"] if part["type"] != "eeg"]}

    return [replace(item, messages=[strip(message) for message in item.messages]) for item in items]


def variants(engine: InferenceEngine, items: list[Item], index: pd.DataFrame, rows: np.ndarray,
             seed: int) -> dict[EEGInput, tuple[InferenceEngine, list[Item]]]:
    """Engine and items for the EEG and both of its controls.

    Parameters
    ----------
    engine, index, rows, seed
        As in :func:`shuffled`.
    items : list of Item
        Questions about these windows.
    """
    return {EEGInput.EEG: (engine, items), EEGInput.SHUFFLED: (shuffled(engine, index, rows, seed), items),
            EEGInput.NONE: (engine, without_eeg(items))}


# Signals (n, channels, samples) in microvolts and normalization groups (n,) -> class indices (n,)
Answerer = Callable[[np.ndarray, np.ndarray], np.ndarray]
# Signals, subjects or other groups (n,), class indices (n,), generator -> signals
SignalControl = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def other_windows(subjects: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For every window the row of another window of the same person: a permutation that leaves no window where it is.

    The label of the other window tells nothing of the own one: windows of a person are permuted at random, and one that
    drew itself changes places with another window of its label, so that as many windows meet their own label as in the
    random permutation. (A plain derangement avoids the own label, so that a good model would score less than chance on
    it.)

    Parameters
    ----------
    subjects, labels : ndarray, shape (n,)
        Subject and label of each window.
    rng : Generator
        Source of the random numbers.

    Returns
    -------
    ndarray of int, shape (n,)
        Rows. A window that is its person's only one changes places with those of other such people, or joins the person
        with most windows; a window that is its person's only one of its label and drew itself takes one of that label
        from somebody else.

    Raises
    ------
    ValueError
        If there are fewer than two windows.
    """
    if (n := len(subjects)) < 2:
        raise ValueError(f"There is no other window to take the place of a window: {n} given. Shuffle two windows "
                         "or more.")
    _, group, counts = np.unique(subjects, return_inverse=True, return_counts=True)
    lone = counts[group] == 1
    group = np.where(lone, counts.argmax() if lone.sum() == 1 else -1, group)
    source = np.arange(n)
    for code in np.unique(group):
        own = np.flatnonzero(group == code)
        source[own] = rng.permutation(own)
    labels = np.asarray(labels)
    for row in range(n):
        if source[row] == row:
            others, same_label, same_group = np.arange(n) != row, labels == labels[row], group == group[row]
            wanted = (others & same_group & same_label, others & same_label, others & same_group)
            partner = rng.choice(np.flatnonzero(next(rows for rows in wanted if rows.any())))
            source[row], source[partner] = source[partner], row
    return source


def shuffled_within_subject(signals: np.ndarray, subjects: np.ndarray, labels: np.ndarray,
                            rng: np.random.Generator) -> np.ndarray:
    """Every window becomes another window of the same person; see :func:`other_windows`.

    Parameters
    ----------
    signals : ndarray, shape (n, channels, samples)
        Microvolts.
    subjects, labels : ndarray, shape (n,)
        Of each window.
    rng : Generator
        Source of the random numbers.
    """
    return signals[other_windows(subjects, labels, rng)]


def matched_noise(signals: np.ndarray, subjects: np.ndarray, labels: np.ndarray,
                  rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with the mean power spectrum of each person, or of another group, in every channel.

    Parameters
    ----------
    signals : ndarray, shape (n, channels, samples)
        Microvolts.
    subjects, labels : ndarray, shape (n,)
        Of each window; labels play no part.
    rng : Generator
        Source of the random numbers.
    """
    out = np.empty_like(signals)
    for who in np.unique(subjects):
        own = subjects == who
        amplitude = np.sqrt((np.abs(np.fft.rfft(signals[own])) ** 2).mean(axis=0))
        shape = (int(own.sum()), *amplitude.shape)
        # A complex Gaussian of unit power in every bin makes a Gaussian signal with the wanted spectrum.
        bins = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2.0)
        out[own] = np.fft.irfft(amplitude * bins, n=signals.shape[-1])
    return out


def phase_randomized(signals: np.ndarray, subjects: np.ndarray, labels: np.ndarray,
                     rng: np.random.Generator) -> np.ndarray:
    """Fourier surrogates: windows keep power spectra and phase differences between channels, and lose timing.

    One random phase a frequency is added to all channels alike (Prichard & Theiler 1994, Phys. Rev. Lett. 73:951). A
    model of band power keeps its score; what it loses came from waveforms and moments in time.

    Parameters
    ----------
    signals : ndarray, shape (n, channels, samples)
        Microvolts.
    subjects, labels : ndarray, shape (n,)
        Of each window; neither plays a part.
    rng : Generator
        Source of the random numbers.
    """
    spectra = np.fft.rfft(signals)
    rotation = np.exp(2j * np.pi * rng.uniform(size=(len(signals), 1, spectra.shape[-1])))
    rotation[..., 0] = 1.0  # the mean and the highest frequency are real
    if signals.shape[-1] % 2 == 0:
        rotation[..., -1] = 1.0
    return np.fft.irfft(spectra * rotation, n=signals.shape[-1]).astype(signals.dtype)


def permuted_channels(signals: np.ndarray, subjects: np.ndarray, labels: np.ndarray,
                      rng: np.random.Generator) -> np.ndarray:
    """One permutation of the channels for all windows: every signal is real, none is where it belongs.

    Parameters
    ----------
    signals : ndarray, shape (n, channels, samples)
        Microvolts.
    subjects, labels : ndarray, shape (n,)
        Of each window; neither plays a part.
    rng : Generator
        Source of the random numbers.
    """
    return signals[:, rng.permutation(signals.shape[1])]


SIGNAL_CONTROLS: dict[str, SignalControl] = {
    EEGInput.SHUFFLED: shuffled_within_subject, "noise with matched spectrum": matched_noise,
    "phase-randomized": phase_randomized, "permuted channels": permuted_channels,
}
# They destroy a part of the signal: what is left may score above chance
KEEP_EEG = ("phase-randomized", "permuted channels")


def battery(models: Mapping[str, Answerer], signals: np.ndarray, truth: np.ndarray, subjects: np.ndarray,
            clips: np.ndarray, n_classes: int,
            more: Mapping[str, Mapping[str, np.ndarray]] | None = None, seed: int = 0, n_permutations: int = 1000,
            norm_groups: np.ndarray | None = None) -> pd.DataFrame:
    """Every model under every control, in one table.

    Parameters
    ----------
    models : mapping
        Name to what answers from signals.
    signals : ndarray, shape (n_windows, n_channels, n_samples)
        Test windows, microvolts.
    truth : ndarray of int, shape (n_windows,)
        Class indices.
    subjects, clips : ndarray, shape (n_windows,)
        Subject and clip of each window.
    n_classes : int
        Number of classes.
    more : mapping, optional
        Model name to further controls: control name to class indices answered under it.
    seed : int
        Of surrogates, intervals and permutations.
    n_permutations : int
        Of the label null of the intact answers.
    norm_groups : ndarray, shape (n_windows,), optional
        Normalization group of each window (:meth:`e2llm.data.protocols.Split.norm_groups`); default ``subjects``.

    Returns
    -------
    DataFrame
        ``name`` (model), ``group`` (EEG or the control), ``role`` (:class:`Role`; a control where nothing of the window
        is left), score with interval and chance, ``difference`` to EEG with its interval (paired, people resampled),
        and for EEG ``p``: how often labels permuted among a person's clips score as high, and ``p clips``: the same
        with the clips' labels permuted for everybody alike, NaN where people saw clips with other labels.
    """
    rows, norm_groups = [], subjects if norm_groups is None else norm_groups
    same_for_all = len(set(zip(clips, truth, strict=True))) == len(set(clips))
    # One kind of signals after the other, so that models which share an encoder can share its tokens.
    changes = {EEGInput.EEG: lambda intact, *_: intact, **SIGNAL_CONTROLS}
    answers: dict[str, dict[str, np.ndarray]] = {name: {} for name in models}
    for control, change in changes.items():
        # Exchanged windows take their normalization along. All other changes stay within a normalization group.
        exchanged = control == EEGInput.SHUFFLED
        changed = change(signals, subjects if exchanged else norm_groups, truth, np.random.default_rng(seed))
        source = other_windows(subjects, truth, np.random.default_rng(seed)) if exchanged else slice(None)
        for name, answer in models.items():
            answers[name][control] = answer(changed, norm_groups[source])
    for name in models:
        intact = answers[name].pop(EEGInput.EEG)

        def score(labels: np.ndarray, intact: np.ndarray = intact) -> float:
            return plain_balanced_accuracy(labels, intact, n_classes)

        null = truth, subjects, clips, n_permutations, seed
        p = label_permutation(score, *null)["p"]
        p_clips = label_permutation(score, *null, shared=True)["p"] if same_for_all else np.nan
        rows.append(balanced_accuracy(truth, intact, subjects, n_classes, seed).row(name, group=EEGInput.EEG,
                                                                                    role=Role.MODEL)
                    | {"p": p, "p clips": p_clips})
        for control, given in {**answers[name], **(more or {}).get(name, {})}.items():
            role = Role.MODEL if control in KEEP_EEG else Role.CONTROL
            fall, low, high = paired_difference(truth, given, intact, subjects, n_classes, seed)
            rows.append(balanced_accuracy(truth, given, subjects, n_classes, seed).row(name, group=control, role=role)
                        | {"difference": fall, "difference low": low, "difference high": high})
    return pd.DataFrame(rows)


def controls_at_chance(*tables: pd.DataFrame, subjects: int) -> pd.DataFrame:
    """Hold every control of some tables against its own chance.

    One in twenty sound controls misses its 95 % interval by luck. Two tests at the level of 5 % for all m controls
    together (Bonferroni) guard against that, and a control is above or below chance only if both say so. The first is
    of people: the quantile of Student's t at 0.05 / m, with one degree of freedom less than people, takes the place of
    that at 0.05 in the interval. It holds where people differ, but a handful may happen to be alike, and their interval
    is then too narrow. The second is of items: the interval of pure guessing at ``n`` items. Because both must fail,
    all sound controls are found at chance in 95 of 100 evaluations, and a leak costs power only where ``n`` guesses
    could not show it either. In tier 1 the intervals over people count, not those over people and clips, which hold
    everything where clips are few; in tiers 2 and 3 those over people, clips and texts.

    Parameters
    ----------
    *tables : DataFrame
        Of scores, with columns ``name``, ``role`` (:class:`Role`), ``score``, ``low``, ``high`` (95 % interval),
        ``chance`` and ``n``; ``group`` where a name stands for several rows. Their controls are judged
        together.
    subjects : int
        Number of people behind the intervals. One gives no information about others: its intervals stay 0 to 1.

    Returns
    -------
    DataFrame
        One row a control: ``name``, ``group``, ``score``, ``chance``, widened ``low`` and ``high``, ``at_chance``.

    Raises
    ------
    ValueError
        If the tables hold no control.
    """
    found = pd.concat([table[table["role"] == Role.CONTROL] for table in tables], ignore_index=True)
    if found.empty:
        raise ValueError("The tables hold no row with the role 'control': give the tables of an evaluation, tier 1 and "
                         "tiers 2 and 3.")
    wider = 1.0
    if subjects > 1:
        wider = scipy.stats.t.ppf(1 - 0.025 / len(found), subjects - 1) / scipy.stats.t.ppf(0.975, subjects - 1)
    spread = np.sqrt(found["chance"] * (1 - found["chance"]) / found["n"])
    guessing = scipy.stats.norm.ppf(1 - 0.025 / len(found)) * spread
    found["low"] = found["score"] - np.maximum(wider * (found["score"] - found["low"]), guessing)
    found["high"] = found["score"] + np.maximum(wider * (found["high"] - found["score"]), guessing)
    found["at_chance"] = (found["low"] - ROUNDING <= found["chance"]) & (found["chance"] <= found["high"] + ROUNDING)
    return found.reindex(columns=["name", "group", "score", "chance", "low", "high", "at_chance"])
