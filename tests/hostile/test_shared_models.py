"""A model that somebody shared, changed and signed anew: it is whole and the kit's own, or it is refused by name."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile import PLACES, contents, flipped, refused, truncated, write_bomb
from safetensors.torch import load_file, save_file
from shared_models import sign

from e2llm.app import hub_export
from e2llm.app.chat_session import ExportedModel
from e2llm.app.cli import main
from e2llm.app.hub_import import FACTS
from e2llm.app.thought_session import ExportedModelFromThought
from e2llm.models.lookup import ask_for_model

ADAPTER, STATISTICS = "adapter/adapter_model.safetensors", "population_statistics.safetensors"
DELETE = object()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever a file names, nobody is called."""
    def call(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", call)


def change(folder: Path, name: str, *keys: str, to: object) -> Path:
    """Replace or remove an entry of a JSON file, and sign the export anew."""
    stored = json.loads((folder / name).read_text())
    at = stored
    for key in keys[:-1]:
        at = at[key]
    if to is DELETE:
        del at[keys[-1]]
    else:
        at[keys[-1]] = to
    (folder / name).write_text(json.dumps(stored))
    if name != FACTS:
        sign(folder)
    return folder


def test_the_export_that_is_changed_below_is_one(own_export):
    assert "tiny" in repr(ExportedModel.from_pretrained(own_export))
    sign(own_export)
    assert ExportedModel.from_pretrained(own_export).label_set.labels[0] == "happy"
    assert ExportedModelFromThought.from_pretrained(own_export).second is not None


# --- e2llm.json


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..", "adapter/../../x"])
def test_members_outside_the_folder_are_refused(own_export, name):
    (own_export.parent / "secret").write_text("mine")
    change(own_export, FACTS, "files", name, to="0" * 64)
    with refused(FACTS, "lies outside the folder"):
        ExportedModel.from_pretrained(own_export)
    with refused(FACTS, "lies outside the folder"):
        hub_export.push_to_hub(own_export, "somebody/x", api=object())


@pytest.mark.parametrize("name", ["x\0y", "x\ny", "n" * 5000, "名" * 200, "\ud800", "CON", "🧠.json", ""])
def test_members_with_odd_names_are_named(own_export, name):
    change(own_export, FACTS, "files", name, to="0" * 64)
    with refused("export"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize("value", [[], 7, None, "text", {"a": 1}, DELETE],
                         ids=["list", "number", "null", "text", "mapping", "missing"])
@pytest.mark.parametrize("key", ["files", "language_model", "label_set", "ch_names", "preprocess", "statistics",
                                 "evidence"])
def test_facts_of_another_form_are_named(own_export, key, value):
    change(own_export, FACTS, key, to=value)
    with refused("export" if (key, value) == ("files", {"a": 1}) else FACTS):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize("label", ["</think>", "<|eeg|>", "<|im_end|>", "<script>alert(1)</script>", "$a$ $b$",
                                   "x" * 500,
                                   "a\nb", 7, None])
def test_labels_that_a_prompt_or_a_page_would_take_for_something_else(own_export, label):
    change(own_export, FACTS, "label_set", to={"name": "x", "labels": ["calm", label]})
    with refused(FACTS, "is damaged"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize(("name", "value"), [
    ("sfreq", 1e9), ("sfreq", float("nan")), ("sfreq", True), ("window_s", 0), ("window_s", 1e9), ("l_freq", -1.0),
    ("l_freq", 60.0), ("h_freq", "45"), ("h_trans", 0.0), ("lof_threshold", float("inf")), ("missing", "all"),
    ("quality", 7), ("wanted", ["<script>"]), ("extra", 1), ("wanted", 5)])
def test_preprocessing_that_cannot_be_is_named(own_export, name, value):
    change(own_export, FACTS, "preprocess", name, to=value)
    with refused(FACTS, "is damaged"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize("names", [["FZ", "CZ"], ["FZ", "CZ", "PZ"], ["FZ", "CZ", "../x"], ["FZ", "CZ", 7], ["FZ"] * 3])
def test_other_channels_than_the_weights_have(own_export, names):
    change(own_export, FACTS, "ch_names", to=names)
    with refused(FACTS, "is damaged"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"format":' * 20_000, b"\xff\xfe", b"", b"null", b"1" * 5000])
def test_facts_that_are_no_json(own_export, content):
    (own_export / FACTS).write_bytes(content)
    with refused(FACTS):
        ExportedModel.from_pretrained(own_export)


def test_the_command_line_says_it_in_one_line(own_export, capsys):
    for key, value in (("label_set", 7), ("files", {"../x": ""}), ("preprocess", {"sfreq": 1e9})):
        kept = (own_export / FACTS).read_bytes()
        change(own_export, FACTS, key, to=value)
        assert main(["ask", str(own_export), "x.edf", "?"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("e2llm: ") and said.count("\n") == 1 and FACTS in said
        (own_export / FACTS).write_bytes(kept)


# --- config.json


@pytest.mark.parametrize(("key", "value"), [
    ("eeg_width", 2**40), ("eeg_width", 10**6), ("eeg_width", -1), ("eeg_width", "64"), ("eeg_width", 0),
    ("projector_hidden", 10**6), ("projector_hidden", 2**62), ("eeg_tokens", 0), ("eeg_tokens", "2"), ("eeg_tokens", 3),
    ("evidence_slots", 10**9), ("evidence", 7), ("text_config", 7), ("text_config", {"model_type": "none"}),
    ("encoder", {"width": 64}), ("encoder", 7), ("language_model", 7), ("eeg_token_id", -5)])
def test_a_configuration_with_absurd_sizes(own_export, key, value):
    change(own_export, "config.json", key, to=value)
    with refused("export"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize(("key", "value"), [("width", 2**30), ("width", 10**6), ("depth", 2**40), ("heads", 0),
                                            ("heads", 3),
                                            ("summary_tokens", 10**6), ("mlp_ratio", -1), ("ch_names", ["<b>"]),
                                            ("ch_names", 7), ("new", 1)])
def test_an_encoder_with_absurd_sizes(own_export, key, value):
    change(own_export, "config.json", "encoder", key, to=value)
    with refused("export"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize(("key", "value"), [
    ("num_hidden_layers", 10**9), ("hidden_size", 10**9), ("vocab_size", 10**12), ("num_hidden_layers", -1),
    ("num_attention_heads", 0), ("model_type", "../x"), ("layer_types", 7), ("intermediate_size", 10**12)])
def test_a_language_model_with_absurd_sizes(own_export, key, value):
    change(own_export, "language_model/config.json", key, to=value)
    with refused("language_model"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize("name", ["config.json", "language_model/config.json"])
@pytest.mark.parametrize("content", ["[" * 50_000, "[]", "7", '{"model_type": ["x"]}', ""])
def test_a_configuration_that_is_none(own_export, name, content):
    (own_export / name).write_text(content)
    sign(own_export)
    with refused("export"):
        ExportedModel.from_pretrained(own_export)
    if name != "config.json":
        with refused("language_model"):
            ask_for_model(str(own_export / "language_model"))


@pytest.mark.parametrize("name", ["somebody/else", "/etc", "../..", "https://example.org/model", "x\0y", "a b"])
def test_a_configuration_that_sends_for_another_language_model(own_export, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    change(own_export, "config.json", "language_model", to=name)
    with refused("language model"):
        ExportedModel.from_pretrained(own_export)


# --- the adapter


@pytest.mark.parametrize(("key", "value"), [
    ("base_model_name_or_path", "somebody/else"), ("peft_type", "PROMPT_TUNING"), ("peft_type", "X"), ("r", 10**9),
    ("r", 0),
    ("r", True), ("r", "2"), ("target_modules", ["lm_head"]), ("target_modules", "(a+)+$"),
    ("modules_to_save", ["encoder"]),
    ("megatron_config", {"a": 1}), ("megatron_core", "antigravity"), ("auto_mapping",
                                                                      {"parent_library": "antigravity"}),
    ("init_lora_weights", "pissa"), ("loftq_config", {"a": 1}), ("layer_replication", [[0, 10**9]]), ("use_dora", True),
    ("trainable_token_indices", [1]), ("rank_pattern", {"q_proj": 10**9}), ("something_new", {"run": "me"}),
    ("revision", "main"), ("lora_alpha", "x"), ("r", DELETE), ("target_modules", DELETE)])
def test_an_adapter_that_asks_for_more_than_lora(own_export, key, value):
    change(own_export, "adapter/adapter_config.json", key, to=value)
    with refused("adapter", "copy"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize("what", ["missing", "another shape", "nan", "one more", "another name", "none"])
def test_an_adapter_whose_weights_are_not_whole(own_export, what):
    state = load_file(own_export / ADAPTER)
    first, name = next(iter(state.values())), next(iter(state))
    if what == "missing":
        del state[name]
    elif what == "another shape":
        state[name] = torch.zeros(3, 3)
    elif what == "nan":
        first[0, 0] = float("nan")
    elif what == "one more":
        state["base_model.model.language_model.lm_head.weight"] = torch.zeros(2, 2)
    elif what == "another name":
        state[f"{name}x"] = state.pop(name)
    else:
        state = {"x": torch.zeros(1)}
    save_file(state, own_export / ADAPTER)
    sign(own_export)
    with refused("adapter", "copy the folder again"):
        ExportedModel.from_pretrained(own_export)


# --- second_pass/


@pytest.mark.parametrize("value", [7, [], {}, {"questions": 7}, {"questions": []}, {"questions": ["label"]},
                                   {"questions": {"affect": {}}}, {"questions": {"label": {}, "lie": {}}}], ids=str)
def test_facts_of_a_second_pass_of_another_form_are_named(own_export, value):
    change(own_export, FACTS, "second_pass", to=value)
    with refused(FACTS, "questions"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize("key", ["levels", "thresholds", "questions"])
def test_a_second_pass_of_other_levels_and_questions(own_export, key):
    change(own_export, FACTS, "second_pass", key, to={"label": {"text": "?", "options": [7]}})
    with refused("second pass reads other levels or questions"):
        ExportedModelFromThought.from_pretrained(own_export)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_second_pass_without_a_file_in_the_list(own_export, name):
    (own_export / "second_pass" / name).unlink()
    sign(own_export)
    with refused(FACTS, f"second_pass/{name}"):
        ExportedModel.from_pretrained(own_export)


TOKENS = "trainable_token_indices"


@pytest.mark.parametrize(("key", "value"), [
    (TOKENS, None), (TOKENS, [1]), (TOKENS, {}), (TOKENS, {"lm_head": [1]}), (TOKENS, {"model.embed_tokens": []}),
    (TOKENS, {"model.embed_tokens": [10**9]}), (TOKENS, {"model.embed_tokens": [-1]}),
    (TOKENS, {"model.embed_tokens": [True]}), (TOKENS, {"model.embed_tokens": [5, 5, 7]}),
    (TOKENS, {"model.embed_tokens": "all"}), (TOKENS, {"model.layers.0.mlp": [1]}), (TOKENS, {"(a+)+$": [1]}),
    (TOKENS, {"model.embed_tokens": [5, 7]}), (TOKENS, DELETE), ("target_modules", "(a+)+$"),
    ("target_modules", ["lm_head"]), ("r", 0), ("modules_to_save", ["model"]), ("something_new", {"run": "me"})],
    ids=lambda value: "deleted" if value is DELETE else str(value))  # the address of an object differs by process
def test_a_second_pass_that_asks_for_more_than_its_adapter_and_tokens(own_export, key, value):
    change(own_export, "second_pass/adapter_config.json", key, to=value)
    assert ExportedModel.from_pretrained(own_export), "answers from the EEG do not need it"
    with refused("second_pass", "copy the folder again"):
        ExportedModelFromThought.from_pretrained(own_export)


@pytest.mark.parametrize("what", ["missing", "another shape", "nan", "one more"])
def test_a_second_pass_whose_weights_are_not_whole(own_export, what):
    path = own_export / "second_pass" / "adapter_model.safetensors"
    state = load_file(path)
    (name,) = (name for name in state if "token_adapter" in name)
    if what == "missing":
        del state[name]
    elif what == "another shape":
        state[name] = torch.zeros(2, 3)
    elif what == "nan":
        state[name][0, 0] = float("nan")
    else:
        state["base_model.model.lm_head.weight"] = torch.zeros(2, 2)
    save_file(state, path)
    sign(own_export)
    with refused("second_pass", "copy the folder again"):
        ExportedModelFromThought.from_pretrained(own_export)


# --- weights and statistics


@pytest.mark.parametrize("place", PLACES[:1])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [ADAPTER, STATISTICS, "model.safetensors", "language_model/model.safetensors"])
def test_weights_that_were_damaged_and_signed(own_export, name, seed, place):
    path = own_export / name
    whole = path.read_bytes()
    path.write_bytes((truncated if seed % 2 else flipped)(whole, place, seed))
    sign(own_export)
    before = contents(own_export)
    with refused("export"):
        ExportedModel.from_pretrained(own_export)
    assert contents(own_export) == before


@pytest.mark.parametrize("what", ["missing", "another shape", "nan", "one more"])
def test_weights_that_do_not_belong(own_export, what):
    path = own_export / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.startswith("encoder."))
    if what == "missing":
        del state[name]
    elif what == "another shape":
        state[name] = torch.zeros(3, 3, 3)
    elif what == "nan":
        state[name].view(-1)[0] = float("nan")
    else:
        state["language_model.lm_head.weight"] = torch.zeros(2, 2)
    save_file(state, path)
    sign(own_export)
    with refused("model.safetensors"):
        ExportedModel.from_pretrained(own_export)


@pytest.mark.parametrize(("name", "shape"), [("log_power", (3, 4)), ("log_power", (0, 5)), ("evidence", (1, 25)),
                                             ("evidence", (2, 3)),
                                             ("entropy", (2, 14)), ("entropy", (15,))])
def test_statistics_of_another_shape(own_export, name, shape):
    state = load_file(own_export / STATISTICS)
    save_file({**state, name: torch.zeros(shape)}, own_export / STATISTICS)
    sign(own_export)
    with refused(FACTS, "do not belong together"):
        ExportedModel.from_pretrained(own_export)


def test_a_zip_in_place_of_weights(own_export):
    write_bomb(own_export / STATISTICS, "log_power.npy", 1 << 20)
    sign(own_export)
    with refused(STATISTICS):
        ExportedModel.from_pretrained(own_export)


# --- export over what is there


@pytest.mark.parametrize("content", [b"[" * 50_000, b"[]", b'{"format": "e2llm-export", "files": 7}', b"\xff", b"7"])
def test_an_export_never_takes_a_folder_with_damaged_facts_for_its_own(tmp_path, content):
    (tmp_path / FACTS).write_bytes(content)
    (tmp_path / "thesis.txt").write_text("ten years of work")
    before = contents(tmp_path)
    with refused("which no export wrote"):
        hub_export._refuse_other_things(tmp_path)
    assert contents(tmp_path) == before


def test_arrays_of_numpy_are_no_statistics(own_export):
    np.save(own_export / "x.npy", np.ones(3))
    (own_export / STATISTICS).write_bytes((own_export / "x.npy").read_bytes())
    (own_export / "x.npy").unlink()
    sign(own_export)
    with refused(STATISTICS):
        ExportedModel.from_pretrained(own_export)
