"""A full disk is one sentence, whatever a library says of it, and a mapped file has its room before it is written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import e2llm
from e2llm.core import space
from e2llm.core.space import NoSpaceError, full_disk, require_space, reserved_map, room_or_sentence, working_array


def test_room_is_asked_for_before_work(tmp_path):
    require_space(tmp_path, 1, "a byte")
    with pytest.raises(NoSpaceError, match=rf"room on the disk of {tmp_path} .* free, the run 'x' needs 1,.* MB"):
        require_space(tmp_path, 1 << 60, "the run 'x'")


@pytest.mark.parametrize("said", [
    "OSError: [Errno 28] No space left on device", "OSError: 3563520 requested and 1675232 written",
    "RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 314112 vs 314004",
    "SafetensorError: Error while serializing: I/O error: No space left on device (os error 28)",
    "OSError: [Errno 122] Disk quota exceeded", "OSError: [Errno 27] File too large",
])  # fmt: skip
def test_what_libraries_say_of_a_full_disk_becomes_one_sentence(tmp_path, said):
    assert full_disk(tmp_path, said).startswith(f"there is too little room on the disk of {tmp_path} ")


def test_a_sentence_that_was_made_in_a_lesson_stays_as_it_is(tmp_path):
    with pytest.raises(NoSpaceError) as error:
        require_space(tmp_path, 1 << 60, "data.npy")
    assert full_disk(tmp_path / "elsewhere", f"cell [3] raised NoSpaceError: {error.value}") == str(error.value)


def test_other_errors_are_left_as_they_are_unless_the_disk_is_full(tmp_path, monkeypatch):
    assert full_disk(tmp_path, "ValueError: 7 labels requested") == ""
    with pytest.raises(PermissionError), room_or_sentence(tmp_path):
        raise PermissionError(errno.EACCES, "no")
    monkeypatch.setattr(space, "free_bytes", lambda _: 1000)
    assert "(0 MB free)" in full_disk(tmp_path, "its kernel died, most often for lack of memory")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_errors_of_the_system_for_lack_of_room_are_a_sentence(tmp_path, code):
    with pytest.raises(NoSpaceError, match="make room and give the same command again"), room_or_sentence(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "file"))


def test_a_reserved_map_is_whole_on_the_disk_and_holds_what_is_written(tmp_path):
    array = reserved_map(tmp_path / "new" / "tokens.npy", (300, 1000))
    assert os.stat(tmp_path / "new" / "tokens.npy").st_blocks * 512 >= array.nbytes  # no holes
    array[7] = 7
    array.flush()
    assert np.array_equal(np.load(tmp_path / "new" / "tokens.npy").sum(axis=1), 7000.0 * (np.arange(300) == 7))


def test_a_map_that_finds_no_room_leaves_no_file_and_the_process_alive(tmp_path, monkeypatch):
    with pytest.raises(NoSpaceError, match=r"tokens.npy needs .* MB"):
        reserved_map(tmp_path / "tokens.npy", (1 << 40, 1000))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpaceError, match="too little room"):
        reserved_map(tmp_path / "tokens.npy", (3, 4))
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_system_on_files_is_a_sentence_and_no_signal(tmp_path):
    """A process that may write 1 MB: a map of 4 MB would end it."""
    script = """
import resource, signal, sys
from pathlib import Path
from e2llm.core.space import NoSpaceError, reserved_map
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    reserved_map(Path(sys.argv[1]), (1024, 1024))
except NoSpaceError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(e2llm.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", script, tmp_path / "a.npy"], env=environment, capture_output=True,
                           text=True, check=False)  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "") and "make room" in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_large_array_to_work_on_lies_in_a_file_that_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "IN_MEMORY", 4000)
    small, large, held = (working_array(*given) for given in (((1000,), tmp_path), ((50, 1000), tmp_path),
                                                              ((50, 1000), None)))
    assert isinstance(large, np.memmap) and not isinstance(small, np.memmap) and not isinstance(held, np.memmap)
    assert small.dtype == large.dtype == np.float32 and not large.any()
    large[7] = 7
    assert np.array_equal(large.sum(axis=1), 7000.0 * (np.arange(50) == 7))
    if os.name == "posix":
        assert list(tmp_path.iterdir()) == [], "no name on the disk"
    with pytest.raises(NoSpaceError, match="an array to work on needs"):
        working_array((1 << 40,), tmp_path)
