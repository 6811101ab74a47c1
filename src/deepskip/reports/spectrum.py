"""The report of a spectrum study: the verdict, the spectrum, what becomes of signals, every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from deepskip.figures.rows import Row
from deepskip.figures.spectrum import NAMES
from deepskip.reports import words
from deepskip.reports.page import render

_PLAIN = ("nothing", "initial", "norm")


def spectrum_report(
    rows: Sequence[Row],
    verdict: Mapping[str, Any],
    figures: Mapping[str, Figure],
    environment: Mapping[str, object],
) -> str:
    """Return the study as one self-contained HTML page.

    `rows` are the study's cells, `verdict` what was concluded (sentences, table), `figures` go by name in the
    order in which to show them, `environment` is what it ran on, nested or flat.
    """
    table = [{**line, "lost": _lost(line)} for line in verdict["table"]]
    groups = []
    for kind, (name, what) in NAMES.items():
        lines = sorted((line for line in table if line["kind"] == kind), key=lambda line: line["depth"])
        if lines:
            mark = "plain" if kind in _PLAIN else "residual"
            groups.append({"name": name, "what": what, "mark": mark, "lines": lines})
    sentences = [str(sentence) for sentence in verdict["sentences"]]
    return render(
        "spectrum.html",
        figures,
        data=verdict["data"],
        headline=sentences[0] if sentences else f"A spectrum study of {verdict['data']}",
        sentences=sentences[1:],
        facts=words.spent(rows, verdict),
        groups=groups,
        below=verdict["trains_below"],
        any_lost=any(line["lost"] for line in table),
        rows=rows,
        command=verdict["command"],
        environment=words.flat(environment),
    )


def _lost(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{many} {status.replace('_', ' ')}" for status, many in line["lost"].items())
