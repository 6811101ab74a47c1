"""A residual net as the paths it consists of: unravelled where it is small, counted where it is large.

After Veit et al. 2016, arXiv:1605.06431, figures 1 and 6a.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

from deepskip.describe import ledger
from deepskip.describe.spec import ARRANGEMENTS, Site, Spec
from deepskip.figures.anatomy import Hidden, elided, lowered, raised
from deepskip.figures.colour import MUTED, shade, tint
from deepskip.figures.diagram import JOIN, Sheet
from deepskip.figures.labels import clean
from deepskip.figures.style import SIZE, SMALL, Picture, heading, language, y_from_zero

_MOST = 4  # blocks of a net whose paths are all drawn
_WIDE, _HIGH = 0.46, 0.24
_STEP, _ROW = 1.15, 0.42
_FILL = tint("residual", 0.25)


class _End(NamedTuple):
    """Where a part of the unravelled net gives its result, and the blocks that led there, first to last."""

    x: float
    y: float


@language()
def paths(spec: Spec) -> Picture:
    """Return the net as a collection of paths: all 2ⁿ of them for up to four blocks, otherwise their lengths.

    A plain net is one path, and drawn as one.
    """
    sites, sheet = list(spec.sites()), Sheet()
    n = len(sites)
    words = f"2{raised(n)} paths"
    if n < 64:
        words = f"2{raised(n)} {'=' if 2**n < 10**7 else '≈'} {_number(2**n)} paths"
    title = f"{clean(spec.name, 40)}: {'one path' if spec.is_plain else words}"
    sheet.word(0, -0.9, title, size=SIZE + 1, bold=True, anchor="left")
    _chain(sheet, spec, sites)
    if spec.is_plain:
        return sheet.picture(
            title=title,
            caption="Without shortcuts there is one path from input to output, through every block.",
            alt=f"Diagram: a plain net of {n} blocks in a row; there is one path, through all of them.",
        )
    if n > _MOST:
        return _distribution(sheet, spec, title)
    sheet.word(
        0, 0.42, "the same net, unravelled; on the left, the branches of each path", colour=MUTED, anchor="left"
    )
    _unravel(sheet, sites)
    left_out = " The ReLU after each ⊕ is left out, as there." if ARRANGEMENTS[spec.order].after else ""
    return sheet.picture(
        title=title,
        caption=f"Every block adds its branch f to what its shortcut brings, so {_count(n)} are {2**n} paths "
        f"from input to output; on the left, the branches each goes through. After Veit et al. 2016.{left_out}",
        alt=f"Above, {_count(n)} in a row with shortcuts over each; below, the tree of their {2**n} paths.",
    )


def _chain(sheet: Sheet, spec: Spec, sites: Sequence[Site]) -> None:
    """Draw the net as a row of blocks, each with its shortcut over it."""
    x = 0.16
    sheet.word(0, 0, "x", italic=True, size=SIZE)
    shown = elided(list(enumerate(sites, 1)), _MOST)
    for item in shown:
        if isinstance(item, Hidden):
            sheet.line([(x, 0), (x + 0.26, 0)])
            sheet.word(x + 0.42, 0, "…", size=SIZE)
            x += 0.58
            continue
        i, site = item
        box, join = x + 0.36 + _WIDE / 2, x + 0.36 + _WIDE + 0.3
        sheet.line([(x, 0), (box - _WIDE / 2, 0)])
        fill = tint("plain", 0.25) if spec.is_plain else _FILL
        sheet.box(box, 0, f"f{lowered(i)}", wide=_WIDE, high=_HIGH, fill=fill, size=SIZE)
        if spec.is_plain:
            x = box + _WIDE / 2
            continue
        sheet.line([(box + _WIDE / 2, 0), (join - JOIN, 0)])
        sheet.join(join, 0)
        fork, up = x + 0.13, -0.4
        sheet.skip([(fork, 0), (fork, up), (join, up), (join, -JOIN)], dashed=site.changes, radius=0.24)
        x = join + JOIN
    sheet.line([(x, 0), (x + 0.32, 0)])
    sheet.word(x + 0.42, 0, "y", italic=True, size=SIZE)


def _unravel(sheet: Sheet, sites: Sequence[Site]) -> None:
    """Draw the tree: what reaches ⊕ number i comes through branch i or past it, and so on down to the input."""
    n = len(sites)
    top, left = 0.8, 0.95

    def draw(i: int, row: int) -> _End:
        """Draw what is added up by the first `i` blocks, its 2^i rows from `row` down."""
        if i == 0:
            return _End(left, top + row * _ROW)
        over, through = draw(i - 1, row), draw(i - 1, row + 2 ** (i - 1))
        x, y = left + i * _STEP, (over.y + through.y) / 2
        box = x - 0.5
        dashed = sites[i - 1].changes
        sheet.skip([(over.x, over.y), (x, over.y), (x, y - JOIN)], dashed=dashed, radius=0.16, thick=1.3)
        sheet.line([(through.x, through.y), (box - _WIDE / 2, through.y)])
        sheet.line([(box + _WIDE / 2, through.y), (x, through.y), (x, y + JOIN)], radius=0.16)
        sheet.box(box, through.y, f"f{lowered(i)}", wide=_WIDE, high=_HIGH, fill=_FILL, size=SIZE)
        sheet.join(x, y)
        return _End(x + JOIN, y)

    end = draw(n, 0)
    sheet.line([(end.x, end.y), (end.x + 0.3, end.y)])
    sheet.word(end.x + 0.4, end.y, "y", italic=True, size=SIZE)
    for row, taken in enumerate(itertools.product((False, True), repeat=n)):
        y = top + row * _ROW
        names = [f"f{lowered(i)}" for i, used in zip(range(n, 0, -1), taken, strict=True) if used]
        sheet.word(0, y, " ".join(reversed(names)) or "none", colour=MUTED, anchor="left")
        sheet.word(left - 0.08, y, "x", italic=True, size=SIZE)


def _distribution(sheet: Sheet, spec: Spec, title: str) -> Picture:
    cost = ledger.count(spec)
    n, counts = cost.blocks, cost.paths()
    total = 1 << n
    shares = [100 * count / total for count in counts]  # whole numbers of any size divide exactly enough
    low, high, inside = _central(counts, total)
    note = f"{inside:.1f}% of them go through {low:,} to {high:,} of the {n:,} branches"
    top, wide, tall = 1.15, 4.6, 1.8
    sheet.cover(0, 0, wide + 0.6, top + tall + 0.7)
    sheet.word(0.45, top + tall + 0.65, note, anchor="left")
    picture = sheet.picture(
        title=title,
        caption=f"How many branches the 2{raised(n)} paths go through: {note}. "
        "The lengths are binomial. After Veit et al. 2016, figures 1 and 6a.",
        alt=f"Above, a row of {n} blocks with shortcuts; below, a bell-shaped chart of path lengths "
        f"from 0 to {n}: {note}.",
    )
    axes = sheet.inset(picture, 0.45, top, wide, tall)
    heading(axes, "How long the paths are", f"share of the 2{raised(n)} paths (%)", above=-0.08)
    _draw_shares(axes, shares, low, high)
    return picture


def _draw_shares(axes: Axes, shares: Sequence[float], low: int, high: int) -> None:
    """Draw a bar for each length; the middle 95% of the paths stronger than the rest."""
    n = len(shares) - 1
    y_from_zero([axes], max(shares))
    axes.set_xlim(-0.7, n + 0.7)
    gap = 0.12 if n <= 120 else 0.0
    seen = [k for k, share in enumerate(shares) if share > max(shares) / 1000]
    for inner, fill in ((False, tint("residual", 0.2)), (True, shade("residual", 0.5))):
        edges: list[float] = []
        heights: list[float] = []
        for k in seen:
            if (low <= k <= high) == inner:
                edges += [k - 0.5 + gap, k - 0.5 + gap, k + 0.5 - gap, k + 0.5 - gap]
                heights += [0.0, shares[k], shares[k], 0.0]
        if edges:
            axes.fill_between(edges, heights, color=fill, linewidth=0, zorder=2 + inner)
    ticks = range(n + 1) if n <= 12 else sorted({0, n // 2, n})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_xlabel("branches that a path goes through", size=SMALL)


def _central(counts: Sequence[int], total: int) -> tuple[int, int, float]:
    """Return the shortest middle range of lengths that holds 95% of the paths, and its share in percent."""
    n = len(counts) - 1
    low, high = n // 2, n - n // 2
    inside = sum(counts[low : high + 1])
    while 100 * inside < 95 * total:
        low, high = low - 1, high + 1
        inside += counts[low] + counts[high]
    return low, high, 100 * inside / total


def _number(value: int) -> str:
    """Return a large whole number as people read it."""
    if value < 10**7:
        return f"{value:,}"
    power = int(math.log10(value))
    return f"{value / 10**power:.1f} × 10{raised(power)}"


def _count(n: int) -> str:
    return f"{n} blocks" if n > 1 else "one block"
