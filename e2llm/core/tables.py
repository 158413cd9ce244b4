"""Tables in files: only an empty cell is missing, and what is a name stays text.

pandas alone would read the labels ``NA`` and ``None`` as missing values, and ``1`` as a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from .files import one_line

_numbers = ("id", "session", "clip", "window", "start_s")  # columns of predictions that are no names


def read_table(path: str | Path, texts: Iterable[str] = ()) -> pd.DataFrame:
    """A table that a stage wrote.

    Parameters
    ----------
    path : path
        CSV.
    texts : iterable of str
        Columns that are text whatever they hold.

    Raises
    ------
    ValueError
        Naming the file, if it is no table.
    """
    return _read(path, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])


def _read(path: str | Path, **how: Any) -> pd.DataFrame:
    try:
        return pd.read_csv(path, **how)
    except FileNotFoundError:
        raise
    except Exception as error:  # of pandas, or of another encoding
        raise ValueError(f"{path} is not a readable table ({one_line(error)}): make it again.") from error


def read_predictions(path: str | Path) -> pd.DataFrame:
    """``predictions.csv`` with subjects, labels and answers as the text that they are.

    Parameters
    ----------
    path : path
        Written by :meth:`e2llm.app.runs.Run.write_predictions`; an answer that could not be read is missing.

    Raises
    ------
    ValueError
        As :func:`read_table`.
    """
    columns = _read(path, nrows=0).columns
    return read_table(path, [name for name in columns if name not in _numbers and not name.startswith("p(")])
