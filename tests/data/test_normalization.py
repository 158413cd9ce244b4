"""Subjects are normalized from the rows that the split allows and from no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import inv, sqrtm
from scipy.signal import butter, sosfiltfilt

from e2llm.core.bands import BANDS
from e2llm.data.features import band_power
from e2llm.data.normalization import ALIGNMENTS, UV_TO_MV, Aligner, Equalizer, FeatureStatistics
from e2llm.data.protocols import Split
from e2llm.data.splits import make_split

SFREQ = 256.0
N_CHANNELS, N_BANDS = 3, len(BANDS)
INDUCTIVE = ("calibration", "population")


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    """Three people, 20 clips, two windows each; the label is the clip's place in its block."""
    rows = [(f"p{subject}", clip, "abcde"[clip % 5]) for subject in range(3) for clip in range(1, 21) for _ in range(2)]
    return pd.DataFrame(rows, columns=["subject", "clip", "label"])


@pytest.fixture(scope="module")
def subjects(index) -> np.ndarray:
    return index["subject"].to_numpy(dtype=object)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """White windows of 10 microvolts: (120, 3, 1024)."""
    return np.random.default_rng(0).normal(0, 10, (120, N_CHANNELS, 1024)).astype(np.float32)


def split_of(index: pd.DataFrame, normalization: str) -> Split:
    return make_split(index, "joint", normalization)


def own_gains(subjects: np.ndarray, seed: int = 1) -> np.ndarray:
    """Amplitude factor of every window and channel, its person's own: between a half and two."""
    factors = np.random.default_rng(seed).uniform(0.5, 2.0, (3, N_CHANNELS))
    return factors[[int(name[1:]) for name in subjects]][..., None].astype(np.float32)


def fitted_levels(power: np.ndarray, subjects: np.ndarray, split: Split) -> np.ndarray:
    """Mean log power of every person over the rows that were fitted: (person, channel, band)."""
    log_power = np.log(power[split.fit])
    return np.stack([log_power[subjects[split.fit] == name].mean(axis=0) for name in sorted(set(subjects))])


def spread(levels: np.ndarray) -> np.ndarray:
    """Deviation of every person from the mean person, in shares of power."""
    return np.abs(np.expm1(levels - levels.mean(axis=0)))


def equalized(signal: np.ndarray, subjects: np.ndarray, split: Split) -> tuple[torch.Tensor, Equalizer]:
    equalize = Equalizer.fit(band_power(signal, SFREQ), subjects, split, SFREQ)
    return equalize(signal, subjects), equalize


# --- the equalizer


@pytest.mark.parametrize("normalization", ["calibration", "transductive"])
def test_amplifiers_and_electrodes_are_made_alike(noise, index, subjects, normalization):
    """Own gains of up to twice as much or half as much disappear to a few percent of power in every band."""
    split, signal = split_of(index, normalization), noise * own_gains(subjects)
    assert spread(fitted_levels(band_power(signal, SFREQ), subjects, split)).max() > 0.5
    output, _ = equalized(signal, subjects, split)
    after = fitted_levels(band_power(output.numpy() / UV_TO_MV, SFREQ), subjects, split)
    assert spread(after).max() < 0.05


def test_a_person_keeps_what_changes_from_window_to_window(noise, index, subjects):
    """The filter is one for all windows of a person: a window of double amplitude stays double."""
    split, signal = split_of(index, "calibration"), noise * own_gains(subjects)
    _, equalize = equalized(signal, subjects, split)
    one, double = equalize(signal[:4], subjects[:4]), equalize(2 * signal[:4], subjects[:4])
    torch.testing.assert_close(double, 2 * one)
    torch.testing.assert_close(equalize(signal[2:3], subjects[2:3])[0], one[2])


def test_own_spectra_are_made_alike(noise, index, subjects):
    """One person with four times the alpha power: most of the excess goes, and little spills into other bands.

    Not all: the filter is linear between the centers of the bands, not a step at their edges.
    """
    alpha = sosfiltfilt(butter(4, [8, 14], "bandpass", fs=SFREQ, output="sos"), noise, axis=-1).astype(np.float32)
    signal = noise + alpha * (subjects == "p1")[:, None, None]
    split = split_of(index, "calibration")
    output, _ = equalized(signal, subjects, split)
    before, after = (spread(fitted_levels(band_power(x, SFREQ), subjects, split)).mean(axis=(0, 1))
                     for x in (signal, output.numpy() / UV_TO_MV))
    band = list(BANDS).index("alpha")
    assert before[band] > 0.4 and after[band] < 0.25 * before[band]
    assert after.max() < 0.2


