"""Where the weights of an encoder come from: a released checkpoint, or physiology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .encoder import EEGPT, PATCH, SFREQ, Block
from .montage import EEGPT_VOCABULARY, make_info


@dataclass(frozen=True)
class KeyReport:
    """How a checkpoint fitted: counts are printed, never assumed."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        return (f"{len(self.matched)} of {total} keys matched; missing {self.missing[:5]}, "
                f"other shape {self.mismatched[:5]}, unused {len(self.unexpected)}")


def load_released_weights(encoder: EEGPT, path: str | Path, min_share: float = 1.0) -> KeyReport:
    """Load EEGPT weights (official ``.ckpt`` with ``target_encoder.*``, or safetensors) and report every key.

    Parameters
    ----------
    encoder : EEGPT
        Changed in place, only if enough keys match.
    path : path
        Checkpoint.
    min_share : float
        Smallest share of the encoder's keys that must match.

    Raises
    ------
    ValueError
        If fewer match; the message gives the counts and the size that would fit.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: download the EEGPT weights there, or leave encoder_weights empty to start from scratch.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as plain weights ({str(error).splitlines()[0]}): files that hold other "
                         "objects are refused; convert it to safetensors where you trust it.") from error
    state = _encoder_keys(state.get("state_dict", state))
    own = encoder.state_dict()
    matched = [key for key in own if key in state and state[key].shape == own[key].shape]
    report = KeyReport(matched, [key for key in own if key not in state], [key for key in state if key not in own],
                       [key for key in own if key in state and state[key].shape != own[key].shape])
    if len(matched) < min_share * len(own):
        raise ValueError(f"{path} does not fit this encoder ({encoder.config}): {report}. Choose the size that the weights were made with.")
    encoder.load_state_dict({key: state[key] for key in matched}, strict=False)
    return report


def _encoder_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the prefix of the momentum-target encoder, the one that the authors release for use."""
    prefix = "target_encoder."
    if any(key.startswith(prefix) for key in state):
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return dict(state)


# Where the summary tokens look at first: one scalp place for each head of each summary token.
_PLACES = ["FP1", "FP2", "F5", "F6", "FZ", "FC1", "FC2", "C3", "C4", "T7", "T8", "P3", "P4", "PZ", "O1", "O2"]
_FREQUENCIES = (2.0, 6.0, 9.0, 11.0, 13.0, 17.0, 22.0, 28.0, 35.0, 42.0)  # Hz, denser where rhythms are narrow


@torch.no_grad()
def physiological_init(encoder: EEGPT, amplitude_uv: float = 10.0) -> None:
    """Start an EEGPT without released weights from what is known: oscillations, their power, and scalp places.

    A transformer that starts from noise needs far more EEG than a lesson has to discover Fourier analysis. Every
    value set here stays trainable; the architecture is unchanged. The residual stream is laid out as
    ``[sines | cosines | power | places | free]``:

    1. patch embedding: sine and cosine of ten frequencies under a Hann taper;
    2. channel embedding: closeness of the electrode to sixteen scalp places;
    3. first MLP: ``gelu(x) + gelu(-x)``, nearly ``x**2``, summed over sine and cosine: power without phase;
    4. last attention: head h of summary token s looks at place ``s * heads + h`` and collects the powers there.

    Parameters
    ----------
    encoder : EEGPT
        Changed in place; needs two or more layers and room for the layout.
    amplitude_uv : float
        Typical amplitude of the input, microvolts.

    Raises
    ------
    ValueError
        If the encoder is too narrow or too shallow.
    """
    width, heads = encoder.config.width, encoder.config.heads
    n_freq, n_places, head_width = len(_FREQUENCIES), len(_PLACES), width // heads
    if width < 3 * n_freq + n_places or head_width < max(n_freq, n_places) or encoder.config.depth < 2:
        raise ValueError(f"physiological_init needs width >= {3 * n_freq + n_places}, {n_places} dimensions a head and two layers.")
    for block in encoder.blocks:
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            nn.init.xavier_uniform_(layer.weight, gain=0.3)
    _init_filters(encoder, n_freq, amplitude_uv)
    _init_places(encoder, 3 * n_freq, n_places)
    _init_power(encoder.blocks[0], n_freq)
    _init_collection(encoder, n_freq, n_places)


def _init_filters(encoder: EEGPT, n_freq: int, amplitude_uv: float) -> None:
    times = (torch.arange(PATCH) - (PATCH - 1) / 2) / SFREQ
    frequencies = torch.tensor(_FREQUENCIES)
    phases = 2 * torch.pi * frequencies[:, None] * times
    bank = torch.cat([phases.sin(), phases.cos()]) * torch.hann_window(PATCH, periodic=False)
    bank = bank / bank.norm(dim=1, keepdim=True)
    # EEG falls with frequency; gains that rise give every band a voice of order one.
    gain = 0.25 * (frequencies / 10.0).sqrt().repeat(2) / (amplitude_uv * 1e-3)
    weight = encoder.patch_embed.proj.weight
    weight.zero_()
    weight[: 2 * n_freq, 0, 0] = bank * gain[:, None]


def _init_places(encoder: EEGPT, start: int, n_places: int) -> None:
    positions = np.array([channel["loc"][:3] for channel in make_info(list(EEGPT_VOCABULARY), SFREQ)["chs"]])
    directions = torch.from_numpy(positions - [0.0, 0.018, 0.04]).float()  # centre of the cap in head coordinates
    directions = directions / directions.norm(dim=1, keepdim=True)
    centres = directions[[EEGPT_VOCABULARY.index(name) for name in _PLACES]]
    weight = encoder.chan_embed.weight
    nn.init.normal_(weight, std=0.3)
    weight[:, :start] = 0.0
    weight[:, start : start + n_places] = 5.0 * torch.exp(16.0 * (directions @ centres.T - 1.0))


def _init_power(block: Block, n_freq: int) -> None:
    block.attn.proj.weight.mul_(0.1)
    rise, fall = block.mlp.fc1.weight, block.mlp.fc2.weight
    rise[: 4 * n_freq] = 0.0
    fall[:, : 4 * n_freq] = 0.0
    for j in range(2 * n_freq):
        power = 2 * n_freq + j % n_freq
        for hidden, sign in ((j, 1.0), (2 * n_freq + j, -1.0)):
            rise[hidden, j] = 0.6 * sign
            fall[power, hidden] = 1.0


def _init_collection(encoder: EEGPT, n_freq: int, n_places: int) -> None:
    width, heads = encoder.config.width, encoder.config.heads
    head_width = width // heads
    attention = encoder.blocks[-1].attn
    query, key, value = attention.qkv.weight.view(3, width, width)
    attention.qkv.weight.zero_()
    nn.init.zeros_(encoder.summary_token)
    for h in range(heads):
        rows = h * head_width
        for place in range(n_places):
            query[rows + place, rows + place] = 1.75
            key[rows + place, 3 * n_freq + place] = 1.0
        for s in range(encoder.config.summary_tokens):
            encoder.summary_token[0, s, rows + (s * heads + h) % n_places] = 4.0
        for j in range(n_freq):
            value[rows + j, 2 * n_freq + j] = 1.0
            attention.proj.weight[:, rows + j] = 0.0
            attention.proj.weight[(h * n_freq + j) % width, rows + j] = 3.0
