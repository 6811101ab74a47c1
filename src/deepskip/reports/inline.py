"""Figures set into a page: no ids that clash, ink in the page's own colour, colours that know the night."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from markupsafe import Markup
from matplotlib.figure import Figure

from deepskip.figures.colour import INK, PAPER, night
from deepskip.figures.style import SMALL, to_svg

_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_VARIABLE = re.compile(r"var\(--c-([0-9a-f]{6}),")
_TYPE = re.compile(r"font-size: ([0-9.]+)px")
_PIXELS_PER_POINT = 4 / 3
_LEAST = 6.75
"""Points (9 pixels) below which no type is shown: on a narrow page a figure scrolls, and a finer one grows."""


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """Return the figure as an `<svg>` to stand inside an HTML page, read aloud as `alt`.

    Every id begins with `name`, which no other figure of that page may have. Ink becomes `currentColor`,
    paper `var(--paper)`, and any other colour a variable that falls back to that colour itself; `night_css`
    says what the variables are on a dark page.
    """
    root = ET.fromstring(to_svg(figure, background="none"))
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in {"metadata", "title", "style"}:
                parent.remove(child)
    needed = {match for element in root.iter() for match in _references(element)}
    for element in root.iter():
        attributes = {_local(key): value for key, value in element.attrib.items()}
        if attributes.get("id") not in needed:
            attributes.pop("id", None)
        element.tag = _local(element.tag)
        element.attrib = {key: _rewritten(key, value, name) for key, value in attributes.items()}
    width = float(root.attrib["width"].removesuffix("pt")) * _PIXELS_PER_POINT
    kept = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt}
    least = width * _LEAST / _smallest_type(root)
    root.attrib = {**kept, "style": f"--natural: {max(width, least):.0f}px; --least: {least:.0f}px"}
    # Serialised by the XML writer, so whatever a class is called, it is text.
    return Markup(ET.tostring(root, encoding="unicode"))


def night_css(drawn: Iterable[str]) -> Markup:
    """Return the CSS declarations that give every colour in these inlined SVGs its value on a dark page."""
    colours = sorted({colour for svg in drawn for colour in _VARIABLE.findall(svg)})
    return Markup("").join(Markup("--c-{}:{};").format(colour, night(f"#{colour}")) for colour in colours)


def _smallest_type(root: ET.Element) -> float:
    sizes = [float(size) for one in root.iter("text") for size in _TYPE.findall(one.get("style", ""))]
    return min(sizes, default=SMALL)


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]


def _references(element: ET.Element) -> list[str]:
    found = [name for value in element.attrib.values() for name in _REFERENCE.findall(value)]
    found += [value[1:] for key, value in element.attrib.items() if _local(key) == "href" and value[:1] == "#"]
    return found


def _rewritten(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "style":
        value = _COLOUR.sub(lambda match: _themed(match[0]), value)
    return _REFERENCE.sub(rf"url(#{name}-\1)", value)


def _themed(colour: str) -> str:
    if colour == INK:
        return "currentColor"
    return f"var(--paper, {colour})" if colour == PAPER else f"var(--c-{colour[1:]}, {colour})"
