"""Training of every stage on ``transformers.Trainer``: resume, several devices and bf16 come with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.data import Dataset

from ..core.chat import IGNORE, Item
from ..core.space import reserved_map
from ..data.normalization import Equalizer
from ..models.device import current_device, device_policy
from ..models.logits import OTHER_TOKENS
from ..tasks.items import DIRECT_KINDS
from . import processes

if TYPE_CHECKING:
    from ..models.processing import E2LLMProcessor


@dataclass(frozen=True)
class FitParams:
    """Schedule of one training.

    Parameters
    ----------
    steps, batch_size : int
        Optimizer steps, and samples in a batch.
    lr : float
        Peak learning rate; linear warm-up over ``warmup`` (share of the steps), then cosine to 0.
    weight_decay : float
        Of AdamW.
    seed : int
        Of sample order, dropout and new weights.
    save_steps : int
        A cut-off training resumes from the last multiple of it.
    bf16 : bool
        Train in bfloat16 where the device can.
    accumulate : int
        Batches that make one optimizer step, the mean of their losses: a larger step than memory holds.
    """

    steps: int
    batch_size: int
    lr: float
    warmup: float = 0.1
    weight_decay: float = 0.05
    seed: int = 0
    save_steps: int = 200
    bf16: bool = False
    accumulate: int = 1

    @property
    def n_batches(self) -> int:
        """Batches of the whole training."""
        return self.steps * self.accumulate


class Samples(Dataset):
    """Samples in the order in which training will see them, so that a resumed run sees the same ones.

    Samples that are dicts get their ``place`` in it: their random part may depend on nothing else.

    Parameters
    ----------
    order : ndarray of int
        Arguments of ``get``.
    get : callable
        ``get(i)`` gives a sample.
    """

    def __init__(self, order: np.ndarray, get: Callable[[int], object]) -> None:
        self.order, self.get = order, get

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, i: int) -> object:
        sample = self.get(int(self.order[i]))
        return {**sample, "place": i} if isinstance(sample, dict) else sample


def fit(model: nn.Module, samples: Samples, collate: Callable, params: FitParams, folder: Path,
        groups: list[dict] | None = None, terms: tuple[str, ...] = (),
        on_step: Callable[..., None] | None = None, call: Callable = nn.Module.__call__) -> pd.DataFrame:
    """Train a model whose forward returns a loss; resume from the last checkpoint in ``folder`` if there is one.

    It is trained, and stays, on the device of the policy (:func:`e2llm.models.device.use_device`). Where a launcher
    has started several processes, each trains its part of every batch, and only the first one comes back.

    Parameters
    ----------
    model : Module
        Parameters with ``requires_grad`` are trained.
    samples : Samples
        At least ``n_batches * batch_size`` of them.
    collate : callable
        List of samples to the keyword arguments of ``model.forward``.
    params : FitParams
        Schedule.
    folder : Path
        Checkpoints; the caller removes it when the stage is finished.
    groups : list of dict, optional
        Optimizer groups with own learning rates; default all trainable parameters at ``params.lr``.
    terms : tuple of str
        Loss terms in the model's output to log.
    on_step : callable, optional
        ``on_step(step, **facts)`` after each step.
    call : callable
        ``call(model, **batch)`` gives the output with the loss; default the model's own.

    Returns
    -------
    DataFrame
        Columns step, loss and the terms.

    Raises
    ------
    PartDone
        At the end, in all processes but the first (:mod:`e2llm.training.processes`).
    """
    from .stage_trainer import (  # here: it loads for seconds, and most who import this module train nothing
        Report,
        StageTrainer,
        TrainingArguments,
        checkpointed,
        logging,
        place,
        set_seed,
    )

    set_seed(params.seed)
    device = current_device()
    if device_policy().sharded:
        from .sharding import shard_frozen  # here, as above

        shard_frozen(model, device)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(groups or [{"params": trainable}], lr=params.lr, weight_decay=params.weight_decay)
    logging.disable_progress_bar()  # of checkpoint writing: it would stand in a notebook's outputs
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=params.steps, seed=params.seed,
        per_device_train_batch_size=params.batch_size // processes.n_processes(),
        gradient_accumulation_steps=params.accumulate,
        # Asked for only where another device would be taken, bf16 would be refused on a CPU, or processes share it.
        use_cpu=device.type == "cpu" and (params.bf16 or torch.accelerator.is_available()
                                          or processes.n_processes() > 1),
        lr_scheduler_type="cosine", warmup_steps=int(params.warmup * params.steps), max_grad_norm=1.0,
        bf16=params.bf16 and device.type != "mps",
        logging_steps=max(1, params.steps // 20), save_strategy="steps" if params.save_steps < params.steps else "no",
        save_steps=params.save_steps, save_total_limit=1,
        report_to=[], disable_tqdm=True, remove_unused_columns=False, dataloader_pin_memory=device.type == "cuda",
        accelerator_config={"non_blocking": device.type == "cuda"},
        logging_nan_inf_filter=False,
        log_level="error")
    place(arguments, device)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(params.steps, int(params.warmup * params.steps)))
    trainer = StageTrainer(model=model, args=arguments, train_dataset=samples, data_collator=collate,
                            optimizers=(optimizer, schedule))
    trainer.terms, trainer.call = terms, call
    # Losses are means over their own batch, so an accumulated step has to be their mean.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(next(c for c in trainer.callback_handler.callbacks
                                 if type(c).__name__ == "PrinterCallback"))
    if on_step is not None:
        trainer.add_callback(Report(on_step))
    model.train()
    with checkpointed(model, device_policy().gradient_checkpointing):
        trainer.train(resume_from_checkpoint=_last_whole_checkpoint(folder))
    model.eval()
    processes.leave()
    history = pd.DataFrame([entry for entry in trainer.state.log_history if "loss" in entry])
    return history[["step", "loss", *[name for name in terms if name in history]]]


def _last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the trainer's state comes last."""
    whole = [state.parent for state in Path(folder).glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


def _cosine(steps: int, warmup: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 * (1.0 + float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup))))

    return factor


