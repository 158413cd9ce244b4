"""Two exchanged channels: found where they lie far apart, never in good recordings, and neighbours never."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import brain, write_edf, write_table
from scipy.io import loadmat, savemat

from e2llm.core.montage import SEED_CHANNELS, make_info
from e2llm.data.checkup import check_folder
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.swapped_channels import FEWEST, correlations_of, exchange_scores, exchanged_channels

SITES = ("FP1", "FP2", "F7", "F3", "FZ", "F4", "F8", "T7", "C3", "CZ", "C4", "T8", "P7", "P3", "PZ", "P4", "P8", "O1",
         "O2")


def head(seed: int, noise: float = 0.25, sites=SITES) -> np.ndarray:
    """Correlations that fall with distance, and something of each person's own."""
    xyz = np.array([channel["loc"][:3] for channel in make_info(list(sites), 1.0)["chs"]])
    distance = np.linalg.norm(xyz[:, None] - xyz, axis=-1)
    own = np.random.default_rng(seed).normal(size=(len(sites), 400))
    matrix = 1.6 * np.exp(-((distance / 0.12) ** 2)) - 0.6 + noise * np.corrcoef(own + own.mean(axis=0))
    np.fill_diagonal(matrix, 1.0)
    return matrix


def exchanged(matrix: np.ndarray, one: str, other: str, sites=SITES) -> np.ndarray:
    order = list(range(len(sites)))
    i, j = sites.index(one), sites.index(other)
    order[i], order[j] = j, i
    return matrix[np.ix_(order, order)]


def people(matrices) -> dict[str, tuple[str, np.ndarray]]:
    return {f"{i}.edf": (str(i), matrix[np.triu_indices(len(matrix), 1)]) for i, matrix in enumerate(matrices)}


def test_scores_are_minus_one_for_the_template_and_one_for_its_exchange():
    template = head(0)
    scores = exchange_scores(template, template)
    np.testing.assert_allclose(scores[scores > -1 + 1e-9], [])  # every pair is as it should be
    turned = exchange_scores(exchanged(template, "FP1", "O1"), template)
    i, j = SITES.index("FP1"), SITES.index("O1")
    assert turned[i, j] == pytest.approx(1) and turned[i, j] == turned.max()
    assert (np.tril(turned) <= -1 + 1e-9)[np.tril_indices(len(SITES))].all()


def test_correlations_are_those_of_numpy():
    windows = np.random.default_rng(0).normal(size=(17, 5, 64)).astype(np.float32)
    total, n = correlations_of(windows)
    expected = sum(np.corrcoef(window) for window in windows[::8])
    assert n == 3
    np.testing.assert_allclose(total, expected[np.triu_indices(5, 1)], atol=1e-5)
    flat, _ = correlations_of(np.zeros((1, 3, 64), dtype=np.float32))
    np.testing.assert_array_equal(flat, 0)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_people_as_they_should_be(n):
    assert exchanged_channels(people(head(seed) for seed in range(n)), SITES) == {}


@pytest.mark.parametrize("n", [1, 2, 6])
@pytest.mark.parametrize("pair", [("FP1", "O1"), ("F3", "P4"), ("F7", "P8")])
def test_far_pairs_of_one_person(n, pair):
    matrices = [head(seed) for seed in range(n)]
    matrices[-1] = exchanged(matrices[-1], *pair)
    found = exchanged_channels(people(matrices), SITES)
    assert list(found) == [f"{n - 1}.edf"] and found[f"{n - 1}.edf"].startswith(f"{pair[0]} and {pair[1]} look")


def test_an_exchange_in_all_recordings():
    found = exchanged_channels(people(exchanged(head(seed), "FP1", "O1") for seed in range(6)), SITES)
    assert list(found) == ["0.edf"] and "FP1 and O1 look exchanged in all recordings" in found["0.edf"]


def test_nothing_is_said_of_signals_without_a_place_and_of_small_caps():
    rng = np.random.default_rng(0)
    noise = [np.corrcoef(rng.normal(size=(19, 25))) for _ in range(40)]
    assert exchanged_channels(people(noise), SITES) == {}
    for matrix in noise:
        assert exchanged_channels(people([matrix]), SITES) == {}
    few = SITES[: FEWEST - 1]
    assert exchanged_channels(people([exchanged(head(0, sites=few), "FP1", "P3", few)]), few) == {}
    assert exchanged_channels({}, SITES) == {}


def exchange_in_file(path: Path, one: str, other: str) -> None:
    i, j = SEED_CHANNELS.index(one), SEED_CHANNELS.index(other)
    clips = {key: value for key, value in loadmat(path).items() if key.isdigit()}
    for x in clips.values():
        x[[i, j]] = x[[j, i]]
    savemat(path, clips)


def test_check_finds_a_far_pair_in_a_file_and_no_neighbours(tmp_path):
    root = tmp_path / "SEED-VII"
    simulate(root, TwinParams(subjects=5, sessions=1, clips=2, seconds=(40.0, 44.0)), n_jobs=1)
    assert check_folder(root, n_jobs=1).findings.empty
    for subject, pair in ((1, ("FP1", "FP2")), (2, ("O1", "O2")), (4, ("F3", "FZ"))):  # the limit that the docs state
        exchange_in_file(root / "EEG_preprocessed" / f"{subject}.mat", *pair)
    assert check_folder(root, n_jobs=1).findings.empty
    exchange_in_file(root / "EEG_preprocessed" / "3.mat", "FP1", "O1")
    checkup = check_folder(root, n_jobs=1)
    assert checkup.findings[["recording", "severity", "rule"]].to_numpy().tolist() == [
        ["3.mat", "warn", "exchanged channels"]], str(checkup)
    assert checkup.ok and "FP1 and O1 look exchanged" in checkup.findings["fact"][0]


def test_channels_without_structure_are_no_finding(tmp_path):
    for seed in range(5):
        write_edf(tmp_path / f"{seed}.edf", brain(seed=seed, n=19), SITES)
    write_table(tmp_path, [f"{seed}.edf" for seed in range(5)])
    assert check_folder(tmp_path, n_jobs=1).findings.empty
