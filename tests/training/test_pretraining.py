"""Masked pretraining hides what the paper hides, follows its momentum, and resumes as if never cut off."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from e2llm.app import stages
from e2llm.app.pretraining_stage import pretrain
from e2llm.app.runs import Run
from e2llm.core.files import checksum, read_json, write_json
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.models.eegpt import EEGPT, N_PATCHES, PATCH, eegpt_config
from e2llm.models.eegpt_weights import RELEASED_CHANNELS, load_released_weights, read_checkpoint
from e2llm.training import stage1_encoder
from e2llm.training.pretraining import (
    RECONSTRUCTORS,
    MaskedPretraining,
    PretrainParams,
    Readouts,
    draw_masks,
    epochs,
    explained,
    new_model,
    rebuilt_patches,
)
from e2llm.training.trainer import FitParams

CHANNELS = ["FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2"]
PARAMS = PretrainParams()
FEW = PretrainParams(shown_channels=0.4)
PROTOCOL = {"protocol": "subjects", "fold": 0, "n_groups": 3, "normalization": "population"}
FIT = FitParams(steps=6, batch_size=4, lr=2e-3, save_steps=10**6)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signal(batch: int = 3, seed: int = 1) -> torch.Tensor:
    return 0.01 * torch.randn(batch, len(CHANNELS), N_PATCHES * PATCH, generator=generator(seed))


@pytest.fixture(params=RECONSTRUCTORS)
def model(request) -> MaskedPretraining:
    return new_model(CHANNELS, eegpt_config("tiny1"), "scaled", replace(FEW, reconstructor=request.param), seed=0)


def test_half_of_the_times_and_12_of_58_channels_are_shown_as_in_the_paper():
    masks = draw_masks(5, len(RELEASED_CHANNELS), PARAMS, generator())
    assert masks.times.shape == (5, 8) and masks.channels.shape == (5, 8, 12)
    for times, channels, hidden in zip(*masks, strict=True):
        assert times.tolist() == sorted(set(times.tolist()))
        assert all(len(set(row.tolist())) == 12 for row in channels)
        shown = {(int(t), int(c)) for t, row in zip(times, channels, strict=True) for c in row}
        pairs = [tuple(pair) for pair in hidden.tolist()]
        assert len(set(pairs)) == len(pairs) and not shown & set(pairs)
        gone = set(range(16)) - set(times.tolist())
        assert {pair for pair in pairs if pair[0] in gone} == {(t, c) for t in gone for c in range(58)}
        assert len(pairs) == 8 * 58 + 8 * round(0.2 * 46)
    assert len({tuple(row.tolist()) for row in masks.times}) > 1  # windows hide different times


def test_a_limit_picks_among_the_hidden_patches():
    whole = draw_masks(4, 58, PARAMS, generator())
    few = draw_masks(4, 58, replace(PARAMS, drawn=30), generator())
    assert torch.equal(few.channels, whole.channels) and few.hidden.shape == (4, 30, 2)
    for picked, pairs in zip(few.hidden.tolist(), whole.hidden.tolist(), strict=True):
        assert {tuple(p) for p in picked} <= {tuple(p) for p in pairs} and len({tuple(p) for p in picked}) == 30


@pytest.mark.parametrize("params", [PretrainParams(hidden_times=0.0), PretrainParams(hidden_times=1.0),
                                    PretrainParams(shown_channels=1.0)])
def test_masks_that_hide_all_or_nothing_are_refused(params):
    with pytest.raises(ValueError, match="hide some of each, and not all"):
        draw_masks(2, 10, params, generator())


@torch.no_grad()
def test_hidden_samples_reach_neither_predictor_nor_reconstructor(model):
    for weight in model.reconstructor.parameters():
        weight.add_(0.02 * torch.randn(weight.shape, generator=generator()))  # the linear one starts at zero
    window, masks = signal(), draw_masks(3, len(CHANNELS), FEW, generator())
    shown = torch.zeros(3, N_PATCHES, len(CHANNELS), dtype=torch.bool)
    shown[torch.arange(3)[:, None, None], masks.times[:, :, None], masks.channels] = True
    mask = shown.transpose(1, 2).repeat_interleave(PATCH, dim=2)
    other = torch.where(mask, window, signal(seed=9))
    assert (other != window).float().mean() > 0.5
    before, after = model.reconstruct(window, *masks), model.reconstruct(other, *masks)
    assert torch.equal(model.encode(window, masks.times, masks.channels),
                       model.encode(other, masks.times, masks.channels))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    changed = torch.where(mask, signal(seed=9), window)
    assert not torch.allclose(model.reconstruct(changed, *masks)[1], before[1])


@torch.no_grad()
def test_the_loss_is_that_of_its_formulas(model):
    window, masks = signal(), draw_masks(3, len(CHANNELS), FEW, generator())
    out = model(window, *masks)
    predicted, drawn = (value.double().numpy() for value in model.reconstruct(window, *masks))
    tokens = model.target_encoder.eval()(window).double().numpy()
    tokens = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
    errors = []
    for b, pairs in enumerate(masks.hidden.tolist()):
        for i, (t, c) in enumerate(pairs):
            patch = window[b, c, t * PATCH : (t + 1) * PATCH].double().numpy()
            errors.append(((drawn[b, i] - (patch - patch.mean()) / patch.std()) ** 2).mean())
    align = ((predicted - tokens) ** 2).mean()
    assert float(out["align"]) == pytest.approx(align, rel=1e-4)
    assert float(out["rebuild"]) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(out["loss"]) == pytest.approx(align + np.mean(errors), rel=1e-4)


def test_an_unknown_reconstructor_is_refused():
    with pytest.raises(ValueError, match=r"Unknown reconstructor 'none' \(known: transformer, linear\)"):
        PretrainParams(reconstructor="none")


@torch.no_grad()
def test_linear_readouts_are_products_of_a_channel_s_weights_with_the_tokens_of_its_time_patch():
    readouts, rows = Readouts(eegpt_config("tiny2")), torch.tensor([5, 0, 7])
    tokens, hidden = torch.randn(2, N_PATCHES, 4, 64, generator=generator()), torch.tensor([[[3, 2]], [[15, 0]]])
    assert not readouts(tokens, hidden, rows).any()  # nothing is known, nothing is drawn
    readouts.weight.normal_(generator=generator(1))
    for drawn, own, (time, channel) in zip(readouts(tokens, hidden, rows)[:, 0], tokens, hidden[:, 0], strict=True):
        expected = own[time].flatten().double().numpy() @ readouts.weight[rows[channel]].double().numpy()
        np.testing.assert_allclose(drawn.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_linear_readouts_learn_what_neighbors_tell():
    """Channels that mix three sources: a hidden one can be predicted from the shown ones, also in unseen windows."""
    mask = replace(FEW, rebuilt_beside=1.0, drawn=40, reconstructor="linear")
    model, mixing = new_model(CHANNELS, eegpt_config("tiny2"), "scaled", mask,
                              seed=0), torch.randn(len(CHANNELS), 3, generator=generator())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)

    def losses(seed: int) -> dict[str, torch.Tensor]:
        sources = torch.nn.functional.avg_pool1d(torch.randn(8, 3, N_PATCHES * PATCH + 14, generator=generator(seed)),
                                                 15, 1)
        return model(0.02 * mixing @ sources, *draw_masks(8, len(CHANNELS), mask, generator(seed)))

    for step in range(1, 251):
        optimizer.zero_grad()
        losses(step)["loss"].backward()
        optimizer.step()
        model.follow(step, 250)
    with torch.no_grad():
        assert float(losses(10_000)["rebuild"]) < 0.9


def test_only_the_target_takes_no_gradient(model):
    model(signal(), *draw_masks(3, len(CHANNELS), FEW, generator()))["loss"].backward()
    with_gradient = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {"encoder", "predictor", "reconstructor"}


@torch.no_grad()
def test_the_momentum_encoder_follows_in_closed_form(model):
    start = {key: value.clone() for key, value in model.target_encoder.state_dict().items()}
    for parameter in model.encoder.parameters():
        parameter.add_(1.0)
    steps, left = 5, 1.0
    for step in range(1, steps + 1):
        model.follow(step, steps)
        left *= 0.996 + 0.004 * (step - 1) / steps
    for key, value in model.target_encoder.state_dict().items():
        torch.testing.assert_close(value, start[key] + (1.0 - left), atol=1e-6, rtol=1e-5)


def test_an_epoch_uses_every_window_once():
    order = epochs(np.arange(10, 22), FitParams(steps=9, batch_size=4, lr=1.0))
    assert len(order) == 36 and all(sorted(part) == list(range(10, 22)) for part in np.split(order, 3))
    assert not np.array_equal(order[:12], order[12:24])


def test_a_few_windows_can_be_learned_by_heart(model):
    """Reconstruction learns: the same windows and masks again and again."""
    times = torch.arange(N_PATCHES * PATCH) / 256
    window = 0.01 * torch.stack([torch.sin(2 * torch.pi * f * times + torch.arange(len(CHANNELS))[:, None])
                                 for f in (4.0, 8.0)])
    masks, losses = draw_masks(2, len(CHANNELS), replace(FEW, drawn=20), generator()), []
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(1, 81):
        out = model(window, *masks)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        model.follow(step, 80)
        losses.append((float(out["align"].detach()), float(out["rebuild"].detach())))
    assert losses[-1][0] < 0.5 * losses[0][0] and losses[-1][1] < 0.7 * losses[0][1]


# ---------------------------------------------------------------- as a stage


@pytest.fixture
def run(twin, windows, tmp_path, monkeypatch):
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    return make_run("one", twin, windows)


def make_run(name: str, twin: Path, windows) -> Run:
    stage = Run.open(name).stage("windows", {}).begin()
    shutil.copytree(Path(windows.data.filename).parent, stage.path / "signal")
    (stage.path / "labels.json").write_text(json.dumps(asdict(SeedVII(twin).label_set)))
    return stage.finish().run


SMALL = PretrainParams(drawn=12)


def test_the_stage_leaves_an_encoder_that_stage_1_takes(run):
    corpus = stages.open_dataset(run, PROTOCOL)
    stage = pretrain(run, corpus, PROTOCOL, "tiny1", FIT, SMALL)
    path = stage.path / "encoder.safetensors"
    encoder = EEGPT(eegpt_config("tiny1"), corpus.windows.ch_names)
    report = load_released_weights(encoder, path)
    assert len(report.matched) == report.total and report.untrained == []
    assert read_checkpoint(path).facts == {"trained_channels": corpus.windows.ch_names, "unit": "mV"}
    again = stage1_encoder.new_encoder(corpus, eegpt_config("tiny1"), str(path), 3)[0]
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in encoder.state_dict().items())
    facts = run.require("pretraining")["facts"]
    assert set(facts["people"]) == set(corpus.subjects[corpus.split.train])
    assert facts["windows"] == len(corpus.split.train)
    assert not set(facts["people"]) & set(corpus.subjects[corpus.split.test])
    made = (stage.path / "stage.json").stat().st_mtime_ns
    assert pretrain(run, corpus, PROTOCOL, "tiny1", FIT, SMALL).done and (stage.path
                                                                          / "stage.json").stat().st_mtime_ns == made


def test_windows_of_test_people_play_no_part(run, twin, windows, monkeypatch):
    corpus = stages.open_dataset(run, PROTOCOL)
    first = pretrain(run, corpus, PROTOCOL, "tiny1", FIT, SMALL)
    weights = (first.path / "encoder.safetensors").read_bytes()
    other = make_run("two", twin, windows)
    path = other.path / "windows" / "signal" / "data.npy"
    data = np.load(path)
    data[corpus.split.test] = 1e3
    np.save(path, data)
    record = read_json(other.path / "windows" / "stage.json")
    record["files"]["signal/data.npy"]["sha256"] = checksum(path)  # or the stage would count as damaged
    write_json(other.path / "windows" / "stage.json", record)
    again = pretrain(other, stages.open_dataset(other, PROTOCOL), PROTOCOL, "tiny1", FIT, SMALL)
    assert (again.path / "encoder.safetensors").read_bytes() == weights


def test_using_other_parts_is_declared_in_the_record(run):
    corpus = stages.open_dataset(run, PROTOCOL)
    with pytest.raises(ValueError, match=r"parts must name some of train, val, test, not \['all'\]"):
        pretrain(run, corpus, PROTOCOL, "tiny1", FIT, SMALL, parts=("all",))
    pretrain(run, corpus, PROTOCOL, "tiny1", replace(FIT, steps=2), SMALL, parts=("train", "test"))
    record = run.require("pretraining")
    assert record["params"]["parts"] == ["test", "train"]
    assert record["facts"]["seen"] == "signals of test and train windows, no label"


class _CutOff(Exception):
    pass


def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(run, twin, windows, monkeypatch):
    corpus, schedule = stages.open_dataset(run, PROTOCOL), replace(FIT, save_steps=3)
    whole = (pretrain(run, corpus, PROTOCOL, "tiny1", schedule, SMALL).path / "encoder.safetensors").read_bytes()
    other = make_run("cut", twin, windows)
    corpus = stages.open_dataset(other, PROTOCOL)
    follow = MaskedPretraining.follow

    def stop(self, step, steps):
        if step == 5:
            raise _CutOff
        follow(self, step, steps)

    monkeypatch.setattr(MaskedPretraining, "follow", stop)
    with pytest.raises(_CutOff):
        pretrain(other, corpus, PROTOCOL, "tiny1", schedule, SMALL)
    monkeypatch.setattr(MaskedPretraining, "follow", follow)
    stage = pretrain(other, corpus, PROTOCOL, "tiny1", schedule, SMALL)
    assert (stage.path / "encoder.safetensors").read_bytes() == whole
    assert other.require("pretraining")["attempts"] == 2


def test_what_is_explained_is_one_minus_the_error(run):
    corpus = stages.open_dataset(run, PROTOCOL)
    model = new_model(corpus.windows.ch_names, eegpt_config("tiny1"), "scaled", SMALL, seed=0)
    with torch.no_grad():
        for parameter in (model.reconstructor.leave.weight, model.reconstructor.leave.bias):
            parameter.zero_()  # draws zeros, so explains nothing
    found = explained(model, corpus, corpus.split.val, seed=0)
    assert found == pytest.approx({"hidden_times": 0.0, "beside": 0.0}, abs=1e-3)


def test_patches_that_are_shown_are_those_of_the_window(run):
    corpus = stages.open_dataset(run, PROTOCOL)
    model = new_model(corpus.windows.ch_names, eegpt_config("tiny1"), "scaled", FEW, seed=0)
    found = rebuilt_patches(model, corpus, 5, seed=0, n=3)
    assert list(found) == ["beside shown channels", "hidden time patch"] and all(len(patches) == 3
                                                                                 for patches in found.values())
    signal = corpus.equalize(corpus.windows.data[[5]], corpus.norm_groups[[5]])[0].double().numpy()
    for name, original, drawn in (patch for patches in found.values() for patch in patches):
        channel, time = name.removesuffix(" s").split(", ")
        start = round(float(time) * 256)
        patch = signal[corpus.windows.ch_names.index(channel), start : start + PATCH]
        np.testing.assert_allclose(original, (patch - patch.mean()) / patch.std(), atol=1e-3)
        assert drawn.shape == (PATCH,)
    again = rebuilt_patches(model, corpus, 5, seed=0, n=3)
    assert [patch[0] for patches in again.values() for patch in patches] == [patch[0] for patches in found.values()
                                                                             for patch in patches]