def mixed_order(labels: np.ndarray, subjects: np.ndarray, rows: np.ndarray, params: FitParams) -> np.ndarray:
    """Rows for every batch: classes in equal shares, and within a class as many different subjects as possible.

    With mixed subjects, "same emotion, other subject" is the positive pair of the contrastive loss.

    Parameters
    ----------
    labels, subjects : ndarray, shape (n_windows,)
        Class index and subject of every window.
    rows : ndarray of int
        Windows to draw from.
    params : FitParams
        Number and size of the batches, and seed.

    Returns
    -------
    ndarray of int, shape (n_batches * batch_size,)
    """
    rng = np.random.default_rng(params.seed)
    pools = {label: {who: rows[(labels[rows] == label) & (subjects[rows] == who)] for who in np.unique(subjects[rows])}
             for label in np.unique(labels[rows])}
    people = {label: [who for who in pool if len(pool[who])] for label, pool in pools.items()}
    order = []
    for _ in range(params.n_batches):
        batch = []
        classes = list(rng.permutation(list(pools)))
        turns = {label: rng.permutation(len(people[label])) for label in classes}
        for i in range(params.batch_size):
            label, turn = classes[i % len(classes)], i // len(classes)
            who = people[label][turns[label][turn % len(turns[label])]]
            batch.append(rng.choice(pools[label][who]))
        order += list(rng.permutation(batch))
    return np.array(order)


