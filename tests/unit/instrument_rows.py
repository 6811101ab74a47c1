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


def signal_rows(
    count: int = 27, *, plain: bool = False, strength: float = 1.0, stage: str = "s"
) -> list[dict[str, Any]]:
    """Return responses that are larger where dimensions change, and a stream that grows."""
    noise, rows = random.Random(count), []
    for row in blocks(count, shortcut="none" if plain else "pad", stage=stage):
        std = strength * (0.3 + 0.2 * noise.random() + (0.6 if row["shortcut"] == "pad" else 0))
        signal = {
            "response_std": [1.4 * std, std],
            "branch_rms": std,
            "shortcut_rms": None if plain else 0.5 + 0.05 * row["index"],
            "stream_std": 0.4 + 0.04 * row["index"],
            "stream_rms": 0.6 + 0.05 * row["index"],
        }
        rows.append({**row, **signal})
    return rows


def gradient_rows(
    count: int = 27, *, plain: bool = False, fall: float = 0.05, stage: str = "s"
) -> list[dict[str, Any]]:
    """Return norms that fall by `fall` (decimal logarithm) a block, and correlations that rise to the end."""
    noise, rows = random.Random(count), []
    for row in blocks(count, shortcut="none" if plain else "pad", stage=stage):
        place = row["index"] / count
        norm = 10 ** (-fall * row["index"] + 0.1 * noise.random())
        gradient = {
            "grad_norm": norm,
            "grad_correlation": 0.9 * place**2 - 0.02,
            "grad_norm_initial": 5 * norm,
            "grad_correlation_initial": 0.4 * place**3,
        }
        rows.append({**row, **gradient})
    return rows


def lens_rows(count: int = 27, *, plain: bool = False, stage: str = "s") -> list[dict[str, Any]]:
    """Return probes that get better block by block, and a head that fits in the last stage."""
    rows = []
    for row in blocks(count, shortcut="none" if plain else "pad", stage=stage):
        probe = 5.6 + 60 * (1 - row["index"] / count)
        head = None if row["stage"] != f"{stage}3" else 5.6 + 250 * (1 - row["index"] / count)
        lens: dict[str, Any] = {"lens_n": 2000, "lens_fitted": 2000}
        for name, error in (("probe", probe), ("head", head)):
            for field, more in (("error", 0.0), ("low", -1.1), ("high", 1.2)):
                lens[f"lens_{name}_{field}"] = None if error is None else min(error + more, 100.0)
        lens["lens_head_same"] = None if head is None else 100 - head + 5.6
        rows.append({**row, **lens})
    return rows


def calibration_rows(most: int = 900, gap: float = 12.0, *, scaled: bool = True) -> list[dict[str, Any]]:
    """Return bins of which the surer are fuller, right `gap` points less often than they say; then right so."""
    rows: list[dict[str, Any]] = []
    for half, (temperature, less) in {False: (1.0, gap), True: (2.1, 0.4)}.items():
        for i in range(1, 16):
            n = 0 if i < 4 or (half and not scaled) else most * (i - 3) ** 2 // 144
            sure = 100 * (i - 0.4) / 15
            right = max(sure - less, 0.0)
            values = (sure, right, max(right - 3, 0.0), min(right + 3, 100.0))
            fields = ("confidence", "accuracy", "accuracy_low", "accuracy_high")
            rows.append(
                {
                    "scaled": half,
                    "temperature": temperature if n or not half else None,
                    "bin": i,
                    "low": 100 * (i - 1) / 15,
                    "high": 100 * i / 15,
                    "n": n,
                    **(dict(zip(fields, values, strict=True)) if n else dict.fromkeys(fields)),
                }
            )
    return rows
