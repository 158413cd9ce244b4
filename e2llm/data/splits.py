"""The split of a dataset: windows dealt by a named protocol, then audited."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .audit import audit
from .protocols import NORMALIZATIONS, PROTOCOLS, Split, calibration_rows, n_folds


def make_split(index: pd.DataFrame, protocol: str = "joint", normalization: str = "calibration",
               accept_leaks: bool = False, **options: int) -> Split:
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
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol '{protocol}' (known: {', '.join(PROTOCOLS)}).")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"Unknown normalization '{normalization}' (known: {', '.join(NORMALIZATIONS)}).")
    fold, folds = options.get("fold", 0), n_folds(index, protocol, options.get("n_groups"))
    if fold not in range(folds):
        raise ValueError(f"Protocol '{protocol}' has the folds 0 to {folds - 1} on these recordings, no fold {fold}: "
                         "choose one of them.")
    masks = PROTOCOLS[protocol].masks(index, **options)
    fit = calibration_rows(index, masks, protocol, normalization)
    rows = {name: np.flatnonzero(mask) for name, mask in masks.items()}
    split = Split(protocol, rows["train"], rows["val"], rows["test"], fit, normalization)
    audit(split, index, accept=accepted_rules(protocol, accept_leaks))
    return split


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
