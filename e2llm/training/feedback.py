"""Feedback: rejection sampling with the checker of claims as reward.

The model gives several chains of thought for every training window. Those with a true answer and only true claims are
trained on once more. No label or measurement of a held-out window enters.

References
----------
Zelikman, E., et al. (2022). STaR: bootstrapping reasoning with reasoning. NeurIPS. (There, the reward is the answer
alone.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ..core.chat import END_THINK, THINK, Item
from ..core.verdicts import Verdict, verdicts
from ..data.dataset import Corpus
from ..tasks.items import parse_answer
from ..tasks.thought_parser import Conclusion, parse


@dataclass(frozen=True)
class FeedbackParams:
    """One round of rejection sampling.

    Parameters
    ----------
    samples : int
        Chains that are sampled for every training window.
    temperature : float
        Of the sampling; 1 is the model's own distribution.
    replay : int
        Items of stage 3 that are trained on too, so that nothing else is forgotten.
    """

    samples: int = 4
    temperature: float = 1.0
    replay: int = 2000


def judged(corpus: Corpus, items: Sequence[Item], chains: Sequence[Sequence[str]]) -> pd.DataFrame:
    """Check sampled chains of thought; the table has a row a chain.

    A chain is kept if every sentence can be read, it has at least one claim, all its claims are true, its answer is
    the true label, and no other conclusion stands before it. One that also says that nothing stands out contradicts
    itself. Of an item's kept chains only those with most true claims stay, each wording once: otherwise the safest
    chain would be one with hardly any claim.

    Parameters
    ----------
    corpus : Corpus
        Dataset of the items' windows.
    items : sequence of Item
        Questions about one window each.
    chains : sequence of sequence of str
        Sampled responses to each item.

    Returns
    -------
    DataFrame
        Columns item (its place), said (the response), times (how often it was sampled), answer_true, claims,
        true_claims, kept.
    """
    rows = []
    for place, (item, texts) in enumerate(zip(items, chains, strict=True)):
        z = corpus.z[item.windows[0]]
        for text in dict.fromkeys(texts):
            parsed = parse(text.split(END_THINK, 1)[0], corpus.label_set.labels,
                           corpus.evidence_names.scale)
            true = [verdict is Verdict.TRUE for verdict in verdicts(parsed.claims, z, corpus.evidence_names)]
            right = parse_answer(text, item.options) == item.answer
            concluded = {found.label for found in parsed.statements if isinstance(found, Conclusion)}
            sound = (right and parsed.readable and bool(true) and all(true) and concluded <= {item.answer}
                     and not parsed.no_salient_feature)
            rows.append((place, text, texts.count(text), right, len(true), sum(true), sound))
    table = pd.DataFrame(rows, columns=["item", "said", "times", "answer_true", "claims", "true_claims",
                                        "kept"]).astype({"kept": bool})
    most = table[table["kept"]].groupby("item")["true_claims"].max()
    table["kept"] &= table["true_claims"] == table["item"].map(most)
    return table


def kept_items(items: Sequence[Item], table: pd.DataFrame) -> list[Item]:
    """Items with the kept chains as their thoughts.

    Parameters
    ----------
    items : sequence of Item
        As given to :func:`judged`.
    table : DataFrame
        From :func:`judged`.
    """
    kept = table[table["kept"]]
    thoughts = kept["said"].str.split(END_THINK, n=1).str[0].str.replace(THINK, "").str.strip()
    return [replace(items[place], thought=thought) for place, thought in zip(kept["item"], thoughts, strict=True)]
