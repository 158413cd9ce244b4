"""Evaluation in three tiers: basic prediction, several tasks, zero-shot.

With controls, baselines and the oracle, as tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.chat import Item
from ..data.dataset import Corpus
from ..data.protocols import Split
from ..models.eegpt import EEGPT
from ..models.inference import InferenceEngine, closed_set, generate, score_options, think_and_score
from ..tasks.items import OneSubjectBuilder, parse_answer, prediction_items, question_text
from ..tasks.scenarios import STRATA
from .baselines import EEGNET, LOGISTIC, PROBE, SVM, FrozenTokens, Recipe, distinct, fit_baseline
from .controls import EEGInput, Role, shuffled, variants, without_eeg
from .metrics import (
    Score,
    accuracy,
    balanced_accuracy,
    classification,
    compare_models,
    over_seeds,
    per_subject,
    score_row,
)
from .person_bootstrap import crossed_accuracy

TIER_2 = ("describe", "select", "compare", "rank", "match", "choose")
TIER_3 = ("zero_predict", "zero_match", "zero_choose")
BEST_PROBE = "best without EEG"  # column: the highest score of the shortcut probes under the same split
BASELINES = (Recipe(LOGISTIC), Recipe(LOGISTIC, "z-score"), Recipe(SVM, "z-score"), Recipe(PROBE))
RAW_BASELINE = Recipe(EEGNET, "z-score")  # half a minute of training: when asked for


@dataclass(frozen=True)
class Answers:
    """A model's answers to items of one kind: its choices, its free texts, and which of these could be read."""

    chosen: list[str]
    texts: list[str]
    parsed: list[str | None]

    @property
    def parse_rate(self) -> float:
        """Share of the free texts whose answer is exactly one of the options."""
        return float(np.mean([answer is not None for answer in self.parsed]))

    @classmethod
    def joined(cls, parts: Iterable[Answers]) -> Answers:
        """Answers to one list of items after the other."""
        chosen, texts, parsed = zip(*((part.chosen, part.texts, part.parsed) for part in parts), strict=True)
        return cls(*(list(chain.from_iterable(lists)) for lists in (chosen, texts, parsed)))


def answer(engine: InferenceEngine, items: list[Item]) -> Answers:
    """Let the model write a thought, then take the most probable of the options.

    Every answer is a choice from the closed set, so chance is well defined; the free text, and whether it can be read,
    is reported with it. Long options (descriptions) are compared per token, without a thought.

    Parameters
    ----------
    engine : InferenceEngine
        The model with its features.
    items : list of Item
        Of one kind.
    """
    if items[0].kind == "describe":
        best = [int(np.argmax(row)) for row in score_options(engine, items, per_token=True)]
        chosen = [item.options[i] for item, i in zip(items, best, strict=True)]
        return Answers(chosen, [""] * len(items), list(chosen))
    texts, scores = think_and_score(engine, items)
    best = [int(np.argmax(row)) for row in scores]
    return Answers([item.options[i] for item, i in zip(items, best, strict=True)], texts,
                   [parse_answer(text, item.options) for text, item in zip(texts, items, strict=True)])


# ---------------------------------------------------------------- tier 1


@dataclass(frozen=True)
class Predictions:
    """Answers of all models to test windows, and the label probabilities of the language model."""

    windows: pd.DataFrame  # one row a window: id, subject, session, clip, window, label
    answers: dict[str, np.ndarray]  # model to class indices, -1 for an answer that could not be read
    probabilities: np.ndarray  # (n_windows, n_labels)
    labels: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """As it is written: labels by name, empty for an answer that could not be read.

        One column ``p(label)`` a label.
        """
        table = self.windows.reset_index(drop=True)
        for name, given in self.answers.items():
            table[name] = [self.labels[i] if i >= 0 else "" for i in given]
        for i, label in enumerate(self.labels):
            table[f"p({label})"] = self.probabilities[:, i]
        return table

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Predictions:
        """From what :meth:`table` made; ValueError if it has another form, or shares that are no numbers."""
        columns = list(table.columns)
        labels = tuple(column[2:-1] for column in columns if column.startswith("p(") and column.endswith(")"))
        if "label" not in columns or not labels:
            raise ValueError(f"A table of predictions needs the columns 'label' and 'p(label)', not {columns[:12]}.")
        shares = table[columns[-len(labels) :]]
        if unknown := [label for label in set(table["label"]) if label not in labels]:
            raise ValueError(f"The table of predictions has no column of shares for the label {unknown[0]!r:.60} of "
                             "its rows: make it again.")
        numbers = shares.apply(pd.to_numeric, errors="coerce")
        if list(shares) != [f"p({label})" for label in labels] or not np.isfinite(numbers).all(axis=None):
            raise ValueError("The table of predictions has shares that are no numbers, or that are not its last "
                             "columns: make it again.")
        first, code = columns.index("label") + 1, {label: i for i, label in enumerate(labels)}
        answers = {name: table[name].map(code).fillna(-1).astype(int).to_numpy()
                   for name in columns[first : -len(labels)]}
        return cls(table[columns[:first]], answers, shares.to_numpy(), labels)

    @property
    def truth(self) -> np.ndarray:
        """True class indices, shape (n_windows,)."""
        return self.windows["label"].map({label: i for i, label in enumerate(self.labels)}).to_numpy()


