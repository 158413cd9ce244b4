"""The linear baseline finds what is there, nothing where nothing is, and looks at no test label."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from e2llm import baselines
from e2llm.baselines import STRENGTHS, linear_baseline
from e2llm.splits import Split

N_CLASSES, N_CHANNELS, N_BANDS = 3, 4, 5


def make_split(n: int, normalisation: str = "calibration", seed: int = 0) -> Split:
    order = np.random.default_rng(seed).permutation(n)
    cuts = n // 2, 3 * n // 4
    train, val, test = (np.sort(part) for part in np.split(order, cuts))
    return Split("clips", train, val, test, train, normalisation)


def make_power(effect: float, n: int = 360, owner_spread: float = 0.0, seed: int = 1):
    """Band power in which class ``c`` raises band ``c`` of channel 1 by ``effect``, in units of its spread."""
    rng = np.random.default_rng(seed)
    labels, who = rng.integers(N_CLASSES, size=n), rng.integers(3, size=n)
    log_power = rng.normal(size=(n, N_CHANNELS, N_BANDS)) + owner_spread * rng.normal(size=(3, N_CHANNELS, N_BANDS))[who]
    log_power[np.arange(n), 1, labels] += effect
    return np.exp(log_power), labels, np.array(["1", "2", "3"], dtype=object)[who]


def scored(power, labels, owners, split, calibrated=False) -> float:
    return balanced_accuracy_score(labels[split.test], linear_baseline(power, labels, owners, split, calibrated))


def test_a_planted_effect_is_found():
    power, labels, owners = make_power(effect=3.0)
    assert scored(power, labels, owners, make_split(len(labels))) > 0.85


def test_noise_is_answered_at_chance():
    scores = []
    for seed in range(8):
        power, labels, owners = make_power(effect=0.0, seed=seed)
        scores.append(scored(power, labels, owners, make_split(len(labels), seed=seed)))
    assert abs(np.mean(scores) - 1 / N_CLASSES) < 0.05  # 8 x 90 answers: standard error 0.018


def test_calibration_removes_what_is_the_persons_own():
    power, labels, owners = make_power(effect=2.0, owner_spread=6.0)
    split = make_split(len(labels))
    unseen = owners[split.test] == "3"
    split = Split("clips", split.train[owners[split.train] != "3"], split.val[owners[split.val] != "3"], split.test[unseen],
                  np.sort(np.concatenate([split.train, split.val])), "calibration")
    assert scored(power, labels, owners, split, calibrated=True) > 0.7
    assert scored(power, labels, owners, split, calibrated=False) < 0.5


def test_test_labels_are_never_read():
    power, labels, owners = make_power(effect=0.7)
    split = make_split(len(labels))
    permuted = labels.copy()
    permuted[split.test] = np.random.default_rng(5).permutation(labels[split.test])
    for calibrated in (False, True):
        expected = linear_baseline(power, labels, owners, split, calibrated)
        assert np.array_equal(linear_baseline(power, permuted, owners, split, calibrated), expected)


def by_hand(power, labels, split) -> dict[float, tuple[float, np.ndarray]]:
    """Validation score and test answers of every strength."""
    features = 0.5 * np.log(2 * np.pi * np.e * power).reshape(len(power), -1)
    scale = StandardScaler().fit(features[split.train])
    out = {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(scale.transform(features[split.train]), labels[split.train])
        val, test = (model.predict(scale.transform(features[rows])) for rows in (split.val, split.test))
        out[strength] = balanced_accuracy_score(labels[split.val], val), test
    return out


@pytest.mark.parametrize("seed", range(4))
def test_the_strength_is_the_best_on_validation(seed):
    power, labels, owners = make_power(effect=0.6, n=200, seed=seed)
    split = make_split(len(labels), seed=seed)
    table = by_hand(power, labels, split)
    best = max(score for score, _ in table.values())
    strongest = min(strength for strength, (score, _) in table.items() if score == best)
    answers = linear_baseline(power, labels, owners, split, False)
    assert np.array_equal(answers, table[strongest][1])
    assert any(not np.array_equal(answers, test) for _, test in table.values())  # the choice matters


def test_dead_channels_do_no_harm():
    power, labels, owners = make_power(effect=3.0)
    power[:, 3] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert scored(power, labels, owners, make_split(len(labels)), calibrated=True) > 0.85


def test_the_oracle_reads_the_windows_it_is_asked_about(tmp_path, monkeypatch):
    latents = np.arange(6)[:, None] * np.ones((6, 2))
    np.savez(tmp_path / "truth.npz", subject=np.array([1, 1, 1, 2, 2, 2]), clip=np.array([1, 1, 2, 1, 1, 2]),
             window=np.array([0, 1, 0, 0, 1, 0]), latents=latents, person_effects=np.array([[10.0], [20.0]]))
    (tmp_path / "twin.yaml").write_text("effects: {intensity: [0.1, 0.9]}\n")
    asked = {}

    def remember(latents, person, preset):
        asked.update(latents=latents[:, 0].tolist(), person=person[:, 0].tolist(), intensity=preset.intensity)
        return np.eye(7)[latents[:, 0].astype(int)]

    monkeypatch.setattr(baselines, "oracle_probabilities", remember)
    given = baselines.oracle(tmp_path, np.array([2, 1, 2]), np.array([1, 2, 2]), np.array([1, 0, 0]))
    assert asked == {"latents": [4.0, 2.0, 5.0], "person": [20.0, 10.0, 20.0], "intensity": (0.1, 0.9)}
    assert given.tolist() == [4, 2, 5]
    with pytest.raises(KeyError):
        baselines.oracle(tmp_path, np.array([2]), np.array([9]), np.array([0]))
