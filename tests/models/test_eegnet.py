"""EEGNet computes what its paper says, and learns what is there to be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate

from e2llm.models.device import current_device
from e2llm.models.eegnet import EEGNet, EEGNetParams, decimated
from e2llm.training.eegnet import answers, eegnet_collate, prepared, train_eegnet
from e2llm.training.trainer import FitParams

SMALL = EEGNetParams(temporal_filters=3, depth=2, dropout=0.0, rate=16.0)
LIMITS = {"spatial.weight": 1.0, "classifier.weight": 0.25}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def worn_in(n_channels: int, n_classes: int, n_samples: int, params: EEGNetParams, seed: int = 0) -> EEGNet:
    """A net none of whose parameters and running statistics has the value it starts with."""
    torch.manual_seed(seed)
    model = EEGNet(n_channels, n_classes, n_samples, params)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if "norm" in name and value.dtype == torch.float32:
                value.uniform_(0.5, 1.5)
        for norm in (model.norm1, model.norm2, model.norm3):
            norm.bias.normal_()
            norm.running_mean.normal_(std=0.3)
        model.norm1.weight[0] = -1.2
        model.spatial.weight.mul_(2.0)  # some filters above the largest norm, some below
    return model


def walk(*shape: int, seed: int = 0) -> torch.Tensor:
    """Signal with an offset and slow drifts, so that the ends of a window matter."""
    signal = np.cumsum(np.random.default_rng(seed).normal(size=shape), axis=-1) * 0.3 + 2.0
    return torch.from_numpy(signal.astype(np.float32))


def norms_of(weights: np.ndarray) -> np.ndarray:
    """Norm of every filter or class, shaped to be broadcast."""
    return np.sqrt((weights**2).sum(axis=tuple(range(1, weights.ndim)), keepdims=True))


def limited(weights: np.ndarray, limit: float) -> np.ndarray:
    """Filters shortened to a norm of at most ``limit``."""
    norms = norms_of(weights)
    return np.where(norms > limit, weights * limit / norms, weights)


@pytest.mark.parametrize("f1, depth, rate, n_channels, n_classes, n_samples, n_pooled",
                         [(8, 2, 128.0, 58, 7, 512, 16), (4, 1, 100.0, 5, 2, 100, 3), (3, 2, 16.0, 1, 4, 32, 1)])
def test_shapes_and_number_of_parameters(f1, depth, rate, n_channels, n_classes, n_samples, n_pooled):
    model = EEGNet(n_channels, n_classes, n_samples, EEGNetParams(f1, depth, rate=rate))
    f2 = f1 * depth
    block1 = f1 * round(rate / 2) + 2 * f1 + f2 * n_channels + 2 * f2
    block2 = 16 * f2 + f2 * f2 + 2 * f2
    dense = f2 * n_pooled * n_classes + n_classes
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == block1 + block2 + dense
    signal, labels = torch.randn(3, n_channels, n_samples), torch.tensor([0, 1, 1])
    out = model.eval()(signal, labels)
    assert out["logits"].shape == (3, n_classes) and set(model(signal)) == {"logits"}
    probability = torch.softmax(out["logits"].double(), dim=1)[torch.arange(3), labels]
    assert float(out["loss"].detach()) == pytest.approx(float(-probability.log().mean().detach()), rel=1e-5)


def batch_norm(x: np.ndarray, norm: torch.nn.Module) -> np.ndarray:
    """Batch norm of axis 1 in eval mode."""
    mean, var, weight, bias = (value.detach().double().numpy().reshape(1, -1, *[1] * (x.ndim - 2))
                               for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def elu_pool(x: np.ndarray, width: int) -> np.ndarray:
    x = np.where(x > 0, x, np.expm1(x))[..., : x.shape[-1] // width * width]
    return x.reshape(*x.shape[:-1], -1, width).mean(axis=-1)


def filtered_same(x: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Every series in ``x`` (..., samples) met by its filter, ``(k - 1) // 2`` zeros before it."""
    k = filters.shape[-1]
    out = np.empty_like(x)
    for place in np.ndindex(x.shape[:-1]):
        out[place] = correlate(np.pad(x[place], ((k - 1) // 2, k // 2)), filters[place], mode="valid")
    return out


@pytest.mark.parametrize("params, n_samples", [(SMALL, 64), (EEGNetParams(2, 3, 0.3, 22.0), 75)])
def test_the_forward_pass_is_that_of_the_paper(params, n_samples):
    """Each channel is filtered in time first, then normalized, then weighed: the paper's order, in numpy and scipy."""
    model, signal = worn_in(3, 4, n_samples, params).eval(), walk(5, 3, n_samples)
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    f1, depth = params.temporal_filters, params.depth
    x = np.repeat(signal.double().numpy()[:, None], f1, axis=1)  # (batch, F1, channels, samples)
    temporal = np.broadcast_to(state["temporal.weight"][None, :, 0], (5, f1, 3, params.kernel))
    x = batch_norm(filtered_same(x, temporal), model.norm1)
    spatial = limited(state["spatial.weight"], 1.0).reshape(f1, depth, 3)
    x = np.einsum("bfct,fdc->bfdt", x, spatial).reshape(5, f1 * depth, n_samples)
    x = elu_pool(batch_norm(x, model.norm2), 4)
    x = filtered_same(x, np.broadcast_to(state["depthwise.weight"][None, :, 0, 0], (5, f1 * depth, 16)))
    x = np.einsum("bft,gf->bgt", x, state["pointwise.weight"][..., 0, 0])
    x = elu_pool(batch_norm(x, model.norm3), 8).reshape(5, -1)
    expected = x @ limited(state["classifier.weight"], 0.25).T + state["classifier.bias"]
    with torch.no_grad():
        assert model(signal)["logits"].numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", LIMITS)
def test_norms_are_limited_where_the_weights_are_used(name):
    model, signal = worn_in(3, 4, 64, SMALL).eval(), walk(5, 3, 64)
    weights = dict(model.named_parameters())[name]

    def logits(values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            weights.copy_(torch.from_numpy(values))
            return model(signal)["logits"].numpy()

    start = weights.detach().numpy().copy()
    huge, small = start * 100.0, limited(start, LIMITS[name]) * 0.5
    assert norms_of(huge).min() > 5 * LIMITS[name]
    of_huge = logits(huge)
    assert of_huge == pytest.approx(logits(limited(huge, LIMITS[name])), abs=1e-4)
    assert of_huge == pytest.approx(logits(huge * 7.0), abs=1e-4)
    assert np.abs(logits(small) - logits(small * 0.5)).max() > 1e-3  # below the limit a weight's size counts


def test_dropout_ends_either_block_and_is_random_in_training_alone():
    model, signal, seen = EEGNet(3, 2, 64, EEGNetParams(dropout=0.5, rate=16.0)), walk(4, 3, 64), []
    with model.dropout.register_forward_hook(lambda module, inputs,
                                             output: seen.append(tuple(output.shape))), torch.no_grad():
        model(signal)
    assert seen == [(4, 16, 1, 16), (4, 16, 1, 2)]
    with torch.no_grad():
        one, other = model.train()(signal)["logits"], model(signal)["logits"]
        assert not torch.allclose(one, other, atol=1e-3)
        assert torch.equal(model.eval()(signal)["logits"], model(signal)["logits"])


def sine(hz: float, sfreq: float, n: int) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(n) / sfreq)


@pytest.mark.parametrize("sfreq, rate, n", [(256.0, 128.0, 512), (200.0, 128.0, 400), (1000.0, 128.0, 2000),
                                            (128.0, 128.0, 256)])
def test_decimation_keeps_what_the_new_rate_can_hold(sfreq, rate, n):
    out = decimated(np.stack([[sine(10.0, sfreq, n), 3 * sine(4.0, sfreq, n)]]), sfreq, rate)
    assert out.shape == (1, 2, 256) and out.dtype == np.float32
    middle = slice(32, -32)  # a window's ends meet the filter's zeros
    assert out[0, 0, middle] == pytest.approx(sine(10.0, rate, 256)[middle], abs=0.01)
    assert out[0, 1, middle] == pytest.approx(3 * sine(4.0, rate, 256)[middle], abs=0.03)


def test_decimation_removes_what_the_new_rate_would_fold():
    signal = sine(100.0, 256.0, 1024)
    assert np.abs(signal[::2]).max() > 0.9  # it would come back at 28 Hz
    assert np.abs(decimated(signal[None, None], 256.0, 128.0)[0, 0, 32:-32]).max() < 0.01


RATE, SUBJECTS = 32.0, np.array(["a", "b", "c"], dtype=object)
GAINS = {"a": 1.0, "b": 20.0, "c": 0.1}


def rhythms(n: int = 360, seed: int = 0):
    """Two classes told apart by which half of eight channels has a 10 Hz rhythm; people differ in gain."""
    rng = np.random.default_rng(seed)
    labels, subjects = np.arange(n) % 2, SUBJECTS[np.arange(n) // 2 % 3]
    phase, time = rng.uniform(0, 2 * np.pi, size=(n, 1, 1)), np.arange(128) / 64.0
    there = (np.arange(8)[None] // 4 == labels[:, None])[..., None]
    data = rng.normal(size=(n, 8, 128)) + 1.2 * there * np.sin(2 * np.pi * 10.0 * time + phase)
    gain = np.array([GAINS[name] for name in subjects])
    return (data * gain[:, None, None]).astype(np.float32), labels, subjects


def prepare(signal_uv: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    gain = np.array([GAINS[name] for name in subjects])
    return decimated(signal_uv / gain[:, None, None], 64.0, RATE)


PARAMS = EEGNetParams(temporal_filters=4, depth=2, dropout=0.25, rate=RATE)
SCHEDULE = FitParams(steps=60, batch_size=24, lr=1e-2, weight_decay=0.0, seed=1)


def accuracy(given: np.ndarray, folder) -> float:
    """Share of right answers on held-out windows after training with the labels ``given``."""
    data, labels, subjects = rhythms()
    model = train_eegnet(data, prepare, given, subjects, np.arange(180), 2, PARAMS, SCHEDULE, folder)
    assert not model.training and next(model.parameters()).device == current_device()
    return float((answers(model, data[180:], prepare, subjects[180:]).argmax(axis=1) == labels[180:]).mean())


def test_where_a_rhythm_is_can_be_learned_and_chance_cannot(tmp_path):
    labels = rhythms()[1]
    assert accuracy(labels, tmp_path / "true") > 0.9
    shuffled = labels.copy()
    for label in range(2):  # as many right as wrong in either class: no side is more often right than the other
        shuffled[:180][labels[:180] == label] = np.random.default_rng(label).permutation(90) % 2
    assert 0.35 < accuracy(shuffled, tmp_path / "permuted") < 0.65


def test_the_same_seed_trains_the_same_and_another_does_not(tmp_path):
    data, labels, subjects = rhythms(60)
    logits = []
    for i, seed in enumerate((3, 3, 4)):
        schedule = FitParams(steps=4, batch_size=6, lr=1e-2, seed=seed)
        model = train_eegnet(data, prepare, labels, subjects, np.arange(40), 2, PARAMS, schedule, tmp_path / str(i))
        logits.append(answers(model, data, prepare, subjects))
    assert np.array_equal(logits[0], logits[1]) and not np.allclose(logits[0], logits[2], atol=1e-3)


class Cut(Exception):
    """Training was cut off."""


def test_a_training_cut_off_ends_as_if_it_had_not_been(tmp_path):
    data, labels, subjects = rhythms(60)
    schedule, steps = FitParams(steps=6, batch_size=6, lr=1e-2, seed=1, save_steps=2), []

    def train(folder: str, last: int = -1) -> dict[str, torch.Tensor]:
        def on_step(step: int, **_: object) -> None:
            steps.append(step)
            if step == last:
                raise Cut

        return train_eegnet(data, prepare, labels, subjects, np.arange(40), 2, PARAMS, schedule, tmp_path / folder,
                            on_step).state_dict()

    whole = train("whole")
    with pytest.raises(Cut):
        train("cut", last=5)
    resumed = train("cut")
    assert steps == [*range(1, 7), *range(1, 6), 5, 6]  # from the last checkpoint, not from the start
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_batches_hold_their_own_rows_prepared_once_for_their_own_people(tmp_path):
    data, labels, subjects = rhythms(12)
    rows, asked = np.array([1, 2, 5, 7]), []

    def counted(signal_uv: np.ndarray, who: np.ndarray) -> np.ndarray:
        asked.extend(who)
        return prepare(signal_uv, who)

    signals = prepared(data, counted, subjects, rows, tmp_path / "new" / "prepared.npy", batch=3)
    collate = eegnet_collate(signals, labels[rows].astype(np.int32))
    batch, _ = collate([3, 1]), collate([3, 1])
    expected = [decimated(data[[row]] / GAINS[subjects[row]], 64.0, RATE)[0] for row in (7, 2)]
    assert subjects[7] != subjects[2] and np.array_equal(batch["signal"].numpy(), np.stack(expected))
    assert batch["labels"].dtype == torch.int64 and batch["labels"].tolist() == [labels[7], labels[2]]
    assert asked == subjects[rows].tolist()


def test_answers_do_not_depend_on_the_batches_they_are_given_in():
    data, _, subjects = rhythms(10)
    model = EEGNet(8, 2, 64, PARAMS).train()
    logits = answers(model, data, prepare, subjects)
    with torch.no_grad():
        assert logits == pytest.approx(model.eval()(torch.from_numpy(prepare(data, subjects)))["logits"].numpy(),
                                       abs=1e-6)
    assert logits.shape == (10, 2) and logits.std(axis=0).min() > 1e-4
    assert answers(model.train(), data, prepare, subjects, batch=3) == pytest.approx(logits, abs=1e-6)
    assert answers(model, data, prepare, subjects, 2, np.array([8, 1, 5])) == pytest.approx(logits[[8, 1, 5]], abs=1e-6)
    assert answers(model, data[:0], prepare, subjects[:0]).shape == (0, 2)


@pytest.mark.parametrize("make, fact", [
    (lambda: EEGNetParams(temporal_filters=0), "temporal_filters is 0"),
    (lambda: EEGNetParams(depth=-1), "depth is -1"),
    (lambda: EEGNetParams(dropout=1.0), "dropout is 1.0"),
    (lambda: EEGNetParams(dropout=-0.1), "dropout is -0.1"),
    (lambda: EEGNetParams(rate=3.0), "rate is 3.0 Hz"),
    (lambda: EEGNetParams(rate=float("nan")), "rate is nan Hz"),
    (lambda: EEGNet(0, 2, 64), "0 channels and 2 classes"),
    (lambda: EEGNet(3, 1, 64), "3 channels and 1 classes"),
    (lambda: EEGNet(3, 2, 31), "31 samples"),
    (lambda: EEGNet(3, 2, 64)(torch.zeros(1, 4, 64)), r"got \(4, 64\)"),
    (lambda: EEGNet(3, 2, 64)(torch.zeros(1, 3, 65)), r"got \(3, 65\)"),
    (lambda: decimated(np.zeros((1, 2, 8)), 100.0, 128.0), "100 Hz cannot be decimated to 128 Hz"),
    (lambda: decimated(np.zeros((1, 2, 8)), 100.0, 0.0), "decimated to 0 Hz"),
])
def test_bad_values_are_named(make, fact):
    with pytest.raises(ValueError, match=fact):
        make()
