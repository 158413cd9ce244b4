"""Verdicts agree with numpy and scipy on raw band power; every measure tells the window's own text from another
window's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom, norm, zscore

from e2llm.core.bands import BANDS
from e2llm.core.claims import GRADED, MAX_CLAIMS, Claim, EvidenceNames, level, salient_claims
from e2llm.core.labels import SEED_VII, plain_labels
from e2llm.core.montage import REGIONS, SEED_CHANNELS
from e2llm.core.verdicts import Verdict, claim_values, verdicts
from e2llm.data.features import evidence
from e2llm.data.normalization import FeatureStatistics
from e2llm.evaluation import metrics
from e2llm.evaluation.faithfulness import (
    claim_precision,
    claim_recall,
    claims_of_another_window,
    consistency,
    corrupted,
    decorative,
    flag_rate,
    flags,
    prior_claims,
    truncated,
    with_unrelated_sentence,
    without_conclusion,
)
from e2llm.models.evidence_rule import EvidenceRule
from e2llm.tasks.items import predict
from e2llm.tasks.segments import Segment, imagined_segments
from e2llm.tasks.thought_parser import NoSalientFeature, Parsed, parse, sentences

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
COLUMNS = NAMES.columns
N_EVIDENCE = 29  # five bands in five regions, four of the whole scalp
LABELS = SEED_VII.labels
THOUGHT = "Occipital alpha low, frontal theta high. This is unpleasant and activated. That fits fear."


def people(n: int = 6, each: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Evidence of windows (n * each, N_EVIDENCE) whose features go together, and their subjects."""
    rng = np.random.default_rng(seed)
    z = 0.6 * rng.normal(size=(n * each, 1)) + 0.8 * rng.normal(size=(n * each, len(COLUMNS)))
    return z, np.repeat([f"s{i}" for i in range(n)], each)


def oracle(z: np.ndarray) -> list[tuple[Claim, ...]]:
    return [salient_claims(row, NAMES) for row in z]


def salient(row: np.ndarray) -> list[Claim]:
    """The MAX_CLAIMS largest features of a window from two standard deviations on, by numpy alone."""
    largest = sorted(range(len(row)), key=lambda i: -abs(row[i]))[:MAX_CLAIMS]
    return [Claim(COLUMNS[i], "high" if row[i] > 0 else "low") for i in largest if abs(row[i]) >= 2]


def said(claims: tuple[Claim, ...]) -> Parsed:
    return Parsed(tuple(claims) or (NoSalientFeature(),), ())


# --- verdicts


def independent_truth(power: np.ndarray, shape: np.ndarray, subjects: np.ndarray, feature: str,
                      stated: str) -> np.ndarray:
    """Whether a level is true of every window, from raw measurements: entropy, mean over the region, z of the person,
    threshold."""
    column = {name: i for i, name in enumerate(SEED_CHANNELS)}
    if feature == "frontal asymmetry":
        alpha = np.log(power[:, :, 2].astype(float))
        pairs = [("F1", "F2"), ("F3", "F4"), ("F5", "F6"), ("F7", "F8"), ("AF3", "AF4")]
        value = sum(alpha[:, column[right]] - alpha[:, column[left]] for left, right in pairs) / len(pairs)
    elif feature in (whole := ["spectral slope", "alpha frequency", "artefact level"]):
        value = shape[:, whole.index(feature)]
    else:
        region, band = feature.split()
        channels = [name for name in SEED_CHANNELS if name in REGIONS[region]]
        spread = np.sqrt(power[:, [column[name] for name in channels],
                               ["delta", "theta", "alpha", "beta", "gamma"].index(band)])
        value = norm(scale=spread).entropy().mean(axis=1)
    z = np.concatenate([zscore(value[subjects == name]) for name in dict.fromkeys(subjects)])
    return {"low": z <= -0.7, "high": z >= 0.7, "typical": np.abs(z) < 0.7}[stated]


