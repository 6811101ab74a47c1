"""A learning rate to begin with: the loss while the rate grows from nothing to too much (Smith 2015, §3.3)."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Generator
from dataclasses import dataclass

from deepskip.data.batches import Batch, train_batches
from deepskip.data.dataset import Dataset
from deepskip.errors import WorkError
from deepskip.nets.network import Network
from deepskip.training.diagnosis import NotFinite
from deepskip.training.distributed import World
from deepskip.training.frozen import Frozen
from deepskip.training.memory import at_once, check, choose, is_out_of_memory, ran_out
from deepskip.training.objective import weights_of
from deepskip.training.plan import agree, variation_of
from deepskip.training.precision import choose_device
from deepskip.training.recipe import Recipe
from deepskip.training.stepper import Stepper
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

    Over `steps` batches the rate grows from 1e-4 to 10 by a constant factor, in steps as the recipe's training
    takes them. A tenth of the rate at which the mean loss is lowest is returned: from there on steps get too
    long (Smith 2015, arXiv:1506.01186, §3.3, looks at the accuracy; the tenth is common practice). Raises
    WorkError when no rate lowers the loss or memory runs out, InputError when net and data do not agree.
    """
    agree(net, data, recipe)
    place = choose_device(device)
    images = at_once(recipe.batch, len(data.train), recipe.accumulate, 1)
    way = usual(place, min(net.spec.input[1:]), precision)
    way = way.keeping(choose(net.spec, images, "auto", way.precision, place))
    check(net.spec, images, way, place)
    trial = copy.deepcopy(net).to(place).train()
    way.prepare(trial)
    Frozen(trial, recipe.freeze).hold()
    weights = weights_of(recipe, data.train.labels, net.spec.classes)
    recipe = recipe.replace(ema=0.0)
    stepper = Stepper(trial, data.preprocessing, recipe, way, World(), seed=seed, weights=weights)
    stepper.begin()
    tried: list[Tried] = []
    mean = 0.0
    with contextlib.closing(_batches(data, recipe, seed, gpu=place.type == "cuda")) as batches:
        for step, batch in enumerate(itertools.islice(batches, steps)):
            rate = LOW * (HIGH / LOW) ** (step / max(1, steps - 1))
            try:
                stepper.step(batch, step, rate)
                stepper.read()
            except NotFinite:
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                raise ran_out(net.spec, images, way, place, "learning-rate search") from error
            mean = SMOOTH * mean + (1 - SMOOTH) * stepper.loss
            smooth = mean / (1 - SMOOTH ** (step + 1))
            if tried and smooth > ENOUGH * min(t.loss for t in tried):
                break
            tried.append(Tried(rate, smooth))
    if len(tried) < 2 or min(t.loss for t in tried) >= tried[0].loss:
        raise WorkError(
            "learning-rate search", "no rate that lowers the loss", "a net that trains on this data"
        )
    best = min(tried, key=lambda t: t.loss)
    return float(f"{best.rate / 10:.2g}"), tried


def _batches(data: Dataset, recipe: Recipe, seed: int, *, gpu: bool) -> Generator[Batch, None, None]:
    """Yield training batches without end, varied as in the recipe's last epoch."""
    variation = variation_of(recipe, data, recipe.epochs - 1, recipe.epochs)
    for epoch in itertools.count():
        yield from train_batches(data.train, data.preprocessing, variation, recipe.batch, seed, epoch, gpu=gpu)
