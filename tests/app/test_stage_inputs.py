"""Windows are made again when a file that they were made from has changed.

And constants of the code count like files.
"""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from edfio import Edf, EdfSignal
from layouts import write_bids, write_emoeeg, write_seed_raw

import e2llm
from e2llm.app import runs, stage_code, stages
from e2llm.app.runs import Run
from e2llm.core import files
from e2llm.core.claims import GRADED, EvidenceNames
from e2llm.core.files import data_fingerprint
from e2llm.core.labels import SEED_VII
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.sources import SOURCES, open_source
from e2llm.data.sources.base import SourceError
from e2llm.models import language
from e2llm.tasks import scenarios

_OPENED: set[Path] | None = None


def _note(event: str, arguments: tuple) -> None:
    if event == "open" and _OPENED is not None and isinstance(arguments[0], (str, os.PathLike)):
        _OPENED.add(Path(os.path.realpath(arguments[0])))


sys.addaudithook(_note)


def small(kind: str, tmp_path: Path, tiny_twin: Path) -> tuple[Path, dict]:
    """A data set of a kind with things beside it that no reader needs, and the options to open it."""
    root = tmp_path / "data"
    if kind.startswith("seed-vii"):
        shutil.copytree(tiny_twin, root)
        if kind == "seed-vii-raw":
            write_seed_raw(root)
        return root, {}
    if kind == "folder":
        root.mkdir()
        rng = np.random.default_rng(0)
        for name in ("a", "b"):
            signals = [EdfSignal(rng.normal(0, 10, 512), 128, label=x, physical_dimension="uV") for x in ("Fz", "Cz")]
            Edf(signals).write(root / f"{name}.edf")
        table = tmp_path / "tables" / "labels.csv"
        table.parent.mkdir()
        table.write_text("file,subject,session,label\na.edf,1,1,calm\nb.edf,2,1,tense\n")
        return root, {"table": str(table)}
    if kind == "bids":
        for subject in ("01", "02"):
            write_bids(root, subject)
    if kind == "emoeeg-mc":
        write_emoeeg(root, 2, per_label=1)
    if kind == "faced":
        (root / "Processed_data").mkdir(parents=True)
        for number in (0, 1):
            content = pickle.dumps(np.ones((28, 32, 7500), np.float32))
            (root / "Processed_data" / f"sub{number:03d}.pkl").write_bytes(content)
        pd.DataFrame({"x": ["nothing"]}).to_excel(root / "Electrode_Location.xlsx")
    return root, {}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_file_that_a_source_opens_is_in_its_fingerprint(kind, tmp_path, tiny_twin, monkeypatch):
    """An audit hook of Python records which files are opened. Each byte counts, also under an old size and time."""
    root, options = small(kind, tmp_path, tiny_twin)
    global _OPENED
    _OPENED = set()
    try:
        source = open_source(kind, root, **options)
        for recording in source.recordings:
            assert len(list(source.trials(recording)))
        read = {path for path in _OPENED if path.is_file() and path.is_relative_to(tmp_path.resolve())}
    finally:
        _OPENED = None
    assert {recording.path.resolve() for recording in source.recordings if recording.path.is_file()} <= read
    before = data_fingerprint(root, source.inputs())
    for path in sorted(read):
        whole, times = path.read_bytes(), path.stat()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert data_fingerprint(root, source.inputs()) != before, path
        path.write_bytes(whole)
    assert data_fingerprint(root, source.inputs()) == before


