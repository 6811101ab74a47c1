"""Pictures of lesions: the error without each block, without several, and with the blocks in another order."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from deepskip.figures.colour import MUTED, shade
from deepskip.figures.labels import End, clean, label_ends
from deepskip.figures.places import kind_of, x_blocks
from deepskip.figures.rows import Row, grouped, number, numbers, percent
from deepskip.figures.style import (
    MARKERS,
    Picture,
    heading,
    language,
    panel,
    say_nothing,
    top_percent,
    y_from_zero,
)

_LEFT, _NAMES = 0.5, 1.1
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.6, 0.62
_WIDTH = 2.9
_DIAMOND: dict[str, Any] = {"marker": "D", "markersize": 5.0}
"""Where dimensions change; in every other way as the net's own marks."""


@language()
def error_without_block(rows: Sequence[Row], *, data: str, twin: Sequence[Row] = ()) -> Picture:
    """Return the error (%) of a net without each of its blocks; a second panel has its plain `twin`'s rows.

    `rows` are `instruments.lesion.measure`'s: `block`, `stage`, `shortcut`, and in percent `lesion_error`,
    `lesion_low`, `lesion_high`, `lesion_intact`. Bars are 95% intervals, diamonds blocks that change the
    dimensions, the line across is the whole net's error. After Veit et al. 2016, arXiv:1605.06431, figure 3.
    """
    nets = [list(net) for net in (rows, twin) if net] or [[]]
    step = _LEFT + _WIDTH + _NAMES
    picture = Picture(
        (len(nets) * step, _BOTTOM + _HEIGHT + _TOP),
        title="What is lost with one block",
        caption=_block_caption(nets, clean(data, 60)),
        alt=_block_alt(nets, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(len(nets))]
    drawn = [value for net in nets for value in numbers(net, "lesion_high") + numbers(net, "lesion_intact")]
    y_from_zero(panels, top_percent(drawn))
    for axes, net in zip(panels, nets, strict=True):
        heading(axes, f"The {kind_of(net)} net", "error without the block (%)")
        x_blocks(axes, net, _WIDTH, "deleted block")
        label_ends(axes, _draw_blocks(axes, net))
        if not numbers(net, "lesion_error"):
            say_nothing(axes)
    return picture


def _draw_blocks(axes: Axes, rows: Sequence[Row]) -> list[End]:
    kind = kind_of(rows)
    colour, intact = shade(kind, 0.62), next(iter(numbers(rows, "lesion_intact")), None)
    small = min(1.0, 9.0 * _WIDTH / max(len(rows), 1))  # neighbours stay apart
    for i, row in enumerate(rows, 1):
        error, low, high = (number(row.get(f"lesion_{name}")) for name in ("error", "low", "high"))
        if error is None:
            continue
        if low is not None and high is not None:
            axes.plot([i, i], [low, high], color=colour, lw=1.1 * small, clip_on=False, zorder=3)
        marker = MARKERS[kind] | (_DIAMOND if row.get("shortcut") in ("pad", "projection") else {})
        marker = marker | {"markersize": max(marker["markersize"] * small, 1.6)}
        axes.plot([i], [error], linestyle="none", color=colour, clip_on=False, zorder=4, **marker)
    if intact is None:
        return []
    axes.axhline(intact, color=MUTED, lw=1.0, ls=(0, (4, 2.5)), zorder=2)
    return [End(len(rows) + 0.7, intact, f"whole net {percent(intact)}", MUTED)]


def _block_caption(nets: Sequence[Sequence[Row]], data: str) -> str:
    n = max((int(row.get("lesion_n") or 0) for net in nets for row in net), default=0)
    nothing = sum(number(row.get("lesion_error")) is None for net in nets for row in net)
    changed = any(row.get("shortcut") in ("pad", "projection") for net in nets for row in net)
    parts = [f"Error on {n:,} images of {data} when one block is deleted; bars: 95% intervals."]
    parts += ["Diamonds: blocks that change the dimensions."] if changed else []
    parts += [f"{nothing} blocks have nothing to stand in their place and no mark."] if nothing else []
    return " ".join([*parts, "After Veit et al. 2016, figure 3."])


def _block_alt(nets: Sequence[Sequence[Row]], data: str) -> str:
    parts = [f"Dot charts: error on {data} without each block."]
    for net in nets:
        found = [(error, row) for row in net if (error := number(row.get("lesion_error"))) is not None]
        if found:
            worst = max(found, key=lambda one: one[0])
            median = statistics.median(error for error, _ in found)
            parts.append(
                f"The {kind_of(net)} net: {percent(number(net[0].get('lesion_intact')))} whole, without one "
                f"of {len(found)} blocks {percent(median)} in the median, at most {percent(worst[0])} "
                f"without {clean(worst[1].get('block'), 14)}."
            )
    return " ".join(parts)


# --- several --------------------------------------------------------------------------------------------------


@language()
def error_of_lesions(deleted: Sequence[Row], shuffled: Sequence[Row], *, data: str) -> Picture:
    """Return the error (%) against the number of deleted blocks, and against how far blocks are out of order.

    `deleted` and `shuffled` are rows of `instruments.lesion`'s `delete` and `shuffle`: `deleted`, `swapped`,
    `tau`, `draw`, `error` and `intact` in percent. Dots are draws; on the left a line joins their means. After
    Veit et al. 2016, arXiv:1605.06431, figure 5.
    """
    step = _LEFT + _WIDTH + _NAMES
    picture = Picture(
        (2 * step, _BOTTOM + _HEIGHT + _TOP),
        title="What is lost with several blocks, or with their order",
        caption=_several_caption(deleted, shuffled, clean(data, 60)),
        alt=_several_alt(deleted, shuffled, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(2)]
    both = [*deleted, *shuffled]
    y_from_zero(panels, top_percent(numbers(both, "error") + numbers(both, "intact")))
    most = max((int(row["deleted"]) for row in deleted), default=1)
    heading(panels[0], "Blocks deleted", "error (%)")
    panels[0].set_xlim(-0.02 * most, most * 1.02)
    panels[0].set_xlabel("deleted blocks")
    panels[0].set_xticks(_ticks(most))
    least = min(numbers(shuffled, "tau"), default=0.0)
    heading(panels[1], "Blocks shuffled", "error (%)")
    panels[1].set_xlim(1 + 0.02 * (1 - least), least - 0.02 * (1 - least) if least < 1 else 0.9)
    panels[1].set_xlabel("Kendall's τ of the new order with the net's own")
    for axes, rows, field in zip(panels, (deleted, shuffled), ("deleted", "tau"), strict=True):
        ends = _draw_draws(axes, rows, field, joined=field == "deleted")
        label_ends(axes, ends)
        if not ends:
            say_nothing(axes)
    return picture


def _ticks(most: int) -> list[int]:
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, most) if most / step <= 6)
    return list(range(0, most + 1, step))


