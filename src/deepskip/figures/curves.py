"""Error against epoch: of every net of a depth study, as in He et al. 2015, figure 6, and of one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from deepskip.figures.colour import INK, MUTED, shade
from deepskip.figures.labels import End, clean, label_ends
from deepskip.figures.rows import CROSS, Row, depths_of, grouped, kinds_of, number, numbers, percent
from deepskip.figures.style import (
    MARKERS,
    Picture,
    heading,
    language,
    panel,
    say_nothing,
    top_percent,
    x_epochs,
    y_from_zero,
)

_LEFT, _WIDTH, _NAMES = 0.5, 3.1, 1.0
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.75, 0.62
_TITLES = {"plain": "Plain nets", "residual": "Residual nets"}


class _Curve(NamedTuple):
    """One seed's training error at the epochs that have a number, and where it stopped before the others."""

    epochs: list[int]
    errors: list[float]
    stopped: int | None


@language()
def training_curves(rows: Sequence[Row], *, data: str) -> Picture:
    """Return training error (%) against epoch, plain left and residual right, a line per depth.

    `rows` are curve rows: `kind`, `depth`, `seed`, `epoch`, `train_error` in percent, one per epoch and cell.
    A line is the mean over the seeds that finished; its band reaches from the lowest to the highest of them
    (with three seeds that says more than a standard deviation, and it never dips below zero). A seed that
    diverged is a line of its own that ends in a cross. After He et al. 2015, arXiv:1512.03385, figure 6.
    """
    kinds = kinds_of(rows) or ["residual"]
    step = _LEFT + _WIDTH + _NAMES
    picture = Picture(
        (len(kinds) * step, _BOTTOM + _HEIGHT + _TOP),
        title="Training error, epoch by epoch",
        caption=_caption(rows, clean(data, 60)),
        alt=_alt(rows, clean(data, 60)),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(len(kinds))]
    y_from_zero(panels, top_percent(numbers(rows, "train_error")))
    for axes, kind in zip(panels, kinds, strict=True):
        heading(axes, _TITLES[kind], "training error (%)")
        x_epochs(axes, _last(rows))
        _draw_kind(axes, [row for row in rows if row["kind"] == kind], kind, _last(rows))
    return picture


def _draw_kind(axes: Axes, rows: Sequence[Row], kind: str, last: int) -> None:
    depths = depths_of(rows)
    ends: list[End] = []
    for rank, depth in enumerate(depths):
        colour = shade(kind, rank / (len(depths) - 1) if len(depths) > 1 else 0.6)
        cells = grouped((row for row in rows if row["depth"] == depth), lambda row: row["seed"])
        curves = [_curve(cell, last) for cell in cells.values()]
        whole = [curve for curve in curves if curve.stopped is None]
        points = [_draw_stopped(axes, curve, colour) for curve in curves if curve.stopped is not None]
        if whole:
            points = [_draw_mean(axes, whole, kind, colour, order=2 + rank / 100)]
        ends.append(End(*points[0], str(depth), colour, order=depth, stopped=not whole))
    label_ends(axes, ends, reach=0.26, unit="layers")
    if not ends:
        say_nothing(axes)


def _last(rows: Sequence[Row]) -> int:
    return max((int(row["epoch"]) for row in rows), default=1)


def _curve(cell: Sequence[Row], last: int) -> _Curve:
    ordered = sorted(cell, key=lambda row: int(row["epoch"]))
    errors = {int(row["epoch"]): number(row.get("train_error")) for row in ordered}
    known = {epoch: error for epoch, error in errors.items() if error is not None}
    stopped = None if last in known else max(known, default=min(errors))
    return _Curve(list(known), list(known.values()), stopped)


def _draw_mean(
    axes: Axes, curves: Sequence[_Curve], kind: str, colour: str, order: float
) -> tuple[float, float]:
    by_epoch: dict[int, list[float]] = {}
    for curve in curves:
        for epoch, error in zip(curve.epochs, curve.errors, strict=True):
            by_epoch.setdefault(epoch, []).append(error)
    epochs = sorted(by_epoch)
    means = [statistics.fmean(by_epoch[epoch]) for epoch in epochs]
    if len(curves) > 1 and len(epochs) > 1:
        lows, highs = [min(by_epoch[e]) for e in epochs], [max(by_epoch[e]) for e in epochs]
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=order - 1)
    axes.plot(epochs, means, color=colour, zorder=order)
    axes.plot(epochs[-1:], means[-1:], color=colour, clip_on=False, zorder=order + 1, **MARKERS[kind])
    return float(epochs[-1]), means[-1]


