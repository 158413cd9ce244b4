"""Logits of a causal language model at some places only, and the loss of labels from them."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.chat import IGNORE


def logits_at(model, at: Tensor, **inputs):
    """Output of a causal language model with logits at some places only.

    Parameters
    ----------
    model : PreTrainedModel
        Any causal language model, also one that a training on several devices has wrapped.
    at : Tensor of bool, shape (batch, length)
        The places.
    **inputs
        Of its ``forward``.

    Returns
    -------
    CausalLMOutputWithPast
        ``logits`` (1, n, vocabulary) at the n places, row by row.
    """
    head = getattr(model, "module", model).get_output_embeddings()
    # At the output layer's door, so that whatever a model does with its logits afterwards is still done.
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][at.to(args[0].device)].unsqueeze(0),))
    try:
        return model(**inputs)
    finally:
        hook.remove()


def loss_at_labels(model, labels: Tensor, **inputs):
    """Output of a causal language model with the cross-entropy of the labels, and logits only where it needs them.

    Over a large vocabulary logits are most of the work, and only some ten to twenty tokens of a text are an answer.

    Parameters
    ----------
    model, **inputs
        See :func:`logits_at`.
    labels : Tensor of int, shape (batch, length)
        :data:`e2llm.core.chat.IGNORE` where there is no loss.

    Returns
    -------
    CausalLMOutputWithPast
        ``logits`` (1, n, vocabulary) at the n places before a label, row by row; ``loss``, their mean.
    """
    next_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE)
    at = next_labels != IGNORE
    out = logits_at(model, at, **inputs)
    out.loss = nn.functional.cross_entropy(out.logits[0].float(), next_labels[at].to(out.logits.device))
    return out
