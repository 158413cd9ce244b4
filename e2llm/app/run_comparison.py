"""Finished runs side by side: their answers, their claims, and how fluent their texts are.

For models that differ in more than one thing, such as one that was pretrained and one made from scratch: no trend is
drawn through them. Those that differ in size alone belong to :mod:`e2llm.app.model_size_study`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..data.dataset import Corpus
from ..evaluation.controls import EEGInput
from ..evaluation.reasoning import claims_table, generate_explanations, thought_of
from ..evaluation.studies.fluency import fluency
from ..tasks.items import prediction_items, read_items
from ..tasks.thought_parser import parse
from .evaluation_stage import open_engine
from .runs import Run, Stage
from .stages import open_dataset

COLUMNS = ["run", "group", "name", "score", "low", "high", "chance", "n"]
TRAINING = "training thoughts"  # in the column of runs: the texts that every model was trained on


def write_explanations(run: Run, corpus: Corpus, seed: int = 0) -> Stage:
    """Let the model of a finished run explain every test window, as the stage ``speech``.

    Leaves ``texts.csv`` (window, subject, answer, thought).

    Parameters
    ----------
    run, corpus : Run and Corpus
        With all stages up to ``adapter`` finished.
    seed : int
        Of the questions.
    """
    stage = run.stage("speech", {"seed": seed}, needs=("encoder", "adapter"))
    if stage.done:
        return stage
    stage.begin()
    test = corpus.split.test
    explanations = generate_explanations(open_engine(run), corpus, prediction_items(corpus, test, seed))
    answers = [answer or "" for answer in explanations.answers]
    texts = pd.DataFrame({"window": test, "subject": corpus.subjects[test], "answer": answers,
                          "thought": explanations.thoughts})
    texts.to_csv(stage.path / "texts.csv", index=False)
    stage.finish()
    return stage


def side_by_side(runs: Sequence[Run], judge: tuple | None = None, seed: int = 0) -> pd.DataFrame:
    """Scores of finished runs in one table.

    Parameters
    ----------
    runs : sequence of Run
        Through lesson 05, on the same test windows.
    judge : (model, tokenizer), optional
        For the perplexity of what they write; see :func:`e2llm.evaluation.studies.fluency.fluency`.
    seed : int
        Of questions and intervals.

    Returns
    -------
    DataFrame, columns :data:`COLUMNS`
        ``group`` is "tier 1", "tiers 2 and 3", "claims" or "writing"; rates are shares, intervals are over people;
        ``n`` counts windows, items or texts. The rows of :data:`TRAINING` measure the thoughts that the first run was
        trained on, as many as it generated.

    Raises
    ------
    ValueError
        If the runs were not tested on the same windows: their scores cannot be compared.
    """
    rows, windows = [], None
    for run in runs:
        corpus = open_dataset(run)
        tested = corpus.windows.index["id"].to_numpy()[corpus.split.test]
        if windows is not None and not np.array_equal(tested, windows):
            raise ValueError(f"The run {run.name!r} was tested on other windows than {runs[0].name!r}: compare runs of "
                             "one source, protocol and fold.")
        path = write_explanations(run, corpus, seed).path / "texts.csv"
        texts = pd.read_csv(path, dtype={"subject": str}, keep_default_na=False)
        rows += [*_answers(run), *_claims(run, corpus, texts, seed)]
        rows += _writing(run.name, texts["thought"], texts["subject"], corpus, judge, seed)
        if windows is None:
            windows, trained_on = tested, _training_thoughts(run, len(texts), seed)
            rows += _writing(TRAINING, trained_on["thought"], trained_on["subject"], corpus, judge, seed)
    return pd.DataFrame(rows)[COLUMNS]


def _answers(run: Run) -> list[dict]:
    """What lesson 05 measured."""
    tables = run.read_metrics()["tables"]
    first = [row | {"group": "tier 1"} for row in tables["tier_1"]
             if row["name"].startswith("LLM") or row["name"] == "stage-1 head"]
    others = [row | {"group": "tiers 2 and 3"} for row in tables["tiers_2_and_3"] if row["group"] == EEGInput.EEG]
    return [row | {"run": run.name} for row in first + others]


def _claims(run: Run, corpus: Corpus, texts: pd.DataFrame, seed: int) -> list[dict]:
    """Precision and recall of the claims about test windows."""
    labels = list(corpus.label_set.labels)
    claims = [parse(thought, labels, corpus.evidence_names.scale).claims for thought in texts["thought"]]
    found = claims_table(corpus, texts["window"].to_numpy(), {"claims": claims}, seed)
    return [row | {"run": run.name, "name": f"claim {row['group']}", "group": "claims"}
            for row in found.to_dict("records")]


def _writing(name: str, thoughts: Sequence[str], subjects: Sequence[str], corpus: Corpus, judge: tuple | None,
             seed: int) -> list[dict]:
    found = fluency(list(thoughts), list(subjects), list(corpus.label_set.labels), judge, seed,
                    corpus.evidence_names.scale)
    return [row | {"run": name, "group": "writing", "chance": np.nan} for row in found.to_dict("records")]


def _training_thoughts(run: Run, n: int, seed: int) -> pd.DataFrame:
    """Thoughts of ``n`` of the run's own training items of tier 1, drawn at random; all if there are fewer."""
    items = [item for item in read_items(run.path / "adapter" / "items.jsonl") if item.kind == "predict"]
    chosen = np.random.default_rng(seed).permutation(len(items))[:n]
    thoughts = [thought_of(items[i].response(True)) for i in chosen]
    return pd.DataFrame({"subject": [items[i].subject for i in chosen], "thought": thoughts})