def test_verdicts_agree_with_an_implementation_of_their_own():
    rng = np.random.default_rng(1)
    subjects = np.repeat(["a", "b", "c"], 50)
    power = np.exp(rng.normal(size=(150, len(SEED_CHANNELS), 5)) + rng.normal(size=(150, 1, 5)))
    shape = rng.normal([-1.5, 10, 4], [0.2, 0.5, 0.4], size=(150, 3))
    values, names = evidence(power, shape, list(SEED_CHANNELS))
    everything = SimpleNamespace(fit=np.arange(150), normalization="subject")
    z = FeatureStatistics.fit(values, subjects, everything).z(values, subjects)
    assert names.columns == COLUMNS and len(COLUMNS) == N_EVIDENCE
    claims = [Claim(feature, stated) for feature in COLUMNS for stated in ("low", "typical", "high")]
    truth = np.stack([independent_truth(power, shape, subjects, claim.feature, claim.level) for claim in claims],
                     axis=1)
    found = np.array([[verdict == "true" for verdict in verdicts(claims, row, names)] for row in z])
    assert np.array_equal(found, truth) and truth.reshape(150, -1, 3).sum(axis=2).min() == 1
    assert truth.mean(axis=0).min() > 0.15


def test_verdicts_by_hand():
    z = np.zeros(N_EVIDENCE)
    z[:3] = -0.7, 0.7, 0.69
    stated = (COLUMNS[0], "low"), (COLUMNS[1], "high"), (COLUMNS[2], "typical"), (COLUMNS[2],
                                                                                  "high"), ("left ear alpha", "low")
    claims = [Claim(*words) for words in stated]
    assert verdicts(claims, z, NAMES) == ["true", "true", "true", "false", "unknown feature"]
    assert verdicts([], z, NAMES) == [] and verdicts(claims[:1], z, NAMES)[0] is Verdict.TRUE


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_levels_at_the_threshold_are_those_that_segments_cite(dtype):
    z = np.linspace(-0.7, 0.7, N_EVIDENCE).astype(dtype)
    assert all(verdicts([Claim(name, level(value))], z, NAMES) == ["true"]
               for name, value in zip(COLUMNS, z, strict=True))
    assert level(z[0]) == "low" and level(z[-1]) == "high"


@pytest.mark.parametrize(("claims", "z", "message"), [
    ([], np.zeros(N_EVIDENCE - 3), "expected .n_evidence,. with 29"), ([], np.zeros((2, N_EVIDENCE)), "pass Corpus.z"),
    ([], np.full(N_EVIDENCE, np.nan), "not finite"),
    ([Claim("frontal theta", "huge")], np.zeros(N_EVIDENCE), "low, typical, high")])
def test_evidence_that_does_not_fit_is_refused(claims, z, message):
    with pytest.raises(ValueError, match=message):
        verdicts(claims, z, NAMES)


def test_graded_claims_are_true_within_one_level_and_their_chance_counts_the_same():
    names, rng = EvidenceNames(NAMES.pairs, GRADED), np.random.default_rng(0)
    z, words = rng.normal(size=(40, N_EVIDENCE)) * 1.5, GRADED.words
    subjects = np.repeat(["a", "b"], 20)
    claims = [[Claim(COLUMNS[j], words[rng.integers(7)]) for j in range(5)] for _ in range(40)]
    measured = np.array([[words.index(GRADED.level(value)) for value in row] for row in z])
    hits = np.array([[[abs(words.index(claim.level) - measured[other, j]) <= 1 for j, claim in enumerate(row)]
                      for other in range(40)] for row in claims])  # (window, measured in, claim)
    score = claim_precision(claims, z, names, subjects)
    own = [hits[i, i] for i in range(40)]
    others = [hits[i, [j for j in range(40) if subjects[j] == subjects[i] and j != i]].mean(axis=0) for i in range(40)]
    assert score.value == pytest.approx(np.mean(own)) and score.chance == pytest.approx(np.mean(others))
    told = [salient_claims(row, names) for row in z]
    assert claim_precision(told, z, names, subjects).value == claim_recall(told, z, names, subjects).value == 1
    assert claim_recall(told, -z, names, subjects).value == 0


def test_claims_as_numbers_keep_their_degree():
    names = EvidenceNames(NAMES.pairs, GRADED)
    said = [Claim(COLUMNS[0], "very low"), Claim(COLUMNS[1], "rather high"), Claim(COLUMNS[2], "typical"),
            Claim(COLUMNS[3], "clearly high"), Claim(COLUMNS[3], "clearly low"), Claim("left ear alpha", "very low")]
    assert claim_values(said, names)[:4].tolist() == [-1, pytest.approx(1 / 3), 0, 0]
    assert claim_values([Claim(COLUMNS[0], "low"), Claim(COLUMNS[1], "high")], NAMES)[:2].tolist() == [-1, 1]


