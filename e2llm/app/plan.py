"""A plan of a run: disk, memory, operations and hours of every stage, from the parameters alone.

Nothing is read but parameters and, for a local language model, its ``config.json``. Matrix products are counted
(:mod:`e2llm.models.arithmetic`) and done at a stated share of the device's rate. What is no matrix product (filters,
band edits, baselines) takes the seconds of :data:`CORE`, which were measured on one core.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..core.arguments import check_number
from ..core.claims import LOW_HIGH, SCALES, Scale
from ..core.montage import EEGPT_VOCABULARY, SEED_CHANNELS
from ..core.space import IN_MEMORY
from ..data.protocols import PROTOCOLS
from ..data.sources.seed_vii import clip_emotion
from ..models.arithmetic import ADAM, BYTES, EncoderShape, ProjectorShape, TextShape, text_shape
from ..models.encoders import encoder_config
from ..models.evidence_probe import BLOCK
from ..models.inference import MOST_LOGITS
from ..models.logits import OTHER_TOKENS
from ..tasks.items import CLAIM_KINDS, DIRECT_KINDS
from .parameters import FIELDS, Parameters, checked
from .plan_devices import GB, Device, device_of
from .stages import KINDS, SHARES

SFREQ, EVIDENCE, EDITS = 256, 29, 4  # rate of windows, features of the evidence, band edits of a training window
TASKS, OPTIONS, OPTION_TOKENS = 9, 7, 3  # kinds of tiers 2 and 3; answers to choose from, and tokens of one
GENERATED, SCORED, ENCODED = 128, 64, 16  # texts and windows at a time: of generate, score_options, encode_rows
CONTEXT = 1.0 * GB  # what a process of torch takes on a device, or in memory, without any model
SLACK = 1.1  # freed memory that cannot be used again because it is in pieces
SHARE_GPU, SHARE_CPU = 0.40, 0.85  # of a device's rate that matrix products reach; see docs/plan.md
SEGMENT_WORDS = 25.0  # tokens of a segment that stands in words
PARALLEL = 0.9  # of the rate of several devices that is left when they exchange gradients


@dataclass(frozen=True)
class Core:
    """Seconds of one core for work that is no matrix product, measured on the default run (docs/plan.md)."""

    touched: float = 0.0092  # bytes kept for the backward pass while one operation of a matrix product is done
    touched_text: float = 0.0066  # the same for a language model, whose frozen weights keep less than they touch
    recording: float = 1.55e-3  # preprocessing of one second of one recording
    edit: float = 2.5e-3  # a band edit: drawn, filtered, measured
    batch_window: float = 5e-5  # a window of a batch of stage 1
    baseline: float = 0.08  # baselines, shortcuts and intervals, for a training or test window
    item: float = 1.0e-3  # an item drawn, worded, cut into tokens
    written: float = 8e-3  # writing one token of every text of a batch, beside the products
    written_layer: float = 0.8e-3  # the same, for each layer


CORE = Core()


@dataclass(frozen=True)
class ItemSize:
    """Mean size of an item in tokens, the EEG left out."""

    segments: float
    prompt: float
    thought: float
    answer: float


# Means over the items of the default run; the prompt with the marks of a turn. A word takes 1.2 tokens.
ITEMS: dict[str, ItemSize] = {
    "predict": ItemSize(1, 28, 32, 3), "describe": ItemSize(1, 28, 23, 36), "select": ItemSize(1, 38, 19, 2),
    "compare": ItemSize(2, 32, 16, 2), "rank": ItemSize(3.2, 38, 26, 7), "match": ItemSize(3, 56, 19, 2),
    "choose": ItemSize(1, 94, 19, 2), "scenario": ItemSize(0, 50, 6, 3),
}  # fmt: skip
GRADED_ITEMS = {**ITEMS, "predict": ItemSize(1, 28, 89, 3), "describe": ItemSize(1, 28, 71, 44)}


class PlanError(ValueError):
    """A plan cannot be made; the message says what is missing."""


# ---------------------------------------------------------------- recordings


class Size(NamedTuple):
    """How much is recorded.

    Parameters
    ----------
    people, clips : int
        People, and clips of each.
    seconds : float
        Of all clips of one person.
    windows : int
        Of one person.
    raw_bytes : float
        Of all files; 0 where it is not known.
    """

    people: int
    clips: int
    seconds: float
    windows: int
    raw_bytes: float = 0.0


SEED_SECONDS, SEED_WINDOWS = 14_097.86, 3524  # of a person of SEED-VII: all clips, and whole windows of 4 s
# People, clips, seconds of a clip, as the data sets describe themselves.
OTHERS = {"emoeeg-mc": (60, 42, 60.0), "faced": (123, 28, 66.0)}


def size_of(values: Parameters, people: int | None = None, clips: int | None = None,
            seconds: float | None = None) -> Size:
    """Size of the recordings that parameters ask for, unless they are given.

    Parameters
    ----------
    values : Parameters
        ``source``, ``twin_preset`` and so on.
    people, clips : int, optional
        People, and clips of each.
    seconds : float, optional
        Mean length of a clip.

    Raises
    ------
    PlanError
        If the source says nothing of its size.
    """
    window = values.window_s
    if values.source in ("seed-vii", "seed-vii-raw") and not (values.twin_preset and seconds is None):
        n = people or values.subjects or 20
        if clips is None and seconds is None:
            windows = SEED_WINDOWS if window == 4 else int(SEED_SECONDS / window - 80 * 0.5)
            return Size(n, 80, SEED_SECONDS, windows, n * SEED_SECONDS * 62 * 200 * 8)
    elif values.source in ("seed-vii", "seed-vii-raw"):
        from ..data.simulation import TwinParams, clip_seconds

        n = people or values.subjects or values.twin_subjects
        each = clip_seconds(TwinParams(subjects=n, preset=values.twin_preset, seed=values.twin_seed), 1)
        return Size(n, 80, float(each.sum()), int((each // window).sum()), n * float(each.sum()) * 62 * 200 * 4)
    known = OTHERS.get(values.source)
    if known is None and values.source not in ("seed-vii", "seed-vii-raw") and None in (people, clips, seconds):
        raise PlanError(f"A folder of the kind {values.source!r} does not say its size before it is read: give "
                        "--people, --clips and --seconds.")
    known = known or (20, 80, SEED_SECONDS / 80)
    n, n_clips, length = (given or default for given, default in
                          zip((people or values.subjects, clips, seconds), known, strict=True))
    return Size(int(n), int(n_clips), n_clips * length, int(n_clips * (length // window)))


def split_shares(values: Parameters, size: Size) -> dict[str, float]:
    """Shares of all windows that train, validate and test, by the protocol itself on clips of equal length.

    Parameters
    ----------
    values : Parameters
        With protocol, fold and groups.
    size : Size
        People, clips and seconds.

    Raises
    ------
    ValueError
        If the protocol cannot be served.
    """
    seed = size.clips == 80
    emotions = [clip_emotion(clip) for clip in range(1, 81)] if seed else [f"label {i % 7}" for i in range(size.clips)]
    people = min(size.people, 200)  # groups of people are of equal size: more of them change nothing
    index = pd.DataFrame({"subject": np.repeat([str(i + 1) for i in range(people)], size.clips),
                          "clip": np.tile(np.arange(1, size.clips + 1), people), "label": emotions * people})
    index["session"] = (index["clip"] - 1) // 20 + 1
    index["context"] = np.where(index["clip"] % 14 < 7, "a", "b")
    masks = PROTOCOLS[values.protocol].masks(index, fold=values.fold, n_groups=values.n_groups)
    return {name: float(masks[name].mean()) for name in ("train", "val", "test")}


# ---------------------------------------------------------------- stages


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


@dataclass(frozen=True)
class Plan:
    """A plan of a run: its stages, and whether it fits."""

    title: str
    device: Device
    share: float
    size: Size
    windows: dict[str, int]  # all, train, val, test
    stages: tuple[StagePlan, ...]
    host_memory: float
    disk_free: float

    @property
    def faults(self) -> list[str]:
        """What does not fit, in sentences; empty if all fits."""
        found = []
        for stage in self.stages:
            need = sum(stage.device.values())
            if self.device.is_gpu and need > self.device.memory:
                found.append(f"The stage {stage.name} needs {_gb(need)} on each {self.device.name}, which has "
                             f"{_gb(self.device.memory)}.")
            need = sum(stage.host.values())
            if need > self.host_memory:
                found.append(f"The stage {stage.name} needs {_gb(need)} of memory, and {_gb(self.host_memory)} are "
                             "there.")
        if self.disk > self.disk_free:
            found.append(f"The run needs {_gb(self.disk)} on the disk, and {_gb(self.disk_free)} are free.")
        return found

    @property
    def disk(self) -> float:
        """Bytes of all files of the run."""
        return sum(sum(stage.disk.values()) for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return sum(stage.seconds for stage in self.stages)

    def table(self) -> pd.DataFrame:
        """One row a stage, and their sum."""
        rows = [{"stage": stage.name, "operations": f"{stage.operations:.1e}", "time": time_in_words(stage.seconds),
                 "on a device": _gb(sum(stage.device.values())) if self.device.is_gpu else "–",
                 "in memory": _gb(sum(stage.host.values())), "on the disk": _gb(sum(stage.disk.values()))}
                for stage in self.stages]
        total = {"stage": "together", "operations": f"{sum(stage.operations for stage in self.stages):.1e}",
                 "time": time_in_words(self.seconds),
                 "on a device": _gb(max(sum(stage.device.values()) for stage in self.stages))
                 if self.device.is_gpu else "–",
                 "in memory": _gb(max(sum(stage.host.values()) for stage in self.stages)),
                 "on the disk": _gb(self.disk)}
        return pd.DataFrame([*rows, total])

    def parts(self) -> pd.DataFrame:
        """Memory by part, one column a stage that uses a model."""
        where = "device" if self.device.is_gpu else "host"
        columns = {stage.name: {part: _gb(value) for part, value in getattr(stage, where).items()}
                   for stage in self.stages if stage.device}
        return pd.DataFrame(columns).fillna("")


def in_words(found: Plan) -> str:
    """A plan for the reader: what is planned, a table of stages, and what takes memory."""
    where = "device" if found.device.is_gpu else "machine"
    windows = ", ".join(f"{name} {n:,}" for name, n in found.windows.items() if name != "all")
    rate = found.device.rate["bfloat16"] / 1e12
    lines = [f"{found.title + ' ' if found.title else ''}on {found.device} at {found.share:.0%} of its rate "
             f"({_two(rate)} Tflop/s): {found.size.people:,} people, {found.windows['all']:,} windows ({windows}).", "",
             found.table().to_string(index=False), "", f"Memory on each {where}:", found.parts().to_string()]
    return "\n".join(lines)


def time_in_words(seconds: float) -> str:
    """A time with two figures and the unit that suits it."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length or (unit == "h" and seconds >= length):
            return f"{_two(seconds / length)} {unit}"
    return f"{_two(seconds)} s"


