"""What tests share: one thread a worker; twins, windows and one finished run, made once for all workers; figures."""

from __future__ import annotations

import os

# Before anything imports numpy or torch: as many workers as cores, so one thread each, and none that waits by spinning.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", MPLBACKEND="Agg")

import random
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from filelock import FileLock

from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.sources.seed_vii import SeedVII

hypothesis.settings.register_profile("shared cores", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("shared cores")
LONGEST_FIRST = ("test_notebooks.py", "test_docs.py", "test_hub.py")  # begun last, one worker would wait for the other


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first."""
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Global generators begin alike before the fixtures of every test, whatever ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``made_once(name, make)``: a folder that the first worker to ask for it fills by ``make(folder)``; read only."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        path, whole = base / name, base / f"{name}.whole"
        with FileLock(base / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(path, ignore_errors=True)  # of a worker that failed
                path.mkdir()
                make(path)
                whole.touch()
        return path

    return folder


@pytest.fixture(scope="session")
def twin_params() -> TwinParams:
    """Three people, three of the four folds, all seven emotions in each: enough for every protocol."""
    return TwinParams(subjects=3, sessions=2, clips=15, seconds=(8.2, 9.0))


@pytest.fixture(scope="session")
def twin(made_once, twin_params) -> Path:
    """Folder of a twin; read only."""
    return made_once("twin", lambda folder: simulate(folder / "twin", twin_params, n_jobs=1)) / "twin"


@pytest.fixture(scope="session")
def windows(made_once, twin) -> Windows:
    """Windows of the twin, preprocessed with the default parameters; read only."""

    def make(folder: Path) -> None:
        assert write_windows(SeedVII(twin), folder / "windows", n_jobs=1) == {}

    return Windows.open(made_once("windows", make) / "windows")


@pytest.fixture(scope="session")
def micro_run(made_once, twin):
    """A finished run of a few steps on the twin: three people, tested on clips that none was trained on; read only."""
    from micro import make_micro_run, open_run  # here: most tests need no torch

    return open_run(made_once("micro", lambda folder: make_micro_run(folder, twin)), "micro")


@pytest.fixture(scope="session")
def tiny_twin(made_once) -> Path:
    """Folder of a twin of three people and two clips; read only."""
    made = made_once("tiny", lambda folder: simulate(folder / "tiny", TwinParams(3, 1, 2, (8.2, 9.0)), n_jobs=1))
    return made / "tiny"


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
        warnings.simplefilter("ignore", ResourceWarning)  # of a file that an earlier test has left open
        yield
    assert len(plt.get_fignums()) <= 1
    plt.close("all")
