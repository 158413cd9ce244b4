"""TODO purpose of app.model_size_study."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from ..core.files import replacing
from ..data.dataset import Corpus
from ..evaluation.personwise import PEOPLE, agreement_sums, as_text, confidence_sums, confusion_sums, scores
from ..evaluation.studies.model_size import HEAD, N_WORDINGS, SIZES, TIMED_STEPS, Schedule, basic_sums, clock, wording_sums, zero_shot_sums
from ..models.language import LanguageModelError, ScratchParams
from ..tasks.items import prediction_items, read_items
from ..training.stage3_instruction import AdapterParams, train_adapter
from ..training.trainer import FitParams, examples_of
from .locks import held
from .reasoning_stage import open_engine
from .runs import Run, Stage, runs_folder
from .stages import align, instruct, items_per_kind, load_tokens, make_language_model, open_aligned, open_dataset, open_language

BASE = "base"  # name of the rung that is the base run itself
FINISHED = "run:"  # before the name of another finished run that is taken as a rung as it is, with a schedule of its own
SHARED = ("windows", "encoder")  # stages that all rungs have in common


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


def train_size(base: Run, name: str, seed: int = 0, schedule: Schedule | None = None) -> Run:
    """Train one rung: language model, alignment and instruction tuning on the base run's windows and encoder.

    Learning rates fall as one over the width, the rule by which one rate serves all widths under Adam (Yang et al. 2022, arXiv 2203.03466):
    those of the base run times its width over the rung's. Nothing is tuned for a size.

    Parameters
    ----------
    base : Run
        With all stages up to ``adapter`` finished.
    name : str
        One of :data:`SIZES`, :data:`BASE`, what :func:`e2llm.models.language.load_language_model` loads, or :data:`FINISHED` and the name of a run.
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
    corpus = open_dataset(run)
    if name in SIZES:
        drills = max(1, round(schedule.steps_share * language["drill_steps"]))
        fit = schedule.fit(language["fit"], seed, width_of_base / SIZES[name].hidden_size)
        make_language_model(run, corpus, "scratch", language["dtype"], SIZES[name], language["n_items"], drills, fit)
    else:
        make_language_model(run, corpus, name, language["dtype"], ScratchParams(), 0, 0, FitParams(1, 1, 0.0))
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
    engine, test = open_engine(run), corpus.split.test
    items = prediction_items(corpus, test, seed)
    found, direct, speed = basic_sums(engine, corpus, items, seed)
    found |= _head(run, corpus) | zero_shot_sums(engine, corpus, n_items, seed) | wording_sums(engine, corpus, items, seed)
    rows = [(*key, subject, as_text(sums)) for key, each in found.items() for subject, sums in each.items()]
    pd.DataFrame(rows, columns=["statistic", "source", "subject", "sums"]).to_csv(stage.path / "sums.csv", index=False)
    answers = pd.DataFrame({"window": test, "subject": corpus.subjects[test], "label": corpus.labels[test], "answer": direct})
    answers.to_csv(stage.path / "answers.csv", index=False)
    stage.finish({**_cost(run, stage.path / "checkpoints"), **speed}, labels=list(corpus.label_set.labels))
    return stage


def _head(run: Run, corpus: Corpus) -> dict:
    """Sums of the encoder's own classifier on the same windows."""
    test = corpus.split.test
    with np.load(run.path / "encoder" / "answers.npz") as stored:
        place = {int(row): i for i, row in enumerate(stored["rows"])}
        predicted_evidence = softmax(stored["logits"][[place[int(row)] for row in test]].astype(float), axis=1)
    truth, subjects = corpus.labels[test], corpus.subjects[test]
    return {("answers", HEAD): confusion_sums(truth, predicted_evidence.argmax(axis=1), subjects, len(corpus.label_set)),
            ("confidence", HEAD): confidence_sums(predicted_evidence, truth, subjects)}


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
                      lambda *_, **__: times.append(clock()))
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


def study(base: Run, sizes: Sequence[str], seeds: Sequence[int], n_items: int, seed: int = 0, schedule: Schedule | None = None,
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
    if not sizes or len(set(sizes)) < len(sizes) or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"A ladder needs different names and seeds, at least one of each, not {tuple(sizes)} and {tuple(seeds)}.")
    by_size, missing, schedule = {}, {}, schedule or Schedule()
    for name in sizes:
        for number in seeds if name != BASE and not name.startswith(FINISHED) else (None,):
            try:
                run = train_size(base, name, number, schedule)
            except LanguageModelError as error:
                missing[name] = str(error)
                break
            measure(run, open_dataset(run), n_items, seed)
            by_size.setdefault(name, {})[run.require("adapter")["params"]["fit"]["seed"]] = run
            if tell is not None:
                tell(run.name)
    found = gather(by_size)._replace(missing=missing)
    for kind, table in (("scaling", scores(found.people)), ("scaling-people", found.people), ("scaling-costs", found.costs)):
        with replacing(runs_folder() / f"{base.name}-{kind}{schedule.suffix}.csv") as partial:
            table.to_csv(partial, index=False, lineterminator="\n")
    return found


def gather(by_size: dict[str, dict[int, Run]]) -> Study:
    """Put together what :func:`measure` left in runs: name of the rung to training seed to run."""
    people, costs = [], []
    for name, runs in by_size.items():
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
