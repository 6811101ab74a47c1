"""The page every report is set on: its templates, its style sheet, its numbered figures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import NamedTuple

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from deepskip.figures.style import Picture
from deepskip.reports import words
from deepskip.reports.inline import inline_svg, night_css


class Plate(NamedTuple):
    """A figure as the page sets it: drawn, titled and captioned."""

    title: str
    caption: str
    svg: Markup


def render(template: str, figures: Mapping[str, Figure], **values: object) -> str:
    """Return the page: the template filled with `values`, with the figures inlined in their order.

    Everything is escaped. The page loads nothing, and its own content policy forbids it to run anything.
    """
    plates = [_plate(name, figure, place) for place, (name, figure) in enumerate(figures.items(), 1)]
    night = night_css(plate.svg for plate in plates)
    return _templates().get_template(template).render(plates=plates, css=_css(), night=night, **values)


def _plate(name: str, figure: Figure, place: int) -> Plate:
    picture = figure if isinstance(figure, Picture) else None
    title = picture.title if picture else name
    svg = inline_svg(figure, f"figure{place}", picture.alt if picture else name)
    return Plate(title, picture.caption if picture else "", svg)


@cache
def _css() -> Markup:
    text = resources.files("deepskip.reports").joinpath("page.css").read_text(encoding="utf-8")
    return Markup(text)


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("deepskip.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "whole": words.whole,
        "short": words.short,
        "rounded": words.rounded,
        "ratio": words.ratio,
        "duration": words.duration,
    }
    made.globals["mean_sd"] = words.mean_sd
    return made
