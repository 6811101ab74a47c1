"""What diagrams are drawn with: a sheet as large as what is put on it, boxes, arrows, skips, sums, words.

Places are in inches, x to the right and y downwards, from wherever the drawing likes. Every word is measured
before the sheet is cut to size, so nothing is cut off.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Patch, PathPatch
from matplotlib.path import Path

from deepskip.figures import labels
from deepskip.figures.colour import INK, MUTED, PAPER, shade
from deepskip.figures.style import SMALL, Picture, panel

Point = tuple[float, float]

SKIP = shade("residual", 0.55)
"""The colour of every shortcut: the one line in a diagram that is not ink."""
DASHED = (0, (3.2, 2.0))
"""The dashes of a shortcut that changes the dimensions, as in He et al. 2015, figure 3."""
JOIN = 0.085
"""Radius of a ⊕, in inches."""
HEAD = 0.078
"""Length of an arrow's head, in inches."""
_MARGIN = 0.14
_HINTED = 1.04  # a word drawn in pixels may be this much wider than its outline

width = functools.lru_cache(maxsize=4096)(labels.width)


class _Stroke(NamedTuple):
    colour: str
    width: float
    dashed: bool


class _Word(NamedTuple):
    x: float
    y: float
    text: str
    size: float
    colour: str
    anchor: str
    weight: str
    slant: str


