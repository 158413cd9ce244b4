"""Instruction items of the three tiers, with reasoning that cites measured evidence.

An item is plain JSON: a question (chat messages whose parts are text or an EEG window), a thought, an answer and
the closed set of options. Nothing in a question depends on the answer; which segment stands where is drawn at random.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from . import scenarios
from .effects import BANDS
from .emotions import LabelSet
from .features import EvidenceNames, level
from .language import END_THINK, THINK
from .montage import REGIONS

LETTERS = "ABCD"
INTENSITIES = ("weak", "moderate", "strong")  # thirds of the 0-1 scale
MIN_GAP = {"valence": 0.2, "arousal": 0.2, "intensity": 1}  # closer segments have no clear order and make no item
_MORE = {"valence": "more pleasant", "arousal": "more activated", "intensity": "stronger"}
MAX_CLAIMS = 3
DIRECT_KINDS = frozenset({"predict", "describe", "scenario"})  # also trained without a thought; the others always think


@dataclass(frozen=True)
class Claim:
    """One measured statement: a feature of the window is low or high against the person's own level."""

    feature: str  # "occipital alpha", "frontal asymmetry"
    level: str

    def __str__(self) -> str:
        return f"{self.feature} {self.level}"


@dataclass(frozen=True)
class Segment:
    """What is known of one EEG window, real or imagined; ``window`` is None for an imagined one."""

    window: int | None
    label: str
    intensity: float
    claims: tuple[Claim, ...]
    subject: str = ""
    clip: int = 0

    @property
    def state(self) -> str:
        """Label and, where the source has it, intensity: "fear strong"."""
        return self.label if np.isnan(self.intensity) else f"{self.label} {INTENSITIES[self.intensity_level]}"

    @property
    def intensity_level(self) -> int:
        """Third of the intensity scale: 0 weak, 1 moderate, 2 strong."""
        return min(2, int(3 * self.intensity))

    def part(self) -> dict:
        """Content part of a message: the window, or words that stand in for it."""
        if self.window is not None:
            return {"type": "eeg", "window": int(self.window)}
        return {"type": "text", "text": f"[ {', '.join([self.state, *map(str, self.claims)])} ]"}

    def value(self, axis: str, label_set: LabelSet) -> float:
        """Place on the axis valence, arousal or intensity."""
        if axis == "intensity":
            return self.intensity if np.isnan(self.intensity) else self.intensity_level
        return getattr(label_set, axis)[self.label]


def salient_claims(z: np.ndarray, names: EvidenceNames, limit: int = MAX_CLAIMS) -> tuple[Claim, ...]:
    """The most salient measured statements of a window: low or high features by falling ``|z|``."""
    order = np.argsort(-np.abs(z), kind="stable")[:limit]
    return tuple(Claim(names.columns[i], level(z[i])) for i in order if level(z[i]) != "typical")


def real_segments(index: pd.DataFrame, rows: np.ndarray, z: np.ndarray, names: EvidenceNames) -> list[Segment]:
    """Segments of recorded windows with their measured claims; ``z`` has a row for every window of the index."""
    table = index.iloc[rows]
    return [Segment(int(row), label, float(intensity), salient_claims(z[row], names), str(subject), int(clip))
            for row, label, intensity, subject, clip
            in zip(rows, table["label"], table["intensity"], table["subject"], table["clip"], strict=True)]


def imagined_segments(label_set: LabelSet, n: int, rng: np.random.Generator) -> list[Segment]:
    """Segments that exist only in words, to teach a fresh language model the language of the tasks.

    Their claims are independent of their label, so the words teach no link between evidence and emotion; that
    link can only be learned from EEG.
    """
    features = [f"{region} {band}" for region in REGIONS for band in BANDS] + ["frontal asymmetry"]
    segments = []
    for _ in range(n):
        chosen = rng.choice(len(features), size=rng.integers(0, MAX_CLAIMS + 1), replace=False)
        claims = tuple(Claim(features[i], str(rng.choice(["low", "high"]))) for i in chosen)
        intensity = float(rng.uniform()) if label_set.has_affect else float("nan")
        segments.append(Segment(None, label_set.labels[rng.integers(len(label_set))], intensity, claims))
    return segments


@dataclass(frozen=True)
class Item:
    """One instruction item."""

    kind: str
    tier: int
    messages: list[dict]
    thought: str
    answer: str
    options: list[str]
    subject: str = ""
    axis: str = ""
    windows: list[int] = field(default_factory=list)

    def response(self, thinking: bool) -> str:
        """Text that the assistant should say."""
        return f"{THINK}\n{self.thought}\n{END_THINK}\n\n{self.answer}" if thinking else self.answer


def _item(kind: str, tier: int, question: list[str | Segment], thought: str, answer: str, options: list[str], axis: str = "") -> Item:
    segments = [part for part in question if isinstance(part, Segment)]
    content = [part.part() if isinstance(part, Segment) else {"type": "text", "text": part} for part in question]
    return Item(kind, tier, [{"role": "user", "content": content}], thought, answer, list(options),
                segments[0].subject if segments else "", axis,
                [segment.window for segment in segments if segment.window is not None])


