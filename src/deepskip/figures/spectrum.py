"""Pictures of a spectrum study: which ingredient trains how deep a net, where gradients vanish or explode."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from deepskip.figures.colour import FAINT, INK, MUTED, PAPER, heat, shade
from deepskip.figures.depth import places_of, x_depths
from deepskip.figures.labels import End, clean, label_ends, power, width
from deepskip.figures.rows import CROSS, NONE, Row, depths_of, number, percent, spread_of
from deepskip.figures.style import MARKERS, SIZE, SMALL, Picture, heading, language, panel, say_nothing

NAMES = {
    "nothing": ("Nothing special", "plain, PyTorch's values"),
    "initial": ("Initial values", "delta-orthogonal"),
    "norm": ("Batch normalisation", "He's initial values"),
    "skips": ("+ skip connections", "post-activation"),
    "identity": ("+ identity skips", "pre-activation"),
}
"""The ingredients in their order, each with what it is here."""
LECTURES = {"nothing": 10, "initial": 30, "norm": 30, "skips": 100}
"""Past how many layers He's lectures say that an ingredient no longer does."""
_SIGNS = {"diverged": CROSS, "out_of_memory": "no room", "impossible": NONE}
_CELL, _HIGH, _GAP = 0.6, 0.46, 0.12
_TOP, _BOTTOM, _LEFT, _SIDE = 0.42, 0.1, 0.06, 0.16


# --- the spectrum ---------------------------------------------------------------------------------------------


class _Cell(NamedTuple):
    """An ingredient at a depth, over its seeds: the errors of those that ended, what became of others."""

    errors: list[float]
    lost: Counter[str]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.errors) if self.errors else None


