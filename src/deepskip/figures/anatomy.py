"""A Spec put into words, for diagrams: its layers in order, runs of alike blocks, what joins them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from deepskip.describe import ledger
from deepskip.describe.spec import ARRANGEMENTS, Conv, Shape, Site, Spec, norm_groups

Item = TypeVar("Item")

_DIGITS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_INDICES = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class Layer(NamedTuple):
    """One box of a detailed diagram."""

    kind: str
    """"conv", "norm", "relu" or "other"."""
    text: str


class Group(NamedTuple):
    """Layers that belong together, and the shape of what leaves them (None: as it came in)."""

    layers: tuple[Layer, ...]
    outputs: Shape


class Run(NamedTuple):
    """Alike blocks, one after the other, in one stage."""

    stage: int
    sites: tuple[Site, ...]
    params: int

    @property
    def site(self) -> Site:
        """The first of them."""
        return self.sites[0]


@dataclass(frozen=True)
class Hidden:
    """How many things a drawing leaves out at this place."""

    count: int


def elided(items: Sequence[Item], most: int) -> list[Item | Hidden]:
    """Return the items, those in the middle replaced by how many they are where there are more than `most`."""
    if len(items) <= most:
        return list(items)
    tail = (most - 1) // 2
    head = most - 1 - tail
    return [*items[:head], Hidden(len(items) - head - tail), *items[len(items) - tail :]]


def raised(number: int) -> str:
    """Return a whole number as superscript digits."""
    return str(number).translate(_DIGITS)


def lowered(number: int) -> str:
    """Return a whole number as subscript digits."""
    return str(number).translate(_INDICES)


def conv_words(conv: Conv) -> str:
    """Return a convolution as the papers' figures write it: "3×3 conv, 64, /2, g32"."""
    stride = f", /{conv.stride}" if conv.stride > 1 else ""
    groups = f", g{conv.groups}" if conv.groups > 1 else ""
    return f"{conv.kernel}×{conv.kernel} conv, {conv.channels}{stride}{groups}"


def runs(spec: Spec) -> list[Run]:
    """Return the blocks, alike ones that follow each other in a stage together."""
    params = {line.name: line.params for line in ledger.count(spec).lines}
    stages = {stage.id: i for i, stage in enumerate(spec.stages)}

    def key(site: Site) -> tuple[object, ...]:
        return stages[site.name.split(".")[1]], site.block.convs, site.shortcut, site.inputs, site.shared

    found = []
    for (stage, *_), group in itertools.groupby(spec.sites(), key):
        sites = tuple(group)
        found.append(Run(int(str(stage)), sites, sum(params[site.name] for site in sites)))
    return found


def norm_words(spec: Spec, channels: int) -> str:
    """Return the normaliser's name, or "" where the Spec has none."""
    if spec.norm == "group":
        groups = norm_groups(spec, channels)
        return f"group norm, {groups} group{'s' if groups > 1 else ''}"
    return {"batch": "batch norm", "folded": "batch norm", "layer": "layer norm"}.get(spec.norm, "")


def before(spec: Spec, site: Site) -> tuple[Layer, ...]:
    """Return what shortcut and branch share: what of the branch's beginning stands before the fork."""
    return _signs(spec, spec.before(site), site.inputs.channels)


def branch(spec: Spec, site: Site) -> list[Group]:
    """Return the branch's layers, a group for each convolution, then what scales or drops its output.

    A branch that reads a half begins with taking it and ends in zeros for it, so that the sum is of equals.
    """
    shape, groups = site.read, []
    reads = site.block.reads
    if reads != "all":
        groups.append(Group((Layer("other", f"{reads} half"),), site.read))
    for i, (conv, order) in enumerate(zip(site.block.convs, spec.orders(site), strict=True), 1):
        head, kind, tail = re.split("([cb])", order)
        out = shape.shrink(conv.channels, conv.stride)
        layers = (
            *_signs(spec, head, shape.channels),
            *_conv(spec, conv_words(conv), bias=kind == "b", last=i == len(site.block.convs)),
            *_signs(spec, tail, out.channels),
        )
        groups.append(Group(layers, out))
        shape = out
    ends = []
    if spec.squeeze:
        ends.append(f"squeeze-and-excite, /{spec.squeeze}")
    if site.shortcut != "none":
        ends += [f"kept with p = {site.survival:.3g}"] if site.survival < 1 else []
        ends += [f"× {factor}" for factor in [_factors(spec)[0]] if factor]
    if reads != "all":
        ends.append(f"zeros for the {reads} half")
    if ends:
        groups.append(Group(tuple(Layer("other", text) for text in ends), site.outputs))
    return groups


