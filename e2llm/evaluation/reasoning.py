"""Generated explanations compared with the signal: tables and examples for lesson 07 and the report.

Everything here is about test windows: people and clips that no training saw. Every rate has its chance and its interval
over people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.chat import END_THINK, THINK, Item
from ..core.claims import Claim, Claims, EvidenceNames, salient_claims
from ..core.verdicts import Verdict, verdicts
from ..data import band_edits
from ..data.dataset import Corpus
from ..models.eegpt import EEGPT
from ..models.evidence_rule import EvidenceRule
from ..models.inference import InferenceEngine, closed_set, generate, probabilities, score_options
from ..tasks.items import evidence_sentence, parse_answer, question_text
from ..tasks.thought_parser import Parsed, parse, sentences
from ..training import augmentation
from . import counterfactual
from .causal_measures import Answer, CausalTables
from .controls import other_windows
from .evidence_capacity import Fold, codings_of, evidence_capacity
from .faithfulness import (
    UNRELATED,
    claim_precision,
    claim_recall,
    claims_of_another_window,
    consistency,
    corrupted,
    decorative,
    flag_rate,
    flags,
    prior_claims,
    truncated,
    with_unrelated_sentence,
    without_conclusion,
)
from .metrics import Score, accuracy, mean_over_subjects
from .planted_models import beside_planted


class GeneratedExplanations(NamedTuple):
    """Texts that a model generated about windows, and what was read in them."""

    items: list[Item]
    texts: list[str]
    thoughts: list[str]
    parsed: list[Parsed]
    answers: list[str | None]  # labels read from the free text

    @property
    def claims(self) -> list[tuple[Claim, ...]]:
        """Level claims about each window."""
        return [parsed.claims for parsed in self.parsed]


def thought_of(text: str) -> str:
    """The thought of a response, without its marks."""
    return text.split(END_THINK, 1)[0].replace(THINK, "").strip()


def generate_explanations(engine: InferenceEngine, corpus: Corpus, items: list[Item]) -> GeneratedExplanations:
    """Let a model write thoughts and answers, greedily, to tier-1 questions.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    corpus : Corpus
        Its labels are read in the texts.
    items : list of Item
        One a window.
    """
    texts, labels, scale = generate(engine, items), list(corpus.label_set.labels), corpus.evidence_names.scale
    thoughts = [thought_of(text) for text in texts]
    read = [parse(thought, labels, scale, cut_off=END_THINK not in text)
            for thought, text in zip(thoughts, texts, strict=True)]
    return GeneratedExplanations(items, texts, thoughts, read,
                                 [parse_answer(text, labels) for text in texts])


# --- are the claims true?


def claims_table(corpus: Corpus, rows: np.ndarray, claims_by_model: Mapping[str, Sequence[Sequence[Claim]]],
                 seed: int) -> pd.DataFrame:
    """Precision and recall of claims about windows, a row for each model and measure.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    claims_by_model : mapping
        Model to the claims of each of its texts.
    seed : int
        Of the intervals.
    """
    return scored_claims(corpus.z[rows], corpus.evidence_names, corpus.subjects[rows], claims_by_model, seed)


def scored_claims(z: np.ndarray, names: EvidenceNames, subjects: np.ndarray,
                  claims_by_model: Mapping[str, Sequence[Sequence[Claim]]], seed: int) -> pd.DataFrame:
    """As :func:`claims_table`, for windows that need not be of one split.

    Parameters
    ----------
    z : ndarray, shape (n, n_evidence)
        Measured evidence of the windows.
    names : EvidenceNames
        Its columns.
    subjects : ndarray, shape (n,)
        Person of each window; the intervals are over people.
    claims_by_model, seed
        As for :func:`claims_table`.
    """
    found = []
    for name, claims in claims_by_model.items():
        a_window = np.mean([len(each) for each in claims])
        for measure, score in (("precision", claim_precision), ("recall", claim_recall)):
            found.append(score(claims, z, names, subjects, seed).row(name, group=measure)
                         | {"claims a window": a_window})
    return pd.DataFrame(found)


def baseline_claims(corpus: Corpus, rows: np.ndarray, seed: int) -> dict[str, list[tuple[Claim, ...]]]:
    """Claims that do not depend on the window: training prior, and evidence of another window of the person.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    seed : int
        Of the other windows.
    """
    z, names = corpus.z, corpus.evidence_names
    other = claims_of_another_window(z[rows], names, corpus.subjects[rows], np.random.default_rng(seed))
    return {"training prior": prior_claims(z[corpus.split.train], names, len(rows)), "another window": other}


def precision_by_feature(corpus: Corpus, rows: np.ndarray, explanations: GeneratedExplanations,
                         seed: int) -> pd.DataFrame:
    """Claim precision of each feature that was claimed, in the order of the evidence table.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    explanations : GeneratedExplanations
        Of these windows.
    seed : int
        Of the intervals.
    """
    found, z, names, subjects = [], corpus.z[rows], corpus.evidence_names, corpus.subjects[rows]
    for feature in names.columns:
        claims = [[claim for claim in of_window if claim.feature == feature] for of_window in explanations.claims]
        if any(claims):
            found.append(claim_precision(claims, z, names, subjects, seed).row(feature))
    return pd.DataFrame(found)


def _permuted_chance(hits: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Chance of each row of a (n, n) table of hits: the mean over the other windows of the same person."""
    chance = np.zeros(len(hits))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        own = hits[np.ix_(rows, rows)].astype(float)
        chance[rows] = (own.sum(axis=1) - np.diag(own)) / max(1, len(rows) - 1)
    return chance


