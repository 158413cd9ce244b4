"""A label is carried exactly through tables, prompts, thoughts and answers, or it is refused where it is first seen."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2llm.core.chat import END_THINK, THINK
from e2llm.core.labels import LabelSet, plain_labels
from e2llm.core.tables import read_predictions, read_table
from e2llm.evaluation.tiers import Predictions
from e2llm.tasks.items import parse_answer
from e2llm.tasks.thought_parser import parse

CARRIED = ["NA", "None", "1", "2", "nan", "N/A", "null", "inf", "-1", "1e5", "007", "True", "=1+1", "low", "very sad",
           "eyes closed, rest", "high-arousal/positive", "wütend", "愤怒", "e", "calm (after)", "label", "50 %",
           "rest & work", "not", "alpha"]  # fmt: skip
REFUSED = ["</think>", "<think>", "<|eeg|>", "<|im_end|>", "<|endoftext|>", "<s>", "[INST]", "<b>sad</b>", "a|b",
           "<script>alert(1)</script>", "{sad}", "[fear strong", "x.", "sad!", "sad?", "rest. Work", "*sad*", "`sad`",
           "\"sad\"", "two\nlines", "tab\there", "", " ", "\t", " sad", "sad ", "very  sad", "A", "B", "c", "D",
           "x" * 61, "sad\u200b", "\x00", "...", "—", "sad\u00a0"]  # fmt: skip


@pytest.mark.parametrize("label", REFUSED)
def test_a_label_that_some_stage_would_take_for_something_else_is_refused(label):
    with pytest.raises(ValueError, match=r"^The label .*: give it another name\.$") as error:
        plain_labels("mine", ["other", label])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", [1, None, 2.5, True, float("nan"), b"sad"])
def test_a_label_that_is_no_text_is_refused(label):
    with pytest.raises(ValueError, match="and no text: give it another name"):
        LabelSet("mine", ("other", label))


@pytest.mark.parametrize("labels", [["rest", "Rest"], ["REST", "rest", "x"], ["Straße", "STRASSE"], ["ﬁt", "fit"],
                                    ["１", "1"]])
def test_labels_that_answers_could_not_tell_apart_are_refused(labels):
    with pytest.raises(ValueError, match=r"The labels '.*' differ only in case, blanks or the form of letters"):
        plain_labels("mine", labels)


def predictions(labels: list[str]) -> Predictions:
    classes = np.arange(len(labels))
    windows = pd.DataFrame({"id": classes, "subject": ["01"] * len(labels), "session": 1, "clip": classes + 1,
                            "window": 0, "label": labels})  # fmt: skip
    unread = np.where(classes == 1, -1, classes)
    return Predictions(windows, {"LLM": classes[::-1], "LLM, free text": unread}, np.eye(len(labels)), tuple(labels))


@pytest.mark.parametrize("labels", [CARRIED, ["NA", "None"], ["1", "2"], ["1", "NA"], ["True", "False"], ["0", "00"]])
def test_labels_come_back_from_predictions_as_they_were_written(tmp_path, labels):
    made = predictions(labels)
    made.table().to_csv(tmp_path / "predictions.csv", index=False)
    table = read_predictions(tmp_path / "predictions.csv")
    assert list(table["label"]) == labels and list(table["LLM"]) == labels[::-1] and set(table["subject"]) == {"01"}
    again = Predictions.from_table(table)
    assert again.labels == tuple(labels) and list(again.truth) == list(range(len(labels)))
    for name, given_answers in made.answers.items():
        assert list(again.answers[name]) == list(given_answers)
    assert np.array_equal(again.probabilities, made.probabilities)
    table.to_csv(tmp_path / "again.csv", index=False)  # as a run publishes it
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "predictions.csv").read_bytes()


@pytest.mark.parametrize("label", CARRIED)
def test_labels_come_back_from_answers_thoughts_and_files(label):
    labels = tuple(sorted({label, "other one", "third"}))
    kept = LabelSet("mine", labels, noun="state")
    assert LabelSet.from_dict(json.loads(json.dumps(asdict(kept)))) == kept
    for text in (label, f"{label}.", f" {label.upper()} ", f"{THINK}\nThat fits third.\n{END_THINK}\n\n{label}"):
        assert parse_answer(text, list(labels)) == label
    assert parse(f"That fits {label}.", labels).conclusion == label


def test_only_an_empty_cell_of_a_table_is_missing(tmp_path):
    (tmp_path / "claims.csv").write_text("name,score,stratum\nNA,0.5,None\nnull,,\n")
    table = read_table(tmp_path / "claims.csv")
    assert list(table["name"]) == ["NA", "null"] and table["score"].tolist()[0] == 0.5 and table["score"].isna()[1]
    assert table["stratum"][0] == "None" and table["stratum"].isna()[1]


@given(st.text(max_size=20))
def test_every_text_is_carried_exactly_or_refused(label):
    try:
        kept = plain_labels("mine", ["other one", label])
    except ValueError:
        return
    assert parse_answer(label, list(kept.labels)) == label
    assert parse(f"That fits {label}.", kept.labels).conclusion in (label, None)
