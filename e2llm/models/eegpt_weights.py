"""Weights of EEGPT: checkpoints of a file, a hub folder or a hub id, checks that they fit, and initializations.

Read are the authors' checkpoint (``.ckpt``: a ``state_dict`` with ``target_encoder.*`` beside the parts that only
pretraining needs), the layout of the Hugging Face hub (``braindecode/eegpt-pretrained``: ``config.json`` and
``model.safetensors``, again ``target_encoder.*``, a buffer ``chans_id`` and a head), and what
:mod:`e2llm.training.pretraining` leaves. Key names are facts read in BINE022/EEGPT and braindecode 1.8.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..core.files import one_line, project_root, read_mapping, refuse_bomb
from ..core.montage import EEGPT_UNTRAINED, EEGPT_VOCABULARY, canonical, make_info
from .eegpt import EEGPT, EEGPT_SIZES, N_PATCHES, PATCH, SFREQ, Block

# The 58 channels of the authors' pretraining, in its order.
RELEASED_CHANNELS = tuple(name for name in EEGPT_VOCABULARY if name not in EEGPT_UNTRAINED)
UNIT = "mV"
_TARGET = "target_encoder."  # the momentum encoder, the one that the authors release for use
_SMALL = 0.05  # of the channel embedding's spread: EEG that changes tokens by less has hardly an effect


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
        return sorted({key.split(".")[0] for key in self.tensors if _TARGET not in key}
                      if self.encoder is not self.tensors else set())

    @property
    def channels(self) -> list[str] | None:
        """Names of the rows of the channel embedding; None if they are not known."""
        if stated := self.facts.get("channel_rows"):
            return [canonical(name) for name in stated]
        rows = len(self.encoder["chan_embed.weight"]) if "chan_embed.weight" in self.encoder else 0
        return {len(EEGPT_VOCABULARY): list(EEGPT_VOCABULARY),
                len(RELEASED_CHANNELS): list(RELEASED_CHANNELS)}.get(rows)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Tensors and facts of a file (.ckpt, .pth, .bin, .safetensors), of a folder in the hub's layout, or of a hub id.

    Parameters
    ----------
    path : str or path
        A file; a folder with ``config.json`` and ``model.safetensors``; or, where no such path exists, ``owner/name``
        on the hub.

    Raises
    ------
    ValueError
        If it is not there, holds anything but plain tensors (a pickle with other objects is never run), or holds no
        named tensors.
    """
    path = located(path)
    facts, config = {}, path.parent / "config.json"
    try:
        if config.is_file() and path.name in ("model.safetensors", "pytorch_model.bin"):
            facts = read_mapping(config, {})
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (the file is no mapping)
                facts |= {key: json.loads(text) for key, text in (file.metadata() or {}).items() if text[:1] in "[{\""}
                facts |= facts.pop("e2llm", {})
        else:
            refuse_bomb(path, path.stat().st_size)  # torch packs nothing
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as plain weights ({one_line(error)}): files that hold "
                         "other objects are refused; convert it to safetensors where you trust it.") from error
    for name in ("state_dict", "model"):
        state = state[name] if isinstance(state, Mapping) and isinstance(state.get(name), Mapping) else state
    tensors = {str(key): value for key, value in state.items()
               if isinstance(value, Tensor)} if isinstance(state, Mapping) else {}
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
            raise ValueError(f"'{path}' is neither a file or folder here nor could it be fetched from the hub "
                             f"({type(error).__name__}: "
                             f"{str(error).splitlines()[0]}): download it, or set HF_ENDPOINT, or leave "
                             "encoder_weights empty.") from error
    if found.is_dir():
        found = next((found / name for name in ("model.safetensors", "pytorch_model.bin") if (found / name).is_file()),
                     found / "model.safetensors")
    if not found.is_file():
        raise ValueError(f"{found} is missing: download the EEGPT weights there, or leave encoder_weights empty to "
                         "start from scratch.")
    return found


