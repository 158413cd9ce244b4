"""Write the scores of a run into the tables of README.md and docs/results.md.

``python docs/refresh_numbers.py runs/tiny/metrics.json`` changes only rows of tables that stand below a line
``<!-- numbers: metrics.json -->``. The first cell of a row names its score.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- numbers: metrics.json -->"


def refreshed(text: str, metrics: dict) -> str:
    """A page with the scores of ``metrics`` in its marked tables; rows that name no score stay."""
    tables = metrics["tables"]
    cells = {row["name"]: [_score(row)] for row in tables["tier_1"]}
    for row in tables["tiers_2_and_3"]:  # EEG, shuffled EEG, no EEG, in this order
        cells.setdefault(row["name"], []).append(_score(row))
    marked, lines = False, []
    for line in text.splitlines():
        marked = line == MARK or (marked and (not line or line.startswith("|")))
        old = line.strip("|").split("|")
        new = cells.get(old[0].strip()) if marked else None
        if new is not None:
            line = "|".join(["", old[0], *(f" {cell} " for cell in new), *old[1 + len(new) :], ""])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _score(row: dict) -> str:
    return f"{100 * row['score']:.1f} ({100 * row['low']:.1f} – {100 * row['high']:.1f})"


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for page in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        page.write_text(refreshed(page.read_text(encoding="utf-8"), found), encoding="utf-8")