# --- precision and recall


def test_oracle_claims_are_all_true_and_complete():
    z, subjects = people()
    n_cited, n_salient = (int(np.minimum((np.abs(z) >= beyond).sum(axis=1), MAX_CLAIMS).sum()) for beyond in (1.5, 2.0))
    assert 0 < n_salient < n_cited == sum(map(len, oracle(z)))
    for measure, n in ((claim_precision, n_cited), (claim_recall, n_salient)):
        score = measure(oracle(z), z, NAMES, subjects)
        assert (score.value, score.low, score.high) == (1, 1, 1) and score.n == n
        assert 0.05 < score.chance < 0.6 and score.above_chance


def test_what_stands_out_but_is_not_salient_may_be_left_out():
    z = np.zeros((2, N_EVIDENCE))
    z[0, :3], z[1, :11] = (2.0, -1.99, 1.5), (3.0, -3.5, 4.0, -2.5, 2.6, 2.7, 2.8, -2.1, 2.2, 2.3, 2.0)
    top_evidence = sorted(range(11), key=lambda i: -abs(z[1, i]))[:MAX_CLAIMS]
    asked = [(Claim(COLUMNS[0], "high"),), tuple(Claim(COLUMNS[i], "low" if z[1, i] < 0 else "high")
                                                 for i in top_evidence)]
    assert len(top_evidence) == MAX_CLAIMS < 11
    score = claim_recall(asked, z, NAMES, np.array(["a", "a"]))
    assert (score.value, score.n) == (1, 1 + MAX_CLAIMS)  # 1.99 need not be said, nor what finds no room
    assert claim_recall([(), asked[1]], z, NAMES, np.array(["a", "a"])).value == pytest.approx(MAX_CLAIMS
                                                                                               / (1 + MAX_CLAIMS))
    few = claim_recall([(), asked[1][:2]], z, NAMES, np.array(["a", "a"]), limit=2)
    assert (few.value, few.n) == (pytest.approx(2 / 3), 3)


def test_chance_is_the_mean_over_permutations_that_move_every_window():
    z, subjects = people(3, 8)
    rng = np.random.default_rng(2)
    words = ["low", "typical", "high"]
    stated = [tuple(Claim(COLUMNS[i], rng.choice(words))
                    for i in rng.choice(N_EVIDENCE, size=rng.integers(0, 6), replace=False)) for _ in z]
    stated[5] += (Claim("ear alpha", "low"),)
    precision, recall = claim_precision(stated, z, NAMES, subjects), claim_recall(stated, z, NAMES, subjects)
    truths, mentions = [], []
    for shift in range(8):
        other = np.concatenate([start + np.roll(np.arange(8), shift) for start in (0, 8, 16)])
        truths.append(np.mean([v == "true" for i, j in enumerate(other) for v in verdicts(stated[i], z[j], NAMES)]))
        mentions.append(np.mean([claim in stated[i] for i, j in enumerate(other) for claim in salient(z[j])]))
    assert (precision.value, precision.chance) == pytest.approx((truths[0], np.mean(truths[1:])))
    assert (recall.value, recall.chance) == pytest.approx((mentions[0], np.mean(mentions[1:])))
    assert precision.n == sum(map(len, stated)) and recall.n == sum(map(len, map(salient, z)))


def test_claims_of_another_window_score_chance_and_the_prior_too():
    z, subjects = people(8, 60)
    stated = claims_of_another_window(z, NAMES, subjects, np.random.default_rng(3))
    prior = prior_claims(z, NAMES, len(z))
    for measure in (claim_precision, claim_recall):
        for claims in (stated, prior):
            score = measure(claims, z, NAMES, subjects)
            assert score.contains_chance and abs(score.value - score.chance) < 0.05, (measure, score)
    own = claim_precision(oracle(z), z, NAMES, subjects)
    assert claim_precision(stated, z, NAMES, subjects).chance == pytest.approx(own.chance, abs=0.03)


def test_windows_lend_claims_only_within_a_person_and_never_to_themselves():
    z, subjects = people(4, 3)
    known = oracle(z)
    for seed in range(20):
        for row, claims in enumerate(claims_of_another_window(z, NAMES, subjects, np.random.default_rng(seed))):
            assert claims in [known[other] for other in range(12) if subjects[other] == subjects[row] and other != row]


