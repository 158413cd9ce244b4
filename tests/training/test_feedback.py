"""Only chains that the checker finds true are trained on; a round that was cut off goes on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from e2llm.app import reasoning_stage, runs
from e2llm.app.reasoning_stage import reinforce
from e2llm.app.runs import Run
from e2llm.core.bands import BANDS
from e2llm.core.chat import EEG_TOKEN, END_THINK, THINK, Item
from e2llm.core.claims import EvidenceNames
from e2llm.core.labels import SEED_VII
from e2llm.core.montage import REGIONS
from e2llm.data.dataset import Corpus
from e2llm.models.inference import InferenceEngine, generate, sample
from e2llm.models.language import ScratchParams, make_tokenizer, new_language_model
from e2llm.models.modeling import E2LLMForConditionalGeneration
from e2llm.models.processing import E2LLMProcessor
from e2llm.tasks.items import prediction_items, read_items, write_items
from e2llm.training import stage3_instruction
from e2llm.training.feedback import FeedbackParams, judged, kept_items
from e2llm.training.stage3_instruction import LORA_TARGETS, quiet_peft
from e2llm.training.trainer import FitParams

NAMES = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS))
LABELS, WIDTH, EEG_TOKENS = SEED_VII.labels, 24, 2
TEXTS = ["Which segment is more pleasant? A: B: C: Occipital alpha low.",
         "The segment shows sad and calm. That fits fear. happy anger"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def chain(thought: str, answer: str) -> str:
    return f"{THINK}\n{thought}\n{END_THINK}\n\n{answer}"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Windows 0 to 5 of fear, train, and 6 and 7: occipital alpha low, frontal theta high, everything else typical."""
    z = np.zeros((8, len(NAMES.columns)))
    z[:, NAMES.columns.index("occipital alpha")], z[:, NAMES.columns.index("frontal theta")] = -2.5, 2.25
    subjects = np.array(["a", "a", "b", "b", "a", "b", "c", "c"], dtype=object)
    index = pd.DataFrame({"subject": subjects, "label": "fear", "intensity": 0.5, "clip": 0})
    split = SimpleNamespace(train=np.arange(6), test=np.array([6, 7]))
    labels = np.full(8, LABELS.index("fear"))
    return Corpus(SimpleNamespace(index=index), SEED_VII, split, None, z, NAMES, None, labels, subjects, subjects, None,
                  None)


@pytest.fixture(scope="module")
def items(corpus) -> list[Item]:
    return prediction_items(corpus, corpus.split.train, 0)


BOTH = chain("Occipital alpha low, frontal theta high. That fits fear.", "fear")
REWORDED = chain("Frontal theta is raised. Low occipital alpha.", "fear")
ONE = chain("Occipital alpha low. That fits fear.", "fear")


# --- what is kept


@pytest.mark.parametrize(("text", "kept", "claims", "true", "right"), [
    (BOTH, True, 2, 2, True), (ONE, True, 1, 1, True), (chain("Parietal beta typical.", "Fear."), True, 1, 1, True),
    (chain("Occipital alpha high. That fits fear.", "fear"), False, 1, 0, True),
    (chain("Occipital alpha low, frontal theta low.", "fear"), False, 2, 1, True),
    (chain("Occipital alpha low.", "sad"), False, 1, 1, False),
    (chain("Occipital alpha low.", "I think it is fear"), False, 1, 1, False),
    (chain("Occipital alpha low. The moon may be full. That fits fear.", "fear"), False, 1, 1, True),
    (chain("That fits fear.", "fear"), False, 0, 0, True), (chain("No band stands out.", "fear"), False, 0, 0, True),
    (chain("", "fear"), False, 0, 0, True), ("fear", False, 0, 0, True), ("", False, 0, 0, False),
    (f"{THINK}\nOccipital alpha low.", False, 1, 1, False),  # cut off before an answer
    (chain("Occipital alpha low. That fits sad.", "fear"), False, 1, 1, True),  # the answer does not follow
    (chain("Occipital alpha low. That fits fear. That fits sad.", "fear"), False, 1, 1, True),
    (chain("Occipital alpha low. No band stands out.", "fear"), False, 1, 1, True),
    (chain("Occipital alpha low, occipital alpha high.", "fear"), False, 2, 1, True)])
