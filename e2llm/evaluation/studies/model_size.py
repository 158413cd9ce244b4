"""Model-size study: does size help? One frozen encoder, one set of items, language models of several sizes.

What is measured of a model is kept as sums over people (:mod:`e2llm.evaluation.person_bootstrap`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from ...core.chat import Item
from ...core.claims import Claim
from ...data.dataset import Corpus
from ...models.device import current_device
from ...models.inference import InferenceEngine, closed_set
from ...models.language import ScratchParams
from ...models.modeling import E2LLMForConditionalGeneration
from ...models.processing import E2LLMProcessor
from ...tasks.items import OneSubjectBuilder, prediction_items
from ...tasks.wordings import PREDICT_WORDINGS, ZERO_SHOT_WORDINGS
from ...training.stage3_instruction import AdapterParams, train_adapter
from ...training.trainer import FitParams, examples_of
from ..controls import EEGInput, shuffled, variants
from ..faithfulness import claim_precision
from ..person_bootstrap import (
    Statistic,
    agreement_sums,
    confidence_sums,
    confusion_sums,
    ratio_sums,
    sums_table,
)
from ..reasoning import GeneratedExplanations, generate_explanations
from ..tiers import TIER_3, answer

Sums = dict[tuple[Statistic, str], dict[str, np.ndarray]]  # of each statistic and source of answers: person to sums

HEAD = "stage-1 head"  # source of answers: the encoder's own classifier
N_WORDINGS = 3  # of the trained, and as many of the unseen wordings of one question
TIMED_STEPS = 6


def _scratch(width: int, layers: int, heads: int) -> ScratchParams:
    """A size.

    Weights start at a standard deviation of 1/sqrt(width), so that sums over the width are of one size in all of them.
    """
    return ScratchParams(hidden_size=width, layers=layers, heads=heads, init_std=round(width**-0.5, 3))


SIZES = {"scratch-200k": _scratch(48, 2, 4), "scratch-600k": _scratch(96, 3, 4), "scratch-1m": _scratch(128, 4, 4),
         "scratch-6m": _scratch(256, 6, 4), "scratch-30m": _scratch(512, 9, 8)}  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """How the model sizes are trained, apart from what the base run's records state.

    Parameters
    ----------
    steps_share : float
        Of the base run's optimizer steps in every training; the same for all sizes but the base itself.
    bf16 : bool
        Train in bfloat16.
    """

    steps_share: float = 1.0
    bf16: bool = False

    def __post_init__(self) -> None:
        if not self.steps_share > 0:
            raise ValueError(f"steps_share must be above zero, not {self.steps_share}.")

    def fit(self, stored: dict, seed: int, slower: float) -> FitParams:
        """Schedule of one training.

        Parameters
        ----------
        stored : dict
            Fields of the base's :class:`e2llm.training.trainer.FitParams`.
        seed : int
            Of this training.
        slower : float
            Factor of the learning rate.
        """
        stored = FitParams(**stored)
        return replace(stored, steps=max(1, round(self.steps_share * stored.steps)), lr=stored.lr * slower, seed=seed,
                       bf16=self.bf16)

    def name(self, base: str, size: str, seed: int) -> str:
        """Name of the run of one size and seed.

        Parameters
        ----------
        base, size : str
            Names of the base run and of the size.
        seed : int
            Of the training.
        """
        shown = re.sub(r"[^A-Za-z0-9.-]+", "_", size).strip("_.-")
        return f"{base}-scale-{shown}{self.suffix}-seed{seed}"

    @property
    def suffix(self) -> str:
        """What of it differs from the base's, for names of runs and tables."""
        return ("-bf16" if self.bf16 else "") + (f"-x{self.steps_share:g}" if self.steps_share != 1 else "")


def all_sums(engine: InferenceEngine, corpus: Corpus, head_logits: np.ndarray, n_items: int,
             seed: int) -> tuple[pd.DataFrame, np.ndarray, float]:
    """Everything that is measured of a model on the test windows.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    corpus : Corpus
        Windows and split.
    head_logits : ndarray, shape (n_test, n_classes)
        Of the stage-1 head.
    n_items : int
        Items of each zero-shot kind.
    seed : int
        Of items and controls.

    Returns
    -------
    sums : DataFrame
        See :func:`e2llm.evaluation.person_bootstrap.sums_table`.
    answers : ndarray of int, shape (n_test,)
        Closed-set answers.
    speed : float
        Generated tokens a second.
    """
    items = prediction_items(corpus, corpus.split.test, seed)
    found, direct, speed = _basic_sums(engine, corpus, items, seed)
    found |= _head_sums(head_logits, corpus)
    found |= _zero_shot_sums(engine, corpus, n_items, seed) | wording_sums(engine, corpus, items, seed)
    return sums_table(found), direct, speed


