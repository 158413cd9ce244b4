"""EmoEEG-MC: labels by the data set's README, never guessed; seven other labels through all stages, across contexts."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from edfio import EdfAnnotation, read_edf
from layouts import EMOEEG_CHANNELS, write_emoeeg

from e2llm.app import evaluation_stage, stages
from e2llm.app.runs import Run
from e2llm.core.files import project_root
from e2llm.core.labels import EMOEEG_MC
from e2llm.core.montage import canonical
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import write_windows
from e2llm.data.sources import open_source
from e2llm.data.sources.base import RecordingError, SourceError
from e2llm.data.sources.emoeeg_mc import CONTEXTS, EMOTION_OF, RATED, STIMULI, EmoEEGMC, read_guide
from e2llm.evaluation.baselines import LOGISTIC, Recipe, fit_baseline
from e2llm.evaluation.metrics import balanced_accuracy
from e2llm.models import inference
from e2llm.models.language import ScratchParams
from e2llm.tasks import items as items_module
from e2llm.tasks.items import read_items
from e2llm.training import stage3_instruction
from e2llm.training.losses import HeadParams
from e2llm.training.trainer import FitParams

METADATA = next((path for parent in Path(__file__).resolve().parents
                 if (path := parent / "shared/data/emoeeg-mc-metadata").is_dir()), None)
needs_metadata = pytest.mark.skipif(METADATA is None, reason="the metadata of EmoEEG-MC are not in "
                                                             "shared/data/emoeeg-mc-metadata")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> SimpleNamespace:
    """Four people, the second in two files; with what was written."""
    root = tmp_path_factory.mktemp("data") / "emoeeg"
    return SimpleNamespace(root=root, explanations=write_emoeeg(root, 4, runs={"02": 2}))


@pytest.fixture
def own(folder, tmp_path) -> Path:
    """A copy of the first two people's folders that a test may damage."""
    root = tmp_path / "emoeeg"
    root.mkdir()
    shutil.copy(folder.root / "README.md", root)
    for who in ("sub-01", "sub-02"):
        shutil.copytree(folder.root / who, root / who)
    return root


def consume(root: Path, number: int = 0, **options) -> list:
    source = open_source("emoeeg-mc", root, **options)
    return [replace(trial, signal=np.asarray(trial.signal)) for trial in source.trials(source.recordings[number])]


def edit_notes(path: Path, change) -> None:
    """Rewrite the annotations of an EDF file."""
    edf = read_edf(path)
    notes = change(list(edf.annotations))
    edf.set_annotations(notes)
    edf.write(path)


# --- what the README says


@needs_metadata
def test_the_real_readme_is_read_whole():
    guide = read_guide(METADATA / "README.md")
    people = [f"{number:02d}" for number in range(1, 61)]
    assert sorted(guide.codes) == people and all(sorted(codes.values()) == ["fade", "imagery", "rating", "video"]
                                                 for codes in guide.codes.values())
    assert guide.codes["16"][21] == "fade"  # spelled "fede" there
    lengths = {who: tuple(len(guide.orders[who, context]) for context in CONTEXTS) for who in people}
    assert all(lengths[who] == (21, 21) for who in people[:54])
    # 3 and 3, 2 and 0, 4 and 6, 3 and 0, 6 and 4, 14 and 12 trials are missing, it says
    assert [lengths[who] for who in people[54:]] == [(18, 18), (19, 21), (17, 15), (18, 21), (15, 17), (7, 9)]
    assert guide.orders["54", "imagery"][:2] == ("ten8", "ten5") and guide.orders["54", "video"][:2] == ("joy8", "joy5")


@needs_metadata
@pytest.mark.parametrize(("who", "at_least"), [("02", 0.8), ("03", 0.6), ("55", 0.8)])
def test_real_ratings_agree_with_the_order_of_the_readme(who, at_least):
    """Rows of a beh table are trials in time, blocks of three in both contexts; the label is the largest rating."""
    order = read_guide(METADATA / "README.md").orders[who, "video"]
    shown = [EMOTION_OF[name[:-1]] for i in range(0, len(order), 3) for name in order[i : i + 3] * 2]
    scores = pd.read_csv(METADATA / f"sub-{who}/beh/sub-{who}_task-emotion_beh.tsv",
                         sep="\t")[[f"score_{i}" for i in range(1, 7)]].to_numpy()
    felt = [RATED[np.argmax(row)] == label for row, label in zip(scores, shown, strict=True) if label != "neutral"]
    assert len(felt) == 36 and np.mean(felt) >= at_least  # 1/6 by chance


