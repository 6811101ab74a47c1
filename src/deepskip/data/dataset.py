"""What a data set is: named classes and two splits of uint8 pictures, each read only when it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepskip.data.variation import Augment
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, choices, nearest

Pixels: TypeAlias = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`: what is being done, in words, and how far it is."""


class Images(Protocol):
    """Pictures in a fixed order. `images[i]` is uint8 [h, w, c]; it may be a read-only view of a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pixels: ...


class UniformImages:
    """Pictures of one size: `pixels` is uint8 [n, h, w, c], in memory or mapped from a file."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels: Pixels = np.asarray(pixels)  # a plain view: memmap's own indexing is slow

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Pixels:
        picture: Pixels = self.pixels[index]
        return picture

    def gather(self, indices: Tensor) -> Tensor:
        """Return a copy of the pictures at `indices` (int64 [b]) as uint8 [b, h, w, c]."""
        return torch.from_numpy(self.pixels[indices.numpy()])


class RaggedImages:
    """Pictures of many sizes, end to end in `pixels` (uint8 [total], usually mapped from a file).

    Picture `i` is `pixels[offsets[i]:offsets[i + 1]]` with height and width `shapes[i]`.
    """

    def __init__(
        self, pixels: Pixels, offsets: npt.NDArray[np.int64], shapes: npt.NDArray[np.int32], channels: int
    ) -> None:
        self.pixels: Pixels = np.asarray(pixels)
        self.offsets, self.shapes, self.channels = offsets, shapes, channels

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Pixels:
        height, width = self.shapes[index]
        start = self.offsets[index]  # an index out of range has raised IndexError in the line above
        return self.pixels[start : start + height * width * self.channels].reshape(height, width, -1)


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set: pictures, their labels, and where they came from."""

    images: Images
    labels: Tensor
    """int64 [n], an index into the data set's classes for each picture."""
    files: tuple[str, ...] = ()
    """Each picture's file, relative to the split's folder; empty for built-in data."""
    hashes: tuple[str, ...] = ()
    """Each picture's file's SHA-256, in hexadecimal; empty for built-in data."""
    broken: tuple[str, ...] = ()
    """Files that could not be read and are left out, each as `file: reason`."""
    preprocessing: Preprocessing | None = None
    """How its pictures become inputs: the data set's own, which fills it in."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that depend on every picture's content, their order and their labels."""
        digest = hashlib.sha256(self.labels.numpy().tobytes())
        for index in range(len(self)):
            if self.hashes:
                digest.update(bytes.fromhex(self.hashes[index]))
            else:
                picture = self.images[index]
                digest.update(repr(picture.shape).encode() + picture.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named classes, how pictures become inputs, and two splits; a split is read when it is first asked for.

    Pictures in `val` are final inputs (`size` x `size`, by the function that predicting uses); pictures in
    `train` may be larger, with room for the augmentation.
    """

    name: str
    source: str
    """What opens it again, in this process or another: the built-in name, or the folder's absolute path; empty
    where nothing does, as for arrays in memory."""
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    augment: Augment
    """The augmentation natural for this data."""
    load_train: Callable[[], Split]
    load_val: Callable[[], Split]

    @cached_property
    def train(self) -> Split:
        """The pictures to learn from. May decode a folder first; raises InputError or WorkError."""
        return self._own(self.load_train())

    @cached_property
    def val(self) -> Split:
        """The pictures to measure on. May decode a folder first; raises InputError or WorkError."""
        return self._own(self.load_val())

    def _own(self, split: Split) -> Split:
        return replace(split, preprocessing=self.preprocessing)

    @property
    def input(self) -> tuple[int, int, int]:
        """The shape of one input: channels, height, width."""
        return self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size

    @property
    def broken(self) -> tuple[str, ...]:
        """Files of both splits that could not be read, each as `split: file: reason`. Reads both splits."""
        parts = (("train", self.train), ("val", self.val))
        return tuple(f"{name}: {entry}" for name, split in parts for entry in split.broken)

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that depend on the classes and on both splits' content. Reads both splits.

        Equal wherever the data lies and whenever its files were written.
        """
        parts = (*self.classes, self.train.fingerprint, self.val.fingerprint)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def label_map(where: object, found: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """Return the index in `classes` of every class in `found`.

    Raises InputError at `where`, naming the first class of `found` that `classes` lacks.
    """
    index = {name: label for label, name in enumerate(classes)}
    for name in found:
        if name not in index:
            raise InputError(where, f"unknown class {name!r}", choices(classes), nearest(name, classes))
    return {name: index[name] for name in found}
