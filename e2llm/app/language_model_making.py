"""``e2llm make-language-model``: the packaged language model, made again from its recipe."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm
from transformers import AutoTokenizer

from .. import __version__
from ..core.files import checksum, read_mapping
from ..evaluation.in_words import scores_in_words
from ..models.catalogue import CARD, CATALOGUE, require
from ..models.device import current_device
from ..models.language import load_language_model
from ..tasks import corpus_statistics, scenarios
from ..training.level_lesson import LevelRecipe, level_examples, own_parts, readers_of, teach_levels
from ..training.tiny_language_model import (
    Lesson,
    TinyRecipe,
    Words,
    lesson,
    teach,
    texts_and_words,
    token_meanings,
    words_of_tasks,
)
from ..training.trainer import FitParams
from ..training.word_meanings import SentenceEncoder

STEPS, BATCH, LR, SAVE_STEPS = 1300, 64, 4.0e-3, 200  # of the packaged model
LEVEL_STEPS, LEVEL_LR = 2000, 2.5e-3  # of a second lesson
_LICENCE = "LICENSE-APACHE-2.0.txt"
_NOTICE = """e2llm-tiny was made by e2llm (MIT licence) from text that is part of e2llm.

The embeddings of its words are a linear map of word meanings computed with all-MiniLM-L6-v2, and part of its texts was
labelled with it. all-MiniLM-L6-v2 is by the authors of sentence-transformers, after MiniLM-L6-H384-uncased by
N. Reimers and MiniLM by Microsoft; Apache License, version 2.0, see LICENSE-APACHE-2.0.txt. It was changed: what is
kept of it here are word vectors of fewer dimensions.

Which English words are in the vocabulary was decided with the word frequencies of symspellpy (MIT licence, mmb L and
Wolf Garbe).
"""


def make_language_model(out: Path, seed: int = 0, steps: int = STEPS, recipe: TinyRecipe | None = None,
                        held_out: frozenset[str] = frozenset()) -> Path:
    """Make the small language model; a second call with the same arguments goes on where the first was cut off.

    Parameters
    ----------
    out : Path
        Folder to make; what is needed to go on lies beside it until the end.
    seed : int
        Of everything drawn.
    steps : int
        Optimizer steps.
    recipe : TinyRecipe, optional
        Sizes; default those of the packaged model.
    held_out : frozenset of str
        Identities of situations that are left out, for development.

    Returns
    -------
    Path
        The folder: a Qwen3 in float16 with tokenizer, card, notice and licence.

    Raises
    ------
    FileExistsError
        If ``out`` is there already.
    FetchError
        If the sentence encoder or the list of words has not been fetched.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: give another folder, or remove it.")
    recipe = recipe or TinyRecipe()
    params = FitParams(steps, BATCH, LR, seed=seed, save_steps=SAVE_STEPS)
    facts = {"e2llm": __version__, "recipe": asdict(recipe), "fit": asdict(params), "corpus": corpus_facts(),
             "held_out": sorted(held_out)}
    work = out.with_name(f".{out.name}-work")
    taught = _kept_lesson(work, facts) or _new_lesson(work, facts, recipe, params, held_out)
    with tqdm(total=steps, desc="teaching", file=sys.stderr) as bar:
        def on_step(step: int, **said: float) -> None:
            bar.set_postfix(said, refresh=False)
            bar.update(step - bar.n)

        model, history = teach(recipe, taught, params, work / "checkpoints", on_step)
    finished = work / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    model.cpu().half().save_pretrained(finished)
    taught.words.tokenizer.save_pretrained(finished)
    finish(finished, facts | {
        "final_loss": float(history["loss"].iloc[-1]), "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": len(taught.words.tokenizer),
        "made_with": _made_with()})
    finished.rename(out)
    shutil.rmtree(work)
    return out


