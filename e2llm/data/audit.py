"""The auditor: refuses a split whose test score should not be believed, with the reason and the offending rows.

Every rule looks at one way in which test data reach training, and yields findings. ``refuse`` stops the work;
``warn`` is printed with every score. A refusal can be overridden by naming its rule; the report is then stamped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from ..core.chat import Item
    from .protocols import Split

PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))
NEAR = 0.01  # largest difference of log band power between duplicates, 1 %; neighboring windows differ far more
WIDEST = 8  # coordinates of log band power, those that vary most, in which duplicates are looked for first
NOTHING_FOUND = "nothing found"  # stated by a run whose split has no findings
SHOWN = 5  # rows named in a reason


class LeakError(Exception):
    """A split whose test score should not be believed; the message names rule, reason and rows."""


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Parameters
    ----------
    rule : str
        Its name, by which it can be overridden.
    severity : str
        ``refuse`` or ``warn``.
    reason : str
        One sentence with the fact.
    rows : tuple of int
        Offending rows of the index.
    """

    rule: str
    severity: str
    reason: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" (rows {list(self.rows[:SHOWN])}{', …' if len(self.rows) > SHOWN else ''})" if self.rows else ""
        return f"{self.rule}: {self.reason}{where}."


@dataclass(frozen=True)
class Case:
    """A split and everything else that is known of how its models came about; what is not given is not checked.

    Parameters
    ----------
    split : Split
        The parts.
    index : DataFrame
        One row a window: ``subject``, ``clip``, ``label``; ``session`` if there are several, ``start_s`` if windows may
        overlap.
    window_s : float
        Length of a window in seconds.
    power : ndarray, shape (n_windows, n_channels, n_bands), optional
        Band power, to find signals that stand on two sides.
    items : sequence of Item
        Instruction items or few-shot examples that a model was trained on or shown.
    pretrained_on : collection of str
        Subjects whose recordings the encoder was pretrained on.
    repaired_over : str
        What channel repair was fitted on: ``clip`` (each by itself), ``recording`` or ``corpus``.
    selected_on : str
        Part on which epoch, threshold or weights were chosen.
    neighbor_worth : float, optional
        Balanced accuracy above chance of copying the nearest training clip in time.
    session_worth : float, optional
        Balanced accuracy above chance of the most frequent training label of the session.
    """

    split: Split
    index: pd.DataFrame
    window_s: float = 4.0
    power: np.ndarray | None = None
    items: Sequence[Item] = ()
    pretrained_on: Collection[str] = ()
    repaired_over: str = "clip"
    selected_on: str = "val"
    neighbor_worth: float | None = None
    session_worth: float | None = None
    parts: dict[str, np.ndarray] = field(init=False)
    trial: pd.Series = field(init=False)
    recording: pd.Series = field(init=False)

    def __post_init__(self) -> None:
        if "session" not in self.index:  # a source may know none: then all of a person's clips are one
            object.__setattr__(self, "index", self.index.assign(session=1))
        object.__setattr__(self, "parts", {name: np.asarray(getattr(self.split, name))
                                           for name in ("train", "val", "test")})
        for name, column in (("trial", "clip"), ("recording", "session")):
            object.__setattr__(self, name, self.index["subject"].astype(str) + "/" + self.index[column].astype(str))

    def shared(self, column: pd.Series, left: np.ndarray, right: np.ndarray) -> tuple[list, tuple[int, ...]]:
        """Values that stand on both sides of a split.

        Parameters
        ----------
        column : Series
            One value a window.
        left, right : ndarray of int
            Rows of the two sides.

        Returns
        -------
        values : list
            Sorted values on both sides.
        rows : tuple of int
            Rows of the right side that hold them.
        """
        on_right = column.iloc[right]
        both = on_right.isin(set(column.iloc[left])).to_numpy()
        return sorted(set(on_right[both]), key=str), tuple(int(row) for row in right[both])


def _named(values: Sequence) -> str:
    return f"{list(values[:3])}{' …' if len(values) > 3 else ''}"


def empty_part(case: Case) -> Iterator[Finding]:
    """Train, validation and test must each hold windows."""
    for name, rows in case.parts.items():
        if len(rows) == 0:
            yield Finding("empty_part", "refuse", f"the {name} part is empty under protocol '{case.split.protocol}'")


