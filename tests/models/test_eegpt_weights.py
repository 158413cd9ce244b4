"""Released weights load whole, with every key accounted for, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from e2llm.core.montage import EEGPT_VOCABULARY
from e2llm.models.eegpt import EEGPT, PATCH, EEGPTConfig, eegpt_config
from e2llm.models.eegpt_weights import (
    RELEASED_CHANNELS,
    initialize_encoder,
    load_released_weights,
    read_checkpoint,
    relative_amplitude,
)

CHANNELS = ["FZ", "CZ", "PZ", "OZ"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make(size: str = "tiny1", seed: int = 0, channels: list[str] = CHANNELS) -> EEGPT:
    torch.manual_seed(seed)
    return EEGPT(eegpt_config(size), channels).eval()


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


def hub_folder(encoder: EEGPT, folder: Path, **config: object) -> Path:
    """The layout of braindecode's hub repositories: config.json, model.safetensors with a buffer and a head."""
    folder.mkdir()
    state = {f"target_encoder.{key}": value.clone() for key, value in encoder.state_dict().items()}
    head = {"chans_id": torch.zeros(1, 4, dtype=torch.long), "final_layer.probe1.bias": torch.zeros(16)}
    save_file({**state, **head}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"patch_size": 64, "patch_stride": 64, "sfreq": 256, **config}))
    return folder


@torch.no_grad()
def test_a_hub_folder_gives_its_encoder_and_its_head_is_set_aside(tmp_path):
    theirs, own = make(seed=1), make(seed=2)
    report = load_released_weights(own, hub_folder(theirs, tmp_path / "eegpt-pretrained"))
    signal = torch.randn(2, len(CHANNELS), 16 * PATCH)
    assert torch.equal(own(signal), theirs(signal))
    assert len(report.matched) == report.total and report.unexpected == []
    assert read_checkpoint(tmp_path / "eegpt-pretrained").aside == ["chans_id", "final_layer"]


def test_another_stride_or_rate_in_a_config_is_said(tmp_path):
    report = load_released_weights(make(seed=2), hub_folder(make(seed=1), tmp_path / "hub", patch_stride=32,
                                                            sfreq=200.0))
    assert "states a stride of 32" in str(report) and "states 200 Hz" in str(report)


def test_a_hub_id_that_cannot_be_fetched_says_so_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_,
                        **__: (_ for _ in ()).throw(ConnectionError("no route")))
    own = make()
    before = snapshot(own)
    with pytest.raises(ValueError, match=r"'braindecode/eegpt-pretrained' is neither .*ConnectionError: no "
                                         r"route.*download it"):
        load_released_weights(own, "braindecode/eegpt-pretrained")
    assert unchanged(own, before)


def test_a_hub_id_is_fetched_and_loaded(tmp_path, monkeypatch):
    folder, asked = hub_folder(make(seed=1), tmp_path / "cache"), []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(folder))
    load_released_weights(make(seed=2), "braindecode/eegpt-pretrained")
    assert asked == ["braindecode/eegpt-pretrained"]


@torch.no_grad()
def test_58_rows_find_their_places_by_name_and_the_others_stay(tmp_path):
    channels = ["FP1", "AF3", "PO7", "PO3", "O2", "AF7"]
    theirs, own = make(seed=1, channels=channels), make(seed=2, channels=channels)
    before, state = snapshot(own), released(theirs)
    places = [EEGPT_VOCABULARY.index(name) for name in RELEASED_CHANNELS]
    assert len(places) == 58
    state["target_encoder.chan_embed.weight"] = state["target_encoder.chan_embed.weight"][places].clone()
    report = load_released_weights(own, write(state, tmp_path / "58.ckpt"))
    assert len(report.matched) == report.total
    assert report.untrained == ["AF7"] and "never trained ['AF7']" in str(report)
    rows = own.chan_embed.weight
    assert torch.equal(rows[places], theirs.chan_embed.weight[places])
    af7 = EEGPT_VOCABULARY.index("AF7")
    assert torch.equal(rows[af7], before["chan_embed.weight"][af7])
    signal = torch.randn(2, 6, 16 * PATCH)
    signal[:, 5] = 0.0
    five = EEGPT(own.config, channels[:5]).eval()
    five.load_state_dict(own.state_dict())
    reference = EEGPT(theirs.config, channels[:5]).eval()
    reference.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(five(signal[:, :5]), reference(signal[:, :5]), atol=1e-6, rtol=0)


def test_rows_that_nothing_names_are_refused(tmp_path):
    state = released(make(seed=1))
    state["target_encoder.chan_embed.weight"] = torch.zeros(40, 64)
    with pytest.raises(ValueError, match=r"other shape \['chan_embed.weight'\]"):
        load_released_weights(make(seed=2), write(state, tmp_path / "40.ckpt"))


def test_rows_named_by_the_file_find_their_places(tmp_path):
    theirs, own = make(seed=1), make(seed=2)
    state, names = dict(theirs.state_dict()), ["Oz", "FZ", "CB1", "Cz", "PZ"]
    order = [EEGPT_VOCABULARY.index(name) for name in ("OZ", "FZ", "OZ", "CZ", "PZ")]
    state["chan_embed.weight"] = state["chan_embed.weight"][order].clone()
    save_file(state, tmp_path / "five.safetensors", metadata={"channel_rows": json.dumps(names)})
    report = load_released_weights(own, tmp_path / "five.safetensors")
    signal = torch.randn(2, len(CHANNELS), 16 * PATCH)
    with torch.no_grad():
        assert len(report.matched) == report.total and torch.equal(own(signal), theirs(signal))


