"""Write the tables of docs/plan.md anew: python docs/refresh_plan.py."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from e2llm.app.plan import Plan, plan, remedy

HERE = Path(__file__).resolve().parent
PAPER = yaml.safe_load((HERE.parent / "notebooks" / "profiles" / "paper.yaml").read_text(encoding="utf-8"))
BLOCK = re.compile(r"(<!-- plan: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
# name: language model, graphics cards, people
CASES = {
    "8B on one": ("Qwen/Qwen3-8B", "A100-80", 20), "8B on eight": ("Qwen/Qwen3-8B", "8xA100-80", 20),
    "14B on one": ("Qwen/Qwen3-14B", "A100-80", 20), "14B on eight": ("Qwen/Qwen3-14B", "8xA100-80", 20),
    "8B, 1000 people, on eight": ("Qwen/Qwen3-8B", "8xA100-80", 1000),
    "14B, 1000 people, on eight": ("Qwen/Qwen3-14B", "8xA100-80", 1000),
}  # fmt: skip
MEMORY, CORES = 512e9, 32  # of the machine that the page supposes


def case(name: str) -> tuple[Plan, str]:
    """The plan that a block of the page shows, and whether it fits or what would make it fit."""
    model, gpus, people = CASES[name]
    values = {name: value for name, value in PAPER.items() if name != "description"}
    values |= {"language_model": model, "n_jobs": 16}
    found = plan(values, gpus, people=people, host_memory=MEMORY, cores=CORES)
    if not found.faults:
        return found, "It fits."
    would_fit = re.sub(r"(?<=: )(-p .+)", r"`\1`", remedy(values, found, people=people, cores=CORES))
    return found, " ".join([*found.faults, would_fit])


def block(name: str) -> str:
    """A plan as tables in Markdown: stages, and memory of a device by part."""
    found, verdict = case(name)
    windows = ", ".join(f"{n:,} {part}" for part, n in found.windows.items() if part != "all")
    stages, parts = found.table(), found.parts()
    lines = [f"{found.size.people:,} people, {found.windows['all']:,} windows ({windows}) on {found.device}:", "",
             *_table(list(stages), stages.to_numpy().tolist()), "", "Memory of a device by part:", "",
             *_table(["part", *parts], [[part, *row] for part, row in zip(parts.index, parts.to_numpy().tolist(),
                                                                         strict=True)])]
    return "\n".join([*lines, "", verdict])


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def refreshed(page: str) -> str:
    """The page with its blocks made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}{block(found[2])}\n{found[3]}", page)


if __name__ == "__main__":
    path = HERE / "plan.md"
    path.write_text(refreshed(path.read_text(encoding="utf-8")), encoding="utf-8")
