"""The whole net at a glance: stem, stages as stacked blocks, head, with shapes and parameters."""

from __future__ import annotations

from deepskip.describe import ledger
from deepskip.describe.spec import Shape, Spec
from deepskip.figures import anatomy
from deepskip.figures.anatomy import Hidden, Run, elided
from deepskip.figures.colour import FAINT, MUTED, PAPER, shade, tint
from deepskip.figures.diagram import JOIN, Sheet, width
from deepskip.figures.labels import clean
from deepskip.figures.style import SIZE, SMALL, Picture, language

_MOST_STAGES, _MOST_RUNS, _MOST_CONVS = 12, 4, 7
_LINE, _ARROW, _BAR = 0.165, 0.2, 1.25
_BEHIND = 0.045  # how far a card peeps out behind the one before it


class _Drawing:
    """The sheet, how far down it is filled, and where its columns are."""

    def __init__(self, spec: Spec, runs: list[Run]) -> None:
        self.spec, self.sheet, self.y = spec, Sheet(), 0.0
        self.start = -0.21
        self.kind = "plain" if spec.is_plain else "residual"
        convs = [*spec.stem.convs, *(conv for run in runs for conv in run.site.block.convs)]
        words = [*map(anatomy.conv_words, set(convs)), "3×3 max pool, /2", f"linear, {spec.classes}"]
        self.wide = max(width(text) for text in words) + 0.26
        most = max(len(run.sites) for run in runs)
        self.out = self.wide / 2 + (0.0 if spec.is_plain else 0.26)
        times = width(f"× {most:,}", SIZE + 1, "bold") if most > 1 else 0.0
        cost = ledger.count(spec)
        shapes = ["output", f"{spec.classes} classes", *(str(line.outputs) for line in cost.lines[:-1])]
        names = [clean(stage.id, 16) for stage in spec.stages]
        self.left = -self.wide / 2 - max([0.75, *(width(name, SIZE, "bold") for name in names)]) - 0.2
        self.shape = self.out + times + 0.3
        digits = max(width("parameters"), width(f"{cost.params:,}"))
        self.params = self.shape + max(map(width, shapes)) + digits + 0.3
        self.bar = self.params + 0.1
        self.total = cost.params
        self.largest = 1

    def down(self, far: float = _ARROW) -> None:
        """Go down; the arrow is drawn when it arrives somewhere."""
        self.y += far

    def arrive(self, copies: int = 1) -> None:
        """Draw the arrow from where the last thing ended to here."""
        self.sheet.line([(0, self.start), (0, self.y - _BEHIND * (min(copies, 3) - 1))])

    def card(self, lines: list[str], fill: str, copies: int = 1) -> None:
        """Draw a card of `lines`, with others behind it when there are more."""
        self.down(_BEHIND * (min(copies, 3) - 1))
        self.arrive(copies)
        high = len(lines) * _LINE + 0.1
        middle = self.y + high / 2
        for i in reversed(range(1, min(copies, 3))):
            self.sheet.box(
                _BEHIND * i, middle - _BEHIND * i, "", wide=self.wide, high=high, fill=fill, order=4 - i / 10
            )
        self.sheet.box(0, middle, "", wide=self.wide, high=high, fill=fill)
        for i, line in enumerate(lines):
            self.sheet.word(0, self.y + 0.05 + (i + 0.5) * _LINE, line)
        self.y += high
        self.start = self.y

    def row(self, top: float, name: str, note: str, shape: str, params: int, fill: str) -> None:
        """Write what stands left and right of a part that was drawn from `top` to here."""
        y, sheet = (top + self.y) / 2, self.sheet
        sheet.word(self.left, y - (0.08 if note else 0), name, size=SIZE, bold=True, anchor="left")
        if note:
            sheet.word(self.left, y + 0.08, note, colour=MUTED, anchor="left")
        sheet.word(self.shape, y, shape, anchor="left")
        sheet.word(self.params, y, f"{params:,}", anchor="right")
        if params:
            long = max(_BAR * params / self.largest, 0.012)
            sheet.box(self.bar + long / 2, y, "", wide=long, high=0.14, fill=fill, edge=fill)
            share = 100 * params / max(self.total, 1)
            text = f"{share:.0f}%" if share >= 1 else f"{share:.1f}%" if share >= 0.1 else "< 0.1%"
            sheet.word(self.bar + long + 0.07, y, text, colour=MUTED, anchor="left")

    def rule(self) -> None:
        """Draw a faint line between two parts, leaving the arrow that goes on free."""
        self.down(_ARROW / 2)
        for a, b in ((self.left, -0.12), (0.12, self.bar + _BAR + 0.4)):
            self.sheet.line([(a, self.y), (b, self.y)], colour=FAINT, head=False)


