"""An exported run gives the same bits elsewhere; its statistics are named; an incomplete or wrong folder is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import mne
import numpy as np
import pandas as pd
import pytest
import torch
from edfio import Edf, EdfSignal
from huggingface_hub import constants
from safetensors.numpy import save_file
from safetensors.torch import load_file

import e2llm
from e2llm.app import chat_session, evaluation_stage, hub_export, model_card, stage_code, stages
from e2llm.app.chat_session import E2LLM, ExportedModel, NewRecording
from e2llm.app.cli import main
from e2llm.app.hub_export import export, push_to_hub
from e2llm.app.hub_import import FACTS, VERSION, ExportError
from e2llm.app.model_card import public
from e2llm.app.runs import Run, StageMissing
from e2llm.app.thought_session import E2LLMFromThought
from e2llm.core.labels import SEED_VII
from e2llm.data.cleaning import windows_of
from e2llm.data.features import band_power, evidence
from e2llm.data.new_subject import MIN_SUBJECT_WINDOWS, NewSubject, PopulationStatistics, read_windows
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.simulation import TwinParams, simulate, truth_folder
from e2llm.data.sources.base import RecordingError
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.models.inference import InferenceEngine, probabilities, score_options
from e2llm.models.language import LanguageModelError, ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.tasks import items as items_module
from e2llm.training import stage3_instruction
from e2llm.training.losses import HeadParams
from e2llm.training.trainer import FitParams

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # few test windows
EEGMAT = Path(__file__).parents[3] / "shared" / "data" / "eegmat"
PROTOCOL = {"protocol": "joint", "fold": 0, "n_groups": 3, "normalization": "calibration", "accept_leaks": False}
QUESTION = "Which emotion is it?"
N_WINDOWS = 15  # a minute


def fit(steps: int, lr: float = 1e-3) -> FitParams:
    return FitParams(steps, 4, lr, save_steps=100)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> SeedVII:
    """Three people who saw one session."""
    return SeedVII(simulate(tmp_path_factory.mktemp("data") / "twin",
                            TwinParams(subjects=3, sessions=1, clips=15, seconds=(8.2, 9.0)), n_jobs=1))


def small_run(runs: Path, kind: str, root: Path, protocol: dict, **options) -> Run:
    """All five stages, a few steps each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("E2LLM_RUNS", str(runs))
        run = Run.open("small")
    stages.preprocess(run, kind, root, PreprocessParams(), n_jobs=1, **options)
    stages.train_encoder(run, stages.open_dataset(run, protocol), protocol, "tiny1", {}, "", fit(2), HeadParams(), 0)
    corpus = stages.open_dataset(run)
    stages.make_language_model(run, corpus, "scratch", "float32", ScratchParams(600, 64, 2), 40, 2, fit(4))
    stages.align(run, corpus, 2, 2, 12, 0.5, fit(2))
    stages.instruct(run, corpus, {"predict": 8, "compare": 8}, 0, stage3_instruction.AdapterParams(rank=4, alpha=8),
                    fit(4, 2e-2))
    truth = truth_folder(root) if kind == "seed-vii" else None
    evaluation_stage.evaluate(run, corpus, truth, 3, 2, False, False, 0, n_jobs=1, answer_from="eeg")
    return run


@pytest.fixture(scope="module")
def run(source, tmp_path_factory) -> Run:
    """Read only."""
    return small_run(tmp_path_factory.mktemp("runs"), "seed-vii", source.root, PROTOCOL)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    """An export; read only."""
    return export(run, tmp_path_factory.mktemp("exported") / "small")


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "export"))


@pytest.fixture(scope="module")
def model(folder) -> ExportedModel:
    return ExportedModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def minute(source) -> np.ndarray:
    """One person's signal, microvolts (62, samples), a minute at 200 Hz."""
    return np.concatenate([trial.signal for trial in source.trials(source.recordings[2])],
                          axis=1)[:, : 200 * 4 * N_WINDOWS]


def write_edf(path: Path, signal: np.ndarray, names=SeedVII.ch_names, sfreq: int = 200) -> Path:
    Edf([EdfSignal(x.astype(float), sfreq, label=name,
                   physical_dimension="uV") for name, x in zip(names, signal, strict=True)]).write(path)
    return path


@pytest.fixture(scope="module")
def edf(minute, tmp_path_factory) -> Path:
    return write_edf(tmp_path_factory.mktemp("edf") / "new.edf", minute)


# --- save, new process, load

SCRIPT = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
from e2llm import E2LLM, InferenceEngine
from e2llm.models.inference import score_options
from e2llm.tasks.items import read_items
folder, edf, given, out, question = sys.argv[1:]
model = E2LLM.from_pretrained(folder)
recording = model.read(edf)
said = str(recording.ask(3, question))
with np.load(given) as stored:
    tokens = stored["tokens"]
    engine = InferenceEngine(model.model, model.processor, tokens, {i: i for i in range(len(tokens))})
    signal = torch.from_numpy(stored["signal"])
