"""Measured features agree with their closed forms and with what scipy integrates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import periodogram
from scipy.stats import norm

from e2llm.effects import BANDS
from e2llm.features import (
    LEVEL_THRESHOLD,
    band_power,
    differential_entropy,
    evidence,
    group_entropy,
    level,
    scalp_groups,
)
from e2llm.montage import FRONTAL_PAIRS, SEED_CHANNELS, eegpt_channels, region_of

SFREQ = 256
CHANNELS = eegpt_channels(list(SEED_CHANNELS))
WIDTHS = np.array([high - low for low, high in BANDS.values()])


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
    expected = [density[..., (frequencies >= low) & (frequencies < high)].sum(-1).mean() * 0.25 for low, high in BANDS.values()]
    np.testing.assert_allclose(band_power(signal, SFREQ).mean(axis=(0, 1)), expected, rtol=0.05)


def test_power_is_quadratic_and_independent_of_the_chunks():
    signal = np.random.default_rng(2).normal(0, 10, (7, 3, 1024)).astype(np.float32)
    power = band_power(signal, SFREQ)
    assert power.shape == (7, 3, 5) and power.dtype == np.float32
    np.testing.assert_array_equal(band_power(signal, SFREQ, chunk=2), power)
    np.testing.assert_allclose(band_power(10 * signal, SFREQ), 100 * power, rtol=1e-4)
    np.testing.assert_allclose(band_power(signal[[4]], SFREQ)[0], power[4])


def test_entropy_of_a_gaussian():
    for variance in (0.01, 1.0, 30.0):
        assert differential_entropy(np.array(variance)) == pytest.approx(norm(scale=np.sqrt(variance)).entropy())
    assert np.isfinite(differential_entropy(np.zeros(3))).all()


def test_asymmetry_is_right_minus_left():
    right, left = (evidence(power_with({name: 4.0}), CHANNELS)[0][0, -1] for name in ("F4", "F3"))
    assert right == pytest.approx(np.log(4.0) / len(FRONTAL_PAIRS)) and left == pytest.approx(-right)
    both = power_with({name: 4.0 for pair in FRONTAL_PAIRS for name in pair})
    assert evidence(both, CHANNELS)[0][0, -1] == pytest.approx(0.0)
    assert evidence(power_with({"P4": 4.0, "O2": 4.0}), CHANNELS)[0][0, -1] == pytest.approx(0.0)


def test_asymmetry_of_a_small_cap():
    """Old names count, a pair of which one is missing does not, and no pair at all gives zero."""
    names = ["Fp1", "F3", "F4", "F7", "T3", "Cz"]
    assert evidence(power_with({"F4": 4.0, "F7": 9.0}, names), names)[0][0, -1] == pytest.approx(np.log(4.0))
    names = ["F3", "CZ"]
    assert evidence(power_with({"F3": 4.0}, names), names)[0][0, -1] == 0.0


def test_evidence_columns_are_what_they_are_called():
    power = np.random.default_rng(3).lognormal(2, 1, (4, len(CHANNELS), 5))
    values, names = evidence(power, CHANNELS)
    assert values.shape == (4, 26) and names.columns[-1] == "frontal asymmetry"
    assert len(set(names.columns)) == 26 and len(names.pairs) == 25
    rows = [row for row, name in enumerate(CHANNELS) if region_of(name) == "temporal"]
    expected = differential_entropy(power)[:, rows, list(BANDS).index("beta")].mean(axis=1)
    np.testing.assert_allclose(values[:, names.columns.index("temporal beta")], expected)


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
