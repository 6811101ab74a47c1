"""Where cells train: how they are asked to stop, and processes of our own."""

from __future__ import annotations

import contextlib
import contextvars
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Asked = Callable[[], bool]

_asked: contextvars.ContextVar[Asked | None] = contextvars.ContextVar("asked", default=None)


def asked_to_stop() -> bool:
    """Return whether the work that runs in this thread should save its state and end."""
    asked = _asked.get()
    return asked is not None and asked()


@contextlib.contextmanager
def listening(asked: Asked) -> Iterator[None]:
    """Let `asked_to_stop`, in this thread and in the block, be what `asked` says."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


@contextlib.contextmanager
def processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield an executor of processes that stop when the block is left: work saves its state and ends."""
    context = multiprocessing.get_context("spawn")  # a forked PyTorch deadlocks in its thread pool
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, initializer=_enter, initargs=(stop,))
    try:
        yield pool
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _enter(stop: Any) -> None:
    _asked.set(stop.is_set)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent hears both signals and sets `stop`
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        # It was killed: nobody waits for the rest, and the cell's state goes on from its last epoch.
        os._exit(1)


@contextlib.contextmanager
def deaf_children() -> Iterator[None]:
    """Let processes that are started in the block ignore Ctrl-C from their first instruction on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
