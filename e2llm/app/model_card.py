"""The model card of a shared run: what it was trained and tested on, every score with what it takes to believe it, and its limits.

Nothing in it is written by hand but the sentences that hold for every run: numbers and settings are those of the run's own records.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import yaml

from .runs import Run

TAGS = ("eeg", "emotion-recognition", "electroencephalography", "multimodal", "lora")
_METADATA = {"library_name": "e2llm", "language": "en"}
_USE = '''```python
from e2llm.asking import E2LLM

model = E2LLM.from_pretrained("FOLDER"{more})  # this folder, or the hub id that you read this at
recording = model.read("new.edf")  # one person; any file that MNE reads
print(recording.ask(3, "{question}"))  # window 3: its answer, its reasons, and whether these are true of the signal
recording.overview()  # every window: probability of each answer, read from the EEG before any explanation
```'''
_LIMITS = (
    "A research artefact. It diagnoses nothing, is no lie detector, and says nothing about a person that should be acted on.",
    "Scores hold for the protocol above, and for people, films and caps like those of the data. Never compare them with scores of another split.",
    "Statements about band power are held against the signal of the new file, and marked. That a statement is true does not make it the reason "
    "of the answer.",
    "A newcomer's levels come from the new recording itself, without labels (`levels=\"own\"`: transductive, and blind to whatever lasts the whole "
    "recording), or from the training's people (`levels=\"population\"`). The scores above were made with the levels that the protocol names.",
    "Free text is generated: it can be wrong, and it can be unreadable. Probabilities over the closed set of answers "
    "are always defined.",
    "Probabilities are read from the EEG before any explanation. The text may give another answer; then both are "
    "shown. An explanation names an answer, so a probability after it does not say how sure the model is.",
)


def model_card(run: Run, facts: Mapping) -> str:
    """Text of ``README.md``.

    Parameters
    ----------
    run : Run
        With a finished evaluation.
    facts : mapping
        What :func:`e2llm.app.hub_export.export` writes into ``e2llm.json``.
    """
    metrics, language = run.read_metrics(), facts["language_model"]
    tested, label_set, tables = metrics["facts"], facts["label_set"], metrics["tables"]
    # Only a model that lay on the sharer's machine has to be named again.
    more = ', language_model="…"' if language["kind"] == "local" else ""
    sections = [
        f"# {run.name}: EEG in, explained answers out", *_warnings(facts, tested["stamp"]),
        f"An EEG encoder, a projector and a LoRA adapter that make a language model say which {label_set['noun']} "
        f"{facts['preprocess']['window_s']:g} s of EEG show, and why. Made with e2llm {facts['e2llm']}, an independent build of E²-LLM "
        "(arXiv 2601.07877).",
        "## Use", _USE.format(more=more, question=f"Which {label_set['noun']} is it?"), _language_words(language),
        "## Data, protocol and audit", _table([
            {"": "data", " ": facts["dataset"]}, {"": "answers", " ": ", ".join(label_set["labels"])}, {"": "people", " ": facts["people"]},
            {"": "windows", " ": ", ".join(f"{tested[f'{part} windows']} {part}" for part in ("train", "val", "test"))},
            {"": "what is unseen in the test", " ": tested["what is unseen"]}, {"": "test people", " ": tested["test subjects"]},
            {"": "audit of the split", " ": " ".join(tested["audit"])}]),
        "## Scores", "Test part only; 95 % intervals resample whole people. Controls have to stay at chance, or the score owes nothing to EEG.",
        "### Which one? Balanced accuracy %", _table([_score_row(row) for row in tables["tier_1"]]),
        "### What needs no EEG at all, same split: balanced accuracy %", _table([_score_row(row) for row in tables["shortcuts"]]),
        "### Several windows, and what was never trained: accuracy %", _table(_controlled(tables["tiers_2_and_3"])),
        *_claims(run), *_examples(metrics["samples"]),
        "## Limits", "\n".join(f"- {limit}" for limit in _LIMITS),
        "## A new recording", _new_subject_words(facts),
        "## What is in the folder", _contents(language),
        "## Licence", _licence_words(facts),
        "## How it was made",
        _table([{"stage": stage, "settings": f"`{json.dumps(made, sort_keys=True)}`"} for stage, made in facts["made_with"].items()]),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".",
    ]
    return _front(facts) + "\n\n".join(section for section in sections if section) + "\n"


def _front(facts: Mapping) -> str:
    """The header that the hub reads."""
    language = facts["language_model"]
    header = {**_METADATA, "license": facts["license"], "tags": [*TAGS, *(["simulated-data"] if facts["simulated"] else [])]}
    hub_id = language["name"].partition("@")[0]  # a revision may follow
    if language["kind"] == "named" and re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        header |= {"base_model": hub_id, "base_model_relation": "adapter"}
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n"


def _warnings(facts: Mapping, stamp: str) -> list[str]:
    found = [f"> **{stamp}. These scores should not be believed.**"] if stamp else []
    if facts["simulated"]:
        found.append("> **Trained and tested on simulated EEG.** The numbers say that the path works, not how well emotions can be read "
                     "from a brain.")
    return found


def public(value):
    """A setting without anything of the machine: of a path only its last part."""
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    return Path(value).name if isinstance(value, str) and is_path(value) else value


def is_path(text: str) -> bool:
    """Whether a text names a place on a machine, rather than a model of a hub."""
    return Path(text).is_absolute() or text.startswith((".", "~")) or "\\" in text or text.endswith(".gguf") or Path(text).is_dir()


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _table(rows: Sequence[Mapping]) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(row[column]) for column in columns) + " |" for row in rows)])


def _percent(row: Mapping, low: str = "low", high: str = "high") -> str:
    return f"{100 * row[low]:.1f} – {100 * row[high]:.1f}"


def _score_row(row: Mapping) -> dict:
    found = {"": row["name"], "score": f"{100 * row['score']:.1f}", "95 % over people": _percent(row)}
    if "clips low" in row:
        found["over people and clips"] = _percent(row, "clips low", "clips high")
    found["chance"] = f"{100 * row['chance']:.1f}"
    if "best without EEG" in row:
        found["best without EEG"] = f"{100 * row['best without EEG']:.1f}"
    return found | {"windows": row["n"]}


def _controlled(rows: Sequence[Mapping]) -> list[dict]:
    """One line a kind of item: heard, and the same items without its EEG."""
    found: dict[str, dict] = {}
    for row in rows:
        line = found.setdefault(row["name"], {"": row["name"]})
        line[row["group"]] = f"{100 * row['score']:.1f} ({_percent(row)})"
        line |= {"chance": f"{100 * row['chance']:.1f}", "items": row["n"]}
    return [{column: line[column] for column in ("", *(key for key in line if key not in ("", "chance", "items")), "chance", "items")}
            for line in found.values()]


def _claims(run: Run) -> list[str]:
    """Precision and recall of what explanations claim, if lesson 07 measured them."""
    if run.finished("reasoning") is None:
        return ["Whether its explanations are true of the signal was not measured for this run (lesson 07)."]
    table = pd.read_csv(run.path / "reasoning" / "claims.csv")
    rows = [_score_row(row) | {"": f"{row['name']}, {row['group']}"} for row in table.to_dict("records")]
    return ["### Are explanations true of the signal? Claims %", _table(rows)]


def _examples(samples: Sequence[Mapping]) -> list[str]:
    """Answers as they were given, as preformatted text: nothing in them is read as markup."""
    shown = [f"    {what}: {' '.join(sample[what].split()) or '(nothing)'}" for sample in samples[:3] for what in ("question", "answer", "truth")]
    return ["### Sample answers", "\n".join(shown)] if shown else []


def _language_words(language: Mapping) -> str:
    return {"included": "The language model was made on the spot for this run; nobody else has it, so it is in the folder.",
            "named": f"The language model, `{language['name']}`, is not in the folder: it is loaded by its name, unchanged.",
            "local": f"The language model, `{language['name']}`, was a local file or folder and is not in here: say where yours is. "
                     "Another one is refused."}[language["kind"]]


def _new_subject_words(facts: Mapping) -> str:
    names, few = facts["ch_names"], len(facts["ch_names"]) // 4
    return (f"The encoder was trained on {len(names)} channels: {', '.join(names)}. A file may lack up to {few} of them; they are interpolated by "
            f"spherical splines and named. Levels are by default `{facts['levels']}`, as in training; another choice is an argument of `read`. "
            "Whichever was taken stands beside every answer.")


def _contents(language: Mapping) -> str:
    lines = ["`config.json`, `model.safetensors`: sizes, encoder and projector, with the evidence that it hears.",
             "`adapter/`: LoRA weights of the language model, not merged: merging happens on loading, as it did when the scores were made.",
             "`levels.safetensors`: averages over the training run's people. No recording and no label of anybody is in this folder.",
             "`e2llm.json`: answers, channels, preprocessing, evidence, thresholds, and a checksum of every file."]
    if language["kind"] == "included":
        lines.append("`language_model/`: the language model and its tokenizer.")
    return "\n".join(f"- {line}" for line in lines)


def _licence_words(facts: Mapping) -> str:
    terms = f"Weights of this folder: `{facts['license']}`."
    if facts["language_model"]["kind"] != "included":
        terms += " The language model has its own licence."
    if not facts["simulated"]:
        terms += " The data have their own, which may restrict what is derived from them; they are not in this folder."
    return terms
