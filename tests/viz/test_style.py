"""Emotions can be told apart on a printed page without color, and by color-blind readers."""

from itertools import combinations

import numpy as np
import pytest

from e2llm.viz.style import EMOTION_COLORS

# Linear RGB as it is seen without one kind of cones (Machado, Oliveira and Fernandes 2009, severity 1).
SEEN = {
    "all": np.eye(3),
    "no green cones": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                                [-0.011820, 0.042940, 0.968881]]),
    "no red cones": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                              [-0.003882, -0.048116, 1.051998]]),
    "no blue cones": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                               [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB, D65
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(color: tuple) -> np.ndarray:
    color = np.array(color)
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB: lightness, then red against green and yellow against blue."""
    x, y, z = (np.cbrt(value) if value > 0.008856 else 7.787 * value + 16 / 116 for value in XYZ @ light / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_known_colors_have_their_lightness():
    assert lab(linear((1.0, 1.0, 1.0)))[0] == pytest.approx(100, abs=0.1)
    assert lab(linear((0.0, 0.0, 0.0)))[0] == pytest.approx(0, abs=0.1)
    assert lab(linear((1.0, 0.0, 0.0))) == pytest.approx([53.2, 80.1, 67.2], abs=0.2)


def test_emotions_differ_in_grey():
    lightness = sorted(lab(linear(color))[0] for color in EMOTION_COLORS.values())
    assert np.diff(lightness).min() > 6
    assert lightness[0] > 20 and lightness[-1] < 75, "none is black, and all are seen on white"


@pytest.mark.parametrize("eye", SEEN)
def test_emotions_differ_for_every_eye(eye):
    seen = [lab(np.clip(SEEN[eye] @ linear(color), 0, 1)) for color in EMOTION_COLORS.values()]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > 20
