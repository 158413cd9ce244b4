"""Plans: from parameters alone, in words, refused with a remedy where they cannot fit, and as the page says."""

from __future__ import annotations

import importlib.util
import itertools
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from transformers import AutoTokenizer

from e2llm.app import plan_devices
from e2llm.app import plan_stages as planning
from e2llm.app.cli import main
from e2llm.app.parameters import checked
from e2llm.app.pipeline import load_profile, parse_assignments
from e2llm.app.plan import in_words, plan, remedy, time_in_words
from e2llm.app.plan_devices import GPUS, Device, device_of
from e2llm.app.plan_sizes import LEVEL_TABLE, PlanError, size_of, split_shares
from e2llm.app.plan_stages import StagePlanner
from e2llm.core.bands import BANDS
from e2llm.core.chat import EEG_TOKEN, IGNORE, Item
from e2llm.core.claims import GRADED, SCALES, EvidenceNames
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS
from e2llm.models.catalogue import fetched, require
from e2llm.models.language import load_language_model
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.items import ItemBuilder
from e2llm.tasks.second_pass import Asked, level_item
from e2llm.tasks.segments import imagined_segments
from e2llm.training.trainer import examples_of

ROOT = Path(__file__).resolve().parents[2]
CPU = Device("CPU", 16e9, {"float32": 50e9, "bfloat16": 50e9}, 10e9)
PAPER = load_profile(ROOT / "notebooks" / "profiles" / "paper.yaml")


def paper(gpus: str = "A100-80", host_memory: float = 256e9, **changes):
    people = changes.pop("people", None)
    return plan({**PAPER, **changes}, gpus, people=people, host_memory=host_memory, cores=16)


def stage(found, name: str):
    return next(one for one in found.stages if one.name == name)


def planner_of(**values) -> StagePlanner:
    wanted = checked(values)
    return StagePlanner(wanted, CPU, 0.85, size_of(wanted), {}, 2)


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


@pytest.mark.parametrize(("source", "people", "windows", "channels"), [("faced", 123, 28 * 7, 30),
                                                                        ("emoeeg-mc", 60, 42 * 7, 58)])
def test_other_sources_are_as_long_as_the_kit_uses_them(source, people, windows, channels):
    values = {"source": source, "twin_preset": ""}
    size = size_of(checked(values))
    assert (size.people, size.windows) == (people, windows)
    planner = StagePlanner(checked(values), CPU, 0.85, size, {}, 2)
    assert planner.channels == channels


@pytest.mark.parametrize("values", [{}, PAPER, {"source": "faced", "twin_preset": ""}])
def test_a_run_takes_no_more_people_than_there_are_or_than_it_asks_for(values):
    there = size_of(checked(values)).people
    assert size_of(checked({**values, "subjects": 5}), people=60).people == 5
    assert size_of(checked({**values, "subjects": 500})).people == there
    assert size_of(checked({**values, "subjects": 70}), people=60).people == 60


def test_one_person_left_out_is_a_smaller_share_of_more_people():
    for protocol in ("subjects", "within_subject"):
        values = checked({**PAPER, "protocol": protocol, "n_groups": 0})
        small, large = (split_shares(values, size_of(values, people=n)) for n in (100, 1000))
        assert large["test"] == pytest.approx(small["test"] / 10, rel=0.01)
    values = checked({**PAPER, "protocol": "subjects", "n_groups": 300})
    assert split_shares(values, size_of(values, people=1000))["test"] == pytest.approx(1 / 300, rel=0.3)


def test_a_rate_is_measured_however_long_the_first_product_takes(monkeypatch):
    clock = itertools.count(step=10.0)
    monkeypatch.setattr(plan_devices.time, "perf_counter", lambda: next(clock))
    assert plan_devices.measured_rate(size=8, seconds=0.1) == pytest.approx(2 * 8**3 / 10)


@pytest.mark.parametrize("more", [{"processes": 8}, {"processes": 2, "sharded": True}, {"processes": 3,
                                  "encoder_batch": 48, "augmented_windows": 48, "batch_size": 24}])
def test_a_remedy_is_looked_for_among_what_several_processes_can_share(more):
    values = {**PAPER, **more}
    found = plan(values, f"{more['processes']}xA10-24", host_memory=256e9, cores=16)
    assert found.faults
    said = remedy(values, found)
    assert said.startswith(("This would fit: -p", "No smaller batch or model makes it fit"))
    changes = dict(re.findall(r"-p (\w+)=(\S+)", said))
    mended = {**values, **parse_assignments(f"{key}={value}" for key, value in changes.items())}
    assert not changes or not plan(mended, f"{more['processes']}xA10-24", host_memory=256e9, cores=16).faults


