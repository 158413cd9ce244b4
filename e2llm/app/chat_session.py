"""Ask a trained model about EEG windows and check its answers against the signal (:mod:`e2llm.viz.answer_view`).

A model comes from a finished run, or from an export (:mod:`e2llm.app.hub_export`)::

    model = E2LLM.from_pretrained("exported/tiny")  # a folder, or a hub id
    recording = model.read("new.edf")
    print(recording.ask(3, "Which emotion is it?"))
"""

from __future__ import annotations

import itertools
import operator
import re
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
from transformers import PreTrainedTokenizerBase

from ..core.bands import BANDS
from ..core.chat import EEG_TOKEN, END_THINK, LETTERS, THINK, Item
from ..core.claims import SCALES
from ..core.files import one_line
from ..core.labels import LabelSet
from ..core.montage import known_channels
from ..data.dataset import Corpus
from ..data.new_subject import STATISTICS_NOTES, NewSubject, PopulationStatistics, read_windows
from ..data.preprocess_params import PreprocessParams
from ..data.sources import TableOptions
from ..evaluation.faithfulness import flags
from ..models.adapting import lora_targets
from ..models.eegpt import PATCH
from ..models.inference import InferenceEngine, closed_set, closed_thought, never, probabilities, score_options
from ..models.modeling import E2LLMForConditionalGeneration
from ..models.processing import E2LLMProcessor
from ..tasks import items as items_module
from ..tasks import scenarios
from ..tasks.items import listed, parse_answer
from ..tasks.segments import Segment
from ..tasks.taught import TASKS, declined, recognize
from ..tasks.thought_parser import Parsed
from ..training.stage3_instruction import LORA_TARGETS
from ..viz.answer_view import Explained, pieces
from ..viz.widgets import window_name
from .hub_import import FACTS, ExportError, export_folder, open_facts, tokenizer_mark, weights_mark, with_adapter
from .runs import Run
from .stages import load_encoder, load_tokens, open_dataset, open_instructed

AXES = ("valence", "arousal", "intensity")
LETTERS_A_TOKEN = 5  # on average at most; a longer question is refused before it is cut into tokens
ANSWER_TOKENS = 16  # room for an option that is scored after the text; twice where the text is yet to be written
NOT_TAUGHT = "The model was not taught this question: what follows answers a task that it knows, and not the question."
ENCODE_BATCH = 64  # windows that are encoded at a time


def _stream_text(engine: InferenceEngine, item: Item, said: str, limit: int) -> Iterator[str]:
    """Greedy text after ``said`` while it is generated, in a thread that stops when the iterator is closed."""
    tokenizer, tokens, stop, failed = engine.processor.tokenizer, Queue(), Event(), []
    streamer = SimpleNamespace(put=lambda value: tokens.put(int(value.reshape(-1)[0])), end=lambda: None)
    inputs = engine.inputs([item], True, [said])

    def stopped(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(ids),), stop.is_set(), device=ids.device)

    def work() -> None:
        try:
            engine.model.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=tokenizer.pad_token_id,
                                  eos_token_id=tokenizer.eos_token_id,
                                  logits_processor=[never(tokenizer.convert_tokens_to_ids(EEG_TOKEN))],
                                  streamer=streamer, stopping_criteria=[stopped])
        except Exception as error:  # raised again in the caller's thread
            failed.append(error)
        finally:
            tokens.put(None)

    thread, ids, text = Thread(target=work, daemon=True), [], said
    thread.start()
    try:
        for token in itertools.islice(iter(tokens.get, None), 1, None):  # the first item is the prompt
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
            text = said + tokenizer.decode(ids, skip_special_tokens=False)
            if not text.endswith("\ufffd"):  # a character of several tokens is shown when it is complete
                yield text
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
    yield text


def _named(words: str) -> tuple[str, str]:
    """Task and axis, if words are the name of a task and not a question; else two empty texts."""
    name, _, axis = words.partition(" ")
    is_named = name in TASKS and (not axis or (axis in AXES and name in ("compare", "rank")))
    return (name, axis) if is_named else ("", "")


