"""What pages of HTML share: the frame, the style, tables, numbers as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

# Text of models, files and labels is inserted here: autoescape stays on, and nothing is marked safe.
_PAGES = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_TABLES = """{% macro rows_of(table) %}
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
{% macro facts_of(facts, caption="") %}
<div class="wide"><table>
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
_STYLE = """\
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
.refuse { border-left: 6px solid #d55e00; } .drop { border-left: 6px solid #de8f05; }
.warn { border-left: 6px solid #949494; }
.sample dd { margin: 0 0 .5rem; white-space: pre-wrap; } dt { font-weight: 600; }
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


def table_cells(name: str, rows: list[Mapping]) -> dict:
    """A list of rows as cells; a column is numeric if all its values are numbers.

    Parameters
    ----------
    name : str
        Of the table; becomes its caption.
    rows : list of mapping
        Column to value.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = {column: all(isinstance(row.get(column), (int, float, type(None))) for row in rows) for column in columns}

    def cell(text: str, column: str) -> dict:
        return {"text": text, "numeric": numeric[column]}

    return {
        "caption": caption(name),
        "head": [cell(column, column) for column in columns],
        "rows": [[cell(number(row.get(column), column), column) for column in columns] for row in rows],
    }
