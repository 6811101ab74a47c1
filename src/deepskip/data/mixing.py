"""Pictures mixed with others of their batch: mixup and cutmix, on uint8 pixels, with exact shares.

Each picture is mixed with the one before it, the first with the last. Batches are shuffled, so that is a
random partner, as the papers' permutation is; and a process that holds a part of a batch needs to build only
one picture more than it keeps.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from deepskip.data.variation import Variation

LEVELS = 256
"""Mixup's share is a whole number of these parts, so that it is exact in integers on every machine."""


class Mix(NamedTuple):
    """How the pictures of one batch are mixed."""

    share: float
    """Part of a mixed picture that is its own, 0 to 1: mixup's weight, cutmix's area outside the box."""
    box: tuple[int, int, int, int] | None
    """Cutmix: top, left, bottom and right of what is pasted, in pixels; None for mixup."""


def draw_mix(variation: Variation, size: int, generator: Generator) -> Mix | None:
    """Return how a batch of `size` x `size` pictures shall be mixed; None when it shall not be.

    One draw serves the whole batch, as in both papers' own programs.
    """
    alphas = [alpha for alpha in (variation.mixup, variation.cutmix) if alpha]
    if not alphas:
        return None
    # torch has no Beta distribution that takes a generator.
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    chosen = int(random.integers(len(alphas)))
    share = float(random.beta(alphas[chosen], alphas[chosen]))
    if variation.mixup and chosen == 0:
        return Mix(round(share * LEVELS) / LEVELS, None)
    # Yun et al. 2019, section 3.1: a box of the picture's aspect, its centre anywhere, cut at the edges.
    side, (row, column) = size * math.sqrt(1 - share), random.random(2) * size
    top, bottom = (min(max(round(row + half), 0), size) for half in (-side / 2, side / 2))
    left, right = (min(max(round(column + half), 0), size) for half in (-side / 2, side / 2))
    return Mix(1 - (bottom - top) * (right - left) / size**2, (top, left, bottom, right))


def mix(pixels: Tensor, partners: Tensor, drawn: Mix) -> Tensor:
    """Return `pixels` with `partners` mixed in: all three uint8 [b, h, w, c]. Mixup rounds halves up."""
    own, other = pixels.numpy(), partners.numpy()
    if drawn.box is None:
        level = round(drawn.share * LEVELS)
        blend = own * np.uint16(level)  # at most 255 * 256, which 16 bits hold, rounding included
        blend += other * np.uint16(LEVELS - level)
        blend += LEVELS // 2
        blend >>= 8
        return torch.from_numpy(blend.astype(np.uint8))
    top, left, bottom, right = drawn.box
    mixed = own.copy()
    mixed[:, top:bottom, left:right] = other[:, top:bottom, left:right]
    return torch.from_numpy(mixed)
