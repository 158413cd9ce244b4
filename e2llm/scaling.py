"""Does size help? One frozen encoder, one set of items, language models of several sizes: every rung of the ladder a run of its own.

A rung shares the stages ``windows`` and ``encoder`` of a base run (linked, not trained again) and takes its schedule from the base's own records, so
that nothing differs but the language model. What is measured of it is kept as sums over people (:mod:`e2llm.personwise`).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from .assessment import TIER_3, closed_set, prediction_items
from .evaluate import Listener, answer, shuffled, without_eeg
from .faithfulness import claim_precision
from .language import LanguageModelError, ScratchParams
from .locks import held
from .personwise import PEOPLE, agreement_sums, as_text, confidence_sums, confusion_sums, ratio_sums, scores
from .questions import _PREDICT, _ZERO_PREDICT, Item
from .reasoning import Told, listener_of, tell
from .runs import Run, Stage, replacing, runs_folder
from .segments import Claim
from .stages import (
    AdapterParams,
    Corpus,
    align,
    instruct,
    items_per_kind,
    load_tokens,
    make_language,
    open_aligned,
    open_corpus,
    open_language,
    train_adapter,
)
from .tasks import read_items
from .train import FitParams, examples_of

BASE = "base"  # name of the rung that is the base run itself
FINISHED = "run:"  # before the name of another finished run that is taken as a rung as it is, with a schedule of its own
HEAD = "stage-1 head"  # source of answers: the encoder's own classifier, what a language model has to listen to
SHARED = ("windows", "encoder")  # stages that all rungs have in common
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

    def name(self, base: str, rung: str, seed: int) -> str:
        """Of the run folder of a rung."""
        return f"{base}-scale-{re.sub(r'[^A-Za-z0-9.-]+', '_', rung).strip('_.-')}{self.suffix}-seed{seed}"

    @property
    def suffix(self) -> str:
        """What of it differs from the base's, for names of runs and tables."""
        return ("-bf16" if self.bf16 else "") + (f"-x{self.steps_share:g}" if self.steps_share != 1 else "")


# --- a rung


def share_stages(base: Run, run: Run, names: Sequence[str] = SHARED) -> None:
    """Give a run the finished stages of another one, with their records: hard links where the disk permits them, else copies.

    Stages are replaced as a whole, never written into, so a linked file does not change under its other owner.
    """
    for name in names:
        record = base.require(name)
        if run.finished(name) == record:
            continue
        with held(run, name):
            part = run.path / f".{name}.part-shared"
            shutil.rmtree(part, ignore_errors=True)  # of a process killed here
            for file in (*record["files"], "stage.json"):  # the record last: with it the folder is whole
                (part / file).parent.mkdir(parents=True, exist_ok=True)
                _link(base.path / name / file, part / file)
            run.put_stage(name, part)
    run.refresh_manifest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copy2(source, target)


def climb(base: Run, name: str, seed: int = 0, schedule: Schedule | None = None) -> Run:
    """Train one rung: language model, alignment and instruction tuning on the base run's windows and encoder.

    Learning rates fall as one over the width, the rule by which one rate serves all widths under Adam (Yang et al. 2022, arXiv 2203.03466):
    those of the base run times its width over the rung's. Nothing is tuned for a size.

    Parameters
    ----------
    base : Run
        With all stages up to ``adapter`` finished.
    name : str
        One of :data:`SIZES`, :data:`BASE`, what :func:`e2llm.language.load_language_model` loads, or :data:`FINISHED` and the name of a run.
    seed : int
        Of weights, training items and their order.
    schedule : Schedule, optional
        Default: the base run's own.

    Returns
    -------
    Run
        The base itself for :data:`BASE`, the run that was named after :data:`FINISHED`.
    """
    if name == BASE or name.startswith(FINISHED):
        return _finished(base, base.name if name == BASE else name.removeprefix(FINISHED))
    schedule = schedule or Schedule()
    language, projector, adapter = (base.require(stage)["params"] for stage in ("language_model", "projector", "adapter"))
    if name in SIZES and language["name"] != "scratch":
        raise ValueError(f"The run {base.name!r} loaded {language['name']!r}, so it has no schedule for {name!r}, which is taught from text: "
                         "take a base run with language_model = \"scratch\", or leave the scratch sizes out.")
    width_of_base = open_language(base)[0].config.hidden_size
    run = Run.open(schedule.name(base.name, name, seed))
    share_stages(base, run)
    corpus = open_corpus(run)
    if name in SIZES:
        drills = max(1, round(schedule.steps_share * language["drill_steps"]))
        fit = schedule.fit(language["fit"], seed, width_of_base / SIZES[name].hidden_size)
        make_language(run, corpus, "scratch", language["dtype"], SIZES[name], language["n_items"], drills, fit)
    else:
        make_language(run, corpus, name, language["dtype"], ScratchParams(), 0, 0, FitParams(1, 1, 0.0))
    slower = width_of_base / open_language(run)[0].config.hidden_size
    align(run, corpus, projector["eeg_tokens"], projector["evidence_slots"], projector["n_items"], projector["noise"],
          schedule.fit(projector["fit"], seed, slower))
    lora = AdapterParams(**adapter["adapter"])
    instruct(run, corpus, items_per_kind(base), adapter["replay"], replace(lora, projector_lr=lora.projector_lr * slower),
             schedule.fit(adapter["fit"], seed, slower))
    return run


