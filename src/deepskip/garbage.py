"""Python's collector of garbage, kept from looking through deep nets for nothing.

A net of thousands of blocks is a million Python objects. Every collection goes through them all, building one
sets off many, and none of them is garbage.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

MANY = 5000  # modules, of some 400 blocks; PyTorch itself is about as many objects


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Let nothing be collected inside the block; for a block that makes many objects and no cycles."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@contextlib.contextmanager
def settled(modules: int) -> Iterator[None]:
    """Let collections inside the block leave out what is there at its beginning: a net of so many modules.

    Without effect for nets that are not deep: looking through all that is there once would cost more.
    """
    if modules < MANY or gc.get_freeze_count():  # or somebody else has settled it, and will say when that ends
        yield
        return
    gc.collect()  # what is garbage now would stay for the whole block
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
