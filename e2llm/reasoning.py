"""The reasoning of a run, held against the signal: tables and examples for lesson 07 and the report.

Everything here is about test windows: people and clips that no training saw. Every rate has its chance and its interval over people.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from . import attribution, counterfactual
from .assessment import prediction_items
from .controls import other_windows
from .encoder import EEGPT
from .evaluate import Listener, generate, score_options
from .faithfulness import (
    EvidenceRule,
    answer_change,
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
from .grammar import Parsed, parse, sentences
from .language import END_THINK, THINK
from .metrics import Score, accuracy, mean_over_subjects
from .questions import Item
from .runs import Run
from .segments import Claim, salient_claims
from .stages import Corpus, load_tokens, open_corpus, open_instructed
from .tasks import parse_answer


class Told(NamedTuple):
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


def listener_of(run: Run, stage: str = "adapter") -> Listener:
    """The model of a run after a stage that leaves an adapter, and what it needs to hear windows."""
    return Listener(*open_instructed(run, stage), *load_tokens(run))


def tell(listener: Listener, corpus: Corpus, items: list[Item]) -> Told:
    """Let a model think aloud, greedily, about tier-1 questions."""
    texts = generate(listener, items)
    thoughts = [text.split(END_THINK, 1)[0].replace(THINK, "").strip() for text in texts]
    labels = list(corpus.label_set.labels)
    return Told(items, texts, thoughts, [parse(thought, labels) for thought in thoughts], [parse_answer(text, labels) for text in texts])


# --- are the claims true?


def claims_table(corpus: Corpus, rows: np.ndarray, said: dict[str, Sequence[Sequence[Claim]]], seed: int) -> pd.DataFrame:
    """Precision and recall of claims about windows, a row for each speaker and measure."""
    z, owners, found = corpus.z[rows], corpus.owners[rows], []
    for name, claims in said.items():
        scores = {"precision": claim_precision(claims, z, corpus.evidence_names, owners, seed),
                  "recall": claim_recall(claims, z, corpus.evidence_names, owners, seed)}
        found += [score.row(name, group=measure) | {"claims a window": np.mean([len(each) for each in claims])} for measure, score in scores.items()]
    return pd.DataFrame(found)


def baselines(corpus: Corpus, rows: np.ndarray, seed: int) -> dict[str, list[tuple[Claim, ...]]]:
    """Claims of speakers that do not hear the window: the training prior, and the evidence of another window of the same person."""
    z, names = corpus.z, corpus.evidence_names
    return {"training prior": prior_claims(z[corpus.split.train], names, len(rows)),
            "another window": claims_of_another_window(z[rows], names, corpus.owners[rows], np.random.default_rng(seed))}


def by_feature(corpus: Corpus, rows: np.ndarray, told: Told, seed: int) -> pd.DataFrame:
    """Claim precision of each feature that was claimed, in the order of the evidence table."""
    found = []
    for feature in corpus.evidence_names.columns:
        claims = [[claim for claim in said if claim.feature == feature] for said in told.claims]
        if any(claims):
            found.append(claim_precision(claims, corpus.z[rows], corpus.evidence_names, corpus.owners[rows], seed).row(feature))
    return pd.DataFrame(found)


def _permuted_chance(hits: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Chance of each row of a (n, n) table of hits: the mean over the other windows of the same person."""
    chance = np.zeros(len(hits))
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        own = hits[np.ix_(rows, rows)].astype(float)
        chance[rows] = (own.sum(axis=1) - np.diag(own)) / max(1, len(rows) - 1)
    return chance


def explanations_table(corpus: Corpus, rows: np.ndarray, told: Told, seed: int) -> pd.DataFrame:
    """Rates of whole explanations: read, flagged as fabricated, consistent with what they claim."""
    owners, names, label_set = corpus.owners[rows], corpus.evidence_names, corpus.label_set
    train = corpus.split.train
    rule = EvidenceRule().fit([salient_claims(corpus.z[row], names) for row in train], [label_set.labels[i] for i in corpus.labels[train]], names)
    ranked = [rule.ranked(parsed.claims)[:2] if parsed.claims or parsed.quiet else [] for parsed in told.parsed]
    concluded = [parsed.conclusion for parsed in told.parsed]
    stated = np.array([label is not None for label in concluded])
    found = [accuracy(np.array([parsed.readable for parsed in told.parsed]), np.zeros(len(rows)), owners, seed).row("every sentence is read")]
    found[0]["chance"] = None
    found.append(flag_rate(told.parsed, corpus.z[rows], names, owners, seed).row("flagged as fabricated"))
    codes = np.unique(owners, return_inverse=True)[1]
    kept = np.flatnonzero(stated & (np.bincount(codes, weights=stated)[codes] > 1))  # chance needs another window of the person
    for k, name in ((1, "conclusion follows from the claims"), (2, "conclusion is among the two likeliest")):
        hits = np.array([[concluded[i] in ranked[j][:k] for j in kept] for i in kept])
        if len(kept):
            found.append(accuracy(np.diag(hits), _permuted_chance(hits, codes[kept]), owners[kept], seed).row(name))
    judged = [consistency(parsed, label_set, rule) for parsed in told.parsed]
    for axis in ("valence", "arousal"):
        fits = [(getattr(each, axis), owner) for each, owner in zip(judged, owners, strict=True) if getattr(each, axis) is not None]
        if fits:
            score = accuracy(np.array([fit for fit, _ in fits]), np.zeros(len(fits)), np.array([owner for _, owner in fits]), seed)
            found.append(score.row(f"{axis} word fits the conclusion") | {"chance": None})
    return pd.DataFrame(found)


