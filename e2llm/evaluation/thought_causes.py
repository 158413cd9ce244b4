"""Whether answers from the thought follow from what it states, and from edits of the signal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from .causal_measures import CausalTables, causal_measures, from_claims, simulatability
from .faithfulness import UNRELATED
from .from_thought import FROM_THOUGHT, SecondPass, model_name
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


def foretold_answers(second: SecondPass | None, corpus: Corpus, training: GeneratedExplanations,
                     explanations: GeneratedExplanations, seed: int) -> pd.DataFrame:
    """Whether a reader of the claims foretells the answers (:func:`e2llm.evaluation.causal_measures.simulatability`).

    Parameters
    ----------
    second : SecondPass or None
        Answers from the thought, if they are asked for.
    corpus : Corpus
        The dataset.
    training, explanations : GeneratedExplanations
        Of training windows, on whose answers the reader is fitted, and of test windows.
    seed : int
        Of the intervals.

    Returns
    -------
    DataFrame
        A row a model: ``LLM``, whose answer stands behind the thought, and the one that answers from the thought alone.
        A model that gives all training windows one answer has no score.
    """
    def from_stated(found: GeneratedExplanations) -> list[str]:
        return [corpus.label_set.labels[i] for i in second.shares(found.claims).argmax(axis=1)]

    models: dict[str, Callable[[GeneratedExplanations], Sequence[str | None]]] = {"LLM": lambda found: found.answers}
    rows = []
    for name, answers in (models | ({model_name(FROM_THOUGHT): from_stated} if second is not None else {})).items():
        (claims, said, _), test = (_answered(found, answers(found)) for found in (training, explanations))
        if len(set(said)) < 2 or not len(test[0]):
            rows.append({"name": name, "score": np.nan, "low": np.nan, "high": np.nan, "chance": np.nan, "n": 0})
        else:
            rows.append(simulatability(claims, said, *test[:2], corpus.evidence_names, test[2], seed).row(name))
    return pd.DataFrame(rows)


def _answered(found: GeneratedExplanations, answers: Sequence[str | None]) -> tuple[list, list[str], np.ndarray]:
    """Claims, answers and people of the windows whose answer could be read."""
    kept = [i for i, answer in enumerate(answers) if answer is not None]
    return ([found.claims[i] for i in kept], [str(answers[i]) for i in kept],
            np.array([found.items[i].subject for i in kept]))


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
