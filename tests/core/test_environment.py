"""Threads that wait give the processor away, unless the user has said how they shall wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from e2llm.core.environment import SPINS, keep_freed_memory, wait_politely


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


@pytest.mark.parametrize("own", [{"MALLOC_ARENA_MAX": "2"}, {"MALLOC_TRIM_THRESHOLD_": "0"}, {"GLIBC_TUNABLES": "x"}])
def test_a_user_s_own_choice_of_memory_stays(own):
    environment = dict(own)
    keep_freed_memory(environment)
    assert environment == own


@pytest.mark.skipif(sys.platform != "linux", reason="not glibc")
def test_freed_blocks_are_kept():
    """A process that makes and frees one large array many times asks the system for its pages once, not each time."""
    made = ("import resource, numpy as np\n"
            "count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
            "np.ones(2**20); first = count()\n"
            "for _ in range(50): np.ones(2**20)\n"
            "print(count() - first)")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    kept = dict(clean)
    keep_freed_memory(kept)
    usual, ours = (int(subprocess.run([sys.executable, "-c", made], env=environment, check=True, text=True,
                                      capture_output=True).stdout) for environment in (clean, kept))
    assert ours < usual / 10
