"""Every parameter of the pipeline: name, type, default, bounds and a line of help, each written once.

The ``parameters`` cells of the lessons repeat name, default and help, so that a lesson can be read and run alone. The
command line reads only the names there: an edited lesson does not change what ``e2llm run`` does.
"""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..models.device import is_device_name
from .processes import check_sharded, check_shares

NYQUIST = 128.0  # Hz; windows have 256 samples a second
CLIP_FOLDS = 4  # of the protocols that hold out clips
MOST_GROUPS = 9999
PATCH_S = 0.25  # seconds of a time patch, of which every encoder gives tokens
LARGEST = 2**53
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class _Group(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """No path, name or option has a sign that cannot be printed; no count is larger than floats and JSON hold."""
        for part in value if isinstance(value, tuple) else [value]:
            if isinstance(part, str) and not part.isprintable():
                raise ValueError("must have no line break and no other sign that cannot be printed")
            if isinstance(part, int) and abs(part) > LARGEST:
                raise ValueError(f"must be at most {LARGEST}")
        return value

    @field_validator("data_root", "null_root", check_fields=False)
    @classmethod
    def _from_home(cls, value: str) -> str:
        """A folder below the home folder, ``~``, is written out here, so that every lesson finds the same one."""
        try:
            return str(Path(value).expanduser()) if value.startswith("~") else value
        except RuntimeError as error:
            raise ValueError(f"names no folder ({error})") from None


class Data(_Group):
    """Recordings and windows (lesson 01)."""

    source: Literal["seed-vii", "seed-vii-raw", "emoeeg-mc", "faced", "bids", "folder"] = Field(
        "seed-vii", description='"seed-vii", "seed-vii-raw", "emoeeg-mc", "faced", "bids", or "folder" '
        "(files with a labels.csv)")
    source_options: str = Field("", description="options of that kind, each written as for -p, with spaces between")
    data_root: str = Field("data/twin", min_length=1, description="folder of the recordings, relative to the project")
    twin_preset: Literal["", "teaching", "realistic", "no_emotion"] = Field(
        "teaching", description='simulate this preset if data_root is not there; "" never simulates')
    twin_subjects: int = Field(20, ge=1, le=9999, description="people in the simulated twin")
    twin_seed: int = Field(2026, ge=0, lt=2**32, description="seed of the simulated twin")
    subjects: int | None = Field(None, ge=1, description="use only the first so many subjects")
    l_freq: float = Field(0.5, gt=0, lt=NYQUIST, description="lower edge of the band-pass, Hz")
    h_freq: float = Field(45.0, gt=0, lt=NYQUIST, description="upper edge of the band-pass, Hz; below the mains")
    window_s: float = Field(
        4.0, ge=1, le=60, description="length of a window, seconds, in steps of 0.25; EEGPT was pretrained on 4")
    missing_channels: Literal["masked", "interpolated"] = Field(
        "masked", description='channels that some recordings lack are "masked" (left out) or "interpolated"')
    quality: Literal["strict", "warn"] = Field(
        "strict", description='recordings with a fault are left out ("strict") or used and listed ("warn")')
    n_jobs: int = Field(2, ge=1, le=1024, description="recordings processed at a time")

    @model_validator(mode="after")
    def _band(self) -> Data:
        if self.l_freq >= self.h_freq:
            raise ValueError(f"l_freq = {self.l_freq:g} must be below h_freq = {self.h_freq:g}, both in Hz.")
        return self

    @model_validator(mode="after")
    def _whole_patches(self) -> Data:
        if self.window_s % PATCH_S:
            near = self.window_s // PATCH_S * PATCH_S
            raise ValueError(f"window_s = {self.window_s:g} is no whole number of time patches of {PATCH_S:g} s, of "
                             f"which encoders give tokens: {near:g} or {near + PATCH_S:g} would do.")
        return self


class Split(_Group):
    """Training, validation and test parts (lesson 02)."""

    protocol: Literal["joint", "subjects", "clips", "within_subject", "cross_context", "cross_context_joint",
                      "random_windows"] = Field(
        "joint", description='"joint", "subjects", "clips", "within_subject", "cross_context", "cross_context_joint"')
    fold: int = Field(0, ge=0, description="which part is the test part")
    n_groups: int = Field(3, ge=0, le=MOST_GROUPS, description="groups of subjects; one is the test group")
    normalization: Literal["calibration", "session", "population", "transductive"] = Field(
        "calibration", description='subject statistics: "calibration", "session", "population" or "transductive"')
    accept_leaks: bool = Field(
        False, description="take a protocol that leaks by design all the same; its scores are stamped")

    @model_validator(mode="after")
    def _fold_exists(self) -> Split:
        if self.n_groups in (1, 2):
            raise ValueError(f"n_groups = {self.n_groups} leaves no part to train on: give 3 or more, or 0 for a "
                             "group a person.")
        clip_folds = {"subjects": 1, "random_windows": 1, "joint": CLIP_FOLDS}.get(self.protocol)
        folds = math.lcm(self.n_groups, clip_folds) or math.inf if clip_folds else math.inf
        if self.fold >= (CLIP_FOLDS if self.protocol == "clips" else folds):  # others: as the recordings allow
            groups = range(3, MOST_GROUPS + 1) if clip_folds else ()
            would_do = next((n for n in groups if math.lcm(n, clip_folds) > self.fold), None)
            raise ValueError(f"fold = {self.fold} is not there: the protocol {self.protocol!r} has the folds 0 to "
                             f"{(folds if clip_folds else CLIP_FOLDS) - 1}."
                             f"{f' n_groups = {would_do} would do.' if would_do else ''}")
        return self


class Encoder(_Group):
    """Encoder, stage 1 (lesson 02)."""

    encoder_size: str = Field(
        "tiny2", min_length=1, description="published EEGPT size: tiny1-3, little, base1-2, large")
    encoder_weights: str = Field("", description='released checkpoint; "" initializes from physiology')
    patch_dropout: float = Field(0.75, ge=0, lt=1, description="share of time patches left out in training")
    channel_dropout: float = Field(0.5, ge=0, lt=1, description="share of channels left out in training")
    encoder_steps: int = Field(750, ge=1, description="optimizer steps")
    encoder_batch: int = Field(32, ge=1, le=65536, description="windows in a batch")
    augmented_windows: int = Field(
        32, ge=0, le=65536, description="augmented windows added to a batch, for the terms on band power")
    encoder_lr: float = Field(6.0e-3, gt=0, le=10, description="peak learning rate")
    supcon_weight: float = Field(0.3, ge=0, le=1e6, description="weight of the supervised contrastive term")
    spectral_weight: float = Field(4.0, ge=0, le=1e6, description="weight of the band-power term")
    change_weight: float = Field(8.0, ge=0, le=1e6, description="weight of what an edit changed in band power")
    token_dtype: Literal["float32", "float16"] = Field(
        "float32", description='tokens of windows on the disk: "float32", or "float16" for half of the room')


class LanguageModel(_Group):
    """Language model (lesson 03)."""

    language_model: str = Field(
        "e2llm-tiny", min_length=1,
        description='"e2llm-tiny", "scratch", "smollm2-135m", a hub id, a local folder, or a .gguf file')
    dtype: Literal["float32", "bfloat16", "float16", "4bit", "auto"] = Field(
        "float32", description='"float32", "bfloat16", "4bit", or "auto": bfloat16 where the processor has it')
    attention: Literal["auto", "flash"] = Field(
        "auto", description='"auto" (SDPA of PyTorch), or "flash": FlashAttention, where it is installed')
    language_steps: int = Field(1000, ge=1, description="steps of a new model; unused for a loaded one")
    drill_steps: int = Field(40, ge=0, description="of these, copying drills at the start")
    language_items: int = Field(12000, ge=1, description="text items that it learns from")
    language_lr: float = Field(4.0e-3, gt=0, le=10, description="its peak learning rate")

    @model_validator(mode="after")
    def _text_after_drills(self) -> LanguageModel:
        if self.language_model == "scratch" and self.language_steps <= self.drill_steps:
            raise ValueError(f"language_steps = {self.language_steps} must be more than drill_steps = "
                             f"{self.drill_steps}: a new model trains on text after the drills.")
        return self


class Alignment(_Group):
    """Alignment, stage 2 (lesson 03)."""

    eeg_tokens: int = Field(
        2, ge=1, le=240, description="state tokens that a segment takes in a prompt; divides 4 * window_s")
    evidence_slots: int = Field(
        20, ge=0, le=1000, description="features of a segment that enter the prompt as words, 3 or 4 tokens each")
    levels: Literal["low_high", "graded"] = Field(
        "graded", description='words for evidence: "low_high", or "graded" ("rather low" to "very high")')
    alignment_items: int = Field(2000, ge=1, description="descriptions and questions for the projector")
    alignment_steps: int = Field(150, ge=1, description="optimizer steps of stage 2")
    alignment_lr: float = Field(3.0e-3, gt=0, le=10, description="peak learning rate of the projector")


class Instruction(_Group):
    """Instruction tuning, stage 3 (lesson 04)."""

    items_per_kind: int = Field(
        1000, ge=1, description="items of every kind; predictions three times, choices twice as many")
    replay_items: int = Field(2000, ge=0, description="text-only items, so that the text tasks are not forgotten")
    instruction_steps: int = Field(450, ge=1, description="optimizer steps of stage 3")
    instruction_lr: float = Field(2.0e-3, gt=0, le=10, description="peak learning rate of the adapter")
    projector_lr: float = Field(1.0e-3, ge=0, le=10, description="of the projector, which trains on")
    lora_rank: int = Field(16, ge=1, le=4096, description="of the adapter")
    lora_dropout: float = Field(
        0.0, ge=0, lt=1, description="of what enters the adapter; more than 0 makes a step half as long again on a CPU")
    answer_from: Literal["eeg", "thought"] = Field(
        "thought", description='"eeg", or "thought": a second pass answers from the stated evidence alone')
    second_pass_steps: int = Field(200, ge=1, description="optimizer steps of answers from the thought")
    second_pass_batch: int = Field(64, ge=1, le=65536, description="tables of levels in a batch")
    second_pass_lr: float = Field(5.0e-3, gt=0, le=10, description="peak learning rate of its adapter")


class Training(_Group):
    """Shared by several lessons."""

    seed: int = Field(0, ge=0, lt=2**32, description="of everything drawn: weights, items, order, shuffles")
    token_noise: float = Field(1.0, ge=0, le=1000, description="noise on the encoder's tokens in training")
    batch_size: int = Field(16, ge=1, le=65536, description="items in a batch")
    accumulate: int = Field(1, ge=1, le=65536, description="batches that make one optimizer step")
    save_steps: int = Field(200, ge=1, description="a cut-off training resumes from the last multiple")
    device: str = Field(
        "auto", description='where models compute: "auto" (a GPU of NVIDIA, else the CPU), "cpu", "cuda", "cuda:1", '
        '"mps"')
    processes: int = Field(
        1, ge=1, le=1024, description="processes that train together, each on its part of a batch; on GPUs one a GPU")
    sharded: bool = Field(
        False, description="each process keeps a part of the frozen language model (FSDP), for one that no GPU holds")
    gradient_checkpointing: bool = Field(
        False, description="less memory, more time: activations of the language model are computed twice")

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not is_device_name(value):
            raise ValueError("must be auto, cpu, cuda, cuda:1 or mps")
        return value


class Evaluation(_Group):
    """Evaluation (lesson 05)."""

    test_items: int = Field(300, ge=1, description="items of every kind in tiers 2 and 3")
    item_seeds: int = Field(5, ge=1, le=100, description="seeds that these items are drawn with, in equal parts")
    ablation: bool = Field(False, description="also train the variants that lack one stage")
    eegnet: bool = Field(False, description="also train EEGNet, a compact CNN on raw windows, as a baseline")


class FurtherLessons(_Group):
    """Further lessons (06 to 09)."""

    null_root: str = Field(
        "data/twin-null", min_length=1, description="a twin without any emotion effect; simulated if it is not there")
    null_subjects: int = Field(9, ge=1, le=9999, description="people in it")
    null_seed: int = Field(2027, ge=0, lt=2**32, description="its seed")
    eegnet_steps: int = Field(400, ge=1, description="optimizer steps of the baseline EEGNet")
    feedback_samples: int = Field(4, ge=1, le=1000, description="thoughts that are sampled for every training window")
    feedback_temperature: float = Field(1.0, gt=0, le=1000, description="of the sampling")
    feedback_steps: int = Field(200, ge=1, description="optimizer steps of the round of feedback")
    feedback_lr: float = Field(1.0e-3, gt=0, le=10, description="its peak learning rate")
    windows_a_label: int = Field(12, ge=1, description="test windows of each label that are attributed")
    sizes: tuple[str, ...] = Field(
        ("base", "scratch-600k"), strict=False, min_length=1,
        description='"base", names in model_size.SIZES, or any language model that lesson 03 loads')
    size_seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (0,), strict=False, min_length=1, description="training seeds of every size but the base")
    size_items: int = Field(60, ge=1, description="items of each zero-shot kind")
    steps_share: float = Field(
        1.0, gt=0, le=1000, description="of the base run's optimizer steps, for every size but the base")
    size_bf16: bool = Field(False, description="train the sizes in bfloat16")
    start: str = Field("", description='initialization: "" (physiology), "scaled", "random", or a checkpoint')
    pretrain_steps: int = Field(200, ge=1, description="optimizer steps; the study below takes 1500")
    pretrain_batch: int = Field(8, ge=1, le=65536, description="windows in a batch")
    pretrain_lr: float = Field(2e-3, gt=0, le=10, description="peak learning rate")
    drawn: int = Field(96, ge=0, description="masked patches of a window that are reconstructed in a step; 0 for all")
    reconstructor: Literal["linear", "transformer"] = Field(
        "linear", description='or "transformer", as in the paper')


