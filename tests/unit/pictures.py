"""Small pictures for tests: written to files, and folders of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image


def quadrants(width: int = 48, height: int = 32) -> Image.Image:
    """Red and green above, blue and white below: every rotation, mirroring and channel swap shows."""
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = slice(0, height // 2), slice(0, width // 2)
    bottom, right = slice(height // 2, None), slice(width // 2, None)
    pixels[top, left], pixels[top, right] = (255, 0, 0), (0, 255, 0)
    pixels[bottom, left], pixels[bottom, right] = (0, 0, 255), (255, 255, 255)
    return Image.fromarray(pixels)


def noise(seed: int, width: int = 40, height: int = 36, channels: int = 3) -> Image.Image:
    """A picture like no other, smooth enough that JPEG keeps it."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), np.uint8)
    image = Image.fromarray(small[..., 0] if channels == 1 else small)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def folder(root: Path, counts: dict[str, int], suffix: str = ".png", **shape: int) -> Path:
    """Write `counts[class]` pictures to `root/<class>/`, every one different."""
    for label, (name, count) in enumerate(counts.items()):
        for index in range(count):
            save(noise(1000 * label + index, **shape), root / name / f"{index:03}{suffix}")
    return root


def cut_short(path: Path) -> Path:
    """Keep the first half of a file's bytes."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def leftovers(cache: Path) -> list[str]:
    """Every file and folder below `cache`, except `stores` itself."""
    found = (os.path.relpath(path, cache) for path in cache.rglob("*"))
    return sorted(path for path in found if path != "stores")
