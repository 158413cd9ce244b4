"""Draw figures/processes.png: losses of training by one process and by two, which are the same.

``python docs/draw_processes.py`` trains the three stages at small size twice on the CPU (gloo), writes the losses to
docs/processes.csv and draws them; ``--draw`` only draws what stands there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
LOSSES, FIGURE = HERE / "processes.csv", HERE.parent / "figures" / "processes.png"
STAGES = {"encoder": "Stage 1: encoder", "projector": "Stage 2: projector", "adapter": "Stage 3: LoRA"}
STEPS, SEED = 40, 5
ONE, TWO = "#0072B2", "#D55E00"  # of Okabe and Ito: told apart by every kind of color vision
SPLIT = {"protocol": "clips", "fold": 0, "n_groups": 4, "normalization": "session", "accept_leaks": False}


def trained() -> pd.DataFrame:
    """Losses of each step: columns stage, step, one, two (processes)."""
    import torch

    from e2llm.app import stages
    from e2llm.app.runs import Run
    from e2llm.data.preprocess_params import PreprocessParams
    from e2llm.data.simulation import TwinParams, simulate
    from e2llm.models.language import ScratchParams
    from e2llm.training.losses import HeadParams
    from e2llm.training.trainer import FitParams

    torch.set_num_threads(1)
    dropout = {"patch_dropout": stages.DEFAULTS.patch_dropout, "channel_dropout": stages.DEFAULTS.channel_dropout}
    first, second, third = (FitParams(STEPS, 8, rate, seed=SEED) for rate in (
        stages.DEFAULTS.encoder_lr, stages.DEFAULTS.alignment_lr, stages.DEFAULTS.instruction_lr))
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["E2LLM_RUNS"] = folder
        twin = simulate(Path(folder) / "twin", TwinParams(3, 2, 15, (8.2, 9.0)), n_jobs=1)
        run = Run.open("by1")
        stages.preprocess(run, "seed-vii", twin, PreprocessParams(), n_jobs=1)
        work = {
            "encoder": lambda run, n: stages.train_encoder(run, stages.open_dataset(run, SPLIT), SPLIT, "tiny1",
                                                           dropout, "", first, HeadParams(), 8, n),
            "projector": lambda run, n: stages.align(run, stages.open_dataset(run), n_items=120, params=second,
                                                     processes=n),
            "adapter": lambda run, n: stages.instruct(run, stages.open_dataset(run), dict.fromkeys(stages.KINDS, 30),
                                                      30, params=third, processes=n),
        }
        for name, train in work.items():  # both go on from the same files
            other = Run.open(f"{name}2")
            shutil.copytree(run.path, other.path, ignore=shutil.ignore_patterns("*.lock"), dirs_exist_ok=True)
            for n, own in ((1, run), (2, other)):
                train(own, n)
                losses[name, n] = pd.read_csv(own.path / name / "history.csv")
            if name == "encoder":
                stages.make_language_model(run, stages.open_dataset(run), "scratch", "float32", ScratchParams(
                    vocab_size=600, hidden_size=48, layers=2), 400, 1, FitParams(60, 8, 4e-3))
    return pd.concat([pd.DataFrame({"stage": name, "step": losses[name, 1]["step"], "one": losses[name, 1]["loss"],
                                    "two": losses[name, 2]["loss"]}) for name in STAGES], ignore_index=True)


def drawn(losses: pd.DataFrame) -> Figure:
    """The losses, and below them how far apart they are.

    Parameters
    ----------
    losses : DataFrame
        As from :func:`trained`.
    """
    largest = float((losses["one"] - losses["two"]).abs().max())
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
    figure, axes = plt.subplots(2, len(STAGES), figsize=(10, 5), sharex="col", layout="constrained",
                                height_ratios=(2, 1), squeeze=False)
    figure.suptitle(f"Two processes train as one does: losses differ by at most {largest:.1e}")
    for i, (name, title) in enumerate(STAGES.items()):
        part = losses[losses["stage"] == name]
        above, below = axes[:, i]
        above.plot(part["step"], part["one"], color=ONE, linewidth=4, alpha=0.5, label="one process")
        above.plot(part["step"], part["two"], color=TWO, linewidth=1.3, linestyle="--", label="two processes")
        above.set(title=title, ylabel="weighted sum of losses" if i == 0 else "loss (nats a token)" if i == 1 else "")
        apart = np.maximum((part["one"] - part["two"]).abs(), 1e-9)
        below.semilogy(part["step"], apart, ".", color="black", markersize=4)
        below.axhline(1e-4, color="gray", linestyle=":", linewidth=1)
        below.set(xlabel="optimizer step", ylim=(3e-10, 5e-2), ylabel="difference (0: at 1e-9)" if i == 0 else "")
        below.text(part["step"].max(), 2e-4, "tolerance of the tests", ha="right", va="bottom", fontsize=8,
                   color="gray")
    axes[0, 0].legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="train nothing: draw docs/processes.csv")
    if not parser.parse_args().draw:
        trained().to_csv(LOSSES, index=False)
    drawn(pd.read_csv(LOSSES)).savefig(FIGURE, dpi=90)


if __name__ == "__main__":
    main()