def _two(value: float) -> str:
    """Two figures, never with an exponent."""
    if value >= 100:
        return f"{round(value, 1 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _gb(value: float) -> str:
    return f"{_two(value / GB)} GB" if value >= 0.05 * GB else f"{_two(value / 1e6)} MB"


def plan(profile: Mapping[str, Any], gpus: str = "", people: int | None = None, clips: int | None = None,
         seconds: float | None = None, share: float | None = None, title: str = "", device: Device | None = None,
         host_memory: float | None = None, disk_free: float = math.inf, cores: int | None = None) -> Plan:
    """Plan a run.

    Parameters
    ----------
    profile : mapping
        Parameters; the others have their defaults.
    gpus : str
        Graphics cards, ``8xA100-80``; empty for the processor of this machine.
    people, clips, seconds
        See :func:`size_of`.
    share : float, optional
        Of the device's rate that training reaches; default :data:`SHARE_GPU` or :data:`SHARE_CPU`.
    title : str
        For the reader.
    device : Device, optional
        In place of ``gpus``.
    host_memory, disk_free : float, optional
        Bytes; default the memory of this machine, and any disk.
    cores : int, optional
        Of the machine; default those of this one.

    Raises
    ------
    ValueError
        If a parameter is refused, or the shape of a model or the size of the recordings is not known.
    """
    values = checked(profile)
    for name, value, low, high in (("people", people, 1, 10**6), ("clips", clips, 1, 10**6),
                                   ("seconds", seconds, values.window_s, 10**6), ("share", share, 1e-3, 1),
                                   ("memory", host_memory, 1e6, 1e18)):
        if value is not None:
            check_number(name, value, low, high, whole=name in ("people", "clips"))
    device = device or device_of(gpus)
    if host_memory is None:
        import psutil

        host_memory = psutil.virtual_memory().total
    share = share or (SHARE_GPU if device.is_gpu else SHARE_CPU)
    size = size_of(values, people, clips, seconds)
    shares = split_shares(values, size)
    everything = size.people * size.windows
    windows = {"all": everything, **{name: round(part * everything) for name, part in shares.items()}}
    made = _Planner(values, device, share, size, windows, cores or os.cpu_count() or 1)
    return Plan(title, device, share, size, windows, tuple(made.stages()), host_memory, disk_free)


