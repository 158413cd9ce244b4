"""Pickles in disguise: whatever their name, they are never unpickled where the kit opens files of others."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hostile import Payload, contents, refused, the_kit_says
from recordings import brain, write_edf, write_table

from e2llm.core.chat import EEG_TOKEN
from e2llm.data.preprocessing import Windows
from e2llm.data.sources.base import RecordingError, open_raw
from e2llm.data.sources.faced import read_pickled_array
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.data.sources.tables import read_table
from e2llm.evaluation.baselines import oracle
from e2llm.models.eegpt_weights import read_checkpoint
from e2llm.models.language import LanguageModelError, load_language_model


@pytest.fixture
def harm(tmp_path) -> Path:
    """A folder that only a payload makes."""
    place = tmp_path / "harm"
    yield place
    assert not place.exists(), "the payload ran"


def test_the_payload_is_one(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "harm")))
    assert (tmp_path / "harm").is_dir()


def as_pickle(path: Path, harm: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(harm)))


def as_npy(path: Path, harm: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Payload(harm)], dtype=object), allow_pickle=True)


def as_npz(path: Path, harm: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, data=np.array([Payload(harm)], dtype=object))


def as_torch(path: Path, harm: Path) -> None:
    torch.save({"chan_embed.weight": torch.ones(2), "more": Payload(harm)}, path)


def as_old_torch(path: Path, harm: Path) -> None:
    torch.save({"chan_embed.weight": torch.ones(2), "more": Payload(harm)}, path, _use_new_zipfile_serialization=False)


DISGUISES = (as_pickle, as_npy, as_npz, as_torch, as_old_torch)


@pytest.mark.parametrize("suffix", [".mat", ".npy", ".npz", ".pkl", ".set", ".fif", ".edf", ".dat", ".safetensors",
                                    ".pt"])
@pytest.mark.parametrize("write", DISGUISES[:2])
def test_as_a_recording(tmp_path, harm, write, suffix):
    root = tmp_path / "mine"
    write_edf(root / "a.edf", brain(8.0))
    write(root / f"b{suffix}", harm)
    write_table(root, ["a.edf", f"b{suffix}"])
    before, source = contents(root), LabelledFolder(root)
    assert source.check(source.recordings[0])
    with refused(f"b{suffix}"):
        source.check(source.recordings[1])
    with refused(f"b{suffix}"):
        open_raw(root / f"b{suffix}")
    assert contents(root) == before


@pytest.mark.parametrize("write", DISGUISES)
def test_as_a_subject_of_seed_vii_and_as_its_intensities(own_twin, harm, write):
    for name in ("EEG_preprocessed/1.mat", "continuous_labels/2.mat"):
        write(own_twin / name, harm)
    source = SeedVII(own_twin)
    for number in (0, 1):
        with refused(f"{number + 1}.mat"):
            list(source.trials(source.recordings[number]))
    assert len(list(source.trials(source.recordings[2]))) == 2


@pytest.mark.parametrize("write", DISGUISES)
def test_as_a_subject_of_faced(tmp_path, harm, write):
    write(tmp_path / "sub000.pkl", harm)
    with refused("sub000.pkl"):
        read_pickled_array(tmp_path / "sub000.pkl")


@pytest.mark.parametrize("code", [b"cbuiltins\neval\n(S'1'\ntR.", b"cos\nsystem\n(S'true'\ntR.",
                                  b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.",
                                  b"cnumpy\nfromfile\n(S'x'\ntR.", b"cnumpy.core.multiarray\nexec\n.",
                                  b"cnumpy\ndtype.__class__\n."])
def test_a_pickle_of_faced_calls_nothing_that_an_array_does_not_need(tmp_path, code):
    (tmp_path / "sub000.pkl").write_bytes(code)
    with refused("sub000.pkl", "is no pickled array of numbers"):
        read_pickled_array(tmp_path / "sub000.pkl")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npy"])
@pytest.mark.parametrize("write", DISGUISES)
def test_as_weights_of_an_encoder(tmp_path, harm, write, suffix):
    write(tmp_path / f"weights{suffix}", harm)
    with refused(f"weights{suffix}"):
        read_checkpoint(tmp_path / f"weights{suffix}")


@pytest.mark.parametrize("write", DISGUISES)
def test_as_weights_of_a_language_model(micro_language, tmp_path, harm, write):
    folder = Path(shutil.copytree(micro_language, tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    write(folder / "pytorch_model.bin", harm)
    with pytest.raises(LanguageModelError) as caught:
        load_language_model(str(folder))
    the_kit_says(caught.value, str(folder))


@pytest.mark.parametrize("name", ["data.npy", "data.power.npy", "data.shape.npy"])
def test_as_an_array_of_windows(windows, tmp_path, harm, name):
    folder = Path(shutil.copytree(Path(windows.data.filename).parent, tmp_path / "windows"))
    as_npy(folder / name, harm)
    with refused(str(folder)):
        Windows.open(folder)


def test_as_the_truth_of_a_twin(twin, tmp_path, harm):
    truth = Path(shutil.copytree(twin.with_name(f"{twin.name}-truth"), tmp_path / "truth"))
    with np.load(truth / "truth.npz") as stored:
        known = dict(stored)
    np.savez(truth / "truth.npz", **{**known, "latents": np.array([Payload(harm)], dtype=object)})
    with refused(str(truth), "simulate the twin again"):
        oracle(truth, pd.DataFrame({"subject": ["1"], "clip": [1], "start_s": [0.0]}))


@pytest.mark.parametrize("name", ["labels.csv", "labels.xlsx"])
@pytest.mark.parametrize("write", DISGUISES)
def test_as_a_table_of_labels(tmp_path, harm, write, name):
    write(tmp_path / name, harm)
    try:
        read_table(tmp_path / name)
    except Exception as error:
        the_kit_says(error, name)
    else:
        assert name == "labels.csv"


def test_code_that_comes_with_a_language_model_is_neither_run_nor_asked_about(micro_language, tmp_path, harm,
                                                                              monkeypatch):
    """``auto_map`` names classes in files beside the weights; transformers would ask on a terminal."""
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(1) or "y")
    for model_type in ("qwen3", "harmful"):
        folder = Path(shutil.copytree(micro_language, tmp_path / model_type))
        (folder / "harmful.py").write_text(f"import os\nos.mkdir({str(harm)!r})\n")
        for name in ("config.json", "tokenizer_config.json"):
            stored = json.loads((folder / name).read_text())
            stored |= {"auto_map": {auto: "harmful.Harm" for auto in ("AutoConfig", "AutoModelForCausalLM")}}
            stored["auto_map"]["AutoTokenizer"] = ["harmful.Harm", "harmful.Harm"]
            stored |= {"model_type": model_type} if name == "config.json" else {}
            (folder / name).write_text(json.dumps(stored))
        try:
            _, tokenizer = load_language_model(str(folder))
            assert model_type == "qwen3" and EEG_TOKEN in tokenizer.get_vocab()
        except LanguageModelError as error:
            the_kit_says(error, str(folder))
    assert not asked


def test_a_packed_file_of_torch_is_asked_for_its_size(tmp_path):
    torch.save({"chan_embed.weight": torch.zeros(1 << 20)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, \
            zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in whole.namelist():
            packed.writestr(member, whole.read(member))
    assert (tmp_path / "weights.pt").stat().st_size < 20_000
    with refused("weights.pt", "unpacks to 4 MB"):
        read_checkpoint(tmp_path / "weights.pt")
    assert read_checkpoint(tmp_path / "whole.pt").tensors


def test_other_recordings_go_on_beside_pickles(tmp_path, harm):
    root = tmp_path / "mine"
    names = [f"{write.__name__}.mat" for write in DISGUISES]
    write_edf(root / "z.edf", brain(8.0))
    for write, name in zip(DISGUISES, names, strict=True):
        write(root / name, harm)
    write_table(root, [*names, "z.edf"])
    source, reasons = LabelledFolder(root), {}
    for recording in source.recordings:
        try:
            source.check(recording)
        except RecordingError as error:
            reasons[recording.name] = str(error)
    assert list(reasons) == names