class Parameters(Data, Split, Encoder, LanguageModel, Alignment, Instruction, Training, Evaluation, FurtherLessons):
    """All parameters of the pipeline, made by :func:`checked`; a parameter that is not given has its default."""

    @model_validator(mode="after")
    def _tokens_of_patches(self) -> Parameters:
        if (patches := round(self.window_s / PATCH_S)) % self.eeg_tokens:
            *some, last = (str(n) for n in range(1, patches + 1) if patches % n == 0)
            raise ValueError(f"eeg_tokens = {self.eeg_tokens} must divide the {patches} time patches of a window of "
                             f"{self.window_s:g} s: {', '.join(some)} or {last} would do.")
        return self

    @model_validator(mode="after")
    def _shared_batches(self) -> Parameters:
        check_shares(self.processes, {name: getattr(self, name) for name in
                                      ("encoder_batch", "augmented_windows", "batch_size")})
        check_sharded(self.sharded, self.processes, self.dtype)
        return self


FIELDS = Parameters.model_fields


def is_text(name: str) -> bool:
    """Whether a parameter is text, or a list of texts: then ``1`` means "1", and an empty value means ""."""
    default = FIELDS[name].default if name in FIELDS else None
    return isinstance(default, str) or (isinstance(default, tuple) and isinstance(default[0], str))


