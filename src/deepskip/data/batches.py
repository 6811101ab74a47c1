"""Batches: each a pure function of the seed, the epoch and its index, built a little ahead of their use."""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from deepskip.data.ahead import ahead
from deepskip.data.augment import AUGMENTS, none
from deepskip.data.dataset import Split, UniformImages
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, choices, nearest
from deepskip.seeds import derive

WINDOW = 2
"""Finished batches that wait at most, for each thread."""


class Batch(NamedTuple):
    """Pictures and their labels."""

    images: Tensor
    """uint8 [b, c, size, size], in channels-last memory order."""
    labels: Tensor
    """int64 [b]."""


def steps_per_epoch(n: int, batch: int) -> int:
    """Return how many batches an epoch over `n` pictures has.

    The last one may be smaller, but a lone last picture joins the batch before it: batch normalisation has
    no variance to divide by when there is one. Raises InputError.
    """
    if batch < 1:
        raise InputError("batch", batch, "1 or more", 1)
    lone = n % batch == 1 and n > batch
    return n // batch if lone else -(-n // batch)


def train_batches(
    split: Split,
    preprocessing: Preprocessing,
    augment: str,
    batch: int,
    seed: int,
    epoch: int,
    start: int = 0,
) -> Generator[Batch, None, None]:
    """Yield an epoch's batches, from the one with index `start` on.

    The order depends on (seed, epoch), a batch's augmentation on (seed, epoch, its index), so an epoch can be
    resumed anywhere. Threads that build ahead end with the iterator: exhaust it or close it. Raises
    InputError for an unknown augmentation.
    """
    if augment not in AUGMENTS:
        raise InputError("augment", repr(augment), choices(AUGMENTS), nearest(augment, AUGMENTS))
    vary, steps = AUGMENTS[augment], steps_per_epoch(len(split), batch)
    order = torch.randperm(len(split), generator=_generator(seed, "shuffle", epoch))

    def build(index: int) -> Batch:
        last = index == steps - 1
        indices = order[index * batch :] if last else order[index * batch : (index + 1) * batch]
        images = vary(split.images, indices, preprocessing, _generator(seed, "augment", epoch, index))
        return Batch(images.permute(0, 3, 1, 2), split.labels[indices])

    threads = _threads()
    return ahead(build, range(start, steps), threads=threads, window=(WINDOW + 1) * threads)


def eval_batches(
    split: Split, batch: int, preprocessing: Preprocessing | None = None
) -> Generator[Batch, None, None]:
    """Yield all pictures in order, as final inputs.

    A validation split holds final inputs already; for a training split kept with a margin, `preprocessing`
    says how they become some. Raises InputError when it is needed and not given.
    """
    if batch < 1:
        raise InputError("batch", batch, "1 or more", 1)
    if preprocessing is None and not isinstance(split.images, UniformImages):
        raise InputError("preprocessing", None, "one, for training pictures kept with a margin")

    def build(start: int) -> Batch:
        indices = torch.arange(start, min(start + batch, len(split)))
        if preprocessing is None:
            assert isinstance(split.images, UniformImages)
            images = split.images.gather(indices)
        else:
            images = none(split.images, indices, preprocessing, torch.Generator())
        return Batch(images.permute(0, 3, 1, 2), split.labels[indices])

    return ahead(build, range(0, len(split), batch), threads=1, window=WINDOW + 1)


def normalise(images: Tensor, preprocessing: Preprocessing, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return `(images / 255 - mean) / std` of uint8 [b, c, h, w] as `dtype`, on the same device.

    Memory order stays too. Computed in float32, or in float64 when that is asked for.
    """
    precision = torch.float64 if dtype == torch.float64 else torch.float32
    scale, shift = _scale_and_shift(preprocessing.mean, preprocessing.std, precision, images.device)
    return images.to(precision).mul_(scale).add_(shift).to(dtype)


@lru_cache(maxsize=32)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    # Kept, because copying them to a GPU for every batch would wait for the work queued there.
    scale = [1 / (255 * deviation) for deviation in std]
    shift = [-average / deviation for average, deviation in zip(mean, std, strict=True)]
    return (
        torch.tensor(scale, dtype=dtype, device=device).reshape(1, -1, 1, 1),
        torch.tensor(shift, dtype=dtype, device=device).reshape(1, -1, 1, 1),
    )


def _generator(*purpose: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(*purpose))


def _threads() -> int:
    # Enough to keep a GPU fed, and most cores left to a network that trains on the CPU.
    return min(8, max(1, (os.cpu_count() or 1) // 4))
