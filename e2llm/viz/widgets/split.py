"""The split explorer: who stands where under a protocol, and what classifiers without EEG reach."""

from __future__ import annotations

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure

from ...core.environment import is_interactive
from ...data.protocols import NORMALIZATIONS, PROTOCOLS, n_folds
from ...data.splits import make_split
from ...evaluation.shortcuts import probe
from .. import plots_explore
from .controls import Picture, field, panel, row_of, static


def split_explorer(index: pd.DataFrame, protocol: str = "joint", normalization: str = "calibration",
                   window_s: float = 4.0) -> ipywidgets.VBox | Figure:
    """Choose a protocol: parts of subjects and clips, and the scores of the shortcut probes; in batch, one figure.

    Parameters
    ----------
    index : DataFrame
        A row a window, as ``windows.index``.
    protocol, normalization : str
        Shown first; see :func:`e2llm.data.splits.make_split`.
    window_s : float
        Length of a window in seconds.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure is closed in pyplot.
    """
    known: dict[tuple, tuple] = {}

    def draw(protocol: str, normalization: str, fold: int) -> Figure:
        state = (protocol, normalization, fold)
        if state not in known:
            split = make_split(index, protocol, normalization, True, window_s, fold=fold)
            known[state] = split, probe(index, split)
        return plots_explore.split(index, *known[state], f"fold {fold}: {known[state][0].statement}")

    if not is_interactive():
        return static(draw(protocol, normalization, 0))
    chosen = ipywidgets.Dropdown(options=list(PROTOCOLS), value=protocol, description="protocol", **field())
    statistics = ipywidgets.Dropdown(options=list(NORMALIZATIONS), value=normalization, description="statistics",
                                     **field())
    fold = ipywidgets.BoundedIntText(value=0, min=0, max=_last_fold(index, protocol), description="fold",
                                     **field("180px"))
    picture = Picture(draw)

    def protocol_changed(change: dict) -> None:
        with fold.hold_trait_notifications():
            fold.max = max(0, _last_fold(index, change["new"]))
            fold.value = min(fold.value, fold.max)

    chosen.observe(protocol_changed, "value")  # before the picture follows
    picture.follow(chosen, statistics, fold)
    return panel(row_of(chosen, statistics, fold), picture.status.line, picture.image)


def _last_fold(index: pd.DataFrame, protocol: str) -> int:
    try:
        return n_folds(index, protocol) - 1
    except ValueError:  # these recordings do not serve the protocol: the figure says why
        return 0
