"""Ask a trained model about recorded windows, and see what it says held against what was measured (:mod:`e2llm.viz.answer_view`)."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from peft import PeftModel

from ..core.chat import EEG_TOKEN, END_THINK, LETTERS, THINK, Item
from ..core.labels import LabelSet
from ..data.dataset import Corpus
from ..data.new_subject import MEANT, NewSubject, PopulationStatistics, read_windows
from ..data.preprocessing import PreprocessParams
from ..evaluation.faithfulness import flags
from ..models.eegpt import N_PATCHES
from ..models.inference import InferenceEngine, closed_set, probabilities, score_options
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..tasks import items as items_module
from ..tasks import scenarios
from ..tasks.items import listed, parse_answer
from ..tasks.segments import Segment
from ..tasks.thought_parser import Parsed
from ..training.stage3_instruction import quiet_peft
from ..viz.answer_view import Explained, pieces
from ..viz.widgets import window_name
from .hub_import import ShareError, export_folder, open_facts, tokenizer_mark, weights_mark
from .runs import Run
from .stages import load_encoder, load_tokens, open_dataset, open_instructed

TASKS = {"predict": (1, 1), "describe": (1, 1), "compare": (2, 2), "rank": (3, 4), "match": (2, 4)}  # fewest and most segments
AXES = ("valence", "arousal", "intensity")
ENCODE_BATCH = 64  # windows that the encoder hears at a time


def _growing(engine: InferenceEngine, item: Item, said: str, limit: int) -> Iterator[str]:
    """Greedy text after ``said`` as it grows; generation runs in a thread, which ends when nobody listens any more."""
    tokenizer, tokens, stop, failed = engine.processor.tokenizer, Queue(), Event(), []
    streamer = SimpleNamespace(put=lambda value: tokens.put(int(value.reshape(-1)[0])), end=lambda: None)
    inputs = engine.inputs([item], True, [said])

    def stopped(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(ids),), stop.is_set(), device=ids.device)

    def work() -> None:
        try:
            engine.model.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=tokenizer.pad_token_id,
                                    eos_token_id=tokenizer.eos_token_id, suppress_tokens=[tokenizer.convert_tokens_to_ids(EEG_TOKEN)],
                                    streamer=streamer, stopping_criteria=[stopped])
        except Exception as error:  # raised again where it can be seen
            failed.append(error)
        finally:
            tokens.put(None)

    thread, ids, text = Thread(target=work, daemon=True), [], said
    thread.start()
    try:
        for token in itertools.islice(iter(tokens.get, None), 1, None):  # what is put first is the prompt
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
            text = said + tokenizer.decode(ids, skip_special_tokens=False)
            if not text.endswith("\ufffd"):  # a letter of several tokens is shown when it is whole
                yield text
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
    yield text


@dataclass(frozen=True)
class E2LLM:
    """A trained model with the recordings that it can be asked about: ``E2LLM.of_run(run).ask(3, "Which emotion is it?")``.

    Parameters
    ----------
    listener : Listener
        The trained model and the tokens that were computed for it.
    corpus : Corpus
        Recordings and what was measured in them.
    run : Run, optional
        Whose encoder hears windows without tokens.
    max_new_tokens : int
        Length at which an answer is cut off.
    encoder : Module, optional
        What hears windows without tokens, where there is no run.
    """

    engine: InferenceEngine
    corpus: Corpus
    run: Run | None = None
    max_new_tokens: int = 128
    encoder: torch.nn.Module | None = None

    @classmethod
    def of_run(cls, run: Run, corpus: Corpus | None = None) -> E2LLM:
        """The model of a finished run; ``StageMissing`` names the notebook that has to come first."""
        model, processor = open_instructed(run)
        return cls(InferenceEngine(model, processor, *load_tokens(run)), corpus or open_dataset(run), run)

    @classmethod
    def from_pretrained(cls, folder: str | Path, language_model: str | None = None, revision: str | None = None) -> SharedModel:
        """A model that somebody shared; its :meth:`e2llm.app.chat_session.SharedModel.read` makes a recording that can be asked about."""

        return SharedModel.from_pretrained(folder, language_model, revision)

    def ask(self, windows: int | Sequence[int], question: str, said: str = "", task: str | None = None) -> Explained:
        """Let the model think aloud and answer; greedy, so the same question has the same answer.

        Parameters
        ----------
        windows : int or sequence of int
            One to four rows of the windows; several are called A, B, C and D.
        question : str
            Free text, or the name of a task (:data:`TASKS`), which stands for one of its wordings; "compare" and "rank" may name an
            axis: "compare arousal" (default valence, where there is one). "match" draws a scenario of one of the windows' labels.
        said : str
            What the model is made to say first, such as a thought that was changed.
        task : str, optional
            Whose closed set of answers belongs to a free text; default "predict" (the labels) for one window, else "match" (letters).

        Raises
        ------
        ValueError
            For no window, more than four, a row outside the data, an empty question, or a task that is unknown or about another number.
        """
        *_, text = self.stream(windows, question, said, task)
        return self.explain(windows, question, text, task)

    def stream(self, windows: int | Sequence[int], question: str, said: str = "", task: str | None = None) -> Iterator[str]:
        """The growing text of an answer; the last is that of :meth:`ask`, whose parameters and errors it has."""
        item = self._item(self._rows(windows), question, task)
        return _growing(self._hearing(item.windows), item, said, self.max_new_tokens)

    def explain(self, windows: int | Sequence[int], question: str, text: str, task: str | None = None) -> Explained:
        """Check a text as if the model had said it in answer to a question; parameters and errors of :meth:`ask`.

        The text does not enter :attr:`Explained.probabilities`, which are scored as tier 1 of the evaluation is.
        """
        rows, corpus = self._rows(windows), self.corpus
        item, z = self._item(rows, question, task), corpus.z[rows]
        thought, _, rest = text.partition(END_THINK) if END_THINK in text or THINK in text else ("", "", text)
        thought, answer = thought.replace(THINK, "").strip(), parse_answer(text, item.options)
        found = pieces(thought if answer else f"{thought}\n{rest.replace(END_THINK, '')}", corpus.label_set.labels, z, corpus.evidence_names)
        parsed = Parsed(*(tuple(itertools.chain.from_iterable(getattr(piece.parsed, name) for piece in found)) for name in ("statements", "unread")))
        hearing, after = self._hearing(rows), None
        before = dict(zip(item.options, closed_set(hearing, [item])[0].tolist(), strict=True))
        if thought:
            scores = score_options(hearing, [item], [f"{text.split(END_THINK, 1)[0].rstrip()}\n{END_THINK}\n\n"])
            after = dict(zip(item.options, probabilities(scores)[0].tolist(), strict=True))
        words = "".join(part.get("text", " … ") for part in item.messages[0]["content"])
        return Explained(" ".join(words.split()).removeprefix("… "), tuple(window_name(corpus.windows, row) for row in rows), text, thought,
                         answer, found, flags(parsed, z[0], corpus.evidence_names) if len(rows) == 1 else None,
                         before, after, tuple(rows), corpus)

    def overview(self, windows: Sequence[int] | None = None) -> pd.DataFrame:
        """Probability of every label for many windows (default all), read from the EEG before any explanation.

        Returns
        -------
        DataFrame
            A row a window, a column a label; rows sum to 1.
        """
        rows = list(range(len(self.corpus.windows))) if windows is None else [self._rows(row)[0] for row in windows]
        items = [self._item([row], "predict", None) for row in rows]
        found = closed_set(self._hearing(rows), items)
        return pd.DataFrame(found, index=pd.Index(rows, name="window"), columns=list(self.corpus.label_set.labels))

    def _rows(self, windows: int | Sequence[int]) -> list[int]:
        rows = [operator.index(row) for row in ([windows] if isinstance(windows, int | np.integer) else windows)]
        if not 1 <= len(rows) <= len(LETTERS):
            raise ValueError(f"A question is about 1 to {len(LETTERS)} windows, not {len(rows)}: give one row, or a list of up to {len(LETTERS)}.")
        if outside := [row for row in rows if not 0 <= row < len(self.corpus.windows)]:
            raise ValueError(f"There is no window {outside[0]}: rows go from 0 to {len(self.corpus.windows) - 1}.")
        return rows

    def _item(self, rows: list[int], question: str, task: str | None) -> Item:
        """The question in the format that the model was trained on, with its closed set of answers."""
        if not (words := question.strip()):
            raise ValueError(f"The question is empty: write one, or name a task ({', '.join(TASKS)}).")
        if marks := [mark for mark in {EEG_TOKEN, *self.engine.processor.tokenizer.all_special_tokens} if mark in question]:
            raise ValueError(f"The question holds {min(marks)}, which the model takes for a control mark: leave it out.")
        name, _, axis = words.partition(" ")
        is_wording = task is None and name in TASKS and (not axis or (axis in AXES and name in ("compare", "rank")))
        task = name if is_wording else task or ("predict" if len(rows) == 1 else "match")
        if task not in TASKS:
            raise ValueError(f"There is no task '{task}': give one of {', '.join(TASKS)}.")
        fewest, most = TASKS[task]
        if not fewest <= len(rows) <= most:
            raise ValueError(f"The task '{task}' is about {fewest}{f' to {most}' * (most > fewest)} windows, not {len(rows)}.")
        item = self._wording(rows, task, (axis or None) if is_wording else "intensity", is_wording)
        if is_wording:
            return item
        group = [{"type": "eeg", "window": row} for row in rows]
        content = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in (group if len(rows) == 1 else listed(group))]
        return replace(item, messages=[{"role": "user", "content": [*content, {"type": "text", "text": f" {words}"}]}])

    def _wording(self, rows: list[int], task: str, axis: str | None, needs_scenario: bool) -> Item:
        """A wording of a task, drawn by the rows alone; what is known of the windows does not enter, but for a scenario's label."""
        label_set, rng = self.corpus.label_set, np.random.default_rng(rows)
        axis = axis or ("valence" if label_set.has_affect else "intensity")
        if axis != "intensity" and not label_set.has_affect:
            raise ValueError(f"Label set '{label_set.name}' knows no {axis}: ask for the intensity, or in your own words.")
        group = [Segment(row, label_set.labels[0], 0.5, ()) for row in rows]
        if task in ("predict", "describe"):
            maker = items_module.predict if task == "predict" else items_module.description
            return replace(maker(group[0], label_set, rng), options=list(label_set.labels))
        if task == "match":
            label = self.corpus.windows.index["label"].iloc[rows[rng.integers(len(rows))]]
            label = label or label_set.labels[rng.integers(len(label_set))]  # nobody knows what a newcomer felt
            if needs_scenario and label not in scenarios.emotions():
                raise ValueError(f"There are no scenarios of '{label}' (label set '{label_set.name}'): ask in your own words, with task='match'.")
            texts = scenarios.training_scenarios(label) if needs_scenario else [""]
            return items_module.match(group, 0, texts[rng.integers(len(texts))], label_set, rng)
        return (items_module.compare if task == "compare" else items_module.rank)(group, axis, label_set, rng)

    @cached_property
    def _encoder(self) -> torch.nn.Module:
        if self.encoder is not None:
            return self.encoder
        if self.run is None:
            raise ValueError("A window has no tokens, and no run is known whose encoder could make them: use E2LLM.of_run.")
        return load_encoder(self.run, self.corpus).encoder.eval()

    def _hearing(self, rows: list[int]) -> InferenceEngine:
        """The listener, with tokens made on the spot for windows that it has none of."""
        if not (missing := sorted({row for row in rows if row not in self.engine.position})):
            return self.engine
        corpus, known = self.corpus, sorted(set(rows) - set(missing))
        with torch.no_grad():
            made = [self._encoder(corpus.equalise(corpus.windows.data[some], corpus.norm_groups[some])).flatten(2).cpu().numpy()
                    for some in np.array_split(missing, -(-len(missing) // ENCODE_BATCH))]
        stored = [self.engine.features[self.engine.position[row]][None] for row in known]
        return replace(self.engine, features=np.concatenate([*stored, *made]), position={row: i for i, row in enumerate([*known, *missing])})


@dataclass(frozen=True, repr=False)
class SharedModel:
    """A model that was trained elsewhere; :meth:`read` a recording to ask about it.

    Parameters
    ----------
    model : E2LLMForConditionalGeneration
        With its encoder, the adapter merged.
    processor : E2LLMProcessor
        Its processor.
    facts : dict
        ``e2llm.json``.
    levels : Levels
        Of the people that it was trained on.
    """

    model: E2LLMForConditionalGeneration
    processor: E2LLMProcessor
    facts: dict
    levels: PopulationStatistics

    @classmethod
    def from_pretrained(cls, folder: str | Path, language_model: str | None = None, revision: str | None = None,
                        dtype: str | None = None) -> SharedModel:
        """Load an export.

        Parameters
        ----------
        folder : path or str
            Written by :func:`export`, or the hub id of one.
        language_model : str, optional
            Where the language model lies here, if not where the export says.
        revision : str, optional
            Of a hub id.
        dtype : str, optional
            Of the language model; default as in training, which alone gives the same bits.

        Raises
        ------
        ShareError, LanguageModelError
            If the folder is no whole export, or the language model is not there or not the one that it was trained with.
        """
        folder = export_folder(folder, revision)
        facts = open_facts(folder)
        language = facts["language_model"]
        if language["kind"] == "local" and language_model is None:
            raise ShareError(f"{folder} was trained with a language model that lay on its maker's machine ({language['name']}): "
                             "give language_model='where yours is'.")
        model, tokenizer = E2LLMForConditionalGeneration.with_tokenizer(folder, language_model, dtype or language["dtype"])
        found = (weights_mark(model.language_model), tokenizer_mark(tokenizer))
        for what, mark in zip(("weights", "tokenizer"), found, strict=True):
            if mark and language[what] and mark != language[what]:
                raise ShareError(f"{folder} was trained with another language model than '{language_model or language['name']}': its {what} differ"
                                 f"{'s' * (what == 'tokenizer')}, though its size is the same. Give the one that it was trained with.")
        with quiet_peft():
            model = PeftModel.from_pretrained(model, str(folder / "adapter")).merge_and_unload().eval()
        processor = E2LLMProcessor(tokenizer, model.config.eeg_tokens, model.config.evidence_slots)
        return cls(model, processor, facts, PopulationStatistics.open(folder / "levels.safetensors"))

    @property
    def label_set(self) -> LabelSet:
        """The closed set of answers."""
        stored = self.facts["label_set"]
        return LabelSet(**{**stored, "labels": tuple(stored["labels"])})

    def read(self, *files: str | Path, levels: str | None = None) -> NewRecording:
        """Files of one person, ready to be asked about.

        Parameters
        ----------
        *files : path
            Anything that MNE reads. Own levels are taken over all of them.
        levels : str, optional
            What the person is compared with: ``own`` (mean of these files, without labels; needs 12 windows) or ``population`` (people of the
            training run). Default: as the model was trained, which ``facts["levels"]`` says.

        Raises
        ------
        RecordingError
            If a file cannot be used; see :func:`e2llm.data.new_subject.read_windows`.
        """
        if not files:
            raise ValueError("read() needs at least one file.")
        levels = levels or self.facts["levels"]
        windows, notes = read_windows(files, self.facts["ch_names"], PreprocessParams(**self.facts["preprocess"]), levels)
        corpus = NewSubject.of(windows, self.label_set, self.levels, levels)
        predicted_evidence = np.empty((0, N_PATCHES, self.model.config.eeg_width), dtype=np.float32)  # tokens are made when a window is asked about
        engine = InferenceEngine(self.model, self.processor, predicted_evidence, {})
        return NewRecording(engine, corpus, encoder=self.model.encoder, notes=(MEANT[levels], *notes))

    def __repr__(self) -> str:
        facts = self.facts
        return f"E2-LLM '{facts['run']}' ({facts['dataset']}): {', '.join(facts['label_set']['labels'])}; {facts['protocol']}"


@dataclass(frozen=True, repr=False)
class NewRecording(E2LLM):
    """A recording that no training has met, and the model to ask about it: everything of :class:`e2llm.app.chat_session.E2LLM` works.

    ``notes`` say which levels it is compared with, and which channels were interpolated.
    """

    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.corpus.windows)

    def __repr__(self) -> str:
        index = self.corpus.windows.index
        return "\n".join([f"{', '.join(index['file'].unique())}: {len(self)} windows", *(f"  {note}" for note in self.notes)])
