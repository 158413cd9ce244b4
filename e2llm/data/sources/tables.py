"""Label tables as people save them: any separator, any usual encoding, column names in any case."""

from __future__ import annotations

import csv
import io
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd

from ...core.files import one_line, refuse_bomb
from ...core.label_names import check_labels
from ...core.labels import LabelSet, emotions_spelled_otherwise
from .base import Flaw, SourceError

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SHEETS = (".xlsx", ".xls")
_MOST_BYTES, _MOST_CELLS, _MOST_ROWS = 1 << 28, 5_000_000, 1 << 20  # of a spreadsheet, as rectangle


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table as text without blanks around the cells, whatever program has saved it.

    Parameters
    ----------
    path : Path
        Text with a separator of its own, or a spreadsheet (``.xlsx``).
    columns : sequence of str
        Columns whose names count in any case.

    Returns
    -------
    DataFrame
        Of str, with the line of the file as index; empty lines, and cells after the last column, are left out.

    Raises
    ------
    SourceError
        If it is no table; the message says what was seen.
    """
    try:
        cells = _sheet(path) if path.suffix.lower() in _SHEETS else _text_cells(_decoded(path.read_bytes()))
    except Exception as error:
        raise SourceError(f"{path} is not a readable table ({one_line(error)}): write it as comma-separated text in "
                          "UTF-8.") from None
    cells = [(line, row) for line, row in cells if any(row)]
    if len(cells) < 2:
        raise SourceError(f"{path} has no line below its head: write one line a trial.")
    known = {name.casefold(): name for name in columns}
    head = [known.get(name.casefold(), name) for name in cells[0][1]]
    for line, row in cells[1:]:
        if len(row) > len(head):
            raise SourceError(f"{path}, line {line}: {len(row)} cells below {len(head)} columns; quote a text that "
                              "holds the separator.")
    if twice := [name for name, n in Counter(head).items() if n > 1]:
        raise SourceError(f"{path} has the column '{twice[0]}' twice: keep one.")
    filled = [row + [""] * (len(head) - len(row)) for _, row in cells[1:]]
    return pd.DataFrame(filled, columns=head, index=[line for line, _ in cells[1:]], dtype=str)


def _trimmed(row: Sequence[str]) -> list[str]:
    """Cells without blanks around them, and without empty ones at the end."""
    cells = [cell.strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def read_excel(path: Path, **how: Any) -> Any:
    """:func:`pandas.read_excel`, after size and cells were asked: a few kB may unpack to more than fits into memory.

    Parameters
    ----------
    path : Path
        A spreadsheet.
    **how
        As for pandas.

    Raises
    ------
    ValueError
        If it unpacks to too much, or its cells lie too far apart; of pandas and its readers, any error.
    """
    refuse_bomb(path, _MOST_BYTES)
    if zipfile.is_zipfile(path):
        for sheet in openpyxl.load_workbook(path, read_only=True).worksheets:
            sheet.reset_dimensions()  # what the file says of itself need not be so
            width = 1
            for row, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
                if row > _MOST_ROWS or row * (width := max(width, len(cells))) > _MOST_CELLS:
                    raise ValueError(f"its sheet has more than {_MOST_CELLS:,} cells, from the first to the last")
    return pd.read_excel(path, header=None, **how)


def _sheet(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row of a spreadsheet."""
    rows = read_excel(path, dtype=str, keep_default_na=False).fillna("")
    return [(line, _trimmed(list(map(str, row)))) for line, row in enumerate(rows.to_numpy().tolist(), start=1)]


def _text_cells(text: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row of a text; the line ``sep=;`` of Excel is none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text), skipinitialspace=True,
                        strict=True)
    rows = [(reader.line_num, _trimmed(row)) for row in reader]
    return [(line, row) for line, row in rows if not (line == 1 and row and row[0].casefold().startswith("sep="))]


def separator_of(text: str) -> str:
    """The separator that the first line holds most of; a comma if it holds none."""
    first = text.lstrip("\r\n").partition("\n")[0].strip()
    if first.casefold().startswith("sep="):
        return first[4:] or "\t"
    return max(_SEPARATORS, key=first.count)


