"""From a Spec to a Network: the only place that chooses which part stands where."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from deepskip.describe.spec import Conv, Site, Spec
from deepskip.nets.block import ResidualBlock
from deepskip.nets.initial import initialise
from deepskip.nets.network import Network
from deepskip.nets.parts import BranchOnly, PadShortcut, Sum


def build(
    spec: Spec, seed: int = 0, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Network:
    """Return the network that `spec` describes, in training mode, with its initial values for `seed`."""
    with torch.device("meta"):  # no storage and no global random numbers are spent before the initial values
        net = Network(spec, stem=_stem(spec), stages=_stages(spec), head=_head(spec))
    net = net.to(dtype).to_empty(device=device)
    initialise(net, spec.initial, seed)
    return net


def _stem(spec: Spec) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = spec.input[0]
    for i, conv in enumerate(spec.stem.convs, 1):
        parts[f"conv{i}"] = _conv(channels, conv)
        channels = conv.channels
        if spec.order == "post" or i < len(spec.stem.convs):
            parts[f"norm{i}"] = nn.BatchNorm2d(channels)
            parts[f"relu{i}"] = nn.ReLU()
    if spec.stem.pool:
        parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(parts)


def _stages(spec: Spec) -> nn.ModuleDict:
    sites = iter(spec.sites())
    return nn.ModuleDict(
        {
            stage.id: nn.ModuleDict({block.id: _block(spec, next(sites)) for block in stage.blocks})
            for stage in spec.stages
        }
    )


def _block(spec: Spec, site: Site) -> ResidualBlock:
    pre = spec.order == "pre"
    # Where dimensions change, a pre-activation block's first norm-ReLU feeds the shortcut too (He et al. 2016,
    # §4.1 and the authors' code); the plain twin's stands in the same place, so the tensors keep their names.
    shared = pre and site.changes
    return ResidualBlock(
        before=_norm_relu(site.inputs.channels) if shared else nn.Identity(),
        branch=_branch_pre(site, first=not shared) if pre else _branch_post(site),
        shortcut=_shortcut(spec, site),
        junction=BranchOnly() if site.shortcut == "none" else Sum(),
        after=nn.Identity() if pre else nn.ReLU(),
    )


def _branch_post(site: Site) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = site.inputs.channels
    for i, conv in enumerate(site.block.convs, 1):
        parts[f"conv{i}"] = _conv(channels, conv)
        parts[f"norm{i}"] = nn.BatchNorm2d(conv.channels)
        if i < len(site.block.convs):
            parts[f"relu{i}"] = nn.ReLU()
        channels = conv.channels
    return nn.Sequential(parts)


def _branch_pre(site: Site, *, first: bool) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    channels = site.inputs.channels
    for i, conv in enumerate(site.block.convs, 1):
        if i > 1 or first:
            parts[f"norm{i}"] = nn.BatchNorm2d(channels)
            parts[f"relu{i}"] = nn.ReLU()
        parts[f"conv{i}"] = _conv(channels, conv)
        channels = conv.channels
    return nn.Sequential(parts)


def _shortcut(spec: Spec, site: Site) -> nn.Module:
    channels, out = site.inputs.channels, site.outputs.channels
    if site.shortcut == "pad":
        return PadShortcut(channels, out, site.block.stride)
    if site.shortcut == "projection":
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv"] = _conv(channels, Conv(channels=out, kernel=1, stride=site.block.stride))
        if spec.order == "post":  # pre-activation keeps the shortcut free of normalisers
            parts["norm"] = nn.BatchNorm2d(out)
        return nn.Sequential(parts)
    return nn.Identity()


def _head(spec: Spec) -> nn.Sequential:
    *_, last = spec.sites()
    channels = last.outputs.channels
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if spec.order == "pre":
        parts["norm"] = nn.BatchNorm2d(channels)
        parts["relu"] = nn.ReLU()
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["linear"] = nn.Linear(channels, spec.classes)
    return nn.Sequential(parts)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU()))


def _conv(channels: int, conv: Conv) -> nn.Conv2d:
    return nn.Conv2d(
        channels,
        conv.channels,
        conv.kernel,
        stride=conv.stride,
        padding=conv.kernel // 2,
        groups=conv.groups,
        bias=False,
    )
