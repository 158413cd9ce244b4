"""A model that somebody shared, asked about a recording that no training has met.

::

    model = SharedModel.from_pretrained("shared/tiny")  # a folder of e2llm.sharing.export, or a hub id
    recording = model.read("new.edf")
    print(recording.ask(3, "Which emotion is it?"))
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import numpy as np
import torch
from huggingface_hub.errors import HTTPError
from peft import PeftModel

from . import __version__, features, projector, segments
from .asking import E2LLM
from .card import is_path
from .effects import BANDS
from .emotions import LabelSet
from .encoder import N_PATCHES
from .evaluate import Listener
from .modeling import E2LLMForConditionalGeneration, E2LLMProcessor
from .newcomer import MEANT, Levels, Newcomer, read_windows
from .preprocess import PreprocessParams
from .runs import checksum
from .stages import quiet_peft

FORMAT, VERSION, FACTS = "e2llm-export", 2, "e2llm.json"
# What a claim means; a version that means something else must not judge the claims of an older model.
MEANINGS = {"level": features.LEVEL_THRESHOLD, "cited": segments.CITED, "salient": segments.SALIENT, "loud": projector.LOUD,
            "loudest": projector.LOUDEST, "bands": {name: list(edges) for name, edges in BANDS.items()}}
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


def _folder_of(name: str | Path, revision: str | None) -> Path:
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


@dataclass(frozen=True, repr=False)
class SharedModel:
    """A model that was trained elsewhere; :meth:`read` a recording to ask about it.

    Parameters
    ----------
    model : E2LLMForConditionalGeneration
        With its encoder, the adapter merged.
    processor : E2LLMProcessor
        Its processor.
    facts : dict
        ``e2llm.json``.
    levels : Levels
        Of the people that it was trained on.
    """

    model: E2LLMForConditionalGeneration
    processor: E2LLMProcessor
    facts: dict
    levels: Levels

    @classmethod
    def from_pretrained(cls, folder: str | Path, language_model: str | None = None, revision: str | None = None,
                        dtype: str | None = None) -> SharedModel:
        """Load an export.

        Parameters
        ----------
        folder : path or str
            Written by :func:`export`, or the hub id of one.
        language_model : str, optional
            Where the language model lies here, if not where the export says.
        revision : str, optional
            Of a hub id.
        dtype : str, optional
            Of the language model; default as in training, which alone gives the same bits.

        Raises
        ------
        ShareError, LanguageModelError
            If the folder is no whole export, or the language model is not there or not the one that it was trained with.
        """
        folder = _folder_of(folder, revision)
        facts = open_facts(folder)
        language = facts["language_model"]
        if language["kind"] == "local" and language_model is None:
            raise ShareError(f"{folder} was trained with a language model that lay on its maker's machine ({language['name']}): "
                             "give language_model='where yours is'.")
        model, tokenizer = E2LLMForConditionalGeneration.with_tokenizer(folder, language_model, dtype or language["dtype"])
        found = (weights_mark(model.language_model), tokenizer_mark(tokenizer))
        for what, mark in zip(("weights", "tokenizer"), found, strict=True):
            if mark and language[what] and mark != language[what]:
                raise ShareError(f"{folder} was trained with another language model than '{language_model or language['name']}': its {what} differ"
                                 f"{'s' * (what == 'tokenizer')}, though its size is the same. Give the one that it was trained with.")
        with quiet_peft():
            model = PeftModel.from_pretrained(model, str(folder / "adapter")).merge_and_unload().eval()
        processor = E2LLMProcessor(tokenizer, model.config.eeg_tokens, model.config.evidence_slots)
        return cls(model, processor, facts, Levels.open(folder / "levels.safetensors"))

    @property
    def label_set(self) -> LabelSet:
        """The closed set of answers."""
        stored = self.facts["label_set"]
        return LabelSet(**{**stored, "labels": tuple(stored["labels"])})

    def read(self, *files: str | Path, levels: str | None = None) -> NewRecording:
        """Files of one person, ready to be asked about.

        Parameters
        ----------
        *files : path
            Anything that MNE reads. Own levels are taken over all of them.
        levels : str, optional
            What the person is compared with: ``own`` (mean of these files, without labels; needs 12 windows) or ``population`` (people of the
            training run). Default: as the model was trained, which ``facts["levels"]`` says.

        Raises
        ------
        RecordingError
            If a file cannot be used; see :func:`e2llm.newcomer.read_windows`.
        """
        if not files:
            raise ValueError("read() needs at least one file.")
        levels = levels or self.facts["levels"]
        windows, notes = read_windows(files, self.facts["ch_names"], PreprocessParams(**self.facts["preprocess"]), levels)
        corpus = Newcomer.of(windows, self.label_set, self.levels, levels)
        heard = np.empty((0, N_PATCHES, self.model.config.eeg_width), dtype=np.float32)  # tokens are made when a window is asked about
        listener = Listener(self.model, self.processor, heard, {})
        return NewRecording(listener, corpus, encoder=self.model.encoder, notes=(MEANT[levels], *notes))

    def __repr__(self) -> str:
        facts = self.facts
        return f"E2-LLM '{facts['run']}' ({facts['dataset']}): {', '.join(facts['label_set']['labels'])}; {facts['protocol']}"


@dataclass(frozen=True, repr=False)
class NewRecording(E2LLM):
    """A recording that no training has met, and the model to ask about it: everything of :class:`e2llm.asking.E2LLM` works.

    ``notes`` say which levels it is compared with, and which channels were interpolated.
    """

    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.corpus.windows)

    def __repr__(self) -> str:
        index = self.corpus.windows.index
        return "\n".join([f"{', '.join(index['file'].unique())}: {len(self)} windows", *(f"  {note}" for note in self.notes)])
