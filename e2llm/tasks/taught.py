"""Is a free question one that the model was taught? Which task is meant, and which are nearest if none is.

A model of this kit answers anything with one of its closed sets: asked whether a person lies, it would name an emotion
and its evidence. A question therefore counts as understood only if it is a wording of a task, or is made of the words
of such wordings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ..core.labels import LabelSet
from .items import MORE
from .wordings import (
    COMPARE_WORDINGS,
    DESCRIBE_WORDINGS,
    MATCH_WORDINGS,
    PREDICT_WORDINGS,
    RANK_WORDINGS,
    ZERO_MATCH_WORDINGS,
    ZERO_SHOT_WORDINGS,
)

TASKS = {"predict": (1, 1), "describe": (1, 1), "compare": (2, 2), "rank": (3, 4), "match": (2, 4)}
"""Task: smallest and largest number of segments."""
_FORMS = {"predict": (*PREDICT_WORDINGS, *ZERO_SHOT_WORDINGS), "describe": DESCRIBE_WORDINGS,
          "compare": COMPARE_WORDINGS, "rank": RANK_WORDINGS, "match": (*MATCH_WORDINGS, *ZERO_MATCH_WORDINGS)}
_ENOUGH = 0.5  # share of words that a question made of known words has in common with its wording


class Taught(NamedTuple):
    """The task that a question is a wording of, and the axis of a comparison or ranking ("")."""

    task: str
    axis: str = ""


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())


def _wordings(label_set: LabelSet) -> Iterator[tuple[Taught, list[str]]]:
    for task, forms in _FORMS.items():
        for form in forms:
            if "{more}" in form:
                for axis, more in MORE.items():
                    yield Taught(task, axis), _words(form.format(more=more))
            else:
                yield Taught(task), _words(form.format(noun=label_set.noun))


def _alike(first: list[str], second: list[str]) -> float:
    """Words in common, of both: Dice's coefficient."""
    a, b = set(first), set(second)
    return 2 * len(a & b) / max(1, len(a) + len(b))


def recognize(question: str, n_segments: int, label_set: LabelSet) -> Taught | None:
    """The task that a question asks for, or None if it is none that a model is taught.

    A text that ends with a wording of "match" is a scenario with its question.

    Parameters
    ----------
    question : str
        Free text.
    n_segments : int
        Segments that it is about; a task for another number is not meant.
    label_set : LabelSet
        What the answers are called.
    """
    asked = _words(question)
    if not asked:
        return None
    fitting = [(taught, form) for taught, form in _wordings(label_set)
               if TASKS[taught.task][0] <= n_segments <= TASKS[taught.task][1]]
    for taught, form in fitting:
        if asked == form or (taught.task == "match" and asked[-len(form):] == form):
            return taught
    best, taught = 0.0, None
    for candidate, form in fitting:
        known = {word for other, words in fitting if other == candidate for word in words}
        # every word of the question is one of the task's, so it asks for nothing else
        if candidate.task != "match" and set(asked) <= known and (alike := _alike(asked, form)) > best:
            best, taught = alike, candidate
    names_it = taught is not None and (taught.task != "predict" or set(_words(label_set.noun)) <= set(asked)
                                       or "feel" in asked)
    return taught if best >= _ENOUGH and names_it else None


def declined(question: str, n_segments: int, label_set: LabelSet) -> str:
    """Sentences that say that a question was not taught, and which tasks are nearest to it.

    Parameters
    ----------
    question : str
        Free text that :func:`recognize` does not know.
    n_segments : int
        Segments that it is about.
    label_set : LabelSet
        What the answers are called.
    """
    asked, best = _words(question), {}
    for taught, form in _wordings(label_set):
        if taught.axis and not label_set.has_affect and taught.axis != "intensity":
            continue
        of_axis = _words(MORE.get(taught.axis, ""))  # a question that names no axis is as near to each
        alike = _alike(asked, [word for word in form if word not in of_axis or word in asked])
        if taught.task not in best or alike > best[taught.task][0]:
            best[taught.task] = alike, taught
    here = [task for task, (fewest, most) in TASKS.items() if fewest <= n_segments <= most]
    order = sorted(here, key=lambda task: -best[task][0])
    offers = "; ".join(f"{_example(best[task][1], label_set)} ({_name(best[task][1])})" for task in order)
    segments = f"{n_segments} segment{'s' * (n_segments != 1)}"
    other = [task for task in sorted(best, key=lambda task: -best[task][0])
             if task not in here and best[task][0] > max((best[one][0] for one in here), default=0)]
    more = ""
    if other:
        fewest, most = TASKS[other[0]]
        more = (f" With {fewest if fewest == most else f'{fewest} to {most}'} segment{'s' * (most > 1)} you can ask: "
                f"{_example(best[other[0]][1], label_set)} ({_name(best[other[0]][1])}).")
    return (f"The model was not taught this question, so it does not answer it. The nearest tasks for {segments}: "
            f"{offers}.{more}")


def _name(taught: Taught) -> str:
    return f"{taught.task} {taught.axis}".strip()


def _example(taught: Taught, label_set: LabelSet) -> str:
    form = _FORMS[taught.task][0].format(noun=label_set.noun, more=MORE.get(taught.axis, ""))
    return f"“{'a scenario, then: ' * (taught.task == 'match')}{form}”"