def _check_patches(checkpoint: Checkpoint) -> None:
    """Refuse weights whose patches are not 64 samples every 64 samples at 256 Hz, in millivolts."""
    kernel = checkpoint.encoder.get("patch_embed.proj.weight")
    if kernel is not None and kernel.shape[-1] != PATCH:
        raise ValueError(f"{checkpoint.path} cuts patches of {kernel.shape[-1]} samples, this encoder of {PATCH} (250 "
                         f"ms at {SFREQ} Hz): use other weights.")
    for key, value in checkpoint.tensors.items():  # the encoder has no positions in time; other parts may have them
        rows = value.shape[-2] if value.ndim > 1 and re.search(r"(time|pos|temporal)_?(embed|embedding)(\.weight)?$",
                                                               key) else N_PATCHES
        if rows != N_PATCHES and (stride := (N_PATCHES - 1) * PATCH / max(1, rows - 1)) in (PATCH / 8, PATCH / 4,
                                                                                            PATCH / 2):
            raise ValueError(f"{checkpoint.path}: '{key}' has {rows} places in 4 s, so it was trained with a stride of "
                             f"{stride:g} samples, not {PATCH}: use weights whose patches do not overlap.")
    if (unit := checkpoint.facts.get("unit", UNIT)) != UNIT:
        raise ValueError(f"{checkpoint.path} was made for signals in '{unit}'; this kit gives millivolts ('{UNIT}'): "
                         "use other weights.")


def _notes_of(checkpoint: Checkpoint) -> list[str]:
    """What a user should know of weights that fit all the same."""
    facts, notes = checkpoint.facts, []
    if (stride := facts.get("patch_stride", PATCH)) != PATCH:
        notes.append(f"its config states a stride of {stride}: EEGPT was pretrained with {PATCH}, which is used")
    if (rate := facts.get("sfreq") or SFREQ) != SFREQ:
        notes.append(f"its config states {rate:g} Hz, signals here have {SFREQ} Hz")
    if "chan_proj" in checkpoint.aside:
        notes.append("it was used behind a learned map of channels, which is left out")
    if (amplitude := relative_amplitude(checkpoint.encoder)) is not None and amplitude < _SMALL:
        notes.append(f"EEG of 10 microvolts, given in millivolts, changes its tokens by {amplitude:.1g} of "
                     "what the channel does: made for another unit, or untrained?")
    return notes


def relative_amplitude(state: Mapping[str, Tensor], amplitude_uv: float = 10.0) -> float | None:
    """How much EEG changes a patch's token, relative to its channel embedding: shows whether weights fit the unit.

    Parameters
    ----------
    state : mapping of str to Tensor
        Weights of an EEGPT.
    amplitude_uv : float
        Standard deviation of pink noise that stands in for EEG; it is given in millivolts.

    Returns
    -------
    float or None
        Ratio of two root mean squares; 0.1 for untrained weights, None without a patch or channel embedding.
    """
    kernel, channels = state.get("patch_embed.proj.weight"), state.get("chan_embed.weight")
    if kernel is None or channels is None or kernel.shape[-1] != PATCH:
        return None
    spectrum = np.random.default_rng(0).normal(size=(256, 2 * SFREQ + 1, 2)) @ [1.0, 1.0j]
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(2 * SFREQ + 1), 1.0)))[:, :PATCH]  # power of 1 / f
    noise = torch.from_numpy(amplitude_uv * 1e-3 * pink / pink.std()).float()
    change = noise @ kernel.float().flatten(1).T
    return float(change.std(dim=0).norm() / channels.float().std(dim=0).norm())


NAMED_INITIALIZATIONS = ("", "random", "scaled")  # initializations that need no file; see initialize_encoder


