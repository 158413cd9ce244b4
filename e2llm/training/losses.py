"""The losses of stage 1 (classes, supervised contrast, evidence and its changes) and the encoder with its head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.eegpt import EEGPT, moments
from .processes import whole_batch

UNLABELLED = -1  # class of a sample without label, such as a band-edited window
NO_SOURCE = -1  # source index of a sample that is not band-edited


@dataclass(frozen=True)
class HeadParams:
    """Weights of the stage-1 losses, and regularization of the head.

    ``ce`` cross-entropy, ``supcon`` supervised contrastive, ``spectral`` regression of the band power by scalp
    group that explanations will cite, ``change`` regression of how far an edit moved it.
    """

    ce: float = 1.0
    supcon: float = 0.3
    spectral: float = 4.0
    change: float = 8.0
    temperature: float = 0.1
    label_smoothing: float = 0.1
    dropout: float = 0.3


class EmotionEncoder(nn.Module):
    """Encoder with the stage-1 head.

    Cross-entropy and supervised contrastive loss (Khosla et al., NeurIPS 2020) make the summary tokens tell
    emotions apart; a spectral term keeps the evidence in them that stage 3 talks about, and a term of change what an
    edit did to it: what two signals share drops out of their difference, so there the error is what leaks from one
    feature into others. Samples of class :data:`UNLABELLED` enter these two terms only, and so do targets only where
    they are finite.

    Parameters
    ----------
    encoder : EEGPT
        The encoder.
    n_outputs : int
        Number of classes.
    n_spectral : int
        Number of spectral targets; 0 for none.
    params : HeadParams
        Weights of the terms.
    """

    def __init__(self, encoder: EEGPT, n_outputs: int, n_spectral: int = 0, params: HeadParams | None = None) -> None:
        super().__init__()
        self.encoder, self.params = encoder, params or HeadParams()
        width = encoder.config.token_width
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(self.params.dropout)
        self.classifier = nn.Linear(width, n_outputs)
        self.contrast = nn.Linear(width, 64)
        self.spectral = nn.Linear(2 * width, n_spectral) if n_spectral else None

    def pooled(self, tokens: Tensor) -> Tensor:
        """Mean over time patches of all summary tokens: (batch, n_times, S, width) to (batch, S * width)."""
        return self.norm(tokens.mean(dim=1).flatten(1))

    def forward(self, signal_mv: Tensor, labels: Tensor | None = None, spectral: Tensor | None = None,
                source_index: Tensor | None = None, order: Tensor | None = None) -> dict[str, Tensor]:
        """Logits, embedding and, with labels, the loss and its terms.

        Parameters
        ----------
        signal_mv : Tensor, shape (batch, n_channels, n_samples)
            See :class:`EEGPT`.
        labels : Tensor of int, shape (batch,), optional
            Class indices, or :data:`UNLABELLED`.
        spectral : Tensor, shape (batch, n_spectral), optional
            Targets, NaN where nothing was measured.
        source_index : Tensor of int, shape (batch,), optional
            For an augmented window, the place in this batch of the window that it was made from; :data:`NO_SOURCE` for
            the others.
        order : Tensor of int, shape (batch,), optional
            In several processes, where the signals are a part of the batch and all else is whole; see
            :func:`e2llm.training.processes.whole_batch`.
        """
        tokens = self.encoder(signal_mv)
        if order is not None:  # contrast needs all windows of the batch, and change the source of an edit
            tokens = whole_batch(tokens, order)
        embedding = self.pooled(tokens)
        logits = self.classifier(self.dropout(embedding))
        out = {"logits": logits, "embedding": embedding}
        if labels is None:
            return out
        p, labeled = self.params, labels != UNLABELLED
        terms = {"ce": F.cross_entropy(logits[labeled], labels[labeled], label_smoothing=p.label_smoothing),
                 "supcon": supervised_contrastive_loss(self.contrast(embedding[labeled]), labels[labeled],
                                                       p.temperature)}
        if self.spectral is not None and spectral is not None:
            measured = torch.isfinite(spectral)
            # Unlike the classifier, no norm: it would mix features.
            error = self.spectral(moments(tokens.flatten(2))) - spectral
            terms["spectral"] = error[measured].square().mean()
            if source_index is not None and (is_edited := source_index != NO_SOURCE).any():
                both = measured[is_edited] & measured[source_index[is_edited]]
                terms["change"] = (error[is_edited] - error[source_index[is_edited]])[both].square().mean()
        loss = sum(getattr(p, name) * term for name, term in terms.items())
        return {"loss": loss, **out, **terms}


def supervised_contrastive_loss(embedding: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Pull windows of one class together and push the others away.

    Parameters
    ----------
    embedding : Tensor, shape (batch, width)
        Any length; it is normalized here.
    labels : Tensor of int, shape (batch,)
        Class indices.
    temperature : float
        Smaller is sharper.

    Returns
    -------
    Tensor
        Mean over the anchors that have a positive (``L_out`` of Khosla et al. 2020, eq. 2); 0 if none has.
    """
    z = F.normalize(embedding, dim=1)
    similarity = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_probability = similarity - similarity.masked_fill(itself, -torch.inf).logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    n_positive = positive.sum(dim=1)
    anchors = n_positive > 0
    if not anchors.any():
        return embedding.sum() * 0.0
    per_anchor = -(log_probability * positive).sum(dim=1)[anchors] / n_positive[anchors]
    return per_anchor.mean()
