"""Scores of options equal reading each of them alone, and a control without EEG falls to chance."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from dictated import dictate

from e2llm.core.chat import EEG_TOKEN, END_THINK, THINK, Item
from e2llm.core.labels import plain_labels
from e2llm.evaluation.controls import shuffled, with_mean_token, with_random_projector, without_eeg
from e2llm.evaluation.metrics import Score, accuracy
from e2llm.evaluation.tiers import Answers, answer
from e2llm.models import inference, text_cache
from e2llm.models.evidence_probe import EvidenceProbe
from e2llm.models.inference import (
    InferenceEngine,
    closed_thought,
    generate,
    label_similarity,
    probabilities,
    score_options,
    think_and_score,
)
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.items import predict
from e2llm.tasks.segments import Segment

TEXTS = ["Which segment is more pleasant? A: B: C:", "The segment shows sad and calm. happy resting counting moving"]
WIDTH, EEG_TOKENS = 24, 2


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def processor() -> E2LLMProcessor:
    return E2LLMProcessor(make_tokenizer(TEXTS, 320), EEG_TOKENS)


@pytest.fixture(scope="module")
def engine(processor) -> InferenceEngine:
    """A random model that hears windows 100 to 119."""
    size = ScratchParams(320, hidden_size=64, layers=2, heads=4, max_positions=256)
    language = new_language_model(processor.tokenizer, size, 0)
    model = E2LLMForConditionalGeneration.join(language, processor.tokenizer, "none", None, WIDTH, EEG_TOKENS, 0).eval()
    features = np.random.default_rng(0).normal(size=(20, 16, WIDTH)).astype(np.float32)
    return InferenceEngine(model, processor, features, {100 + i: i for i in range(20)})


def item(parts: list, options: list[str], kind: str = "predict", subject: str = "1") -> Item:
    """A question whose numbers are windows; its first option is right."""
    content = [{"type": "eeg", "window": p} if isinstance(p, int) else {"type": "text", "text": p} for p in parts]
    return Item(kind, 1, [{"role": "user", "content": content}], "", options[0], options, subject, "",
                [p for p in parts if isinstance(p, int)])


LONG = ["happy", "The segment shows sad and calm.", "resting counting"]
ITEMS = [item([103, " Which?"], LONG), item(["A: ", 119, " B: ", 101, " Which segment is more pleasant?"], ["A", "B"]),
         item(["A: ", 107, " B: ", 107, " C: ", 100, " more pleasant? sad"], LONG[::-1]),
         item([110], ["B", "A > B > C"]),
         item(["Which?"], ["sad", "calm", "moving"])]


@torch.no_grad()
def one_by_one(engine: InferenceEngine, item: Item, said: str | None = None) -> np.ndarray:
    """Log-probability of each option: the whole text is read for it alone, without cache or padding."""
    processor, scores = engine.processor, []
    prompt = processor.ids(processor.prompt(item.messages, thinking=said is not None) + (said or ""))
    eeg = torch.stack([torch.from_numpy(engine.features[engine.position[w]])
                       for w in item.windows]) if item.windows else None
    for option in item.options:
        ids = [*prompt, *processor.ids(option), processor.tokenizer.eos_token_id]
        logits = engine.model(input_ids=torch.tensor([ids]), eeg_features=eeg).logits[0].double()
        total = 0.0
        for t in range(len(prompt), len(ids)):
            total += float(logits[t - 1, ids[t]] - torch.logsumexp(logits[t - 1], 0))
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_option_scores_are_those_of_each_option_alone(engine, batch):
    for scores, asked in zip(score_options(engine, ITEMS, batch=batch), ITEMS, strict=True):
        expected = one_by_one(engine, asked)
        assert scores == pytest.approx(expected, abs=1e-4)
        assert np.ptp(expected) > 0.01


def test_option_scores_after_a_thought(engine):
    said = [f"{THINK}\n{thought}\n{END_THINK}\n\n" for thought in ("sad.", "The segment shows happy and calm, more.")]
    said += ["", "calm", "A"]
    for scores, asked, thought in zip(score_options(engine, ITEMS, said), ITEMS, said, strict=True):
        assert scores == pytest.approx(one_by_one(engine, asked, thought), abs=1e-4)
    one, other = (score_options(engine, ITEMS[:1], [thought])[0] for thought in ("sad", "calm"))
    assert np.abs(one - other).max() > 1e-3


def test_options_of_different_length_can_be_compared_per_token(engine):
    ids = engine.processor.ids
    for scores, asked in zip(score_options(engine, ITEMS, per_token=True), ITEMS, strict=True):
        assert scores == pytest.approx(one_by_one(engine, asked) / [len(ids(option)) + 1 for option in asked.options],
                                       abs=1e-4)


def test_option_scores_depend_on_the_eeg(engine):
    moved = replace(engine, position={**engine.position, 103: 15})
    assert np.abs(score_options(moved, ITEMS[:1])[0] - score_options(engine, ITEMS[:1])[0]).max() > 1e-3


def test_probabilities_are_normalized_over_the_options():
    scores = [np.array([-1000.0, -1001.0, -1003.0]), np.array([-2.0, -2.0, -2.0])]
    weights = np.exp([0.0, -1.0, -3.0])
    assert probabilities(scores)[0] == pytest.approx(weights / weights.sum())
    assert probabilities(scores)[1] == pytest.approx([1 / 3] * 3)


def test_texts_stand_in_the_order_of_the_items(engine):
    alone = [generate(engine, [asked], max_new_tokens=8)[0] for asked in ITEMS]
    assert generate(engine, ITEMS, max_new_tokens=8, batch=2) == alone
    assert len(set(alone)) > 1 and "<|im_end|>" not in "".join(alone)


def test_equal_questions_are_asked_once_and_answered_each(engine, monkeypatch):
    """Twice the items: the same texts and scores, and no more prompts read; another thought or option is another."""
    read, inputs = [], InferenceEngine.inputs
    monkeypatch.setattr(InferenceEngine, "inputs", lambda self, items, *args, **given: read.append(len(items)) or
                        inputs(self, items, *args, **given))

    def asked(call) -> tuple:
        read.clear()
        return call(), sum(read)

    one, n_one = asked(lambda: generate(engine, ITEMS, max_new_tokens=8))
    two, n_two = asked(lambda: generate(engine, ITEMS[::-1] + ITEMS, max_new_tokens=8))
    assert two == one[::-1] + one and n_two == n_one
    one, n_one = asked(lambda: score_options(engine, ITEMS))
    two, n_two = asked(lambda: score_options(engine, ITEMS + ITEMS))
    assert all(np.array_equal(a, b) for a, b in zip(two, one + one, strict=True)) and n_two == n_one
    thoughts = score_options(engine, ITEMS[:1] * 2, ["sad", "calm"])
    options = score_options(engine, [ITEMS[0], replace(ITEMS[0], options=LONG[::-1])])
    assert np.abs(thoughts[0] - thoughts[1]).max() > 1e-3 and not np.allclose(options[0], options[1])


def test_a_model_says_words_only_never_eeg(engine):
    """A placeholder in a thought would later be taken for another segment."""
    language = engine.model.language_model
    table, eeg = language.get_input_embeddings().weight, engine.model.config.eeg_token_id
    before = table[eeg].clone()
    inputs = engine.inputs(ITEMS[:1], thinking=True)
    with torch.no_grad():
        state = engine.model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        table[eeg] = 10 * state / state.norm()  # now the placeholder is the likeliest word of all
        try:
            assert int(engine.model(**inputs).logits[0, -1].argmax()) == eeg
            assert EEG_TOKEN not in generate(engine, ITEMS[:1], max_new_tokens=8)[0]
            assert answer(engine, ITEMS[:1]).chosen[0] in LONG
        finally:
            table[eeg] = before


SUBJECTS, PER_SUBJECT, LABELS = 4, 60, plain_labels("rest", ["counting", "moving", "resting"])
INDEX = pd.DataFrame({"subject": np.repeat([f"s{i}" for i in range(SUBJECTS)], PER_SUBJECT),
                      "label": np.tile(LABELS.labels, SUBJECTS * PER_SUBJECT // 3)})
N = len(INDEX)


def silent(features: np.ndarray | None = None) -> InferenceEngine:
    return InferenceEngine(None, None, features, {window: row for row, window in enumerate(range(10, N))})


def test_shuffling_keeps_within_the_person_and_is_seeded():
    plain = silent()
    mixed = shuffled(plain, INDEX, np.arange(10, N), 3)
    assert shuffled(plain, INDEX, np.arange(10, N), 3).position == mixed.position != shuffled(plain, INDEX,
                                                                                              np.arange(10, N),
                                                                                              4).position
    assert plain.position == silent().position  # the listener itself still hears what it heard
    assert set(mixed.position) == set(plain.position)
    assert sorted(mixed.position.values()) == sorted(plain.position.values())
    window_of = {row: window for window, row in plain.position.items()}
    predicted_evidence = {window: window_of[row] for window, row in mixed.position.items()}
    assert all(INDEX["subject"][window] == INDEX["subject"][other] for window, other in predicted_evidence.items())
    assert all(window != other for window, other in predicted_evidence.items())
    some = shuffled(plain, INDEX, np.array([12, 13, 70, 71]),
                    0).position  # windows outside the rows are neither heard nor asked about
    assert set(some) == {12, 13, 70, 71} and set(some.values()) == {plain.position[row] for row in some}


def test_without_eeg_leaves_the_words_and_no_window(engine):
    bare = without_eeg(ITEMS)
    for asked, left in zip(ITEMS, bare, strict=True):
        words = [part for part in asked.messages[0]["content"] if part["type"] == "text"]
        assert left.messages[0]["content"] == words
        assert (left.answer, left.options, left.subject) == (asked.answer, asked.options, asked.subject)
        assert E2LLMProcessor.windows(left.messages) == []
    inputs = engine.inputs(bare, thinking=True)
    assert "eeg_features" not in inputs and not (inputs["input_ids"] == engine.model.config.eeg_token_id).any()
    assert sum(len(E2LLMProcessor.windows(asked.messages)) for asked in ITEMS) == 7


class Perfect(torch.nn.Module):
    """Gives the label whose class index is the first feature of the segment; without EEG always the first label."""

    def __init__(self, processor: E2LLMProcessor, thought: str = f"{THINK}\nI hear it.\n{END_THINK}\n\n") -> None:
        super().__init__()
        self.ids, self.eos, self.size = processor.ids, processor.tokenizer.eos_token_id, len(processor.tokenizer)
        self.thought, self.device, self.head = thought, torch.device("cpu"), torch.nn.Identity()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def classes(self, input_ids: torch.Tensor, eeg_features: torch.Tensor | None) -> list[int]:
        return [0] * len(input_ids) if eeg_features is None else eeg_features[:, 0, 0].int().tolist()

    def generate(self, input_ids, attention_mask, eeg_features=None, **_: object) -> SimpleNamespace:
        said = [[*self.ids(self.thought + LABELS.labels[c]), self.eos] for c in self.classes(input_ids, eeg_features)]
        said = [row + [self.eos] * (max(map(len, said)) - len(row)) for row in said]
        return SimpleNamespace(sequences=torch.cat([input_ids, torch.tensor(said)], dim=1))

    def forward(self, input_ids, attention_mask, eeg_features=None, past_key_values=None, **_: object):
        cache = past_key_values or SimpleNamespace(classes=self.classes(input_ids, eeg_features))
        cache.batch_repeat_interleave = lambda n: setattr(cache, "classes",
                                                          [c for c in cache.classes for _ in range(n)])
        logits = torch.zeros(*input_ids.shape, self.size)
        for row, c in enumerate(cache.classes):
            words = [*self.ids(LABELS.labels[c]), self.eos]
            if past_key_values is None:
                logits[row, -1, words[0]] = 20.0
            for t, word in enumerate(words[1 : 1 + input_ids.shape[1]] if past_key_values else []):
                logits[row, t, word] = 20.0
        return SimpleNamespace(logits=self.head(logits), past_key_values=cache)


@pytest.fixture
def perfect(processor) -> tuple[InferenceEngine, list[Item]]:
    features = np.zeros((N, 16, WIDTH), dtype=np.float32)
    features[:, 0, 0] = [LABELS.index(label) for label in INDEX["label"]]
    rng = np.random.default_rng(0)
    segments = [Segment(i, label, float("nan"), (), who)
                for i, (who, label) in enumerate(zip(INDEX["subject"], INDEX["label"], strict=True))]
    items = [predict(segment, LABELS, rng) for segment in segments]
    return InferenceEngine(Perfect(processor), processor, features, {i: i for i in range(N)}), items


def scored(engine: InferenceEngine, items: list[Item]) -> tuple[Score, Answers]:
    given = answer(engine, items)
    right = np.array([chosen == item.answer for chosen, item in zip(given.chosen, items, strict=True)])
    chance = np.array([1 / len(item.options) for item in items])
    return accuracy(right, chance, np.array([item.subject for item in items])), given


def test_a_perfect_model_is_right_and_its_controls_guess(perfect):
    engine, items = perfect
    score, given = scored(engine, items)
    assert (score.value, score.chance, score.n) == (1.0, pytest.approx(1 / 3), N) and score.above_chance
    assert given.parsed == given.chosen == INDEX["label"].tolist() and given.parse_rate == 1.0
    assert given.texts[1] == f"{THINK}\nI hear it.\n{END_THINK}\n\n{INDEX['label'][1]}"

    mixed, _ = scored(shuffled(engine, INDEX, np.arange(N), 0), items)
    assert abs(mixed.value - 1 / 3) < 0.1  # 240 answers: standard error 0.03
    blind, _ = scored(engine, without_eeg(items))
    assert blind.value == pytest.approx(1 / 3) and blind.contains_chance and not blind.above_chance


def test_answers_that_cannot_be_read_are_reported_and_a_choice_is_made_all_the_same(perfect):
    engine, items = perfect
    engine.model.thought = "well, "
    score, given = scored(engine, items)
    assert given.parse_rate == 0.0 and given.parsed == [None] * N
    assert score.value == 1.0


def test_descriptions_are_chosen_without_a_thought(engine):
    asked = [replace(question, kind="describe") for question in (ITEMS[0], ITEMS[2])]
    given = answer(engine, asked)
    for question, chosen in zip(asked, given.chosen, strict=True):
        lengths = [len(engine.processor.ids(option)) + 1 for option in question.options]
        assert chosen == question.options[int(np.argmax(one_by_one(engine, question) / lengths))]
    assert given.texts == ["", ""]


def test_the_mean_token_says_the_same_whatever_the_window(engine):
    without_eeg = with_mean_token(engine, [100, 105, 110])
    one, two = (score_options(without_eeg, [item([window, " Which?"], LONG)])[0] for window in (103, 119))
    np.testing.assert_array_equal(one, two)
    wanted = replace(engine, features=np.repeat(engine.features[[0, 5, 10]].mean(axis=0, keepdims=True), 20, axis=0))
    np.testing.assert_allclose(one, score_options(wanted, [item([103, " Which?"], LONG)])[0], rtol=1e-5)


def test_a_random_projector_predicts_something_else_and_leaves_the_model_unchanged(engine):
    before = {name: value.clone() for name, value in engine.model.state_dict().items()}
    other = with_random_projector(engine, 1)
    assert all(torch.equal(value, before[name]) for name, value in engine.model.state_dict().items())
    changed = {name for name, value in other.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("projector.") for name in changed)
    for layer in ("fc1", "fc2"):
        mine, theirs = (getattr(model.projector, layer).weight.detach().std() for model in (other.model, engine.model))
        assert float(mine) == pytest.approx(float(theirs), rel=1e-4)
    question = [item([103, " Which?"], LONG)]
    assert not np.allclose(score_options(other, question)[0], score_options(engine, question)[0])
    np.testing.assert_array_equal(score_options(other, question)[0],
                                  score_options(with_random_projector(engine, 1), question)[0])


@pytest.fixture(scope="module")
def with_evidence(processor, engine) -> InferenceEngine:
    """The same model with evidence tokens; the predicted evidence of these windows is large."""
    weight = torch.cat([2 * torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1)), torch.zeros(3, WIDTH)],
                       dim=1)
    evidence_probe = EvidenceProbe(["occipital alpha", "frontal theta", "artefact level"], weight, torch.zeros(3))
    language = engine.model.language_model
    model = E2LLMForConditionalGeneration.join(language, processor.tokenizer, "none", None, WIDTH, EEG_TOKENS, 0,
                                               evidence_probe, 2).eval()
    assert 0.2 < (np.abs(evidence_probe(engine.features)) > 2).mean() < 0.8
    return InferenceEngine(model, E2LLMProcessor(processor.tokenizer, EEG_TOKENS, 2), engine.features, engine.position)


def test_similarity_of_labels_is_that_of_state_tokens_and_words(engine, with_evidence):
    rows = {"sad": [100, 101, 102], "happy": [103, 104], "calm": [110, 111, 119]}
    found, words = label_similarity(engine, rows), engine.model.get_input_embeddings().weight.detach().double().numpy()
    with torch.no_grad():
        tokens = {window: engine.model.projector(torch.from_numpy(engine.features[[window - 100]])).double().numpy()
                  for windows in rows.values() for window in windows}
    eeg = np.stack([np.mean([tokens[window].mean(axis=(0, 1)) for window in windows], axis=0)
                    for windows in rows.values()])
    text = np.stack([words[engine.processor.ids(f" {label}")].mean(axis=0) for label in rows])
    eeg, text = eeg - eeg.mean(axis=0), text - text.mean(axis=0)
    expected = [[one @ other / np.linalg.norm(one) / np.linalg.norm(other) for other in text] for one in eeg]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(label_similarity(with_evidence, rows), expected, atol=1e-5)  # without evidence tokens


def test_options_are_scored_behind_evidence_too(with_evidence):
    questions = [item([103, " Which?"], LONG), item(["A: ", 107, " B: ", 118, " Which?"], ["A", "B"], "compare"),
                 item([" calm?"], LONG)]
    for scores, question in zip(score_options(with_evidence, questions), questions, strict=True):
        np.testing.assert_allclose(scores, one_by_one(with_evidence, question), atol=1e-4)


def test_a_random_projector_has_a_random_probe_too(with_evidence):
    other = with_random_projector(with_evidence, 1)
    assert not torch.equal(other.model.projector.evidence.weight, with_evidence.model.projector.evidence.weight)
    assert torch.equal(other.model.projector.evidence.first, with_evidence.model.projector.evidence.first)


@pytest.mark.parametrize("kind", [{"do_sample": False}, {"do_sample": True, "top_k": 1, "num_return_sequences": 2}],
                         ids=["greedy", "two_samples"])
def test_texts_that_have_ended_leave_the_batch_and_the_others_are_as_if_written_together(engine, monkeypatch, kind):
    """Against one call of transformers for the whole batch; an end of turn that comes at different places."""
    items, longest = ITEMS[:3], 24
    end = engine.model.generate(**engine.inputs(items, True), max_new_tokens=longest, do_sample=False,
                                pad_token_id=0)[:, -longest:]
    words = copy.copy(engine.processor.tokenizer)
    words.eos_token = words.convert_ids_to_tokens(int(end[1, 5]))
    monkeypatch.setattr(engine.processor, "tokenizer", words)
    monkeypatch.setattr(inference, "_PIECE", 4)
    n, decoding = kind.get("num_return_sequences", 1), {key: kind[key] for key in kind if key != "num_return_sequences"}
    sizes, own = [], engine.model.generate
    monkeypatch.setattr(engine.model, "generate", lambda **given: sizes.append(len(given["input_ids"])) or own(**given))
    texts = inference._generate(engine, items, n, True, longest, 3, **decoding)
    pieces = sizes.copy()
    monkeypatch.setattr(inference, "_PIECE", longest)
    monkeypatch.setattr(text_cache, "text_cache", lambda _model: None)  # that of transformers
    assert texts == inference._generate(engine, items, n, True, longest, 3, **decoding)
    assert len({len(text) for found in texts for text in found}) > 1 and pieces[-1] < n * len(items)


WRITTEN = [f"{THINK}\nsad and calm.\n{END_THINK}\n\nhappy", f"{THINK}\nhappy.\n{END_THINK}\n\nA",
           f"{THINK}\nThe segment shows sad and calm.\n{END_THINK}\n\nresting counting",
           f"{THINK}\ncalm", f"{THINK}\nmoving\n{END_THINK}\n\ncalm"]


@pytest.fixture
def writes(engine, monkeypatch):
    """The model writes :data:`WRITTEN`, an item each; what it keeps of prompts and texts is its own."""
    dictate(monkeypatch, engine.processor, ITEMS, WRITTEN)
    return engine


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_options_behind_a_thought_just_written_score_as_if_all_was_read_again(writes, batch):
    """Against options that are read one by one; the fourth text has no end of thought, and is read again."""
    again = replace(ITEMS[1], options=["sad", "B", "A"])  # the same question with other options
    asked = [*ITEMS, again]
    texts, scores = think_and_score(writes, asked, batch)
    assert texts == [*WRITTEN, WRITTEN[1]] == generate(writes, asked)
    for own, item, text in zip(scores, asked, texts, strict=True):
        assert own == pytest.approx(one_by_one(writes, item, closed_thought(text)), abs=1e-4)
    assert np.abs(scores[1][::-1][:1] - scores[1][:1]) > 1e-3


def test_prompts_are_read_once_for_text_and_options(writes, monkeypatch):
    read = []
    with writes.model.register_forward_pre_hook(lambda _, args, given: read.append(given), with_kwargs=True):
        think_and_score(writes, ITEMS[:3])
    assert sum(given.get("eeg_features") is not None for given in read) == 1


def test_equal_items_are_written_and_scored_once(writes):
    """Without EEG hundreds of items hold a handful of questions."""
    def rows(asked):
        read = []
        with writes.model.register_forward_pre_hook(
                lambda _, args, given: read.append(len(given["input_ids"])), with_kwargs=True):
            found = think_and_score(writes, asked)
        return sum(read), found

    one, (texts, scores) = rows(ITEMS)
    two, (twice, both) = rows([*ITEMS, *ITEMS[::-1]])
    assert two == one and twice == [*texts, *texts[::-1]]
    for own, wanted in zip(both, [*scores, *scores[::-1]], strict=True):
        np.testing.assert_array_equal(own, wanted)


def test_a_text_that_is_cut_off_behind_its_thought_is_scored_behind_it(engine, monkeypatch):
    """It has no end of turn; what was written of its answer is not seen."""
    endless = [f"{WRITTEN[0]}{' resting counting' * 9}", WRITTEN[1]]
    dictate(monkeypatch, engine.processor, ITEMS[:2], endless)
    monkeypatch.setattr(inference, "longest_text", lambda _processor: len(engine.processor.ids(WRITTEN[0])) + 3)
    texts, scores = think_and_score(engine, ITEMS[:2])
    assert texts[0].startswith(WRITTEN[0]) and len(texts[0]) < len(endless[0])
    for own, item, text in zip(scores, ITEMS[:2], texts, strict=True):
        assert own == pytest.approx(one_by_one(engine, item, closed_thought(text)), abs=1e-4)


def test_a_model_that_was_told_to_keep_no_cache_writes_the_same(engine, monkeypatch):
    """As a configuration may say; it holds for training, and a text would be read anew for each of its tokens."""
    wanted = generate(engine, ITEMS, max_new_tokens=20)
    monkeypatch.setattr(engine.model.generation_config, "use_cache", False)
    assert generate(engine, ITEMS, max_new_tokens=20) == wanted
