"""The encoder has the published sizes, keeps its patches apart, and its losses are those of their formulas."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from e2llm.core.montage import SEED_CHANNELS, eegpt_channels, region_of
from e2llm.models.eegpt import EEGPT, EEGPT_SIZES, N_PATCHES, PATCH, Block, EEGPTConfig, eegpt_config
from e2llm.models.eegpt_weights import physiological_init
from e2llm.training.losses import NO_SOURCE, UNLABELLED, EmotionEncoder, HeadParams, supervised_contrastive_loss

CHANNELS = ["FP1", "FP2", "CZ", "PZ", "O1", "O2"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make(config: EEGPTConfig, ch_names: list[str] = CHANNELS, seed: int = 0) -> EEGPT:
    """An encoder whose weights are large enough that every part of it shows in the output."""
    torch.manual_seed(seed)
    encoder = EEGPT(config, ch_names)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5.0)
    return encoder.eval()


def noise(batch: int, n_channels: int = len(CHANNELS), seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, n_channels, N_PATCHES * PATCH, generator=torch.Generator().manual_seed(seed))


PUBLISHED = [("tiny1", 64, 1), ("tiny2", 64, 4), ("tiny3", 64, 4), ("little", 128, 4)]


@pytest.mark.parametrize("size, width, summary_tokens", PUBLISHED)
def test_shape_of_the_published_sizes(size, width, summary_tokens):
    with torch.no_grad():
        tokens = make(eegpt_config(size))(noise(8))
    assert tokens.shape == (8, 16, summary_tokens, width)
    assert eegpt_config(size).token_width == summary_tokens * width


def test_large_has_the_published_number_of_parameters():
    n = sum(p.numel() for p in EEGPT(eegpt_config("large"), CHANNELS).parameters())
    assert n / 1e6 == pytest.approx(25.29, abs=0.01)


def test_single_values_of_a_size_can_be_replaced():
    assert eegpt_config("tiny2", patch_dropout=0.25) == replace(EEGPT_SIZES["tiny2"], patch_dropout=0.25)
    with pytest.raises(ValueError, match=r"huge.*tiny1.*large"):
        eegpt_config("huge")


@torch.no_grad()
def test_a_patch_reaches_its_own_tokens_only():
    encoder, signal = make(eegpt_config("tiny2")), noise(2)
    before = encoder(signal)
    for patch in (0, 7, 15):
        changed = signal.clone()
        changed[:, 3, patch * PATCH + 10] += 1.0
        differs = (encoder(changed) - before).abs().amax(dim=(0, 2, 3)) > 1e-4
        assert differs.tolist() == [i == patch for i in range(N_PATCHES)]


@pytest.mark.parametrize("depth", [1, 2])
def test_only_summary_tokens_leave_the_last_block_and_nothing_else_changes(depth):
    """Against the plain way: every token through every block, then the summary tokens are picked."""
    config = EEGPTConfig(width=32, depth=depth, heads=4, summary_tokens=3)
    encoder, signal = make(config).double(), noise(2).double() * 0.02

    def plain(signal_mv: torch.Tensor) -> torch.Tensor:
        x = encoder.embed(signal_mv)
        summary = encoder.summary_token.expand(x.shape[0] * x.shape[1], -1, -1)
        tokens = torch.cat([x.flatten(0, 1), summary], dim=1)
        for block in encoder.blocks:
            tokens = block(tokens)
        return encoder.norm(tokens[:, -3:]).unflatten(0, x.shape[:2])

    def gradients(forward) -> list[torch.Tensor]:
        encoder.zero_grad()
        forward(signal).square().sum().backward()
        return [parameter.grad.clone() for parameter in encoder.parameters()]

    torch.testing.assert_close(encoder(signal), plain(signal), atol=1e-12, rtol=0)
    for own, expected in zip(gradients(encoder), gradients(plain), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-9, rtol=1e-9)


def test_dropped_patches_are_not_embedded_and_nothing_else_changes():
    """Against the plain way: every patch is embedded, then some are picked."""
    encoder = make(eegpt_config("tiny2", patch_dropout=0.75, channel_dropout=0.5)).double().train()
    signal = noise(2).double() * 0.02

    def plain(signal_mv: torch.Tensor) -> torch.Tensor:
        x = encoder.embed(signal_mv)
        times, channels = (torch.randperm(n)[:kept].sort().values
                           for n, kept in ((N_PATCHES, N_PATCHES // 4), (len(encoder.ch_names),
                                                                         round(len(encoder.ch_names) / 2))))
        return encoder.summarize(x.index_select(1, times).index_select(2, channels))

    def tokens_and_gradients(forward) -> list[torch.Tensor]:
        encoder.zero_grad()
        torch.manual_seed(3)
        tokens = forward(signal)
        tokens.square().sum().backward()
        return [tokens.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())]

    for own, expected in zip(tokens_and_gradients(encoder), tokens_and_gradients(plain), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_the_last_tokens_of_a_block_with_places_are_those_of_the_whole_block():
    torch.manual_seed(0)
    block, x = Block(EEGPTConfig(width=32, heads=4)).double(), torch.randn(2, 9, 32).double()
    angles = torch.randn(2, 1, 9, 4).double()
    torch.testing.assert_close(block(x, angles, kept=4), block(x, angles)[:, -4:], atol=1e-12, rtol=0)


@torch.no_grad()
def test_swapped_patches_swap_their_tokens():
    encoder, signal = make(eegpt_config("tiny2")), noise(2)
    order = list(range(N_PATCHES))
    order[2], order[11] = order[11], order[2]
    swapped = signal.unflatten(-1, (N_PATCHES, PATCH))[:, :, order].flatten(2)
    expected = encoder(signal)[:, order]
    torch.testing.assert_close(encoder(swapped), expected, atol=1e-5, rtol=1e-5)
    assert (expected[:, 2] - expected[:, 11]).abs().max() > 0.01  # otherwise the swap proves nothing


@torch.no_grad()
def test_channels_are_known_by_name_not_by_row():
    signal, order = noise(2), [3, 0, 5, 1, 4, 2]
    encoder = make(eegpt_config("tiny2"))
    renamed = EEGPT(encoder.config, [CHANNELS[i] for i in order]).eval()
    renamed.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(renamed(signal[:, order]), encoder(signal), atol=1e-5, rtol=1e-5)
    assert (encoder(signal[:, order]) - encoder(signal)).abs().max() > 0.01


def test_unknown_channels_are_named():
    with pytest.raises(ValueError, match=r"\['CB1', 'X9'\]"):
        EEGPT(eegpt_config("tiny1"), ["O1", "CB1", "X9"])


@pytest.mark.parametrize("shape", [(2, 5, 1024), (2, 6, 1000)])
def test_signals_of_another_form_are_refused(shape):
    with pytest.raises(ValueError, match=rf"6 channels.*got \({shape[1]}, {shape[2]}\)"):
        make(eegpt_config("tiny1"))(torch.zeros(shape))


@torch.no_grad()
def test_patch_dropout_keeps_some_patches_in_order_in_training_only():
    encoder, signal = make(eegpt_config("tiny2", patch_dropout=0.25)), noise(2)
    whole = encoder(signal)
    assert whole.shape[1] == N_PATCHES
    kept_sets = set()
    for _ in range(4):
        kept = encoder.train()(signal)
        distance = (kept[0].flatten(1)[:, None] - whole[0].flatten(1)[None]).abs().amax(-1)  # (kept, all)
        at = distance.argmin(dim=1).tolist()
        assert kept.shape[1] == 12 and distance.min(dim=1).values.max() < 1e-4
        assert at == sorted(set(at))
        kept_sets.add(tuple(at))
    assert len(kept_sets) > 1


@torch.no_grad()
def test_channel_dropout_is_an_encoder_of_fewer_channels_in_training_only():
    names, signal = ["FZ", "CZ", "OZ"], noise(1, 3)
    encoder = make(eegpt_config("tiny2", channel_dropout=1 / 3), names)
    with_two = {}
    for pair in itertools.combinations(range(3), 2):
        smaller = EEGPT(encoder.config, [names[i] for i in pair]).eval()
        smaller.load_state_dict(encoder.state_dict())
        with_two[pair] = smaller(signal[:, list(pair)])
    seen = set()
    for _ in range(12):
        tokens = encoder.train()(signal)
        same = [pair for pair, expected in with_two.items() if torch.allclose(tokens, expected, atol=1e-5)]
        assert len(same) == 1
        seen.add(same[0])
    assert len(seen) > 1
    assert not any(torch.allclose(encoder.eval()(signal), expected, atol=1e-3) for expected in with_two.values())


def slow_contrastive(embedding: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Khosla et al. 2020, eq. 2, term by term."""
    z = [row / np.sqrt((row**2).sum()) for row in embedding]
    per_anchor = []
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        if positives:
            below = sum(np.exp(z[i] @ z[a] / temperature) for a in others)
            per_anchor.append(-sum(np.log(np.exp(z[i] @ z[p] / temperature) / below) for p in positives)
                              / len(positives))
    return float(np.mean(per_anchor))


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2, 0, 1], [0, 1, 2, 3, 3, 3, 4, 5]])
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_contrastive_loss_is_its_formula(labels, temperature):
    embedding = np.random.default_rng(2).normal(size=(8, 5)) * np.arange(1, 9)[:, None]
    loss = supervised_contrastive_loss(torch.from_numpy(embedding), torch.tensor(labels), temperature)
    assert float(loss) == pytest.approx(slow_contrastive(embedding, np.array(labels), temperature), rel=1e-6)


