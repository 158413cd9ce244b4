"""Inference with a trained model: scores of closed sets of options, generation, label similarity."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..core.chat import EEG_TOKEN, END_THINK, Item
from .logits import logits_at

if TYPE_CHECKING:
    from .processing import E2LLMProcessor


@dataclass
class InferenceEngine:
    """Inference engine: a trained model with the encoder's tokens of its windows.

    Parameters
    ----------
    model
        E2-LLM, adapter merged or not.
    processor : E2LLMProcessor
        Its processor.
    features : ndarray, shape (n_rows, n_times, token_width)
        Frozen encoder tokens.
    position : dict of int to int
        Row of ``features`` of each window id.
    """

    model: Any
    processor: E2LLMProcessor
    features: np.ndarray
    position: dict[int, int]

    def inputs(self, items: list[Item], thinking: bool, said: list[str] | None = None) -> dict[str, torch.Tensor]:
        """Left-padded prompts with their EEG tokens.

        Parameters
        ----------
        items : list of Item
            Questions.
        thinking : bool
            See :meth:`e2llm.models.processing.E2LLMProcessor.prompt`.
        said : list of str, optional
            Beginning of the assistant's turn, such as a thought.
        """
        said = said or [""] * len(items)
        cut = self.processor.ids_of([self.processor.prompt(item.messages, thinking) for item in items] + said)
        prompts = [prompt + text for prompt, text in zip(cut[: len(items)], cut[len(items) :], strict=True)]
        ids, mask = self.processor.pad(prompts, "left")
        windows = [self.position[window] for item in items for window in self.processor.windows(item.messages)]
        features = torch.from_numpy(np.stack([self.features[row] for row in windows])) if windows else None
        brief = [one for item in items for one in self.processor.brief(item.messages)]
        given = {"input_ids": ids, "attention_mask": mask, "eeg_features": features,
                 "eeg_brief": torch.tensor(brief) if any(brief) else None}
        return {name: value.to(self.model.device) for name, value in given.items() if value is not None}


def _in_batches(items: list[Item], size: Callable[[Item], int], batch: int) -> list[list[int]]:
    """Positions of items in batches of similar size."""
    order = sorted(range(len(items)), key=lambda i: size(items[i]))
    return [order[i : i + batch] for i in range(0, len(order), batch)]


def _first_equal(keys: list) -> list[int]:
    """For every key the position of the first one that equals it."""
    first: dict[str, int] = {}
    return [first.setdefault(json.dumps(key), i) for i, key in enumerate(keys)]


_PIECE = 16  # tokens that are written before the texts that have ended leave the batch


def longest_text(processor: E2LLMProcessor) -> int:
    """Tokens of the longest text that a model writes about a segment: a claim takes up to six."""
    return max(96, 36 + 6 * processor.evidence_slots)


def generate(engine: InferenceEngine, items: list[Item], thinking: bool = True, max_new_tokens: int | None = None,
             batch: int = 128) -> list[str]:
    """Greedy free text for every item: special tokens of the thought are kept, the end of turn is removed.

    Equal questions are asked once: without EEG, hundreds of items hold a handful of questions.

    Parameters
    ----------
    engine : InferenceEngine
        Model.
    items : list of Item
        Questions.
    thinking : bool
        Whether the text may begin with a thought.
    max_new_tokens, batch : int
        Largest number of tokens of a text (default :func:`longest_text`), and of items at a time.
    """
    same = _first_equal([item.messages for item in items])
    asked = sorted(set(same))
    texts = _generate(engine, [items[i] for i in asked], 1, thinking, max_new_tokens, batch, do_sample=False)
    written = {i: own[0] for i, own in zip(asked, texts, strict=True)}
    return [written[i] for i in same]


def sample(engine: InferenceEngine, items: list[Item], n: int, temperature: float, seed: int, thinking: bool = True,
           max_new_tokens: int | None = None, batch: int = 64) -> list[list[str]]:
    """Several texts for every item, drawn from the model's own distribution.

    Parameters
    ----------
    engine, items, thinking, max_new_tokens, batch
        As for :func:`generate`.
    n : int
        Texts of an item.
    temperature : float
        Of the softmax.
    seed : int
        Of the draws.
    """
    torch.manual_seed(seed)
    return _generate(engine, items, n, thinking, max_new_tokens, batch, do_sample=True, temperature=temperature,
                     top_k=0, top_p=1.0)


@torch.no_grad()
def _generate(engine: InferenceEngine, items: list[Item], n: int, thinking: bool, max_new_tokens: int | None,
              batch: int, **decoding) -> list[list[str]]:
    texts: list[list[str]] = [[] for _ in items]
    most, tokenizer = max_new_tokens or longest_text(engine.processor), engine.processor.tokenizer
    for chosen in _in_batches(items, lambda item: len(item.windows), batch):
        inputs = engine.inputs([items[i] for i in chosen], thinking)
        said = {row: tokens for ended in _written(engine, inputs, n, most, **decoding)
                for row, tokens in zip(ended.rows, ended.said, strict=True)}
        for place in sorted(said):
            texts[chosen[place // n]].append(_text_of(said[place], tokenizer))
    return texts


def _text_of(tokens: list[int], tokenizer: Any) -> str:
    end = tokens.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in tokens else len(tokens)
    return tokenizer.decode(tokens[:end], skip_special_tokens=False)


def never(token: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A logits processor after which a token is never written.

    The ``suppress_tokens`` of transformers do the same, but read and copy all logits for it.
    """
    def processor(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, token] = -torch.inf  # a copy of the model's logits: transformers made it for its processors
        return scores

    return processor