def saved_as(path: Path) -> str:
    """How a table was saved, in words: ``semicolons, utf-16``."""
    if path.suffix.lower() in _SHEETS:
        return "a spreadsheet"
    content = path.read_bytes()
    separator = separator_of(_decoded(content))
    return f"{_SEPARATORS.get(separator, repr(separator))}, {encoding_of(content)}"


def encoding_of(content: bytes) -> str:
    """Encoding by the mark at the beginning; else UTF-8, or what Windows writes in the west if it is not that."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            return name
    if b"\x00" in content[:200]:
        return "utf-16-le" if content[1:2] == b"\x00" else "utf-16-be"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _decoded(content: bytes) -> str:
    return content.decode(encoding_of(content))


def labels_of(where: Path, name: str, rows: Sequence[Mapping[str, str]]) -> LabelSet:
    """The label set of a table: its labels and, where it says so, their valence and arousal and what they are called.

    Parameters
    ----------
    where : Path
        The table, for messages.
    name : str
        Of the set.
    rows : sequence of mapping
        ``label``, and where they are known ``valence``, ``arousal`` (-1 to 1, the same for all rows of a label) and
        ``noun`` ("emotion"; "state" where it is not known), all as text.

    Raises
    ------
    SourceError
        If there are fewer than two labels, or the rows contradict each other.
    """
    labels = sorted({row["label"] for row in rows})
    if len(labels) == 1:
        raise SourceError(f"{where} has the label {labels[0]!r} in every trial: there must be two or more to tell "
                          "apart.")
    axes = {axis: _coordinates(where, axis, rows) for axis in ("valence", "arousal")}
    nouns = {row.get("noun", "") for row in rows} - {""}
    if len(nouns) > 1:
        raise SourceError(f"{where}: the column noun says {' and '.join(sorted(map(repr, nouns)))}: write what all "
                          "labels are called, one word.")
    (noun,) = nouns or {"state"}
    check_labels([noun])
    return LabelSet(name, tuple(labels), axes["valence"], axes["arousal"], noun)


def _coordinates(where: Path, axis: str, rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    given = defaultdict(set)
    for row in rows:
        given[row["label"]].add(row.get(axis, ""))
    if all(values == {""} for values in given.values()):
        return {}
    found = {}
    for label, values in sorted(given.items()):
        try:
            (value,) = {float(text.replace(",", ".")) for text in values}
        except ValueError:
            said = " and ".join(sorted(map(repr, values)))
            raise SourceError(f"{where} gives the label {label!r} the {axis} {said}: write one number from -1 to 1 in "
                              "every row of a label.") from None
        if not -1 <= value <= 1:
            raise SourceError(f"{where} gives the label {label!r} the {axis} {value:g}: scale it to -1 to 1.")
        found[label] = value
    return found


def remarks_on_labels(where: str, labels: Iterable[str]) -> list[tuple[str, Flaw]]:
    """Labels that seem to be an emotion that the kit knows, in another spelling.

    Parameters
    ----------
    where : str
        Name of the table.
    labels : iterable of str
        Its labels.
    """
    return [(where, Flaw("warn", "spelling", f"the label {label!r} seems to be {emotion!r}, for which there are "
                         "scenarios in words", f"write {emotion!r} if you mean it"))
            for label, emotion in emotions_spelled_otherwise(labels).items()]


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Names that differ only in case, blanks, hyphens, marks at the end or the way a letter is encoded, together."""
    alike = defaultdict(list)
    for name in dict.fromkeys(map(str, names)):
        plain = unicodedata.normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ")
        alike[" ".join(plain.split()).rstrip(" .,;:!?")].append(name)
    return [tuple(group) for group in alike.values() if len(group) > 1]


def refuse_look_alikes(where: Path, what: str, names: Iterable[str]) -> None:
    """SourceError if two names differ only so: two people, or two labels, would be made of one.

    Parameters
    ----------
    where : path
        File of the names.
    what : str
        What they are, in a word.
    names : iterable of str
        As they are written.
    """
    if groups := look_alikes(names):
        listed = " and ".join(repr(name) for name in groups[0])
        raise SourceError(f"{where}: the {what}s {listed} differ only in case, blanks or marks; write one and the same "
                          "name, or two that differ in letters.")