def test_the_twins_people_become_alike(windows):
    """Differences of level between people shrink to less than half in every band, to a third over all."""
    split, subjects = make_split(windows.index), windows.index["subject"].to_numpy(dtype=object)
    power = np.asarray(windows.power)
    output = Equalizer.fit(power, subjects, split, windows.sfreq)(np.array(windows.data), subjects).numpy() / UV_TO_MV
    before, after = (spread(fitted_levels(x, subjects, split)).mean(axis=(0, 1))
                     for x in (power, band_power(output, windows.sfreq)))
    assert (after < 0.5 * before).all() and after.mean() < before.mean() / 3


def test_microvolts_become_millivolts_once(noise, index, subjects):
    """With population statistics the filter is 1, and only the unit changes."""
    split = split_of(index, "population")
    output, equalize = equalized(noise * own_gains(subjects), subjects, split)
    assert (equalize.gain == 1).all() and UV_TO_MV == 1e-3
    expected = torch.from_numpy(noise * own_gains(subjects)) / 1000
    assert output.dtype == torch.float32 and output.shape == expected.shape
    torch.testing.assert_close(output, expected, atol=1e-7, rtol=1e-4)


def test_a_person_without_rows_gets_the_factor_one(noise, index, subjects):
    split = split_of(index, "calibration")
    split = replace(split, fit=split.fit[subjects[split.fit] != "p2"])
    _, equalize = equalized(noise * own_gains(subjects), subjects, split)
    assert (equalize.gain[2] == 1).all() and (equalize.gain[0] != 1).all()


def test_an_unknown_person_is_refused(noise, index, subjects):
    _, equalize = equalized(noise, subjects, split_of(index, "calibration"))
    with pytest.raises(ValueError, match="p9"):
        equalize(noise[:1], ["p9"])


# --- the statistics


def test_z_scores_are_standard_on_the_fitted_rows(index, subjects):
    features = np.random.default_rng(2).gamma(3, 2, (120, 4)) * own_gains(subjects)[:, :1, 0] + 5
    split = split_of(index, "calibration")
    z = FeatureStatistics.fit(features, subjects, split).z(features, subjects)
    for name in ("p0", "p1", "p2"):
        own = z[split.fit][subjects[split.fit] == name]
        np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(own.std(axis=0), 1)


def test_one_baseline_for_everybody_from_the_training_people(index, subjects):
    features = np.random.default_rng(3).normal(2, 3, (120, 4)) + 4 * own_gains(subjects)[:, :1, 0]
    split = split_of(index, "population")
    statistics = FeatureStatistics.fit(features, subjects, split)
    assert (statistics.mean == features[split.train].mean(axis=0)).all()
    z = statistics.z(features, subjects)
    np.testing.assert_allclose(z[split.train].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z[split.train].std(axis=0), 1)


def test_a_person_without_rows_is_measured_against_all(index, subjects):
    features = np.random.default_rng(4).normal(2, 3, (120, 4))
    split = split_of(index, "calibration")
    split = replace(split, fit=split.fit[subjects[split.fit] != "p2"])
    statistics = FeatureStatistics.fit(features, subjects, split)
    np.testing.assert_allclose(statistics.mean[2], features[split.fit].mean(axis=0))
    np.testing.assert_allclose(statistics.sd[2], features[split.fit].std(axis=0))


def test_a_constant_feature_gives_no_infinity(index, subjects):
    features = np.ones((120, 2))
    assert (FeatureStatistics.fit(features, subjects, split_of(index, "calibration")).z(features, subjects) == 0).all()


# --- no statistics from test rows


