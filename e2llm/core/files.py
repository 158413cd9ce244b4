"""Files: where the project is, files written whole or not at all, files of others read with care, and checksums."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MOST_UNPACKED = 1 << 30  # bytes that an archive may unpack to; tables, truths and packages of models have less
_DEEPEST_YAML = 20
_SETTLED_S = 2.0  # a file changed less than so long ago may change again within one tick of the disk's clock


def project_root() -> Path:
    """Folder of the ``pyproject.toml`` that names e2llm, looked for upwards from here, then from the package."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            project = folder / "pyproject.toml"
            if project.is_file() and re.search(r"""^name\s*=\s*["']e2llm["']""", project.read_text("utf-8"), re.M):
                return folder
    raise FileNotFoundError(f"No pyproject.toml that names e2llm in or above {Path.cwd()}: start inside the project.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name ``path`` once the block has ended without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}-{path.name}")  # hidden, same suffix: writers look at suffixes
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys: equal contents are equal bytes.

    Parameters
    ----------
    path : Path
        The file, replaced as a whole.
    content
        Anything that JSON can hold; NaN is refused.
    """
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # as JSON spells them


def one_line(error: object) -> str:
    """A text of others, or what an error of a library says, in one line of at most 300 letters that can be printed."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[:1000])
    return text if len(text) <= 300 else f"{text[:299]}…"


def read_json(path: Path, remedy: str = "") -> Any:
    """Content of a JSON file.

    Parameters
    ----------
    path : Path
        A file of a stage or run, or of what somebody shared.
    remedy : str
        What to do if it is damaged; default: make the stage again.

    Raises
    ------
    ValueError
        Naming the file, if it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8").replace('"normalisation"', '"normalization"')  # as older runs spell it
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise ValueError(f"{path} is not JSON ({one_line(error)}): {remedy or _made_again(path)}.") from error


def _made_again(path: Path) -> str:
    return f"remove the folder {path.parent} and make it again"


def read_mapping(path: Path, form: Mapping[str, type], remedy: str = "") -> dict[str, Any]:
    """Content of a JSON file that must be an object with certain entries.

    Parameters
    ----------
    path : Path
        A file of a stage or run, or of what somebody shared.
    form : mapping of str to type
        Entries that it must have; it may have others.
    remedy : str
        As in :func:`read_json`.

    Raises
    ------
    ValueError
        In one sentence that names the file, what is wrong, and what to do.
    """
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        fact = f"it is no object but {json.dumps(content)[:40]}"
    elif not (wrong := [name for name, kind in form.items() if not isinstance(content.get(name), kind)]):
        return content
    else:
        fact = f"without a proper {', '.join(map(repr, wrong))}"
    raise ValueError(f"{path} is damaged ({fact}): {remedy or _made_again(path)}.")


def parse_yaml(text: str, where: str) -> tuple[Any, Any]:
    """Content of YAML, and the same with every scalar as the text that is written there; no code is run.

    Aliases are refused: a few lines of them stand for more than fits into memory, and nothing here needs them. So is
    deep nesting, which takes the parser long.

    Parameters
    ----------
    text : str
        The YAML.
    where : str
        File or argument, for the message.

    Raises
    ------
    ValueError
        In one sentence, if it is no YAML, or holds aliases or objects.
    """
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has an alias, written with *")
            if depth > _DEEPEST_YAML:
                raise ValueError(f"it is nested more than {_DEEPEST_YAML} deep")
        return yaml.safe_load(text), yaml.load(text, yaml.BaseLoader)
    except Exception as error:  # PyYAML raises errors of its own and, for tags that do not fit, many others
        raise ValueError(f"{where} is not YAML ({one_line(error)}): write plain values, and quote a text.") from error


def read_yaml(path: Path) -> tuple[Any, Any]:
    """Content of a YAML file, as :func:`parse_yaml` gives it; ValueError names the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not YAML in UTF-8 ({error.reason}): save it in UTF-8.") from error
    return parse_yaml(text, str(path))


