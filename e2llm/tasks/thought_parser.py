"""The grammar of thoughts: sentences of any author become typed statements or stay unread.

Reading is strict. A sentence is spelled as a string of word classes (:data:`LEXICON`), one letter a word, and that
string must be cut into clauses that :data:`RULES` know, in exactly one way. A word of no class ("not", "may", "or",
"seems") and a question mark therefore leave the whole sentence unread: what is denied, hedged or ambiguous is never
taken for a claim.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..core.bands import BANDS
from ..core.chat import END_THINK, THINK
from ..core.claims import LOW_HIGH, WHOLE, Claim, Scale, side
from ..core.montage import REGIONS
from .segments import INTENSITIES

FEATURES = (*(f"{region} {band}" for region in REGIONS for band in BANDS), *WHOLE)
LONGEST_CLAUSE = 40  # words; bounds the work on text that a model repeats without end


@dataclass(frozen=True)
class Comparison:
    """A feature is higher or lower in one lettered segment than in another."""

    feature: str
    first: str
    direction: str  # "higher", "lower"
    second: str


@dataclass(frozen=True)
class Note:
    """What a thought keeps of a lettered segment: its label or its intensity."""

    letter: str
    word: str


@dataclass(frozen=True)
class Ranking:
    """Lettered segments by falling valence, arousal or intensity; one letter stands for "the most"."""

    axis: str
    letters: tuple[str, ...]
    words: tuple[str, ...] = ()  # the label or intensity that is repeated beside each letter


@dataclass(frozen=True)
class Affect:
    """A word for one axis: pleasant, unpleasant or neither; activated or calm."""

    axis: str
    word: str


@dataclass(frozen=True)
class Conclusion:
    """The label that a thought arrives at; the letter and the intensity where they are said."""

    label: str
    letter: str = ""
    intensity: str = ""


@dataclass(frozen=True)
class NoSalientFeature:
    """No feature stands out."""


Statement = Claim | Comparison | Note | Ranking | Affect | Conclusion | NoSalientFeature


@dataclass(frozen=True)
class Parsed:
    """Statements of a thought in the order of the text, and the sentences that no rule reads."""

    statements: tuple[Statement, ...]
    unread: tuple[str, ...]

    def _of(self, kind: type) -> tuple:
        return tuple(dict.fromkeys(found for found in self.statements if isinstance(found, kind)))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Level claims. What is said twice counts once; claims that contradict each other are all kept."""
        return self._of(Claim)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Comparisons of lettered segments."""
        return self._of(Comparison)

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes about lettered segments."""
        return self._of(Note)

    @property
    def rankings(self) -> tuple[Ranking, ...]:
        """Orders of lettered segments on an axis."""
        return self._of(Ranking)

    @property
    def affect(self) -> tuple[Affect, ...]:
        """Words for valence and arousal."""
        return self._of(Affect)

    @property
    def conclusion(self) -> str | None:
        """The label concluded; None if there is none, or if the thought names more than one."""
        labels = {found.label for found in self._of(Conclusion)}
        return labels.pop() if len(labels) == 1 else None

    @property
    def no_salient_feature(self) -> bool:
        """Whether the thought says that nothing stands out."""
        return bool(self._of(NoSalientFeature))

    @property
    def readable(self) -> bool:
        """Whether there is a statement and nothing was left unread."""
        return bool(self.statements) and not self.unread


# --- word classes

# Low and high in pairs: one table serves to read, to write and to negate a level.
_WORDS = (("low", "high"), ("reduced", "raised"), ("decreased", "increased"), ("lowered", "elevated"),
          ("diminished", "enhanced"), ("attenuated", "heightened"), ("reduction", "elevation"),
          ("decrease", "increase"), ("drop", "rise"), ("down", "up"))
_AGAINST = (("below", "above"), ("under", "over"), ("lower than", "higher than"), ("less than", "more than"),
            ("smaller than", "greater than"))
_COMPARED = (("lower", "higher"), ("less", "more"), ("smaller", "greater"), ("<", ">"))
_OPPOSITE = {word: other for low, high in (*_AGAINST, *_WORDS, *_COMPARED)
             for word, other in ((low, high), (high, low))}
