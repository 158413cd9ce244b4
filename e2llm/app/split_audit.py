"""``e2llm audit splits.csv``: is the test score of this split worth anything? For every project; needs no torch."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

from ..core.files import replacing
from ..data.pretraining_overlap import ENCODERS
from ..data.split_table import read_split_table
from ..evaluation.split_audit import Statement, Verdict, audit_table, sentence
from ..viz.audit_page import render_audit

REFUSED = 1  # exit code


def run(arguments: argparse.Namespace) -> int:
    """Audit a table as the command line asks; return the exit code: 0 usable, 1 refused.

    Parameters
    ----------
    arguments : Namespace
        Of the command ``audit``.

    Raises
    ------
    ValueError
        If the table or a statement cannot be used.
    """
    if arguments.table is None:
        print("\n".join(f"{one.name}: {', '.join(one.seen)}{'' if one.complete else ', and more'} ({one.source})"
                        for one in ENCODERS))
        return 0
    if arguments.score is not None and not 0 <= arguments.score <= 1:
        raise ValueError(f"--score {arguments.score:g} is no share: give balanced accuracy between 0 and 1.")
    if not 0 < arguments.window_s < math.inf:
        raise ValueError(f"--window-s {arguments.window_s:g} is no length: give seconds.")
    table = read_split_table(arguments.table, arguments.unseen, arguments.normalization, arguments.features)
    stated = Statement(arguments.window_s, arguments.normalization, arguments.selected_on, arguments.repaired_over,
                       arguments.encoder, arguments.dataset, arguments.score)
    verdict = audit_table(table, stated, arguments.accept)
    for path, text in ((arguments.json, json.dumps(verdict.as_json(), indent=2, ensure_ascii=False)),
                       (arguments.html, render_audit(arguments.table.name, verdict))):
        if path == Path("-"):
            print(text)
        elif path is not None:
            with replacing(path) as partial:
                partial.write_text(f"{text}\n", encoding="utf-8", errors="backslashreplace")
    _say(arguments.table, verdict, sys.stderr if Path("-") in (arguments.json, arguments.html) else sys.stdout)
    return REFUSED if verdict.refused else 0


def _say(path: Path, verdict: Verdict, out) -> None:
    print(f"{path}: {verdict.word}", file=out)
    for name, fact in verdict.facts.items():
        print(f"  {name}: {fact}", file=out)
    for found in verdict.findings:
        mark = "accepted" if found.rule in verdict.accepted else found.severity
        print(f"{mark}: {sentence(found)}", file=out)
