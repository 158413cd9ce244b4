"""The projector: from EEG tokens of the encoder to tokens of the language model, with the evidence probe inside."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.claims import EVIDENCE_THRESHOLD, LOW_HIGH, Scale
from .eegpt import moments
from .evidence_probe import EvidenceProbe

NAME_TOKENS = 2  # of a slot: "occipital", "alpha"; those of its level follow


def tokens_per_slot(scale: Scale) -> int:
    """Evidence tokens of one feature: the words of its name and of its level."""
    return NAME_TOKENS + scale.level_words


def top_evidence(predicted_evidence: Tensor, slots: int,
                 threshold: float = EVIDENCE_THRESHOLD) -> tuple[Tensor, Tensor]:
    """Top-k evidence of a segment: the ``slots`` largest features beyond the threshold, in the order of the table.

    Parameters
    ----------
    predicted_evidence : Tensor, shape (segments, n_features)
        Predicted z-scores.
    slots : int
        k.
    threshold : float
        Smallest ``|z|`` of a slot that is used.

    Returns
    -------
    which, is_used : Tensor, shape (segments, slots)
        Column of each slot, and whether the slot is used; unused slots come last.
    """
    size = predicted_evidence.abs()
    which = size.topk(slots, dim=1).indices
    below = size.gather(1, which) < threshold
    which = (which + predicted_evidence.shape[1] * below).sort(dim=1).values  # those below the threshold come last
    return which % predicted_evidence.shape[1], which < predicted_evidence.shape[1]


class EvidenceTokens(nn.Module):
    """Top-k predicted evidence of a segment as word embeddings of the language model.

    A concept bottleneck inside the projector. An :class:`EvidenceProbe` predicts the z-score of every feature from
    the encoder's tokens. Each of the largest becomes three or four tokens: the embeddings of the two words of the
    feature's name, and of the words of its level. No measured value enters: a wrong prediction gives wrong words, and
    is checked against the signal. Nothing here is trained.

    Parameters
    ----------
    eeg_width, text_width : int
        Widths of the tokens of a time patch and of the language model.
    n_features, slots : int
        Features that the probe predicts, and the largest number of them that are given to the language model.
    scale : Scale
        Levels in words, and from which ``|z|`` a feature is given.

    References
    ----------
    Koh, P. W., et al. (2020). Concept bottleneck models. ICML.
    """

    weight: Tensor
    bias: Tensor
    first: Tensor
    second: Tensor
    levels: Tensor
    no_evidence: Tensor

    def __init__(self, eeg_width: int, text_width: int, n_features: int, slots: int, scale: Scale = LOW_HIGH) -> None:
        super().__init__()
        self.slots, self.scale = slots, scale
        # Buffers, no parameters: instruction tuning must change neither the probe nor the words.
        n_words = 2 * len(scale.degrees) * scale.level_words
        shapes = {"weight": (n_features, 2 * eeg_width), "bias": (n_features,), "first": (n_features, text_width),
                  "second": (n_features, text_width), "levels": (n_words, text_width),
                  "no_evidence": (text_width,)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def predicted_evidence(self, features: Tensor) -> Tensor:
        """Predicted z-scores, (segments, n_times, eeg_width) to (segments, n_features)."""
        return F.linear(moments(features), self.weight, self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Evidence tokens, (segments, n_times, eeg_width) to (segments, tokens_per_slot * slots, text_width)."""
        z = self.predicted_evidence(features)
        which, is_used = top_evidence(z, self.slots, self.scale.cited)
        levels = self.levels.unflatten(0, (-1, self.scale.level_words))
        names = torch.stack([self.first[which], self.second[which]], dim=2)
        words = torch.cat([names, levels[self._level(z.gather(1, which))]], dim=2)
        return torch.where(is_used[:, :, None, None], words, self.no_evidence).flatten(1, 2)

    def _level(self, z: Tensor) -> Tensor:
        """Place of the level for z-scores beyond the threshold: from the lowest level to the highest."""
        limits = self.scale.thresholds
        degree = sum((z.abs() >= limit).long() for limit in limits[1:]) + 1
        return torch.where(z > 0, len(limits) + degree - 1, len(limits) - degree)

    @torch.no_grad()
    def set_from_probe(self, evidence_probe: EvidenceProbe, embed: Callable[[str], Tensor]) -> None:
        """Take over a fitted probe and the embeddings of its words.

        Parameters
        ----------
        evidence_probe : EvidenceProbe
            Its names are two words each.
        embed : callable
            ``embed(text)`` gives the language model's embedding of a word, or the mean of several, shape
            (text_width,).
        """
        self.weight.copy_(evidence_probe.weight)
        self.bias.copy_(evidence_probe.bias)
        for row, name in enumerate(evidence_probe.names):
            first, second = name.split(" ", 1)
            self.first[row], self.second[row] = embed(f" {first}"), embed(f" {second}")
        words = [word for level in self.scale.words if level != "typical" for word in level.split()]
        for row, word in enumerate(words):
            self.levels[row] = embed(f" {word}")
        self.no_evidence.copy_(embed(" ]"))  # the end of a segment that exists only in words


