"""A reasoning evaluation comes back from disk as it was made, its examples are in order, and the report escapes its
text."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from e2llm.app import pipeline, reasoning_stage, report
from e2llm.app.cli import main
from e2llm.app.pipeline import find_notebooks
from e2llm.app.reasoning_stage import TABLES, ReasoningParams, open_reasoning
from e2llm.app.runs import Run, StageMissing
from e2llm.core.bands import BANDS
from e2llm.core.chat import END_THINK, THINK
from e2llm.core.claims import EvidenceNames, salient_claims
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS
from e2llm.data.dataset import Corpus
from e2llm.evaluation import reasoning
from e2llm.evaluation.attribution import AttributionTables
from e2llm.evaluation.causal_measures import CausalTables
from e2llm.evaluation.reasoning import GeneratedExplanations, best_and_worst
from e2llm.tasks.items import parse_answer, prediction_items
from e2llm.tasks.thought_parser import parse
from e2llm.training.feedback import FeedbackParams
from e2llm.training.trainer import FitParams

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
LABELS = SEED_VII.labels
HEADING = "Explanations, compared with the signal"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    monkeypatch.delenv("E2LLM_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(project) -> Run:
    return Run.open("tiny")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Sixteen windows of four people, half of them for testing; occipital alpha low, frontal theta high in all, and
    they show fear or sad."""
    z = np.random.default_rng(0).uniform(-0.3, 0.3, size=(16, len(NAMES.columns)))
    z[:, NAMES.columns.index("occipital alpha")], z[:, NAMES.columns.index("frontal theta")] = -2.5, 2.25
    z[::2, NAMES.columns.index("central beta")] = 3.0
    subjects = np.repeat(["a", "b", "c", "d"], 4).astype(object)
    labels = np.array([LABELS.index("fear"), LABELS.index("sad")] * 8)
    index = pd.DataFrame({"subject": subjects, "label": [LABELS[i] for i in labels], "intensity": 0.5, "clip": 0})
    split = SimpleNamespace(train=np.arange(8), test=np.arange(8, 16))
    return Corpus(SimpleNamespace(index=index), SEED_VII, split, None, z, NAMES, None, labels, subjects, subjects, None,
                  None)


def explained_by(corpus: Corpus, rows: np.ndarray, texts: list[str]) -> GeneratedExplanations:
    thoughts = [text.split(END_THINK)[0].removeprefix(THINK).strip() for text in texts]
    return GeneratedExplanations(prediction_items(corpus, rows, 0), texts, thoughts,
                                 [parse(thought, LABELS) for thought in thoughts],
                [parse_answer(text, list(LABELS)) for text in texts])


def response(thought: str, answer: str) -> str:
    return f"{THINK}\n{thought}\n{END_THINK}\n\n{answer}"


# --- best and worst


ALPHA, THETA = "Occipital alpha low.", "Frontal theta high."
RESPONSES = {  # window 8 shows fear, 9 sad, and so on
    8: (f"{ALPHA}", "fear"), 9: (f"{ALPHA} {THETA}", "sad"), 10: ("Occipital alpha high. Frontal theta low.", "sad"),
    11: (f"{ALPHA} {THETA}", "fear"), 12: (f"{ALPHA} Central beta low. Frontal theta high.", "fear"),
    13: ("Occipital alpha high. Frontal theta low.", "sad"),
    14: ("Occipital alpha high. Frontal theta low. Central beta high.", "mumble"), 15: (f"{ALPHA}", "sad")}


def test_the_best_are_right_and_true_and_the_worst_are_false(corpus):
    rows = np.array(list(RESPONSES))
    explanations = explained_by(corpus, rows, [response(*RESPONSES[row]) for row in rows])
    found = best_and_worst(corpus, rows, explanations, n=8)
    assert [one["window"] for one in found["best"]] == [9, 8, 15, 12, 13, 11, 14, 10]
    assert [one["window"] for one in found["worst"]] == [10, 13, 14, 12, 8, 15, 11, 9]
    few = best_and_worst(corpus, rows, explanations)
    assert few == {"best": found["best"][:3], "worst": found["worst"][:3]}
    reordered = best_and_worst(corpus, rows[::-1], explained_by(corpus, rows[::-1],
                                                                [response(*RESPONSES[row]) for row in rows[::-1]]),
                            n=8)
    # Whatever the order of the rows
    assert [one["window"] for one in reordered["best"]] == [9, 8, 15, 12, 13, 11, 14, 10]


