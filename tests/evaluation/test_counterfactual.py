"""An edit does to the signal what it says, by scipy's measure; the response tells speakers who listen from those who do
not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from corpora import CHANNELS, SAMPLES, SFREQ, eeg, make_corpus
from scipy.signal import periodogram, welch
from scipy.stats import norm

from e2llm.core.bands import BANDS
from e2llm.core.claims import CITED, Claim, EvidenceNames
from e2llm.core.montage import REGIONS, region_of
from e2llm.data.band_edits import (
    TARGET_Z,
    Edit,
    band_edited,
    draw_clear_edits,
    measure_edited,
    moved_features,
    scale_band,
)
from e2llm.data.features import evidence, measure
from e2llm.data.normalization import FeatureStatistics
from e2llm.evaluation.counterfactual import responses, summary, truthful
from e2llm.tasks.thought_parser import Parsed, parse

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))


@pytest.fixture(scope="module")
def corpus() -> SimpleNamespace:
    return make_corpus()


@pytest.fixture(scope="module")
def drawn(corpus):
    return draw_clear_edits(corpus, np.arange(len(corpus.z)), np.random.default_rng(0))


def said(*words: str) -> Parsed:
    """A text by its claims: "frontal alpha high"."""
    return Parsed(tuple(Claim(*text.rsplit(" ", 1)) for text in words), ())


def rates(table) -> dict:
    return summary(table).set_index("name")["score"].to_dict()


# --- the signal


def welch_db(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Change in decibels by channel and band, power summed over all windows; (n_channels, n_bands)."""
    def powers(x):
        frequencies, density = welch(x.astype(float), fs=SFREQ, nperseg=512, detrend=False)
        return np.stack([density[..., (frequencies >= low) & (frequencies < high)].sum(-1)
                         for low, high in BANDS.values()], -1).sum(0)
    return 10 * np.log10(powers(after) / powers(before))


@pytest.mark.parametrize("db", [-10.0, 6.0])
@pytest.mark.parametrize("band", BANDS)
def test_the_band_changes_by_what_is_asked_and_its_neighbors_hardly(band, db):
    signal = eeg(40)
    after, members = scale_band(signal, CHANNELS, SFREQ, band, "parietal", db), [region_of(name) == "parietal"
                                                                                 for name in CHANNELS]
    frequencies, one = periodogram(signal[:, members].astype(float), SFREQ, detrend=False)
    _, other = periodogram(after[:, members].astype(float), SFREQ, detrend=False)
    low, high = BANDS[band]
    inside = (frequencies >= low - 0.25) & (frequencies < high - 0.25)
    ratio = other[..., inside].sum(-1) / one[..., inside].sum(-1)
    np.testing.assert_allclose(10 * np.log10(ratio), db, atol=1e-3)
    predicted_evidence = (frequencies > 0.5) & (frequencies < 60) & ~inside  # beyond it there is only rounding
    np.testing.assert_allclose(other[..., predicted_evidence], one[..., predicted_evidence], rtol=1e-3, atol=1e-6)
    assert np.array_equal(after[:, ~np.array(members)], signal[:, ~np.array(members)]) and after.dtype == np.float32
    place, change = list(BANDS).index(band), welch_db(signal, after)[members]
    # A softer band hears its louder neighbors by leakage
    shortfall = 0.3 if db > 0 else 2.5 if band in ("delta", "theta") else 0.7
    assert np.abs(change[:, place] - db).max() < shortfall
    assert np.abs(np.delete(change, place, axis=1)).max() < 0.6


def test_nothing_asked_changes_nothing_and_the_inverse_restores():
    signal = eeg(3)
    for batch in (signal, signal[0], signal.astype(float)):
        same = scale_band(batch, CHANNELS, SFREQ, "alpha", "occipital", 0.0)
        assert np.array_equal(same, batch) and same.dtype == batch.dtype and same is not batch
        there = scale_band(batch, CHANNELS, SFREQ, "beta", "frontal", 9.0)
        assert np.abs(there - batch).max() > 1
        np.testing.assert_allclose(scale_band(there, CHANNELS, SFREQ, "beta", "frontal", -9.0), batch, atol=1e-4)
    whole = np.round(signal).astype(int)
    assert scale_band(whole, CHANNELS, SFREQ, "beta", "frontal", 3.0).dtype == float and whole.dtype == int
    both = [scale_band(scale_band(signal, CHANNELS, SFREQ, *one), CHANNELS, SFREQ, *other)
            for one, other in ((("beta", "frontal", 3.0), ("alpha", "frontal", -5.0)),
                               (("alpha", "frontal", -5.0), ("beta", "frontal", 3.0)))]
    np.testing.assert_allclose(*both, atol=1e-4)


