"""How broad the corpus of scenarios is, and how much of the zero-shot texts training has seen.

``python -m e2llm.tasks.corpus_statistics`` prints the tables of ``docs/corpus.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from . import grammar, scenarios, wordings

# Words of the language rather than of a situation: pronouns, prepositions, auxiliaries, numbers, and verbs and nouns
# that stand in every kind of text.
STOP_WORDS = frozenset("""
a about above across after again against all almost along already also although always am among an and another any
anybody anyone anything are around as aside at away back be because been before behind being below beneath beside
besides between beyond both but by can cannot could did do does doing done down during each either else enough even
ever every everybody everyone everything few for from further had half has have having he her here hers herself him
himself his how i if in inside instead into is it its itself just least less like many may me mid might mine more most
much must my myself near neither never next no nobody none nor not nothing now of off often on once one only onto or
other others ought our ours ourselves out outside over own per quite rather round same shall she should since so some
somebody someone something soon still such than that the their theirs them themselves then there these they this those
though through throughout till to together too toward towards under until up upon us very via was we were what whatever
when where whether which while who whoever whole whom whose why will with within without would yet you your yours
yourself zero two three four five six seven eight nine ten eleven twelve twenty thirty hundred thousand first second
third last new old get gets getting got go goes going gone went come comes coming came make makes making made take
takes taking taken took put puts putting give gives giving given gave keep keeps keeping kept let lets say says saying
said tell tells telling told see sees seeing seen saw thing things way time day year
""".split())  # noqa: SIM905


def content_words(text: str) -> list[str]:
    """The words of a text that carry its content, in lower case: no stop words, names or days of the week."""
    return [word for word in re.findall(r"[a-z]+", text.replace("'s ", " ").lower())
            if len(word) > 1 and not {word, stem(word)} & STOP_WORDS and word not in _NAMES]


_NAMES = frozenset(name.lower() for name in (*grammar.NAMES, *grammar.DAYS))
_BASE_FORM = {grammar.past(verb): verb for verb in grammar.IRREGULAR_VERBS} | dict(pair.split(":") for pair in """
begun:begin bitten:bite blown:blow born:bear borne:bear broken:break chosen:choose done:do drawn:draw drunk:drink
driven:drive eaten:eat fallen:fall feet:foot flown:fly forgotten:forget frozen:freeze geese:goose grown:grow
hidden:hide known:know lain:lie men:man mice:mouse mown:mow ridden:ride rung:ring risen:rise shaken:shake sewn:sew
shown:show shrunk:shrink sung:sing sunk:sink sprung:spring spoken:speak stolen:steal stunk:stink sworn:swear
swollen:swell swum:swim teeth:tooth thrown:throw torn:tear trodden:tread woken:wake women:woman worn:wear woven:weave
written:write wives:wife knives:knife lives:life leaves:leaf wolves:wolf loaves:loaf halves:half shelves:shelf
children:child thieves:thief flees:flee peed:pee tied:tie agreed:agree died:die lied:lie dying:die lying:lie tying:tie
""".split())  # noqa: SIM905


def stem(word: str) -> str:
    """A word without the endings of its inflection, so that "hid", "hides" and "hiding" count as one.

    A simple rule, not a dictionary: "hoping" and "hopping" fall together, and so do most adverbs with their adjective.
    """
    word = _BASE_FORM.get(word, word)
    for ending in ("ies", "ied", "ing", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith(("ss", "eed", "ply", "fly")):
            word = word[: -len(ending)] + ("y" if ending in ("ies", "ied") else "")
            break
    if word.endswith("e"):
        word = word[:-1]
    if word.endswith("i"):
        word = word[:-1] + "y"
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def stems(texts: Iterable[str]) -> set[str]:
    """Stems of the content words of texts."""
    return {stem(word) for text in texts for word in content_words(text)}


def _plain(text: str) -> str:
    """A situation without its marks, all options of its choices one after the other."""
    return re.sub(r"[@~^\[\]|]", " ", text)


def _written(emotion: str) -> list[str]:
    texts = scenarios.training_scenarios(emotion)
    return texts.situations + texts.outcomes


@lru_cache(maxsize=1)
def training_stems() -> frozenset[str]:
    """Stems of every content word that a training text can have: all choices, outcomes and registers, none drawn."""
    texts = [_plain(text) for emotion in scenarios.EMOTIONS for text in _written(emotion)]
    told = [part for register in grammar.REGISTERS for part in (register.before, register.after)]
    return frozenset(stems([*texts, *told, *map(_plain, grammar.SETTINGS), *(actor.name for actor in grammar.ACTORS)]))


@lru_cache(maxsize=1)
def taught_stems() -> frozenset[str]:
    """Stems of all that a language model is taught: of the scenarios and of every other kind of text item."""
    from ..core.labels import SEED_VII
    from .items import drill_items, item_text, text_items

    asked = [text for name in vars(wordings) if name.endswith("WORDINGS") and "ZERO" not in name
             for text in getattr(wordings, name)]
    items = [*text_items(SEED_VII, 3000, 0), *drill_items(SEED_VII, 200, 0)]
    felt = [word for emotion in scenarios.EMOTIONS for word in scenarios.feelings(emotion)]
    return training_stems() | stems([*asked, *felt, *map(item_text, items)])


def overlap(stratum: str, known: Iterable[str]) -> float:
    """Share of the content words of a stratum's zero-shot texts whose stem is among ``known``; repeats count.

    Parameters
    ----------
    stratum : str
        One of :data:`e2llm.tasks.scenarios.STRATA`.
    known : iterable of str
        Stems.
    """
    words = [stem(word) for emotion in scenarios.EMOTIONS
             for scenario in scenarios.zero_shot_scenarios(emotion, stratum) for word in content_words(scenario.text)]
    known = set(known)
    return sum(word in known for word in words) / len(words)


def tables() -> str:
    """The tables of ``docs/corpus.md``: counts of each emotion and of each stratum, as Markdown."""
    lines = ["| emotion | situations | training texts | distinct content words | zero-shot texts |",
             "|---|---|---|---|---|"]
    every: set[str] = set()
    for emotion in scenarios.EMOTIONS:
        texts = scenarios.training_scenarios(emotion)
        words = {word for text in _written(emotion) for word in content_words(_plain(text))}
        every |= words
        lines.append(f"| {emotion} | {texts.n_situations} | {len(texts):,} | {len(words):,} | "
                     f"{len(scenarios.zero_shot_scenarios(emotion))} |")
    counts = [scenarios.training_scenarios(emotion).n_situations for emotion in scenarios.EMOTIONS]
    shots = [len(scenarios.zero_shot_scenarios(emotion)) for emotion in scenarios.EMOTIONS]
    lines += [f"| all | {sum(counts):,} | {sum(counts) * scenarios.VARIANTS:,} | {len(every):,} | {sum(shots)} |", "",
              "| stratum | texts | content words known from training texts, % | known from all that is taught, % |",
              "|---|---|---|---|"]
    for stratum in scenarios.STRATA:
        n = sum(len(scenarios.zero_shot_scenarios(emotion, stratum)) for emotion in scenarios.EMOTIONS)
        lines.append(f"| {stratum} | {n} | {100 * overlap(stratum, training_stems()):.1f} | "
                     f"{100 * overlap(stratum, taught_stems()):.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
