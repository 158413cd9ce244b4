"""Answers from the thought alone, and their price: what they lose against answers from the EEG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.chat import Item
from ..core.claims import Claim, Claims, EvidenceNames
from ..core.labels import LabelSet
from ..data.dataset import Corpus
from ..models.inference import InferenceEngine, closed_set
from ..tasks.second_pass import Asked, in_words, level_item, options_of
from ..tasks.segments import Segment
from .controls import Role, other_windows
from .metrics import paired_difference, ratio_over_subjects
from .tiers import Answers, Predictions, Tier1, answer, graded, item_score, tier_1_row

FROM_THOUGHT = "from the thought"
OTHER_THOUGHT, NO_THOUGHT = "thought of another window", "empty thought"
DIRECT = frozenset({"predict", "zero_predict"})  # answered from one table; other kinds from what was read of segments


@dataclass(frozen=True)
class SecondPass:
    """A trained second pass (:mod:`e2llm.tasks.second_pass`).

    Parameters
    ----------
    engine : InferenceEngine
        The language model with the second pass's adapter. Features are not used.
    speaker : InferenceEngine
        The language model that answers questions about segments in words.
    names : EvidenceNames
        What was measured, and the scale of the claims.
    label_set : LabelSet
        Its labels are the answers.
    has_intensity : bool
        Whether intensity was taught.
    """

    engine: InferenceEngine
    speaker: InferenceEngine
    names: EvidenceNames
    label_set: LabelSet
    has_intensity: bool
    known: dict[tuple[Asked, tuple[Claim, ...]], np.ndarray] = field(
        default_factory=dict, init=False, repr=False, compare=False)

    def shares(self, claims: Sequence[Claims], asked: Asked = Asked.LABEL) -> np.ndarray:
        """Probability of every option, shape (n, n_options). Equal claims are read once, also in later calls.

        Parameters
        ----------
        claims : sequence of sequences of Claim, length n
            Of the thought about each window.
        asked : Asked
            What is read.
        """
        keys = [(asked, tuple(each)) for each in claims]
        if new := [key for key in dict.fromkeys(keys) if key not in self.known]:
            items = [level_item(asked, each, self.names, self.label_set) for _, each in new]
            self.known.update(zip(new, closed_set(self.engine, items), strict=True))
        return np.stack([self.known[key] for key in keys])

    def read(self, claims: Mapping[int, Claims]) -> dict[int, Segment]:
        """What is read of windows, as segments in words.

        Parameters
        ----------
        claims : mapping of int to sequence of Claim
            Window to the claims of its thought.
        """
        stated = list(claims.values())
        labels = [self.label_set.labels[i] for i in self.shares(stated).argmax(axis=1)]
        strength = np.full(len(stated), np.nan)
        if self.has_intensity:
            of_third = self.shares(stated, Asked.INTENSITY)
            strength = (of_third.argmax(axis=1) + 0.5) / of_third.shape[1]
        return {window: Segment(None, label, float(intensity), tuple(each), scale=self.names.scale)
                for window, label, intensity, each in zip(claims, labels, strength, stated, strict=True)}

    def affect(self, claims: Sequence[Claims]) -> list[str]:
        """Words for valence and arousal that follow from claims: "unpleasant and activated"."""
        options = options_of(Asked.AFFECT, self.label_set)
        return [options[i] for i in self.shares(claims, Asked.AFFECT).argmax(axis=1)]

    def answers(self, items: list[Item], claims: Mapping[int, Claims]) -> Answers:
        """Answers to items of one kind from the thoughts about their windows.

        Parameters
        ----------
        items : list of Item
            Questions; their EEG is not seen.
        claims : mapping of int to sequence of Claim
            Of the thought about every window of the items.
        """
        if items[0].kind in DIRECT:
            best = self.shares([claims[item.windows[0]] for item in items]).argmax(axis=1)
            chosen = [self.label_set.labels[i] for i in best]
            return Answers(chosen, [""] * len(items), list(chosen))
        segments = self.read({window: claims[window] for item in items for window in item.windows})
        return answer(self.speaker, [in_words(item, segments) for item in items])


def price(kind: str, truth: Sequence[str], eeg: Sequence[str], thought: Sequence[str], subjects: np.ndarray,
          labels: Sequence[str] | None = None, seed: int = 0) -> dict:
    """What an answer from the thought costs against one from the EEG, to the same items.

    Parameters
    ----------
    kind : str
        Of the items.
    truth, eeg, thought : sequence of str, length n
        Right answers, and those of both.
    subjects : ndarray, shape (n,)
        Person of every item; the interval is over people, drawn whole.
    labels : sequence of str, optional
        Balanced accuracy over these; default plain accuracy.
    seed : int
        Of the interval.

    Returns
    -------
    dict
        ``name``, ``from the EEG``, ``from the thought``, ``difference`` (thought minus EEG), ``low``, ``high``, ``n``.
    """
    right = [np.array(given) == np.array(truth) for given in (eeg, thought)]
    if labels is not None:
        codes = {label: i for i, label in enumerate(labels)}
        coded = [np.array([codes[one] for one in given]) for given in (truth, thought, eeg)]
        difference = paired_difference(*coded, subjects, len(labels), seed)
        scores = [float(np.mean([hits[coded[0] == i].mean() for i in np.unique(coded[0])])) for hits in right]
    else:
        gain = right[1].astype(float) - right[0]
        difference = ratio_over_subjects(gain, np.ones(len(gain)), subjects, seed, one_subject=(-1.0, 1.0))
        scores = [float(hits.mean()) for hits in right]
    return {"name": kind, "from the EEG": scores[0], FROM_THOUGHT: scores[1],
            **dict(zip(("difference", "low", "high"), difference, strict=True)), "n": len(truth)}


def pooled_price(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """What basic prediction from the thought costs over the folds of a protocol; every person was tested in one.

    Parameters
    ----------
    tables : sequence of DataFrame
        ``predictions.csv`` of runs that differ only in their fold (:func:`e2llm.evaluation.tiers.pooled`).

    Returns
    -------
    DataFrame
        A row of :func:`price`; none where the runs hold no answers from the thought.
    """
    table, own = pd.concat(tables, ignore_index=True), model_name(FROM_THOUGHT)
    if own not in table:
        return pd.DataFrame()
    truth, eeg, thought = (table[name].tolist() for name in ("label", "LLM", own))
    subjects = table["subject"].astype(str).to_numpy()
    return pd.DataFrame([price("predict", truth, eeg, thought, subjects, Predictions.from_table(table).labels)])


def model_name(group: str) -> str:
    """The name of answers from the thought, or of a control of them, among the models: "LLM, from the thought"."""
    return f"LLM, {group}"


class ThoughtTables(NamedTuple):
    """Scores of answers from the thought, and what they cost."""

    scores: pd.DataFrame  # name, group, role, score, low, high, chance, n
    price: pd.DataFrame  # rows of :func:`price`
    answers: dict[str, np.ndarray]  # to the test windows: model and its controls to class indices


def stated_in(corpus: Corpus, claims: Mapping[int, Claims], seed: int) -> dict[str, list[Claims]]:
    """What basic prediction from the thought is made from: of each test window its claims, and those of the controls.

    Parameters
    ----------
    corpus : Corpus
        Its test windows were asked about.
    claims : mapping of int to sequence of Claim
        Of the thought about every test window.
    seed : int
        Of the exchange of thoughts.

    Returns
    -------
    dict
        :data:`FROM_THOUGHT`, :data:`OTHER_THOUGHT` and :data:`NO_THOUGHT`, each to the claims of every test window.
    """
    test = corpus.split.test
    index, own = corpus.windows.index.iloc[test], [claims[int(row)] for row in test]
    other = other_windows(index["subject"].to_numpy(), index["label"].to_numpy(), np.random.default_rng(seed + 1))
    return {FROM_THOUGHT: own, OTHER_THOUGHT: [own[i] for i in other], NO_THOUGHT: [()] * len(own)}


def examined(corpus: Corpus, best: Mapping[str, np.ndarray], first: Tier1, asked: Mapping[str, list[list[Item]]],
             eeg: Mapping[str, Answers], thought: Mapping[str, Answers], seed: int) -> ThoughtTables:
    """All tiers from the thoughts about the test windows, beside the answers from the EEG.

    Parameters
    ----------
    corpus : Corpus
        Its test windows were asked about.
    best : mapping of str to ndarray of int, shape (n_test,)
        Class indices that :meth:`SecondPass.shares` gives to each part of :func:`stated_in`.
    first : Tier1
        Basic prediction from the EEG.
    asked, eeg, thought : mapping
        Kind to its items (:func:`e2llm.evaluation.tiers.questions`), and to the answers of both.
    seed : int
        Of intervals.
    """
    labels, subjects = corpus.label_set.labels, corpus.subjects[corpus.split.test]
    rows = [tier_1_row(corpus, "predict", found, Role.MODEL if group == FROM_THOUGHT else Role.CONTROL)
            | {"group": group} for group, found in best.items()]
    truth = [item.answer for item in first.items]
    prices = [price("predict", truth, first.answers.chosen, [labels[i] for i in best[FROM_THOUGHT]], subjects, labels,
                    seed)]
    for kind, drawn in asked.items():
        items = [item for part in drawn for item in part]
        score, people = item_score(graded(corpus, drawn, thought[kind]), seed)
        rows.append(score.row(kind, group=FROM_THOUGHT, role=Role.MODEL) | people)
        prices.append(price(kind, [item.answer for item in items], eeg[kind].chosen, thought[kind].chosen,
                            np.array([item.subject for item in items]), seed=seed))
    columns = ["name", "group", "role", "score", "low", "high", "chance", "n"]
    return ThoughtTables(pd.DataFrame(rows)[columns], pd.DataFrame(prices),
                         {model_name(group): found for group, found in best.items()})


def price_table(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of :func:`price` for people to read, percent and points."""
    shown = table[["name"]].assign(**{f"{name} %": table[name].mul(100).round(1)
                                      for name in ("from the EEG", FROM_THOUGHT)})
    shown["difference"] = [f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" for value, low, high
                           in zip(table["difference"], table["low"], table["high"], strict=True)]
    return shown.assign(n=table["n"]).set_index("name")


def price_in_words(table: pd.DataFrame) -> str:
    """The price of basic prediction as one sentence, in points of balanced accuracy.

    Parameters
    ----------
    table : DataFrame
        Rows of :func:`price`, one of them "predict".
    """
    row = table.set_index("name").loc["predict"]
    loss, ends = -100 * row["difference"], sorted(-100 * row[["low", "high"]])
    verb = "costs" if loss >= 0 else "gains"
    if loss < 0:
        loss, ends = -loss, sorted(-end for end in ends)
    return (f"An answer from the thought {verb} {loss:.1f} points of balanced accuracy against one from the EEG "
            f"({ends[0]:.1f} to {ends[1]:.1f}).")
