"""``e2llm audit``: the right verdict on splits of other projects, for the right reason, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import e2llm
from e2llm.app.cli import main
from e2llm.data.pretraining_overlap import ENCODERS, encoder_called, has_seen

FEATURES = [f"feature_{i}" for i in range(10)]
STATED = ("--normalization", "training", "--selected-on", "val")


def windows(people: int = 9, clips: int = 12, step: float = 4.0, shuffled: bool = True) -> pd.DataFrame:
    """Windows of people who saw the same clips; their labels follow no order in time."""
    rng = np.random.default_rng(3)
    label = [["calm", "happy", "sad"][clip % 3] for clip in range(clips)]
    rows = []
    for person in range(1, people + 1):
        order = rng.permutation(clips) if shuffled else np.arange(clips)
        rows += [(f"S{person:02}", 1 + place // (clips // 2), place + 1 + 100 * person * shuffled, label[clip],
                  f"movie {clip}", step * window) for place, clip in enumerate(order) for window in range(3)]
    table = pd.DataFrame(rows, columns=["subject", "session", "clip", "label", "movie", "start_s"])
    table[FEATURES] = rng.normal(size=(len(table), len(FEATURES))).round(4)
    return table.assign(part="")


def by_person(table: pd.DataFrame) -> pd.DataFrame:
    number = table["subject"].str[1:].astype(int)
    return table.assign(part=np.select([number <= 5, number <= 7], ["train", "val"], "test"))


def by_clip(table: pd.DataFrame) -> pd.DataFrame:
    movie = table["movie"].str[6:].astype(int)
    return table.assign(part=np.select([movie < 6, movie < 9], ["train", "val"], "test"), clip=movie + 1)


def at_random(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(part=np.random.default_rng(0).choice(["train", "val", "test"], len(table), p=[0.6, 0.2, 0.2]))


def both(table: pd.DataFrame) -> pd.DataFrame:
    people, clips = by_person(table)["part"], by_clip(table)["part"]
    return by_clip(table).assign(part=people.where(people == clips, ""))


def copied(table: pd.DataFrame) -> pd.DataFrame:
    """A person stands under two names, one of them in the test part."""
    table = by_person(table)
    table.loc[table["subject"] == "S09", FEATURES] = table.loc[table["subject"] == "S01", FEATURES].to_numpy()
    return table


def one_crosses(table: pd.DataFrame) -> pd.DataFrame:
    table = by_person(table)
    table.loc[(table["subject"] == "S01") & (table["clip"] == 101), "part"] = "test"
    return table


def labels_in_turn(table: pd.DataFrame) -> pd.DataFrame:
    """Everybody saw the labels in one order: the place in the session gives them away."""
    return by_person(windows(shuffled=False))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    table = by_person(table)
    return table.assign(shown=(table.index == len(table) - 1).astype(int))


# What a project does: its table, what it states, the exit code, and the rules that must speak (and no others).
TABLES = {
    "people unseen": (by_person, ["--unseen", "subjects", *STATED], 0, set()),
    "clips unseen": (by_clip, ["--unseen", "clips", *STATED], 0, {"session_fingerprint"}),
    "people and clips unseen": (both, ["--unseen", "subjects", "--unseen", "clips", *STATED], 0, set()),
    "people unseen, nothing said": (by_person, [], 0, {"not_stated"}),
    "people unseen, labels in turn": (labels_in_turn, ["--unseen", "subjects", *STATED], 0, {"shortcut"}),
    "windows at random": (at_random, STATED, 1, {"clip_on_both_sides", "normalization_on_test"}),
    "one person crosses": (one_crosses, ["--unseen", "subjects", *STATED], 1, {"subject_on_both_sides"}),
    "a person under two names": (copied, ["--unseen", "subjects", *STATED], 1, {"duplicated_signal"}),
    "z-scores over everything": (by_person, ["--unseen", "subjects", "--normalization", "all", *STATED[2:]], 1,
                                 {"normalization_on_test"}),
    "the best epoch on the test part": (by_person, ["--unseen", "subjects", *STATED[:2], "--selected-on", "test"], 1,
                                        {"selected_on_test"}),
    "windows that overlap": (lambda table: at_random(windows(step=2.0)), STATED, 1,
                             {"clip_on_both_sides", "overlapping_windows", "normalization_on_test"}),
    "a pretrained encoder that has seen the people": (
        by_person, ["--unseen", "subjects", *STATED, "--encoder", "eegpt", "--dataset", "SEED"], 1,
        {"pretrained_on_test", "pretraining_overlap"}),
    "examples from the test part": (shown, ["--unseen", "subjects", *STATED], 1, {"items_reuse_test"}),
    "bad channels found over everything": (by_person, ["--unseen", "subjects", *STATED, "--repaired-over", "corpus"], 1,
                                           {"repair_on_test"}),
    "no validation part": (lambda table: by_person(table).replace({"part": {"val": "train"}}),
                           ["--unseen", "subjects", *STATED], 0, {"empty_part"}),
    "own statistics of each person": (by_person, ["--unseen", "subjects", "--normalization", "subject", *STATED[2:]], 0,
                                      {"transductive"}),
}  # fmt: skip
MAY_SPEAK = {"time_neighbors", "shortcut", "session_fingerprint"}  # about luck in a small table, never a refusal


@pytest.mark.parametrize("name", TABLES)
def test_a_split_gets_its_verdict_for_its_own_reason(tmp_path, name):
    make, stated, code, rules = TABLES[name]
    make(windows()).to_csv(tmp_path / "splits.csv", index=False)
    page, found = tmp_path / "audit.html", tmp_path / "audit.json"
    assert main(["audit", str(tmp_path / "splits.csv"), *stated, "--json", str(found), "--html", str(page)]) == code
    verdict = json.loads(found.read_text())
    spoken = {one["rule"] for one in verdict["findings"]}
    assert rules - spoken <= MAY_SPEAK and spoken - rules <= MAY_SPEAK, verdict["findings"]
    assert (verdict["verdict"] == "refused") == (code == 1)
    assert all(one["severity"] == "warn" for one in verdict["findings"]) == (code == 0)
    html = page.read_text(encoding="utf-8")
    assert all(rule in html for rule in spoken) and "http" not in html and (code == 1) == ('class="stamp"' in html)
    if name.endswith("labels in turn"):
        assert "shortcut" in spoken and "position in session&#39; reaches 100.0 %" in html


def test_lines_are_those_of_the_table(tmp_path, capsys):
    table = one_crosses(windows())
    table.to_csv(tmp_path / "splits.csv", index=False)
    assert main(["audit", str(tmp_path / "splits.csv"), "--unseen", "subjects", "--json", "-"]) == 1
    printed = capsys.readouterr()
    found = next(one for one in json.loads(printed.out)["findings"] if one["rule"] == "subject_on_both_sides")
    lines = (tmp_path / "splits.csv").read_text().splitlines()
    assert len(found["lines"]) == 3 and all(lines[line - 1].startswith("S01,") for line in found["lines"])
    assert f"(lines {', '.join(map(str, found['lines']))})" in printed.err


def test_a_refusal_can_be_accepted_by_name_and_nothing_else_can(tmp_path, capsys):
    at_random(windows()).to_csv(tmp_path / "splits.csv", index=False)
    call = ["audit", str(tmp_path / "splits.csv"), "--normalization", "none", "--accept"]
    assert main([*call, "clip_on_both_sides"]) == 0
    assert "\naccepted: clip_on_both_sides: " in capsys.readouterr().out
    assert main([*call, "clip_on_every_side"]) == 2
    assert "Nothing was found by clip_on_every_side" in capsys.readouterr().err


def test_a_score_is_compared_with_what_needs_no_eeg(tmp_path, capsys):
    labels_in_turn(windows()).to_csv(tmp_path / "splits.csv", index=False)
    call = ["audit", str(tmp_path / "splits.csv"), "--unseen", "subjects", *STATED, "--score"]
    assert main([*call, "0.8"]) == 0
    assert "shortcut_reaches_model: the score of 'the model', 80.0" in capsys.readouterr().out
    assert main([*call, "80"]) == 2
    assert "is no share" in capsys.readouterr().err


def test_separators_other_names_of_columns_and_a_byte_order_mark_are_understood(tmp_path, capsys):
    table = by_person(windows()).rename(
        columns={"subject": " Participant", "part": "Split", "clip": "Trial ", "start_s": "onset"})
    table["Split"] = table["Split"].replace({"train": "Training", "val": "DEV"})
    for sign in ";\t":
        table.to_csv(tmp_path / "splits.csv", index=False, sep=sign, encoding="utf-8-sig")
        assert main(["audit", str(tmp_path / "splits.csv"), "--unseen", "subjects", *STATED]) == 0
        assert "columns that were not used: movie" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ("", "is no table"),
        ("subject,clip,label,part\n", "has no rows"),
        ("subject,clip,label\nS1,1,a\n", "has no column 'part' (train, val or test); it has 'subject', 'clip', '"),
        ("subject|clip|label|part\nS1|1|a|test\n", "it has 'subject|clip|label|part'"),
        ("subject,clip,label,part\nS1,,a,train\n", "line 2: clip is empty"),
        ("subject,clip,label,part\nS1,1,a,train\nS2,1,a,fold1\n", "line 3: part is 'fold1': write train, val or test"),
        ("subject,clip,label,part,start\nS1,1,a,train,soon\n", "line 2: start_s is 'soon', no finite number"),
        ("subject,clip,label,part,start\nS1,1,a,train,inf\n", "line 2: start_s is 'inf', no finite number"),
        ("subject,participant,clip,label,part\nS1,S1,1,a,train\n", "has several columns for subject"),
        ('subject,clip,label,part\n"S1,1,a,train\n', "is no table"),
        (b"subject,clip,label,part\nJ\xf6rg,1,a,train\n", "is not in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path, capsys, content, fact):
    (tmp_path / "splits.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["audit", str(tmp_path / "splits.csv")]) == 2
    error = capsys.readouterr().err
    assert fact in error and len(error.splitlines()) == 1 and "splits.csv" in error


@pytest.mark.parametrize(
    ("stated", "fact"),
    [
        (["--normalization", "magic"], "Unknown normalization 'magic' (known: none, training"),
        (["--normalization", "fit"], "has no column 'fit'"),
        (["--unseen", "contexts"], "has no column 'context'"),
        (["--unseen", "contexts", "--unseen", "clips"], "give subjects, clips, subjects and clips"),
        (["--encoder", "GPT"], "'GPT' was not looked up: known are EEGPT"),
        (["--encoder", "BIOT"], "'BIOT' stands for several sets of weights: give one of BIOT-PREST"),
        (["--window-s", "nan"], "is no length"),
    ],
)
def test_a_statement_that_cannot_be_used_is_one_sentence(tmp_path, capsys, stated, fact):
    by_person(windows()).to_csv(tmp_path / "splits.csv", index=False)
    assert main(["audit", str(tmp_path / "splits.csv"), *stated]) == 2
    assert fact in capsys.readouterr().err


def test_labels_and_names_are_text_and_are_escaped(tmp_path, capsys):
    named = {"calm": "NA", "happy": "1", "sad": "<script>alert(1)</script>"}
    table = by_person(windows()).replace({"label": named})
    table.to_csv(tmp_path / "splits.csv", index=False)
    assert main(["audit", str(tmp_path / "splits.csv"), *STATED, "--html", str(tmp_path / "page.html")]) == 0
    assert "NA 108" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page


def test_it_needs_no_torch(tmp_path):
    by_person(windows()).to_csv(tmp_path / "splits.csv", index=False)
    script = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "peft", "accelerate"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from e2llm.app.cli import main
sys.exit(main(sys.argv[1:]))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(e2llm.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script, "audit", tmp_path / "splits.csv"], env=environment,
                          capture_output=True, text=True, check=False, cwd=tmp_path)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "") and "with warnings" in done.stdout


def test_the_registry_names_a_source_for_every_encoder(capsys):
    assert main(["audit"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert all(one.source in line for one, line in zip(ENCODERS, printed, strict=True))
    assert all(one.seen and one.source for one in ENCODERS)


@pytest.mark.parametrize(
    ("encoder", "dataset", "seen"),
    [
        ("EEGPT", "SEED", True), ("eegpt", "Physionet-MI", True), ("EEGPT", "eegmmidb", True),
        ("EEGPT", "FACED", False),
        ("EEGPT", "SEED-VII", False), ("CBraMod", "TUAB", True), ("bendr", "tuev", True), ("BENDR", "DEAP", False),
        ("LaBraM", "SEED-IV", True), ("LaBraM", "SEED-VII", None), ("BIOT-six-datasets", "TUAB", True),
        ("BIOT-PREST", "TUAB", False),
    ],
)  # fmt: skip
def test_what_an_encoder_has_seen(encoder, dataset, seen):
    assert has_seen(encoder_called(encoder), dataset) is seen
