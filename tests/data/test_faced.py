"""FACED's processed recordings: arrays in pickles, read without running what else a pickle may hold."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from e2llm.app import stages
from e2llm.app.runs import Run
from e2llm.core.files import project_root
from e2llm.core.labels import FACED as LABELS
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.sources import open_source
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.faced import FACED, FACED_CHANNELS, FACED_CLIPS, read_pickled_array
from e2llm.data.splits import make_split
from e2llm.tasks.items import text_items
from e2llm.training import stage3_instruction
from e2llm.training.losses import HeadParams
from e2llm.training.trainer import FitParams

SHAPE = (28, 32, 7500)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two people of noise in the layout of FACED; every channel of every clip has a level of its own."""
    folder = tmp_path_factory.mktemp("data") / "FACED" / "Processed_data"
    folder.mkdir(parents=True)
    for number in (0, 12):
        level = np.add.outer(100 * np.arange(28), np.arange(32))[:, :, None] + number / 100
        (folder / f"sub{number:03d}.pkl").write_bytes(pickle.dumps(np.broadcast_to(level, SHAPE).astype(np.float32)))
    return folder.parent


@pytest.fixture
def own(root, tmp_path) -> Path:
    return Path(shutil.copytree(root, tmp_path / "FACED"))


def first(own: Path) -> Path:
    return own / "Processed_data" / "sub000.pkl"


def test_clips_and_channels_are_the_published_ones(root):
    source = open_source("faced", root)
    assert source.label_set is LABELS and len(LABELS) == 9 and not LABELS.has_affect
    assert [recording.subject for recording in source.recordings] == ["000",
        "012"] and len(source.check(source.recordings[0])) == 30
    trials = list(source.trials(source.recordings[1]))
    assert [trial.label
            for trial in trials] == list(FACED_CLIPS)
    assert FACED_CLIPS[0] == "anger" and FACED_CLIPS[12:16] == ("neutral",) * 4
    assert sorted(map(FACED_CLIPS.count, LABELS.labels)) == [3] * 8 + [4]
    for trial in trials:
        assert trial.signal.shape == (30, 7500) and trial.sfreq == 250 and not {"A1", "A2"} & set(trial.ch_names)
        wanted = [100 * (trial.clip - 1) + FACED_CHANNELS.index(name) + 0.12 for name in trial.ch_names]
        np.testing.assert_allclose(trial.signal[:, 0], wanted, rtol=1e-6)


def test_protocols_over_its_clips_hold_all_nine_labels(root):
    rows = [(who, 1, clip, label) for who in ("0", "1", "2", "3", "4")
            for clip, label in enumerate(FACED_CLIPS, start=1)]
    index = pd.DataFrame(rows, columns=["subject", "session", "clip", "label"])
    for fold in range(3):
        for protocol in ("joint", "clips"):
            split = make_split(index, protocol, fold=fold)
            assert all(index["label"].iloc[getattr(split, part)].nunique() == 9 for part in ("train", "val", "test"))


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickling_is_read(tmp_path, protocol):
    array = np.arange(12.0).reshape(3, 4)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(array, protocol=protocol))
    np.testing.assert_array_equal(read_pickled_array(tmp_path / "a.pkl"), array)


def test_names_of_an_older_numpy_are_read(tmp_path):
    """What numpy 1 wrote, as the data set's authors had it."""
    array = np.arange(6.0)
    written = pickle.dumps(array, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "a.pkl").write_bytes(written)
    assert b"numpy.core." in written
    np.testing.assert_array_equal(read_pickled_array(tmp_path / "a.pkl"), array)


class _Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_wants_to_run_something_is_refused_before_it_does(own):
    harm = own / "harm"
    first(own).write_bytes(pickle.dumps(_Dangerous(harm)))
    source = FACED(own)
    with pytest.raises(RecordingError, match=r"sub000\.pkl is no pickled array of numbers \(it calls "
                                             r"posix\.mkdir.*copy it again"):
        source.check(source.recordings[0])
    assert not harm.exists()
    first(own).write_bytes(pickle.dumps(np.array([_Dangerous(harm)], dtype=object)))
    with pytest.raises(RecordingError, match="it calls"):
        source.check(source.recordings[0])
    assert not harm.exists() and len(source.check(source.recordings[1])) == 30


