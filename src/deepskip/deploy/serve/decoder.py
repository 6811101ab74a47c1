"""Bytes to pixels in threads, as everywhere in this program; what is large waits for what is large."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from deepskip.data.dataset import Pixels
from deepskip.data.decode import LargeError, preprocess_file, read_header
from deepskip.deploy.serve.limits import MIB, Limits, RefusedError
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError

LARGE_PIXELS, LARGE_BYTES = 8_000_000, 4 * MIB
"""From here on a picture is large: laying 50 million pixels on white takes a gigabyte, and a file of many
megabytes can be made so that reading it takes half a minute."""
TOGETHER = 4
"""Large pictures that are decoded at once, at most, and in no more than half of the threads."""
SCANS = 100
"""Scans of a JPEG file, at most. Progressive ones have about ten; each takes twenty bytes, and all pixels."""


class Decoder:
    """Makes network inputs of pictures that anybody may have sent."""

    def __init__(self, preprocessing: Preprocessing, limits: Limits, threads: int | None = None) -> None:
        threads = max(2, threads or os.cpu_count() or 1)
        self._preprocessing = preprocessing
        self._limits = limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="deepskip-decode")
        self._few = asyncio.Semaphore(min(threads // 2, TOGETHER))

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
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _decode(self, content: bytes, name: str) -> Pixels:
        loop = asyncio.get_running_loop()
        if len(content) <= LARGE_BYTES:
            found = await loop.run_in_executor(self._pool, self._read, content, name, LARGE_PIXELS)
            if found is not None:
                return found
        async with self._few:
            found = await loop.run_in_executor(self._pool, self._read, content, name, self._limits.pixels)
        assert found is not None
        return found

    def _read(self, content: bytes, name: str, small: int) -> Pixels | None:
        """Return the pixels, or None where they are more than are `small`."""
        try:
            if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > SCANS:
                raise RefusedError(422, name, "a JPEG of many scans", f"at most {SCANS}")
            height, width, _ = read_header(content)
            if height * width > self._limits.pixels:
                raise RefusedError(413, name, f"{width} x {height} pixels", f"at most {self._limits.pixels}")
            return preprocess_file(content, self._preprocessing) if height * width <= small else None
        except InputError as error:
            large = isinstance(error.__cause__, LargeError)
            raise RefusedError(413 if large else 422, name, error.got, error.allowed) from error
        except MemoryError as error:
            raise RefusedError(
                413, name, "more pixels than there is memory for", "a smaller picture"
            ) from error
