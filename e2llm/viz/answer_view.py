"""An answer with every statement compared with the measurement, as text, as HTML and as a figure.

Every statement about a feature gets a mark and a color: ✓ true of the window, ✗ false, ? undecided, because no rule
reads the sentence or the feature was not measured. An unread sentence is never counted as correct.
"""

from __future__ import annotations

import html
import itertools
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..core.bands import BANDS
from ..core.chat import LETTERS
from ..core.claims import Claim, EvidenceNames
from ..core.montage import REGIONS
from ..core.verdicts import Verdict, checked_z, comparison_verdict, nothing_salient, verdicts
from ..data.dataset import Corpus
from ..data.features import differential_entropy
from ..data.new_subject import NewSubject
from ..data.preprocessing import Windows
from ..evaluation.faithfulness import Flag
from ..tasks.items import evidence_sentence
from ..tasks.thought_parser import Comparison, NoSalientFeature, Parsed, Statement, parse, sentences
from . import plots
from .style import PALETTE, as_text

# of e2llm.core.verdicts.Verdict: mark, color of the words, and color behind them. A claim brings its own ground along:
# it is read alike on a light and on a dark page.
MARKS = {Verdict.TRUE: ("✓", "#00436b", "#d6eaf8"), Verdict.FALSE: ("✗", "#7a2e00", "#fde3d3"),
         Verdict.UNKNOWN: ("?", "#3d3d3d", "#e6e6e6")}
# Ends of a piece of a thought, in front of which its mark stands: behind them it would be read as the next claim's. A
# question mark in front of a full stop would be read as one of the sentence.
_ENDS = {Verdict.TRUE: ",;.", Verdict.FALSE: ",;.", Verdict.UNKNOWN: ",;"}
BAR_COLORS = ("#2f8fd8", "#808080")  # of the first and of further probabilities; seen on light and on dark pages



# ---------------------------------------------------------------- the windows of an answer


def letters_of(n: int) -> list[str]:
    """The letter of each of ``n`` windows with a colon; empty for a single window."""
    return [f"{letter}: " for letter in LETTERS[:n]] if n > 1 else [""] * n


def escaped(text: str) -> str:
    """Text on one line, escaped for HTML."""
    return html.escape(" ".join(text.split()))


def marked(verdict: Verdict, text: str, title: str = "") -> str:
    """Words in the color of a verdict, on its ground and with its mark in front of the last comma or stop, as HTML.

    Parameters
    ----------
    verdict : Verdict
        Decides color and mark.
    text, title : str
        The words, and the text that the browser shows under the pointer; both are escaped.
    """
    mark, color, ground = MARKS[verdict]
    words = escaped(text)
    said = words.rstrip(_ENDS[verdict])
    return (f'<span style="color: {color}; background: {ground}; border-radius: 3px; padding: 0 3px; '
            f'box-decoration-break: clone; -webkit-box-decoration-break: clone" '
            f'title="{html.escape(title)}">{said}&nbsp;<b>{mark}</b></span>{words[len(said):]}')