def _finished(base: Run, name: str) -> Run:
    """A run that is a rung as it is; ValueError if its windows or its encoder are not made as the base's are."""
    run = Run.open(name)
    run.require("adapter")
    if other := [stage for stage in SHARED if run.require(stage)["key"] != base.require(stage)["key"]]:
        raise ValueError(f"The stage {other[0]!r} of the run {name!r} was not made as that of {base.name!r}: "
                         "a ladder compares language models behind one encoder on the same windows.")
    return run


# --- what is measured of a rung


def measure(run: Run, corpus: Corpus, n_items: int, seed: int = 0) -> Stage:
    """Measure the model of a finished run on test windows: answers, confidence, zero-shot items, claims, reliability and cost.

    Leaves ``sums.csv`` (statistic, source, subject and the sums of that person) and ``answers.csv`` (closed-set answer to every test window).

    Parameters
    ----------
    n_items : int
        Items of each zero-shot kind; the same ones for all models with equal windows and ``seed``.
    """
    stage = run.stage("scaling", {"n_items": n_items, "seed": seed, "wordings": N_WORDINGS}, needs=("encoder", "adapter"))
    if stage.done:
        return stage
    stage.begin()
    listener, test = listener_of(run), corpus.split.test
    items = prediction_items(corpus, test, seed)
    found, direct, speed = _basic(listener, corpus, items, seed)
    found |= _head(run, corpus) | _zero_shot(listener, corpus, n_items, seed) | _wordings(listener, corpus, items, seed)
    rows = [(*key, subject, as_text(sums)) for key, each in found.items() for subject, sums in each.items()]
    pd.DataFrame(rows, columns=["statistic", "source", "subject", "sums"]).to_csv(stage.path / "sums.csv", index=False)
    answers = pd.DataFrame({"window": test, "subject": corpus.owners[test], "label": corpus.labels[test], "answer": direct})
    answers.to_csv(stage.path / "answers.csv", index=False)
    stage.finish({**_cost(run, stage.path / "checkpoints"), **speed}, labels=list(corpus.label_set.labels))
    return stage


def _variants(listener: Listener, items: list[Item], corpus: Corpus, seed: int) -> dict[str, tuple[Listener, list[Item]]]:
    return {"EEG": (listener, items), "shuffled EEG": (shuffled(listener, corpus.windows.index, corpus.split.test, seed + 1), items),
            "no EEG": (listener, without_eeg(items))}


def _basic(listener: Listener, corpus: Corpus, items: list[Item], seed: int) -> tuple[dict, np.ndarray, dict[str, float]]:
    """Sums of tier 1, heard and under both controls; the closed-set answers; how fast the model speaks."""
    test, n_classes = corpus.split.test, len(corpus.label_set)
    truth, owners, found, speed = corpus.labels[test], corpus.owners[test], {}, {}
    for source, (hearing, asked) in _variants(listener, items, corpus, seed).items():
        heard = closed_set(hearing, asked)
        found["answers", source] = confusion_sums(truth, heard.argmax(axis=1), owners, n_classes)
        found["confidence", source] = confidence_sums(heard, truth, owners)
        begun = _clock()
        told = tell(hearing, corpus, asked)
        seconds = _clock() - begun
        found["claims", source] = claim_sums(corpus, test, told.claims)
        found["parsed", source] = ratio_sums(np.array([said is not None for said in told.answers]), np.zeros(len(test)), owners)
        if source == "EEG":
            direct, read = heard.argmax(axis=1), _indices(told, corpus)
            found["thought", source] = confusion_sums(direct, read, owners, n_classes + 1)  # what cannot be read is a class of its own
            speed["generated_tokens_a_second"] = sum(len(listener.processor.ids(text)) for text in told.texts) / seconds
    return found, direct, speed


