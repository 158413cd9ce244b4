"""Explanations over the folds of a protocol: whether they are true, and whether the answers follow from them.

Where few people were recorded, a fold tests two or three of them. Each run explains the windows of its own test part;
the tables here count the people of all runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.claims import Claims
from ..data.dataset import Corpus
from ..evaluation.causal_measures import Answer, causal_measures, from_claims
from ..evaluation.evidence_capacity import codings_of, evidence_capacity
from ..evaluation.faithfulness import UNRELATED
from ..evaluation.from_thought import FROM_THOUGHT, model_name
from ..evaluation.reasoning import (
    CAUSAL_WINDOWS,
    GeneratedExplanations,
    answer_after_claims,
    baseline_claims,
    evidence_fold,
    generate_explanations,
    scored_claims,
)
from ..models.inference import InferenceEngine
from ..tasks.items import evidence_sentence, prediction_items
from .evaluation_stage import open_engine
from .runs import Run
from .second_pass_stage import open_second_pass
from .stages import open_dataset


class _Explained(NamedTuple):
    """A run with what it says about its test windows."""

    run: Run
    corpus: Corpus
    engine: InferenceEngine
    explanations: GeneratedExplanations


def reasons_over_folds(runs: Sequence[Run], seed: int = 0) -> dict[str, pd.DataFrame]:
    """Claims and causes of answers over the folds of a protocol; intervals are over the people of all folds.

    All models are in memory at once.

    Parameters
    ----------
    runs : sequence of Run
        Through lesson 04; they differ only in their fold.
    seed : int
        Of questions, donors and intervals.

    Returns
    -------
    dict of DataFrame
        ``claims``: precision and recall (:func:`e2llm.evaluation.reasoning.claims_table`), also of the evidence of
        another window of the person. ``capacity``: what a thought can carry. ``causes``: the measures of
        :mod:`e2llm.evaluation.causal_measures` by ``model``: the answer from the EEG and, where all runs have a second
        pass, the one from the thought.

    Raises
    ------
    ValueError
        If a window was tested in several runs, the runs measured other evidence or have other labels, or one model
        gives one answer to all windows.
    """
    corpora = [open_dataset(run) for run in runs]
    _must_be_folds([run.name for run in runs], corpora)  # before any thought is written
    explained = []
    for run, corpus in zip(runs, corpora, strict=True):
        engine, items = open_engine(run), prediction_items(corpus, corpus.split.test, seed)
        explained.append(_Explained(run, corpus, engine, generate_explanations(engine, corpus, items)))
    names, label_set = explained[0].corpus.evidence_names, explained[0].corpus.label_set
    folds = [evidence_fold(fold.corpus) for fold in explained]
    return {"claims": _claims(explained, seed), "causes": _causes(explained, seed),
            "capacity": evidence_capacity(folds, names, len(label_set), codings_of(names.scale), seed)}


def _must_be_folds(names: Sequence[str], corpora: Sequence[Corpus]) -> None:
    def kept(corpus: Corpus) -> tuple:
        return (corpus.label_set.labels, tuple(corpus.evidence_names.columns), corpus.evidence_names.scale,
                len(corpus.windows))

    for (one, first), (other, second) in itertools.combinations(zip(names, corpora, strict=True), 2):
        if np.intersect1d(first.split.test, second.split.test).size:
            raise ValueError(f"A window was tested in the run {one!r} and in {other!r}: give runs of a protocol whose "
                             "test parts are disjoint.")
        if kept(first) != kept(second):
            raise ValueError(f"The runs {one!r} and {other!r} differ in their windows, labels, evidence or levels: "
                             "give runs that differ only in their fold.")


def _claims(explained: Sequence[_Explained], seed: int) -> pd.DataFrame:
    own: list[Claims] = []
    other: list[Claims] = []
    for _, corpus, _, explanations in explained:
        own += explanations.claims
        other += baseline_claims(corpus, corpus.split.test, seed)["another window"]
    z = np.concatenate([fold.corpus.z[fold.corpus.split.test] for fold in explained])
    subjects = np.concatenate([fold.corpus.subjects[fold.corpus.split.test] for fold in explained])
    return scored_claims(z, explained[0].corpus.evidence_names, subjects, {"LLM": own, "another window": other}, seed)


def _causes(explained: Sequence[_Explained], seed: int) -> pd.DataFrame:
    every = [max(1, -(-len(fold.explanations.items) // CAUSAL_WINDOWS)) for fold in explained]
    items = [fold.explanations.items[::step] for fold, step in zip(explained, every, strict=True)]
    claims = [each for fold, step in zip(explained, every, strict=True) for each in fold.explanations.claims[::step]]
    windows = [item.windows[0] for own in items for item in own]
    subjects = np.array([item.subject for own in items for item in own])
    folds = np.repeat(np.arange(len(items)), [len(own) for own in items])
    levels = explained[0].corpus.evidence_names.scale.words

    def after(write: Callable[[Claims], str]) -> Answer:
        return _by_fold([answer_after_claims(fold.engine, own, write, windows)
                         for fold, own in zip(explained, items, strict=True)], items)

    unrelated = {"unrelated sentence": after(lambda stated: f"{UNRELATED[0]} {evidence_sentence(stated)}")}
    found = {"LLM": causal_measures(after(evidence_sentence), claims, subjects, unrelated, seed, levels, folds)}
    if all(fold.run.finished("second_pass") is not None for fold in explained):
        seconds = [open_second_pass(fold.run, fold.corpus, fold.engine) for fold in explained]
        answer = _by_fold([from_claims(second.shares) for second in seconds], items)
        found[model_name(FROM_THOUGHT)] = causal_measures(answer, claims, subjects, None, seed, levels, folds)
    return pd.concat([tables.measures.assign(model=model) for model, tables in found.items()], ignore_index=True)


def _by_fold(answers: Sequence[Answer], items: Sequence[Sequence]) -> Answer:
    """One model out of several, each asked about the windows of its own fold."""
    ends = np.cumsum([len(own) for own in items])[:-1]

    def answer(rows: np.ndarray, claims: Sequence[Claims]) -> np.ndarray:
        parts = np.split(np.arange(len(rows)), ends)
        return np.concatenate([one(rows[own], [claims[i] for i in own])
                               for one, own in zip(answers, parts, strict=True)])

    return answer
