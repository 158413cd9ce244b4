"""The model card of an exported run: training data, evaluation, every score with its controls, and limits.

Numbers and settings come from the records of the run; only the sentences that hold for every run are written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import ModelCardData

from ..core.tables import read_table
from .runs import Run

TAGS = ("eeg", "emotion-recognition", "electroencephalography", "multimodal", "lora")
_USE = '''```python
from e2llm import E2LLM

model = E2LLM.from_pretrained("FOLDER"{more})  # this folder, or its hub id
recording = model.read("new.edf")  # one subject, in any format that MNE reads
print(recording.ask(3, "{question}"))  # window 3: answer and explanation, with a verdict for every claim
recording.overview()  # every window: probability of each answer, read from the EEG before any explanation
```'''
_LIMITS = (
    "A research artifact. It is no diagnosis and no lie detector. Do not base a decision about a person on it.",
    "Scores hold for the protocol above, and for subjects, films and caps like those of the data. Do not compare them "
    "with scores of another split.",
    "Claims about band power are compared with the signal of the new file and marked. A true claim is not necessarily "
    "the reason for the answer.",
    "A new subject is compared with statistics of the new recording itself, without labels (`statistics=\"subject\"`: "
    "transductive, and insensitive to anything that lasts the whole recording), or with those of the training subjects "
    "(`statistics=\"population\"`). The scores above were made with the statistics that the protocol names.",
    "Free text is generated: it can be wrong or unreadable. Probabilities over the closed set of answers are always "
    "defined.",
    "Probabilities are read from the EEG before any explanation. The text may give another answer; then both are "
    "shown. An explanation names an answer, so a probability after it does not measure confidence.",
)


def model_card(run: Run, facts: Mapping) -> str:
    """Text of ``README.md``.

    Parameters
    ----------
    run : Run
        With a finished evaluation.
    facts : mapping
        Content of ``e2llm.json`` (:func:`e2llm.app.hub_export.export`).

    Returns
    -------
    str
        Markdown with a YAML header.
    """
    metrics, language = run.read_metrics(), facts["language_model"]
    tested, label_set, tables = metrics["facts"], facts["label_set"], metrics["tables"]
    # Only a local language model has to be named again.
    more = ', language_model="…"' if language["kind"] == "local" else ""
    sections = [
        f"# {run.name}: EEG in, explained answers out", *_warnings(facts, tested["stamp"]),
        f"An EEG encoder, a projector and a LoRA adapter. With them a language model names the {label_set['noun']} of "
        f"{facts['preprocess']['window_s']:g} s of EEG and explains it. Made with e2llm {facts['e2llm']}, an "
        "independent implementation of E²-LLM (arXiv 2601.07877).",
        "## Use", _USE.format(more=more, question=f"Which {label_set['noun']} is it?"), _second_pass_words(facts),
        _language_words(language),
        "## Data, protocol and audit", _table([
            {"": "data", " ": facts["dataset"]}, {"": "answers", " ": ", ".join(label_set["labels"])},
            {"": "people", " ": facts["people"]},
            {"": "windows", " ": ", ".join(f"{tested[f'{part} windows']} {part}" for part in ("train", "val", "test"))},
            {"": "what is unseen in the test", " ": tested["what is unseen"]},
            {"": "test people", " ": tested["test subjects"]},
            {"": "audit of the split", " ": " ".join(tested["audit"])}]),
        "## Scores",
        "Test part only. The 95 % intervals are over people, in tiers 2 and 3 over clips and scenario texts too. "
        "Controls must be at chance; otherwise a score does not show that the model uses the EEG.",
        "### Tier 1: balanced accuracy %", _table([_score_row(row) for row in tables["tier_1"]]),
        "### Shortcuts without EEG, same split: balanced accuracy %",
        _table([_score_row(row) for row in tables["shortcuts"]]),
        "### Tiers 2 and 3, several windows and tasks without training: accuracy %",
        _table(_controlled(tables["tiers_2_and_3"])),
        *_from_thought(tables), *_claims(run), *_examples(metrics["samples"]),
        "## Limits", "\n".join(f"- {limit}" for limit in _LIMITS),
        "## A new recording", _new_subject_words(facts),
        "## What is in the folder", _contents(facts),
        "## License", _license_words(facts),
        "## How it was made",
        _table([{"stage": stage, "settings": f"`{json.dumps(made, sort_keys=True)}`"}
                for stage, made in facts["made_with"].items()]),
        "Versions: " + ", ".join(f"{name} {version}" for name, version in facts["versions"].items()) + ".",
    ]
    return _front(facts) + "\n\n".join(section for section in sections if section) + "\n"


def _front(facts: Mapping) -> str:
    """The YAML header that the hub reads."""
    language = facts["language_model"]
    data = ModelCardData(language="en", library_name="e2llm", license=facts["license"],
                         tags=[*TAGS, *(["simulated-data"] if facts["simulated"] else [])])
    hub_id = language["name"].partition("@")[0]  # a revision may follow
    if language["kind"] == "named" and re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id):
        data.base_model, data["base_model_relation"] = hub_id, "adapter"
    return f"---\n{data.to_yaml()}\n---\n\n"


def _warnings(facts: Mapping, stamp: str) -> list[str]:
    found = [f"> **{stamp}. Do not use these scores.**"] if stamp else []
    if facts["simulated"]:
        found.append("> **Trained and tested on simulated EEG.** The scores show that the method works. They do not "
                     "show how well emotions can be read from real EEG.")
    return found


def public(value):
    """A setting in which only the last part of each path stays, so that it names no folder of this computer."""
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    return Path(value).name if isinstance(value, str) and is_path(value) else value


def is_path(text: str) -> bool:
    """Whether a text is a local path rather than a hub id."""
    looks_local = text.startswith((".", "~")) or "\\" in text or text.endswith(".gguf")
    return looks_local or Path(text).is_absolute() or Path(text).is_dir()


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
    """One line per kind of item: the score with EEG, and the scores of its controls."""
    found: dict[str, dict] = {}
    for row in rows:
        line = found.setdefault(row["name"], {"": row["name"]})
        line[row["group"]] = f"{100 * row['score']:.1f} ({_percent(row)})"
        line |= {"chance": f"{100 * row['chance']:.1f}", "items": row["n"]}
    return [{column: line[column] for column in ("", *(key for key in line if key not in ("", "chance", "items")),
                                                 "chance", "items")}
            for line in found.values()]


def _from_thought(tables: Mapping) -> list[str]:
    """Answers from the thought alone with their controls, and what they cost, if the evaluation has them."""
    if not (scores := tables.get("from_thought")):
        return []
    basic = [_score_row(row) | {"": row["group"]} for row in scores if row["name"] == "predict"]
    price = [{"": row["name"], "from the EEG": f"{100 * row['from the EEG']:.1f}",
              "from the thought": f"{100 * row['from the thought']:.1f}",
              "difference": f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})",
              "items": row["n"]} for row in tables["price"]]
    return ["### Answers from the thought alone: balanced accuracy %", _table(basic),
            "### The same items answered twice: accuracy %, balanced for predict", _table(price)]


def _claims(run: Run) -> list[str]:
    """Precision and recall of the claims, if lesson 07 measured them."""
    if run.finished("reasoning") is None:
        return ["Whether the explanations are true of the signal was not measured for this run (lesson 07)."]
    table = read_table(run.path / "reasoning" / "claims.csv")
    rows = [_score_row(row) | {"": f"{row['name']}, {row['group']}"} for row in table.to_dict("records")]
    return ["### Are explanations true of the signal? Claims %", _table(rows)]


def _examples(samples: Sequence[Mapping]) -> list[str]:
    """Generated answers as preformatted text, so that nothing in them is read as markup."""
    shown = [f"    {what}: {' '.join(sample[what].split()) or '(nothing)'}" for sample in samples[:3]
             for what in ("question", "answer", "truth")]
    return ["### Sample answers", "\n".join(shown)] if shown else []


def _language_words(language: Mapping) -> str:
    name = language["name"]
    return {
        "included": "The language model is in the folder.",
        "named": f"The language model, `{name}`, is not in the folder: it is loaded by its name, unchanged.",
        "local": f"The language model, `{name}`, was a local file and is not in the folder: give the path of yours. "
        "Another language model is refused.",
    }[language["kind"]]


def _second_pass_words(facts: Mapping) -> str:
    if not facts.get("second_pass"):
        return ("Answers are read from the EEG. The folder holds no second pass, so `answer_from=\"thought\"` is not "
                "there.")
    return ("Answers are read from the EEG. A recording of `E2LLMFromThought.from_pretrained` takes them from the "
            "stated evidence alone (`answer_from=\"thought\"`). There, "
            "`recording.with_levels(answer, {\"occipital alpha\": \"very low\"})` answers again with other levels.")


def _new_subject_words(facts: Mapping) -> str:
    names, few = facts["ch_names"], len(facts["ch_names"]) // 4
    return (f"The encoder was trained on {len(names)} channels: {', '.join(names)}. A file may lack up to {few} of "
            "them; they are interpolated by spherical splines and named. By default the "
            f"`{facts['statistics']}` statistics are used, as in training; another choice is an argument of `read`. "
            "Every answer names the choice.")


def _contents(facts: Mapping) -> str:
    lines = [
        "`config.json`, `model.safetensors`: sizes, encoder and projector with its evidence probe.",
        "`adapter/`: LoRA weights of the language model. They are merged on loading, as before the evaluation.",
        "`population_statistics.safetensors`: averages over the training subjects. The folder has no recordings and no "
        "labels.",
        "`e2llm.json`: answers, channels, preprocessing, evidence, thresholds, and a checksum of every file.",
    ]
    if facts.get("second_pass"):
        lines.append("`second_pass/`: LoRA weights and token embeddings that answer from the stated evidence alone.")
    if facts["language_model"]["kind"] == "included":
        lines.append("`language_model/`: the language model and its tokenizer.")
    return "\n".join(f"- {line}" for line in lines)


def _license_words(facts: Mapping) -> str:
    terms = f"Weights of this folder: `{facts['license']}`."
    if facts["language_model"]["kind"] != "included":
        terms += " The language model has its own license."
    if not facts["simulated"]:
        terms += " The data have their own, which may restrict what is derived from them; they are not in this folder."
    return terms
