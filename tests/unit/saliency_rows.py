"""Rows as saliency and landscape make them, and pictures, for what draws them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def saliency_rows(right: int = 8, wrong: int = 8, *, side: int = 32, cells: int = 8) -> list[dict[str, Any]]:
    """Return maps with one warm spot, and gradients of both signs."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(right + wrong):
        ys, xs = np.mgrid[0:cells, 0:cells] / max(cells - 1, 1)
        y, x = rng.random(2)
        label = i % 10
        made.append(
            {
                "image": 100 + i,
                "file": None,
                "label": label,
                "predicted": label if i < right else (label + 3) % 10,
                "confidence": 0.9999 - 0.03 * i,
                "right": i < right,
                "at": "stages.s3.b9",
                "grad_cam": np.exp(-8 * ((ys - y) ** 2 + (xs - x) ** 2)).tolist(),
                "integrated": rng.normal(0, 0.1, (side, side)).tolist(),
            }
        )
    return made


def pictures_of(rows: list[dict[str, Any]], side: int = 32, channels: int = 3) -> list[Any]:
    """Return noise, a picture a row."""
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (side, side, channels), np.uint8) for _ in rows]


def bowl(x: float, y: float) -> float | None:
    """Return a loss that is least in the middle."""
    return 0.02 + 8 * (x * x + 2 * y * y)


def cliff(x: float, y: float) -> float | None:
    """Return a loss of many powers of ten, and none where it is largest."""
    height = 10 * abs(x) + 6 * abs(y) - 2
    return 10**height if height < 12 else None


def landscape_rows(
    *losses: Callable[[float, float], float | None],
    kinds: tuple[str, ...] = ("residual", "plain"),
    line: int = 21,
    plane: int = 11,
    span: float = 1.0,
) -> list[dict[str, Any]]:
    """Return the landscape of a net for each of `losses`."""
    made = []
    for which, (loss_at, kind) in enumerate(zip(losses, kinds, strict=False), 1):
        xs = [round(span * i / (line // 2), 6) for i in range(-(line // 2), line // 2 + 1)] if line else []
        ends = (
            [round(span * i / (plane // 2), 6) for i in range(-(plane // 2), plane // 2 + 1)] if plane else []
        )
        points = [(x, None) for x in xs] + [(x, y) for y in ends for x in ends]
        for x, y in points:
            loss = loss_at(x, y or 0.0)
            made.append(
                {
                    "which": which,
                    "net": f"{'plain' if kind == 'plain' else 'resnet'}56_cifar",
                    "kind": kind,
                    "dimensions": 1 if y is None else 2,
                    "x": x,
                    "y": y,
                    "loss": loss,
                    "error": None if loss is None else 90 * (1 - math.exp(-loss)),
                    "n": 256,
                }
            )
    return made
