"""How far blocks are from the identity: what each adds to the stream, and how alike the stream is after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepskip.figures.colour import shade
from deepskip.figures.labels import clean, label_ends
from deepskip.figures.places import draw_blocks, kind_of, x_blocks
from deepskip.figures.rows import Row, numbers
from deepskip.figures.style import MARKERS, Picture, heading, language, panel, say_nothing, y_from_zero

_LEFT, _WIDTH, _NAMES = 0.5, 2.95, 1.2
_BOTTOM, _HEIGHT, _TOP = 0.55, 2.7, 0.62
_DASHED = {"ls": (0, (4.5, 2.0)), "marker": "D"}


@language()
def ratio_by_block(rows: Sequence[Row], *, data: str) -> Picture:
    """Return ‖F(x)‖ / ‖x‖ of each block, and the cosine and linear CKA of its input and output.

    `rows` are `instruments.identity.measure`'s: `ratio`, `cosine`, `cka`.
    """
    step = _LEFT + _WIDTH + _NAMES
    data = clean(data, 60)
    picture = Picture(
        (2 * step, _BOTTOM + _HEIGHT + _TOP),
        title="What each block adds",
        caption="Left: the norm of what a block adds to the stream over that of what its shortcut brings, on "
        f"images of {data}; 0 is the identity. Right: how alike a block's input and output are, 1 where "
        "they are the same, by cosine and by linear CKA (dashed). Each is the mean over images.",
        alt=_alt(rows, data),
    )
    panels = [panel(picture, _LEFT + i * step, _BOTTOM, _WIDTH, _HEIGHT) for i in range(2)]
    kind = kind_of(rows)
    lines: tuple[tuple[str, str, float, dict[str, Any]], ...] = (
        ("ratio", "‖F(x)‖ / ‖x‖", 0.62, {}),
        ("cosine", "cosine", 0.9, {}),
        ("cka", "CKA", 0.25, _DASHED),
    )
    for axes, title, measured, own in (
        (panels[0], "What is added", "‖F(x)‖ / ‖x‖ of a block", lines[:1]),
        (panels[1], "How alike in and out are", "cosine and CKA", lines[1:]),
    ):
        heading(axes, title, measured)
        y_from_zero([axes], max((v for field, *_ in own for v in numbers(rows, field)), default=1.0))
        x_blocks(axes, rows, _WIDTH)
        ends = []
        for field, name, amount, more in own:
            style = {"color": shade(kind, amount), **MARKERS[kind], **more}
            ends += draw_blocks(axes, rows, field, name, style)
        label_ends(axes, ends)
        if not ends:
            say_nothing(axes)
    return picture


def _alt(rows: Sequence[Row], data: str) -> str:
    parts = [f"Two line charts: what each block adds to the stream on {data}, and how alike its two ends are."]
    for field, words in (
        ("ratio", "What is added, over the input"),
        ("cosine", "Cosine"),
        ("cka", "Linear CKA"),
    ):
        found = numbers(rows, field)
        parts += [f"{words}: {min(found):.2f} to {max(found):.2f}."] if found else []
    return " ".join(parts)
