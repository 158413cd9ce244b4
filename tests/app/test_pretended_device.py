"""A whole run on a device that is not there and refuses to be joined with the CPU: its numbers are the CPU's."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import replace
from pathlib import Path
from types import FunctionType

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers
from micro import CLIPS, FIT, LANGUAGE_MODEL, open_run
from peft.utils import save_and_load
from pretended import MixedDevices, Pretended, pretended
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import _disable_current_modes

from e2llm.app import chat_session, evaluation_stage, hub_export, reasoning_stage, stages
from e2llm.app.model_size_study import share_stages
from e2llm.app.second_pass_stage import instruct_second_pass, open_second_pass
from e2llm.core.claims import salient_claims
from e2llm.evaluation import attribution, control_models
from e2llm.evaluation.baselines import FrozenTokens
from e2llm.evaluation.controls import with_random_projector, without_eeg
from e2llm.models import language, modeling
from e2llm.models.inference import InferenceEngine, generate, label_similarity, sample, score_options
from e2llm.tasks.items import prediction_items
from e2llm.training import augmentation
from e2llm.training.losses import HeadParams
from e2llm.training.second_pass import SecondPassParams
from e2llm.training.stage3_instruction import AdapterParams
from e2llm.training.trainer import FitParams

THERE = "meta"  # of all types of devices, the one on which PyTorch goes backward without a driver
# The tensors that say so have values, so that weights are loaded into them.
pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
# Where attention is computed by the same formula, everything is.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def there(monkeypatch):
    """The device. What reads and writes its memory by itself goes over the CPU here."""
    load = language.AutoModelForCausalLM.from_pretrained

    def loading(*args: object, device_map: dict | None = None, **kwargs: object):
        assert device_map == {"": torch.device(THERE)}, "read straight onto the device of the policy"
        with _disable_current_modes():
            model, facts = load(*args, **kwargs)
        return model.to(torch.device(THERE)), facts

    def saving(self, *args: object, before=transformers.PreTrainedModel.save_pretrained, **kwargs: object):
        return before(self.cpu(), *args, **kwargs)

    def saving_adapter(self, *args: object, before=peft.PeftModel.save_pretrained, **kwargs: object):
        return before(self.cpu(), *args, **kwargs)

    def moving(self, *args: object, before=transformers.PreTrainedModel.to, **kwargs: object):
        moved = before(self, *args, **kwargs)
        if getattr(self.config, "tie_word_embeddings", False):  # weights of a GPU stay tied when they move
            self.get_output_embeddings().weight = self.get_input_embeddings().weight
        return moved

    def reading(path: str, device: str) -> dict[str, torch.Tensor]:
        assert device == THERE
        return {name: value.to(torch.device(THERE)) for name, value in load_file(path).items()}

    monkeypatch.setattr(transformers.PreTrainedModel, "to", moving)
    monkeypatch.setattr(save_and_load, "safe_load_file", reading)
    monkeypatch.setattr(language.AutoModelForCausalLM, "from_pretrained", loading)
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", saving)
    monkeypatch.setattr(peft.PeftModel, "save_pretrained", saving_adapter)
    for module in (stages, modeling, hub_export):
        monkeypatch.setattr(module, "save_file", lambda state, path, **more: save_file(
            {name: value.cpu().contiguous() for name, value in state.items()}, path, **more))
    with pretended(THERE) as place:
        yield place


def places(model: nn.Module) -> set[str]:
    return {str(value.device) for value in [*model.parameters(), *model.buffers()]}


# ---------------------------------------------------------------- the device itself


def test_a_tensor_of_the_cpu_is_refused_and_a_moved_one_is_taken():
    with pretended(THERE) as place:
        layer, x = nn.Linear(3, 2).to(place), torch.randn(4, 3)
        with pytest.raises(MixedDevices, match=r"on meta.*on the CPU"):
            layer(x)
        assert isinstance(layer(x.to(place)), Pretended) and layer(x.to(place)).cpu().device.type == "cpu"
        with pytest.raises((TypeError, RuntimeError)):
            layer(x.to(place)).detach().numpy()
        assert (x.to(place) * torch.tensor(2.0)).device == place, "numbers may come from the CPU, as for CUDA"


def test_values_that_are_set_are_the_values():
    with pretended(THERE) as place:
        weight = nn.Parameter(torch.zeros(2, 3).to(place))
        weight.data = torch.ones(2, 3).to(place)
        assert weight.tolist() == [[1.0] * 3] * 2 and (weight * 2).sum().item() == 12


def test_gradients_and_steps_are_those_of_the_cpu():
    def trained(place: str) -> torch.Tensor:
        torch.manual_seed(0)
        layer, x = nn.Linear(3, 2).to(place), torch.randn(4, 3).to(place)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
        return layer.weight.detach().cpu()

    expected = trained("cpu")
    with pretended(THERE):
        found = trained(THERE)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


# ---------------------------------------------------------------- a run


def trained(micro_run, runs: Path, name: str):
    """Stages 1 to 3 and the second pass on the windows of the small run."""
    run = open_run(runs, name)
    share_stages(micro_run, run, ["windows"])
    corpus = stages.open_dataset(run, CLIPS)
    stages.train_encoder(run, corpus, CLIPS, "tiny1", {}, "", FitParams(4, 8, 4e-3), HeadParams(), 0)
    corpus = stages.open_dataset(run)
    stages.make_language_model(run, corpus, "scratch", "float32", LANGUAGE_MODEL, 40, 1, FIT)
    stages.align(run, corpus, 1, 2, 8, 1.0, FIT)
    stages.instruct(run, corpus, {"predict": 8, "match": 4, "compare": 4}, 4, AdapterParams(rank=2, alpha=4), FIT)
    instruct_second_pass(run, corpus, SecondPassParams(rank=2, alpha=4), replace(FIT, batch_size=16))
    return run


def from_thoughts(run) -> np.ndarray:
    """Probability of each answer of the second pass to what was measured in some windows."""
    corpus = stages.open_dataset(run)
    stated = [salient_claims(z, corpus.evidence_names) for z in corpus.z[corpus.split.test[:6]]]
    return open_second_pass(run, corpus).shares(stated)


@pytest.fixture
def here(micro_run, tmp_path):
    """The same on the CPU, made before the test pretends anything."""
    with sdpa_kernel(SDPBackend.MATH):
        run = trained(micro_run, tmp_path, "here")
        return run, from_thoughts(run)


def test_all_stages_train_there_and_leave_what_they_leave_on_the_cpu(micro_run, tmp_path, here, there):
    run, (here, answered) = trained(micro_run, tmp_path, "there"), here
    np.testing.assert_allclose(from_thoughts(run), answered, **CLOSE)
    for name in ("tokens", "predicted_evidence"):
        found, expected = (np.load(each.path / "encoder" / f"{name}.npy") for each in (run, here))
        np.testing.assert_allclose(found, expected, **CLOSE)
    for stage in ("encoder", "language_model", "projector", "adapter", "second_pass"):
        found, expected = (pd.read_csv(each.path / stage / "history.csv") for each in (run, here))
        np.testing.assert_allclose(found, expected, **CLOSE)


def test_the_edited_windows_of_stage_1_are_encoded_there(micro_run, there):
    """Where the probe met tensors of the CPU."""
    corpus = stages.open_dataset(micro_run)
    drawn = augmentation.AugmentedWindows.draw(corpus, corpus.split.train[:4], 0)
    model = stages.load_encoder(micro_run, corpus)
    assert places(model) == {THERE}
    found = augmentation.encode_edited(model.encoder, corpus, drawn.edits[:3])
    assert isinstance(found, np.ndarray) and np.isfinite(found).all()


# ---------------------------------------------------------------- a finished run


@pytest.fixture(scope="module")
def on_the_cpu(micro_run):
    """What the run answers on the CPU."""
    corpus = stages.open_dataset(micro_run)
    with sdpa_kernel(SDPBackend.MATH):
        return answers(micro_run, corpus)


def answers(run, corpus) -> dict:
    """Scores, texts, similarities and controls of a finished run."""
    engine = evaluation_stage.open_engine(run)
    items = prediction_items(corpus, corpus.split.test[:6], 0)
    encoder = stages.load_encoder(run, corpus)
    encoded = control_models.Encoded(encoder, corpus)
    signals, groups = corpus.windows.data[corpus.split.test[:6]], corpus.norm_groups[corpus.split.test[:6]]
    rows = {label: corpus.split.test[i : i + 2].tolist() for i, label in enumerate(corpus.label_set.labels)}
    score = attribution.head_score(encoder)
    llm = reasoning_stage.scorers_of(run, corpus, 0, engine)["LLM"]
    signal = corpus.equalize(signals[:1], groups[:1])
    return {
        "places": places(engine.model) | places(encoder),
        "scores": np.stack(score_options(engine, items)),
        "scores after a thought": np.stack(score_options(engine, items, ["fear."] * len(items))),
        "without EEG": np.stack(score_options(engine, without_eeg(items))),
        "random projector": np.stack(score_options(with_random_projector(engine, 3), items)),
        "similarity": label_similarity(engine, rows),
        "texts": generate(engine, items, max_new_tokens=6),
        "samples": len(sample(engine, items[:2], 2, 1.0, 0, max_new_tokens=4)),
        "head": control_models.stage_1_head(encoded)(signals, groups),
        "before stage 1": FrozenTokens(stages.initial_encoder(run, corpus), corpus.windows, corpus.split)(signals,
                                                                                                       groups),
        "attribution, head": attribution.explain(score, signal, [1], steps=4, tolerance=9).samples,
        "attribution, LLM": attribution.explain(llm, signal, [1], steps=2, tolerance=9).bands,
    }


def test_scores_texts_controls_and_attribution_are_those_of_the_cpu(micro_run, there, on_the_cpu):
    found = answers(micro_run, stages.open_dataset(micro_run))
    assert (on_the_cpu["places"], found["places"]) == ({"cpu"}, {THERE})
    assert found["texts"] == on_the_cpu["texts"] and found["samples"] == 2
    for name in set(found) - {"places", "texts", "samples"}:
        np.testing.assert_allclose(found[name], on_the_cpu[name], **CLOSE, err_msg=name)


def test_a_window_without_stored_tokens_is_encoded_there(micro_run, there):
    model, row = chat_session.E2LLM.of_run(micro_run, stages.open_dataset(micro_run)), 0
    bare = replace(model, engine=replace(model.engine, position={}))
    (found,), stored = bare._engine_for([row]).features, model.engine.features[model.engine.position[row]]
    np.testing.assert_allclose(found, stored, **CLOSE)


def test_an_export_is_written_from_there_and_loaded_onto_it(micro_run, there, tmp_path):
    folder = hub_export.export(micro_run, tmp_path / "shared", "mit", "a twin")
    found = chat_session.ExportedModel.from_pretrained(folder)
    assert places(found.model) == {THERE} and found.model.device == there
    corpus = stages.open_dataset(micro_run)
    items = prediction_items(corpus, corpus.split.test[:3], 0)
    tokens = stages.load_tokens(micro_run)
    own, shared = (np.stack(score_options(InferenceEngine(*parts, *tokens), items))
                   for parts in (stages.open_instructed(micro_run), (found.model, found.processor)))
    np.testing.assert_array_equal(own, shared)
    with torch.no_grad():
        signal = corpus.equalize(corpus.windows.data[:1], corpus.norm_groups[:1])
        with pytest.raises(MixedDevices):
            found.model.encode(signal)
        assert found.model.encode(signal.to(there)).device == there


# ---------------------------------------------------------------- what it catches


def without_moves(function: FunctionType, module: object, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """Take a move to the device out of a function of a module."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(written) == 1
    scope = vars(module).copy()
    exec(compile(ast.parse("from __future__ import annotations\n" + source.replace(written, "")), module.__file__,
                 "exec", dont_inherit=True), scope)
    monkeypatch.setattr(module, function.__name__, scope[function.__name__])


