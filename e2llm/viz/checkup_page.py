"""One page of HTML about a folder of recordings: what is well, what is not, and a picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt

from ..core.files import replacing
from ..data.checkup import Checkup
from .plots_quality import recordings

_PAGE = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Recordings of {{ checkup.root.name }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
.refuse { border-left: 6px solid #d55e00; } .drop { border-left: 6px solid #de8f05; }
.warn { border-left: 6px solid #949494; } img { max-width: 100%; }
</style>
</head>
<body>
<h1>Recordings of “{{ checkup.root.name }}” as {{ checkup.kind }}</h1>
<p>{{ "A run would use every recording and every window." if checkup.ok else
      "A run would leave out recordings or windows." }}</p>
<h2>What is well</h2>
<ul>
{% for fact in checkup.well %}
<li>{{ fact }}</li>
{% else %}
<li>nothing</li>
{% endfor %}
</ul>
<h2>Findings</h2>
{% if findings %}
<table>
<thead><tr><th scope="col">severity</th><th scope="col">recording</th><th scope="col">rule</th>
<th scope="col">fact</th><th scope="col">remedy</th></tr></thead>
<tbody>
{% for row in findings %}
<tr class="{{ row.severity }}"><td>{{ row.severity }}</td><td>{{ row.recording }}</td><td>{{ row.rule }}</td>
<td>{{ row.fact }}</td><td>{{ row.remedy }}</td></tr>
{% endfor %}
</tbody></table>
{% else %}
<p>None.</p>
{% endif %}
{% if picture %}
<h2>Recordings</h2>
<img alt="Amplitude and number of windows of every recording" src="data:image/png;base64,{{ picture }}">
{% endif %}
</body>
</html>
"""


def write_page(checkup: Checkup, path: str | Path) -> Path:
    """Write the page; all text from files and tables is escaped.

    Parameters
    ----------
    checkup : Checkup
        From :func:`e2llm.data.checkup.check_folder`.
    path : path
        File to write.
    """
    picture = ""
    if len(checkup.recordings):
        figure, content = recordings(checkup.recordings, checkup.root.name), io.BytesIO()
        figure.savefig(content, dpi=90, metadata={"Software": None})
        plt.close(figure)
        picture = base64.b64encode(content.getvalue()).decode()
    html = _PAGE.from_string(_TEMPLATE).render(checkup=checkup, findings=checkup.findings.to_dict("records"),
                                               picture=picture)
    with replacing(Path(path)) as partial:
        partial.write_text(html, encoding="utf-8", errors="backslashreplace")
    return Path(path)