def test_a_chain_is_kept_if_all_of_it_is_true(corpus, items, text, kept, claims, true, right):
    (row,) = judged(corpus, items[:1], [[text]]).to_dict("records")
    assert row == {"item": 0, "said": text, "times": 1, "answer_true": right, "claims": claims, "true_claims": true,
                   "kept": kept}


def test_nothing_asked_is_nothing_kept(corpus):
    table = judged(corpus, [], [])
    assert table.empty and table["kept"].dtype == bool and kept_items([], table) == []


def test_the_fullest_truths_of_an_item_stay_each_wording_once(corpus, items):
    false = chain("Occipital alpha low, frontal theta high, central beta high.", "fear")
    chains = [[ONE, BOTH, false, ONE, REWORDED, BOTH, BOTH], [ONE, false, ONE, ONE, ONE, ONE, ONE], [false] * 7]
    table = judged(corpus, items[:3], chains)
    assert table["times"].tolist() == [2, 3, 1, 1, 6, 1, 7] and table["times"].sum() == 21
    assert table.loc[table["kept"], ["item", "said"]].to_numpy().tolist() == [[0, BOTH], [0, REWORDED],
                                                                              [1, ONE]]  # item by item
    assert table["item"].tolist() == [0, 0, 0, 0, 1, 1, 2]


def test_each_window_is_held_against_its_own_evidence(corpus):
    turned = Corpus(**vars(corpus) | {"z": np.where(np.arange(8)[:, None] == 3, -corpus.z, corpus.z)})
    items = prediction_items(turned, np.array([2, 3]), 0)
    assert judged(turned, items, [[BOTH], [BOTH]])["kept"].tolist() == [True, False]


def test_a_longer_false_chain_does_not_raise_the_bar(corpus, items):
    """Three true claims in a chain with a false one are no measure for those that are kept."""
    long = chain("Occipital alpha low, frontal theta high, central beta typical, parietal beta low.", "fear")
    wrong = chain("Occipital alpha low, frontal theta high, central beta typical.", "sad")
    table = judged(corpus, items[:1], [[long, wrong, ONE]])
    assert table["true_claims"].tolist() == [3, 3, 1] and table["kept"].tolist() == [False, False, True]


def test_kept_items_hold_thoughts_without_thinking_tokens(corpus, items):
    kept = kept_items(items[:3], judged(corpus, items[:3], [[chain("Occipital alpha high.", "fear")], [BOTH, REWORDED],
                                                            [ONE]]))
    assert [item.thought for item in kept] == ["Occipital alpha low, frontal theta high. That fits fear.",
                                               "Frontal theta is raised. Low occipital alpha.",
                                               "Occipital alpha low. That fits fear."]
    assert [replace(item, thought="") for item in kept] == [replace(items[i], thought="") for i in (1, 1, 2)]
    assert kept[0].response(True) == BOTH and items[1].thought != kept[0].thought
    assert kept_items(items[:1], judged(corpus, items[:1], [[""]])) == []


# --- sampling


@pytest.fixture(scope="module")
def processor() -> E2LLMProcessor:
    return E2LLMProcessor(make_tokenizer(TEXTS, 320), EEG_TOKENS)


def joined(processor: E2LLMProcessor) -> E2LLMForConditionalGeneration:
    language = new_language_model(processor.tokenizer, ScratchParams(320, hidden_size=64, layers=2, heads=4,
                                                                     max_positions=256), 0)
    return E2LLMForConditionalGeneration.join(language, processor.tokenizer, "none", None, WIDTH, EEG_TOKENS, 0).eval()


TOKENS = np.random.default_rng(0).normal(size=(8, 16, WIDTH)).astype(np.float32)
PLACE = {i: i for i in range(8)}


@pytest.fixture(scope="module")
def engine(processor) -> InferenceEngine:
    return InferenceEngine(joined(processor), processor, TOKENS, PLACE)


def asked(*parts: int | str) -> Item:
    content = [{"type": "eeg", "window": part} if isinstance(part, int) else {"type": "text", "text": part}
               for part in parts]
    return Item("predict", 1, [{"role": "user", "content": content}], "", "A", ["A", "B"], "1", "",
                [p for p in parts if isinstance(p, int)])


