"""Training pictures, varied: a batch at a time, as a function of the pictures and a random generator.

Each takes `(images, indices, preprocessing, generator)`, with `indices` int64 [b], and returns uint8
[b, size, size, c]. Pixels are moved by numpy: torch would wake all of its threads for every picture, and
those are the training's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from deepskip.data.dataset import Images, UniformImages
from deepskip.data.decode import fit, from_pixels
from deepskip.describe.preprocessing import Preprocessing

Augmentation: TypeAlias = Callable[[Images, Tensor, Preprocessing, Generator], Tensor]

PAD = 4
"""Pixels added on each side before a random crop (He et al. 2015, section 4.2)."""
AREA = (0.35, 1.0)
"""Part of a photograph that a random crop keeps; the usual 0.08 needs longer trainings."""
ASPECT = (3 / 4, 4 / 3)
"""Width over height of a random crop."""


def none(images: Images, indices: Tensor, preprocessing: Preprocessing, generator: Generator) -> Tensor:
    """Return the pictures as evaluation sees them; draws nothing."""
    size = preprocessing.size
    if isinstance(images, UniformImages) and images.pixels.shape[1:3] == (size, size):
        return images.gather(indices)
    fitted = [fit(from_pixels(images[index]), preprocessing) for index in indices.tolist()]
    return torch.from_numpy(np.stack(fitted))


def crop_flip(images: Images, indices: Tensor, preprocessing: Preprocessing, generator: Generator) -> Tensor:
    """Pad by `PAD`, crop at random, mirror half of the pictures (He et al. 2015, section 4.2).

    The paper pads mean-subtracted pictures with zeros. These are not yet normalised, so the padding is the
    mean colour, to the nearest of 256 levels: after normalising it is 0 to within half a level.
    """
    pixels = none(images, indices, preprocessing, generator).numpy()
    count, size, _, channels = pixels.shape
    mean = np.round(np.array(preprocessing.mean) * 255).astype(np.uint8)
    padded = np.empty((count, size + 2 * PAD, size + 2 * PAD, channels), np.uint8)
    padded[:] = mean
    padded[:, PAD:-PAD, PAD:-PAD] = pixels
    shifts = torch.randint(2 * PAD + 1, (2, count), generator=generator).numpy()
    # All crops of every picture as one view, [count, 9, 9, c, size, size]; indexing copies the chosen ones.
    crops = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    chosen = crops.transpose(0, 1, 2, 4, 5, 3)[np.arange(count), shifts[0], shifts[1]]
    mirror = (torch.rand(count, generator=generator) < 0.5).numpy()
    chosen[mirror] = chosen[mirror][:, :, ::-1]
    return torch.from_numpy(chosen)


def photo(images: Images, indices: Tensor, preprocessing: Preprocessing, generator: Generator) -> Tensor:
    """Crop a random box, resize it to the input's size, mirror half of the pictures (Szegedy et al. 2015).

    A box has `AREA` of its picture and an `ASPECT` drawn evenly on a logarithmic scale, and is cut to the
    picture where it would be longer; so one draw suffices, where the usual recipe draws again.
    """
    pictures = [images[index] for index in indices.tolist()]
    sides = torch.tensor([picture.shape[:2] for picture in pictures], dtype=torch.float64)
    draws = torch.rand(len(pictures), 5, generator=generator, dtype=torch.float64)
    boxes, mirror = _boxes(sides, draws).tolist(), (draws[:, 4] < 0.5).tolist()
    size = preprocessing.size
    out = np.empty((len(pictures), size, size, preprocessing.channels), np.uint8)
    for index, (top, left, height, width) in enumerate(boxes):
        box = torch.from_numpy(pictures[index][top : top + height, left : left + width].copy())
        resized = functional.interpolate(
            box.permute(2, 0, 1)[None], (size, size), mode=preprocessing.interpolation, antialias=True
        )
        pixels = resized[0].permute(1, 2, 0).numpy()
        out[index] = pixels[:, ::-1] if mirror[index] else pixels
    return torch.from_numpy(out)


AUGMENTS: dict[str, Augmentation] = {"none": none, "crop_flip": crop_flip, "photo": photo}
"""Every augmentation by name."""


def _boxes(sides: Tensor, draws: Tensor) -> Tensor:
    """Return top, left, height, width, int64 [b, 4], of a box in each picture.

    `sides` is height and width, float64 [b, 2]; `draws` are uniform in [0, 1), float64 [b, 4 or more].
    """
    area = sides.prod(1) * (AREA[0] + (AREA[1] - AREA[0]) * draws[:, 0])
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    aspect = torch.exp(low + (high - low) * draws[:, 1])
    box = torch.stack([area / aspect, area * aspect], dim=1).sqrt().round()
    box = torch.minimum(box.clamp(min=1), sides)
    corner = (draws[:, 2:4] * (sides - box + 1)).floor()
    return torch.cat([corner, box], dim=1).long()