_PERSON = r"(?:person|subject|participant)"
_BELONGING = (rf"(?:(?:the|this|that|an?|his|her|its|their|one's|{_PERSON}'s|own|personal|individual|usual|normal"
              r"|typical|average|mean) )")
_OWN = rf"(?:{_BELONGING}+(?:levels?|range|value)|{_BELONGING}*(?:baseline|average|usual|normal|norm|mean))"
_SITE = r"(?: (?:regions?|areas?|sites?|cortex|lobes?|electrodes?|channels?|leads?|scalp))?"


def _levels(side: int) -> str:
    words, against = "|".join(pair[side] for pair in _WORDS), "|".join(pair[side] for pair in _AGAINST)
    return rf"(?:at (?:an? )?)?(?:{words})|(?:{against}) {_OWN}"


_TYPICAL = (rf"typical|unremarkable|normal|average|ordinary|usual|unchanged|neither (?:high nor low|low nor high)"
            rf"|(?:at|near|around|within|close to|in|on) {_OWN}")
# "A low …", "A drop in …": this A is an article, not the letter of a segment.
_ARTICLE = rf"(?! (?:segment|window|typical|{'|'.join(itertools.chain(*_WORDS))})\b)"
# Word class (one letter) -> meaning -> synonyms, a regular expression in lower case. The longest synonym wins.
LEXICON: dict[str, dict[str, str]] = {
    "R": {region: rf"{region}(?:ly)?{_SITE}" for region in REGIONS},
    "B": {band: rf"{band}(?:-band)?|{greek}" for band, greek in zip(BANDS, "δθαβγ", strict=True)},
    "S": {"frontal asymmetry": rf"frontal (?:alpha )?asymmetry|(?:alpha )?asymmetry (?:over|at|in|of) "
                               rf"(?:the )?frontal{_SITE}",
          "spectral slope": "(?:spectral|aperiodic) slope", "artefact level": "art[ei]facts?(?: levels?)?",
          "alpha frequency": "(?:dominant |peak )?alpha frequency"},
    "L": {"low": _levels(0), "high": _levels(1), "typical": _TYPICAL},
    "H": {"lower": "lower|less|smaller", "higher": "higher|more|greater"},
    "T": {"": r"than|compared (?:to|with)"},
    "K": {letter: rf"(?-i:{letter}){_ARTICLE}|(?:segment|window) {letter}" for letter in "ABCD"},
    "P": {"": r"over|at|in|on|across|of|for"},
    "V": {"": r"is|are|was|were|lies?|stands?|sits?|stays?|remains?|runs?"},
    "Y": {"": r"shows?|displays?|exhibits?|ha(?:s|ve)"},
    "F": {"": r"fits?|points? to|suggests?|indicates?|matches|means?|implies|(?:is |are )?consistent with"},
    "Z": {"": r"(?:this |that )?"
              rf"(?:segment|window|eeg|signal|state|{_PERSON}|emotion|feeling|pattern|evidence|picture|scenario"
              r"|answer|label|conclusion)|this|that|it|which"},
    "N": {"": "notes?:?"},
    "M": {"valence": "more pleasant", "arousal": "more (?:activated|aroused)", "intensity": "stronger|more intense"},
    "I": {word: word for word in INTENSITIES},
    "W": {"neither": r"neither (?:pleasant nor unpleasant|unpleasant nor pleasant)|neutral valence|neutral in valence",
          "pleasant": r"pleasant|positive(?: valence)?|high valence",
          "unpleasant": r"unpleasant|negative(?: valence)?|low valence"},
    "Q": {"activated": r"activated|aroused|excited|high arousal", "calm": r"calm|relaxed|deactivated|low arousal"},
    "G": {"": r"no (?:band|feature|rhythm)s? stands? out|nothing stands out|(?:all bands are|everything is) "
              r"(?:typical|unremarkable)"},
    "_": {"": r"the|an?|both|also|here|very|clearly|markedly|strongly|notably|unusually|much|well|power|activity"
              r"|rhythms?|waves?|oscillations?"
              rf"|amplitude|levels?|band|there (?:is|are)|in this (?:segment|window|eeg)|(?:for|of|in) (?:this|the) "
              rf"{_PERSON}|for (?:him|her|them)"
              rf"|(?:relative to|compared (?:to|with)|against) {_OWN}|(?:evidence|findings|observations?|measured):"},
}
_JOIN = "and|but|while|whereas|with|plus|as well as|so|thus|therefore|hence|because|since|however|although|though|yet"
_MARKS = {"J": {"": rf"(?:(?:[,;&/–—]|\b(?:{_JOIN})\b) ?)+"}, ":": {"": "[:=]"}, ">": {"higher": ">"},
          "<": {"lower": "<"}}
