"""TODO purpose of app.evaluation_stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from ..core.files import data_fingerprint
from ..data.audit import NOTHING_FOUND, Finding, audit, reached_by_shortcuts, stamp
from ..data.dataset import Corpus
from ..data.normalization import ALIGNMENTS
from ..data.splits import accepted_rules
from ..evaluation.baselines import EEGNET, LOGISTIC, PROBE, SVM, Recipe, distinct, fit_baseline, oracle
from ..evaluation.control_models import language_model, stage_1_head
from ..evaluation.controls import Role, battery, shuffled, with_mean_token, with_random_projector, without_eeg
from ..evaluation.shortcuts import PROBES, neighbour_worth, probe, session_worth
from ..evaluation.statistics import calibration
from ..evaluation.tiers import BASELINES, BEST_PROBE, RAW_BASELINE, ablation_rows, comparisons, samples, tier_1_row, tiers_2_and_3
from ..models.inference import InferenceEngine, closed_set, generate
from ..models.modeling import E2LLMForConditionalGeneration
from ..tasks.items import parse_answer, prediction_items, read_items
from ..training.augmentation import AugmentedWindows, fit_evidence_probe
from ..training.stage2_alignment import alignment_items, train_projector
from ..training.stage3_instruction import AdapterParams, instruction_items, replay_items, train_adapter
from ..training.trainer import FitParams, encode_rows
from .runs import Run
from .stages import (
    DEFAULTS,
    frozen_encoder,
    items_per_kind,
    load_encoder,
    load_evidence_probe,
    load_tokens,
    open_aligned,
    open_dataset,
    open_instructed,
    open_language,
)


def head_answers(run: Run, rows: np.ndarray) -> np.ndarray:
    """Class indices that the stage-1 head gives to windows."""
    with np.load(run.path / "encoder" / "answers.npz") as stored:
        place = {int(row): i for i, row in enumerate(stored["rows"])}
        return stored["logits"][[place[int(row)] for row in rows]].argmax(axis=1)


class Tier1(NamedTuple):
    """Basic prediction."""

    table: pd.DataFrame  # score, intervals, chance and further metrics of each model
    tests: pd.DataFrame  # paired tests of the other models against the language model
    predictions: pd.DataFrame  # one row a test window
    said: dict  # free text after a thought: parse rate, texts, labels read, items


def tier_1(run: Run, corpus: Corpus, engine: InferenceEngine, truth: Path | None, recipes: Sequence[Recipe], seed: int) -> Tier1:
    """Basic prediction: the model, its controls, the stage-1 head, the baselines and, on a twin, the oracle."""
    test, labels = corpus.split.test, list(corpus.label_set.labels)
    items = prediction_items(corpus, test, seed)
    index = corpus.windows.index.iloc[test]
    predicted_evidence = closed_set(engine, items)
    answers = {"LLM": predicted_evidence.argmax(axis=1),
               "LLM, shuffled EEG": closed_set(shuffled(engine, corpus.windows.index, test, seed + 1), items).argmax(axis=1),
               "LLM, no EEG": closed_set(engine, without_eeg(items)).argmax(axis=1),
               "stage-1 head": head_answers(run, test)}
    encoder, recipes = frozen_encoder(run, corpus), distinct(recipes, corpus.split)
    for recipe in recipes:
        answers[recipe.name] = fit_baseline(recipe, corpus, corpus.split, encoder).rows(test)
    texts = generate(engine, items)
    parsed = [parse_answer(text, labels) for text in texts]
    answers["LLM, free text"] = np.array([labels.index(a) if a is not None else -1 for a in parsed])
    if truth is not None:
        answers["oracle"] = oracle(truth, index["subject"], index["clip"], index["window"])
    roles = {"oracle": Role.ORACLE, **{recipe.name: Role.BASELINE for recipe in recipes}, "stage-1 head": Role.MODEL, "LLM": Role.MODEL,
             "LLM, free text": Role.MODEL, "LLM, shuffled EEG": Role.CONTROL, "LLM, no EEG": Role.CONTROL}
    order = [name for name in roles if name in answers]
    table = pd.DataFrame([tier_1_row(corpus, name, answers[name], roles[name]) for name in order])
    predictions = index[["id", "subject", "session", "clip", "window", "label"]].reset_index(drop=True)
    for name, given in answers.items():
        predictions[name] = [labels[i] if i >= 0 else "" for i in given]
    for i, label in enumerate(labels):
        predictions[f"p({label})"] = predicted_evidence[:, i]
    said = {"parse_rate": float(np.mean([a is not None for a in parsed])), "texts": texts, "parsed": parsed, "items": items}
    return Tier1(table, comparisons(corpus, {name: answers[name] for name in order}), predictions, said)


def train_ablation(run_name: str, ablated: str, n_items: int, seed: int, folder: Path) -> list[dict]:
    """Train and score one ablated variant; a process of its own, so that two run at a time."""
    torch.set_num_threads(1)
    run = Run.open(run_name)
    corpus = open_dataset(run)
    folder = folder / ablated.replace(" ", "_")
    stage_2, stage_3 = (run.require(name)["params"] for name in ("projector", "adapter"))
    fit_2, fit_3 = FitParams(**stage_2["fit"]), FitParams(**stage_3["fit"])
    (tokens, position), evidence_probe, slots = load_tokens(run), load_evidence_probe(run), stage_2["evidence_slots"]
    if ablated == "without stage 1":
        encoder = frozen_encoder(run, corpus)
        folder.mkdir(parents=True, exist_ok=True)
        tokens = encode_rows(encoder, corpus.windows.data, corpus.equalise, corpus.norm_groups, corpus.split.used, folder / "tokens.npy")
        evidence_probe = fit_evidence_probe(encoder, AugmentedWindows.draw(corpus, corpus.split.train, fit_2.seed), tokens, corpus.split.used)
        predicted_evidence = np.full_like(corpus.predicted_evidence, np.nan)
        predicted_evidence[corpus.split.used] = evidence_probe(tokens)
        corpus = replace(corpus, predicted_evidence=predicted_evidence)  # thoughts cite what this encoder hears, not what the trained one would
    model, processor = open_aligned(run)
    if ablated == "without stage 1":
        language, tokenizer, source = open_language(run)
        items = alignment_items(corpus, "train", stage_2["n_items"], fit_2.seed)
        model, _ = train_projector(language, tokenizer, source, items, tokens, position, stage_2["eeg_tokens"], stage_2["noise"], fit_2,
                                   folder / "projector", None, evidence_probe, slots)
    elif ablated == "without stage 2":
        language, tokenizer, source = open_language(run)
        model = E2LLMForConditionalGeneration.join(language, tokenizer, source, None, tokens.shape[-1], stage_2["eeg_tokens"], fit_2.seed,
                                                   evidence_probe, slots)
    if ablated != "without stage 3":
        items = instruction_items(corpus, "train", items_per_kind(run), fit_3.seed) + replay_items(corpus, stage_3["replay"], fit_3.seed)
        peft, _ = train_adapter(model, processor, items, tokens, position, AdapterParams(**stage_3["adapter"]), fit_3, folder / "adapter")
        model = peft.merge_and_unload()
    engine = InferenceEngine(model.eval(), processor, tokens, position)
    return ablation_rows(ablated, corpus, engine, n_items, seed)


def ablation(run: Run, corpus: Corpus, engine: InferenceEngine, n_items: int, seed: int, folder: Path,
             n_jobs: int = 2) -> pd.DataFrame:
    """The full model beside variants that lack one stage, everything else equal; checkpoints are kept in ``folder``."""
    ablations = ("without stage 1", "without stage 2", "without stage 3")
    rows = Parallel(n_jobs=n_jobs)(delayed(train_ablation)(run.name, ablated, n_items, seed, folder) for ablated in ablations)
    return pd.DataFrame([*ablation_rows("all stages", corpus, engine, n_items, seed), *(row for ablated in rows for row in ablated)])


def examine(run: Run, corpus: Corpus) -> list[Finding]:
    """Audit everything that is known of how the models of a run came about; see :func:`e2llm.data.audit.audit`."""
    protocol = run.require("encoder")["params"]["protocol"]
    items = [item for stage in ("projector", "adapter") for item in read_items(run.path / stage / "items.jsonl")]
    return audit(corpus.split, corpus.windows.index, accept=accepted_rules(protocol["protocol"], protocol.get("accept_leaks", False)),
                 power=np.asarray(corpus.windows.power), items=items, neighbour_worth=neighbour_worth(corpus.windows.index, corpus.split),
                 session_worth=session_worth(corpus.windows.index, corpus.split))


def evaluate(run: Run, corpus: Corpus, truth: Path | None = None, n_items: int = DEFAULTS.test_items,
             with_ablation: bool = DEFAULTS.ablation, with_eegnet: bool = DEFAULTS.eegnet,
             seed: int = DEFAULTS.seed) -> dict[str, pd.DataFrame]:
    """The whole evaluation of a run; writes ``metrics.json`` and ``predictions.csv``.

    Parameters
    ----------
    run : Run
        With all stages finished.
    truth : Path or None
        Ground-truth folder of a twin, for the oracle.
    n_items : int
        Items of each kind of tiers 2 and 3.
    with_ablation : bool
        Also train the variants that lack a stage.
    with_eegnet : bool
        Also train EEGNet on the raw windows.

    Returns
    -------
    dict of DataFrame
        ``tier_1``, ``tests``, ``shortcuts``, ``tiers_2_and_3`` and, if asked for, ``ablation``.
    """
    recipes = (*BASELINES, RAW_BASELINE) if with_eegnet else BASELINES
    settings = {"n_items": n_items, "ablation": with_ablation, "baselines": [recipe.name for recipe in recipes],
                "oracle": truth is not None, "probes": list(PROBES), "seed": seed}
    inputs = {} if truth is None else {"truth": data_fingerprint(truth)}
    stage = run.stage("evaluation", settings, needs=("encoder", "adapter"), inputs=inputs)
    if not stage.done:
        stage.begin()
        findings = examine(run, corpus)
        model, processor = open_instructed(run)
        engine = InferenceEngine(model, processor, *load_tokens(run))
        first, tests, predictions, said = tier_1(run, corpus, engine, truth, recipes, seed)
        others, examples = tiers_2_and_3(corpus, engine, n_items, seed)
        shortcuts = probe(corpus.windows.index, corpus.split, seed)
        findings += reached_by_shortcuts(first[first["role"] == Role.MODEL], shortcuts)
        tables = {"tier_1": first.assign(**{BEST_PROBE: shortcuts["score"].max()}), "tests": tests, "shortcuts": shortcuts, "tiers_2_and_3": others}
        if with_ablation:
            tables["ablation"] = ablation(run, corpus, engine, n_items, seed, stage.path / "checkpoints")
        for name, table in tables.items():
            table.to_csv(stage.path / f"{name}.csv", index=False)
        predictions.to_csv(stage.path / "predictions.csv", index=False)
        predicted_evidence = predictions[[f"p({label})" for label in corpus.label_set.labels]].to_numpy()
        sure = calibration(predicted_evidence, corpus.labels[corpus.split.test])
        stage.finish({"parse_rate": said["parse_rate"], "calibration": sure, "samples": samples(said, examples)},
                     audit=[str(finding) for finding in findings] or [NOTHING_FOUND], stamp=stamp(findings))
    return publish(run, corpus)


def publish(run: Run, corpus: Corpus) -> dict[str, pd.DataFrame]:
    """Write what people read of a finished evaluation: ``metrics.json`` and ``predictions.csv``; return its tables."""
    record = run.require("evaluation")
    folder = run.path / "evaluation"
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv")) if path.stem != "predictions"}
    split, sure = corpus.split, record["metrics"]["calibration"]
    facts = {"label set": corpus.label_set.name, "protocol": split.protocol, "what is unseen": split.statement, "normalisation": split.normalisation,
             "transductive": split.transductive, "audit": record["facts"]["audit"], "stamp": record["facts"]["stamp"],
             "calibration of the label probabilities": ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in sure.items()),
             "train windows": len(split.train), "val windows": len(split.val),
             "test windows": len(split.test), "test subjects": len(np.unique(corpus.subjects[split.test]))}
    run.write_predictions(pd.read_csv(folder / "predictions.csv", dtype={"subject": str}))
    run.write_metrics({"facts": facts, **{key: record["metrics"][key] for key in ("parse_rate", "calibration", "samples")},
                       "tables": {name: table.to_dict("records") for name, table in tables.items()}})
    return tables


def closed_set_answers(run: Run, corpus: Corpus) -> np.ndarray:
    """Class indices that the language model of a finished evaluation gave to the test windows."""
    run.require("evaluation")
    given = pd.read_csv(run.path / "evaluation" / "predictions.csv")["LLM"]
    return np.array([corpus.label_set.index(label) for label in given])


RECIPES = (*(Recipe(model, alignment) for model in (LOGISTIC, SVM) for alignment in ALIGNMENTS), Recipe(PROBE), Recipe(EEGNET, "z-score"))


def baselines(run: Run, corpus: Corpus, recipes: Sequence[Recipe] = RECIPES, tell: Callable[..., None] | None = None) -> pd.DataFrame:
    """Baselines under the split of a run, each with its alignment; rows of the tier-1 table.

    Parameters
    ----------
    run, corpus : Run, Corpus
        Of a run whose stage 1 is finished: the probed encoder is the one it started from.
    recipes : sequence of Recipe
        Which; all alignments of the classic ones, and EEGNet z-scored, by default.
    tell : callable, optional
        ``tell(step)`` after each.
    """
    rows, encoder = [], frozen_encoder(run, corpus)
    for step, recipe in enumerate(distinct(recipes, corpus.split), 1):
        answers = fit_baseline(recipe, corpus, corpus.split, encoder).rows(corpus.split.test)
        rows.append(tier_1_row(corpus, recipe.name, answers, Role.BASELINE))
        if tell is not None:
            tell(step)
    return pd.DataFrame(rows)


def control_battery(run: Run, corpus: Corpus, seed: int = 0) -> pd.DataFrame:
    """Linear baseline, stage-1 head and language model of a finished run under every control; see :func:`e2llm.evaluation.controls.battery`."""
    model, (language, processor) = load_encoder(run, corpus), open_instructed(run)
    engine = InferenceEngine(language, processor, *load_tokens(run))
    test, items = corpus.split.test, prediction_items(corpus, corpus.split.test, seed)
    within = {"no EEG": closed_set(engine, without_eeg(items)),
              "mean token": closed_set(with_mean_token(engine, corpus.split.train.tolist()), items),
              "random projector": closed_set(with_random_projector(engine, seed), items)}
    recipe = Recipe(LOGISTIC, "z-score")
    models = {recipe.name: fit_baseline(recipe, corpus, corpus.split), "stage-1 head": stage_1_head(model, corpus),
              "LLM": language_model(engine, model, corpus, seed)}
    more = {"LLM": {name: scores.argmax(axis=1) for name, scores in within.items()}}
    return battery(models, np.array(corpus.windows.data[test]), corpus.labels[test], corpus.subjects[test],
                   corpus.windows.index["clip"].to_numpy()[test], len(corpus.label_set), more, seed, norm_groups=corpus.norm_groups[test])