def test_the_prior_is_what_is_most_often_salient():
    train = np.zeros((10, N_EVIDENCE))
    train[:6, 4], train[6:, 4], train[:5, 7], train[3:5, 9], train[:, 11] = 3, -3, -2, 1.6, 1.4
    assert prior_claims(train, NAMES, 2) == [(Claim(COLUMNS[4], "high"), Claim(COLUMNS[7], "low"),
                                              Claim(COLUMNS[9], "high"))] * 2
    assert prior_claims(train, NAMES, 1, limit=1) == [(Claim(COLUMNS[4], "high"),)]
    with pytest.raises(ValueError, match="no prior"):
        prior_claims(np.full((10, N_EVIDENCE), 1.4), NAMES, 2)


def test_saying_everything_recalls_nothing_and_unknown_features_are_false():
    z, subjects = people(2, 5)
    both = [tuple(Claim(name, stated) for name in COLUMNS for stated in ("low", "high"))] * 10
    assert claim_recall(both, z, NAMES, subjects).value == 0 and claim_precision(both, z, NAMES, subjects).value < 0.5
    made_up = [(*claims, Claim("ear alpha", "low")) for claims in oracle(z)]
    n = sum(map(len, oracle(z)))
    assert claim_precision(made_up, z, NAMES, subjects).value == pytest.approx(n / (n + 10))
    assert claim_recall(made_up, z, NAMES, subjects).value == 1


def test_what_was_never_said_has_no_precision():
    z, subjects = people(2, 5)
    score = claim_precision([()] * 10, z, NAMES, subjects)
    assert np.isnan([score.value, score.low, score.high,
                     score.chance]).all() and score.n == 0 and not score.above_chance
    assert claim_recall([()] * 10, z, NAMES, subjects).value == 0
    assert np.isnan(claim_recall([()] * 10, np.zeros((10, N_EVIDENCE)), NAMES, subjects).value)


def test_the_interval_is_over_people_drawn_whole():
    z, subjects = people(5, 20)
    stated = [claims if subject in ("s0", "s1") else tuple(Claim(c.feature, "typical") for c in claims)
              for claims, subject in zip(oracle(z), subjects, strict=True)]
    score = claim_precision(stated, z, NAMES, subjects, seed=4)
    assert score == claim_precision(stated, z, NAMES, subjects, seed=4)
    true = sum(len(claims) for claims, subject in zip(stated, subjects, strict=True) if subject in ("s0", "s1"))
    assert score.value == pytest.approx(true / sum(map(len, stated))) and 0.3 < score.value < 0.5  # two of five people
    assert score.high - score.low > 0.8  # claims alone would give 0.11
    alone = claim_precision(oracle(z)[:20], z[:20], NAMES, subjects[:20])
    assert (alone.low, alone.high) == (0, 1)
    z, subjects = people(20, 10)
    for measure in (claim_precision, claim_recall):
        stated = claims_of_another_window(z, NAMES, subjects, np.random.default_rng(4))
        scores = [measure(stated, z, NAMES, subjects, seed=seed) for seed in range(20)]
        assert len({score.value for score in scores}) == 1 < len({(score.low, score.high) for score in scores})


@pytest.mark.parametrize("measure", [claim_precision, claim_recall])
def test_windows_that_do_not_fit_are_refused(measure):
    z, subjects = people(2, 5)
    with pytest.raises(ValueError, match="one entry for every window"):
        measure(oracle(z)[1:], z, NAMES, subjects)
    with pytest.raises(ValueError, match="at least one window"):
        measure([], z[:0], NAMES, subjects[:0])
    with pytest.raises(ValueError, match="s1 has one window only"):
        measure(oracle(z)[:6], z[:6], NAMES, subjects[:6])
    with pytest.raises(ValueError, match="s1 has one window only"):
        claims_of_another_window(z[:6], NAMES, subjects[:6], np.random.default_rng(0))


# --- consistency


def rule_of_three() -> EvidenceRule:
    """Learned from windows in which three features give three labels away, among claims that say nothing."""
    rng = np.random.default_rng(5)
    signs = {"fear": Claim("occipital alpha", "low"), "sad": Claim("occipital alpha", "high"),
             "happy": Claim("frontal theta", "high")}
    labels = [list(signs)[i] for i in rng.integers(3, size=300)]
    claims = [(signs[label], Claim("central beta", str(rng.choice(["low", "high"])))) for label in labels]
    return EvidenceRule().fit(claims, labels, NAMES)


