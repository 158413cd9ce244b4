"""Language models: any causal LM that transformers loads, or a small Qwen3 made on the spot."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import huggingface_hub
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

from ..core.chat import EEG_TOKEN, END_THINK, THINK
from ..core.files import one_line, read_json
from .catalogue import CATALOGUE, Elsewhere, FetchError, require
from .device import DeviceError, ask_for_device, best_dtype, device_policy, loading_device

# The turn format of Qwen3, reduced to what is used here: with enable_thinking off, an empty thought is given.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% "
    "endif %}"
)


_MOST_LAYERS = 10_000


class LanguageModelError(Exception):
    """A language model that cannot be loaded; the message names it, the fact and the remedy."""


@dataclass(frozen=True)
class ScratchParams:
    """Size of a Qwen3 made on the spot."""

    vocab_size: int = 3072
    hidden_size: int = 96
    layers: int = 3
    heads: int = 4
    max_positions: int = 1024
    init_std: float = 0.1  # wide for its size: narrow models that start at 0.02 need many more steps


def make_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE tokenizer with Qwen3's turn and thinking tokens.

    Parameters
    ----------
    texts : list of str
        Texts to train it on.
    vocab_size : int
        Largest number of tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _whole_words()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=_SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return _with_turns(tokenizer)


def make_word_tokenizer(words: list[str], pieces: list[str]) -> PreTrainedTokenizerFast:
    """Tokenizer whose tokens are given words, with Qwen3's turn and thinking tokens.

    A word keeps its token at the beginning of a sentence: "The" is read as a mark and "the". Other words are cut from
    the left into the longest known pieces, single bytes at worst, so that every text can be told from every other.

    Parameters
    ----------
    words : list of str
        In small letters.
    pieces : list of str
        Beginnings of texts and continuations of words: what may stand without a space before it.
    """
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def written(text: str) -> str:
        return plain.pre_tokenize_str(text)[0][0]

    tokens = dict.fromkeys([*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *map(written, _MARKS),
                            *(written(f" {letter}") for letter in ascii_uppercase),
                            *(written(f" {word}") for word in words), *(written(piece) for piece in pieces)])
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token=_SPECIAL[0],
                                           continuing_subword_prefix="", max_input_chars_per_word=10**6))
    # Not through Lowercase: a decoder has to know which letters were capital.
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Replace(Regex(f"{before}{letter}(?=[a-z])"), f"{mark} {letter.lower()}")
        for mark, (before, letters, _) in _MARKS.items() for letter in letters])
    tokenizer.pre_tokenizer = _whole_words()
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), *(
        decoders.Replace(f"{mark} {letter.lower()}", f"{space}{letter}")
        for mark, (_, letters, space) in _MARKS.items() for letter in letters)])
    tokenizer.add_special_tokens(_SPECIAL)
    return _with_turns(tokenizer)


_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", THINK, END_THINK, EEG_TOKEN]
_FIRST = '(?:^|(?<="))'  # at the beginning of a text or a line, or after a quotation mark
# A mark stands before a word that is not written as in the middle of a sentence. The word then is the same token with
# a space and in small letters, so that no word has several tokens. Mark: what stands before the first letter, which
# letters it may be, and the space that the word has in the text. The marks are of Unicode's private use.
_MARKS = {"\ue000": (" ", ascii_uppercase, " "), "\ue001": (_FIRST, ascii_uppercase, ""),
          "\ue002": (_FIRST, ascii_lowercase, "")}


def _whole_words() -> pre_tokenizers.PreTokenizer:
    """Words with their leading space, single digits and single marks: no token crosses a word."""
    split = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}|\n+| ?[^\s\p{L}\p{N}]|\s+"), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _with_turns(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   extra_special_tokens=[THINK, END_THINK, EEG_TOKEN], chat_template=_CHAT_TEMPLATE)


def new_language_model(tokenizer: PreTrainedTokenizerFast, params: ScratchParams, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights, started by :func:`lookup_init`.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        From :func:`make_tokenizer`.
    params : ScratchParams
        Size.
    seed : int
        Of the weights.
    """
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=params.hidden_size, intermediate_size=3 * params.hidden_size,
        num_hidden_layers=params.layers, num_attention_heads=params.heads, num_key_value_heads=params.heads // 2,
        head_dim=params.hidden_size // params.heads, max_position_embeddings=params.max_positions,
        tie_word_embeddings=True, initializer_range=params.init_std, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = Qwen3ForCausalLM(config)
    lookup_init(model)
    return model


