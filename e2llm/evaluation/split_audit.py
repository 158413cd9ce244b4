"""The verdict on a split of anybody's project: the auditor's rules, probes without EEG, and what encoders have seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ..core.arguments import check_number, check_one_of
from ..core.chat import Item
from ..data.audit import RULES, Case, Finding, reached_by_shortcuts
from ..data.pretraining_overlap import encoder_called, has_seen
from ..data.split_table import LEAST_FEATURES, SplitTable
from .shortcuts import neighbor_worth, probe, session_worth

SHOWN = 5  # lines named in a finding


@dataclass(frozen=True)
class Statement:
    """What is known of a model beside its split; what is not stated is said to be unchecked.

    Parameters
    ----------
    window_s : float
        Length of a window, seconds.
    normalization : str
        As the table was read with.
    selected_on, repaired_over : str
        As in :class:`e2llm.data.audit.Case`; empty: not stated.
    encoder, dataset : str
        Pretrained encoder, and the data set of the table.
    score : float, optional
        Balanced accuracy of the model on the test part.
    """

    window_s: float = 4.0
    normalization: str = "unknown"
    selected_on: str = ""
    repaired_over: str = ""
    encoder: str = ""
    dataset: str = ""
    score: float | None = None

    def __post_init__(self) -> None:
        check_number("window_s", self.window_s, 1e-6, 1e6)
        if self.score is not None:
            check_number("score", self.score, 0, 1)
        check_one_of("selected_on", self.selected_on, ("", "train", "val", "test"))
        check_one_of("repaired_over", self.repaired_over, ("", "clip", "recording", "corpus"))
        if not isinstance(self.encoder, str) or not isinstance(self.dataset, str):
            raise ValueError(f"encoder = {self.encoder!r:.60}, dataset = {self.dataset!r:.60}: give names.")


@dataclass(frozen=True)
class Verdict:
    """The result of an audit.

    Parameters
    ----------
    findings : list of Finding
        Refusals first.
    facts : dict of str to str
        What the split is.
    probes : DataFrame
        Scores without EEG; empty where a part is empty.
    accepted : frozenset of str
        Rules whose refusals were overridden.
    """

    findings: list[Finding]
    facts: dict[str, str]
    probes: pd.DataFrame
    accepted: frozenset[str]

    @property
    def refused(self) -> list[Finding]:
        """Refusals that were not overridden."""
        return [found for found in self.findings if found.severity == "refuse" and found.rule not in self.accepted]

    @property
    def word(self) -> str:
        """The verdict in one word or two."""
        return "refused" if self.refused else "with warnings" if self.findings else "nothing found"

    def as_json(self) -> dict[str, Any]:
        """The verdict in types of JSON; ``lines`` are those of the table, its header being line 1."""
        found = [{"rule": one.rule, "severity": one.severity, "reason": one.reason,
                  "accepted": one.rule in self.accepted, "windows": len(one.rows),
                  "lines": [row + 2 for row in one.rows]} for one in self.findings]
        return {"verdict": self.word, "facts": self.facts, "findings": found,
                "probes": self.probes.to_dict("records")}


def sentence(found: Finding) -> str:
    """A finding with the lines of the table that it is about."""
    lines = ", ".join(str(row + 2) for row in found.rows[:SHOWN])
    where = f" (line{'s' * (len(found.rows) > 1)} {lines}{', …' * (len(found.rows) > SHOWN)})" if found.rows else ""
    return f"{found.rule}: {found.reason}{where}."


def audit_table(table: SplitTable, stated: Statement, accept: Collection[str] = ()) -> Verdict:
    """Audit a split.

    Parameters
    ----------
    table : SplitTable
        From :func:`e2llm.data.split_table.read_split_table`.
    stated : Statement
        What else is known.
    accept : collection of str
        Rules whose refusals are overridden.

    Raises
    ------
    ValueError
        For an unknown rule, encoder or scope.
    """
    whole = len(table.split.train) > 0 and len(table.split.test) > 0
    known: dict[str, Any] = {"window_s": stated.window_s, "power": table.power}
    if len(table.shown):
        known["items"] = [Item("shown", 1, [], "", "", [], windows=table.shown.tolist())]
    if stated.selected_on:
        known["selected_on"] = stated.selected_on
    if stated.repaired_over:
        known["repaired_over"] = stated.repaired_over
    if whole:
        known["neighbor_worth"] = neighbor_worth(table.index, table.split)
        known["session_worth"] = session_worth(table.index, table.split)
    overlap, pretrained_on = _overlap(stated, table)
    case = Case(table.split, table.index, pretrained_on=pretrained_on, **known)
    findings = [_softened(found) for rule in RULES for found in rule(case)] + overlap + _not_stated(stated, table)
    if unknown := sorted(set(accept) - {found.rule for found in findings}):
        raise ValueError(f"Nothing was found by {', '.join(unknown)}, so nothing can be accepted: leave it out.")
    probes = probe(table.index, table.split) if whole else pd.DataFrame()
    findings += _shortcuts(probes, stated.score)
    findings.sort(key=lambda found: found.severity != "refuse")
    return Verdict(findings, _facts(table, stated), probes, frozenset(accept))


def _softened(found: Finding) -> Finding:
    """Without a validation part a split can still be tested on; nothing then was chosen fairly."""
    if found.rule == "empty_part" and found.reason.startswith("the val part"):
        reason = "there is no validation part, so nothing can have been chosen apart from training and test"
        return replace(found, severity="warn", reason=reason)
    return found


def _overlap(stated: Statement, table: SplitTable) -> tuple[list[Finding], set[str]]:
    """What the registry says, and the people that the encoder was pretrained on."""
    if not stated.encoder:
        return [], set()
    encoder = encoder_called(stated.encoder)
    listed = f"{', '.join(encoder.seen)}; source: {encoder.source}"
    if not stated.dataset:
        return [Finding("pretraining_overlap", "warn", f"the data set is not named, and {encoder.name} was pretrained "
                                                       f"on {listed}")], set()
    seen = has_seen(encoder, stated.dataset)
    if seen:
        note = f" ({encoder.note})" if encoder.note else ""
        return [Finding("pretraining_overlap", "warn", f"{encoder.name} was pretrained on {stated.dataset}{note}; "
                                                       f"source: {encoder.source}")], set(table.index["subject"])
    if seen is None:
        return [Finding("pretraining_overlap", "warn", f"{stated.dataset} is not among the known data sets of "
                                                       f"{encoder.name}, whose list is not complete: {listed}")], set()
    return [], set()


def _not_stated(stated: Statement, table: SplitTable) -> list[Finding]:
    """What was not checked because nobody said it."""
    unknown = []
    if stated.normalization == "unknown":
        unknown.append("on which windows the normalization was fitted")
    if not stated.selected_on:
        unknown.append("on which part epoch, threshold and weights were chosen")
    if "start_s" not in table.index:
        unknown.append("whether windows overlap (no column 'start_s')")
    if table.power is None:
        unknown.append(f"whether a signal stands on both sides under two names ({LEAST_FEATURES} or more features that "
                       "vary are needed)")
    return [Finding("not_stated", "warn", f"not checked: {'; '.join(unknown)}")] if unknown else []


def _shortcuts(probes: pd.DataFrame, score: float | None) -> list[Finding]:
    """Probes that do better than chance, or as well as the model."""
    if probes.empty:
        return []
    better = probes[(probes["low"] > probes["chance"] + 1e-9) & (probes["name"] != "majority")]
    found = [Finding("shortcut", "warn", f"'{row['name']}' reaches {100 * row['score']:.1f} % without any EEG (chance "
                                         f"{100 * row['chance']:.1f} %). {row['what'].rstrip('.')}")
             for row in better.to_dict("records")]
    if score is None:
        return found
    model = pd.DataFrame([{"name": "the model", "score": score, "low": score, "high": score}])
    return found + reached_by_shortcuts(model, probes)


def _facts(table: SplitTable, stated: Statement) -> dict[str, str]:
    index, split = table.index, table.split
    facts = {f"{name} windows": str(len(getattr(split, name))) for name in ("train", "val", "test")}
    facts["unused windows"] = str(len(index) - len(split.used))
    for name, column in (("people", "subject"), ("clips", "clip"), ("sessions", "session"), ("contexts", "context")):
        if column in index:
            tested = set(index[column].iloc[split.test])
            seen = len(tested & set(index[column].iloc[split.train]))
            facts[f"test {name}"] = f"{len(tested)}, of which {seen} also in train"
    facts["promised"] = split.traits.what
    facts["labels"] = ", ".join(f"{label} {n}" for label, n in index["label"].value_counts().items())
    facts["normalization"] = stated.normalization
    if table.unused:
        facts["columns that were not used"] = ", ".join(table.unused)
    return facts
