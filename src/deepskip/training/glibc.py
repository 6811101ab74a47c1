"""The C library that hands out the process's memory, where it is one whose heap can be spoken to."""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any


@functools.cache
def glibc() -> Any:
    """Return the C library, when it is glibc on a 64-bit Linux; None elsewhere."""
    if not sys.platform.startswith("linux") or sys.maxsize < 2**32:
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return None
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library
