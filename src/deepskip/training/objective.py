"""What training makes small: cross-entropy, its targets smoothed, mixed, and weighed by class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from deepskip.data.batches import Batch
from deepskip.training.recipe import Recipe


def summed_loss(logits: Tensor, batch: Batch, recipe: Recipe, weights: Tensor | None) -> Tensor:
    """Return the cross-entropy of float32 `logits` [b, classes], summed over the batch's images, in nats.

    With mixing, each image's is the mean over its two labels by their shares (Zhang et al. 2018,
    arXiv:1710.09412, equation 1, the loss being linear in the target). `weights` [classes] multiplies images by
    their class; the sum is not divided by them.
    """
    loss = _one(logits, batch.labels, recipe, weights)
    if batch.others is None:
        return loss
    return batch.weight * loss + (1 - batch.weight) * _one(logits, batch.others, recipe, weights)


def wrong(logits: Tensor, batch: Batch) -> Tensor:
    """Return how many images of the batch have another most probable class than their (larger) label."""
    labels = batch.others if batch.others is not None and batch.weight < 0.5 else batch.labels
    return (logits.detach().argmax(1) != labels).sum()


def weights_of(recipe: Recipe, labels: Tensor, classes: int) -> Tensor | None:
    """Return the weights [classes] that the recipe gives to classes; None when all count alike."""
    return class_weights(labels, classes) if recipe.class_weights == "balanced" else None


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return float32 [classes]: n / (classes · n of the class), so that every class has the same sum.

    A class without images has 0; over all of `labels` [n] the mean weight is 1 when none is missing.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0)


def _one(logits: Tensor, labels: Tensor, recipe: Recipe, weights: Tensor | None) -> Tensor:
    return functional.cross_entropy(
        logits, labels, weight=weights, label_smoothing=recipe.label_smoothing, reduction="sum"
    )