def test_phases_and_waveform_inside_the_band_stay():
    times = np.arange(SAMPLES) / SFREQ
    wave = 5 * np.sin(2 * np.pi * 10 * times + 0.4)
    signal = np.tile(wave + 2 * np.cos(2 * np.pi * 20 * times), (2, 1))
    after = scale_band(signal, ["O1", "F3"], SFREQ, "alpha", "occipital", 20 * np.log10(3))
    np.testing.assert_allclose(after, signal + np.stack([2 * wave, 0 * wave]), atol=1e-9)


@pytest.mark.parametrize(("change", "message"), [
    ({"band": "mu"}, "Unknown band 'mu'.*alpha"), ({"region": "insular"}, "Unknown region 'insular'.*frontal"),
    ({"ch_names": ["F3", "F4"], "signal_uv": np.ones((2, 64))},
     "No channel lies in the occipital region; these channels cover frontal"),
    ({"signal_uv": np.ones((3, 64))}, "one row a channel name"), ({"signal_uv": np.ones(64)}, "one row a channel name"),
    ({"signal_uv": np.full((12, 64), np.nan)}, "leave broken windows out"), ({"db": np.inf}, "must be finite"),
    ({"sfreq": 8.0}, "64 samples at 8 Hz hold no alpha")])
def test_an_edit_that_cannot_be_is_refused(change, message):
    asked = {"signal_uv": np.ones((12, 64)), "ch_names": CHANNELS, "sfreq": SFREQ, "band": "alpha",
             "region": "occipital", "db": 3.0} | change
    with pytest.raises(ValueError, match=message):
        scale_band(**asked)


# --- edits


def independent_z(corpus, edit: Edit) -> float:
    """Z-score of the edited feature by scipy alone, from the edited signal and the windows that the baseline is made
    of."""
    members = [i for i, name in enumerate(CHANNELS) if name in REGIONS[edit.region]]
    low, high = BANDS[edit.band]

    def entropy(x):
        frequencies, density = welch(x[..., members, :], fs=SFREQ, nperseg=512, detrend=False)
        power = density[..., (frequencies >= low) & (frequencies < high)].sum(-1) * 0.5
        return norm(scale=np.sqrt(power)).entropy().mean(-1)

    reference = [row for row in corpus.split.fit if corpus.subjects[row] == edit.subject]
    own = entropy(corpus.windows.data[reference])
    return float((entropy(band_edited(corpus, [edit])[0]) - own.mean()) / own.std())


def test_levels_after_the_edit_are_measured_and_as_wanted(corpus, drawn):
    assert len(drawn.clear) + len(drawn.unclear) == len(corpus.z) and len(drawn.clear) > 0.9 * len(corpus.z)
    column = {name: i for i, name in enumerate(corpus.evidence_names.columns)}
    for edit, z_before, z_after in zip(drawn.clear, drawn.z_before, drawn.z_after, strict=True):
        z = independent_z(corpus, edit)
        assert (z if edit.wanted == "high" else -z) >= CITED - 1e-3 and z == pytest.approx(edit.reached, abs=1e-3)
        assert edit.reached == z_after[column[edit.feature]] and edit.wanted != edit.before
        assert edit.subject == corpus.subjects[edit.row]
        assert np.array_equal(z_before, corpus.z[edit.row]) and np.sign(edit.db) == (1 if edit.wanted == "high" else -1)
    for edit in drawn.unclear:
        assert abs(independent_z(corpus, edit)) == pytest.approx(abs(edit.reached), abs=1e-3)
        assert (edit.reached if edit.wanted == "high" else -edit.reached) < CITED
    reached = [edit.reached if edit.wanted == "high" else -edit.reached for edit in drawn.clear]
    assert np.median(reached) == pytest.approx(TARGET_Z, rel=0.06)
    assert {edit.feature for edit in drawn.clear} == set(corpus.evidence_names.columns[:25])
    np.testing.assert_allclose(measure_edited(corpus, drawn.clear, chunk=50), drawn.z_after, atol=1e-6)


