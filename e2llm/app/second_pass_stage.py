"""The stage ``second_pass``: the adapter that answers from stated levels alone, trained, kept and opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from itertools import cycle

import numpy as np
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.bands import BANDS
from ..core.chat import END_THINK
from ..core.claims import Claim, Claims, EvidenceNames, Scale
from ..core.labels import LabelSet
from ..core.montage import REGIONS
from ..data.dataset import Corpus
from ..evaluation.from_thought import SecondPass
from ..evaluation.reasoning import thought_of
from ..models.adapting import adapted
from ..models.inference import InferenceEngine
from ..models.processing import E2LLMProcessor
from ..tasks.items import question_text, write_items
from ..tasks.second_pass import Asked, level_item
from ..tasks.thought_parser import parse
from ..training.second_pass import SecondPassParams, entailed_answers, second_pass_items, train_second_pass
from ..training.stage3_instruction import quiet_peft
from ..training.trainer import FitParams
from .runs import Progress, Run, Stage
from .stages import DEFAULTS, open_instructed, open_language

_NO_WINDOWS: tuple[np.ndarray, dict] = np.empty((0, 1, 1), np.float32), {}


def instruct_second_pass(run: Run, corpus: Corpus, adapter: SecondPassParams | None = None,
                         params: FitParams | None = None) -> Stage:
    """Train answers from the thought alone.

    Parameters
    ----------
    run : Run
        With a finished stage 2. The language model is taken as it was before stage 3.
    corpus : Corpus
        Its dataset, with the evidence that the encoder predicts.
    adapter : SecondPassParams, optional
        LoRA, and how claims are changed in training.
    params : FitParams, optional
        Schedule.
    """
    adapter = adapter or SecondPassParams(DEFAULTS.lora_rank, 2 * DEFAULTS.lora_rank)
    params = params or FitParams(DEFAULTS.second_pass_steps, DEFAULTS.second_pass_batch, DEFAULTS.second_pass_lr,
                                 seed=DEFAULTS.seed, save_steps=DEFAULTS.save_steps)
    stage = run.stage("second_pass", {"adapter": asdict(adapter), "fit": asdict(params)}, needs=("projector",))
    if stage.done:
        return stage
    stage.begin()
    rules = entailed_answers(corpus, adapter.noise, params.seed)
    items, shares = second_pass_items(corpus, rules, adapter, params.n_batches * params.batch_size, params.seed)
    write_items(items, stage.path / "items.jsonl")
    language_model, tokenizer, _ = open_language(run)
    with Progress(run, params.steps, "second pass") as progress:
        peft, history = train_second_pass(language_model, E2LLMProcessor(tokenizer), items, shares, adapter, params,
                                          stage.path / "checkpoints", progress.update)
    peft.save_pretrained(stage.path / "lora", save_embedding_layers=False)
    history.to_csv(stage.path / "history.csv", index=False)
    stage.finish({"final_loss": float(history["loss"].iloc[-1])}, asked=[str(asked) for asked in rules.asked])
    return stage


def open_second_pass(run: Run, corpus: Corpus, speaker: InferenceEngine | None = None) -> SecondPass:
    """The trained second pass of a run, with its adapter.

    Parameters
    ----------
    run : Run
        With the stages ``second_pass`` and ``adapter`` finished.
    corpus : Corpus
        Its dataset.
    speaker : InferenceEngine, optional
        The model after stage 3, if it is open already.
    """
    record = run.require("second_pass")
    language_model, tokenizer, _ = open_language(run)
    with quiet_peft():
        peft = PeftModel.from_pretrained(language_model, str(run.path / "second_pass" / "lora"),
                                         torch_device=str(language_model.device))
    engine = text_engine(adapted(peft), tokenizer)
    speaker = speaker or InferenceEngine(*open_instructed(run), *_NO_WINDOWS)
    return SecondPass(engine, speaker, corpus.evidence_names, corpus.label_set,
                      str(Asked.INTENSITY) in record["facts"]["asked"])


def text_engine(language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> InferenceEngine:
    """Inference with a language model that sees no EEG.

    Parameters
    ----------
    language_model : PreTrainedModel
        Any, with its adapter.
    tokenizer : PreTrainedTokenizerBase
        Its tokenizer.
    """
    return InferenceEngine(language_model, E2LLMProcessor(tokenizer), *_NO_WINDOWS)


def taught_questions(asked: Iterable[Asked], scale: Scale, label_set: LabelSet) -> dict:
    """What a second pass was taught to read, written out: levels with their thresholds, and questions with answers.

    An export states it, so that no other version of the kit asks its second pass in other words.

    Parameters
    ----------
    asked : iterable of Asked
        What it reads.
    scale : Scale
        Of the claims.
    label_set : LabelSet
        Its labels.

    Returns
    -------
    dict
        ``levels``, ``thresholds``, and ``questions``: what is read to its ``text``, with every level in turn, and its
        ``options``.
    """
    names = EvidenceNames(tuple((band, region) for region in REGIONS for band in BANDS), scale)
    claims = [Claim(column, level) for column, level in zip(names.columns, cycle(scale.words), strict=False)]
    items = {str(one): level_item(one, claims, names, label_set) for one in asked}
    return {"levels": list(scale.words), "thresholds": list(scale.thresholds),
            "questions": {name: {"text": question_text(item), "options": item.options}
                          for name, item in items.items()}}


def claims_of(corpus: Corpus, windows: list[int], texts: list[str]) -> dict[int, Claims]:
    """What the first pass states of windows: the claims that the grammar reads in its thoughts, and nothing else.

    Parameters
    ----------
    corpus : Corpus
        Gives labels and scale.
    windows : list of int
        Rows.
    texts : list of str
        What the model wrote about each.
    """
    labels, scale = corpus.label_set.labels, corpus.evidence_names.scale
    return {window: parse(thought_of(text), labels, scale, cut_off=END_THINK not in text).claims
            for window, text in zip(windows, texts, strict=True)}