def describe(segment: Segment, label_set: LabelSet) -> str:
    """The sentence that says what a segment shows."""
    feeling = f", {_affect(segment.label, label_set)}" if label_set.has_affect else ""
    return f"The segment shows {segment.state}{feeling}. {_evidence_sentence(segment)}"


def _affect(label: str, label_set: LabelSet) -> str:
    valence, arousal = label_set.valence[label], label_set.arousal[label]
    tone = "pleasant" if valence > 0.2 else "unpleasant" if valence < -0.2 else "neither pleasant nor unpleasant"
    return f"{tone} and {'activated' if arousal > 0.2 else 'calm'}"


def _evidence_sentence(segment: Segment) -> str:
    if not segment.claims:
        return "No band stands out."
    text = ", ".join(map(str, segment.claims))
    return f"{text[0].upper()}{text[1:]}."


def _conclusion(segment: Segment, label_set: LabelSet) -> str:
    feeling = f"This is {_affect(segment.label, label_set)}. " if label_set.has_affect else ""
    return f"{_evidence_sentence(segment)} {feeling}That fits {segment.label}."


def _note(segment: Segment, axis: str) -> str:
    """What a thought keeps of one of several segments: its intensity if that is asked for, else its label."""
    return INTENSITIES[segment.intensity_level] if axis == "intensity" else segment.label


def _notes(segments: list[Segment], axis: str = "") -> str:
    return "Notes: " + ", ".join(f"{_note(segment, axis)} {letter}" for letter, segment in zip(LETTERS, segments, strict=False)) + "."


def _listing(segments: list[Segment]) -> list[str | Segment]:
    """Question parts "A: <eeg> B: <eeg> …"."""
    return list(itertools.chain.from_iterable((f" {letter}: ", segment) for letter, segment in zip(LETTERS, segments, strict=False)))