def _draw_stopped(axes: Axes, curve: _Curve, colour: str) -> tuple[float, float]:
    x = float(curve.stopped or 1)
    y = curve.errors[-1] if curve.errors else axes.get_ylim()[1]
    axes.plot(curve.epochs, curve.errors, color=colour, linewidth=1.0, zorder=2)
    axes.plot([x], [y], "x", color=colour, markersize=6, markeredgewidth=1.7, clip_on=False, zorder=4)
    return x, y


def _caption(rows: Sequence[Row], data: str) -> str:
    seeds = len({row["seed"] for row in rows})
    band = f"Line: mean of {seeds} seeds; band: lowest to highest seed." if seeds > 1 else "One seed."
    cells = grouped(rows, lambda row: (row["kind"], row["depth"], row["seed"]))
    stopped = any(_curve(cell, _last(rows)).stopped is not None for cell in cells.values())
    note = f" {CROSS}: a seed that diverged, where it stopped; it is not in the mean." if stopped else ""
    return f"Error on the training images of {data} after each epoch, by number of layers. {band}{note}"


def _alt(rows: Sequence[Row], data: str) -> str:
    parts = [f"Line charts: training error against epoch on {data}."]
    for kind in kinds_of(rows):
        final = [row for row in rows if row["kind"] == kind and int(row["epoch"]) == _last(rows)]
        by_depth = {
            depth: numbers((r for r in final if r["depth"] == depth), "train_error")
            for depth in depths_of(final)
        }
        ends = [f"{percent(statistics.fmean(v))} with {depth} layers" for depth, v in by_depth.items() if v]
        parts.append(f"{_TITLES[kind]} end at {', '.join(ends)}." if ends else f"No {kind} net finished.")
    return " ".join(parts)


_RUN_WIDTH, _RUN_HEIGHT, _RUN_NAMES = 1.72, 2.1, 0.86
_RUN_PANELS = {
    ("Error", "% of images"): ("train_error", "val_error"),
    ("Loss", "cross-entropy"): ("train_loss", "val_loss"),
    ("Learning rate", "as scheduled"): ("learning_rate",),
}
_RUN_LINES: dict[str, dict[str, Any]] = {
    "train": {"color": MUTED, "linestyle": (0, (3.5, 1.8)), "linewidth": 1.4},
    "val": {"color": shade("residual", 0.7), "linewidth": 1.9},
    "learning": {"color": INK, "linewidth": 1.4},
}
_RUN_NAMED = {"train": "training", "val": "validation"}


@language()
def run_curves(rows: Sequence[Row]) -> Picture:
    """Return error (%), loss and learning rate of one run against epoch, in three panels.

    `rows` are a run's metrics, one per epoch: `epoch`, `train_error`, `val_error` in percent, `train_loss`,
    `val_loss`, `learning_rate`; missing and null values leave gaps. Training is dashed and validation solid,
    as in He et al. 2015, figure 6.
    """
    rows = sorted(rows, key=lambda row: int(row["epoch"]))
    val = numbers(rows, "val_error")
    end = f" The last validation error is {percent(val[-1])}." if val else ""
    step = _LEFT + _RUN_WIDTH + _RUN_NAMES
    picture = Picture(
        (3 * step, _BOTTOM + _RUN_HEIGHT + _TOP),
        title="The run, epoch by epoch",
        caption="Error, loss and learning rate at each epoch. Dashed: on the training images, as they were "
        "augmented. Solid: on the validation images.",
        alt=f"Three line charts over {len(rows)} epochs: error, loss and learning rate.{end}",
    )
    for i, ((title, measured), fields) in enumerate(_RUN_PANELS.items()):
        axes = panel(picture, _LEFT + i * step, _BOTTOM, _RUN_WIDTH, _RUN_HEIGHT)
        heading(axes, title, measured)
        _draw_run(axes, rows, fields)
    return picture


def _draw_run(axes: Axes, rows: Sequence[Row], fields: Sequence[str]) -> None:
    y_from_zero([axes], max((value for field in fields for value in numbers(rows, field)), default=1.0))
    x_epochs(axes, _last(rows))
    ends: list[End] = []
    for field in fields:
        which = field.split("_")[0]
        points = [(float(row["epoch"]), number(row.get(field))) for row in rows]
        known = [(x, y) for x, y in points if y is not None]
        if not known:
            continue
        x, y = known[-1]
        colour = str(_RUN_LINES[which]["color"])
        axes.plot(
            [x for x, _ in points], [float("nan") if y is None else y for _, y in points], **_RUN_LINES[which]
        )
        axes.plot([x], [y], "o", color=colour, markersize=4.2, clip_on=False)
        ends.append(End(x, y, _RUN_NAMED.get(which, f"{y:.2g}"), colour, stopped=x < _last(rows)))
    label_ends(axes, ends, reach=0.2)
    if not ends:
        say_nothing(axes)