def test_channels_that_a_pretraining_never_met_are_named(tmp_path):
    theirs = make(seed=1)
    save_file(theirs.state_dict(), tmp_path / "own.safetensors",
              metadata={"trained_channels": json.dumps(["FZ", "CZ"]), "unit": json.dumps("mV")})
    assert load_released_weights(make(seed=2), tmp_path / "own.safetensors").untrained == ["PZ", "OZ"]


@pytest.mark.parametrize("size", ["tiny3", "little", "large"])
def test_weights_of_another_size_name_the_size_that_fits(tmp_path, size):
    path = write(released(make(size)), tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"Choose the size that the weights were made with: encoder_size '{size}' "
                                         rf"\(\d+ wide, 8 layers"):
        load_released_weights(make("tiny1"), path)


def test_weights_of_no_published_size_say_their_form(tmp_path):
    torch.manual_seed(0)
    odd = EEGPT(EEGPTConfig(96, 3, 4, 2), CHANNELS)
    with pytest.raises(ValueError, match=r"no published size has their form \(96 wide, 3 layers, 2 summary tokens\)"):
        load_released_weights(make(), write(released(odd), tmp_path / "a.ckpt"))


def test_patches_of_another_length_are_refused(tmp_path):
    state = released(make(seed=1))
    state["target_encoder.patch_embed.proj.weight"] = torch.zeros(64, 1, 1, 32)
    with pytest.raises(ValueError, match=r"patches of 32 samples, this encoder of 64"):
        load_released_weights(make(), write(state, tmp_path / "a.ckpt"), min_share=0.1)


@pytest.mark.parametrize("places, stride", [(31, 32), (61, 16), (121, 8)])
def test_places_in_time_that_overlap_are_refused(tmp_path, places, stride):
    state = released(make(seed=1)) | {"predictor.time_embed": torch.zeros(1, places, 64)}
    with pytest.raises(ValueError, match=rf"'predictor.time_embed' has {places} places in 4 s, .* stride of {stride} "
                                         rf"samples, not 64"):
        load_released_weights(make(), write(state, tmp_path / "a.ckpt"))


def test_places_in_time_that_do_not_overlap_are_fine(tmp_path):
    state = released(make(seed=1)) | {"predictor.time_embed": torch.zeros(1, 16, 64),
                                      "predictor.pos_embed": torch.zeros(1, 1, 4, 64)}
    load_released_weights(make(), write(state, tmp_path / "a.ckpt"))


def test_another_stated_unit_is_refused(tmp_path):
    save_file(make(seed=1).state_dict(), tmp_path / "uv.safetensors", metadata={"unit": json.dumps("uV")})
    with pytest.raises(ValueError, match=r"made for signals in 'uV'; this kit gives millivolts"):
        load_released_weights(make(), tmp_path / "uv.safetensors")


def test_a_kernel_made_for_microvolts_is_noticed_in_millivolts(tmp_path):
    theirs = make(seed=1)
    initialize_encoder(theirs, "scaled")
    assert relative_amplitude(theirs.state_dict()) == pytest.approx(1.0)
    save_file(theirs.state_dict(), tmp_path / "mv.safetensors")
    assert "another unit" not in str(load_released_weights(make(), tmp_path / "mv.safetensors"))
    with torch.no_grad():
        theirs.patch_embed.proj.weight.mul_(1e-3)  # the same tokens from microvolts
    save_file(theirs.state_dict(), tmp_path / "uv.safetensors")
    assert "changes its tokens by 0.001" in str(load_released_weights(make(), tmp_path / "uv.safetensors"))


def test_every_key_that_did_not_match_is_listed(tmp_path):
    own, state = make(seed=2), released(make(seed=1))
    lost = [key for key in own.state_dict() if ".mlp." in key]
    for key in lost:
        state[f"target_encoder.other_{key}"] = state.pop(f"target_encoder.{key}")
    state["target_encoder.norm.bias"] = torch.zeros(3)
    path = write(state, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"missing .* and {len(lost) - 5} more, other shape \['norm.bias'\], unused "
                                         rf"{len(lost)}"):
        load_released_weights(own, path, min_share=0.8)
    report = load_released_weights(own, path, min_share=0.5)
    assert report.rest == [*(f"{key}: missing" for key in lost), "norm.bias: mismatched",
                           *(f"other_{key}: unexpected" for key in lost)]


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"epoch": 3}])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="holds no named tensors"):
        load_released_weights(make(), tmp_path / "a.ckpt")


def test_starts_are_what_they_say():
    noise, same, predicted_evidence = (make("tiny2", seed=3) for _ in range(3))
    assert initialize_encoder(same, "random").startswith("random start") and unchanged(same, snapshot(noise))
    initialize_encoder(predicted_evidence, "scaled")
    changed = [key for key, value in predicted_evidence.state_dict().items()
               if not torch.equal(value, noise.state_dict()[key])]
    assert changed == ["patch_embed.proj.weight"]
    assert initialize_encoder(make("tiny2", seed=3), "").startswith("physiological start")
