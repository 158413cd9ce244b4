"""No protocol leaks, the official folds are those of the dataset, and a planted leak is refused with its reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from e2llm.data.audit import LeakError, audit
from e2llm.data.protocols import NORMALIZATIONS, PROTOCOLS, Split, clip_fold, n_folds, official_fold
from e2llm.data.sources.seed_vii import clip_emotion
from e2llm.data.splits import make_split

PARTS = ("train", "val", "test")


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    """20 people, 80 clips, two windows each, in the order of a real index."""
    rows = [(str(subject), (clip - 1) // 20 + 1, clip, window, clip_emotion(clip))
            for subject in range(1, 21) for clip in range(1, 81) for window in range(2)]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "label"])


@pytest.fixture
def split(index) -> Split:
    return make_split(index, "joint")


def sides(index: pd.DataFrame, split: Split, column: str) -> dict[str, set]:
    return {part: set(index[column].iloc[getattr(split, part)]) for part in PARTS}


def overlaps(sets: dict[str, set]) -> bool:
    return bool(sets["train"] & sets["test"] or sets["train"] & sets["val"] or sets["val"] & sets["test"])


def rows_of(index: pd.DataFrame, **values) -> np.ndarray:
    chosen = np.ones(len(index), dtype=bool)
    for column, value in values.items():
        chosen &= (index[column] == value).to_numpy()
    return np.flatnonzero(chosen)


# --- protocols


@pytest.mark.parametrize("fold", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("protocol", "normalization", "subject_disjoint", "clip_disjoint"), [
    ("joint", "calibration", True, True), ("joint", "population", True, True), ("clips", "calibration", False, True),
    ("clips", "session", False, True), ("joint", "session", True, True),
    ("subjects", "population", True, False), ("subjects", "transductive", True, False),
])
def test_protocols_are_as_disjoint_as_they_say(index, protocol, normalization, subject_disjoint, clip_disjoint, fold):
    if fold == n_folds(index, protocol):
        with pytest.raises(ValueError, match=r"has the folds 0 to 3 on these recordings, no fold 4"):
            make_split(index, protocol, normalization, fold=fold)
        return
    split = make_split(index, protocol, normalization, fold=fold)
    rows = np.concatenate([split.train, split.val, split.test])
    assert len(set(rows)) == len(rows) and min(map(len, (split.train, split.val, split.test))) > 0
    assert overlaps(sides(index, split, "subject")) == (not subject_disjoint)
    assert overlaps(sides(index, split, "clip")) == (not clip_disjoint)
    trials = index.assign(trial=index["subject"] + "/" + index["clip"].astype(str))
    assert not overlaps(sides(trials, split, "trial"))
    assert all(len(labels) == 7 for labels in sides(index, split, "label").values())
    np.testing.assert_array_equal(split.used, np.sort(rows))
    if normalization in ("calibration", "session"):
        assert not set(trials["trial"].iloc[split.fit]) & set(trials["trial"].iloc[np.append(split.val, split.test)])
        assert set(index["subject"].iloc[split.fit]) == set(index["subject"])
    if normalization == "population":
        np.testing.assert_array_equal(split.fit, split.train)
    assert split.transductive == (normalization == "transductive")
    assert (len(split.fit) == len(index)) == split.transductive


@pytest.mark.parametrize(("protocol", "n_groups"), [("joint", 3), ("subjects", 5), ("clips", 4)])
def test_every_person_and_clip_is_tested_once(index, protocol, n_groups):
    normalization = "population" if protocol == "subjects" else "calibration"
    tests = [make_split(index, protocol, normalization, fold=fold).test for fold in range(n_groups)]
    tested = np.concatenate(tests)
    assert len(set(tested)) == len(tested)
    if protocol != "joint":  # which tests each group on one fold of the clips only
        assert len(tested) == len(index)
    assert set(index["subject"].iloc[tested]) == set(index["subject"])


def test_no_subject_of_joint_meets_a_clip_that_others_are_tested_on(index):
    """Neither training nor calibration sees a test clip, whoever watched it."""
    split = make_split(index, "joint", fold=2)
    unseen = set(index["clip"].iloc[split.test])
    assert not unseen & set(index["clip"].iloc[split.train]) and not unseen & set(index["clip"].iloc[split.fit])


def test_official_folds():
    """Three clips an emotion and two of neutral in each of four folds, five clips of every session."""
    clips = np.arange(1, 81)
    fold = official_fold(clips)
    assert fold[:20].tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5 and (fold.reshape(4, 20) == fold[:20]).all()
    for number in range(4):
        labels = [clip_emotion(clip) for clip in clips[fold == number]]
        assert len(labels) == 20
        assert {label: labels.count(label) for label in set(labels)} == {
            "happy": 3, "surprise": 3, "neutral": 2, "disgust": 3, "fear": 3, "sad": 3, "anger": 3}


def test_subjects_are_grouped_by_number_not_by_spelling(index):
    split = make_split(index, "subjects", "population", fold=0)
    assert sides(index, split, "subject")["test"] == {"1", "6", "11", "16"}
    assert sides(index, split, "subject")["val"] == {"2", "7", "12", "17"}


def test_parts_by_window(index, split):
    part = split.part_of(len(index))
    assert all((part[getattr(split, name)] == name).all() for name in PARTS)
    assert (part == "").sum() == len(index) - len(split.used)


def test_the_order_of_rows_does_not_matter(index):
    order = np.random.default_rng(0).permutation(len(index))
    shuffled = index.iloc[order].reset_index(drop=True)
    for protocol, normalization in (("joint", "calibration"), ("subjects", "population"), ("clips", "calibration")):
        one, two = make_split(index, protocol, normalization), make_split(shuffled, protocol, normalization)
        for part in (*PARTS, "fit"):
            assert set(order[getattr(two, part)]) == set(getattr(one, part))


def test_the_twin_splits_by_every_protocol(windows):
    """Three people are enough for all of them."""
    for protocol, normalization in (("joint", "calibration"), ("subjects", "population"), ("clips", "calibration")):
        options = {"n_groups": 3} if protocol == "subjects" else {}
        split = make_split(windows.index, protocol, normalization, **options)
        assert len(set(windows.index["label"].iloc[split.test])) == 7


# --- what cannot be split


def test_unknown_names(index):
    with pytest.raises(ValueError, match=r"Unknown protocol 'random' \(known: joint, subjects, clips, "
                                         r".*random_windows\)"):
        make_split(index, "random")
    with pytest.raises(ValueError, match=r"Unknown normalization 'zscore' \(known: calibration, session, population, "
                                         r"transductive\)"):
        make_split(index, "joint", "zscore")
    assert len(PROTOCOLS) == 7 and len(NORMALIZATIONS) == 4


def test_held_out_subjects_have_nothing_to_calibrate_on(index):
    with pytest.raises(ValueError, match="no clips to calibrate on: choose normalization 'population', or "
                                         "'transductive'"):
        make_split(index, "subjects", "calibration")


@pytest.mark.parametrize(("protocol", "n_groups"), [("joint", 2), ("subjects", 21), ("subjects", 1)])
def test_too_few_subjects_or_groups(index, protocol, n_groups):
    with pytest.raises(ValueError, match=rf"20 subjects cannot make {n_groups} groups .*: n_groups = 3 or 20 would do"):
        make_split(index, protocol, "population", n_groups=n_groups)


@pytest.mark.parametrize("people", [1, 2])
def test_one_person_or_two_are_told_which_protocol_takes_them(index, people):
    few = index[index["subject"].isin(["1", "2"][:people])].reset_index(drop=True)
    for protocol in ("joint", "subjects"):
        with pytest.raises(ValueError, match=f"^{people} subjects? cannot make . groups .*: take the protocol "
                                             r"within_subject or clips\.$"):
            make_split(few, protocol, "population")
    assert len(make_split(few, "within_subject").test) and len(make_split(few, "clips").test)


def test_a_refused_fold_names_the_numbers_of_groups_that_would_do(index):
    with pytest.raises(ValueError, match=r"no fold 6: choose .* This fold would do with n_groups = 7 or 8 or 9\.$"):
        make_split(index, "subjects", "population", fold=6, n_groups=5)
    assert len(make_split(index, "subjects", "population", fold=6, n_groups=7).test)
    sick = index[index["subject"].astype(int) <= 6].reset_index(drop=True)
    sick["label"] = np.where(sick["subject"].isin(["1", "4"]), "ill", np.where(sick["clip"] % 2, "well", "ill"))
    with pytest.raises(LeakError, match=r"labels \['well'\] stand on only one side of train and test.* This fold "
                                        r"would do with n_groups = 4 or 5\.$"):
        make_split(sick, "subjects", "population", n_groups=3)
    for n_groups in (4, 5):
        assert len(make_split(sick, "subjects", "population", n_groups=n_groups).test)
    with pytest.raises(LeakError, match=r"(?<!would do)$"):
        make_split(sick.assign(label="ill"), "random_windows", "population")


@pytest.mark.parametrize(("window_s", "share"), [(1.0, False), (4.0, True)])
def test_windows_overlap_by_their_own_length(index, window_s, share):
    timed = index.assign(start_s=index["window"] * 2.0)
    with pytest.raises(LeakError) as refused:
        make_split(timed, "random_windows", "population", window_s=window_s)
    assert ("share samples" in str(refused.value)) == share


@pytest.mark.parametrize(("people", "fold", "named"), [(25, 19, "20"), (4, 3, "4"), (25, 20, None)])
def test_numbers_of_groups_are_tried_up_to_the_people_and_twenty(people, fold, named):
    index = pd.DataFrame([(str(who), 1, clip, "ab"[clip % 2]) for who in range(people) for clip in range(6)],
                         columns=["subject", "session", "clip", "label"])
    with pytest.raises(ValueError, match=rf"no fold {fold}: choose one of them\.( This fold would do with "
                                         rf"n_groups = {named}\.)?$") as refused:
        make_split(index, "subjects", "population", fold=fold, n_groups=3)
    assert ("would do" in str(refused.value)) == (named is not None)


@pytest.mark.parametrize("name", ["fold", "n_groups"])
@pytest.mark.parametrize("value", [10**6 + 1, -(10**6) - 1, 1.0])
def test_numbers_that_no_split_can_have_are_refused_by_their_bounds(index, name, value):
    with pytest.raises(ValueError, match=rf"^{name} = .*a whole number from -1e\+06 to 1e\+06\.$"):
        make_split(index, "subjects", "population", **{name: value})


def test_people_without_clips_to_calibrate_on_are_named_by_their_numbers_five_at_most(index):
    with pytest.raises(ValueError, match=r"leaves subjects \['1', '2', '6', '7', '11'\] no clips to calibrate on"):
        make_split(index, "subjects", "calibration")


@pytest.mark.parametrize(("broken", "message"), [
    (lambda index: index.drop(columns="clip"), r"no column 'clip' \(it has subject, session, window, label\): add it"),
    (lambda index: index.assign(subject=1), "'subject' of the index of windows has 1, which is not text: correct it"),
    (lambda index: index.assign(label=np.nan), "'label' of the index of windows has nan, which is not text"),
    (lambda index: index.assign(clip=index["clip"] / 2), "'clip' of the index of windows has 0.5, which is not a"),
    (lambda index: index[:0], "has no rows")])
def test_an_index_that_cannot_be_split_is_refused_by_its_column(index, broken, message):
    with pytest.raises(ValueError, match=message):
        make_split(broken(index), "clips")


def test_windows_last_four_seconds_if_nothing_else_is_said(index):
    for step, refused in ((3.9, True), (4.0, False)):
        timed = index.assign(start_s=index["window"] * step)
        if refused:
            with pytest.raises(LeakError, match="share samples"):
                make_split(timed, "random_windows", "population", accept_leaks=True)
        else:
            assert len(make_split(timed, "random_windows", "population", accept_leaks=True).test)


# --- exactly which rows


def assert_rows(split: Split, **wanted: np.ndarray) -> None:
    for part, mask in wanted.items():
        np.testing.assert_array_equal(getattr(split, part), np.flatnonzero(mask), err_msg=part)


@pytest.mark.parametrize("fold", [0, 3, 7, 11])
@pytest.mark.parametrize("people", [6, 20])
def test_joint_holds_out_every_third_person_and_one_official_fold(index, people, fold):
    """Of the people between test and training a third validates, one at least; the others train."""
    names = [str(number) for number in range(1, people + 1)]
    few = index[index["subject"].isin(names)].reset_index(drop=True)
    who, clip = few["subject"], official_fold(few["clip"])
    tested, next_group = names[fold % 3 :: 3], names[(fold + 1) % 3 :: 3]
    validating = next_group[: 2 if people == 20 else 1]
    kept = ~np.isin(clip, [fold % 4, (fold + 1) % 4])
    assert_rows(make_split(few, "joint", fold=fold), test=who.isin(tested) & (clip == fold % 4),
                val=who.isin(validating) & (clip == (fold + 1) % 4), fit=kept,
                train=~who.isin([*tested, *validating]) & kept)


@pytest.mark.parametrize("fold", [0, 4])
def test_subjects_holds_out_every_fifth_person(index, fold):
    names = [str(number) for number in range(1, 21)]
    tested, validating = index["subject"].isin(names[fold::5]), index["subject"].isin(names[(fold + 1) % 5 :: 5])
    assert_rows(make_split(index, "subjects", "population", fold=fold), test=tested, val=validating,
                train=~tested & ~validating, fit=~tested & ~validating)


@pytest.mark.parametrize("fold", [0, 3])
def test_clips_holds_out_one_official_fold_and_validates_on_the_next(index, fold):
    clip = official_fold(index["clip"])
    train = ~np.isin(clip, [fold, (fold + 1) % 4])
    assert_rows(make_split(index, "clips", fold=fold), test=clip == fold, val=clip == (fold + 1) % 4, train=train,
                fit=train)
    own = (index["subject"] == "3").to_numpy()  # the third person's folds come after eight others
    assert_rows(make_split(index, "within_subject", fold=8 + fold), test=own & (clip == fold),
                val=own & (clip == (fold + 1) % 4), train=own & train, fit=own & train)


def test_random_windows_are_fifths_and_the_next_fifth_validates(index):
    splits = [make_split(index, "random_windows", "population", accept_leaks=True, fold=fold) for fold in range(5)]
    assert [len(split.test) for split in splits] == [len(index) // 5] * 5
    for split, following in zip(splits, splits[1:] + splits[:1], strict=True):
        np.testing.assert_array_equal(split.val, following.test)
        assert len(split.train) == 3 * len(index) // 5


@pytest.mark.parametrize("fold", range(6))
def test_people_and_context_by_hand(two_ways, fold):
    """Groups of every third person; the clips of the other context are dealt by label, and its first fold validates."""
    names = [str(number) for number in range(1, 8)]
    group, tested_way = fold // 2, ("imagery", "video")[fold % 2]
    tested, validating = (two_ways["subject"].isin(names[(group + more) % 3 :: 3]) for more in (0, 1))
    other = two_ways["context"] != tested_way
    first = other & (two_ways["clip"] % 3 == 1)  # three clips a label: three folds
    assert_rows(make_split(two_ways, "cross_context_joint", fold=fold), test=~other & tested,
                val=first & validating, train=other & ~first & ~tested & ~validating, fit=other & ~first)
    if group == 0:
        assert_rows(make_split(two_ways, "cross_context", fold=fold), test=~other, val=first, train=other & ~first,
                    fit=other & ~first)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_first_fold_is_meant_if_none_is_named(index, two_ways, protocol):
    table = two_ways if "context" in protocol else index
    one, other = (make_split(table, protocol, "population", accept_leaks=True, **fold) for fold in ({}, {"fold": 0}))
    for part in (*PARTS, "fit"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_normalization_groups_are_people_or_their_sessions(index):
    people, sessions = (make_split(index, "clips", normalization).norm_groups(index)
                        for normalization in ("calibration", "session"))
    assert people.tolist() == index["subject"].tolist()
    assert sessions.tolist() == [f"{who}/{session}" for who, session in zip(index["subject"], index["session"],
                                                                            strict=True)]


# --- planted leaks


def test_a_clip_of_one_subject_on_two_sides(index, split):
    """Window 0 in train, window 1 in test: the classic leak of shuffled windows."""
    person = index["subject"].iloc[split.test[0]]
    leaky = replace(split, protocol="random", train=np.append(split.train, split.test[0]), test=split.test[1:])
    clip = index["clip"].iloc[split.test[0]]
    where = rf"\['{person}/{clip}'\] \(rows \[{split.test[1]}\]\)"
    with pytest.raises(LeakError, match=f"clips of one subject in train and test: {where}"):
        audit(leaky, index)


@pytest.mark.parametrize("pair", [("train", "test"), ("train", "val"), ("val", "test")])
@pytest.mark.parametrize("protocol", ["joint", "subjects"])
def test_a_subject_on_two_sides(index, protocol, pair):
    split = make_split(index, protocol, "population")
    left, right = pair
    person, clip = index["subject"].iloc[getattr(split, right)[0]], index["clip"].iloc[getattr(split, left)[0]]
    moved = rows_of(index, subject=person, clip=clip)
    rest = {part: np.setdiff1d(getattr(split, part), moved) for part in PARTS}
    assert len(moved) == 2
    leaky = replace(split, fit=rest["train"], **{**rest, left: np.append(rest[left], moved)})
    with pytest.raises(LeakError, match=f"same subjects in {left} and {right}"):
        audit(leaky, index)


@pytest.mark.parametrize("pair", [("train", "test"), ("train", "val"), ("val", "test")])
@pytest.mark.parametrize("protocol", ["joint", "clips"])
def test_a_clip_on_two_sides_of_a_clip_disjoint_protocol(index, protocol, pair):
    """Watched by different people: in the joint and the clips protocol even that is refused."""
    split = make_split(index, protocol)
    left, right = pair
    clip = index["clip"].iloc[getattr(split, right)[0]]
    if protocol == "joint":
        moved = rows_of(index, subject=index["subject"].iloc[getattr(split, left)[0]], clip=clip)
    else:
        moved = rows_of(index, subject="7", clip=clip)
    rest = {part: np.setdiff1d(getattr(split, part), moved) for part in PARTS}
    leaky = replace(split, fit=np.setdiff1d(split.fit, moved), **{**rest, left: np.append(rest[left], moved)})
    with pytest.raises(LeakError, match=rf"same clips in {left} and {right}: \[{clip}\]"):
        audit(leaky, index)


@pytest.mark.parametrize("normalization", ["calibration", "population"])
def test_levels_fitted_with_test_windows(index, split, normalization):
    leaky = replace(split, normalization=normalization, fit=np.append(split.fit, split.test[:2]))
    with pytest.raises(LeakError, match=rf"normalization '{normalization}' was fitted with test windows \(rows "
                                        rf"\[{split.test[0]}, "):
        audit(leaky, index)
    audit(replace(leaky, normalization="transductive"), index)  # which says so


@pytest.mark.parametrize("part", ["val", "test"])
def test_levels_fitted_with_the_other_window_of_a_held_out_clip(index, split, part):
    row = getattr(split, part)[0]
    leaky = replace(split, fit=np.append(split.fit, row), **{part: getattr(split, part)[1:]})
    with pytest.raises(LeakError, match=f"fitted with other windows of {part} clips"):
        audit(leaky, index)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_that_stands_on_one_side_only(index, split, part):
    rows = getattr(split, part)
    without = rows[index["label"].iloc[rows].to_numpy() != "fear"]
    with pytest.raises(LeakError, match=r"labels \['fear'\] stand on only one side"):
        audit(replace(split, **{part: without}), index)


@pytest.mark.parametrize("part", PARTS)
def test_an_empty_part(index, split, part):
    with pytest.raises(LeakError, match=f"the {part} part is empty"):
        audit(replace(split, **{part: np.array([], dtype=int)}), index)


def test_too_few_clips_for_the_folds(index):
    """With five clips a session there is one fold only, hence nothing to train on."""
    few = index[(index["clip"] - 1) % 20 < 5].reset_index(drop=True)
    with pytest.raises((LeakError, ValueError), match=r"part is empty|no clips to calibrate on"):
        make_split(few, "joint")


# --- other recordings: clips without an official fold, labels evoked in several ways


@pytest.fixture(scope="module")
def two_ways() -> pd.DataFrame:
    """Seven people, 21 imageries (clips 1-21) and 21 videos (22-42) of seven labels, two windows each."""
    labels = ("sadness", "disgust", "fear", "neutral", "joy", "tenderness", "inspiration")
    rows = [(str(subject), 1, clip, window, 4.0 * window, labels[(clip - 1) % 21 // 3],
             "video" if clip > 21 else "imagery")
            for subject in range(1, 8) for clip in range(1, 43) for window in range(2)]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "start_s", "label", "context"])


@pytest.mark.parametrize(("fold", "trained", "tested"), [(0, "video", "imagery"), (1, "imagery", "video")])
@pytest.mark.parametrize("protocol", ["cross_context", "cross_context_joint"])
def test_across_contexts(two_ways, protocol, fold, trained, tested):
    split = make_split(two_ways, protocol, fold=fold, n_groups=3)
    contexts, people = sides(two_ways, split, "context"), sides(two_ways, split, "subject")
    assert contexts == {"train": {trained}, "val": {trained}, "test": {tested}}
    assert all(len(labels) == 7 for labels in sides(two_ways, split, "label").values())
    assert not set(two_ways["context"].iloc[split.fit]) & {tested}  # no statistics come from the test context
    assert split.traits.context_disjoint
    assert split.traits.subject_disjoint == (protocol == "cross_context_joint") == (not overlaps(people))
    assert "context unseen" in split.statement or "context both unseen" in split.statement
    trials = two_ways.assign(trial=two_ways["subject"] + "/" + two_ways["clip"].astype(str))
    assert not overlaps(sides(trials, split, "trial"))
    assert not set(trials["trial"].iloc[split.fit]) & set(trials["trial"].iloc[np.append(split.val, split.test)])


def test_everybody_is_tested_once_in_every_context(two_ways):
    tests = np.concatenate([make_split(two_ways, "cross_context_joint", fold=fold, n_groups=3).test
                            for fold in range(6)])
    assert len(set(tests)) == len(tests) == len(two_ways)


def test_a_context_on_two_sides(two_ways):
    split = make_split(two_ways, "cross_context")
    moved = rows_of(two_ways, subject="3", clip=5)
    leaky = replace(split, train=np.append(split.train, moved), test=np.setdiff1d(split.test, moved))
    with pytest.raises(LeakError, match="context_on_both_sides: same contexts in train and test: \\['imagery'\\]"):
        audit(leaky, two_ways)


def test_one_context_is_none_to_cross(index, two_ways):
    with pytest.raises(ValueError, match=r"evoked in one context .*needs two or more"):
        make_split(index, "cross_context")
    with pytest.raises(ValueError, match=r"evoked in 1 context \(\['video'\]\): .*needs two or more"):
        make_split(two_ways[two_ways["context"] == "video"].reset_index(drop=True), "cross_context_joint")
    nameless = two_ways.assign(context=two_ways["context"].where(two_ways["clip"] != 9, ""))
    with pytest.raises(ValueError, match=r"evoked in 3 contexts \(\['', 'imagery', 'video'\]\)"):
        make_split(nameless, "cross_context")


@pytest.mark.parametrize("protocol", ["joint", "clips", "within_subject"])
def test_clips_of_other_recordings_are_dealt_by_label(two_ways, protocol):
    """The official rule would put whole labels into one fold, since clips are numbered label by label."""
    shown = [make_split(two_ways, protocol, fold=fold) for fold in range(4)]
    for split in shown:
        assert all(len(labels) == 7 for labels in sides(two_ways, split, "label").values())
    if protocol == "clips":
        assert sorted(np.concatenate([split.test for split in shown])) == list(range(len(two_ways)))


def test_clips_of_ones_own_are_dealt_person_by_person():
    """Three people, each with eight clips of their own, numbered through."""
    rows = [(str(subject), 1, 8 * subject + clip, "ab"[clip % 2]) for subject in range(3) for clip in range(8)]
    own = pd.DataFrame(rows, columns=["subject", "session", "clip", "label"])
    for fold in range(4):
        split = make_split(own, "clips", fold=fold)
        assert own.iloc[split.test].groupby("subject")["label"].nunique().tolist() == [2, 2, 2]


def test_labels_of_seed_vii_in_another_order_have_no_official_folds(index):
    """Only the data set's own clips with its own labels have its folds."""
    other = index.assign(label=index["clip"].map(lambda clip: clip_emotion((clip + 4) % 80 + 1)))
    assert (clip_fold(index)[0] == official_fold(index["clip"])).all() and clip_fold(index)[1] == 4
    assert (clip_fold(other)[0] != official_fold(other["clip"])).any()
    assert other.groupby(clip_fold(other)[0])["label"].nunique().tolist() == [7, 7, 7, 7]