def test_examples_hold_the_text_its_verdicts_answer_and_flag(corpus):
    rows = np.array([12, 14])
    texts = [response("Occipital alpha low. Central beta low. Frontal asymmetry is typical.", "fear"),
             response("Well, who knows.", "mumble")]
    found = best_and_worst(corpus, rows, explained_by(corpus, rows, texts))
    one, other = found["best"]
    assert found["worst"] == [one, other] and json.loads(json.dumps(found)) == found
    assert one["text"] == texts[0] and (one["window"], one["answer"], one["truth"], one["true"],
                                        one["false"]) == (12, "fear", "fear", 2, 1)
    assert one["claims"][:2] == ["occipital alpha low: true (z = -2.5)",
                                 "central beta low: false (z = +3.0)"] and one["flag"] == "none"
    assert (other["claims"], other["answer"], other["true"], other["false"]) == ([], "", 0,
                                                                                 0) and "nothing in it" in other["flag"]
    assert all(isinstance(one["question"], str) and one["question"] for one in (one, other))


def test_a_feature_that_was_not_measured_counts_as_false(corpus):
    few = Corpus(**vars(corpus) | {"z": np.zeros((16, len(NAMES.columns) - len(NAMES.pairs) + 1)),
                                   "evidence_names": EvidenceNames(NAMES.pairs[:1])})
    rows = np.array([8, 9])
    explanations = explained_by(corpus, rows, [response(f"{THETA} {ALPHA}", "fear")] * 2)
    one = best_and_worst(few, rows, explanations)["best"][0]
    assert one["claims"][-1] == "occipital alpha low: unknown feature" and one["false"] == 2


# --- on disk


def score_row(name: str, **more: object) -> dict:
    return {"name": name, "score": 0.75, "low": 0.5, "high": 1.0, "chance": 0.25, "n": 8, **more}


def tables() -> dict[str, pd.DataFrame]:
    found = {name: pd.DataFrame([score_row(f"{name} one"), score_row(f"{name} two", chance=np.nan)]) for name in TABLES}
    return found | {"curves": pd.DataFrame({"model": ["LLM"], "kind": ["deletion"], "share": [0.0],
                                            "attributed": [-1.5], "random": [-1.25]})}


MAPS = np.random.default_rng(1).normal(size=(2, 5, 12))
EVIL = "<script>alert('x')</script>"
EXAMPLES = {"best": [{"window": 3, "question": f"Which? {EVIL}", "text": response(f"{EVIL} {ALPHA}", "fear"),
                      "claims": ["occipital alpha low: true (z = -2.5)"], "true": 1, "false": 0, "answer": "fear",
                      "truth": "fear", "flag": "none"}],
            "worst": [{"window": 4, "question": "Which?", "text": "<img src=x onerror=alert(1)>", "claims": [],
                       "true": 0, "false": 0, "answer": "",
                       "truth": "sad", "flag": "nothing in it can be checked"}]}


def write_stages(run: Run, content: dict[str, pd.DataFrame], meaning: str = "The chain is decorative: 3% < 10%.",
                 adapter: str = "weights") -> None:
    """Stages as earlier lessons and lesson 07 leave them."""
    for name, needs in (("adapter", ()), ("feedback", ("adapter",))):
        if not (stage := run.stage(name, {}, needs)).done:
            (stage.begin().path / "data.txt").write_text(adapter)
            stage.finish({"sampled": 24, "kept": 6} if name == "feedback" else {})
    stage = run.stage("reasoning", {}, needs=("adapter", "feedback")).begin()
    for name, table in content.items():
        table.to_csv(stage.path / f"{name}.csv", index=False)
    np.savez(stage.path / "maps.npz", maps=MAPS, labels=np.array(["fear", "sad"]))
    (stage.path / "examples.json").write_text(json.dumps(EXAMPLES), encoding="utf-8")
    stage.finish({"claims": 17}, meaning=meaning)