def _pick(options: list[str], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


_PREDICT = ("Which {noun} does this segment show?", "Name the {noun} in this EEG segment.", "What is the {noun} of this person?",
            "Read the EEG and name the {noun}.")
_ZERO_PREDICT = ("This EEG segment shows a person. Which {noun} fits?",)
_DESCRIBE = ("Describe this segment.", "What does this EEG segment show?", "Describe the state of this person.")
_COMPARE = ("Which segment is {more}?", "Which of the two segments is {more}?", "Compare the segments. Which is {more}?")
_RANK = ("Order the segments, the one that is {more} first.", "Rank the segments from {more} to less.")
_MATCH = ("Which segment fits this scenario?", "Choose the segment that fits the scenario.", "To which segment does the scenario belong?")
_ZERO_MATCH = ("Read the scenario. Which of the segments shows this person?",)
_CHOOSE = ("Which scenario fits this segment?", "Choose the scenario that fits the segment.")
_SCENARIO = ("Which emotion fits this scenario?", "Name the emotion of this scenario.", "What does a person feel here?")


def predict(segment: Segment, label_set: LabelSet, rng: np.random.Generator, forms: Iterable[str] = _PREDICT, kind: str = "predict", tier: int = 1) -> Item:
    """Which of the labels does the segment show?"""
    question = _pick(list(forms), rng).format(noun=label_set.noun)
    return _item(kind, tier, [segment, f" {question}"], _conclusion(segment, label_set), segment.label, list(label_set.labels))


def description(segment: Segment, label_set: LabelSet, rng: np.random.Generator, others: list[Segment] | None = None) -> Item:
    """Which of four descriptions is the segment's? The others describe segments with other labels."""
    options = [describe(other, label_set) for other in [segment, *(others or [])]]
    rng.shuffle(options)
    return _item("describe", 2, [segment, f" {_pick(list(_DESCRIBE), rng)}"], _evidence_sentence(segment), describe(segment, label_set), options)


def compare(pair: list[Segment], axis: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Which of two segments is higher on an axis?"""
    best = int(np.argmax([segment.value(axis, label_set) for segment in pair]))
    question = _pick(list(_COMPARE), rng).format(more=_MORE[axis])
    thought = f"{_notes(pair, axis)} {_MORE[axis].capitalize()}: {_note(pair[best], axis)} {LETTERS[best]}."
    return _item("compare", 2, [*_listing(pair), f" {question}"], thought, LETTERS[best], ["A", "B"], axis)


def rank(group: list[Segment], axis: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Order three or four segments on an axis."""
    falling = np.argsort([segment.value(axis, label_set) for segment in group])[::-1]
    order = " > ".join(LETTERS[i] for i in falling)
    question = _pick(list(_RANK), rng).format(more=_MORE[axis])
    ranked = " > ".join(f"{_note(group[i], axis)} {LETTERS[i]}" for i in falling)
    thought = f"{_notes(group, axis)} {_MORE[axis].capitalize()}: {ranked}."
    options = [" > ".join(letters) for letters in itertools.permutations(LETTERS[: len(group)])]
    return _item("rank", 2, [*_listing(group), f" {question}"], thought, order, options, axis)


def match(group: list[Segment], target: int, scenario: str, label_set: LabelSet, rng: np.random.Generator, zero_shot: bool = False) -> Item:
    """Which of three segments fits a scenario?"""
    form = _pick(list(_ZERO_MATCH if zero_shot else _MATCH), rng)
    thought = f"{_notes(group)} The scenario fits {group[target].label} {LETTERS[target]}."
    return _item("zero_match" if zero_shot else "match", 3 if zero_shot else 2, [f"{scenario} {form}", *_listing(group)],
                 thought, LETTERS[target], list(LETTERS[: len(group)]))


def choose(segment: Segment, texts: list[str], labels: list[str], label_set: LabelSet, rng: np.random.Generator, zero_shot: bool = False) -> Item:
    """Which of three scenarios fits the segment? Asked of EEG only in the zero-shot tier."""
    target = labels.index(segment.label)
    listing = " ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, texts, strict=False))
    fits = ", ".join(f"{label} {letter}" for letter, label in zip(LETTERS, labels, strict=False))
    thought = f"Notes: {fits}. The segment shows {segment.label} {LETTERS[target]}."
    return _item("zero_choose" if zero_shot else "choose", 3 if zero_shot else 0, [segment, f" {_pick(list(_CHOOSE), rng)} {listing}"], thought, LETTERS[target], list(LETTERS[: len(texts)]))


def scenario_question(label: str, text: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Which label fits a scenario? Text only."""
    return _item("scenario", 0, [f"{text} {_pick(list(_SCENARIO), rng)}"], f"The scenario fits {label}.", label, list(label_set.labels))


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

    def __init__(self, segments: list[Segment], label_set: LabelSet, seed: int, texts: Callable[[str], list[str]] = scenarios.training_scenarios) -> None:
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
        served = {"predict": self.predict, "describe": self.describe}
        if self.most_in_order >= 2:
            served["compare"] = self.compare
        if self.most_in_order >= 3:
            served["rank"] = self.rank
        if self.label_set.has_affect:
            served["zero_predict"] = self.zero_predict
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
        return predict(self._any(), self.label_set, self.rng)

    def zero_predict(self) -> Item:
        return predict(self._any(), self.label_set, self.rng, _ZERO_PREDICT, "zero_predict", 3)

    def describe(self) -> Item:
        segment = self._any()
        others = [] if len(self.by_label) < 2 else [self._any({segment.label}) for _ in range(3)]
        return description(segment, self.label_set, self.rng, others)

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
        return compare(group, axis, self.label_set, self.rng)

    def rank(self) -> Item:
        group, axis = self._apart(min(3 + int(self.rng.uniform() < 0.25), self.most_in_order))
        return rank(group, axis, self.label_set, self.rng)

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
        return match(group, target, self._scenario(group[target].label, zero_shot), self.label_set, self.rng, zero_shot)

    def zero_match(self) -> Item:
        return self.match(zero_shot=True)

    def choose(self, zero_shot: bool = False) -> Item:
        group = self._distinct(3)
        texts = [self._scenario(segment.label, zero_shot) for segment in group]
        segment = group[self.rng.integers(3)]
        return choose(segment, texts, [s.label for s in group], self.label_set, self.rng, zero_shot)

    def zero_choose(self) -> Item:
        return self.choose(zero_shot=True)

    def scenario(self) -> Item:
        label = list(self.by_label)[self.rng.integers(len(self.by_label))]
        return scenario_question(label, self._scenario(label, False), self.label_set, self.rng)


def _drill(label_set: LabelSet, rng: np.random.Generator, n_words: int = 20) -> Item:
    """Say random words again: the quickest way for a fresh language model to learn to look things up in its context.

    Copying needs the circuit ("what came after this word before?") that every comparison of segments needs too.
    """
    words = [*label_set.labels, *INTENSITIES, *REGIONS, *BANDS, *LETTERS, "low", "high", "more", "fits", "shows"]
    chosen = " ".join(words[i] for i in rng.choice(len(words), size=n_words, replace=False))
    return _item("drill", 0, [f"Notes: {chosen}"], "", f"Notes: {chosen}", [])


def drill_items(label_set: LabelSet, n: int, seed: int) -> list[Item]:
    """Copying drills, the first lesson of a language model made on the spot."""
    rng = np.random.default_rng(seed)
    return [_drill(label_set, rng) for _ in range(n)]


def text_items(label_set: LabelSet, n: int, seed: int) -> list[Item]:
    """Items in words alone, from which a fresh language model learns the tasks and which emotion fits which scenario.

    No zero-shot scenario and no zero-shot question form is among them.
    """
    rng = np.random.default_rng(seed)
    builder = ItemBuilder(imagined_segments(label_set, max(64, n // 2), rng), label_set, seed)
    makers, served = [builder.predict, builder.describe], builder.kinds()
    if builder.has_scenarios:
        makers += [builder.scenario] * 3
    makers += [served[kind] for kind in ("compare", "rank", "match") if kind in served]
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
