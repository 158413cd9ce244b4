"""All levels of a window in one line, always in the same order: what an answer from the thought alone is read from.

"Levels: frontal 44127, central 44444, temporal 44444, parietal 45444, occipital 42444, other 4464." Each digit is one
token: from 1, the lowest level, over 4, typical or not stated, to 7. A row of a region goes from delta to gamma. The
row "other" holds :data:`e2llm.core.claims.WHOLE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..core.bands import BANDS
from ..core.chat import Item
from ..core.claims import GRADED, WHOLE, Claims, EvidenceNames
from ..core.montage import REGIONS
from ..core.verdicts import claim_values
from .thought_parser import FEATURES

_TYPICAL, _STEPS = 4, 3  # the digit in the middle, and digits to each side of it
DIGITS = tuple(str(digit) for digit in range(_TYPICAL - _STEPS, _TYPICAL + _STEPS + 1))
_ROWS = {**dict.fromkeys(REGIONS, len(BANDS)), "other": len(WHOLE)}
_READERS_QUESTION = "What do the readers say?"


def table_of_digits(digits: np.ndarray) -> str:
    """The line of one window.

    Parameters
    ----------
    digits : ndarray of int, shape (n_features,)
        From 1 to 7, in the order of :data:`e2llm.tasks.thought_parser.FEATURES`.
    """
    ends = np.cumsum(list(_ROWS.values()))[:-1]
    rows = (f"{name} {''.join(map(str, row))}" for name, row in zip(_ROWS, np.split(digits, ends), strict=True))
    return f"Levels: {', '.join(rows)}."


def level_table(claims: Claims, names: EvidenceNames) -> str:
    """Claims in canonical form: their order and their wording are gone.

    Parameters
    ----------
    claims : sequence of Claim
        About one window. What is stated at contradicting levels counts as not stated.
    names : EvidenceNames
        What was measured, and the scale of the claims.
    """
    digits = np.full(len(FEATURES), _TYPICAL)
    values = _TYPICAL + np.rint(_STEPS * claim_values(claims, names)).astype(int)
    digits[[FEATURES.index(column) for column in names.columns]] = values
    return table_of_digits(digits)


@dataclass(frozen=True)
class Readers:
    """Rules that read one word from a table: the largest of linear functions of its digits.

    A language model that was taught a dozen of them learns a further rule from little training. They are drawn at
    random: nothing in them links evidence with emotions.

    Parameters
    ----------
    words : list of list of str
        What each reader may say.
    weights : ndarray, shape (n_readers, n_features, n_words)
        Of the functions.
    """

    words: list[list[str]]
    weights: np.ndarray

    @classmethod
    def draw(cls, words: list[str], n: int, n_words: int, rng: np.random.Generator) -> Readers:
        """Random readers.

        Parameters
        ----------
        words : list of str
            Theirs are drawn from these; no two readers share a word.
        n, n_words : int
            Number of readers, and of words of each.
        rng : Generator
            Source of the draws.
        """
        chosen = rng.choice(words, size=(n, n_words), replace=False)
        return cls(chosen.tolist(), rng.normal(size=(n, len(FEATURES), n_words)))

    def say(self, digits: np.ndarray) -> str:
        """What the readers say of a table, one after the other."""
        best = np.einsum("f,rfw->rw", digits - _TYPICAL, self.weights).argmax(axis=1)
        return " ".join(words[i] for words, i in zip(self.words, best, strict=True))

    def items(self, rng: np.random.Generator) -> Iterator[Item]:
        """Text-only items without end: a random table, and what the readers say of it.

        Parameters
        ----------
        rng : Generator
            Source of the tables.
        """
        while True:
            z = rng.normal(size=len(FEATURES)) * rng.uniform(0.6, 1.8)
            digits = GRADED.index(z) + 1
            question = [{"type": "text", "text": f"{table_of_digits(digits)} {_READERS_QUESTION}"}]
            yield Item("readers", 0, [{"role": "user", "content": question}], "", self.say(digits), [])
