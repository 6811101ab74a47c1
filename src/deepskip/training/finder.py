"""A learning rate to begin with: the loss while the rate grows from nothing to too much (Smith 2015, §3.3)."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch.nn import functional

from deepskip.data.batches import normalise, steps_per_epoch, train_batches
from deepskip.data.dataset import Dataset
from deepskip.data.variation import Variation
from deepskip.errors import WorkError
from deepskip.nets.network import Network
from deepskip.training.frozen import Frozen
from deepskip.training.optimiser import make_optimiser
from deepskip.training.precision import autocast, choose_device
from deepskip.training.recipe import Recipe
from deepskip.training.way import usual

LOW, HIGH = 1e-4, 10.0
SMOOTH = 0.9  # decay of the mean of the losses
ENOUGH = 4.0  # times the lowest loss, where the search ends


@dataclass(frozen=True)
class Tried:
    """One step of the search."""

    rate: float
    loss: float
    """Mean of the losses so far, the last ones counting most, in nats."""


def find_rate(
    net: Network,
    data: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    steps: int = 100,
) -> tuple[float, list[Tried]]:
    """Return a peak learning rate for `recipe`, and the search's steps; `net` is left alone.

    Over `steps` batches the rate grows from 1e-4 to 10 by a constant factor. A tenth of the rate at which the
    mean loss is lowest is returned: from there on steps get too long (Smith 2015, arXiv:1506.01186, §3.3, looks
    at the accuracy; the tenth is common practice). Raises WorkError when no rate lowers the loss.
    """
    place = choose_device(device)
    way = usual(place, min(net.spec.input[1:]), precision)
    trial = way.prepare(copy.deepcopy(net).to(place)).train()
    Frozen(trial, recipe.freeze).hold()
    optimiser = make_optimiser(trial, recipe)
    tried: list[Tried] = []
    mean = 0.0
    batches = _batches(data, recipe, seed)
    for step in range(steps):
        rate = LOW * (HIGH / LOW) ** (step / max(1, steps - 1))
        for group in optimiser.param_groups:
            group["lr"] = rate
        images, labels = next(batches)
        with torch.random.fork_rng([place] if place.type == "cuda" else []), autocast(way.precision, place):
            logits = trial(normalise(images.to(place), data.preprocessing))
        loss = functional.cross_entropy(
            logits.float(), labels.to(place), label_smoothing=recipe.label_smoothing
        )
        value = loss.item()
        mean = SMOOTH * mean + (1 - SMOOTH) * value
        smooth = mean / (1 - SMOOTH ** (step + 1))
        if not math.isfinite(value) or (tried and smooth > ENOUGH * min(t.loss for t in tried)):
            break
        tried.append(Tried(rate, smooth))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    batches.close()
    if len(tried) < 2 or min(t.loss for t in tried) >= tried[0].loss:
        raise WorkError(
            "learning-rate search", "no rate that lowers the loss", "a net that trains on this data"
        )
    best = min(tried, key=lambda t: t.loss)
    return float(f"{best.rate / 10:.2g}"), tried


def _batches(
    data: Dataset, recipe: Recipe, seed: int
) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
    """Yield training batches without end, varied as the recipe's plain part says."""
    variation = Variation(augment=data.augment if recipe.augment == "auto" else recipe.augment)
    assert steps_per_epoch(len(data.train), recipe.batch) > 0
    epoch = 0
    while True:
        for batch in train_batches(data.train, data.preprocessing, variation, recipe.batch, seed, epoch):
            yield batch.images, batch.labels
        epoch += 1
