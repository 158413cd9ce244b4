"""EEG enters where the placeholders stand, in order, and a saved model answers the same anywhere."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from e2llm.core.chat import EEG_TOKEN, END_THINK, IGNORE, THINK
from e2llm.models import language, modeling
from e2llm.models.adapting import adapted
from e2llm.models.eegpt import EEGPT, N_PATCHES, PATCH, eegpt_config
from e2llm.models.language import (
    LanguageModelError,
    ScratchParams,
    load_language_model,
    make_tokenizer,
    new_language_model,
)
from e2llm.models.modeling import E2LLMConfig, E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.training.stage3_instruction import LORA_TARGETS

TEXTS = ["Which segment is more pleasant? A: B: C:", "The segment shows fear 7, unpleasant and activated. happy sad "
                                                     "neutral"]
CHANNELS = ["FZ", "CZ", "OZ"]
EEG_TOKENS, WIDTH = 4, 64


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(TEXTS, 320)


@pytest.fixture(scope="module")
def language_folder(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    model = new_language_model(tokenizer, ScratchParams(320, hidden_size=64, layers=2, heads=4, max_positions=512),
                               seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def join(tokenizer, language_folder):
    def make(eeg_tokens: int = EEG_TOKENS, encoder: EEGPT | None = None, seed: int = 0, source: str | None = None):
        language, _ = load_language_model(str(language_folder))
        source = source or str(language_folder)
        return E2LLMForConditionalGeneration.join(language, tokenizer, source, encoder, WIDTH, eeg_tokens, seed).eval()

    return make


@pytest.fixture
def model(join):
    return join()


@pytest.fixture
def processor(tokenizer):
    return E2LLMProcessor(tokenizer, EEG_TOKENS)


def small_encoder() -> EEGPT:
    torch.manual_seed(3)
    return EEGPT(eegpt_config("tiny1"), CHANNELS).eval()


def eeg(n: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, N_PATCHES, WIDTH, generator=torch.Generator().manual_seed(seed))


def asking(*parts: str | int) -> list[dict]:
    """Messages of a question; numbers are windows."""
    content = [{"type": "eeg", "window": p} if isinstance(p, int) else {"type": "text", "text": p} for p in parts]
    return [{"role": "user", "content": content}]


QUESTIONS = [asking(5, " Which segment is more pleasant?"), asking("A: ", 9, " B: ", 2, " more pleasant?"),
             asking("neutral sad?")]


def padded(processor, side: str, questions=QUESTIONS):
    return processor.pad([processor.ids(processor.prompt(messages, True)) for messages in questions], side)


def project_by_hand(model, features: np.ndarray) -> np.ndarray:
    """Mean of neighboring patches, LayerNorm, two layers with GELU."""
    p = {name: value.detach().double().numpy() for name, value in model.projector.named_parameters()}
    per = N_PATCHES // model.config.eeg_tokens
    rows = []
    for k in range(model.config.eeg_tokens):
        x = np.mean([features[k * per + i] for i in range(per)], axis=0)
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * p["norm.weight"] + p["norm.bias"]
        hidden = torch.from_numpy(p["fc1.weight"] @ x + p["fc1.bias"])
        rows.append(p["fc2.weight"] @ torch.nn.functional.gelu(hidden).numpy() + p["fc2.bias"])
    return np.stack(rows)


def embeddings_by_hand(model, ids: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    tokens = np.concatenate([project_by_hand(model, segment.double().numpy()) for segment in features])
    table, out, used = model.get_input_embeddings().weight, [], 0
    for row in ids.tolist():
        line = []
        for token in row:
            if token == model.config.eeg_token_id:
                line.append(torch.from_numpy(tokens[used]).float())
                used += 1
            else:
                line.append(table[token])
        out.append(torch.stack(line))
    assert used == len(tokens)
    return torch.stack(out)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("eeg_tokens", [1, 4, 16])
def test_placeholders_become_eeg_in_order(join, tokenizer, side, eeg_tokens):
    model, features = join(eeg_tokens), eeg(3)
    ids, _ = padded(E2LLMProcessor(tokenizer, eeg_tokens), side)
    assert (ids == model.config.eeg_token_id).sum(dim=1).tolist() == [eeg_tokens, 2 * eeg_tokens, 0]
    placed = model.put_eeg_at_placeholders(ids, features)
    torch.testing.assert_close(placed, embeddings_by_hand(model, ids, features), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_of_segments_matters(model, processor):
    ids, mask = padded(processor, "left", QUESTIONS[1:2])
    features = eeg(2)
    one, other = (model(input_ids=ids, attention_mask=mask, eeg_features=f).logits[:, -1]
                  for f in (features, features.flip(0)))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("n", [2, 4])
def test_a_wrong_number_of_segments_is_refused(model, processor, n):
    ids, mask = padded(processor, "left")
    with pytest.raises(ValueError, match=rf"text has 12 EEG placeholders, {n} segments need {4 * n}"):
        model(input_ids=ids, attention_mask=mask, eeg_features=eeg(n))


@pytest.mark.parametrize("eeg_tokens", [3, 5, 32])
def test_eeg_tokens_must_divide_the_patches(join, eeg_tokens):
    with pytest.raises(ValueError, match=f"^{eeg_tokens} state tokens of a segment do not divide its 16 time patches"):
        join(eeg_tokens).projector(eeg(2))
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="eeg_tokens must be 1 or more"):
            E2LLMConfig(eeg_tokens=wrong)


@pytest.mark.parametrize(("patches", "eeg_tokens"), [(4, 2), (8, 4), (20, 5), (1, 1)])
def test_a_segment_may_have_any_number_of_time_patches(join, patches, eeg_tokens):
    features = torch.randn(3, patches, WIDTH)
    projector = join(eeg_tokens).projector
    tokens = projector(features)
    assert tokens.shape[:2] == (3, eeg_tokens)
    first = features[:, : patches // eeg_tokens].mean(dim=1, keepdim=True).expand(-1, eeg_tokens, -1)
    torch.testing.assert_close(projector(first)[:, 0], tokens[:, 0])


def test_projected_eeg_has_the_size_of_word_embeddings(join):
    words = join().get_input_embeddings().weight.std()
    tokens = join().projector(eeg(50)).std()
    assert 0.1 < tokens / words < 10


@torch.no_grad()
def greedy_by_hand(model, ids: torch.Tensor, features: torch.Tensor, n: int) -> list[int]:
    """Everything is read again for every new token: no cache, no padding."""
    embeddings, said = embeddings_by_hand(model, ids, features), []
    for _ in range(n):
        token = int(model.language_model(inputs_embeds=embeddings).logits[0, -1].argmax())
        said.append(token)
        if token == model.config.text_config.eos_token_id:
            break
        embeddings = torch.cat([embeddings, model.get_input_embeddings().weight[token].view(1, 1, -1)], dim=1)
    return said


def loosen(model, seed: int) -> None:
    """Make what a fresh model says depend on all of its prompt."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if parameter.ndim == 2:
                parameter.add_(0.2 * torch.randn_like(parameter) * (0.3 if "embed" in name else 1.0))


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_is_the_greedy_loop(model, processor, tokenizer, use_cache):
    loosen(model, 0)
    features = eeg(3)
    ids, mask = padded(processor, "left", QUESTIONS[:2])
    out = model.generate(input_ids=ids, attention_mask=mask, eeg_features=features, max_new_tokens=12, do_sample=False,
                         use_cache=use_cache, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)
    assert torch.equal(out[:, : ids.shape[1]], ids)
    segments = [features[:1], features[1:]]
    for row in range(2):
        alone, _ = padded(processor, "left", QUESTIONS[row : row + 1])
        expected = greedy_by_hand(model, alone, segments[row], 12)
        assert out[row, ids.shape[1] : ids.shape[1] + len(expected)].tolist() == expected
        other = greedy_by_hand(model, alone, segments[row] + 3 * eeg(len(segments[row]), seed=9), 12)
        assert other != expected  # what is said depends on the EEG