def signal_collate(data: np.ndarray, equalize: Equalizer, subjects: np.ndarray, labels: np.ndarray,
                   spectral: np.ndarray, kept_bytes: int = 2**29) -> Callable:
    """Batches of stage 1: equalized signal in millivolts, labels and spectral targets of some rows.

    Parameters
    ----------
    data : ndarray, shape (n_windows, n_channels, n_samples)
        Microvolts.
    equalize : Equalizer
        Of the dataset.
    subjects, labels, spectral : ndarray
        Normalization group, class index and spectral targets of every window.
    kept_bytes : int
        Memory for equalized windows, the first that are asked for: a window comes in many batches.

    Returns
    -------
    callable
        ``collate(rows, own)``: signals of the windows ``own`` only, by default of all.
    """
    kept: dict[int, torch.Tensor] = {}
    room = kept_bytes // (4 * data.shape[1] * data.shape[2])

    def equalized(rows: list[int]) -> torch.Tensor:
        new = sorted(set(rows) - kept.keys())
        made = dict(zip(new, equalize(data[new], subjects[new]) if new else (), strict=True))
        kept.update((row, made[row].clone()) for row in new[: room - len(kept)])
        return torch.stack([made[row] if row in made else kept[row] for row in rows])

    def collate(rows: list[int], own: list[int] | None = None) -> dict[str, torch.Tensor]:
        return {"signal_mv": equalized(rows if own is None else own), "labels": torch.from_numpy(labels[rows]),
                "spectral": torch.from_numpy(spectral[rows]).float()}

    return collate


@torch.no_grad()
def encode_rows(model: nn.Module, data: np.ndarray, equalize: Equalizer, subjects: np.ndarray, rows: np.ndarray,
                path: Path, batch: int = 16, dtype: str = "float32") -> np.ndarray:
    """Tokens of the given windows by a frozen encoder, computed once and memory-mapped.

    Parameters
    ----------
    model : Module
        The encoder.
    data, equalize, subjects
        As for :func:`signal_collate`.
    rows : ndarray of int, shape (n_rows,)
        Windows.
    path : Path
        ``.npy`` file to write.
    batch : int
        Windows at a time; few, so that what the layers hand on stays in the processor's cache.
    dtype : str
        Of the file: "float32", or "float16" for half of the room.

    Returns
    -------
    ndarray, shape (len(rows), n_times, token_width)
        Memory-mapped from ``path``.

    Raises
    ------
    ValueError
        If a token is too large for float16.
    """
    model.eval()
    device, out = next(model.parameters(), torch.empty(0)).device, None
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        tokens = model(equalize(data[some], subjects[some]).to(device)).flatten(2).cpu().numpy()
        if out is None:
            out = reserved_map(path, (len(rows), *tokens.shape[1:]), np.dtype(dtype).type)
        if (largest := np.abs(tokens).max(initial=0.0)) > np.finfo(out.dtype).max:
            raise ValueError(f"{path}: a token has the value {largest:.3g}, which {dtype} cannot hold: keep tokens in "
                             'float32 (token_dtype = "float32").')
        out[start : start + len(some)] = tokens
    out.flush()
    return np.load(path, mmap_mode="r")


