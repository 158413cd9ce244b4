"""Features beside ours: files of the official formula fit, and every planted defect is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from e2llm.core.montage import SEED_CHANNELS
from e2llm.data.checkup import check_folder
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.supplied_features import compare_features, formula_of, own_entropy

EDGES = ((1, 4), (4, 8), (8, 14), (14, 31), (31, 50))
FS = 200


def official(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PSD and log2(100 PSD) of windows of 4 s by one Hann window each: windows x 5 x channels. Shares no code."""
    n = 4 * FS
    psd = []
    for start in range(0, signal.shape[1] - n + 1, n):
        spectrum = np.abs(np.fft.fft(signal[:, start : start + n] * np.hanning(n))) ** 2 / n
        psd.append([spectrum[:, low * 4 : high * 4].mean(axis=1) for low, high in EDGES])
    return np.array(psd), np.log2(100 * np.array(psd))


def lds(x: np.ndarray, q: float = 0.02) -> np.ndarray:
    """A random walk seen through noise, filtered forth and smoothed back (Rauch-Tung-Striebel), in its own loop."""
    m, p, filtered, ahead = x[0], 1.0, [], []
    for value in x:
        ahead.append(p + q)
        gain = (p + q) / (p + q + 1)
        m, p = m + gain * (value - m), (1 - gain) * (p + q)
        filtered.append((m, p))
    out = [filtered[-1][0]]
    for (m, p), later in zip(filtered[-2::-1], ahead[:0:-1], strict=True):
        out.append(m + p / later * (out[-1] - m))
    return np.array(out[::-1])


def write_features(root: Path) -> None:
    (root / "EEG_features").mkdir()
    for path in (root / "EEG_preprocessed").glob("*.mat"):
        made = {}
        for key, signal in loadmat(path).items():
            if key.isdigit():
                psd, de = official(signal)
                made |= {f"psd_{key}": psd, f"de_{key}": de, f"de_LDS_{key}": lds(de)}
        savemat(root / "EEG_features" / path.name, made)