class Tier1(NamedTuple):
    """Basic prediction."""

    table: pd.DataFrame  # score, intervals, chance and further metrics of each model
    tests: pd.DataFrame  # paired tests of the other models against the language model
    predictions: Predictions
    items: list[Item]
    answers: Answers  # of the language model


def tier_1_row(corpus: Corpus, name: str, predicted: np.ndarray, role: str) -> dict:
    """Row of the tier-1 table: score of the answers to the test windows with chance and both intervals, kappa and F1.

    Parameters
    ----------
    corpus : Corpus
        Its test windows were answered.
    name : str
        Of the model.
    predicted : ndarray of int, shape (n_test,)
        Class indices, -1 for an answer that could not be read.
    role : str
        A :class:`e2llm.evaluation.controls.Role`.
    """
    test, n_classes = corpus.split.test, len(corpus.label_set)
    truth, subjects, clips = corpus.labels[test], corpus.subjects[test], corpus.windows.index["clip"].to_numpy()[test]
    row = score_row(name, truth, predicted, subjects, clips, n_classes, role=Role(role))
    return row | classification(truth, predicted, n_classes)


def comparisons(corpus: Corpus, answers: dict[str, np.ndarray]) -> pd.DataFrame:
    """Every other model against the language model (:func:`~e2llm.evaluation.metrics.compare_models`).

    Parameters
    ----------
    corpus : Corpus
        Its test windows were answered.
    answers : dict
        Model to class indices.
    """
    test = corpus.split.test
    truth, subjects, n_classes = corpus.labels[test], corpus.subjects[test], len(corpus.label_set)
    scores = pd.DataFrame({name: per_subject(truth, given, subjects, n_classes)["balanced_accuracy"]
                           for name, given in answers.items()})
    return compare_models(scores, "LLM").reset_index(names="name").assign(reference="LLM")


def tier_1(corpus: Corpus, engine: InferenceEngine, head: np.ndarray, encoder: EEGPT | FrozenTokens,
           recipes: Sequence[Recipe], seed: int, oracle: np.ndarray | None = None) -> Tier1:
    """Basic prediction: the model, its controls, the stage-1 head, the baselines and, on a twin, the oracle.

    Parameters
    ----------
    corpus : Corpus
        Its test windows are asked about.
    engine : InferenceEngine
        The language model with its features.
    head : ndarray of int, shape (n_test,)
        Class indices from the stage-1 head.
    encoder : EEGPT or FrozenTokens
        Frozen encoder before stage 1, for the linear probe.
    recipes : sequence of Recipe
        Baselines.
    seed : int
        Of questions and controls.
    oracle : ndarray of int, shape (n_test,), optional
        Class indices from the oracle.
    """
    test, labels = corpus.split.test, corpus.label_set.labels
    items, index = prediction_items(corpus, test, seed), corpus.windows.index.iloc[test]
    names = {EEGInput.EEG: "LLM", EEGInput.SHUFFLED: "LLM, shuffled EEG", EEGInput.NONE: "LLM, no EEG"}
    scored = {source: closed_set(*asked)
              for source, asked in variants(engine, items, corpus.windows.index, test, seed + 1).items()}
    answers = {names[source]: found.argmax(axis=1) for source, found in scored.items()} | {"stage-1 head": head}
    recipes = distinct(recipes, corpus.split)
    for recipe in recipes:
        answers[recipe.name] = fit_baseline(recipe, corpus, corpus.split, encoder).rows(test)
    texts = generate(engine, items)
    parsed = [parse_answer(text, list(labels)) for text in texts]
    answers["LLM, free text"] = np.array([labels.index(label) if label is not None else -1 for label in parsed])
    if oracle is not None:
        answers["oracle"] = oracle
    roles = {"oracle": Role.ORACLE, **{recipe.name: Role.BASELINE for recipe in recipes}, "stage-1 head": Role.MODEL,
             "LLM": Role.MODEL, "LLM, free text": Role.MODEL, "LLM, shuffled EEG": Role.CONTROL,
             "LLM, no EEG": Role.CONTROL}
    order = [name for name in roles if name in answers]
    windows = index[["id", "subject", "session", "clip", "window", "label"]]
    table = with_notes(pd.DataFrame([tier_1_row(corpus, name, answers[name], roles[name]) for name in order]), recipes,
                       corpus.split)
    return Tier1(table,
                 comparisons(corpus, {name: answers[name] for name in order}),
                 Predictions(windows, answers, scored[EEGInput.EEG], labels), items,
                 Answers([labels[i] for i in answers["LLM"]], texts, parsed))