@needs_metadata
def test_coordinates_are_those_of_the_real_ratings():
    rows = []
    for who in ("02", "03", "55"):
        order = read_guide(METADATA / "README.md").orders[who, "video"]
        shown = [EMOTION_OF[name[:-1]] for i in range(0, len(order), 3) for name in order[i : i + 3] * 2]
        table = pd.read_csv(METADATA / f"sub-{who}/beh/sub-{who}_task-emotion_beh.tsv", sep="\t")
        rows += zip(shown, table["score_8"], table["score_7"], strict=True)
    means = (pd.DataFrame(rows, columns=["label", "valence", "arousal"]).groupby("label").mean() - 3.5) / 3.5
    assert len(rows) == 120
    for axis in ("valence", "arousal"):
        assert getattr(EMOEEG_MC, axis) == pytest.approx(means[axis].to_dict(), abs=0.006)


def test_a_readme_without_its_lists(own):
    (own / "README.md").write_text("# EmoEEG-MC\n")
    with pytest.raises(SourceError, match=r"README\.md lists no trigger codes.*copy the original"):
        EmoEEGMC(own)
    (own / "README.md").unlink()
    with pytest.raises(SourceError, match=r"README\.md is missing.*copy it"):
        EmoEEGMC(own)


def test_an_order_with_an_unknown_stimulus(own):
    path = own / "README.md"
    path.write_text(path.read_text().replace("'joy5', ", "'joy6', ", 2).replace("'joy5']", "'joy6']"))
    with pytest.raises(SourceError, match="unknown stimulus"):
        EmoEEGMC(own)


# --- trials


@pytest.mark.parametrize("number", [0, 1])
def test_trials_end_where_the_data_set_says(folder, number):
    source = open_source("emoeeg-mc", folder.root, seconds=8.0)
    recording = source.recordings[number]
    trials, explanations = list(source.trials(recording)), folder.explanations[recording.subject]
    assert source.label_set is EMOEEG_MC and source.check(recording) == [canonical(name) for name in EMOEEG_CHANNELS]
    shown = [(context, EMOTION_OF[name[:-1]], run) for context, name, _, run in explanations]
    assert [(trial.context, trial.label, trial.session) for trial in trials] == shown
    assert [trial.clip for trial in trials] == [STIMULI.index(name) + 1 + 21 * (context == "video")
                                                for context, name, *_ in explanations]
    assert len({trial.clip for trial in trials}) == 42 and all(trial.signal.shape == (64, 1600) for trial in trials)
    for trial, (_, _, stop, run) in list(zip(trials, explanations, strict=True))[::7]:
        path = sorted((recording.path / "eeg").glob("*.edf"))[run - 1]
        stored = read_edf(path).signals[EMOEEG_CHANNELS.index("Cz")].data
        end = round(stop * 200)
        np.testing.assert_allclose(trial.signal[EMOEEG_CHANNELS.index("Cz")], stored[end - 1600 : end], atol=0.01)


def test_whole_trials_contexts_and_ratings(folder):
    whole = consume(folder.root, seconds=0)
    for trials in (whole, consume(folder.root)):
        assert {trial.signal.shape[1] for trial in trials} == {round(9.2 * 200)}
    videos = consume(folder.root, contexts=["video"])
    assert len(videos) == 21 and {trial.context for trial in videos} == {"video"}
    assert min(trial.clip for trial in videos) == 22
    ratings = pd.read_csv(folder.root / "sub-01/beh/sub-01_task-emotion_beh.tsv", sep="\t")
    for trial, (_, row) in zip(whole, ratings.iterrows(), strict=True):
        if trial.label == "neutral":
            assert trial.intensity is None
        else:
            np.testing.assert_allclose(trial.intensity, row[f"score_{RATED.index(trial.label) + 1}"] / 7)


def test_codes_with_another_tens_digit(own):
    """The README's hint: many people's codes agree in their last digit only."""
    path = own / "README.md"
    path.write_text(re.sub(r"-3(\d)", r"-\1", path.read_text()))
    assert len(consume(own)) == 42


def test_broken_off_and_practised_trials_are_none(own):
    path = own / "sub-01/eeg/sub-01_task-emotion_eeg.edf"
    before = [(trial.clip, trial.signal.sum()) for trial in consume(own)]

    def practise(notes):
        first = notes[1].onset
        return [notes[0], EdfAnnotation(first - 0.9, 0.0, "TypeID: 32"), EdfAnnotation(first - 0.8, 0.0, "TypeID: 32"),
                EdfAnnotation(first - 0.4, 0.0, "TypeID: 31"), *notes[1:]]  # one broken off, one alone

    edit_notes(path, practise)
    assert [(trial.clip, trial.signal.sum()) for trial in consume(own)] == before


def test_counts_that_disagree_cost_that_person_only(own, tmp_path):
    def lose(notes):
        return [note for i, note in enumerate(notes) if i != 1]  # the first start of a video

    edit_notes(own / "sub-01/eeg/sub-01_task-emotion_eeg.edf", lose)
    with pytest.raises(RecordingError, match=r"sub-01: its triggers give 20 video trials, README\.md lists 21.*never "
                                             r"guessed"):
        consume(own)
    skipped = write_windows(EmoEEGMC(own), tmp_path / "windows", n_jobs=1)
    assert list(skipped) == ["sub-01"] and pd.read_csv(tmp_path / "windows/index.csv",
                                                       dtype=str)["subject"].unique().tolist() == ["02"]


