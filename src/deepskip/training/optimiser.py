"""The optimiser that a recipe names, over what is trained of a network."""

from __future__ import annotations

import torch
from torch import nn

from deepskip.training.muon import Muon
from deepskip.training.recipe import Recipe


def make_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; normalisers and biases (vectors) undecayed unless `decay_all`.

    Frozen parameters are left out. SGD is PyTorch's fused step: one kernel for all tensors.
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    kernels = [p for p in trained if p.ndim == 4 and recipe.optimiser == "muon"]
    decayed = [p for p in trained if p.ndim != 4 or recipe.optimiser != "muon"]
    others = [p for p in decayed if not (p.ndim > 1 or recipe.decay_all)]
    decayed = [p for p in decayed if p.ndim > 1 or recipe.decay_all]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimiser == "muon":
        groups.append({"params": kernels, "weight_decay": recipe.weight_decay, "orthogonal": True})
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "muon":
        convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
        grouped = {c.weight: c.groups for c in convolutions if c.groups > 1}
        return Muon(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, groups=grouped)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=True)
