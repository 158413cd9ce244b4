"""A label set is closed, distinct, and says whether it knows valence and arousal."""

from __future__ import annotations

import pytest

from e2llm.core.labels import SEED_VII, LabelSet, emotions_spelled_otherwise, plain_labels


def test_seven_emotions_with_coordinates():
    assert len(SEED_VII) == 7 and SEED_VII.has_affect
    assert SEED_VII.chance == pytest.approx(1 / 7)
    for axis in (SEED_VII.valence, SEED_VII.arousal):
        assert all(-1 <= value <= 1 for value in axis.values())
    assert SEED_VII.valence["neutral"] == SEED_VII.arousal["neutral"] == 0


def test_coordinates_have_the_signs_that_everyone_agrees_on():
    positive = {label for label, value in SEED_VII.valence.items() if value > 0}
    assert positive == {"happy", "surprise"}
    assert min(SEED_VII.arousal, key=SEED_VII.arousal.get) == "sad"


def test_index_is_the_order_and_unknown_labels_are_named():
    assert [SEED_VII.index(label) for label in SEED_VII.labels] == list(range(7))
    with pytest.raises(ValueError, match=r"'joy' is not a label of 'seed-vii' \(known: happy, .*anger\)"):
        SEED_VII.index("joy")


@pytest.mark.parametrize(("labels", "said"), [
    ((), "Label set 'mine' has no label: there must be two or more to tell apart."),
    (("rest",), "Label set 'mine' has only the label 'rest': there must be two or more to tell apart."),
    (("rest", "task", "rest"), "Label set 'mine' names a label twice (rest, task, rest): name each once."),
])
def test_a_set_needs_two_distinct_labels(labels, said):
    with pytest.raises(ValueError) as refused:
        LabelSet("mine", labels)
    assert str(refused.value) == said


def test_other_spellings_of_emotions_are_seen():
    labels = ["angry", "Happiness", "fearful", "sadness", "Neutral", "surprised", "disgusted", "anger", "calm", "rest",
              "joy", "tired", "happy music", "fatigue", "angle"]
    found = {"angry": "anger", "Happiness": "happy", "fearful": "fear", "sadness": "sad", "Neutral": "neutral",
             "surprised": "surprise", "disgusted": "disgust"}
    assert emotions_spelled_otherwise(labels) == found | {"angle": "anger"}  # it is a remark, not a refusal


@pytest.mark.parametrize("axis", ["valence", "arousal"])
def test_coordinates_for_all_labels_or_for_none(axis):
    for incomplete in ({"rest": 0.0}, {"rest": 0.0, "task": 0.1, "sleep": 0.2}):
        with pytest.raises(ValueError, match=f"'mine': {axis} must be given for all labels or for none"):
            LabelSet("mine", ("rest", "task"), **{axis: incomplete})


def test_affect_needs_both_axes():
    assert not LabelSet("mine", ("rest", "task"), valence={"rest": 0.0, "task": 0.1}).has_affect


def test_plain_labels_do_not_depend_on_the_order_of_files():
    one, other = (plain_labels("eegmat", order) for order in (["rest", "task", "rest"], ["task", "rest"]))
    assert one == other and one.labels == ("rest", "task")
    assert one.noun == "state" and not one.has_affect and one.chance == 0.5