def checked(values: Mapping[str, Any]) -> Parameters:
    """Check some values and return all parameters.

    Raises
    ------
    ValueError
        In one paragraph, if a name is unknown, or a value is of the wrong type or out of bounds.
    """
    for name in values:
        if name not in FIELDS:
            raise ValueError(unknown(name))
    try:
        return Parameters(**values)
    except ValidationError as error:
        first = {fault["loc"][:1]: fault for fault in reversed(error.errors())}  # one sentence a parameter
        raise ValueError(" ".join(_sentence(fault, values) for fault in reversed(first.values()))) from None


def unknown(name: str) -> str:
    """A sentence about an unknown parameter, with similar names."""
    close = difflib.get_close_matches(name, FIELDS, n=3, cutoff=0.5)
    near = f"did you mean {' or '.join(close)}?" if close else "e2llm run --help lists all."
    return f"There is no parameter {name!r}: {near}"


def _sentence(fault: Mapping, values: Mapping[str, Any]) -> str:
    """An error of pydantic in the words of the command line."""
    if not fault["loc"]:  # a combination of two parameters
        return str(fault["ctx"]["error"])
    (name, *place), given = fault["loc"], fault["input"]
    wanted = {
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "bool_type": "must be true or false",
        "string_type": "must be text",
        "tuple_type": "must be a list, as [1, 2]",
        "too_short": "must not be empty",
        "string_too_short": "must not be empty",
        "value_error": str(fault.get("ctx", {}).get("error")),
    }.get(fault["type"], fault["msg"].replace("Input should", "must"))
    number_as_text = fault["type"] == "float_type" and isinstance(given, str)
    hint = " YAML reads 1e-3 as text: write 1.0e-3." if number_as_text else ""
    return f"{f'{_short(given)} in {name}' if place else f'{name} = {_short(values[name])}'} {wanted}.{hint}"


def _short(value: Any) -> str:
    """A value as it is written, of a long or deep one the beginning."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # an integer of too many digits
        return f"a {type(value).__name__} of many digits"


def by_group() -> dict[str, dict[str, str]]:
    """Groups by title, and in each the help of every ``name=default``: part of ``e2llm run --help``."""
    return {group.__doc__.removesuffix("."): {f"{name}={written(field.default)}": field.description
                                              for name, field in group.model_fields.items()}
            for group in Parameters.__bases__}


def written(value: Any) -> str:
    """A default in the syntax of ``-p``."""
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(written, value))}]"
    return {None: "", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else f"{value}"
