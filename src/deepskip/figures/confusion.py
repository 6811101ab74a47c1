"""The confusion matrix: what was taken for what, for two classes or a hundred."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from deepskip.errors import InputError
from deepskip.figures.colour import FAINT, INK, MUTED, PAPER, tint
from deepskip.figures.labels import clean, width
from deepskip.figures.rows import NONE, percent
from deepskip.figures.style import SMALL, Picture, language, panel

_STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Where the colour steps part, in percent of the true class: about equal on a logarithmic scale."""
_STEP_NAMES = ("< 1", "1", "2", "5", "10", "20", "50")
_KINDS = {True: "residual", False: "plain"}
_RIGHT, _BELOW = 0.62, 0.8


@language()
def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Picture:
    """Return the confusion matrix as a picture: a row per true class, a column per predicted class.

    `matrix[t][p]` is the number of images of class `t` that were taken for class `p`. Blue cells are right
    and orange ones wrong; the darker, the larger the share of the true class, in logarithmic steps, so that
    one mistake in a hundred is seen beside ninety-nine hits. Counts are written in where they fit. Raises
    InputError unless the matrix is square with a row per class.
    """
    count = len(classes)
    if count == 0 or len(matrix) != count or any(len(row) != count for row in matrix):
        got = f"{len(matrix)} rows of {sorted({len(row) for row in matrix})} columns"
        raise InputError("confusion matrix", got, f"{count} rows and columns, one a class")
    names = [clean(name, 24) for name in classes]
    cell = min(max(4.4 / count, 0.1), 0.62)
    size = min(SMALL, 58 * cell)
    longest = max(width(name, size) for name in names)
    upright = longest <= cell - 0.05
    left = max(longest, width("true class")) + 0.25
    above = 0.45 + (size / 72 if upright else longest)
    side = count * cell
    picture = Picture(
        (left + max(side + _RIGHT, 4.1), above + side + _BELOW),
        title="What was taken for what",
        caption="Row: the true class. Column: the class predicted. Blue is right and orange is wrong; the "
        "stronger the colour, the larger the share of the true class. On the right, each class's error.",
        alt=_alt(matrix, names),
    )
    axes = panel(picture, left, _BELOW, side, side)
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_axis_off()
    _draw_cells(axes, matrix, cell)
    _write_counts(axes, matrix, cell)
    _write_names(axes, names, size, upright)
    _write_errors(axes, matrix, size)
    for text, x, ha in (("true class", -0.07, "right"), ("predicted class", 0.03, "left")):
        axes.annotate(text, (0, 1), (72 * x, 72 * (above - 0.17)), "axes fraction", "offset points",
                      color=MUTED, size=SMALL, ha=ha, va="center")  # fmt: skip
    _draw_scale(panel(picture, left, 0.1, 4.1, 0.55))
    return picture


def _level(count: int, total: int) -> int:
    return bisect.bisect_right(_STEPS, 100 * count / total)


def _filled(matrix: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, int, int]]:
    """Yield row, column, count and colour level of every cell that is not empty."""
    for t, row in enumerate(matrix):
        for p, count in enumerate(row):
            if count > 0:
                yield t, p, count, _level(count, sum(row))


def _draw_cells(axes: Axes, matrix: Sequence[Sequence[int]], cell: float) -> None:
    """Draw the cells, one path per colour, so that a hundred classes stay a small file."""
    gap = 0.03 if cell > 0.2 else 0.0
    boxes: dict[tuple[bool, int], list[Path]] = {}
    for t, p, _, level in _filled(matrix):
        x0, x1, y0, y1 = p + gap, p + 1 - gap, t + gap, t + 1 - gap
        box = Path([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], closed=True)
        boxes.setdefault((t == p, level), []).append(box)
    for (right, level), paths in sorted(boxes.items()):
        fill = tint(_KINDS[right], level / len(_STEPS))
        axes.add_patch(PathPatch(Path.make_compound_path(*paths), facecolor=fill, linewidth=0, zorder=2))
    guides = range(0, len(matrix) + 1, len(matrix) if len(matrix) <= 20 else 10)
    for at in guides if gap == 0 else ():
        axes.axhline(at, color=FAINT, linewidth=0.6, clip_on=False, zorder=1)
        axes.axvline(at, color=FAINT, linewidth=0.6, clip_on=False, zorder=1)


def _write_counts(axes: Axes, matrix: Sequence[Sequence[int]], cell: float) -> None:
    longest = max(len(str(count)) for row in matrix for count in row)
    size = min(SMALL, 72 * (cell - 0.06) / (0.66 * longest))
    if size < 5.5:
        return
    for t, p, count, level in _filled(matrix):
        ink = PAPER if level >= 4 else INK
        axes.text(p + 0.5, t + 0.5, str(count), color=ink, size=size, ha="center", va="center_baseline")


def _write_names(axes: Axes, names: Sequence[str], size: float, upright: bool) -> None:
    for i, name in enumerate(names):
        axes.annotate(name, (0, i + 0.5), (-5, 0), "data", "offset points", size=size, ha="right",
                      va="center_baseline")  # fmt: skip
        axes.annotate(name, (i + 0.5, 0), (0, 5), "data", "offset points", size=size, ha="center",
                      va="bottom", rotation=0 if upright else 90)  # fmt: skip


def _write_errors(axes: Axes, matrix: Sequence[Sequence[int]], size: float) -> None:
    style: dict[str, Any] = {"textcoords": "offset points", "size": size, "color": MUTED}
    axes.annotate("error", (len(matrix), 0), (6, 5), va="bottom", **style)
    for i, row in enumerate(matrix):
        error = percent(100 * (1 - row[i] / sum(row)), 1) if sum(row) else NONE
        axes.annotate(error, (len(matrix), i + 0.5), (6, 0), va="center_baseline", **style)


def _draw_scale(axes: Axes) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 4.1)
    axes.set_ylim(0, 0.55)
    box, start = 0.42, 0.5
    note: dict[str, Any] = {"size": SMALL - 1, "color": MUTED}
    axes.text(start, 0.48, "share of the true class, from (%)", **note)
    for level, name in enumerate(_STEP_NAMES):
        axes.text(start + level * box, 0.34, name, **note)
    for y, right in ((0.17, True), (0.01, False)):
        axes.text(0, y + 0.07, "right" if right else "wrong", size=SMALL, va="center_baseline")
        for level in range(len(_STEP_NAMES)):
            fill = tint(_KINDS[right], level / len(_STEPS))
            axes.add_patch(Rectangle((start + level * box, y), box - 0.02, 0.14, facecolor=fill, linewidth=0))


def _alt(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    total, hits = sum(map(sum, matrix)), sum(row[i] for i, row in enumerate(matrix))
    text = f"Confusion matrix of {len(names)} classes: {hits} of {total} images are right."
    wrong = [(count, t, p) for t, p, count, _ in _filled(matrix) if t != p]
    if wrong:
        count, t, p = max(wrong)
        text += f" The most frequent mistake: {names[t]} taken for {names[p]}, {count} times."
    return text