@language()
def spectrum_of_depth(
    rows: Sequence[Row], *, data: str, reach: Mapping[str, int | None], below: float
) -> Picture:
    """Return the training error (%) of each ingredient at each depth as cells: dark is trained.

    `rows` are a spectrum study's: `kind`, `depth`, `status`, `train_error` in percent. `reach` says how deep
    each ingredient trains, and is framed; a net trains when its error is under `below` percent. Dots mark the
    depths at which He's lectures change the ingredient.
    """
    kinds, depths, cells = _kinds_of(rows), depths_of(rows), _cells(rows)
    names = max((max(width(one, SIZE, "bold"), width(two)) for one, two in NAMES.values()))
    left = _LEFT + names + _SIDE
    right = _SIDE + width("to 99999 layers", SIZE, "bold") + _LEFT
    wide, high = len(depths) * (_CELL + _GAP), len(kinds) * (_HIGH + _GAP)
    picture = Picture(
        (left + max(wide, 1.6) + right, _BOTTOM + max(high, 1.0) + _TOP),
        title="The spectrum of depth",
        caption=_caption(cells, clean(data, 60), below),
        alt=_alt(cells, kinds, depths, clean(data, 60)),
    )
    axes = panel(picture, left, _BOTTOM, max(wide, 1.6), max(high, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, max(wide, 1.6))  # both axes are in inches
    axes.set_ylim(max(high, 1.0), 0)
    for j, depth in enumerate(depths):
        _write(axes, _middle(j, _CELL), -0.13, str(depth), weight="bold", size=SIZE)
    if depths:
        _write(axes, -_SIDE, -0.13, "layers", color=MUTED, size=SMALL, ha="right")
    for i, kind in enumerate(kinds):
        _name(axes, i, kind)
        for j, depth in enumerate(depths):
            if (kind, depth) in cells:
                _draw_cell(axes, (_GAP / 2 + j * (_CELL + _GAP), _GAP / 2 + i * (_HIGH + _GAP)),
                           cells[kind, depth], below)  # fmt: skip
        _frame(axes, i, depths, reach.get(kind))
        _mark_lectures(axes, i, depths, LECTURES.get(kind))
    if not kinds:
        say_nothing(axes)
    return picture


def _kinds_of(rows: Sequence[Row]) -> list[str]:
    present = {row["kind"] for row in rows}
    return [kind for kind in NAMES if kind in present]


def _cells(rows: Sequence[Row]) -> dict[tuple[str, int], _Cell]:
    found: dict[tuple[str, int], _Cell] = {}
    for row in rows:
        cell = found.setdefault((row["kind"], int(row["depth"])), _Cell([], Counter()))
        error, status = number(row.get("train_error")), str(row.get("status", "ok"))
        if status == "ok" and error is not None:
            cell.errors.append(error)
        else:
            cell.lost["diverged" if status == "ok" else status] += 1
    return found


def _middle(place: int, size: float) -> float:
    return (place + 0.5) * (size + _GAP)


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    axes.text(x, y, text, **{"ha": "center", "va": "center_baseline", "clip_on": False, **style})


def _name(axes: Axes, row: int, kind: str) -> None:
    name, what = NAMES[kind]
    y = _middle(row, _HIGH)
    _write(axes, -_SIDE, y - 0.09, name, ha="right", weight="bold", size=SIZE)
    _write(axes, -_SIDE, y + 0.09, what, ha="right", color=MUTED, size=SMALL)


def _draw_cell(axes: Axes, corner: tuple[float, float], cell: _Cell, below: float) -> None:
    (x, y), mean = corner, cell.mean
    colour, ink = (PAPER, INK) if mean is None else _colours(mean, below)
    box: dict[str, Any] = {"facecolor": colour, "linewidth": 0.0}
    if mean is None:  # not filled: what is behind a hatch would stay white on a dark page
        box = {"fill": False, "hatch": "/////", "edgecolor": FAINT, "linewidth": 0.8}
    axes.add_patch(Rectangle((x, y), _CELL, _HIGH, **box))
    beside = _beside(cell)
    middle = (x + _CELL / 2, y + _HIGH / 2 - (0.07 if beside else 0))
    _write(axes, *middle, _what(cell), color=ink, size=SIZE)
    if beside:
        _write(axes, middle[0], middle[1] + 0.17, beside, color=ink, size=SMALL - 1)


def _colours(error: float, below: float) -> tuple[str, str]:
    """Return a cell's colour and that of its words: dark where a net trains, light where not, with a gap."""
    if error < below:
        return heat(1 - 0.38 * error / below), PAPER
    return heat(0.22 * max(1 - (error - below) / (90 - below), 0.0)), INK


def _what(cell: _Cell) -> str:
    if cell.mean is not None:
        return percent(cell.mean).removesuffix("%")
    return _SIGNS.get(cell.lost.most_common(1)[0][0], "?")


def _beside(cell: _Cell) -> str:
    """Return what stands under a cell's number: how many seeds have no result, or how far seeds lie apart."""
    if cell.mean is None:
        return ""
    if cell.lost:
        return f"{CROSS}{cell.lost.total()}"
    deviation = spread_of(cell.errors)
    return "" if deviation is None else f"± {percent(deviation).removesuffix('%')}"


def _frame(axes: Axes, row: int, depths: Sequence[int], reach: int | None) -> None:
    """Frame the cells of a row up to the depth that it reaches, and say that depth."""
    y, end = row * (_HIGH + _GAP), len(depths) * (_CELL + _GAP)
    many = sum(depth <= reach for depth in depths) if reach is not None else 0
    if many:
        edge = 0.3 * _GAP
        size = (many * (_CELL + _GAP) - 2 * edge, _HIGH + _GAP - 2 * edge)
        axes.add_patch(
            Rectangle((edge, y + edge), *size, fill=False, edgecolor=INK, linewidth=1.6, clip_on=False)
        )
    text, style = (f"to {reach} layers", {"weight": "bold"}) if many else ("none", {"color": MUTED})
    if depths:
        _write(axes, end + _SIDE, _middle(row, _HIGH), text, ha="left", size=SIZE, **style)


def _mark_lectures(axes: Axes, row: int, depths: Sequence[int], past: int | None) -> None:
    if past is None or not depths or not depths[0] <= past < depths[-1]:
        return
    x = sum(depth <= past for depth in depths) * (_CELL + _GAP)
    y = row * (_HIGH + _GAP)
    axes.plot([x, x], [y + 0.02, y + _HIGH + _GAP - 0.02], color=INK, lw=1.8, ls=(0, (0.1, 1.9)),
              dash_capstyle="round", clip_on=False, zorder=5)  # fmt: skip


def _caption(cells: Mapping[tuple[str, int], _Cell], data: str, below: float) -> str:
    parts = [
        f"Training error on {data} in percent, after the last epoch.",
        f"Framed: as deep as an ingredient trains (error under {below:g}% at every depth up to there).",
        "Dots: where He's lectures go on to the next ingredient, past 10, 30 and 100 layers.",
    ]
    seeds = max((len(cell.errors) + cell.lost.total() for cell in cells.values()), default=1)
    parts.append(f"Mean ± standard deviation of {seeds} seeds." if seeds > 1 else "One seed.")
    lost = {status: None for cell in cells.values() if not cell.errors for status in cell.lost}
    parts += [f"{_SIGNS.get(status, '?')}: {status.replace('_', ' ')}." for status in lost]
    if any(cell.errors and cell.lost for cell in cells.values()):
        parts.append(f"{CROSS} and a number below another: seeds without a result, and in no mean.")
    return " ".join(parts)


def _alt(cells: Mapping[tuple[str, int], _Cell], kinds: Sequence[str], depths: Sequence[int], data: str) -> str:
    parts = [f"A grid: training error on {data} by ingredient and number of layers."]
    for kind in kinds:
        found = [(depth, cells[kind, depth]) for depth in depths if (kind, depth) in cells]
        said = [
            f"{percent(cell.mean) if cell.mean is not None else _lost_words(cell)} at {depth}"
            for depth, cell in found
        ]
        parts.append(f"{NAMES[kind][0].removeprefix('+ ').capitalize()}: {', '.join(said)}.")
    return " ".join(parts)


def _lost_words(cell: _Cell) -> str:
    return " or ".join(status.replace("_", " ") for status in cell.lost)


# --- vanishing and exploding ----------------------------------------------------------------------------------

_PANEL, _TALL, _AXIS, _ENDS = 2.75, 2.9, 0.55, 1.15
_PANELS = {
    "gradient": ("Gradient", "norm at the first block / at the last", "grad_first_start", "grad_last_start"),
    "activation": ("Activation", "rms after the last block / the first", "rms_last_start", "rms_first_start"),
}
_LINES: dict[str, tuple[tuple[str, float], dict[str, Any]]] = {
    "nothing": (("plain", 0.05), MARKERS["plain"] | {"markersize": 4.6}),
    "initial": (("plain", 0.5), MARKERS["plain"] | {"markersize": 5.4, "marker": "^"}),
    "norm": (("plain", 1.0), MARKERS["plain"] | {"markersize": 4.8, "marker": "D"}),
    "skips": (("residual", 0.3), MARKERS["residual"]),
    "identity": (("residual", 1.0), MARKERS["residual"] | {"marker": "P", "markersize": 6.0}),
}
_ENDED = {
    "nothing": "nothing",
    "initial": "initial values",
    "norm": "normalisation",
    "skips": "skips",
    "identity": "identity skips",
}


@language()
def signal_against_depth(rows: Sequence[Row], *, data: str) -> Picture:
    """Return what becomes of gradients and activations through untrained nets, against depth, in powers of ten.

    `rows` are a spectrum study's: `kind`, `depth`, and `grad_first_start`, `grad_last_start`, `rms_…` of the
    first and the last block before training. A line is an ingredient, its points medians over seeds; what is
    zero lies on the lower edge, and what is no finite number on the upper one.
    """
    depths = depths_of(rows)
    step = _AXIS + _PANEL + _ENDS
    found = {name: _quotients(rows, over, under) for name, (_, _, over, under) in _PANELS.items()}
    picture = Picture(
        (2 * step, 0.55 + _TALL + 0.62),
        title="Vanishing and exploding, before training",
        caption=_signal_caption(rows, clean(data, 60), found),
        alt=_signal_alt(clean(data, 60), found),
    )
    places = dict(zip(depths, places_of(depths, _PANEL), strict=True))
    low, high = _span([value for lines in found.values() for line in lines.values() for value in line.values()])
    for i, (name, (title, measured, _, _)) in enumerate(_PANELS.items()):
        axes = panel(picture, _AXIS + i * step, 0.55, _PANEL, _TALL)
        heading(axes, title, measured)
        x_depths(axes, places, _PANEL)
        axes.set_ylim(low, high)
        wanted = MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = [int(tick) for tick in wanted if low <= tick <= high]
        axes.set_yticks(ticks, [power(tick) for tick in ticks])
        axes.axhline(0, color=MUTED, linewidth=1.0, zorder=1)
        for place, word in ((0.97, "explodes"), (0.03, "vanishes")):
            axes.text(0.02, place, word, transform=axes.transAxes, color=MUTED, size=SMALL,
                      va="top" if place > 0.5 else "bottom")  # fmt: skip
        ends = [_draw_line(axes, kind, line, places) for kind, line in found[name].items()]
        label_ends(axes, [end for end in ends if end])
        if not ends:
            say_nothing(axes)
    return picture


def _quotients(rows: Sequence[Row], over: str, under: str) -> dict[str, dict[int, float]]:
    """Return, by ingredient and depth, the logarithm of a quotient: -inf for zero, inf for no finite number.

    Where both are zero, nothing is left: that is zero. What was never measured is left out.
    """
    found: dict[str, dict[int, float]] = {}
    for kind in _kinds_of(rows):
        for depth in depths_of(rows):
            own = [row for row in rows if row["kind"] == kind and row["depth"] == depth]
            values = [value for row in own if (value := _quotient(row, over, under)) is not None]
            if values:
                found.setdefault(kind, {})[depth] = statistics.median_low(values)
    return found


def _quotient(row: Row, over: str, under: str) -> float | None:
    one, other = number(row.get(over)), number(row.get(under))
    if one is None or other is None:
        measured = any(number(row.get(column)) is not None for column in ("rms_first_start", "grad_last_start"))
        return math.inf if measured else None
    if one <= 0:
        return -math.inf
    return math.log10(one / other) if other > 0 else math.inf


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Return where the axes begin and end: beyond what is finite, and at least from 10⁻³ to 10³."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min([-3.0, *finite]), max([3.0, *finite])
    room = 0.06 * (high - low)
    return low - room, high + room


def _draw_line(axes: Axes, kind: str, line: Mapping[int, float], places: Mapping[int, float]) -> End | None:
    (family, amount), marker = _LINES[kind]
    colour = shade(family, amount)
    low, high = axes.get_ylim()
    xs = [places[depth] for depth in line]
    ys = [min(max(value, low), high) for value in line.values()]
    axes.plot(xs, ys, color=colour, clip_on=False, zorder=3)
    known = [(x, y) for x, y, value in zip(xs, ys, line.values(), strict=True) if math.isfinite(value)]
    gone = [(x, y) for x, y, value in zip(xs, ys, line.values(), strict=True) if not math.isfinite(value)]
    for points, style in ((known, marker), (gone, {**MARKERS["plain"], "marker": "v", "markersize": 6.0})):
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, ls="none", clip_on=False, zorder=5, **style)
    return End(xs[-1], ys[-1], _ENDED[kind], colour, order=list(_ENDED).index(kind))