def answer_view(windows: Windows, rows: Sequence[int], z: np.ndarray, references: Sequence[tuple[str, np.ndarray]],
                shares: Sequence[tuple[str, float]], title: str, against: str = "subject statistics",
                said: str | None = None, heading: str = "before any explanation",
                chain: Sequence[str] = ()) -> Figure:
    """Scalp maps of every band, spectra, and answer probabilities; closed in pyplot, so a notebook shows it once.

    Parameters
    ----------
    windows, rows : Windows and sequence of int
        The windows of the question, in the order of their letters.
    z : ndarray, shape (len(rows), n_channels, n_bands)
        z-scores, drawn from -3 to 3.
    references : sequence of (str, ndarray)
        For every window a name of its reference, and the rows whose mean spectrum is drawn dashed.
    shares : sequence of (str, float)
        Answers and their probabilities (0 to 1), the most probable first.
    title : str
        Above the figure, without interpretation as mathematics.
    against : str
        The statistics that ``z`` is relative to.
    said : str, optional
        Answer in the generated text; it is marked if it is not the most probable.
    heading : str
        What the probabilities were read from.
    chain : sequence of str
        Sentences below the figure: what leads to the answer.
    """
    lines = [line for sentence in chain for line in textwrap.wrap(sentence, 160)]
    n, bands = len(rows), list(BANDS)
    layout = [[f"{i} {band}" for band in bands for _ in range(2)] for i in range(n)]
    layout += [["spectrum"] * 5 + ["."] + ["answers"] * 4]  # a free column for the names of the answers
    below = 0.2 * len(lines) + 0.1 * bool(lines)
    height = 2.3 * n + 3.4 + below
    # Fixed places: a constrained layout would take longer than all drawing together.
    inches = {"left": 0.8 / 12, "right": 1 - 0.3 / 12, "bottom": (0.6 + below) / height, "top": 1 - 1.05 / height}
    figure, axes = plt.subplot_mosaic(layout, figsize=(12, height), height_ratios=[1] * n + [1.15],
                                      gridspec_kw=inches | {"hspace": 0.55, "wspace": 0.4})
    maps = {f"{letter}{band}\n{low:g}-{high:g} Hz": z[i, :, j] for i, letter in enumerate(letters_of(n))
            for j, (band, (low, high)) in enumerate(BANDS.items())}
    plots.scalp_maps(figure, [axes[f"{i} {band}"] for i in range(n) for band in bands], maps, windows.ch_names,
                      f"z against {against}", (-3.0, 3.0))
    _draw_spectra(axes["spectrum"], windows, rows, references)
    names, heights = zip(*shares, strict=True)
    axes["answers"].barh(names, [100 * height for height in heights],
                         color=[PALETTE[0]] + ["0.7"] * (len(names) - 1))
    axes["answers"].invert_yaxis()
    if said in names[1:]:  # at most half as long as the axis, so that the words fit behind its bar
        axes["answers"].text(100 * heights[names.index(said)] + 1, said, "answer in the text", va="center")
    axes["answers"].set(title=f"Probability of each answer,\n{heading}", xlabel="probability (%)", xlim=(0, 100))
    if lines:
        figure.text(0.3 / 12, below / height, "\n".join(lines), va="top", fontsize=9, parse_math=False)
    title = " ".join(title.split())
    figure.suptitle(title if len(title) <= 100 else f"{title[:99]}…", parse_math=False)
    plt.close(figure)
    return figure


BEFORE = "Probability of each answer, read from the EEG before any explanation"
AFTER = "Probability of each answer after the explanation, which may already name an answer"
FROM_STATED = "Probability of each answer, from the stated evidence alone"
MOST_SHOWN = 8  # answers whose probability is shown
REFERENCE_WINDOWS = 100  # a mean spectrum uses at most so many windows, evenly spaced


class Checked(NamedTuple):
    """A statement, its verdict, and the measurement in words."""

    statement: Claim | Comparison | NoSalientFeature
    verdict: Verdict
    measured: str

    def __str__(self) -> str:
        said = self.statement
        if isinstance(said, Comparison):
            said = f"{said.feature} {said.direction} in {said.first} than in {said.second}"
        elif isinstance(said, NoSalientFeature):
            said = "no band stands out"
        return f"{said}: {self.measured}"


class Piece(NamedTuple):
    """Part of a thought, its parsed statements, and those that a measurement can decide."""

    text: str
    parsed: Parsed
    checked: tuple[Checked, ...]

    @property
    def marks(self) -> list[tuple[Verdict, str]]:
        """Verdict and explanation of every mark of this piece; empty where no feature is mentioned."""
        if self.parsed.unread:
            return [(Verdict.UNKNOWN, "not read: no rule of the grammar fits")]
        return [(each.verdict, str(each)) for each in self.checked]