items = read_items(given + ".jsonl")
with torch.no_grad():
    logits = model.model(**engine.inputs(items, False)).logits.numpy()
    np.savez(out, options=np.stack(score_options(engine, items)), logits=logits,
             encoded=model.model.encode(signal).numpy(), said=said)
"""


def test_a_new_process_gives_the_same_answers(run, folder, edf, model, tmp_path):
    from e2llm.tasks.items import write_items

    corpus = stages.open_dataset(run)
    trained, tokens = E2LLM.of_run(run, corpus).engine, np.load(run.path / "encoder" / "tokens.npy")
    position = {i: i for i in range(len(tokens))}
    items = items_module.prediction_items(corpus, corpus.split.test[:4], 0)
    items = [replace(item, messages=[{"role": "user",
                                      "content": [{"type": "eeg", "window": i}, *item.messages[0]["content"][1:]]}],
                     windows=[i])
             for i, item in enumerate(items)]
    signal = corpus.equalize(corpus.windows.data[:3], corpus.norm_groups[:3])
    np.savez(tmp_path / "given.npz", tokens=tokens, signal=signal.numpy())
    write_items(items, tmp_path / "given.npz.jsonl")
    moved = shutil.copytree(folder, tmp_path / "moved")
    environment = {**os.environ, "PYTHONPATH": str(Path(e2llm.__file__).parents[1]),
                   "E2LLM_RUNS": str(tmp_path / "nothing"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, moved, edf, tmp_path / "given.npz", tmp_path / "out.npz", QUESTION],
                   env=environment, check=True,
                   cwd=tmp_path)
    engine = InferenceEngine(trained.model, trained.processor, tokens, position)
    with np.load(tmp_path / "out.npz") as found, torch.no_grad():
        assert np.array_equal(found["options"], np.stack(score_options(engine, items)))
        assert np.array_equal(found["logits"], trained.model(**engine.inputs(items, False)).logits.numpy())
        # Weights of another file stand elsewhere in memory: a matrix product may differ in its last bit.
        np.testing.assert_allclose(found["encoded"],
                                   stages.load_encoder(run, corpus).encoder(signal).flatten(2).numpy(), atol=1e-5)
        assert str(found["said"]) == str(model.read(edf).ask(3, QUESTION))
    assert adapter_matters(folder, engine, items)


@torch.no_grad()
def adapter_matters(folder: Path, engine: InferenceEngine, items: list) -> bool:
    """Whether the model says something else without its adapter: else nothing above would show that it was loaded."""
    bare = replace(engine, model=E2LLMForConditionalGeneration.from_pretrained(folder))
    return not np.allclose(np.stack(score_options(bare, items)), np.stack(score_options(engine, items)), atol=1e-3)


def test_the_adapter_is_lora_alone_and_the_projector_the_trained_one(run, folder):
    lora = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert lora and all("lora_" in key for key in lora)
    assert any(value.abs().sum() for key, value in lora.items() if "lora_B" in key)
    settings = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert settings["modules_to_save"] is None and settings["base_model_name_or_path"] is None
    kept, before = load_file(folder / "model.safetensors"), load_file(run.path / "projector" / "projector.safetensors")
    trained = stages.open_instructed(run)[0].projector.state_dict()
    assert all(torch.equal(kept[f"projector.{key}"], value) for key, value in trained.items())
    assert not torch.equal(kept["projector.fc2.weight"], before["projector.fc2.weight"])


# --- what is written


def test_a_folder_is_json_and_safetensors_without_places_or_recordings(run, folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"README.md", FACTS, "config.json", "model.safetensors", "population_statistics.safetensors",
            "language_model/model.safetensors"} <= names
    assert {Path(name).suffix for name in names} <= {".md", ".json", ".safetensors", ".jinja"}
    for name in names:
        content = (folder / name).read_bytes()
        assert not any(str(place).encode() in content for place in (run.path, run.root, folder, Path.home() / "x"))
    facts = json.loads((folder / FACTS).read_text())
    assert facts["evidence"] == stages.open_dataset(run).evidence_names.columns and facts["statistics"] == "subject"
    assert facts["simulated"]
    assert PreprocessParams(**facts["preprocess"]) == PreprocessParams() and facts["people"] == 3


def test_a_place_of_this_machine_is_cut_off_or_refused(run, tmp_path, monkeypatch):
    given = {"weights": "/home/somebody/eegpt.ckpt", "name": "Qwen/Qwen3-0.6B", "list": ["../a/b.gguf", 1, None, ""]}
    assert public(given) == {"weights": "eegpt.ckpt", "name": "Qwen/Qwen3-0.6B", "list": ["b.gguf", 1, None, ""]}
    monkeypatch.setattr(hub_export, "model_card", lambda *_: f"see {run.path}/report.html")
    with pytest.raises(ExportError, match=r"README\.md would hold the path"):
        export(run, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_without_a_second_pass_answers_from_the_thought_are_not_there(folder, own, edf, capsys):
    """The same of an export that knows of no second pass, because an earlier version wrote it."""
    assert json.loads((folder / FACTS).read_text())["second_pass"] is None and not (folder / "second_pass").exists()
    assert '`answer_from="thought"` is not there' in (folder / "README.md").read_text()
    facts = json.loads((own / FACTS).read_text())
    del facts["second_pass"]
    (own / FACTS).write_text(json.dumps(facts))
    assert facts["version"] == 3 and isinstance(ExportedModel.from_pretrained(own), ExportedModel)
    for each in (folder, own):
        with pytest.raises(ExportError, match="no second pass, so answer_from='thought' is not there"):
            E2LLMFromThought.from_pretrained(each)
    assert main(["ask", str(folder), str(edf), QUESTION, "--answer-from", "thought"]) == 2
    error = capsys.readouterr().err
    assert "no second pass" in error and len(error.splitlines()) == 1


def test_an_earlier_export_is_replaced_and_nothing_else_ever(run, own, tmp_path):
    (own / "README.md").write_text("edited")
    assert "# small" in (export(run, own) / "README.md").read_text()
    (own / "thesis.txt").write_text("ten years of work")
    with pytest.raises(FileExistsError, match=r"holds thesis\.txt, which no export wrote"):
        export(run, own)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / FACTS).write_text('{"files": {"a": ""}}')
    with pytest.raises(FileExistsError, match="which no export wrote"):
        export(run, tmp_path / "notes")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        export(run, tmp_path / "file")
    assert (own / "thesis.txt").read_text() == "ten years of work"


def test_an_export_that_fails_leaves_what_was_there(run, own, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("disk full")

    monkeypatch.setattr(hub_export, "model_card", fail)
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    for target in (own, tmp_path / "fresh"):
        with pytest.raises(RuntimeError, match="disk full"):
            export(run, target)
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_export_that_cannot_be_put_in_place_leaves_what_was_there(run, own, monkeypatch, tmp_path):
    rename = Path.rename

    def fail(path, target):
        if path.suffix == ".part":
            raise PermissionError("in use")
        return rename(path, target)

    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError, match="in use"):
        export(run, own)
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


@pytest.mark.parametrize(("stage", "notebook"),
                         [("windows", "01_preprocessing"), ("encoder", "02_encoder"),
                          ("language_model", "03_alignment"),
                          ("adapter", "04_instruction_tuning"), ("evaluation", "05_evaluation")])
def test_an_unfinished_run_is_refused_with_the_notebook(run, tmp_path, stage, notebook):
    record = run.path / stage / "stage.json"
    record.rename(record.with_suffix(".away"))
    try:
        with pytest.raises(StageMissing, match=f"{notebook} with run_name = 'small'"):
            export(run, tmp_path / "export")
    finally:
        record.with_suffix(".away").rename(record)
    assert not list(tmp_path.iterdir())


def as_if_real(run: Run, monkeypatch, language: str = "") -> None:
    """Make the run one on recordings without a ground truth, and its language model one with a name."""
    require = Run.require

    def without_truth(self, name: str) -> dict:
        record = require(self, name)
        return {**record, "params": {**record["params"], "oracle": False}} if name == "evaluation" else record

    monkeypatch.setattr(Run, "require", without_truth)
    if language:
        opened = stages.open_language(run)
        monkeypatch.setattr(hub_export, "open_language", lambda run: opened)
        monkeypatch.setattr(hub_export, "_language_source", lambda run: {"name": language, "dtype": "float32"})


def test_real_recordings_need_a_name_and_a_license(run, tmp_path, monkeypatch):
    as_if_real(run, monkeypatch)
    for given in ({}, {"license": "cc0-1.0"}, {"dataset": "SEED-VII"}):
        with pytest.raises(ExportError, match="under which license"):
            export(run, tmp_path / "export", **given)
    facts = json.loads((export(run, tmp_path / "export", "cc-by-nc-4.0",
                               "SEED-VII, own recordings") / FACTS).read_text())
    assert (facts["license"], facts["dataset"],
            facts["simulated"]) == ("cc-by-nc-4.0", "SEED-VII, own recordings", False)
    card = (tmp_path / "export" / "README.md").read_text()
    assert "simulated" not in card.lower() and "The data have their own" in card


# --- the language model that belongs to it


def test_a_language_model_of_the_hub_is_named_and_one_of_this_machine_has_to_be_given(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        as_if_real(run, patch, "somebody/Small-1M@v2")
        hub = export(run, tmp_path / "hub", "mit", "x")
        as_if_real(run, patch, "/home/somebody/models/Small-1M")
        local = export(run, tmp_path / "local", "mit", "x")
        as_if_real(run, patch, "e2llm-tiny")
        kit = export(run, tmp_path / "kit", "mit", "x")
    assert (kit / "language_model" / "NOTICE.txt").is_file(), "with its licences"
    assert json.loads((kit / "config.json").read_text())["language_model"] == "language_model"
    assert not (hub / "language_model").exists()
    assert json.loads((hub / "config.json").read_text())["language_model"] == "somebody/Small-1M@v2"
    assert huggingface_hub.ModelCard((hub / "README.md").read_text()).data.base_model == "somebody/Small-1M"
    with pytest.raises(ExportError, match=r"local language model \(Small-1M\): give language_model="):
        ExportedModel.from_pretrained(local)
    assert "somebody" not in (local / "README.md").read_text() + (local / FACTS).read_text()
    assert (
        ExportedModel.from_pretrained(local, str(run.path / "language_model" / "model")).facts["language_model"]["name"]
        == "Small-1M"
    )


@pytest.mark.parametrize(("change", "fact"),
                         [({"hidden_size": 96}, "hidden_size is 96, not 64"),
                          ({"layers": 3}, "num_hidden_layers is 3, not 2"),
                          ({"vocab_size": 500}, "vocab_size is 500, not 600"), ({}, "its weights differ")])
def test_another_language_model_is_refused(run, folder, tmp_path, change, fact):
    tokenizer, place = stages.open_language(run)[1], run.path / "language_model" / "model" / "tokenizer.json"
    size = {"vocab_size": 600, "hidden_size": 64, "layers": 2, **change}
    if "vocab_size" in change:
        tokenizer = make_tokenizer(list(json.loads(place.read_text())["model"]["vocab"]), 500)
    new_language_model(tokenizer, ScratchParams(**size), 7).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises((LanguageModelError, ExportError), match=f"trained with another language model.*{fact}"):
        ExportedModel.from_pretrained(folder, str(tmp_path / "other"))


def test_another_tokenizer_of_the_same_size_is_refused(run, folder, tmp_path):
    other = Path(shutil.copytree(run.path / "language_model" / "model", tmp_path / "other"))
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [token for token, number in vocabulary.items() if number in (70, 71)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match="its tokenizer differs"):
        ExportedModel.from_pretrained(folder, str(other))


# --- folders that are not whole


def test_what_is_no_export_is_refused(own, tmp_path):
    for name, fact in ((tmp_path / "nothing", "is no folder"), (str(tmp_path / "nothing"), "is no folder"),
                       (tmp_path, f"holds no {FACTS}")):
        with pytest.raises(ExportError, match=fact):
            ExportedModel.from_pretrained(name)
    for content, fact in (("{", "is not JSON"), ("[]", "was not written by"),
                          ('{"format": "other"}', "was not written by")):
        (own / FACTS).write_text(content)
        with pytest.raises(ExportError, match=fact):
            ExportedModel.from_pretrained(own)


@pytest.mark.parametrize("name",
                         ["model.safetensors", "config.json", "adapter/adapter_model.safetensors",
                          "population_statistics.safetensors",
                          "language_model/tokenizer.json"])
def test_a_missing_or_changed_file_is_named(own, name):
    content = (own / name).read_bytes()
    for changed in (content[:-3], content[:50] + bytes([content[50] ^ 1]) + content[51:]):
        (own / name).write_bytes(changed)
        with pytest.raises(ExportError, match=f"{name} is not as it was exported"):
            ExportedModel.from_pretrained(own)
    (own / name).unlink()
    with pytest.raises(ExportError, match=f"{name} is missing"):
        ExportedModel.from_pretrained(own)


def test_claims_that_meant_something_else_are_refused(own):
    facts = json.loads((own / FACTS).read_text())
    facts["meanings"]["level"], facts["e2llm"] = 0.5, "0.0.7"
    (own / FACTS).write_text(json.dumps(facts))
    with pytest.raises(ExportError, match=r"install e2llm 0\.0\.7"):
        ExportedModel.from_pretrained(own)


@pytest.mark.parametrize("stage", ["windows", "adapter", "evaluation"])
def test_a_run_of_another_version_of_the_kit_is_not_exported_under_the_definitions_of_this_one(run, tmp_path, stage,
                                                                                               monkeypatch):
    code = stage_code.STAGES[stage]
    monkeypatch.setitem(stage_code.STAGES, stage, code._replace(version=code.version + 1))
    with pytest.raises(ExportError, match=rf"The stage '{stage}' .* by another version of the kit.* run the lessons"):
        export(run, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("version", [1, 2])
def test_an_export_of_another_version_is_refused(own, version):
    """Version 1 had no evidence tokens, version 2 other names in its files."""
    facts = json.loads((own / FACTS).read_text())
    (own / FACTS).write_text(json.dumps({**facts, "version": version}))
    message = rf"is an export of version {version}, this e2llm reads version {VERSION}: train its run again and export"
    with pytest.raises(ExportError, match=message):
        ExportedModel.from_pretrained(own)


def test_an_edited_card_is_no_damage(own):
    (own / "README.md").write_text("mine")
    assert "small" in repr(ExportedModel.from_pretrained(own))


# --- a new recording


def test_a_new_recording_is_cleaned_as_the_run_cleaned_its_own(model, source, minute, edf):
    found = model.read(edf)
    trial = replace(next(source.trials(source.recordings[2])), signal=minute)
    expected, _ = windows_of(trial, model.facts["ch_names"], PreprocessParams())
    assert isinstance(found, NewRecording) and len(found) == N_WINDOWS
    assert found.corpus.windows.data.shape == expected.shape
    assert np.abs(found.corpus.windows.data - expected).max() < 0.05  # µV; an EDF has 16 bits
    assert found.corpus.windows.index["label"].eq("").all()


def test_subject_statistics_bring_a_new_subject_to_the_population_and_evidence_to_zero(model, edf):
    corpus = model.read(edf).corpus
    assert corpus.z.mean(axis=0) == pytest.approx(0, abs=1e-4) and corpus.z.std(axis=0) == pytest.approx(1, abs=1e-4)
    signal = corpus.equalize(corpus.windows.data, corpus.norm_groups).numpy() * 1e3
    level = np.log(band_power(signal, 256.0)).mean(axis=0)
    before = np.log(corpus.windows.power).mean(axis=0)
    wanted = model.population.log_power
    assert np.abs(level - wanted).max() < 0.3 * np.abs(before - wanted).max() and np.abs(level - wanted).mean() < 0.05


def test_population_statistics_are_the_training_runs(run, model, edf):
    corpus, trained = model.read(edf, statistics="population").corpus, stages.open_dataset(run)
    fit_rows = trained.split.fit
    values = evidence(np.asarray(trained.windows.power), np.asarray(trained.windows.shape),
                      trained.windows.ch_names)[0][fit_rows]
    own = evidence(corpus.windows.power, corpus.windows.shape, corpus.windows.ch_names)[0]
    assert corpus.z == pytest.approx((own - values.mean(axis=0)) / values.std(axis=0), rel=1e-5, abs=1e-6)
    signal = corpus.equalize(corpus.windows.data[:2], corpus.norm_groups[:2]).numpy()
    assert signal == pytest.approx(corpus.windows.data[:2] * 1e-3, abs=1e-6)


def test_every_answer_names_the_statistics_it_was_compared_with(model, edf):
    subject, population = model.read(edf), model.read(edf, statistics="population")
    assert "transductive" in repr(subject) and "subjects that the model was trained on" in repr(population)
    for recording, words in ((subject, "subject statistics"), (population, "population statistics")):
        found = recording.ask(3, QUESTION)
        assert str(found).startswith(f"new.edf, window 3 from 12 s, {words}\nQ: {QUESTION}")
        assert words in found._repr_html_()
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert list(found.probabilities) == list(SEED_VII.labels)
        figure = found.figure()
        figure.canvas.draw()
        assert f"z against {words}" in {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
    with pytest.raises(ValueError, match="no statistics 'none'"):
        model.read(edf, statistics="none")


def test_claims_are_checked_against_the_new_file(model, edf):
    recording = model.read(edf)
    names, z = recording.corpus.evidence_names.columns, recording.corpus.z
    row, column = np.unravel_index(z[:, :25].argmax(), z[:, :25].shape)
    text = f"<think>\n{names[column].capitalize()} high. {names[column].capitalize()} low.\n</think>\n\nfear"
    assert [verdict.value for _, verdict in recording.explain(int(row), QUESTION, text).claims] == ["true", "false"]


def test_tasks_about_several_windows_and_files_work(model, edf, minute, tmp_path):
    second = write_edf(tmp_path / "later.edf", minute[:, :8000])
    recording = model.read(edf, second)
    assert len(recording) == N_WINDOWS + 10
    assert any("later.edf" in note and "windows are those of new.edf" in note for note in recording.notes)
    assert recording.corpus.windows.index["file"].unique().tolist() == ["new.edf", "later.edf"]
    assert recording.ask([3, 20], "compare").windows == ("new.edf, window 3 from 12 s, subject statistics",
                                                         "later.edf, window 5 from 20 s, subject statistics")
    assert set(recording.ask([0, 1, 2], "match").probabilities) == {"A", "B", "C"}
    with pytest.raises(ValueError, match="no window 25"):
        recording.ask(25, "predict")
    with pytest.raises(ValueError, match="at least one file"):
        model.read()


def test_the_overview_is_the_closed_set_of_every_window(model, edf, monkeypatch):
    monkeypatch.setattr(chat_session, "ENCODE_BATCH", 4)
    recording = model.read(edf)
    table, some = recording.overview(), recording.overview([7, 2])
    assert table.shape == (N_WINDOWS, 7) and list(table.columns) == list(SEED_VII.labels)
    assert table.sum(axis=1).to_numpy() == pytest.approx(1)
    for row in (7, 2):
        item = recording._item([row], "predict", None)
        alone = probabilities(score_options(recording._engine_for([row]), [item]))[0]
        assert table.loc[row].to_numpy() == pytest.approx(alone, abs=1e-5)
        assert some.loc[row].to_numpy() == pytest.approx(alone, abs=1e-5)
    assert table.std().max() > 1e-3  # windows differ
    with pytest.raises(ValueError, match=f"no window {N_WINDOWS}"):
        recording.overview([0, N_WINDOWS])


def test_what_is_shown_of_a_test_window_is_what_the_evaluation_wrote(run):
    """Every probability in predictions.csv, asked again with its wording behind a thought that names some label."""
    asked, written = E2LLM.of_run(run), pd.read_csv(run.path / "predictions.csv")
    items = items_module.prediction_items(asked.corpus, asked.corpus.split.test, 0)
    for i, (item, row) in enumerate(zip(items, written.to_dict("records"), strict=True)):
        label, question = SEED_VII.labels[i % 7], item.messages[0]["content"][-1]["text"].strip()
        found = asked.explain(item.windows, question, f"<think>\nThat fits {label}.\n</think>\n\n{label}")
        assert found.probabilities == pytest.approx({name: row[f"p({name})"] for name in SEED_VII.labels}, abs=1e-5)
    shares = written[[f"p({name})" for name in SEED_VII.labels]]
    assert len(items) > 6 and shares.std().max() > 1e-3  # windows differ


def test_a_few_missing_channels_are_interpolated_and_named(model, minute, edf, tmp_path):
    lost = ["F3", "CZ", "P4"]
    keep = [i for i, name in enumerate(SeedVII.ch_names) if name not in lost]
    path = write_edf(tmp_path / "fewer.edf", minute[keep], [f"EEG {SeedVII.ch_names[i]}-Ref" for i in keep])
    found, whole = model.read(path), model.read(edf).corpus.windows
    assert "fewer.edf: missing and interpolated: F3, CZ, P4" in repr(found)
    for name in lost:
        place = whole.ch_names.index(name)
        assert np.corrcoef(found.corpus.windows.data[:, place].ravel(), whole.data[:, place].ravel())[0, 1] > 0.7, name


@pytest.mark.parametrize(("change", "fact"), [
    (lambda s: (s[:40], SeedVII.ch_names[:40], 200), r"lacks 18 of the 58 channels .*TP8, P7, .*, O2.; at most 14"),
    (lambda s: (s[:3], ["Left", "Right", "Pulse"], 200),
     r"no channel with a known 10-05 name \(has \['Left', 'Right', 'Pulse'\]\)"),
    (lambda s: (s[:3], ["T3", "T7", "FZ"], 200), "more than one channel at T7"),
    (lambda s: (s[:3], ["FP1-F7", "F7-T7", "T7-P7"], 200), "has bipolar derivations only"),
    (lambda s: (s[:, :3840], SeedVII.ch_names, 64),
     "sampled at 64 Hz, but the frequencies of the windows need 100 Hz or more"),
    (lambda s: (s[:, :600], SeedVII.ch_names, 200), "3.0 s of signal is shorter than one window"),
    (lambda s: (s[:, : 800 * (MIN_SUBJECT_WINDOWS - 1)], SeedVII.ch_names, 200),
     "11 windows are too few for subject statistics"),
    (lambda s: (np.zeros_like(s), SeedVII.ch_names, 200), "every channel is flat")])
def test_a_recording_that_cannot_be_used_is_named(model, minute, tmp_path, change, fact):
    with pytest.raises(RecordingError, match=fact) as error:
        model.read(write_edf(tmp_path / "bad.edf", *change(minute)))
    assert "bad.edf" in str(error.value)


def test_a_file_that_is_no_recording_is_named(model, tmp_path):
    (tmp_path / "bad.edf").write_text("no EDF")
    for name, fact in (("bad.edf", "cannot be read by MNE"), ("none.edf", "is missing")):
        with pytest.raises(RecordingError, match=rf"{name} {fact}"):
            model.read(tmp_path / name)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Run:
    """A run on real EEG of three people, compared with population statistics; read only."""
    if not EEGMAT.is_dir():
        pytest.skip("the EEGMAT excerpt is not in shared/data/eegmat")
    protocol = {**PROTOCOL, "protocol": "subjects", "normalization": "population"}
    return small_run(tmp_path_factory.mktemp("runs"), "folder", EEGMAT, protocol, subjects=3)


def test_real_recordings_are_read_as_the_run_read_them(real, model):
    with pytest.raises(RecordingError, match=r"lacks 39 of the 58 channels .*FPZ, AF3, AF4"):
        model.read(EEGMAT / "Subject02_1.edf")
    corpus = stages.open_dataset(real)
    rows = np.flatnonzero(corpus.subjects == np.unique(corpus.subjects)[2])
    found, notes = read_windows([EEGMAT / "Subject02_1.edf", EEGMAT / "Subject02_2.edf"], corpus.windows.ch_names,
                                PreprocessParams(), "population")
    assert np.array_equal(found.data, corpus.windows.data[rows])
    assert np.array_equal(found.power, corpus.windows.power[rows]) and len(rows) > 50
    assert not any("missing" in note for note in notes)
    new_subject = NewSubject.of(found, corpus.label_set, PopulationStatistics.of(corpus), "population")
    assert new_subject.z == pytest.approx(corpus.z[rows], abs=1e-5)
    given, norm_groups = corpus.windows.data[rows[:2]], corpus.norm_groups[rows[:2]]
    assert torch.equal(new_subject.equalize(found.data[:2], new_subject.norm_groups[:2]),
                       corpus.equalize(given, norm_groups))


def test_a_real_person_whom_no_training_met_is_asked_about(real, tmp_path):
    model = ExportedModel.from_pretrained(export(real, tmp_path / "eegmat", "odc-by", "EEGMAT, three people"))
    recording = model.read(EEGMAT / "Subject09_1.edf", EEGMAT / "Subject09_2.edf")
    found = recording.ask(3, "Which state is it?")
    assert list(found.probabilities) == ["mental arithmetic", "rest"] and "population statistics" in str(found)
    assert np.isfinite(recording.corpus.z).all() and len(recording) > 50
    assert "Which state is it?" in (tmp_path / "eegmat" / "README.md").read_text()


# --- the card


def test_the_card_states_every_score_with_chance_interval_and_controls(run, folder):
    text = (folder / "README.md").read_text()
    metrics = run.read_metrics()
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in text.splitlines()
             if line.startswith("| ")}
    for row in metrics["tables"]["tier_1"]:
        shown = [f"{100 * row['score']:.1f}", f"{100 * row['low']:.1f} – {100 * row['high']:.1f}",
                 f"{100 * row['chance']:.1f}",  # one person is tested, so there is no interval over clips
                 f"{100 * row['best without EEG']:.1f}", str(row["n"])]
        assert lines[row["name"]] == shown
    for row in metrics["tables"]["tiers_2_and_3"]:
        assert f"{100 * row['score']:.1f} ({100 * row['low']:.1f} – {100 * row['high']:.1f})" in lines[row["name"]]
        assert lines[row["name"]][-2] == f"{100 * row['chance']:.1f}"
    for row in metrics["tables"]["shortcuts"]:
        assert lines[row["name"]][0] == f"{100 * row['score']:.1f}"
    for fact in (metrics["facts"]["what is unseen"], *metrics["facts"]["audit"], "simulated twin of SEED-VII",
                 "E2LLM.from_pretrained",
                 "model.read("):
        assert fact in text
    data = huggingface_hub.ModelCard(text).data
    assert (data.library_name, data.license) == ("e2llm", "mit") and {"eeg", "simulated-data"} <= set(data.tags)
    assert data.base_model is None
    (imported,) = [line for line in text.splitlines() if line.startswith("from e2llm")]
    names = {}
    exec(imported, names)
    assert names["E2LLM"] is E2LLM


def test_a_leaky_run_is_stamped_and_model_text_cannot_mark_up_the_card(run, folder, monkeypatch):
    metrics = run.read_metrics()
    metrics["facts"]["stamp"] = "LEAKY: clip_on_both_sides"
    metrics["samples"] = [{"question": "?", "answer": "a\n# heading\n```\n<script>alert(1)</script>", "truth": "fear"}]
    monkeypatch.setattr(Run, "read_metrics", lambda self: metrics)
    text = model_card.model_card(run, json.loads((folder / FACTS).read_text()))
    assert "> **LEAKY: clip_on_both_sides. Do not use these scores.**" in text
    assert "    answer: a # heading ``` <script>alert(1)</script>\n" in text and text.count("<script>") == 1


def test_what_lesson_07_found_stands_in_the_card(run, folder, tmp_path):
    facts = json.loads((folder / FACTS).read_text())
    assert "was not measured for this run (lesson 07)" in model_card.model_card(run, facts)
    reviewed = Run("small", tmp_path, tmp_path)
    reviewed.write_metrics(run.read_metrics())
    stage = reviewed.stage("reasoning", {}).begin()
    (stage.path / "claims.csv").write_text("name,group,score,low,high,chance,n,claims a "
                                           "window\nLLM,precision,0.977,0.973,0.981,0.256,357,4.2\n")
    stage.finish()
    assert "| LLM, precision | 97.7 | 97.3 – 98.1 | 25.6 | 357 |" in model_card.model_card(reviewed, facts)


# --- the hub


class Hub:
    """A hub that notes what it is asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked, self.error = [], error

    def create_repo(self, repo_id: str, **given) -> str:
        self.asked.append(("create", repo_id, given))
        if self.error is not None:
            raise self.error
        return f"hub/{repo_id}"

    def upload_folder(self, **given) -> None:
        self.asked.append(("upload", given["repo_id"], given))