def capacity(corpus: Corpus, seed: int) -> pd.DataFrame:
    """What a thought can carry, from measured evidence and from what the probe predicts from the encoder's tokens.

    See :func:`e2llm.evaluation.evidence_capacity.evidence_capacity`.

    Parameters
    ----------
    corpus : Corpus
        Of a run whose stage 1 is finished.
    seed : int
        Of the intervals.
    """
    return evidence_capacity([evidence_fold(corpus)], corpus.evidence_names, len(corpus.label_set),
                             codings_of(corpus.evidence_names.scale), seed)


def evidence_fold(corpus: Corpus) -> Fold:
    """Both kinds of evidence of a run whose stage 1 is finished, under its split."""
    evidence = {"measured": corpus.z, "predicted by the encoder": corpus.predicted_evidence}
    return Fold(evidence, corpus.labels, corpus.subjects, corpus.split)


def evidence_rule(corpus: Corpus) -> EvidenceRule:
    """Labels from claims, fitted on the salient claims of training windows."""
    train, names = corpus.split.train, corpus.evidence_names
    return EvidenceRule().fit([salient_claims(corpus.z[row], names) for row in train],
                              [corpus.label_set.labels[i] for i in corpus.labels[train]], names)


def explanations_table(corpus: Corpus, rows: np.ndarray, explanations: GeneratedExplanations,
                       seed: int) -> pd.DataFrame:
    """Rates of whole explanations: read, flagged as fabricated, consistent with what they claim.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    explanations : GeneratedExplanations
        Of these windows.
    seed : int
        Of the intervals.
    """
    subjects, names, label_set = corpus.subjects[rows], corpus.evidence_names, corpus.label_set
    rule = evidence_rule(corpus)
    parsed = explanations.parsed
    ranked = [rule.ranked(each.claims)[:2] if each.claims or each.no_salient_feature else [] for each in parsed]
    concluded = [each.conclusion for each in parsed]
    stated = np.array([label is not None for label in concluded])
    read = np.array([each.readable for each in parsed])
    found = [accuracy(read, np.zeros(len(rows)), subjects, seed).row("every sentence is read") | {"chance": None},
             flag_rate(parsed, corpus.z[rows], names, subjects, seed).row("flagged as fabricated")]
    codes = np.unique(subjects, return_inverse=True)[1]
    # Chance needs another window of the person
    kept = np.flatnonzero(stated & (np.bincount(codes, weights=stated)[codes] > 1))
    for k, name in ((1, "conclusion follows from the claims"), (2, "conclusion is among the two likeliest")):
        hits = np.array([[concluded[i] in ranked[j][:k] for j in kept] for i in kept])
        if len(kept):
            found.append(accuracy(np.diag(hits), _permuted_chance(hits, codes[kept]), subjects[kept], seed).row(name))
    judged = [consistency(each, label_set, rule) for each in parsed]
    for axis in ("valence", "arousal"):
        fits = [(getattr(each, axis), subject) for each, subject in zip(judged, subjects, strict=True)
                if getattr(each, axis) is not None]
        if fits:
            correct, of = (np.array(values) for values in zip(*fits, strict=True))
            found.append(accuracy(correct, np.zeros(len(fits)), of, seed).row(f"{axis} word fits the conclusion")
                         | {"chance": None})
    return pd.DataFrame(found)