def test_contrastive_loss_without_a_positive_is_zero_and_harmless():
    embedding = torch.randn(4, 3, requires_grad=True)
    loss = supervised_contrastive_loss(embedding, torch.arange(4), 0.1)
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(embedding.grad, torch.zeros(4, 3))


def by_moments(model: EmotionEncoder, signal: torch.Tensor) -> np.ndarray:
    """What the spectral head hears: a linear map of mean and mean square of the tokens over time, written out."""
    tokens = model.encoder(signal).flatten(2).double().numpy()
    weight, bias = model.spectral.weight.double().numpy(), model.spectral.bias.double().numpy()
    width = tokens.shape[-1]
    return tokens.mean(axis=1) @ weight[:, :width].T + (tokens**2).mean(axis=1) @ weight[:, width:].T + bias


def test_the_loss_of_the_emotion_encoder_is_the_weighted_sum_of_its_terms():
    params = HeadParams(ce=0.7, supcon=0.2, spectral=1.5, temperature=0.3, label_smoothing=0.1)
    model = EmotionEncoder(make(eegpt_config("tiny1")), n_outputs=3, n_spectral=4, params=params).eval()
    labels, spectral = torch.tensor([0, 1, 2, 0, 1, 1]), torch.randn(6, 4)
    with torch.no_grad():
        out = model(noise(6), labels, spectral)
        guess = by_moments(model, noise(6))
        contrast = model.contrast(out["embedding"]).double().numpy()
    logits = out["logits"].double().numpy()
    log_probability = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.full((6, 3), 0.1 / 3) + 0.9 * np.eye(3)[labels.numpy()]
    expected = {"ce": -(target * log_probability).sum(axis=1).mean(),
                "supcon": slow_contrastive(contrast, labels.numpy(), 0.3),
                "spectral": ((guess - spectral.numpy()) ** 2).mean()}
    for name, value in expected.items():
        assert float(out[name]) == pytest.approx(value, rel=1e-4)
    total = 0.7 * expected["ce"] + 0.2 * expected["supcon"] + 1.5 * expected["spectral"]
    assert float(out["loss"]) == pytest.approx(total, rel=1e-4)


