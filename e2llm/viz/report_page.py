"""``report.html`` of a run: one file, figures inside, readable without network, on a phone and on paper."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..core.chat import END_THINK, THINK
from ..core.verdicts import Verdict
from ..data.audit import NOTHING_FOUND
from .pages import NAMES, caption, render_page, table_cells

SIMULATED = ("Simulated EEG: no brain was recorded. These scores show that the method works on signals with known "
             "effects. They say nothing about how well emotions can be read from people.")
MARKS = {Verdict.TRUE: "✓", Verdict.FALSE: "✗", Verdict.UNKNOWN: "?"}
COUNTS = {Verdict.TRUE: "true", Verdict.FALSE: "false", Verdict.UNKNOWN: "that cannot be checked"}
SCORED, CHOSEN = "(scored) ", "the most probable of several texts, not written by the model"
# Columns of the tables of results that come first, in this order; others follow as they are.
COLUMNS = (*NAMES, "score", "low", "high", "mean", "sd", "sd by luck", "min", "max", "chance", "best without EEG", "n",
           "role", "tier", "parsed", "people low", "people high", "clips low", "clips high")
# Tables in the order of the report: title, and what it shows.
TABLES = {
    "tier_1": ("Which emotion? (tier 1)", "Balanced accuracy with its interval over people. A control has no EEG, or "
               "another window's: it must be at chance. The oracle knows how the data were simulated."),
    "tests": ("Do the models differ? (tier 1)", "Differences from the reference, person by person; p_holm is corrected "
              "for the number of comparisons."),
    "shortcuts": ("What can be answered without any EEG", "Balanced accuracy of tables that hold no EEG, under the "
                  "same split."),
    "tiers_2_and_3": ("Descriptions, comparisons and scenarios (tiers 2 and 3)", "Share of right answers with EEG, "
                      "with another window's EEG, and without."),
    "from_thought": ("Answers from the thought alone", "The same questions, answered without the EEG from what the "
                     "thought states."),
    "price": ("The price of answers from the thought", "What they lose against answers from the EEG."),
    "strata": ("Scenarios that were never taught", "By how far their words and situations are from what was taught."),
    "ablation": ("Without one training stage", "Everything else is equal."),
    "item_seeds": ("How much the drawn questions matter", "Mean over item seeds; 'sd by luck' is what independent "
                   "answers of this accuracy would have."),
}
# What the figures of the lessons show: their texts for readers who do not see them.
FIGURES = {
    "quality": "Amplitude of every recording beside the usual range, and how many of its windows are used",
    "spectra": "Power spectra of one subject by label, mean over channels",
    "beside_eegmat": "Spectrum and alpha topography of these windows beside those of ten people of a public data set",
    "topographies": "Scalp maps of band power for each label, in dB against the subject's mean",
    "embeddings": "The encoder's output for unseen people and clips, in two dimensions, before and after stage 1",
    "confusion_stage1": "True label against the answer of the stage-1 head, in percent of the true label",
    "alignment": "Cosine similarity of projected EEG tokens and label words",
    "shortcuts": "Balanced accuracy that tables without EEG reach, beside chance",
    "tier_1": "Balanced accuracy of oracle, baselines, models and controls with intervals, beside chance",
    "confusion_llm": "True label against the answer of the language model, in percent of the true label",
    "tiers_2_and_3": "Accuracy of each further task with EEG, with shuffled EEG and without, beside chance",
    "strata": "Accuracy on scenarios that were never taught, by how new their words and situations are",
    "ablation": "Scores of the whole model, and of models that lack one training stage",
    "protocols": "Balanced accuracy of two classifiers under eight protocols of splitting the same data",
    "protocols_without_emotion": "The same protocols on data without any emotion: what lies above chance is a leak",
    "controls": "Balanced accuracy when the EEG is destroyed in several ways, for each model, beside chance",
    "reliability": "How often the answer is right at each stated probability",
    "claims": "Precision and recall of the claims in thoughts, of the model and of baselines",
    "claim_precision_by_feature": "Share of true claims for each feature of the signal, beside chance",
    "evidence_capacity": "Balanced accuracy of a linear model that reads only what a thought can state",
    "causes": "How much answers depend on the stated claims: the model beside planted models whose chain is known",
    "dose": "Share of answers that are the other window's, against the number of its claims that were put in",
    "counterfactuals": "How claims and answers follow when one band of one region of the signal is scaled",
    "attribution": "Scalp maps by band of what supports the true label, for each emotion",
    "deletion": "Log-probability of the answer while cells are removed or inserted, most attributed or at random first",
    "model_sizes": "Scores of language models of several sizes on the same windows and questions",
    "model_costs": "Seconds and memory of language models of several sizes",
    "pretraining": "Balanced accuracy on unseen people of real EEG by how the encoder was initialized, beside chance",
    "pretraining_masks": "Which patches of a window are hidden in masked pretraining",
    "pretraining_loss": "Losses of masked pretraining over its steps",
    "pretraining_rebuilt": "Hidden patches of the EEG of unseen people beside what the pretrained encoder rebuilds",
}
_FACTS = ("what is unseen", "label set", "protocol", "normalization", "transductive", "train windows", "val windows",
          "test windows", "test subjects")  # these come first

_STYLE = """<style>
.steps { display: flex; gap: .4rem 1.6rem; padding: 0; margin: .8rem 0; list-style: none; }
.steps li { flex: 1 1 0; border: 2px solid var(--bar); border-radius: .5rem; padding: .4rem .6rem;
  background: var(--panel); position: relative; line-height: 1.3; }