def _signal_caption(
    rows: Sequence[Row], data: str, found: Mapping[str, Mapping[str, Mapping[int, float]]]
) -> str:
    values = [value for lines in found.values() for line in lines.values() for value in line.values()]
    parts = [
        f"One batch of {data} through nets as they begin, by number of layers, in powers of ten.",
        "Below 1 a gradient is smaller at the first block than at the last, above 1 larger.",
    ]
    seeds = len({row["seed"] for row in rows})
    parts += [f"Points are medians of {seeds} seeds."] if seeds > 1 else []
    if -math.inf in values:
        parts.append("Triangle on the lower edge: zero, too small for the number format.")
    if math.inf in values:
        parts.append("Triangle on the upper edge: no finite number.")
    return " ".join(parts)


def _signal_alt(data: str, found: Mapping[str, Mapping[str, Mapping[int, float]]]) -> str:
    parts = [f"Two line charts of untrained nets on {data}: gradients and activations against depth."]
    for name, lines in found.items():
        for kind, line in lines.items():
            depth, value = list(line.items())[-1]
            said = "0" if value == -math.inf else "not finite" if value == math.inf else f"{10**value:.1e}"
            parts.append(f"{_PANELS[name][0]}, {_ENDED[kind]}: {said} at {depth} layers.")
    return " ".join(parts)
