"""Plans: from parameters alone, in words, refused with a remedy where they cannot fit, and as the page says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from e2llm.app import plan as planning
from e2llm.app.cli import main
from e2llm.app.parameters import checked
from e2llm.app.pipeline import load_profile, parse_assignments
from e2llm.app.plan import ITEMS, in_words, plan, remedy, size_of, split_shares, time_in_words
from e2llm.app.plan_devices import GPUS, Device, device_of
from e2llm.core.labels import SEED_VII
from e2llm.models.catalogue import require
from e2llm.tasks.items import ItemBuilder
from e2llm.tasks.segments import imagined_segments

ROOT = Path(__file__).resolve().parents[2]
CPU = Device("CPU", 16e9, {"float32": 50e9, "bfloat16": 50e9}, 10e9)
PAPER = load_profile(ROOT / "notebooks" / "profiles" / "paper.yaml")


def paper(gpus: str = "A100-80", host_memory: float = 256e9, **changes):
    people = changes.pop("people", None)
    return plan({**PAPER, **changes}, gpus, people=people, host_memory=host_memory, cores=16)


def stage(found, name: str):
    return next(one for one in found.stages if one.name == name)


# --- sizes


def test_the_size_of_seed_vii_is_the_published_one():
    size = size_of(checked(PAPER))
    assert size.people * size.windows == 70_480 and size.clips == 80
    assert size.people * size.windows == paper().windows["all"]
    assert size_of(checked(PAPER), people=1000).windows == size.windows


def test_the_size_of_the_twin_is_that_of_the_default_run():
    size = size_of(checked({}))
    assert size.people * size.windows == 3840
    found = plan({}, device=CPU, host_memory=16e9, cores=2)
    assert found.windows["test"] == 336 and found.windows["train"] == 1056  # as facts of its metrics say


def test_a_folder_that_does_not_say_its_size_is_asked_about():
    with pytest.raises(ValueError, match=r"'folder' does not say its size .*--people, --clips and --seconds"):
        size_of(checked({"source": "folder", "twin_preset": ""}))
    size = size_of(checked({"source": "folder", "twin_preset": ""}), 10, 6, 61.0)
    assert size[:4] == (10, 6, 366.0, 90)


def test_shares_of_a_split_are_those_of_the_protocol():
    size = size_of(checked(PAPER))
    shares = split_shares(checked({**PAPER, "protocol": "clips"}), size)
    assert shares == pytest.approx({"train": 0.5, "val": 0.25, "test": 0.25}, abs=0.01)
    with pytest.raises(ValueError, match="cannot make 3 groups"):
        split_shares(checked(PAPER), size._replace(people=2))


def test_item_sizes_are_those_of_drawn_items():
    """In the vocabulary of e2llm-tiny, where a word is one token; Qwen3 cuts some words."""
    import numpy as np
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(require("e2llm-tiny")))
    builder = ItemBuilder(imagined_segments(SEED_VII, 200, np.random.default_rng(0)), SEED_VII, 0)

    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    for kind, size in ITEMS.items():
        items = [builder.scenario() for _ in range(60)] if kind == "scenario" else builder.draw(kind, 60)
        said = np.mean([tokens(item.answer) + tokens(item.thought) for item in items])
        assert size.thought + size.answer == pytest.approx(said, rel=0.35, abs=4), kind


# --- arithmetic


def test_operations_follow_the_parameters():
    once, twice = paper(), paper(instruction_steps=10_000, alignment_steps=5000)
    for name in ("projector", "adapter"):
        assert stage(twice, name).operations == pytest.approx(2 * stage(once, name).operations)
    assert stage(twice, "encoder") == stage(once, "encoder")
    # A frozen model of 8.2 billion parameters takes twice its layers' weights to read a token, and as much for the
    # gradient to the inputs.
    per_item = stage(once, "projector").operations / (2500 * 16)
    assert 4 * 6.95e9 * 60 < per_item < 4 * 6.95e9 * 250


def test_memory_follows_the_parameters():
    full, small = stage(paper(), "adapter").device, stage(paper(dtype="4bit"), "adapter").device
    assert full["weights"] == pytest.approx(16.4e9, rel=0.01) and small["weights"] == pytest.approx(6.4e9, rel=0.1)
    halved = stage(paper(batch_size=8), "adapter").device
    assert halved["activations"] == pytest.approx(full["activations"] / 2)
    # 43.6 million parameters of LoRA and 25 million of the projector in float32, and twice that of AdamW and gradients
    assert full["optimizer and gradients"] == pytest.approx(3 * 4 * 68.9e6, rel=0.05)
    more = stage(paper("8xA100-80"), "adapter").device
    assert more["activations"] == pytest.approx(full["activations"] / 8) and more["weights"] == full["weights"]


def test_more_devices_take_less_time_but_never_less_than_their_share():
    one, eight = paper(), paper("8xA100-80")
    for name in ("projector", "adapter"):
        assert stage(one, name).seconds / 8 < stage(eight, name).seconds < stage(one, name).seconds / 4
    assert stage(one, "evaluation").seconds == stage(eight, "evaluation").seconds


def test_a_thousand_people_take_fifty_times_the_disk_and_not_the_training():
    one, many = paper(), paper(people=1000)
    assert stage(many, "windows").disk["windows"] / stage(one, "windows").disk["windows"] == pytest.approx(50)
    assert stage(many, "adapter").operations == stage(one, "adapter").operations


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "notebooks" / "profiles").glob("*.yaml")))
def test_every_profile_can_be_planned(profile):
    values = load_profile(ROOT / "notebooks" / "profiles" / f"{profile}.yaml")
    size = {"people": 10, "clips": 6, "seconds": 60.0} if values.get("source") in ("folder", "bids") else {}
    found = plan(values, device=CPU, host_memory=16e9, cores=2, **size)
    assert found.seconds > 0 and all(value >= 0 for one in found.stages for value in one.host.values())
    assert "together" in in_words(found)


# --- devices and refusals


def test_devices_are_read():
    assert str(device_of("8xA100-80")) == "8 × A100-80" and device_of("h100-80") == GPUS["H100-80"]
    for text in ("0xA100-80", "A100", "8 A100-80", "8x", "x" * 200):
        with pytest.raises(ValueError, match=r"names no graphics cards: write 8xA100-80, with one of T4-16"):
            device_of(text)
    assert 1e8 < device_of("").rate_of("float32") < 1e14


def test_what_cannot_fit_is_refused_with_a_remedy_that_fits(capsys):
    large = {"language_model": "Qwen/Qwen3-14B", "batch_size": 32}
    found = plan({**PAPER, **large}, "A10-24", host_memory=256e9, cores=16)
    assert any(re.match("The stage adapter needs .* on each A10-24, which has 24 GB", fault) for fault in found.faults)
    said = remedy({**PAPER, **large}, found)
    changes = re.findall(r"-p (\w+)=(\S+)", said)
    assert said.startswith("This would fit: -p") and changes
    mended = {**PAPER, **large, **parse_assignments(f"{key}={value}" for key, value in changes)}
    assert not plan(mended, "A10-24", host_memory=256e9, cores=16).faults


def test_too_little_memory_and_disk_are_named():
    found = plan({}, device=CPU, host_memory=0.5e9, disk_free=1e6, cores=2)
    assert any("of memory, and 0.5 GB are there" in fault for fault in found.faults)
    assert any(re.match(r"The run needs .* on the disk, and 1.0 MB are free", fault) for fault in found.faults)
    assert "No smaller batch or model makes it fit" in remedy({}, found)


def test_the_command_says_what_fits_and_what_does_not(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    size = ["--memory", "256"]
    assert main(["plan", "--profile", "paper", "--gpus", "8xA100-80", *size]) == 0
    out = capsys.readouterr().out
    assert "paper on 8 × A100-80 at 40% of its rate" in out and "20 people, 70,480 windows" in out
    for name in ("windows", "encoder", "language_model", "projector", "adapter", "evaluation", "together"):
        assert re.search(rf"^ *{name} ", out, re.M)
    for part in ("weights", "optimizer and gradients", "activations", "cache of keys and values"):
        assert part in out
    assert main(["plan", "--profile", "paper", "--gpus", "T4-16", *size]) == 1
    assert "The stage adapter needs" in capsys.readouterr().err
    assert main(["plan", "--gpus", "abacus"]) == 2 and main(["plan", "--share", "2"]) == 2
    assert main(["plan", "-p", "encoder_step=3"]) == 2
    assert "did you mean encoder_steps" in capsys.readouterr().err


def test_planning_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("E2LLM_RUNS", str(tmp_path / "runs"))
    assert main(["plan", "--memory", "64"]) == 0 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seconds", "words"), [(0.5, "0.5 s"), (42, "42 s"), (150, "2.5 min"), (3600, "1.0 h"),
                                                (100 * 3600, "100 h"), (12e5, "14 days"), (1e8, "1,200 days")])
def test_times_in_words(seconds, words):
    assert time_in_words(seconds) == words.replace("100 h", "4.2 days")


# --- the page


def test_the_page_is_what_the_function_says():
    spec = importlib.util.spec_from_file_location("refresh_plan", ROOT / "docs" / "refresh_plan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
    assert module.refreshed(page) == page
    assert len(module.BLOCK.findall(page)) == len(module.CASES) >= 5
    assert planning.SHARE_GPU == 0.4
