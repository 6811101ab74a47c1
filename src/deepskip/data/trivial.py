"""TrivialAugment: one random operation of random strength on each picture (Müller and Hutter 2021,
arXiv:2103.10158), from the paper's wide space, by the Pillow functions that its authors used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Generator, Tensor

from deepskip.data.augment import mean_colour
from deepskip.data.decode import from_pixels
from deepskip.describe.preprocessing import Preprocessing

STRENGTHS = 31
"""Strengths are drawn evenly from 0, 1/30 … 1."""

Fill = int | tuple[int, ...]
Operation = Callable[[Image.Image, float, Fill], Image.Image]
"""Takes the picture, a strength from -1 to 1 (a side where there are two), and the colour of what is empty."""


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Fill) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, fillcolor=fill)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength, fill: kind(image).enhance(1 + 0.99 * strength)


OPERATIONS: dict[str, Operation] = {
    "identity": lambda image, strength, fill: image,
    "auto_contrast": lambda image, strength, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, strength, fill: ImageOps.equalize(image),
    "rotate": lambda image, strength, fill: image.rotate(135 * strength, fillcolor=fill),
    "solarize": lambda image, strength, fill: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    "posterize": lambda image, strength, fill: ImageOps.posterize(image, 8 - round(6 * abs(strength))),
    "colour": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
    "shear_x": lambda image, strength, fill: _affine(image, (1, 0.99 * strength, 0, 0, 1, 0), fill),
    "shear_y": lambda image, strength, fill: _affine(image, (1, 0, 0, 0.99 * strength, 1, 0), fill),
    "translate_x": lambda image, strength, fill: _affine(image, (1, 0, 32 * strength, 0, 1, 0), fill),
    "translate_y": lambda image, strength, fill: _affine(image, (1, 0, 0, 0, 1, 32 * strength), fill),
}
"""Table 6 of the paper, "wide". Where the reference paints what is empty black, here it is the mean colour."""


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
    operations = torch.randint(len(OPERATIONS), (batch,), generator=generator)
    strengths = torch.randint(STRENGTHS, (batch,), generator=generator).double() / (STRENGTHS - 1)
    strengths *= torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    if keep is not None:
        operations, strengths = operations[keep], strengths[keep]
    colour, canvas, table = mean_colour(preprocessing).tolist(), pixels.numpy(), list(OPERATIONS.values())
    fill = colour[0] if len(colour) == 1 else tuple(colour)
    drawn = zip(operations.tolist(), strengths.tolist(), strict=True)
    for position, (operation, strength) in enumerate(drawn):
        image = table[operation](from_pixels(canvas[position]), strength, fill)
        canvas[position] = np.asarray(image).reshape(canvas.shape[1:])