def baseline_table(corpus: Corpus, encoder: EEGPT | FrozenTokens, recipes: Sequence[Recipe],
                   on_step: Callable[..., None] | None = None) -> pd.DataFrame:
    """Baselines under the corpus's split; rows of the tier-1 table.

    Parameters
    ----------
    corpus : Corpus
        Windows and split.
    encoder : EEGPT or FrozenTokens
        Frozen encoder that has seen no label, for the linear probe.
    recipes : sequence of Recipe
        Which baselines, each with its alignment.
    on_step : callable, optional
        ``on_step(step)`` after each.
    """
    rows = []
    for step, recipe in enumerate(distinct(recipes, corpus.split), 1):
        answers = fit_baseline(recipe, corpus, corpus.split, encoder).rows(corpus.split.test)
        rows.append(tier_1_row(corpus, recipe.name, answers, Role.BASELINE))
        if on_step is not None:
            on_step(step)
    return with_notes(pd.DataFrame(rows), recipes, corpus.split)


def with_notes(table: pd.DataFrame, recipes: Sequence[Recipe], split: Split) -> pd.DataFrame:
    """A table of scores with a column ``note`` if a baseline was approximated under a split.

    Parameters
    ----------
    table : DataFrame
        A row a model, with its name.
    recipes : sequence of Recipe
        Baselines of the table.
    split : Split
        What they were fitted under.
    """
    notes = table["name"].map({recipe.name: recipe.note(split) for recipe in recipes}).fillna("")
    return table.assign(note=notes) if notes.any() else table


# ---------------------------------------------------------------- tiers 2 and 3


class Example(NamedTuple):
    """First item of a kind with the model's answer and text."""

    item: Item
    chosen: str
    text: str


class Examination(NamedTuple):
    """Tiers 2 and 3: tables as they are written, and examples."""

    scores: pd.DataFrame  # one row a kind and source of EEG
    strata: pd.DataFrame  # the same for every stratum of the zero-shot scenarios; empty without scenarios
    item_seeds: pd.DataFrame  # how much the scores of single item seeds differ
    examples: dict[str, Example]


def examiners(corpus: Corpus, n_items: int, item_seeds: int, seed: int) -> list[OneSubjectBuilder]:
    """A builder of items about the test windows for each item seed; never more of them than items.

    Parameters
    ----------
    corpus : Corpus
        Its test windows are asked about.
    n_items, item_seeds : int
        Items of a kind, and wanted number of item seeds.
    seed : int
        Item seed ``i`` is ``(seed, i)``.
    """
    return [OneSubjectBuilder.of_test(corpus, [seed, i]) for i in range(min(item_seeds, n_items))]


def drawn_items(builders: list[OneSubjectBuilder], kind: str, n_items: int) -> list[list[Item]]:
    """Items of one kind, ``n_items`` together: a list of each builder, equally long up to one item.

    Parameters
    ----------
    builders : list of OneSubjectBuilder
        One for each item seed.
    kind : str
        Of the items.
    n_items : int
        Of all builders together.
    """
    sizes = [len(part) for part in np.array_split(np.arange(n_items), len(builders))]
    return [builder.draw(kind, size) for builder, size in zip(builders, sizes, strict=True)]


