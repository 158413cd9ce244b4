"""Measured features agree with their closed forms and with what scipy and MNE integrate, fit and reject."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from scipy.signal import periodogram, welch
from scipy.stats import linregress, norm, zscore

from e2llm.core.bands import BANDS
from e2llm.core.claims import LEVEL_THRESHOLD, level
from e2llm.core.montage import FRONTAL_PAIRS, REGIONS, SEED_CHANNELS, eegpt_channels, region_of
from e2llm.data.features import band_power, differential_entropy, evidence, group_entropy, measure, scalp_groups

SFREQ = 256
CHANNELS = eegpt_channels(list(SEED_CHANNELS))
WIDTHS = np.array([high - low for low, high in BANDS.values()])
TIME = np.arange(4 * SFREQ) / SFREQ
SLOPE, FREQUENCY, ARTEFACT = range(3)  # columns of the spectral shape
SMALL_CAP = ["F3", "F4", "C3", "P3", "PZ", "O2"]
POSTERIOR = [3, 4, 5]  # of them


def power_with(alpha: dict[str, float], ch_names=CHANNELS) -> np.ndarray:
    """One window of unit power in all channels and bands, except the alpha power of some."""
    power = np.ones((1, len(ch_names), len(BANDS)))
    for name, value in alpha.items():
        power[0, list(ch_names).index(name), list(BANDS).index("alpha")] = value
    return power


def test_bands_adjoin_from_1_to_50_hz():
    edges = list(BANDS.values())
    assert list(BANDS) == ["delta", "theta", "alpha", "beta", "gamma"]
    assert edges == [(1, 4), (4, 8), (8, 14), (14, 31), (31, 50)]


@pytest.mark.parametrize(("frequency", "band"), [(2.5, 0), (6, 1), (10, 2), (11.3, 2), (20, 3), (40, 4)])
def test_a_sine_has_half_its_squared_amplitude_in_its_band(frequency, band):
    signal = 6.0 * np.sin(2 * np.pi * frequency * np.arange(4 * SFREQ) / SFREQ + 0.3)
    power = band_power(signal[None, None], SFREQ)[0, 0]
    assert power[band] == pytest.approx(18.0, rel=0.02)
    assert np.delete(power, band).max() < 0.2


def test_white_noise_has_its_variance_by_bandwidth():
    """Parseval: a band's share of the variance is its share of the 128 Hz; all of it together the sum over 1-50 Hz."""
    noise = np.random.default_rng(0).normal(0, 3.0, (400, 2, 4 * SFREQ))
    power = band_power(noise, SFREQ).mean(axis=(0, 1))
    np.testing.assert_allclose(power, 9.0 * WIDTHS / (SFREQ / 2), rtol=0.03)
    assert power.sum() == pytest.approx(9.0 * 49 / 128, rel=0.01)


def test_against_the_periodogram_of_the_whole_window():
    """An estimator without segments or taper finds the same power of smooth noise, on average."""
    rng = np.random.default_rng(1)
    spectrum = rng.normal(size=(300, 1, 513)) + 1j * rng.normal(size=(300, 1, 513))
    signal = np.fft.irfft(spectrum / (1 + np.arange(513) / 20), n=1024) * 100
    frequencies, density = periodogram(signal, SFREQ, detrend=False)
    expected = [density[..., (frequencies >= low) & (frequencies < high)].sum(-1).mean() * 0.25
                for low, high in BANDS.values()]
    np.testing.assert_allclose(band_power(signal, SFREQ).mean(axis=(0, 1)), expected, rtol=0.05)


def test_power_is_quadratic_and_independent_of_the_chunks():
    signal = np.random.default_rng(2).normal(0, 10, (7, 3, 1024)).astype(np.float32)
    power = band_power(signal, SFREQ)
    assert power.shape == (7, 3, 5) and power.dtype == np.float32
    np.testing.assert_array_equal(band_power(signal, SFREQ, chunk=2), power)
    np.testing.assert_allclose(band_power(10 * signal, SFREQ), 100 * power, rtol=1e-4)
    np.testing.assert_allclose(band_power(signal[[4]], SFREQ)[0], power[4])


