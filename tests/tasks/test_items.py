"""Items ask without giving the answer away, and what they say of a segment was measured in it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, chisquare

from e2llm.core.bands import BANDS
from e2llm.core.claims import (
    EVIDENCE_THRESHOLD,
    GRADED,
    LOW_HIGH,
    MAX_CLAIMS,
    Claim,
    EvidenceNames,
    salient_claims,
)
from e2llm.core.labels import SEED_VII, LabelSet, plain_labels
from e2llm.core.montage import REGIONS
from e2llm.data.dataset import Corpus
from e2llm.evaluation.controls import other_windows
from e2llm.tasks import scenarios
from e2llm.tasks.items import (
    DESCRIBED,
    ItemBuilder,
    OneSubjectBuilder,
    describe,
    drill_items,
    parse_answer,
    read_items,
    text_items,
    write_items,
)
from e2llm.tasks.segments import Segment, imagined_segments, predicted_claims, real_segments
from e2llm.tasks.thought_parser import NoSalientFeature, parse
from e2llm.tasks.wordings import MATCH_WORDINGS, ZERO_MATCH_WORDINGS
from e2llm.training.stage2_alignment import alignment_items
from e2llm.training.stage3_instruction import instruction_items, replay_items

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
TRAINING = ("predict", "describe", "select", "compare", "rank", "match", "choose")
HELD_OUT = ("zero_predict", "zero_match", "zero_choose")
KINDS = (*TRAINING, *HELD_OUT)
N = 350


def make_index(labels=SEED_VII.labels, intensity: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"subject": rng.choice(["1", "2", "3"], N), "clip": rng.integers(1, 81, N),
                         "label": rng.choice(labels, N), "intensity": rng.uniform(size=N) if intensity
                         else np.full(N, np.nan)})


INDEX = make_index()
Z = np.random.default_rng(1).normal(size=(N, len(NAMES.columns)))
ROWS = np.arange(40, 260)


def build(seed: int = 0, rows=ROWS) -> ItemBuilder:
    return ItemBuilder(real_segments(INDEX, rows, Z, NAMES), SEED_VII, seed)


def text_of(item) -> str:
    """What stands in the question besides EEG."""
    return "".join(part["text"] if part["type"] == "text" else "#" for message in item.messages
                   for part in message["content"])


def listed_windows(item) -> list[int]:
    return [part["window"] for message in item.messages for part in message["content"] if part["type"] == "eeg"]


def label_of(item) -> list[str]:
    return [INDEX["label"][window] for window in listed_windows(item)]


def scenario_emotions(item) -> list[str]:
    """Emotions of the scenarios in a question: an identity begins with it ("fear/17")."""
    return [identity.partition("/")[0] for identity in item.texts]


def labels_in(text: str) -> set[str]:
    return set(SEED_VII.labels) & set(re.findall("[a-z]+", text))


def without_scenarios(item) -> str:
    """What is asked, without the scenarios that it is asked of."""
    text = text_of(item)
    if "match" in item.kind:
        return text[max(text.rfind(form) for form in (*MATCH_WORDINGS, *ZERO_MATCH_WORDINGS)) :]
    return text[: text.index("A: ")] if "choose" in item.kind else text


@pytest.mark.parametrize("kind", KINDS)
def test_items_are_seeded(kind):
    assert build(3).draw(kind, 20) == build(3).draw(kind, 20)
    assert build(3).draw(kind, 20) != build(4).draw(kind, 20)


def test_text_items_are_seeded():
    assert text_items(SEED_VII, 40, 3) == text_items(SEED_VII, 40, 3) != text_items(SEED_VII, 40, 4)
    assert drill_items(SEED_VII, 5, 3) == drill_items(SEED_VII, 5, 3) != drill_items(SEED_VII, 5, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_items_hold_only_windows_of_the_given_segments(kind):
    seen = set()
    for item in build().draw(kind, 300):
        assert item.windows == listed_windows(item)
        assert item.subject == INDEX["subject"][item.windows[0]]
        seen |= set(item.windows)
    assert seen <= set(ROWS.tolist()) and len(seen) > 100


def make_corpus() -> Corpus:
    part = np.random.default_rng(2).permutation(N)
    split = SimpleNamespace(train=np.sort(part[:200]), val=np.sort(part[200:260]), test=np.sort(part[260:]))
    windows = SimpleNamespace(index=INDEX)
    return Corpus(windows, SEED_VII, split, None, Z, NAMES, None, None, INDEX["subject"].to_numpy(), None, None, None)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_items_of_a_part_hold_only_windows_of_it(part):
    corpus = make_corpus()
    items = instruction_items(corpus, part, dict.fromkeys(KINDS, 40), 0) + alignment_items(corpus, part, 80, 0)
    used = {window for item in items for window in item.windows}
    assert used <= set(getattr(corpus.split, part).tolist()) and len(used) > 50
    assert all(not item.windows for item in replay_items(corpus, 20, 0))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "predict" not in kind])
def test_the_right_option_stands_anywhere_with_equal_chance(kind):
    items = build(5).draw(kind, 1500)
    if kind == "rank":
        items = [item for item in items if len(item.windows) == 3]
        places = Counter(item.answer for item in items)
        n_places = 6
    else:
        places = Counter(item.options.index(item.answer) for item in items)
        n_places = {"compare": 2, "describe": 4}.get(kind, 3)
    assert all(item.options.count(item.answer) == 1 for item in items)
    assert len(places) == n_places and chisquare(list(places.values())).pvalue > 0.001


def independent(pairs: list[tuple]) -> bool:
    table = pd.crosstab(*map(np.array, zip(*pairs, strict=True)))
    assert min(table.shape) > 1
    return chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize("kind", ["predict", "describe", "compare"])
def test_the_words_of_a_question_say_nothing_about_the_answer(kind):
    items = build(6).draw(kind, 1500)
    answers = [label_of(item)[0] for item in items] if kind == "describe" else [item.answer for item in items]
    assert independent([(text_of(item), answer) for item, answer in zip(items, answers, strict=True)])


@pytest.mark.parametrize("kind", ["match", "zero_match"])
def test_the_scenario_says_nothing_about_where_it_fits(kind):
    items = build(6).draw(kind, 1500)
    assert independent([(*scenario_emotions(item), item.answer) for item in items])
    assert independent([(without_scenarios(item), item.answer) for item in items])


def test_the_question_of_a_ranking_says_nothing_about_the_order():
    items = [item for item in build(6).draw("rank", 2500) if len(item.windows) == 3]
    assert independent([(text_of(item), item.answer) for item in items])


@pytest.mark.parametrize("kind", ["choose", "zero_choose"])
def test_the_scenarios_to_choose_from_say_nothing_about_the_choice(kind):
    items = build(6).draw(kind, 1500)
    assert all(len(set(scenario_emotions(item))) == 3 for item in items)
    for place in range(3):
        assert independent([(scenario_emotions(item)[place], item.answer) for item in items])


def test_half_of_the_choices_about_eeg_are_between_brief_texts():
    def lengths(items) -> np.ndarray:
        return np.array([len(text_of(item).split("A: ")[1].split()) / 3 for item in items])

    about_eeg = lengths(build(6).draw("choose", 400))
    in_words = lengths([item for item in text_items(SEED_VII, 4000, 0) if item.kind == "choose"])
    limit = np.percentile(in_words, 5)  # hardly any text that is told at length is as short
    assert 0.4 < np.mean(about_eeg < limit) < 0.6


def words_to_select(item) -> list[str]:
    return re.findall(r"[ABC]: (\w+)", text_of(item))


EMOTION_OF_WORD = {word: label for label in SEED_VII.labels for word in (label, *scenarios.feelings(label))}


def test_the_words_to_select_from_say_nothing_about_the_choice():
    items = build(6).draw("select", 1500)
    shown = [words_to_select(item) for item in items]
    assert all(len(set(map(EMOTION_OF_WORD.get, words))) == 3 for words in shown)
    for place in range(3):
        assert independent([(EMOTION_OF_WORD[words[place]], item.answer) for words,
                            item in zip(shown, items, strict=True)])
    assert len({word for words in shown for word in words}) > 40


def test_permuted_labels_change_no_question():
    permuted = INDEX.assign(label=np.random.default_rng(8).permutation(INDEX["label"]))
    for kind in ("predict", "describe", "zero_predict"):
        texts = []
        for index in (INDEX, permuted):
            items = ItemBuilder(real_segments(index, ROWS, Z, NAMES), SEED_VII, 1).draw(kind, 1000)
            texts.append(Counter(map(text_of, items)))
        assert set(texts[0]) == set(texts[1])
        if len(texts[0]) > 1:
            assert chi2_contingency([[count[form] for form in sorted(texts[0])] for count in texts]).pvalue > 0.001


@pytest.mark.parametrize("kind", KINDS)
def test_no_question_about_eeg_names_a_label_or_a_measurement(kind):
    words = {*SEED_VII.labels, *BANDS, *REGIONS, "asymmetry", "slope", "frequency", "artefact"}
    for item in build(7).draw(kind, 300):
        text = without_scenarios(item)
        if kind == "select":  # its words are the options, the right one is anywhere
            text = re.sub(r"[ABC]: \w+", "", text)
        assert not words & set(re.findall(r"[a-z]+", text.lower())), text
        assert text_of(item).count("#") == len(item.windows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_one_of_the_options(kind):
    for item in build(9).draw(kind, 100):
        assert item.answer in item.options
        assert parse_answer(item.response(thinking=True), item.options) == item.answer
        assert parse_answer(item.response(thinking=False), item.options) == item.answer
        assert item.tier == (3 if kind in HELD_OUT else 1 if kind == "predict" else 2)


def test_right_answers_of_one_segment_and_of_scenarios():
    builder = build(10)
    for kind in ("predict", "zero_predict"):
        for item in builder.draw(kind, 100):
            assert [item.answer] == label_of(item) and item.options == list(SEED_VII.labels)
    for kind in ("match", "zero_match"):
        for item in builder.draw(kind, 100):
            labels = label_of(item)
            assert len(set(labels)) == 3 and [labels["ABC".index(item.answer)]] == scenario_emotions(item)
    for kind in ("choose", "zero_choose"):
        for item in builder.draw(kind, 100):
            assert [scenario_emotions(item)["ABC".index(item.answer)]] == label_of(item)
    for item in builder.draw("select", 100):
        assert [EMOTION_OF_WORD[words_to_select(item)["ABC".index(item.answer)]]] == label_of(item)
    for item in builder.draw("describe", 100):
        (label,) = label_of(item)
        assert labels_in(item.answer) == {label}
        others = [labels_in(option) for option in item.options if option != item.answer]
        assert len(set(map(frozenset, others))) == 3 and {label} not in others and all(len(named) == 1
                                                                                       for named in others)


def coordinate(window: int, axis: str) -> float:
    return INDEX["intensity"][window] if axis == "intensity" else getattr(SEED_VII, axis)[INDEX["label"][window]]


@pytest.mark.parametrize("kind", ["compare", "rank"])
def test_orders_are_those_of_the_coordinates(kind):
    axes, sizes = set(), set()
    for item in build(11).draw(kind, 400):
        values = {letter: coordinate(window, item.axis) for letter, window in zip("ABCD", item.windows, strict=False)}
        order = " > ".join(sorted(values, key=values.get, reverse=True))
        assert item.answer == (order if kind == "rank" else order[0])
        gaps = np.diff(sorted(values.values()))
        assert gaps.min() >= (0.2 if item.axis != "intensity" else 0.0) and gaps.min() > 0
        axes.add(item.axis)
        sizes.add(len(values))
    assert axes == {"valence", "arousal", "intensity"} and sizes == ({3, 4} if kind == "rank" else {2})


def test_the_question_asks_for_the_axis_that_orders_the_answer():
    asked = {(word, item.axis) for item in build(11).draw("compare", 200)
             for word in re.findall(r"pleasant|activated|stronger", text_of(item))}
    assert asked == {("pleasant", "valence"), ("activated", "arousal"), ("stronger", "intensity")}


def measured(window: int, z: np.ndarray = Z) -> list[str]:
    """The MAX_CLAIMS features farthest from typical, at least 1.5 away, in the order of the table, as words."""
    order = sorted(sorted(range(z.shape[1]), key=lambda i: -abs(z[window, i]))[:MAX_CLAIMS])
    return [f"{NAMES.columns[i]} {'high' if z[window, i] > 0 else 'low'}" for i in order if abs(z[window, i]) >= 1.5]


def claims_in(text: str) -> list[str]:
    features = "|".join(NAMES.columns)
    return re.findall(rf"(?:{features}) (?:low|high|typical)", text.lower())


@pytest.mark.parametrize("kind", ["predict", "describe"])
def test_claims_are_what_was_measured_in_the_order_of_the_table(kind):
    items = build(12).draw(kind, 200)
    for item in items:
        assert claims_in(item.thought) == measured(item.windows[0])
        if kind == "describe":
            assert claims_in(item.answer) == measured(item.windows[0])[:DESCRIBED]  # all are as far from typical
    counts = {len(claims_in(item.thought)) for item in items}
    assert counts >= set(range(1, 8)) and max(counts) <= MAX_CLAIMS


def test_a_claim_needs_a_clear_measurement():
    z = np.zeros((N, len(NAMES.columns)))
    z[0, 4], z[0, 9], z[0, 2] = 1.5, -2.0, 1.49
    z[1, :12] = (1.6, -3.0, 2.0, 4.0, -1.4, 1.9, -1.7, 1.8, 2.2, 2.4, 2.6,
                 -2.8)  # eleven, of which the faintest finds no room
    strong, many, none = real_segments(INDEX, np.array([0, 1, 2]), z, NAMES)
    assert [str(claim) for claim in strong.claims] == [f"{NAMES.columns[4]} high", f"{NAMES.columns[9]} low"]
    assert [str(claim) for claim in many.claims] == [f"{NAMES.columns[i]} {word}" for i, word in (
        (1, "low"), (2, "high"), (3, "high"), (5, "high"), (6, "low"), (7, "high"), (8, "high"), (9, "high"),
        (10, "high"), (11, "low"))]
    assert none.claims == ()
    assert [str(claim) for claim in salient_claims(z[1], NAMES, limit=2)] == [f"{NAMES.columns[1]} low",
                                                                              f"{NAMES.columns[3]} high"]
    assert [claim.feature for claim in salient_claims(z[1], NAMES, beyond=2.0)] == [NAMES.columns[i]
                                                                                    for i in (1, 2, 3, 8, 9, 10, 11)]


# --- what a model can be taught to say: what its encoder hears, as far as it is true


def claims_by_numpy(z: np.ndarray, predicted_evidence: np.ndarray, limit: int = MAX_CLAIMS) -> list[str]:
    """The features heard loudest, of those heard from LOUD on, whose level is measured too."""
    said = []
    for i in sorted(sorted(range(len(z)), key=lambda i: -abs(predicted_evidence[i]))[:limit]):
        word = "high" if predicted_evidence[i] > 0 else "low"
        if abs(predicted_evidence[i]) >= EVIDENCE_THRESHOLD and (z[i] >= 0.7 if word == "high" else z[i] <= -0.7):
            said.append(f"{NAMES.columns[i]} {word}")
    return said


def test_predicted_claims_are_the_largest_predictions_that_are_true():
    rng = np.random.default_rng(20)
    predicted_evidence = (0.8 * Z + 0.8 * rng.normal(size=Z.shape)).astype(np.float32)
    for row in range(N):
        for limit in (1, 3, MAX_CLAIMS):
            names = replace(NAMES, scale=replace(LOW_HIGH, most=limit))
            found = [str(claim) for claim in predicted_claims(Z[row], predicted_evidence[row], names)]
            assert found == claims_by_numpy(Z[row], predicted_evidence[row], limit)
    segments = real_segments(INDEX, ROWS, Z, NAMES, predicted_evidence)
    expected = [claims_by_numpy(Z[row], predicted_evidence[row]) for row in ROWS]
    assert [[str(claim) for claim in segment.claims] for segment in segments] == expected
    counts = [len(segment.claims) for segment in segments]
    assert min(counts) == 0 and max(counts) == MAX_CLAIMS
    # A wrong prediction makes no claim.
    assert sum(map(len, expected)) < (np.abs(predicted_evidence[ROWS]) >= EVIDENCE_THRESHOLD).sum()


def test_a_small_cap_has_fewer_features_than_a_thought_has_room_for():
    names = EvidenceNames(tuple(("alpha", region) for region in ("frontal", "occipital")), GRADED)
    z = np.linspace(1, 3, len(names.columns))
    assert GRADED.most > len(names.columns)
    assert len(predicted_claims(z, z, names)) == len(names.columns)


def test_graded_claims_state_the_predicted_level_where_it_is_true():
    names, z, predicted_evidence = replace(NAMES, scale=GRADED), *np.zeros((2, len(NAMES.columns)))
    # Exactly right; one level off; likewise; two off; too small to state; on the other side.
    predicted_evidence[:6], z[:6] = (0.8, 1.6, -2.6, -2.6, 0.6, 0.8), (0.9, 2.6, -1.6, -0.8, 3.0, -0.8)
    assert list(map(str, predicted_claims(z, predicted_evidence, names))) == [
        f"{NAMES.columns[0]} rather high", f"{NAMES.columns[1]} clearly high", f"{NAMES.columns[2]} very low"]


def test_predictions_and_measurements_both_count():
    z, predicted_evidence = np.zeros((2, len(NAMES.columns)))
    predicted_evidence[:5], z[:5] = (EVIDENCE_THRESHOLD, EVIDENCE_THRESHOLD - 0.01, -3.0, 2.0,
                                     EVIDENCE_THRESHOLD + 0.1), (0.7, 5.0, 3.0, 0.69, 4.0)
    assert predicted_claims(z, predicted_evidence, NAMES) == (Claim(NAMES.columns[0], "high"),
                                                              Claim(NAMES.columns[4], "high"))
    assert predicted_claims(z, 0 * predicted_evidence, NAMES) == ()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_windows_without_predicted_evidence_are_refused(value):
    predicted_evidence = np.array(Z)
    predicted_evidence[60, 3] = value
    with pytest.raises(ValueError, match="There is no predicted evidence for this window"):
        predicted_claims(Z[60], predicted_evidence[60], NAMES)
    with pytest.raises(ValueError, match="outside the split"):
        real_segments(INDEX, ROWS, Z, NAMES, predicted_evidence)
    assert len(real_segments(INDEX, ROWS[ROWS != 60], Z, NAMES, predicted_evidence)) == len(ROWS) - 1


# --- wordings of thoughts


def test_thoughts_say_one_meaning_in_several_ways_and_descriptions_in_one():
    items = build(21).draw("predict", 1500)
    starts = Counter(re.match(r"\w+:|\w+", item.thought).group() for item in items)
    with_claims, without = ([starts[word] for word in words]
                            for words in (("Evidence:", "Measured:", "Findings:"), ("No", "Nothing")))
    assert sum(with_claims) + sum(without) == 1500
    assert chisquare(with_claims).pvalue > 0.001 and chisquare(without).pvalue > 0.001
    parsed = [parse(item.thought, SEED_VII.labels) for item in items]
    bare = [not found.affect and found.conclusion is None for found in parsed]
    assert 0.2 < np.mean(bare) < 0.3
    for item, found, alone in zip(items, parsed, bare, strict=True):
        assert found.readable and [str(claim) for claim in found.claims] == measured(item.windows[0])
        assert found.no_salient_feature == (not found.claims) and (alone or (len(found.affect) == 2
                                                                             and found.conclusion == item.answer))
    conclusions = Counter(next(word for word in ("That fits", "This points to") if word in item.thought)
                          for item, alone in zip(items, bare, strict=True) if not alone)
    assert len(conclusions) == 2 and chisquare(list(conclusions.values())).pvalue > 0.001
    assert independent([(re.match(r"\w+", item.thought).group(), item.answer) for item in items])
    assert independent([(alone, item.answer) for item, alone in zip(items, bare, strict=True)])
    for item in build(22).draw("describe", 300):
        for option in item.options:
            (evidence,) = re.findall(r"(?<=\. )[A-Z][^.]*\.$", option)
            assert evidence == "No band stands out." or re.fullmatch(r"Evidence: [a-z, ]+\.", evidence), option
        assert parse(item.thought, ()).claims[:DESCRIBED] == parse(item.answer, SEED_VII.labels).claims
        assert all(isinstance(found, Claim | NoSalientFeature) for found in parse(item.thought, ()).statements)


def zero_shot_forms() -> set[str]:
    builder = build(13)
    forms = {text_of(item).replace("#", "").strip() for item in builder.draw("zero_predict", 50)}
    for item in builder.draw("zero_match", 50):
        forms.add(without_scenarios(item).split("A: #")[0].strip())
    for item in builder.draw("zero_choose", 50):
        forms.add(text_of(item).replace("#", "").split("A: ")[0].strip())
    assert len(forms) == 4 + 3 + 2
    return forms


def training_texts() -> list[str]:
    corpus = make_corpus()
    items = [*text_items(SEED_VII, 1400, 0), *instruction_items(corpus, "train", dict.fromkeys(TRAINING, 200), 0),
             *alignment_items(corpus, "train", 100, 0), *replay_items(corpus, 200, 0), *drill_items(SEED_VII, 20, 0)]
    return [" ".join([text_of(item), item.thought, item.answer, *item.options]) for item in items]


def test_nothing_of_the_zero_shot_tier_is_trained_on():
    forms, texts = zero_shot_forms(), training_texts()
    held_out = {scenario.text for label in SEED_VII.labels for scenario in scenarios.zero_shot_scenarios(label)}
    assert forms and all(len(form) > 15 for form in forms)
    for text in texts:
        assert not any(form in text for form in forms), text
        assert not any(scenario in text for scenario in held_out), text
    items = [item for kind in ("zero_match", "zero_choose") for item in build(14).draw(kind, 100)]
    shown = " ".join(map(text_of, items))
    assert sum(scenario in shown for scenario in held_out) > 10
    own = {scenario.identity for label in SEED_VII.labels for scenario in scenarios.zero_shot_scenarios(label)}
    assert all(item.texts and set(item.texts) <= own for item in items)


def test_imagined_claims_say_nothing_about_the_label():
    segments = imagined_segments(SEED_VII, 3000, np.random.default_rng(0))
    assert independent([(segment.label, claim.level) for segment in segments for claim in segment.claims])
    assert independent([(segment.label, claim.feature) for segment in segments for claim in segment.claims])
    assert independent([(segment.label, len(segment.claims)) for segment in segments])
    assert {claim.feature for segment in segments for claim in segment.claims} == set(NAMES.columns)
    assert {len(segment.claims) for segment in segments} == set(range(MAX_CLAIMS + 1))


def test_text_items_show_every_task_in_words():
    items = text_items(SEED_VII, 140, 0)
    assert {item.kind for item in items} == {*TRAINING, "scenario"}
    assert not any(item.windows or "#" in text_of(item) for item in items)
    for item in items:
        if item.kind == "scenario":
            assert scenario_emotions(item) == [item.answer]


def test_items_survive_a_file(tmp_path):
    items = [*build().draw("match", 5), *build().draw("describe", 5), *text_items(SEED_VII, 20, 0)]
    write_items(items, tmp_path / "items.jsonl")
    assert read_items(tmp_path / "items.jsonl") == items
    assert len((tmp_path / "items.jsonl").read_text().splitlines()) == 30


@pytest.mark.parametrize("text, answer", [
    ("fear", "fear"), ("Fear.", "fear"), (" FEAR \n", "fear"), ("<think>\nIt could be sad.\n</think>\n\nfear", "fear"),
    ("<think>\nfear\n</think>\n\n", None), ("fear or sad", None), ("I think fear", None), ("fea", None), ("", None),
    ("7", None),
    ("<think>\nfear", None), ("fear sad", None)])
def test_only_exactly_an_option_is_an_answer(text, answer):
    assert parse_answer(text, ["sad", "fear"]) == answer


def test_orders_and_sentences_are_read_too():
    assert parse_answer("b > a > c", ["A > B > C", "B > A > C"]) == "B > A > C"
    assert parse_answer("B > A", ["A > B > C", "B > A > C"]) is None
    assert parse_answer("the segment shows rest.", ["The segment shows rest.",
                                                    "It moves."]) == "The segment shows rest."


def test_labels_without_valence_serve_what_needs_none_and_say_why_not_the_rest():
    rest = plain_labels("rest", ["resting", "counting"])
    index = make_index(rest.labels, intensity=False)
    builder = ItemBuilder(real_segments(index, ROWS, Z, NAMES), rest, 0)
    assert set(builder.kinds()) == {"predict", "describe", "select", "zero_predict"}
    for kind in ("predict", "describe", "select"):
        for item in builder.draw(kind, 30):
            assert item.answer in item.options and (kind == "predict" or len(item.options) == 2)
            whole = f"{text_of(item)} {item.thought} {item.answer}".lower()
            assert "nan" not in re.findall(r"\w+", whole) and "pleasant" not in whole
    for kind in ("compare", "rank", "match", "choose", "zero_match"):
        reason = ("its labels have no valence and arousal" if kind in ("compare", "rank")
                  else "there are no scenarios for counting, resting")
        assert builder.left_out()[kind] == reason
        with pytest.raises(ValueError, match=rf"'rest' cannot serve items of kind '{kind}', for {reason}; .*predict, "
                                             rf"describe"):
            builder.draw(kind, 1)
    assert {item.kind for item in text_items(rest, 20, 0)} == {"predict", "describe", "select"}
    assert any("resting" in item.answer for item in text_items(rest, 20, 0) if item.kind == "describe")


def coordinates(labels: tuple[str, ...], values: tuple[float, ...]) -> LabelSet:
    """Labels whose valence and arousal are the given values."""
    return LabelSet("own", labels, dict(zip(labels, values, strict=True)), dict(zip(labels, values, strict=True)))


@pytest.mark.parametrize("label_set, intensity, served", [
    (coordinates(("high", "low"), (0.5, -0.5)), False, {"predict", "describe", "compare", "zero_predict", "select"}),
    (coordinates(("high", "low"), (0.5, -0.5)), True, {"predict", "describe", "compare", "rank", "zero_predict",
                                                       "select"}),
    (coordinates(("high", "low"), (0.5, 0.45)), False, {"predict", "describe", "zero_predict", "select"}),
    (coordinates(("high", "middle", "low"), (0.5, 0.0, -0.5)), False,
     {"predict", "describe", "compare", "rank", "zero_predict", "select"}),
    (coordinates(("happy", "sad", "neutral"), (0.5, -0.5, 0.0)), False, set(KINDS))])
def test_few_labels_serve_what_they_can(label_set, intensity, served):
    index = make_index(label_set.labels, intensity)
    builder = ItemBuilder(real_segments(index, ROWS, Z, NAMES), label_set, 0)
    assert set(builder.kinds()) == served
    for kind in served:
        for item in builder.draw(kind, 30):
            assert item.answer in item.options and "nan" not in re.findall(r"\w+", f"{item.thought} {item.answer}")
    assert {item.kind for item in text_items(label_set, 40, 0)} >= {"predict", "describe"}


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind 'riddle'"):
        build().draw("riddle", 1)


# --- what a model is examined with: chance is chance


def people(levels: str, n_people: int = 6, n_windows: int = 70) -> tuple[pd.DataFrame, np.ndarray]:
    """Windows of subjects who differ in how often they show a label, in intensity and in evidence."""
    rng = np.random.default_rng(4)
    share = rng.dirichlet(np.full(7, 2.0), n_people)
    labels = [np.append(SEED_VII.labels, rng.choice(SEED_VII.labels, n_windows - 7, p=row))
              for row in share]  # everybody shows every label
    index = pd.DataFrame({"subject": np.repeat([str(who) for who in range(n_people)], n_windows),
                          "clip": np.arange(n_people * n_windows),
                          "label": np.concatenate(labels)})
    who = index["subject"].astype(int).to_numpy()
    index["intensity"] = np.clip(0.15 * who + rng.uniform(0.0, 0.4, len(index)), 0.0, 1.0)
    person = rng.normal(size=(n_people, len(NAMES.columns)))[who] * (2.5 if levels == "population" else 0.0)
    effect = rng.normal(size=(7, len(NAMES.columns)))[[SEED_VII.index(label) for label in index["label"]]]
    return index, person + effect + rng.normal(size=person.shape)


def persons_view(segments: list[Segment], z: np.ndarray) -> dict[int, Segment]:
    """Windows as known from the subject alone: its usual label, intensity and evidence."""
    seen = {}
    for who in {segment.subject for segment in segments}:
        own = [segment for segment in segments if segment.subject == who]
        label = Counter(segment.label for segment in own).most_common(1)[0][0]
        usual = (label, float(np.mean([segment.intensity for segment in own])),
                 salient_claims(z[[s.window for s in own]].mean(axis=0), NAMES), who)
        seen |= {segment.window: Segment(segment.window, *usual) for segment in own}
    return seen


def spoken(item, predicted_evidence: list[Segment], rng: np.random.Generator) -> str:
    """Answer of a speaker who knows the tasks, to what was heard in the place of the item's segments."""
    luck, first = rng.uniform(size=len(item.options)), predicted_evidence[0]
    if item.kind in ("predict", "zero_predict"):
        return first.label
    if item.kind in ("compare", "rank"):
        values = [segment.value(item.axis, SEED_VII) + 1e-9 * rng.uniform() for segment in predicted_evidence]
        order = ["ABCD"[i] for i in np.argsort(values)[::-1]]
        return " > ".join(order) if item.kind == "rank" else order[0]
    if item.kind in ("match", "zero_match"):
        fits = [[segment.label] == scenario_emotions(item) for segment in predicted_evidence]
    elif item.kind == "describe":
        fits = [sum(str(claim) in option for claim in first.claims) + 3 * (first.label in option)
                for option in item.options]
    else:
        shown = scenario_emotions(item) or [EMOTION_OF_WORD[word] for word in words_to_select(item)]
        fits = [emotion == first.label for emotion in shown]
    return item.options[int(np.argmax(np.array(fits) + 0.5 * luck))]


