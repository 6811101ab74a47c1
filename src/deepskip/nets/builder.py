"""From a Spec to a Network: the only place that chooses which part stands where."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from deepskip.describe.spec import ARRANGEMENTS, Conv, Site, Spec, norm_groups, squeezed
from deepskip.garbage import paused
from deepskip.nets.block import ResidualBlock
from deepskip.nets.initial import initialise
from deepskip.nets.network import Network
from deepskip.nets.parts import (
    Bias,
    BranchOnly,
    CoupledSum,
    DropoutSum,
    ExclusiveGate,
    Half,
    LearnedSum,
    PadShortcut,
    Scale,
    ScaledSum,
    ShortcutGate,
    SqueezeExcitation,
    StochasticDepth,
    Sum,
)

Parts = list[tuple[str, nn.Module]]


def build(
    spec: Spec, seed: int = 0, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Network:
    """Return the network that `spec` describes, in training mode, with its initial values for `seed`."""
    net = assemble(spec, dtype=dtype, device=device)
    initialise(net, spec, seed)
    return net


def assemble(spec: Spec, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Network:
    """Return the network that `spec` describes, for values that come from elsewhere: it holds any numbers."""
    with paused(), torch.device(device), _Unfilled():
        net = Network(spec, stem=_stem(spec), stages=_stages(spec), head=_head(spec))
    return net if dtype == torch.get_default_dtype() else net.to(dtype)


class _Unfilled(TorchFunctionMode):
    """Leaves out the random values that PyTorch's layers begin with: time, and global random numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if getattr(func, "__name__", "") in ("kaiming_uniform_", "uniform_"):  # of nn.init, and of tensors
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def _stem(spec: Spec) -> nn.Sequential:
    parts: Parts = []
    channels = spec.input[0]
    for i, (conv, order) in enumerate(zip(spec.stem.convs, spec.orders(), strict=True), 1):
        parts += _run(spec, channels, conv, order, i)
        channels = conv.channels
    if spec.stem.pool:
        # In pre-activation nets the norm and ReLU after conv1 are the first block's, so they stand after this
        # pool, as in timm; the paper's words, "right after conv1", put them before it. A maximum and a ReLU
        # commute, a maximum and a norm do not.
        parts.append(("pool", nn.MaxPool2d(3, stride=2, padding=1)))
    return _sequence(parts)


def _stages(spec: Spec) -> nn.ModuleDict:
    sites = iter(spec.sites())
    return nn.ModuleDict(
        {
            stage.id: nn.ModuleDict({block.id: _block(spec, next(sites)) for block in stage.blocks})
            for stage in spec.stages
        }
    )


def _block(spec: Spec, site: Site) -> ResidualBlock:
    before, after = spec.before(site), ARRANGEMENTS[spec.order].after
    return ResidualBlock(
        before=_sequence(_tail(spec, site.inputs.channels, before)) if before else nn.Identity(),
        branch=_branch(spec, site),
        shortcut=_shortcut(spec, site),
        junction=_junction(spec, site),
        after=_sequence(_tail(spec, site.outputs.channels, after)) if after else nn.Identity(),
    )


def _branch(spec: Spec, site: Site) -> nn.Sequential:
    parts: Parts = []
    channels, convs, reads = site.read.channels, site.block.convs, site.block.reads
    if reads != "all":
        parts.append(("read", Half(second=reads == "second")))
    for i, (conv, order) in enumerate(zip(convs, spec.orders(site), strict=True), 1):
        parts += _run(spec, channels, conv, order, i, fixup=True, last=i == len(convs))
        channels = conv.channels
    if spec.squeeze:
        parts.append(("squeeze", SqueezeExcitation(channels, squeezed(spec, channels))))
    return _sequence(parts)


