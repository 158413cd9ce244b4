"""Every kind of question: its wordings, the thought that leads to its answer, its closed set of options.

An item is plain JSON: a question (chat messages whose parts are text or an EEG window), a thought, an answer and
the options. Nothing in a question depends on the answer. Thoughts cite what was measured in the window.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .effects import BANDS
from .emotions import LabelSet
from .language import END_THINK, THINK
from .montage import REGIONS
from .segments import INTENSITIES, Segment

LETTERS = "ABCD"
_MORE = {"valence": "more pleasant", "arousal": "more activated", "intensity": "stronger"}


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


# Thoughts say one meaning in several ways; descriptions, which are compared word by word, in the first way only.
_EVIDENCE = ("Evidence: {claims}.", "Measured: {claims}.", "Findings: {claims}.")
_QUIET = ("No band stands out.", "Nothing stands out.")
_CONCLUSION = ("That fits {label}.", "This points to {label}.")
_BARE = 0.25  # share of thoughts that are evidence alone, so that an answer may also follow without being said before


def _evidence_sentence(segment: Segment, rng: np.random.Generator | None = None) -> str:
    """What may be said of a segment; in one of several wordings with ``rng``."""
    evidence, quiet = (forms[0] if rng is None else _pick(forms, rng) for forms in (_EVIDENCE, _QUIET))
    said = ", ".join(map(str, segment.claims))
    return evidence.format(claims=said) if said else quiet


def _conclusion(segment: Segment, label_set: LabelSet, rng: np.random.Generator) -> str:
    evidence, conclusion = _evidence_sentence(segment, rng), _pick(_CONCLUSION, rng)
    if rng.uniform() < _BARE:
        return evidence
    feeling = f"This is {_affect(segment.label, label_set)}. " if label_set.has_affect else ""
    return f"{evidence} {feeling}{conclusion.format(label=segment.label)}"


def _note(segment: Segment, axis: str) -> str:
    """What a thought keeps of one of several segments: its intensity if that is asked for, else its label."""
    return INTENSITIES[segment.intensity_level] if axis == "intensity" else segment.label


def _notes(segments: list[Segment], axis: str = "") -> str:
    return "Notes: " + ", ".join(f"{_note(segment, axis)} {letter}" for letter, segment in zip(LETTERS, segments, strict=False)) + "."


def _listing(segments: list[Segment]) -> list[str | Segment]:
    """Question parts "A: <eeg> B: <eeg> …"."""
    return list(itertools.chain.from_iterable((f" {letter}: ", segment) for letter, segment in zip(LETTERS, segments, strict=False)))


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


_PREDICT = ("Which {noun} does this segment show?", "Name the {noun} in this EEG segment.", "What is the {noun} of this person?",
            "Read the EEG and name the {noun}.", "Look at the segment. Which {noun} is it?", "This is the EEG of a person. What is the {noun}?",
            "Say which {noun} the EEG shows.", "What {noun} does this EEG show?", "Which {noun} fits this EEG?",
            "Read this segment. What does the person feel?")
_ZERO_PREDICT = ("This EEG segment shows a person. Which {noun} fits?", "Look at this EEG and say the {noun}.",
                 "Which {noun} do you read in this segment?", "Read this segment and say which {noun} it shows.")
_DESCRIBE = ("Describe this segment.", "What does this EEG segment show?", "Describe the state of this person.")
_SELECT = ("Which word fits this segment?", "Choose the word that fits the segment.", "Which of these words does the segment show?")
_COMPARE = ("Which segment is {more}?", "Which of the two segments is {more}?", "Compare the segments. Which is {more}?")
_RANK = ("Order the segments, the one that is {more} first.", "Rank the segments from {more} to less.")
_MATCH = ("Which segment fits this scenario?", "Choose the segment that fits the scenario.", "To which segment does the scenario belong?")
_ZERO_MATCH = ("Read the scenario. Which of the segments shows this person?", "Which segment does this person show?",
               "Read this. Which of the segments is it?")
_CHOOSE = ("Which scenario fits this segment?", "Choose the scenario that fits the segment.")
_ZERO_CHOOSE = ("Read the scenarios. Which of these does the segment show?", "To which scenario does this segment belong?")
_SCENARIO = ("Which emotion fits this scenario?", "Name the emotion of this scenario.", "What does a person feel here?")


def predict(segment: Segment, label_set: LabelSet, rng: np.random.Generator, zero_shot: bool = False) -> Item:
    """Which of the labels does the segment show?"""
    question = _pick(_ZERO_PREDICT if zero_shot else _PREDICT, rng).format(noun=label_set.noun)
    return _item("zero_predict" if zero_shot else "predict", 3 if zero_shot else 1, [segment, f" {question}"], _conclusion(segment, label_set, rng),
                 segment.label, list(label_set.labels))


def description(segment: Segment, label_set: LabelSet, rng: np.random.Generator, others: list[Segment] | None = None) -> Item:
    """Which of the descriptions is the segment's? The others describe segments with other labels."""
    options = [describe(other, label_set) for other in [segment, *(others or [])]]
    rng.shuffle(options)
    return _item("describe", 2, [segment, f" {_pick(_DESCRIBE, rng)}"], _evidence_sentence(segment, rng), describe(segment, label_set), options)


