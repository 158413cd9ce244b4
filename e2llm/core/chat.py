"""Words of a chat: special tokens, the letters of segments, and one instruction item."""

from __future__ import annotations

from dataclasses import dataclass, field

EEG_TOKEN = "<|eeg|>"
THINK, END_THINK = "<think>", "</think>"
EMPTY_THOUGHT = f"{THINK}\n\n{END_THINK}\n\n"  # before an answer without a thought
IGNORE = -100  # label of a token that carries no loss
LETTERS = "ABCD"


@dataclass(frozen=True)
class Item:
    """One instruction item.

    Parameters
    ----------
    kind : str
        Task kind ("predict", "describe", …).
    tier : int
        Tier of the reasoning evaluation.
    messages : list of dict
        Chat messages; content parts are typed "eeg" (a window id) or "text".
    thought, answer : str
        What the model should generate.
    options : list of str
        The closed set of answers.
    subject, axis : str
        Subject of the windows, and the axis of a comparison ("valence"); empty where neither applies.
    windows : list of int
        Rows of the windows in the prompt.
    texts : list of str
        Identities of the scenarios in the prompt, in their order (:class:`e2llm.tasks.scenarios.Scenario`).
    stratum : str, optional
        Of zero-shot scenarios: how far they are from what was trained on.
    """

    kind: str
    tier: int
    messages: list[dict]
    thought: str
    answer: str
    options: list[str]
    subject: str = ""
    axis: str = ""
    windows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    stratum: str | None = None

    def response(self, thinking: bool) -> str:
        """Text that the assistant should say."""
        return f"{THINK}\n{self.thought}\n{END_THINK}\n\n{self.answer}" if thinking else self.answer
