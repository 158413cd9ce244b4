"""Mutation sampling: small faults are planted in a module, one at a time, and the module's tests should fail.

Cosmic-ray makes the mutants. A place of the source is drawn first and then one of its mutants, since most places have
many that any test would find. Annotations are never evaluated, so they are left out. Each mutant has a process of its
own, forked with the imports already made, in which the changed source stands for the module; no file is written.

``python benchmarks/mutants.py splits --n 100`` prints the survivors, and the share that was killed. It needs
``pip install cosmic-ray`` and an operating system that forks.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLOW = ("twin", "sixty_thousand", "random_clean", "nineteen", "stay_whole", "holds_the_truth",
        "permuted_rightly")  # parts of the names of tests that simulate much: they are left out
# What is sampled: source files, and the tests that run against each mutant.
SAMPLED: dict[str, tuple[list[str], list[str]]] = {
    "splits": (["data/splits.py", "data/protocols.py"], ["data/test_splits.py", "data/test_audit.py"]),
    "audit": (["data/audit.py"], ["data/test_audit.py", "data/test_splits.py"]),
    "thought_parser": (["tasks/thought_parser.py"], ["tasks/test_thought_parser.py"]),
    "metrics": (["evaluation/metrics.py"], ["evaluation/test_metrics.py", "evaluation/test_statistics.py"]),
}


@dataclass(frozen=True)
class Mutant:
    """One change of a source file."""

    path: str
    line: int
    column: int
    operator: str
    occurrence: int
    survived: bool | None = None
    change: tuple[str, str] = ("", "")  # lines before and after


def mutants_of(path: str) -> list[Mutant]:
    """All mutants of a file but those in annotations."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast

    source = (ROOT / path).read_text(encoding="utf-8")
    nodes, unevaluated = list(ast_nodes(get_ast(source))), list(annotations(ast.parse(source)))
    found = []
    for name in plugins.operator_names():
        operator = plugins.get_operator(name)
        if operator.arguments():  # those that must be told the name of a variable
            continue
        positions = (start for node in nodes for start, _ in operator().mutation_positions(node))
        found += [Mutant(path, *start, name.removeprefix("core/"), occurrence)
                  for occurrence, start in enumerate(positions)
                  if not any(first <= start < last for first, last in unevaluated)]
    return found


def annotations(tree: ast.Module) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations begin and end: line and column."""
    for node in ast.walk(tree):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def sample(mutants: list[Mutant], n: int, seed: int) -> list[Mutant]:
    """One mutant of each of ``n`` places drawn at random."""
    places: dict[tuple, list[Mutant]] = {}
    for mutant in mutants:
        places.setdefault((mutant.path, mutant.line, mutant.column), []).append(mutant)
    draw = random.Random(seed)
    return [draw.choice(places[place]) for place in draw.sample(sorted(places), min(n, len(places)))]


def mutated(mutant: Mutant) -> tuple[str, tuple[str, str]]:
    """Source of the file with the change, and the changed line before and after."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    changed = mutate_code(source, plugins.get_operator(f"core/{mutant.operator}")(), mutant.occurrence)
    pairs = zip(source.splitlines(), changed.splitlines(), strict=False)
    return changed, next(((old.strip(), new.strip()) for old, new in pairs if old != new), ("", ""))


class Planted(importlib.machinery.SourceFileLoader):
    """Finds one module and gives it the changed source."""

    def __init__(self, path: str, source: str):
        super().__init__(path.removesuffix(".py").replace("/", "."), str(ROOT / path))
        self.source = source

    def find_spec(self, name, path=None, target=None):
        """Of that module only."""
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name):
        """Compiled from the changed source, never from a cache."""
        return compile(self.source, self.path, "exec", dont_inherit=True)


def forked(work: Callable[[], int], limit_s: float) -> int | None:
    """Exit code of the work, done in a process of its own whose output is discarded; None if it takes too long."""
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.setsid()
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os._exit(work())
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run_tests(tests: list[str], folder: Path, planted: Planted | None = None, imported: Path | None = None) -> int:
    """Exit code of pytest; ``imported`` is a file for the names of the modules that the tests have imported."""
    import pytest

    if planted:
        sys.meta_path.insert(0, planted)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
    code = pytest.main(["-x", "-q", "-n", "0", "-o", "addopts=", "-p", "no:randomly", "-p", "no:cacheprovider",
                        "--hypothesis-seed=0", "-m", "not full", "-k", f"not ({' or '.join(SLOW)})",
                        f"--basetemp={folder / 'tests'}", *tests])
    if imported:
        own = ("e2llm", "test_", "conftest", "__main__")
        imported.write_text("\n".join(name for name in sys.modules if not name.startswith(own)), encoding="utf-8")
    return int(code)


def import_all(names: list[str]) -> None:
    """Import what the tests need of other packages, so that every forked process has it."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:  # a part that only its package can import
            continue


def main() -> int:
    """Sample, run, print; exit code 1 if too few are killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SAMPLED)
    parser.add_argument("--n", type=int, default=100, help="places that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors-of", type=Path, help="a --json of an earlier run: only its survivors run again")
    parser.add_argument("--json", type=Path, help="file for all mutants")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    files, tests = ([f"{top}/{name}" for name in names]
                    for top, names in zip(("e2llm", "tests"), SAMPLED[args.what], strict=True))
    everything = [mutant for file in files for mutant in mutants_of(file)]
    places = len({(mutant.path, mutant.line, mutant.column) for mutant in everything})
    drawn = sample(everything, args.n, args.seed)
    if args.survivors_of:
        earlier = [Mutant(**row) for row in json.loads(args.survivors_of.read_text(encoding="utf-8"))]
        drawn = [mutant for mutant in earlier if mutant.survived]
    print(f"{args.what}: {len(everything)} mutants at {places} places, {len(drawn)} drawn (seed {args.seed})")
    folder, results = Path(tempfile.mkdtemp()), []
    try:
        imported = folder / "imported"
        if forked(lambda: run_tests(tests, folder, imported=imported), 1200):
            print("The tests fail without any mutant: mend them first.")
            return 2
        import_all(imported.read_text(encoding="utf-8").split())
        start = time.monotonic()
        forked(lambda: run_tests(tests, folder), 1200)
        seconds = time.monotonic() - start
        print(f"The tests take {seconds:.1f} s.", flush=True)
        for mutant in drawn:
            source, change = mutated(mutant)
            planted = Planted(mutant.path, source)
            survived = forked(lambda planted=planted: run_tests(tests, folder, planted), 20 + 3 * seconds) == 0
            results.append(Mutant(**{**asdict(mutant), "survived": survived, "change": change}))
            if survived:
                print(f"{mutant.path}:{mutant.line} {mutant.operator}\n  - {change[0]}\n  + {change[1]}", flush=True)
            if args.json:
                args.json.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    killed = sum(not result.survived for result in results)
    print(f"{killed} of {len(results)} killed ({killed / max(1, len(results)):.0%}).")
    return int(killed < 0.8 * len(results))


if __name__ == "__main__":
    sys.exit(main())
