"""One classifier, several truths: the same features and model scored under every protocol, each beside what sees no EEG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .baselines import linear_baseline
from .metrics import balanced_accuracy
from .shortcuts import PROBES
from .splits import Split, make_split
from .stages import Corpus

Classifier = Callable[[Corpus, Split], np.ndarray]  # class indices of split.test
N_FOLDS = {"random_windows": 5, "clips": 4, "subjects": 5, "joint": 3}


@dataclass(frozen=True)
class Setting:
    """A protocol with its way to a person's levels."""

    protocol: str
    normalisation: str

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.protocol}, {self.normalisation}"


SETTINGS = (Setting("random_windows", "calibration"), Setting("clips", "calibration"), Setting("subjects", "transductive"),
            Setting("subjects", "population"), Setting("joint", "calibration"), Setting("joint", "population"))


def calibrated_linear(corpus: Corpus, split: Split) -> np.ndarray:
    """Differential entropy against each person's own level, and logistic regression."""
    return linear_baseline(corpus.windows.power, corpus.labels, corpus.owners, split, calibrated=True)


def _probe(name: str) -> Classifier:
    def classify(corpus: Corpus, split: Split) -> np.ndarray:
        return np.array([corpus.label_set.index(label) for label in PROBES[name](corpus.windows.index, split)])

    return classify


CLASSIFIERS: dict[str, Classifier] = {"entropy + logistic regression": calibrated_linear,
                                      **{name: _probe(name) for name in ("clip duration", "nearest in time", "position in session")}}


def under_protocols(corpus: Corpus, settings: tuple[Setting, ...] = SETTINGS, seed: int = 0,
                    tell: Callable[..., None] | None = None) -> pd.DataFrame:
    """Score a model and the shortcut probes under each protocol, pooled over its folds.

    Parameters
    ----------
    corpus : Corpus
        Windows of a run; its own split plays no part.
    settings : tuple of Setting
        Protocols. One that leaks by design is taken, and marked.
    seed : int
        Of the intervals.
    tell : callable, optional
        ``tell(step)`` after each setting.

    Returns
    -------
    DataFrame
        ``name`` (classifier), ``group`` (setting), score with interval over people and chance, ``leaky``, ``statement``.
    """
    rows = []
    for step, setting in enumerate(settings, 1):
        splits = [make_split(corpus.windows.index, setting.protocol, setting.normalisation, accept_leaks=True, fold=fold,
                             n_groups=N_FOLDS[setting.protocol]) for fold in range(N_FOLDS[setting.protocol])]
        test = np.concatenate([split.test for split in splits])
        for name, classify in CLASSIFIERS.items():
            answers = np.concatenate([classify(corpus, split) for split in splits])
            score = balanced_accuracy(corpus.labels[test], answers, corpus.owners[test], len(corpus.label_set), seed)
            rows.append(score.row(name, group=setting.name) | {"leaky": splits[0].leaky, "statement": splits[0].statement})
        if tell is not None:
            tell(step)
    return pd.DataFrame(rows)