def test_files_that_are_not_read_do_not_count(tmp_path, tiny_twin):
    root, _ = small("seed-vii", tmp_path, tiny_twin)
    before = data_fingerprint(root, open_source("seed-vii", root, subjects=1).inputs())
    (root / "EEG_raw").mkdir()
    (root / "EEG_raw" / "1_20221001_1.cnt").write_text("large")
    (root / "EEG_preprocessed" / "2.mat").unlink()
    assert data_fingerprint(root, open_source("seed-vii", root, subjects=1).inputs()) == before
    assert data_fingerprint(root, open_source("seed-vii", root, subjects=2).inputs()) != before


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    monkeypatch.setenv("E2LLM_RUNS", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_label_table_outside_the_folder_makes_the_windows_stale(project, tiny_twin, monkeypatch):
    """The labels of finished windows are those of the table as it is."""
    root, options = small("folder", project, tiny_twin)
    params, made = PreprocessParams(), []

    def write_windows(source, folder, *_):
        made.append([row.label for row in source.rows.itertuples()])
        raise InterruptedError

    monkeypatch.setattr(stages, "write_windows", write_windows)
    run = Run.open("own")
    for old, new in (("calm", "calm"), ("1,1,calm", "1,1,sad")):
        table = Path(options["table"])
        table.write_text(table.read_text().replace(old, new))
        with pytest.raises(InterruptedError):
            stages.preprocess(run, "folder", root, params, **options)
    assert made == [["calm", "tense"], ["sad", "tense"]]
    keys = [files.read_json(path)["key"] for path in run.path.glob(".windows.part-*/stage.part.json")]
    assert len(keys) == 1
    table.write_text(table.read_text().replace("tense", "glad"))
    with pytest.raises(InterruptedError):
        stages.preprocess(run, "folder", root, params, **options)
    assert [files.read_json(path)["key"] for path in run.path.glob(".windows.part-*/stage.part.json")] != keys


def test_a_linked_folder_counts_with_its_files(tmp_path):
    for name in ("data", "elsewhere"):
        (tmp_path / name).mkdir()
    recording = tmp_path / "elsewhere" / "1.mat"
    recording.write_bytes(bytes(300_000))
    (tmp_path / "data" / "EEG").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "data", target_is_directory=True)  # a circle, which ends
    before = data_fingerprint(tmp_path / "data")
    recording.write_bytes(bytes(150_000) + b"x" + bytes(149_999))
    assert data_fingerprint(tmp_path / "data") != before


def test_a_link_that_leads_to_another_file_counts_and_so_does_a_file_outside(tmp_path):
    data, cache = tmp_path / "data", tmp_path / "digests.json"
    data.mkdir()
    for name in ("old", "new", "table"):
        (tmp_path / name).write_bytes(name.encode().ljust(5) * 60_000)
        os.utime(tmp_path / name, (1, 1))
    (data / "1.edf").symlink_to(tmp_path / "old")
    inputs = [data, tmp_path / "table"]
    first = data_fingerprint(data, inputs, cache)
    (data / "1.edf").unlink()
    (data / "1.edf").symlink_to(tmp_path / "new")  # of the same size and time
    second = data_fingerprint(data, inputs, cache)
    (tmp_path / "table").write_bytes((tmp_path / "old").read_bytes())
    os.utime(tmp_path / "table", (1, 1))
    third = data_fingerprint(data, inputs, cache)
    (data / "1.edf").unlink()
    (data / "1.edf").symlink_to(tmp_path / "nowhere")
    assert len({first, second, third, data_fingerprint(data, inputs, cache)}) == 4


@pytest.mark.parametrize("damage", ["", "[]", "7", "half", b"\xff\xfe", '{"1 2 3 4": 5}'])
def test_a_damaged_note_of_digests_is_made_again(tmp_path, damage):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.mat").write_bytes(b"content")
    cache = tmp_path / "digests.json"
    cache.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert data_fingerprint(tmp_path / "data", cache=cache) == data_fingerprint(tmp_path / "data")


