"""Pictures of the signal: the response of every layer, and what comes to every junction."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from deepskip.figures.colour import shade
from deepskip.figures.labels import End, clean, label_ends
from deepskip.figures.places import draw_blocks, kind_of, x_blocks
from deepskip.figures.rows import NONE, Row, number, numbers
from deepskip.figures.style import (
    DASHES,
    MARKERS,
    Picture,
    heading,
    language,
    panel,
    say_nothing,
    y_from_zero,
)

_LEFT, _WIDTH, _NAMES = 0.55, 2.9, 1.35
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.6, 0.62


@language()
def response_by_layer(nets: Mapping[str, Sequence[Row]], *, data: str) -> Picture:
    """Return the standard deviation of each layer's response: in the order of the net, and by magnitude.

    `nets` has each net's name and its rows of `instruments.signal.measure`: `response_std`, a list for each
    block, and `shortcut`. After He et al. 2015, arXiv:1512.03385, figure 7.
    """
    found = {name: _responses(rows) for name, rows in nets.items()}
    kinds = {name: kind_of(rows) for name, rows in nets.items()}
    step = _LEFT + _WIDTH + _NAMES
    picture = Picture(
        (2 * step, _BOTTOM + _HEIGHT + _TOP),
        title="How strongly layers respond",
        caption=_response_caption(kinds, clean(data, 60)),
        alt=_response_alt(found, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(2)]
    y_from_zero(panels, max((value for some in found.values() for value in some), default=1.0))
    most = max((len(some) for some in found.values()), default=1)
    titles = {"In the order of the net": "layer", "By magnitude": "layer, the strongest first"}
    for axes, (title, label) in zip(panels, titles.items(), strict=True):
        heading(axes, title, "standard deviation of the response")
        axes.set_xlim(1 - 0.02 * most, most * 1.02 + 0.05)
        ticks = MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]).tick_values(1, max(most, 2))
        shown = [1, *(int(tick) for tick in ticks if 1 + most * 0.08 < tick <= most)]
        axes.set_xticks(shown, [str(tick) for tick in shown])
        axes.set_xlabel(label)
        ends = []
        for name, values in found.items():
            ordered = values if title != "By magnitude" else sorted(values, reverse=True)
            ends += _draw_layers(axes, ordered, clean(name, 16), _style(name, kinds), most)
        label_ends(axes, ends)
        if not ends:
            say_nothing(axes)
    return picture


def _responses(rows: Sequence[Row]) -> list[float]:
    """Return the finite responses of all layers, in order."""
    return [
        value for row in rows for one in row.get("response_std") or [] if (value := number(one)) is not None
    ]


def _style(name: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    kind = kinds[name]
    same = [other for other, its in kinds.items() if its == kind]
    rank = same.index(name) / (len(same) - 1) if len(same) > 1 else 0.62
    return {"color": shade(kind, rank), "ls": DASHES[kind]}


def _draw_layers(axes: Axes, values: Sequence[float], name: str, style: dict[str, Any], most: int) -> list[End]:
    if not values:
        return []
    marker: dict[str, Any] = {"marker": "o", "ms": 2.6, "mew": 0} if len(values) <= 60 else {}
    axes.plot(range(1, len(values) + 1), values, lw=1.2, clip_on=False, zorder=3, **style, **marker)
    return [End(len(values), values[-1], name, style["color"], stopped=len(values) < most)]


def _response_caption(kinds: Mapping[str, str], data: str) -> str:
    dashed = " Dashed: plain nets." if len(set(kinds.values())) > 1 else ""
    return (
        f"Standard deviation of what each layer of the branches answers to images of {data}, after its "
        f"normaliser and before ReLU and addition.{dashed} After He et al. 2015, figure 7."
    )


def _response_alt(found: Mapping[str, Sequence[float]], data: str) -> str:
    parts = [f"Two line charts: the response of each layer on {data}."]
    for name, values in found.items():
        if values:
            parts.append(
                f"{clean(name, 16)}: {len(values)} layers, {statistics.median(values):.2g} in the median, "
                f"{values[0]:.2g} in the first and {values[-1]:.2g} in the last."
            )
    return " ".join(parts)


# --- by block -------------------------------------------------------------------------------------------------


@language()
def rms_by_block(rows: Sequence[Row], *, data: str) -> Picture:
    """Return what comes to each junction by branch and by shortcut, and how strong the stream is after it.

    `rows` are `instruments.signal.measure`'s: `branch_rms`, `shortcut_rms`, `stream_std`.
    """
    step, kind = _LEFT + _WIDTH + _NAMES, kind_of(rows)
    picture = Picture(
        (2 * step, _BOTTOM + _HEIGHT + _TOP),
        title="What blocks add to the stream",
        caption=_block_caption(kind, clean(data, 60)),
        alt=_block_alt(rows, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(2)]
    dark = {"color": shade(kind, 0.9), "ls": "solid", **MARKERS[kind]}
    light = {"color": shade(kind, 0.25), "ls": (0, (4.5, 2.0)), **MARKERS[kind], "marker": "D"}
    heading(panels[0], "What comes to the junction", "root mean square")
    heading(panels[1], "The stream after it", "standard deviation")
    fields = (("branch_rms", "shortcut_rms"), ("stream_std",))
    for axes, some in zip(panels, fields, strict=True):
        y_from_zero([axes], max((value for field in some for value in numbers(rows, field)), default=1.0))
        x_blocks(axes, rows, _WIDTH)
        ends = draw_blocks(axes, rows, some[0], some[0].split("_")[0], dark)
        if len(some) > 1:
            ends += draw_blocks(axes, rows, some[1], some[1].split("_")[0], light)
        label_ends(axes, ends)
        if not ends:
            say_nothing(axes)
    return picture


def _block_caption(kind: str, data: str) -> str:
    what = "branch and by shortcut (dashed)" if kind == "residual" else "branch, of a plain net"
    return (
        f"Left: root mean square of what comes to each junction by {what}, on images of {data}. Right: "
        "standard deviation of what leaves each block. Lines part the stages."
    )


def _block_alt(rows: Sequence[Row], data: str) -> str:
    parts = [f"Two line charts over the blocks on {data}."]
    for field, words in (
        ("branch_rms", "The branch"),
        ("shortcut_rms", "The shortcut"),
        ("stream_std", "The stream"),
    ):
        first, last = (number(rows[i].get(field)) for i in (0, -1)) if rows else (None, None)
        if numbers(rows, field):
            ends = [NONE if end is None else f"{end:.2g}" for end in (first, last)]
            parts.append(f"{words}: {ends[0]} in the first block, {ends[1]} in the last.")
    return " ".join(parts)
