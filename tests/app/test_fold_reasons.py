"""Explanations over folds: one fold gives what the run alone gives, and each model is asked about its own windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from e2llm.app import fold_reasons, stages
from e2llm.app.evaluation_stage import open_engine
from e2llm.app.fold_reasons import reasons_over_folds
from e2llm.core.claims import salient_claims
from e2llm.evaluation.causal_measures import CausalTables
from e2llm.evaluation.reasoning import (
    answer_after_claims,
    baseline_claims,
    capacity,
    claims_table,
    generate_explanations,
)
from e2llm.tasks.items import evidence_sentence, prediction_items


@pytest.fixture(scope="module")
def corpus(micro_run):
    return stages.open_dataset(micro_run)


@pytest.fixture(scope="module")
def explanations(micro_run, corpus):
    return generate_explanations(open_engine(micro_run), corpus, prediction_items(corpus, corpus.split.test, 0))


def test_one_fold_has_the_tables_of_its_run(micro_run, corpus, explanations, monkeypatch):
    asked = {}

    def measured(answer, claims, subjects, variants, seed, levels, folds):
        asked.update(answer=answer, claims=claims, subjects=subjects, levels=levels, folds=folds)
        return CausalTables(claims_table(corpus, corpus.split.test, {"LLM": explanations.claims}, 0), None)

    monkeypatch.setattr(fold_reasons, "causal_measures", measured)  # so small a model gives one answer to all
    found, rows = reasons_over_folds([micro_run]), corpus.split.test
    expected = claims_table(corpus, rows, {"LLM": explanations.claims,
                                           "another window": baseline_claims(corpus, rows, 0)["another window"]}, 0)
    assert found["claims"].equals(expected) and found["capacity"].equals(capacity(corpus, 0))
    assert set(found["causes"]["model"]) == {"LLM"}, "this run has no second pass"
    assert asked["claims"] == explanations.claims[:: len(rows) // len(asked["claims"])]
    assert asked["levels"] == corpus.evidence_names.scale.words
    n = len(asked["claims"])
    assert asked["folds"].tolist() == [0] * n
    stated = [salient_claims(z, corpus.evidence_names) for z in corpus.z[rows[:n]]]
    own = answer_after_claims(open_engine(micro_run), explanations.items[:: len(rows) // n], evidence_sentence)
    for places in (np.arange(n), np.arange(n)[::-1]):  # with the own EEG, and with that of another window
        np.testing.assert_allclose(asked["answer"](places, stated), own(places, stated), atol=1e-6)


def test_every_fold_is_asked_about_its_own_windows():
    def of(number):
        return lambda rows, claims: np.array([[number, row, len(each)] for row, each in zip(rows, claims, strict=True)])

    answer = fold_reasons._by_fold([of(0), of(1), of(2)], [["a", "b"], ["c"], ["d", "e"]])
    found = answer(np.array([1, 0, 4, 3, 2]), [(), (1,), (1, 2), (), (1,)])
    assert found.tolist() == [[0, 1, 0], [0, 0, 1], [1, 4, 2], [2, 3, 0], [2, 2, 1]]


def test_runs_that_are_no_folds_of_one_protocol_are_refused(micro_run, corpus, monkeypatch):
    monkeypatch.setattr(fold_reasons, "open_engine", lambda _: pytest.fail("no model is opened before"))
    with pytest.raises(ValueError, match=f"tested in the run '{micro_run.name}' and in '{micro_run.name}'"):
        reasons_over_folds([micro_run, micro_run])
    other = replace(corpus, split=replace(corpus.split, test=corpus.split.train),
                    label_set=replace(corpus.label_set, labels=corpus.label_set.labels[::-1]))
    with pytest.raises(ValueError, match=r"'a' and 'b' differ in .* differ only in their fold"):
        fold_reasons._must_be_folds(["a", "b"], [corpus, other])
