"""A stage is whole or it does not exist, and it is made again exactly when something it was made from changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from e2llm.app import records, report, runs
from e2llm.app.locks import RunBusy, held
from e2llm.app.runs import Progress, Run, StageMissing
from e2llm.core import environment as environment_module
from e2llm.core import files
from e2llm.core.files import data_fingerprint, project_root
from e2llm.data.audit import NOTHING_FOUND


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    for variable in ("E2LLM_RUNS", "E2LLM_BATCH", "JPY_SESSION_NAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return Run.open("tiny")


def make(run: Run, name: str, params: dict | None = None, needs=(), content: str = "data", **kwargs) -> runs.Stage:
    stage = run.stage(name, params or {}, needs, **kwargs).begin()
    (stage.path / "data.txt").write_text(content)
    return stage.finish({"accuracy": 1 / 3})


def test_the_root_is_found_from_a_folder_below(run, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "pyproject.toml").write_text('[project]\nname = "another"\n')
    monkeypatch.chdir(tmp_path / "notebooks")
    assert project_root() == tmp_path


def test_runs_may_lie_elsewhere(run, tmp_path, monkeypatch):
    monkeypatch.setenv("E2LLM_RUNS", "trials/runs")
    assert Run.open("a").path == tmp_path / "trials" / "runs" / "a"
    monkeypatch.setenv("E2LLM_RUNS", "")
    assert Run.open("a").path == tmp_path / "runs" / "a"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", ".hidden", "-p"])
def test_names_that_are_no_folder_are_refused(run, name):
    with pytest.raises(ValueError, match="cannot name a run"):
        Run.open(name)


def test_a_finished_stage_is_done_for_equal_requests_only(run):
    make(run, "windows", {"seconds": 4, "bands": (1, 2)}, inputs={"data": "abc"})
    assert run.stage("windows", {"bands": [1, 2], "seconds": np.int64(4)}, inputs={"data": "abc"}).done
    assert not run.stage("windows", {"seconds": 5, "bands": (1, 2)}, inputs={"data": "abc"}).done
    assert not run.stage("windows", {"seconds": 4, "bands": (1, 2)}, inputs={"data": "abd"}).done


def test_metrics_come_back_exactly(run):
    make(run, "windows")
    assert run.stage("windows", {}).metrics == {"accuracy": 1 / 3}
    with pytest.raises(StageMissing, match="has no metrics yet"):
        run.stage("windows", {"other": 1}).metrics  # noqa: B018


@pytest.mark.parametrize("change", [{"params": {"seconds": 5}}, {"content": "other"}])
def test_a_change_upstream_makes_downstream_stale(run, change):
    make(run, "windows")
    make(run, "encoder", needs=("windows",))
    make(run, "projector", needs=("encoder",))
    if "content" in change:  # equal parameters, other bytes: only a removed folder can be made again
        (run.path / "windows" / "data.txt").unlink()
    make(run, "windows", **change)
    assert not run.stage("encoder", {}, ("windows",)).done
    with pytest.raises(StageMissing, match=r"'encoder', which is out of date.* 02_encoder with run_name = 'tiny'"):
        run.stage("projector", {}, ("encoder",))
    assert list(json.loads((run.path / "manifest.json").read_text())["stages"]) == ["windows"]


def test_an_equal_stage_made_again_leaves_downstream_valid(run):
    make(run, "windows")
    make(run, "encoder", needs=("windows",))
    (run.path / "windows" / "data.txt").unlink()
    make(run, "windows")
    assert run.stage("encoder", {}, ("windows",)).done


def test_a_missing_stage_says_what_to_run(run):
    with pytest.raises(StageMissing) as error:
        run.stage("encoder", {}, ("windows",))
    for fact in ("'encoder'", "'windows'", "is not finished", "01_preprocessing", "run_name = 'tiny'"):
        assert fact in str(error.value)


def flip(file: Path, place: int) -> None:
    """Change one bit; size and time of the file stay."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[place] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("damage", [
    lambda file: file.unlink(), lambda file: file.write_text("longer than before"), lambda file: flip(file, 0),
    lambda file: flip(file, 2), lambda file: flip(file, -1), lambda file: file.write_bytes(bytes(4)),
])  # fmt: skip
def test_a_damaged_stage_is_not_done_and_starts_afresh(run, damage):
    stage = make(run, "windows")
    damage(stage.path / "data.txt")
    assert not stage.done
    (stage.path / "leftover").write_text("x")
    stage.begin()
    assert sorted(path.name for path in stage.path.iterdir()) == ["stage.part.json"]