@pytest.mark.parametrize(("content", "fact"), [
    (b"", "no pickled array"), (b"no pickle", "no pickled array"),
    (pickle.dumps({"data": 1}), "holds dict, not an array"),
    (pickle.dumps(np.array(["x"])), "holds ndarray, not an array of numbers"),
    (pickle.dumps(np.zeros((28, 30, 30, 5))), r"has shape \(28, 30, 30, 5\)"),
])
def test_files_that_are_none_of_its_recordings(own, content, fact):
    first(own).write_bytes(content)
    source = FACED(own)
    with pytest.raises(RecordingError, match=fact) as caught:
        list(source.trials(source.recordings[0]))
    assert str(first(own)) in str(caught.value)


def test_samples_that_are_not_finite(own):
    array = np.zeros(SHAPE, dtype=np.float32)
    array[3, 4, :7] = np.nan
    first(own).write_bytes(pickle.dumps(array))
    source = FACED(own)
    with pytest.raises(RecordingError, match="7 samples are not finite"):
        source.check(source.recordings[0])


def test_the_table_of_electrodes_is_believed(own):
    """A table that agrees (older names, mastoids elsewhere) changes nothing; another order is refused."""
    older = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
    one = [older.get(name, name).title() for name in FACED_CHANNELS]
    two = [name.title() for name in FACED_CHANNELS]
    table = pd.DataFrame({"Cohort 1#": [*one[:16], "A1", "A2", *one[16:30]], "Cohort 2#": two})
    table.to_excel(own / "Electrode_Location.xlsx", index=False)
    assert len(FACED(own).recordings) == 2
    table.iloc[::-1].to_excel(own / "Electrode_Location.xlsx", index=False)
    with pytest.raises(SourceError, match=r"Electrode_Location\.xlsx lists the electrodes in another order.*never "
                                          r"guessed"):
        FACED(own)


def test_a_folder_without_recordings(tmp_path):
    with pytest.raises(SourceError, match=r"holds no files sub000\.pkl"):
        FACED(tmp_path)


def test_nine_labels_from_windows_to_stage_1_and_items(tmp_path):
    """Three people of noise: nine classes, no valence and arousal, and what cannot be asked of them is not."""
    folder = tmp_path / "FACED" / "Processed_data"
    folder.mkdir(parents=True)
    for number in range(3):
        noise = np.random.default_rng(number).normal(0, 10, (28, 40, 7500)).astype(np.float32)
        mixed = np.einsum("ij,tjs->tis", np.random.default_rng(9).normal(size=(32, 40)).astype(np.float32) / 6, noise)
        (folder / f"sub{number:03d}.pkl").write_bytes(pickle.dumps(mixed.astype(np.float32)))
    torch.set_num_threads(1)
    run = Run("faced", tmp_path / "run", project_root())
    run.path.mkdir()
    stages.preprocess(run, "faced", folder.parent, PreprocessParams(lof_threshold=50), n_jobs=1)
    protocol = {"protocol": "joint", "fold": 1, "n_groups": 3, "normalization": "calibration"}
    corpus = stages.open_dataset(run, protocol)
    assert corpus.label_set == LABELS and len(corpus.windows) == 3 * 28 * 7 and len(corpus.windows.ch_names) == 30
    stages.train_encoder(run, corpus, protocol, "tiny1", {"patch_dropout": 0.75}, "", FitParams(3, 8, 1e-3),
                         HeadParams())
    logits = np.load(run.path / "encoder" / "answers.npz")["logits"]
    assert logits.shape == (len(corpus.split.used), 9) and np.isfinite(logits).all()
    corpus = stages.open_dataset(run)
    items = stage3_instruction.instruction_items(corpus, "train",
                                                 dict.fromkeys(("predict", "describe", "select", "compare", "rank",
                                                                "match", "choose"), 12), 0)
    assert {item.kind for item in items} == {"predict", "describe", "select"}
    assert all(item.options == list(LABELS.labels) for item in items if item.kind == "predict")
    assert {item.kind for item in text_items(LABELS, 40, 0)} == {"predict", "describe", "select"}
