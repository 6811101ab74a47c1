"""The network: a stem, stages of blocks, a head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepskip.describe.spec import Spec


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first of `tensors` with a value that is not finite; None when there is none."""
    numbers = {name: t.detach() for name, t in tensors.items() if t.is_floating_point() and t.numel()}
    if not numbers:
        return None
    # The largest of each, in one call: of a deep net the tensors are many and small.
    wide = (t if t.itemsize > 1 else t.float() for t in numbers.values())
    largest = torch.stack(torch._foreach_norm(list(wide), math.inf, dtype=torch.float64))
    return next((name for name, one in zip(numbers, largest.isfinite().tolist(), strict=True) if not one), None)


class Network(nn.Module):
    """A built `Spec`: images [n, c, h, w] → logits [n, classes].

    `stages` maps stage ids to blocks by id, so a block is `net.stages["s1"]["b1"]` and its parameters are
    called `stages.s1.b1.branch.conv1.weight`: by the Spec's own ids, never by counting.
    """

    spec: Spec

    def __init__(self, spec: Spec, *, stem: nn.Module, stages: nn.ModuleDict, head: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.stem = stem
        self.stages = stages
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of `images`."""
        x: Tensor = self.stem(images)
        for block in self.blocks():
            x = block(x)
        logits: Tensor = self.head(x)
        return logits

    def blocks(self) -> Iterator[nn.Module]:
        """Yield the blocks in order."""
        for stage in self.stages.values():
            yield from stage.children()

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Copy `state_dict` into the network, as PyTorch does it, in time that grows with the blocks alone.

        PyTorch goes through all of a stage's names for each of its blocks, which takes a minute for thousands
        of them; that is left for what does not fit, to say so in PyTorch's words.
        """
        own = self.state_dict()
        fits = own.keys() == state_dict.keys() and all(
            isinstance(state_dict[name], Tensor) and state_dict[name].shape == tensor.shape
            for name, tensor in own.items()
        )
        if assign or not fits:
            return super().load_state_dict(state_dict, strict, assign)
        for name, tensor in own.items():
            tensor.copy_(state_dict[name])
        return torch.nn.modules.module._IncompatibleKeys([], [])