@torch.no_grad()
def test_several_answers_have_the_same_segments(model, processor, tokenizer):
    loosen(model, 0)
    features = eeg(3)
    ids, mask = padded(processor, "left", QUESTIONS[:2])
    options = {"max_new_tokens": 6, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    once = model.generate(input_ids=ids, attention_mask=mask, eeg_features=features, do_sample=False, **options)
    twice = model.generate(input_ids=ids, attention_mask=mask, eeg_features=features, do_sample=True, top_k=1,
                           num_return_sequences=2, **options)
    assert torch.equal(twice, once.repeat_interleave(2, dim=0))
    beams = model.generate(input_ids=ids, attention_mask=mask, eeg_features=features, do_sample=False, num_beams=3,
                           **options)
    alone = model.generate(input_ids=ids[1:], attention_mask=mask[1:], eeg_features=features[1:], do_sample=False,
                           num_beams=3,
                           **options)
    assert torch.equal(beams[1], alone[0])


@torch.no_grad()
def test_padding_changes_nothing_for_the_real_tokens(model, processor):
    features, segments = eeg(3), [eeg(3)[:1], eeg(3)[1:], None]
    rows = [processor.ids(processor.prompt(messages, True)) for messages in QUESTIONS]
    for side in ("left", "right"):
        ids, mask = processor.pad(rows, side)
        assert mask.sum(dim=1).tolist() == [len(row) for row in rows]
        logits = model(input_ids=ids, attention_mask=mask, eeg_features=features).logits
        for row, own, real, predicted_evidence in zip(logits, rows, mask.bool(), segments, strict=True):
            alone = model(input_ids=torch.tensor([own]), eeg_features=predicted_evidence).logits[0]
            torch.testing.assert_close(row[real], alone, atol=1e-4, rtol=1e-4)


def test_only_the_response_carries_loss(processor, tokenizer):
    messages = asking(7, " more pleasant? ", 8)
    for thinking in (True, False):
        example = processor.training_example(messages, "The segment shows fear 7.", thinking)
        prompt = tokenizer(processor.prompt(messages, thinking), add_special_tokens=False)["input_ids"]
        answer = tokenizer("The segment shows fear 7.<|im_end|>", add_special_tokens=False)["input_ids"]
        assert example["input_ids"] == prompt + answer
        assert example["labels"] == [IGNORE] * len(prompt) + answer
        assert example["windows"] == [7, 8]


def test_items_cut_together_have_the_ids_that_each_has_by_itself(processor):
    """Against the plain way: prompt, thought and answer are cut one after the other."""
    turns = [(asking("A: ", 1, " B: ", 2), f"{THINK}\nLow.\n{END_THINK}\n\nA > B", True),
             (QUESTIONS[0], "fear", False), ([{"role": "user", "content": ""}], "", False)]
    together, tokenizer = processor.training_examples(turns), processor.tokenizer
    for (messages, response, thinking), example in zip(turns, together, strict=True):
        thought, end, answer = response.rpartition(f"{END_THINK}\n\n")
        prompt, *said = (tokenizer(text, add_special_tokens=False)["input_ids"]
                         for text in (processor.prompt(messages, thinking), thought + end, answer))
        said = [*said[0], *said[1], tokenizer.eos_token_id]
        assert example == {"input_ids": prompt + said, "labels": [IGNORE] * len(prompt) + said,
                           "windows": processor.windows(messages), "brief": [False] * len(processor.windows(messages))}
    assert processor.training_examples([]) == []


def test_the_loss_is_that_of_the_response(model, processor):
    example = processor.training_example(QUESTIONS[0], "fear", False)
    ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
    with torch.no_grad():
        loss, logits = model(input_ids=ids, eeg_features=eeg(1), labels=labels).loss, model(input_ids=ids,
                                                                                            eeg_features=eeg(1)).logits
    log_probability = logits[0].log_softmax(-1)
    at = [t for t in range(ids.shape[1]) if labels[0, t] != IGNORE]
    assert float(loss) == pytest.approx(-np.mean([float(log_probability[t - 1, ids[0, t]]) for t in at]), rel=1e-4)


def test_logits_are_made_where_the_loss_needs_them_and_loss_and_gradients_are_those_of_all(model, processor):
    examples = [processor.training_example(question, said, False) for question, said in
                zip(QUESTIONS, ("fear", "The segment shows sad.", "happy"), strict=True)]
    ids, mask = processor.pad([example["input_ids"] for example in examples], "right")
    labels, _ = processor.pad([example["labels"] for example in examples], "right", IGNORE)
    features, given = eeg(3), {"input_ids": ids, "attention_mask": mask}

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()
                if parameter.grad is not None}

    out = model(**given, eeg_features=features, labels=labels)
    everywhere = model(**given, eeg_features=features).logits
    wanted = torch.nn.functional.cross_entropy(everywhere[:, :-1].flatten(0, 1), labels[:, 1:].flatten(),
                                               ignore_index=IGNORE)
    assert everywhere.shape[:2] == ids.shape
    assert out.logits.shape[:2] == (1, int((labels != IGNORE).sum()))
    torch.testing.assert_close(out.logits[0], everywhere[:, :-1][labels[:, 1:] != IGNORE], atol=1e-6, rtol=1e-5)
    assert float(out.loss) == pytest.approx(float(wanted), rel=1e-6)
    some, every = gradients(out.loss), gradients(wanted)
    assert some.keys() == every.keys() and len(some) > 10
    for name in every:
        torch.testing.assert_close(some[name], every[name], atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_only_the_last_logits_are_made_when_only_they_are_wanted(model, processor):
    ids, mask = padded(processor, "left")
    given = {"input_ids": ids, "attention_mask": mask, "eeg_features": eeg(3)}
    last = model(**given, logits_to_keep=1).logits
    torch.testing.assert_close(last, model(**given).logits[:, -1:], atol=1e-6, rtol=1e-6)
    assert last.shape[1] == 1 and model._supports_logits_to_keep()  # so generation makes no others either


def test_a_prompt_shows_what_will_be_read(processor):
    text = processor.prompt(asking("A: ", 3, " B: ", 4), thinking=False)
    assert text == (f"<|im_start|>user\nA: {EEG_TOKEN * 4} B: {EEG_TOKEN * 4}<|im_end|>\n"
                    "<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert processor.windows(asking("A: ", 3, " B: ", 4)) == [3, 4]
    plain = [{"role": "user", "content": "words alone"}]
    assert processor.windows(plain) == []
    assert processor.prompt(plain, True).startswith("<|im_start|>user\nwords alone<|im_end|>")


def test_windows_and_placeholders_stand_in_the_same_order_over_several_turns(processor):
    turns = [*asking(3, "?"), {"role": "assistant", "content": "fear"}, *asking("And ", 1, "?")]
    assert processor.windows(turns) == [3, 1]
    assert processor.prompt(turns, True).count(EEG_TOKEN) == 8


@torch.no_grad()
def test_signals_and_their_features_give_the_same(join, processor):
    encoder = small_encoder()
    model, signal = join(encoder=encoder), 0.1 * torch.randn(3, len(CHANNELS), N_PATCHES * PATCH)
    ids, mask = padded(processor, "left")
    features = encoder(signal).flatten(2)
    by_features = model(input_ids=ids, attention_mask=mask, eeg_features=features).logits
    assert torch.equal(model(input_ids=ids, attention_mask=mask, signal_mv=signal).logits, by_features)
    said = [model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=4, do_sample=False, **kind)
            for kind in ({"signal_mv": signal}, {"eeg_features": features})]
    assert torch.equal(*said)


def test_signals_need_an_encoder(model, processor):
    ids, mask = padded(processor, "left")
    with pytest.raises(ValueError, match="without an encoder: give eeg_features"):
        model(input_ids=ids, attention_mask=mask, signal_mv=torch.zeros(3, len(CHANNELS), N_PATCHES * PATCH))


_READ = """
import sys, torch
from safetensors.torch import load_file, save_file
from e2llm.models.modeling import E2LLMForConditionalGeneration
torch.set_num_threads(1)
model = E2LLMForConditionalGeneration.from_pretrained(sys.argv[1])
given = load_file(sys.argv[2])
with torch.no_grad():
    save_file({"logits": model(**given).logits, "encoded": model.encode(given["signal_mv"])}, sys.argv[3])
"""


@torch.no_grad()
def test_a_saved_model_is_the_same_in_another_process(join, processor, tmp_path):
    model = join(encoder=small_encoder(), seed=5)
    ids, mask = padded(processor, "left")
    given = {"input_ids": ids, "attention_mask": mask, "signal_mv": 0.1
             * torch.randn(3, len(CHANNELS), N_PATCHES * PATCH)}
    model.save_pretrained(tmp_path / "saved")
    save_file(given, tmp_path / "given.safetensors")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    assert {key.split(".")[0] for key in stored} == {"projector", "encoder"}
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {"config.json", "model.safetensors"}
    arguments = [str(tmp_path / name) for name in ("saved", "given.safetensors", "out.safetensors")]
    subprocess.run([sys.executable, "-c", _READ, *arguments], check=True, timeout=120)
    out = load_file(tmp_path / "out.safetensors")
    assert torch.equal(out["logits"], model(**given).logits)
    assert torch.equal(out["encoded"], model.encode(given["signal_mv"]))


@torch.no_grad()
def test_a_saved_model_finds_its_language_model_beside_it_or_elsewhere(join, language_folder, processor, tmp_path):
    model = join(source="language")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["language_model"] == "language"
    ids, mask = padded(processor, "left")
    given = {"input_ids": ids, "attention_mask": mask, "eeg_features": eeg(3)}
    elsewhere = E2LLMForConditionalGeneration.from_pretrained(tmp_path, language_model=str(language_folder))
    assert torch.equal(elsewhere(**given).logits, model(**given).logits)
    (tmp_path / "language").symlink_to(language_folder)
    assert torch.equal(E2LLMForConditionalGeneration.from_pretrained(tmp_path)(**given).logits, model(**given).logits)


def test_folders_that_hold_no_whole_model_are_refused(join, tmp_path):
    with pytest.raises(LanguageModelError, match=r"holds no config\.json"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path)
    model = join()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["projector.fc1.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(LanguageModelError, match=r"does not fit its config\.json: \['projector\.fc1\.bias'\]"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize(("content", "fact"), [("{", "is not JSON"), ("[]", "describes no E2-LLM"),
                                               ('{"model_type": "qwen3"}', "describes no E2-LLM"),
                                               ('{"model_type": "e2llm"}', "describes no E2-LLM")])
def test_a_configuration_of_something_else_is_refused(tmp_path, content, fact):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(LanguageModelError, match=rf"config\.json {fact}"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"\xff" * 8 + content[8:],
                                    lambda content: b""])
