"""What pages of HTML share: the frame, the style, tables, numbers as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

# Text of models, files and labels is inserted here: autoescape stays on, and nothing is marked safe.
_PAGES = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_TABLES = """{% macro rows_of(table) %}
<div class="wide"><table>
<caption>{{ table.caption }}{% if table.note %}<small>{{ table.note }}</small>{% endif %}</caption>
<thead><tr>
{% for cell in table.head %}
<th scope="col"{% if cell.numeric %} class="number"{% endif %}>{{ cell.text }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in table.rows %}
<tr><th scope="row">{{ row[0].text }}</th>
{%- for cell in row[1:] %}<td{% if cell.numeric %} class="number"{% endif %}>{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro facts_of(facts, caption="") %}
<div class="wide"><table class="facts">
{% if caption %}
<caption>{{ caption }}</caption>
{% endif %}
<tbody>
{% for key, text in facts %}
<tr><th scope="row">{{ key }}</th><td>{{ text }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
"""
# Colors are those of Okabe and Ito, for text darker, on a dark page lighter: at least 4.5 to 1 against their paper.
_STYLE = """\
:root { --paper: #fff; --ink: #1a1a1a; --soft: #555; --line: #ccc; --panel: #f3f6f9; --true: #005f99; --false: #a84300;
  --bar: #0072b2; --other: #8a949c; --alert: #b34700; --warn: #fdf0e8; color-scheme: light; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14181c; --ink: #e6e9ec; --soft: #aab3bb;
  --line: #3c464f; --panel: #1e252c; --true: #74bdf0; --false: #ff9d66; --bar: #4ba3dd; --other: #77828b;
  --warn: #3a2617; color-scheme: dark; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 75rem;
  margin: 1.5rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1, h2, h3 { line-height: 1.2; break-after: avoid; } h1 { margin: .5rem 0; }
h2 { margin-top: 2.5rem; border-bottom: 2px solid var(--bar); }
a { color: var(--true); } small { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; } caption small { display: block; font-weight: 400; }
.wide caption, caption small { max-width: calc(100vw - 2rem); }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { vertical-align: bottom; }
th[scope=row] { font-weight: 400; } .facts th { font-weight: 600; }
.wide th:first-child { position: sticky; left: 0; background: var(--paper); padding-left: 0; min-width: 8rem; }
td.number, th.number { text-align: right; }
figure { margin: 1.5rem 0; } figcaption { color: var(--soft); }
img { max-width: 100%; height: auto; background: #fff; }
.sample { border-left: 4px solid var(--bar); margin: 1rem 0; padding: .2rem 1rem; background: var(--panel); }
.stamp { background: var(--alert); color: #fff; font-weight: 700; padding: .5rem 1rem; }
.warning { border-left: 6px solid var(--alert); background: var(--warn); padding: .5rem 1rem; }
.refuse { border-left: 6px solid #d55e00; } .drop { border-left: 6px solid #de8f05; }
.warn { border-left: 6px solid #949494; }
.sample dd { margin: 0 0 .5rem; white-space: pre-wrap; } dt { font-weight: 600; }
@media (max-width: 40rem) { th, td { padding: .25rem .4rem; } .wide th:first-child { max-width: 38vw; }
  .wide :not(.facts) > tbody td:last-child:not(.number) { min-width: 14rem; } }
@media print { @page { margin: 1.5cm; } body { font-size: 10pt; max-width: none; margin: 0; } table { font-size: 8pt; }
  .wide { overflow: visible; } .wide th:first-child { position: static; } th, td { padding: .15rem .35rem; }
  tr, figure, .sample { break-inside: avoid; } caption, thead { break-after: avoid; }
  img { max-height: 22cm; } * { print-color-adjust: exact; } }
"""
_HEAD = _TABLES + """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
""" + _STYLE + """</style>
</head>
<body>
"""


def render_page(title: str, body: str, **values: Any) -> str:
    """One HTML page, readable without network.

    Parameters
    ----------
    title : str
        Of the page; escaped, as all values are.
    body : str
        Template of Jinja for what stands in the page. ``rows_of(table)`` writes a table of :func:`table_cells`,
        ``facts_of(pairs, caption)`` one of names and texts.
    **values
        What the template names.
    """
    return _PAGES.from_string(f"{_HEAD}{body}</body>\n</html>\n").render(title=title, **values)


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


def caption(name: str) -> str:
    """``02_confusion-matrix`` to ``Confusion matrix``."""
    words = name.lstrip("0123456789_-. ").replace("_", " ").replace("-", " ") or name
    return words[0].upper() + words[1:]


NAMES = ("name", "group", "stratum", "evidence", "model")  # columns that together name a row


def table_cells(name: str, rows: list[Mapping], note: str = "") -> dict:
    """A list of rows as cells; a column is numeric if all its values are numbers.

    The first column names the row. :data:`NAMES` are put together in it.

    Parameters
    ----------
    name : str
        Of the table; becomes its caption.
    rows : list of mapping
        Column to value.
    note : str
        What it shows, below the caption.
    """
    rows = [_named(row) for row in rows]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = {column: all(isinstance(row.get(column), (int, float, type(None))) for row in rows) for column in columns}

    def cell(text: str, column: str) -> dict:
        return {"text": text, "numeric": numeric[column]}

    return {
        "caption": caption(name),
        "note": note,
        "head": [cell(column, column) for column in columns],
        "rows": [[cell(number(row.get(column), column), column) for column in columns] for row in rows],
    }


def _named(row: Mapping) -> dict:
    """A row whose first column is its name, if it has one."""
    parts = [str(row[column]) for column in NAMES if row.get(column) not in (None, "")]
    rest = {column: value for column, value in row.items() if column not in NAMES}
    return {"name": " · ".join(parts), **rest} if parts else dict(row)
