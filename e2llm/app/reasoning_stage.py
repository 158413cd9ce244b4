"""The stage of lesson 07: the reasoning of a run reviewed, its tables, figures' data and examples on disk."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import torch
from peft import PeftModel

from ..core.claims import Verdict, verdicts
from ..core.files import replacing
from ..data import band_edits
from ..data.dataset import Corpus
from ..evaluation import attribution, counterfactual, reasoning
from ..evaluation.attribution import Scorer, head_score, language_score
from ..evaluation.controls import shuffled
from ..evaluation.faithfulness import answer_change, flags
from ..evaluation.metrics import Score, accuracy
from ..evaluation.reasoning import Attributions, GeneratedExplanations, tell
from ..models.inference import InferenceEngine, sample
from ..tasks.items import prediction_items, question_text, read_items, write_items
from ..tasks.thought_parser import Parsed
from ..training.feedback import FeedbackParams, judged, kept_items
from ..training.stage3_instruction import AdapterParams, fit_adapter, quiet_peft
from ..training.trainer import FitParams, examples_of
from .runs import Progress, Run, Stage
from .stages import load_encoder, load_tokens, open_aligned, open_dataset, open_instructed


def reinforce(run: Run, corpus: Corpus, feedback: FeedbackParams, params: FitParams) -> Stage:
    """One round of feedback on the model after stage 3; leaves another adapter in the stage ``feedback``.

    Raises
    ------
    ValueError
        If nothing that was sampled can be kept.
    """
    stage = run.stage("feedback", {"feedback": asdict(feedback), "fit": asdict(params)}, needs=("adapter",))
    if stage.done:
        return stage
    stage.begin()
    model, processor = open_instructed(run)
    items = prediction_items(corpus, corpus.split.train, params.seed)
    table = judged(corpus, items, sample(InferenceEngine(model, processor, *load_tokens(run)), items, feedback.samples, feedback.temperature, params.seed))
    kept = kept_items(items, table)
    if not kept:
        raise ValueError(f"None of {len(table)} sampled chains is true and ends in the true label: train stage 3 longer first.")
    write_items(kept, stage.path / "items.jsonl")
    old = read_items(run.path / "adapter" / "items.jsonl")
    chosen = np.random.default_rng(params.seed).permutation(len(old))[: feedback.replay]
    examples = examples_of(kept, processor, 1.0, params.seed) + examples_of([old[i] for i in chosen], processor, 0.5, params.seed)
    with Progress(run, params.steps, "feedback") as progress:
        peft, history = _train_on(run, examples, params, stage, progress.update)
    peft.save_pretrained(stage.path / "lora")
    history.to_csv(stage.path / "history.csv", index=False)
    times = table["times"]
    stage.finish({"sampled": int(times.sum()), "answers_true": float(np.average(table["answer_true"], weights=times)),
                  "claims_true": float((table["true_claims"] * times).sum() / max(1, (table["claims"] * times).sum())), "kept": len(kept),
                  "windows_kept": int(table.loc[table["kept"], "item"].nunique()), "windows": len(items)})
    return stage


def _train_on(run: Run, examples: list[dict], params: FitParams, stage: Stage, tell):
    """The adapter of stage 3, trained on."""
    model, processor = open_aligned(run)
    stored = AdapterParams(**run.require("adapter")["params"]["adapter"])
    torch.manual_seed(params.seed)
    with quiet_peft():
        peft = PeftModel.from_pretrained(model, str(run.path / "adapter" / "lora"), is_trainable=True)
    return peft, fit_adapter(peft, processor, examples, *load_tokens(run), stored, params, stage.path / "checkpoints", tell)


def scores_of(run: Run, corpus: Corpus, seed: int = 0) -> dict[str, Scorer]:
    """Stage-1 head and language model of a finished run, both normalised over the labels, in the label set's order.

    Their input is ``corpus.equalise(corpus.windows.data[rows], corpus.whose[rows])``; ``seed`` draws the wording of the tier-1 question.
    """
    model, (language, processor) = load_encoder(run, corpus), open_instructed(run)
    question = prediction_items(corpus, corpus.split.test[:1], seed)[0]
    return {"stage-1 head": head_score(model), "LLM": language_score(language, processor, model.encoder, question, closed=True)}


def open_engine(run: Run, stage: str = "adapter") -> InferenceEngine:
    """The model of a run after a stage that leaves an adapter, and what it needs to hear windows."""
    return InferenceEngine(*open_instructed(run, stage), *load_tokens(run))


def agreement(corpus: Corpus, rows: np.ndarray, one: GeneratedExplanations, other: GeneratedExplanations, seed: int = 0) -> Score:
    """Share of one model's claims that another model makes of the same window; chance: of another window of the same person."""
    codes = np.unique(corpus.subjects[rows], return_inverse=True)[1]
    said = [set(claims) for claims in other.claims]
    hits, chance, subjects = [], [], []
    for i, claims in enumerate(one.claims):
        rest = [j for j in np.flatnonzero(codes == codes[i]) if j != i]
        for claim in claims:
            hits.append(claim in said[i])
            chance.append(np.mean([claim in said[j] for j in rest]) if rest else np.nan)
            subjects.append(corpus.subjects[rows[i]])
    if not hits:
        return Score(*[float("nan")] * 4, 0)
    return replace(accuracy(np.array(hits), np.zeros(len(hits)), np.array(subjects), seed), chance=float(np.nanmean(chance)))


