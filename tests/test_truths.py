"""One classifier under every protocol: what a clip leaves in its windows counts only where windows are dealt at random."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from e2llm.emotions import SEED_VII
from e2llm.recordings import clip_emotion
from e2llm.truths import MODELS, SETTINGS, Setting, under_protocols

N_CHANNELS, N_BANDS = 6, 5


def corpus(clip_noise: float, effect: float, subjects: int = 10) -> SimpleNamespace:
    """Band power with a fingerprint for each person's clip and, perhaps, an effect of the label."""
    rng = np.random.default_rng(0)
    rows = [(str(s), (clip - 1) // 20 + 1, clip, w, 4.0 * w, clip_emotion(clip))
            for s in range(1, subjects + 1) for clip in range(1, 81) for w in range(3)]
    index = pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "start_s", "label"])
    labels = np.array([SEED_VII.index(label) for label in index["label"]])
    trial = index.groupby(["subject", "clip"], sort=False).ngroup().to_numpy()
    level = rng.normal(size=(trial.max() + 1, N_CHANNELS * N_BANDS))[trial] * clip_noise
    level += rng.normal(size=(7, N_CHANNELS * N_BANDS))[labels] * effect + 0.3 * rng.normal(size=level.shape)
    power = np.exp(level).reshape(-1, N_CHANNELS, N_BANDS)
    return SimpleNamespace(windows=SimpleNamespace(index=index, power=power), labels=labels, owners=index["subject"].to_numpy(dtype=object),
                           label_set=SEED_VII)


@pytest.fixture(scope="module")
def without_effect() -> pd.DataFrame:
    return under_protocols(corpus(1.0, 0.0)).set_index(["name", "group"])


@pytest.mark.parametrize("model", list(MODELS))
def test_without_an_effect_only_random_windows_rise_above_chance(without_effect, model):
    rows = without_effect.loc[model]
    assert rows.loc["random_windows, calibration", "low"] > 1 / 7 + 0.02
    for setting in SETTINGS[1:]:
        assert rows.loc[setting.name, "score"] < rows.loc["random_windows, calibration", "score"] - 0.02, setting
        assert abs(rows.loc[setting.name, "score"] - 1 / 7) < 0.035, setting


def test_what_leaks_is_marked(without_effect):
    assert set(without_effect["leaky"][without_effect["leaky"]].index.get_level_values("group")) == {"random_windows, calibration"}
    assert all(text.startswith("LEAKY") == leaky for text, leaky in zip(without_effect["statement"], without_effect["leaky"], strict=True))


def test_position_solves_protocols_whose_clips_were_seen_by_others(without_effect):
    rows = without_effect.loc["position in session"]
    assert rows.loc["subjects, population", "score"] == 1.0 and rows.loc["joint, calibration", "score"] < 0.3


def test_a_true_effect_shows_everywhere():
    table = under_protocols(corpus(0.3, 0.6), MODELS, (Setting("clips", "calibration"), Setting("joint", "population"))).set_index(["name", "group"])
    assert (table["score"] > 0.8).all() and len(table) == 2 * len(MODELS)
