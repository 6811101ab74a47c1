"""The optimiser that a recipe names, over what is trained of a network."""

from __future__ import annotations

import torch
from torch import nn

from deepskip.training.recipe import Recipe


def make_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Return SGD over `net`'s parameters; normalisers and biases (vectors) undecayed unless `decay_all`.

    Frozen parameters are left out. PyTorch's fused step: one kernel for all tensors.
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1 or recipe.decay_all]
    others = [p for p in trained if not (p.ndim > 1 or recipe.decay_all)]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=True,
    )
