"""Bodies that a server had better not fall over: what each is, what may be answered. From a seed, any number.

Used by the tests and by `benchmarks/serve_fuzz.py`.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.unit.pictures import noise, quadrants

RIGHT, WRONG = (200,), (400, 413, 422)
MAY = RIGHT + WRONG
"""What may be answered to a body of which nobody knows what is left of the picture in it."""


class Body(NamedTuple):
    """A request's body."""

    name: str
    content: bytes
    may: tuple[int, ...]
    """Statuses of right answers."""
    kind: str = "application/octet-stream"
    """Its Content-Type."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as a file's content."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file with these numbers in its header, whatever is in it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


@cache
def good() -> dict[str, bytes]:
    """Return pictures that are read, of every kind that is not just any picture."""
    picture = noise(1, 60, 48)
    clear = noise(2, 40, 40).convert("RGBA")
    clear.putalpha(noise(3, 40, 40, 1))
    turned = Image.Exif()
    deep = np.random.default_rng(0).integers(0, 65536, (30, 40)).astype(np.uint16)
    frames = [noise(4, 40, 30), noise(5, 40, 30)]
    found = {
        "one pixel": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
        "one grey pixel": encoded(Image.new("L", (1, 1), 7), "JPEG"),
        "one bit": encoded(Image.new("1", (9, 9), 1), "PNG"),
        "a line": encoded(noise(6, 3000, 1), "PNG"),
        "CMYK": encoded(picture.convert("CMYK"), "JPEG"),
        "CMYK TIFF": encoded(picture.convert("CMYK"), "TIFF"),
        "palette": encoded(picture.quantize(16), "PNG"),
        "transparent": encoded(clear, "PNG"),
        "transparent WebP": encoded(clear, "WEBP", lossless=True),
        "16 bit": encoded(Image.fromarray(deep), "PNG"),
        "progressive": encoded(picture, "JPEG", progressive=True),
        "animated GIF": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated PNG": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "animated WebP": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "bitmap": encoded(picture, "BMP"),
        "PPM": encoded(picture, "PPM"),
        "plain PPM": b"P3 2 1 255 1 2 3 4 5 6",
        "with a tail": encoded(picture, "JPEG") + b"PK\x03\x04 and <script>alert(1)</script>",
        "a page in a comment": encoded(picture, "JPEG", comment=b"<?php system($_GET[0]); ?>"),
        "a GIF that is JavaScript": b"GIF89a/*" + encoded(frames[0], "GIF")[8:] + b"*/=1;alert(1)",
    }
    for orientation in range(1, 9):
        turned[0x0112] = orientation
        found[f"turned {orientation}"] = encoded(quadrants(), "JPEG", exif=turned)
    return found


@cache
def bad() -> dict[str, tuple[bytes, tuple[int, ...]]]:
    """Return what is no picture, is none any more, or is too much of one; and the statuses that say so."""
    zeros = zlib.compressobj(9)
    bomb = b"".join(zeros.compress(bytes(3751) * 1000) for _ in range(30)) + zeros.flush()  # 30,000 lines
    long = zlib.compress(bytes(30_000_000), 9)
    tiff = encoded(noise(7, 30, 20), "TIFF")
    jpeg, webp = encoded(noise(8, 60, 48), "JPEG"), encoded(noise(8, 60, 48), "WEBP")
    gif = encoded(noise(9, 30, 20), "GIF")
    return {
        "text": (b"these are not pixels", (422,)),
        "a page": (b"<!doctype html><script>alert(1)</script>", (422,)),
        "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', (422,)),
        "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run", (422,)),
        "PDF": (b"%PDF-1.7\n1 0 obj<<>>endobj", (422,)),
        "pickle": (b"\x80\x04cposix\nsystem\n(S'true'\ntR.", (422,)),
        "zeros": (bytes(100_000), (422,)),
        "only a signature": (b"\x89PNG\r\n\x1a\n", (422,)),
        "half a JPEG": (jpeg[: len(jpeg) // 2], (422,)),
        "half a WebP": (webp[: len(webp) // 2], (422,)),
        "bomb": (png(30_000, 30_000, 1, 0, bomb), (413,)),
        "colourful bomb": (png(30_000, 30_000, 8, 6, long), (413,)),
        "a bomb's head alone": (png(2**31 - 1, 2**31 - 1, 8, 2, b""), (413,)),
        "no pixels": (png(0, 0, 8, 2, b""), (413, 422)),
        "bomb of text": (png(2, 2, 8, 0, zlib.compress(bytes(6)), (b"zTXt", b"a\0\0" + long)), (422,)),
        "bomb of a colour profile": (
            png(2, 2, 8, 0, zlib.compress(bytes(6)), (b"iCCP", b"a\0\0" + long)),
            (200, 422),
        ),
        "pixels of a bomb in two by two": (png(2, 2, 8, 0, long), (200, 422)),
        "a large GIF around a small one": (gif[:6] + b"\xff\xff\xff\xff" + gif[10:], (413,)),
        "a large JPEG around a small one": (_resized(jpeg), (413,)),
        "a TIFF that goes round": (tiff[:4] + struct.pack("<I", 4) + tiff[8:], (422,)),
        "a TIFF without end": (tiff[:-4] + struct.pack("<I", 8), (200, 422)),
        "many scans": (
            jpeg[:-2] + 5000 * b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00\x00",
            (422,),
        ),
        "many small chunks": (
            png(2, 2, 8, 0, zlib.compress(bytes(6)), *[(b"tEXt", b"a\0b")] * 20_000),
            (200, 422),
        ),
        "a PPM of a thousand million": (b"P6 99999 99999 255\n" + bytes(99), (413,)),
        "a PPM with a strange number": (b"P6 " + b"9" * 5000 + b" 1 255\n", (422,)),
    }


def _resized(jpeg: bytes) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]


def form(*files: bytes, name: str = "file", boundary: str = "b0und") -> tuple[bytes, str]:
    """Return a multipart body with these files, and its Content-Type."""
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="../../../etc/passwd"\r\n\r\n'
    )
    whole = b"".join(head.encode() + file + b"\r\n" for file in files)
    return whole + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def bodies(seed: int) -> Iterator[Body]:
    """Yield hostile bodies without end: every one of the known ones first, then what chance makes of them."""
    chance = random.Random(seed)
    for name, content in good().items():
        yield Body(name, content, RIGHT)
        yield Body(f"{name}, in a form", *_in_form(content, RIGHT))
    for name, (content, may) in bad().items():
        yield Body(name, content, may)
        yield Body(f"{name}, in a form", *_in_form(content, may))
        yield Body(f"{name}, called a picture", content, may, "image/png")
    yield Body("nothing", b"", (400,))
    yield Body("no form", *_in_form(b"", (422,)))
    every = {**good(), **{name: content for name, (content, _) in bad().items()}}
    names = list(every)
    while True:
        name = chance.choice(names)
        content = _damaged(chance, every[name], every[chance.choice(names)])
        way = chance.random()
        if way < 0.5:
            yield Body(f"damaged {name}", content, MAY, chance.choice(_KINDS))
        elif way < 0.75:
            yield Body(f"damaged {name}, in a form", *_in_form(content, MAY))
        else:
            whole, kind = form(*[content] * chance.randint(1, 3), name=chance.choice(["file", "file", "f", ""]))
            yield Body(f"{name}, in a damaged form", _damaged(chance, whole, content), MAY, kind)


_KINDS = (
    "application/octet-stream",
    "image/jpeg",
    "image/png",
    "",
    "text/html",
    "application/json",
    "\xff",
    "a/b; c",
)


def _in_form(content: bytes, may: tuple[int, ...]) -> tuple[bytes, tuple[int, ...], str]:
    whole, kind = form(content)
    return whole, may, kind


def _damaged(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Return `content` cut, doubled, spoilt in some bytes, or with some of `other` in it."""
    made = bytearray(content[:200_000])
    for _ in range(chance.choice([1, 1, 1, 2, 5, 30])):
        at, size = chance.randrange(len(made) + 1), chance.randrange(1, 64)
        match chance.randrange(6):
            case 0:
                del made[at:]
            case 1:
                del made[at : at + size]
            case 2:
                made[at:at] = chance.randbytes(size)
            case 3:
                made[at : at + 1] = bytes([chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])])
            case 4:
                start = chance.randrange(len(other) + 1)
                made[at:at] = other[start : start + size * chance.choice([1, 100])]
            case _:
                made[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    return bytes(made)
