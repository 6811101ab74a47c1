"""A net beside its plain twin, layer by layer from top to bottom, as in He et al. 2015, figure 3."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from deepskip.describe.spec import Shape, Site, Spec
from deepskip.figures import anatomy
from deepskip.figures.anatomy import Hidden, Run, elided
from deepskip.figures.colour import FAINT, INK, MUTED, PAPER, tint
from deepskip.figures.diagram import SKIP, Sheet, width
from deepskip.figures.labels import clean
from deepskip.figures.style import SIZE, SMALL, Picture, language

_FULL = 54  # layers: a net of no more is drawn in full, a deeper one with its alike blocks folded
_MOST_BLOCKS, _MOST_CONVS = 26, 7
_HIGH, _CLOSE, _APART = 0.2, 0.12, 0.27


@dataclass
class _Row:
    """One box, the same in both columns."""

    y: float
    text: str
    stage: int | None
    shape: Shape | None = None
    pool: bool = False


@dataclass
class _Block:
    """What a skip goes over, from row to row."""

    site: Site
    first: int
    last: int
    count: int = 1


@dataclass
class _Layout:
    """Rows and blocks, before anything is drawn."""

    rows: list[_Row] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    y: float = 0.0

    def add(self, text: str, stage: int | None, shape: Shape | None, *, gap: float, pool: bool = False) -> None:
        """Add a row, `gap` below the one before."""
        self.y += (gap + _HIGH) if self.rows else 0.0
        self.rows.append(_Row(self.y, text, stage, shape, pool))


@language()
def twin(spec: Spec) -> Picture:
    """Return the net beside its plain twin: a box for each layer, a curve for each shortcut.

    Nets of up to 54 layers are drawn in full. In deeper ones blocks that are alike are drawn once, "× n"
    beside them, and of more than 26 different ones the middle is left out, with its number. Of a plain net
    the residual one is drawn with shortcuts of option B.
    """
    residual = spec.replace(shortcut="B") if spec.is_plain else spec
    layout = _layout(residual)
    sheet = Sheet()
    nets = {"plain": residual.plain(), "residual": residual}
    heads = {kind: _heading(net) for kind, net in nets.items()}
    wide = max(width(row.text) for row in layout.rows) + 0.2
    step = max(
        wide + (1.0 if any(block.count > 1 for block in layout.blocks) else 0.55),
        *(width(text, SIZE, "bold") + 0.25 for lines in heads.values() for text in lines),
    )
    places = {"plain": 0.0, "residual": step}
    left, right = -wide / 2 - 0.16, step + wide / 2
    _write_shapes(sheet, layout, left, right)
    for kind, x in places.items():
        name, *lines = heads[kind]
        sheet.word(x, -0.78, name, size=SIZE, bold=True)
        for i, line in enumerate(lines):
            sheet.word(x, -0.61 + 0.15 * i, line, colour=MUTED)
        _column(sheet, layout, x, wide, kind, len(spec.stages))
    for block in layout.blocks:
        _skip(sheet, layout, block, places["residual"], wide)
        if block.count > 1:
            _repeat(sheet, layout, block, (wide / 2 + 0.1, right + 0.3))
    _legend(sheet, residual, [block.site for block in layout.blocks], left, layout.y + 0.5)
    folded = " Blocks that are alike are drawn once." if any(b.count > 1 for b in layout.blocks) else ""
    return sheet.picture(
        title=f"{clean(residual.name, 40)} and its plain twin",
        caption="The same layers without and with shortcuts. Solid curves: the identity. Dashed curves: the "
        f"shortcut changes the dimensions, {anatomy.shortcut_words(residual)}.{folded} On the left: the shape, "
        "channels×height×width, from there on.",
        alt=f"Two columns of {spec.layers} layers: {clean(nets['plain'].name, 40)}, and "
        f"{clean(residual.name, 40)}, which has a curved shortcut round each of its "
        f"{sum(len(stage.blocks) for stage in spec.stages)} blocks.",
    )


def _heading(net: Spec) -> list[str]:
    layers, params = anatomy.totals(net).split(" · ")
    return [clean(net.name, 26), layers, params]


def _layout(spec: Spec) -> _Layout:
    layout, shapes = _Layout(), spec.stem_shapes()[1:]
    stem: list[tuple[str, Shape]] = [
        (anatomy.conv_words(conv), shape) for conv, shape in zip(spec.stem.convs, shapes, strict=False)
    ]
    for item in elided(stem, _MOST_CONVS):
        if isinstance(item, Hidden):
            layout.add(f"⋮ {item.count} more layers", None, None, gap=_CLOSE, pool=True)
        else:
            layout.add(item[0], None, item[1], gap=_CLOSE)
    if spec.stem.pool:
        layout.add("3×3 max pool, /2", None, shapes[-1], gap=_CLOSE, pool=True)
    runs = anatomy.runs(spec)
    if spec.layers <= _FULL:
        runs = [Run(run.stage, (site,), 0) for run in runs for site in run.sites]
    at = 0
    for run in elided(runs, _MOST_BLOCKS):
        if isinstance(run, Hidden):
            hidden = sum(len(one.sites) for one in runs[at : at + run.count])
            layout.add(f"⋮ {hidden:,} more blocks", None, None, gap=_APART, pool=True)
        else:
            _add_block(layout, run)
        at += run.count if isinstance(run, Hidden) else 1
    layout.add("average pool", None, Shape(shapes[-1].channels, 1, 1), gap=_APART, pool=True)
    layout.rows[-1].shape = Shape(list(spec.sites())[-1].outputs.channels, 1, 1)
    layout.add(f"linear, {spec.classes}", None, None, gap=_CLOSE)
    return layout


def _add_block(layout: _Layout, run: Run) -> None:
    shape, first = run.site.inputs, len(layout.rows)
    lines: list[tuple[str, Shape]] = []
    for conv in run.site.block.convs:
        shape = shape.shrink(conv.channels, conv.stride)
        lines.append((anatomy.conv_words(conv), shape))
    for i, item in enumerate(elided(lines, _MOST_CONVS)):
        gap = _CLOSE if i else _APART
        if isinstance(item, Hidden):
            layout.add(f"⋮ {item.count} more layers", None, None, gap=gap, pool=True)
        else:
            layout.add(item[0], run.stage, item[1], gap=gap)
    layout.blocks.append(_Block(run.site, first, len(layout.rows) - 1, len(run.sites)))


def _write_shapes(sheet: Sheet, layout: _Layout, left: float, right: float) -> None:
    """Write the height and width left of the row from which on they hold, over a faint line."""
    before = None
    for row in layout.rows:
        size = row.shape and row.shape[1:]
        if row.shape and size != before:
            y = row.y - _HIGH / 2 - 0.04
            sheet.word(left, row.y, str(row.shape), colour=MUTED, anchor="right")
            before = size
            if row is not layout.rows[0]:
                sheet.line([(left - 0.75, y), (left + 0.08, y)], colour=FAINT, head=False)


def _column(sheet: Sheet, layout: _Layout, x: float, wide: float, kind: str, stages: int) -> None:
    sheet.line([(x, -0.24), (x, -_HIGH / 2)])
    for above, row in itertools.pairwise(layout.rows):
        sheet.line([(x, above.y + _HIGH / 2), (x, row.y - _HIGH / 2)])
    for row in layout.rows:
        fill = FAINT if row.stage is None else tint(kind, 0.1 + 0.36 * row.stage / max(stages - 1, 1))
        edge = FAINT if row.text.startswith("⋮") else MUTED
        sheet.box(x, row.y, row.text, wide=wide, high=_HIGH, fill=PAPER if row.pool else fill, edge=edge)


def _skip(sheet: Sheet, layout: _Layout, block: _Block, x: float, wide: float) -> None:
    fork = layout.rows[block.first].y - _HIGH / 2 - 0.115
    join = layout.rows[block.last].y + _HIGH / 2 + 0.075
    out = x + wide / 2 + 0.26
    sheet.skip([(x, fork), (out, fork), (out, join), (x + 0.01, join)], dashed=block.site.changes, radius=0.22,
               thick=1.4)  # fmt: skip


def _repeat(sheet: Sheet, layout: _Layout, block: _Block, places: tuple[float, float]) -> None:
    """Say how often a block stands there: beside a bracket, and beside the skip."""
    near, far = places
    top, bottom = layout.rows[block.first].y - _HIGH / 2, layout.rows[block.last].y + _HIGH / 2
    points = [(near, top), (near + 0.06, top), (near + 0.06, bottom), (near, bottom)]
    sheet.line(points, colour=MUTED, head=False, radius=0.04)
    for x in (near + 0.12, far):
        sheet.word(x, (top + bottom) / 2, f"× {block.count:,}", size=SIZE, bold=True, anchor="left")


def _legend(sheet: Sheet, spec: Spec, sites: list[Site], left: float, y: float) -> None:
    """Name the lines that there are, and what joins shortcut and branch where that is more than a sum."""
    lines = {False: "shortcut: " + ("the identity" if spec.shortcut != "C" else anatomy.shortcut_words(spec))}
    lines[True] = f"dimensions change: {anatomy.shortcut_words(spec)}"
    for dashed in sorted({site.changes for site in sites}):
        sheet.skip([(left - 0.7, y), (left - 0.2, y)], dashed=dashed, thick=1.4, head=False, name="legend")
        sheet.word(left - 0.1, y, lines[dashed], size=SMALL, colour=INK, anchor="left")
        y += 0.19
    if spec.junction.kind != "sum":
        text = f"joined: {anatomy.sum_words(spec)}" + (
            f"; {gate}" if (gate := anatomy.gate_words(spec)) else ""
        )
        sheet.word(left - 0.1, y, text, colour=SKIP, anchor="left")
        y += 0.19
    for words in anatomy.habits(spec):
        sheet.word(left - 0.1, y, words, colour=MUTED, anchor="left")
        y += 0.19