def colored(exponent: float, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Noise of some ten microvolts whose power falls with this power of frequency, 1024 samples a window."""
    rng = np.random.default_rng(seed)
    spectrum = rng.normal(size=(*shape, 513)) + 1j * rng.normal(size=(*shape, 513))
    spectrum[..., 1:] *= np.arange(1, 513) ** (-exponent / 2)
    spectrum[..., 0] = 0
    signal = np.fft.irfft(spectrum, n=1024)
    return 10 * signal / signal.std()


def psd_of_mne(signal: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Density of [low, high) Hz in steps of half a hertz."""
    density, frequencies = mne.time_frequency.psd_array_welch(
        signal.astype(float), SFREQ, fmin=low, fmax=high - 0.25, n_fft=512, n_per_seg=512, n_overlap=256, window="hann",
        remove_dc=False, verbose="error")
    assert frequencies[0] == low and frequencies[-1] == high - 0.5
    return density, frequencies


def test_power_is_that_of_mne():
    signal = colored(1.0, (6, 3), 5)
    expected = np.stack([psd_of_mne(signal, *edges)[0].sum(axis=-1) * 0.5 for edges in BANDS.values()], axis=-1)
    np.testing.assert_allclose(band_power(signal, SFREQ), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_pass_measures_band_power_and_shape_whatever_the_chunks(dtype):
    signal = colored(1.2, (7, len(SMALL_CAP)), 6).astype(dtype)
    power, shape = measure(signal, SFREQ, SMALL_CAP)
    np.testing.assert_array_equal(power, band_power(signal, SFREQ))
    assert shape.shape == (7, 3) and power.dtype == shape.dtype == np.float32
    for chunk in (1, 2, 7):
        other = measure(signal, SFREQ, SMALL_CAP, chunk=chunk)
        np.testing.assert_array_equal(other[0], power)
        np.testing.assert_allclose(other[1], shape, rtol=1e-5)


def test_shape_knows_no_volume_but_its_own():
    signal = colored(1.2, (5, len(SMALL_CAP)), 7)
    shape, scaled = (measure(x, SFREQ, SMALL_CAP)[1] for x in (signal, 10 * signal))
    np.testing.assert_allclose(scaled - shape, np.tile([0, 0, np.log(10)], (5, 1)), atol=2e-5)


def test_what_is_silent_is_measured_too():
    assert np.isfinite(measure(np.zeros((2, len(SMALL_CAP), 1024)), SFREQ, SMALL_CAP)[1]).all()


def test_spectral_slope_is_that_of_a_straight_line_through_every_channel():
    signal = colored(1.5, (6, len(SMALL_CAP)), 8)
    frequencies, density = welch(signal, SFREQ, window="hann", nperseg=512, noverlap=256, detrend=False)
    fitted = ((frequencies >= 2) & (frequencies < 8)) | ((frequencies >= 14) & (frequencies <= 40))
    lines = [[linregress(np.log10(frequencies[fitted]), np.log10(channel[fitted])).slope for channel in window]
             for window in density]
    np.testing.assert_allclose(measure(signal, SFREQ, SMALL_CAP)[1][:, SLOPE], np.mean(lines, axis=1), rtol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5, 2.0])
def test_spectral_slope_is_the_exponent_of_the_spectrum(exponent):
    signal = colored(exponent, (100, 3), 9)
    slopes = measure(signal, SFREQ, ["FZ", "CZ", "OZ"])[1][:, SLOPE]
    assert slopes.mean() == pytest.approx(-exponent, abs=0.05)
    with_alpha = signal + 30 * np.sin(2 * np.pi * 10.5 * TIME)  # a peak is no part of the slope
    assert measure(with_alpha, SFREQ, ["FZ", "CZ", "OZ"])[1][:, SLOPE].mean() == pytest.approx(slopes.mean(), abs=0.02)


def test_alpha_frequency_is_the_center_of_posterior_alpha():
    signal = colored(1.0, (8, len(CHANNELS)), 10)
    density, frequencies = psd_of_mne(signal, 8, 14)
    posterior = [row for row, name in enumerate(CHANNELS) if name in (*REGIONS["parietal"], *REGIONS["occipital"])]
    alpha = density[:, posterior].sum(axis=1)
    expected = (alpha * frequencies).sum(axis=1) / alpha.sum(axis=1)
    np.testing.assert_allclose(measure(signal, SFREQ, CHANNELS)[1][:, FREQUENCY], expected, rtol=1e-6)
    assert len(posterior) == 24 and np.ptp(expected) > 0.05


@pytest.mark.parametrize("frequency", [9.0, 10.5, 12.0])
def test_alpha_frequency_of_a_sine(frequency):
    signal = np.tile(10 * np.sin(2 * np.pi * frequency * TIME + 0.4), (1, len(SMALL_CAP), 1))
    assert measure(signal, SFREQ, SMALL_CAP)[1][0, FREQUENCY] == pytest.approx(frequency, abs=1e-3)


@pytest.mark.parametrize(("ch_names", "expected"), [
    (SMALL_CAP, 11.5), (["F3", "F4", "C3", "T5", "PZ", "O2"], 11.5), (["F3", "F4", "C3", "T7", "CZ", "FT8"], 10.25)])
def test_alpha_frequency_is_posterior_and_of_all_channels_without_any(ch_names, expected):
    signal = 10 * np.stack([np.sin(2 * np.pi * (11.5 if row in POSTERIOR else 9.0) * TIME) for row in range(6)])[None]
    assert measure(signal, SFREQ, ch_names)[1][0, FREQUENCY] == pytest.approx(expected, abs=1e-3)


def test_artefact_level_is_what_mne_rejects():
    signal = colored(1.0, (5, len(SMALL_CAP)), 11)
    signal[2, 4, 300:320] += 150.0  # a jump of one electrode
    levels = measure(signal, SFREQ, SMALL_CAP)[1][:, ARTEFACT]
    np.testing.assert_allclose(levels, np.log((signal.max(axis=2) - signal.min(axis=2)).max(axis=1)), rtol=1e-6)
    assert levels.argmax() == 2
    info = mne.create_info(SMALL_CAP, SFREQ, "eeg")
    for window, level_ in zip(signal, levels.astype(float), strict=True):
        kept = [len(mne.EpochsArray(1e-6 * window[None], info, reject={"eeg": 1e-6 * np.exp(level_) * factor},
                                    verbose="error"))
                for factor in (1.0001, 0.9999)]
        assert kept == [1, 0]


def test_entropy_of_a_gaussian():
    for variance in (0.01, 1.0, 30.0):
        assert differential_entropy(np.array(variance)) == pytest.approx(norm(scale=np.sqrt(variance)).entropy())
    assert np.isfinite(differential_entropy(np.zeros(3))).all()


def asymmetry(power: np.ndarray, ch_names: list[str]) -> float:
    values, names = evidence(power, np.full((1, 3), 7.0), ch_names)
    assert names.columns[-4] == "frontal asymmetry"
    return values[0, -4]


def test_asymmetry_is_right_minus_left():
    right, left = (asymmetry(power_with({name: 4.0}), CHANNELS) for name in ("F4", "F3"))
    assert right == pytest.approx(np.log(4.0) / len(FRONTAL_PAIRS)) and left == pytest.approx(-right)
    assert asymmetry(power_with({name: 4.0 for pair in FRONTAL_PAIRS for name in pair}), CHANNELS) == pytest.approx(0.0)
    assert asymmetry(power_with({"P4": 4.0, "O2": 4.0}), CHANNELS) == pytest.approx(0.0)


def test_asymmetry_of_a_small_cap():
    """Old names count, a pair of which one is missing does not, and no pair at all gives zero."""
    names = ["Fp1", "F3", "F4", "F7", "T3", "Cz"]
    assert asymmetry(power_with({"F4": 4.0, "F7": 9.0}, names), names) == pytest.approx(np.log(4.0))
    names = ["F3", "CZ"]
    assert asymmetry(power_with({"F3": 4.0}, names), names) == 0.0


def test_evidence_columns_are_what_they_are_called():
    rng = np.random.default_rng(3)
    power, shape = rng.lognormal(2, 1, (4, len(CHANNELS), 5)), rng.normal(size=(4, 3))
    values, names = evidence(power, shape, CHANNELS)
    assert values.shape == (4, 29) and names.columns[-4:] == ["frontal asymmetry", "spectral slope", "alpha frequency",
                                                              "artefact level"]
    assert len(set(names.columns)) == 29 and len(names.pairs) == 25
    rows = [row for row, name in enumerate(CHANNELS) if region_of(name) == "temporal"]
    expected = differential_entropy(power)[:, rows, list(BANDS).index("beta")].mean(axis=1)
    np.testing.assert_allclose(values[:, names.columns.index("temporal beta")], expected)
    for i, name in enumerate(("spectral slope", "alpha frequency", "artefact level")):
        np.testing.assert_array_equal(values[:, names.columns.index(name)], shape[:, i])
    few, names = evidence(power[:, :2], shape, ["F3", "O1"])
    assert few.shape == (4, 2 * 5 + 4) and names.columns[5] == "occipital delta"


def test_entropy_and_decibels_have_the_same_z_scores():
    power = np.random.default_rng(12).lognormal(2, 1, (50, len(CHANNELS), 5))
    decibels = 10 * np.log10(power)
    np.testing.assert_allclose(zscore(differential_entropy(power)), zscore(decibels), rtol=1e-9, atol=1e-11)
    values, names = evidence(power, np.zeros((50, 3)), CHANNELS)
    for column, (band, region) in enumerate(names.pairs):
        rows = [row for row, name in enumerate(CHANNELS) if name in REGIONS[region]]
        expected = zscore(decibels[:, rows, list(BANDS).index(band)].mean(axis=1))
        np.testing.assert_allclose(zscore(values[:, column]), expected, rtol=1e-9, atol=1e-11)


def test_scalp_groups_part_the_cap():
    groups = scalp_groups(CHANNELS)
    assert sorted(row for rows in groups.values() for row in rows) == list(range(58))
    members = {group: {CHANNELS[row] for row in rows} for group, rows in groups.items()}
    assert members["frontal middle"] == {"FPZ", "FZ"}
    assert members["temporal left"] == {"FT7", "T7", "TP7"} and members["temporal right"] == {"FT8", "T8", "TP8"}
    assert members["occipital right"] == {"PO4", "PO8", "O2"}
    assert "temporal middle" not in groups
    assert scalp_groups(["T3", "T4"]) == {"temporal left": [0], "temporal right": [1]}


def test_group_entropy_is_the_mean_of_the_group():
    power = np.random.default_rng(4).lognormal(2, 1, (3, 4, 5))
    values = group_entropy(power, {"a": [0, 2], "b": [3]})
    entropy = 0.5 * np.log(2 * np.pi * np.e * power)
    np.testing.assert_allclose(values[:, :5], (entropy[:, 0] + entropy[:, 2]) / 2)
    np.testing.assert_allclose(values[:, 5:], entropy[:, 3])


@pytest.mark.parametrize(("z", "word"), [
    (-9, "low"), (-LEVEL_THRESHOLD, "low"), (-LEVEL_THRESHOLD + 1e-9, "typical"), (0, "typical"),
    (LEVEL_THRESHOLD - 1e-9, "typical"), (LEVEL_THRESHOLD, "high"), (9, "high"),
])
def test_levels(z, word):
    assert level(z) == word
