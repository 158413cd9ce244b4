"""Training that is cut off goes on as if nothing had happened, and its batches are mixed as promised."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from e2llm.core.chat import IGNORE, Item
from e2llm.data.normalization import Equalizer
from e2llm.models.evidence_probe import EvidenceProbe
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.training.stage2_alignment import train_projector
from e2llm.training.stage3_instruction import AdapterParams, train_adapter
from e2llm.training.trainer import (
    FitParams,
    Samples,
    encode_rows,
    examples_of,
    fit,
    item_collate,
    item_order,
    label_tokens,
    mixed_order,
    signal_collate,
    train_only,
)

PARAMS = FitParams(steps=12, batch_size=4, lr=0.05, seed=3, save_steps=5)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Small(nn.Module):
    """A model with dropout, so that training depends on the random state too."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.4), nn.Linear(8, 1))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        error = ((self.net(x)[:, 0] - y) ** 2).mean()
        return {"loss": error, "error": error, "half": error / 2}


X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = X @ np.float32([1.0, -2.0, 0.5])


def collate(rows: list[int]) -> dict[str, torch.Tensor]:
    return {"x": torch.from_numpy(X[rows]), "y": torch.from_numpy(Y[rows])}


def samples(params: FitParams = PARAMS) -> Samples:
    order = np.random.default_rng(1).integers(len(X), size=params.steps * params.batch_size)
    return Samples(order, lambda row: row)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


class Cut(Exception):
    """Training was cut off."""


def cut_at(last: int, steps: list[int]):
    def on_step(step: int, **_: object) -> None:
        steps.append(step)
        if step == last:
            raise Cut

    return on_step


def test_training_lowers_the_loss_and_reports_it(tmp_path):
    params, model, explanations = replace(PARAMS, steps=40), Small(), []

    def error() -> float:
        with torch.no_grad():
            return float(model.eval()(torch.from_numpy(X), torch.from_numpy(Y))["loss"])

    before = error()
    history = fit(model, samples(params), collate, params, tmp_path, terms=("half",),
                  on_step=lambda step, **facts: explanations.append((step, facts)))
    assert not model.training and error() < 0.3 * before
    assert torch.equal(model.frozen, torch.ones(2))
    assert list(history.columns) == ["step", "loss", "half"] and history["step"].tolist() == list(range(2, 41, 2))
    assert history["loss"].iloc[-5:].mean() < history["loss"].iloc[:5].mean()
    assert [step for step, _ in explanations] == list(range(1, 41)) and explanations[-1][1]["loss"] > 0


def test_the_terms_of_a_loss_are_logged_beside_it(tmp_path):
    history = fit(Small(), samples(), collate, PARAMS, tmp_path, terms=("half", "absent"))
    assert list(history.columns) == ["step", "loss", "half"]
    assert history["half"].to_numpy() == pytest.approx(history["loss"].to_numpy() / 2, abs=1e-4)


def test_the_same_seed_trains_the_same_and_another_does_not(tmp_path):
    trained = []
    for i, seed in enumerate((3, 3, 4)):
        model = Small()
        fit(model, samples(), collate, replace(PARAMS, seed=seed), tmp_path / str(i))
        trained.append(weights(model))
    assert same(trained[0], trained[1]) and not same(trained[0], trained[2])


