"""Mean spectrum and alpha map of a group of people, and those of EEGMAT to compare with.

``eegmat_spectrum.json`` was made by :func:`write_eegmat_reference` from ten people of EEGMAT. It holds averages only,
no recording; the file names its source and licence.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy  # its parts load when they are used

from ..core.bands import BANDS
from .preprocessing import Windows, write_windows
from .sources import open_source

EEGMAT_FILE = Path(__file__).with_name("eegmat_spectrum.json")
_SOURCE = ("EEG During Mental Arithmetic Tasks (EEGMAT 1.0.0, PhysioNet), Subject00-Subject09; I. Zyma et al., "
           "Data 2019, 4(1):14, doi:10.3390/data4010014. Averages computed by e2llm.data.spectrum_summary.")
_LICENSE = "Open Data Commons Attribution License (ODC-By) 1.0, https://opendatacommons.org/licenses/by/1-0/"
_RANGE_HZ = (1.0, 45.0)
_MAX_WINDOWS = 60  # of a person: more hardly move the mean


@dataclass(frozen=True)
class SpectrumSummary:
    """Mean spectrum of every person and the mean alpha map of all.

    Parameters
    ----------
    frequencies : list of float, length n_frequencies
        Hz, 1 to 45 in steps of 0.5.
    people_db : list of list of float, shape (n_people, n_frequencies)
        Power density averaged over a person's windows and channels, dB re 1 µV²/Hz.
    ch_names : list of str, length n_channels
        Channels.
    alpha_db : list of float, length n_channels
        Alpha power against its mean over channels in decibels, averaged over people.
    """

    frequencies: list[float]
    people_db: list[list[float]]
    ch_names: list[str]
    alpha_db: list[float]

    @property
    def mean_db(self) -> np.ndarray:
        """Decibels of the power averaged over people, shape (n_frequencies,)."""
        return 10 * np.log10(np.mean(10 ** (np.asarray(self.people_db) / 10), axis=0))


def summarize(windows: Windows) -> SpectrumSummary:
    """Average Welch spectra (2 s Hann segments) of up to 60 windows of every person, evenly spread.

    Parameters
    ----------
    windows : Windows
        Of one data source.
    """
    people: list[np.ndarray] = []
    alpha: list[np.ndarray] = []
    subjects = windows.index["subject"].to_numpy()
    low, high = BANDS["alpha"]
    for subject in dict.fromkeys(subjects):
        rows = np.flatnonzero(subjects == subject)
        rows = rows[:: -(-len(rows) // _MAX_WINDOWS)]
        length = int(2 * windows.sfreq)
        frequencies, density = scipy.signal.welch(windows.data[rows], windows.sfreq, nperseg=length, axis=-1)
        density = density.mean(axis=0)
        power = 10 * np.log10(density[:, (frequencies >= low) & (frequencies < high)].sum(axis=-1))
        shown = (frequencies >= _RANGE_HZ[0]) & (frequencies <= _RANGE_HZ[1])
        people.append(10 * np.log10(density.mean(axis=0)[shown]))
        alpha.append(power - power.mean())
    levels, alpha_map = (np.asarray(found, float).round(2).tolist() for found in (people, np.mean(alpha, axis=0)))
    return SpectrumSummary(frequencies[shown].tolist(), levels, list(windows.ch_names), alpha_map)


def write_eegmat_reference(recordings: str | Path, path: str | Path = EEGMAT_FILE) -> None:
    """Make the reference file again from EEGMAT's recordings, with this package's default preprocessing.

    Parameters
    ----------
    recordings : path
        Folder of the EDF files of ten people, with their ``labels.csv``
        (:class:`e2llm.data.sources.folder.LabelledFolder`).
    path : path
        File to write.
    """
    with tempfile.TemporaryDirectory() as folder:
        signal = Path(folder) / "signal"
        write_windows(open_source("folder", recordings), signal)
        found = asdict(summarize(Windows.open(signal)))
    lines = [f" {json.dumps(key)}: {json.dumps(value)}"
             for key, value in {"source": _SOURCE, "license": _LICENSE, **found}.items()]
    Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def eegmat_reference() -> SpectrumSummary:
    """Mean spectra and alpha map of ten people of EEGMAT."""
    stored = json.loads(EEGMAT_FILE.read_text())
    return SpectrumSummary(**{key: value for key, value in stored.items() if key not in ("source", "license")})