@dataclass(frozen=True)
class _Planner:
    """The stages of a run, one after the other."""

    values: Parameters
    device: Device
    share: float
    size: Size
    windows: dict[str, int]
    cores: int

    def stages(self) -> Iterator[StagePlan]:
        yield self._windows()
        yield self._encoder()
        yield self._language_model()
        yield self._language_stage("projector")
        yield self._language_stage("adapter")
        yield self._evaluation()

    # -------------------------------------------------------- shapes

    @property
    def channels(self) -> int:
        """Of a window: SEED-VII's channels that the encoder was trained on."""
        return 58 if self.values.source.startswith("seed") else min(58, len(EEGPT_VOCABULARY), len(SEED_CHANNELS))

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
    def bytes_each(self) -> float:
        """Of an activation of the language model."""
        return 4.0 if self.values.dtype == "float32" else 2.0

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

    def segment(self, kind: str) -> float:
        """Tokens that one segment takes in a prompt of a kind of item."""
        says = self.scale.in_every_prompt or kind in CLAIM_KINDS
        return self.values.eeg_tokens + (2 + self.scale.level_words) * self.values.evidence_slots * says

    def _seconds(self, operations: float, dtype: str, kept: float = 0.0, devices: int = 1,
                 touched: float = CORE.touched_text) -> float:
        """Of matrix products on the device, and of what else touches the bytes that are kept on the way.

        A processor spends as long on norms, activations and softmax as on the products of small models. On a graphics
        card the share of the rate is meant to hold with them.
        """
        rate = self.device.rate_of(dtype) * (devices * PARALLEL if devices > 1 else 1)
        return operations / (self.share * rate) + (0.0 if self.device.is_gpu else kept / touched / rate)

    # -------------------------------------------------------- one stage each

    def _windows(self) -> StagePlan:
        samples = round(self.values.window_s * SFREQ)
        stored = self.windows["all"] * (4 * self.channels * samples + 4 * self.channels * 5 + 100)
        jobs = min(self.values.n_jobs, self.cores)
        recording = self.size.seconds / (4 if self.size.clips == 80 else 1)  # a session
        return StagePlan("windows", seconds=CORE.recording * self.size.people * self.size.seconds / jobs,
                         host={"recordings": CONTEXT / 2 + jobs * recording * 62 * SFREQ * 8 * 4},
                         disk={"windows": stored})

    def _encoder(self) -> StagePlan:
        v, shape = self.values, self.encoder
        batch = v.encoder_batch + v.augmented_windows
        kept = max(1, round(self.channels * (1 - v.channel_dropout))), max(1, round(self.times * (1 - v.patch_dropout)))
        used = self.windows["train"] + self.windows["val"] + self.windows["test"]
        edits = EDITS * self.windows["train"]
        training = v.encoder_steps * shape.training_step(batch, *kept)
        encoding = shape.forward(2 * used + edits, self.channels, self.times)
        n_devices = self.device.count
        kept_bytes = v.encoder_steps * shape.activations(batch, *kept)
        seconds = self._seconds(training, "float32", kept_bytes, n_devices, CORE.touched)
        # By one process. Without a backward pass half as much is touched.
        seconds += self._seconds(encoding, "float32", shape.activations(2 * used + edits, self.channels,
                                                                        self.times) / 2, touched=CORE.touched)
        seconds += v.encoder_steps * batch * CORE.batch_window + edits * CORE.edit
        per_device = -(-batch // n_devices)
        device = {"weights": 4.0 * shape.parameters, "optimizer and gradients": (4 + ADAM) * shape.parameters,
                  "activations": max(shape.activations(per_device, *kept),
                                     shape.activations(ENCODED, self.channels, self.times) / shape.depth),
                  "context": CONTEXT}
        tokens, moments = float(self.times * shape.token_width), 2.0 * shape.token_width  # of a window
        held = 8 * (self.windows["train"] + edits) * moments  # until the evidence probe is fitted
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
            stage.seconds = self._seconds(stage.operations, "float32", v.language_steps * kept)
            stage.disk = {"language model": 4.0 * shape.parameters}
            stage.host = {"context": CONTEXT}
        else:
            stage.seconds = weights / 1e9  # of a disk that gives a gigabyte a second
            stage.host = {"context": CONTEXT, "weights": weights}
            stage.disk = {"language model (shared by all runs)": shape.parameters * 2.0}
        return stage

    def _weights(self) -> float:
        """Bytes of the language model's weights; embedding and output layer are never in four bits."""
        shape, dtype = self.text, self.values.dtype
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

    def _lengths(self, mix: Mapping[str, float]) -> tuple[float, float, float]:
        """Mean tokens of an item, those with a label, and segments."""
        tokens = labels = segments = 0.0
        for name, part in mix.items():
            kind, _, how = name.partition(" ")
            size = self.items[kind]
            own = 0.0 if how == "in words" or kind == "scenario" else size.segments
            tokens += part * SEGMENT_WORDS * (how == "in words")
            thinks = how == "with a thought" or (not how and kind not in DIRECT_KINDS)
            said = size.answer + (size.thought if thinks else 0.0)
            tokens += part * (size.prompt + said + own * self.segment(kind))
            labels += part * said
            segments += part * own
        return tokens, labels, segments

    def _language_stage(self, name: str) -> StagePlan:
        v, text, projector = self.values, self.text, self.projector
        is_adapter = name == "adapter"
        steps = v.instruction_steps if is_adapter else v.alignment_steps
        n_items = (v.items_per_kind * sum(SHARES.get(kind, 1) for kind in KINDS) + v.replay_items if is_adapter
                   else v.alignment_items)
        length, labels, segments = self._lengths(self._mix(name))
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
        seconds = self._seconds(operations, v.dtype, calls * batch * touched, devices)
        seconds += n_items * CORE.item + self._weights() / 1e9
        per_device = -(-batch // devices)
        longest = 1.5 * length  # batches are of similar length, and the longest decides
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

    def _evaluation(self) -> StagePlan:
        v, text = self.values, self.text
        test = self.windows["test"]
        predict = self.items["predict"]
        read = predict.prompt + self.segment("predict")
        said = predict.thought + predict.answer
        # Tier 1: scored from EEG and from shuffled EEG, and written once; without EEG few questions are left.
        pieces = [(test, read, 0.0, OPTIONS), (test, read, 0.0, OPTIONS), (test, read, said, 0)]
        for kind in ("describe", "select", "compare", "rank", "match", "choose", "predict", "match", "choose"):
            size = self.items[kind]
            length = size.prompt + size.segments * self.segment(kind)
            wrote = 0.0 if kind == "describe" else size.thought + size.answer
            n = v.test_items * 2.5  # from EEG, from shuffled EEG, and without: there many questions are equal
            pieces += [(n, length, wrote, 0)] * (kind != "describe") + [(n, length + wrote, 0.0, 4)]
        operations = seconds = 0.0
        layers, weights = text.layers, self._weights()
        processes = 1 if self.device.is_gpu else min(2, self.cores)
        for n, length, wrote, options in pieces:
            reading = text.forward(n, length, n) + 2 * n * options * OPTION_TOKENS * text.parameters
            batches = math.ceil(n / (GENERATED if wrote else SCORED))
            operations += reading
            per_token = layers * text.activations(1.0, self.bytes_each, False) / 2
            touched = n * (length + options * OPTION_TOKENS) * per_token
            seconds += self._seconds(reading, v.dtype, touched) / processes
            if wrote:
                writing = 2 * n * wrote * text.parameters
                operations += writing
                # A batch goes on until its longest text ends; each token reads all weights and the cache.
                steps = batches * min(96.0, 1.4 * wrote)
                cache = min(n, GENERATED) * (length + wrote) * text.cache(self.bytes_each)
                products = max(self._seconds(writing, v.dtype, n * wrote * per_token),
                               steps * (weights + cache) / self.device.bandwidth)
                calls = steps * (CORE.written + layers * CORE.written_layer)
                # A card computes while the processor prepares its next work.
                seconds += (max(products, calls) if self.device.is_gpu else products + calls) / processes
        seconds += (self.windows["train"] + test) * CORE.baseline / processes
        longest = max(size.prompt + size.segments * self.segment(kind) for kind, size in self.items.items()) + 96
        cache = GENERATED * longest * text.cache(self.bytes_each)
        prefill = GENERATED * longest * (6 * text.hidden + 2 * text.intermediate) * self.bytes_each
        device = {"weights": weights + 4.0 * (self.projector.parameters + self.projector.buffers),
                  "adapter and projector": 4.0 * text.lora(v.lora_rank), "cache of keys and values": cache,
                  "activations": prefill, "logits": 3 * 4.0 * min(MOST_LOGITS, SCORED * 4 * text.vocabulary),
                  "context": CONTEXT}
        host = ({"context": CONTEXT, "weights while loading": weights} if self.device.is_gpu
                else {part: processes * value for part, value in device.items()})
        return StagePlan("evaluation", operations, seconds, _slack(device), host, {"tables": 2000.0 * test})


def _slack(device: Mapping[str, float]) -> dict[str, float]:
    """The parts, and what lies between them."""
    return {**device, "in pieces": (SLACK - 1) * sum(device.values())}


# ---------------------------------------------------------------- remedies


SMALLER = ("Qwen/Qwen3-8B", "Qwen/Qwen3-4B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-0.6B", "smollm2-135m", "e2llm-tiny")


def remedy(profile: Mapping[str, Any], made: Plan, **given: Any) -> str:
    """The first change of parameters with which a plan that does not fit would fit; or that none was found.

    Parameters
    ----------
    profile : mapping
        Parameters of the plan.
    made : Plan
        It does not fit.
    **given
        Further arguments of :func:`plan`.
    """
    values = checked(profile)

    def faults(change: Mapping[str, Any]) -> list[str]:
        return plan({**profile, **change}, device=made.device, share=made.share, host_memory=made.host_memory,
                    disk_free=made.disk_free, **given).faults

    of_encoder: dict[str, Any] = {}
    windows, augmented = values.encoder_batch, values.augmented_windows
    while any(" encoder needs " in fault for fault in faults(of_encoder)) and windows > 8:
        windows, augmented = -(-windows // 2), augmented // 2
        of_encoder = {"encoder_batch": windows, "augmented_windows": augmented}
    halved: list[dict[str, Any]] = [{}]
    batch, accumulate = values.batch_size, values.accumulate
    while batch > 1:
        batch, accumulate = -(-batch // 2), accumulate * 2
        halved.append({"batch_size": batch, "accumulate": accumulate})
    again = [{}, *([{"gradient_checkpointing": True}] if "gradient_checkpointing" in FIELDS else [])]
    formats = [{}, *([{"dtype": "4bit"}] if made.device.is_gpu and values.dtype != "4bit" else [])]
    models = [{}, *({"language_model": name} for name in SMALLER
                    if text_shape(name).parameters < text_shape(values.language_model).parameters)]
    for parts in itertools.product(models, formats, again, halved):  # what changes the results least comes first
        change = {key: value for part in (of_encoder, *parts) for key, value in part.items()}
        if change and not faults(change):
            asked = " ".join(f"-p {key}={'true' if value is True else value}" for key, value in change.items())
            return f"This would fit: {asked}"
    return "No smaller batch or model makes it fit: take larger or more devices (--gpus), or fewer people."