@pytest.mark.parametrize("accumulate", [2, 4])
def test_an_accumulated_step_is_the_step_of_one_large_batch(tmp_path, accumulate):
    large, small, params = Small(), Small(), replace(PARAMS, batch_size=8, lr=1e-2)
    large.net[1].p = small.net[1].p = 0.0  # dropout would draw in another order
    data = samples(params)
    history = fit(large, data, collate, params, tmp_path / "large")
    again = fit(small, data, collate, replace(params, batch_size=8 // accumulate, accumulate=accumulate),
                tmp_path / "small")
    torch.testing.assert_close(weights(small), weights(large), atol=1e-5, rtol=1e-4)
    assert again["step"].tolist() == history["step"].tolist() and np.allclose(again["loss"], history["loss"], atol=1e-3)
    assert not same(weights(large), weights(Small()))


def test_orders_hold_enough_for_accumulated_steps():
    params = FitParams(steps=3, batch_size=2, lr=0.1, accumulate=4)
    assert len(item_order(list(range(50)), params)) == len(mixed_order(*corpus(), params)) == params.n_batches * 2 == 24


def test_the_samples_are_seen_in_their_order(tmp_path):
    seen = []

    def remember(rows: list[int]) -> dict[str, torch.Tensor]:
        seen.extend(rows)
        return collate(rows)

    data = samples()
    fit(Small(), data, remember, PARAMS, tmp_path)
    assert seen == data.order.tolist()


def test_a_training_cut_off_ends_as_if_it_had_not_been(tmp_path):
    whole, steps = Small(), []
    history = fit(whole, samples(), collate, PARAMS, tmp_path / "whole", terms=("half",))
    with pytest.raises(Cut):
        fit(Small(), samples(), collate, PARAMS, tmp_path / "cut", on_step=cut_at(8, steps))
    resumed = Small(seed=99)  # what it starts from no longer matters
    again = fit(resumed, samples(), collate, PARAMS, tmp_path / "cut", terms=("half",), on_step=cut_at(-1, steps))
    assert steps == [*range(1, 9), *range(6, 13)]  # from the last checkpoint, not from the start
    assert same(weights(resumed), weights(whole))
    assert again[["step", "loss"]].equals(history[["step", "loss"]])


def test_a_checkpoint_cut_off_while_written_is_passed_over(tmp_path):
    whole = Small()
    fit(whole, samples(), collate, PARAMS, tmp_path / "whole")
    with pytest.raises(Cut):
        fit(Small(), samples(), collate, PARAMS, tmp_path / "cut", on_step=cut_at(8, []))
    (tmp_path / "cut" / "checkpoint-10").mkdir()
    (tmp_path / "cut" / "checkpoint-10" / "model.safetensors").write_bytes(b"half")
    resumed = Small(seed=99)
    fit(resumed, samples(), collate, PARAMS, tmp_path / "cut")
    assert same(weights(resumed), weights(whole))


TEXTS = ["What does it show? happy sad", "Which is more pleasant? A: B:", "The segment shows sad."]


def question(window: int) -> list[dict]:
    return [{"role": "user", "content": [{"type": "eeg", "window": window},
                                         {"type": "text", "text": " What does it show?"}]}]


LABELS = ["happy", "sad"]
ITEMS = [Item("predict", 1, question(10 + i), "Occipital alpha low.", LABELS[i % 2], LABELS, "1", "", [10 + i])
         for i in range(8)]
TOKENS = np.random.default_rng(2).normal(size=(8, 16, 12)).astype(np.float32)
PLACE = {10 + i: i for i in range(8)}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(TEXTS, 300)


def language(tokenizer):
    return new_language_model(tokenizer, ScratchParams(300, hidden_size=64, layers=2, heads=4, max_positions=128),
                              seed=0)


TUNING = FitParams(steps=6, batch_size=2, lr=1e-2, seed=1, save_steps=2)


def trained_the_same_when_cut(train):
    """Trains whole, then cut off and resumed; returns the whole one after comparing their weights."""
    whole, steps = train("whole"), []
    with pytest.raises(Cut):
        train("cut", cut_at(5, steps))
    resumed = train("cut", cut_at(-1, steps))
    assert steps == [1, 2, 3, 4, 5, 5, 6]
    assert same(weights(resumed), weights(whole))
    return whole


def test_alignment_cut_off_ends_as_if_it_had_not_been(tokenizer, tmp_path):
    def train(folder: str, on_step=None):
        return train_projector(language(tokenizer), tokenizer, "none", ITEMS, TOKENS, PLACE, eeg_tokens=4, noise=0.5,
                               params=TUNING, folder=tmp_path / folder, on_step=on_step)[0]

    whole = trained_the_same_when_cut(train)
    fresh = language(tokenizer).state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in whole.language_model.state_dict().items())  # frozen