@dataclass(frozen=True)
class KeyReport:
    """How a checkpoint fitted: counts are printed, never assumed.

    Parameters
    ----------
    matched, missing, unexpected, mismatched : list of str
        Keys of the encoder that were found; that were not; keys of the checkpoint's encoder that this one does not
        have; keys of another shape.
    untrained : list of str
        Channels of this encoder whose embedding the checkpoint never trained: they start from noise.
    notes : list of str
        What else is worth knowing before the weights are trusted.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    untrained: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Number of keys that the encoder has."""
        return len(self.matched) + len(self.missing) + len(self.mismatched)

    def __str__(self) -> str:
        more = [f"channels never trained {self.untrained}"] if self.untrained else []
        wrong = f"missing {_first(self.missing)}, other shape {_first(self.mismatched)}, unused {len(self.unexpected)}"
        return "; ".join([f"{len(self.matched)} of {self.total} keys matched", wrong, *more, *self.notes])

    @property
    def rest(self) -> list[str]:
        """Every key that did not match, a line each, with what is wrong with it."""
        return [f"{key}: {what}" for what in ("missing", "mismatched", "unexpected") for key in getattr(self, what)]


def _first(keys: list[str], n: int = 5) -> str:
    return f"{keys[:n]}" + (f" and {len(keys) - n} more" if len(keys) > n else "")


def load_released_weights(encoder: EEGPT, path: str | Path, min_share: float = 1.0) -> KeyReport:
    """Load EEGPT weights and report every key.

    Parameters
    ----------
    encoder : EEGPT
        Changed in place, only if enough keys match.
    path : str or path
        What :func:`read_checkpoint` reads.
    min_share : float
        Smallest share of the encoder's keys that must match; what did not match keeps its start, and is in the report.

    Raises
    ------
    ValueError
        If fewer match, or the checkpoint was made for another patch, stride, rate or unit. The message gives the counts
        and the size that would fit.
    """
    checkpoint = read_checkpoint(path)
    _check_patches(checkpoint)
    own, state = encoder.state_dict(), _rows_by_name(checkpoint, encoder)
    found = [key for key in own if key in state]
    matched = [key for key in found if state[key].shape == own[key].shape]
    report = KeyReport(matched, [key for key in own if key not in state], [key for key in state if key not in own],
                       [key for key in found if key not in matched], _untrained(checkpoint, encoder),
                       _notes_of(checkpoint))
    if len(matched) < min_share * len(own):
        raise ValueError(f"{checkpoint.path} does not fit this encoder ({encoder.config}): {report}. Choose the size "
                         f"that the weights were made with: {_fitting_size(checkpoint.encoder)}.")
    encoder.load_state_dict({key: state[key] for key in matched}, strict=False)
    return report


def _fitting_size(state: Mapping[str, Tensor]) -> str:
    """The published size that weights were made for, from their shapes."""
    if not {"summary_token", "chan_embed.weight"} <= set(state) or state["summary_token"].ndim != 3:
        return "it cannot be told from these keys"
    (_, tokens, width), layers = state["summary_token"].shape, {key.split(".")[1] for key in state
                                                                if key.startswith("blocks.")}
    names = [name for name, size in EEGPT_SIZES.items() if (size.width, size.depth,
                                                            size.summary_tokens) == (width, len(layers), tokens)]
    form = f"{width} wide, {len(layers)} layers, {tokens} summary tokens"
    if not names:
        return f"no published size has their form ({form})"
    return f"encoder_size {' or '.join(map(repr, names))} ({form})"


def _rows_by_name(checkpoint: Checkpoint, encoder: EEGPT) -> dict[str, Tensor]:
    """The checkpoint's encoder with the 62 rows of the vocabulary.

    58 trained rows find their places by name, the others stay as they are.
    """
    state, names = dict(checkpoint.encoder), checkpoint.channels
    rows, own = state.get("chan_embed.weight"), encoder.chan_embed.weight
    if rows is None or names is None or names == list(EEGPT_VOCABULARY):
        return state
    if rows.shape[1:] != own.shape[1:] or len(rows) != len(names):
        return state
    placed = own.detach().clone()
    known = [(EEGPT_VOCABULARY.index(name), row) for name, row in zip(names, rows, strict=True)
             if name in EEGPT_VOCABULARY]
    for place, row in known:
        placed[place] = row
    return state | {"chan_embed.weight": placed}


def _untrained(checkpoint: Checkpoint, encoder: EEGPT) -> list[str]:
    """Channels of the encoder that were not trained; where the file does not list them, those of the authors."""
    trained = checkpoint.facts.get("trained_channels") or [name for name in checkpoint.channels or ()
                                                           if name in RELEASED_CHANNELS]
    return [name for name in encoder.ch_names if name not in trained]