def beyond_chance(items: list, fit_evidence_probe, seed: int = 0) -> float:
    """Share of right answers minus chance, in standard errors of guessing."""
    rng = np.random.default_rng(seed)
    hits = np.array([spoken(item, [fit_evidence_probe[window] for window in item.windows], rng) == item.answer
                     for item in items])
    chance = np.array([1 / len(item.options) for item in items])
    return float((hits - chance).sum() / np.sqrt((chance * (1 - chance)).sum()))


@pytest.mark.parametrize("levels", ["population", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_speaker_who_knows_only_the_person_or_nothing_is_at_chance(kind, levels):
    index, z = people(levels)
    segments = real_segments(index, np.arange(len(index)), z, NAMES)
    items = OneSubjectBuilder(segments, SEED_VII, 5).draw(kind, 2500)
    assert abs(beyond_chance(items, persons_view(segments, z))) < 4
    nobody = Segment(0, "sad", 0.5, ())
    assert abs(beyond_chance(items, dict.fromkeys(range(len(index)), nobody))) < 4
    assert beyond_chance(items, {segment.window: segment for segment in segments}) > 40  # who hears the window is right


@pytest.mark.parametrize("levels", ["population", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_knows_another_window_is_at_chance(kind, levels):
    index, z = people(levels)
    segments = real_segments(index, np.arange(len(index)), z, NAMES)
    builder, found = OneSubjectBuilder(segments, SEED_VII, 6), []
    for seed in range(25):
        source = other_windows(index["subject"].to_numpy(), index["label"].to_numpy(), np.random.default_rng(seed))
        found.append(beyond_chance(builder.draw(kind, 100), {window: segments[other] for window,
                                                             other in enumerate(source)}, seed))
    # The exchange is drawn anew 25 times: its own luck is in the spread of the 25 results.
    assert abs(np.mean(found)) < 4 * np.std(found, ddof=1) / 5


def test_descriptions_of_others_can_be_ruled_out_by_who_knows_the_person():
    """Why training items are no examination: their distractors are of anybody."""
    for levels, explanations in (("population", True), ("own", False)):
        index, z = people(levels)
        segments = real_segments(index, np.arange(len(index)), z, NAMES)
        mixed = ItemBuilder(segments, SEED_VII, 5).draw("describe", 2500)
        assert (beyond_chance(mixed, persons_view(segments, z)) > 20) == explanations


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_an_examination_are_of_one_person_and_right(kind):
    subject = INDEX["subject"].to_numpy()
    segments = real_segments(INDEX, ROWS, Z, NAMES)
    items = OneSubjectBuilder(segments, SEED_VII, 3).draw(kind, 300)
    assert all(len(set(subject[item.windows])) == 1 for item in items) and {item.subject
                                                                            for item in items} == {"1", "2", "3"}
    assert all(item.options.count(item.answer) == 1 and set(item.windows) <= set(ROWS.tolist()) for item in items)
    assert items == OneSubjectBuilder(segments, SEED_VII, 3).draw(kind, 300)
    if kind == "describe":
        own = {who: {describe(segment, SEED_VII) for segment in segments if segment.subject == who} for who in "123"}
        assert all(set(item.options) <= own[item.subject] for item in items)


def test_one_label_a_person_leaves_nothing_to_choose_from():
    """Patients against controls: no other label of the same person can be described, so such items are not served."""
    index = INDEX.assign(label=INDEX["subject"].map({"1": "sad", "2": "happy", "3": "sad"}))
    builder = OneSubjectBuilder(real_segments(index, ROWS, Z, NAMES), SEED_VII, 3)
    assert not {"describe", "select", "match", "choose"} & set(builder.kinds()) and "zero_predict" in builder.kinds()
    with pytest.raises(ValueError, match="No subject's windows serve items of kind 'describe'"):
        builder.draw("describe", 1)
