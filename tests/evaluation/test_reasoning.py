"""Speakers of known honesty get the rates that plain counting gives them, and tampering tells who answers from the
thought."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from e2llm.core.bands import BANDS
from e2llm.core.chat import END_THINK, THINK, Item
from e2llm.core.claims import LEVEL_THRESHOLD, MAX_CLAIMS, Claim, EvidenceNames, salient_claims
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS
from e2llm.data import band_edits
from e2llm.data.band_edits import scale_band
from e2llm.data.dataset import Corpus
from e2llm.data.features import evidence, measure
from e2llm.data.normalization import FeatureStatistics
from e2llm.evaluation import reasoning
from e2llm.evaluation.reasoning import GeneratedExplanations
from e2llm.tasks.items import prediction_items
from e2llm.tasks.thought_parser import parse
from e2llm.training import augmentation

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
COLUMNS, LABELS = NAMES.columns, SEED_VII.labels
PEOPLE, EACH = 6, 14


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make_corpus(seed: int = 0) -> Corpus:
    """Six people, three of them for testing; feature 3 i of label i is low, one further feature is loud, the rest is
    typical or near it."""
    rng, n = np.random.default_rng(seed), PEOPLE * EACH
    labels = np.tile(np.arange(len(LABELS)), n // len(LABELS))
    z = rng.uniform(-1.2, 1.2, size=(n, len(COLUMNS)))
    z[np.arange(n), 3 * labels] = -3.0
    z[np.arange(n), 3 * rng.integers(len(LABELS), size=n) + 1] = rng.choice([-2.5, 2.5], size=n)
    subjects = np.repeat([f"s{i}" for i in range(PEOPLE)], EACH).astype(object)
    index = pd.DataFrame({"subject": subjects, "label": [LABELS[i] for i in labels], "intensity": 0.5,
                          "clip": np.arange(n) % 5})
    split = SimpleNamespace(train=np.arange(n // 2), test=np.arange(n // 2, n), fit=np.arange(n))
    return Corpus(SimpleNamespace(index=index), SEED_VII, split, None, z, NAMES, None, labels, subjects, subjects, None,
                  None)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus()


@pytest.fixture(scope="module")
def rows(corpus) -> np.ndarray:
    """Test windows, not in their order."""
    return np.random.default_rng(1).permutation(corpus.split.test)


def thought_of(claims: Sequence[Claim], label: str | None = None) -> str:
    evidence_said = f"Evidence: {', '.join(map(str, claims))}." if claims else "No band stands out."
    return evidence_said if label is None else f"{evidence_said} That fits {label}."


def explained_by(corpus: Corpus, rows: Sequence[int], thoughts: list[str],
            answers: list[str | None] | None = None) -> GeneratedExplanations:
    answers = answers or [None] * len(thoughts)
    texts = [f"{THINK}\n{thought}\n{END_THINK}\n\n{answer or ''}"
             for thought, answer in zip(thoughts, answers, strict=True)]
    return GeneratedExplanations(prediction_items(corpus, rows, 0), texts, thoughts,
                                 [parse(thought, LABELS) for thought in thoughts], answers)


def oracle(corpus: Corpus, rows: Sequence[int]) -> GeneratedExplanations:
    """Says what is measured and the true label."""
    labels = [LABELS[i] for i in corpus.labels[rows]]
    return explained_by(corpus, rows, [thought_of(salient_claims(corpus.z[row], NAMES), label)
                                  for row, label in zip(rows, labels, strict=True)], labels)


def opposite(claims: Sequence[Claim]) -> list[Claim]:
    return [Claim(claim.feature, "low" if claim.level == "high" else "high") for claim in claims]


def is_true(claim: Claim, z: np.ndarray) -> bool:
    value = z[COLUMNS.index(claim.feature)]
    return claim.level == ("high" if value >= LEVEL_THRESHOLD else "low" if value <= -LEVEL_THRESHOLD else "typical")


# --- what a model said


def test_thoughts_and_answers_are_read_from_the_text(corpus, monkeypatch):
    texts = [f"{THINK}\nOccipital alpha low. That fits fear.\n{END_THINK}\n\nfear", f"{THINK}\nOccipital alpha low",
             "sad.",
             f"{THINK}\n{END_THINK}\n\nbananas"]
    monkeypatch.setattr(reasoning, "generate", lambda engine, items: texts)
    items = prediction_items(corpus, corpus.split.test[:4], 0)
    explanations = reasoning.generate_explanations(None, corpus, items)
    assert explanations.items == items and explanations.texts == texts
    assert explanations.thoughts == ["Occipital alpha low. That fits fear.", "Occipital alpha low", "sad.", ""]
    assert explanations.answers == ["fear", None, "sad", None]
    assert explanations.claims == [(Claim("occipital alpha", "low"),
                                    )] * 2 + [()] * 2 and explanations.parsed[0].conclusion == "fear"


# --- are the claims true?


def test_an_oracle_one_without_claims_and_two_without_eeg(corpus, rows):
    said = {"oracle": oracle(corpus, rows).claims, "silent": [()] * len(rows),
            **reasoning.baseline_claims(corpus, rows, 0)}
    table = reasoning.claims_table(corpus, rows, said, 0).set_index(["name", "group"])
    assert [name for name, _ in table.index[::2]] == list(said)
    assert set(table.index.get_level_values(1)) == {"precision", "recall"}
    n_salient = sum(int((np.abs(corpus.z[row]) >= 2.0).sum()) for row in rows)
    for measure_name in ("precision", "recall"):
        best = table.loc[("oracle", measure_name)]
        assert best["score"] == best["low"] == 1 and best["chance"] < 0.6
        for other in ("training prior", "another window"):
            assert table.loc[(other, measure_name), "score"] < 0.7
    assert table.loc[("oracle", "recall"), "n"] == n_salient
    assert table.loc[("oracle", "precision"), "claims a window"] == np.mean([len(claims)
                                                                             for claims in said["oracle"]]) > 1
    assert np.isnan(table.loc[("silent", "precision"), "score"]) and table.loc[("silent", "recall"), "score"] == 0
    assert (table.loc["silent", "claims a window"] == 0).all()


def test_room_for_a_few_claims_recalls_all_that_can_be_asked(corpus, rows):
    """More features stand out than a text has room for: what is asked for is then bounded too."""
    loud = Corpus(**vars(corpus) | {"z": np.where(np.arange(len(COLUMNS)) < 12, 4.0 + np.arange(len(COLUMNS)),
                                                  corpus.z)})
    table = reasoning.claims_table(loud, rows, {"oracle": oracle(loud, rows).claims}, 0).set_index("group")
    recall = table.loc["recall"]
    assert recall["score"] == 1 and recall["n"] == MAX_CLAIMS * len(rows) and recall["claims a window"] == MAX_CLAIMS


def test_baselines_know_training_or_another_window_and_nothing_else(corpus, rows):
    found = reasoning.baseline_claims(corpus, rows, 3)
    blind = Corpus(**vars(corpus) | {"z": np.where(np.isin(np.arange(len(corpus.z)), rows)[:, None], -corpus.z,
                                                   corpus.z)})
    prior = found["training prior"]
    assert prior == reasoning.baseline_claims(blind, rows, 3)["training prior"] and len(set(prior)) == 1
    for row, claims in zip(rows, found["another window"], strict=True):
        others = [other for other in rows if other != row and corpus.subjects[other] == corpus.subjects[row]]
        assert claims in [salient_claims(corpus.z[other], NAMES) for other in others]
    assert found == reasoning.baseline_claims(corpus, rows, 3)


def test_precision_of_each_feature_is_a_plain_count(corpus, rows):
    rng = np.random.default_rng(2)
    claims = [[Claim(COLUMNS[i], str(rng.choice(["low", "typical", "high"])))
               for i in rng.choice(6, size=2, replace=False)] for _ in rows]
    table = reasoning.precision_by_feature(corpus, rows,
                                           explained_by(corpus, rows, [thought_of(said) for said in claims]),
                                           0)
    assert table["name"].tolist() == list(COLUMNS[:6])
    for _, line in table.iterrows():
        made = [(row, claim) for row, said in zip(rows, claims, strict=True)
                for claim in said if claim.feature == line["name"]]
        assert line["n"] == len(made) and line["score"] == pytest.approx(np.mean([is_true(claim, corpus.z[row])
                                                                                  for row, claim in made]))
        others = [np.mean([is_true(claim, corpus.z[other])
                           for other in rows if other != row and corpus.subjects[other] == corpus.subjects[row]])
                  for row, claim in made]
        assert line["chance"] == pytest.approx(np.mean(others))
    assert reasoning.precision_by_feature(corpus, rows, explained_by(corpus, rows, ["No band stands out."] * len(rows)),
                                          0).empty


# --- whole explanations


def test_permuted_chance_is_the_mean_over_the_persons_other_windows():
    rng = np.random.default_rng(3)
    hits, codes = rng.uniform(size=(9, 9)) < 0.4, np.array([2, 0, 0, 2, 1, 0, 2, 2, 0])
    expected = []
    for i in range(9):
        others = [hits[i, j] for j in range(9) if j != i and codes[j] == codes[i]]
        expected.append(sum(others) / len(others) if others else 0.0)
    np.testing.assert_allclose(reasoning._permuted_chance(hits, codes), expected)


FOLLOWS, AMONG = "conclusion follows from the claims", "conclusion is among the two likeliest"


def test_explanations_of_an_oracle_follow_from_their_claims(corpus, rows):
    pick = [row for row in rows if len(salient_claims(corpus.z[row], NAMES)) > 1]
    table = reasoning.explanations_table(corpus, np.array(pick), oracle(corpus, pick), 0).set_index("name")
    assert table.loc["every sentence is read", "score"] == 1 and table.loc["flagged as fabricated", "score"] == 0
    assert table.loc["flagged as fabricated", "chance"] > 0.5
    truth, subjects = corpus.labels[pick], corpus.subjects[pick]
    same = [np.mean([truth[j] == truth[i] for j in range(len(pick)) if j != i and subjects[j] == subjects[i]])
            for i in range(len(pick))]
    assert table.loc[FOLLOWS, "score"] == 1 and table.loc[FOLLOWS, "chance"] == pytest.approx(np.mean(same), abs=1e-9)
    assert table.loc[AMONG, "score"] == 1 and table.loc[AMONG, "chance"] >= table.loc[FOLLOWS, "chance"]
    assert table.loc[FOLLOWS, "n"] == len(pick) and "valence word fits the conclusion" not in table.index


def test_explanations_of_a_fabricator_are_flagged_and_do_not_follow(corpus, rows):
    conclusions = [LABELS[(i + 3) % len(LABELS)] for i in corpus.labels[rows]]
    turned = [thought_of(opposite(salient_claims(corpus.z[row], NAMES)), label)
              for row, label in zip(rows, conclusions, strict=True)]
    table = reasoning.explanations_table(corpus, rows, explained_by(corpus, rows, turned), 0).set_index("name")
    assert table.loc["flagged as fabricated", "score"] == 1 and table.loc[FOLLOWS, "score"] < 0.4
    own = [thought_of(salient_claims(corpus.z[row], NAMES), label)
           for row, label in zip(rows, conclusions, strict=True)]
    table = reasoning.explanations_table(corpus, rows, explained_by(corpus, rows, own), 0).set_index("name")
    # True claims, another conclusion
    assert table.loc["flagged as fabricated", "score"] == 0 and table.loc[FOLLOWS, "score"] == 0


def test_affect_words_and_unread_sentences_are_counted(corpus, rows):
    fear = [row for row in rows if LABELS[corpus.labels[row]] == "fear"]
    words = ["This is unpleasant and activated.", "This is pleasant and activated."] * (len(fear) // 2)
    thoughts = [f"Occipital alpha low. {word} That fits fear." for word in words]
    thoughts[0] = f"The moon may be full. {thoughts[0]}"
    table = reasoning.explanations_table(corpus, np.array(fear), explained_by(corpus, fear, thoughts),
                                         0).set_index("name")
    assert table.loc["valence word fits the conclusion", ["score", "n"]].tolist() == [0.5, len(fear)]
    assert table.loc["arousal word fits the conclusion", "score"] == 1
    assert table.loc["every sentence is read", "score"] == pytest.approx(1 - 1 / len(fear))
    assert table.loc[["every sentence is read", "valence word fits the conclusion"], "chance"].isna().all()


def test_explanations_without_a_conclusion_have_no_row_for_it(corpus, rows):
    table = reasoning.explanations_table(corpus, rows,
                                         explained_by(corpus, rows, ["", *["Occipital alpha low."] * (len(rows) - 1)]),
                                         0)
    assert table["name"].tolist() == ["every sentence is read", "flagged as fabricated"]
    assert table["score"][0] == pytest.approx(1 - 1 / len(rows))


# --- does the answer depend on the reasons?


def scoring(answer: Callable[[str], str]) -> Callable:
    """A listener whose likeliest option is what ``answer`` makes of the thought that it is given."""
    def score_options(engine, items: list[Item], said: list[str]) -> list[np.ndarray]:
        assert all(text.startswith(f"{THINK}\n") and text.endswith(f"\n{END_THINK}\n\n") for text in said)
        return [np.log([0.9 if option == answer(text) else 0.1 for option in item.options])
                for item, text in zip(items, said, strict=True)]

    return score_options


def by_claims(text: str) -> str:
    """A label by the number of claims of a low level, whatever is concluded."""
    return LABELS[sum(claim.level == "low" for claim in parse(text, LABELS).claims) + 3 * bool("high" in text)]


def by_conclusion(text: str) -> str:
    return parse(text, LABELS).conclusion or LABELS[0]


@pytest.fixture(scope="module")
def spoken(corpus, rows) -> GeneratedExplanations:
    """True claims, all of them low, with the true label as conclusion."""
    labels = [LABELS[i] for i in corpus.labels[rows]]
    lows = [[claim for claim in salient_claims(corpus.z[row], NAMES) if claim.level == "low"] for row in rows]
    return explained_by(corpus, rows, [thought_of(said, label) for said, label in zip(lows, labels, strict=True)],
                        labels)


ARMS = ["claims turned round", "cut in half", "unrelated sentence", "thought of another window"]


def test_who_answers_from_the_claims_depends_on_them(corpus, spoken, monkeypatch):
    monkeypatch.setattr(reasoning, "score_options", scoring(by_claims))
    table, sentence = reasoning.interventions(None, corpus, spoken, 0)
    found = table.set_index("name")["score"]
    assert table["name"].tolist() == ARMS and found["claims turned round"] == 1 and found["unrelated sentence"] == 0
    assert (table["n"] == len(spoken.items)).all() and table["chance"].isna().all()
    assert sentence.startswith("The answers depend on the reasoning: corrupted reasoning changes 100% of the answers, "
                               "an unrelated sentence 0%")
    assert reasoning.interventions(None, corpus, spoken, 0)[0].equals(table)


def test_every_thought_is_replaced_by_that_of_another_window(corpus, spoken, monkeypatch):
    explanations, predicted_evidence = spoken._replace(thoughts=[f"{thought} Number {i}."
                                                                 for i, thought in enumerate(spoken.thoughts)]), []
    monkeypatch.setattr(reasoning, "_answers_after", lambda engine, items, thoughts: predicted_evidence.append(thoughts)
                        or ["happy"] * len(items))
    for seed in range(20):
        reasoning.interventions(None, corpus, explanations, seed)
        others, whole = predicted_evidence[-2:]
        assert whole == explanations.thoughts and set(others) == set(whole) and all(a != b
                                                                                    for a, b in zip(others, whole,
                                                                                                    strict=True))


def test_one_thought_has_no_other(corpus, spoken, monkeypatch):
    monkeypatch.setattr(reasoning, "score_options", scoring(by_claims))
    alone = spoken._replace(items=spoken.items[:1], thoughts=spoken.thoughts[:1])
    with pytest.raises(ValueError, match="no other window"):
        reasoning.interventions(None, corpus, alone, 0)


def test_who_ignores_the_thought_has_a_decorative_one(corpus, spoken, monkeypatch):
    monkeypatch.setattr(reasoning, "score_options", scoring(lambda text: "happy"))
    table, sentence = reasoning.interventions(None, corpus, spoken, 0)
    assert (table[["score", "low", "high"]] == 0).all(axis=None) and sentence.startswith("The chain is decorative")


def test_who_copies_the_conclusion_is_moved_by_another_thought_only(corpus, rows, spoken, monkeypatch):
    """Turned claims above an untouched conclusion would prove nothing, so the conclusion is gone in these arms."""
    monkeypatch.setattr(reasoning, "score_options", scoring(by_conclusion))
    table, sentence = reasoning.interventions(None, corpus, spoken, 0)
    found = table.set_index("name")["score"]
    assert (found[ARMS[:3]] == 0).all() and found[ARMS[3]] > 0.5 and sentence.startswith("The chain is decorative")
    alike = explained_by(corpus, rows, [f"{thought.split(' That fits')[0]} That fits fear."
                                        for thought in spoken.thoughts])
    table, _ = reasoning.interventions(None, corpus, alike, 0)
    assert (table["score"] == 0).all()  # another window's thought ends in its conclusion too


def test_thoughts_without_a_claim_are_left_out_and_some_are_needed(corpus, rows, spoken, monkeypatch):
    monkeypatch.setattr(reasoning, "score_options", scoring(by_claims))
    half = spoken.thoughts[::2]
    mute = explained_by(corpus, rows, [half[i // 2] if i % 2 == 0 else ("", "That fits fear.", "Bananas.")[i // 2 % 3]
                                  for i in range(len(rows))])
    assert (reasoning.interventions(None, corpus, mute, 0)[0]["n"] == len(half)).all()
    for nothing in ("", "That fits fear.", "No band stands out.", "Bananas."):
        with pytest.raises(ValueError, match="No thought about these windows holds a claim"):
            reasoning.interventions(None, corpus, explained_by(corpus, rows, [nothing] * len(rows)), 0)


# --- the signal is edited


SFREQ, SAMPLES = 256.0, 1024
CHANNELS = ["F3", "FZ", "F4", "C3", "C4", "T7", "T8", "P3", "P4", "O1", "OZ", "O2"]


@dataclass
class Engine:
    """What an inference engine is here: features and where each window's are."""

    features: np.ndarray | None
    position: dict[int, int]


