"""What the parts of a channel's name say: the kind of signal, the site, and what it was referred to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# What a channel may be said to be referred to, beside a site: "C3-A1A2" lies at C3.
_REFERENCE = {"REF", "LE", "RE", "AVG", "AVE", "AV", "AVERAGE", "CAR", "LER", "A1", "A2", "M1", "M2", "A1A2", "M1M2",
              "A1+A2", "M1+M2", "(A1+A2)", "(M1+M2)", "A12", "M12"}
_KIND = re.compile(r"^(?:EEG|POL)(?=$|[\s_:.\-]|[A-Z]{1,3}[Z\d])[\s_:.\-]*")  # of the signal, before the site
_FOREIGN = 4  # numbers of a letter that the 10-05 system does not have show that a cap counts its channels by itself


def site_of(name: str) -> str:
    """The site that a name holds in capitals; the whole name in capitals where a part of it is not understood.

    ``"EEG Fp1-Ref"`` and ``"POL Fp1"`` give ``"FP1"``. ``"C3 imp"``, ``"C3_F7"`` and ``"C3-F7"`` stay whole: the first
    is no EEG, the others are two sites. A number at the end is what MNE adds to a name that stands twice.
    """
    whole = re.sub(r"\s*-\s*", "-", name.strip().upper())
    words = [word for word in re.split(r"[\s_:]+", _KIND.sub("", whole)) if word and word != "EEG"]
    if not words:
        return ""
    site, *rest = [part.rstrip(".") for part in (*words[0].split("-"), *words[1:])]
    understood = all(part in _REFERENCE or part.isdecimal() for part in rest if part not in ("", "EEG"))
    return site if understood else whole


def sites_subtracted(name: str) -> tuple[str, str] | None:
    """The two parts of a name like ``"EEG Fp1-F7"`` in capitals, or None."""
    parts = "".join(re.split(r"[\s_:]+", _KIND.sub("", name.strip().upper()))).split("-")
    return (parts[0].rstrip("."), parts[1].rstrip(".")) if len(parts) == 2 and all(parts) else None


def shared_reference(names: Iterable[str]) -> str:
    """The second site of names like ``"Fp1-Pz"`` if all of them, three or more, have the same; else nothing."""
    names = list(names)
    pairs = [pair for name in names if (pair := sites_subtracted(name))]
    seconds = {second for _, second in pairs}
    return seconds.pop() if len(seconds) == 1 and len(pairs) >= 3 and 2 * len(pairs) > len(names) else ""


def foreign_names(names: Iterable[str], known: Collection[str]) -> list[str]:
    """Names that only look like those of the 10-20 system, for their cap numbers its channels by itself.

    A cap with the channels C1 to C32 (BioSemi), or a depth electrode with the contacts O1 to O14, has channels C3 and
    O1 that lie elsewhere.

    Parameters
    ----------
    names : iterable of str
        All channels of a recording.
    known : collection of str
        Those of them that have a place by their name.

    Returns
    -------
    list of str
        Known names of a letter that has four or more numbers without a place; empty for other caps.
    """
    letters: dict[str, list[str]] = {}
    for name in names:
        if found := re.fullmatch(r"([A-Z])\d{1,3}", site_of(name)):
            letters.setdefault(found[1], []).append(name)
    return [name for group in letters.values() if sum(one not in known for one in group) >= _FOREIGN
            for name in group if name in known]
