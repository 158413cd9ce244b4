"""Initialization study: what random weights, designed weights and masked pretraining are worth to an encoder.

Every initialization is tested by a linear probe and after stage 1, on new subjects. The answers to the test windows of
all folds form one table, together with answers that use no encoder, or no EEG; scores and differences are made from
that table alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...data.dataset import Corpus
from ..baselines import LOGISTIC, Recipe
from ..metrics import paired_difference, score_row
from ..protocols_compared import BaselineClassifier, Classifier
from ..protocols_compared import probe as shortcut

PRETRAINED = "pretrained"
# Initializations without training, as e2llm.models.eegpt_weights.start_encoder knows them
UNTRAINED = {"random": "random", "scaled": "scaled", "physiology": ""}
# Initializations by pretraining, and the weights that it begins from
PRETRAINED_FROM = {PRETRAINED: UNTRAINED["scaled"], "physiology-pretrained": UNTRAINED["physiology"]}
INITIALIZATIONS = (*UNTRAINED, *PRETRAINED_FROM)
PROBED, TRAINED = "linear probe", "stage 1"  # tests of an initialization: as it is, and after training with labels
KEYS = ("fold", "window", "subject", "clip", "label")  # columns of a table of answers that are no answers


@dataclass(frozen=True)
class Column:
    """Column of a table of answers: a test (``group``) of an initialization or another model (``name``)."""

    group: str
    name: str

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

    @classmethod
    def parse(cls, column: str) -> Column:
        """From the name of a column."""
        group, colon, name = column.partition(": ")
        if not colon:
            raise ValueError(f"Columns of answers are called 'test: name', not {column!r}.")
        return cls(group, name)


COMPARED: dict[Column, Classifier] = {Column("no encoder", LOGISTIC): BaselineClassifier(Recipe(LOGISTIC)),
                                      **{Column("no EEG", name): shortcut(name)
                                         for name in ("clip duration", "majority")}}


def answer_table(corpus: Corpus, fold: int, answers: Mapping[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """Answers to the test windows of one fold, with those of :data:`COMPARED`; a row a window.

    Parameters
    ----------
    corpus : Corpus
        Windows and split of the fold.
    fold : int
        Its number.
    answers : mapping
        Test and initialization to class indices, shape (n_test,).
    """
    test = corpus.split.test
    columns = {"fold": fold, "window": test, "subject": corpus.subjects[test],
               "clip": corpus.windows.index["clip"].to_numpy()[test], "label": corpus.labels[test]}
    columns |= {str(Column(*key)): given for key, given in answers.items()}
    return pd.DataFrame(columns | {str(column): classify(corpus, corpus.split)
                                   for column, classify in COMPARED.items()})


def _columns(answers: pd.DataFrame) -> dict[Column, np.ndarray]:
    """Class indices of everything that answered; ValueError if the table is not one of pooled answers."""
    if missing := [key for key in KEYS if key not in answers]:
        raise ValueError(f"A table of answers needs the columns {', '.join(KEYS)}; it lacks {missing}.")
    if answers["window"].duplicated().any():
        raise ValueError("A window was tested in several folds: pool a protocol whose test parts are disjoint.")
    return {Column.parse(column): answers[column].to_numpy() for column in answers if column not in KEYS}


def _people(answers: pd.DataFrame) -> np.ndarray:
    return answers["subject"].astype(str).to_numpy()


def scores(answers: pd.DataFrame, n_classes: int, seed: int = 0) -> pd.DataFrame:
    """Balanced accuracy of every test and initialization over all folds together.

    Parameters
    ----------
    answers : DataFrame
        A row a test window: the columns :data:`KEYS`, then one of class indices for each :class:`Column`.
    n_classes : int
        Classes of the label set; chance is one over it.
    seed : int
        Of the intervals.

    Returns
    -------
    DataFrame
        ``name`` (the initialization), ``group`` (the test), score, interval over people and over people and clips,
        chance, ``n`` windows and ``subjects``; see :func:`e2llm.evaluation.metrics.score_row`.
    """
    found = _columns(answers)
    truth, subjects, clips = answers["label"].to_numpy(), _people(answers), answers["clip"].to_numpy()
    rows = [score_row(column.name, truth, given, subjects, clips, n_classes, seed, group=column.group)
            for column, given in found.items()]
    return pd.DataFrame(rows).assign(subjects=len(np.unique(subjects)))


def differences(answers: pd.DataFrame, n_classes: int, of: str = PRETRAINED, seed: int = 0) -> pd.DataFrame:
    """One initialization minus every other one in the same test, paired over people.

    Parameters
    ----------
    answers, n_classes, seed
        As in :func:`scores`.
    of : str
        The initialization that the others are subtracted from.

    Returns
    -------
    DataFrame
        ``of``, ``name`` (the other initialization), ``group`` (the test), ``difference`` and its interval over people;
        see :func:`e2llm.evaluation.metrics.paired_difference`.

    Raises
    ------
    ValueError
        If nothing in the table was answered from that initialization.
    """
    found = _columns(answers)
    reference = {column.group: given for column, given in found.items() if column.name == of}
    if not reference:
        raise ValueError(f"No answers of '{of}' in the table (there are "
                         f"{', '.join(dict.fromkeys(column.name for column in found))}).")
    truth, subjects, rows = answers["label"].to_numpy(), _people(answers), []
    for column, given in found.items():
        if column.group in reference and column.name != of:
            found_difference = paired_difference(truth, reference[column.group], given, subjects, n_classes, seed)
            rows.append((of, column.name, column.group, *found_difference))
    return pd.DataFrame(rows, columns=["of", "name", "group", "difference", "low", "high"])