Token = tuple[str, str, int, int]  # class, meaning, where it begins and ends in the sentence
Groups = dict[str, list[Token]]


def _bounded(synonyms: str) -> re.Pattern:
    return re.compile(rf"(?:{synonyms})(?!\w)", re.IGNORECASE)


_ENTRIES = (*((symbol, meaning, _bounded(words)) for symbol, meanings in LEXICON.items()
              for meaning, words in meanings.items()),
            *((symbol, meaning, re.compile(words, re.IGNORECASE)) for symbol, meanings in _MARKS.items()
              for meaning, words in meanings.items()))
_SPACE, _UNKNOWN = re.compile(r"\s*"), re.compile(r"\w[\w'-]*|\S|$")


# Words for the degrees of a scale that tells them apart; without one of them a level has the degree "clearly".
_DEGREES = {"rather": "rather|slightly|somewhat|mildly|a (?:bit|little)", "clearly": "clearly|notably",
            "very": "very|strongly|markedly|extremely|much|far"}


@lru_cache(maxsize=64)
def _entries(labels: tuple[str, ...], labels_first: bool, scale: Scale) -> tuple:
    own = tuple(("E", label, _bounded(re.escape(label))) for label in labels)
    known = own + _ENTRIES if labels_first else _ENTRIES + own
    if len(scale.degrees) == 1:
        return known
    sides = LEXICON["L"]
    graded = [(f"{degree} {towards}", f"(?:{_DEGREES[degree]}) (?:{sides[towards]})") for degree in scale.degrees
              for towards in ("low", "high")]
    graded += [(f"clearly {towards}", sides[towards]) for towards in ("low", "high")]
    plain = [entry for entry in known if entry[0] != "L" or entry[1] == "typical"]
    return (*plain, *(("L", meaning, _bounded(words)) for meaning, words in graded))


def _tokens(sentence: str, entries: tuple) -> list[Token]:
    """Classified words of a sentence without its fillers.

    A word of no class and a question mark have the class "?", which no rule holds.
    """
    found, position, body = [], 0, sentence.rstrip(".!;… \t\r\n")
    while position < len(body):
        position = _SPACE.match(body, position).end()
        matches = [(match.end(), symbol, meaning) for symbol, meaning, words in entries
                   if (match := words.match(body, position))]
        unknown = (_UNKNOWN.match(body, position).end(), "?", "")
        end, symbol, meaning = max(matches, key=lambda match: match[0], default=unknown)
        # "low occipital alpha | suggests fear": a clause of its own.
        if symbol == "F" and found and found[-1][0] in "LRBSGWQ":
            found.append(("J", "", position, position))
        if symbol != "_":
            found.append((symbol, meaning, position, end))
        position = end
    return found


# --- sentence patterns

_REGIONS, _BANDS = "R(?:JP?R)*", "B(?:JB)*"
_FEATURE = f"(?:{_REGIONS}{_BANDS}|{_BANDS}P?{_REGIONS}|S)"
_FEATURES = f"(?P<features>{_FEATURE}(?:J{_FEATURE})*)"
_SPLIT_BANDS, _SPLIT_REGIONS = f"(?P<bands>{_BANDS})", f"(?P<regions>{_REGIONS})"


def _meanings(tokens: list[Token], symbols: str) -> list[str]:
    return [meaning for symbol, meaning, *_ in tokens if symbol in symbols]


def _one_feature(tokens: list[Token]) -> tuple[str, ...]:
    """Features of one phrase: every band in every region that it names."""
    pairs = itertools.product(_meanings(tokens, "R"), _meanings(tokens, "B"))
    return (*(f"{region} {band}" for region, band in pairs), *_meanings(tokens, "S"))


