"""SGD whose step turns every kernel of a convolution evenly: momentum, made orthogonal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the iteration's polynomial a x + b x³ + c x⁵, which takes singular values from (0, 1] to about 1."""
STEPS = 5
"""Iterations; the singular values then lie between about 0.7 and 1.2."""


class Muon(torch.optim.Optimizer):
    """Momentum SGD in which a convolution's update is the nearest matrix with equal singular values.

    After Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". A kernel [o, i, h, w]
    is taken as the matrix [o, i · h · w]; its update U has about the singular values 1, times √max(1, o /
    (i · h · w)), and moves the weights by lr · U. A grouped convolution's kernel is one matrix of o / groups
    rows for each of its `groups`, which map channels of their own. Parameters of other param groups
    (`orthogonal` false: vectors, the linear layer) take the step of `torch.optim.SGD`. Weight decay is the same
    in both, a shrinking by lr · decay a step, and never part of what is made orthogonal.

    `torch.optim.Muon` refuses what is not a matrix and takes them one by one; here all of one shape go through
    the iteration together, which in a net of many equal blocks is most of them.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        groups: Mapping[Tensor, int] | None = None,
    ) -> None:
        self.groups = dict(groups or {})
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": 0.0,
            "orthogonal": False,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            held = [p for p in group["params"] if p.grad is not None]
            if held:
                self._step(held, group)
        return loss

    def _step(self, params: list[nn.Parameter], group: dict[str, Any]) -> None:
        weights: list[Tensor] = list(params)
        gradients = [p.grad for p in params if p.grad is not None]
        if group["weight_decay"] and not group["orthogonal"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        for p in params:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        moves = buffers
        if group["nesterov"]:
            moves = list(torch._foreach_add(gradients, buffers, alpha=group["momentum"]))
        if group["orthogonal"]:
            moves = _orthogonal(moves, [self.groups.get(p, 1) for p in params])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(weights, moves, alpha=-group["lr"])


def _orthogonal(moves: list[Tensor], groups: list[int]) -> list[Tensor]:
    """Return each of `moves` [o, i, h, w] made orthogonal, a matrix for each of its groups; equals at once."""
    places: dict[tuple[torch.Size, int], list[int]] = {}
    for place, (move, parts) in enumerate(zip(moves, groups, strict=True)):
        places.setdefault((move.shape, parts), []).append(place)
    made = list(moves)
    for (shape, parts), alike in places.items():
        matrices = torch.stack([moves[place].flatten(1) for place in alike])
        matrices = orthogonalise(matrices.view(len(alike) * parts, shape[0] // parts, -1))
        factor = max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
        for place, matrix in zip(alike, (matrices * factor).chunk(len(alike)), strict=True):
            made[place] = matrix.reshape(shape)
    return made


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return U Vᵀ of each matrix U S Vᵀ, about, by a Newton–Schulz iteration; float [n, rows, columns].

    In bf16, as its author has it, where the matrices are float32: the iteration forgives rounding.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x: Tensor = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.bfloat16() if x.dtype == torch.float32 else x
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = x if wide else x.mT
    return found.to(matrices.dtype)
