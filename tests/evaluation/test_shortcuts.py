"""What can be 'decoded' without any EEG: the known figures of SEED-VII and its twin, and probes that never peek."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from e2llm.data.protocols import Split, official_fold
from e2llm.data.simulation import TwinParams, clip_seconds
from e2llm.data.sources.seed_vii import clip_emotion
from e2llm.data.splits import make_split
from e2llm.evaluation.metrics import Score, balanced_accuracy
from e2llm.evaluation.shortcuts import PROBES, neighbor_worth, probe

NOTHING = np.array([], dtype=int)


def one_row_a_trial() -> pd.DataFrame:
    """20 people, 80 clips in the published order: no signal, no durations."""
    rows = [(str(subject), (clip - 1) // 20 + 1, clip, 0, clip_emotion(clip)) for subject in range(1, 21)
            for clip in range(1, 81)]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "label"])


def twin_index(subjects: int = 20, **params) -> pd.DataFrame:
    """Index that preprocessing would write of a twin, from its durations alone."""
    params = TwinParams(subjects=subjects, **params)
    rows = []
    for subject in range(1, subjects + 1):
        for clip, seconds in enumerate(clip_seconds(params, subject), start=1):
            rows += [(str(subject), (clip - 1) // 20 + 1, clip, window, 4.0 * window, clip_emotion(clip), seconds)
                     for window in range(int(seconds // 4))]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "start_s", "label", "clip_s"])


def held_out(test: np.ndarray) -> Split:
    """Train on everything else."""
    train = np.flatnonzero(~np.asarray(test))
    return Split("own", train, NOTHING, np.flatnonzero(test), train, "population")


def official_folds(index: pd.DataFrame) -> list[Split]:
    fold = official_fold(index["clip"])
    return [held_out(fold == number) for number in range(4)]


def leave_one_subject_out(index: pd.DataFrame) -> list[Split]:
    return [held_out(index["subject"] == subject) for subject in index["subject"].unique()]


def pooled(index: pd.DataFrame, splits: list[Split], name: str) -> tuple[float, Score]:
    """Accuracy and balanced accuracy of one probe over the test parts of all splits."""
    rows = np.concatenate([split.test for split in splits])
    answers = np.concatenate([PROBES[name].answer(index, split) for split in splits])
    truth, labels = index["label"].to_numpy(dtype=str)[rows], sorted(set(index["label"]))
    score = balanced_accuracy(np.searchsorted(labels, truth), np.searchsorted(labels, answers),
                              index["subject"].to_numpy()[rows], len(labels))
    return float((answers == truth).mean()), score


def relabelled(index: pd.DataFrame, seed: int, within: list[str] | None = None) -> pd.DataFrame:
    """Labels without temporal structure: permuted within groups of trials, or drawn anew for every trial."""
    rng = np.random.default_rng(seed)
    if within is None:
        return index.assign(label=rng.choice(sorted(set(index["label"])), len(index)))
    permuted = index.groupby(within)["label"].transform(lambda labels: rng.permutation(labels.to_numpy()))
    return index.assign(label=permuted)


@pytest.fixture(scope="module")
def order() -> pd.DataFrame:
    return one_row_a_trial()


@pytest.fixture(scope="module")
def twin() -> pd.DataFrame:
    return twin_index(6)


@pytest.fixture(params=["joint", "subjects", "clips", "within_subject"])
def split(request, twin) -> Split:
    return make_split(twin, request.param, "population", **({"n_groups": 3} if request.param == "subjects" else {}))


# --- the known figures


def test_nearest_in_time_under_the_official_folds(order):
    """30.0 % accuracy, 28.6 % balanced, whatever happens to ties: no tie is ever right."""
    accuracy, score = pooled(order, official_folds(order), "nearest in time")
    assert accuracy == pytest.approx(0.300, abs=0.001) and score.value == pytest.approx(0.286, abs=0.001)


def test_ties_between_the_clip_before_and_the_clip_after_never_decide():
    """The middle clip of the two inner blocks of a session shares its emotion with neither neighbor three places away.
    """
    for session in range(4):
        for middle in (8, 13):
            clip = session * 20 + middle
            assert clip_emotion(clip) not in (clip_emotion(clip - 3), clip_emotion(clip + 3))


def test_what_neighbors_are_worth(order):
    """Each fold alone; with the next fold set aside for validation the inner folds lose a neighbor."""
    worth = [neighbor_worth(order, split) + 1 / 7 for split in official_folds(order)]
    np.testing.assert_allclose(worth, [4 / 21, 8 / 21, 8 / 21, 4 / 21])
    assert np.mean(worth) == pytest.approx(0.286, abs=0.001)
    aside = [neighbor_worth(order, make_split(order, "clips", fold=fold)) + 1 / 7 for fold in range(4)]
    np.testing.assert_allclose(aside, [4 / 21] * 4)


def test_session_and_position_give_the_label_away_where_clips_are_shared(order):
    accuracy, score = pooled(order, leave_one_subject_out(order), "position in session")
    assert accuracy == score.value == 1.0


def test_priors_of_the_published_order(order):
    """A session shows five emotions equally often, and the answer is the alphabet's first of them: 19.0 % balanced."""
    for name, accuracy, balanced in (("session prior", 0.2, 4 / 21), ("subject identity", 0.15, 1 / 7),
                                     ("majority", 0.15, 1 / 7)):
        for splits in (official_folds(order), leave_one_subject_out(order)):
            found, score = pooled(order, splits, name)
            assert found == pytest.approx(accuracy) and score.value == pytest.approx(balanced)


