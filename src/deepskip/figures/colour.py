"""The colours: warm for plain, cool for residual, darker for deeper, and each one's counterpart at night.

Lightness, chroma and hue are those of OKLCH (Ottosson 2020, https://bottosson.github.io/posts/oklab/), so
equal steps look equal, the ramps keep their order in black and white, and the two hues stay apart for the
colour-blind (orange against blue).
"""

from __future__ import annotations

import math

INK = "#1b1f24"
"""Text and whatever must be read. Where a picture is set into a page, it takes the page's text colour."""
MUTED = "#666d76"
"""Axis names and tick labels: readable (4.5 to 1 and more on white), but second."""
FAINT = "#e3e5e8"
"""Grid lines: there when looked for."""
PAPER = "#ffffff"
"""What is behind the picture. Where a picture is set into a page, it takes the page's background."""

_LIGHT, _DARK = 0.77, 0.36
_HUES = {"plain": (70.0, 32.0), "residual": (228.0, 268.0)}


def oklch(lightness: float, chroma: float, hue: float) -> str:
    """Return "#rrggbb" for lightness 0 to 1, chroma 0 to 0.3 and hue in degrees, greyed until it exists."""
    for step in range(21):
        channels = _linear_rgb(lightness, chroma * (1 - step / 20), hue)
        if all(-1e-4 <= channel <= 1.0001 for channel in channels):
            break
    return "#" + "".join(f"{round(255 * _gamma(min(max(channel, 0.0), 1.0))):02x}" for channel in channels)


def to_oklch(colour: str) -> tuple[float, float, float]:
    """Return the lightness, chroma and hue of "#rrggbb"."""
    red, green, blue = (_ungamma(int(colour[i : i + 2], 16) / 255) for i in (1, 3, 5))
    l, m, s = (  # noqa: E741 - the cone responses are called l, m, s
        math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue),
        math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue),
        math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue),
    )
    a = 1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s
    b = 0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s
    lightness = 0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s
    return lightness, math.hypot(a, b), math.degrees(math.atan2(b, a)) % 360


def shade(kind: str, amount: float) -> str:
    """Return the kind's colour at `amount` from 0 (shallow, light) to 1 (deep, dark), for lines and marks."""
    first, last = _HUES[kind]
    lightness = _LIGHT + (_DARK - _LIGHT) * amount
    return oklch(lightness, 0.145 - 0.02 * abs(2 * amount - 1), first + (last - first) * amount)


def tint(kind: str, amount: float) -> str:
    """Return the kind's colour at `amount` from 0 (next to paper) to 1 (full), for filled areas."""
    first, last = _HUES[kind]
    return oklch(0.955 - 0.5 * amount, 0.025 + 0.13 * amount**0.7, first + (last - first) * amount)


def heat(amount: float) -> str:
    """Return the colour of a heat map at `amount` from 0 (light) to 1 (dark): even steps, in grey as well."""
    return oklch(0.93 - 0.71 * amount, 0.11, 100 + 180 * amount)


def night(colour: str) -> str:
    """Return a colour that does on a dark page what `colour` does on white: same hue, lightness mirrored."""
    lightness, chroma, hue = to_oklch(colour)
    return oklch(min(1.2 - 0.92 * lightness, 0.96), chroma, hue)


def _linear_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3  # noqa: E741
    m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
        -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
        -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
    )


def _gamma(channel: float) -> float:
    return 12.92 * channel if channel <= 0.0031308 else 1.055 * channel ** (1 / 2.4) - 0.055


def _ungamma(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
