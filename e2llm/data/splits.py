"""The split of a dataset: windows dealt by a named protocol, then audited."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from ..core.arguments import check_number, check_one_of
from .audit import LeakError, audit
from .protocols import NORMALIZATIONS, PROTOCOLS, Split, calibration_rows, n_folds

_MOST_GROUPS = 20  # that are tried for a fold that is refused


class NoFoldError(ValueError):
    """A fold that a protocol does not have on some recordings."""


def make_split(index: pd.DataFrame, protocol: str = "joint", normalization: str = "calibration",
               accept_leaks: bool = False, window_s: float = 4.0, **options: int) -> Split:
    """Split the windows by a named protocol and audit the result.

    Parameters
    ----------
    index : DataFrame
        One row a window with ``subject``, ``clip``, ``label``.
    protocol : str
        Key of :data:`PROTOCOLS`.
    normalization : str
        One of :data:`NORMALIZATIONS`; see :class:`Split`.
    accept_leaks : bool
        Take a protocol that leaks by design all the same; its scores are stamped.
    window_s : float
        Length of a window in seconds: which windows overlap.
    **options
        ``fold`` and ``n_groups`` of the protocol.

    Raises
    ------
    ValueError
        For an unknown name, a fold that the protocol does not have on these recordings, or a normalization that it
        cannot serve.
    LeakError
        If the audit refuses the split.
    """
    check_one_of("protocol", protocol, PROTOCOLS)
    check_one_of("normalization", normalization, NORMALIZATIONS)
    for name, value in options.items():
        check_number(name, value, -(10**6), 10**6, whole=True)
    _check_index(index)
    try:
        return _audited(index, protocol, normalization, accept_leaks, window_s, options)
    except (LeakError, NoFoldError) as error:
        most = min(index["subject"].nunique(), _MOST_GROUPS) if PROTOCOLS[protocol].subject_disjoint else 0
        would_do = [n for n in range(3, most + 1) if _stands(index, protocol, normalization, accept_leaks, window_s,
                                                              options | {"n_groups": n})]
        if not would_do:
            raise
        named = " or ".join(map(str, would_do[:3]))
        raise type(error)(f"{error} This fold would do with n_groups = {named}.") from None


def _audited(index: pd.DataFrame, protocol: str, normalization: str, accept_leaks: bool, window_s: float,
             options: dict[str, int]) -> Split:
    fold, folds = options.get("fold", 0), n_folds(index, protocol, options.get("n_groups"))
    if fold not in range(folds):
        raise NoFoldError(f"Protocol '{protocol}' has the folds 0 to {folds - 1} on these recordings, no fold {fold}: "
                          "choose one of them.")
    masks = PROTOCOLS[protocol].masks(index, **options)
    fit = calibration_rows(index, masks, protocol, normalization)
    rows = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    split = Split(protocol, rows["train"], rows["val"], rows["test"], fit, normalization)
    audit(split, index, accept=accepted_rules(protocol, accept_leaks), window_s=window_s)
    return split


def _stands(*wanted: Any) -> bool:
    """Whether a split can be made and passes the audit."""
    try:
        _audited(*wanted)
    except (LeakError, ValueError):
        return False
    return True


def _check_index(index: pd.DataFrame) -> None:
    """Refuse an index that lacks a column, or a value of one."""
    for name, kind, what in (("subject", str, "text"), ("label", str, "text"), ("clip", Integral, "a whole number")):
        if name not in index:
            raise ValueError(f"The index of windows has no column '{name}' (it has {', '.join(map(str, index))}): add "
                             "it.")
        if wrong := [value for value in index[name].tolist() if not isinstance(value, kind)]:
            raise ValueError(f"The column '{name}' of the index of windows has {wrong[0]!r:.60}, which is not {what}: "
                             "correct it.")
    if not len(index):
        raise ValueError("The index of windows has no rows, so there is no subject, clip or label to split: make "
                         "windows first.")


def accepted_rules(protocol: str, accept_leaks: bool) -> tuple[str, ...]:
    """Rules of the auditor that are overridden.

    Parameters
    ----------
    protocol : str
        Key of :data:`e2llm.data.protocols.PROTOCOLS`.
    accept_leaks : bool
        Accept what the protocol breaks by design.
    """
    return PROTOCOLS[protocol].leaks if accept_leaks else ()