def _feature_lists(tokens: list[Token]) -> set[tuple[str, ...]]:
    """All ways to read a list of feature phrases."""
    symbols, lists = "".join(token[0] for token in tokens), set()
    ends = [i for i, symbol in enumerate(symbols) if symbol == "J"] + [len(symbols)]
    for end in ends:
        if re.fullmatch(_FEATURE, symbols[:end]):
            rest = _feature_lists(tokens[end + 1 :]) if end < len(symbols) else {()}
            lists |= {_one_feature(tokens[:end]) + more for more in rest}
    return lists


def _read_features(groups: Groups) -> set[tuple[str, ...]]:
    if "features" in groups:
        return _feature_lists(groups["features"])
    return {_one_feature(groups["regions"] + groups["bands"])}


def _level_claims(groups: Groups) -> set[tuple[Statement, ...]]:
    level = groups["level"][0][1]
    return {tuple(Claim(feature, level) for feature in features) for features in _read_features(groups)}


def _order_claims(groups: Groups) -> set[tuple[Statement, ...]]:
    first, direction, second = (groups[name][0][1] for name in ("first", "direction", "second"))
    lists = _read_features(groups) if first != second else set()
    return {tuple(Comparison(feature, first, direction, second) for feature in features) for features in lists}


def _note(groups: Groups) -> set[tuple[Statement, ...]]:
    return {(Note(groups["letter"][0][1], groups["word"][0][1]),)}


def _ranking(groups: Groups) -> set[tuple[Statement, ...]]:
    ranked = groups["ranked"]
    return {(Ranking(groups["axis"][0][1], tuple(_meanings(ranked, "K")), tuple(_meanings(ranked, "EI"))),)}


def _affect(groups: Groups) -> set[tuple[Statement, ...]]:
    return {tuple(Affect("valence" if symbol == "W" else "arousal", word)
                  for symbol, word, *_ in groups["words"] if symbol in "WQ")}


def _regional_claims(groups: Groups) -> set[tuple[Statement, ...]]:
    (region,) = _meanings(groups["region"], "R")
    said = zip(_meanings(groups["listed"], "B"), _meanings(groups["listed"], "L"), strict=True)
    return {tuple(Claim(f"{region} {band}", level) for band, level in said)}


def _conclusion(groups: Groups) -> set[tuple[Statement, ...]]:
    said = groups["said"]
    label, letter, intensity = ("".join(_meanings(said, symbol)) for symbol in "EKI")
    return {(Conclusion(label, letter, intensity),)}


_FIRST, _SECOND, _DIRECTION = "(?P<first>K)", "(?P<second>K)", "(?P<direction>H)"
_PAIR = f"{_DIRECTION}P?{_FIRST}TP?{_SECOND}"
# What a clause may be, as word classes, and what it then says.
Reader = Callable[[Groups], set[tuple[Statement, ...]]]
RULES: tuple[tuple[re.Pattern, Reader], ...] = tuple((re.compile(pattern), read) for pattern, read in (
    # occipital alpha is low; alpha over the occipital region low
    (f"(?:Z?Y)?{_FEATURES}[VY:]?(?P<level>L)", _level_claims),
    # low alpha over the occipital region; a drop in occipital alpha
    (f"(?:Z?Y)?(?P<level>L)P?{_FEATURES}", _level_claims),
    (f"{_SPLIT_BANDS}[VY:]?(?P<level>L)P?{_SPLIT_REGIONS}", _level_claims),  # alpha is low at occipital sites
    (f"P{_SPLIT_REGIONS}J?{_SPLIT_BANDS}[VY:]?(?P<level>L)", _level_claims),  # over the occipital region, alpha is low
    ("(?P<region>R):(?P<listed>B[V:]?L(?:JB[V:]?L)*)", _regional_claims),  # frontal: beta low, gamma high
    (f"{_FEATURES}[VY:]?{_PAIR}", _order_claims),  # occipital alpha is higher in A than in B
    (f"{_SPLIT_BANDS}[VY:]?{_PAIR}P?{_SPLIT_REGIONS}", _order_claims),  # alpha is higher in A than in B over occipital
    (f"P?{_FIRST}J?[VY]?{_DIRECTION}{_FEATURES}TP?{_SECOND}", _order_claims),  # A has higher occipital alpha than B
    (f"{_FIRST}V?{_DIRECTION}T{_SECOND}P{_FEATURES}", _order_claims),  # A is higher than B in occipital alpha
    (f"{_DIRECTION}{_FEATURES}P?{_FIRST}TP?{_SECOND}", _order_claims),  # higher occipital alpha in A than in B
    # in A, occipital alpha is higher than in B
    (f"P?{_FIRST}J?{_FEATURES}[VY:]?{_DIRECTION}TP?{_SECOND}", _order_claims),
    (f"{_FEATURES}:?{_FIRST}(?P<direction>[<>]){_SECOND}", _order_claims),  # occipital alpha: A > B
    ("N?(?P<word>[EI]):?(?P<letter>K)", _note),  # notes: happy A
    ("N?(?P<letter>K)[VY:]?(?P<word>[EI])", _note),  # A is happy
    ("(?P<axis>M)[V:]?(?P<ranked>[EI]?K(?:>[EI]?K)*)", _ranking),  # more pleasant: happy A > fear B
    ("(?P<ranked>KV?(?P<axis>M)(?:TK)?)", _ranking),  # A is more pleasant than B
    ("(?:Z[VYF:]?)?(?P<words>[WQ](?:J?[WQ])*)", _affect),  # this is unpleasant and activated
    ("(?:Z[FVY:]*|F)(?P<said>EI?K?)", _conclusion),  # that fits fear; the scenario fits happy B
    ("Z?Y?G", lambda groups: {(NoSalientFeature(),)}),  # no band stands out
))