def test_one_seed_draws_the_same_edits_and_rows_may_repeat(corpus, drawn):
    again = draw_clear_edits(corpus, np.arange(len(corpus.z)), np.random.default_rng(0))
    assert again.clear == drawn.clear and np.array_equal(again.z_after, drawn.z_after)
    other = draw_clear_edits(corpus, [3] * 12, np.random.default_rng(1), target=4.0)
    assert {edit.row for edit in other.clear} == {3} and len({edit.feature for edit in other.clear}) > 3
    assert np.median(np.abs([edit.reached for edit in other.clear])) > 3.2


def test_side_effects_of_an_edit_are_measured(corpus, drawn):
    moved = moved_features(drawn.z_before, drawn.z_after, corpus.evidence_names)
    assert all(edit.feature in names for edit, names in zip(drawn.clear, moved, strict=True))
    assert any("spectral slope" in names for names in moved)
    elsewhere = [name for edit, names in zip(drawn.clear, moved, strict=True) for name in names
                 if name in NAMES.columns[:25] and name.split()[0] != edit.region]
    assert not elsewhere


def test_controls_move_nothing(corpus, drawn):
    controls = [replace(edit, db=0.0, reached=float("nan")) for edit in drawn.clear]
    assert np.array_equal(band_edited(corpus, controls[:5]), corpus.windows.data[[edit.row for edit in controls[:5]]])
    z = measure_edited(corpus, controls)
    np.testing.assert_allclose(z, drawn.z_before, atol=1e-4)
    assert moved_features(drawn.z_before, z, corpus.evidence_names) == [()] * len(controls)
    texts = truthful(drawn.z_before, corpus.evidence_names)
    found = rates(responses(texts, truthful(z, corpus.evidence_names), controls, drawn.z_before, z,
                            corpus.evidence_names))
    assert found["followed"] == found["newly stated"] == 0 and found["untouched claims kept"] == 1


def test_flat_windows_are_reported_and_left_out():
    corpus = make_corpus(2, 6)
    corpus.windows.data[0] = 0.0
    corpus.windows.power, corpus.windows.shape = measure(corpus.windows.data, SFREQ, CHANNELS)
    values, _ = evidence(corpus.windows.power, corpus.windows.shape, CHANNELS)
    corpus.statistics = FeatureStatistics.fit(values, corpus.norm_groups, corpus.split)
    corpus.z = corpus.statistics.z(values, corpus.norm_groups)
    found = draw_clear_edits(corpus, np.arange(len(corpus.z)), np.random.default_rng(0), target=5.0)
    assert 0 in {edit.row for edit in found.unclear} and found.clear
    with pytest.raises(ValueError, match=r"None of 2 edits is clear.*flat windows"):
        draw_clear_edits(corpus, [0, 0], np.random.default_rng(0))


@pytest.mark.parametrize(("rows", "target", "message"), [
    ([], 2.5, "one or more"), ([400], 2.5, "from 0 to 119"), ([-1], 2.5, "from 0 to 119"), ([0.5], 2.5, "row numbers"),
    ([0], 1.0, "aim beyond")])
def test_rows_and_targets_that_cannot_be_are_refused(corpus, rows, target, message):
    with pytest.raises(ValueError, match=message):
        draw_clear_edits(corpus, rows, np.random.default_rng(0), target)


def test_evidence_that_is_not_finite_is_refused(corpus):
    z = corpus.z.copy()
    z[4] = np.nan
    with pytest.raises(ValueError, match="window 4 is not finite"):
        draw_clear_edits(SimpleNamespace(**vars(corpus) | {"z": z}), [3, 4], np.random.default_rng(0))


# --- responses


def explanations(corpus, drawn, before: list[Parsed], after: list[Parsed], **more):
    return responses(before, after, drawn.clear, drawn.z_before, drawn.z_after, corpus.evidence_names, **more)


