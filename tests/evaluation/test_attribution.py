"""Attributions are what calculus says they are, and the measures that judge them can tell right from wrong."""

from __future__ import annotations

import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from e2llm.core.bands import BANDS
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import eegpt_channels, region_of
from e2llm.data.emotion_effects import EFFECTS
from e2llm.evaluation.attribution import (
    IncompleteAttribution,
    areas,
    decompose,
    deletion_insertion,
    explain,
    generator_cells,
    head_score,
    language_score,
    region_agreement,
    to_patches,
    topography,
)
from e2llm.models.eegpt import EEGPT, eegpt_config
from e2llm.models.eegpt_weights import physiological_init
from e2llm.models.inference import InferenceEngine, score_options
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.items import predict
from e2llm.tasks.segments import Segment
from e2llm.training.losses import EmotionEncoder
from e2llm.viz.plots import emotion_topographies

SFREQ, SAMPLES = 256, 1024
CHANNELS = ["F3", "F4", "FZ", "C3", "C4", "T7", "T8", "P3", "P4", "O1", "OZ", "O2"]
TIMES = torch.arange(SAMPLES) / SFREQ
SHARES = np.linspace(0, 1, 11)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def noise(n: int, channels: int = 3, samples: int = SAMPLES, seed: int = 0) -> torch.Tensor:
    """Ten microvolts of white noise, in millivolts."""
    return 0.01 * torch.randn(n, channels, samples, generator=torch.Generator().manual_seed(seed))


def linear(weight: torch.Tensor):
    return lambda x: torch.stack([(weight * x).sum((1, 2)), -(weight * x).sum((1, 2))], dim=1)


def alpha_score(channel: int, gain: float = 1.0):
    """Says label 1 the louder alpha is in one channel, measured in each quarter second by sine and cosine; deaf to all
    else."""
    wave = torch.stack([torch.sin(2 * torch.pi * 12 * TIMES), torch.cos(2 * torch.pi * 12 * TIMES)])

    def score(x: torch.Tensor) -> torch.Tensor:
        level = (x[:, channel, None] * wave).unflatten(-1, (16, 64)).mean(-1).square().sum((1, 2))
        return torch.stack([torch.zeros_like(level), gain * 1e3 * level - 1.0], dim=1).log_softmax(-1)

    return score


def with_alpha(n: int, channel: int, channels: int = 4, seed: int = 0) -> torch.Tensor:
    """Noise with 12 Hz in one channel."""
    signal = noise(n, channels, seed=seed)
    signal[:, channel] += 0.03 * torch.sin(2 * torch.pi * 12 * TIMES)
    return signal


# --- closed forms