@torch.no_grad()
def test_without_labels_there_is_no_loss_and_without_spectral_targets_no_such_term():
    signal = noise(2)
    assert set(EmotionEncoder(make(eegpt_config("tiny1")), 3, 2)(signal)) == {"logits", "embedding"}
    assert "spectral" not in EmotionEncoder(make(eegpt_config("tiny1")), 3)(signal, torch.tensor([0, 1]),
                                                                            torch.zeros(2, 2))


@torch.no_grad()
def test_samples_without_a_label_and_targets_that_were_not_measured_are_no_part_of_the_loss():
    torch.manual_seed(0)
    model = EmotionEncoder(make(eegpt_config("tiny1")), n_outputs=3, n_spectral=4).eval()
    signal, labels, spectral = noise(5), torch.tensor([0, 1, 1, UNLABELLED, UNLABELLED]), torch.randn(5, 4)
    spectral[3, 2:] = float("nan")
    out, explanations = model(signal, labels, spectral), model(signal[:3], labels[:3], spectral[:3])
    for term in ("ce", "supcon"):
        assert float(out[term]) == pytest.approx(float(explanations[term]), rel=1e-5)
    wanted = (by_moments(model, signal) - spectral.numpy()) ** 2
    assert float(out["spectral"]) == pytest.approx(np.nansum(wanted) / 18, rel=1e-5)


