"""A language model that is not there is refused before any work, in seconds and without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import e2llm
from e2llm.models.catalogue import FetchError
from e2llm.models.lookup import ask_for_model, from_here


def folder(path: Path, config: str = '{"model_type": "llama"}', *names: str) -> Path:
    path.mkdir()
    for name in names or ("model.safetensors", "tokenizer.json"):
        (path / name).touch()
    (path / "config.json").write_text(config)
    return path


@pytest.mark.parametrize("name", ["scratch", "e2llm-tiny"])
def test_models_that_come_with_the_kit_are_there(name):
    ask_for_model(name)


def test_a_folder_is_there_if_it_has_the_files_of_a_model(tmp_path, monkeypatch):
    ask_for_model(str(folder(tmp_path / "mine")))
    ask_for_model(str(folder(tmp_path / "two", '{"model_type": "gpt2"}', "model.safetensors.index.json", "vocab.json")))
    monkeypatch.chdir(tmp_path)
    ask_for_model("mine")
    assert from_here("mine") == str(tmp_path / "mine")
    assert all(from_here(name) == name for name in ("a/b", "e2llm-tiny", "scratch", str(tmp_path)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_here("~/mine") == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("config", "names", "fact"),
    [
        ("{}", (), "names no model_type"),
        ("[]", (), "names no model_type"),
        ("half", (), "is not JSON"),
        ('{"model_type": "llama"}', ("model.safetensors",), "lacks a tokenizer"),
        ('{"model_type": "llama"}', ("README.md",), "lacks weights and a tokenizer"),
    ],
)
def test_a_folder_that_holds_no_model_is_named(tmp_path, config, names, fact):
    with pytest.raises(FetchError, match=fact):
        ask_for_model(str(folder(tmp_path / "mine", config, *names)))


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nowhere.gguf", "~/nowhere"])
def test_a_path_that_is_not_there_is_named(name):
    with pytest.raises(FetchError, match=rf"{name} is (missing|no folder): give"):
        ask_for_model(name)


def elsewhere(*names: str, **environment: str) -> tuple[list[str], float]:
    """Ask in another process, for the hub's settings are read at import: what it said, and seconds."""
    code = ("import sys\nfrom e2llm.models.lookup import FetchError, ask_for_model\n"
            "for name in sys.argv[1:]:\n"
            "    try: ask_for_model(name); print('there')\n"
            "    except FetchError as error: print(error)\n"
            "print('torch' in sys.modules)")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True, timeout=300,
                          env={**clean, "PYTHONPATH": str(Path(e2llm.__file__).parents[1]), **environment})  # fmt: skip
    *said, torch = done.stdout.splitlines()
    assert torch == "False"
    return said, time.monotonic() - began


def test_a_hub_id_without_a_network_is_refused_at_once(tmp_path):
    """Nobody listens at the endpoint: once this took a minute, after two trained stages."""
    said, seconds = elsewhere("Qwen/Qwen3-0.6B", "nobody/nothing@main", "no model at all", HF_HOME=str(tmp_path),
                              HF_ENDPOINT="http://127.0.0.1:9")  # fmt: skip
    assert seconds < 50
    assert said[0].startswith("The language model 'Qwen/Qwen3-0.6B' is not on this computer, and http://127.0.0.1:9 ")
    assert "cannot be reached" in said[1] and "e2llm-tiny" in said[1]
    assert said[2].startswith("'no model at all' is no folder here and can be no hub id")


def test_a_hub_id_that_was_loaded_once_needs_no_network(tmp_path):
    kept = tmp_path / "hub" / "models--a--b"
    (kept / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (kept / "snapshots" / ("0" * 40) / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0" * 40)
    said, _ = elsewhere("a/b", "a/c", HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    assert said[0] == "there"
    assert said[1].startswith("The language model 'a/c' is not in the local hub cache, and HF_HUB_OFFLINE is set: ")
