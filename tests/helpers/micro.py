"""One small run, all stages of it, made once for all workers; tests that change it take a hard-linked copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from e2llm.app import evaluation_stage, stages
from e2llm.app.runs import Run
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.models.language import ScratchParams
from e2llm.training import stage3_instruction
from e2llm.training.losses import HeadParams
from e2llm.training.trainer import FitParams

CLIPS = {"protocol": "clips", "fold": 0, "n_groups": 4, "normalization": "session", "accept_leaks": False}
LANGUAGE_MODEL = ScratchParams(vocab_size=600, hidden_size=48, layers=2)
FIT = FitParams(4, 4, 4e-3)


def open_run(runs: Path, name: str) -> Run:
    """The run called ``name`` below another folder than the project's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2LLM_RUNS", str(runs))
        return Run.open(name)


def linked(run: Run, runs: Path, name: str) -> Run:
    """A hard-linked copy of a run: the code replaces files of a run and never writes into them."""
    # Without its locks: what another test holds would be held here too.
    shutil.copytree(run.path, runs / name, copy_function=os.link, ignore=shutil.ignore_patterns("*.lock"))
    return open_run(runs, name)


def train(run: Run, protocol: dict = CLIPS, fit: FitParams = FIT) -> Run:
    """Stages 1 to 3 and the evaluation on the windows of a run, a few steps each; a finished encoder is kept."""
    corpus = stages.open_dataset(run, protocol)
    if not run.finished("encoder"):
        stages.train_encoder(run, corpus, protocol, "tiny1", {}, "", FitParams(4, 8, 4e-3), HeadParams(), 0)
    corpus = stages.open_dataset(run, levels="low_high")
    stages.make_language_model(run, corpus, "scratch", "float32", LANGUAGE_MODEL, 40, 1, fit)
    stages.align(run, corpus, 1, 2, 8, 1.0, fit)
    adapter = stage3_instruction.AdapterParams(rank=2, alpha=4)
    stages.instruct(run, corpus, {"predict": 8, "match": 4, "compare": 4}, 4, adapter, fit)
    evaluation_stage.evaluate(run, corpus, None, 3, 2, False, False, 0, n_jobs=1, answer_from="eeg")
    return run


def make_micro_run(runs: Path, twin: Path) -> Run:
    """Simulated recordings to metrics: the run ``micro`` below ``runs``."""
    run = open_run(runs, "micro")
    stages.preprocess(run, "seed-vii", twin, PreprocessParams(), n_jobs=1)
    return train(run)
