"""Chat messages with EEG segments to model inputs: the processor of E2-LLM."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from ..core.chat import EEG_TOKEN, EMPTY_THOUGHT, END_THINK, IGNORE, THINK
from ..core.claims import LOW_HIGH, SCALES
from .projector import tokens_per_slot

# What ``from_pretrained`` may be given beside its own arguments: where and how the hub is asked.
HUB_ARGUMENTS = frozenset({"cache_dir", "force_download", "local_files_only", "proxies", "subfolder", "token"})
_AUTO_ARGUMENTS = frozenset({"_from_auto", "adapter_kwargs", "trust_remote_code"})  # added by the Auto classes


def refuse_unknown(function: str, given: dict[str, Any], known: Iterable[str] = ()) -> None:
    """Raise a TypeError that names arguments which a function does not know.

    Parameters
    ----------
    function : str
        Name for the message.
    given : dict
        Further keyword arguments.
    known : iterable of str
        Names that are understood beside those which transformers' Auto classes add by themselves.

    Raises
    ------
    TypeError
        If there are others.
    """
    if unknown := sorted(set(given) - set(known) - _AUTO_ARGUMENTS):
        raise TypeError(f"{function} got unknown arguments: {', '.join(unknown)}. Leave them out or correct their "
                        "names.")


class E2LLMProcessor(ProcessorMixin):
    """Chat messages with text and EEG parts to model inputs; ``AutoProcessor`` finds it by the model's configuration.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of the language model; knows the EEG token and has a chat template.
    eeg_tokens, evidence_slots, levels : int, int, str
        State tokens of a segment, features of its evidence tokens, and words for their levels; as in
        :class:`e2llm.models.modeling.E2LLMConfig`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, eeg_tokens: int = 1, evidence_slots: int = 0,
                 levels: str = LOW_HIGH.name) -> None:
        super().__init__(tokenizer)
        self.eeg_tokens, self.evidence_slots, self.levels = eeg_tokens, evidence_slots, levels
        # The layout of a segment that exists only in words ("[ fear strong, occipital alpha low ]"): EEG is read alike.
        slots = [EEG_TOKEN * eeg_tokens, *[EEG_TOKEN * tokens_per_slot(SCALES[levels])] * evidence_slots]
        self.segment = f"[{','.join(slots)} ]" if evidence_slots else slots[0]
        self.brief_segment = f"[{slots[0]} ]" if evidence_slots else slots[0]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, revision: str = "main",
                        **kwargs: Any) -> E2LLMProcessor:
        """Load what :meth:`save_pretrained` wrote.

        Parameters
        ----------
        pretrained_model_name_or_path : str or path
            A folder, or a hub id.
        revision : str
            Branch, tag or commit of a hub id.
        **kwargs
            Names in :data:`HUB_ARGUMENTS`, and ``eeg_tokens``, ``evidence_slots`` and ``levels`` to replace the stored
            ones.

        Raises
        ------
        TypeError
            For other arguments.
        """
        refuse_unknown(f"{cls.__name__}.from_pretrained", kwargs, HUB_ARGUMENTS | {"eeg_tokens", "evidence_slots",
                                                                                        "levels"})
        return super().from_pretrained(pretrained_model_name_or_path, revision=revision, **kwargs)

    def prompt(self, messages: list[dict], thinking: bool) -> str:
        """Text of the messages up to the assistant's turn.

        Chat templates differ: some know ``enable_thinking`` (Qwen3), some ignore it (SmolLM2), some always open a
        thought. With each of them an answer starts with its own ``<think>`` here, or after an empty thought.

        Parameters
        ----------
        messages : list of dict
            Chat messages; their content is text, or a list of parts of type "text" and "eeg".
        thinking : bool
            False ends the prompt with an empty thought.
        """
        flat = [{"role": message["role"], "content": self._flatten(message["content"])} for message in messages]
        text = self.tokenizer.apply_chat_template(flat, tokenize=False, add_generation_prompt=True,
                                                  enable_thinking=thinking)
        if text.rstrip().endswith(THINK):
            text = text.rstrip().removesuffix(THINK)
        return text if thinking or text.rstrip().endswith(END_THINK) else text + EMPTY_THOUGHT

    def _flatten(self, content: str | list[dict]) -> str:
        if isinstance(content, str):
            return content
        return "".join(part["text"] if part["type"] != "eeg" else self.segment if part.get("evidence", True)
                       else self.brief_segment for part in content)

    @classmethod
    def windows(cls, messages: list[dict]) -> list[int]:
        """Window ids of the EEG parts, in the order of the text."""
        return [part["window"] for part in cls._eeg_parts(messages)]

    @classmethod
    def brief(cls, messages: list[dict]) -> list[bool]:
        """Whether each EEG part enters with its state tokens alone, in the order of the text."""
        return [not part.get("evidence", True) for part in cls._eeg_parts(messages)]

    @staticmethod
    def _eeg_parts(messages: list[dict]) -> list[dict]:
        return [part for message in messages if not isinstance(message["content"], str)
                for part in message["content"] if part["type"] == "eeg"]

    def ids(self, text: str) -> list[int]:
        """Token ids without added special tokens (the chat template has them)."""
        return self.ids_of([text])[0]

    def ids_of(self, texts: list[str]) -> list[list[int]]:
        """Token ids of several texts, cut in one call of the tokenizer."""
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def training_example(self, messages: list[dict], response: str, thinking: bool) -> dict:
        """Ids and labels of one item; see :meth:`training_examples`.

        Parameters
        ----------
        messages : list of dict
            See :meth:`prompt`.
        response : str
            The assistant's turn.
        thinking : bool
            Whether that has a thought.
        """
        return self.training_examples([(messages, response, thinking)])[0]

    def training_examples(self, turns: list[tuple[list[dict], str, bool]]) -> list[dict]:
        """Ids and labels of items: only the assistant's response has a loss.

        Parameters
        ----------
        turns : list of tuple
            Messages (see :meth:`prompt`), the assistant's turn without the token that ends it, and whether that has a
            thought.

        Returns
        -------
        list of dict
            ``input_ids`` and ``labels`` (lists of int of one length), ``windows`` and ``brief``.
        """
        texts = []
        for messages, response, thinking in turns:
            # Cut where scoring cuts: some tokenizers would join a line break and the text after it otherwise.
            thought, end, answer = response.rpartition(f"{END_THINK}\n\n")
            texts += [self.prompt(messages, thinking), thought + end, answer]
        cut = self.ids_of(texts)
        examples = []
        for i, (messages, _, _) in enumerate(turns):
            prompt, thought_ids, answer_ids = cut[3 * i : 3 * i + 3]
            ids = [*thought_ids, *answer_ids, self.tokenizer.eos_token_id]
            examples.append({"input_ids": prompt + ids, "labels": [IGNORE] * len(prompt) + ids,
                             "windows": self.windows(messages), "brief": self.brief(messages)})
        return examples

    def pad(self, rows: list[list[int]], side: str, value: int | None = None) -> tuple[Tensor, Tensor]:
        """Pad lists of ids to one length.

        Parameters
        ----------
        rows : list of list of int
            Token ids.
        side : str
            "left" or "right".
        value : int, optional
            Id to pad with; default that of the tokenizer.

        Returns
        -------
        ids, mask : Tensor of int, shape (len(rows), longest)
            The mask is 1 at tokens and 0 at padding.
        """
        value = self.tokenizer.pad_token_id if value is None else value
        length = max(len(row) for row in rows)
        ids, mask = np.full((len(rows), length), value), np.zeros((len(rows), length), dtype=np.int64)
        for i, row in enumerate(rows):
            where = slice(length - len(row), None) if side == "left" else slice(0, len(row))
            ids[i, where], mask[i, where] = row, 1
        return torch.from_numpy(ids), torch.from_numpy(mask)
