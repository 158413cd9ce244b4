"""Sources of labelled recordings, by name: SEED-VII in both of its forms, other datasets, and any labelled files.

A source knows its label set, yields one :class:`Recording` at a time (so memory is bounded by one), and finds
problems of its files before any signal is processed. Each lives in a module of its own; this one opens them.
"""

from __future__ import annotations

import inspect
import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .base import Source, SourceError
from .bids import BIDSFolder
from .emoeeg_mc import EmoEEGMC
from .faced import FACED
from .folder import LabelledFolder
from .samples import TableOptions
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
    known = _options_of(kind)
    if unknown := sorted(set(options) - set(known)):
        raise SourceError(f"Data source '{kind}' has no option {', '.join(unknown)} (known: {', '.join(known)}).")
    converted = {name: _converted(kind, name, value, known[name]) for name, value in options.items()}
    return SOURCES[kind](Path(root).expanduser(), **converted)


def parse_options(kind: str, text: str) -> dict[str, Any]:
    """Options of a source from one line, split as a shell does: ``session=01 labels="[happy, very sad]"``.

    A value is read as what the source's class takes: text stays as it is written, a list may be written with brackets
    and commas or without.

    Parameters
    ----------
    kind : str
        Key of :data:`SOURCES`.
    text : str
        The line; empty: no options.

    Raises
    ------
    SourceError
        If a word is not ``option=value``, or the source has no such option; values are checked by :func:`open_source`.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SourceError(f"The options {text!r} cannot be split into words ({error}): close the quote.") from None
    pairs = [word.partition("=") for word in words]
    if wrong := [name for name, equals, _ in pairs if not equals or not name.isidentifier()]:
        raise SourceError(f"{wrong[0]!r} in the options of '{kind}' is not option=value: write name=value, and quote a "
                          "value with blanks.")
    known = {option for one in ([kind] if kind in SOURCES else SOURCES) for option in _options_of(one)}
    if unknown := sorted({name for name, _, _ in pairs} - known):
        raise SourceError(f"Data source '{kind}' has no option {', '.join(unknown)} (known: "
                          f"{', '.join(sorted(known))}).")
    return {name: value for name, _, value in pairs}


def table_options(text: str) -> TableOptions:
    """What tables of samples do not say themselves, from one line: ``sfreq=250 unit=uV columns="[2=Fp1, 3=Fp2]"``.

    Parameters
    ----------
    text : str
        As in :func:`parse_options`.

    Raises
    ------
    SourceError
        For another option, or a value that cannot be one.
    """
    given, known = parse_options("folder", text), _options_of("folder")
    if unknown := sorted(set(given) - {"sfreq", "unit", "columns"}):
        raise SourceError(f"A table of samples has no option {', '.join(unknown)} (known: sfreq, unit, columns).")
    return TableOptions(**{name: _converted("folder", name, value, known[name]) for name, value in given.items()})


def _options_of(kind: str) -> dict[str, inspect.Parameter]:
    return {name: one for name, one in inspect.signature(SOURCES[kind]).parameters.items() if name != "root"}


def _converted(kind: str, name: str, value: Any, declared: inspect.Parameter) -> Any:
    """A value as the source's class takes it; text becomes a number or a list of texts where that is declared."""
    wanted = str(declared.annotation)
    if wanted.startswith("Sequence"):
        values = value.strip().removeprefix("[").removesuffix("]").split(",") if isinstance(value, str) else value
        if not isinstance(values, Iterable):
            values = [value]
        return tuple(text for one in values if (text := str(one).strip().strip("'\"")))
    if wanted.startswith(("int", "float")):
        if value is None or value == "":
            return declared.default
        try:
            number = int(value) if wanted.startswith("int") else float(value)
        except (TypeError, ValueError, OverflowError):
            raise SourceError(f"Data source '{kind}': {name} = {value!r:.60} is not a number.") from None
        if not 0 <= number < math.inf or (name == "subjects" and not number):
            raise SourceError(f"Data source '{kind}': {name} = {value!r:.60} is out of bounds: give a finite number "
                              "from 0, of subjects from 1.")
        return number
    if "Path" in wanted:
        return Path(value).expanduser() if value else None
    return str(value)
