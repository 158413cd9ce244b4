"""Named protocols: which windows train, which validate, which test, and which may calibrate a subject.

A protocol is a parameter of every stage. All but one keep a person's clip on one side; ``random_windows`` shows
what a leak does: it is refused unless its leaks are accepted by name, and is marked LEAKY wherever it appears.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from inspect import signature

import numpy as np
import pandas as pd

from .sources.seed_vii import clip_emotion

NORMALIZATIONS = ("calibration", "session", "population", "transductive")
JOINT_GROUPS = 3  # groups of subjects in the protocol "joint", if not said otherwise


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
        Rows whose signals, never labels, the normalization is fitted on.
    normalization : str
        ``calibration``: subject statistics, from the subject's clips outside the validation and test clips.
        ``session``: the same for each session by itself, so that sessions do not differ in their statistics.
        ``population``: statistics of the training subjects only. ``transductive``: subject statistics from all windows,
        the test windows included.
    """

    protocol: str
    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    fit: np.ndarray
    normalization: str

    @property
    def traits(self) -> Protocol:
        """What its protocol promises; a split without a named protocol promises nothing."""
        return PROTOCOLS.get(self.protocol, Protocol(dict, int, "a split without a named protocol"))

    @property
    def transductive(self) -> bool:
        """Whether test windows (without their labels) took part in normalization."""
        return self.normalization == "transductive"

    @property
    def statement(self) -> str:
        """One sentence that is stated with every score."""
        what = f"{'LEAKY: ' if self.traits.leaky else ''}{self.traits.what}"
        statistics = {"calibration": "subject statistics from clips outside validation and test",
                      "session": "session statistics from clips outside validation and test",
                      "population": "population statistics from the training part",
                      "transductive": "TRANSDUCTIVE: subject statistics from all windows, test windows included"}
        return f"{what}; {statistics[self.normalization]}"

    @property
    def used(self) -> np.ndarray:
        """Rows of train, val and test, sorted."""
        return np.sort(np.concatenate([self.train, self.val, self.test]))

    def norm_groups(self, index: pd.DataFrame) -> np.ndarray:
        """Normalization group of each window: its subject, or its subject and session; shape (n_windows,)."""
        return assign_norm_groups(index, self.normalization)

    def part_of(self, n_windows: int) -> np.ndarray:
        """Name of the part that each window belongs to; empty for windows that the protocol leaves aside."""
        part = np.full(n_windows, "", dtype=object)
        for name in ("train", "val", "test"):
            part[getattr(self, name)] = name
        return part


def official_fold(clip: np.ndarray) -> np.ndarray:
    """Fold 0-3 of a SEED-VII clip: ``((clip - 1) mod 20) // 5``, three clips an emotion, two for neutral."""
    return (np.asarray(clip) - 1) % 20 // 5


