"""Checkpoints as they are found: tensors and facts of a file, a hub folder or a hub id, and whether they suit this kit's signals.

Read are the authors' checkpoint (``.ckpt``: a ``state_dict`` with ``target_encoder.*`` beside the parts that only pretraining needs), the
layout of the Hugging Face hub (``braindecode/eegpt-pretrained``: ``config.json`` and ``model.safetensors``, again ``target_encoder.*``, a buffer
``chans_id`` and a head), and what :mod:`e2llm.pretraining` leaves. Key names are facts read in BINE022/EEGPT and braindecode 1.8.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from .encoder import N_PATCHES, PATCH, SFREQ
from .montage import EEGPT_UNTRAINED, EEGPT_VOCABULARY, canonical
from .runs import project_root

RELEASED_CHANNELS = tuple(name for name in EEGPT_VOCABULARY if name not in EEGPT_UNTRAINED)  # the 58 of the authors' pretraining, in its order
UNIT = "mV"
_TARGET = "target_encoder."  # the momentum encoder, the one that the authors release for use
_FAINT = 0.05  # of the channel embedding's spread: EEG that moves tokens by less is hardly heard


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights as it was found: all its tensors, and what it or its ``config.json`` says about them."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict

    @property
    def encoder(self) -> dict[str, Tensor]:
        """Tensors of the encoder alone, without the prefix; all tensors where no prefix tells it apart."""
        if own := [key for key in self.tensors if _TARGET in key]:
            prefix = own[0][: own[0].index(_TARGET) + len(_TARGET)]
            return {key.removeprefix(prefix): self.tensors[key] for key in own if key.startswith(prefix)}
        return self.tensors

    @property
    def aside(self) -> list[str]:
        """First names of the parts that are not the encoder's, such as ``predictor`` or ``final_layer``."""
        return sorted({key.split(".")[0] for key in self.tensors if _TARGET not in key} if self.encoder is not self.tensors else set())

    @property
    def channels(self) -> list[str] | None:
        """Names of the rows of the channel embedding; None if nothing tells them."""
        if stated := self.facts.get("channel_rows"):
            return [canonical(name) for name in stated]
        rows = len(self.encoder["chan_embed.weight"]) if "chan_embed.weight" in self.encoder else 0
        return {len(EEGPT_VOCABULARY): list(EEGPT_VOCABULARY), len(RELEASED_CHANNELS): list(RELEASED_CHANNELS)}.get(rows)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Tensors and facts of a file (``.ckpt``, ``.pth``, ``.bin``, ``.safetensors``), of a folder in the hub's layout, or of a hub id.

    Parameters
    ----------
    path : str or path
        A file; a folder with ``config.json`` and ``model.safetensors``; or, where no such path exists, ``owner/name`` on the hub.

    Raises
    ------
    ValueError
        If it is not there, holds anything but plain tensors (a pickle with other objects is never run), or holds no named tensors.
    """
    path = located(path)
    facts, config = {}, path.parent / "config.json"
    try:
        if config.is_file() and path.name in ("model.safetensors", "pytorch_model.bin"):
            facts = json.loads(config.read_text(encoding="utf-8"))
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (the file is no mapping)
                facts |= {key: json.loads(text) for key, text in (file.metadata() or {}).items() if text[:1] in "[{\""}
                facts |= facts.pop("e2llm", {})
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as plain weights ({str(error).splitlines()[0]}): files that hold other "
                         "objects are refused; convert it to safetensors where you trust it.") from error
    for name in ("state_dict", "model"):
        state = state[name] if isinstance(state, Mapping) and isinstance(state.get(name), Mapping) else state
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise ValueError(f"{path} holds no named tensors: give the file that holds the EEGPT weights.")
    return Checkpoint(path, tensors, facts)


def located(path: str | Path) -> Path:
    """The file of weights that a path or a hub id stands for; ValueError if there is none."""
    found = Path(path)
    if not found.exists() and not found.is_absolute() and (below := project_root() / found).exists():
        found = below  # notebooks run in their own folder
    if not found.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and not found.suffix:
        from huggingface_hub import snapshot_download

        try:
            found = Path(snapshot_download(str(path), allow_patterns=["config.json", "model.safetensors"]))
        except Exception as error:
            raise ValueError(f"'{path}' is neither a file or folder here nor could it be fetched from the hub ({type(error).__name__}: "
                             f"{str(error).splitlines()[0]}): download it, or set HF_ENDPOINT, or leave encoder_weights empty.") from error
    if found.is_dir():
        found = next((found / name for name in ("model.safetensors", "pytorch_model.bin") if (found / name).is_file()), found / "model.safetensors")
    if not found.is_file():
        raise ValueError(f"{found} is missing: download the EEGPT weights there, or leave encoder_weights empty to start from scratch.")
    return found


def check_patches(checkpoint: Checkpoint) -> None:
    """Refuse weights whose patches are not 64 samples every 64 samples at 256 Hz, in millivolts."""
    kernel = checkpoint.encoder.get("patch_embed.proj.weight")
    if kernel is not None and kernel.shape[-1] != PATCH:
        raise ValueError(f"{checkpoint.path} cuts patches of {kernel.shape[-1]} samples, this encoder of {PATCH} (250 ms at {SFREQ} Hz): "
                         "use other weights.")
    for key, value in checkpoint.tensors.items():  # the encoder itself has no places in time; what was trained beside it may have
        rows = value.shape[-2] if value.ndim > 1 and re.search(r"(time|pos|temporal)_?(embed|embedding)(\.weight)?$", key) else N_PATCHES
        if rows != N_PATCHES and (stride := (N_PATCHES - 1) * PATCH / max(1, rows - 1)) in (PATCH / 8, PATCH / 4, PATCH / 2):
            raise ValueError(f"{checkpoint.path}: '{key}' has {rows} places in 4 s, so it was trained with a stride of {stride:g} samples, "
                             f"not {PATCH}: use weights whose patches do not overlap.")
    if (unit := checkpoint.facts.get("unit", UNIT)) != UNIT:
        raise ValueError(f"{checkpoint.path} was made for signals in '{unit}'; this kit gives millivolts ('{UNIT}'): use other weights.")


def notes_of(checkpoint: Checkpoint) -> list[str]:
    """What a user should know of weights that fit all the same."""
    facts, notes = checkpoint.facts, []
    if (stride := facts.get("patch_stride", PATCH)) != PATCH:
        notes.append(f"its config states a stride of {stride}: EEGPT was pretrained with {PATCH}, which is used")
    if (rate := facts.get("sfreq") or SFREQ) != SFREQ:
        notes.append(f"its config states {rate:g} Hz, signals here have {SFREQ} Hz")
    if "chan_proj" in checkpoint.aside:
        notes.append("it was used behind a learned map of channels, which is left out")
    if (heard := loudness(checkpoint.encoder)) is not None and heard < _FAINT:
        notes.append(f"EEG of 10 microvolts, given in millivolts, moves its tokens by {heard:.1g} of what the channel does: "
                     "made for another unit, or untrained?")
    return notes


def loudness(state: Mapping[str, Tensor], amplitude_uv: float = 10.0) -> float | None:
    """How much EEG moves a patch's token, over how much the channel's name does: tells whether weights fit the unit.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights of an EEGPT.
    amplitude_uv : float
        Standard deviation of pink noise that stands in for EEG; it is given in millivolts.

    Returns
    -------
    float or None
        Ratio of two root mean squares; 0.1 for weights that nobody trained, None without a patch or channel embedding.
    """
    kernel, channels = state.get("patch_embed.proj.weight"), state.get("chan_embed.weight")
    if kernel is None or channels is None or kernel.shape[-1] != PATCH:
        return None
    spectrum = np.random.default_rng(0).normal(size=(256, 2 * SFREQ + 1, 2)) @ [1.0, 1.0j]
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(2 * SFREQ + 1), 1.0)))[:, :PATCH]  # power falls as 1 / f
    noise = torch.from_numpy(amplitude_uv * 1e-3 * noise / noise.std()).float()
    moved = noise @ kernel.float().flatten(1).T
    return float(moved.std(dim=0).norm() / channels.float().std(dim=0).norm())
