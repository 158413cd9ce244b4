"""Sweeps: one run for every combination of a grid of parameters, and tables over all of them.

The runs are made one after the other, or at the same time by the workers of a Dask cluster. Stages that they have in
common are made once (:mod:`e2llm.app.sharing`).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.arguments import check_number
from ..core.files import check_name, one_line, project_root, read_yaml, replacing
from ..core.tables import read_predictions
from ..data.sources.base import RecordingError, SourceError
from ..evaluation.from_thought import pooled_price
from ..evaluation.tiers import pooled, spread
from .locks import RunBusy
from .pipeline import (
    PipelineError,
    find_notebooks,
    load_profile,
    profile_path,
    run_name,
    run_pipeline,
    text_kept,
    validate,
)
from .runs import Run, StageMissing, runs_folder

REPEATS = ("seed", "fold")  # swept parameters that mean and SD are taken over


@dataclass(frozen=True)
class Workers:
    """Who makes the runs of a sweep: at most one of these; none makes them one after the other, here.

    Parameters
    ----------
    workers : int, optional
        Processes to start on this machine, of one thread each.
    scheduler : str
        Address of a Dask scheduler, ``tcp://host:port``.
    scheduler_file : path, optional
        File that a Dask scheduler wrote.
    """

    workers: int | None = None
    scheduler: str = ""
    scheduler_file: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.workers is not None) + bool(self.scheduler) + (self.scheduler_file is not None) > 1:
            raise ValueError("Give one of workers, scheduler and scheduler_file.")
        if self.workers is not None:
            check_number("workers", self.workers, 1, 1024, whole=True)

    @property
    def asked(self) -> bool:
        """Whether Dask is asked for."""
        return self != Workers()


@dataclass(frozen=True)
class SweepFile:
    """What a file of a sweep says; see :func:`read_sweep`."""

    profile: str = "tiny"
    name: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, list] = field(default_factory=dict)


def read_sweep(path: str | Path) -> SweepFile:
    """Read a sweep out of a YAML file.

    Parameters
    ----------
    path : path
        It has ``grid`` (parameter: list of values) and may have ``profile``, ``name`` and ``parameters``.

    Raises
    ------
    ValueError
        If the file is missing, or is not of this form.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {path}: give a YAML file with a grid, or the grid by -g.")
    content, written = read_yaml(path)
    known = {"profile": str, "name": str, "parameters": dict, "grid": dict, "description": str}
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a mapping with the entries {', '.join(known)}.")
    for key, value in content.items():
        if key not in known:
            raise ValueError(f"{path} has the entry {key!r:.100}: known are {', '.join(known)}.")
        if not isinstance(value, known[key]):
            kind = "a mapping" if known[key] is dict else "text"
            raise ValueError(f"{path}: {key} must be {kind}.")
    grid = {str(key): text_kept(str(key), values, written["grid"].get(key)) for key, values in
            content.get("grid", {}).items()}
    for key, values in grid.items():
        if not isinstance(values, list):
            raise ValueError(f"{path}: {key} in the grid must be a list of values, as [1, 2].")
    fixed = {str(key): text_kept(str(key), value, written["parameters"].get(key)) for key, value in
             content.get("parameters", {}).items()}
    return SweepFile(content.get("profile", "tiny"), content.get("name"), fixed, grid)


