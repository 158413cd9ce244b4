"""Does size help? One frozen encoder, one set of items, language models of several sizes: every rung of the ladder a run of its own.

A rung shares the stages ``windows`` and ``encoder`` of a base run (linked, not trained again) and takes its schedule from the base's own records, so
that nothing differs but the language model. What is measured of it is kept as sums over people (:mod:`e2llm.evaluation.personwise`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...core.chat import Item
from ...core.claims import Claim
from ...data.dataset import Corpus
from ...models.inference import InferenceEngine, closed_set
from ...models.language import ScratchParams
from ...tasks.items import PREDICT_WORDINGS, ZERO_SHOT_WORDINGS, OneSubjectBuilder
from ...training.trainer import FitParams
from ..controls import shuffled, without_eeg
from ..faithfulness import claim_precision
from ..personwise import agreement_sums, confidence_sums, confusion_sums, ratio_sums
from ..reasoning import GeneratedExplanations, tell
from ..tiers import TIER_3, answer

HEAD = "stage-1 head"  # source of answers: the encoder's own classifier, what a language model has to listen to
N_WORDINGS = 3  # of the trained, and as many of the unseen wordings of one question
TIMED_STEPS = 6


def _scratch(width: int, layers: int, heads: int) -> ScratchParams:
    """A size; weights start at a standard deviation of 1/sqrt(width), so that sums over the width are of one size in all of them."""
    return ScratchParams(hidden_size=width, layers=layers, heads=heads, init_std=round(width**-0.5, 3))


SIZES = {"scratch-200k": _scratch(48, 2, 4), "scratch-600k": _scratch(96, 3, 4), "scratch-1m": _scratch(128, 4, 4),
         "scratch-6m": _scratch(256, 6, 4), "scratch-30m": _scratch(512, 9, 8)}  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """How the rungs of a ladder are trained, beside what the base run's records say.

    Parameters
    ----------
    steps_share : float
        Of the base run's optimiser steps in every training; the same for all rungs but the base itself.
    bf16 : bool
        Train in bfloat16.
    """

    steps_share: float = 1.0
    bf16: bool = False

    def __post_init__(self) -> None:
        if not self.steps_share > 0:
            raise ValueError(f"steps_share must be above zero, not {self.steps_share}.")

    def fit(self, stored: dict, seed: int, slower: float) -> FitParams:
        """Schedule of one training: the base's ``stored`` one, its learning rate times ``slower``."""
        stored = FitParams(**stored)
        return replace(stored, steps=max(1, round(self.steps_share * stored.steps)), lr=stored.lr * slower, seed=seed, bf16=self.bf16)

    def name(self, base: str, size: str, seed: int) -> str:
        """Of the run folder of a rung."""
        return f"{base}-scale-{re.sub(r'[^A-Za-z0-9.-]+', '_', size).strip('_.-')}{self.suffix}-seed{seed}"

    @property
    def suffix(self) -> str:
        """What of it differs from the base's, for names of runs and tables."""
        return ("-bf16" if self.bf16 else "") + (f"-x{self.steps_share:g}" if self.steps_share != 1 else "")


def _variants(engine: InferenceEngine, items: list[Item], corpus: Corpus, seed: int) -> dict[str, tuple[InferenceEngine, list[Item]]]:
    return {"EEG": (engine, items), "shuffled EEG": (shuffled(engine, corpus.windows.index, corpus.split.test, seed + 1), items),
            "no EEG": (engine, without_eeg(items))}


def basic_sums(engine: InferenceEngine, corpus: Corpus, items: list[Item], seed: int) -> tuple[dict, np.ndarray, dict[str, float]]:
    """Sums of tier 1, heard and under both controls; the closed-set answers; how fast the model speaks."""
    test, n_classes = corpus.split.test, len(corpus.label_set)
    truth, subjects, found, speed = corpus.labels[test], corpus.subjects[test], {}, {}
    for source, (hearing, asked) in _variants(engine, items, corpus, seed).items():
        predicted_evidence = closed_set(hearing, asked)
        found["answers", source] = confusion_sums(truth, predicted_evidence.argmax(axis=1), subjects, n_classes)
        found["confidence", source] = confidence_sums(predicted_evidence, truth, subjects)
        begun = clock()
        explanations = tell(hearing, corpus, asked)
        seconds = clock() - begun
        found["claims", source] = claim_sums(corpus, test, explanations.claims)
        found["parsed", source] = ratio_sums(np.array([said is not None for said in explanations.answers]), np.zeros(len(test)), subjects)
        if source == "EEG":
            direct, read = predicted_evidence.argmax(axis=1), _indices(explanations, corpus)
            found["thought", source] = confusion_sums(direct, read, subjects, n_classes + 1)  # what cannot be read is a class of its own
            speed["generated_tokens_a_second"] = sum(len(engine.processor.ids(text)) for text in explanations.texts) / seconds
    return found, direct, speed


