"""Codes by hand; a coding carries what it keeps of the evidence and no more, and test labels are never read."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest

from e2llm.core.bands import BANDS
from e2llm.core.claims import CITED, GRADED, LEVELS, LOW_HIGH, MAX_CLAIMS, EvidenceNames, salient_claims
from e2llm.core.montage import REGIONS
from e2llm.evaluation.evidence_capacity import (
    CODINGS,
    Fold,
    codings_of,
    evidence_capacity,
    in_levels,
    largest,
    low_or_high,
    rounded,
)
from e2llm.viz import plots_evidence

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
N_EVIDENCE = len(NAMES.columns)


def test_codes_by_hand():
    z = np.array([[0.2, -0.3, 1.6, -2.4, 5.0], [0.0, 0.74, -0.76, 1.25, 1.5]])
    assert rounded(z, 0.5).tolist() == [[0, -0.5, 1.5, -2.5, 5], [0, 0.5, -1, 1, 1.5]]
    assert rounded(z, 1.0, 3.0).tolist() == [[0, 0, 2, -2, 3], [0, 1, -1, 1, 2]]
    assert largest(z, 2).tolist() == [[0, 0, 0, -2.4, 5], [0, 0, 0, 1.25, 1.5]]
    assert largest(np.array([[1.0, -1.0, 1.0]]), 2).tolist() == [[1, -1, 0]]
    assert low_or_high(z, 2, 1.5).tolist() == [[0, 0, 0, -1, 1], [0, 0, 0, 0, 1]]


def test_a_thought_of_today_is_coded_as_its_claims():
    z = np.random.default_rng(0).normal(scale=1.5, size=(200, N_EVIDENCE))
    expected = np.zeros(z.shape)
    for row, values in enumerate(z):
        for claim in salient_claims(values, NAMES, MAX_CLAIMS, CITED):
            expected[row, NAMES.columns.index(claim.feature)] = LEVELS.index(claim.level) - 1
    assert (low_or_high(z) == expected).all() and (expected != 0).any(axis=0).all()


def test_a_graded_thought_is_coded_as_its_claims():
    names, z = EvidenceNames(NAMES.pairs, GRADED), np.random.default_rng(0).normal(scale=1.5, size=(200, N_EVIDENCE))
    expected = np.zeros(z.shape)
    for row, values in enumerate(z):
        for claim in salient_claims(values, names):
            expected[row, names.columns.index(claim.feature)] = GRADED.words.index(claim.level) - 3
    assert (in_levels(z, GRADED) == expected).all()
    assert (in_levels(z, LOW_HIGH) == low_or_high(z)).all()
    more = {name: coding for name, coding in codings_of(GRADED).items() if name not in CODINGS}
    assert list(more) == ["all, in 7 levels", "20 largest from 0.7 SD, in 7 levels"]
    levels = [[GRADED.words.index(GRADED.level(value)) - 3 for value in values] for values in z]
    assert more["all, in 7 levels"](z).tolist() == levels and codings_of(LOW_HIGH) is CODINGS


def world(n: int = 600) -> SimpleNamespace:
    """Three labels that move a first feature by one standard deviation, a sixth of the windows in each of two parts."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=n)
    z = rng.normal(scale=0.1, size=(n, N_EVIDENCE))
    z[:, 0] += labels - 1.0
    split = SimpleNamespace(train=np.arange(0, n // 2), val=np.arange(n // 2, n // 2 + n // 6),
                            test=np.arange(n // 2 + n // 6, n))
    return SimpleNamespace(z=z, labels=labels, split=split, subjects=np.arange(n) % 5)


@pytest.fixture(scope="module")
def made() -> SimpleNamespace:
    return world()


def table_of(made: SimpleNamespace, labels: np.ndarray | None = None, **evidence: np.ndarray) -> pd.DataFrame:
    labels = made.labels if labels is None else labels
    return evidence_capacity([Fold(evidence or {"measured": made.z}, labels, made.subjects, made.split)], NAMES, 3)


def test_graded_levels_carry_what_salient_ones_drop(made):
    table = table_of(made).set_index("name")
    today = f"{MAX_CLAIMS} largest from {CITED:g} SD, low or high"
    assert list(table.index) == list(CODINGS)
    assert (table["score"].drop(today) > 0.95).all() and table.loc[today, "score"] == pytest.approx(1 / 3)
    assert (table["chance"] == 1 / 3).all() and (table["n"] == len(made.split.test)).all()
    stated = table["stated"]
    assert stated["all, exact"] == N_EVIDENCE and stated[today] == 0 and 0.6 < stated["all, in steps of 0.5 SD"] < 1


def test_kinds_of_evidence_are_rows_beside_each_other_and_noise_is_chance(made):
    noise = np.random.default_rng(1).normal(size=made.z.shape)
    noise[0] = made.z[0]
    table = table_of(made, measured=made.z, noise=noise)
    assert table["evidence"].unique().tolist() == ["measured", "noise"] and len(table) == 2 * len(CODINGS)
    of_noise = table[table["evidence"] == "noise"]
    assert (abs(of_noise["score"] - 1 / 3) < 0.15).all()
    pd.testing.assert_frame_equal(table[table["evidence"] == "measured"].reset_index(drop=True), table_of(made))


def test_labels_of_test_windows_and_rows_outside_the_split_do_not_enter_the_fit(made):
    """Scores turn round with the test labels, so the answers did not change; rows of no part may even be unknown."""
    other = made.labels.copy()
    other[made.split.test] = (other[made.split.test] + 1) % 3
    assert (table_of(made, other)["score"][:5] < 0.05).all()
    split = SimpleNamespace(**vars(made.split) | {"train": np.arange(10, 300)})
    outside = SimpleNamespace(**vars(made) | {"split": split})
    unknown = made.z.copy()
    unknown[:10] = np.nan
    pd.testing.assert_frame_equal(table_of(outside, measured=unknown), table_of(outside))


def test_folds_are_scored_together(made):
    """Twice the same fold: the same score and people, twice the windows; half of it with its labels turned: a half."""
    one = Fold({"measured": made.z}, made.labels, made.subjects, made.split)
    both = evidence_capacity([one, one], NAMES, 3)
    pd.testing.assert_frame_equal(both.assign(n=both["n"] // 2), table_of(made))
    turned = made.labels.copy()
    turned[made.split.test] = (turned[made.split.test] + 1) % 3
    mixed = evidence_capacity([one, one._replace(labels=turned)], NAMES, 3)
    assert (abs(mixed["score"][:5] - 0.5) < 0.05).all()


def test_evidence_that_does_not_fit_is_refused(made):
    with pytest.raises(ValueError, match="29 columns"):
        table_of(made, measured=made.z[:, 1:])
    broken = made.z.copy()
    broken[made.split.test[0], 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        table_of(made, measured=broken)


@pytest.mark.usefixtures("careful_figures")
def test_the_figure_states_the_finding_and_shows_chance_and_the_head(made):
    table = table_of(made, measured=made.z, predicted=made.z * 0.9)
    figure = plots_evidence.evidence_capacity(table, 0.91)
    (ax,) = figure.axes
    measured = table[table["evidence"] == "measured"].set_index("name")["score"]
    said = [f"{100 * scores.min():.0f} to {100 * scores.max():.0f} % ({evidence})"
            for evidence, scores in table.groupby("evidence", sort=False)["score"]]
    assert figure.get_suptitle() == f"What is said can carry {said[0]}, {said[1]}\nThe head reaches 91 %"
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CODINGS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["measured", "predicted", "chance"]
    heads = [line for line in ax.lines if len(line.get_xdata()) == 2 and set(line.get_xdata()) == {91.0}]
    assert len(heads) == 1 and "stage-1 head" in [text.get_text() for text in ax.texts]
    points = [box.lines[0].get_xydata()[:, 0] for box in ax.containers]
    assert points[0] == pytest.approx(100 * measured.to_numpy())
