"""What words and sentences mean, by a pretrained sentence encoder; and which words an everyday vocabulary needs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from ..models.device import current_device

_WORD = re.compile("[a-z]+")
_WORD_BATCH, _SENTENCE_BATCH = 256, 64
_CANDIDATES, _ALWAYS = 45_000, 2000  # words that are considered, and of them those that are taken whatever they mean
_FREQUENCY_WEIGHT, _MEANING_WEIGHT = 1 / 3, 10.0  # of the two kinds of features: log rank, and unit vectors


def words_of(text: str) -> list[str]:
    """The words of a text in small letters."""
    return _WORD.findall(text.lower())


class SentenceEncoder:
    """Mean of the last hidden states of a BERT, of length 1: all-MiniLM-L6-v2 as its authors use it.

    Parameters
    ----------
    folder : path
        Of the model, as ``e2llm fetch minilm-l6-v2`` leaves it.

    References
    ----------
    Reimers, N. & Gurevych, I. (2019). Sentence-BERT. EMNLP.
    """

    def __init__(self, folder: str | Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().to(current_device())

    @torch.no_grad()
    def __call__(self, texts: list[str], batch: int = _SENTENCE_BATCH) -> np.ndarray:
        """Unit vectors of texts, shape (n, 384)."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
        found = np.empty((len(texts), self.model.config.hidden_size), np.float32)
        for start in range(0, len(order), batch):
            some = order[start : start + batch]
            inputs = self.tokenizer([texts[i] for i in some], padding=True, truncation=True, return_tensors="pt")
            inputs = inputs.to(self.model.device)
            mask = inputs["attention_mask"].unsqueeze(-1)
            hidden = (self.model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)
            found[some] = F.normalize(hidden, dim=-1).cpu().numpy()
        return found

    @torch.no_grad()
    def words(self, words: list[str]) -> np.ndarray:
        """Meanings of single words, shape (n, 768): the unit vector of each read alone, and that of its word pieces."""
        table = self.model.get_input_embeddings().weight.cpu()
        pieces = self.tokenizer(words, add_special_tokens=False)["input_ids"]
        own = F.normalize(torch.stack([table[ids].mean(0) for ids in pieces]), dim=-1).numpy()
        return np.concatenate([self(words, _WORD_BATCH), own], axis=1)


@dataclass(frozen=True)
class Vocabulary:
    """Words with their meanings, shape (n_words, 768)."""

    words: list[str]
    meanings: np.ndarray


def everyday_vocabulary(encoder: SentenceEncoder, by_frequency: list[str], texts: Collection[str],
                        size: int) -> Vocabulary:
    """The words of some texts, and of all frequent English words those that are most like them.

    Frequency alone, counted in books, would fill the vocabulary with names and technical words. A logistic regression
    on meaning and frequency tells words of the texts from others; the words that it takes for words of the texts come
    first.

    Parameters
    ----------
    encoder : SentenceEncoder
        Gives meanings.
    by_frequency : list of str
        English words, the most frequent one first.
    texts : collection of str
        Whose words are all taken.
    size : int
        Number of words.
    """
    seen = {word for text in texts for word in words_of(text)}
    words = [word for word in by_frequency if _WORD.fullmatch(word)][:_CANDIDATES]
    words += sorted(seen - set(words))
    meanings = encoder.words(words)
    known = np.array([word in seen for word in words])
    rank = np.log1p(np.arange(len(words)))[:, None]
    read_alone = meanings[:, : meanings.shape[1] // 2]
    inputs = np.concatenate([_MEANING_WEIGHT * read_alone, _FREQUENCY_WEIGHT * rank], axis=1)
    model = LogisticRegression(C=0.3, max_iter=300, class_weight="balanced").fit(inputs, known)
    first = known | (np.arange(len(words)) < _ALWAYS)
    order = np.lexsort((-model.decision_function(inputs), ~first))[:size]
    order = np.sort(order)
    return Vocabulary([words[i] for i in order], meanings[order])


def reduced(meanings: np.ndarray, width: int) -> np.ndarray:
    """Principal components of meanings, each scaled by the root of its standard deviation, in rows of length 1.

    The root keeps the first few components, which tell common words from rare ones, from drowning the others.

    Parameters
    ----------
    meanings : ndarray, shape (n_words, 768)
        From :meth:`SentenceEncoder.words`.
    width : int
        Number of components.
    """
    centered = meanings - meanings.mean(0)
    variances, directions = np.linalg.eigh(np.cov(centered.T))
    variances, directions = variances[::-1][:width], directions[:, ::-1][:, :width]
    components = centered @ directions / variances.clip(min=1e-9) ** 0.25
    return (components / np.linalg.norm(components, axis=1, keepdims=True)).astype(np.float32)
