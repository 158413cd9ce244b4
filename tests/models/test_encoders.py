"""Another encoder is one class: registered, trained in stage 1, found again by its run; bad ones are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from e2llm.app import runs, stages
from e2llm.app.evaluation_stage import head_answers
from e2llm.app.runs import Run, StageMissing
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.models.eegpt import EEGPT, N_PATCHES, PATCH, SFREQ, eegpt_config
from e2llm.models.eegpt_weights import physiological_init
from e2llm.models.encoders import (
    Encoder,
    EncoderConfig,
    check_length,
    config_from,
    config_values,
    encoder_config,
    initialize,
    make_encoder,
    register,
)
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.training import stage1_encoder
from e2llm.training.losses import EmotionEncoder, HeadParams
from e2llm.training.trainer import FitParams


@dataclass(frozen=True)
class LogPowerConfig:
    """Size of the encoder below."""

    width: int = 24
    summary_tokens: int = 2

    @property
    def token_width(self) -> int:
        return self.summary_tokens * self.width


class LogPower(nn.Module):
    """Log power of 0.5 s around each 250 ms, by channel and 2 Hz step up to 44 Hz, mapped linearly to tokens."""

    def __init__(self, config: LogPowerConfig, ch_names: list[str]) -> None:
        super().__init__()
        self.config, self.ch_names = config, list(ch_names)
        self.norm = nn.BatchNorm1d(22 * len(ch_names))
        self.map = nn.Linear(22 * len(ch_names), config.token_width)

    def forward(self, signal_mv: Tensor) -> Tensor:
        padded = nn.functional.pad(signal_mv * 1e3, (PATCH // 2, PATCH // 2))
        pieces = padded.unfold(-1, 2 * PATCH, PATCH) * torch.hann_window(2 * PATCH)  # (batch, channel, 16, 128)
        power = torch.fft.rfft(pieces).abs().square()[..., 1:23] / SFREQ
        features = torch.log(power + 1e-3).permute(0, 2, 1, 3).flatten(2)
        normed = self.norm(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        return self.map(normed).unflatten(-1, (self.config.summary_tokens, -1))


@pytest.fixture(autouse=True)
def known():
    torch.set_num_threads(1)
    register("log-power", LogPowerConfig, LogPower, lengths_s=None)


@pytest.fixture
def run(twin, windows, tmp_path, monkeypatch):
    """A run whose windows are those of the shared twin."""
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    stage = Run.open("other").stage("windows", {}).begin()
    shutil.copytree(Path(windows.data.filename).parent, stage.path / "signal")
    (stage.path / "labels.json").write_text(json.dumps(asdict(SeedVII(twin).label_set)))
    return stage.finish().run


PROTOCOL = {"protocol": "clips", "fold": 0, "n_groups": 4, "normalization": "calibration"}
FIT = FitParams(steps=40, batch_size=16, lr=5e-3, save_steps=10**6)


def test_eegpt_and_another_encoder_keep_to_the_interface():
    for size, changes in (("tiny2", {}), ("log-power", {"width": 8})):
        config = encoder_config(size, **changes)
        encoder = make_encoder(config, ["FZ", "CZ", "OZ"])
        assert isinstance(encoder, Encoder) and isinstance(config, EncoderConfig)
        tokens = encoder(torch.randn(4, 3, N_PATCHES * PATCH) * 0.01)
        assert tokens.shape[:3] == (4, N_PATCHES, config.summary_tokens) and tokens[0, 0].numel() == config.token_width
        assert config_from(config_values(config)) == config


@pytest.mark.parametrize("window_s", [1.0, 2.25, 6.0])
def test_encoders_take_windows_of_other_lengths(window_s):
    for size in ("tiny1", "log-power"):
        encoder = make_encoder(encoder_config(size), ["FZ", "CZ", "OZ"])
        check_length(encoder.config, window_s)
        assert encoder(torch.randn(2, 3, round(window_s * SFREQ)) * 0.01).shape[1] == 4 * window_s


def test_a_time_patch_of_eegpt_is_the_same_in_windows_of_any_length():
    encoder = make_encoder(encoder_config("tiny1"), ["FZ", "CZ", "OZ"]).eval()
    signal = torch.randn(2, 3, N_PATCHES * PATCH) * 0.01
    with torch.no_grad():
        torch.testing.assert_close(encoder(signal[..., : 4 * PATCH]), encoder(signal)[:, :4])


def test_lengths_that_an_encoder_does_not_take_are_refused_with_those_that_would_do():
    @dataclass(frozen=True)
    class Fixed(LogPowerConfig):
        pass

    @dataclass(frozen=True)
    class Two(LogPowerConfig):
        pass

    register("fixed", Fixed, LogPower)
    register("two lengths", Two, LogPower, lengths_s=(1, 2))
    check_length(Fixed(), 4.0)
    check_length(Two(), 2.0)
    for config, window_s, said in (
            (Fixed(), 2.0, r"'fixed' takes windows of 4 s, not of 2 s: run lesson 01 with window_s = 4, or"),
            (Two(), 4.0, r"'two lengths' takes windows of 1 or 2 s, not of 4 s: run lesson 01 with window_s = 1 or 2"),
            (encoder_config("tiny2"), 2.1, r"Windows of 2.1 s are no whole number of time patches of 0.25 s: "
                                           r"window_s = 2 or 2.25 would do")):
        with pytest.raises(ValueError, match=said):
            check_length(config, window_s)


def test_stage_1_refuses_a_length_before_any_work(run):
    @dataclass(frozen=True)
    class OneSecond(LogPowerConfig):
        pass

    register("one second", OneSecond, LogPower, lengths_s=(1,))
    with pytest.raises(ValueError, match="'one second' takes windows of 1 s, not of 4 s"):
        stages.train_encoder(run, stages.open_dataset(run, PROTOCOL), PROTOCOL, "one second", {}, "", FIT, HeadParams(),
                             0)
    assert not (run.path / "encoder").exists()


def test_weights_that_were_pretrained_say_so_where_windows_have_another_length(tmp_path):
    names = ["FZ", "CZ", "OZ"]
    torch.manual_seed(0)
    save_file(EEGPT(eegpt_config("tiny1"), names).state_dict(), tmp_path / "a.safetensors")
    for window_s, said in ((4.0, False), (2.0, True)):
        corpus = SimpleNamespace(windows=SimpleNamespace(ch_names=names, window_s=window_s))
        for weights, told in (("", False), (str(tmp_path / "a.safetensors"), said)):
            sentence = stage1_encoder.new_encoder(corpus, eegpt_config("tiny1"), weights, 0)[1]
            assert ("; EEGPT was pretrained on windows of 4 s, these last 2 s" in sentence) == told


def test_eegpt_is_stored_as_it_always_was():
    """Finished runs are found again: a key that changed would make every one of them stale."""
    config = eegpt_config("tiny2", patch_dropout=0.5)
    assert encoder_config("tiny2", patch_dropout=0.5) == config and config_values(config) == asdict(config)


def test_another_encoder_goes_through_stage_1(run):
    corpus = stages.open_dataset(run, PROTOCOL)
    stage = stages.train_encoder(run, corpus, PROTOCOL, "log-power", {"patch_dropout": 0.0}, "", FIT,
                                 HeadParams(spectral=1.0), 0)
    assert run.require("encoder")["params"]["encoder"] == {"kind": "log-power", "width": 24, "summary_tokens": 2}
    assert run.require("encoder")["facts"]["origin"] == "own start of LogPower"
    tokens, position = stages.load_tokens(run)
    assert tokens.shape == (len(corpus.split.used), N_PATCHES, 48) and len(position) == len(tokens)
    history = np.genfromtxt(stage.path / "history.csv", delimiter=",", names=True)
    assert history["loss"][-1] < history["loss"][0]
    train = corpus.split.train
    assert (head_answers(run, train) == corpus.labels[train]).mean() > 2 / 7
    trained = stages.load_encoder(run, corpus)
    assert isinstance(trained, EmotionEncoder) and isinstance(trained.encoder, LogPower)
    some = corpus.split.used[:3]
    with torch.no_grad():
        again = trained.encoder(corpus.equalize(corpus.windows.data[some], corpus.norm_groups[some])).flatten(2)
    np.testing.assert_allclose(again.numpy(), tokens[:3], atol=1e-5)
    assert isinstance(stages.initial_encoder(run, corpus), LogPower)


def test_a_training_cut_off_leaves_the_last_encoder_and_goes_on_from_its_checkpoint(run, monkeypatch):
    """The invitation of the lessons: one more training with another weight of the loss, stopped half-way."""
    corpus, fit, steps = stages.open_dataset(run, PROTOCOL), replace(FIT, steps=6, save_steps=2), []
    wanted = (run, corpus, PROTOCOL, "log-power", {}, "", fit)
    stages.train_encoder(*wanted, HeadParams(), 0)
    before = {path: path.read_bytes() for path in (run.path / "encoder").iterdir()}
    other = HeadParams(supcon=0.0)
    update = runs.Progress.update

    def cutting(progress, step: int, **facts: object) -> None:
        if progress._label == "stage 1":
            steps.append(step)
            if steps == [1, 2, 3, 4, 5]:
                raise KeyboardInterrupt
        update(progress, step, **facts)

    monkeypatch.setattr(runs.Progress, "update", cutting)
    with pytest.raises(KeyboardInterrupt):
        stages.train_encoder(*wanted, other, 0)
    assert {path: path.read_bytes() for path in (run.path / "encoder").iterdir()} == before
    assert stages.open_dataset(run).predicted_evidence is not None and stages.load_encoder(run, corpus) is not None
    assert stages.train_encoder(*wanted, HeadParams(), 0).done
    resumed = stages.train_encoder(*wanted, other, 0)
    assert steps == [1, 2, 3, 4, 5, 5, 6] and run.require("encoder")["params"]["head"]["supcon"] == 0.0
    weights = (resumed.path / "encoder.safetensors").read_bytes()
    assert weights != before[run.path / "encoder" / "encoder.safetensors"]
    shutil.rmtree(resumed.path)
    whole = stages.train_encoder(*wanted, other, 0)
    assert (whole.path / "encoder.safetensors").read_bytes() == weights


def test_weights_that_changed_under_their_name_make_stage_1_stale(run, tmp_path):
    """The file is what counts, not where it lies."""
    corpus, path, other = stages.open_dataset(run, PROTOCOL), tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(make_encoder(encoder_config("log-power"), corpus.windows.ch_names).state_dict(), path)
    wanted = (run, corpus, PROTOCOL, "log-power", {}, str(path), replace(FIT, steps=1), HeadParams(), 0)
    assert stages.train_encoder(*wanted).done
    before = {key: value.clone() for key, value in stages.initial_encoder(run, corpus).state_dict().items()}
    save_file({key: value + 1 for key, value in before.items()}, other)
    other.replace(path)
    with pytest.raises(StageMissing, match=r"a.safetensors is not what the stage 'encoder' of .* started from"):
        stages.initial_encoder(run, corpus)
    made = run.require("encoder")
    stages.train_encoder(*wanted)
    assert run.require("encoder")["key"] != made["key"]
    assert torch.equal(stages.initial_encoder(run, corpus).state_dict()["map.weight"], before["map.weight"] + 1)


def test_another_encoder_joins_a_language_model_and_is_saved_with_it(tmp_path):
    names = ["FZ", "CZ", "OZ"]
    encoder = make_encoder(encoder_config("log-power"), names).eval()
    tokenizer = make_tokenizer(["What emotion does this show? fear, joy, calm."], 300)
    language = new_language_model(tokenizer, ScratchParams(vocab_size=300), 0)
    language.save_pretrained(tmp_path / "language")
    tokenizer.save_pretrained(tmp_path / "language")
    model = E2LLMForConditionalGeneration.join(language, tokenizer, str(tmp_path / "language"), encoder,
                                               encoder.config.token_width, 2, 0).eval()
    model.save_pretrained(tmp_path / "joined")
    again = E2LLMForConditionalGeneration.from_pretrained(tmp_path / "joined")
    assert isinstance(again.encoder, LogPower) and again.encoder.ch_names == names
    ids = torch.tensor([[*[model.config.eeg_token_id] * model.config.tokens_per_segment,
                         *tokenizer(" fear, joy")["input_ids"]]])
    signal = torch.randn(1, 3, N_PATCHES * PATCH) * 0.01
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids, signal_mv=signal).logits, again(input_ids=ids, signal_mv=signal).logits)


def test_the_start_of_eegpt_is_unchanged():
    corpus = SimpleNamespace(windows=SimpleNamespace(ch_names=["FZ", "CZ", "OZ"]))
    config = eegpt_config("tiny2")
    encoder, initialization = stage1_encoder.new_encoder(corpus, config, "", 5)
    torch.manual_seed(5)
    reference = EEGPT(config, ["FZ", "CZ", "OZ"])
    noise = {key: value.clone() for key, value in reference.state_dict().items()}
    physiological_init(reference)
    assert initialization == "physiological start (no released weights given)"
    assert all(torch.equal(value, reference.state_dict()[key]) for key, value in encoder.state_dict().items())
    own = stage1_encoder.new_encoder(corpus, config, "random", 5)[0]
    assert all(torch.equal(value, noise[key]) for key, value in own.state_dict().items())


def test_weights_of_another_encoder_are_all_found_or_refused(tmp_path):
    config, names = LogPowerConfig(), ["FZ", "CZ"]
    torch.manual_seed(0)
    theirs, own = LogPower(config, names), LogPower(config, names)
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    n_keys = len(own.state_dict())
    assert initialize(own, str(tmp_path / "a.safetensors")) == f"a.safetensors: {n_keys} of {n_keys} keys matched"
    assert torch.equal(own.map.weight, theirs.map.weight)
    with pytest.raises(ValueError, match=r"does not fit LogPower: .*map.weight"):
        initialize(LogPower(replace(config, width=8), names), str(tmp_path / "a.safetensors"))


def test_unknown_names_changes_and_kinds_are_refused():
    with pytest.raises(ValueError, match=r"Unknown encoder 'labram' \(known: tiny1, .*log-power"):
        encoder_config("labram")
    with pytest.raises(ValueError, match=r"'log-power' has no patch_dropout \(it has summary_tokens, width\)"):
        encoder_config("log-power", patch_dropout=0.5)
    with pytest.raises(ValueError, match="'elsewhere' is not known here: import"):
        config_from({"kind": "elsewhere"})
    with pytest.raises(ValueError, match="names another encoder"):
        register("tiny2", LogPowerConfig, LogPower)
    with pytest.raises(ValueError, match="names another encoder"):
        register("log-power", LogPowerConfig, EEGPT)


def test_what_is_no_encoder_is_refused():
    @dataclass(frozen=True)
    class Config:
        summary_tokens: int = 1
        token_width: int = 4

    register("bare", Config, lambda config, ch_names: nn.Linear(1, 1))
    with pytest.raises(TypeError, match=r"Linear is no encoder: .* ch_names"):
        make_encoder(Config(), ["FZ"])
