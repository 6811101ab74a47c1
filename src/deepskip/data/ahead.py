"""Work done ahead: results in order, computed by threads a little before they are asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from deepskip.data.dataset import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, window: int
) -> Generator[Result, None, None]:
    """Yield `work(item)` for every item, in order, with at most `window` results computed or being computed.

    What `work` raises is raised here, in its item's turn. However the consumer leaves (exhausted, an error,
    `close()`), the threads have ended before this generator has.
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="deepskip-ahead")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
