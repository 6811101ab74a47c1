"""The report of a depth study: the verdict first, then what it rests on, then how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from deepskip.figures.rows import KINDS, Row, number
from deepskip.reports import words
from deepskip.reports.page import render


def depth_report(
    rows: Sequence[Row],
    curves: Sequence[Row],
    verdict: Mapping[str, Any],
    figures: Mapping[str, Figure],
    environment: Mapping[str, object],
) -> str:
    """Return the study as one self-contained HTML page.

    `rows` are the study's cells, `curves` their epochs, `verdict` what was concluded (sentences, table),
    `figures` go by name in the order in which to show them, `environment` is what it ran on, nested or flat.
    """
    table = [dict(line) for line in verdict["table"]]
    best = min((error for line in table if (error := number(line["val_error_mean"])) is not None), default=None)
    for line in table:
        line["best"] = best is not None and number(line["val_error_mean"]) == best
        line["degraded"] = _degraded(verdict, line)
    sentences = [str(sentence) for sentence in verdict["sentences"]]
    return render(
        "depth.html",
        figures,
        data=verdict["data"],
        headline=sentences[0] if sentences else f"A depth study of {verdict['data']}",
        sentences=sentences[1:],
        facts=words.spent(rows, verdict, len(curves)),
        groups={kind: lines for kind in KINDS if (lines := [line for line in table if line["kind"] == kind])},
        any_diverged=any(line["diverged"] for line in table),
        any_degraded=any(line["degraded"] for line in table),
        rows=sorted(rows, key=lambda row: (row["kind"], row["depth"], row["seed"])),
        command=verdict["command"],
        environment=words.flat(environment),
    )


def _degraded(verdict: Mapping[str, Any], line: Mapping[str, Any]) -> bool:
    start = number((verdict.get(line["kind"]) or {}).get("degrades_at"))
    return start is not None and line["depth"] >= start