def _indices(told: Told, corpus: Corpus) -> np.ndarray:
    return np.array([len(corpus.label_set) if said is None else corpus.label_set.index(said) for said in told.answers])


def claim_sums(corpus: Corpus, rows: np.ndarray, claims: Sequence[Sequence[Claim]]) -> dict[str, np.ndarray]:
    """True claims of each person's windows, those expected of another window of the person, and claims; see :func:`claim_precision`."""
    sums = {}
    for who in np.unique(corpus.owners[rows]):
        own = np.flatnonzero(corpus.owners[rows] == who)
        score = claim_precision([claims[i] for i in own], corpus.z[rows[own]], corpus.evidence_names, corpus.owners[rows[own]])
        sums[str(who)] = np.nan_to_num([score.value * score.n, score.chance * score.n, score.n])  # nothing claimed: no claims
    return sums


def _head(run: Run, corpus: Corpus) -> dict:
    """Sums of the encoder's own classifier on the same windows."""
    test = corpus.split.test
    with np.load(run.path / "encoder" / "answers.npz") as stored:
        place = {int(row): i for i, row in enumerate(stored["rows"])}
        heard = softmax(stored["logits"][[place[int(row)] for row in test]].astype(float), axis=1)
    truth, owners = corpus.labels[test], corpus.owners[test]
    return {("answers", HEAD): confusion_sums(truth, heard.argmax(axis=1), owners, len(corpus.label_set)),
            ("confidence", HEAD): confidence_sums(heard, truth, owners)}


def _zero_shot(listener: Listener, corpus: Corpus, n_items: int, seed: int) -> dict:
    """Sums of each zero-shot kind that the source serves, and of all of them side by side."""
    builder, found = corpus.examiner(seed), {}
    people = np.unique(corpus.owners[corpus.split.test]).astype(str)
    for kind in (kind for kind in TIER_3 if kind in builder.kinds()):
        items = builder.draw(kind, n_items)
        chance, owners = np.array([1 / len(item.options) for item in items]), np.array([item.subject for item in items])
        for source, (hearing, asked) in _variants(listener, items, corpus, seed).items():
            hits = np.array([chosen == item.answer for chosen, item in zip(answer(hearing, asked).chosen, items, strict=True)])
            sums = found[kind, source] = ratio_sums(hits, chance, owners)
            together = found.setdefault(("zero_shot", source), {who: np.empty(0) for who in people})
            for who in people:
                together[who] = np.concatenate([together[who], sums.get(who, np.zeros(3))])
    return found


def _wordings(listener: Listener, corpus: Corpus, items: list[Item], seed: int) -> dict:
    """Sums of the agreement between answers to one question in several wordings, about the same window.

    Under the control every wording is asked of another shuffle of the person's windows: agreement must fall to zero.
    """
    noun, found = corpus.label_set.noun, {}
    forms = [form.format(noun=noun) for form in (*_PREDICT[:N_WORDINGS], *_ZERO_PREDICT[:N_WORDINGS])]
    asked = [[_reworded(item, form) for item in items] for form in forms]
    owners, n_classes = corpus.owners[corpus.split.test], len(corpus.label_set)
    for source in ("EEG", "shuffled EEG"):
        hearing = [listener if source == "EEG" else shuffled(listener, corpus.windows.index, corpus.split.test, seed + 1 + i)
                   for i in range(len(forms))]
        given = np.stack([closed_set(each, worded).argmax(axis=1) for each, worded in zip(hearing, asked, strict=True)], axis=1)
        found["wordings", source] = agreement_sums(given, owners, n_classes)
        found["unseen wordings", source] = agreement_sums(given[:, N_WORDINGS:], owners, n_classes)
    return found


def _reworded(item: Item, form: str) -> Item:
    """A tier-1 question in other words."""
    (message,) = item.messages
    return replace(item, messages=[{**message, "content": [message["content"][0], {"type": "text", "text": f" {form}"}]}])


