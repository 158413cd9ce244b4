"""Training of the second pass: answers from stated levels alone, by an adapter of its own.

The adapter is not that of stage 3: this one sees short texts only, so it learns with other batches in a fraction of the
time, and what stage 3 has learned stays as it is. The embeddings of the digits and of the answers are trained with it.
The answers that it learns come from rules: logistic regressions on the claims of the training windows. A rule answers
to every table, also to one that no window has. So the training can change the claims and say what then follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from ..core.chat import Item
from ..core.claims import Claims, EvidenceNames, salient_claims
from ..core.labels import LabelSet
from ..core.verdicts import claim_values
from ..data.dataset import Corpus
from ..models.adapting import lora_targets, token_targets
from ..models.evidence_rule import EvidenceRule
from ..models.logits import loss_at_labels
from ..models.processing import E2LLMProcessor
from ..tasks.items import affect_words
from ..tasks.level_table import DIGITS
from ..tasks.second_pass import Asked, level_item, options_of
from ..tasks.segments import INTENSITIES, third
from .stage3_instruction import LAYERS, with_new_adapter
from .trainer import FitParams, examples_of, fit_examples, item_collate

_COPIES = 8  # noisy copies of every training window that the rules are fitted on
_SHARES = {Asked.LABEL: 0.8, Asked.AFFECT: 0.1, Asked.INTENSITY: 0.1}
_FORM_WEIGHT = 0.1  # of the loss over the whole vocabulary, which keeps answers answers


@dataclass(frozen=True)
class SecondPassParams:
    """How the second pass is trained.

    Parameters
    ----------
    rank, alpha : int
        Of LoRA.
    noise : float
        Standard deviation of the noise on predicted evidence: the encoder predicts it better for its training windows
        than for others.
    swapped, turned, thinned : float
        Shares of the tables in which half of the claims are those of another window, in which all are turned round, and
        from which a random share is taken away.
    """

    rank: int = 16
    alpha: int = 32
    noise: float = 0.7
    swapped: float = 0.25
    turned: float = 0.1
    thinned: float = 0.15


class EntailedAnswers:
    """What follows from claims: a rule a question, fitted on the claims and the facts of training windows.

    Parameters
    ----------
    names : EvidenceNames
        What was measured.
    label_set : LabelSet
        Its labels; valence and arousal follow from them.
    """

    def __init__(self, names: EvidenceNames, label_set: LabelSet) -> None:
        self.names, self.label_set = names, label_set
        self.rules: dict[Asked, EvidenceRule] = {}

    def fit(self, claims: list[Claims], labels: list[str], intensities: list[str | None]) -> EntailedAnswers:
        """Fit all rules.

        Parameters
        ----------
        claims : list of sequences of Claim, length n
            Of training windows.
        labels : list of str, length n
            Theirs.
        intensities : list of str or None, length n
            Words for their intensity; None where the source states none. It is taught from the others, if they differ.
        """
        values = [claim_values(each, self.names) for each in claims]
        self.rules = {Asked.LABEL: EvidenceRule().fit_values(values, labels, self.names)}
        stated = [(value, word) for value, word in zip(values, intensities, strict=True) if word is not None]
        if len({word for _, word in stated}) > 1:
            self.rules[Asked.INTENSITY] = EvidenceRule().fit_values(*map(list, zip(*stated, strict=True)), self.names)
        return self

    @property
    def asked(self) -> list[Asked]:
        """What can be answered with this source."""
        return [asked for asked in Asked if asked in self.rules or
                (asked is Asked.AFFECT and self.label_set.has_affect)]

    def probabilities(self, asked: Asked, values: np.ndarray) -> np.ndarray:
        """Probability of every option, shape (n, n_options).

        Parameters
        ----------
        asked : Asked
            What is read.
        values : ndarray, shape (n, n_evidence)
            From :func:`e2llm.core.verdicts.claim_values`.
        """
        if asked is Asked.AFFECT:
            of_labels = self.probabilities(Asked.LABEL, values)
            words = [affect_words(label, self.label_set) for label in self.label_set.labels]
            return np.stack([of_labels[:, [word == option for word in words]].sum(axis=1)
                             for option in options_of(asked, self.label_set)], axis=1)
        return self.rules[asked].of_values(values, options_of(asked, self.label_set))


def stated_claims(evidence: np.ndarray, names: EvidenceNames) -> list[Claims]:
    """What a first pass states that says what the evidence probe predicts.

    Parameters
    ----------
    evidence : ndarray, shape (n, n_evidence)
        Predicted z-scores.
    names : EvidenceNames
        Their columns, and the scale of the claims.
    """
    return [salient_claims(row, names) for row in evidence]


def entailed_answers(corpus: Corpus, noise: float, seed: int) -> EntailedAnswers:
    """Rules fitted on noisy predicted evidence of the training windows.

    Parameters
    ----------
    corpus : Corpus
        Of a run whose stage 1 is finished.
    noise : float
        See :class:`SecondPassParams`.
    seed : int
        Of the noise.
    """
    rows, names, rng = np.tile(corpus.split.train, _COPIES), corpus.evidence_names, np.random.default_rng(seed)
    evidence = corpus.predicted_evidence[rows]
    claims = stated_claims(evidence + noise * rng.normal(size=evidence.shape), names)
    intensity = corpus.windows.index["intensity"].to_numpy()[rows]
    words = [None if np.isnan(value) else INTENSITIES[third(value)] for value in intensity]
    return EntailedAnswers(names, corpus.label_set).fit(
        claims, [corpus.label_set.labels[i] for i in corpus.labels[rows]], words)


def counterfactual_evidence(corpus: Corpus, params: SecondPassParams, n: int, rng: np.random.Generator) -> np.ndarray:
    """Predicted evidence of training windows with noise; some of it exchanged, turned round or taken away.

    Parameters
    ----------
    corpus : Corpus
        Of a run whose stage 1 is finished.
    params : SecondPassParams
        Shares of the changes.
    n : int
        Rows.
    rng : Generator
        Source of the draws.
    """
    own, other = (corpus.predicted_evidence[rng.choice(corpus.split.train, n)] for _ in range(2))
    what = rng.choice(4, n, p=[params.swapped, params.turned, params.thinned,
                               1 - params.swapped - params.turned - params.thinned])[:, None]
    drawn = rng.uniform(size=own.shape)
    evidence = np.where((what == 0) & (drawn < 0.5), other, own) + params.noise * rng.normal(size=own.shape)
    evidence = np.where(what == 1, -evidence, evidence)
    return np.where((what == 2) & (drawn < rng.uniform(size=(n, 1))), 0.0, evidence)


def second_pass_items(corpus: Corpus, rules: EntailedAnswers, params: SecondPassParams, n: int,
                      seed: int) -> tuple[list[Item], list[np.ndarray]]:
    """Training items: tables of levels with the probability with which each answer follows from them.

    Parameters
    ----------
    corpus, params
        As for :func:`counterfactual_evidence`.
    rules : EntailedAnswers
        Say what follows.
    n, seed : int
        Number of items, and seed of the draws.

    Returns
    -------
    items : list of Item
        Their answer is drawn with its probability.
    shares : list of ndarray, shape (n_options,)
        Probability of each option.
    """
    rng, names, label_set = np.random.default_rng(seed), corpus.evidence_names, corpus.label_set
    claims = stated_claims(counterfactual_evidence(corpus, params, n, rng), names)
    values = np.stack([claim_values(each, names) for each in claims])
    shares = np.array([_SHARES[asked] for asked in rules.asked])
    which, drawn = rng.choice(len(shares), n, p=shares / shares.sum()), rng.uniform(size=n)
    found: dict[int, tuple[Item, np.ndarray]] = {}
    for i, asked in enumerate(rules.asked):
        own = np.flatnonzero(which == i)
        if not len(own):  # of few items
            continue
        shares_of = rules.probabilities(asked, values[own])
        below = shares_of.cumsum(axis=1)
        chosen = (drawn[own, None] * below[:, -1:] > below).sum(axis=1)
        options = options_of(asked, label_set)
        for row, place, probability in zip(own, chosen, shares_of, strict=True):
            item = level_item(asked, claims[row], names, label_set, options[place])
            found[row] = item, probability
    items, shares_of_items = zip(*(found[row] for row in range(n)), strict=True)
    return list(items), list(shares_of_items)


def next_token_shares(options: list[list[int]], shares: np.ndarray, answer: list[int]) -> list[dict[int, float]]:
    """What should follow each beginning of an answer: the next tokens of all options that begin alike, by their shares.

    A loss on these shares varies less than one on the drawn answer, and has the same mean.

    Parameters
    ----------
    options : list of list of int
        Token ids of each option with the token that ends it; none is the beginning of another.
    shares : ndarray, shape (n_options,)
        Probability of each option.
    answer : list of int
        Ids of the answer that was drawn.
    """
    found = []
    for place in range(len(answer)):
        following: dict[int, float] = {}
        for option, share in zip(options, shares, strict=True):
            if option[:place] == answer[:place]:
                following[option[place]] = following.get(option[place], 0.0) + float(share)
        total = sum(following.values())
        found.append({token: share / total for token, share in following.items()})
    return found


def _soft_examples(items: list[Item], shares: list[np.ndarray], processor: E2LLMProcessor, seed: int) -> list[dict]:
    """Training examples with ``next``: the shares of the next token at every place of the answer."""
    texts, eos = sorted({option for item in items for option in item.options}), processor.tokenizer.eos_token_id
    cut = {text: [*ids, eos] for text, ids in zip(texts, processor.ids_of(texts), strict=True)}
    examples = examples_of(items, processor, 0.0, seed)
    return [{**example, "next": next_token_shares([cut[option] for option in item.options], share, cut[item.answer])}
            for example, item, share in zip(examples, items, shares, strict=True)]


def _soft_collate(processor: E2LLMProcessor) -> Callable:
    plain = item_collate(processor, None, {})

    def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
        places = [place for example in examples for place in example["next"]]
        width = max(map(len, places))
        ids, shares = torch.full((len(places), width), -1), torch.zeros(len(places), width)
        for row, place in enumerate(places):
            ids[row, : len(place)], shares[row, : len(place)] = torch.tensor([*place]), torch.tensor([*place.values()])
        return plain(examples) | {"next_ids": ids, "next_shares": shares}

    return collate


def _soft_loss(model: torch.nn.Module, next_ids: torch.Tensor, next_shares: torch.Tensor, **batch):
    """Output of a model whose loss is the cross-entropy with shares of the next tokens.

    Answers are scored over a closed set. So the loss is over the tokens that may follow, where there are several; that
    over the whole vocabulary has a small weight.

    Parameters
    ----------
    model : Module
        Called with the batch.
    next_ids : Tensor of int, shape (n_places, n_tokens)
        Tokens that may follow at each place of the answers, row by row; -1 for none.
    next_shares : Tensor, shape (n_places, n_tokens)
        Their shares; 0 for none.
    **batch
        Of the model, with labels.
    """
    out, is_open = loss_at_labels(model, **batch), next_ids < 0
    logits = out.logits[0].float()
    among = logits.gather(1, next_ids.clamp_min(0)).masked_fill(is_open, -torch.inf)
    of_all = (among - logits.logsumexp(1, keepdim=True)).masked_fill(is_open, 0.0)
    of_options = among.log_softmax(1).masked_fill(is_open, 0.0)
    n_choices = (~is_open).sum(dim=1).gt(1).sum().clamp_min(1)
    out["loss"] = -((next_shares * of_options).sum() / n_choices
                    + _FORM_WEIGHT * (next_shares * of_all).sum() / len(next_ids))
    return out


def answer_tokens(items: list[Item], processor: E2LLMProcessor) -> set[int]:
    """Tokens of all options of items, and of the digits of their tables.

    Parameters
    ----------
    items : list of Item
        From :func:`second_pass_items`.
    processor : E2LLMProcessor
        Its tokenizer cuts.
    """
    options = sorted({option for item in items for option in item.options})
    digits = processor.ids_of([f" {''.join(DIGITS)}"])[0]
    return set(digits).union(*processor.ids_of(options))


def train_second_pass(language_model: PreTrainedModel, processor: E2LLMProcessor, items: list[Item],
                      shares: list[np.ndarray], adapter: SecondPassParams, params: FitParams, folder: Path,
                      on_step: Callable[..., None] | None = None) -> tuple[PeftModel, pd.DataFrame]:
    """LoRA on a language model, and the embeddings of the digits and the answers; nothing else is trained.

    Parameters
    ----------
    language_model : PreTrainedModel
        As it was before stage 3.
    processor : E2LLMProcessor
        With its tokenizer.
    items, shares : list of Item, list of ndarray
        From :func:`second_pass_items`.
    adapter, params : SecondPassParams, FitParams
        Adapter and schedule.
    folder : Path
        Checkpoints; the caller removes it.
    on_step : callable, optional
        As for :func:`e2llm.training.trainer.fit`.

    Returns
    -------
    peft : PeftModel
        The model with its trained adapter, not merged.
    history : DataFrame
        Loss by step.
    """
    tokens = token_targets(language_model, sorted(answer_tokens(items, processor)))
    peft = with_new_adapter(language_model, params.seed, r=adapter.rank, lora_alpha=adapter.alpha,
                            target_modules=lora_targets(language_model, LAYERS), trainable_token_indices=tokens)
    examples = _soft_examples(items, shares, processor, params.seed)
    return peft, fit_examples(peft, examples, _soft_collate(processor), params, folder, on_step=on_step,
                              call=_soft_loss)
