"""Every kind of question: its wordings, the thought that leads to its answer, its closed set of options.

An item is plain JSON: a question (chat messages whose parts are text or an EEG window), a thought, an answer and
the options. Nothing in a question depends on the answer. Thoughts cite what was measured in the window.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.bands import BANDS
from ..core.chat import END_THINK, LETTERS, Item
from ..core.claims import LOW_HIGH, WHOLE, Claim, Scale
from ..core.labels import LabelSet
from ..core.montage import REGIONS
from ..data.dataset import Corpus
from . import scenarios
from .scenarios import Scenario
from .segments import INTENSITIES, Segment, imagined_segments, segments_of
from .wordings import (
    CHOOSE_WORDINGS,
    COMPARE_WORDINGS,
    DESCRIBE_WORDINGS,
    MATCH_WORDINGS,
    PREDICT_WORDINGS,
    RANK_WORDINGS,
    SCENARIO_WORDINGS,
    SELECT_WORDINGS,
    ZERO_CHOOSE_WORDINGS,
    ZERO_MATCH_WORDINGS,
    ZERO_SHOT_WORDINGS,
)

DESCRIBED = 6  # claims of a description
CLAIM_KINDS = frozenset({"predict", "zero_predict", "describe"})  # their thoughts state evidence
MORE = {"valence": "more pleasant", "arousal": "more activated", "intensity": "stronger"}


def _item(kind: str, tier: int, question: list[str | Segment], thought: str, answer: str, options: list[str],
          axis: str = "") -> Item:
    segments = [part for part in question if isinstance(part, Segment)]
    content = [part.part(kind in CLAIM_KINDS or part.scale.in_every_prompt) if isinstance(part, Segment)
               else {"type": "text", "text": part} for part in question]
    return Item(kind, tier, [{"role": "user", "content": content}], thought, answer, list(options),
                segments[0].subject if segments else "", axis,
                [segment.window for segment in segments if segment.window is not None])


def describe(segment: Segment, label_set: LabelSet) -> str:
    """The sentence that says what a segment shows, with its clearest claims.

    At most :data:`DESCRIBED` claims: descriptions are compared word by word, and a thought names all claims.

    Parameters
    ----------
    segment : Segment
        With its claims.
    label_set : LabelSet
        Where its label is from.
    """
    feeling = f", {affect_words(segment.label, label_set)}" if label_set.has_affect else ""
    return f"The segment shows {segment.state}{feeling}. {evidence_sentence(_clearest(segment))}"


def _clearest(segment: Segment) -> list[Claim]:
    words = segment.scale.words
    far = [-abs(words.index(claim.level) - words.index("typical")) for claim in segment.claims]
    kept = np.argsort(far, kind="stable")[:DESCRIBED]
    return [segment.claims[i] for i in sorted(kept)]


def affect_words(label: str, label_set: LabelSet) -> str:
    """Words for the valence and the arousal of a label: "pleasant and calm".

    Parameters
    ----------
    label : str
        One of the set's.
    label_set : LabelSet
        With coordinates.
    """
    valence, arousal = label_set.valence[label], label_set.arousal[label]
    tone = "pleasant" if valence > 0.2 else "unpleasant" if valence < -0.2 else "neither pleasant nor unpleasant"
    return f"{tone} and {'activated' if arousal > 0.2 else 'calm'}"


# Thoughts say one meaning in several ways; descriptions, which are compared word by word, in the first way only.
_EVIDENCE = ("Evidence: {claims}.", "Measured: {claims}.", "Findings: {claims}.")
_NO_SALIENT_FEATURE = ("No band stands out.", "Nothing stands out.")
_CONCLUSION = ("That fits {label}.", "This points to {label}.")
_BARE = 0.25  # share of thoughts that hold evidence only, and not the answer


def evidence_sentence(claims: Sequence[Claim], rng: np.random.Generator | None = None, grouped: bool = False) -> str:
    """Claims as a sentence.

    Parameters
    ----------
    claims : sequence of Claim
        What is stated; nothing stands out if there is none.
    rng : Generator, optional
        Draws one of several wordings; the first without it.
    grouped : bool
        See :func:`claims_in_words`.
    """
    evidence, none = (forms[0] if rng is None else _pick(forms, rng) for forms in (_EVIDENCE, _NO_SALIENT_FEATURE))
    said = claims_in_words(claims, grouped)
    return evidence.format(claims=said) if said else none


def claims_in_words(claims: Sequence[Claim], grouped: bool = False) -> str:
    """Claims side by side: "frontal beta very low, frontal theta low", or "frontal: beta very low, theta low".

    A model writes the first form, which repeats the words of its prompt; the second is shorter to read.

    Parameters
    ----------
    claims : sequence of Claim
        In the order in which they are written.
    grouped : bool
        Bands of one region share its name.
    """
    if not grouped:
        return ", ".join(map(str, claims))
    parts = []
    for region, group in itertools.groupby(claims, lambda claim: claim.feature.split()[0]
                                           if claim.feature not in WHOLE else claim.feature):
        said = ", ".join(str(claim).removeprefix(f"{region} ") if region in REGIONS else str(claim) for claim in group)
        parts.append(f"{region}: {said}" if region in REGIONS else said)
    return "; ".join(parts)


def _conclusion(segment: Segment, label_set: LabelSet, rng: np.random.Generator) -> str:
    evidence, conclusion = evidence_sentence(segment.claims, rng), _pick(_CONCLUSION, rng)
    if rng.uniform() < _BARE:
        return evidence
    feeling = f"This is {affect_words(segment.label, label_set)}. " if label_set.has_affect else ""
    return f"{evidence} {feeling}{conclusion.format(label=segment.label)}"


def _note(segment: Segment, axis: str) -> str:
    """What a thought keeps of one of several segments: its intensity if that is asked for, else its label."""
    return INTENSITIES[segment.intensity_level] if axis == "intensity" else segment.label


def _notes(segments: list[Segment], axis: str = "") -> str:
    notes = (f"{_note(segment, axis)} {letter}" for letter, segment in zip(LETTERS, segments, strict=False))
    return "Notes: " + ", ".join(notes) + "."


def listed(segments: list[Segment]) -> list[str | Segment]:
    """Question parts "A: <eeg> B: <eeg> …"."""
    return [part for letter, segment in zip(LETTERS, segments, strict=False) for part in (f" {letter}: ", segment)]


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[rng.integers(len(options))]


def predict(segment: Segment, label_set: LabelSet, rng: np.random.Generator, zero_shot: bool = False) -> Item:
    """Item that asks which of the labels a segment shows.

    Parameters
    ----------
    segment : Segment
        What is asked about.
    label_set : LabelSet
        Its labels are the options.
    rng : Generator
        Draws the wordings.
    zero_shot : bool
        Use the wordings that are never trained on.
    """
    question = _pick(ZERO_SHOT_WORDINGS if zero_shot else PREDICT_WORDINGS, rng).format(noun=label_set.noun)
    return _item("zero_predict" if zero_shot else "predict", 3 if zero_shot else 1, [segment, f" {question}"],
                 _conclusion(segment, label_set, rng), segment.label, list(label_set.labels))


def description(segment: Segment, label_set: LabelSet, rng: np.random.Generator,
                others: list[Segment] | None = None) -> Item:
    """Item that asks for the description of a segment; the other options describe segments with other labels.

    Parameters
    ----------
    segment, label_set, rng
        As for :func:`predict`.
    others : list of Segment, optional
        Segments of the other options.
    """
    options = [describe(other, label_set) for other in [segment, *(others or [])]]
    rng.shuffle(options)
    question = [segment, f" {_pick(DESCRIBE_WORDINGS, rng)}"]
    thought = evidence_sentence(segment.claims, rng)
    return _item("describe", 2, question, thought, describe(segment, label_set), options)


def compare(pair: list[Segment], axis: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Item that asks which of two segments is higher on an axis.

    Parameters
    ----------
    pair : list of Segment
        Two segments with different values.
    axis : str
        "valence", "arousal" or "intensity".
    label_set, rng
        As for :func:`predict`.
    """
    best = int(np.argmax([segment.value(axis, label_set) for segment in pair]))
    question = _pick(COMPARE_WORDINGS, rng).format(more=MORE[axis])
    thought = f"{_notes(pair, axis)} {MORE[axis].capitalize()}: {_note(pair[best], axis)} {LETTERS[best]}."
    return _item("compare", 2, [*listed(pair), f" {question}"], thought, LETTERS[best], ["A", "B"], axis)


