"""Logits of a causal language model at some places only, and the loss of labels from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..core.chat import IGNORE

OTHER_TOKENS = 2000  # of a softmax in training, beside those of the labels


def logits_at(model, at: Tensor, tokens: Tensor | None = None, **inputs):
    """Output of a causal language model with logits at some places only, and of some tokens only.

    Parameters
    ----------
    model : PreTrainedModel
        Any causal language model, also one that a training on several devices has wrapped.
    at : Tensor of bool, shape (batch, length)
        The places.
    tokens : Tensor of int, shape (n_tokens,), optional
        The tokens; default the whole vocabulary.
    **inputs
        Of its ``forward``.

    Returns
    -------
    CausalLMOutputWithPast
        ``logits`` (1, n, n_tokens) at the n places, row by row.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    # At the output layer's door, so that whatever a model does with its logits afterwards is still done.
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][at.to(args[0].device)].unsqueeze(0),))
    try:
        with nullcontext() if tokens is None else _some_rows(head, tokens):
            return model(**inputs)
    finally:
        hook.remove()


@contextmanager
def _some_rows(head: Any, tokens: Tensor) -> Iterator[None]:
    """An output layer that makes the logits of some tokens alone, in their order."""
    def forward(hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, head.weight[tokens], None if head.bias is None else head.bias[tokens])

    head.forward = forward
    try:
        yield
    finally:
        del head.forward  # that of its class is found again


def loss_at_labels(model, labels: Tensor, tokens: Tensor | None = None, **inputs):
    """Output of a causal language model with the cross-entropy of the labels, and logits only where it needs them.

    Over a large vocabulary logits are most of the work, and only some ten to twenty tokens of a text are an answer.

    Parameters
    ----------
    model, **inputs
        See :func:`logits_at`.
    labels : Tensor of int, shape (batch, length)
        :data:`e2llm.core.chat.IGNORE` where there is no loss.
    tokens : Tensor of int, shape (n_tokens,), optional
        The softmax is over these, in rising order, with every label among them; default the whole vocabulary.

    Returns
    -------
    CausalLMOutputWithPast
        ``logits`` (1, n, n_tokens) at the n places before a label, row by row; ``loss``, their mean.
    """
    next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE)
    at = next_labels != IGNORE
    out = logits_at(model, at, tokens, **inputs)
    wanted = next_labels[at] if tokens is None else torch.searchsorted(tokens, next_labels[at])
    out.loss = nn.functional.cross_entropy(out.logits[0].float(), wanted.to(out.logits.device))
    return out