def _described(text: str, labels: Sequence[str]) -> str | None:
    """The label that a description names ("The segment shows fear strong, …"), if it is exactly one."""
    found = [label for label in labels if re.search(rf"\b{re.escape(label)}\b", text, re.IGNORECASE)]
    return found[0] if len(found) == 1 else None


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Texts that a tokenizer reads as one token with a meaning; some that open a turn are not called special."""
    added = (str(token) for token in tokenizer.added_tokens_decoder.values())
    return {*tokenizer.all_special_tokens, *(text for text in added if "<" in text)}


@dataclass(frozen=True)
class E2LLM:
    """A trained model with a dataset: ``E2LLM.of_run(run).ask(3, "Which emotion is it?")``.

    Parameters
    ----------
    engine : InferenceEngine
        The trained model with the stored features of windows.
    corpus : Corpus
        Windows with their measured evidence.
    run : Run, optional
        Its encoder computes missing features.
    max_new_tokens : int
        Largest length of an answer.
    encoder : Module, optional
        Computes missing features if there is no run.
    """

    engine: InferenceEngine
    corpus: Corpus
    run: Run | None = None
    max_new_tokens: int = 160
    encoder: torch.nn.Module | None = None

    @classmethod
    def of_run(cls, run: Run, corpus: Corpus | None = None) -> E2LLM:
        """The model of a finished run.

        Parameters
        ----------
        run : Run
            With a finished adapter.
        corpus : Corpus, optional
            Dataset of the run, if it is open already.

        Raises
        ------
        StageMissing
            If a stage is not finished; the message names its notebook.
        """
        model, processor = open_instructed(run)
        return cls(InferenceEngine(model, processor, *load_tokens(run)), corpus or open_dataset(run), run)

    @classmethod
    def from_pretrained(cls, folder: str | Path, language_model: str | None = None,
                        revision: str | None = None, device_map: str | None = None) -> ExportedModel:
        """An exported model; :meth:`ExportedModel.from_pretrained` says more, and names the errors.

        Parameters
        ----------
        folder : str or path
            Written by :func:`e2llm.app.hub_export.export`, or a hub id.
        language_model : str, optional
            Folder or hub id of the language model, where the export does not hold it.
        revision : str, optional
            Of the hub: a branch, tag or commit.
        device_map : str, optional
            ``auto`` lays the language model over all GPUs; default the device of the policy.
        """
        return ExportedModel.from_pretrained(folder, language_model, revision, device_map=device_map)

    def ask(self, windows: int | Sequence[int], question: str, said: str = "", task: str | None = None) -> Explained:
        """Generate an explanation and an answer; greedy, so the same question has the same answer.

        Parameters
        ----------
        windows : int or sequence of int
            One to four rows of the windows; several are called A, B, C and D.
        question : str
            Free text, or the name of a task (:data:`TASKS`), which is replaced by one of its wordings. "compare" and
            "rank" may name an axis: "compare arousal" (default: valence, if the labels have it). "match" draws a
            scenario of the label of one window.
        said : str
            Beginning of the generated text, such as an edited explanation.
        task : str, optional
            Decides the closed set of answers of a free text: by default "predict" (the labels) for one window, and
            "match" (letters) for several.

        Raises
        ------
        ValueError
            For no window, more than four, a row outside the data, an empty question, an unknown task, or a task for
            another number of windows.
        """
        *_, text = self.stream(windows, question, said, task)
        return self.explain(windows, question, text, task)

    def stream(self, windows: int | Sequence[int], question: str, said: str = "",
               task: str | None = None) -> Iterator[str]:
        """The text of an answer while it is generated; errors are those of :meth:`ask`.

        Parameters
        ----------
        windows : int or sequence of int
            One to four rows of the windows.
        question : str
            Free text, or the name of a task.
        said : str
            Beginning of the generated text.
        task : str, optional
            Decides the closed set of answers of a free text.
        """
        item = self._item(self._rows(windows), question, task)
        self._check_room(item, said, self.max_new_tokens + 2 * ANSWER_TOKENS)
        return _stream_text(self._engine_for(item.windows), item, said, self.max_new_tokens)

    def explain(self, windows: int | Sequence[int], question: str, text: str, task: str | None = None) -> Explained:
        """Check any text as the model's answer to a question; errors are those of :meth:`ask`.

        The text does not change :attr:`Explained.probabilities`, which are computed as in tier 1 of the evaluation.

        Parameters
        ----------
        windows : int or sequence of int
            One to four rows of the windows.
        question : str
            Free text, or the name of a task.
        text : str
            What is checked: a thought and an answer.
        task : str, optional
            Decides the closed set of answers of a free text.
        """
        rows, corpus = self._rows(windows), self.corpus
        item, z = self._item(rows, question, task), corpus.z[rows]
        self._check_room(item, text, ANSWER_TOKENS)
        thought, _, rest = text.partition(END_THINK) if END_THINK in text or THINK in text else ("", "", text)
        thought, answer = thought.replace(THINK, "").strip(), parse_answer(text, item.options)
        found = pieces(thought if answer else f"{thought}\n{rest.replace(END_THINK, '')}", corpus.label_set.labels, z,
                       corpus.evidence_names)
        if item.kind == "describe" and answer is None:  # it answers in sentences, which are checked as the thought is
            answer = _described(rest.partition(".")[0], item.options)
        parsed = Parsed(*(tuple(itertools.chain.from_iterable(getattr(piece.parsed, name) for piece in found))
                          for name in ("statements", "unread")))
        engine, after = self._engine_for(rows), None
        before = dict(zip(item.options, closed_set(engine, [item])[0].tolist(), strict=True))
        if thought:
            scores = score_options(engine, [item], [closed_thought(text)])
            after = dict(zip(item.options, probabilities(scores)[0].tolist(), strict=True))
        words = "".join(part.get("text", " … ") for part in item.messages[0]["content"])
        return Explained(" ".join(words.split()).removeprefix("… "),
                         tuple(window_name(corpus.windows, row) for row in rows), text, thought,
                         answer, found, flags(parsed, z[0], corpus.evidence_names) if len(rows) == 1 else None,
                         before, after, tuple(rows), corpus,
                         note=NOT_TAUGHT if self.not_taught(rows, question, task) else "")

    def not_taught(self, windows: int | Sequence[int], question: str, task: str | None = None) -> str:
        """Why a question is not answered, with the nearest tasks; empty for one that the model was taught.

        :meth:`ask` generates a text all the same, and :attr:`Explained.note` says in front of it that it answers
        something else. The panel and the command line do not ask.

        Parameters
        ----------
        windows : int or sequence of int
            One to four rows of the windows.
        question : str
            Free text, or the name of a task.
        task : str, optional
            A task that is named here is taken at its word: nothing is declined.
        """
        rows, words = self._rows(windows), str(question).strip()
        if task is not None or not words or _named(words)[0] or recognize(words, len(rows), self.corpus.label_set):
            return ""
        return declined(words, len(rows), self.corpus.label_set)

    def scenario_fit(self, scenario: str, windows: Sequence[int]) -> tuple[dict[str, float], pd.DataFrame]:
        """How well segments fit a text: the probability that the model names one emotion for both.

        The text alone gives a probability of every label, each segment alone gives another one, and the fit is the sum
        of their products. No segment is compared with another.

        Parameters
        ----------
        scenario : str
            Free text.
        windows : sequence of int
            Rows of the windows.

        Returns
        -------
        of_scenario : dict of str to float
            Probability of every label of the text; sums to 1.
        table : DataFrame
            A row a window (index ``window``), the best first: ``fit`` (0 to 1), ``most probable`` and its
            ``probability``.

        Raises
        ------
        ValueError
            For an empty text, or one that is too long.
        """
        words, label_set = self._checked_words(scenario), self.corpus.label_set
        item = items_module.scenario_question(label_set.labels[0], words, label_set, np.random.default_rng(0))
        self._check_room(item, "", ANSWER_TOKENS)
        of_scenario, of_segments = closed_set(self.engine, [item])[0], self.overview(windows)
        table = pd.DataFrame({"fit": of_segments.to_numpy() @ of_scenario,
                              "most probable": of_segments.idxmax(axis=1),
                              "probability": of_segments.max(axis=1)}, index=of_segments.index)
        return (dict(zip(label_set.labels, of_scenario.tolist(), strict=True)),
                table.sort_values("fit", ascending=False, kind="stable"))

    def overview(self, windows: Sequence[int] | None = None) -> pd.DataFrame:
        """Probability of every label for many windows (default: all), read from the EEG before any explanation.

        Returns
        -------
        DataFrame
            One row per window, one column per label; rows sum to 1.
        """
        rows = list(range(len(self.corpus.windows))) if windows is None else [self._rows(row)[0] for row in windows]
        items = [self._item([row], "predict", None) for row in rows]
        found = closed_set(self._engine_for(rows), items)
        return pd.DataFrame(found, index=pd.Index(rows, name="window"), columns=list(self.corpus.label_set.labels))

    def _rows(self, windows: int | Sequence[int]) -> list[int]:
        try:
            rows = [operator.index(row) for row in ([windows] if isinstance(windows, int | np.integer) else windows)]
        except TypeError:
            raise ValueError(f"{windows!r:.60} names no windows: give a row, or a list of rows.") from None
        if not 1 <= len(rows) <= len(LETTERS):
            raise ValueError(f"A question is about 1 to {len(LETTERS)} windows, not {len(rows)}: give one row, or a "
                             f"list of up to {len(LETTERS)}.")
        if outside := [row for row in rows if not 0 <= row < len(self.corpus.windows)]:
            raise ValueError(f"There is no window {outside[0]}: rows go from 0 to {len(self.corpus.windows) - 1}.")
        return rows

    def _checked_words(self, question: str) -> str:
        """A text that the model can read, without the spaces around it; ValueError says what it cannot read."""
        if not isinstance(question, str):
            raise ValueError(f"The question is a {type(question).__name__}, not a text: write one.")
        if not (words := question.strip()):
            raise ValueError(f"The question is empty: write one, or name a task ({', '.join(TASKS)}).")
        positions = self._positions
        if positions and len(words) > LETTERS_A_TOKEN * positions:
            raise ValueError(f"The question has {len(words)} letters, and the model reads about "
                             f"{LETTERS_A_TOKEN * positions} at a time: ask a shorter one.")
        if marks := [mark for mark in {EEG_TOKEN, THINK, END_THINK, *_special_texts(self.engine.processor.tokenizer)}
                     if mark in question]:
            raise ValueError(f"The question has {min(marks)}, which is a special token of the model: leave it out.")
        return words

    def _item(self, rows: list[int], question: str, task: str | None) -> Item:
        """The question in the format of the training items, with its closed set of answers."""
        words = self._checked_words(question)
        name, axis = _named(words) if task is None else ("", "")
        is_wording, meant = bool(name), None if task else recognize(words, len(rows), self.corpus.label_set)
        task = name or task or (meant.task if meant else "predict" if len(rows) == 1 else "match")
        if not isinstance(task, str) or task not in TASKS:
            raise ValueError(f"There is no task '{task}': give one of {', '.join(TASKS)}.")
        fewest, most = TASKS[task]
        if not fewest <= len(rows) <= most:
            raise ValueError(f"The task '{task}' is about {fewest}{f' to {most}' * (most > fewest)} windows, not "
                             f"{len(rows)}.")
        axis = axis if is_wording else meant.axis if meant else ""
        item = self._wording(rows, task, axis or (None if is_wording else "intensity"), is_wording)
        if is_wording:
            return item
        scale = self.corpus.evidence_names.scale
        group = [Segment(row, "", 0.5, (), scale=scale).part(len(rows) == 1 or scale.in_every_prompt) for row in rows]
        parts = group if len(rows) == 1 else listed(group)
        content = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in parts]
        return replace(item, messages=[{"role": "user", "content": [*content, {"type": "text", "text": f" {words}"}]}])

    @property
    def _positions(self) -> int:
        """Tokens that the language model reads at a time; 0 if it states no limit."""
        language = getattr(self.engine.model, "language_model", None)
        return getattr(getattr(language, "config", None), "max_position_embeddings", None) or 0

    def _check_room(self, item: Item, said: str, more: int) -> None:
        """Refuse what the language model cannot read: beyond its positions it was never trained."""
        if not (positions := self._positions):
            return
        processor = self.engine.processor
        taken = len(processor.ids(processor.prompt(item.messages, thinking=True) + said))
        if taken + more > positions:
            after = " and the text after it" if said else ""
            raise ValueError(f"The question takes {taken} tokens with its segments{after}, and the language model "
                             f"reads {positions} at a time, the answer included: shorten it.")

    def _wording(self, rows: list[int], task: str, axis: str | None, needs_scenario: bool) -> Item:
        """A wording of a task, drawn by the rows alone; only a scenario depends on the label of a window."""
        label_set, rng = self.corpus.label_set, np.random.default_rng(rows)
        axis = axis or ("valence" if label_set.has_affect else "intensity")
        if axis != "intensity" and not label_set.has_affect:
            raise ValueError(f"Label set '{label_set.name}' knows no {axis}: ask for the intensity, or in your own "
                             "words.")
        scale = self.corpus.evidence_names.scale
        group = [Segment(row, label_set.labels[0], 0.5, (), scale=scale) for row in rows]
        if task in ("predict", "describe"):
            maker = items_module.predict if task == "predict" else items_module.description
            return replace(maker(group[0], label_set, rng), options=list(label_set.labels))
        if task == "match":
            label = self.corpus.windows.index["label"].iloc[rows[rng.integers(len(rows))]]
            label = label or label_set.labels[rng.integers(len(label_set))]  # the label of a new subject is unknown
            if needs_scenario and label not in scenarios.emotions():
                raise ValueError(f"There are no scenarios of '{label}' (label set '{label_set.name}'): ask in your "
                                 "own words, with task='match'.")
            text = ""
            if needs_scenario:
                texts = scenarios.training_scenarios(label)
                text = texts[rng.integers(len(texts))].text
            return items_module.match(group, 0, text, rng)
        return (items_module.compare if task == "compare" else items_module.rank)(group, axis, label_set, rng)

    @cached_property
    def _encoder(self) -> torch.nn.Module:
        if self.encoder is not None:
            return self.encoder
        if self.run is None:
            raise ValueError("A window has no stored features, and there is no encoder to compute them: use "
                             "E2LLM.of_run.")
        return load_encoder(self.run, self.corpus).encoder.eval()

    def _engine_for(self, rows: list[int]) -> InferenceEngine:
        """The inference engine; features of windows that have none are computed now."""
        if not (missing := sorted({row for row in rows if row not in self.engine.position})):
            return self.engine
        corpus, known = self.corpus, sorted(set(rows) - set(missing))
        device = next(self._encoder.parameters(), torch.empty(0)).device
        with torch.no_grad():
            made = [self._encoder(corpus.equalize(corpus.windows.data[some],
                                                  corpus.norm_groups[some]).to(device)).flatten(2).cpu().numpy()
                    for some in np.array_split(missing, -(-len(missing) // ENCODE_BATCH))]
        stored = [self.engine.features[self.engine.position[row]][None] for row in known]
        return replace(self.engine, features=np.concatenate([*stored, *made]),
                       position={row: i for i, row in enumerate([*known, *missing])})


@dataclass(frozen=True, repr=False)
class ExportedModel:
    """A model from an export; :meth:`read` a recording to ask about it.

    Parameters
    ----------
    model : E2LLMForConditionalGeneration
        With its encoder, the adapter merged.
    processor : E2LLMProcessor
        Its processor.
    facts : dict
        ``e2llm.json``.
    population : PopulationStatistics
        Of the subjects that it was trained on.
    """

    model: E2LLMForConditionalGeneration
    processor: E2LLMProcessor
    facts: dict
    population: PopulationStatistics

    @classmethod
    def from_pretrained(cls, folder: str | Path, language_model: str | None = None, revision: str | None = None,
                        dtype: str | None = None, device_map: str | None = None) -> ExportedModel:
        """Load an export.

        Parameters
        ----------
        folder : path or str
            Written by :func:`e2llm.app.hub_export.export`, or a hub id.
        language_model : str, optional
            Path of the language model, if it is not the stored one.
        revision : str, optional
            Of a hub id.
        dtype : str, optional
            Of the language model; only the default, that of the training, gives the same bits.
        device_map : str, optional
            ``auto`` lays the language model over all GPUs; default the device of the policy
            (:func:`e2llm.models.device.use_device`).

        Raises
        ------
        ExportError, LanguageModelError
            If the folder is no complete export, or the language model is missing or another one.
        """
        folder = export_folder(folder, revision)
        facts = open_facts(folder)
        language, n = facts["language_model"], len(facts["ch_names"])
        try:
            LabelSet.from_dict(facts["label_set"]), PreprocessParams(**facts["preprocess"])
            if known_channels(facts["ch_names"]) != facts["ch_names"] or facts["statistics"] not in STATISTICS_NOTES:
                raise ValueError("its channels are not those of a cap, or its statistics are unknown")
        except Exception as error:  # a value of any other type
            raise ExportError(f"{folder / FACTS} is damaged ({one_line(error)}): copy the folder again.") from error
        if language["kind"] == "local" and language_model is None:
            raise ExportError(f"{folder} was trained with a local language model ({language['name']}): give "
                              "language_model='its path here'.")
        model, tokenizer = E2LLMForConditionalGeneration.with_tokenizer(folder, language_model,
                                                                        dtype or language["dtype"], device_map)
        found = (weights_mark(model.language_model), tokenizer_mark(tokenizer))
        for what, mark in zip(("weights", "tokenizer"), found, strict=True):
            if mark and language[what] and mark != language[what]:
                raise ExportError(f"{folder} was trained with another language model than "
                                  f"'{language_model or language['name']}': its {what} differ"
                                  f"{'s' * (what == 'tokenizer')}, though its size is the same. Give the one that it "
                                  "was trained with.")
        targets = lora_targets(model.language_model, LORA_TARGETS, "language_model.")
        model = with_adapter(model, folder / "adapter", {"target_modules": targets})
        processor = E2LLMProcessor(tokenizer, model.config.eeg_tokens, model.config.evidence_slots,
                                   model.config.levels)
        population = PopulationStatistics.open(folder / "population_statistics.safetensors")
        shapes = [(n, len(BANDS)), (2, len(facts["evidence"])), (2, n * len(BANDS))]
        found = [value.shape for value in vars(population).values()]
        params = PreprocessParams(**facts["preprocess"])
        if (model.encoder is None or facts["ch_names"] != list(model.encoder.ch_names) or found != shapes
                or round(params.window_s * params.sfreq) // PATCH % model.config.eeg_tokens):
            raise ExportError(f"{folder / FACTS} is damaged (its channels, windows, weights and statistics do not "
                              "belong together): copy the folder again.")
        return cls(model, processor, facts, population)

    @property
    def label_set(self) -> LabelSet:
        """The closed set of answers."""
        return LabelSet.from_dict(self.facts["label_set"])

    def read(self, *files: str | Path, statistics: str | None = None,
             table: TableOptions | None = None) -> NewRecording:
        """Read files of one subject.

        Parameters
        ----------
        *files : path
            In any format that MNE reads. Subject statistics are taken over all of them.
        statistics : str, optional
            What the windows are compared with: ``subject`` (mean of these files, without labels; needs 12 windows) or
            ``population`` (subjects of the training run). Default: as in training, ``facts["statistics"]``.
        table : TableOptions, optional
            What tables of samples do not say themselves.

        Raises
        ------
        ValueError
            Without files.
        RecordingError
            If a file cannot be used; see :func:`e2llm.data.new_subject.read_windows`.
        """
        if not files:
            raise ValueError("read() needs at least one file.")
        statistics = statistics or self.facts["statistics"]
        windows, notes = read_windows(files, self.facts["ch_names"], PreprocessParams(**self.facts["preprocess"]),
                                      statistics, table)
        corpus = NewSubject.of(windows, self.label_set, self.population, statistics,
                               SCALES[self.model.config.levels])
        # features are computed for the windows of a question
        features = np.empty((0, windows.data.shape[-1] // PATCH, self.model.config.eeg_width), dtype=np.float32)
        engine = InferenceEngine(self.model, self.processor, features, {})
        return NewRecording(engine, corpus, encoder=self.model.encoder, notes=(STATISTICS_NOTES[statistics], *notes))

    def __repr__(self) -> str:
        facts, labels = self.facts, ", ".join(self.facts["label_set"]["labels"])
        return f"E2-LLM '{facts['run']}' ({facts['dataset']}): {labels}; {facts['protocol']}"


@dataclass(frozen=True, repr=False)
class NewRecording(E2LLM):
    """A recording of a new subject with the model: an :class:`E2LLM` with notes.

    The notes say which statistics it is compared with, and which channels were interpolated.
    """

    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.corpus.windows)

    def __repr__(self) -> str:
        index = self.corpus.windows.index
        files = ", ".join(index["file"].unique())
        return "\n".join([f"{files}: {len(self)} windows", *(f"  {note}" for note in self.notes)])
