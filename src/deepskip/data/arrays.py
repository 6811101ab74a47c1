"""A data set from arrays in memory: pictures, and a label for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deepskip.data.dataset import Dataset, Pixels, Split, UniformImages, label_map
from deepskip.data.decode import fit, from_pixels
from deepskip.data.variation import Augment
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, choices
from deepskip.seeds import derive

Labels = npt.NDArray[np.int64]
COUNTED = 2**22
"""Pixels that are counted at once: NumPy makes eight bytes of each."""


def from_arrays(
    images: Any,
    labels: Any,
    *,
    val: float | Sequence[Any] = 0.2,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    preprocessing: Preprocessing | None = None,
    augment: Augment = "none",
    name: str = "arrays",
    seed: int = 0,
) -> Dataset:
    """Return pictures in memory as a data set; they are not copied unless they have to be split.

    `images` are uint8 [n, h, w] (grey), [n, h, w, 1] or [n, h, w, 3] (red, green, blue), and `labels` [n] whole
    numbers or names. With `classes` numbers are indices into these, else the classes are what is found. `val`
    is another such pair, or the part of every class that is set aside for validation, drawn from `seed`, with
    at least one of two.

    Pictures are as they are, and must be square; with `size`, in pixels, their shorter side becomes that long,
    and the middle is cut out. `preprocessing` is an existing model's, to be used exactly; else mean and
    standard deviation are those of the training pictures. `augment` is what training does to them where its
    recipe says "auto". Raises InputError.
    """
    pixels = _pictures("images", images)
    given = _given_labels("labels", labels, len(pixels))
    names = _names(np.unique(given) if classes is None else classes)
    indices = classes is not None
    known = _numbers("labels", given, names, indices=indices)
    if isinstance(val, tuple | list):
        train = (pixels, known)
        held = _pair(val, pixels, names, indices=indices)
    else:
        first, second = _sides(known, val, seed)
        train, held = (pixels[first], known[first]), (pixels[second], known[second])
    if preprocessing is None:
        preprocessing = _measured(train[0], size)
    elif size not in (None, preprocessing.size):
        raise InputError("size", size, f"the model's, {preprocessing.size}", preprocessing.size)
    if preprocessing.channels != pixels.shape[-1]:
        got = f"{pixels.shape[-1]} channel{'s' if pixels.shape[-1] > 1 else ''}"
        raise InputError("images", got, f"{preprocessing.channels}, as the model has")
    fixed = preprocessing

    def load_train() -> Split:
        return _split(*train)

    def load_val() -> Split:
        return _split(final(held[0], fixed), held[1])

    return Dataset(name, "", names, fixed, augment, load_train, load_val)


def final(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Return pictures as evaluation sees them, uint8 [n, size, size, c]."""
    if pixels.shape[1:3] == (preprocessing.size, preprocessing.size):
        return pixels
    return np.stack([fit(from_pixels(picture), preprocessing) for picture in pixels])


def _pictures(where: str, images: Any) -> Pixels:
    """Return uint8 [n, h, w, c] with c = 1 or 3. Raises InputError."""
    pixels = np.asarray(images)
    shape = " × ".join(map(str, pixels.shape)) or "a single number"
    if pixels.ndim not in (3, 4):
        raise InputError(where, f"an array of {shape}", "[n, h, w], [n, h, w, 1] or [n, h, w, 3]")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.shape[-1] not in (1, 3):
        first = pixels.shape[1] in (1, 3)
        raise InputError(
            where,
            f"an array of {shape}",
            "[n, h, w], [n, h, w, 1] or [n, h, w, 3]",
            "images.transpose(0, 2, 3, 1), if channels stand before rows" if first else None,
        )
    if not pixels.size:
        raise InputError(where, f"an array of {shape}", "one picture or more, with one pixel or more")
    if pixels.dtype != np.uint8:
        floating = np.issubdtype(pixels.dtype, np.floating)
        hint = "(255 * images).round().astype('uint8'), if they are 0 to 1" if floating else None
        raise InputError(where, f"numbers of type {pixels.dtype}", "uint8, 0 to 255", hint)
    return pixels


def _given_labels(where: str, labels: Any, count: int) -> npt.NDArray[Any]:
    """Return `count` whole numbers or names. Raises InputError."""
    given = np.asarray(labels)
    if given.ndim != 1:
        raise InputError(where, f"an array of {given.ndim} dimensions", "[n], a label for each picture")
    if len(given) != count:
        raise InputError(where, f"{len(given)} labels", f"{count}, one for each picture")
    if given.dtype.kind == "O" and all(isinstance(label, str) for label in given):
        given = given.astype(str)
    if given.dtype.kind not in "iubU":
        raise InputError(where, f"labels of type {given.dtype}", "whole numbers or names")
    return given


