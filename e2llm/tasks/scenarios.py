"""Everyday scenarios that evoke an emotion without naming it.

The texts are in ``e2llm/tasks/scenarios.yaml``. Training scenarios are expanded from frames with
slots; zero-shot scenarios are handwritten situations that no frame can produce.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import resources
from itertools import product
from string import Formatter
from typing import Any

import yaml

_FILE = resources.files("e2llm.tasks") / "scenarios.yaml"
_KEYS = {"feelings", "frames", "slots", "zero_shot"}


def emotions() -> tuple[str, ...]:
    """Return the emotions that have scenarios, in file order."""
    return tuple(_load())


def feelings(emotion: str) -> list[str]:
    """Return the words people use for `emotion`; no two emotions share one."""
    return list(_entry(emotion)["feelings"])


def zero_shot_scenarios(emotion: str) -> list[str]:
    """Return the held-out scenarios of `emotion`, which must never be trained on."""
    return list(_entry(emotion)["zero_shot"])


def training_scenarios(emotion: str) -> list[str]:
    """Return the training scenarios of `emotion`: distinct sentences in file order."""
    return list(_expand(emotion))


def _entry(emotion: str) -> dict[str, Any]:
    data = _load()
    if emotion not in data:
        raise ValueError(f"unknown emotion {emotion!r}; use one of: {', '.join(data)}")
    return data[emotion]


@lru_cache(maxsize=1)
def _load() -> dict[str, dict[str, Any]]:
    data = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    _validate(data)
    return data


@cache
def _expand(emotion: str) -> tuple[str, ...]:
    entry = _entry(emotion)
    sentences = []
    for frame in entry["frames"]:
        names = _slot_names(frame)
        for words in product(*(entry["slots"][name] for name in names)):
            sentences.append(frame.format(**dict(zip(names, words, strict=True))))
    return tuple(dict.fromkeys(sentences))  # distinct, and still in file order


def _slot_names(frame: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(frame) if name is not None]


def _validate(data: Any) -> None:
    """Raise ValueError, naming the file and the fact, for content the functions above cannot serve."""

    def require(condition: bool, fact: str) -> None:
        if not condition:
            raise ValueError(f"{_FILE.name}: {fact}")

    def require_texts(texts: Any, where: str) -> None:
        require(isinstance(texts, list) and bool(texts), f"{where} must be a non-empty list")
        for text in texts:
            # YAML reads a bare `no` or `12` as a boolean or a number.
            require(isinstance(text, str) and text.isascii(), f"{where} holds {text!r}, not ASCII text")
        require(len(set(texts)) == len(texts), f"{where} repeats an entry")

    require(isinstance(data, dict) and bool(data), "must map each emotion to its texts")
    emotion_of: dict[str, str] = {}
    for emotion, entry in data.items():
        require(isinstance(entry, dict) and set(entry) == _KEYS, f"{emotion} needs the keys {sorted(_KEYS)}")
        slots = entry["slots"]
        require(isinstance(slots, dict), f"{emotion}.slots must map names to lists")
        for key in sorted(_KEYS - {"slots"}):
            require_texts(entry[key], f"{emotion}.{key}")
        for name, words in slots.items():
            require_texts(words, f"{emotion}.slots.{name}")
        for text in entry["frames"] + entry["zero_shot"]:
            require(text.endswith("."), f"{emotion} has a sentence without a period: {text!r}")
        used = {name for frame in entry["frames"] for name in _slot_names(frame)}
        require(used == set(slots), f"{emotion} frames and slots disagree on {sorted(used ^ set(slots))}")
        for feeling in entry["feelings"]:
            other = emotion_of.setdefault(feeling, emotion)
            require(other == emotion, f"feeling {feeling!r} belongs to both {other} and {emotion}")
