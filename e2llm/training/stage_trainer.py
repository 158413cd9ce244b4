"""transformers' Trainer as :func:`e2llm.training.trainer.fit` needs it; imported when something is trained."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.utils import logging

__all__ = ["Report", "StageTrainer", "TrainingArguments", "logging", "set_seed"]


class StageTrainer(Trainer):
    """Trainer that keeps the given order and logs the terms of a loss and their sum."""

    terms: tuple[str, ...] = ()
    call: Callable = staticmethod(nn.Module.__call__)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The loss that the model's output holds; its terms are remembered for the log."""
        outputs = self.call(model, **inputs)
        self._last = {name: float(outputs[name].detach()) for name in self.terms if name in outputs}
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict, start_time: float | None = None) -> None:
        """Log the terms of the loss with it."""
        super().log({**logs, **getattr(self, "_last", {})} if "loss" in logs else logs, start_time)


class Report(TrainerCallback):
    """Calls a progress function after every step."""

    def __init__(self, on_step: Callable[..., None]) -> None:
        self.on_step = on_step

    def on_step_end(self, args, state, control, **_: object) -> None:
        """Report the step and the last loss that was logged."""
        recent = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        self.on_step(state.global_step, **({} if recent is None else {"loss": round(recent, 3)}))
