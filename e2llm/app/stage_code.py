"""The part of the code that decides the result of a stage: a version raised by hand, and constants of some modules.

Both are part of the key of a stage (:meth:`e2llm.app.runs.Run.stage`). A changed threshold or wording makes the stage
stale, like a changed parameter. Raise the version when the code of a stage changes its result, but no constant does.
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
_SIGNAL = ("core.bands", "core.claims", "core.montage", "data.features")  # measurements of a window
_DATASET = (*_SIGNAL, "data.band_edits", "data.normalization", "data.protocols")
_ENCODER = ("core.montage", "models.eegpt", "models.eegpt_weights")
_TEXT = ("core.bands", "core.chat", "core.claims", "core.labels", "core.montage", "data.features", "models.language",
         "tasks.grammar", "tasks.items", "tasks.scenarios", "tasks.segments", "tasks.wordings")
_TRAINED = (*_TEXT, "data.normalization", "data.protocols", "models.modeling", "models.processing", "models.projector",
            "training.trainer")
_ANSWERED = (*_TEXT, "data.normalization", "data.protocols", "models.inference", "models.modeling", "models.processing",
             "models.projector")
_JUDGED = (*_ANSWERED, "core.verdicts", "evaluation.faithfulness", "models.evidence_rule",
           "tasks.thought_parser")  # verdicts of claims
_SCORED = ("evaluation.controls", "evaluation.metrics")


class Code(NamedTuple):
    """Version of a stage's code, and the modules whose constants (names in capitals) decide its result."""

    version: int
    constants: tuple[str, ...]


STAGES: dict[str, Code] = {
    "windows": Code(3, (*_SIGNAL, "core.channel_names", "core.labels", "data.checks", "data.cleaning",
                        "data.filtering", "data.preprocess_params", "data.preprocessing", "data.sources",
                        "data.sources.base", "data.sources.bids", "data.sources.emoeeg_mc", "data.sources.faced",
                        "data.sources.folder", "data.sources.samples", "data.sources.seed_vii", "data.sources.tables",
                        "data.swapped_channels")),
    "encoder": Code(3, (*_DATASET, *_ENCODER, "models.evidence_probe", "training.augmentation",
                        "training.losses", "training.trainer")),
    "language_model": Code(1, (*_TEXT, "models.modeling", "models.processing", "training.language_pretraining",
                               "training.trainer")),
    "projector": Code(2, _TRAINED),
    "adapter": Code(3, (*_TRAINED, "training.stage3_instruction")),
    "second_pass": Code(2, (*_TRAINED, "evaluation.from_thought", "models.evidence_rule", "tasks.level_table",
                            "tasks.second_pass", "training.second_pass", "training.stage3_instruction")),
    "evaluation": Code(5, (*_JUDGED, *_DATASET, *_ENCODER, *_SCORED, "data.audit", "evaluation.ablation",
                           "evaluation.baselines", "evaluation.from_thought", "evaluation.shortcuts",
                           "evaluation.tiers", "models.eegnet", "tasks.level_table", "tasks.second_pass",
                           "training.eegnet", "training.stage3_instruction", "training.trainer")),
    "feedback": Code(2, (*_JUDGED, "training.feedback", "training.trainer")),
    "reasoning": Code(3, (*_JUDGED, *_DATASET, *_SCORED, "app.reasoning_stage", "evaluation.attribution",
                          "evaluation.causal_measures", "evaluation.counterfactual", "evaluation.reasoning",
                          "models.eegpt", "training.trainer")),
    "scaling": Code(3, (*_JUDGED, *_SCORED, "evaluation.person_bootstrap", "evaluation.reasoning",
                        "evaluation.studies.model_size", "training.trainer")),
    "pretraining": Code(2, (*_ENCODER, "data.normalization", "data.protocols", "training.pretraining",
                            "training.trainer")),
    "probe": Code(2, (*_ENCODER, "data.normalization", "data.protocols", "evaluation.baselines",
                      "evaluation.studies.initialization", "training.trainer")),
    "speech": Code(2, (*_JUDGED, "app.run_comparison", "evaluation.reasoning")),
}  # fmt: skip


def constants_of(stage: str) -> dict[str, Any]:
    """``module.NAME`` and value of every constant that decides a stage, also of those that a module imports."""
    found = {}
    for entry in STAGES[stage].constants:
        module = importlib.import_module(f"e2llm.{entry}")
        for constant in sorted(filter(_CONSTANT.fullmatch, vars(module))):
            value = getattr(module, constant)
            if constant != "TYPE_CHECKING" and not isinstance(value, type):  # a class is code: the version says it
                found[f"{entry}.{constant}"] = value
    return found


def code_of(stage: str) -> dict[str, Any]:
    """Version and a hash of the constants, for the key of a stage; empty for a stage that is not listed."""
    if stage not in STAGES:
        return {}
    stated = [[name, _stated(value, name)] for name, value in constants_of(stage).items()]
    return {"version": STAGES[stage].version, "constants": hashlib.sha256(json.dumps(stated).encode()).hexdigest()}


def _stated(value: Any, name: str) -> Any:
    """``value`` in JSON types, equal in every process; functions and classes by name, files by content."""
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
    if hasattr(value, "read_bytes"):  # a file of texts
        return hashlib.sha256(value.read_bytes()).hexdigest()
    if callable(value):
        return value.__qualname__
    kind = type(value).__name__
    raise TypeError(f"The constant {name} is a {kind}, which a stage's key cannot hold: add it to app/stage_code.py.")
