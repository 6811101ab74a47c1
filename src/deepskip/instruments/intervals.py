"""How sure a share of images is: 95% confidence intervals, in percent."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The normal distribution holds 95% within as many standard deviations."""


def wilson(wrong: int, n: int) -> tuple[float, float]:
    """Return the interval of the share `wrong` of `n` images, in percent (Wilson 1927, JASA 22)."""
    share, spread = wrong / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    reach = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return 100 * max(middle - reach, 0.0), 100 * min(middle + reach, 1.0)


def paired(broken: int, mended: int, n: int) -> tuple[float, float]:
    """Return the interval of how much a share of `n` images grew, in points, when the same ones are seen twice.

    `broken` were right and became wrong, `mended` the other way round. The adjusted interval of Bonett and
    Price 2012 (J. Educ. Behav. Stat. 37): as if two more had been seen, one of each.
    """
    up, down = (broken + 1) / (n + 2), (mended + 1) / (n + 2)
    reach = Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return 100 * max(up - down - reach, -1.0), 100 * min(up - down + reach, 1.0)
