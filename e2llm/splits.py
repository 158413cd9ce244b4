"""Named protocols: which windows train, which validate, which test, and which may calibrate a person.

No protocol here ever puts windows of one clip on both sides of a subject's split, and :func:`audit` refuses a
split that does, wherever it came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

NORMALISATIONS = ("calibration", "population", "transductive")


class LeakError(Exception):
    """A split whose test score should not be believed; the message names the rows."""


@dataclass(frozen=True)
class Split:
    """Rows of the window index for each purpose.

    Parameters
    ----------
    protocol : str
        Name of the protocol.
    train, val, test : ndarray of int
        Rows of the index.
    fit : ndarray of int
        Rows whose signal, never whose label, may give a person's own levels.
    normalisation : str
        ``calibration``: a person's levels come from the person's own clips outside the validation and test
        clips. ``population``: from the training subjects only. ``transductive``: from all of a person's
        windows, the test windows included.
    """

    protocol: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    fit: np.ndarray
    normalisation: str

    @property
    def transductive(self) -> bool:
        """Whether test windows (without their labels) took part in normalisation."""
        return self.normalisation == "transductive"

    @property
    def used(self) -> np.ndarray:
        """Rows of train, val and test, sorted."""
        return np.sort(np.concatenate([self.train, self.val, self.test]))

    def part_of(self, n_windows: int) -> np.ndarray:
        """Name of the part that each window belongs to; empty for windows that the protocol leaves aside."""
        part = np.full(n_windows, "", dtype=object)
        for name in ("train", "val", "test"):
            part[getattr(self, name)] = name
        return part


def official_fold(clip: np.ndarray) -> np.ndarray:
    """Fold 0-3 of a SEED-VII clip: ``((clip - 1) mod 20) // 5``, three clips an emotion, two for neutral."""
    return (np.asarray(clip) - 1) % 20 // 5