@pytest.fixture(scope="module")
def twin(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("features") / "SEED-VII"
    simulate(root, TwinParams(subjects=3, sessions=1, clips=4, seconds=(70.0, 80.0)), n_jobs=1)
    write_features(root)
    return root


@pytest.fixture
def copy(twin, tmp_path) -> Path:
    root = tmp_path / "SEED-VII"
    root.mkdir()
    for entry in twin.iterdir():
        if entry.name != "EEG_features":
            (root / entry.name).symlink_to(entry)
    shutil.copytree(twin / "EEG_features", root / "EEG_features")
    return root


def change(root: Path, subject: int, edit) -> None:
    path = root / "EEG_features" / f"{subject}.mat"
    stored = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    savemat(path, {key: edit(key, value, stored) for key, value in stored.items()})


def found_in(root: Path) -> list[tuple[str, str]]:
    checkup = check_folder(root, n_jobs=1)
    findings = checkup.findings
    assert checkup.ok  # a run does not use the features
    assert set(findings["rule"]) <= {"supplied features"}, str(checkup)
    return list(zip(findings["recording"], findings["fact"], strict=True))


def test_good_features_are_described(twin):
    checkup = check_folder(twin, n_jobs=1)
    assert checkup.findings.empty, str(checkup)
    lines = [line for line in checkup.well if line.startswith("EEG_features")]
    assert len(lines) == 4
    assert "de beside the kit's entropy, 3 people" in lines[0] and "log2 of power" in lines[0]
    r = [float(part.split()[-1]) for part in lines[0].partition("r = ")[2].partition(";")[0].split(",")]
    assert len(r) == 5 and min(r) > 0.7
    assert "psd beside" in lines[2] and "not causal" in lines[3]


def test_clips_too_short_to_compare_are_named(tiny_twin, tmp_path):
    root = shutil.copytree(tiny_twin, tmp_path / "SEED-VII")
    write_features(root)
    assert {fact for _, fact in found_in(root)} == {"no clip has more than 4 windows of 4 s, so nothing was compared"}


def moved(order):
    return lambda key, value, _: value[:, :, order]


ORDER = list(range(62))
FAR = [*ORDER]
FAR[0], FAR[58] = 58, 0  # FP1 and O1
DEFECTS = {
    "channels turned": (moved(ORDER[::-1]), "62 of 62 channels are in another order (FP1 holds CB2"),
    "channels as in another cap": (moved(np.random.default_rng(0).permutation(62)), "channels are in another order"),
    "two channels swapped": (moved(FAR), "2 of 62 channels are in another order (FP1 holds O1, O1 holds FP1)"),
    "bands turned": (lambda key, value, _: value[:, ::-1],
                     "the order of bands is gamma, beta, alpha, theta, delta"),
    "two bands swapped": (lambda key, value, _: value[:, [0, 1, 3, 2, 4]],
                          "the order of bands is delta, theta, beta, alpha, gamma"),
    "LDS in place of DE": (lambda key, value, all_: all_[key.replace("de_", "de_LDS_")] if key.startswith("de_")
                           and "LDS" not in key else value, "it is smoothed over time, as de_LDS is"),
    "late by one": (lambda key, value, _: np.concatenate([value[:1], value[:-1]]), "the features are 1 window late"),
    "early by one": (lambda key, value, _: np.concatenate([value[1:], value[-1:]]), "the features are 1 window early"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_named(copy, name):
    edit, fact = DEFECTS[name]
    change(copy, 2, edit)
    found = found_in(copy)
    assert [where for where, _ in found] == ["EEG_features/2.mat"], found
    assert fact in found[0][1]


def test_the_file_of_another_subject(copy):
    shutil.copy(copy / "EEG_features" / "3.mat", copy / "EEG_features" / "1.mat")
    assert [where for where, _ in found_in(copy)] == ["EEG_features/1.mat"]
    assert "do not fit the signal of subject 1" in found_in(copy)[0][1]
    assert "they fit the signal of subject 3" in found_in(copy)[0][1]


def test_windows_that_begin_one_later_and_are_one_less(copy):
    change(copy, 2, lambda key, value, _: value[1:])
    facts = [fact for where, fact in found_in(copy) if where == "EEG_features/2.mat"]
    assert len(facts) == 2 and "clips have another number of windows" in facts[0] and "1 window early" in facts[1]


@pytest.mark.parametrize(("edit", "fact"), [
    (lambda key, value, _: value.transpose(2, 0, 1), "has the shape (62,"),
    (lambda key, value, _: np.where(value == value.max(), np.nan, value), "not finite"),
])
def test_other_shapes_and_values(copy, edit, fact):
    change(copy, 2, edit)
    found = found_in(copy)
    assert len(found) == 1 and found[0][0] == "EEG_features/2.mat" and fact in found[0][1]


def test_files_that_are_missing_or_broken(copy):
    (copy / "EEG_features" / "1.mat").unlink()
    (copy / "EEG_features" / "2.mat").write_bytes(b"x" * 300)
    found = dict(found_in(copy))
    assert set(found) == {"EEG_features/1.mat", "EEG_features/2.mat"} and "unreadable" in found["EEG_features/2.mat"]


@pytest.mark.parametrize(("factor", "said"), [
    (1.0, "as the kit's"), (1 / np.log(2), "0.5 log2"), (2.0, "ln of power"), (2 / np.log(2), "extractor of SEED"),
    (20 / np.log(10), "10 log10"), (5.0, "no formula"), (0.0, "no formula"),
])
def test_formulas(twin, factor, said):
    assert said in formula_of(factor)
    signal = loadmat(twin / "EEG_preprocessed" / "1.mat")["1"]
    fit = compare_features({1: factor / 2 * np.log(official(signal)[0]) + 3}, own_entropy({1: signal}, FS))
    assert abs(fit.factor - factor) <= 0.08 * factor and (not factor or fit.fit > 0.7)


def test_too_few_windows_say_nothing():
    rng = np.random.default_rng(0)
    own = own_entropy({1: rng.normal(size=(62, 3000)) * 10}, FS)
    assert own[1].shape == (3, 5, 62) and compare_features(own, own) is None
    assert compare_features({}, own) is None and len(SEED_CHANNELS) == 62