def test_a_forgotten_move_is_caught(micro_run, there, monkeypatch):
    corpus = stages.open_dataset(micro_run)
    drawn = augmentation.AugmentedWindows.draw(corpus, corpus.split.train[:4], 0)
    model = stages.load_encoder(micro_run, corpus)
    with monkeypatch.context() as patch:
        without_moves(augmentation.encode_edited, augmentation, patch, ".to(device)")
        with pytest.raises(MixedDevices):
            augmentation.encode_edited(model.encoder, corpus, drawn.edits[:3])
    engine = evaluation_stage.open_engine(micro_run)
    items = prediction_items(corpus, corpus.split.test[:2], 0)
    inputs = InferenceEngine.inputs
    with monkeypatch.context() as patch:
        patch.setattr(InferenceEngine, "inputs", lambda self, *args, **kwargs: {
            name: value.cpu() for name, value in inputs(self, *args, **kwargs).items()})
        with pytest.raises(MixedDevices):
            score_options(engine, items)
    with monkeypatch.context() as patch:
        patch.setattr(modeling.E2LLMForConditionalGeneration, "_follow_language_model", lambda self: None)
        with pytest.raises(MixedDevices):
            stages.open_aligned(micro_run)


def test_the_weights_that_the_stages_leave_lie_on_no_device(micro_run):
    for path in Path(micro_run.path).rglob("*.safetensors"):
        assert {value.device.type for value in load_file(path).values()} == {"cpu"}