def test_a_linear_score_is_shared_out_as_weight_times_signal():
    weight, x, start = torch.randn(3, 64), noise(4, samples=64), noise(4, samples=64, seed=1)
    for target, sign in ((0, 1.0), (1, -1.0)):
        np.testing.assert_allclose(explain(linear(weight), x, [target] * 4, steps=1).samples, sign * weight * x,
                                   rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(explain(linear(weight), x, [0, 0, 1, 0], start).samples[2],
                               -(weight * (x - start))[2], rtol=1e-4, atol=1e-7)


def test_a_quadratic_and_a_cubic_score_have_the_textbook_attributions():
    x, start = noise(2, samples=64), noise(2, samples=64, seed=1)
    square = explain(lambda s: s.square().sum((1, 2))[:, None], x, [0, 0], start, steps=1).samples
    np.testing.assert_allclose(square, x**2 - start**2, atol=1e-9)
    cube = explain(lambda s: s.pow(3).sum((1, 2))[:, None], x, [0, 0], start, steps=2).samples
    np.testing.assert_allclose(cube, x**3 - start**3, atol=1e-10)
    # Of a product each factor gets half.
    product = explain(lambda s: (s[:, 0] * s[:, 1]).sum(1)[:, None], x, [0, 0]).samples
    np.testing.assert_allclose(product[:, :2], (0.5 * x[:, :1] * x[:, 1:2]).expand(2, 2, 64), atol=1e-9)
    assert not product[:, 2].any()


def test_batches_change_nothing():
    score, x = alpha_score(1), with_alpha(5, 1)
    for one, other in zip(explain(score, x, [1, 0, 1, 0, 1], batch=2), explain(score, x, [1, 0, 1, 0, 1]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# --- bands and patches


def test_parts_add_up_and_hold_their_own_rhythm_only():
    x = noise(2)
    parts = decompose(x, BANDS, SFREQ)
    assert parts.shape == (2, 3, len(BANDS) + 1, SAMPLES)
    torch.testing.assert_close(parts.sum(2), x, atol=1e-8, rtol=1e-5)
    for hertz, place in ((2, 0), (6, 1), (8, 2), (13, 2), (14, 3), (40, 4), (60, 5), (0, 5)):
        wave = torch.cos(2 * torch.pi * hertz * TIMES)
        power = decompose(wave, BANDS, SFREQ).square().mean(-1)
        assert int(power.argmax()) == place and float(power[place] / power.sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bands", [{}, {"a": (1, 8), "b": (7, 12)}, {"a": (8, 4)}, {"a": (100, 200)}, {"a": (-1, 4)}])
def test_bands_that_would_not_add_up_are_refused(bands):
    with pytest.raises(ValueError, match="give bands that do not overlap"):
        explain(alpha_score(0), noise(1), [0], bands=bands)


def test_a_linear_score_owes_each_band_what_the_bands_part_says():
    weight, x = torch.randn(3, SAMPLES), noise(2)
    expected = torch.einsum("bcks,cs->bck", decompose(x, BANDS, SFREQ), weight)
    np.testing.assert_allclose(explain(linear(weight), x, [0, 0]).bands, expected, atol=1e-5)


def test_patches_are_sums_and_bands_and_patches_agree_on_every_channel():
    x, score = with_alpha(3, 1), alpha_score(1)
    explanations = explain(score, x, [1, 1, 1], noise(3, 4, seed=7))
    cells = to_patches(explanations.samples)
    assert cells.shape == (3, 4, 16)
    assert cells[2, 1, 5] == pytest.approx(explanations.samples[2, 1, 320:384].sum())
    np.testing.assert_allclose(cells.sum(2), explanations.bands.sum(2), atol=1e-5)
    with pytest.raises(ValueError, match="1024 samples are not a whole number of patches of 100"):
        to_patches(explanations.samples, 100)


# --- models


def small_encoder(seed: int = 0) -> EEGPT:
    torch.manual_seed(seed)
    encoder = EEGPT(eegpt_config("tiny1"), CHANNELS)
    physiological_init(encoder)
    return encoder


@pytest.fixture(scope="module")
def trained_head() -> EmotionEncoder:
    """Told apart by alpha at OZ alone: label 1 has it, label 0 has as much of it in a random other place and of beta at
    OZ."""
    torch.set_num_threads(1)
    model = EmotionEncoder(small_encoder(), 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(40):
        signal, labels = planted(rng, 24)
        loss = model(signal, labels)["ce"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def planted(rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.from_numpy(rng.integers(0, 2, n))
    signal = noise(n, len(CHANNELS), seed=int(rng.integers(1 << 30)))
    others = [i for i, name in enumerate(CHANNELS) if name[0] not in "OP"]
    for i, label in enumerate(labels):
        waves = [torch.sin(2 * torch.pi * hertz * TIMES + rng.uniform(0, 6.3)) * 0.02 for hertz in (10, 20)]
        signal[i, CHANNELS.index("OZ")] += waves[0] if label else waves[1]
        signal[i, rng.choice(others)] += waves[1] if label else waves[0]
    return signal, labels


def test_the_head_is_the_head_and_its_attributions_are_complete(trained_head):
    score, (signal, labels) = head_score(trained_head), planted(np.random.default_rng(1), 6)
    with torch.no_grad():
        torch.testing.assert_close(score(signal), trained_head(signal)["logits"].log_softmax(-1))
        moved = (score(signal) - score(torch.zeros_like(signal))).gather(1, labels[:, None])[:, 0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", IncompleteAttribution)
        explanations = explain(score, signal, labels)
    np.testing.assert_allclose(explanations.samples.sum((1, 2)), moved, atol=0.01)
    np.testing.assert_allclose(explanations.gap, explanations.samples.sum((1, 2)) - moved, atol=1e-4)
    np.testing.assert_allclose(explanations.bands.sum((1, 2)), explanations.samples.sum((1, 2)), atol=1e-5)
    assert np.abs(moved).max() > 0.5


def test_a_trained_model_is_seen_to_listen_where_the_rhythm_was_planted(trained_head):
    signal, labels = planted(np.random.default_rng(2), 40)
    score = head_score(trained_head)
    with torch.no_grad():
        assert (score(signal).argmax(1) == labels).float().mean() > 0.9
    present = labels == 1
    explanations = explain(score, signal[present], [1] * int(present.sum()), steps=16).bands.mean(axis=0)
    channel, band = np.unravel_index(explanations.argmax(), explanations.shape)
    assert CHANNELS[channel] == "OZ" and list(BANDS)[band] == "alpha"


def test_too_few_steps_are_told_and_more_are_enough():
    x = with_alpha(2, 0)
    with pytest.warns(IncompleteAttribution, match="after 1 steps .* raise steps"):
        rough = explain(alpha_score(0, gain=30), x, [1, 1], steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = explain(alpha_score(0, gain=30), x, [1, 1], steps=48)
    assert np.abs(fine.gap).max() < 0.05 < np.abs(rough.gap).max()


def test_windows_that_miss_are_explained_anew_and_the_others_are_left():
    x = with_alpha(3, 0) * torch.tensor([1.0, 1e-3, 1.0])[:, None, None]  # of the faint one little is to be shared out
    score = alpha_score(0, gain=30)
    with pytest.warns(IncompleteAttribution):
        rough = explain(score, x, [1, 1, 1], steps=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = explain(score, x, [1, 1, 1], steps=3, halvings=4)
    assert np.abs(rough.gap[1]) < 0.05 and np.array_equal(fine.samples[1],
                                                          rough.samples[1]) and np.array_equal(fine.bands[1],
                                                                                               rough.bands[1])
    for i in (0, 2):
        assert np.abs(fine.gap[i]) < 0.05 < np.abs(rough.gap[i]) and not np.allclose(fine.samples[i], rough.samples[i],
                                                                                     atol=1e-4)
    np.testing.assert_allclose(fine.bands.sum((1, 2)), fine.samples.sum((1, 2)), atol=1e-5)
    with pytest.warns(IncompleteAttribution, match="after 6 steps"):
        explain(score, x, [1, 1, 1], steps=3, halvings=1, tolerance=1e-9)


def test_only_pieces_of_the_path_that_miss_get_more_points():
    """A step at 0.3 of the path, and a window without one: points gather at the step."""
    places = [[], []]

    def score(x: torch.Tensor) -> torch.Tensor:
        place = x[:, 0, 0]
        if x.requires_grad:
            for value, sharp in zip(place.tolist(), x[:, 1, 0].tolist(), strict=True):
                places[int(sharp != 0)].append(value)
        return torch.stack([torch.where(x[:, 1, 0] != 0, torch.tanh(200 * (place - 0.3)), place), place], dim=1)

    signal, start = torch.ones(2, 2, 64), torch.zeros(2, 2, 64)
    signal[0, 1], start[1, 1] = 0.0, 1.0  # the second channel says which window it is, on the whole path
    found = explain(score, signal, [0, 0], start, steps=24, halvings=5)
    np.testing.assert_allclose(found.samples.sum(axis=(1, 2)), [1.0, np.tanh(140) + np.tanh(60)], rtol=0.05)
    smooth, sharp = places
    assert len(smooth) == 24 < len(sharp) < 24 * (1 + 2 + 4)  # to double the points of the whole path takes more
    assert all(0.1 < place < 0.5 for place in sharp[24:])


@pytest.fixture(scope="module")
def language():
    """A random language model, its processor, an encoder, and a tier-1 question."""
    processor = E2LLMProcessor(make_tokenizer(["Which emotion does the segment show? sad surprise happy",
                                               *SEED_VII.labels], 400), 4)
    size = ScratchParams(400, hidden_size=64, layers=2, heads=4, max_positions=256)
    model = new_language_model(processor.tokenizer, size, 0)
    torch.manual_seed(0)
    with torch.no_grad():  # what a fresh model says must depend on all of its prompt
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
    encoder = small_encoder().eval()
    joined = E2LLMForConditionalGeneration.join(model, processor.tokenizer, "none", None, encoder.config.token_width, 4,
                                                0).eval()
    question = predict(Segment(0, "sad", 0.5, ()), SEED_VII, np.random.default_rng(0))
    question = replace(question, options=[*question.options, "surprise and happy"])  # options of different length
    return joined, processor, encoder, question


def test_the_language_score_is_that_of_the_evaluation(language):
    model, processor, encoder, question = language
    signal = noise(5, len(CHANNELS))
    with torch.no_grad():
        features = encoder(signal).flatten(2).numpy()
        got = language_score(*language)(signal).numpy()
        closed = language_score(*language, closed=True)(signal)
    items = [replace(question, messages=[{**question.messages[0], "content": [
        {"type": "eeg", "window": w} if part["type"] == "eeg" else part for part in question.messages[0]["content"]]}])
             for w in range(5)]
    expected = np.stack(score_options(InferenceEngine(model, processor, features, {w: w for w in range(5)}), items))
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.01 and np.ptp(expected, axis=1).min() > 0.1
    np.testing.assert_allclose(closed, torch.from_numpy(expected).log_softmax(-1), atol=1e-4)


def test_the_language_scores_gradient_comes_back_through_the_cache_and_is_complete(language):
    score, signal = language_score(*language), noise(2, len(CHANNELS))
    point = signal.clone().requires_grad_(True)
    gradient = torch.autograd.grad(score(point)[:, 7].sum(), point)[0]
    direction = 1e-4 * noise(2, len(CHANNELS), seed=3).sign()
    with torch.no_grad():
        slope = (score(signal + direction) - score(signal - direction))[:, 7] / 2
    np.testing.assert_allclose((gradient * direction).sum((1, 2)), slope, rtol=0.02, atol=1e-4)
    explanations = explain(score, signal, [7, 2], steps=256, tolerance=1.0)
    assert np.abs(explanations.gap).max() < 0.02 < np.abs(explanations.samples.sum((1, 2))).max()


def test_models_and_questions_that_cannot_be_explained_are_refused(language):
    model, processor, encoder, question = language
    with pytest.raises(ValueError, match=r"EmotionEncoder is in training mode.*call eval\(\)"):
        head_score(EmotionEncoder(small_encoder(), 2).train())
    with pytest.raises(ValueError, match="EEGPT is in training mode"):
        language_score(model, processor, small_encoder().train(), question)
    twice = replace(question, messages=question.messages * 2)
    with pytest.raises(ValueError, match="holds 2 EEG segments: ask about one"):
        language_score(model, processor, encoder, twice)


# --- baselines


# --- right about the model


def trial(score, attribution, signal, **more):
    subjects = np.repeat(["a", "b", "c"], len(signal) // 3)
    curves = deletion_insertion(score, signal, [1] * len(signal), attribution, SHARES, np.random.default_rng(0), **more)
    return curves, areas(curves, subjects).set_index("name")


def test_cells_that_a_model_uses_cost_it_its_answer_first():
    signal = with_alpha(6, 2)
    cells = to_patches(explain(alpha_score(2), signal, [1] * 6).samples)
    curves, table = trial(alpha_score(2), cells, signal)
    assert table.loc["deletion", "high"] < -0.1 and table.loc["insertion", "low"] > 0.1
    assert table.loc["deletion", "score"] == pytest.approx(table.loc["deletion", "attributed"]
                                                           - table.loc["deletion", "random"])
    ends = curves.set_index(["kind", "share"])[["attributed", "random"]]
    score = alpha_score(2)
    whole, nothing = score(signal)[:, 1].numpy(), score(torch.zeros_like(signal))[:, 1].numpy()
    for kind, first, last in (("deletion", whole, nothing), ("insertion", nothing, whole)):
        for order in ("attributed", "random"):
            np.testing.assert_allclose(ends.loc[(kind, 0.0), order], first, rtol=1e-5)
            np.testing.assert_allclose(ends.loc[(kind, 1.0), order], last, rtol=1e-5)


def test_cells_that_a_model_ignores_cost_it_nothing_earlier_than_chance():
    signal = with_alpha(6, 2)
    cells = to_patches(explain(alpha_score(2), signal, [1] * 6).samples)
    signal[:, 0] = signal[:, 2]  # as loud, but this listener's attributions name channel 2
    _, other = trial(alpha_score(0), cells, signal)
    assert other.loc["deletion", "low"] > -0.05 and other.loc["insertion", "high"] < 0.05
    _, deaf = trial(lambda x: torch.zeros(len(x), 2).log_softmax(-1), cells, signal)
    assert deaf.loc["deletion", "score"] == 0.0 == deaf.loc["insertion", "score"]


def test_only_missing_cells_change_and_they_fade():
    signal, cells = torch.ones(2, 2, SAMPLES), np.zeros((2, 2, 16))
    cells[:, 0, 3], cells[:, 0, 4] = 2.0, 1.0

    def predicted_evidence(**more) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model gets of window 0 when nothing is missing, and when the two cells are."""
        given = []

        def record(x: torch.Tensor) -> torch.Tensor:
            given.append(x[0].clone())
            return torch.zeros(len(x), 2)

        deletion_insertion(record, signal, [1, 1], cells, [0.0, 2 / 32], np.random.default_rng(0), **more)
        return given[0], given[2]  # attributed and random, at each share

    whole, without = predicted_evidence(filler=-signal, taper=16)
    assert torch.equal(whole, signal[0])
    assert (without[1] == 1).all() and (without[0, :192] == 1).all() and (without[0, 320:] == 1).all()
    assert (without[0, 208:304] == -1).all()  # two missing neighbors have no seam
    assert (without[0, 192:208].diff() < 0).all() and (without[0, 304:320].diff() > 0).all()
    _, abrupt = predicted_evidence(taper=0)
    assert (abrupt[0, 192:320] == 0).all() and abrupt.sum() == 2 * SAMPLES - 128


@pytest.mark.parametrize(("change", "match"), [
    ({"attribution": np.zeros((3, 4, SAMPLES))}, "sum it over patches with to_patches"),
    ({"attribution": np.zeros((2, 4, 16))}, "sum it over patches with to_patches"),
    ({"shares": [0.5]}, "two or more rising numbers"), ({"shares": [0, 0.5, 0.4]}, "two or more rising numbers"),
    ({"shares": [0, 1.1]}, "two or more rising numbers"), ({"taper": 5}, "taper must be even"),
    ({"taper": 34}, "half a cell of 64 samples, got 34"),
])
def test_deletion_refuses_what_does_not_fit(change, match):
    given = {"attribution": np.zeros((3, 4, 16)), "shares": SHARES, "rng": np.random.default_rng(0), **change}
    with pytest.raises(ValueError, match=match):
        deletion_insertion(alpha_score(0), noise(3, 4), [1] * 3, **given)


def test_one_person_says_nothing_about_others():
    curves = deletion_insertion(alpha_score(0), noise(2, 2), [1, 1], np.zeros((2, 2, 16)), [0, 1],
                                np.random.default_rng(0))
    table = areas(curves, np.array(["a", "a"]))
    assert np.isfinite(table["score"]).all() and table[["low", "high"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="needs the subject of each of the 2 windows"):
        areas(curves, np.array(["a", "b", "c"]))


@pytest.mark.parametrize(("target", "more", "match"), [
    ([0], {}, "do not fit"), ([0, 2], {}, "whole numbers from 0 to 1"), ([0, -1], {}, "whole numbers from 0 to 1"),
    ([0.0, 1.0], {}, "whole numbers from 0 to 1"), ([0, 1], {"steps": 0}, "steps must be 1 or more, got 0"),
    ([0, 1], {"baseline": torch.full((2, 3, SAMPLES), torch.nan)}, "finite: leave broken windows out"),
    ([0, 1], {"baseline": torch.zeros(1, 3, SAMPLES)}, "do not fit"),
])
def test_attribution_refuses_what_does_not_fit(target, more, match):
    with pytest.raises(ValueError, match=match):
        explain(alpha_score(0), noise(2), target, **more)


# --- right about the twin


CAP = eegpt_channels(["FP1", "F7", *CHANNELS, "F8", "CZ", "FT7", "TP8", "CP3", "P7", "PZ", "PO7", "POZ"])
LABELS = np.array([label for label in SEED_VII.labels for _ in range(8)] * 4)
OWNERS = np.repeat(["a", "b", "c", "d"], 8 * len(SEED_VII))


def test_the_cells_of_the_generator_are_those_of_its_table():
    cells = generator_cells(CAP)
    assert set(cells) == {effect.emotion for effect in EFFECTS}
    named = {(CAP[i], list(BANDS)[j]) for i, j in zip(*np.nonzero(cells["happy"]), strict=True)}
    temporal = [name for name in CAP if region_of(name) == "temporal"]
    assert temporal == ["FT7", "T7", "T8", "TP8"]
    assert named == {*((name, band) for name in temporal for band in ("beta", "gamma")), ("FP1", "alpha"),
                     ("F7", "alpha"), ("F3", "alpha"),
                     ("FZ", "theta")}
    assert {CAP[i] for i in np.flatnonzero(cells["sad"][:, 0])} == {name
                                                                    for name in CAP if region_of(name) == "frontal"}


def test_attributions_made_of_the_table_agree_and_random_ones_do_not():
    rng, cells = np.random.default_rng(0), generator_cells(CAP)
    shape = (len(LABELS), len(CAP), len(BANDS))
    random = region_agreement(rng.normal(size=shape), LABELS, OWNERS, CAP).set_index("name")
    assert list(random.index) == [*cells, "all"]
    assert random.loc["all", "score"] == pytest.approx(0.5, abs=0.06) and (random["score"] - 0.5).abs().max() < 0.15
    made = np.stack([cells[label] * rng.choice([-3.0, 3.0]) for label in LABELS]) + 0.3 * rng.normal(size=shape)
    agree = region_agreement(made, LABELS, OWNERS, CAP, signed=False).set_index("name")
    assert (agree["low"] > 0.97).all() and (agree["difference low"] > 0.3).all()
    assert agree.loc["all", "n"] == len(LABELS) and (agree["subjects"] == 4).all()
    against = region_agreement(-np.abs(made), LABELS, OWNERS, CAP).set_index("name")
    assert against.loc["all", "high"] < 0.1 and region_agreement(np.abs(made), LABELS, OWNERS, CAP)["low"].min() > 0.97


def test_a_map_that_is_the_same_for_all_emotions_agrees_with_none_of_them_beyond_the_others():
    everything = sum(generator_cells(CAP).values()) + 0.1 * np.random.default_rng(0).normal(size=(len(LABELS), len(CAP),
                                                                                                  len(BANDS)))
    table = region_agreement(everything, LABELS, OWNERS, CAP).set_index("name")
    assert table.loc["all", "low"] > 0.7  # which chance alone would take for insight
    assert table.loc["all", "difference"] == pytest.approx(0.0, abs=0.03)


def test_the_rest_is_no_band_and_strangers_are_refused():
    values = np.random.default_rng(0).normal(size=(len(LABELS), len(CAP), len(BANDS) + 1))
    whole, bands = (region_agreement(v, LABELS, OWNERS, CAP) for v in (values, values[:, :, :-1]))
    assert whole.equals(bands)
    with pytest.raises(ValueError, match=r"knows nothing of \['calm'\]"):
        region_agreement(values, np.where(LABELS == "sad", "calm", LABELS), OWNERS, CAP)
    with pytest.raises(ValueError, match=rf"is not \({len(LABELS)} windows, {len(CAP)} channels, 5 bands"):
        region_agreement(values[:, :, :3], LABELS, OWNERS, CAP)
    with pytest.raises(ValueError, match=r"No channel lies above what \['neutral', 'fear'\] change"):
        region_agreement(values[:, :2], LABELS, OWNERS, CAP[:2])
    with pytest.raises(ValueError, match="of all windows"):
        region_agreement(values, LABELS[1:], OWNERS[1:], CAP)
    alone = region_agreement(values, LABELS, np.full(len(LABELS), "a"), CAP)
    assert np.isfinite(alone["score"]).all() and set(alone["subjects"]) == {1}
    assert (alone[["low", "high"]] == [0.0, 1.0]).all(axis=None)
    assert (alone[["difference low", "difference high"]] == [-1.0, 1.0]).all(axis=None)


def test_an_emotion_that_one_person_had_says_nothing_about_others():
    values = np.random.default_rng(0).normal(size=(len(LABELS), len(CAP), len(BANDS)))
    labels = np.where((LABELS == "fear") & (OWNERS != "a"), "sad", LABELS)
    table = region_agreement(values, labels, OWNERS, CAP).set_index("name")
    row = table.loc["fear", ["low", "high", "difference low", "difference high", "subjects", "n"]]
    assert row.tolist() == [0.0, 1.0, -1.0, 1.0, 1, 8] and table.loc["sad", "n"] == 56


# --- claims and maps


def test_maps_are_means_that_the_scalp_plots_take():
    values, labels = np.random.default_rng(0).normal(size=(6, len(CHANNELS), len(BANDS) + 1)), np.array(["sad",
                                                                                                         "happy"] * 3)
    maps = topography(values, labels, ["sad", "happy"])
    assert maps.shape == (2, len(BANDS), len(CHANNELS))
    assert maps[1, 2, 4] == pytest.approx(values[1::2, 4, 2].mean())
    np.testing.assert_array_equal(topography(values, labels), maps[::-1])
    figure = emotion_topographies(maps, ["sad", "happy"], CHANNELS, "nats")
    assert len(figure.axes) >= 2 * len(BANDS)
    plt.close(figure)
    with pytest.raises(ValueError, match=r"No window is labelled \['fear'\]"):
        topography(values, labels, ["fear"])