def teach_second_lesson(start: str, out: Path, seed: int = 0, steps: int = LEVEL_STEPS,
                        recipe: LevelRecipe | None = None, held_out: frozenset[str] = frozenset()) -> Path:
    """Teach graded levels and tables of levels to a finished model; goes on where it was cut off.

    Parameters
    ----------
    start : str
        ``e2llm-tiny``, or a folder that :func:`make_language_model` made.
    out : Path
        Folder to make.
    seed : int
        Of everything drawn.
    steps : int
        Optimizer steps.
    recipe : LevelRecipe, optional
        Sizes and shares.
    held_out : frozenset of str
        As for :func:`make_language_model`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        If ``out`` is there already.
    ValueError
        If the model to start from is none that this command made, or is not whole.
    FetchError
        If the sentence encoder or the list of words has not been fetched.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: give another folder, or remove it.")
    recipe, params = recipe or LevelRecipe(), FitParams(steps, BATCH, LEVEL_LR, seed=seed, save_steps=SAVE_STEPS)
    folder = require(start) if start in CATALOGUE else Path(start)
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder} holds no {CARD}: give e2llm-tiny, or a folder that this command made.")
    facts = read_mapping(folder / CARD, {"recipe": dict, "sha256": dict}, "make the folder again")
    second = {"recipe": asdict(recipe), "fit": asdict(params), "start": facts["sha256"]["model.safetensors"],
              "corpus": corpus_facts()["sha256"], "held_out": sorted(held_out)}
    work = out.with_name(f".{out.name}-{hashlib.sha256(json.dumps(second).encode()).hexdigest()[:12]}")
    model, tokenizer = load_language_model(start, "float32")
    first, fit = TinyRecipe(**facts["recipe"]), facts["fit"]
    texts, vocabulary, teacher = texts_and_words(first, *_encoder_and_words(), fit["seed"], held_out, _say)
    words = words_of_tasks(first, vocabulary, fit["batch_size"], fit["seed"])
    meanings = token_meanings(vocabulary.meanings, teacher, first.meaning_width)
    own = own_parts(model.get_input_embeddings().weight, words, meanings)
    examples = level_examples(tokenizer, texts, recipe, seed)
    with tqdm(total=steps, desc="second lesson", file=sys.stderr) as bar:
        def on_step(step: int, **said: float) -> None:
            bar.set_postfix(said, refresh=False)
            bar.update(step - bar.n)

        history = teach_levels(model, tokenizer, examples, readers_of(tokenizer, recipe, seed), params,
                               work / "checkpoints", own, recipe.own_dropout, on_step)
    finished = work / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    model.cpu().half().save_pretrained(finished)
    tokenizer.save_pretrained(finished)
    second |= {"final_loss": float(history["loss"].iloc[-1]), "made_with": _made_with()}
    finish(finished, {name: value for name, value in facts.items() if name not in ("sha256", "scores", "folder")}
           | {"second": second})
    finished.rename(out)
    shutil.rmtree(work)
    return out


def make_in_two_lessons(out: Path, seed: int = 0, steps: int = STEPS, level_steps: int = LEVEL_STEPS) -> Path:
    """The packaged language model: both lessons, one after the other; goes on where it was cut off.

    Parameters
    ----------
    out, seed : Path, int
        As for :func:`make_language_model`.
    steps, level_steps : int
        Optimizer steps of the first and of the second lesson.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError, FetchError
        As :func:`make_language_model`.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: give another folder, or remove it.")
    first = out.with_name(f".{out.name}-first-{steps}-{seed}")  # of other arguments it would be another model
    if not first.exists():
        make_language_model(first, seed, steps)
    teach_second_lesson(str(first), out, seed, level_steps)
    shutil.rmtree(first)
    return out


def _made_with() -> dict[str, str]:
    device = current_device()
    return {"torch": torch.__version__, "transformers": transformers.__version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()}


def finish(folder: Path, facts: dict) -> None:
    """Add licence, notice, scores and card to a taught model.

    Parameters
    ----------
    folder : Path
        With the model in float16 and its tokenizer.
    facts : dict
        Recipe, corpus, and what it was made with.
    """
    packaged = resources.files("e2llm.models") / "e2llm_tiny" / _LICENCE
    (folder / _LICENCE).write_text(packaged.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "NOTICE.txt").write_text(_NOTICE, encoding="utf-8")
    (folder / "model.safetensors").chmod(0o644)
    scores = scores_in_words(*load_language_model(str(folder)))
    _write_card(folder, {**facts, "scores": scores.to_dict("records")})


def corpus_facts() -> dict:
    """What the model is taught from, in numbers; another corpus gives another ``sha256``."""
    files = Path(str(resources.files("e2llm.tasks"))) / "corpus"
    overlap = {stratum: round(corpus_statistics.overlap(stratum, corpus_statistics.training_stems()), 2)
               for stratum in scenarios.STRATA}
    return {"situations": {e: scenarios.training_scenarios(e).n_situations for e in scenarios.emotions()},
            "content_words": len(corpus_statistics.training_stems()), "overlap_with_zero_shot": overlap,
            "sha256": {path.name: checksum(path) for path in sorted(files.glob("*.yaml"))}}