def clip_fold(index: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Fold of every window's clip, and how many folds there are.

    Recordings with the clips and labels of SEED-VII have its official folds. Elsewhere the clips of each label are
    dealt in turn, so that every fold shows every label as often as it can: clips that subjects share alike for all of
    them, other clips subject by subject. There are four folds, or three where a label has only three clips. Clips
    too few to deal, fewer than three a label and person, have folds by their number alone.
    """
    clips = index.drop_duplicates(["subject", "clip"])[["subject", "clip", "label"]]
    if all(clip in _SEED_CLIPS and clip_emotion(clip) == label
           for clip, label in zip(clips["clip"], clips["label"], strict=True)):
        return official_fold(index["clip"]), 4
    shared = clips["clip"].duplicated().any()
    by = ["label"] if shared else ["subject", "label"]
    clips = clips.drop_duplicates([*by, "clip"]).sort_values("clip", kind="stable")
    sizes = clips.groupby(by)["clip"].size()
    if sizes.max() < 3:
        return official_fold(index["clip"]), 4
    place, n_folds = clips.groupby(by).cumcount(), 3 if sizes.min() == 3 else 4
    of_clip = dict(zip(clips[[*by, "clip"]].itertuples(index=False, name=None), place % n_folds, strict=True))
    return np.array([of_clip[key] for key in index[[*by, "clip"]].itertuples(index=False, name=None)]), n_folds


_SEED_CLIPS = range(1, 81)


def _by_number(names: Collection[str]) -> list[str]:
    return sorted(names, key=lambda name: (len(name), name))


def _n_groups(index: pd.DataFrame, n_groups: int) -> int:
    """Number of groups of subjects; 0 groups are as many as subjects."""
    n_subjects = index["subject"].nunique()
    n_groups = n_groups or n_subjects
    if n_subjects < n_groups or n_groups < 3:
        would_do = f"n_groups = {' or '.join(map(str, dict.fromkeys((3, n_subjects))))} would do"
        raise ValueError(f"{n_subjects} subject{'s' * (n_subjects != 1)} cannot make {n_groups} groups (three or more: "
                         "test, validation, training): "
                         f"{would_do if n_subjects >= 3 else 'take the protocol within_subject or clips'}.")
    return n_groups


def _subject_groups(index: pd.DataFrame, n_groups: int, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of test and validation subjects: every n-th subject ordered by their numbers; see :func:`_n_groups`."""
    subjects, n_groups = _by_number(index["subject"].unique()), _n_groups(index, n_groups)
    group = {subject: i % n_groups for i, subject in enumerate(subjects)}
    groups = index["subject"].map(group).to_numpy()
    return groups == fold % n_groups, groups == (fold + 1) % n_groups


def joint(index: pd.DataFrame, fold: int = 0, n_groups: int = JOINT_GROUPS) -> dict[str, np.ndarray]:
    """Subjects and clips both unseen: test subjects' clips of one official fold, which no training subject keeps.

    Of the validation group only a third validates and the rest trains, so that few subjects still train well. The first
    ``n_groups`` folds test every person once; further folds test the same people on other clips.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip``, ``label`` and, for some protocols, ``context``.
    fold : int
        Which part is the test part, from 0.
    n_groups : int
        Groups of subjects (of windows in ``random_windows``); protocols that make none ignore it.

    Returns
    -------
    dict of str to ndarray of bool, shape (n_windows,)
        Masks ``train``, ``val``, ``test`` and ``calibration``.
    """
    test_subject, val_group = _subject_groups(index, n_groups, fold)
    val_names = _by_number(index["subject"][val_group].unique())
    val_subject = index["subject"].isin(val_names[: max(1, len(val_names) // 3)]).to_numpy()
    of_clip, n_folds = clip_fold(index)
    test_clip, val_clip = of_clip == fold % n_folds, of_clip == (fold + 1) % n_folds
    rest = ~test_clip & ~val_clip
    return {"train": ~test_subject & ~val_subject & rest, "val": val_subject & val_clip,
            "test": test_subject & test_clip, "calibration": rest}


def subjects(index: pd.DataFrame, fold: int = 0, n_groups: int = 5) -> dict[str, np.ndarray]:
    """Whole subjects held out; their clips may have been seen by others.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip`` and ``label``.
    fold : int
        Which group of subjects is the test part, from 0.
    n_groups : int
        Groups of subjects; 0 leaves one subject out.
    """
    test_subject, val_subject = _subject_groups(index, n_groups, fold)
    return {"train": ~test_subject & ~val_subject, "val": val_subject, "test": test_subject,
            "calibration": np.zeros(len(index), dtype=bool)}


def clips(index: pd.DataFrame, fold: int = 0, n_groups: int = 4) -> dict[str, np.ndarray]:
    """Folds of the clips (:func:`clip_fold`; SEED-VII: the official four), all subjects pooled: same people.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip`` and ``label``.
    fold : int
        Which fold of the clips is the test part, from 0.
    n_groups : int
        Ignored: the recordings decide how many folds there are.
    """
    of_clip, n_folds = clip_fold(index)
    test, val = of_clip == fold, of_clip == (fold + 1) % n_folds
    return {"train": ~test & ~val, "val": val, "test": test, "calibration": ~test & ~val}


def within_subject(index: pd.DataFrame, fold: int = 0, n_groups: int = 4) -> dict[str, np.ndarray]:
    """Folds of one subject's clips (:func:`clip_fold`): fold ``n s + k`` is fold k of n of the s-th subject.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip`` and ``label``.
    fold : int
        Subject and fold of the clips, counted together from 0.
    n_groups : int
        Ignored: the recordings decide how many folds there are.
    """
    subject, fold = divmod(fold, clip_fold(index)[1])
    own = (index["subject"] == _by_number(index["subject"].unique())[subject]).to_numpy()
    return {name: mask & own for name, mask in clips(index, fold).items()}


def random_windows(index: pd.DataFrame, fold: int = 0, n_groups: int = 5) -> dict[str, np.ndarray]:
    """Windows dealt at random, so that every clip stands on both sides: a split that leaks.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip`` and ``label``.
    fold : int
        Which group of windows is the test part, from 0.
    n_groups : int
        Groups of windows.
    """
    group = np.random.default_rng(0).permutation(len(index)) % n_groups
    test, val = group == fold, group == (fold + 1) % n_groups
    return {"train": ~test & ~val, "val": val, "test": test, "calibration": ~test & ~val}


def _contexts(index: pd.DataFrame) -> list[str]:
    """Contexts in the order of their names; ValueError if there is none to cross."""
    contexts = sorted(set(index["context"])) if "context" in index else []
    if len(contexts) < 2 or "" in contexts:
        raise ValueError(f"Labels of these recordings were evoked in {len(contexts) or 'one'} "
                         f"context{'s' * (len(contexts) > 1)} ({contexts}): a protocol across contexts needs two or "
                         "more, named for every trial.")
    return contexts


def _of_contexts(index: pd.DataFrame, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the test context and of the clips of the other contexts that validate: one context a fold."""
    test = (index["context"] == _contexts(index)[fold]).to_numpy()
    rest = np.flatnonzero(~test)
    val = np.zeros(len(index), dtype=bool)
    val[rest] = clip_fold(index.iloc[rest])[0] == 0
    return test, val


def cross_context(index: pd.DataFrame, fold: int = 0, n_groups: int = 0) -> dict[str, np.ndarray]:
    """The same people, labels evoked in another way: fold 0 tests on imagery after video, fold 1 the reverse.

    Validation clips are of the training contexts: nothing is chosen by the test context.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip``, ``label`` and ``context``.
    fold : int
        Which context is the test part, from 0.
    n_groups : int
        Ignored: the recordings decide how many contexts there are.
    """
    test, val = _of_contexts(index, fold)
    return {"train": ~test & ~val, "val": val, "test": test, "calibration": ~test & ~val}


def cross_context_joint(index: pd.DataFrame, fold: int = 0, n_groups: int = 3) -> dict[str, np.ndarray]:
    """People and context both unseen; fold ``c + n_contexts g`` tests group g of the people in context c.

    Statistics of test subjects come from their clips in the other contexts, without labels and outside the validation
    clips.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip``, ``label`` and ``context``.
    fold : int
        Group of subjects and context, counted together from 0.
    n_groups : int
        Groups of subjects.
    """
    group, context = divmod(fold, len(_contexts(index)))
    test_context, val_clip = _of_contexts(index, context)
    test_subject, val_subject = _subject_groups(index, n_groups, group)
    return {"train": ~test_context & ~test_subject & ~val_subject & ~val_clip,
            "val": ~test_context & val_subject & val_clip,
            "test": test_context & test_subject, "calibration": ~test_context & ~val_clip}


@dataclass(frozen=True)
class Protocol:
    """How windows are dealt, and what may be claimed of the scores."""

    masks: Callable[..., dict[str, np.ndarray]]
    folds: Callable[[pd.DataFrame, int], int]  # number of different folds, of an index and a number of groups
    what: str
    subject_disjoint: bool = False
    clip_disjoint: bool = False
    context_disjoint: bool = False
    leaks: tuple[str, ...] = ()  # rules of the auditor that it breaks by design

    @property
    def leaky(self) -> bool:
        """Whether it leaks by design."""
        return bool(self.leaks)


PROTOCOLS: dict[str, Protocol] = {
    "joint": Protocol(joint, lambda index, n: math.lcm(_n_groups(index, n), clip_fold(index)[1]),
                      "people and clips both unseen", subject_disjoint=True, clip_disjoint=True),
    "subjects": Protocol(subjects, _n_groups, "people unseen, clips seen by others", subject_disjoint=True),
    "clips": Protocol(clips, lambda index, n: clip_fold(index)[1], "clips unseen, people seen", clip_disjoint=True),
    "within_subject": Protocol(within_subject, lambda index, n: index["subject"].nunique() * clip_fold(index)[1],
                               "one person, other clips of the same sessions", clip_disjoint=True),
    "cross_context": Protocol(cross_context, lambda index, n: len(_contexts(index)), "people seen, context unseen",
                              context_disjoint=True),
    "cross_context_joint": Protocol(cross_context_joint, lambda index, n: len(_contexts(index)) * _n_groups(index, n),
                                    "people and context both unseen", subject_disjoint=True, context_disjoint=True),
    "random_windows": Protocol(random_windows, lambda index, n: n, "windows dealt at random, every clip on both sides",
                               leaks=("clip_on_both_sides", "normalization_on_test")),
}


def n_folds(index: pd.DataFrame, protocol: str, n_groups: int | None = None) -> int:
    """How many different folds a protocol has on some recordings.

    Parameters
    ----------
    index : DataFrame
        As in :func:`make_split`.
    protocol : str
        Key of :data:`PROTOCOLS`.
    n_groups : int, optional
        As in :func:`make_split`; default that of the protocol.

    Raises
    ------
    ValueError
        If the recordings cannot serve the protocol: too few subjects for the groups, or no context to cross.
    """
    traits = PROTOCOLS[protocol]
    return traits.folds(index, signature(traits.masks).parameters["n_groups"].default if n_groups is None else n_groups)


def assign_norm_groups(index: pd.DataFrame, normalization: str) -> np.ndarray:
    """Normalization group of each window.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject`` and, for ``session``, ``session``.
    normalization : str
        One of :data:`NORMALIZATIONS`.

    Returns
    -------
    ndarray of str, shape (n_windows,)
    """
    subjects = index["subject"].astype(str)
    return (subjects + "/" + index["session"].astype(str) if normalization == "session"
            else subjects).to_numpy(dtype=object)


def calibration_rows(index: pd.DataFrame, masks: dict[str, np.ndarray], protocol: str,
                     normalization: str) -> np.ndarray:
    """Rows that the normalization of a split is fitted on.

    Parameters
    ----------
    index : DataFrame
        One row a window.
    masks : dict of str to ndarray
        Masks of the protocol.
    protocol, normalization : str
        Their names.

    Returns
    -------
    ndarray of int

    Raises
    ------
    ValueError
        If a test or validation group has no clips to calibrate on.
    """
    if normalization == "transductive":
        return np.arange(len(index))
    if normalization == "population":
        return np.flatnonzero(masks["train"])
    subjects, fit = assign_norm_groups(index, normalization), masks["calibration"]
    without = _by_number(set(subjects[masks["test"] | masks["val"]]) - set(subjects[fit]))
    if without:
        raise ValueError(f"Protocol '{protocol}' leaves subjects {without[:5]} no clips to calibrate on: choose "
                         "normalization 'population', or 'transductive' and say so.")
    return np.flatnonzero(fit)
