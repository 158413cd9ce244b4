"""Room on the disk: asked for before work, reserved before a file is mapped, and named in one sentence when it is out.

Libraries say that a disk is full in many words ("3563520 requested and 1675232 written", "unexpected pos"), and a write
into a mapped file that has no room ends the process without any.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

IN_MEMORY = 128 << 20  # bytes of a working array from which on it lies in a file
SPARE = 4 << 20  # bytes; a write that failed may have needed more than is left, but hardly more than this
_WORDS = re.compile(r"No space left on device|Disk quota exceeded|File too large|\d+ requested and \d+ written"
                    r"|unexpected pos \d+ vs \d+", re.IGNORECASE)  # fmt: skip
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoSpaceError(OSError):
    """The disk is full, or would be; the message names the folder, what is needed and what is there."""


def free_bytes(folder: Path) -> int:
    """Bytes that may be written below a folder."""
    return shutil.disk_usage(folder).free


def free_above(folder: Path) -> int:
    """Bytes that may be written in a folder that need not be there yet."""
    return free_bytes(next(path for path in (folder, *folder.absolute().parents) if path.exists()))


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Ask for room before work begins.

    Parameters
    ----------
    folder : Path
        Where files will be written.
    n_bytes : int
        How much.
    what : str
        What needs it, for the message.

    Raises
    ------
    NoSpaceError
        If there is less.
    """
    if (free := free_bytes(folder)) < n_bytes:
        raise NoSpaceError(_sentence(folder, free, f"{what} needs {_mb(n_bytes)}"))


def full_disk(folder: Path, said: str) -> str:
    """One sentence about a full disk if that is what an error was about, else an empty text.

    Parameters
    ----------
    folder : Path
        Where files were written.
    said : str
        Words of the error. Where they say nothing of room, a disk that is nearly full is the cause.
    """
    if own := re.search(r"there is too little room .*", said):
        return own[0]
    free = free_bytes(folder)
    return _sentence(folder, free, "") if _WORDS.search(said) or free < SPARE else ""


@contextlib.contextmanager
def room_or_sentence(folder: Path) -> Iterator[None]:
    """Turn an error of the system for lack of room into a :class:`NoSpaceError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM and not _WORDS.search(str(error)):
            raise
        place = Path(error.filename).parent if error.filename else folder
        raise NoSpaceError(_sentence(place, free_bytes(place if place.is_dir() else folder), "")) from error


def reserved_map(path: Path, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """A new ``.npy`` file to be written through a memory map, with all of its room reserved.

    Without that, the file has holes, and a write that finds no room for one ends the process (SIGBUS).

    Parameters
    ----------
    path : Path
        The file, whose folder is made if it is missing.
    shape : tuple of int
        Of the array.
    dtype : type
        Of its numbers.

    Raises
    ------
    NoSpaceError
        If there is no room; no file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    require_space(path.parent, int(np.prod(shape)) * np.dtype(dtype).itemsize, str(path))
    try:
        with room_or_sentence(path.parent):
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            with path.open("r+b") as file:
                _reserve(file, path.stat().st_size)
    except NoSpaceError:
        path.unlink(missing_ok=True)
        raise
    return array


def working_array(shape: tuple[int, ...], folder: Path | None, dtype: type = np.float32) -> np.ndarray:
    """Zeros to work on: small ones in memory, large ones in a file without a name, which ends with the array.

    The system writes pages of such a file to the disk when memory is short, so the array may be larger than memory.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    folder : Path or None
        Whose disk holds an array of more than :data:`IN_MEMORY` bytes; None holds every array in memory.
    dtype : type
        Of its numbers.

    Raises
    ------
    NoSpaceError
        If there is no room on the disk.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if folder is None or n_bytes <= IN_MEMORY:
        return np.zeros(shape, dtype=dtype)
    require_space(folder, n_bytes, "an array to work on")
    with room_or_sentence(folder), tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file, n_bytes)
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _reserve(file: IO[bytes], n_bytes: int) -> None:
    """Give every byte of a file its place on the disk, without a change of its content."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


def _sentence(folder: Path, free: int, need: str) -> str:
    facts = f"{_mb(free)} free, {need}" if need else f"{_mb(free)} free"
    return (f"there is too little room on the disk of {folder} ({facts}): make room and give the same command again; "
            "what is finished stays.")
