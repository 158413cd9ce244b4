"""A split of anybody's project as a table: one row a window, read and checked, for the rules of the auditor."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.arguments import check_one_of
from ..core.files import one_line
from .protocols import Split

_needed = {"subject": "who was recorded", "clip": "what was shown, or the trial", "label": "the class",
           "part": "train, val or test"}
_optional = {"session": "when", "start_s": "where the window begins in its trial, seconds",
             "context": "how the label was evoked", "fit": "1: its signal took part in the normalization",
             "shown": "1: a few-shot example or an instruction item holds it"}
_names = {"start": "start_s", "onset": "start_s", "participant": "subject", "trial": "clip", "video": "clip",
          "stimulus": "clip", "class": "label", "emotion": "label", "split": "part", "set": "part", "subset": "part"}
_parts = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
          "test": "test", "testing": "test", "": "", "none": "", "unused": ""}
_promises = {(): "a split of your own", ("subjects",): "subjects", ("clips",): "clips", ("clips", "subjects"): "joint",
             ("contexts",): "cross_context", ("contexts", "subjects"): "cross_context_joint"}
NORMALIZATIONS = {
    "none": "each window by itself, or none", "training": "statistics of the training part",
    "fit": "statistics of the windows that the column 'fit' marks",
    "subject": "each person's own statistics, test windows included",
    "all": "statistics of all windows, test windows included", "unknown": "not stated",
}  # fmt: skip
_LARGEST = 1e100  # of a number in a table; the square of a larger one may be none
LEAST_FEATURES = 8  # columns; fewer tell no copy from a neighbor


@dataclass(frozen=True)
class SplitTable:
    """A table of windows that was read.

    Parameters
    ----------
    index : DataFrame
        One row a window: ``subject``, ``session``, ``clip`` (numbers), ``label`` and, where the table has them,
        ``start_s`` and ``context``.
    split : Split
        Its parts.
    shown : ndarray of int
        Rows that instruction items or few-shot examples hold.
    power : ndarray, shape (n_windows, n_features, 1), optional
        Features, standardized and exponentiated, for the rule about copies.
    unused : tuple of str
        Columns that nothing was read from.
    """

    index: pd.DataFrame
    split: Split
    shown: np.ndarray
    power: np.ndarray | None
    unused: tuple[str, ...]


def read_split_table(path: str | Path, unseen: Sequence[str] = (), normalization: str = "unknown",
                     features: str = "feature*") -> SplitTable:
    """Read a table of windows.

    Parameters
    ----------
    path : path
        CSV or TSV in UTF-8 with the columns ``subject, clip, label, part`` and, optionally, ``session``, ``start_s``
        (seconds), ``context``, ``fit``, ``shown`` and features. Clips that are no numbers count in the order of their
        first row.
    unseen : sequence of str
        What the split promises: ``subjects``, ``clips``, ``contexts`` of the test part are in no training part.
    normalization : str
        Key of :data:`NORMALIZATIONS`.
    features : str
        Pattern of the columns that hold features.

    Raises
    ------
    ValueError
        Naming the file, the line where there is one, the fact and what to do.
    """
    path = Path(path)
    rows = _read(path)
    for line, row in enumerate(rows[list(_needed)].to_dict("records"), start=2):
        if empty := [name for name, cell in row.items() if not cell and name != "part"]:
            raise ValueError(f"{path}, line {line}: {empty[0]} is empty ({_needed[empty[0]]}): fill it.")
        if row["part"].lower() not in _parts:
            raise ValueError(f"{path}, line {line}: part is {row['part']!r}: write train, val or test, or nothing for "
                             "a window that is not used.")
    promise = _promises.get(tuple(sorted(set(map(str, unseen)))))
    if promise is None:
        raise ValueError(f"'unseen' cannot be {', '.join(map(str, unseen))}: give subjects, clips, subjects and "
                         "clips, contexts, or subjects and contexts.")
    index = rows[[name for name in ("subject", "session", "clip", "label", "context") if name in rows]].copy()
    index["clip"] = _numbered(rows["clip"])
    if "session" in index:
        index["session"] = _numbered(rows["session"])
    if "start_s" in rows:
        index["start_s"] = _numbers(path, rows, "start_s")
    if promise.startswith("cross") and "context" not in index:
        raise ValueError(f"{path} has no column 'context', and contexts are said to be unseen: add it.")
    part = rows["part"].str.lower().map(_parts).to_numpy()
    places = {name: np.flatnonzero(part == name) for name in ("train", "val", "test")}
    used = [*_needed, *_optional]
    columns = [name for name in rows if fnmatch.fnmatch(name, features) and name not in used]
    fit = _fit(path, rows, normalization, places["train"])
    split = Split(promise, places["train"], places["val"], places["test"], *fit)
    unused = tuple(name for name in rows if name not in used and name not in columns)
    return SplitTable(index, split, _marked(rows, "shown"), _power(path, rows, columns), unused)


def _read(path: Path) -> pd.DataFrame:
    """The table as text, under the names used here."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{one_line(path)} is no file: give a table, one row a window.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error.reason}): save it as CSV in UTF-8.") from None
    header = text.partition("\n")[0]
    sign = max(",;\t", key=header.count)
    try:
        rows = pd.read_csv(path, sep=sign, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OverflowError) as error:  # of pandas: ParserError, EmptyDataError
        raise ValueError(f"{path} is no table ({one_line(error)}): write one row a window.") from None
    # The head is read as a row: pandas would name a second column of one name anew, and shift cells of longer rows.
    head = [name.strip().lower() or f"unnamed {place}" for place, name in enumerate(rows.iloc[0].fillna(""))]
    rows = rows.iloc[1:].fillna("").set_axis([_names.get(name, name) for name in head], axis=1).reset_index(drop=True)
    if twice := sorted(set(rows.columns[rows.columns.duplicated()])):
        raise ValueError(f"{path} has several columns for {', '.join(twice)}: leave one of each.")
    if missing := [name for name in _needed if name not in rows]:
        raise ValueError(f"{path} has no column {', '.join(f'{name!r} ({_needed[name]})' for name in missing)}; it has "
                         f"{', '.join(f'{name!r:.40}' for name in rows.columns[:12])}, separated by {sign!r}.")
    if rows.empty:
        raise ValueError(f"{path} has no rows: write one row a window.")
    return rows.apply(lambda column: column.str.strip())