class Sheet:
    """An unbounded sheet of paper; `picture` cuts it to what was put on it."""

    def __init__(self) -> None:
        self._patches: list[Patch] = []
        self._words: list[_Word] = []
        self._lines: dict[_Stroke, list[Path]] = {}
        self._heads: dict[str, list[Path]] = {}
        self._bounds = [math.inf, math.inf, -math.inf, -math.inf]

    def cover(self, left: float, top: float, right: float, bottom: float) -> None:
        """Make sure that the picture reaches from (left, top) to (right, bottom)."""
        low, high = self._bounds[:2], self._bounds[2:]
        self._bounds = [min(low[0], left), min(low[1], top), max(high[0], right), max(high[1], bottom)]

    def word(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = SMALL,
        colour: str = INK,
        anchor: str = "center",
        bold: bool = False,
        italic: bool = False,
    ) -> float:
        """Write `text` at mid-height `y`; its "center", "left" or "right" end is at `x`. Return its width."""
        weight, slant = "bold" if bold else "normal", "italic" if italic else "normal"
        wide = width(text, size, weight) * _HINTED
        left = x - {"left": 0.0, "center": wide / 2, "right": wide}[anchor]
        self.cover(left, y - size * 0.75 / 72, left + wide, y + size * 0.75 / 72)
        self._words.append(_Word(x, y, text, size, colour, anchor, weight, slant))
        return wide

    def box(
        self,
        x: float,
        y: float,
        text: str,
        *,
        wide: float,
        high: float = 0.22,
        fill: str = PAPER,
        edge: str = MUTED,
        order: float = 4.0,
        size: float = SMALL,
    ) -> None:
        """Draw a box with (x, y) as its centre and `text` in it."""
        corner = f"round,pad=0,rounding_size={min(0.045, high / 3, wide / 3):g}"
        self._patches.append(
            FancyBboxPatch(
                (x - wide / 2, y - high / 2),
                wide,
                high,
                boxstyle=corner,
                facecolor=fill,
                edgecolor=edge,
                linewidth=0.8,
                zorder=order,
                clip_on=False,
            )
        )
        self.cover(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
        if text:
            self.word(x, y, text, size=size)

    def line(
        self,
        points: Sequence[Point],
        *,
        colour: str = INK,
        thick: float = 1.0,
        dashed: bool = False,
        head: bool = True,
        radius: float = 0.0,
    ) -> None:
        """Draw a line through `points`, its corners rounded, with an arrow's head at its end."""
        path = self._path(points, colour, head, radius)
        self._lines.setdefault(_Stroke(colour, thick, dashed), []).append(path)

    def skip(
        self, points: Sequence[Point], *, dashed: bool = False, radius: float = 0.3, head: bool = True,
        thick: float = 1.6, colour: str = SKIP, name: str = "skip",
    ) -> None:  # fmt: skip
        """Draw a shortcut through `points`: a curved line of its own colour, dashed where dimensions change."""
        path = self._path(points, colour, head, radius)
        self._patches.append(
            PathPatch(
                path,
                fill=False,
                edgecolor=colour,
                linewidth=thick,
                capstyle="butt",
                zorder=3,
                label=name,
                linestyle=DASHED if dashed else "solid",
                clip_on=False,
            )
        )

    def join(self, x: float, y: float, *, colour: str = INK, order: float = 5.0) -> None:
        """Draw a ⊕ round (x, y)."""
        style: dict[str, Any] = {"edgecolor": colour, "linewidth": 1.1, "clip_on": False}
        self._patches.append(Circle((x, y), JOIN, facecolor=PAPER, zorder=order, label="join", **style))
        arm = JOIN * 0.58
        plus = [Path([(x - arm, y), (x + arm, y)]), Path([(x, y - arm), (x, y + arm)])]
        self._patches.append(PathPatch(Path.make_compound_path(*plus), zorder=order, **style))
        self.cover(x - JOIN, y - JOIN, x + JOIN, y + JOIN)

    def power(self, x: float, y: float, base: str, exponent: str, *, size: float = SMALL) -> None:
        """Write `base` with a raised `exponent`; the two meet at `x`, whatever the reader's font."""
        self.word(x, y, base, size=size, anchor="right", italic=True)
        self.word(x + 0.012, y - size * 0.42 / 72, exponent, size=size * 0.72, anchor="left")

    def picture(self, *, title: str, caption: str, alt: str) -> Picture:
        """Return the sheet, cut to size with a margin."""
        left, top, right, bottom = self._bounds
        left, top, right, bottom = left - _MARGIN, top - _MARGIN, right + _MARGIN, bottom + _MARGIN
        picture = Picture((right - left, bottom - top), title=title, caption=caption, alt=alt)
        axes = panel(picture, 0, 0, right - left, bottom - top)
        axes.set_axis_off()
        axes.set_xlim(left, right)
        axes.set_ylim(bottom, top)
        for stroke, paths in self._lines.items():
            axes.add_patch(
                PathPatch(Path.make_compound_path(*paths), fill=False, edgecolor=stroke.colour, clip_on=False,
                          linewidth=stroke.width, linestyle=DASHED if stroke.dashed else "solid", zorder=2)
            )  # fmt: skip
        for colour, paths in self._heads.items():
            heads = Path.make_compound_path(*paths)
            axes.add_patch(PathPatch(heads, facecolor=colour, linewidth=0, zorder=3.5, clip_on=False))
        for patch in self._patches:
            axes.add_patch(patch)
        for word in self._words:
            axes.text(word.x, word.y, word.text, size=word.size, color=word.colour, ha=word.anchor, zorder=6,
                      va="center_baseline", weight=word.weight, style=word.slant)  # fmt: skip
        return picture

    def inset(self, picture: Picture, x: float, y: float, wide: float, high: float) -> Axes:
        """Return new axes in `picture`, cut from this sheet, with (x, y) as their upper left corner."""
        left, _, _, bottom = self._bounds
        return panel(picture, x - left + _MARGIN, bottom + _MARGIN - y - high, wide, high)

    def _path(self, points: Sequence[Point], colour: str, head: bool, radius: float) -> Path:
        for x, y in points:
            self.cover(x, y, x, y)
        points = list(points)
        if head:
            (x0, y0), (x, y) = points[-2:]
            far = math.hypot(x - x0, y - y0)
            ux, uy = (x - x0) / far, (y - y0) / far
            bx, by = x - HEAD * ux, y - HEAD * uy
            half = HEAD * 0.46
            tip = [(x, y), (bx - half * uy, by + half * ux), (bx + half * uy, by - half * ux), (x, y)]
            self._heads.setdefault(colour, []).append(Path(tip, closed=True))
            points[-1] = (bx + 0.3 * HEAD * ux, by + 0.3 * HEAD * uy)
        return _rounded(points, radius)


def _rounded(points: Sequence[Point], radius: float) -> Path:
    """Return the path through `points` whose corners are curves of at most `radius`."""
    spots, codes = [points[0]], [Path.MOVETO]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        legs = math.dist(before, corner), math.dist(corner, after)
        ends = len(points) == 3
        reach = min(radius, *(leg if ends else leg / 2 for leg in legs))
        if before == points[0]:
            reach = min(radius, legs[0], legs[1] / (1 if after == points[-1] else 2))
        elif after == points[-1]:
            reach = min(radius, legs[1], legs[0] / 2)
        spots += [_towards(corner, before, reach)]
        codes += [Path.LINETO]
        if reach > 0:
            # a quarter circle, as a cubic: 0.5523 of the way to the corner
            a, b = _towards(corner, before, reach * 0.4477), _towards(corner, after, reach * 0.4477)
            spots += [a, b, _towards(corner, after, reach)]
            codes += [Path.CURVE4] * 3
    return Path([*spots, points[-1]], [*codes, Path.LINETO])


def _towards(start: Point, end: Point, far: float) -> Point:
    """Return the point `far` from `start` on the way to `end`."""
    whole = math.dist(start, end) or 1.0
    return start[0] + (end[0] - start[0]) * far / whole, start[1] + (end[1] - start[1]) * far / whole
