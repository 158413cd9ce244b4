"""Masked pretraining of an EEGPT on any windows, for those without the released weights.

Half of a window's time patches are hidden whole; of the others a fifth of the channels is shown. Two tasks share what
the encoder makes of that:

- *alignment*: a predictor predicts the summary tokens of all time patches, hidden ones too, as a momentum copy of the
  encoder gives them for the whole window (LayerNormed);
- *reconstruction*: from the encoder's tokens where something was shown, and the predictor's where nothing was, a
  reconstructor predicts the samples of hidden patches (each with mean 0 and variance 1, so that an error of 1 means
  that nothing is known).

Labels play no part. Masks, tasks and loss follow the paper. Depths, the share of hidden channels that are rebuilt in
partly shown time patches (0.2) and the linear rise of the momentum (from 0.996 to 1) are those of the authors' code
(BINE022/EEGPT). Four things are ours: masks have fixed counts and are drawn for each window, not for each batch; the
initialization ``scaled`` (:func:`e2llm.models.eegpt_weights.initialize_encoder`); to save time, a limit on the patches
that are rebuilt of a window; and a second reconstructor (:class:`Readouts`) for short trainings. Within 1500 steps on
EEG of ten people the paper's reconstructor explained no variance (lesson 09).

References
----------
Wang, G., et al. (2024). EEGPT: pretrained transformer for universal and reliable representation of EEG signals.
NeurIPS.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..core.montage import EEGPT_VOCABULARY
from ..data.dataset import Corpus
from ..data.normalization import Equalizer
from ..models.device import current_device
from ..models.eegpt import EEGPT, N_PATCHES, PATCH, SFREQ, Block, EEGPTConfig
from ..models.eegpt_weights import UNIT, initialize_encoder
from .trainer import FitParams

_FLAT = 1e-10  # square millivolts; a patch with less variance (0.01 microvolts) counts as flat and is drawn as zeros
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class PretrainParams:
    """What is hidden, and how the momentum encoder follows.

    Parameters
    ----------
    hidden_times : float
        Share of time patches hidden whole.
    shown_channels : float
        Share of the channels shown in the other time patches; 12 of 58 in the paper.
    rebuilt_beside : float
        Share of the hidden channels in those patches that are reconstructed too: they are easier, with neighbors in
        view.
    drawn : int
        At most so many hidden patches of a window are reconstructed, picked at random; 0 for all, as in the paper.
    momentum, last_momentum : float
        How much the momentum encoder keeps of itself in a step, at the beginning and at the end; between them it rises
        linearly.
    reconstructor : str
        One of :data:`RECONSTRUCTORS`; the paper's is ``transformer``.
    """

    hidden_times: float = 0.5
    shown_channels: float = 12 / 58
    rebuilt_beside: float = 0.2
    drawn: int = 0
    momentum: float = 0.996
    last_momentum: float = 1.0
    reconstructor: str = "transformer"

    def __post_init__(self) -> None:
        if self.reconstructor not in RECONSTRUCTORS:
            raise ValueError(f"Unknown reconstructor '{self.reconstructor}' (known: {', '.join(RECONSTRUCTORS)}).")


class Masks(NamedTuple):
    """What is shown of each window, and what has to be reconstructed; all windows hide equally much."""

    times: Tensor  # (batch, n_times) time patches of which something is shown, in their order
    channels: Tensor  # (batch, n_times, n_channels) channels shown in each of them
    hidden: Tensor  # (batch, n_hidden, 2) time patch and channel of every patch to reconstruct


def draw_masks(batch: int, n_channels: int, params: PretrainParams, generator: torch.Generator,
               n_patches: int = N_PATCHES) -> Masks:
    """Masks for a batch of windows, each drawn by itself.

    Parameters
    ----------
    batch, n_channels, n_patches : int
        Windows, channels, and time patches of a window.
    params : PretrainParams
        What share is hidden.
    generator : Generator
        Of the draws.

    Raises
    ------
    ValueError
        If nothing would be shown or nothing hidden.
    """
    n_times = n_patches - round(params.hidden_times * n_patches)
    n_shown = max(1, round(params.shown_channels * n_channels))
    if not 0 < n_times < n_patches or n_shown >= n_channels:
        raise ValueError(f"Of {n_patches} time patches {n_times} and of {n_channels} channels {n_shown} would be "
                         "shown: hide some of each, and not all.")
    n_beside = round(params.rebuilt_beside * (n_channels - n_shown))
    order = torch.rand(batch, n_patches, generator=generator).argsort(dim=1)
    times, gone = order[:, :n_times].sort(dim=1).values, order[:, n_times:].sort(dim=1).values
    channels = torch.rand(batch, n_times, n_channels, generator=generator).argsort(dim=2)
    partly_hidden = channels[:, :, n_shown : n_shown + n_beside]
    pairs = [torch.stack([gone[:, :, None].expand(-1, -1, n_channels),
                          torch.arange(n_channels).expand(batch, n_patches - n_times, -1)], dim=-1),
             torch.stack([times[:, :, None].expand(-1, -1, n_beside), partly_hidden], dim=-1)]
    hidden = torch.cat([pair.flatten(1, 2) for pair in pairs], dim=1)
    if 0 < params.drawn < hidden.shape[1]:
        picked = torch.rand(hidden.shape[:2], generator=generator).argsort(dim=1)[:, : params.drawn]
        hidden = hidden.gather(1, picked[:, :, None].expand(-1, -1, 2))
    return Masks(times, channels[:, :, :n_shown], hidden)


class _Places(nn.Module):
    """Transformer over tokens that have a place in time: blocks with rotary places, between two linear maps."""

    def __init__(self, config: EEGPTConfig, depth: int, out: int) -> None:
        super().__init__()
        self.enter = nn.Linear(config.width, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.leave = nn.Linear(config.width, out)
        half = config.width // config.heads // 2
        self.register_buffer("speed", 10_000.0 ** (-torch.arange(half) / half),
                             persistent=False)  # radians a time patch

    def begin(self) -> None:
        """Weights as the encoder's own begin."""
        self.apply(EEGPT._init)
        nn.init.trunc_normal_(self.query, std=0.02)

    def run(self, x: Tensor, times: Tensor, kept: int | None = None) -> Tensor:
        """Tokens (batch, tokens, width) at time patches (batch, tokens) through all blocks; the last ``kept`` leave."""
        angles = (times[..., None] * self.speed)[:, None]  # (batch, 1 for all heads, tokens, width / heads / 2)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, angles)
        return self.leave(self.norm(last(x, angles, kept)))