def test_conclusions_that_follow_and_that_do_not():
    rule = rule_of_three()
    assert consistency(parse(THOUGHT.replace("frontal theta", "central beta"), LABELS), SEED_VII, rule).first
    second = rule.ranked([Claim("occipital alpha", "low")])[1]
    found = consistency(parse(f"Occipital alpha low. That fits {second}.", LABELS), SEED_VII, rule)
    assert not found.first and found.among_k and found.valence is None and found.arousal is None
    assert not consistency(parse(f"Occipital alpha low. That fits {second}.", LABELS), SEED_VII, rule, k=1).among_k
    for nothing in ("Occipital alpha low.", "Occipital alpha low. That fits fear. That fits sad.", "That fits fear.",
                    "That fits fear", "bananas"):
        found = consistency(parse(nothing, LABELS), SEED_VII, rule)
        assert not found.first and not found.among_k, nothing


@pytest.mark.parametrize("label", LABELS)
def test_affect_words_of_the_kit_fit_their_label_and_no_other_affect(label):
    rule, rng, n_bare = rule_of_three(), np.random.default_rng(6), 0
    for _ in range(40):
        thought = predict(Segment(None, label, 0.5, (Claim("occipital alpha", "low"),)), SEED_VII, rng).thought
        found = consistency(parse(thought, LABELS), SEED_VII, rule)
        if "This is" not in thought:  # evidence alone: there is nothing to judge
            assert len(sentences(thought)) == 1 and found.valence is None and found.arousal is None and not found.first
            n_bare += 1
            continue
        assert found.valence and found.arousal and found.first == (label == "fear")
        swapped = thought.replace("activated", "CALM").replace(" calm", " activated").replace("CALM", "calm")
        assert consistency(parse(swapped, LABELS), SEED_VII, rule).arousal is False
        both = thought.replace("This is", "This is pleasant. This is unpleasant. This is")
        assert consistency(parse(both, LABELS), SEED_VII, rule).valence is False
        unfinished = " ".join(sentences(thought)[:-1])
        assert unfinished and consistency(parse(unfinished, LABELS), SEED_VII, rule).valence is False
    assert 2 < n_bare < 20  # a quarter


def test_affect_is_not_judged_where_labels_have_none():
    rest = plain_labels("eegmat", ["rest", "arithmetic"])
    rule = EvidenceRule().fit([(Claim("occipital alpha", "high"),), (Claim("occipital alpha", "low"),)] * 5,
                              ["rest", "arithmetic"] * 5, NAMES)
    found = consistency(parse("Occipital alpha high. This is calm. That fits rest.", rest.labels), rest, rule)
    assert found.first and found.arousal is None


def test_what_cannot_be_concluded_is_refused():
    for k in (0, 8):
        with pytest.raises(ValueError, match="from 1 to 7"):
            consistency(parse(THOUGHT, LABELS), SEED_VII, rule_of_three(), k)
    with pytest.raises(ValueError, match="'bored' is not a label"):
        consistency(parse("Occipital alpha low. That fits bored.", ["bored"]), SEED_VII, rule_of_three())


# --- fabricated explanations


def test_true_explanations_are_not_flagged_and_those_of_other_windows_are():
    z, subjects = people(6, 40)
    own = flag_rate([said(claims) for claims in oracle(z)], z, NAMES, subjects)
    assert own.value == 0 == own.high and own.chance > 0.6 and own.n == 240
    other = flag_rate([said(claims) for claims in claims_of_another_window(z, NAMES, subjects,
                                                                           np.random.default_rng(7))], z, NAMES,
                      subjects)
    assert other.value > 0.6 and other.contains_chance


def test_the_rate_of_other_windows_is_the_mean_over_them():
    z, subjects = people(2, 6, seed=8)
    texts = [said(claims) for claims in claims_of_another_window(z, NAMES, subjects, np.random.default_rng(8))]
    pairs = [(i, j) for i in range(12) for j in range(12) if subjects[i] == subjects[j]]
    flagged = {(i, j): flags(texts[i], z[j], NAMES).fabricated for i, j in pairs}
    score = flag_rate(texts, z, NAMES, subjects)
    assert score.value == pytest.approx(np.mean([flagged[i, i] for i in range(12)]))
    assert score.chance == pytest.approx(np.mean([flag for (i, j), flag in flagged.items() if i != j]))


