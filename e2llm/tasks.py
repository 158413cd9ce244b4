"""Instruction items of the three tiers, drawn from the segments of one part of a split.

Which segments an item holds, and which stands where, is drawn at random.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import questions, scenarios
from .emotions import LabelSet
from .language import END_THINK
from .questions import Item
from .segments import Segment, imagined_segments

MIN_GAP = {"valence": 0.2, "arousal": 0.2, "intensity": 1}  # closer segments have no clear order and make no item
DIRECT_KINDS = frozenset({"predict", "describe", "scenario"})  # also trained without a thought; the others always think


class ItemBuilder:
    """Draws items of every kind from a pool of segments.

    Parameters
    ----------
    segments : list of Segment
        Of one part of a split (or imagined ones): items never mix parts.
    label_set : LabelSet
        Its answers and coordinates.
    seed : int
        Same seed, same items.
    texts : callable
        ``texts(label)`` gives the scenarios that may be used.
    """

    def __init__(self, segments: list[Segment], label_set: LabelSet, seed: int,
                 texts: Callable[[str], list[str]] = scenarios.training_scenarios) -> None:
        self.segments, self.label_set = segments, label_set
        self.rng = np.random.default_rng(seed)
        self.texts = texts
        self.by_label = {label: [s for s in segments if s.label == label] for label in label_set.labels}
        self.by_label = {label: found for label, found in self.by_label.items() if found}
        self.most_in_order = max(map(self._in_order, MIN_GAP)) if label_set.has_affect else 0
        self.has_scenarios = len(self.by_label) >= 3 and set(label_set.labels) <= set(scenarios.emotions())

    def _in_order(self, axis: str) -> int:
        """How many segments can have a clear order on an axis."""
        chosen: list[float] = []
        for value in sorted({value for segment in self.segments if not np.isnan(value := segment.value(axis, self.label_set))}):
            if not chosen or value - chosen[-1] >= MIN_GAP[axis]:
                chosen.append(value)
        return len(chosen)

    def kinds(self) -> dict[str, Callable[[], Item]]:
        """The kinds that this source can serve; those about valence, arousal or scenarios need coordinates."""
        served = {"predict": self.predict, "describe": self.describe, "zero_predict": self.zero_predict}
        if len(self.by_label) < 2:
            del served["describe"]  # nothing to tell a description from
        if len(self.by_label) >= 2:
            served["select"] = self.select
        if self.most_in_order >= 2:
            served["compare"] = self.compare
        if self.most_in_order >= 3:
            served["rank"] = self.rank
        if self.has_scenarios:
            served |= {"match": self.match, "zero_match": self.zero_match, "zero_choose": self.zero_choose}
        return served

    def draw(self, kind: str, n: int) -> list[Item]:
        """``n`` items of one kind; ValueError if this source cannot serve it."""
        known = self.kinds()
        if kind not in known:
            raise ValueError(f"Label set '{self.label_set.name}' cannot serve items of kind '{kind}' (no valence and arousal, too "
                             f"few labels, no scenarios, or unknown kind); it serves {', '.join(known)}.")
        return [known[kind]() for _ in range(n)]

    def _any(self, but: set[str] = frozenset()) -> Segment:
        labels = [label for label in self.by_label if label not in but]
        pool = self.by_label[labels[self.rng.integers(len(labels))]]
        return pool[self.rng.integers(len(pool))]

    def predict(self) -> Item:
        return questions.predict(self._any(), self.label_set, self.rng)

    def zero_predict(self) -> Item:
        return questions.predict(self._any(), self.label_set, self.rng, zero_shot=True)

    def describe(self) -> Item:
        segment, *others = self._distinct(min(4, len(self.by_label)))
        return questions.description(segment, self.label_set, self.rng, others)

    def _apart(self, n: int) -> tuple[list[Segment], str]:
        """``n`` segments with clear order on a random axis that permits one."""
        while True:
            axis = ("valence", "arousal", "intensity")[self.rng.integers(3)]
            group = [self._any() for _ in range(n)]
            values = sorted(segment.value(axis, self.label_set) for segment in group)
            if all(b - a >= MIN_GAP[axis] for a, b in itertools.pairwise(values)):
                return group, axis

    def compare(self) -> Item:
        group, axis = self._apart(2)
        return questions.compare(group, axis, self.label_set, self.rng)

    def rank(self) -> Item:
        group, axis = self._apart(min(3 + int(self.rng.uniform() < 0.25), self.most_in_order))
        return questions.rank(group, axis, self.label_set, self.rng)

    def _distinct(self, n: int) -> list[Segment]:
        """``n`` segments with different labels."""
        group: list[Segment] = []
        for _ in range(n):
            group.append(self._any({segment.label for segment in group}))
        return group

    def _scenario(self, label: str, zero_shot: bool) -> str:
        texts = scenarios.zero_shot_scenarios(label) if zero_shot else self.texts(label)
        return texts[self.rng.integers(len(texts))]

    def match(self, zero_shot: bool = False) -> Item:
        group = self._distinct(3)
        target = int(self.rng.integers(3))
        return questions.match(group, target, self._scenario(group[target].label, zero_shot), self.label_set, self.rng, zero_shot)

    def zero_match(self) -> Item:
        return self.match(zero_shot=True)

    def select(self) -> Item:
        group = self._distinct(min(3, len(self.by_label)))
        words = [self._word(segment.label) for segment in group]
        return questions.select(group, int(self.rng.integers(len(group))), words, self.rng)

    def _word(self, label: str) -> str:
        words = [label, *(scenarios.feelings(label) if self.has_scenarios else ())]
        return words[self.rng.integers(len(words))]

    def choose(self, zero_shot: bool = False) -> Item:
        group = self._distinct(3)
        texts = [self._scenario(segment.label, zero_shot) for segment in group]
        return questions.choose(group, int(self.rng.integers(3)), texts, self.rng, zero_shot)

    def zero_choose(self) -> Item:
        return self.choose(zero_shot=True)

    def scenario(self) -> Item:
        label = list(self.by_label)[self.rng.integers(len(self.by_label))]
        return questions.scenario_question(label, self._scenario(label, False), self.label_set, self.rng)


class OnePersonBuilder:
    """Draws items whose segments, heard or only described, are all of one person, drawn anew for every item.

    A model is examined with them. Whatever it knows of a person alone is then true of every option alike, and earns nothing. That
    matters most under population levels: there the evidence of any window tells whose it is, and a description of somebody
    else's window can be ruled out without a look at this one.

    Parameters
    ----------
    segments, label_set, seed
        As for :class:`ItemBuilder`.
    """

    def __init__(self, segments: list[Segment], label_set: LabelSet, seed: int) -> None:
        self.label_set, self.rng = label_set, np.random.default_rng(seed)
        people = sorted({segment.subject for segment in segments})
        self.builders = [ItemBuilder([s for s in segments if s.subject == who], label_set, seed) for who in people]
        for builder in self.builders:
            builder.rng = self.rng

    def kinds(self) -> list[str]:
        """The kinds that the windows of one person or more can serve."""
        return list(dict.fromkeys(kind for builder in self.builders for kind in builder.kinds()))

    def draw(self, kind: str, n: int) -> list[Item]:
        """``n`` items of one kind, of people who can serve it; ValueError if there is nobody."""
        able = [builder for builder in self.builders if kind in builder.kinds()]
        if not able:
            raise ValueError(f"Nobody's windows serve items of kind '{kind}' with label set '{self.label_set.name}'; they serve "
                             f"{', '.join(self.kinds())}.")
        return [item for _ in range(n) for item in able[self.rng.integers(len(able))].draw(kind, 1)]


def drill_items(label_set: LabelSet, n: int, seed: int) -> list[Item]:
    """Copying drills, the first lesson of a language model made on the spot."""
    rng = np.random.default_rng(seed)
    return [questions.drill(label_set, rng) for _ in range(n)]


def text_items(label_set: LabelSet, n: int, seed: int) -> list[Item]:
    """Items in words alone, from which a fresh language model learns the tasks and which emotion fits which scenario.

    No zero-shot scenario and no zero-shot question form is among them.
    """
    rng = np.random.default_rng(seed)
    builder = ItemBuilder(imagined_segments(label_set, max(64, n // 2), rng), label_set, seed)
    makers, served = [builder.predict, builder.describe], builder.kinds()
    if builder.has_scenarios:
        makers += [builder.scenario] * 3
    makers += [served[kind] for kind in ("select", "compare", "rank", "match") if kind in served]
    if builder.has_scenarios:
        makers.append(builder.choose)
    return [makers[i % len(makers)]() for i in range(n)]


def write_items(items: list[Item], path: str | Path) -> None:
    """One JSON object a line."""
    Path(path).write_text("".join(json.dumps(item.__dict__, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")


def read_items(path: str | Path) -> list[Item]:
    """Items of a file that :func:`write_items` wrote."""
    return [Item(**json.loads(line)) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def parse_answer(text: str, options: list[str]) -> str | None:
    """Answer in generated text: what stands after the thought, if it is exactly one of the options, else None."""
    answer = text.rsplit(END_THINK, 1)[-1].strip().rstrip(".").strip()
    wanted = {option.rstrip(".").lower(): option for option in options}
    return wanted.get(answer.lower())
