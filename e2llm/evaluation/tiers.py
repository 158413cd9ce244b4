"""The evaluation of a run: three tiers, controls, baselines, ceiling and ablation, as tables and metrics.json."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.chat import END_THINK, Item
from ..data.dataset import Corpus
from ..models.inference import InferenceEngine, closed_set, generate, score_options
from ..tasks.items import OneSubjectBuilder, parse_answer, prediction_items, question_text
from .baselines import EEGNET, LOGISTIC, PROBE, SVM, Recipe
from .controls import Role, shuffled, without_eeg
from .metrics import Score, accuracy, balanced_accuracy, classification
from .statistics import compare_models, over_seeds, per_subject, scored


@dataclass(frozen=True)
class Answers:
    """What a model answered to items of one kind: its choices, its free texts, and which of these could be read."""

    chosen: list[str]
    texts: list[str]
    parsed: list[str | None]

    @property
    def parse_rate(self) -> float:
        """Share of the free texts whose answer is exactly one of the options."""
        return float(np.mean([answer is not None for answer in self.parsed]))


def answer(engine: InferenceEngine, items: list[Item]) -> Answers:
    """Let the model think aloud, then take the most probable of the options.

    Every answer is a choice from the closed set, so chance is well defined; the free text, and whether it can be read,
    is reported beside it. Long options (descriptions) are compared per token, without a thought.
    """
    if items[0].kind == "describe":
        best = [int(np.argmax(row)) for row in score_options(engine, items, per_token=True)]
        chosen = [item.options[i] for item, i in zip(items, best, strict=True)]
        return Answers(chosen, [""] * len(items), list(chosen))
    texts = generate(engine, items)
    thoughts = [f"{text.split(END_THINK, 1)[0].rstrip()}\n{END_THINK}\n\n" for text in texts]
    best = [int(np.argmax(row)) for row in score_options(engine, items, thoughts)]
    return Answers([item.options[i] for item, i in zip(items, best, strict=True)], texts,
                   [parse_answer(text, item.options) for text, item in zip(texts, items, strict=True)])


def score_items(engine: InferenceEngine, items: list[Item], seed: int = 0) -> tuple[Score, Answers]:
    """Accuracy of one kind of items with its chance level and interval over subjects."""
    given = answer(engine, items)
    correct = np.array([choice == item.answer for choice, item in zip(given.chosen, items, strict=True)])
    chance = np.array([1.0 / len(item.options) for item in items])
    return accuracy(correct, chance, np.array([item.subject for item in items]), seed), given


TIER_2 = ("describe", "select", "compare", "rank", "match")
TIER_3 = ("zero_predict", "zero_match", "zero_choose")
BEST_PROBE = "best without EEG"  # column: the highest score of the shortcut probes under the same split
SOURCES = ("EEG", "shuffled EEG", "no EEG")
BASELINES = (Recipe(LOGISTIC), Recipe(LOGISTIC, "z-score"), Recipe(SVM, "z-score"), Recipe(PROBE))
RAW_BASELINE = Recipe(EEGNET, "z-score")  # half a minute of training: when asked for


def tier_1_row(corpus: Corpus, name: str, predicted: np.ndarray, role: str) -> dict:
    """Row of the tier-1 table: score of the answers to the test windows with chance and both intervals, kappa and F1; ``role`` is a
    :class:`e2llm.evaluation.controls.Role`."""
    test, n_classes = corpus.split.test, len(corpus.label_set)
    truth, subjects, clips = corpus.labels[test], corpus.subjects[test], corpus.windows.index["clip"].to_numpy()[test]
    more = classification(truth, predicted, n_classes)
    chosen = {key: more[key] for key in ("kappa", "macro_f1", "weighted_f1")}
    return scored(name, truth, predicted, subjects, clips, n_classes, role=Role(role)) | chosen


def comparisons(corpus: Corpus, answers: dict[str, np.ndarray], reference: str = "LLM") -> pd.DataFrame:
    """Every other model against a reference over the test subjects; see :func:`e2llm.evaluation.statistics.compare_models`."""
    test = corpus.split.test
    scores = pd.DataFrame({name: per_subject(corpus.labels[test], given, corpus.subjects[test], len(corpus.label_set))["balanced_accuracy"]
                           for name, given in answers.items()})
    return compare_models(scores, reference).reset_index(names="name").assign(reference=reference)


def tiers_2_and_3(corpus: Corpus, engine: InferenceEngine, n_items: int, seed: int) -> tuple[pd.DataFrame, dict[str, tuple]]:
    """Every multi-task and zero-shot kind that the source serves, heard and under both controls.

    Returns
    -------
    table : DataFrame
        One row for each kind and source of EEG, with parse rate.
    examples : dict
        First item, answer and text of each kind, for people to read.
    """
    builder, rows, examples = OneSubjectBuilder.of_test(corpus, seed), [], {}
    for kind in (kind for kind in (*TIER_2, *TIER_3) if kind in builder.kinds()):
        items = builder.draw(kind, n_items)
        variants = {"EEG": (engine, items), "shuffled EEG": (shuffled(engine, corpus.windows.index, corpus.split.test, seed + 1), items),
                    "no EEG": (engine, without_eeg(items))}
        for source in SOURCES:
            score, given = score_items(*variants[source], seed)
            role = Role.MODEL if source == "EEG" else Role.CONTROL
            rows.append(score.row(kind, tier=items[0].tier, group=source, role=role) | {"parsed": given.parse_rate})
            if source == "EEG":
                examples[kind] = (items[0], given.chosen[0], given.texts[0])
    return pd.DataFrame(rows), examples


def ablation_rows(ablated: str, corpus: Corpus, engine: InferenceEngine, n_items: int, seed: int) -> list[dict]:
    """Tier-1 closed set, and one kind each of tier 2 and 3, of one variant."""
    test = corpus.split.test
    predicted = closed_set(engine, prediction_items(corpus, test, seed)).argmax(axis=1)
    scores: dict[str, Score] = {"predict": balanced_accuracy(corpus.labels[test], predicted, corpus.subjects[test], len(corpus.label_set))}
    builder = OneSubjectBuilder.of_test(corpus, seed)
    for kind in (kind for kind in ("match", "zero_match") if kind in builder.kinds()):
        scores[kind] = score_items(engine, builder.draw(kind, n_items), seed)[0]
    return [score.row(kind, group=ablated) for kind, score in scores.items()]


def samples(said: dict, examples: dict[str, tuple], n: int = 3) -> list[dict]:
    """Answers for people to read: some of tier 1 (right and wrong), one of each other kind."""
    right = [i for i, item in enumerate(said["items"]) if said["parsed"][i] == item.answer]
    wrong = [i for i, item in enumerate(said["items"]) if said["parsed"][i] != item.answer]
    chosen = [(said["items"][i], said["texts"][i]) for i in right[: n - 1] + wrong[:1]]
    chosen += [(item, text or f"(scored) {given}") for item, given, text in examples.values()]
    return [{"question": question_text(item), "answer": text, "truth": item.answer} for item, text in chosen]


def pooled(predictions: list[pd.DataFrame]) -> pd.DataFrame:
    """Tier-1 scores over the folds of a protocol: every person was tested in one of them.

    Two people in a fold say little of others; together the folds resample all people.

    Parameters
    ----------
    predictions : list of DataFrame
        ``predictions.csv`` of runs that differ only in their fold.

    Raises
    ------
    ValueError
        If a window was tested in several of them, or the answers are not from the same label set and models.
    """
    columns = [list(table.columns) for table in predictions]
    if any(names != columns[0] for names in columns):
        raise ValueError("The folds do not hold answers of the same models and labels: pool runs that differ only in their fold.")
    table = pd.concat(predictions, ignore_index=True)
    if table.duplicated(["subject", "clip", "window"]).any():
        raise ValueError("A window was tested in several folds: pool a protocol whose test parts are disjoint.")
    labels = [name[2:-1] for name in columns[0] if name.startswith("p(")]
    code = {label: i for i, label in enumerate(labels)}
    truth, subjects = table["label"].map(code).to_numpy(), table["subject"].astype(str).to_numpy()
    rows = []
    for name in columns[0][columns[0].index("label") + 1 : -len(labels)]:
        given = table[name].map(code).fillna(-1).astype(int).to_numpy()
        rows.append(scored(name, truth, given, subjects, table["clip"].to_numpy(), len(labels)) | {"subjects": len(np.unique(subjects))})
    return pd.DataFrame(rows)


def spread(metrics: dict[int, dict]) -> pd.DataFrame:
    """How much the scores of tier 1, and of tiers 2 and 3 heard with EEG, owe to the seed; see :func:`e2llm.evaluation.statistics.over_seeds`.

    Parameters
    ----------
    metrics : dict of int to dict
        Seed to the ``metrics.json`` of a run; three or more that differ only in it.
    """
    scores: dict[tuple, dict[int, Score]] = {}
    for seed, content in metrics.items():
        for tier, rows in (("1", content["tables"]["tier_1"]), ("2 and 3", content["tables"]["tiers_2_and_3"])):
            for row in rows:
                if tier == "1" or row["group"] == "EEG":
                    scores.setdefault((tier, row["name"]), {})[seed] = score_of(pd.DataFrame([row]), row["name"])
    return pd.DataFrame([{"tier": tier, "name": name, **over_seeds(found), "chance": next(iter(found.values())).chance, "seeds": len(found)}
                         for (tier, name), found in scores.items()])


def score_of(table: pd.DataFrame, name: str, group: str | None = None, clips: bool = False) -> Score:
    """One row of a table of scores, with its interval over people, or over people and ``clips``; KeyError if there is none."""
    rows = table[(table["name"] == name) & ((group is None) | (table["group"] == group))]
    if rows.empty:
        raise KeyError(f"No row '{name}'{'' if group is None else f' of {group}'} in the table.")
    row = rows.iloc[0]
    low, high = (row[f"clips {end}" if clips else end] for end in ("low", "high"))
    return Score(value=row["score"], low=low, high=high, chance=row["chance"], n=int(row["n"]))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of scores as people read it: percent, an interval in one column, no index in the way; ``role`` where no ``group`` says more.

    Where it has them, the interval over people and clips and the best score without EEG stand beside every score.
    """
    shown = table[["name", *[column for column in ("group", "role") if column in table][:1]]].assign(**{"score %": table["score"].mul(100).round(1)})
    for low, high, title in (("low", "high", "95 % interval"), ("clips low", "clips high", "people and clips")):
        if low in table:
            shown[title] = [f"{100 * a:.1f} – {100 * b:.1f}" for a, b in zip(table[low], table[high], strict=True)]
    shown["chance %"] = table["chance"].mul(100).round(1)
    if BEST_PROBE in table:
        shown[f"{BEST_PROBE} %"] = table[BEST_PROBE].mul(100).round(1)
    return shown.assign(n=table["n"]).set_index("name")