# --- the twin's switches


def test_durations_give_the_label_away_where_a_clip_has_one_length_for_everybody():
    """Measured over 20 seeds: 94-99 % by seconds, 16-21 % where only windows (two or three a clip) can be counted."""
    for seed in (0, 1, 2):
        index = twin_index(duration_shortcut=True, seed=seed)
        score = pooled(index, leave_one_subject_out(index), "clip duration")[1]
        assert score.value >= 0.6 and score.above_chance
    counted = index.drop(columns=["clip_s", "start_s"])
    assert 0.15 < pooled(counted, leave_one_subject_out(counted), "clip duration")[1].value < 0.25


def test_durations_of_ones_own_say_nothing():
    """Measured over 60 seeds of one 'subjects' split: 14.4 % on average (10-19 %), the interval containing chance in
    52."""
    scores = []
    for seed in range(20):
        index = twin_index(duration_shortcut=False, seed=seed)
        scores.append(pooled(index, [make_split(index, "subjects", "population", n_groups=3)], "clip duration")[1])
    assert np.mean([score.value for score in scores]) == pytest.approx(1 / 7, abs=0.01)
    assert sum(score.contains_chance for score in scores) >= 16 and sum(score.above_chance for score in scores) <= 2


def test_durations_of_ones_own_say_nothing_leaving_one_subject_out():
    """Measured over 40 seeds: 14.0 % on average (10-17 %), the interval containing chance in 33.

    Fewer than 38, for two people alike in length answer for each other, which an interval over people does not know.
    """
    scores = []
    for seed in range(6):
        index = twin_index(duration_shortcut=False, seed=seed)
        scores.append(pooled(index, leave_one_subject_out(index), "clip duration")[1])
    assert np.mean([score.value for score in scores]) == pytest.approx(1 / 7, abs=0.015)
    assert sum(score.contains_chance for score in scores) >= 4


@pytest.mark.parametrize("seed", range(4))
def test_neighbors_are_worth_nothing_without_temporal_structure(order, seed):
    index = relabelled(order, seed)
    assert pooled(index, official_folds(order), "nearest in time")[1].contains_chance


def test_permuted_within_a_session_neighbors_are_worth_the_session_alone(order):
    """Another trial of a session of five emotions, four trials each, is right 3 times in 19, not one in seven."""
    scores = [pooled(relabelled(order, seed, ["subject", "session"]), official_folds(order), "nearest in time")[1]
              for seed in range(10)]
    assert np.mean([score.value for score in scores]) == pytest.approx(3 / 19, abs=0.01)
    assert np.mean([score.value for score in scores]) < 0.286 - 0.1


# --- no probe peeks, every probe answers


@pytest.mark.parametrize("name", PROBES)
def test_no_probe_reads_labels_of_test_or_validation(twin, split, name):
    before = PROBES[name].answer(twin, split)
    rng = np.random.default_rng(0)
    labels = twin["label"].to_numpy(copy=True)
    away = np.setdiff1d(np.arange(len(twin)), split.train)
    labels[away] = rng.permutation(labels[away])
    np.testing.assert_array_equal(PROBES[name].answer(twin.assign(label=labels), split), before)
    labels[away] = "never seen"
    np.testing.assert_array_equal(PROBES[name].answer(twin.assign(label=labels), split), before)


