"""The gate: faults that raise no error are found, named, and cost no more than they must."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from edfio import Bdf, BdfSignal, EdfAnnotation, EdfSignal
from recordings import CAP, SFREQ, brain, four_files, make_discontinuous, patch, raw_of, write_edf, write_table

from e2llm.data.checks import SignalWatch, as_flaw, read_quality
from e2llm.data.filtering import filter_and_resample
from e2llm.data.gate import first_trial
from e2llm.data.new_subject import read_windows
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.folder import LabelledFolder

PLACES = [name.upper() for name in CAP]


def through_gate(root: Path, **params) -> tuple[Windows, dict[str, str], pd.DataFrame]:
    """Windows of a labelled folder, what was skipped, and the findings."""
    folder = root.parent / "windows"
    skipped = write_windows(LabelledFolder(root), folder, PreprocessParams(**{"lof_threshold": 50, **params}), n_jobs=1)
    return Windows.open(folder), skipped, read_quality(folder)[0]


def found(findings: pd.DataFrame, severity: str) -> list[tuple[str, str]]:
    return list(findings[findings["severity"] == severity][["recording", "rule"]].itertuples(index=False, name=None))


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "mine"


def test_good_recordings_have_no_findings(root):
    windows, skipped, findings = through_gate(four_files(root))
    assert len(windows) == 24 and skipped == {} and len(findings) == 0
    recordings = read_quality(root.parent / "windows")[1]
    assert recordings["windows"].tolist() == [6] * 4 and recordings["dropped"].sum() == 0
    assert recordings["amplitude_uv"].between(5, 50).all() and recordings["used"].all()


# --- units (5, 27)


@pytest.mark.parametrize(("unit", "scale"), [
    ("", 1.0), (".V", 1.0), ("uv", 1.0), ("V", 1.0), ("mV", 1.0),  # microvolts under the name of another unit
    ("uV", 1e-3), ("uV", 1e-6), ("uV", 1e3), ("nV", 1.0),  # millivolts, volts and nanovolts called microvolts
])
def test_another_unit_is_refused_with_file_and_unit(root, unit, scale):
    windows, skipped, _ = through_gate(four_files(root, data=brain() * scale, unit=unit))
    assert list(skipped) == ["a.edf"] and len(windows) == 18
    assert any(fact in skipped["a.edf"] for fact in ("µV (root mean square)", "flat")), skipped
    if "µV (root" in skipped["a.edf"]:
        assert f"unit in the header: '{unit}'" in skipped["a.edf"] and "right unit" in skipped["a.edf"]


@pytest.mark.parametrize("scale", [1e6, 1e3, 1e-3], ids=["microvolts as volts", "as millivolts", "volts as mV"])
def test_a_fif_of_another_unit_is_refused(root, scale):
    four_files(root)
    raw_of(brain() * scale).save(root / "a_raw.fif", verbose="error")
    write_table(root, ["a_raw.fif", "b.edf", "c.edf"])
    assert list(through_gate(root)[1]) == ["a_raw.fif"]


def test_one_channel_of_an_impossible_amplitude(root):
    data = brain()
    data[3] *= 1e30
    raw_of(data).save(four_files(root) / "a_raw.fif", fmt="double", verbose="error")
    write_table(root, ["a_raw.fif", "b.edf", "c.edf"])
    _, skipped, _ = through_gate(root)
    assert "channel F4 spans" in skipped["a_raw.fif"] and "check the unit" in skipped["a_raw.fif"]


@pytest.mark.parametrize(("scale", "severity"), [(1.0, None), (8.0, "warn"), (0.1, "warn"), (0.03, "refuse")])
def test_an_amplitude_unlike_the_others(root, scale, severity):
    """In the range of what a scalp has: only the comparison of recordings shows it."""
    windows, skipped, findings = through_gate(four_files(root, data=brain() * scale))
    own = findings[(findings["rule"] == "amplitude") & findings["fact"].str.contains("of the others")]
    assert own["severity"].tolist() == ([severity] if severity else [])
    assert list(skipped) == (["a.edf"] if severity == "refuse" else [])
    assert len(windows) == (18 if skipped else 24)


@pytest.mark.parametrize("quality", ["strict", "warn"])
def test_strict_refuses_and_warn_lists(root, quality):
    windows, skipped, findings = through_gate(four_files(root, data=brain() * 1e3), quality=quality)
    assert len(windows) == (24 if quality == "warn" else 18) and bool(skipped) == (quality == "strict")
    assert ("a.edf", "amplitude") in found(findings, "warn" if quality == "warn" else "refuse")


def test_an_unknown_quality():
    with pytest.raises(ValueError, match=r"quality = 'lax'.*strict or warn"):
        PreprocessParams(quality="lax")


# --- gaps (4)


@pytest.mark.parametrize(("gap", "after"), [(60.0, 12), (0.5, 3), (-5.0, 20)], ids=["a minute", "short", "backwards"])
def test_a_gap_of_edf_d_is_refused(root, gap, after):
    four_files(root)
    path = write_edf(root / "a.edf", brain(), notes=[(1.0, 0.0, "film")])
    make_discontinuous(path, gap, after)
    _, skipped, _ = through_gate(root)
    assert f"has 1 gaps, the first of {gap:g} s at {after} s" in skipped["a.edf"]


def test_a_gap_of_bdf_d_is_refused(root):
    four_files(root)
    signals = [BdfSignal(x, SFREQ, label=name, physical_dimension="uV") for name, x in zip(CAP, brain(), strict=True)]
    Bdf(signals, annotations=[EdfAnnotation(1.0, None, "film")]).write(root / "a.bdf")
    make_discontinuous(root / "a.bdf", 7.0, 9)
    write_table(root, ["a.bdf", "b.edf", "c.edf"])
    assert "has 1 gaps, the first of 7 s at 9 s" in through_gate(root)[1]["a.bdf"]


def test_edf_d_without_a_gap_is_used(root):
    four_files(root)
    make_discontinuous(write_edf(root / "a.edf", brain(), notes=[(1.0, 0.0, "film")]), 0.0, 5)
    windows, skipped, findings = through_gate(root)
    assert len(windows) == 24 and skipped == {} and len(findings) == 0


# --- stretches without a signal (6)


def starts(windows: Windows, subject: str) -> list[float]:
    return windows.index.loc[windows.index["subject"] == subject, "start_s"].tolist()


@pytest.mark.parametrize(("first", "last", "value"), [(8.0, 16.0, 0.0), (9.0, 9.6, 0.0), (5.0, 12.0, 3.25)],
                         ids=["zeros", "half a second", "a held value"])
def test_windows_in_which_nothing_was_recorded_are_left_out(root, first, last, value):
    data = brain()
    data[:, round(first * SFREQ) : round(last * SFREQ)] = value
    windows, skipped, findings = through_gate(four_files(root, data=data))
    expected = [start for start in np.arange(0, 24, 4.0) if start + 4 <= first or start >= last]
    assert skipped == {} and starts(windows, "1") == expected
    row = findings.iloc[0]
    assert (row["recording"], row["severity"], row["rule"]) == ("a.edf", "drop", "no signal")
    assert row["windows"] == 6 - len(expected) and "no channel changes" in row["fact"]
    assert starts(windows, "2") == np.arange(0, 24, 4.0).tolist()


def test_channels_that_come_off_cost_the_windows_they_are_off_in(root):
    data = brain()
    data[:4, 8 * SFREQ : 16 * SFREQ] = 0.5  # four of ten cannot be repaired
    data[5, 16 * SFREQ : 20 * SFREQ] = 0.5  # one of ten can
    windows, _, findings = through_gate(four_files(root, data=data))
    assert starts(windows, "1") == [0.0, 4.0, 16.0, 20.0]
    assert found(findings, "drop") == [("a.edf", "flat channels")]


def test_saturated_windows(root):
    data = brain()
    data[:5, 4 * SFREQ : 8 * SFREQ] = np.clip(data[:5, 4 * SFREQ : 8 * SFREQ], -3, 3)
    windows, _, findings = through_gate(four_files(root, data=data))
    assert starts(windows, "1") == [0.0, 8.0, 12.0, 16.0, 20.0]
    assert found(findings, "drop") == [("a.edf", "saturated")]


@pytest.mark.parametrize("name", ["BAD_ACQ_SKIP", "BAD_movement", "bad blink", "Bad", "EDGE boundary"])
def test_stretches_that_the_file_calls_bad_are_left_out(root, name):
    raw = raw_of(brain())
    raw.set_annotations(mne.Annotations([9.0], [4.0], [name]))
    raw.save(four_files(root) / "a_raw.fif", verbose="error")
    write_table(root, ["a_raw.fif", "b.edf", "c.edf"])
    windows, _, findings = through_gate(root)
    assert starts(windows, "1") == [0.0, 4.0, 16.0, 20.0]
    assert f"the file marks them ({name})" in findings.iloc[0]["fact"] and findings.iloc[0]["windows"] == 2


def test_marks_count_from_the_first_sample_that_was_saved(root):
    """A FIF that was cropped keeps the time of the amplifier."""
    raw = raw_of(brain(44.0))
    raw.set_meas_date(0)
    raw.set_annotations(mne.Annotations([29.0], [4.0], ["BAD_x"]))
    raw.crop(20.0, 44.0 - 1 / SFREQ).save(four_files(root) / "a_raw.fif", verbose="error")
    write_table(root, ["a_raw.fif", "b.edf", "c.edf"])
    assert starts(through_gate(root)[0], "1") == [0.0, 4.0, 16.0, 20.0]


def test_words_that_only_begin_like_bad_are_no_marks(root):
    four_files(root, notes=[(9.0, 4.0, "badminton"), (2.0, 1.0, "film")])
    assert len(through_gate(root)[0]) == 24


def test_a_pause_of_brainvision_costs_the_window_it_lies_in(root):
    raw = raw_of(brain())
    raw.set_annotations(mne.Annotations([10.0], [0.0], ["Comment/stop"]))
    four_files(root)
    mne.export.export_raw(root / "a.vhdr", raw, verbose="error")
    text, begin = (root / "a.vmrk").read_text("utf-8"), "Mk1=Comment,stop"
    assert begin in text
    segments = [f"Mk{i}=New Segment,,{at},1,0,202101011200{i:02d}000000" for i, at in ((1, 1), (2, 10 * SFREQ + 1))]
    (root / "a.vmrk").write_text("\n".join([text[: text.index(begin)], *segments, ""]), "utf-8")
    write_table(root, ["a.vhdr", "b.edf", "c.edf"])
    windows, skipped, findings = through_gate(root)
    assert skipped == {} and starts(windows, "1") == [0.0, 4.0, 12.0, 16.0, 20.0]
    assert "New Segment/" in findings.iloc[0]["fact"]


# --- rates (7, 33)


def mixed(path: Path, rate: int, other: int) -> None:
    eeg = [EdfSignal(x, rate, label=name, physical_dimension="uV")
           for name, x in zip(CAP, brain(sfreq=rate), strict=True)]
    from edfio import Edf

    Edf([*eeg, EdfSignal(brain(n=1, sfreq=other)[0], other, label="ECG", physical_dimension="uV")]).write(path)


@pytest.mark.parametrize(("rate", "other"), [(64, 512), (10, 10), (8, 128), (99, 99)])
def test_slow_eeg_is_refused_whatever_is_recorded_beside_it(root, rate, other):
    four_files(root)
    mixed(root / "a.edf", rate, other)
    windows, skipped, _ = through_gate(root)
    assert f"sampled at {rate} Hz" in skipped["a.edf"] and "need 100 Hz or more" in skipped["a.edf"]
    assert len(windows) == 18


def test_a_slow_channel_that_is_no_eeg_does_not_matter(root):
    four_files(root)
    mixed(root / "a.edf", 128, 32)
    assert through_gate(root)[1] == {}


def test_a_lower_pass_band_admits_a_lower_rate(root):
    four_files(root)
    mixed(root / "a.edf", 64, 64)
    assert through_gate(root, h_freq=25.0)[1] == {}


# --- cut files (18, 26)


@pytest.mark.parametrize("share", [0.6, 0.5, 0.9])
def test_a_cut_file_is_refused(root, share):
    path = four_files(root) / "a.edf"
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    _, skipped, findings = through_gate(root)
    assert "of the 24 s that its header promises are not in the file" in skipped["a.edf"]
    assert ("a.edf", "cut file") in found(findings, "refuse")


def test_a_header_that_claims_years(root):
    patch(four_files(root) / "a.edf", 236, "99999999", 8)
    assert "100% of the 1e+08 s" in through_gate(root)[1]["a.edf"]


def test_a_header_that_does_not_know_its_length_is_no_fault(root):
    patch(four_files(root) / "a.edf", 236, "-1", 8)
    windows, skipped, _ = through_gate(root)
    assert skipped == {} and len(windows) == 24


# --- short stretches (19)


@pytest.mark.parametrize("stops", [("12,15.9", 4), ("0.1,3.9", 4), ("12,12.5", 4)])
def test_a_short_stretch_costs_only_itself(root, stops):
    four_files(root)
    short = stops[0]
    rows = [f"a.edf,1,1,rest,{short}", "a.edf,1,1,task,16,20", "a.edf,1,1,rest,20,24", "b.edf,2,1,task,0,8"]
    (root / "labels.csv").write_text("\n".join(["file,subject,session,label,start,stop", *rows]))
    windows, skipped, findings = through_gate(root)
    assert skipped == {} and len(windows) == stops[1]
    assert found(findings, "drop") == [("a.edf", "too short")]


def test_a_recording_of_short_stretches_only_is_skipped(root):
    four_files(root)
    rows = ["a.edf,1,1,rest,0,3.9", "a.edf,1,1,task,16,18", "b.edf,2,1,task,0,8", "b.edf,2,1,rest,8,16"]
    (root / "labels.csv").write_text("\n".join(["file,subject,session,label,start,stop", *rows]))
    _, skipped, _ = through_gate(root)
    assert "no window that can be used" in skipped["a.edf"] and "shorter than one window of 4 s" in skipped["a.edf"]


# --- copies


def test_the_same_signal_under_two_people_leaves_both_out(root):
    four_files(root)
    write_edf(root / "b.edf", brain(seed=0))
    _, skipped, findings = through_gate(root)
    assert list(skipped) == ["a.edf", "b.edf"] and "6 of its windows are those of a.edf" in skipped["b.edf"]
    assert "whose signal" in skipped["a.edf"]
    assert set(found(findings, "refuse")) == {("a.edf", "same signal"), ("b.edf", "same signal")}


def test_the_same_signal_twice_of_one_person_leaves_one_out(root):
    four_files(root)
    write_edf(root / "b.edf", brain(seed=0))
    rows = ["a.edf,1,1,rest", "b.edf,1,2,rest", "c.edf,2,1,task", "d.edf,2,2,task"]
    (root / "labels.csv").write_text("\n".join(["file,subject,session,label", *rows]))
    windows, skipped, _ = through_gate(root)
    assert list(skipped) == ["b.edf"] and "keep one of the two" in skipped["b.edf"] and len(windows) == 18


@pytest.mark.parametrize("other", ["b.bdf", "b_raw.fif", "b.vhdr", "louder.edf"])
def test_the_same_recording_in_another_format_or_gain(root, other):
    """Rounded otherwise, or at another gain: by hash they differ."""
    four_files(root)
    path, data = root / other, brain(seed=0)
    if other == "b.bdf":
        pairs = zip(CAP, data, strict=True)
        Bdf([BdfSignal(x, SFREQ, label=name, physical_dimension="uV") for name, x in pairs]).write(path)
    elif other == "b_raw.fif":
        raw_of(data).save(path, verbose="error")
    elif other == "b.vhdr":
        mne.export.export_raw(path, raw_of(data), verbose="error")
    else:
        write_edf(path, 1.7 * data)
    write_table(root, ["a.edf", other, "c.edf", "d.edf"])
    _, skipped, _ = through_gate(root)
    assert set(skipped) == {"a.edf", other} and f"6 of its windows are those of {other}" in skipped["a.edf"]


def test_two_trials_of_one_signal(root):
    data = brain()
    data[:, 12 * SFREQ :] = data[:, : 12 * SFREQ]
    raw_of(data).save(four_files(root) / "a_raw.fif", verbose="error")
    rows = ["a_raw.fif,1,1,rest,0,12", "a_raw.fif,1,1,task,12,24", "b.edf,2,1,task,0,8", "b.edf,2,1,rest,8,16"]
    (root / "labels.csv").write_text("\n".join(["file,subject,session,label,start,stop", *rows]))
    assert "clips 1 and 2 of subject 1 hold the same signal" in through_gate(root)[1]["a_raw.fif"]


@pytest.mark.parametrize(("gain", "severity"), [(1.0, "warn"), (2.0, "warn"), (-1.0, "warn")])
def test_a_copied_channel_is_named(root, gain, severity):
    data = brain()
    data[7] = gain * data[2]
    data -= data.mean(axis=0)  # so that the average reference changes nothing
    data[7] = gain * data[2]
    _, _, findings = through_gate(four_files(root, data=data))
    if gain == 1.0:
        assert found(findings, severity) == [("a.edf", "copied channels")] and "F3 = P4" in findings.iloc[0]["fact"]
    else:  # the average reference parts them again; never is another pair called a copy
        assert not findings["fact"].str.contains("=").any()


@pytest.mark.filterwarnings("ignore:Duplicate values")  # of the local outlier factor
def test_one_signal_in_most_channels_is_refused(root):
    data = brain()
    data[3:] = data[2]
    assert "channels hold the same signal" in through_gate(four_files(root, data=data))[1]["a.edf"]


def test_mains(root):
    data = brain(sfreq=256)
    data += 200 * np.sin(2 * np.pi * 50 * np.arange(data.shape[1]) / 256)
    _, skipped, findings = through_gate(four_files(root, data=data, sfreq=256))
    assert skipped == {} and found(findings, "warn") == [("a.edf", "mains")]


# --- one gate for ask


def ask(root: Path, *files: str, **params) -> tuple[Windows, list[str]]:
    return read_windows([root / name for name in files], PLACES, PreprocessParams(lof_threshold=50, **params),
                        "population")


@pytest.mark.parametrize(("first", "fact"), [
    ({"unit": "mV"}, "unit in the header: 'mV'"), ({"data": brain() * 1e3}, "which no scalp has"),
    ({"data": np.zeros((10, 24 * SFREQ))}, "every channel is flat"),
    ({"data": brain(sfreq=64), "sfreq": 64}, "sampled at 64 Hz"),
])
def test_ask_refuses_what_a_run_refuses(root, first, fact):
    four_files(root, **first)
    with pytest.raises(RecordingError) as caught:
        ask(root, "a.edf")
    assert fact in str(caught.value) and "a.edf" in str(caught.value)


def test_ask_leaves_out_zeros_and_says_so(root):
    data = brain()
    data[:, 8 * SFREQ : 12 * SFREQ] = 0
    four_files(root, data=data)
    windows, notes = ask(root, "a.edf")
    assert windows.index["start_s"].tolist() == [0.0, 4.0, 12.0, 16.0, 20.0]
    assert any("1 of 6 windows are left out" in note for note in notes)


def test_ask_for_one_file_twice(root):
    windows, notes = ask(four_files(root), "a.edf", "a.edf")
    assert len(windows) == 12 and any("windows are those of a.edf" in note for note in notes)
    assert len(ask(root, "a.edf", "b.edf")[0]) == 12


def test_ask_for_a_slow_channel_beside_a_fast_one(root):
    four_files(root)
    mixed(root / "a.edf", 64, 512)
    with pytest.raises(RecordingError, match="sampled at 64 Hz"):
        ask(root, "a.edf")


# --- the first trial, to look at (2)


def with_nan(path: Path) -> None:
    data = brain()
    data[3, 700] = np.nan
    raw_of(data).save(path, verbose="error")


SPOILS = {
    "broken": lambda path: path.write_bytes(b"broken"), "NaN": with_nan,
    "3 s short": lambda path: raw_of(brain(3.0)).save(path, verbose="error"),
    "flat": lambda path: raw_of(np.zeros((10, 3000))).save(path, verbose="error"),
    "bipolar": lambda path: raw_of(brain(n=3), ["Fp1-F7", "F7-T3", "T3-T5"]).save(path, verbose="error"),
    "loud": lambda path: raw_of(brain() * 1e4).save(path, verbose="error"),
    "slow": lambda path: raw_of(brain(sfreq=64), sfreq=64).save(path, verbose="error"),
}


@pytest.mark.parametrize("spoils", [[name] for name in SPOILS] + [list(SPOILS)], ids=lambda names: names[-1][:9])
def test_the_first_usable_trial_is_shown_and_those_before_are_named(root, spoils):
    four_files(root)
    names = [f"{i}_raw.fif" for i in range(len(spoils))]
    for name, spoil in zip(names, spoils, strict=True):
        SPOILS[spoil](root / name)
    write_table(root, [*names, "b.edf", "c.edf"])
    trial, passed_over = first_trial(LabelledFolder(root), PreprocessParams(lof_threshold=50))
    assert trial.clip == len(names) + 1 and list(passed_over) == names


# --- names (13, 33)


@pytest.mark.parametrize("name", ["录" * 37, "Ж" * 60, "a" * 200, "sub 1/é/à b"])
def test_long_and_foreign_names(root, name):
    four_files(root)
    (root / "a.edf").rename((root / f"{name}.edf").parent.mkdir(parents=True, exist_ok=True) or root / f"{name}.edf")
    write_table(root, [f"{name}.edf", "b.edf", "c.edf"])
    windows, skipped, _ = through_gate(root)
    assert skipped == {} and len(windows) == 18


def test_nothing_is_left(root):
    for name in "ab":
        write_edf(root / f"{name}.edf", brain() * 1e3)
    write_table(root, ["a.edf", "b.edf"])
    with pytest.raises(SourceError, match=r"No recording of .* could be used; the first reason: .*which no scalp has"):
        through_gate(root)


@pytest.mark.parametrize(("message", "fact", "remedy"), [
    ("a.edf lacks clips 2: copy it again.", "a.edf lacks clips 2", "copy it again"),
    ("subject 1, clip 1: it is flat; check the unit.", "subject 1, clip 1: it is flat", "check the unit"),
    ("It broke.", "It broke", "leave it out"),
])
def test_a_message_has_a_fact_and_a_remedy(message, fact, remedy):
    flaw = as_flaw("rule", message)
    assert (flaw.severity, flaw.rule, flaw.fact, flaw.remedy) == ("refuse", "rule", fact, remedy)


# --- the watch


@pytest.mark.parametrize(("sfreq", "l_freq"), [(128, 0.5), (128, 8.0), (200, 0.5), (250, 0.5)])
def test_what_the_watch_sees_is_what_a_plain_loop_sees(sfreq, l_freq):
    """Blocks of the filter, whatever their length, are cut into the same windows; the filtered signal is untouched."""
    rng = np.random.default_rng(5)
    data = brain(90.0, sfreq=sfreq).astype(np.float32)
    for start in rng.integers(0, 85 * sfreq, 4):
        data[:, start : start + sfreq] = 0
    data[2, 40 * sfreq : 60 * sfreq] = 1
    watch, params = SignalWatch(data, sfreq, 4.0), PreprocessParams(l_freq=l_freq)
    seen, _ = filter_and_resample(watch, sfreq, params)
    np.testing.assert_array_equal(seen, filter_and_resample(data, sfreq, params)[0])
    length, flat, dead = 4 * sfreq, [], []
    for start in range(0, data.shape[1] - length + 1, length):
        same = data[:, start : start + length - 1] == data[:, start + 1 : start + length]
        flat.append((same.mean(axis=1) >= 0.98).mean())
        longest = run = 0
        for still in same.all(axis=0):
            run = run + 1 if still else 0
            longest = max(longest, run)
        dead.append(longest / sfreq if longest / sfreq >= 0.4 else 0.0)
    assert watch.flat == flat and max(flat) > 0 and max(dead) > 0
    assert [value if value >= 0.4 else 0.0 for value in watch.dead_s] == dead
