"""The gallery: figures, each with the function that draws it and the command that made what it shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple

from deepskip.figures.style import Picture
from deepskip.reports.page import render


class Exhibit(NamedTuple):
    """A figure as the gallery shows it."""

    function: Callable[..., Picture]
    """That drew it, of `deepskip.figures`."""
    picture: Picture
    command: str

    @property
    def call(self) -> str:
        """Return how the function is called: "figures.error_after_block(rows, data=…)"."""
        given = [
            f"{name}=…" if one.kind is one.KEYWORD_ONLY else name
            for name, one in inspect.signature(self.function).parameters.items()
        ]
        return f"figures.{self.function.__name__}({', '.join(given)})"


class Section(NamedTuple):
    """Exhibits that belong together."""

    name: str
    exhibits: Sequence[Exhibit]


def gallery_report(sections: Sequence[Section]) -> str:
    """Return the gallery as one self-contained HTML page."""
    shown = [one for section in sections for one in section.exhibits]
    places = iter(range(len(shown)))
    return render(
        "gallery.html",
        {f"figure{i}": one.picture for i, one in enumerate(shown)},
        headline="Every figure, and the command that made it",
        sentences=[],
        sections=[
            {"name": section.name, "exhibits": [(next(places), one) for one in section.exhibits]}
            for section in sections
        ],
        command="python docs/gallery.py --page gallery.html",
    )
