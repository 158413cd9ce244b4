"""Tokens in half the room: the stages after the encoder work with them, and find nearly the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
from micro import CLIPS, FIT, LANGUAGE_MODEL, linked

from e2llm.app import stages
from e2llm.evaluation.controls import with_mean_token
from e2llm.models.inference import InferenceEngine, label_similarity, score_options
from e2llm.tasks.items import prediction_items
from e2llm.training.losses import HeadParams
from e2llm.training.trainer import FitParams


def test_a_run_with_tokens_in_float16_answers_as_one_with_float32(micro_run, tmp_path):
    plain, half = linked(micro_run, tmp_path, "plain"), linked(micro_run, tmp_path, "half")
    corpus = stages.open_dataset(half, CLIPS)
    stages.train_encoder(half, corpus, CLIPS, "tiny1", {}, "", FitParams(4, 8, 4e-3), HeadParams(), 0,
                         token_dtype="float16")
    (one, position), (two, other) = (stages.load_tokens(run) for run in (plain, half))
    assert one.dtype == np.float32 and two.dtype == np.float16 and position == other
    size = [(run.path / "encoder" / "tokens.npy").stat().st_size for run in (plain, half)]
    assert size[1] < 0.51 * size[0]
    np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-3)
    predicted = [np.load(run.path / "encoder" / "predicted_evidence.npy") for run in (plain, half)]
    assert 0 < np.abs(predicted[0] - predicted[1]).max() < 0.1, "of standard deviations"
    asked = corpus.split.test[:6].tolist()
    items = prediction_items(corpus, np.array(asked), 0)
    model = stages.open_aligned(plain)
    answers = []
    for tokens in (one, two):
        engine = InferenceEngine(*model, tokens, position)
        mean = with_mean_token(engine, asked)
        near = label_similarity(engine, {"happy": asked[:3], "sad": asked[3:5]})
        answers.append([*score_options(engine, items), *score_options(mean, items), near])
    for first, second in zip(*answers, strict=True):
        np.testing.assert_allclose(first, second, atol=0.01)
    corpus = stages.open_dataset(half)
    stages.make_language_model(half, corpus, "scratch", "float32", LANGUAGE_MODEL, 40, 1, FIT)
    history = pd.read_csv(stages.align(half, corpus, 1, 2, 8, 1.0, FIT).path / "history.csv")
    assert np.isfinite(history["loss"]).all()