def same_window(case: Case) -> Iterator[Finding]:
    """No window stands in two parts, or twice in one."""
    for left, right in PAIRS:
        if (both := np.intersect1d(case.parts[left], case.parts[right])).size:
            yield Finding("same_window", "refuse", f"windows stand in {left} and in {right}", tuple(both.tolist()))
    for name, rows in case.parts.items():
        values, counts = np.unique(rows, return_counts=True)
        if (counts > 1).any():
            yield Finding("same_window", "refuse", f"windows stand twice in {name}", tuple(values[counts > 1].tolist()))


def overlapping_windows(case: Case) -> Iterator[Finding]:
    """Windows of one recorded stretch that share samples stay on one side."""
    if "start_s" not in case.index:
        return
    for left, right in PAIRS:
        both = case.index.assign(side=case.split.part_of(len(case.index)), row=np.arange(len(case.index)),
                                 trial=case.trial)
        both = both[both["side"].isin([left, right])].sort_values(["trial", "start_s"], kind="stable")
        near = both["trial"] == both["trial"].shift()
        near &= both["start_s"] - both["start_s"].shift() < case.window_s - 1e-9
        near &= both["side"] != both["side"].shift()
        if near.any():
            yield Finding("overlapping_windows", "refuse", f"windows of {left} and {right} share samples",
                          tuple(both["row"][near]))


def clip_on_both_sides(case: Case) -> Iterator[Finding]:
    """Windows of one clip of one person stay on one side: they share its slow drifts, its label and its artefacts."""
    for left, right in PAIRS:
        values, rows = case.shared(case.trial, case.parts[left], case.parts[right])
        if values:
            reason = f"same clips of one subject in {left} and {right}: {_named(values)}"
            yield Finding("clip_on_both_sides", "refuse", reason, rows)


