"""What pretrained EEG encoders have seen: a test on the same recordings is not a test on unseen people.

Entries hold facts with their sources. An encoder or a data set that is not listed here has not been looked up; it is
never taken for clean.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Encoder:
    """What one published set of weights was trained on.

    Parameters
    ----------
    name : str
        Of the encoder, and of the weights where there are several.
    seen : tuple of str
        Data sets, by their usual names; the recordings of all their people, unless ``note`` says otherwise.
    source : str
        Where that is stated.
    complete : bool
        Whether the source lists every data set: if not, a data set that is not listed may have been seen.
    note : str
        What the names alone do not say.
    """

    name: str
    seen: tuple[str, ...]
    source: str
    complete: bool = True
    note: str = ""


ENCODERS = (
    Encoder("EEGPT", ("PhysioNetMI", "HGD", "TSU", "SEED", "M3CV"),
            "datasets/pretrain/readme.md of github.com/BINE022/EEGPT; Wang et al., NeurIPS 2024",
            note="of SEED the preprocessed EEG of all 15 people"),
    Encoder("LaBraM", ("BCI Competition IV-1", "Emobrain", "Grasp and Lift", "Inria BCI Challenge", "PhysioNetMI",
                       "SEED", "SEED-IV", "SEED-GER", "SEED-FRA", "Siena", "SPIS", "TVNT", "TUAR", "TUEP", "TUSZ",
                       "TUSL"),
            "appendix of Jiang et al., ICLR 2024, arXiv 2405.18765", complete=False,
            note="also recordings of its authors' own and smaller public sets"),
    Encoder("BENDR", ("TUEG",),
            "facebookresearch.github.io/neuroai/neuralbench/models/bendr.html; Kostas et al., 2021"),
    Encoder("CBraMod", ("TUEG",),
            "facebookresearch.github.io/neuroai/neuralbench/models/cbramod.html; Wang et al., ICLR 2025"),
    Encoder("BIOT-PREST", ("PREST",), "README of github.com/ycq091044/BIOT; Yang et al., NeurIPS 2023"),
    Encoder("BIOT-SHHS+PREST", ("PREST", "SHHS"), "README of github.com/ycq091044/BIOT; Yang et al., NeurIPS 2023"),
    Encoder("BIOT-six-datasets", ("PREST", "SHHS", "TUAB", "TUEV", "CHB-MIT", "IIIC Seizure"),
            "README of github.com/ycq091044/BIOT; Yang et al., NeurIPS 2023",
            note="of TUAB, TUEV, CHB-MIT and IIIC Seizure the training parts"),
)  # fmt: skip
# Other names of a data set, and data sets whose recordings are all in another one.
_ALSO = {"physionetmi": ("eegmmidb", "eegbci", "physionet motor imagery", "physionet"),
         "hgd": ("high gamma dataset", "high-gamma", "schirrmeister2017"), "tsu": ("tsubenchmark", "tsinghua ssvep"),
         "seed": ("seed-i", "seed15"), "tvnt": ("target versus non-target",), "grasp and lift": ("gal",),
         "siena": ("siena scalp eeg",), "spis": ("spis resting state",)}
_PARTS = {"tueg": ("tuab", "tuar", "tuep", "tuev", "tusl", "tusz", "tuh")}


def _key(name: str) -> str:
    """A name without case, blanks and marks: ``Physionet-MI`` is ``physionetmi``."""
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def encoder_called(name: str) -> Encoder:
    """An entry of :data:`ENCODERS`.

    Parameters
    ----------
    name : str
        Of the encoder; case and marks do not count.

    Raises
    ------
    ValueError
        If it is not listed, or stands for several sets of weights.
    """
    found = [encoder for encoder in ENCODERS if _key(encoder.name) == _key(name)]
    found = found or [encoder for encoder in ENCODERS if _key(encoder.name).startswith(_key(name)) and _key(name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(encoder.name for encoder in found or ENCODERS)
    raise ValueError(f"{name!r} {'stands for several sets of weights' if found else 'was not looked up'}: "
                     f"{'give one of' if found else 'known are'} {known}.")


def has_seen(encoder: Encoder, dataset: str) -> bool | None:
    """Whether an encoder was pretrained on a data set; None if its source does not list everything.

    Parameters
    ----------
    encoder : Encoder
        From :func:`encoder_called`.
    dataset : str
        Name of the data set; other usual names are known.
    """
    asked, seen = _key(dataset), set()
    for name in map(_key, encoder.seen):
        seen |= {name, *map(_key, _names(_ALSO, name)), *map(_key, _names(_PARTS, name))}
    if asked in seen:
        return True
    return False if encoder.complete else None


def _names(table: Mapping[str, tuple[str, ...]], key: str) -> tuple[str, ...]:
    return next((names for name, names in table.items() if _key(name) == key), ())
