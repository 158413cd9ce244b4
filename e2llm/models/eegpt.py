"""EEGPT (Wang et al., NeurIPS 2024): an EEG transformer readable in one sitting, and its emotion head.

A window of 4 s at 256 Hz is cut into 16 time patches of 64 samples. Inside one time patch, the channels'
patches and S learned summary tokens attend to each other; only the summary tokens leave:
``(batch, channel, 1024) -> (batch, 16, S, width)``. Nothing links two time patches, so a window may have any number of
them; 16 is what EEGPT was pretrained on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.arguments import check_number
from ..core.montage import EEGPT_VOCABULARY

SFREQ = 256
PATCH = 64  # samples; the stride equals it (a stride of 32, as in some ports, mismatches the released weights silently)
N_PATCHES = 16  # of the windows of 4 s that it was pretrained on


@dataclass(frozen=True)
class EEGPTConfig:
    """Size of an EEGPT.

    Parameters
    ----------
    width, depth, heads : int
        Of the transformer.
    summary_tokens : int
        S, tokens kept of each time patch.
    mlp_ratio : int
        Hidden width of the MLP over ``width``.
    patch_dropout, channel_dropout : float
        Share of time patches and of channels left out at random in training: augmentation that also saves time.
    """

    width: int = 512
    depth: int = 8
    heads: int = 8
    summary_tokens: int = 4
    mlp_ratio: int = 4
    patch_dropout: float = 0.0
    channel_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "summary_tokens", "mlp_ratio"):
            check_number(name, getattr(self, name), 1, 65536, whole=True)
        if self.width % (2 * self.heads):
            raise ValueError(f"width = {self.width} cannot be divided among {self.heads} heads in pairs: give a "
                             f"multiple of {2 * self.heads}.")

    @property
    def token_width(self) -> int:
        """Width of one time patch's output, all its summary tokens together."""
        return self.summary_tokens * self.width


# Published sizes (EEGPT, table of variants).
EEGPT_SIZES: dict[str, EEGPTConfig] = {
    "tiny1": EEGPTConfig(64, 2, 4, 1), "tiny2": EEGPTConfig(64, 2, 4, 4), "tiny3": EEGPTConfig(64, 8, 4, 4),
    "little": EEGPTConfig(128, 8, 4, 4), "base1": EEGPTConfig(256, 6, 8, 1), "base2": EEGPTConfig(256, 8, 8, 4),
    "large": EEGPTConfig(512, 8, 8, 4),
}


def eegpt_config(size: str, **changes: float) -> EEGPTConfig:
    """Configuration of a published size, single values replaced.

    Parameters
    ----------
    size : str
        Name in :data:`EEGPT_SIZES`.
    **changes
        Fields of :class:`EEGPTConfig`.

    Raises
    ------
    ValueError
        For an unknown size.
    """
    if size not in EEGPT_SIZES:
        raise ValueError(f"Unknown EEGPT size '{size}' (known: {', '.join(EEGPT_SIZES)}).")
    return EEGPTConfig(**{**asdict(EEGPT_SIZES[size]), **changes})


class Attention(nn.Module):
    """Multi-head self-attention over the tokens of one time patch."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, angles: Tensor | None = None, kept: int | None = None) -> Tensor:
        """Tokens after the layer.

        Parameters
        ----------
        x : Tensor, shape (batch, tokens, width)
            Tokens.
        angles : Tensor, optional
            Of the rotary places; see :func:`rotated`.
        kept : int, optional
            Give only the last tokens, this many; they attend to all. Default: all, the same shape as `x`.
        """
        width = x.shape[-1]
        if kept is None:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        else:  # the others are asked nothing, so they need no query
            weight, bias = self.qkv.weight, self.qkv.bias
            q = F.linear(x[:, -kept:], weight[:width], bias[:width]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            k, v = F.linear(x, weight[width:], bias[width:]).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if angles is not None:
            q, k = rotated(q, angles[..., -q.shape[2] :, :]), rotated(k, angles)
        x = F.scaled_dot_product_attention(q, k, v)  # (batch, heads, tokens or kept, width / heads)
        return self.proj(x.transpose(1, 2).flatten(2))


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Queries or keys with rotary position embedding: tokens attend by distance.

    Parameters
    ----------
    x : Tensor, shape (batch, heads, tokens, d)
        Its first and second half make pairs.
    angles : Tensor, shape (..., tokens, d / 2)
        Radians; only pretraining gives positions, the encoder itself has none.

    References
    ----------
    Su, J., et al. (2024). RoFormer: enhanced transformer with rotary position embedding. Neurocomputing, 568.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos()],
                     dim=-1)


class MLP(nn.Module):
    """Two layers with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: EEGPTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = MLP(config.width, config.mlp_ratio * config.width)

    def forward(self, x: Tensor, angles: Tensor | None = None, kept: int | None = None) -> Tensor:
        """Tokens after the layer.

        Parameters
        ----------
        x : Tensor, shape (batch, tokens, width)
            Tokens.
        angles : Tensor, optional
            Of the rotary places; see :func:`rotated`.
        kept : int, optional
            As for :class:`Attention`.
        """
        attended = self.attn(self.norm1(x), angles, kept)
        x = x[:, -attended.shape[1] :] + attended
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Linear map of 64 samples of one channel, kept as the convolution that the released weights store."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, width, (1, PATCH), stride=(1, PATCH))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time, 64 samples) to (batch, time, channel, width)."""
        return F.linear(x, self.proj.weight.flatten(1), self.proj.bias).transpose(1, 2)