QUESTIONS = [asked("A: ", 1, " B: ", 6, " Which segment is more pleasant?"), asked(3, " Which?"),
             asked("A: ", 7, " B: ", 7, " C: ", 0, " sad"),
             asked("happy and calm"), asked(5, " That fits"),
             asked("A: ", 6, " B: ", 1, " Which segment is more pleasant?")]


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_cold_samples_are_the_greedy_text_of_their_own_item(engine, batch):
    greedy = generate(engine, QUESTIONS, max_new_tokens=8)
    assert len(set(greedy)) > 3
    found = sample(engine, QUESTIONS, 3, 1e-6, 0, max_new_tokens=8, batch=batch)
    assert found == [[text] * 3 for text in greedy]


def test_samples_are_seeded_and_differ(engine):
    first, again, other = (sample(engine, QUESTIONS, 4, 1.0, seed, max_new_tokens=6) for seed in (0, 0, 1))
    assert first == again != other and [len(texts) for texts in first] == [4] * len(QUESTIONS)
    assert all(len(set(texts)) > 1 for texts in first)
    assert EEG_TOKEN not in "".join(map("".join, first)) and "<|im_end|>" not in "".join(map("".join, first))


def test_samples_follow_the_models_own_distribution(engine):
    """The first word is drawn as often as the model gives it probability, all of the vocabulary included."""
    question, n = QUESTIONS[1], 600
    with torch.no_grad():
        logits = engine.model(**engine.inputs([question], True)).logits[0, -1].double()
    logits[engine.model.config.eeg_token_id] = -torch.inf
    tokenizer = engine.processor.tokenizer
    wanted: dict[str, float] = {}
    for token, share in enumerate(logits.softmax(0).tolist()):
        text = "" if token == tokenizer.eos_token_id else tokenizer.decode([token], skip_special_tokens=False)
        wanted[text] = wanted.get(text, 0.0) + share
    drawn = sample(engine, [question], n, 1.0, 3, max_new_tokens=1)[0]
    assert set(drawn) <= set(wanted)
    for text in sorted(wanted, key=wanted.get)[-5:]:
        assert drawn.count(text) / n == pytest.approx(wanted[text], abs=4 * np.sqrt(wanted[text] / n))
    rare = {text for text, share in wanted.items() if share < np.median(list(wanted.values()))}
    assert np.mean([text in rare for text in drawn]) == pytest.approx(sum(wanted[text] for text in rare), abs=0.08)


# --- a round


class Cut(Exception):
    """Training was cut off."""


FIT = FitParams(steps=4, batch_size=2, lr=1e-2, seed=1, save_steps=2)
STORED = {"rank": 2, "alpha": 4, "dropout": 0.05, "projector_lr": 1e-3, "noise": 0.5}


