"""Threads that wait give the processor away, unless the user has said how they shall wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from e2llm.core.environment import SPINS, wait_politely


@pytest.mark.parametrize(("own", "wanted"), [
    ({}, {"GOMP_SPINCOUNT": str(SPINS)}),
    ({"OMP_WAIT_POLICY": "passive"}, {"OMP_WAIT_POLICY": "passive"}),
    ({"GOMP_SPINCOUNT": "infinity"}, {"GOMP_SPINCOUNT": "infinity"}),
])
def test_a_user_s_own_choice_stays(own, wanted):
    environment = dict(own)
    wait_politely(environment)
    assert environment == wanted


@pytest.mark.skipif(sys.platform != "linux", reason="another OpenMP")
def test_it_is_set_before_torch_reads_it():
    """OMP_DISPLAY_ENV has OpenMP print what it took over when it was loaded."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", "import e2llm, torch"], text=True, check=True, capture_output=True,
                          env={**clean, "OMP_DISPLAY_ENV": "verbose"})
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in done.stderr
