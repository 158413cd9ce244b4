"""A table says what is claimed, in one order and one wording; the readers of the teaching read it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from e2llm.core.bands import BANDS
from e2llm.core.claims import GRADED, LOW_HIGH, Claim, EvidenceNames
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS
from e2llm.tasks.items import evidence_sentence
from e2llm.tasks.level_table import Readers, level_table, table_of_digits
from e2llm.tasks.segments import imagined_segments
from e2llm.tasks.thought_parser import FEATURES, parse

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS), GRADED)
CLAIMS = (Claim("frontal beta", "very low"), Claim("frontal gamma", "rather high"),
          Claim("occipital alpha", "clearly low"), Claim("spectral slope", "very high"))


def test_a_table_by_hand():
    assert level_table(CLAIMS, NAMES) == ("Levels: frontal 44415, central 44444, temporal 44444, parietal 44444, "
                                          "occipital 44244, other 4744.")
    assert level_table((), NAMES) == table_of_digits(np.full(len(FEATURES), 4))


def digits_of(table: str) -> list[int]:
    return [int(letter) for letter in table if letter.isdigit()]


@pytest.mark.parametrize("names", [NAMES, EvidenceNames(NAMES.pairs, LOW_HIGH)], ids=["graded", "low_high"])
def test_every_level_has_its_digit_at_the_place_of_its_feature(names):
    found = set()
    for i, feature in enumerate(FEATURES):
        for level in names.scale.words:
            digits = digits_of(level_table([Claim(feature, level)], names))
            assert all(digit == 4 for place, digit in enumerate(digits) if place != i) and len(digits) == 29
            found.add((level, digits[i]))
    levels = ("very low", "clearly low", "rather low", "typical", "rather high", "clearly high", "very high")
    graded = {level: i for i, level in enumerate(levels, start=1)}
    assert found == set((graded if names.scale is GRADED else {"low": 1, "typical": 4, "high": 7}).items())


def test_a_source_that_lacks_features_has_the_same_table():
    few = EvidenceNames((("alpha", "occipital"),), GRADED)
    assert level_table([CLAIMS[2], CLAIMS[3]], few) == level_table([CLAIMS[2], CLAIMS[3]], NAMES)


def test_neither_order_nor_wording_nor_a_conclusion_reaches_the_table():
    for segment in imagined_segments(SEED_VII, 40, np.random.default_rng(1), GRADED):
        plain = level_table(segment.claims, NAMES)
        said = f"It rains. {evidence_sentence(segment.claims[::-1], np.random.default_rng(2), True)} That fits fear."
        assert level_table(parse(said, SEED_VII.labels, GRADED).claims, NAMES) == plain


def test_what_contradicts_itself_is_not_stated():
    both = [Claim("frontal beta", "rather low"), Claim("frontal beta", "very high")]
    assert level_table(both, NAMES) == level_table((), NAMES)


def test_readers_say_the_largest_of_their_functions():
    words = [f"word{i}" for i in range(40)]
    readers = Readers.draw(words, 4, 5, np.random.default_rng(0))
    assert len(set(itertools.chain(*readers.words))) == 20
    for item in itertools.islice(readers.items(np.random.default_rng(3)), 50):
        digits = digits_of(item.messages[0]["content"][0]["text"])
        said = []
        for own, weights in zip(readers.words, readers.weights, strict=True):
            sums = [sum((digit - 4) * weights[i, k] for i, digit in enumerate(digits)) for k in range(5)]
            said.append(own[max(range(5), key=lambda k, sums=sums: sums[k])])
        assert item.answer == " ".join(said)
