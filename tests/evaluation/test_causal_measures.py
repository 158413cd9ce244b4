"""Every measure of whether an answer follows from its claims tells planted models apart; closed forms beside them."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from e2llm.core.bands import BANDS
from e2llm.core.claims import Claim, EvidenceNames, salient_claims
from e2llm.core.labels import plain_labels
from e2llm.core.montage import REGIONS
from e2llm.evaluation import reasoning
from e2llm.evaluation.causal_measures import (
    EFFECTS,
    LEAST,
    SILENT,
    CausalTables,
    causal_measures,
    distance,
    donors,
    from_claims,
    log_gain,
    replaced,
    simulatability,
    turned_round,
)
from e2llm.evaluation.faithfulness import claim_precision, consistency, decorative
from e2llm.evaluation.planted_models import beside_planted, computed, mixed, startled
from e2llm.evaluation.planted_models import decorative as decorative_model
from e2llm.evaluation.reasoning import GeneratedExplanations
from e2llm.evaluation.thought_causes import foretold_answers
from e2llm.models.evidence_rule import EvidenceRule
from e2llm.models.inference import InferenceEngine
from e2llm.tasks.thought_parser import Parsed, parse

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
LABELS = ("calm", "tense", "glad", "tired")
A, B, C = (Claim(name, "low") for name in NAMES.columns[:3])
HIGH = {claim: Claim(claim.feature, "high") for claim in (A, B, C)}


class World:
    """Ten people; four labels move some features. The EEG tells the label better than two levels of ten features do."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        n, patterns = 800, rng.normal(scale=0.4, size=(len(LABELS), len(NAMES.columns)))
        self.labels = rng.integers(len(LABELS), size=n)
        self.z = patterns[self.labels] + rng.normal(size=(n, len(NAMES.columns)))
        self.train, self.test = np.arange(400), np.arange(400, n)
        self.subjects = np.repeat([f"s{i}" for i in range(10)], 40)
        self.claims = [salient_claims(row, NAMES) for row in self.z]
        said = [LABELS[i] for i in self.labels]
        self.rule = EvidenceRule().fit([self.claims[i] for i in self.train], [said[i] for i in self.train], NAMES)
        logits = -0.5 * ((self.z[:, None] - patterns[None]) ** 2).sum(axis=2)
        eeg = np.exp(logits - logits.max(axis=1, keepdims=True))
        self.eeg = eeg / eeg.sum(axis=1, keepdims=True)
        self.stated = [self.claims[i] for i in self.test]

    def model(self, weight: float):
        """From the EEG (weight 0) to the claims (1)."""
        return mixed(decorative_model(self.eeg[self.test]), computed(self.rule, LABELS), weight)

    def tables(self, model) -> CausalTables:
        return causal_measures(model, self.stated, self.subjects, {"unrelated sentence": model})


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def planted(world) -> dict[float, pd.DataFrame]:
    return {weight: world.tables(world.model(weight)).measures.set_index("name") for weight in (0.0, 0.5, 1.0)}


# --- planted models


@pytest.mark.parametrize("name", EFFECTS)
def test_every_effect_tells_a_decorative_chain_from_one_that_is_computed_with(planted, name):
    less, more = (planted[weight].loc[name] for weight in (0.0, 1.0))
    if EFFECTS[name] == "less":
        less, more = more, less
    assert less["high"] < more["low"] and less["better"] == EFFECTS[name]


@pytest.mark.parametrize("name", EFFECTS)
def test_effects_grow_with_the_weight_of_the_claims(planted, name):
    scores = np.array([planted[weight].loc[name, "score"] for weight in (0.0, 0.5, 1.0)])
    steps = np.diff(scores) * (1 if EFFECTS[name] == "more" else -1)
    assert (steps >= -1e-9).all() and steps.sum() > 0


def test_effects_of_planted_models_have_their_known_values(planted):
    decorated, derived = planted[0.0], planted[1.0]
    for name in ("directed success", "turned round", "turned round, fall of own answer", "turned round, distance",
                 "indirect effect", "indirect effect, distance", "share of the effect that claims carry"):
        assert decorated.loc[name, ["score", "low", "high"]].tolist() == [0, 0, 0], name
    for name in ("directed success", "share of the effect that claims carry"):
        assert derived.loc[name, ["score", "low", "high"]].tolist() == pytest.approx([1, 1, 1]), name
    for name in ("direct effect", "direct effect, distance"):
        assert derived.loc[name, ["score", "low", "high"]].tolist() == [0, 0, 0], name
    assert set(decorated.index) == {*EFFECTS, f"{SILENT}reordered claims", f"{SILENT}unrelated sentence"}