def test_contents_are_read_once_and_again_after_an_edit(tmp_path, monkeypatch):
    data, cache = tmp_path / "data", tmp_path / "digests.json"
    data.mkdir()
    for name in ("1.mat", "2.mat"):
        (data / name).write_bytes(name.encode() * 100_000)
    read, checksum, now = [], files.checksum, files.time.time
    monkeypatch.setattr(files, "checksum", lambda path: read.append(path.name) or checksum(path))
    first = data_fingerprint(data, cache=cache)
    data_fingerprint(data, cache=cache)
    assert read == ["1.mat", "2.mat"] * 2  # just written: an edit within one tick of the clock would not be noticed
    monkeypatch.setattr(files.time, "time", lambda: now() + 60)
    for _ in range(3):
        assert data_fingerprint(data, cache=cache) == first
    assert read[4:] == ["1.mat", "2.mat"]
    times = (data / "2.mat").stat()
    content = bytearray((data / "2.mat").read_bytes())
    content[250_000] ^= 1
    (data / "2.mat").write_bytes(content)
    os.utime(data / "2.mat", ns=(times.st_atime_ns, times.st_mtime_ns))  # as some copying tools do
    assert data_fingerprint(data, cache=cache) != first and read[6:] == ["2.mat"]
    assert len(files.read_json(cache)) == 2  # the old digest is forgotten
    assert data_fingerprint(data) == data_fingerprint(data, cache=cache)


def test_files_of_a_language_model_of_ones_own_count(project, monkeypatch):
    model = project / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    found = []

    def stop(*_, **__):
        raise SourceError

    monkeypatch.setattr(language, "load_language_model", stop)
    run = Run.open("own")
    corpus = SimpleNamespace(label_set=SimpleNamespace(labels=("a", "b")), evidence_names=EvidenceNames(()))
    for content in ("{}", '{"a": 1}', "{}"):
        (model / "config.json").write_text(content)
        with pytest.raises(SourceError):
            stages.make_language_model(run, corpus, str(model), "float32", None, 0, 0, None)
        found += [files.read_json(path)["key"] for path in run.path.glob(".language_model.part-*/stage.part.json")]
    assert found[0] == found[2] != found[1]


# --- constants


def finished_stage(run: Run, name: str) -> None:
    run.stage(name, {}).begin().finish()
    assert run.stage(name, {}).done


@pytest.mark.parametrize("name", stage_code.STAGES)
def test_every_constant_that_decides_a_stage_and_its_version_make_it_stale(project, monkeypatch, name):
    run = Run.open("tiny")
    finished_stage(run, name)
    constants = stage_code.constants_of(name)
    assert len(constants) > 20
    for constant, value in constants.items():
        with monkeypatch.context() as changed:
            changed.setattr(f"e2llm.{constant}", (value, "changed"))
            assert not run.stage(name, {}).done, constant
    assert run.stage(name, {}).done
    code = stage_code.STAGES[name]
    with monkeypatch.context() as changed:
        changed.setitem(stage_code.STAGES, name, code._replace(version=code.version + 1))
        assert not run.stage(name, {}).done
    assert run.stage(name, {}).done


TEXT = ("language_model", "projector", "adapter", "feedback", "evaluation", "reasoning", "scaling", "speech")
SPOKEN = ("evaluation", "feedback", "reasoning", "scaling", "speech")
STATED = ("second_pass", "evaluation")
DECIDING = {
    "core.claims.MAX_CLAIMS": TEXT, "core.claims.CITED": TEXT, "core.claims.SALIENT": TEXT,
    "core.claims.LEVEL_THRESHOLD": TEXT,
    "tasks.items.PREDICT_WORDINGS": TEXT, "tasks.items._EVIDENCE": TEXT, "models.language._CHAT_TEMPLATE": TEXT,
    "tasks.items.MIN_GAP": TEXT,
    "data.features.SLOPE_HZ": ("windows", "encoder", *TEXT), "core.bands.BANDS": ("windows", "encoder", *TEXT),
    "core.claims.EVIDENCE_THRESHOLD": TEXT[1:],
    "core.claims.MAX_ABS_Z": ("encoder", "projector", "adapter", "evaluation"),
    "models.evidence_probe.CHANGE_WEIGHT": ("encoder",), "training.augmentation.TARGETS_Z": ("encoder",),
    "data.band_edits.TARGET_Z": ("reasoning",),
    "tasks.thought_parser.LEXICON": SPOKEN, "evaluation.faithfulness.DECORATIVE_MARGIN": SPOKEN,
    "app.reasoning_stage.TARGETS": ("reasoning",), "tasks.second_pass._QUESTIONS": STATED,
    "training.stage3_instruction.LORA_TARGETS": ("adapter", "evaluation"),
    "evaluation.metrics.N_BOOTSTRAP": ("evaluation", "reasoning"),
    "evaluation.baselines.STRENGTHS": ("evaluation", "probe"), "data.audit.NEAR": ("evaluation",),
    "data.sources.faced.FACED_CLIPS": ("windows",),
    "data.sources.seed_vii.SEED_SESSION_EMOTIONS": ("windows",),
    "models.eegpt_weights._FREQUENCIES": ("encoder", "pretraining", "probe"),
    "training.pretraining._FLAT": ("pretraining",), "evaluation.studies.model_size.N_WORDINGS": ("scaling",),
    "app.run_comparison.TRAINING": ("speech",),
    "data.protocols.PROTOCOLS": ("encoder", "projector", "adapter", "evaluation"),
}  # fmt: skip


