"""Model-size study: the run of each size, on the base run's windows and encoder, and the tables of all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ..core.files import replacing
from ..data.dataset import Corpus
from ..evaluation.person_bootstrap import PEOPLE, scores
from ..evaluation.studies.model_size import N_WORDINGS, SIZES, Schedule, all_sums, seed_sums, training_cost
from ..models.language import LanguageModelError, ScratchParams
from ..tasks.items import read_items
from ..training.stage3_instruction import AdapterParams
from ..training.trainer import FitParams
from .evaluation_stage import head_logits, open_engine
from .locks import held
from .runs import Run, Stage, runs_folder
from .stages import (
    DEFAULTS,
    align,
    instruct,
    items_per_kind,
    load_tokens,
    make_language_model,
    open_aligned,
    open_dataset,
    open_language,
)

BASE = "base"  # name of the size that is the base run itself
FINISHED = "run:"  # before the name of another finished run that is taken as it is, with a schedule of its own
SHARED = ("windows", "encoder")  # stages that all sizes have in common


# ---------------------------------------------------------------- one size


def share_stages(base: Run, run: Run, names: Sequence[str] = SHARED) -> None:
    """Give a run the finished stages of another one, with their records.

    Hard links where the disk permits them, else copies. Stages are replaced as a whole, never written into, so a linked
    file does not change in the other run.

    Parameters
    ----------
    base, run : Run
        From and to.
    names : sequence of str
        Stages.
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
    """Train one size: language model, alignment and instruction tuning on the base run's windows and encoder.

    Learning rates fall as one over the width, the rule by which one rate serves all widths under Adam: those of the
    base run times its width over the size's. Nothing is tuned for a size. A base that loaded its language model has no
    schedule for teaching one from text: then that of the command line's defaults is taken.

    Parameters
    ----------
    base : Run
        With all stages up to ``adapter`` finished.
    name : str
        One of :data:`e2llm.evaluation.studies.model_size.SIZES`, :data:`BASE`, what
        :func:`e2llm.models.language.load_language_model` loads, or :data:`FINISHED` and the name of a run.
    seed : int
        Of weights, training items and their order.
    schedule : Schedule, optional
        Default: the base run's own.

    Returns
    -------
    Run
        The base itself for :data:`BASE`, the run that was named after :data:`FINISHED`.

    References
    ----------
    Yang et al. 2022, arXiv 2203.03466.
    """
    if name == BASE or name.startswith(FINISHED):
        return _finished(base, base.name if name == BASE else name.removeprefix(FINISHED))
    schedule = schedule or Schedule()
    language, projector, adapter = (base.require(stage)["params"]
                                    for stage in ("language_model", "projector", "adapter"))
    width_of_base = width_of_schedule = open_language(base)[0].config.hidden_size
    if name in SIZES and language["name"] != "scratch":  # then the base has no schedule for teaching from text
        taught = FitParams(DEFAULTS.language_steps, DEFAULTS.batch_size, DEFAULTS.language_lr)
        language = {**language, "fit": asdict(taught), "n_items": DEFAULTS.language_items,
                    "drill_steps": DEFAULTS.drill_steps}
        width_of_schedule = ScratchParams().hidden_size
    run = Run.open(schedule.name(base.name, name, seed))
    share_stages(base, run)
    corpus = open_dataset(run, levels=projector.get("levels"))
    if name in SIZES:
        drills = max(1, round(schedule.steps_share * language["drill_steps"]))
        fit = schedule.fit(language["fit"], seed, width_of_schedule / SIZES[name].hidden_size)
        make_language_model(run, corpus, "scratch", language["dtype"], SIZES[name], language["n_items"], drills, fit)
    else:
        make_language_model(run, corpus, name, language["dtype"], ScratchParams(), 0, 0, FitParams(1, 1, 0.0))
    slower = width_of_base / open_language(run)[0].config.hidden_size
    align(run, corpus, projector["eeg_tokens"], projector["evidence_slots"], projector["n_items"], projector["noise"],
          schedule.fit(projector["fit"], seed, slower))
    lora = AdapterParams(**adapter["adapter"])
    instruct(run, corpus, items_per_kind(base), adapter["replay"],
             replace(lora, projector_lr=lora.projector_lr * slower), schedule.fit(adapter["fit"], seed, slower))
    return run


def _finished(base: Run, name: str) -> Run:
    """A run that is taken as it is; ValueError if its windows or its encoder are not made as the base's are."""
    run = Run.open(name)
    run.require("adapter")
    if other := [stage for stage in SHARED if run.require(stage)["key"] != base.require(stage)["key"]]:
        raise ValueError(f"The stage {other[0]!r} of the run {name!r} was not made as that of {base.name!r}: "
                         "a study compares language models behind one encoder on the same windows.")
    return run


# ---------------------------------------------------------------- what is measured of a size


