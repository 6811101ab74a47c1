"""What a depth study's rows say, in numbers and in words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from deepskip.studies.cell import Row

KINDS = ("plain", "residual")
TRIED = ("ok", "diverged")  # statuses of trainings that say something of depth
MARGIN = 1.0  # points of training error below which a rise is not called degradation
ONE_SEED = 10.0  # the same where no spread over seeds says what is chance


def judge(rows: Sequence[Row], *, data: str, command: str, epochs: int, seeds: int) -> dict[str, Any]:
    """Return what the rows say, in numbers and words: where each kind degrades, which depth pays."""
    tried = [row for row in rows if row["status"] in TRIED]
    table = [_summarise(kind, depth, group) for (kind, depth), group in _groups(tried).items()]
    by_kind = {kind: [line for line in table if line["kind"] == kind] for kind in KINDS}
    starts = {kind: _degrades_at(by_kind[kind]) for kind in KINDS}
    pays = _pays(table)
    sentences = [_say_degradation(kind, by_kind[kind], starts[kind]) for kind in KINDS if by_kind[kind]]
    sentences.append(_say_pays(pays, table, data))
    sentences += say_untried(rows)
    return {
        "study": "depth",
        "data": data,
        "command": command,
        "seeds": seeds,
        "epochs": epochs,
        "depths": sorted({line["depth"] for line in table}),
        **{kind: {"degrades_at": starts[kind]} for kind in KINDS},
        "pays": pays and {k: pays[k] for k in ("kind", "depth", "val_error_mean", "val_error_sd")},
        "sentences": sentences,
        "table": table,
    }


def say_untried(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each reason, but divergence, for which trainings have no result."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] not in TRIED:
            cell = f"{row['kind']} {row['depth']}"
            reasons.setdefault(row["status"].replace("_", " "), []).append(cell)
    return [
        f"Without a result, {reason}: {', '.join(dict.fromkeys(cells))} layers."
        for reason, cells in reasons.items()
    ]


def _groups(rows: Sequence[Row]) -> dict[tuple[str, int], list[Row]]:
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["kind"], row["depth"], row["seed"])):
        groups.setdefault((row["kind"], row["depth"]), []).append(row)
    return groups


def _summarise(kind: str, depth: int, group: Sequence[Row]) -> Row:
    ok = [row for row in group if row["status"] == "ok"]
    line: Row = {
        "kind": kind,
        "depth": depth,
        "params": group[0]["params"],
        "n": len(group),
        "diverged": len(group) - len(ok),
    }
    for column in ("train_error", "val_error"):
        values = [row[column] for row in ok]
        line[f"{column}_mean"] = statistics.fmean(values) if values else None
        line[f"{column}_sd"] = statistics.stdev(values) if len(values) > 1 else None
    line["seconds_mean"] = statistics.fmean(row["seconds"] for row in group)
    return line


def _degrades_at(lines: Sequence[Row]) -> int | None:
    """Return the smallest depth whose training error is above the best of the shallower ones.

    Above by more than one point and more than the two standard deviations together, or by more than ten points
    where there is one seed and so no deviation; a depth at which most seeds diverged degrades too.
    """
    best: Row | None = None
    for line in lines:
        if 2 * line["diverged"] > line["n"]:
            return int(line["depth"])
        if best is not None:
            sds = (line["train_error_sd"], best["train_error_sd"])
            margin = ONE_SEED if None in sds else max(MARGIN, sum(sds))
            if line["train_error_mean"] - best["train_error_mean"] > margin:
                return int(line["depth"])
        if best is None or line["train_error_mean"] < best["train_error_mean"]:
            best = line
    return None


def _pays(table: Sequence[Row]) -> Row | None:
    """Return the smallest net whose mean validation error is within one sd of the best mean."""
    trained = [line for line in table if line["val_error_mean"] is not None]
    if not trained:
        return None
    best = min(trained, key=lambda line: line["val_error_mean"])
    limit = best["val_error_mean"] + (best["val_error_sd"] or 0.0)
    within = [line for line in trained if line["val_error_mean"] <= limit]
    # At equal depth the residual net is named first: it is the one that can still grow.
    return min(within, key=lambda line: (line["depth"], line["kind"] == "plain"))


def _say_degradation(kind: str, lines: Sequence[Row], start: int | None) -> str:
    name, last = f"{kind.capitalize()} nets", lines[-1]
    if len(lines) == 1 and last["train_error_mean"] is None:
        return f"{name} diverge at {last['depth']} layers."
    if len(lines) == 1:
        return f"{name} have a training error of {_error(last, 'train')} at {last['depth']} layers."
    if start is None:
        worst = max(lines, key=lambda line: (line["train_error_mean"], line["depth"]))
        return (
            f"{name} do not degrade up to {last['depth']} layers: training error is at most "
            f"{_error(worst, 'train')} (at {worst['depth']}).{_hint(lines)}"
        )
    before = [line for line in lines if line["depth"] < start]
    if not before:
        return f"{name} diverge from {start} layers on."
    best = min(before, key=lambda line: line["train_error_mean"])
    tried = [line for line in lines if line["depth"] >= start and line["train_error_mean"] is not None]
    if not tried:
        at = f"{_error(best, 'train')} at {best['depth']}"
        return f"{name} diverge from {start} layers on; training error is {at}."
    worst = max(tried, key=lambda line: (line["train_error_mean"], line["depth"]))
    return (
        f"{name} degrade from {start} layers on: training error rises from {_error(best, 'train')} at "
        f"{best['depth']} to {_error(worst, 'train')} at {worst['depth']}.{_hint(lines)}"
    )


def _hint(lines: Sequence[Row]) -> str:
    return " One seed: a hint, no proof." if max(line["n"] for line in lines) == 1 else ""


def _say_pays(pays: Row | None, table: Sequence[Row], data: str) -> str:
    if pays is None:
        return f"No depth pays on {data}: {'every training diverged' if table else 'nothing was trained'}."
    trained = [line for line in table if line["val_error_mean"] is not None]
    best = min(trained, key=lambda line: line["val_error_mean"])
    n = pays["n"] - pays["diverged"]
    error = f"validation error {_error(pays, 'val')}, n = {n}"
    found = f"On {data} {pays['depth']} layers pay ({pays['kind']}, {error})"
    if pays is best and pays["depth"] == min(line["depth"] for line in trained):
        return f"{found}: the best of all, and the shallowest."
    if pays is best and pays["val_error_sd"] is None:
        return f"{found}: the best of all; one seed has no spread to weigh shallower ones by."
    if pays is best:
        return f"{found}: the best of all, and nothing shallower is within one standard deviation of it."
    return (
        f"{found}: the smallest depth within one standard deviation of the best, "
        f"{_error(best, 'val')} ({best['kind']}, {best['depth']} layers)."
    )


def _error(line: Row, split: str) -> str:
    mean, sd = line[f"{split}_error_mean"], line[f"{split}_error_sd"]
    if mean is None:
        return "no finite value"
    return f"{mean:.1f}%" if sd is None or round(sd, 1) == 0 else f"{mean:.1f} ± {sd:.1f}%"
