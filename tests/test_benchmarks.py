"""Benchmarks that need what this machine may lack: they run here at the smallest size, so that they run there."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = ROOT / "tests" / "expected_tiny.json"


def benchmark(name: str, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(ROOT / "benchmarks" / name), *options], capture_output=True, text=True,
                          cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_the_benchmark_of_graphics_cards_trains_and_counts_on_a_processor():
    done = benchmark("gpu.py", "--device", "cpu", "--model", "e2llm-tiny", "--dtype", "float32", "--steps", "5",
                     "--batch", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    row = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert row[:3] == ["processor", "e2llm-tiny, float32", "2"]
    ms, tokens, rate, share = (float(cell.replace(",", "")) for cell in row[3:7])
    assert ms > 0 and tokens > 0 and 0 < share < 100 and rate > 0
    assert row[7] == "not measured on a processor" and float(row[8].split()[0]) > 0


def test_a_run_on_a_card_is_compared_with_the_committed_scores(tmp_path):
    scores = json.loads(EXPECTED.read_text())["tables"]["tier_1"]
    rows = [{"name": name, "score": score, "low": score - 0.03, "high": score + 0.03} for name, _, score in scores]
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"tables": {"tier_1": rows}}))
    done = benchmark("gpu.py", "--compare", str(metrics))
    assert done.returncode == 0 and done.stdout.count("\n| ") == len(scores), done.stderr
    rows[3] |= {"score": 0.1, "low": 0.05, "high": 0.15}
    metrics.write_text(json.dumps({"tables": {"tier_1": rows}}))
    done = benchmark("gpu.py", "--compare", str(metrics))
    assert done.returncode == 1
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines() if "outside" in line] == [scores[3][0]]


SCRIPTS = [*sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "docs").glob("*.py"))]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_take_only_what_the_package_has(path):
    """Scripts that no other test runs would not notice that a name has moved."""
    missing = [f"{node.module}.{each.name}" for node in ast.walk(ast.parse(path.read_text()))
               if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "e2llm"
               for each in node.names if not there(node.module, each.name)]
    assert missing == []


def there(module: str, name: str) -> bool:
    found = importlib.import_module(module)
    return hasattr(found, name) or (hasattr(found, "__path__")
                                    and importlib.util.find_spec(f"{module}.{name}") is not None)


def test_a_name_that_has_moved_is_noticed():
    assert there("e2llm.app", "stages") and not there("e2llm.app.stages", "instruct_second_pass")
