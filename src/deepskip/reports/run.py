"""The report of one training run: what the net achieves, where it errs, how it got there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from deepskip.figures.rows import CROSS, Row, number, numbers, percent
from deepskip.reports import words
from deepskip.reports.page import render

_MISTAKES = 8


def run_report(summary: Mapping[str, Any], rows: Sequence[Row], figures: Mapping[str, Figure]) -> str:
    """Return the run as one self-contained HTML page.

    `summary` is the run's (`name`, `data`, `layers`, `params`, `macs`, `input`, `recipe`, `seed`, `device`,
    `precision`, `seconds`, `command`, `status`, `score` or None), `rows` its metrics, one per epoch, and
    `figures` its pictures by name, in the order in which to show them.
    """
    score = summary.get("score") or {}
    classes = sorted(score.get("classes") or [], key=lambda one: -(number(one["error"]) or 0.0))
    return render(
        "run.html",
        figures,
        name=summary["name"],
        data=summary["data"],
        headline=_headline(summary, rows),
        sentences=_sentences(summary, rows),
        score=score,
        classes=classes,
        worst=max((number(one["error"]) or 0.0 for one in classes), default=0.0) or 1.0,
        mistakes=_mistakes(score),
        rows=sorted(rows, key=lambda row: int(row["epoch"])),
        network=_network(summary),
        recipe=words.flat(summary["recipe"]),
        command=summary["command"],
    )


def _headline(summary: Mapping[str, Any], rows: Sequence[Row]) -> str:
    name, data, score = summary["name"], summary["data"], summary.get("score")
    if summary["status"] == "diverged":
        return f"{name} diverged on {data}."
    if score and number(score["error"]) is not None:
        return f"{name} misses {percent(number(score['error']))} of {words.whole(score['n'])} images of {data}."
    val = numbers(rows, "val_error")
    if val:
        return f"{name} misses {percent(val[-1])} of the validation images of {data}."
    return f"{name} on {data} has no score yet."


def _sentences(summary: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    done, planned = len(rows), number(summary["recipe"].get("epochs"))
    of = f" of {planned:.0f}" if planned is not None and planned != done else ""
    after = f"{done}{of} epoch{'' if done == 1 and not of else 's'}, in {words.duration(summary['seconds'])}"
    status = {
        "finished": f"It trained for {after}, on {summary['device']} in {summary['precision']}.",
        "interrupted": f"It was interrupted after {after}; the same command with --resume goes on.",
        "diverged": f"The loss left the finite numbers after {after}. Try a lower learning rate first.",
    }
    sentences = [status.get(summary["status"], f"Status: {summary['status']}, after {after}.")]
    score = summary.get("score") or {}
    top5, many = number(score.get("top5_error")), len(score.get("classes") or [])
    if top5 is not None and many > 5:
        sentences.append(f"The right class is not among its five best guesses for {percent(top5)} of them.")
    return sentences


def _mistakes(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: the true class, what it was taken for, how often, of how many."""
    names = [one["class"] for one in score.get("classes") or []]
    found = [
        {"true": names[t], "taken": names[p], "count": count, "n": sum(row)}
        for t, row in enumerate(score.get("confusion") or [])
        for p, count in enumerate(row)
        if t != p and count > 0
    ]
    return sorted(found, key=lambda one: -one["count"])[:_MISTAKES]


def _network(summary: Mapping[str, Any]) -> dict[str, str]:
    score = summary.get("score") or {}
    known = {
        "net": str(summary["name"]),
        "layers": words.whole(summary["layers"]),
        "parameters": words.whole(summary["params"]),
        "multiply-adds an image": words.short(summary["macs"]),
        "input": f" {CROSS} ".join(map(str, summary["input"])),
        "data": str(summary["data"]),
        "seed": str(summary["seed"]),
        "device": str(summary["device"]),
        "precision": str(summary["precision"]),
        "time": words.duration(summary["seconds"]),
    }
    if score:
        known["loss"] = words.rounded(score.get("loss"), 3)
        known["calibration error"] = words.rounded(score.get("calibration_error"), 2)
    return known
