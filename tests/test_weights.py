"""Released weights load whole, with every key accounted for, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from e2llm.encoder import EEGPT, PATCH, eegpt_config
from e2llm.weights import load_released_weights

CHANNELS = ["FZ", "CZ", "PZ", "OZ"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make(size: str = "tiny1", seed: int = 0) -> EEGPT:
    torch.manual_seed(seed)
    return EEGPT(eegpt_config(size), CHANNELS).eval()


def released(encoder: EEGPT) -> dict[str, torch.Tensor]:
    """A state as the authors publish it: the momentum target beside the online encoder and the predictor."""
    state = {f"target_encoder.{key}": value.clone() for key, value in encoder.state_dict().items()}
    online = {f"encoder.{key}": torch.zeros_like(value) for key, value in encoder.state_dict().items()}
    return {**online, **state, "predictor.norm.weight": torch.ones(3)}


def write(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state}, path)
    return path


def snapshot(encoder: EEGPT) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in encoder.state_dict().items()}


def unchanged(encoder: EEGPT, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("file", ["eegpt.ckpt", "eegpt.safetensors"])
def test_a_released_checkpoint_gives_the_released_encoder(tmp_path, file):
    theirs, own = make(seed=1), make(seed=2)
    signal = torch.randn(2, len(CHANNELS), 16 * PATCH)
    assert not torch.allclose(own(signal), theirs(signal), atol=1e-3)
    report = load_released_weights(own, write(released(theirs), tmp_path / file))
    assert torch.equal(own(signal), theirs(signal))
    assert sorted(report.matched) == sorted(own.state_dict())
    assert (report.missing, report.mismatched) == ([], [])
    n = len(own.state_dict())
    assert str(report).startswith(f"{n} of {n} keys matched")


@torch.no_grad()
def test_a_state_without_prefix_loads_too(tmp_path):
    theirs, own = make(seed=1), make(seed=2)
    path = tmp_path / "plain.safetensors"
    save_file(theirs.state_dict(), path)
    load_released_weights(own, path)
    signal = torch.randn(2, len(CHANNELS), 16 * PATCH)
    assert torch.equal(own(signal), theirs(signal))


def test_missing_keys_are_counted_and_nothing_is_loaded(tmp_path):
    own, state = make(seed=2), released(make(seed=1))
    before, n = snapshot(own), len(own.state_dict())
    del state["target_encoder.blocks.0.attn.qkv.weight"]
    with pytest.raises(ValueError, match=rf"{n - 1} of {n} keys matched; missing \['blocks.0.attn.qkv.weight'\]"):
        load_released_weights(own, write(state, tmp_path / "a.ckpt"))
    assert unchanged(own, before)


def test_renamed_keys_are_missing_and_unused(tmp_path):
    own, state = make(seed=2), released(make(seed=1))
    before, n = snapshot(own), len(own.state_dict())
    state["target_encoder.position"] = state.pop("target_encoder.summary_token")
    with pytest.raises(ValueError, match=rf"{n - 1} of {n} keys matched; missing \['summary_token'\].*unused 1"):
        load_released_weights(own, write(state, tmp_path / "a.ckpt"))
    assert unchanged(own, before)
    report = load_released_weights(own, tmp_path / "a.ckpt", min_share=0.9)
    assert (report.missing, report.unexpected) == (["summary_token"], ["position"])
    assert torch.equal(own.summary_token, before["summary_token"])
    assert torch.equal(own.norm.weight, state["target_encoder.norm.weight"])


def test_extra_keys_are_listed(tmp_path):
    own, state = make(seed=2), released(make(seed=1))
    state["target_encoder.decoder.weight"] = torch.ones(2)
    report = load_released_weights(own, write(state, tmp_path / "a.ckpt"))
    assert report.unexpected == ["decoder.weight"] and "unused 1" in str(report)


def test_weights_of_another_size_are_refused(tmp_path):
    own = make("tiny1")
    before, n = snapshot(own), len(own.state_dict())
    with pytest.raises(ValueError, match=rf"0 of {n} keys matched.*other shape .*Choose the size"):
        load_released_weights(own, write(released(make("little")), tmp_path / "little.ckpt"))
    assert unchanged(own, before)


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"none\.ckpt is missing: download"):
        load_released_weights(make(), tmp_path / "none.ckpt")


class _Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    path, own = tmp_path / "trap.ckpt", make()
    before = snapshot(own)
    torch.save({"state_dict": released(own), "callback": _Trap(tmp_path / "ran")}, path)
    with pytest.raises(ValueError, match="cannot be read as plain weights"):
        load_released_weights(own, path)
    assert not (tmp_path / "ran").exists() and unchanged(own, before)
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # the trap works where it is not refused
