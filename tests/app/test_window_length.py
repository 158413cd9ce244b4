"""Windows of another length than 4 s go through every stage, and an exported model keeps its length."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from micro import open_run, train
from recordings import CAP, SFREQ, brain, write_edf

from e2llm.app import evaluation_stage, stages
from e2llm.app.chat_session import E2LLM, ExportedModel
from e2llm.app.cli import main
from e2llm.app.hub_export import export
from e2llm.app.runs import Run
from e2llm.data.checkup import check_folder
from e2llm.data.new_subject import read_windows
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import Windows, write_windows
from e2llm.data.simulation import truth_folder
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.sources.seed_vii import SeedVII

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # few test windows
SUBJECTS = {"protocol": "subjects", "fold": 0, "n_groups": 3, "normalization": "population", "accept_leaks": False}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


# --- windows


@pytest.mark.parametrize("window_s", [2.0, 8.0])
def test_windows_of_another_length_hold_the_same_signal(twin, windows, tmp_path, window_s):
    write_windows(SeedVII(twin), tmp_path / "windows", PreprocessParams(window_s=window_s), n_jobs=1)
    other = Windows.open(tmp_path / "windows")
    assert other.window_s == window_s and windows.window_s == 4.0 and other.data.shape[2] == 256 * window_s
    first, own = (found.index.query("subject == '1' and clip == 1") for found in (windows, other))
    both = round(min(4 * len(first), window_s * len(own)) * 256)
    lengthwise = [np.concatenate(list(found.data[rows.index]), axis=1)[:, :both]
                  for found, rows in ((windows, first), (other, own))]
    assert np.array_equal(*lengthwise)
    assert own["start_s"].tolist() == [window_s * i for i in range(len(own))]
    # One value of the trace stands for 4 s, whatever the length of a window is.
    trace = first["intensity"].to_numpy()
    expected = np.repeat(trace, 2) if window_s == 2 else [trace[:2].mean()]
    np.testing.assert_array_equal(own["intensity"], expected)


@pytest.mark.parametrize("window_s", [0.0, -1.0, float("nan"), float("inf"), 1e-4, 2.001])
def test_a_length_that_is_no_length_or_no_whole_number_of_samples_is_refused(window_s):
    with pytest.raises(ValueError, match=r"window_s = .*(a number from|no whole number of samples at 256 Hz)"):
        PreprocessParams(window_s=window_s)


def short_trials(root: Path, seconds: float, people: int = 3, n: int = 12) -> Path:
    """A recording of trials with a second between them for each person; labels in turn, which differ in alpha power."""
    rows = ["file,subject,session,label,start,stop,clip"]
    for person in range(people):
        step = seconds + 1
        data = brain(math.ceil(step * n) + 1, person)
        t = np.arange(data.shape[1]) / SFREQ
        data += 15 * np.sin(2 * np.pi * 10 * t) * ((t // step) % 2)
        write_edf(root / f"{person}.edf", data)
        rows += [f"{person}.edf,{person},1,{('rest', 'task')[i % 2]},{i * step:g},{i * step + seconds:g},{i + 1}"
                 for i in range(n)]
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def test_the_remedy_for_trials_that_are_too_short_is_one_that_works(tmp_path, capsys):
    root = short_trials(tmp_path / "mine", 1.8)
    with pytest.raises(SourceError, match=r"1\.8 s of signal is shorter than one window of 4 s"):
        write_windows(LabelledFolder(root), tmp_path / "windows", n_jobs=1)
    remedies = set(check_folder(root).findings.query("rule == 'too short'")["remedy"])
    assert remedies == {"drop the clip, or cut shorter windows (-p window_s=1.5)"}
    assert main(["check", str(root)]) == 1 and main(["check", str(root), "--window-s", "1.5"]) == 0
    assert "findings: none" in capsys.readouterr().out
    assert main(["check", str(root), "--window-s", "0"]) == 2
    assert "window_s = 0.0: it must be a number from" in capsys.readouterr().err
    assert write_windows(LabelledFolder(root), tmp_path / "windows", PreprocessParams(window_s=1.5), n_jobs=1) == {}
    assert len(Windows.open(tmp_path / "windows")) == 36


def test_a_trial_below_a_second_can_only_be_dropped(tmp_path):
    remedies = set(check_folder(short_trials(tmp_path / "mine", 0.9)).findings.query("rule == 'too short'")["remedy"])
    assert remedies == {"drop the clip"}


# --- all stages


def asked(run: Run, folder: Path, edf: Path) -> ExportedModel:
    """Export a run, and ask the export about a new file as the run's windows are asked about."""
    corpus = stages.open_dataset(run)
    model = ExportedModel.from_pretrained(export(run, folder, license="mit", dataset="made for a test", corpus=corpus))
    recording = model.read(edf, statistics="population")
    assert recording.corpus.windows.window_s == corpus.windows.window_s
    answer = recording.ask([0, 1], "compare") if corpus.label_set.has_affect else recording.ask(1, "Which state is it?")
    assert str(answer)
    assert len(recording.overview()) == len(recording)
    said = E2LLM.of_run(run, corpus).ask(int(corpus.split.test[0]), "predict")
    assert sum(said.probabilities.values()) == pytest.approx(1)
    assert f"{corpus.windows.window_s:g} s of EEG" in (folder / "README.md").read_text()
    return model


