"""Make the committed outputs of the repository again, when the numbers of the default run have changed.

``python docs/remake_outputs.py`` takes the steps of ``STEPS`` in their order; ``--only`` names some of them. A file is
replaced when it is whole. After an error the command that goes on is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import nbformat
import numpy as np

from e2llm.app.chat_session import E2LLM
from e2llm.app.pipeline import execute_notebook
from e2llm.app.runs import Run
from e2llm.core.bands import BANDS
from e2llm.core.claims import Claim
from e2llm.core.files import read_yaml, replacing
from e2llm.core.verdicts import Verdict
from e2llm.data.preprocessing import Windows
from e2llm.viz.answer_view import Explained, channel_z, reference_windows
from e2llm.viz.plots import decibels, welch_density

ROOT = Path(__file__).resolve().parents[1]
LESSONS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
DEFAULT = "tiny"  # the run that the cells of parameters name
BY_HAND = (  # no program writes these figures
    "README.md: rows of claims, and the section Limits",
    "docs/results.md: shortcuts, and everything outside the marked tables",
    "docs/explanations.md: from lesson 07",
    "docs/controls.md: from lesson 06",
    "docs/scaling.md: from lesson 08",
    "notebooks/08_scaling.ipynb: its prose",
)
QUESTION = "Which emotion does this segment show?"
CLAIMS = 4  # the picture has room for them
SHOWN_CHANNELS = ("FZ", "C3", "CZ", "PZ", "OZ")
MOST_HZ = 45  # from here on the windows are filtered


# ---------------------------------------------------------------- steps; each takes the name of the run


def default_run(name: str) -> None:
    """The default run; its finished stages are skipped."""
    _python("-m", "e2llm", "run", "--profile", "tiny", "--name", name)


def lesson(number: str, name: str) -> None:
    """One lesson with its committed parameters."""
    path = LESSONS[number]
    refresh_lesson(path, Run.open(name).path / "notebooks" / path.name, {} if name == DEFAULT else {"run_name": name})


def numbers(name: str) -> None:
    """Scores in the tables of README.md and docs/results.md."""
    run = Run.open(name)
    run.read_metrics()  # refuses those of an evaluation that has been replaced
    _python("docs/refresh_numbers.py", str(run.path / "metrics.json"))


def expected(name: str) -> None:
    """Scores that a test of the default run asks for."""
    path = ROOT / "tests" / "expected_tiny.json"
    content = expected_scores(Run.open(name).read_metrics(), json.loads(path.read_text(encoding="utf-8")))
    _write(path, json.dumps(content, indent=1, ensure_ascii=False))


def pipeline(name: str) -> None:
    """The answer in the picture of the front page, and the picture."""
    run = Run.open(name)
    params, _ = read_yaml(run.path / "params.yaml")
    told = f"{run.name}, seed {params['seed']}, fold {params['fold']}"
    _write(ROOT / "docs" / "pipeline_example.json", as_text({"run": told, **example(E2LLM.of_run(run))}))
    _python("docs/draw_pipeline.py", MPLBACKEND="Agg")


def publish(name: str) -> None:
    """Figures of the run."""
    _python("-m", "e2llm", "publish", name)


STEPS: dict[str, Callable[[str], None]] = {
    "run": default_run, **{number: partial(lesson, number) for number in LESSONS},
    "numbers": numbers, "expected": expected, "pipeline": pipeline, "publish": publish,
}  # fmt: skip


# ---------------------------------------------------------------- what they write


def refresh_lesson(path: Path, target: Path, parameters: dict | None = None) -> None:
    """Execute a lesson into ``target`` and take its outputs over; everything else in the lesson stays as it is.

    Parameters
    ----------
    path, target : Path
        The committed lesson, and the file for the executed one.
    parameters : dict, optional
        Values in place of those in its ``parameters`` cell.
    """
    execute_notebook(path, target, parameters)
    committed, executed = (nbformat.read(one, as_version=4) for one in (path, target))
    made = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", ())]
    for number, (cell, done) in enumerate(zip(_code(committed.cells), _code(made), strict=True), 1):
        cell.outputs = whole_streams(done.outputs)
        for counted in (cell, *(output for output in cell.outputs if "execution_count" in output)):
            counted.execution_count = number  # also where a cell with other parameters was put in
    with replacing(path) as whole:
        nbformat.write(committed, whole)


def whole_streams(outputs: Sequence) -> list:
    """Outputs of a cell in which a text that was printed in pieces is one: where it is cut depends on the moment."""
    whole: list = []
    for output in outputs:
        if output.output_type == "stream" and whole and whole[-1].get("name") == output.name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def _code(cells: Sequence) -> list:
    return [cell for cell in cells if cell.cell_type == "code"]


def expected_scores(metrics: dict, old: dict) -> dict:
    """The tables of ``old`` with the scores of a run: rows of name, group and score.

    Parameters
    ----------
    metrics : dict
        ``metrics.json`` of the run.
    old : dict
        Says which tables are compared.
    """
    return {"tables": {table: [[row["name"], row.get("group"), row["score"]] for row in metrics["tables"][table]]
                       for table in old["tables"]}}


def example(chat: E2LLM) -> dict:
    """An answer about a test window, and what was measured in the window.

    A rule chooses it: the first test window whose answer is right, and most probable before any thought, with claims
    that are all true, in the first sentence of its thought, and of which at least ``CLAIMS`` are about bands.

    Parameters
    ----------
    chat : E2LLM
        The trained model with its dataset.

    Raises
    ------
    ValueError
        If there is no such window.
    """
    index = chat.corpus.windows.index
    for row in map(int, chat.corpus.split.test):
        if _can_be_drawn(found := chat.ask(row, QUESTION), index["label"].iloc[row]):
            return {"window": row, "subject": str(index["subject"].iloc[row]), "clip": int(index["clip"].iloc[row]),
                    "label": index["label"].iloc[row], "question": QUESTION, "thought": found.thought,
                    "answer": found.answer, **_measured(found)}
    raise ValueError(f"No test window has a right answer with {CLAIMS} claims about bands and no false one: choose "
                     "another rule in docs/remake_outputs.py.")


def _can_be_drawn(found: Explained, label: str) -> bool:
    first, _, rest = found.thought.partition(". ")
    return (found.answer == found.most_probable == label and bool(rest) and len(_of_bands(found)) >= CLAIMS
            and all(isinstance(claim, Claim) and verdict is Verdict.TRUE and str(claim) in first
                    for claim, verdict in found.claims))


def _of_bands(found: Explained) -> list[Claim]:
    return [claim for claim, _ in found.claims if isinstance(claim, Claim) and claim.feature.split()[-1] in BANDS]


def _measured(found: Explained) -> dict:
    """What the picture shows beside the thought; its maps are those of the two bands with most claims."""
    corpus, row, columns = found.corpus, found.rows[0], found.corpus.evidence_names.columns
    windows, of_bands = corpus.windows, _of_bands(found)
    far = [-abs(corpus.z[row, columns.index(claim.feature)]) for claim in of_bands]
    claims = [of_bands[i] for i in sorted(np.argsort(far, kind="stable")[:CLAIMS])]  # the clearest
    named = Counter(claim.feature.split()[-1] for claim in claims)
    shown, z = sorted(BANDS, key=lambda band: -named[band])[:2], channel_z(corpus, [row])[0]
    who, reference = reference_windows(corpus, row)
    frequencies, own = _spectrum(windows, [row])
    signal = np.asarray(windows.data[row])
    return {
        "claims": [{"claim": str(claim), "verdict": "true",
                    "z": round(float(corpus.z[row, columns.index(claim.feature)]), 2)} for claim in claims],
        "more": len(found.claims) - len(claims),
        "probabilities": {name: round(share, 4) for name, share in found.probabilities.items()},
        "ch_names": list(windows.ch_names),
        "channel_z": {band: _rounded(z[:, i], 2) for i, band in enumerate(BANDS) if band in shown},
        "frequencies": _rounded(frequencies, 1), "spectrum_db": _rounded(own, 2),
        "reference_db": _rounded(_spectrum(windows, reference)[1], 2),
        "reference": f"mean of {who} (n = {len(reference)})",
        "sfreq": round(windows.sfreq / 2),
        "signal_uv": {name: _rounded(signal[windows.ch_names.index(name), ::2], 1) for name in SHOWN_CHANNELS},
    }  # fmt: skip


def _spectrum(windows: Windows, rows: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole frequencies in Hz, and the mean over channels and windows in dB."""
    frequencies, density = welch_density(np.asarray(windows.data[rows]), windows.sfreq)
    whole = (frequencies % 1 == 0) & (frequencies <= MOST_HZ)
    return frequencies[whole], decibels(density.mean(axis=1)).mean(axis=0)[whole]


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return (np.round(values.astype(float), digits) + 0.0).tolist()  # no -0.0