def test_damaged_weights_are_named(join, tmp_path, damage):
    join().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(LanguageModelError, match=r"model\.safetensors is damaged"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(LanguageModelError, match=r"model\.safetensors is missing"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["projector.fc1.bias", "projector.fc1.weight"])
def test_weights_that_are_no_numbers_are_named(join, tmp_path, name, value):
    join().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state[name].view(-1)[-1] = value
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(LanguageModelError, match=rf"is damaged \({name} holds values that are not finite\)"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path)


def test_weights_of_another_size_are_named(join, tmp_path):
    join().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "eeg_width": 2 * WIDTH}))
    with pytest.raises(LanguageModelError, match=r"does not fit its config\.json: size mismatch"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path)


@pytest.mark.parametrize(("size", "fact"), [({"hidden_size": 96}, "hidden_size is 96, not 64"),
                                            ({"layers": 3}, "num_hidden_layers is 3, not 2")])
def test_a_language_model_of_another_size_is_refused(join, tokenizer, tmp_path, size, fact):
    join().save_pretrained(tmp_path / "saved")
    other = new_language_model(tokenizer, ScratchParams(**{"vocab_size": 320, "hidden_size": 64, "layers": 2,
                                                           "max_positions": 512, **size}), seed=0)
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(LanguageModelError, match=f"another language model than '{tmp_path / 'other'}': its {fact}"):
        E2LLMForConditionalGeneration.from_pretrained(tmp_path / "saved", language_model=str(tmp_path / "other"))


