"""What of the code decides the result of a stage: a version to raise by hand, and the constants of some modules.

Both are part of a stage's key (:meth:`e2llm.runs.Run.stage`), so a changed threshold or wording makes the stage stale,
like a changed parameter. Raise the version when a stage's code changes its result and no constant has changed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")
_MEASURED = ("effects.BANDS", "features.SHAPE", "features.SLOPE_HZ", "features.WHOLE", "montage")
_SIGNAL = (*_MEASURED, "calibration", "copies", "counterfactual.HALF_STEP_HZ", "encoder", "projector.CHANGE_WEIGHT",
           "projector.LOUDEST", "splits", "train")
_START = ("checkpoints", "encoder", "montage", "weights")  # what an encoder begins as
_CHAT = tuple(f"language.{name}" for name in ("EEG_TOKEN", "EMPTY_THOUGHT", "END_THINK", "THINK", "_CHAT_TEMPLATE"))
_TEXT = (*_CHAT, "effects.BANDS", "emotions", "features", "montage", "questions", "scenarios", "segments", "tasks")
_TRAINED = (*_TEXT, "calibration", "modeling", "projector", "splits", "train")  # what a model is made to say
_ANSWERED = (*_TEXT, "calibration", "evaluate", "modeling", "projector", "splits")  # what is asked of it
_JUDGED = (*_ANSWERED, "faithfulness", "grammar")  # whether what it says is true
_SCORED = ("controls", "metrics", "statistics")


class Code(NamedTuple):
    """Version of a stage's code, and where its constants are: modules (all names in capitals) or single names."""

    version: int
    constants: tuple[str, ...]


STAGES: dict[str, Code] = {
    "windows": Code(1, (*_MEASURED, "bids", "emoeeg", "emotions", "faced", "folders", "preprocess", "seed", "seed_raw",
                        "trials")),
    "encoder": Code(1, (*_SIGNAL, *_START)),
    "language_model": Code(1, (*_TEXT, "modeling", "train")),
    "projector": Code(1, _TRAINED),
    "adapter": Code(1, (*_TRAINED, "stages.LORA_TARGETS")),
    "evaluation": Code(1, (*_ANSWERED, *_SIGNAL, *_START, *_SCORED, "assessment", "audit", "baselines", "eegnet",
                           "shortcuts", "stages.LORA_TARGETS")),
    "feedback": Code(1, (*_JUDGED, "feedback", "train")),
    "reasoning": Code(1, (*_JUDGED, *_SIGNAL, *_SCORED, "attribution", "counterfactual", "reasoning", "review")),
    "scaling": Code(1, (*_JUDGED, *_SCORED, "personwise", "reasoning", "scaling", "train")),
    "pretraining": Code(1, (*_START, "calibration", "pretraining", "splits", "train")),
    "probe": Code(1, (*_START, "baselines", "calibration", "splits", "starts", "train")),
    "speech": Code(1, (*_JUDGED, "reasoning", "versus")),
}  # fmt: skip


def constants_of(stage: str) -> dict[str, Any]:
    """``module.NAME`` to value of every constant that decides a stage; what a module imports counts as its own."""
    found = {}
    for entry in STAGES[stage].constants:
        name, _, single = entry.partition(".")
        module = importlib.import_module(f"e2llm.{name}")
        for constant in [single] if single else sorted(filter(_CONSTANT.fullmatch, vars(module))):
            value = getattr(module, constant)
            if constant != "TYPE_CHECKING" and not isinstance(value, type):  # a class is code: the version says it
                found[f"{name}.{constant}"] = value
    return found


def code_of(stage: str) -> dict[str, Any]:
    """What the key of a stage holds of the code: nothing for a stage that is not listed, such as a reader's own."""
    if stage not in STAGES:
        return {}
    stated = [[name, _stated(value, name)] for name, value in constants_of(stage).items()]
    return {"version": STAGES[stage].version, "constants": hashlib.sha256(json.dumps(stated).encode()).hexdigest()}


def _stated(value: Any, name: str) -> Any:
    """``value`` in JSON's types, alike in every process; functions and classes by name, files by content."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if is_dataclass(value) and not isinstance(value, type):
        held = ((field.name, getattr(value, field.name)) for field in fields(value))
        return [type(value).__name__, *([field, _stated(item, name)] for field, item in held)]
    if isinstance(value, Mapping):
        return [[_stated(key, name), _stated(item, name)] for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted((_stated(item, name) for item in value), key=json.dumps)
    if isinstance(value, (list, tuple, range)):
        return [_stated(item, name) for item in value]
    if hasattr(value, "tolist"):  # of numpy
        return value.tolist()
    if hasattr(value, "read_bytes"):  # a file of texts beside the code
        return hashlib.sha256(value.read_bytes()).hexdigest()
    if callable(value):
        return value.__qualname__
    kind = type(value).__name__
    raise TypeError(f"The constant {name} is a {kind}, which a stage's key cannot hold: add it to e2llm.stage_code.")