# --- does the answer depend on the reasons?


def _scores_after(engine: InferenceEngine, items: list[Item], thoughts: list[str]) -> list[np.ndarray]:
    return score_options(engine, items, [f"{THINK}\n{thought}\n{END_THINK}\n\n" for thought in thoughts])


def answer_after_claims(engine: InferenceEngine, items: Sequence[Item], write: Callable[[Claims], str],
                        places: Sequence[int] | None = None) -> Answer:
    """A model that sees the EEG and a thought, as :mod:`e2llm.evaluation.causal_measures` takes it.

    The question of a place stays what it is when its EEG is exchanged.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    items : sequence of Item
        Questions with equally many options, each about one window of its own. All are asked each time.
    write : callable
        Claims about a window to the thought, without a conclusion.
    places : sequence of int, optional
        Windows that the rows of an answer count, if there are more than those of the items.
    """
    windows = [item.windows[0] for item in items]
    counted = windows if places is None else places

    def answer(rows: np.ndarray, claims: Sequence[Claims]) -> np.ndarray:
        seen = {window: engine.position[counted[row]] for window, row in zip(windows, rows, strict=True)}
        thoughts = [write(each) for each in claims]
        return probabilities(_scores_after(replace(engine, position=seen), list(items), thoughts))

    return answer


def _answers_after(engine: InferenceEngine, items: list[Item], thoughts: list[str]) -> list[str]:
    scores = _scores_after(engine, items, thoughts)
    return [item.options[int(np.argmax(row))] for item, row in zip(items, scores, strict=True)]


def interventions(engine: InferenceEngine, corpus: Corpus, explanations: GeneratedExplanations,
                  seed: int) -> tuple[pd.DataFrame, str]:
    """How often the answer changes when its thought is changed; and what that means, in a sentence.

    Thoughts are used without their conclusion, which would give the answer whatever stands before it; the last row
    replaces the whole thought, its conclusion included, by that about another window.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    corpus : Corpus
        Its labels are read in the texts.
    explanations : GeneratedExplanations
        Of this model.
    seed : int
        Of the changes and intervals.

    Raises
    ------
    ValueError
        If no thought holds a claim.
    """
    labels, scale, rng = corpus.label_set.labels, corpus.evidence_names.scale, np.random.default_rng(seed)
    bare = [without_conclusion(thought, labels, scale) if sentences(thought) else ""
            for thought in explanations.thoughts]
    usable = [i for i, thought in enumerate(bare) if parse(thought, labels, scale).claims]
    if not usable:
        raise ValueError("No thought about these windows holds a claim, so none can be corrupted: train the model "
                         "longer.")
    items, bare = [explanations.items[i] for i in usable], [bare[i] for i in usable]
    subjects = np.array([item.subject for item in items])
    before = _answers_after(engine, items, bare)
    interventions = {"claims turned round": [corrupted(thought, rng, labels, scale) for thought in bare],
                     "cut in half": [truncated(thought) for thought in bare],
                     "unrelated sentence": [with_unrelated_sentence(thought, rng) for thought in bare]}
    changed = {name: np.array([a != b for a, b in zip(before, _answers_after(engine, items, thoughts), strict=True)])
               for name, thoughts in interventions.items()}
    whole = [explanations.thoughts[i] for i in usable]
    others = other_windows(np.zeros(len(usable)), np.array([item.answer for item in items]), rng)
    other = _answers_after(engine, items, [whole[i] for i in others])
    changed["thought of another window"] = np.array([a != b for a, b in zip(_answers_after(engine, items, whole), other,
                                                                     strict=True)])
    table = pd.DataFrame([accuracy(hits, np.zeros(len(hits)), subjects, seed).row(name) | {"chance": None}
                          for name, hits in changed.items()])
    return table, decorative(changed["claims turned round"], changed["unrelated sentence"], subjects, seed).sentence


