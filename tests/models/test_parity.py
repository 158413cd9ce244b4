"""Opt-in: the same outputs as braindecode's EEGPT, where it is installed (see benchmarks/parity_eegpt.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "parity_eegpt.py"


@pytest.fixture(scope="module")
def parity():
    try:
        import braindecode.models  # noqa: F401
    except Exception as error:
        pytest.skip(f"braindecode cannot be imported here ({type(error).__name__}); {SCRIPT.name} says how to make an "
                    f"environment for it")
    spec = importlib.util.spec_from_file_location("parity_eegpt", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("size", ["tiny1", "tiny2", "little"])
def test_the_same_weights_give_the_same_tokens(parity, size):
    for ch_names in parity.CAPS.values():
        found = parity.difference(size, ch_names)
        assert found["difference"] <= parity.TOLERANCE < found["spread"]
