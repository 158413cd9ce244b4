"""What each stage of a run takes: operations, seconds, memory by part and files, counted from the parameters.

Matrix products are counted (:mod:`e2llm.models.arithmetic`) and done at a stated share of the device's rate. What is no
matrix product (filters, band edits, baselines) takes the seconds of :data:`CORE`, which were measured on one core.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..core.claims import LOW_HIGH, SCALES, Scale
from ..core.space import IN_MEMORY
from ..models.arithmetic import ADAM, BYTES, EncoderShape, ProjectorShape, TextShape, text_shape
from ..models.device import best_dtype
from ..models.encoders import encoder_config
from ..models.evidence_probe import BLOCK
from ..models.inference import MOST_LOGITS
from ..models.logits import OTHER_TOKENS
from ..tasks.items import CLAIM_KINDS, DIRECT_KINDS
from ..training.augmentation import ENOUGH_EDITS
from ..training.trainer import FitParams, item_order
from .parameters import Parameters
from .plan_devices import GB, Device
from .plan_sizes import (
    BRIEF_WORDS,
    CHANNELS,
    GRADED_ITEMS,
    IN_WORDS,
    ITEMS,
    LEVEL_TABLE,
    MARKS,
    MARKS_OF_OTHERS,
    ItemSize,
    Marks,
    PlanError,
    Size,
)
from .stages import KINDS, SHARES

SFREQ, EVIDENCE, EDITS = 256, 29, 4  # rate of windows, features of the evidence, band edits of a training window
OPTIONS, OPTION_TOKENS = 7, 3  # answers to choose from, and tokens of one
OTHER_KINDS = ("describe", "select", "compare", "rank", "match", "choose", "match", "choose")  # tiers 2 and 3
TAUGHT_WORDS = 40  # tokens of digits and answers, whose embeddings the second pass trains
GENERATED, SCORED, ENCODED = 128, 64, 16  # texts and windows at a time: of generate, score_options, encode_rows
CONTEXT = 1.0 * GB  # what a process of torch takes on a device, or in memory, without any model
SLACK = 1.1  # freed memory that cannot be used again because it is in pieces
SHARE_GPU, SHARE_CPU = 0.40, 0.85  # of a device's rate that matrix products reach; see docs/plan.md
SECOND_MODELS = 2  # that answers from the thought take beside those that answer from the EEG
LONGEST = 1.5  # the longest batch, in lengths of a mean one
PARALLEL = 0.9  # of the rate of several devices that is left when they exchange gradients
SERIAL = 0.18  # of the work of a processor that one thread does alone, however many there are (Amdahl's law)


@dataclass(frozen=True)
class Core:
    """What work costs a core that is no matrix product, in seconds if nothing else is said; see docs/plan.md."""

    touched: float = 0.0092  # bytes kept for the backward pass while one operation of a matrix product is done
    touched_text: float = 0.0066  # the same for a language model, whose frozen weights keep less than they touch
    recording: float = 1.7e-3  # preprocessing of one second of one recording
    disk: float = 0.3e9  # bytes a second that are written, and read again for their hash
    edit: float = 2.5e-3  # a band edit: drawn, filtered, measured
    batch_window: float = 5e-5  # a window of a batch of stage 1
    baseline: float = 0.08  # baselines, shortcuts and intervals, for a training or test window
    item: float = 1.0e-3  # an item drawn, worded, cut into tokens
    rule: float = 5e-3  # rules of the second pass, for a training window
    step: float = 0.02  # a batch put together, an optimizer step
    layer: float = 4e-3  # a layer begun in a batch of training, forward and backward
    loaded: float = 3.0  # libraries of language models, loaded once
    written: float = 8e-3  # writing one token of every text of a batch, beside the products
    written_layer: float = 0.8e-3  # the same, for each layer


CORE = Core()


@dataclass
class StagePlan:
    """What one stage needs.

    Parameters
    ----------
    name : str
        Of the stage.
    operations : float
        Of matrix products.
    seconds : float
        On the device and the cores.
    device, host : dict of str to float
        Bytes on one device and in the memory of the machine by part, at the worst moment.
    disk : dict of str to float
        Bytes that stay.
    """

    name: str
    operations: float = 0.0
    seconds: float = 0.0
    device: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)


def speedup(threads: int) -> float:
    """How many times faster several threads are than one."""
    return 1 / (SERIAL + (1 - SERIAL) / threads)


class Piece(NamedTuple):
    """Questions of the evaluation that are alike.

    Parameters
    ----------
    n : float
        How many.
    length : float
        Tokens of each.
    wrote : float
        Tokens that are written after it; 0 for none.
    options : int
        That are scored after it; 0 for none.
    option_tokens : float
        Of each.
    """

    n: float
    length: float
    wrote: float
    options: int
    option_tokens: float = OPTION_TOKENS


@dataclass(frozen=True)
class StagePlanner:
    """The stages of a run, one after the other."""

    values: Parameters
    device: Device
    share: float
    size: Size
    windows: dict[str, int]
    cores: int

    def stages(self) -> Iterator[StagePlan]:
        """In their order."""
        yield self._windows()
        yield self._encoder()
        yield self._language_model()
        yield self._language_stage("projector")
        yield self._language_stage("adapter")
        if self.from_thought:
            yield self._second_pass()
        yield self._evaluation()

    # -------------------------------------------------------- shapes

    @property
    def channels(self) -> int:
        """Of a window: those that the encoder was trained on, by default SEED-VII's."""
        return CHANNELS.get(self.values.source, 58)

    @property
    def times(self) -> int:
        """Time patches of a window."""
        return round(self.values.window_s * 4)

    @property
    def encoder(self) -> EncoderShape:
        """Of the parameters."""
        config = encoder_config(self.values.encoder_size)
        if not hasattr(config, "mlp_ratio"):
            raise PlanError(f"The shape of the encoder {self.values.encoder_size!r} is not known: plans are made for "
                            "EEGPT.")
        return EncoderShape(config.width, config.depth, config.heads, config.summary_tokens, config.mlp_ratio)

    @property
    def text(self) -> TextShape:
        """Of the parameters."""
        return text_shape(self.values.language_model)

    @property
    def projector(self) -> ProjectorShape:
        """Of the parameters."""
        evidence = EVIDENCE if self.values.evidence_slots else 0
        return ProjectorShape(self.encoder.token_width, self.text.hidden, evidence)

    @property
    def dtype(self) -> str:
        """Number format of the language model; "auto" is what the device computes in natively."""
        if self.values.dtype != "auto":
            return self.values.dtype
        return "bfloat16" if self.device.is_gpu else best_dtype()

    @property
    def bytes_each(self) -> float:
        """Of an activation of the language model."""
        return 4.0 if self.dtype == "float32" else 2.0

    @property
    def from_thought(self) -> bool:
        """Whether answers from the thought are trained and tested too."""
        return self.values.answer_from == "thought"

    @property
    def checkpointed(self) -> bool:
        """Whether activations are computed again in the backward pass."""
        return bool(getattr(self.values, "gradient_checkpointing", False))

    @property
    def scale(self) -> Scale:
        """Of the claims."""
        return SCALES[self.values.levels]

    @property
    def items(self) -> dict[str, ItemSize]:
        """Sizes of the items."""
        return ITEMS if self.scale is LOW_HIGH else GRADED_ITEMS

    @property
    def marks(self) -> Marks:
        """Of the language model's chat template."""
        name = self.values.language_model.lower()
        return next((marks for family, marks in MARKS.items() if family in name), MARKS_OF_OTHERS)

    def says(self, kind: str) -> bool:
        """Whether the segments of a kind of item stand with their evidence."""
        return self.scale.in_every_prompt or kind in CLAIM_KINDS

    def segment(self, kind: str) -> float:
        """Tokens that one segment takes in a prompt of a kind of item: features have a comma each, and a frame."""
        slots = self.values.evidence_slots
        frame = 2 if slots else 0
        return self.values.eeg_tokens + frame + (3 + self.scale.level_words) * slots * self.says(kind)

    def in_words(self, kind: str) -> float:
        """The same for a segment that stands in words."""
        return IN_WORDS[self.scale.name] if self.says(kind) else BRIEF_WORDS

    def asked(self, kind: str, segment: float, thinks: bool = True) -> float:
        """Tokens of the prompt of a kind of item whose segments take so many tokens each."""
        size = self.items[kind]
        return (self.marks.thinking if thinks else self.marks.plain) + size.question + size.segments * segment

    def said(self, kind: str, thinks: bool = True) -> float:
        """Tokens of what is answered to a kind of item."""
        size = self.items[kind]
        return size.answer + self.marks.end + (self.marks.thought + size.thought if thinks else 0.0)

    def _seconds(self, operations: float, dtype: str, kept: float = 0.0, devices: int = 1,
                 touched: float = CORE.touched_text, threads: int = 1) -> float:
        """Of matrix products on the device, and of what else touches the bytes that are kept on the way.

        A processor spends as long on norms, activations and softmax as on the products of small models. On a graphics
        card the share of the rate is meant to hold with them.
        """
        products = operations / (self.share * self.device.rate_of(dtype))
        if self.device.is_gpu:
            return products / (devices * PARALLEL if devices > 1 else 1)
        # A shorter number format makes products faster, and not what surrounds them.
        return (products + kept / touched / self.device.rate_of("float32")) / speedup(threads)

    def _calls(self, steps: float, layers: int) -> float:
        """Seconds of steps of training beside what they compute; a card computes while the processor goes on."""
        return 0.0 if self.device.is_gpu else steps * (CORE.step + layers * CORE.layer)

    # -------------------------------------------------------- one stage each

    def _windows(self) -> StagePlan:
        samples = round(self.values.window_s * SFREQ)
        stored = self.windows["all"] * (4 * self.channels * samples + 4 * self.channels * 5 + 100)
        jobs = min(self.values.n_jobs, self.cores)
        recording = self.size.seconds / (4 if self.size.clips == 80 else 1)  # a session
        # Written as the parts of recordings, joined, and read for their hash.
        seconds = CORE.recording * self.size.people * self.size.seconds / speedup(jobs) + 3 * stored / CORE.disk
        return StagePlan("windows", seconds=seconds,
                         host={"recordings": CONTEXT / 2 + jobs * recording * 62 * SFREQ * 8 * 4},
                         disk={"windows": stored})

    def _encoder(self) -> StagePlan:
        v, shape = self.values, self.encoder
        batch = v.encoder_batch + v.augmented_windows
        kept = max(1, round(self.channels * (1 - v.channel_dropout))), max(1, round(self.times * (1 - v.patch_dropout)))
        used = self.windows["train"] + self.windows["val"] + self.windows["test"]
        edits = EDITS * self.windows["train"]
        probed = min(edits, max(self.windows["train"], ENOUGH_EDITS))  # edits that are encoded
        training = v.encoder_steps * shape.training_step(batch, *kept)
        encoding = shape.forward(2 * used + probed, self.channels, self.times)
        n_devices = self.device.count
        kept_bytes = v.encoder_steps * shape.activations(batch, *kept)
        seconds = self._seconds(training, "float32", kept_bytes, n_devices, CORE.touched, self.cores)
        # By one process. Without a backward pass half as much is touched.
        touched = shape.activations(2 * used + probed, self.channels, self.times) / 2
        seconds += self._seconds(encoding, "float32", touched, 1, CORE.touched, self.cores)
        seconds += self._calls(v.encoder_steps, shape.depth)
        seconds += v.encoder_steps * batch * CORE.batch_window + edits * CORE.edit
        per_device = -(-batch // n_devices)
        device = {"weights": 4.0 * shape.parameters, "optimizer and gradients": (4 + ADAM) * shape.parameters,
                  "activations": max(shape.activations(per_device, *kept),
                                     shape.activations(ENCODED, self.channels, self.times) / shape.depth),
                  "context": CONTEXT}
        tokens, moments = float(self.times * shape.token_width), 2.0 * shape.token_width  # of a window
        held = 8 * (self.windows["train"] + probed) * moments  # until the evidence probe is fitted
        probe = {"moments of windows and edits": min(held, IN_MEMORY) + 5 * 8 * moments**2 + 5 * 4 * BLOCK * tokens}
        host = {"context": CONTEXT, **probe} if self.device.is_gpu else {**device, **probe}
        disk = {"tokens": (2 if v.token_dtype == "float16" else 4) * used * tokens, "weights": 4.0 * shape.parameters}
        if held > IN_MEMORY:
            disk["moments until the probe is fitted"] = held
        return StagePlan("encoder", training + encoding, seconds, _slack(device), host, disk)

    def _language_model(self) -> StagePlan:
        v, shape = self.values, self.text
        weights = self._weights()
        stage = StagePlan("language_model", disk={})
        if v.language_model == "scratch":
            length = 110.0
            logits = v.batch_size * 20.0
            each = 3 * shape.forward(v.batch_size, length, logits)
            stage.operations = v.language_steps * each
            kept = v.batch_size * shape.layers * shape.activations(length, 4.0, True) + 12.0 * logits * shape.vocabulary
            stage.seconds = self._seconds(stage.operations, "float32", v.language_steps * kept, threads=self.cores)
            stage.seconds += self._calls(v.language_steps, shape.layers) + CORE.loaded
            stage.disk = {"language model": 4.0 * shape.parameters}
            stage.host = {"context": CONTEXT}
        else:
            stage.seconds = weights / 1e9 + CORE.loaded  # of a disk that gives a gigabyte a second
            stage.host = {"context": CONTEXT, "weights": weights}
            stage.disk = {"language model (shared by all runs)": shape.parameters * 2.0}
        return stage

    def _weights(self) -> float:
        """Bytes of the language model's weights; embedding and output layer are never in four bits."""
        shape, dtype = self.text, self.dtype
        if dtype == "4bit":
            return BYTES["4bit"] * shape.layers * shape.linear + 2.0 * (shape.parameters - shape.layers * shape.linear)
        return BYTES[dtype] * shape.parameters

    def _mix(self, stage: str) -> dict[str, float]:
        """Shares of items by kind; with a thought where the name says so."""
        if stage == "projector":
            return {"describe": 0.5, "predict": 0.5}
        v = self.values
        counts: dict[str, float] = {}
        for kind in KINDS:
            n = v.items_per_kind * SHARES.get(kind, 1)
            direct = kind in ("predict", "describe")
            counts[f"{kind} with a thought"] = n * (0.5 if direct else 1.0)
            counts[kind] = n * (0.5 if direct else 0.0)
        counts["scenario"] = v.replay_items / 2
        counts["describe in words"] = v.replay_items / 2
        total = sum(counts.values())
        return {kind: n / total for kind, n in counts.items() if n}

    def _item(self, name: str) -> tuple[float, float, float]:
        """Tokens of an item, those with a label, and segments that are EEG; by a name of :meth:`_mix`."""
        kind, _, how = name.partition(" ")
        thinks = how == "with a thought" or (not how and kind not in DIRECT_KINDS)
        in_words = how == "in words"
        said = self.said(kind, thinks)
        tokens = self.asked(kind, self.in_words(kind) if in_words else self.segment(kind), thinks) + said
        return tokens, said, 0.0 if in_words else self.items[kind].segments

    def _batches(self, mix: Mapping[str, float]) -> tuple[float, float, float, float]:
        """Of batches: tokens of a row with its padding, in the mean and at most; labels and EEG segments of an item.

        They are laid out as in training, which puts items of similar length together.
        """
        sizes = np.array([self._item(name) for name in mix])
        shares = np.array([*mix.values()])
        rows, n_batches = self.values.batch_size, 64
        drawn = np.random.default_rng(0).choice(len(sizes), rows * n_batches, p=shares / shares.sum())
        lengths = sizes[drawn, 0]
        order = item_order(list(lengths), FitParams(n_batches, rows, 1.0))
        padded = lengths[order].reshape(n_batches, rows).max(axis=1)
        _, labels, segments = shares @ sizes / shares.sum()
        return float(padded.mean()), float(padded.max()), float(labels), float(segments)

    def _language_stage(self, name: str) -> StagePlan:
        v, text, projector = self.values, self.text, self.projector
        is_adapter = name == "adapter"
        steps = v.instruction_steps if is_adapter else v.alignment_steps
        n_items = (v.items_per_kind * sum(SHARES.get(kind, 1) for kind in KINDS) + v.replay_items if is_adapter
                   else v.alignment_items)
        length, longest, labels, segments = self._batches(self._mix(name))
        batch, calls = v.batch_size, steps * v.accumulate
        layers = text.forward(batch, length, 0.0)
        some = labels * min(1.0, 1.1 * OTHER_TOKENS / text.vocabulary)  # the softmax is over a part of the vocabulary
        each = text.forward(batch, length, batch * some) + text.backward_to_inputs(batch, length, batch * some)
        each += projector.training_step(batch * segments * v.eeg_tokens)
        each += text.adapter_step(batch, length, v.lora_rank) if is_adapter else 0.0
        each += layers if self.checkpointed else 0.0
        operations = calls * each
        devices = min(self.device.count, batch)
        touched = text.layers * text.activations(length, self.bytes_each, is_adapter, v.lora_dropout > 0)
        touched += 12.0 * some * text.vocabulary
        seconds = self._seconds(operations, self.dtype, calls * batch * touched, devices, threads=self.cores)
        seconds += self._calls(calls, text.layers)
        seconds += n_items * CORE.item + self._weights() / 1e9
        per_device = -(-batch // devices)
        longest = max(longest, LONGEST * length)  # the longest batch decides
        trained = projector.parameters + (text.lora(v.lora_rank) if is_adapter else 0)
        layer = per_device * text.activations(longest, self.bytes_each, is_adapter, v.lora_dropout > 0)
        kept = per_device * longest * text.hidden * self.bytes_each
        activations = text.layers * kept + layer if self.checkpointed else text.layers * layer
        logits = per_device * some * 1.5 * text.vocabulary * (self.bytes_each + 3 * 4.0)
        device = {"weights": self._weights() + 4.0 * projector.buffers,
                  "adapter and projector": 4.0 * trained + (4.0 * projector.parameters if is_adapter else 0.0),
                  "optimizer and gradients": (4 + ADAM) * trained, "activations": activations, "logits": logits,
                  "context": CONTEXT}
        host = {"context": CONTEXT, "weights while loading": self._weights()} if self.device.is_gpu else dict(device)
        return StagePlan(name, operations, seconds, _slack(device), host,
                         {"weights": 4.0 * trained, "items": 600.0 * n_items})

    def _second_pass(self) -> StagePlan:
        """The adapter that answers from tables of levels: trained by one process, the embeddings of its words too."""
        v, text = self.values, self.text
        steps, rows = v.second_pass_steps, v.second_pass_batch
        said = LEVEL_TABLE.answer + self.marks.end
        length, logits, n_items = self.marks.plain + LEVEL_TABLE.question + said, rows * said, steps * rows
        each = text.forward(rows, length, logits) + text.backward_to_inputs(rows, length, logits)
        each += text.adapter_step(rows, length, v.lora_rank) + text.token_step(logits)
        each += text.forward(rows, length, 0.0) if self.checkpointed else 0.0
        operations = steps * each
        layer = rows * text.activations(length, self.bytes_each, True)
        whole = 12.0 * logits * text.vocabulary  # logits and their softmax, over the whole vocabulary
        copied = text.token_copies(self.bytes_each)  # written and read, of the output layer and of the embedding
        seconds = self._seconds(operations, self.dtype, steps * (text.layers * layer + whole), threads=self.cores)
        seconds += self._calls(steps, text.layers) + steps * 4 * copied / self.device.bandwidth
        seconds += n_items * CORE.item + self.windows["train"] * CORE.rule + self._weights() / 1e9
        kept = rows * length * text.hidden * self.bytes_each
        trained = text.lora(v.lora_rank) + TAUGHT_WORDS * text.hidden
        device = {"weights": self._weights(), "adapter and projector": 4.0 * trained,
                  "optimizer and gradients": (4 + ADAM) * trained,
                  "activations": text.layers * kept + layer if self.checkpointed else text.layers * layer,
                  "logits": whole, "changed embeddings": copied, "context": CONTEXT}
        host = {"context": CONTEXT, "weights while loading": self._weights()} if self.device.is_gpu else dict(device)
        return StagePlan("second_pass", operations, seconds, _slack(device), host,
                         {"weights": 4.0 * trained, "items": 600.0 * n_items})

    def _questions(self) -> list[Piece]:
        """What the model is asked from the EEG, and under two controls."""
        v, test = self.values, self.windows["test"]
        plain = self.asked("predict", self.segment("predict"), thinks=False)
        thinking = self.asked("predict", self.segment("predict"))
        # Tier 1: scored from EEG and from shuffled EEG, and written once; without EEG few questions are left.
        pieces = [Piece(2 * test, plain, 0.0, OPTIONS), Piece(test, thinking, self.said("predict"), 0)]
        for kind in (*OTHER_KINDS, "predict"):
            # From EEG, from shuffled EEG, and without: there many questions are equal.
            pieces += self._answered(kind, v.test_items * 2.5, self.segment(kind))
        return pieces

    def _thought_questions(self) -> list[Piece]:
        """What is asked again for answers from the thought: tables of levels, and items whose segments are in words."""
        v, test = self.values, self.windows["test"]
        table = self.marks.plain + LEVEL_TABLE.question
        # Of the own thought and that of another window; of zero-shot prediction.
        pieces = [Piece(2 * test + v.test_items, table, 0.0, OPTIONS)]
        for kind in OTHER_KINDS:
            windows = min(test, v.test_items * self.items[kind].segments)
            pieces += [Piece(2 * windows, table, 0.0, OPTIONS),  # label and intensity
                       *self._answered(kind, v.test_items, self.in_words(kind))]
        return pieces

    def _answered(self, kind: str, n: float, segment: float) -> list[Piece]:
        """A thought is written about every item but descriptions, and the options are scored after it."""
        if kind == "describe":
            return [Piece(n, self.asked(kind, segment, thinks=False), 0.0, 4, self.said(kind, thinks=False))]
        return [Piece(n, self.asked(kind, segment), self.said(kind), 4)]

    def _work(self, piece: Piece, threads: int) -> tuple[float, float]:
        """Operations and seconds of a piece of the evaluation, by one process of so many threads."""
        text, n = self.text, piece.n
        scored = n * piece.options * piece.option_tokens
        reading = text.forward(n, piece.length, n) + 2 * scored * text.parameters
        per_token = text.layers * text.activations(1.0, self.bytes_each, False) / 2
        seconds = self._seconds(reading, self.dtype, (n * piece.length + scored) * per_token, threads=threads)
        if not piece.wrote:
            return reading, seconds
        writing = 2 * n * piece.wrote * text.parameters
        # A batch goes on until its longest text ends; each token reads all weights and the cache.
        steps = math.ceil(n / GENERATED) * min(self._longest_text(), 1.4 * piece.wrote)
        cache = min(n, GENERATED) * (piece.length + piece.wrote) * text.cache(self.bytes_each)
        products = max(self._seconds(writing, self.dtype, n * piece.wrote * per_token, threads=threads),
                       steps * (self._weights() + cache) / self.device.bandwidth)
        calls = steps * (CORE.written + text.layers * CORE.written_layer)
        # A card computes while the processor prepares its next work.
        return reading + writing, seconds + (max(products, calls) if self.device.is_gpu else products + calls)

    def _longest_text(self) -> float:
        """Tokens after which a text is cut off."""
        return max(96, 36 + 6 * self.values.evidence_slots)

    def _evaluation(self) -> StagePlan:
        v, text, test = self.values, self.text, self.windows["test"]
        processes = 1 if self.device.is_gpu else min(2, self.cores)
        asked = [self._work(piece, max(1, self.cores // processes)) for piece in self._questions()]
        again = [self._work(piece, self.cores) for piece in self._thought_questions()] if self.from_thought else []
        operations = sum(work for work, _ in (*asked, *again))
        # Several processes share the questions with EEG; this one then asks those from the thought.
        seconds = sum(took for _, took in asked) / processes + sum(took for _, took in again)
        seconds += (self.windows["train"] + test) * CORE.baseline / processes
        longest = max(self.asked(kind, self.segment(kind)) for kind in self.items) + self._longest_text()
        # Options of texts that have ended are scored while the others wait: a row for each option.
        together = max(1, min(SCORED, MOST_LOGITS // (OPTIONS * OPTION_TOKENS * text.vocabulary)))
        cache = (GENERATED + OPTIONS * together) * longest * text.cache(self.bytes_each)
        prefill = GENERATED * longest * (6 * text.hidden + 2 * text.intermediate) * self.bytes_each
        weights = self._weights()
        device = {"weights": weights + 4.0 * (self.projector.parameters + self.projector.buffers),
                  "adapter and projector": 4.0 * text.lora(v.lora_rank), "cache of keys and values": cache,
                  "activations": prefill, "logits": 3 * 4.0 * min(MOST_LOGITS, SCORED * 4 * text.vocabulary),
                  "context": CONTEXT}
        # A card holds the two models of the second pass when the first one is gone.
        # On a processor they stand beside those of the processes, which wait for further work.
        second = {"weights of the second pass": SECOND_MODELS * weights} if self.from_thought else {}
        host = ({"context": CONTEXT, "weights while loading": weights} if self.device.is_gpu
                else {**{part: processes * value for part, value in device.items()}, **second})
        if second:
            device["weights of the second pass"] = (SECOND_MODELS - 1) * weights
        return StagePlan("evaluation", operations, seconds, _slack(device), host, {"tables": 2000.0 * test})


def _slack(device: Mapping[str, float]) -> dict[str, float]:
    """The parts, and what lies between them."""
    return {**device, "in pieces": (SLACK - 1) * sum(device.values())}
