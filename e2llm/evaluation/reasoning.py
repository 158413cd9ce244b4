"""The reasoning of a run, held against the signal: tables and examples for lesson 07 and the report.

Everything here is about test windows: people and clips that no training saw. Every rate has its chance and its interval over people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.chat import END_THINK, THINK, Item
from ..core.claims import Claim, salient_claims
from ..data import band_edits
from ..data.dataset import Corpus
from ..models.eegpt import EEGPT
from ..models.inference import InferenceEngine, generate, score_options
from ..tasks.items import parse_answer
from ..tasks.thought_parser import Parsed, parse, sentences
from ..training import augmentation
from . import counterfactual
from .controls import other_windows
from .faithfulness import (
    EvidenceRule,
    claim_precision,
    claim_recall,
    claims_of_another_window,
    consistency,
    corrupted,
    decorative,
    flag_rate,
    prior_claims,
    truncated,
    with_unrelated_sentence,
    without_conclusion,
)
from .metrics import Score, accuracy, mean_over_subjects


class GeneratedExplanations(NamedTuple):
    """What a model said about windows."""

    items: list[Item]
    texts: list[str]
    thoughts: list[str]
    parsed: list[Parsed]
    answers: list[str | None]  # labels read from the free text

    @property
    def claims(self) -> list[tuple[Claim, ...]]:
        """Level claims about each window."""
        return [parsed.claims for parsed in self.parsed]


def tell(engine: InferenceEngine, corpus: Corpus, items: list[Item]) -> GeneratedExplanations:
    """Let a model think aloud, greedily, about tier-1 questions."""
    texts = generate(engine, items)
    thoughts = [text.split(END_THINK, 1)[0].replace(THINK, "").strip() for text in texts]
    labels = list(corpus.label_set.labels)
    return GeneratedExplanations(items, texts, thoughts, [parse(thought, labels) for thought in thoughts], [parse_answer(text, labels) for text in texts])


# --- are the claims true?


def claims_table(corpus: Corpus, rows: np.ndarray, said: dict[str, Sequence[Sequence[Claim]]], seed: int) -> pd.DataFrame:
    """Precision and recall of claims about windows, a row for each speaker and measure."""
    z, subjects, found = corpus.z[rows], corpus.subjects[rows], []
    for name, claims in said.items():
        scores = {"precision": claim_precision(claims, z, corpus.evidence_names, subjects, seed),
                  "recall": claim_recall(claims, z, corpus.evidence_names, subjects, seed)}
        found += [score.row(name, group=measure) | {"claims a window": np.mean([len(each) for each in claims])} for measure, score in scores.items()]
    return pd.DataFrame(found)


def baselines(corpus: Corpus, rows: np.ndarray, seed: int) -> dict[str, list[tuple[Claim, ...]]]:
    """Claims of speakers that do not hear the window: the training prior, and the evidence of another window of the same person."""
    z, names = corpus.z, corpus.evidence_names
    return {"training prior": prior_claims(z[corpus.split.train], names, len(rows)),
            "another window": claims_of_another_window(z[rows], names, corpus.subjects[rows], np.random.default_rng(seed))}


def by_feature(corpus: Corpus, rows: np.ndarray, explanations: GeneratedExplanations, seed: int) -> pd.DataFrame:
    """Claim precision of each feature that was claimed, in the order of the evidence table."""
    found = []
    for feature in corpus.evidence_names.columns:
        claims = [[claim for claim in said if claim.feature == feature] for said in explanations.claims]
        if any(claims):
            found.append(claim_precision(claims, corpus.z[rows], corpus.evidence_names, corpus.subjects[rows], seed).row(feature))
    return pd.DataFrame(found)


def _permuted_chance(hits: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Chance of each row of a (n, n) table of hits: the mean over the other windows of the same person."""
    chance = np.zeros(len(hits))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        own = hits[np.ix_(rows, rows)].astype(float)
        chance[rows] = (own.sum(axis=1) - np.diag(own)) / max(1, len(rows) - 1)
    return chance


def explanations_table(corpus: Corpus, rows: np.ndarray, explanations: GeneratedExplanations, seed: int) -> pd.DataFrame:
    """Rates of whole explanations: read, flagged as fabricated, consistent with what they claim."""
    subjects, names, label_set = corpus.subjects[rows], corpus.evidence_names, corpus.label_set
    train = corpus.split.train
    rule = EvidenceRule().fit([salient_claims(corpus.z[row], names) for row in train], [label_set.labels[i] for i in corpus.labels[train]], names)
    ranked = [rule.ranked(parsed.claims)[:2] if parsed.claims or parsed.quiet else [] for parsed in explanations.parsed]
    concluded = [parsed.conclusion for parsed in explanations.parsed]
    stated = np.array([label is not None for label in concluded])
    found = [accuracy(np.array([parsed.readable for parsed in explanations.parsed]), np.zeros(len(rows)), subjects, seed).row("every sentence is read")]
    found[0]["chance"] = None
    found.append(flag_rate(explanations.parsed, corpus.z[rows], names, subjects, seed).row("flagged as fabricated"))
    codes = np.unique(subjects, return_inverse=True)[1]
    kept = np.flatnonzero(stated & (np.bincount(codes, weights=stated)[codes] > 1))  # chance needs another window of the person
    for k, name in ((1, "conclusion follows from the claims"), (2, "conclusion is among the two likeliest")):
        hits = np.array([[concluded[i] in ranked[j][:k] for j in kept] for i in kept])
        if len(kept):
            found.append(accuracy(np.diag(hits), _permuted_chance(hits, codes[kept]), subjects[kept], seed).row(name))
    judged = [consistency(parsed, label_set, rule) for parsed in explanations.parsed]
    for axis in ("valence", "arousal"):
        fits = [(getattr(each, axis), subject) for each, subject in zip(judged, subjects, strict=True) if getattr(each, axis) is not None]
        if fits:
            score = accuracy(np.array([fit for fit, _ in fits]), np.zeros(len(fits)), np.array([subject for _, subject in fits]), seed)
            found.append(score.row(f"{axis} word fits the conclusion") | {"chance": None})
    return pd.DataFrame(found)


