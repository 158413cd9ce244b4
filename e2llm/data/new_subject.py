"""New subjects: recordings outside the training data, and the statistics that their windows are compared with.

Evidence and the encoder's input are relative to a baseline. A new subject has two: subject statistics (mean of all
windows of the recording without any label, the window in question included: transductive), and population statistics
(mean over the subjects of the training run). Every answer names the one that was used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..core.claims import LOW_HIGH, Scale
from ..core.labels import LabelSet
from .checks import RecordingFacts, judge_together, settle
from .dataset import Corpus
from .features import differential_entropy, evidence
from .gate import admit, settle_recording
from .normalization import Equalizer, FeatureStatistics
from .preprocess_params import PreprocessParams
from .preprocessing import Windows
from .protocols import Split
from .sources.base import RecordingError, Stretch, Trial, bads_of, place_channels
from .sources.samples import TableOptions, open_recording

STATISTICS_NOTES = {
    "subject": "subject statistics: compared with the mean of these files (transductive: the windows in question took "
               "part, without a label)",
    "population": "population statistics: compared with the mean of the subjects that the model was trained on",
}  # fmt: skip
MIN_SUBJECT_WINDOWS = 12  # with n windows no z-score can exceed (n - 1) / sqrt(n), which is 3.2 here


@dataclass(frozen=True)
class PopulationStatistics:
    """Averages over all windows of a run that its split allows (:attr:`e2llm.data.protocols.Split.fit`).

    Parameters
    ----------
    log_power : ndarray, shape (n_channels, n_bands)
        Mean natural logarithm of band power in square microvolts: the target of
        :class:`e2llm.data.normalization.Equalizer`.
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
        """Statistics of a dataset."""
        windows, fit = corpus.windows, corpus.split.fit
        power, shape = np.asarray(windows.power)[fit], np.asarray(windows.shape)[fit]
        values, _ = evidence(power, shape, windows.ch_names)
        entropy = differential_entropy(power).reshape(len(fit), -1)
        return cls(np.log(np.maximum(power, 1e-12)).mean(axis=0),
                   *(np.stack([measured.mean(axis=0), measured.std(axis=0)]) for measured in (values, entropy)))

    @classmethod
    def open(cls, path: Path) -> PopulationStatistics:
        """Statistics of a file that :meth:`save` wrote; ValueError if it is another file, or holds no numbers."""
        names = [field.name for field in fields(cls)]
        try:
            stored = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): copy the folder again.") from error
        if set(stored) != set(names):
            raise ValueError(f"{path} holds {sorted(stored)}, not {names}: copy the folder again.")
        if wrong := [name for name in names if not np.isfinite(stored[name]).all()]:
            raise ValueError(f"{path}: {', '.join(wrong)} holds values that are not finite: copy the folder again.")
        return cls(**stored)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_file({field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}, path)


@dataclass(frozen=True)
class NewSubject(Corpus):
    """Windows of a new subject: a dataset without labels, in which every window is a test window."""

    @classmethod
    def of(cls, windows: Windows, label_set: LabelSet, population: PopulationStatistics, statistics: str,
           scale: Scale = LOW_HIGH) -> NewSubject:
        """Compare windows with the statistics of the subject or of the population.

        Parameters
        ----------
        windows : Windows
            From :func:`read_windows`.
        label_set : LabelSet
            The model's closed set of answers.
        population : PopulationStatistics
            Of the training run.
        statistics : str
            Key of :data:`STATISTICS_NOTES`.
        scale : Scale
            The model's words for evidence.

        Raises
        ------
        RecordingError
            If there are too few windows for subject statistics.
        """
        by_subject, n, subject = statistics == "subject", len(windows), str(windows.index["subject"].iloc[0])
        if by_subject and n < MIN_SUBJECT_WINDOWS:
            raise RecordingError(f"{subject}: {n} windows are too few for subject statistics ({MIN_SUBJECT_WINDOWS} "
                                 "are needed): give a longer recording, or statistics='population'.")
        rows, subjects = np.arange(n), np.full(n, subject, dtype=object)
        split = Split("new recording", rows[:0], rows[:0], rows, rows, "transductive" if by_subject else "population")
        values, names = evidence(windows.power, windows.shape, windows.ch_names)
        if by_subject:
            entropy = differential_entropy(windows.power).reshape(n, -1)
            fitted, channels = (FeatureStatistics.fit(measured, subjects, split) for measured in (values, entropy))
            log_power = np.log(np.maximum(windows.power, 1e-12)).mean(axis=0)
            gain = np.exp(0.5 * (population.log_power - log_power)).astype(np.float32)
        else:
            fitted, channels = (FeatureStatistics(mean[None], np.maximum(sd, 1e-6)[None], [subject])
                                  for mean, sd in (population.evidence, population.entropy))
            gain = np.ones(population.log_power.shape, dtype=np.float32)
        return cls(
            windows=windows, label_set=label_set, split=split,
            equalize=Equalizer(gain[None], [subject], windows.sfreq), z=fitted.z(values, subjects),
            evidence_names=replace(names, scale=scale), spectral=np.zeros((n, 0), dtype=np.float32),
            labels=np.full(n, -1), subjects=subjects, norm_groups=subjects, statistics=fitted,
            channel_statistics=channels,
        )


