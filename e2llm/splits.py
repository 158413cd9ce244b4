"""Named protocols: which windows train, which validate, which test, and which may calibrate a person.

A protocol is a parameter of every stage. All but one keep a person's clip on one side; ``random_windows`` exists as
the cautionary tale, is refused unless its leaks are accepted by name, and says LEAKY wherever it appears.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .audit import audit

NORMALISATIONS = ("calibration", "session", "population", "transductive")


@dataclass(frozen=True)
class Split:
    """Rows of the window index for each purpose.

    Parameters
    ----------
    protocol : str
        Name of the protocol, a key of :data:`PROTOCOLS`.
    train, val, test : ndarray of int
        Rows of the index.
    fit : ndarray of int
        Rows whose signal, never whose label, may give a person's own levels.
    normalisation : str
        ``calibration``: a person's levels come from the person's own clips outside the validation and test
        clips. ``session``: the same, for each session by itself, so that nothing can tell sessions apart by their
        levels. ``population``: from the training subjects only. ``transductive``: from all of a person's windows,
        the test windows included.
    """

    protocol: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    fit: np.ndarray
    normalisation: str

    @property
    def traits(self) -> Protocol:
        """What its protocol promises; a split of one's own making promises nothing."""
        return PROTOCOLS.get(self.protocol, Protocol(dict, "a split without a named protocol"))

    @property
    def transductive(self) -> bool:
        """Whether test windows (without their labels) took part in normalisation."""
        return self.normalisation == "transductive"

    @property
    def subject_disjoint(self) -> bool:
        """Whether the protocol tests on people that training has not met."""
        return self.traits.subject_disjoint

    @property
    def clip_disjoint(self) -> bool:
        """Whether the protocol tests on clips that training has not met."""
        return self.traits.clip_disjoint

    @property
    def leaky(self) -> bool:
        """Whether the protocol leaks by its design."""
        return self.traits.leaky

    @property
    def statement(self) -> str:
        """One sentence that stands beside every score."""
        what = f"{'LEAKY: ' if self.leaky else ''}{self.traits.what}"
        levels = {"calibration": "own levels from own clips outside validation and test",
                  "session": "own levels of each session from own clips outside validation and test", "population": "levels from the training part",
                  "transductive": "TRANSDUCTIVE: own levels from all own windows, test windows included"}
        return f"{what}; {levels[self.normalisation]}"

    @property
    def used(self) -> np.ndarray:
        """Rows of train, val and test, sorted."""
        return np.sort(np.concatenate([self.train, self.val, self.test]))

    def whose(self, index: pd.DataFrame) -> np.ndarray:
        """Whose levels each window is compared with: the subject's, or the subject's in one session; ndarray of str, shape (n_windows,)."""
        return _whose(index, self.normalisation)

    def part_of(self, n_windows: int) -> np.ndarray:
        """Name of the part that each window belongs to; empty for windows that the protocol leaves aside."""
        part = np.full(n_windows, "", dtype=object)
        for name in ("train", "val", "test"):
            part[getattr(self, name)] = name
        return part


def official_fold(clip: np.ndarray) -> np.ndarray:
    """Fold 0-3 of a SEED-VII clip: ``((clip - 1) mod 20) // 5``, three clips an emotion, two for neutral."""
    return (np.asarray(clip) - 1) % 20 // 5


def _by_number(names: Collection[str]) -> list[str]:
    return sorted(names, key=lambda name: (len(name), name))


