"""Every person, tense and register gives a grammatical text of a situation."""

import random
import re

import pytest

from e2llm.tasks.grammar import ACTORS, REGISTERS, SETTINGS, compose, conjugate, past, render, third_person

SITUATION = "my aunt ~be late while I @wash myself, I @have one of mine, the dogs ^run to me and we ^take our coats"
PRESENT = {
    "I": "my aunt is late while I wash myself, I have one of mine, the dogs run to me and we take our coats",
    "you": "your aunt is late while you wash yourself, you have one of yours, "
           "the dogs run to you and you take your coats",
    "she": "her aunt is late while she washes herself, she has one of hers, "
           "the dogs run to her and they take their coats",
    "he": "his aunt is late while he washes himself, he has one of his, the dogs run to him and they take their coats",
}
PAST = {" is ": " was ", "wash": "washed", "washes": "washed", " have ": " had ", " has ": " had ", " run ": " ran ",
        " take ": " took "}


def in_past(text: str) -> str:
    for now, then in PAST.items():
        text = re.sub(rf"{now}\b" if now.startswith("wash") else now, then, text)
    return text


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.name)
def test_pronouns_and_verbs_agree_with_every_actor(actor):
    expected = PRESENT[actor.subject]
    if actor.first:  # the first mention is the name
        expected = re.sub(r"^(her|his) ", f"{actor.first}'s ", expected)
    assert render(SITUATION, actor, "present", random.Random(0)) == expected
    assert render(SITUATION, actor, "past", random.Random(0)) == in_past(expected)


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.name)
@pytest.mark.parametrize("tense", ["past", "present"])
def test_to_be_has_the_form_of_its_subject(actor, tense):
    forms = {"I": ("was", "am"), "you": ("were", "are")}.get(actor.subject, ("was", "is"))
    expected = f"{actor.first or actor.subject} {forms[tense == 'present']} here"
    assert render("I @be here", actor, tense, random.Random(0)) == expected


@pytest.mark.parametrize("register", REGISTERS, ids=lambda register: register.before or register.after or "plain")
def test_a_register_frames_a_sentence(register):
    for actor in ACTORS:
        if actor.person not in register.persons:
            continue
        for tense in register.tenses:
            rng = random.Random(1)
            text = compose("I @find an [egg|ruby] and my sister ~laugh. we ^leave", register, actor, tense, rng)
            assert re.fullmatch(r'("|[A-Z]).*[.]"?', text), text
            assert not re.search(r"[@~^|{}\[\]]|  |\.\.|\bI (?:finds|is)\b", text), text
            verb = "found" if tense == "past" else "finds" if actor.person == "third" else "find"
            assert f" {verb} a" in text, text
            sentences = re.split(r'(?<=[.:!?"]) +', text)
            assert all(re.match(r'"?[A-Z"]', sentence) for sentence in sentences), text


def test_a_person_or_tense_is_offered_by_several_registers():
    for person in ("first", "second", "third"):
        for tense in ("past", "present"):
            assert sum(person in r.persons and tense in r.tenses for r in REGISTERS) >= 5


@pytest.mark.parametrize(("verb", "forms"), [
    ("stop", "stops stopped"), ("carry", "carries carried"), ("play", "plays played"), ("bake", "bakes baked"),
    ("visit", "visits visited"), ("admit", "admits admitted"), ("go", "goes went"), ("fix", "fixes fixed"),
    ("teach", "teaches taught"), ("have", "has had"), ("can", "can could"), ("acquit", "acquits acquitted"),
    ("hiss", "hisses hissed"), ("mimic", "mimics mimicked")])
def test_regular_and_irregular_forms(verb, forms):
    assert f"{third_person(verb)} {past(verb)}" == forms


def test_conjugate_knows_to_be():
    assert [conjugate("be", "past", plural) for plural in (False, True)] == ["was", "were"]
    assert conjugate("be", "present", True, first=True) == "am"


@pytest.mark.parametrize(("noun", "article"), [
    ("egg", "an"), ("uniform", "a"), ("hour", "an"), ("horse", "a"), ("one-eyed cat", "a"), ("umbrella", "an"),
    ("ukulele", "a"), ("X-ray", "an"), ("unknown man", "an"), ("European", "a"), ("unicycle", "a"), ("urn", "an")])
def test_the_article_fits_what_was_chosen(noun, article):
    assert render(f"a [{noun}|{noun}]", ACTORS[0], "past", random.Random(0)) == f"{article} {noun}"


def test_settings_come_in_many_lengths():
    assert {len(setting.split()) for setting in SETTINGS} >= set(range(2, 9))