def _subject_groups(index: pd.DataFrame, n_groups: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of test and validation subjects: every n-th subject, in the order of their names' numbers."""
    subjects = sorted(index["subject"].unique(), key=lambda name: (len(name), name))
    if len(subjects) < n_groups or n_groups < 3:
        raise ValueError(f"{len(subjects)} subjects cannot make {n_groups} groups (three or more: test, validation, training).")
    group = {subject: i % n_groups for i, subject in enumerate(subjects)}
    groups = index["subject"].map(group).to_numpy()
    return groups == fold % n_groups, groups == (fold + 1) % n_groups


def joint(index: pd.DataFrame, fold: int = 0, n_groups: int = 3) -> dict[str, np.ndarray]:
    """Subjects and clips both unseen: test subjects' clips of one official fold; nobody trains on these clips.

    Of the validation group only a third validates and the rest trains, so that few subjects still train well.
    """
    test_subject, val_group = _subject_groups(index, n_groups, fold)
    val_names = sorted(index["subject"][val_group].unique(), key=lambda name: (len(name), name))
    val_subject = index["subject"].isin(val_names[: max(1, len(val_names) // 3)]).to_numpy()
    clip_fold = official_fold(index["clip"])
    test_clip, val_clip = clip_fold == fold % 4, clip_fold == (fold + 1) % 4
    rest = ~test_clip & ~val_clip
    return {"train": ~test_subject & ~val_subject & rest, "val": val_subject & val_clip,
            "test": test_subject & test_clip, "calibration": rest}


def subjects(index: pd.DataFrame, fold: int = 0, n_groups: int = 5) -> dict[str, np.ndarray]:
    """Whole subjects held out; their clips may have been seen by others."""
    test_subject, val_subject = _subject_groups(index, n_groups, fold)
    return {"train": ~test_subject & ~val_subject, "val": val_subject, "test": test_subject,
            "calibration": np.zeros(len(index), dtype=bool)}


def clips(index: pd.DataFrame, fold: int = 0, n_groups: int = 4) -> dict[str, np.ndarray]:
    """Official four folds within subject: same people, other clips."""
    clip_fold = official_fold(index["clip"])
    test, val = clip_fold == fold % 4, clip_fold == (fold + 1) % 4
    return {"train": ~test & ~val, "val": val, "test": test, "calibration": ~test & ~val}


PROTOCOLS: dict[str, Callable[..., dict[str, np.ndarray]]] = {"joint": joint, "subjects": subjects, "clips": clips}


def make_split(index: pd.DataFrame, protocol: str = "joint", normalisation: str = "calibration", **options: int) -> Split:
    """Split the windows by a named protocol and audit the result.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip``, ``label``.
    protocol : str
        Key of :data:`PROTOCOLS`.
    normalisation : str
        One of :data:`NORMALISATIONS`; see :class:`Split`.
    **options
        ``fold`` and ``n_groups`` of the protocol.

    Raises
    ------
    ValueError
        For an unknown name, or a normalisation that the protocol cannot serve.
    LeakError
        If the audit refuses the split.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol '{protocol}' (known: {', '.join(PROTOCOLS)}).")
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"Unknown normalisation '{normalisation}' (known: {', '.join(NORMALISATIONS)}).")
    masks = PROTOCOLS[protocol](index, **options)
    owners = index["subject"].to_numpy()
    if normalisation == "transductive":
        fit = np.ones(len(index), dtype=bool)
    elif normalisation == "population":
        fit = masks["train"]
    else:
        fit = masks["calibration"]
        without = sorted(set(owners[masks["test"] | masks["val"]]) - set(owners[fit]))
        if without:
            raise ValueError(f"Protocol '{protocol}' leaves subjects {without[:5]} no clips to calibrate on: choose "
                             "normalisation 'population', or 'transductive' and say so.")
    rows = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    split = Split(protocol, rows["train"], rows["val"], rows["test"], np.flatnonzero(fit), normalisation)
    audit(split, index)
    return split


def audit(split: Split, index: pd.DataFrame) -> None:
    """Refuse a split that leaks.

    Checks that no clip of a subject stands on two sides, that subject- and clip-disjoint protocols are so,
    that inductive normalisation touches no held-out clip, and that every class stands on both sides.

    Raises
    ------
    LeakError
        Naming the first offending rows.
    """
    sides = {name: getattr(split, name) for name in ("train", "val", "test")}
    for name, rows in sides.items():
        if len(rows) == 0:
            raise LeakError(f"Protocol '{split.protocol}': the {name} part is empty.")
    trial = index["subject"].astype(str) + "/" + index["clip"].astype(str)
    for left, right in (("train", "test"), ("train", "val"), ("val", "test")):
        _refuse_shared(trial, sides[left], sides[right], f"clips of one subject in {left} and {right}")
        if split.protocol in ("joint", "subjects"):
            _refuse_shared(index["subject"], sides[left], sides[right], f"subjects in {left} and {right}")
        if split.protocol in ("joint", "clips"):
            _refuse_shared(index["clip"], sides[left], sides[right], f"clips in {left} and {right}")
    if not split.transductive and (shared := np.intersect1d(split.fit, split.test)).size:
        raise LeakError(f"Normalisation '{split.normalisation}' was fitted with test windows {shared[:5].tolist()}.")
    for name in () if split.transductive else ("val", "test"):
        _refuse_shared(trial, split.fit, sides[name], f"clips of one subject in normalisation and {name}")
    missing = set(index["label"].iloc[split.test]) ^ set(index["label"].iloc[split.train])
    if missing:
        raise LeakError(f"Labels {sorted(missing)} stand on only one side of train and test.")


def _refuse_shared(column: pd.Series, left: np.ndarray, right: np.ndarray, what: str) -> None:
    shared = set(column.iloc[left]) & set(column.iloc[right])
    if shared:
        rows = [row for row in right if column.iloc[row] in shared][:5]
        raise LeakError(f"Same {what}: {sorted(shared)[:3]} (rows {[int(row) for row in rows]}).")
