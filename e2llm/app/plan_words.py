"""Times and sizes of a plan in words."""

from __future__ import annotations

import math

from .plan_devices import GB


def time_in_words(seconds: float) -> str:
    """A time with two figures and the unit that suits it."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length or (unit == "h" and seconds >= length):
            return f"{two(seconds / length)} {unit}"
    return f"{two(seconds)} s"


def two(value: float) -> str:
    """Two figures, never with an exponent."""
    if value >= 100:
        return f"{round(value, 1 - math.floor(math.log10(value))):,.0f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def gb(value: float) -> str:
    """Bytes as megabytes or gigabytes."""
    return f"{two(value / GB)} GB" if value >= 0.05 * GB else f"{two(value / 1e6)} MB"
