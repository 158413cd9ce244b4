"""The token explorer: EEG tokens of a segment and their nearest words, before and after alignment."""

from __future__ import annotations

import ipywidgets
from matplotlib.figure import Figure

from ...core.claims import SCALES
from ...core.environment import is_interactive
from ...data.preprocessing import Windows
from ...models.inference import InferenceEngine, nearest_words
from ...models.projector import tokens_per_slot
from .. import plots_explore
from .controls import Picture, WindowPicker, panel, static, window_name

N_WORDS = 5


def token_explorer(engine: InferenceEngine, windows: Windows, start: int = 0,
                   seed: int = 0) -> ipywidgets.VBox | Figure:
    """Which words lie nearest to the EEG tokens of a segment; in batch, the figure of one segment.

    Parameters
    ----------
    engine : InferenceEngine
        With an aligned model.
    windows : Windows
        Of the engine's dataset.
    start : int
        Row of the first segment, one that has tokens.
    seed : int
        Of the projector as it was before alignment.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure is closed in pyplot.

    Raises
    ------
    ValueError
        For a segment without tokens.
    """
    untrained = engine.model.with_random_projector(seed)

    def draw(row: int) -> Figure:
        if row not in engine.position:
            raise ValueError(f"Window {row} has no tokens, for the split leaves it aside: choose another clip.")
        features = engine.features[engine.position[row]]
        before, after = (nearest_words(model, engine.processor, features, N_WORDS)
                         for model in (untrained, engine.model))
        words_per_slot = tokens_per_slot(SCALES[engine.model.config.levels])
        return plots_explore.nearest_words(before, after, engine.processor.eeg_tokens, words_per_slot,
                                           window_name(windows, row))

    if not is_interactive():
        return static(draw(start))
    picture = Picture(draw)
    picker = WindowPicker(windows, start, picture.show)
    picture.show(start)
    return panel(picker.box, picture.status.line, picture.image)
