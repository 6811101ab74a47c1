"""What a network looks at: pictures with Grad-CAM laid over them, and what each pixel adds to the logit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from deepskip.errors import InputError
from deepskip.figures.colour import INK, MUTED, PAPER, oklch
from deepskip.figures.labels import clean, width
from deepskip.figures.rows import Row, number, percent
from deepskip.figures.style import SIZE, SMALL, Picture, language, panel

_CELL, _GAP, _ACROSS, _MARGIN = 0.92, 0.1, 8, 0.12
_LINE = 0.165
_HEAD, _BETWEEN, _FOOT = 0.3, 0.3, 0.5
_LEFT = 1.28
_FLOOR = 0.12  # of a picture's own colours where its Grad-CAM is zero
_GROUPS = ((True, "Right"), (False, "The surest mistakes"))
_TILES = ("picture", "Grad-CAM", "integrated gradients")
_STEPS = 41
_TINTS = ListedColormap(
    [oklch(0.62 - 0.4 * t, 0.14 * abs(t), 260 if t > 0 else 80) for t in np.linspace(-1, 1, _STEPS)]
)
"""From what speaks against the class, light and yellow, over grey to what speaks for it, dark and blue."""


@language()
def saliency_grid(
    rows: Sequence[Row], pictures: Sequence[npt.NDArray[np.uint8]], classes: Sequence[str]
) -> Picture:
    """Return a column for each row: picture, Grad-CAM and integrated gradients; right ones, then wrong ones.

    `rows` are the saliency instrument's, `pictures` theirs in the same order, uint8 [h, w, 1 or 3], `classes`
    the names that `label` and `predicted` number. Where the Grad-CAM is zero a picture fades to white; the line
    surrounds what is above half of the map's largest value. Integrated gradients are dark and blue where pixels
    speak for the class and light and yellow where against it, up to the 99th percentile of each picture. Raises
    InputError unless there is a picture for each row.
    """
    if len(rows) != len(pictures):
        raise InputError("pictures", len(pictures), f"{len(rows)}, one a row", len(rows))
    shelves = list(_shelves(rows))
    across = max((len(shelf) for _, shelf in shelves), default=0)
    heights = [_height(title) for title, _ in shelves]
    wide = _LEFT + max(across * (_CELL + _GAP), 3.4) + _MARGIN
    high = _MARGIN + sum(heights) + _FOOT if shelves else 0.7
    picture = Picture(
        (wide, high),
        title="What the network looks at",
        caption=_caption(rows),
        alt=_alt(rows, classes),
    )
    axes = panel(picture, 0, 0, wide, high)
    axes.set_axis_off()
    if not shelves:
        axes.text(_MARGIN, high / 2, "no picture", color=MUTED, size=SMALL, va="center_baseline")
    top = _MARGIN
    for (title, shelf), tall in zip(shelves, heights, strict=True):
        _draw_shelf(axes, title, [(rows[i], pictures[i]) for i in shelf], classes, top)
        top += tall
    if shelves:
        _draw_scale(axes, _LEFT, top)
    axes.set_xlim(0, wide)  # last, because each picture sets its own
    axes.set_ylim(high, 0)
    return picture


def _shelves(rows: Sequence[Row]) -> Iterator[tuple[str, list[int]]]:
    """Yield the title and the rows of each line of columns; a line that goes on has no title."""
    for right, title in _GROUPS:
        group = [i for i, row in enumerate(rows) if bool(row["right"]) is right]
        for start in range(0, len(group), _ACROSS):
            yield ("" if start else title), group[start : start + _ACROSS]


def _height(title: str) -> float:
    return (_HEAD if title else 0.0) + 3 * _LINE + len(_TILES) * (_CELL + _GAP) + _BETWEEN


def _draw_shelf(
    axes: Axes,
    title: str,
    shelf: Sequence[tuple[Row, npt.NDArray[np.uint8]]],
    classes: Sequence[str],
    top: float,
) -> None:
    if title:
        axes.text(_MARGIN, top + 0.12, title, weight="bold", size=SIZE + 1, va="baseline")
        top += _HEAD
    names = ("class", "taken for", "confidence")
    for i, name in enumerate(names):
        axes.text(_MARGIN, top + (i + 0.5) * _LINE, name, color=MUTED, size=SMALL, va="center_baseline")
    above = top + len(names) * _LINE + _GAP / 2
    for i, name in enumerate(_TILES):
        middle = above + i * (_CELL + _GAP) + _CELL / 2
        axes.text(_MARGIN, middle, name.replace(" ", "\n"), color=MUTED, size=SMALL, va="center")
    for column, (row, pixels) in enumerate(shelf):
        left = _LEFT + column * (_CELL + _GAP)
        words = (*(_named(row[name], classes) for name in ("label", "predicted")), _sure(row["confidence"]))
        for i, word in enumerate(words):
            weight = "bold" if i == 1 and not row["right"] else "normal"
            axes.text(
                left + _CELL / 2,
                top + (i + 0.5) * _LINE,
                _fitted(word, weight),
                size=SMALL,
                weight=weight,
                ha="center",
                va="center_baseline",
            )
        _draw_column(axes, row, pixels, left, above)


def _draw_column(axes: Axes, row: Row, pixels: npt.NDArray[np.uint8], left: float, top: float) -> None:
    shown = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
    cam = _enlarged(_array(row["grad_cam"]), shown.shape[0], shown.shape[1])
    share = cam / cam.max() if cam.max() > 0 else np.zeros_like(cam)
    kept = (_FLOOR + (1 - _FLOOR) * share)[:, :, None]
    faded = np.rint(shown * kept + 255 * (1 - kept)).astype(np.uint8)
    tiles: list[tuple[npt.NDArray[Any], dict[str, Any]]] = [
        (shown, {}),
        (faded, {}),
        (_levels(_array(row["integrated"])), {"cmap": _TINTS, "vmin": -1, "vmax": 1}),
    ]
    # Few pixels are shown as what they are; many are made smooth.
    smooth = "nearest" if max(shown.shape[:2]) <= 64 else "antialiased"
    for i, (tile, style) in enumerate(tiles):
        upper = top + i * (_CELL + _GAP)
        extent = (left, left + _CELL, upper + _CELL, upper)
        axes.imshow(tile, extent=extent, interpolation=smooth, aspect="auto", zorder=2, **style)
        if i == 1 and share.max() > 0:
            _outline(axes, share, left, upper)
        axes.add_patch(
            Rectangle((left, upper), _CELL, _CELL, fill=False, edgecolor=INK, alpha=0.3, lw=0.5, zorder=4)
        )


def _outline(axes: Axes, share: npt.NDArray[np.float64], left: float, upper: float) -> None:
    high, wide = share.shape
    xs = left + _CELL * (np.arange(wide + 2) - 0.5) / wide
    ys = upper + _CELL * (np.arange(high + 2) - 0.5) / high
    framed = np.pad(share, 1, mode="edge")  # so that a line reaches the edge
    xs, ys = np.clip(xs, left, left + _CELL), np.clip(ys, upper, upper + _CELL)
    for colour, wide_line in ((PAPER, 2.2), (INK, 0.9)):
        axes.contour(xs, ys, framed, levels=[0.5], colors=[colour], linewidths=[wide_line], zorder=3)


def _enlarged(values: npt.NDArray[np.float64], high: int, wide: int) -> npt.NDArray[np.float64]:
    """Return a coarse map at the picture's size, linear between the middles of its cells."""
    lines, columns = values.shape
    xs = (np.arange(wide) + 0.5) * columns / wide - 0.5
    ys = (np.arange(high) + 0.5) * lines / high - 0.5
    across = np.stack([np.interp(xs, np.arange(columns), line) for line in values])
    return np.stack([np.interp(ys, np.arange(lines), column) for column in across.T], axis=1)


