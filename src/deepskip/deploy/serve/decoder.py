"""Bytes to pixels in threads, as everywhere in this program; what is large waits for what is large."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import UnidentifiedImageError

from deepskip.data.dataset import Pixels
from deepskip.data.decode import LargeError, preprocess_file, read_header
from deepskip.deploy.serve.limits import MIB, Limits, RefusedError
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError

THREADS = 8
"""Threads that decode small pictures, at most: the network's own threads need the cores too."""
LARGE_PIXELS, LARGE_BYTES = 8_000_000, 4 * MIB
"""From here on a picture is large: laying 50 million pixels on white takes a gigabyte, and a file of many
megabytes can be made so that reading it takes half a minute."""
TOGETHER = 4
"""Large pictures that are decoded at once, at most, and no more than half as many as small ones."""
SCANS = 100
"""Scans of a JPEG file, at most. Progressive ones have about ten; each takes twenty bytes, and all pixels."""
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
# A scan's first five bytes, which decoders insist on. The first two alone are in any film that a telephone
# has put behind its picture.


class Decoder:
    """Makes network inputs of pictures that anybody may have sent."""

    def __init__(self, preprocessing: Preprocessing, limits: Limits, threads: int | None = None) -> None:
        threads = max(2, threads or min(THREADS, _cores()))
        self._preprocessing = preprocessing
        self._limits = limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="deepskip-decode")
        # Threads of their own: a request that is given up leaves, and what it began is still decoded.
        self._few = ThreadPoolExecutor(min(threads // 2, TOGETHER), thread_name_prefix="deepskip-decode-large")

    async def decode(self, files: Sequence[bytes]) -> list[Pixels]:
        """Return each picture as uint8 [size, size, c].

        Raises RefusedError: 413 for one of too many pixels, 422 for one that cannot be read; the first of them
        is named by its number.
        """
        if len(files) == 1:
            return [await self._decode(files[0], "picture")]
        names = (f"picture {i} of {len(files)}" for i in range(1, len(files) + 1))
        found = await asyncio.gather(*map(self._decode, files, names), return_exceptions=True)
        pixels: list[Pixels] = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            pixels.append(one)
        return pixels

    def close(self) -> None:
        """End the threads."""
        for pool in (self._pool, self._few):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _decode(self, content: bytes, name: str) -> Pixels:
        loop = asyncio.get_running_loop()
        if len(content) <= LARGE_BYTES:
            found = await loop.run_in_executor(self._pool, self._read, content, name, LARGE_PIXELS)
            if found is not None:
                return found
        found = await loop.run_in_executor(self._few, self._read, content, name, self._limits.pixels)
        assert found is not None
        return found

    def _read(self, content: bytes, name: str, small: int) -> Pixels | None:
        """Return the pixels, or None where they are more than are `small`."""
        try:
            if content.startswith(b"\xff\xd8") and _many_scans(content):
                raise RefusedError(422, name, "a JPEG of many scans", f"at most {SCANS}")
            height, width, mode = read_header(content)
            if height * width > self._limits.pixels:
                raise RefusedError(413, name, f"{width} x {height} pixels", self._most())
            if mode == "F":
                raise RefusedError(422, name, "pixels in floating point", "pixels whose range is known")
            return preprocess_file(content, self._preprocessing) if height * width <= small else None
        except InputError as error:
            cause = error.__cause__
            if isinstance(cause, LargeError):  # more than are ever read
                raise RefusedError(413, name, str(cause).partition(" (")[0], self._most()) from error
            # What the library says of it is about the library, and is another thing in its next version.
            strange = isinstance(cause, UnidentifiedImageError)
            got = "not a picture" if strange else "a picture that is damaged or cut short"
            raise RefusedError(422, name, got, error.allowed) from error
        except MemoryError as error:
            raise RefusedError(
                413, name, "more pixels than there is memory for", "a smaller picture"
            ) from error

    def _most(self) -> str:
        return f"at most {self._limits.pixels / 1e6:g} megapixels"


def _many_scans(content: bytes) -> bool:
    return sum(1 for _ in itertools.islice(_SCAN.finditer(content), SCANS + 1)) > SCANS


def _cores() -> int:
    """Return how many cores this process may use, which in a container are not all that the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