def test_windows_of_two_seconds_go_through_every_stage(twin, tmp_path, monkeypatch):
    run = open_run(tmp_path / "runs", "two")
    stages.preprocess(run, "seed-vii", twin, PreprocessParams(window_s=2.0), n_jobs=1)
    train(run)
    corpus, (tokens, _) = stages.open_dataset(run), stages.load_tokens(run)
    assert corpus.windows.data.shape[2] == 512 and tokens.shape[1] == 8
    assert len(evaluation_stage.baselines(run, corpus, eegnet_steps=2)) > 4
    with pytest.raises(ValueError, match=r"^eeg_tokens = 3 must divide the 8 time patches of a window of 2 s"):
        stages.align(run, corpus, 3)
    assert stages.open_aligned(run)[0].config.eeg_tokens == 1  # the refusal came before the stage was begun
    signal = np.concatenate([np.asarray(trial.signal) for trial in SeedVII(twin).trials(SeedVII(twin).recordings[0])],
                            axis=1)[:, : 200 * 12]
    model = asked(run, tmp_path / "exported", write_edf(tmp_path / "new.edf", signal, SeedVII.ch_names, 200))
    assert len(model.read(tmp_path / "new.edf", statistics="population")) == 6
    known = evaluation_stage.oracle_answers(truth_folder(twin), corpus)
    assert np.mean(known == corpus.labels[corpus.split.test]) > 0.5
    monkeypatch.setattr(evaluation_stage, "WINDOW_S", 1.0)  # as if windows were longer than the simulated ones
    assert evaluation_stage.oracle_answers(truth_folder(twin), corpus) is None


def test_trials_of_one_second_go_through_every_stage(tmp_path):
    run = open_run(tmp_path / "runs", "one")
    root = short_trials(tmp_path / "mine", 1.0)
    stages.preprocess(run, "folder", root, PreprocessParams(window_s=1.0), n_jobs=1)
    train(run, SUBJECTS)
    tokens, _ = stages.load_tokens(run)
    assert tokens.shape[1] == 4 and len(stages.open_dataset(run).windows) == 36
    asked(run, tmp_path / "exported", write_edf(tmp_path / "new.edf", brain(3.0, 9)))
    facts = run.require("adapter")["facts"]["left_out"]
    assert facts == {"compare": "its labels have no valence and arousal",
                     "match": "there are no scenarios for rest, task"}
    told = run.read_metrics()["facts"]["tasks left out"]
    assert "rank: its labels have no valence and arousal" in told and "zero_match: there are no scenarios" in told


def test_a_new_file_that_is_shorter_than_the_window_of_a_model_is_refused(tmp_path):
    edf, names = write_edf(tmp_path / "new.edf", brain(3.0, 9)), [name.upper() for name in CAP]
    with pytest.raises(RecordingError, match=r"3\.0 s of signal is shorter than one window of 4 s"):
        read_windows([edf], names, PreprocessParams(), "population")
    assert len(read_windows([edf], names, PreprocessParams(window_s=1.5), "population")[0]) == 2