@pytest.fixture(scope="module")
def recorded() -> Corpus:
    """Windows of three people with a signal, half of them the baseline; window 1 is flat, so that no edit of it is
    clear."""
    rng, n = np.random.default_rng(5), 36
    frequencies = np.fft.rfftfreq(n * SAMPLES, 1 / SFREQ)
    shape = np.where((frequencies > 0.5) & (frequencies < 60), 1.0, 0.0) / np.maximum(frequencies, 0.5) ** 0.75
    data = np.fft.irfft(np.fft.rfft(rng.normal(size=(len(CHANNELS), n * SAMPLES))) * shape, n=n * SAMPLES)
    data = (12 * data / data.std()).reshape(len(CHANNELS), n, SAMPLES).transpose(1, 0, 2).astype(np.float32)
    for row in range(n):
        for band in BANDS:
            for region in REGIONS:
                data[row] = scale_band(data[row], CHANNELS, SFREQ, band, region, rng.normal(0, 4.0))
    data[1] = 0.0
    power, spectral = measure(data, SFREQ, CHANNELS)
    values, names = evidence(power, spectral, CHANNELS)
    subjects = np.repeat(["a", "b", "c"], n // 3).astype(object)
    split = SimpleNamespace(fit=np.arange(0, n, 2), normalization="subject", train=np.arange(0, n, 2),
                            test=np.arange(1, n, 2))
    labels = np.arange(n) % len(LABELS)
    index = pd.DataFrame({"subject": subjects, "label": [LABELS[i] for i in labels], "intensity": 0.5, "clip": 0})
    windows = SimpleNamespace(data=data, power=power, shape=spectral, ch_names=CHANNELS, sfreq=SFREQ, index=index)
    statistics = FeatureStatistics.fit(values, subjects, split)
    return Corpus(windows, SEED_VII, split, None, statistics.z(values, subjects), names, None, labels, subjects,
                  subjects, statistics, None)


@pytest.fixture
def uses_evidence(monkeypatch, recorded):
    """The encoder's tokens are the evidence itself, and the model writes of it what ``explain`` writes."""
    def install(explain: Callable[[np.ndarray], str]) -> None:
        def generate_explanations(engine: Engine, corpus: Corpus, items: list[Item]) -> GeneratedExplanations:
            thoughts = [explain(engine.features[engine.position[item.windows[0]]]) for item in items]
            return explained_by(corpus, [item.windows[0] for item in items], thoughts,
                           [LABELS[text.count("high") % len(LABELS)] for text in thoughts])

        monkeypatch.setattr(reasoning, "generate_explanations", generate_explanations)
        monkeypatch.setattr(augmentation, "encode_edited",
                            lambda encoder, corpus, edits: band_edits.measure_edited(corpus, edits))

    return install


def test_texts_from_the_evidence_follow_edits_and_are_their_own_ceiling(recorded, uses_evidence):
    def explain(z: np.ndarray) -> str:
        return thought_of(salient_claims(z, recorded.evidence_names))

    uses_evidence(explain)
    rows = np.array([5, 3, 1, *np.random.default_rng(6).permutation(recorded.split.test[3:])])
    whole = Engine(recorded.z, {row: row for row in range(len(recorded.z))})
    explanations = reasoning.generate_explanations(whole, recorded, prediction_items(recorded, rows, 0))
    model, ceiling = reasoning.counterfactuals(whole, recorded, explanations, rows, None, 0)
    assert whole.features is recorded.z and len(model) == len(ceiling)
    assert set(rows) - {1} == set(model["row"])
    pd.testing.assert_frame_equal(model[ceiling.columns], ceiling)
    assert model["followed"].mean() >= 0.75  # a text has room for a few claims only
    assert (model["n_not_contradicted"] == model["n_untouched"]).all()
    assert model["feature"].nunique() > 5
    assert "answer_changed" in model and "answer_changed" not in ceiling and 0 < model["answer_changed"].mean() < 1
    again, _ = reasoning.counterfactuals(whole, recorded, explanations, rows, None, 0)
    pd.testing.assert_frame_equal(again, model)
    nearer, _ = reasoning.counterfactuals(whole, recorded, explanations, rows, None, 0, target=2.0)
    assert nearer["db"].abs().mean() < model["db"].abs().mean()


def test_texts_without_evidence_follow_nothing(recorded, uses_evidence):
    uses_evidence(lambda z: "No band stands out.")
    rows = recorded.split.test
    whole = Engine(recorded.z, {row: row for row in range(len(recorded.z))})
    explanations = reasoning.generate_explanations(whole, recorded, prediction_items(recorded, rows, 0))
    model, ceiling = reasoning.counterfactuals(whole, recorded, explanations, rows, None, 0)
    assert not model["followed"].any() and not model["answer_changed"].any() and ceiling["followed"].mean() >= 0.75


# --- two models


MEASURES = ["claim precision", "claim recall", "accuracy"]


def half_true(corpus: Corpus, rows: np.ndarray, seed: int = 0) -> GeneratedExplanations:
    """One true claim and one false one of every window; every second answer is right."""
    truths = [salient_claims(corpus.z[row], NAMES)[0] for row in rows]
    labels = [LABELS[(label + i % 2) % len(LABELS)] for i, label in enumerate(corpus.labels[rows])]
    false = [Claim("occipital beta", "high" if corpus.z[row, COLUMNS.index("occipital beta")] < LEVEL_THRESHOLD
                   else "low") for row in rows]
    return explained_by(corpus, rows, [thought_of(pair) for pair in zip(truths, false, strict=True)], labels)


def test_equal_models_gain_nothing_and_a_better_one_gains(corpus, rows):
    poor, good = half_true(corpus, rows), oracle(corpus, rows)
    same = reasoning.feedback_table(corpus, rows, poor, poor)
    assert same["name"].tolist() == MEASURES and (same[["score", "low", "high", "chance"]] == 0).all(axis=None)
    assert same["before"].equals(same["after"]) and same["n"].tolist() == [len(rows)] * 3
    more = reasoning.feedback_table(corpus, rows, poor, good).set_index("name")
    assert (more["low"] > 0).all() and (more["after"] == 1).all() and more.loc["claim precision",
                                                                               "score"] == pytest.approx(0.5)
    np.testing.assert_allclose(more["score"], more["after"] - more["before"])
    less = reasoning.feedback_table(corpus, rows, good, poor).set_index("name")
    assert (less["high"] < 0).all()


def test_people_count_alike_and_are_counted_by_hand(corpus, rows):
    explanations = half_true(corpus, rows)
    table = reasoning.per_person(corpus, rows, explanations)
    assert list(table.columns) == MEASURES and set(table.index) == {"s3", "s4", "s5"}
    for who, line in table.iterrows():
        own = [i for i, row in enumerate(rows) if corpus.subjects[row] == who]
        true = [is_true(claim, corpus.z[rows[i]]) for i in own for claim in explanations.claims[i]]
        asked = [(i, claim) for i in own for claim in salient_claims(corpus.z[rows[i]], NAMES, beyond=2.0)]
        right = [explanations.answers[i] == LABELS[corpus.labels[rows[i]]] for i in own]
        assert line.tolist() == pytest.approx([np.mean(true),
                                               np.mean([claim in explanations.claims[i] for i, claim in asked]),
                                               np.mean(right)])


def test_without_claims_there_is_no_precision_to_compare(corpus, rows):
    without = explained_by(corpus, rows, ["No band stands out."] * len(rows))
    table = reasoning.feedback_table(corpus, rows, without, oracle(corpus, rows)).set_index("name")
    assert np.isnan(table.loc["claim precision", "score"]) and table.loc["claim precision", "subjects"] == 0
    assert table.loc["claim recall", "score"] > 0.5 and table.loc["claim recall",
                                                                  "subjects"] == len(set(corpus.subjects[rows]))


def test_each_explanation_is_judged_in_its_own_row(corpus, rows):
    right = [Claim(COLUMNS[3 * corpus.labels[row]], "low") for row in rows]  # z = -3
    wrong = [Claim(claim.feature, "high") for claim in right]
    truths = [LABELS[corpus.labels[row]] for row in rows]
    said = [[right[0]], [wrong[1]], [], *[[one, other] for one, other in zip(right[3:], wrong[3:], strict=True)]]
    found = reasoning.judged(corpus, explained_by(corpus, rows, [thought_of(claims) for claims in said],
                                                  [truths[0], None, *truths[2:]]))
    assert found["window"].tolist() == list(rows) and found["truth"].tolist() == truths
    assert found["true"].tolist() == [1, 0, 0] + [1] * (len(rows) - 3)
    assert found["false"].tolist() == [0, 1, 0] + [1] * (len(rows) - 3)
    assert found["answer"].tolist() == [truths[0], "", *truths[2:]]


def test_people_without_claims_are_left_out_on_both_sides(corpus, rows):
    thoughts = oracle(corpus, rows).thoughts
    first = corpus.subjects[rows] == corpus.subjects[rows[0]]
    silent = explained_by(corpus, rows, ["No band stands out." if own else thought
                                    for own, thought in zip(first, thoughts, strict=True)])
    row = reasoning.feedback_table(corpus, rows, silent, oracle(corpus, rows)).set_index("name").loc["claim precision"]
    assert row["subjects"] == len(set(corpus.subjects[rows])) - 1 and (row["before"], row["after"],
                                                                       row["score"]) == (1.0, 1.0, 0.0)


def test_a_thought_of_punctuation_does_not_stop_a_review(corpus, rows, spoken, monkeypatch):
    monkeypatch.setattr(reasoning, "score_options", scoring(by_claims))
    broken = spoken._replace(thoughts=["...", *spoken.thoughts[1:]])
    table, _ = reasoning.interventions(None, corpus, broken, 0)
    whole, _ = reasoning.interventions(None, corpus, spoken, 0)
    assert table["n"].iloc[0] == whole["n"].iloc[0] - 1
