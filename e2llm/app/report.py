"""TODO purpose of app.report."""

from __future__ import annotations

import json
from pathlib import Path

from ..core.files import replacing
from ..viz.report import render
from .reasoning_stage import open_reasoning
from .runs import Run


def build(run: Run) -> Path:
    """Write the report of a run from what lies in its folder.

    Parameters
    ----------
    run : Run
        Read are ``metrics.json`` (each of ``tables``: name to list of rows; ``samples``: list of mappings such as
        question, answer, truth), the records of finished stages and ``figures/*.png``. A run without metrics of its
        present state, for it was cut off, gets a report of what there is.

    Returns
    -------
    Path
        ``report.html`` in the run's folder.
    """
    run.refresh_manifest()
    stages = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))["stages"]
    metrics = run.read_metrics() if (run.path / "metrics.json").is_file() else {}
    figures = {path.stem: path.read_bytes() for path in sorted((run.path / "figures").glob("*.png")) if not path.name.startswith(".")}
    html = render(run.name, metrics, stages, figures, _reasoning(run))
    path = run.path / "report.html"
    with replacing(path) as partial:
        partial.write_text(html, encoding="utf-8")
    return path


_REASONING = {"claims": "Are the claims true?", "explanations": "Whole explanations",
              "interventions": "Share of answers that change with the thought",
              "counterfactuals": "One band of one region scaled in the signal",
              "agreement": "Attribution and the generator's regions", "areas": "Deletion and insertion, nats", "feedback": "A round of feedback"}


def _reasoning(run: Run) -> dict | None:
    """What lesson 07 found, or None if it was not run on what is there now."""
    if run.finished("reasoning") is None:
        return None
    found = open_reasoning(run)
    tables = {title: found.tables[name].replace({float("nan"): None}).to_dict("records")
              for name, title in _REASONING.items() if not found.tables[name].empty}
    return {"meaning": found.facts["meaning"], "tables": tables,
            "examples": [("Best explanations", found.examples["best"]), ("Worst explanations", found.examples["worst"])]}