def measure(run: Run, corpus: Corpus, n_items: int, seed: int = 0) -> Stage:
    """Measure the model of a finished run on test windows.

    Answers, confidence, zero-shot items, claims, reliability and cost.

    Leaves ``sums.csv`` (statistic, source, subject and the sums of that person) and ``answers.csv`` (closed-set answer
    to every test window).

    Parameters
    ----------
    run, corpus : Run and Corpus
        With all stages up to ``adapter`` finished.
    n_items : int
        Items of each zero-shot kind; the same ones for all models with equal windows and ``seed``.
    seed : int
        Of items and controls.
    """
    settings = {"n_items": n_items, "seed": seed, "wordings": N_WORDINGS}
    stage = run.stage("scaling", settings, needs=("encoder", "adapter"))
    if stage.done:
        return stage
    stage.begin()
    test = corpus.split.test
    sums, direct, speed = all_sums(open_engine(run), corpus, head_logits(run, test), n_items, seed)
    sums.to_csv(stage.path / "sums.csv", index=False)
    answers = {"window": test, "subject": corpus.subjects[test], "label": corpus.labels[test], "answer": direct}
    pd.DataFrame(answers).to_csv(stage.path / "answers.csv", index=False)
    costs = _cost(run, stage.path / "checkpoints") | {"generated_tokens_a_second": speed}
    return stage.finish(costs, labels=list(corpus.label_set.labels))


def _cost(run: Run, folder: Path) -> dict[str, float]:
    """Parameters, steps, and what a step of stage 3 costs."""
    stored = run.require("adapter")["params"]
    cost = training_cost(*open_aligned(run), read_items(run.path / "adapter" / "items.jsonl"), *load_tokens(run),
                         AdapterParams(**stored["adapter"]), FitParams(**stored["fit"]), folder)
    return {"parameters": run.require("language_model")["metrics"]["parameters"],
            "trained_parameters": run.require("adapter")["metrics"]["trained"],
            "steps": sum(run.require(name)["params"]["fit"]["steps"] for name in ("projector", "adapter")), **cost}


# ---------------------------------------------------------------- all sizes


class Study(NamedTuple):
    """What is known of all sizes."""

    people: pd.DataFrame  # sums of every person; see e2llm.evaluation.person_bootstrap
    costs: pd.DataFrame  # a row a size and seed: parameters, processor time
    missing: dict[str, str]  # size to why its language model could not be loaded


def study(base: Run, sizes: Sequence[str], seeds: Sequence[int], n_items: int, seed: int = 0,
          schedule: Schedule | None = None, on_run: Callable[[str], None] | None = None) -> Study:
    """Train and measure every size that is not finished yet, and gather them all.

    A language model that cannot be loaded (no network, no file) is left out and listed as missing; any other error
    stops. The tables are also written into the folder of runs: ``<base>-scaling.csv`` (scores),
    ``<base>-scaling-people.csv`` (what they are made of), ``<base>-scaling-costs.csv``; the names hold what of the
    schedule is not the base's (``<base>-scaling-bf16-x0.4.csv``).

    Parameters
    ----------
    base, schedule
        As in :func:`train_size`.
    sizes : sequence of str
        Names, as in :func:`train_size`.
    seeds : sequence of int
        Every size is trained with each of them; finished runs have one of their own.
    n_items, seed
        As in :func:`measure`.
    on_run : callable, optional
        ``on_run(name)`` after each finished run.
    """
    if not sizes or len(set(sizes)) < len(sizes) or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError("A study needs different sizes and seeds, at least one of each, not "
                         f"{tuple(sizes)} and {tuple(seeds)}.")
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
            if on_run is not None:
                on_run(run.name)
    found = gather(by_size)._replace(missing=missing)
    tables = {"scaling": scores(found.people), "scaling-people": found.people, "scaling-costs": found.costs}
    for kind, table in tables.items():
        with replacing(runs_folder() / f"{base.name}-{kind}{schedule.suffix}.csv") as partial:
            table.to_csv(partial, index=False, lineterminator="\n")
    return found


def gather(by_size: dict[str, dict[int, Run]]) -> Study:
    """Put together what :func:`measure` left in runs: name of the size to training seed to run."""
    people, costs = [], []
    for name, runs in by_size.items():
        for number, run in runs.items():
            record = run.require("scaling")
            is_scratch = run.require("language_model")["params"]["name"] == "scratch"
            facts = {"size": name, "parameters": record["metrics"]["parameters"],
                     "origin": "scratch" if is_scratch else "pretrained"}
            people.append(pd.read_csv(run.path / "scaling" / "sums.csv", dtype=str).assign(**facts, seed=number))
            costs.append({**facts, "seed": number, **record["metrics"]})
        if len(runs) > 1:
            answers = [pd.read_csv(run.path / "scaling" / "answers.csv", dtype={"subject": str})
                       for run in runs.values()]
            found = seed_sums(name, answers, len(record["facts"]["labels"]))
            people.append(found.assign(**facts, seed=next(iter(runs))))
    return Study(pd.concat(people, ignore_index=True)[list(PEOPLE)], pd.DataFrame(costs), {})
