"""Input that wants to do harm, and what tests of it assert: one sentence of the kit, nothing run, nothing lost."""

from __future__ import annotations

import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
_PLAIN = (ValueError, FileNotFoundError, FileExistsError)  # of the kit too, where it has no class of its own
PLACES = ("header", "middle", "end")


@contextmanager
def refused(*facts: object, longest: int = 1000) -> Iterator[None]:
    """The block ends in an error of the kit that is one sentence with these facts; never one of a library."""
    with pytest.raises(Exception) as caught:
        yield
    the_kit_says(caught.value, *facts, longest=longest)


def the_kit_says(error: BaseException, *facts: object, longest: int = 1000) -> None:
    """An error is one of the kit, and one sentence with these facts."""
    own = type(error) in _PLAIN or type(error).__module__.startswith("e2llm.")
    assert own, f"{type(error).__module__}.{type(error).__name__}: {error}"
    is_one_sentence(str(error), *facts, longest=longest)


def is_one_sentence(message: str, *facts: object, longest: int = 1000) -> None:
    """One line, not endless, that says what was seen."""
    assert message.isprintable() and 15 < len(message) < longest, message
    assert "Traceback" not in message and len(message.split()) > 3, message
    for fact in facts:
        assert str(fact) in message, (fact, message)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def place_in(content: bytes, place: str, seed: int) -> int:
    """A byte in the first 5 % (at most 600 bytes), in the middle half, or in the last 2 %."""
    n, rng = len(content), random.Random(f"{place} {seed}")
    low, high = {"header": (0, min(600, max(n // 20, 8))), "middle": (n // 4, 3 * n // 4),
                 "end": (n - max(n // 50, 8), n)}[place]
    return rng.randrange(low, high)


def truncated(content: bytes, place: str, seed: int) -> bytes:
    return content[: place_in(content, place, seed)]


def flipped(content: bytes, place: str, seed: int) -> bytes:
    """One bit is the other one."""
    at = place_in(content, place, seed)
    return content[:at] + bytes([content[at] ^ 1 << random.Random(seed).randrange(8)]) + content[at + 1 :]


DAMAGES = {"truncated": truncated, "flipped": flipped}


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, harm: Path) -> None:
        self.harm = harm

    def __reduce__(self):
        return os.mkdir, (str(self.harm),)


def write_bomb(path: Path, member: str, size: int) -> Path:
    """A zip archive of a few kB with one member of zeros that unpacks to a size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(size))
    return path


def says_so(path: Path, size: int) -> Path:
    """A zip archive whose directory says that its first member unpacks to a size; quicker than to write one."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = size.to_bytes(4, "little")
    path.write_bytes(content)
    return path