@torch.no_grad()
def test_a_change_is_held_against_what_was_measured_of_the_same_change():
    """An error that a window and its band-edited window share costs nothing in the term of change."""
    torch.manual_seed(0)
    labels, source_index = torch.tensor([0, 1, UNLABELLED, UNLABELLED, UNLABELLED]), torch.tensor([NO_SOURCE, NO_SOURCE,
                                                                                                   1, 0, NO_SOURCE])
    model = EmotionEncoder(make(eegpt_config("tiny1")), n_outputs=2, n_spectral=3, params=HeadParams(change=7.0)).eval()
    signal, spectral = noise(5), torch.randn(5, 3)
    spectral[2, 2] = float("nan")
    out, plain = model(signal, labels, spectral, source_index), model(signal, labels, spectral)
    predicted_evidence, measured = by_moments(model, signal), spectral.numpy()
    errors = [(predicted_evidence[copy, k] - predicted_evidence[window, k]) - (measured[copy, k] - measured[window, k])
              for copy, window in ((2, 1), (3, 0)) for k in range(3) if np.isfinite(measured[copy, k])]
    assert len(errors) == 5
    assert float(out["change"]) == pytest.approx(np.mean(np.square(errors)), rel=1e-4)
    assert float(out["loss"]) == pytest.approx(float(plain["loss"]) + 7.0 * np.mean(np.square(errors)), rel=1e-4)
    shifted = model(signal, labels, spectral + torch.tensor([5.0, -5.0, 5.0]), source_index)
    assert float(shifted["change"]) == pytest.approx(float(out["change"]), rel=1e-4)
    assert float(shifted["spectral"]) > 4 * float(out["spectral"])
    assert "change" not in plain and "change" not in model(signal, labels, spectral, torch.full((5,), NO_SOURCE))


CAP = eegpt_channels(list(SEED_CHANNELS))


def sine(region: str, frequency: float, phase: float) -> torch.Tensor:
    """10 microvolts of one frequency over one region, in millivolts."""
    times = torch.arange(N_PATCHES * PATCH) / 256
    signal = torch.zeros(1, len(CAP), len(times))
    for row, name in enumerate(CAP):
        if region_of(name) == region:
            signal[0, row] = 0.01 * torch.sin(2 * torch.pi * frequency * times + phase)
    return signal


def started(config: EEGPTConfig) -> EEGPT:
    torch.manual_seed(0)
    encoder = EEGPT(config, CAP)
    physiological_init(encoder)
    return encoder.eval()


@torch.no_grad()
@pytest.mark.parametrize("size", ["tiny2", "tiny3", "little"])
def test_the_physiological_initialization_reads_rhythm_and_place_but_not_phase(size):
    encoder = started(eegpt_config(size))

    def pooled(*args) -> torch.Tensor:
        return encoder(sine(*args)).mean(dim=1).flatten()

    alpha = pooled("occipital", 10.0, 0.0)
    by_phase = max(float((alpha - pooled("occipital", 10.0, phase)).norm()) for phase in (0.7, 1.6, 2.5))
    for other in (("frontal", 22.0, 0.0), ("occipital", 22.0, 0.0), ("frontal", 10.0, 0.0)):
        assert float((alpha - pooled(*other)).norm()) > 5 * by_phase, other


@pytest.mark.parametrize("config", [EEGPTConfig(32, 2, 2, 4), EEGPTConfig(64, 2, 8, 4), EEGPTConfig(64, 1, 4, 4)],
                         ids=["width", "heads", "depth"])
def test_a_physiological_start_needs_room(config):
    with pytest.raises(ValueError, match=r"width >= 46, 16 dimensions a head and two layers"):
        started(config)
