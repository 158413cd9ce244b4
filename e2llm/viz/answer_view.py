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

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..core.bands import BANDS
from ..core.chat import LETTERS
from ..core.claims import LEVEL_THRESHOLD, Claim, EvidenceNames, Verdict, level, verdicts
from ..data.dataset import Corpus
from ..data.features import differential_entropy
from ..data.new_subject import NewSubject
from ..data.normalization import Baseline
from ..data.preprocessing import Windows
from ..evaluation.faithfulness import Flag, flags
from ..tasks.thought_parser import Comparison, NoSalientFeature, Parsed, Statement, parse, sentences
from . import plots

MARKS = {"true": ("✓", "#0072B2"), "false": ("✗", "#D55E00"), "unknown feature": ("?", "#767676")}  # of e2llm.core.claims.Verdict



# ---------------------------------------------------------------- the windows of an answer


def letters_of(n: int) -> list[str]:
    """What stands before each of several windows; nothing before a single one."""
    return [f"{letter}: " for letter in LETTERS[:n]] if n > 1 else [""] * n


def escaped(text: str) -> str:
    """Text of any origin on one line, safe to stand in HTML."""
    return html.escape(" ".join(text.split()))


def marked(verdict: str, text: str, title: str = "") -> str:
    """HTML of some words in a verdict's colour, with its mark behind them and ``title`` under the pointer; both are escaped."""
    mark, colour = MARKS[verdict]
    return f'<span style="color: {colour}" title="{html.escape(title)}">{escaped(text)}&nbsp;<b>{mark}</b></span>'


def answer_view(windows: Windows, rows: Sequence[int], z: np.ndarray, references: Sequence[tuple[str, np.ndarray]],
                shares: Sequence[tuple[str, float]], title: str, against: str = "own level",
                said: str | None = None) -> Figure:
    """Scalp maps of every band, spectra, and answer probabilities; no longer pyplot's, so a notebook shows it once.

    Parameters
    ----------
    windows, rows : Windows and sequence of int
        What was heard, in the order of the letters.
    z : ndarray, shape (len(rows), n_channels, n_bands)
        Standard deviations from a level, drawn from -3 to 3.
    references : sequence of (str, ndarray)
        For every window whose level that is, and the rows whose mean spectrum is drawn dashed.
    shares : sequence of (str, float)
        Answers and their probabilities (0 to 1) before any explanation, the likeliest first.
    title : str
        Stands above the figure as it is, dollar signs and all.
    against : str
        What ``z`` is a distance from.
    said : str, optional
        Answer that the text gives; it is marked if it is not the likeliest.
    """
    n, bands = len(rows), list(BANDS)
    layout = [[f"{i} {band}" for band in bands] for i in range(n)] + [["spectrum"] * 3 + ["answers"] * 2]
    figure, axes = plt.subplot_mosaic(layout, figsize=(12, 2.3 * n + 3.4), height_ratios=[1] * n + [1.4], layout="constrained")
    maps = {f"{letter}{band}\n{low:g}-{high:g} Hz": z[i, :, j] for i, letter in enumerate(letters_of(n))
            for j, (band, (low, high)) in enumerate(BANDS.items())}
    plots._scalp_maps(figure, [axes[f"{i} {band}"] for i in range(n) for band in bands], maps, windows.ch_names, f"z against {against}", (-3.0, 3.0))
    _draw_spectra(axes["spectrum"], windows, rows, references)
    names, heights = zip(*shares, strict=True)
    axes["answers"].barh(names, [100 * height for height in heights], color=[plots.PALETTE[0]] + ["0.7"] * (len(names) - 1))
    axes["answers"].invert_yaxis()
    if said in names[1:]:  # at most half as long as the axis, so that the words fit behind its bar
        axes["answers"].text(100 * heights[names.index(said)] + 1, said, "the text says this", va="center")
    axes["answers"].set(title="Probability of each answer,\nbefore any explanation", xlabel="probability (%)",
                        xlim=(0, 100))
    title = " ".join(title.split())
    figure.suptitle(title if len(title) <= 100 else f"{title[:99]}…", parse_math=False)
    plt.close(figure)
    return figure


BEFORE = "Probability of each answer, read from the EEG before any explanation"
AFTER = "Probability of each answer after the explanation, which may already name an answer"
MOST_SHOWN = 8  # answers whose probability is shown
REFERENCE_WINDOWS = 100  # a person's mean spectrum is that of at most so many windows, evenly spaced


class Checked(NamedTuple):
    """A statement, whether it is true of what was heard, and what was measured, in words."""

    statement: Claim | Comparison | NoSalientFeature
    verdict: Verdict
    measured: str

    def __str__(self) -> str:
        said = self.statement
        order = f"{said.feature} {said.direction} in {said.first} than in {said.second}" if isinstance(said, Comparison) else ""
        return f"{order or ('no band stands out' if isinstance(said, NoSalientFeature) else said)}: {self.measured}"


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


