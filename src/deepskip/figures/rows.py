"""How rows are read: what counts as a number, what a kind is, and the mean and spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Row = Mapping[str, Any]
Key = TypeVar("Key", bound=Hashable)

CROSS = "\N{MULTIPLICATION SIGN}"
"""What a training that diverged is marked with."""

NONE = "\N{EN DASH}"
"""What stands where there is no number."""

KINDS = ("plain", "residual")
"""The two kinds of net, in the order in which they are always drawn and listed."""


def number(value: object) -> float | None:
    """Return `value` as a finite float; None for null, NaN, infinities and anything that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def numbers(rows: Iterable[Row], field: str) -> list[float]:
    """Return the finite values of `field`, in the rows' order."""
    return [found for row in rows if (found := number(row.get(field))) is not None]


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Return the rows under each value of `key`, groups and rows in the order of first sight."""
    groups: defaultdict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def kinds_of(rows: Iterable[Row]) -> list[str]:
    """Return the kinds that occur in `rows`, plain first."""
    present = {str(row["kind"]) for row in rows}
    return [kind for kind in KINDS if kind in present]


def depths_of(rows: Iterable[Row]) -> list[int]:
    """Return the depths that occur in `rows`, shallowest first."""
    return sorted({int(row["depth"]) for row in rows})


def spread_of(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation, or None where there are fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def percent(value: float | None, decimals: int | None = None) -> str:
    """Return an error as it is printed everywhere: "1.4%", "89%", and a dash where there is none."""
    if value is None:
        return NONE
    if decimals is None:
        decimals = 1 if abs(value) < 9.95 else 0
    return f"{value:.{decimals}f}%"
