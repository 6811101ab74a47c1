"""The learning rate as a function of the step."""

from __future__ import annotations

import math

from deepskip.training.recipe import Recipe

START = 25  # a warm-up begins at lr / 25


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the rate for step `step` (0 … steps - 1) of a schedule that lasts `steps` steps.

    "one_cycle": linear up, then cosine down to 0 (after Smith 2018, arXiv:1708.07120); "cosine": Loshchilov
    and Hutter 2017, arXiv:1608.03983, equation 5, without restarts; "step": He et al. 2015, §4.2.
    """
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return recipe.lr * (1 + (START - 1) * (step + 1) / warmup) / START
    if recipe.schedule in ("one_cycle", "cosine"):
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    if recipe.schedule == "step":
        passed = sum(step >= round(share * steps) for share in recipe.milestones)
        return float(recipe.lr / 10**passed)
    return recipe.lr
