"""Collect the results of a run and write its ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.files import read_mapping, read_yaml, replacing
from ..data.checks import read_quality
from ..viz.report_page import render
from .parameters import Parameters, written
from .runs import Run, StageMissing


def build(run: Run) -> Path:
    """Write the report of a run from the files in its folder.

    Parameters
    ----------
    run : Run
        Read are ``metrics.json``, ``params.yaml``, the records of finished stages and ``figures/*.png``. If the
        metrics are missing or belong to an earlier state of the run, the report has no results. A figure of an earlier
        state is left out.

    Returns
    -------
    Path
        ``report.html`` in the run's folder.
    """
    run.refresh_manifest()
    stages = read_mapping(run.path / "manifest.json", {"stages": dict})["stages"]
    try:
        metrics = run.read_metrics()
    except StageMissing:  # none yet, or of an earlier state of the run: they do not belong to its stages
        metrics = {}
    figures = {name: path.read_bytes() for name, path in run.current_figures().items()}
    values = _values(run)
    html = render(run.name, metrics, stages, figures, _reasoning(run, metrics), _quality(run), values,
                  _by_group(values))
    path = run.path / "report.html"
    with replacing(path) as partial:
        partial.write_text(html, encoding="utf-8", errors="backslashreplace")
    return path


def _values(run: Run) -> dict:
    """Parameters that the pipeline wrote; none of a run that was made stage by stage."""
    path = run.path / "params.yaml"
    found = read_yaml(path)[0] if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _by_group(values: Mapping) -> dict[str, list[dict]]:
    """Rows of the parameters that a run used, by group, each with its help and, where it has another, its default."""
    found = {}
    for group in Parameters.__bases__:
        rows = [{"name": name, "value": written(values[name]), "help": field.description,
                 "default": "" if written(values[name]) == written(field.default) else written(field.default)}
                for name, field in group.model_fields.items() if name in values]
        if rows:
            found[group.__doc__.removesuffix(".")] = rows
    return found


def _quality(run: Run) -> list[dict]:
    """Findings of the gate; none without windows, or of windows that were made before there was a gate."""
    folder = run.path / "windows" / "signal"
    if run.finished("windows") is None or not (folder / "quality.csv").is_file():
        return []
    return read_quality(folder)[0].to_dict("records")


_REASONING = {
    "claims": "Claims: precision and recall",
    "explanations": "Whole explanations",
    "capacity": "What a thought can carry: balanced accuracy of logistic regression on what is stated",
    "causes": "Claims or EEG exchanged: the model beside planted models whose chain is known",
    "simulatability": "Answers that a reader of the claims foretells, fitted on the model's own answers in training",
    "interventions": "Answers that change when the explanation is edited",
    "counterfactuals": "Signal edits: one band of one region scaled",
    "followed": "Signal edits that point to another label: whether the answer from the thought becomes it",
    "agreement": "Agreement of attribution with the simulated regions",
    "areas": "Deletion and insertion, nats",
    "feedback": "Training with feedback",
}


def _reasoning(run: Run, metrics: Mapping) -> dict | None:
    """Results of lesson 07, or None if there are none for the present state of the run."""
    if run.finished("reasoning") is None:
        return None
    from .reasoning_stage import open_reasoning  # here: it loads the models' libraries

    found = open_reasoning(run)
    tables = {title: found.tables[name].replace({float("nan"): None}).to_dict("records")
              for name, title in _REASONING.items() if name in found.tables and not found.tables[name].empty}
    meaning = found.facts["meaning"]
    if price := metrics.get("tables", {}).get("price"):
        import pandas as pd

        from ..evaluation.from_thought import price_in_words

        first, point, rest = meaning.partition(". ")
        meaning = f"{first}. {price_in_words(pd.DataFrame(price))} {rest}" if point else meaning
    return {"meaning": meaning, "tables": tables,
            "examples": [("Best explanations", found.examples["best"]),
                         ("Worst explanations", found.examples["worst"])]}
