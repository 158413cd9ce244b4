"""Ask a trained model about recorded windows, and see what it says held against what was measured.

Every statement about a feature gets a mark and a colour: ✓ true of the window, ✗ not true of it, ? neither, because no rule reads
the sentence or nothing was measured that could decide. What is not read is never counted as correct.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from queue import Queue
from threading import Event, Thread
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from . import questions, scenarios
from .calibration import Baseline
from .evaluate import Listener, probabilities, score_options
from .faithfulness import Flag, Verdict, flags, verdicts
from .features import LEVEL_THRESHOLD, EvidenceNames, differential_entropy, level
from .grammar import Order, Parsed, Quiet, Statement, parse, sentences
from .language import EEG_TOKEN, END_THINK, THINK
from .questions import LETTERS, Item, _listing
from .runs import Run
from .segments import Claim, Segment
from .stages import Corpus, load_encoder, load_tokens, open_corpus, open_instructed
from .tasks import parse_answer
from .widgets import MARKS, answer_view, escaped, letters_of, marked, window_name

TASKS = {"predict": (1, 1), "describe": (1, 1), "compare": (2, 2), "rank": (3, 4), "match": (2, 4)}  # fewest and most segments
AXES = ("valence", "arousal", "intensity")
MOST_SHOWN = 8  # answers whose probability is shown
REFERENCE_WINDOWS = 100  # a person's mean spectrum is that of at most so many windows, evenly spaced


class Checked(NamedTuple):
    """A statement, whether it is true of what was heard, and what was measured, in words."""

    statement: Claim | Order | Quiet
    verdict: Verdict
    measured: str

    def __str__(self) -> str:
        said = self.statement
        order = f"{said.feature} {said.direction} in {said.first} than in {said.second}" if isinstance(said, Order) else ""
        return f"{order or ('no band stands out' if isinstance(said, Quiet) else said)}: {self.measured}"


class Piece(NamedTuple):
    """Some words, whether the grammar reads them, and the statements in them that a measurement may decide."""

    text: str
    parsed: Parsed
    checked: tuple[Checked, ...]

    @property
    def marks(self) -> list[tuple[Verdict, str]]:
        """Verdict and explanation of every mark that belongs behind the words; none where nothing is claimed of a feature."""
        if self.parsed.unread:
            return [(Verdict.UNKNOWN, "not read: no rule of the grammar fits")]
        return [(each.verdict, str(each)) for each in self.checked]


def check(statement: Claim | Order | Quiet, z: np.ndarray, names: EvidenceNames) -> Checked:
    """Hold a statement against the evidence of the windows that were heard.

    A level claim, and "no band stands out" (as in :func:`e2llm.faithfulness.flags`), are decided for one window only: with several
    nobody knows which is meant. An order
    ("occipital alpha higher in A than in B") is true if the z of A minus that of B has the stated sign and is at least
    :data:`e2llm.features.LEVEL_THRESHOLD` in size; each z is against the own person's level. A feature or a letter that was not
    measured or heard makes the verdict ``UNKNOWN``.

    Parameters
    ----------
    statement : Claim, Order or Quiet
        From :func:`e2llm.grammar.parse`.
    z : ndarray, shape (n_windows, n_evidence)
        Rows of :attr:`e2llm.stages.Corpus.z`, in the order of the letters.
    names : EvidenceNames
        What its columns are.
    """
    columns = names.columns
    if isinstance(statement, Order):
        letters = LETTERS[: len(z)] if len(z) > 1 else ""
        if lost := [letter for letter in (statement.first, statement.second) if letter not in letters]:
            return Checked(statement, Verdict.UNKNOWN, f"no segment {lost[0]} was heard")
        if statement.feature not in columns:
            return Checked(statement, Verdict.UNKNOWN, "not measured here")
        first, second = (float(z[letters.index(letter), columns.index(statement.feature)]) for letter in (statement.first, statement.second))
        stated = first - second if statement.direction == "higher" else second - first
        words = f"z = {first:+.2f} in {statement.first}, {second:+.2f} in {statement.second}"
        return Checked(statement, Verdict.TRUE if stated >= LEVEL_THRESHOLD else Verdict.FALSE, words)
    if len(z) > 1:
        return Checked(statement, Verdict.UNKNOWN, "which segment is meant is not said")
    if isinstance(statement, Quiet):
        false, loudest = flags(Parsed((statement,), ()), z[0], names).n_false, int(np.argmax(np.abs(z[0])))
        return Checked(statement, Verdict.FALSE if false else Verdict.TRUE, f"the largest z is {z[0, loudest]:+.2f}, {columns[loudest]}")
    if (verdict := verdicts([statement], z[0], names)[0]) is Verdict.UNKNOWN:
        return Checked(statement, verdict, "not measured here")
    value = float(z[0, columns.index(statement.feature)])
    return Checked(statement, verdict, f"z = {value:+.2f}, {level(value)}")


def _can_be_checked(parsed: Parsed) -> list[Statement]:
    return [statement for statement in parsed.statements if isinstance(statement, Claim | Order | Quiet)]


def pieces(thought: str, labels: Sequence[str], z: np.ndarray, names: EvidenceNames) -> tuple[Piece, ...]:
    """The sentences of a thought, cut so that a piece holds one checked statement wherever that is possible.

    A sentence with several of them is cut at its commas if every part can be read alone, makes at most one of them, and all parts
    together say what the sentence says; else it stays whole and is marked once for each of its statements. The text is that of
    :func:`e2llm.grammar.sentences`, without bullets, emphasis and quotes. ``z`` and ``names`` are as in :func:`check`.
    """
    found = []
    for sentence in sentences(thought):
        whole = parse(sentence, labels)
        parts = re.split(r"(?<=,)\s+", sentence) if len(_can_be_checked(whole)) > 1 else [sentence]
        alone = [parse(part.rstrip(","), labels) for part in parts]
        said = tuple(itertools.chain.from_iterable(part.statements for part in alone))
        if said != whole.statements or any(part.unread or len(_can_be_checked(part)) > 1 for part in alone):
            parts, alone = [sentence], [whole]
        found += [Piece(text, parsed, tuple(check(each, z, names) for each in _can_be_checked(parsed)))
                  for text, parsed in zip(parts, alone, strict=True)]
    return tuple(found)


def _piece_html(piece: Piece) -> str:
    if len(piece.marks) == 1:
        return marked(piece.marks[0][0], piece.text, piece.marks[0][1])
    listed = "; ".join(marked(verdict, words, words) for verdict, words in piece.marks)
    return escaped(piece.text) + (f" <small>({listed})</small>" if listed else "")


@dataclass(frozen=True, repr=False)
class Explained:
    """A question, the answer, and every statement on the way to it with its verdict.

    As the value of a cell it is coloured HTML, in a batch run the same in plain text.

    Parameters
    ----------
    question, windows
        What was asked, and the windows in words, in the order of their letters.
    text : str
        All that the model said.
    thought : str
        What stands before the end of the thought; empty if nothing was thought.
    answer : str or None
        The one of the closed set that stands after the thought; None if none does, and then what stands there is checked too.
    pieces : tuple of Piece
        What was said, in order, checked.
    flag : Flag or None
        Whether the explanation of one window is fabricated; None for several windows.
    probabilities : dict of str to float
        Share of every answer of the closed set after this thought, summing to 1.
    rows, corpus
        What :meth:`figure` draws.
    """

    question: str
    windows: tuple[str, ...]
    text: str
    thought: str
    answer: str | None
    pieces: tuple[Piece, ...]
    flag: Flag | None
    probabilities: dict[str, float]
    rows: tuple[int, ...]
    corpus: Corpus = field(compare=False)

    @property
    def checked(self) -> tuple[Checked, ...]:
        """Everything that was held against a measurement; what is said twice stands once."""
        return tuple(dict.fromkeys(each for piece in self.pieces for each in piece.checked))

    @property
    def claims(self) -> tuple[tuple[Claim | Order | Quiet, Verdict], ...]:
        """Statements and their verdicts."""
        return tuple((each.statement, each.verdict) for each in self.checked)

    @property
    def unread(self) -> tuple[str, ...]:
        """Sentences that no rule of the grammar reads."""
        return tuple(sentence for piece in self.pieces for sentence in piece.parsed.unread)

    def _heard(self) -> list[str]:
        return [f"{letter}{name}" for letter, name in zip(letters_of(len(self.windows)), self.windows, strict=True)]

    def _summary(self) -> list[str]:
        """Lines that stand below thought and answer: counts, and the flag."""
        count = {verdict: sum(found is verdict for _, found in self.claims) for verdict in Verdict}
        lines = [f"{count[Verdict.TRUE]} true, {count[Verdict.FALSE]} false, {count[Verdict.UNKNOWN]} that cannot be checked, "
                 f"{len(self.unread)} unread"]
        return lines + ([f"fabricated: {self.flag.reason}"] if self.flag is not None and self.flag.fabricated else [])

    def _likeliest(self) -> list[tuple[str, float]]:
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])[:MOST_SHOWN]

    def __str__(self) -> str:
        thought = " ".join(" ".join([piece.text, *(MARKS[verdict][0] for verdict, _ in piece.marks)]) for piece in self.pieces)
        listed = [f"  {MARKS[verdict][0]} {words}" for verdict, words in dict.fromkeys(mark for piece in self.pieces for mark in piece.marks)]
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self._likeliest())
        return "\n".join([*self._heard(), f"Q: {self.question}", f"Thought: {thought or '(none)'}", *listed,
                          f"A: {self.answer or '(none of the closed set)'}", *self._summary(), f"Probabilities: {shares}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        heard, summary = ("<br>".join(map(escaped, lines)) for lines in (self._heard(), self._summary()))
        legend = " · ".join(marked(verdict, words) for verdict, words in
                            zip(Verdict, ("measured so", "measured otherwise", "not read, or nothing measured decides"), strict=True))
        bars = "".join(f'<tr><td style="text-align: right">{escaped(name)}</td><td style="text-align: right">{share:.0%}</td><td>'
                       f'<div style="width: {160 * share:.0f}px; height: 0.8em; background: #0072B2"></div></td></tr>'
                       for name, share in self._likeliest())
        return (f'<div><small>{heard}</small><br><b>{escaped(self.question)}</b>'
                f'<div style="margin: 4px 0">{" ".join(map(_piece_html, self.pieces)) or "<i>no thought</i>"}</div>'
                f"<div><b>{escaped(self.answer or 'no answer of the closed set')}</b></div>"
                f"<small>{summary}<br>{legend}</small><table>{bars}</table></div>")

    def figure(self) -> Figure:
        """Scalp maps, spectra and probabilities (:func:`e2llm.widgets.answer_view`).

        Maps are z-scores of each channel's differential entropy against the person's own level, from the rows that the split gives
        for it. Spectra (dB re 1 µV²/Hz) are means over channels, dashed the person's mean over at most :data:`REFERENCE_WINDOWS` of
        those rows.
        """
        references = [_reference(self.corpus, row) for row in self.rows]
        return answer_view(self.corpus.windows, self.rows, channel_z(self.corpus, self.rows), references, self._likeliest(), self.question)


def channel_z(corpus: Corpus, rows: Sequence[int]) -> np.ndarray:
    """Differential entropy of some windows against the person's own level, channel by channel; shape (len(rows), n_channels, n_bands)."""
    entropy = differential_entropy(np.asarray(corpus.windows.power))
    flat, rows = entropy.reshape(len(entropy), -1), list(rows)
    return Baseline.fit(flat, corpus.whose, corpus.split).z(flat[rows], corpus.whose[rows]).reshape(len(rows), *entropy.shape[1:])


