"""A language model made on the spot behaves like any other, and one that cannot be used is named with what to do."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from e2llm.core.chat import EEG_TOKEN, END_THINK, IGNORE, THINK
from e2llm.models import language
from e2llm.models.language import (
    LanguageModelError,
    ScratchParams,
    load_language_model,
    make_tokenizer,
    new_language_model,
)
from e2llm.models.logits import loss_at_labels

TEXTS = ["The segment shows fear 7, unpleasant and activated.",
         "Which segment is more pleasant? A: B: Notes: happy A, sad B.",
         "Occipital alpha low, frontal beta high.\n\nThat fits fear."]
SMALL = ScratchParams(vocab_size=320, hidden_size=64, layers=2, heads=4, max_positions=256)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(TEXTS, 320)


@pytest.fixture(scope="module")
def model(tokenizer) -> Qwen3ForCausalLM:
    return new_language_model(tokenizer, SMALL, seed=0).eval()


@pytest.fixture
def saved(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_loss_at_labels_is_the_model_s_own_loss_with_its_gradients_and_leaves_no_trace(model):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (3, 12), generator=generator)
    labels = ids.masked_fill(torch.rand(ids.shape, generator=generator) < 0.7, IGNORE)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels[mask == 0] = IGNORE

    def gradients(out) -> list[torch.Tensor]:
        model.zero_grad()
        out.loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    some, own = (call(model, input_ids=ids, attention_mask=mask, labels=labels)
                 for call in (loss_at_labels, type(model).__call__))
    assert some.logits.shape[1] == int((labels[:, 1:] != IGNORE).sum()) < ids.numel() // 2
    torch.testing.assert_close(some.loss, own.loss, atol=1e-6, rtol=1e-6)
    for one, other in zip(gradients(some), gradients(own), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert model(input_ids=ids).logits.shape[:2] == ids.shape


@pytest.mark.parametrize("text", [*TEXTS, "Ärger? 3.14 %, «naïve» – 愛 😀", "  two  spaces,\ttab\n\n\nlines ",
                                  "A > C > B.",
                                  f"{THINK}\nLow.\n{END_THINK}\n\nfear"])
def test_text_survives_the_tokenizer(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("token", [EEG_TOKEN, THINK, END_THINK, "<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_special_tokens_are_single_ids(tokenizer, token):
    ids = tokenizer(f"a{token}b{token}", add_special_tokens=False)["input_ids"]
    assert ids.count(tokenizer.convert_tokens_to_ids(token)) == 2
    assert len(ids) == 4


def test_letters_and_digits_are_single_tokens(tokenizer):
    ids = tokenizer("73", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["7", "3"]


def test_chat_template_with_and_without_thinking(tokenizer):
    messages = [{"role": "user", "content": f"{EEG_TOKEN} What is it?"}]

    def prompt(**options):
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)

    question = f"<|im_start|>user\n{EEG_TOKEN} What is it?<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(enable_thinking=True) == prompt() == question
    assert prompt(enable_thinking=False) == f"{question}<think>\n\n</think>\n\n"
    explanations = [*messages, {"role": "assistant", "content": "fear"}]
    assert tokenizer.apply_chat_template(explanations, tokenize=False).endswith(
        "<|im_start|>assistant\nfear<|im_end|>\n")


def test_a_fresh_model_is_a_qwen3_of_the_given_size(model, tokenizer):
    assert isinstance(model, Qwen3ForCausalLM)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 2, 4)
    assert model.get_input_embeddings().weight.shape == (len(tokenizer), 64)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_seed_decides_the_weights(model, tokenizer):
    def equal(other):
        return all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))

    assert equal(new_language_model(tokenizer, SMALL, seed=0))
    assert not equal(new_language_model(tokenizer, SMALL, seed=1))


@torch.no_grad()
def induction(model: Qwen3ForCausalLM, n: int = 20, batch: int = 8) -> float:
    """Share of places in the second half of ``x x`` where layer 1, head 0 looks most at what followed before."""
    generator = torch.Generator().manual_seed(5)
    once = torch.stack([torch.randperm(model.config.vocab_size - 6, generator=generator)[:n] + 6 for _ in range(batch)])
    model.set_attn_implementation("eager")
    attention = model(torch.cat([once, once], dim=1), output_attentions=True).attentions[1][:, 0]
    model.set_attn_implementation("sdpa")
    second_half = attention[:, n : 2 * n - 1]  # rows: places n … 2n - 2, whose next words are known from before
    assert torch.allclose(second_half.sum(-1), torch.ones(batch, n - 1), atol=1e-4)
    return float((second_half.argmax(-1) == torch.arange(1, n)).float().mean())


@pytest.mark.parametrize("params", [SMALL, ScratchParams(vocab_size=320)], ids=["small", "default"])
def test_a_fresh_model_looks_up_what_came_next_before(tokenizer, params, monkeypatch):
    def mean_over_seeds() -> float:
        return sum(induction(new_language_model(tokenizer, params, seed).eval()) for seed in range(3)) / 3

    assert mean_over_seeds() > 0.6
    monkeypatch.setattr(language, "lookup_init", lambda model: None)
    assert mean_over_seeds() < 0.15  # chance is one in about thirty


def test_the_lookup_start_needs_two_layers(tokenizer):
    with pytest.raises(ValueError, match="two layers"):
        new_language_model(tokenizer, ScratchParams(vocab_size=320, hidden_size=64, layers=1), seed=0)
    with pytest.raises(ValueError, match="width of at least"):
        new_language_model(tokenizer, ScratchParams(vocab_size=320, hidden_size=64, heads=2), seed=0)


@torch.no_grad()
def test_a_saved_model_loads_with_the_same_logits_and_tokens(model, tokenizer, saved):
    loaded, again = load_language_model(str(saved))
    ids = tokenizer(TEXTS[1] + EEG_TOKEN, add_special_tokens=False, return_tensors="pt")["input_ids"]
    assert torch.equal(again(TEXTS[1] + EEG_TOKEN, add_special_tokens=False, return_tensors="pt")["input_ids"], ids)
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert not loaded.training and again.chat_template == tokenizer.chat_template
    assert len(again) == len(tokenizer) == loaded.get_input_embeddings().num_embeddings
    assert load_language_model(str(saved), dtype="bfloat16")[0].dtype == torch.bfloat16


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(LanguageModelError, match=r"absent is no folder: give a folder"):
        load_language_model(str(tmp_path / "absent"))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(LanguageModelError, match=rf"'{tmp_path}' could not be loaded.*save_pretrained wrote.*Nothing "
                                                 rf"else is used"):
        load_language_model(str(tmp_path))


def test_a_missing_gguf_file_is_named(tmp_path):
    with pytest.raises(LanguageModelError, match=r"tiny\.gguf is missing: give the path"):
        load_language_model(str(tmp_path / "tiny.gguf"))


def test_a_model_without_chat_template_is_refused(model, tmp_path):
    bare = make_tokenizer(TEXTS, 320)
    bare.chat_template = None
    model.save_pretrained(tmp_path)
    bare.save_pretrained(tmp_path)
    with pytest.raises(LanguageModelError, match=rf"'{tmp_path}' has no chat template: choose an instruction"):
        load_language_model(str(tmp_path))


@torch.no_grad()
def test_a_model_that_does_not_know_eeg_learns_the_token(tokenizer, tmp_path):
    others = [THINK, END_THINK]
    foreign = make_tokenizer(TEXTS, 320).backend_tokenizer
    stranger = PreTrainedTokenizerFast(tokenizer_object=_without_eeg(foreign), eos_token="<|im_end|>",
                                       extra_special_tokens=others, chat_template=tokenizer.chat_template)
    assert EEG_TOKEN not in stranger.get_vocab() and stranger.pad_token is None
    n = len(stranger)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=n, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                         head_dim=16,
                                         num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True)).eval()
    model.save_pretrained(tmp_path)
    stranger.save_pretrained(tmp_path)

    loaded, known = load_language_model(str(tmp_path))
    assert len(known(f"a{EEG_TOKEN}b", add_special_tokens=False)["input_ids"]) == 3
    assert known.convert_tokens_to_ids(EEG_TOKEN) == n
    assert loaded.get_input_embeddings().num_embeddings == n + 1 == loaded.config.vocab_size
    assert known.pad_token == known.eos_token
    for token in others:  # those of the model are still special
        assert len(known(token, add_special_tokens=False)["input_ids"]) == 1 and token in known.all_special_tokens
    ids = torch.arange(10)[None]
    assert torch.equal(loaded(ids).logits[..., :n], model(ids).logits)


def _without_eeg(tokenizer):
    """The same tokenizer, retrained without the EEG token."""
    from tokenizers import Tokenizer, models, trainers

    other = Tokenizer(models.BPE())
    other.pre_tokenizer, other.decoder = tokenizer.pre_tokenizer, tokenizer.decoder
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", THINK, END_THINK]
    other.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False))
    return other


def test_a_softmax_over_some_tokens_is_that_of_their_logits_and_leaves_no_trace(model):
    """Against the whole logits of the model, cut by hand."""
    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    labels = ids.masked_fill(torch.arange(9) < 5, IGNORE)
    tokens = torch.unique(torch.cat([labels[labels >= 0], torch.tensor([3, 7, 39])]))
    with torch.no_grad():
        out = loss_at_labels(model, labels, tokens, input_ids=ids)
        whole = model(input_ids=ids).logits[:, 4:-1].reshape(-1, model.config.vocab_size)[:, tokens]
    places = [tokens.tolist().index(label) for label in labels[:, 5:].reshape(-1).tolist()]
    assert out.logits.shape == (1, 8, len(tokens))
    wanted = -whole.log_softmax(-1)[torch.arange(8), places].mean()
    assert float(out.loss) == pytest.approx(float(wanted), rel=1e-5)
    assert "forward" not in vars(model.get_output_embeddings())
