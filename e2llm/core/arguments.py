"""Numbers and names that somebody gives: within their bounds, or refused in one sentence that names the argument."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral, Real
from typing import cast


def check_number(name: str, value: object, low: float, high: float, whole: bool = False) -> None:
    """Refuse what is no number from ``low`` to ``high``: text, a truth value, NaN, infinity or one out of bounds.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : object
        What was given.
    low, high : float
        Bounds, both allowed.
    whole : bool
        Whether it must be a whole number.

    Raises
    ------
    ValueError
        Naming the argument, the value and the bounds.
    """
    is_one = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_one or not low <= cast(float, value) <= high:
        raise ValueError(f"{name} = {value!r:.60}: it must be a {'whole ' * whole}number from {low:g} to {high:g}.")


def check_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Refuse what is none of some names.

    Parameters
    ----------
    name : str
        What they are names of, for the message.
    value : object
        What was given.
    known : collection of str
        The names.

    Raises
    ------
    ValueError
        Naming the value and the known ones.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"Unknown {name} {value!r:.60} (known: {', '.join(filter(None, known))}).")
