"""The built-in data sets as data sets: opened by name, for a new network or for an existing model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from deepskip.data.copies import find_copy
from deepskip.data.dataset import Dataset, Pixels, Progress, Split, UniformImages, label_map
from deepskip.data.layouts import Arrays
from deepskip.data.published import PUBLISHED, Part
from deepskip.describe.preprocessing import Colour, Preprocessing
from deepskip.errors import InputError


def open_built_in(
    name: str,
    *,
    preprocessing: Preprocessing | None = None,
    classes: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Return the built-in data set `name`; downloads it now when this machine has no copy.

    For an existing model give its `preprocessing`, whose size must be the data's own (colours are converted),
    and its `classes`, which must hold the data's. Raises InputError for those and, when a split is read, for
    damaged files; WorkError when a download fails.
    """
    known = PUBLISHED[name]
    chosen = known.preprocessing if preprocessing is None else preprocessing
    classes = known.classes if classes is None else classes
    labels = label_map(name, known.classes, classes)  # before the size: that of other pictures is no news
    if (chosen.size, chosen.resize) != (known.size, known.size):
        got = f"size {chosen.size} of pictures resized to {chosen.resize}"
        raise InputError(name, got, f"size {known.size}, its pictures' own", known.size)
    renumbered = np.array([labels[own] for own in known.classes])
    read: Callable[[Part], Arrays] = find_copy(known, progress).read if known.layouts else _read_digits

    def load(part: Part) -> Split:
        pixels, found = read(part)
        return Split(UniformImages(_coloured(pixels, chosen.colour)), torch.from_numpy(renumbered[found]))

    return Dataset(name, name, classes, chosen, known.augment, partial(load, "train"), partial(load, "val"))


def _read_digits(part: Part) -> Arrays:
    """Return one side of a fixed split of scikit-learn's 1,797 digits, every class in proportion."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    counts = PUBLISHED["digits"].pictures
    pictures, labels = load_digits(return_X_y=True)
    everything = np.arange(len(labels))
    train, val = train_test_split(everything, test_size=counts["val"], stratify=labels, random_state=0)
    chosen = np.sort(train if part == "train" else val)
    pixels = np.round(pictures[chosen] * (255 / 16)).astype(np.uint8)  # published as 0 to 16
    return pixels.reshape(-1, 8, 8, 1), labels[chosen].astype(np.int64)


def _coloured(pixels: Pixels, colour: Colour) -> Pixels:
    """Return uint8 [n, h, w, c] in `colour`, as decoding a file of each picture would."""
    channels = pixels.shape[-1]
    if channels == len(colour):
        return pixels
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    # Luma of ITU-R BT.601 in 16 bits, rounded: what Pillow computes.
    luma = pixels.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000
    return (luma >> 16).astype(np.uint8)[..., None]
