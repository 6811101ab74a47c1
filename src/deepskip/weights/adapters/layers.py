"""Our own side of every table: the layers of a net that hold tensors, and their shapes, from the Spec alone.

Only what a foreign library can hold is known here: batch and group normalisers, junctions without parameters.
A test compares it with the nets that the builder makes.
"""

from __future__ import annotations

from collections.abc import Mapping

from deepskip.describe.spec import ARRANGEMENTS, Conv, Site, Spec, squeezed

Shapes = dict[str, tuple[int, ...]]
"""A layer's tensors: the last part of their names, and their shapes."""


def layers(spec: Spec) -> dict[str, Shapes]:
    """Return the layers that hold tensors, by name (`stages.s1.b1.branch.conv1`), in order."""
    found: dict[str, Shapes] = {}
    channels, arrangement = spec.input[0], ARRANGEMENTS[spec.order]
    for i, conv in enumerate(spec.stem.convs, 1):
        ending = arrangement.stem if i == len(spec.stem.convs) else "nr"
        found |= _run(spec, "stem", f"c{ending}", i, channels, conv)
        channels = conv.channels
    for site in spec.sites():
        found |= _block(spec, site)
        channels = site.outputs.channels
    if "n" in arrangement.head:
        found["head.norm"] = _norm(spec, channels)
    found["head.linear"] = {"weight": (spec.classes, channels), "bias": (spec.classes,)}
    return found


def expand(spec: Spec, table: Mapping[str, str]) -> dict[str, str]:
    """Return the table of tensors, our key to theirs, that a `table` of layers makes."""
    return {
        f"{ours}.{tensor}": f"{table[ours]}.{tensor}"
        for ours, shapes in layers(spec).items()
        for tensor in shapes
    }


def positions(spec: Spec) -> dict[tuple[str, str], tuple[int, int]]:
    """Return where each block stands, counted from 0, by the ids of its stage and its own."""
    return {
        (stage.id, block.id): (i, j)
        for i, stage in enumerate(spec.stages)
        for j, block in enumerate(stage.blocks)
    }


def _block(spec: Spec, site: Site) -> dict[str, Shapes]:
    found: dict[str, Shapes] = {}
    channels, outputs, arrangement = site.inputs.channels, site.outputs.channels, ARRANGEMENTS[spec.order]
    if "n" in site.shared:
        found[f"{site.name}.before.norm"] = _norm(spec, channels)
    inner = channels
    for i, conv in enumerate(site.block.convs, 1):
        order = arrangement.last if i == len(site.block.convs) else arrangement.each
        order = order.removeprefix(site.shared) if i == 1 else order
        found |= _run(spec, f"{site.name}.branch", order, i, inner, conv)
        inner = conv.channels
    if spec.squeeze:
        small = squeezed(spec, outputs)
        found[f"{site.name}.branch.squeeze.reduce"] = {"weight": (small, outputs, 1, 1), "bias": (small,)}
        found[f"{site.name}.branch.squeeze.expand"] = {"weight": (outputs, small, 1, 1), "bias": (outputs,)}
    if site.shortcut == "projection":
        found[f"{site.name}.shortcut.conv"] = {"weight": (outputs, channels, 1, 1)}
        if spec.order != "pre":
            found[f"{site.name}.shortcut.norm"] = _norm(spec, outputs)
    if "n" in arrangement.after:
        found[f"{site.name}.after.norm"] = _norm(spec, outputs)
    return found


def _run(spec: Spec, prefix: str, order: str, i: int, channels: int, conv: Conv) -> dict[str, Shapes]:
    found: dict[str, Shapes] = {}
    for sign in order:
        if sign == "c":
            found[f"{prefix}.conv{i}"] = {
                "weight": (conv.channels, channels // conv.groups, conv.kernel, conv.kernel)
            }
            channels = conv.channels
        elif sign == "n":
            found[f"{prefix}.norm{i}"] = _norm(spec, channels)
    return found


def _norm(spec: Spec, channels: int) -> Shapes:
    affine: Shapes = {"weight": (channels,), "bias": (channels,)}
    if spec.norm != "batch":
        return affine
    return {**affine, "running_mean": (channels,), "running_var": (channels,), "num_batches_tracked": ()}
