"""Pictures of an identity study: error before, at and after an insertion; what blocks add, place by place."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from deepskip.figures.colour import shade
from deepskip.figures.labels import End, clean, label_ends
from deepskip.figures.rows import CROSS, KINDS, Row, depths_of, grouped, number, numbers, percent, spread_of
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

_LEFT, _WIDTH, _NAMES = 0.5, 2.9, 1.25
_BOTTOM, _HEIGHT, _TOP = 0.42, 2.85, 0.62
_TITLES = {"residual": "The residual net", "plain": "Its plain twin"}
_MEASURES = ("val", "train")
_MOMENTS = ("trained", "blocks put in", "trained on")
_APART = 0.06  # between neighbouring lines at a moment, in moments


class _Line(NamedTuple):
    """One way to train a net on: its rows, each with the row that it began from."""

    twin: str
    start: str
    rows: list[tuple[Row, Row]]

    @property
    def name(self) -> str:
        return "no blocks" if self.start == "kept" else self.start

    def values(self, measure: str) -> list[list[float]]:
        """Return, for each moment, the errors in percent of the seeds that have one."""
        after = [row for row, _ in self.rows if row.get("status") == "ok"]
        return [
            numbers((first for _, first in self.rows), f"{measure}_scored_end"),
            numbers((row for row, _ in self.rows), f"{measure}_scored_start"),
            numbers(after, f"{measure}_scored_end"),
        ]

    @property
    def lost(self) -> int:
        return sum(row.get("status") != "ok" for row, _ in self.rows)


@language()
def error_at_insertion(rows: Sequence[Row], *, data: str) -> Picture:
    """Return the error (%) of trained nets, the same with new blocks, and trained on; a panel per twin.

    `rows` are an identity study's: `twin`, `start`, `begins` (the hash of the row they began from), `status`,
    `hash`, and `train_scored`, `val_scored` in percent, with `_start` and `_end`. Lines join the means,
    validation solid and training dashed; dots are seeds and bars ± 1 standard deviation over them.
    """
    lines = _lines(rows)
    twins = [twin for twin in _TITLES if any(line.twin == twin for line in lines)] or ["residual"]
    step = _LEFT + _WIDTH + _NAMES
    picture = Picture(
        (len(twins) * step, _BOTTOM + _HEIGHT + _TOP),
        title="New blocks in a trained net",
        caption=_caption(lines, clean(data, 60)),
        alt=_alt(lines, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(len(twins))]
    drawn = [
        value for line in lines for measure in _MEASURES for some in line.values(measure) for value in some
    ]
    y_from_zero(panels, top_percent(drawn))
    for axes, twin in zip(panels, twins, strict=True):
        heading(axes, _TITLES[twin], "error (%); dashed: training")
        axes.set_xlim(-0.2, 2.2)
        axes.set_xticks(range(3), _MOMENTS)
        own = [line for line in lines if line.twin == twin]
        ends = [_draw(axes, line, (i - (len(own) - 1) / 2) * _APART) for i, line in enumerate(own)]
        label_ends(axes, [end for end in ends if end])
        if not own:
            say_nothing(axes)
    return picture


def _lines(rows: Sequence[Row]) -> list[_Line]:
    by_hash = {row.get("hash"): row for row in rows}
    on = [row for row in rows if row.get("start") and row.get("begins") in by_hash and row.get("twin") in KINDS]
    groups = grouped(on, lambda row: (str(row["twin"]), str(row["start"])))
    return [
        _Line(twin, start, [(row, by_hash[row["begins"]]) for row in group])
        for (twin, start), group in groups.items()
    ]


def _colour(line: _Line) -> str:
    deep = {"kept": 0.1, "delta": 0.35, "fresh": 0.68, "silent": 0.75, "zero": 1.0}
    return shade(line.twin, deep.get(line.start, 0.5))


def _draw(axes: Axes, line: _Line, aside: float) -> End | None:
    colour = _colour(line)
    for measure, style in (("train", {"lw": 0.9, "ls": (0, (3.5, 1.8))}), ("val", {"lw": 1.7})):
        means = {
            moment + aside: statistics.fmean(values)
            for moment, values in enumerate(line.values(measure))
            if values
        }
        xs, ys = list(means), list(means.values())
        axes.plot(xs, ys, color=colour, clip_on=False, zorder=3.5, **style)
    for moment, values in enumerate(line.values("val")):
        _draw_seeds(axes, moment + aside, values, colour)
    if not xs:
        return None
    axes.plot(xs, ys, color=colour, linestyle="none", clip_on=False, zorder=5, **MARKERS[line.twin])
    ended = xs[-1] > 1.5
    lost = f" {CROSS}{line.lost}" if line.lost else ""
    text = f"{line.name}{' ' + percent(ys[-1]) if ended else ''}{lost}"
    return End(xs[-1], ys[-1], text, colour, stopped=not ended)


def _draw_seeds(axes: Axes, x: float, values: Sequence[float], colour: str) -> None:
    deviation = spread_of(values)
    if deviation is None:
        return
    mean = statistics.fmean(values)
    low = max(mean - deviation, 0.0)  # no error is below zero
    axes.plot([x, x], [low, mean + deviation], color=colour, lw=1.1, clip_on=False, zorder=3)
    dots: dict[str, Any] = {"ms": 2.4, "mew": 0, "alpha": 0.7, "clip_on": False, "zorder": 4}
    axes.plot([x] * len(values), values, "o", color=colour, **dots)


def _caption(lines: Sequence[_Line], data: str) -> str:
    seeds = max((len(line.rows) for line in lines), default=0)
    layers = sorted({int(first["depth"]) for line in lines for _, first in line.rows})
    blocks = max((int(row.get("blocks") or 0) for line in lines for row, _ in line.rows), default=0)
    nets = f"trained nets of {', '.join(map(str, layers))} layers" if layers else "trained nets"
    what = f"Error on {data} of {nets}, with {blocks} new blocks put in, and trained on."
    how = "Solid: on the validation images; dashed: on the training images."
    several = f"Line: mean of {seeds} seeds; dots: each seed; bars: ± 1 standard deviation."
    lost = f" {CROSS}: seeds without a result, and in no mean." if any(line.lost for line in lines) else ""
    return f"{what} {how} {several if seeds > 1 else 'One seed.'}{lost}"


def _alt(lines: Sequence[_Line], data: str) -> str:
    parts = [f"Line charts: error on {data} of trained nets, with new blocks put in, and trained on."]
    for line in lines:
        means = [percent(statistics.fmean(some)) if some else "no result" for some in line.values("val")]
        parts.append(f"Validation error, {line.twin}, {line.name}: {', '.join(means)}.")
    return " ".join(parts)


# --- what blocks add ------------------------------------------------------------------------------------------

_PLACES = {"start": "Before training", "end": "Trained"}


@language()
def ratio_by_place(rows: Sequence[Row], *, data: str) -> Picture:
    """Return ‖F(x)‖ / ‖x‖ against the place of a block in its net, untrained and trained, a line per depth.

    `rows` are a study's, `ratio_start` and `ratio_end` in the order of the blocks. A line is the mean over
    seeds, its band reaches from the lowest to the highest.
    """
    nets = [row for row in rows if row.get("twin") == "residual" and not row.get("start")]
    depths = depths_of(nets)
    step = _LEFT + _WIDTH + 0.95
    picture = Picture(
        (2 * step, _BOTTOM + 0.13 + _HEIGHT + _TOP),
        title="How far blocks are from the identity",
        caption=_ratio_caption(nets, clean(data, 60)),
        alt=_ratio_alt(nets, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM + 0.13, _WIDTH, _HEIGHT) for i in range(2)]
    found = {(depth, when): _ratios(nets, depth, when) for depth in depths for when in _PLACES}
    y_from_zero(panels, max((max(some) for net in found.values() for some in net.values()), default=1.0))
    for axes, (when, title) in zip(panels, _PLACES.items(), strict=True):
        heading(axes, title, "‖F(x)‖ / ‖x‖ of a block")
        axes.set_xlim(-0.03, 1.03)
        axes.set_xticks([0, 0.5, 1], ["first block", "middle", "last block"])
        ends = []
        for rank, depth in enumerate(depths):
            colour = shade("residual", rank / (len(depths) - 1) if len(depths) > 1 else 0.6)
            ends += _draw_ratios(axes, found[depth, when], depth, colour, order=2 + rank / 100)
        label_ends(axes, ends, reach=0.26, unit="layers")
        if not ends:
            say_nothing(axes)
    return picture


def _ratios(rows: Sequence[Row], depth: int, when: str) -> dict[float, list[float]]:
    """Return the seeds' ratios at each place, 0 to 1, that has any."""
    kept = [row for row in rows if row["depth"] == depth and (when == "start" or row.get("status") == "ok")]
    found: dict[float, list[float]] = {}
    for row in kept:
        ratios = row.get(f"ratio_{when}") or []
        for i, ratio in enumerate(ratios):
            value = number(ratio)
            if value is not None:
                found.setdefault(i / (len(ratios) - 1) if len(ratios) > 1 else 0.5, []).append(value)
    return dict(sorted(found.items()))


