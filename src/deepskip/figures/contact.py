"""The contact sheet: the pictures that a data set's findings are about, a row for each finding."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from deepskip.figures.colour import FAINT, INK, MUTED, PAPER, oklch
from deepskip.figures.labels import clean, width
from deepskip.figures.style import SIZE, SMALL, Picture, language, panel

COLOURS = {"error": oklch(0.52, 0.19, 27), "warning": oklch(0.62, 0.14, 65), "note": MUTED}
"""Each severity's colour; its name is written beside, for who cannot tell them apart."""

_CELL, _GAP, _MARGIN, _ACROSS = 0.95, 0.12, 0.2, 8
_HEAD, _LINE, _LINES, _FOOT, _BETWEEN = 0.47, 0.155, 5, 0.24, 0.3
_NAME = 7.0


class Shown(NamedTuple):
    """A picture on the sheet, or why there is none."""

    name: str
    pixels: npt.NDArray[np.uint8] | None
    """uint8 [h, w, 3]."""
    note: str = ""


class Offence(NamedTuple):
    """A finding, with some of the pictures it is about."""

    kind: str
    severity: str
    found: str
    shown: Sequence[Shown]
    total: int
    """How many pictures the finding is about."""
    paired: bool = False
    """Whether the pictures are pairs, each the same picture twice."""


class _Block(NamedTuple):
    """An offence, laid out."""

    offence: Offence
    lines: list[str]
    columns: int


@language()
def contact(name: str, offences: Sequence[Offence]) -> Picture:
    """Return the contact sheet of the data set `name`: what was found, and up to 8 pictures for each finding.

    Pictures keep their shape, and small ones their pixels. Pairs stand on one ground. A picture that cannot be
    read is an empty frame with the reason in it.
    """
    shelves = _shelves([_laid_out(offence) for offence in offences])
    wide = 2 * _MARGIN + _span(_ACROSS)
    high = sum(map(_height, shelves)) + 2 * _MARGIN - _BETWEEN if shelves else 0.7
    pictures = sum(len(offence.shown) for offence in offences)
    picture = Picture(
        (wide, high),
        title=f"What is wrong with {clean(name)}",
        caption="Each finding, the gravest first, with up to eight of the pictures it is about.",
        alt=f"Contact sheet of {name}: {pictures} pictures of {len(offences)} findings. "
        + " ".join(f"{o.severity.capitalize()}, {o.kind}: {o.found}." for o in offences),
    )
    axes = panel(picture, 0, 0, wide, high)
    axes.set_axis_off()
    if not shelves:
        axes.text(_MARGIN, high / 2, f"{clean(name)}: no picture to show", color=MUTED, va="center_baseline")
    top = _MARGIN
    for shelf in shelves:
        left = _MARGIN
        for block in shelf:
            _write(axes, block, left, top)
            _draw(axes, block.offence, left, top + _head(shelf), _cell(shelf))
            left += _span(block.columns) + _GAP
        top += _height(shelf)
    axes.set_xlim(0, wide)  # last, because each picture sets its own
    axes.set_ylim(high, 0)
    return picture


def _span(columns: int) -> float:
    return columns * _CELL + (columns - 1) * _GAP


def _laid_out(offence: Offence) -> _Block:
    """Break what was found into lines as wide as the pictures below it, which are at least two columns."""
    columns = max(2, 2 * math.ceil(len(offence.shown) / 2))
    lines = [""]
    for word in clean(offence.found, 400).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and width(longer) > _span(columns):
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1]} …"]
    return _Block(offence, [_fitted(line, SMALL, _span(columns)) for line in lines], columns)


def _shelves(blocks: Sequence[_Block]) -> list[list[_Block]]:
    """Set blocks side by side as long as there is room, in their order."""
    shelves: list[list[_Block]] = []
    for block in blocks:
        if not shelves or sum(b.columns for b in shelves[-1]) + block.columns > _ACROSS:
            shelves.append([])
        shelves[-1].append(block)
    return shelves