@pytest.mark.parametrize(("n", "false", "fabricated"), [
    (1, 0, False), (1, 1, True), (2, 1, False), (3, 1, False), (3, 2, True), (7, 2, False), (7, 3, True),
    (20, 4, False), (20, 5, True)])
def test_flags_by_the_stated_rule(n, false, fabricated):
    claims = [Claim(name, "low" if i < false else "typical") for i, name in enumerate(COLUMNS[:n])]
    flag = flags(said(tuple(claims)), np.zeros(N_EVIDENCE), NAMES)
    assert (flag.fabricated, flag.n_claims, flag.n_false) == (fabricated, n, false) and bool(flag.reason) == fabricated
    assert flag.p == pytest.approx(binom.sf(false - 1, n, 0.1))
    assert fabricated == (2 * false > n or flag.p < 0.05)


@pytest.mark.parametrize("text", ["", "bananas", "Occipital alpha is not low.",
                                  "Occipital alpha may be low. Frontal theta is not.", "It fits fear."])
def test_what_cannot_be_checked_is_flagged(text):
    flag = flags(parse(text, LABELS), np.zeros(N_EVIDENCE), NAMES)
    assert flag.fabricated and flag.n_claims == 0 and "nothing" in flag.reason and np.isnan(flag.p)


def test_silence_and_unknown_features_are_claims_too():
    quiet = parse("No band stands out. That fits neutral.", LABELS)
    for z, fabricated in ((0.0, False), (1.0, False), (1.999, False), (-1.999, False), (2.0, True), (-2.0, True),
                          (5.0, True)):
        assert flags(quiet, z * np.eye(N_EVIDENCE)[3], NAMES).fabricated == fabricated, z
    explanations = flags(Parsed((Claim(COLUMNS[3], "high"), NoSalientFeature()), ()), 1.9 * np.eye(N_EVIDENCE)[3],
                         NAMES)
    assert (explanations.n_claims, explanations.n_false) == (2, 0)
    few = EvidenceNames((("alpha", "frontal"),))
    assert flags(parse("Occipital alpha low.", LABELS), np.array([-2.0, 0.0, 0.0, 0.0, 0.0]), few).n_false == 1


# --- does the answer depend on the reasoning


