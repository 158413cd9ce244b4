"""Write the scores of a run into the tables of README.md and of pages in docs/.

``python docs/refresh_numbers.py runs/tiny/metrics.json`` changes only rows of tables that stand below a line
``<!-- numbers: metrics.json -->`` or ``<!-- price: metrics.json -->``. The first cell of a row names its score.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- numbers: metrics.json -->"
PRICE = "<!-- price: metrics.json -->"  # of answers from the thought alone
PAGES = ("README.md", "docs/results.md", "docs/explanations.md")


def refreshed(text: str, metrics: dict) -> str:
    """A page with the scores of ``metrics`` in its marked tables; rows that name no score stay."""
    tables = metrics["tables"]
    cells = {row["name"]: [_score(row)] for row in tables["tier_1"]}
    for row in tables["tiers_2_and_3"]:  # EEG, shuffled EEG, no EEG, in this order
        cells.setdefault(row["name"], []).append(_score(row))
    for row in tables.get("from_thought", ()):
        if row["name"] == "predict":
            cells[f"LLM, {row['group']}"] = [_score(row)]
    price = {row["name"]: _price(row) for row in tables.get("price", ())}
    marked, lines = None, []
    for line in text.splitlines():
        marked = line if line in (MARK, PRICE) else marked if not line or line.startswith("|") else None
        old = line.strip("|").split("|")
        new = {MARK: cells, PRICE: price, None: {}}[marked].get(old[0].strip())
        if new is not None:
            line = "|".join(["", old[0], *(f" {cell} " for cell in new), *old[1 + len(new) :], ""])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _score(row: dict) -> str:
    return f"{100 * row['score']:.1f} ({100 * row['low']:.1f} – {100 * row['high']:.1f})"


def _price(row: dict) -> list[str]:
    """Both scores, and what the answer from the thought gains or loses."""
    gain = "{:+.1f} ({:+.1f} – {:+.1f})".format(*(100 * row[name] for name in ("difference", "low", "high")))
    return [*(f"{100 * row[name]:.1f}" for name in ("from the EEG", "from the thought")), gain.replace("-", "−")]


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for page in map(ROOT.joinpath, PAGES):
        page.write_text(refreshed(page.read_text(encoding="utf-8"), found), encoding="utf-8")
