"""Where the answer appears: the error after every block, by a linear probe and by the net's own head."""

from __future__ import annotations

from collections.abc import Sequence

from deepskip.figures.colour import shade
from deepskip.figures.labels import clean, label_ends
from deepskip.figures.places import draw_blocks, kind_of, x_blocks
from deepskip.figures.rows import Row, number, numbers, percent
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

_LEFT, _WIDTH, _NAMES = 0.5, 4.6, 1.35
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.7, 0.62


@language()
def error_after_block(rows: Sequence[Row], *, data: str) -> Picture:
    """Return the error (%) after each block: of a linear probe on the stream, and of the net's own head.

    `rows` are `instruments.lens.measure`'s: `lens_probe_error`, `lens_head_error` in percent, with `_low` and
    `_high`, the 95% intervals, which are tinted.
    """
    picture = Picture(
        (_LEFT + _WIDTH + _NAMES, _BOTTOM + _HEIGHT + _TOP),
        title="Where the answer appears",
        caption=_caption(rows, clean(data, 60)),
        alt=_alt(rows, clean(data, 60)),
    )
    axes, kind = panel(picture, _LEFT, _BOTTOM, _WIDTH, _HEIGHT), kind_of(rows)
    heading(axes, "Read after each block", "error (%)")
    y_from_zero([axes], top_percent([*numbers(rows, "lens_probe_high"), *numbers(rows, "lens_head_high")]))
    x_blocks(axes, rows, _WIDTH)
    ends = []
    for field, words, amount, more in (
        ("lens_probe", "linear probe", 0.25, {"ls": (0, (4.5, 2.0)), "marker": "D"}),
        ("lens_head", "own head", 0.9, {"ls": "solid"}),
    ):
        name = f"{words} {percent(_last(rows, f'{field}_error'))}"
        style = {"color": shade(kind, amount), **MARKERS[kind], **more}
        ends += draw_blocks(axes, rows, f"{field}_error", name, style, band=(f"{field}_low", f"{field}_high"))
    label_ends(axes, ends)
    if not ends:
        say_nothing(axes)
    return picture


def _last(rows: Sequence[Row], field: str) -> float | None:
    found = numbers(rows, field)
    return found[-1] if found else None


def _caption(rows: Sequence[Row], data: str) -> str:
    n, fitted = (
        max((int(number(row.get(f)) or 0) for row in rows), default=0) for f in ("lens_n", "lens_fitted")
    )
    return (
        f"Error on {n:,} images of {data} read from the stream after each block: by a linear probe on the mean "
        f"of each channel, fitted on {fitted:,} images, and by the net's own head where it fits. Bands: 95% "
        "intervals."
    )


def _alt(rows: Sequence[Row], data: str) -> str:
    parts = [f"Line chart: error on {data} read after each block."]
    for field, words in (("lens_probe_error", "The linear probe"), ("lens_head_error", "The net's own head")):
        known = [row for row in rows if number(row.get(field)) is not None]
        if known:
            ends = [f"{percent(number(row[field]))} after {clean(row.get('block'), 14)}" for row in known]
            parts.append(f"{words}: {' and '.join(dict.fromkeys((ends[0], ends[-1])))}.")
    return " ".join(parts)