def _indices(explanations: GeneratedExplanations, corpus: Corpus) -> np.ndarray:
    return np.array([len(corpus.label_set) if said is None else corpus.label_set.index(said) for said in explanations.answers])


def claim_sums(corpus: Corpus, rows: np.ndarray, claims: Sequence[Sequence[Claim]]) -> dict[str, np.ndarray]:
    """True claims of each person's windows, those expected of another window of the person, and claims; see :func:`claim_precision`."""
    sums = {}
    for who in np.unique(corpus.subjects[rows]):
        own = np.flatnonzero(corpus.subjects[rows] == who)
        score = claim_precision([claims[i] for i in own], corpus.z[rows[own]], corpus.evidence_names, corpus.subjects[rows[own]])
        sums[str(who)] = np.nan_to_num([score.value * score.n, score.chance * score.n, score.n])  # nothing claimed: no claims
    return sums


def zero_shot_sums(engine: InferenceEngine, corpus: Corpus, n_items: int, seed: int) -> dict:
    """Sums of each zero-shot kind that the source serves, and of all of them side by side."""
    builder, found = OneSubjectBuilder.of_test(corpus, seed), {}
    people = np.unique(corpus.subjects[corpus.split.test]).astype(str)
    for kind in (kind for kind in TIER_3 if kind in builder.kinds()):
        items = builder.draw(kind, n_items)
        chance, subjects = np.array([1 / len(item.options) for item in items]), np.array([item.subject for item in items])
        for source, (hearing, asked) in _variants(engine, items, corpus, seed).items():
            hits = np.array([chosen == item.answer for chosen, item in zip(answer(hearing, asked).chosen, items, strict=True)])
            sums = found[kind, source] = ratio_sums(hits, chance, subjects)
            together = found.setdefault(("zero_shot", source), {who: np.empty(0) for who in people})
            for who in people:
                together[who] = np.concatenate([together[who], sums.get(who, np.zeros(3))])
    return found


def wording_sums(engine: InferenceEngine, corpus: Corpus, items: list[Item], seed: int) -> dict:
    """Sums of the agreement between answers to one question in several wordings, about the same window.

    Under the control every wording is asked of another shuffle of the person's windows: agreement must fall to zero.
    """
    noun, found = corpus.label_set.noun, {}
    forms = [form.format(noun=noun) for form in (*PREDICT_WORDINGS[:N_WORDINGS], *ZERO_SHOT_WORDINGS[:N_WORDINGS])]
    asked = [[_reworded(item, form) for item in items] for form in forms]
    subjects, n_classes = corpus.subjects[corpus.split.test], len(corpus.label_set)
    for source in ("EEG", "shuffled EEG"):
        hearing = [engine if source == "EEG" else shuffled(engine, corpus.windows.index, corpus.split.test, seed + 1 + i)
                   for i in range(len(forms))]
        given = np.stack([closed_set(each, worded).argmax(axis=1) for each, worded in zip(hearing, asked, strict=True)], axis=1)
        found["wordings", source] = agreement_sums(given, subjects, n_classes)
        found["unseen wordings", source] = agreement_sums(given[:, N_WORDINGS:], subjects, n_classes)
    return found


def _reworded(item: Item, form: str) -> Item:
    """A tier-1 question in other words."""
    (message,) = item.messages
    return replace(item, messages=[{**message, "content": [message["content"][0], {"type": "text", "text": f" {form}"}]}])


def clock() -> float:
    """Seconds of processor time of this process, which other processes lengthen little; of the wall where a GPU does the work."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
