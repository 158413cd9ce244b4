"""Whether an answer follows from stated claims: interventions on the claims and on the EEG, each beside its control.

A model is a function of both, ``answer(rows, claims)``, to probabilities (n, n_options): at each place it sees the EEG
of the window ``rows[i]`` and the thought that states ``claims[i]``. One that answers from the thought alone ignores
the rows (:func:`from_claims`). Planted models, of which it is known whether their claims matter, are in
:mod:`e2llm.evaluation.planted_models`; the tests hold every measure against them.

References
----------
Jacovi & Goldberg 2020, ACL (faithful is not plausible); Turpin et al. 2023, NeurIPS, arXiv 2305.04388 (explanations
that leave out what decided); Lanham et al. 2023, arXiv 2307.13702 (interventions on the chain); Lyu et al. 2023,
IJCNLP, arXiv 2301.13379 (answers computed from the chain); Gur-Arieh, Marasović & Geva 2026, arXiv 2605.25052 (most
such measures fail where the truth is known).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon

from ..core.claims import LEVELS, Claim, Claims, EvidenceNames
from ..models.evidence_rule import EvidenceRule
from .metrics import Score, accuracy, ratio_over_subjects

Answer = Callable[[np.ndarray, Sequence[Claims]], np.ndarray]
LEAST = 1e-6  # probabilities below count as this in logarithms: a single sure answer shall not decide a mean
STEPS = (1, 2, 4, 8)  # claims that are replaced, before all are
# What is reported, and which way an answer that follows from its claims moves it
EFFECTS = {"directed success": "more", "turned round": "more", "empty thought, largest probability": "less",
           "turned round, fall of own answer": "more", "indirect effect": "more", "direct effect": "less",
           "share of the effect that claims carry": "more", "turned round, distance": "more",
           "indirect effect, distance": "more", "direct effect, distance": "less"}  # fmt: skip
SILENT = "unchanged: "  # begins the names of rows that an answer that ignores its claims passes too


def from_claims(answer: Callable[[Sequence[Claims]], np.ndarray]) -> Answer:
    """A model that sees claims alone, in the form that the measures take.

    Parameters
    ----------
    answer : callable
        Sequence of claims of n windows to ndarray, shape (n, n_options): probabilities.
    """
    return lambda rows, claims: answer(claims)


# ---------------------------------------------------------------- interventions on claims


def turned_round(claims: Claims, levels: Sequence[str] = LEVELS) -> tuple[Claim, ...]:
    """Claims with each level mirrored: the lowest becomes the highest; the middle one stays.

    Parameters
    ----------
    claims : sequence of Claim
        About one window.
    levels : sequence of str
        From lowest to highest.
    """
    opposite = dict(zip(levels, reversed(levels), strict=True))
    return tuple(Claim(claim.feature, opposite[claim.level]) for claim in claims)


def _by_feature(claims: Claims) -> dict[str, tuple[Claim, ...]]:
    found: dict[str, tuple[Claim, ...]] = {}
    for claim in claims:
        found[claim.feature] = (*found.get(claim.feature, ()), claim)
    return found


def replaced(claims: Claims, donor: Claims, n: float, rng: np.random.Generator) -> tuple[Claim, ...]:
    """Claims of which ``n`` are exchanged for the donor's.

    A feature that only one of the two mentions is also exchanged: its claim is taken away or put in. What both state
    alike is not counted.

    Parameters
    ----------
    claims, donor : sequence of Claim
        About two windows.
    n : float
        Features to exchange; infinity for all, which gives the donor's claims.
    rng : Generator
        Draws the features. Equal generators draw nested sets: a larger ``n`` keeps what a smaller one exchanged.
    """
    own, other = _by_feature(claims), _by_feature(donor)
    differing = [feature for feature in {**other, **own} if own.get(feature) != other.get(feature)]
    chosen = {differing[i] for i in rng.permutation(len(differing))[: int(min(n, len(differing)))]}
    merged = {feature: (other if feature in chosen else own).get(feature, ()) for feature in {**other, **own}}
    return tuple(claim for stated in merged.values() for claim in stated)


def donors(answers: np.ndarray, subjects: np.ndarray, rng: np.random.Generator,
           folds: np.ndarray | None = None) -> np.ndarray:
    """For each window another with another answer: of the same person, or of anybody where the person has none.

    Parameters
    ----------
    answers : ndarray of int, shape (n,)
        What the model answers to each window with its own claims.
    subjects : ndarray, shape (n,)
        Person of each window.
    rng : Generator
        Draws the windows.
    folds : ndarray, shape (n,), optional
        Fold in which each window was tested; a donor is of the same one.

    Returns
    -------
    ndarray of int, shape (n,)
        Places of the donors.

    Raises
    ------
    ValueError
        If all answers are one, or all of a fold.
    """
    found = np.empty(len(answers), dtype=int)
    for i, pool in enumerate(_pools(answers, subjects, folds)):
        found[i] = rng.choice(pool)
    return found


def _pools(answers: np.ndarray, subjects: np.ndarray, folds: np.ndarray | None) -> list[np.ndarray]:
    """Windows that may be a donor of each window."""
    folds = np.zeros(len(answers), dtype=int) if folds is None else np.asarray(folds)
    if alike := [fold for fold in np.unique(folds) if len(np.unique(answers[folds == fold])) < 2]:
        where = f" of fold {alike[0]}" if len(np.unique(folds)) > 1 else ""
        raise ValueError(f"The model gives one answer to all windows{where}, so no claims can lead to another: test a "
                         "trained model, on windows of several labels.")
    pools = []
    for answer, subject, fold in zip(answers, subjects, folds, strict=True):
        other = (answers != answer) & (folds == fold)
        own = np.flatnonzero(other & (subjects == subject))
        pools.append(own if len(own) else np.flatnonzero(other))
    return pools


# ---------------------------------------------------------------- measures


def log_gain(before: np.ndarray, after: np.ndarray, options: np.ndarray) -> np.ndarray:
    """Change of the log-probability of one option a window, nats, shape (n,); see :data:`LEAST`.

    Parameters
    ----------
    before, after : ndarray, shape (n, n_options)
        Probabilities.
    options : ndarray of int, shape (n,)
        The option of each window.
    """
    chosen = np.arange(len(options)), options
    return np.log(np.maximum(after[chosen], LEAST)) - np.log(np.maximum(before[chosen], LEAST))


def distance(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance of two answers to each window, shape (n,): 0 for equal ones, 1 if they share no option.

    Parameters
    ----------
    before, after : ndarray, shape (n, n_options)
        Probabilities.

    References
    ----------
    Lin 1991, IEEE Trans. Inf. Theory 37:145; the root of the divergence, in bits, is a metric. That a change of
    probabilities shows what a changed answer does not: Siegel et al. 2024, arXiv 2404.03189.
    """
    return np.nan_to_num(jensenshannon(before, after, axis=1, base=2))  # NaN for the root of -1e-17


