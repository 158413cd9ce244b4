"""Somebody whom no training has met: a recording read as the training's recordings were, and levels to compare it with.

Evidence and the encoder's input are relative to a level. A newcomer has two: the own (mean of all windows of the recording, the window
that is asked about included, without any label: transductive), and the population's (mean over the people of the training run).
Which one was taken stands beside every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from ..core.labels import LabelSet
from .dataset import Corpus
from .features import differential_entropy, evidence, measure
from .normalization import Baseline, Equaliser
from .preprocessing import PreprocessParams, Windows, clean, cut_windows
from .protocols import Split
from .sources.base import RecordingError, Trial, bads_of, open_raw, place_channels, read_stretch

LEVELS = {"own": "own levels", "population": "population levels"}
MEANT = {"own": "own levels: compared with the mean of these files (transductive: the windows that are asked about took part, without a label)",
         "population": "population levels: compared with the mean of the people that the model was trained on"}
OWN_WINDOWS = 12  # fewer give no own level: with n windows no z-score can exceed (n - 1) / sqrt(n), which is 3.2 here


@dataclass(frozen=True)
class PopulationStatistics:
    """Levels of the people of a run, averages over all their windows that the split allows (:attr:`e2llm.data.protocols.Split.fit`).

    Parameters
    ----------
    log_power : ndarray, shape (n_channels, n_bands)
        Mean natural logarithm of band power in square microvolts: where :class:`e2llm.data.normalization.Equaliser` brings everybody.
    evidence : ndarray, shape (2, n_evidence)
        Mean and standard deviation of :func:`e2llm.data.features.evidence`.
    entropy : ndarray, shape (2, n_channels * n_bands)
        Mean and standard deviation of differential entropy, nats.
    """

    log_power: np.ndarray
    evidence: np.ndarray
    entropy: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus) -> PopulationStatistics:
        """Levels of a run."""
        windows, fit = corpus.windows, corpus.split.fit
        power, shape = np.asarray(windows.power)[fit], np.asarray(windows.shape)[fit]
        values, _ = evidence(power, shape, windows.ch_names)
        entropy = differential_entropy(power).reshape(len(fit), -1)
        return cls(np.log(np.maximum(power, 1e-12)).mean(axis=0), *(np.stack([found.mean(axis=0), found.std(axis=0)]) for found in (values, entropy)))

    @classmethod
    def open(cls, path: Path) -> PopulationStatistics:
        """Levels of a file that :meth:`save` wrote."""
        return cls(**load_file(path))

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_file({field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}, path)

    def equaliser(self, power: np.ndarray, own: bool, who: str, sfreq: float) -> Equaliser:
        """What brings a newcomer's own mean power to the population's; without own levels the signal stays as it is."""
        gain = np.ones(self.log_power.shape, dtype=np.float32)
        if own:
            gain = np.exp(0.5 * (self.log_power - np.log(np.maximum(power, 1e-12)).mean(axis=0))).astype(np.float32)
        return Equaliser(gain[None], [who], sfreq)


@dataclass(frozen=True)
class NewSubject(Corpus):
    """Windows of somebody without labels, with all that may be said of them; ``channel_levels`` is what scalp maps are compared with."""

    channel_levels: Baseline | None = None

    @classmethod
    def of(cls, windows: Windows, label_set: LabelSet, population: PopulationStatistics, levels: str) -> NewSubject:
        """Measure windows of :func:`read_windows` against one of :data:`LEVELS`.

        Raises
        ------
        RecordingError
            If there are too few windows for own levels.
        """
        own, n, who = levels == "own", len(windows), str(windows.index["subject"].iloc[0])
        if own and n < OWN_WINDOWS:
            raise RecordingError(f"{who}: {n} windows are too few for own levels ({OWN_WINDOWS} are needed): give a longer recording, or "
                                 "levels='population'.")
        everything, subjects = np.arange(n), np.full(n, who, dtype=object)
        split = Split("new recording", everything[:0], everything[:0], everything, everything, "transductive" if own else "population")
        values, names = evidence(windows.power, windows.shape, windows.ch_names)
        entropy = differential_entropy(windows.power).reshape(n, -1)
        stored = (Baseline(mean[None], np.maximum(sd, 1e-6)[None], [who]) for mean, sd in (population.evidence, population.entropy))
        baseline, channels = (Baseline.fit(found, subjects, split) if own else level for found, level in zip((values, entropy), stored, strict=True))
        return cls(windows, label_set, split, population.equaliser(windows.power, own, who, windows.sfreq), baseline.z(values, subjects), names,
                   np.zeros((n, 0), dtype=np.float32), np.full(n, -1), subjects, subjects, None, channels)


def read_windows(files: Sequence[str | Path], ch_names: list[str], params: PreprocessParams, levels: str) -> tuple[Windows, list[str]]:
    """Files of one person as windows, cleaned exactly as a run's recordings were.

    Parameters
    ----------
    files : sequence of path
        Anything that MNE reads (EDF, BDF, BrainVision, FIF, …).
    ch_names : list of str
        Channels that the encoder was trained on, in its order. Up to a quarter may be missing from a file: they are interpolated by
        spherical splines, as bad channels are, and named.
    params : PreprocessParams
        Of the run.
    levels : str
        Key of :data:`LEVELS` that the windows will be compared with; its name stands in the index.

    Returns
    -------
    windows : Windows
        In memory; the index has the columns of a run's, no label, and the file's name.
    notes : list of str
        What was interpolated, file by file.

    Raises
    ------
    ValueError
        For unknown levels.
    RecordingError
        If a file cannot be read, has no known channel, lacks too many, is too slow or too short; the message names the file.
    """
    if levels not in LEVELS:
        raise ValueError(f"There are no levels '{levels}': give one of {', '.join(LEVELS)}.")
    blocks, rows, notes = [], [], []
    who = Path(files[0]).name
    for number, path in enumerate(map(Path, files), start=1):
        trial, missing = _read(path, ch_names, params, who, number)
        raw, bad = clean(trial, params, missing)
        blocks.append(cut_windows(raw, ch_names, params.window_s))
        said = {"missing and interpolated": missing, "bad and interpolated": bad}
        notes += [f"{path.name}: {what}: {', '.join(names)}" for what, names in said.items() if names]
        same = {"subject": who, "session": 1, "clip": number, "label": "", "intensity": np.nan, "clip_s": trial.signal.shape[1] / trial.sfreq,
                "bad_channels": " ".join([*bad, *missing]), "file": path.name, "levels": LEVELS[levels]}
        rows += [{**same, "window": w, "start_s": w * params.window_s} for w in range(len(blocks[-1]))]
    data = np.concatenate(blocks)
    index = pd.DataFrame(rows)
    index.insert(0, "id", np.arange(len(index)))
    return Windows(data, *measure(data, params.sfreq, ch_names), index, list(ch_names), params.sfreq), notes


def _read(path: Path, ch_names: list[str], params: PreprocessParams, who: str, number: int) -> tuple[Trial, list[str]]:
    """One file, and the channels that are needed and that it lacks."""
    if not path.is_file():
        raise RecordingError(f"{path} is missing: give the path of a recording.")
    raw = open_raw(path)
    match = place_channels(raw, path)
    places = list(match.places.values())
    if len(missing := [name for name in ch_names if name not in places]) > len(ch_names) // 4:
        raise RecordingError(f"{path} lacks {len(missing)} of the {len(ch_names)} channels that the encoder was trained on ({', '.join(missing)}); "
                             f"at most {len(ch_names) // 4} can be interpolated. Take a model that was trained on such a cap.")
    if (sfreq := raw.info["sfreq"]) / 2 - params.h_trans < params.h_freq:
        raise RecordingError(f"{path} was sampled at {sfreq:g} Hz, but the model listens up to {params.h_freq:g} Hz, which needs "
                             f"{2 * (params.h_freq + params.h_trans):g} Hz or more.")
    return Trial(who, 1, number, "", read_stretch(raw, match, path), sfreq, tuple(places), bads=bads_of(raw, match)), missing