def test_alignment_with_evidence_leaves_the_ear_and_what_it_says(tokenizer, tmp_path):
    rng = np.random.default_rng(4)
    evidence_probe = EvidenceProbe.fit(TOKENS, rng.normal(size=(8, 3)),
                                       ["occipital alpha", "frontal theta", "artefact level"])

    def train(folder: str, on_step=None):
        return train_projector(language(tokenizer), tokenizer, "none", ITEMS, TOKENS, PLACE, 4, 0.5, TUNING,
                               tmp_path / folder, on_step, evidence_probe, 2)[0]

    projector = trained_the_same_when_cut(train).projector
    assert torch.equal(projector.evidence.weight, evidence_probe.weight) and torch.equal(projector.evidence.bias,
                                                                                         evidence_probe.bias)
    fresh = E2LLMForConditionalGeneration.join(language(tokenizer), tokenizer, "none", None, 12, 4, TUNING.seed,
                                               evidence_probe, 2).projector
    features = torch.from_numpy(TOKENS)
    with torch.no_grad():
        assert torch.equal(projector(features)[:, 4:], fresh(features)[:, 4:]) and projector(features).shape == (8, 10,
                                                                                                                 64)
        assert not torch.allclose(projector(features)[:, :4], fresh(features)[:, :4], atol=1e-3)


def test_tuning_cut_off_ends_as_if_it_had_not_been(tokenizer, tmp_path):
    def train(folder: str, on_step=None):
        model = E2LLMForConditionalGeneration.join(language(tokenizer), tokenizer, "none", None, 12, 4, 0)
        return train_adapter(model, E2LLMProcessor(tokenizer, 4), ITEMS, TOKENS, PLACE,
                             AdapterParams(rank=2, dropout=0.05), TUNING,
                             tmp_path / folder, on_step)[0]

    whole = trained_the_same_when_cut(train)
    adapters = [value for name, value in whole.named_parameters() if "lora_B" in name]
    assert adapters and all(value.abs().max() > 0 for value in adapters)