def test_a_flipped_bit_makes_what_was_made_from_it_stale_and_is_named(run):
    make(run, "encoder")
    make(run, "projector", needs=("encoder",))
    flip(run.path / "encoder" / "data.txt", 1)
    for ask in (lambda: run.stage("adapter", {}, ("projector",)), lambda: run.require("projector")):
        with pytest.raises(StageMissing, match=r"'projector'.* is out of date .*its files .*03_alignment"):
            ask()
    with pytest.raises(StageMissing, match=r"'encoder' is out of date .* 02_encoder"):
        run.require("encoder")


def test_a_large_file_is_read_once_by_all_processes_and_again_if_it_was_touched(run, monkeypatch):
    monkeypatch.setattr(records, "LARGE", 3)
    read = []
    monkeypatch.setattr(records, "checksum", lambda path: read.append(path.name) or files.checksum(path))
    make(run, "windows")
    for _ in range(2):
        monkeypatch.setattr(records, "_SEEN", {})  # another process
        assert run.require("windows") and run.require("windows")
    assert read == []  # it was read when the stage was finished
    flip(run.path / "windows" / "data.txt", 1)
    assert run.finished("windows") is None and run.finished("windows") is None and read == ["data.txt"]
    (run.path / ".stage-digests.json").write_text("[")
    monkeypatch.setattr(records, "_SEEN", {})
    assert run.finished("windows") is None and read == 2 * ["data.txt"]