def _numbered(column: pd.Series) -> pd.Series:
    """Whole numbers as they are; other names by the order of their first row."""
    if column.str.fullmatch(r"\d{1,9}").all():
        return column.astype(int)
    return pd.Series(pd.factorize(column)[0] + 1, index=column.index)


def _numbers(path: Path, rows: pd.DataFrame, name: str) -> pd.Series:
    values = pd.to_numeric(rows[name], errors="coerce")
    if (wrong := ~(np.abs(values.to_numpy(dtype=float)) < _LARGEST)).any():
        line = int(wrong.argmax())
        raise ValueError(f"{path}, line {line + 2}: {name} is {rows[name][line]!r:.60}, no finite number: correct it.")
    return values.astype(float)


def _marked(rows: pd.DataFrame, name: str) -> np.ndarray:
    """Rows whose cell in a column says yes; none without the column."""
    if name not in rows:
        return np.empty(0, dtype=int)
    return np.flatnonzero(rows[name].str.lower().isin(["1", "1.0", "true", "yes", "x"]))


def _fit(path: Path, rows: pd.DataFrame, normalization: str, train: np.ndarray) -> tuple[np.ndarray, str]:
    """Rows that the normalization was fitted on, and what that is called by the rules."""
    check_one_of("normalization", normalization, NORMALIZATIONS)
    if normalization == "fit" and "fit" not in rows:
        raise ValueError(f"{path} has no column 'fit' ({_optional['fit']}): add it, or name another normalization.")
    everything = np.arange(len(rows))
    return {"none": (everything[:0], "calibration"), "unknown": (everything[:0], "calibration"),
            "training": (train, "population"), "fit": (_marked(rows, "fit"), "calibration"),
            "subject": (everything, "transductive"), "all": (everything, "population")}[normalization]


def _power(path: Path, rows: pd.DataFrame, columns: list[str]) -> np.ndarray | None:
    """Features in the form in which the rule about copies compares band power: as exponentials of what is compared."""
    if len(columns) < LEAST_FEATURES:
        return None
    values = np.column_stack([_numbers(path, rows, name) for name in columns])
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    return np.exp(np.clip(values, -20, 20))[:, :, None] if values.shape[1] >= LEAST_FEATURES else None
