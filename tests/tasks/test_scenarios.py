"""The texts name no emotion, are broad, hold the zero-shot texts apart, and tell no emotion by their form."""

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from e2llm.core.labels import SEED_VII
from e2llm.tasks import corpus_statistics, scenarios
from e2llm.tasks.grammar import ACTORS, choices, render
from e2llm.tasks.items import drill_items, item_text, text_items
from e2llm.tasks.scenarios import (
    STRATA,
    VARIANTS,
    TrainingScenarios,
    emotions,
    feelings,
    training_scenarios,
    zero_shot_scenarios,
)

EMOTIONS = ("happy", "surprise", "neutral", "disgust", "fear", "sad", "anger")
# Words of the kinds of events that only the stratum "unseen situations" is about.
HELD_OUT = r"""\b(?:astronau|spacesuit|comets?\b|mission control|orbit|ringmaster|circus|trapeze|acrobat|archaeolog|
    excavat|sarcophag|submarine|lighthouse|beekeep|hives?\b|apiar|opera\b|ballet|ballerin|casino|croupier|roulette|monks?\b|
    abbeys?\b|abbots?\b|cloister|film set|stuntman|fencers?\b|archers?\b|potters?\b|kilns?\b|glassblow|polar\b|crevasse|
    chess|checkmate)"""


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def runs(text: str, length: int = 5) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}


def written() -> list[str]:
    return [text for e in EMOTIONS for text in training_scenarios(e).situations + training_scenarios(e).outcomes]


def zero_shot() -> list[str]:
    return [scenario.text for e in EMOTIONS for scenario in zero_shot_scenarios(e)]


def brief() -> list[scenarios.Scenario]:
    return [texts.brief(i) for texts in map(training_scenarios, EMOTIONS) for i in range(texts.n_situations)]


@pytest.fixture(scope="module")
def training() -> list[scenarios.Scenario]:
    """Three texts of every situation, and a brief one."""
    every = [texts[i] for texts in map(training_scenarios, EMOTIONS) for i in range(3 * texts.n_situations)]
    return every + brief()


def test_the_seven_emotions():
    assert emotions() == EMOTIONS


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_counts(emotion):
    texts = training_scenarios(emotion)
    assert texts.n_situations >= 300
    assert len(texts) == VARIANTS * texts.n_situations
    assert [len(zero_shot_scenarios(emotion, stratum)) >= 25 for stratum in STRATA] == [True] * 3
    assert len(zero_shot_scenarios(emotion)) == sum(len(zero_shot_scenarios(emotion, s)) for s in STRATA)
    assert 6 <= len(feelings(emotion)) <= 10


def test_no_feeling_is_shared():
    every = [feeling for e in EMOTIONS for feeling in feelings(e)]
    assert len(set(every)) == len(every)


def test_no_text_names_an_emotion(training):
    labels = set(EMOTIONS) | {feeling for e in EMOTIONS for feeling in feelings(e)}
    labels |= {"angrily", "happily", "sadly", "fearful", "surprising", "disgusting", "calmly", "shock", "terror"}
    assert not [text for text in [s.text for s in training] + written() + zero_shot() if labels & set(words(text))]


def test_training_texts_are_whole_sentences(training):
    for scenario in training:
        text = scenario.text
        assert text.isascii() and re.fullmatch(r'["A-Z].*\.("?)', text), text
        assert not re.search(r"[@~^|{}\[\]]|  |\.\.|,,| ,|\b[Aa] [aeio](?!ne|nce|uro)|\b[Aa]n [^aeiouhxX]", text), text
        assert 3 <= len(words(text)) <= 60, text


def test_brief_texts_are_as_long_as_zero_shot_ones_and_seeded():
    def lengths(texts: list[str]) -> np.ndarray:
        return np.percentile([len(text.split()) for text in texts], [10, 50, 90])

    told = [scenario.text for scenario in brief()]
    assert np.abs(lengths(told) - lengths(zero_shot())).max() <= 1
    assert told == [scenario.text for scenario in brief()]
    texts = training_scenarios("fear")
    assert texts.brief(5).identity == texts[5].identity and texts.brief(5) != texts.brief(5 + texts.n_situations)


def test_zero_shot_texts_are_whole_sentences():
    for text in zero_shot():
        assert text.isascii() and re.fullmatch(r'["A-Z].*[.!?]"?', text), text
        assert 5 <= len(words(text)) <= 25, text