def refuse_bomb(path: Path, most: int = MOST_UNPACKED) -> None:
    """Refuse a zip archive (a spreadsheet, an .npz, a wheel) by the size that it says to unpack to, before it is.

    Parameters
    ----------
    path : Path
        A file; one that is no archive passes.
    most : int
        Bytes that it may unpack to.

    Raises
    ------
    ValueError
        If it would unpack to more.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > most:
        raise ValueError(f"{path} unpacks to {size / 1e6:,.0f} MB, more than the {most / 1e6:,.0f} MB that such a file "
                         "may have")


def cached_digests(path: Path) -> dict[str, str]:
    """Digests that were noted in a JSON file; none if it is not there or is damaged, for they can be made again."""
    try:
        return dict(read_mapping(path, {}))
    except (FileNotFoundError, ValueError):
        return {}


def digest(content: Any) -> str:
    """sha256 of what JSON can say, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def visible_files(folder: Path) -> list[tuple[str, Path]]:
    """(relative name, path) of files below ``folder`` in order of name; links are followed, hidden files left out."""
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()  # a link to a folder above would never end
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted((path.relative_to(folder).as_posix(), path) for path in found if path.is_file())


def checksum(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_fingerprint(root: str | Path, inputs: Iterable[Path] | None = None, cache: Path | None = None) -> str:
    """sha256 over the names and contents of input files.

    Every byte is read once: a digest is kept in ``cache`` under the file's inode, size and times, so that later calls
    look at these alone. The first call reads about 1 GB a second, much faster than preprocessing the same files.

    Parameters
    ----------
    root : path
        Folder of the data. Files in it count by their name relative to it, so that it may be moved.
    inputs : iterable of path, optional
        Files, and folders that count with every file below them, hidden ones left out. One that does not exist counts
        as absent. Default: ``root``.
    cache : path, optional
        JSON file of digests; written anew with the files of this call.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        If ``root`` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder: give the folder that holds the data.")
    known = {} if cache is None else cached_digests(cache)
    kept: dict[str, str] = {}
    facts: list[list[str | None]] = []
    for place in [root] if inputs is None else inputs:
        name = place.relative_to(root).as_posix() if place.is_relative_to(root) else f"outside/{place.name}"
        if place.is_dir():
            facts += [[f"{name}/{file}", _content_mark(path, known, kept)] for file, path in visible_files(place)]
        else:
            facts.append([name, _content_mark(place, known, kept) if place.is_file() else None])
    if cache is not None and kept != known:
        write_json(cache, kept)
    return digest(sorted(facts, key=json.dumps))


def stat_mark(path: Path) -> str:
    """Inode, size and times of a file: equal as long as nobody has touched it."""
    facts = path.stat()
    return f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def _content_mark(path: Path, known: Mapping[str, str], kept: dict[str, str]) -> str:
    """sha256 of a file, taken from ``known`` where the file has not been touched since; put into ``kept``."""
    now, facts, mark = time.time(), path.stat(), stat_mark(path)
    found = known.get(mark) or checksum(path)
    if now - max(facts.st_mtime, facts.st_ctime) > _SETTLED_S:
        kept[mark] = found
    return found


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_NAME = 150  # letters; most disks allow 255 bytes, and names of files are made of it
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*\.", re.IGNORECASE)  # no names of folders in Windows


def check_name(name: str, what: str = "run") -> str:
    """Return ``name`` if it can name a folder.

    Parameters
    ----------
    name : str
        The name.
    what : str
        What it names, for the message.

    Raises
    ------
    ValueError
        If it holds other signs than letters, digits, ``.``, ``_`` and ``-``, is too long, or names a device in Windows.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        shown = f"{name!r:.100}"
        raise ValueError(f"{shown} cannot name a {what}: use letters, digits, '.', '_', '-', a letter or digit first.")
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{name[:40]}… cannot name a {what}: it has {len(name)} letters; give at most "
                         f"{_LONGEST_NAME}.")
    if _DEVICES.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a {what}: no folder has this name in Windows, give another one.")
    return name