def graded(corpus: Corpus, drawn: list[list[Item]], given: Answers) -> pd.DataFrame:
    """One row an item: what it is about, which luck it shares with others, and whether its answer is right.

    Parameters
    ----------
    corpus : Corpus
        Its windows were asked about.
    drawn : list of lists of Item
        From :func:`drawn_items`, of one kind.
    given : Answers
        To all of them, in their order.
    """
    clips, items = corpus.windows.index["clip"].astype(str).to_numpy(), [item for part in drawn for item in part]
    return pd.DataFrame({
        "name": [item.kind for item in items], "tier": [item.tier for item in items],
        "stratum": [item.stratum for item in items],
        "item seed": [i for i, part in enumerate(drawn) for _ in part],
        "subject": [item.subject for item in items],
        "clips": [sorted(set(clips[item.windows])) for item in items],
        "texts": [sorted(set(item.texts)) for item in items],
        "correct": [chosen == item.answer for chosen, item in zip(given.chosen, items, strict=True)],
        "chance": [1 / len(item.options) for item in items],
        "parsed": [answer is not None for answer in given.parsed]})


def item_score(rows: pd.DataFrame, seed: int = 0) -> tuple[Score, dict]:
    """Accuracy of the items of all item seeds together.

    Parameters
    ----------
    rows : DataFrame
        From :func:`graded`.
    seed : int
        Of the bootstrap of people.

    Returns
    -------
    score : Score
        Its interval holds for other people, other clips, other scenario texts and other items of these
        (:func:`e2llm.evaluation.person_bootstrap.crossed_accuracy`).
    more : dict
        ``people low`` and ``people high``: the interval for other people and the very same items.
    """
    right, chance = rows["correct"].to_numpy(), rows["chance"].to_numpy()
    over_people = accuracy(right, chance, rows["subject"].to_numpy(), seed)
    people = [[who] for who in rows["subject"]]
    score = crossed_accuracy(right, chance, people, list(rows["clips"]), list(rows["texts"]))
    return score, {"people low": over_people.low, "people high": over_people.high}


def questions(corpus: Corpus, n_items: int, item_seeds: int, seed: int) -> dict[str, list[list[Item]]]:
    """Items of every multi-task and zero-shot kind that the source serves; see :func:`drawn_items`.

    Parameters
    ----------
    corpus, n_items, item_seeds, seed
        As in :func:`tiers_2_and_3`.
    """
    builders = examiners(corpus, n_items, item_seeds, seed)
    return {kind: drawn_items(builders, kind, n_items)
            for kind in (*TIER_2, *TIER_3) if kind in builders[0].kinds()}


def answered(corpus: Corpus, engine: InferenceEngine, drawn: list[list[Item]], source: EEGInput, seed: int) -> Answers:
    """Answers to the items of one kind with EEG or under one control, the exchange drawn anew for each item seed.

    Parameters
    ----------
    corpus, engine, seed
        As in :func:`tiers_2_and_3`.
    drawn : list of lists of Item
        From :func:`drawn_items`, of one kind.
    source : EEGInput
        What the items are asked with.
    """
    if source is EEGInput.SHUFFLED:
        index, test = corpus.windows.index, corpus.split.test
        return Answers.joined(answer(shuffled(engine, index, test, [seed + 1, i]), part)
                              for i, part in enumerate(drawn))
    items = [item for part in drawn for item in part]
    return answer(engine, items if source is EEGInput.EEG else without_eeg(items))


def tiers_2_and_3(corpus: Corpus, engine: InferenceEngine, n_items: int, item_seeds: int, seed: int) -> Examination:
    """Every multi-task and zero-shot kind that the source serves, with EEG and under both controls.

    Items are a sample too: which windows and scenarios meet in them. So they are drawn with several seeds, scores are
    those of all of them together, and the exchange of the shuffled EEG is drawn anew for each.

    Parameters
    ----------
    corpus : Corpus
        Its test windows are asked about.
    engine : InferenceEngine
        The language model with its features.
    n_items, item_seeds : int
        Items of each kind, all item seeds together, and number of these seeds.
    seed : int
        Of items, controls and intervals.
    """
    asked = questions(corpus, n_items, item_seeds, seed)
    given = {(kind, source): answered(corpus, engine, drawn, source, seed) for kind, drawn in asked.items()
             for source in EEGInput}
    return examination(corpus, asked, given, seed)


