"""Language models: any causal LM that transformers loads, or a small Qwen3 made on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
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
    hidden_size: int = 96
    layers: int = 3
    heads: int = 4
    max_positions: int = 1024
    init_std: float = 0.1  # wide for its size: narrow models that start at 0.02 need many more steps


def make_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE tokenizer with Qwen3's turn and thinking tokens, trained on ``texts``."""
    tokenizer = Tokenizer(models.BPE())
    # Words with their leading space, single digits and single marks: no token crosses a word.
    split = pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}|\n+| ?[^\s\p{L}\p{N}]|\s+"), "isolated")
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
        tie_word_embeddings=True, initializer_range=params.init_std, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = Qwen3ForCausalLM(config)
    lookup_init(model)
    return model


@torch.no_grad()
def lookup_init(model: Qwen3ForCausalLM) -> None:
    """Start a fresh Qwen3 with one induction head: "what came after this word before?" (Olsson et al. 2022, arXiv 2209.11895).

    The circuit forms by itself in any language model, but late; comparing segments needs it from the first minutes on.
    Everything set here stays trainable. The residual stream is laid out as ``[constant | word | previous word | free]``;
    layer 0, head 0 attends one token back and copies its word; layer 1, head 0 looks for the token whose previous
    word is the present one, and says its word.

    Parameters
    ----------
    model : Qwen3ForCausalLM
        Changed in place; needs two or more layers.
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
    for layer in model.model.layers:  # quiet at first, so that the words themselves can be read in the stream
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