class Predictor(_Places):
    """Summary tokens of every time patch, from those of the patches of which something was shown."""

    def __init__(self, config: EEGPTConfig) -> None:
        super().__init__(config, config.depth, config.width)
        self.query = nn.Parameter(torch.empty(config.summary_tokens, config.width))  # stands where nothing was shown
        self.begin()

    def forward(self, encoded: Tensor, times: Tensor, n_patches: int) -> Tensor:
        """(batch, n_times, S, width) at ``times`` to (batch, n_patches, S, width).

        Parameters
        ----------
        encoded : Tensor, shape (batch, n_times, S, width)
            Summary tokens of the shown time patches.
        times : Tensor of int, shape (batch, n_times)
            Their places.
        n_patches : int
            Number of places.
        """
        batch, _, n_summary, width = encoded.shape
        x = self.query.expand(batch, n_patches, -1, -1)
        x = put(x, times, self.enter(encoded))
        places = torch.arange(n_patches, device=x.device).repeat_interleave(n_summary).expand(batch, -1)
        return self.run(x.flatten(1, 2), places).view(batch, n_patches, n_summary, width)


class Reconstructor(_Places):
    """Samples of hidden patches from summary tokens of every time patch; each query holds a channel and a time."""

    def __init__(self, config: EEGPTConfig) -> None:
        super().__init__(config, max(4, config.depth), PATCH)
        self.query = nn.Parameter(torch.empty(config.width))
        self.chan_embed = nn.Embedding(len(EEGPT_VOCABULARY), config.width)
        self.begin()

    def forward(self, tokens: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
        """Predict samples.

        Parameters
        ----------
        tokens : Tensor, shape (batch, n_patches, S, width)
            Summary tokens.
        hidden : Tensor of int, shape (batch, n_hidden, 2)
            Time patch and channel of each patch to predict.
        rows : Tensor of int, shape (n_channels,)
            Rows of the channels in the vocabulary.

        Returns
        -------
        Tensor, shape (batch, n_hidden, 64)
        """
        batch, n_patches, n_summary, _ = tokens.shape
        queries = self.query + self.chan_embed(rows[hidden[..., 1]])
        x = torch.cat([self.enter(tokens).flatten(1, 2), queries], dim=1)
        places = torch.arange(n_patches, device=x.device).repeat_interleave(n_summary).expand(batch, -1)
        return self.run(x, torch.cat([places, hidden[..., 0]], dim=1), kept=hidden.shape[1])


class Readouts(nn.Module):
    """Samples of hidden patches as a linear function of the tokens of their own time patch, one for each channel.

    A linear head is enough to train an encoder by reconstruction. It has a useful gradient from the first step, where
    a transformer first has to learn which tokens belong to a patch and what its channel embedding means.

    Parameters
    ----------
    config : EEGPTConfig
        Of the encoder.

    References
    ----------
    Xie, Z., et al. (2022). SimMIM: a simple framework for masked image modeling. CVPR.
    """

    def __init__(self, config: EEGPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(EEGPT_VOCABULARY), config.token_width, PATCH))

    def forward(self, tokens: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
        """Predict samples.

        Parameters
        ----------
        tokens : Tensor, shape (batch, n_patches, S, width)
            Summary tokens.
        hidden : Tensor of int, shape (batch, n_hidden, 2)
            Time patch and channel of each patch to predict.
        rows : Tensor of int, shape (n_channels,)
            Rows of the channels in the vocabulary.
        """
        drawn = torch.einsum("bte,ces->btcs", tokens.flatten(2), self.weight[rows])
        window = torch.arange(len(tokens), device=tokens.device)[:, None]
        return drawn[window, hidden[..., 0], hidden[..., 1]]


RECONSTRUCTORS = {"transformer": Reconstructor, "linear": Readouts}


def put(into: Tensor, times: Tensor, values: Tensor) -> Tensor:
    """Copy of a tensor with other values at some time patches.

    Parameters
    ----------
    into : Tensor, shape (batch, n_patches, S, width)
        Values elsewhere.
    times : Tensor of int, shape (batch, n_times)
        Time patches.
    values : Tensor, shape (batch, n_times, S, width)
        Values there.
    """
    return into.scatter(1, times[:, :, None, None].expand_as(values), values)


class MaskedPretraining(nn.Module):
    """Encoder, momentum encoder, predictor and reconstructor; the loss is the sum of two mean squared errors.

    Parameters
    ----------
    encoder : EEGPT
        Trained in place; the momentum encoder begins as its copy.
    params : PretrainParams
        Momentum, and the kind of reconstructor.
    """

    def __init__(self, encoder: EEGPT, params: PretrainParams) -> None:
        super().__init__()
        self.encoder, self.params = encoder, params
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.predictor = Predictor(encoder.config)
        self.reconstructor = RECONSTRUCTORS[params.reconstructor](encoder.config)

    def encode(self, signal_mv: Tensor, times: Tensor, channels: Tensor) -> Tensor:
        """Summary tokens of the shown time patches, from their shown channels alone: (batch, n_times, S, width).

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            Millivolts.
        times, channels : Tensor of int
            What is shown; see :class:`Masks`.
        """
        window = torch.arange(len(signal_mv), device=signal_mv.device)[:, None, None]
        return self.encoder.summarize(self.encoder.embed(signal_mv)[window, times[:, :, None], channels])

    def reconstruct(self, signal_mv: Tensor, times: Tensor, channels: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted summary tokens of every time patch, and samples of the hidden patches.

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            Millivolts.
        times, channels, hidden : Tensor of int
            See :class:`Masks`.

        Returns
        -------
        predicted : Tensor, shape (batch, n_patches, S, width)
        drawn : Tensor, shape (batch, n_hidden, 64)
        """
        encoded = self.encode(signal_mv, times, channels)
        predicted = self.predictor(encoded, times, signal_mv.shape[-1] // PATCH)
        return predicted, self.reconstructor(put(predicted, times, encoded), hidden, self.encoder.channel_rows)

    @torch.no_grad()
    def targets(self, signal_mv: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Momentum tokens of the whole window, and samples of the hidden patches, both normalized.

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            Millivolts.
        hidden : Tensor of int, shape (batch, n_hidden, 2)
            Time patch and channel of each hidden patch.
        """
        tokens = self.target_encoder.summarize(self.target_encoder.embed(signal_mv))
        window = torch.arange(len(signal_mv), device=signal_mv.device)[:, None]
        patches = signal_mv.unflatten(-1, (-1, PATCH))[window, hidden[..., 1], hidden[..., 0]]
        return F.layer_norm(tokens, tokens.shape[-1:]), F.layer_norm(patches, (PATCH,), eps=_FLAT)

    def forward(self, signal_mv: Tensor, times: Tensor, channels: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """Loss and its two terms.

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            Millivolts.
        times, channels, hidden : Tensor of int
            See :class:`Masks`.
        """
        predicted, drawn = self.reconstruct(signal_mv, times, channels, hidden)
        tokens, patches = self.targets(signal_mv, hidden)
        align, rebuild = F.mse_loss(predicted, tokens), F.mse_loss(drawn, patches)
        return {"loss": align + rebuild, "align": align, "rebuild": rebuild}

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """Move the momentum encoder towards the encoder.

        Parameters
        ----------
        step, steps : int
            Optimizer step that was just taken (the first is 1), and their number.
        """
        p = self.params
        keep = p.momentum + (p.last_momentum - p.momentum) * (step - 1) / steps
        for theirs, own in zip(self.target_encoder.parameters(), self.encoder.parameters(), strict=True):
            theirs.mul_(keep).add_(own, alpha=1.0 - keep)


def masked_collate(data: np.ndarray, equalize: Equalizer, subjects: np.ndarray, params: PretrainParams,
                   seed: int) -> Callable:
    """Batches of pretraining.

    Masks depend only on the seed and the batch's place in the order, so that a resumed training sees the same.

    Parameters
    ----------
    data, equalize, subjects
        As for :func:`e2llm.training.trainer.signal_collate`.
    params : PretrainParams
        What is hidden.
    seed : int
        Of the masks.
    """

    def collate(samples: list[dict]) -> dict[str, Tensor]:
        rows = np.array([sample["row"] for sample in samples])
        generator = torch.Generator().manual_seed(seed * 1_000_003 + samples[0]["place"])
        signal = equalize(data[rows], subjects[rows])
        return {"signal_mv": signal, **draw_masks(len(rows), data.shape[1], params, generator,
                                                  signal.shape[-1] // PATCH)._asdict()}

    return collate


def epochs(rows: np.ndarray, params: FitParams) -> np.ndarray:
    """Rows for every batch: all of them in a new random order, again and again.

    Parameters
    ----------
    rows : ndarray of int
        Windows.
    params : FitParams
        Number and size of the batches, and seed.
    """
    rng, need = np.random.default_rng(params.seed), params.steps * params.batch_size
    return np.concatenate([rng.permutation(rows) for _ in range(-(-need // len(rows)))])[:need]


def new_model(ch_names: Sequence[str], config: EEGPTConfig, weights: str, params: PretrainParams,
              seed: int) -> MaskedPretraining:
    """A model before pretraining, on the device of the policy.

    Parameters
    ----------
    ch_names, config
        As for :class:`e2llm.models.eegpt.EEGPT`.
    weights : str
        See :func:`e2llm.models.eegpt_weights.initialize_encoder`.
    params : PretrainParams
        What is hidden, and the kind of reconstructor.
    seed : int
        Of random weights.
    """
    torch.manual_seed(seed)
    encoder = EEGPT(config, list(ch_names))
    initialize_encoder(encoder, weights)
    return MaskedPretraining(encoder, params).to(current_device())


def save_encoder(encoder: EEGPT, path: Path) -> None:
    """Write weights with two facts about them: trained channels and unit.

    Parameters
    ----------
    encoder : EEGPT
        Trained.
    path : Path
        ``.safetensors`` file.
    """
    # In one entry: several are written in no fixed order.
    facts = json.dumps({"trained_channels": encoder.ch_names, "unit": UNIT})
    save_file({key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}, path,
              metadata={"e2llm": facts})


@torch.no_grad()
def explained(model: MaskedPretraining, corpus: Corpus, rows: np.ndarray, seed: int, n: int = 128) -> dict[str, float]:
    """Share of the variance of hidden patches that the reconstruction explains (negative: worse than zeros).

    Parameters
    ----------
    model : MaskedPretraining
        After training.
    corpus : Corpus
        Dataset.
    rows : ndarray of int
        Windows to draw from.
    seed, n : int
        Of the draw, and how many windows at most.

    Returns
    -------
    dict of str to float
        ``hidden_times`` where the whole time patch was hidden, ``beside`` where other channels of it were shown.
    """
    model.eval()
    chosen = np.sort(np.random.default_rng(seed).choice(rows, min(n, len(rows)), replace=False))
    collate = masked_collate(corpus.windows.data, corpus.equalize, corpus.norm_groups, model.params, seed)
    device, errors = next(model.parameters()).device, {"hidden_times": [], "beside": []}
    for some in np.array_split(chosen, -(-len(chosen) // 32)):
        samples = [{"row": row, "place": i} for i, row in enumerate(some)]
        batch = {key: value.to(device) for key, value in collate(samples).items()}
        _, drawn = model.reconstruct(**batch)
        error = (drawn - model.targets(batch["signal_mv"], batch["hidden"])[1]).square().mean(dim=-1)
        partly_hidden = (batch["hidden"][..., :1] == batch["times"][:, None]).any(dim=-1)
        errors["hidden_times"].append(error[~partly_hidden].cpu())
        errors["beside"].append(error[partly_hidden].cpu())
    return {name: 1.0 - float(torch.cat(values).mean()) for name, values in errors.items()}


@torch.no_grad()
def rebuilt_patches(model: MaskedPretraining, corpus: Corpus, row: int, seed: int,
                    n: int = 4) -> dict[str, list[tuple[str, np.ndarray, np.ndarray]]]:
    """Some hidden patches of a window and their reconstruction, for :func:`e2llm.viz.plots_pretraining.rebuilt`.

    Parameters
    ----------
    model, corpus : MaskedPretraining, Corpus
        After training; dataset of the window.
    row, seed : int
        Window; the seed draws the masks and the patches that are shown, not the best ones.
    n : int
        Patches of each kind.

    Returns
    -------
    dict of str to list of (str, ndarray, ndarray)
        Kind of patch to name, original and drawn samples (64,) in standard deviations of the original.
    """
    model.eval()
    collate = masked_collate(corpus.windows.data, corpus.equalize, corpus.norm_groups, model.params, seed)
    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in collate([{"row": row, "place": 0}]).items()}
    drawn, (hidden,) = model.reconstruct(**batch)[1][0], batch["hidden"]
    originals = model.targets(batch["signal_mv"], batch["hidden"])[1][0]
    partly_hidden, found = torch.isin(hidden[:, 0], batch["times"]), {}
    for kind, chosen in (("beside shown channels", partly_hidden), ("hidden time patch", ~partly_hidden)):
        places = chosen.nonzero().flatten().tolist()
        some = sorted(np.random.default_rng(seed).permutation(places)[:n].tolist())
        found[kind] = [(f"{corpus.windows.ch_names[hidden[i, 1]]}, {hidden[i, 0] * PATCH / SFREQ:.2f} s",
                        originals[i].cpu().numpy(), drawn[i].cpu().numpy()) for i in some]
    return found
