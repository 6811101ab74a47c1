"""What a recipe means for one net and one data set, before anything is trained."""

from __future__ import annotations

from deepskip.data.batches import shaped
from deepskip.data.dataset import Dataset
from deepskip.data.variation import Variation
from deepskip.describe.ledger import count
from deepskip.errors import ImpossibleError
from deepskip.nets.network import Network
from deepskip.training.recipe import Recipe


def variation_of(recipe: Recipe, data: Dataset, epoch: int, epochs: int) -> Variation:
    """Return what is done to the images of epoch number `epoch`, from 0, of `epochs`."""
    sizes = recipe.sizes
    return Variation(
        augment=data.augment if recipe.augment == "auto" else recipe.augment,
        trivial=recipe.trivial,
        erase=recipe.erase,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        size=sizes[min(epoch * len(sizes) // epochs, len(sizes) - 1)] if sizes else None,
    )


def agree(net: Network, data: Dataset, recipe: Recipe) -> None:
    """Refuse a net, data and a recipe that do not go together. Raises ImpossibleError."""
    if tuple(net.spec.input) != tuple(data.input):
        allowed = f"{tuple(data.input)}, as {data.name} has"
        raise ImpossibleError(
            "net's input", net.spec.input, allowed, f"spec.replace(input={tuple(data.input)})"
        )
    if net.spec.classes != len(data.classes):
        allowed = f"{len(data.classes)}, as {data.name} has"
        raise ImpossibleError(
            "net's classes", net.spec.classes, allowed, f"spec.replace(classes={len(data.classes)})"
        )
    smallest = min(line.outputs.height * line.outputs.width for line in count(net.spec).lines[:-1])
    at_once = min(recipe.batch, len(data.train)) // recipe.accumulate
    if smallest == 1 and at_once < 2:
        got = f"{at_once}, and a last stage of 1×1 pixels"
        raise ImpossibleError("batch", got, "2 or more: batch normalisation needs two values a channel", 2)
    for epoch in range(len(recipe.sizes) or 1):
        shaped(data.preprocessing, variation_of(recipe, data, epoch, len(recipe.sizes) or 1))
