"""Work done ahead: results in order, computed by threads a little before they are asked for."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController

from deepskip.data.dataset import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, window: int
) -> Generator[Result, None, None]:
    """Yield `work(item)` for every item, in order, with at most `window` results computed or being computed.

    What `work` raises is raised here, in its item's turn. However the consumer leaves (exhausted, an error,
    `close()`), the threads have ended before this generator has. What they compute with PyTorch, each computes
    alone.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="deepskip-ahead", initializer=_compute_alone)
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _compute_alone() -> None:
    """Keep OpenMP, which PyTorch computes with, to this one thread here, and as it is everywhere else.

    Otherwise the first large picture gives this thread a team of its own. There are then more threads than
    cores, and OpenMP no longer lets a team spin while it waits for its next piece of work: the network's team
    falls asleep thousands of times a step, and trains a fifth more slowly for ever after.
    """
    torch.get_num_threads()  # a thread's first use of PyTorch sets its number, and would set it again
    _openmp().limit(limits=1)


@functools.cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")


def reported(results: Iterable[Result], what: str, total: int, progress: Progress | None) -> Iterator[Result]:
    """Pass `results` on, telling `progress` at the start, ten times a second, and at the end."""
    told = float("-inf")
    for done, result in enumerate(results):
        if progress is not None and time.monotonic() - told > 0.1:
            progress(what, done, total)
            told = time.monotonic()
        yield result
    if progress is not None:
        progress(what, total, total)