class _Ended(NamedTuple):
    """Texts that end together, in one batch."""

    rows: list[int]  # their places: prompt i has the rows n * i to n * i + n - 1
    said: list[list[int]]  # tokens of each text
    # Of the whole batch, before the next text of it is asked for; None if no part of a text can be read on:
    cache: Any = None  # keys and values of prompts and texts, without the last token
    places: torch.Tensor | None = None  # rows of these texts in it
    mask: torch.Tensor | None = None  # (n_rows of the batch, tokens of the longest prompt), of the prompts


def _written(engine: InferenceEngine, inputs: dict[str, Any], n: int, most: int, keep: bool = False,
             **decoding) -> Iterator[_Ended]:
    """What follows each prompt, ``n`` times; texts that have ended leave the batch, so that none waits for the longest.

    ``keep`` gives keys and values too. A model whose cache cannot lose rows (a state-space model) writes all texts in
    one piece.
    """
    from .text_cache import can_go_back, can_lose_rows, text_cache  # here: it loads transformers

    tokenizer = engine.processor.tokenizer
    fixed = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, **decoding,
             "logits_processor": [never(tokenizer.convert_tokens_to_ids(EEG_TOKEN))], "return_dict_in_generate": True,
             "use_cache": True}
    roomy, length = text_cache(engine.model), inputs["input_ids"].shape[1]
    rows = list(range(n * len(inputs["input_ids"])))
    said: list[list[int]] = [[] for _ in rows]
    given, left = {**inputs, "num_return_sequences": n}, most
    if roomy is not None:
        given["past_key_values"] = roomy
    while rows:
        piece = min(_PIECE, left)
        out = engine.model.generate(**given, max_new_tokens=piece, **fixed)
        new, left = out.sequences[:, given["input_ids"].shape[1] :], left - piece
        for row, tokens in zip(rows, new.tolist(), strict=True):
            said[row] += tokens
        goes_on = (new != tokenizer.eos_token_id).all(dim=1).cpu() & bool(left)
        cache: Any = getattr(out, "past_key_values", None)
        if goes_on.any() and not can_lose_rows(cache):
            out = engine.model.generate(**inputs, num_return_sequences=n, max_new_tokens=most, **fixed)
            yield _Ended(rows, out.sequences[:, length:].tolist())
            return
        mask = given["attention_mask"].repeat_interleave(given.get("num_return_sequences", 1), dim=0)
        ends, stays = (is_so.nonzero()[:, 0] for is_so in (~goes_on, goes_on))
        if len(ends):
            ended, whole = [rows[i] for i in ends.tolist()], keep and can_go_back(engine.model, cache)
            yield _Ended(ended, [said[row] for row in ended], *((cache, ends, mask[:, :length]) if whole else ()))
        if not len(stays):
            return
        if len(ends):
            cache.batch_select_indices(stays)
        given = {"input_ids": out.sequences[stays], "past_key_values": cache,
                 "attention_mask": torch.nn.functional.pad(mask, (0, new.shape[1]), value=1)[stays]}
        rows = [rows[i] for i in stays.tolist()]