.steps small { display: block; }
.steps li + li::before { content: "→"; position: absolute; left: -1.45rem; top: .6rem; color: var(--soft); }
.first { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 2rem; }
.first h2 { margin-top: .8rem; font-size: 1.2rem; }
.true { color: var(--true); } .false { color: var(--false); }
.sample.wrong { border-color: var(--false); } .sample p { margin: .3rem 0; }
.scores { width: 100%; } .scores th { padding-left: 0; } .scores tr.main th { font-weight: 700; }
.scores td.bar { width: 30%; min-width: 4rem; } .scores .number { white-space: nowrap; }
.bar div { background: var(--other); height: 1.1em; margin-top: .2em; } .main .bar div { background: var(--bar); }
.contents { columns: 14rem; padding-left: 1.2rem; }
.parameters td:last-child { color: var(--soft); }
@media (max-width: 50rem) { .first { grid-template-columns: minmax(0, 1fr); }
  .steps { flex-direction: column; gap: 1.1rem; }
  .steps li { display: flex; gap: .6rem; padding: .1rem .6rem; } .steps b { flex: 0 0 8.5rem; }
  .steps li + li::before { content: "↓"; left: 4rem; top: -1.3rem; } }
@media screen and (max-width: 40rem) { .parameters thead { display: none; }
  .parameters tr { display: flex; flex-wrap: wrap; border-bottom: 1px solid var(--line); }
  .parameters tr > * { border: 0; } .parameters .wide th:first-child { max-width: none; }
  .parameters td:last-child { flex: 1 0 100%; padding-left: 0; }
  .parameters td:nth-child(3):not(:empty)::before { content: "default "; color: var(--soft); } }
