"""Tensors that are a function of their name and shape alone, so that a golden file need not hold them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return float64 values for each name: convolutions keep the scale, statistics are near 0 and 1."""
    return {name: _value(name, shape) for name, shape in shapes.items()}


def images(n: int, channels: int, size: int) -> Tensor:
    """Return float64 images [n, c, h, w]."""
    return _numbers("images", (n, channels, size, size))


def _value(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    numbers = _numbers(name, shape)
    if len(shape) > 1:
        return numbers * math.sqrt(2 / math.prod(shape[1:]))
    if name.endswith(("running_var", "weight")):
        return 1 + 0.2 * numbers.tanh()
    return 0.1 * numbers


def _numbers(name: str, shape: tuple[int, ...]) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
