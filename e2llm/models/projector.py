"""The bridge from EEG to language: what the encoder heard becomes tokens of a language model."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from ..core.claims import EVIDENCE_THRESHOLD, MAX_ABS_Z
from .eegpt import moments

WORDS_OF_A_SLOT = 3  # "occipital", "alpha", "low"
CHANGE_WEIGHT = 16.0  # of the squared error of a change beside that of a level, where an ear is fitted


class EvidenceProbe(NamedTuple):
    """How evidence is heard in the tokens of an encoder: z-scores as a linear function of a window's :func:`e2llm.models.eegpt.moments`."""

    names: list[str]
    weight: Tensor  # (n_names, 2 * eeg_width)
    bias: Tensor

    @classmethod
    def fit(cls, tokens: np.ndarray, z: np.ndarray, names: list[str], origin: np.ndarray | None = None) -> EvidenceProbe:
        """Ridge regression, its penalty chosen by leave-one-out, on training windows.

        Stage 1's own spectral head saw a quarter of the time patches at once; it hears whole windows too quietly.

        Parameters
        ----------
        tokens : ndarray, shape (n_windows, 16, eeg_width)
            Of a frozen encoder.
        z : ndarray, shape (n_windows, n_names)
            Measured evidence of the same windows, against each person's own level.
        names : list of str
            Its columns.
        origin : ndarray of int, shape (n_windows,), optional
            For an edited copy, the row of the window that it was edited from; negative for all others. The change from window to copy is
            fitted too, an error in it :data:`CHANGE_WEIGHT` times as dear as one in a level: an edit should be heard where it was made, and
            nowhere else.
        """
        pooled, z = _moments_of(np.asarray(tokens)).numpy(), np.clip(z, -MAX_ABS_Z, MAX_ABS_Z)
        scaler, level = StandardScaler().fit(pooled), z.mean(axis=0)
        x, y = scaler.transform(pooled), z - level
        if origin is not None and (copied := np.asarray(origin) >= 0).any():
            x, y = (np.concatenate([of, CHANGE_WEIGHT**0.5 * (of[copied] - of[origin[copied]])]) for of in (x, y))
        # No intercept: both sides are centred, and a change of nothing is heard as nothing.
        weight = np.atleast_2d(RidgeCV(np.logspace(-2, 4, 13), fit_intercept=False).fit(x, y).coef_) / scaler.scale_
        bias = level - weight @ scaler.mean_
        return cls(list(names), *(torch.from_numpy(np.array(part, dtype=np.float32, order="C")) for part in (weight, bias)))

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Z-scores as they are heard, (n_windows, n_names), of tokens (n_windows, 16, eeg_width or its factors)."""
        return F.linear(_moments_of(tokens).float(), self.weight, self.bias).numpy()


def _moments_of(tokens: np.ndarray) -> Tensor:
    """Moments of tokens as they lie on disk, factors of their width apart: few windows in memory at a time, in double precision."""
    some = np.array_split(tokens, max(1, len(tokens) // 256))
    return torch.cat([moments(torch.from_numpy(np.array(part, dtype=np.float64).reshape(len(part), part.shape[1], -1))) for part in some])


def top_evidence(predicted_evidence: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Which features are said of a segment: the ``slots`` largest beyond :data:`LOUD`, in the order of the table, then nothing.

    Parameters
    ----------
    heard : Tensor, shape (segments, n_features)
        Z-scores as they are heard.

    Returns
    -------
    which, is_said : Tensor, shape (segments, slots)
        Column of each slot, and whether it is said; what is not said comes last.
    """
    size = predicted_evidence.abs()
    which = size.topk(slots, dim=1).indices
    quiet = size.gather(1, which) < EVIDENCE_THRESHOLD
    which = (which + predicted_evidence.shape[1] * quiet).sort(dim=1).values  # quiet ones behind all others
    return which % predicted_evidence.shape[1], which < predicted_evidence.shape[1]


