"""timm's ResNets: `resnet*`, `resnet*d`, `seresnet*`, `resnext*`, `wide_resnet*`, pre-activation `resnetv2_*`.

Source of the names: timm/models/resnet.py and resnetv2.py, release 1.0.31. Nets with antialiased strides
(`resnetaa50`, `resnetblur50`) and with standardised convolutions (`resnetv2_50x1_bit`) have the same tensors
and compute something else; their checkpoints cannot be told apart by names, and are not covered.
"""

from __future__ import annotations

from deepskip.describe.spec import Spec, squeezed
from deepskip.errors import InputError
from deepskip.weights.adapters.classic import rename
from deepskip.weights.adapters.layers import expand, layers, positions
from deepskip.weights.adapters.rules import check_blocks, check_fields, check_stem

POINTWISE = "head.fc.weight"
"""The head of `resnetv2_*` is a 1×1 convolution there: the same numbers, in shape [classes, features, 1, 1]."""

_USUAL, _DEEP = ((7, 2),), ((3, 2), (3, 1), (3, 1))


def names(spec: Spec) -> dict[str, str]:
    """Return our key → timm's, one to one, for every tensor of `spec`.

    Raises InputError when neither timm's ResNet class nor its ResNetV2 can be this net.
    """
    allowed: dict[str, tuple[object, ...]] = {
        "order": ("post", "pre"),
        "norm": ("batch", "group"),
        **({"norm_groups": (32,)} if spec.norm == "group" else {}),
        "projection": ("conv", "pool"),
        "squeeze": (None, 16) if spec.order == "post" else (None,),
    }
    check_fields("timm", spec, allowed)
    check_stem("timm", spec, [_USUAL, _DEEP], pool=True)
    check_blocks("timm", spec, stages=4)
    _check_squeeze(spec)
    _check_norm_groups(spec)
    _check_first(spec)
    if spec.order == "pre" and spec.norm == "group" and len(spec.stem.convs) == 1:
        # The nets of that description in timm are BiT's, whose convolutions are standardised.
        raise InputError(f"{spec.name}: stem", "one convolution and group normalisers", "three 3×3 in timm")
    return expand(spec, _pre(spec) if spec.order == "pre" else _post(spec))


def _post(spec: Spec) -> dict[str, str]:
    at = 1 if spec.projection == "pool" else 0  # the pool is there, though without tensors, at stride 1 too
    inside = {
        "shortcut.conv": f"downsample.{at}",
        "shortcut.norm": f"downsample.{at + 1}",
        "branch.squeeze.reduce": "se.fc1",
        "branch.squeeze.expand": "se.fc2",
    }
    stem = {"conv1": "conv1", "norm1": "bn1"}
    if len(spec.stem.convs) == 3:
        stem = {"conv1": "conv1.0", "norm1": "conv1.1", "conv2": "conv1.3", "norm2": "conv1.4"}
        stem |= {"conv3": "conv1.6", "norm3": "bn1"}
    return rename(spec, stem, inside, "fc")


def _pre(spec: Spec) -> dict[str, str]:
    at, table = positions(spec), {"head.norm": "norm", "head.linear": "head.fc"}
    for name in layers(spec):
        match name.split("."):
            case ["stem", part]:
                table[name] = f"stem.{part}" if len(spec.stem.convs) > 1 else "stem.conv"
            case ["stages", stage, own, *parts]:
                i, j = at[stage, own]
                inside = {"shortcut.conv": "downsample.conv", "before.norm": "norm1"}
                table[name] = f"stages.{i}.blocks.{j}.{inside.get('.'.join(parts), parts[-1])}"
    return table


def _check_norm_groups(spec: Spec) -> None:
    """Refuse channels that 32 does not divide: timm's normaliser fails there, ours takes fewer groups."""
    if spec.norm != "group":
        return
    for layer, tensors in layers(spec).items():
        channels = tensors["weight"][0]
        if ".norm" in layer and channels % spec.norm_groups:
            got = f"{channels} channels"
            raise InputError(f"{spec.name}: {layer}", got, f"a multiple of {spec.norm_groups} in timm")


def _check_first(spec: Spec) -> None:
    """Refuse pre-activation nets whose shortcuts read another tensor than timm's do.

    Every stage of its bottlenecks begins with a projection; in all its blocks a projection reads what comes
    after the first norm and ReLU, an identity shortcut the block's own input.
    """
    if spec.order != "pre":
        return
    starts = {f"stages.{stage.id}.{stage.blocks[0].id}" for stage in spec.stages}
    for site in spec.sites():
        if len(site.block.convs) == 3 and site.name in starts and not site.changes:
            where, got = f"{spec.name}: {site.name}", f"{site.inputs.channels} channels in and out"
            raise InputError(
                where, got, "another number out: in timm a stage of bottlenecks begins with a projection"
            )
        if bool(site.shared) != site.changes:
            got = f"{spec.first}: {site.name} shares its first activation with its shortcut"
            raise InputError(
                f"{spec.name}: first", got, "own in timm, as resnetv2_18 and resnetv2_34 mean", "own"
            )


def _check_squeeze(spec: Spec) -> None:
    if not spec.squeeze:
        return
    theirs = spec.replace(squeeze_multiple=8)
    for site in spec.sites():
        channels = site.outputs.channels
        ours, wanted = squeezed(spec, channels), squeezed(theirs, channels)
        if ours != wanted:
            where, got = f"{spec.name}: {site.name}: squeeze", f"{ours} of {channels} channels"
            raise InputError(
                where, got, f"{wanted} in timm, which rounds to multiples of 8", "squeeze_multiple=8"
            )