def with_other_rows(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    changed = values.copy()
    changed[rows] *= 7
    return changed


@pytest.mark.parametrize("part", ["val", "test"])
@pytest.mark.parametrize("normalization", [*INDUCTIVE, "transductive"])
def test_only_transductive_levels_know_held_out_windows(noise, index, subjects, normalization, part):
    """Held-out windows of seven times the amplitude change neither gains nor baselines, except transductively."""
    split = split_of(index, normalization)
    power = band_power(noise * own_gains(subjects), SFREQ)
    changed = with_other_rows(power, getattr(split, part))
    gains = [Equalizer.fit(x, subjects, split, SFREQ).gain for x in (power, changed)]
    baselines = [FeatureStatistics.fit(x.reshape(120, -1), subjects, split) for x in (power, changed)]
    moved = [not np.array_equal(*gains), any(not np.array_equal(getattr(baselines[0], key), getattr(baselines[1], key))
                                             for key in ("mean", "sd"))]
    assert moved == [normalization == "transductive"] * 2


def test_calibration_rows_do_move_the_levels(noise, index, subjects):
    """So that the test above cannot pass because nothing moves them."""
    split = split_of(index, "calibration")
    power = band_power(noise, SFREQ)
    own = split.fit[subjects[split.fit] == subjects[split.test[0]]][:4]
    gains = [Equalizer.fit(x, subjects, split, SFREQ).gain for x in (power, with_other_rows(power, own))]
    assert not np.allclose(*gains)


@pytest.mark.parametrize("normalization", ["calibration", "population", "transductive"])
def test_labels_play_no_part(noise, index, subjects, normalization):
    """Labels exchanged among the rows leave gains and z-scores as they are."""
    power = band_power(noise, SFREQ)
    other = index.assign(label=index["label"].map(dict(zip("abcde", "bcdea", strict=True))))
    splits = [split_of(table, normalization) for table in (index, other)]
    gains = [Equalizer.fit(power, subjects, split, SFREQ).gain for split in splits]
    np.testing.assert_array_equal(*gains)


# --- levels of a session


def test_levels_of_sessions_are_made_alike_by_session_normalization(noise, index, subjects):
    """Electrodes are put on anew for the second session: only session statistics remove the difference."""
    index = index.assign(session=1 + (np.arange(len(index)) // 2 % 2))
    contact = np.where(index["session"] == 2, 2.0, 0.5)[:, None, None]
    gap = {}
    for normalization in ("calibration", "session"):
        split = make_split(index, "joint", normalization)
        norm_groups = split.norm_groups(index)
        power = band_power(noise * contact, SFREQ).reshape(len(index), -1)
        z = FeatureStatistics.fit(np.log(power), norm_groups, split).z(np.log(power), norm_groups)[split.test]
        first = (index["session"].iloc[split.test] == 1).to_numpy()
        gap[normalization] = abs(z[first].mean() - z[~first].mean())
    assert gap["calibration"] > 1.5 and gap["session"] < 0.5


# --- channels aligned


def mixed(noise: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """The channels of each subject mixed by another matrix."""
    mixing = np.eye(N_CHANNELS) + 0.4 * np.random.default_rng(6).normal(size=(3, N_CHANNELS, N_CHANNELS))
    return (mixing[[int(name[1:]) for name in subjects]] @ noise).astype(np.float32)


@pytest.mark.parametrize("alignment", ["z-score", "euclidean"])
def test_alignment_gives_what_its_name_says(noise, index, subjects, alignment):
    """Mean covariance over the fitted rows, by numpy: ones on the diagonal, the identity after Euclidean alignment."""
    split, data = split_of(index, "calibration"), mixed(noise, subjects)
    aligned = Aligner.fit(data, subjects, split, alignment)(data, subjects)
    for name in np.unique(subjects[split.fit]):
        own = split.fit[subjects[split.fit] == name]
        covariance = np.mean([window @ window.T / window.shape[1] for window in aligned[own].astype(float)], axis=0)
        np.testing.assert_allclose(np.diag(covariance), 1.0, atol=1e-4)
        append_augmented = np.abs(covariance - np.diag(np.diag(covariance))).max()
        assert (append_augmented < 1e-4) == (alignment == "euclidean")


def test_euclidean_alignment_is_the_inverse_root_of_scipy(noise, index, subjects):
    split, data = split_of(index, "calibration"), mixed(noise, subjects)
    matrix = Aligner.fit(data, subjects, split, "euclidean").matrix
    own = split.fit[subjects[split.fit] == "p1"]
    mean = np.mean([window @ window.T / 1024 for window in data[own].astype(float)], axis=0)
    np.testing.assert_allclose(matrix[1], inv(sqrtm(mean)).real, rtol=1e-3, atol=1e-5)


def test_no_alignment_leaves_microvolts(noise, index, subjects):
    aligned = Aligner.fit(noise, subjects, split_of(index, "calibration"), "none")(noise, subjects)
    np.testing.assert_array_equal(aligned, noise)


@pytest.mark.parametrize("alignment", ["z-score", "euclidean"])
def test_a_dead_or_repaired_channel_gives_no_infinity(noise, index, subjects, alignment):
    data = noise.copy()
    data[:, 2] = 0.0 if alignment == "z-score" else data[:, :2].mean(axis=1)
    aligned = Aligner.fit(data, subjects, split_of(index, "calibration"), alignment)(data, subjects)
    assert np.isfinite(aligned).all() and np.abs(aligned).max() < 100


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("normalization", INDUCTIVE)
def test_alignment_does_not_know_test_windows(noise, index, subjects, normalization, alignment):
    split = split_of(index, normalization)
    maps = [Aligner.fit(x, subjects, split, alignment).matrix for x in (noise, with_other_rows(noise, split.test))]
    np.testing.assert_array_equal(*maps)
    if normalization == "population":
        assert (maps[0] == maps[0][0]).all()


def test_an_unknown_alignment_is_refused(noise, index, subjects):
    with pytest.raises(ValueError, match=r"Unknown alignment 'riemann' \(known: none, z-score, euclidean\)"):
        Aligner.fit(noise, subjects, split_of(index, "calibration"), "riemann")
