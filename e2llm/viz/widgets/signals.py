"""The signal browser: one window, before and after cleaning, with its maps, spectrum and evidence."""

from __future__ import annotations

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from ...core.environment import is_interactive
from ...data.features import evidence
from ...data.preprocessing import Windows
from ...data.sources.base import Source, Trial
from .. import plots_explore
from .controls import Picture, WindowPicker, check_row, panel, row_of, static, window_name

SHOWN = {"after cleaning": False, "before and after": True}


def signal_browser(windows: Windows, start: int = 0, source: Source | None = None) -> ipywidgets.VBox | Figure:
    """Browse windows by subject, session, clip and time; in batch, the figure of one window.

    Parameters
    ----------
    windows : Windows
        Windows to browse.
    start : int
        Row of the first window shown.
    source : Source, optional
        Where the windows came from: the signal before cleaning can then be laid under the cleaned one.

    Returns
    -------
    ipywidgets.VBox or Figure
        The figure is closed in pyplot, so a notebook shows it once, as the value of its cell.

    Raises
    ------
    IndexError
        If there is no row ``start``.
    """
    check_row(windows, start)
    view = _WindowView(windows, source)
    if not is_interactive():
        return static(view.figure(start))
    picture = Picture(view.figure)
    shown = ipywidgets.ToggleButtons(options=list(SHOWN), description="signal",
                                     style={"button_width": "auto", "description_width": "82px"})
    picker = WindowPicker(windows, start, lambda row: picture.show(row, SHOWN[shown.value]))
    shown.observe(lambda change: picture.show(picker.row, SHOWN[change["new"]]), "value")
    picture.show(start)
    return panel(row_of(picker.box, *([shown] if source is not None else [])), picture.status.line, picture.image)


class _WindowView:
    """The figure of a row; evidence of all windows is measured once."""

    def __init__(self, windows: Windows, source: Source | None) -> None:
        self.windows, self.source = windows, source
        values, self.names = evidence(np.asarray(windows.power), np.asarray(windows.shape), windows.ch_names)
        self.z = np.zeros_like(values)
        for subject in windows.index["subject"].unique():
            own = (windows.index["subject"] == subject).to_numpy()
            spread = values[own].std(axis=0)
            self.z[own] = (values[own] - values[own].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        self._trial: tuple = (None, None)

    def figure(self, row: int, before: bool = False) -> Figure:
        windows = self.windows
        return plots_explore.window_with_evidence(
            windows.data[row], windows.sfreq, windows.ch_names, self.z[row], self.names.columns,
            window_name(windows, row), self.raw(row) if before else None)

    def raw(self, row: int) -> tuple[np.ndarray, float, tuple[str, ...]]:
        """Samples of a window as they were recorded, their rate and channels; the last trial stays open."""
        it = self.windows.index.iloc[row]
        wanted = (str(it["subject"]), str(it["session"]), str(it["clip"]))
        if self._trial[0] != wanted:
            self._trial = (wanted, self._find(*wanted))
        trial = self._trial[1]
        first = round(float(it["start_s"]) * trial.sfreq)
        signal = trial.signal[:, first : first + round(self.windows.window_s * trial.sfreq)]
        return np.asarray(signal), trial.sfreq, tuple(trial.ch_names)

    def _find(self, subject: str, session: str, clip: str) -> Trial:
        for recording in self.source.recordings:
            if str(recording.subject) == subject:
                for trial in self.source.trials(recording):
                    if (str(trial.session), str(trial.clip)) == (session, clip):
                        return trial
        raise ValueError(f"The source has no clip {clip} of subject {subject} in session {session}: open the source "
                         "that these windows were made from.")
