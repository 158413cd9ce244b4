"""Download and check an exported model (:mod:`e2llm.app.hub_export`); :mod:`e2llm.app.chat_session` opens it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePath

import huggingface_hub
import torch
from huggingface_hub.errors import HTTPError

from .. import __version__
from ..core import claims
from ..core.bands import BANDS
from ..core.files import checksum, one_line, read_json
from .model_card import is_path

FORMAT, VERSION, FACTS = "e2llm-export", 3, "e2llm.json"
# Definitions behind claims: an e2llm with other definitions must not check the claims of an older model.
MEANINGS = {"level": claims.LEVEL_THRESHOLD, "cited": claims.CITED, "salient": claims.SALIENT,
            "evidence threshold": claims.EVIDENCE_THRESHOLD, "largest z": claims.MAX_ABS_Z,
            "bands": {name: list(edges) for name, edges in BANDS.items()}}
_FORM = {"files": dict, "language_model": dict, "label_set": dict, "ch_names": list, "evidence": list,
         "preprocess": dict, "statistics": str, "run": str, "dataset": str, "protocol": str}  # of e2llm.json
_OF_LANGUAGE_MODEL = ("kind", "name", "dtype", "weights", "tokenizer")
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
