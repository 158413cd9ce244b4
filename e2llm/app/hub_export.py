"""Export a finished run: a folder with its model and a model card, which can be uploaded to a hub.

::

    export(Run.open("tiny"), "exported/tiny")  # or: e2llm export tiny exported/tiny
    push_to_hub("exported/tiny", "owner/tiny")

All files are safetensors and JSON. The LoRA adapter is not merged: it is merged on loading, as in a run, so an exported
model gives the same bits, and the language model need not be copied. Only one that was made on the spot
(``scratch``), or that came with the kit (``e2llm-tiny``), is in the folder. The second pass, which answers from the
thought alone, goes with it where the run has one. :mod:`e2llm.app.chat_session` loads the folder again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import huggingface_hub
import numpy as np
from huggingface_hub.errors import HTTPError
from safetensors.torch import load_file, save_file

from .. import __version__
from ..core.claims import LOW_HIGH
from ..core.files import checksum, read_mapping
from ..data.dataset import Corpus
from ..data.new_subject import PopulationStatistics
from ..data.preprocess_params import PreprocessParams
from ..models.catalogue import CATALOGUE, Bundled, require
from ..models.modeling import E2LLMForConditionalGeneration
from ..tasks.second_pass import Asked
from .hub_import import (
    FACTS,
    FORMAT,
    MEANINGS,
    SECOND_PASS,
    VERSION,
    ExportError,
    first_line,
    open_facts,
    tokenizer_mark,
    weights_mark,
)
from .model_card import is_path, model_card, public
from .runs import Run
from .second_pass_stage import taught_questions
from .stage_code import code_of
from .stages import load_encoder, load_evidence_probe, open_dataset, open_language

MADE_WITH = ("windows", "encoder", "language_model", "projector", "adapter")  # stages that decide the weights
_PROJECTOR = "base_model.model.projector."
_UNCHECKED = {"README.md", ".gitattributes"}  # files that users and the hub may change


def export(run: Run, folder: str | Path, license: str | None = None, dataset: str | None = None,
           corpus: Corpus | None = None) -> Path:
    """Export the model of a finished run, the one that lesson 05 has evaluated, as a folder.

    Parameters
    ----------
    run : Run
        With all stages finished, the evaluation too: a model is not exported without its scores.
    folder : path
        To make; an earlier export is replaced, other files are never removed.
    license, dataset : str, optional
        License of the weights (SPDX name), and a short description of the training data. Both are required for real
        recordings; the defaults are those of simulated data.
    corpus : Corpus, optional
        Of the run, if it is open already.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StageMissing
        If a stage is not finished; the message names its notebook.
    FileExistsError
        If ``folder`` holds something else.
    ExportError
        If license or data are missing for real recordings, or a path of this computer would be exported.
    """
    folder = Path(folder)
    records = {name: run.require(name) for name in (*MADE_WITH, "evaluation")}
    if (second := run.finished(SECOND_PASS)) is not None:
        records[SECOND_PASS] = second
    run.read_metrics()
    _refuse_other_code(run, records)
    _refuse_other_things(folder)
    simulated = bool(records["evaluation"]["params"]["oracle"])  # only simulated data have a ground truth
    if not simulated and not (license and dataset):
        raise ExportError(f"{run.name} was not evaluated on a twin with its ground truth: say what it was trained on, "
                         "and under which license "
                         "it is shared (dataset='SEED-VII', license='cc-by-nc-4.0'; e2llm export --dataset … --license "
                         "…).")
    corpus = corpus or open_dataset(run)
    with _whole(folder) as partial:
        language = _write_model(run, corpus, partial)
        PopulationStatistics.of(corpus).save(partial / "population_statistics.safetensors")
        if second is not None:
            _write_second_pass(run, partial / SECOND_PASS)
        facts = {
            "format": FORMAT, "version": VERSION, "e2llm": __version__, "run": run.name, "simulated": simulated,
            "license": license or "mit",
            "dataset": dataset or "simulated twin of SEED-VII (no brain was recorded)",
            "people": len(np.unique(corpus.subjects)),
            "label_set": asdict(corpus.label_set), "ch_names": corpus.windows.ch_names,
            "preprocess": _preprocessing(records["windows"]["params"]),
            "statistics": "population" if corpus.split.normalization == "population" else "subject",
            "protocol": corpus.split.statement,
            "evidence": corpus.evidence_names.columns, "meanings": MEANINGS, "language_model": language,
            SECOND_PASS: None if second is None else taught_questions(
                map(Asked, second["facts"]["asked"]), corpus.evidence_names.scale, corpus.label_set),
            "made_with": {name: public(record["params"]) for name, record in records.items() if name != "evaluation"},
            "versions": records["adapter"]["versions"],
        }  # fmt: skip
        (partial / "README.md").write_text(model_card(run, facts), encoding="utf-8")
        facts["files"] = {name: checksum(partial / name) for name in _files(partial) if name not in _UNCHECKED}
        _write_json(partial / FACTS, facts)
        _refuse_paths(partial, [run.root, run.path])
    return folder


def _refuse_other_code(run: Run, records: Mapping[str, Mapping]) -> None:
    """An export states what levels and questions mean in this version, so its stages must be of this version."""
    for name, record in records.items():
        if record.get("code", {}) != code_of(name):
            raise ExportError(f"The stage {name!r} of the run {run.name!r} was made by another version of the kit, and "
                              "an export states the definitions of this one: run the lessons again, then export.")


def _write_model(run: Run, corpus: Corpus, folder: Path) -> dict:
    """Write model, adapter and a new language model; return the facts of the language model."""
    language, tokenizer, _ = open_language(run)
    stored = _language_source(run)
    own = run.path / "language_model" / "model" if stored["name"] == "model" else None
    if isinstance(CATALOGUE.get(stored["name"]), Bundled):  # a later version of the kit may hold another one
        own = require(stored["name"])
    kind = "included" if own else "local" if is_path(stored["name"]) else "named"
    name = {"included": "language_model", "local": public(stored["name"]), "named": stored["name"]}[kind]
    facts = {"kind": kind, "name": name, "dtype": stored["dtype"], "weights": weights_mark(language),
             "tokenizer": tokenizer_mark(tokenizer)}
    settings, encoder = run.require("projector")["params"], load_encoder(run, corpus).encoder
    model = E2LLMForConditionalGeneration.join(language, tokenizer, name, encoder, encoder.config.token_width,
                                               settings["eeg_tokens"], 0,
                                               load_evidence_probe(run), settings["evidence_slots"],
                                               settings.get("levels", LOW_HIGH.name))
    model.load_state_dict(load_file(run.path / "projector" / "projector.safetensors"), strict=False)
    trained = load_file(run.path / "adapter" / "lora" / "adapter_model.safetensors")
    model.projector.load_state_dict({key.removeprefix(_PROJECTOR): value for key, value in trained.items()
                                     if key.startswith(_PROJECTOR)})
    model.save_pretrained(folder)
    _write_adapter(run.path / "adapter" / "lora", folder / "adapter",
                   {key: value for key, value in trained.items() if not key.startswith(_PROJECTOR)})
    if own:
        shutil.copytree(own, folder / name)
    return facts


def _write_second_pass(run: Run, folder: Path) -> None:
    """Write what the second pass needs to answer: its LoRA, and the embeddings of the tokens that were trained."""
    lora = run.path / SECOND_PASS / "lora"
    _write_adapter(lora, folder, load_file(lora / "adapter_model.safetensors"))


def _write_adapter(lora: Path, folder: Path, weights: Mapping) -> None:
    settings = json.loads((lora / "adapter_config.json").read_text(encoding="utf-8"))
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "adapter_config.json", {**settings, "modules_to_save": None, "base_model_name_or_path": None})


def _language_source(run: Run) -> dict:
    return json.loads((run.path / "language_model" / "source.json").read_text(encoding="utf-8"))


def _preprocessing(params: Mapping) -> dict:
    return {field.name: params[field.name] for field in fields(PreprocessParams)}


def _write_json(path: Path, content: Mapping) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A temporary folder that replaces ``folder`` when the block ends without an error."""
    partial, old = (folder.with_name(f".{os.getpid()}-{folder.name}{end}") for end in (".part", ".old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            folder.rename(old)
        try:
            partial.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)  # what was there before
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_other_things(folder: Path) -> None:
    """Raise FileExistsError if a folder has files that no export wrote."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give the name of a folder to make.")
    found = _files(folder)
    try:
        facts = read_mapping(folder / FACTS, {"files": dict}) if FACTS in found else {}
    except ValueError:
        facts = {}
    own = {*facts.get("files", {}), FACTS, *_UNCHECKED} if facts.get("format") == FORMAT else set()
    if other := [name for name in found if name not in own]:
        raise FileExistsError(f"{folder} holds {other[0]}, which no export wrote: give another folder, or move that "
                              "away.")


def _refuse_paths(folder: Path, places: list[Path]) -> None:
    """Raise ExportError if a file contains one of some paths of this computer."""
    for name in _files(folder):
        if not name.endswith(".safetensors"):
            text = (folder / name).read_text(encoding="utf-8")
            if found := [place for place in places if len(place.parts) > 2 and json.dumps(str(place))[1:-1] in text]:
                raise ExportError(f"{name} would hold the path {found[0]}: give models and data relative to the "
                                  "project, and run again.")


def push_to_hub(folder: str | Path, repo_id: str, private: bool = True, revision: str | None = None,
                message: str = "Upload an E2-LLM", api: huggingface_hub.HfApi | None = None) -> str:
    """Upload an export to a hub; log in first (``hf auth login``, or ``HF_TOKEN``).

    Parameters
    ----------
    folder : path
        Written by :func:`export`; its checksums are compared first.
    repo_id : str
        ``owner/name``; made if it does not exist.
    private : bool
        Whether a new repository is visible to its owner only. An existing one is not changed.
    revision : str, optional
        Branch to upload to.
    message : str
        Of the commit.
    api : HfApi, optional
        Client of another hub than the default one (``HF_ENDPOINT``).

    Returns
    -------
    str
        Address of the repository.

    Raises
    ------
    ExportError
        If the folder is no complete export, or the hub cannot be reached or refuses.
    """
    facts, folder, api = open_facts(Path(folder)), Path(folder), api or huggingface_hub.HfApi()
    listed = [*facts["files"], FACTS, "README.md"]
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message, revision=revision,
                          allow_patterns=listed)
    except (OSError, ValueError, HTTPError) as error:
        raise ExportError(f"{folder} could not be uploaded to {repo_id} ({first_line(error)}). Check the name, your "
                         "login ('hf auth login') and the "
                         "network, then call again; the folder is unchanged.") from error
    return str(url)
