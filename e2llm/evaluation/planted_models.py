"""Models of which it is known whether their answer follows from their claims: what a measure must tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from ..core.claims import LEVELS, Claims
from ..models.evidence_rule import EvidenceRule
from .causal_measures import Answer, CausalTables, causal_measures, from_claims


def decorative(probabilities: np.ndarray) -> Answer:
    """Answers from the EEG, whatever is claimed.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_options)
        What is answered to each window.
    """
    return lambda rows, claims: probabilities[rows]


def computed(rule: EvidenceRule, labels: Sequence[str]) -> Answer:
    """Answers computed from the claims, whatever the EEG.

    Parameters
    ----------
    rule : EvidenceRule
        Fitted on training windows.
    labels : sequence of str
        The options, in order; one that the rule does not know has no probability.
    """
    return from_claims(lambda claims: rule.probabilities(claims, labels))


def mixed(first: Answer, second: Answer, weight: float) -> Answer:
    """Mean of two models' probabilities.

    Parameters
    ----------
    first, second : Answer
        The models.
    weight : float
        Of the second, 0 to 1.
    """
    return lambda rows, claims: (1 - weight) * first(rows, claims) + weight * second(rows, claims)


def startled(probabilities: np.ndarray, claims: Sequence[Claims]) -> Answer:
    """Answers from the EEG, but wrongly as soon as the claims are not exactly the window's own, whatever they say.

    The answer moves to the next option. Such a model changes its answer under every intervention and follows none.

    Parameters
    ----------
    probabilities : ndarray, shape (n, n_options)
        What is answered to each window with its own claims.
    claims : sequence of sequences of Claim, length n
        The own claims.
    """
    def answer(rows: np.ndarray, stated: Sequence[Claims]) -> np.ndarray:
        same = np.array([set(one) == set(claims[row]) for row, one in zip(rows, stated, strict=True)])
        return np.where(same[:, None], probabilities[rows], np.roll(probabilities[rows], 1, axis=1))

    return answer


def beside_planted(name: str, answer: Answer, claims: Sequence[Claims], subjects: np.ndarray,
                   probabilities: np.ndarray, rule: EvidenceRule, labels: Sequence[str],
                   variants: Mapping[str, Answer] | None = None, seed: int = 0,
                   levels: Sequence[str] = LEVELS) -> dict[str, CausalTables]:
    """The measures of a model, and those of planted models with the same claims about the same windows.

    "decorative", "computed", their mean "half", and "upset": by any change (:func:`startled`). One that gives one
    answer to all windows cannot be measured and is left out with a warning.

    Parameters
    ----------
    name : str
        Of the model; the first key of the result.
    answer, claims, subjects, variants, seed, levels
        As for :func:`e2llm.evaluation.causal_measures.causal_measures`.
    probabilities : ndarray, shape (n, n_labels)
        Answers from the EEG, for the planted models that give them.
    rule : EvidenceRule
        Fitted on training windows, for those that answer from claims.
    labels : sequence of str
        The options, in order.
    """
    beside, derived = decorative(probabilities), computed(rule, labels)
    planted = {"decorative": beside, "half": mixed(beside, derived, 0.5), "computed": derived,
               "upset": startled(probabilities, claims)}
    found = {name: causal_measures(answer, claims, subjects, variants, seed, levels)}
    for kind, model in planted.items():
        try:
            found[kind] = causal_measures(model, claims, subjects, None, seed, levels)
        except ValueError as error:  # answers from the EEG may be the same for all windows, those after claims not
            warnings.warn(f"The planted model {kind!r} is left out of the comparison. {error}", stacklevel=2)
    return found
