"""Why a run diverged: where in the network the numbers stopped being finite, and how the gradients grew."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from deepskip.nets.network import Network
from deepskip.training.distributed import at_least_float32


class NotFinite(Exception):  # noqa: N818 - a finding, which the engine turns into DivergedError
    """A loss that is not finite, in words; nothing was changed by the step that met it."""


def diagnose(
    net: Network, images: Tensor, loss: Callable[[Tensor], Tensor], context: AbstractContextManager[object]
) -> str:
    """Return in words what is wrong with a step of `net` on `images` [n, c, h, w], already normalised.

    In the order in which one causes the other: a weight, an activation, a gradient that is not finite; else how
    large the gradients of the first and the last block are. `loss` is of the logits. The network is left alone.
    """
    for name, tensor in net.state_dict().items():
        if not bool(tensor.isfinite().all()):
            return f"{name} is not finite"
    probe = copy.deepcopy(net).train()
    probe.requires_grad_(True)
    outputs = _Outputs(probe)
    try:
        with context:
            logits = probe(images)
        if outputs.first is not None:
            return f"the output of {outputs.first} is not finite (of {outputs.before})"
        loss(at_least_float32(logits)).backward()  # type: ignore[no-untyped-call]
    finally:
        outputs.remove()
    return _gradients(probe)


class _Outputs:
    """Watches the parts of a network for the first whose output is not finite."""

    def __init__(self, net: Network) -> None:
        self.first: str | None = None
        self.before = "images"
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in _parts(net).items()]

    def _hook(self, name: str) -> Callable[..., None]:
        def seen(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if self.first is not None:
                return
            largest = float(output.detach().abs().max()) if output.numel() else 0.0
            if math.isfinite(largest):
                self.before = f"an input of at most {largest:.1e}, out of {name}"
            else:
                self.first = name

        return seen

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _parts(net: Network) -> dict[str, nn.Module]:
    blocks = {
        f"stages.{s}.{b}": block for s, stage in net.stages.items() for b, block in stage.named_children()
    }
    return {"stem": net.stem, **blocks, "head": net.head}


@torch.no_grad()
def _gradients(net: Network) -> str:
    norms: dict[str, float] = {}
    for name, part in _parts(net).items():
        squares = [p.grad.double().square().sum() for p in part.parameters() if p.grad is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    broken = next((name for name in reversed(norms) if not math.isfinite(norms[name])), None)
    if broken is not None:
        return f"the gradient of {broken} is not finite, and of all before it"
    name, largest = max(norms.items(), key=lambda pair: pair[1])
    blocks = [pair for pair in norms.items() if pair[0].startswith("stages.")]
    (first, at_first), (last, at_last) = blocks[0], blocks[-1]
    return (
        f"the gradient is {at_first:.1e} in {first} and {at_last:.1e} in {last}, "
        f"largest in {name} ({largest:.1e})"
    )