MOST_LOGITS = 2**26  # made at a time when options are scored; in float32 a quarter of a gigabyte
_ROWS = 256  # of logits that are summed at a time, so that what is made for it stays near the processor


@torch.no_grad()
def score_options(engine: InferenceEngine, items: list[Item], said: list[str] | None = None, batch: int = 64,
                  per_token: bool = False) -> list[np.ndarray]:
    """Log-probability of every option of every item; the prompt is read once for all options.

    Equal questions with equal options and thoughts are scored once.

    Parameters
    ----------
    engine : InferenceEngine
        Model.
    items : list of Item
        With closed sets of options.
    said : list of str, optional
        Thoughts that the options follow; default none, and the prompt has an empty thought.
    batch : int
        Items at a time; fewer where options are many or long.
    per_token : bool
        Divide by the number of tokens, for options of different length.

    Returns
    -------
    list of ndarray, shape (n_options,)
        Natural log-probabilities, end of turn included.
    """
    same = _first_equal([(item.messages, item.options, said and said[i]) for i, item in enumerate(items)])
    scores: list[np.ndarray] = [np.empty(0)] * len(items)
    by_count: dict[int, list[int]] = {}
    for i in sorted(set(same)):
        by_count.setdefault(len(items[i].options), []).append(i)
    cut = _cut_options(engine.processor, items)
    for n_options, members in by_count.items():
        size = _at_a_time(engine, [items[i] for i in members], n_options, cut, batch)
        for start in range(0, len(members), size):
            chosen = members[start : start + size]
            thoughts = None if said is None else [said[i] for i in chosen]
            logs, lengths = _score_batch(engine, [items[i] for i in chosen], thoughts, n_options, cut)
            for i, row, length in zip(chosen, logs, lengths, strict=True):
                scores[i] = row / length if per_token else row
    return [scores[i] for i in same]


def closed_thought(text: str) -> str:
    """The thought of a text as options follow it.

    Parameters
    ----------
    text : str
        That a model has written: a thought, its end, and an answer.
    """
    return f"{text.split(END_THINK, 1)[0].rstrip()}\n{END_THINK}\n\n"


@torch.no_grad()
def think_and_score(engine: InferenceEngine, items: list[Item], batch: int = 128) -> tuple[list[str], list[np.ndarray]]:
    """Greedy text for every item, and the log-probability of every option after its thought.

    As :func:`generate` and then :func:`score_options` behind :func:`closed_thought`. But keys and values of prompts and
    thoughts are there when a text ends, and are used again.

    Parameters
    ----------
    engine : InferenceEngine
        Model.
    items : list of Item
        With closed sets of options.
    batch : int
        Items at a time.

    Returns
    -------
    texts : list of str
        One an item.
    scores : list of ndarray, shape (n_options,)
        Natural log-probabilities, end of turn included.
    """
    same, processor = _first_equal([item.messages for item in items]), engine.processor
    asked = sorted(set(same))
    cut = _cut_options(processor, items)
    alike: dict[int, list[int]] = {}  # items with one question may have different options
    for i, first in enumerate(same):
        alike.setdefault(first, []).append(i)
    texts, scores = [""] * len(items), [np.empty(0)] * len(items)
    for places in _in_batches([items[i] for i in asked], lambda item: len(item.windows), batch):
        chosen = [asked[place] for place in places]
        inputs = engine.inputs([items[i] for i in chosen], thinking=True)
        for ended in _written(engine, inputs, 1, longest_text(processor), keep=True, do_sample=False):
            for row, tokens in zip(ended.rows, ended.said, strict=True):
                for i in alike[chosen[row]]:
                    texts[i] = _text_of(tokens, processor.tokenizer)
            for i, own in _score_ended(engine, items, ended, [alike[chosen[row]] for row in ended.rows], texts, cut):
                scores[i] = own
    if left := [i for i, own in enumerate(scores) if not len(own)]:
        found = score_options(engine, [items[i] for i in left], [closed_thought(texts[i]) for i in left])
        for i, own in zip(left, found, strict=True):
            scores[i] = own
    return texts, scores