def test_nothing_is_told_twice(training):
    every = written() + zero_shot()
    assert len({text.lower() for text in every}) == len(every)
    texts = [scenario.text for scenario in training]
    assert len(set(texts)) >= 0.995 * len(texts)


def test_situations_are_different_events():
    """No two situations of the corpus share most of their content words."""
    known = [(text, corpus_statistics.stems([text])) for text in written()]
    holders: dict[str, list[int]] = {}
    for i, (_, found) in enumerate(known):
        for stem in found:
            holders.setdefault(stem, []).append(i)
    shared = Counter((a, b) for places in holders.values() if len(places) < 60
                     for n, a in enumerate(places) for b in places[n + 1 :])
    alike = [(known[a][0], known[b][0]) for (a, b), n in shared.items()
             if n > max(2, 0.5 * len(known[a][1] | known[b][1]))]
    assert not alike


def test_breadth():
    plain = [re.sub(r"[@~^\[\]|]", " ", text) for text in written()]
    assert len({word for text in plain for word in corpus_statistics.content_words(text)}) >= 6000


@pytest.mark.parametrize("actor", ACTORS[:5], ids=lambda actor: actor.name)
def test_every_situation_can_be_told_of_every_person(actor):
    first_person = {"i", "me", "my", "mine", "myself", "we", "us", "our", "ours", "ourselves"}
    for text in written():
        for tense in ("past", "present"):
            told = render(text, actor, tense, random.Random(0))
            assert not re.search(r"[@~^|\[\]]", told), told
            assert actor.person == "first" or not first_person & set(words(told)), told
            if actor.person == "third":
                assert not re.search(r"\b(?:she|he|Mara) (?:am|are|were|have|do|go)\b", told), told


def test_every_verb_of_the_actor_is_marked():
    """A verb without a mark after "I" would keep its form whoever the text is about."""
    before = r"(?:no longer |at last |never |once |last |hardly |both |finally |only )?"
    other = rf"\bI (?!{before}(?:[@^]|can\b|will\b|must\b|would\b|may\b|could\b|ought\b|cannot\b))"
    assert not [text for text in written() if re.search(other, text)]


def test_the_tables_name_every_emotion_and_stratum():
    shown = corpus_statistics.tables()
    assert all(f"| {name} |" in shown for name in (*EMOTIONS, *STRATA))


def test_the_vocabulary_covers_what_is_taught(training):
    """The overlap is measured against all that a language model can be taught, not against a sample."""
    assert corpus_statistics.stems(s.text for s in training) <= corpus_statistics.training_stems()
    items = [*text_items(SEED_VII, 1500, 5), *drill_items(SEED_VII, 50, 5)]
    assert corpus_statistics.stems(map(item_text, items)) <= corpus_statistics.taught_stems()


@pytest.mark.parametrize("known", [corpus_statistics.training_stems, corpus_statistics.taught_stems])
def test_overlap_of_each_stratum(known):
    share = {stratum: corpus_statistics.overlap(stratum, known()) for stratum in STRATA}
    assert share["known words"] >= 0.97
    assert share["unseen words"] <= 0.15
    assert share["unseen situations"] <= 0.70


def test_a_stem_is_the_same_for_all_forms_of_a_word():
    for forms in ("hide hides hid hidden hiding", "stop stops stopped stopping", "bake bakes baked baking",
                  "carry carries carried carrying", "child children", "call calls called calling"):
        assert len({corpus_statistics.stem(word) for word in forms.split()}) == 1, forms
    assert corpus_statistics.content_words("Mara's dog was at the harbour on Monday.") == ["dog", "harbour"]


def test_held_out_events_are_not_trained(training):
    held_out = re.compile(HELD_OUT, re.IGNORECASE | re.VERBOSE)
    assert not [text for text in written() if held_out.search(text)]
    told = [scenario.text for e in EMOTIONS for scenario in zero_shot_scenarios(e, "unseen situations")]
    assert np.mean([bool(held_out.search(text)) for text in told]) > 0.4  # the pattern finds such texts


def test_zero_shot_shares_no_run_of_five_words_with_training(training):
    trained = {run for scenario in training for run in runs(scenario.text)}
    assert not [text for text in zero_shot() if runs(text) & trained]


