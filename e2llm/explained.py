"""An answer of a model, every statement in it held against what was measured, as text, as HTML and as a figure.

Every statement about a feature gets a mark and a colour: ✓ true of the window, ✗ not true of it, ? neither, because no rule reads
the sentence or nothing was measured that could decide. What is not read is never counted as correct.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .calibration import Baseline
from .faithfulness import Flag, Verdict, flags, verdicts
from .features import LEVEL_THRESHOLD, EvidenceNames, differential_entropy, level
from .grammar import Order, Parsed, Quiet, Statement, parse, sentences
from .newcomer import Newcomer
from .questions import LETTERS
from .segments import Claim
from .stages import Corpus
from .widgets import MARKS, answer_view, escaped, letters_of, marked

BEFORE = "Probability of each answer, read from the EEG before any explanation"
AFTER = "Probability of each answer after the explanation, which may already name an answer"
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


def _likeliest(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda pair: -pair[1])[:MOST_SHOWN]


def _bars(shares: dict[str, float], colour: str) -> str:
    """HTML table of the likeliest answers with a bar each."""
    cell = '<td style="text-align: right">'
    rows = "".join(f"<tr>{cell}{escaped(name)}</td>{cell}{share:.0%}</td><td>"
                   f'<div style="width: {160 * share:.0f}px; height: 0.8em; background: {colour}"></div></td></tr>'
                   for name, share in _likeliest(shares))
    return f"<table>{rows}</table>"


@dataclass(frozen=True, repr=False)
class Explained:
    """A question, the answer, and every statement on the way to it with its verdict.

    As the value of a cell it is coloured HTML, in a batch run the same in plain text but for what the HTML folds away.

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
        It is what the text says, also where the probabilities favour another.
    pieces : tuple of Piece
        What was said, in order, checked.
    flag : Flag or None
        Whether the explanation of one window is fabricated; None for several windows.
    probabilities : dict of str to float
        Share of every answer of the closed set, read from the EEG before any explanation
        (:func:`e2llm.evaluate.closed_set`); sums to 1.
    probabilities_after : dict of str to float, or None
        The same after the thought; None if nothing was thought. It does not say how sure the model is: a thought that
        names an answer has chosen it.
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
    probabilities_after: dict[str, float] | None
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

    @property
    def favoured(self) -> str:
        """The answer that is the most probable before any explanation."""
        return max(self.probabilities, key=self.probabilities.get)

    def _disagreement(self) -> str:
        """What stands behind the text's answer where the probabilities favour another."""
        return f" (the probabilities favour {self.favoured})" if self.answer not in (None, self.favoured) else ""

    def _heard(self) -> list[str]:
        return [f"{letter}{name}" for letter, name in zip(letters_of(len(self.windows)), self.windows, strict=True)]

    def _summary(self) -> list[str]:
        """Lines that stand below thought and answer: counts, and the flag."""
        count = {verdict: sum(found is verdict for _, found in self.claims) for verdict in Verdict}
        lines = [f"{count[Verdict.TRUE]} true, {count[Verdict.FALSE]} false, {count[Verdict.UNKNOWN]} that cannot be checked, "
                 f"{len(self.unread)} unread"]
        return lines + ([f"fabricated: {self.flag.reason}"] if self.flag is not None and self.flag.fabricated else [])

    def __str__(self) -> str:
        thought = " ".join(" ".join([piece.text, *(MARKS[verdict][0] for verdict, _ in piece.marks)]) for piece in self.pieces)
        listed = [f"  {MARKS[verdict][0]} {words}" for verdict, words in dict.fromkeys(mark for piece in self.pieces for mark in piece.marks)]
        shares = ", ".join(f"{name} {share:.0%}" for name, share in _likeliest(self.probabilities))
        return "\n".join([*self._heard(), f"Q: {self.question}", f"Thought: {thought or '(none)'}", *listed,
                          f"A: {self.answer or '(none of the closed set)'}{self._disagreement()}", *self._summary(),
                          f"{BEFORE}: {shares}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        answer = escaped(self.answer or "no answer of the closed set")
        heard, summary = ("<br>".join(map(escaped, lines)) for lines in (self._heard(), self._summary()))
        legend = " · ".join(marked(verdict, words) for verdict, words in
                            zip(Verdict, ("measured so", "measured otherwise", "not read, or nothing measured decides"), strict=True))
        folded = ""
        if self.probabilities_after is not None:
            bars = _bars(self.probabilities_after, "#767676")
            folded = f"<details><summary><small>{AFTER}</small></summary>{bars}</details>"
        return (f'<div><small>{heard}</small><br><b>{escaped(self.question)}</b>'
                f'<div style="margin: 4px 0">{" ".join(map(_piece_html, self.pieces)) or "<i>no thought</i>"}</div>'
                f"<div><b>{answer}</b>{html.escape(self._disagreement())}</div>"
                f"<small>{summary}<br>{legend}</small>"
                f"<div>{BEFORE}</div>{_bars(self.probabilities, '#0072B2')}{folded}</div>")

    def figure(self) -> Figure:
        """Scalp maps, spectra, and probabilities before any explanation (:func:`e2llm.widgets.answer_view`).

        Maps are z-scores of each channel's differential entropy against the person's own level, from the rows that the split gives
        for it. Spectra (dB re 1 µV²/Hz) are means over channels, dashed the person's mean over at most :data:`REFERENCE_WINDOWS` of
        those rows. The text's answer is marked where another one is the most probable.
        """
        references = [_reference(self.corpus, row) for row in self.rows]
        against = "population level" if self.corpus.split.normalisation == "population" else "own level"
        return answer_view(self.corpus.windows, self.rows, channel_z(self.corpus, self.rows), references,
                           _likeliest(self.probabilities), self.question, against, self.answer)


def channel_z(corpus: Corpus, rows: Sequence[int]) -> np.ndarray:
    """Differential entropy of some windows against the person's own level, channel by channel; shape (len(rows), n_channels, n_bands)."""
    entropy = differential_entropy(np.asarray(corpus.windows.power))
    flat, rows = entropy.reshape(len(entropy), -1), list(rows)
    baseline = corpus.channel_levels if isinstance(corpus, Newcomer) else Baseline.fit(flat, corpus.whose, corpus.split)
    return baseline.z(flat[rows], corpus.whose[rows]).reshape(len(rows), *entropy.shape[1:])


def _reference(corpus: Corpus, row: int) -> tuple[str, np.ndarray]:
    """Whose level a window is compared with, and that level's rows: the same as in :class:`e2llm.calibration.Baseline`."""
    fit = corpus.split.fit
    if isinstance(corpus, Newcomer):  # the population's own windows are not here
        return "the recording", fit[np.unique(np.linspace(0, len(fit) - 1, REFERENCE_WINDOWS).astype(int))]
    own = fit[corpus.whose[fit] == corpus.whose[row]]
    who, rows = ("everybody", fit) if corpus.split.normalisation == "population" or not len(own) else (f"subject {corpus.whose[row]}", own)
    return who, rows[np.unique(np.linspace(0, len(rows) - 1, REFERENCE_WINDOWS).astype(int))]