def test_silence_alone_says_nothing(planted):
    for table in planted.values():
        rows = table[table.index.str.startswith(SILENT)]
        assert (rows["score"] == 1).all() and (rows["better"] == "condition").all()
    assert (planted[0.0].filter(like=SILENT, axis=0)["chance"] == 1).all()
    assert (planted[1.0].filter(like=SILENT, axis=0)["chance"] < 0.3).all()  # a donor's claims do move it


def test_who_is_startled_by_any_change_follows_none(world, planted):
    """Changed answers and distances are high without a direction: what follows the donor stays at its control."""
    tables = world.tables(startled(world.eeg[world.test], world.stated))
    found = tables.measures.set_index("name")
    for name in ("turned round", "turned round, distance", "indirect effect, distance"):
        assert found.loc[name, "score"] >= planted[1.0].loc[name, "score"] - 0.05, name
    success = found.loc["directed success"]
    assert success["high"] < planted[1.0].loc["directed success", "low"]
    assert success["low"] <= success["chance"] <= success["high"]


def test_a_model_stands_first_beside_planted_ones_with_its_own_claims(world, planted):
    model, deaf = world.model(1.0), world.eeg[world.test]
    found = beside_planted("LLM", model, world.stated, world.subjects, deaf, world.rule, LABELS, {"noise": model})
    assert list(found) == ["LLM", "decorative", "half", "computed", "upset"]
    assert f"{SILENT}noise" in set(found["LLM"].measures["name"])
    for name, weight in (("decorative", 0.0), ("half", 0.5), ("computed", 1.0)):
        expected = planted[weight].drop(f"{SILENT}unrelated sentence")
        pd.testing.assert_frame_equal(found[name].measures.set_index("name"), expected)


def test_a_planted_model_that_cannot_be_measured_is_left_out_loudly(world):
    model, same = world.model(1.0), np.tile(world.eeg[world.test][:1], (len(world.test), 1))
    fact = "The planted model 'decorative' is left out of the comparison. The model gives one answer to all windows"
    with pytest.warns(UserWarning, match=fact):
        found = beside_planted("LLM", model, world.stated, world.subjects, same, world.rule, LABELS)
    assert {"LLM", "computed"} <= set(found) and "decorative" not in found


def test_the_dose_rises_to_the_donors_answer(world):
    derived, decorated = (world.tables(world.model(weight)).dose for weight in (1.0, 0.0))
    share = derived[derived["unit"] == "share"].set_index("name")["score"]
    assert list(share.index) == ["1", "2", "4", "8", "all"] and (share.diff().dropna() > 0).all()
    assert share["1"] < 0.3 and share["all"] == 1 and (decorated["score"] == 0).all()
    gain = derived[derived["unit"] == "nats"].set_index("name")
    assert (gain["score"].diff().dropna() > 0).all() and (gain["low"]["2":] > gain["chance"]["2":]).all()


def test_claims_that_say_everything_are_simulated_whether_they_decide_or_not(world):
    """Agreement of a reader is no measure of faithfulness: a decorative chain beside the same evidence reaches it."""
    train, test = world.train, world.test
    claims = [world.claims[i] for i in train]
    said = {"computed": np.array([world.rule.ranked(each)[0] for each in world.claims]),
            "from the EEG": np.array(LABELS)[world.eeg.argmax(axis=1)]}
    found = {name: simulatability(claims, each[train], world.stated, each[test], NAMES, world.subjects)
             for name, each in said.items()}
    assert found["computed"].low > 0.8 and found["computed"].low > found["from the EEG"].high
    assert found["from the EEG"].low > 0.5 > 2 * found["from the EEG"].chance - 0.1  # high, although no claim was read
    deaf = decorative_model(world.rule.probabilities(world.stated, LABELS))  # the same answers, kept beside the claims
    table = causal_measures(deaf, world.stated, world.subjects).measures.set_index("name")
    assert table.loc["directed success", "score"] == 0