@pytest.fixture
def make_run(tmp_path, monkeypatch, processor, corpus, items):
    """Runs with a finished stage 3; what is sampled is given."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "e2llm"\n')
    monkeypatch.delenv("E2LLM_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reasoning_stage, "open_aligned", lambda run: (joined(processor), processor))
    monkeypatch.setattr(reasoning_stage, "open_engine", lambda run: InferenceEngine(None, processor, TOKENS, PLACE))
    monkeypatch.setattr(reasoning_stage, "load_tokens", lambda run: (TOKENS, PLACE))

    def make(name: str, said: list[str], stored: dict | None = None) -> Run:
        run = Run.open(name)
        stage = run.stage("adapter", {"adapter": stored or STORED}).begin()
        torch.manual_seed(0)
        config = LoraConfig(r=2, lora_alpha=4, target_modules=LORA_TARGETS, modules_to_save=["projector"])
        with quiet_peft():
            peft = get_peft_model(joined(processor), config)
        for weight_name, weight in peft.named_parameters():
            if "lora_B" in weight_name:
                torch.nn.init.normal_(weight, std=0.02)
        peft.save_pretrained(stage.path / "lora")
        write_items(items, stage.path / "items.jsonl")
        stage.finish()
        monkeypatch.setattr(reasoning_stage, "sample", lambda engine, asked, n, temperature,
                            seed: [said * n for _ in asked])
        return run

    return make


def adapter_of(run: Run, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run.path / stage / "lora" / "adapter_model.safetensors")


def equal(one: dict, other: dict) -> bool:
    return set(one) == set(other) and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_round_keeps_trains_on_and_is_not_made_again(make_run, corpus, processor, monkeypatch):
    false = chain("Occipital alpha high, frontal theta high.", "sad")
    run = make_run("tiny", [BOTH, false, ONE])
    stage = reinforce(run, corpus, FeedbackParams(samples=2, replay=3), FIT)
    assert stage.done and stage.metrics == {"sampled": 36, "answers_true": pytest.approx(2 / 3),
                                            "claims_true": pytest.approx(4 / 5), "kept": 6,
                                            "windows_kept": 6, "windows": 6}
    kept = read_items(stage.path / "items.jsonl")
    assert {item.response(True) for item in kept} == {BOTH} and sorted(item.windows[0] for item in kept) == [0, 1, 2, 3,
                                                                                                             4, 5]
    before, after = adapter_of(run, "adapter"), adapter_of(run, "feedback")
    assert set(before) == set(after) and not equal(before, after)
    assert pd.read_csv(stage.path / "history.csv")["loss"].notna().all() and not (stage.path / "checkpoints").exists()
    with quiet_peft():
        PeftModel.from_pretrained(joined(processor), str(stage.path / "lora"))

    def refuse(*_, **__):
        raise AssertionError("the round was made again")

    monkeypatch.setattr(reasoning_stage, "sample", refuse)
    assert reinforce(run, corpus, FeedbackParams(samples=2, replay=3), FIT).metrics == stage.metrics
    with pytest.raises(AssertionError, match="made again"):
        reinforce(run, corpus, FeedbackParams(samples=3, replay=3), FIT)


def test_training_goes_on_from_the_adapter_of_stage_3(make_run, corpus):
    run = make_run("still", [BOTH], STORED | {"projector_lr": 0.0})
    reinforce(run, corpus, FeedbackParams(samples=1, replay=2), replace(FIT, lr=0.0))
    assert equal(adapter_of(run, "adapter"), adapter_of(run, "feedback"))


def test_old_items_are_trained_on_too(make_run, corpus, monkeypatch):
    seen, fit_adapter = [], stage3_instruction.fit_adapter

    def counted(peft, processor, examples, *args, **kwargs):
        seen.append(len(examples))
        return fit_adapter(peft, processor, examples, *args, **kwargs)

    monkeypatch.setattr(reasoning_stage, "fit_adapter", counted)
    for replay, name in ((0, "none"), (4, "some"), (2000, "all")):
        reinforce(make_run(name, [BOTH, REWORDED]), corpus, FeedbackParams(samples=1, replay=replay),
                  replace(FIT, steps=1))
    assert seen == [12, 16, 18]


def test_a_round_cut_off_ends_as_if_it_had_not_been(make_run, corpus, monkeypatch):
    params = FeedbackParams(samples=1, replay=3)
    reinforce(make_run("whole", [BOTH]), corpus, params, FIT)
    run, steps, update = make_run("cut", [BOTH]), [], runs.Progress.update

    def cutting(progress, step: int, **facts: object) -> None:
        steps.append(step)
        if steps == [1, 2, 3]:
            raise Cut
        update(progress, step, **facts)

    monkeypatch.setattr(runs.Progress, "update", cutting)
    with pytest.raises(Cut):
        reinforce(run, corpus, params, FIT)
    assert run.finished("feedback") is None and not (run.path / "progress.json").exists()
    assert reinforce(run, corpus, params, FIT).done and steps == [1, 2, 3, 3, 4]
    assert equal(adapter_of(run, "feedback"), adapter_of(Run.open("whole"), "feedback"))


def test_a_round_that_keeps_nothing_says_so_and_leaves_no_stage(make_run, corpus):
    run = make_run("tiny", [chain("Occipital alpha high.", "fear"), chain("Occipital alpha low.", "sad")])
    with pytest.raises(ValueError, match=r"None of 12 sampled chains is true .* train stage 3 longer"):
        reinforce(run, corpus, FeedbackParams(samples=1), FIT)
    assert run.finished("feedback") is None


def test_held_out_windows_are_never_asked_about(make_run, corpus, monkeypatch):
    run, asked_about = make_run("tiny", [BOTH]), []

    def spying(engine, items, n, temperature, seed):
        asked_about.extend(item.windows[0] for item in items)
        return [[BOTH] * n for _ in items]

    monkeypatch.setattr(reasoning_stage, "sample", spying)
    stage = reinforce(run, corpus, FeedbackParams(samples=1), replace(FIT, steps=1))
    assert asked_about == corpus.split.train.tolist()
    assert {item.windows[0] for item in read_items(stage.path / "items.jsonl")} <= set(corpus.split.train)
