"""Batches: each a pure function of the seed, the epoch and its index, built a little ahead of their use."""

from __future__ import annotations

import os
from collections.abc import Generator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from deepskip.data.ahead import ahead
from deepskip.data.augment import AUGMENTS, erase, none
from deepskip.data.dataset import Split, UniformImages
from deepskip.data.mixing import draw_mix, mix
from deepskip.data.trivial import trivial
from deepskip.data.variation import Variation
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from deepskip.seeds import derive

WINDOW = 2
"""Finished batches that wait at most, for each thread."""


class Batch(NamedTuple):
    """Pictures and their labels: a whole batch, or one process's share of it."""

    images: Tensor
    """uint8 [b, c, size, size], in channels-last memory order."""
    labels: Tensor
    """int64 [b]."""
    others: Tensor | None = None
    """Labels of the pictures mixed in, int64 [b]; None where none are."""
    weight: float = 1.0
    """Share of `labels` in the target; `others` have the rest. The same for all of a batch."""
    total: int = 0
    """Pictures in the whole batch, over all processes."""
    copies: int = 1
    """Processes that have these same pictures: more than one where a batch is too small to be shared."""

    def pinned(self) -> Batch:
        """Return the batch in memory that a GPU copies from while the program goes on."""
        others = None if self.others is None else self.others.pin_memory()
        return self._replace(images=self.images.pin_memory(), labels=self.labels.pin_memory(), others=others)


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
    variation: Variation,
    batch: int,
    seed: int,
    epoch: int,
    start: int = 0,
    *,
    rank: int = 0,
    ranks: int = 1,
    gpu: bool = False,
) -> Generator[Batch, None, None]:
    """Yield an epoch's batches, from the one with index `start` on, or process `rank`'s share of each.

    The order depends on (seed, epoch), how a batch is varied on (seed, epoch, its index), so an epoch can be
    resumed anywhere. The shares of all `ranks` processes, in order, make up the batch of one process bit for
    bit, and differ by one picture at most. A batch with fewer than two pictures a process (one has no variance
    to normalise by) is not shared: every process gets all of it. For a GPU they are in pinned memory, and
    built by more threads. Threads that build ahead end with the iterator: exhaust it or close it.

    Raises InputError for a batch below 1, a rank outside `ranks`, or a size that `variation.augment` cannot
    make.
    """
    if not 0 <= rank < ranks:
        raise InputError("rank", f"{rank} of {ranks}", f"0 to {ranks - 1}" if ranks > 0 else "1 rank or more")
    prepared, steps = shaped(preprocessing, variation), steps_per_epoch(len(split), batch)
    order = torch.randperm(len(split), generator=_generator(seed, "shuffle", epoch))

    def build(index: int) -> Batch:
        return made(index).pinned() if gpu else made(index)

    def made(index: int) -> Batch:
        last = index == steps - 1
        indices = order[index * batch :] if last else order[index * batch : (index + 1) * batch]
        total = len(indices)
        copies = ranks if total < 2 * ranks else 1
        low, high = (0, total) if copies > 1 else (rank * total // ranks, (rank + 1) * total // ranks)
        keep = torch.arange(low, high)
        mixing = draw_mix(variation, prepared.size, _generator(seed, "mix", epoch, index))
        if mixing is None:
            images = _varied(split, prepared, variation, indices, keep, (seed, epoch, index))
            return Batch(images.permute(0, 3, 1, 2), split.labels[indices[keep]], total=total, copies=copies)
        # Each is mixed with the picture before it: one more than is kept, and none where none are.
        needed = torch.cat([keep[:1] - 1, keep]) % total
        images = _varied(split, prepared, variation, indices, needed, (seed, epoch, index))
        labels = split.labels[indices[needed]]
        mixed = mix(images[1:], images[:-1], mixing)
        return Batch(mixed.permute(0, 3, 1, 2), labels[1:], labels[:-1], mixing.share, total, copies)

    threads = _threads(gpu, ranks)
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
        return Batch(images.permute(0, 3, 1, 2), split.labels[indices], total=len(indices))

    return ahead(build, range(0, len(split), batch), threads=1, window=WINDOW + 1)


def normalise(images: Tensor, preprocessing: Preprocessing, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return `(images / 255 - mean) / std` of uint8 [b, c, h, w] as `dtype`, on the same device.

    Memory order stays too. Computed in float32, or in float64 when that is asked for.
    """
    precision = torch.float64 if dtype == torch.float64 else torch.float32
    scale, shift = scale_and_shift(preprocessing.mean, preprocessing.std, precision, images.device)
    return images.to(precision).mul_(scale).add_(shift).to(dtype)


def shaped(preprocessing: Preprocessing, variation: Variation) -> Preprocessing:
    """Return `preprocessing` with the size that training pictures shall have. Raises InputError."""
    size = variation.size
    if size is None or size == preprocessing.size:
        return preprocessing
    if variation.augment != "photo":
        got, usual = f"{size} with augment {variation.augment!r}", preprocessing.size
        raise InputError("size", got, f"{usual}, the pictures' own, or augment 'photo'", usual)
    return preprocessing.replace(size=size, resize=max(size, preprocessing.resize))


def _varied(
    split: Split,
    preprocessing: Preprocessing,
    variation: Variation,
    indices: Tensor,
    keep: Tensor,
    purpose: tuple[int, int, int],
) -> Tensor:
    """Return uint8 [k, size, size, c]: the pictures at positions `keep` of the batch that `indices` are.

    `purpose` is seed, epoch and the batch's index; everything is drawn for the whole batch, from them alone.
    """
    seed, *place = purpose
    batch, augment = len(indices), AUGMENTS[variation.augment]
    pixels = augment(split.images, indices, preprocessing, _generator(seed, "augment", *place), keep)
    if variation.trivial:
        trivial(pixels, preprocessing, _generator(seed, "trivial", *place), batch, keep)
    if variation.erase:
        erase(pixels, variation.erase, preprocessing, _generator(seed, "erase", *place), batch, keep)
    return pixels


@lru_cache(maxsize=32)
def scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return what pixels from 0 to 255 are multiplied by and what is added then, as [1, c, 1, 1] each."""
    # Kept, because copying them to a GPU for every batch would wait for the work queued there.
    scale = [1 / (255 * deviation) for deviation in std]
    shift = [-average / deviation for average, deviation in zip(mean, std, strict=True)]
    return (
        torch.tensor(scale, dtype=dtype, device=device).reshape(1, -1, 1, 1),
        torch.tensor(shift, dtype=dtype, device=device).reshape(1, -1, 1, 1),
    )


def _generator(*purpose: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(*purpose))


def _threads(gpu: bool, ranks: int) -> int:
    # Enough to keep a GPU fed, and most cores left to a network that trains on the CPU.
    share = (os.cpu_count() or 1) // (2 * ranks if gpu else 4)
    return min(8, max(1, share))
