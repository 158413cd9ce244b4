"""The evaluation of a run: three tiers, controls, baselines, ceiling and ablation, as tables and metrics.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from .audit import NOTHING_FOUND, Finding, audit, reached_by_shortcuts, stamp
from .baselines import EEGNET, LOGISTIC, PROBE, SVM, Recipe, distinct, fit_baseline, oracle
from .controls import Role
from .copies import Copies, hear
from .evaluate import Listener, closed_set, generate, score_items, shuffled, without_eeg
from .files import data_fingerprint
from .metrics import Score, balanced_accuracy, classification
from .modeling import E2LLMForConditionalGeneration
from .questions import Item, predict
from .runs import Run
from .shortcuts import PROBES, neighbour_worth, probe, session_worth
from .splits import accepted_rules
from .stages import (
    AdapterParams,
    Corpus,
    alignment_items,
    frozen_encoder,
    instruction_items,
    items_per_kind,
    load_ear,
    load_tokens,
    open_aligned,
    open_corpus,
    open_instructed,
    open_language,
    replay_items,
    train_adapter,
    train_projector,
)
from .statistics import calibration, compare_models, over_seeds, per_subject, scored
from .tasks import parse_answer, read_items
from .train import FitParams, encode_rows

TIER_2 = ("describe", "select", "compare", "rank", "match")
TIER_3 = ("zero_predict", "zero_match", "zero_choose")
BEST_PROBE = "best without EEG"  # column: the highest score of the shortcut probes under the same split
SOURCES = ("EEG", "shuffled EEG", "no EEG")
BASELINES = (Recipe(LOGISTIC), Recipe(LOGISTIC, "z-score"), Recipe(SVM, "z-score"), Recipe(PROBE))
RAW_BASELINE = Recipe(EEGNET, "z-score")  # half a minute of training: when asked for


def prediction_items(corpus: Corpus, rows: np.ndarray, seed: int) -> list[Item]:
    """One tier-1 question for every given window, in their order."""
    rng = np.random.default_rng(seed)
    return [predict(segment, corpus.label_set, rng) for segment in corpus.segments(rows)]


def head_answers(run: Run, rows: np.ndarray) -> np.ndarray:
    """Class indices that the stage-1 head gives to windows."""
    with np.load(run.path / "encoder" / "answers.npz") as stored:
        place = {int(row): i for i, row in enumerate(stored["rows"])}
        return stored["logits"][[place[int(row)] for row in rows]].argmax(axis=1)


def tier_1_row(corpus: Corpus, name: str, predicted: np.ndarray, role: str) -> dict:
    """Row of the tier-1 table: score of the answers to the test windows with chance and both intervals, kappa and F1; ``role`` is a
    :class:`e2llm.controls.Role`."""
    test, n_classes = corpus.split.test, len(corpus.label_set)
    truth, owners, clips = corpus.labels[test], corpus.owners[test], corpus.windows.index["clip"].to_numpy()[test]
    more = classification(truth, predicted, n_classes)
    chosen = {key: more[key] for key in ("kappa", "macro_f1", "weighted_f1")}
    return scored(name, truth, predicted, owners, clips, n_classes, role=Role(role)) | chosen


def comparisons(corpus: Corpus, answers: dict[str, np.ndarray], reference: str = "LLM") -> pd.DataFrame:
    """Every other model against a reference over the test subjects; see :func:`e2llm.statistics.compare_models`."""
    test = corpus.split.test
    scores = pd.DataFrame({name: per_subject(corpus.labels[test], given, corpus.owners[test], len(corpus.label_set))["balanced_accuracy"]
                           for name, given in answers.items()})
    return compare_models(scores, reference).reset_index(names="name").assign(reference=reference)


class Tier1(NamedTuple):
    """Basic prediction."""

    table: pd.DataFrame  # score, intervals, chance and further metrics of each model
    tests: pd.DataFrame  # paired tests of the other models against the language model
    predictions: pd.DataFrame  # one row a test window
    said: dict  # free text after a thought: parse rate, texts, labels read, items


def tier_1(run: Run, corpus: Corpus, listener: Listener, truth: Path | None, recipes: Sequence[Recipe], seed: int) -> Tier1:
    """Basic prediction: the model, its controls, the stage-1 head, the baselines and, on a twin, the oracle."""
    test, labels = corpus.split.test, list(corpus.label_set.labels)
    items = prediction_items(corpus, test, seed)
    index = corpus.windows.index.iloc[test]
    heard = closed_set(listener, items)
    answers = {"LLM": heard.argmax(axis=1),
               "LLM, shuffled EEG": closed_set(shuffled(listener, corpus.windows.index, test, seed + 1), items).argmax(axis=1),
               "LLM, no EEG": closed_set(listener, without_eeg(items)).argmax(axis=1),
               "stage-1 head": head_answers(run, test)}
    encoder, recipes = frozen_encoder(run, corpus), distinct(recipes, corpus.split)
    for recipe in recipes:
        answers[recipe.name] = fit_baseline(recipe, corpus, corpus.split, encoder).rows(test)
    texts = generate(listener, items)
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
        predictions[f"p({label})"] = heard[:, i]
    said = {"parse_rate": float(np.mean([a is not None for a in parsed])), "texts": texts, "parsed": parsed, "items": items}
    return Tier1(table, comparisons(corpus, {name: answers[name] for name in order}), predictions, said)


def tiers_2_and_3(corpus: Corpus, listener: Listener, n_items: int, seed: int) -> tuple[pd.DataFrame, dict[str, tuple]]:
    """Every multi-task and zero-shot kind that the source serves, heard and under both controls.

    Returns
    -------
    table : DataFrame
        One row for each kind and source of EEG, with parse rate.
    examples : dict
        First item, answer and text of each kind, for people to read.
    """
    builder, rows, examples = corpus.examiner(seed), [], {}
    for kind in (kind for kind in (*TIER_2, *TIER_3) if kind in builder.kinds()):
        items = builder.draw(kind, n_items)
        variants = {"EEG": (listener, items), "shuffled EEG": (shuffled(listener, corpus.windows.index, corpus.split.test, seed + 1), items),
                    "no EEG": (listener, without_eeg(items))}
        for source in SOURCES:
            score, given = score_items(*variants[source], seed)
            role = Role.MODEL if source == "EEG" else Role.CONTROL
            rows.append(score.row(kind, tier=items[0].tier, group=source, role=role) | {"parsed": given.parse_rate})
            if source == "EEG":
                examples[kind] = (items[0], given.chosen[0], given.texts[0])
    return pd.DataFrame(rows), examples


def _arm(run_name: str, arm: str, n_items: int, seed: int, folder: Path) -> list[dict]:
    """Train and score one ablated variant; a process of its own, so that two run at a time."""
    torch.set_num_threads(1)
    run = Run.open(run_name)
    corpus = open_corpus(run)
    folder = folder / arm.replace(" ", "_")
    stage_2, stage_3 = (run.require(name)["params"] for name in ("projector", "adapter"))
    fit_2, fit_3 = FitParams(**stage_2["fit"]), FitParams(**stage_3["fit"])
    (tokens, position), ear, slots = load_tokens(run), load_ear(run), stage_2["evidence_slots"]
    if arm == "without stage 1":
        encoder = frozen_encoder(run, corpus)
        folder.mkdir(parents=True, exist_ok=True)
        tokens = encode_rows(encoder, corpus.windows.data, corpus.equalise, corpus.whose, corpus.split.used, folder / "tokens.npy")
        ear = hear(encoder, Copies.draw(corpus, corpus.split.train, fit_2.seed), tokens, corpus.split.used)
        heard = np.full_like(corpus.heard, np.nan)
        heard[corpus.split.used] = ear(tokens)
        corpus = replace(corpus, heard=heard)  # thoughts cite what this encoder hears, not what the trained one would
    model, processor = open_aligned(run)
    if arm == "without stage 1":
        language, tokenizer, source = open_language(run)
        items = alignment_items(corpus, "train", stage_2["n_items"], fit_2.seed)
        model, _ = train_projector(language, tokenizer, source, items, tokens, position, stage_2["eeg_tokens"], stage_2["noise"], fit_2,
                                   folder / "projector", None, ear, slots)
    elif arm == "without stage 2":
        language, tokenizer, source = open_language(run)
        model = E2LLMForConditionalGeneration.join(language, tokenizer, source, None, tokens.shape[-1], stage_2["eeg_tokens"], fit_2.seed,
                                                   ear, slots)
    if arm != "without stage 3":
        items = instruction_items(corpus, "train", items_per_kind(run), fit_3.seed) + replay_items(corpus, stage_3["replay"], fit_3.seed)
        peft, _ = train_adapter(model, processor, items, tokens, position, AdapterParams(**stage_3["adapter"]), fit_3, folder / "adapter")
        model = peft.merge_and_unload()
    listener = Listener(model.eval(), processor, tokens, position)
    return ablation_rows(arm, corpus, listener, n_items, seed)


def ablation_rows(arm: str, corpus: Corpus, listener: Listener, n_items: int, seed: int) -> list[dict]:
    """Tier-1 closed set, and one kind each of tier 2 and 3, of one variant."""
    test = corpus.split.test
    predicted = closed_set(listener, prediction_items(corpus, test, seed)).argmax(axis=1)
    scores: dict[str, Score] = {"predict": balanced_accuracy(corpus.labels[test], predicted, corpus.owners[test], len(corpus.label_set))}
    builder = corpus.examiner(seed)
    for kind in (kind for kind in ("match", "zero_match") if kind in builder.kinds()):
        scores[kind] = score_items(listener, builder.draw(kind, n_items), seed)[0]
    return [score.row(kind, group=arm) for kind, score in scores.items()]


def ablation(run: Run, corpus: Corpus, listener: Listener, n_items: int, seed: int, folder: Path,
             n_jobs: int = 2) -> pd.DataFrame:
    """The full model beside variants that lack one stage, everything else equal; checkpoints are kept in ``folder``."""
    arms = ("without stage 1", "without stage 2", "without stage 3")
    rows = Parallel(n_jobs=n_jobs)(delayed(_arm)(run.name, arm, n_items, seed, folder) for arm in arms)
    return pd.DataFrame([*ablation_rows("all stages", corpus, listener, n_items, seed), *(row for arm in rows for row in arm)])


def samples(said: dict, examples: dict[str, tuple], n: int = 3) -> list[dict]:
    """Answers for people to read: some of tier 1 (right and wrong), one of each other kind."""
    right = [i for i, item in enumerate(said["items"]) if said["parsed"][i] == item.answer]
    wrong = [i for i, item in enumerate(said["items"]) if said["parsed"][i] != item.answer]
    chosen = [(said["items"][i], said["texts"][i]) for i in right[: n - 1] + wrong[:1]]
    chosen += [(item, text or f"(scored) {given}") for item, given, text in examples.values()]
    return [{"question": question_text(item), "answer": text, "truth": item.answer} for item, text in chosen]


def question_text(item: Item) -> str:
    """The question of an item with a mark where its EEG stands."""
    parts = item.messages[0]["content"]
    return "".join("⟨EEG⟩" if part["type"] == "eeg" else part["text"] for part in parts).strip()


def examine(run: Run, corpus: Corpus) -> list[Finding]:
    """Audit everything that is known of how the models of a run came about; see :func:`e2llm.audit.audit`."""
    protocol = run.require("encoder")["params"]["protocol"]
    items = [item for stage in ("projector", "adapter") for item in read_items(run.path / stage / "items.jsonl")]
    return audit(corpus.split, corpus.windows.index, accept=accepted_rules(protocol["protocol"], protocol.get("accept_leaks", False)),
                 power=np.asarray(corpus.windows.power), items=items, neighbour_worth=neighbour_worth(corpus.windows.index, corpus.split),
                 session_worth=session_worth(corpus.windows.index, corpus.split))


def assess(run: Run, corpus: Corpus, truth: Path | None, n_items: int, with_ablation: bool, with_eegnet: bool, seed: int) -> dict[str, pd.DataFrame]:
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
        listener = Listener(model, processor, *load_tokens(run))
        first, tests, predictions, said = tier_1(run, corpus, listener, truth, recipes, seed)
        others, examples = tiers_2_and_3(corpus, listener, n_items, seed)
        shortcuts = probe(corpus.windows.index, corpus.split, seed)
        findings += reached_by_shortcuts(first[first["role"] == Role.MODEL], shortcuts)
        tables = {"tier_1": first.assign(**{BEST_PROBE: shortcuts["score"].max()}), "tests": tests, "shortcuts": shortcuts, "tiers_2_and_3": others}
        if with_ablation:
            tables["ablation"] = ablation(run, corpus, listener, n_items, seed, stage.path / "checkpoints")
        for name, table in tables.items():
            table.to_csv(stage.path / f"{name}.csv", index=False)
        predictions.to_csv(stage.path / "predictions.csv", index=False)
        heard = predictions[[f"p({label})" for label in corpus.label_set.labels]].to_numpy()
        sure = calibration(heard, corpus.labels[corpus.split.test])
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
             "test windows": len(split.test), "test subjects": len(np.unique(corpus.owners[split.test]))}
    run.write_predictions(pd.read_csv(folder / "predictions.csv", dtype={"subject": str}))
    run.write_metrics({"facts": facts, **{key: record["metrics"][key] for key in ("parse_rate", "calibration", "samples")},
                       "tables": {name: table.to_dict("records") for name, table in tables.items()}})
    return tables


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
    truth, owners = table["label"].map(code).to_numpy(), table["subject"].astype(str).to_numpy()
    rows = []
    for name in columns[0][columns[0].index("label") + 1 : -len(labels)]:
        given = table[name].map(code).fillna(-1).astype(int).to_numpy()
        rows.append(scored(name, truth, given, owners, table["clip"].to_numpy(), len(labels)) | {"subjects": len(np.unique(owners))})
    return pd.DataFrame(rows)


def spread(metrics: dict[int, dict]) -> pd.DataFrame:
    """How much the scores of tier 1, and of tiers 2 and 3 heard with EEG, owe to the seed; see :func:`e2llm.statistics.over_seeds`.

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


def closed_set_answers(run: Run, corpus: Corpus) -> np.ndarray:
    """Class indices that the language model of a finished evaluation gave to the test windows."""
    run.require("evaluation")
    given = pd.read_csv(run.path / "evaluation" / "predictions.csv")["LLM"]
    return np.array([corpus.label_set.index(label) for label in given])


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