@torch.no_grad()
def initialize_encoder(encoder: EEGPT, weights: str) -> str:
    """Initialize an EEGPT in place, and return a sentence on it.

    Parameters
    ----------
    encoder : EEGPT
        Changed in place.
    weights : str
        ``""`` for :func:`physiological_init`; ``"random"`` for the encoder's own random weights; ``"scaled"`` for the
        same with a patch kernel so large that 10 microvolts change a token as much as its channel embedding does (ten
        times as much as in EEGPT's own initialization); or what :func:`read_checkpoint` reads.
    """
    if weights == "random":
        return "random start (the encoder's own initialization)"
    if weights == "scaled":
        encoder.patch_embed.proj.weight.mul_(1.0 / cast(float, relative_amplitude(encoder.state_dict())))
        return "random start, patch kernel as large as the channel embedding"
    if weights:
        return f"{Path(weights).name}: {load_released_weights(encoder, weights)}"
    physiological_init(encoder)
    return "physiological start (no released weights given)"


# Where the summary tokens look at first: one scalp place for each head of each summary token.
_PLACES = ["FP1", "FP2", "F5", "F6", "FZ", "FC1", "FC2", "C3", "C4", "T7", "T8", "P3", "P4", "PZ", "O1", "O2"]
_FREQUENCIES = (2.0, 6.0, 9.0, 11.0, 13.0, 17.0, 22.0, 28.0, 35.0, 42.0)  # Hz, denser where rhythms are narrow


@torch.no_grad()
def physiological_init(encoder: EEGPT, amplitude_uv: float = 5.0) -> None:
    """Initialize an EEGPT without released weights from physiology: oscillations, their power, and scalp places.

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
        raise ValueError(f"physiological_init needs width >= {3 * n_freq + n_places}, {n_places} dimensions a head and "
                         "two layers.")
    for block in _blocks(encoder):
        for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            nn.init.xavier_uniform_(layer.weight, gain=0.3)
    _init_filters(encoder, n_freq, amplitude_uv)
    _init_places(encoder, 3 * n_freq, n_places)
    _init_power(_blocks(encoder)[0], n_freq)
    _init_collection(encoder, n_freq, n_places)


def _blocks(encoder: EEGPT) -> list[Block]:
    return cast(list[Block], list(encoder.blocks))


def _init_filters(encoder: EEGPT, n_freq: int, amplitude_uv: float) -> None:
    times = (torch.arange(PATCH) - (PATCH - 1) / 2) / SFREQ
    frequencies = torch.tensor(_FREQUENCIES)
    phases = 2 * torch.pi * frequencies[:, None] * times
    bank = torch.cat([phases.sin(), phases.cos()]) * torch.hann_window(PATCH, periodic=False)
    bank = bank / bank.norm(dim=1, keepdim=True)
    # The amplitude of EEG falls with frequency (power ~ f**-1.6); rising gains give every band values of order one.
    gain = 0.25 * (frequencies / 10.0).pow(0.8).repeat(2) / (amplitude_uv * 1e-3)
    weight = encoder.patch_embed.proj.weight
    weight.zero_()
    weight[: 2 * n_freq, 0, 0] = bank * gain[:, None]


def _init_places(encoder: EEGPT, start: int, n_places: int) -> None:
    positions = np.array([channel["loc"][:3] for channel in make_info(list(EEGPT_VOCABULARY), SFREQ)["chs"]])
    directions = torch.from_numpy(positions - [0.0, 0.018, 0.04]).float()  # center of the cap in head coordinates
    directions = directions / directions.norm(dim=1, keepdim=True)
    centers = directions[[EEGPT_VOCABULARY.index(name) for name in _PLACES]]
    weight = encoder.chan_embed.weight
    nn.init.normal_(weight, std=0.3)
    weight[:, :start] = 0.0
    weight[:, start : start + n_places] = 5.0 * torch.exp(16.0 * (directions @ centers.T - 1.0))


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
    attention = _blocks(encoder)[-1].attn
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
