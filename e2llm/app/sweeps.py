"""Sweeps: one run for every combination of a grid of parameters, and tables over all of them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..core.files import check_name, replacing
from ..core.tables import read_predictions
from ..evaluation.tiers import pooled, spread
from .locks import RunBusy
from .pipeline import PipelineError, find_notebooks, load_profile, run_name, run_pipeline, validate
from .runs import Run, StageMissing, runs_folder

REPEATS = ("seed", "fold")  # swept parameters that mean and SD are taken over


def sweep(profile: str | Path, grid: Mapping[str, Sequence], name: str | None = None,
          overrides: Mapping | None = None) -> pd.DataFrame:
    """Run every combination of a grid and write the numbers of their ``metrics.json`` into one table.

    Parameters
    ----------
    profile, overrides
        As in :func:`e2llm.app.pipeline.run_pipeline`, the same for all runs.
    grid : mapping
        Parameter to the values it takes.
    name : str, optional
        Runs are called ``<name>-<key><value>…``, the table ``<name>-sweep.csv``. Default: the name of a run with the
        profile and the overrides (:func:`table_name`).

    Returns
    -------
    DataFrame
        One row per run; a failed run has its message in ``error`` and does not stop the others. Then rows ``mean``
        and ``sd`` (n - 1) over ``seed`` and ``fold``, for each combination of the other keys that has several runs.

    Raises
    ------
    ValueError
        If the grid is empty or repeats a value, or a parameter is refused; before any run starts.
    """
    empty = [key for key, values in grid.items() if len(values) == 0]
    if not grid or empty:
        raise ValueError(f"A sweep needs at least one value for each of its keys, got {dict(grid)}.")
    notebooks = find_notebooks()
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for combination in combinations:  # all of them, before the first one starts
        validate(load_profile(profile), {**(overrides or {}), **combination}, notebooks)
    shown = check_name(name) if name else ""
    names = [run_name(profile, combination if name else {**(overrides or {}), **combination},
                      shown) for combination in combinations]
    if len(set(names)) < len(names):
        raise ValueError(f"Two runs of the sweep are the same in {names}: give each value once.")
    name = table_name(profile, overrides, name)
    rows = []
    for run_id, combination in zip(names, combinations, strict=True):
        row = {"run": run_id, **combination}
        try:
            run = run_pipeline(profile, {**(overrides or {}), **combination}, run_id, notebooks)
            row |= scalars(run.read_metrics())
        except (PipelineError, StageMissing, RunBusy) as error:
            row["error"] = str(error)
        rows.append(row)
    table = _with_mean_and_sd(pd.DataFrame(rows), list(grid))
    with replacing(runs_folder() / f"{name}-sweep.csv") as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    if len(grid.get("seed", ())) >= 3:
        _spread_over_seeds(rows, list(grid), name)
    if "fold" in grid:
        _pool_folds(rows, list(grid), name)
    return table


def table_name(profile: str | Path, overrides: Mapping | None = None, name: str | None = None) -> str:
    """Beginning of the file names of a sweep's tables.

    Parameters
    ----------
    profile : str or path
        Name or YAML file.
    overrides : mapping, optional
        Parameters that differ from the profile.
    name : str, optional
        Taken as it is.
    """
    return name or run_name(profile, overrides or {})


def _spread_over_seeds(rows: list[dict], swept: list[str], name: str) -> None:
    """Write mean and spread over the seeds, for each combination of the other keys: ``<name>-seeds.csv``."""
    others = [key for key in swept if key != "seed"]
    groups: dict[tuple, dict[int, dict]] = {}
    for row in rows:
        if "error" not in row:
            groups.setdefault(tuple(str(row[key]) for key in others),
                              {})[row["seed"]] = Run.open(row["run"]).read_metrics()
    tables = [spread(members).assign(**dict(zip(others, same, strict=True))) for same, members in groups.items()
              if len(members) >= 3]
    if tables:
        with replacing(runs_folder() / f"{name}-seeds.csv") as partial:
            pd.concat(tables, ignore_index=True).to_csv(partial, index=False, lineterminator="\n")


def _pool_folds(rows: list[dict], swept: list[str], name: str) -> None:
    """Write tier 1 over all folds of each combination of the other keys: ``<name>-pooled.csv``.

    Combinations with a failed fold are left out.
    """
    others = [key for key in swept if key != "fold"]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[key]) for key in others), []).append(row)
    tables = []
    for same, members in groups.items():
        if not any("error" in row for row in members):
            answers = [read_predictions(runs_folder() / row["run"] / "predictions.csv") for row in members]
            tables.append(pooled(answers).assign(**dict(zip(others, same, strict=True)), folds=len(members)))
    if tables:
        with replacing(runs_folder() / f"{name}-pooled.csv") as partial:
            pd.concat(tables, ignore_index=True).to_csv(partial, index=False, lineterminator="\n")


def scalars(metrics: Mapping, prefix: str = "") -> dict[str, float]:
    """The numbers of nested metrics as a flat dictionary; lists (tables, samples) are left out.

    Parameters
    ----------
    metrics : mapping
        Nested metrics.
    prefix : str
        Put before every key.

    Returns
    -------
    dict of str to float
        Keys are joined by dots.
    """
    flat = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= scalars(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = value
    return flat


def _with_mean_and_sd(table: pd.DataFrame, swept: list[str]) -> pd.DataFrame:
    numbers = [column for column in table.columns if column not in {"run", "error", *swept}]
    fixed = [key for key in swept if key not in REPEATS]
    groups = table.groupby([table[key].map(str) for key in fixed], sort=False) if fixed else [((), table)]
    rows = []
    for _, group in groups:
        whole = group.dropna(subset=numbers, how="all")
        if numbers and len(whole) > 1:
            same = {key: group[key].iloc[0] for key in fixed}
            rows += [{"run": "mean", **same, **whole[numbers].mean()}, {"run": "sd", **same, **whole[numbers].std()}]
    return pd.concat([table, pd.DataFrame(rows)], ignore_index=True) if rows else table
