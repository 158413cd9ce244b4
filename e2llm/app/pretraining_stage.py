"""The stage ``pretraining``: load windows, pretrain an encoder without labels, save it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from safetensors.torch import load_file, save_file

from ..data.dataset import Corpus
from ..models.device import current_device
from ..models.eegpt import EEGPT, EEGPTConfig, eegpt_config
from ..models.encoders import initialization_key
from ..training.pretraining import (
    PARTS,
    MaskedPretraining,
    PretrainParams,
    epochs,
    explained,
    masked_collate,
    new_model,
    save_encoder,
)
from ..training.trainer import FitParams, Samples, fit
from .runs import Progress, Run, Stage


def pretrain(run: Run, corpus: Corpus, split_settings: dict, size: str, params: FitParams,
             mask: PretrainParams | None = None, start: str = "scaled", parts: Sequence[str] = ("train",)) -> Stage:
    """Masked pretraining on windows of a corpus, as the stage ``pretraining``.

    Its ``encoder.safetensors`` is what ``encoder_weights`` takes.

    Parameters
    ----------
    run, corpus, split_settings
        As in :func:`e2llm.app.stages.train_encoder`.
    size : str
        Published size of the encoder.
    params : FitParams
        Schedule and seed.
    mask : PretrainParams, optional
        What is hidden, and the momentum; default as published.
    start : str
        Initialization of the encoder, as :func:`e2llm.models.eegpt_weights.initialize_encoder` takes it; the paper's is
        ``random``, which needs far more steps.
    parts : sequence of str
        Parts of the split whose windows are used. With any but ``train`` the encoder is trained on people or clips of
        the tests (their signals, never their labels): a declared choice, which the stage's record keeps.

    Raises
    ------
    ValueError
        For unknown parts.
    """
    if not parts or set(parts) - set(PARTS):
        raise ValueError(f"parts must name some of {', '.join(PARTS)}, not {list(parts)}.")
    mask, config = mask or PretrainParams(), eegpt_config(size)
    wanted = {"protocol": split_settings, "encoder": asdict(config), "start": start, "parts": sorted(parts),
              "mask": asdict(mask), "fit": asdict(params)}
    stage = run.stage("pretraining", wanted, needs=("windows",), inputs=initialization_key(start))
    if stage.done:
        return stage
    stage.begin()
    rows = np.sort(np.concatenate([getattr(corpus.split, part) for part in parts]))
    model = new_model(corpus.windows.ch_names, config, start, mask, params.seed)
    with Progress(run, params.steps, "pretraining") as progress:

        def on_step(step: int, **facts: object) -> None:
            model.follow(step, params.steps)
            progress.update(step, **facts)

        samples = Samples(epochs(rows, params), lambda row: {"row": row})
        collate = masked_collate(corpus.windows.data, corpus.equalize, corpus.norm_groups, mask, params.seed)
        history = fit(model, samples, collate, params, stage.path / "checkpoints", terms=("align", "rebuild"),
                      on_step=on_step)
    history.to_csv(stage.path / "history.csv", index=False)
    model.cpu()
    save_encoder(model.target_encoder, stage.path / "encoder.safetensors")
    rest = {key: value for key, value in model.state_dict().items() if not key.startswith("target_encoder.")}
    save_file(rest, stage.path / "rest.safetensors")
    model.to(current_device())
    found = {part: explained(model, corpus, getattr(corpus.split, part), params.seed) for part in ("train", "val")}
    people = sorted(set(corpus.subjects[rows]))
    stage.finish({"final_loss": float(history["loss"].iloc[-1]), "explained": found}, windows=len(rows), people=people,
                 seen=f"signals of {' and '.join(sorted(parts))} windows, no label")
    return stage


def load_model(run: Run, corpus: Corpus) -> MaskedPretraining:
    """The whole model of a finished pretraining, with predictor and reconstructor: to show what it rebuilds.

    Parameters
    ----------
    run, corpus : Run and Corpus
        With the stage ``pretraining`` finished.
    """
    kept, folder = run.require("pretraining")["params"], run.path / "pretraining"
    model = MaskedPretraining(EEGPT(EEGPTConfig(**kept["encoder"]), corpus.windows.ch_names),
                              PretrainParams(**kept["mask"]))
    target = {f"target_encoder.{key}": value for key, value in load_file(folder / "encoder.safetensors").items()}
    model.load_state_dict(load_file(folder / "rest.safetensors") | target)
    return model.to(current_device()).eval()