def test_the_facts_are_said_also_where_the_search_for_a_remedy_fails(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)

    def fails(*_, **__):
        raise ValueError("no remedy today")

    monkeypatch.setattr("e2llm.app.plan.remedy", fails)
    assert main(["plan", "--profile", "paper", "--gpus", "T4-16", "--memory", "256"]) == 2
    error = capsys.readouterr().err
    assert "The stage adapter needs" in error and "no remedy today" in error


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


@pytest.mark.parametrize(("levels", "slots"), [("low_high", 10), ("graded", 20)])
def test_item_sizes_are_those_of_drawn_items(levels, slots):
    """Of whole training examples, with chat template, frame of the segments, thought and end."""
    tokenizer = load_language_model("e2llm-tiny")[1]
    processor, planner = E2LLMProcessor(tokenizer, 2, slots, levels), planner_of(levels=levels, evidence_slots=slots)
    segments = imagined_segments(SEED_VII, 400, np.random.default_rng(0), SCALES[levels])
    pool = [replace(segment, window=i, subject=str(i % 12)) for i, segment in enumerate(segments)]
    with_eeg, in_words = ItemBuilder(pool, SEED_VII, 0), ItemBuilder(segments, SEED_VII, 0)
    for name in ("predict", "predict with a thought", "describe", "describe with a thought", "select", "compare",
                 "rank", "match", "choose", "scenario", "describe in words"):  # fmt: skip
        kind, builder = name.split()[0], in_words if name.endswith("in words") or name == "scenario" else with_eeg
        items = [builder.scenario() for _ in range(80)] if kind == "scenario" else builder.draw(kind, 80)
        examples = examples_of(items, processor, float(name.endswith("with a thought")), 0)
        tokens, labels, own = planner._item(name)
        assert tokens == pytest.approx(mean(len(one["input_ids"]) for one in examples), rel=0.16), name
        assert labels == pytest.approx(mean(sum(label != IGNORE for label in one["labels"]) for one in examples),
                                       rel=0.35, abs=1.5), name  # imagined segments support fewer claims
        assert own == pytest.approx(mean(len(one["windows"]) for one in examples), abs=0.2), name
        if builder is with_eeg:
            eeg = mean(one["input_ids"].count(tokenizer.convert_tokens_to_ids(EEG_TOKEN)) for one in examples)
            commas = own * (2 + slots * planner.says(kind))
            assert own * planner.segment(kind) == pytest.approx(eeg + commas, rel=0.05), name


@pytest.mark.parametrize("name", ["e2llm-tiny", "smollm2-135m", "qwen3-tokenizer"])
def test_marks_are_those_of_the_chat_template(name):
    folder = require(name) if name == "e2llm-tiny" else fetched(name)
    if folder is None:
        pytest.skip(f"{name} is not in the cache: e2llm fetch {name}")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    processor, marks = E2LLMProcessor(tokenizer), planner_of(language_model=name.replace("tokenizer", "8b")).marks
    messages = [{"role": "user", "content": "a"}]
    for thinks, planned in ((True, marks.thinking), (False, marks.plain)):
        assert len(processor.ids(processor.prompt(messages, thinks))) - 1 == planned
    item = Item("predict", 1, messages, "alpha low", "joy", ["joy"])
    said = len(processor.ids(item.response(True).removesuffix("joy")))
    assert said - len(processor.ids("alpha low")) == marks.thought


def test_a_question_of_the_second_pass_is_as_long_as_planned():
    processor = E2LLMProcessor(load_language_model("e2llm-tiny")[1])
    names = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS), GRADED)
    item = level_item(Asked.LABEL, (), names, SEED_VII, SEED_VII.labels[0])
    (example,) = examples_of([item], processor, 0.0, 0)
    planned = planner_of().marks.plain + LEVEL_TABLE.question + LEVEL_TABLE.answer + 1
    assert planned == pytest.approx(len(example["input_ids"]), abs=3)


def test_batches_are_padded_to_their_longest_item():
    same, mixed = {"describe": 1.0}, {"describe": 0.5, "scenario": 0.5}
    planner = planner_of()
    length, longest, labels, segments = planner._batches(same)
    assert (length, labels, segments) == pytest.approx(planner._item("describe")) and longest == length
    own = [planner._item(name)[0] for name in mixed]
    padded, longest, *_ = planner._batches(mixed)
    assert np.mean(own) < padded < 1.1 * np.mean(own), "items of similar length stand together"
    assert longest == max(own)
    assert planner_of(batch_size=1)._batches(mixed)[0] == pytest.approx(np.mean(own), rel=0.25)


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


