"""How trials become windows: every choice of the preprocessing, with its default."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.arguments import check_number
from ..core.files import one_line
from ..core.montage import known_channels
from .checks import QUALITY

MISSING = ("masked", "interpolated")
# Hz, seconds, and a factor
_BOUNDS = {"sfreq": (1, 1e5), "l_freq": (1e-6, 1e5), "h_freq": (1e-6, 1e5), "h_trans": (1e-6, 1e5),
           "window_s": (1e-3, 3600), "lof_threshold": (1e-6, 1e10)}


@dataclass(frozen=True)
class PreprocessParams:
    """How trials become windows.

    Parameters
    ----------
    sfreq : float
        Target rate in Hz; EEGPT needs 256.
    l_freq, h_freq, h_trans : float
        Band-pass edges and the width of the upper transition, Hz. The default stops 50 Hz mains.
    window_s : float
        Window length in seconds, without overlap: a whole number of samples. Encoders take whole numbers of time
        patches of 250 ms, and EEGPT was pretrained on 4 s.
    trained_only : bool
        Keep the 58 channels that the released EEGPT weights were trained on.
    lof_threshold : float
        Local outlier factor above which MNE calls a channel bad; it is then interpolated.
    wanted : tuple of str
        Channels that windows should have; empty: those that more than half of the recordings have.
    missing : str
        What becomes of a wanted channel that some recordings lack. ``masked``: it is left out of all windows.
        ``interpolated``: MNE's spherical splines make it up from the others, where it is lacking. The windows'
        ``channels.json`` says which.
    quality : str
        What becomes of a recording in which :mod:`e2llm.data.checks` finds a fault. ``strict``: it is left out.
        ``warn``: it is used, and the fault is listed. Windows without a signal are left out in either case.
    """

    sfreq: float = 256.0
    l_freq: float = 0.5
    h_freq: float = 45.0
    h_trans: float = 5.0
    window_s: float = 4.0
    trained_only: bool = True
    lof_threshold: float = 3.0
    wanted: tuple[str, ...] = ()
    missing: str = "masked"
    quality: str = "strict"

    def __post_init__(self) -> None:
        if not isinstance(self.wanted, (tuple, list)) or not all(isinstance(name, str) for name in self.wanted):
            raise ValueError(f"wanted = {self.wanted!r:.60}: give a list of channel names.")
        object.__setattr__(self, "wanted", tuple(self.wanted))
        for name, (low, high) in _BOUNDS.items():
            check_number(name, getattr(self, name), low, high)
            object.__setattr__(self, name, float(getattr(self, name)))  # 200 and 200.0 are one setting
        if self.window_s * self.sfreq < 1 or self.window_s * self.sfreq % 1:
            raise ValueError(f"window_s = {self.window_s:g} is no whole number of samples at {self.sfreq:g} Hz: give "
                             "another length.")
        if not self.l_freq < self.h_freq < self.sfreq / 2:
            raise ValueError(f"l_freq = {self.l_freq:g} must be below h_freq = {self.h_freq:g}, and that below half of "
                             f"sfreq = {self.sfreq:g}, all in Hz.")
        if self.missing not in MISSING:
            raise ValueError(f"missing = '{self.missing}': channels that a recording lacks are {' or '.join(MISSING)}.")
        if self.quality not in QUALITY:
            raise ValueError(f"quality = '{self.quality}': recordings with a fault are judged {' or '.join(QUALITY)}.")
        if len(known_channels(list(self.wanted))) < len(self.wanted):
            lost = sorted(set(self.wanted) - set(known_channels(list(self.wanted))))
            raise ValueError(f"No scalp position is known for the wanted channels {one_line(', '.join(lost))}: give "
                             "10-05 names.")