# --- does the answer depend on the reasons?


def _answers_after(engine: InferenceEngine, items: list[Item], thoughts: list[str]) -> list[str]:
    scores = score_options(engine, items, [f"{THINK}\n{thought}\n{END_THINK}\n\n" for thought in thoughts])
    return [item.options[int(np.argmax(row))] for item, row in zip(items, scores, strict=True)]


def interventions(engine: InferenceEngine, corpus: Corpus, explanations: GeneratedExplanations, seed: int) -> tuple[pd.DataFrame, str]:
    """How often the answer changes when its thought is tampered with; and what that means, in a sentence.

    Thoughts are judged without their conclusion, which would hand the answer on whatever stands before it; the last row replaces the
    whole thought, its conclusion included, by that about another window.
    """
    labels, rng = corpus.label_set.labels, np.random.default_rng(seed)
    bare = [without_conclusion(thought, labels) if sentences(thought) else "" for thought in explanations.thoughts]
    usable = [i for i, thought in enumerate(bare) if parse(thought, labels).claims]
    if not usable:
        raise ValueError("No thought about these windows holds a claim, so none can be corrupted: train the model longer.")
    items, bare = [explanations.items[i] for i in usable], [bare[i] for i in usable]
    subjects = np.array([item.subject for item in items])
    before = _answers_after(engine, items, bare)
    ablations = {"claims turned round": [corrupted(thought, rng, labels) for thought in bare],
            "cut in half": [truncated(thought) for thought in bare],
            "unrelated sentence": [with_unrelated_sentence(thought, rng) for thought in bare]}
    changed = {name: np.array([a != b for a, b in zip(before, _answers_after(engine, items, thoughts), strict=True)])
               for name, thoughts in ablations.items()}
    whole = [explanations.thoughts[i] for i in usable]
    turn = other_windows(np.zeros(len(usable)), np.array([item.answer for item in items]), rng)
    other = _answers_after(engine, items, [whole[i] for i in turn])
    changed["thought of another window"] = np.array([a != b for a, b in zip(_answers_after(engine, items, whole), other, strict=True)])
    table = pd.DataFrame([accuracy(hits, np.zeros(len(hits)), subjects, seed).row(name) | {"chance": None} for name, hits in changed.items()])
    return table, decorative(changed["claims turned round"], changed["unrelated sentence"], subjects, seed).sentence


def counterfactuals(engine: InferenceEngine, corpus: Corpus, explanations: GeneratedExplanations, rows: np.ndarray, encoder: EEGPT, seed: int,
                    target: float = band_edits.TARGET_Z) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One band of one region scaled in each window; tables of :func:`e2llm.evaluation.counterfactual.responses`, a row an edit.

    Returns
    -------
    model, ceiling : DataFrame
        Of the model, and of a speaker who always says what is measured: what the room for claims permits.
    """
    drawn = band_edits.draw_clear_edits(corpus, rows, np.random.default_rng(seed), target)
    place = {int(row): i for i, row in enumerate(rows)}
    chosen = [place[edit.row] for edit in drawn.clear]
    items = [explanations.items[i] for i in chosen]
    hearing = replace(engine, features=augmentation.encode_edited(encoder, corpus, drawn.clear),
                      position={item.windows[0]: i for i, item in enumerate(items)})
    after, names = tell(hearing, corpus, items), corpus.evidence_names
    held = (drawn.clear, drawn.z_before, drawn.z_after, names)
    said = [counterfactual.truthful(z, names) for z in (drawn.z_before, drawn.z_after)]
    before, answers = [explanations.parsed[i] for i in chosen], [explanations.answers[i] for i in chosen]
    return counterfactual.responses(before, after.parsed, *held, answers=(answers, after.answers)), counterfactual.responses(*said, *held)


# --- comparing speakers


def per_person(corpus: Corpus, rows: np.ndarray, explanations: GeneratedExplanations) -> pd.DataFrame:
    """Claim precision, recall and accuracy of the free text, a row a person."""
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


def gained(corpus: Corpus, rows: np.ndarray, before: GeneratedExplanations, after: GeneratedExplanations) -> pd.DataFrame:
    """What a round of feedback buys: mean over people before, after, and of the difference, with its interval over people.

    ``subjects`` counts the people for whom both can be told: without a claim there is no precision.
    """
    one, other = per_person(corpus, rows, before), per_person(corpus, rows, after)
    found = []
    for measure in one:
        both = (other - one)[measure].dropna()
        difference = mean_over_subjects(both.to_numpy(), 0.0, len(rows)) if len(both) else Score(*[float("nan")] * 4, 0)
        found.append(difference.row(measure, before=one.loc[both.index, measure].mean(), after=other.loc[both.index, measure].mean(),
                                    subjects=len(both)))
    return pd.DataFrame(found)


# --- attribution


class Attributions(NamedTuple):
    """Attributions of some test windows to their own label."""

    agreement: pd.DataFrame  # with the generator's cells, by model and emotion; empty if the source is no twin
    areas: pd.DataFrame  # deletion and insertion against random order, by model
    curves: pd.DataFrame
    maps: np.ndarray  # (n_labels, n_bands, n_channels) of the language model, nats
    labels: list[str]
