"""TODO purpose of app.initialization_study."""

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
from ..evaluation.studies.initialization import BESIDE, NAMED, PRETRAINED_FROM, PROBED, STARTS, TRAINED, differences, scores
from ..models.eegpt import HeadParams, eegpt_config
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
    """How starts are made and asked.

    The default pretraining was chosen by how much it explains of channels hidden beside shown ones in EEGMAT's validation people of fold 0: in the
    end 28 %, with the paper's reconstructor in place of the linear one 0. No label was looked at.

    Parameters
    ----------
    size : str
        Published size of the encoder.
    pretraining, mask : FitParams, PretrainParams
        Schedule of the pretraining, and what it hides.
    stage_1 : FitParams or None
        Schedule of stage 1, the same for all starts; None leaves stage 1 out.
    patch_dropout, channel_dropout : float
        Of the encoder in stage 1.
    head : HeadParams
        Losses of stage 1.
    edited : int
        Edited copies in a batch of stage 1.
    """

    size: str = "tiny2"
    pretraining: FitParams = field(default_factory=lambda: FitParams(steps=1500, batch_size=16, lr=2e-3, save_steps=500))
    mask: PretrainParams = field(default_factory=lambda: PretrainParams(rebuilt_beside=1.0, drawn=96, reconstructor="linear"))
    stage_1: FitParams | None = field(default_factory=lambda: FitParams(steps=300, batch_size=32, lr=2e-3, save_steps=10**6))
    patch_dropout: float = 0.5
    channel_dropout: float = 0.25
    head: HeadParams = field(default_factory=HeadParams)
    edited: int = 0


class Study(NamedTuple):
    """What is known of all starts in all folds."""

    answers: pd.DataFrame  # a row a test window: KEYS, then a column "way: start" of class indices
    explained: pd.DataFrame  # a row a fold, start and part: share of the variance of hidden patches that its pretraining explains


# ---------------------------------------------------------------- one start in one fold


def begin(base: Run, start: str, protocol: dict, plan: Plan) -> Run:
    """The run of a start in a fold, up to the answers of its linear probe; what is finished is kept, what was cut off goes on.

    Parameters
    ----------
    base : Run
        With finished windows.
    start : str
        One of :data:`STARTS`.
    protocol : dict
        Arguments of :func:`e2llm.data.splits.make_split`, ``fold`` among them.
    plan : Plan
        Schedules.

    Raises
    ------
    ValueError
        For an unknown start.
    """
    if start not in STARTS:
        raise ValueError(f"Unknown start '{start}' (known: {', '.join(STARTS)}).")
    run = Run.open(f"{base.name}-start-{start}-fold{protocol['fold']}")
    share_stages(base, run, ("windows",))
    corpus = open_dataset(run, protocol)
    if start in PRETRAINED_FROM:
        pretrain(run, corpus, protocol, plan.size, plan.pretraining, plan.mask, PRETRAINED_FROM[start])
    probe(run, corpus, protocol, start, plan)
    return run


def weights_of(run: Run, start: str) -> str:
    """What ``encoder_weights`` takes for a start: a name, or the file that this run's pretraining left, named from the project where it can be."""
    if start in NAMED:
        return NAMED[start]
    path = run.path / "pretraining" / "encoder.safetensors"
    return path.relative_to(run.root).as_posix() if path.is_relative_to(run.root) else str(path)


def probe(run: Run, corpus: Corpus, protocol: dict, start: str, plan: Plan) -> Stage:
    """Logistic regression on the mean tokens of the untrained encoder, its strength chosen on val; leaves class indices of the test windows."""
    needs = ("windows", "pretraining") if start in PRETRAINED_FROM else ("windows",)
    seed = plan.pretraining.seed
    stage = run.stage("probe", {"protocol": protocol, "start": start, "encoder": asdict(eegpt_config(plan.size)), "seed": seed}, needs=needs)
    if stage.done:
        return stage
    stage.begin()
    encoder, origin = new_encoder(corpus, eegpt_config(plan.size), weights_of(run, start), seed)
    given = fit_baseline(Recipe(PROBE), corpus, corpus.split, encoder).rows(corpus.split.test)
    np.save(stage.path / "answers.npy", given)
    return stage.finish(origin=origin)


def train(run: Run, start: str, protocol: dict, plan: Plan) -> Stage:
    """Stage 1 from a start, in the run that :func:`begin` has made."""
    changes = {"patch_dropout": plan.patch_dropout, "channel_dropout": plan.channel_dropout}
    return train_encoder(run, open_dataset(run, protocol), protocol, plan.size, changes, weights_of(run, start), plan.stage_1, plan.head, plan.edited)