def sweep(profile: str | Path, grid: Mapping[str, Sequence], name: str | None = None,
          overrides: Mapping | None = None, workers: Workers | None = None) -> pd.DataFrame:
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
    workers : Workers, optional
        Who makes the runs; default: one after the other, here.

    Returns
    -------
    DataFrame
        One row per run; a failed run has its message in ``error`` and does not stop the others. Then rows ``mean``
        and ``sd`` (n - 1) over ``seed`` and ``fold``, for each combination of the other keys that has several runs.

    Raises
    ------
    ValueError
        If the grid is empty or repeats a value, a parameter is refused, or Dask is asked for and not installed;
        before any run starts.
    OSError
        If the cluster cannot be used (:class:`e2llm.app.cluster.ClusterError`).
    """
    empty = [key for key, values in grid.items() if len(values) == 0]
    if not grid or empty:
        raise ValueError(f"A sweep needs at least one value for each of its keys, got {dict(grid)}.")
    notebooks = [path.resolve() for path in find_notebooks()]
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for combination in combinations:  # all of them, before the first one starts
        validate(load_profile(profile), {**(overrides or {}), **combination}, notebooks)
    shown = check_name(name) if name else ""
    names = [run_name(profile, combination if name else {**(overrides or {}), **combination},
                      shown) for combination in combinations]
    if len(set(names)) < len(names):
        raise ValueError(f"Two runs of the sweep are the same in {names}: give each value once.")
    name = table_name(profile, overrides, name)
    wanted = {run: {**(overrides or {}), **combination} for run, combination in zip(names, combinations, strict=True)}
    if workers is not None and workers.asked:
        ended = _on_workers(workers, profile, wanted, notebooks)
    else:
        ended = _one_after_the_other(profile, wanted, notebooks)
    rows = [{"run": run, **combination, **ended[run]} for run, combination in zip(names, combinations, strict=True)]
    table = _with_mean_and_sd(pd.DataFrame(rows), list(grid))
    with replacing(runs_folder() / f"{name}-sweep.csv") as partial:
        table.to_csv(partial, index=False, lineterminator="\n")
    # Also without seeds or folds: a table of an earlier sweep of this name goes.
    _spread_over_seeds(rows if len(grid.get("seed", ())) >= 3 else [], list(grid), name)
    _pool_folds(rows if "fold" in grid else [], list(grid), name)
    return table


def _one_after_the_other(profile: str | Path, wanted: Mapping[str, Mapping],
                         notebooks: Sequence[Path]) -> dict[str, dict]:
    """The numbers of every run, or the reason why it failed."""
    ended = {}
    for run, parameters in wanted.items():
        try:
            ended[run] = scalars(run_pipeline(profile, parameters, run, notebooks, share=True).read_metrics())
        except (PipelineError, StageMissing, RunBusy, RecordingError, SourceError, ValueError, OSError) as error:
            ended[run] = {"error": str(error)}  # of one run; the others go on
    return ended


def _on_workers(workers: Workers, profile: str | Path, wanted: Mapping[str, Mapping],
                notebooks: Sequence[Path]) -> dict[str, dict]:
    """As :func:`_one_after_the_other`, by the workers of a cluster."""
    try:
        from . import cluster, worker_run
    except ImportError as error:
        raise ValueError(f"Workers need Dask, which is not installed ({error}): pip install -c constraints.txt -e "
                         '".[cluster]", or leave the option out to make one run after the other.') from error
    import tqdm

    folder, root, file = runs_folder(), project_root(), profile_path(profile).resolve()
    here = Path.cwd() if Path.cwd().is_relative_to(root) else root  # paths in parameters may be relative to it
    jobs = {run: {"profile": str(file), "parameters": dict(parameters), "name": run, "here": str(here),
                  "runs": str(folder), "notebooks": [str(path) for path in notebooks]}
            for run, parameters in wanted.items()}  # fmt: skip
    ended: dict[str, dict] = {}
    with cluster.connected(workers.workers, workers.scheduler, workers.scheduler_file) as client:
        there = sorted(client.nthreads())  # one that joins during the check is asked later
        if faults := cluster.check_workers(client, folder, [*notebooks, file], there):
            raise cluster.ClusterError(" ".join([*faults.values(), "Nothing was started."]))
        print(f"{len(jobs)} runs on {len(there)} workers; Dask's dashboard: {cluster.dashboard(client)}",
              file=sys.stderr, flush=True)
        bar = tqdm.tqdm(total=len(jobs), unit="run", disable=None, file=sys.stderr)

        def done(run: str, result: Any) -> None:
            ended[run] = {"error": one_line(result)} if isinstance(result, BaseException) else scalars(result)
            bar.update()
            failed = sum("error" in facts for facts in ended.values())
            bar.set_postfix_str(f"{failed} failed" if failed else "")
            if bar.disable or "error" in ended[run]:
                said = f"failed: {ended[run]['error']}" if "error" in ended[run] else "finished"
                bar.write(f"{run}: {said} ({len(ended)} of {len(jobs)})", file=sys.stderr)

        with bar:
            cluster.run_jobs(client, worker_run.make_run, jobs, done,
                             lambda new: cluster.check_workers(client, folder, [*notebooks, file], new), there)
    return ended


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
    _write_or_remove(runs_folder() / f"{name}-seeds.csv", tables)


def _pool_folds(rows: list[dict], swept: list[str], name: str) -> None:
    """Write tier 1 over all folds of each combination of the other keys: ``<name>-pooled.csv``.

    With answers from the thought also what they cost: ``<name>-price.csv``. Combinations with a failed fold are left
    out.
    """
    others = [key for key in swept if key != "fold"]
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[key]) for key in others), []).append(row)
    tables, prices = [], []
    for same, members in groups.items():
        if not any("error" in row for row in members):
            answers = [read_predictions(runs_folder() / row["run"] / "predictions.csv") for row in members]
            facts = {**dict(zip(others, same, strict=True)), "folds": len(members)}
            tables.append(pooled(answers).assign(**facts))
            prices.append(pooled_price(answers).assign(**facts))
    _write_or_remove(runs_folder() / f"{name}-pooled.csv", tables)
    _write_or_remove(runs_folder() / f"{name}-price.csv", [table for table in prices if len(table)])


def _write_or_remove(path: Path, tables: Sequence[pd.DataFrame]) -> None:
    """Write tables as one; where there are none, that of an earlier sweep goes, for it would pass as this one's."""
    if not tables:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as partial:
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