def examination(corpus: Corpus, asked: dict[str, list[list[Item]]], given: Mapping[tuple[str, EEGInput], Answers],
                seed: int) -> Examination:
    """Tables of tiers 2 and 3 from questions and answers.

    Parameters
    ----------
    corpus : Corpus
        Its test windows were asked about.
    asked : dict
        From :func:`questions`.
    given : mapping
        Answers of :func:`answered` to every kind and source.
    seed : int
        Of the intervals.
    """
    rows = pd.concat([graded(corpus, drawn, given[kind, source]).assign(group=source)
                      for kind, drawn in asked.items() for source in EEGInput], ignore_index=True)
    with_eeg = {kind: given[kind, EEGInput.EEG] for kind in asked}
    examples = {kind: Example(asked[kind][0][0], answers.chosen[0], answers.texts[0])
                for kind, answers in with_eeg.items()}
    in_strata = [rows[(rows["name"] == kind) & (rows["stratum"] == stratum)] for kind in TIER_3 for stratum in STRATA]
    return Examination(_score_table(rows, [], seed), _score_table(pd.concat(in_strata), ["stratum"], seed),
                       item_seed_spread(rows), examples)


def _score_table(rows: pd.DataFrame, more: list[str], seed: int) -> pd.DataFrame:
    """Scores of every kind and source of EEG, with further columns that tell rows apart."""
    table = []
    for (kind, tier, source, *values), own in rows.groupby(["name", "tier", "group", *more], sort=False):
        score, people = item_score(own, seed)
        role = Role.MODEL if source is EEGInput.EEG else Role.CONTROL
        columns = {"tier": tier, **dict(zip(more, values, strict=True)), "group": source, "role": role}
        table.append(score.row(kind, **columns) | people | {"parsed": own["parsed"].mean()})
    return pd.DataFrame(table)


def item_seed_spread(rows: pd.DataFrame) -> pd.DataFrame:
    """How much the score of a kind depends on the seed with which its items were drawn, for one and the same model.

    Parameters
    ----------
    rows : DataFrame
        From :func:`graded`, with the column ``group``.

    Returns
    -------
    DataFrame
        ``name``, ``group``, ``mean``, ``sd`` (n - 1), ``min`` and ``max`` over item seeds, the ``sd by luck`` that
        independent answers of this accuracy would have, ``chance``, ``items`` of a seed and ``seeds``.
    """
    keys = ["name", "group"]
    seeds = rows.groupby([*keys, "item seed"], sort=False)["correct"].agg(["mean", "size"]).groupby(keys, sort=False)
    table = seeds["mean"].agg(["mean", "std", "min", "max"]).rename(columns={"std": "sd"})
    table["items"], table["seeds"] = seeds["size"].min(), seeds["size"].size()
    table["sd by luck"] = np.sqrt(table["mean"] * (1 - table["mean"]) / table["items"])
    table["chance"] = rows.groupby(keys, sort=False)["chance"].mean()
    return table.reset_index()[[*keys, "mean", "sd", "sd by luck", "min", "max", "chance", "items", "seeds"]]


def ablation_rows(ablation: str, corpus: Corpus, engine: InferenceEngine, n_items: int, item_seeds: int,
                  seed: int) -> list[dict]:
    """Tier-1 closed set, and one kind each of tier 2 and 3, of one ablation.

    Parameters
    ----------
    ablation : str
        Its name.
    corpus, engine, n_items, item_seeds, seed
        As in :func:`tiers_2_and_3`.
    """
    test = corpus.split.test
    predicted = closed_set(engine, prediction_items(corpus, test, seed)).argmax(axis=1)
    scores = {"predict": balanced_accuracy(corpus.labels[test], predicted, corpus.subjects[test],
                                           len(corpus.label_set))}
    builders = examiners(corpus, n_items, item_seeds, seed)
    for kind in (kind for kind in ("match", "zero_match") if kind in builders[0].kinds()):
        drawn = drawn_items(builders, kind, n_items)
        answers = answer(engine, [item for part in drawn for item in part])
        scores[kind] = item_score(graded(corpus, drawn, answers), seed)[0]
    return [score.row(kind, group=ablation) for kind, score in scores.items()]


def samples(first: Tier1, examples: dict[str, Example], n: int = 3) -> list[dict]:
    """Answers for people to read: some of tier 1 (right and wrong), one of each other kind.

    Parameters
    ----------
    first : Tier1
        Basic prediction.
    examples : dict
        From :func:`tiers_2_and_3`.
    n : int
        How many of tier 1.
    """
    is_right = [label == item.answer for label, item in zip(first.answers.parsed, first.items, strict=True)]
    right, wrong = ([i for i, hit in enumerate(is_right) if hit is wanted] for wanted in (True, False))
    chosen = [(first.items[i], first.answers.texts[i]) for i in right[: n - 1] + wrong[:1]]
    chosen += [(item, text or f"(scored) {given}") for item, given, text in examples.values()]
    return [{"question": question_text(item), "answer": text, "truth": item.answer} for item, text in chosen]