@pytest.mark.parametrize("name", PROBES)
def test_every_test_window_has_a_known_answer_and_a_trial_only_one(twin, split, name):
    answers = PROBES[name].answer(twin, split)
    assert answers.shape == (len(split.test),) and answers.dtype.kind == "U"
    assert set(answers) <= set(twin["label"].iloc[split.train])
    trials = twin.iloc[split.test].assign(answer=answers).groupby(["subject", "clip"])["answer"]
    assert (trials.nunique() == 1).all()


@pytest.mark.parametrize("name", PROBES)
def test_the_order_of_rows_does_not_matter(twin, split, name):
    shuffle = np.random.default_rng(0).permutation(len(twin))
    place = np.argsort(shuffle)
    moved = replace(split, **{part: place[getattr(split, part)] for part in ("train", "val", "test", "fit")})
    moved = replace(moved, train=np.sort(moved.train))
    shuffled = twin.iloc[shuffle].set_index(np.arange(len(twin)) + 7)
    np.testing.assert_array_equal(PROBES[name].answer(shuffled, moved), PROBES[name].answer(twin, split))


def test_dealt_at_random_a_window_finds_its_own_clip(twin):
    """The cautionary tale needs no EEG at all."""
    split = make_split(twin, "random_windows", "transductive", accept_leaks=True)
    trial = twin["subject"] + "/" + twin["clip"].astype(str)
    both = trial.iloc[split.test].isin(set(trial.iloc[split.train])).to_numpy()
    right = PROBES["nearest in time"].answer(twin, split) == twin["label"].iloc[split.test]
    assert both.mean() > 0.6 and right[both].all() and right[~both].mean() < 0.5


# --- other sources


@pytest.fixture
def conditions() -> pd.DataFrame:
    """Five people, one recording a condition, rest first and longer, as a labelled folder numbers its files."""
    rows = [(f"p{subject}", 1, 2 * subject + place + 1, window, 4.0 * window, label, 4.0 * n)
            for subject in range(5) for place, (label, n) in enumerate((("rest", 5), ("task", 3)))
            for window in range(n)]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "start_s", "label", "clip_s"])


def test_two_conditions_are_told_apart_by_length_and_by_order(conditions):
    table = probe(conditions, make_split(conditions, "subjects", "population")).set_index("name")
    assert (table.loc[["clip duration", "position in session", "nearest in time"], "score"] == 1.0).all()
    assert (table.loc[["session prior", "subject identity", "majority"], "score"] == 0.5).all()
    assert (table["chance"] == 0.5).all()
    assert table.loc["majority", "accuracy"] == 5 / 8  # most windows, not most trials


@pytest.mark.parametrize("columns", [[], ["clip_s"], ["clip_s", "start_s"], ["session"],
                                     ["clip_s", "start_s", "session", "window"]])
def test_an_index_that_lacks_columns_is_answered_all_the_same(conditions, columns):
    table = probe(conditions.drop(columns=columns), make_split(conditions, "subjects", "population"))
    assert len(table) == len(PROBES) and table.set_index("name").loc["clip duration", "score"] == 1.0


def test_sessions_that_nobody_trained_on(conditions):
    """One session a recording: nothing to be near to, so the most frequent label answers."""
    alone = conditions.assign(session=conditions["clip"])
    split = held_out(alone["subject"] == "p4")
    table = probe(alone, split).set_index("name")
    assert (table.drop("clip duration")["score"] == 0.5).all()
    mixed = held_out(alone["label"] == "task")
    assert set(PROBES["nearest in time"].answer(alone, mixed)) == {"rest"}


# --- the table


def test_the_table_says_what_each_probe_does_and_is_the_same_twice(twin, split):
    table = probe(twin, split, seed=3)
    pd.testing.assert_frame_equal(table, probe(twin, split, seed=3))
    assert table["name"].tolist() == list(PROBES) and table["what"].is_unique
    assert all(what.count(". ") == 0 and what.endswith(".") and "\n" not in what for what in table["what"])
    assert set(table) == {"name", "score", "low", "high", "chance", "n", "accuracy", "what"}
    assert (table["n"] == len(split.test)).all() and table["chance"].eq(1 / 7).all()
    assert table["accuracy"].between(0, 1).all()
    assert neighbor_worth(twin, split) == pytest.approx(table.set_index("name").loc["nearest in time", "score"] - 1
                                                         / 7)
