"""One place decides whether a statement is true of a window."""

import numpy as np
import pytest

from e2llm.core.claims import LEVEL_THRESHOLD, SALIENT
from e2llm.core.verdicts import Verdict, comparison_verdict, nothing_salient


@pytest.mark.parametrize("first", [0.0, -3.0])
def test_a_comparison_needs_the_stated_sign_and_the_distance_of_two_levels(first):
    far, near = first - LEVEL_THRESHOLD - 1e-9, first - LEVEL_THRESHOLD + 1e-9
    assert comparison_verdict(first, far, "higher") is comparison_verdict(far, first, "lower") is Verdict.TRUE
    assert comparison_verdict(first, near, "higher") is comparison_verdict(far, first, "higher") is Verdict.FALSE
    assert comparison_verdict(first, far, "lower") is comparison_verdict(first, first, "lower") is Verdict.FALSE


def test_nothing_stands_out_where_no_evidence_is_salient_in_either_direction():
    below = np.nextafter(SALIENT, 0)
    z = np.array([[below, -below, 0.0], [SALIENT, 0.0, 0.0], [0.0, 0.0, -SALIENT]])
    assert nothing_salient(z).tolist() == [True, False, False] and nothing_salient(z[0])