def test_how_a_text_is_told_does_not_tell_the_emotion():
    """Register, person, tense and length name the emotion no better than chance, in situations that were not fitted."""
    rng = random.Random(0)
    drawn = [(texts[rng.randrange(len(texts))], texts.emotion) for texts in map(training_scenarios, EMOTIONS)
             for _ in range(1000)]
    rows = [[s.register, s.actor, s.tense, str(min(len(words(s.text)), 30) // 2)] for s, _ in drawn]
    labels = np.array([e for _, e in drawn])
    fitted = np.array([int(s.identity.split("/")[1]) % 2 == 0 for s, _ in drawn])
    features = OneHotEncoder().fit_transform(rows)
    model = LogisticRegression(C=0.1, max_iter=500).fit(features[fitted], labels[fitted])
    assert model.score(features[~fitted], labels[~fitted]) <= 1 / 7 + 0.03


def test_identities_and_strata():
    texts = training_scenarios("fear")
    same = [texts[5 + k * texts.n_situations] for k in range(4)]
    assert {scenario.identity for scenario in same} == {"fear/5"} and same[0].stratum is None
    assert len({scenario.text for scenario in same}) > 1
    every = [scenario for e in EMOTIONS for scenario in zero_shot_scenarios(e)]
    assert len({scenario.identity for scenario in every}) == len(every)
    assert {scenario.stratum for scenario in every} == set(STRATA)


def test_texts_are_the_same_in_every_process():
    code = ("from e2llm.tasks.scenarios import training_scenarios\n"
            "print([training_scenarios('sad')[i].text for i in range(0, 9999, 999)])")
    found = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, check=True,
                           capture_output=True, text=True).stdout.strip()  # fmt: skip
    assert found == str([training_scenarios("sad")[i].text for i in range(0, 9999, 999)])


def test_no_text_is_made_before_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(scenarios, "compose", lambda *_: pytest.fail("a text was made"))
    assert len(TrainingScenarios("happy")) > 300_000


def test_a_number_beyond_the_texts_is_refused():
    texts = training_scenarios("fear")
    assert texts[-1] == texts[len(texts) - 1]
    with pytest.raises(IndexError, match=f"'fear' has {len(texts)} training texts"):
        texts[len(texts)]


def test_a_caller_cannot_change_the_cached_texts():
    for texts_of in (zero_shot_scenarios, feelings):
        before = list(texts_of("fear"))
        texts_of("fear").clear()
        assert texts_of("fear") == before


@pytest.mark.parametrize("texts_of", [training_scenarios, zero_shot_scenarios, feelings])
def test_unknown_emotion_names_the_known_ones(texts_of):
    with pytest.raises(ValueError, match=r"unknown emotion 'bored'; use one of: .*happy.*anger"):
        texts_of("bored")


def test_unknown_stratum_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown stratum 'easy'; use one of: known words, unseen words"):
        zero_shot_scenarios("fear", "easy")


def test_choices_are_found():
    assert choices("a [b|c d] e [f|g]") == [["b", "c d"], ["f", "g"]]


VALID = """
feelings: [glad]
situations: {sport: ["I @win the [race|cup]"]}
outcomes: ["I @clap"]
zero_shot: {known words: [The race is won.], unseen words: [Bravo!], unseen situations: ["She said: hooray."]}
"""


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("feelings: [glad]\n", "", "needs the keys"),
        ("the [race|cup]", "the [race]", "a choice needs two options"),
        ("I @clap", "I @clap.", "a period follows"),
        ('["I @clap"]', "[yes]", "outcomes holds True"),
        ('["I @clap"]', '["I @clap", "I @clap"]', "outcomes repeats an entry"),
        ("I @clap", "I @be glad", "outcomes names an emotion"),
        ("is won.", "is won", "has no end"),
        ("unseen words", "rare words", "zero_shot needs the strata"),
        ('{sport: ["I @win the [race|cup]"]}', "[]", "situations must map names"),
        (VALID, "[]", "needs the keys"),
    ],
)
def test_a_broken_file_is_refused(old, new, fact):
    assert VALID.count(old) >= 1
    scenarios._validate(yaml.safe_load(VALID), "happy.yaml")
    with pytest.raises(ValueError, match=rf"happy\.yaml: .*{fact}"):
        scenarios._validate(yaml.safe_load(VALID.replace(old, new)), "happy.yaml")


def test_the_page_shows_these_tables():
    page = (Path(__file__).parents[2] / "docs" / "corpus.md").read_text(encoding="utf-8")
    assert corpus_statistics.tables() in page, "run `python -m e2llm.tasks.corpus_statistics` and paste its output"
