"""TrivialAugment: one random operation of random strength on each picture (Müller and Hutter 2021,
arXiv:2103.10158), from the paper's wide space, as Pillow does it, which its authors used.

Operations that only replace levels by others are done by numpy to all of a batch's pictures at once, with
Pillow's results: Pillow makes their tables one number at a time, in the interpreter that training needs too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageEnhance
from torch import Generator, Tensor

from deepskip.data.augment import mean_colour
from deepskip.data.dataset import Pixels
from deepskip.data.decode import from_pixels
from deepskip.describe.preprocessing import Preprocessing

STRENGTHS = 31
"""Strengths are drawn evenly from 0, 1/30 … 1."""

Fill = int | tuple[int, ...]
Strengths = npt.NDArray[np.float64]
Operation = Callable[[Pixels, Strengths, Fill], Pixels]
"""Takes pictures, uint8 [k, h, w, c], a strength from -1 to 1 for each (the sign is a side, where there are
two), float64 [k], and the colour of what is empty; returns the pictures changed, in the same form."""

_LEVELS = np.arange(256)


def _each(change: Callable[[Image.Image, float, Fill], Image.Image]) -> Operation:
    """Return the operation that makes this change to one picture at a time."""

    def operation(pixels: Pixels, strengths: Strengths, fill: Fill) -> Pixels:
        changed = np.empty_like(pixels)
        for position, strength in enumerate(strengths.tolist()):
            image = change(from_pixels(pixels[position]), strength, fill)
            changed[position] = np.asarray(image).reshape(pixels.shape[1:])
        return changed

    return operation


def _affine(matrix: Callable[[float], tuple[float, ...]]) -> Operation:
    return _each(
        lambda image, strength, fill: image.transform(
            image.size, Image.Transform.AFFINE, matrix(strength), fillcolor=fill
        )
    )


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return _each(lambda image, strength, fill: kind(image).enhance(1 + 0.99 * strength))


def _rotated(image: Image.Image, strength: float, fill: Fill) -> Image.Image:
    return image.rotate(135 * strength, fillcolor=fill)


def _numbered(pixels: Pixels) -> npt.NDArray[np.int64]:
    """Return level + 256 * (channel + c * picture) for each of `pixels`, uint8 [k, h, w, c]."""
    count, _, _, channels = pixels.shape
    numbered: npt.NDArray[np.int64] = pixels + 256 * np.arange(count * channels).reshape(count, 1, 1, channels)
    return numbered


def _by_level(pixels: Pixels, tables: npt.NDArray[np.int64]) -> Pixels:
    """Return `pixels` with each level replaced by the one in its channel's table, int64 [k, c, 256]."""
    replaced: Pixels = tables.astype(np.uint8).ravel().take(_numbered(pixels))
    return replaced


def _histograms(pixels: Pixels) -> npt.NDArray[np.int64]:
    """Return how often each level is there, int64 [k, c, 256]."""
    count, _, _, channels = pixels.shape
    counts = np.bincount(_numbered(pixels).ravel(), minlength=count * channels * 256)
    return counts.reshape(count, channels, 256)


def _highest(seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the highest level seen, int64 [k, c, 1]."""
    highest: npt.NDArray[np.int64] = 255 - seen[..., ::-1].argmax(-1)[..., None]
    return highest


def auto_contrast(pixels: Pixels, strengths: Strengths, fill: Fill) -> Pixels:
    """Stretch each channel to all levels, as `ImageOps.autocontrast`; knows no strength."""
    seen = _histograms(pixels) > 0
    low, high = seen.argmax(-1)[..., None], _highest(seen)
    scale = 255.0 / np.maximum(high - low, 1)
    tables = (_LEVELS * scale - low * scale).astype(np.int64).clip(0, 255)
    return _by_level(pixels, np.where(high > low, tables, _LEVELS))


def equalize(pixels: Pixels, strengths: Strengths, fill: Fill) -> Pixels:
    """Use all levels of each channel equally often, as `ImageOps.equalize`; knows no strength."""
    counts = _histograms(pixels)
    last = np.take_along_axis(counts, _highest(counts > 0), -1)
    step = (counts.sum(-1, keepdims=True) - last) // 255
    below = np.cumsum(counts, -1) - counts
    tables = ((step // 2 + below) // np.maximum(step, 1)).clip(0, 255)
    return _by_level(pixels, np.where(step > 0, tables, _LEVELS))


def solarize(pixels: Pixels, strengths: Strengths, fill: Fill) -> Pixels:
    """Turn levels from a threshold on into their opposites, as `ImageOps.solarize`."""
    thresholds = np.round(256 * (1 - np.abs(strengths))).reshape(-1, 1, 1, 1)
    return np.where(pixels < thresholds, pixels, 255 - pixels)


def posterize(pixels: Pixels, strengths: Strengths, fill: Fill) -> Pixels:
    """Keep the highest 8 to 2 bits of each level, as `ImageOps.posterize`."""
    lost = np.round(6 * np.abs(strengths)).astype(np.uint8).reshape(-1, 1, 1, 1)
    return pixels >> lost << lost


OPERATIONS: dict[str, Operation] = {
    "identity": lambda pixels, strengths, fill: pixels,
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "rotate": _each(_rotated),
    "solarize": solarize,
    "posterize": posterize,
    "colour": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": _affine(lambda strength: (1, 0.99 * strength, 0, 0, 1, 0)),
    "shear_y": _affine(lambda strength: (1, 0, 0, 0.99 * strength, 1, 0)),
    "translate_x": _affine(lambda strength: (1, 0, 32 * strength, 0, 1, 0)),
    "translate_y": _affine(lambda strength: (1, 0, 0, 0, 1, 32 * strength)),
}
"""The paper's "wide" space. Where the reference paints what is empty black, here it is the mean colour."""


def trivial(
    pixels: Tensor,
    preprocessing: Preprocessing,
    generator: Generator,
    batch: int,
    keep: Tensor | None = None,
) -> None:
    """Change each of `pixels` in place by one of `OPERATIONS`, evenly drawn.

    `pixels` is uint8 [k, h, w, c], the pictures at positions `keep` of a batch of `batch`.
    """
    drawn = torch.randint(len(OPERATIONS), (batch,), generator=generator)
    strengths = torch.randint(STRENGTHS, (batch,), generator=generator).double() / (STRENGTHS - 1)
    strengths *= torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    if keep is not None:
        drawn, strengths = drawn[keep], strengths[keep]
    colour, canvas = mean_colour(preprocessing).tolist(), pixels.numpy()
    fill = colour[0] if len(colour) == 1 else tuple(colour)
    for number, operation in enumerate(OPERATIONS.values()):
        chosen = (drawn == number).nonzero()[:, 0].numpy()
        if len(chosen):
            canvas[chosen] = operation(canvas[chosen], strengths.numpy()[chosen], fill)
