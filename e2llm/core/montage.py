"""Channel names, regions and positions, and the map from any cap to the EEGPT vocabulary."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import mne
import numpy as np
from scipy.spatial.distance import cdist

from .channel_names import shared_reference, site_of, sites_subtracted

# Order of the SEED-VII recordings (its "Channel Order.xlsx").
SEED_CHANNELS: tuple[str, ...] = (
    "FP1", "FPZ", "FP2", "AF3", "AF4", "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8", "FT7", "FC5", "FC3", "FC1",
    "FCZ", "FC2", "FC4", "FC6", "FT8", "T7", "C5", "C3", "C1", "CZ", "C2", "C4", "C6", "T8", "TP7", "CP5", "CP3", "CP1",
    "CPZ", "CP2", "CP4", "CP6", "TP8", "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6", "P8", "PO7", "PO5", "PO3", "POZ",
    "PO4", "PO6", "PO8", "CB1", "O1", "OZ", "O2", "CB2",
)
# The 62 names of the learned channel embedding of EEGPT (Wang et al., NeurIPS 2024), in its order.
EEGPT_VOCABULARY: tuple[str, ...] = (
    "FP1", "FPZ", "FP2", "AF7", "AF3", "AF4", "AF8", "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8", "FT7", "FC5",
    "FC3", "FC1", "FCZ", "FC2", "FC4", "FC6", "FT8", "T7", "C5", "C3", "C1", "CZ", "C2", "C4", "C6", "T8", "TP7", "CP5",
    "CP3", "CP1", "CPZ", "CP2", "CP4", "CP6", "TP8", "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6", "P8", "PO7", "PO5",
    "PO3", "POZ", "PO4", "PO6", "PO8", "O1", "OZ", "O2",
)
# Rows of that embedding which no released weight ever saw in training.
EEGPT_UNTRAINED = frozenset({"AF7", "AF8", "PO5", "PO6"})
# Older 10-20 names of the same places (Acharya et al. 2016, ACNS guideline 2).
SYNONYMS = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
# CB1 and CB2 are in no standard montage; on the cap they sit just below PO7 and PO8, close to PO9 and PO10.
_STAND_INS = {"CB1": "PO9", "CB2": "PO10"}
# Earlobes and mastoids are reference sites: in the standard montage, but not on the scalp.
_REFERENCES = ("A1", "A2", "M1", "M2")
# What a channel's name may say it was referred to: "Cz-LE" lies at Cz.
_REFERRED_TO = ("REF", "LE", "AVG", *_REFERENCES)
REGIONS: dict[str, tuple[str, ...]] = {
    "frontal": ("FP1", "FPZ", "FP2", "AF7", "AF3", "AF4", "AF8", "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8"),
    "central": ("FC5", "FC3", "FC1", "FCZ", "FC2", "FC4", "FC6", "C5", "C3", "C1", "CZ", "C2", "C4", "C6"),
    "temporal": ("FT7", "FT8", "T7", "T8", "TP7", "TP8"),
    "parietal": ("CP5", "CP3", "CP1", "CPZ", "CP2", "CP4", "CP6", "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6", "P8"),
    "occipital": ("PO7", "PO5", "PO3", "POZ", "PO4", "PO6", "PO8", "CB1", "O1", "OZ", "O2", "CB2"),
}
# Homologous pairs for frontal asymmetry, right minus left (Davidson 1988).
FRONTAL_PAIRS: tuple[tuple[str, str], ...] = (("F3", "F4"), ("F7", "F8"), ("AF3", "AF4"), ("F5", "F6"), ("F1", "F2"))


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """Standard upper-case name of a channel: ``"EEG T3-Ref"`` gives ``"T7"``, ``"Fp1"`` gives ``"FP1"``."""
    site = site_of(name)
    return SYNONYMS.get(site, site)


@lru_cache(maxsize=1)
def _standard_positions() -> dict[str, dict[str, np.ndarray]]:
    """Positions by canonical name, with the fiducials that place them in the head."""
    positions = mne.channels.make_standard_montage("colin27_1005").get_positions()
    named = {canonical(name): xyz for name, xyz in positions["ch_pos"].items() if name not in _REFERENCES}
    named.update({name: named[stand_in] for name, stand_in in _STAND_INS.items()})
    fiducials = {point: positions[point] for point in ("nasion", "lpa", "rpa")}
    return {"ch_pos": named, "fiducials": fiducials}


def known_channels(names: list[str]) -> list[str]:
    """Names that have a scalp position, in their order; a difference of two sites has none."""
    return [name for name in names if canonical(name) in _standard_positions()["ch_pos"] and not bipolar_pair(name)]


def bipolar_pair(name: str) -> tuple[str, str] | None:
    """Sites that a bipolar derivation subtracts: ``"EEG Fp1-F7"`` gives ``("FP1", "F7")``, any other name None."""
    pair = sites_subtracted(name)
    sites = tuple(map(canonical, pair)) if pair else ()
    known = {*_standard_positions()["ch_pos"], *_REFERENCES}
    if not sites or sites[1] in _REFERRED_TO or not set(sites) <= known:
        return None
    return sites[0], sites[1]


@dataclass(frozen=True)
class Match:
    """Where the channels of a recording lie.

    Parameters
    ----------
    places : dict of str to str
        Channel as the file names it to canonical name, in the file's order.
    by_position : dict of str to float
        Channels without a known name that a measured position placed, and how far from it the canonical position lies,
        millimetres.
    bipolar : tuple of str
        Channels that are a difference of two sites: they lie nowhere, and are refused.
    unplaced : tuple of str
        The others without a place.
    """

    places: dict[str, str]
    by_position: dict[str, float] = field(default_factory=dict)
    bipolar: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()

    @property
    def doubled(self) -> list[str]:
        """Canonical names that more than one channel claims."""
        names = list(self.places.values())
        return sorted({name for name in names if names.count(name) > 1})


# Names of signals other than EEG: a position in the file does not make a scalp electrode of it.
_NOT_SCALP = re.compile(r"EOG|ECG|EKG|EMG|[HV]EO|RESP|GSR|PPG|STI|TRIG|STATUS|REF|GND|^[AM][12]$")
HEAD_MM = 95.0  # radius of the sphere on which distances of electrodes are measured
NEAR_MM = 15.0  # less than half the distance of neighbors of the 10-10 system


def _on_sphere(xyz: np.ndarray) -> tuple[np.ndarray, float]:
    """Positions on the unit sphere around the center of the best-fitting sphere, and the largest relative misfit."""
    design = np.column_stack([2 * xyz, np.ones(len(xyz))])
    solution = np.linalg.lstsq(design, (xyz**2).sum(axis=1), rcond=None)[0]
    from_center = xyz - solution[:3]
    radius = np.linalg.norm(from_center, axis=1)
    return from_center / radius[:, None], float(np.abs(radius / np.median(radius) - 1).max())


def match_channels(names: Collection[str], positions: Mapping[str, np.ndarray] | None = None,
                   within_mm: float = NEAR_MM) -> Match:
    """Place channels on the head: by name, by older name, and where the name is unknown, by measured position.

    Parameters
    ----------
    names : collection of str
        Channels as the file names them.
    positions : mapping of str to ndarray, shape (3,), optional
        Measured positions in MNE's head frame, any unit of length. A cap's size does not matter: its best sphere is
        laid over that of the standard positions. Fewer than eight positions, or positions on no sphere (misfit over a
        quarter), place nothing.
    within_mm : float
        A channel is placed at the nearest free name of the EEGPT vocabulary that lies at most so far away, on a head of
        95 mm radius.

    Returns
    -------
    Match
    """
    names = list(names)
    known = set(known_channels(names))
    bipolar = tuple(name for name in names if name not in known and bipolar_pair(name))
    places = {name: canonical(name) for name in names if name in known}
    if shared_reference(names):  # then they are no derivations; earlobes and mastoids stay without a place
        sites = {name: pair[0] for name in bipolar if (pair := bipolar_pair(name))}
        places |= {name: site for name, site in sites.items() if known_channels([site])}
        known, bipolar = {*known, *bipolar}, ()
    usable = {name: np.asarray(xyz, dtype=float) for name, xyz in (positions or {}).items() if name in names
              and np.isfinite(xyz).all()}
    usable = {name: xyz for name, xyz in usable.items() if np.linalg.norm(xyz) > 0 and name not in bipolar}
    unnamed = [name for name in usable if name not in known and not _NOT_SCALP.search(canonical(name))]
    found = _near(usable, unnamed, set(places.values()), within_mm)
    places = {name: places.get(name) or found[name][0] for name in names if name in places or name in found}
    unplaced = tuple(name for name in names if name not in places and name not in bipolar)
    return Match(places, {name: mm for name, (_, mm) in found.items()}, bipolar, unplaced)


def _near(positions: dict[str, np.ndarray], unnamed: list[str], taken: set[str], within_mm: float) -> dict[str,
    tuple[str, float]]:
    """Nearest free name of the vocabulary for every unnamed channel, and its distance; the closest pairs come first."""
    if len(positions) < 8 or not unnamed:
        return {}
    directions, misfit = _on_sphere(np.stack(list(positions.values())))
    if misfit > 0.25:
        return {}
    free = [name for name in EEGPT_VOCABULARY if name not in taken]
    standard = _on_sphere(np.array([channel["loc"][:3] for channel in make_info(list(EEGPT_VOCABULARY),
                                                                                1.0)["chs"]]))[0]
    rows, columns = list(positions), list(EEGPT_VOCABULARY)
    mm = HEAD_MM * 2 * np.arcsin(np.clip(cdist(directions, standard) / 2, 0, 1))
    found: dict[str, tuple[str, float]] = {}
    for row, column in zip(*np.unravel_index(np.argsort(mm, axis=None, kind="stable"), mm.shape), strict=True):
        name, place = rows[row], columns[column]
        if mm[row, column] > within_mm:
            break
        if name in unnamed and name not in found and place in free:
            found[name] = (place, round(float(mm[row, column]), 1))
            free.remove(place)
    return found


@lru_cache(maxsize=8)
def _cached_info(ch_names: tuple[str, ...], sfreq: float) -> mne.Info:
    standard = _standard_positions()
    ch_pos = {name: standard["ch_pos"][name] for name in ch_names}
    montage = mne.channels.make_dig_montage(ch_pos, **standard["fiducials"], coord_frame="unknown")
    return mne.create_info(list(ch_names), sfreq, "eeg").set_montage(montage)


def make_info(ch_names: list[str], sfreq: float) -> mne.Info:
    """MNE measurement info with canonical EEG channel names and head positions.

    Parameters
    ----------
    ch_names : list of str
        Channel names, any spelling that :func:`canonical` reads.
    sfreq : float
        Sampling rate in Hz.

    Raises
    ------
    ValueError
        If a channel has no known position; the message lists them.
    """
    names = [canonical(name) for name in ch_names]
    unknown = [name for name in names if name not in _standard_positions()["ch_pos"]]
    if unknown:
        raise ValueError(f"No scalp position is known for {unknown}: drop these channels or rename them to 10-05 "
                         "names.")
    return _cached_info(tuple(names), float(sfreq)).copy()


def eegpt_channels(ch_names: list[str], trained_only: bool = True) -> list[str]:
    """Canonical names of a cap that EEGPT has an embedding for, in the vocabulary's order.

    Parameters
    ----------
    ch_names : list of str
        Channels of the recording.
    trained_only : bool
        Leave out the four names whose embedding the released weights never trained.

    Raises
    ------
    ValueError
        If none is left.
    """
    present = {canonical(name) for name in ch_names}
    kept = [name for name in EEGPT_VOCABULARY if name in present and not (trained_only and name in EEGPT_UNTRAINED)]
    if not kept:
        raise ValueError(f"None of the channels {list(ch_names)[:8]} is in the EEGPT vocabulary; rename them to 10-10 "
                         "names.")
    return kept


def region_of(channel: str) -> str:
    """Region that a channel belongs to; KeyError with the name if it is in none."""
    for region, members in REGIONS.items():
        if canonical(channel) in members:
            return region
    raise KeyError(f"Channel {channel} belongs to no region of e2llm.core.montage.REGIONS.")


def region_indices(ch_names: list[str]) -> dict[str, list[int]]:
    """Row numbers of each region's channels within ``ch_names``; regions without channels are left out."""
    return {region: list(rows) for region, rows in _region_rows(tuple(ch_names)).items()}


@lru_cache(maxsize=16)
def _region_rows(ch_names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    names = [canonical(name) for name in ch_names]
    rows = {region: tuple(i for i, name in enumerate(names) if name in members) for region, members in REGIONS.items()}
    return {region: found for region, found in rows.items() if found}
