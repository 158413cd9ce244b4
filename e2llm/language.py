"""Language models: any causal LM that transformers loads, or a small Qwen3 made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

EEG_TOKEN = "<|eeg|>"
THINK, END_THINK = "<think>", "</think>"
IGNORE = -100  # label of a token that carries no loss

# The turn format of Qwen3, reduced to what is used here: with enable_thinking off, an empty thought is given.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)


class LanguageModelError(Exception):
    """A language model that cannot be loaded; the message names it, the fact and the remedy."""


@dataclass(frozen=True)
class ScratchParams:
    """Size of a Qwen3 made on the spot."""

    vocab_size: int = 3072
    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    max_positions: int = 1024


def make_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE tokenizer with Qwen3's turn and thinking tokens, trained on ``texts``."""
    tokenizer = Tokenizer(models.BPE())
    # Words with their leading space, single digits and single marks: no token crosses a word.
    split = pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}|\n+| ?[^\s\p{L}\p{N}]|\s+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", THINK, END_THINK, EEG_TOKEN]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   extra_special_tokens=[THINK, END_THINK, EEG_TOKEN], chat_template=_CHAT_TEMPLATE)


def make_language_model(tokenizer: PreTrainedTokenizerFast, params: ScratchParams, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=params.hidden_size, intermediate_size=3 * params.hidden_size,
        num_hidden_layers=params.layers, num_attention_heads=params.heads, num_key_value_heads=params.heads // 2,
        head_dim=params.hidden_size // params.heads, max_position_embeddings=params.max_positions,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return Qwen3ForCausalLM(config)


def load_language_model(name: str, dtype: str = "float32"):
    """Load a causal language model and its tokenizer.

    Parameters
    ----------
    name : str
        Hub id, local folder, or path of a ``.gguf`` file.
    dtype : str
        ``float32`` or ``bfloat16``.

    Returns
    -------
    model, tokenizer
        The tokenizer knows :data:`EEG_TOKEN`; the model is in evaluation mode.

    Raises
    ------
    LanguageModelError
        If it cannot be loaded or has no chat template.
    """
    path = Path(name)
    options = {"dtype": getattr(torch, dtype)}
    source, extra = name, {}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise LanguageModelError(f"{name} is missing: give the path of a GGUF file that is there.")
        source, extra = str(path.parent), {"gguf_file": path.name}
    elif name.startswith((".", "/")) and not path.is_dir():
        raise LanguageModelError(f"{name} is no folder: give a folder with config.json, a .gguf file or a hub id.")
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, **extra)
            model = AutoModelForCausalLM.from_pretrained(source, **options, **extra)
    except Exception as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise LanguageModelError(f"The language model '{name}' could not be loaded ({first}). Check the name, the "
                                 "network, or give a local folder; nothing else is used in its place.") from error
    if tokenizer.chat_template is None:
        raise LanguageModelError(f"The language model '{name}' has no chat template: choose an instruction-tuned one.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    add_eeg_token(model, tokenizer)
    return model.eval(), tokenizer


def add_eeg_token(model, tokenizer) -> None:
    """Make sure the tokenizer knows the EEG token; its embedding is never read, the projector's output replaces it."""
    if EEG_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [EEG_TOKEN]}, replace_extra_special_tokens=False)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


class _quiet:
    """No progress bars of transformers while a model loads: they would stand in a notebook's outputs."""

    def __enter__(self) -> None:
        self.was_enabled = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        if self.was_enabled:
            logging.enable_progress_bar()
