"""How sure a net has to be, for its answers to be right as often as they shall be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepskip.errors import InputError
from deepskip.instruments.intervals import wilson


@dataclass(frozen=True)
class Threshold:
    """Answers of at least this probability are taken, others are left open."""

    probability: float
    """0 to 1."""
    n: int
    """Images whose answer is taken."""
    coverage: float
    """Their share of all images, in percent."""
    precision: float
    """How many of them are right, in percent."""
    precision_low: float
    precision_high: float
    """The 95% interval of that (Wilson), as if the threshold had not been chosen on the same images."""


def threshold(logits: Tensor, labels: Tensor, wanted: float) -> Threshold | None:
    """Return the lowest probability from which on `wanted` percent of the answers are right; None if there is
    none.

    `logits` [n, classes] against `labels` [n]. What is taken is every image whose most probable class has at
    least that probability. Raises InputError when `wanted` is no percentage above 0.
    """
    if not 0 < wanted <= 100:
        raise InputError("precision", wanted, "a percentage above 0 and up to 100", min(max(wanted, 1), 100))
    probability, predicted = logits.double().softmax(1).max(1)
    probability, order = probability.sort(descending=True)
    right = (predicted == labels)[order].cumsum(0)
    taken = torch.arange(1, len(right) + 1)
    # Images of one probability are taken together, or the threshold would not say which of them are.
    last = torch.ones_like(taken, dtype=torch.bool)
    last[:-1] = probability[:-1] > probability[1:]
    enough = (last & (100 * right >= wanted * taken)).nonzero()
    if not len(enough):
        return None
    at = int(enough.max())
    n, hits = at + 1, int(right[at])
    wrong_low, wrong_high = wilson(n - hits, n)
    return Threshold(
        probability=float(probability[at]),
        n=n,
        coverage=100 * n / len(labels),
        precision=100 * hits / n,
        precision_low=100 - wrong_high,
        precision_high=100 - wrong_low,
    )
