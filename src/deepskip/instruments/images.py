"""The pictures that an instrument looks at: drawn by a seed, in batches, as the network takes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from deepskip.data.augment import none
from deepskip.data.batches import normalise
from deepskip.data.dataset import Dataset, Pixels, Split, UniformImages
from deepskip.errors import InputError
from deepskip.nets.network import Network


class Drawn(NamedTuple):
    """A batch of drawn pictures."""

    x: Tensor
    """[b, c, h, w], normalised, on the network's device and in its precision."""
    labels: Tensor
    """int64 [b], on the same device."""
    indices: Tensor
    """int64 [b]: where in the split they are."""


def drawn(
    net: Network, data: Dataset | Split, *, images: int, batch: int, seed: int, labelled: bool = False
) -> Iterator[Drawn]:
    """Yield `images` pictures of `data` (all, when it has fewer), drawn by `seed`, at most `batch` at a time.

    Of a data set its validation pictures. They are drawn without order, because folders are sorted by class,
    and batches are as even as can be; pictures kept with a margin are shown as evaluation sees them. Only one
    batch is in memory. Raises InputError, before the first batch: for a number below 1, a split that does not
    say how its pictures become inputs, no picture, colours that the network does not take, and, when it is to
    be `labelled`, labels that are none of its classes.
    """
    for where, value in (("images", images), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(where, value, "a whole number from 1", 1)
    split = data.val if isinstance(data, Dataset) else data
    _check(net, split, labelled)
    order = torch.randperm(len(split), generator=Generator().manual_seed(seed))[:images]
    return _batches(net, split, order.tensor_split(-(-len(order) // batch)))


def taken(data: Dataset | Split, images: int) -> int:
    """Return how many pictures `drawn` yields, in all; they come in as few batches as can be."""
    return min(images, len(data.val if isinstance(data, Dataset) else data))


def _check(net: Network, split: Split, labelled: bool) -> None:
    channels, classes = net.spec.input[0], net.spec.classes
    if split.preprocessing is None:
        raise InputError("data", "a split without preprocessing", "a data set, or its `train` or `val`")
    if not len(split):
        raise InputError("data", "no picture", "one or more")
    if split.preprocessing.channels != channels:
        raise InputError(
            "data", f"{split.preprocessing.channels} channels", f"{channels}, as the network takes"
        )
    if labelled and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < classes:
        got = f"labels {int(split.labels.min())} to {int(split.labels.max())}"
        raise InputError("data", got, f"0 to {classes - 1}, the network's classes")


def shown(net: Network, data: Dataset | Split, indices: Tensor) -> Drawn:
    """Return the pictures of `data` at `indices` (int64 [b]), one batch. Raises InputError as `drawn` does."""
    split = data.val if isinstance(data, Dataset) else data
    _check(net, split, labelled=False)
    return _batch(net, split, indices)


def pixels(data: Dataset | Split, indices: Sequence[int]) -> list[Pixels]:
    """Return the pictures of `data` at `indices` as evaluation sees them, each uint8 [h, w, c]: to be drawn."""
    split = data.val if isinstance(data, Dataset) else data
    return [_pixels(split, torch.tensor([i]))[0].numpy() for i in indices]


def _batches(net: Network, split: Split, batches: Iterable[Tensor]) -> Iterator[Drawn]:
    for indices in batches:
        yield _batch(net, split, indices)


def _batch(net: Network, split: Split, indices: Tensor) -> Drawn:
    weight = next(net.parameters())
    assert split.preprocessing is not None
    pictures = _pixels(split, indices).permute(0, 3, 1, 2).to(weight.device)
    x = normalise(pictures, split.preprocessing, weight.dtype)
    return Drawn(x, split.labels[indices].to(weight.device), indices)


def _pixels(split: Split, indices: Tensor) -> Tensor:
    """Return uint8 [b, h, w, c]."""
    if isinstance(split.images, UniformImages):  # final inputs already
        return split.images.gather(indices)
    if split.preprocessing is None:
        raise InputError("data", "a split without preprocessing", "a data set, or its `train` or `val`")
    return none(split.images, indices, split.preprocessing, Generator())
