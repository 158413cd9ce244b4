"""The second pass learns what follows from claims: shares of the next token, and tables that no window has."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel

from e2llm.core.chat import Item
from e2llm.core.claims import GRADED, LOW_HIGH, Claim, EvidenceNames
from e2llm.core.labels import SEED_VII
from e2llm.core.verdicts import claim_values
from e2llm.models.language import load_language_model
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.level_table import level_table
from e2llm.tasks.second_pass import Asked, in_words, options_of
from e2llm.tasks.segments import Segment
from e2llm.training import second_pass
from e2llm.training.second_pass import (
    SecondPassParams,
    _soft_loss,
    answer_tokens,
    counterfactual_evidence,
    entailed_answers,
    next_token_shares,
    second_pass_items,
    stated_claims,
    train_second_pass,
)
from e2llm.training.trainer import FitParams

NAMES = EvidenceNames((("alpha", "occipital"), ("beta", "frontal"), ("gamma", "temporal")), GRADED)


def toy_corpus(n: int = 400, seed: int = 0) -> SimpleNamespace:
    """Windows whose label follows from the signs of two features."""
    rng = np.random.default_rng(seed)
    evidence = 1.5 * rng.normal(size=(n, len(NAMES.columns)))
    labels = (evidence[:, 0] > 0) * 2 + (evidence[:, 1] > 0)
    index = pd.DataFrame({"intensity": rng.uniform(size=n)})
    return SimpleNamespace(predicted_evidence=evidence, labels=labels, evidence_names=NAMES, label_set=SEED_VII,
                           split=SimpleNamespace(train=np.arange(n)), windows=SimpleNamespace(index=index))


def test_shares_of_the_next_token_are_conditional_probabilities():
    options, shares = [[5, 6, 9], [5, 7, 9], [8, 9]], np.array([0.2, 0.3, 0.5])
    assert next_token_shares(options, shares, options[1]) == [{5: pytest.approx(0.5), 8: pytest.approx(0.5)},
                                                              {6: pytest.approx(0.4), 7: pytest.approx(0.6)}, {9: 1.0}]
    assert next_token_shares(options, shares, options[2]) == [{5: pytest.approx(0.5), 8: pytest.approx(0.5)}, {9: 1.0}]


def test_the_loss_is_that_of_the_closed_set_and_a_tenth_of_that_of_the_vocabulary(monkeypatch):
    """Against sums written out, for an answer of three tokens of which two are choices."""
    options, shares = [[0, 1, 4], [0, 2, 4], [3, 4]], np.array([0.2, 0.3, 0.5])
    logits = np.random.default_rng(0).normal(size=(3, 5))
    of_options = of_all = 0.0
    for row, following in zip(logits, ({0: 0.5, 3: 0.5}, {1: 0.4, 2: 0.6}, {4: 1.0}), strict=True):
        among = math.log(sum(math.exp(row[token]) for token in following))
        everything = math.log(sum(math.exp(value) for value in row))
        of_options += sum(share * (among - row[token]) for token, share in following.items()) / 2
        of_all += sum(share * (everything - row[token]) for token, share in following.items()) / 3
    places = next_token_shares(options, shares, options[0])
    ids, weights = torch.full((3, 2), -1), torch.zeros(3, 2)
    for row, place in enumerate(places):
        ids[row, : len(place)], weights[row, : len(place)] = torch.tensor([*place]), torch.tensor([*place.values()])

    class Output(dict):
        logits: torch.Tensor

    out = Output()
    out.logits = torch.from_numpy(logits).float()[None]
    monkeypatch.setattr(second_pass, "loss_at_labels", lambda model: model())
    found = _soft_loss(lambda: out, ids, weights)["loss"]
    assert float(found) == pytest.approx(of_options + 0.1 * of_all, rel=1e-5)


def test_the_mean_over_drawn_answers_is_the_cross_entropy_with_the_shares():
    """What is drawn changes which places are seen; together they are the probabilities of whole answers."""
    options, shares = [[0, 1, 4], [0, 2, 4], [3, 4]], np.array([0.2, 0.3, 0.5])
    rng = np.random.default_rng(1)
    logs = {}  # of a model: conditional probabilities after every beginning
    for prefix in {tuple(option[:i]) for option in options for i in range(len(option))}:
        drawn = rng.dirichlet(np.ones(5))
        logs[prefix] = np.log(drawn)
    hard = sum(share * -sum(logs[tuple(option[:i])][token] for i, token in enumerate(option))
               for option, share in zip(options, shares, strict=True))
    soft = sum(share * -sum(weight * logs[tuple(option[:i])][token]
                            for i, place in enumerate(next_token_shares(options, shares, option))
                            for token, weight in place.items())
               for option, share in zip(options, shares, strict=True))
    assert soft == pytest.approx(hard)


def test_rules_find_what_the_labels_follow_from():
    corpus = toy_corpus()
    rules = entailed_answers(corpus, 0.3, 0)
    assert rules.asked == [Asked.LABEL, Asked.AFFECT, Asked.INTENSITY]
    for alpha, beta in itertools.product(("very low", "very high"), repeat=2):
        claims = [Claim("occipital alpha", alpha), Claim("frontal beta", beta)]
        found = rules.probabilities(Asked.LABEL, claim_values(claims, NAMES)[None])[0]
        assert SEED_VII.labels[found.argmax()] == SEED_VII.labels[2 * (alpha == "very high") + (beta == "very high")]
        assert found[4:].sum() == 0 and found.sum() == pytest.approx(1)  # labels that no training window has
        affect = rules.probabilities(Asked.AFFECT, claim_values(claims, NAMES)[None])[0]
        assert affect.sum() == pytest.approx(1) and len(affect) == len(options_of(Asked.AFFECT, SEED_VII))


def test_nothing_stated_says_nothing_where_labels_are_balanced():
    rules = entailed_answers(toy_corpus(2000), 0.3, 0)
    assert rules.probabilities(Asked.LABEL, np.zeros((1, len(NAMES.columns)))).max() < 2 / 4


def test_a_source_without_intensity_is_not_asked_for_it():
    corpus = toy_corpus()
    corpus.windows.index["intensity"] = np.nan
    assert entailed_answers(corpus, 0.3, 0).asked == [Asked.LABEL, Asked.AFFECT]


def test_intensity_is_taught_from_the_windows_that_have_one():
    corpus = toy_corpus()
    intensity = corpus.windows.index["intensity"].to_numpy().copy()
    whole = entailed_answers(corpus, 0.3, 0)
    corpus.windows.index["intensity"] = np.where(np.arange(len(intensity)) % 5 == 0, np.nan, intensity)
    found = entailed_answers(corpus, 0.3, 0)
    assert found.asked == [Asked.LABEL, Asked.AFFECT, Asked.INTENSITY]
    nothing = np.zeros((1, len(NAMES.columns)))
    assert np.array_equal(found.probabilities(Asked.LABEL, nothing), whole.probabilities(Asked.LABEL, nothing))
    corpus.windows.index["intensity"] = 0.9  # one third alone: nothing could be told apart
    assert entailed_answers(corpus, 0.3, 0).asked == [Asked.LABEL, Asked.AFFECT]


@pytest.mark.parametrize("scale, stated", [(LOW_HIGH, True), (GRADED, False)])
def test_a_segment_in_words_is_worded_as_in_training(scale, stated):
    segment = Segment(3, "fear", 0.9, (Claim("frontal beta", "low"),), scale=scale)
    item = Item("compare", 2, [{"role": "user", "content": [segment.part(False)]}], "", "A", ["A", "B"], windows=[3])
    (part,) = in_words(item, {3: segment}).messages[0]["content"]
    assert ("frontal beta" in str(part)) == stated


def test_items_hold_tables_and_the_answers_that_follow():
    corpus, params = toy_corpus(), SecondPassParams()
    rules = entailed_answers(corpus, params.noise, 0)
    items, shares = second_pass_items(corpus, rules, params, 900, 3)
    assert [item.__dict__ for item in items] == [item.__dict__ for item in
                                                 second_pass_items(corpus, rules, params, 900, 3)[0]]
    kinds = pd.Series([item.kind for item in items]).value_counts(normalize=True)
    assert kinds["levels_label"] == pytest.approx(0.8, abs=0.05)
    drawn = [share[item.options.index(item.answer)] for item, share in zip(items, shares, strict=True)]
    expected = np.mean([(share**2).sum() for share in shares])  # of an answer drawn with its probability
    assert np.mean(drawn) == pytest.approx(expected, abs=0.03)
    assert all(not item.windows and "Levels: " in item.messages[0]["content"][0]["text"] for item in items)
    empty = level_table((), NAMES)
    assert 0 < sum(empty in item.messages[0]["content"][0]["text"] for item in items) < 100


def test_changes_are_made_in_their_shares():
    corpus, rng = toy_corpus(50), np.random.default_rng(0)
    corpus.predicted_evidence = np.repeat(np.arange(1.0, 51.0)[:, None], len(NAMES.columns), axis=1)
    made = counterfactual_evidence(corpus, SecondPassParams(noise=0.0, swapped=0.3, turned=0.2, thinned=0.1), 4000, rng)
    turned = (made < 0).all(axis=1)
    thinned = (made == 0).any(axis=1)
    swapped = ~thinned & (np.abs(made).max(axis=1) != np.abs(made).min(axis=1))
    assert turned.mean() == pytest.approx(0.2, abs=0.03)
    assert 0.05 < thinned.mean() <= 0.12  # a share of zero takes nothing away
    assert 0.2 < swapped.mean() < 0.33  # half of the claims, or by luck all or none


def test_claims_are_those_of_the_prediction():
    evidence = np.array([[0.8, -3.0, 0.2, 0.0, 0.0, 0.0, 1.6]])
    assert [str(claim) for claim in stated_claims(evidence, NAMES)[0]] == [
        "occipital alpha rather high", "frontal beta very low", "artefact level clearly high"]


def test_the_adapter_trains_the_embeddings_of_digits_and_answers_and_both_ends_of_the_model_stay_one(tmp_path):
    language_model, tokenizer = load_language_model("e2llm-tiny")
    processor, corpus = E2LLMProcessor(tokenizer), toy_corpus()
    rules = entailed_answers(corpus, 0.5, 0)
    params = FitParams(2, 8, 5e-3, seed=0, save_steps=10)
    items, shares = second_pass_items(corpus, rules, SecondPassParams(), 16, 0)
    before = language_model.get_input_embeddings().weight.detach().clone()
    peft, _ = train_second_pass(language_model, processor, items, shares, SecondPassParams(4, 8), params, tmp_path)
    peft.save_pretrained(tmp_path / "lora", save_embedding_layers=False)
    again = PeftModel.from_pretrained(load_language_model("e2llm-tiny")[0], str(tmp_path / "lora"))
    inputs = {"input_ids": torch.tensor([processor.ids(level_table((), NAMES))])}
    merged = {}
    for name, model in (("trained", peft), ("opened", again)):
        with torch.no_grad():
            unmerged = model.eval()(**inputs).logits
            merged[name] = model.merge_and_unload().eval()
            assert torch.allclose(merged[name](**inputs).logits, unmerged, atol=1e-4)
    assert torch.equal(merged["trained"](**inputs).logits, merged["opened"](**inputs).logits)
    within, head = (layer().weight for layer in (merged["opened"].get_input_embeddings,
                                                 merged["opened"].get_output_embeddings))
    assert torch.equal(within, head)
    changed = (within != before).any(dim=1).nonzero()[:, 0].tolist()
    words = {tokenizer.decode([i]).strip() for i in changed}
    assert set(changed) <= answer_tokens(items, processor) and {"happy", "sad"} <= words
    assert {*"1234567"} & words


def test_few_items_may_lack_a_kind_of_question():
    corpus = toy_corpus()
    for seed in range(5):
        items, shares = second_pass_items(corpus, entailed_answers(corpus, 0.5, 0), SecondPassParams(), 2, seed)
        assert len(items) == len(shares) == 2