def read_windows(files: Sequence[str | Path], ch_names: list[str], params: PreprocessParams,
                 statistics: str, table: TableOptions | None = None) -> tuple[Windows, list[str]]:
    """Files of one subject as windows, cleaned exactly as a run's recordings were.

    Parameters
    ----------
    files : sequence of path
        Anything that MNE reads (EDF, BDF, BrainVision, FIF, …), and tables of samples.
    ch_names : list of str
        Channels that the encoder was trained on, in its order. Up to a quarter may be missing from a file: they are
        interpolated by spherical splines, as bad channels are, and named.
    params : PreprocessParams
        Of the run.
    statistics : str
        Key of :data:`STATISTICS_NOTES` that the windows will be compared with; its name stands in the index.
    table : TableOptions, optional
        What tables of samples do not say themselves.

    Returns
    -------
    windows : Windows
        In memory; the index has the columns of a run's, no label, and the file's name.
    notes : list of str
        What was interpolated or left out, file by file. A window that is left out has no row; ``start_s`` of the
        others is their time in the file.

    Raises
    ------
    ValueError
        For unknown statistics.
    RecordingError
        If a file cannot be read, has no known channel, lacks too many, is too slow or too short, or does not pass the
        gate (:mod:`e2llm.data.checks`); the message names the file.
    """
    if not isinstance(statistics, str) or statistics not in STATISTICS_NOTES:
        raise ValueError(f"There are no statistics {statistics!r:.60}: give one of {', '.join(STATISTICS_NOTES)}.")
    if not files:
        raise ValueError("There is no file to read: give at least one.")
    blocks, rows, notes, known = [], [], [], {}
    subject = Path(files[0]).name
    for number, path in enumerate((Path(file).expanduser() for file in files), start=1):
        trial, missing = _read(path, ch_names, subject, number, table)
        facts = known[f"{path.name} (file {number})"] = RecordingFacts(str(path))
        admitted = admit(trial, ch_names, params, facts)
        settle_recording(facts, params)
        assert admitted is not None  # or the recording was refused
        blocks.append(admitted)
        repaired = {"missing and interpolated": missing, "bad and interpolated": admitted.bad}
        notes += [f"{path.name}: {what}: {', '.join(names)}" for what, names in repaired.items() if names]
        notes += [f"{path.name}: {flaw['fact']}" for flaw in facts.flaws]
        same = {"subject": subject, "session": 1, "clip": number, "label": "", "intensity": np.nan,
                "clip_s": trial.signal.shape[1] / trial.sfreq, "bad_channels": " ".join([*admitted.bad, *missing]),
                "file": path.name, "statistics": f"{statistics} statistics"}
        rows += [{**same, "window": w, "start_s": w * params.window_s} for w in admitted.places.tolist()]
    for name, flaws in judge_together(known).items():
        for flaw in settle(flaws, params.quality):
            # A signal may be asked about twice: here is no split that the copy could cross.
            if flaw.severity == "refuse" and flaw.rule != "same signal":
                raise RecordingError(f"{name}: {flaw}")
            notes.append(f"{name}: {flaw.fact}")
    index = pd.DataFrame(rows)
    index.insert(0, "id", np.arange(len(index)))
    data, power, shape = (np.concatenate(arrays) for arrays in list(zip(*blocks, strict=True))[:3])
    return Windows(data, power, shape, index, list(ch_names), params.sfreq), notes


def _read(path: Path, ch_names: list[str], subject: str, number: int,
          table: TableOptions | None) -> tuple[Trial, list[str]]:
    """One file, and the channels that are needed and that it lacks."""
    if not os.path.exists(path):  # False for a name that no disk can hold
        name = str(path) if str(path).isprintable() else ascii(str(path))
        raise RecordingError(f"{name:.300} is missing: give the path of a recording.")
    raw = open_recording(path, table)
    match = place_channels(raw, path)
    places = list(match.places.values())
    if len(missing := [name for name in ch_names if name not in places]) > len(ch_names) // 4:
        raise RecordingError(f"{path} lacks {len(missing)} of the {len(ch_names)} channels that the encoder was "
                             f"trained on ({', '.join(missing)}); at most {len(ch_names) // 4} can be interpolated. "
                             "Take a model that was trained on such a cap.")
    signal = Stretch(raw, match, path)
    return Trial(subject, 1, number, "", signal, raw.info["sfreq"], tuple(places), bads=bads_of(raw, match)), missing
