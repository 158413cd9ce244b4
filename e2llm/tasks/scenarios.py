"""Texts of everyday situations that evoke an emotion without naming it.

The situations are in ``e2llm/tasks/corpus/``, one file an emotion. :mod:`.grammar` makes many training texts of each.
Zero-shot texts are finished sentences in three strata, ever further from training: new sentences of known words,
sentences whose content words training never has, and kinds of events that no training text is about.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import yaml

from .grammar import ACTORS, REGISTERS, SETTINGS, choices, compose

EMOTIONS = ("happy", "surprise", "neutral", "disgust", "fear", "sad", "anger")
STRATA = ("known words", "unseen words", "unseen situations")  # of the zero-shot texts
VARIANTS = 1000  # training texts of each situation
LENGTHS = (10, 16)  # words: situations that are shorter than a number drawn from here get a setting
OUTCOME_SHARE = 0.3  # of the training texts that also tell an outcome
_FILES = tuple(resources.files("e2llm.tasks") / "corpus" / f"{emotion}.yaml" for emotion in EMOTIONS)
_KEYS = {"feelings", "situations", "outcomes", "zero_shot"}
# Emotions, the words of `feelings`, and what is derived from them: no text holds one.
_NAMING = re.compile(
    r"\b(?:emotion|feelings?\b|(?:un)?happ(?:y|i)|joy|glad(?:ly|ness)?\b|cheerful|delight|elat(?:ed|ion)|merr(?:y|i)|"
    r"pleas(?:ed|ure)|"
    r"surpris|astonish|amaz(?:e|ing)|startl|stun(?:s|n)|astound|bewilder|shock|"
    r"neutral|calm|indifferen|unmoved|compos(?:ed|ure)\b|impassiv|detached|unemotional|dispassion|"
    r"disgust|revolt|repuls|naus|sicken|revuls|queas|repel|"
    r"fear|afraid|scar(?:e|ed|es|y|ing)\b|terr(?:or|ify|ifi)|fright|anxi|panic|horr(?:or|i)|dread|"
    r"sad(?:ly|ness|der|den)?\b|sorrow|gloom|heartbr|miser(?:y|ies|abl)|mourn|grie(?:f|v)|downcast|"
    r"ang(?:er|r)|furi|fury|irrit|outrag|enrag|annoy|rag(?:e|es|ing)\b|irate)",
    re.IGNORECASE,
)


class Scenario(NamedTuple):
    """A text, with what is known about it.

    Parameters
    ----------
    text : str
        One to three sentences.
    identity : str
        What it is about: "fear/17" for every training text of the 17th situation, or "fear/unseen words/17". Two texts
        of one identity are not independent.
    stratum : str or None
        One of :data:`STRATA`; None for training texts.
    register, actor, tense : str
        How a training text is told; empty for zero-shot texts.
    """

    text: str
    identity: str
    stratum: str | None = None
    register: str = ""
    actor: str = ""
    tense: str = ""


class TrainingScenarios(Sequence[Scenario]):
    """The training texts of one emotion, each made when it is asked for.

    Text ``i`` tells situation ``i % n_situations``. The draws of its register, person, tense and choices depend on
    the emotion and ``i`` alone, and not on the text: how a text is told says nothing about the emotion.
    """

    def __init__(self, emotion: str) -> None:
        entry = _entry(emotion)
        self.emotion = emotion
        self.situations: list[str] = [text for texts in entry["situations"].values() for text in texts]
        self.outcomes: list[str] = entry["outcomes"]

    @property
    def n_situations(self) -> int:
        """Number of situations that were written."""
        return len(self.situations)

    def __len__(self) -> int:
        return self.n_situations * VARIANTS

    def __getitem__(self, index: int) -> Scenario:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(f"'{self.emotion}' has {len(self)} training texts; there is no number {index}.")
        variant, situation = divmod(int(index) % len(self), self.n_situations)
        rng = random.Random(f"{self.emotion}/{situation}/{variant}")
        register = rng.choice(REGISTERS)
        person, tense = rng.choice(register.persons), rng.choice(register.tenses)
        actor = rng.choice([actor for actor in ACTORS if actor.person == person])
        body = _lengthened(self.situations[situation], rng.randint(*LENGTHS), rng)
        if rng.random() < OUTCOME_SHARE:
            body += f". {rng.choice(self.outcomes)}"
        text = compose(body, register, actor, tense, rng)
        return Scenario(text, f"{self.emotion}/{situation}", None, register.name, actor.name, tense)

    def brief(self, index: int) -> Scenario:
        """The situation of text ``index`` without setting, outcome or register: as long as a zero-shot text."""
        situation = index % self.n_situations
        rng = random.Random(f"brief/{self.emotion}/{index}")
        register = next(register for register in REGISTERS if register.name == "plain")
        actor, tense = rng.choice(ACTORS), rng.choice(register.tenses)
        text = compose(self.situations[situation], register, actor, tense, rng)
        return Scenario(text, f"{self.emotion}/{situation}", None, register.name, actor.name, tense)

    def __iter__(self) -> Iterator[Scenario]:
        return (self[i] for i in range(len(self)))


def _lengthened(situation: str, length: int, rng: random.Random) -> str:
    """The situation with the setting that brings it nearest to ``length`` words, if it is shorter."""
    missing = length - len(re.sub(r"\|[^\]]*", "", situation).split())
    if missing < 2:
        return situation
    nearest = min(abs(len(setting.split()) - missing) for setting in SETTINGS)
    fitting = [setting for setting in SETTINGS if abs(len(setting.split()) - missing) == nearest]
    return f"{situation}, {rng.choice(fitting)}"


def emotions() -> tuple[str, ...]:
    """Return the emotions that have scenarios."""
    return EMOTIONS


def feelings(emotion: str) -> list[str]:
    """Return the words people use for `emotion`; no two emotions share one."""
    return list(_entry(emotion)["feelings"])


def training_scenarios(emotion: str) -> TrainingScenarios:
    """Return the training texts of `emotion`, which are made when they are asked for."""
    _entry(emotion)
    return _training(emotion)


def zero_shot_scenarios(emotion: str, stratum: str | None = None) -> list[Scenario]:
    """Return the held-out texts of `emotion`, which must never be trained on.

    Parameters
    ----------
    emotion : str
        One of :func:`emotions`.
    stratum : str, optional
        One of :data:`STRATA`; without it the texts of all three.
    """
    if stratum is not None and stratum not in STRATA:
        raise ValueError(f"unknown stratum {stratum!r}; use one of: {', '.join(STRATA)}")
    texts = _entry(emotion)["zero_shot"]
    return [Scenario(text, f"{emotion}/{name}/{i}", name)
            for name in STRATA if stratum in (None, name) for i, text in enumerate(texts[name])]


def _entry(emotion: str) -> dict[str, Any]:
    data = _load()
    if emotion not in data:
        raise ValueError(f"unknown emotion {emotion!r}; use one of: {', '.join(data)}")
    return data[emotion]


@lru_cache(maxsize=len(EMOTIONS))
def _training(emotion: str) -> TrainingScenarios:
    return TrainingScenarios(emotion)


@lru_cache(maxsize=1)
def _load() -> dict[str, dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, where PyYAML was built with it
    data = {}
    for file in _FILES:
        emotion = file.name.removesuffix(".yaml")
        data[emotion] = yaml.load(file.read_text(encoding="utf-8"), loader)
        _validate(data[emotion], file.name)
    return data


def _validate(entry: Any, file: str) -> None:
    """Raise ValueError, naming the file and the fact, for content the functions above cannot serve."""

    def require(condition: bool, fact: str) -> None:
        if not condition:
            raise ValueError(f"{file}: {fact}")

    def require_texts(texts: Any, where: str) -> None:
        require(isinstance(texts, list) and bool(texts), f"{where} must be a non-empty list")
        for text in texts:
            # YAML reads a bare `no` or `12` as a boolean or a number.
            require(isinstance(text, str) and text.isascii(), f"{where} holds {text!r}, not ASCII text")
            require(where == "feelings" or not _NAMING.search(text), f"{where} names an emotion: {text!r}")
        require(len(set(texts)) == len(texts), f"{where} repeats an entry")

    require(isinstance(entry, dict) and set(entry) == _KEYS, f"needs the keys {sorted(_KEYS)}")
    require_texts(entry["feelings"], "feelings")
    require_texts(entry["outcomes"], "outcomes")
    for key in ("situations", "zero_shot"):
        require(isinstance(entry[key], dict) and bool(entry[key]), f"{key} must map names to lists")
        for name, texts in entry[key].items():
            require_texts(texts, f"{key}.{name}")
    require(tuple(entry["zero_shot"]) == STRATA, f"zero_shot needs the strata {STRATA}")
    for text in [*entry["outcomes"], *(text for texts in entry["situations"].values() for text in texts)]:
        require(not text.endswith("."), f"a period follows a situation by itself: {text!r}")
        require(all(len(found) > 1 for found in choices(text)), f"a choice needs two options: {text!r}")
    for texts in entry["zero_shot"].values():
        for text in texts:
            require(text.endswith((".", "!", "?", '"')), f"a zero-shot text has no end: {text!r}")