def _both_sides(case: Case, rule: str, column: str, pairs: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """A column of the index that may share no value between parts."""
    for left, right in pairs:
        values, rows = case.shared(case.index[column], case.parts[left], case.parts[right])
        if values:
            yield Finding(rule, "refuse", f"same {column}s in {left} and {right}: {_named(values)}", rows)


def subject_on_both_sides(case: Case) -> Iterator[Finding]:
    """A cross-subject protocol tests on subjects outside the training part."""
    return _both_sides(case, "subject_on_both_sides", "subject", PAIRS if case.split.traits.subject_disjoint else ())


def stimulus_on_both_sides(case: Case) -> Iterator[Finding]:
    """A cross-video protocol tests on clips outside the training part, whoever watched them."""
    return _both_sides(case, "stimulus_on_both_sides", "clip", PAIRS if case.split.traits.clip_disjoint else ())


def context_on_both_sides(case: Case) -> Iterator[Finding]:
    """A cross-context protocol tests on a context outside training and validation."""
    pairs = (("train", "test"), ("val", "test")) if case.split.traits.context_disjoint else ()
    return _both_sides(case, "context_on_both_sides", "context", pairs)


def duplicated_signal(case: Case) -> Iterator[Finding]:
    """The same signal, perhaps under another name, gain or with a little noise, stays on one side.

    Every pair of windows is covered, at any size. A tree that is asked for points within a small radius visits few of
    its branches; asked about the ``WIDEST`` coordinates first, it leaves few windows to be compared in all of them. The
    time grows like n log n. What the rule cannot see is a copy that was changed by more than ``NEAR`` in a band of a
    channel: filtered, referenced otherwise, or cut to begin elsewhere.
    """
    if case.power is None:
        return
    from sklearn.neighbors import KDTree

    log_power = np.log(np.maximum(np.asarray(case.power, dtype=float), 1e-12)).reshape(len(case.power), -1)
    log_power = log_power - log_power.mean(axis=1, keepdims=True)
    widest = np.argsort(-log_power.var(axis=0))[:WIDEST]
    for left, right in PAIRS:
        duplicates = case.parts[right]
        for columns in (widest, np.arange(log_power.shape[1])):
            if min(len(case.parts[left]), len(duplicates)) > 0:
                search = KDTree(log_power[np.ix_(case.parts[left], columns)], metric="chebyshev")
                near = search.query_radius(log_power[np.ix_(duplicates, columns)], np.nextafter(NEAR, 0),
                                           count_only=True)
                duplicates = duplicates[near > 0]
        if len(case.parts[left]) and duplicates.size:
            yield Finding("duplicated_signal", "refuse", f"signals of {right} stand, nearly equal, in {left} too",
                          tuple(duplicates.tolist()))


def normalization_on_test(case: Case) -> Iterator[Finding]:
    """Normalization is fitted outside the held-out clips, or the protocol says that it is transductive."""
    split = case.split
    if split.transductive:
        yield Finding("transductive", "warn", "statistics were fitted on all windows of a subject, test windows "
                                               "included")
        return
    if (used := np.intersect1d(split.fit, split.test)).size:
        reason = f"normalization '{split.normalization}' was fitted with test windows"
        yield Finding("normalization_on_test", "refuse", reason, tuple(used.tolist()))
    for name in ("val", "test"):
        values, rows = case.shared(case.trial, np.setdiff1d(split.fit, case.parts[name]), case.parts[name])
        if values:
            reason = f"normalization was fitted with other windows of {name} clips: {_named(values)}"
            yield Finding("normalization_on_test", "refuse", reason, rows)
    if split.normalization == "population" and (extra := np.setdiff1d(split.fit, split.train)).size:
        yield Finding("normalization_on_test", "refuse", "population statistics were fitted outside the training part",
                      tuple(extra.tolist()))


def repair_on_test(case: Case) -> Iterator[Finding]:
    """Channels are found bad, and repaired, from a stretch that lies on one side."""
    units = {"clip": case.trial, "recording": case.recording, "corpus": pd.Series("all", index=case.index.index)}
    if case.repaired_over not in units:
        raise ValueError(f"Unknown scope of channel repair '{case.repaired_over}' (known: {', '.join(units)}).")
    if case.repaired_over == "clip":
        return  # clip_on_both_sides checks it
    values, rows = case.shared(units[case.repaired_over], case.parts["train"], case.parts["test"])
    if values:
        reason = f"bad channels were found over a whole {case.repaired_over}, with its test windows: {_named(values)}"
        yield Finding("repair_on_test", "refuse", reason, rows)


def items_reuse_test(case: Case) -> Iterator[Finding]:
    """Instruction items and few-shot examples hold windows of the training part only."""
    used = np.unique([window for item in case.items for window in item.windows]).astype(int)
    for name in ("test", "val"):
        if (reused := np.intersect1d(used, case.parts[name])).size:
            yield Finding("items_reuse_test", "refuse", f"instruction items or examples hold {name} windows",
                          tuple(reused.tolist()))


def pretrained_on_test(case: Case) -> Iterator[Finding]:
    """The encoder was not pretrained on the test subjects."""
    seen = {str(name) for name in case.pretrained_on}
    subjects = case.index["subject"].iloc[case.parts["test"]].astype(str)
    if (known := sorted(set(subjects) & seen)):
        rows = tuple(int(row) for row, name in zip(case.parts["test"], subjects, strict=True) if name in seen)
        reason = f"the encoder's weights were pretrained on test subjects {_named(known)}"
        yield Finding("pretrained_on_test", "refuse", reason, rows)


def selected_on_test(case: Case) -> Iterator[Finding]:
    """Nothing is chosen on the test part: no epoch, no threshold, no weight, no window."""
    if case.selected_on == "test":
        yield Finding("selected_on_test", "refuse", "something (epoch, threshold, weight) was chosen on the test part")


def labels_of_parts(case: Case) -> Iterator[Finding]:
    """A clip has one label, and every label stands on both sides."""
    several = case.index["label"].groupby(case.trial).transform("nunique") > 1
    if several.any():
        yield Finding("clip_with_several_labels", "refuse", "windows of one clip have different labels",
                      tuple(np.flatnonzero(several).tolist()))
    one_sided = set(case.index["label"].iloc[case.parts["train"]]) ^ set(case.index["label"].iloc[case.parts["test"]])
    if one_sided and all(map(len, case.parts.values())):
        yield Finding("missing_class", "refuse", f"labels {sorted(one_sided)} stand on only one side of train and test")


def time_neighbors(case: Case) -> Iterator[Finding]:
    """Clips next to each other in time share the state of that minute, which may give the label away."""
    trials = case.index.assign(side=case.split.part_of(len(case.index)), row=np.arange(len(case.index)))
    trials = trials.drop_duplicates(["subject", "clip"]).sort_values(["subject", "session", "clip"])
    same = (trials["subject"] == trials["subject"].shift()) & (trials["session"] == trials["session"].shift())
    before, after = trials["side"].shift().where(same), trials["side"].shift(-1).where(same.shift(-1, fill_value=False))
    adjacent = (trials["side"] == "test") & ((before == "train") | (after == "train"))
    if adjacent.any():
        reason = (f"{adjacent.sum()} test clips follow or precede a training clip of the same person and session "
                  f"(copying the nearest label: {_points(case.neighbor_worth)})")
        yield Finding("time_neighbors", "warn", reason, tuple(trials["row"][adjacent]))


def session_fingerprint(case: Case) -> Iterator[Finding]:
    """Where sessions differ in their labels, the electrodes of a session give something of the label away."""
    if case.split.normalization == "session" or case.index.groupby("session")["label"].agg(frozenset).nunique() < 2:
        return
    sessions, rows = case.shared(case.recording, case.parts["train"], case.parts["test"])
    if sessions:
        reason = (f"{len(sessions)} sessions stand on both sides, show some labels more than others, and keep their "
                  f"own statistics (guessing a session's most frequent label: {_points(case.session_worth)}; "
                  "normalization 'session' removes them)")
        yield Finding("session_fingerprint", "warn", reason, rows)


def people_not_seen(case: Case) -> Iterator[Finding]:
    """A protocol that states seen test subjects has trained on them."""
    if not case.split.traits.clip_disjoint or case.split.traits.subject_disjoint:
        return
    subjects = case.index["subject"]
    unseen = ~subjects.iloc[case.parts["test"]].isin(set(subjects.iloc[case.parts["train"]])).to_numpy()
    if unseen.any():
        names = sorted(set(subjects.iloc[case.parts["test"][unseen]]))
        reason = (f"protocol '{case.split.protocol}' states that people are seen, but {_named(names)} were not "
                  "trained on: where all subjects have clips of their own, use 'subjects'")
        yield Finding("people_not_seen", "warn", reason, tuple(case.parts["test"][unseen].tolist()))


def _points(worth: float | None) -> str:
    return "not measured" if worth is None else f"{100 * worth:+.1f} points over chance"


RULES: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    empty_part, same_window, overlapping_windows, clip_on_both_sides, subject_on_both_sides, stimulus_on_both_sides,
    context_on_both_sides, duplicated_signal, normalization_on_test, repair_on_test, items_reuse_test,
    pretrained_on_test, selected_on_test, labels_of_parts, time_neighbors, session_fingerprint, people_not_seen)


