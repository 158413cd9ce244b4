"""One classifier under every protocol: what a clip leaves in its windows counts only where windows are dealt at random.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from e2llm.core.labels import SEED_VII
from e2llm.data.sources.seed_vii import clip_emotion
from e2llm.evaluation.baselines import LOGISTIC, SVM, Recipe
from e2llm.evaluation.protocols_compared import (
    MODELS,
    PUBLISHED,
    SETTINGS,
    BaselineClassifier,
    Setting,
    reached,
    session_clock,
)
from e2llm.evaluation.protocols_compared import under_protocols as in_parallel

N_CHANNELS, N_BANDS = 6, 5
SVM_NAME = Recipe(SVM, "z-score").name
under_protocols = partial(in_parallel, n_jobs=1)  # starting processes takes longer than this little work


def corpus(clip_noise: float, effect: float, subjects: int = 10, windows: int = 3) -> SimpleNamespace:
    """Band power with a fingerprint for each person's clip and, perhaps, an effect of the label."""
    rng = np.random.default_rng(0)
    rows = [(str(s), (clip - 1) // 20 + 1, clip, w, 4.0 * w, clip_emotion(clip))
            for s in range(1, subjects + 1) for clip in range(1, 81) for w in range(windows)]
    index = pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "start_s", "label"])
    labels = np.array([SEED_VII.index(label) for label in index["label"]])
    trial = index.groupby(["subject", "clip"], sort=False).ngroup().to_numpy()
    level = rng.normal(size=(trial.max() + 1, N_CHANNELS * N_BANDS))[trial] * clip_noise
    level += rng.normal(size=(7, N_CHANNELS * N_BANDS))[labels] * effect + 0.3 * rng.normal(size=level.shape)
    power = np.exp(level).reshape(-1, N_CHANNELS, N_BANDS)
    return SimpleNamespace(windows=SimpleNamespace(index=index, power=power, window_s=4.0), labels=labels,
                           subjects=index["subject"].to_numpy(dtype=object),
                           label_set=SEED_VII)


@pytest.fixture(scope="module")
def without_effect() -> pd.DataFrame:
    return under_protocols(corpus(1.0, 0.0, windows=2)).set_index(["name", "group"])


@pytest.mark.parametrize("model", list(MODELS))
def test_without_an_effect_only_random_windows_rise_above_chance(without_effect, model):
    rows = without_effect.loc[model]
    assert rows.loc["random_windows, calibration", "low"] > 1 / 7 + 0.02
    for setting in SETTINGS[1:]:
        assert rows.loc[setting.name, "score"] < rows.loc["random_windows, calibration", "score"] - 0.02, setting
        assert abs(rows.loc[setting.name, "score"] - 1 / 7) < 0.035, setting


def test_what_leaks_is_marked(without_effect):
    leaky = without_effect["leaky"]
    assert set(leaky[leaky].index.get_level_values("group")) == {"random_windows, calibration"}
    assert all(text.startswith("LEAKY") == leaky for text, leaky in zip(without_effect["statement"],
                                                                        without_effect["leaky"], strict=True))


def test_position_solves_protocols_whose_clips_were_seen_by_others(without_effect):
    rows = without_effect.loc["position in session"]
    assert rows.loc["subjects, population", "score"] == 1.0 and rows.loc["joint, calibration", "score"] < 0.3


def test_a_true_effect_shows_everywhere():
    table = under_protocols(corpus(0.3, 0.6), MODELS,
                            (Setting("clips", "calibration"), Setting("joint", "population"))).set_index(["name",
                                                                                                          "group"])
    assert (table["score"] > 0.8).all() and len(table) == 2 * len(MODELS)


def drifting(slope: float, subjects: int = 6) -> SimpleNamespace:
    """No emotion; in every session every level rises or falls by its own slope, ``slope`` standard deviations over the
    session."""
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


def test_drift_lifts_a_model_without_emotion_where_neighbors_train():
    """Copying the neighbor's label is worth something in the published order; a model needs the drift to find the
    neighbor."""
    settings = [Setting("within_subject", "session"), Setting("joint", "calibration")]
    tables = {slope: under_protocols(drifting(slope, 10), {"SVM": MODELS[SVM_NAME]},
                                     settings).set_index("group")["score"] for slope in (6.0, 0.0)}
    assert tables[6.0]["within_subject, session"] > tables[0.0]["within_subject, session"] + 0.02


def test_published_figures_stand_only_beside_protocols_that_can_be_run():
    for name in PUBLISHED["group"]:
        Setting(*name.split(", ")).splits(drifting(0.0).windows.index)
    assert not PUBLISHED["published %"].isin([61.73, 61.05]).any()


def test_the_number_of_processes_changes_nothing():
    made, settings = corpus(0.5, 0.2, 5), (Setting("clips", "session"), Setting("joint", "population"))
    steps = []
    pd.testing.assert_frame_equal(in_parallel(made, MODELS, settings, on_step=steps.append, n_jobs=2),
                                  under_protocols(made, MODELS, settings))
    assert steps == [1, 2]


def three_clips_a_label() -> SimpleNamespace:
    """Nine labels as in FACED: three clips each, four of neutral; six people."""
    made, label = corpus(0.3, 0.6, 6), [f"l{i}" for i in range(8) for _ in range(3)] + ["neutral"] * 4
    index = made.windows.index
    kept = (index["clip"] <= len(label)).to_numpy()
    index = index[kept].reset_index(drop=True)
    made.windows.index = index.assign(session=1, label=[label[clip - 1] for clip in index["clip"]])
    return made


@pytest.mark.parametrize(("protocol", "folds"), [("clips", 3), ("within_subject", 18)])
def test_three_clips_a_label_are_three_folds_none_of_them_twice(protocol, folds):
    index = three_clips_a_label().windows.index
    splits = Setting(protocol, "calibration").splits(index)
    assert len(splits) == folds
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(index)))


@pytest.mark.parametrize("setting", [*SETTINGS, Setting("subjects", "population", 0),
                                     Setting("joint", "population", 0)])
def test_every_person_is_tested_and_no_window_twice(setting):
    index = corpus(0.3, 0.0, 6).windows.index
    tested = np.concatenate([split.test for split in setting.splits(index)])
    assert len(set(tested)) == len(tested) and index["subject"].iloc[tested].nunique() == 6


def test_baselines_that_are_one_under_population_levels_have_one_row():
    classifiers = {"plain": BaselineClassifier(Recipe(LOGISTIC)),
                   "z-scored": BaselineClassifier(Recipe(LOGISTIC, "z-score"))}
    settings = (Setting("joint", "population"), Setting("joint", "calibration"))
    table = under_protocols(corpus(0.3, 0.2, 6), classifiers, settings)
    assert table[["group", "name"]].to_numpy().tolist() == [
        ["joint, population", "plain"], ["joint, calibration", "plain"], ["joint, calibration", "z-scored"]]


def test_where_the_order_of_clips_gives_labels_away_every_model_is_warned_of(without_effect):
    found = reached(without_effect.reset_index())
    for setting in SETTINGS:
        named = {finding.reason.split("'")[1] for finding in found[setting.name]}
        assert named == set(MODELS), setting  # no effect: whatever a model scores, a table scores without EEG
    assert "'position in session' 100.0" in found["subjects, population"][0].reason
    honest = under_protocols(corpus(0.3, 0.6, 6), settings=(Setting("joint", "calibration"),))
    assert reached(honest) == {"joint, calibration": []}
