"""The models of a finished run as functions of signals, so that every one of them can be put under every control."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from .assessment import closed_set, prediction_items, tier_1_row
from .baselines import EEGNET, LOGISTIC, PROBE, SVM, Recipe, distinct, fit_baseline
from .calibration import ALIGNMENTS
from .controls import Answerer, Role, battery
from .encoder import EmotionEncoder
from .evaluate import Listener, with_mean_token, with_random_projector, without_eeg
from .runs import Run
from .stages import Corpus, frozen_encoder, load_encoder, load_tokens, open_instructed


@torch.no_grad()
def _encode(model: EmotionEncoder, corpus: Corpus, signals: np.ndarray, whose: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Summary tokens of signals, shape (n, 16, summary tokens, width)."""
    device = next(model.parameters()).device
    parts = [model.encoder(corpus.equalise(signals[i : i + batch], whose[i : i + batch]).to(device)) for i in range(0, len(signals), batch)]
    return torch.cat(parts).cpu()


def stage_1_head(model: EmotionEncoder, corpus: Corpus) -> Answerer:
    """The encoder's own classifier."""

    @torch.no_grad()
    def answer(signals: np.ndarray, whose: np.ndarray) -> np.ndarray:
        return model.classifier(model.pooled(_encode(model, corpus, signals, whose))).argmax(dim=1).numpy()

    return answer


def language_model(listener: Listener, model: EmotionEncoder, corpus: Corpus, seed: int) -> Answerer:
    """The language model's most probable label, without a thought."""
    items, test = prediction_items(corpus, corpus.split.test, seed), corpus.split.test

    def answer(signals: np.ndarray, whose: np.ndarray) -> np.ndarray:
        tokens = _encode(model, corpus, signals, whose).flatten(2).numpy()
        heard = Listener(listener.model, listener.processor, tokens, {int(row): i for i, row in enumerate(test)})
        return closed_set(heard, items).argmax(axis=1)

    return answer


RECIPES = (*(Recipe(model, alignment) for model in (LOGISTIC, SVM) for alignment in ALIGNMENTS), Recipe(PROBE), Recipe(EEGNET, "z-score"))


def baselines(run: Run, corpus: Corpus, recipes: Sequence[Recipe] = RECIPES, tell: Callable[..., None] | None = None) -> pd.DataFrame:
    """Baselines under the split of a run, each with its alignment; rows of the tier-1 table.

    Parameters
    ----------
    run, corpus : Run, Corpus
        Of a run whose stage 1 is finished: the probed encoder is the one it started from.
    recipes : sequence of Recipe
        Which; all alignments of the classic ones, and EEGNet z-scored, by default.
    tell : callable, optional
        ``tell(step)`` after each.
    """
    rows, encoder = [], frozen_encoder(run, corpus)
    for step, recipe in enumerate(distinct(recipes, corpus.split), 1):
        answers = fit_baseline(recipe, corpus, corpus.split, encoder).rows(corpus.split.test)
        rows.append(tier_1_row(corpus, recipe.name, answers, Role.BASELINE))
        if tell is not None:
            tell(step)
    return pd.DataFrame(rows)


def control_battery(run: Run, corpus: Corpus, seed: int = 0) -> pd.DataFrame:
    """Linear baseline, stage-1 head and language model of a finished run under every control; see :func:`e2llm.controls.battery`."""
    model, (language, processor) = load_encoder(run, corpus), open_instructed(run)
    listener = Listener(language, processor, *load_tokens(run))
    test, items = corpus.split.test, prediction_items(corpus, corpus.split.test, seed)
    within = {"no EEG": closed_set(listener, without_eeg(items)),
              "mean token": closed_set(with_mean_token(listener, corpus.split.train.tolist()), items),
              "random projector": closed_set(with_random_projector(listener, seed), items)}
    recipe = Recipe(LOGISTIC, "z-score")
    models = {recipe.name: fit_baseline(recipe, corpus, corpus.split), "stage-1 head": stage_1_head(model, corpus),
              "LLM": language_model(listener, model, corpus, seed)}
    more = {"LLM": {name: scores.argmax(axis=1) for name, scores in within.items()}}
    return battery(models, np.array(corpus.windows.data[test]), corpus.labels[test], corpus.owners[test],
                   corpus.windows.index["clip"].to_numpy()[test], len(corpus.label_set), more, seed, whose=corpus.whose[test])
