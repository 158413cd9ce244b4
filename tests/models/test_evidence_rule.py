"""Answers from claims alone are those of a logistic regression on their levels, in numbers or in words."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from e2llm.core.bands import BANDS
from e2llm.core.claims import GRADED, Claim, EvidenceNames, salient_claims
from e2llm.core.montage import REGIONS
from e2llm.core.verdicts import claim_values
from e2llm.models.evidence_rule import EvidenceRule

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
LOW, HIGH = Claim("occipital alpha", "low"), Claim("occipital alpha", "high")


def rule_of_three() -> EvidenceRule:
    """Learned from windows in which three features give three labels away, among claims that say nothing."""
    rng = np.random.default_rng(5)
    signs = {"fear": LOW, "sad": HIGH, "happy": Claim("frontal theta", "high")}
    labels = [list(signs)[i] for i in rng.integers(3, size=300)]
    claims = [(signs[label], Claim("central beta", str(rng.choice(["low", "high"])))) for label in labels]
    return EvidenceRule().fit(claims, labels, NAMES)


def test_it_learns_what_claims_give_away():
    rule = rule_of_three()
    for claim, label in ((LOW, "fear"), (HIGH, "sad"), (Claim("frontal theta", "high"), "happy")):
        assert rule.ranked([claim])[0] == label
    assert sorted(rule.ranked([])) == rule.labels == ["fear", "happy", "sad"]


def test_what_was_not_measured_is_typical_or_contradicts_itself_counts_for_nothing():
    rule = rule_of_three()
    said = [LOW, Claim("frontal asymmetry", "low")]
    for nothing in (Claim("ear alpha", "high"), Claim("temporal gamma", "typical")):
        assert np.array_equal(*rule.probabilities([said, [*said, nothing]], rule.labels))
    assert np.array_equal(*rule.probabilities([[], [LOW, HIGH]], rule.labels))


def test_it_is_a_logistic_regression_whose_columns_are_the_labels_that_are_asked():
    names, rng = EvidenceNames(NAMES.pairs, GRADED), np.random.default_rng(0)
    z = 1.5 * rng.normal(size=(400, len(names.columns)))
    labels = [("calm", "fear", "sad")[i] for i in (z[:, 0] > 0) + (z[:, 1] > 0.5).astype(int)]
    claims = [salient_claims(row, names) for row in z]
    values = np.stack([claim_values(each, names) for each in claims])
    wanted = LogisticRegression(class_weight="balanced", max_iter=1000).fit(values, labels).predict_proba(values)
    asked = ["sad", "happy", "fear", "calm"]
    for rule in (EvidenceRule().fit(claims, labels, names), EvidenceRule().fit_values(values, labels, names)):
        for found in (rule.probabilities(claims, asked), rule.of_values(values, asked)):
            assert np.array_equal(found[:, [3, 2, 0]], wanted) and not found[:, 1].any()


def test_a_rule_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="fit it on training windows"):
        EvidenceRule().ranked([])
    with pytest.raises(ValueError, match="two or more labels"):
        EvidenceRule().fit([()] * 3, ["fear"] * 3, NAMES)
    with pytest.raises(ValueError, match="one label for every window"):
        EvidenceRule().fit([()] * 3, ["fear", "sad"], NAMES)