def test_what_was_reported_before_does_not_measure_whether_claims_decide(world):
    """Precision and consistency compare a text with the signal and with itself: an answer beside the claims keeps both.

    Changed answers minus those by an unrelated sentence do tell the planted models apart.
    """
    z, subjects, label_set = world.z[world.test], world.subjects, plain_labels("planted", LABELS)
    score = claim_precision(world.stated, z, NAMES, subjects)  # takes no answer at all
    assert score.value == 1
    rows, read = np.arange(len(world.test)), world.rule.probabilities(world.stated, LABELS)
    fits = {}
    for name, model in {"beside": decorative_model(read), "computed": computed(world.rule, LABELS)}.items():
        concluded = [LABELS[i] for i in model(rows, world.stated).argmax(axis=1)]
        said = [f"{', '.join(map(str, claims))}. " if claims else "" for claims in world.stated]
        thoughts = [parse(f"{evidence}That fits {label}.", LABELS)
                    for evidence, label in zip(said, concluded, strict=True)]
        fits[name] = [consistency(each, label_set, world.rule).first for each in thoughts]
        turned = [turned_round(each) for each in world.stated]
        changed = model(rows, turned).argmax(axis=1) != model(rows, world.stated).argmax(axis=1)
        verdict = decorative(changed, np.zeros(len(rows), dtype=bool), subjects)
        assert verdict.sentence.startswith("The chain is" if name == "beside" else "The answers depend")
    assert fits["beside"] == fits["computed"] and np.mean(fits["beside"]) > 0.95


def test_which_edits_of_texts_tell_planted_models_apart(world, monkeypatch):
    """Turned claims do; an unrelated sentence moves none of them; another thought moves also who copies conclusions."""
    labels, rows = plain_labels("planted", LABELS), [i for i, claims in enumerate(world.stated) if claims]
    who = [SimpleNamespace(row=i, subject=world.subjects[i], answer=LABELS[world.labels[world.test[i]]]) for i in rows]
    seen = {item.row: LABELS[world.eeg[world.test[item.row]].argmax()] for item in who}
    texts = [f"{', '.join(map(str, world.stated[item.row]))}. That fits {seen[item.row]}." for item in who]
    spoken = reasoning.GeneratedExplanations(who, texts, texts, [parse(text, LABELS) for text in texts], [])
    listeners = {"decorative": lambda item, read: seen[item.row],
                 "copies": lambda item, read: read.conclusion or seen[item.row],
                 "computed": lambda item, read: world.rule.ranked(read.claims)[0]}
    found = {}
    for name, listener in listeners.items():
        monkeypatch.setattr(reasoning, "_answers_after", lambda engine, items, thoughts, listener=listener: [
            listener(item, parse(thought, LABELS)) for item, thought in zip(items, thoughts, strict=True)])
        table, _ = reasoning.interventions(None, SimpleNamespace(label_set=labels, evidence_names=NAMES), spoken, 0)
        found[name] = table.set_index("name")
    for arm in ("claims turned round", "cut in half"):
        assert found["computed"].loc[arm, "low"] > 0.1
        assert found["decorative"].loc[arm, "score"] == found["copies"].loc[arm, "score"] == 0
    assert all(table.loc["unrelated sentence", "score"] == 0 for table in found.values())
    copied, computed_with = (found[name].loc["thought of another window"] for name in ("copies", "computed"))
    assert copied["high"] > computed_with["low"] and found["decorative"].loc["thought of another window", "score"] == 0


def test_a_single_verdict_on_two_interventions_is_not_the_share_of_answers_that_follow(world):
    """Half the weight on the claims suffices for "depend on the reasoning"; most answers follow no donor."""
    weak, rows = world.model(0.5), np.arange(len(world.test))
    changed = (weak(rows, [turned_round(each) for each in world.stated]).argmax(axis=1)
               != weak(rows, world.stated).argmax(axis=1))
    assert decorative(changed, np.zeros(len(rows), dtype=bool), world.subjects).low > 0
    success = world.tables(weak).measures.set_index("name").loc["directed success"]
    assert success["high"] < 0.5


# --- closed forms