@media print { .first { gap: 0 1rem; } }
</style>
"""
_MACROS = """{% macro answer_of(sample) %}
<div class="sample {{ "right" if sample.right else "wrong" }}">
<p><b>{{ sample.question }}</b></p>
{% if sample.thought %}
<p>{% for piece in sample.thought %}
{% if piece.verdict %}
<span class="{{ piece.verdict }}" title="{{ piece.measured }}">{{ piece.text }}&nbsp;<b>{{ piece.mark }}</b></span>
{%- else %}
{{ piece.text }}
{%- endif %}
{{ piece.end }}
{% endfor %}</p>
{% endif %}
<p>Answer: <b>{{ sample.answer or "none that can be read" }}</b>
{% if sample.right %}
<b class="true">✓ right</b>
{%- else %}
<b class="false">✗ wrong</b>, true is <b>{{ sample.truth }}</b>
{%- endif %}</p>
{% if sample.count %}
<p><small>{{ sample.count }}</small></p>
{% endif %}
</div>
{% endmacro %}
"""
_BODY = _MACROS + _STYLE + """<h1>E²-LLM run “{{ name }}”</h1>
{% if simulated %}
<p class="warning">{{ simulated }}</p>
{% endif %}
{% if stamp %}
<p class="stamp" role="alert">{{ stamp }}. Do not use these scores.</p>
{% endif %}
{% for warning in warnings %}
<p class="warning" role="alert">{{ warning }}</p>
{% endfor %}
<ol class="steps">
{% for title, what in steps %}
<li><b>{{ title }}</b><small>{{ what }}</small></li>
{% endfor %}
</ol>
<div class="first">
{% if explained %}
<div><h2>One answer, and what is true of it</h2>
{{ answer_of(explained) }}
<p><small>Each claim is compared with the measured signal: <span class="true">✓ true</span>,
<span class="false">✗ false</span>. {{ "This is the first right answer; a wrong one is" if explained.right
else "More are" }} under <a href="#samples">answers</a>.</small></p></div>
{% endif %}
{% if scores %}
<div><h2>The score with its controls</h2>
<table class="scores"><caption><small>Balanced accuracy, %; in brackets the 95 % interval over people</small></caption>
<tbody>
{% for row in scores %}
<tr{% if row.main %} class="main"{% endif %}><th scope="row">{{ row.name }} <small>{{ row.role }}</small></th>
<td class="bar"><div style="width: {{ row.width }}%"></div></td><td class="number">{{ row.score }}</td>
<td class="number">{{ row.interval }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
</div>
<h2>Contents</h2>
<ul class="contents">
{% for id, title in contents %}
<li><a href="#{{ id }}">{{ title }}</a></li>
{% endfor %}
</ul>
{% if facts %}
<h2 id="tested">What was tested</h2>
{{ facts_of(facts) }}
{% endif %}
{% if parameters %}
<h2 id="parameters">Parameters</h2>
<p>{{ changed }}</p>
<div class="parameters">
{% for table in parameters %}
{{ rows_of(table) }}
{% endfor %}
</div>
{% endif %}

<h2 id="results">Results</h2>
{% for table in tables %}
{{ rows_of(table) }}
{% else %}
<p>This run has no tables of results.</p>
{% endfor %}

{% if samples %}
<h2 id="samples">Answers, right and wrong</h2>
{% for sample in samples %}
{{ answer_of(sample) }}
{% endfor %}
{% endif %}

{% if figures %}
<h2 id="figures">Figures</h2>
{% for figure in figures %}
<figure><img alt="{{ figure.text }}" src="data:image/png;base64,{{ figure.data }}">
<figcaption>{{ figure.text }}</figcaption></figure>
{% endfor %}
{% endif %}

{% if reasoning %}
<h2 id="reasoning">Explanations, compared with the signal</h2>
<p>{{ reasoning.meaning }}</p>
{% for table in reasoning.tables %}
{{ rows_of(table) }}
{% endfor %}
{% for title, examples in reasoning.examples %}
<h3>{{ title }}</h3>
{% for example in examples %}
{{ answer_of(example) }}
{% endfor %}
{% endfor %}
{% endif %}

{% if quality %}
<h2 id="recordings">Recordings: what the gate found</h2>
{{ rows_of(quality) }}
{% endif %}

<h2 id="made">How it was made</h2>
{% for stage in stages %}
{{ facts_of(stage.rows, stage.caption) }}
{% else %}
<p>This run has no finished stage.</p>
{% endfor %}

{% if versions %}
<h2 id="versions">Versions</h2>
<p>{% for package, version in versions %}{{ package }} {{ version }}{{ "" if loop.last else " · " }}{% endfor %}</p>
{% endif %}
"""


def _text(value: Any) -> str:
    """A fact as text: sentences unchanged, a list of sentences joined, anything else as compact JSON."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _first(order: Iterable[str], found: Iterable[str]) -> list[str]:
    """Names, those of ``order`` before the others, which keep their order."""
    place = {name: i for i, name in enumerate(order)}
    return sorted(found, key=lambda name: place.get(name, len(place)))


def _stage(name: str, record: Mapping) -> dict:
    """Facts, inputs and parameters of a stage as text."""
    pairs = [pair for part in ("facts", "inputs", "params") for pair in record[part].items()]
    rows = [(key, _text(value)) for key, value in pairs]
    return {"caption": f"{caption(name)} ({record['seconds']:.0f} s)", "rows": rows}


def _result(name: str, rows: list[Mapping]) -> dict:
    title, note = TABLES.get(name, (caption(name), ""))
    columns = _first(COLUMNS, dict.fromkeys(column for row in rows for column in row))
    return {**table_cells(name, [{column: row.get(column) for column in columns} for row in rows], note),
            "caption": title}


def _sample(sample: Mapping) -> dict:
    """An answer with its thought in marked pieces; the marks of an old run are not known."""
    said, truth = _text(sample.get("answer", "")), _text(sample.get("truth", ""))
    scored, said = said.startswith(SCORED), said.removeprefix(SCORED)
    thought, end, answer = said.rpartition(END_THINK)
    answer = (answer if end else said).replace(THINK, "").strip()
    thought = thought.replace(THINK, "").replace(END_THINK, "").strip()
    whole = {"text": thought, "end": "", "verdict": ""}
    pieces = [_piece(piece) for piece in sample.get("claims", ())] or [whole] * bool(thought)
    right = bool(sample.get("right", answer == truth))
    found = [verdict for piece in sample.get("claims", ()) for verdict, _ in piece["marks"]]
    counts = [f"{found.count(verdict)} {words}" for verdict, words in COUNTS.items() if verdict in found]
    return {"question": _text(sample.get("question", "")), "thought": pieces, "answer": answer, "truth": truth,
            "right": right, "count": "; ".join(["claims: " + ", ".join(counts)] * bool(counts) + [CHOSEN] * scored),
            "marked": Verdict.TRUE in found or Verdict.FALSE in found}


def _piece(piece: Mapping) -> dict:
    """Part of a thought: its verdict (false if one of its claims is), the mark of each claim, and what was measured."""
    verdicts = [verdict for verdict, _ in piece["marks"]]
    verdict = next((str(name) for name in (Verdict.FALSE, Verdict.UNKNOWN, Verdict.TRUE) if name in verdicts), "")
    text = piece["text"].rstrip(",.; ")  # a mark stands before the comma, or it seems to belong to the next claim
    return {"text": text, "end": piece["text"][len(text):], "verdict": verdict.partition(" ")[0],
            "mark": "".join(MARKS[Verdict(name)] for name in verdicts),
            "measured": "; ".join(measured for _, measured in piece["marks"])}


def _example(example: Mapping) -> dict:
    """An explanation of lesson 07; its claims come as ``claim: verdict (measured)``."""
    made = _sample({"question": example["question"], "answer": example["text"], "truth": example["truth"],
                    "right": example["answer"] == example["truth"]})
    listed = []
    for claim in example["claims"]:
        text, _, rest = claim.partition(": ")
        verdict = next((str(name) for name in MARKS if rest.startswith(str(name))), "")
        listed.append({"text": f"{text}{rest.removeprefix(verdict)}", "end": "", "verdict": verdict.partition(" ")[0],
                       "mark": MARKS.get(verdict, ""), "measured": rest})
    said = " ".join(piece["text"] for piece in made["thought"])
    flag = "" if example["flag"] == "none" else f" Flag: {example['flag']}"
    return {**made, "answer": example["answer"] or "", "thought": [{"text": said, "end": "", "verdict": ""}, *listed],
            "count": f"{len(listed)} claims.{flag}"}


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else None


def _scores(rows: Iterable[Mapping]) -> list[dict]:
    """What the first screen shows of tier 1: the models with their controls, the best baseline, the oracle, chance."""
    known = [row for row in rows if _share(row.get("score")) is not None]
    by_role: dict[str, list[Mapping]] = {}
    for row in known:
        by_role.setdefault(str(row.get("role")), []).append(row)
    best = max(by_role.get("baseline", []), key=lambda row: row["score"], default=None)
    shown = [*sorted(by_role.get("model", []), key=lambda row: row.get("name") != "LLM"), *by_role.get("control", []),
             *([best] if best else []), *by_role.get("oracle", [])]
    found = []
    for row in shown:
        low, high = _share(row.get("low")), _share(row.get("high"))
        found.append({"name": _text(row.get("name")), "main": row.get("name") == "LLM",
                      "role": "best baseline" if row is best else row.get("role"), "width": f"{100 * row['score']:.1f}",
                      "score": f"{100 * row['score']:.1f}",
                      "interval": "" if None in (low, high) else f"({100 * low:.0f} – {100 * high:.0f})"})
    chance = _share(known[0].get("chance")) if found else None
    if chance is not None:
        found.append({"name": "chance", "main": False, "role": "", "interval": "", "width": f"{100 * chance:.1f}",
                      "score": f"{100 * chance:.1f}"})
    return found


def _steps(values: Mapping[str, Any], facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pipeline from left to right, with the sizes of this run where they are known."""
    def say(text: str, *names: str) -> str:
        return text.format(*(values[name] for name in names)) if set(names) <= values.keys() else ""

    tested = f"{facts['test windows']} test windows" if "test windows" in facts else ""
    return [("EEG", "; ".join(filter(None, [say("windows of {:g} s", "window_s"), tested]))),
            ("Encoder", say("stage 1: {}, trained to separate labels", "encoder_size") or "stage 1"),
            ("Projector", say("stage 2: {} tokens and {} evidence slots a window", "eeg_tokens", "evidence_slots")
             or "stage 2"),
            ("Language model", say("stage 3: {} with LoRA", "language_model") or "stage 3"),
            ("Thought, answer", "claims about the signal, then a label"),
            ("Check", "each claim against the measured signal")]


def _parameters(groups: Mapping[str, list[Mapping]]) -> tuple[list[dict], str]:
    tables, changed = [], []
    for title, rows in groups.items():
        changed += [f"{row['name']} = {row['value']}" for row in rows if row["default"] != ""]
        shown = [{"name": row["name"], "value": row["value"], "default, if another": row["default"],
                  "what it is": row["help"]} for row in rows]
        tables.append({**table_cells("parameters", shown), "caption": title})
    return tables, f"Other than the default: {', '.join(changed)}." if changed else "All have their defaults."


def render(name: str, metrics: Mapping, stages: Mapping, figures: Mapping[str, bytes],
           reasoning: Mapping | None = None, quality: list[Mapping] | None = None,
           values: Mapping[str, Any] | None = None, parameters: Mapping[str, list[Mapping]] | None = None) -> str:
    """One HTML page of a run; all text from models, files and labels is escaped.

    Parameters
    ----------
    name : str
        Of the run.
    metrics : mapping
        ``metrics.json``: each of ``tables`` is a name and a list of rows, ``samples`` a list of mappings with question,
        answer and truth, and where they were judged ``right`` and ``claims`` (text and marks of each piece).
    stages : mapping
        Records of the finished stages.
    figures : mapping of str to bytes
        File name without suffix, PNG.
    reasoning : mapping, optional
        ``meaning`` (text), ``tables`` (title to rows) and ``examples`` (title to rows) of lesson 07.
    quality : list of mapping, optional
        Findings of the gate, one a row (:func:`e2llm.data.checks.read_quality`).
    values : mapping, optional
        Parameters of the run, for the drawing of the pipeline.
    parameters : mapping, optional
        Group to rows of name, value, default (empty if it is the value) and help.
    """
    versions = {(package, version) for record in stages.values() for package, version in record["versions"].items()}
    if reasoning is not None:
        reasoning = {**reasoning, "tables": [table_cells(title, rows) for title, rows in reasoning["tables"].items()],
                     "examples": [(title, [_example(row) for row in rows]) for title, rows in reasoning["examples"]]}
    facts, tables = metrics.get("facts", {}), metrics.get("tables", {})
    samples = [_sample(sample) for sample in metrics.get("samples", [])]
    marked = [sample for sample in samples if sample["marked"]]
    is_twin = stages.get("evaluation", {}).get("params", {}).get("oracle")  # only simulated data have a ground truth
    groups, changed = _parameters(parameters or {})
    parts = {"tested": ("What was tested", facts), "parameters": ("Parameters", groups), "results": ("Results", True),
             "samples": ("Answers, right and wrong", samples), "figures": ("Figures", figures),
             "reasoning": ("Explanations, compared with the signal", reasoning),
             "recordings": ("Recordings: what the gate found", quality), "made": ("How it was made", True),
             "versions": ("Versions", versions)}
    return render_page(
        f"E²-LLM run {name}", _BODY, name=name,
        simulated=SIMULATED if is_twin else "",
        steps=_steps(values or {}, facts),
        explained=max(marked, key=lambda sample: sample["right"], default=None),
        scores=_scores(tables.get("tier_1", [])),
        contents=[(key, title) for key, (title, there) in parts.items() if there],
        tables=[_result(title, tables[title]) for title in _first(TABLES, tables) if tables[title]],
        facts=[(key, _text(facts[key])) for key in _first(_FACTS, facts) if key != "stamp"],
        stamp=facts.get("stamp", ""),
        warnings=[found for found in facts.get("audit", []) if found != NOTHING_FOUND],
        parameters=groups, changed=changed,
        samples=sorted(samples, key=lambda sample: not sample["right"]),
        reasoning=reasoning,
        quality=table_cells("findings", quality) if quality else None,
        figures=[{"text": FIGURES.get(title, caption(title)), "data": base64.b64encode(figures[title]).decode()}
                 for title in _first(FIGURES, figures)],
        stages=[_stage(title, record) for title, record in stages.items()],
        versions=sorted(versions),
    )
