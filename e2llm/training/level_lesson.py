"""The second lesson of ``e2llm-tiny``: levels with degrees, prompts without evidence, and tables of levels.

The first lesson (:mod:`e2llm.training.tiny_language_model`) teaches to copy claims. When both were taught at once, with
claims grouped by region, only a fifth of the thoughts with degrees was copied without an error after 1,500 steps.
Embeddings stay as they are, so that no word moves away from its meaning; those of the digits are learned. The words of
the readers of tables are learned as well, and get their old embeddings back at the end: with frozen ones three readers
of ten were right after 200 steps of tables alone, with learned ones five of ten. As in the first lesson, half of the
parts that words have of their own are left out in each step, so that the meanings are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ..core.chat import IGNORE, Item
from ..core.claims import GRADED, LOW_HIGH
from ..models.processing import E2LLMProcessor
from ..tasks.level_table import DIGITS, Readers
from .tiny_language_model import THINKING_SHARE, TaughtTexts, Words, taught_items, teachable
from .trainer import FitParams, Samples, examples_of, fit, item_collate, item_order

_PART = 5000  # items that are drawn together
_OTHER_TOKENS = 1000  # of the softmax, beside those of the answers


@dataclass(frozen=True)
class LevelRecipe:
    """What the second lesson holds.

    Parameters
    ----------
    n_items : int
        Items.
    readers, reader_words : int
        Rules that read a word from a table of levels, and words of each.
    readers_share : float
        Share of the items that are about tables.
    low_high_share : float
        Share of the parts in which levels have no degrees, as in the first lesson.
    own_dropout : float
        Share of the words whose own part is left out in a step; never of a word that the tasks need.
    """

    n_items: int = 96_000
    readers: int = 12
    reader_words: int = 6
    readers_share: float = 0.5
    low_high_share: float = 0.25
    own_dropout: float = 0.5


def one_token_words(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Words of the vocabulary that teaching may use and that are one token in the middle of a sentence."""
    words = [tokenizer.decode([i]).strip() for i in range(len(tokenizer))]
    cut = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    kept = [word for word, ids in zip(words, cut, strict=True) if len(ids) == 1 and len(word) > 2 and word.isalpha()
            and word.islower()]
    return [word for word, may in zip(kept, teachable(kept), strict=True) if may]


def level_items(texts: TaughtTexts, words: list[str], readers: Readers, recipe: LevelRecipe, n: int,
                seed: list[int]) -> list[Item]:
    """One part of the lesson.

    Parameters
    ----------
    texts : TaughtTexts
        Texts about the emotions.
    words : list of str
        Labels of other tasks are drawn from them.
    readers : Readers
        Of the tables.
    recipe : LevelRecipe
        Shares.
    n, seed : int, list of int
        Number of items, and seed of the draws.
    """
    rng = np.random.default_rng(seed)
    scale = LOW_HIGH if rng.uniform() < recipe.low_high_share else GRADED
    is_table, tables = rng.uniform(size=n) < recipe.readers_share, readers.items(rng)
    others = iter(taught_items(texts, words, int((~is_table).sum()), seed, scale))
    return [next(tables) if table else next(others) for table in is_table]


def readers_of(tokenizer: PreTrainedTokenizerFast, recipe: LevelRecipe, seed: int) -> Readers:
    """The readers of tables of a lesson.

    Parameters
    ----------
    tokenizer, recipe, seed
        See :func:`level_examples`.
    """
    return Readers.draw(one_token_words(tokenizer), recipe.readers, recipe.reader_words, np.random.default_rng(seed))


def level_examples(tokenizer: PreTrainedTokenizerFast, texts: TaughtTexts, recipe: LevelRecipe,
                   seed: int) -> list[dict]:
    """Training examples of the lesson.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast
        Of the model; gives the words.
    texts : TaughtTexts
        Those of the first lesson.
    recipe : LevelRecipe
        Sizes and shares.
    seed : int
        Of the draws.
    """
    words, readers = one_token_words(tokenizer), readers_of(tokenizer, recipe, seed)
    processor, sizes = E2LLMProcessor(tokenizer), np.diff([*range(0, recipe.n_items, _PART), recipe.n_items])
    parts = (examples_of(level_items(texts, words, readers, recipe, int(size), [seed, part]), processor, THINKING_SHARE,
                         [seed, part]) for part, size in enumerate(sizes))
    return list(itertools.chain.from_iterable(parts))