def across_seeds(runs: Sequence[Run], seed: int = 0) -> pd.DataFrame:
    """Do models that differ only in their seed say the same of a window? A row an ordered pair of runs: claims, and free-text answers.

    Raises
    ------
    ValueError
        If the runs were not tested on the same windows: agreement would compare different things.
    """
    corpora = [open_dataset(run) for run in runs]
    rows = corpora[0].split.test
    if any(not np.array_equal(corpus.split.test, rows) or not np.allclose(corpus.z, corpora[0].z) for corpus in corpora):
        names = ", ".join(run.name for run in runs)
        raise ValueError(f"The runs {names} were not tested on the same windows: give runs that differ in their seed only.")
    items = prediction_items(corpora[0], rows, seed)
    explanations = {run.name: tell(open_engine(run), corpus, items) for run, corpus in zip(runs, corpora, strict=True)}
    return pd.DataFrame([agreement(corpora[0], rows, explanations[one], explanations[other], seed).row(
        f"{one} in {other}", same_answer=1.0 - answer_change(explanations[one].answers, explanations[other].answers))
        for one, other in itertools.permutations(explanations, 2)])


def attribute(run: Run, corpus: Corpus, is_twin: bool, windows_a_label: int, seed: int, steps: int = 24) -> Attributions:
    """Integrated gradients of stage-1 head and language model on test windows, checked by deletion and by the twin's own table."""
    rng, test = np.random.default_rng(seed), corpus.split.test
    rows = np.concatenate([rng.permutation(test[corpus.labels[test] == label])[:windows_a_label] for label in np.unique(corpus.labels[test])])
    signal = corpus.equalise(corpus.windows.data[np.sort(rows)], corpus.norm_groups[np.sort(rows)])
    rows, ch_names = np.sort(rows), corpus.windows.ch_names
    target, subjects = corpus.labels[rows], corpus.subjects[rows]
    labels = [corpus.label_set.labels[i] for i in target]
    agreed, areas, curves, maps = [], [], [], None
    for name, score in scores_of(run, corpus, seed).items():
        found = attribution.explain(score, signal, target, steps=steps, doublings=2)
        curve = attribution.deletion_insertion(score, signal, target, attribution.to_patches(found.samples), (0, 0.05, 0.1, 0.2, 0.4, 0.7, 1), rng)
        curves.append(curve.assign(model=name))
        areas.append(attribution.areas(curve, subjects).assign(group=name))
        if is_twin:
            agreed.append(attribution.region_agreement(found.bands, labels, subjects, ch_names).assign(group=name))
        maps = attribution.topography(found.bands, labels, [label for label in corpus.label_set.labels if label in labels])
    return Attributions(pd.concat(agreed, ignore_index=True) if agreed else pd.DataFrame(), pd.concat(areas, ignore_index=True),
                pd.concat(curves, ignore_index=True), maps, [label for label in corpus.label_set.labels if label in labels])


TABLES = ("claims", "features", "explanations", "interventions", "counterfactuals", "edits", "agreement", "areas", "curves", "feedback")
TARGETS = (3.5, band_edits.TARGET_Z)  # how far edits move a feature, z; from 3.5 on a speaker who is always right names all of them


@dataclass(frozen=True)
class ReasoningParams:
    """Sizes of a review.

    Parameters
    ----------
    windows_a_label : int
        Test windows of each label that are attributed.
    seed : int
        Of questions, edits and what is drawn.
    is_twin : bool
        Whether the generator's table is known.
    """

    windows_a_label: int = 24
    seed: int = 0
    is_twin: bool = True


@dataclass(frozen=True)
class ReasoningTables:
    """A finished review: ``tables`` by name, attribution ``maps`` (n_labels, n_bands, n_channels) of ``labels``, ``facts``, ``examples``."""

    tables: dict[str, pd.DataFrame]
    maps: np.ndarray
    labels: list[str]
    facts: dict
    examples: dict[str, list[dict]]


def evaluate_reasoning(run: Run, corpus: Corpus, params: ReasoningParams, feedback: FeedbackParams, fit: FitParams) -> ReasoningTables:
    """Let the model explain every test window, hold the explanations against the signal, and see what a round of feedback changes.

    Parameters
    ----------
    run, corpus : Run and Corpus
        With all stages up to ``adapter`` finished.
    params : ReviewParams
        Sizes.
    feedback, fit : FeedbackParams and FitParams
        Of the round of feedback, which is made first if it is not there.
    """
    reinforce(run, corpus, feedback, fit)
    stage = run.stage("reasoning", asdict(params), needs=("adapter", "feedback"))
    if not stage.done:
        stage.begin()
        _make(run, corpus, params, stage)
    return open_reasoning(run)


