"""A heap that holds what is in use, and little else: what a deep step frees goes back to the system in time.

Between the large pieces that a block takes and frees stay small ones that live longer, and what is free between
them fits nothing: a step of a thousand blocks that keeps a few hundred megabytes would take a gigabyte.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from deepskip.training.glibc import glibc

LEAST = 64 * 1024**2  # more often, and the pages that come back new would cost more than they save

_STATM = Path("/proc/self/statm")


class Relief:
    """Gives what is free back to the system whenever the process has grown by `bound` bytes since it last did.

    Called between blocks: it takes microseconds where nothing is to be done. Without effect where the C library
    is not glibc.
    """

    def __init__(self, bound: int) -> None:
        self._bound = max(bound, LEAST)
        self._library = glibc()
        self._least = resident() if self._library else 0
        self.times = 0
        """How often something was given back."""

    def __call__(self) -> None:
        """Look how much the process holds, and give back what is free when that is too much."""
        if self._library is None:
            return
        held = resident()
        self._least = min(self._least, held)
        if held - self._least > self._bound:
            self._library.malloc_trim(0)
            self._least = resident()
            self.times += 1


def resident() -> int:
    """Return the bytes of memory that this process holds (Linux)."""
    return int(_STATM.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