def item_order(lengths: list[int], params: FitParams, bucket: int = 8) -> np.ndarray:
    """A shuffled order of items in which the items of a batch are of similar length (less padding).

    Parameters
    ----------
    lengths : list of int
        Tokens of every item.
    params : FitParams
        Number and size of the batches, and seed.
    bucket : int
        Batches that are sorted by length together.
    """
    rng = np.random.default_rng(params.seed)
    lengths, need = np.asarray(lengths), params.n_batches * params.batch_size
    drawn = np.concatenate([rng.permutation(len(lengths)) for _ in range(-(-need // len(lengths)))])[:need]
    order = []
    size = params.batch_size * bucket  # whole batches, so that those made here are those that training takes
    for start in range(0, need, size):
        block = drawn[start : start + size]
        block = block[np.argsort(lengths[block], kind="stable")]
        batches = [block[i : i + params.batch_size] for i in range(0, len(block), params.batch_size)]
        order += [batches[i] for i in rng.permutation(len(batches))]
    return np.concatenate(order)


def fit_examples(model: nn.Module, examples: list[dict], collate: Callable, params: FitParams, folder: Path,
                 **more: Any) -> pd.DataFrame:
    """Train on examples of text, in batches of similar length.

    Parameters
    ----------
    model, collate, params, folder
        As for :func:`fit`.
    examples : list of dict
        From :func:`examples_of`.
    **more
        Further arguments of :func:`fit`.

    Returns
    -------
    DataFrame
        As of :func:`fit`.
    """
    order = item_order([len(example["input_ids"]) for example in examples], params)
    return fit(model, Samples(order, examples.__getitem__), collate, params, folder, **more)


def label_tokens(examples: list[dict], processor: E2LLMProcessor, seed: int,
                 others: int = OTHER_TOKENS) -> torch.Tensor:
    """Tokens of a softmax that is as good as one over the whole vocabulary, and faster.

    An adapter and a projector cannot move single words. So a sample of the words that no label holds stands for all.

    Parameters
    ----------
    examples : list of dict
        From :func:`examples_of`.
    processor : E2LLMProcessor
        Has the vocabulary.
    seed : int
        Of the sample.
    others : int
        Tokens beside those of the labels.

    Returns
    -------
    Tensor of int, shape (n_tokens,)
        Rising.
    """
    size = len(processor.tokenizer)
    drawn = np.random.default_rng(seed).permutation(size)[:others]
    used = np.unique(np.concatenate([drawn, *(example["labels"] for example in examples)]))
    return torch.from_numpy(used[used != IGNORE].astype(np.int64))


def item_collate(processor: E2LLMProcessor, features: np.ndarray | None, position: dict[int, int],
                 noise: float = 0.0, tokens: torch.Tensor | None = None) -> Callable:
    """Batches of stages 2 and 3: ids, labels, mask and the EEG tokens of the windows in the text, in its order.

    Of several processes each makes its part of a batch, and ``loss_share``, the weight of its loss.

    Parameters
    ----------
    processor : E2LLMProcessor
        Pads.
    features : ndarray, shape (n_rows, n_times, token_width)
        Encoder tokens; None for text alone.
    position : dict of int to int
        Row of ``features`` of each window id.
    noise : float
        Standard deviation of noise on the input of the state tokens. A frozen encoder separates its training windows
        better than others: without noise the language model would learn to rely on what test windows do not have.
    tokens : Tensor of int, shape (n_tokens,), optional
        From :func:`label_tokens`; default the whole vocabulary.
    """

    def collate(examples: list[dict]) -> dict[str, torch.Tensor | float]:
        share = {} if processes.n_processes() == 1 else {"loss_share": processes.label_share(examples)}
        examples = processes.own_part(examples)
        ids, mask = processor.pad([example["input_ids"] for example in examples], "right")
        labels, _ = processor.pad([example["labels"] for example in examples], "right", IGNORE)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, **share}
        if tokens is not None:
            batch["label_tokens"] = tokens
        windows = [position[window] for example in examples for window in example["windows"]]
        if windows:
            eeg = batch["eeg_features"] = torch.from_numpy(np.stack([features[row] for row in windows]))
            if any(brief := [one for example in examples for one in example.get("brief", ())]):
                batch["eeg_brief"] = torch.tensor(brief)
            if noise:  # by the place in the order alone: a resumed run has another random state
                drawn = [_normal(example["place"], len(example["windows"]), eeg.shape[1:]) for example in examples]
                batch["eeg_noise"] = noise * torch.cat(drawn)
        return batch

    return collate


def _normal(seed: int, n: int, shape: torch.Size) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def examples_of(items: list[Item], processor: E2LLMProcessor, thinking_share: float, seed: int) -> list[dict]:
    """Training examples of items.

    Parameters
    ----------
    items : list of Item
        Questions with their answers.
    processor : E2LLMProcessor
        Makes ids.
    thinking_share : float
        Share with a thought, among items of :data:`e2llm.tasks.items.DIRECT_KINDS`; the others always have one.
    seed : int
        Of the choice.
    """
    rng = np.random.default_rng(seed)
    share = np.array([(thinking_share if item.kind in DIRECT_KINDS else 1.0) if item.thought else 0.0
                      for item in items])
    thinking = rng.uniform(size=len(items)) < share
    return processor.training_examples([(item.messages, item.response(bool(think)), bool(think))
                                        for item, think in zip(items, thinking, strict=True)])


def train_only(model: nn.Module, *prefixes: str) -> None:
    """Freeze all parameters but those whose name starts with a prefix.

    Parameters
    ----------
    model : Module
        Its parameters' ``requires_grad`` is set.
    *prefixes : str
        Such as ``projector.``; without one, everything is frozen.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
