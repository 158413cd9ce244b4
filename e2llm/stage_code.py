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
_SIGNAL = (*_MEASURED, "calibration", "copies", "counterfactual.HALF_STEP_HZ", "encoder", "projector.CHANGE_WEIGHT", "projector.LOUDEST", "splits",
           "train")
_TEXT = ("effects.BANDS", "emotions", "features", "language.EEG_TOKEN", "language.EMPTY_THOUGHT", "language.END_THINK", "language.THINK",
         "language._CHAT_TEMPLATE", "montage", "questions", "scenarios", "segments", "tasks")
_TRAINED = (*_TEXT, "calibration", "modeling", "projector", "splits", "train")  # what a model is made to say of segments
_ANSWERED = (*_TEXT, "calibration", "evaluate", "modeling", "projector", "splits")  # what is asked of it
_JUDGED = (*_ANSWERED, "faithfulness", "grammar")  # whether what it says is true


class Code(NamedTuple):
    """Version of a stage's code, and where its constants are: modules (all their names in capitals), or single names."""

    version: int
    constants: tuple[str, ...]


STAGES: dict[str, Code] = {
    "windows": Code(1, (*_MEASURED, "bids", "emoeeg", "emotions", "faced", "folders", "preprocess", "seed", "seed_raw", "trials")),
    "encoder": Code(1, (*_SIGNAL, "checkpoints", "weights")),
    "language_model": Code(1, (*_TEXT, "modeling", "train")),
    "projector": Code(1, _TRAINED),
    "adapter": Code(1, (*_TRAINED, "stages.LORA_TARGETS")),
    "evaluation": Code(1, (*_ANSWERED, *_SIGNAL, "assessment", "audit", "baselines", "controls", "eegnet", "metrics", "shortcuts",
                           "stages.LORA_TARGETS", "statistics")),
    "feedback": Code(1, (*_JUDGED, "feedback", "train")),
    "reasoning": Code(1, (*_JUDGED, *_SIGNAL, "attribution", "controls", "counterfactual", "metrics", "reasoning", "review", "statistics")),
    "scaling": Code(1, (*_JUDGED, "controls", "metrics", "personwise", "reasoning", "scaling", "statistics")),
    "pretraining": Code(1, ("calibration", "checkpoints", "encoder", "montage", "pretraining", "splits", "train", "weights")),
    "probe": Code(1, ("baselines", "calibration", "checkpoints", "encoder", "montage", "splits", "starts", "train", "weights")),
    "speech": Code(1, (*_JUDGED, "reasoning", "versus")),
}  # fmt: skip


def constants_of(stage: str) -> dict[str, Any]:
    """``module.NAME`` to value of every constant that decides a stage; a constant that a module imports counts as its own."""
    found = {}
    for entry in STAGES[stage].constants:
        name, _, single = entry.partition(".")
        module = importlib.import_module(f"e2llm.{name}")
        for constant in [single] if single else sorted(filter(_CONSTANT.fullmatch, vars(module))):
            value = getattr(module, constant)
            if constant != "TYPE_CHECKING" and not isinstance(value, type):  # a class is code: the version speaks for it
                found[f"{name}.{constant}"] = value
    return found


def code_of(stage: str) -> dict[str, Any]:
    """What the key of a stage holds of the code: nothing for a stage that is not listed here, such as a reader's own."""
    if stage not in STAGES:
        return {}
    stated = [[name, _stated(value, name)] for name, value in constants_of(stage).items()]
    return {"version": STAGES[stage].version, "constants": hashlib.sha256(json.dumps(stated).encode()).hexdigest()}


def _stated(value: Any, name: str) -> Any:
    """``value`` in JSON's types, alike in every process; functions and classes by their name, files by their content."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *([field.name, _stated(getattr(value, field.name), name)] for field in fields(value))]
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
    raise TypeError(f"The constant {name} is a {type(value).__name__}, which has no place in a stage's key: state it in e2llm.stage_code.")
