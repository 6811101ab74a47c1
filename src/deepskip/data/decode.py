"""A picture file to pixels: any usual format, upright, in the wanted colours, and then to a network's input.

Training, evaluating, predicting and serving all decode here and nowhere else, so they cannot disagree.
Colour profiles are ignored; what is transparent is laid on white, as a page would show it.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from deepskip.data.dataset import Pixels
from deepskip.data.jpeg import load_jpeg
from deepskip.describe.preprocessing import Colour, Preprocessing
from deepskip.errors import InputError

Source: TypeAlias = str | Path | bytes | BinaryIO
"""A file's path, its content, or an open binary file."""

# A closed list: Pillow would also hand a file to Ghostscript (EPS) when its first bytes ask for it.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_ENDINGS = "bmp gif jfif jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Endings of picture files' names, in small letters."""
LARGEST = 120_000_000
"""Pixels in the largest picture that is read. Phones make 108 million; a decompression bomb makes more."""
ELONGATION = 4
"""Longest ratio of sides that is kept; a longer picture loses its ends before it is resized."""
MARGIN = 1.25
"""Shorter side of a training picture, over the input's size: room for random crops."""

_ALLOWED = "a whole JPEG, PNG, WebP, BMP, GIF, TIFF or PPM file"
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class LargeError(ValueError):
    """A picture has more pixels than are read: the cause of an InputError."""


class Glimpse(NamedTuple):
    """A picture file as a quick look shows it."""

    height: int
    """As stored, before it is turned upright."""
    width: int
    mode: str
    """Pillow's name for how its pixels are stored."""
    format: str
    """One of `FORMATS`, whatever the file's name says."""
    orientation: int
    """EXIF's number for how it has to be turned, 1 to 8; 1 is upright."""
    transparent: bool
    animated: bool
    image: Image.Image
    """The pixels, RGB and upright; of a large JPEG fewer of them."""


def read_image(source: Source, colour: Colour, *, name: str | None = None) -> Pixels:
    """Return the picture as uint8 [h, w, c], upright, in `colour`; of an animation, the first frame.

    Raises InputError, naming the file (or `name`), when it is missing, not a picture, cut short or too large.
    """
    return _pixels(load_image(source, colour, name=name))


def preprocess_file(source: Source, preprocessing: Preprocessing, *, name: str | None = None) -> Pixels:
    """Return the picture as a network's input before scaling: uint8 [size, size, c].

    Raises InputError as `read_image` does.
    """
    image = load_image(source, preprocessing.colour, name=name, shorter=preprocessing.resize)
    return fit(image, preprocessing)


def read_header(source: Source) -> tuple[int, int, str]:
    """Return a picture's height and width as stored, and Pillow's name for its mode, decoding nothing else.

    Raises InputError as `read_image` does, but a picture cut short after its header passes.
    """
    with _opened(source, None) as image:
        return image.height, image.width, image.mode


def glimpse(source: Source, side: int) -> Glimpse:
    """Look at a picture, at no more than the pixels needed for `side` by `side`. Raises as `read_image` does.

    It reads every byte, so it fails for the very files that `read_image` fails for; but a JPEG's pixels are
    made at an eighth, a quarter or half of its size where that will do, which is several times faster.
    """
    with _opened(source, None) as image:
        height, width, mode = image.height, image.width, image.mode
        image.draft(None, (side, side))  # None: in the mode it is stored in
        image.load()
        orientation, transparent = _orientation(image), image.has_transparency_data
        seen = _in_colour(_upright(image, image), "RGB")
        seen = seen.copy() if seen is image else seen  # asking for a second frame may move the first
        known = "JPEG" if image.format == "MPO" else str(image.format)  # a JPEG with a second one behind it
        animated = known == image.format and _animated(image)
        return Glimpse(height, width, mode, known, orientation, transparent, animated, seen)


def load_image(
    source: Source, colour: Colour, *, name: str | None = None, shorter: int | None = None
) -> Image.Image:
    """Return the picture as a Pillow image, whole, upright and in `colour`. Raises as `read_image` does.

    Where `shorter` says what the shorter side will be resized to, in pixels, a JPEG much larger than that
    is reduced as it is decoded, to no less than `jpeg.OVERSIZE` times as much.
    """
    with _opened(source, name) as image:
        if isinstance(image, JpegImageFile):
            decoded = load_jpeg(image, shorter)
        else:
            image.load()
            decoded = image
        return _in_colour(_upright(decoded, image), colour)