@torch.no_grad()
def lookup_init(model: Qwen3ForCausalLM) -> None:
    """Start a fresh Qwen3 with one induction head: "what came after this word before?".

    The circuit forms by itself in any language model, but late; comparing segments needs it from the first minutes on.
    Everything set here stays trainable. The residual stream is laid out as ``[constant | word | previous word |
    free]``; layer 0, head 0 attends one token back and copies its word; layer 1, head 0 looks for the token whose
    previous word is the present one, and says its word.

    Parameters
    ----------
    model : Qwen3ForCausalLM
        Changed in place; needs two or more layers.

    Raises
    ------
    ValueError
        If the model is too narrow or has one layer.

    References
    ----------
    Olsson, C., et al. (2022). In-context learning and induction heads. arXiv 2209.11895.
    """
    width, head = model.config.hidden_size, model.config.head_dim
    n_word = 2 * width // 3
    word, previous = slice(1, 1 + n_word), slice(1 + n_word, 1 + n_word + head)
    if previous.stop > width or model.config.num_hidden_layers < 2:
        raise ValueError(f"lookup_init needs two layers and a width of at least {previous.stop}, got {width}.")
    embedding = model.get_input_embeddings().weight
    embedding[:, 0], embedding[:, 1 + n_word :] = 5 * model.config.initializer_range, 0.0
    read = nn.init.orthogonal_(torch.empty(head, n_word))
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    half = head // 2
    # Rotary pairs turn by 1, 0.46, … radians a token. Keys turned back by one token peak at distance one.
    turn = model.model.rotary_emb.inv_freq[:3]
    for layer in model.model.layers:  # small at first, so that the words themselves can be read in the stream
        layer.self_attn.o_proj.weight.mul_(0.1)
        layer.mlp.down_proj.weight.mul_(0.1)
    for projection in (first.q_proj, first.k_proj, second.q_proj, second.k_proj, first.v_proj, second.v_proj):
        projection.weight[:head] = 0.0
    for projection in (first.o_proj, second.o_proj):
        projection.weight[:, :head] = 0.0
    first.q_proj.weight[:3, 0] = 1.0
    first.k_proj.weight[:3, 0], first.k_proj.weight[half : half + 3, 0] = turn.cos(), turn.sin()
    first.q_norm.weight.fill_(2.0)
    first.k_norm.weight.fill_(2.0)
    first.v_proj.weight[:head, word] = read
    first.o_proj.weight[previous, :head] = torch.eye(head)
    # Slow pairs hardly turn within a prompt, so they can compare words at any distance.
    slow = [i for i in range(head) if i % half >= 5]
    second.q_proj.weight[slow, word] = read[slow]
    second.k_proj.weight[slow, previous] = torch.eye(head)[slow]
    second.q_norm.weight.fill_(1.5)
    second.k_norm.weight.fill_(1.5)
    second.v_proj.weight[:head, word] = read
    second.o_proj.weight[word, :head] = read.T * 2.0


