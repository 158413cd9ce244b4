"""From one written situation to many texts: who it happens to, when, and in what kind of text it is told.

A situation is written once, about "I", with marks that a reader can still read::

    my cousin ~hide my [passport|visa] and I @miss the ferry

``@`` stands before a verb of which "I" is the subject, ``~`` before one with another singular subject, ``^`` before
one with a plural subject; the verb is in its base form. ``[a|b]`` is a choice. :func:`render` puts in the person
("I", "you", "Mara", "a nurse", …), the tense, the choices and the right one of "a" and "an".
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple


class Actor(NamedTuple):
    """Who a text is about: the first mention, then subject, object, possessive, pronoun of possession, reflexive."""

    name: str
    person: str
    first: str
    subject: str
    object: str
    possessive: str
    own: str
    reflexive: str
    group: tuple[str, str, str, str, str]  # what "we, us, our, ours, ourselves" become
    plural_verb: bool


class Register(NamedTuple):
    """A kind of text: what stands before and after the situation, and the persons and tenses that fit."""

    name: str
    before: str
    persons: tuple[str, ...]
    tenses: tuple[str, ...]
    after: str = ""


# What a short situation is lengthened by, so that the length of a text does not tell the emotion.
SETTINGS = (
    "I @think", "I must say", "I @gather", "so they ^say", "for the record", "as I @say", "among other things",
    "it ~seem", "I @note", "in a word", "as it ~happen", "so I @believe", "by all accounts",
    "to put it briefly", "in short", "no more, no less", "as the others can confirm", "with the window open",
    "here in town", "not far from where I @live", "as far as I can tell", "if I @remember rightly",
    "while a bus ~pass outside", "while the neighbours ^be away", "before the others ^be back", "or so my notes ^say",
    "as everyone here ~know", "while the radio ~play next door", "in the part of town where I @live",
    "at least that ~be how I @remember it", "and the clock ~show a quarter past", "just as the others ^leave the house",
    "and there ^be four of us present at the time", "as I @mention to a relative on the telephone later",
    "while the people next door ^be talking about the weather", "and outside the traffic ~go on as it ~do before",
    "which I @write down here in as few words as possible",
)  # fmt: skip

_WE, _YOU, _THEY = (("we", "us", "our", "ours", "ourselves"), ("you", "you", "your", "yours", "yourselves"),
                    ("they", "them", "their", "theirs", "themselves"))
WOMEN = ("Mara", "Priya", "Ingrid", "Aisha", "Yuki", "Rosa", "Nora", "Lena", "Fatima", "Olga", "Chloe", "Zola")
MEN = ("Omar", "Tom", "Diego", "Kwame", "Pavel", "Ravi", "Jonah", "Kenji", "Luca", "Anton", "Idris", "Bruno")
NAMES = (*WOMEN, *MEN)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _she(name: str) -> Actor:
    return Actor(name, "third", name, "she", "her", "her", "hers", "herself", _THEY, False)


def _he(name: str) -> Actor:
    return Actor(name, "third", name, "he", "him", "his", "his", "himself", _THEY, False)


ACTORS: tuple[Actor, ...] = (
    Actor("I", "first", "", "I", "me", "my", "mine", "myself", _WE, True),
    Actor("you", "second", "", "you", "you", "your", "yours", "yourself", _YOU, True),
    Actor("she", "third", "", "she", "her", "her", "hers", "herself", _THEY, False),
    Actor("he", "third", "", "he", "him", "his", "his", "himself", _THEY, False),
    *map(_she, (*WOMEN, "a woman", "a nurse", "a colleague")),
    *map(_he, (*MEN, "a man", "a student", "a neighbour")),
)

_ANY, _BOTH = ("first", "second", "third"), ("past", "present")
REGISTERS: tuple[Register, ...] = (
    Register("plain", "", _ANY, _BOTH),
    Register("plain", "", _ANY, _BOTH),  # twice as often as each of the others
    Register("time", "this morning ", _ANY, ("past",)),
    Register("time", "last {day} ", _ANY, ("past",)),
    Register("time", "a week ago ", _ANY, ("past",)),
    Register("time", "today ", _ANY, _BOTH),
    Register("now", "it is {day}, and ", _ANY, ("present",)),
    Register("now", "right now ", _ANY, ("present",)),
    Register("diary", "dear diary, ", ("first",), ("past",)),
    Register("diary", "{day}, diary: ", ("first",), _BOTH),
    Register("letter", "dear {name}, ", ("first",), _BOTH),
    Register("message", "message from {name}: ", ("first",), _BOTH),
    Register("speech", '{name} says: "', ("first",), _BOTH, '"'),
    Register("speech", '{name} told a friend: "', ("first",), ("past",), '"'),
    Register("speech", '"', ("first",), _BOTH, '" Those were the words of {name}.'),
    Register("report", "the report says that ", ("third",), ("past",)),
    Register("report", "report: ", ("third",), _BOTH),
    Register("report", "witness statement: ", ("first",), ("past",)),
    Register("imagined", "imagine this: ", ("second",), ("present",)),
    Register("imagined", "suppose that ", ("second",), ("present",)),
    Register("story", "once ", ("third",), ("past",)),
    Register("story", "in the story ", ("third",), ("present",)),
    Register("hearsay", "they say that ", ("third",), _BOTH),
    Register("hearsay", "I hear that ", ("third",), _BOTH),
    Register("understated", "", _ANY, _BOTH, " There is not much more to say."),
    Register("understated", "well, ", _ANY, _BOTH, " That is the whole story."),
)

IRREGULAR_VERBS = dict(pair.split(":") for pair in """
arise:arose awake:awoke bear:bore beat:beat become:became begin:began bend:bent bet:bet bid:bid bind:bound bite:bit
bleed:bled blow:blew break:broke breed:bred bring:brought broadcast:broadcast build:built burst:burst buy:bought
cast:cast catch:caught choose:chose cling:clung come:came cost:cost creep:crept cut:cut deal:dealt dig:dug do:did
draw:drew drink:drank drive:drove eat:ate fall:fell feed:fed feel:felt fight:fought find:found flee:fled fling:flung
fly:flew forbid:forbade forget:forgot forgive:forgave freeze:froze get:got give:gave go:went grind:ground grow:grew
hang:hung have:had hear:heard hide:hid hit:hit hold:held hurt:hurt keep:kept kneel:knelt know:knew lay:laid lead:led
leave:left lend:lent let:let lie:lay light:lit lose:lost make:made mean:meant meet:met mislead:misled mow:mowed
outgrow:outgrew overhear:overheard oversleep:overslept overtake:overtook pay:paid put:put quit:quit read:read
rebuild:rebuilt repay:repaid retell:retold ride:rode ring:rang rise:rose run:ran say:said see:saw seek:sought
sell:sold send:sent set:set sew:sewed shake:shook shed:shed shine:shone shoot:shot show:showed shrink:shrank shut:shut
sing:sang sink:sank sit:sat sleep:slept slide:slid sling:slung slit:slit sow:sowed speak:spoke spend:spent spin:spun
spit:spat split:split spread:spread spring:sprang stand:stood steal:stole stick:stuck sting:stung stink:stank
stride:strode strike:struck string:strung swear:swore sweep:swept swell:swelled swim:swam swing:swung take:took
teach:taught tear:tore tell:told think:thought throw:threw thrust:thrust understand:understood undo:undid upset:upset
wake:woke wear:wore weave:wove weep:wept win:won wind:wound withdraw:withdrew wring:wrung write:wrote can:could
will:would tread:trod foresee:foresaw withhold:withheld rewrite:rewrote resell:resold partake:partook undergo:underwent
proofread:proofread rewind:rewound speed:sped mimic:mimicked picnic:picnicked underfeed:underfed
mistake:mistook misread:misread overdo:overdid retake:retook unwind:unwound overcome:overcame reset:reset rerun:reran
""".split())  # noqa: SIM905
_DOUBLED = frozenset("""
admit begin commit control compel confer defer deter emit equip expel forget format permit acquit enrol towel prefer
program occur omit propel rebel refer regret submit transfer transmit unzip upset unwrap unplug outwit travel
cancel label level marvel model quarrel shovel signal tunnel unravel fuel pedal channel dial counsel quiz unclog
kidnap worship handicap zigzag hobnob humbug squat swap swat squab equal outrun unpin rerun rewrap entrap
""".split())  # noqa: SIM905
_SHORT = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]")  # "stop", whose past doubles the last letter
_VOWELS = "aeiou"


def past(verb: str) -> str:
    """The past of a verb, other than "be", in its base form: "hide" → "hid", "stop" → "stopped"."""
    if verb in IRREGULAR_VERBS:
        return IRREGULAR_VERBS[verb]
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in _DOUBLED or _SHORT.fullmatch(verb) else "") + "ed"


def third_person(verb: str) -> str:
    """The present of a verb with "she": "hide" → "hides", "try" → "tries"."""
    if verb in ("can", "will"):
        return verb
    if verb == "have":
        return "has"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb[:-1] + "ies"
    if verb == "quiz":
        return "quizzes"
    return verb + ("es" if verb.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


def conjugate(verb: str, tense: str, plural: bool, first: bool = False) -> str:
    """A verb in one tense ("past", "present") for a subject: plural (or "you"), or singular, or "I" (``first``).

    Parameters
    ----------
    verb : str
        In its base form.
    tense : str
        "past" or "present".
    plural : bool
        Subject in the plural, or "you".
    first : bool
        Subject "I".
    """
    if verb == "be":
        forms = ("was", "were") if tense == "past" else ("am" if first else "is", "are")
        return forms[plural and not first]
    if tense == "past":
        return past(verb)
    return verb if plural or first else third_person(verb)


_VERB = re.compile(r"([@~^])([a-z]+)")
_CHOICE = re.compile(r"\[([^\]]+)\]")
_SELF = re.compile(r"\b(I|me|my|mine|myself|we|us|our|ours|ourselves)\b")
_ARTICLE = re.compile(r"\b([Aa])n? (?=([A-Za-z0-9-]+))")
_AN = re.compile(r"(?!uni|us[eu]|uten|eu|on(?:e\b|ce)|ukul|uran|unanim)[aeiou8]|hour|heir|honest|x-ray", re.IGNORECASE)
_SENTENCE = re.compile(r"(?:(?<=^)|(?<=[.:!?] )|(?<=\"))[a-z]")


def choices(situation: str) -> list[list[str]]:
    """The options of every choice of a situation, in order."""
    return [found.split("|") for found in _CHOICE.findall(situation)]


def render(situation: str, actor: Actor, tense: str, rng: random.Random) -> str:
    """A situation (or several sentences) with person, tense and choices put in; no capital letter is set.

    Parameters
    ----------
    situation : str
        In the notation of this module.
    actor : Actor
        Who "I" is.
    tense : str
        "past" or "present".
    rng : random.Random
        Makes the choices.
    """
    text = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), situation)

    def verb(found: re.Match[str]) -> str:
        mark, base = found.groups()
        return conjugate(base, tense, mark == "^" or (mark == "@" and actor.plural_verb),
                         mark == "@" and actor.person == "first")

    mentioned = not actor.first

    def person(found: re.Match[str]) -> str:
        nonlocal mentioned
        word = found[1]
        if word in _WE:
            return actor.group[_WE.index(word)]
        if word == "myself":
            return actor.reflexive
        named, mentioned = not mentioned, True
        if word == "my":
            return f"{actor.first}'s" if named else actor.possessive
        if word == "mine":
            return f"{actor.first}'s" if named else actor.own
        return actor.first if named else {"I": actor.subject, "me": actor.object}[word]

    text = _SELF.sub(person, _VERB.sub(verb, text))
    return _ARTICLE.sub(lambda found: f"{found[1]}n " if _AN.match(found[2]) else f"{found[1]} ", text)


def compose(body: str, register: Register, actor: Actor, tense: str, rng: random.Random) -> str:
    """A whole text: ``body`` (one or two sentences in the notation) in a register, with capital letters and period.

    Parameters
    ----------
    body : str
        One or two sentences in the notation of this module.
    register : Register
        Kind of text.
    actor : Actor
        Who "I" is.
    tense : str
        "past" or "present".
    rng : random.Random
        Makes the choices.
    """
    name, day = rng.choice([name for name in NAMES if name != actor.name]), rng.choice(DAYS)
    before, after = (part.format(name=name, day=day) for part in (register.before, register.after))
    text = f"{before}{render(body, actor, tense, rng)}.{after}"
    return _SENTENCE.sub(lambda found: found[0].upper(), text)
