"""Whether answers from the thought follow from what it states, and from edits of the signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ..core.claims import Claims, salient_claims
from ..data import band_edits
from ..data.dataset import Corpus
from ..models.eegpt import EEGPT
from ..models.evidence_rule import EvidenceRule
from ..models.inference import InferenceEngine
from ..tasks.items import evidence_sentence
from ..tasks.thought_parser import parse
from ..training import augmentation
from .causal_measures import CausalTables, causal_measures, from_claims
from .faithfulness import UNRELATED
from .from_thought import SecondPass
from .metrics import accuracy
from .reasoning import CAUSAL_WINDOWS, GeneratedExplanations, generate_explanations


def causes_from_thought(second: SecondPass, corpus: Corpus, explanations: GeneratedExplanations,
                        seed: int) -> CausalTables:
    """What interventions on the thought do to the answer (:mod:`e2llm.evaluation.causal_measures`).

    The variants go the way of a text: they are written, read by the grammar, and what it reads is answered.

    Parameters
    ----------
    second : SecondPass
        Answers.
    corpus : Corpus
        Its labels are read in the texts.
    explanations : GeneratedExplanations
        Of the first pass; at most :data:`e2llm.evaluation.reasoning.CAUSAL_WINDOWS` of them are taken, evenly.
    seed : int
        Of donors, orders, wordings and intervals.

    Raises
    ------
    ValueError
        If all windows get one answer.
    """
    every = max(1, -(-len(explanations.items) // CAUSAL_WINDOWS))
    claims, scale = explanations.claims[::every], corpus.evidence_names.scale
    subjects = np.array([item.subject for item in explanations.items[::every]])
    rng = np.random.default_rng(seed)

    def written(stated: Sequence[Claims], unrelated: str) -> np.ndarray:
        texts = [f"{unrelated}{evidence_sentence(each, rng, bool(rng.integers(2)))}" for each in stated]
        return second.shares([parse(text, corpus.label_set.labels, scale).claims for text in texts])

    variants = {"unrelated sentence": from_claims(lambda stated: written(stated, f"{UNRELATED[0]} ")),
                "other wording": from_claims(lambda stated: written(stated, ""))}
    return causal_measures(from_claims(second.shares), claims, subjects, variants, seed, scale.words)


def answers_to_edits(engine: InferenceEngine, second: SecondPass, corpus: Corpus, explanations: GeneratedExplanations,
                     rows: np.ndarray, encoder: EEGPT, rule: EvidenceRule, seed: int,
                     target: float = band_edits.TARGET_Z) -> pd.DataFrame:
    """Whether the answer becomes the label to which an edit of the signal moves the evidence.

    One band of one region is scaled in each window, the first pass speaks of the edited window, and the second pass
    answers. Counted are windows whose measured evidence points to another label after the edit than before.

    Parameters
    ----------
    engine : InferenceEngine
        The first pass with its features.
    second : SecondPass
        The second one.
    corpus, rows : Corpus and ndarray of int, shape (n,)
        Windows.
    explanations : GeneratedExplanations
        Of these windows as recorded.
    encoder : EEGPT
        Whose tokens the model knows.
    rule : EvidenceRule
        What measured claims point to; fitted on training windows.
    seed : int
        Of the edits and of the interval.
    target : float
        How far a feature is moved, z.

    Returns
    -------
    DataFrame
        One row: the share of these windows whose answer becomes that label; ``chance``: the share whose answer becomes
        it when another drawn edit is made to the window.
    """
    names, place = corpus.evidence_names, {int(row): i for i, row in enumerate(rows)}
    drawn = band_edits.draw_clear_edits(corpus, rows, np.random.default_rng(seed), target)

    def pointed(z: np.ndarray) -> list[str]:
        return [rule.ranked(salient_claims(row, names))[0] for row in z]

    def answers(edits: Sequence[band_edits.Edit]) -> np.ndarray:
        items = [explanations.items[place[edit.row]] for edit in edits]
        edited = replace(engine, features=augmentation.encode_edited(encoder, corpus, edits),
                         position={item.windows[0]: i for i, item in enumerate(items)})
        found = second.shares(generate_explanations(edited, corpus, items).claims)
        return np.array(corpus.label_set.labels)[found.argmax(axis=1)]

    before, after = pointed(drawn.z_before), pointed(drawn.z_after)
    moved = [i for i, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    if not moved:
        raise ValueError("No drawn edit moves the evidence of its window to another label: take more windows, or a "
                         "larger target.")
    edits, wanted = [drawn.clear[i] for i in moved], np.array([after[i] for i in moved])
    others = band_edits.draw_clear_edits(corpus, [edit.row for edit in edits], np.random.default_rng([seed, 1]), target)
    by_row = {edit.row: said for edit, said in zip(others.clear, answers(others.clear), strict=True)}
    kept = np.array([edit.row in by_row for edit in edits])
    hits = answers(edits) == wanted
    by_chance = np.array([by_row.get(edit.row, "") for edit in edits]) == wanted
    subjects = corpus.subjects[[edit.row for edit in edits]]
    score = accuracy(hits[kept], by_chance[kept].astype(float), subjects[kept], seed)
    return pd.DataFrame([score.row("answer follows the edit", target=target)])