@language()
def whole(spec: Spec) -> Picture:
    """Return the net from stem to head: alike blocks stacked, "× n" beside them, shapes, parameters.

    Of more than 12 stages, or 4 kinds of block in a stage, those in the middle are left out, with their number.
    """
    runs = anatomy.runs(spec)
    drawing, cost = _Drawing(spec, runs), ledger.count(spec)
    stages = [[run for run in runs if run.stage == i] for i in range(len(spec.stages))]
    stem, head = cost.lines[0], cost.lines[-1]
    drawing.largest = max([1, stem.params, head.params, *_bars(stages)])
    _headings(drawing, cost)
    _stem(drawing, stem)
    at = 0
    for item in elided(range(len(stages)), _MOST_STAGES):
        drawing.rule()
        if isinstance(item, Hidden):
            drawing.down(_ARROW / 2)
            hidden = [run for stage in stages[at : at + item.count] for run in stage]
            top = drawing.y
            drawing.card([f"⋮ {item.count} more stages"], PAPER)
            blocks = sum(len(run.sites) for run in hidden)
            drawing.row(top, "…", _blocks(blocks), "", sum(run.params for run in hidden), MUTED)
            at += item.count
        else:
            _stage(drawing, stages[item])
            at += 1
    drawing.rule()
    drawing.down(_ARROW / 2)
    top = drawing.y
    drawing.card(["average pool", f"linear, {spec.classes}"], FAINT)
    drawing.row(top, "head", "", f"{spec.classes} classes", head.params, MUTED)
    _legend(drawing)
    return drawing.sheet.picture(
        title=clean(spec.name, 40),
        caption="From input to output; blocks that are alike are stacked. Shapes: channels×height×width, after "
        "the part. Bars: where the parameters are.",
        alt=f"Diagram of {clean(str(spec), 200)}: stem, {_stages(len(stages))} and head, one below the "
        f"other, with output shapes and parameters; {cost.params:,} parameters in all.",
    )


def _bars(stages: list[list[Run]]) -> list[int]:
    """Return the parameters of each stage that is shown, and of those left out together."""
    sums, found, at = [sum(run.params for run in stage) for stage in stages], [], 0
    for item in elided(sums, _MOST_STAGES):
        many = item.count if isinstance(item, Hidden) else 1
        found.append(sum(sums[at : at + many]))
        at += many
    return found


def _headings(drawing: _Drawing, cost: ledger.Ledger) -> None:
    spec, sheet = drawing.spec, drawing.sheet
    paths = f"2{anatomy.raised(cost.blocks)} paths" if cost.shortcuts else "one path"
    sheet.word(drawing.left, -0.84, clean(spec.name, 40), size=SIZE + 3, bold=True, anchor="left")
    text = f"{anatomy.totals(spec)} · {cost.macs:,} multiply-adds · {paths}"
    sheet.word(drawing.left, -0.61, text, size=SMALL, colour=MUTED, anchor="left")
    sheet.word(drawing.shape, -0.31, "output", colour=MUTED, anchor="left")
    sheet.word(drawing.params, -0.31, "parameters", colour=MUTED, anchor="right")
    sheet.word(0, -0.31, f"input {Shape(*spec.input)}")


