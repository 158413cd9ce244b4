"""``report.html`` of a run: one file, figures inside, readable without network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from ..data.audit import NOTHING_FOUND
from .pages import caption, render_page, table_cells

_BODY = """<h1>E²-LLM run “{{ name }}”</h1>

{% if stamp %}
<p class="stamp" role="alert">{{ stamp }}. Do not use these scores.</p>
{% endif %}
{% for warning in warnings %}
<p class="warning" role="alert">{{ warning }}</p>
{% endfor %}
{% if facts %}
<h2>What was tested</h2>
{{ facts_of(facts) }}
{% endif %}

<h2>Results</h2>
{% for table in tables %}
{{ rows_of(table) }}
{% else %}
<p>This run has no tables of results.</p>
{% endfor %}

{% if figures %}
<h2>Figures</h2>
{% for figure in figures %}
<figure><img alt="{{ figure.caption }}" src="data:image/png;base64,{{ figure.data }}">
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
{% endif %}

{% if quality %}
<h2>Recordings: what the gate found</h2>
{{ rows_of(quality) }}
{% endif %}

{% if samples %}
<h2>Sample answers</h2>
{% for sample in samples %}
<div class="sample"><dl>
{% for key, text in sample.items() %}
<dt>{{ key | capitalize }}</dt><dd>{{ text }}</dd>
{% endfor %}
</dl></div>
{% endfor %}
{% endif %}

{% if reasoning %}
<h2>Explanations, compared with the signal</h2>
<p>{{ reasoning.meaning }}</p>
{% for table in reasoning.tables %}
{{ rows_of(table) }}
{% endfor %}
{% for title, examples in reasoning.examples %}
<h3>{{ title }}</h3>
{% for example in examples %}
<div class="sample"><dl>
<dt>Question</dt><dd>{{ example.question }}</dd>
<dt>Generated text</dt><dd>{{ example.text }}</dd>
<dt>Claims</dt><dd>{% for claim in example.claims %}{{ claim }}
{% else %}none
{% endfor %}</dd>
<dt>Answer and true label</dt><dd>{{ example.answer or "not readable" }}, {{ example.truth }}</dd>
<dt>Flag</dt><dd>{{ example.flag }}</dd>
</dl></div>
{% endfor %}
{% endfor %}
{% endif %}

<h2>How it was made</h2>
{% for stage in stages %}
{{ facts_of(stage.rows, stage.caption) }}
{% else %}
<p>This run has no finished stage.</p>
{% endfor %}

{% if versions %}
<h2>Versions</h2>
<p>{% for package, version in versions %}{{ package }} {{ version }}{{ "" if loop.last else " · " }}{% endfor %}</p>
{% endif %}
"""


def _text(value: Any) -> str:
    """A fact as text: sentences unchanged, a list of sentences joined, anything else as compact JSON."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _stage(name: str, record: Mapping) -> dict:
    """Facts, inputs and parameters of a stage as text."""
    pairs = [pair for part in ("facts", "inputs", "params") for pair in record[part].items()]
    rows = [(key, _text(value)) for key, value in pairs]
    return {"caption": f"{caption(name)} ({record['seconds']:.0f} s)", "rows": rows}


def render(name: str, metrics: Mapping, stages: Mapping, figures: Mapping[str, bytes],
           reasoning: Mapping | None = None, quality: list[Mapping] | None = None) -> str:
    """One HTML page of a run; all text from models, files and labels is escaped.

    Parameters
    ----------
    name : str
        Of the run.
    metrics : mapping
        ``metrics.json``: each of ``tables`` is a name and a list of rows, ``samples`` a list of mappings.
    stages : mapping
        Records of the finished stages.
    figures : mapping of str to bytes
        File name without suffix, PNG.
    reasoning : mapping, optional
        ``meaning`` (text), ``tables`` (title to rows) and ``examples`` (title to rows) of lesson 07.
    quality : list of mapping, optional
        Findings of the gate, one a row (:func:`e2llm.data.checks.read_quality`).
    """
    found = {(package, version) for record in stages.values() for package, version in record["versions"].items()}
    if reasoning is not None:
        reasoning = {**reasoning, "tables": [table_cells(title, rows) for title, rows in reasoning["tables"].items()]}
    return render_page(
        f"E²-LLM run {name}", _BODY, name=name,
        tables=[table_cells(title, rows) for title, rows in metrics.get("tables", {}).items() if rows],
        facts=[(key, _text(value)) for key, value in metrics.get("facts", {}).items() if key != "stamp"],
        stamp=metrics.get("facts", {}).get("stamp", ""),
        warnings=[found for found in metrics.get("facts", {}).get("audit", []) if found != NOTHING_FOUND],
        samples=metrics.get("samples", []),
        reasoning=reasoning,
        quality=table_cells("findings", quality) if quality else None,
        figures=[{"caption": caption(title),
                  "data": base64.b64encode(png).decode()} for title, png in figures.items()],
        stages=[_stage(title, record) for title, record in stages.items()],
        versions=sorted(found),
    )
