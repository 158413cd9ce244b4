"""What is a start of the encoder worth? Noise, physiology and masked pretraining, asked by a linear probe and after stage 1, on unseen people.

Every start has a run of its own in every fold: it shares the windows of a base run (linked), and its pretraining, if it has one, uses the signals of
that fold's training people alone. What the runs answered to their test windows is put into one table, each fold below the other, with what
needs no encoder, or no EEG, beside it; scores and differences are made from that table alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..baselines import LOGISTIC, Recipe
from ..metrics import paired_difference
from ..protocols_compared import BaselineClassifier, Classifier
from ..protocols_compared import probe as shortcut
from ..statistics import scored

PRETRAINED = "pretrained"
NAMED = {"random": "random", "loud": "loud", "physiology": ""}  # starts that train nothing, as e2llm.models.eegpt_weights.start_encoder knows them
PRETRAINED_FROM = {PRETRAINED: NAMED["loud"], "physiology-pretrained": NAMED["physiology"]}  # starts that are trained, and what they begin as
STARTS = (*NAMED, *PRETRAINED_FROM)
PROBED, TRAINED = "linear probe", "stage 1"  # ways to ask what a start is worth: as it is, and after training with labels
KEYS = ("fold", "window", "subject", "clip", "label")  # columns of a table of answers that are no answers
BESIDE: dict[str, Classifier] = {f"no encoder: {LOGISTIC}": BaselineClassifier(Recipe(LOGISTIC)),
                                 **{f"no EEG: {name}": shortcut(name) for name in ("clip duration", "majority")}}  # fmt: skip


def _columns(answers: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Column, group and name of everything that answered; ValueError if the table is not one of pooled answers."""
    if missing := [key for key in KEYS if key not in answers]:
        raise ValueError(f"A table of answers needs the columns {', '.join(KEYS)}; it lacks {missing}.")
    if answers["window"].duplicated().any():
        raise ValueError("A window was tested in several folds: pool a protocol whose test parts are disjoint.")
    given = [column for column in answers if column not in KEYS]
    if wrong := [column for column in given if ": " not in column]:
        raise ValueError(f"Columns of answers are called 'way: name', not {wrong}.")
    return [(column, *column.split(": ", 1)) for column in given]


def _people(answers: pd.DataFrame) -> np.ndarray:
    return answers["subject"].astype(str).to_numpy()


def scores(answers: pd.DataFrame, n_classes: int, seed: int = 0) -> pd.DataFrame:
    """Balanced accuracy of every way and start over all folds together.

    Parameters
    ----------
    answers : DataFrame
        As in :class:`Study`.
    n_classes : int
        Classes of the label set; chance is one over it.
    seed : int
        Of the intervals.

    Returns
    -------
    DataFrame
        ``name`` (the start), ``group`` (the way), score, interval over people and over people and clips, chance, ``n`` windows
        and ``subjects``; see :func:`e2llm.evaluation.statistics.scored`.
    """
    found = _columns(answers)
    truth, subjects, clips = answers["label"].to_numpy(), _people(answers), answers["clip"].to_numpy()
    rows = [scored(name, truth, answers[column].to_numpy(), subjects, clips, n_classes, seed, group=group) for column, group, name in found]
    return pd.DataFrame(rows).assign(subjects=len(np.unique(subjects)))


def differences(answers: pd.DataFrame, n_classes: int, of: str = PRETRAINED, seed: int = 0) -> pd.DataFrame:
    """What one start is worth over every other one asked in the same way, paired over people (:func:`e2llm.evaluation.metrics.paired_difference`).

    Parameters
    ----------
    answers, n_classes, seed
        As in :func:`scores`.
    of : str
        The start that the others are subtracted from.

    Returns
    -------
    DataFrame
        ``of``, ``name`` (the other start), ``group`` (the way), ``difference`` and its interval over people.

    Raises
    ------
    ValueError
        If nothing in the table was answered from that start.
    """
    found = _columns(answers)
    groups = {group: column for column, group, name in found if name == of}
    if not groups:
        raise ValueError(f"No answers of '{of}' in the table (there are {', '.join(dict.fromkeys(name for *_, name in found))}).")
    truth, subjects, rows = answers["label"].to_numpy(), _people(answers), []
    for column, group, name in found:
        if group in groups and name != of:
            one, other = answers[groups[group]].to_numpy(), answers[column].to_numpy()
            rows.append((of, name, group, *paired_difference(truth, one, other, subjects, n_classes, seed)))
    return pd.DataFrame(rows, columns=["of", "name", "group", "difference", "low", "high"])