def own_parts(embedding: Tensor, words: Words, meanings: np.ndarray) -> Tensor:
    """What the embeddings of words have beside the linear map of their meanings; 0 for words that the tasks need.

    Parameters
    ----------
    embedding : Tensor, shape (n_tokens, hidden_size)
        Of a model after the first lesson (:class:`e2llm.training.tiny_language_model.WordMeaningModel`).
    words : Words
        Tokens of the vocabulary, and those that the tasks need.
    meanings : ndarray, shape (n_words, meaning_width)
        Of the words of the vocabulary.

    Returns
    -------
    Tensor, shape (n_tokens, hidden_size)

    Raises
    ------
    ValueError
        If no word has its meaning alone, so that the map cannot be found.
    """
    is_word = torch.from_numpy((words.of_word >= 0) & ~words.needed)
    meaning = torch.from_numpy(meanings[np.maximum(words.of_word, 0)]).double()
    within = slice(1, 1 + 2 * embedding.shape[1] // 3)  # the columns of the map
    rest = embedding.detach().cpu().double()
    alone = is_word & (rest[:, within.stop :] == 0).all(dim=1)  # words that the first lesson did not show
    if int(alone.sum()) < meaning.shape[1]:
        raise ValueError("Too few words of this model have their meaning alone: it was made by another recipe.")
    learned = torch.linalg.lstsq(meaning[alone], rest[alone][:, within]).solution
    own = rest.clone()
    own[:, 0] = 0  # the constant
    own[:, within] -= meaning @ learned
    return (own * (is_word & ~alone)[:, None]).to(embedding.dtype)


def mean_over_items(model: Qwen3ForCausalLM, input_ids: Tensor, attention_mask: Tensor, labels: Tensor,
                    others: Tensor, left_out: Tensor | None = None) -> dict[str, Tensor]:
    """Mean loss of the items: an answer of one word counts as much as a long thought.

    Parameters
    ----------
    model : Qwen3ForCausalLM
        Its layers are trained.
    input_ids, attention_mask, labels : Tensor of int, shape (batch, length)
        As for any causal language model.
    others : Tensor of int, shape (n,)
        Tokens of the softmax beside those of the answers; see
        :class:`e2llm.training.tiny_language_model.WordMeaningModel`.
    left_out : Tensor, shape (n_tokens, hidden_size), optional
        What the embeddings lack in this step.
    """
    table = model.get_input_embeddings().weight
    table = table if left_out is None else table - left_out
    hidden = model.model(inputs_embeds=F.embedding(input_ids, table), attention_mask=attention_mask).last_hidden_state
    at = labels[:, 1:] != IGNORE
    wanted = labels[:, 1:][at]
    ids, place = torch.unique(torch.cat([wanted, others]), return_inverse=True)
    logits = F.linear(hidden[:, :-1][at], table[ids])
    loss = F.cross_entropy(logits, place[: len(wanted)], reduction="none")
    share = 1 / at.sum(1, keepdim=True).expand_as(at)[at]
    return {"loss": (loss * share).sum() / len(labels)}


def teach_levels(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: list[dict], readers: Readers,
                 params: FitParams, folder: Path, own: Tensor | None = None, own_dropout: float = 0.5,
                 on_step: Callable[..., None] | None = None) -> pd.DataFrame:
    """Teach the second lesson; resumes from a checkpoint in ``folder``.

    Parameters
    ----------
    model : Qwen3ForCausalLM
        After the first lesson, in float32; changed in place.
    tokenizer : PreTrainedTokenizerFast
        Its tokenizer.
    examples : list of dict
        From :func:`level_examples`.
    readers : Readers
        Of the examples.
    params : FitParams
        Schedule and seed.
    folder : Path
        Checkpoints.
    own : Tensor, optional
        From :func:`own_parts`; default none is left out.
    own_dropout : float
        See :class:`LevelRecipe`.
    on_step
        As for :func:`e2llm.training.trainer.fit`.

    Returns
    -------
    DataFrame
        Columns step and loss.
    """
    embedding = model.requires_grad_(True).get_input_embeddings().weight
    kept, digits = embedding.detach().clone(), _tokens(tokenizer, DIGITS)
    learned = torch.zeros(len(kept), 1).index_fill(0, digits, 1.0)
    learned = learned.index_fill(0, _tokens(tokenizer, list(itertools.chain.from_iterable(readers.words))), 1.0)
    masked = embedding.register_hook(lambda gradient: gradient * learned.to(gradient.device))
    layers = [parameter for parameter in model.parameters() if parameter is not embedding]
    order = item_order([len(example["input_ids"]) for example in examples], params)
    pad = item_collate(E2LLMProcessor(tokenizer), None, {})

    def collate(batch: list[dict]) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(batch[0]["place"])  # by the place alone, as in item_collate
        found = pad(batch) | {"others": torch.randint(len(tokenizer), (_OTHER_TOKENS,), generator=drawn)}
        if own is None:
            return found
        return found | {"left_out": own * (torch.rand(len(own), 1, generator=drawn) < own_dropout)}

    history = fit(model, Samples(order, examples.__getitem__), collate, params, folder,
                  [{"params": layers}, {"params": [embedding], "weight_decay": 0.0}], on_step=on_step,
                  call=mean_over_items)
    masked.remove()
    with torch.no_grad():
        embedding.copy_(kept.to(embedding.device).index_copy(0, digits.to(embedding.device), embedding[digits]))
    model.eval().requires_grad_(True)
    return history


def _tokens(tokenizer: PreTrainedTokenizerFast, words: Sequence[str]) -> Tensor:
    """Ids of words that are one token in the middle of a sentence."""
    return torch.tensor([tokenizer(f"frontal {word}", add_special_tokens=False)["input_ids"][-1] for word in words])