def test_a_review_comes_back_as_it_lies_on_disk(run):
    written = tables()
    write_stages(run, written)
    found = open_reasoning(run)
    assert list(found.tables) == list(TABLES)
    for name, table in written.items():
        pd.testing.assert_frame_equal(found.tables[name], table)
    np.testing.assert_array_equal(found.maps, MAPS)
    assert found.labels == ["fear", "sad"] and found.examples == EXAMPLES
    assert found.facts == {"claims": 17, "meaning": "The chain is decorative: 3% < 10%.",
                           "feedback": {"sampled": 24, "kept": 6}}


def test_a_source_that_is_no_twin_has_an_empty_table(run):
    write_stages(run, tables() | {"agreement": pd.DataFrame()})
    assert open_reasoning(run).tables["agreement"].empty
    assert "Attribution and the generator" not in report.build(run).read_text(encoding="utf-8")


def test_what_was_not_made_is_missed_by_name(run):
    with pytest.raises(StageMissing, match=r"'reasoning' is not finished.*07_reasoning with run_name = 'tiny'"):
        open_reasoning(run)


# --- the report


def test_the_report_holds_the_section_with_escaped_text(run):
    write_stages(run, tables())
    run.write_metrics({"tables": {}})
    html = report.build(run).read_text(encoding="utf-8")
    start = html.rindex(HEADING)  # the first one is in the contents
    section = html[start : html.index("How it was made", start)]
    assert "<script" not in html and "<img src=x" not in html
    assert section.count("&lt;script&gt;") == 2 and "think&gt;" not in section
    assert "The chain is decorative: 3% &lt; 10%." in section
    for caption in ("Claims: precision and recall", "Whole explanations",
                    "Answers that change when the explanation is edited", "Training with feedback",
                    "Signal edits: one band of one region scaled",
                    "Agreement of attribution with the simulated regions", "Deletion and insertion, nats"):
        assert f"<caption>{caption}</caption>" in section, caption
    assert section.count(">0.75<") == 2 * section.count("<caption>") == 20
    assert section.count(">–<") == 10 and "nan" not in section.lower()
    for text in ("occipital alpha low (z = -2.5)&nbsp;<b>✓</b>", "Answer: <b>fear</b>", "✓ right",
                 "none that can be read", "true is <b>sad</b>"):
        assert text in section
    places = [section.index(text) for text in ("Best explanations", "Worst explanations",
                                               "nothing in it can be checked")]
    assert places == sorted(places)


def test_a_run_without_a_reasoning_evaluation_has_no_section(run):
    assert HEADING not in report.build(run).read_text(encoding="utf-8")
    write_stages(run, tables())
    (run.path / "reasoning" / "stage.json").unlink()  # cut off
    assert HEADING not in report.build(run).read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["adapter", "feedback", "table"])
def test_an_evaluation_of_what_is_no_longer_there_is_not_shown(run, damage):
    write_stages(run, tables())
    assert HEADING in report.build(run).read_text(encoding="utf-8")
    if damage == "table":
        (run.path / "reasoning" / "claims.csv").write_text("name\n")
    else:
        stage = run.stage(damage, {"lr": 2}, ("adapter",) if damage == "feedback" else ()).begin()
        (stage.path / "data.txt").write_text("other weights")
        stage.finish()
    assert HEADING not in report.build(run).read_text(encoding="utf-8")


# --- making one


@pytest.fixture
def made(run, corpus, monkeypatch) -> dict:
    """The engine generates true claims, before and after feedback; with shuffled EEG it generates none."""
    calls = {"generate": 0, "reinforce": 0}

    def reinforce(run, corpus, feedback, fit):
        calls["reinforce"] += 1
        for name, needs in (("adapter", ()), ("feedback", ("adapter",))):
            if not (stage := run.stage(name, {}, needs)).done:
                stage.begin().finish({"kept": 6})

    def generate_explanations(engine, corpus, items):
        calls["generate"] += 1
        rows = np.array([item.windows[0] for item in items])
        claims = [", ".join(map(str, salient_claims(corpus.z[row], NAMES))) for row in rows]
        thoughts = [f"Evidence: {claimed}. That fits {LABELS[corpus.labels[row]]}."
                    for claimed, row in zip(claims, rows, strict=True)]
        if engine == "shuffled":
            thoughts = [""] * len(rows)
        return explained_by(corpus, rows, [response(thought, item.answer)
                                      for thought, item in zip(thoughts, items, strict=True)])

    def counterfactuals(engine, corpus, explanations, rows, encoder, seed, target):
        table = pd.DataFrame({"subject": ["c", "c", "d"], "row": [8, 9, 12], "n_untouched": 2,
                              "followed": [True, False, True], "newly_stated": True,
                              "n_kept": 1, "n_not_contradicted": 2, "chance followed": 0.1, "chance newly_stated": 0.1,
                              "chance n_kept": 0.5,
                              "chance n_not_contradicted": 1.5})
        return table, table.assign(followed=True)

    def attribution_tables(corpus, scores, is_twin, windows_a_label, seed):
        curves = pd.DataFrame([{"window": window, "model": model, "kind": kind, "share": share,
                                "attributed": window - share, "random": -share}
                               for window in (0, 2) for model in ("head", "LLM") for kind in ("deletion", "insertion")
                               for share in (0.0, 0.5, 1.0)])
        agreement = pd.DataFrame([score_row("fear")]) if is_twin else pd.DataFrame()
        return AttributionTables(agreement, pd.DataFrame([score_row("deletion", group="LLM")]), curves, MAPS,
                            ["fear", "sad"])

    def answers_after(engine, items, thoughts):
        return ["fear" if "occipital alpha low" in thought.lower() else "sad" for thought in thoughts]

    monkeypatch.setattr(reasoning_stage, "reinforce", reinforce)
    monkeypatch.setattr(reasoning_stage, "load_encoder", lambda run, corpus: SimpleNamespace(encoder=None))
    monkeypatch.setattr(reasoning_stage, "shuffled", lambda engine, index, rows, seed: "shuffled")
    monkeypatch.setattr(reasoning_stage, "open_engine", lambda run, stage="adapter": stage)
    monkeypatch.setattr(reasoning_stage, "scorers_of", lambda run, corpus, seed, engine: {})
    monkeypatch.setattr(reasoning_stage, "generate_explanations", generate_explanations)
    monkeypatch.setattr(reasoning, "_answers_after", answers_after)
    monkeypatch.setattr(reasoning, "counterfactuals", counterfactuals)
    followed = CausalTables(pd.DataFrame([score_row("directed success", unit="share")]),
                            pd.DataFrame([score_row("all", unit="share")]))
    monkeypatch.setattr(reasoning, "causes", lambda *args: {"LLM": followed, "computed": followed})
    monkeypatch.setattr(reasoning, "capacity", lambda *args: pd.DataFrame([score_row("all", evidence="measured")]))
    monkeypatch.setattr(reasoning_stage, "attribution_tables", attribution_tables)
    return calls


def evaluated(run: Run, corpus: Corpus, **params: object):
    return reasoning_stage.evaluate_reasoning(run, corpus, ReasoningParams(**params), FeedbackParams(),
                                              FitParams(1, 1, 0.1))


@pytest.mark.parametrize("is_twin", [True, False])
def test_a_reasoning_evaluation_makes_every_table_once(run, corpus, made, is_twin):
    found = evaluated(run, corpus, is_twin=is_twin)
    assert [name for name in TABLES if found.tables[name].empty] == ([] if is_twin else ["agreement"])
    claims = found.tables["claims"].set_index(["name", "group"])
    models = ["LLM", "LLM after feedback", "LLM, shuffled EEG", "training prior", "another window"]
    assert found.tables["claims"]["name"].drop_duplicates().tolist() == models
    assert claims.loc[("LLM", "precision"), "score"] == 1 and claims.loc[("LLM, shuffled EEG", "recall"), "score"] == 0
    assert found.tables["feedback"]["score"].tolist() == [0, 0, 0]
    assert found.facts["meaning"].startswith("In 75 of 100 cases (50 to 100) the answer follows")
    assert "The answers depend on the reasoning" in found.facts["meaning"]
    assert found.tables["simulatability"]["name"].tolist() == ["LLM"]
    assert found.tables["causes"]["model"].tolist() == found.tables["dose"]["model"].tolist() == ["LLM", "computed"]
    rates = found.tables["counterfactuals"]
    assert rates["group"].drop_duplicates().tolist() == [f"{who}, z {target:g}" for target in reasoning_stage.TARGETS
                                                         for who in ("LLM", "always right")]
    assert rates.loc[rates["name"] == "followed", "score"].tolist() == pytest.approx([2 / 3, 1, 2 / 3, 1])
    assert found.tables["edits"]["target"].tolist() == np.repeat(reasoning_stage.TARGETS, 3).tolist()
    curves = found.tables["curves"]
    # Mean over windows 0 and 2
    assert len(curves) == 12 and curves["attributed"].tolist() == pytest.approx((1 - curves["share"]).tolist())
    assert found.facts["claims"] == sum(len(salient_claims(corpus.z[row], NAMES)) for row in corpus.split.test)
    assert found.facts["feedback"] == {"kept": 6}
    assert len(found.examples["best"]) == len(found.examples["worst"]) == 3 and found.labels == ["fear", "sad"]
    assert HEADING in report.build(run).read_text(encoding="utf-8")
    explanations = made["generate"]
    again = evaluated(run, corpus, is_twin=is_twin)
    assert made["generate"] == explanations and again.facts == found.facts
    for name in TABLES:
        pd.testing.assert_frame_equal(again.tables[name], found.tables[name])
    evaluated(run, corpus, is_twin=is_twin, seed=1)
    assert made["generate"] > explanations


# --- lesson 07 as a part of the pipeline


@pytest.fixture
def lessons(project) -> Path:
    folder = project / "notebooks"
    folder.mkdir()
    for name in ("00_tour", "01_preprocessing", "02_encoder", "05_evaluation", "06_believable_scores", "07_reasoning"):
        (folder / f"{name}.ipynb").write_text("{}")
    (folder / "notes.ipynb").write_text("{}")
    return folder


def test_lessons_are_added_by_their_number_in_order_and_once(lessons):
    def numbers(**more: object) -> list[str]:
        return [path.name[:2] for path in find_notebooks(lessons, **more)]

    assert numbers() == numbers(also=()) == ["01", "02", "05"]
    assert numbers(also=("07",)) == numbers(also=["07", "07"]) == ["01", "02", "05", "07"]
    assert numbers(also=("07", "00")) == numbers(also=("00", "07", "05")) == ["00", "01", "02", "05", "07"]
    assert [path.name[:2] for path in find_notebooks(also=("06",))] == ["01", "02", "05", "06"]


@pytest.mark.parametrize("number", ["99", "7", "", "*", "reasoning"])
def test_a_lesson_that_is_not_there_is_refused_with_those_that_are(lessons, number):
    with pytest.raises(ValueError, match=r"There is no lesson .*known are 00, 01, 02, 05, 06, 07"):
        find_notebooks(lessons, also=("07", number))


def test_the_command_line_refuses_an_unknown_lesson_before_anything_is_made(lessons, project, capsys):
    assert main(["run", "--lesson", "99", "--name", "trial"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("e2llm: There is no lesson '99'") and "known are 00, 01" in error
    assert len(error.splitlines()) == 1
    assert not (project / "runs").exists()


def test_the_command_line_hands_lessons_on(lessons, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(pipeline, "run_pipeline",
                        lambda profile, overrides, name, notebooks, **_: asked.append(notebooks) or Run.open("tiny"))
    assert main(["run", "--lesson", "07"]) == 0 and main(["run"]) == 0
    assert [[path.name[:2] for path in found] for found in asked] == [["01", "02", "05", "07"], ["01", "02", "05"]]
    assert "report.html" in capsys.readouterr().out
