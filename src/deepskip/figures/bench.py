"""Every way to run a net beside the others: images a second, and the time of a call."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from deepskip.figures.colour import FAINT, INK, MUTED, shade, tint
from deepskip.figures.labels import clean, width
from deepskip.figures.rows import Row, grouped, number, numbers
from deepskip.figures.style import SMALL, Picture, heading, language, panel, say_nothing

_STEP, _WIDTH, _GAP, _RIGHT = 0.27, 1.75, 0.95, 0.85
_BOTTOM, _BETWEEN, _TOP = 0.15, 0.55, 0.62
_AMOUNT = {"float32": 0.15, "bf16": 0.55, "int8": 0.95}
"""How dark a way's numbers are drawn: the fewer bits, the darker."""


@language()
def speed_of_ways(rows: Sequence[Row], *, net: str, machine: str = "") -> Picture:
    """Return the images a second of each way, a panel for each batch, and below it the time of a call.

    `rows` are `deploy.bench.measure`'s. Ways that could not be run here are left out.
    """
    shown = [row for row in rows if number(row.get("images_per_second")) is not None]
    ways = list(dict.fromkeys(str(row["way"]) for row in shown)) or ["nothing"]
    batches = grouped(shown, lambda row: int(row["batch"])) or {1: []}
    left = max(width(way) for way in ways) + 0.2
    high = _STEP * len(ways)
    wide = left + len(batches) * (_WIDTH + _RIGHT)
    where = f" on {clean(machine, 60)}" if machine else ""
    picture = Picture(
        (wide, _BOTTOM + 2 * high + _BETWEEN + _TOP),
        title=f"Ways to run {clean(net, 40)}",
        caption=f"Images a second of {clean(net, 40)} in each way{where}: the median over rounds in "
        "which the ways take turns, a line from the slowest to the fastest round, and how many times the first "
        "way's that is. Below, the time of one call: a dot where half of the calls are faster, a line to where "
        "95 of 100 are. The fewer bits a way computes in, the darker.",
        alt=_alt(shown, net),
    )
    for i, (batch, some) in enumerate(batches.items()):
        at = left + i * (_WIDTH + _RIGHT)
        upper = panel(picture, at, _BOTTOM + high + _BETWEEN, _WIDTH, high)
        lower = panel(picture, at, _BOTTOM, _WIDTH, high)
        images = "1 image a call" if batch == 1 else f"{batch} images a call"
        heading(upper, images, "images a second")
        heading(lower, "", "milliseconds a call")
        _name_ways((upper, lower), ways, named=i == 0)
        _draw_rates(upper, some, ways)
        _draw_times(lower, some, ways)
    return picture


def _name_ways(panels: Sequence[Axes], ways: Sequence[str], *, named: bool) -> None:
    for axes in panels:
        axes.set_ylim(len(ways) - 0.5, -0.5)
        axes.set_yticks(range(len(ways)), ways if named else [""] * len(ways))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_xticks([])


def _draw_rates(axes: Axes, rows: Sequence[Row], ways: Sequence[str]) -> None:
    axes.set_xlim(0, max([*numbers(rows, "fastest"), *numbers(rows, "images_per_second")], default=1.0))
    for row in rows:
        y, rate = ways.index(str(row["way"])), float(row["images_per_second"])
        amount = _AMOUNT.get(str(row["numbers"]), 0.5)
        axes.barh(y, rate, 0.68, color=tint("residual", 0.2 + 0.6 * amount), linewidth=0)
        ends = numbers([row], "slowest") + numbers([row], "fastest")
        axes.plot(ends, [y] * len(ends), color=shade("residual", 1.0), lw=1.0, solid_capstyle="butt")
        ratio = number(row.get("ratio"))
        text = _short(rate) + ("" if ratio is None else f"  {ratio:.1f}×")
        axes.annotate(text, (max([rate, *ends]), y), (4, 0), "data", "offset points", size=SMALL,
                      va="center_baseline", annotation_clip=False)  # fmt: skip
    if not rows:
        say_nothing(axes)


def _draw_times(axes: Axes, rows: Sequence[Row], ways: Sequence[str]) -> None:
    axes.set_xlim(0, max(numbers(rows, "p95_ms"), default=1.0))
    axes.axvline(0, color=FAINT, lw=0.8, zorder=0)
    for row in rows:
        y = ways.index(str(row["way"]))
        half, most = number(row.get("p50_ms")), number(row.get("p95_ms"))
        if half is None or most is None:
            continue
        colour = shade("residual", _AMOUNT.get(str(row["numbers"]), 0.5))
        axes.plot([half, most], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
        axes.plot([half], [y], "o", color=colour, ms=4.2, mew=0)
        text = f"{_short(half)} · {_short(most)}"
        axes.annotate(text, (most, y), (6, 0), "data", "offset points", size=SMALL, color=MUTED,
                      va="center_baseline", annotation_clip=False)  # fmt: skip
    if not rows:
        say_nothing(axes)


def _short(value: float) -> str:
    """Return three digits of `value`, or all before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _alt(rows: Sequence[Row], net: str) -> str:
    parts = [f"Bars of the images a second of {clean(net, 40)} in each way, and the time of a call."]
    for batch, some in grouped(rows, lambda row: int(row["batch"])).items():
        best = max(some, key=lambda row: float(row["images_per_second"]))
        rate = _short(float(best["images_per_second"]))
        text = f"With {batch} at once the fastest is {best['way']}: {rate} a second"
        ratio = number(best.get("ratio"))
        parts.append(text + ("." if ratio is None else f", {ratio:.1f} times the first."))
    return " ".join(parts)
