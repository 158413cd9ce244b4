"""What a model says is marked by what was measured; asking, streaming and explaining agree.

Nothing said can run in the page.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import ipywidgets
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from asked import NAMES, WIDTH, N, made_up_corpus, random_model

from e2llm.app import chat_session
from e2llm.app.chat_session import E2LLM
from e2llm.core.chat import EEG_TOKEN, END_THINK, THINK
from e2llm.core.claims import Claim, EvidenceNames
from e2llm.core.labels import SEED_VII, plain_labels
from e2llm.core.verdicts import Verdict
from e2llm.data.features import differential_entropy
from e2llm.models.inference import InferenceEngine, closed_set, generate, probabilities, score_options
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.thought_parser import Comparison, NoSalientFeature, parse
from e2llm.viz import widgets
from e2llm.viz.answer_view import AFTER, BEFORE, Explained, channel_z, check, pieces

LABELS = SEED_VII.labels
BLUE, VERMILLION, GREY = "#00436b", "#7a2e00", "#3d3d3d"
TRUE = "Occipital alpha low, frontal theta high."
MIXED = "Occipital alpha low, frontal theta low. The moon may be full. That fits fear."


def said(thought: str, answer: str = "fear") -> str:
    return f"{THINK}\n{thought}\n{END_THINK}\n\n{answer}"


@pytest.fixture(autouse=True)
def quiet():
    torch.set_num_threads(1)
    yield
    assert not plt.get_fignums()  # a figure of a widget or of an answer is no longer pyplot's


@pytest.fixture(scope="module")
def corpus() -> SimpleNamespace:
    return made_up_corpus()


@pytest.fixture(scope="module")
def model(corpus) -> E2LLM:
    return random_model(corpus, [MIXED])


# --- what was said, against what was measured


def test_verdicts_of_one_window(corpus):
    z = corpus.z[:1]
    assert check(Claim("occipital alpha", "low"), z, NAMES) == (Claim("occipital alpha", "low"), Verdict.TRUE,
                                                                "z = -2.50, low")
    assert check(Claim("frontal theta", "typical"), z, NAMES)[1:] == (Verdict.FALSE, "z = +2.25, high")
    few = EvidenceNames(NAMES.pairs[:1])
    assert check(Claim("occipital alpha", "low"), np.zeros((1, len(few.columns))), few).verdict is Verdict.UNKNOWN
    assert check(NoSalientFeature(), z, NAMES).verdict is Verdict.FALSE
    assert check(NoSalientFeature(), corpus.z[1:2], NAMES).verdict is Verdict.TRUE
    assert check(Comparison("occipital alpha", "A", "lower", "B"), z, NAMES).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("order", "verdict"), [
    (Comparison("occipital alpha", "A", "lower", "B"), Verdict.TRUE),
    (Comparison("occipital alpha", "B", "higher", "A"), Verdict.TRUE),
    (Comparison("occipital alpha", "A", "higher", "B"), Verdict.FALSE),
    (Comparison("parietal beta", "A", "higher", "B"), Verdict.FALSE),
    (Comparison("occipital alpha", "A", "lower", "C"), Verdict.UNKNOWN)])
def test_an_order_needs_its_sign_and_its_size(corpus, order, verdict):
    assert check(order, corpus.z[:2], NAMES).verdict is verdict


def test_an_order_counts_from_the_threshold_on():
    z = np.zeros((2, len(NAMES.columns)))
    for gap, verdict in ((0.7, Verdict.TRUE), (0.699, Verdict.FALSE)):
        z[0, NAMES.columns.index("frontal theta")] = gap
        assert check(Comparison("frontal theta", "A", "higher", "B"), z, NAMES).verdict is verdict


def test_a_sentence_is_cut_where_its_parts_say_the_same_alone(corpus):
    cut = pieces(TRUE, LABELS, corpus.z[:1], NAMES)
    assert [piece.text for piece in cut] == ["Occipital alpha low,", "frontal theta high."]
    together = pieces("Occipital and parietal alpha are low.", LABELS, corpus.z[:1], NAMES)
    assert [len(piece.checked) for piece in together] == [2]
    for thought in (TRUE, MIXED, "Evidence: occipital alpha is low, frontal theta is high. Nothing stands out.",
                    "No idea, low."):
        found, whole = pieces(thought, LABELS, corpus.z[:1], NAMES), parse(thought, LABELS)
        assert tuple(s for piece in found for s in piece.parsed.statements) == whole.statements
        assert tuple(s for piece in found for s in piece.parsed.unread) == whole.unread


# --- explanations


def test_every_claim_has_its_color_its_mark_and_its_measurement(model):
    shown = model.explain(0, "Which emotion?", said(MIXED))._repr_html_()
    for color, title, words, mark, behind in (
            (BLUE, "occipital alpha low: z = -2.50, low", "Occipital alpha low", "✓", ","),
            (VERMILLION, "frontal theta low: z = +2.25, high", "frontal theta low", "✗", "."),
            (GREY, "not read: no rule of the grammar fits", "The moon may be full.", "?", " ")):
        style = rf'<span style="color: {color}; background: #\w+;[^"]*" title="{re.escape(title)}">'
        assert re.search(rf"{style}{re.escape(words)}&nbsp;<b>{re.escape(mark)}</b></span>{behind}", shown), words
    assert " That fits fear.</div>" in shown and ">false&nbsp;" in shown


def test_claims_that_share_a_region_have_a_mark_each(model):
    found = model.explain(0, "Which emotion?", said("Evidence: frontal: theta low, alpha high; occipital: alpha low; "
                                                    "spectral slope high."))
    line = str(found).splitlines()[2]
    assert re.sub("[✓✗]", "!", line) == ("Thought: Evidence: frontal: theta low !, alpha high !; "
                                         "occipital: alpha low !; spectral slope high !.")
    assert [str(claim) for claim, _ in found.claims] == ["frontal theta low", "frontal alpha high",
                                                         "occipital alpha low", "spectral slope high"]


def test_claims_counts_and_answer(model):
    found = model.explain(0, "Which emotion?", said(MIXED))
    assert found.claims == ((Claim("occipital alpha", "low"), Verdict.TRUE),
                            (Claim("frontal theta", "low"), Verdict.FALSE))
    assert found.unread == ("The moon may be full.",)
    assert (found.answer, found.thought, found.question) == ("fear", MIXED, "Which emotion?")
    assert found.windows == ("subject 1, clip 1 (fear), window 0 from 0 s",)
    assert list(found.probabilities) == list(LABELS) and sum(found.probabilities.values()) == pytest.approx(1)
    assert "1 true, 1 false, 0 that cannot be checked, 1 unread" in str(found)


def test_a_claim_said_twice_counts_once(model):
    assert len(model.explain(0, "?", said("Occipital alpha low. Occipital alpha is low.")).claims) == 1


def test_the_flag_is_shown(model):
    fabricated = model.explain(1, "?", said(TRUE))
    assert fabricated.flag.fabricated
    for shown in (str(fabricated), fabricated._repr_html_()):
        assert "fabricated: more than half of its claims are false" in shown
    assert "fabricated" not in str(model.explain(0, "?", said(TRUE)))
    assert "nothing in it can be checked" in str(model.explain(0, "?", said("The moon is full.")))


@pytest.mark.parametrize(("text", "answer", "thought", "n"), [
    ("fear", "fear", "", 0), (f"{THINK}\n{TRUE}", None, TRUE, 2),
    (said("Occipital alpha low.", "Frontal theta high."), None, "Occipital alpha low.", 2),
    (f"{TRUE}\n{END_THINK}\n\nfear.", "fear", TRUE, 2), (TRUE, None, "", 2), ("", None, "", 0)])
def test_whatever_the_form_everything_said_is_checked(model, text, answer, thought, n):
    found = model.explain(0, "?", text)
    assert (found.answer, found.thought, len(found.claims)) == (answer, thought, n)
    assert str(found) and found._repr_html_()


def test_text_cannot_run_in_the_page(model):
    bad = "<script>alert('x')</script>"
    found = model.explain(0, f"{bad}?", said(f"{bad} Occipital alpha low.", bad))
    assert "<script" not in found._repr_html_() and found._repr_html_().count("&lt;script&gt;") >= 3
    assert bad in str(found)


def test_the_text_form_is_the_same_every_time(model):
    first, again = (model.explain(0, "Which emotion?", said(MIXED)) for _ in range(2))
    assert repr(first) == str(first) == str(again) and first == again
    lines = str(first).splitlines()
    assert lines[2] == "Thought: Occipital alpha low ✓, frontal theta low ✗. The moon may be full. ? That fits fear."
    assert lines[3:6] == ["  ✓ occipital alpha low: z = -2.50, low", "  ✗ frontal theta low: z = +2.25, high",
                          "  ? not read: no rule of the grammar fits"]
    assert lines[6] in ("A: fear", f"A: fear (the most probable answer is {first.most_probable})")


def test_several_windows_have_orders_and_no_flag(model):
    text = said("Occipital alpha is lower in A than in B. Frontal theta is higher in B than in A. Occipital alpha low.",
                "A")
    found = model.explain([0, 1], "Who is afraid?", text, "compare")
    assert [verdict for _, verdict in found.claims] == [Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN]
    assert found.flag is None and found.answer == "A" and list(found.probabilities) == ["A", "B"]
    assert "z = -2.50 in A, +0.00 in B" in found._repr_html_() and "the statement names no segment" in str(found)
    assert str(found).startswith("A: subject 1, clip 1 (fear), window 0 from 0 s\nB: subject 1")


# --- how sure it is


QUESTION = "Which emotion?"


@pytest.fixture(scope="module")
def convinced(corpus) -> E2LLM:
    """A model, trained here, that answers whatever its thought names, and without a thought knows nothing."""
    texts = [f"{said(f'That fits {label}.', label)} {QUESTION}" for label in LABELS]
    processor = E2LLMProcessor(make_tokenizer(texts * 4, 320), 2)
    size = ScratchParams(320, hidden_size=64, layers=2, heads=4, max_positions=512)
    language = new_language_model(processor.tokenizer, size, 0)
    joined = E2LLMForConditionalGeneration.join(language, processor.tokenizer, "none", None, WIDTH, 2, 0)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(8, 16, WIDTH)).astype(np.float32)
    optimizer = torch.optim.AdamW(joined.parameters(), 3e-3)
    for _ in range(150):
        rows, examples = rng.integers(8, size=16), []
        for row in rows:
            asked = [{"type": "eeg", "window": int(row)}, {"type": "text", "text": f" {QUESTION}"}]
            label, thinks = LABELS[rng.integers(len(LABELS))], bool(rng.random() < 0.75)
            response = said(f"That fits {label}.", label) if thinks else label
            examples.append(processor.training_example([{"role": "user", "content": asked}], response, thinks))
        ids, mask = processor.pad([example["input_ids"] for example in examples], "right")
        labels, _ = processor.pad([example["labels"] for example in examples], "right", -100)
        optimizer.zero_grad()
        engine = torch.from_numpy(features[rows])
        joined(input_ids=ids, attention_mask=mask, eeg_features=engine, labels=labels).loss.backward()
        optimizer.step()
    return E2LLM(InferenceEngine(joined.eval(), processor, features, {i: i for i in range(8)}), corpus,
                 max_new_tokens=32)


def shown_in(found: Explained) -> dict[str, dict[str, float]]:
    """What is seen as the probability of each answer (0 to 1): in the text, the open part of the page, the figure."""
    text = str(found).split(f"{BEFORE}: ")[1]
    page = re.sub("<details>.*</details>", "", found._repr_html_()).split(BEFORE)[1]
    axes = next(ax for ax in found.figure().axes if ax.get_xlabel() == "probability (%)")
    assert axes.get_title() == "Probability of each answer,\nbefore any explanation"
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    row = r'right">([^<]+)</td><td style="text-align: right">(\d+)%'
    return {"text": {name: int(share) / 100 for name, share in re.findall(r"([^,]+?) (\d+)%(?:, )?", text)},
            "page": {name: int(share) / 100 for name, share in re.findall(row, page)},
            "figure": dict(zip(names, [bar.get_width() / 100 for bar in axes.patches], strict=True))}


def test_the_probability_is_that_of_the_evaluation_whatever_the_thought_names(convinced):
    """After a thought that names an answer, this model is sure of it; that is never shown as how sure it is."""
    said_itself = convinced.ask(0, QUESTION)
    assert said_itself.answer is not None and said_itself.thought == f"That fits {said_itself.answer}."
    expected = closed_set(convinced.engine, [convinced._item([0], QUESTION, None)])[0]
    assert expected.max() < 0.5
    for label in LABELS:
        found = convinced.explain(0, QUESTION, said(f"That fits {label}.", label))
        assert found.answer == label and list(found.probabilities.values()) == expected.tolist()
        assert found.probabilities_after[label] > 0.9
        for where, shares in shown_in(found).items():
            assert list(shares) == sorted(LABELS, key=lambda name: -found.probabilities[name]), where
            assert list(shares.values()) == pytest.approx(sorted(expected, reverse=True), abs=0.0051), where
    assert said_itself.probabilities == found.probabilities


@pytest.mark.parametrize(("rows", "question", "task"), [
    ([0], "predict", None), ([0], "describe", None), ([0], QUESTION, None), ([0, 1], "compare", None),
    ([0, 1], "compare intensity", None), ([0, 1, 2], "rank", None), ([0, 1, 2], "match", None),
    ([0, 1], "Who is afraid?", None), ([0, 1, 2], "In order?", "rank")])
def test_no_text_changes_a_probability_of_any_task(model, rows, question, task):
    item = model._item(rows, question, task)
    expected = probabilities(score_options(model.engine, [item]))[0].tolist()
    texts = ["", item.options[-1], f"{THINK}\nunfinished"]
    texts += [said(f"That fits {option}.", option) for option in item.options[:3]]
    found = [model.explain(rows, question, text, task) for text in texts]
    found += [model.ask(rows, question, start, task) for start in ("", said(f"That fits {item.options[0]}.", ""))]
    for each in found:
        assert list(each.probabilities) == item.options and list(each.probabilities.values()) == expected
    after = [each.probabilities_after for each in found[2:5]]
    assert all(sum(each.values()) == pytest.approx(1) for each in after)
    assert after[0] != after[1]  # these do depend on the text


def test_a_probability_after_no_thought_is_not_there(model):
    for text in ("", "fear", TRUE, f"{THINK}\n\n{END_THINK}\n\nfear"):
        found = model.explain(0, QUESTION, text)
        assert found.probabilities_after is None and "<details>" not in found._repr_html_()


def test_the_probability_after_the_thought_is_folded_away(convinced):
    shown = convinced.explain(0, QUESTION, said("That fits sad.", "sad"))._repr_html_()
    (folded,) = re.findall("<details>.*?</details>", shown)  # closed: no "open" attribute
    assert AFTER in folded and re.search(r">sad</td><td[^>]*>(9\d|100)%<", folded)
    assert shown.count(AFTER) == 1 and shown.index(BEFORE) < shown.index(folded)
    assert AFTER not in str(convinced.explain(0, QUESTION, said("That fits sad.", "sad")))


def test_a_text_that_the_probabilities_do_not_favour_is_seen(convinced):
    most_probable = convinced.explain(0, QUESTION, "").most_probable
    for label in LABELS:
        found = convinced.explain(0, QUESTION, said(f"That fits {label}.", label))
        words = f"(the most probable answer is {most_probable})"
        axes = next(ax for ax in found.figure().axes if ax.get_xlabel() == "probability (%)")
        ticks = [tick.get_text() for tick in axes.get_yticklabels()]
        assert found.answer == label and found.most_probable == most_probable == ticks[0]
        assert [words in str(found), words in found._repr_html_(), len(axes.texts) == 1] == [label != most_probable] * 3
        for mark in axes.texts:  # stands behind the bar of the text's answer
            assert mark.get_text() == "answer in the text"
            assert axes.convert_yunits(mark.get_position()[1]) == ticks.index(label)
    assert "favour" not in str(convinced.explain(0, QUESTION, "?"))  # no answer, so none that differs


# --- asking


@pytest.mark.parametrize(("rows", "question"), [([2, 3], "Who shows fear?"), ([5], "?"), ([7], "?"), ([2, 3], "?")])
def test_asking_streaming_and_evaluating_say_the_same(model, rows, question):
    *grown, last = model.stream(rows, question)
    assert model.ask(rows, question).text == last == generate(model.engine, [model._item(rows, question, None)],
                                                              max_new_tokens=16)[0]
    assert all(last.startswith(text) and text[-1] != "\ufffd" for text in grown)
    assert grown or last.endswith("\ufffd")  # this random model says bytes that are no letters


def test_what_is_said_first_stays(model):
    assert model.ask(0, "?", said=f"{THINK}\nOccipital alpha low.").text.startswith(f"{THINK}\nOccipital alpha low.")


def test_an_error_in_generation_is_raised_and_nobody_waits(model, monkeypatch):
    def fail(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.engine.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.ask(0, "?")


def test_a_stream_that_nobody_reads_ends(model):
    before, stream = threading.active_count(), replace(model, max_new_tokens=300).stream(0, "?")
    next(stream)
    stream.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("rows", "question", "task", "fact"), [
    ([], "?", None, "not 0"), ([0] * 5, "?", None, "not 5"), (N, "?", None, f"no window {N}"),
    ([-1], "?", None, "no window -1"),
    (0, "  ", None, "empty"), (0, f"a {EEG_TOKEN}", None, "special token"), (0, "?", "dance", "no task 'dance'"),
    (0, "compare", None, "about 2 windows, not 1"), ([0, 1], "rank", None, "3 to 4 windows, not 2"),
    ([0, 1], "?", "predict", "about 1 windows")])
def test_what_cannot_be_asked_is_refused_by_name(model, rows, question, task, fact):
    for call in (model.ask, model.stream):
        with pytest.raises(ValueError, match=fact):
            call(rows, question, task=task)


@pytest.mark.parametrize(("rows", "name", "options", "words"), [
    ([0], "predict", list(LABELS), ""), ([0], "describe", list(LABELS), ""),
    ([0, 1], "compare", ["A", "B"], "more pleasant"),
    ([0, 1], "compare intensity", ["A", "B"], "stronger"), ([0, 1, 2], "match", ["A", "B", "C"], "scenario"),
    ([0, 1, 2], "rank arousal", None, "more activated")])
def test_the_name_of_a_task_stands_for_a_wording(model, rows, name, options, words):
    item = model._item(rows, name, None)
    assert item.windows == rows == model.engine.processor.windows(item.messages)
    assert words in "".join(part.get("text", "") for part in item.messages[0]["content"]) or name == "match"
    assert item.options == options if options else len(item.options) == 6
    assert item == model._item(rows, name, None)


@pytest.mark.parametrize("question", ["x" * 20_000, "why " * 1500, "Which emotion is it? " * 60, "δ" * 600])
def test_a_question_that_the_model_cannot_read_is_refused_at_once(model, question):
    began = time.monotonic()
    for ask in (model.ask, model.stream, lambda row, words: model.explain(row, words, "fear")):
        with pytest.raises(ValueError, match=r"^The question (has \d+ letters|takes \d+ tokens).*: (ask a )?shorte"):
            ask(0, question)
    assert time.monotonic() - began < 60


def test_a_question_that_just_fits_is_answered_and_room_is_kept_for_the_answer(model):
    processor = model.engine.processor

    def taken(question: str) -> int:
        return len(processor.ids(processor.prompt(model._item([0], question, None).messages, thinking=True)))

    words = "x" * (512 - 48 - taken("x") + 1)
    assert taken(words) == 512 - 48 and model.ask(0, words).text is not None
    with pytest.raises(ValueError, match="takes 465 tokens with its segments, and the language model reads 512"):
        model.ask(0, f"{words}x")
    with pytest.raises(ValueError, match="with its segments and the text after it"):
        model.ask(0, words, said="y")
    with pytest.raises(ValueError, match="and the text after it"):
        model.explain(0, "Which emotion is it?", "y" * 600)


def test_free_text_stands_after_its_windows(model):
    one, two = model._item([3], "How?", None), model._item([3, 4], "Who?", None)
    assert one.messages[0]["content"] == [{"type": "eeg", "window": 3}, {"type": "text", "text": " How?"}]
    assert [part.get("text", part.get("window")) for part in two.messages[0]["content"]] == [" A: ", 3, " B: ", 4,
                                                                                             " Who?"]
    assert (one.options, two.options) == (list(LABELS), ["A", "B"])
    assert model._item([0], "compare apples", None).messages[0]["content"][-1]["text"] == " compare apples"


def test_a_source_without_affect_is_asked_for_intensity(model, corpus):
    plain = replace(model, corpus=SimpleNamespace(**{**vars(corpus),
                                                     "label_set": plain_labels("eegmat", ["rest", "count"])}))
    assert "stronger" in plain._item([0, 1], "compare", None).messages[0]["content"][-1]["text"]
    assert plain._item([0, 1], "Who counts?", None).options == ["A", "B"]
    with pytest.raises(ValueError, match="knows no valence"):
        plain._item([0, 1], "compare valence", None)
    index = corpus.windows.index.assign(label="rest")
    plain = replace(plain, corpus=SimpleNamespace(**{**vars(plain.corpus),
                                                     "windows": replace(corpus.windows, index=index)}))
    with pytest.raises(ValueError, match="no scenarios of 'rest'"):
        plain._item([0, 1], "match", None)
    assert plain._item([0, 1], "Who rests?", "match").options == ["A", "B"]


def test_windows_without_features_are_encoded_when_asked_about(model, monkeypatch):
    class Encoder(torch.nn.Module):
        def forward(self, signal_mv):
            return signal_mv[:, :16, :WIDTH].reshape(len(signal_mv), 16, 4, WIDTH // 4)

    with pytest.raises(ValueError, match=r"use E2LLM\.of_run"):
        model.ask(9, "?")
    monkeypatch.setattr(chat_session, "load_encoder", lambda run, corpus: SimpleNamespace(encoder=Encoder()))
    able = replace(model, run="a run")
    engine = able._engine_for([9, 2, 9])
    assert engine.features[engine.position[2]] == pytest.approx(model.engine.features[2])
    assert engine.features[engine.position[9]] == pytest.approx(model.corpus.windows.data[9, :16, :WIDTH] * 1e-3)
    assert able.ask([9, 2], "Who?").rows == (9, 2)


def test_of_run_opens_what_belongs_together(model, corpus, monkeypatch):
    monkeypatch.setattr(chat_session, "open_instructed", lambda run: (model.engine.model, model.engine.processor))
    monkeypatch.setattr(chat_session, "load_tokens", lambda run: (model.engine.features, model.engine.position))
    monkeypatch.setattr(chat_session, "open_dataset", lambda run: corpus)
    assert E2LLM.of_run("run").corpus is corpus and E2LLM.of_run("run", corpus).engine.model is model.engine.model


# --- what was not taught


def test_a_question_that_was_not_taught_is_noted(model):
    for rows, question, task, is_taught in ((0, "Which emotion does this segment show?", None, True),
                                            (0, "predict", None, True), (0, "Is this person lying?", None, False),
                                            (0, "Is this person lying?", "predict", True),
                                            ([0, 1], "Which segment is more pleasant?", None, True),
                                            ([0, 1, 2, 3], "Which segment is the happiest?", None, False)):
        reason = model.not_taught(rows, question, task)
        assert bool(reason) != is_taught, question
        found = model.explain(rows, question, "", task)
        assert bool(found.note) != is_taught and ("was not taught" in found._repr_html_()) != is_taught
        assert (f"Note: {chat_session.NOT_TAUGHT}" in str(found)) != is_taught


def test_a_wording_decides_its_task(model):
    ordered = model._item([0, 1, 2], "Order the segments, the one that is stronger first.", None)
    assert ordered.kind == "rank" and len(ordered.options) == 6
    assert model._item([0, 1], "Which segment is more activated?", None).axis == "arousal"
    assert model._item([0], "Describe this segment.", None).kind == "describe"


def test_a_description_is_an_answer_and_its_claims_are_checked(model):
    found = model.explain(0, "describe", said("Occipital alpha low.", "The segment shows fear strong, unpleasant and "
                                              "activated. Evidence: frontal theta low."))
    assert found.answer == "fear"
    assert [verdict for _, verdict in found.claims] == [Verdict.TRUE, Verdict.FALSE]
    assert model.explain(0, "describe", said("", "The segment shows fear or anger.")).answer is None


def test_a_thought_without_claims_is_not_counted(model):
    text = said("Notes: sad A, fear B. More pleasant: fear B.", "B")
    for shown in (str(found := model.explain([0, 1], "compare", text)), found._repr_html_()):
        assert "0 true" not in shown and "no statement about the signal: nothing to check" in shown
    assert "no statement about the signal, 1 unread" in str(model.explain([0, 1], "compare", said("Odd.", "B")))


def test_the_fit_of_a_scenario_is_the_probability_of_one_emotion(model):
    of_text, table = model.scenario_fit("A dog jumps at a child.", [3, 1, 5])
    assert sum(of_text.values()) == pytest.approx(1) and sorted(table.index) == [1, 3, 5]
    shares = model.overview([3, 1, 5])
    expected = shares.to_numpy() @ np.array([of_text[label] for label in shares.columns])
    assert table["fit"].sort_index().to_numpy() == pytest.approx(expected[[1, 0, 2]])
    assert table["fit"].is_monotonic_decreasing
    with pytest.raises(ValueError, match="empty"):
        model.scenario_fit(" ", [1])


# --- the figure


def test_channel_z_is_against_the_own_rows(corpus):
    entropy = differential_entropy(corpus.windows.power)
    own = entropy[[7, 8, 9, 10]]
    assert channel_z(corpus, [11])[0] == pytest.approx((entropy[11] - own.mean(0)) / own.std(0), rel=1e-4)


@pytest.mark.parametrize("rows", [[0], [0, 1, 6]])
def test_the_figure_has_maps_spectra_and_answers_with_units(model, rows):
    figure = model.explain(rows, "Costs $5 or $6?", said(TRUE)).figure()
    maps = [ax.get_title() for ax in figure.axes if ax.get_title().endswith("Hz")]
    assert len(maps) == 5 * len(rows) and maps[0] == f"{'A: ' * (len(rows) > 1)}delta\n1-4 Hz"
    labels = {ax.get_xlabel() for ax in figure.axes} | {ax.get_ylabel() for ax in figure.axes}
    assert {"frequency (Hz)", "power (dB re 1 µV²/Hz)", "probability (%)", "z against subject statistics"} <= labels
    spectrum = next(ax for ax in figure.axes if ax.get_xlabel() == "frequency (Hz)")
    legend = [text.get_text() for text in spectrum.get_legend().get_texts()]
    assert legend == (["this segment", "mean of subject 1 (n = 4)"] if len(rows) == 1 else
                      ["segment A", "mean of subject 1 (n = 4)", "segment B", "segment C", "mean of subject 2 (n = 4)"])
    figure.canvas.draw()
    assert "$5" in figure.get_suptitle()


# --- the panel


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lesson.ipynb")
    monkeypatch.delenv("E2LLM_BATCH", raising=False)


@pytest.fixture
def saying(model, monkeypatch):
    """The model, made to say a known text."""
    monkeypatch.setattr(chat_session, "_stream_text", lambda *_: iter([THINK, said(MIXED)]))
    return model


def test_the_panel_in_batch_is_one_explanation(saying, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)

    def refuse(*args, **kwargs):
        raise AssertionError("a widget was made in a batch run")

    monkeypatch.setattr(ipywidgets.Widget, "__init__", refuse)
    found = widgets.reasoning_panel(saying, ["Which emotion?", "Why?"], start=2)
    assert isinstance(found, Explained) and found.rows == (2,) and found.question == "Which emotion?"
    assert widgets.reasoning_panel(saying, ["compare"], start=[0, 1]).rows == (0, 1)


def parts(panel) -> SimpleNamespace:
    """The parts of a live panel by name."""
    names = ["count", "chosen", "drawing", "signal", "suggestion", "question", "buttons", "status", "shown", "editor",
             "figure_status", "figure", "style"]
    found = SimpleNamespace(**dict(zip(names, panel.children, strict=True)))
    found.button, found.anyway = found.buttons.children
    return found


def test_the_panel_lights_up_claims_after_the_click(live, saying):
    panel = parts(widgets.reasoning_panel(saying, ["Which emotion?", "compare"]))
    assert 'alt="Segment A: ' in panel.signal.value and len(panel.chosen.children) == 1
    assert not panel.shown.value
    seen, said_before = [], []
    panel.shown.observe(lambda change: seen.append(change["new"]), "value")
    for status in (panel.status, panel.figure_status):
        status.observe(lambda change: said_before.append(change["new"]), "value")
    panel.button.click()
    assert "✓" in panel.shown.value and "✗" in panel.shown.value
    assert BLUE in panel.shown.value and VERMILLION in panel.shown.value
    assert seen[0] == '<div style="white-space: pre-wrap">&lt;think&gt;</div>'  # text grows before it is judged
    assert [text for text in said_before if text] == ["<i>generating … (to stop: interrupt the kernel)</i>",
                                                      "<i>drawing …</i>"]
    assert 'alt="Which emotion?' in panel.figure.value and panel.figure.layout.display == ""
    assert not panel.button.disabled
    assert panel.editor.layout.display == "none"  # claims beside an answer from the EEG decide nothing
    panel.count.value = 2
    panel.suggestion.value = "compare"
    assert len(panel.chosen.children) == 2 and panel.question.value == "compare"
    panel.chosen.children[1].children[1].children[2].value = 3
    panel.button.click()
    assert "window 0 from" in panel.shown.value and "window 3 from" in panel.shown.value


def test_segments_start_apart_and_the_picture_names_the_one_that_was_touched(live, saying, monkeypatch):
    titles = []
    monkeypatch.setattr(widgets.ask.plots, "window_view", lambda *given: titles.append(given[-1]) or
                        plt.figure().suptitle("A window").figure)
    panel = parts(widgets.reasoning_panel(saying, ["compare"], start=2))
    panel.count.value = 4
    pickers = [line.children[1].children for line in panel.chosen.children]
    assert len({(subject.value, window.value) for subject, _, window in pickers}) == 4
    pickers[2][-1].value = 5
    assert [title.partition(":")[0] for title in titles] == ["Segment A", "Segment C"]


def test_what_was_not_taught_is_declined_and_may_be_asked_all_the_same(live, saying):
    panel = parts(widgets.reasoning_panel(saying, ["predict"]))
    panel.question.value = "Is this person <b>lying</b>?"
    panel.button.click()
    assert "was not taught this question" in panel.shown.value and "✓" not in panel.shown.value
    assert "Which emotion does this segment show?" in panel.shown.value and panel.anyway.layout.display == ""
    assert panel.figure.layout.display == "none"
    panel.anyway.click()
    assert "✓" in panel.shown.value and "was not taught" in panel.shown.value and "<b>lying" not in panel.shown.value
    assert panel.anyway.layout.display == "none"


def test_an_interrupt_leaves_the_panel_ready(live, saying, monkeypatch):
    def interrupted(*_):
        yield "Occipital"
        raise KeyboardInterrupt

    panel = parts(widgets.reasoning_panel(saying, ["predict"]))
    monkeypatch.setattr(chat_session, "_stream_text", interrupted)
    panel.button.click()
    assert "interrupted" in panel.status.value and "Occipital" in panel.shown.value and not panel.button.disabled
    assert panel.figure.layout.display == "none"
    monkeypatch.setattr(chat_session, "_stream_text", lambda *_: iter([said(MIXED)]))
    panel.button.click()
    assert "✓" in panel.shown.value and not panel.status.value


def test_an_error_is_shown_escaped(live, saying):
    panel = parts(widgets.reasoning_panel(saying, ["compare"]))
    panel.button.click()
    assert panel.status.value.startswith("<b>ValueError: The task") and panel.figure.layout.display == "none"
    assert not panel.button.disabled
    panel.question.value = f"<b> {EEG_TOKEN} Which emotion does this segment show?"
    panel.anyway.click()
    assert "&lt;|eeg|&gt;" in panel.status.value and EEG_TOKEN not in panel.status.value


def test_a_panel_needs_windows_and_a_question(saying):
    for start, fact in (([], "not 0"), ([0] * 5, "not 5")):
        with pytest.raises(ValueError, match=fact):
            widgets.reasoning_panel(saying, ["?"], start)
    with pytest.raises(ValueError, match="at least one question"):
        widgets.reasoning_panel(saying, [])
    with pytest.raises(IndexError, match=f"from 0 to {N - 1}"):
        widgets.reasoning_panel(saying, ["?"], N)