def _score_ended(engine: InferenceEngine, items: list[Item], ended: _Ended, asked: list[list[int]], texts: list[str],
                 cut: dict[str, list[int]]) -> Iterator[tuple[int, np.ndarray]]:
    """Scores of the items that each ended text answers, where its tokens are those that the tokenizer would cut.

    Items with one text and equal options are scored once.
    """
    if ended.cache is None:
        return
    thoughts = engine.processor.ids_of([closed_thought(texts[own[0]]) for own in asked])
    by_count: dict[int, dict[tuple, list[int]]] = {}
    for row, (thought, said) in enumerate(zip(thoughts, ended.said, strict=True)):
        if said[: len(thought)] == thought and len(thought) < len(said):
            for i in asked[row]:
                options = tuple(items[i].options)
                by_count.setdefault(len(options), {}).setdefault((row, options), []).append(i)
    for n_options, alike in by_count.items():
        members = [(row, same) for (row, _), same in alike.items()]
        size = _at_a_time(engine, [items[same[0]] for _, same in members], n_options, cut)
        for start in range(0, len(members), size):
            some = members[start : start + size]
            logs, _ = _score_thoughts(engine, [items[same[0]] for _, same in some], ended, [row for row, _ in some],
                                      [thoughts[row] for row, _ in some], n_options, cut)
            for (_, same), log in zip(some, logs, strict=True):
                yield from ((i, log) for i in same)


