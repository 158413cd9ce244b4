"""Initialization study: the run of each initialization in each fold, and the tables of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..core.files import replacing
from ..data.dataset import Corpus
from ..evaluation.baselines import PROBE, Recipe, fit_baseline
from ..evaluation.studies.initialization import (
    INITIALIZATIONS,
    PRETRAINED_FROM,
    PROBED,
    TRAINED,
    UNTRAINED,
    answer_table,
    differences,
    scores,
)
from ..models.eegpt import eegpt_config
from ..training.losses import HeadParams
from ..training.pretraining import PretrainParams
from ..training.stage1_encoder import new_encoder
from ..training.trainer import FitParams
from .evaluation_stage import head_answers
from .model_size_study import share_stages
from .pretraining_stage import pretrain
from .runs import Progress, Run, Stage, runs_folder
from .stages import open_dataset, train_encoder


@dataclass(frozen=True)
class Plan:
    """How initializations are made and tested.

    The default pretraining was chosen by how much it explains of hidden channels at times when others are shown, in
    EEGMAT's validation people of fold 0: in the end 28 %, with the paper's reconstructor in place of the linear one 0.
    No label was used.

    Parameters
    ----------
    size : str
        Published size of the encoder.
    pretraining, mask : FitParams, PretrainParams
        Schedule of the pretraining, and what it hides.
    stage_1 : FitParams or None
        Schedule of stage 1, the same for all initializations; None leaves stage 1 out.
    patch_dropout, channel_dropout : float
        Of the encoder in stage 1.
    head : HeadParams
        Losses of stage 1.
    edited : int
        Band-edited windows in a batch of stage 1.
    """

    size: str = "tiny2"
    pretraining: FitParams = field(
        default_factory=lambda: FitParams(steps=1500, batch_size=16, lr=2e-3, save_steps=500))
    mask: PretrainParams = field(default_factory=lambda: PretrainParams(rebuilt_beside=1.0, drawn=96,
                                                                        reconstructor="linear"))
    stage_1: FitParams | None = field(
        default_factory=lambda: FitParams(steps=300, batch_size=32, lr=2e-3, save_steps=10**6))
    patch_dropout: float = 0.5
    channel_dropout: float = 0.25
    head: HeadParams = field(default_factory=HeadParams)
    edited: int = 0


class Study(NamedTuple):
    """What is known of all initializations in all folds."""

    answers: pd.DataFrame  # a row a test window; see e2llm.evaluation.studies.initialization.scores
    explained: pd.DataFrame  # a row a fold, initialization and part: explained share of the variance of hidden patches


# ---------------------------------------------------------------- one initialization in one fold


def begin(base: Run, start: str, split_settings: dict, plan: Plan) -> Run:
    """The run of an initialization in a fold, up to the answers of its linear probe; what is finished is kept.

    Parameters
    ----------
    base : Run
        With finished windows.
    start : str
        One of :data:`e2llm.evaluation.studies.initialization.INITIALIZATIONS`.
    split_settings : dict
        Arguments of :func:`e2llm.data.splits.make_split`, ``fold`` among them.
    plan : Plan
        Schedules.

    Raises
    ------
    ValueError
        For an unknown initialization.
    """
    _check([start])
    run = Run.open(f"{base.name}-init-{start}-fold{split_settings['fold']}")
    share_stages(base, run, ("windows",))
    corpus = open_dataset(run, split_settings)
    if start in PRETRAINED_FROM:
        pretrain(run, corpus, split_settings, plan.size, plan.pretraining, plan.mask, PRETRAINED_FROM[start])
    probe(run, corpus, split_settings, start, plan)
    return run


def _check(starts: Sequence[str]) -> None:
    if unknown := [start for start in starts if start not in INITIALIZATIONS]:
        raise ValueError(f"Unknown initializations {unknown} (known: {', '.join(INITIALIZATIONS)}).")


def weights_of(run: Run, start: str) -> str:
    """What ``encoder_weights`` takes for an initialization: a name, or the file that this run's pretraining left.

    Parameters
    ----------
    run : Run
        Of the initialization; its file is named from the project where it lies inside.
    start : str
        Name of the initialization.
    """
    if start in UNTRAINED:
        return UNTRAINED[start]
    path = run.path / "pretraining" / "encoder.safetensors"
    return path.relative_to(run.root).as_posix() if path.is_relative_to(run.root) else str(path)


def probe(run: Run, corpus: Corpus, split_settings: dict, start: str, plan: Plan) -> Stage:
    """Logistic regression on the mean tokens of the untrained encoder; leaves class indices of the test windows.

    Parameters
    ----------
    run : Run
        Made by :func:`begin`.
    corpus : Corpus
        Its dataset; the strength of the regularization is chosen on the validation part.
    split_settings : dict
        Arguments of :func:`e2llm.data.splits.make_split`, ``fold`` among them.
    start : str
        One of :data:`e2llm.evaluation.studies.initialization.INITIALIZATIONS`.
    plan : Plan
        Schedules.
    """
    needs = ("windows", "pretraining") if start in PRETRAINED_FROM else ("windows",)
    seed = plan.pretraining.seed
    settings = {"protocol": split_settings, "start": start, "encoder": asdict(eegpt_config(plan.size)), "seed": seed}
    stage = run.stage("probe", settings, needs=needs)
    if stage.done:
        return stage
    stage.begin()
    encoder, origin = new_encoder(corpus, eegpt_config(plan.size), weights_of(run, start), seed)
    given = fit_baseline(Recipe(PROBE), corpus, corpus.split, encoder).rows(corpus.split.test)
    np.save(stage.path / "answers.npy", given)
    return stage.finish(origin=origin)


def train(run: Run, start: str, split_settings: dict, plan: Plan) -> Stage:
    """Stage 1 from an initialization, in the run that :func:`begin` has made.

    Parameters
    ----------
    run : Run
        Made by :func:`begin`.
    start : str
        One of :data:`e2llm.evaluation.studies.initialization.INITIALIZATIONS`.
    split_settings : dict
        Arguments of :func:`e2llm.data.splits.make_split`, ``fold`` among them.
    plan : Plan
        Schedules.
    """
    changes = {"patch_dropout": plan.patch_dropout, "channel_dropout": plan.channel_dropout}
    return train_encoder(run, open_dataset(run, split_settings), split_settings, plan.size, changes,
                         weights_of(run, start), plan.stage_1, plan.head, plan.edited)


def gather(runs: Mapping[str, Run], split_settings: dict, trained: bool) -> pd.DataFrame:
    """Answers to the test windows of one fold.

    Parameters
    ----------
    runs : mapping
        Initialization to its run.
    split_settings : dict
        Of the fold.
    trained : bool
        Whether stage 1 was trained too.
    """
    corpus = open_dataset(next(iter(runs.values())), split_settings)
    answers = {(PROBED, start): np.load(run.path / "probe" / "answers.npy") for start, run in runs.items()}
    if trained:
        answers |= {(TRAINED, start): head_answers(run, corpus.split.test) for start, run in runs.items()}
    return answer_table(corpus, split_settings["fold"], answers)


# ---------------------------------------------------------------- all of them


def study(base: Run, split_settings: dict, folds: Sequence[int], plan: Plan | None = None,
          starts: Sequence[str] = INITIALIZATIONS) -> Study:
    """Make and test every initialization in every fold that is not finished yet, and write the tables of all.

    The folder of runs then holds ``<base>-init.csv`` (:func:`e2llm.evaluation.studies.initialization.scores`),
    ``-init-differences.csv`` (:func:`e2llm.evaluation.studies.initialization.differences`), ``-init-answers.csv`` and
    ``-init-explained.csv``.

    Parameters
    ----------
    base : Run
        With finished windows.
    split_settings : dict
        Arguments of :func:`e2llm.data.splits.make_split` but the fold; whole people should be held out.
    folds : sequence of int
        Different ones; their test parts may not overlap.
    plan : Plan, optional
        Schedules.
    starts : sequence of str
        Of :data:`e2llm.evaluation.studies.initialization.INITIALIZATIONS`.

    Raises
    ------
    ValueError
        For an unknown initialization, no fold, or a window that several folds test.
    """
    plan = plan or Plan()
    _check(starts)
    if not starts or not folds:
        raise ValueError(f"A study needs one initialization and one fold or more, not {tuple(starts)} and "
                         f"{tuple(folds)}.")
    tests, settings = (1 if plan.stage_1 is None else 2), {fold: {**split_settings, "fold": fold} for fold in folds}
    runs: dict[int, dict[str, Run]] = {fold: {} for fold in folds}
    with Progress(base, tests * len(folds) * len(starts), "initializations") as progress:
        for fold in folds:
            for start in starts:
                runs[fold][start] = begin(base, start, settings[fold], plan)
                progress.update(sum(map(len, runs.values())), fold=fold, start=start)
        pairs = [(fold, start) for fold in folds for start in starts] if plan.stage_1 else []
        for i, (fold, start) in enumerate(pairs, 1):
            train(runs[fold][start], start, settings[fold], plan)
            progress.update(len(folds) * len(starts) + i, fold=fold, start=start)
    trained = plan.stage_1 is not None
    answers = pd.concat([gather(runs[fold], settings[fold], trained) for fold in folds], ignore_index=True)
    found = Study(answers, _explained(runs))
    n_classes = len(open_dataset(runs[folds[0]][starts[0]], settings[folds[0]]).label_set)
    tables = {"": scores(answers, n_classes), "-answers": answers, "-explained": found.explained}
    if (pretrained := [start for start in starts if start in PRETRAINED_FROM]) and len(starts) > 1:
        tables["-differences"] = pd.concat([differences(answers, n_classes, start) for start in pretrained])
    for kind, table in tables.items():
        with replacing(runs_folder() / f"{base.name}-init{kind}.csv") as partial:
            table.to_csv(partial, index=False, float_format="%.6f", lineterminator="\n")
    return found


def _explained(runs: Mapping[int, Mapping[str, Run]]) -> pd.DataFrame:
    """Shares of :func:`e2llm.training.pretraining.explained` by fold, start and part (train: those pretrained on)."""
    rows = [{"fold": fold, "start": start, "part": part, **shares} for fold, each in runs.items()
            for start in each if start in PRETRAINED_FROM
            for part, shares in each[start].require("pretraining")["metrics"]["explained"].items()]
    return pd.DataFrame(rows, columns=["fold", "start", "part", "hidden_times", "beside"])


# ---------------------------------------------------------------- scores of a table of answers


def read_answers(path: str | Path) -> pd.DataFrame:
    """A table of answers from its file; names of people stay text."""
    return pd.read_csv(path, dtype={"subject": str})