def audit(split: Split, index: pd.DataFrame, accept: Collection[str] = (), **known: Any) -> list[Finding]:
    """Refuse a split that leaks; return what must be stated with its scores.

    Parameters
    ----------
    split : Split
        The parts.
    index : DataFrame
        One row a window.
    accept : collection of str
        Rules whose refusals are overridden; they come back among the findings, and the report is stamped with them.
    **known
        Further fields of :class:`Case`.

    Returns
    -------
    list of Finding
        Warnings, and refusals that were overridden.

    Raises
    ------
    LeakError
        With every refusal that was not overridden.
    """
    case = Case(split, index, **known)
    findings = [finding for rule in RULES for finding in rule(case)]
    refused = [finding for finding in findings if finding.severity == "refuse" and finding.rule not in accept]
    if refused:
        raise LeakError(f"Protocol '{split.protocol}' is refused. " + " ".join(str(finding) for finding in refused))
    return findings


def reached_by_shortcuts(models: pd.DataFrame, probes: pd.DataFrame) -> list[Finding]:
    """A warning for every model whose score a probe reaches without EEG.

    Parameters
    ----------
    models, probes : DataFrame
        One row a model, and a probe of :mod:`e2llm.evaluation.shortcuts`, under the same split: ``name``, ``score``,
        ``low``, ``high``. A probe reaches a model if its upper bound is at or above the model's lower bound.
    """
    findings = []
    for model in models.to_dict("records"):
        reaching = probes[probes["high"] >= model["low"]].sort_values("score", ascending=False, kind="stable")
        if len(reaching):
            named = ", ".join(f"'{probe['name']}' {_percent(probe)}" for probe in reaching.to_dict("records"))
            findings.append(Finding("shortcut_reaches_model", "warn",
                                    f"the score of '{model['name']}', {_percent(model)}, is reached without "
                                    f"any EEG by {named}"))
    return findings


def _percent(row: dict) -> str:
    return f"{100 * row['score']:.1f} ({100 * row['low']:.1f} – {100 * row['high']:.1f})"


def stamp(findings: Collection[Finding]) -> str:
    """What a report must state with every score: empty for a split without overridden refusals."""
    rules = sorted({finding.rule for finding in findings if finding.severity == "refuse"})
    return f"LEAKY: {', '.join(rules)}" if rules else ""
