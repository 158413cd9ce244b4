"""The small language model of the kit, ``e2llm-tiny``: taught once, from text of our own and meanings of words.

Its word embeddings are one linear map of meanings that a pretrained sentence encoder gives; the map is learned. So a
word that teaching never showed moves along with those that it did show. Texts about emotions come from written
situations, and from copies of them with replaced words, which the sentence encoder labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from ..core.chat import END_THINK, IGNORE, THINK, Item
from ..core.claims import LOW_HIGH, Scale
from ..core.labels import SEED_VII, LabelSet
from ..models.device import current_device
from ..models.language import ScratchParams, make_word_tokenizer, new_language_model
from ..models.processing import E2LLMProcessor
from ..tasks import scenarios
from ..tasks.corpus_statistics import stem, stems, training_stems
from ..tasks.items import ItemBuilder, drill_items, item_text, text_items
from ..tasks.segments import imagined_segments
from ..tasks.wordings import CHOOSE_WORDINGS, MATCH_WORDINGS, SCENARIO_WORDINGS
from .trainer import FitParams, Samples, examples_of, fit, item_collate, item_order
from .word_meanings import SentenceEncoder, Vocabulary, everyday_vocabulary, reduced

THINKING_SHARE = 0.5  # of the items that can do without a thought: how many have one
OTHER_LABELS = 0.2  # share of the items that are about labels drawn from the vocabulary
REPLACED_SHARE = 0.6  # of the texts about emotions: how many have replaced words
_NOUNS = ("emotion", "state", "condition", "task", "mood")
_ITEMS_OF_A_SET = 12  # items about one draw of other labels
_VARIANTS = 2  # texts of every situation that the labels of the sentence encoder are fitted on
_LEAST_SURE = 0.5  # probability of a label below which a text with replaced words is not used
_EMOTION_SHARE = 0.25  # length of what a word says about each emotion, where all that it means has length 1
_NEIGHBOURS = 12  # words that are so near in meaning that one may stand for another
_TASK_ITEMS, _ITEMS_AT_A_TIME, _SHORT_PIECES = 3000, 5000, 600
_OTHER_TOKENS = 1000  # of the softmax, beside those of the batch
_ENDINGS = ("s", "es", "ed", "d", "ing", "ly", "er", "ers", "y", "ness", "ment", "ful", "less", "est", "able", "ion")


@dataclass(frozen=True)
class TinyRecipe:
    """How the model is made; the defaults are those of the packaged one.

    Parameters
    ----------
    words : int
        Vocabulary, without pieces of words and marks.
    hidden_size, layers, heads : int
        Size of the Qwen3.
    meaning_width : int
        Components of a word's meaning that the learned map reads.
    n_items, drill_steps : int
        Items, and steps of copying drills before them.
    n_replaced : int
        Texts with replaced words that are drawn.
    own_dropout : float
        Share of the words whose own part is left out of a step, so that their meaning is used.
    """

    words: int = 14_000
    hidden_size: int = 96
    layers: int = 3
    heads: int = 4
    meaning_width: int = 192
    n_items: int = 64_000
    drill_steps: int = 40
    n_replaced: int = 16_000
    own_dropout: float = 0.5


def teachable(words: list[str]) -> np.ndarray:
    """Which words teaching may use: not those of zero-shot texts alone. That keeps "unseen words" unseen."""
    texts = (text.text for emotion in scenarios.emotions() for text in scenarios.zero_shot_scenarios(emotion))
    unseen = stems(texts) - training_stems()
    return np.array([stem(word) not in unseen for word in words])


def replaced_texts(texts: list[str], vocabulary: Vocabulary, n: int, seed: int) -> list[str]:
    """Copies of texts in which one to four words are others: near in meaning, or drawn from all.

    Parameters
    ----------
    texts : list of str
        To draw from.
    vocabulary : Vocabulary
        Gives the words.
    n, seed : int
        Number of copies, and seed of the draws.
    """
    rng = np.random.default_rng(seed)
    place = {word: i for i, word in enumerate(vocabulary.words)}
    unit = torch.from_numpy(reduced(vocabulary.meanings, 128))
    allowed = np.flatnonzero(teachable(vocabulary.words))
    of_allowed = unit[allowed]
    near: dict[int, np.ndarray] = {}
    copies = []
    for _ in range(n):
        text = texts[rng.integers(len(texts))]
        words = text.split(" ")
        can = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha() and word.islower()
               and word in place]
        for i in rng.permutation(can)[: rng.integers(1, 5)]:
            which = place[words[i]]
            if rng.uniform() < 0.5:
                if which not in near:
                    near[which] = allowed[torch.topk(of_allowed @ unit[which], _NEIGHBOURS + 1).indices[1:].numpy()]
                which = int(near[which][rng.integers(_NEIGHBOURS)])
            else:
                which = int(rng.choice(allowed))
            words[i] = vocabulary.words[which]
        copies.append(" ".join(words))
    return copies


@dataclass(frozen=True)
class TaughtTexts:
    """Texts of every label: written situations, and those with replaced words."""

    written: dict[str, list[str]]
    replaced: dict[str, list[str]]

    def draw(self, label: str, rng: np.random.Generator) -> str:
        """A text of a label.

        Parameters
        ----------
        label : str
            Of the text.
        rng : Generator
            Draws it.
        """
        replaced = self.replaced[label]
        texts = replaced if replaced and rng.uniform() < REPLACED_SHARE else self.written[label]
        return texts[rng.integers(len(texts))]


def written_texts(held_out: frozenset[str] = frozenset(), variants: int = 40) -> dict[str, list[str]]:
    """Training texts of every emotion.

    Parameters
    ----------
    held_out : frozenset of str
        Identities of situations that are left out, for development.
    variants : int
        Texts of every situation.
    """
    found = {}
    for emotion in scenarios.emotions():
        texts = scenarios.training_scenarios(emotion)
        kept = [i for i in range(texts.n_situations) if f"{emotion}/{i}" not in held_out]
        found[emotion] = [texts[variant * texts.n_situations + i].text for variant in range(variants) for i in kept]
    return found


def emotion_of(encoder: SentenceEncoder, written: dict[str, list[str]]) -> LogisticRegression:
    """A logistic regression on sentence vectors: the teacher of texts that nobody has labelled.

    Parameters
    ----------
    encoder : SentenceEncoder
        Gives the vectors.
    written : dict of str to list of str
        Texts of every label.
    """
    known = [(text, label) for label, found in written.items() for text in found]
    return LogisticRegression(C=3.0, max_iter=500).fit(encoder([text for text, _ in known]),
                                                       [label for _, label in known])


def labelled(encoder: SentenceEncoder, teacher: LogisticRegression, texts: list[str]) -> dict[str, list[str]]:
    """Texts by the label that the teacher gives them; unsure ones are left out.

    Parameters
    ----------
    encoder : SentenceEncoder
        Gives the vectors.
    teacher : LogisticRegression
        From :func:`emotion_of`.
    texts : list of str
        What is labelled.
    """
    found: dict[str, list[str]] = {str(label): [] for label in teacher.classes_}
    for text, row in zip(texts, teacher.predict_proba(encoder(texts)), strict=True):
        if row.max() >= _LEAST_SURE:
            found[str(teacher.classes_[row.argmax()])].append(text)
    return found


def token_meanings(meanings: np.ndarray, teacher: LogisticRegression, width: int) -> np.ndarray:
    """What a token's embedding starts from: how much a word speaks for each emotion, and what else it means.

    Parameters
    ----------
    meanings : ndarray, shape (n_words, 768)
        From :meth:`~e2llm.training.word_meanings.SentenceEncoder.words`.
    teacher : LogisticRegression
        From :func:`emotion_of`.
    width : int
        Columns of the result.

    Returns
    -------
    ndarray, shape (n_words, width)
        Rows of length 1.
    """
    speaks = meanings[:, : teacher.coef_.shape[1]] @ teacher.coef_.T
    speaks = _EMOTION_SHARE * (speaks - speaks.mean(0)) / speaks.std()
    found = np.concatenate([speaks, reduced(meanings, width - speaks.shape[1])], axis=1)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


class _Builder(ItemBuilder):
    """Item builder whose scenarios are given texts."""

    texts: TaughtTexts

    def _scenario(self, label: str, stratum: str | None) -> scenarios.Scenario:
        return scenarios.Scenario(self.texts.draw(label, self.rng), identity="", stratum=None)


def taught_items(texts: TaughtTexts, words: list[str], n: int, seed: int | list[int],
                 scale: Scale = LOW_HIGH) -> list[Item]:
    """Items in words alone: of the emotions, and of other labels.

    Parameters
    ----------
    texts : TaughtTexts
        Texts about the emotions.
    words : list of str
        Other labels are drawn from them.
    n, seed : int
        Number of items, and seed of the draws.
    scale : Scale
        Levels of the claims in them.
    """
    rng = np.random.default_rng(seed)
    builder = _Builder(imagined_segments(SEED_VII, max(64, n // 2), rng, scale), SEED_VII, int(rng.integers(2**31)))
    builder.texts = texts
    makers = [builder.predict, builder.describe, *[builder.scenario] * 3, builder.select, builder.compare, builder.rank,
              *[builder.match] * 2, *[builder.choose] * 2]
    others = _other_items(words, scale, rng)
    return [next(others) if rng.uniform() < OTHER_LABELS else makers[i % len(makers)]() for i in range(n)]


def _as_label(word: str, second: str, rng: np.random.Generator) -> str:
    """A word, or what else people call their classes: "eyes open", "eyes_open", "Rest", "REST"."""
    forms = (f"{word} {second}", f"{word}_{second}", word.capitalize(), word.upper())
    return forms[rng.integers(len(forms))] if rng.uniform() < 0.25 else word


def _other_items(words: list[str], scale: Scale, rng: np.random.Generator) -> Iterator[Item]:
    """Items about labels that are words of the vocabulary, so that any label is read from the prompt."""
    while True:
        drawn = rng.choice(words, size=int(rng.integers(2, 10)), replace=False)
        labels = [_as_label(str(word), str(rng.choice(words)), rng) for word in drawn]
        noun = str(rng.choice(_NOUNS))
        try:
            label_set = LabelSet("drawn", tuple(labels), noun=noun)
        except ValueError:
            continue  # a word that no source may call a label, such as the letter of a segment
        builder = ItemBuilder(imagined_segments(label_set, 32, rng, scale), label_set, int(rng.integers(2**31)))
        makers = [builder.predict, builder.describe, builder.select]
        if len(builder.by_label) > 1:
            yield from (makers[i % 3]() for i in range(_ITEMS_OF_A_SET))


class WordMeaningModel(nn.Module):
    """A Qwen3 whose word embeddings are a linear map of meanings, and a part of each token's own beside it.

    Parameters
    ----------
    model : Qwen3ForCausalLM
        Started by :func:`e2llm.models.language.lookup_init`.
    meanings : Tensor, shape (n_tokens, meaning_width)
        Rows of length 1, or 0 for tokens that mean nothing alone.
    needed : Tensor of bool, shape (n_tokens,)
        Tokens of the tasks: their own part starts at random, which tells them from their neighbours in meaning. That
        of the others starts at 0.
    seen : Tensor of bool, shape (n_tokens,)
        Tokens that teaching shows; the others have no part of their own. (The loss moves the embedding of every token,
        if only to make it less likely. A word that was never shown would move away from its meaning.)
    """

    meanings: Tensor
    constant: Tensor
    seen: Tensor

    def __init__(self, model: Qwen3ForCausalLM, meanings: Tensor, needed: Tensor, seen: Tensor) -> None:
        super().__init__()
        self.trunk = model.model
        self.whole = [model]  # in a list: a checkpoint cannot hold the same embeddings twice
        embedding = model.get_input_embeddings().weight.requires_grad_(False)
        self.n_word = 2 * model.config.hidden_size // 3
        scale = model.config.initializer_range * self.n_word**0.5
        constant = torch.zeros_like(embedding[0]).index_copy(0, torch.tensor([0]), embedding[0, :1])
        self.register_buffer("meanings", meanings)
        self.register_buffer("constant", constant)
        self.register_buffer("seen", seen[:, None])
        self.project = nn.Linear(meanings.shape[1], self.n_word, bias=False)
        nn.init.eye_(self.project.weight)
        self.project.weight.data *= scale
        has_meaning = (meanings.norm(dim=1, keepdim=True) > 0).float()
        self.own = nn.Parameter((embedding - constant) * (1 - 0.4 * has_meaning) * needed[:, None])

    def rows(self, ids: Tensor, keep: Tensor | None = None) -> Tensor:
        """Embeddings of tokens, shape (len(ids), hidden_size); ``keep``: whose own part stays, for all tokens.

        Parameters
        ----------
        ids : Tensor of int, shape (n,)
            The tokens.
        keep : Tensor of bool, shape (n_tokens,), optional
            Of all tokens, whose own part stays; default all.
        """
        words = F.pad(self.project(self.meanings[ids]), (1, len(self.constant) - 1 - self.n_word))
        own = self.own[ids] * self.seen[ids]
        return words + self.constant + (own if keep is None else own * keep[ids, None])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, others: Tensor,
                keep: Tensor | None = None) -> dict[str, Tensor]:
        """Mean loss of the items: an answer of one word counts as much as a long thought.

        The softmax is over the tokens of the batch and ``others``, drawn at random: over all tokens it would cost more
        than the rest of the model.

        Parameters
        ----------
        input_ids, attention_mask, labels : Tensor of int, shape (batch, length)
            As for any causal language model.
        others : Tensor of int, shape (n,)
            Further tokens of the softmax.
        keep : Tensor of bool, shape (n_tokens,), optional
            As for :meth:`rows`.

        References
        ----------
        Jean, S., et al. (2015). On using very large target vocabulary for neural machine translation. ACL.
        """
        ids, place = torch.unique(torch.cat([input_ids.flatten(), others]), return_inverse=True)
        rows, place = self.rows(ids, keep), place[: input_ids.numel()].view_as(input_ids)
        hidden = self.trunk(inputs_embeds=F.embedding(place, rows), attention_mask=attention_mask).last_hidden_state
        at = labels[:, 1:] != IGNORE
        loss = F.cross_entropy(F.linear(hidden[:, :-1][at], rows), place[:, 1:][at], reduction="none")
        share = 1 / at.sum(1, keepdim=True).expand_as(at)[at]
        return {"loss": (loss * share).sum() / len(labels)}

    @torch.no_grad()
    def plain(self) -> Qwen3ForCausalLM:
        """The Qwen3 with the finished embeddings in its table."""
        model = self.whole[0]
        embedding = model.get_input_embeddings().weight
        embedding.copy_(self.rows(torch.arange(len(embedding), device=embedding.device)))
        embedding.requires_grad_(True)
        return model.eval()


@dataclass(frozen=True)
class Words:
    """Tokenizer, the place of each token's word in the vocabulary (-1: none), and which tokens the tasks need."""

    tokenizer: PreTrainedTokenizerFast
    of_word: np.ndarray
    needed: np.ndarray


