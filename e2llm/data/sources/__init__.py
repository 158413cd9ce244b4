"""Sources of labelled recordings, by name: SEED-VII in both of its forms, other datasets, and any labelled files.

A source knows its label set, yields one :class:`Recording` at a time (so memory is bounded by one), and finds
problems of its files before any signal is processed. Each lives in a module of its own; this one opens them.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from .base import Source, SourceError
from .bids import BIDSFolder
from .emoeeg_mc import EmoEEGMC
from .faced import FACED
from .folder import LabelledFolder
from .seed_vii import SeedVII, SeedVIIRaw

SOURCES: dict[str, type] = {"seed-vii": SeedVII, "seed-vii-raw": SeedVIIRaw, "folder": LabelledFolder,
                            "bids": BIDSFolder, "emoeeg-mc": EmoEEGMC, "faced": FACED}


def open_source(kind: str, root: str | Path, **options) -> Source:
    """Open a data source.

    Parameters
    ----------
    kind : str
        Key of :data:`SOURCES`.
    root : path
        Its folder.
    **options
        ``subjects`` (the first so many), and what the source's class takes besides, e.g. ``label_column`` for ``bids``.

    Raises
    ------
    SourceError
        For an unknown kind or option, or a folder that cannot be used.
    """
    if kind not in SOURCES:
        raise SourceError(f"Unknown data source '{kind}' (known: {', '.join(SOURCES)}).")
    known = [name for name in inspect.signature(SOURCES[kind]).parameters if name != "root"]
    if unknown := sorted(set(options) - set(known)):
        raise SourceError(f"Data source '{kind}' has no option {', '.join(unknown)} (known: {', '.join(known)}).")
    return SOURCES[kind](root, **options)
