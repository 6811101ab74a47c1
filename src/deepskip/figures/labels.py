"""Words in pictures: safe to draw, measured before they are placed, and never on top of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from deepskip.figures.colour import INK
from deepskip.figures.style import SMALL


class End(NamedTuple):
    """Where a line ends (in data units), and what is written there."""

    x: float
    y: float
    text: str
    colour: str
    order: float = 0.0
    """Which name stands higher where lines end at the same height: the larger one."""
    stopped: bool = False
    """Whether the line ends before the panel does; its leader is dotted."""


def clean(text: object, most: int = 28) -> str:
    """Return `text` on one line without unprintable characters, its middle cut out past `most`."""
    shown = (c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in str(text))
    line = " ".join("".join(shown).split())
    if len(line) <= most:
        return line
    head = (most - 1) * 2 // 3
    return f"{line[:head]}…{line[len(line) - (most - 1 - head) :]}"


def width(text: str, size: float = SMALL, weight: str = "normal") -> float:
    """Return how wide `text` is, in inches, at `size` points in the font that layout is measured in."""
    font = FontProperties(family=["DejaVu Sans"], size=size, weight=weight)
    measured: float = TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]
    return measured / 72


def power(exponent: int) -> str:
    """Return 10 to the `exponent` as it is written, "1" and "10" by themselves."""
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return {0: "1", 1: "10"}.get(exponent, f"10{raised}")


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions in [low, high], in the order given and `gap` apart, moved as little as can be.

    `wanted` ascends. Least squares under `y[i + 1] - y[i] >= gap` is isotonic regression of `y[i] - i * gap`,
    solved by pooling adjacent violators. Where there is no room for every gap, the gaps shrink alike.
    """
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    pools: list[tuple[float, int]] = []
    for i, value in enumerate(wanted):
        mean, count = value - i * gap, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        pools.append((mean, count))
    level = [mean for mean, count in pools for _ in range(count)]
    top = high - (len(wanted) - 1) * gap
    return [min(max(value, low), top) + i * gap for i, value in enumerate(level)]


def label_ends(axes: Axes, ends: Sequence[End], *, reach: float = 0.2, unit: str = "") -> None:
    """Write each line's name right of the panel, level with its end, with a fine leader where it had to move.

    Call it last: it reads the panel's limits. `reach` is the distance from panel to names in inches;
    the topmost name is followed by the `unit`.
    """
    figure = axes.get_figure(root=True)
    if figure is None or not ends:
        return
    scale = figure.dpi_scale_trans
    inches = scale.inverted().transform(axes.transData.transform([(end.x, end.y) for end in ends]))
    box = axes.get_window_extent().transformed(scale.inverted())
    lines = _stacked([(end, float(x), float(y)) for end, (x, y) in zip(ends, inches, strict=True)])
    places = spread(sorted(y for _, _, y in lines), SMALL * 1.3 / 72, box.y0, box.y1)
    name = box.x1 + reach
    for (end, x, y), place in zip(lines, places, strict=True):
        path = [(x + 0.06, y), (max(x, box.x1) + 0.06, y), (name - 0.04, place)]
        dashes = (0, (0.8, 2.2)) if end.stopped else "solid"
        xs, ys = zip(*path, strict=True)
        figure.add_artist(Line2D(xs, ys, color=end.colour, lw=0.7, ls=dashes, transform=scale))
        text = f"{end.text} {unit}" if unit and end is lines[-1][0] else end.text
        figure.text(name, place, text, color=INK, size=SMALL, transform=scale, va="center_baseline")


def _stacked(ends: Sequence[tuple[End, float, float]], close: float = 0.05) -> list[tuple[End, float, float]]:
    """Return the ends from the lowest up; those within `close` inches of the one below go by their order."""
    stack: list[list[tuple[End, float, float]]] = []
    for item in sorted(ends, key=lambda item: item[2]):
        if stack and item[2] - stack[-1][-1][2] <= close:
            stack[-1].append(item)
        else:
            stack.append([item])
    return [item for tied in stack for item in sorted(tied, key=lambda item: item[0].order)]
