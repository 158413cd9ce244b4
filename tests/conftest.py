"""What tests share: twins, one with four folds' worth of clips, one as small as the layout allows; and the rules for figures."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.sources.seed_vii import SeedVII


@pytest.fixture(scope="session")
def twin_params() -> TwinParams:
    """Three people, three of the four folds, all seven emotions in each: enough for every protocol."""
    return TwinParams(subjects=3, sessions=2, clips=15, seconds=(8.2, 9.0))


@pytest.fixture(scope="session")
def twin(tmp_path_factory, twin_params) -> Path:
    """Folder of a twin; read only."""
    return simulate(tmp_path_factory.mktemp("data") / "twin", twin_params, n_jobs=1)


@pytest.fixture(scope="session")
def windows(tmp_path_factory, twin) -> Windows:
    """Windows of the twin, preprocessed with the default parameters; read only."""
    folder = tmp_path_factory.mktemp("run") / "windows"
    assert write_windows(SeedVII(twin), folder, n_jobs=1) == {}
    return Windows.open(folder)


@pytest.fixture(scope="session")
def tiny_twin(tmp_path_factory) -> Path:
    """Folder of a twin of three people and two clips; read only."""
    return simulate(tmp_path_factory.mktemp("data") / "tiny", TwinParams(3, 1, 2, (8.2, 9.0)), n_jobs=1)


@pytest.fixture
def own_twin(tiny_twin, tmp_path) -> Path:
    """A copy of the tiny twin, without its ground truth, that a test may damage."""
    return Path(shutil.copytree(tiny_twin, tmp_path / "SEED-VII"))


@pytest.fixture
def careful_figures():
    """A test draws one figure at most, without a warning, and it can be closed."""
    import matplotlib.pyplot as plt  # here, after the test's module has chosen its backend

    assert not plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert len(plt.get_fignums()) <= 1
    plt.close("all")
