"""Fluency: counts against texts counted by hand, perplexity against the model asked token by token."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from e2llm.core.claims import GRADED
from e2llm.evaluation.studies.fluency import QUESTION, fluency, negative_log_probability
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model

LABELS = ["fear", "happy"]
TEXTS = ["<think>\nEvidence: occipital alpha low. That fits fear.\n</think>\n\nfear",
         "Gibberish stands here. That fits fear.",
         "That fits fear. That fits fear.", "Nothing stands out."]
OWNERS = ["1", "1", "2", "3"]


@pytest.fixture(scope="module")
def judge():
    torch.set_num_threads(1)
    tokenizer = make_tokenizer([*TEXTS, QUESTION], 320)
    return new_language_model(tokenizer, ScratchParams(320, hidden_size=64, layers=2), seed=0).eval(), tokenizer


def scores(texts=TEXTS, subjects=OWNERS, **more):
    return fluency(texts, subjects, LABELS, **more).set_index("name")


def test_counts_are_those_of_a_reader():
    found = scores()["score"]
    assert found["readable sentences"] == 6 / 7  # the answer behind a thought is no part of it
    assert found["texts that repeat themselves"] == 1 / 4
    assert found["words in a text"] == pytest.approx((7 + 6 + 6 + 3) / 4)
    pairs = [text.split() for text in ("evidence: occipital alpha low. that fits fear.",
                                       "gibberish stands here. that fits fear.",
                                       "that fits fear. that fits fear.", "nothing stands out.")]
    pairs = [pair for words in pairs for pair in itertools.pairwise(words)]
    assert found["distinct word pairs"] == len(set(pairs)) / len(pairs)


def test_graded_texts_are_read_with_their_scale():
    texts = ["Evidence: frontal beta rather low, occipital alpha clearly high. That fits fear."] * 2
    assert scores(texts, ["1", "2"], scale=GRADED).loc["readable sentences", "score"] == 1.0
    assert scores(texts, ["1", "2"]).loc["readable sentences", "score"] == 0.5


def test_garbage_is_less_readable_and_a_parrot_less_varied():
    fluent = ["Evidence: occipital alpha low. That fits fear.", "Measured: frontal beta high. This points to happy.",
              "Nothing stands out."]
    garbage = ["alpha the occipital fits. Low low fear that.", "Points beta frontal to. Happy measured.",
               "Out nothing stands."]
    subjects = ["1", "2", "3"]
    good, bad = (scores(texts, subjects).loc["readable sentences", "score"] for texts in (fluent, garbage))
    assert good == 1.0 > bad
    parrot = scores(fluent[:1] * 3, subjects)
    assert parrot.loc["distinct word pairs", "score"] < scores(fluent, subjects).loc["distinct word pairs", "score"]


def test_intervals_are_over_people():
    found = scores()
    assert found.loc["readable sentences", "low"] < 6 / 7 <= found.loc["readable sentences", "high"]
    alone = scores(TEXTS[:2], ["1", "1"])
    # One person says nothing of others
    assert np.isnan(alone.loc["readable sentences", ["low", "high"]].astype(float)).all()
    assert fluency(TEXTS, OWNERS, LABELS).equals(fluency(TEXTS, OWNERS, LABELS))


@torch.no_grad()
def test_perplexity_is_that_of_the_judge_asked_token_by_token(judge):
    model, tokenizer = judge
    texts = ["That fits fear.", "Evidence: occipital alpha low. That fits fear.", ""]
    nats, tokens = negative_log_probability(texts, model, tokenizer)
    start = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False,
                                          add_generation_prompt=True)
    for text, found, n in zip(texts, nats, tokens, strict=True):
        seen, total = tokenizer(start, add_special_tokens=False)["input_ids"], 0.0
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        for token in own:
            total -= float(model(torch.tensor([seen])).logits[0, -1].log_softmax(-1)[token])
            seen = [*seen, token]
        assert n == len(own) and found == pytest.approx(total, rel=1e-4, abs=1e-6)
    table = scores(texts, ["1", "2", "3"], judge=judge)
    assert table.loc["perplexity", "score"] == pytest.approx(np.exp(nats.sum() / tokens.sum()))
    assert table.loc["perplexity", "low"] < table.loc["perplexity", "score"] < table.loc["perplexity", "high"]


@pytest.mark.parametrize("texts, subjects", [([], []), (["a"], ["1", "2"])])
def test_texts_and_subjects_have_to_fit(texts, subjects):
    with pytest.raises(ValueError, match="as many subjects as texts"):
        fluency(texts, subjects, LABELS)