class EEGPT(nn.Module):
    """EEG encoder.

    Parameters
    ----------
    config : EEGPTConfig
        Size.
    ch_names : list of str
        Channels of the input, canonical names of :data:`e2llm.core.montage.EEGPT_VOCABULARY`.
    """

    channel_rows: Tensor

    def __init__(self, config: EEGPTConfig, ch_names: list[str]) -> None:
        super().__init__()
        unknown = [name for name in ch_names if name not in EEGPT_VOCABULARY]
        if unknown:
            raise ValueError(f"EEGPT has no embedding for the channels {unknown}: drop them or rename them.")
        self.config, self.ch_names = config, list(ch_names)
        self.patch_embed = PatchEmbed(config.width)
        self.chan_embed = nn.Embedding(len(EEGPT_VOCABULARY), config.width)
        self.summary_token = nn.Parameter(torch.empty(1, config.summary_tokens, config.width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        rows = [EEGPT_VOCABULARY.index(name) for name in ch_names]
        self.register_buffer("channel_rows", torch.tensor(rows), persistent=False)
        self.apply(self._init)
        nn.init.trunc_normal_(self.summary_token, std=0.02)

    @staticmethod
    def _init(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(bias := getattr(module, "bias", None), Tensor):
                nn.init.zeros_(bias)

    def forward(self, signal_mv: Tensor) -> Tensor:
        """Summary tokens of each time patch.

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            Average-referenced EEG at 256 Hz in millivolts; 1024 samples are 4 s.

        Returns
        -------
        Tensor, shape (batch, n_samples / 64, summary_tokens, width)
            Fewer time patches in training with ``patch_dropout``.
        """
        times = channels = None
        if self.training:
            times = _kept(signal_mv.shape[-1] // PATCH, self.config.patch_dropout, signal_mv.device)
            channels = _kept(len(self.ch_names), self.config.channel_dropout, signal_mv.device)
        return self.summarize(self.embed(signal_mv, times, channels))

    def embed(self, signal_mv: Tensor, times: Tensor | None = None, channels: Tensor | None = None) -> Tensor:
        """A token for every patch.

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            Millivolts.
        times, channels : Tensor of int, optional
            Time patches and channels to embed; all by default.

        Returns
        -------
        Tensor, shape (batch, n_times, n_channels, width)

        Raises
        ------
        ValueError
            If the signal has other channels, or is not made of whole patches.
        """
        if signal_mv.shape[1] != len(self.ch_names) or signal_mv.shape[-1] % PATCH:
            raise ValueError(f"EEGPT expects ({len(self.ch_names)} channels, a multiple of {PATCH} samples), got "
                             f"{tuple(signal_mv.shape[1:])}.")
        patches, rows = signal_mv.unflatten(-1, (-1, PATCH)), self.channel_rows
        if times is not None:
            patches = patches.index_select(2, times)
        if channels is not None:
            patches, rows = patches.index_select(1, channels), rows[channels]
        return self.patch_embed(patches) + self.chan_embed(rows)

    def summarize(self, x: Tensor) -> Tensor:
        """Summary tokens of any patches: (batch, time, channel, width) to (batch, time, summary_tokens, width)."""
        batch, n_time = x.shape[:2]
        x = torch.cat([x.flatten(0, 1), self.summary_token.expand(batch * n_time, -1, -1)], dim=1)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        return self.norm(last(x, kept=self.config.summary_tokens)).unflatten(0, (batch, n_time))


def _kept(n: int, dropped: float, device: torch.device) -> Tensor | None:
    """A random share of n places, in their order; None for all."""
    if dropped <= 0.0:
        return None
    # Drawn on the CPU, so that a training sees the same places wherever it runs.
    return torch.randperm(n)[: max(1, round(n * (1.0 - dropped)))].sort().values.to(device)


def moments(tokens: Tensor) -> Tensor:
    """Mean and mean square over time patches: (windows, n_times, eeg_width) to (windows, 2 * eeg_width).

    The input of the evidence probe. A patch lasts a quarter of a second, less than a period of the slow bands: their
    power shows in how far the patches lie apart, not in where they lie.
    """
    return torch.cat([tokens.mean(dim=1), tokens.square().mean(dim=1)], dim=1)
