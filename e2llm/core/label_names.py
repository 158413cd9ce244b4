"""Which labels can be carried through every stage: tables, prompts, thoughts and answers.

A label is written into chat prompts and sentences, and read back from tables and from what a model says. Most texts
survive that as they are, also ``NA``, ``None`` or ``1``. What would be taken for something else on the way is refused
where the labels are first seen: no stage has to guess.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from .chat import LETTERS

_longest = 60  # letters
_marks = re.compile(r"[<>|\[\]{}]")  # of special tokens, segments and HTML
_ends = re.compile(r"[.!?*`\"“”\n\r]")  # what ends a sentence of a thought, or is left out of it


def check_labels(labels: Sequence[str]) -> None:
    """Refuse labels that some stage would take for something else.

    Parameters
    ----------
    labels : sequence of str
        All labels of a source.

    Raises
    ------
    ValueError
        Naming the label, the reason, and what to write instead.
    """
    for label in labels:
        if fault := _fault(label):
            raise ValueError(f"The label {label!r:.80} {fault}: give it another name.")
    for label in labels:
        same = [other for other in labels if _plain(other) == _plain(label)]
        if len(same) > 1:
            raise ValueError(f"The labels {', '.join(map(repr, same))} differ only in case, blanks or the form of "
                             "letters, and an answer could not be told from another: write each of them in one way.")


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def _fault(label: str) -> str:
    """Why a label cannot be carried; empty if it can."""
    if not isinstance(label, str):
        return f"is a {type(label).__name__} and no text"
    if not label.strip():
        return "is blank"
    if label != " ".join(label.split()):
        return "has blanks at its ends, or several in a row"
    if len(label) > _longest:
        return f"has {len(label)} letters, more than {_longest}"
    if found := _marks.search(label):
        return f"has {found[0]!r}, which marks special tokens and segments of a prompt"
    if found := _ends.search(label):
        return f"has {found[0]!r}, which ends a sentence or is left out of it"
    if label.count("$") > 1:
        return "has two '$', between which figures read a formula"
    if not all(sign.isprintable() for sign in label):
        return "has a sign that cannot be printed"
    if not any(sign.isalnum() for sign in label):
        return "has no letter and no digit"
    if label.upper() in LETTERS:
        return f"is one of the letters {', '.join(LETTERS)}, which name the segments of a question"
    return ""