def _stem(drawing: _Drawing, line: ledger.Line) -> None:
    spec = drawing.spec
    convs = elided([anatomy.conv_words(conv) for conv in spec.stem.convs], _MOST_CONVS)
    drawing.card([_said(item, "layers") for item in convs], FAINT)
    if spec.stem.pool:
        drawing.down(0.15)
        drawing.card(["3×3 max pool, /2"], PAPER)
    drawing.row(0, "stem", "", str(line.outputs), line.params, MUTED)


def _stage(drawing: _Drawing, runs: list[Run]) -> None:
    spec = drawing.spec
    amount = 0.1 + 0.36 * runs[0].stage / max(len(spec.stages) - 1, 1)
    fill, top, at = tint(drawing.kind, amount), drawing.y, 0
    for item in elided(range(len(runs)), _MOST_RUNS):
        if isinstance(item, Hidden):
            drawing.down()
            hidden = sum(len(run.sites) for run in runs[at : at + item.count])
            drawing.card([f"⋮ {hidden:,} more blocks"], PAPER)
            at += item.count
        else:
            _block(drawing, runs[item], fill)
            at += 1
    count = sum(len(run.sites) for run in runs)
    outputs = str(runs[-1].site.outputs)
    name = clean(spec.stages[runs[0].stage].id, 16)
    params = sum(run.params for run in runs)
    drawing.row(top + 0.1, name, _blocks(count), outputs, params, shade(drawing.kind, amount))


def _block(drawing: _Drawing, run: Run, fill: str) -> None:
    site, sheet = run.site, drawing.sheet
    lines = elided([anatomy.conv_words(conv) for conv in site.block.convs], _MOST_CONVS)
    drawing.down(0.1)
    fork = drawing.y
    drawing.down(0.16)
    drawing.card([_said(item, "layers") for item in lines], fill, len(run.sites))
    middle = drawing.y - (len(lines) * _LINE + 0.1) / 2
    if not drawing.spec.is_plain:
        drawing.down(0.13)
        join = drawing.y + JOIN
        drawing.arrive()
        sheet.join(0, join)
        out = drawing.out + 0.09
        sheet.skip([(0, fork), (out, fork), (out, join), (JOIN, join)], dashed=site.changes, radius=0.2)
        drawing.y += 2 * JOIN
        drawing.start = drawing.y
    if len(run.sites) > 1:
        sheet.word(drawing.out + 0.17, middle, f"× {len(run.sites):,}", size=SIZE + 1, bold=True, anchor="left")


def _legend(drawing: _Drawing) -> None:
    spec, sheet, y = drawing.spec, drawing.sheet, drawing.y + 0.32
    x = drawing.left
    lines = {False: "identity" if spec.shortcut != "C" else anatomy.shortcut_words(spec)}
    lines[True] = f"dimensions change: {anatomy.shortcut_words(spec)}"
    for dashed in sorted({site.changes for site in spec.sites()} if not spec.is_plain else ()):
        sheet.skip([(x, y), (x + 0.45, y)], dashed=dashed, head=False, name="legend")
        sheet.word(x + 0.53, y, lines[dashed], anchor="left")
        y += 0.19
    if spec.junction.kind != "sum" and not spec.is_plain:
        sheet.join(x + 0.225, y)
        gate = anatomy.gate_words(spec)
        sheet.word(x + 0.53, y, anatomy.sum_words(spec) + (f", {gate}" if gate else ""), anchor="left")
        y += 0.19
    for words in anatomy.habits(spec):
        sheet.word(x + (0.0 if spec.is_plain else 0.53), y, words, colour=MUTED, anchor="left")
        y += 0.19


def _said(item: str | Hidden, what: str) -> str:
    return f"⋮ {item.count} more {what}" if isinstance(item, Hidden) else item


def _blocks(count: int) -> str:
    return f"{count:,} block{'s' if count > 1 else ''}"


def _stages(count: int) -> str:
    return f"{count} stage{'s' if count > 1 else ''}"
