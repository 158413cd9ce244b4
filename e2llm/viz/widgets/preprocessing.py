"""The preprocessing playground: what filter edges, reference and threshold change in one trial."""

from __future__ import annotations

from dataclasses import replace

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from ...core.environment import is_interactive
from ...data.cleaning import clean
from ...data.preprocess_params import PreprocessParams
from ...data.sources.base import Trial
from .. import plots_explore
from .controls import Picture, field, panel, row_of, static

SECONDS = 12.0  # of a trial that are cleaned again at each change
AVERAGE = "average"


def preprocessing_playground(trial: Trial, params: PreprocessParams | None = None) -> ipywidgets.VBox | Figure:
    """Change how a trial is cleaned and see traces, spectrum and channels change; in batch, one figure.

    Parameters
    ----------
    trial : Trial
        In batch all of it is cleaned; live its first :data:`SECONDS` seconds, so that a change is seen at once.
    params : PreprocessParams, optional
        Where the controls start.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure is closed in pyplot.
    """
    params = params or PreprocessParams()
    seconds = SECONDS if is_interactive() else np.inf
    last = int(min(trial.signal.shape[1], seconds * trial.sfreq))
    some = replace(trial, signal=np.asarray(trial.signal[:, :last]))
    at_start = cleaned(some, params)

    def draw(l_freq: float, h_freq: float, reference: str, threshold: float) -> Figure:
        chosen = replace(params, l_freq=l_freq, h_freq=h_freq, lof_threshold=threshold)
        signal, bad = cleaned(some, chosen, reference)
        return plots_explore.cleaning(some.signal, some.sfreq, at_start[0], signal, params.sfreq,
                                      list(trial.ch_names), bad, _in_words(chosen, reference))

    state = (params.l_freq, params.h_freq, AVERAGE, params.lof_threshold)
    if not is_interactive():
        return static(draw(*state))
    slider = {"continuous_update": False, **field("360px", "110px")}
    controls = (
        ipywidgets.FloatSlider(value=params.l_freq, min=0.1, max=10, step=0.1, description="low edge, Hz", **slider),
        ipywidgets.FloatSlider(value=params.h_freq, min=15, max=min(100, trial.sfreq / 2 - params.h_trans), step=1,
                               description="high edge, Hz", **slider),
        ipywidgets.Dropdown(options=[AVERAGE, *trial.ch_names], value=AVERAGE, description="reference",
                            **field("360px", "110px")),
        ipywidgets.FloatSlider(value=params.lof_threshold, min=1.0, max=5.0, step=0.1, description="threshold",
                               **slider))
    picture = Picture(draw)
    picture.follow(*controls)
    return panel(row_of(*controls), picture.status.line, picture.image)


def cleaned(trial: Trial, params: PreprocessParams, reference: str = AVERAGE) -> tuple[np.ndarray, list[str]]:
    """A cleaned trial against a reference of choice.

    Parameters
    ----------
    trial : Trial
        In memory.
    params : PreprocessParams
        As for :func:`e2llm.data.cleaning.clean`.
    reference : str
        :data:`AVERAGE`, or the channel that is subtracted from all. The average cancels out then.

    Returns
    -------
    signal : ndarray, shape (n_channels, n_samples)
        Microvolts.
    bad : list of str
        Channels that were interpolated.
    """
    signal, bad = clean(trial, params)
    if reference != AVERAGE:
        signal = signal - signal[list(trial.ch_names).index(reference)]
    return signal, bad


def _in_words(params: PreprocessParams, reference: str) -> str:
    return (f"{params.l_freq:g} to {params.h_freq:g} Hz, reference: {reference}, local outlier factor above "
            f"{params.lof_threshold:g} is bad")