def _write_card(folder: Path, facts: dict) -> None:
    """Write the facts with the checksum of every other file, and a README that a reader can use.

    Parameters
    ----------
    folder : Path
        Of the finished model.
    facts : dict
        Recipe, corpus and scores.
    """
    rows = "\n".join(f"| {row['stratum']} | {row['kind']} | {row['items']} | {row['chance']:.0f} | "
                     f"{row['correct']:.1f} ({row['low']:.1f}-{row['high']:.1f}) |" for row in facts["scores"])
    fit, recipe, made = facts["fit"], facts["recipe"], facts["made_with"]
    (folder / "README.md").write_text(
        "---\nlicense: mit\nlanguage: en\nlibrary_name: transformers\n---\n# e2llm-tiny\n\n"
        f"A Qwen3 with {facts['parameters']:,} parameters in float16, taught by `e2llm make-language-model` to talk "
        "about the tasks of e2llm. It knows nothing else: do not use it as a chat model.\n\n"
        f"- Text: {recipe['n_items']:,} items in words about {sum(facts['corpus']['situations'].values()):,} written "
        f"situations and {recipe['n_replaced']:,} copies of them with replaced words, labelled by a teacher (logistic "
        "regression on vectors of all-MiniLM-L6-v2). No text of the zero-shot tier is among them.\n"
        f"- Words: {recipe['words']:,}; the embedding of each is a learned linear map of its meaning in "
        "all-MiniLM-L6-v2.\n"
        f"- Teaching: {fit['steps']} steps of {fit['batch_size']} items, seed {fit['seed']}; torch {made['torch']}, "
        f"transformers {made['transformers']}, {made['device']}.\n{_second_line(facts)}"
        "- Licences: MIT (e2llm); NOTICE.txt says what comes from others.\n\n"
        "Right answers about zero-shot texts, in words and without EEG (percent, 95 % Wilson interval):\n\n"
        f"| stratum | kind | items | chance | correct |\n|---|---|---|---|---|\n{rows}\n", encoding="utf-8")
    files = sorted(path.name for path in folder.iterdir() if path.name != CARD)
    facts["sha256"] = {name: checksum(folder / name) for name in files}
    (folder / CARD).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _second_line(facts: dict) -> str:
    """Line of the README about the second lesson; empty where there was none."""
    if "second" not in facts:
        return ""
    fit, recipe, made = (facts["second"][name] for name in ("fit", "recipe", "made_with"))
    return (f"- Second lesson: {fit['steps']} steps of {recipe['n_items']:,} items with degrees of low and high and "
            f"with tables of levels, seed {fit['seed']}; torch {made['torch']}, {made['device']}.\n")


def _encoder_and_words() -> tuple[SentenceEncoder, list[str]]:
    listed = (require("english-words") / "frequency_dictionary_en_82_765.txt").read_text(encoding="utf-8-sig")
    return SentenceEncoder(require("minilm-l6-v2")), [line.split()[0] for line in listed.splitlines()]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _new_lesson(work: Path, facts: dict, recipe: TinyRecipe, params: FitParams, held_out: frozenset[str]) -> Lesson:
    taught = lesson(recipe, *_encoder_and_words(), params, held_out, _say)
    shutil.rmtree(work, ignore_errors=True)  # of another recipe
    work.mkdir(parents=True)
    taught.words.tokenizer.save_pretrained(work / "tokenizer")
    lengths = [len(example["input_ids"]) for example in taught.examples]
    np.savez(work / "lesson.npz", ids=np.concatenate([example["input_ids"] for example in taught.examples]),
             labels=np.concatenate([example["labels"] for example in taught.examples]), ends=np.cumsum(lengths),
             n_drills=taught.n_drills, of_word=taught.words.of_word, needed=taught.words.needed,
             meanings=taught.meanings)
    (work / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return taught


def _kept_lesson(work: Path, facts: dict) -> Lesson | None:
    """What a run that was cut off had prepared; None if there is none of the same recipe and corpus."""
    try:
        if json.loads((work / "facts.json").read_text(encoding="utf-8")) != json.loads(json.dumps(facts)):
            return None
    except (FileNotFoundError, ValueError):  # none, or cut off while it was written
        return None
    kept = np.load(work / "lesson.npz")
    ids, labels = (np.split(kept[name], kept["ends"][:-1]) for name in ("ids", "labels"))
    examples = [{"input_ids": one.tolist(), "labels": other.tolist(), "windows": []}
                for one, other in zip(ids, labels, strict=True)]
    words = Words(AutoTokenizer.from_pretrained(work / "tokenizer"), kept["of_word"], kept["needed"])
    return Lesson(examples, int(kept["n_drills"]), words, kept["meanings"])