def test_a_truthful_speaker_follows_and_keeps(corpus, drawn):
    names = corpus.evidence_names
    table = explanations(corpus, drawn, truthful(drawn.z_before, names), truthful(drawn.z_after, names))
    found = summary(table).set_index("name")
    assert found.loc["followed", "score"] >= 0.95
    assert found.loc["newly stated", "score"] == found.loc["followed", "score"]
    assert found.loc["untouched claims not contradicted", "score"] == 1 and found.loc["untouched claims kept",
                                                                                      "score"] >= 0.8
    for name in ("followed", "newly stated", "untouched claims kept"):
        assert found.loc[name, "chance"] < 0.3 < found.loc[name, "low"]
    assert found.loc["followed", "n"] == len(drawn.clear) and found.loc["untouched claims kept",
                                                                        "n"] == table["n_untouched"].sum() > 60


def test_a_parrot_keeps_and_never_follows(corpus, drawn):
    texts = truthful(drawn.z_before, corpus.evidence_names)
    answers = ["fear", None] * (len(texts) // 2 + 1)
    found = rates(explanations(corpus, drawn, texts, texts, answers=(answers[: len(texts)], answers[: len(texts)])))
    assert found == {"followed": 0, "newly stated": 0, "untouched claims kept": 1, "untouched salient claims kept": 1,
                     "untouched claims not contradicted": 1, "answer changed": 0}


def test_a_random_speaker_and_a_constant_one_are_at_chance(corpus, drawn):
    rng, columns = np.random.default_rng(4), corpus.evidence_names.columns

    def anything() -> Parsed:
        return said(*(f"{columns[i]} {rng.choice(['low', 'high'])}"
                      for i in rng.choice(len(columns), 12, replace=False)))

    found = [summary(explanations(corpus, drawn, [anything() for _ in drawn.clear], [anything() for _ in drawn.clear]))
             for _ in range(40)]
    for rows in zip(*(table.to_dict("records") for table in found), strict=True):
        assert np.mean([row["low"] <= row["chance"] <= row["high"] for row in rows]) >= 0.8, rows[0]["name"]
        assert np.mean([row["score"] for row in rows]) == pytest.approx(np.mean([row["chance"] for row in rows]),
                                                                        abs=0.03), rows[0]["name"]
    assert np.mean([table["chance"][0] for table in found]) == pytest.approx(12 / len(columns) / 2, abs=0.02)
    same = [said("frontal alpha high", "occipital beta low")] * len(drawn.clear)
    for _, row in summary(explanations(corpus, drawn, same, same)).iterrows():
        assert row["score"] == pytest.approx(row["chance"], abs=0.05)


def by_hand() -> tuple[list[Edit], np.ndarray, np.ndarray]:
    """Three edits of one person, two of them of one window, and one of another person."""
    def edit(row, subject, feature, wanted):
        return Edit(row, subject, feature, *feature.split()[::-1], 6.0, "typical", wanted)

    edits = [edit(0, "a", "frontal alpha", "high"), edit(0, "a", "central beta", "low"),
             edit(1, "a", "frontal alpha", "high"),
             edit(2, "b", "occipital theta", "low")]
    before = np.zeros((4, len(NAMES.columns)))
    after = before.copy()
    for i, one in enumerate(edits):
        after[i, NAMES.columns.index(one.feature)] = 2.5 if one.wanted == "high" else -2.5
    after[0, NAMES.columns.index("frontal asymmetry")] = -1.0
    for feature, one, other in (("occipital alpha", -2.2, -2.1), ("temporal gamma", 2.1, 1.9),
                                ("central delta", -3.0, -3.0)):
        before[0, NAMES.columns.index(feature)], after[0, NAMES.columns.index(feature)] = one, other
    return edits, before, after


def test_responses_by_hand():
    edits, z_before, z_after = by_hand()
    before = [parse(text, ["fear"]) for text in (
        "Occipital alpha low, frontal asymmetry high. Temporal gamma high. Central delta low.", "Frontal alpha high.",
        "Frontal alpha high.", "")]
    after = [said("frontal alpha high", "occipital alpha low", "temporal gamma low"),
             said("central beta low", "central beta high"),
             said("frontal alpha high", "occipital alpha low"), said("occipital theta low")]
    table = responses(before, after, edits, z_before, z_after, NAMES,
                      (["fear", "sad", None, "sad"], ["fear", "fear", "sad", "sad"]))
    assert table["followed"].tolist() == [True, False, True, True]
    assert table["newly_stated"].tolist() == [True, False, False, True]
    assert table["said_before"].tolist() == [False, False, True,
                                             False] and table["answer_changed"].tolist() == [False, True, True, False]
    # The first edit moved the asymmetry; of the other three claims one is kept, one denied, one left unsaid.
    assert table["moved"].tolist() == ["frontal alpha, frontal asymmetry", "central beta", "frontal alpha",
                                       "occipital theta"]
    assert table["n_untouched"].tolist() == [3, 1, 0, 0]
    # Two of them are about evidence that should not be missing, before and after: one is kept.
    assert table["n_salient"].tolist() == [2, 0, 0, 0] and table["n_kept_salient"].tolist() == [1, 0, 0, 0]
    assert table["n_kept"].tolist() == [1, 0, 0, 0] and table["n_not_contradicted"].tolist() == [2, 1, 0, 0]
    # Chance is taken from other windows of the same person: the third text for the first two edits, the first two for
    # the third.
    assert table["chance followed"].tolist()[:3] == [1, 0, 0.5] and np.isnan(table["chance followed"][3])
    assert table["chance n_kept"].tolist()[:2] == [1, 1] and table["chance n_not_contradicted"].tolist()[:2] == [3, 1]
    assert table["chance answer_changed"].tolist()[:3] == [1, 0, 1]
    found = summary(table).set_index("name")
    assert found["score"].tolist() == [0.75, 0.5, 0.25, 0.5, 0.75, 0.5] and found["n"].tolist() == [4, 4, 4, 2, 4, 4]
    assert found["chance"].tolist() == pytest.approx([0.5, 1 / 3, 0.5, 0.5, 1, 2 / 3])


def test_claims_at_two_levels_or_about_what_was_not_measured_are_not_untouched():
    edits, z_before, z_after = by_hand()
    before = [said("temporal gamma high", "temporal gamma low", "left ear alpha high")] * 4
    table = responses(before, before, edits, z_before, z_after, NAMES)
    assert not table["n_untouched"].any()
    found = summary(table).set_index("name")
    assert found.loc["untouched claims kept"].isna().sum() == 4 and found.loc["untouched claims kept", "n"] == 0


def test_people_with_one_edit_count_but_have_no_chance():
    edits, z_before, z_after = by_hand()
    edits = [replace(edit, subject=f"s{i}") for i, edit in enumerate(edits)]
    texts = truthful(z_after, NAMES)
    found = summary(responses(truthful(z_before, NAMES), texts, edits, z_before, z_after, NAMES)).set_index("name")
    assert found.loc["followed", ["score", "n"]].tolist() == [1, 4] and np.isnan(found.loc["followed", "chance"])
    alone = summary(responses([said()], texts[:1], edits[:1], z_before[:1], z_after[:1], NAMES)).set_index("name")
    assert alone.loc["newly stated", ["score", "low", "high", "n"]].tolist() == [1, 0, 1, 1]


def test_edits_and_texts_that_do_not_fit_are_refused(corpus):
    edits, z_before, z_after = by_hand()
    texts = [said()] * 4
    with pytest.raises(ValueError, match="one entry for each edit"):
        responses(texts[1:], texts, edits, z_before, z_after, NAMES)
    with pytest.raises(ValueError, match="one entry for each edit"):
        responses(texts, texts, edits, z_before, z_after, NAMES, (["fear"] * 4, ["fear"]))
    for wrong in (z_after[:, 1:], np.full_like(z_after, np.nan)):
        with pytest.raises(ValueError, match="all finite: pass z_before"):
            responses(texts, texts, edits, z_before, wrong, NAMES)
    for nothing in (lambda: responses([], [], [], z_before[:0], z_after[:0], NAMES),
                    lambda: band_edited(corpus, []),
                    lambda: measure_edited(corpus, [])):
        with pytest.raises(ValueError, match="There are no edits: draw some"):
            nothing()
    with pytest.raises(ValueError, match="no edits to sum up"):
        summary(responses(texts, texts, edits, z_before, z_after, NAMES)[:0])