def rank(group: list[Segment], axis: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Item that asks for the order of three or four segments on an axis.

    Parameters
    ----------
    group : list of Segment
        With different values.
    axis, label_set, rng
        As for :func:`compare`.
    """
    falling = np.argsort([-segment.value(axis, label_set) for segment in group], kind="stable")
    order = " > ".join(LETTERS[i] for i in falling)
    question = _pick(RANK_WORDINGS, rng).format(more=MORE[axis])
    ranked = " > ".join(f"{_note(group[i], axis)} {LETTERS[i]}" for i in falling)
    thought = f"{_notes(group, axis)} {MORE[axis].capitalize()}: {ranked}."
    options = [" > ".join(letters) for letters in itertools.permutations(LETTERS[: len(group)])]
    return _item("rank", 2, [*listed(group), f" {question}"], thought, order, options, axis)


def match(group: list[Segment], target: int, scenario: str, rng: np.random.Generator,
          zero_shot: bool = False) -> Item:
    """Item that asks which of three segments fits a scenario.

    Parameters
    ----------
    group : list of Segment
        With different labels.
    target : int
        Place of the segment that fits.
    scenario : str
        Text.
    rng, zero_shot
        As for :func:`predict`.
    """
    form = _pick(ZERO_MATCH_WORDINGS if zero_shot else MATCH_WORDINGS, rng)
    thought = f"{_notes(group)} The scenario fits {group[target].label} {LETTERS[target]}."
    return _item("zero_match" if zero_shot else "match", 3 if zero_shot else 2, [f"{scenario} {form}", *listed(group)],
                 thought, LETTERS[target], list(LETTERS[: len(group)]))


def select(group: list[Segment], target: int, words: list[str], rng: np.random.Generator) -> Item:
    """Item that asks which of some words fits a segment.

    Parameters
    ----------
    group : list of Segment
        With different labels.
    target : int
        Place of the segment that is in the prompt; no other is.
    words : list of str
        A word for the label of each segment.
    rng : Generator
        Draws the wording.
    """
    return _lettered("select", 2, group, target, words, _pick(SELECT_WORDINGS, rng))


def choose(group: list[Segment], target: int, texts: list[str], rng: np.random.Generator,
           zero_shot: bool = False) -> Item:
    """Item that asks which of some scenarios fits a segment.

    Parameters
    ----------
    group, target, rng
        As for :func:`select`.
    texts : list of str
        A scenario for the label of each segment.
    zero_shot : bool
        Use the wordings that are never trained on.
    """
    kind, tier = ("zero_choose", 3) if zero_shot else ("choose", 2)
    wordings = ZERO_CHOOSE_WORDINGS if zero_shot else CHOOSE_WORDINGS
    return _lettered(kind, tier, group, target, texts, _pick(wordings, rng))


def _lettered(kind: str, tier: int, group: list[Segment], target: int, texts: list[str], form: str) -> Item:
    """A segment and lettered texts, one of which belongs to it."""
    listing = " ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, texts, strict=False))
    fits = ", ".join(f"{segment.label} {letter}" for letter, segment in zip(LETTERS, group, strict=False))
    thought = f"Notes: {fits}. The segment shows {group[target].label} {LETTERS[target]}."
    return _item(kind, tier, [group[target], f" {form} {listing}"], thought, LETTERS[target],
                 list(LETTERS[: len(texts)]))


def scenario_question(label: str, text: str, label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Text-only item that asks which label fits a scenario.

    Parameters
    ----------
    label, text : str
        Answer, and scenario.
    label_set, rng
        As for :func:`predict`.
    """
    return _item("scenario", 0, [f"{text} {_pick(SCENARIO_WORDINGS, rng)}"], f"The scenario fits {label}.", label,
                 list(label_set.labels))


def _drill(label_set: LabelSet, rng: np.random.Generator) -> Item:
    """Text-only item that asks to repeat random words.

    Copying needs the same circuit as a comparison of segments ("what came after this word before?"), and a new
    language model learns it quickest this way.
    """
    words = [*label_set.labels, *INTENSITIES, *REGIONS, *BANDS, *LETTERS, "low", "high", "more", "fits", "shows"]
    chosen = " ".join(words[i] for i in rng.choice(len(words), size=20, replace=False))
    return _item("drill", 0, [f"Notes: {chosen}"], "", f"Notes: {chosen}", [])


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
    seed : int or list of int
        Same seed, same items.
    """

    def __init__(self, segments: list[Segment], label_set: LabelSet, seed: int | list[int]) -> None:
        self.segments, self.label_set = segments, label_set
        self.rng = np.random.default_rng(seed)
        self.by_label = {label: [s for s in segments if s.label == label] for label in label_set.labels}
        self.by_label = {label: found for label, found in self.by_label.items() if found}
        self.most_in_order = max(map(self._in_order, MIN_GAP)) if label_set.has_affect else 0
        self.has_scenarios = len(self.by_label) >= 3 and set(label_set.labels) <= set(scenarios.emotions())

    @classmethod
    def of_part(cls, corpus: Corpus, part: str, seed: int) -> ItemBuilder:
        """Builder of items from one part of a dataset's split.

        Parameters
        ----------
        corpus : Corpus
            Dataset.
        part : str
            "train", "val" or "test".
        seed : int
            Same seed, same items.
        """
        return cls(segments_of(corpus, getattr(corpus.split, part)), corpus.label_set, seed)

    def _in_order(self, axis: str) -> int:
        """How many segments can have a clear order on an axis."""
        chosen: list[float] = []
        for value in sorted({value for segment in self.segments
                             if not np.isnan(value := segment.value(axis, self.label_set))}):
            if not chosen or value - chosen[-1] >= MIN_GAP[axis]:
                chosen.append(value)
        return len(chosen)

    def kinds(self) -> dict[str, Callable[[], Item]]:
        """The kinds that this source can serve; those about valence, arousal or scenarios need coordinates."""
        served = {"predict": self.predict, "describe": self.describe, "zero_predict": self.zero_predict}
        if len(self.by_label) < 2:
            del served["describe"]  # there is no other description
        if len(self.by_label) >= 2:
            served["select"] = self.select
        if self.most_in_order >= 2:
            served["compare"] = self.compare
        if self.most_in_order >= 3:
            served["rank"] = self.rank
        if self.has_scenarios:
            served |= {"match": self.match, "choose": self.choose, "zero_match": self.zero_match,
                       "zero_choose": self.zero_choose}
        return served

    def left_out(self) -> dict[str, str]:
        """The kinds that this source cannot serve, each with its one reason."""
        served, set_of, few = self.kinds(), self.label_set, "its windows have one label only"
        untold = [label for label in set_of.labels if label not in scenarios.emotions()]
        lacking = " and ".join(axis for axis in ("valence", "arousal") if not getattr(set_of, axis))
        order = f"its labels have no {lacking}" if lacking else "its windows are too alike to be put in order"
        told = f"there are no scenarios for {', '.join(untold)}" if untold else "its windows have two labels or one"
        reasons = {"describe": few, "select": few, "compare": order, "rank": order,
                   **dict.fromkeys(("match", "choose", "zero_match", "zero_choose"), told)}
        return {kind: reason for kind, reason in reasons.items() if kind not in served}

    def draw(self, kind: str, n: int) -> list[Item]:
        """Items of one kind.

        Parameters
        ----------
        kind : str
            One of :meth:`kinds`.
        n : int
            How many.

        Raises
        ------
        ValueError
            If this source cannot serve the kind.
        """
        known = self.kinds()
        if kind not in known:
            raise ValueError(f"Label set '{self.label_set.name}' cannot serve items of kind '{kind}', for "
                             f"{self.left_out().get(kind, 'there is no such kind')}; it serves {', '.join(known)}.")
        return [known[kind]() for _ in range(n)]

    def _any(self, but: Set[str] = frozenset()) -> Segment:
        labels = [label for label in self.by_label if label not in but]
        pool = self.by_label[labels[self.rng.integers(len(labels))]]
        return pool[self.rng.integers(len(pool))]

    def predict(self) -> Item:
        """Item of :func:`predict`."""
        return predict(self._any(), self.label_set, self.rng)

    def zero_predict(self) -> Item:
        """Item of :func:`predict` in a zero-shot wording."""
        return predict(self._any(), self.label_set, self.rng, zero_shot=True)

    def describe(self) -> Item:
        """Item of :func:`description`."""
        segment, *others = self._distinct(min(4, len(self.by_label)))
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
        """Item of :func:`compare`."""
        group, axis = self._apart(2)
        return compare(group, axis, self.label_set, self.rng)

    def rank(self) -> Item:
        """Item of :func:`rank`."""
        group, axis = self._apart(min(3 + int(self.rng.uniform() < 0.25), self.most_in_order))
        return rank(group, axis, self.label_set, self.rng)

    def _distinct(self, n: int) -> list[Segment]:
        """``n`` segments with different labels."""
        group: list[Segment] = []
        for _ in range(n):
            group.append(self._any({segment.label for segment in group}))
        return group

    def _scenario(self, label: str, stratum: str | None) -> Scenario:
        """A training scenario of a label, or a zero-shot one of a stratum."""
        texts = scenarios.zero_shot_scenarios(label, stratum) if stratum else scenarios.training_scenarios(label)
        return texts[self.rng.integers(len(texts))]

    def _told(self, labels: list[str], stratum: str | None, about_eeg: bool) -> list[Scenario]:
        """A scenario of each label; about EEG, half of the training scenarios are brief.

        Tuned with long texts alone, the model misreads short ones that stand side by side.
        """
        if stratum or not about_eeg or self.rng.integers(2):
            return [self._scenario(label, stratum) for label in labels]
        found = map(scenarios.training_scenarios, labels)
        return [texts.brief(int(self.rng.integers(len(texts)))) for texts in found]

    def _stratum(self, zero_shot: bool) -> str | None:
        return _pick(scenarios.STRATA, self.rng) if zero_shot else None

    def match(self, zero_shot: bool = False) -> Item:
        """Item of :func:`match`."""
        group = self._distinct(3)
        target, stratum = int(self.rng.integers(3)), self._stratum(zero_shot)
        (scenario,) = self._told([group[target].label], stratum, group[target].window is not None)
        item = match(group, target, scenario.text, self.rng, zero_shot)
        return replace(item, texts=[scenario.identity], stratum=stratum)

    def zero_match(self) -> Item:
        """Item of :func:`match` with a zero-shot scenario and wording."""
        return self.match(zero_shot=True)

    def select(self) -> Item:
        """Item of :func:`select`."""
        group = self._distinct(min(3, len(self.by_label)))
        words = [self._word(segment.label) for segment in group]
        return select(group, int(self.rng.integers(len(group))), words, self.rng)

    def _word(self, label: str) -> str:
        words = [label, *(scenarios.feelings(label) if self.has_scenarios else ())]
        return words[self.rng.integers(len(words))]

    def choose(self, zero_shot: bool = False) -> Item:
        """Item of :func:`choose`; its scenarios are of one stratum."""
        group, stratum = self._distinct(3), self._stratum(zero_shot)
        texts = self._told([segment.label for segment in group], stratum, group[0].window is not None)
        item = choose(group, int(self.rng.integers(3)), [text.text for text in texts], self.rng, zero_shot)
        return replace(item, texts=[text.identity for text in texts], stratum=stratum)

    def zero_choose(self) -> Item:
        """Item of :func:`choose` with zero-shot scenarios and wording."""
        return self.choose(zero_shot=True)

    def scenario(self) -> Item:
        """Item of :func:`scenario_question`."""
        label = list(self.by_label)[self.rng.integers(len(self.by_label))]
        scenario = self._scenario(label, None)
        return replace(scenario_question(label, scenario.text, self.label_set, self.rng), texts=[scenario.identity])


class OneSubjectBuilder:
    """Draws items of one subject each: all its segments, also those that are only described, are of that subject.

    For evaluation. What a model knows of the subject is then true of every option, and earns nothing. It matters most
    under population statistics: there the evidence of a window identifies its subject, and the description of another
    subject's window could be excluded without this window.

    Parameters
    ----------
    segments, label_set, seed
        As for :class:`ItemBuilder`.
    """

    def __init__(self, segments: list[Segment], label_set: LabelSet, seed: int | list[int]) -> None:
        self.label_set, self.rng = label_set, np.random.default_rng(seed)
        people = sorted({segment.subject for segment in segments})
        self.builders = [ItemBuilder([s for s in segments if s.subject == who], label_set, seed) for who in people]
        for builder in self.builders:
            builder.rng = self.rng

    @classmethod
    def of_test(cls, corpus: Corpus, seed: int | list[int]) -> OneSubjectBuilder:
        """Builder of the items of tiers 2 and 3: of a dataset's test part, each item of one subject.

        Parameters
        ----------
        corpus : Corpus
            The dataset.
        seed : int or list of int
            Of the items.
        """
        return cls(segments_of(corpus, corpus.split.test), corpus.label_set, seed)

    def kinds(self) -> list[str]:
        """The kinds that the windows of at least one subject can serve."""
        return list(dict.fromkeys(kind for builder in self.builders for kind in builder.kinds()))

    def left_out(self) -> dict[str, str]:
        """The kinds that nobody's windows can serve, each with its one reason."""
        served = self.kinds()
        return {kind: reason for builder in self.builders for kind, reason in builder.left_out().items()
                if kind not in served}

    def draw(self, kind: str, n: int) -> list[Item]:
        """Items of one kind, of subjects who can serve it.

        Parameters
        ----------
        kind : str
            One of :meth:`kinds`.
        n : int
            Number of items.

        Raises
        ------
        ValueError
            If no subject can serve the kind.
        """
        able = [builder for builder in self.builders if kind in builder.kinds()]
        if not able:
            raise ValueError(f"No subject's windows serve items of kind '{kind}' with label set "
                             f"'{self.label_set.name}', for {self.left_out().get(kind, 'there is no such kind')}; they "
                             f"serve {', '.join(self.kinds())}.")
        return [item for _ in range(n) for item in able[self.rng.integers(len(able))].draw(kind, 1)]


def drill_items(label_set: LabelSet, n: int, seed: int) -> list[Item]:
    """Copying drills, the first training of a small language model: repeat random words.

    Parameters
    ----------
    label_set : LabelSet
        Its labels are among the words.
    n, seed : int
        Number of items, and seed of the draws.
    """
    rng = np.random.default_rng(seed)
    return [_drill(label_set, rng) for _ in range(n)]


def text_items(label_set: LabelSet, n: int, seed: int, scale: Scale = LOW_HIGH) -> list[Item]:
    """Items in words alone, from which a fresh language model learns the tasks and which emotion fits which scenario.

    No zero-shot scenario and no zero-shot question form is among them.

    Parameters
    ----------
    label_set : LabelSet
        Labels that the items are about.
    n, seed : int
        Number of items, and seed of the draws.
    scale : Scale
        Levels of the claims in them.
    """
    rng = np.random.default_rng(seed)
    builder = ItemBuilder(imagined_segments(label_set, max(64, n // 2), rng, scale), label_set, seed)
    makers, served = [builder.predict, builder.describe], builder.kinds()
    if builder.has_scenarios:
        makers += [builder.scenario] * 3
    makers += [served[kind] for kind in ("select", "compare", "rank", "match", "choose") if kind in served]
    return [makers[i % len(makers)]() for i in range(n)]


def write_items(items: list[Item], path: str | Path) -> None:
    """Write items as JSON lines.

    Parameters
    ----------
    items : list of Item
        One line each.
    path : str or path
        File to write.
    """
    Path(path).write_text("".join(json.dumps(item.__dict__, ensure_ascii=False) + "\n" for item in items),
                          encoding="utf-8")


def read_items(path: str | Path) -> list[Item]:
    """Items of a file that :func:`write_items` wrote."""
    return [Item(**json.loads(line)) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def parse_answer(text: str, options: list[str]) -> str | None:
    """Answer in generated text: what stands after the thought, if it is exactly one of the options, else None.

    Parameters
    ----------
    text : str
        Generated text.
    options : list of str
        Possible answers; case and a final period do not count.
    """
    answer = text.rsplit(END_THINK, 1)[-1].strip().rstrip(".").strip()
    wanted = {option.rstrip(".").lower(): option for option in options}
    return wanted.get(answer.lower())


def prediction_items(corpus: Corpus, rows: np.ndarray, seed: int) -> list[Item]:
    """One tier-1 question for every given window, in their order.

    Parameters
    ----------
    corpus : Corpus
        Dataset.
    rows : ndarray of int, shape (n,)
        Window ids.
    seed : int
        Of the wordings.
    """
    rng = np.random.default_rng(seed)
    return [predict(segment, corpus.label_set, rng) for segment in segments_of(corpus, rows)]


def question_text(item: Item) -> str:
    """The question of an item with a mark where its EEG stands."""
    parts = item.messages[0]["content"]
    return "".join("⟨EEG⟩" if part["type"] == "eeg" else part["text"] for part in parts).strip()


def item_text(item: Item) -> str:
    """Plain text of an item without EEG, for a tokenizer to learn from."""
    return "".join(part.get("text", "") for part in item.messages[0]["content"]) + f" {item.response(True)}"
