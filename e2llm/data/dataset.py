"""A dataset: windows with their labels, their split, and everything that the split allows to fit on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.claims import LOW_HIGH, MAX_ABS_Z, EvidenceNames, Scale
from ..core.labels import LabelSet
from .features import differential_entropy, evidence, group_entropy, scalp_groups
from .normalization import Equalizer, FeatureStatistics
from .preprocessing import Windows
from .protocols import Split
from .splits import make_split


@dataclass(frozen=True)
class Corpus:
    """Windows of a run under one split.

    Parameters
    ----------
    windows : Windows
        Signals, band power and index.
    label_set : LabelSet
        The closed set of answers.
    split : Split
        Rows for training, validation, test and normalization.
    equalize : Equalizer
        Makes the encoder's input from signals in microvolts.
    z : ndarray, shape (n_windows, n_evidence)
        Evidence in standard deviations from the mean of the window's normalization group.
    evidence_names : EvidenceNames
        Columns of ``z``.
    spectral : ndarray, shape (n_windows, n_evidence + n_groups * n_bands)
        Targets of stage 1: ``z`` and the same for groups of channels, clipped to :data:`e2llm.core.claims.MAX_ABS_Z`.
    labels : ndarray of int, shape (n_windows,)
        Class indices.
    subjects, norm_groups : ndarray of str, shape (n_windows,)
        Subject and normalization group of every window (:meth:`e2llm.data.protocols.Split.norm_groups`).
    statistics : FeatureStatistics
        What ``z`` is relative to, for every normalization group.
    channel_statistics : FeatureStatistics
        The same for the differential entropy of every channel and band: what scalp maps are compared with.
    predicted_evidence : ndarray, shape (n_windows, n_evidence), optional
        ``z`` as the evidence probe predicts it from encoder tokens; NaN for windows outside the split, None before
        stage 1.
    """

    windows: Windows
    label_set: LabelSet
    split: Split
    equalize: Equalizer
    z: np.ndarray
    evidence_names: EvidenceNames
    spectral: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    norm_groups: np.ndarray
    statistics: FeatureStatistics
    channel_statistics: FeatureStatistics
    predicted_evidence: np.ndarray | None = None

    @classmethod
    def build(cls, windows: Windows, label_set: LabelSet, split_settings: Mapping[str, Any],
              predicted_evidence: np.ndarray | None = None, scale: Scale = LOW_HIGH) -> Corpus:
        """Split windows, and fit all normalization on the rows that the split allows.

        Parameters
        ----------
        windows : Windows
            Of one data source.
        label_set : LabelSet
            Labels of that source.
        split_settings : mapping
            Arguments of :func:`e2llm.data.splits.make_split`.
        predicted_evidence : ndarray, shape (n_used, n_evidence), optional
            Predictions of the evidence probe for the rows ``split.used``.
        scale : Scale
            Words for evidence.

        Raises
        ------
        ValueError, LeakError
            If the split does not fit these windows; see :func:`e2llm.data.splits.make_split`.
        """
        split = make_split(windows.index, window_s=windows.window_s, **split_settings)
        norm_groups, power = split.norm_groups(windows.index), np.asarray(windows.power)
        values, names = evidence(power, np.asarray(windows.shape), windows.ch_names)
        groups = group_entropy(power, scalp_groups(windows.ch_names))
        channels = differential_entropy(power).reshape(len(power), -1)
        statistics, group_statistics, channel_statistics = (
            FeatureStatistics.fit(measured, norm_groups, split) for measured in (values, groups, channels))
        z = statistics.z(values, norm_groups)
        both = np.column_stack([z, group_statistics.z(groups, norm_groups)])
        if predicted_evidence is not None:
            predicted, predicted_evidence = predicted_evidence, np.full(z.shape, np.nan, dtype=np.float32)
            predicted_evidence[split.used] = predicted
        return cls(
            windows=windows, label_set=label_set, split=split,
            equalize=Equalizer.fit(power, norm_groups, split, windows.sfreq), z=z,
            evidence_names=replace(names, scale=scale),
            spectral=np.clip(both, -MAX_ABS_Z, MAX_ABS_Z).astype(np.float32),
            labels=np.array([label_set.index(label) for label in windows.index["label"]]),
            subjects=windows.index["subject"].to_numpy(dtype=object), norm_groups=norm_groups, statistics=statistics,
            channel_statistics=channel_statistics, predicted_evidence=predicted_evidence,
        )