def test_levels_are_mirrored_around_the_middle():
    typical = Claim(A.feature, "typical")
    assert turned_round((A, HIGH[B], typical)) == (HIGH[A], B, typical)
    five = ("very low", "low", "typical", "high", "very high")
    said = tuple(Claim(A.feature, level) for level in five)
    assert turned_round(said, five) == said[::-1]
    assert turned_round(turned_round((A, HIGH[C]))) == (A, HIGH[C])


def test_replaced_claims_are_nested_and_end_with_the_donors():
    own, donor = (A, B), (HIGH[B], C)
    states = [set(replaced(own, donor, n, np.random.default_rng(5))) for n in (0, 1, 2, 3, np.inf)]
    assert states[0] == set(own) and states[3] == states[4] == set(donor)
    moved = [states[0] ^ state for state in states]
    assert all(a <= b for a, b in pairwise(moved)) and len({frozenset(s) for s in states}) == 4
    assert replaced(own, donor, np.inf, np.random.default_rng(0)) == donor
    assert replaced((A,), (A,), 3, np.random.default_rng(0)) == (A,)
    firsts = {frozenset(replaced(own, donor, 1, np.random.default_rng(seed))) for seed in range(30)}
    assert firsts == {frozenset({B}), frozenset({A, HIGH[B]}), frozenset({A, B, C})}


def test_donors_answer_otherwise_and_are_of_the_same_person_where_possible():
    answers, subjects = np.array([0, 1, 0, 2, 2]), np.array(["a", "a", "a", "b", "b"])
    for seed in range(20):
        found = donors(answers, subjects, np.random.default_rng(seed))
        assert found[0] == 1 and found[2] == 1 and found[1] in (0, 2)
        assert set(found[3:]) <= {0, 1, 2}  # b gives one answer: any window of a
    with pytest.raises(ValueError, match="one answer to all windows"):
        donors(np.zeros(3, dtype=int), np.array(["a", "b", "c"]), np.random.default_rng(0))


def test_donors_are_of_the_fold_whose_model_is_asked():
    answers, subjects, folds = np.array([0, 0, 1, 1, 0, 1]), np.array(list("aabbcc")), np.array([0, 0, 0, 0, 1, 1])
    for seed in range(20):
        found = donors(answers, subjects, np.random.default_rng(seed), folds)
        assert (folds[found] == folds).all() and (answers[found] != answers).all()
    with pytest.raises(ValueError, match="one answer to all windows of fold 1"):
        donors(answers, subjects, np.random.default_rng(0), np.array([0, 0, 0, 1, 0, 1]))


def test_log_gain_and_distance_by_hand():
    before, after = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [0.0, 1.0]])
    assert log_gain(before, after, np.array([1, 1])) == pytest.approx([np.log(1.5), -np.log(LEAST)])
    mean = [0.375, 0.625]
    bits = sum(0.5 * p * np.log2(p / m) for row in (before[0], after[0]) for p, m in zip(row, mean, strict=True))
    assert distance(before, after) == pytest.approx([np.sqrt(bits), 1.0])
    assert (distance(before, before) == 0).all()


def toy(rows: np.ndarray, claims) -> np.ndarray:
    """A low first feature is answered by 0, a high one by 1, none evenly; the EEG of odd rows pulls towards 1."""
    levels = [{claim.feature: claim.level for claim in each}.get(A.feature) for each in claims]
    first = np.array([{"low": 0.9, "high": 0.2, None: 0.5}[level] for level in levels])
    first = first - 0.05 * (np.asarray(rows) % 2)
    return np.stack([first, 1 - first], axis=1)


