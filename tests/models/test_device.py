"""One place decides where models compute: names, refusals, what follows them, and what stays in memory once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from e2llm.models import device
from e2llm.models.device import DeviceError, DevicePolicy, ask_for_device, current_device, find_device, use_device

PACKAGE = Path(device.__file__).parents[1]


@pytest.fixture(autouse=True)
def policy_stays():
    with device.using(DevicePolicy()):
        yield


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_is_a_gpu_where_there_is_one_and_else_the_cpu(two_gpus, monkeypatch):
    assert find_device("auto") == find_device("cuda") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1) and find_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")


def test_a_process_of_a_training_takes_the_gpu_that_its_launcher_gave_it(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_device("auto") == torch.device("cuda", 1) and find_device("cuda:0") == torch.device("cuda", 0)


def test_apples_gpu_is_taken_only_by_name(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device("auto").type == "cpu" and find_device("mps").type == "mps"


@pytest.mark.parametrize(("name", "message"), [
    ("cuda", "device = 'cuda', but .*take device = 'auto' or 'cpu'"),
    ("cuda:1", "device = 'cuda:1', but .*take device = 'auto' or 'cpu'"),
    ("mps", "finds no GPU of Apple here: take device = 'auto' or 'cpu'"),
    ("gpu", "device = 'gpu' is unknown: take auto, cpu, cuda, cuda:1 or mps"),
    ("cuda:-1", "is unknown"), ("CUDA", "is unknown"), ("cuda:0\n", "is unknown"), ("", "is unknown")])
def test_a_device_that_is_not_there_is_refused_and_the_policy_stays(no_gpu, name, message):
    with pytest.raises(DeviceError, match=message):
        use_device(name)
    assert device.device_policy() == DevicePolicy() and current_device().type == "cpu"


def test_a_gpu_beyond_the_last_is_refused_with_those_that_are_there(two_gpus):
    with pytest.raises(DeviceError, match="device = 'cuda:2' is not there: PyTorch finds cuda:0, cuda:1"):
        find_device("cuda:2")


@pytest.mark.parametrize(("values", "message"), [
    (("auto", "int3"), "dtype = 'int3' is unknown: auto, float32, bfloat16, float16 or 4bit"),
    (("auto", "auto", "fast"), "attention = 'fast' is unknown: auto or flash"),
    (("auto", "4bit"), "dtype = '4bit' needs a CUDA device, and the device is 'cpu'"),
    (("cpu", "bfloat16", "flash"), "attention = 'flash' needs a CUDA device and 16-bit numbers"),
    (("cuda", "float32"), "device = 'cuda', but")])
def test_what_this_computer_lacks_is_said_before_any_work(no_gpu, monkeypatch, values, message):
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    with pytest.raises(DeviceError, match=message):
        ask_for_device(*values)


def test_packages_that_are_missing_are_named(two_gpus, monkeypatch):
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="pip install bitsandbytes"):
        ask_for_device("cuda", "4bit")
    with pytest.raises(DeviceError, match="pip install flash-attn"):
        ask_for_device("cuda", "bfloat16", "flash")
    with pytest.raises(DeviceError, match="16-bit numbers"):
        ask_for_device("cuda", "float32", "flash")
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    ask_for_device("cuda", "4bit", "flash")


def test_a_usual_device_is_checked_without_torch():
    code = ("import sys; from e2llm.models.device import ask_for_device, is_device_name\n"
            "ask_for_device('auto', 'bfloat16'); assert is_device_name('cuda:1') and 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


def test_the_best_number_format_is_that_of_the_device_of_the_policy(two_gpus, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda place: asked.append(place) or device.using(DevicePolicy("cpu")))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    use_device("cuda:1")
    assert device.best_dtype() == "bfloat16" and asked == [torch.device("cuda", 1)]
    use_device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert device.best_dtype() == "float32"


def test_within_a_block_another_policy_holds(no_gpu):
    with device.using(DevicePolicy("cpu", gradient_checkpointing=True)):
        assert device.device_policy().gradient_checkpointing
    assert device.device_policy() == DevicePolicy()




def test_nothing_but_the_policy_asks_what_devices_there_are():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "device.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "is_available":
                # of any device at all: whether the trainer has to be kept from taking it; and of no device
                assert ast.unparse(node) in ("torch.accelerator.is_available", "dist.is_available"), path
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".cuda", ".to")):
                words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                assert not {"cuda", "mps"} & set(words), path


def test_a_trainer_runs_on_the_device_of_the_policy_and_not_on_all_gpus(tmp_path, monkeypatch):
    from transformers.training_args import ParallelMode

    from e2llm.training.stage_trainer import TrainingArguments, place

    arguments = TrainingArguments(output_dir=str(tmp_path))
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    arguments._n_gpu = 8
    place(arguments, torch.device("cuda", 1))
    try:
        assert arguments.device == arguments.distributed_state.device == torch.device("cuda", 1) == chosen[0]
        assert (arguments.n_gpu, arguments.parallel_mode) == (1, ParallelMode.NOT_PARALLEL)
        place(arguments, torch.device("cpu"))
        assert arguments.device == torch.device("cpu") and arguments.n_gpu == 0
    finally:
        arguments.distributed_state.device = torch.device("cpu")
    launched = SimpleNamespace(parallel_mode=ParallelMode.DISTRIBUTED)
    place(launched, torch.device("cpu"))
    assert vars(launched) == {"parallel_mode": ParallelMode.DISTRIBUTED}, "a launcher has chosen already"
