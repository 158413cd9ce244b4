"""Classifiers without EEG, under the same split as the models: what can be 'decoded' without any brain signal.

A probe knows who was recorded, when and for how long, and the labels of the training windows; never a label of the
validation or test windows, and never the signal. What it reaches, a model may have reached without the brain signal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data.protocols import Split
from .metrics import Score, balanced_accuracy

CLOCK_S = 0.005  # lengths are told apart to this: a header or a trigger may be a millisecond off from file to file
_TRIAL = ["subject", "session", "clip"]


def _clip_duration(index: pd.DataFrame, split: Split) -> np.ndarray:
    train, test, of_window = _trials(index, split)
    features = [name for name in ("n_windows", "seconds") if train[name].notna().all() and test[name].notna().all()]
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=0).fit(train[features].to_numpy(), train["label"])
    return tree.predict(test[features].to_numpy()).astype(str)[of_window]


class Probe(NamedTuple):
    """A classifier without EEG: labels of the test windows from index and split, and what it does in one sentence."""

    answer: Callable[[pd.DataFrame, Split], np.ndarray]
    what: str


PROBES = {
    "clip duration": Probe(
        _clip_duration,
        "Decision tree, grown to the end, on a trial's length: its number of windows and, where known, its seconds."),
    "position in session": Probe(
        lambda index, split: _nearest_place(index, split, False),
        "Most frequent training label, over all subjects, at the same place of the same session, or at the nearest "
        "place trained on."),
    "nearest in time": Probe(
        lambda index, split: _nearest_place(index, split, True),
        "Label of the subject's own training trial nearest in order within the session (of two equally near, the "
        "earlier), else of other subjects' trials at the nearest place of that session."),
    "session prior": Probe(
        lambda index, split: _prior(index, split, "session"),
        "Most frequent training label of the session, over all subjects."),
    "subject identity": Probe(
        lambda index, split: _prior(index, split, "subject"),
        "Most frequent training label of the same subject, or of all subjects for one who is not trained on."),
    "majority": Probe(lambda index, split: _prior(index, split, None), "Most frequent training label."),
}


def probe(index: pd.DataFrame, split: Split, seed: int = 0) -> pd.DataFrame:
    """Scores of every probe on the test windows, to compare with a model's.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``session``, ``clip``, ``label``; ``clip_s`` or ``start_s`` where known.
    split : Split
        The split of the models: probes learn from train and answer for test.
    seed : int
        Of the interval's bootstrap; the probes themselves draw nothing.

    Returns
    -------
    DataFrame
        One row a probe: ``name``, balanced accuracy (``score, low, high, chance, n``), plain ``accuracy``, and
        ``what`` the probe does in one sentence. Where all subjects saw the same clips in one order, all answers are
        the same for everyone, and an interval over subjects has no width: it says nothing about other clips.
    """
    rows = []
    truth = index["label"].iloc[split.test].astype(str).to_numpy()
    for name, (answer, what) in PROBES.items():
        answers = answer(index, split)
        score = _score(index, split, answers, seed)
        rows.append({**score.row(name), "accuracy": float((answers == truth).mean()), "what": what})
    return pd.DataFrame(rows)


def neighbor_worth(index: pd.DataFrame, split: Split) -> float:
    """Gain from neighbors in time across the split: balanced accuracy of 'nearest in time' minus chance.

    In SEED-VII, pooled over the four official folds, training on the three others: 0.286 - 0.143; an outer fold alone
    has 0.048, an inner one 0.238, and a protocol that sets the next fold aside for validation 0.048. Part of it is the
    session: it shows five of seven emotions, so that any of its training trials, near or not, is right one time in
    five.

    Parameters
    ----------
    index : DataFrame
        One row a window, in the order of the recording.
    split : Split
        Trains and tests.
    """
    score = _score(index, split, _nearest_place(index, split, own_first=True), seed=0)
    return score.value - score.chance


def session_worth(index: pd.DataFrame, split: Split) -> float:
    """Gain from recognizing the session: balanced accuracy of 'session prior' minus chance.

    Parameters
    ----------
    index : DataFrame
        One row a window, in the order of the recording.
    split : Split
        Trains and tests.
    """
    score = _score(index, split, _prior(index, split, "session"), seed=0)
    return score.value - score.chance


def _score(index: pd.DataFrame, split: Split, answers: np.ndarray, seed: int) -> Score:
    """Balanced accuracy of a probe's answers among all labels of the index."""
    labels = np.unique(index["label"].astype(str))
    truth = index["label"].iloc[split.test].astype(str).to_numpy()
    subjects = index["subject"].iloc[split.test].to_numpy()
    return balanced_accuracy(np.searchsorted(labels, truth), np.searchsorted(labels, answers), subjects, len(labels),
                             seed)