# --- does the answer depend on the reasons?


def _answers_after(listener: Listener, items: list[Item], thoughts: list[str]) -> list[str]:
    scores = score_options(listener, items, [f"{THINK}\n{thought}\n{END_THINK}\n\n" for thought in thoughts])
    return [item.options[int(np.argmax(row))] for item, row in zip(items, scores, strict=True)]


def interventions(listener: Listener, corpus: Corpus, told: Told, seed: int) -> tuple[pd.DataFrame, str]:
    """How often the answer changes when its thought is tampered with; and what that means, in a sentence.

    Thoughts are judged without their conclusion, which would hand the answer on whatever stands before it; the last row replaces the
    whole thought, its conclusion included, by that about another window.
    """
    labels, rng = corpus.label_set.labels, np.random.default_rng(seed)
    bare = [without_conclusion(thought, labels) if sentences(thought) else "" for thought in told.thoughts]
    usable = [i for i, thought in enumerate(bare) if parse(thought, labels).claims]
    if not usable:
        raise ValueError("No thought about these windows holds a claim, so none can be corrupted: train the model longer.")
    items, bare = [told.items[i] for i in usable], [bare[i] for i in usable]
    owners = np.array([item.subject for item in items])
    before = _answers_after(listener, items, bare)
    arms = {"claims turned round": [corrupted(thought, rng, labels) for thought in bare],
            "cut in half": [truncated(thought) for thought in bare],
            "unrelated sentence": [with_unrelated_sentence(thought, rng) for thought in bare]}
    changed = {name: np.array([a != b for a, b in zip(before, _answers_after(listener, items, thoughts), strict=True)])
               for name, thoughts in arms.items()}
    whole = [told.thoughts[i] for i in usable]
    turn = other_windows(np.zeros(len(usable)), np.array([item.answer for item in items]), rng)
    other = _answers_after(listener, items, [whole[i] for i in turn])
    changed["thought of another window"] = np.array([a != b for a, b in zip(_answers_after(listener, items, whole), other, strict=True)])
    table = pd.DataFrame([accuracy(hits, np.zeros(len(hits)), owners, seed).row(name) | {"chance": None} for name, hits in changed.items()])
    return table, decorative(changed["claims turned round"], changed["unrelated sentence"], owners, seed).sentence


def counterfactuals(listener: Listener, corpus: Corpus, told: Told, rows: np.ndarray, encoder: EEGPT, seed: int,
                    target: float = counterfactual.TARGET_Z) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One band of one region scaled in each window; tables of :func:`e2llm.counterfactual.responses`, a row an edit.

    Returns
    -------
    model, ceiling : DataFrame
        Of the model, and of a speaker who always says what is measured: what the room for claims permits.
    """
    drawn = counterfactual.clear_edits(corpus, rows, np.random.default_rng(seed), target)
    place = {int(row): i for i, row in enumerate(rows)}
    chosen = [place[edit.row] for edit in drawn.clear]
    items = [told.items[i] for i in chosen]
    hearing = replace(listener, features=counterfactual.edited_tokens(encoder, corpus, drawn.clear),
                      position={item.windows[0]: i for i, item in enumerate(items)})
    after, names = tell(hearing, corpus, items), corpus.evidence_names
    held = (drawn.clear, drawn.z_before, drawn.z_after, names)
    said = [counterfactual.truthful(z, names) for z in (drawn.z_before, drawn.z_after)]
    before, answers = [told.parsed[i] for i in chosen], [told.answers[i] for i in chosen]
    return counterfactual.responses(before, after.parsed, *held, answers=(answers, after.answers)), counterfactual.responses(*said, *held)


# --- comparing speakers


def per_person(corpus: Corpus, rows: np.ndarray, told: Told) -> pd.DataFrame:
    """Claim precision, recall and accuracy of the free text, a row a person."""
    z, owners, names = corpus.z[rows], corpus.owners[rows], corpus.evidence_names
    labels = [corpus.label_set.labels[i] for i in corpus.labels[rows]]
    found = {}
    for who in np.unique(owners):
        own = np.flatnonzero(owners == who)
        claims = [told.claims[i] for i in own]
        found[who] = {"claim precision": claim_precision(claims, z[own], names, owners[own]).value,
                      "claim recall": claim_recall(claims, z[own], names, owners[own]).value,
                      "accuracy": float(np.mean([told.answers[i] == labels[i] for i in own]))}
    return pd.DataFrame(found).T


def gained(corpus: Corpus, rows: np.ndarray, before: Told, after: Told) -> pd.DataFrame:
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


def agreement(corpus: Corpus, rows: np.ndarray, one: Told, other: Told, seed: int = 0) -> Score:
    """Share of one model's claims that another model makes of the same window; chance: of another window of the same person."""
    codes = np.unique(corpus.owners[rows], return_inverse=True)[1]
    said = [set(claims) for claims in other.claims]
    hits, chance, owners = [], [], []
    for i, claims in enumerate(one.claims):
        rest = [j for j in np.flatnonzero(codes == codes[i]) if j != i]
        for claim in claims:
            hits.append(claim in said[i])
            chance.append(np.mean([claim in said[j] for j in rest]) if rest else np.nan)
            owners.append(corpus.owners[rows[i]])
    if not hits:
        return Score(*[float("nan")] * 4, 0)
    return replace(accuracy(np.array(hits), np.zeros(len(hits)), np.array(owners), seed), chance=float(np.nanmean(chance)))