def corpus(n: int = 600, seed: int = 0):
    """Labels and owners of windows, both of unequal frequency."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, size=n, p=[0.7, 0.1, 0.1, 0.1])
    subjects = rng.choice(np.array(["1", "2", "3", "4", "5"], dtype=object), size=n, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    return labels, subjects, np.sort(rng.choice(n, size=n // 2, replace=False))


def test_every_batch_holds_every_class_equally_often_from_different_people():
    labels, subjects, rows = corpus()
    params = FitParams(steps=30, batch_size=16, lr=0.1, seed=1)
    order = mixed_order(labels, subjects, rows, params)
    assert order.shape == (480,) and set(order) <= set(rows)
    for batch in order.reshape(30, 16):
        assert Counter(labels[batch]) == {0: 4, 1: 4, 2: 4, 3: 4}
        for label in range(4):
            own = batch[labels[batch] == label]
            available = len(set(subjects[rows[labels[rows] == label]]))
            assert len(set(subjects[own])) == min(4, available)
    shares = Counter(subjects[order])
    assert max(shares.values()) < 1.6 * min(shares.values())  # of the rows, one person has six times another's
    assert any(labels[batch].tolist() != sorted(labels[batch]) for batch in order.reshape(30, 16))


def test_classes_are_balanced_when_they_do_not_divide_the_batch():
    labels, subjects, rows = corpus()
    order = mixed_order(labels, subjects, rows, FitParams(steps=200, batch_size=6, lr=0.1))
    for batch in order.reshape(200, 6):
        assert sorted(Counter(labels[batch]).values()) == [1, 1, 2, 2]
    shares = np.bincount(labels[order]) / len(order)
    assert np.abs(shares - 0.25).max() < 0.03


def test_orders_are_seeded():
    labels, subjects, rows = corpus()
    for make in (lambda params: mixed_order(labels, subjects, rows, params),
                 lambda params: item_order(list(range(50)), params)):
        one, again, other = (make(FitParams(steps=5, batch_size=8, lr=0.1, seed=seed)) for seed in (1, 1, 2))
        assert np.array_equal(one, again) and not np.array_equal(one, other)


@pytest.mark.parametrize("n, steps, batch", [(100, 25, 4), (100, 33, 8), (7, 5, 3), (400, 10, 8), (50, 1, 8)])
def test_items_are_all_seen_before_any_is_seen_again(n, steps, batch):
    lengths = np.random.default_rng(0).integers(5, 200, size=n).tolist()
    order = item_order(lengths, FitParams(steps=steps, batch_size=batch, lr=0.1))
    counts = np.bincount(order, minlength=n)
    assert len(order) == steps * batch and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("n, steps, batch", [(800, 100, 8), (700, 70, 10), (997, 37, 16)])
def test_items_of_a_batch_are_of_similar_length(n, steps, batch):
    lengths = np.random.default_rng(0).integers(5, 200, size=n)
    params = FitParams(steps=steps, batch_size=batch, lr=0.1)
    batches = lengths[item_order(lengths.tolist(), params)].reshape(steps, batch)
    at_random = np.random.default_rng(1).permutation(np.resize(lengths, steps * batch)).reshape(steps, batch)
    assert np.ptp(batches, axis=1).mean() < 0.25 * np.ptp(at_random, axis=1).mean()
    # and short ones do not come first
    assert abs(np.corrcoef(np.arange(steps), batches.mean(axis=1))[0, 1]) < 0.4


def test_a_batch_of_items_is_padded_masked_and_hears_its_windows(tokenizer):
    processor = E2LLMProcessor(tokenizer, 2)
    questions = [[{"type": "eeg", "window": 14}, {"type": "text", "text": "?"}, {"type": "eeg", "window": 11}],
                 [{"type": "text", "text": " What does it show happy sad happy sad?"}, {"type": "eeg", "window": 17}]]
    examples = [processor.training_example([{"role": "user", "content": content}], "sad", False)
                for content in questions]
    batch = item_collate(processor, TOKENS, PLACE)(examples)
    lengths = [len(example["input_ids"]) for example in examples]
    assert lengths[0] != lengths[1] and batch["input_ids"].shape == (2, max(lengths))
    for row, example in enumerate(examples):
        n = lengths[row]
        assert batch["input_ids"][row, :n].tolist() == example["input_ids"]
        assert batch["labels"][row, :n].tolist() == example["labels"]
        assert (batch["labels"][row, n:] == IGNORE).all() and (batch["input_ids"][row,
                                                                                  n:] == tokenizer.pad_token_id).all()
        assert batch["attention_mask"][row].tolist() == [1] * n + [0] * (max(lengths) - n)
    assert np.array_equal(batch["eeg_features"].numpy(), TOKENS[[4, 1, 7]])
    text_alone = processor.training_example([{"role": "user", "content": "happy?"}], "sad", False)
    assert "eeg_features" not in item_collate(processor, None, {})([text_alone])


def test_noise_beside_the_tokens_has_the_given_size(tokenizer):
    processor = E2LLMProcessor(tokenizer, 2)
    example = processor.training_example(ITEMS[0].messages, "sad", False)
    data = Samples(np.zeros(200, dtype=int), [example].__getitem__)
    examples = [data[i] for i in range(200)]
    batch, clear = item_collate(processor, TOKENS, PLACE, 0.5)(examples), item_collate(processor, TOKENS,
                                                                                       PLACE)(examples)
    assert np.array_equal(batch["eeg_features"].numpy(), np.repeat(TOKENS[:1], 200,
                                                                   axis=0)) and "eeg_noise" not in clear
    noise = batch["eeg_noise"].numpy()
    assert noise.shape == (200, 16, 12) and noise.dtype == np.float32
    assert abs(noise.mean()) < 0.02 and noise.std() == pytest.approx(0.5, abs=0.02)
    assert not np.array_equal(noise[0], noise[1])
    assert np.array_equal(item_collate(processor, TOKENS, PLACE, 0.5)(examples)["eeg_noise"].numpy(),
                          noise)  # by the place in the order alone
    assert np.array_equal(item_collate(processor, TOKENS, PLACE, 0.5)(examples[3:5])["eeg_noise"].numpy(), noise[3:5])
    assert TOKENS[0].std() > 0.5


def test_some_items_think_aloud_and_the_rest_answer_at_once(tokenizer):
    processor = E2LLMProcessor(tokenizer, 2)
    direct, always = [replace(ITEMS[0])] * 400, [replace(ITEMS[0], kind="rank")] * 20
    never = [replace(ITEMS[0], thought="")] * 20

    def said(example: dict) -> str:
        return tokenizer.decode([token for token in example["labels"] if token != IGNORE], skip_special_tokens=False)

    texts = [said(example) for example in examples_of([*direct, *always, *never], processor, 0.3, seed=0)]
    assert set(texts) == {"<think>\nOccipital alpha low.\n</think>\n\nhappy<|im_end|>", "happy<|im_end|>"}
    thinking = np.array(["<think>" in text for text in texts])
    assert 0.2 < thinking[:400].mean() < 0.4
    assert thinking[400:420].all() and not thinking[420:].any()


def test_signals_of_a_batch_are_equalized_with_their_own_persons_gain():
    data, subjects = np.arange(24, dtype=np.float32).reshape(4, 2, 3), np.array(["a", "b", "a", "b"], dtype=object)
    labels, spectral = np.array([0, 1, 2, 3]), np.arange(8.0).reshape(4, 2)

    def equalize(signal, who):
        return torch.from_numpy(signal) * torch.tensor([1.0 if name == "a" else 10.0 for name in who])[:, None, None]

    batch = signal_collate(data, equalize, subjects, labels, spectral)([3, 0])
    assert torch.equal(batch["signal_mv"], torch.from_numpy(np.stack([10 * data[3], data[0]])))
    assert batch["labels"].tolist() == [3, 0]
    assert batch["spectral"].dtype == torch.float32 and batch["spectral"].tolist() == [[6.0, 7.0], [0.0, 1.0]]


def test_tokens_on_disk_are_those_of_the_encoder(tmp_path):
    class Doubling(nn.Module):
        def forward(self, signal):
            assert not self.training
            return signal.unflatten(2, (3, 2)) * 2

    data = np.random.default_rng(0).normal(size=(9, 4, 6)).astype(np.float32)
    subjects = np.array(["a"] * 9, dtype=object)
    rows = np.array([1, 2, 5, 7, 8])
    path = tmp_path / "tokens.npy"
    tokens = encode_rows(Doubling(), data, lambda signal, who: torch.from_numpy(signal), subjects, rows, path, batch=2)
    assert tokens.shape == (5, 4, 6) and isinstance(tokens, np.memmap)
    assert np.array_equal(tokens, 2 * data[rows])


def test_tokens_in_half_the_room_are_rounded_and_too_large_ones_are_refused(tmp_path):
    class Scaled(nn.Module):
        factor = 1.0

        def forward(self, signal):
            return signal.unflatten(2, (3, 2)) * self.factor

    data, rows = np.random.default_rng(0).normal(size=(9, 4, 6)).astype(np.float32), np.arange(9)
    model, subjects = Scaled(), np.array(["a"] * 9, dtype=object)
    equalize = lambda signal, who: torch.from_numpy(signal)  # noqa: E731
    tokens = encode_rows(model, data, equalize, subjects, rows, tmp_path / "half.npy", dtype="float16")
    assert tokens.dtype == np.float16 and isinstance(tokens, np.memmap)
    assert np.array_equal(tokens, data.astype(np.float16)) and not np.array_equal(tokens, data)
    model.factor = 1e6
    with pytest.raises(ValueError, match=r'half.npy: a token .*float16 cannot hold: .*token_dtype = "float32"'):
        encode_rows(model, data, equalize, subjects, rows, tmp_path / "half.npy", dtype="float16")


def test_only_the_named_part_is_trained():
    model = Small()
    trained = lambda: [name for name, p in model.named_parameters() if p.requires_grad]  # noqa: E731
    train_only(model, "net.2.")
    assert trained() == ["net.2.weight", "net.2.bias"]
    train_only(model)
    assert trained() == []


@pytest.mark.parametrize("room", [0, 3, 20])
def test_windows_that_were_kept_equal_those_equalized_in_every_batch(room):
    rng = np.random.default_rng(0)
    data, groups = rng.normal(size=(12, 4, 512)).astype(np.float32), np.array(["a", "b"] * 6)
    gain = np.exp(rng.normal(size=(2, 4, 5))).astype(np.float32)
    equalize, asked = Equalizer(gain, ["a", "b"], 256.0), []
    collate = signal_collate(data, lambda signal, who: asked.append(len(signal)) or equalize(signal, who), groups,
                             np.arange(12), np.zeros((12, 2)), kept_bytes=room * data[0].nbytes)
    for batch in (rng.choice(12, 6) for _ in range(20)):
        assert torch.equal(collate(list(batch))["signal_mv"], equalize(data[batch], groups[batch]))
    assert sum(asked) == 12 if room == 20 else sum(asked) > 12


@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path, warmup):
    params, rates = FitParams(steps=8, batch_size=2, lr=0.4, warmup=warmup, weight_decay=0.0), []

    class Line(nn.Module):
        """Its weight moves by the learning rate: the first steps of Adam on a constant slope are of unit size."""

        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            rates.append(float(self.w.detach()))
            return {"loss": -self.w * 0.1}

    model = Line()
    fit(model, Samples(np.zeros(16), lambda row: row), lambda rows: {"x": torch.zeros(len(rows))}, params, tmp_path)
    moved = np.diff([*rates, float(model.w.detach())])
    n = int(8 * warmup)
    expected = [0.4 * (i + 1) / (n + 1) for i in range(n)] + [0.2 * (1 + np.cos(np.pi * i / (8 - n)))
                                                              for i in range(8 - n)]
    assert moved == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_bfloat16_trains_on_a_cpu_too(tmp_path):
    model, before = Small(), weights(Small())
    history = fit(model, samples(), collate, replace(PARAMS, bf16=True), tmp_path)
    assert np.isfinite(history["loss"]).all() and not same(weights(model), before)
    assert all(value.dtype == torch.float32 for value in model.state_dict().values()), "weights stay in full precision"


def test_the_softmax_of_a_stage_has_all_tokens_of_its_labels_and_others_that_are_drawn(tokenizer):
    processor = E2LLMProcessor(tokenizer, 2)
    examples = [processor.training_example(item.messages, item.answer, False) for item in ITEMS]
    tokens = label_tokens(examples, processor, 0, others=20)
    used = {token for example in examples for token in example["labels"]} - {IGNORE}
    assert used <= set(tokens.tolist()) and (tokens.diff() > 0).all() and 20 <= len(tokens) <= 20 + len(used)
    assert torch.equal(tokens, label_tokens(examples, processor, 0, others=20))
    assert not torch.equal(tokens, label_tokens(examples, processor, 1, others=20))
    assert torch.equal(label_tokens(examples, processor, 0, others=10**6), torch.arange(len(tokenizer)))
    assert torch.equal(item_collate(processor, TOKENS, PLACE, tokens=tokens)(examples)["label_tokens"], tokens)