def _clause(tokens: list[Token], symbols: str) -> set[tuple[Statement, ...]]:
    """All readings of a clause."""
    readings = set()
    for pattern, read in RULES:
        if match := pattern.fullmatch(symbols):
            readings |= read({name: tokens[match.start(name) : match.end(name)] for name in match.groupdict()})
    return readings


def _readings(tokens: list[Token]) -> set[tuple[Statement, ...]]:
    """Readings of a sentence, from its end to its beginning; two are enough to know that it is ambiguous."""
    symbols = "".join(token[0] for token in tokens)
    joins = [i for i, symbol in enumerate(symbols) if symbol == "J"]
    known: dict[int, set[tuple[Statement, ...]]] = {len(symbols) + 1: {()}}
    for start in sorted({0, *(i + 1 for i in joins)}, reverse=True):
        found: set[tuple[Statement, ...]] = set()
        for end in (i for i in (*joins, len(symbols)) if start < i <= start + LONGEST_CLAUSE and known.get(i + 1)):
            found |= {first + rest for first in _clause(tokens[start:end], symbols[start:end])
                      for rest in known[end + 1]}
        known[start] = set(itertools.islice(found, 2))
    return known[1] if symbols.startswith("J") else known[0]


def _read(sentence: str, labels: tuple[str, ...],
          scale: Scale) -> tuple[list[Token], tuple[Statement, ...]] | None:
    """Words and statements of a sentence with exactly one reading, else None."""
    for labels_first in (True, False):  # a label such as "calm" may also be a word of the grammar
        tokens = _tokens(sentence, _entries(labels, labels_first, scale))
        if len(found := _readings(tokens)) == 1:
            return tokens, found.pop()
    return None


def sentences(thought: str) -> list[str]:
    """Sentences of a thought with their end marks; a line break ends one.

    Thinking tokens, bullets, emphasis and double quotes are left out.
    """
    text = thought.split(END_THINK, 1)[0].replace(THINK, " ").replace("’", "'")
    text = re.sub(r"[*`\"“”]", "", re.sub(r"(?m)^\s*(?:[-*•]|\d+[.)])\s+", "", text))
    found = (" ".join(part.split()) for part in re.findall(r"[^.!?\n]+[.!?]*", text))
    return [sentence for sentence in found if sentence]


def parse(thought: str, labels: Sequence[str], scale: Scale = LOW_HIGH, cut_off: bool = False) -> Parsed:
    """Statements of a thought.

    Parameters
    ----------
    thought : str
        Text of any author; of a whole response, what stands before the end of the thought.
    labels : sequence of str
        Labels that a conclusion or a note may name.
    scale : Scale
        Levels of claims. One that knows low and high alone passes over degrees: "very low" is low.
    cut_off : bool
        Whether the text ends where its author ran out of room. Of a list that ends within a claim, the claims before
        the last comma are then read.

    Returns
    -------
    Parsed
        A sentence counts as read only as a whole: one unknown word, or two possible readings, and it is unread.
    """
    if not isinstance(thought, str):
        raise ValueError(f"A thought must be text, not {type(thought).__name__}: pass what the model said, or '' for "
                         "nothing.")
    if isinstance(labels, str) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ValueError(f"'labels' must be a sequence of labels that are words, not {labels!r}: "
                         "pass label_set.labels.")
    read = [(sentence, _read(sentence, tuple(labels), scale))
            for whole in sentences(thought) for sentence in (_without_cut(whole, scale) if cut_off else (whole,))]
    return Parsed(tuple(statement for _, found in read if found for statement in found[1]),
                  tuple(sentence for sentence, found in read if found is None))


