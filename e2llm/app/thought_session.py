"""Ask a model whose answers come from its thoughts alone (:mod:`e2llm.tasks.second_pass`), and change what they state.

::

    model = E2LLMFromThought.of_run(run)
    answer = model.ask(3, "Which emotion does this segment show?")
    print(model.with_levels(answer, {"occipital alpha": "very low"}))  # the answer to the edited claims

An export answers likewise: ``E2LLMFromThought.from_pretrained("exported/tiny").read("new.edf")``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import __version__
from ..core.chat import END_THINK, LETTERS, THINK, Item
from ..core.claims import SCALES, Claim, Claims
from ..core.files import one_line, read_mapping
from ..data.dataset import Corpus
from ..data.sources import TableOptions
from ..evaluation.faithfulness import flags
from ..evaluation.from_thought import DIRECT, SecondPass
from ..evaluation.reasoning import thought_of
from ..models.adapting import lora_targets, token_targets
from ..models.inference import InferenceEngine
from ..models.language import load_language_model
from ..models.modeling import language_model_source
from ..tasks.items import evidence_sentence
from ..tasks.second_pass import Asked
from ..tasks.taught import recognize
from ..tasks.thought_parser import Parsed, parse
from ..tasks.wordings import ZERO_SHOT_WORDINGS
from ..training.stage3_instruction import LAYERS
from ..viz.answer_view import Explained, Piece, pieces
from .chat_session import E2LLM, ExportedModel, NewRecording
from .hub_import import SECOND_PASS, ExportError, export_folder, open_facts, with_adapter
from .runs import Run
from .second_pass_stage import open_second_pass, taught_questions, text_engine

SERVED = ("predict", "compare", "rank", "match")  # tasks that stated evidence can serve
_SEGMENT = re.compile(rf"(?m)^([{LETTERS}]): ")


@dataclass(frozen=True)
class E2LLMFromThought(E2LLM):
    """A model with a second pass: the first pass speaks of each window, the answer is read from what it states.

    :meth:`explain` takes any text as the first pass: what the grammar reads in it is all that reaches the answer.

    Parameters
    ----------
    second : SecondPass
        Trained on the same run.
    """

    second: SecondPass | None = None

    @classmethod
    def of_run(cls, run: Run, corpus: Corpus | None = None) -> E2LLMFromThought:
        """The model of a finished run.

        Parameters
        ----------
        run : Run
            With the stages ``adapter`` and ``second_pass`` finished.
        corpus : Corpus, optional
            Dataset of the run, if it is open already.
        """
        model = E2LLM.of_run(run, corpus)
        return cls(model.engine, model.corpus, run, second=open_second_pass(run, model.corpus, model.engine))

    @classmethod
    def from_pretrained(cls, folder: str | Path, language_model: str | None = None,
                        revision: str | None = None, device_map: str | None = None) -> ExportedModelFromThought:
        """An exported model whose recordings are asked in this way.

        Parameters
        ----------
        folder, language_model, revision, device_map
            As for :meth:`e2llm.app.chat_session.E2LLM.from_pretrained`; errors are those of
            :meth:`ExportedModelFromThought.from_pretrained`.
        """
        return ExportedModelFromThought.from_pretrained(folder, language_model, revision, device_map=device_map)

    def stream(self, windows: int | Sequence[int], question: str, said: str = "",
               task: str | None = None) -> Iterator[str]:
        """The thoughts while they are written, then the answer that follows from them; errors are those of ``ask``.

        Parameters
        ----------
        windows : int or sequence of int
            One to four rows of the windows.
        question : str
            The name of a task, or a wording of one that a thought serves (:data:`SERVED`).
        said : str
            Beginning of the text about one window.
        task : str, optional
            Not free here: a thought serves the tasks in :data:`SERVED`.
        """
        rows = self._rows(windows)
        self._item(rows, question, task)  # refused before anything is written
        if len(rows) == 1:
            yield from super().stream(rows, question, said, task)
            return
        before = ""
        for letter, row in zip(LETTERS, rows, strict=False):
            text = ""
            for text in super().stream(row, "predict"):
                yield f"{before}{letter}: {thought_of(text)}"
            before += f"{letter}: {thought_of(text)}\n"
        yield before

    def explain(self, windows: int | Sequence[int], question: str, text: str, task: str | None = None) -> Explained:
        """The answer that follows from what a text states; errors are those of ``ask``.

        Parameters
        ----------
        windows : int or sequence of int
            One to four rows of the windows.
        question : str
            As for :meth:`stream`.
        text : str
            A thought; of several windows one a line, after their letters ("A: Evidence: …").
        task : str, optional
            As for :meth:`stream`.
        """
        rows = self._rows(windows)
        item, names, labels = self._item(rows, question, task), self.corpus.evidence_names, self.corpus.label_set.labels
        cut_off = len(rows) == 1 and THINK in text and END_THINK not in text
        read = [parse(thought, labels, names.scale, cut_off) for thought in _thoughts(text, len(rows))]
        stated = [self._in_order(parsed.claims) for parsed in read]
        direct = super().explain(rows, question, "", task)
        answer, said, shares = self._answer(item, stated)
        sentences = [evidence_sentence(claims, grouped=True) for claims in stated]
        if len(rows) == 1:
            thought = f"{sentences[0]} {said}"
            found = pieces(thought, labels, self.corpus.z[rows], names)
        else:
            lines = [f"{letter}: {sentence}" for letter, sentence in zip(LETTERS, sentences, strict=False)]
            thought = "\n".join([*lines, said])
            found = tuple(piece._replace(text=f"{letter}: {piece.text}" if i == 0 else piece.text)
                          for letter, sentence, row in zip(LETTERS, sentences, rows, strict=False)
                          for i, piece in enumerate(pieces(sentence, labels, self.corpus.z[[row]], names)))
            found += pieces(said, labels, self.corpus.z[rows], names)
        unread = tuple(Piece(sentence, Parsed((), (sentence,)), ()) for parsed in read for sentence in parsed.unread)
        return replace(direct, text=f"{THINK}\n{thought}\n{END_THINK}\n\n{answer}", thought=thought, answer=answer,
                       pieces=found + unread, probabilities_after=shares, from_thought=True, stated=tuple(stated),
                       asked=question, flag=flags(read[0], self.corpus.z[rows[0]], names) if len(rows) == 1 else None)

    def with_levels(self, answer: Explained, levels: Mapping[str, str], segment: str = "A") -> Explained:
        """The answer again, with other levels stated.

        Parameters
        ----------
        answer : Explained
            Of this model.
        levels : mapping of str to str
            Feature to level; "typical" takes a claim away.
        segment : str
            Letter of the segment whose claims change.

        Raises
        ------
        ValueError
            For a feature that was not measured, a level that the scale does not have, or a letter without a segment.
        """
        names = self.corpus.evidence_names
        if segment not in LETTERS[: len(answer.rows)]:
            raise ValueError(f"There is no segment {segment!r:.10}: the answer is about "
                             f"{', '.join(LETTERS[: len(answer.rows)])}.")
        if wrong := [feature for feature in levels if feature not in names.columns]:
            raise ValueError(f"{wrong[0]!r:.40} was not measured: give one of {', '.join(names.columns)}.")
        if wrong := [level for level in levels.values() if level not in names.scale.words]:
            raise ValueError(f"{wrong[0]!r:.40} is no level: give one of {', '.join(names.scale.words)}.")
        stated, place = list(answer.stated), LETTERS.index(segment)
        kept = [claim for claim in stated[place] if claim.feature not in levels]
        stated[place] = self._in_order([*kept, *(Claim(feature, level) for feature, level in levels.items())])
        sentences = [evidence_sentence(claims, grouped=True) for claims in stated]
        text = sentences[0] if len(sentences) == 1 else "\n".join(
            f"{letter}: {sentence}" for letter, sentence in zip(LETTERS, sentences, strict=False))
        return self.explain(answer.rows, answer.asked, text)

    def _in_order(self, claims: Claims) -> tuple[Claim, ...]:
        """The claims that count, in the order of the features: not those that are typical or contradict each other."""
        said = [(feature, {claim.level for claim in claims if claim.feature == feature} - {"typical"})
                for feature in self.corpus.evidence_names.columns]
        return tuple(Claim(feature, next(iter(levels))) for feature, levels in said if len(levels) == 1)

    def _answer(self, item: Item, stated: list[Claims]) -> tuple[str, str, dict[str, float] | None]:
        """The answer, the sentences that lead to it, and the probability of every option of one window."""
        if item.kind in DIRECT:
            shares = self.second.shares(stated)[0]
            answer = self.corpus.label_set.labels[int(shares.argmax())]
            feeling = f"This is {self.second.affect(stated)[0]}. " if self.corpus.label_set.has_affect else ""
            return answer, f"{feeling}That fits {answer}.", dict(zip(item.options, shares.tolist(), strict=True))
        found = self.second.answers([item], dict(zip(item.windows, stated, strict=True)))
        return found.chosen[0], thought_of(found.texts[0]), None

    def _item(self, rows: list[int], question: str, task: str | None) -> Item:
        if len(set(rows)) < len(rows):
            raise ValueError("A window stands twice in the question, and answers from the thought tell segments apart "
                             "by their window: give each window once.")
        item = super()._item(rows, question, task)
        words = question.strip()
        known = {form.format(noun=self.corpus.label_set.noun).rstrip("?.") for form in ZERO_SHOT_WORDINGS}
        taught = recognize(words, len(rows), self.corpus.label_set)
        if item.kind not in SERVED or not (words.partition(" ")[0] in SERVED or words.rstrip("?.") in known
                                           or (taught and taught.task in SERVED)):
            raise ValueError(f"A thought states levels of evidence, and nothing that this question asks for: name a "
                             f"task ({', '.join(SERVED)}), or ask a model that sees the EEG (E2LLM).")
        return item


def _thoughts(text: str, n: int) -> list[str]:
    """The thought about each segment; of several, what stands after its letter at the beginning of a line."""
    if n == 1:
        return [thought_of(text)]
    parts = _SEGMENT.split(text)
    by_letter = dict(zip(parts[1::2], parts[2::2], strict=True))
    return [by_letter.get(letter, "") for letter in LETTERS[:n]]


def _trained_tokens(language: PreTrainedModel, folder: Path) -> dict[str, list[int]]:
    """The tokens whose embeddings belong to the second pass, as its configuration names them for this language model.

    Raises
    ------
    ExportError
        If they are no tokens of the language model.
    """
    path = folder / "adapter_config.json"
    try:
        stated = read_mapping(path, {"trainable_token_indices": dict}, "copy it again")["trainable_token_indices"]
    except ValueError as error:
        raise ExportError(f"{folder} holds no second pass that can be used ({one_line(error)}): copy the folder "
                          "again.") from error
    ids = next(iter(stated.values()), None)
    n_tokens = language.get_input_embeddings().weight.shape[0]
    if not (isinstance(ids, list) and ids and all(type(one) is int and 0 <= one < n_tokens for one in ids)):
        raise ExportError(f"{path} names trained tokens that its language model does not have: copy the folder again.")
    return token_targets(language, ids)


def _second_pass(folder: Path, language: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> InferenceEngine:
    """The language model as it was before stage 3, with the adapter and the token embeddings of the second pass."""
    tokens = _trained_tokens(language, folder)
    wanted = {"target_modules": lora_targets(language, LAYERS), "trainable_token_indices": tokens}
    return text_engine(with_adapter(language, folder, wanted), tokenizer)


@dataclass(frozen=True, repr=False)
class ExportedModelFromThought(ExportedModel):
    """A model from an export with a second pass; the answers about a recording come from the thoughts alone.

    Parameters
    ----------
    second : InferenceEngine
        The language model with the adapter of the second pass.
    """

    second: InferenceEngine | None = None

    @classmethod
    def from_pretrained(cls, folder: str | Path, language_model: str | None = None, revision: str | None = None,
                        dtype: str | None = None, device_map: str | None = None) -> ExportedModelFromThought:
        """Load an export and its second pass, which needs a second copy of the language model.

        Parameters
        ----------
        folder, language_model, revision, dtype, device_map
            As for :meth:`e2llm.app.chat_session.ExportedModel.from_pretrained`.

        Raises
        ------
        ExportError, LanguageModelError
            As there, and if the export holds no second pass.
        """
        folder = export_folder(folder, revision)
        facts = open_facts(folder)
        if not facts.get(SECOND_PASS):
            raise ExportError(f"{folder} holds no second pass, so answer_from='thought' is not there: read the answers "
                              "from the EEG, or export a run that was made with answer_from = 'thought'.")
        found = super().from_pretrained(folder, language_model, dtype=dtype, device_map=device_map)
        asked = map(Asked, facts[SECOND_PASS]["questions"])
        if facts[SECOND_PASS] != taught_questions(asked, SCALES[found.model.config.levels], found.label_set):
            made_by = facts.get("e2llm", "of another version")
            raise ExportError(f"{folder} was written by e2llm {made_by}, whose second pass reads other levels or "
                              f"questions than that of {__version__}: install e2llm {made_by}.")
        # Its adapter belongs to the language model as it was before stage 3.
        source = language_model_source(folder, found.model.config, language_model)
        again = load_language_model(source, dtype or facts["language_model"]["dtype"], device_map=device_map)
        return replace(found, second=_second_pass(folder / SECOND_PASS, *again))

    def read(self, *files: str | Path, statistics: str | None = None,
             table: TableOptions | None = None) -> NewRecordingFromThought:
        """Read files of one subject; errors are those of :class:`e2llm.app.chat_session.ExportedModel`.

        Parameters
        ----------
        *files, statistics, table
            As for :meth:`e2llm.app.chat_session.ExportedModel.read`.
        """
        new = super().read(*files, statistics=statistics, table=table)
        second = SecondPass(self.second, new.engine, new.corpus.evidence_names, new.corpus.label_set,
                            str(Asked.INTENSITY) in self.facts[SECOND_PASS]["questions"])
        return NewRecordingFromThought(new.engine, new.corpus, encoder=new.encoder, notes=new.notes, second=second)


@dataclass(frozen=True, repr=False)
class NewRecordingFromThought(NewRecording, E2LLMFromThought):
    """A recording of a new subject whose answers come from the thoughts alone, and whose levels can be changed."""