class _NoEvidenceTokens(nn.Module):
    """Evidence tokens of a segment in which no feature is beyond the threshold."""

    def __init__(self, evidence: EvidenceTokens) -> None:
        super().__init__()
        self.n_tokens, self.no_evidence = tokens_per_slot(evidence.scale) * evidence.slots, evidence.no_evidence

    def forward(self, features: Tensor) -> Tensor:
        return self.no_evidence.expand(len(features), self.n_tokens, -1)


class Projector(nn.Module):
    """From time patches of EEG to tokens of the language model: LayerNorm, a two-layer MLP, and evidence tokens.

    Parameters
    ----------
    eeg_width, text_width, hidden : int
        Widths of the tokens of a time patch, of the language model, and of the MLP.
    eeg_tokens : int
        State tokens: tokens of a segment that the MLP makes, each of neighboring time patches.
    n_features, slots, scale : int, int, Scale
        See :class:`EvidenceTokens`; without slots there are no evidence tokens.
    """

    def __init__(self, eeg_width: int, text_width: int, hidden: int, eeg_tokens: int, n_features: int = 0,
                 slots: int = 0, scale: Scale = LOW_HIGH) -> None:
        super().__init__()
        self.eeg_tokens = eeg_tokens
        self.norm = nn.LayerNorm(eeg_width)
        self.fc1 = nn.Linear(eeg_width, hidden)
        self.fc2 = nn.Linear(hidden, text_width)
        self.evidence = EvidenceTokens(eeg_width, text_width, n_features, slots, scale) if slots else None

    def state_tokens(self, features: Tensor) -> Tensor:
        """MLP of the mean of neighboring time patches.

        (segments, n_times, width) to (segments, eeg_tokens, text_width); ValueError if these do not divide those.
        """
        segments, n_time, width = features.shape
        if n_time % self.eeg_tokens:
            raise ValueError(f"{self.eeg_tokens} state tokens of a segment do not divide its {n_time} time patches: "
                             "take another eeg_tokens, or windows of another length.")
        pooled = features.view(segments, self.eeg_tokens, n_time // self.eeg_tokens, width).mean(dim=2)
        return self.fc2(F.gelu(self.fc1(self.norm(pooled))))

    def forward(self, features: Tensor, noise: Tensor | None = None) -> Tensor:
        """State tokens, then evidence tokens.

        Parameters
        ----------
        features : Tensor, shape (segments, n_times, eeg_width)
            Tokens of the encoder.
        noise : Tensor, optional
            Of the same shape; added to the input of the state tokens only.

        Returns
        -------
        Tensor, shape (segments, eeg_tokens + tokens_per_slot * slots, text_width)
        """
        state = self.state_tokens(features if noise is None else features + noise)
        return state if self.evidence is None else torch.cat([state, self.evidence(features)], dim=1)

    def without_evidence_tokens(self) -> Projector:
        """Copy that shares all weights and gives the tokens of "no evidence": state tokens alone are differentiable."""
        changed = copy.copy(self)
        evidence = None if self.evidence is None else _NoEvidenceTokens(self.evidence)
        changed._modules = {**self._modules, "evidence": evidence}
        return changed

    @torch.no_grad()
    def reinitialize(self, seed: int) -> None:
        """New random weights with the standard deviation of the trained ones, those of the probe included."""
        torch.manual_seed(seed)
        for layer in (self.fc1, self.fc2):
            spread = layer.weight.std()
            layer.reset_parameters()
            layer.weight.mul_(spread / layer.weight.std())
        self.norm.reset_parameters()
        if self.evidence is not None:
            weight = self.evidence.weight  # means and mean squares differ in size
            weight.copy_(torch.randn_like(weight) * weight.std(dim=0))
