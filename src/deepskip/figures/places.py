"""Axes that pictures of instruments share: the blocks of a net from left to right, and logarithms upwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from deepskip.figures.colour import FAINT
from deepskip.figures.labels import End, clean, width
from deepskip.figures.rows import Row, number

MARKED = 60
"""Blocks of a line that has a mark at each of them, at most."""


def kind_of(rows: Sequence[Row]) -> str:
    """Return "plain" where no block has a shortcut, else "residual"."""
    return "plain" if rows and all(row.get("shortcut") == "none" for row in rows) else "residual"


def x_blocks(axes: Axes, rows: Sequence[Row], inches: float, label: str = "block") -> None:
    """Give a panel of `inches` an x axis over the blocks from 1: stages are parted, and first blocks named."""
    axes.set_xlim(0.3, max(len(rows), 1) + 0.7)
    axes.set_xlabel(label)
    firsts = [i for i, row in enumerate(rows) if i == 0 or row.get("stage") != rows[i - 1].get("stage")]
    names = {i + 1: clean(rows[i].get("block"), 10) for i in firsts}
    edge = -1.0
    for place, name in names.items():
        at = (place - 0.3) / (max(len(rows), 1) + 0.4) * inches
        if at - width(name) / 2 < edge:
            names[place] = ""
        else:
            edge = at + width(name) / 2 + 0.08
        if place > 1:
            axes.axvline(place - 0.5, color=FAINT, lw=0.8, zorder=1)
    axes.set_xticks(list(names), list(names.values()))


def draw_blocks(
    axes: Axes,
    rows: Sequence[Row],
    field: str,
    name: str,
    style: dict[str, Any],
    *,
    band: tuple[str, str] | None = None,
    log: bool = False,
) -> list[End]:
    """Draw `field` of each block as a line, broken where there is no number; return its end with its `name`.

    `band` names the fields between which the panel is tinted; with `log` the panel has decimal logarithms.
    """
    ys = [_height(row.get(field), log) for row in rows]
    known = [i for i, y in enumerate(ys) if not math.isnan(y)]
    if not known:
        return []
    xs = list(range(1, len(rows) + 1))
    if band:
        lows, highs = ([_height(row.get(end), log) for row in rows] for end in band)
        axes.fill_between(xs, lows, highs, color=style["color"], alpha=0.16, linewidth=0)
    marks = {"markersize": 3.4} if len(rows) <= MARKED else {"marker": "None"}
    axes.plot(xs, ys, clip_on=False, zorder=3, **{**style, **marks})
    last = known[-1]
    return [End(last + 1, ys[last], name, style["color"], stopped=last + 1 < len(rows))]


def _height(value: object, log: bool) -> float:
    found = number(value)
    if found is None or (log and found <= 0):
        return math.nan
    return math.log10(found) if log else found


def y_log(axes: Axes, values: Sequence[float]) -> None:
    """Give the panel a y axis over the decimal logarithms of the positive `values`, with round ticks."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low, high = min(logs), max(logs)
    room = 0.06 * max(high - low, 0.3)
    low, high = low - room, high + room
    axes.set_ylim(low, high)
    first, last = math.floor(low), math.ceil(high)
    decades = [float(k) for k in range(first, last + 1) if low <= k <= high]
    if len(decades) > 2:
        ticks = decades[:: max(1, math.ceil(len(decades) / 6))]
    else:
        ticks = [k + math.log10(m) for k in range(first, last + 1) for m in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_yticks(ticks, [f"{10**tick:.3g}" if -4 < tick < 5 else f"1e{tick:.0f}" for tick in ticks])