def test_measures_by_hand():
    claims = [(A,), (HIGH[A],), (A,), (HIGH[A],)]
    tables = causal_measures(toy, claims, np.array(["a", "a", "b", "b"]), {"noise": from_claims(
        lambda stated: np.array([[0.1, 0.9]] * len(stated)))})
    found = tables.measures.set_index("name")
    assert found["score"].to_dict() == pytest.approx({
        "directed success": 1.0, "turned round": 1.0,
        "turned round, fall of own answer": np.mean([np.log(0.9 / 0.2), np.log(0.85 / 0.15)]),
        "turned round, distance": np.mean([distance(np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])),
                                           distance(np.array([[0.15, 0.85]]), np.array([[0.85, 0.15]]))]),
        "empty thought, largest probability": 0.525,
        "indirect effect": np.mean([np.log(0.8 / 0.1), np.log(0.85 / 0.15)]),
        "direct effect": np.mean([np.log(0.15 / 0.1), np.log(0.2 / 0.15)]),
        "share of the effect that claims carry": np.log(0.8 / 0.1 * 0.85 / 0.15) / np.log(0.85 / 0.1 * 0.9 / 0.15),
        "indirect effect, distance": np.mean([distance(np.array([[0.9, 0.1]]), np.array([[0.2, 0.8]])),
                                              distance(np.array([[0.15, 0.85]]), np.array([[0.85, 0.15]]))]),
        "direct effect, distance": np.mean([distance(np.array([[0.9, 0.1]]), np.array([[0.85, 0.15]])),
                                            distance(np.array([[0.15, 0.85]]), np.array([[0.2, 0.8]]))]),
        f"{SILENT}reordered claims": 1.0, f"{SILENT}noise": 0.5})
    assert found.loc["directed success", "chance"] == 1  # with two answers the other one is every donor's
    assert found.loc["empty thought, largest probability", "chance"] == 0.5
    assert np.isnan(found.loc["indirect effect", "chance"])  # no third option
    assert tables.sentence == ("In 100 of 100 cases (100 to 100) the answer follows when the stated evidence is "
                               "exchanged for that of another window.")


def test_windows_without_a_level_to_turn_are_left_out():
    claims = [(A,), (HIGH[A],), (), (Claim(A.feature, "typical"), HIGH[B])]

    def answer(rows, stated):
        return np.array([[0.9, 0.1] if A in each else [0.1, 0.9] for each in stated])

    found = causal_measures(answer, claims, np.array(list("aabb"))).measures.set_index("name")
    assert found.loc["turned round", "n"] == 3 and found.loc["directed success", "n"] == 4
    mute = causal_measures(decorative_model(np.eye(2)), [(), ()], np.array(["a", "b"])).measures
    assert "turned round" not in set(mute["name"])