# ---------------------------------------------------------------- tables of several runs


def pooled(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tier-1 scores over the folds of a protocol: every person was tested in one of them.

    Two people in a fold give little information about others; together the folds resample all people.

    Parameters
    ----------
    tables : sequence of DataFrame
        ``predictions.csv`` of runs that differ only in their fold.

    Raises
    ------
    ValueError
        If a window was tested in several of them, or the answers are not from the same label set and models.
    """
    if any(list(table.columns) != list(tables[0].columns) for table in tables):
        raise ValueError("The folds do not hold answers of the same models and labels: pool runs that differ only in "
                         "their fold.")
    table = pd.concat(tables, ignore_index=True)
    if table.duplicated(["subject", "clip", "window"]).any():
        raise ValueError("A window was tested in several folds: pool a protocol whose test parts are disjoint.")
    found = Predictions.from_table(table)
    subjects, clips = table["subject"].astype(str).to_numpy(), table["clip"].to_numpy()
    rows = [score_row(name, found.truth, given, subjects, clips, len(found.labels))
            for name, given in found.answers.items()]
    return pd.DataFrame(rows).assign(subjects=len(np.unique(subjects)))


def spread(metrics: dict[int, dict]) -> pd.DataFrame:
    """How much the scores of tier 1, and of tiers 2 and 3 with EEG, depend on the seed.

    Parameters
    ----------
    metrics : dict of int to dict
        Seed to the ``metrics.json`` of a run; three or more that differ only in it.

    Returns
    -------
    DataFrame
        ``tier``, ``name``, the columns of :func:`e2llm.evaluation.metrics.over_seeds`, ``chance`` and ``seeds``.
    """
    scores: dict[tuple, dict[int, Score]] = {}
    for seed, content in metrics.items():
        for tier, rows in (("1", content["tables"]["tier_1"]), ("2 and 3", content["tables"]["tiers_2_and_3"])):
            for row in rows:
                if tier == "1" or row["group"] == EEGInput.EEG:
                    scores.setdefault((tier, row["name"]), {})[seed] = score_of(pd.DataFrame([row]), row["name"])
    return pd.DataFrame([{"tier": tier, "name": name, **over_seeds(found), "chance": next(iter(found.values())).chance,
                          "seeds": len(found)} for (tier, name), found in scores.items()])


def score_of(table: pd.DataFrame, name: str, group: str | None = None, clips: bool = False) -> Score:
    """One row of a table of scores, with its interval over people.

    Parameters
    ----------
    table : DataFrame
        Of scores.
    name, group : str
        Of the row.
    clips : bool
        Take the interval over people and clips.

    Raises
    ------
    KeyError
        If there is no such row.
    """
    rows = table[table["name"] == name]
    if group is not None:
        rows = rows[rows["group"] == group]
    if rows.empty:
        raise KeyError(f"No row '{name}'{'' if group is None else f' of {group}'} in the table.")
    row = rows.iloc[0]
    low, high = (row[f"clips {end}" if clips else end] for end in ("low", "high"))
    return Score(value=row["score"], low=low, high=high, chance=row["chance"], n=int(row["n"]))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of scores for people to read: percent, an interval in one column; ``role`` where no ``group`` says more.

    Where the table has them, further intervals, the best score without EEG and notes follow every score.
    """
    more = [column for column in ("stratum",) if column in table]
    more += [column for column in ("group", "role") if column in table][:1]
    shown = table[["name", *more]].assign(**{"score %": table["score"].mul(100).round(1)})
    for low, high, title in (("low", "high", "95 % interval"), ("clips low", "clips high", "people and clips"),
                             ("people low", "people high", "people only")):
        if low in table:
            shown[title] = [f"{100 * a:.1f} – {100 * b:.1f}" for a, b in zip(table[low], table[high], strict=True)]
    shown["chance %"] = table["chance"].mul(100).round(1)
    if BEST_PROBE in table:
        shown[f"{BEST_PROBE} %"] = table[BEST_PROBE].mul(100).round(1)
    shown = shown.assign(n=table["n"])
    return (shown.assign(note=table["note"].fillna("")) if "note" in table else shown).set_index("name")
