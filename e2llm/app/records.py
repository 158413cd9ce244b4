"""Records of stages (``stage.json``): read with a check of their form, and compared with the files that they list.

A record may be damaged as any file may: by an editor, a full disk, a bit that flipped. What is no record gives one
sentence that names the file; a file that is not what its record says makes the stage stale, so that it is made again.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..core.files import cached_digests, checksum, digest, read_mapping, stat_mark, write_json

PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "mne", "torch", "transformers", "peft", "accelerate")
DIGESTS = ".stage-digests.json"  # file of a run with the digests of its large files
LARGE = 1 << 26  # bytes; a larger file is read again only if it was touched since, whatever the process
_FORM = {"stage": str, "key": str, "params": dict, "inputs": dict, "needs": dict, "files": dict, "metrics": dict,
         "facts": dict, "versions": dict}
_SEEN: dict[str, str] = {}  # digests of the files that this process has read, by their marks


def read_record(path: Path) -> dict:
    """The record of a stage.

    Parameters
    ----------
    path : Path
        ``stage.json``.

    Raises
    ------
    ValueError
        In one sentence, if the file is no record of a stage.
    """
    record = read_mapping(path, _FORM)
    for name, facts in record["files"].items():
        if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str) or "size" not in facts:
            raise ValueError(f"{path} is damaged (nothing is said of the file {name!r}): remove the folder "
                             f"{path.parent} and make it again.")
    return record


def fingerprint(record: Mapping) -> str:
    """Hash of a stage's key and of the content of its files, for the stages that need it."""
    return digest([record["key"], {name: facts["sha256"] for name, facts in record["files"].items()}])


def is_whole(record: Mapping, folder: Path, cache: Path) -> bool:
    """Whether every file of a stage is there with the content that its record states.

    A process reads each file once, at its first use; a large file is read again only if it was touched since any
    process has read it, so that gigabytes of windows cost nothing at the start of every lesson.

    Parameters
    ----------
    record : mapping
        From :func:`read_record`.
    folder : Path
        Of the stage.
    cache : Path
        JSON file of digests of large files.
    """
    for name, facts in record["files"].items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != facts["size"]:
            return False
        if _digest(file, cache) != facts["sha256"]:
            return False
    return True


def _digest(file: Path, cache: Path) -> str:
    mark = stat_mark(file)
    if mark not in _SEEN:
        known = cached_digests(cache) if file.stat().st_size >= LARGE else {}
        _SEEN[mark] = known.get(mark) or checksum(file)
        remember(file, _SEEN[mark], cache)
    return _SEEN[mark]


def remember(file: Path, sha256: str, cache: Path) -> None:
    """Note the digest of a file that was just read.

    Parameters
    ----------
    file : Path
        The file.
    sha256 : str
        Its digest.
    cache : Path
        As in :func:`is_whole`.
    """
    _SEEN[mark := stat_mark(file)] = sha256
    if file.stat().st_size < LARGE or (known := cached_digests(cache)).get(mark) == sha256:
        return
    with contextlib.suppress(OSError):  # a run that may only be read is verified all the same
        write_json(cache, {**known, mark: sha256})


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the packages that results depend on."""
    installed = {"python": platform.python_version(), "e2llm": __version__}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed
