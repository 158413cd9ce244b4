"""Evidence in graded words goes through every stage, the evaluation, a question and an export.

And answers from the thought alone: what reaches them, and what does not.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from micro import FIT, LANGUAGE_MODEL, linked
from recordings import write_edf
from safetensors.torch import load_file

from e2llm.app import evaluation_stage, stages
from e2llm.app.chat_session import E2LLM, ExportedModel
from e2llm.app.cli import main
from e2llm.app.hub_export import export
from e2llm.app.hub_import import FACTS, ExportError
from e2llm.app.runs import Run
from e2llm.app.second_pass_stage import claims_of, instruct_second_pass, open_second_pass, text_engine
from e2llm.app.thought_session import E2LLMFromThought
from e2llm.core.claims import GRADED, LOW_HIGH, SCALES, Claim, salient_claims
from e2llm.core.files import read_json
from e2llm.core.tables import read_predictions
from e2llm.data.sources.seed_vii import SeedVII
from e2llm.evaluation.from_thought import pooled_price
from e2llm.evaluation.reasoning import generate_explanations
from e2llm.models.inference import InferenceEngine
from e2llm.tasks import level_table, second_pass
from e2llm.tasks.items import prediction_items, read_items
from e2llm.tasks.second_pass import Asked
from e2llm.tasks.thought_parser import parse
from e2llm.tasks.wordings import PREDICT_WORDINGS, ZERO_SHOT_WORDINGS
from e2llm.training.second_pass import SecondPassParams
from e2llm.training.stage3_instruction import AdapterParams
from e2llm.viz import widgets
from e2llm.viz.answer_view import FROM_STATED

QUESTION = "Which emotion does this segment show?"


@pytest.fixture(scope="module")
def run(micro_run, tmp_path_factory) -> Run:
    run = linked(micro_run, tmp_path_factory.mktemp("runs"), "graded")
    corpus = stages.open_dataset(run, levels="graded")
    stages.make_language_model(run, corpus, "scratch", "float32", LANGUAGE_MODEL, 40, 1, FIT)
    stages.align(run, corpus, 1, 6, 8, 1.0, FIT)
    stages.instruct(run, corpus, {"predict": 24, "match": 4}, 4, AdapterParams(rank=2, alpha=4), FIT)
    instruct_second_pass(run, corpus, SecondPassParams(rank=2, alpha=4), replace(FIT, batch_size=16))
    evaluation_stage.evaluate(run, corpus, None, 3, 2, False, False, 0, n_jobs=1, answer_from="thought")
    return run


def test_the_scale_of_a_run_is_that_of_its_second_stage(micro_run, run):
    assert stages.open_dataset(micro_run).evidence_names.scale is LOW_HIGH
    assert stages.open_dataset(run).evidence_names.scale is GRADED
    model, _ = stages.open_instructed(run)
    assert SCALES[model.config.levels] == model.projector.evidence.scale == GRADED
    assert model.projector.evidence.levels.shape[0] == 12


def test_thoughts_that_it_learns_from_say_degrees(run):
    labels = stages.open_dataset(run).label_set.labels
    thoughts = [item.thought for item in read_items(run.path / "adapter" / "items.jsonl") if item.kind == "predict"]
    found = [parse(thought, labels, GRADED) for thought in thoughts]
    assert all(parsed.readable for parsed in found)
    said = {claim.level for parsed in found for claim in parsed.claims}
    assert said <= set(GRADED.words) - {"typical"} and len(said) >= 4


def test_claims_of_its_texts_are_read_on_its_scale(run):
    corpus, engine = stages.open_dataset(run), evaluation_stage.open_engine(run)
    items = prediction_items(corpus, corpus.split.test[:8], 0)
    claims = [claim for found in generate_explanations(engine, corpus, items).claims for claim in found]
    assert {claim.level for claim in claims} <= set(GRADED.words)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    """An export; read only."""
    return export(run, tmp_path_factory.mktemp("shared") / "exported", "mit", "made for a test")


@pytest.fixture(scope="module")
def edf(twin, tmp_path_factory) -> Path:
    trials = SeedVII(twin).trials(SeedVII(twin).recordings[0])
    signal = np.concatenate([np.asarray(trial.signal) for trial in trials], axis=1)[:, : 200 * 12]
    return write_edf(tmp_path_factory.mktemp("edf") / "new.edf", signal, SeedVII.ch_names, 200)


def test_an_export_keeps_the_scale(run, folder, edf):
    corpus = stages.open_dataset(run)
    said = E2LLM.of_run(run, corpus).ask(int(corpus.split.test[0]), "predict")
    assert str(said) and sum(said.probabilities.values()) == pytest.approx(1)
    recording = ExportedModel.from_pretrained(folder).read(edf, statistics="population")
    assert recording.corpus.evidence_names.scale is GRADED
    assert np.isfinite(recording.overview().to_numpy()).all()


# --- answers from the thought alone


def test_the_tables_say_what_an_answer_from_the_thought_scores_and_costs(run):
    tables = run.read_metrics()["tables"]
    scores, price = tables["from_thought"], tables["price"]
    assert {row["name"] for row in price} == {row["name"] for row in tables["tiers_2_and_3"]} | {"predict"}
    groups = [row["group"] for row in scores if row["name"] == "predict"]
    assert groups == ["from the thought", "thought of another window", "empty thought"]
    for row in price:
        assert row["difference"] == pytest.approx(row["from the thought"] - row["from the EEG"])
        assert row["low"] - 1e-9 <= row["difference"] <= row["high"] + 1e-9
    eeg = {row["name"]: row["score"] for row in tables["tiers_2_and_3"] if row["group"] == "EEG"}
    assert all(row["from the EEG"] == pytest.approx(eeg[row["name"]]) for row in price if row["name"] != "predict")
    llm = next(row["score"] for row in tables["tier_1"] if row["name"] == "LLM")
    assert price[0]["from the EEG"] == pytest.approx(llm)
    answers = read_predictions(run.path / "predictions.csv")
    assert pooled_price([answers]).iloc[0].to_dict() == pytest.approx(price[0]), "the answers behind it are kept"
    empty = next(row for row in scores if row["group"] == "empty thought")
    assert empty["score"] == pytest.approx(1 / 7, abs=0.15)


@pytest.fixture(scope="module")
def model(run) -> E2LLMFromThought:
    return E2LLMFromThought.of_run(run)


def test_a_window_that_stands_twice_is_refused(model):
    """Its two thoughts would be one for the second pass, so an edit of one of them would be lost."""
    with pytest.raises(ValueError, match="give each window once"):
        model.ask([0, 0], "compare arousal")


def test_nothing_but_the_claims_reaches_the_answer(model):
    corpus, window = model.corpus, int(model.corpus.split.test[0])
    evidence = "Evidence: frontal: beta very low, gamma rather high; occipital: alpha clearly low."
    own = model.explain(window, QUESTION, evidence)
    assert own.from_thought and own.answer in corpus.label_set.labels
    assert sum(own.probabilities_after.values()) == pytest.approx(1)
    other = model.explain(int(corpus.split.test[5]), QUESTION, own.text)  # other EEG, and a conclusion in the text
    assert other.probabilities_after == own.probabilities_after and other.probabilities != own.probabilities
    said = model.explain(window, QUESTION, "It rains. Very low frontal beta. Occipital alpha is clearly low, and "
                                            "frontal gamma is rather high. That fits anger.")
    assert said.probabilities_after == own.probabilities_after
    assert said.unread == ("It rains.",) and "did not reach the answer" in str(said)
    assert said.thought.startswith(evidence)


def test_an_edited_level_changes_the_answer_to_that_of_the_edited_text(model):
    window = int(model.corpus.split.test[0])
    answer = model.ask(window, QUESTION)
    text = "Evidence: frontal: beta very low; occipital: alpha rather high."
    first = model.explain(window, QUESTION, text)
    changed = model.with_levels(first, {"occipital alpha": "very high", "frontal beta": "typical"})
    assert changed.stated == ((Claim("occipital alpha", "very high"),),)
    again = model.explain(window, answer.asked, "Occipital alpha is very high.")
    assert changed.probabilities_after == again.probabilities_after != first.probabilities_after
    assert "occipital: alpha very high" in changed.thought
    for wrong, fact in (({"nasal alpha": "low"}, "not measured"), ({"occipital alpha": "huge"}, "is no level")):
        with pytest.raises(ValueError, match=fact):
            model.with_levels(first, wrong)
    with pytest.raises(ValueError, match="no segment 'B'"):
        model.with_levels(first, {}, "B")


def test_a_question_that_no_claim_can_serve_is_refused(model):
    for question in ("Is this person lying?", "describe", "How old is this person?"):
        with pytest.raises(ValueError, match="states levels of evidence"):
            model.ask(0, question)


def test_every_wording_of_what_a_thought_serves_is_answered(model):
    label_set, text = model.corpus.label_set, "Evidence: occipital: alpha very low."
    wordings = (*PREDICT_WORDINGS, *ZERO_SHOT_WORDINGS, "Which {noun} is it?")
    answers = {model.explain(0, form.format(noun=label_set.noun), text).answer for form in wordings}
    assert len(answers) == 1, "the question has one wording when the levels are read"
    both = "A: Evidence: occipital: alpha very low.\nB: Evidence: occipital: alpha very high."
    named, asked = (model.explain([0, 1], question, both) for question in ("compare arousal", "Which segment is more "
                                                                           "activated?"))
    assert named.stated == asked.stated and {named.answer, asked.answer} <= {"A", "B"}


def test_several_segments_are_answered_from_the_thoughts_about_each(model):
    windows = [int(row) for row in model.corpus.split.test[:2]]
    *parts, text = model.stream(windows, "compare valence")
    assert parts and text.startswith("A: ") and "\nB: " in text
    found = model.explain(windows, "compare valence", text)
    assert found.answer in ("A", "B") and len(found.stated) == 2
    swapped = model.explain(windows[::-1], "compare valence", text)  # other EEG, same thoughts
    assert swapped.answer == found.answer and swapped.stated == found.stated


def test_the_answer_to_a_window_is_that_of_the_evaluation(run, model):
    corpus, second = model.corpus, open_second_pass(run, model.corpus)
    window = int(corpus.split.test[0])
    claims = salient_claims(corpus.z[window], corpus.evidence_names)
    text = f"<think>\nEvidence: {', '.join(map(str, claims))}.\n</think>"
    stated = claims_of(corpus, [window], [text])[window]
    assert stated == claims != ()
    shares = second.shares([stated])[0]
    answer = model.explain(window, QUESTION, text)
    assert list(answer.probabilities_after.values()) == pytest.approx(shares.tolist(), abs=1e-6)


def test_the_figure_shows_the_chain_and_the_probabilities_that_follow_from_it(model):
    windows = [int(row) for row in model.corpus.split.test[:2]]
    answer = model.explain(windows[0], QUESTION, "Evidence: occipital alpha clearly low, frontal beta very high.")
    figure = answer.figure()
    said = figure.texts[0].get_text()
    assert said == ("Evidence: frontal: beta very high; occipital: alpha clearly low.\n"
                    f"So the answer is {answer.answer}: it was read from these words alone.")
    (axes,) = [ax for ax in figure.axes if ax.get_xlabel() == "probability (%)"]
    assert axes.get_title() == "Probability of each answer,\nfrom the stated evidence alone"
    drawn = sorted((100 * share for share in answer.probabilities_after.values()), reverse=True)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(drawn[: len(axes.patches)])
    text = "A: Evidence: occipital alpha clearly low.\nB: Evidence: frontal beta very high."
    two = model.explain(windows, "compare valence", text).figure()
    lines = two.texts[0].get_text().splitlines()
    assert lines[:2] == ["A: Evidence: occipital: alpha clearly low.", "B: Evidence: frontal: beta very high."]
    direct = [text.get_text() for text in E2LLM(model.engine, model.corpus).ask(windows[0], QUESTION).figure().texts]
    assert not any("these words alone" in text for text in direct)


def test_the_panel_answers_again_when_a_level_is_edited(model, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    monkeypatch.delenv("E2LLM_BATCH", raising=False)
    window = int(model.corpus.split.test[0])
    *_, buttons, _, shown, editor, _, picture, _ = widgets.reasoning_panel(model, [QUESTION], start=window).children
    button = buttons.children[0]
    assert editor.layout.display == "none"
    button.click()
    first = shown.value
    segment, feature, level, again = editor.children
    assert editor.layout.display == "" and segment.value == "A" and FROM_STATED in first, first
    feature.value = "occipital alpha"
    level.value = "very high" if level.value != "very high" else "very low"
    wanted, drawn = level.value, picture.value
    again.click()
    assert picture.value != drawn  # the figure is that of the new answer
    answer = model.with_levels(model.ask(window, QUESTION), {"occipital alpha": wanted})
    assert shown.value == answer._repr_html_() != first
    assert feature.value == "occipital alpha" and level.value == wanted  # the edit stays for the next one
    level.value = "typical"
    again.click()
    assert "occipital: alpha" not in shown.value.replace("</span>", "")


# --- an export carries the second pass


def test_answers_of_an_export_are_those_of_the_run(run, model, folder, tmp_path):
    """Its weights with the windows of the run: every text, every probability and every edit, bit for bit."""
    moved = shutil.copytree(folder, tmp_path / "moved")
    shared = E2LLMFromThought.from_pretrained(moved)
    engine = InferenceEngine(shared.model, shared.processor, model.engine.features, model.engine.position)
    second = replace(model.second, engine=shared.second, speaker=engine)
    found = E2LLMFromThought(engine, model.corpus, second=second)
    first, other = (int(row) for row in model.corpus.split.test[:2])
    text = "Evidence: frontal: beta very low, gamma rather high; occipital: alpha clearly low."
    for window in (first, other):
        ours, theirs = (one.explain(window, QUESTION, text) for one in (model, found))
        assert str(theirs) == str(ours) and theirs.probabilities_after == ours.probabilities_after
        assert theirs.probabilities == ours.probabilities
        edited = [one.with_levels(ours, {"occipital alpha": "very high"}) for one in (model, found)]
        assert str(edited[0]) == str(edited[1]) and edited[0].probabilities_after == edited[1].probabilities_after
        assert edited[1].probabilities_after != theirs.probabilities_after
    assert str(found.ask(first, QUESTION)) == str(model.ask(first, QUESTION))
    asked = [first, other], "compare valence", f"A: {text}\nB: Evidence: frontal: alpha very high."
    assert str(found.explain(*asked)) == str(model.explain(*asked))
    bare = replace(second, engine=text_engine(*stages.open_language(run)[:2]))
    assert not np.allclose(bare.shares([()]), second.shares([()]), atol=1e-4), "else the adapter shows nowhere"


def test_the_trained_token_rows_are_those_of_the_run(run, model, folder):
    stored = load_file(folder / "second_pass" / "adapter_model.safetensors")
    trained = load_file(run.path / "second_pass" / "lora" / "adapter_model.safetensors")
    assert stored.keys() == trained.keys() and all(torch.equal(stored[name], trained[name]) for name in trained)
    (rows,) = (value for name, value in stored.items() if "token_adapter" in name)
    ids = read_json(folder / "second_pass" / "adapter_config.json")["trainable_token_indices"]["model.embed_tokens"]
    assert rows.shape == (len(ids), 48)
    shared = E2LLMFromThought.from_pretrained(folder).second.model
    assert torch.equal(shared.get_input_embeddings().weight, model.second.engine.model.get_input_embeddings().weight)


def test_a_new_recording_is_asked_and_asked_again(folder, edf, capsys):
    recording = E2LLMFromThought.from_pretrained(folder).read(edf, statistics="population")
    assert "population" in repr(recording) and len(recording) == 3
    answer = recording.explain(1, QUESTION, "Evidence: occipital: alpha clearly low.")
    assert answer.from_thought and FROM_STATED in answer._repr_html_()
    changed = recording.with_levels(answer, {"occipital alpha": "very high"})
    assert changed.stated == ((Claim("occipital alpha", "very high"),),)
    assert changed.probabilities == answer.probabilities and changed.probabilities_after != answer.probabilities_after
    with pytest.raises(ValueError, match="states levels of evidence"):
        recording.ask(0, "describe")
    asked = ["ask", str(folder), str(edf), QUESTION, "--window", "1", "--statistics", "population"]
    assert main([*asked, "--answer-from", "thought"]) == 0
    assert str(recording.ask(1, QUESTION)) in capsys.readouterr().out
    assert main(asked) == 0
    assert "from the stated evidence" not in capsys.readouterr().out


def test_facts_and_card_say_that_it_is_there(run, folder):
    facts = read_json(folder / FACTS)
    taught = facts["second_pass"]
    assert (taught["levels"], taught["thresholds"]) == (list(GRADED.words), list(GRADED.thresholds))
    assert list(taught["questions"]) == ["label", "affect", "intensity"]
    assert taught["questions"]["label"]["options"] == list(stages.open_dataset(run).label_set.labels)
    assert "frontal 12345, central 67123" in taught["questions"]["label"]["text"], "every level in turn"
    assert {"second_pass/adapter_config.json", "second_pass/adapter_model.safetensors"} <= set(facts["files"])
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))
    assert facts["made_with"]["second_pass"]["fit"]["steps"] == FIT.steps
    card, tables = (folder / "README.md").read_text(), run.read_metrics()["tables"]
    assert 'answer_from="thought"' in card and "`second_pass/`" in card and "holds no second pass" not in card
    for row in tables["from_thought"][:3]:
        assert f"| {row['group']} | {100 * row['score']:.1f} |" in card
    for row in tables["price"]:
        assert f"| {row['name']} | {100 * row['from the EEG']:.1f} | {100 * row['from the thought']:.1f} |" in card


def test_another_version_does_not_ask_the_second_pass_in_other_words(folder, monkeypatch):
    for changed in (lambda patch: patch.setitem(second_pass._QUESTIONS, Asked.AFFECT, "Is it nice?"),
                    lambda patch: patch.setattr(level_table, "table_of_digits", str)):
        with monkeypatch.context() as patch:
            changed(patch)
            assert E2LLM.from_pretrained(folder), "answers from the EEG are not concerned"
            with pytest.raises(ExportError, match="second pass reads other levels or questions"):
                E2LLMFromThought.from_pretrained(folder)


def test_a_file_of_the_second_pass_that_is_missing_or_broken_is_named(folder, tmp_path):
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        own = Path(shutil.copytree(folder, tmp_path / name))
        path = own / "second_pass" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        for kind in (E2LLM, E2LLMFromThought):
            with pytest.raises(ExportError, match=rf"second_pass/{name} is not as it was exported"):
                kind.from_pretrained(own)
        path.unlink()
        with pytest.raises(ExportError, match=rf"second_pass/{name} is missing"):
            ExportedModel.from_pretrained(own)
