"""Channel names, regions and positions, and the map from any cap to the EEGPT vocabulary."""

from __future__ import annotations

from functools import lru_cache

import mne
import numpy as np

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

REGIONS: dict[str, tuple[str, ...]] = {
    "frontal": ("FP1", "FPZ", "FP2", "AF7", "AF3", "AF4", "AF8", "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8"),
    "central": ("FC5", "FC3", "FC1", "FCZ", "FC2", "FC4", "FC6", "C5", "C3", "C1", "CZ", "C2", "C4", "C6"),
    "temporal": ("FT7", "FT8", "T7", "T8", "TP7", "TP8"),
    "parietal": ("CP5", "CP3", "CP1", "CPZ", "CP2", "CP4", "CP6", "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6", "P8"),
    "occipital": ("PO7", "PO5", "PO3", "POZ", "PO4", "PO6", "PO8", "CB1", "O1", "OZ", "O2", "CB2"),
}
# Homologous pairs for frontal asymmetry, right minus left (Davidson 1988).
FRONTAL_PAIRS: tuple[tuple[str, str], ...] = (("F3", "F4"), ("F7", "F8"), ("AF3", "AF4"), ("F5", "F6"), ("F1", "F2"))


def canonical(name: str) -> str:
    """Standard upper-case name of a channel: ``"EEG T3-Ref"`` gives ``"T7"``, ``"Fp1"`` gives ``"FP1"``."""
    words = name.upper().replace("EEG", " ").replace("_", " ").split()
    stem = words[0] if words else ""
    for suffix in ("-REF", "-LE", "-AVG", "-A1", "-A2", "-M1", "-M2"):
        stem = stem.removesuffix(suffix)
    return SYNONYMS.get(stem, stem)


@lru_cache(maxsize=1)
def _standard_positions() -> dict[str, dict[str, np.ndarray]]:
    """Positions by canonical name, with the fiducials that place them in the head."""
    positions = mne.channels.make_standard_montage("colin27_1005").get_positions()
    named = {canonical(name): xyz for name, xyz in positions["ch_pos"].items() if name not in _REFERENCES}
    named.update({name: named[stand_in] for name, stand_in in _STAND_INS.items()})
    fiducials = {point: positions[point] for point in ("nasion", "lpa", "rpa")}
    return {"ch_pos": named, "fiducials": fiducials}


def known_channels(names: list[str]) -> list[str]:
    """Those names (in their order) that have a scalp position after canonicalisation."""
    return [name for name in names if canonical(name) in _standard_positions()["ch_pos"]]


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
        raise ValueError(f"No scalp position is known for {unknown}: drop these channels or rename them to 10-05 names.")
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
        raise ValueError(f"None of the channels {list(ch_names)[:8]} is in the EEGPT vocabulary; rename them to 10-10 names.")
    return kept


def region_of(channel: str) -> str:
    """Region that a channel belongs to; KeyError with the name if it is in none."""
    for region, members in REGIONS.items():
        if canonical(channel) in members:
            return region
    raise KeyError(f"Channel {channel} belongs to no region of e2llm.montage.REGIONS.")


def region_indices(ch_names: list[str]) -> dict[str, list[int]]:
    """Row numbers of each region's channels within ``ch_names``; regions without channels are left out."""
    names = [canonical(name) for name in ch_names]
    rows = {region: [i for i, name in enumerate(names) if name in members] for region, members in REGIONS.items()}
    return {region: found for region, found in rows.items() if found}
