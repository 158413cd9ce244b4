"""A question that was taught is recognized in many wordings; any other one is declined, with the nearest tasks."""

import pytest

from e2llm.core.labels import SEED_VII, plain_labels
from e2llm.tasks.taught import TASKS, Taught, declined, recognize
from e2llm.tasks.wordings import COMPARE_WORDINGS, DESCRIBE_WORDINGS, MATCH_WORDINGS, PREDICT_WORDINGS, RANK_WORDINGS


@pytest.mark.parametrize(("forms", "n", "taught"), [
    (PREDICT_WORDINGS, 1, Taught("predict")), (DESCRIBE_WORDINGS, 1, Taught("describe")),
    (COMPARE_WORDINGS, 2, Taught("compare", "arousal")), (RANK_WORDINGS, 4, Taught("rank", "arousal")),
    (MATCH_WORDINGS, 3, Taught("match"))])
def test_every_wording_is_recognized_whatever_its_case_and_marks(forms, n, taught):
    for form in forms:
        asked = form.format(noun=SEED_VII.noun, more="more activated")
        for question in (asked, asked.upper(), f"  {asked.rstrip('?.')} "):
            assert recognize(question, n, SEED_VII) == taught, question


@pytest.mark.parametrize(("question", "n", "taught"), [
    ("Which emotion is it?", 1, Taught("predict")), ("Which emotion?", 1, Taught("predict")),
    ("What does this person feel?", 1, Taught("predict")), ("Describe this.", 1, Taught("describe")),
    ("Which is more pleasant?", 2, Taught("compare", "valence")),
    ("A boy has lost his dog. Which segment fits this scenario?", 3, Taught("match"))])
def test_other_words_of_a_task_are_recognized(question, n, taught):
    assert recognize(question, n, SEED_VII) == taught


@pytest.mark.parametrize(("question", "n"), [
    ("Is this person lying?", 1), ("Quelle émotion montre ce segment ?", 1), ("asdf qwer", 1), ("???", 1), ("", 1),
    ("How old is this person?", 1), ("Which person is it?", 1), ("Which segment is the happiest?", 4),
    ("Which emotion does this segment not show?", 1), ("Is it an emotion or an artefact?", 1),
    ("Which emotion does this segment show?", 2), ("Which segment is more pleasant?", 1)])
def test_what_was_not_taught_is_not_recognized(question, n):
    assert recognize(question, n, SEED_VII) is None


def test_a_refusal_names_the_nearest_task_first_and_only_tasks_for_these_segments():
    said = declined("Which segment is the happiest?", 4, SEED_VII)
    assert said.index("(match)") < said.index("(rank valence)") and "predict" not in said
    assert "nearest tasks for 4 segments" in said and "With 2 segments you can ask" in said
    french = declined("Quelle émotion montre ce segment ?", 1, SEED_VII)
    assert "“Which emotion does this segment show?” (predict)" in french and "“Describe this segment.”" in french
    for n in range(1, 5):
        offered = {task for task in TASKS if f"({task}" in declined("Is this person lying?", n, SEED_VII)}
        assert {task for task, (fewest, most) in TASKS.items() if fewest <= n <= most} <= offered


def test_labels_without_affect_are_compared_by_intensity_only():
    said = declined("Who is happier?", 2, plain_labels("mine", ["rest", "count"]))
    assert "(compare intensity)" in said and "pleasant" not in said
