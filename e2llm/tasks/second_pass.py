"""Questions of the second pass: an answer from what a thought states, without EEG and without the thought's own words.

The first pass writes a thought about each segment. Its claims, and nothing else, go to a fresh prompt in canonical form
(:mod:`e2llm.tasks.level_table`). So the wording of a thought, its conclusion and the EEG cannot reach the answer. What
the second pass reads of a segment, its state and its claims, then stands for the segment in other questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from ..core.chat import Item
from ..core.claims import Claims, EvidenceNames
from ..core.labels import LabelSet
from .items import CLAIM_KINDS, affect_words
from .level_table import level_table
from .segments import INTENSITIES, Segment
from .wordings import PREDICT_WORDINGS


class Asked(StrEnum):
    """What the second pass reads from the levels of a segment."""

    LABEL = "label"
    AFFECT = "affect"  # "unpleasant and activated"
    INTENSITY = "intensity"


def options_of(asked: Asked, label_set: LabelSet) -> list[str]:
    """The closed set of answers.

    Parameters
    ----------
    asked : Asked
        What is read.
    label_set : LabelSet
        Its labels, and the words for their valence and arousal.
    """
    if asked is Asked.LABEL:
        return list(label_set.labels)
    if asked is Asked.INTENSITY:
        return list(INTENSITIES)
    return list(dict.fromkeys(affect_words(label, label_set) for label in label_set.labels))


_QUESTIONS = {Asked.LABEL: PREDICT_WORDINGS[0], Asked.AFFECT: "Is it pleasant, and is it activated?",
              Asked.INTENSITY: "How strong is it?"}


def level_item(asked: Asked, claims: Claims, names: EvidenceNames, label_set: LabelSet, answer: str = "") -> Item:
    """Item about the levels that a thought states; its question has one wording, so that none can hint at the answer.

    Parameters
    ----------
    asked : Asked
        What is read.
    claims : sequence of Claim
        Of the thought about one segment.
    names : EvidenceNames
        What was measured, and the scale of the claims.
    label_set : LabelSet
        Gives the options.
    answer : str
        Where it is known.
    """
    text = f"{level_table(claims, names)} {_QUESTIONS[asked].format(noun=label_set.noun)}"
    return Item(f"levels_{asked}", 0, [{"role": "user", "content": [{"type": "text", "text": text}]}], "", answer,
                options_of(asked, label_set))


def in_words(item: Item, read: Mapping[int, Segment]) -> Item:
    """The item with words in place of its EEG.

    Parameters
    ----------
    item : Item
        About windows.
    read : mapping of int to Segment
        What was read of each window: a segment that exists only in words.
    """
    def words(part: dict) -> dict:
        if part["type"] != "eeg":
            return part
        segment = replace(read[part["window"]], window=None)
        return segment.part(item.kind in CLAIM_KINDS or segment.scale.in_every_prompt)

    messages = [{**message, "content": [words(part) for part in message["content"]]} for message in item.messages]
    return replace(item, messages=messages, windows=[])
