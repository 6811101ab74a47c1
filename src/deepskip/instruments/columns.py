"""What instruments share about their rows: how a number is written, and what falls from block to block."""

from __future__ import annotations

import math

DIGITS = 6


def short(value: float | None) -> float | None:
    """Return `value` with six significant digits; None where it is no finite number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}")