def task_words(items: list[Item], vocabulary: Vocabulary) -> Words:
    """Tokenizer of a vocabulary and of all that the tasks say.

    Parameters
    ----------
    items : list of Item
        Those about scenarios do not count: what they say are words of the vocabulary.
    vocabulary : Vocabulary
        All words.
    """
    texts = [item_text(item) for item in items if item.kind not in ("scenario", "match", "choose")]
    texts += [f" {form}" for form in (*SCENARIO_WORDINGS, *MATCH_WORDINGS, *CHOOSE_WORDINGS)]
    texts += [" The scenario fits", "user\n", "assistant\n", "system\n", f"{THINK}\n\n{END_THINK}\n\n"]
    cut = make_word_tokenizer([], []).backend_tokenizer
    found: dict[str, None] = {}
    for text in texts:
        for piece, _ in cut.pre_tokenizer.pre_tokenize_str(cut.normalizer.normalize_str(text)):
            found[cut.decoder.decode([piece])] = None
    pieces = [*found, *[word for word in vocabulary.words if 3 <= len(word) <= 5][:_SHORT_PIECES], *_ENDINGS]
    tokenizer = make_word_tokenizer(vocabulary.words, pieces)
    place = {word: i for i, word in enumerate(vocabulary.words) if word not in _ENDINGS}
    of_word = np.array([place.get(tokenizer.decode([i]).strip(), -1) for i in range(len(tokenizer))])
    needed = np.zeros(len(tokenizer), bool)
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        needed[ids] = True
    needed[tokenizer.all_special_ids] = True
    return Words(tokenizer, of_word, needed)


