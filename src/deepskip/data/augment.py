"""Training pictures, varied: a batch at a time, as a function of the pictures and a random generator.

Each takes `(images, indices, preprocessing, generator, keep)`, with `indices` int64 [b], and returns uint8
[k, size, size, c]: the pictures at the k positions `keep` (int64, all b by default) of that batch. What is
drawn is drawn for the whole batch, so a picture does not depend on which others are kept. Pixels are moved by
numpy: torch would wake all of its threads for every picture, and those are the training's.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from deepskip.data.dataset import Images, Pixels, UniformImages
from deepskip.data.decode import fit, from_pixels
from deepskip.describe.preprocessing import Preprocessing

PAD = 4
"""Pixels added on each side before a random crop (He et al. 2015, section 4.2)."""
AREA = (0.35, 1.0)
"""Part of a photograph that a random crop keeps; the usual 0.08 needs longer trainings."""
ASPECT = (3 / 4, 4 / 3)
"""Width over height of a random crop."""
ERASED_AREA = (0.02, 0.4)
"""Part of a picture that random erasing paints over (Zhong et al. 2017, section 5.1)."""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Width over height of an erased box (there)."""


class Augmentation(Protocol):
    """A function of this file that shows pictures: see its first lines."""

    def __call__(
        self,
        images: Images,
        indices: Tensor,
        preprocessing: Preprocessing,
        generator: Generator,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Return uint8 [k, size, size, c]."""


def none(
    images: Images,
    indices: Tensor,
    preprocessing: Preprocessing,
    generator: Generator,
    keep: Tensor | None = None,
) -> Tensor:
    """Return the pictures as evaluation sees them; draws nothing."""
    size = preprocessing.size
    indices = indices if keep is None else indices[keep]
    if isinstance(images, UniformImages) and images.pixels.shape[1:3] == (size, size):
        return images.gather(indices)
    out = np.empty((len(indices), size, size, preprocessing.channels), np.uint8)
    for position, index in enumerate(indices.tolist()):
        out[position] = fit(from_pixels(images[index]), preprocessing)
    return torch.from_numpy(out)


def crop_flip(
    images: Images,
    indices: Tensor,
    preprocessing: Preprocessing,
    generator: Generator,
    keep: Tensor | None = None,
) -> Tensor:
    """Pad by `PAD`, crop at random, mirror half of the pictures (He et al. 2015, section 4.2).

    The paper pads mean-subtracted pictures with zeros. These are not yet normalised, so the padding is the
    mean colour, to the nearest of 256 levels: after normalising it is 0 to within half a level.
    """
    shifts = _kept(torch.randint(2 * PAD + 1, (2, len(indices)), generator=generator).T, keep).T.numpy()
    mirror = _kept(torch.rand(len(indices), generator=generator) < 0.5, keep).numpy()
    pixels = none(images, indices, preprocessing, generator, keep).numpy()
    count, size, _, channels = pixels.shape
    padded = np.empty((count, size + 2 * PAD, size + 2 * PAD, channels), np.uint8)
    padded[:] = mean_colour(preprocessing)
    padded[:, PAD:-PAD, PAD:-PAD] = pixels
    # All crops of every picture as one view, [count, 9, 9, c, size, size]; indexing copies the chosen ones.
    crops = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    chosen = crops.transpose(0, 1, 2, 4, 5, 3)[np.arange(count), shifts[0], shifts[1]]
    chosen[mirror] = chosen[mirror][:, :, ::-1]
    return torch.from_numpy(chosen)


def photo(
    images: Images,
    indices: Tensor,
    preprocessing: Preprocessing,
    generator: Generator,
    keep: Tensor | None = None,
) -> Tensor:
    """Crop a random box, resize it to the input's size, mirror half of the pictures (Szegedy et al. 2015).

    A box has `AREA` of its picture and an `ASPECT` drawn evenly on a logarithmic scale, and is cut to the
    picture where it would be longer; so one draw suffices, where the usual recipe draws again.
    """
    # Of the whole batch, though some may be enough: what is vectorised may round otherwise in another place.
    sides = torch.tensor([images[index].shape[:2] for index in indices.tolist()], dtype=torch.float64)
    draws = torch.rand(len(indices), 5, generator=generator, dtype=torch.float64)
    boxes = _kept(_boxes(sides, draws, AREA, ASPECT), keep).tolist()
    mirror = _kept(draws[:, 4] < 0.5, keep).tolist()
    size = preprocessing.size
    out = np.empty((len(boxes), size, size, preprocessing.channels), np.uint8)
    for position, index in enumerate(_kept(indices, keep).tolist()):
        top, left, height, width = boxes[position]
        box = torch.from_numpy(images[index][top : top + height, left : left + width].copy())
        resized = functional.interpolate(
            box.permute(2, 0, 1)[None], (size, size), mode=preprocessing.interpolation, antialias=True
        )
        pixels = resized[0].permute(1, 2, 0).numpy()
        out[position] = pixels[:, ::-1] if mirror[position] else pixels
    return torch.from_numpy(out)


AUGMENTS: dict[str, Augmentation] = {"none": none, "crop_flip": crop_flip, "photo": photo}
"""Every augmentation by name."""


def erase(
    pixels: Tensor,
    probability: float,
    preprocessing: Preprocessing,
    generator: Generator,
    batch: int,
    keep: Tensor | None = None,
) -> None:
    """Paint a random box of some pictures over with the mean colour, in place (Zhong et al. 2017).

    `pixels` is uint8 [k, h, w, c], the pictures at positions `keep` of a batch of `batch`. The paper fills
    with noise or the ImageNet mean and draws again where a box does not fit; here it is cut, as in `photo`.
    """
    height, width = pixels.shape[1:3]
    draws = torch.rand(batch, 5, generator=generator, dtype=torch.float64)
    sides = torch.tensor([[height, width]], dtype=torch.float64).expand(batch, 2)
    boxes = _kept(_boxes(sides, draws, ERASED_AREA, ERASED_ASPECT), keep).tolist()
    chosen = _kept(draws[:, 4] < probability, keep).nonzero()[:, 0].tolist()
    colour, canvas = mean_colour(preprocessing), pixels.numpy()
    for position in chosen:
        top, left, height, width = boxes[position]
        canvas[position, top : top + height, left : left + width] = colour


def mean_colour(preprocessing: Preprocessing) -> Pixels:
    """Return the mean of each channel to the nearest of 256 levels, uint8 [c]: nearly 0 once normalised."""
    return np.round(np.array(preprocessing.mean) * 255).astype(np.uint8)


def _kept(values: Tensor, keep: Tensor | None) -> Tensor:
    return values if keep is None else values[keep]


def _boxes(sides: Tensor, draws: Tensor, area: tuple[float, float], aspect: tuple[float, float]) -> Tensor:
    """Return top, left, height, width, int64 [b, 4], of a box in each picture.

    `sides` is height and width, float64 [b, 2]; `draws` are uniform in [0, 1), float64 [b, 4 or more]. A box
    has a part of its picture drawn evenly from `area` and a width over height drawn evenly, on a logarithmic
    scale, from `aspect`.
    """
    pixels = sides.prod(1) * (area[0] + (area[1] - area[0]) * draws[:, 0])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    ratio = torch.exp(low + (high - low) * draws[:, 1])
    box = torch.stack([pixels / ratio, pixels * ratio], dim=1).sqrt().round()
    box = torch.minimum(box.clamp(min=1), sides)
    corner = (draws[:, 2:4] * (sides - box + 1)).floor()
    return torch.cat([corner, box], dim=1).long()
