"""Final error against depth: the picture that shows whether depth pays, hurts, or is merely spent."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from deepskip.figures.colour import MUTED, shade
from deepskip.figures.labels import End, clean, label_ends, width
from deepskip.figures.rows import CROSS, Row, depths_of, kinds_of, number, numbers, percent, spread_of
from deepskip.figures.style import (
    DASHES,
    MARKERS,
    SMALL,
    Picture,
    heading,
    language,
    panel,
    say_nothing,
    top_percent,
    y_from_zero,
)

_LEFT, _WIDTH, _NAMES = 0.5, 3.05, 1.05
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.75, 0.62
_LOST_ROW = 0.17
_MEASURES = {"train_error": "training error (%)", "val_error": "validation error (%)"}
_TITLES = {"train_error": "On the training images", "val_error": "On held-out images"}
_SIDE = {"plain": -1.0, "residual": 1.0}


@language()
def error_against_depth(rows: Sequence[Row], *, data: str) -> Picture:
    """Return final training error and final validation error (%) against depth, plain and residual on each.

    `rows` are a depth study's: `kind`, `depth`, `seed`, `train_error`, `val_error` in percent, `status`.
    Lines join the means, each seed is a dot beside its mean, bars are ± 1 standard deviation over seeds, and
    trainings that diverged are crosses above. Depths stand at their logarithms, moved apart where their
    labels would touch.
    """
    depths, kinds = depths_of(rows), kinds_of(rows)
    lost = Counter((str(row["kind"]), int(row["depth"])) for row in rows if diverged(row))
    lost_room = 0.12 + _LOST_ROW * len({kind for kind, _ in lost}) if lost else 0.0
    left = _LEFT + (0.25 if lost else 0.0)
    step = left + _WIDTH + _NAMES
    picture = Picture(
        (2 * step, _BOTTOM + _HEIGHT + lost_room + _TOP),
        title="Error against depth",
        caption=_caption(rows, clean(data, 60), bool(lost)),
        alt=_alt(rows, clean(data, 60)),
    )
    panels = [panel(picture, left + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(2)]
    kept = [row for row in rows if not diverged(row)]
    y_from_zero(panels, top_percent([value for field in _MEASURES for value in numbers(kept, field)]))
    places = dict(zip(depths, places_of(depths, _WIDTH), strict=True))
    for axes, (field, measured) in zip(panels, _MEASURES.items(), strict=True):
        heading(axes, _TITLES[field], measured, above=lost_room)
        x_depths(axes, places, _WIDTH)
        _draw_lost(axes, lost, places, untried=_lost_words(rows) != "diverged")
        label_ends(axes, [end for kind in kinds if (end := _draw(axes, kept, kind, field, places))])
        if not rows:
            say_nothing(axes)
    return picture


def diverged(row: Row) -> bool:
    """Return whether this cell of a study has no result: it diverged, or its error is no number."""
    return row.get("status", "ok") != "ok" or number(row.get("train_error")) is None


def _lost_words(rows: Sequence[Row]) -> str:
    """Return why cells have no result: "diverged", or that and other reasons."""
    found = (str(row.get("status", "ok")) for row in rows if diverged(row))
    words = dict.fromkeys("diverged" if word == "ok" else word.replace("_", " ") for word in found)
    return " or ".join(words)


def places_of(depths: Sequence[int], wide: float) -> list[float]:
    """Return each depth's place, 0 to 1: its logarithm, evened out as far as labels in `wide` inches need."""
    if len(depths) < 2:
        return [0.5] * len(depths)
    logs = [math.log(depth) for depth in depths]
    exact = [(value - logs[0]) / (logs[-1] - logs[0]) for value in logs]
    even = [i / (len(depths) - 1) for i in range(len(depths))]
    widths = [width(str(depth)) for depth in depths]
    needed = [(a + b) / 2 / wide + 0.03 for a, b in itertools.pairwise(widths)]
    for percents in range(0, 101, 5):
        mix = percents / 100
        places = [(1 - mix) * a + mix * b for a, b in zip(exact, even, strict=True)]
        gaps = [b - a for a, b in itertools.pairwise(places)]
        if all(gap >= need for gap, need in zip(gaps, needed, strict=True)):
            return places
    return even