@pytest.mark.parametrize(("clips_of", "folds", "of_clip"), [
    ({"a": 4, "b": 5}, 4, [0, 1, 2, 3, 0, 1, 2, 3, 0]),
    ({"a": 3, "b": 5}, 3, [0, 1, 2, 0, 1, 2, 0, 1]),
    ({"a": 2, "b": 3}, 4, [0, 1, 0, 1, 2]),
    ({"a": 2, "b": 2}, 4, [0, 0, 0, 0]),  # too few to deal: five clips in a row are one official fold
    ({"a": 4, "b": 1}, 4, [0, 1, 2, 3, 0])])
def test_clips_are_dealt_label_by_label(clips_of, folds, of_clip):
    labels = [label for label, n in clips_of.items() for _ in range(n)]
    index = pd.DataFrame([(who, clip, label) for who in "xyz" for clip, label in enumerate(labels, 1)],
                         columns=["subject", "clip", "label"])
    found, n = clip_fold(index)
    assert n == folds and found.tolist() == of_clip * 3


def test_the_last_clip_of_seed_vii_has_an_official_fold_and_a_clip_beyond_it_has_none(index):
    whole = clip_fold(index)[0]
    assert whole[(index["clip"] == 80).to_numpy()].tolist() == [3] * 40
    beyond = index.assign(clip=index["clip"].replace({80: 81}))
    assert not np.array_equal(clip_fold(beyond)[0], official_fold(beyond["clip"]))
    before = index.assign(clip=index["clip"].replace({1: 0}))
    assert not np.array_equal(clip_fold(before)[0], official_fold(before["clip"]))


