"""TODO purpose of core.chat."""

from __future__ import annotations

from dataclasses import dataclass, field

EEG_TOKEN = "<|eeg|>"
THINK, END_THINK = "<think>", "</think>"
EMPTY_THOUGHT = f"{THINK}\n\n{END_THINK}\n\n"  # of an answer without a thought
IGNORE = -100  # label of a token that carries no loss
LETTERS = "ABCD"


@dataclass(frozen=True)
class Item:
    """One instruction item."""

    kind: str
    tier: int
    messages: list[dict]
    thought: str
    answer: str
    options: list[str]
    subject: str = ""
    axis: str = ""
    windows: list[int] = field(default_factory=list)

    def response(self, thinking: bool) -> str:
        """Text that the assistant should say."""
        return f"{THINK}\n{self.thought}\n{END_THINK}\n\n{self.answer}" if thinking else self.answer