def test_pushing_uploads_what_was_exported_and_nothing_else(own):
    hub = Hub()
    assert push_to_hub(own, "somebody/small", api=hub) == "hub/somebody/small"
    (_, _, made), (_, _, sent) = hub.asked
    assert made == {"private": True, "exist_ok": True} and Path(sent["folder_path"]) == own
    assert set(sent["allow_patterns"]) == {path.relative_to(own).as_posix() for path in own.rglob("*")
                                           if path.is_file()}


def test_half_a_folder_is_never_pushed(own):
    (own / "model.safetensors").unlink()
    hub = Hub()
    with pytest.raises(ExportError, match=r"model\.safetensors is missing"):
        push_to_hub(own, "somebody/small", api=hub)
    assert not hub.asked


def test_a_hub_that_refuses_or_is_offline_gives_one_sentence(folder, monkeypatch):
    with pytest.raises(ExportError, match=r"could not be uploaded to somebody/small \(no permission\)"):
        push_to_hub(folder, "somebody/small", api=Hub(OSError("no permission\nRequest ID 7")))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ExportError, match=r"could not be uploaded to somebody/small .*network"):
        push_to_hub(folder, "somebody/small")
    with pytest.raises(ExportError, match="'somebody/small' is no local folder, and the hub did not return it"):
        ExportedModel.from_pretrained("somebody/small")