def _head(shelf: Sequence[_Block]) -> float:
    return _HEAD + _LINE * max(len(block.lines) for block in shelf)


def _cell(shelf: Sequence[_Block]) -> float:
    """Return how high the highest picture on a shelf is: all of them stand on one line."""
    return max(_shape(shown)[0] for block in shelf for shown in block.offence.shown)


def _height(shelf: Sequence[_Block]) -> float:
    return _head(shelf) + _cell(shelf) + _FOOT + _BETWEEN


def _shape(shown: Shown) -> tuple[float, float]:
    """Return height and width in inches."""
    if shown.pixels is None:
        return 0.75 * _CELL, _CELL
    high, wide = shown.pixels.shape[:2]
    return _CELL * high / max(high, wide), _CELL * wide / max(high, wide)


def _write(axes: Axes, block: _Block, left: float, top: float) -> None:
    offence = block.offence
    colour = COLOURS[offence.severity]
    axes.text(left, top + 0.09, offence.severity, color=colour, size=SMALL, weight="bold", va="baseline")
    more = offence.total - len(offence.shown)
    if more > 0:
        after = left + width(offence.severity, SMALL, "bold") + 0.08
        axes.text(after, top + 0.09, f"and {more:,} more", color=MUTED, size=SMALL, va="baseline")
    axes.text(left, top + 0.28, offence.kind, weight="bold", size=SIZE + 1, va="baseline")
    for number, line in enumerate(block.lines):
        axes.text(left, top + 0.46 + _LINE * number, line, color=MUTED, size=SMALL, va="baseline")


def _draw(axes: Axes, offence: Offence, left: float, top: float, cell: float) -> None:
    for first in range(0, len(offence.shown) - 1, 2) if offence.paired else ():
        ground = (left + first * (_CELL + _GAP) - 0.045, top - 0.045)
        axes.add_patch(Rectangle(ground, _span(2) + 0.09, cell + _FOOT + 0.045, facecolor=FAINT, alpha=0.6,
                                 linewidth=0, zorder=0))  # fmt: skip
    for column, shown in enumerate(offence.shown):
        x, foot = left + column * (_CELL + _GAP), top + cell
        _draw_picture(axes, shown, x, foot, COLOURS[offence.severity])
        axes.text(x + _CELL / 2, foot + 0.13, _fitted(shown.name, _NAME, _CELL + _GAP - 0.05), size=_NAME,
                  ha="center", va="baseline")  # fmt: skip


def _draw_picture(axes: Axes, shown: Shown, left: float, foot: float, colour: str) -> None:
    high, wide = _shape(shown)
    x = left + (_CELL - wide) / 2
    if shown.pixels is None:
        axes.add_patch(
            Rectangle((x, foot - high), wide, high, facecolor=PAPER, edgecolor=colour, linewidth=0.8)
        )
        reason = "\n".join(textwrap.wrap(clean(shown.note, 60), 16)[:4])
        axes.text(left + _CELL / 2, foot - high / 2, reason, color=colour, size=_NAME, ha="center", va="center",
                  linespacing=1.3)  # fmt: skip
        return
    # Few pixels are shown as what they are; many are made smooth.
    smooth = "nearest" if max(shown.pixels.shape[:2]) <= 64 else "antialiased"
    extent = (x, x + wide, foot, foot - high)
    axes.imshow(shown.pixels, extent=extent, interpolation=smooth, aspect="auto", zorder=2)
    frame = Rectangle(
        (x, foot - high), wide, high, fill=False, edgecolor=INK, alpha=0.25, linewidth=0.5, zorder=3
    )
    axes.add_patch(frame)


def _fitted(text: str, size: float, room: float) -> str:
    """Return as much of the end of `text` as is no wider than `room` inches."""
    text = shown = clean(text, 200)
    while width(shown, size) > room and len(text) > 4:
        text = text[1:]
        shown = f"…{text}"
    return shown
