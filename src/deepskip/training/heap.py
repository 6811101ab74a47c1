"""The process's heap while it trains: what a step frees stays for the next one, in large pages.

A step takes and frees the same hundreds of megabytes as the step before it. By default the C library gives
large pieces back to the system at once, which then hands out zeroed pages anew, 4 KiB at a time: a tenth to a
fifth of a step's time on a processor, for nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Iterator
from typing import Any

import torch

from deepskip.describe.spec import Spec
from deepskip.training.glibc import glibc
from deepskip.training.memory import free_bytes, needed_bytes
from deepskip.training.way import Way

# Of glibc's malloc.h and Linux's mman.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_HUGE_PAGES = 14
_NEVER = 2**31 - 1
_USUAL = 32 * 1024**2  # what the threshold grows to by itself on 64-bit machines; from there it would stay

_lock = threading.Lock()
_blocks = 0  # that keep the heap at present: one in another, in threads, or of iterators that take turns


def kept_for(
    spec: Spec, images: int, way: Way, device: torch.device
) -> contextlib.AbstractContextManager[None]:
    """Return the context in which steps of `images` images find the memory of the step before.

    Only where steps keep everything: what recomputes takes and frees pieces of many sizes, and wants them back.
    """
    if device.type != "cpu" or way.memory != "store":
        return contextlib.nullcontext()
    return kept(needed_bytes(spec, images, way))


@contextlib.contextmanager
def kept(expected: int) -> Iterator[None]:
    """Let the heap keep what is freed inside the block, with room for about `expected` bytes in large pages.

    After the block the free part goes back to the system. Without effect where the C library is not glibc. The
    room is only promised, and memory used when it is written to. Of several blocks the last to end gives back.
    """
    library = glibc()
    if library is None:
        yield
        return
    _begin(library)
    try:
        _promise(library, expected)
        yield
    finally:
        _end(library)


def _begin(library: Any) -> None:
    global _blocks
    with _lock:
        _blocks += 1
        # Before 2.35 glibc takes no more than its usual; without either the threshold would stay where it is.
        library.mallopt(_MMAP_THRESHOLD, _NEVER) or library.mallopt(_MMAP_THRESHOLD, _USUAL)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)


def _end(library: Any) -> None:
    global _blocks
    with _lock:
        _blocks -= 1
        if _blocks == 0:
            library.mallopt(_MMAP_THRESHOLD, _USUAL)
            library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL)
            library.malloc_trim(0)


def _promise(library: Any, expected: int) -> None:
    """Grow the heap by `expected` bytes that are not written to yet, and ask for large pages there.

    Not by more than is free: where malloc fails, it gives its thread another, lesser heap from then on.
    """
    if expected > free_bytes(torch.device("cpu")):
        return
    start = library.malloc(expected)
    if not start:
        return
    inside = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    library.madvise(inside, (start + expected - inside) // mmap.PAGESIZE * mmap.PAGESIZE, _HUGE_PAGES)
    library.free(start)