def test_files_that_were_not_downloaded(own):
    (own / "sub-01/eeg/sub-01_task-emotion_eeg.edf").unlink()
    with pytest.raises(RecordingError, match="holds no EDF file, or one that was not downloaded"):
        consume(own)
    assert len(consume(own, 1)) == 42


def test_wrong_places_and_contexts(own, tmp_path):
    with pytest.raises(SourceError, match=r"no folders sub-01/eeg.*ds005540"):
        EmoEEGMC(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="has the contexts imagery, video, not sound"):
        EmoEEGMC(own, contexts=["sound"])


# --- through the stages


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> SimpleNamespace:
    """All three stages with very few steps, people and context unseen."""
    torch.set_num_threads(1)
    run = Run("emoeeg", tmp_path_factory.mktemp("runs") / "emoeeg", project_root())
    run.path.mkdir()
    stages.preprocess(run, "emoeeg-mc", folder.root, PreprocessParams(), n_jobs=1, seconds=8.0)
    protocol = {"protocol": "cross_context_joint", "fold": 0, "n_groups": 3, "normalization": "calibration"}
    corpus = stages.open_dataset(run, protocol)
    stages.train_encoder(run, corpus, protocol, "tiny1", {"patch_dropout": 0.75}, "", FitParams(25, 16, 3e-3),
                         HeadParams())
    corpus = stages.open_dataset(run)
    stages.make_language_model(run, corpus, "scratch", "float32", ScratchParams(1024, 64, 2, 4), 120, 2,
                               FitParams(8, 8, 4e-3))
    stages.align(run, corpus, 2, 3, 32, 1.0, FitParams(4, 8, 3e-3))
    kinds = ("predict", "describe", "select", "compare", "rank", "match", "choose")
    stages.instruct(run, corpus, dict.fromkeys(kinds, 8), 16, stage3_instruction.AdapterParams(rank=4, alpha=8),
                    FitParams(4, 8, 2e-3))
    return SimpleNamespace(run=run, corpus=corpus)


def test_the_windows_carry_context_and_seven_labels(run):
    index = run.corpus.windows.index
    assert len(index) == 4 * 42 * 2 and set(index["context"]) == set(CONTEXTS) and run.corpus.label_set == EMOEEG_MC
    assert (index.groupby("label").size() == 4 * 6 * 2).all() and set(index["label"]) == set(EMOEEG_MC.labels)
    assert index["intensity"].isna().eq(index["label"] == "neutral").all()
    split = run.corpus.split
    assert set(index["context"].iloc[split.test]) == {"imagery"} and set(index["context"].iloc[np.append(split.train,
        split.val)]) == {"video"}
    assert not set(index["subject"].iloc[split.test]) & set(index["subject"].iloc[np.append(split.train, split.val)])


def test_effects_of_the_twin_go_from_video_to_imagery(run):
    """Linear classification of band power, people and context unseen: labels fit the signal, chance is 0.14."""
    corpus = run.corpus
    answers = fit_baseline(Recipe(LOGISTIC, "z-score"), corpus, corpus.split).rows(corpus.split.test)
    score = balanced_accuracy(corpus.labels[corpus.split.test], answers, corpus.subjects[corpus.split.test], 7)
    assert score.value > 0.28  # guessing 84 windows stays below it in 999 of 1000 cases


def test_items_speak_of_these_labels_only(run):
    items = read_items(run.run.path / "adapter" / "items.jsonl")
    kinds = {item.kind for item in items}
    # There are no scenarios for these labels.
    assert {"predict", "describe", "select", "compare", "rank"} <= kinds and not {"match", "choose"} & kinds
    assert all(item.options == list(EMOEEG_MC.labels) for item in items if item.kind == "predict")
    words = set(re.findall(r"[a-z]+", " ".join(item.response(True) for item in items)))
    assert set(EMOEEG_MC.labels) <= words and not words & {"happy", "surprise", "sad", "anger"}
    trained = set(run.corpus.split.train.tolist())
    assert all(set(item.windows) <= trained for item in items)


def test_the_evaluation_runs_and_names_what_is_unseen(run):
    tables = evaluation_stage.evaluate(run.run, run.corpus, None, 6, 2, False, False, 0, n_jobs=1,
                                        answer_from="eeg")
    facts = run.run.read_metrics()["facts"]
    assert "people and context both unseen" in facts["what is unseen"]
    rows = tables["tier_1"].set_index("name")
    assert rows.loc["LLM", "chance"] == pytest.approx(1 / 7) and 0 <= rows.loc["LLM", "score"] <= 1
    model, processor = stages.open_instructed(run.run)
    engine = inference.InferenceEngine(model, processor, *stages.load_tokens(run.run))
    assert inference.closed_set(engine, items_module.prediction_items(run.corpus, run.corpus.split.test[:5],
                                                                      0)).shape == (5, 7)