def test_the_seed_decides_and_people_are_drawn_whole(world):
    model = world.model(0.5)
    one, two = (causal_measures(model, world.stated, world.subjects, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(one.measures, two.measures)
    pd.testing.assert_frame_equal(one.dose, two.dose)
    alone = causal_measures(model, world.stated, np.full(len(world.test), "s"), seed=3).measures.set_index("name")
    assert alone.loc["directed success", ["low", "high"]].tolist() == [0, 1]  # one person tells nothing of others
    without_bounds = alone[(alone["unit"] == "nats") | (alone.index == "share of the effect that claims carry")]
    assert len(without_bounds) == 4 and without_bounds[["low", "high"]].isna().all(axis=None), "these are no shares"


@pytest.mark.parametrize(("answer", "claims", "subjects", "message"), [
    (toy, [(A,)], ["a", "b"], "one subject for every window"),
    (toy, [], [], "a window at least"),
    (lambda rows, claims: np.ones((len(rows), 2)), [(A,), (B,)], ["a", "a"], "rows sum to one"),
    (lambda rows, claims: np.ones(len(rows)), [(A,), (B,)], ["a", "a"], "rows sum to one"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused(answer, claims, subjects, message):
    with pytest.raises(ValueError, match=message):
        causal_measures(answer, claims, np.array(subjects))


def test_the_reader_is_fitted_on_answers_in_training_and_asked_about_each_model():
    """The second pass answers by the claims; the direct answer is another, and one of its texts has none."""
    def explained(claims, answers):
        n = len(claims)
        return GeneratedExplanations([SimpleNamespace(subject=f"s{i % 4}") for i in range(n)], [""] * n, [""] * n,
                                     [Parsed(each, ()) for each in claims], answers)

    label_set = plain_labels("two", ("calm", "tense"))
    corpus = SimpleNamespace(label_set=label_set, evidence_names=NAMES)
    second = SimpleNamespace(shares=lambda claims: np.array([[0.9, 0.1] if A in each else [0.1, 0.9]
                                                             for each in claims]))
    claims = [(A,), (HIGH[A],)] * 20
    mixed_up = ["calm", "calm", "tense", "tense"] * 10
    training, test = explained(claims, mixed_up), explained(claims, [None, *mixed_up[1:]])
    table = foretold_answers(second, corpus, training, test, 0).set_index("name")
    assert table.index.tolist() == ["LLM", "LLM, from the thought"]
    assert table.loc["LLM, from the thought", "score"] == 1 and table.loc["LLM", "score"] < 0.7
    assert table["n"].tolist() == [39, 40]
    constant = foretold_answers(None, corpus, explained(claims, ["calm"] * 40), test, 0)
    assert constant["name"].tolist() == ["LLM"] and constant["score"].isna().all()


def test_a_reader_by_hand():
    claims = [(A,), (HIGH[A],)] * 10
    said = ["calm", "tense"] * 10
    score = simulatability(claims, said, [(A,), (HIGH[A],), (A,)], ["calm"] * 3, NAMES, np.array(list("aaa")))
    assert score.value == pytest.approx(2 / 3) and score.chance == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    with pytest.raises(ValueError, match="an answer and a subject of every window"):
        simulatability(claims, said, claims, said[:3], NAMES, np.array(["a"] * 20))


def test_the_thought_is_written_from_the_claims_and_only_the_eeg_is_exchanged(monkeypatch):
    asked = []

    def score_options(engine, items, said):
        asked.append((engine.position, items, said))
        return [np.log([0.75, 0.25]) for _ in items]

    monkeypatch.setattr(reasoning, "score_options", score_options)
    engine, items = InferenceEngine(None, None, np.zeros(2), {7: 0, 9: 1}), [SimpleNamespace(windows=[7]),
                                                                            SimpleNamespace(windows=[9])]
    answer = reasoning.answer_after_claims(engine, items, lambda claims: f"{', '.join(map(str, claims))}.")
    for rows, position in (([0, 1], {7: 0, 9: 1}), ([1, 0], {7: 1, 9: 0})):
        assert answer(np.array(rows), [(A,), (A, B)]) == pytest.approx(np.array([[0.75, 0.25]] * 2))
        assert asked.pop() == (position, items, [f"<think>\n{said}.\n</think>\n\n" for said in (A, f"{A}, {B}")])
    assert engine.position == {7: 0, 9: 1}


def test_an_answer_from_the_eeg_alone_is_found_in_a_part_of_the_explanations(world, monkeypatch):
    """Against :func:`beside_planted` on the same windows, with a model that does not read its thought."""
    n = 2 * reasoning.CAUSAL_WINDOWS
    items = [SimpleNamespace(subject=world.subjects[i], windows=[i], options=list(LABELS)) for i in range(n)]
    said = SimpleNamespace(items=items, claims=world.stated[:n])
    eeg = world.eeg[world.test]

    def score_options(engine, items, thoughts=None):
        assert thoughts is None or all("Evidence:" in each or "No band" in each for each in thoughts)
        return [np.log(eeg[engine.position[item.windows[0]]]) for item in items]

    monkeypatch.setattr(reasoning, "score_options", score_options)
    monkeypatch.setattr(reasoning, "closed_set", lambda engine, items: eeg[[item.windows[0] for item in items]])
    monkeypatch.setattr(reasoning, "evidence_rule", lambda corpus: world.rule)
    engine = InferenceEngine(None, None, np.zeros(2), {i: i for i in range(n)})
    corpus = SimpleNamespace(label_set=SimpleNamespace(labels=LABELS), evidence_names=NAMES)
    found = reasoning.causes(engine, corpus, said, 0)
    assert next(iter(found)) == "LLM" and (found["LLM"].measures["n"].max() == reasoning.CAUSAL_WINDOWS)
    llm, beside = (found[name].measures.set_index("name")["score"] for name in ("LLM", "decorative"))
    assert llm["directed success"] == 0 == llm["indirect effect"]
    assert llm["direct effect"] == pytest.approx(beside["direct effect"])


def test_what_a_thought_can_carry_is_asked_of_both_kinds_of_evidence(world):
    predicted = world.z + np.random.default_rng(1).normal(size=world.z.shape)
    split = SimpleNamespace(train=world.train[:300], val=world.train[300:], test=world.test)
    who = np.concatenate([world.subjects, world.subjects])
    corpus = SimpleNamespace(z=world.z, predicted_evidence=predicted, labels=world.labels, subjects=who, split=split,
                             evidence_names=NAMES, label_set=LABELS)
    table = reasoning.capacity(corpus, 0).set_index(["name", "evidence"])["score"]
    exact = table["all, exact"]
    assert exact["measured"] > exact["predicted by the encoder"] > 1 / len(LABELS)
