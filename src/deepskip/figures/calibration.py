"""The reliability diagram: how often the net is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from deepskip.figures.colour import MUTED, shade, tint
from deepskip.figures.labels import clean
from deepskip.figures.rows import NONE, Row, number, numbers, percent
from deepskip.figures.style import SMALL, Picture, heading, language, panel, say_nothing

_LEFT, _SIDE, _GAP, _RIGHT = 0.55, 2.6, 0.75, 0.25
_BOTTOM, _STRIP, _BETWEEN, _TOP = 0.55, 0.5, 0.3, 0.62


@language()
def reliability_diagram(rows: Sequence[Row], *, data: str) -> Picture:
    """Return the accuracy of each bin of confidence beside its confidence, before and after scaling.

    `rows` are `instruments.calibration.measure`'s: `scaled`, `temperature`, `low`, `high`, `confidence`,
    `accuracy`, `accuracy_low`, `accuracy_high` in percent, and `n`. Bars below the panels are the bins' images.
    After Guo et al. 2017, arXiv:1706.04599, figures 1 and 4.
    """
    halves = [[row for row in rows if bool(row.get("scaled")) == scaled] for scaled in (False, True)]
    step = _SIDE + _GAP
    picture = Picture(
        (_LEFT + 2 * step - _GAP + _RIGHT, _BOTTOM + _STRIP + _BETWEEN + _SIDE + _TOP),
        title="How sure the net is, and how often right",
        caption=_caption(halves, clean(data, 60)),
        alt=_alt(halves, clean(data, 60)),
    )
    for i, half in enumerate(halves):
        left = _LEFT + i * step
        axes = panel(picture, left, _BOTTOM + _STRIP + _BETWEEN, _SIDE, _SIDE)
        strip = panel(picture, left, _BOTTOM, _SIDE, _STRIP)
        heading(axes, _title(half, scaled=i == 1), _measured(half))
        _draw_bins(axes, half)
        _draw_counts(strip, half)
    return picture


def _title(rows: Sequence[Row], *, scaled: bool) -> str:
    temperature = next(iter(numbers(rows, "temperature")), None)
    if not scaled:
        return "As it is"
    return "Scaled" if temperature is None else f"Divided by T = {temperature:.2f}"


def _measured(rows: Sequence[Row]) -> str:
    error = calibration_error(rows)
    return "right (%)" if error is None else f"right (%); calibration error {percent(error)}"


def calibration_error(rows: Sequence[Row]) -> float | None:
    """Return the expected calibration error of one half's rows, in percent; None without images."""
    known = [
        (int(row["n"]), abs(float(row["accuracy"]) - float(row["confidence"]))) for row in rows if row["n"]
    ]
    return sum(n * gap for n, gap in known) / sum(n for n, _ in known) if known else None


def _draw_bins(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(-1.2, 104)
    axes.set_yticks(range(0, 101, 20), [str(tick) for tick in range(0, 101, 20)])
    axes.set_xticks(range(0, 101, 20), [""] * 6)
    axes.plot([0, 100], [0, 100], color=MUTED, lw=1.0, ls=(0, (4, 2.5)), zorder=2)
    for row in rows:
        low, high, accuracy, confidence = (
            number(row.get(f)) for f in ("low", "high", "accuracy", "confidence")
        )
        if low is None or high is None or accuracy is None or confidence is None:
            continue
        middle, wide = (low + high) / 2, (high - low) * 0.88
        axes.bar(middle, accuracy, wide, color=tint("residual", 0.35), linewidth=0, zorder=1)
        # From what it says to what it is: below the confidence the net is too sure. At 100% still whole.
        marks: dict[str, Any] = {"color": shade("residual", 0.85), "clip_on": False}
        reach = ([confidence] * 2, [confidence, accuracy])
        axes.plot(*reach, color=shade("plain", 0.6), lw=1.6, clip_on=False, zorder=3)
        ends = [number(row.get(f"accuracy_{end}")) for end in ("low", "high")]
        if None not in ends:
            axes.plot([confidence] * 2, ends, lw=0.9, zorder=3.5, **marks)  # type: ignore[arg-type]
        axes.plot([confidence], [accuracy], "o", ms=3.6, mew=0, zorder=4, **marks)
    if calibration_error(rows) is None:
        say_nothing(axes)


def _draw_counts(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20), [str(tick) for tick in range(0, 101, 20)])
    axes.set_xlabel("confidence (%)")
    counts = [int(row.get("n") or 0) for row in rows]
    total = sum(counts)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([])
    for row, count in zip(rows, counts, strict=True):
        if count:
            low, high = float(row["low"]), float(row["high"])
            axes.bar(
                (low + high) / 2,
                count / max(counts),
                (high - low) * 0.88,
                color=shade("residual", 0.4),
                linewidth=0,
            )
    if total:
        text = f"images; {max(counts) / total:.0%} in the largest bin"
        axes.annotate(text, (0, 1), (0, 4), "axes fraction", "offset points", size=SMALL, color=MUTED)


def _caption(halves: Sequence[Sequence[Row]], data: str) -> str:
    n = sum(int(row.get("n") or 0) for row in halves[0])
    return (
        f"{n:,} images of {data} by the confidence of the answer, in 15 bins. Dots: how many are right, with a "
        "95% interval; the line from the diagonal is what the net is too sure, or not sure enough. Right: "
        "logits divided by a temperature fitted on other images. After Guo et al. 2017, figure 4."
    )


def _alt(halves: Sequence[Sequence[Row]], data: str) -> str:
    own, scaled = (calibration_error(half) for half in halves)
    after = NONE if scaled is None else percent(scaled)
    return (
        f"Two reliability diagrams on {data}: the calibration error is {NONE if own is None else percent(own)} "
        f"as the net is, and {after} with its logits divided by a temperature."
    )
