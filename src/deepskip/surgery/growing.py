"""Put identity blocks into a network: the others keep their names and values, the outputs can stay the same.

A block whose branch ends in zeros adds nothing to its shortcut: "the solvers may simply drive the weights of
the multiple nonlinear layers toward zero to approach identity mappings" (He et al. 2015, arXiv:1512.03385,
§3.1). Growing a trained net whose function stays is Net2DeeperNet's idea (Chen et al. 2016, arXiv:1511.05641);
it puts identity convolutions into plain nets, and a shortcut needs none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from deepskip.describe.spec import Block, Site, Spec
from deepskip.errors import InputError, choices, nearest
from deepskip.nets.builder import build
from deepskip.nets.initial import ending
from deepskip.nets.network import Network

Start = Literal["silent", "zero", "delta", "fresh"]
STARTS: tuple[Start, ...] = get_args(Start)
Places = int | Mapping[str, int]

_OTHER_HALF: dict[str, Literal["all", "first", "second"]] = {"all": "all", "first": "second", "second": "first"}
_NORMS = ("batch", "group", "layer", "folded")


def grow(net: Network, places: Places, *, start: Start = "silent", seed: int = 0) -> Network:
    """Return a new network: `net` with identity blocks put in at `places`; `net` is left as it is.

    `places` is a number of blocks, spread evenly, or how many to put where: `{"s2": 3}` at the end of a stage,
    `{"s1.b2": 1}` after a block. `start` says how the new blocks begin:

    - "silent": the branch's last normaliser, or last convolution where none follows, at zero. In evaluation
      the outputs [n, classes] are those of `net` bit for bit, for finite activations; where they could not be,
      as in a plain net, InputError says why.
    - "zero": the same zeros and no promise. A plain net becomes a constant that no training moves.
    - "delta": for plain nets. Convolutions that pass every channel on (Dirac) and statistics that normalise
      nothing: in evaluation the identity but for rounding (a normaliser divides by the root of 1 - ε + ε, which
      in float32 need not be 1). In training a batch normaliser standardises all the same, and the ReLU after it
      cuts off what is below the mean: the first training step does not see an identity.
    - "fresh": initial values for `seed`, as `build` gives them.

    Every new block has an id that its stage did not have (`g1`, `g2`, …), so all other tensors keep their names
    and values; the network keeps its device, precision, memory order and mode. Raises InputError.
    """
    if start not in STARTS:
        raise InputError("start", repr(start), choices(STARTS), nearest(str(start), STARTS))
    spec = grown(net.spec, places)
    held = {site.name for site in net.spec.sites()}
    new = [site for site in spec.sites() if site.name not in held]
    if start in ("silent", "delta"):
        reason = _not_silent(spec) if start == "silent" else _not_identity(spec, new)
        if reason is not None:
            raise InputError(f"start {start!r}", *reason)
    weight = next(net.parameters())
    made = build(spec, seed, dtype=weight.dtype, device=weight.device)
    state = net.state_dict()
    # Assigned, not copied: strides are part of how a convolution is computed, and so of its last bits.
    made.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, strict=False, assign=True)
    if is_channels_last(net):
        made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for site in new:
        _begin(made, spec, site, start)
    trained = {name: parameter.requires_grad for name, parameter in net.named_parameters()}
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(trained.get(name, True))
    return made.train(net.training)


def grown(spec: Spec, places: Places) -> Spec:
    """Return the Spec of `grow`'s network. Raises InputError for a place that is not there, or no new block."""
    wanted = _spread(spec, places) if isinstance(places, int) else _named(spec, places)
    site = {site.name: site for site in spec.sites()}
    stages = []
    for stage in spec.stages:
        blocks: list[Block] = []
        taken = {block.id for block in stage.blocks}
        for block in stage.blocks:
            blocks.append(block)
            template = _identity(site[f"stages.{stage.id}.{block.id}"])
            for _ in range(wanted[f"{stage.id}.{block.id}"]):
                template = template.replace(id=_free(taken), reads=_OTHER_HALF[template.reads])
                taken.add(template.id)
                blocks.append(template)
        stages.append(stage.replace(blocks=tuple(blocks)))
    base = spec.base if spec.base.endswith("_grown") else f"{spec.base[:58]}_grown"
    return spec.replace(base=base, stages=tuple(stages))


# --- where ----------------------------------------------------------------------------------------------------