def gather(runs: Mapping[str, Run], protocol: dict, trained: bool) -> pd.DataFrame:
    """Answers to the test windows of one fold, from the run of every start; see :class:`Study`."""
    corpus = open_dataset(next(iter(runs.values())), protocol)
    test = corpus.split.test
    columns = {"fold": protocol["fold"], "window": test, "subject": corpus.subjects[test],
               "clip": corpus.windows.index["clip"].to_numpy()[test], "label": corpus.labels[test]}
    columns |= {f"{PROBED}: {start}": np.load(run.path / "probe" / "answers.npy") for start, run in runs.items()}
    if trained:
        columns |= {f"{TRAINED}: {start}": head_answers(run, test) for start, run in runs.items()}
    return pd.DataFrame(columns | {name: classify(corpus, corpus.split) for name, classify in BESIDE.items()})


# ---------------------------------------------------------------- all of them


def study(base: Run, protocol: dict, folds: Sequence[int], plan: Plan | None = None, starts: Sequence[str] = STARTS) -> Study:
    """Make and ask every start in every fold that is not finished yet, and write the tables of all.

    Beside the runs lie then ``<base>-starts.csv`` (:func:`scores`), ``-starts-differences.csv`` (:func:`differences`), ``-starts-answers.csv`` and
    ``-starts-explained.csv``.

    Parameters
    ----------
    base : Run
        With finished windows.
    protocol : dict
        Arguments of :func:`e2llm.data.splits.make_split` but the fold; whole people should be held out.
    folds : sequence of int
        Different ones; their test parts may not overlap.
    plan : Plan, optional
        Schedules.
    starts : sequence of str
        Of :data:`STARTS`.

    Raises
    ------
    ValueError
        For an unknown start, no fold, or a window that several folds test.
    """
    plan = plan or Plan()
    if unknown := [start for start in starts if start not in STARTS]:
        raise ValueError(f"Unknown starts {unknown} (known: {', '.join(STARTS)}).")
    if not starts or not folds:
        raise ValueError(f"A study needs one start and one fold or more, not {tuple(starts)} and {tuple(folds)}.")
    ways, settings = (1 if plan.stage_1 is None else 2), {fold: {**protocol, "fold": fold} for fold in folds}
    runs: dict[int, dict[str, Run]] = {fold: {} for fold in folds}
    with Progress(base, ways * len(folds) * len(starts), "starts") as progress:
        for fold in folds:
            for start in starts:
                runs[fold][start] = begin(base, start, settings[fold], plan)
                progress.update(sum(map(len, runs.values())), fold=fold, start=start)
        for i, (fold, start) in enumerate([(fold, start) for fold in folds for start in starts] if plan.stage_1 else [], 1):
            train(runs[fold][start], start, settings[fold], plan)
            progress.update(len(folds) * len(starts) + i, fold=fold, start=start)
    answers = pd.concat([gather(runs[fold], settings[fold], plan.stage_1 is not None) for fold in folds], ignore_index=True)
    found = Study(answers, _explained(runs))
    n_classes = len(open_dataset(runs[folds[0]][starts[0]], settings[folds[0]]).label_set)
    tables = {"": scores(answers, n_classes), "-answers": answers, "-explained": found.explained}
    if (trained := [start for start in starts if start in PRETRAINED_FROM]) and len(starts) > 1:
        tables["-differences"] = pd.concat([differences(answers, n_classes, start) for start in trained])
    for kind, table in tables.items():
        with replacing(runs_folder() / f"{base.name}-starts{kind}.csv") as partial:
            table.to_csv(partial, index=False, float_format="%.6f", lineterminator="\n")
    return found


def _explained(runs: Mapping[int, Mapping[str, Run]]) -> pd.DataFrame:
    """``fold``, ``start``, ``part`` (train: people of the pretraining; val: others), and shares of :func:`e2llm.training.pretraining.explained`."""
    rows = [{"fold": fold, "start": start, "part": part, **shares} for fold, each in runs.items() for start in each if start in PRETRAINED_FROM
            for part, shares in each[start].require("pretraining")["metrics"]["explained"].items()]
    return pd.DataFrame(rows, columns=["fold", "start", "part", "hidden_times", "beside"])


# ---------------------------------------------------------------- scores of a table of answers


def read_answers(path: str | Path) -> pd.DataFrame:
    """A table of answers from its file; names of people stay text."""
    return pd.read_csv(path, dtype={"subject": str})