def check(statement: Claim | Comparison | NoSalientFeature, z: np.ndarray, names: EvidenceNames) -> Checked:
    """Hold a statement against the evidence of the windows that were heard.

    A level claim, and "no band stands out" (as in :func:`e2llm.evaluation.faithfulness.flags`), are decided for one window only: with several
    nobody knows which is meant. An order
    ("occipital alpha higher in A than in B") is true if the z of A minus that of B has the stated sign and is at least
    :data:`e2llm.core.claims.LEVEL_THRESHOLD` in size; each z is against the own person's level. A feature or a letter that was not
    measured or heard makes the verdict ``UNKNOWN``.

    Parameters
    ----------
    statement : Claim, Order or Quiet
        From :func:`e2llm.tasks.thought_parser.parse`.
    z : ndarray, shape (n_windows, n_evidence)
        Rows of :attr:`e2llm.data.dataset.Corpus.z`, in the order of the letters.
    names : EvidenceNames
        What its columns are.
    """
    columns = names.columns
    if isinstance(statement, Comparison):
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
    if isinstance(statement, NoSalientFeature):
        false, top_evidence = flags(Parsed((statement,), ()), z[0], names).n_false, int(np.argmax(np.abs(z[0])))
        return Checked(statement, Verdict.FALSE if false else Verdict.TRUE, f"the largest z is {z[0, top_evidence]:+.2f}, {columns[top_evidence]}")
    if (verdict := verdicts([statement], z[0], names)[0]) is Verdict.UNKNOWN:
        return Checked(statement, verdict, "not measured here")
    value = float(z[0, columns.index(statement.feature)])
    return Checked(statement, verdict, f"z = {value:+.2f}, {level(value)}")


def _can_be_checked(parsed: Parsed) -> list[Statement]:
    return [statement for statement in parsed.statements if isinstance(statement, Claim | Comparison | NoSalientFeature)]


def pieces(thought: str, labels: Sequence[str], z: np.ndarray, names: EvidenceNames) -> tuple[Piece, ...]:
    """The sentences of a thought, cut so that a piece holds one checked statement wherever that is possible.

    A sentence with several of them is cut at its commas if every part can be read alone, makes at most one of them, and all parts
    together say what the sentence says; else it stays whole and is marked once for each of its statements. The text is that of
    :func:`e2llm.tasks.thought_parser.sentences`, without bullets, emphasis and quotes. ``z`` and ``names`` are as in :func:`check`.
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
        (:func:`e2llm.models.inference.closed_set`); sums to 1.
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
    def claims(self) -> tuple[tuple[Claim | Comparison | NoSalientFeature, Verdict], ...]:
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

    def _predicted_evidence(self) -> list[str]:
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
        return "\n".join([*self._predicted_evidence(), f"Q: {self.question}", f"Thought: {thought or '(none)'}", *listed,
                          f"A: {self.answer or '(none of the closed set)'}{self._disagreement()}", *self._summary(),
                          f"{BEFORE}: {shares}"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        answer = escaped(self.answer or "no answer of the closed set")
        predicted_evidence, summary = ("<br>".join(map(escaped, lines)) for lines in (self._predicted_evidence(), self._summary()))
        legend = " · ".join(marked(verdict, words) for verdict, words in
                            zip(Verdict, ("measured so", "measured otherwise", "not read, or nothing measured decides"), strict=True))
        folded = ""
        if self.probabilities_after is not None:
            bars = _bars(self.probabilities_after, "#767676")
            folded = f"<details><summary><small>{AFTER}</small></summary>{bars}</details>"
        return (f'<div><small>{predicted_evidence}</small><br><b>{escaped(self.question)}</b>'
                f'<div style="margin: 4px 0">{" ".join(map(_piece_html, self.pieces)) or "<i>no thought</i>"}</div>'
                f"<div><b>{answer}</b>{html.escape(self._disagreement())}</div>"
                f"<small>{summary}<br>{legend}</small>"
                f"<div>{BEFORE}</div>{_bars(self.probabilities, '#0072B2')}{folded}</div>")

    def figure(self) -> Figure:
        """Scalp maps, spectra, and probabilities before any explanation (:func:`e2llm.viz.answer_view.answer_view`).

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
    baseline = corpus.channel_levels if isinstance(corpus, NewSubject) else Baseline.fit(flat, corpus.norm_groups, corpus.split)
    return baseline.z(flat[rows], corpus.norm_groups[rows]).reshape(len(rows), *entropy.shape[1:])


def _reference(corpus: Corpus, row: int) -> tuple[str, np.ndarray]:
    """Whose level a window is compared with, and that level's rows: the same as in :class:`e2llm.data.normalization.Baseline`."""
    fit = corpus.split.fit
    if isinstance(corpus, NewSubject):  # the population's own windows are not here
        return "the recording", fit[np.unique(np.linspace(0, len(fit) - 1, REFERENCE_WINDOWS).astype(int))]
    own = fit[corpus.norm_groups[fit] == corpus.norm_groups[row]]
    who, rows = ("everybody", fit) if corpus.split.normalisation == "population" or not len(own) else (f"subject {corpus.norm_groups[row]}", own)
    return who, rows[np.unique(np.linspace(0, len(rows) - 1, REFERENCE_WINDOWS).astype(int))]


def _draw_spectra(ax: plt.Axes, windows: Windows, rows: Sequence[int], references: Sequence[tuple[str, np.ndarray]]) -> None:
    drawn = set()
    for i, (row, (who, reference)) in enumerate(zip(rows, references, strict=True)):
        for label, some, style in ((f"segment {LETTERS[i]}" if len(rows) > 1 else "this segment", [row], "-"),
                                   (f"mean of {who} (n = {len(reference)})", reference, "--")):
            if label not in drawn:
                frequencies, density = plots.welch_density(np.asarray(windows.data[some]), windows.sfreq)
                ax.plot(frequencies, plots.decibels(density.mean(axis=1)).mean(axis=0), style, color=plots.PALETTE[i], label=label)
                drawn.add(label)
    plots.frequency_axis(ax, windows.sfreq)
    ax.set_title("Spectrum, mean of channels", pad=18)
    ax.legend(loc="upper right")