CAUSAL_WINDOWS = 120  # at most; each is asked about twenty times


def causes(engine: InferenceEngine, corpus: Corpus, explanations: GeneratedExplanations,
           seed: int) -> dict[str, CausalTables]:
    """Whether the answer follows from the claims: the model beside planted models whose chains are known.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    corpus : Corpus
        Its training windows fit the rule of the planted model that answers from claims.
    explanations : GeneratedExplanations
        Of this model. :data:`CAUSAL_WINDOWS` of them are taken, evenly.
    seed : int
        Of donors, orders and intervals.

    Returns
    -------
    dict of str to CausalTables
        The model is the first; see :func:`e2llm.evaluation.planted_models.beside_planted`.

    Raises
    ------
    ValueError
        If the model gives one answer to all windows.
    """
    every = max(1, -(-len(explanations.items) // CAUSAL_WINDOWS))
    items, claims = explanations.items[::every], explanations.claims[::every]
    unrelated = answer_after_claims(engine, items, lambda stated: f"{UNRELATED[0]} {evidence_sentence(stated)}")
    return beside_planted("LLM", answer_after_claims(engine, items, evidence_sentence), claims,
                          np.array([item.subject for item in items]), closed_set(engine, items), evidence_rule(corpus),
                          corpus.label_set.labels, {"unrelated sentence": unrelated}, seed,
                          corpus.evidence_names.scale.words)


def counterfactuals(engine: InferenceEngine, corpus: Corpus, explanations: GeneratedExplanations, rows: np.ndarray,
                    encoder: EEGPT, seed: int, target: float = band_edits.TARGET_Z) -> tuple[pd.DataFrame,
                                                                                             pd.DataFrame]:
    """One band of one region scaled in each window, a row an edit.

    Tables of :func:`e2llm.evaluation.counterfactual.responses`.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    explanations : GeneratedExplanations
        Of these windows as recorded.
    encoder : EEGPT
        Whose tokens the model knows.
    seed : int
        Of the edits.
    target : float
        How far the edited feature is moved, z.

    Returns
    -------
    model, ceiling : DataFrame
        Of the model, and of texts that always state what is measured: what the limit on the number of claims permits.
    """
    drawn = band_edits.draw_clear_edits(corpus, rows, np.random.default_rng(seed), target)
    place = {int(row): i for i, row in enumerate(rows)}
    chosen = [place[edit.row] for edit in drawn.clear]
    items = [explanations.items[i] for i in chosen]
    edited = replace(engine, features=augmentation.encode_edited(encoder, corpus, drawn.clear),
                     position={item.windows[0]: i for i, item in enumerate(items)})
    after, names = generate_explanations(edited, corpus, items), corpus.evidence_names
    measured = (drawn.clear, drawn.z_before, drawn.z_after, names)
    truthful = [counterfactual.truthful(z, names) for z in (drawn.z_before, drawn.z_after)]
    before, answers = [explanations.parsed[i] for i in chosen], [explanations.answers[i] for i in chosen]
    return (counterfactual.responses(before, after.parsed, *measured, answers=(answers, after.answers)),
            counterfactual.responses(*truthful, *measured))


# --- two models


def per_person(corpus: Corpus, rows: np.ndarray, explanations: GeneratedExplanations) -> pd.DataFrame:
    """Claim precision, recall and accuracy of the free text, a row a person.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    explanations : GeneratedExplanations
        Of these windows.
    """
    z, subjects, names = corpus.z[rows], corpus.subjects[rows], corpus.evidence_names
    labels = [corpus.label_set.labels[i] for i in corpus.labels[rows]]
    found = {}
    for who in np.unique(subjects):
        own = np.flatnonzero(subjects == who)
        claims = [explanations.claims[i] for i in own]
        found[who] = {"claim precision": claim_precision(claims, z[own], names, subjects[own]).value,
                      "claim recall": claim_recall(claims, z[own], names, subjects[own]).value,
                      "accuracy": float(np.mean([explanations.answers[i] == labels[i] for i in own]))}
    return pd.DataFrame(found).T


def feedback_table(corpus: Corpus, rows: np.ndarray, before: GeneratedExplanations,
                   after: GeneratedExplanations) -> pd.DataFrame:
    """What a round of feedback changes: mean over people before, after, and of the difference.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    before, after : GeneratedExplanations
        Of these windows.

    Returns
    -------
    DataFrame
        A row a measure. ``subjects`` counts the people for whom both are defined: without a claim there is no
        precision.
    """
    one, other = per_person(corpus, rows, before), per_person(corpus, rows, after)
    found = []
    for measure in one:
        both = (other - one)[measure].dropna()
        difference = (mean_over_subjects(both.to_numpy(), 0.0, len(rows), one_subject=(-1.0, 1.0)) if len(both)
                      else Score.undefined())
        means = {name: table.loc[both.index, measure].mean() for name, table in (("before", one), ("after", other))}
        found.append(difference.row(measure, **means, subjects=len(both)))
    return pd.DataFrame(found)


# --- examples


def judged(corpus: Corpus, explanations: GeneratedExplanations) -> pd.DataFrame:
    """Each explanation of one window with its verdicts, one row a window, in the order of the items.

    Parameters
    ----------
    corpus : Corpus
        Measured evidence and labels.
    explanations : GeneratedExplanations
        Of items about one window each.

    Returns
    -------
    DataFrame
        ``window``, ``question``, ``text``, ``claims`` (with their verdicts), ``true`` and ``false`` (how many of them),
        ``answer``, ``truth`` and ``flag``. A claim that cannot be checked counts as false.
    """
    return pd.DataFrame([_with_verdicts(corpus, item.windows[0], item, *one) for item, *one in
                         zip(*explanations[:2], explanations.parsed, explanations.answers, strict=True)])


def best_and_worst(corpus: Corpus, rows: np.ndarray, explanations: GeneratedExplanations,
                   n: int = 3) -> dict[str, list[dict]]:
    """The ``n`` best explanations and the ``n`` worst.

    Best: right answer, then most true claims. Worst: most false claims, then wrong answer.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n_windows,)
        Windows.
    explanations : GeneratedExplanations
        Of these windows.
    n : int
        How many of each.

    Returns
    -------
    dict
        ``best`` and ``worst``: window, question, text, claims with their verdicts, answer and truth of each.
    """
    judged = [_with_verdicts(corpus, int(row), *one) for row, *one in
              zip(rows, explanations.items, explanations.texts, explanations.parsed, explanations.answers, strict=True)]
    right = sorted(judged, key=lambda one: (-(one["answer"] == one["truth"]), one["false"], -one["true"],
                                            one["window"]))
    wrong = sorted(judged, key=lambda one: (-one["false"], one["true"], one["answer"] == one["truth"], one["window"]))
    return {"best": right[:n], "worst": wrong[:n]}


def _with_verdicts(corpus: Corpus, row: int, item: Item, text: str, parsed: Parsed, answer: str | None) -> dict:
    z, names = corpus.z[row], corpus.evidence_names
    pairs = list(zip(parsed.claims, verdicts(parsed.claims, z, names), strict=True))
    checked = [f"{claim}: {verdict}" + ("" if verdict is Verdict.UNKNOWN
                                        else f" (z = {z[names.columns.index(claim.feature)]:+.1f})")
               for claim, verdict in pairs]
    n_true = sum(verdict is Verdict.TRUE for _, verdict in pairs)
    return {"window": row, "question": question_text(item), "text": text, "claims": checked, "true": n_true,
            "false": len(pairs) - n_true, "answer": answer or "", "truth": item.answer,
            "flag": flags(parsed, z, names).reason or "none"}
