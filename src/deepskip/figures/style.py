"""The one visual language: type, ink, panels, and how a picture becomes a file.

Layout is in inches and is measured in DejaVu Sans, which matplotlib always brings along; an SVG then asks for
the reader's own sans-serif. Those are all narrower, so what does not overlap here does not overlap there.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepskip import files
from deepskip.errors import InputError
from deepskip.figures.colour import FAINT, INK, MUTED, PAPER

FONTS = (
    "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans',"
    " sans-serif"
)
"""What an SVG asks for, first found first."""

SIZE = 9.0
"""Size of ordinary type, in points: 12 pixels on a screen."""
SMALL = 8.0
"""Size of tick labels and notes, in points."""

MARKERS: dict[str, dict[str, Any]] = {
    "plain": {"marker": "s", "markersize": 6.2, "markeredgewidth": 1.3, "markerfacecolor": PAPER},
    "residual": {"marker": "o", "markersize": 4.6, "markeredgewidth": 0.0},
}
"""Plain is a hollow square and residual a full circle, small enough to be seen inside one."""

DASHES: dict[str, Any] = {"plain": (0, (4.5, 2.0)), "residual": "solid"}
"""The line styles, where both kinds share a panel."""

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": SIZE,
    "text.color": INK,
    "text.parse_math": False,  # class names may hold dollar signs
    "text.usetex": False,
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.labelcolor": MUTED,
    "axes.labelsize": SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.8,
    "ytick.major.size": 0.0,
    "ytick.major.pad": 6.0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "figure.facecolor": PAPER,
    "figure.dpi": 100.0,
    "savefig.bbox": None,
    "savefig.facecolor": PAPER,
    "savefig.edgecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "deepskip",
    "path.simplify": True,
}


class Picture(Figure):
    """A matplotlib figure that speaks for itself: its title, its caption, and words for who cannot see it.

    `size` is width and height in inches. Title and caption are not drawn: a page or a README sets them.
    """

    def __init__(self, size: tuple[float, float], *, title: str, caption: str, alt: str) -> None:
        super().__init__(figsize=size)
        self.title, self.caption, self.alt = title, caption, alt


@contextlib.contextmanager
def language() -> Iterator[None]:
    """Set matplotlib's parameters for the time of drawing or writing, and put them back. Also a decorator."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a user's own matplotlibrc must not change our pictures
        matplotlib.rcParams.update(_RC)
        # Names may be in any script. DejaVu only measures them; the reader's own fonts draw them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        yield


def panel(picture: Picture, left: float, bottom: float, width: float, height: float) -> Axes:
    """Return new axes at these inches from the picture's lower left corner."""
    wide, high = picture.get_size_inches()
    return picture.add_axes((left / wide, bottom / high, width / wide, height / high))


def heading(axes: Axes, title: str, measured: str, above: float = 0.0) -> None:
    """Set the panel's title, and below it what the y axis measures, `above` inches higher than usual."""
    up = 72 * above
    axes.annotate(title, (0, 1), (0, 26 + up), "axes fraction", "offset points", weight="bold", size=SIZE + 1)
    axes.annotate(measured, (0, 1), (0, 12 + up), "axes fraction", "offset points", color=MUTED)


def y_from_zero(panels: Sequence[Axes], top: float, room: float = 0.04) -> None:
    """Give the panels one y axis from 0 to `top` (and a little `room`), with few, round ticks."""
    top = top if top > 0 else 1.0
    wanted = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top)
    ticks = [tick for tick in wanted if tick <= top * 1.001]
    for axes in panels:
        axes.set_ylim(-0.012 * top, top * (1 + room))
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])


def x_epochs(axes: Axes, last: int) -> None:
    """Give the panel an x axis over the epochs 1 to `last`, with whole numbers on it."""
    first = 0.5 if last <= 1 else 1.0
    axes.set_xlim(first, last + (0.5 if last <= 1 else 0.0))
    wanted = MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]).tick_values(1, max(last, 1))
    apart = 0.1 * last  # the first and the last epoch are always named, and nothing too close to them
    ticks = sorted({1, last, *(int(tick) for tick in wanted if 1 + apart < tick < last - apart)})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("epoch")


def top_percent(errors: Sequence[float]) -> float:
    """Return where an axis of errors in percent ends: at the largest, or at 100 where that is near."""
    largest = max(errors, default=1.0)
    return 100.0 if largest > 75 else largest


def say_nothing(axes: Axes) -> None:
    """Write into an empty panel that nothing was measured."""
    axes.text(0.5, 0.5, "nothing measured", color=MUTED, size=SMALL, ha="center", transform=axes.transAxes)


def to_svg(figure: Figure, command: str = "", *, background: str = PAPER) -> str:
    """Return the figure as a standalone SVG text: dark on white, the same bytes every time.

    `command` is what made it and goes into the metadata (`dc:source`), beside the title and the words for who
    cannot see it. With `background` "none" whatever is behind the picture shows through.
    """
    metadata: dict[str, Any] = {"Creator": "deepskip", "Date": None, **_words(figure)}
    if command:
        metadata["Source"] = command
    text = io.StringIO()
    with language():
        figure.savefig(text, format="svg", facecolor=background, metadata=metadata)
    drawn = text.getvalue().replace("font-family: 'DejaVu Sans', sans-serif; ", "")
    return drawn.replace("<svg ", f'<svg font-family="{FONTS}" ', 1)


def save(figure: Figure, path: Path, command: str, *, png: bool = False) -> Path:
    """Write `path` as .svg, and beside it as .png (192 dots per inch) if asked; return the .svg's path.

    `path` may end in .svg or .png or have no ending. `command` is what made the figure and goes into the
    metadata. Raises WorkError when the place cannot be written.
    """
    stem = path.with_suffix("") if path.suffix in {".svg", ".png"} else path
    drawn = write(figure, stem.with_name(f"{stem.name}.svg"), command)
    if png:
        write(figure, stem.with_name(f"{stem.name}.png"), command)
    return drawn


def write(figure: Figure, path: Path, command: str = "") -> Path:
    """Write `path`, an .svg or a .png (192 dots per inch), and return it; `command` goes into the metadata.

    Raises InputError for another ending, and WorkError when the place cannot be written.
    """
    if suffix_of(path) == ".svg":
        files.write_text(path, to_svg(figure, command))
    else:
        words = {"Software": "deepskip", "Comment": command, **_words(figure)}
        with files.replacing(path) as beside, language():
            figure.savefig(beside, format="png", dpi=192, metadata=words)
    return path


def suffix_of(path: Path) -> str:
    """Return ".svg" or ".png", whichever `path` ends in. Raises InputError for another ending."""
    if not path.name:
        raise InputError(repr(str(path)), "no file name", "a name that ends in .svg or .png", "net.svg")
    suffix = path.suffix.lower()
    if suffix not in {".svg", ".png"}:
        raise InputError(path, f"the ending {path.suffix!r}", ".svg or .png", path.with_suffix(".svg").name)
    return suffix


def _words(figure: Figure) -> dict[str, str]:
    return {"Title": figure.title, "Description": figure.alt} if isinstance(figure, Picture) else {}
