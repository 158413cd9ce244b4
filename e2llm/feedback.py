"""Better reasoning by feedback: the checker as a reward.

Rejection sampling (as in STaR, Zelikman et al. 2022, NeurIPS, with a reward for the reasons too): the model thinks aloud several times about
every training window, and what it said with a true answer and nothing but true claims is trained on once more. No label or
measurement of a held-out window enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd
import torch
from peft import PeftModel

from .assessment import prediction_items
from .evaluate import Listener, sample
from .faithfulness import Verdict, verdicts
from .grammar import Conclusion, parse
from .language import END_THINK, THINK
from .questions import Item
from .runs import Progress, Run, Stage
from .stages import AdapterParams, Corpus, fit_adapter, load_tokens, open_aligned, open_instructed, quiet_peft
from .tasks import parse_answer, read_items, write_items
from .train import FitParams, examples_of


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
    """What the checker says of sampled chains; a row a chain.

    Kept is a chain whose every sentence can be read, with one claim or more, all of them true, the true label as its answer, and no
    other conclusion before it; one that also says that nothing stands out contradicts itself.
    Of an item's kept chains only those with most true claims stay, each wording once: silence would be the safest truth.
    """
    rows = []
    for place, (item, texts) in enumerate(zip(items, chains, strict=True)):
        z = corpus.z[item.windows[0]]
        for text in dict.fromkeys(texts):
            parsed = parse(text.split(END_THINK, 1)[0], corpus.label_set.labels)
            true = [verdict is Verdict.TRUE for verdict in verdicts(parsed.claims, z, corpus.evidence_names)]
            right = parse_answer(text, item.options) == item.answer
            concluded = {found.label for found in parsed.statements if isinstance(found, Conclusion)}
            sound = right and parsed.readable and bool(true) and all(true) and concluded <= {item.answer} and not parsed.quiet
            rows.append((place, text, texts.count(text), right, len(true), sum(true), sound))
    table = pd.DataFrame(rows, columns=["item", "said", "times", "answer_true", "claims", "true_claims", "kept"]).astype({"kept": bool})
    most = table[table["kept"]].groupby("item")["true_claims"].max()
    table["kept"] &= table["true_claims"] == table["item"].map(most)
    return table


def kept_items(items: Sequence[Item], table: pd.DataFrame) -> list[Item]:
    """Items with the kept chains as their thoughts."""
    kept = table[table["kept"]]
    thoughts = kept["said"].str.split(END_THINK, n=1).str[0].str.replace(THINK, "").str.strip()
    return [replace(items[place], thought=thought) for place, thought in zip(kept["item"], thoughts, strict=True)]


def reinforce(run: Run, corpus: Corpus, feedback: FeedbackParams, params: FitParams) -> Stage:
    """One round of feedback on the model after stage 3; leaves another adapter in the stage ``feedback``.

    Raises
    ------
    ValueError
        If nothing that was sampled can be kept.
    """
    stage = run.stage("feedback", {"feedback": asdict(feedback), "fit": asdict(params)}, needs=("adapter",))
    if stage.done:
        return stage
    stage.begin()
    model, processor = open_instructed(run)
    items = prediction_items(corpus, corpus.split.train, params.seed)
    table = judged(corpus, items, sample(Listener(model, processor, *load_tokens(run)), items, feedback.samples, feedback.temperature, params.seed))
    kept = kept_items(items, table)
    if not kept:
        raise ValueError(f"None of {len(table)} sampled chains is true and ends in the true label: train stage 3 longer first.")
    write_items(kept, stage.path / "items.jsonl")
    old = read_items(run.path / "adapter" / "items.jsonl")
    chosen = np.random.default_rng(params.seed).permutation(len(old))[: feedback.replay]
    examples = examples_of(kept, processor, 1.0, params.seed) + examples_of([old[i] for i in chosen], processor, 0.5, params.seed)
    with Progress(run, params.steps, "feedback") as progress:
        peft, history = _train_on(run, examples, params, stage, progress.update)
    peft.save_pretrained(stage.path / "lora")
    history.to_csv(stage.path / "history.csv", index=False)
    times = table["times"]
    stage.finish({"sampled": int(times.sum()), "answers_true": float(np.average(table["answer_true"], weights=times)),
                  "claims_true": float((table["true_claims"] * times).sum() / max(1, (table["claims"] * times).sum())), "kept": len(kept),
                  "windows_kept": int(table.loc[table["kept"], "item"].nunique()), "windows": len(items)})
    return stage


def _train_on(run: Run, examples: list[dict], params: FitParams, stage: Stage, tell):
    """The adapter of stage 3, trained on."""
    model, processor = open_aligned(run)
    stored = AdapterParams(**run.require("adapter")["params"]["adapter"])
    torch.manual_seed(params.seed)
    with quiet_peft():
        peft = PeftModel.from_pretrained(model, str(run.path / "adapter" / "lora"), is_trainable=True)
    return peft, fit_adapter(peft, processor, examples, *load_tokens(run), stored, params, stage.path / "checkpoints", tell)
