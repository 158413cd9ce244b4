"""One classifier under every protocol: what a clip leaves in its windows counts only where windows are dealt at random."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from e2llm.baselines import SVM, Recipe
from e2llm.emotions import SEED_VII
from e2llm.recordings import clip_emotion
from e2llm.truths import MODELS, PUBLISHED, SETTINGS, Setting, session_clock
from e2llm.truths import under_protocols as in_parallel

N_CHANNELS, N_BANDS = 6, 5
SVM_NAME = Recipe(SVM, "z-score").name
under_protocols = partial(in_parallel, n_jobs=1)  # starting processes takes longer than this little work


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


def drifting(slope: float, subjects: int = 6) -> SimpleNamespace:
    """No emotion; in every session every level rises or falls by its own slope, ``slope`` standard deviations over the session."""
    made = corpus(0.3, 0.0, subjects)
    rng = np.random.default_rng(3)
    index = made.windows.index
    recording = index.groupby(["subject", "session"]).ngroup().to_numpy()
    slopes = rng.normal(size=(recording.max() + 1, N_CHANNELS, N_BANDS)) * slope
    time = ((index["clip"] - 1) % 20 / 20).to_numpy()
    made.windows.power = made.windows.power * np.exp(slopes[recording] * time[:, None, None])
    return made


def test_the_clock_finds_a_planted_drift_and_nothing_without_one():
    found, nothing = session_clock(drifting(2.0)), session_clock(drifting(0.0))
    assert found.value > 0.8 and found.above_chance
    assert abs(nothing.value) < 0.1 and nothing.low < 0.0


def test_a_session_of_two_clips_has_no_clock():
    made = corpus(0.3, 0.0, 3)
    made.windows.index = made.windows.index.assign(clip=1 + made.windows.index["clip"] % 2)
    with pytest.raises(ValueError, match="A session has 2 clips"):
        session_clock(made)


def test_drift_lifts_a_model_without_emotion_where_neighbours_train():
    """Copying the neighbour's label is worth something in the published order; a model needs the drift to find the neighbour."""
    settings = [Setting("within_subject", "session"), Setting("joint", "calibration")]
    tables = {slope: under_protocols(drifting(slope, 10), {"SVM": MODELS[SVM_NAME]}, settings).set_index("group")["score"] for slope in (6.0, 0.0)}
    assert tables[6.0]["within_subject, session"] > tables[0.0]["within_subject, session"] + 0.02


def test_published_figures_stand_only_beside_protocols_that_can_be_run():
    for name in PUBLISHED["group"]:
        Setting(*name.split(", ")).splits(drifting(0.0).windows.index)
    assert not PUBLISHED["published %"].isin([61.73, 61.05]).any()


def test_the_number_of_processes_changes_nothing():
    made, settings = corpus(0.5, 0.2, 5), (Setting("clips", "session"), Setting("joint", "population"))
    steps = []
    pd.testing.assert_frame_equal(in_parallel(made, MODELS, settings, tell=steps.append, n_jobs=2), under_protocols(made, MODELS, settings))
    assert steps == [1, 2]
