"""Numbers as a reader wants them: grouped, rounded, with their spread and their unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepskip.figures.rows import NONE, Row, number, numbers


def whole(value: object) -> str:
    """Return a whole number with its thousands apart: "1,730,714"."""
    found = number(value)
    return NONE if found is None else f"{found:,.0f}"


def short(value: object) -> str:
    """Return a large number in three digits and a letter: "595 M"."""
    found = number(value)
    if found is None:
        return NONE
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(found) >= size:
            return f"{found / size:.3g} {letter}"
    return f"{found:g}"


def rounded(value: object, decimals: int = 1) -> str:
    """Return a number with this many decimals: "1.4"."""
    found = number(value)
    return NONE if found is None else f"{found:.{decimals}f}"


def mean_sd(mean: object, sd: object, decimals: int = 1) -> str:
    """Return a mean and, where there is one, its standard deviation: "1.4 ± 0.2"."""
    alone = number(mean) is None or number(sd) is None
    return rounded(mean, decimals) if alone else f"{rounded(mean, decimals)} ± {rounded(sd, decimals)}"


def ratio(value: object) -> str:
    """Return a quotient of any size in two digits: "0.83", "14", "2.4·10⁻⁷"."""
    found = number(value)
    if found is None:
        return NONE
    if found == 0 or 1e-2 <= abs(found) < 1e3:
        return f"{found:.2g}" if abs(found) < 100 else f"{found:.0f}"
    digits, exponent = f"{found:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits.removesuffix('.0')}·10{raised}"


def duration(seconds: object) -> str:
    """Return a time in its two largest units: "4.2 s", "4 min 49 s", "2 h 5 min"."""
    found = number(seconds)
    if found is None:
        return NONE
    if found < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def spent(rows: Sequence[Row], verdict: Mapping[str, Any], epochs: int = 0) -> list[str]:
    """Return what a study took, in a few words each; `epochs` is how many there were in all, if counted."""
    seconds = sum(numbers(rows, "seconds"))
    facts = [
        _count(len(rows), "training"),
        _count(int(verdict["seeds"]), "seed"),
        f"{_count(int(verdict['epochs']), 'epoch')} each",
        f"{epochs:,} epochs in all" if epochs else "",
        f"{duration(seconds)} of training" if seconds else "",
    ]
    return [fact for fact in facts if fact]


def _count(many: int, what: str) -> str:
    return f"{many:,} {what}" + ("" if many == 1 else "s")


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level of dotted names and texts, without those that are null."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            found[f"{prefix}{name}"] = ", ".join(map(str, value))
        elif value is not None:
            found[f"{prefix}{name}"] = str(value)
    return {name.replace("_", " "): text for name, text in found.items()}
