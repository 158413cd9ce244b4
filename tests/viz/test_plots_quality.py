"""The figure of the gate shows every recording, and tells used ones from those left out without color alone."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest

from e2llm.viz import plots_quality

pytestmark = pytest.mark.usefixtures("careful_figures")
TABLE = pd.DataFrame({"recording": list("abc"), "used": [True, False, True], "amplitude_uv": [8.0, 9e3, np.nan],
                      "windows": [6, 6, 0], "dropped": [1, 0, 0]})


def test_every_recording_is_shown_once():
    left, right = plots_quality.recordings(TABLE, "three recordings").axes
    shown = {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist(), line.get_marker())
             for line in left.get_lines()}
    assert shown == {"used": ([0], [8.0], "o"), "left out": ([1], [9e3], "X")}
    heights = {bars.get_label(): [bar.get_height() for bar in bars] for bars in right.containers}
    assert heights == {"kept": [6, 0, 0], "left out": [1, 6, 0]}


def test_no_recordings_and_one():
    assert len(plots_quality.recordings(TABLE[:1], "one").axes) == 2
