"""One classifier, several truths: the same features and model scored under every protocol, each beside what sees no EEG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from .baselines import LOGISTIC, SVM, Recipe, fit_baseline
from .encoder import EEGPT
from .metrics import balanced_accuracy
from .shortcuts import PROBES
from .splits import Split, make_split
from .stages import Corpus
from .statistics import clustered_interval

Classifier = Callable[[Corpus, Split], np.ndarray]  # class indices of split.test
N_GROUPS = {"subjects": 5, "joint": 3}


@dataclass(frozen=True)
class Setting:
    """A protocol with its way to a person's levels."""

    protocol: str
    normalisation: str

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.protocol}, {self.normalisation}"

    def splits(self, index: pd.DataFrame) -> list[Split]:
        """All folds; one that leaks by design is taken, and marked."""
        people = index["subject"].nunique()
        n_folds = {"random_windows": 5, "clips": 4, "within_subject": 4 * people, **N_GROUPS}[self.protocol]
        n_groups = N_GROUPS.get(self.protocol, n_folds)
        return [make_split(index, self.protocol, self.normalisation, accept_leaks=True, fold=fold, n_groups=n_groups) for fold in range(n_folds)]


SETTINGS = (Setting("random_windows", "calibration"), Setting("clips", "calibration"), Setting("clips", "session"),
            Setting("within_subject", "session"), Setting("subjects", "transductive"), Setting("subjects", "population"),
            Setting("joint", "calibration"), Setting("joint", "population"))


def baseline(recipe: Recipe, encoder: EEGPT | None = None) -> Classifier:
    """A baseline as a classifier of any split; see :func:`e2llm.baselines.fit_baseline`."""

    def classify(corpus: Corpus, split: Split) -> np.ndarray:
        return fit_baseline(recipe, corpus, split, encoder).rows(split.test)

    return classify


def probe(name: str) -> Classifier:
    """A shortcut probe as a classifier; see :mod:`e2llm.shortcuts`."""

    def classify(corpus: Corpus, split: Split) -> np.ndarray:
        return np.array([corpus.label_set.index(label) for label in PROBES[name](corpus.windows.index, split)])

    return classify


MODELS: dict[str, Classifier] = {recipe.name: baseline(recipe) for recipe in (Recipe(LOGISTIC, "z-score"), Recipe(SVM, "z-score"))}
SHORTCUTS: dict[str, Classifier] = {name: probe(name) for name in ("clip duration", "nearest in time", "position in session", "session prior")}


def under_protocols(corpus: Corpus, classifiers: Mapping[str, Classifier] = MappingProxyType(MODELS | SHORTCUTS),
                    settings: Sequence[Setting] = SETTINGS, seed: int = 0, tell: Callable[..., None] | None = None) -> pd.DataFrame:
    """Score models and shortcut probes under each protocol, pooled over its folds.

    Parameters
    ----------
    corpus : Corpus
        Windows of a run; its own split plays no part.
    classifiers : mapping
        Name to what answers for the test rows of a split.
    settings : sequence of Setting
        Protocols. One that leaks by design is taken, and marked.
    seed : int
        Of the intervals.
    tell : callable, optional
        ``tell(step)`` after each setting.

    Returns
    -------
    DataFrame
        ``name`` (classifier), ``group`` (setting), score with interval over people and chance, ``clips low`` and ``clips high``
        (interval over people and clips), ``leaky``, ``statement``.
    """
    rows = []
    clips = corpus.windows.index["clip"].to_numpy()
    for step, setting in enumerate(settings, 1):
        splits = setting.splits(corpus.windows.index)
        test = np.concatenate([split.test for split in splits])
        for name, classify in classifiers.items():
            answers = np.concatenate([classify(corpus, split) for split in splits])
            truth, owners, n_classes = corpus.labels[test], corpus.owners[test], len(corpus.label_set)
            score = balanced_accuracy(truth, answers, owners, n_classes, seed)
            wide = clustered_interval(truth, answers, owners, clips[test], n_classes, seed)
            rows.append(score.row(name, group=setting.name) | {"clips low": wide.low, "clips high": wide.high, "leaky": splits[0].leaky,
                                                               "statement": splits[0].statement})
        if tell is not None:
            tell(step)
    return pd.DataFrame(rows)
