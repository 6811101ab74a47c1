"""Ctrl-C and TERM, heard where a run can stop: between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Hear Ctrl-C at the end of the block, not in its middle: a step is taken whole or not at all.

    Does nothing outside the main thread, or where somebody else already handles the signal.
    """
    heard: list[int] = []
    usual = signal.default_int_handler
    ours = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is usual]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, usual)
    if heard:
        raise KeyboardInterrupt
