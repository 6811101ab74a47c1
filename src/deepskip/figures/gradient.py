"""The gradient at every block: how long it is, and how alike it is at different images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from deepskip.figures.colour import shade
from deepskip.figures.labels import clean, label_ends
from deepskip.figures.places import draw_blocks, kind_of, x_blocks, y_log
from deepskip.figures.rows import NONE, Row, number, numbers
from deepskip.figures.style import MARKERS, Picture, heading, language, panel, say_nothing

_LEFT, _WIDTH, _NAMES = 0.6, 2.8, 1.05
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.6, 0.62
_MOMENTS = {"": "as it is", "_initial": "at its start"}


@language()
def gradient_by_block(rows: Sequence[Row], *, data: str) -> Picture:
    """Return the norm of each block's gradient, and its correlation across images, trained and at the start.

    `rows` are `instruments.gradient.measure`'s: `grad_norm`, `grad_norm_initial` (drawn on a logarithmic
    scale), `grad_correlation`, `grad_correlation_initial`. After Balduzzi et al. 2017, arXiv:1702.08591.
    """
    step = _LEFT + _WIDTH + _NAMES
    picture = Picture(
        (2 * step, _BOTTOM + _HEIGHT + _TOP),
        title="The gradient at every block",
        caption=_caption(clean(data, 60)),
        alt=_alt(rows, clean(data, 60)),
    )
    norms, alike = (panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(2))
    heading(norms, "How long it is", "norm by the block's parameters")
    y_log(norms, _all(rows, "grad_norm"))
    _draw(norms, rows, "grad_norm", log=True)
    heading(alike, "How alike at different images", "mean cosine of two images")
    _y_cosine(alike, _all(rows, "grad_correlation"))
    _draw(alike, rows, "grad_correlation", log=False)
    return picture


def _all(rows: Sequence[Row], field: str) -> list[float]:
    return [value for end in _MOMENTS for value in numbers(rows, f"{field}{end}")]


def _draw(axes: Axes, rows: Sequence[Row], field: str, *, log: bool) -> None:
    x_blocks(axes, rows, _WIDTH)
    kind = kind_of(rows)
    styles: dict[str, dict[str, Any]] = {
        "": {"color": shade(kind, 0.9), "ls": "solid", **MARKERS[kind]},
        "_initial": {"color": shade(kind, 0.25), "ls": (0, (4.5, 2.0)), **MARKERS[kind], "marker": "D"},
    }
    ends = [
        end
        for moment, words in _MOMENTS.items()
        for end in draw_blocks(axes, rows, f"{field}{moment}", words, styles[moment], log=log)
    ]
    label_ends(axes, ends)
    if not ends:
        say_nothing(axes)


def _y_cosine(axes: Axes, values: Sequence[float]) -> None:
    low, high = min([0.0, *values]), max([0.05, *values])
    axes.set_ylim(low - 0.03 * (high - low), high + 0.04 * (high - low))
    ticks = [
        tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= tick <= high
    ]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def _caption(data: str) -> str:
    return (
        f"Left: norm of the gradient of the mean loss on images of {data} by each block's parameters. Right: "
        "mean cosine between two images' gradients of the summed logits by the block's input; noise has 0. "
        "Dashed: the same net at initial values. After Balduzzi et al. 2017."
    )


def _alt(rows: Sequence[Row], data: str) -> str:
    parts = [f"Two line charts over the blocks on {data}."]
    for field, words in (("grad_norm", "The norm"), ("grad_correlation", "The mean cosine")):
        for moment, when in _MOMENTS.items():
            if numbers(rows, f"{field}{moment}"):
                ends = [number(rows[i].get(f"{field}{moment}")) for i in (0, -1)]
                first, last = (NONE if end is None else f"{end:.2g}" for end in ends)
                parts.append(f"{words}, {when}: {first} in the first block, {last} in the last.")
    return " ".join(parts)