def _rest_gain(before: np.ndarray, after: np.ndarray, own: np.ndarray, donor: np.ndarray) -> float:
    """Mean log gain of the options that are neither the own answer nor the donor's: NaN with two options."""
    change = np.log(np.maximum(after, LEAST)) - np.log(np.maximum(before, LEAST))
    rest = np.ones(change.shape, dtype=bool)
    rest[np.arange(len(own)), own] = rest[np.arange(len(own)), donor] = False
    return float(change[rest].mean()) if rest.any() else float("nan")


class CausalTables(NamedTuple):
    """What interventions do to the answers of one model."""

    measures: pd.DataFrame  # a row a measure: name, unit, better, score, low, high, chance, n
    dose: pd.DataFrame  # a row a number of replaced claims: the same, of the donor's answer

    @property
    def sentence(self) -> str:
        """The finding for everybody."""
        score = self.measures.set_index("name").loc["directed success"]
        value, low, high = (f"{100 * score[column]:.0f}" for column in ("score", "low", "high"))
        return (f"In {value} of 100 cases ({low} to {high}) the answer follows when the stated evidence is exchanged "
                "for that of another window.")


def causal_measures(answer: Answer, claims: Sequence[Claims], subjects: np.ndarray,
                    variants: Mapping[str, Answer] | None = None, seed: int = 0,
                    levels: Sequence[str] = LEVELS, folds: np.ndarray | None = None) -> CausalTables:
    """Change claims or EEG and see what becomes of the answer.

    The answer of a window is the one that the model gives with the window's own EEG and claims. A *donor* is a window,
    of the same person where possible, that the model answers differently.

    ======================================= =============================================== ==========================
    measure                                 what is done, what is counted                   ``chance``
    ======================================= =============================================== ==========================
    directed success                        donor's claims: the answer becomes the donor's  the same answer is that of
                                                                                            a donor drawn at random
    turned round                            levels mirrored: the answer changes             it changes by reordering
    empty thought, largest probability      no claims                                       one over the options
    ``unchanged: …``                        reordered, or said by a variant: same answer    same answer with donor's
                                                                                            claims
    indirect effect                         donor's claims, own EEG: gain of the donor's    gain of the options that
                                            answer, nats; or Jensen-Shannon distance        are neither's; distance by
                                                                                            reordering
    direct effect                           donor's EEG, own claims: the same               0, as for a model that
                                                                                            sees claims alone
    share of the effect that claims carry   indirect over total effect (both exchanged),    0
                                            nats
    ======================================= =============================================== ==========================

    Rows that begin with :data:`SILENT` are conditions, not evidence: an answer that ignores its claims passes them too.
    All others are in :data:`EFFECTS` with the way that an answer that follows from its claims moves them. Changed
    answers and distances show that claims are read; that the answer *follows* them, only directed success, the dose and
    gains in nats above those of the other options show: an answer that any change upsets has the former and not the
    latter. Gains in nats also grow with how improbable the donor's answer was before. Direct and indirect effects are
    Pearl's natural effects, averaged over pairs of windows.

    Parameters
    ----------
    answer : Answer
        The model. Rows are places in ``claims``.
    claims : sequence of sequences of Claim, length n
        What the thought about each window states, without its conclusion.
    subjects : ndarray, shape (n,)
        Person of every window; intervals are over people, drawn whole.
    variants : mapping of str to Answer, optional
        The same model with something in the thought that must not matter: an unrelated sentence, other wordings.
    seed : int
        Of donors, orders and intervals.
    levels : sequence of str
        Levels of claims, from lowest to highest: the words of their scale.
    folds : ndarray, shape (n,), optional
        Fold in which each window was tested, where each has a model of its own; a donor is of the same one.

    Returns
    -------
    CausalTables
        Tables with 95 % intervals over people.

    Raises
    ------
    ValueError
        If lengths differ, probabilities are none, or the model gives one answer to all windows.

    References
    ----------
    Pearl 2001, Direct and indirect effects, UAI; and those of this module.
    """
    rows, subjects = np.arange(len(claims)), np.asarray(subjects)
    unbounded = (np.nan, np.nan)  # interval of one person for values that are no shares
    if not len(claims) or len(subjects) != len(claims):
        raise ValueError(f"Expected one subject for every window and a window at least, got {len(subjects)} subjects "
                         f"and {len(claims)} windows.")
    rng = np.random.default_rng(seed)

    def ask(stated: Sequence[Claims], seen: np.ndarray = rows, model: Answer = answer) -> np.ndarray:
        given = np.asarray(model(seen, stated), dtype=float)
        if given.ndim != 2 or len(given) != len(rows) or not np.allclose(given.sum(axis=1), 1, atol=1e-4):
            raise ValueError(f"The model must give probabilities of shape ({len(rows)}, n_options) whose rows sum to "
                             f"one, not an array of shape {given.shape}.")
        return given

    own = ask(claims)
    answers = own.argmax(axis=1)
    other = donors(answers, subjects, rng, folds)
    wanted = answers[other]
    donor_claims = [claims[i] for i in other]
    reordered = [tuple(each[i] for i in rng.permutation(len(each))) for each in claims]
    exchanged, shuffled, empty = ask(donor_claims), ask(reordered), ask([()] * len(rows))
    other_eeg, total = ask(claims, other), own[other]
    pools = _pools(answers, subjects, folds)

    def score(values: np.ndarray, chance: np.ndarray | float, kept: np.ndarray = rows,
              one_subject: tuple[float, float] = (0.0, 1.0)) -> Score:
        expected = np.broadcast_to(chance, len(rows))[kept].astype(float)
        return accuracy(np.asarray(values, dtype=float)[kept], expected, subjects[kept], seed, one_subject)

    def nats(values: np.ndarray, chance: np.ndarray | float, kept: np.ndarray = rows) -> Score:
        return score(values, chance, kept, unbounded)

    def follows(given: np.ndarray) -> Score:
        said = given.argmax(axis=1)
        by_chance = [np.mean(answers[pool] == one) for pool, one in zip(pools, said, strict=True)]
        return score(said == wanted, np.array(by_chance))

    mirrored = [turned_round(each, levels) for each in claims]
    turned = np.array([i for i in rows if tuple(mirrored[i]) != tuple(claims[i])], dtype=int)
    opposite = ask(mirrored)
    found = [("directed success", "share", follows(exchanged))]
    if len(turned):
        moved = shuffled.argmax(axis=1) != answers
        found += [("turned round", "share", score(opposite.argmax(axis=1) != answers, moved, turned)),
                  ("turned round, fall of own answer", "nats",
                   nats(-log_gain(own, opposite, answers), -log_gain(own, shuffled, answers), turned)),
                  ("turned round, distance", "distance",
                   score(distance(own, opposite), distance(own, shuffled), turned))]
    found.append(("empty thought, largest probability", "probability", score(empty.max(axis=1), 1 / own.shape[1])))
    gain, all_gain = log_gain(own, exchanged, wanted), log_gain(own, total, wanted)
    rest = _rest_gain(own, exchanged, answers, wanted)
    share = Score(*ratio_over_subjects(gain, all_gain, subjects, seed, unbounded), 0.0, len(rows))
    found += [("indirect effect", "nats", nats(gain, rest)),
              ("direct effect", "nats", nats(log_gain(own, other_eeg, wanted), 0.0)),
              ("share of the effect that claims carry", "share", share),
              ("indirect effect, distance", "distance", score(distance(own, exchanged), distance(own, shuffled))),
              ("direct effect, distance", "distance", score(distance(own, other_eeg), 0.0))]
    stays = exchanged.argmax(axis=1) == answers
    silent = {"reordered claims": shuffled, **{name: ask(claims, rows, model)
                                               for name, model in (variants or {}).items()}}
    found += [(SILENT + name, "share", score(given.argmax(axis=1) == answers, stays))
              for name, given in silent.items()]
    measures = [each.row(name, unit=unit, better=EFFECTS.get(name, "condition")) for name, unit, each in found]

    dose, seeds = [], rng.integers(2**32, size=len(rows))
    for n in (*STEPS, np.inf):
        mixed = [replaced(claims[i], claims[other[i]], n, np.random.default_rng(seeds[i])) for i in rows]
        given = ask(mixed) if np.isfinite(n) else exchanged
        label = f"{n:.0f}" if np.isfinite(n) else "all"
        dose += [follows(given).row(label, unit="share"),
                 nats(log_gain(own, given, wanted), _rest_gain(own, given, answers, wanted)).row(label, unit="nats")]
    return CausalTables(pd.DataFrame(measures), pd.DataFrame(dose))


