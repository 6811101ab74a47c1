"""Pictures in the rows of a table: what shape they have, and which numbers are black and white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from deepskip.data.dataset import Pixels
from deepskip.errors import InputError, nearest

SMALLEST = 4
"""Side of the square, in pixels, that fewer features are laid into."""
CHUNK = 1024
"""Rows that are made levels at once, so that little is held in floating point."""

Shape = tuple[int, int, int]
"""Height, width and channels of a picture."""
Range = tuple[float, float]
"""The numbers that are black and white."""
LEVELS = (0.0, 255.0)
"""Black and white in uint8."""


def flattened(given: Any) -> tuple[Any, Shape | None]:
    """Return pictures [n, h, w] or [n, h, w, c] as rows [n, h · w · c], and their shape.

    Anything else is returned as it is, for who checks tables, with None. Raises InputError for arrays of more
    dimensions, and for other than 1 or 3 channels.
    """
    array = np.asarray(given) if isinstance(given, list | tuple) else given
    if getattr(array, "ndim", 2) < 3:
        return given, None
    array = np.asarray(array)
    sides = " × ".join(map(str, array.shape))
    shape = (*array.shape[1:], 1) if array.ndim == 3 else array.shape[1:]
    if len(shape) != 3 or shape[2] not in (1, 3):
        first = len(shape) == 3 and shape[0] in (1, 3)
        raise InputError(
            "X",
            f"an array of {sides}",
            "[n, h, w], [n, h, w, 1], [n, h, w, 3], or rows of these",
            "X.transpose(0, 2, 3, 1), if channels stand before rows" if first else None,
        )
    height, width, channels = shape
    return array.reshape(len(array), math.prod(shape)), (height, width, channels)


def shape_of(wanted: Sequence[int] | str | None, found: Shape | None, features: int) -> Shape:
    """Return the shape of the pictures in rows of `features` numbers.

    `found` is theirs when they came as pictures. `wanted` is (h, w) or (h, w, c); "pad", the smallest square
    with room for features that are no picture; or None, a square, grey or of three channels. Raises InputError
    where they do not go together.
    """
    if isinstance(wanted, str):
        if wanted != "pad":
            raise InputError(
                "image_shape", repr(wanted), "(height, width), 'pad' or None", nearest(wanted, ["pad"])
            )
        side = max(SMALLEST, math.isqrt(features - 1) + 1)
        return found or (side, side, 1)
    if wanted is not None:
        shape = _valid(wanted)
        if found not in (None, shape):
            raise InputError("X", f"pictures of {_words(found)}", f"{_words(shape)}, as image_shape says")
        if math.prod(shape) != features:
            allowed = f"{math.prod(shape)}: image_shape is {_words(shape)}"
            raise InputError("X", f"{features} features", allowed)
        return shape
    if found is not None:
        return found
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if side * side * channels == features:
            return side, side, channels
    raise InputError(
        "X",
        f"{features} features, which are no square picture",
        "h · h or 3 · h · h of them, or an image_shape: (height, width), or 'pad' where they are no picture",
    )


def range_of(given: Sequence[float] | None, rows: npt.NDArray[Any]) -> Range:
    """Return the numbers that are black and white: those given, a type's own, or the extremes of `rows`.

    Raises InputError for two that do not rise, and for others than 0 and 255 beside uint8.
    """
    if given is not None:
        if len(given) != 2 or not -math.inf < given[0] < given[1] < math.inf:
            raise InputError("value_range", given, "two numbers that rise, black and white", (0.0, 1.0))
        if rows.dtype == np.uint8 and tuple(given) != LEVELS:
            raise InputError("value_range", given, "none beside uint8, whose black and white are 0 and 255")
        return float(given[0]), float(given[1])
    if rows.dtype == np.uint8:
        return LEVELS
    if rows.dtype == np.bool_:
        return 0.0, 1.0
    low, high = float(rows.min()), float(rows.max())
    if not math.isfinite(high - low):
        raise InputError("X", f"numbers from {low:g} to {high:g}", "numbers whose difference is one too")
    return low, high if high > low else low + max(1.0, abs(low))


def check_same_numbers(rows: npt.NDArray[Any], span: Range, *, eight_bits: bool) -> None:
    """Refuse numbers of another kind than `span` was taken from, which would be all black or all white.

    `eight_bits` says whether those were uint8; other whole numbers count as these. Raises InputError.
    """
    if rows.dtype == np.uint8 and span != LEVELS:
        low, high = span
        raise InputError("X", "uint8, 0 to 255", f"numbers from {low:g} to {high:g}, as fit had")
    if eight_bits and rows.dtype.kind not in "iu":
        hint = "X.astype('uint8'), if they are 0 to 255"
        raise InputError("X", f"numbers of type {rows.dtype}", "uint8, as fit had", hint)


def to_pixels(rows: npt.NDArray[Any], shape: Shape, span: Range) -> Pixels:
    """Return rows of numbers as pictures, uint8 [n, h, w, c]: the nearest of 256 levels from black to white.

    Numbers beyond the range are black or white; features that are missing for the shape, black.
    """
    count, features = rows.shape
    if rows.dtype == np.uint8 and span == LEVELS and features == math.prod(shape):
        return rows.reshape(count, *shape)
    low, high = span
    pixels = np.zeros((count, math.prod(shape)), np.uint8)
    for start in range(0, count, CHUNK):
        part = rows[start : start + CHUNK].astype(np.float64)
        pixels[start : start + CHUNK, :features] = np.rint(np.clip((part - low) / (high - low), 0, 1) * 255)
    return pixels.reshape(count, *shape)


def _valid(wanted: Sequence[int]) -> Shape:
    try:
        numbers = tuple(int(side) for side in wanted)
    except (TypeError, ValueError):  # no sequence, or not of numbers
        numbers = ()
    height, width, channels = (
        (*numbers, 1) if len(numbers) == 2 else numbers if len(numbers) == 3 else (0, 0, 0)
    )
    if min(height, width) < 1 or channels not in (1, 3):
        allowed = "(height, width), or with a third number, 1 or 3 channels"
        raise InputError("image_shape", wanted, allowed)
    return height, width, channels


def _words(shape: Sequence[int] | None) -> str:
    return " × ".join(map(str, shape or ()))
