"""Path lengths, measured: how many paths there are of each, how much gradient comes by one, and by all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from deepskip.figures.colour import shade, tint
from deepskip.figures.labels import clean
from deepskip.figures.rows import Row, number, numbers
from deepskip.figures.style import SMALL, Picture, heading, language, panel, say_nothing, y_from_zero

_LEFT, _WIDTH, _GAP, _RIGHT = 0.55, 2.35, 0.62, 0.2
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.3, 0.62
_LEAST = 1e-3
"""Bars below this part of the tallest are left out."""


@language()
def gradient_by_length(rows: Sequence[Row], *, data: str) -> Picture:
    """Return three panels over the length of a path: the share of all paths, the gradient of one, and of all.

    `rows` are `instruments.paths.measure`'s: `length`, `share` and `contribution` in percent, `gradient` with
    `gradient_low` and `gradient_high`, `effective`, `seen`. After Veit et al. 2016, arXiv:1605.06431, figure 6.
    """
    step = _WIDTH + _GAP
    picture = Picture(
        (_LEFT + 3 * step - _GAP + _RIGHT, _BOTTOM + _HEIGHT + _TOP),
        title="How long the paths are that carry gradient",
        caption=_caption(rows, clean(data, 60)),
        alt=_alt(rows, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(3)]
    most = max((int(row["length"]) for row in rows), default=1)
    for axes in panels:
        axes.set_xlim(-0.7, most + 0.7)
        ticks = range(most + 1) if most <= 8 else sorted({0, most // 2, most})
        axes.set_xticks(list(ticks), [f"{tick:,}" for tick in ticks])
        axes.set_xlabel("branches that a path goes through", size=SMALL)
    heading(panels[0], "Paths of each length", "share of all paths (%)")
    _draw_bars(panels[0], rows, "share")
    heading(panels[1], "Gradient of one path", "norm by the image")
    _draw_gradient(panels[1], rows)
    heading(panels[2], "Gradient of all of them", "share of the sum over lengths (%)")
    _draw_bars(panels[2], rows, "contribution")
    return picture


def _draw_bars(axes: Axes, rows: Sequence[Row], field: str) -> None:
    """Draw a bar for each length; those of effective lengths stronger than the rest."""
    found = [(int(row["length"]), value, bool(row.get("effective"))) for row in rows
             if (value := number(row.get(field))) is not None]  # fmt: skip
    top = max((value for _, value, _ in found), default=0.0)
    y_from_zero([axes], top)
    if not top > 0:
        say_nothing(axes)
        return
    gap = 0.12 if len(rows) <= 120 else 0.0
    for inner, fill in ((False, tint("residual", 0.2)), (True, shade("residual", 0.5))):
        edges: list[float] = []
        heights: list[float] = []
        for k, value, effective in found:
            if effective == inner and value > top * _LEAST:
                edges += [k - 0.5 + gap, k - 0.5 + gap, k + 0.5 - gap, k + 0.5 - gap]
                heights += [0.0, value, value, 0.0]
        if edges:
            axes.fill_between(edges, heights, color=fill, linewidth=0, zorder=2 + inner)


def _draw_gradient(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw the mean on a logarithmic scale, and the band of its interval where lengths were measured."""
    colour = shade("residual", 0.62)
    found = {int(row["length"]): math.log10(g) for row in rows if (g := number(row.get("gradient"))) and g > 0}
    if not found:
        y_from_zero([axes], 1.0)
        say_nothing(axes)
        return
    low, high = math.floor(min(found.values())), math.ceil(max(found.values()))
    high = max(high, low + 1)
    axes.set_ylim(low - 0.012 * (high - low), high + 0.04 * (high - low))
    step = max(1, math.ceil((high - low) / 6))
    ticks = list(range(low, high + 1, step))
    axes.set_yticks(ticks, [f"1e{tick}" if tick else "1" for tick in ticks])
    bands = {
        int(row["length"]): (math.log10(a) if a > 0 else low, math.log10(b))
        for row in rows
        if (a := number(row.get("gradient_low"))) is not None
        and (b := number(row.get("gradient_high")))
        and int(row["length"]) in found
    }
    if bands:
        lows, highs = zip(*bands.values(), strict=True)
        axes.fill_between(
            list(bands), [max(one, low) for one in lows], highs, color=colour, alpha=0.16, linewidth=0
        )
    axes.plot(list(found), list(found.values()), color=colour, zorder=3)
    measured = [int(row["length"]) for row in rows if row.get("seen") and int(row["length"]) in found]
    size = 3.4 if len(measured) <= 40 else 2.2
    axes.plot(
        measured, [found[k] for k in measured], "o", color=colour, ms=size, mew=0, zorder=4, clip_on=False
    )


def _effective(rows: Sequence[Row]) -> tuple[int, int, float, float] | None:
    """Return the first and the last effective length, their share of gradient and of paths in percent."""
    inside = [row for row in rows if row.get("effective")]
    if not inside:
        return None
    gradient, paths = sum(numbers(inside, "contribution")), sum(numbers(inside, "share"))
    return int(inside[0]["length"]), int(inside[-1]["length"]), gradient, paths


def _words(rows: Sequence[Row]) -> str:
    found = _effective(rows)
    if found is None:
        return "No finite gradient was measured."
    low, high, gradient, paths = found
    range_ = f"{low:,} branches" if low == high else f"{low:,} to {high:,} branches"
    return f"Paths of {range_} carry {gradient:.0f}% of the gradient; they are {paths:.3g}% of all paths."


def _caption(rows: Sequence[Row], data: str) -> str:
    images = max((int(row.get("seen") or 0) for row in rows), default=0)
    return (
        f"Paths through a net of {max(len(rows) - 1, 0):,} blocks, of each length; gradients of the loss on "
        f"{data}, up to {images:,} paths a length. Strong: the narrowest range of lengths with 95% of the "
        f"gradient. {_words(rows)} Band: 95% interval of the mean. After Veit et al. 2016, figure 6."
    )


def _alt(rows: Sequence[Row], data: str) -> str:
    gradients = [(int(row["length"]), g) for row in rows if (g := number(row.get("gradient"))) is not None]
    ends = [f"{g:.2g} at length {k}" for k, g in (gradients[0], gradients[-1])] if gradients else []
    falls = f" The gradient of one path is {' and '.join(ends)}." if ends else ""
    what = "share of all paths, gradient of one path, gradient of all of them"
    return f"Three charts over the length of a path on {data}: {what}.{falls} {_words(rows)}"
