"""TODO purpose of models.processing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.chat import EEG_TOKEN, EMPTY_THOUGHT, END_THINK, IGNORE, THINK
from .projector import WORDS_OF_A_SLOT


class E2LLMProcessor:
    """Chat messages with text and EEG parts to model inputs.

    Parameters
    ----------
    tokenizer
        Of the language model; knows the EEG token and has a chat template.
    eeg_tokens, evidence_slots : int
        State tokens of a segment, and evidence that is said of it; as in :class:`E2LLMConfig`.
    """

    def __init__(self, tokenizer, eeg_tokens: int, evidence_slots: int = 0) -> None:
        self.tokenizer = tokenizer
        # The layout of a segment that exists only in words ("[ fear strong, occipital alpha low ]"), so that EEG is read like it.
        slots = [EEG_TOKEN * eeg_tokens, *[EEG_TOKEN * WORDS_OF_A_SLOT] * evidence_slots]
        self.segment = f"[{','.join(slots)} ]" if evidence_slots else slots[0]

    def prompt(self, messages: list[dict], thinking: bool) -> str:
        """Text of the messages up to the assistant's turn; with ``thinking`` off an empty thought is given.

        Templates differ: some know ``enable_thinking`` (Qwen3), some ignore it (SmolLM2), some always open a thought. Whatever the
        template, an answer starts with its own ``<think>`` here, or behind an empty thought.
        """
        flat = [{"role": message["role"], "content": self._flatten(message["content"])} for message in messages]
        text = self.tokenizer.apply_chat_template(flat, tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
        if text.rstrip().endswith(THINK):
            text = text.rstrip().removesuffix(THINK)
        return text if thinking or text.rstrip().endswith(END_THINK) else text + EMPTY_THOUGHT

    def _flatten(self, content: str | list[dict]) -> str:
        if isinstance(content, str):
            return content
        return "".join(self.segment if part["type"] == "eeg" else part["text"] for part in content)

    @staticmethod
    def windows(messages: list[dict]) -> list[int]:
        """Window ids of the EEG parts, in the order of the text."""
        return [part["window"] for message in messages if not isinstance(message["content"], str)
                for part in message["content"] if part["type"] == "eeg"]

    def ids(self, text: str) -> list[int]:
        """Token ids without added special tokens (the chat template has them)."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def training_example(self, messages: list[dict], response: str, thinking: bool) -> dict:
        """Ids and labels of one item: only the assistant's response carries loss."""
        prompt = self.ids(self.prompt(messages, thinking))
        # Cut where scoring cuts: some tokenizers would join a line break and what follows it otherwise.
        thought, end, said = response.rpartition(f"{END_THINK}\n\n")
        answer = [*self.ids(thought + end), *self.ids(said), self.tokenizer.eos_token_id]
        return {"input_ids": prompt + answer, "labels": [IGNORE] * len(prompt) + answer, "windows": self.windows(messages)}

    def pad(self, rows: list[list[int]], side: str, value: int | None = None) -> tuple[Tensor, Tensor]:
        """Pad id lists to one length on ``side``; returns ids and attention mask."""
        value = self.tokenizer.pad_token_id if value is None else value
        length = max(len(row) for row in rows)
        ids, mask = np.full((len(rows), length), value), np.zeros((len(rows), length), dtype=np.int64)
        for i, row in enumerate(rows):
            where = slice(length - len(row), None) if side == "left" else slice(0, len(row))
            ids[i, where], mask[i, where] = row, 1
        return torch.from_numpy(ids), torch.from_numpy(mask)
