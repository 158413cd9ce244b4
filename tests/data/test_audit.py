"""The auditor refuses every planted leak for its own reason, and never a clean split."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2llm.data.audit import (
    NEAR,
    RULES,
    Case,
    Finding,
    LeakError,
    audit,
    duplicated_signal,
    reached_by_shortcuts,
    stamp,
)
from e2llm.data.protocols import PROTOCOLS, Split, n_folds
from e2llm.data.sources.seed_vii import clip_emotion
from e2llm.data.splits import accepted_rules, make_split

CLEAN = [("joint", "calibration"), ("joint", "population"), ("subjects", "population"), ("clips", "calibration"),
         ("clips", "population"), ("within_subject", "calibration")]


def make_index(subjects: int = 20, windows: int = 2) -> pd.DataFrame:
    rows = [(str(subject), (clip - 1) // 20 + 1, clip, window, 4.0 * window, clip_emotion(clip))
            for subject in range(1, subjects + 1) for clip in range(1, 81) for window in range(windows)]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "start_s", "label"])


INDEX = make_index()
POWER = np.random.default_rng(0).lognormal(sigma=0.5, size=(len(INDEX), 6, 5))
JOINT = make_split(INDEX, "joint")


def rules_of(split: Split, index: pd.DataFrame = INDEX, **known) -> set[str]:
    with pytest.raises(LeakError) as refused:
        audit(split, index, **known)
    return {part.split(":")[0].split()[-1] for part in str(refused.value).split(". ") if ":" in part}


def trial_rows(subject: str, clip: int) -> np.ndarray:
    return np.flatnonzero((INDEX["subject"] == subject) & (INDEX["clip"] == clip))


def item(*windows: int) -> SimpleNamespace:
    return SimpleNamespace(windows=list(windows))


def moved(split: Split, rows: np.ndarray, left: str) -> Split:
    """The rows, wherever they stand, are moved to a part."""
    rest = {part: np.setdiff1d(getattr(split, part), rows) for part in ("train", "val", "test", "fit")}
    return replace(split, **{**rest, left: np.append(rest[left], rows)})


# --- planted leaks, each with the rule that must find it


def split_clip() -> Split:
    first = trial_rows(INDEX["subject"][JOINT.test[0]], INDEX["clip"][JOINT.test[0]])[0]
    return replace(JOINT, train=np.append(JOINT.train, first), test=np.setdiff1d(JOINT.test, [first]), protocol="own")


def split_subject() -> Split:
    split = make_split(INDEX, "subjects", "population")
    rows = trial_rows(INDEX["subject"][split.test[0]], 7)
    return replace(moved(split, rows, "train"), fit=np.setdiff1d(split.fit, rows))


def split_stimulus() -> Split:
    split = make_split(INDEX, "clips")
    return moved(replace(split, fit=np.setdiff1d(split.fit, trial_rows("3", 1))), trial_rows("3", 1), "train")


def copied(noise: float, gain: float = 1.0) -> np.ndarray:
    power = POWER.copy()
    power[JOINT.test[3]] = gain * power[JOINT.train[9]] * np.exp(noise
        * np.random.default_rng(1).normal(size=POWER.shape[1:]))
    return power


def other_label() -> pd.DataFrame:
    return INDEX.assign(label=np.where(np.arange(len(INDEX)) == trial_rows("5", 33)[0], "sad", INDEX["label"]))


def overlapping(overlap_s: float) -> pd.DataFrame:
    """Every second window starts before the first one ends."""
    return INDEX.assign(start_s=INDEX["window"] * (4.0 - overlap_s))


def without(split: Split, part: str, label: str) -> Split:
    rows = getattr(split, part)
    return replace(split, **{part: rows[INDEX["label"].iloc[rows].to_numpy() != label]})


TEST_PERSON = str(INDEX["subject"][JOINT.test[0]])
LEAKS = {
    "a window in train and in test": ("same_window", replace(JOINT, train=np.append(JOINT.train, JOINT.test[0]),
                                                             protocol="own"), {}),
    "a window twice in train": ("same_window", replace(JOINT, train=np.append(JOINT.train, JOINT.train[0])), {}),
    "the windows of a clip dealt to train and test": ("clip_on_both_sides", split_clip(), {}),
    "overlapping windows dealt to train and test": ("overlapping_windows", split_clip(), {"index": overlapping(2.0)}),
    "a test subject's clip in train": ("subject_on_both_sides", split_subject(), {}),
    "a test video watched by a training subject": ("stimulus_on_both_sides", split_stimulus(), {}),
    "a test signal copied into train": ("duplicated_signal", JOINT, {"power": copied(0.0)}),
    "a test signal in train with another gain": ("duplicated_signal", JOINT, {"power": copied(0.0, gain=3.0)}),
    "a test signal in train with a little noise": ("duplicated_signal", JOINT, {"power": copied(0.001)}),
    "levels fitted with test windows": ("normalization_on_test",
                                        replace(JOINT, fit=np.append(JOINT.fit, JOINT.test[:1])), {}),
    "levels fitted with the other window of a test clip": (
        "normalization_on_test", replace(JOINT, fit=np.append(JOINT.fit, JOINT.test[0]), test=JOINT.test[1:]), {}),
    "population statistics fitted on validation subjects": (
        "normalization_on_test", replace(JOINT, normalization="population", fit=np.append(JOINT.train, JOINT.val)), {}),
    "bad channels found over whole recordings": ("repair_on_test", make_split(INDEX, "clips"),
                                                 {"repaired_over": "recording"}),
    "bad channels found over the corpus": ("repair_on_test", JOINT, {"repaired_over": "corpus"}),
    "an instruction item with a test window": ("items_reuse_test", JOINT,
                                               {"items": [item(JOINT.train[0]), item(JOINT.train[1], JOINT.test[5])]}),
    "a few-shot example from validation": ("items_reuse_test", JOINT, {"items": [item(JOINT.val[0])]}),
    "weights pretrained on a test subject": ("pretrained_on_test", JOINT,
                                             {"pretrained_on": {TEST_PERSON, "somebody else"}}),
    "the epoch chosen on test": ("selected_on_test", JOINT, {"selected_on": "test"}),
    "a class missing from train": ("missing_class", without(JOINT, "train", "fear"), {}),
    "a class missing from test": ("missing_class", without(JOINT, "test", "sad"), {}),
    "two labels in one clip": ("clip_with_several_labels", JOINT, {"index": other_label()}),
    "no validation": ("empty_part", replace(JOINT, val=np.array([], dtype=int)), {}),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_refused_for_its_own_reason(leak):
    rule, split, known = LEAKS[leak]
    known = dict(known)
    assert rule in rules_of(split, known.pop("index", INDEX), **known)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_can_be_overridden_by_name_and_then_stamps_the_report(leak):
    rule, split, known = LEAKS[leak]
    known = dict(known)
    index = known.pop("index", INDEX)
    findings = audit(split, index, accept=rules_of(split, index, **known), **known)
    assert rule in stamp(findings) and stamp(findings).startswith("LEAKY: ")


def test_a_refusal_names_reason_and_rows():
    with pytest.raises(LeakError, match=r"items_reuse_test: instruction items or examples hold test windows \(rows "
                                        rf"\[{JOINT.test[5]}\]\)"):
        audit(JOINT, INDEX, items=[item(JOINT.test[5])])


def test_an_unknown_scope_of_repair_is_a_mistake_not_a_pass():
    with pytest.raises(ValueError,
                       match=r"Unknown scope of channel repair 'person' \(known: clip, recording, corpus\)"):
        audit(JOINT, INDEX, repaired_over="person")


# --- what a finding says: rule, reason and rows


def findings_of(rule: str, split: Split, index: pd.DataFrame = INDEX, **known) -> list[Finding]:
    case = Case(split, index, **known)
    return [finding for check in RULES for finding in check(case) if finding.rule == rule]


@pytest.mark.parametrize(("rows", "said"), [((), "leak: it leaks."), ((7,), "leak: it leaks (rows [7])."),
                                            (range(5), "leak: it leaks (rows [0, 1, 2, 3, 4])."),
                                            (range(6), "leak: it leaks (rows [0, 1, 2, 3, 4], …).")])
def test_a_finding_shows_five_rows(rows, said):
    assert str(Finding("leak", "refuse", "it leaks", tuple(rows))) == said


def test_three_values_are_shown_of_those_on_two_sides():
    split = make_split(INDEX, "subjects", "population")
    for n, shown in ((3, "['1', '11', '16']"), (4, "['1', '11', '16'] …")):
        people = ["1", "11", "16", "6"][:n]
        rows = np.flatnonzero(INDEX["subject"].isin(people) & (INDEX["clip"] == 1))
        (found,) = findings_of("subject_on_both_sides", replace(split, train=np.append(split.train, rows),
                                                                test=np.setdiff1d(split.test, rows)))
        assert found.reason == f"same subjects in train and test: {shown}"
        assert found.rows == tuple(row for row in split.test if INDEX["subject"][row] in people and row not in rows)


def test_windows_in_two_parts_or_twice_in_one_are_named():
    twice = replace(JOINT, val=np.append(JOINT.val, [JOINT.val[2], JOINT.test[4]]))
    assert [(found.reason, found.rows) for found in findings_of("same_window", twice)] == [
        ("windows stand in val and in test", (JOINT.test[4],)), ("windows stand twice in val", (JOINT.val[2],))]
    assert findings_of("same_window", JOINT) == []


@pytest.mark.parametrize("overlap_s", [0.01, 0.5, 3.9])
def test_the_later_of_two_overlapping_windows_is_named(overlap_s):
    first, second = trial_rows(TEST_PERSON, INDEX["clip"][JOINT.test[0]])
    split = replace(JOINT, train=np.append(JOINT.train, first), test=np.setdiff1d(JOINT.test, [first]))
    (found,) = findings_of("overlapping_windows", split, overlapping(overlap_s))
    assert found.rows == (second,) and found.reason == "windows of train and test share samples"
    assert not findings_of("overlapping_windows", split, overlapping(overlap_s), window_s=4.0 - overlap_s)
    assert not findings_of("overlapping_windows", JOINT, overlapping(overlap_s))  # on one side they may
    assert not findings_of("overlapping_windows", split, overlapping(overlap_s).drop(columns="start_s"))


def test_windows_of_other_clips_do_not_overlap_whatever_their_times():
    apart = INDEX.assign(start_s=0.1 * np.arange(len(INDEX)))
    assert not findings_of("overlapping_windows", moved(JOINT, trial_rows(TEST_PERSON, 1), "train"), apart)


def test_rows_of_leaks_through_items_weights_and_repair():
    items = [item(JOINT.train[0]), item(JOINT.test[5], JOINT.test[2]), item(JOINT.val[1])]
    assert [(found.reason.split()[-2], found.rows)
            for found in findings_of("items_reuse_test", JOINT, items=items)] == [
        ("test", (JOINT.test[2], JOINT.test[5])), ("val", (JOINT.val[1],))]
    (found,) = findings_of("pretrained_on_test", JOINT, pretrained_on=[int(TEST_PERSON), "nobody"])
    assert found.rows == tuple(row for row in JOINT.test if INDEX["subject"][row] == TEST_PERSON)
    assert found.reason.endswith(f"test subjects ['{TEST_PERSON}']")
    (found,) = findings_of("repair_on_test", JOINT, repaired_over="corpus")
    assert found.rows == tuple(JOINT.test) and "over a whole corpus" in found.reason
    assert not findings_of("repair_on_test", JOINT, repaired_over="recording")  # people of joint stand on one side


def test_rows_of_levels_fitted_on_what_is_held_out():
    seen = replace(JOINT, fit=np.append(JOINT.fit, JOINT.test[:2]))
    assert [found.rows for found in findings_of("normalization_on_test", seen)] == [tuple(JOINT.test[:2])]
    beside = replace(JOINT, fit=np.append(JOINT.fit, JOINT.val[0]), val=JOINT.val[1:])
    (found,) = findings_of("normalization_on_test", beside)
    assert found.rows == (JOINT.val[1],) and "other windows of val clips" in found.reason
    outside = make_split(INDEX, "joint", "population")
    unused = np.setdiff1d(np.arange(len(INDEX)), outside.used)[:2]
    (found,) = findings_of("normalization_on_test", replace(outside, fit=np.append(outside.fit, unused)))
    assert found.rows == tuple(unused) and "outside the training part" in found.reason


def test_rows_of_a_clip_with_two_labels_and_names_of_one_sided_labels():
    (found,) = findings_of("clip_with_several_labels", JOINT, other_label())
    assert found.rows == tuple(trial_rows("5", 33))
    (found,) = findings_of("missing_class", without(without(JOINT, "train", "fear"), "test", "sad"))
    assert "['fear', 'sad']" in found.reason
    empty = replace(JOINT, test=np.array([], dtype=int))  # which has a refusal of its own
    assert not findings_of("missing_class", empty) and len(findings_of("empty_part", empty)) == 1


def test_what_is_not_measured_is_said_to_be_so():
    for rule in ("time_neighbors", "session_fingerprint"):
        (found,) = findings_of(rule, make_split(INDEX, "clips", fold=1))
        assert "not measured" in found.reason
    (found,) = findings_of("session_fingerprint", make_split(INDEX, "clips", fold=1))
    assert found.rows == tuple(make_split(INDEX, "clips", fold=1).test)


def test_neighbors_in_time_are_of_one_person_and_one_session():
    """Sessions of five clips, which is one official fold: what precedes or follows is of another session."""
    apart = INDEX.assign(session=(INDEX["clip"] - 1) // 5)
    assert findings_of("time_neighbors", make_split(INDEX, "clips", fold=1))
    assert not findings_of("time_neighbors", make_split(apart, "clips", fold=1), apart)


def test_a_clip_before_a_training_clip_is_its_neighbor_too():
    split = make_split(INDEX, "clips", fold=1)
    (found,) = findings_of("time_neighbors", replace(split, val=split.test, test=split.val))
    assert {(clip - 1) % 20 for clip in INDEX["clip"].iloc[list(found.rows)]} == {14}  # clips 16-20 train
    assert len(found.rows) == 20 * 4 and found.reason.startswith("80 test clips")


def test_what_was_found_and_of_what_cannot_be_changed():
    for one, field in ((Finding("leak", "refuse", "it leaks"), "severity"), (Case(JOINT, INDEX), "selected_on")):
        with pytest.raises(FrozenInstanceError):
            setattr(one, field, "warn")


def test_people_who_were_not_trained_on_are_named_with_their_rows():
    split = make_split(INDEX, "clips")
    lost = replace(split, train=split.train[~INDEX["subject"].iloc[split.train].isin(["2", "5"]).to_numpy()])
    (found,) = findings_of("people_not_seen", lost)
    assert "but ['2', '5'] were not trained on" in found.reason
    assert found.rows == tuple(row for row in split.test if INDEX["subject"][row] in ("2", "5"))
    assert not findings_of("people_not_seen", JOINT)  # which states that they are unseen


# --- duplicates: every pair is covered, at any size


def by_distances(power: np.ndarray, left: np.ndarray, right: np.ndarray) -> list[int]:
    """Rows of the right side whose nearest on the left is nearer than NEAR, from all distances."""
    log_power = np.log(power).reshape(len(power), -1)
    log_power = log_power - log_power.mean(axis=1, keepdims=True)
    return [int(row) for row in right if (np.abs(log_power[left] - log_power[row]).max(axis=1) < NEAR).any()]


def found_duplicates(power: np.ndarray, split: Split, index: pd.DataFrame) -> list[int]:
    return [row for finding in duplicated_signal(Case(split, index, power=power)) for row in finding.rows]


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_are_those_of_all_distances(seed):
    """Copies with noise of which some stay below the limit, and some do not."""
    rng, power = np.random.default_rng(seed), POWER.copy()
    copies, originals = rng.choice(JOINT.test, 60, replace=False), rng.choice(JOINT.train, 60)
    noise = rng.uniform(0, 1.5 * NEAR, size=(60, 1, 1)) * rng.uniform(-1, 1, size=(60, *power.shape[1:]))
    power[copies] = power[originals] * np.exp(noise)
    wanted = [row for left, right in (("train", "test"), ("train", "val"), ("val", "test"))
              for row in by_distances(power, getattr(JOINT, left), getattr(JOINT, right))]
    assert 20 < len(wanted) < 60 and found_duplicates(power, JOINT, INDEX) == wanted


def test_one_copied_window_among_sixty_thousand_is_found():
    index = make_index(windows=38)
    split = make_split(index, "joint")
    power = np.random.default_rng(0).lognormal(sigma=0.5, size=(len(index), 6, 5))
    assert len(index) > 60_000 and found_duplicates(power, split, index) == []
    power[split.test[7]] = 2.0 * power[split.train[11]]
    assert found_duplicates(power, split, index) == [split.test[7]]


def test_windows_that_are_all_alike_are_duplicates():
    assert found_duplicates(np.ones_like(POWER), JOINT, INDEX) == [*JOINT.test, *JOINT.val, *JOINT.test]


# --- clean splits


def clean_known(split: Split) -> dict:
    return {"power": POWER, "items": [item(*split.train[:3])], "pretrained_on": {"a stranger"}, "window_s": 4.0}


@pytest.mark.parametrize(("protocol", "normalization"), CLEAN)
@pytest.mark.parametrize("fold", range(4))
def test_clean_protocols_pass_with_everything_known(protocol, normalization, fold):
    split = make_split(INDEX, protocol, normalization, fold=fold)
    findings = audit(split, INDEX, **clean_known(split))
    assert {finding.severity for finding in findings} <= {"warn"} and stamp(findings) == ""


def test_leave_one_subject_out_tests_everybody_once():
    tested = [make_split(INDEX, "subjects", "population", fold=fold, n_groups=0).test for fold in range(20)]
    assert all(INDEX["subject"].iloc[rows].nunique() == 1 for rows in tested)
    assert sorted(np.concatenate(tested)) == list(range(len(INDEX)))


def test_within_subject_tests_every_clip_of_everybody_once():
    splits = [make_split(INDEX, "within_subject", fold=fold) for fold in range(80)]
    assert all(INDEX["subject"].iloc[split.used].nunique() == 1 for split in splits)
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(INDEX)))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([pair for pair in CLEAN if pair[0] != "within_subject"]),
       st.integers(0, 11))
def test_no_false_alarm_on_random_clean_splits(seed, protocol, fold):
    """Random people, clips, window counts and signals, in random order: nothing is refused."""
    rng = np.random.default_rng(seed)
    index = make_index(int(rng.integers(6, 12)), windows=3)
    index = index[rng.uniform(size=len(index)) < 0.7].sample(frac=1.0,
                                                             random_state=int(seed % 2**31)).reset_index(drop=True)
    split = make_split(index, *protocol, fold=fold % n_folds(index, protocol[0]))
    power = rng.lognormal(sigma=rng.uniform(0.2, 1.0), size=(len(index), 6, 5))
    items = [item(*rng.choice(split.train, 3)) for _ in range(20)]
    findings = audit(split, index, power=power, items=items, pretrained_on={"x"})
    assert not [finding for finding in findings if finding.severity == "refuse"]


# --- warnings and the cautionary tale


def test_transductive_normalization_passes_but_says_so():
    findings = audit(make_split(INDEX, "subjects", "transductive"), INDEX)
    assert [finding.rule for finding in findings] == ["transductive"]
    assert "TRANSDUCTIVE" in make_split(INDEX, "subjects", "transductive").statement


def test_time_neighbors_are_a_warning_with_their_worth():
    (warning,) = audit(make_split(INDEX, "clips", "session", fold=1), INDEX, neighbor_worth=0.143)
    assert warning.severity == "warn" and "+14.3 points over chance" in warning.reason
    # Clip 6 follows clip 5; clips 11-15 validate.
    assert {(clip - 1) % 20 for clip in INDEX["clip"].iloc[list(warning.rows)]} == {5}
    assert len(warning.rows) == 20 * 4 and audit(make_split(INDEX, "clips", "session", fold=0), INDEX) == []


def test_sessions_with_levels_of_their_own_are_a_warning_where_people_train_and_test():
    (warning,) = audit(make_split(INDEX, "clips"), INDEX, session_worth=0.052)
    assert (warning.rule, warning.severity) == ("session_fingerprint", "warn")
    assert "80 sessions stand" in warning.reason and "+5.2 points over chance" in warning.reason
    assert audit(make_split(INDEX, "clips", "session"), INDEX) == [] and audit(make_split(INDEX, "joint"), INDEX) == []
    alike = INDEX.assign(session=1)  # one session shows every label: recognizing it is worth nothing
    assert "session_fingerprint" not in {finding.rule for finding in audit(make_split(alike, "clips"), alike)}


def test_clips_that_nobody_shares_are_not_clips_of_people_seen():
    """Two recordings a person, numbered through, as a folder of files has them: folds of clips are folds of people."""
    own = INDEX[INDEX["clip"] <= 2].assign(session=1)
    own = own.assign(clip=own["clip"] + 2 * (own["subject"].astype(int) - 1),
                     label=np.where(own["clip"] == 1, "rest", "task")).reset_index(drop=True)
    (warning,) = [finding for finding in audit(make_split(own, "clips", "population"), own)
                  if finding.rule == "people_not_seen"]
    assert warning.severity == "warn" and "use 'subjects'" in warning.reason and len(warning.rows)
    assert not audit(make_split(INDEX, "clips", "session"), INDEX)


def test_random_windows_are_refused_unless_their_leaks_are_accepted():
    with pytest.raises(LeakError, match="clip_on_both_sides"):
        make_split(INDEX, "random_windows")
    split = make_split(INDEX, "random_windows", accept_leaks=True)
    findings = audit(split, INDEX, accept=accepted_rules("random_windows", True))
    assert split.traits.leaky and split.statement.startswith("LEAKY") and "clip_on_both_sides" in stamp(findings)
    assert not any(PROTOCOLS[name].leaky for name, _ in CLEAN)
    assert accepted_rules("random_windows", False) == () and accepted_rules("joint", True) == ()


# --- scores that may be had without EEG


def scores(**rows: tuple[float, float, float]) -> pd.DataFrame:
    return pd.DataFrame([(name.replace("_", " "), *row) for name, row in rows.items()],
                        columns=["name", "score", "low", "high"])


@pytest.mark.parametrize(("probe", "warned"), [
    ((1.0, 1.0, 1.0), True),  # beats the model: a recording's length that gives the label away
    ((0.7, 0.7, 0.7), True),  # above its estimate
    ((0.5, 0.4, 0.62), True),  # its interval reaches the model's
    ((0.6, 0.6, 0.6), True),  # just so
    ((0.5, 0.4, 0.59), False),
    ((0.14, 0.14, 0.14), False),
])
def test_a_shortcut_whose_interval_reaches_a_model_is_a_warning(probe, warned):
    found = reached_by_shortcuts(scores(LLM=(0.65, 0.6, 0.7), head=(0.95, 0.9, 1.01)),
                                 scores(majority=(0.1, 0.1, 0.1), clip_duration=probe))
    assert bool([finding for finding in found if "'LLM'" in finding.reason]) == warned
    assert len([finding for finding in found if "'head'" in finding.reason]) == (probe[2] >= 0.9)
    for finding in found:
        assert (finding.rule, finding.severity) == ("shortcut_reaches_model",
                                                    "warn") and "majority" not in finding.reason
        assert f"'clip duration' {100 * probe[0]:.1f} ({100 * probe[1]:.1f} – {100 * probe[2]:.1f})" in finding.reason
    assert stamp(found) == ""  # nothing was overridden


def test_all_shortcuts_that_reach_a_model_are_named_the_strongest_first():
    (found,) = reached_by_shortcuts(scores(LLM=(0.2, 0.1, 0.3)),
                                    scores(majority=(0.14, 0.14, 0.14), duration=(0.9, 0.8, 1.0), low=(0.0, 0.0, 0.0)))
    assert found.reason.index("'duration'") < found.reason.index("'majority'") and "'low'" not in found.reason