def load_language_model(name: str, dtype: str | torch.dtype = "float32", eeg_token: bool = True,
                        device_map: str | dict | torch.device | None = None, attention: str = "auto"):
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    name : str
        One of these:

        - ``e2llm-tiny``, which comes with the kit, or a name of :data:`e2llm.models.catalogue.CATALOGUE` that has
          been fetched (``smollm2-135m``);
        - a local folder, or the path of a ``.gguf`` file;
        - a hub id, with a revision if need be (``Qwen/Qwen3-0.6B@main``). ``HF_ENDPOINT``, ``HF_HOME`` and
          ``HF_HUB_OFFLINE`` mean what they mean everywhere.
    dtype : str or torch.dtype
        ``float32``, ``bfloat16``, ``float16``, ``auto`` (:func:`e2llm.models.device.best_dtype`), or ``4bit`` (NF4,
        computed in bfloat16; needs bitsandbytes and a CUDA device).
    eeg_token : bool
        Make the EEG token known to it.
    device_map : str, dict or torch.device, optional
        Where its weights go, as in transformers (``auto``: over all GPUs); default the device of the policy
        (:func:`e2llm.models.device.use_device`).
    attention : str
        See :func:`e2llm.models.device.ask_for_device`.

    Returns
    -------
    model, tokenizer
        The tokenizer knows :data:`EEG_TOKEN`, and its end-of-sequence token is the one that ends a turn of its chat
        template; the model is in evaluation mode.

    Raises
    ------
    LanguageModelError
        If it cannot be loaded or has no chat template.
    """
    where, extra = _located(name)
    options = _number_format(best_dtype() if dtype == "auto" else str(dtype).removeprefix("torch."), attention)
    if device_map is None and (device := loading_device()).type != "cpu":
        device_map = {"": device}  # read straight into its memory
    options |= {} if device_map is None else {"device_map": device_map}
    try:
        with _quiet():
            # Code that comes with a model is never run, and nobody is asked whether it may.
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **extra)
            model, found = AutoModelForCausalLM.from_pretrained(where, trust_remote_code=False, **options, **extra,
                                                                output_loading_info=True)
    except Exception as error:
        raise LanguageModelError(_why_not(name, error)) from error
    if missing := sorted(found["missing_keys"]):
        raise LanguageModelError(f"The language model '{name}' lacks {len(missing)} of its {len(model.state_dict())} "
                                 f"tensors ({', '.join(missing[:3])}{', …' * (len(missing) > 3)}), which would be "
                                 "drawn at random: copy it again, all of its files.")
    if tokenizer.chat_template is None:
        raise LanguageModelError(f"The language model '{name}' has no chat template: choose an instruction-tuned one.")
    tokenizer.chat_template = without_date(tokenizer.chat_template, name)
    tokenizer.eos_token = _end_token(tokenizer, name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if eeg_token:
        _add_eeg_token(model, tokenizer)
    return model.eval(), tokenizer


def _located(name: str) -> tuple[str, dict[str, str]]:
    """Where transformers finds a model, and what else it must be told."""
    path = Path(name)
    if not isinstance(CATALOGUE.get(name, Elsewhere("", "")), Elsewhere):
        try:
            return str(require(name)), {}
        except FetchError as error:
            raise LanguageModelError(str(error)) from error
    if path.suffix == ".gguf":
        if not path.is_file():
            raise LanguageModelError(f"{name} is missing: give the path of a GGUF file that is there.")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        _refuse_depth(path / "config.json")
        return name, {}
    if name.startswith((".", "/", "~")):
        raise LanguageModelError(f"{name} is no folder: give a folder with config.json, a .gguf file or a hub id.")
    hub_id, at, revision = name.partition("@")
    if at and not revision:
        raise LanguageModelError(f"'{name}' names no revision after the @: write  {hub_id}  or  {hub_id}@revision.")
    return hub_id, {"revision": revision} if at else {}


def _refuse_depth(config: Path) -> None:
    """Refuse a configuration with more layers than any model has: transformers would build them one by one."""
    try:
        stored = read_json(config, "copy the folder again") if config.is_file() else {}
    except ValueError as error:
        raise LanguageModelError(str(error)) from None
    deep = [name for name, value in (stored.items() if isinstance(stored, dict) else ())
            if ("layer" in name or "expert" in name) and isinstance(value, int) and value > _MOST_LAYERS]
    if deep:
        raise LanguageModelError(f"{config} has sizes that no model has ({', '.join(deep)}): do not use it.")


def _number_format(dtype: str, attention: str) -> dict:
    """Arguments of ``from_pretrained`` for a number format; what this computer lacks is said before loading."""
    try:
        ask_for_device(device_policy().device, dtype, attention)
    except DeviceError as error:
        raise LanguageModelError(str(error)) from None
    chosen = {"attn_implementation": "flash_attention_2"} if attention == "flash" else {}
    if dtype == "bfloat16" and loading_device().type == "cpu":
        # PyTorch's SDPA is the slower one there, because of its backward pass (benchmarks/attention.py).
        chosen = {"attn_implementation": "eager"}
    if dtype != "4bit":
        return {"dtype": getattr(torch, dtype), **chosen}
    packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                bnb_4bit_compute_dtype=torch.bfloat16)
    return {"dtype": torch.bfloat16, "quantization_config": packed, **chosen}


def _why_not(name: str, error: Exception) -> str:
    """Why a model could not be loaded, and what to do."""
    fact = one_line(str(error).strip().partition("\n")[0][:200] or type(error).__name__)
    if os.path.exists(name):
        remedy = "Is it a folder that save_pretrained wrote, or a whole GGUF file?"
    elif huggingface_hub.constants.HF_HUB_OFFLINE:
        remedy = ("HF_HUB_OFFLINE is set, so only the local hub cache was asked: load it once with the network, unset "
                  "HF_HUB_OFFLINE, or give a local folder.")
    else:
        remedy = (f"Check the name and the network ({huggingface_hub.constants.ENDPOINT} was asked), "
                  "or give a local folder.")
    return (f"The language model '{one_line(name)}' could not be loaded ({fact}). {remedy} Nothing else is used in its "
            "place.")


def without_date(template: str, name: str) -> str:
    """A chat template that asks for today's date, with one date for ever: equal runs have equal prompts.

    Parameters
    ----------
    template : str
        Of the tokenizer.
    name : str
        Of the language model, for the message.

    Raises
    ------
    LanguageModelError
        If the template asks for the date in a way that is not understood.
    """
    asks = r"strftime_now\(\s*(['\"])(.*?)\1\s*\)"
    fixed = re.sub(asks, lambda asked: repr(date(2024, 7, 26).strftime(asked[2])), template)
    if re.search(r"strftime_now\s*(?!is\b)\S", fixed.replace("strftime_now is", "")):
        raise LanguageModelError(f"The chat template of '{name}' puts today's date into every prompt, and equal runs "
                                 "would differ by the day: give a folder with a template without strftime_now.")
    return fixed


def _end_token(tokenizer, name: str) -> str:
    """The token that ends a turn, or one that ends a document; that is said, for the template does not use it."""
    if (found := end_of_turn(tokenizer)) is not None:
        return found
    if tokenizer.eos_token is None:
        raise LanguageModelError(f"The turns of the language model '{name}' have no end token: generation could not "
                                 "stop. Choose another one.")
    warnings.warn(f"The chat template of '{name}' ends the assistant's turn with no token of its own: "
                  f"{tokenizer.eos_token!r} ends it here.", stacklevel=3)
    return tokenizer.eos_token


def end_of_turn(tokenizer) -> str | None:
    """The token that the chat template puts after the assistant's words; None if there is none.

    It need not be the tokenizer's own end of sequence, which ends whole documents in some families, and some do not
    call it special.
    """
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "the answer"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    after = tokenizer(text.rpartition("the answer")[2], add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder
    candidates = sorted((i for i in after if i in added), key=lambda i: not added[i].special)  # special ones first
    return str(added[candidates[0]]) if candidates else None


@torch.no_grad()
def _add_eeg_token(model, tokenizer) -> None:
    """Make sure the tokenizer knows the EEG token; its embedding is never read, the projector's output replaces it.

    Where the model has no room for it, a row is added: the mean of the others, so that the new word is as unlikely as
    an average one, whatever the seed. Tied embeddings stay tied.
    """
    if EEG_TOKEN in tokenizer.get_vocab():
        return
    tokenizer.add_special_tokens({"additional_special_tokens": [EEG_TOKEN]}, replace_extra_special_tokens=False)
    if len(tokenizer) <= (known := model.get_input_embeddings().num_embeddings):
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight[known:] = layer.weight[:known].mean(dim=0, dtype=torch.float32)


class _quiet:
    """No progress bars of transformers while a model loads: they would stand in a notebook's outputs."""

    def __enter__(self) -> None:
        self.was_enabled = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self.was_enabled:
            logging.enable_progress_bar()