def simulatability(train_claims: Sequence[Claims], train_answers: Sequence[str], claims: Sequence[Claims],
                   answers: Sequence[str], names: EvidenceNames, subjects: np.ndarray, seed: int = 0) -> Score:
    """Whether a reader of the claims can foretell the model's answer: no proof that the answer follows from them.

    The reader is a logistic regression (:class:`e2llm.models.evidence_rule.EvidenceRule`), fitted on the model's own
    answers to training windows. Claims that are true of the signal foretell also an answer that was read from the
    signal beside them; whether claims decide is for :func:`causal_measures` to say.

    Parameters
    ----------
    train_claims, train_answers : sequence, length n_train
        What the model states of training windows, and its answers.
    claims, answers : sequence, length n
        The same of test windows.
    names : EvidenceNames
        What was measured.
    subjects : ndarray, shape (n,)
        Person of every test window.
    seed : int
        Of the interval.

    Returns
    -------
    Score
        Agreement. Chance: the answer foretold from the claims of another window of the same person.

    Raises
    ------
    ValueError
        If lengths differ, or the answers to the training windows are all one.

    References
    ----------
    Doshi-Velez & Kim 2017, arXiv 1702.08608, forward simulation.
    """
    if not len(claims) == len(answers) == len(subjects):
        raise ValueError(f"Expected claims, an answer and a subject of every window, got {len(claims)}, {len(answers)} "
                         f"and {len(subjects)}.")
    rule = EvidenceRule().fit(train_claims, train_answers, names)
    foretold, said, subjects = (np.array([rule.ranked(each)[0] for each in claims]), np.asarray(answers),
                                np.asarray(subjects))
    hits, chance = foretold == said, np.zeros(len(said))
    for who in np.unique(subjects):
        own = np.flatnonzero(subjects == who)
        alike = foretold[own][None] == said[own][:, None]
        chance[own] = (alike.sum(axis=1) - hits[own]) / max(1, len(own) - 1)
    return accuracy(hits, chance, subjects, seed)
