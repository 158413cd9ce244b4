"""Functions that users call with data get what they should not: one sentence names the argument and the fact."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hostile import QUICK, contents, refused, the_kit_says
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import four_files

from e2llm.app.cli import main
from e2llm.core.tables import read_predictions, read_table
from e2llm.data.new_subject import read_windows
from e2llm.data.preprocess_params import PreprocessParams
from e2llm.data.preprocessing import write_windows
from e2llm.data.simulation import TwinParams
from e2llm.data.sources.folder import LabelledFolder
from e2llm.data.split_table import read_split_table
from e2llm.data.splits import make_split
from e2llm.evaluation.split_audit import Statement, audit_table
from e2llm.evaluation.tiers import Predictions

ODD = [0, -1, -1e9, 1e12, math.nan, math.inf, -math.inf, True, "1", "", None, [1], {}, b"1", 1j, 10**400]
NUMBERS = ("sfreq", "l_freq", "h_freq", "h_trans", "window_s", "lof_threshold")


# --- preprocessing


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_preprocessing(name):
    for value in ODD:
        with refused(name):
            PreprocessParams(**{name: value})


@pytest.mark.parametrize("values", [{"missing": "x"}, {"missing": None}, {"quality": 1}, {"wanted": ["X1"]},
                                    {"wanted": "FZ"}, {"wanted": 5},
                                    {"wanted": [None]}, {"l_freq": 50.0}, {"h_freq": 200.0}, {"sfreq": 64.0},
                                    {"wanted": ["FZ", "\0"]}])
def test_combinations_of_the_preprocessing(values):
    with refused(next(iter(values))):
        PreprocessParams(**values)


@settings(QUICK, max_examples=150)
@given(st.fixed_dictionaries({}, optional={name: st.floats() | st.integers() for name in NUMBERS}))
def test_any_numbers_of_the_preprocessing(values):
    try:
        found = PreprocessParams(**values)
    except ValueError as error:
        the_kit_says(error)
        assert any(name in str(error) for name in NUMBERS)
    else:
        assert 0 < found.l_freq < found.h_freq < found.sfreq / 2
        assert all(math.isfinite(getattr(found, name)) for name in NUMBERS)


@pytest.mark.parametrize("n_jobs", [0, -10**9, 1.5, "2", None, math.nan, True])
def test_jobs_that_cannot_be(tmp_path, n_jobs):
    root = four_files(tmp_path / "mine")
    before = contents(root)
    with refused("n_jobs"):
        write_windows(LabelledFolder(root), tmp_path / "windows", n_jobs=n_jobs)
    assert not (tmp_path / "windows").exists() and contents(root) == before


@pytest.mark.parametrize("files", [[], ["none.edf"], ["\0"], ["n" * 300], ["."], [""], ["a.edf", "../none.edf"],
                                   "a.edf"])
def test_files_of_a_new_subject(tmp_path, files, monkeypatch):
    monkeypatch.chdir(four_files(tmp_path / "mine"))
    with refused():
        read_windows(files, ["FP1", "FP2", "F3"], PreprocessParams(), "population")


@pytest.mark.parametrize("statistics", ["", "none", None, 7, ["subject"]])
def test_statistics_of_a_new_subject(tmp_path, statistics, monkeypatch):
    monkeypatch.chdir(four_files(tmp_path / "mine"))
    with refused("statistics"):
        read_windows(["a.edf"], ["FP1"], PreprocessParams(), statistics)


# --- the simulation


@pytest.mark.parametrize(("name", "value"), [
    *((name, value) for name in ("subjects", "sessions", "clips", "seed") for value in (-1, 1.5, math.nan, math.inf,
                                                                                        "1", None, True, [1], 10**20)),
    *(("seconds", value) for value in ((0, 9), (9, 8), (math.nan, 9.0), (8.2, math.inf), (8.2, math.nan), (9,), "89",
                                       None, 9, (8.2, 1e9), ("a", "b"))),
    *(("preset", value) for value in ("", "none", None, 7)), ("changes", {1: 1.0}), ("changes", {"drift": math.nan}),
    ("changes", 7)])
def test_a_twin_that_cannot_be(name, value):
    with refused(name):
        TwinParams(**{name: value}).effects_preset()


# --- splits


def index_of(subjects: int = 6, clips: int = 8, **columns) -> pd.DataFrame:
    rows = [(f"S{subject}", 1, 100 + clip, window, ("calm", "tense")[clip % 2])
            for subject in range(subjects) for clip in range(clips) for window in range(2)]
    return pd.DataFrame(rows, columns=["subject", "session", "clip", "window", "label"]).assign(**columns)


def test_the_index_that_is_changed_below_can_be_split():
    assert len(make_split(index_of(), "subjects", "population").test)


@pytest.mark.parametrize("value", [-1, 99, 10**9, 1.5, math.nan, math.inf, "0", None, True, [0], b"0"], ids=repr)
@pytest.mark.parametrize("protocol", ["joint", "subjects", "clips"])
def test_folds_that_are_not_there(protocol, value):
    with refused("fold"):
        make_split(index_of(), protocol, "population", fold=value)


@pytest.mark.parametrize("value", [-1, 1, 2, 7, 10**9, 3.5, math.nan, math.inf, "3", True, [3]], ids=repr)
@pytest.mark.parametrize("protocol", ["joint", "subjects", "random_windows"])
def test_groups_that_cannot_be(protocol, value):
    with refused():
        make_split(index_of(), protocol, "population", n_groups=value)


@pytest.mark.parametrize("name", ["", "none", None, 7, ["joint"], "Joint", "joint\0"])
def test_protocols_and_normalizations_that_are_unknown(name):
    with refused("protocol"):
        make_split(index_of(), name)
    with refused("normalization"):
        make_split(index_of(), "joint", name)


@pytest.mark.parametrize("column", ["subject", "clip", "label"])
@pytest.mark.parametrize("protocol", ["joint", "subjects", "clips", "within_subject", "cross_context"])
def test_an_index_that_lacks_a_column(protocol, column):
    with refused(column):
        make_split(index_of().drop(columns=column), protocol, "population")


@pytest.mark.parametrize("protocol", ["joint", "subjects", "clips", "within_subject", "cross_context",
                                      "random_windows"])
@pytest.mark.parametrize("index", [index_of()[:0], index_of(1, 1), index_of(2, 2), index_of(label="one"),
                                   index_of(subject="one"), index_of(clip=1),
                                   index_of(6, 1), index_of(1, 8)],
                         ids=["empty", "one", "two", "one label", "one person", "one clip", "a clip each", "a person"])
def test_an_index_that_is_too_small_is_split_or_said_to_be(index, protocol):
    try:
        split = make_split(index, protocol, "population", accept_leaks=True)
    except Exception as error:
        the_kit_says(error)
    else:
        assert len(split.train) and len(split.test)


@pytest.mark.parametrize(("column", "value"), [("subject", None), ("subject", math.nan), ("label", None),
                                               ("clip", math.nan), ("clip", "x"), ("clip", -5),
                                               ("clip", 10**15), ("clip", 1.5), ("subject", 7), ("label", 3)])
@pytest.mark.parametrize("protocol", ["joint", "subjects", "clips"])
def test_an_index_with_an_odd_cell_is_split_or_said_to_be(protocol, column, value):
    index = index_of().astype(object)
    index.loc[3, column] = value
    try:
        split = make_split(index, protocol, "population")
    except Exception as error:
        the_kit_says(error)
    else:
        assert len(np.intersect1d(split.train, split.test)) == 0 and len(split.test)


# --- tables of splits


def table_of(tmp_path: Path, **columns) -> Path:
    index = index_of().drop(columns="window").assign(**columns)
    part = index_of()["subject"].map({"S0": "train", "S1": "train", "S2": "train", "S3": "val",
                                      "S4": "val"}).fillna("test")
    index.assign(**({"part": part} if "part" not in columns else {})).to_csv(tmp_path / "splits.csv", index=False)
    return tmp_path / "splits.csv"


@pytest.mark.parametrize("columns", [
    {"start_s": 1e308}, {"start_s": -1e308}, {"clip": 10**30}, {"clip": "٣"}, {"clip": "²"}, {"session": -1},
    {"session": "1e400"}, {"label": "x"},
    {"part": "test"}, {"part": "train"}, {"part": ""}, {"label": "\u202e"}, {"subject": "1"}, {"context": "a"},
    {"shown": "yes"}, {"fit": "nan"}],
    ids=lambda columns: ascii(columns)[:30])
def test_tables_of_extremes_have_a_verdict_or_a_sentence(tmp_path, columns):
    path = table_of(tmp_path, **columns)
    before = path.read_bytes()
    try:
        verdict = audit_table(read_split_table(path), Statement())
    except ValueError as error:
        the_kit_says(error)
    else:
        assert verdict.word in ("refused", "with warnings", "nothing found")
    assert path.read_bytes() == before


@pytest.mark.parametrize("value", ["1e308", "-1e308", "5e-324", "nan", "inf", "", "x", "1e400", "0x1", "٣"])
def test_features_of_extremes(tmp_path, value):
    features = {f"feature_{i}": np.random.default_rng(i).normal(size=96).astype(object) for i in range(9)}
    features["feature_0"][:2] = value
    path = table_of(tmp_path, **features)
    try:
        found = read_split_table(path)
    except ValueError as error:
        the_kit_says(error, "feature_0")
    else:
        assert np.isfinite(found.power).all() and audit_table(found, Statement()).word


@pytest.mark.parametrize("content", [
    b"", b"\n\n\n", b"\x00" * 100, b"\xff\xfe" + "subject,clip,label,part\n1,2,3,train\n".encode("utf-16-le"),
    b"PK\x03\x04" + bytes(100), b"\x80" * 9,
    b"subject,clip,label,part\n", b"subject,clip,label,part\n1,2,3,train,5\n1,2,3,test,5\n", b"a" * 10**6,
    b'subject,clip,label,part\n"1,2,3,train\n', b"subject,subject,clip,label,part\n1,1,2,3,train\n",
    b"subject,clip,label,part\n1,2,3,train\x00\n",
    b"subject,clip,label,part,class\n1,2,3,train,4\n", b"subject,clip,label,part\n,,,\n",
    b"," * 1000 + b"\n" + b"," * 1000, b"[" * 10**5,
    b"subject,clip,label,part\n" + b"1,2,3,train\n" * 5 + b"1,2,3,train,9,9,9,9\n"],
    ids=lambda content: ascii(content[:20]))
def test_tables_of_splits_that_are_none(tmp_path, content, capsys):
    path = tmp_path / "splits.csv"
    path.write_bytes(content)
    with refused("splits.csv", longest=3000):
        read_split_table(path)
    assert main(["audit", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("e2llm: ") and said.count("\n") == 1 and len(said) < 3000 and path.read_bytes() == content


@pytest.mark.parametrize(("given_", "fact"), [
    ({"unseen": ["all"]}, "unseen"), ({"unseen": [None]}, "unseen"), ({"unseen": "subjects"}, "unseen"),
    ({"normalization": "x"}, "normalization"),
    ({"normalization": None}, "normalization"), ({"normalization": "fit"}, "fit"),
    ({"unseen": ["contexts"]}, "context")])
def test_statements_about_a_table_that_cannot_be(tmp_path, given_, fact):
    with refused(fact):
        read_split_table(table_of(tmp_path), **given_)


@pytest.mark.parametrize("stated", [{"window_s": math.nan}, {"window_s": -1.0}, {"window_s": "4"},
                                    {"window_s": math.inf}, {"window_s": True},
                                    {"score": math.nan}, {"score": 2.0}, {"score": -0.1}, {"score": "x"},
                                    {"encoder": "none"}, {"encoder": 7},
                                    {"selected_on": "all"}, {"repaired_over": 7}], ids=repr)
def test_statements_about_a_model_that_cannot_be(tmp_path, stated):
    with refused(next(iter(stated)) if next(iter(stated)) != "encoder" else ""):
        audit_table(read_split_table(table_of(tmp_path, start_s=0.0)), Statement(**stated))


def test_rules_that_found_nothing_cannot_be_accepted(tmp_path):
    table = read_split_table(table_of(tmp_path))
    for accept in (["all"], ["", "x"], ["clip_on_both_sides"]):
        with refused("nothing can be accepted"):
            audit_table(table, Statement(), accept)


# --- predictions


PREDICTIONS = b"id,subject,session,clip,window,label,LLM,p(calm),p(tense)\n0,1,1,1,0,calm,tense,0.5,0.5\n"


@pytest.mark.parametrize("content", [b"", b"\n", b"\x80\x81", b"\x00" * 50, b"PK\x03\x04" + bytes(40), b'a,"b\n',
                                     b"a,b\n1,2,3\n1,2,3,4\n", b"\xff\xfea\x00",
                                     b"a\n" + b'"' + b"x" * 10**6], ids=lambda content: ascii(content[:12]))
def test_predictions_that_are_no_table(tmp_path, content):
    path = tmp_path / "predictions.csv"
    path.write_bytes(content)
    for read in (read_predictions, read_table):
        try:
            found = read(path)
        except ValueError as error:
            the_kit_says(error, "predictions.csv")
        else:
            with refused("predictions"):
                Predictions.from_table(found)
    assert path.read_bytes() == content


@pytest.mark.parametrize("change", [(b"p(calm),p(tense)", b"a,b"), (b"label", b"truth"), (b",calm,", b",other,"),
                                    (b"0.5,0.5", b"x,y"), (b"0.5,0.5", b"nan,inf"),
                                    (b"0.5,0.5", b","), (b"p(tense)", b"p(calm)"), (b"p(calm)", b"p()"),
                                    (b"0.5,0.5\n", b"0.5\n")])
def test_predictions_of_another_form_are_read_or_named(tmp_path, change):
    path = tmp_path / "predictions.csv"
    assert PREDICTIONS.count(change[0])
    path.write_bytes(PREDICTIONS.replace(*change))
    with refused("predictions"):
        Predictions.from_table(read_predictions(path))


@pytest.mark.parametrize("place", ["nothing.csv", ""])
def test_predictions_that_are_not_there(tmp_path, place):
    with refused(str(tmp_path)):
        read_predictions(tmp_path / place)


# --- questions


@pytest.fixture(scope="module")
def model():
    from asked import made_up_corpus, random_model

    return random_model(made_up_corpus())


@pytest.mark.parametrize("rows", [None, 1.5, "0", "abc", math.nan, [None], [0.0], [[0]], {}, int, -1, 12, 10**30,
                                  [0, 12], [], [0] * 5, b"0", 1j],
                         ids=repr)
def test_windows_that_cannot_be_asked_about(model, rows):
    for ask in (model.ask, model.stream, lambda rows, words: model.explain(rows, words, "fear")):
        with refused("window"):
            ask(rows, "Which emotion is it?")


@pytest.mark.parametrize("question", [None, 7, b"?", ["?"], "", " \n\t", "<think>x", "x</think>", "<|eeg|>",
                                      "<|im_end|>", "<|im_start|>assistant",
                                      "x" * 10**6, "\u200b" * 10**4], ids=lambda question: ascii(question)[:20])
def test_questions_that_cannot_be_asked(model, question):
    for ask in (model.ask, model.stream):
        with refused("question"):
            ask(0, question)


@pytest.mark.parametrize("question", ["a\0b", "\ud7ff", "🧠?", "<script>alert(1)</script>", "{{x}}", "%s%n", "[INST]",
                                      "\u202e?", "predict\n", "١"])
def test_odd_questions_are_answered(model, question):
    found = model.ask(0, question)
    assert sum(found.probabilities.values()) == pytest.approx(1) and "<script" not in found._repr_html_()


@pytest.mark.parametrize("task", ["dance", 7, ["predict"], "predict ", "__class__"])
def test_tasks_that_there_are_not(model, task):
    with refused("task"):
        model.ask(0, "?", task=task)


@QUICK
@given(st.text(max_size=60))
def test_any_text_of_a_model_is_checked_and_shown(model, text):
    found = model.explain(0, "Which emotion is it?", text)
    assert str(found) and "<script" not in found._repr_html_() and {field.name for field in fields(found)}
