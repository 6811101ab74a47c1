"""JPEG files to pixels, no larger than needed: by simplejpeg where there is one, else by Pillow, bits alike.

Both are libjpeg-turbo underneath, and both are asked for the same: the accurate integer transform, smooth
upsampling of colours, and one of the scales 1, 1/2, 1/4 and 1/8, at which libjpeg can decode at once
(`docs/decisions/0007-pictures.md` has what that saves and what it changes).
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

OVERSIZE = 2
"""A reduced picture's shorter side, over the wanted one, at least: antialiased resizing does the rest."""
REDUCTIONS = (8, 4, 2)
"""What libjpeg can divide sides by, and both libraries offer."""
_COLOURS = {"L": "GRAY", "RGB": "RGB"}

_simplejpeg: Any = None
if importlib.util.find_spec("simplejpeg"):
    _simplejpeg = importlib.import_module("simplejpeg")


def reduction(width: int, height: int, shorter: int | None) -> int:
    """Return by how much a picture is reduced as it is decoded: 1, 2, 4 or 8.

    `shorter` is what its shorter side will be resized to, in pixels; None when it shall stay as it is. Only a
    divisor of both sides will do: libjpeg rounds up, and what it makes up at an edge would shift the picture
    against one that is decoded whole. Cameras' sizes can nearly all be divided.
    """
    if shorter is None:
        return 1
    for by in REDUCTIONS:
        divides = width % by == height % by == 0
        if divides and min(width, height) >= by * OVERSIZE * shorter:
            return by
    return 1


def load_jpeg(image: JpegImageFile, shorter: int | None) -> Image.Image:
    """Return the pixels of a JPEG whose header is read: whole, or reduced as `reduction` says; not yet turned.

    Raises what Pillow raises when the file is cut short or damaged, whichever library is installed.
    """
    by = reduction(*image.size, shorter)
    size = image.width // by, image.height // by
    if _simplejpeg is not None and image.mode in _COLOURS:
        decoded = _by_simplejpeg(image, size)
        if decoded is not None:
            return decoded
    if by > 1:
        image.draft(None, size)
    image.load()
    return image


def _by_simplejpeg(image: JpegImageFile, size: tuple[int, int]) -> Image.Image | None:
    """Return the picture at `size` (width, height), or None when it is not entirely as it should be.

    What to do with such a file, repair or refuse it, is then Pillow's to say, as it is where there is no other.
    """
    assert image.fp is not None
    image.fp.seek(0)
    content = image.fp.read()
    try:
        pixels = _simplejpeg.decode_jpeg(
            content, _COLOURS[image.mode], min_width=size[0], min_height=size[1], strict=True
        )
    except ValueError:
        return None
    if pixels.shape[:2] != size[::-1]:  # one of the scales that Pillow does not have
        return None
    return Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels)