def _head_sums(logits: np.ndarray, corpus: Corpus) -> Sums:
    """Sums of the encoder's own classifier, from its logits of the test windows."""
    test = corpus.split.test
    probabilities, truth, subjects = softmax(logits.astype(float), axis=1), corpus.labels[test], corpus.subjects[test]
    answers = confusion_sums(truth, probabilities.argmax(axis=1), subjects, len(corpus.label_set))
    return {(Statistic.ANSWERS, HEAD): answers, (Statistic.CONFIDENCE, HEAD): confidence_sums(probabilities, truth,
                                                                                              subjects)}


def _basic_sums(engine: InferenceEngine, corpus: Corpus, items: list[Item],
                seed: int) -> tuple[Sums, np.ndarray, float]:
    """Sums of tier 1, with EEG and under both controls; the closed-set answers; generated tokens a second."""
    test, n_classes = corpus.split.test, len(corpus.label_set)
    truth, subjects, found = corpus.labels[test], corpus.subjects[test], {}
    for source, (variant, asked) in variants(engine, items, corpus.windows.index, test, seed + 1).items():
        probabilities = closed_set(variant, asked)
        given = probabilities.argmax(axis=1)
        found[Statistic.ANSWERS, source] = confusion_sums(truth, given, subjects, n_classes)
        found[Statistic.CONFIDENCE, source] = confidence_sums(probabilities, truth, subjects)
        begun = clock()
        explanations = generate_explanations(variant, corpus, asked)
        seconds = clock() - begun
        found[Statistic.CLAIMS, source] = claim_sums(corpus, test, explanations.claims)
        read = np.array([label is not None for label in explanations.answers])
        found[Statistic.PARSED, source] = ratio_sums(read, np.zeros(len(test)), subjects)
        if source is EEGInput.EEG:
            direct, with_thought = given, _indices(explanations, corpus)
            # what cannot be read is a class of its own
            found[Statistic.THOUGHT, source] = confusion_sums(direct, with_thought, subjects, n_classes + 1)
            speed = sum(len(engine.processor.ids(text)) for text in explanations.texts) / seconds
    return found, direct, speed


def _indices(explanations: GeneratedExplanations, corpus: Corpus) -> np.ndarray:
    return np.array([len(corpus.label_set) if label is None else corpus.label_set.index(label)
                     for label in explanations.answers])


def claim_sums(corpus: Corpus, rows: np.ndarray, claims: Sequence[Sequence[Claim]]) -> dict[str, np.ndarray]:
    """True claims of each person's windows, those expected of another window of the person, and all claims.

    Parameters
    ----------
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    claims : sequence of sequences of Claim, length n
        About each window; see :func:`e2llm.evaluation.faithfulness.claim_precision`.
    """
    sums, subjects = {}, corpus.subjects[rows]
    for who in np.unique(subjects):
        own = np.flatnonzero(subjects == who)
        score = claim_precision([claims[i] for i in own], corpus.z[rows[own]], corpus.evidence_names, subjects[own])
        # Nothing claimed: no claims
        sums[str(who)] = np.nan_to_num([score.value * score.n, score.chance * score.n, score.n])
    return sums


def _zero_shot_sums(engine: InferenceEngine, corpus: Corpus, n_items: int, seed: int) -> Sums:
    """Sums of each zero-shot kind that the source serves, and of all of them side by side."""
    builder, found = OneSubjectBuilder.of_test(corpus, seed), {}
    people = np.unique(corpus.subjects[corpus.split.test]).astype(str)
    for kind in (kind for kind in TIER_3 if kind in builder.kinds()):
        items = builder.draw(kind, n_items)
        chance, subjects = np.array([1 / len(item.options) for item in items]), np.array([item.subject
                                                                                          for item in items])
        for source, asked in variants(engine, items, corpus.windows.index, corpus.split.test, seed + 1).items():
            given = answer(*asked).chosen
            hits = np.array([chosen == item.answer for chosen, item in zip(given, items, strict=True)])
            sums = found[Statistic(kind), source] = ratio_sums(hits, chance, subjects)
            together = found.setdefault((Statistic.ZERO_SHOT, source), {who: np.empty(0) for who in people})
            for who in people:
                together[who] = np.concatenate([together[who], sums.get(who, np.zeros(3))])
    return found