def _draw_draws(axes: Axes, rows: Sequence[Row], field: str, *, joined: bool) -> list[End]:
    colour = shade("residual", 0.62)
    intact = next(iter(numbers(rows, "intact")), None)
    if intact is None:
        return []
    axes.axhline(intact, color=MUTED, lw=1.0, ls=(0, (4, 2.5)), zorder=2)
    ends = [End(axes.get_xlim()[1], intact, f"whole net {percent(intact)}", MUTED)]
    drawn = [row for row in rows if number(row.get(field)) is not None and number(row.get("error")) is not None]
    dots: dict[str, Any] = {"ms": 3.4, "mew": 0, "alpha": 0.75, "clip_on": False, "zorder": 4}
    axes.plot(numbers(drawn, field), numbers(drawn, "error"), "o", color=colour, **dots)
    if joined:
        groups = sorted(grouped(drawn, lambda row: float(row[field])).items())
        means = {0.0: intact} | {count: statistics.fmean(numbers(some, "error")) for count, some in groups}
        axes.plot(list(means), list(means.values()), color=colour, clip_on=False, zorder=3)
        last = max(means)
        ends.append(End(last, means[last], percent(means[last]), colour))
    return ends


def _draws(rows: Sequence[Row]) -> int:
    return len({row.get("draw") for row in rows})


def _several_caption(deleted: Sequence[Row], shuffled: Sequence[Row], data: str) -> str:
    both = [*deleted, *shuffled]
    n = max((int(row.get("n") or 0) for row in both), default=0)
    return (
        f"Error on {n:,} images of {data}. Left: random blocks deleted; dots: {_draws(deleted)} draws, line: "
        f"their mean. Right: random pairs of blocks of one shape swapped, {_draws(shuffled)} draws; "
        "τ is 1 in the net's own order and falls with the pairs that are out of it. After Veit et al. 2016, "
        "figure 5."
    )


def _several_alt(deleted: Sequence[Row], shuffled: Sequence[Row], data: str) -> str:
    parts = [f"Two charts: error on {data} with blocks deleted and with blocks shuffled."]
    for rows, field, words in (
        (deleted, "deleted", "{:.0f} blocks deleted"),
        (shuffled, "swapped", "{:.0f} pairs swapped"),
    ):
        groups = sorted(grouped(rows, lambda row, field=field: row[field]).items())  # type: ignore[misc]
        found = [
            f"{percent(statistics.fmean(numbers(some, 'error')))} with {words.format(x)}" for x, some in groups
        ]
        parts += [f"{', '.join(found)}."] if found else []
    return " ".join(parts)
