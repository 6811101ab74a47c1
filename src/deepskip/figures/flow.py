"""How signals flow while a net trains: depth against step, as heat maps on a logarithmic scale."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from deepskip.figures.colour import INK, MUTED, PAPER, heat
from deepskip.figures.labels import clean, power, width
from deepskip.figures.rows import Row, number
from deepskip.figures.style import SMALL, Picture, heading, language, panel, say_nothing

_WIDTH, _GAP, _RIGHT = 2.5, 0.42, 0.3
_BOTTOM, _TOP, _BAR = 1.18, 0.62, 0.1
_ACROSS, _DOWN = 240, 512
"""Cells of a map, at most."""
_LEVELS = 24
"""Colours of a scale, about; there are as many in each power of ten, or as many powers of ten in each."""
_MAPS = {
    "grad_norm": ("Gradient", "norm, all parameters of a block"),
    "rms": ("Activation", "rms of a block's output"),
    "ratio": ("Branch / shortcut", "rms of one over the other's"),
}
_LINE = SMALL * 1.35 / 72


class _Scale(NamedTuple):
    """Where the colours of a map part: from one whole power of ten to another, `steps` colours between them."""

    low: int
    high: int
    steps: int


@language()
def flow_maps(rows: Sequence[Row]) -> Picture:
    """Return a heat map of depth against step for each thing that was measured, the first block on top.

    `rows` are recorded steps: `step`, and `grad_norm`, `rms`, `ratio`, lists in the order of the blocks whose
    names are the first row's `blocks`. The darker, the larger, in even steps of the logarithm that keep their
    order in black and white. A column shows the last step recorded up to it; past 512 blocks a line of the map
    is the geometric mean of several. What is no finite number is hatched; zero has the smallest colour.
    """
    rows = sorted((row for row in rows if number(row.get("step")) is not None), key=lambda row: row["step"])
    fields = [field for field in _MAPS if any(_found(rows, field))] or ["grad_norm"]
    names = _names(rows)
    count = max((len(row.get(field) or ()) for row in rows for field in fields), default=0)
    names += [f"block {i + 1}" for i in range(len(names), count)]
    high = min(max(2.1, len(names) / 72), 4.6)
    ticks = _block_ticks(names, high)
    left = max((width(text) for text in ticks.values()), default=0.3) + 0.18
    picture = Picture(
        (left + len(fields) * _WIDTH + (len(fields) - 1) * _GAP + _RIGHT, _BOTTOM + high + _TOP),
        title="How signals flow, block by block",
        caption=_caption(rows, fields, len(names)),
        alt=_alt(rows, fields, names),
    )
    for i, field in enumerate(fields):
        axes = panel(picture, left + i * (_WIDTH + _GAP), _BOTTOM, _WIDTH, high)
        heading(axes, *_MAPS[field])
        _draw_axes(axes, rows, names, ticks if i == 0 else {})
        scale = _scale(_found(rows, field))
        if scale is None:
            say_nothing(axes)
            continue
        _draw_map(axes, _cells(rows, field, len(names)), scale)
        _draw_bar(panel(picture, left + i * (_WIDTH + _GAP), 0.34, _WIDTH, _BAR), scale)
    return picture


def _names(rows: Sequence[Row]) -> list[str]:
    named: Sequence[object] = next((row["blocks"] for row in rows if row.get("blocks")), [])
    return [clean(name, 14) for name in named]


def _found(rows: Iterable[Row], field: str) -> list[float]:
    """Return what is larger than zero and finite."""
    values = (number(value) for row in rows for value in row.get(field) or ())
    return [value for value in values if value is not None and value > 0]


def _scale(values: Sequence[float]) -> _Scale | None:
    if not values:
        return None
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    decades = high - low
    each = -(-decades // _LEVELS)
    if each > 1:  # several powers of ten a colour
        return _Scale(low, low + each * -(-decades // each), -(-decades // each))
    return _Scale(low, high, decades * max(_LEVELS // decades, 1))


def _cells(rows: Sequence[Row], field: str, count: int) -> npt.NDArray[np.float64]:
    """Return the map's logarithms, [lines, columns]: -inf for zero, nan for what is not there."""
    steps = [int(row["step"]) for row in rows]
    values = np.full((count, len(rows)), np.nan)
    for j, row in enumerate(rows):
        for i, value in enumerate(row.get(field) or ()):
            found = number(value)
            if found is not None and found >= 0:
                values[i, j] = math.log10(found) if found > 0 else -math.inf
    together = -(-count // _DOWN)
    if together > 1:
        values = np.stack([_mean(values[i : i + together]) for i in range(0, count, together)])
    span = steps[-1] - steps[0] + 1
    wide = min(span, _ACROSS)
    at = [bisect.bisect_right(steps, steps[0] + (k + 0.5) * span / wide - 0.5) - 1 for k in range(wide)]
    return values[:, at]


def _mean(lines: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each column over what is there."""
    known = ~np.isnan(lines)
    sums = np.where(known, lines, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), np.nan)


def _draw_map(axes: Axes, cells: npt.NDArray[np.float64], scale: _Scale) -> None:
    parts = (cells - scale.low) / (scale.high - scale.low) * scale.steps
    levels = np.ma.masked_invalid(np.clip(np.floor(np.where(np.isneginf(parts), 0, parts)), 0, scale.steps - 1))
    (x0, x1), (y1, y0) = axes.get_xlim(), axes.get_ylim()
    if np.isnan(cells).any():
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, hatch="//////", edgecolor=MUTED, linewidth=0.0)
        )
    axes.imshow(
        levels,
        cmap=_colours(scale),
        vmin=-0.5,
        vmax=scale.steps - 0.5,
        extent=(x0, x1, y1, y0),
        aspect="auto",
        interpolation="none",
        zorder=1,
    )


def _colours(scale: _Scale) -> ListedColormap:
    return ListedColormap([heat(i / max(scale.steps - 1, 1)) for i in range(scale.steps)])


def _draw_axes(axes: Axes, rows: Sequence[Row], names: Sequence[str], ticks: dict[int, str]) -> None:
    first, last = (int(rows[0]["step"]), int(rows[-1]["step"])) if rows else (1, 1)
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_ylim(max(len(names), 1), 0)
    axes.grid(False)
    axes.set_yticks(list(ticks), list(ticks.values()))
    for border in _borders(names):
        axes.axhline(border, color=PAPER, linewidth=1.6, zorder=2)
        axes.axhline(border, color=INK, linewidth=0.6, zorder=3)
    wanted = MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
    longest = width(f"{last}") + 0.12
    apart = longest * (last - first + 1) / _WIDTH  # the first and the last are always named
    marks = sorted({first, last, *(int(t) for t in wanted if first + apart < t < last - apart)})
    if len(marks) == 2 and last - first < apart:
        marks = [last]
    axes.set_xticks(marks, [str(mark) for mark in marks])
    axes.set_xlabel("step")


def _borders(names: Sequence[str]) -> list[int]:
    """Return where a stage ends and the next begins."""
    stages = [name.rpartition(".")[0] for name in names]
    return [i for i, (one, other) in enumerate(itertools.pairwise(stages), 1) if one != other]


def _block_ticks(names: Sequence[str], high: float) -> dict[int, str]:
    """Return the names of the blocks at the beginning of stages and of the last, where there is room."""
    if not names:
        return {}
    apart = _LINE * len(names) / high
    last = len(names) - 1
    found: list[int] = [0]
    for i in _borders(names):
        if i - found[-1] >= apart and last - i >= apart:
            found.append(i)
    found += [last] if last - found[-1] >= apart else []
    return {i + 0.5: names[i] for i in found}  # type: ignore[misc]


def _draw_bar(axes: Axes, scale: _Scale) -> None:
    decades = scale.high - scale.low
    axes.set_xlim(scale.low, scale.high)
    axes.grid(False)
    axes.set_yticks([])
    axes.imshow(
        np.arange(scale.steps)[None, :],
        cmap=_colours(scale),
        extent=(scale.low, scale.high, 0, 1),
        aspect="auto",
        interpolation="none",
    )
    each = -(-decades // 5)
    ticks = list(range(scale.low, scale.high + 1, each))
    axes.set_xticks(ticks, [power(tick) for tick in ticks])


def _caption(rows: Sequence[Row], fields: Sequence[str], count: int) -> str:
    steps = f"{len(rows)} recorded steps" if len(rows) != 1 else "one recorded step"
    parts = [f"Lines of a map are blocks, the first on top, and columns {steps}."]
    parts.append("The darker, the larger, on a logarithmic scale.")
    together = -(-count // _DOWN)
    if together > 1:
        parts.append(f"A line is the geometric mean of {together} blocks.")
    if "rms" not in fields:
        parts.append("Of a compiled net only gradients are recorded.")
    elif "ratio" not in fields:
        parts.append("A plain net has no shortcut to compare its branches with.")
    if any(number(v) is None for row in rows for field in fields for v in row.get(field) or ()):
        parts.append("Hatched: no finite number, or nothing to measure.")
    return " ".join(parts)


def _alt(rows: Sequence[Row], fields: Sequence[str], names: Sequence[str]) -> str:
    parts = [f"Heat maps of {len(names)} blocks over {len(rows)} recorded steps."]
    for field in fields:
        for row, when in ((rows[0], "first"), (rows[-1], "last")) if rows else ():
            values = [number(value) for value in row.get(field) or ()]
            known = [value for value in values if value is not None]
            if known:
                title = _MAPS[field][0].lower()
                parts.append(f"At the {when} step the {title} goes from {known[0]:.1e} to {known[-1]:.1e}.")
    return " ".join(parts)