def _names(names: Iterable[object]) -> tuple[str, ...]:
    """Return the classes' names. Raises InputError for fewer than two, and for one twice."""
    words = tuple(map(str, names))
    if len(words) < 2:
        raise InputError("classes", f"only one class, {words[0]!r}" if words else "no class", "two or more")
    twice = next((word for i, word in enumerate(words) if word in words[:i]), None)
    if twice is not None:
        raise InputError("classes", f"{twice!r} twice", "names that differ")
    return words


def _numbers(where: str, given: npt.NDArray[Any], names: tuple[str, ...], *, indices: bool) -> Labels:
    """Return every label as an index into `names`, which whole numbers may be already. Raises InputError."""
    found, places = np.unique(given, return_inverse=True)
    if indices and given.dtype.kind != "U":
        wrong = next((one for one in found.tolist() if not 0 <= one < len(names)), None)
        if wrong is not None:
            raise InputError(where, wrong, f"0 to {len(names) - 1}, an index into {choices(names)}")
        return given.astype(np.int64)
    labels = label_map(where, list(map(str, found)), names)
    return np.array([labels[str(one)] for one in found], np.int64)[places]


def _pair(val: Sequence[Any], train: Pixels, names: tuple[str, ...], *, indices: bool) -> tuple[Pixels, Labels]:
    """Return the pictures and labels to validate on. Raises InputError."""
    if len(val) != 2:
        raise InputError("val", f"{len(val)} things", "images and labels, or a part of every class")
    pixels = _pictures("val: images", val[0])
    if pixels.shape[-1] != train.shape[-1]:
        raise InputError(
            "val: images", f"{pixels.shape[-1]} channels", f"{train.shape[-1]}, as the others have"
        )
    labels = _given_labels("val: labels", val[1], len(pixels))
    return pixels, _numbers("val: labels", labels, names, indices=indices)


def _sides(labels: Labels, part: object, seed: int) -> tuple[Labels, Labels]:
    """Return which pictures to train on and which to validate on, in order. Raises InputError."""
    if not isinstance(part, float | int | np.floating) or not 0 < part < 1:
        got = repr(part) if isinstance(part, float | int | np.floating | str) else f"a {type(part).__name__}"
        raise InputError("val", got, "a part between 0 and 1, or images and labels", 0.2)
    shuffled = np.random.default_rng(derive(seed, "split")).permutation(len(labels))
    second: list[int] = []
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        second += members[: min(max(round(part * len(members)), 1), len(members) - 1)].tolist()
    if not second:
        raise InputError("labels", "one picture in each class", "more, so that some can be kept for validation")
    kept = np.zeros(len(labels), bool)
    kept[second] = True
    return np.flatnonzero(~kept), np.flatnonzero(kept)


def _measured(pixels: Pixels, size: int | None) -> Preprocessing:
    """Return the preprocessing for these training pictures. Raises InputError where none is square."""
    height, width, channels = pixels.shape[1:]
    if size is None and height != width:
        got = f"pictures of {height} × {width} pixels"
        raise InputError(
            "images", got, "square ones, or a size: the middle is cut out", f"size={min(height, width)}"
        )
    size = height if size is None else size
    counts = [_levels(pixels[..., c]) for c in range(channels)]
    levels, total = np.arange(256), pixels[..., 0].size
    means = [float(count @ levels) / total for count in counts]
    # At least one grey level, so that it can divide.
    squares = [max(float(n @ levels**2) / total - m**2, 1.0) for n, m in zip(counts, means, strict=True)]
    return Preprocessing(
        size=size,
        resize=size,
        colour="L" if channels == 1 else "RGB",
        mean=tuple(round(mean / 255, 6) for mean in means),
        std=tuple(round(square**0.5 / 255, 6) for square in squares),
    )


def _levels(channel: Pixels) -> Labels:
    """Return how many pixels of uint8 [n, h, w] have each of the 256 levels."""
    each = max(1, COUNTED // max(1, channel[0].size))
    parts = (channel[start : start + each] for start in range(0, len(channel), each))
    return sum((np.bincount(part.ravel(), minlength=256) for part in parts), np.zeros(256, np.int64))


def _split(pixels: Pixels, labels: Labels) -> Split:
    return Split(UniformImages(pixels), torch.from_numpy(labels))
