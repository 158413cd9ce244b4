"""One page of HTML about a folder of recordings: what is well, what is not, and a picture."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import matplotlib.pyplot as plt

from ..core.files import replacing
from ..data.checkup import Checkup
from .pages import render_page
from .plots_quality import recordings

_BODY = """<h1>Recordings of “{{ checkup.root.name }}” as {{ checkup.kind }}</h1>
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
<div class="wide"><table>
<thead><tr><th scope="col">severity</th><th scope="col">recording</th><th scope="col">rule</th>
<th scope="col">fact</th><th scope="col">remedy</th></tr></thead>
<tbody>
{% for row in findings %}
<tr class="{{ row.severity }}"><td>{{ row.severity }}</td><td>{{ row.recording }}</td><td>{{ row.rule }}</td>
<td>{{ row.fact }}</td><td>{{ row.remedy }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>None.</p>
{% endif %}
{% if picture %}
<h2>Recordings</h2>
<img alt="Amplitude and number of windows of every recording" src="data:image/png;base64,{{ picture }}">
{% endif %}
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
    html = render_page(f"Recordings of {checkup.root.name}", _BODY, checkup=checkup,
                       findings=checkup.findings.to_dict("records"), picture=picture)
    with replacing(Path(path)) as partial:
        partial.write_text(html, encoding="utf-8", errors="backslashreplace")
    return Path(path)