def words_of_tasks(recipe: TinyRecipe, vocabulary: Vocabulary, batch_size: int, seed: int) -> Words:
    """Tokenizer of a vocabulary and of the tasks of a recipe.

    Parameters
    ----------
    recipe : TinyRecipe
        Gives the number of drills.
    vocabulary : Vocabulary
        All words.
    batch_size, seed : int
        Of the teaching.
    """
    drills = drill_items(SEED_VII, recipe.drill_steps * batch_size, seed)
    return task_words([*drills, *text_items(SEED_VII, _TASK_ITEMS, seed)], vocabulary)


@dataclass(frozen=True)
class Lesson:
    """All that teaching needs: examples in order, words, and meanings of tokens."""

    examples: list[dict]
    n_drills: int
    words: Words
    meanings: np.ndarray


def _examples(texts: TaughtTexts, words: list[str], processor: E2LLMProcessor, seed: int, part: int) -> list[dict]:
    items = taught_items(texts, words, _ITEMS_AT_A_TIME, [seed, part])
    return examples_of(items, processor, THINKING_SHARE, [seed, part])


def texts_and_words(recipe: TinyRecipe, encoder: SentenceEncoder, by_frequency: list[str], seed: int,
                    held_out: frozenset[str] = frozenset(), say: Callable[[str], None] = print
                    ) -> tuple[TaughtTexts, Vocabulary, LogisticRegression]:
    """Texts about the emotions, the vocabulary, and the teacher who labels the copies.

    Parameters
    ----------
    recipe, encoder, by_frequency, held_out, say
        As for :func:`lesson`.
    seed : int
        Of the copies with replaced words.
    """
    written = written_texts(held_out)
    everything = [text for found in written.values() for text in found]
    feelings = [word for emotion in scenarios.emotions() for word in (emotion, *scenarios.feelings(emotion))]
    say("choosing the vocabulary")
    vocabulary = everyday_vocabulary(encoder, by_frequency, [*everything, *feelings], recipe.words)
    say("labelling texts with replaced words")
    teacher = emotion_of(encoder, written_texts(held_out, _VARIANTS))
    copies = replaced_texts(everything, vocabulary, recipe.n_replaced, seed)
    return TaughtTexts(written, labelled(encoder, teacher, copies)), vocabulary, teacher


