"""The report of an identity study: the verdict, what new blocks did, how far blocks are from the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from deepskip.figures.rows import KINDS, Row, number
from deepskip.reports import words
from deepskip.reports.page import render

_STARTS = {
    "kept": "none",
    "silent": "silent: last weights zero",
    "fresh": "fresh: initial values",
    "delta": "delta: identity convolutions",
    "zero": "zero: last weights zero",
}


def identity_report(
    rows: Sequence[Row],
    verdict: Mapping[str, Any],
    figures: Mapping[str, Figure],
    environment: Mapping[str, object],
) -> str:
    """Return the study as one self-contained HTML page.

    `rows` are the study's cells, `verdict` what was concluded (sentences, table, ratios), `figures` go by name
    in the order in which to show them, `environment` is what it ran on, nested or flat.
    """
    table = [
        {**line, "words": _STARTS.get(line["start"], line["start"]), "same": _same(line)}
        for line in verdict["table"]
    ]
    sentences = [str(sentence) for sentence in verdict["sentences"]]
    ratios = [{**line, "lost": _lost(line)} for line in verdict["ratios"]]
    for line in table:
        line["lost"] = _lost(line)
    return render(
        "identity.html",
        figures,
        data=verdict["data"],
        headline=sentences[0] if sentences else f"An identity study of {verdict['data']}",
        sentences=sentences[1:],
        facts=words.spent(rows, verdict),
        groups={
            twin: lines for twin in reversed(KINDS) if (lines := [one for one in table if one["twin"] == twin])
        },
        any_lost=any(line["lost"] for line in table),
        any_worse=any(line["worse"] for line in table),
        ratios=ratios,
        any_ratio_lost=any(line["lost"] for line in ratios),
        rows=rows,
        command=verdict["command"],
        environment=words.flat(environment),
    )


def _same(line: Mapping[str, Any]) -> str:
    """Return whether all outputs stayed the same, and where not, by how much a logit moved at most."""
    if line["start"] == "kept" or not line["seen"]:
        return ""
    if line["same"] == line["seen"]:
        return "same bits"
    change = number(line["output_change"])
    return "changed" if change is None else f"changed by up to {change:.2g}"


def _lost(line: Mapping[str, Any]) -> str:
    return ", ".join(f"{many} {status.replace('_', ' ')}" for status, many in line["lost"].items())