def compare(pair: list[Segment], axis: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Which of two segments is higher on an axis?"""
    best = int(np.argmax([segment.value(axis, label_set) for segment in pair]))
    question = _pick(_COMPARE, rng).format(more=_MORE[axis])
    thought = f"{_notes(pair, axis)} {_MORE[axis].capitalize()}: {_note(pair[best], axis)} {LETTERS[best]}."
    return _item("compare", 2, [*_listing(pair), f" {question}"], thought, LETTERS[best], ["A", "B"], axis)


def rank(group: list[Segment], axis: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Order three or four segments on an axis."""
    falling = np.argsort([-segment.value(axis, label_set) for segment in group], kind="stable")
    order = " > ".join(LETTERS[i] for i in falling)
    question = _pick(_RANK, rng).format(more=_MORE[axis])
    ranked = " > ".join(f"{_note(group[i], axis)} {LETTERS[i]}" for i in falling)
    thought = f"{_notes(group, axis)} {_MORE[axis].capitalize()}: {ranked}."
    options = [" > ".join(letters) for letters in itertools.permutations(LETTERS[: len(group)])]
    return _item("rank", 2, [*_listing(group), f" {question}"], thought, order, options, axis)


def match(group: list[Segment], target: int, scenario: str, label_set: LabelSet, rng: np.random.Generator, zero_shot: bool = False) -> Item:
    """Which of three segments fits a scenario?"""
    form = _pick(_ZERO_MATCH if zero_shot else _MATCH, rng)
    thought = f"{_notes(group)} The scenario fits {group[target].label} {LETTERS[target]}."
    return _item("zero_match" if zero_shot else "match", 3 if zero_shot else 2, [f"{scenario} {form}", *_listing(group)],
                 thought, LETTERS[target], list(LETTERS[: len(group)]))


def select(group: list[Segment], target: int, words: list[str], rng: np.random.Generator) -> Item:
    """Which of the words fits the segment? ``words[i]`` belongs to the label of ``group[i]``; only the target is heard."""
    return _lettered("select", 2, group, target, words, _pick(_SELECT, rng))


def choose(group: list[Segment], target: int, texts: list[str], rng: np.random.Generator, zero_shot: bool = False) -> Item:
    """Which of the scenarios fits the segment? Asked of EEG only in the zero-shot tier."""
    kind, tier = ("zero_choose", 3) if zero_shot else ("choose", 0)
    return _lettered(kind, tier, group, target, texts, _pick(_ZERO_CHOOSE if zero_shot else _CHOOSE, rng))


def _lettered(kind: str, tier: int, group: list[Segment], target: int, texts: list[str], form: str) -> Item:
    """A segment and lettered texts, one of which belongs to it."""
    listing = " ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, texts, strict=False))
    fits = ", ".join(f"{segment.label} {letter}" for letter, segment in zip(LETTERS, group, strict=False))
    thought = f"Notes: {fits}. The segment shows {group[target].label} {LETTERS[target]}."
    return _item(kind, tier, [group[target], f" {form} {listing}"], thought, LETTERS[target], list(LETTERS[: len(texts)]))


def scenario_question(label: str, text: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Which label fits a scenario? Text only."""
    return _item("scenario", 0, [f"{text} {_pick(_SCENARIO, rng)}"], f"The scenario fits {label}.", label, list(label_set.labels))


def drill(label_set: LabelSet, rng: np.random.Generator, n_words: int = 20) -> Item:
    """Say random words again: the quickest way for a fresh language model to learn to look things up in its context.

    Copying needs the circuit ("what came after this word before?") that every comparison of segments needs too.
    """
    words = [*label_set.labels, *INTENSITIES, *REGIONS, *BANDS, *LETTERS, "low", "high", "more", "fits", "shows"]
    chosen = " ".join(words[i] for i in rng.choice(len(words), size=n_words, replace=False))
    return _item("drill", 0, [f"Notes: {chosen}"], "", f"Notes: {chosen}", [])
