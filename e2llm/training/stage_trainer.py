"""transformers' Trainer as :func:`e2llm.training.trainer.fit` needs it; imported when something is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.training_args import ParallelMode
from transformers.utils import logging

__all__ = ["Report", "StageTrainer", "TrainingArguments", "checkpointed", "logging", "place", "set_seed"]


def place(arguments: TrainingArguments, device: torch.device) -> None:
    """Let a training of one process run on one device, that of the policy.

    transformers would take the first GPU whichever was asked for, and copies of the model on all the others.

    Parameters
    ----------
    arguments : TrainingArguments
        Changed, unless a launcher has given every process a device of its own.
    device : torch.device
        Of the policy.
    """
    if arguments.parallel_mode is ParallelMode.DISTRIBUTED:
        return
    arguments.distributed_state.device = device  # what accelerate reads
    arguments.__dict__["_setup_devices"] = device  # what ``arguments.device`` gives
    arguments._n_gpu = int(device.type == "cuda")
    if device.type == "cuda":
        torch.cuda.set_device(device)


@contextmanager
def checkpointed(model: nn.Module, is_on: bool) -> Iterator[None]:
    """Within the block the language model inside a model checkpoints its gradients.

    In the variant of PyTorch that needs no gradient at the inputs (``use_reentrant=False``): a frozen layer below an
    adapter is checkpointed as any other.

    Parameters
    ----------
    model : Module
        Any; one without a language model stays as it is.
    is_on : bool
        False changes nothing.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)
             and part.supports_gradient_checkpointing][:1] if is_on else []  # the outermost: it reaches the others
    for part in parts:
        _switch(part, "enable")({"use_reentrant": False})
    try:
        yield
    finally:
        for part in parts:
            _switch(part, "disable")()
            part.disable_input_require_grads()


def _switch(model: PreTrainedModel, word: str) -> Callable[..., None]:
    """The method of this version of transformers, which renamed it from gradient to activation checkpointing."""
    return getattr(model, f"activation_checkpointing_{word}", None) or getattr(model, f"gradient_checkpointing_{word}")


class StageTrainer(Trainer):
    """Trainer that keeps the given order and logs the terms of a loss and their sum."""

    terms: tuple[str, ...] = ()
    call: Callable = staticmethod(nn.Module.__call__)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Batches; of several processes each gets whole ones, of which its collate function makes a part."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        return DataLoader(self.train_dataset, self.args.train_batch_size * self.args.world_size,
                          sampler=self._get_train_sampler(), collate_fn=self.data_collator,
                          pin_memory=self.args.dataloader_pin_memory)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """All processes draw alike: the state of the first one serves any number of them."""
        if checkpoint is not None:
            names = ["rng_state.pth", f"rng_state_{self.args.process_index}.pth", "rng_state_0.pth"]
            wanted = Path(checkpoint, names[self.args.world_size > 1])
            there = next((path for name in names if (path := Path(checkpoint, name)).is_file()), None)
            if there is not None and not wanted.is_file():
                shutil.copyfile(there, wanted)
        super()._load_rng_state(checkpoint)

    def compute_loss(self, model, inputs, return_outputs: bool = False, num_items_in_batch=None):
        """The loss that the model's output holds; its terms are remembered for the log.

        Parameters
        ----------
        model : Module
            Is called by :attr:`call`.
        inputs : dict
            The batch.
        return_outputs : bool
            Give the output with the loss.
        num_items_in_batch : int, optional
            Not used: losses are means over their batch.
        """
        share = inputs.pop("loss_share", None)  # in several processes, where a loss is a mean over a part
        outputs = self.call(model, **inputs)
        self._last = {name: float(outputs[name].detach()) for name in self.terms if name in outputs}
        loss = outputs["loss"] if share is None else share * outputs["loss"]
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict, start_time: float | None = None) -> None:
        """Log the terms of the loss with it.

        Parameters
        ----------
        logs : dict
            What transformers logs.
        start_time : float, optional
            As in transformers.
        """
        super().log({**logs, **getattr(self, "_last", {})} if "loss" in logs else logs, start_time)


class Report(TrainerCallback):
    """Calls a progress function after every step."""

    def __init__(self, on_step: Callable[..., None]) -> None:
        self.on_step = on_step

    def on_step_end(self, args, state, control, **_: object) -> None:
        """Report the step and the last loss that was logged.

        Parameters
        ----------
        args, state, control
            As in transformers; ``state`` has the step and the log.
        **_ : object
            Not used.
        """
        recent = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        self.on_step(state.global_step, **({} if recent is None else {"loss": round(recent, 3)}))