def _trials(index: pd.DataFrame, split: Split) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Training and test trials, one row each, in an order that does not depend on that of the windows.

    Returns
    -------
    train, test : DataFrame
        ``subject, session, clip, place`` (rank of the clip number within subject and session, from 1), ``n_windows``,
        ``seconds`` (the clip's length, else its last window's start, else missing), and for train only
        ``label`` and ``weight`` (number of its training windows).
    of_window : ndarray of int, shape (len(split.test),)
        Row of ``test`` that each test window belongs to.
    """
    known = index[[name for name in (*_TRIAL, "clip_s", "start_s") if name in index]].reset_index(drop=True)
    if "session" not in known:
        known["session"] = 1
    known["place"] = known.groupby(["subject", "session"])["clip"].rank(method="dense").astype(int)
    trial = known.groupby(_TRIAL)
    known["n_windows"] = trial["clip"].transform("size")
    length = next((name for name in ("clip_s", "start_s") if name in known and known[name].notna().all()), None)
    known["seconds"] = (trial[length].transform("max") / CLOCK_S).round() * CLOCK_S if length else np.nan
    known["trial"] = trial.ngroup()
    known = known[["trial", *_TRIAL, "place", "n_windows", "seconds"]]
    train = known.iloc[split.train].assign(label=index["label"].iloc[split.train].astype(str).to_numpy())
    train["weight"] = train.groupby("trial")["trial"].transform("size")
    train = train.drop_duplicates("trial").sort_values("trial", ignore_index=True)
    test = known.iloc[split.test].drop_duplicates("trial").sort_values("trial", ignore_index=True)
    return train, test, np.searchsorted(test["trial"], known["trial"].iloc[split.test])


def _most_frequent(train: pd.DataFrame) -> str:
    """The label of most training windows; of equally frequent ones the first of the alphabet."""
    return train.groupby("label")["weight"].sum().idxmax()


def _prior(index: pd.DataFrame, split: Split, column: str | None) -> np.ndarray:
    """Most frequent label of the training trials with the same value of a column, or of all where there are none."""
    train, test, of_window = _trials(index, split)
    overall = _most_frequent(train)
    if column is None:
        return np.full(len(of_window), overall)
    known = {value: _most_frequent(rows) for value, rows in train.groupby(column)}
    return test[column].map(known).fillna(overall).to_numpy().astype(str)[of_window]


def _nearest_place(index: pd.DataFrame, split: Split, own_first: bool) -> np.ndarray:
    """Most frequent training label at the place of the session nearest to each test trial's.

    Of two equally near places the earlier counts. Where a session has no training trial, the most frequent label of all
    answers. With SEED-VII's official folds the rule for ties does not matter: the middle clip of a block of five is as
    near to a clip before the block as to one after it, and shares its emotion with neither.
    """
    train, test, of_window = _trials(index, split)
    groups = {("", session): rows for session, rows in train.groupby("session")}
    if own_first:
        groups.update(dict(iter(train.groupby(["subject", "session"]))))
    overall, answers = _most_frequent(train), {}
    for asked in set(test[["subject", "session", "place"]].itertuples(index=False, name=None)):
        subject, session, place = asked
        rows = groups.get((subject, session), groups.get(("", session)))
        if rows is None:
            answers[asked] = overall
            continue
        nearest = min(rows["place"].unique(), key=lambda other: (abs(other - place), other))
        answers[asked] = _most_frequent(rows[rows["place"] == nearest])
    trials = test[["subject", "session", "place"]].itertuples(index=False, name=None)
    return np.array([answers[asked] for asked in trials], dtype=str)[of_window]
