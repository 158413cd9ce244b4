"""How fluent generated texts are: counts, and the perplexity of an independent language model.

No single number is fluency. A model that always writes one sentence is easy to read and easy to predict, so the
training thoughts are measured too, and a low perplexity counts only together with the variety of the texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch

from ...core.chat import IGNORE
from ...core.claims import LOW_HIGH, Scale
from ...tasks.thought_parser import parse, sentences
from ..metrics import ratio_over_subjects

QUESTION = "What does this person's EEG show, and which emotion fits?"  # prompt of the judge: what a text answers


def fluency(texts: Sequence[str], subjects: Sequence[str], labels: Sequence[str], judge: tuple | None = None,
            seed: int = 0, scale: Scale = LOW_HIGH) -> pd.DataFrame:
    """Measures of texts; their intervals resample people.

    Parameters
    ----------
    texts, subjects : sequence of str
        Generated texts (of a whole response, the thought), and their subjects.
    labels : sequence of str
        Labels that the grammar may read.
    judge : (model, tokenizer), optional
        A language model that was not trained on any text of this kit, for ``perplexity``.
    seed : int
        Of the intervals.
    scale : Scale
        Of the claims that the grammar may read.

    Returns
    -------
    DataFrame, columns name, score, low, high, n
        - *readable sentences*: share of sentences that the grammar (:func:`e2llm.tasks.thought_parser.parse`) reads;
        - *texts that repeat themselves*: share of texts that hold a sentence twice;
        - *words in a text*;
        - *distinct word pairs*: different pairs of neighboring words over all pairs. It falls with the number of texts,
          so compare equal numbers; it has no interval;
        - *perplexity*: per token of the judge; smaller is more expected English.

    References
    ----------
    Li et al. 2016, arXiv 1510.03055.
    """
    if len(texts) != len(subjects) or not len(texts):
        raise ValueError(f"Give as many subjects as texts, and one or more: got {len(texts)} texts, "
                         f"{len(subjects)} subjects.")
    of_text = [sentences(text) for text in texts]
    unread = [len(parse(text, labels, scale).unread) for text in texts]
    words = [[word.lower() for sentence in found for word in sentence.split()] for found in of_text]
    one, count = np.ones(len(texts)), np.array([len(found) for found in of_text])
    repeats = np.array([max(Counter(found).values(), default=0) > 1 for found in of_text])
    pairs = [pair for found in words for pair in pairwise(found)]
    rows = [("readable sentences", *_ratio(count - unread, count, subjects, seed)),
            ("texts that repeat themselves", *_ratio(repeats, one, subjects, seed)),
            ("words in a text", *_ratio(np.array([len(found) for found in words]), one, subjects, seed)),
            ("distinct word pairs", len(set(pairs)) / max(1, len(pairs)), np.nan, np.nan)]
    if judge is not None:
        rows.append(("perplexity", *np.exp(_ratio(*negative_log_probability([" ".join(found) for found in of_text],
                                                                            *judge), subjects, seed))))
    return pd.DataFrame(rows, columns=["name", "score", "low", "high"]).assign(n=len(texts))


def _ratio(part: np.ndarray, whole: np.ndarray, subjects: Sequence[str], seed: int) -> np.ndarray:
    """Sum of parts over sum of wholes, and its 95 % interval.

    NaN for one person, who gives no information about others.
    """
    nothing = (float("nan"), float("nan"))
    return np.array(ratio_over_subjects(part, whole, np.asarray(subjects), seed, one_subject=nothing))


@torch.no_grad()
def negative_log_probability(texts: Sequence[str], model, tokenizer, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-probability (nats) of texts as an answer to :data:`QUESTION`, and their numbers of tokens.

    Parameters
    ----------
    texts : sequence of str, length n
        An empty text has no token.
    model, tokenizer
        The judge.
    batch : int
        Texts at a time.

    Returns
    -------
    tuple of ndarray, shape (n,)
    """
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], tokenize=False,
                                           add_generation_prompt=True)
    start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    nats, order = np.zeros(len(texts)), sorted((i for i in range(len(texts)) if ids[i]), key=lambda i: len(ids[i]))
    for some in (order[i : i + batch] for i in range(0, len(order), batch)):
        longest = len(ids[some[-1]])
        rows = torch.tensor([[*start, *ids[i], *[start[0]] * (longest - len(ids[i]))] for i in some],
                            device=model.device)
        wanted = torch.tensor([[*ids[i], *[IGNORE] * (longest - len(ids[i]))] for i in some], device=model.device)
        mask = torch.cat([rows.new_ones(len(some), len(start)), (wanted != IGNORE).long()], dim=1)
        logits = model(input_ids=rows, attention_mask=mask, logits_to_keep=longest + 1).logits[:, :-1].float()
        lost = torch.nn.functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=IGNORE, reduction="none")
        nats[some] = lost.sum(dim=1).double().cpu().numpy()
    return nats, np.array([len(found) for found in ids])