def _clock() -> float:
    """Seconds of processor time of this process, which other processes lengthen little; of the wall where a GPU does the work."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def _cost(run: Run, folder: Path) -> dict[str, float]:
    """Parameters, and processor seconds of a step of stage 3 (median of a few on its own items, thrown away), on one thread."""
    stored, (model, processor), threads = run.require("adapter")["params"], open_aligned(run), torch.get_num_threads()
    params = replace(FitParams(**stored["fit"]), steps=TIMED_STEPS, save_steps=TIMED_STEPS)
    items = read_items(run.path / "adapter" / "items.jsonl")
    items = items[:: max(1, len(items) // 256)]
    times: list[float] = []
    torch.set_num_threads(1)
    try:
        train_adapter(model, processor, items, *load_tokens(run), AdapterParams(**stored["adapter"]), params, folder,
                      lambda *_, **__: times.append(_clock()))
    finally:
        torch.set_num_threads(threads)
    step = float(np.median(np.diff(times)))
    tokens = np.mean([len(example["input_ids"]) for example in examples_of(items, processor, 0.5, params.seed)])
    steps = {"steps": sum(run.require(name)["params"]["fit"]["steps"] for name in ("projector", "adapter"))}
    batch = params.batch_size * params.accumulate
    sizes = {"parameters": run.require("language_model")["metrics"]["parameters"],
             "trained_parameters": run.require("adapter")["metrics"]["trained"]}
    return {**sizes, **steps, "batch_size": batch, "seconds_a_step": step, "tokens_a_second": batch * float(tokens) / step}


# --- the ladder


class Study(NamedTuple):
    """What is known of all rungs of a ladder."""

    people: pd.DataFrame  # sums of every person, for the functions of personwise
    costs: pd.DataFrame  # a row a rung and seed: parameters, processor time
    missing: dict[str, str]  # rung to why it could not be had


def study(base: Run, ladder: Sequence[str], seeds: Sequence[int], n_items: int, seed: int = 0, schedule: Schedule | None = None,
          tell: Callable[[str], None] | None = None) -> Study:
    """Train and measure every rung of a ladder that is not finished yet, and gather them all.

    A language model that cannot be loaded (no network, no file) is left out and told of; any other error stops. The tables are also
    written beside the runs: ``<base>-scaling.csv`` (scores), ``<base>-scaling-people.csv`` (what they are made of), ``<base>-scaling-costs.csv``;
    the names say what of the schedule is not the base's (``<base>-scaling-bf16-x0.4.csv``).

    Parameters
    ----------
    base, schedule
        As in :func:`climb`.
    ladder : sequence of str
        Names of rungs.
    seeds : sequence of int
        Every rung is trained with each of them; finished runs have one of their own.
    n_items, seed
        As in :func:`measure`.
    tell : callable, optional
        Is told the name of every run that is finished.
    """
    if not ladder or len(set(ladder)) < len(ladder) or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"A ladder needs different names and seeds, at least one of each, not {tuple(ladder)} and {tuple(seeds)}.")
    rungs, missing, schedule = {}, {}, schedule or Schedule()
    for name in ladder:
        for number in seeds if name != BASE and not name.startswith(FINISHED) else (None,):
            try:
                run = climb(base, name, number, schedule)
            except LanguageModelError as error:
                missing[name] = str(error)
                break
            measure(run, open_corpus(run), n_items, seed)
            rungs.setdefault(name, {})[run.require("adapter")["params"]["fit"]["seed"]] = run
            if tell is not None:
                tell(run.name)
    found = gather(rungs)._replace(missing=missing)
    for kind, table in (("scaling", scores(found.people)), ("scaling-people", found.people), ("scaling-costs", found.costs)):
        with replacing(runs_folder() / f"{base.name}-{kind}{schedule.suffix}.csv") as partial:
            table.to_csv(partial, index=False, lineterminator="\n")
    return found


def gather(rungs: dict[str, dict[int, Run]]) -> Study:
    """Put together what :func:`measure` left in runs: name of the rung to training seed to run."""
    people, costs = [], []
    for name, runs in rungs.items():
        for number, run in runs.items():
            record = run.require("scaling")
            facts = {"rung": name, "parameters": record["metrics"]["parameters"],
                     "origin": "scratch" if run.require("language_model")["params"]["name"] == "scratch" else "pretrained"}
            people.append(pd.read_csv(run.path / "scaling" / "sums.csv", dtype=str).assign(**facts, seed=number))
            costs.append({**facts, "seed": number, **record["metrics"]})
        if len(runs) > 1:
            answers = [pd.read_csv(run.path / "scaling" / "answers.csv", dtype={"subject": str}) for run in runs.values()]
            if any(not table[["window", "subject"]].equals(answers[0][["window", "subject"]]) for table in answers):
                raise ValueError(f"The seeds of {name} were not tested on the same windows: give runs of one base.")
            sums = agreement_sums(np.stack([table["answer"] for table in answers], axis=1), answers[0]["subject"], len(record["facts"]["labels"]))
            rows = [("seeds", "EEG", who, as_text(each)) for who, each in sums.items()]
            people.append(pd.DataFrame(rows, columns=["statistic", "source", "subject", "sums"]).assign(**facts, seed=next(iter(runs))))
    return Study(pd.concat(people, ignore_index=True)[list(PEOPLE)], pd.DataFrame(costs), {})