def test_a_hub_id_and_its_revision_are_loaded(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name,
                        **given: asked.append((name, given)) or str(folder))
    assert isinstance(E2LLM.from_pretrained("somebody/small", revision="v1"), ExportedModel)
    assert asked[0][0] == "somebody/small" and asked[0][1]["revision"] == "v1"
    assert not any(pattern.endswith((".bin", ".pt", ".py")) or pattern == "*"
                   for pattern in asked[0][1]["allow_patterns"])
    with pytest.raises(ExportError, match="has no revision 'v1'"):
        ExportedModel.from_pretrained(folder, revision="v1")


# --- the command line


def test_share_and_ask_on_the_command_line(run, edf, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("E2LLM_RUNS", str(run.path.parent))
    assert main(["export", "small", str(tmp_path / "out")]) == 0
    assert main(["ask", str(tmp_path / "out"), str(edf), QUESTION, "--window", "3", "--statistics", "population"]) == 0
    assert f"new.edf, window 3 from 12 s, population statistics\nQ: {QUESTION}" in capsys.readouterr().out
    assert main(["ask", str(tmp_path / "out"), str(edf), "Is this person lying?"]) == 1
    said = capsys.readouterr().out
    assert "was not taught this question" in said and "(predict)" in said and "Thought:" not in said
    raw = mne.io.read_raw(edf, verbose="error")
    table = pd.DataFrame(raw.get_data(units="uV").T, columns=raw.ch_names)
    table.to_csv(tmp_path / "new.csv", index=False)
    asked = ["ask", str(tmp_path / "out"), str(tmp_path / "new.csv"), QUESTION]
    assert main([*asked, "-o", "unit=uV", "-o", f"sfreq={raw.info['sfreq']:g}"]) == 0
    assert f"Q: {QUESTION}" in capsys.readouterr().out
    for arguments, fact in ((["export", "nobody", "out"], "no run 'nobody'"),
                            ([*asked, "-o", "sfreq=100"], "does not say the unit"),
                            ([*asked, "-o", "speed=100"], "has no option speed"),
                            (["ask", str(tmp_path / "out"), "none.edf", "?"], "none.edf is missing"),
                            (["ask", str(tmp_path), "none.edf", "?"], "is no export"),
                            (["ask", str(tmp_path / "out"), str(edf), "?", "--language-model", "./none"],
                             "is no folder")):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("e2llm: ") and fact in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("place", [(0, 0), (1, -1), (0, 2)])
@pytest.mark.parametrize(("name", "value"), [("evidence", np.nan), ("entropy", np.inf), ("log_power", -np.inf)])
def test_statistics_of_a_shared_model_that_are_no_numbers_are_refused(tmp_path, name, value, place):
    made = PopulationStatistics(*(np.ones((2, 5), np.float32) for _ in range(3)))
    made.save(tmp_path / "statistics.safetensors")
    assert np.array_equal(PopulationStatistics.open(tmp_path / "statistics.safetensors").entropy, made.entropy)
    getattr(made, name)[place] = value
    made.save(tmp_path / "statistics.safetensors")
    with pytest.raises(ValueError, match=rf"statistics.safetensors: {name} holds values that are not finite"):
        PopulationStatistics.open(tmp_path / "statistics.safetensors")


def test_other_tensors_are_no_statistics(tmp_path):
    save_file({"evidence": np.ones((2, 5), np.float32)}, tmp_path / "statistics.safetensors")
    with pytest.raises(ValueError, match=r"holds \['evidence'\], not \['log_power', 'evidence', 'entropy'\]"):
        PopulationStatistics.open(tmp_path / "statistics.safetensors")