def _make(run: Run, corpus: Corpus, params: ReasoningParams, stage: Stage) -> None:
    rows, seed = corpus.split.test, params.seed
    engine = open_engine(run)
    items = prediction_items(corpus, rows, seed)
    explanations = reasoning.tell(engine, corpus, items)
    deaf = reasoning.tell(shuffled(engine, corpus.windows.index, corpus.split.test, seed + 1), corpus, items)
    taught = reasoning.tell(open_engine(run, "feedback"), corpus, items)
    said = {"LLM": explanations.claims, "LLM after feedback": taught.claims, "LLM, shuffled EEG": deaf.claims, **reasoning.baselines(corpus, rows, seed)}
    changed, meaning = reasoning.interventions(engine, corpus, explanations, seed)
    encoder = load_encoder(run, corpus).encoder
    edits = {target: reasoning.counterfactuals(engine, corpus, explanations, rows, encoder, seed, target) for target in TARGETS}
    attributions = attribute(run, corpus, params.is_twin, params.windows_a_label, seed)
    tables = {"claims": reasoning.claims_table(corpus, rows, said, seed), "features": reasoning.by_feature(corpus, rows, explanations, seed),
              "explanations": reasoning.explanations_table(corpus, rows, explanations, seed), "interventions": changed,
              "counterfactuals": pd.concat([counterfactual.summary(found, seed).assign(group=f"{who}, z {target:g}")
                                            for target, both in edits.items() for who, found in zip(("LLM", "always right"), both, strict=True)]),
              "agreement": attributions.agreement, "areas": attributions.areas, "curves": attributions.curves.groupby(["model", "kind", "share"], as_index=False).mean(),
              "feedback": reasoning.gained(corpus, rows, explanations, taught)}
    for name, table in tables.items():
        table.to_csv(stage.path / f"{name}.csv", index=False)
    pd.concat([both[0].assign(target=target) for target, both in edits.items()]).to_csv(stage.path / "edits.csv", index=False)
    np.savez(stage.path / "maps.npz", maps=attributions.maps, labels=np.array(attributions.labels))
    examples = best_and_worst(corpus, rows, explanations)
    with replacing(stage.path / "examples.json") as partial:
        partial.write_text(json.dumps(examples, indent=1, ensure_ascii=False), encoding="utf-8")
    stage.finish({"claims": int(sum(map(len, explanations.claims)))}, meaning=meaning)


def best_and_worst(corpus: Corpus, rows: np.ndarray, explanations: reasoning.GeneratedExplanations, n: int = 3) -> dict[str, list[dict]]:
    """The ``n`` best explanations (right answer, most true claims) and the ``n`` worst (most false claims, wrong answer), with verdicts."""
    judged = [_judged(corpus, int(row), item, text, parsed, answer)
              for row, item, text, parsed, answer in zip(rows, explanations.items, explanations.texts, explanations.parsed, explanations.answers, strict=True)]
    right = sorted(judged, key=lambda one: (-(one["answer"] == one["truth"]), one["false"], -one["true"], one["window"]))
    wrong = sorted(judged, key=lambda one: (-one["false"], one["true"], one["answer"] == one["truth"], one["window"]))
    return {"best": right[:n], "worst": wrong[:n]}


def _judged(corpus: Corpus, row: int, item, text: str, parsed: Parsed, answer: str | None) -> dict:
    z, names = corpus.z[row], corpus.evidence_names
    held = list(zip(parsed.claims, verdicts(parsed.claims, z, names), strict=True))
    checked = [f"{claim}: {verdict} (z = {z[names.columns.index(claim.feature)]:+.1f})" if verdict is not Verdict.UNKNOWN else f"{claim}: {verdict}"
               for claim, verdict in held]
    n_true = sum(verdict is Verdict.TRUE for _, verdict in held)
    return {"window": row, "question": question_text(item), "text": text, "claims": checked, "true": n_true, "false": len(held) - n_true,
            "answer": answer or "", "truth": item.answer, "flag": flags(parsed, z, names).reason or "none"}


def open_reasoning(run: Run) -> ReasoningTables:
    """A finished review of a run, as it lies on disk."""
    record = run.require("reasoning")
    folder = run.path / "reasoning"
    tables = {name: _read(folder / f"{name}.csv") for name in TABLES}
    with np.load(folder / "maps.npz") as stored:
        maps, labels = stored["maps"], stored["labels"].tolist()
    facts = {**record["metrics"], **record["facts"], "feedback": run.require("feedback")["metrics"]}
    return ReasoningTables(tables, maps, labels, facts, json.loads((folder / "examples.json").read_text(encoding="utf-8")))


def _read(path) -> pd.DataFrame:
    """A table; an empty file is a table that this source does not have."""
    return pd.read_csv(path) if path.read_text(encoding="utf-8").strip() else pd.DataFrame()
