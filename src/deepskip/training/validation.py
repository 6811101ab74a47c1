"""The validation images, scored by all processes that train together, each image once."""

from __future__ import annotations

import itertools

import torch

from deepskip.data.dataset import Dataset, Split, UniformImages
from deepskip.nets.network import Network
from deepskip.scoring import Score, predict_logits, score_logits
from deepskip.training.distributed import World
from deepskip.training.precision import without_denormals


def score_together(net: Network, data: Dataset, world: World) -> Score:
    """Return the score of `net` on `data`'s validation images, whoever computed which of them."""
    parts = shares(data.val, world)
    own = parts[world.rank]
    # Of fewer images than processes some have none.
    device = next(net.parameters()).device
    with without_denormals(device):
        logits = predict_logits(net, own, data.preprocessing) if len(own) else torch.empty(0, net.spec.classes)
    everywhere = world.gather(logits.to(device), [len(part) for part in parts]).cpu()
    return score_logits(everywhere, data.val.labels)


def shares(split: Split, world: World) -> list[Split]:
    """Return the split's images in as many runs as there are processes, as even as can be."""
    if world.ranks == 1:
        return [split]
    assert isinstance(split.images, UniformImages)
    edges = [len(split) * rank // world.ranks for rank in range(world.ranks + 1)]
    return [
        Split(UniformImages(split.images.pixels[low:high]), split.labels[low:high])
        for low, high in itertools.pairwise(edges)
    ]
