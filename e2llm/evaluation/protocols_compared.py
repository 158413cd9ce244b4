"""Protocol comparison: the same features and model scored under every protocol, each with probes that use no EEG.

Also what others have published under a split that can be named, and a clock: how well EEG predicts the time in a
session.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # its parts load when they are used
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from ..data.audit import Finding, reached_by_shortcuts
from ..data.dataset import Corpus
from ..data.features import differential_entropy
from ..data.protocols import JOINT_GROUPS, Split, n_folds
from ..data.splits import make_split
from ..models.eegpt import EEGPT
from .baselines import LOGISTIC, SVM, Recipe, distinct, fit_baseline
from .metrics import Score, mean_over_subjects, score_row
from .shortcuts import PROBES

Classifier = Callable[[Corpus, Split], np.ndarray]  # class indices of split.test


@dataclass(frozen=True)
class Setting:
    """A protocol with its normalization."""

    protocol: str
    normalization: str
    n_groups: int | None = None  # of subjects, if not the default; 0 leaves one out

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.protocol}{', one left out' if self.n_groups == 0 else ''}, {self.normalization}"

    def splits(self, index: pd.DataFrame, window_s: float = 4.0) -> list[Split]:
        """The folds that together test everybody once; one that leaks by design is taken, and marked.

        Parameters
        ----------
        index : DataFrame
            A row a window.
        window_s : float
            Length of a window in seconds.
        """
        options = {} if self.n_groups is None else {"n_groups": self.n_groups}
        folds = n_folds(index, self.protocol, **options)
        if self.protocol == "joint":  # its further folds test the same people again, on other clips
            folds = n_folds(index, "subjects", **({"n_groups": JOINT_GROUPS} | options))
        return [make_split(index, self.protocol, self.normalization, True, window_s, fold=fold, **options)
                for fold in range(folds)]


SETTINGS = (Setting("random_windows", "calibration"), Setting("clips", "calibration"), Setting("clips", "session"),
            Setting("within_subject", "session"), Setting("subjects", "transductive"),
            Setting("subjects", "population"), Setting("joint", "calibration"), Setting("joint", "population"))


@dataclass(frozen=True)
class BaselineClassifier:
    """A baseline as a classifier of any split; see :func:`e2llm.evaluation.baselines.fit_baseline`."""

    recipe: Recipe
    encoder: EEGPT | None = None

    def __call__(self, corpus: Corpus, split: Split) -> np.ndarray:
        """Class indices of the test windows, after training on the training windows.

        Parameters
        ----------
        corpus : Corpus
            The dataset.
        split : Split
            Trains and tests; may differ from that of the corpus.
        """
        return fit_baseline(self.recipe, corpus, split, self.encoder).rows(split.test)


def probe(name: str) -> Classifier:
    """A shortcut probe as a classifier; see :mod:`e2llm.evaluation.shortcuts`."""

    def classify(corpus: Corpus, split: Split) -> np.ndarray:
        return np.array([corpus.label_set.index(label) for label in PROBES[name].answer(corpus.windows.index, split)])

    return classify


# Seven classes of SEED-VII, plain accuracy in %, EEG alone. Only figures whose split and normalization are stated; a
# score without them (the paper's 61.73 among these) cannot be compared with ours. DE-CNN: a CNN on differential
# entropy. At second hand: the primary paper was not checked.
PUBLISHED = pd.DataFrame(
    [("subjects, transductive", 29.1, 1.8, "DE-CNN, one subject left out, z-scored"),
     ("subjects, population", 15.0, np.nan, "DE-CNN, one subject left out, not z-scored"),
     ("clips, transductive", 37.0, 2.4, "DE-CNN, official folds of clips, z-scored")],
    columns=["group", "published %", "sd", "what"])
MODELS: dict[str, Classifier] = {recipe.name: BaselineClassifier(recipe)
                                 for recipe in (Recipe(LOGISTIC, "z-score"), Recipe(SVM, "z-score"))}
SHORTCUTS: dict[str, Classifier] = {name: probe(name) for name in ("clip duration", "nearest in time",
                                                                   "position in session", "session prior")}


def under_protocols(corpus: Corpus, classifiers: Mapping[str, Classifier] | None = None,
                    settings: Sequence[Setting] = SETTINGS, seed: int = 0, on_step: Callable[..., None] | None = None,
                    n_jobs: int = 2) -> pd.DataFrame:
    """Score models and shortcut probes under each protocol, pooled over its folds.

    Parameters
    ----------
    corpus : Corpus
        Windows of a run; its own split plays no part.
    classifiers : mapping, optional
        Name to what answers for the test rows of a split; default :data:`MODELS` and :data:`SHORTCUTS`.
    settings : sequence of Setting
        Protocols. One that leaks by design is taken, and marked.
    seed : int
        Of the intervals.
    on_step : callable, optional
        ``on_step(step)`` after each setting.
    n_jobs : int
        Settings tried at a time; the result does not depend on it.

    Returns
    -------
    DataFrame
        ``name`` (classifier), ``group`` (setting), score with interval over people and chance, ``clips low`` and
        ``clips high`` (interval over people and clips), ``leaky``, ``statement``, and ``note`` where a baseline was
        approximated. Of baselines that are the same under a setting (:func:`e2llm.evaluation.baselines.distinct`) the
        first has a row.
    """
    classifiers = MODELS | SHORTCUTS if classifiers is None else classifiers
    work = Parallel(n_jobs=n_jobs, return_as="generator")(delayed(_under)(corpus, classifiers, setting, seed)
                                                          for setting in settings)
    rows = []
    for step, done in enumerate(work, 1):
        rows += done
        if on_step is not None:
            on_step(step)
    return pd.DataFrame(rows)


def _under(corpus: Corpus, classifiers: Mapping[str, Classifier], setting: Setting, seed: int) -> list[dict]:
    """Rows of one setting."""
    index = corpus.windows.index
    splits, clips = setting.splits(index, corpus.windows.window_s), index["clip"].to_numpy()
    test, rows = np.concatenate([split.test for split in splits]), []
    truth, subjects, n_classes = corpus.labels[test], corpus.subjects[test], len(corpus.label_set)
    kept = distinct([classify.recipe for classify in classifiers.values() if isinstance(classify, BaselineClassifier)],
                    splits[0])
    for name, classify in classifiers.items():
        if isinstance(classify, BaselineClassifier) and classify.recipe not in kept:
            continue
        answers = np.concatenate([classify(corpus, split) for split in splits])
        row = score_row(name, truth, answers, subjects, clips[test], n_classes, seed, group=setting.name)
        note = classify.recipe.note(splits[0]) if isinstance(classify, BaselineClassifier) else ""
        row |= {"leaky": splits[0].traits.leaky, "statement": splits[0].statement}
        rows.append(row | {"note": note} if note else row)
    return rows


def reached(table: pd.DataFrame) -> dict[str, list[Finding]]:
    """Warnings of every setting in a table of :func:`under_protocols`.

    See :func:`e2llm.data.audit.reached_by_shortcuts`.
    """
    found = {}
    for setting, rows in table.groupby("group", sort=False):
        is_probe = rows["name"].isin(PROBES)
        found[setting] = reached_by_shortcuts(rows[~is_probe], rows[is_probe])
    return found


def session_clock(corpus: Corpus, seed: int = 0) -> Score:
    """How well EEG predicts when in a session a window was recorded: what makes neighbors in time alike.

    In every session of every person, ridge regression from differential entropy to a clip's place in the session,
    trained on every second clip and tested on the others, both ways. (Blocks of clips would not do: the mean of the
    trained places is then far from the tested block, and the errors of a clock without information look like
    information.) Where the clock works, a clip's neighbors may be recognized by the time instead of the emotion.

    Parameters
    ----------
    corpus : Corpus
        Windows.
    seed : int
        Of the interval.

    Returns
    -------
    Score
        Mean over people of Spearman's correlation between predicted and true place within a session, interval over
        people, chance 0.

    Raises
    ------
    ValueError
        If a session has fewer than four clips.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    index, entropy = corpus.windows.index, differential_entropy(np.asarray(corpus.windows.power))
    features, agreement = entropy.reshape(len(index), -1), {name: [] for name in np.unique(corpus.subjects)}
    place = index.groupby(["subject", "session"])["clip"].rank(method="dense").to_numpy()
    if (fewest := int(index.groupby(["subject", "session"])["clip"].nunique().min())) < 4:
        raise ValueError(f"A session has {fewest} clips: a clock needs four or more to be asked about some and trained "
                         "on others.")
    for rows in index.groupby(["subject", "session"]).indices.values():
        for half in (0, 1):
            train, test = rows[place[rows] % 2 != half], rows[place[rows] % 2 == half]
            with threadpool_limits(1):
                clock = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 6))).fit(features[train],
                                                                                           place[train])
            told = scipy.stats.spearmanr(clock.predict(features[test]), place[test]).statistic
            agreement[corpus.subjects[rows[0]]].append(told)
    by_subject = np.array([np.mean(values) for values in agreement.values()])
    return mean_over_subjects(by_subject, chance=0.0, n=len(index), seed=seed, one_subject=(-1.0, 1.0))
