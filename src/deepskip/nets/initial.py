"""Initial values: each tensor is a function of (rule, seed, qualified name), and of nothing else.

Not of the order of building, of the number of processes, or of the device. So the plain twin starts from the
same numbers as the residual net, and a block inserted later leaves every other block's values as they were.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepskip.describe.spec import Initial
from deepskip.seeds import derive


@torch.no_grad()
def initialise(net: nn.Module, rule: Initial, seed: int) -> None:
    """Give every parameter and buffer of `net` its initial value, in place.

    Convolutions: normal with variance 2 / fan (`rule` says which fan). Normalisers: scale 1, shift 0, running
    mean 0 and variance 1. The linear head: uniform within ±1/√(features), bias 0.
    """
    for module_name, module in net.named_modules():
        for kind, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            name = f"{module_name}.{kind}"
            if isinstance(module, nn.Conv2d) and kind == "weight":
                tensor.copy_(_normal(tensor, math.sqrt(2 / _fan(module, rule)), derive(rule, seed, name)))
            elif isinstance(module, nn.Linear) and kind == "weight":
                bound = 1 / math.sqrt(module.in_features)
                tensor.copy_(_uniform(tensor, bound, derive(rule, seed, name)))
            elif isinstance(module, nn.BatchNorm2d) and kind in ("weight", "running_var"):
                tensor.fill_(1)
            else:
                tensor.zero_()


def _fan(conv: nn.Conv2d, rule: Initial) -> int:
    area = conv.kernel_size[0] * conv.kernel_size[1]
    channels = conv.out_channels if rule == "he_fan_out" else conv.in_channels
    return area * channels // conv.groups


def _normal(like: Tensor, std: float, seed: int) -> Tensor:
    # Drawn in float32 on the CPU whatever the parameter's own type and device.
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)) * std


def _uniform(like: Tensor, bound: float, seed: int) -> Tensor:
    return (torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * bound