def _reference(corpus: Corpus, row: int) -> tuple[str, np.ndarray]:
    """Whose level a window is compared with, and that level's rows: the same as in :class:`e2llm.calibration.Baseline`."""
    fit = corpus.split.fit
    own = fit[corpus.whose[fit] == corpus.whose[row]]
    who, rows = ("everybody", fit) if corpus.split.normalisation == "population" or not len(own) else (f"subject {corpus.whose[row]}", own)
    return who, rows[np.unique(np.linspace(0, len(rows) - 1, REFERENCE_WINDOWS).astype(int))]


def _growing(listener: Listener, item: Item, said: str, limit: int) -> Iterator[str]:
    """Greedy text after ``said`` as it grows; generation runs in a thread, which ends when nobody listens any more."""
    tokenizer, tokens, stop, failed = listener.processor.tokenizer, Queue(), Event(), []
    streamer = SimpleNamespace(put=lambda value: tokens.put(int(value.reshape(-1)[0])), end=lambda: None)
    inputs = listener.inputs([item], True, [said])

    def stopped(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.full((len(ids),), stop.is_set(), device=ids.device)

    def work() -> None:
        try:
            listener.model.generate(**inputs, max_new_tokens=limit, do_sample=False, pad_token_id=tokenizer.pad_token_id,
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
    """

    listener: Listener
    corpus: Corpus
    run: Run | None = None
    max_new_tokens: int = 128

    @classmethod
    def of_run(cls, run: Run, corpus: Corpus | None = None) -> E2LLM:
        """The model of a finished run; ``StageMissing`` names the notebook that has to come first."""
        model, processor = open_instructed(run)
        return cls(Listener(model, processor, *load_tokens(run)), corpus or open_corpus(run), run)

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
        """Check a text as if the model had said it in answer to a question; parameters and errors of :meth:`ask`."""
        rows, corpus = self._rows(windows), self.corpus
        item, z = self._item(rows, question, task), corpus.z[rows]
        thought, _, rest = text.partition(END_THINK) if END_THINK in text or THINK in text else ("", "", text)
        thought, answer = thought.replace(THINK, "").strip(), parse_answer(text, item.options)
        found = pieces(thought if answer else f"{thought}\n{rest.replace(END_THINK, '')}", corpus.label_set.labels, z, corpus.evidence_names)
        parsed = Parsed(*(tuple(itertools.chain.from_iterable(getattr(piece.parsed, name) for piece in found)) for name in ("statements", "unread")))
        scores = score_options(self._hearing(rows), [item], [f"{text.split(END_THINK, 1)[0].rstrip()}\n{END_THINK}\n\n"])
        words = "".join(part.get("text", " … ") for part in item.messages[0]["content"])
        return Explained(" ".join(words.split()).removeprefix("… "), tuple(window_name(corpus.windows, row) for row in rows), text, thought,
                         answer, found, flags(parsed, z[0], corpus.evidence_names) if len(rows) == 1 else None,
                         dict(zip(item.options, probabilities(scores)[0].tolist(), strict=True)), tuple(rows), corpus)

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
        if marks := [mark for mark in {EEG_TOKEN, *self.listener.processor.tokenizer.all_special_tokens} if mark in question]:
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
        content = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in (group if len(rows) == 1 else _listing(group))]
        return replace(item, messages=[{"role": "user", "content": [*content, {"type": "text", "text": f" {words}"}]}])

    def _wording(self, rows: list[int], task: str, axis: str | None, needs_scenario: bool) -> Item:
        """A wording of a task, drawn by the rows alone; what is known of the windows does not enter, but for a scenario's label."""
        label_set, rng = self.corpus.label_set, np.random.default_rng(rows)
        axis = axis or ("valence" if label_set.has_affect else "intensity")
        if axis != "intensity" and not label_set.has_affect:
            raise ValueError(f"Label set '{label_set.name}' knows no {axis}: ask for the intensity, or in your own words.")
        group = [Segment(row, label_set.labels[0], 0.5, ()) for row in rows]
        if task in ("predict", "describe"):
            maker = questions.predict if task == "predict" else questions.description
            return replace(maker(group[0], label_set, rng), options=list(label_set.labels))
        if task == "match":
            label = self.corpus.windows.index["label"].iloc[rows[rng.integers(len(rows))]]
            texts = scenarios.training_scenarios(label) if needs_scenario else [""]
            return questions.match(group, 0, texts[rng.integers(len(texts))], label_set, rng)
        return (questions.compare if task == "compare" else questions.rank)(group, axis, label_set, rng)

    @cached_property
    def _encoder(self) -> torch.nn.Module:
        if self.run is None:
            raise ValueError("A window has no tokens, and no run is known whose encoder could make them: use E2LLM.of_run.")
        return load_encoder(self.run, self.corpus).encoder.eval()

    def _hearing(self, rows: list[int]) -> Listener:
        """The listener, with tokens made on the spot for windows that it has none of."""
        if not (missing := sorted({row for row in rows if row not in self.listener.position})):
            return self.listener
        corpus, known = self.corpus, sorted(set(rows) - set(missing))
        with torch.no_grad():
            made = self._encoder(corpus.equalise(corpus.windows.data[missing], corpus.whose[missing])).flatten(2).cpu().numpy()
        stored = [self.listener.features[self.listener.position[row]][None] for row in known]
        return replace(self.listener, features=np.concatenate([*stored, made]), position={row: i for i, row in enumerate([*known, *missing])})