def _score_thoughts(engine: InferenceEngine, items: list[Item], ended: _Ended, rows: list[int],
                    thoughts: list[list[int]], n_options: int,
                    cut: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    from .text_cache import rows_of

    assert ended.mask is not None and ended.places is not None
    device, places = engine.model.device, ended.places[rows]
    cache, prompts = rows_of(ended.cache, places), ended.mask[places]
    # The last token of the thought is read once more, for its logits; what was written behind it is not seen.
    lengths = torch.tensor([len(thought) for thought in thoughts])
    written = torch.arange(cache.get_seq_length() - prompts.shape[1])
    seen = (written < lengths[:, None] - 1).to(prompts)
    mask = torch.nn.functional.pad(torch.cat([prompts, seen], dim=1), (0, 1), value=1)
    last = torch.tensor([thought[-1:] for thought in thoughts], device=device)
    first = engine.model(input_ids=last, attention_mask=mask, past_key_values=cache, use_cache=True,
                         position_ids=_positions(mask)[:, -1:], logits_to_keep=1)
    return _score_behind(engine, first, mask, items, n_options, cut)


def _cut_options(processor: E2LLMProcessor, items: list[Item]) -> dict[str, list[int]]:
    """Token ids of every option of items, cut in one call."""
    options = sorted({option for item in items for option in item.options})
    return dict(zip(options, processor.ids_of(options), strict=True))


def _at_a_time(engine: InferenceEngine, items: list[Item], n_options: int, cut: dict[str, list[int]],
               batch: int = 64) -> int:
    """Items that are scored together, so that their logits take at most a quarter of a gigabyte."""
    longest = max(len(cut[option]) for item in items for option in item.options)
    return max(1, min(batch, MOST_LOGITS // (n_options * max(1, longest) * len(engine.processor.tokenizer))))


def _score_batch(engine: InferenceEngine, items: list[Item], said: list[str] | None, n_options: int,
                 cut: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    prompt = engine.inputs(items, thinking=said is not None, said=said)
    mask = prompt["attention_mask"]
    first = engine.model(**prompt, use_cache=True, position_ids=_positions(mask), logits_to_keep=1)
    return _score_behind(engine, first, mask, items, n_options, cut)


def _score_behind(engine: InferenceEngine, first: Any, mask: torch.Tensor, items: list[Item], n_options: int,
                  cut: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and tokens of the options behind texts that were read, both of shape (n_items, n_options)."""
    processor, eos = engine.processor, engine.processor.tokenizer.eos_token_id
    rows = [[*cut[option], eos] for item in items for option in item.options]
    ids, real = (padded.to(engine.model.device) for padded in processor.pad(rows, "right"))
    # The token at place t is predicted by the logits at t - 1; those of the first token come from the prompt.
    logs = first.logits[:, -1].float().log_softmax(-1)
    scores = logs.gather(1, ids[:, 0].view(-1, n_options)).view(-1)
    if ids.shape[1] > 1:  # the last token predicts nothing that is asked for: it is not read
        cache, wanted = first.past_key_values, real[:, 1:].bool()
        cache.batch_repeat_interleave(n_options)
        full = torch.cat([mask.repeat_interleave(n_options, dim=0), real[:, :-1]], dim=1)
        second = logits_at(engine.model, wanted, input_ids=ids[:, :-1], attention_mask=full, past_key_values=cache,
                           position_ids=_positions(full)[:, 1 - ids.shape[1] :], use_cache=True)
        logits = second.logits[0].float()
        total = torch.cat([part.logsumexp(-1) for part in logits.split(_ROWS)])
        chosen = logits.gather(1, ids[:, 1:][wanted].unsqueeze(1)).squeeze(1) - total
        scores = scores + torch.zeros_like(ids[:, 1:], dtype=chosen.dtype).masked_scatter(wanted, chosen).sum(1)
    return scores.view(-1, n_options).cpu().numpy(), real.sum(1).view(-1, n_options).cpu().numpy()


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp_min(0)


@torch.no_grad()
def label_similarity(engine: InferenceEngine, rows_by_label: dict[str, list[int]]) -> np.ndarray:
    """Cosine between the mean state token of each label's windows and the words of every label.

    Both sides are centered on their mean first, so that what all tokens share does not count.

    Parameters
    ----------
    engine : InferenceEngine
        Model.
    rows_by_label : dict of str to list of int
        Window ids of each label.

    Returns
    -------
    ndarray, shape (n_labels, n_labels)
        Rows are EEG, columns are words.
    """
    projector, processor = engine.model.projector, engine.processor
    words = engine.model.get_input_embeddings().weight
    features = [np.stack([engine.features[engine.position[w]] for w in windows]).astype(np.float32)
                for windows in rows_by_label.values()]
    eeg = torch.stack([projector.state_tokens(torch.from_numpy(found).to(engine.model.device)).mean(dim=(0, 1))
                       for found in features]).float()
    text = torch.stack([words[processor.ids(f" {label}")].mean(dim=0) for label in rows_by_label]).float()
    eeg, text = eeg - eeg.mean(0), text - text.mean(0)
    return torch.nn.functional.cosine_similarity(eeg[:, None], text[None], dim=-1).cpu().numpy()


@torch.no_grad()
def nearest_words(model: Any, processor: E2LLMProcessor, features: np.ndarray,
                  n: int = 5) -> list[list[tuple[str, float]]]:
    """Words of the language model that lie nearest to each token of a segment.

    Both sides are centered on the mean of all words first, so that what all words share does not count.

    Parameters
    ----------
    model : E2LLMForConditionalGeneration
        Its projector makes the tokens.
    processor : E2LLMProcessor
        Its tokenizer names the words.
    features : ndarray, shape (n_times, token_width)
        Encoder tokens of one window.
    n : int
        Words of a token.

    Returns
    -------
    list of list of (str, float)
        For each state token and then each evidence token: words and cosines (-1 to 1), the nearest first. Word parts
        that cannot be printed are left out.
    """
    words = model.get_input_embeddings().weight.float()
    tokens = model.projector(torch.from_numpy(np.array(features))[None].to(model.device))[0].float()
    center = words.mean(dim=0)
    directions = torch.nn.functional.normalize(words - center, dim=-1)
    cosines = torch.nn.functional.normalize(tokens - center, dim=-1) @ directions.T
    found: list[list[tuple[str, float]]] = []
    for row in cosines:
        nearest: list[tuple[str, float]] = []
        for word in row.argsort(descending=True, stable=True)[: 20 * n].tolist():
            text = processor.tokenizer.decode([word]).strip()
            if text and text.isprintable() and "\ufffd" not in text and text not in (known for known, _ in nearest):
                nearest.append((text, float(row[word])))
            if len(nearest) == n:
                break
        found.append(nearest)
    return found


def probabilities(scores: list[np.ndarray]) -> np.ndarray:
    """Option probabilities, normalized over the closed set, shape (n_items, n_options)."""
    stacked = np.stack(scores)
    stacked = np.exp(stacked - stacked.max(axis=1, keepdims=True))
    return stacked / stacked.sum(axis=1, keepdims=True)


def closed_set(engine: InferenceEngine, items: list[Item]) -> np.ndarray:
    """Probability of each option of items with equally many options, read from the EEG before any explanation.

    Show no other probability as how sure a model is. A thought names its conclusion; scored after it, the named option
    has nearly everything, right or wrong.

    Parameters
    ----------
    engine : InferenceEngine
        Model.
    items : list of Item
        With closed sets of options of one size.

    Returns
    -------
    ndarray, shape (n_items, n_options)
        Rows sum to 1.
    """
    return probabilities(score_options(engine, items))