def lesson(recipe: TinyRecipe, encoder: SentenceEncoder, by_frequency: list[str], params: FitParams,
           held_out: frozenset[str] = frozenset(), say: Callable[[str], None] = print, each: Callable = map
           ) -> Lesson:
    """Everything that is taught, made from the recipe.

    Parameters
    ----------
    recipe : TinyRecipe
        Sizes.
    encoder : SentenceEncoder
        Gives meanings and labels.
    by_frequency : list of str
        English words, the most frequent one first.
    params : FitParams
        Gives batch size and seed.
    held_out : frozenset of str
        Identities of situations that are left out, for development.
    say : callable
        Told what is being done.
    each : callable
        ``map``, or that of a pool of processes.
    """
    texts, vocabulary, teacher = texts_and_words(recipe, encoder, by_frequency, params.seed, held_out, say)
    say("drawing items")
    drills = drill_items(SEED_VII, recipe.drill_steps * params.batch_size, params.seed)
    words = words_of_tasks(recipe, vocabulary, params.batch_size, params.seed)
    processor = E2LLMProcessor(words.tokenizer)
    may = teachable(vocabulary.words)
    labels = [word for word, taught in zip(vocabulary.words, may, strict=True) if taught and len(word) > 2]
    draw = partial(_examples, texts, labels, processor, params.seed)
    examples = examples_of(drills, processor, 0.0, params.seed)
    for part in each(draw, range(-(-recipe.n_items // _ITEMS_AT_A_TIME))):
        examples += part
    narrow = token_meanings(vocabulary.meanings, teacher, recipe.meaning_width)
    meanings = np.where(words.of_word[:, None] >= 0, narrow[words.of_word], 0.0).astype(np.float32)
    return Lesson(examples[: len(drills) + recipe.n_items], len(drills), words, meanings)


def teach(recipe: TinyRecipe, taught: Lesson, params: FitParams, folder: Path,
          on_step: Callable[..., None] | None = None) -> tuple[Qwen3ForCausalLM, pd.DataFrame]:
    """Teach a new Qwen3; resumes from a checkpoint in ``folder``.

    Parameters
    ----------
    recipe : TinyRecipe
        Size of the model.
    taught : Lesson
        What it is taught.
    params : FitParams
        Schedule and seed.
    folder : Path
        Checkpoints.
    on_step
        As for :func:`e2llm.training.trainer.fit`.

    Returns
    -------
    model : Qwen3ForCausalLM
        In evaluation mode.
    history : DataFrame
        Columns step and loss.
    """
    tokenizer, examples, n = taught.words.tokenizer, taught.examples, taught.n_drills
    size = ScratchParams(len(tokenizer), recipe.hidden_size, recipe.layers, recipe.heads)
    seen = np.zeros(len(tokenizer), bool)
    for example in examples:
        seen[example["input_ids"]] = True
    model = WordMeaningModel(new_language_model(tokenizer, size, params.seed), torch.from_numpy(taught.meanings),
                             torch.from_numpy(taught.words.needed), torch.from_numpy(seen)).to(current_device())
    lengths = [len(example["input_ids"]) for example in examples[n:]]
    order = item_order(lengths, replace(params, steps=params.steps - n // params.batch_size))
    order = np.concatenate([np.arange(n), n + order])
    pad, needed = item_collate(E2LLMProcessor(tokenizer), None, {}), torch.from_numpy(taught.words.needed)

    def collate(batch: list[dict]) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(batch[0]["place"])  # by the place alone, as in item_collate
        keep = torch.rand(len(tokenizer), generator=drawn) >= recipe.own_dropout
        return pad(batch) | {"others": torch.randint(len(tokenizer), (_OTHER_TOKENS,), generator=drawn),
                             "keep": keep | needed}

    history = fit(model, Samples(order, examples.__getitem__), collate, params, folder, on_step=on_step)
    return model.plain(), history