def _spread(spec: Spec, count: int) -> Counter[str]:
    """Return how many blocks come after each block when `count` are spread as evenly as can be."""
    if isinstance(count, bool) or count < 1:
        raise InputError("places", count, "a number of blocks from 1, or a mapping of places to numbers", 1)
    names = [f"{stage.id}.{block.id}" for stage, block in spec.blocks()]
    return Counter(names[(2 * i + 1) * len(names) // (2 * count)] for i in range(count))


def _named(spec: Spec, places: Mapping[str, int]) -> Counter[str]:
    ends = {stage.id: f"{stage.id}.{stage.blocks[-1].id}" for stage in spec.stages}
    blocks = {f"{stage.id}.{block.id}": f"{stage.id}.{block.id}" for stage, block in spec.blocks()}
    known = {**ends, **blocks}
    wanted: Counter[str] = Counter()
    for place, count in places.items():
        if place not in known:
            raise InputError("places", repr(place), choices(known), nearest(str(place), known))
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InputError(f"places {place!r}", repr(count), "a number of blocks from 0", 1)
        wanted[known[place]] += count
    if not wanted.total():
        raise InputError("places", "no block", "one or more", '{"s1": 1}')
    return wanted


def _identity(site: Site) -> Block:
    """Return the identity block that is most like the block at `site` and can stand after it."""
    convs, channels = [], site.outputs.channels // (1 if site.block.reads == "all" else 2)
    for conv in site.block.convs:
        convs.append(conv.replace(stride=1, groups=math.gcd(conv.groups, channels)))
        channels = conv.channels
    return site.block.replace(convs=tuple(convs))


def _free(taken: set[str]) -> str:
    number = 1
    while f"g{number}" in taken:
        number += 1
    return f"g{number}"


# --- how ------------------------------------------------------------------------------------------------------

Reason = tuple[str, str, str | None]


def _not_silent(spec: Spec) -> Reason | None:
    """Return why a block of zeros would change the outputs of a net like this, or could never train."""
    junction = spec.junction
    if spec.is_plain:
        return "a plain net", "a net with shortcuts; in a plain one nothing goes past the new blocks", "delta"
    if spec.shortcut == "C":
        return "shortcut C", "identity shortcuts (A or B); C projects in every block", "fresh"
    if spec.order == "norm_after" and spec.norm in _NORMS:
        return "order norm_after", "orders without a normaliser after the addition", "fresh"
    if spec.survival != 1:
        got = f"survival {spec.survival:g}"
        return got, "1; each branch is scaled by its place among all blocks, and that changes", "fresh"
    if junction.kind in ("exclusive_gate", "shortcut_gate"):
        return f"junction {junction.kind}", "junctions that leave the shortcut as it is", "fresh"
    if junction.kind == "scaled" and junction.shortcut_scale != 1:
        return f"shortcut_scale {junction.shortcut_scale:g}", "1, which leaves the shortcut as it is", "fresh"
    if spec.order == "relu_before" and not _starts_at_zero(spec):
        return "order relu_before", "another order; a ReLU after what begins at zero has no gradient", "fresh"
    return None


def _not_identity(spec: Spec, new: list[Site]) -> Reason | None:
    """Return why convolutions that pass their input on would not make an identity of a block."""
    if not spec.is_plain:
        return "a net with shortcuts", "a plain net; a shortcut is the identity already", "silent"
    if spec.order in ("pre", "relu_only"):
        return (
            f"order {spec.order}",
            "orders whose blocks get nothing below zero: their first ReLU cuts",
            "fresh",
        )
    if spec.norm in ("group", "layer"):
        return f"norm {spec.norm}", "norms that can be neutral (batch, none, fixup)", "fresh"
    if spec.squeeze:
        return "squeeze", "branches without it: it scales what is passed on", "fresh"
    for site in new:
        widths = {conv.channels for conv in site.block.convs}
        if widths != {site.inputs.channels}:
            got = f"{', '.join(map(str, sorted(widths)))} channels in {site.name}"
            return got, f"{site.inputs.channels} in every convolution: fewer cannot pass all on", "fresh"
    return None


def _starts_at_zero(spec: Spec) -> bool:
    junction = spec.junction
    return not spec.is_plain and junction.kind == "learned" and junction.branch_scale == 0


@torch.no_grad()
def _begin(net: Network, spec: Spec, site: Site, start: Start) -> None:
    """Give the new block at `site`, which has its initial values, those that `start` means."""
    if start == "delta":
        for module in net.get_submodule(site.name).modules():
            if isinstance(module, nn.Conv2d):
                _pass_on(module)
            elif isinstance(module, nn.BatchNorm2d):
                assert isinstance(module.running_var, Tensor)
                module.running_var.fill_(1 - module.eps)
    elif start != "fresh" and not _starts_at_zero(spec):  # two factors at zero would have no gradient
        for tensor in net.get_submodule(ending(spec, site)).parameters():
            tensor.zero_()


def _pass_on(conv: nn.Conv2d) -> None:
    for tensor in conv.parameters():
        tensor.zero_()
    middle = tuple(size // 2 for size in conv.kernel_size)
    for out in range(conv.out_channels):
        conv.weight[(out, out % (conv.in_channels // conv.groups), *middle)] = 1.0


def is_channels_last(net: Network) -> bool:
    """Return whether kernels lie in memory with their channels last."""
    return any(
        p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous()
        for p in net.parameters()
        if p.dim() == 4
    )
