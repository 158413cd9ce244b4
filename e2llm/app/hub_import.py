"""Download and check an exported model (:mod:`e2llm.app.hub_export`); :mod:`e2llm.app.chat_session` opens it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HTTPError
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from .. import __version__
from ..core import claims
from ..core.bands import BANDS
from ..core.files import checksum, one_line, read_json, read_mapping
from ..models.adapting import adapted
from ..tasks.second_pass import Asked
from ..training.stage3_instruction import quiet_peft
from .model_card import is_path

FORMAT, VERSION, FACTS = "e2llm-export", 3, "e2llm.json"
SECOND_PASS = "second_pass"  # folder of its adapter, and entry of the facts; null or missing without one
# Definitions behind claims: an e2llm with other definitions must not check the claims of an older model.
MEANINGS = {"level": claims.LEVEL_THRESHOLD, "cited": claims.CITED, "salient": claims.SALIENT,
            "evidence threshold": claims.EVIDENCE_THRESHOLD, "largest z": claims.MAX_ABS_Z,
            "bands": {name: list(edges) for name, edges in BANDS.items()}}
SECOND_PASS_FILES = tuple(f"{SECOND_PASS}/{name}" for name in ("adapter_config.json", "adapter_model.safetensors"))
_FORM = {"files": dict, "language_model": dict, "label_set": dict, "ch_names": list, "evidence": list,
         "preprocess": dict, "statistics": str, "run": str, "dataset": str, "protocol": str}  # of e2llm.json
_OF_LANGUAGE_MODEL = ("kind", "name", "dtype", "weights", "tokenizer")
# Settings in which adapters of exports may differ; peft itself corrects the last one to the layers that it finds.
_OF_ADAPTER = ("r", "lora_alpha", "lora_dropout", "task_type", "inference_mode", "peft_version", "fan_in_fan_out")
_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "README.md")


class ExportError(ValueError):
    """A model cannot be exported or loaded; the message names the file or repository and says what to do."""


def first_line(error: Exception) -> str:
    """First line of an error, at most 200 characters."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def weights_mark(language: torch.nn.Module) -> str:
    """Checksum over the first values of every weight in bfloat16, equal for a model loaded in another precision.

    Empty for a quantized model, whose weights cannot be compared.
    """
    total = hashlib.sha256()
    for name, value in sorted(language.named_parameters()):
        if not value.is_floating_point():
            return ""
        start = value.detach().flatten()[:64].to("cpu", torch.bfloat16).view(torch.int16)
        total.update(name.encode() + start.numpy().tobytes())
    return total.hexdigest()


