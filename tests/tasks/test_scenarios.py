"""The scenarios keep the label out, hold the zero-shot texts apart and can be learned from words."""

import random
import re

import pytest
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from e2llm.tasks import scenarios
from e2llm.tasks.scenarios import emotions, feelings, training_scenarios, zero_shot_scenarios

EMOTIONS = ("happy", "surprise", "neutral", "disgust", "fear", "sad", "anger")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def content_words(texts: list[str]) -> list[str]:
    return [word for text in texts for word in words(text) if word not in ENGLISH_STOP_WORDS]


def runs(text: str, length: int = 5) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}


def all_scenarios() -> list[str]:
    return [text for e in EMOTIONS for text in training_scenarios(e) + zero_shot_scenarios(e)]


def share(tokens: list[str], known: set[str]) -> float:
    return sum(token in known for token in tokens) / len(tokens)


def test_the_seven_emotions():
    assert emotions() == EMOTIONS


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_counts(emotion):
    training = training_scenarios(emotion)
    assert len(training) >= 300
    assert len(set(map(str.lower, training))) == len(training)
    assert len(set(zero_shot_scenarios(emotion))) == 16
    assert 6 <= len(feelings(emotion)) <= 10


def test_no_feeling_is_shared():
    every = [feeling for e in EMOTIONS for feeling in feelings(e)]
    assert len(set(every)) == len(every)


def test_sentences_are_short_plain_ascii():
    for text in all_scenarios():
        assert text.isascii() and re.fullmatch(r"[A-Z][A-Za-z ,]+\.", text), text
        assert 6 <= len(words(text)) <= 16, text


def test_no_scenario_names_an_emotion():
    labels = set(EMOTIONS) | {word for e in EMOTIONS for feeling in feelings(e) for word in words(feeling)}
    leaks = [text for text in all_scenarios() if labels & set(words(text))]
    assert not leaks


def test_no_scenario_belongs_to_two_emotions():
    assert len(set(all_scenarios())) == len(all_scenarios())


def test_zero_shot_shares_no_run_of_five_words_with_training():
    trained = {run for e in EMOTIONS for text in training_scenarios(e) for run in runs(text)}
    shared = [text for e in EMOTIONS for text in zero_shot_scenarios(e) if runs(text) & trained]
    assert not shared


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_training_teaches_the_zero_shot_words(emotion):
    tokens = content_words(zero_shot_scenarios(emotion))
    same = set(content_words(training_scenarios(emotion)))
    every = {word for e in EMOTIONS for word in content_words(training_scenarios(e))}
    assert share(tokens, every) >= 0.90
    assert share(tokens, same) >= 0.60


def test_vocabulary_is_small():
    texts = all_scenarios() + [text for e in EMOTIONS for text in feelings(e)]
    assert len({word for text in texts for word in words(text)}) <= 1300


@pytest.mark.parametrize("seed", range(3))
def test_naive_bayes_names_the_emotion_of_zero_shot_scenarios(seed):
    train = [(text, e) for e in EMOTIONS for text in random.Random(seed).sample(training_scenarios(e), 200)]
    test = [(text, e) for e in EMOTIONS for text in zero_shot_scenarios(e)]
    counter = CountVectorizer()
    model = MultinomialNB().fit(counter.fit_transform([text for text, _ in train]), [e for _, e in train])
    assert model.score(counter.transform([text for text, _ in test]), [e for _, e in test]) >= 0.85


def test_a_caller_cannot_change_the_cached_texts():
    for texts_of in (training_scenarios, zero_shot_scenarios, feelings):
        before = list(texts_of("fear"))
        texts_of("fear").clear()
        assert texts_of("fear") == before


@pytest.mark.parametrize("texts_of", [training_scenarios, zero_shot_scenarios, feelings])
def test_unknown_emotion_names_the_known_ones(texts_of):
    with pytest.raises(ValueError, match=r"unknown emotion 'bored'; use one of: .*happy.*anger"):
        texts_of("bored")


VALID = """
happy:
  feelings: [glad]
  frames: ["You {win} today."]
  slots: {win: [win the race, pass the exam]}
  zero_shot: [The race is won.]
"""


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("  feelings: [glad]\n", "", "happy needs the keys"),
        ("{win} today", "{lose} today", r"disagree on \['lose', 'win'\]"),
        ("pass the exam", "yes", "happy.slots.win holds True"),
        ("pass the exam", "win the race", "happy.slots.win repeats an entry"),
        ("is won.", "is won", "without a period"),
        (VALID, VALID + VALID.replace("happy", "sad"), "'glad' belongs to both happy and sad"),
        (VALID, "[]", "must map each emotion"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, monkeypatch, old, new, fact):
    path = tmp_path / "scenarios.yaml"
    path.write_text(VALID.replace(old, new), encoding="utf-8")
    monkeypatch.setattr(scenarios, "_FILE", path)
    with pytest.raises(ValueError, match=rf"scenarios\.yaml: .*{fact}"):
        scenarios._load.__wrapped__()  # around the cache, which keeps the real file
