"""What large language models need: gradients computed twice instead of kept, and one copy of the weights in memory."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

import numpy as np
import pytest
import torch
from micro import linked
from peft import LoraConfig, get_peft_model
from torch import nn

from e2llm.app import evaluation_stage, reasoning_stage, stages
from e2llm.core.chat import Item
from e2llm.evaluation.controls import with_random_projector
from e2llm.models import device, language
from e2llm.models.evidence_probe import EvidenceProbe
from e2llm.models.inference import InferenceEngine, score_options
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.training import stage_trainer
from e2llm.training.feedback import FeedbackParams
from e2llm.training.stage3_instruction import LORA_TARGETS, AdapterParams, train_adapter
from e2llm.training.stage_trainer import _switch, checkpointed
from e2llm.training.trainer import FitParams, item_collate, train_only

WIDTH, EEG_TOKENS = 16, 2
TEXTS = ["Which segment is more pleasant? A: B:", "occipital alpha low high frontal theta ] sad neutral"]
NAMES = ["occipital alpha", "frontal theta"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def processor() -> E2LLMProcessor:
    return E2LLMProcessor(make_tokenizer(TEXTS, 320), EEG_TOKENS, 1)


@pytest.fixture
def model(processor) -> E2LLMForConditionalGeneration:
    size = ScratchParams(320, hidden_size=64, layers=2, heads=4, max_positions=256)
    found = new_language_model(processor.tokenizer, size, 0)
    probe = EvidenceProbe(NAMES, torch.randn(2, 2 * WIDTH, generator=torch.Generator().manual_seed(1)), torch.zeros(2))
    return E2LLMForConditionalGeneration.join(found, processor.tokenizer, "none", None, WIDTH, EEG_TOKENS, 0, probe, 1)


FEATURES = np.random.default_rng(0).normal(size=(6, 4, WIDTH)).astype(np.float32)
ITEMS = [Item("predict", 1, [{"role": "user", "content": [{"type": "eeg", "window": i},
                                                           {"type": "text", "text": " Which segment?"}]}],
              "", "sad", ["sad", "neutral"], "1", "", [i]) for i in range(6)]


def batch(processor: E2LLMProcessor) -> dict[str, torch.Tensor]:
    examples = processor.training_examples([(item.messages, "sad", False) for item in ITEMS])
    return item_collate(processor, FEATURES, {i: i for i in range(6)}, 0.5)(
        [{**example, "place": i} for i, example in enumerate(examples)])


def adapted(model: E2LLMForConditionalGeneration) -> nn.Module:
    torch.manual_seed(0)
    train_only(model)
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=LORA_TARGETS, modules_to_save=["projector"]))
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:  # starts at zero, where the gradient of lora_A is zero too
            nn.init.normal_(parameter, std=0.02)
    return peft


def gradients(model: nn.Module, given: dict[str, torch.Tensor], is_on: bool) -> tuple[dict[str, torch.Tensor], int]:
    """Gradients of all that is trained, and how often the layers of the language model were computed."""
    calls = []
    layers = [part for part in model.modules() if type(part).__name__ == "Qwen3DecoderLayer"]
    hooks = [layer.self_attn.register_forward_hook(lambda *_: calls.append(1)) for layer in layers]
    model.train().zero_grad()
    with checkpointed(model, is_on):
        model(**given).loss.backward()
    for hook in hooks:
        hook.remove()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, len(calls)


@pytest.mark.parametrize("stage", [2, 3])
def test_gradients_that_are_computed_twice_are_those_that_are_kept(model, processor, stage):
    if stage == 2:
        train_only(model, "projector.")
    else:
        model = adapted(model)
    given = batch(processor)
    plain, once = gradients(model, given, False)
    again, twice = gradients(model, given, True)
    assert twice == 2 * once == 4, "every layer is computed a second time, frozen ones below an adapter too"
    assert plain.keys() == again.keys() and all(torch.equal(plain[name], again[name]) for name in plain)
    assert all(value.abs().max() > 0 for value in plain.values())
    assert gradients(model, given, False)[1] == once, "and it is over afterwards"


def test_a_training_follows_the_policy_and_gives_the_same_weights(model, processor, tmp_path, monkeypatch):
    state, found, seen, switch = {key: value.clone() for key, value in model.state_dict().items()}, [], [], _switch
    monkeypatch.setattr(stage_trainer, "_switch",
                        lambda part, word: seen.append((type(part), word)) or switch(part, word))
    for is_on in (False, True):
        model.load_state_dict(state)
        with device.using(device.DevicePolicy("cpu", gradient_checkpointing=is_on)):
            peft, history = train_adapter(model, processor, ITEMS, FEATURES, {i: i for i in range(6)},
                                          AdapterParams(2, 4, 0.1), FitParams(3, 2, 1e-2), tmp_path / str(is_on))
        found.append((history["loss"].tolist(), {name: p.detach().clone() for name, p in peft.named_parameters()
                                                 if p.requires_grad}))
        model = peft.unload()
    assert seen == [(E2LLMForConditionalGeneration, "enable"), (E2LLMForConditionalGeneration, "disable")]
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


def test_a_model_without_a_language_model_is_left_alone():
    plain = nn.Linear(2, 2)
    with checkpointed(plain, True):
        assert plain(torch.ones(1, 2)).requires_grad


# ---------------------------------------------------------------- one copy in memory


def storages(model: nn.Module) -> dict[str, int]:
    return {name: value.untyped_storage().data_ptr() for name, value in model.state_dict().items()}


def test_an_untrained_projector_shares_the_language_model_and_gives_what_a_copy_gave(model, processor):
    import copy

    engine = InferenceEngine(model.eval(), processor, FEATURES, {i: i for i in range(6)})
    before = [value.clone() for value in model.state_dict().values()]
    control = with_random_projector(engine, 5)
    own, shared = storages(model), storages(control.model)
    assert {name for name in own if own[name] != shared[name]} == {name for name in own if "projector" in name}
    assert len(set(own.values()) | set(shared.values())) == len(set(own.values())) + len(
        {own[name] for name in own if "projector" in name})
    expected = copy.deepcopy(model)
    expected.projector.reinitialize(5)
    wanted = score_options(InferenceEngine(expected, processor, FEATURES, engine.position), ITEMS)
    np.testing.assert_array_equal(score_options(control, ITEMS), wanted)
    assert not np.array_equal(score_options(engine, ITEMS), wanted)
    assert all(map(torch.equal, before, model.state_dict().values())), "the trained projector is as it was"


@pytest.fixture
def alive(monkeypatch) -> list[int]:
    """How many language models were alive after each was loaded."""
    loaded: list[weakref.ref] = []
    counts: list[int] = []
    load = language.load_language_model

    def loading(*args: object, **kwargs: object):
        found = load(*args, **kwargs)
        loaded.append(weakref.ref(found[0]))
        gc.collect()
        counts.append(sum(each() is not None for each in loaded))
        return found

    monkeypatch.setattr(language, "load_language_model", loading)
    return counts


def test_a_reasoning_evaluation_holds_one_language_model_at_a_time(micro_run, tmp_path, alive):
    run = linked(micro_run, tmp_path, "reasoned")
    corpus = stages.open_dataset(run)
    with suppress(ValueError):  # nothing of so short a training can be kept
        reasoning_stage.reinforce(run, corpus, FeedbackParams(1, 1.0, 2), FitParams(1, 2, 1e-3))
    assert alive and max(alive) == 1
    evaluation_stage.control_battery(run, corpus)
    assert len(alive) > 1 and max(alive) == 1
    del alive[:]
    engine = evaluation_stage.open_engine(run)
    reasoning_stage.scorers_of(run, corpus, 0, engine)
    assert alive == [1], "the scorers take the model that is open"


def test_an_evaluation_in_one_process_holds_one_language_model_at_a_time(micro_run, tmp_path, alive, monkeypatch):
    run = linked(micro_run, tmp_path, "evaluated")
    corpus = stages.open_dataset(run)
    monkeypatch.setattr(evaluation_stage, "_usual_processes", lambda: 1)
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path))  # a process opens the run by its name
    evaluation_stage.evaluate(run, corpus, None, 3, 1, True, False, 1, n_jobs=1, answer_from="eeg")
    assert len(alive) >= 4 and max(alive) == 1
