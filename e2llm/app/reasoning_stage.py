"""The stages ``feedback`` and ``reasoning`` of lesson 07: load, evaluate the explanations of a run, save the tables."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import PeftModel

from ..core.files import replacing
from ..core.tables import read_table
from ..data import band_edits
from ..data.dataset import Corpus
from ..evaluation import counterfactual, reasoning
from ..evaluation.attribution import Scorer, attribution_tables, head_score, language_score
from ..evaluation.controls import EEGInput, shuffled
from ..evaluation.from_thought import FROM_THOUGHT, model_name
from ..evaluation.reasoning import evidence_rule, generate_explanations
from ..evaluation.thought_causes import answers_to_edits, causes_from_thought, foretold_answers
from ..models.inference import InferenceEngine, sample
from ..tasks.items import prediction_items, read_items, write_items
from ..training.feedback import FeedbackParams, judged, kept_items
from ..training.stage3_instruction import AdapterParams, fit_adapter, quiet_peft
from ..training.trainer import FitParams, examples_of
from .evaluation_stage import open_engine
from .runs import Progress, Run, Stage
from .second_pass_stage import open_second_pass
from .stages import load_encoder, load_tokens, open_aligned, open_instructed


def reinforce(run: Run, corpus: Corpus, feedback: FeedbackParams, params: FitParams) -> Stage:
    """One round of feedback on the model after stage 3; leaves another adapter in the stage ``feedback``.

    Parameters
    ----------
    run, corpus : Run and Corpus
        With all stages up to ``adapter`` finished.
    feedback, params : FeedbackParams and FitParams
        What is sampled and kept; and the schedule.

    Raises
    ------
    ValueError
        If nothing that was sampled can be kept.
    """
    stage = run.stage("feedback", {"feedback": asdict(feedback), "fit": asdict(params)}, needs=("adapter",))
    if stage.done:
        return stage
    stage.begin()
    engine, items = open_engine(run), prediction_items(corpus, corpus.split.train, params.seed)
    chains = sample(engine, items, feedback.samples, feedback.temperature, params.seed)
    table, processor = judged(corpus, items, chains), engine.processor
    kept = kept_items(items, table)
    if not kept:
        raise ValueError(f"None of {len(table)} sampled chains is true and ends in the true label: train stage 3 "
                         "longer first.")
    del engine  # one language model in memory: the training loads it anew
    write_items(kept, stage.path / "items.jsonl")
    old = read_items(run.path / "adapter" / "items.jsonl")
    chosen = np.random.default_rng(params.seed).permutation(len(old))[: feedback.replay]
    examples = examples_of(kept, processor, 1.0, params.seed)
    examples += examples_of([old[i] for i in chosen], processor, 0.5, params.seed)
    with Progress(run, params.steps, "feedback") as progress:
        peft, history = _train_on(run, examples, params, stage, progress.update)
    peft.save_pretrained(stage.path / "lora")
    history.to_csv(stage.path / "history.csv", index=False)
    times = table["times"]
    claims_true = float((table["true_claims"] * times).sum() / max(1, (table["claims"] * times).sum()))
    stage.finish({"sampled": int(times.sum()), "answers_true": float(np.average(table["answer_true"], weights=times)),
                  "claims_true": claims_true, "kept": len(kept),
                  "windows_kept": int(table.loc[table["kept"], "item"].nunique()), "windows": len(items)})
    return stage


def _train_on(run: Run, examples: list[dict], params: FitParams, stage: Stage, on_step):
    """The adapter of stage 3, trained on."""
    model, processor = open_aligned(run)
    stored = AdapterParams(**run.require("adapter")["params"]["adapter"])
    torch.manual_seed(params.seed)
    with quiet_peft():
        peft = PeftModel.from_pretrained(model, str(run.path / "adapter" / "lora"), is_trainable=True,
                                         torch_device=str(model.device))
    return peft, fit_adapter(peft, processor, examples, *load_tokens(run), stored, params, stage.path / "checkpoints",
                             on_step)


def scorers_of(run: Run, corpus: Corpus, seed: int = 0, engine: InferenceEngine | None = None) -> dict[str, Scorer]:
    """Stage-1 head and language model of a finished run, both normalized over the labels, in the label set's order.

    Parameters
    ----------
    run, corpus : Run and Corpus
        With all stages up to ``adapter`` finished. The scorers take ``corpus.equalize(signals, normalization groups)``.
    seed : int
        Draws the wording of the tier-1 question.
    engine : InferenceEngine, optional
        Its language model, if it is open already.
    """
    model = load_encoder(run, corpus)
    language, processor = (engine.model, engine.processor) if engine is not None else open_instructed(run)
    question = prediction_items(corpus, corpus.split.test[:1], seed)[0]
    return {"stage-1 head": head_score(model),
            "LLM": language_score(language, processor, model.encoder, question, closed=True)}


TABLES = ("claims", "features", "explanations", "interventions", "capacity", "causes", "dose", "simulatability",
          "counterfactuals", "edits", "agreement", "areas", "curves", "feedback")
READER_WINDOWS = 300  # training windows at the most, to whose answers a reader of the claims is fitted
FROM_THOUGHT_TABLES = ("followed",)  # only with answers from the thought
# How far edits move a feature, z; from 3.5 on texts that are always right name all
TARGETS = (3.5, band_edits.TARGET_Z)


@dataclass(frozen=True)
class ReasoningParams:
    """Sizes of a reasoning evaluation.

    Parameters
    ----------
    windows_a_label : int
        Test windows of each label that are attributed.
    seed : int
        Of questions, edits and what is drawn.
    is_twin : bool
        Whether the generator's table is known.
    answer_from : str
        "eeg", or "thought": also answers of the second pass.
    """

    windows_a_label: int = 12
    seed: int = 0
    is_twin: bool = True
    answer_from: str = "eeg"


@dataclass(frozen=True)
class ReasoningTables:
    """A finished reasoning evaluation; attribution ``maps`` have the shape (n_labels, n_bands, n_channels)."""

    tables: dict[str, pd.DataFrame]
    maps: np.ndarray
    labels: list[str]
    facts: dict
    examples: dict[str, list[dict]]


def evaluate_reasoning(run: Run, corpus: Corpus, params: ReasoningParams, feedback: FeedbackParams,
                       fit: FitParams) -> ReasoningTables:
    """Let the model explain every test window, compare the explanations with the signal, and see what feedback changes.

    Parameters
    ----------
    run, corpus : Run and Corpus
        With all stages up to ``adapter`` finished.
    params : ReasoningParams
        Sizes.
    feedback, fit : FeedbackParams and FitParams
        Of the round of feedback, which is made first if it is not there.
    """
    reinforce(run, corpus, feedback, fit)
    second = ("second_pass",) if params.answer_from == "thought" else ()
    stage = run.stage("reasoning", asdict(params), needs=("adapter", "feedback", *second))
    if not stage.done:
        stage.begin()
        _make(run, corpus, params, stage)
    return open_reasoning(run)


def _make(run: Run, corpus: Corpus, params: ReasoningParams, stage: Stage) -> None:
    rows, seed, engine = corpus.split.test, params.seed, open_engine(run)
    items = prediction_items(corpus, rows, seed)
    explanations = generate_explanations(engine, corpus, items)
    control = generate_explanations(shuffled(engine, corpus.windows.index, rows, seed + 1), corpus, items)
    changed, meaning = reasoning.interventions(engine, corpus, explanations, seed)
    causes = reasoning.causes(engine, corpus, explanations, seed)
    encoder = load_encoder(run, corpus).encoder
    edits = {target: reasoning.counterfactuals(engine, corpus, explanations, rows, encoder, seed, target)
             for target in TARGETS}
    train = corpus.split.train[:: -(-len(corpus.split.train) // READER_WINDOWS)]
    training = generate_explanations(engine, corpus, prediction_items(corpus, train, seed))
    from_thought, followed, second = {}, pd.DataFrame(), None
    if params.answer_from == "thought":
        second = open_second_pass(run, corpus, engine)
        from_thought = {model_name(FROM_THOUGHT): causes_from_thought(second, corpus, explanations, seed)}
        followed = answers_to_edits(engine, second, corpus, explanations, rows, encoder, evidence_rule(corpus), seed)
    foretold = foretold_answers(second, corpus, training, explanations, seed)
    del second
    attributions = attribution_tables(corpus, scorers_of(run, corpus, seed, engine), params.is_twin,
                                      params.windows_a_label, seed)
    del engine  # one language model in memory: that after feedback is another one
    after = generate_explanations(open_engine(run, "feedback"), corpus, items)
    claims = {"LLM": explanations.claims, "LLM after feedback": after.claims,
              f"LLM, {EEGInput.SHUFFLED}": control.claims, **reasoning.baseline_claims(corpus, rows, seed)}
    responses = [counterfactual.summary(found, seed).assign(group=f"{who}, z {target:g}")
                 for target, both in edits.items() for who, found in zip(("LLM", "always right"), both, strict=True)]
    tables = {"claims": reasoning.claims_table(corpus, rows, claims, seed),
              "features": reasoning.precision_by_feature(corpus, rows, explanations, seed),
              "explanations": reasoning.explanations_table(corpus, rows, explanations, seed), "interventions": changed,
              "capacity": reasoning.capacity(corpus, seed),
              "causes": pd.concat([found.measures.assign(model=model)
                                   for model, found in (causes | from_thought).items()]),
              "dose": pd.concat([found.dose.assign(model=model) for model, found in (causes | from_thought).items()]),
              "simulatability": foretold, "counterfactuals": pd.concat(responses),
              "agreement": attributions.agreement, "areas": attributions.areas,
              "curves": attributions.curves.groupby(["model", "kind", "share"], as_index=False).mean(),
              "feedback": reasoning.feedback_table(corpus, rows, explanations, after),
              "edits": pd.concat([both[0].assign(target=target) for target, both in edits.items()])}
    if len(followed):
        tables["followed"] = followed
    for name, table in tables.items():
        table.to_csv(stage.path / f"{name}.csv", index=False)
    np.savez(stage.path / "maps.npz", maps=attributions.maps, labels=np.array(attributions.labels))
    examples = reasoning.best_and_worst(corpus, rows, explanations)
    with replacing(stage.path / "examples.json") as partial:
        partial.write_text(json.dumps(examples, indent=1, ensure_ascii=False), encoding="utf-8")
    sentences = [f"From the thought alone: {found.sentence}" for found in from_thought.values()]
    own = f"From the EEG: {causes['LLM'].sentence}" if sentences else causes["LLM"].sentence
    stage.finish({"claims": int(sum(map(len, explanations.claims)))}, meaning=" ".join([*sentences, own, meaning]))


def open_reasoning(run: Run) -> ReasoningTables:
    """Read the finished reasoning evaluation of a run from its folder."""
    record = run.require("reasoning")
    folder = run.path / "reasoning"
    more = [name for name in FROM_THOUGHT_TABLES if (folder / f"{name}.csv").is_file()]
    tables = {name: _read(folder / f"{name}.csv") for name in (*TABLES, *more)}
    with np.load(folder / "maps.npz") as stored:
        maps, labels = stored["maps"], stored["labels"].tolist()
    facts = {**record["metrics"], **record["facts"], "feedback": run.require("feedback")["metrics"]}
    return ReasoningTables(tables, maps, labels, facts,
                           json.loads((folder / "examples.json").read_text(encoding="utf-8")))


def _read(path: Path) -> pd.DataFrame:
    """A table; an empty file is a table that this source does not have."""
    return read_table(path) if path.read_text(encoding="utf-8").strip() else pd.DataFrame()
