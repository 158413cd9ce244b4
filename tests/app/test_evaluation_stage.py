"""The evaluation in pieces: equal answers whoever gives them, and no process that outlives the one that asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch

import e2llm
from e2llm.app import evaluation_stage, stages
from e2llm.core.chat import Item
from e2llm.evaluation.tiers import Answers, Example, tier_1, tiers_2_and_3


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.csv")}


def test_two_processes_write_what_one_writes_and_what_the_tiers_give_in_one_piece(micro_run, tmp_path, monkeypatch):
    from micro import linked

    few = (evaluation_stage.BASELINES[0], evaluation_stage.BASELINES[-1])  # the others take most of the time
    monkeypatch.setattr(evaluation_stage, "BASELINES", few)

    corpus = stages.open_dataset(micro_run)
    made = {}
    for n_jobs in (1, 2):
        run = linked(micro_run, tmp_path, f"jobs{n_jobs}")
        evaluation_stage.evaluate(run, corpus, None, 4, 2, seed=1, n_jobs=n_jobs, answer_from="eeg")
        made[n_jobs] = files(run.path / "evaluation")
    assert made[1] == made[2] and len(made[1]) >= 6
    engine = evaluation_stage.open_engine(micro_run)
    plain = {"tiers_2_and_3.csv": tiers_2_and_3(corpus, engine, 4, 2, 1).scores,
             "predictions.csv": tier_1(corpus, engine, evaluation_stage.head_answers(micro_run, corpus.split.test),
                                       stages.initial_encoder(micro_run, corpus), few, 1).predictions.table()}
    for name, table in plain.items():
        assert table.to_csv(index=False).encode() == made[1][name]


def test_a_worker_with_one_thread_answers_itself():
    before = torch.get_num_threads()
    try:
        for threads, processes in ((1, 1), (2, 2), (8, 2)):
            torch.set_num_threads(threads)
            assert evaluation_stage._usual_processes() == processes
    finally:
        torch.set_num_threads(before)


def test_samples_say_whether_they_are_right_and_which_claims_are_true_of_their_own_window():
    from asked import made_up_corpus

    def item(window: int, answer: str) -> Item:
        return Item("predict", 1, [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}], "", answer,
                    ["happy", "sad"], windows=[window])

    corpus = made_up_corpus()  # occipital alpha is low in window 0, and typical in window 1
    said = "<think>\nEvidence: occipital alpha low, temporal beta high. That fits sad.\n</think>\n\nsad"
    items = [item(0, "sad"), item(1, "sad"), item(0, "happy")]
    first = SimpleNamespace(items=items, answers=Answers(["sad"] * 3, [said] * 3, ["sad"] * 3))
    others = {"describe": Example(item(0, "happy"), "happy", "")}
    found = evaluation_stage.explained_samples(corpus, first, others)
    assert [sample["right"] for sample in found] == [True, True, False, True]
    verdicts = [[verdict for piece in sample["claims"] for verdict, _ in piece["marks"]] for sample in found]
    assert verdicts == [["true", "false"], ["false", "false"], ["true", "false"], []]
    assert " ".join(piece["text"] for piece in found[0]["claims"]) == said.split("\n")[1]


def test_workers_end_with_the_process_that_asked(tmp_path):
    script = "import pathlib, time\nfrom joblib import delayed\n" \
             "from e2llm.app.evaluation_stage import in_processes\nfrom test_evaluation_stage import work\n" \
             f"in_processes([delayed(work)({str(tmp_path)!r})] * 4, 2)"
    paths = [str(Path(e2llm.__file__).parents[1]), str(Path(__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    assert len(workers) == 2 and all(map(psutil.pid_exists, workers))
    process.kill()
    process.wait(30)
    end = time.monotonic() + 30
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, workers))


def work(folder: str) -> None:
    """Say which process this is, and stay."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)