def tokenizer_mark(tokenizer) -> str:
    """Checksum over all tokens and their indices."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def open_facts(folder: Path) -> dict:
    """Read ``e2llm.json`` of an export and check all its files.

    Raises
    ------
    ExportError
        If the folder is no export, has another format version, or a file is missing or changed.
    """
    path = folder / FACTS
    if not path.is_file():
        raise ExportError(f"{folder} holds no {FACTS}, so it is no export: give a folder that 'e2llm export' wrote.")
    try:
        facts = read_json(path, "copy the folder again")
    except ValueError as error:
        raise ExportError(str(error)) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not facts.get("files"):
        raise ExportError(f"{path} was not written by 'e2llm export': give a folder that it wrote.")
    if facts.get("version") != VERSION:
        raise ExportError(f"{folder} is an export of version {facts.get('version')}, this e2llm reads version "
                          f"{VERSION}: train its run again and export it, or install the e2llm that wrote it.")
    if facts.get("meanings") != MEANINGS:
        made_by = facts.get("e2llm", "of another version")
        raise ExportError(f"{folder} was written by e2llm {made_by}, whose claims have other definitions than those "
                          f"of {__version__}: install e2llm {made_by}.")
    wrong = [name for name, kind in _FORM.items() if not isinstance(facts.get(name), kind)]
    if not wrong:
        wrong = [f"language_model.{name}" for name in _OF_LANGUAGE_MODEL
                 if not isinstance(facts["language_model"].get(name), str)]
    second = facts.get(SECOND_PASS)
    if not wrong and second is not None:
        questions = second.get("questions") if isinstance(second, dict) else None
        if not isinstance(questions, dict) or Asked.LABEL not in questions or set(questions) - set(Asked):
            wrong = [f"{SECOND_PASS}.questions"]
        wrong += [f"files.{name}" for name in SECOND_PASS_FILES if name not in facts["files"]]
    if wrong:
        raise ExportError(f"{path} is damaged (without a proper {', '.join(wrong)}): copy the folder again.")
    for name, wanted in facts["files"].items():
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ExportError(f"{path} names the file {name!r:.100}, which lies outside the folder: do not use it.")
        if not os.path.isfile(folder / name):  # False for a name that no disk can hold
            raise ExportError(f"{one_line(folder / name)} is missing: copy the whole folder again.")
        if checksum(folder / name) != wanted:
            raise ExportError(f"{folder / name} is not as it was exported (its checksum differs): copy it again.")
    return facts


def with_adapter(model: torch.nn.Module, folder: Path, wanted: Mapping[str, Any]) -> torch.nn.Module:
    """The model with the adapter of a folder; it must be LoRA as an export writes it, whole, and nothing else.

    Parameters
    ----------
    model : Module
        That the adapter was trained on.
    folder : Path
        Of the adapter.
    wanted : mapping
        Settings that differ from those that peft has by itself.

    Raises
    ------
    ExportError
        If it is anything else.
    """
    try:
        settings = read_mapping(folder / "adapter_config.json", {"r": int}, "copy it again")
        usual = {**LoraConfig().to_dict(), **wanted}
        own_class = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
        odd = [name for name, value in settings.items() if name not in _OF_ADAPTER
               and _in_order(value) != _in_order(usual.get(name)) and (name, value) != ("auto_mapping", own_class)]
        odd += [name for name in wanted if name not in settings]
        if odd or not 1 <= settings["r"] <= 4096:
            raise ValueError(f"its configuration asks for {', '.join(odd) or 'r'} as no export does")
        stored = load_file(folder / "adapter_model.safetensors")
        with quiet_peft():
            peft = PeftModel.from_pretrained(model, str(folder), torch_device=str(model.device))
        own = get_peft_model_state_dict(peft, save_embedding_layers=False)
        if set(stored) != set(own) or not all(value.isfinite().all() for value in stored.values()):
            raise ValueError("its weights are not those of its configuration, or not finite")
        return adapted(peft)
    except Exception as error:  # of peft and safetensors too
        raise ExportError(f"{folder} holds no adapter that can be used ({one_line(error)}): copy the folder "
                          "again.") from error


def _in_order(value: object) -> object:
    """Lists in an order of their own: peft writes the names of layers in any."""
    return sorted(value, key=str) if isinstance(value, list) else value


def export_folder(name: str | Path, revision: str | None) -> Path:
    """Folder of an export; a hub id is downloaded.

    Parameters
    ----------
    name : str or path
        Local folder or hub id.
    revision : str or None
        Of the hub id.

    Raises
    ------
    ExportError
        If there is no such folder and no such repository.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise ExportError(f"{name} is a folder here, which has no revision '{revision}': leave it out, or give a "
                             "hub id.")
        return Path(name)
    if isinstance(name, Path) or is_path(name):
        raise ExportError(f"{name} is no folder: give a folder that 'e2llm export' wrote, or a hub id such as "
                         "'owner/name'.")
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS)))
    except (OSError, ValueError, HTTPError) as error:
        raise ExportError(
            f"'{name}' is no local folder, and the hub did not return it ({first_line(error)}). Check the name, your "
            "login and the network; "
            "what was loaded before is found offline too."
        ) from error
