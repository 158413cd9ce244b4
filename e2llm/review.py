"""The stage of lesson 07: the reasoning of a run reviewed, its tables, figures' data and examples on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from . import counterfactual, reasoning
from .assessment import prediction_items, question_text
from .evaluate import shuffled
from .faithfulness import Verdict, flags, verdicts
from .feedback import FeedbackParams, reinforce
from .grammar import Parsed
from .runs import Run, Stage, replacing
from .stages import Corpus, load_encoder
from .train import FitParams

TABLES = ("claims", "features", "explanations", "interventions", "counterfactuals", "edits", "agreement", "areas", "curves", "feedback")
TARGETS = (3.5, counterfactual.TARGET_Z)  # how far edits move a feature, z; from 3.5 on a speaker who is always right names all of them


@dataclass(frozen=True)
class ReviewParams:
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
class Review:
    """A finished review: ``tables`` by name, attribution ``maps`` (n_labels, n_bands, n_channels) of ``labels``, ``facts``, ``examples``."""

    tables: dict[str, pd.DataFrame]
    maps: np.ndarray
    labels: list[str]
    facts: dict
    examples: dict[str, list[dict]]


def review(run: Run, corpus: Corpus, params: ReviewParams, feedback: FeedbackParams, fit: FitParams) -> Review:
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
    return open_review(run)


def _make(run: Run, corpus: Corpus, params: ReviewParams, stage: Stage) -> None:
    rows, seed = corpus.split.test, params.seed
    listener = reasoning.listener_of(run)
    items = prediction_items(corpus, rows, seed)
    told = reasoning.tell(listener, corpus, items)
    deaf = reasoning.tell(shuffled(listener, corpus.windows.index, corpus.split.test, seed + 1), corpus, items)
    taught = reasoning.tell(reasoning.listener_of(run, "feedback"), corpus, items)
    said = {"LLM": told.claims, "LLM after feedback": taught.claims, "LLM, shuffled EEG": deaf.claims, **reasoning.baselines(corpus, rows, seed)}
    changed, meaning = reasoning.interventions(listener, corpus, told, seed)
    encoder = load_encoder(run, corpus).encoder
    edits = {target: reasoning.counterfactuals(listener, corpus, told, rows, encoder, seed, target) for target in TARGETS}
    owed = reasoning.attribute(run, corpus, params.is_twin, params.windows_a_label, seed)
    tables = {"claims": reasoning.claims_table(corpus, rows, said, seed), "features": reasoning.by_feature(corpus, rows, told, seed),
              "explanations": reasoning.explanations_table(corpus, rows, told, seed), "interventions": changed,
              "counterfactuals": pd.concat([counterfactual.summary(found, seed).assign(group=f"{who}, z {target:g}")
                                            for target, both in edits.items() for who, found in zip(("LLM", "always right"), both, strict=True)]),
              "agreement": owed.agreement, "areas": owed.areas, "curves": owed.curves.groupby(["model", "kind", "share"], as_index=False).mean(),
              "feedback": reasoning.gained(corpus, rows, told, taught)}
    for name, table in tables.items():
        table.to_csv(stage.path / f"{name}.csv", index=False)
    pd.concat([both[0].assign(target=target) for target, both in edits.items()]).to_csv(stage.path / "edits.csv", index=False)
    np.savez(stage.path / "maps.npz", maps=owed.maps, labels=np.array(owed.labels))
    examples = best_and_worst(corpus, rows, told)
    with replacing(stage.path / "examples.json") as partial:
        partial.write_text(json.dumps(examples, indent=1, ensure_ascii=False), encoding="utf-8")
    stage.finish({"claims": int(sum(map(len, told.claims)))}, meaning=meaning)


def best_and_worst(corpus: Corpus, rows: np.ndarray, told: reasoning.Told, n: int = 3) -> dict[str, list[dict]]:
    """The ``n`` best explanations (right answer, most true claims) and the ``n`` worst (most false claims, wrong answer), with verdicts."""
    judged = [_judged(corpus, int(row), item, text, parsed, answer)
              for row, item, text, parsed, answer in zip(rows, told.items, told.texts, told.parsed, told.answers, strict=True)]
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


def open_review(run: Run) -> Review:
    """A finished review of a run, as it lies on disk."""
    record = run.require("reasoning")
    folder = run.path / "reasoning"
    tables = {name: _read(folder / f"{name}.csv") for name in TABLES}
    with np.load(folder / "maps.npz") as stored:
        maps, labels = stored["maps"], stored["labels"].tolist()
    facts = {**record["metrics"], **record["facts"], "feedback": run.require("feedback")["metrics"]}
    return Review(tables, maps, labels, facts, json.loads((folder / "examples.json").read_text(encoding="utf-8")))


def _read(path) -> pd.DataFrame:
    """A table; an empty file is a table that this source does not have."""
    return pd.read_csv(path) if path.read_text(encoding="utf-8").strip() else pd.DataFrame()
