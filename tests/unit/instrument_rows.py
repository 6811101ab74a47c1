"""Rows as instruments make them, for what draws and prints them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any


def blocks(count: int, stages: int = 3, shortcut: str = "pad", stage: str = "s") -> Iterator[dict[str, Any]]:
    """Yield what names each block of a net, in order."""
    for i in range(count):
        s, first = 1 + stages * i // count, i > 0 and stages * i // count != stages * (i - 1) // count
        kind = "none" if shortcut == "none" else shortcut if first else "identity"
        yield {"block": f"{stage}{s}.b{i + 1}", "stage": f"{stage}{s}", "index": i + 1, "shortcut": kind}


def lesion_rows(
    count: int = 27, *, plain: bool = False, intact: float = 5.6, stage: str = "s"
) -> list[dict[str, Any]]:
    """Return errors that are much larger where dimensions change, and near chance without a plain block."""
    noise, rows = random.Random(count), []
    for row in blocks(count, shortcut="none" if plain else "pad", stage=stage):
        harm = 84 if plain else 30 if row["shortcut"] == "pad" else 2
        error: float | None = intact + harm * noise.random()
        if plain and row["index"] % 3 == 0:
            error = None
        columns = {
            name: None if error is None else min(max(error + more, 0.0), 100.0)
            for name, more in (("error", 0.0), ("low", -1.1), ("high", 1.2))
        }
        change = None if error is None else error - intact
        own = {f"lesion_{name}": value for name, value in columns.items()}
        rows.append({**row, **own, "lesion_change": change, "lesion_intact": intact, "lesion_n": 2000})
    return rows


def several_rows(
    most: int = 27, draws: int = 3, intact: float = 5.6
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return rows of blocks deleted and of blocks shuffled."""
    noise, counts = random.Random(most), [k for k in (1, 2, 3, 5, 8, 12, 20, 30) if k <= most]
    own = {"intact": intact, "n": 2000}
    made = [
        (draw, k, min(90.0, intact + 4 * k * noise.random())) for draw in range(1, draws + 1) for k in counts
    ]
    deleted = [{"deleted": k, "draw": draw, "error": error, **own} for draw, k, error in made]
    shuffled = [
        {"swapped": k, "draw": draw, "tau": 1 - k / (most + 3) * noise.random(), "error": error, **own}
        for draw, k, error in made
    ]
    return deleted, shuffled


def path_rows(n: int = 27, fall: float = 1.2, *, every: int = 1) -> list[dict[str, Any]]:
    """Return binomial paths whose gradient falls by `fall` (natural logarithm) a branch."""
    paths = [math.comb(n, k) for k in range(n + 1)]
    logs = [math.log(count) - fall * k for k, count in enumerate(paths)]
    whole = sum(math.exp(log - max(logs)) for log in logs)
    parts = [100 * math.exp(log - max(logs)) / whole for log in logs]
    total, rows = sum(paths), []
    for k, (count, part) in enumerate(zip(paths, parts, strict=True)):
        gradient = math.exp(-fall * k)
        measured = k % every == 0
        rows.append(
            {
                "length": k,
                "paths": count,
                "share": 100 * count / total,
                "gradient": gradient,
                "gradient_low": 0.9 * gradient if measured else None,
                "gradient_high": 1.1 * gradient if measured else None,
                "seen": 1024 if measured else 0,
                "contribution": part,
                "effective": part > max(parts) / 20,
            }
        )
    return rows
