"""Scales of levels: words, thresholds, and what counts as true."""

import numpy as np
import pytest

from e2llm.core.claims import (
    GRADED,
    LEVEL_THRESHOLD,
    LOW_HIGH,
    SCALES,
    Claim,
    EvidenceNames,
    level,
    salient_claims,
    side,
)
from e2llm.core.verdicts import agrees, verdicts

PAIRS = (("alpha", "occipital"), ("beta", "frontal"))


def test_words_go_from_the_lowest_level_to_the_highest():
    assert LOW_HIGH.words == ("low", "typical", "high")
    assert GRADED.words == ("very low", "clearly low", "rather low", "typical", "rather high", "clearly high",
                            "very high")
    assert {scale.name: scale for scale in (LOW_HIGH, GRADED)} == SCALES
    assert [side(word) for word in GRADED.words] == ["low"] * 3 + ["typical"] + ["high"] * 3


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_level_begins_at_its_threshold_on_both_sides(scale, dtype):
    words, middle = scale.words, len(scale.words) // 2
    for i, limit in enumerate(scale.thresholds, start=1):
        at, below = np.array([limit, np.nextafter(dtype(limit), dtype(0))], dtype=dtype)
        assert [scale.level(z) for z in (at, -at)] == [words[middle + i], words[middle - i]]
        assert [scale.level(z) for z in (below, -below)] == [words[middle + i - 1], words[middle - i + 1]]
    z, edges = np.linspace(-4, 4, 997), [*(-x for x in reversed(scale.thresholds)), *scale.thresholds]
    assert np.array_equal(scale.index(z), np.searchsorted(edges, z))  # none of these is exactly at an edge


def test_low_and_high_are_as_ever():
    z = np.linspace(-2, 2, 4001)
    assert [level(value) for value in z] == ["low" if value <= -LEVEL_THRESHOLD else "high"
                                             if value >= LEVEL_THRESHOLD else "typical" for value in z]


def test_a_graded_claim_may_be_one_level_off_and_no_more():
    names = EvidenceNames(PAIRS, GRADED)
    for measured, z in enumerate((-3, -1.5, -0.8, 0, 0.8, 1.5, 3)):
        evidence = np.array([z, 0, 0, 0, 0, 0], dtype=float)
        found = verdicts([Claim("occipital alpha", word) for word in GRADED.words], evidence, names)
        assert [verdict == "true" for verdict in found] == [abs(i - measured) <= 1 for i in range(7)]
    assert not agrees(-1, 0, GRADED) and not agrees(np.array([-2, -1]), np.array([0, 0]), GRADED).any()


def test_a_scale_decides_what_is_stated():
    z = np.array([0.9, -1.4, 2.5, 0.6, -0.7, 1.6])
    assert list(map(str, salient_claims(z, EvidenceNames(PAIRS)))) == ["frontal asymmetry high", "artefact level high"]
    assert list(map(str, salient_claims(z, EvidenceNames(PAIRS, GRADED)))) == [
        "occipital alpha rather high", "frontal beta rather low", "frontal asymmetry very high",
        "alpha frequency rather low", "artefact level clearly high"]
    assert [str(claim) for claim in salient_claims(z, EvidenceNames(PAIRS, GRADED), limit=1)] == [
        "frontal asymmetry very high"]
