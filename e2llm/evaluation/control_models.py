"""Models put under the control battery: the stage-1 head and the language model as functions of signals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ..data.dataset import Corpus
from ..models.inference import InferenceEngine, closed_set
from ..tasks.items import prediction_items
from ..training.losses import EmotionEncoder
from .baselines import LOGISTIC, Recipe, fit_baseline
from .controls import Answerer, EEGInput, battery, with_mean_token, with_random_projector, without_eeg


class Encoded:
    """Summary tokens of signals; asked twice in a row for the same array, it encodes once.

    Parameters
    ----------
    model : EmotionEncoder
        After stage 1.
    corpus : Corpus
        Equalizes the signals.
    """

    def __init__(self, model: EmotionEncoder, corpus: Corpus) -> None:
        self.model, self.corpus = model, corpus
        self._last: tuple[np.ndarray, torch.Tensor] | None = None

    @torch.no_grad()
    def __call__(self, signals: np.ndarray, norm_groups: np.ndarray, batch: int = 16) -> torch.Tensor:
        """Tokens, shape (n, n_times, S, width), on the CPU; as :class:`e2llm.evaluation.baselines.Fitted` is asked."""
        if self._last is None or self._last[0] is not signals:
            device = next(self.model.parameters()).device
            parts = [self.model.encoder(self.corpus.equalize(signals[i : i + batch],
                                                             norm_groups[i : i + batch]).to(device)).cpu()
                     for i in range(0, len(signals), batch)]
            self._last = signals, torch.cat(parts)
        return self._last[1]


def stage_1_head(encoded: Encoded) -> Answerer:
    """The encoder's own classifier.

    Parameters
    ----------
    encoded : Encoded
        Tokens of the encoder after stage 1.
    """
    model = encoded.model

    @torch.no_grad()
    def answer(signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        tokens = encoded(signals, norm_groups).to(model.classifier.weight.device)
        return model.classifier(model.pooled(tokens)).argmax(dim=1).cpu().numpy()

    return answer


def language_model(engine: InferenceEngine, encoded: Encoded, corpus: Corpus, seed: int) -> Answerer:
    """The language model's most probable label, without a thought.

    Parameters
    ----------
    engine : InferenceEngine
        The language model.
    encoded : Encoded
        Tokens of the encoder that its projector knows.
    corpus : Corpus
        Its test windows are asked about.
    seed : int
        Of the questions' wordings.
    """
    items, test = prediction_items(corpus, corpus.split.test, seed), corpus.split.test

    def answer(signals: np.ndarray, norm_groups: np.ndarray) -> np.ndarray:
        tokens = encoded(signals, norm_groups).flatten(2).numpy()
        asked = InferenceEngine(engine.model, engine.processor, tokens, {int(row): i for i, row in enumerate(test)})
        return closed_set(asked, items).argmax(axis=1)

    return answer


def control_battery(corpus: Corpus, engine: InferenceEngine, model: EmotionEncoder, seed: int = 0) -> pd.DataFrame:
    """Linear baseline, stage-1 head and language model under every control.

    See :func:`e2llm.evaluation.controls.battery`.

    Parameters
    ----------
    corpus : Corpus
        Its test windows are answered.
    engine : InferenceEngine
        The language model with its features.
    model : EmotionEncoder
        The encoder after stage 1.
    seed : int
        Of questions, controls and intervals.
    """
    test, items = corpus.split.test, prediction_items(corpus, corpus.split.test, seed)
    within = {EEGInput.NONE: closed_set(engine, without_eeg(items)),
              "mean token": closed_set(with_mean_token(engine, corpus.split.train.tolist()), items),
              "random projector": closed_set(with_random_projector(engine, seed), items)}
    recipe, encoded = Recipe(LOGISTIC, "z-score"), Encoded(model, corpus)
    models = {recipe.name: fit_baseline(recipe, corpus, corpus.split), "stage-1 head": stage_1_head(encoded),
              "LLM": language_model(engine, encoded, corpus, seed)}
    more = {"LLM": {name: scores.argmax(axis=1) for name, scores in within.items()}}
    return battery(models, np.array(corpus.windows.data[test]), corpus.labels[test], corpus.subjects[test],
                   corpus.windows.index["clip"].to_numpy()[test], len(corpus.label_set), more, seed,
                   norm_groups=corpus.norm_groups[test])
