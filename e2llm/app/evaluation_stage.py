"""The stage ``evaluation``: load a finished run, have it evaluated, save the tables.

And what lessons 05 and 06 look at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config

from ..core.chat import END_THINK, Item
from ..core.claims import Claims
from ..core.environment import end_with_parent
from ..core.files import data_fingerprint
from ..core.tables import read_predictions, read_table
from ..data.audit import NOTHING_FOUND, Finding, audit, reached_by_shortcuts, stamp
from ..data.dataset import Corpus
from ..data.normalization import ALIGNMENTS
from ..data.simulation import WINDOW_S
from ..data.splits import accepted_rules
from ..evaluation import control_models
from ..evaluation.baselines import EEGNET, LOGISTIC, PROBE, SVM, FrozenTokens, Recipe, oracle
from ..evaluation.controls import EEGInput, Role
from ..evaluation.from_thought import SecondPass, ThoughtTables, examined, stated_in
from ..evaluation.metrics import calibration, crossed
from ..evaluation.shortcuts import PROBES, neighbor_worth, probe, session_worth
from ..evaluation.tiers import (
    BASELINES,
    BEST_PROBE,
    RAW_BASELINE,
    TIER_2,
    TIER_3,
    Answers,
    Example,
    Tier1,
    ablation_rows,
    answered,
    baseline_table,
    examination,
    questions,
    samples,
    tier_1,
)
from ..models.device import DevicePolicy, current_device, device_policy, set_policy
from ..models.inference import InferenceEngine
from ..tasks.items import OneSubjectBuilder, question_text, read_items
from ..training.trainer import FitParams
from .runs import Run
from .stages import (
    DEFAULTS,
    initial_encoder,
    items_per_kind,
    load_encoder,
    load_evidence_probe,
    load_tokens,
    open_aligned,
    open_dataset,
    open_instructed,
)

if TYPE_CHECKING:
    from ..evaluation.ablation import Ablation


def head_logits(run: Run, rows: np.ndarray) -> np.ndarray:
    """Logits of the stage-1 head, shape (n, n_classes).

    Parameters
    ----------
    run : Run
        With a finished stage 1.
    rows : ndarray of int, shape (n,)
        Windows of the split.
    """
    with np.load(run.path / "encoder" / "answers.npz") as stored:
        place = {int(row): i for i, row in enumerate(stored["rows"])}
        return stored["logits"][[place[int(row)] for row in rows]]


def head_answers(run: Run, rows: np.ndarray) -> np.ndarray:
    """Class indices from the stage-1 head.

    Parameters
    ----------
    run : Run
        With a finished stage 1.
    rows : ndarray of int, shape (n,)
        Windows of the split.
    """
    return head_logits(run, rows).argmax(axis=1)


def oracle_answers(truth: Path | None, corpus: Corpus) -> np.ndarray | None:
    """Class indices that the oracle gives to the test windows; None where it knows nothing.

    Parameters
    ----------
    truth : Path, optional
        Ground-truth folder of a twin. It tells nothing of windows that are longer than the twin keeps one state.
    corpus : Corpus
        Dataset.
    """
    if truth is None or corpus.windows.window_s > WINDOW_S:
        return None
    return oracle(truth, corpus.windows.index.iloc[corpus.split.test], corpus.windows.window_s)


def first_tokens(run: Run, corpus: Corpus) -> FrozenTokens:
    """Mean tokens by the encoder as it was before stage 1; those that stage 1 made already are read, not made again.

    Parameters
    ----------
    run, corpus : Run, Corpus
        With a finished stage 1.
    """
    encoder = initial_encoder(run, corpus)
    with np.load(run.path / "encoder" / "answers.npz") as stored:
        known = dict(zip(stored["rows"].tolist(), stored["before"], strict=True))
    return FrozenTokens(encoder, corpus.windows, corpus.split, known)


def open_engine(run: Run, stage: str = "adapter") -> InferenceEngine:
    """The model of a run after a stage that leaves an adapter, with the features of its windows.

    Parameters
    ----------
    run : Run
        With that stage finished.
    stage : str
        ``adapter`` or ``feedback``.
    """
    return InferenceEngine(*open_instructed(run, stage), *load_tokens(run))


def in_processes(work: Iterable, n_jobs: int) -> list:
    """Results of ``joblib.delayed`` calls, made one at a time in processes that do not outlive this one.

    They compute where this one does (:func:`e2llm.models.device.use_device`).

    Parameters
    ----------
    work : iterable
        Calls.
    n_jobs : int
        Number of processes; 1 makes them here.
    """
    with parallel_config("loky", n_jobs=n_jobs, initializer=_Beginning(os.getpid(), device_policy())):
        return Parallel(batch_size=1)(work)


@dataclass(frozen=True)
class _Beginning:
    """What a process does first. Those of the last call go on if theirs was equal, with the models that they loaded."""

    parent: int
    policy: DevicePolicy

    def __call__(self) -> None:
        end_with_parent(self.parent)
        set_policy(self.policy)


def _usual_processes() -> int:
    """Two with one thread each; one where a worker has no more, or where models would share a graphics card."""
    return min(2, torch.get_num_threads()) if current_device().type == "cpu" else 1


@lru_cache(maxsize=1)
def _opened(run: Run, _key: str) -> tuple[Corpus, InferenceEngine]:
    """Corpus and model of a run, loaded once in a process; ``_key`` of the stage, for the run may be trained again."""
    return open_dataset(run), open_engine(run)


def _tier_1(run: Run, key: str, recipes: tuple[Recipe, ...], seed: int, best: np.ndarray | None) -> Tier1:
    corpus, engine = _opened(run, key)
    return tier_1(corpus, engine, head_answers(run, corpus.split.test), first_tokens(run, corpus), recipes, seed, best)


def _answered(run: Run, key: str, drawn: list, source: EEGInput, seed: int) -> Answers:
    return answered(*_opened(run, key), drawn, source, seed)


def _three_tiers(run: Run, corpus: Corpus, recipes: tuple[Recipe, ...], best: np.ndarray | None, n_items: int,
                 item_seeds: int, seed: int, n_jobs: int
                 ) -> tuple[Tier1, dict[str, list[list[Item]]], dict[tuple[str, EEGInput], Answers]]:
    """Tier 1, then items of the other tiers and all answers to them.

    In pieces of which none waits for another: a process has the model, and one thread.
    """
    asked, key = questions(corpus, n_items, item_seeds, seed), run.require("adapter")["key"]
    pieces = [(kind, source) for kind in asked for source in EEGInput]
    work: list[Any] = [delayed(_tier_1)(run, key, recipes, seed, best),
                       *(delayed(_answered)(run, key, asked[kind], source, seed) for kind, source in pieces)]
    first, *given = in_processes(work, n_jobs)
    return first, asked, dict(zip(pieces, given, strict=True))


@lru_cache(maxsize=1)
def _second_pass(run: Run, key: str, _second: str) -> SecondPass:
    """Its language models, loaded once in a process; ``_second`` is the key of its own stage."""
    from .second_pass_stage import open_second_pass

    return open_second_pass(run, *_opened(run, key))


def _forget_models() -> None:
    """Free what this process loaded, where it answers itself."""
    _second_pass.cache_clear()
    _opened.cache_clear()


def _best(run: Run, keys: tuple[str, str], claims: Sequence[Claims]) -> np.ndarray:
    return _second_pass(run, *keys).shares(claims).argmax(axis=1)


def _from_thought(run: Run, keys: tuple[str, str], items: list[Item], claims: dict[int, Claims]) -> Answers:
    return _second_pass(run, *keys).answers(items, claims)


def _three_tiers_from_thought(run: Run, corpus: Corpus, first: Tier1, asked: dict[str, list[list[Item]]],
                              given: dict[tuple[str, EEGInput], Answers], seed: int, n_jobs: int) -> ThoughtTables:
    """All tiers once more, from the thoughts of the first one; in pieces like :func:`_three_tiers`."""
    from .second_pass_stage import claims_of

    keys = run.require("adapter")["key"], run.require("second_pass")["key"]
    claims = claims_of(corpus, [item.windows[0] for item in first.items], first.answers.texts)
    items = {kind: [item for part in drawn for item in part] for kind, drawn in asked.items()}
    stated = stated_in(corpus, claims, seed)
    work = [*(delayed(_from_thought)(run, keys, items[kind], claims) for kind in asked),
            *(delayed(_best)(run, keys, each) for each in stated.values())]
    found = in_processes(work, n_jobs)
    thought, best = found[: len(asked)], found[len(asked) :]
    return examined(corpus, dict(zip(stated, best, strict=True)), first, asked,
                    {kind: given[kind, EEGInput.EEG] for kind in asked}, dict(zip(asked, thought, strict=True)), seed)


def _train_ablation(run_name: str, ablation: Ablation, n_items: int, item_seeds: int, seed: int,
                    folder: Path) -> list[dict]:
    """One ablation in a process of its own, so that two run at a time."""
    from ..evaluation.ablation import Parts, Schedule, train_ablation
    from ..training.stage3_instruction import AdapterParams

    torch.set_num_threads(1)
    run = Run.open(run_name)
    corpus = open_dataset(run)
    stage_2, stage_3 = (run.require(name)["params"] for name in ("projector", "adapter"))
    schedule = Schedule(stage_2["eeg_tokens"], stage_2["evidence_slots"], stage_2["n_items"], stage_2["noise"],
                        FitParams(**stage_2["fit"]), items_per_kind(run), stage_3["replay"],
                        AdapterParams(**stage_3["adapter"]), FitParams(**stage_3["fit"]))
    aligned, processor = open_aligned(run)
    parts = Parts(initial_encoder(run, corpus), *load_tokens(run), load_evidence_probe(run), aligned, processor,
                  (aligned.language_model, processor.tokenizer, aligned.config.language_model))
    return train_ablation(ablation, corpus, parts, schedule, n_items, item_seeds, seed,
                          folder / ablation.replace(" ", "_"))


def _ablation_table(run: Run, corpus: Corpus, n_items: int, item_seeds: int, seed: int, folder: Path) -> pd.DataFrame:
    """The full model and the same model without one of its stages, everything else equal."""
    from ..evaluation.ablation import ALL_STAGES, Ablation

    work = (delayed(_train_ablation)(run.name, ablation, n_items, item_seeds, seed, folder) for ablation in Ablation)
    rows = ablation_rows(ALL_STAGES, corpus, open_engine(run), n_items, item_seeds, seed)
    return pd.DataFrame([*rows, *(row for found in in_processes(work, _usual_processes()) for row in found)])


def _examine(run: Run, corpus: Corpus) -> list[Finding]:
    """Audit everything that is known of how the models of a run were made; see :func:`e2llm.data.audit.audit`."""
    settings = run.require("encoder")["params"]["protocol"]
    items = [item for stage in ("projector", "adapter") for item in read_items(run.path / stage / "items.jsonl")]
    return audit(corpus.split, corpus.windows.index, accept=accepted_rules(settings["protocol"],
                                                                           settings.get("accept_leaks", False)),
                 window_s=corpus.windows.window_s, power=np.asarray(corpus.windows.power), items=items,
                 neighbor_worth=neighbor_worth(corpus.windows.index, corpus.split),
                 session_worth=session_worth(corpus.windows.index, corpus.split))


def explained_samples(corpus: Corpus, first: Tier1, examples: dict[str, Example]) -> list[dict]:
    """The samples for people to read, each with whether it is right, and its thought in pieces with verdicts.

    Parameters
    ----------
    corpus : Corpus
        The dataset, for the measured evidence.
    first, examples
        As for :func:`e2llm.evaluation.tiers.samples`.
    """
    from ..viz.answer_view import pieces  # here: it loads matplotlib

    chosen = samples(first, examples)
    left, asked = list(zip(first.items, first.answers.texts, first.answers.parsed, strict=True)), []
    for sample in chosen[: len(chosen) - len(examples)]:
        # Answers that are equal in all three were chosen in the order of their items.
        place = next(i for i, (item, text, _) in enumerate(left) if (question_text(item), text, item.answer) ==
                     (sample["question"], sample["answer"], sample["truth"]))
        item, _, given = left.pop(place)
        asked.append((item, given))
    asked += [(example.item, example.chosen) for example in examples.values()]
    found = []
    for sample, (item, given) in zip(chosen, asked, strict=True):
        thought, end, _ = sample["answer"].partition(END_THINK)
        parts = pieces(thought, corpus.label_set.labels, corpus.z[item.windows], corpus.evidence_names) if end else ()
        claims = [{"text": part.text, "marks": [[str(verdict), why] for verdict, why in part.marks]} for part in parts]
        found.append({**sample, "right": given == item.answer, "claims": claims})
    return found


def evaluate(run: Run, corpus: Corpus, truth: Path | None = None, n_items: int = DEFAULTS.test_items,
             item_seeds: int = DEFAULTS.item_seeds, with_ablation: bool = DEFAULTS.ablation,
             with_eegnet: bool = DEFAULTS.eegnet, seed: int = DEFAULTS.seed, n_jobs: int | None = None,
             answer_from: str = DEFAULTS.answer_from) -> dict[str, pd.DataFrame]:
    """The whole evaluation of a run; writes ``metrics.json`` and ``predictions.csv``.

    Parameters
    ----------
    run, corpus : Run, Corpus
        With all training stages finished.
    truth : Path, optional
        Ground-truth folder of a twin, for the oracle.
    n_items, item_seeds : int
        Items of each kind of tiers 2 and 3, all item seeds together, and number of these seeds.
    with_ablation : bool
        Also train the variants that lack a stage.
    with_eegnet : bool
        Also train EEGNet on the raw windows.
    seed : int
        Of questions, controls and intervals.
    n_jobs : int, optional
        Processes that answer, each with the model; the answers are the same. Default: two, and one where this process
        may use one thread only, as in a sweep, or where there is a graphics card, whose memory the models would share.
    answer_from : str
        "eeg", or "thought": also answers from the thought alone, where the stage ``second_pass`` is finished.

    Returns
    -------
    dict of DataFrame
        ``tier_1``, ``tests``, ``shortcuts``, ``tiers_2_and_3``, ``item_seeds``; ``strata`` if there are zero-shot
        scenarios, ``ablation`` if asked for; ``from_thought`` and ``price`` with answers from the thought.
    """
    recipes = (*BASELINES, RAW_BASELINE) if with_eegnet else BASELINES
    settings = {"n_items": n_items, "item_seeds": item_seeds, "ablation": with_ablation,
                "baselines": [recipe.name for recipe in recipes], "oracle": truth is not None,
                "probes": list(PROBES), "seed": seed}
    inputs = {} if truth is None else {"truth": data_fingerprint(truth)}
    needs = ("encoder", "adapter", *(("second_pass",) if answer_from == "thought" else ()))
    stage = run.stage("evaluation", settings, needs=needs, inputs=inputs)
    if not stage.done:
        stage.begin()
        findings, n_jobs = _examine(run, corpus), n_jobs or _usual_processes()
        first, asked, given = _three_tiers(run, corpus, recipes, oracle_answers(truth, corpus), n_items, item_seeds,
                                           seed, n_jobs)
        others = examination(corpus, asked, given, seed)
        shortcuts = probe(corpus.windows.index, corpus.split, seed)
        findings += reached_by_shortcuts(first.table[first.table["role"] == Role.MODEL], shortcuts)
        tables = {"tier_1": first.table.assign(**{BEST_PROBE: shortcuts["score"].max()}), "tests": first.tests,
                  "shortcuts": shortcuts, "tiers_2_and_3": others.scores, "item_seeds": others.item_seeds}
        if len(others.strata):
            tables["strata"] = others.strata
        predictions = first.predictions
        if answer_from == "thought":
            found = _three_tiers_from_thought(run, corpus, first, asked, given, seed, n_jobs)
            tables |= {"from_thought": found.scores, "price": found.price}
            predictions = replace(predictions, answers=predictions.answers | found.answers)
        _forget_models()  # what comes next loads a model of its own
        if with_ablation:
            tables["ablation"] = _ablation_table(run, corpus, n_items, item_seeds, seed, stage.path / "checkpoints")
        for name, table in tables.items():
            table.to_csv(stage.path / f"{name}.csv", index=False)
        predictions.table().to_csv(stage.path / "predictions.csv", index=False)
        truths = corpus.labels[corpus.split.test]
        scores = {"parse_rate": first.answers.parse_rate, "samples": explained_samples(corpus, first, others.examples),
                 "calibration": calibration(first.predictions.probabilities, truths)}
        more = {}
        if lacking := [kind for kind in (*TIER_2, *TIER_3) if kind not in asked]:
            reasons = OneSubjectBuilder.of_test(corpus, seed).left_out()
            more["left_out"] = {kind: reasons[kind] for kind in lacking}
        stage.finish(scores, audit=[str(finding) for finding in findings] or [NOTHING_FOUND], stamp=stamp(findings),
                     **more)
    return publish(run, corpus)


def publish(run: Run, corpus: Corpus) -> dict[str, pd.DataFrame]:
    """Write ``metrics.json`` and ``predictions.csv`` of a finished evaluation; return its tables.

    Parameters
    ----------
    run, corpus : Run, Corpus
        With the stage ``evaluation`` finished.
    """
    record = run.require("evaluation")
    folder = run.path / "evaluation"
    tables = {path.stem: read_table(path) for path in sorted(folder.glob("*.csv")) if path.stem != "predictions"}
    split, calibrated = corpus.split, record["metrics"]["calibration"]
    facts = {"label set": corpus.label_set.name, "protocol": split.protocol, "what is unseen": split.statement,
             "normalization": split.normalization,
             "transductive": split.transductive, "audit": record["facts"]["audit"], "stamp": record["facts"]["stamp"],
             "calibration of the label probabilities":
                 ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in calibrated.items()),
             "train windows": len(split.train), "val windows": len(split.val),
             "test windows": len(split.test), "test subjects": len(np.unique(corpus.subjects[split.test]))}
    if left_out := record["facts"].get("left_out"):
        facts["tasks left out"] = "; ".join(f"{kind}: {reason}" for kind, reason in left_out.items())
    if not crossed(corpus.subjects[split.test], corpus.windows.index["clip"].to_numpy()[split.test]):
        facts["clips"] = "no two test people share a clip, so no score has an interval over people and clips"
    run.write_predictions(read_predictions(folder / "predictions.csv"))
    run.write_metrics({"facts": facts, **{key: record["metrics"][key]
                                          for key in ("parse_rate", "calibration", "samples")},
                       "tables": {name: table.to_dict("records") for name, table in tables.items()}})
    return tables


def closed_set_answers(run: Run, corpus: Corpus) -> np.ndarray:
    """Class indices that the language model of a finished evaluation gave to the test windows.

    Parameters
    ----------
    run, corpus : Run, Corpus
        With the stage ``evaluation`` finished.
    """
    run.require("evaluation")
    given = read_predictions(run.path / "evaluation" / "predictions.csv")["LLM"]
    return np.array([corpus.label_set.index(label) for label in given])


RECIPES = (*(Recipe(model, alignment) for model in (LOGISTIC, SVM) for alignment in ALIGNMENTS), Recipe(PROBE),
           Recipe(EEGNET, "z-score"))


def baselines(run: Run, corpus: Corpus, eegnet_steps: int = DEFAULTS.eegnet_steps,
              on_step: Callable[..., None] | None = None) -> pd.DataFrame:
    """Baselines (:data:`RECIPES`) under the split of a run; rows of the tier-1 table.

    Parameters
    ----------
    run, corpus : Run, Corpus
        Of a run whose stage 1 is finished: the probed encoder is the one it started from.
    eegnet_steps : int
        Optimizer steps of EEGNet.
    on_step : callable, optional
        ``on_step(step)`` after each.
    """
    recipes = [replace(recipe, steps=eegnet_steps) for recipe in RECIPES]
    return baseline_table(corpus, first_tokens(run, corpus), recipes, on_step)


def control_battery(run: Run, corpus: Corpus, seed: int = 0) -> pd.DataFrame:
    """Models of a finished run under every control; see :func:`e2llm.evaluation.control_models.control_battery`.

    Parameters
    ----------
    run, corpus : Run, Corpus
        With all training stages finished.
    seed : int
        Of questions, controls and intervals.
    """
    return control_models.control_battery(corpus, open_engine(run), load_encoder(run, corpus), seed)
