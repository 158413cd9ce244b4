"""Figures about explanations: what a thought can carry, and whether the answer follows from it.

As in :mod:`e2llm.viz.plots`, each function draws one figure and returns it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.causal_measures import SILENT
from .plots import score_panels
from .style import panels, plain_axes

# Measures of causal_measures that are shares of answers, as the figure names them.
_OF_ANSWERS = {"directed success": "claims exchanged: answer of the other window",
               "turned round": "claims turned round: another answer"}


def evidence_capacity(table: pd.DataFrame, head: float) -> Figure:
    """What can be read from what is said: a row a coding, a color and marker a kind of evidence.

    Each score has its 95 % interval over people and its chance level; a line shows the head.

    Parameters
    ----------
    table : DataFrame
        From :func:`e2llm.evaluation.evidence_capacity.evidence_capacity`.
    head : float
        Balanced accuracy of the stage-1 head on the same windows, 0 to 1.
    """
    carried = ", ".join(f"{100 * scores.min():.0f} to {100 * scores.max():.0f} % ({evidence})"
                        for evidence, scores in table.groupby("evidence", sort=False)["score"])
    title = f"What is said can carry {carried}\nThe head reaches {100 * head:.0f} %"
    figure = score_panels(table, title, series="evidence", xlim=(0, 100))
    ax = figure.axes[0]
    ax.set_title("")
    ax.axvline(100 * head, color="black", linestyle="dashdot", linewidth=1, zorder=1)
    ax.annotate("stage-1 head", (100 * head, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", va="bottom", fontsize=9)
    ax.set_xlabel("balanced accuracy (%)")
    return figure


def causes(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Interventions on claims, a row a measure, a color and marker a model.

    Drawn are the measures that are shares of answers; distances, probabilities and gains have other units and stand in
    the table alone.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Models: ``measures`` of :class:`e2llm.evaluation.causal_measures.CausalTables`. The first is the one in
        question, and so are those whose name begins with its name and a comma; all others are planted.
    """
    table = pd.concat([found.assign(model=model) for model, found in tables.items()])
    table = table.assign(name=table["name"].astype(str).map(_in_words)).dropna(subset="name")
    first, wanted = next(iter(tables)), _OF_ANSWERS["directed success"]
    followed = table[table["name"] == wanted].set_index("model")["score"]
    said = " and ".join(f"{100 * score:.0f} % ({model})" for model, score in followed.items()
                        if model == first or str(model).startswith(f"{first}, "))
    figure = score_panels(table, f"Claims exchanged: the answer follows in {said}", series="model", xlim=(0, 100))
    ax = figure.axes[0]
    ax.set_title("")
    ax.set_xlabel("answers (%)")
    return figure


def _in_words(name: str) -> str | None:
    """A measure for a figure; None for one that is no share of answers."""
    return f"{name.removeprefix(SILENT)}: same answer" if name.startswith(SILENT) else _OF_ANSWERS.get(name)


def before_after(before: Mapping[str, float], after: Mapping[str, float], title: str) -> Figure:
    """Probability of each answer before and after a stated level was changed.

    Parameters
    ----------
    before, after : mapping of str to float
        Answer to its probability, 0 to 1.
    title : str
        Above the figure.
    """
    names = sorted(before, key=before.get, reverse=True)
    figure, ax = panels((7, 0.45 * len(names) + 1.2))
    for i, (when, shares) in enumerate((("before", before), ("after", after))):
        at = [place + 0.36 * (i - 0.5) for place in range(len(names))]
        bars = ax.barh(at, [100 * shares[name] for name in names], 0.34, label=when,
                       color=plain_axes(i)["color"], hatch=("", "//")[i], edgecolor="white")
        ax.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="probability (%)", xlim=(0, 108), xticks=range(0, 101, 20))
    ax.legend(loc="lower right")
    figure.suptitle(title)
    return figure


def dose(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of answers that are the donor's, against the number of claims that were exchanged for the donor's.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Models, the one in question first: ``dose`` of :class:`e2llm.evaluation.causal_measures.CausalTables`.
    """
    figure, ax = panels((8, 4))
    for i, (model, found) in enumerate(tables.items()):
        rows = found[found["unit"] == "share"]
        at = [place + 0.06 * (i - (len(tables) - 1) / 2) for place in range(len(rows))]
        interval = 100 * abs(rows[["low", "high"]].to_numpy().T - rows["score"].to_numpy())
        ax.errorbar(at, 100 * rows["score"], yerr=interval, capsize=3, clip_on=False, label=model, **plain_axes(i))
        ax.plot(at, 100 * rows["chance"], color=plain_axes(i)["color"], linestyle="dashed", linewidth=1)
    ax.set_xticks(range(len(rows)), rows["name"].astype(str))
    ax.set(xlabel="claims exchanged for those of a window with another answer", ylim=(0, 100),
           ylabel="answers that are its answer (%)")
    figure.legend(loc="outside lower center", ncols=len(tables), title="bar: 95 % interval over people; dashed: chance")
    followed = " and ".join(_followed(found, model) for model, found in tables.items())
    figure.suptitle(f"All claims exchanged: the answer follows in {followed}")
    return figure


def _followed(table: pd.DataFrame, model: str) -> str:
    """The share of a model's answers that follow when all claims are exchanged: "93 % (LLM)"."""
    rows = table[(table["name"].astype(str) == "all") & (table["unit"] == "share")]
    return f"{100 * rows['score'].iloc[0]:.0f} % ({model})"