def across_seeds(runs: Sequence[Run], seed: int = 0) -> pd.DataFrame:
    """Do models that differ only in their seed say the same of a window? A row an ordered pair of runs: claims, and free-text answers.

    Raises
    ------
    ValueError
        If the runs were not tested on the same windows: agreement would compare different things.
    """
    corpora = [open_corpus(run) for run in runs]
    rows = corpora[0].split.test
    if any(not np.array_equal(corpus.split.test, rows) or not np.allclose(corpus.z, corpora[0].z) for corpus in corpora):
        names = ", ".join(run.name for run in runs)
        raise ValueError(f"The runs {names} were not tested on the same windows: give runs that differ in their seed only.")
    items = prediction_items(corpora[0], rows, seed)
    told = {run.name: tell(listener_of(run), corpus, items) for run, corpus in zip(runs, corpora, strict=True)}
    return pd.DataFrame([agreement(corpora[0], rows, told[one], told[other], seed).row(
        f"{one} in {other}", same_answer=1.0 - answer_change(told[one].answers, told[other].answers))
        for one, other in itertools.permutations(told, 2)])


# --- attribution


class Owed(NamedTuple):
    """Attributions of some test windows to their own label."""

    agreement: pd.DataFrame  # with the generator's cells, by model and emotion; empty if the source is no twin
    areas: pd.DataFrame  # deletion and insertion against random order, by model
    curves: pd.DataFrame
    maps: np.ndarray  # (n_labels, n_bands, n_channels) of the language model, nats
    labels: list[str]


def attribute(run: Run, corpus: Corpus, is_twin: bool, windows_a_label: int, seed: int, steps: int = 24) -> Owed:
    """Integrated gradients of stage-1 head and language model on test windows, checked by deletion and by the twin's own table."""
    rng, test = np.random.default_rng(seed), corpus.split.test
    rows = np.concatenate([rng.permutation(test[corpus.labels[test] == label])[:windows_a_label] for label in np.unique(corpus.labels[test])])
    signal = corpus.equalise(corpus.windows.data[np.sort(rows)], corpus.whose[np.sort(rows)])
    rows, ch_names = np.sort(rows), corpus.windows.ch_names
    target, owners = corpus.labels[rows], corpus.owners[rows]
    labels = [corpus.label_set.labels[i] for i in target]
    agreed, areas, curves, maps = [], [], [], None
    for name, score in attribution.scores_of(run, corpus, seed).items():
        found = attribution.explain(score, signal, target, steps=steps, doublings=2)
        curve = attribution.deletion_insertion(score, signal, target, attribution.to_patches(found.samples), (0, 0.05, 0.1, 0.2, 0.4, 0.7, 1), rng)
        curves.append(curve.assign(model=name))
        areas.append(attribution.areas(curve, owners).assign(group=name))
        if is_twin:
            agreed.append(attribution.region_agreement(found.bands, labels, owners, ch_names).assign(group=name))
        maps = attribution.topography(found.bands, labels, [label for label in corpus.label_set.labels if label in labels])
    return Owed(pd.concat(agreed, ignore_index=True) if agreed else pd.DataFrame(), pd.concat(areas, ignore_index=True),
                pd.concat(curves, ignore_index=True), maps, [label for label in corpus.label_set.labels if label in labels])