def test_answers_from_the_thought_are_planned_where_they_are_asked_for():
    both, eeg = paper(), paper(answer_from="eeg")
    names = [one.name for one in both.stages]
    assert names == ["windows", "encoder", "language_model", "projector", "adapter", "second_pass", "evaluation"]
    assert [one.name for one in eeg.stages] == [name for name in names if name != "second_pass"]
    assert stage(paper(second_pass_steps=800), "second_pass").operations == pytest.approx(
        2 * stage(both, "second_pass").operations)
    half = stage(paper(second_pass_batch=16), "second_pass").device
    assert half["activations"] == pytest.approx(stage(both, "second_pass").device["activations"] / 2)
    # Tasks are asked once more beside two and a half times, and tables of levels; two models answer.
    more = stage(both, "evaluation").operations / stage(eeg, "evaluation").operations
    assert 1.4 < more < 2
    assert stage(both, "evaluation").seconds > 1.1 * stage(eeg, "evaluation").seconds
    second = stage(both, "evaluation").device["weights of the second pass"]
    assert second == stage(both, "second_pass").device["weights"]
    assert "weights of the second pass" not in stage(eeg, "evaluation").device


def test_a_number_format_is_what_the_processor_computes_in(monkeypatch):
    fast = Device("CPU", 16e9, {"float32": 50e9, "bfloat16": 100e9}, 10e9)

    def adapter(dtype):
        made = plan({"language_model": "smollm2-135m", "dtype": dtype}, device=fast, host_memory=16e9, cores=1)
        return stage(made, "adapter")

    for able in ("float32", "bfloat16"):
        monkeypatch.setattr(planning, "best_dtype", lambda able=able: able)
        assert adapter("auto") == adapter(able)
    assert adapter("bfloat16").host["weights"] < adapter("float32").host["weights"]
    # Products take half of the time, and what surrounds them as long as before for each byte.
    assert 0.45 < adapter("bfloat16").seconds / adapter("float32").seconds < 0.7


def test_more_cores_take_less_time_but_one_thread_does_a_part_alone():
    one, two, many = (stage(plan({}, device=CPU, host_memory=16e9, cores=n), "adapter").seconds for n in (1, 2, 1000))
    assert 0.5 < two / one < 0.75 and many / one > planning.SERIAL
    assert planning.speedup(1) == 1 and planning.speedup(2) == pytest.approx(1.7, abs=0.02)


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
    assert all(1e8 < device_of("").rate_of(dtype) < 1e14 for dtype in ("float32", "bfloat16"))


def test_what_cannot_fit_is_refused_with_a_remedy_that_fits(capsys):
    large = {"language_model": "Qwen/Qwen3-14B", "batch_size": 32}
    found = plan({**PAPER, **large}, "A10-24", host_memory=256e9, cores=16)
    assert any(re.match("The stage adapter needs .* on each A10-24, which has 24 GB", fault) for fault in found.faults)
    said = remedy({**PAPER, **large}, found)
    changes = re.findall(r"-p (\w+)=(\S+)", said)
    assert said.startswith("This would fit: -p") and changes
    mended = {**PAPER, **large, **parse_assignments(f"{key}={value}" for key, value in changes)}
    assert not plan(mended, "A10-24", host_memory=256e9, cores=16).faults


def test_a_second_pass_that_cannot_fit_gets_smaller_batches_and_as_many_tables():
    large = {**PAPER, "second_pass_batch": 96, "second_pass_steps": 100}
    found = plan(large, "A100-80", host_memory=256e9, cores=16)
    assert [fault.split(" needs ")[0] for fault in found.faults] == ["The stage second_pass"]
    assert remedy(large, found) == "This would fit: -p second_pass_batch=48 -p second_pass_steps=200"


def test_too_little_memory_and_disk_are_named():
    found = plan({}, device=CPU, host_memory=0.5e9, disk_free=1e6, cores=2)
    assert any("of memory, and 0.5 GB are there" in fault for fault in found.faults)
    assert any(re.match(r"The run needs .* on the disk, and 1.0 MB are free", fault) for fault in found.faults)
    assert "No smaller batch or model makes it fit" in remedy({}, found)


def test_the_command_says_what_fits_and_what_does_not(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("e2llm.core.space.free_above", lambda folder: 1e12)  # whatever is free on this disk
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


def test_what_a_plan_takes_for_granted_or_leaves_out_is_said():
    said = in_words(paper(gpus="8xA100-80"))
    assert "run it with -p processes=8, for processes = 1." in said
    assert "processes" not in in_words(paper(gpus="8xA100-80", processes=8, encoder_batch=64, augmented_windows=64))
    assert "The trainings of ablation and eegnet are not in this plan." in in_words(paper(ablation=True, eegnet=True))


def test_the_clips_of_the_twin_are_not_asked_for_and_its_people_count():
    with pytest.raises(PlanError, match="The simulated twin has 80 clips"):
        size_of(checked({}), clips=40)
    assert size_of(checked({"twin_subjects": 5}), seconds=10).people == 5