def as_text(content: dict) -> str:
    """JSON with one entry a line; a list of numbers or names is one line."""
    return re.sub(r"\[\n[^\[\]{}]*\]", lambda found: json.dumps(json.loads(found[0]), ensure_ascii=False),
                  json.dumps(content, indent=1, ensure_ascii=False))


def _write(path: Path, text: str) -> None:
    with replacing(path) as whole:
        whole.write_text(text + "\n", encoding="utf-8")


# ---------------------------------------------------------------- the command


def _python(*words: str, **environment: str) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, env={**os.environ, **environment}, check=True)


def main(words: Sequence[str] | None = None) -> None:
    """Take the steps, then say what has changed and what is left to do by hand."""
    parser = argparse.ArgumentParser(description="Make the committed outputs again.")
    parser.add_argument("--only", nargs="+", metavar="STEP", choices=[*STEPS, "lessons"], default=list(STEPS),
                        help=f"steps to take: {', '.join(STEPS)}; 'lessons' stands for all of them (default: all)")
    parser.add_argument("--run", default=DEFAULT, metavar="NAME", help=f"of the run ({DEFAULT})")
    asked = parser.parse_args(words)
    os.chdir(ROOT)  # the run is found from here
    steps = [step for step in STEPS if step in asked.only or (step in LESSONS and "lessons" in asked.only)]
    for place, step in enumerate(steps):
        print(f"{step}: {(STEPS[step].__doc__ if step not in LESSONS else LESSONS[step].name)}", flush=True)
        try:
            STEPS[step](asked.run)
        except BaseException:  # an interrupt, too
            more = "" if asked.run == DEFAULT else f" --run {asked.run}"
            print(f"The step {step} has not ended. Go on with:\n"
                  f"python docs/remake_outputs.py --only {' '.join(steps[place:])}{more}", file=sys.stderr)
            raise
    print("\nChanged files:", flush=True)
    subprocess.run(["git", "status", "--short", "--untracked-files=no"], cwd=ROOT, check=True)
    print("\nFigures written by hand, to be compared:", *BY_HAND, sep="\n  ")


if __name__ == "__main__":
    main()