def _run(
    spec: Spec, channels: int, conv: Conv, order: str, i: int, *, fixup: bool = False, last: bool = False
) -> Parts:
    """Return the parts that `order` spells: as `Spec.orders` does."""
    parts: Parts = []
    for sign in order:
        if sign in "cb":
            # Fixup: a scalar bias before each convolution, one after it, and a multiplier after the last.
            scalars = spec.norm == "fixup"
            parts += [(f"bias{i}", Bias())] if scalars and fixup else []
            parts.append((f"conv{i}", _conv(channels, conv, bias=sign == "b")))
            parts += [(f"scale{i}", Scale())] if scalars and last else []
            parts += [(f"shift{i}", Bias())] if scalars else []
            channels = conv.channels
        elif sign == "n":
            parts += _norm(spec, channels, f"norm{i}")
        else:
            parts.append((f"relu{i}", nn.ReLU()))
    return parts


def _tail(spec: Spec, channels: int, order: str) -> Parts:
    """Return a normaliser and a ReLU, as `order` spells them, that belong to no convolution."""
    parts: Parts = []
    for sign in order:
        parts += _norm(spec, channels, "norm") if sign == "n" else [("relu", nn.ReLU())]
    return parts


def _norm(spec: Spec, channels: int, name: str) -> Parts:
    if spec.norm in ("batch", "folded"):
        return [(name, nn.BatchNorm2d(channels))]
    if spec.norm in ("group", "layer"):
        return [(name, nn.GroupNorm(norm_groups(spec, channels), channels))]
    return []


def _shortcut(spec: Spec, site: Site) -> nn.Module:
    channels, out, stride = site.inputs.channels, site.outputs.channels, site.block.stride
    if site.shortcut == "pad":
        return PadShortcut(channels, out, stride)
    if site.shortcut != "projection":
        return nn.Identity()
    parts: Parts = []
    if spec.projection == "pool" and stride > 1:
        # Windows at the border may be cut; their mean is over the pixels that are there.
        parts.append(("pool", nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)))
        stride = 1
    if spec.norm == "fixup":
        # "A scalar bias before each convolution": the projection's is its own; the authors' code adds the first
        # bias of the branch here too, so that the two are one number.
        parts.append(("bias", Bias()))
    parts.append(
        ("conv", _conv(channels, Conv(channels=out, kernel=1, stride=stride), bias=spec.projects_with_bias))
    )
    if spec.order != "pre" and spec.norm != "folded":  # pre-activation keeps the shortcut free of normalisers
        parts += _norm(spec, out, "norm")
    return _sequence(parts)


def _junction(spec: Spec, site: Site) -> nn.Module:
    if site.block.reads != "all":
        return CoupledSum(second=site.block.reads == "second")
    if site.shortcut == "none":
        return BranchOnly()
    junction, channels = spec.junction, site.outputs.channels
    makers: dict[str, Callable[[], nn.Module]] = {
        "sum": Sum,
        "scaled": lambda: ScaledSum(junction.shortcut_scale, junction.branch_scale),
        "learned": lambda: LearnedSum(junction.branch_scale),
        "exclusive_gate": lambda: ExclusiveGate(channels, junction.gate_bias),
        "shortcut_gate": lambda: ShortcutGate(channels, junction.gate_bias),
        "dropout": lambda: DropoutSum(junction.rate),
    }
    inner = makers[junction.kind]()
    return inner if spec.survival == 1 else StochasticDepth(inner, site.survival)


def _head(spec: Spec) -> nn.Sequential:
    *_, last = spec.sites()
    channels = last.outputs.channels
    parts = _tail(spec, channels, ARRANGEMENTS[spec.order].head)
    parts += [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    parts += [("bias", Bias())] if spec.norm == "fixup" else []
    parts.append(("linear", nn.Linear(channels, spec.classes)))
    return _sequence(parts)


def _conv(channels: int, conv: Conv, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        conv.channels,
        conv.kernel,
        stride=conv.stride,
        padding=conv.kernel // 2,
        groups=conv.groups,
        bias=bias,
    )


def _sequence(parts: Iterable[tuple[str, nn.Module]]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))
