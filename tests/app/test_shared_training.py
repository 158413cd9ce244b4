"""Two processes train as one does, and a killed one ends the other with a word and without loss."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from micro import CLIPS, linked
from safetensors.torch import load_file

from e2llm.app import processes, stages, train_stage
from e2llm.app.evaluation_stage import open_engine
from e2llm.app.parameters import checked
from e2llm.app.processes import ProcessError
from e2llm.app.runs import Run
from e2llm.models import device
from e2llm.models.inference import generate
from e2llm.tasks.items import prediction_items
from e2llm.training.losses import HeadParams
from e2llm.training.stage3_instruction import AdapterParams
from e2llm.training.trainer import FitParams

STEPS, SAVE = 16, 2  # many remain when the first checkpoint is seen and a process is killed
KINDS = {"predict": 12, "match": 6, "compare": 6}


def encoder(run: Run, n: int) -> Path:
    """Stage 1 with all that is drawn in it: dropout of patches, channels and in the head; edited windows."""
    dropout = {"patch_dropout": 0.5, "channel_dropout": 0.5}
    params = FitParams(STEPS, 8, 4e-3, seed=5, save_steps=SAVE)
    stage = stages.train_encoder(run, stages.open_dataset(run, CLIPS), CLIPS, "tiny1", dropout, "", params,
                                 HeadParams(), 6, processes=n)
    return stage.path


def projector(run: Run, n: int, sharded: bool = False) -> Path:
    params = FitParams(STEPS, 4, 4e-3, seed=5, save_steps=SAVE)
    return stages.align(run, stages.open_dataset(run), 1, 2, 16, 1.0, params, n, sharded).path


def adapter(run: Run, n: int, sharded: bool = False) -> Path:
    params = FitParams(STEPS, 8, 4e-3, seed=5, save_steps=SAVE, accumulate=2)
    return stages.instruct(run, stages.open_dataset(run), KINDS, 6, AdapterParams(rank=2, alpha=4), params,
                           n, sharded).path


def losses(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def same_losses(one: Path, other: Path) -> None:
    first, second = losses(one), losses(other)
    assert list(first.columns) == list(second.columns) and len(first) == len(second) == STEPS
    assert np.abs(first - second).to_numpy().max() < 1e-4


@contextlib.contextmanager
def one_killed(run: Run, stage: str):
    """Within the block the second process dies when a checkpoint has been written; its first loss is then marked."""
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.01):
            if not any(run.path.glob(f".{stage}.part-*/checkpoints/checkpoint-*/trainer_state.json")):
                continue
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if child.environ().get("RANK") == "1":
                        child.send_signal(signal.SIGKILL)
                        return

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def mark(run: Run, stage: str) -> None:
    """Leave a word in the newest checkpoint: what goes on from there has it in its history."""
    state = max(run.path.glob(f".{stage}.part-*/checkpoints/checkpoint-*/trainer_state.json"),
                key=lambda path: int(path.parent.name.rpartition("-")[2]))
    content = json.loads(state.read_text())
    content["log_history"][0]["loss"] += 1000.0
    state.write_text(json.dumps(content))


def unmarked(folder: Path) -> None:
    history = losses(folder)
    assert history["loss"][0] > 900, "it began anew"
    history.loc[0, "loss"] -= 1000.0
    history.to_csv(folder / "history.csv", index=False)


def test_a_killed_process_ends_the_other_and_one_process_goes_on_as_if_it_had_been_alone(micro_run, tmp_path, capfd):
    run, alone = linked(micro_run, tmp_path, "two"), linked(micro_run, tmp_path, "one")
    with one_killed(run, "encoder"), pytest.raises(ProcessError) as ended:
        encoder(run, 2)
    assert str(ended.value) == (
        "The stage 'encoder' of the run 'two' is not finished: process 2 of 2 was ended from outside by SIGKILL, as a "
        "system does that runs out of memory. The other one was ended too. Start it again: it goes on from its last "
        "checkpoint.")
    assert "Traceback" not in "".join(capfd.readouterr())
    mark(run, "encoder")
    (resumed, whole) = encoder(run, 1), encoder(alone, 1)
    unmarked(resumed)
    same_losses(resumed, whole)


@pytest.mark.full
def test_two_processes_train_and_answer_as_one(micro_run, tmp_path):
    """Windows a rank, their order, random draws and the weights of losses: one wrong, and the curves part."""
    found = []
    for n in (1, 2):
        run = linked(micro_run, tmp_path, f"processes-{n}")
        folders = [encoder(run, n), projector(run, n), adapter(run, n)]
        corpus, engine = stages.open_dataset(run), open_engine(run)
        items = prediction_items(corpus, corpus.split.test[:12], 0)
        found.append((folders, generate(engine, items, max_new_tokens=24), run))
    (one, answers, first), (two, same, second) = found
    for folder, other in zip(one, two, strict=True):
        same_losses(folder, other)
    assert answers == same
    assert np.allclose(np.load(one[0] / "tokens.npy"), np.load(two[0] / "tokens.npy"), atol=1e-3)
    weights = [load_file(folder / "projector.safetensors") for folder in (one[1], two[1])]
    for name, value in weights[0].items():  # those of the evidence probe are large
        assert (value - weights[1][name]).abs().max() <= 1e-3 * value.abs().max().clamp_min(1.0), name
    for name in ("encoder", "projector", "adapter"):
        assert first.require(name)["params"] == second.require(name)["params"]
        assert first.require(name)["facts"] == second.require(name)["facts"]


@pytest.mark.full
def test_two_processes_go_on_from_their_checkpoint(micro_run, tmp_path):
    run, alone = linked(micro_run, tmp_path, "two"), linked(micro_run, tmp_path, "one")
    with one_killed(run, "adapter"), pytest.raises(ProcessError, match="process 2 of 2 was ended from outside"):
        adapter(run, 2)
    mark(run, "adapter")
    resumed, whole = adapter(run, 2), adapter(alone, 1)
    unmarked(resumed)
    same_losses(resumed, whole)


@pytest.mark.full
def test_two_processes_that_share_the_frozen_model_train_as_one_and_leave_the_same_files(micro_run, tmp_path):
    encoded, found = linked(micro_run, tmp_path, "encoder"), []
    encoder(encoded, 1)
    for n in (1, 2):
        run = linked(encoded, tmp_path, f"processes-{n}")
        found.append((run, [projector(run, n, n > 1), adapter(run, n, n > 1)]))
    (first, one), (second, two) = found
    for folder, other in zip(one, two, strict=True):
        same_losses(folder, other)
        assert names(folder) == names(other)
        assert first.require(folder.name)["params"] == second.require(folder.name)["params"]
        assert first.require(folder.name)["facts"] == second.require(folder.name)["facts"]
        for file in folder.rglob("*.safetensors"):
            weights = load_file(file), load_file(other / file.relative_to(folder))
            assert weights[0].keys() == weights[1].keys()
            for name, value in weights[0].items():  # those of the evidence probe are large
                assert (value - weights[1][name]).abs().max() <= 1e-4 * value.abs().max().clamp_min(1.0), name
    config = "lora/adapter_config.json"
    assert (one[1] / config).read_bytes() == (two[1] / config).read_bytes()


@pytest.mark.full
@pytest.mark.parametrize(("n", "sharded"), [(2, True), (1, False)])
def test_a_sharded_training_goes_on_from_its_checkpoint_sharded_or_not(micro_run, tmp_path, n, sharded):
    run, alone = linked(micro_run, tmp_path, "two"), linked(micro_run, tmp_path, "one")
    with one_killed(run, "adapter"), pytest.raises(ProcessError, match="process 2 of 2 was ended from outside"):
        adapter(run, 2, True)
    mark(run, "adapter")
    resumed, whole = adapter(run, n, sharded), adapter(alone, 1)
    unmarked(resumed)
    same_losses(resumed, whole)


def test_a_model_that_cannot_be_divided_is_refused(micro_run, tmp_path, monkeypatch, capsys):
    run = linked(micro_run, tmp_path, "one")
    with pytest.raises(ValueError, match=r"^sharded = True, but processes = 1, .*: take processes = 2 or more"):
        projector(run, 1, True)
    monkeypatch.setattr(stages, "language_source", lambda run: {"dtype": "4bit"})
    with pytest.raises(ValueError, match=r"^sharded = True, but weights that are packed to dtype = '4bit' cannot be"):
        projector(run, 2, True)
    with pytest.raises(ValueError, match=r"processes = 1, and one process holds the whole language model"):
        checked({"sharded": True})
    with pytest.raises(ValueError, match=r"'4bit' cannot be divided among processes: take dtype = 'bfloat16'"):
        checked({"sharded": True, "processes": 2, "dtype": "4bit"})
    assert checked({"sharded": True, "processes": 2}).sharded
    with pytest.raises(SystemExit):
        train_stage.main(["--run", "one", "--stage", "1", "--sharded"])
    assert "stage 1 has no frozen language model" in capsys.readouterr().err


@pytest.mark.full
def test_an_error_in_a_process_is_said_once(micro_run, tmp_path, capfd):
    run = linked(micro_run, tmp_path, "two")
    shutil.rmtree(run.path / "language_model" / "model")
    with pytest.raises(ProcessError, match=r"not finished: process \d of 2 failed with StageMissing: The stage"):
        processes.made_in_processes(run.stage("adapter", {"fit": {}}).begin(), 2)
    assert capfd.readouterr().err.count("StageMissing: ") == 1


@pytest.mark.parametrize(("make", "parameter"), [(encoder, "encoder_batch = 8"), (projector, "batch_size = 4")])
def test_a_batch_that_cannot_be_divided_is_refused(micro_run, tmp_path, make, parameter):
    with pytest.raises(ValueError, match=f"^{parameter} cannot be divided among processes = 3: take a multiple of it"):
        make(linked(micro_run, tmp_path, "three"), 3)


def test_parameters_that_cannot_be_divided_are_refused_before_any_work():
    assert checked({"processes": 4}).processes == 4
    with pytest.raises(ValueError, match=r"^augmented_windows = 9 cannot be divided among processes = 2"):
        checked({"processes": 2, "augmented_windows": 9})


def test_processes_without_a_device_of_their_own_are_refused(monkeypatch):
    device.ask_for_processes(2, "cpu")
    device.ask_for_processes(1, "cuda:1")  # asked elsewhere
    with pytest.raises(device.DeviceError, match="processes = 2, but device = 'cuda:1' is one device"):
        device.ask_for_processes(2, "cuda:1")
    monkeypatch.setattr(device, "find_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    device.ask_for_processes(2, "auto")
    with pytest.raises(device.DeviceError, match=r"PyTorch finds 2 GPUs, and each process takes one: .* processes = 2"):
        device.ask_for_processes(3, "auto")


def test_a_stage_that_nobody_has_begun_is_named(micro_run, tmp_path, monkeypatch):
    linked(micro_run, tmp_path, "done")
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"'adapter' has not begun in .*done, or is finished: a lesson begins"):
        train_stage.main(["--run", "done", "--stage", "3", "--device", "cpu"])
