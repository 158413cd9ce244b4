"""A model that writes given texts, with its own keys and values of them."""

from __future__ import annotations

import torch

from e2llm.models import inference
from e2llm.models.inference import InferenceEngine


def dictate(monkeypatch, processor, items, texts, piece: int = 5) -> None:
    """Whatever a model would write about an item, it writes the item's text and ends.

    Parameters
    ----------
    monkeypatch : MonkeyPatch
        Takes it back.
    processor : E2LLMProcessor
        Cuts the texts.
    items, texts : list of Item, list of str
        Questions, all different, and what is written about each.
    piece : int
        Tokens that are written before texts that have ended leave the batch.
    """
    plain, length, scripts = InferenceEngine.inputs, [0], {}

    def inputs(self, asked, thinking, said=None):
        found = plain(self, asked, thinking, said)
        length[0] = found["input_ids"].shape[1]
        for ids, item in zip(found["input_ids"].tolist(), asked, strict=True):
            place = next(i for i, one in enumerate(items) if one.messages == item.messages)
            scripts[tuple(ids)] = [*processor.ids(texts[place]), processor.tokenizer.eos_token_id]
        return found

    def scripted(_token):
        def logits(ids, scores):
            scores[:] = -torch.inf
            for row, so_far in enumerate(ids.tolist()):
                script = scripts[tuple(so_far[: length[0]])]
                scores[row, script[min(len(so_far) - length[0], len(script) - 1)]] = 0.0
            return scores

        return logits

    monkeypatch.setattr(InferenceEngine, "inputs", inputs)
    monkeypatch.setattr(inference, "never", scripted)
    monkeypatch.setattr(inference, "_PIECE", piece)