def _without_cut(sentence: str, scale: Scale) -> list[str]:
    """The sentence; of a list that was cut off within a claim, the whole claims and the beginning of the last one."""
    listed, comma, rest = sentence.rpartition(",")
    cut = rest.strip()
    begins = comma and not sentence.endswith((".", "!", "?")) and any(
        text.startswith(cut) and text != cut for feature in FEATURES for level in scale.words
        for text in (f"{feature} {level}",))
    return [listed, *([cut] if cut else [])] if begins else [sentence]


_WRITTEN = {"low": (("low", "reduced", "decreased"), "below"), "high": (("high", "raised", "increased"), "above"),
            "typical": (("typical", "unremarkable"), "near")}


def wordings(claim: Claim, scale: Scale = LOW_HIGH) -> list[str]:
    """What the kit may write for a level claim, without end mark; the first is the plain form.

    Each parses back to exactly this claim.

    Parameters
    ----------
    claim : Claim
        At a level of the scale.
    scale : Scale
        Levels of claims.

    Raises
    ------
    ValueError
        For a feature that the grammar does not know, or a level that the scale does not have.
    """
    if claim.feature not in FEATURES or claim.level not in scale.words:
        raise ValueError(f"No wording for '{claim}': the feature must be one of {', '.join(FEATURES)}, the level one "
                         f"of {', '.join(scale.words)}.")
    words, place = _WRITTEN[side(claim.level)]
    degree = claim.level.removesuffix(side(claim.level))
    words, place = tuple(degree + word for word in words), degree + place
    texts = [str(claim), f"{claim.feature} {place} this person's own level",
             f"{claim.feature} is {place} their own level"]
    if claim.feature in WHOLE:
        return texts + [text for word in words for text in (f"{claim.feature} is {word}", f"{word} {claim.feature}")]
    region, band = claim.feature.split()
    for word in words:
        texts += [f"{claim.feature} is {word}", f"{word} {claim.feature}", f"{word} {band} over the {region} region",
                  f"{band} is {word} at {region} sites", f"{band} power is {word} {region}ly",
                  f"over the {region} region, {band} is {word}"]
    return texts


def negated(sentence: str, labels: Sequence[str], rng: np.random.Generator, scale: Scale = LOW_HIGH) -> str | None:
    """A sentence with the levels of its claims negated in place: low and high, higher and lower change sides.

    Parameters
    ----------
    sentence : str
        One sentence.
    labels : sequence of str
        As for :func:`parse`.
    rng : Generator
        A typical level becomes low or high at random.
    scale : Scale
        As for :func:`parse`. Degrees stay.

    Returns
    -------
    str or None
        None for a sentence that is unread, or claims no level and no comparison.
    """
    found = _read(sentence, tuple(labels), scale)
    if found is None or not any(isinstance(statement, Claim | Comparison) for statement in found[1]):
        return None
    for symbol, meaning, start, end in reversed(found[0]):
        if symbol in "LH" or (symbol in "<>" and any(isinstance(statement, Comparison) for statement in found[1])):
            old = sentence[start:end]
            new = str(rng.choice(["low", "high"])) if meaning == "typical" else _negated_words(old)
            sentence = sentence[:start] + (new[0].upper() + new[1:] if old[0].isupper() else new) + sentence[end:]
    return sentence


def _negated_words(words: str) -> str:
    """Words for a level with the first of them that has an opposite replaced by it."""
    return re.sub("|".join(rf"\b{word}\b" if word.isalpha() else word
                           for word in sorted(_OPPOSITE, key=len, reverse=True)),
                  lambda match: _OPPOSITE[match[0].lower()], words, count=1, flags=re.IGNORECASE)