DAMAGED = {
    "a list": "[]", "nothing": "", "an empty object": "{}", "a number": "7", "text": '"windows"', "null": "null",
    "no JSON": '{"stage": ', "a stray byte": b"\xff\xfe{", "nested without end": "[" * 100_000,
    "no files": ("files", None), "files as a list": ("files", ["data.txt"]),
    "a file without facts": ("files", {"a": 3}),
    "a file without checksum": ("files", {"data.txt": {"size": 4}}), "needs as text": ("needs", "encoder"),
    "the key as a number": ("key", 7), "itself": ("needs", {"windows": "0"}), "a circle": ("needs", {"encoder": "0"}),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_one_sentence_that_names_the_file(run, damage):
    make(run, "windows")
    make(run, "encoder", needs=("windows",))
    path = run.path / "windows" / "stage.json"
    if isinstance(damage, tuple):
        damage = json.dumps({**json.loads(path.read_text()), damage[0]: damage[1]})
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    for ask in (lambda: run.require("windows"), lambda: run.stage("windows", {}).done, lambda: report.build(run)):
        with pytest.raises(ValueError, match=rf"stage.json is .*: remove the folder {run.path}.* make it") as error:
            ask()
        assert "\n" not in str(error.value) and len(str(error.value)) < 500
    shutil.rmtree(run.path / "windows")  # the remedy
    shutil.rmtree(run.path / "encoder")
    assert make(run, "windows").done


@pytest.mark.parametrize("content", ["[]", "{}", "7", "half", '{"key": 1, "attempts": 1}', '{"key": "a"}'])
def test_damaged_notes_of_work_that_was_cut_off_are_one_sentence(run, content):
    stage = run.stage("windows", {}).begin()
    (stage.path / "stage.part.json").write_text(content)
    with pytest.raises(ValueError, match=r"stage.part.json is .*: remove the folder"):
        run.stage("windows", {}).begin()


@pytest.mark.parametrize("content", ["[]", "7", "half"])
def test_a_damaged_note_beside_the_metrics_is_one_sentence(run, content):
    run.write_metrics({"a": 1})
    (run.path / ".metrics-source.json").write_text(content)
    with pytest.raises(ValueError, match=r"\.metrics-source.json is "):
        run.read_metrics()


def test_a_cut_off_stage_keeps_its_checkpoints_for_the_same_work_only(run):
    checkpoint = run.stage("encoder", {"lr": 0.1}).begin().path / "checkpoints" / "step-5"
    checkpoint.parent.mkdir()
    checkpoint.write_text("weights")
    run.stage("encoder", {"lr": 0.1}).begin()
    assert checkpoint.exists()
    run.stage("encoder", {"lr": 0.2}).begin()
    assert not checkpoint.exists()


def test_finish_records_files_and_drops_checkpoints(run):
    stage = run.stage("encoder", {"lr": 0.1}).begin()
    for name in ("checkpoints/step-5", "weights/a.bin", ".hidden"):
        (stage.path / name).parent.mkdir(exist_ok=True)
        (stage.path / name).write_text("abc")
    stage.finish({"loss": np.float32(0.5), "auc": float("nan")}, failed=["3.mat"])
    record = json.loads((stage.path / "stage.json").read_text())
    assert list(record["files"]) == ["weights/a.bin"] and record["files"]["weights/a.bin"]["size"] == 3
    assert record["metrics"] == {"loss": 0.5, "auc": None} and record["facts"] == {"failed": ["3.mat"]}
    assert {"torch", "mne", "python", "e2llm"} <= set(record["versions"])
    assert not (stage.path / "checkpoints").exists() and not (stage.path / "stage.part.json").exists()


def test_begin_never_throws_finished_work_away(run):
    stage = make(run, "windows")
    with pytest.raises(RuntimeError, match="is finished"):
        stage.begin()
    with pytest.raises(RuntimeError, match=r"finish\(\) before begin\(\)"):
        run.stage("encoder", {}).finish()


# A process that begins one stage and writes its files; {then} is what it does after.
MAKER = """
import os, signal, sys
from e2llm.app import runs
from e2llm.app.runs import Run
from e2llm.core import files
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
stage = Run.open("tiny").stage("first", {params}).begin()
(stage.path / "data.txt").write_text("{params}")
(stage.path / "checkpoints").mkdir(exist_ok=True)
(stage.path / "checkpoints" / "step-5").write_text("weights")
{then}
"""


def process(then: str, params: dict | None = None) -> subprocess.Popen:
    """A process of its own, in the place of this one."""
    script = MAKER.replace("{params}", str(params or {})).replace("{then}", textwrap.dedent(then))
    environment = {**os.environ, "PYTHONPATH": str(Path(runs.__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def killed(then: str, params: dict | None = None) -> None:
    """Run :data:`MAKER`, which must end by SIGKILL."""
    ended = process(then, params)
    _, errors = ended.communicate(timeout=120)
    assert ended.returncode == -signal.SIGKILL, errors


def hidden(run: Run) -> list[str]:
    return sorted(path.name for path in run.path.iterdir() if re.fullmatch(r"\..*(part-.*|old)", path.name))


def test_an_interrupt_leaves_the_old_stage_and_what_depends_on_it(run):
    """A lesson invites to change a parameter; whoever stops that training has lost nothing, and can go on with it."""
    make(run, "first", {"lr": 0.1})
    make(run, "second", needs=("first",))
    before = sorted((path, path.read_bytes()) for path in run.path.rglob("*") if path.is_file())
    killed("kill()", {"lr": 0.2})
    run = Run.open("tiny")
    assert run.require("first")["params"] == {"lr": 0.1} and run.stage("first", {"lr": 0.1}).done
    assert run.stage("second", {}, ("first",)).done
    assert all(path.read_bytes() == content for path, content in before)

    stage = run.stage("first", {"lr": 0.2})
    assert not stage.done and stage.path == run.path / "first"
    stage.begin()
    assert stage.path != run.path / "first" and (stage.path / "checkpoints" / "step-5").read_text() == "weights"
    assert run.require("second")["needs"]
    stage.finish()
    assert stage.path == run.path / "first" and stage.done and run.require("first")["attempts"] == 2
    assert run.finished("second") is None and hidden(run) == []
    assert sorted(path.name for path in stage.path.iterdir()) == ["data.txt", "stage.json"]


# Each place in which finish() can be cut off, and which stage is there afterwards.
CUTS = {
    "the record": ("files.os.replace = kill", {"lr": 0.1}),
    "the checkpoints": ("runs.shutil.rmtree = kill", {"lr": 0.2}),
    "old aside": ("runs.Path.rename = kill", {"lr": 0.2}),
    "new in": ("real = runs.Path.rename; runs.Path.rename = lambda a, b: kill() if '.part-' in a.name else real(a, b)",
               {"lr": 0.2}),
    "old away": ("real = runs.shutil.rmtree\n"
                 "runs.shutil.rmtree = lambda a, **k: kill() if '.old' in a.name and a.exists() else real(a, **k)",
                 {"lr": 0.2}),
    "the manifest": ("runs.Run.refresh_manifest = kill", {"lr": 0.2}),
}  # fmt: skip


@pytest.mark.parametrize(("cut", "old"), [(cut, old) for cut in CUTS for old in (True, False)
                                          if old or not cut.startswith("old")])
def test_a_process_killed_while_finishing_leaves_one_whole_stage_or_none(run, cut, old):
    if old:
        make(run, "first", {"lr": 0.1})
    code, expected = CUTS[cut]
    killed(f"{code}\nstage.finish()", {"lr": 0.2})
    run = Run.open("tiny")
    record = run.finished("first")
    if not old and expected == {"lr": 0.1}:
        assert record is None and not (run.path / "first").exists()
    else:
        assert record["params"] == expected
        content = "data" if expected == {"lr": 0.1} else str(expected)
        assert (run.path / "first" / "data.txt").read_text() == content
        assert sorted(path.name for path in (run.path / "first").iterdir()) == ["data.txt", "stage.json"]
    assert not any(".old" in name for name in hidden(run))
    stage = run.stage("first", {"lr": 0.2})
    if not stage.done:
        stage.begin().finish()
    assert run.require("first")["params"] == {"lr": 0.2} and hidden(run) == []


def test_a_removal_cut_off_never_looks_like_work_to_go_on_with(run):
    killed("kill()", {"lr": 0.1})
    killed("kill()", {"lr": 0.2})  # removes the work of 0.1
    assert len(hidden(run)) == 1
    (work,) = (run.path / name for name in hidden(run))
    (work / "stage.part.json").unlink()
    stage = run.stage("first", {"lr": 0.2}).begin()
    assert stage.path == work and [path.name for path in work.iterdir()] == ["stage.part.json"]


def test_a_stage_killed_when_it_was_whole_is_not_made_again_in_a_run_that_was_open(run):
    """The other process dies while this one has its run open: its work is taken over, not mixed with new files."""
    killed("runs.Path.rename = kill\nstage.finish()", {"lr": 0.2})
    with pytest.raises(RuntimeError, match="is finished: use it"):
        run.stage("first", {"lr": 0.2}).begin()
    assert run.stage("first", {"lr": 0.2}).done and hidden(run) == []
    assert make(run, "second").done  # the lock is free


HOLD = "print('begun', flush=True)\nsys.stdin.readline()\nstage.finish()"


def test_a_second_process_is_refused_and_the_first_is_named(run):
    make(run, "other", {"a": 1})
    holder = process(HOLD, {"lr": 0.1})
    assert holder.stdout.readline() == "begun\n"
    for name in ("first", "second"):
        message = rf"The run 'tiny' .* process {holder.pid} on .*\(at first\) since 20.*: .* another run name"
        with pytest.raises(RunBusy, match=message):
            run.stage(name, {}).begin()
    assert run.require("other") and Run.open("tiny").finished("first") is None  # to read is no conflict
    assert make(Run.open("another"), "first").done
    assert holder.communicate("\n", timeout=120)[1] == "" and holder.returncode == 0
    assert run.require("first")["params"] == {"lr": 0.1}
    assert run.stage("second", {}).begin().finish().done


def test_a_dead_process_blocks_nobody(run):
    holder = process(HOLD)
    assert holder.stdout.readline() == "begun\n"
    holder.kill()
    holder.communicate(timeout=120)
    assert (run.path / ".stage.json").is_file()  # its note is still there
    assert run.stage("second", {}).begin().finish().done


def test_whoever_waits_gets_the_run_when_the_first_has_ended(run, capfd):
    holder = process(HOLD, {"lr": 0.1})
    assert holder.stdout.readline() == "begun\n"
    threading.Timer(1.5, lambda: holder.communicate("\n")).start()
    with held(run, "my work", wait=True):
        assert holder.wait(10) == 0 and run.require("first")["params"] == {"lr": 0.1}
    said = capfd.readouterr().err
    assert f"process {holder.pid}" in said and said.endswith("waiting until it has ended.\n")


@pytest.mark.parametrize("note", ["[]", "{}", "half", '{"process": "7"}', None])
def test_a_damaged_note_of_a_holder_is_no_reason_to_fail(run, note):
    holder = process(HOLD)
    assert holder.stdout.readline() == "begun\n"
    path = run.path / ".stage.json"
    path.unlink() if note is None else path.write_text(note)
    with pytest.raises(RunBusy, match="is in use by another process: wait"):
        run.stage("second", {}).begin()
    holder.kill()
    holder.communicate(timeout=120)
    assert run.stage("second", {}).begin().finish().done


def test_one_process_may_make_stages_within_stages(run):
    outer = run.stage("outer", {}).begin()
    run.stage("outer", {}).begin()  # after an interrupt, in the same kernel
    inner = make(run, "inner")
    waiting = process(HOLD)
    assert "RunBusy" in waiting.communicate(timeout=120)[1]
    assert inner.done and outer.finish().done
    freed = process(HOLD)
    assert freed.communicate("\n", timeout=120) == ("begun\n", "") and run.finished("first")


def test_an_interrupted_cell_lets_go_of_the_run(run):
    script = textwrap.dedent("""
        import sys
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.run_cell("from e2llm.app.runs import Run")
        shell.run_cell("stage = Run.open('tiny').stage('first', {}).begin(); raise KeyboardInterrupt")
        print("ended", flush=True)
        sys.stdin.readline()
        result = shell.run_cell("stage.finish()")
        print(type(result.error_in_exec).__name__, flush=True)
    """)
    package = str(Path(runs.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": package, "IPYTHONDIR": str(run.root / "ipython")}
    kernel = subprocess.Popen([sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    while (line := kernel.stdout.readline()) and line != "ended\n":
        pass
    assert line == "ended\n"
    own = run.stage("second", {}).begin()
    said, _ = kernel.communicate("\n", timeout=120)
    assert said.splitlines()[-1] == "RunBusy"  # a later cell has to take the lock again
    assert own.finish().done


def test_a_failing_write_leaves_the_file_as_it_was(run):
    path = run.write_metrics({"accuracy": 0.5})
    with pytest.raises(TypeError, match=r"metrics.model is a object"):
        run.write_metrics({"model": object()})
    assert run.read_metrics() == {"accuracy": 0.5}
    with pytest.raises(ZeroDivisionError), files.replacing(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert run.read_metrics() == {"accuracy": 0.5}
    assert sorted(file.name for file in run.path.iterdir()) == [".metrics-source.json", "metrics.json"]


def test_metrics_are_the_same_bytes_whatever_the_order_and_hold_no_path(run):
    first = run.write_metrics({"b": 1, "a": {"y": 0.1, "x": None}}).read_bytes()
    assert run.write_metrics({"a": {"x": None, "y": 0.1}, "b": 1}).read_bytes() == first
    with pytest.raises(ValueError, match="Metrics hold the path"):
        run.write_metrics({"samples": [f"see {run.path}"]})


def test_missing_metrics_say_what_to_run(run):
    with pytest.raises(StageMissing, match="05_evaluation with run_name = 'tiny'"):
        run.read_metrics()


def test_metrics_of_an_earlier_state_of_the_run_are_not_shown_as_the_new_ones(run):
    make(run, "windows")
    make(run, "evaluation", needs=("windows",))
    content = run.write_metrics({"tables": {"emotion": [{"model": "E2-LLM", "kappa": 0.12345}]}}).read_bytes()
    assert run.read_metrics()["tables"] and ">0.123<" in report.build(run).read_text(encoding="utf-8")
    make(run, "windows", {"seconds": 5})
    for again in (False, True):  # stale, then made again, but its results not yet written
        if again:
            make(run, "evaluation", needs=("windows",))
        with pytest.raises(StageMissing, match=r"metrics.json is of an earlier state of the run.* 05_evaluation"):
            run.read_metrics()
        assert "no tables of results" in report.build(run).read_text(encoding="utf-8")
    assert (run.path / "metrics.json").read_bytes() == content  # kept until the new ones are there
    assert run.write_metrics({"tables": {}}) and run.read_metrics() == {"tables": {}}


def test_metrics_that_do_not_say_of_which_evaluation_they_are_are_not_shown(run):
    """As in a folder of an older version, or one that was copied without its hidden files."""
    make(run, "windows")
    make(run, "evaluation", needs=("windows",))
    run.write_metrics({"tables": {}})
    run._metrics_source.unlink()
    for change in (lambda: None, lambda: make(run, "windows", {"seconds": 5})):
        change()
        with pytest.raises(StageMissing, match="is of an earlier state of the run"):
            run.read_metrics()


def test_predictions_keep_every_digit(run):
    table = pd.DataFrame({"window": [1, 2], "p": [1 / 3, 2 / 3]})
    pd.testing.assert_frame_equal(pd.read_csv(run.write_predictions(table)), table, check_exact=True)


def test_stages_with_impossible_names_or_parameters_are_refused(run):
    with pytest.raises(ValueError, match="another name"):
        run.stage("figures", {})
    with pytest.raises(TypeError, match=r"write \('windows',\)"):
        run.stage("encoder", {}, "windows")
    with pytest.raises(TypeError, match=r"params.a\[0\] is a set"):
        run.stage("encoder", {"a": [set()]})


@pytest.mark.parametrize("place", [0, -1])
def test_a_fingerprint_sees_both_ends_of_large_files(tmp_path, place):
    (tmp_path / "sub").mkdir()
    file, content = tmp_path / "sub" / "1.mat", bytearray(300_000)
    file.write_bytes(content)
    before = data_fingerprint(tmp_path)
    (tmp_path / ".DS_Store").write_text("x")
    os.utime(file, (1, 1))
    assert data_fingerprint(tmp_path) == before
    content[place] = 1
    file.write_bytes(content)
    assert data_fingerprint(tmp_path) != before


def test_a_fingerprint_sees_names_sizes_and_missing_folders(tmp_path):
    (tmp_path / "1.mat").write_bytes(bytes(300_000))
    before = data_fingerprint(tmp_path)
    (tmp_path / "1.mat").rename(tmp_path / "2.mat")
    renamed = data_fingerprint(tmp_path)
    (tmp_path / "2.mat").write_bytes(bytes(300_001))
    assert len({before, renamed, data_fingerprint(tmp_path)}) == 3
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        data_fingerprint(tmp_path / "nowhere")


def drawing() -> Figure:
    figure = Figure()
    figure.subplots().plot([1, 3, 2])
    return figure


def test_figures_are_equal_bytes_and_stay_in_the_run(run, tmp_path):
    first = run.figure(drawing(), "confusion").read_bytes()
    assert run.stage("windows", {}).figure(drawing(), "confusion").read_bytes() == first
    assert b"Software" not in first and not (tmp_path / "figures").exists()


def test_figures_are_published_on_request_those_that_are_shown_already(run, tmp_path):
    (tmp_path / "figures").mkdir()
    with pytest.raises(FileNotFoundError, match=f"{run.name!r} has none of the figures in"):
        run.publish_figures()
    first = run.figure(drawing(), "confusion").read_bytes()
    run.figure(drawing(), "shortcuts")
    (shown := tmp_path / "figures" / "confusion.png").write_bytes(b"old")
    (tmp_path / "figures" / "drawn_by_hand.png").write_bytes(b"kept")
    assert run.publish_figures() == [shown] and shown.read_bytes() == first
    assert run.publish_figures(["shortcuts"]) == [shown, shown.with_name("shortcuts.png")]
    assert shown.with_name("drawn_by_hand.png").read_bytes() == b"kept"
    with pytest.raises(FileNotFoundError, match="has no figure claims; it has confusion, shortcuts"):
        run.publish_figures(["claims"])


def test_a_figure_of_a_stage_that_changed_is_in_no_report(run, tmp_path):
    make(run, "windows")
    run.figure(drawing(), "spectra")
    make(run, "reasoning", {"seed": 0}, ("windows",))
    run.figure(drawing(), "claims")
    (run.path / "figures" / "by_hand.png").write_bytes(b"of an older version")
    assert list(run.current_figures()) == ["by_hand", "claims", "spectra"]
    again = Run.open("tiny")
    make(again, "reasoning", {"seed": 1}, ("windows",))
    assert list(again.current_figures()) == ["by_hand", "spectra"]  # what shows the windows alone stays
    with pytest.raises(FileNotFoundError, match="has no figure claims"):
        again.publish_figures(["claims"])
    again.figure(drawing(), "claims")
    assert "claims" in again.current_figures()
    make(again, "windows", {"l_freq": 1.0})
    assert list(again.current_figures()) == ["by_hand"]


def test_what_an_open_file_keeps_of_an_old_stage_stops_nothing(run, monkeypatch):
    """As on a network disk: what another process has open cannot be removed."""
    make(run, "first", {"lr": 0.1})
    real = shutil.rmtree
    monkeypatch.setattr(runs.shutil, "rmtree", lambda path, ignore_errors=False, **more: None
                        if ignore_errors and ".old" in path.name else real(path, ignore_errors, **more))
    make(run, "first", {"lr": 0.2})
    for lr in (0.3, 0.4):
        (left,) = run.path.glob(".first.old-*") if lr == 0.3 else list(run.path.glob(".first.old-*"))[:1]
        (left / "stage.json").unlink(missing_ok=True)
        make(Run.open("tiny"), "first", {"lr": lr})
    assert Run.open("tiny").require("first")["params"] == {"lr": 0.4}
    real(run.path / "first")
    for left in run.path.glob(".first.old-*"):
        (left / "stage.json").unlink(missing_ok=True)
    assert Run.open("tiny").finished("first") is None  # a part of a stage is no stage


def test_progress_that_cannot_be_written_ends_no_training(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs, "write_json", full)
    with Progress(run, 10, "training") as progress:
        for step in range(11):
            progress.update(step, loss=0.5)


def test_progress_writes_seldom_and_prints_nothing_in_batch(run, capfd):
    with Progress(run, 1000, "training") as progress:
        progress.update(1, loss=np.float32(0.5))
        first = (run.path / "progress.json").read_text()
        assert json.loads(first) == {"label": "training", "step": 1, "total": 1000, "facts": {"loss": 0.5}}
        progress.update(2)
        assert (run.path / "progress.json").read_text() == first
        progress.update(1000)
        assert json.loads((run.path / "progress.json").read_text())["step"] == 1000
    assert not (run.path / "progress.json").exists()
    assert capfd.readouterr() == ("", "")


def test_a_kernel_is_interactive_unless_in_a_batch(run, monkeypatch):
    assert not environment_module.is_interactive()
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    assert environment_module.is_interactive()
    monkeypatch.setenv("E2LLM_BATCH", "1")
    assert not environment_module.is_interactive()


def test_the_report_escapes_what_models_write_and_needs_no_network(run):
    make(run, "windows", {"protocol": "cross-subject"})
    run.figure(drawing(), "02_confusion-matrix")
    rows = [{"model": "E2-LLM", "accuracy %": 0.4567, "kappa": 0.12345, "n": 12345, "p": None}]
    sample = {"question": "Which emotion?", "answer": "<script>alert(1)</script>", "truth": "happy"}
    run.write_metrics({"tables": {"emotion<b>": rows}, "samples": [sample]})
    html = report.build(run).read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "Emotion&lt;b&gt;" in html
    for text in (">45.7<", ">0.123<", ">12345<", ">–<", "Confusion matrix", "image/png;base64", "cross-subject"):
        assert text in html
    assert "http" not in html


def test_a_run_without_results_has_a_report_that_says_so(run):
    html = report.build(run).read_text(encoding="utf-8")
    assert "no tables of results" in html and "no finished stage" in html


def test_the_report_says_what_was_tested_and_stamps_what_leaks(run):
    facts = {"what is unseen": "people and clips", "audit": ["time_neighbors: 3 clips.", "nothing <b>else</b>."],
             "test windows": 12}
    run.write_metrics({"facts": {**facts, "stamp": ""}, "tables": {}})
    html = report.build(run).read_text(encoding="utf-8")
    assert "time_neighbors: 3 clips. nothing &lt;b&gt;else&lt;/b&gt;." in html and ">12<" in html
    assert "Do not use these scores" not in html
    assert html.count('<p class="warning" role="alert">') == 2
    assert html.index("time_neighbors") < html.index("What was tested")
    run.write_metrics({"facts": {**facts, "audit": [NOTHING_FOUND], "stamp": ""}, "tables": {}})
    assert '<p class="warning"' not in report.build(run).read_text(encoding="utf-8")
    run.write_metrics({"facts": {**facts, "stamp": "LEAKY: clip_on_both_sides"}, "tables": {}})
    assert "LEAKY: clip_on_both_sides. Do not use these scores." in report.build(run).read_text(encoding="utf-8")