def check(statement: Claim | Comparison | NoSalientFeature, z: np.ndarray, names: EvidenceNames) -> Checked:
    """Compare a statement with the measured evidence of its windows.

    :mod:`e2llm.core.verdicts` decides. A level claim and "no band stands out" are decided for a single window only,
    since they do not name one of several. The verdict is ``UNKNOWN`` for a feature that was not measured and for a
    letter without a window.

    Parameters
    ----------
    statement : Claim, Comparison or NoSalientFeature
        From :func:`e2llm.tasks.thought_parser.parse`.
    z : ndarray, shape (n_windows, n_evidence)
        Rows of :attr:`e2llm.data.dataset.Corpus.z`, in the order of the letters.
    names : EvidenceNames
        Names of its columns.
    """
    columns = names.columns
    if isinstance(statement, Comparison):
        letters = LETTERS[: len(z)] if len(z) > 1 else ""
        if lost := [letter for letter in (statement.first, statement.second) if letter not in letters]:
            return Checked(statement, Verdict.UNKNOWN, f"there is no segment {lost[0]}")
        if statement.feature not in columns:
            return Checked(statement, Verdict.UNKNOWN, "not measured here")
        first, second = (float(z[letters.index(letter), columns.index(statement.feature)])
                         for letter in (statement.first, statement.second))
        words = f"z = {first:+.2f} in {statement.first}, {second:+.2f} in {statement.second}"
        return Checked(statement, comparison_verdict(first, second, statement.direction), words)
    if len(z) > 1:
        return Checked(statement, Verdict.UNKNOWN, "the statement names no segment")
    if isinstance(statement, NoSalientFeature):
        of_window = checked_z(z[0], names, 1)
        top = int(np.argmax(np.abs(of_window)))
        return Checked(statement, Verdict.TRUE if nothing_salient(of_window) else Verdict.FALSE,
                       f"the largest z is {of_window[top]:+.2f}, {columns[top]}")
    if (verdict := verdicts([statement], z[0], names)[0]) is Verdict.UNKNOWN:
        return Checked(statement, verdict, "not measured here")
    value = float(z[0, columns.index(statement.feature)])
    return Checked(statement, verdict, f"z = {value:+.2f}, {names.scale.level(value)}")


def _can_be_checked(parsed: Parsed) -> list[Statement]:
    return [statement for statement in parsed.statements
            if isinstance(statement, Claim | Comparison | NoSalientFeature)]


def pieces(thought: str, labels: Sequence[str], z: np.ndarray, names: EvidenceNames) -> tuple[Piece, ...]:
    """The sentences of a thought, divided so that a piece has one checked statement wherever that is possible.

    A sentence with several statements is divided at its commas and semicolons if each part is readable and makes at
    most one statement, and all parts together make the same statements. A part keeps the region that stands in front of
    it. Otherwise the sentence stays whole and has one mark for each.

    Parameters
    ----------
    thought : str
        Divided by :func:`e2llm.tasks.thought_parser.sentences`, without bullets, emphasis and quotes.
    labels : sequence of str
        Answers that a conclusion may name.
    z, names
        As in :func:`check`.
    """
    found = []
    for sentence in sentences(thought):
        whole = parse(sentence, labels, names.scale)
        parts, alone = [sentence], [whole]
        if len(_can_be_checked(whole)) > 1:
            smaller = re.split(r"(?<=[,;])\s+", sentence)
            read = _read_apart(smaller, labels, names)
            said = tuple(itertools.chain.from_iterable(part.statements for part in read))
            if said == whole.statements and not any(part.unread or len(_can_be_checked(part)) > 1 for part in read):
                parts, alone = smaller, read
        found += [Piece(text, parsed, tuple(check(each, z, names) for each in _can_be_checked(parsed)))
                  for text, parsed in zip(parts, alone, strict=True)]
    return tuple(found)


