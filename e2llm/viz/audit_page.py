"""The verdict on a split as one HTML file, readable without network."""

from __future__ import annotations

from ..evaluation.split_audit import Verdict, sentence
from .pages import render_page, table_cells

_BODY = """<h1>Audit of {{ name }}: {{ word }}</h1>
{% for text in refused %}
<p class="stamp" role="alert">{{ text }}</p>
{% endfor %}
{% for text in others %}
<p class="warning">{{ text }}</p>
{% else %}
{% if not refused %}
<p>No rule found anything.</p>
{% endif %}
{% endfor %}
<h2>The split</h2>
{{ facts_of(facts) }}
{% if probes %}
<h2>What can be answered without any EEG</h2>
{{ rows_of(probes) }}
{% endif %}
"""


def render_audit(name: str, verdict: Verdict) -> str:
    """One page; all text of the table is escaped.

    Parameters
    ----------
    name : str
        Of the table.
    verdict : Verdict
        From :func:`e2llm.evaluation.split_audit.audit_table`.
    """
    refused = verdict.refused
    columns = ["name", "score", "low", "high", "chance", "n", "what"]
    shown = verdict.probes[columns].rename(columns=lambda column: f"{column} %" if column in columns[1:5] else column) \
        if len(verdict.probes) else verdict.probes
    return render_page(
        f"Audit of {name}", _BODY, name=name, word=verdict.word, refused=[sentence(found) for found in refused],
        others=[sentence(found) for found in verdict.findings if found not in refused], facts=verdict.facts.items(),
        probes=table_cells("balanced accuracy on the test part", shown.to_dict("records")) if len(shown) else None)
