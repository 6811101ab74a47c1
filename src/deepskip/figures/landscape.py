"""The loss around a net's weights: along one random direction as curves, along two as maps with contours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from deepskip.figures.colour import INK, MUTED, PAPER, heat, shade
from deepskip.figures.labels import End, clean, label_ends, width
from deepskip.figures.rows import Row, grouped, number, percent
from deepskip.figures.style import (
    DASHES,
    MARKERS,
    Picture,
    heading,
    language,
    panel,
    say_nothing,
    top_percent,
    y_from_zero,
)

_LEFT, _GAP, _NAMES, _RIGHT = 0.55, 0.62, 1.25, 0.2
_SIDE, _BOTTOM, _TOP = 2.5, 1.0, 0.62
_LADDER = (1.0, 2.0, 5.0)
_MOST = 11
"""Levels between colours, at most."""


@language()
def loss_landscape(rows: Sequence[Row], *, data: str) -> Picture:
    """Return the error along a line through each net's weights, and for each net a map of the loss on a plane.

    `rows` are the landscape instrument's. All maps have the same levels, so that a colour is the same loss in
    each of them, with a line at every level. What is not finite is hatched.
    """
    nets = grouped(rows, lambda row: int(row["which"]))
    maps = {which: own for which, own in nets.items() if any(row["dimensions"] == 2 for row in own)}
    across = _LEFT + _SIDE + _NAMES + len(maps) * (_SIDE + _GAP) + _RIGHT
    picture = Picture(
        (across, _BOTTOM + _SIDE + _TOP),
        title="The loss around the weights",
        caption=_caption(rows, clean(data, 60)),
        alt=_alt(nets.values(), clean(data, 60)),
    )
    _draw_lines(panel(picture, _LEFT, _BOTTOM, _SIDE, _SIDE), list(nets.values()))
    levels = _levels([value for own in maps.values() for value in _losses(own, 2)])
    for i, own in enumerate(maps.values()):
        left = _LEFT + _SIDE + _NAMES + i * (_SIDE + _GAP) + _GAP / 2
        axes = panel(picture, left, _BOTTOM, _SIDE, _SIDE)
        heading(axes, _name(own[0], nets), "loss on a plane (nats)")
        _draw_map(axes, own, levels)
        if i == 0 and levels:
            _draw_bar(panel(picture, left, 0.3, _SIDE, 0.1), levels)
    return picture


def _name(row: Row, nets: dict[int, list[Row]]) -> str:
    kinds = [str(own[0]["kind"]) for own in nets.values()]
    if len(kinds) == len(set(kinds)):
        return {"plain": "The plain net", "residual": "The residual net"}[str(row["kind"])]
    return clean(row["net"], 24)


def _losses(rows: Sequence[Row], dimensions: int) -> list[float]:
    values = (number(row["loss"]) for row in rows if row["dimensions"] == dimensions)
    return [value for value in values if value is not None]


# --- one direction --------------------------------------------------------------------------------------------


def _draw_lines(axes: Axes, nets: Sequence[Sequence[Row]]) -> None:
    heading(axes, "Along one direction", "error (%)")
    lines = [sorted((row for row in own if row["dimensions"] == 1), key=lambda row: row["x"]) for own in nets]
    errors = [value for line in lines for row in line if (value := number(row["error"])) is not None]
    y_from_zero([axes], top_percent(errors))
    axes.set_xlabel("distance, in norms of filters")
    if not errors:
        axes.set_xlim(-1, 1)
        say_nothing(axes)
        return
    span = max(abs(row["x"]) for line in lines for row in line)
    axes.set_xlim(-span, span)
    axes.set_xticks([-span, 0, span], [_short(x) for x in (-span, 0, span)])
    ends = []
    for line in lines:
        ends += _draw_line(axes, line)
    label_ends(axes, ends)


def _draw_line(axes: Axes, line: Sequence[Row]) -> list[End]:
    xs = [row["x"] for row in line]
    ys = [math.nan if number(row["error"]) is None else row["error"] for row in line]
    there = [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(y)]
    if not there:
        return []
    kind = str(line[0]["kind"])
    colour = shade(kind, 0.7)
    axes.plot(xs, ys, color=colour, linestyle=DASHES[kind], zorder=3, clip_on=False)
    centre = next((y for x, y in there if x == 0), None)
    if centre is not None:
        axes.plot([0], [centre], color=colour, zorder=4, clip_on=False, **MARKERS[kind])
    x, y = there[-1]
    return [End(x, y, f"{kind} {percent(centre)} at 0", colour, stopped=x < xs[-1])]


def _short(x: float) -> str:
    return f"{x:.3g}".replace("-", "\N{MINUS SIGN}")


# --- two directions -------------------------------------------------------------------------------------------


def _levels(losses: Sequence[float]) -> list[float]:
    """Return losses at which colours part: 1, 2, 5 in each power of ten, or powers of ten alone where many."""
    positive = [loss for loss in losses if loss > 0]
    if not positive:
        return []
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    for ladder in (_LADDER, (1.0,)):
        every = [step * 10.0**power for power in range(low, high + 1) for step in ladder]
        found = [level for level in every if min(positive) < level < max(positive)]
        if len(found) <= _MOST:
            return found
    each = -(-len(found) // _MOST)
    return found[::each]


def _draw_map(axes: Axes, rows: Sequence[Row], levels: Sequence[float]) -> None:
    plane = {(row["x"], row["y"]): number(row["loss"]) for row in rows if row["dimensions"] == 2}
    xs, ys = sorted({x for x, _ in plane}), sorted({y for _, y in plane})
    losses = np.array([[plane.get((x, y)) for x in xs] for y in ys], dtype=np.float64)
    span = max(map(abs, xs))
    axes.set_xlim(-span, span)
    axes.set_ylim(-span, span)
    axes.grid(False)
    for ticks in (axes.set_xticks, axes.set_yticks):
        ticks([-span, 0, span], [_short(x) for x in (-span, 0, span)])
    axes.set_xlabel("first direction")
    if np.isnan(losses).any():
        hatched: dict[str, Any] = {"fill": False, "hatch": "//////", "edgecolor": MUTED, "linewidth": 0.0}
        axes.add_patch(Rectangle((-span, -span), 2 * span, 2 * span, **hatched))
    if not np.isfinite(losses).any():
        return
    shown = np.ma.masked_invalid(losses)
    edges = [-math.inf, *levels, math.inf]
    colours = ListedColormap([_colour(i, levels) for i in range(len(levels) + 1)])
    smooth = _logarithms(shown)
    cuts = [_logarithm(edge) for edge in edges]
    axes.contourf(xs, ys, smooth, levels=cuts, colors=colours.colors, zorder=1)
    if levels:
        axes.contour(
            xs, ys, smooth, levels=cuts[1:-1], colors=[PAPER], linewidths=0.7, linestyles="solid", zorder=2
        )
    axes.plot([0], [0], marker="+", color=PAPER, markersize=9, markeredgewidth=2.6, zorder=3)
    axes.plot([0], [0], marker="+", color=INK, markersize=8, markeredgewidth=1.2, zorder=4)


def _colour(i: int, levels: Sequence[float]) -> str:
    return heat(i / max(len(levels), 1))


def _logarithm(loss: float) -> float:
    return math.log10(max(loss, 1e-30)) if loss < math.inf else 400.0


def _logarithms(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = np.ma.log10(np.ma.maximum(losses, 1e-29))
    return found


def _draw_bar(axes: Axes, levels: Sequence[float]) -> None:
    count = len(levels) + 1
    axes.set_xlim(0, count)
    axes.set_ylim(0, 1)
    axes.grid(False)
    axes.set_yticks([])
    for i in range(count):
        axes.add_patch(Rectangle((i, 0), 1, 1, facecolor=_colour(i, levels), edgecolor=PAPER, linewidth=0.7))
    names = [_amount(level) for level in levels]
    every = math.ceil((max(map(width, names)) + 0.08) * count / _SIDE)
    axes.set_xticks(range(1, count)[::every], names[::every])


def _amount(level: float) -> str:
    """Return 0.02, 5 and 200, and larger and smaller ones as powers: 10⁵, 2·10⁵."""
    if 1e-3 < level < 1e3:
        return f"{level:g}"
    first, power = f"{level:.0e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if first == "1" else f"{first}·10{raised}"


def _caption(rows: Sequence[Row], data: str) -> str:
    images = max((int(row["n"]) for row in rows), default=0)
    seen = f"{images} images of {data}" if images else data
    parts = [f"Error and loss on {seen} when the weights are moved in random directions (Li et al. 2018)."]
    parts.append("A distance of 1 moves each filter by as much as its own norm; 0 is the net as it is.")
    parts.append("Across is the line's direction, up another.")
    parts.append("All maps have the same levels, about evenly spaced on a logarithmic scale.")
    if any(number(row["loss"]) is None for row in rows):
        parts.append("Hatched: not finite.")
    return " ".join(parts)


def _alt(nets: Any, data: str) -> str:
    parts = [f"Curves of the error and maps of the loss on {data} around the weights of trained nets."]
    for own in nets:
        name = f"the {own[0]['kind']} net {clean(own[0]['net'])}"
        losses = [value for row in own if (value := number(row["loss"])) is not None]
        centre = next((number(row["loss"]) for row in own if row["x"] == 0 and not row["y"]), None)
        if losses and centre is not None:
            parts.append(
                f"The loss of {name} is {centre:.2g} at the weights and at most {max(losses):.2g} around."
            )
    return " ".join(parts)