def test_a_configuration_holds_no_path_of_this_machine(join, language_folder, tmp_path):
    join(source="somebody/model").save_pretrained(tmp_path)
    assert str(language_folder) not in (tmp_path / "config.json").read_text()


def test_an_adapter_trains_saves_loads_and_merges(join, processor, tmp_path):
    examples = [processor.training_example(messages, answer, False)
                for messages, answer in zip(QUESTIONS[:2], ("fear", "A"), strict=True)]
    ids, mask = processor.pad([example["input_ids"] for example in examples], "right")
    labels, _ = processor.pad([example["labels"] for example in examples], "right", IGNORE)
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "eeg_features": eeg(3)}

    base = join()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    torch.manual_seed(0)
    peft = get_peft_model(base, LoraConfig(r=4, target_modules=LORA_TARGETS, modules_to_save=["projector"]))
    trained = [name for name, p in peft.named_parameters() if p.requires_grad]
    assert {("lora_" in name, "projector" in name) for name in trained} == {(True, False), (False, True)}
    assert sum("lora_A" in name for name in trained) == 2 * 7  # seven maps in each of two layers
    optimizer = torch.optim.Adam([p for p in peft.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(15):
        loss = peft(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    peft.eval()
    peft.save_pretrained(tmp_path)

    given = {"input_ids": ids, "attention_mask": mask, "eeg_features": eeg(3)}
    with torch.no_grad():
        expected = peft(**given).logits
        loaded = PeftModel.from_pretrained(join(seed=1), str(tmp_path)).eval()  # another projector, until it is loaded
        torch.testing.assert_close(loaded(**given).logits, expected, atol=1e-5, rtol=1e-5)
        merged = loaded.merge_and_unload()
        assert isinstance(merged, E2LLMForConditionalGeneration)
        assert set(merged.state_dict()) == set(before)
        torch.testing.assert_close(merged(**given).logits, expected, atol=1e-3, rtol=1e-3)
        assert (join()(**given).logits - expected).abs().max() > 0.1
        assert not torch.equal(merged.projector.fc1.weight, before["projector.fc1.weight"])
        embedding = "language_model.model.embed_tokens.weight"
        assert torch.equal(merged.state_dict()[embedding], before[embedding])

        packed = join(seed=1)
        packed.language_model.is_quantized = True  # as transformers marks weights of four bits
        kept = adapted(PeftModel.from_pretrained(packed, str(tmp_path)))
        assert isinstance(kept, E2LLMForConditionalGeneration) and type(kept.projector) is type(merged.projector)
        torch.testing.assert_close(kept(**given).logits, expected, atol=1e-5, rtol=1e-5)
        weights = {name.replace("base_layer.", ""): value for name, value in kept.state_dict().items()}
        assert all(torch.equal(weights[name], before[name]) for name in before if name.startswith("language_model."))


# --- the habits of Hugging Face


@pytest.fixture
def saved(join, processor, tmp_path):
    """Folder of a model with its encoder, and of its processor."""
    join(encoder=small_encoder(), seed=5).save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@torch.no_grad()
def test_the_auto_classes_load_what_was_saved(join, processor, saved):
    model, same = join(encoder=small_encoder(), seed=5), AutoProcessor.from_pretrained(saved)
    assert type(AutoConfig.from_pretrained(saved)) is E2LLMConfig and type(same) is E2LLMProcessor
    assert (same.eeg_tokens, same.evidence_slots, same.segment) == (EEG_TOKENS, 0, processor.segment)
    for messages, thinking in zip(QUESTIONS, (True, False, True), strict=True):
        assert same.prompt(messages, thinking) == processor.prompt(messages, thinking)
        assert same.training_example(messages, "fear", thinking) == processor.training_example(messages, "fear",
                                                                                               thinking)
    again = AutoModelForCausalLM.from_pretrained(saved)
    assert type(again) is E2LLMForConditionalGeneration and not again.training
    ids, mask = padded(same, "left")
    given = {"input_ids": ids, "attention_mask": mask,
             "signal_mv": 0.1 * torch.randn(3, len(CHANNELS), N_PATCHES * PATCH)}
    assert torch.equal(again(**given).logits, model(**given).logits)


def test_a_processor_keeps_its_evidence_slots(tokenizer, tmp_path):
    processor = E2LLMProcessor(tokenizer, 2, 3)
    processor.save_pretrained(tmp_path)
    again = E2LLMProcessor.from_pretrained(tmp_path)
    assert again.segment == processor.segment == f"[{EEG_TOKEN * 2},{','.join([EEG_TOKEN * 3] * 3)} ]"
    assert again.tokenizer.chat_template == tokenizer.chat_template


@pytest.mark.parametrize("load", [E2LLMForConditionalGeneration.from_pretrained, AutoModelForCausalLM.from_pretrained,
                                  E2LLMProcessor.from_pretrained, AutoProcessor.from_pretrained])
def test_unknown_arguments_are_refused_by_name(saved, load):
    with pytest.raises(TypeError, match=r"from_pretrained got unknown arguments: evidence_slot, lnguage_model\."):
        load(saved, evidence_slot=2, lnguage_model="elsewhere")


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
@pytest.mark.parametrize("load", [E2LLMForConditionalGeneration.from_pretrained, AutoModelForCausalLM.from_pretrained])
def test_the_dtype_is_honoured(saved, load, dtype):
    model = load(saved, dtype=dtype)
    assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16} == {model.dtype}
    assert {p.dtype for p in model.projector.parameters()} == {torch.float32}


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_the_device_map_reaches_the_language_model(saved, device_map, monkeypatch):
    seen, load = [], language.AutoModelForCausalLM.from_pretrained

    def loading(*args, **kwargs):
        seen.append(kwargs.get("device_map"))
        return load(*args, **kwargs)

    monkeypatch.setattr(language.AutoModelForCausalLM, "from_pretrained", loading)
    model = E2LLMForConditionalGeneration.from_pretrained(saved, device_map=device_map)
    assert seen == [device_map]
    if not torch.cuda.is_available():
        assert {p.device.type for p in model.parameters()} == {"cpu"}
    with torch.no_grad():
        assert model.encode(torch.zeros(1, len(CHANNELS), N_PATCHES * PATCH)).isfinite().all()


def test_a_device_that_is_not_there_is_refused(saved):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(LanguageModelError, match="could not be loaded"):
        E2LLMForConditionalGeneration.from_pretrained(saved, device_map="cuda")


def test_the_revision_is_handed_to_the_hub(saved, tokenizer, monkeypatch):
    asked = []

    def download(name, revision=None, **more):
        asked.append((name, revision, more))
        return str(saved)

    monkeypatch.setattr(modeling.huggingface_hub, "snapshot_download", download)
    E2LLMForConditionalGeneration.from_pretrained("someone/model", revision="v2", token="secret")
    assert asked == [("someone/model", "v2", {"token": "secret"})]
    with pytest.raises(LanguageModelError, match="has no revision 'v2': leave it out"):
        E2LLMForConditionalGeneration.from_pretrained(saved, revision="v2")


def test_a_hub_that_does_not_answer_is_named(monkeypatch):
    def download(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(modeling.huggingface_hub, "snapshot_download", download)
    with pytest.raises(LanguageModelError, match=r"'someone/model' is no folder here.*OSError: no network"):
        E2LLMForConditionalGeneration.from_pretrained("someone/model")


def test_weights_that_are_given_are_those_that_are_saved(join, tmp_path):
    model = join()
    state = {key: value + 1 for key, value in model.state_dict().items() if value.is_floating_point()}
    model.save_pretrained(tmp_path / "none", is_main_process=False)
    model.save_pretrained(tmp_path / "given", state_dict=state)
    stored = load_file(tmp_path / "given" / "model.safetensors")
    assert not (tmp_path / "none").exists() and set(stored) == set(model.own_state())
    assert all(torch.equal(value, state[key]) for key, value in stored.items())