class EvidenceTokens(nn.Module):
    """The loudest evidence that is heard in a segment, in words of the language model.

    A concept bottleneck (Koh et al. 2020, ICML) inside the projector: an :class:`Ear` estimates every feature's z-score from the
    encoder's tokens, and the loudest become three tokens each: the embeddings of the feature's two words and of its level. Nothing
    measured enters here: what is misheard is said wrongly, and checked against the signal. Nothing here is trained on.

    Parameters
    ----------
    eeg_width, text_width : int
        Widths of a time patch's tokens and of the language model.
    n_features, slots : int
        Features that can be heard, and how many are said to the language model at most.
    """

    def __init__(self, eeg_width: int, text_width: int, n_features: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        # Buffers, no parameters: instruction tuning must not teach the ear to hear what is wanted, nor the words to mean something else.
        shapes = {"weight": (n_features, 2 * eeg_width), "bias": (n_features,), "first": (n_features, text_width),
                  "second": (n_features, text_width), "levels": (2, text_width), "silence": (text_width,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def predicted_evidence(self, features: Tensor) -> Tensor:
        """Z-scores as they are heard, (segments, 16, eeg_width) to (segments, n_features)."""
        return F.linear(moments(features), self.weight, self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(segments, 16, eeg_width) to (segments, 3 * slots, text_width)."""
        z = self.predicted_evidence(features)
        which, is_said = top_evidence(z, self.slots)
        level = self.levels[(z.gather(1, which) > 0).long()]
        words = torch.stack([self.first[which], self.second[which], level], dim=2)
        return torch.where(is_said[:, :, None, None], words, self.no_evidence).flatten(1, 2)

    @torch.no_grad()
    def set_from_probe(self, evidence_probe: EvidenceProbe, embed) -> None:
        """Take over an ear; ``embed(text)`` gives the language model's embedding of a word, (text_width,)."""
        self.weight.copy_(evidence_probe.weight)
        self.bias.copy_(evidence_probe.bias)
        for row, name in enumerate(evidence_probe.names):
            first, second = name.split(" ", 1)
            self.first[row], self.second[row] = embed(f" {first}"), embed(f" {second}")
        self.levels[0], self.levels[1] = embed(" low"), embed(" high")
        self.no_evidence.copy_(embed(" ]"))  # the end of a segment that exists only in words


class _NoEvidenceTokens(nn.Module):
    """Evidence tokens of a segment in which nothing is loud."""

    def __init__(self, evidence: EvidenceTokens) -> None:
        super().__init__()
        self.slots, self.no_evidence = evidence.slots, evidence.no_evidence

    def forward(self, features: Tensor) -> Tensor:
        return self.no_evidence.expand(len(features), WORDS_OF_A_SLOT * self.slots, -1)


class Projector(nn.Module):
    """From time patches of EEG to tokens of the language model: LayerNorm and a two-layer MLP, and the evidence that is heard.

    Parameters
    ----------
    eeg_width, text_width, hidden : int
        Widths of a time patch's tokens, of the language model, and of the MLP.
    eeg_tokens : int
        Tokens of a segment that the MLP makes, each of neighbouring time patches.
    n_features, slots : int
        See :class:`EvidenceTokens`; no slots, no evidence tokens.
    """

    def __init__(self, eeg_width: int, text_width: int, hidden: int, eeg_tokens: int, n_features: int = 0, slots: int = 0) -> None:
        super().__init__()
        self.eeg_tokens = eeg_tokens
        self.norm = nn.LayerNorm(eeg_width)
        self.fc1 = nn.Linear(eeg_width, hidden)
        self.fc2 = nn.Linear(hidden, text_width)
        self.evidence = EvidenceTokens(eeg_width, text_width, n_features, slots) if slots else None

    def state_tokens(self, features: Tensor) -> Tensor:
        """(segments, 16, eeg_width) to (segments, eeg_tokens, text_width): neighbouring time patches are averaged."""
        segments, n_time, width = features.shape
        pooled = features.view(segments, self.eeg_tokens, n_time // self.eeg_tokens, width).mean(dim=2)
        return self.fc2(F.gelu(self.fc1(self.norm(pooled))))

    def forward(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """State tokens, then evidence tokens: (segments, 16, eeg_width) to (segments, eeg_tokens + 3 * slots, text_width).

        ``noise``, shaped like ``features``, is added to what the state tokens are made from and to nothing else.
        """
        state = self.state_tokens(features if noise is None else features + noise)
        return state if self.evidence is None else torch.cat([state, self.evidence(features)], dim=1)

    def without_evidence_tokens(self) -> Projector:
        """The same projector, saying nothing of the evidence: its state tokens depend smoothly on the signal, words jump."""
        quiet = copy.copy(self)
        quiet._modules = {**self._modules, "evidence": None if self.evidence is None else _NoEvidenceTokens(self.evidence)}
        return quiet

    @torch.no_grad()
    def reinitialize(self, seed: int) -> None:
        """Fresh weights at the volume of the trained ones, the ear's included: what is left of EEG behind them has no meaning."""
        torch.manual_seed(seed)
        for layer in (self.fc1, self.fc2):
            volume = layer.weight.std()
            layer.reset_parameters()
            layer.weight.mul_(volume / layer.weight.std())
        self.norm.reset_parameters()
        if self.evidence is not None:
            weight = self.evidence.weight  # means and mean squares are of different volume
            weight.copy_(torch.randn_like(weight) * weight.std(dim=0))
