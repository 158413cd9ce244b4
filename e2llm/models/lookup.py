"""Is a language model within reach? Asked before any work and without loading it, for later is after two stages.

Needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.files import read_json
from .catalogue import CATALOGUE, Elsewhere, FetchError, require

_timeout_s = 10.0  # of one question to the hub; without a network the answer comes at once


def ask_for_model(name: str) -> None:
    """Refuse a language model that is not there, or is no language model.

    Parameters
    ----------
    name : str
        As for :func:`e2llm.models.language.load_language_model`, or "scratch".

    Raises
    ------
    FetchError
        Naming the model, the fact and what to do.
    """
    path = Path(from_here(name))
    if name == "scratch":
        return
    if not isinstance(CATALOGUE.get(name, Elsewhere("", "")), Elsewhere):
        require(name)
    elif path.suffix == ".gguf":
        if not path.is_file():
            raise FetchError(f"{name} is missing: give the path of a GGUF file that is there.")
    elif path.is_dir():
        _ask_folder(path)
    elif name.startswith((".", "/", "~")) or path.is_file():
        raise FetchError(f"{name} is no folder: give a folder with config.json, a .gguf file or a hub id.")
    else:
        _ask_hub(name)


def from_here(name: str) -> str:
    """The name of a language model; of a path that is there the absolute one, for lessons run in a folder of theirs."""
    path = Path(name).expanduser()
    return str(path.absolute()) if name not in CATALOGUE and name != "scratch" and path.exists() else name


def _ask_folder(folder: Path) -> None:
    """A folder must hold the files that ``save_pretrained`` writes."""
    lacking = [what for what, patterns in (("config.json", ["config.json"]),
                                           ("weights", ["*.safetensors", "*.safetensors.index.json", "*.bin"]),
                                           ("a tokenizer", ["tokenizer*", "vocab*", "*.model"]))
               if not any(any(folder.glob(pattern)) for pattern in patterns)]
    if lacking:
        raise FetchError(f"{folder} is no language model: it lacks {' and '.join(lacking)}. Give a folder that "
                         "save_pretrained wrote.")
    try:
        described = read_json(folder / "config.json", "copy the folder again")
    except ValueError as error:
        raise FetchError(str(error)) from None
    if not isinstance(described, dict) or not isinstance(described.get("model_type"), str):
        raise FetchError(f"{folder / 'config.json'} describes no model: it names no model_type. Copy the folder again.")


def _ask_hub(name: str) -> None:
    """A hub id must be in the local cache, or known to the hub."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    hub_id, _, revision = name.partition("@")
    where: dict[str, Any] = {"repo_id": hub_id, "filename": "config.json", "revision": revision or None}
    remedy = "give a local folder, or one of these: " + ", ".join(
        ["scratch", *(known for known, asset in CATALOGUE.items() if not isinstance(asset, Elsewhere))])
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(**where), str):
            return
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise FetchError(f"The language model '{name}' is not in the local hub cache, and HF_HUB_OFFLINE is set: "
                             f"unset it and load the model once, {remedy}.")
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(**where), timeout=_timeout_s)
    except HFValidationError as error:
        raise FetchError(f"'{name}' is no folder here and can be no hub id ({error}): {remedy}.") from None
    except HfHubHTTPError as error:
        fact = str(error).strip().splitlines()[0]
        raise FetchError(f"The hub did not give the language model '{name}' ({fact}): check its name, "
                         f"{remedy}.") from None
    except (OSError, HTTPError) as error:  # no network, or a slow one
        raise FetchError(f"The language model '{name}' is not on this computer, and "
                         f"{huggingface_hub.constants.ENDPOINT} cannot be reached ({type(error).__name__}): "
                         f"{remedy}.") from None