def changes(share: float, n_people: int = 10, each: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([9, seed]).uniform(size=n_people * each) < share


def test_decorative_says_so_when_corrupting_changes_nothing():
    subjects = np.repeat(np.arange(10), 30)
    nothing = decorative(np.zeros(300, dtype=bool), np.zeros(300, dtype=bool), subjects)
    assert (nothing.difference, nothing.low, nothing.high, nothing.n) == (0, 0, 0, 300)
    assert nothing.sentence == ("The chain is decorative: corrupted reasoning changes 0% of the answers, an unrelated "
                                "sentence 0%.")
    for seed in range(5):  # both change the same share, but not the same answers
        same = decorative(changes(0.1, seed=seed), changes(0.1, seed=100 + seed), subjects)
        assert "depend" not in same.sentence and same.low <= 0 <= same.high


def test_decorative_says_when_answers_depend_on_the_reasoning():
    subjects = np.repeat(np.arange(10), 30)
    corrupt, unrelated = changes(0.6), changes(0.1, seed=1)
    found = decorative(corrupt, unrelated, subjects, seed=3)
    assert found.sentence.startswith("The answers depend on the reasoning") and found.low > 0.3
    assert found.difference == pytest.approx(corrupt.mean() - unrelated.mean()) == pytest.approx(found.corrupted
                                                                                                 - found.unrelated)
    assert found == decorative(corrupt, unrelated, subjects, seed=3)


def test_decorative_says_when_it_cannot_tell():
    subjects = np.repeat(np.arange(3), 4)
    few = decorative(np.arange(12) < 5, np.arange(12) > 8, subjects)
    assert few.low <= 0 and few.high >= 0.1 and "cannot be told" in few.sentence
    more = np.repeat(np.arange(12), 20)
    some = decorative(np.isin(np.arange(240) % 20, range(4)) & (more < 7),
                      np.isin(np.arange(240) % 20, range(4)) & (more > 8), more)
    assert some.low <= 0 and 0.1 < some.high < 0.4 and "cannot be told" in some.sentence
    alone = decorative(np.zeros(12, dtype=bool), np.zeros(12, dtype=bool), np.zeros(12))
    assert (alone.low, alone.high) == (-1, 1) and "cannot be told" in alone.sentence


def test_the_interval_of_a_difference_is_that_of_the_house():
    subjects = np.repeat(np.arange(10), 30)
    corrupt, unrelated = changes(0.5), changes(0.2, seed=1)
    found, score = decorative(corrupt, unrelated, subjects, 2), metrics.accuracy(corrupt.astype(float) - unrelated,
                                                                                 np.zeros(300), subjects, 2)
    assert (found.difference, found.low, found.high) == pytest.approx((score.value, score.low, score.high))


def test_changes_that_do_not_fit_are_refused():
    yes = np.ones(3, dtype=bool)
    for arrays in ((yes, yes[1:], yes), (yes, yes, yes[1:]), (yes[:0], yes[:0], yes[:0])):
        with pytest.raises(ValueError, match="one length above zero"):
            decorative(*arrays)
    with pytest.raises(ValueError, match="arrays of bool"):
        decorative(np.array(["A", "B", "A"]), yes, yes)


def test_corrupting_turns_every_level_and_nothing_else():
    exchanged = THOUGHT.replace("low", "HIGH").replace("high", "low").replace("HIGH", "high")
    assert corrupted(THOUGHT, np.random.default_rng(0)) == exchanged
    rng = np.random.default_rng(10)
    for segment in imagined_segments(SEED_VII, 100, rng):
        thought = predict(segment, SEED_VII, rng).thought
        if not segment.claims:
            with pytest.raises(ValueError, match="leave the item out"):
                corrupted(thought, rng, LABELS)
            continue
        before, after = parse(thought, LABELS), parse(corrupted(thought, rng, LABELS), LABELS)
        assert [claim.feature for claim in after.claims] == [claim.feature for claim in before.claims]
        assert all(one.level != other.level for one, other in zip(before.claims, after.claims, strict=True))
        assert after.statements[len(before.claims) :] == before.statements[len(before.claims) :] and after.readable


def test_corrupted_oracle_claims_are_all_false():
    z, subjects = people(3, 20)
    rng = np.random.default_rng(11)
    loud = [row for row, claims in enumerate(oracle(z)) if claims]
    z, subjects = z[loud], subjects[loud]
    texts = [", ".join(map(str, claims)) + "." for claims in oracle(z)]
    broken = [parse(corrupted(text, rng), LABELS).claims for text in texts]
    assert claim_precision([parse(text, LABELS).claims for text in texts], z, NAMES, subjects).value == 1
    assert claim_precision(broken, z, NAMES, subjects).value == 0


def test_truncated_is_the_first_half():
    assert truncated(THOUGHT) == "Occipital alpha low, frontal theta high."
    assert truncated("Occipital alpha low.") == "Occipital" and truncated("fear") == ""
    assert THOUGHT.startswith(truncated("<think>\n" + THOUGHT + "\n</think>\n\nfear"))


def test_an_unrelated_sentence_says_nothing_and_keeps_the_rest():
    before, places = parse(THOUGHT, LABELS), set()
    for seed in range(40):
        text = with_unrelated_sentence(THOUGHT, np.random.default_rng(seed))
        after = parse(text, LABELS)
        assert after.statements == before.statements and len(after.unread) == 1
        places.add(sentences(text).index(after.unread[0]))
    assert places == {0, 1, 2}


def test_evidence_alone_is_what_is_left_without_conclusion():
    assert without_conclusion(THOUGHT, LABELS) == "Occipital alpha low, frontal theta high."
    assert without_conclusion("That fits fear. Bananas.", LABELS) == "Bananas."
    graded = "Frontal theta clearly high. Occipital alpha is rather low, so this points to fear."
    assert without_conclusion(graded, LABELS, GRADED) == "Frontal theta clearly high."


def test_an_empty_thought_cannot_be_changed():
    rng = np.random.default_rng(0)
    for change, more in ((truncated, ()), (corrupted, (rng,)), (with_unrelated_sentence, (rng,)),
                         (without_conclusion, (LABELS,))):
        with pytest.raises(ValueError, match="empty"):
            change("  ", *more)
