"""Initial values: each tensor is a function of (rule, seed, qualified name), and of nothing else.

Not of the order of building, of the number of processes, or of the device. So the plain twin starts from the
same numbers as the residual net, and a block inserted later leaves every other block's values as they were
(but for "fixup", whose rule holds the number of blocks).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepskip.describe.spec import Initial, Site, Spec
from deepskip.nets.parts import GateConv, LearnedSum, Scale
from deepskip.seeds import derive


@torch.no_grad()
def initialise(net: nn.Module, spec: Spec, seed: int) -> None:
    """Give every parameter and buffer of `net`, built from `spec`, its initial value, in place.

    Convolutions: normal with variance 2 / fan (`spec.initial` says which fan, or another rule). Normalisers:
    scale 1, shift 0, running mean 0 and variance 1. Gates and learned scales: as the junction says. The linear
    head: uniform within ±1/√(features). Biases: 0, but with "pytorch", which is PyTorch's own rule. "fixup":
    arXiv:1901.09321, §3. `zero_last` and what "fixup" does inside branches are for nets with shortcuts: a plain
    net has only its branches to carry the signal, and would be a constant without them, so there these begin as
    He et al.'s rule has them.
    """
    gains = _gains(spec)
    for module_name, module in net.named_modules():
        for kind, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            name = f"{module_name}.{kind}"
            gain = gains.get(module_name, 1.0) if kind in ("weight", "bias") else 1.0
            tensor.copy_(_value(module, kind, tensor, spec, derive(spec.initial, seed, name)) * gain)


def _value(module: nn.Module, kind: str, tensor: Tensor, spec: Spec, seed: int) -> Tensor:
    match module, kind:
        case GateConv(), "bias":
            return torch.tensor(module.start)
        case nn.Conv2d() | nn.Linear(), "weight" | "bias" if spec.initial == "pytorch":
            return _uniform(tensor, 1 / math.sqrt(module.weight[0].numel()), seed)
        case nn.Conv2d(), "weight" if spec.initial == "delta_orthogonal":
            return _delta_orthogonal(module, seed)
        case nn.Conv2d(), "weight":
            return _normal(tensor, math.sqrt(2 / _fan(module, spec.initial)), seed)
        case nn.Linear(), "weight":
            return _uniform(tensor, 1 / math.sqrt(module.in_features), seed)
        case nn.BatchNorm2d(), "weight" | "running_var":
            return torch.ones(())
        case nn.GroupNorm(), "weight":
            return torch.ones(())
        case Scale(), "scale":
            return torch.ones(())
        case LearnedSum(), "scale":
            return torch.tensor(module.start)
        case _:
            return torch.zeros(())


def _gains(spec: Spec) -> dict[str, float]:
    """Return what multiplies the weight and bias of a module, by its name, where that is not 1."""
    gains: dict[str, float] = {}
    if spec.initial == "fixup":
        gains["head.linear"] = 0.0
    if spec.is_plain:
        return gains
    blocks = sum(len(stage.blocks) for stage in spec.stages)
    for site in spec.sites():
        convs = len(site.block.convs)
        if spec.initial == "fixup":
            for i in range(1, convs):
                gains[f"{site.name}.branch.conv{i}"] = blocks ** (-1 / (2 * convs - 2))
            gains[ending(spec, site)] = 0.0
        elif spec.zero_last:
            gains[ending(spec, site)] = 0.0
    return gains


def ending(spec: Spec, site: Site) -> str:
    """Return the name of what ends the branch at `site`: with its weight at zero, the branch begins silent.

    The last normaliser, or the last convolution where none follows.
    """
    has_norm = spec.norm in ("batch", "group", "layer") and spec.order in ("post", "relu_only")
    return f"{site.name}.branch.{'norm' if has_norm else 'conv'}{len(site.block.convs)}"


def _delta_orthogonal(conv: nn.Conv2d, seed: int) -> Tensor:
    """Return a kernel [o, i, h, w] whose centre is √2 times a matrix with orthonormal rows or columns."""
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.zeros(conv.weight.shape)
    middle = kernel[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2]
    for part in middle.chunk(conv.groups):  # each group is a map of its own
        part.copy_(_orthonormal(part.shape[0], part.shape[1], generator) * math.sqrt(2))
    return kernel


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Return a matrix with orthonormal columns, or rows where these are fewer, drawn evenly from all such."""
    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    found: tuple[Tensor, Tensor] = torch.linalg.qr(drawn)
    q, r = found
    q = q * r.diagonal().sign()  # without it some would be likelier than others (Mezzadri 2007)
    return q if rows >= columns else q.T


def _fan(conv: nn.Conv2d, rule: Initial) -> int:
    area = conv.kernel_size[0] * conv.kernel_size[1]
    channels = conv.in_channels if rule == "he_fan_in" else conv.out_channels
    return area * channels // conv.groups


def _normal(like: Tensor, std: float, seed: int) -> Tensor:
    # Drawn in float32 on the CPU whatever the parameter's own type and device.
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)) * std


def _uniform(like: Tensor, bound: float, seed: int) -> Tensor:
    return (torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * bound