@pytest.mark.parametrize("constant", DECIDING)
def test_constants_known_to_decide_a_result_are_listed(constant):
    for stage in DECIDING[constant]:
        assert constant in stage_code.constants_of(stage), stage


@pytest.mark.parametrize("name", TEXT)
def test_the_texts_of_scenarios_count(project, monkeypatch, name):
    run = Run.open("tiny")
    finished_stage(run, name)
    other = project / "fear.yaml"
    (place,) = (i for i, file in enumerate(scenarios._FILES) if file.name == other.name)
    other.write_bytes(scenarios._FILES[place].read_bytes())
    monkeypatch.setattr(scenarios, "_FILES", (*scenarios._FILES[:place], other, *scenarios._FILES[place + 1 :]))
    assert run.stage(name, {}).done
    other.write_bytes(other.read_bytes() + b"\n")
    assert not run.stage(name, {}).done


def test_every_stage_of_the_package_has_its_constants_listed():
    """Read from the code: every literal name that is given to ``run.stage``."""
    named = set()
    for path in Path(e2llm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "stage":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}, line {node.lineno}"
                named.add(node.args[0].value)
    assert named == set(stage_code.STAGES) and set(runs.NOTEBOOKS) <= named


def test_constants_are_stated_alike_in_every_process():
    """Sets have another order in each process, and functions another address."""
    script = "from e2llm.app.stage_code import STAGES, code_of; print([code_of(name) for name in STAGES])"
    package = str(Path(e2llm.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "PYTHONHASHSEED": "1" if hash("a") % 2 else "2"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str([stage_code.code_of(name) for name in stage_code.STAGES])


def test_a_constant_that_cannot_be_stated_is_named(monkeypatch):
    monkeypatch.setattr("e2llm.core.claims.CITED", object())
    with pytest.raises(TypeError, match=r"constant core\.claims\.CITED is a object"):
        stage_code.code_of("adapter")
    assert stage_code.code_of("a reader's own") == {}


def test_a_model_of_a_hub_is_pinned_to_the_commit_that_was_loaded(project, monkeypatch):
    loaded = SimpleNamespace(config=SimpleNamespace(_commit_hash="0f1e2d"), parameters=lambda: iter([torch.zeros(3)]))
    monkeypatch.setattr(language, "load_language_model", lambda name, *_, **__: (loaded, ["a", "b"]))
    corpus = SimpleNamespace(label_set=SEED_VII, evidence_names=SimpleNamespace(scale=GRADED))
    run = Run.open("tiny")
    for name in ("someone/small", "someone/small@main"):
        stages.make_language_model(run, corpus, name)
        assert stages.language_source(run)["name"] == "someone/small@0f1e2d"
    loaded.config._commit_hash = None  # a folder
    stages.make_language_model(run, corpus, "elsewhere")
    assert stages.language_source(run)["name"] == "elsewhere"