def x_depths(axes: Axes, places: Mapping[int, float], wide: float) -> None:
    """Put a tick at every depth, and its number below where `wide` inches have room, the deepest first."""
    axes.set_xlim(-0.05, 1.05)
    axes.set_xlabel("layers")
    shown: list[str] = []
    edge = math.inf
    for depth, place in reversed(list(places.items())):
        half = width(str(depth)) / 2 / wide * 1.1
        fits = place + half < edge
        shown.append(str(depth) if fits else "")
        edge = place - half - 0.012 if fits else edge
    axes.set_xticks(list(places.values()), shown[::-1])


def _draw(axes: Axes, rows: Sequence[Row], kind: str, field: str, places: Mapping[int, float]) -> End | None:
    colour = shade(kind, 0.62)
    means: dict[float, float] = {}
    for depth, place in places.items():
        values = numbers((row for row in rows if row["kind"] == kind and row["depth"] == depth), field)
        if not values:
            continue
        mean, deviation = statistics.fmean(values), spread_of(values)
        means[place] = mean
        if deviation is not None:
            low = max(mean - deviation, 0.0)  # no error is below zero
            axes.plot([place, place], [low, mean + deviation], color=colour, lw=1.1, clip_on=False, zorder=3)
            beside = [place + _SIDE[kind] * 0.024] * len(values)
            axes.plot(beside, values, "o", color=colour, ms=2.8, mew=0, alpha=0.75, clip_on=False, zorder=4)
    if not means:
        return None
    xs, ys = list(means), list(means.values())
    axes.plot(xs, ys, color=colour, linestyle=DASHES[kind], clip_on=False, zorder=3.5)
    axes.plot(xs, ys, color=colour, linestyle="none", clip_on=False, zorder=5, **MARKERS[kind])
    return End(xs[-1], ys[-1], f"{kind} {percent(ys[-1])}", colour, stopped=xs[-1] < max(places.values()))


def _draw_lost(
    axes: Axes, lost: Mapping[tuple[str, int], int], places: Mapping[int, float], *, untried: bool
) -> None:
    """Mark what has no result above the panel, a row per kind: a cross at the depth, how many when several."""
    kinds = sorted({kind for kind, _ in lost})
    for (kind, depth), count in lost.items():
        y = 1 + (0.14 + _LOST_ROW * (len(kinds) - 1 - kinds.index(kind))) / _HEIGHT
        style: dict[str, Any] = {
            "color": shade(kind, 0.62),
            "transform": axes.get_xaxis_transform(),
            "clip_on": False,
        }
        axes.plot([places[depth]], [y], "x", markersize=5, markeredgewidth=1.5, **style)
        if count > 1:
            axes.annotate(str(count), (places[depth], y), (4.5, 0), style["transform"], "offset points",
                          size=SMALL - 1, color=MUTED, va="center_baseline")  # fmt: skip
    if lost:
        middle = 1 + (0.14 + _LOST_ROW * (len(kinds) - 1) / 2) / _HEIGHT
        word = "no result" if untried else "diverged"
        axes.annotate(word, (0, middle), (-6, 0), "axes fraction", "offset points", ha="right",
                      va="center_baseline", size=SMALL, color=MUTED)  # fmt: skip


def _caption(rows: Sequence[Row], data: str, lost: bool) -> str:
    seeds = len({row["seed"] for row in rows})
    several = f"Line: mean of {seeds} seeds; dots: each seed; bars: ± 1 standard deviation."
    note = (
        f" {CROSS}: {_lost_words(rows)}, and in no mean; a number beside it says how many seeds."
        if lost
        else ""
    )
    where = f"Error on {data} after the last epoch, by number of layers (logarithmic)."
    return f"{where} {several if seeds > 1 else 'One seed.'}{note}"


def _alt(rows: Sequence[Row], data: str) -> str:
    parts = [f"Two line charts: final training and validation error against depth on {data}."]
    for kind in kinds_of(rows):
        kept = [row for row in rows if row["kind"] == kind and not diverged(row)]
        parts += [f"Every {kind} net: {_lost_words(rows)}."] if not kept else []
        for field, name in (("train_error", "training"), ("val_error", "validation")):
            by_depth = {d: numbers((r for r in kept if r["depth"] == d), field) for d in depths_of(kept)}
            ends = [f"{percent(statistics.fmean(v))} with {d} layers" for d, v in by_depth.items() if v]
            parts += [f"{kind.capitalize()} nets, {name} error: {', '.join(ends)}."] if ends else []
    return " ".join(parts)
