"""``report.html`` of a run: one file, figures inside, readable without network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import jinja2

from ..data.audit import NOTHING_FOUND

# Generated text is inserted here: autoescape stays on, and nothing below is marked safe.
PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
ROWS_OF = """{% macro rows_of(table) %}
<div class="wide"><table>
<caption>{{ table.caption }}</caption>
<thead><tr>
{% for cell in table.head %}
<th scope="col"{% if cell.numeric %} class="number"{% endif %}>{{ cell.text }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}<td{% if cell.numeric %} class="number"{% endif %}>{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
"""
STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 2px solid #0072b2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; }
figure { margin: 1.5rem 0; } img { max-width: 100%; } figcaption { color: #444; }
.sample { border-left: 4px solid #0072b2; margin: 1rem 0; padding: .2rem 1rem; background: #f5f8fa; }
.stamp { background: #d55e00; color: #fff; font-weight: 700; padding: .5rem 1rem; }
.warning { border-left: 6px solid #d55e00; background: #fdf0e8; padding: .5rem 1rem; }
.sample dd { margin: 0 0 .5rem; white-space: pre-wrap; } dt { font-weight: 600; }
"""
_TEMPLATE = ROWS_OF + """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>E²-LLM run {{ name }}</title>
<style>
""" + STYLE + """</style>
</head>
<body>
<h1>E²-LLM run “{{ name }}”</h1>

{% if stamp %}
<p class="stamp" role="alert">{{ stamp }}. Do not use these scores.</p>
{% endif %}
{% for warning in warnings %}
<p class="warning" role="alert">{{ warning }}</p>
{% endfor %}
{% if facts %}
<h2>What was tested</h2>
<div class="wide"><table>
<tbody>
{% for key, text in facts %}
<tr><th scope="row">{{ key }}</th><td>{{ text }}</td></tr>
{% endfor %}
</tbody></table></div>
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
<div class="wide"><table>
<caption>{{ stage.caption }}</caption>
<tbody>
{% for key, text in stage.rows %}
<tr><th scope="row">{{ key }}</th><td>{{ text }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>This run has no finished stage.</p>
{% endfor %}

{% if versions %}
<h2>Versions</h2>
<p>{% for package, version in versions %}{{ package }} {{ version }}{{ "" if loop.last else " · " }}{% endfor %}</p>
{% endif %}
</body>
</html>
"""


def number(value: Any, column: str) -> str:
    """A cell of a table as text.

    Parameters
    ----------
    value : object
        A number is written with three significant digits, None as a dash.
    column : str
        If its name ends in ``%``, a share is written in percent with one decimal (0.5 is 50.0).
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if column.endswith("%"):
        return f"{100 * value:.1f}"
    if isinstance(value, int):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


def _caption(name: str) -> str:
    """``02_confusion-matrix`` to ``Confusion matrix``."""
    words = name.lstrip("0123456789_-. ").replace("_", " ").replace("-", " ") or name
    return words[0].upper() + words[1:]


def table_cells(name: str, rows: list[Mapping]) -> dict:
    """A list of rows as cells; a column is numeric if all its values are numbers."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = {column: all(isinstance(row.get(column), (int, float, type(None))) for row in rows) for column in columns}

    def cell(text: str, column: str) -> dict:
        return {"text": text, "numeric": numeric[column]}

    return {
        "caption": _caption(name),
        "head": [cell(column, column) for column in columns],
        "rows": [[cell(number(row.get(column), column), column) for column in columns] for row in rows],
    }


def _text(value: Any) -> str:
    """A fact as text: sentences unchanged, a list of sentences joined, anything else as compact JSON."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _stage(name: str, record: Mapping) -> dict:
    """Facts, inputs and parameters of a stage as text."""
    pairs = [pair for part in ("facts", "inputs", "params") for pair in record[part].items()]
    rows = [(key, _text(value)) for key, value in pairs]
    return {"caption": f"{_caption(name)} ({record['seconds']:.0f} s)", "rows": rows}


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
    return PAGE.from_string(_TEMPLATE).render(
        name=name,
        tables=[table_cells(title, rows) for title, rows in metrics.get("tables", {}).items() if rows],
        facts=[(key, _text(value)) for key, value in metrics.get("facts", {}).items() if key != "stamp"],
        stamp=metrics.get("facts", {}).get("stamp", ""),
        warnings=[found for found in metrics.get("facts", {}).get("audit", []) if found != NOTHING_FOUND],
        samples=metrics.get("samples", []),
        reasoning=reasoning,
        quality=table_cells("findings", quality) if quality else None,
        figures=[{"caption": _caption(title),
                  "data": base64.b64encode(png).decode()} for title, png in figures.items()],
        stages=[_stage(title, record) for title, record in stages.items()],
        versions=sorted(found),
    )