def fit(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Return a decoded picture as a network's input: uint8 [size, size, c]."""
    resized = resize_shorter(image, preprocessing.resize, preprocessing.interpolation)
    return _pixels(centre_crop(resized, preprocessing.size))


def shrink(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """Return a decoded picture as kept for training: uint8 [h, w, c] with a margin around the input's size.

    Its shorter side is `MARGIN` times the input's size, or as it was when that is less: never enlarged.
    """
    shorter = min(with_margin(preprocessing), *image.size)
    return _pixels(resize_shorter(image, shorter, preprocessing.interpolation))


def with_margin(preprocessing: Preprocessing) -> int:
    """Return the shorter side of training pictures that `shrink` keeps, in pixels."""
    return round(preprocessing.size * MARGIN)


def resize_shorter(image: Image.Image, to: int, interpolation: str) -> Image.Image:
    """Return `image` with its shorter side `to` pixels long, antialiased, its aspect kept.

    Of a picture longer than `ELONGATION`:1 only the middle is kept. The longer side is rounded down, as
    torchvision does, so that weights trained elsewhere see the pixels they were trained on.
    """
    image = _without_far_ends(image)
    width, height = image.size
    shorter = min(width, height)
    if shorter == to:
        return image
    return image.resize((width * to // shorter, height * to // shorter), _RESAMPLING[interpolation])


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the middle `size` x `size` pixels of an image at least that large; halves round to even."""
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def from_pixels(pixels: Pixels) -> Image.Image:
    """Return uint8 [h, w, 1 or 3] as a Pillow image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _pixels(image: Image.Image) -> Pixels:
    return np.array(image, dtype=np.uint8).reshape(image.height, image.width, -1)


def _without_far_ends(image: Image.Image) -> Image.Image:
    # Otherwise 1 x 50 000 pixels, 50 kB in a file, would become 256 x 12 800 000.
    longest = ELONGATION * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = min(image.width, longest), min(image.height, longest)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _upright(image: Image.Image, opened: Image.Image) -> Image.Image:
    """Return `image`, decoded from the file `opened`, turned as that says."""
    orientation = _orientation(opened)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _orientation(opened: Image.Image) -> int:
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF raises what its bytes happen to break; the pixels are whole all the same
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame, which nobody will look at
        return True


def _in_colour(image: Image.Image, colour: Colour) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16 bits to 8 instead of scaling
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("pixels in floating point, whose range is not known")
    elif image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        image = page.convert("RGB")
    return image if image.mode == colour else image.convert(colour)


@contextlib.contextmanager
def _opened(source: Source, name: str | None) -> Iterator[Image.Image]:
    """Yield the picture, its header read; turn whatever reading it raises, here or later, into InputError."""
    named = source if isinstance(source, str | Path) else getattr(source, "name", None)
    where = name or named or "picture"
    try:
        with _QUIET, Image.open(_readable(source), formats=FORMATS) as image:
            if not 0 < image.width * image.height <= LARGEST:
                raise LargeError(f"{image.width} x {image.height} pixels (at most {LARGEST} are read)")
            yield image
    except MemoryError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit, which is higher
        large = LargeError(f"more than {LARGEST} pixels")
        raise InputError(where, str(large), _ALLOWED) from large
    except Exception as error:  # a damaged file makes Pillow raise nearly anything, struct.error to KeyError
        raise InputError(where, _reason(error), _ALLOWED) from error


def _readable(source: Source) -> str | Path | BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str | Path) and os.path.exists(source) and not os.path.isfile(source):
        raise ValueError("not a file")  # opening a pipe would wait for ever
    return source


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


class _Quiet:
    """Silences Pillow's warnings while any thread is inside.

    `warnings.catch_warnings` alone is not for threads: the last to leave would restore the filters that the
    first had set. Here only the first to enter and the last to leave touch them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.|deepskip\.data\.decode")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(kind, error, trace)


_QUIET = _Quiet()
