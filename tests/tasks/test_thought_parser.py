"""The grammar reads every wording that it may write, and leaves what is denied, hedged or garbled unread."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2llm.core.bands import BANDS
from e2llm.core.claims import GRADED, LEVELS, SCALES, WHOLE, Claim, EvidenceNames
from e2llm.core.labels import SEED_VII, plain_labels
from e2llm.core.montage import REGIONS
from e2llm.tasks.items import ItemBuilder, describe, evidence_sentence, text_items
from e2llm.tasks.segments import imagined_segments
from e2llm.tasks.thought_parser import (
    FEATURES,
    Affect,
    Comparison,
    Conclusion,
    NoSalientFeature,
    Note,
    Ranking,
    negated,
    parse,
    sentences,
    wordings,
)

LABELS = SEED_VII.labels
CLAIMS = [Claim(feature, level) for feature in FEATURES for level in LEVELS]
ALPHA_LOW = Claim("occipital alpha", "low")


def read(text: str) -> tuple:
    """Statements of a text that must be readable."""
    parsed = parse(text, LABELS)
    assert parsed.readable, parsed.unread
    return parsed.statements


def test_features_are_those_that_are_measured():
    names = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
    assert list(FEATURES) == names.columns


# --- what the kit writes


@pytest.mark.parametrize("label_set", [SEED_VII, plain_labels("eegmat", ["arithmetic", "rest"])],
                         ids=lambda label_set: label_set.name)
def test_every_thought_of_the_kit_is_read(label_set):
    items = text_items(label_set, 300, seed=1)
    builder = ItemBuilder(imagined_segments(label_set, 100, np.random.default_rng(2)), label_set, seed=2)
    items += [item for kind in builder.kinds() for item in builder.draw(kind, 40)]
    starts = set()
    for item in items:
        parsed = parse(item.response(thinking=True), label_set.labels)
        assert parsed.readable, (item.thought, parsed.unread)
        starts.add(item.thought.split()[0])
    assert starts >= {"Evidence:", "Measured:", "Findings:", "No", "Nothing"}
    about_affect = {"compare", "rank", "match", "choose"} if label_set.has_affect else set()
    assert {item.kind for item in items} >= {"predict", "describe", "select"} | about_affect


GRADED_CLAIMS = [Claim(feature, level) for feature in FEATURES for level in GRADED.words]


@pytest.mark.parametrize("claim", GRADED_CLAIMS, ids=str)
def test_every_wording_of_a_graded_claim_is_read_as_it(claim):
    for text in wordings(claim, GRADED):
        parsed = parse(f"{text}.", LABELS, GRADED)
        assert parsed.claims == (claim,) and parsed.readable, text


@pytest.mark.parametrize(("text", "said"), [
    ("Occipital alpha is slightly low.", "rather low"), ("Strongly reduced occipital alpha.", "very low"),
    ("Occipital alpha is low.", "clearly low"), ("A marked drop in occipital alpha.", None),
    ("Occipital alpha is much higher than their own average.", "very high"),
    ("Occipital alpha is not very low.", None), ("Occipital alpha may be very low.", None),
    ("Occipital alpha is typical.", "typical"), ("Occipital: alpha a bit low.", "rather low")])
def test_degrees_in_the_words_of_others(text, said):
    parsed = parse(text, LABELS, GRADED)
    assert [claim.level for claim in parsed.claims] == ([] if said is None else [said])
    assert parsed.readable == (said is not None)


def test_a_scale_without_degrees_passes_over_them_and_reads_no_hedge():
    assert parse("Occipital alpha is very low.", LABELS).claims == (ALPHA_LOW,)
    assert parse("Occipital alpha is rather low.", LABELS).unread


def test_bands_of_one_region_share_its_name():
    claims = (Claim("frontal beta", "very low"), Claim("frontal gamma", "rather high"),
              Claim("occipital alpha", "clearly low"), Claim("spectral slope", "very high"))
    text = evidence_sentence(claims, grouped=True)
    assert text == ("Evidence: frontal: beta very low, gamma rather high; occipital: alpha clearly low; "
                    "spectral slope very high.")
    assert parse(text, LABELS, GRADED).claims == claims
    turned = parse(negated(text, LABELS, np.random.default_rng(0), GRADED), LABELS, GRADED).claims
    assert [claim.level for claim in turned] == ["very high", "rather low", "clearly high", "very low"]
    assert parse("Frontal: beta low, gamma high.", LABELS).claims == (Claim("frontal beta", "low"),
                                                                      Claim("frontal gamma", "high"))


def clearest(segment):
    """The six claims furthest from typical, earlier ones first, in the order of the segment."""
    words = segment.scale.words
    far = [abs(words.index(claim.level) - words.index("typical")) for claim in segment.claims]
    kept = sorted(range(len(far)), key=lambda i: (-far[i], i))[:6]
    return tuple(claim for i, claim in enumerate(segment.claims) if i in kept)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_what_the_kit_says_of_a_segment_comes_back(scale):
    for segment in imagined_segments(SEED_VII, 300, np.random.default_rng(3), scale):
        parsed = parse(describe(segment, SEED_VII), LABELS, scale)
        assert parsed.claims == clearest(segment) and parsed.no_salient_feature == (not segment.claims)
        assert parse(evidence_sentence(segment.claims), LABELS, scale).claims == segment.claims
        assert parsed.conclusion == segment.label and parsed.statements[0].intensity == segment.state.split()[1]
        assert len(parsed.affect) == 2


def test_comparisons_of_the_kit_come_back():
    builder = ItemBuilder(imagined_segments(SEED_VII, 100, np.random.default_rng(4)), SEED_VII, seed=4)
    for item in [*builder.draw("compare", 50), *builder.draw("rank", 50)]:
        parsed = parse(item.thought, LABELS)
        (ranking,) = parsed.rankings
        assert ranking.axis == item.axis and " > ".join(ranking.letters) == item.answer
        assert set(zip(ranking.letters, ranking.words, strict=True)) <= {(note.letter, note.word)
                                                                         for note in parsed.notes}
        assert [note.letter for note in parsed.notes] == (["A", "B"] if item.kind == "compare"
                                                          else item.options[0].split(" > "))
    for item in builder.draw("match", 30):
        assert parse(item.thought, LABELS).statements[-1].letter == item.answer


# --- wordings


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_every_wording_is_read_as_its_claim(claim):
    texts = wordings(claim)
    n_words = 2 if claim.level == "typical" else 3
    assert texts[0] == str(claim) and len(set(texts)) == len(texts) == 3 + n_words * (2 if claim.feature in WHOLE
                                                                                      else 6)
    for text in texts:
        assert read(text) == (claim,), text


@st.composite
def written(draw) -> tuple[list[Claim], str]:
    """Claims and a text that states them: any wording, case, marks and joins."""
    claims = draw(st.lists(st.sampled_from(CLAIMS), min_size=1, max_size=8))
    text = ""
    for claim in claims:
        words = draw(st.sampled_from(wordings(claim)))
        words = draw(st.sampled_from([str, str.upper, str.capitalize, str.title]))(words)
        text += words + draw(st.sampled_from([". ", ".\n", "! ", "; ", "\n- ", "...  ", ", ", " and ", ", and ",
                                              " while ", ".", " ,  "]))
    text = text.rstrip(" ,-").removesuffix(" and").removesuffix(" while").rstrip(" ,")
    return claims, draw(st.sampled_from(["", "<think>\n", "- ", "**"])) + text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(written())
def test_any_text_of_wordings_is_read_as_its_claims(case):
    claims, text = case
    parsed = parse(text, LABELS)
    assert parsed.statements == tuple(claims) and parsed.unread == ()
    assert parsed.claims == tuple(dict.fromkeys(claims))


@pytest.mark.parametrize("claim", [Claim("prefrontal alpha", "low"), Claim("occipital alpha", "very low"),
                                   Claim("alpha occipital", "low")])
def test_what_cannot_be_measured_has_no_wording(claim):
    with pytest.raises(ValueError, match="must be one of frontal delta"):
        wordings(claim)


# --- what models may write


@pytest.mark.parametrize("text", [
    "Occipital alpha low", "low alpha over the occipital region", "alpha is low at occipital sites",
    "reduced occipital alpha",
    "Decreased occipital alpha.", "Alpha power is diminished occipitally", "The EEG shows a drop in occipital alpha",
    "There is low occipital alpha", "occipital alpha below her own level", "Occipital alpha is lower than usual",
    "occipital alpha lies well below this person's own level", "Over the occipital cortex, alpha is reduced",
    "occipital alpha: low",
    "α is low over the occipital lobe", "The occipital alpha rhythm is very low", "occipital alpha-band power is down",
    "Occipital alpha is low relative to their usual level", "OCCIPITAL ALPHA IS AT A LOW LEVEL",
    "A low occipital alpha.",
    "Occipital alpha under his usual range", "occipital alpha shows a decrease",
    "A drop in alpha over the occipital region.", "A decrease in occipital alpha power."])
def test_one_meaning_in_many_words(text):
    assert read(text) == (ALPHA_LOW,)


@pytest.mark.parametrize(("text", "claim"), [
    ("theta power is raised frontally", "frontal theta high"),
    ("Frontal theta above this person's own level.", "frontal theta high"),
    ("frontal theta is over her own level", "frontal theta high"),
    ("occipital alpha is typical", "occipital alpha typical"),
    ("Occipital alpha is unremarkable.", "occipital alpha typical"),
    ("occipital alpha is neither high nor low", "occipital alpha typical"),
    ("temporal gamma stays within the normal range", "temporal gamma typical"),
    ("frontal alpha asymmetry is elevated", "frontal asymmetry high"),
    ("asymmetry over the frontal region is low", "frontal asymmetry low"),
    ("increased central beta power", "central beta high"),
    ("Frontal alpha asymmetry is raised.", "frontal asymmetry high"),
    ("The spectral slope is below this person's own level", "spectral slope low"),
    ("a reduced aperiodic slope", "spectral slope low"), ("Alpha frequency is high", "alpha frequency high"),
    ("the dominant alpha frequency is lowered", "alpha frequency low"),
    ("low peak alpha frequency", "alpha frequency low"),
    ("Artefact level is unremarkable", "artefact level typical"), ("Artifacts are increased", "artefact level high"),
    ("this window shows high artifact levels", "artefact level high"),
    ("artefact levels are typical", "artefact level typical")])
def test_levels_in_many_words(text, claim):
    assert [str(found) for found in read(text)] == [claim]


@pytest.mark.parametrize(("text", "claims"), [
    ("Occipital alpha and theta are low", ["occipital alpha low", "occipital theta low"]),
    ("Alpha is raised at occipital and parietal sites", ["occipital alpha high", "parietal alpha high"]),
    ("Low occipital alpha, frontal theta high", ["occipital alpha low", "frontal theta high"]),
    ("low occipital alpha and frontal theta", ["occipital alpha low", "frontal theta low"]),
    ("Alpha is low over occipital and parietal theta is high", ["occipital alpha low", "parietal theta high"]),
    ("occipital alpha low, occipital alpha high", ["occipital alpha low", "occipital alpha high"]),
    ("occipital alpha low. Occipital alpha low.", ["occipital alpha low"])])
def test_lists_and_contradictions(text, claims):
    assert [str(found) for found in parse(text, LABELS).claims] == claims and parse(text, LABELS).readable


@pytest.mark.parametrize("start", ["This segment shows", "this window shows", "The segment shows", "That EEG has",
                                   "It shows", "This shows"])
@pytest.mark.parametrize("claim", ["frontal theta low", "low frontal theta", "artefact level high",
                                   "typical alpha frequency"])
def test_a_claim_may_name_what_shows_it(start, claim):
    assert read(f"{start} {claim}.") == read(claim) and len(read(claim)) == 1


def test_features_of_the_whole_scalp_are_no_bands_of_a_region():
    assert [str(claim) for claim in read("Occipital alpha low, alpha frequency high and spectral slope low")] == [
        "occipital alpha low", "alpha frequency high", "spectral slope low"]
    assert read("spectral slope is lower in A than in B") == (Comparison("spectral slope", "A", "lower", "B"),)
    for text in ("occipital alpha frequency is low", "frontal artefact level high",
                 "spectral slope of occipital alpha is low", "frequency is low",
                 "low slope", "beta frequency is high", "alpha frequency is not low", "artefact-free"):
        assert parse(text, LABELS).statements == () and not parse(text, LABELS).readable, text


@pytest.mark.parametrize("text", [
    "Occipital alpha is higher in A than in B", "alpha is higher in A than in B over occipital",
    "A has higher occipital alpha than B",
    "A is higher than B in occipital alpha", "In A, occipital alpha is higher than in B", "Occipital alpha: A > B",
    "more occipital alpha in A than in B",
    "segment A shows more occipital alpha than segment B", "alpha is greater in window A compared to window B over the "
                                                           "occipital region"])
def test_orders(text):
    assert read(text) == (Comparison("occipital alpha", "A", "higher", "B"),)
    assert read(text.replace("higher", "lower").replace("more", "less").replace("greater",
                                                                                "smaller").replace(">", "<")) == (
        Comparison("occipital alpha", "A", "lower", "B"),)


def test_the_later_letter_may_stand_first():
    assert read("Occipital alpha is higher in B than in A") == (Comparison("occipital alpha", "B", "higher", "A"),)
    assert read("Occipital alpha: D < C") == (Comparison("occipital alpha", "D", "lower", "C"),)


def test_statements_of_a_thought_are_gathered_by_kind():
    """What is said twice counts once; a kind that is not there is empty."""
    said = parse("Occipital alpha: A > B. Notes: happy A, fear B. More pleasant: happy A > fear B. Occipital alpha is "
                 "higher in A than in B. Low frontal theta.", LABELS)
    assert said.comparisons == (Comparison("occipital alpha", "A", "higher", "B"),)
    assert said.notes == (Note("A", "happy"), Note("B", "fear")) and said.claims == (Claim("frontal theta", "low"),)
    assert said.rankings == (Ranking("valence", ("A", "B"), ("happy", "fear")),)
    assert said.affect == () and said.conclusion is None and not said.no_salient_feature and said.readable
    nothing = parse("This is calm and pleasant. Nothing stands out.", LABELS)
    assert nothing.affect == (Affect("arousal", "calm"), Affect("valence", "pleasant")) and nothing.no_salient_feature
    assert nothing.comparisons == nothing.notes == nothing.claims == nothing.rankings == ()


def test_notes_affect_and_conclusions():
    assert read("Notes: happy A, fear B.") == (Note("A", "happy"), Note("B", "fear")) == read("A: happy, B is fear")
    assert read("Notes: weak A, strong B. Stronger: strong B.")[-1] == Ranking("intensity", ("B",), ("strong",))
    assert read("More activated: anger B > sad A > neutral C.") == (Ranking("arousal", ("B", "A", "C"),
                                                                            ("anger", "sad", "neutral")),)
    assert read("B is more pleasant than A") == (Ranking("valence",
                                                         ("B",
                                                          "A")),) and read("More intense: C") == (Ranking("intensity",
                                                                                                          ("C",)),)
    assert read("This is neither pleasant nor unpleasant and calm.") == (Affect("valence", "neither"),
                                                                         Affect("arousal", "calm"))
    assert read("The state is positive with high arousal") == (Affect("valence", "pleasant"),
                                                               Affect("arousal", "activated"))
    assert read("The scenario fits fear B.") == (Conclusion("fear", "B"),)
    assert read("The segment shows FEAR strong") == (Conclusion("fear", "", "strong"),)
    assert read("No band stands out.") == (NoSalientFeature(),) == read("Nothing stands out")
    for text in ("That fits fear.", "This points to fear", "The answer is fear", "It is consistent with fear",
                 "Answer: fear", "so it means fear"):
        assert parse(text, LABELS).conclusion == "fear"
    for text in ("Occipital alpha is low, so this fits fear", "Low occipital alpha suggests fear",
                 "Occipital alpha is low; this means fear"):
        assert read(text) == (ALPHA_LOW, Conclusion("fear"))


def test_two_conclusions_are_none():
    assert parse("That fits fear. That fits fear.", LABELS).conclusion == "fear"
    parsed = parse("That fits fear. That fits sad.", LABELS)
    assert parsed.conclusion is None and parsed.readable


def test_labels_come_from_the_data_source_and_may_be_words_of_the_grammar():
    assert parse("That fits bored.", LABELS).unread == ("That fits bored.",)
    parsed = parse("Occipital alpha low. This is pleasant and calm. That fits calm.", ("calm", "low"))
    assert parsed.readable and parsed.conclusion == "calm" and parsed.claims == (ALPHA_LOW,)
    assert parse("This fits mental arithmetic.", ("mental arithmetic", "rest")).conclusion == "mental arithmetic"


# --- what must stay unread


@pytest.mark.parametrize("text", [
    "Alpha is not low.", "occipital alpha is not low", "Occipital alpha isn't low.", "Occipital alpha isn’t low",
    "no low occipital alpha",
    "Occipital alpha is never low", "occipital alpha is hardly low", "Occipital alpha may be low.",
    "Occipital alpha seems low",
    "Perhaps occipital alpha is low", "occipital alpha is low or high", "Is occipital alpha low?",
    "Occipital alpha low?",
    "If occipital alpha is low, that fits fear", "occipital alpha is slightly low",
    "It is false that occipital alpha is low",
    "Low occipital alpha is absent", "low occipital alpha without frontal theta", "Occipital alpha low, which is wrong",
    "occipital alpha would be low", "occipital alpha is low in A", "I doubt that occipital alpha is low",
    "occipital alpha (low)", "alpha low",
    "occipital low", "prefrontal alpha is low", "left frontal alpha low", "fronto-central theta high",
    "occipital mu low",
    "occipital alpha is low for other people", "occipital alpha is lower", "occipital alpha low, frontal theta",
    "Low occipital alpha, frontal theta, central beta high", "occipital alpha low not",
    "alpha over occipital and parietal and frontal theta low",
    "occipital alpha is low and reduced", "z = -1.2", "bananas", "low high low high", "，。", "the the the",
    "occipital alpha is below B",
    "alpha alpha alpha occipital low", "That does not fit fear.", "This is not pleasant", "This may be fear",
    "That fits fear or sad",
    "That fits", "Notes: happy", "Occipital alpha is higher in A", "non-low occipital alpha",
    "occipital alpha is low; not true", "occipital alpha in range", "Occipital alpha is higher in A than in A",
    "Occipital alpha suggests fear", "occipital alpha low-ish", "A > B"])
def test_denied_hedged_ambiguous_and_garbled_text_stays_unread(text):
    parsed = parse(text, LABELS)
    assert parsed.statements == () and parsed.unread and not parsed.readable


def test_a_sentence_is_read_as_a_whole_and_the_others_stand():
    parsed = parse("Frontal theta high. Occipital alpha low, I am not sure. That fits fear.", LABELS)
    assert parsed.statements == (Claim("frontal theta", "high"), Conclusion("fear"))
    assert parsed.unread == ("Occipital alpha low, I am not sure.",) and not parsed.readable


def test_nothing_is_not_readable():
    for text in ("", "  \n", "<think>\n</think>\n\nfear"):
        parsed = parse(text, LABELS)
        assert parsed.statements == () == parsed.unread and not parsed.readable


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=80), st.sampled_from(["not", "maybe", "barely", "zzz", "12"]), st.sampled_from(CLAIMS),
       st.data())
def test_an_unknown_word_anywhere_takes_the_claim_away(garbage, word, claim, data):
    parse(garbage, LABELS)  # any text at all may come: it never raises
    words = data.draw(st.sampled_from(wordings(claim))).split()
    place = data.draw(st.integers(0, len(words)))
    parsed = parse(" ".join([*words[:place], word, *words[place:]]), LABELS)
    assert parsed.statements == () and len(parsed.unread) == 1


def test_text_without_end_is_read_in_time():
    start = time.process_time()
    assert len(parse("Occipital alpha low, frontal theta high, " * 60 + "low", LABELS).unread) == 1
    assert len(parse(", ".join(["occipital alpha low"] * 120), LABELS).statements) == 120
    parse("alpha and " * 300, LABELS), parse("occipital " * 500, LABELS), parse("low " * 800, LABELS)
    assert time.process_time() - start < 60  # a grammar that tries everything would never end


def test_a_clause_has_forty_words_at_most():
    forty = "low in occipital alpha" + ", alpha" * 18  # a comma is a word too
    assert set(read(forty)) == {ALPHA_LOW}
    assert parse("low occipital alpha" + ", alpha" * 19, LABELS).unread  # forty-one
    assert set(read(f"{forty}, occipital theta low")) == {ALPHA_LOW, Claim("occipital theta", "low")}


@pytest.mark.parametrize(("text", "n", "unread"), [
    ("Evidence: frontal beta very low, frontal gamma rather hi", 1, "frontal gamma rather hi"),
    ("Evidence: frontal beta very low, frontal gamma low, occipital ga", 2, "occipital ga"),
    ("That fits sad. frontal beta low, ", 1, None),
    ("frontal beta low, which is false", 0, "frontal beta low, which is false"),
    ("frontal beta low, alpha not", 0, "frontal beta low, alpha not")])
def test_of_a_list_that_was_cut_off_within_a_claim_the_whole_claims_are_read(text, n, unread):
    parsed = parse(text, LABELS, GRADED, cut_off=True)
    assert len(parsed.claims) == n and parsed.unread == (() if unread is None else (unread,))
    assert not parse(text, LABELS, GRADED).claims or unread is None


@pytest.mark.parametrize(("thought", "labels", "message"), [
    (None, LABELS, "must be text"), (["low"], LABELS, "must be text"), ("low", "fear", "sequence of labels"),
    ("low", ("fear", ""), "are words")])
def test_what_is_no_thought_is_refused(thought, labels, message):
    with pytest.raises(ValueError, match=message):
        parse(thought, labels)


def test_sentences_end_at_marks_and_lines():
    assert sentences("<think>\n- One two.Three!\n2) *four*; five…\n</think>\nanswer") == ["One two.", "Three!",
                                                                                          "four; five…"]


# --- turning levels round


@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_a_turned_wording_says_the_opposite(claim):
    rng = np.random.default_rng(0)
    for text in wordings(claim):
        (turned,) = read(negated(text, LABELS, rng))
        assert turned.feature == claim.feature
        assert turned.level == {"low": "high", "high": "low"}.get(claim.level, turned.level) != claim.level
        if claim.level != "typical":
            assert negated(negated(text, LABELS, rng), LABELS, rng) == text


def test_only_levels_are_turned_and_only_in_sentences_that_claim_some():
    rng = np.random.default_rng(0)
    assert negated("Low occipital alpha, so this is unpleasant and that fits fear.", LABELS, rng) == (
        "High occipital alpha, so this is unpleasant and that fits fear.")
    assert negated("Occipital alpha is higher in A than in B", LABELS, rng) == "Occipital alpha is lower in A than in B"
    assert negated("Occipital alpha: A > B", LABELS, rng) == "Occipital alpha: A < B"
    assert negated(" Occipital  alpha\nis lower than usual.", LABELS, rng) == " Occipital  alpha\nis higher than usual."
    for text in ("That fits fear.", "More pleasant: happy A > fear B.", "No band stands out.", "alpha is not low",
                 "This is low arousal"):
        assert negated(text, LABELS, rng) is None


@pytest.mark.parametrize("text", ["", " ", "occipital alpha low\u00a0", "\t", "occipital alpha low \u2003."])
def test_turning_takes_any_white_space(text):
    assert negated(text, LABELS, np.random.default_rng(0)) is None
