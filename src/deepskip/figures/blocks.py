"""One block, large: the skip connection as an idea, the identity and the convolution block in every detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from deepskip.describe.spec import ARRANGEMENTS, Shape, Site, Spec
from deepskip.figures import anatomy
from deepskip.figures.anatomy import Group, Hidden, Layer, elided
from deepskip.figures.colour import FAINT, MUTED, PAPER, tint
from deepskip.figures.diagram import JOIN, SKIP, Sheet, width
from deepskip.figures.labels import clean
from deepskip.figures.style import SIZE, SMALL, Picture, language

_FILL = {"conv": tint("residual", 0.3), "norm": tint("residual", 0.1), "relu": PAPER, "other": FAINT}
_HIGH, _ARROW = 0.25, 0.36
_MOST = 7  # convolutions of a branch that are drawn; the middle of a longer one is left out


class _Lane(NamedTuple):
    """Where boxes stand one below the other."""

    x: float
    wide: float


@language()
def skip_connection(spec: Spec, site: Site) -> Picture:
    """Return `site` as the idea of a skip connection: a^[l], layers, ⊕ with the x that jumped, a^[l + n].

    Normalisers are left out, as in He et al. 2015, arXiv:1512.03385, figure 2; there are as many layers and
    ReLUs as the block has, in its own order.
    """
    sheet, size = Sheet(), SIZE + 1
    lane = _Lane(0, 1.45)
    arrangement, n = ARRANGEMENTS[spec.order], len(site.block.convs)
    sheet.power(0, 0, "a", "[l]", size=size + 2)
    y = 0.13
    if shared := bool(anatomy.before(spec, site)):  # what jumps is not the input itself
        sheet.line([(0, y), (0, y + 0.22)])
        sheet.box(0, y + 0.37, "ReLU", wide=0.8, high=0.3, size=size)
        y += 0.52
    else:
        sheet.word(0.06 + width("[l]", size), 0.01, "= x", size=size, anchor="left", italic=True)
    fork = y + 0.2
    sheet.line([(0, y), (0, fork + 0.28)])
    top = y = fork + 0.28
    signs: list[str | Hidden] = []
    for i, item in enumerate(elided(range(n), _MOST)):
        if isinstance(item, Hidden):
            signs.append(item)
        else:
            order = (arrangement.last if item == n - 1 else arrangement.each).replace("n", "")
            signs += order.removeprefix("r") if shared and i == 0 else order
    for j, sign in enumerate(signs):
        if j:
            sheet.line([(0, y), (0, y + 0.2)])
            y += 0.2
        text = f"⋮ {sign.count} more" if isinstance(sign, Hidden) else {"c": "weight layer", "r": "ReLU"}[sign]
        kind = {"c": "conv", "r": "relu"}.get(str(sign), "other")
        sheet.box(
            0, y + 0.15, text, wide=lane.wide if kind != "relu" else 0.8, high=0.3, fill=_FILL[kind], size=size
        )
        y += 0.3
    low, y = y, y + 0.3
    join = y + JOIN
    sheet.line([(0, low), (0, y)])
    sheet.join(0, join)
    sheet.word(-0.2, join, anatomy.sum_words(spec, _jumped(site)), size=size, anchor="right", italic=True)
    _brace(sheet, -lane.wide / 2 - 0.12, top, low)
    sheet.word(-lane.wide / 2 - 0.28, (top + low) / 2, "F(x)", size=size, anchor="right", italic=True)
    out = lane.wide / 2 + 0.5
    sheet.skip([(0, fork), (out, fork), (out, join), (JOIN, join)], radius=0.5, thick=2.2, dashed=site.changes)
    sheet.word(out + 0.12, (fork + join) / 2 - 0.09, _jumped(site), size=size, anchor="left", italic=True)
    sheet.word(
        out + 0.12, (fork + join) / 2 + 0.09, _SHORTCUTS[site.shortcut], size=SMALL, colour=MUTED, anchor="left"
    )
    y = join + JOIN
    if "r" in arrangement.after:
        sheet.line([(0, y), (0, y + 0.22)])
        sheet.box(0, y + 0.37, "ReLU", wide=0.8, high=0.3, size=size)
        y += 0.52
    sheet.line([(0, y), (0, y + 0.3)])
    sheet.power(0, y + 0.43, "a", f"[l+{n}]", size=size + 2)
    if words := anatomy.gate_words(spec):
        sheet.word(0, y + 0.72, words, colour=MUTED)
    return sheet.picture(
        title=f"A skip connection of {clean(spec.name, 40)}",
        caption=f"The input x jumps over {_layers(n)} and is added to what they make of it, so they only have "
        f"to learn the residual F(x). Block {_place(site)}; normalisers are left out.",
        alt=f"Diagram: a[l] goes through {_layers(n)} and past them, by a curved line labelled "
        f"{_SHORTCUTS[site.shortcut]}; both meet in a circled plus, {anatomy.sum_words(spec, _jumped(site))}, "
        f"and go on as a[l+{n}].",
    )


@language()
def block(spec: Spec, site: Site) -> Picture:
    """Return `site` layer by layer, in the Spec's own order, with the shape of every tensor and its shortcut.

    After He et al. 2015, figure 5, and He et al. 2016, arXiv:1603.05027, figure 4.
    """
    sheet = Sheet()
    groups = elided(anatomy.branch(spec, site), _MOST)
    before, after = anatomy.before(spec, site), anatomy.after(spec, site.outputs.channels)
    jump, n = anatomy.shortcut(spec, site), len(site.block.convs)
    shown = [layer for group in groups if isinstance(group, Group) for layer in group.layers]
    trunk = _Lane(0, _wide([*before, *shown, *after]))
    side = (
        _Lane(trunk.wide / 2 + 0.42 + _wide(jump) / 2, _wide(jump)) if jump else _Lane(trunk.wide / 2 + 0.42, 0)
    )
    sheet.power(-0.02, 0, "a", "[l]", size=SIZE + 2)
    y = _arrow(sheet, 0.13, site.inputs, room=0.0 if before else 0.12)
    if before:
        y = _arrow(sheet, _stack(sheet, trunk, y, before), site.inputs, room=0.12)
    fork = y - 0.2 - 0.12
    high = sum(0.24 if isinstance(item, Hidden) else _room(item.layers) + _ARROW for item in groups)
    spare = max(0.0, _room(jump) + 0.62 - high)  # where the shortcut has more layers than the branch
    for item in groups:
        if isinstance(item, Hidden):
            sheet.word(0, y + 0.1, f"⋮ {item.count} more", colour=MUTED)
            y += 0.24
        else:
            room = spare if item is groups[-1] else 0.0
            y = _arrow(sheet, _stack(sheet, trunk, y, item.layers), item.outputs, room=room)
    join = y + JOIN
    sheet.join(0, join)
    over = [(0.0, fork), (side.x, fork), (side.x, join), (JOIN, join)]
    if jump:
        top = (fork + join - _room(jump)) / 2
        sheet.skip([*over[:2], (side.x, top)], dashed=site.changes)
        end = _stack(sheet, side, top, jump)
        sheet.skip([(side.x, end), *over[2:]], dashed=site.changes, name="skip end")
        sheet.word(side.x + 0.08, end + 0.2, str(site.outputs), colour=MUTED, anchor="left")
    else:
        sheet.skip(over)
        sheet.word(side.x + 0.08, (fork + join) / 2 - 0.08, "identity", anchor="left", colour=SKIP)
        sheet.word(side.x + 0.08, (fork + join) / 2 + 0.08, str(site.outputs), anchor="left", colour=MUTED)
    if words := anatomy.gate_words(spec):
        sheet.word(0.14, join + 0.2, words, colour=MUTED, anchor="left")
    y = join + JOIN
    if after:
        y = _stack(sheet, trunk, _arrow(sheet, y, None), after)
    y = _arrow(sheet, y, site.outputs)
    sheet.power(-0.02, y + 0.13, "a", f"[l+{n}]", size=SIZE + 2)
    name = "convolution block" if site.changes or site.shortcut == "projection" else "identity block"
    _heading(sheet, min(-trunk.wide / 2, -0.9), f"The {name}", f"{_place(site)} of {clean(spec.name, 40)}")
    return sheet.picture(
        title=f"The {name} of {clean(spec.name, 40)}", caption=_caption(spec, site), alt=_alt(spec, site, name)
    )


_SHORTCUTS = {"identity": "identity", "pad": "padded with zeros", "projection": "projected"}


def _jumped(site: Site) -> str:
    return {"identity": "x", "pad": "pad(x)", "projection": "W·x"}[site.shortcut]


def _place(site: Site) -> str:
    return ".".join(clean(part, 24) for part in site.name.split(".")[1:])


def _layers(n: int) -> str:
    return f"{n} layers" if n > 1 else "one layer"


def _wide(layers: Sequence[Layer]) -> float:
    return max([1.25, *(width(layer.text) + 0.24 for layer in layers)])


def _room(layers: Sequence[Layer]) -> float:
    return len(layers) * (_HIGH + 0.03) - 0.03


def _stack(sheet: Sheet, lane: _Lane, y: float, layers: Sequence[Layer]) -> float:
    """Draw the layers as boxes that nearly touch, from `y` down; return where they end."""
    for layer in layers:
        sheet.box(lane.x, y + _HIGH / 2, layer.text, wide=lane.wide, high=_HIGH, fill=_FILL[layer.kind])
        y += _HIGH + 0.03
    return y - 0.03


def _arrow(sheet: Sheet, y: float, shape: Shape | None, *, room: float = 0.0) -> float:
    """Draw the arrow down from `y`, `room` longer than usual, its shape beside it; return its end."""
    end = y + (_ARROW if shape else 0.2) + room
    sheet.line([(0, y), (0, end)])
    if shape:
        sheet.word(-0.09, (y + end) / 2, str(shape), colour=MUTED, anchor="right")
    return end


def _brace(sheet: Sheet, x: float, top: float, bottom: float) -> None:
    middle, out = (top + bottom) / 2, 0.07
    for end in (top, bottom):
        points = [(x, end), (x - out, end), (x - out, middle), (x - 2 * out, middle)]
        sheet.line(points, colour=MUTED, head=False, radius=out)


def _heading(sheet: Sheet, left: float, title: str, note: str) -> None:
    sheet.word(left, -0.52, title, size=SIZE + 1, bold=True, anchor="left")
    sheet.word(left, -0.34, note, colour=MUTED, anchor="left")


def _caption(spec: Spec, site: Site) -> str:
    kept = "changes" if site.changes else "keeps"
    how = {
        "identity": "its shortcut is the identity",
        "pad": "its shortcut leaves out pixels and pads channels with zeros (option A), without parameters",
        "projection": "its shortcut is a projection by a 1×1 convolution",
    }[site.shortcut]
    what = f"A block that {kept} the dimensions, {site.inputs} to {site.outputs}"
    return f"{what}: {how}. Shapes: channels×height×width."


def _alt(spec: Spec, site: Site, name: str) -> str:
    path = ", ".join(anatomy.conv_words(conv) for conv in site.block.convs[:_MOST])
    more = ", …" if len(site.block.convs) > _MOST else ""
    over = ", ".join(layer.text for layer in anatomy.shortcut(spec, site)) or "the identity"
    return (
        f"Diagram of the {name}: {site.inputs} goes through {path}{more}; past them, {over}; both are joined."
    )