def _draw_ratios(
    axes: Axes, places: Mapping[float, list[float]], depth: int, colour: str, order: float
) -> list[End]:
    if not places:
        return []
    xs, ys = list(places), [statistics.fmean(values) for values in places.values()]
    if any(len(values) > 1 for values in places.values()):
        lows, highs = [min(values) for values in places.values()], [max(values) for values in places.values()]
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=order - 1)
    small = {**MARKERS["residual"], "markersize": 3.2}
    axes.plot(xs, ys, color=colour, zorder=order, clip_on=False, **small)
    return [End(xs[-1], ys[-1], str(depth), colour, order=depth)]


def _ratio_caption(rows: Sequence[Row], data: str) -> str:
    seeds = len({row["seed"] for row in rows})
    band = f"Line: mean of {seeds} seeds; band: lowest to highest seed." if seeds > 1 else "One seed."
    return (
        f"What each block of a residual net adds, against what its shortcut brings, on images of {data}; 0 is "
        f"the identity. Each batch's own statistics on both sides. {band}"
    )


def _ratio_alt(rows: Sequence[Row], data: str) -> str:
    parts = [f"Two line charts: the norm of what each block adds over that of its input on {data}."]
    for when, title in _PLACES.items():
        means = {
            depth: statistics.fmean([value for some in places.values() for value in some])
            for depth in depths_of(rows)
            if (places := _ratios(rows, depth, when))
        }
        ends = [f"{mean:.2f} with {depth} layers" for depth, mean in means.items()]
        parts += [f"{title}, the mean over blocks: {', '.join(ends)}."] if ends else []
    return " ".join(parts)