def shortcut(spec: Spec, site: Site) -> list[Layer]:
    """Return the layers of the shortcut: none for the identity."""
    block, found = site.block, []
    if site.shortcut == "pad":
        found += [Layer("other", f"1 pixel of {block.stride}×{block.stride}")] if block.stride > 1 else []
        extra = block.channels - site.inputs.channels
        found += [Layer("other", f"+ {extra} zero channel{'s' if extra > 1 else ''}")] if extra else []
    if site.shortcut == "projection":
        pooled = spec.projection == "pool" and block.stride > 1
        found += [Layer("other", f"average pool, /{block.stride}")] if pooled else []
        conv = Conv(channels=block.channels, kernel=1, stride=1 if pooled else block.stride)
        bias = " + bias" if spec.projects_with_bias else ""
        found += [Layer("norm", "+ scalar")] if spec.norm == "fixup" else []
        found.append(Layer("conv", conv_words(conv) + bias))
        found += _signs(spec, "" if spec.order == "pre" or spec.norm == "folded" else "n", block.channels)
    factor = "" if site.shortcut == "none" else _factors(spec)[1]
    return [*found, *([Layer("other", factor)] if factor else [])]


def after(spec: Spec, channels: int) -> tuple[Layer, ...]:
    """Return what follows the junction."""
    return _signs(spec, ARRANGEMENTS[spec.order].after, channels)


def gate_words(spec: Spec) -> str:
    """Return what g or α stands for in the junction, or "" where there is neither."""
    if spec.junction.kind in ("exclusive_gate", "shortcut_gate"):
        return "g = σ(W·shortcut + b)"
    return "α, the branch's factor: a trained number" if spec.junction.kind == "learned" else ""


def sum_words(spec: Spec, x: str = "x") -> str:
    """Return what the junction computes from F(x) and the shortcut `x`."""
    f, s = _factors(spec)
    one = f"{f.split()[0]}·F(x)" if f else "F(x)"
    if s.startswith("dropout"):
        return f"{one} + dropout({x})"
    return f"{one} + {s.removeprefix('× ')}·{x}" if s else f"{one} + {x}"


def shortcut_words(spec: Spec) -> str:
    """Return what dashed shortcuts do in this net."""
    if spec.shortcut == "A":
        return "zeros for new channels (option A)"
    pooled = "average pool, then " if spec.projection == "pool" else ""
    return f"{pooled}1×1 convolution" + (
        ", option C: in every block" if spec.shortcut == "C" else " (option B)"
    )


def habits(spec: Spec) -> list[str]:
    """Return what is the same in every block, and so is said once."""
    signs = {"c": "conv", "n": norm_words(spec, 2**16).split(",")[0], "r": "ReLU"}
    each = ARRANGEMENTS[spec.order].each
    each = each.replace("n", "") if spec.norm == "folded" else each
    words = ", ".join(word for sign in each if (word := signs[sign]))
    scalars = ", with Fixup's scalars" if spec.norm == "fixup" else ""
    moved = " and ".join(word for sign in ARRANGEMENTS[spec.order].after if (word := signs[sign]))
    after = f"; the last {moved} after the sum" if moved and not spec.is_plain else ""
    found = [f"layers of a block: {words}{scalars}{after}"]
    if spec.norm == "folded":
        found.append("batch normalisers are folded into the convolutions right before them")
    if spec.is_coupled:
        found.append("coupled: a branch reads one half of the channels and is added to the other")
    if spec.squeeze:
        found.append(f"every branch ends in squeeze-and-excite, /{spec.squeeze}")
    if spec.survival < 1 and not spec.is_plain:
        found.append(f"stochastic depth: the last branch is kept with p = {spec.survival:g}")
    return found


def totals(spec: Spec) -> str:
    """Return the net's size in a line."""
    cost = ledger.count(spec)
    return f"{cost.layers:,} layers · {cost.params:,} parameters"


def _factors(spec: Spec) -> tuple[str, str]:
    """Return what the junction does to the branch (a factor) and to the shortcut (a box's words)."""
    junction = spec.junction
    branches = {"scaled": f"{junction.branch_scale:g}", "learned": "α", "exclusive_gate": "g"}
    shortcuts = {
        "scaled": f"× {junction.shortcut_scale:g}",
        "exclusive_gate": "× (1 − g)",
        "shortcut_gate": "× (1 − g)",
        "dropout": f"dropout, {junction.rate:g}",
    }
    return branches.get(junction.kind, ""), shortcuts.get(junction.kind, "")


def _signs(spec: Spec, order: str, channels: int) -> tuple[Layer, ...]:
    norm = norm_words(spec, channels)
    made = [Layer("relu", "ReLU") if sign == "r" else Layer("norm", norm) for sign in order]
    return tuple(layer for layer in made if layer.text)


def _conv(spec: Spec, words: str, *, bias: bool, last: bool) -> list[Layer]:
    if bias:
        return [Layer("conv", f"{words} + bias")]
    if spec.norm != "fixup":
        return [Layer("conv", words)]
    scale = [Layer("norm", "× scalar")] if last else []
    return [Layer("norm", "+ scalar"), Layer("conv", words), *scale, Layer("norm", "+ scalar")]