def _read_apart(parts: Sequence[str], labels: Sequence[str], names: EvidenceNames) -> list[Parsed]:
    """Parts of a sentence, each alone, or after the region in front of it: of "frontal: alpha low, theta high" both."""
    found, region = [], ""
    for part in parts:
        before, colon, _ = part.rpartition(": ")
        region = before.rpartition(": ")[2] if colon else region
        said = part.rstrip(",;")
        alone = parse(said, labels, names.scale)
        if alone.unread and not colon and region.lower() in REGIONS:
            alone = parse(f"{region}: {said}", labels, names.scale)
        found.append(alone)
    return found


def _with_marks(piece: Piece) -> str:
    """A piece as plain text, with its marks in front of the last comma or stop."""
    marks = piece.marks
    said = piece.text.rstrip(_ENDS[marks[0][0]] if marks else "")
    return " ".join([said, *(MARKS[verdict][0] for verdict, _ in marks)]) + piece.text[len(said):]


def _piece_html(piece: Piece) -> str:
    if len(piece.marks) == 1:
        return marked(piece.marks[0][0], piece.text, piece.marks[0][1])
    listed = "; ".join(marked(verdict, words, words) for verdict, words in piece.marks)
    return escaped(piece.text) + (f" <small>({listed})</small>" if listed else "")


def _most_probable(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda pair: -pair[1])[:MOST_SHOWN]


def _bars(shares: dict[str, float], color: str) -> str:
    """HTML table of the most probable answers with a bar each."""
    cell = '<td style="text-align: right">'
    rows = "".join(f"<tr>{cell}{escaped(name)}</td>{cell}{share:.0%}</td><td>"
                   f'<div style="width: {160 * share:.0f}px; height: 0.8em; background: {color}"></div></td></tr>'
                   for name, share in _most_probable(shares))
    return f"<table>{rows}</table>"


