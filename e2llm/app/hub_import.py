"""A model that somebody shared, asked about a recording that no training has met.

::

    model = SharedModel.from_pretrained("shared/tiny")  # a folder of e2llm.app.hub_export.export, or a hub id
    recording = model.read("new.edf")
    print(recording.ask(3, "Which emotion is it?"))
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import huggingface_hub
import torch
from huggingface_hub.errors import HTTPError

from .. import __version__
from ..core import claims
from ..core.bands import BANDS
from ..core.files import checksum
from .model_card import is_path

FORMAT, VERSION, FACTS = "e2llm-export", 2, "e2llm.json"
# What a claim means; a version that means something else must not judge the claims of an older model.
MEANINGS = {"level": claims.LEVEL_THRESHOLD, "cited": claims.CITED, "salient": claims.SALIENT, "loud": claims.EVIDENCE_THRESHOLD,
            "loudest": claims.MAX_ABS_Z, "bands": {name: list(edges) for name, edges in BANDS.items()}}
_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "README.md")


class ShareError(ValueError):
    """A model that cannot be shared or loaded; the message names the file or the hub's repository, the fact and the remedy."""


def first_line(error: Exception) -> str:
    """What stands first in an error, at most 200 characters of it."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def weights_mark(language: torch.nn.Module) -> str:
    """Checksum over the beginning of every weight, in bfloat16, so that a model that was loaded in another precision is the same one.

    Empty for a quantised model, whose weights cannot be compared.
    """
    total = hashlib.sha256()
    for name, value in sorted(language.named_parameters()):
        if not value.is_floating_point():
            return ""
        start = value.detach().flatten()[:64].to("cpu", torch.bfloat16).view(torch.int16)
        total.update(name.encode() + start.numpy().tobytes())
    return total.hexdigest()


def tokenizer_mark(tokenizer) -> str:
    """Checksum over all tokens and their numbers."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def open_facts(folder: Path) -> dict:
    """The facts of an export whose files are all there and as they were written; ShareError names the one that is not."""
    path = folder / FACTS
    if not path.is_file():
        raise ShareError(f"{folder} holds no {FACTS}, so it is no export: give a folder that 'e2llm share' wrote.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShareError(f"{path} is not JSON ({error}): copy the folder again.") from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or not facts.get("files"):
        raise ShareError(f"{path} was not written by 'e2llm share': give a folder that it wrote.")
    if facts.get("version") != VERSION:
        raise ShareError(f"{folder} is an export of version {facts.get('version')}, this e2llm reads version {VERSION}: train its run anew and "
                         "share it again, or install the e2llm that wrote it.")
    if facts.get("meanings") != MEANINGS:
        made_by = facts.get("e2llm", "of another version")
        raise ShareError(f"{folder} was written by e2llm {made_by}, whose claims mean something else than those of {__version__}: "
                         f"install e2llm {made_by}.")
    for name, wanted in facts["files"].items():
        if not (folder / name).is_file():
            raise ShareError(f"{folder / name} is missing: copy the whole folder again.")
        if checksum(folder / name) != wanted:
            raise ShareError(f"{folder / name} is not as it was exported (its checksum differs): copy it again.")
    return facts


def export_folder(name: str | Path, revision: str | None) -> Path:
    """A folder here, or what a hub has under that name."""
    if Path(name).is_dir():
        if revision is not None:
            raise ShareError(f"{name} is a folder here, which has no revision '{revision}': leave it out, or give a hub id.")
        return Path(name)
    if isinstance(name, Path) or is_path(name):
        raise ShareError(f"{name} is no folder: give a folder that 'e2llm share' wrote, or a hub id such as 'owner/name'.")
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS)))
    except (OSError, ValueError, HTTPError) as error:
        raise ShareError(f"'{name}' is no folder here, and no hub gave it ({first_line(error)}). Check the name, your login and the network; "
                         "what was loaded before is found offline too.") from error