def _subject_groups(index: pd.DataFrame, n_groups: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of test and validation subjects: every n-th subject, in the order of their names' numbers; 0 groups are as many as subjects."""
    subjects = _by_number(index["subject"].unique())
    n_groups = n_groups or len(subjects)
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
    val_names = _by_number(index["subject"][val_group].unique())
    val_subject = index["subject"].isin(val_names[: max(1, len(val_names) // 3)]).to_numpy()
    clip_fold = official_fold(index["clip"])
    test_clip, val_clip = clip_fold == fold % 4, clip_fold == (fold + 1) % 4
    rest = ~test_clip & ~val_clip
    return {"train": ~test_subject & ~val_subject & rest, "val": val_subject & val_clip,
            "test": test_subject & test_clip, "calibration": rest}


def subjects(index: pd.DataFrame, fold: int = 0, n_groups: int = 5) -> dict[str, np.ndarray]:
    """Whole subjects held out; their clips may have been seen by others. ``n_groups=0`` leaves one subject out."""
    test_subject, val_subject = _subject_groups(index, n_groups, fold)
    return {"train": ~test_subject & ~val_subject, "val": val_subject, "test": test_subject,
            "calibration": np.zeros(len(index), dtype=bool)}


def clips(index: pd.DataFrame, fold: int = 0, n_groups: int = 4) -> dict[str, np.ndarray]:
    """Official four folds of the clips, all subjects pooled: same people, other clips."""
    clip_fold = official_fold(index["clip"])
    test, val = clip_fold == fold % 4, clip_fold == (fold + 1) % 4
    return {"train": ~test & ~val, "val": val, "test": test, "calibration": ~test & ~val}


def within_subject(index: pd.DataFrame, fold: int = 0, n_groups: int = 4) -> dict[str, np.ndarray]:
    """Official four folds of one subject's clips: fold ``4 s + k`` is fold k of the s-th subject; others are left aside."""
    subjects = _by_number(index["subject"].unique())
    own = (index["subject"] == subjects[fold // 4 % len(subjects)]).to_numpy()
    return {name: mask & own for name, mask in clips(index, fold % 4).items()}


def random_windows(index: pd.DataFrame, fold: int = 0, n_groups: int = 5) -> dict[str, np.ndarray]:
    """The cautionary tale: windows dealt at random, so that every clip stands on both sides."""
    group = np.random.default_rng(0).permutation(len(index)) % n_groups
    test, val = group == fold % n_groups, group == (fold + 1) % n_groups
    return {"train": ~test & ~val, "val": val, "test": test, "calibration": ~test & ~val}


@dataclass(frozen=True)
class Protocol:
    """How windows are dealt, and what may be claimed of the scores."""

    masks: Callable[..., dict[str, np.ndarray]]
    what: str
    subject_disjoint: bool = False
    clip_disjoint: bool = False
    leaks: tuple[str, ...] = ()  # rules of the auditor that it breaks by design

    @property
    def leaky(self) -> bool:
        """Whether it leaks by design."""
        return bool(self.leaks)


PROTOCOLS: dict[str, Protocol] = {
    "joint": Protocol(joint, "people and clips both unseen", subject_disjoint=True, clip_disjoint=True),
    "subjects": Protocol(subjects, "people unseen, clips seen by others", subject_disjoint=True),
    "clips": Protocol(clips, "clips unseen, people seen", clip_disjoint=True),
    "within_subject": Protocol(within_subject, "one person, other clips of the same sessions", clip_disjoint=True),
    "random_windows": Protocol(random_windows, "windows dealt at random, every clip on both sides",
                               leaks=("clip_on_both_sides", "normalisation_on_test")),
}


def make_split(index: pd.DataFrame, protocol: str = "joint", normalisation: str = "calibration", accept_leaks: bool = False,
               **options: int) -> Split:
    """Split the windows by a named protocol and audit the result.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip``, ``label``.
    protocol : str
        Key of :data:`PROTOCOLS`.
    normalisation : str
        One of :data:`NORMALISATIONS`; see :class:`Split`.
    accept_leaks : bool
        Take a protocol that leaks by design all the same; its scores are stamped.
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
    masks = PROTOCOLS[protocol].masks(index, **options)
    fit = _calibration_rows(index, masks, protocol, normalisation)
    rows = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    split = Split(protocol, rows["train"], rows["val"], rows["test"], fit, normalisation)
    audit(split, index, accept=accepted_rules(protocol, accept_leaks))
    return split


def accepted_rules(protocol: str, accept_leaks: bool) -> tuple[str, ...]:
    """Rules of the auditor that are overridden: those a protocol breaks by design, if that is accepted."""
    return PROTOCOLS[protocol].leaks if accept_leaks else ()


def _whose(index: pd.DataFrame, normalisation: str) -> np.ndarray:
    owners = index["subject"].astype(str)
    return (owners + "/" + index["session"].astype(str) if normalisation == "session" else owners).to_numpy(dtype=object)


def _calibration_rows(index: pd.DataFrame, masks: dict[str, np.ndarray], protocol: str, normalisation: str) -> np.ndarray:
    if normalisation == "transductive":
        return np.arange(len(index))
    if normalisation == "population":
        return np.flatnonzero(masks["train"])
    owners, fit = _whose(index, normalisation), masks["calibration"]
    without = _by_number(set(owners[masks["test"] | masks["val"]]) - set(owners[fit]))
    if without:
        raise ValueError(f"Protocol '{protocol}' leaves subjects {without[:5]} no clips to calibrate on: choose "
                         "normalisation 'population', or 'transductive' and say so.")
    return np.flatnonzero(fit)