@dataclass(frozen=True, repr=False)
class Explained:
    """A question, the answer, and every statement of the explanation with its verdict.

    A notebook shows it as colored HTML, a batch run as plain text.

    Parameters
    ----------
    question, windows
        The question, and the windows in words, in the order of their letters.
    text : str
        The whole generated text.
    thought : str
        The explanation; empty if there is none.
    answer : str or None
        Answer of the closed set after the thought; None if there is none, and then that text is checked too. It may
        differ from :attr:`most_probable`.
    pieces : tuple of Piece
        The explanation in parts, in order, with verdicts.
    flag : Flag or None
        Whether the explanation of one window is fabricated; None for several windows.
    probabilities : dict of str to float
        Share of every answer of the closed set, read from the EEG before any explanation
        (:func:`e2llm.models.inference.closed_set`); sums to 1.
    probabilities_after : dict of str to float, or None
        The same after the thought; None without a thought. It does not measure confidence: a thought that names an
        answer has already chosen it.
    rows, corpus
        Windows and dataset that :meth:`figure` draws.
    from_thought : bool
        Whether the answer was read from the stated evidence alone. :attr:`probabilities_after` are then its own: no
        word before it names an answer.
    stated : tuple of tuple of Claim
        Of each window, what reached such an answer.
    asked : str
        The question of such an answer as it was given.
    note : str
        Why the question should not be trusted to be understood (:meth:`e2llm.app.chat_session.E2LLM.not_taught`).
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
    from_thought: bool = False
    stated: tuple[tuple[Claim, ...], ...] = ()
    asked: str = ""
    note: str = ""

    @property
    def checked(self) -> tuple[Checked, ...]:
        """All statements that were compared with a measurement, each once."""
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
    def most_probable(self) -> str:
        """The most probable answer before any explanation."""
        return max(self.probabilities, key=self.probabilities.get)

    def _disagreement(self) -> str:
        """A note for a text whose answer is not the most probable one."""
        if self.answer in (None, self.most_probable):
            return ""
        if self.from_thought:
            return f" (read from the EEG it would be {self.most_probable})"
        return f" (the most probable answer is {self.most_probable})"

    def _own_shares(self) -> list[tuple[str, dict[str, float]]]:
        """Titles and probabilities that no word before the answer gives away; those of the answer come first."""
        before = [(BEFORE, self.probabilities)]
        if not self.from_thought or self.probabilities_after is None:
            return before
        return [(FROM_STATED, self.probabilities_after), *before]

    def _window_lines(self) -> list[str]:
        return [f"{letter}{name}" for letter, name in zip(letters_of(len(self.windows)), self.windows, strict=True)]

    def _summary(self) -> list[str]:
        """Lines below thought and answer: counts, and the flag."""
        count = {verdict: sum(found is verdict for _, found in self.claims) for verdict in Verdict}
        lines = [f"{count[Verdict.TRUE]} true, {count[Verdict.FALSE]} false, {count[Verdict.UNKNOWN]} that cannot be "
                 f"checked, {len(self.unread)} unread"]
        if not self.claims:  # as a thought that compares segments by their labels: a count of zeros would look like one
            lines = [f"no statement about the signal{f', {len(self.unread)} unread' if self.unread else ''}: nothing "
                     "to check"]
        if self.from_thought and self.unread:
            lines.append("unread sentences did not reach the answer")
        return lines + ([f"fabricated: {self.flag.reason}"] if self.flag is not None and self.flag.fabricated else [])

    def __str__(self) -> str:
        thought = " ".join(_with_marks(piece) for piece in self.pieces)
        listed = [f"  {MARKS[verdict][0]} {words}"
                  for verdict, words in dict.fromkeys(mark for piece in self.pieces for mark in piece.marks)]
        shown = [f"{title}: " + ", ".join(f"{name} {share:.0%}" for name, share in _most_probable(shares))
                 for title, shares in self._own_shares()]
        noted = [f"Note: {self.note}"] if self.note else []
        return "\n".join([*self._window_lines(), f"Q: {self.question}", *noted,
                          f"Thought: {thought or '(none)'}", *listed,
                          f"A: {self.answer or '(none of the closed set)'}{self._disagreement()}", *self._summary(),
                          *shown])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        answer = escaped(self.answer or "no answer of the closed set")
        lines, summary = ("<br>".join(map(escaped, lines)) for lines in (self._window_lines(), self._summary()))
        legend = " · ".join(marked(verdict, words) for verdict, words in
                            zip(Verdict, ("true of the signal", "false", "not read, or not measured"), strict=True))
        legend += " · unmarked: no claim about the signal"
        note = f"<div><i>{escaped(self.note)}</i></div>" if self.note else ""
        said = " ".join(map(_piece_html, self.pieces)) or "<i>no thought</i>"
        first, *others = self._own_shares()
        more = others + ([(AFTER, self.probabilities_after)] if self.probabilities_after and not self.from_thought
                         else [])
        folded = "".join(f"<details><summary><small>{title}</small></summary>{_bars(shares, BAR_COLORS[1])}</details>"
                         for title, shares in more)
        return (f'<div><small>{lines}</small><br><b>{escaped(self.question)}</b>{note}'
                f'<div style="margin: 4px 0; overflow-wrap: anywhere">{said}</div>'
                f"<div><b>{answer}</b>{html.escape(self._disagreement())}</div><small>{summary}<br>{legend}</small>"
                f"<div>{first[0]}</div>{_bars(first[1], BAR_COLORS[0])}{folded}</div>")

    def figure(self) -> Figure:
        """Scalp maps, spectra, and probabilities before any explanation (:func:`e2llm.viz.answer_view.answer_view`).

        Of an answer from the thought the probabilities are those that follow from the stated levels, and the chain that
        leads to it stands below.

        Maps are z-scores of each channel's differential entropy (:func:`channel_z`). Spectra (dB re 1 µV²/Hz) are means
        over channels; dashed is the mean over at most :data:`REFERENCE_WINDOWS` windows of the reference. The answer in
        the text is marked if it is not the most probable.
        """
        references = [reference_windows(self.corpus, row) for row in self.rows]
        against = f"{'population' if self.corpus.split.normalization == 'population' else 'subject'} statistics"
        heading, shares = "before any explanation", self.probabilities
        if self.from_thought and self.probabilities_after is not None:
            heading, shares = "from the stated evidence alone", self.probabilities_after
        return answer_view(self.corpus.windows, self.rows, channel_z(self.corpus, self.rows), references,
                           _most_probable(shares), self.question, against, self.answer, heading, self._chain())

    def _chain(self) -> list[str]:
        """What an answer from the thought was read from, in sentences."""
        if not self.from_thought:
            return []
        stated = [evidence_sentence(claims, grouped=True) for claims in self.stated]
        return [*(f"{letter}{said}" for letter, said in zip(letters_of(len(stated)), stated, strict=True)),
                f"So the answer is {self.answer}: it was read from these words alone."]


def channel_z(corpus: Corpus, rows: Sequence[int]) -> np.ndarray:
    """z-scores of the differential entropy of each channel, relative to the statistics that the split allows.

    Parameters
    ----------
    corpus : Corpus
        The dataset.
    rows : sequence of int
        Windows.

    Returns
    -------
    ndarray, shape (len(rows), n_channels, n_bands)
    """
    entropy = differential_entropy(np.asarray(corpus.windows.power))
    flat, rows = entropy.reshape(len(entropy), -1), list(rows)
    return corpus.channel_statistics.z(flat[rows], corpus.norm_groups[rows]).reshape(len(rows), *entropy.shape[1:])


def reference_windows(corpus: Corpus, row: int) -> tuple[str, np.ndarray]:
    """Name and rows of the reference of a window, as in :class:`e2llm.data.normalization.FeatureStatistics`.

    Parameters
    ----------
    corpus : Corpus
        The dataset.
    row : int
        The window.

    Returns
    -------
    name : str
        Whose windows they are.
    rows : ndarray of int
        At most :data:`REFERENCE_WINDOWS` of them, evenly spaced.
    """
    fit = corpus.split.fit
    own = fit[corpus.norm_groups[fit] == corpus.norm_groups[row]]
    if isinstance(corpus, NewSubject):  # windows of the population are not available
        name, rows = "the recording", fit
    elif corpus.split.normalization == "population" or not len(own):
        name, rows = "all subjects", fit
    else:
        name, rows = f"subject {corpus.norm_groups[row]}", own
    return name, rows[np.unique(np.linspace(0, len(rows) - 1, REFERENCE_WINDOWS).astype(int))]


def _draw_spectra(ax: plt.Axes, windows: Windows, rows: Sequence[int],
                  references: Sequence[tuple[str, np.ndarray]]) -> None:
    drawn = set()
    for i, (row, (who, reference)) in enumerate(zip(rows, references, strict=True)):
        for label, some, style in ((f"segment {LETTERS[i]}" if len(rows) > 1 else "this segment", [row], "-"),
                                   (f"mean of {who} (n = {len(reference)})", reference, "--")):
            if label not in drawn:
                frequencies, density = plots.welch_density(np.asarray(windows.data[some]), windows.sfreq)
                ax.plot(frequencies, plots.decibels(density.mean(axis=1)).mean(axis=0), style, color=PALETTE[i],
                        label=as_text(label))
                drawn.add(label)
    plots.frequency_axis(ax, windows.sfreq)
    ax.set_title("Spectrum, mean of channels", pad=18)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.16 * -(-len(drawn) // 2) * (high - low))  # room for the legend
    ax.legend(loc="upper right", ncols=2)