def _levels(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return values between -1 and 1, so that the largest few do not leave the others without a difference."""
    top = float(np.percentile(np.abs(values), 99)) or float(np.abs(values).max()) or 1.0
    return np.clip(values / top, -1, 1)


def _array(lines: Sequence[Sequence[object]]) -> npt.NDArray[np.float64]:
    return np.array([[number(value) or 0.0 for value in line] for line in lines], dtype=np.float64)


def _draw_scale(axes: Axes, left: float, top: float) -> None:
    """Say what the colours of integrated gradients mean."""
    start, each, high = left + width("against the class") + 0.1, 0.03, 0.13
    style: dict[str, Any] = {"color": MUTED, "size": SMALL, "va": "center_baseline"}
    axes.text(left, top + high / 2, "against the class", **style)
    extent = (start, start + _STEPS * each, top + high, top)
    # Pixels, as the maps are: a dark page leaves both as they are.
    axes.imshow(np.linspace(-1, 1, _STEPS)[None, :], extent=extent, cmap=_TINTS, aspect="auto", zorder=2)
    axes.text(start + _STEPS * each + 0.1, top + high / 2, "for it", **style)


def _named(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)


def _sure(confidence: object) -> str:
    """Return a confidence in percent; the surest are told apart from certainty, so they are rounded down."""
    share = number(confidence)
    if share is None or share < 0.999:
        return percent(None if share is None else 100 * share, 1)
    return percent(min(math.floor(1e4 * share) / 100, 99.99), 2)


def _fitted(text: str, weight: str) -> str:
    """Return `text`, its middle cut out until it is no wider than a column."""
    for most in range(28, 3, -1):
        shown = clean(text, most)
        if width(shown, SMALL, weight) <= _CELL + _GAP - 0.06:
            break
    return shown


def _caption(rows: Sequence[Row]) -> str:
    places = ", ".join(sorted({clean(row["at"], 40) for row in rows}))
    named = f"Grad-CAM at {places}" if places else "Grad-CAM"
    parts = [f"{named}: a picture keeps its colours where the map speaks for the class that is explained."]
    parts.append("A line surrounds what is above half of the largest value.")
    parts.append("Integrated gradients: what each pixel adds to that class's logit.")
    parts.append("Right ones are drawn at random; wrong ones are those of which the network is surest.")
    return " ".join(parts)


def _alt(rows: Sequence[Row], classes: Sequence[str]) -> str:
    right = sum(bool(row["right"]) for row in rows)
    parts = [f"{right} pictures that the network gets right and {len(rows) - right} that it gets wrong."]
    parts.append("Below each are its Grad-CAM and its integrated gradients.")
    for row in rows:
        if not row["right"]:
            one, other = (clean(_named(row[name], classes)) for name in ("label", "predicted"))
            parts.append(f"{one} taken for {other}.")
    return " ".join(parts)
