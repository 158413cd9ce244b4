"""How the time of the auditor, the kernel machine and the probes without EEG grows with the number of windows.

``python benchmarks/growth.py --json growth.json`` measures 1, 4 and 16 times 3,840 windows (12 people, 80 clips, 62
channels, five bands; simulated band power, split by people and clips) and prints seconds and the fitted exponent:
time = a * windows ** exponent. Up to ``EXACT_UP_TO`` training windows the kernel machine is exact, above it is
approximated; ``--accuracy`` compares both on the same windows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from common import machine, seconds

from e2llm.core.labels import SEED_VII
from e2llm.data.audit import audit
from e2llm.data.sources.seed_vii import clip_emotion
from e2llm.data.splits import make_split
from e2llm.evaluation import baselines
from e2llm.evaluation.baselines import LOGISTIC, SVM, Recipe, fit_baseline
from e2llm.evaluation.metrics import plain_balanced_accuracy
from e2llm.evaluation.shortcuts import probe

PEOPLE, CLIPS, CHANNELS, BANDS = 12, 80, 62, 5
GOAL = 1.1  # largest exponent


def make_corpus(times: int, seed: int = 0) -> SimpleNamespace:
    """Band power with effects of people, clips and slow changes, and emotions that each person shows in their own way.

    Parameters
    ----------
    times : int
        Windows of a clip, in units of four.
    seed : int
        Of everything drawn.
    """
    rng, shape = np.random.default_rng(seed), (CHANNELS, BANDS)
    rows = [(str(who), (clip - 1) // 20 + 1, clip, window, 4.0 * window, clip_emotion(clip))
            for who in range(1, PEOPLE + 1) for clip in range(1, CLIPS + 1) for window in range(4 * times)]
    index = pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "start_s", "label"])
    who, clip = index["subject"].astype(int).to_numpy() - 1, index["clip"].to_numpy() - 1
    labels = np.array([SEED_VII.index(label) for label in index["label"]])
    emotion = rng.normal(0, 0.06, (7, *shape)) + rng.normal(0, 0.06, (PEOPLE, 7, *shape))
    log_power = rng.normal(0, 0.5, (PEOPLE, *shape))[who] + rng.normal(0, 0.2, (CLIPS, *shape))[clip]
    log_power += emotion[who, labels] + rng.normal(0, 0.15, (len(index), *shape))
    log_power += np.einsum("nk,kcb->ncb", rng.normal(size=(len(index), 6)), rng.normal(0, 0.2, (6, *shape)))
    windows = SimpleNamespace(index=index, power=np.exp(log_power).astype(np.float32), sfreq=256.0)
    return SimpleNamespace(windows=windows, labels=labels, label_set=SEED_VII)


def measured(times: int) -> dict[str, float]:
    """Seconds of each work at a size."""
    corpus = make_corpus(times)
    index, split = corpus.windows.index, make_split(corpus.windows.index, "joint")
    work = {"audit": lambda: audit(split, index, power=corpus.windows.power),
            SVM: lambda: fit_baseline(Recipe(SVM, "z-score"), corpus, split).rows(split.test),
            LOGISTIC: lambda: fit_baseline(Recipe(LOGISTIC, "z-score"), corpus, split).rows(split.test),
            "probes without EEG": lambda: probe(index, split)}
    return {"windows": len(index), "training windows": len(split.train)} | {name: seconds(each)[0]
                                                                           for name, each in work.items()}


def exponent(windows: list[int], spent: list[float]) -> float:
    """Slope of log time over log windows, least squares."""
    return float(np.polyfit(np.log(windows), np.log(spent), 1)[0])


def accuracy_of_both(times: int) -> str:
    """Balanced accuracy on the test windows, with the exact kernel and with the approximated one."""
    corpus, limit, found = make_corpus(times), baselines.EXACT_UP_TO, {}
    split = make_split(corpus.windows.index, "clips")
    for name, up_to in (("exact", 10**9), ("approximated", 0)):
        baselines.EXACT_UP_TO = up_to
        spent, answers = seconds(lambda: fit_baseline(Recipe(SVM, "z-score"), corpus, split).rows(split.test))
        found[name] = answers
        score = plain_balanced_accuracy(corpus.labels[split.test], answers, 7)
        found[name + " score"] = f"{100 * score:.1f} % in {spent:.1f} s"
    baselines.EXACT_UP_TO = limit
    same = np.mean(found["exact"] == found["approximated"])
    return (f"{len(split.train)} training windows: exact {found['exact score']}, approximated "
            f"{found['approximated score']}, same answer to {100 * same:.0f} % of {len(split.test)} test windows")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16], help="multiples of 3,840 windows")
    parser.add_argument("--accuracy", action="store_true", help="also compare the exact and the approximated machine")
    parser.add_argument("--json", type=Path, help="also write the seconds here")
    arguments = parser.parse_args()
    measured(arguments.sizes[0])  # not counted: imports and caches
    table = pd.DataFrame([measured(times) for times in arguments.sizes]).set_index("windows")
    work = table.columns[1:]
    fitted = {name: exponent(list(table.index), list(table[name])) for name in work}
    print(machine(["numpy", "scikit-learn", "pandas"]), end="\n\n")
    print("| seconds | " + " | ".join(f"{n} windows" for n in table.index) + " | exponent |")
    print("|---" * (len(table) + 2) + "|")
    for name in work:
        print(f"| {name} | " + " | ".join(f"{spent:.2f}" for spent in table[name]) + f" | {fitted[name]:.2f} |")
    if arguments.accuracy:
        print("\n" + accuracy_of_both(min(arguments.sizes)))
    if arguments.json:
        arguments.json.write_text(json.dumps({"seconds": table.reset_index().to_dict("list"), "exponents": fitted},
                                             indent=1) + "\n")
    return int(max(fitted.values()) > GOAL)


if __name__ == "__main__":
    sys.exit(main())