# --- the number of folds


@pytest.fixture(scope="module")
def three_clips() -> pd.DataFrame:
    """Six people who saw the same clips, three of each label but four of neutral, as in FACED."""
    labels = [label for label in "abcd" for _ in range(3)] + ["neutral"] * 4
    rows = [(str(subject), 1, clip, window, label)
            for subject in range(1, 7) for clip, label in enumerate(labels, 1) for window in range(2)]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "label"])


FOLDS = {"clips": 3, "within_subject": 18, "joint": 3, "subjects": 5, "random_windows": 5}


@pytest.mark.parametrize("protocol", FOLDS)
def test_three_clips_a_label_are_three_folds_and_no_two_are_the_same(three_clips, protocol):
    normalization = "population" if protocol in ("subjects", "random_windows") else "calibration"
    assert n_folds(three_clips, protocol) == FOLDS[protocol]
    tests = [make_split(three_clips, protocol, normalization, accept_leaks=True, fold=fold).test
             for fold in range(FOLDS[protocol])]
    tested = np.concatenate(tests)
    assert len(set(tested)) == len(tested) and (protocol == "joint" or len(tested) == len(three_clips))


@pytest.mark.parametrize("fold", [-1, "last", 99])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_fold_outside_is_refused_under_every_protocol(three_clips, two_ways, protocol, fold):
    index = two_ways if "context" in protocol else three_clips
    folds = n_folds(index, protocol)
    with pytest.raises(ValueError, match=rf"Protocol '{protocol}' has the folds 0 to {folds - 1} on these recordings, "
                                         r"no fold"):
        make_split(index, protocol, "population", accept_leaks=True, fold=folds if fold == "last" else fold)


def test_joint_tests_every_person_on_every_clip_once_over_all_of_its_folds(index):
    assert n_folds(index, "joint") == 12 and n_folds(index, "joint", 0) == 20 and n_folds(index, "subjects", 0) == 20
    tested = np.concatenate([make_split(index, "joint", fold=fold).test for fold in range(12)])
    assert sorted(tested) == list(range(len(index)))