def wording_sums(engine: InferenceEngine, corpus: Corpus, items: list[Item], seed: int) -> Sums:
    """Sums of the agreement between answers to one question in several wordings, about the same window.

    Under the control every wording is asked of another shuffle of the person's windows: agreement must fall to zero.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    corpus : Corpus
        Its test windows are asked about.
    items : list of Item
        Tier-1 questions about them.
    seed : int
        Of the shuffles.
    """
    noun, found = corpus.label_set.noun, {}
    forms = [form.format(noun=noun) for form in (*PREDICT_WORDINGS[:N_WORDINGS], *ZERO_SHOT_WORDINGS[:N_WORDINGS])]
    asked = [[_reworded(item, form) for item in items] for form in forms]
    subjects, n_classes = corpus.subjects[corpus.split.test], len(corpus.label_set)
    index, test = corpus.windows.index, corpus.split.test
    for source in (EEGInput.EEG, EEGInput.SHUFFLED):
        engines = [engine if source is EEGInput.EEG else shuffled(engine, index, test, seed + 1 + i)
                   for i in range(len(forms))]
        given = np.stack([closed_set(each, worded).argmax(axis=1) for each, worded in zip(engines, asked, strict=True)],
                         axis=1)
        found[Statistic.WORDINGS, source] = agreement_sums(given, subjects, n_classes)
        found[Statistic.UNSEEN_WORDINGS, source] = agreement_sums(given[:, N_WORDINGS:], subjects, n_classes)
    return found


def _reworded(item: Item, form: str) -> Item:
    """A tier-1 question in other words."""
    (message,) = item.messages
    return replace(item, messages=[{**message, "content": [message["content"][0],
                                                           {"type": "text", "text": f" {form}"}]}])


def seed_sums(name: str, answers: Sequence[pd.DataFrame], n_classes: int) -> pd.DataFrame:
    """Agreement of models that differ in their training seed.

    Parameters
    ----------
    name : str
        Of the model size.
    answers : sequence of DataFrame
        Columns ``window``, ``subject`` and ``answer`` of each model.
    n_classes : int
        Number of classes.

    Raises
    ------
    ValueError
        If they were not tested on the same windows.
    """
    if any(not table[["window", "subject"]].equals(answers[0][["window", "subject"]]) for table in answers):
        raise ValueError(f"The seeds of {name} were not tested on the same windows: give runs of one base.")
    given = np.stack([table["answer"] for table in answers], axis=1)
    return sums_table({(Statistic.SEEDS, EEGInput.EEG): agreement_sums(given, answers[0]["subject"], n_classes)})


def training_cost(model: E2LLMForConditionalGeneration, processor: E2LLMProcessor, items: list[Item],
                  tokens: np.ndarray, position: dict[int, int], adapter: AdapterParams, params: FitParams,
                  folder: Path) -> dict[str, float]:
    """Processor seconds of a step of stage 3 (median of a few on its own items, thrown away), on one thread.

    Parameters
    ----------
    model, processor
        After stage 2.
    items : list of Item
        Training items of stage 3.
    tokens, position
        Encoder tokens, and the row of each window.
    adapter, params : AdapterParams and FitParams
        Of stage 3.
    folder : Path
        For checkpoints.
    """
    params, threads = replace(params, steps=TIMED_STEPS, save_steps=TIMED_STEPS), torch.get_num_threads()
    items = items[:: max(1, len(items) // 256)]
    times: list[float] = []
    torch.set_num_threads(1)
    try:
        train_adapter(model, processor, items, tokens, position, adapter, params, folder,
                      lambda *_, **__: times.append(clock()))
    finally:
        torch.set_num_threads(threads)
    step = float(np.median(np.diff(times)))
    length = np.mean([len(example["input_ids"]) for example in examples_of(items, processor, 0.5, params.seed)])
    batch = params.batch_size * params.accumulate
    return {"batch_size": batch, "seconds_a_step": step, "tokens_a_second": batch * float(length) / step}


def clock() -> float:
    """Seconds of processor time of this process, which other processes lengthen little.

    Of the wall where a GPU does the work.
    """
    if current_device().type != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
